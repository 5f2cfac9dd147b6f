"""Thresholds of all exits chosen together: the least time at every level of accuracy."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from offramp.criteria import CRITERIA
from offramp.thresholds import Thresholds, ends_of_ties
from offramp.timemodel import TimeModel

# Prices of an error, in times of the full network for a sample; below and above, nothing moves.
PRICES = np.geomspace(0.1, 100, 28)
SWEEPS = 6


class Costs(NamedTuple):
    """What a sample costs, float64 (K,) each, in any one unit: ``block`` and ``head`` (with its
    decision and removal) for every sample that reaches the stage, ``fixed`` for every batch whose
    exit is enabled, per sample of the batch."""

    block: np.ndarray
    head: np.ndarray
    fixed: np.ndarray


def costs_of(model: TimeModel, batch_size: int, criterion: str = "entropy") -> Costs:
    """Costs in seconds: the time model's parts as straight lines over the batch sizes up to
    ``batch_size``. Removal is charged as if half of a batch stayed. What a block costs however
    small the batch is left out, since every policy pays it as long as anyone comes that far; so is
    what a head costs so, under a criterion that looks back and therefore runs every head."""
    sizes = np.arange(1, batch_size + 1)
    lines = np.array(
        [
            [np.polyfit(sizes, part[1 : batch_size + 1], 1) for part in model.parts[p]]
            for p in range(len(model.parts))
        ]
    )
    slope, start = lines[..., 0], np.maximum(lines[..., 1], 0.0)
    head, fixed = slope[1] + slope[2], (start[1] + start[2]) / batch_size
    block = slope[0]
    if CRITERIA[criterion].looks_back:
        block, head, fixed = block + head, 0.0 * head, 0.0 * fixed
    head[:-1] += np.maximum(model.removal[:, 1] + model.removal[:, 2] / 2, 0.0)
    fixed[:-1] += np.maximum(model.removal[:, 0], 0.0) / batch_size
    return Costs(block, head, fixed)


class Frontier(NamedTuple):
    """Policies to whom no other found is both cheaper and more often right, from cheap to dear:
    ``cost`` float64 (M,), ``correct`` float64 (M,), ``thresholds`` a list of M."""

    cost: np.ndarray
    correct: np.ndarray
    thresholds: list[Thresholds]


class Data(NamedTuple):
    """Calibration data, an exit a row: ``scores`` float64 (K, N), ``correct`` float64 (K, N), how
    right each answer is, ``order`` int64 (K, N), which sorts each row of scores; and the costs."""

    scores: np.ndarray
    correct: np.ndarray
    order: np.ndarray
    costs: Costs


def data_of(scores: np.ndarray, correct: np.ndarray, costs: Costs) -> Data:
    """Scores float64 (N, K) and correct (N, K) laid out for the line searches."""
    by_exit = np.ascontiguousarray(scores.T)
    order = np.argsort(by_exit, axis=1, kind="stable")
    return Data(by_exit, np.ascontiguousarray(correct.T, dtype=np.float64), order, costs)


class _Best:
    """The cheapest thresholds found at every whole number of correct samples."""

    def __init__(self, samples: int, side_exits: int):
        self.cost = np.full(samples + 1, np.inf)
        self.correct = np.zeros(samples + 1)
        self.limits = np.full((samples + 1, side_exits), -np.inf)

    def note(self, cost: np.ndarray, correct: np.ndarray, limits: np.ndarray, k: int, at) -> None:
        """Keep what is cheaper: candidates differ from ``limits`` in exit k, which has ``at``."""
        # What sums of fractions lack of a whole number is rounding.
        whole = np.clip(correct + 1e-6, 0, len(self.cost) - 1).astype(np.int64)
        better = np.flatnonzero(cost < self.cost[whole])
        better = better[np.argsort(-cost[better], kind="stable")]  # the cheapest is written last
        place = whole[better]
        self.cost[place], self.correct[place] = cost[better], correct[better]
        self.limits[place] = limits
        self.limits[place, k] = at[better]

    def frontier(self) -> Frontier:
        """Those whom no other dominates."""
        least = np.minimum.accumulate(self.cost[::-1])[::-1]
        cheaper_than_better = np.append(least[1:], np.inf)
        keep = np.flatnonzero(np.isfinite(self.cost) & (self.cost < cheaper_than_better))
        rows = self.limits[keep]
        thresholds = [tuple(None if np.isneginf(t) else float(t) for t in row) for row in rows]
        return Frontier(self.cost[keep], self.correct[keep], thresholds)


def joint_frontier(scores: np.ndarray, correct: np.ndarray, costs: Costs) -> Frontier:
    """The frontier of cost against accuracy over all thresholds of all exits.

    Parameters: ``scores`` (N, K) of the calibration data and ``correct`` (N, K), how right each
    answer is: 0 or 1, or what `expected_correct` makes of it; float64. At each of PRICES, down and
    up again, coordinate descent on cost + price x errors from the last price's thresholds: one exit
    after the other takes the best of all its thresholds, the rest held, until nothing moves. Every
    candidate of every line search is evaluated exactly, and the frontier is over all. A heuristic,
    since descent may end in a valley that is not the deepest; bounded.
    """
    samples, exits = scores.shape
    data = data_of(scores, correct, costs)
    best = _Best(samples, exits - 1)
    full = costs.block.sum() + costs.head[-1] + costs.fixed[-1]
    limits = np.full(exits - 1, -np.inf)
    for price in np.concatenate([PRICES[::-1], PRICES]) * full:
        limits = _descend(data, limits, price, best)
    return best.frontier()


def _descend(data: Data, limits: np.ndarray, price: float, best: _Best) -> np.ndarray:
    """Coordinate descent at one price, from the last side exit to the first."""
    limits = limits.copy()
    for _ in range(SWEEPS):
        before = limits.copy()
        for k, at, cost, right in line_searches(data, limits):
            best.note(cost, right, limits, k, at)
            limits[k] = at[np.argmin(cost - price * right)]
        if np.array_equal(before, limits):
            break
    return limits


def line_searches(
    data: Data, limits: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Every threshold of one exit, the others held, from the last side exit to the first: the exit
    (from 0), its thresholds, -inf first for a disabled exit, then total cost and number correct
    under each; from one pass of prefix sums. ``limits[k]`` may be set before the next is asked for.
    """
    scores, correct, order, costs = data
    samples, last = scores.shape[1], len(limits)
    reach, gone, gone_right = _survivors(data, limits)
    later = np.full(samples, last)  # where each would leave after the exit at hand
    for k in range(last - 1, -1, -1):
        enabled = np.append(limits > -np.inf, True)
        enabled[k] = False
        spent = (costs.block + np.where(enabled, costs.head, 0.0)).cumsum()
        here = order[k][reach[k][order[k]]]
        to = later[here]
        left_later, right_later = spent[to], correct.ravel()[to * samples + here]
        disabled = gone[:k] @ spent[:k] + left_later.sum() + samples * costs.fixed[enabled].sum()
        own = len(here) * costs.head[k] + samples * costs.fixed[k]

        ordered = scores[k, here]
        ends = np.flatnonzero(ends_of_ties(ordered))
        at = np.append(-np.inf, ordered[ends])
        cost, right = np.empty(len(at)), np.empty(len(at))
        cost[0], right[0] = disabled, gone_right[:k].sum() + right_later.sum()
        cost[1:] = disabled + own - (left_later - spent[k]).cumsum()[ends]
        right[1:] = right[0] + (correct[k, here] - right_later).cumsum()[ends]
        yield k, at, cost, right
        later[scores[k] <= limits[k]] = k


def _survivors(data: Data, limits: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Who reaches each side exit, bool (N,) each; and how many leave there, int64, and are right,
    float64 (K-1,)."""
    reach, gone, gone_right = [np.ones(data.scores.shape[1], dtype=bool)], [], []
    for k, limit in enumerate(limits):
        stays = data.scores[k] > limit
        leaves = reach[k] & ~stays
        gone.append(np.count_nonzero(leaves))
        gone_right.append(data.correct[k, leaves].sum())
        reach.append(reach[k] & stays)
    return reach, np.array(gone), np.array(gone_right)
