"""Bounds and intervals of accuracies and of their differences, exact at any size."""

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from scipy.special import bdtr, betaincinv

from offramp import OfframpError

NORMAL = NormalDist()  # scipy.stats takes a second to import
# Of the error that a bound on a drop is allowed, the share spent on where the rate of gains lies.
NUISANCE = 0.01
# Steps over that rate, and over the count of gains, in standard errors of the drop. Each makes the
# bound larger by at most as much, never smaller.
STEP = 0.06
# How near the search comes to a bound, in standard errors, always from above.
NEAR = 0.02
# A run of gains less likely than this counts as if it were sure to be no worse.
NEGLIGIBLE = 1e-8


def interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy; (nan, nan) where n is 0. Each end errs in at most 2.5 % of
    the cases (`accuracy_bound`)."""
    if n == 0:
        return float("nan"), float("nan")
    return accuracy_bound(correct, n, 0.975), 1.0 - accuracy_bound(n - correct, n, 0.975)


def accuracy_bound(correct: float, n: int, confidence: float) -> float:
    """The accuracy that with a one-sided ``confidence`` is reached at least, where ``correct`` of
    ``n`` >= 1 samples are right. A fraction of a sample counts for nothing.

    Exact: it errs with at most 1 - confidence at every n and accuracy. Source: Clopper and Pearson,
    "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial" (1934).
    """
    _check_size_and_confidence(n, confidence)
    whole = math.floor(correct + 1e-9)
    if whole <= 0:
        return 0.0
    return float(betaincinv(whole, n - whole + 1, 1 - confidence))


def paired_difference(right: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """How much more accurate one side is than another on the same samples, with its 95 % interval,
    each end a `drop_bound` at 97.5 %; all three nan where there is no sample.

    ``right`` and ``other`` say of each sample whether the one and the other side is right, bool
    (N,). Pairing cancels what is hard for both.
    """
    n, gained, lost = len(right), int((right & ~other).sum()), int((other & ~right).sum())
    if n == 0:
        return float("nan"), float("nan"), float("nan")
    low, high = -drop_bound(lost, gained, n, 0.975), drop_bound(gained, lost, n, 0.975)
    return (gained - lost) / n, low, high


@lru_cache(4096)
def drop_bound(lost: int, gained: int, n: int, confidence: float) -> float:
    """The most accuracy, as a share, that a policy loses with a one-sided ``confidence`` >= 0.5,
    where of ``n`` >= 1 samples ``lost`` are no longer right and ``gained`` are right only now.

    It holds at every n and all rates of losses and gains: of the pairs (rate of losses, rate of
    gains) it is the largest difference under which a sample with no larger approximate bound than
    this one has more than 1 - confidence. Rates of gains outside their own exact interval are left
    out, which costs NUISANCE of the allowed error. The rest are covered by steps, of which each is
    judged by its most favourable corner, so that nothing between them is missed.
    Sources: Buehler, "Confidence Intervals for the Product of Two Binomial Parameters" (1957);
    Berger and Boos, "P Values Maximized Over a Confidence Set for the Nuisance Parameter" (1994).
    """
    _check_size_and_confidence(n, confidence)
    if not (lost >= 0 and gained >= 0 and lost + gained <= n):
        raise OfframpError(f"{lost} lost and {gained} gained are not among {n} samples")
    if confidence < 0.5:
        raise OfframpError(
            f"a bound on a drop wants a confidence of at least 0.5, not {confidence}"
        )
    nuisance = NUISANCE * (1 - confidence)
    allowed = NORMAL.inv_cdf(1 - confidence - nuisance)
    rates = _rates_of_gains(gained, lost, n, nuisance)
    ends, most_lost = _no_worse(lost, gained, n, confidence, rates)
    within, beyond = _gains(n, rates, ends)

    def excess(drop: float) -> float:
        """By how many standard scores the largest chance lies above the one that is allowed."""
        chance = _largest_chance(drop, n, rates, ends, most_lost, within, beyond)
        return NORMAL.inv_cdf(min(max(chance, 1e-300), 1 - 1e-15)) - allowed

    # A standard error more is about a standard score less. With few changes it is not, and then the
    # interval that holds the bound is halved.
    unit = math.sqrt(lost + gained + 1) / n
    low, high = (lost - gained) / n, 1.0
    drop = min(low + NORMAL.inv_cdf(confidence) * unit, 1.0)
    while high - low > NEAR * unit / 4:
        if (above := excess(drop)) > 0:
            low = drop
        else:
            high = drop
            if above > -NEAR:
                break
        drop += (above + NEAR / 2) * unit
        if not low < drop < high:
            drop = (low + high) / 2
    return high


def _check_size_and_confidence(n: int, confidence: float) -> None:
    if n < 1:
        raise OfframpError("a bound wants at least one sample")
    if not 0 < confidence < 1:
        raise OfframpError(f"a confidence lies between 0 and 1, not at {confidence}")


def _rates_of_gains(gained: int, lost: int, n: int, error: float) -> np.ndarray:
    """Ascending rates, float64, that span the exact two-sided interval of the rate of gains."""
    low = 0.0 if gained == 0 else float(betaincinv(gained, n - gained + 1, error / 2))
    high = 1.0 if gained == n else float(betaincinv(gained + 1, n - gained, 1 - error / 2))
    step = STEP * math.sqrt(lost + gained + 1) / n
    return np.linspace(low, high, math.ceil((high - low) / step) + 1)


def _no_worse(
    lost: int, gained: int, n: int, confidence: float, rates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which samples count as no worse than this one, those whose approximate bound (adjusted Wald)
    is no larger: ``ends`` of runs of gains, int64, ascending, and the most losses that go with each
    run, float64. Runs are one gain long, or STEP standard errors."""
    z = NORMAL.inv_cdf(confidence)
    more = lost - gained
    bound = more + z * math.sqrt(lost + gained + 1 - more**2 / (n + 2))
    run = max(1, int(STEP * math.sqrt(lost + gained + 1)))
    spread = 5 * math.sqrt(n * rates[-1]) + 10
    fewest_gains = max(0, int(n * rates[0] - spread))
    most_gains = min(n, int(n * rates[-1] + spread) + 1)
    ends = np.arange(fewest_gains, most_gains + run, run).clip(max=n)
    # The root of (bound - more)^2 = z^2 (more + 2 gains + 1 - more^2 / (n + 2)) on its lower side.
    a, b = 1 + z**2 / (n + 2), 2 * bound + z**2
    c = bound**2 - z**2 * (2 * ends + 1)
    inside = b**2 - 4 * a * c
    roots = (b - np.sqrt(np.maximum(inside, 0.0))) / (2 * a)
    # Squaring added roots on which more exceeds the bound; and at some gains there is none.
    most = np.where((inside >= 0) & (roots <= bound + 1e-9), np.floor(roots + ends + 1e-9), -1.0)
    most[np.searchsorted(ends, gained)] = max(most[np.searchsorted(ends, gained)], lost)
    # More gains never make a sample worse, which the approximation forgets at high confidence.
    return ends, np.maximum.accumulate(most)


def _gains(n: int, rates: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By step between ``rates``, at its larger end: how likely the gains are in each run, float64
    (steps, runs), and beyond the last, (steps,)."""
    up_to = bdtr(ends, n, rates[1:, None].clip(max=1 - 1e-15))
    return np.diff(up_to, axis=1, prepend=0.0), 1 - up_to[:, -1]


def _largest_chance(
    drop: float,
    n: int,
    rates: np.ndarray,
    ends: np.ndarray,
    most_lost: np.ndarray,
    within: np.ndarray,
    beyond: np.ndarray,
) -> float:
    """How likely a sample no worse than ours is at most, if the rate of losses exceeds that of
    gains by ``drop``: over all steps between ``rates``, each with the fewest losses and the most
    gains in it."""
    possible = (drop + 2 * rates[:-1] <= 1) & (drop + rates[1:] >= 0)
    if not possible.any():
        return 0.0
    fewest = np.maximum(drop + rates[:-1], 0.0)
    share = np.minimum(fewest / (1 - rates[1:].clip(max=1 - 1e-15)), 1.0)[possible, None]
    others = np.broadcast_to(n - ends, (len(share), len(ends)))
    sure, never = most_lost >= others, np.broadcast_to(most_lost < 0, others.shape)
    # How likely, with so many gains, no more are lost than may be.
    loss_chance = np.where(sure, 1.0, 0.0)
    matter = ~sure & ~never & (within[possible] > NEGLIGIBLE)
    loss_chance[~sure & ~never & ~matter] = 1.0
    rows, columns = np.nonzero(matter)
    loss_chance[rows, columns] = bdtr(most_lost[columns], others[rows, columns], share[rows, 0])
    chances = (within[possible] * loss_chance).sum(axis=1) + beyond[possible]
    return float(min(chances.max(), 1.0))
