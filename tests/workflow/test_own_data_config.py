"""What the config says of the user's own data, checked before any job."""

import os

import numpy as np
import pytest
import yaml
from conftest import documented
from snakemake.utils import update_config
from workflow_helpers import ROOT

from offramp import OfframpError
from offramp.common import hashing
from offramp.common.hashing import sha256, sums_of
from offramp.data.datasets import dataset_of
from offramp.workflow.config import check_config

SCHEMA = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
DEFAULTS = yaml.safe_load((ROOT / "config.yaml").read_text())
LABELS = np.arange(300) % 10


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("rgb.npz", inputs=np.zeros((300, 32, 32, 3), np.uint8), labels=LABELS)
    np.savez("grey.npz", inputs=np.zeros((300, 12, 28), np.uint8), labels=LABELS)
    np.savez("table.npz", inputs=np.zeros((300, 7)), labels=LABELS)
    return tmp_path


def checked(dataset, **more):
    config = {}
    update_config(config, {"dataset": dataset, "model": {"weights": "train"}, **more})
    check_config(config, SCHEMA, yaml.safe_load(yaml.safe_dump(DEFAULTS)))
    return config


def refusal(dataset, **more):
    with pytest.raises(OfframpError) as caught:
        checked(dataset, **more)
    first, *lines = str(caught.value).splitlines()
    assert first == "the config is wrong:"
    return [line.strip() for line in lines]


def arrays(files, **more):
    return {"name": "arrays", "files": files, **more}


def test_own_data_are_noted_in_the_config_and_a_second_check_finds_the_same():
    config = checked(arrays("./rgb.npz", classes=list("abcdefghij")), batch_size=1000)
    known = config["dataset"]["known"]
    assert dataset_of(known).names == tuple("abcdefghij")
    assert config["dataset"]["files"] == "rgb.npz" and config["batch_size"] == 210
    check_config(config, SCHEMA, DEFAULTS)
    assert config["dataset"]["known"] == known
    assert "known" not in checked({"name": "digits"})["dataset"]
    assert dataset_of(checked({"mean": 0.5, "std": 1})["dataset"]["known"]).name == "cifar10"


@pytest.mark.parametrize(
    ("file", "has"), [("grey", "1 x 12 x 28 in uint8"), ("table", "7 in float32")]
)
def test_what_a_network_here_can_not_take_is_refused(file, has):
    train = {"shift": 0}
    [line] = refusal(arrays(f"{file}.npz"), train=train)
    assert line.startswith("model.name: branchynet takes pictures of 3 x 32 x 32, and arrays-")
    assert f" has {has}; " in line and documented(line)
    plain = {"name": "cpunet_static", "weights": "weights/cpunet_static.safetensors"}
    lines = refusal(arrays(f"{file}.npz"), train=train, baseline=plain)
    assert any(line.startswith("baseline.name: cpunet_static takes pictures") for line in lines)


@pytest.mark.parametrize("key", ["shift", "cutout"])
def test_an_augmentation_larger_than_the_pictures_is_refused(key):
    sizes = np.zeros((300, 6, 28), np.uint8)
    np.savez("small.npz", inputs=sizes, labels=LABELS)
    lines = refusal(arrays("small.npz"), train={"shift": 0, "cutout": 0, key: 7})
    [line] = [line for line in lines if line.startswith("train.")]
    assert line == f"train.{key}: 7 pixels, where pictures have a side of 6" and documented(line)
    lines = refusal(arrays("table.npz"), train={key: 8})
    assert not [line for line in lines if line.startswith("train.")]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (arrays({"train": "rgb.npz"}), "dataset.files: want {train: a.npz, test: b.npz}"),
        (arrays(7), "dataset.files: want {train: a.npz, test: b.npz}, perhaps with val, or"),
        (arrays("rgb.npz", classes=["a"]), "dataset.classes: "),
        (arrays("rgb.npz", mean="much"), "dataset.mean: want a number, or a list with one"),
        ({"name": "folder", "path": "x", "size": 0}, "dataset.size: want a whole number of pix"),
        ({"name": "folder", "path": "x", "size": [1, 2, 3]}, "dataset.size: want a whole numb"),
        ({"name": "photos"}, "dataset.name: 'photos' is not one of ['cifar10'"),
        (arrays("none.npz"), "none.npz: no such file"),
        (arrays("rgb.npz", validation=300), "dataset.validation: 300 samples leave none"),
    ],
)
def test_a_wrong_key_is_refused_in_one_line(dataset, words):
    [line] = refusal(dataset)
    assert line.startswith(words)


def test_shipped_weights_are_not_taken_for_data_of_another_name():
    with pytest.raises(
        OfframpError, match=r"weights/branchynet.safetensors are of cifar10, not of"
    ):
        checked(arrays("rgb.npz"), model={"weights": "weights/branchynet.safetensors"})


def test_weights_that_ship_are_not_given_normalised_pictures():
    shipped = {"weights": "weights/branchynet.safetensors"}
    [line] = refusal({"mean": 0.5, "std": 0.25}, model=shipped)
    assert line.startswith("dataset.mean: ") and "take pictures in 0..1 that are not norm" in line
    assert documented(line)
    checked({"mean": 0.5, "std": 0.25})  # trained so


def test_sums_are_remembered_until_a_file_changes(place, monkeypatch):
    file = place / "rgb.npz"
    os.utime(file, (1, 1))
    (place / ".snakemake").mkdir()
    wanted = sha256(file)
    assert sums_of([file]) == [wanted] == sums_of(["rgb.npz"])
    monkeypatch.setattr(hashing, "sha256", lambda path: "read again")
    assert sums_of([file]) == [wanted]
    os.utime(file, (2, 2))
    assert sums_of([file]) == ["read again"]
    file.write_bytes(b"x")  # just now: it may be written again within one tick of the clock
    assert sums_of([file]) == ["read again"]
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert sums_of([file]) == [sha256(file)]
    hashing.MEMORY.write_text("[]")
    assert sums_of([file]) == [sha256(file)]
