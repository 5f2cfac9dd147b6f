"""Logits and costs that a user brings: checked at the border, then tables like any other."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from offramp import OfframpError
from offramp.common.arrays import member, open_npz, read_array
from offramp.tables.files import origin_of, read, read_logits, sha256
from offramp.tables.schemas import TIMINGS, logits_schema

SEED = 42
SUMS = "SHA256SUMS"
OWN = "own logits"
# Farther from 1 no sum of probabilities lies, and none of logits so near in every row.
ROUNDING = 1e-3


class Samples(NamedTuple):
    """The samples of a split: ``sample_id`` and ``label`` int64 (N,), ``logits`` float32 (N, K, C);
    and the ``origin`` that their file states, empty for plain arrays."""

    sample_id: np.ndarray
    label: np.ndarray
    logits: np.ndarray
    origin: dict[str, str]


def read_own(source: str | Mapping[str, str], split: str) -> Samples:
    """A split from a file: an `.npz` with ``logits`` (N, K, C) and ``labels`` (N,), a logits table
    of this project, or one `.npy` for each, in a mapping.

    Rows of arrays on which thresholds are chosen get a random order, seeded, since halves of them
    are taken for random; ``sample_id`` is the row in the file. A logits table keeps its order.
    Raises OfframpError that names file, key and place of what is wrong.
    """
    for path in own_files(source):
        check_sum(path)
    if isinstance(source, str) and source.endswith(".parquet"):
        stored = read_logits(source)
        check_samples(stored.logits, stored.label, source, source)
        return Samples(stored.sample_id, stored.label, stored.logits, origin_of(stored.table))
    if isinstance(source, str):
        arrays = read_npz(source)
        places = {key: f"{source}: {key}" for key in arrays}
    else:
        arrays = {key: read_array(path) for key, path in source.items()}
        places = dict(source)
    logits, labels = (arrays[key] for key in ("logits", "labels"))
    check_samples(logits, labels, places["logits"], places["labels"])
    order = np.arange(len(labels))
    if split != "test":
        order = np.random.default_rng(SEED).permutation(len(labels))
    return Samples(order, labels[order].astype(np.int64), logits[order].astype(np.float32), {})


def own_files(source: str | Mapping[str, str]) -> list[str]:
    """The files that a split's entry in the config names."""
    return [source] if isinstance(source, str) else [source["logits"], source["labels"]]


def check_sum(path: str | Path) -> None:
    """Raise OfframpError where a file `SHA256SUMS` beside this one lists another sum for it."""
    sums_file = Path(path).parent / SUMS
    lines = sums_file.read_text().splitlines() if sums_file.exists() else []
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    listed = {name.strip("* "): value for value, name in pairs}
    listed_sum = listed.get(Path(path).name)
    if listed_sum is not None and listed_sum != sha256(path):
        raise OfframpError(
            f"{path}: damaged: its sha256 is not the one in {sums_file}; get the file again"
        )


def read_npz(path: str) -> dict[str, np.ndarray]:
    """``logits`` and ``labels`` of an `.npz`."""
    want = "logits (samples, exits, classes) and labels (samples)"
    with open_npz(path, ("logits", "labels"), want) as npz:
        return {key: member(npz, path, key) for key in ("logits", "labels")}


def check_samples(logits: np.ndarray, labels: np.ndarray, logits_at: str, labels_at: str) -> None:
    """Raise OfframpError where these are no logits (N, K, C) of a K >= 2, C >= 2 with a label in
    0..C-1 for each sample; ``logits_at`` and ``labels_at`` say where they come from."""
    _check_logits(logits, logits_at)
    samples, _, classes = logits.shape
    if labels.dtype.kind not in "iu":
        raise OfframpError(f"{labels_at}: want whole numbers (int64), found {labels.dtype}")
    if labels.shape != (samples,):
        raise OfframpError(
            f"{labels_at}: want one label for each of {samples:,} samples, found shape "
            f"{labels.shape}"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise OfframpError(
            f"{labels_at}: {labels[outside[0]]} at index {outside[0]}, outside 0..{classes - 1} "
            f"for {classes} classes"
        )
    if (labels == labels[0]).all():
        raise OfframpError(
            f"{labels_at}: all {samples:,} samples are of class {labels[0]}; want samples of at "
            "least two classes"
        )


def _check_logits(logits: np.ndarray, source: str) -> None:
    if logits.dtype.kind not in "fiu":
        raise OfframpError(f"{source}: want numbers (float32), found {logits.dtype}")
    if logits.ndim != 3 or 0 in logits.shape:
        raise OfframpError(
            f"{source}: want shape (samples, exits, classes), none of them 0, found {logits.shape}"
        )
    _, exits, classes = logits.shape
    if exits < 2:
        raise OfframpError(
            f"{source}: 1 exit, shape {logits.shape}: without a side exit nothing can be decided; "
            "want at least 2 exits, the final one last"
        )
    if classes < 2:
        raise OfframpError(f"{source}: 1 class, shape {logits.shape}; want logits of at least 2")
    with np.errstate(over="ignore"):
        unfit = ~np.isfinite(logits.astype(np.float32))
    if unfit.any():
        index = tuple(int(i) for i in np.argwhere(unfit)[0])
        raise OfframpError(
            f"{source}: {logits[index]} at index {index} (sample, exit, class); want finite float32"
        )
    if (logits >= 0).all() and (np.abs(logits.sum(axis=2, dtype=np.float64) - 1) < ROUNDING).all():
        raise OfframpError(
            f"{source}: probabilities, it seems: every row sums to 1; give logits, or np.log of "
            "these"
        )


def check_own_splits(splits: Mapping[str, Samples]) -> None:
    """Raise OfframpError where splits differ in exits or classes, two are the same samples, or a
    table holds another split than it is taken for."""
    shapes = {name: samples.logits.shape[1:] for name, samples in splits.items()}
    for name, shape in shapes.items():
        if shape != shapes["val"]:
            raise OfframpError(
                f"logits.{name}: {shape[0]} exits and {shape[1]} classes, where logits.val has "
                f"{shapes['val'][0]} and {shapes['val'][1]}"
            )
    seen: dict[str, str] = {}
    for name, samples in splits.items():
        stated = samples.origin.get("split", name)
        if stated != name:
            raise OfframpError(
                f"logits.{name}: a logits table of the split {stated}; name that of {name}"
            )
        digest = hashlib.sha256(np.sort(samples.logits.sum(axis=(1, 2))).tobytes()).hexdigest()
        if digest in seen:
            raise OfframpError(
                f"logits.{name}: the same samples as logits.{seen[digest]}; what is chosen on "
                "samples has to be reported on others"
            )
        seen[digest] = name


def own_weights(splits: Mapping[str, Samples]) -> str:
    """What stands for the sha256 of the weights: that which the splits' tables state, or one over
    all arrays. Raises OfframpError for tables of different weights."""
    stated = {samples.origin.get("weights_sha256") for samples in splits.values()}
    if len(stated) > 1:
        raise OfframpError(
            "logits: tables of different weights, or tables beside arrays; want all of one network"
        )
    [weights] = stated
    if weights is not None:
        return weights
    digest = hashlib.sha256()
    for _, samples in sorted(splits.items()):
        for array in samples[:3]:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def own_table(split: Samples) -> pa.Table:
    """The logits table of a split."""
    exits, classes = split.logits.shape[1:]
    lists = [
        pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(split.logits[:, k]).ravel(), classes)
        for k in range(exits)
    ]
    columns = [pa.array(split.sample_id), pa.array(split.label), *lists]
    return pa.Table.from_arrays(columns, schema=logits_schema(exits, classes))


def own_costs(costs: Mapping[str, Any], exits: int, batch_size: int) -> pa.Table:
    """A timings table by which every sample pays the same at each block and head, whatever the
    batch: ``costs`` has ``blocks`` and ``heads``, or ``up_to``, a number per exit. Decisions and
    removal cost nothing.

    Raises OfframpError when there are not as many numbers as exits.
    """
    blocks, heads = split_costs(costs)
    for key in sorted(costs.keys() - {"unit"}):
        if len(costs[key]) != exits:
            raise OfframpError(
                f"costs.{key}: {len(costs[key])} numbers, where the logits have {exits} exits"
            )
    parts = {"block": blocks, "head": heads, "decide": [0.0] * exits}
    rows = [
        {"split": "probe", "part": part, "exit": k, "batch_size": n, "repeat": 0, "seconds": n * c}
        for part, each in parts.items()
        for k, c in enumerate(each, 1)
        for n in sorted({1, batch_size})
    ]
    return pa.Table.from_pylist(rows, schema=TIMINGS)


def split_costs(costs: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """What a sample costs at each block and at each head. What it costs ``up_to`` an exit can't be
    told apart: all of it counts for the blocks, which nobody skips."""
    if "up_to" in costs:
        up_to = costs["up_to"]
        return np.diff(up_to, prepend=0.0).tolist(), [0.0] * len(up_to)
    return costs["blocks"], costs["heads"]


def read_costs(path: str, exits: int) -> pa.Table:
    """A timings table that a user names. Raises OfframpError where it has other exits."""
    check_sum(path)
    timings = read(path, "timings")
    timed_exits = max(timings["exit"].to_pylist(), default=0)
    if timed_exits != exits:
        raise OfframpError(f"{path}: times of {timed_exits} exits, where the logits have {exits}")
    return timings
