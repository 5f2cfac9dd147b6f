"""The Parquet tables: their schemas, how they are written, and how readers check them."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from offramp import OfframpError
from offramp.common.files import check_is_file, replacing
from offramp.common.hashing import sha256 as sha256  # for those who know it from here
from offramp.data.datasets import origin_of_data
from offramp.tables.checks import CONTENT, SAMPLES, content_of, problems
from offramp.tables.schemas import schema_of

VERSION = "1"
# Parts of a run, after which the files with a table of each are named.
PARTS = ("train", "val", "test", "probe")


def provenance(config: Mapping[str, Any], weights_sha256: str, split: str = "all") -> dict:
    """What every table says of its origin, as strings for the schema metadata."""
    libraries = ["numpy", "pyarrow", "torch", "torchvision", "snakemake"]
    return {
        **origin_of_data(config["dataset"]),
        "split": split,
        "model": config["model"]["name"],
        "weights_sha256": weights_sha256,
        "config_digest": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "git_commit": commit_of(Path(__file__).resolve().parents[3]),
        "library_versions": json.dumps({name: _version(name) for name in libraries}),
    }


def commit_of(root: Path) -> str:
    """The git commit of the project in ``root``, with ``-dirty`` where its code was edited since;
    ``unknown`` where git or the project's own repository is not there: a copy of the project inside
    another repository is not at that one's commit."""
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return "unknown"
    commit = _git(root, "rev-parse", "HEAD")
    edited = _git(root, "status", "--porcelain", "--", "Snakefile", "rules", "scripts")
    return f"{commit}-dirty" if commit and edited else commit or "unknown"


def _git(folder: Path, *arguments: str) -> str:
    """What git says, without what the environment says of another repository; empty if it fails.
    Of a folder that is somebody else's, too: whoever runs the code in it trusts it already."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-c", f"safe.directory={folder}", "--no-optional-locks", *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        ).stdout.strip()
    except OSError:  # no git
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:  # the analysis environment has no torch
        return "absent"


def write(path: str | Path, table: pa.Table, name: str, origin: Mapping[str, str]) -> None:
    """Write a whole table with its origin; the file appears complete or not at all."""
    sample_id = table["sample_id"].to_numpy() if name in SAMPLES else None
    with TableWriter(path, table.schema, name, origin, len(table), sample_id) as writer:
        writer.append(table)


class TableWriter:
    """Writes a table piece by piece in bounded memory; renamed into place on a clean exit. Told how
    many ``rows`` there will be, and their ``sample_id`` int64 (N,), it notes both for the reader.

    A context manager, because a temporary file must go when the body raises. Raises OfframpError
    as `offramp.common.files.replacing` does.
    """

    def __init__(
        self,
        path: str | Path,
        schema: pa.Schema,
        name: str,
        origin: Mapping[str, str],
        rows: int | None = None,
        sample_id: np.ndarray | None = None,
    ):
        self.file = replacing(path)
        metadata = {**origin, "schema": name, "schema_version": VERSION}
        metadata[CONTENT] = content_of(schema, metadata, rows, sample_id)
        self.schema = schema.with_metadata(metadata)

    def __enter__(self) -> "TableWriter":
        with ExitStack() as stack:
            part = stack.enter_context(self.file)
            self.writer = pq.ParquetWriter(
                part, self.schema, compression="zstd", write_page_checksum=True
            )
            stack.callback(self.writer.close)
            self.stack = stack.pop_all()
        return self

    def append(self, table: pa.Table) -> None:
        """Append rows; their columns must be those of the schema."""
        self.writer.write_table(table.cast(self.schema))

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)


def read(path: str | Path, name: str) -> pa.Table:
    """Read a table of the given schema name.

    Raises OfframpError, one line that names the file, when it is missing, is damaged or no Parquet,
    has another name or version, or is not what the schema says or its writer wrote; a table of a
    split is named after it.
    """
    check_is_file(path)
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        origin = _metadata(table.schema)
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise OfframpError(
            f"{path}: not a readable Parquet table ({reason}); delete it and rerun"
        ) from None
    if (origin.get("schema"), origin.get("schema_version")) != (name, VERSION):
        raise OfframpError(
            f"{path}: want table {name!r} version {VERSION}, found {origin.get('schema')!r} "
            f"version {origin.get('schema_version')}; delete it and rerun"
        )
    schema = schema_of(name, table.schema, origin.get("criterion", "entropy"))
    problem = next(problems(table, name, schema, origin), None)
    stem = Path(path).stem
    if problem is None and stem in PARTS and origin.get("split", stem) != stem:
        problem = f"a table of {origin['split']}, not of {stem}"
    if problem:
        raise OfframpError(f"{path}: {problem}; delete it and rerun")
    return table


def origin_of(table: pa.Table) -> dict[str, str]:
    """The origin that a table carries in its schema metadata."""
    return {key: value for key, value in _metadata(table.schema).items() if key != CONTENT}


def _metadata(schema: pa.Schema) -> dict[str, str]:
    metadata = schema.metadata or {}
    return {k.decode(): v.decode() for k, v in metadata.items() if not k.startswith(b"ARROW")}


def same_weights(inputs: Iterable[pa.Table]) -> str:
    """The sha256 of the weights that all tables share; OfframpError when they differ."""
    digests = {origin_of(table).get("weights_sha256", "none") for table in inputs}
    if len(digests) != 1:
        raise OfframpError(
            f"tables of different weights can't be combined (sha256 {sorted(digests)}); "
            "rerun with --forceall"
        )
    return digests.pop()


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
