"""What every way to choose thresholds shares: samples, candidates, ties, survivors."""

from collections.abc import Callable

import numpy as np

# One per side exit; None disables the exit.
Thresholds = tuple[float | None, ...]
# Given how many are right among the first n, for n = 1.., which n will do: bool.
Passes = Callable[[np.ndarray, np.ndarray], np.ndarray]


def ends_of_ties(ordered: np.ndarray) -> np.ndarray:
    """Which places of ascending scores end a run of equal ones, bool: equal scores leave together,
    so only there can a threshold lie."""
    return np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]


def largest_threshold(scores: np.ndarray, correct: np.ndarray, passes: Passes) -> float | None:
    """The largest score t such that the samples with score <= t pass.

    Parameters: ``scores`` float64 (n,), ``correct`` bool (n,). Returns the score of the last sample
    that leaves, or None when no threshold will do. The accuracy is not monotone in t, so all
    candidates are looked at.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    passed = passes(correct[order].cumsum(), np.arange(1, len(ordered) + 1))
    places = np.flatnonzero(ends_of_ties(ordered) & passed)
    return float(ordered[places[-1]]) if len(places) else None


def largest_thresholds(scores: np.ndarray, correct: np.ndarray, passes: Passes) -> Thresholds:
    """The largest threshold that passes at each side exit in turn, on the survivors that reach it.

    Parameters: ``scores`` float64 (N, K), ``correct`` bool (N, K).
    """
    survivors = np.arange(len(scores))
    thresholds: list[float | None] = []
    for k in range(scores.shape[1] - 1):
        exit_scores = scores[survivors, k]
        threshold = largest_threshold(exit_scores, correct[survivors, k], passes)
        thresholds.append(threshold)
        if threshold is not None:
            survivors = survivors[exit_scores > threshold]
    return tuple(thresholds)
