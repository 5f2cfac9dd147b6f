"""The Parquet tables: their schemas, how they are written, and how readers check them."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offramp import OfframpError
from offramp.criteria import Weights

VERSION = "1"

TIMINGS = pa.schema(
    {
        "split": pa.string(),
        "batch": pa.int32(),
        "part": pa.string(),
        "exit": pa.int32(),
        "batch_size": pa.int32(),
        "kept": pa.int32(),
        "repeat": pa.int32(),
        "seconds": pa.float64(),
    }
)
SWEEP = pa.schema(
    {
        "split": pa.string(),
        "criterion": pa.string(),
        "cutoff": pa.float64(),
        "exit": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    }
)
CALIBRATION = pa.schema(
    {
        "calibrated_on": pa.string(),
        "method": pa.string(),
        "target": pa.float64(),
        "exit": pa.int32(),
        "threshold": pa.float64(),
        "split": pa.string(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    }
)
OPTIMISM = pa.schema({"target": pa.float64(), "optimism": pa.float64()})
VERIFICATION = pa.schema(
    {
        "policy": pa.string(),
        "chosen": pa.bool_(),
        "exit": pa.int32(),
        "threshold": pa.float64(),
        "n_table": pa.int64(),
        "n_live": pa.int64(),
        "correct_table": pa.int64(),
        "correct_live": pa.int64(),
        "differ": pa.int64(),
        "excused": pa.int64(),
        "seconds_predicted": pa.float64(),
        "seconds_measured": pa.float64(),
        "speedup_predicted": pa.float64(),
        "speedup_measured": pa.float64(),
        "speedup_low": pa.float64(),
        "speedup_high": pa.float64(),
    }
)
NETWORK = pa.schema(
    {
        "part": pa.string(),
        "exit": pa.int32(),
        "input_shape": pa.string(),
        "output_shape": pa.string(),
        "parameters": pa.int64(),
        "multiply_adds": pa.int64(),
    }
)
TRAINING = pa.schema(
    {
        "epoch": pa.int32(),
        "exit": pa.int32(),
        "loss": pa.float64(),
        "accuracy": pa.float64(),
        "val_accuracy": pa.float64(),
        "seconds": pa.float64(),
    }
)
RIVAL = pa.schema(
    {
        "network": pa.string(),
        "repeat": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "difference": pa.float64(),
        "difference_low": pa.float64(),
        "difference_high": pa.float64(),
        "seconds": pa.float64(),
    }
)
BENCHMARKS = pa.schema(
    {
        "benchmark": pa.string(),
        "contender": pa.string(),
        "case": pa.string(),
        "batch_size": pa.int32(),
        "images": pa.int64(),
        "repeat": pa.int32(),
        "value": pa.float64(),
        "unit": pa.string(),
    }
)
COVERAGE = pa.schema(
    {
        "promise": pa.string(),
        "population": pa.string(),
        "n": pa.int64(),
        "stated": pa.float64(),
        "draws": pa.int32(),
        "broken": pa.int32(),
        "rate": pa.float64(),
        "rate_low": pa.float64(),
        "rate_high": pa.float64(),
        "speedup": pa.float64(),
    }
)
TEMPERATURES = pa.schema(
    {
        "exit": pa.int32(),
        "temperature": pa.float64(),
        "n": pa.int64(),
        "nll": pa.float64(),
        "nll_scaled": pa.float64(),
    }
)
RELIABILITY = pa.schema(
    {
        "split": pa.string(),
        "exit": pa.int32(),
        "scaled": pa.bool_(),
        "bin": pa.int32(),
        "n": pa.int64(),
        "confidence": pa.float64(),
        "correct": pa.int64(),
        "ece": pa.float64(),
        "ece_low": pa.float64(),
        "ece_high": pa.float64(),
        "nll": pa.float64(),
    }
)
FRONTIERS = pa.schema(
    {
        "criterion": pa.string(),
        "scaled": pa.bool_(),
        "method": pa.string(),
        "thresholds": pa.list_(pa.float64()),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "accuracy_low": pa.float64(),
        "accuracy_high": pa.float64(),
        "seconds": pa.float64(),
    }
)
EQUAL_ACCURACY = pa.schema(
    {
        "criterion": pa.string(),
        "scaled": pa.bool_(),
        "method": pa.string(),
        "points_lost": pa.float64(),
        **{
            f"{name}{end}": pa.float64()
            for name in ("seconds", "over_shared", "speedup")
            for end in ("", "_low", "_high")
        },
    }
)
RISK = pa.schema({"part": pa.int32(), "exit": pa.int32(), "weights": pa.list_(pa.float64())})
LEAVING = pa.schema(
    {"exit": pa.int32(), "label": pa.int64(), "predicted": pa.int64(), "n": pa.int64()}
)
AGREEMENT = pa.schema(
    {
        "first": pa.int32(),
        "second": pa.int32(),
        "n": pa.int64(),
        "same_label": pa.int64(),
        "both_right": pa.int64(),
        "only_first_right": pa.int64(),
    }
)
ORACLE = pa.schema(
    {
        "exit_rule": pa.string(),
        "exit": pa.int32(),
        "n": pa.int64(),
        "correct": pa.int64(),
        "accuracy": pa.float64(),
        "seconds": pa.float64(),
        "speedup": pa.float64(),
    }
)


def logits_schema(exits: int, classes: int) -> pa.Schema:
    """One row a sample: sample_id, label, and ``exit_1`` .. ``exit_K`` lists of C float32."""
    columns = [("sample_id", pa.int64()), ("label", pa.int64())]
    return pa.schema(
        columns + [(f"exit_{k}", pa.list_(pa.float32(), classes)) for k in range(1, exits + 1)]
    )


def scores_schema(exits: int, criterion: str) -> pa.Schema:
    """One row a sample: sample_id, the criterion's score (``entropy_k``, in nats, say) and
    ``correct_k`` for every exit."""
    numbers = range(1, exits + 1)
    return pa.schema(
        [("sample_id", pa.int64())]
        + [(f"{criterion}_{k}", pa.float64()) for k in numbers]
        + [(f"correct_{k}", pa.bool_()) for k in numbers]
    )


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance(config: Mapping[str, Any], weights_sha256: str, split: str = "all") -> dict:
    """What every table says of its origin, as strings for the schema metadata."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    libraries = ["numpy", "pyarrow", "torch", "torchvision", "snakemake"]
    return {
        "dataset": config["dataset"]["name"],
        "split": split,
        "model": config["model"]["name"],
        "weights_sha256": weights_sha256,
        "config_digest": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "git_commit": commit or "unknown",
        "library_versions": json.dumps({name: _version(name) for name in libraries}),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:  # the analysis environment has no torch
        return "absent"


def write(path: str | Path, table: pa.Table, name: str, origin: Mapping[str, str]) -> None:
    """Write a whole table with its origin; the file appears complete or not at all."""
    with TableWriter(path, table.schema, name, origin) as writer:
        writer.append(table)


class TableWriter:
    """Writes a table piece by piece in bounded memory; renamed into place on a clean exit.

    A context manager, because a temporary file must go when the body raises.
    """

    def __init__(self, path: str | Path, schema: pa.Schema, name: str, origin: Mapping[str, str]):
        self.path = Path(path)
        self.part = Path(f"{path}.part")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.schema = schema.with_metadata({**origin, "schema": name, "schema_version": VERSION})
        self.writer = pq.ParquetWriter(self.part, self.schema, compression="zstd")

    def __enter__(self) -> "TableWriter":
        return self

    def append(self, table: pa.Table) -> None:
        """Append rows; their columns must be those of the schema."""
        self.writer.write_table(table.cast(self.schema))

    def __exit__(self, error: type | None, *_: object) -> None:
        try:
            self.writer.close()
            if error is None:
                self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)


def read(path: str | Path, name: str) -> pa.Table:
    """Read a table of the given schema name.

    Raises OfframpError when the file is missing, is no Parquet, or has another name or version.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise OfframpError(f"{path}: not a readable Parquet table ({error})") from None
    found = origin_of(table)
    if (found.get("schema"), found.get("schema_version")) != (name, VERSION):
        raise OfframpError(
            f"{path}: want table {name!r} version {VERSION}, found {found.get('schema')!r} "
            f"version {found.get('schema_version')}; delete it and rerun"
        )
    return table


def origin_of(table: pa.Table) -> dict[str, str]:
    """The origin that a table carries in its schema metadata."""
    metadata = table.schema.metadata or {}
    return {k.decode(): v.decode() for k, v in metadata.items() if not k.startswith(b"ARROW")}


def same_weights(inputs: Iterable[pa.Table]) -> str:
    """The sha256 of the weights that all tables share; OfframpError when they differ."""
    found = {origin_of(table).get("weights_sha256", "none") for table in inputs}
    if len(found) != 1:
        raise OfframpError(
            f"tables of different weights can't be combined (sha256 {sorted(found)}); "
            "rerun with --forceall"
        )
    return found.pop()


def read_logits(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, pa.Table]:
    """sample_id int64 (N,), label int64 (N,), logits float32 (N, K, C), and the table itself.

    Raises OfframpError when a logit is not finite.
    """
    table = read(path, "logits")
    names = [name for name in table.column_names if name.startswith("exit_")]
    columns = [table.column(name).combine_chunks() for name in names]
    logits = np.stack(
        [column.flatten().to_numpy().reshape(len(table), -1) for column in columns], axis=1
    )
    if not np.isfinite(logits).all():
        row, exit_, _ = np.argwhere(~np.isfinite(logits))[0]
        sample = table.column("sample_id")[int(row)].as_py()
        raise OfframpError(
            f"{path}: logits that are not finite, first at sample {sample}, exit {exit_ + 1}; "
            "check the weights, then delete the file and rerun"
        )
    return table["sample_id"].to_numpy(), table["label"].to_numpy(), logits, table


def read_scores(path: str | Path) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """scores float64 (N, K), correct bool (N, K), and the table itself."""
    table = read(path, "scores")
    exits = sum(name.startswith("correct_") for name in table.column_names)
    scores, correct = (
        np.column_stack(
            [table[f"{column}_{k}"].to_numpy(zero_copy_only=False) for k in range(1, exits + 1)]
        )
        for column in (decided_by(table)[0], "correct")
    )
    return scores, correct, table


def read_logits_of(scores: pa.Table, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """logits float32 (N, K, C) and label int64 (N,) of the samples in a scores table of the same
    split, which lacks those that fitted temperatures; both are in the split's order. Raises
    OfframpError when the scores are of other logits."""
    sample_id, label, logits, table = read_logits(path)
    same_weights([scores, table])
    wanted = scores["sample_id"].to_numpy()
    rows = np.isin(sample_id, wanted)
    right = logits[rows, -1].argmax(axis=1) == label[rows]
    known = scores[f"correct_{logits.shape[1]}"].to_numpy(zero_copy_only=False)
    if not (np.array_equal(sample_id[rows], wanted) and np.array_equal(right, known)):
        raise OfframpError(f"{path}: not the logits of the scores; rerun with --forceall")
    return logits[rows], label[rows]


def decided_by(scores: pa.Table) -> tuple[str, tuple[float, ...] | None, Weights | None]:
    """What decides in a scores table, as a `Policy` holds it: the criterion; the temperatures of
    the side exits, None for raw logits; and a fitted criterion's weights for new data, else None.
    Raises OfframpError for a table that does not say."""
    origin = origin_of(scores)
    if not {"criterion", "temperatures"} <= origin.keys():
        raise OfframpError("a scores table of an older version names no criterion; rerun `scores`")
    temperatures = json.loads(origin["temperatures"])
    weights = json.loads(origin.get("weights", "null"))
    return (
        origin["criterion"],
        tuple(temperatures) if temperatures else None,
        tuple(map(tuple, weights)) if weights else None,
    )
