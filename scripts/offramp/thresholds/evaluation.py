"""What a policy does on a split: who leaves where, how many are right, what it takes."""

from typing import Any

import numpy as np

from offramp.scoring.policy import Policy, exits_of
from offramp.thresholds.survivors import Thresholds
from offramp.thresholds.time_model import TimeModel, full_network_seconds, reached_by, stage_seconds


def accuracy_drop(scores: np.ndarray, correct: np.ndarray, thresholds: Thresholds) -> float:
    """The share of the samples by which a policy is less often right than the full network."""
    return float(lost_of(scores, correct, thresholds).sum() / len(scores))


def lost_of(scores: np.ndarray, correct: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """By sample, int64 (N,): 1 where the full network is right and the policy is not, -1 where the
    policy is and the full network is not, 0 elsewhere."""
    taken = exits_of(scores, thresholds)
    right = correct[np.arange(len(scores)), taken - 1]
    return correct[:, -1].astype(np.int64) - right


def evaluate(
    scores: np.ndarray,
    correct: np.ndarray,
    policy: Policy,
    model: TimeModel,
) -> dict[str, np.ndarray]:
    """What a policy does on a split: see `evaluate_exits`. ``scores`` float64 (N, K) are those of
    its criterion and temperatures."""
    taken = exits_of(scores, policy.thresholds)
    return evaluate_exits(taken, correct, policy.runs, model)


def evaluate_exits(
    taken: np.ndarray,
    correct: np.ndarray,
    runs: np.ndarray,
    model: TimeModel,
) -> dict[str, np.ndarray]:
    """What leaving at given exits means for accuracy and time.

    Parameters: ``taken`` int (N,), the exit 1..K of each sample; ``correct`` bool (N, K);
    ``runs`` bool (2, K), as `Policy.runs`. Returns ``n``, ``correct`` int64 (K+1,) and
    ``seconds`` float64 (K+1,), entry 0 overall, and ``speedup`` over the full network, a float.
    """
    samples, exits = correct.shape
    right = correct[np.arange(samples), taken - 1]
    n = np.bincount(taken, minlength=exits + 1)
    hits = np.bincount(taken[right], minlength=exits + 1)
    seconds = stage_seconds(model, reached_by(taken, model.batch_size, exits), runs)
    n[0], hits[0] = samples, right.sum()
    total = seconds.sum()
    return {
        "n": n,
        "correct": hits,
        "seconds": np.concatenate([[total], seconds]),
        "speedup": full_network_seconds(model, samples) / total,
    }


def evaluation_rows(result: dict[str, Any]) -> dict[str, list]:
    """What `evaluate_exits` found, as columns: exits 0 (overall) to K."""
    exits = len(result["n"])
    return {
        "exit": list(range(exits)),
        "n": result["n"].tolist(),
        "correct": result["correct"].tolist(),
        "accuracy": accuracy_or_none(result["correct"], result["n"]),
        "seconds": result["seconds"].tolist(),
        "speedup": [result["speedup"]] + [None] * (exits - 1),
    }


def accuracy_or_none(correct: np.ndarray, n: np.ndarray) -> list[float | None]:
    """correct / n for each pair, None where n is 0."""
    return [c / m if m else None for c, m in zip(correct.tolist(), n.tolist(), strict=True)]
