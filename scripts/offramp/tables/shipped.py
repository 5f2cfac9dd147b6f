"""Logits that ship with the project: the same numbers in fewer bytes, with their sums."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

from offramp.tables.files import read, sha256


def pack_logits(source: str | Path, target: str | Path) -> None:
    """Write a logits table anew, exactly, in about two thirds of its bytes: of floats that differ
    in their last bits, the first bytes of all are alike, so each byte gets a stream of its own."""
    table = read(source, "logits")
    lists = [f"{name}.list.element" for name in table.column_names if name.startswith("exit_")]
    pq.write_table(
        table, target, compression="zstd", compression_level=19, use_dictionary=False,
        use_byte_stream_split=lists,
    )  # fmt: skip


def write_sums(target: str | Path, files: Iterable[str | Path]) -> None:
    """Write the sha256 of files beside it, as `sha256sum -c` reads them."""
    lines = [f"{sha256(file)}  {Path(file).name}\n" for file in files]
    Path(target).write_text("".join(lines))
