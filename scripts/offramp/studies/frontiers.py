"""Time against accuracy on test data, by criterion and by way to choose thresholds; and what each
needs at equal accuracy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from scipy.optimize import isotonic_regression

from offramp.common.intervals import interval
from offramp.common.progress import progress
from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.policy import Policy, exits_of, shared_cutoff
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import fitting_part, scores_left_out, weights_of
from offramp.tables.schemas import EQUAL_ACCURACY, FRONTIERS
from offramp.thresholds.calibration import calibrate_empirical
from offramp.thresholds.joint import Costs, costs_of, joint_frontier
from offramp.thresholds.selection import Candidate, pareto_frontier
from offramp.thresholds.time_model import TimeModel, full_network_seconds, reached_by, stage_seconds

# At most so many policies of each kind.
POLICIES = 60
TARGETS = (*np.linspace(0.5, 0.9, 17), *np.linspace(0.91, 0.999, 25))
MOST_LOST = 5
# What may be lost against the full network, in points of accuracy.
POINTS_LOST = (0.25, 0.5, 1.0, 2.0)
RESAMPLES = 500
SEED = 42


class SplitData(NamedTuple):
    """A split: ``logits`` float32 (N, K, C), ``label`` int64 (N,) and which exits are right,
    ``correct`` bool (N, K)."""

    logits: np.ndarray
    label: np.ndarray
    correct: np.ndarray


class Validation(NamedTuple):
    """Validation data under one criterion: ``scores`` float64 (N, K), ``correct`` bool (N, K) and
    what `expected_correct` makes of them, ``expected`` float64 (N, K)."""

    scores: np.ndarray
    correct: np.ndarray
    expected: np.ndarray


# What each sample costs, float64 (N,), from the exit 1..K at which it leaves, int (N,), and the
# heads that run and decide, bool (2, K).
Cost = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Curve(NamedTuple):
    """Policies of one kind, and what they do on test data, sample by sample: ``right`` bool (N, M)
    and ``seconds`` float64 (N, M), each sample's share of the stages it went through."""

    criterion: str
    scaled: bool
    method: str
    policies: list[Policy]
    right: np.ndarray
    seconds: np.ndarray


def shared_policies(criterion: str, data: Validation, model: TimeModel) -> list[Policy]:
    """Cutoffs at which evenly spread shares of the samples leave before the final exit."""
    side_exits = data.scores.shape[1] - 1
    minima = np.sort(data.scores[:, :-1].min(axis=1))
    cutoffs = np.unique(np.quantile(minima, np.linspace(0, 1, POLICIES)))
    return [shared_cutoff(c, side_exits, criterion) for c in cutoffs]


def empirical_policies(criterion: str, data: Validation, model: TimeModel) -> list[Policy]:
    """The same accuracy wanted at every exit, for TARGETS."""
    calibrated = {calibrate_empirical(data.scores, data.correct, target) for target in TARGETS}
    return [Policy(criterion, thresholds) for thresholds in sorted(calibrated, key=str)]


def joint_policies(criterion: str, data: Validation, model: TimeModel) -> list[Policy]:
    """The least time found, at evenly spread places of that part of its frontier which loses at
    most MOST_LOST points."""
    return along_frontier(criterion, data, costs_of(model, criterion))


def along_frontier(criterion: str, data: Validation, costs: Costs) -> list[Policy]:
    """The same by any costs."""
    least = data.correct[:, -1].sum() - MOST_LOST / 100 * len(data.correct)
    levels = np.arange(least, len(data.correct) + 1)
    frontier = joint_frontier(data.scores, data.expected, costs, levels)
    if not len(frontier.cost):
        return [Policy(criterion, (None,) * (data.scores.shape[1] - 1))]
    places = np.unique(np.linspace(0, len(frontier.cost) - 1, POLICIES).round().astype(int))
    return [Policy(criterion, frontier.thresholds(int(i))) for i in places]


METHODS: dict[str, Callable[..., list[Policy]]] = {
    "shared": shared_policies,
    "empirical": empirical_policies,
    "joint": joint_policies,
}


def curves(
    val: SplitData,
    test: SplitData,
    temperatures: Sequence[float],
    deferral: pa.Table,
    model: TimeModel,
) -> list[Curve]:
    """Every criterion by every method, that of the table ``deferral`` too; and entropy of logits
    divided by ``temperatures`` (K,), whose thresholds come from the half of the validation data
    that did not fit these.

    A curve holds those of a method's policies, and the one that disables all exits, that no other
    of them beats in time and expected accuracy on validation data. Deciding is charged at the time
    model's price, whatever the criterion.
    """
    kinds = [(criterion, False) for criterion in CRITERIA] + [("entropy", True)]
    turns = [(*kind, method) for kind in kinds for method in METHODS]
    half = SplitData(*(part[fitting_part(len(val.label)) :] for part in val))
    parts = [(part, expected_correct(part.logits, part.label)) for part in (val, half)]
    all_curves, cost = [], partial(seconds_each, model)
    for criterion, scaled, method in progress(turns, "frontiers", "curve"):
        divisors = tuple(temperatures) if scaled else None
        part, expected = parts[scaled]
        if CRITERIA[criterion].fitted:
            val_scores = scores_left_out(deferral, part.logits)
            scores = scores_of(criterion, test.logits, weights=weights_of(deferral))
        else:
            val_scores, scores = (scores_of(criterion, s.logits, divisors) for s in (part, test))
        data = Validation(val_scores, part.correct, expected)
        policies = METHODS[method](criterion, data, model)
        policies.append(Policy(criterion, (None,) * (part.correct.shape[1] - 1)))
        policies = undominated(policies, data, cost)
        right, seconds = outcomes(policies, scores, test.correct, cost)
        all_curves.append(Curve(criterion, scaled, method, policies, right, seconds))
    return all_curves


def undominated(policies: Sequence[Policy], data: Validation, cost: Cost) -> list[Policy]:
    """Those that no other beats in cost and expected accuracy on these data, from cheap to dear."""
    samples = len(data.scores)
    candidates = []
    for policy in policies:
        taken = exits_of(data.scores, policy.thresholds)
        right = data.expected[np.arange(samples), taken - 1].sum()
        total = float(cost(taken, policy.runs).sum())
        candidates.append(Candidate(policy, {}, total, right, samples))
    return [candidate.policy for candidate in pareto_frontier(candidates)]


def outcomes(
    policies: Sequence[Policy], scores: np.ndarray, correct: np.ndarray, cost: Cost
) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are right under each of M policies, bool (N, M), and what each costs, float64
    (N, M)."""
    right, spent, samples = [], [], np.arange(len(scores))
    for policy in policies:
        taken = exits_of(scores, policy.thresholds)
        right.append(correct[samples, taken - 1])
        spent.append(cost(taken, policy.runs))
    return np.stack(right, axis=1), np.stack(spent, axis=1)


def seconds_each(model: TimeModel, taken: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """A `Cost`: the stages' predicted seconds, shared out evenly among those who reach them."""
    reached = reached_by(taken, model.batch_size, runs.shape[1])
    stages = stage_seconds(model, reached, runs)
    return (stages / np.maximum(reached.sum(axis=0), 1)).cumsum()[taken - 1]


def multiply_adds_each(
    multiply_adds: np.ndarray, taken: np.ndarray, runs: np.ndarray
) -> np.ndarray:
    """A `Cost`: multiply-adds, of which int (2, K) are those of blocks and heads."""
    return (multiply_adds[0] + multiply_adds[1] * runs[0]).cumsum()[taken - 1]


def frontiers_table(all_curves: Sequence[Curve]) -> pa.Table:
    """One row per policy of every curve, on test data."""
    rows = []
    for curve in all_curves:
        where = {"criterion": curve.criterion, "scaled": curve.scaled, "method": curve.method}
        for m, policy in enumerate(curve.policies):
            n, right = len(curve.right), int(curve.right[:, m].sum())
            low, high = interval(right, n)
            rows.append(
                where
                | {"thresholds": list(policy.thresholds), "n": n, "correct": right}
                | {"accuracy": right / n, "accuracy_low": low, "accuracy_high": high}
                | {"seconds": float(curve.seconds[:, m].sum())}
            )
    return pa.Table.from_pylist(rows, schema=FRONTIERS)


def equal_accuracy_table(
    all_curves: Sequence[Curve], correct: np.ndarray, model: TimeModel
) -> pa.Table:
    """One row per curve and POINTS_LOST: seconds on the test split at that accuracy, and how many
    times faster that is than the best shared cutoff of the entropy and than the full network, with
    95 % intervals.

    Parameters: ``correct`` bool (N, K) of the test split. Intervals are of the bootstrap over test
    samples, the same draws for all curves; an end at which the accuracy is out of reach is null.
    """
    samples, weight = len(correct), resamples(len(correct))
    full_accuracy = weight @ correct[:, -1].astype(np.float32) / samples
    full_seconds = full_network_seconds(model, samples)
    rows = []
    for lost in POINTS_LOST:
        wanted = full_accuracy - lost / 100
        needed = [
            seconds_at(
                weight @ curve.right.astype(np.float32) / samples,
                weight @ curve.seconds.astype(np.float32),
                wanted,
            )
            for curve in all_curves
        ]
        kinds = [curve[:3] for curve in all_curves]
        yardstick = needed[kinds.index(("entropy", False, "shared"))]
        for curve, seconds in zip(all_curves, needed, strict=True):
            rows.append(
                {"criterion": curve.criterion, "scaled": curve.scaled, "method": curve.method}
                | {"points_lost": lost}
                | with_interval("seconds", seconds)
                | with_interval("over_shared", ratio(yardstick, seconds))
                | with_interval("speedup", ratio(np.full_like(seconds, full_seconds), seconds))
            )
    return pa.Table.from_pylist(rows, schema=EQUAL_ACCURACY)


def resamples(samples: int) -> np.ndarray:
    """How often each of N samples is drawn, float32 (R + 1, N): once, then by the bootstrap."""
    draw = np.random.default_rng(SEED)
    drawn = draw.multinomial(samples, np.full(samples, 1 / samples), size=RESAMPLES)
    return np.vstack([np.ones(samples), drawn]).astype(np.float32)


def ratio(seconds: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Seconds over others; where both are infinite, neither is faster: 1."""
    finite = np.isfinite(seconds) | np.isfinite(others)
    return np.divide(seconds, others, out=np.ones_like(seconds), where=finite)


def with_interval(name: str, values: np.ndarray) -> dict[str, float | None]:
    """The first value, and the interval of the others, which are those of the resamples."""
    low, high = np.quantile(values[1:], [0.025, 0.975], method="inverted_cdf")
    ends = {name: values[0], f"{name}_low": low, f"{name}_high": high}
    return {key: float(value) if np.isfinite(value) else None for key, value in ends.items()}


def seconds_at(accuracy: np.ndarray, seconds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The time at which policies reach an accuracy: float64 like ``wanted``, infinite where none
    does.

    Parameters: ``accuracy`` and ``seconds`` (R, M) of M policies in R resamples, ``wanted`` (R,) or
    (R, several).
    Of policies that were in order on validation data, chance makes some slower ones less accurate
    than faster ones here: accuracy is made to rise with time by isotonic regression, those of one
    level are put together at their mean time, and the curve is read in a straight line. Source:
    Barlow et al., "Statistical Inference under Order Restrictions" (1972).
    """
    needed = np.full(wanted.shape, np.inf)
    for r in range(len(wanted)):
        order = np.argsort(seconds[r], kind="stable")
        rising = isotonic_regression(accuracy[r, order].astype(np.float64)).x
        levels, level_of = np.unique(rising, return_inverse=True)
        time = np.bincount(level_of, seconds[r, order]) / np.bincount(level_of)
        needed[r] = np.interp(wanted[r], levels, time, right=np.inf)
    return needed
