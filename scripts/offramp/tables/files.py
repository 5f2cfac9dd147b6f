"""The Parquet tables: their schemas, how they are written, and how readers check them."""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offramp import OfframpError
from offramp.common.hashing import sha256 as sha256  # for those who know it from here

VERSION = "1"


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


class Logits(NamedTuple):
    """What a logits table holds: ``sample_id`` int64 (N,), ``label`` int64 (N,), ``logits`` float32
    (N, K, C), and the ``table`` itself."""

    sample_id: np.ndarray
    label: np.ndarray
    logits: np.ndarray
    table: pa.Table


def read_logits(path: str | Path) -> Logits:
    """Read a logits table.

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
    return Logits(table["sample_id"].to_numpy(), table["label"].to_numpy(), logits, table)
