"""Criteria: a score per sample and exit, where a low score leaves.

One function serves numpy arrays (the tables) and torch tensors (the cascade), so that both sides
decide by the same lines; callers pass ``xp=numpy`` or ``xp=torch``.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np


def entropy(logits: Any, xp: ModuleType = np) -> Any:
    """Shannon entropy of the softmax over the last axis, in nats.

    Parameters: ``logits`` of shape (..., C), float64 (float32 loses the small entropies);
    ``xp``, numpy or torch. Returns shape (...), within [0, ln C].

    With z = logits - max and S = sum exp z, the entropy is ln S - sum(z exp z) / S. No logarithm of
    a probability is taken, so a probability of 0 adds exactly 0 and large logits do not overflow.
    Source: Shannon, "A Mathematical Theory of Communication" (1948), with the log-sum-exp shift.
    """
    z = logits - xp.amax(logits, axis=-1, keepdims=True)
    weights = xp.exp(z)
    total = weights.sum(-1)
    value = xp.log(total) - (z * weights).sum(-1) / total
    return xp.clip(value, 0.0, math.log(logits.shape[-1]))


class Criterion(NamedTuple):
    """A score function and the largest score that C classes allow."""

    score: Callable[..., Any]
    maximum: Callable[[int], float]


CRITERIA = {"entropy": Criterion(entropy, math.log)}
