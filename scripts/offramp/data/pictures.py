"""A folder of pictures per class, as torchvision's ImageFolder reads it: the pictures of a class
lie in its folder or deeper, classes and pictures are numbered in the order of their names.

Every picture becomes RGB of 8 bits: grey, palette and CMYK are converted, an alpha channel is
dropped. What begins with a dot is passed over.
"""

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from offramp import OfframpError
from offramp.common.progress import progress
from offramp.data.datasets import SPLITS, TEST_SHARE, Dataset

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
# What PIL would clip to 8 bits without a word.
DEEP = ("I", "F")


class Pictures(NamedTuple):
    """The pictures of a pool: the ``names`` of its classes, the ``files`` and their ``labels``."""

    names: tuple[str, ...]
    files: list[str]
    labels: list[int]


def look_at_folder(data: Mapping[str, Any]) -> Dataset:
    """The dataset in the folder that a config's ``dataset.path`` names; its name is left open. The
    first picture's size is that of all, where ``dataset.size`` gives none.

    Raises OfframpError that names the folder or file that is wrong.
    """
    pools = {pool: listed(folder) for pool, folder in folders_of(data["path"]).items()}
    first_pool = next(iter(pools.values()))
    for pool, pictures in pools.items():
        for missing in sorted({*first_pool.names} ^ {*pictures.names}):
            inside, outside = ("train", pool) if missing in first_pool.names else (pool, "train")
            raise OfframpError(
                f"{data['path']}: class {missing} is in {inside}, but not in {outside}; want the "
                "same folders in each"
            )
    height, width = size_of(data.get("size")) or open_picture(first_pool.files[0]).size[::-1]
    return Dataset(
        name="",
        names=first_pool.names,
        pools={pool: len(pictures.files) for pool, pictures in pools.items()},
        test=TEST_SHARE if "all" in pools else 0.0,
        shape=(height, width, 3),
    )


def folders_of(path: str) -> dict[str, str]:
    """The folders of the pools: train, test and perhaps val, where the folder holds only such; else
    itself as ``all``."""
    inside = subfolders(path)
    if not inside:
        raise OfframpError(f"{path}: no folders in it; want one per class, with its pictures")
    if not {*inside} <= {*SPLITS}:
        return {"all": path}
    for split in ("train", "test"):
        if split not in inside:
            raise OfframpError(
                f"{path}: holds {' and '.join(inside)}, but no {split}; want train, test and "
                "perhaps val, or a folder per class"
            )
    return {split: f"{path}/{split}" for split in SPLITS if split in inside}


def subfolders(path: str) -> list[str]:
    """The names of the folders in one, sorted, but for those that begin with a dot."""
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise OfframpError(f"{path}: not a folder that can be read ({error.strerror})") from None


def listed(path: str) -> Pictures:
    """The pictures of one pool. Raises OfframpError for a class without any, and for less than two
    classes."""
    names = subfolders(path)
    if len(names) < 2:
        raise OfframpError(
            f"{path}: {len(names)} folders in it; want one per class, at least two classes"
        )
    pictures = Pictures(tuple(names), [], [])
    for label, name in enumerate(names):
        files = pictures_in(f"{path}/{name}")
        if not files:
            raise OfframpError(f"{path}/{name}: no picture in it (want {' '.join(ENDINGS)})")
        pictures.files.extend(files)
        pictures.labels.extend([label] * len(files))
    return pictures


def pictures_in(path: str) -> list[str]:
    """The pictures in a folder and deeper, links followed, by the order of their paths."""
    files = []
    for folder, _, names in sorted(os.walk(path, followlinks=True)):
        hidden = Path(folder).relative_to(path).parts
        if not any(part.startswith(".") for part in hidden):
            files += [f"{folder}/{n}" for n in sorted(names) if is_picture_file(n)]
    return files


def is_picture_file(name: str) -> bool:
    """Whether a file is one by its name."""
    return name.lower().endswith(ENDINGS) and not name.startswith(".")


def size_of(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Height and width that a config's ``dataset.size`` gives."""
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def open_picture(file: str) -> Image.Image:
    """A picture whose header was read. Raises OfframpError where that can't be."""
    try:
        return Image.open(file)
    except DAMAGED as error:
        raise unreadable_picture(file, error) from None


def unreadable_picture(file: str, error: Exception) -> OfframpError:
    """What to say of a picture that can't be read."""
    what = getattr(error, "strerror", None) or "no picture, or damaged"
    return OfframpError(f"{file}: not a readable picture ({what}); mend or delete it")


def pixels_of(file: str, shape: tuple[int, ...], resize: bool) -> np.ndarray:
    """A picture as uint8 (H, W, 3) of this ``shape``, brought to it if it may be."""
    with open_picture(file) as picture:
        if picture.mode.split(";")[0] in DEEP:
            raise OfframpError(f"{file}: {picture.mode} pixels of more than 8 bits; save it with 8")
        try:
            colours = picture.convert("RGB")
        except DAMAGED as error:
            raise unreadable_picture(file, error) from None
    height, width, _ = shape
    if colours.size != (width, height):
        if not resize:
            raise OfframpError(
                f"{file}: {colours.height} x {colours.width} pixels, where the first picture has "
                f"{height} x {width}; set dataset.size to bring all to one size"
            )
        colours = colours.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(colours)


def write_pictures(data: Mapping[str, Any], dataset: Dataset, folder: Path) -> None:
    """Write images and labels of every pool into ``folder``; a picture at a time is in memory.

    Raises OfframpError that names the picture that is wrong.
    """
    for pool, place in folders_of(data["path"]).items():
        pictures = listed(place)
        images = np.lib.format.open_memmap(
            folder / f"{pool}_images.npy", "w+", np.uint8, (len(pictures.files), *dataset.shape)
        )
        for i in progress(range(len(pictures.files)), f"read {pool}", "picture"):
            resize = data.get("size") is not None
            images[i] = pixels_of(pictures.files[i], dataset.shape, resize)
        images.flush()
        np.save(folder / f"{pool}_labels.npy", np.array(pictures.labels, dtype=np.int64))
