"""Thresholds with a promise: on new data, every enabled exit reaches the target."""

from functools import lru_cache

import numpy as np

from offramp.policy import exits_of
from offramp.thresholds import Thresholds, largest_thresholds

# How sure the learning half must be of an exit, from cautious to bold; each gives a candidate.
LEVELS = 1 - np.geomspace(1e-6, 0.5, 40)
SPLIT_SEED = 42


def calibrate_guaranteed(
    scores: np.ndarray, correct: np.ndarray, target: float, confidence: float
) -> Thresholds:
    """Thresholds of the K-1 side exits such that, with the wanted confidence over the draw of these
    data, on new data of the same kind the samples that leave at each enabled exit are at least as
    accurate as the target, at all exits at once; None disables an exit.

    Parameters: ``scores`` float64 (N, K), ``correct`` bool (N, K): data that trained nothing.

    Why it holds: one half of the data, drawn under a fixed seed, proposes a sequence of policies;
    the other half, independent of it, tests them in that order and stops at the first that fails.
    The null hypothesis of a policy is that *some* enabled exit is below the target; it is rejected
    only if the exact binomial test of every enabled exit rejects at level 1 - confidence, and of
    those in truth below one alone does so with at most that probability (an intersection-union
    test, so no correction for the number of exits). Testing in a fixed order then keeps the chance
    of ever accepting a false policy at that level. Nothing is asked of how accuracy depends on a
    threshold; it need not be monotone.
    Sources: Angelopoulos et al., "Learn then Test" (2021), split fixed-sequence testing; Berger,
    "Multiparameter Hypothesis Testing and Acceptance Sampling" (1982), intersection-union tests.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(len(scores))
    learn, test = np.array_split(order, 2)
    proposing, testing = (scores[learn], correct[learn]), (scores[test], correct[test])
    accepted: Thresholds = (None,) * (scores.shape[1] - 1)
    for level in LEVELS:
        candidate = propose(*proposing, target, level)
        p_values = exit_p_values(*testing, candidate, target)
        if (p_values > 1 - confidence).any():
            break
        accepted = candidate
    return accepted


def propose(scores: np.ndarray, correct: np.ndarray, target: float, level: float) -> Thresholds:
    """At each exit in turn, the largest threshold of which these data are sure at ``level``: the
    exact binomial test rejects that those who leave there are below the target."""
    enough = enough_right(len(scores), target, level)
    return largest_thresholds(scores, correct, lambda right, n: right >= enough[: len(n)])


# The same table serves every exit, and every draw of a benchmark or of an estimate of optimism,
# each of which goes through all levels of all targets.
@lru_cache(40 * len(LEVELS))
def enough_right(samples: int, target: float, level: float) -> np.ndarray:
    """For n = 1..samples, the fewest right answers among n at which the exact binomial test rejects
    at ``level`` that the accuracy is below the target: int32; more than n where even n are too
    few."""
    from scipy.stats import binom  # heavy to import, and wanted by this method alone

    return binom.ppf(level, np.arange(1, samples + 1), target).astype(np.int32) + 1


def exit_p_values(
    scores: np.ndarray, correct: np.ndarray, thresholds: Thresholds, target: float
) -> np.ndarray:
    """For each enabled exit, the exact p-value of its leaving samples being below the target:
    float64; 1 for an exit at which nobody leaves."""
    from scipy.stats import binom

    taken = exits_of(scores, thresholds)
    enabled = [k for k, t in enumerate(thresholds) if t is not None]
    n = np.array([(taken == k + 1).sum() for k in enabled])
    right = np.array([correct[taken == k + 1, k].sum() for k in enabled])
    return binom.sf(right - 1, n, target)
