"""A dataset as lossless pictures, half its size, to take it to a machine without internet.

python -m offramp.training.packing pack data/cifar10 packed: folders packed/train_1, packed/train_2,
and so on. python -m offramp.training.packing unpack packed data/cifar10: on the other machine;
every pool whose first folder is there is restored.
"""

import argparse
import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from offramp import OfframpError
from offramp.common.progress import bar
from offramp.tables.files import sha256

SIDE = 32  # images in a row, and in a column, of a sheet
PART_BYTES = 44 * 2**20
CONTENTS = "contents.json"


def pack(folder: Path, packed: Path) -> None:
    """Write every pool of a dataset's folder, its ``*_images.npy`` (uint8, N x H x W x 3) as
    lossless WebP sheets of 1,024 images beside its ``*_labels.npy``, into folders of at most about
    44 MiB each, with the files' sha256.

    Raises OfframpError when the folder holds no dataset.
    """
    images = sorted(folder.glob("*_images.npy"))
    if not images:
        raise OfframpError(f"{folder}: no dataset here (want files like train_images.npy)")
    for file in images:
        pool = file.stem.removesuffix("_images")
        labels = folder / f"{pool}_labels.npy"
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        sheets = [array[start : start + SIDE**2] for start in range(0, len(array), SIDE**2)]
        first = packed / f"{pool}_1"
        first.mkdir(parents=True, exist_ok=True)
        part, room = 1, PART_BYTES
        with (
            ThreadPoolExecutor() as workers,
            bar(desc=pool, total=len(sheets), unit="sheet") as progress_bar,
        ):
            for number, data in enumerate(workers.map(_encoded, sheets)):
                if number and room < len(data):
                    part, room = part + 1, PART_BYTES
                    (packed / f"{pool}_{part}").mkdir(exist_ok=True)
                (packed / f"{pool}_{part}" / f"{number:04}.webp").write_bytes(data)
                room -= len(data)
                progress_bar.update(1)
        (first / labels.name).write_bytes(labels.read_bytes())
        contents = {
            "shape": array.shape,
            "sha256": {each.name: sha256(each) for each in (file, labels)},
        }
        (first / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n")


def unpack(packed: Path, folder: Path) -> None:
    """The inverse of `pack`, for every pool whose first folder lies in ``packed``.

    Raises OfframpError when there is none, a sheet is missing or a file comes out otherwise.
    """
    firsts = sorted(packed.glob(f"*_1/{CONTENTS}"))
    if not firsts:
        raise OfframpError(f"{packed}: nothing packed here (want folders like train_1)")
    folder.mkdir(parents=True, exist_ok=True)
    for file in firsts:
        pool = file.parent.name.removesuffix("_1")
        contents = json.loads(file.read_text())
        np.save(folder / f"{pool}_images.npy", _images(packed, pool, contents["shape"]))
        labels = f"{pool}_labels.npy"
        (folder / labels).write_bytes((file.parent / labels).read_bytes())
        for name, digest in contents["sha256"].items():
            if sha256(folder / name) != digest:
                raise OfframpError(f"{folder / name}: its sha256 is not that of what was packed")


def _images(packed: Path, pool: str, shape: list[int]) -> np.ndarray:
    count, height, width, channels = shape
    images = np.empty(shape, np.uint8)
    for number, start in enumerate(range(0, count, SIDE**2)):
        sheets = list(packed.glob(f"{pool}_*/{number:04}.webp"))
        if len(sheets) != 1:
            raise OfframpError(f"{packed}: {len(sheets)} sheets {number:04}.webp of {pool}, want 1")
        grid = np.asarray(Image.open(sheets[0])).reshape(-1, height, SIDE, width, channels)
        in_order = grid.swapaxes(1, 2).reshape(-1, height, width, channels)
        stop = min(start + SIDE**2, count)
        images[start:stop] = in_order[: stop - start]
    return images


def _encoded(images: np.ndarray) -> bytes:
    """(n, H, W, 3) as one picture, ``SIDE`` images in a row; what is empty at the end is black."""
    n, height, width, channels = images.shape
    rows = math.ceil(n / SIDE)
    full = np.zeros((rows * SIDE, height, width, channels), np.uint8)
    full[:n] = images
    grid = full.reshape(rows, SIDE, height, width, channels).swapaxes(1, 2)
    picture = Image.fromarray(grid.reshape(rows * height, SIDE * width, channels))
    buffer = io.BytesIO()
    picture.save(buffer, "webp", lossless=True, quality=100, method=6)
    return buffer.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    {"pack": pack, "unpack": unpack}[arguments.what](arguments.source, arguments.target)
