"""CIFAR-100 and Fashion-MNIST from made-up files in their formats, through the code that takes the
real ones."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from conftest import documented
from torchvision.datasets import CIFAR100, FashionMNIST

from offramp import OfframpError
from offramp.data import download
from offramp.data.datasets import DATASETS, pool_files
from offramp.data.download import OFFICIAL, get_dataset

DRAW = np.random.default_rng(2)
SIZES = {"train": 30, "test": 12}


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch):
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)


def loaded(folder, name) -> dict[str, np.ndarray]:
    assert sorted(f.name for f in folder.iterdir()) == sorted(pool_files(name))
    return {file.removesuffix(".npy"): np.load(folder / file) for file in pool_files(name)}


def failure(name, source, folder) -> str:
    with pytest.raises(OfframpError) as caught:
        get_dataset(name, [str(source)], folder / name)
    assert documented(str(caught.value)) and not list(folder.rglob("*"))
    return str(caught.value)


@pytest.fixture
def cifar100(tmp_path, monkeypatch):
    """An archive of few samples, whose sums are taken for the official ones; its content."""
    files = {
        pool: {
            "data": DRAW.integers(0, 256, (n, 3072), dtype=np.uint8),
            "fine_labels": DRAW.integers(0, 100, n).tolist(),
            "coarse_labels": [0] * n,
        }
        for pool, n in SIZES.items()
    }
    files["meta"] = {"fine_label_names": list(DATASETS["cifar100"].names)}
    raw = {name: pickle.dumps(content) for name, content in files.items()}
    sums = {name: hashlib.md5(data).hexdigest() for name, data in raw.items()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": sums["meta"]})
    small = OFFICIAL["cifar100"]._replace(sums=sums)
    monkeypatch.setitem(download.OFFICIAL, "cifar100", small)
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in raw.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive, files


def test_cifar100_is_checked_by_torchvisions_sums_and_read(tmp_path, cifar100):
    archive, files = cifar100
    (tmp_path / "unpacked").mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    for source in (archive, tmp_path, tmp_path / "unpacked"):
        get_dataset("cifar100", [str(source)], tmp_path / "data")
        arrays = loaded(tmp_path / "data", "cifar100")
        for pool in SIZES:
            images = arrays[f"{pool}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
            np.testing.assert_array_equal(images, files[pool]["data"])
            assert arrays[f"{pool}_labels"].tolist() == files[pool]["fine_labels"]


def test_another_cifar100_is_refused_before_it_is_unpickled(tmp_path, cifar100, monkeypatch):
    archive, _ = cifar100
    other = OFFICIAL["cifar100"]._replace(sums=OFFICIAL["cifar100"].sums | {"test": "0" * 32})
    monkeypatch.setitem(download.OFFICIAL, "cifar100", other)
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    said = failure("cifar100", archive, tmp_path / "data")
    assert "CIFAR-100 could not be had" in said and "cifar-100-python.tar.gz" in said
    assert "its test is not the official one by its md5: damaged, or another dataset" in said


def test_the_official_sums_of_cifar100_are_torchvisions():
    official = OFFICIAL["cifar100"]
    assert official.sums == {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    }
    assert official.addresses == [CIFAR100.url]


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files."""
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A folder of the four files with few samples, taken for the official ones; its content."""
    found = {}
    for pool, n in (("train", 30), ("t10k", 12)):
        found[f"{pool}-images-idx3-ubyte"] = DRAW.integers(0, 256, (n, 28, 28))
        found[f"{pool}-labels-idx1-ubyte"] = DRAW.integers(0, 10, n)
    sums = {name: hashlib.sha256(idx(array)).hexdigest() for name, array in found.items()}
    small = OFFICIAL["fashion_mnist"]._replace(sums=sums)
    monkeypatch.setitem(download.OFFICIAL, "fashion_mnist", small)
    (tmp_path / "fashion").mkdir()
    for name, array in found.items():
        (tmp_path / f"fashion/{name}.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path / "fashion", found


@pytest.mark.parametrize("form", ["packed", "unpacked", "in torchvision's folder", "OFFRAMP_DATA"])
def test_fashion_mnist_is_padded_to_32_x_32_in_three_channels(tmp_path, fashion, form, monkeypatch):
    folder, found = fashion
    sources = [str(folder)]
    if form == "unpacked":
        for file in folder.iterdir():
            (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
            file.unlink()
    elif form == "in torchvision's folder":
        folder.rename(tmp_path / "raw")
        sources = [str(tmp_path)]
    elif form == "OFFRAMP_DATA":
        monkeypatch.setenv("OFFRAMP_DATA", str(folder))
        sources = []
    get_dataset("fashion_mnist", sources, tmp_path / "data")
    arrays = loaded(tmp_path / "data", "fashion_mnist")
    for pool, name in (("train", "train"), ("test", "t10k")):
        images = arrays[f"{pool}_images"]
        assert images.shape == (SIZES[pool], 32, 32, 3) and images.dtype == np.uint8
        for channel in range(3):
            inside = images[:, 2:30, 2:30, channel]
            np.testing.assert_array_equal(inside, found[f"{name}-images-idx3-ubyte"])
        assert images.astype(int).sum() == 3 * images[:, 2:30, 2:30, 0].astype(int).sum()
        assert arrays[f"{pool}_labels"].tolist() == found[f"{name}-labels-idx1-ubyte"].tolist()


@pytest.mark.parametrize("fault", ["damaged", "missing", "cut off", "endless"])
def test_files_of_fashion_mnist_that_are_not_the_official_ones_are_refused(
    tmp_path, fashion, fault, monkeypatch
):
    folder, _ = fashion
    file = folder / "t10k-images-idx3-ubyte.gz"
    if fault == "missing":
        file.unlink()
    elif fault == "damaged":
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-1] + b"x"))
    elif fault == "cut off":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        monkeypatch.setattr(download, "LARGEST_UNPACKED", 500)
    said = failure("fashion_mnist", folder, tmp_path / "data")
    words = {
        "damaged": "its t10k-images-idx3-ubyte is not the official one by its sha256",
        "missing": "no t10k-images-idx3-ubyte.gz there",
        "cut off": "Compressed file ended before the end-of-stream marker",
        "endless": "unpacks to more than 500 bytes",
    }
    assert words[fault] in said and "Fashion-MNIST could not be had" in said
    assert "download train-images-idx3-ubyte.gz and " in said


def test_fashion_mnists_names_and_address_are_torchvisions():
    assert list(DATASETS["fashion_mnist"].names) == FashionMNIST.classes
    assert OFFICIAL["fashion_mnist"].addresses[1:] == FashionMNIST.mirrors
    assert [f"{n}.gz" for n in OFFICIAL["fashion_mnist"].sums] == [
        name for name, _ in FashionMNIST.resources
    ]
