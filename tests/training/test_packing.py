"""A dataset packed as pictures comes back byte for byte, or not at all."""

import numpy as np
import pytest

from offramp import OfframpError
from offramp.training import packing
from offramp.training.packing import pack, unpack


@pytest.fixture
def dataset(tmp_path):
    """Two pools; the larger does not fill its last sheet, nor the last row of it."""
    folder, draw = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for pool, count in (("train", 1_030), ("test", 3)):
        images = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        np.save(folder / f"{pool}_images.npy", images)
        np.save(folder / f"{pool}_labels.npy", draw.integers(0, 10, count))
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_unpacked_is_what_was_packed(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PART_BYTES", 1)  # so that a pool takes two folders
    pack(dataset, tmp_path / "packed")
    assert {f.name for f in (tmp_path / "packed").iterdir()} == {"train_1", "train_2", "test_1"}
    unpack(tmp_path / "packed", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(dataset)


def test_one_pool_can_travel_without_the_other(dataset, tmp_path):
    pack(dataset, tmp_path / "packed")
    for file in (tmp_path / "packed/test_1").iterdir():
        file.unlink()
    unpack(tmp_path / "packed", tmp_path / "again")
    assert {f.name for f in (tmp_path / "again").iterdir()} == {
        "train_images.npy",
        "train_labels.npy",
    }


def test_a_missing_sheet_a_changed_file_and_empty_folders_are_named(dataset, tmp_path):
    packed = tmp_path / "packed"
    pack(dataset, packed)
    (packed / "train_1/train_labels.npy").write_bytes(b"other")
    with pytest.raises(OfframpError, match=r"train_labels\.npy: its sha256 is not that"):
        unpack(packed, tmp_path / "again")
    (packed / "train_1/0001.webp").unlink()
    with pytest.raises(OfframpError, match=r"0 sheets 0001\.webp of train, want 1"):
        unpack(packed, tmp_path / "again")
    for call, words in ((pack, "no dataset here"), (unpack, "nothing packed here")):
        with pytest.raises(OfframpError, match=words):
            call(tmp_path, tmp_path / "elsewhere")
