"""Weights of the criterion `deferral`, fitted to validation data: what leaving may lose."""

import numpy as np
import pyarrow as pa

from offramp import OfframpError
from offramp.common.newton import minimum
from offramp.scoring.criteria import FEATURES, Weights, features
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import LEAST, PARTS, part_of
from offramp.tables.schemas import DEFERRAL

# How strongly weights are held near 0, in samples: weights of features that are scaled to spread 1.
RIDGE = 20.0


def deferral_table(logits: np.ndarray, label: np.ndarray) -> pa.Table:
    """The weights of every side exit, fitted to all samples (part 0) and to all but one of PARTS.
    ``logits`` float32 (N, K, C) and ``label`` int64 (N,) of the validation split."""
    if len(label) < LEAST:
        raise OfframpError(
            "the criterion deferral is fitted to validation samples, and "
            f"{len(label)} are too few: set dataset.validation to {LEAST} or more, or take another "
            "criterion"
        )
    part, rows = part_of(len(label)), []
    for left_out in range(PARTS + 1):
        fitting = part != left_out
        lost = expected_loss(logits[fitting], label[fitting])
        for k, weights in enumerate(fit_deferral(logits[fitting], lost), 1):
            rows.append({"part": left_out, "exit": k, "weights": list(weights)})
    return pa.Table.from_pylist(rows, schema=DEFERRAL)


def expected_loss(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """What leaving at each side exit is expected to lose of each sample, float64 (N, K-1), 0 to 1:
    how right the full network's answer is, less how right the exit's, where that is positive."""
    right = expected_correct(logits, label)
    return np.clip(right[:, -1:] - right[:, :-1], 0.0, 1.0)


def fit_deferral(logits: np.ndarray, lost: np.ndarray) -> Weights:
    """The weights of every side exit, as `offramp.scoring.criteria.deferral` uses them.

    Parameters: ``logits`` float32 (N, K, C), ``lost`` float64 (N, K-1) in [0, 1]. A logistic
    regression on an exit's features and its answer, with a ridge that lets few samples say little.
    Sources: Cox, "The Regression Analysis of Binary Sequences" (1958); le Cessie and van
    Houwelingen, "Ridge Estimators in Logistic Regression" (1992).
    """
    classes = logits.shape[2]
    weights_by_exit = []
    for k in range(logits.shape[1] - 1):
        exit_logits = logits[:, k].astype(np.float64)
        columns = np.hstack([features(exit_logits), np.eye(classes)[exit_logits.argmax(axis=1)]])
        middle, size = columns.mean(axis=0), columns.std(axis=0)
        size[size == 0] = 1.0  # an answer never given
        fitted = _logistic(
            np.column_stack([(columns - middle) / size, np.ones(len(exit_logits))]), lost[:, k]
        )
        weights = fitted[:-1] / size
        weights[FEATURES:] += fitted[-1] - middle @ weights
        weights_by_exit.append(tuple(weights.tolist()))
    return tuple(weights_by_exit)


def _logistic(columns: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Weights (P,) of the columns (N, P) under which the shares (N,) are likeliest; the last
    column's is free, the others are held by RIDGE."""
    ridge = np.append(np.full(columns.shape[1] - 1, RIDGE), 0.0)

    def value(weights: np.ndarray) -> tuple[float, np.ndarray]:
        linear = columns @ weights
        loss = np.logaddexp(0, linear).sum() - share @ linear + ridge @ weights**2 / 2
        return float(loss), 1 / (1 + np.exp(-linear))

    def slopes(weights: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        curvature = (columns * (chance * (1 - chance))[:, None]).T @ columns
        return columns.T @ (chance - share) + ridge * weights, curvature + np.diag(ridge)

    return minimum(value, slopes, np.zeros(columns.shape[1]))
