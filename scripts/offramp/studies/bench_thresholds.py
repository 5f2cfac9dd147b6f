"""Benchmark of thresholds: found on the same validation logits by us and by others, at the same
promise; judged once on test data, in predicted seconds and in multiply-adds."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from offramp.common.intervals import paired_difference
from offramp.common.progress import progress
from offramp.scoring.criteria import scores_of
from offramp.scoring.deferral import deferral_table
from offramp.scoring.policy import Policy, exits_of, shared_cutoff
from offramp.scoring.scores import fitting_part, scores_left_out, weights_of
from offramp.studies.bench_live import row
from offramp.studies.frontiers import (
    Cost,
    multiply_adds_each,
    resamples,
    seconds_each,
    with_interval,
)
from offramp.studies.opponents import (
    earlyon,
    geometric,
    inaccuracy,
    pareto_front,
    pareto_tested,
    reliability,
    risk_controlled,
)
from offramp.thresholds.calibration import CalibrationData, expected_of, thresholds_for
from offramp.thresholds.evaluation import accuracy_drop, evaluate
from offramp.thresholds.joint import Costs, costs_of, joint_frontier, linear_costs
from offramp.thresholds.selection import candidate_on, fastest_within_drop
from offramp.thresholds.survivors import Thresholds
from offramp.thresholds.sweep import sweep_split
from offramp.thresholds.time_model import TimeModel

MAX_DROP, CONFIDENCE = 0.005, 0.9
CUTOFFS = 2_000
# Where a loss is promised: this many accuracies, from MAX_DROP above the full network's to MAX_DROP
# below (what is fitted to the data looks better on them than it is).
TARGETS = 21
# By how much shares of those who leave fall or rise from exit to exit.
RATIOS = np.geomspace(0.05, 20, 121)
# How often each is timed, interleaved.
TURNS = 3


class ThresholdData(NamedTuple):
    """What thresholds are chosen from and judged by: ``logits`` float32 (N, K, C) and ``labels``
    int64 (N,) of the validation split; by criterion and split, ``scores`` float64 (N, K) and
    correctness bool (N, K); ``multiply_adds`` int (2, K) of blocks and heads; the time model."""

    logits: np.ndarray
    labels: np.ndarray
    scores: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
    multiply_adds: np.ndarray
    model: TimeModel

    def val(self, criterion: str) -> CalibrationData:
        """The validation data under a criterion."""
        return CalibrationData(*self.scores[criterion]["val"], self.logits, self.labels)

    @property
    def costs(self) -> dict[str, Costs]:
        """By their unit."""
        return {
            "multiply-adds": linear_costs(*self.multiply_adds.astype(np.float64)),
            "seconds": costs_of(self.model),
        }


def threshold_data(
    logits: np.ndarray,
    labels: np.ndarray,
    test_logits: np.ndarray,
    entropy: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *rest: Any,
) -> ThresholdData:
    """All of it, from the logits of val and test and the ``entropy`` and correctness of both.

    Max probability is what others go by. Deferral is fitted to validation data as rule `scores`
    does; ``like confidence``, PCEE's scores, to the same samples that it scores there.
    """
    table, val = deferral_table(logits, labels), scores_of("max_probability", logits)
    diagrams = reliability(val, entropy["val"][1])
    test = scores_of("max_probability", test_logits)
    by_criterion = {
        "deferral": (
            scores_left_out(table, logits),
            scores_of("deferral", test_logits, weights=weights_of(table)),
        ),
        "max_probability": (val, test),
        "like confidence": (inaccuracy(val, diagrams), inaccuracy(test, diagrams)),
    }
    scores = {
        criterion: {
            split: (values, entropy[split][1])
            for split, values in zip(("val", "test"), both, strict=True)
        }
        for criterion, both in by_criterion.items()
    }
    return ThresholdData(logits, labels, {"entropy": entropy, **scores}, *rest)


class Way(NamedTuple):
    """The criterion by whose scores samples leave, and what finds the thresholds."""

    criterion: str
    find: Callable[[], Thresholds]


def ways(data: ThresholdData) -> dict[str, Way]:
    """Every way to choose thresholds that lose at most MAX_DROP: on the validation data (``on
    val``), or ``promised`` for new data with CONFIDENCE."""
    all_ways = {
        "earlyon 0.3.0, on val": Way(
            "entropy", partial(earlyon, data.logits, data.labels, data.multiply_adds, MAX_DROP)
        ),
        "MSDNet's geometric shares, on val": Way("max_probability", partial(_geometric, data)),
        "PCEE, on val": Way("like confidence", partial(_shared, data, "like confidence")),
        "RC-EENN, promised": Way("max_probability", partial(_risk_controlled, data)),
        "Pareto Testing, promised": Way("entropy", partial(_pareto_tested, data)),
    }
    for criterion, suffix in (("entropy", ""), ("deferral", " of deferral")):
        ours: dict[str, Callable[[], Thresholds]] = {
            f"best shared cutoff{suffix}, on val": partial(_shared, data, criterion),
            f"best shared cutoff{suffix}, promised": partial(_promised, data, criterion, None),
        }
        for unit, costs in data.costs.items():
            promised = partial(_promised, data, criterion, costs)
            ours |= {
                f"joint{suffix} by {unit}, on val": partial(_joint, data.val(criterion), costs),
                f"that or joint{suffix} by {unit}, promised": promised,
            }
        all_ways |= {name: Way(criterion, find) for name, find in ours.items()}
    return all_ways


def at_equal_promise(data: ThresholdData) -> list[dict]:
    """Seconds to find the thresholds of all `ways`, and what they do on test data."""
    import earlyon.core.thresholds  # noqa: F401 - its import is no part of what is timed

    rows = []
    for turn in progress(range(1, TURNS + 1), "thresholds", "turn"):
        for name, (criterion, find) in ways(data).items():
            start = time.perf_counter()
            thresholds = find()
            spent = time.perf_counter() - start
            rows.append(row("thresholds", name, turn, spent, "seconds", case="to find"))
            if turn == 1:
                for case, (value, unit) in judged(thresholds, criterion, data).items():
                    rows.append(row("thresholds", name, 1, value, unit, case=case))
    return rows


def judged(
    thresholds: Thresholds, criterion: str, data: ThresholdData
) -> dict[str, tuple[float, str]]:
    """What thresholds do: the loss on val and on test with its paired 95 % interval, and on test
    the speed-up over the full network, in predicted seconds and in multiply-adds, each with its 95
    % interval of the bootstrap over test samples."""
    runs, figures = Policy("entropy", thresholds).runs, {}
    for split, (values, correct) in data.scores[criterion].items():
        taken = exits_of(values, thresholds)
        right = correct[np.arange(len(correct)), taken - 1]
        drop = paired_difference(correct[:, -1], right)
        for end, value in zip(("", ", low", ", high"), drop, strict=True):
            figures[f"{split} loss{end}"] = 100 * value, "points"
    for unit, cost in costs_each(data).items():
        total = resamples(len(taken)) @ cost(taken, runs).astype(np.float32)
        faster = full_cost(data, cost, len(taken)) / total
        for end, speedup in with_interval(f"in {unit}", faster).items():
            assert speedup is not None
            figures[end.replace("_", ", ")] = speedup, "speed-up"
    return figures


def costs_each(data: ThresholdData) -> dict[str, Cost]:
    """What each sample costs, by unit."""
    return {
        "predicted seconds": partial(seconds_each, data.model),
        "multiply-adds": partial(multiply_adds_each, data.multiply_adds),
    }


def full_cost(data: ThresholdData, cost: Cost, samples: int) -> float:
    """What the full network costs for so many samples."""
    exits = data.multiply_adds.shape[1]
    final = np.arange(exits) == exits - 1
    return float(cost(np.full(samples, exits), np.stack([final, final])).sum())


def _joint(val: CalibrationData, costs: Costs) -> Thresholds:
    """The fastest that neither is expected nor counted to lose more."""
    least = _least_correct(val.correct)
    levels = np.arange(least, len(val.correct) + 1)
    frontier = joint_frontier(val.scores, expected_of(val), costs, levels)
    for i in range(int(np.searchsorted(frontier.correct, least)), len(frontier.cost)):
        if accuracy_drop(val.scores, val.correct, frontier.thresholds(i)) <= MAX_DROP:
            return frontier.thresholds(i)
    return (None,) * (val.scores.shape[1] - 1)


def _least_correct(correct: np.ndarray) -> float:
    return correct[:, -1].sum() - MAX_DROP * len(correct)


def _shared(data: ThresholdData, criterion: str) -> Thresholds:
    """The fastest shared cutoff that is not counted to lose more."""
    scores, correct = data.scores[criterion]["val"]
    cutoffs = np.unique(scores[:, :-1])
    cutoffs = cutoffs[:: max(1, len(cutoffs) // CUTOFFS)]
    result = sweep_split(scores, correct, cutoffs, data.model)
    total = np.where(
        result["correct"].sum(axis=1) >= _least_correct(correct),
        result["seconds"].sum(axis=1),
        np.inf,
    )
    best = total.argmin()
    return (float(cutoffs[best]) if total[best] < np.inf else None,) * (scores.shape[1] - 1)


def _geometric(data: ThresholdData) -> Thresholds:
    """The fastest geometric shares that are not counted to lose more."""
    scores, correct = data.scores["max_probability"]["val"]
    best, least = (None,) * (scores.shape[1] - 1), np.inf
    for thresholds in {geometric(scores, ratio) for ratio in RATIOS}:
        if accuracy_drop(scores, correct, thresholds) <= MAX_DROP:
            policy = Policy("max_probability", thresholds)
            seconds = evaluate(scores, correct, policy, data.model)["seconds"][0]
            if seconds < least:
                best, least = thresholds, seconds
    return best


def _risk_controlled(data: ThresholdData) -> Thresholds:
    scores, correct = data.scores["max_probability"]["val"]
    cutoffs = np.linspace(0, 1 - 1 / data.logits.shape[2], CUTOFFS)
    return risk_controlled(scores, correct, cutoffs, MAX_DROP, CONFIDENCE)


def _pareto_tested(data: ThresholdData) -> Thresholds:
    scores, correct = data.scores["entropy"]["val"]
    half = fitting_part(len(scores))
    front = pareto_front(scores[:half], correct[:half], data.costs["seconds"], 2 * MAX_DROP)
    return pareto_tested(front, scores[half:], correct[half:], MAX_DROP, CONFIDENCE)


def _promised(data: ThresholdData, criterion: str, costs: Costs | None) -> Thresholds:
    """Chosen as the pipeline does: of shared cutoffs, tested on all of the data, and, where there
    are ``costs``, of thresholds fitted jointly to one half of it and tested on the other."""
    val = data.val(criterion)
    scores, correct = val.scores, val.correct
    top = np.log(data.logits.shape[2])  # of entropy; of the tested scores nothing is asked
    policies: list[tuple[Policy, dict[str, Any]]] = [
        (shared_cutoff(c, scores.shape[1] - 1), {"cutoff": float(c)})
        for c in np.linspace(0, top, CUTOFFS)
    ]
    if costs:
        half = val.sample(np.arange(fitting_part(len(scores))))
        targets = half.correct[:, -1].mean() - np.linspace(-MAX_DROP, MAX_DROP, TARGETS)
        fitted = thresholds_for({"method": "joint"}, half, targets, costs)
        policies += [
            (Policy("entropy", thresholds), {"calibrated_on": "val_half", "target": float(target)})
            for target, thresholds in zip(targets, fitted, strict=True)
        ]
    candidates = [candidate_on(scores, correct, p, data.model, origin) for p, origin in policies]
    best = fastest_within_drop(candidates, max_drop=MAX_DROP, confidence=CONFIDENCE)
    return best.policy.thresholds if best else (None,) * (scores.shape[1] - 1)
