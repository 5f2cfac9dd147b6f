"""Getting a dataset: addresses and local files tried in turn, checked, never half-written."""

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from offramp import OfframpError
from offramp.common.filetypes import kind_of
from offramp.common.progress import bar
from offramp.data.datasets import pool_files
from offramp.data.fetching import fetch, reason_of

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = CIFAR10.base_folder
# sha256 of the files in the official archive, however they are packed.
OFFICIAL = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
}
# Any compression that tar knows. A browser may have undone it, or the user packed anew.
OPENERS: dict[str, Callable[..., Any]] = {
    "a gzip archive": gzip.open,
    "a bzip2 archive": bz2.open,
    "an xz archive": lzma.open,
    "a tar archive": lambda file: file,
}
DAMAGED = (zlib.error, lzma.LZMAError)
LARGEST_UNPACKED = 1 << 29


def get_dataset(name: str, sources: Sequence[str], folder: str | Path) -> None:
    """Fill ``folder`` with the dataset's arrays (see datasets.py), all of them or none.

    Raises OfframpError, with what was tried and the ways out, when no source serves.
    """
    folder = Path(folder)
    # Of one name, so that what a killed run left is cleared by the next; inside, since the folder
    # may lie on another disk than what is around it.
    scratch = folder / ".part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        arrays = digits_arrays() if name == "digits" else cifar10_arrays(sources, scratch)
        for file in pool_files(name):
            np.save(scratch / file, arrays[file.removesuffix(".npy")])
        for file in pool_files(name):
            (scratch / file).replace(folder / file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with suppress(OSError):  # it holds the dataset, or is a link
            folder.rmdir()


def digits_arrays() -> dict[str, np.ndarray]:
    """scikit-learn's digits: 8x8 in 0..16 raised to 32x32x3 in 0..255, each pixel a 4x4 square."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    return {
        "all_images": np.repeat(large[..., None], 3, axis=3),
        "all_labels": digits.target.astype(np.int64),
    }


def cifar10_arrays(sources: Sequence[str], scratch: Path) -> dict[str, np.ndarray]:
    """CIFAR-10 from the first source whose files have the official sha256.

    ``OFFRAMP_DATA``, a folder (or the archive itself), comes before all sources.
    """
    local = os.environ.get("OFFRAMP_DATA")
    failures = []
    for source in ([local] if local else []) + list(sources):
        try:
            return _cifar10_from(source, scratch)
        except (OSError, OfframpError, tarfile.TarError, EOFError, *DAMAGED) as error:
            failures.append(f"  {source}: {reason_of(error)}")
            shutil.rmtree(scratch / FOLDER, ignore_errors=True)
    tried = "\n".join(failures) or "  (dataset.sources is empty)"
    raise OfframpError(
        f"CIFAR-10 could not be had. Tried:\n{tried}\n"
        f"Three ways out; for the first two, download {ARCHIVE} by hand, on any machine:\n"
        "  1. name that file, or a folder that holds it or what is unpacked from it, in the "
        "config: dataset.sources\n"
        "  2. set the environment variable OFFRAMP_DATA to one of these\n"
        "  3. run `make demo`, which needs no download"
    )


def _cifar10_from(source: str, scratch: Path) -> dict[str, np.ndarray]:
    source = source.removeprefix("file://")
    (scratch / FOLDER).mkdir()
    if "://" in source:
        archive = scratch / ARCHIVE
        fetch(source, archive)
        extract(archive, scratch)
        archive.unlink()
    else:
        _take_local(Path(source).expanduser(), scratch)
    _check(scratch / FOLDER)
    train, test = (CIFAR10(scratch, train=train) for train in (True, False))
    return {
        f"{pool}_{what}": array
        for pool, data in (("train", train), ("test", test))
        for what, array in (
            ("images", data.data),
            ("labels", np.array(data.targets, dtype=np.int64)),
        )
    }


def _check(folder: Path) -> None:
    """Before torchvision unpickles them: all files are there, and the official ones."""
    for name, wanted in OFFICIAL.items():
        if not (folder / name).exists():
            raise OfframpError(f"lacks {name}: cut off, or another dataset")
        with open(folder / name, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                raise OfframpError(
                    f"its {name} is not the official one by its sha256: damaged, or another dataset"
                )


def _take_local(path: Path, scratch: Path) -> None:
    if not path.exists():
        raise OfframpError("no such file or folder")
    if path.is_file():
        extract(path, scratch)
        return
    # As it was downloaded, unpacked, and under the names that browsers and users give it.
    places = [path / ARCHIVE, path / FOLDER, path / "test_batch", *path.glob("cifar-10-python*.t*")]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise OfframpError(f"holds neither {ARCHIVE} nor {FOLDER}/ nor the files of that folder")
    if found.is_file() and found.name != "test_batch":
        extract(found, scratch)
        return
    folder = found if found.is_dir() else path
    for name in OFFICIAL:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, scratch / FOLDER / name)


def extract(archive: Path, scratch: Path) -> None:
    """Extract the dataset's own files, and only those, by name: no path, link or device that an
    archive may hold is followed, and no more is unpacked than the dataset can need."""
    kind = kind_of(archive)
    if kind not in OPENERS:
        way_out = "; unpack it and name its folder" if kind == "a zip archive" else ""
        raise OfframpError(f"is {kind or 'something else'}, not {ARCHIVE}{way_out}")
    size = archive.stat().st_size
    # The bar counts compressed bytes, since the unpacked size is not known beforehand.
    with (
        bar(desc="extract", total=size, unit="B", unit_scale=True) as shown,
        open(archive, "rb") as raw,
        OPENERS[kind](raw) as unpacked,
    ):

        def read(size: int) -> bytes:
            shown.update(raw.tell() - shown.n)
            _keep_within(unpacked.tell())
            return unpacked.read(size)

        # As a stream, which only ever reads on: nothing that an archive says makes tar seek.
        with tarfile.open(fileobj=SimpleNamespace(read=read), mode="r|") as tar:
            names = [_extract_member(tar, member, scratch / FOLDER) for member in tar]
    if not any(names):
        raise OfframpError(f"holds none of the files of {ARCHIVE}; is it another version of it?")


def _keep_within(size: int) -> None:
    if size > LARGEST_UNPACKED:
        raise OfframpError(
            f"unpacks to more than {LARGEST_UNPACKED:,} bytes, which {ARCHIVE} does not"
        )


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> bool:
    """Write a member into the folder if it is one of the dataset's files; is it?"""
    # Both are what the archive says of itself. A sparse file needs no bytes there to be large.
    _keep_within(member.size)
    _keep_within(tar.offset)
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts
    wanted = inside and path.name in OFFICIAL and member.isfile()
    source = tar.extractfile(member) if wanted else None
    if source is None:
        return False
    with source, open(target / path.name, "wb") as out:
        shutil.copyfileobj(source, out)
    return True
