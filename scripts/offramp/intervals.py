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
    centre = (gained - lost) / (n + 2)
    variance = (gained + lost + 1 - (gained - lost) ** 2 / (n + 2)) / (n + 2) ** 2
    low, high = norm.interval(0.95, centre, variance**0.5)
    return (gained - lost) / n, float(low), float(high)
