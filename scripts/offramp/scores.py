"""From logits to what sweep and calibration read: a score and correctness per exit."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from offramp.criteria import scores_of
from offramp.tables import scores_schema


def scores_table(
    sample_id: np.ndarray,
    label: np.ndarray,
    logits: np.ndarray,
    criterion: str,
    temperatures: Sequence[float] | None = None,
) -> pa.Table:
    """One row a sample, from ``logits`` float32 (N, K, C), divided by the exits' ``temperatures``
    (K,), None being raw logits; scores are float64."""
    divisors = None if temperatures is None else tuple(temperatures)
    values = scores_of(criterion, logits, divisors)
    right = logits.argmax(axis=2) == label[:, None]
    columns = [sample_id, *values.T, *right.T]
    schema = scores_schema(logits.shape[1], criterion)
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=schema)


def how_decided(criterion: str, temperatures: Sequence[float] | None) -> dict[str, str]:
    """What a scores table's metadata say of criterion and side exits' temperatures; read by
    `offramp.tables.decided_by`."""
    side = None if temperatures is None else list(temperatures[:-1])
    return {"criterion": criterion, "temperatures": json.dumps(side)}
