"""How others choose thresholds, from validation data alone: written from their papers, or called.

Scores are low where an answer is sure: for those who speak of confidence, `max_probability`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp.common.intervals import drop_bound
from offramp.scoring.policy import exits_of
from offramp.thresholds.joint import Costs, Frontier, joint_frontier
from offramp.thresholds.survivors import Thresholds

# Bins of equally many validation samples in `reliability`.
BINS = 50


def risk_controlled(
    scores: np.ndarray,
    correct: np.ndarray,
    cutoffs: np.ndarray,
    max_drop: float,
    confidence: float,
) -> Thresholds:
    """RC-EENN: the largest shared cutoff whose loss of accuracy against the full network is proved
    to be below ``max_drop`` on new data with ``confidence``, all smaller ones being proved, too.

    Parameters: ``scores`` float64 (N, K), ``correct`` bool (N, K), ``cutoffs`` ascending. The risk
    is that of the gap to labels, by sample 1, 0 or -1, bounded from above by betting.
    Source: Jazbec et al., "Fast yet Safe: Early-Exiting with Risk Control" (2024), the upper
    confidence bound of Waudby-Smith and Ramdas.
    """
    side, samples = scores.shape[1] - 1, np.arange(len(scores))
    proved: Thresholds = (None,) * side
    for cutoff in cutoffs.tolist():
        taken = exits_of(scores, (cutoff,) * side)
        gap = correct[:, -1].astype(np.float64) - correct[samples, taken - 1]
        if not mean_is_below(gap, max_drop, confidence):
            break
        proved = (cutoff,) * side
    return proved


def mean_is_below(values: np.ndarray, limit: float, confidence: float) -> bool:
    """Whether values float64 (N,) in random order, none above 1, prove that their mean is below
    ``limit``: errs with at most 1 - ``confidence``.

    A gambler who bets against a mean of ``limit`` or more, each time by what came before, becomes
    1 / (1 - confidence) times as rich with no larger chance than that.
    Source: Waudby-Smith and Ramdas, "Estimating Means of Bounded Random Variables by Betting"
    (2024), as Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets" (2021), set the
    bets.
    """
    count, log_wealth = np.arange(1, len(values) + 1), -math.log(1 - confidence)
    mean = (0.5 + values.cumsum()) / (1 + count)
    variance = (0.25 + ((values - mean) ** 2).cumsum()) / (1 + count)
    before = np.append(0.25, variance[:-1])
    bet = np.minimum(np.sqrt(2 * log_wealth / (len(values) * before)), 1.0)
    return bool(np.log1p(-bet * (values - limit)).cumsum().max(initial=0.0) > log_wealth)


def geometric(scores: np.ndarray, ratio: float) -> Thresholds:
    """MSDNet's budgeted batch classification: thresholds by which shares of these samples leave
    that go down by ``ratio`` (its 1 - q) from exit to exit and add up to 1, at each exit the surest
    of those who remain. A share of less than one sample disables an exit.

    ``scores`` float64 (N, K). Each exit answers alone; the authors' code also tries means of exits,
    and ratios above 1.
    Source: Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification"
    (2018), section 5.2: q_k = z (1 - q)^(k - 1) q.
    """
    samples, exits = scores.shape
    shares = ratio ** np.arange(exits)
    shares /= shares.sum()
    remain = np.ones(samples, dtype=bool)
    thresholds: list[float | None] = []
    for k in range(exits - 1):
        leave = min(int(samples * shares[k] + 1e-9), int(remain.sum()))
        threshold = float(np.sort(scores[remain, k])[leave - 1]) if leave else None
        thresholds.append(threshold)
        if threshold is not None:
            remain &= scores[:, k] > threshold
    return tuple(thresholds)


class Reliability(NamedTuple):
    """By exit, the scores float64 (K, B - 1) that divide bins, and how accurate the validation
    samples in each are, float64 (K, B)."""

    edges: np.ndarray
    accuracy: np.ndarray


def reliability(scores: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """PCEE's reliability diagrams: of validation samples, scores float64 (N, K), correct bool (N,
    K). An empty bin, where scores tie, counts as never right.

    Source: Mofakhami et al., "Performance Control in Early Exiting to Deploy Large Models at the
    Same Cost of Smaller Ones" (2024); how many bins, and that they are of equally many samples, is
    our choice.
    """
    edges = np.quantile(scores, np.arange(1, bins) / bins, axis=0).T
    accuracy = []
    for k, borders in enumerate(edges):
        bin_of = np.searchsorted(borders, scores[:, k])
        inside = np.bincount(bin_of, minlength=bins)
        right = np.bincount(bin_of, correct[:, k], minlength=bins)
        accuracy.append(right / np.maximum(inside, 1))
    return Reliability(edges, np.array(accuracy))


def inaccuracy(scores: np.ndarray, diagrams: Reliability) -> np.ndarray:
    """PCEE's scores, float64 (N, K): how often validation samples of like confidence are wrong at
    the exit. A shared cutoff of 1 - delta lets those leave whose like are at least delta right."""
    bins = [np.searchsorted(*pair) for pair in zip(diagrams.edges, scores.T, strict=True)]
    return np.stack(
        [1 - accuracy[bin_of] for accuracy, bin_of in zip(diagrams.accuracy, bins, strict=True)],
        axis=1,
    )


def pareto_front(
    scores: np.ndarray, correct: np.ndarray, costs: Costs, max_drop: float
) -> Frontier:
    """Pareto Testing's first half: thresholds of all exits to which no others found are both
    cheaper and more often right on these samples, down to ``max_drop`` lost. How to find them the
    authors leave open; here `joint_frontier` does."""
    least = correct[:, -1].sum() - max_drop * len(correct)
    levels = np.arange(np.floor(least), len(correct) + 1)
    return joint_frontier(scores, correct.astype(np.float64), costs, levels)


def pareto_tested(
    front: Frontier, scores: np.ndarray, correct: np.ndarray, max_drop: float, confidence: float
) -> Thresholds:
    """Pareto Testing's second half: along the front from the most accurate on, each is tested on
    samples that did not find it, scores float64 (N, K) and correct bool (N, K), to lose at most
    ``max_drop``, up to the first that fails; the last that passed is the cheapest.

    Any valid test may be used: here the exact one of paired answers, since the authors'
    (Hoeffding-Bentkus) wants losses between 0 and 1.
    Source: Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks with Pareto Testing"
    (2023).
    """
    samples, full = np.arange(len(scores)), correct[:, -1]
    passed: Thresholds = (None,) * (scores.shape[1] - 1)
    for i in range(len(front.cost) - 1, -1, -1):
        thresholds = front.thresholds(i)
        right = correct[samples, exits_of(scores, thresholds) - 1]
        lost, gained = int((full & ~right).sum()), int((right & ~full).sum())
        if drop_bound(lost, gained, len(scores), confidence) > max_drop:
            break
        passed = thresholds
    return passed


def earlyon(
    logits: np.ndarray, labels: np.ndarray, multiply_adds: np.ndarray, max_drop: float
) -> Thresholds:
    """earlyon's own calibration, its network being the table: images are the rows' logits, and the
    forward pass only takes them apart.

    Parameters: ``logits`` float32 (N, K, C), ``labels`` int64 (N,), ``multiply_adds`` int (2, K).
    """
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
    result = calibrate_thresholds(forward, loader, target_accuracy_drop=max_drop)
    return tuple(
        threshold if enabled else None
        for threshold, enabled in zip(result.thresholds, result.enabled_exits, strict=True)
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
