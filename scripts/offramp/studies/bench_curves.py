"""Benchmark of thresholds over their whole range: what each way needs at equal test accuracy, and
accuracy over multiply-adds, as papers draw it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from offramp.scoring.policy import Policy
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import fitting_part
from offramp.studies.bench_live import row
from offramp.studies.bench_thresholds import RATIOS, Given, costs_each, full_cost
from offramp.studies.frontiers import (
    Known,
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
    and how right answers on validation data are to be taken to be, ``known``."""

    criterion: str
    known: Known
    policies: list[Policy]

    def spent(self, g: Given, unit: str) -> tuple[np.ndarray, np.ndarray]:
        """Which samples of the test data are right, bool (N, M), and what each costs, float64 (N,
        M), under those policies that no other beats in that unit and expected accuracy on
        validation data. The full network is one of them all."""
        cost = costs_each(g)[unit]
        nobody = Policy("entropy", (None,) * (g.logits.shape[1] - 1))
        kept = undominated([*self.policies, nobody], self.known, cost)
        return outcomes(kept, *g.scores[self.criterion]["test"], cost)


def families(g: Given) -> dict[str, Family]:
    """By the way to choose: of RC-EENN and Pareto Testing the policies among which they choose."""
    expected, costs = expected_correct(g.logits, g.labels), g.costs
    known = {criterion: Known(*splits["val"], expected) for criterion, splits in g.scores.items()}
    shared = {
        criterion: Family(criterion, here, shared_policies("entropy", here, g.model))
        for criterion, here in known.items()
    }
    asked = [earlyon(g.logits, g.labels, g.multiply_adds, drop) for drop in DROPS]
    shares = [geometric(known["max_probability"].scores, ratio) for ratio in RATIOS]
    scores, correct, _ = (part[: fitting_part(len(expected))] for part in known["entropy"])
    half = Known(scores, correct, correct.astype(np.float64))
    front = along_frontier("entropy", half, costs["seconds"])
    found = {
        "earlyon 0.3.0": _family("entropy", known, asked),
        "MSDNet's geometric shares": _family("max_probability", known, shares),
        "PCEE": shared["like confidence"],
        "one cutoff of max probability (RC-EENN's)": shared["max_probability"],
        "a half's front (Pareto Testing's)": Family("entropy", known["entropy"], front),
    }
    for criterion, of in (("entropy", ""), ("deferral", " of deferral")):
        found[f"shared cutoff{of}"] = shared[criterion]
        for unit, by in costs.items():
            along = along_frontier("entropy", known[criterion], by)
            found[f"joint{of} by {unit}"] = Family(criterion, known[criterion], along)
    return found


def _family(criterion: str, known: Mapping[str, Known], found: Sequence[Thresholds]) -> Family:
    return Family(criterion, known[criterion], [Policy("entropy", t) for t in found])


def over_the_range(g: Given, published: Mapping[str, Sequence[tuple[float, float]]]) -> list[dict]:
    """Both comparisons of all `families`, and the ``published`` points of others, multiply-adds and
    accuracy."""
    found = families(g)
    return at_equal_accuracy(g, found) + over_multiply_adds(g, found, published)


def at_equal_accuracy(g: Given, found: Mapping[str, Family]) -> list[dict]:
    """The speed-up over the full network, by unit, at which each way loses POINTS_LOST on test
    data, with the 95 % interval of the bootstrap over test samples, the same draws for all. Where
    its policies are not accurate enough, the full network answers."""
    final, rows = g.scores["entropy"]["test"][1][:, -1], []
    weight = resamples(len(final))
    full_accuracy = weight @ final.astype(np.float32) / len(final)
    wanted = full_accuracy[:, None] - np.array(POINTS_LOST) / 100
    for name, family in found.items():
        for unit, cost in costs_each(g).items():
            right, spent = family.spent(g, unit)
            accuracy = weight @ right.astype(np.float32) / len(final)
            full = full_cost(g, cost, len(final))
            needed = seconds_at(accuracy, weight @ spent.astype(np.float32), wanted)
            faster = full / np.minimum(needed, full)
            for lost, values in zip(POINTS_LOST, faster.T, strict=True):
                for end, value in with_interval(f"{lost:g} points lost, in {unit}", values).items():
                    assert value is not None
                    where = {"case": end.replace("_", ", ")}
                    rows.append(row("equal accuracy", name, 1, value, "speed-up", **where))
    return rows


def over_multiply_adds(
    g: Given,
    families: Mapping[str, Family],
    published: Mapping[str, Sequence[tuple[float, float]]],
) -> list[dict]:
    """Accuracy on test data over multiply-adds an image: of every exit where all samples answer
    there, all heads up to it being run (anytime prediction); of cascades, by the mean (budgeted
    batch classification); and as published."""
    correct, exits = g.scores["entropy"]["test"][1], g.logits.shape[1]
    spent = multiply_adds_each(g.multiply_adds, np.arange(exits) + 1, np.ones((2, exits)))
    found = {"anytime": zip(spent, correct.mean(axis=0), strict=True)}
    for words, name in BUDGETED.items():
        right, spent = families[name].spent(g, "multiply-adds")
        found[words] = zip(spent.mean(axis=0), right.mean(axis=0), strict=True)
    points = {**found, **{f"{name}, published": each for name, each in published.items()}}
    return [
        row("multiply-adds", name, number, value, unit, case=unit)
        for name, each in points.items()
        for number, point in enumerate(each, 1)
        for unit, value in zip(("multiply-adds", "accuracy"), point, strict=True)
    ]
