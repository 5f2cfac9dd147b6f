"""From logits to what sweep and calibration read: a score and correctness per exit."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from offramp import OfframpError
from offramp.scoring.criteria import Weights, scores_of
from offramp.tables.files import origin_of, read, read_logits, same_weights
from offramp.tables.schemas import scores_schema

# Each part of the validation data is scored by weights that were fitted without it.
PARTS = 5
# Two samples for every part.
LEAST = 2 * PARTS


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
    weights; read by `decided_by`."""
    side = None if temperatures is None else list(temperatures[:-1])
    return {
        "criterion": criterion,
        "temperatures": json.dumps(side),
        "weights": json.dumps(weights),
    }


def of_samples(sample_id: np.ndarray, label: np.ndarray, classes: int) -> dict[str, str]:
    """What a scores table's metadata say of the samples of its split, before any are left out: how
    many ``classes``, and what only the same samples in the same order have in common."""
    digest = hashlib.sha256(sample_id.tobytes() + label.tobytes()).hexdigest()
    return {"classes": str(classes), "samples_sha256": digest}


def classes_of(scores: pa.Table) -> int:
    """How many classes there are. Raises OfframpError for a scores table that does not say."""
    classes = origin_of(scores).get("classes")
    if classes is None:
        raise OfframpError("a scores table of an older version names no classes; rerun `scores`")
    return int(classes)


def part_of(samples: int) -> np.ndarray:
    """The part, 1..PARTS, of each validation sample; their order is random."""
    return np.arange(samples) % PARTS + 1


def weights_of(table: pa.Table, left_out: int = 0) -> Weights:
    """The side exits' weights that were fitted without a part, or to all samples."""
    rows = [row for row in table.to_pylist() if row["part"] == left_out]
    return tuple(tuple(row["weights"]) for row in sorted(rows, key=lambda row: row["exit"]))


def scores_left_out(table: pa.Table, logits: np.ndarray) -> np.ndarray:
    """The scores by deferral of validation samples, float64 (N, K), by weights that know nothing of
    them; ``logits`` float32 (N, K, C) of the whole split. So thresholds fitted to these scores meet
    the like of them on new data."""
    part, scores = part_of(len(logits)), np.zeros(logits.shape[:2])
    for left_out in range(1, PARTS + 1):
        rows = part == left_out
        scores[rows] = scores_of("deferral", logits[rows], weights=weights_of(table, left_out))
    return scores


class Scored(NamedTuple):
    """What a scores table holds: ``scores`` float64 (N, K), ``correct`` bool (N, K), and the
    ``table`` itself."""

    scores: np.ndarray
    correct: np.ndarray
    table: pa.Table


class Decided(NamedTuple):
    """What decides in a scores table, as a `Policy` holds it: the ``criterion``; the
    ``temperatures`` of the side exits, None for raw logits; and a fitted criterion's ``weights``
    for new data, else None."""

    criterion: str
    temperatures: tuple[float, ...] | None
    weights: Weights | None


def read_scores(path: str | Path) -> Scored:
    """Read a scores table."""
    table = read(path, "scores")
    exits = sum(name.startswith("correct_") for name in table.column_names)
    scores, correct = (
        np.column_stack(
            [table[f"{column}_{k}"].to_numpy(zero_copy_only=False) for k in range(1, exits + 1)]
        )
        for column in (decided_by(table).criterion, "correct")
    )
    return Scored(scores, correct, table)


def read_splits(paths: Iterable[str | Path]) -> dict[str, Scored]:
    """Scores tables by split, which their files are named after."""
    return {Path(path).stem: read_scores(path) for path in paths}


def read_logits_of(scores: pa.Table, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """logits float32 (N, K, C) and label int64 (N,) of the samples in a scores table of the same
    split, which lacks those that fitted temperatures; both are in the split's order. Raises
    OfframpError when the scores are of other logits."""
    stored = read_logits(path)
    same_weights([scores, stored.table])
    sample_id = scores["sample_id"].to_numpy()
    rows = np.isin(stored.sample_id, sample_id)
    logits, label = stored.logits[rows], stored.label[rows]
    right = logits[:, -1].argmax(axis=1) == label
    correct = scores[f"correct_{logits.shape[1]}"].to_numpy(zero_copy_only=False)
    if not (np.array_equal(stored.sample_id[rows], sample_id) and np.array_equal(right, correct)):
        raise OfframpError(f"{path}: not the logits of the scores; rerun with --forceall")
    return logits, label


def decided_by(scores: pa.Table) -> Decided:
    """What decides in a scores table. Raises OfframpError for one that does not say."""
    origin = origin_of(scores)
    if not {"criterion", "temperatures"} <= origin.keys():
        raise OfframpError("a scores table of an older version names no criterion; rerun `scores`")
    temperatures = json.loads(origin["temperatures"])
    weights = json.loads(origin.get("weights", "null"))
    return Decided(
        origin["criterion"],
        tuple(temperatures) if temperatures else None,
        tuple(map(tuple, weights)) if weights else None,
    )


def fitting_part(samples: int) -> int:
    """How many of the first validation samples fit what the rest then calibrate or test. The
    samples' order is random, so the first half is a random half."""
    return samples // 2
