"""Named rules that choose one policy out of many, always from validation data."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from offramp.policy import Policy


class Candidate(NamedTuple):
    """A policy and its figures on the validation split: seconds, correct of n."""

    policy: Policy
    origin: dict[str, Any]
    seconds: float
    correct: int
    n: int

    @property
    def accuracy(self) -> float:
        """Overall accuracy on the validation split."""
        return self.correct / self.n


def fastest_within_loss(
    candidates: Sequence[Candidate], full_correct: int, max_loss: float, **_: float
) -> Candidate | None:
    """The fastest that loses at most ``max_loss`` (a fraction) against the full network."""
    return _fastest([c for c in candidates if (full_correct - c.correct) / c.n <= max_loss])


def fastest_above_accuracy(
    candidates: Sequence[Candidate], min_accuracy: float, **_: float
) -> Candidate | None:
    """The fastest whose accuracy is at least ``min_accuracy``."""
    return _fastest([c for c in candidates if c.accuracy >= min_accuracy])


def best_accuracy_per_second(candidates: Sequence[Candidate], **_: float) -> Candidate | None:
    """The one with the most accuracy per second."""
    return max(candidates, key=lambda c: c.accuracy / c.seconds, default=None)


def knee(candidates: Sequence[Candidate], **_: float) -> Candidate | None:
    """The knee of the frontier of time against accuracy; None when the frontier has none.

    Source: Satopaa et al., "Finding a 'Kneedle' in a Haystack" (2011), as in the package kneed.
    """
    from kneed import KneeLocator  # heavy to import, and wanted by this rule alone

    frontier = pareto_frontier(candidates)
    if len(frontier) < 3:
        return None
    seconds = np.array([c.seconds for c in frontier])
    accuracy = np.array([c.accuracy for c in frontier])
    found = KneeLocator(seconds, accuracy, curve="concave", direction="increasing").knee
    return None if found is None else frontier[int(np.abs(seconds - found).argmin())]


def pareto_frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those to whom no other is both as fast and more accurate, from fast to slow."""
    frontier: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.seconds, -c.correct)):
        if not frontier or candidate.correct > frontier[-1].correct:
            frontier.append(candidate)
    return frontier


RULES: dict[str, Callable[..., Candidate | None]] = {
    "fastest_within_loss": fastest_within_loss,
    "fastest_above_accuracy": fastest_above_accuracy,
    "best_accuracy_per_second": best_accuracy_per_second,
    "knee": knee,
}


def _fastest(candidates: Sequence[Candidate]) -> Candidate | None:
    return min(candidates, key=lambda c: (c.seconds, -c.correct), default=None)
