"""From logits to what sweep and calibration read: a score and correctness per exit."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from offramp.criteria import Weights, scores_of
from offramp.tables import scores_schema

# Each part of the validation data is scored by weights that were fitted without it.
PARTS = 5


def scores_table(
    sample_id: np.ndarray,
    label: np.ndarray,
    logits: np.ndarray,
    values: np.ndarray,
    criterion: str,
) -> pa.Table:
    """One row a sample, from ``logits`` float32 (N, K, C) and the criterion's scores, ``values``
    float64 (N, K)."""
    right = logits.argmax(axis=2) == label[:, None]
    columns = [sample_id, *values.T, *right.T]
    schema = scores_schema(logits.shape[1], criterion)
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=schema)


def how_decided(
    criterion: str, temperatures: Sequence[float] | None, weights: Weights | None = None
) -> dict[str, str]:
    """What a scores table's metadata say of the criterion and the side exits' temperatures and
    weights; read by `offramp.tables.decided_by`."""
    side = None if temperatures is None else list(temperatures[:-1])
    found = {"temperatures": json.dumps(side), "weights": json.dumps(weights)}
    return {"criterion": criterion} | found


def part_of(samples: int) -> np.ndarray:
    """The part, 1..PARTS, of each validation sample; their order is random."""
    return np.arange(samples) % PARTS + 1


def weights_of(table: pa.Table, left_out: int = 0) -> Weights:
    """The side exits' weights that were fitted without a part, or to all samples."""
    rows = [row for row in table.to_pylist() if row["part"] == left_out]
    return tuple(tuple(row["weights"]) for row in sorted(rows, key=lambda row: row["exit"]))


def scores_left_out(table: pa.Table, logits: np.ndarray) -> np.ndarray:
    """The risk of validation samples at every exit, float64 (N, K), by weights that know nothing of
    them; ``logits`` float32 (N, K, C) of the whole split. So thresholds fitted to these scores meet
    the like of them on new data."""
    part, scores = part_of(len(logits)), np.zeros(logits.shape[:2])
    for left_out in range(1, PARTS + 1):
        some = part == left_out
        scores[some] = scores_of("risk", logits[some], weights=weights_of(table, left_out))
    return scores
