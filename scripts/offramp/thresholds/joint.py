"""Thresholds of all exits chosen together: the least time at every level of accuracy."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from offramp.scoring.criteria import CRITERIA
from offramp.scoring.policy import heads_run
from offramp.thresholds.survivors import Thresholds, ends_of_ties
from offramp.thresholds.time_model import TimeModel, check_batch

# Prices of an error, in times of the full network for a sample; below and above, little moves.
PRICES = np.geomspace(100, 0.1, 28)
SEED = 42
# Of the samples that reach a stage, shares at which its cost is worked out; between them, lines.
SHARES = 1024
# What sums of fractions may lack of a whole number.
ROUNDING = 1e-6


class Costs(NamedTuple):
    """What stages cost, in any one unit, as a share of the samples reaches them: ``stage`` float64
    (2, K, R + 1), the mean over all samples at `shares_of` R, of the block and of the head;
    ``decide`` likewise (K, R + 1), of the decision at an enabled exit; ``removal`` float64 (K-1, 3)
    as in `TimeModel`, per batch; and the ``batch_size``. Where the criterion ``looks_back``, heads
    run up to the last enabled side exit."""

    stage: np.ndarray
    decide: np.ndarray
    removal: np.ndarray
    batch_size: int = 1
    looks_back: bool = False


def costs_of(model: TimeModel, criterion: str = "entropy") -> Costs:
    """What stages cost in seconds at the model's batch size.

    Who is in a batch is chance: where a share r of the samples reaches a stage, a batch brings it a
    binomial number of them, and the cost is the mean over these. So what a stage costs however few
    come is paid as often as anyone comes, at any batch size.
    """
    batch_size = model.batch_size
    check_batch(model, batch_size)
    shares = shares_of(SHARES)
    n = np.arange(batch_size + 1)
    chance = binomial(shares, batch_size)
    means = model.parts[:, :, : len(n)] @ chance.T / batch_size
    looks_back = CRITERIA[criterion].looks_back
    return Costs(means[:2], means[2], model.removal, batch_size, looks_back)


def shares_of(steps: int) -> np.ndarray:
    """Shares from 0 to 1, float64 (steps + 1,), the closer the nearer to 0: where few samples of
    large batches come to a stage, what a batch costs bends most."""
    return np.linspace(0, 1, steps + 1) ** 2


def binomial(shares: np.ndarray, n: int) -> np.ndarray:
    """How likely 0..n of n samples are, float64 (R, n + 1), each with chance ``shares`` (R,)."""
    k = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    r = shares[:, None]
    return np.exp(ways + xlogy(k, r) + xlog1py(n - k, -r))


def linear_costs(block: np.ndarray, head: np.ndarray) -> Costs:
    """Costs that every sample which reaches a block and a head, float64 (K,) each, pays alike."""
    each = np.stack([block, head])[:, :, None] * [0.0, 1.0]
    return Costs(each, np.zeros_like(each[0]), np.zeros((len(block) - 1, 3)))


class Frontier(NamedTuple):
    """Policies to whom no other found is both cheaper and more often right, from cheap to dear:
    ``cost`` and ``correct`` float64 (M,), ``limits`` float64 (M, K-1), thresholds with -inf at
    disabled exits."""

    cost: np.ndarray
    correct: np.ndarray
    limits: np.ndarray

    def thresholds(self, i: int) -> Thresholds:
        """The thresholds of policy i."""
        return tuple(None if t == -np.inf else t for t in self.limits[i].tolist())


class Bill(NamedTuple):
    """What a stage costs over all N samples when 0..N of them reach it: ``block``, ``head`` and
    ``decide`` float64 (K, N + 1). ``none`` and ``none_else`` float64 (N + 1,): how likely none of a
    batch is among so many samples, and none of a batch less one. The rest as in `Costs`."""

    block: np.ndarray
    head: np.ndarray
    decide: np.ndarray
    none: np.ndarray
    none_else: np.ndarray
    costs: Costs

    def removal(self, k: int, reach: np.ndarray, stay: np.ndarray) -> np.ndarray:
        """Expected cost, over all batches, of removing those who leave at exit k (from 0) when
        ``reach`` samples come there and ``stay`` go on: it is paid for batches of which some leave
        and some stay, a + b n + c kept."""
        batch, samples = self.costs.batch_size, len(self.none) - 1
        leave = reach - stay
        often = 1 - self.none[stay] - self.none[leave] + self.none[reach]
        kept = stay * (1 - self.none_else[leave])
        n = leave * (1 - self.none_else[stay]) + kept
        a, b, c = self.costs.removal[k]
        return np.maximum(a * often * samples / batch + b * n + c * kept, 0.0)


def bill_of(costs: Costs, samples: int) -> Bill:
    """Costs for a number of samples."""
    shares = np.arange(samples + 1) / max(samples, 1)
    grid = shares_of(costs.decide.shape[1] - 1)
    block, head, decide = (
        samples * np.array([np.interp(shares, grid, line) for line in part])
        for part in (*costs.stage, costs.decide)
    )
    none, none_else = ((1 - shares) ** size for size in (costs.batch_size, costs.batch_size - 1))
    return Bill(block, head, decide, none, none_else, costs)


class SearchData(NamedTuple):
    """Calibration data, an exit a row: ``scores`` float64 (K, N), ``expected`` float64 (K, N), how
    right each answer is, ``order`` int64 (K, N), which sorts each row of scores; and the bill."""

    scores: np.ndarray
    expected: np.ndarray
    order: np.ndarray
    bill: Bill


def search_data_of(scores: np.ndarray, expected: np.ndarray, costs: Costs) -> SearchData:
    """Scores float64 (N, K) and ``expected`` (N, K) laid out for the line searches."""
    by_exit = np.ascontiguousarray(scores.T)
    order = np.argsort(by_exit, axis=1, kind="stable")
    rights = np.ascontiguousarray(expected.T, dtype=np.float64)
    return SearchData(by_exit, rights, order, bill_of(costs, len(scores)))


class _Best:
    """The cheapest thresholds found between each level of correct samples and the next."""

    def __init__(self, levels: np.ndarray, side_exits: int):
        self.levels = levels - ROUNDING
        self.cost = np.full(len(levels), np.inf)
        self.correct = np.zeros(len(levels))
        self.limits = np.full((len(levels), side_exits), -np.inf)

    def note(
        self,
        cost: np.ndarray,
        correct: np.ndarray,
        limits: np.ndarray,
        k: int,
        candidates: np.ndarray,
    ) -> None:
        """Keep what is cheaper: ``candidates`` are thresholds of exit k, those of the others stand
        in ``limits``."""
        level = np.searchsorted(self.levels, correct, side="right") - 1
        cheaper = np.flatnonzero((cost < self.cost[level]) & (level >= 0))
        cheaper = cheaper[np.argsort(-cost[cheaper], kind="stable")]  # the cheapest is written last
        beaten = level[cheaper]
        self.cost[beaten], self.correct[beaten] = cost[cheaper], correct[cheaper]
        self.limits[beaten] = limits
        self.limits[beaten, k] = candidates[cheaper]

    def frontier(self) -> Frontier:
        """Those whom no other dominates."""
        least = np.minimum.accumulate(self.cost[::-1])[::-1]
        cheaper_than_better = np.append(least[1:], np.inf)
        keep = np.flatnonzero(np.isfinite(self.cost) & (self.cost < cheaper_than_better))
        return Frontier(self.cost[keep], self.correct[keep], self.limits[keep])


def joint_frontier(
    scores: np.ndarray, expected: np.ndarray, costs: Costs, levels: np.ndarray | None = None
) -> Frontier:
    """The frontier of cost against accuracy over all thresholds of all exits.

    Parameters: ``scores`` (N, K) of the calibration data and ``expected`` (N, K), how right each
    answer is: 0 or 1, or what `expected_correct` makes of it; float64. ``levels``: ascending
    numbers of right answers; the cheapest policy is kept that reaches each and not the next; every
    whole number if not given. Coordinate descent on cost + price x errors while the price falls
    through PRICES, until the lowest level is no longer reached: from the last price's thresholds,
    and now and then from random ones, one exit after the other takes the best of all its
    thresholds, the rest held. Every candidate of every line search is evaluated exactly, and the
    frontier is over all. A heuristic, since descent may end in a valley that is not the deepest;
    seeded and bounded. Noise makes valleys, so the more samples, the fewer random starts, but
    always one. (On 5,000 validation and 45,000 training samples of three networks, a random start
    at every price lowered costs by up to 0.1 % in the mean; on the former, six times as many prices
    and rounds by 0.1 to 0.4 %, and 1.6 % at most.)
    """
    samples, exits = scores.shape
    levels = np.arange(samples + 1.0) if levels is None else np.asarray(levels, dtype=np.float64)
    data, best = search_data_of(scores, expected, costs), _Best(levels, exits - 1)
    draw = np.random.default_rng(SEED)
    limits, most = np.full(exits - 1, -np.inf), 0.0
    nobody = np.zeros(exits - 1, dtype=bool)
    full = policy_cost(data.bill, nobody, [np.array([samples])] * exits)[0]
    for number, price in enumerate(PRICES * full / max(samples, 1)):
        if number % max(1, samples // 1000) == 0:
            start = scores[draw.integers(0, samples, exits - 1), np.arange(exits - 1)]
            _improve(data, np.where(draw.random(exits - 1) < 0.2, -np.inf, start), price, best)
        right = _improve(data, limits, price, best)
        most = max(most, right)
        if right < levels[0] <= most:
            break
    return best.frontier()


def policy_cost(bill: Bill, enabled: np.ndarray, reach: Sequence[np.ndarray]) -> np.ndarray:
    """Total cost of policies that enable the same side exits, bool (K-1,), where ``reach`` gives
    for each of K stages how many samples reach it, int64 (policies,): float64 (policies,)."""
    last = len(enabled)
    decides = np.append(enabled, True)
    heads = heads_run(enabled, bill.costs.looks_back)
    total = np.zeros(len(reach[0]))
    for j in range(last + 1):
        total += bill.block[j].take(reach[j])
        if heads[j]:
            total += bill.head[j].take(reach[j])
        if decides[j]:
            total += bill.decide[j].take(reach[j])
        if decides[j] and j < last:
            total += bill.removal(j, reach[j], reach[j + 1])
    return total


def _improve(data: SearchData, limits: np.ndarray, price: float, best: _Best) -> float:
    """Let every exit in turn, from the last side exit to the first, take its best threshold at this
    price: ``limits`` change. Returns how many are right then."""
    chosen = -np.inf
    for k, candidates, cost, right in line_searches(data, limits):
        best.note(cost, right, limits, k, candidates)
        place = np.argmin(cost - price * right)
        limits[k], chosen = candidates[place], right[place]
    return chosen


def line_searches(
    data: SearchData, limits: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Every threshold of one exit, the others held, from the last side exit to the first: the exit
    (from 0), its thresholds, -inf first for a disabled exit, then total cost and number correct
    under each; from prefix sums.

    The caller may change ``limits[k]`` of the exit just searched, in this very array, before it
    asks for the next: the earlier exits are then searched with exit k at that threshold. All other
    limits must stay as they are."""
    scores, expected, order, bill = data
    samples, last = scores.shape[1], len(limits)
    comes, counts, gone_right = _survivors(data, limits)
    later = np.full(samples, last)  # where each would leave after the exit at hand
    for k in range(last - 1, -1, -1):
        comers = order[k][comes[k][order[k]]]
        later_exit = later.take(comers)
        right_later = expected.take(later_exit * samples + comers)
        ordered = scores[k].take(comers)
        ends = np.flatnonzero(ends_of_ties(ordered))
        candidates = np.append(-np.inf, ordered[ends])

        # Who comes to each later stage, by how many leave here: none of them, then each threshold.
        enabled = limits > -np.inf
        left = np.append(0, ends + 1)
        coming = [len(comers) - left]
        for j in range(k + 1, last):
            if enabled[j]:
                further = np.append(0, (later_exit > j).cumsum())
                coming.append(further[-1] - further[left])
            else:
                coming.append(coming[-1])
        reach = [np.full_like(left, n) for n in counts[: k + 1]] + coming
        with_k, without_k = (np.append(enabled[:k], [x, *enabled[k + 1 :]]) for x in (True, False))
        cost = policy_cost(bill, with_k, reach)
        cost[0] = policy_cost(bill, without_k, [r[:1] for r in reach])[0]

        right = np.empty(len(candidates))
        right[0] = gone_right[:k].sum() + right_later.sum()
        right[1:] = right[0] + (expected[k].take(comers) - right_later).cumsum()[ends]
        yield k, candidates, cost, right
        later[scores[k] <= limits[k]] = k


def _survivors(
    data: SearchData, limits: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Who reaches each side exit, bool (N,) each; how many reach each stage, int64 (K,); and how
    many leave at each side exit and are right, float64 (K-1,)."""
    reach, gone_right = [np.ones(data.scores.shape[1], dtype=bool)], []
    for k, limit in enumerate(limits):
        stays = data.scores[k] > limit
        leaving = np.flatnonzero(reach[k] > stays)
        gone_right.append(data.expected[k].take(leaving).sum())
        reach.append(reach[k] & stays)
    return reach, np.array([r.sum() for r in reach]), np.array(gone_right)
