"""95 % intervals of accuracies and of their differences."""

from statistics import NormalDist

import numpy as np

# scipy.stats, which has these intervals, takes a second to import.
NORMAL = NormalDist()


def interval(correct: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of an accuracy; (nan, nan) where n is 0."""
    if n == 0:
        return float("nan"), float("nan")
    return wilson(correct, n, 0.025), wilson(correct, n, 0.975)


def wilson(correct: float, n: int, confidence: float) -> float:
    """The end of an accuracy's Wilson interval below which it lies with a one-sided ``confidence``;
    the lower end where this is below one half.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927).
    """
    z, share = NORMAL.inv_cdf(confidence), correct / n
    spread = z * (share * (1 - share) / n + (z / n / 2) ** 2) ** 0.5
    end = (share + z**2 / n / 2 + spread) / (1 + z**2 / n)
    # Rounding must not put 0 of n outside their interval, or n of n.
    return float(np.clip(end, 0.0, share) if z < 0 else np.clip(end, share, 1.0))


def paired_difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """How much more accurate ``a`` is than ``b`` on the same samples, with its 95 % interval.

    ``a`` and ``b`` say of each sample whether it is right, bool (N,). Pairing cancels what is hard
    for both. Source: the adjusted Wald interval of Agresti and Min, "Simple improved confidence
    intervals for comparing matched proportions" (2005), which holds with few differences too.
    """
    n, gained, lost = len(a), int((a & ~b).sum()), int((b & ~a).sum())
    mean, error = _adjusted(gained, lost, n)
    z = NORMAL.inv_cdf(0.975)
    return (gained - lost) / n, float(mean - z * error), float(mean + z * error)


def largest_loss(lost: int, gained: int, n: int, confidence: float) -> float:
    """How much accuracy, as a share, may be lost at most, with a one-sided ``confidence``, if of
    ``n`` samples ``lost`` were no longer right and ``gained`` were right only now; by the same
    adjusted Wald interval."""
    mean, error = _adjusted(lost, gained, n)
    return float(mean + NORMAL.inv_cdf(confidence) * error)


def _adjusted(more: int, fewer: int, n: int) -> tuple[float, float]:
    """Mean and standard error of the difference of two matched proportions, half a sample added to
    each cell of their table."""
    variance = (more + fewer + 1 - (more - fewer) ** 2 / (n + 2)) / (n + 2) ** 2
    return (more - fewer) / (n + 2), variance**0.5
