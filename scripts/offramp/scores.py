"""From logits to what sweep and calibration read: entropy and correctness per exit."""

import numpy as np
import pyarrow as pa

from offramp.criteria import entropy
from offramp.tables import scores_schema


def scores_table(sample_id: np.ndarray, label: np.ndarray, logits: np.ndarray) -> pa.Table:
    """One row a sample, from ``logits`` float32 (N, K, C); entropies are float64, in nats."""
    exits = logits.shape[1]
    values = entropy(logits.astype(np.float64))
    right = logits.argmax(axis=2) == label[:, None]
    columns = [sample_id, *values.T, *right.T]
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=scores_schema(exits))
