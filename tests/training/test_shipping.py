"""Weights that ship: half precision, the index and what it refuses, the card."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import real_archive

from offramp import OfframpError
from offramp.common.markdown import parts_table
from offramp.data.download import get_dataset
from offramp.data.splits import Split, load_images, open_split
from offramp.networks.index import mismatches
from offramp.networks.loading import build, describe, load
from offramp.networks.states import read
from offramp.tables.files import sha256
from offramp.tables.schemas import TRAINING
from offramp.training.evaluation import correct_of
from offramp.training.shipping import ship

CPU = torch.device("cpu")
ABOUT = {
    "model": "branchynet",
    "dataset": "cifar10",
    "git_commit": "0123456789abcdef",
    "recipe": json.dumps({"epochs": 2, "seed": 42}),
    "device_name": "a machine",
    "threads": "2",
    "dtype": "bfloat16",
    "torch": "2.0",
}


def a_split(samples, seed):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (samples, 32, 32, 3), dtype=np.uint8)
    return Split(images, draw.integers(0, 10, samples), np.arange(samples))


@pytest.fixture(scope="module")
def splits():
    return {"val": a_split(40, 1), "test": a_split(60, 2)}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return build("branchynet", 10).eval()


@pytest.fixture
def shipped(tmp_path, trained, splits):
    rows = [
        {"epoch": e, "exit": k, "loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.5, "seconds": 90.0}
        for e in (1, 2)
        for k in range(1, 7)
    ]
    curves = pa.Table.from_pylist(rows, schema=TRAINING)
    return tmp_path, ship(trained, splits, curves, ABOUT, CPU, tmp_path)


def test_shipped_weights_are_the_trained_ones_rounded_and_vectors_exact(shipped, trained):
    folder, _ = shipped
    state = read(folder / "branchynet.safetensors")
    for name, value in trained.state_dict().items():
        half = value.ndim > 1
        assert state[name].dtype == (torch.float16 if half else value.dtype)
        assert torch.equal(state[name], value.half() if half else value)
    loaded = load("branchynet", 10, folder / "branchynet.safetensors", CPU)
    assert all(v.dtype != torch.float16 for v in loaded.state_dict().values())


def test_the_index_says_what_belongs_to_the_weights(shipped):
    folder, _ = shipped
    entry = json.loads((folder / "index.json").read_text())["branchynet.safetensors"]
    assert entry["sha256"] == sha256(folder / "branchynet.safetensors")
    assert entry["preprocessing"] == {
        "shape": [3, 32, 32], "channels": "RGB", "range": [0, 1], "normalization": None
    }  # fmt: skip
    assert (entry["model"], entry["dataset"], entry["classes"]) == ("branchynet", "cifar10", 10)
    assert (entry["validation"], entry["split_seed"]) == (40, 42)


def test_other_entries_of_the_index_stay(tmp_path, trained, splits):
    (tmp_path / "index.json").write_text('{"other.safetensors": {"sha256": "1"}}')
    curves = pa.Table.from_pylist([dict.fromkeys(TRAINING.names, 1)], schema=TRAINING)
    ship(trained, splits, curves, ABOUT, CPU, tmp_path)
    assert list(json.loads((tmp_path / "index.json").read_text())) == [
        "branchynet.safetensors", "other.safetensors"
    ]  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), 1e6], ids=["nan", "too large for half precision"])
def test_weights_that_are_not_finite_never_ship(tmp_path, splits, value):
    network = build("branchynet", 10).eval()
    network.conv1.weight.data[0, 0, 0, 0] = value
    curves = pa.Table.from_pylist([dict.fromkeys(TRAINING.names, 1)], schema=TRAINING)
    with pytest.raises(OfframpError, match=r"conv1\.weight: 1 of 864 values are not finite"):
        ship(network, splits, curves, ABOUT, CPU, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_card_has_the_accuracies_of_the_shipped_file(shipped, splits):
    folder, card = shipped
    network = load("branchynet", 10, folder / "branchynet.safetensors", CPU)
    right = {}
    for name, split in splits.items():
        with torch.inference_mode():
            logits = network(load_images(split, slice(0, len(split.order)), CPU))
        right[name] = [(z.argmax(1).numpy() == split.labels) for z in logits]
    cells = re.findall(r"^\| (\d) \| ([\d.]+)% \[.*?\] \| ([\d.]+)% \[.*?\] \|$", card, re.M)
    want = [
        (str(k + 1), f"{100 * right['val'][k].mean():.2f}", f"{100 * right['test'][k].mean():.2f}")
        for k in range(6)
    ]
    assert cells == want
    assert "3 minutes on a machine, 2 threads, in bfloat16" in card
    parameters = sum(p.numel() for p in network.parameters())
    assert f"{parameters:,} learned parameters" in card
    assert "| 1 | block | 3x32x32 | 32x32x32 | 960 | 884,736 |" in card
    assert "seed: 42" in card and "ln 10 = 2.302585" in card


def test_correct_of_is_per_sample_and_exit(trained, splits):
    found = correct_of(trained, splits["test"], CPU)
    with torch.inference_mode():
        logits = trained(load_images(splits["test"], slice(0, 60), CPU))
    want = np.stack([z.argmax(1).numpy() == splits["test"].labels for z in logits], axis=1)
    np.testing.assert_array_equal(found, want)


def objections(weights, *wanted):
    return list(mismatches("model.weights", weights, "model.name", *wanted))


def test_fitting_weights_and_unlisted_files_are_not_objected_to(shipped):
    folder, _ = shipped
    weights = folder / "branchynet.safetensors"
    assert objections(weights, "branchynet", "cifar10", 40) == []
    assert objections(folder / "own.safetensors", "cpunet", "digits", 10**6) == []
    assert objections("/nowhere/own.safetensors", "cpunet", "digits", 1) == []


@pytest.mark.parametrize(
    "model, dataset, validation, words",
    [
        ("cpunet", "cifar10", 40, "model.name: .* are of branchynet, not of cpunet"),
        ("branchynet", "digits", 40, "dataset.name: .* are of cifar10, not of digits"),
        ("branchynet", "cifar10", 41, "dataset.validation: 41 samples, .* all except 40"),
    ],
)
def test_weights_of_something_else_are_objected_to(shipped, model, dataset, validation, words):
    folder, _ = shipped
    (problem,) = objections(folder / "branchynet.safetensors", model, dataset, validation)
    assert re.search(words, problem)


def test_damaged_weights_are_objected_to(shipped):
    folder, _ = shipped
    path = folder / "branchynet.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (problem,) = objections(path, "branchynet", "cifar10", 40)
    assert problem.startswith("model.weights:")
    assert "damaged" in problem and "sha256" in problem


# What lies in weights/

SHIPPED = Path(__file__).parents[2] / "weights"
ENTRIES = json.loads((SHIPPED / "index.json").read_text())


def test_every_weights_file_is_in_the_index_and_has_its_card_and_curves():
    assert {path.name for path in SHIPPED.glob("*.safetensors")} == set(ENTRIES)
    for name, entry in ENTRIES.items():
        assert sha256(SHIPPED / name) == entry["sha256"]
        assert (SHIPPED / name).stat().st_size <= 10_000_000
        assert entry["sha256"] in (SHIPPED / f"{entry['model']}.md").read_text()
        assert (SHIPPED / f"{entry['model']}_training.png").stat().st_size


@pytest.mark.parametrize("name", ENTRIES)
def test_the_parts_on_a_card_are_those_of_the_network(name):
    entry = ENTRIES[name]
    network = load(entry["model"], entry["classes"], SHIPPED / name, CPU)
    card = (SHIPPED / f"{entry['model']}.md").read_text()
    assert parts_table(describe(network, torch.zeros(1, 3, 32, 32)).to_pylist()) in card


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    real_archive()
    path = tmp_path_factory.mktemp("data") / "cifar10"
    get_dataset("cifar10", [], path)
    return path


@pytest.mark.parametrize("name", ENTRIES)
def test_shipped_weights_reach_on_validation_data_what_their_card_says(name, cifar10):
    entry = ENTRIES[name]
    network = load(entry["model"], entry["classes"], SHIPPED / name, CPU)
    split = open_split(cifar10, entry["dataset"], "val", None)
    card = (SHIPPED / f"{entry['model']}.md").read_text()
    said = [float(a) for a in re.findall(r"^\| \d \| ([\d.]+)% \[", card, re.MULTILINE)]
    found = 100 * correct_of(network, split, CPU).mean(axis=0)
    # Another machine may round otherwise: two images of 5,000.
    np.testing.assert_allclose(found, said, atol=0.05)
