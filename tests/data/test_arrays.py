"""Arrays of the user's own: what is taken, what a network sees of it, and how faults are named."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from conftest import documented

from offramp import OfframpError
from offramp.data.datasets import SPLITS, dataset_of, pool_files, split_sizes, text_of
from offramp.data.own import described
from offramp.data.splits import load_images, open_split
from offramp.data.taking import take_own

DRAW = np.random.default_rng(4)
LABELS = DRAW.permutation(np.arange(120) % 3)
PIXELS = DRAW.integers(0, 256, (120, 6, 5, 3), dtype=np.uint8)
TABLE = DRAW.normal(size=(120, 7))


def saved(folder, inputs=TABLE, labels=LABELS, name="a.npz") -> str:
    np.savez(folder / name, inputs=inputs, labels=labels)
    return str(folder / name)


def config(files, **more) -> dict:
    return {"name": "arrays", "files": files, "validation": None, **more}


def opened(folder, data) -> dict:
    """All splits, after the same steps as in a run."""
    known = text_of(described(data))
    place = folder / "data" / dataset_of(known).name
    take_own(data, known, place)
    assert sorted(f.name for f in place.iterdir()) == sorted(pool_files(known))
    return {name: open_split(place, known, name, data["validation"]) for name in SPLITS}


def message(call, *arguments) -> str:
    with pytest.raises(OfframpError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value) and documented(str(caught.value)), caught.value
    return str(caught.value)


def seen(split) -> np.ndarray:
    """What a network sees, back in the order of the file."""
    return load_images(split, slice(None), "cpu").numpy()


@pytest.mark.parametrize(
    ("inputs", "dtype", "network_sees"),
    [
        (TABLE, "float32", TABLE.astype(np.float32)),
        (TABLE.astype(np.float16), "float32", TABLE.astype(np.float16).astype(np.float32)),
        (DRAW.normal(size=(120, 3, 6, 5)).astype(np.float32), "float32", None),
        (DRAW.integers(0, 900, (120, 11), dtype=np.int32), "int64", None),
        (DRAW.integers(0, 255, (120, 11), dtype=np.uint8), "int64", None),
        (PIXELS, "float32", (PIXELS.transpose(0, 3, 1, 2) / 255).astype(np.float32)),
        (PIXELS[..., :1], "float32", (PIXELS[..., :1].transpose(0, 3, 1, 2) / 255)),
        (PIXELS[..., 0], "float32", PIXELS[:, None, :, :, 0] / 255),
        (PIXELS.transpose(0, 3, 1, 2), "float32", PIXELS.transpose(0, 3, 1, 2) / 255),
    ],
    ids=["table", "half", "planes", "tokens", "bytes", "rgb", "grey1", "grey", "channels first"],
)  # fmt: skip
def test_a_network_sees_numbers_as_they_are_and_pictures_in_0_to_1(
    tmp_path, inputs, dtype, network_sees
):
    data = config(saved(tmp_path, inputs))
    dataset = described(data)
    wanted = inputs if network_sees is None else network_sees
    splits = opened(tmp_path, data)
    rows = np.concatenate([split.order for split in splits.values()])
    assert sorted(rows) == list(range(120))
    for split in splits.values():
        x = load_images(split, slice(None), "cpu")
        assert str(x.dtype) == f"torch.{dtype}" and dataset.input_dtype == dtype
        assert x.shape[1:] == dataset.input_shape
        np.testing.assert_allclose(x.numpy(), wanted[split.order], rtol=1e-6)
        assert split.labels.tolist() == LABELS[split.order].tolist()


def test_a_sole_file_is_split_by_seed_and_files_of_their_own_are_whole_splits(tmp_path):
    sole = described(config(saved(tmp_path)))
    assert split_sizes(text_of(sole), None) == {"train": 84, "val": 12, "test": 24}
    names = {
        split: saved(tmp_path, TABLE + i, name=f"{split}.npz") for i, split in enumerate(SPLITS)
    }
    two = described(config({"train": names["train"], "test": names["test"], "val": None}))
    assert split_sizes(text_of(two), None) == {"train": 108, "val": 12, "test": 120}
    splits = opened(tmp_path, config(names))
    for i, split in enumerate(splits.values()):
        assert sorted(split.order) == list(range(120)) and split.order.tolist() != list(range(120))
        np.testing.assert_allclose(seen(split), (TABLE + i)[split.order], rtol=1e-6)


def test_two_npy_are_an_npz(tmp_path):
    pair = {"inputs": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}
    np.save(pair["inputs"], TABLE)
    np.save(pair["labels"], LABELS.astype(np.uint8))
    one, two = (opened(tmp_path, config(files)) for files in (saved(tmp_path), pair))
    for name in SPLITS:
        assert (seen(one[name]) == seen(two[name])).all()
        assert (one[name].labels == two[name].labels).all()


def test_a_dataset_is_known_by_its_files_content_alone(tmp_path):
    first = described(config(saved(tmp_path)))
    assert described(config(saved(tmp_path, name="b.npz"))) == first
    assert first.name.startswith("arrays-")
    others = [
        config(saved(tmp_path, TABLE * 2, name="c.npz")),
        config(saved(tmp_path, labels=(LABELS + 1) % 3, name="d.npz")),
    ]
    names = {first.name, *(described(data).name for data in others)}
    assert len(names) == 3
    saved(tmp_path, TABLE * 2)  # over the first, which by its size and perhaps its time is the same
    assert described(config(str(tmp_path / "a.npz"))).name == described(others[0]).name


def test_pictures_are_normalised_per_channel_where_the_config_says_so(tmp_path):
    data = config(saved(tmp_path, PIXELS), mean=[0.5, 0.25, 0], std=[0.5, 2, 1])
    x = PIXELS / 255
    x = (x - [0.5, 0.25, 0]) / [0.5, 2, 1]
    split = opened(tmp_path, data)["test"]
    wanted = x.transpose(0, 3, 1, 2)[split.order]
    np.testing.assert_allclose(seen(split), wanted, rtol=1e-5, atol=1e-6)
    one = described(config(saved(tmp_path, PIXELS), mean=0.5, std=0.5))
    assert (one.mean, one.std) == ((0.5,) * 3, (0.5,) * 3)


def test_classes_have_the_names_that_the_config_gives(tmp_path):
    assert described(config(saved(tmp_path))).names == ("0", "1", "2")
    names = ["a", "b {x}", "ü"]
    found = described(config(saved(tmp_path), classes=names))
    assert dataset_of(text_of(found)) == found and found.names == tuple(names)


def with_value(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (TABLE[:, 0], LABELS, "inputs: shape (120,): want samples on the first axis"),
        (TABLE[:0], LABELS[:0], "inputs: shape (0, 7): want samples"),
        (TABLE.astype(complex), LABELS, "inputs: complex128: want numbers: float32, int64,"),
        (TABLE.astype(str), LABELS, "inputs: <U"),
        (TABLE > 0, LABELS, "inputs: bool: want numbers"),
        (np.zeros((120, 5, 5, 4), np.uint8), LABELS, "inputs: uint8 of 5 x 5 x 4 are no pictures"),
        (TABLE, LABELS[:119], "labels: 119 labels, where "),
        (TABLE, LABELS[:, None], "labels: shape (120, 1): want one label a sample"),
        (TABLE, LABELS + 0.5, "labels: float64: want whole numbers (int64), from 0 on"),
        (TABLE, LABELS.astype(str), "labels: <U"),
        (TABLE, with_value(LABELS, 7, -1), "labels: -1 at index 7: labels count from 0"),
        (TABLE, with_value(LABELS, 7, 500), "labels: 500 at index 7: not each of so many classes"),
        (TABLE, LABELS * 0, "labels: all samples are of class 0; want at least two classes"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_named_by_file_and_index_before_any_job(tmp_path, inputs, labels, words):
    path = saved(tmp_path, inputs, labels)
    assert message(described, config(path)).startswith(f"{path}: {words}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_no_finite_number_is_named_by_its_place(tmp_path, value):
    path = saved(tmp_path, with_value(TABLE, (17, 3), value))
    found = message(opened, tmp_path, config(path))
    assert found.startswith(f"{path}: inputs: {value} at index (17, 3) (the sample first)")
    assert not list((tmp_path / "data").rglob("*"))


def test_whole_numbers_beyond_int64_are_named(tmp_path):
    big = with_value(np.zeros((120, 2), np.uint64), (5, 1), 2**63)
    assert "at index (5, 1)" in message(opened, tmp_path, config(saved(tmp_path, big)))


def test_a_label_beyond_the_names_of_the_classes_is_named(tmp_path):
    path = saved(tmp_path)
    found = message(described, config(path, classes=["a", "b"]))
    place = int(np.argmax(LABELS))
    assert found.startswith(f"{path}: labels: 2 at index {place}, outside 0..1 for the 2 names in")


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    rare = np.append(np.arange(119) % 2, 2)
    found = message(opened, tmp_path, config(saved(tmp_path, labels=rare)))
    assert "class 2 (2) has no sample among the" in found and "of the split" in found
    names = {s: saved(tmp_path, TABLE + i, name=f"{s}.npz") for i, s in enumerate(SPLITS)}
    saved(tmp_path, TABLE, LABELS % 2, name="val.npz")
    found = message(
        opened, tmp_path, config(names | {"train": names["test"], "test": names["train"]})
    )
    assert "of the split val" in found and "add some to its files" in found


def test_each_class_is_spread_over_the_splits_of_a_sole_file_in_no_order_of_its_own(tmp_path):
    labels = np.sort(np.concatenate([np.full(n, c) for c, n in enumerate((90, 10, 20))]))
    splits = opened(tmp_path, config(saved(tmp_path, labels=labels)))
    counts = {name: np.bincount(split.labels).tolist() for name, split in splits.items()}
    assert counts == {"train": [63, 7, 14], "val": [9, 1, 2], "test": [18, 2, 4]}
    half = np.bincount(splits["train"].labels[:42], minlength=3)
    assert (half > 0).all() and half[0] > 20
    assert splits["train"].labels.tolist() != sorted(splits["train"].labels)


def test_wrong_files_are_named(tmp_path):
    path = str(tmp_path / "a.npz")
    assert message(described, config(path)) == f"{path}: no such file"
    np.savez(path, x=TABLE, labels=LABELS)
    assert message(described, config(path)).startswith(f"{path}: no array inputs, only x, labels;")
    ragged = np.empty(120, dtype=object)
    for inputs, labels, key in ((ragged, LABELS, "inputs"), (TABLE, ragged, "labels")):
        found = message(described, config(saved(tmp_path, inputs, labels)))
        assert found.startswith(f"{path}: {key}: pickled objects, which could run code")
    for raw in (pickle.dumps(TABLE), b"nonsense", b"", b"PK\x03\x04 cut off"):
        (tmp_path / "a.npz").write_bytes(raw)
        assert message(described, config(path)).startswith(f"{path}: "), raw
    whole = (tmp_path / saved(tmp_path)).read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-30])
    assert message(described, config(path)).startswith(f"{path}: not a readable file of arrays")
    pair = {"inputs": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}
    lying = np.lib.format.header_data_from_array_1_0(TABLE) | {"shape": (120, 10**14)}
    with open(pair["inputs"], "wb") as file:
        np.lib.format.write_array_header_1_0(file, lying)
    np.save(pair["labels"], LABELS)
    assert "not a readable file of arrays" in message(opened, tmp_path, config(pair))
    np.save(pair["inputs"], ragged)
    assert "pickled objects" in message(described, config(pair))
    np.save(pair["inputs"], TABLE)
    raw = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(raw[:-8])
    assert message(opened, tmp_path, config(pair)).startswith(f"{pair['inputs']}: not a readable")
    swapped = {"inputs": pair["inputs"], "labels": saved(tmp_path)}
    assert "an .npz, where one array is wanted" in message(described, config(swapped))


def test_files_that_do_not_fit_together_are_named(tmp_path):
    a, b = saved(tmp_path), saved(tmp_path, TABLE[:, :5], name="b.npz")
    found = message(described, config({"train": a, "test": b}))
    assert (
        found
        == f"{b}: inputs: samples of 5 in float32, where those of {a}: inputs are 7 in float32"
    )
    found = message(described, config({"train": a, "test": a}))
    assert found.startswith("dataset.files.test: the same samples as train; what is chosen")
    own_val = {split: saved(tmp_path, TABLE + i, name=f"{i}.npz") for i, split in enumerate(SPLITS)}
    found = message(described, {**config(own_val), "validation": 9})
    assert found.startswith("dataset.validation: val has files of its own")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (config(None), "dataset.files: missing; name them"),
        (config("a.csv"), "dataset.files: a.csv: want an .npz with inputs and labels"),
        ({"name": "digits", "files": "a.npz"}, "dataset.files: only for arrays, not for digits"),
        ({"name": "digits", "mean": 0.5}, "dataset.mean: give dataset.mean and dataset.std"),
        ({"name": "digits", "mean": 0.5, "std": 0}, "dataset.std: want numbers above 0"),
        ({"name": "digits", "mean": [1, 2], "std": 1}, "dataset.mean: 2 numbers for 3 channels"),
    ],
)
def test_keys_that_do_not_fit_the_dataset_are_named(data, words):
    assert message(described, data).startswith(words)


def test_what_are_no_pictures_is_not_normalised(tmp_path):
    data = config(saved(tmp_path), mean=0.5, std=0.5)
    assert message(described, data).startswith("dataset.mean: only for pictures")


def test_every_label_is_seen_as_often_as_it_is_in_the_file(tmp_path):
    splits = opened(tmp_path, config(saved(tmp_path)))
    found = np.bincount(np.concatenate([s.labels for s in splits.values()]))
    assert found.tolist() == np.bincount(LABELS).tolist()
    for a, b in itertools.combinations(splits.values(), 2):
        assert not set(a.order) & set(b.order)
    assert torch.is_tensor(load_images(splits["val"], slice(2), "cpu"))
