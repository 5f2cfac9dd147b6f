"""Datasets of the user's own: what the config's ``dataset`` names, once its files were looked at.

Their folder in `data/` is called after the files' content, so that other files never touch what was
made of these, and the same files under another name make nothing again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from offramp import OfframpError
from offramp.common.hashing import sums_of
from offramp.data.arrays import files_of_pool, look_at_arrays, pools_of
from offramp.data.datasets import DATASETS, Dataset
from offramp.data.pictures import folders_of, listed, look_at_folder

# What belongs to which kind of dataset.
KEYS = {"files": "arrays", "classes": "arrays", "path": "folder", "size": "folder"}
DIGITS = 12


def described(data: Mapping[str, Any]) -> Dataset:
    """The dataset of a config's ``dataset``.

    Raises OfframpError that names key, file and place of what is wrong.
    """
    name = data["name"]
    for key, kind in KEYS.items():
        if data.get(key) is not None and name != kind:
            raise OfframpError(f"dataset.{key}: only for {kind}, not for {name}")
    if name == "arrays":
        if data.get("files") is None:
            raise OfframpError("dataset.files: missing; name them: {train: a.npz, test: b.npz}")
        dataset = look_at_arrays(data)
        dataset = dataset._replace(name=f"{name}-{digest_of_arrays(data['files'])}")
    elif name == "folder":
        if data.get("path") is None:
            raise OfframpError("dataset.path: missing; name the folder that holds one per class")
        dataset = look_at_folder(data)
        dataset = dataset._replace(name=f"{name}-{digest_of_folder(data['path'], dataset)}")
    else:
        dataset = DATASETS[name]
    if "val" in dataset.pools and data.get("validation") is not None:
        raise OfframpError("dataset.validation: val has files of its own; leave this null")
    return with_normalisation(dataset, data.get("mean"), data.get("std"))


def digest_of_arrays(files: Any) -> str:
    """What stands for the content of all files and their part in it.

    Raises OfframpError where two pools are the same samples.
    """
    sums = {pool: sums_of(files_of_pool(source)) for pool, source in pools_of(files).items()}
    seen: dict[str, str] = {}
    for pool, (inputs, *_) in sums.items():
        if inputs in seen:
            raise OfframpError(
                f"dataset.files.{pool}: the same samples as {seen[inputs]}; what is chosen on "
                "samples has to be reported on others"
            )
        seen[inputs] = pool
    return digest(sums)


def digest_of_folder(path: str, dataset: Dataset) -> str:
    """What stands for the content of all pictures, their places below the folder, and the size they
    are brought to.

    Raises OfframpError where two pools hold the same pictures.
    """
    pictures = {pool: listed(place).files for pool, place in folders_of(path).items()}
    sums = {pool: sums_of(files) for pool, files in pictures.items()}
    if len({tuple(sorted(each)) for each in sums.values()}) < len(sums):
        raise OfframpError(
            f"{path}: {' and '.join(sums)} hold the same pictures; what is chosen on samples has "
            "to be reported on others"
        )
    names = {pool: [os.path.relpath(f, path) for f in files] for pool, files in pictures.items()}
    return digest([names, sums, dataset.shape])


def digest(content: Any) -> str:
    """A short digest of what JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:DIGITS]


def with_normalisation(
    dataset: Dataset, mean: float | list[float] | None, std: float | list[float] | None
) -> Dataset:
    """The dataset with what its pictures are normalised by."""
    if mean is None and std is None:
        return dataset
    if mean is None or std is None:
        raise OfframpError("dataset.mean: give dataset.mean and dataset.std, or neither")
    if not dataset.pictures:
        raise OfframpError(
            "dataset.mean: only for pictures, whose values are 0..1; other inputs pass as they are"
        )
    channels = dataset.shape[2]
    each = {}
    for key, given in (("mean", mean), ("std", std)):
        values = given if isinstance(given, list) else [given] * channels
        if len(values) != channels:
            raise OfframpError(f"dataset.{key}: {len(values)} numbers for {channels} channels")
        each[key] = tuple(map(float, values))
    if min(each["std"]) <= 0:
        raise OfframpError("dataset.std: want numbers above 0")
    return dataset._replace(mean=each["mean"], std=each["std"])
