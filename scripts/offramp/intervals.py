"""95 % intervals of accuracies and of their differences."""

from functools import cache

import numpy as np
from scipy.stats import binomtest, norm


@cache
def interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of an accuracy; (nan, nan) where n is 0."""
    if n == 0:
        return float("nan"), float("nan")
    found = binomtest(int(correct), int(n)).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """How much more accurate ``a`` is than ``b`` on the same samples, with its 95 % interval.

    ``a`` and ``b`` say of each sample whether it is right, bool (N,). Pairing cancels what is hard
    for both. Source: the adjusted Wald interval of Agresti and Min, "Simple improved confidence
    intervals for comparing matched proportions" (2005), which holds with few differences too.
    """
    n, gained, lost = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    low, high = norm.interval(0.95, *_adjusted(gained, lost, n))
    return (gained - lost) / n, float(low), float(high)


def largest_loss(lost: int, gained: int, n: int, confidence: float) -> float:
    """How much accuracy, as a share, may be lost at most, with a one-sided ``confidence``, if of
    ``n`` samples ``lost`` were no longer right and ``gained`` were right only now; by the same
    adjusted Wald interval."""
    return float(norm.ppf(confidence, *_adjusted(lost, gained, n)))


def _adjusted(more: int, fewer: int, n: int) -> tuple[float, float]:
    """Mean and standard error of the difference of two matched proportions, half a sample added to
    each cell of their table."""
    variance = (more + fewer + 1 - (more - fewer) ** 2 / (n + 2)) / (n + 2) ** 2
    return (more - fewer) / (n + 2), variance**0.5
