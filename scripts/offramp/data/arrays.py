"""Arrays of the user's own: looked at before any job, then checked and brought to one form.

What a network sees of them: uint8 pictures in 0..1 and channels first, like those of any dataset
here; all other numbers as they are, in float32 or int64.
"""

import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from offramp import OfframpError
from offramp.common.arrays import DAMAGED, load, member, open_npz, read_array, unreadable
from offramp.data.datasets import SPLITS, TEST_SHARE, Dataset, inputs

Source = str | Mapping[str, str]
WAYS = (
    "want a file, {inputs: a.npy, labels: b.npy}, or one of these each for train, test and perhaps "
    "val"
)
CHANNELS = (1, 3)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Look(NamedTuple):
    """A pool before its samples are read: where ``inputs`` and ``labels`` lie, for messages, the
    ``shape`` (N, ...) and ``dtype`` of the inputs, and the labels themselves, int64 (N,)."""

    inputs_at: str
    labels_at: str
    shape: tuple[int, ...]
    dtype: np.dtype
    labels: np.ndarray


def pools_of(files: Source | Mapping[str, Source]) -> dict[str, Any]:
    """The files of each pool that a config's ``dataset.files`` names; a sole pool is ``all``.

    Raises OfframpError where they are not those of one pool, or of train and test.
    """
    if isinstance(files, str) or "inputs" in files:
        pools: dict[str, Any] = {"all": files}
    else:
        pools = {split: files[split] for split in SPLITS if files.get(split) is not None}
        for split in ("train", "test"):
            if split not in pools:
                raise OfframpError(f"dataset.files: none for {split}; {WAYS}")
    for pool, source in pools.items():
        key = "dataset.files" if pool == "all" else f"dataset.files.{pool}"
        if isinstance(source, str) and not source.endswith(".npz"):
            raise OfframpError(f"{key}: {source}: want an .npz with inputs and labels; {WAYS}")
        if not isinstance(source, str) and source.keys() != {"inputs", "labels"}:
            raise OfframpError(f"{key}: {WAYS}")
    return pools


def files_of_pool(source: Source) -> list[str]:
    """The files of a pool."""
    return [source] if isinstance(source, str) else [source["inputs"], source["labels"]]


def look_at_arrays(data: Mapping[str, Any]) -> Dataset:
    """The dataset that a config's ``dataset`` with ``files`` names; its name is left open. Only
    headers and labels are read.

    Raises OfframpError that names file and place of what is wrong.
    """
    looks = {pool: look_at_pool(source) for pool, source in pools_of(data["files"]).items()}
    forms = {pool: form_of(look) for pool, look in looks.items()}
    first_pool = next(iter(forms))
    for pool, form in forms.items():
        if form != forms[first_pool]:
            texts = [f"{' x '.join(map(str, s))} in {d}" for s, d in (form, forms[first_pool])]
            raise OfframpError(
                f"{looks[pool].inputs_at}: samples of {texts[0]}, where those of "
                f"{looks[first_pool].inputs_at} are {texts[1]}"
            )
    shape, dtype = forms[first_pool]
    return Dataset(
        name="",
        names=class_names(list(looks.values()), data.get("classes")),
        pools={pool: look.shape[0] for pool, look in looks.items()},
        test=TEST_SHARE if "all" in looks else 0.0,
        shape=shape,
        dtype=dtype,
    )


def look_at_pool(source: Source) -> Look:
    """A pool's header and labels, checked against each other."""
    if isinstance(source, str):
        places, labels = (f"{source}: inputs", f"{source}: labels"), _labels_of_npz(source)
        shape, dtype = header(source, "inputs")
    else:
        places = source["inputs"], source["labels"]
        shape, dtype = header(source["inputs"])
        labels = read_array(source["labels"])
    look = Look(*places, shape, dtype, labels)
    _check_look(look)
    return look._replace(labels=labels.astype(np.int64))


def _check_look(look: Look) -> None:
    if len(look.shape) < 2 or 0 in look.shape:
        raise OfframpError(
            f"{look.inputs_at}: shape {look.shape}: want samples on the first axis, at least one "
            "more axis, and none of length 0"
        )
    labels, labels_at = look.labels, look.labels_at
    if labels.dtype.kind not in "iu":
        raise OfframpError(f"{labels_at}: {labels.dtype}: want whole numbers (int64), from 0 on")
    if labels.ndim != 1:
        raise OfframpError(
            f"{labels_at}: shape {labels.shape}: want one label a sample, on one axis"
        )
    if len(labels) != look.shape[0]:
        raise OfframpError(
            f"{labels_at}: {len(labels):,} labels, where {look.inputs_at} has {look.shape[0]:,} "
            "samples"
        )
    if labels.min() < 0:
        place = int(labels.argmin())
        raise OfframpError(f"{labels_at}: {labels[place]} at index {place}: labels count from 0")
    if labels.max() >= look.shape[0]:
        place = int(labels.argmax())
        raise OfframpError(
            f"{labels_at}: {labels[place]} at index {place}: not each of so many classes can have "
            f"one of {look.shape[0]:,} samples; number the classes from 0 on"
        )


def class_names(looks: Sequence[Look], names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes, numbers where there are none; every label has one."""
    highest = max(looks, key=lambda look: int(look.labels.max()))
    place = int(highest.labels.argmax())
    label, labels_at = int(highest.labels[place]), highest.labels_at
    if names is not None and label >= len(names):
        raise OfframpError(
            f"{labels_at}: {label} at index {place}, outside 0..{len(names) - 1} for the "
            f"{len(names)} names in dataset.classes"
        )
    if label == 0 and (names is None or len(names) < 2):
        raise OfframpError(f"{labels_at}: all samples are of class 0; want at least two classes")
    return tuple(names) if names is not None else tuple(map(str, range(label + 1)))


def form_of(look: Look) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of one sample as it is stored here. Raises OfframpError for what is neither
    numbers nor pictures."""
    (_, *shape), dtype = look.shape, look.dtype
    if dtype == np.uint8 and len(shape) in (2, 3):
        picture = picture_shape(shape)
        if picture is None:
            raise OfframpError(
                f"{look.inputs_at}: uint8 of {' x '.join(map(str, shape))} are no pictures of 1 "
                "or 3 channels; save other numbers as float32 or int64"
            )
        return picture, "uint8"
    if dtype.kind not in "fiu":
        raise OfframpError(
            f"{look.inputs_at}: {dtype}: want numbers: float32, int64, or uint8 for pictures"
        )
    return tuple(shape), "float32" if dtype.kind == "f" else "int64"


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """H, W and channels of a picture H x W, H x W x channels or channels x H x W; None if it is
    none of these."""
    if len(shape) == 2:
        return (shape[0], shape[1], 1)
    if shape[2] in CHANNELS:
        return (shape[0], shape[1], shape[2])
    return (shape[1], shape[2], shape[0]) if shape[0] in CHANNELS else None


def own_arrays(data: Mapping[str, Any], dataset: Dataset) -> dict[str, np.ndarray]:
    """The arrays of every pool, by the name of their file without its end.

    Raises OfframpError that names file and place of what is no finite number.
    """
    arrays = {}
    for pool, source in pools_of(data["files"]).items():
        look = look_at_pool(source)
        if isinstance(source, str):
            with load(source) as npz:
                values = member(npz, source, "inputs")
        else:
            values = read_array(source["inputs"])
        arrays[f"{pool}_{inputs(dataset)}"] = as_stored(values, dataset, look.inputs_at)
        arrays[f"{pool}_labels"] = look.labels
    return arrays


def as_stored(values: np.ndarray, dataset: Dataset, inputs_at: str) -> np.ndarray:
    """Inputs (N, ...) in the dataset's shape and dtype."""
    if dataset.pictures:
        if values.ndim == 4 and values.shape[3] not in CHANNELS:
            values = values.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(values.reshape(len(values), *dataset.shape))
    if dataset.dtype == "int64":
        outside = values > np.iinfo(np.int64).max if values.dtype == np.uint64 else None
        stored, unfit = values.astype(np.int64), outside
    else:
        with np.errstate(over="ignore"):
            stored = values.astype(np.float32)
        unfit = ~np.isfinite(stored)
    if unfit is not None and unfit.any():
        place = tuple(int(i) for i in np.argwhere(unfit)[0])
        raise OfframpError(
            f"{inputs_at}: {values[place]} at index {place} (the sample first): want finite "
            f"numbers that fit into {dataset.dtype}"
        )
    return stored


def header(path: str, key: str | None = None) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an `.npy`, or of the array ``key`` of an `.npz`, from its header."""
    place = path if key is None else f"{path}: {key}"
    try:
        if key is None:
            with open(path, "rb") as file:
                return _header(file, place)
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
            return _header(file, place)
    except FileNotFoundError:
        raise OfframpError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise OfframpError(unreadable(place, error)) from None


def _header(file: Any, place: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise OfframpError(unreadable(place, ValueError("pickle")))
    return shape, dtype


def _labels_of_npz(path: str) -> np.ndarray:
    want = "inputs (samples on the first axis) and labels (samples)"
    with open_npz(path, ("inputs", "labels"), want) as npz:
        return member(npz, path, "labels")
