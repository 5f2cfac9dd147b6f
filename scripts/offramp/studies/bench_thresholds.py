"""Benchmark of thresholds: found on the same validation logits by us, by earlyon and as the best
shared cutoff; judged once on test data, in predicted seconds and in multiply-adds."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.common.intervals import paired_difference
from offramp.common.progress import progress
from offramp.scoring.criteria import scores_of
from offramp.scoring.deferral import deferral_table
from offramp.scoring.policy import Policy, exits_of, shared_cutoff
from offramp.scoring.scores import fitting_part, scores_left_out, weights_of
from offramp.studies.bench_live import row
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
# How often each is timed, interleaved.
TURNS = 3


def thresholds_of_others(
    logits: np.ndarray,
    labels: np.ndarray,
    test_logits: np.ndarray,
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    multiply_adds: np.ndarray,
    model: TimeModel,
) -> list[dict]:
    """Thresholds that lose at most MAX_DROP: on the validation data, as others choose them, or
    promised for new data with CONFIDENCE, as the pipeline does. Seconds to find them, and what they
    do on test data.

    Parameters: ``logits`` float32 (N, K, C) and ``labels`` int64 (N,) of the validation split,
    ``test_logits`` of the test split, ``scores`` entropy and correctness (N, K) of val and test;
    ``multiply_adds`` int (2, K). By entropy, and by deferral, whose weights are there already.
    """
    counted = linear_costs(*multiply_adds.astype(np.float64))
    timed, data = costs_of(model), scores["val"]
    known = CalibrationData(*data, logits, labels)
    by_deferral = _scores_by_deferral(logits, labels, scores, test_logits)
    fitted, by_fitted = known._replace(scores=by_deferral["val"][0]), by_deferral["val"]
    methods: dict[str, Callable[[], Thresholds]] = {
        "earlyon 0.3.0, on val": lambda: _earlyon(logits, labels, multiply_adds),
        "best shared cutoff, on val": lambda: _shared(*data, model),
        "joint by multiply-adds, on val": lambda: _joint(known, counted),
        "joint by seconds, on val": lambda: _joint(known, timed),
        "best shared cutoff, promised": lambda: _promised(known, None, model),
        "that or joint by multiply-adds, promised": lambda: _promised(known, counted, model),
        "that or joint by seconds, promised": lambda: _promised(known, timed, model),
        "best shared cutoff of deferral, on val": lambda: _shared(*by_fitted, model),
        "joint of deferral by multiply-adds, on val": lambda: _joint(fitted, counted),
        "best shared cutoff of deferral, promised": lambda: _promised(fitted, None, model),
        "that or joint of deferral by multiply-adds, promised": lambda: _promised(
            fitted, counted, model
        ),
    }
    import earlyon  # noqa: F401 - its import is no part of what is timed

    rows = []
    for turn in progress(range(1, TURNS + 1), "thresholds", "turn"):
        for name, method in methods.items():
            start = time.perf_counter()
            thresholds = method()
            spent = time.perf_counter() - start
            rows.append(row("thresholds", name, turn, spent, "seconds", case="to find"))
            if turn == 1:
                judges = by_deferral if "deferral" in name else scores
                found = judged(thresholds, judges, multiply_adds, model)
                for case, (value, unit) in found.items():
                    rows.append(row("thresholds", name, 1, value, unit, case=case))
    return rows


def _scores_by_deferral(
    logits: np.ndarray,
    labels: np.ndarray,
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    test_logits: np.ndarray,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Deferral and correctness (N, K) of val and test, as rule `scores` makes them."""
    table = deferral_table(logits, labels)
    on_test = scores_of("deferral", test_logits, weights=weights_of(table))
    found = {"val": scores_left_out(table, logits), "test": on_test}
    return {split: (values, scores[split][1]) for split, values in found.items()}


def judged(
    thresholds: Thresholds,
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    multiply_adds: np.ndarray,
    model: TimeModel,
) -> dict[str, tuple[float, str]]:
    """What thresholds do: the loss on val and on test with its paired 95 % interval, and on test
    the speed-up over the full network, in predicted seconds and in multiply-adds."""
    policy, found = Policy("entropy", thresholds), {}
    taken = {split: exits_of(values, thresholds) for split, (values, _) in scores.items()}
    for split, (_, correct) in scores.items():
        right = correct[np.arange(len(correct)), taken[split] - 1]
        loss, low, high = paired_difference(correct[:, -1], right)
        for end, value in (("", loss), (", low", low), (", high", high)):
            found[f"{split} loss{end}"] = 100 * value, "points"
    speedup = evaluate(*scores["test"], policy, model)["speedup"]
    spent = (multiply_adds[0] + multiply_adds[1] * policy.runs[0]).cumsum()[taken["test"] - 1]
    full = multiply_adds[0].sum() + multiply_adds[1, -1]
    found["in predicted seconds"] = float(speedup), "speed-up"
    found["in multiply-adds"] = float(full / spent.mean()), "speed-up"
    return found


def _joint(data: CalibrationData, costs: Costs) -> Thresholds:
    """The fastest that neither is expected nor counted to lose more."""
    least = _allowed(data.correct)
    levels = np.arange(least, len(data.correct) + 1)
    frontier = joint_frontier(data.scores, expected_of(data), costs, levels)
    for i in range(int(np.searchsorted(frontier.correct, least)), len(frontier.cost)):
        if accuracy_drop(data.scores, data.correct, frontier.thresholds(i)) <= MAX_DROP:
            return frontier.thresholds(i)
    return (None,) * (data.scores.shape[1] - 1)


def _allowed(correct: np.ndarray) -> float:
    return correct[:, -1].sum() - MAX_DROP * len(correct)


def _cutoffs(scores: np.ndarray) -> np.ndarray:
    return np.unique(scores[:, :-1])[:: max(1, scores.size // CUTOFFS)]


def _shared(scores: np.ndarray, correct: np.ndarray, model: TimeModel) -> Thresholds:
    cutoffs = _cutoffs(scores)
    result = sweep_split(scores, correct, cutoffs, model)
    total = np.where(
        result["correct"].sum(axis=1) >= _allowed(correct),
        result["seconds"].sum(axis=1),
        np.inf,
    )
    return (float(cutoffs[total.argmin()]),) * (scores.shape[1] - 1)


def _promised(data: CalibrationData, costs: Costs | None, model: TimeModel) -> Thresholds:
    """Chosen as the pipeline does: of shared cutoffs, tested on all of the data, and, where there
    are ``costs``, of thresholds fitted jointly to one half of it and tested on the other."""
    scores, correct = data.scores, data.correct
    assert data.logits is not None
    top = np.log(data.logits.shape[2])  # of entropy; of the tested scores nothing is asked
    made: list[tuple[Policy, dict[str, Any]]] = [
        (shared_cutoff(c, scores.shape[1] - 1), {"cutoff": float(c)})
        for c in np.linspace(0, top, CUTOFFS)
    ]
    if costs:
        half = data.sample(np.arange(fitting_part(len(scores))))
        targets = half.correct[:, -1].mean() - np.linspace(-MAX_DROP, MAX_DROP, TARGETS)
        found = thresholds_for({"method": "joint"}, half, targets, costs)
        made += [
            (Policy("entropy", thresholds), {"calibrated_on": "val_half", "target": float(target)})
            for target, thresholds in zip(targets, found, strict=True)
        ]
    candidates = [candidate_on(scores, correct, policy, model, origin) for policy, origin in made]
    best = fastest_within_drop(candidates, max_drop=MAX_DROP, confidence=CONFIDENCE)
    return best.policy.thresholds if best else (None,) * (scores.shape[1] - 1)


def _earlyon(logits: np.ndarray, labels: np.ndarray, multiply_adds: np.ndarray) -> Thresholds:
    """earlyon's own calibration, its network being the table: images are the rows' logits, and the
    forward pass only takes them apart."""
    from earlyon import EarlyExitConfig, ExitPoint
    from earlyon.core.thresholds import calibrate_thresholds

    side = logits.shape[1] - 1
    points = [ExitPoint(f"exit_{k + 1}", f"exit_{k + 1}", 1) for k in range(side)]
    config = EarlyExitConfig(
        backbone="a table",
        exit_points=points,
        num_classes=logits.shape[2],
        routing_policy="entropy",
        entropy_thresholds=[0.0] * side,
    )
    spent = (multiply_adds[0].cumsum() / multiply_adds[0].sum())[:-1]
    flops = {point.layer_name: float(s) for point, s in zip(points, spent, strict=True)}
    forward: Any = _Table(config, flops)
    loader: Any = [(torch.from_numpy(logits), torch.from_numpy(labels))]
    found = calibrate_thresholds(forward, loader, target_accuracy_drop=MAX_DROP)
    return tuple(
        t if on else None for t, on in zip(found.thresholds, found.enabled_exits, strict=True)
    )


class _Table:
    """What earlyon asks of its wrapper."""

    def __init__(self, config: Any, flops: dict[str, float]):
        self.config, self._flops_at, self.training = config, flops, False

    def to(self, _: str) -> "_Table":
        return self

    def eval(self) -> None:
        """Nothing here trains."""

    def train(self, _: bool) -> None:
        """Nothing here trains."""

    def __call__(self, x: Tensor, mode: str) -> list[Tensor]:
        return list(x.unbind(1))
