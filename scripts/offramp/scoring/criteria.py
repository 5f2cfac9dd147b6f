"""Criteria: a score per sample and exit, where a low score leaves.

One function serves numpy arrays (the tables) and torch tensors (the cascade), so that both sides
decide by the same lines; callers pass ``xp=numpy`` or ``xp=torch``. A new criterion is a function
here and its line in CRITERIA (docs/guides/criterion.md shows one); one with weights is fitted in
`offramp.scoring.deferral`.
"""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

# How many features `deferral` weighs; a lead so large says no more when it grows.
FEATURES, MOST_AHEAD = 3, 30.0


def entropy(logits: Any, xp: ModuleType = np) -> Any:
    """Shannon entropy of the softmax over the last axis, in nats.

    Parameters: ``logits`` of shape (..., C), float64 (float32 loses the small entropies);
    ``xp``, numpy or torch. Returns shape (...), within [0, ln C].

    With z = logits - max and S = sum exp z, the entropy is ln S - sum(z exp z) / S. No logarithm of
    a probability is taken, so a probability of 0 adds exactly 0 and large logits do not overflow.
    Source: Shannon, "A Mathematical Theory of Communication" (1948), with the log-sum-exp shift.
    """
    z = logits - xp.amax(logits, axis=-1, keepdims=True)
    numerators = xp.exp(z)
    total = numerators.sum(-1)
    value = xp.log(total) - (z * numerators).sum(-1) / total
    return xp.clip(value, 0.0, math.log(logits.shape[-1]))


def max_probability(logits: Any, xp: ModuleType = np) -> Any:
    """What the softmax leaves to all classes but the likeliest: 1 - max p, within [0, 1 - 1/C].

    ``logits`` (..., C), float64; returns (...). Summed without the largest term, so that the small
    values of sure answers keep their digits. Source: Hendrycks and Gimpel, "A Baseline for
    Detecting Misclassified and Out-of-Distribution Examples" (2017).
    """
    numerators = _descending(_softmax_numerators(logits, xp), xp)
    others = numerators[..., 1:].sum(-1)
    return xp.clip(others / (1 + others), 0.0, 1 - 1 / logits.shape[-1])


def margin(logits: Any, xp: ModuleType = np) -> Any:
    """1 - (largest - second largest probability), within [0, 1].

    ``logits`` (..., C), float64; returns (...). Source: Scheffer, Decomain and Wrobel, "Active
    Hidden Markov Models for Information Extraction" (2001).
    """
    numerators = _descending(_softmax_numerators(logits, xp), xp)
    value = (2 * numerators[..., 1] + numerators[..., 2:].sum(-1)) / numerators.sum(-1)
    return xp.clip(value, 0.0, 1.0)


def energy(logits: Any, xp: ModuleType = np) -> Any:
    """The free energy, -ln sum exp(logits), in nats; unbounded.

    ``logits`` (..., C), float64; returns (...). Source: Liu et al., "Energy-based
    Out-of-distribution Detection" (2020).
    """
    largest = xp.amax(logits, axis=-1)
    return -largest - xp.log(xp.exp(logits - largest[..., None]).sum(-1))


def patience(logits: Any, xp: ModuleType = np) -> Any:
    """1 / how many exits in a row, the last included, give the label that the last one gives.

    ``logits`` (n, k, C), of the exits up to this one; returns (n,), within [1/k, 1]. A cutoff of
    1/2 asks for two. Source: Zhou et al., "BERT Loses Patience" (2020).
    """
    labels = logits.argmax(-1)
    run = unbroken = 0 * logits[:, 0, 0] + 1.0
    for k in range(labels.shape[1] - 2, -1, -1):
        unbroken = unbroken * (labels[:, k] == labels[:, -1])
        run = run + unbroken
    return 1.0 / run


def agreement(logits: Any, xp: ModuleType = np) -> Any:
    """The chance that two labels differ, one drawn from this exit's softmax and one from that of
    the exit before: 1 - sum_c p_c q_c, within [0, 1]; 1 at the first exit, which has none before.

    ``logits`` (n, k, C), of the exits up to this one, float64; returns (n,). Low only where both
    exits are sure of the same class. Source: Simpson, "Measurement of Diversity" (1949), for two
    distributions in place of one.
    """
    if logits.shape[1] == 1:
        return 0 * logits[:, 0, 0] + 1.0
    last, previous = _softmax_numerators(logits[:, -1], xp), _softmax_numerators(logits[:, -2], xp)
    same = (last * previous).sum(-1) / (last.sum(-1) * previous.sum(-1))
    return xp.clip(1 - same, 0.0, 1.0)


def deferral(logits: Any, weights: Sequence[float], xp: ModuleType = np) -> Any:
    """What answering here is expected to lose against the full network's answer, as a share of a
    right one, within [0, 1]: logistic(w . features + b of the class that is answered).

    ``logits`` (..., C), float64; ``weights`` the exit's, w of FEATURES entries and then b of C, as
    `offramp.scoring.deferral.fit_deferral` finds them; returns (...). One number means the same at
    every exit.
    Source: Jitkrittum et al., "When Does Confidence-Based Cascade Deferral Suffice?" (2023), for
    what is predicted.
    """
    parameters = np.asarray(weights) if xp is np else logits.new_tensor(weights)
    value = features(logits, xp) @ parameters[:FEATURES] + parameters[FEATURES:][logits.argmax(-1)]
    return 1 / (1 + xp.exp(-value))


def features(logits: Any, xp: ModuleType = np) -> Any:
    """What tells how sure an answer is, (..., FEATURES) of ``logits`` (..., C), float64: entropy,
    margin, and how far the largest logit is above the second, at most MOST_AHEAD."""
    ordered = _descending(logits, xp)
    ahead = xp.clip(ordered[..., 0] - ordered[..., 1], 0.0, MOST_AHEAD)
    return xp.stack([entropy(logits, xp), margin(logits, xp), ahead], -1)


def _softmax_numerators(logits: Any, xp: ModuleType) -> Any:
    """exp(logits - max): the softmax but for its denominator; the largest is 1."""
    return xp.exp(logits - xp.amax(logits, axis=-1, keepdims=True))


def _descending(values: Any, xp: ModuleType) -> Any:
    """Sorted along the last axis, the largest first."""
    return -np.sort(-values, axis=-1) if xp is np else xp.sort(values, dim=-1, descending=True)[0]


class Criterion(NamedTuple):
    """A score function, and what must be known of it.

    ``range`` gives the ends with C classes, None where there are none. ``tolerance`` is how far
    float32 logits of another batch may move a score; None for one that counts labels, which only a
    tie of logits moves. ``looks_back``: it is given the logits (n, k, C) of all exits so far
    instead of the last one's (..., C), so heads of disabled exits run if a later exit is enabled.
    ``fitted``: it needs weights, one row per side exit. ``bend`` is the power to which cutoffs
    evenly spread over the range are bent: above 1, the low ones lie closer together. ``formula`` is
    what the summary says of it, with p = softmax(z) of the logits z.
    """

    score: Callable[..., Any]
    range: Callable[[int], tuple[float, float]] | None
    formula: str
    tolerance: float | None = 1e-5
    looks_back: bool = False
    unit: str = ""
    fitted: bool = False
    bend: int = 1


CRITERIA = {
    "entropy": Criterion(
        entropy, lambda classes: (0.0, math.log(classes)), "H = -sum_c p_c ln p_c", unit="nats"
    ),
    "max_probability": Criterion(
        max_probability, lambda classes: (0.0, 1 - 1 / classes), "1 - max_c p_c"
    ),
    "margin": Criterion(margin, lambda classes: (0.0, 1.0), "1 - (largest p - second largest p)"),
    "energy": Criterion(energy, None, "-ln sum_c exp z_c", tolerance=1e-4, unit="nats"),
    "patience": Criterion(
        patience,
        lambda classes: (0.0, 1.0),
        "1 / exits in a row that give the same label",
        tolerance=None,
        looks_back=True,
    ),
    "agreement": Criterion(
        agreement,
        lambda classes: (0.0, 1.0),
        "1 - sum_c p_c q_c, q being the p of the exit before",
        looks_back=True,
    ),
    "deferral": Criterion(
        deferral,
        lambda classes: (0.0, 1.0),
        "how likely leaving here loses a right answer, by logistic regression",
        tolerance=1e-4,
        fitted=True,
        bend=3,
    ),
}
# Per side exit: what a fitted criterion knows of it.
Weights = tuple[tuple[float, ...], ...]


def score_at(
    criterion: str, logits: Any, xp: ModuleType = np, weights: Sequence[float] | None = None
) -> Any:
    """Scores (n,) at the last of the exits whose ``logits``, float64 (n, k, C), are given; and that
    exit's ``weights`` for a fitted criterion."""
    definition = CRITERIA[criterion]
    seen = logits if definition.looks_back else logits[:, -1]
    return definition.score(seen, weights, xp) if definition.fitted else definition.score(seen, xp)


def final_score(criterion: str, logits: Any, xp: ModuleType = np) -> Any:
    """Scores (n,) of the final exit, which takes all who remain, from its ``logits``, float64
    (n, C): 0 under a fitted criterion, for which it risks nothing; nan under one that looks back,
    since not all heads before it have run."""
    definition = CRITERIA[criterion]
    if definition.looks_back or definition.fitted:
        return 0 * logits[:, 0] + (math.nan if definition.looks_back else 0.0)
    return definition.score(logits, xp)


def scores_of(
    criterion: str,
    logits: np.ndarray,
    temperatures: tuple[float, ...] | None = None,
    weights: Weights | None = None,
) -> np.ndarray:
    """Scores float64 (N, K) at every exit, from ``logits`` float32 (N, K, C) divided by the exits'
    ``temperatures`` (K,), None being raw logits. A fitted criterion takes the side exits'
    ``weights``; the final exit risks nothing: 0."""
    precise = logits.astype(np.float64)
    if temperatures is not None:
        precise /= np.array(temperatures)[:, None]
    scores = np.zeros(logits.shape[:2])
    for k in range(logits.shape[1] if weights is None else min(len(weights), logits.shape[1])):
        exit_weights = None if weights is None else weights[k]
        scores[:, k] = score_at(criterion, precise[:, : k + 1], weights=exit_weights)
    return scores


def score_range(criterion: str, classes: int, values: np.ndarray) -> tuple[float, float]:
    """The ends of a criterion's range; of ``values``, scores of any shape, where it has none."""
    ends = CRITERIA[criterion].range
    return ends(classes) if ends else (float(values.min()), float(values.max()))


def spread(criterion: str, ends: tuple[float, float], places: np.ndarray) -> np.ndarray:
    """Cutoffs between the ends of a criterion's range: where ``places``, from 0 to 1, fall once
    they are bent as the criterion asks."""
    low, high = ends
    return low + (high - low) * places ** CRITERIA[criterion].bend
