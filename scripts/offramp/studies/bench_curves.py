"""Benchmark of thresholds over their whole range: what each way needs at equal test accuracy, and
accuracy over multiply-adds, as papers draw it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from offramp.scoring.policy import Policy
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import fitting_part
from offramp.studies.bench_live import row
from offramp.studies.bench_thresholds import RATIOS, ThresholdData, costs_each, full_cost
from offramp.studies.frontiers import (
    Validation,
    along_frontier,
    multiply_adds_each,
    outcomes,
    resamples,
    seconds_at,
    shared_policies,
    undominated,
    with_interval,
)
from offramp.studies.opponents import earlyon, geometric
from offramp.thresholds.survivors import Thresholds

# Points of accuracy lost on test data against the full network.
POINTS_LOST = (0.5, 1.0)
# What earlyon is asked to lose at most, on validation data.
DROPS = np.linspace(0, 0.03, 16)
# The cascades of budgeted batch classification: in words, and which of `families`.
BUDGETED = {
    "budgeted, joint of deferral": "joint of deferral by multiply-adds",
    "budgeted, joint of entropy": "joint by multiply-adds",
    "budgeted, geometric shares": "MSDNet's geometric shares",
}


class Family(NamedTuple):
    """Policies over the range of one way to choose them: the ``criterion`` that gives the scores,
    and ``val``, validation data under it."""

    criterion: str
    val: Validation
    policies: list[Policy]

    def spent(self, data: ThresholdData, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """Which samples of the test data are right, bool (N, M), and what each costs, float64 (N,
        M), under those policies that no other beats in that unit and expected accuracy on
        validation data. The full network is one of them all."""
        cost = costs_each(data)[unit]
        nobody = Policy("entropy", (None,) * (data.logits.shape[1] - 1))
        kept = undominated([*self.policies, nobody], self.val, cost)
        return outcomes(kept, *data.scores[self.criterion]["test"], cost)


def families(data: ThresholdData) -> dict[str, Family]:
    """By the way to choose: of RC-EENN and Pareto Testing the policies among which they choose."""
    expected, costs = expected_correct(data.logits, data.labels), data.costs
    val = {name: Validation(*splits["val"], expected) for name, splits in data.scores.items()}
    shared = {
        criterion: Family(criterion, split, shared_policies("entropy", split, data.model))
        for criterion, split in val.items()
    }
    by_drop = [earlyon(data.logits, data.labels, data.multiply_adds, drop) for drop in DROPS]
    by_ratio = [geometric(val["max_probability"].scores, ratio) for ratio in RATIOS]
    scores, correct, _ = (part[: fitting_part(len(expected))] for part in val["entropy"])
    half = Validation(scores, correct, correct.astype(np.float64))
    front = along_frontier("entropy", half, costs["seconds"])
    by_way = {
        "earlyon 0.3.0": _family("entropy", val, by_drop),
        "MSDNet's geometric shares": _family("max_probability", val, by_ratio),
        "PCEE": shared["like confidence"],
        "one cutoff of max probability (RC-EENN's)": shared["max_probability"],
        "a half's front (Pareto Testing's)": Family("entropy", val["entropy"], front),
    }
    for criterion, suffix in (("entropy", ""), ("deferral", " of deferral")):
        by_way[f"shared cutoff{suffix}"] = shared[criterion]
        for unit, unit_costs in costs.items():
            along = along_frontier("entropy", val[criterion], unit_costs)
            by_way[f"joint{suffix} by {unit}"] = Family(criterion, val[criterion], along)
    return by_way


def _family(
    criterion: str, val: Mapping[str, Validation], thresholds: Sequence[Thresholds]
) -> Family:
    return Family(criterion, val[criterion], [Policy("entropy", t) for t in thresholds])


def over_the_range(
    data: ThresholdData, published: Mapping[str, Sequence[tuple[float, float]]]
) -> list[dict]:
    """Both comparisons of all `families`, and the ``published`` points of others, multiply-adds and
    accuracy."""
    by_way = families(data)
    return at_equal_accuracy(data, by_way) + over_multiply_adds(data, by_way, published)


def at_equal_accuracy(data: ThresholdData, by_way: Mapping[str, Family]) -> list[dict]:
    """The speed-up over the full network, by unit, at which each way loses POINTS_LOST on test
    data, with the 95 % interval of the bootstrap over test samples, the same draws for all. Where
    its policies are not accurate enough, the full network answers."""
    final, rows = data.scores["entropy"]["test"][1][:, -1], []
    weight = resamples(len(final))
    full_accuracy = weight @ final.astype(np.float32) / len(final)
    wanted = full_accuracy[:, None] - np.array(POINTS_LOST) / 100
    for name, family in by_way.items():
        for unit, cost in costs_each(data).items():
            right, spent = family.spent(data, unit)
            accuracy = weight @ right.astype(np.float32) / len(final)
            full = full_cost(data, cost, len(final))
            needed = seconds_at(accuracy, weight @ spent.astype(np.float32), wanted)
            faster = full / np.minimum(needed, full)
            for lost, values in zip(POINTS_LOST, faster.T, strict=True):
                for end, value in with_interval(f"{lost:g} points lost, in {unit}", values).items():
                    assert value is not None
                    where = {"case": end.replace("_", ", ")}
                    rows.append(row("equal accuracy", name, 1, value, "speed-up", **where))
    return rows


def over_multiply_adds(
    data: ThresholdData,
    by_way: Mapping[str, Family],
    published: Mapping[str, Sequence[tuple[float, float]]],
) -> list[dict]:
    """Accuracy on test data over multiply-adds an image: of every exit where all samples answer
    there, all heads up to it being run (anytime prediction); of cascades, by the mean (budgeted
    batch classification); and as published."""
    correct, exits = data.scores["entropy"]["test"][1], data.logits.shape[1]
    spent = multiply_adds_each(data.multiply_adds, np.arange(exits) + 1, np.ones((2, exits)))
    points = {"anytime": zip(spent, correct.mean(axis=0), strict=True)}
    for words, name in BUDGETED.items():
        right, spent = by_way[name].spent(data, "multiply-adds")
        points[words] = zip(spent.mean(axis=0), right.mean(axis=0), strict=True)
    curves = {**points, **{f"{name}, published": curve for name, curve in published.items()}}
    return [
        row("multiply-adds", name, number, value, unit, case=unit)
        for name, curve in curves.items()
        for number, point in enumerate(curve, 1)
        for unit, value in zip(("multiply-adds", "accuracy"), point, strict=True)
    ]
