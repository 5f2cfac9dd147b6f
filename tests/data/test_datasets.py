"""Splits: their sizes, their order, and how rows become tensors."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from conftest import documented, real_archive
from torch.utils.data import random_split

from offramp import OfframpError
from offramp.data.datasets import DATASETS, SPLITS, pool_files, split_sizes
from offramp.data.splits import Split, load_images, open_split, split_indices


def test_cifar10_has_45000_5000_and_10000_samples():
    assert split_sizes("cifar10", None) == {"train": 45_000, "val": 5_000, "test": 10_000}


def test_digits_have_1258_180_and_359_samples():
    assert split_sizes("digits", None) == {"train": 1_258, "val": 180, "test": 359}


def test_another_number_of_validation_samples_comes_out_of_the_training_split():
    assert split_sizes("cifar10", 500) == {"train": 49_500, "val": 500, "test": 10_000}
    assert split_sizes("digits", 100) == {"train": 1_338, "val": 100, "test": 359}


def test_the_cifar10_order_is_that_of_torchs_random_split_under_seed_42():
    torch.manual_seed(42)
    train, val = random_split(range(50_000), [45_000, 5_000])
    for split, subset in (("train", train), ("val", val)):
        pool, indices = split_indices("cifar10", split, None)
        assert pool == "train"
        assert indices.tolist() == list(subset.indices)


def test_the_cifar10_test_split_is_the_test_pool_in_its_own_order():
    pool, indices = split_indices("cifar10", "test", None)
    assert pool == "test"
    assert indices.tolist() == list(range(10_000))


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("validation", [None, 77])
def test_splits_are_disjoint_and_complete(name, validation):
    found: dict[str, list[int]] = {pool: [] for pool in DATASETS[name].pools}
    for split in SPLITS:
        pool, indices = split_indices(name, split, validation)
        assert indices.dtype == np.int64
        assert len(indices) == split_sizes(name, validation)[split]
        found[pool] += indices.tolist()
    for pool, samples in DATASETS[name].pools.items():
        assert sorted(found[pool]) == list(range(samples))


def test_cifar10s_class_names_are_those_of_the_archive():
    with tarfile.open(real_archive() / "cifar-10-python.tar.gz") as archive:
        (member,) = (m for m in archive if m.name.endswith("batches.meta"))
        listed = pickle.load(archive.extractfile(member))["label_names"]
    assert list(DATASETS["cifar10"].names) == listed


def test_the_split_does_not_depend_on_nor_disturb_the_global_generator():
    torch.manual_seed(1)
    first = split_indices("digits", "val", None)[1]
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    torch.manual_seed(2)
    np.testing.assert_array_equal(split_indices("digits", "val", None)[1], first)


def toy_split(samples: int) -> Split:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (samples, 8, 6, 3), dtype=np.uint8)
    return Split(images, np.arange(samples), random.permutation(samples))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 11])
def test_batches_are_consecutive_rows_and_cover_the_split(batch_size):
    batches = list(toy_split(10).batches(batch_size))
    assert [row for rows in batches for row in range(rows.start, rows.stop)] == list(range(10))
    assert all(rows.stop - rows.start == batch_size for rows in batches[:-1])


def test_an_opened_split_has_images_and_labels_in_the_splits_order(tmp_path):
    # The first pixel of each sample is its own number modulo 256, its label modulo 10.
    samples = 1_797
    images = np.zeros((samples, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(samples) % 256
    files = pool_files("digits")
    assert files == ["all_images.npy", "all_labels.npy"]
    for file, array in zip(files, (images, np.arange(samples) % 10), strict=True):
        np.save(tmp_path / file, array)
    split = open_split(tmp_path, "digits", "val", None)
    want = split_indices("digits", "val", None)[1]
    assert split.order.tolist() == want.tolist()
    assert split.labels.tolist() == (want % 10).tolist()
    rows = slice(100, 180)
    pixels = load_images(split, rows, torch.device("cpu"))[:, 0, 0, 0] * 255
    assert pixels.round().int().tolist() == (want[rows] % 256).tolist()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header_of(array, **changed) -> bytes:
    """A .npy file that says something else of itself than it holds."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | changed
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


IMAGES, LABELS = np.zeros((1_797, 32, 32, 3), np.uint8), np.arange(1_797) % 10
SPOILT = {
    "empty": ("images", b"", "can't be read"),
    "truncated": ("images", npy(IMAGES)[:-1], "can't be read"),
    "labels truncated": ("labels", npy(LABELS)[:-1], "can't be read"),
    "noise": ("labels", b"\x01\xff" * 99, "can't be read"),
    "a pickle": ("labels", npy(np.array([{}])), "can't be read"),
    "a length beyond reason": ("images", header_of(IMAGES, shape=(10**12, 9)), "can't be read"),
    "fewer images": ("images", npy(IMAGES[:-1]), "1796 x 32 x 32 x 3 in uint8, want 1797 x 32"),
    "fewer labels": ("labels", npy(LABELS[:-1]), "1796 in int64, want 1797 in int64"),
    "other images": ("images", npy(IMAGES.astype(np.float32)), "in float32, want 1797 x 32 x 32"),
    "channels first": ("images", npy(IMAGES.transpose(0, 3, 1, 2)), "1797 x 3 x 32 x 32 in uint8"),
    "other labels": ("labels", npy(LABELS.astype(float)), "in float64, want 1797 in int64"),
    "a label too large": ("labels", npy(LABELS + 90), "labels 90 to 99, want 0 to 9"),
    "a label too small": ("labels", npy(LABELS - 1), "labels -1 to 8, want 0 to 9"),
    "missing": ("images", None, "can't be read (No such file or directory)"),
}


@pytest.mark.parametrize("what, content, words", SPOILT.values(), ids=SPOILT)
def test_an_array_that_is_not_as_it_was_written_is_told_by_its_file(tmp_path, what, content, words):
    np.save(tmp_path / "all_images.npy", IMAGES)
    np.save(tmp_path / "all_labels.npy", LABELS)
    path = tmp_path / f"all_{what}.npy"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OfframpError) as caught:
        open_split(tmp_path, "digits", "val", None)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message
    assert message.endswith(f"; delete the folder {tmp_path} and rerun") and documented(message)


def test_images_are_float32_between_0_and_1_and_channels_last():
    split = toy_split(10)
    split.images[0, 0, 0] = [0, 255, 51]
    batch = load_images(split, slice(0, 10), torch.device("cpu"))
    assert batch.dtype == torch.float32
    assert batch.shape == (10, 3, 8, 6)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert (float(batch.min()), float(batch.max())) == (0.0, 1.0)
    row = split.order.tolist().index(0)
    np.testing.assert_allclose(batch[row, :, 0, 0], [0.0, 1.0, 0.2], rtol=1e-6)


def test_rows_may_be_chosen_by_number():
    split, cpu = toy_split(10), torch.device("cpu")
    chosen = load_images(split, np.array([7, 2]), cpu)
    assert torch.equal(chosen, load_images(split, slice(0, 10), cpu)[[7, 2]])
