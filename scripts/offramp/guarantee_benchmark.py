"""How often thresholds keep their word on new data, and what a guarantee costs in time."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from offramp.calibration import calibrate, evaluate
from offramp.guarantee import calibrate_guaranteed
from offramp.intervals import interval
from offramp.policy import Policy
from offramp.progress import progress
from offramp.tables import GUARANTEE
from offramp.thresholds import Thresholds
from offramp.timemodel import TimeModel

DRAWS = 1_000
# As many as the validation split of cifar10 has.
SAMPLES = 5_000
TARGETS = (0.80, 0.90, 0.95)
SEED = 42
# Of the synthetic population: how much accuracy each exit loses from the easiest sample to the
# hardest. So steep that at every target all three side exits have thresholds that keep it.
LOSSES = np.array([0.8, 0.3, 0.15, 0.1])


class Population(NamedTuple):
    """Where samples come from, and the truth about thresholds.

    ``draw`` gives scores float64 (SAMPLES, K) and correct bool (SAMPLES, K) of new samples;
    ``judge`` the true accuracy at each enabled exit, float64, and the speed-up over the full
    network.
    """

    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    judge: Callable[[Thresholds], tuple[np.ndarray, float]]


def pooled(
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    criterion: str,
    model: TimeModel,
    batch_size: int,
) -> Population:
    """The samples of a network's splits, drawn with replacement; the truth is that of all of them.

    Parameters: ``splits`` gives the criterion's scores float64 (n, K) and correct bool (n, K) of
    each.
    """
    scores, correct = (np.concatenate(parts) for parts in zip(*splits, strict=True))

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows = random.integers(len(scores), size=SAMPLES)
        return scores[rows], correct[rows]

    def judge(thresholds: Thresholds) -> tuple[np.ndarray, float]:
        found = evaluate(scores, correct, Policy(criterion, thresholds), model, batch_size)
        exits = [k for k, t in enumerate(thresholds, 1) if t is not None]
        return found["correct"][exits] / found["n"][exits], float(found["speedup"])

    return Population(draw, judge)


def synthetic() -> Population:
    """Samples whose hardness h is uniform on 0..1 and is their score at every exit; exit k is right
    with chance 1 - LOSSES[k] h.

    So those with h in (left, t] leave at an exit, left being the last threshold before it, and are
    right with chance 1 - LOSSES[k] (left + t) / 2: later exits are better and their samples harder.
    Every block costs the same and a head nothing: the speed-up is K over the mean exit.
    """

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scores = np.repeat(random.random((SAMPLES, 1)), len(LOSSES), axis=1)
        return scores, random.random(scores.shape) < 1 - LOSSES * scores

    def judge(thresholds: Thresholds) -> tuple[np.ndarray, float]:
        accuracy, left, mean_exit = [], 0.0, 0.0
        for k, t in enumerate(thresholds):
            if t is not None and t > left:
                accuracy.append(1 - LOSSES[k] * (left + t) / 2)
                mean_exit += (k + 1) * (t - left)
                left = t
        mean_exit += len(LOSSES) * (1 - left)
        return np.array(accuracy), len(LOSSES) / mean_exit

    return Population(draw, judge)


def benchmark(
    populations: Mapping[str, Population], confidence: float, draws: int = DRAWS
) -> pa.Table:
    """Calibrate on draw after draw by both methods, the same draws for each, and count those that
    leave an enabled exit below the target: a table of schema GUARANTEE, one row per population,
    target and method."""
    methods: dict[str, Callable[..., Thresholds]] = {
        "empirical": calibrate,
        "guaranteed": partial(calibrate_guaranteed, confidence=confidence),
    }
    found: dict[tuple[str, float, str], list[tuple[bool, int, float]]] = {}
    turns = list(product(populations, TARGETS, methods, range(draws)))
    for name, target, method, number in progress(turns, "calibrations", "draw"):
        data = populations[name].draw(np.random.default_rng([SEED, number]))
        accuracy, speedup = populations[name].judge(methods[method](*data, target))
        outcome = bool((accuracy < target).any()), len(accuracy), speedup
        found.setdefault((name, target, method), []).append(outcome)
    rows = [_row(*case) | {"confidence": confidence} for case in found.items()]
    return pa.Table.from_pylist(rows, schema=GUARANTEE)


def _row(case: tuple[str, float, str], outcomes: list[tuple[bool, int, float]]) -> dict[str, Any]:
    population, target, method = case
    below, enabled, speedups = zip(*outcomes, strict=True)
    low, high = interval(sum(below), len(below))
    return {
        "population": population,
        "target": target,
        "method": method,
        "draws": len(below),
        "below": sum(below),
        "share": sum(below) / len(below),
        "share_low": low,
        "share_high": high,
        "enabled": float(np.median(enabled)),
        "speedup": float(np.median(speedups)),
    }
