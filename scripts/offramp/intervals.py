"""95 % intervals of accuracies and of their differences."""

from functools import cache

import numpy as np
from scipy.stats import binomtest, ttest_rel


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
    for both. Source: the paired t interval, which at thousands of samples is the normal one.
    """
    difference = float(a.mean() - b.mean())
    if np.array_equal(a, b):
        return difference, 0.0, 0.0
    found = ttest_rel(a.astype(float), b.astype(float)).confidence_interval(0.95)
    return difference, float(found.low), float(found.high)
