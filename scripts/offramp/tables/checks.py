"""What a table must be like to be read: what its schema says, and what its writer noted of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

# In the schema metadata: what was written, so that a reader can tell that all of it is there.
CONTENT = "content"
# Looked at on their own, with a better word.
APART = {CONTENT, "schema", "schema_version", "weights_sha256"}
SAMPLES = ("logits", "scores")


def content_of(
    schema: pa.Schema, origin: Mapping[str, str], rows: int | None, sample_id: np.ndarray | None
) -> str:
    """The note, as JSON, of a table to be written: its columns and ``origin``, and if they are
    known its number of rows and its ``sample_id``, int64 (N,), in their order."""
    return json.dumps(
        {
            "columns": schema.names,
            "origin": _digest(json.dumps(_counted(origin), sort_keys=True).encode()),
            "rows": rows,
            "samples": None if sample_id is None else _digest(sample_id.astype("<i8").tobytes()),
        }
    )


def problems(
    table: pa.Table, name: str, schema: pa.Schema, origin: Mapping[str, str]
) -> Iterator[str]:
    """What is wrong with a table of this ``name``, in a few words each; ``schema`` is what it
    should have. A later one may not be looked for before those before are mended."""
    noted = _noted(origin)
    yield from _columns(table, schema, noted)
    if noted.get("rows") not in (None, len(table)):
        yield f"{len(table)} rows, where {noted['rows']} were written"
    for field in schema:
        yield from _values(table[field.name], field)
    if name in SAMPLES:
        yield from _samples(table["sample_id"].to_numpy(), noted)
    if name == "logits":
        yield from _labels(table["label"].to_numpy(), schema.field("exit_1").type.list_size)
    if noted and noted.get("origin") != _digest(
        json.dumps(_counted(origin), sort_keys=True).encode()
    ):
        yield "its metadata is not what was written"


def _columns(table: pa.Table, schema: pa.Schema, noted: Mapping[str, Any]) -> Iterator[str]:
    written = noted.get("columns", schema.names)
    for column in [*written, *schema.names]:
        if column not in table.column_names:
            yield f"column {column} is missing"
    for column in table.column_names:
        if column not in schema.names:
            yield f"column {column} is none of its schema"
    if table.column_names != schema.names:
        yield f"columns {table.column_names}, where {schema.names} are wanted"
    for field in schema:
        kind = table.schema.field(field.name).type
        if kind != field.type:
            yield f"column {field.name} holds {kind}, where {field.type} is wanted"


def _values(column: pa.ChunkedArray, field: pa.Field) -> Iterator[str]:
    nulls = column.null_count
    if nulls and not field.nullable:
        yield f"column {field.name} has {nulls} nulls, where none may be"
    if pa.types.is_nested(field.type):
        values = column.combine_chunks().flatten()
        # Of thresholds a null is a disabled exit.
        if values.null_count and pa.types.is_fixed_size_list(field.type):
            yield f"column {field.name} has nulls in {values.null_count} places"
        return
    if pa.types.is_floating(field.type):
        values = column.drop_null().to_numpy() if nulls else column.to_numpy()
        wrong = len(values) - int(np.isfinite(values).sum())
        if wrong:
            yield f"column {field.name} has {wrong} values that are not finite"


def _samples(sample_id: np.ndarray, noted: Mapping[str, Any]) -> Iterator[str]:
    if not len(sample_id):
        yield "it has no rows"
    ids, times = np.unique(sample_id, return_counts=True)
    if len(ids) != len(sample_id):
        yield f"sample_id {ids[times > 1][0]} is there {times.max()} times"
    if len(ids) and ids[0] < 0:
        yield f"sample_id {ids[0]} is below 0"
    if noted.get("samples") not in (None, _digest(sample_id.astype("<i8").tobytes())):
        yield "its samples are not those of its split, or not in their order"


def _labels(label: np.ndarray, classes: int) -> Iterator[str]:
    outside = (label < 0) | (label >= classes)
    if outside.any():
        yield f"label {label[outside][0]} is none of 0 to {classes - 1}"


def _noted(origin: Mapping[str, str]) -> dict[str, Any]:
    """The writer's note; empty for a table of 0.1.0, which has none."""
    if CONTENT not in origin:
        return {}
    try:
        note = json.loads(origin[CONTENT])
    except ValueError:
        note = None
    return note if isinstance(note, dict) else {"origin": "none that could be read"}


def _counted(origin: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in origin.items() if key not in APART}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
