"""Thresholds with a promise: on new data, every enabled exit reaches the target."""

from typing import NamedTuple

import numpy as np
from scipy.special import bdtrc

from offramp.common.intervals import NORMAL
from offramp.thresholds.survivors import Thresholds, ends_of_ties

SPLIT_SEED = 42
# Of the data, what says where each exit's search begins; the rest are tested.
LEARN = 0.3
# An exit is tried only where the first test must be expected to pass by so many standard errors:
# one that fails costs all later exits. The last one has none to lose.
AHEAD = 1.5
# Tests made at a time: the search ends at the first that fails.
CHUNK = 4096


class Sorted(NamedTuple):
    """Samples at an exit by rising score: ``scores`` float64 (n,), ``right`` int64 (n,), how many
    of the first 1..n are right, ``ends`` bool (n,), where a run of equal scores ends."""

    scores: np.ndarray
    right: np.ndarray
    ends: np.ndarray


def calibrate_guaranteed(
    scores: np.ndarray, correct: np.ndarray, target: float, confidence: float
) -> Thresholds:
    """Thresholds of the K-1 side exits such that, with the wanted confidence over the draw of these
    data, on new data of the same kind the samples that leave at each enabled exit are at least as
    accurate as the target, at all exits at once; None disables an exit.

    Parameters: ``scores`` float64 (N, K), ``correct`` bool (N, K): data that trained nothing.

    Why it holds. The exits are taken one after the other. At each, thresholds rise from sample to
    sample, from where the learning part of the data is surest, and every one is tested: the exact
    binomial test must reject that those who leave are below the target. The first that fails ends
    the search. Let t be where the accuracy first falls below the target: to go beyond it, the
    search has to pass the test on exactly the samples up to t, which happens with no more than that
    exit's share of the allowed error. Nothing is asked of how accuracy depends on a threshold; it
    need not be monotone.
    No later exit is disturbed: a search has seen the samples up to the first that failed, and the
    threshold lies just below that one's score. So of those who stay it has seen that one alone
    (with all who tie with it), which counts as wrong at every later exit, and the others are as
    good as new. If the very first test of an exit fails, too much has been
    seen, and later exits stay disabled. The shares of the error add up to 1 - confidence; what an
    exit that is not tried leaves goes to those after it.
    Sources: Angelopoulos et al., "Learn then Test" (2021), fixed-sequence testing; Clopper and
    Pearson (1934), the exact test.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(len(scores))
    learn, test = np.split(order, [int(LEARN * len(order))])
    seen = np.zeros(len(scores), dtype=bool)
    side_exits, error = scores.shape[1] - 1, 1 - confidence
    thresholds: list[float | None] = [None] * side_exits
    for k in range(side_exits):
        share = error / (side_exits - k)
        start, lead = surest_threshold(sort_by_score(scores[learn, k], correct[learn, k]), target)
        expected = lead * ((1 - LEARN) / LEARN) ** 0.5
        if expected < NORMAL.inv_cdf(1 - share) + (AHEAD if k < side_exits - 1 else 0.0):
            continue
        error -= share
        by_score = sort_by_score(scores[test, k], correct[test, k] & ~seen[test])
        threshold, failed = last_passed(by_score, start, target, share)
        if threshold is None:
            break
        thresholds[k] = threshold
        learn, test = (rows[scores[rows, k] > threshold] for rows in (learn, test))
        seen[test[scores[test, k] <= failed]] = True
    return tuple(thresholds)


def sort_by_score(scores: np.ndarray, correct: np.ndarray) -> Sorted:
    """Scores float64 (n,) and correct bool (n,) of the samples at an exit, sorted."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return Sorted(ordered, correct[order].cumsum(), ends_of_ties(ordered))


def surest_threshold(by_score: Sorted, target: float) -> tuple[float, float]:
    """The threshold up to which accuracy lies most clearly above the target, and by how many
    standard errors it does, -inf where there is no sample."""
    n = np.arange(1, len(by_score.scores) + 1)
    lead = (by_score.right - target * n) / np.sqrt(n * max(target * (1 - target), 1e-9))
    lead[~by_score.ends] = -np.inf
    if not len(n):
        return -np.inf, -np.inf
    place = lead.argmax()
    return float(by_score.scores[place]), float(lead[place])


def last_passed(
    by_score: Sorted, start: float, target: float, error: float
) -> tuple[float | None, float]:
    """The largest threshold from ``start`` on up to which every test passes at level ``error``:
    just below the score at which the first fails; and that score, inf if none does. (None, inf)
    where already the first fails."""
    begin = int(np.searchsorted(by_score.scores, start, side="right"))
    if (
        begin == 0
        or not passes_test(by_score.right[begin - 1 : begin], np.array([begin]), target, error)[0]
    ):
        return None, np.inf
    threshold = start
    for chunk in range(begin, len(by_score.scores), CHUNK):
        places = chunk + np.flatnonzero(by_score.ends[chunk : chunk + CHUNK])
        passed = passes_test(by_score.right[places], places + 1, target, error)
        if not passed.all():
            failed = float(by_score.scores[places[passed.argmin()]])
            return float(np.nextafter(failed, -np.inf)), failed
        threshold = float(by_score.scores[places[-1]]) if len(places) else threshold
    return threshold, np.inf


def passes_test(right: np.ndarray, n: np.ndarray, target: float, error: float) -> np.ndarray:
    """Whether the exact binomial test rejects, at level ``error``, that the accuracy is below the
    target, for ``right`` of ``n`` samples, int64 each: bool."""
    # bdtrc is the chance of more than that many; below 0 it is 1.
    return np.where(right > 0, bdtrc(np.maximum(right - 1, 0), n, target), 1.0) <= error
