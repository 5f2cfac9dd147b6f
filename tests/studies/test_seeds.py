"""Several trainings side by side without Snakemake, as on a GPU, here at small size on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from offramp.networks.index import EXITS, recipe_of
from offramp.networks.loading import load
from offramp.studies.seeds import settings_of
from offramp.tables.files import origin_of, read
from offramp.training.purpose import PURPOSE, purpose


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The digits as a dataset's folder holds them."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    folder.mkdir()
    pixels, labels = load_digits(return_X_y=True)
    grey = (pixels.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8)
    np.save(folder / "all_images.npy", grey.repeat(4, 1).repeat(4, 2).repeat(3, 3))
    np.save(folder / "all_labels.npy", labels)
    return folder


ROOT = Path(__file__).parents[2]


def run(*arguments, cwd=ROOT / "scripts"):
    return subprocess.run(
        [sys.executable, "-m", "offramp.studies.seeds", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd,
    )  # fmt: skip


def test_each_seed_trains_its_own_network_and_the_first_tells_how_they_spread(data, tmp_path):
    given = ["--data", data, "--out", tmp_path, "--device", "cpu", "--epochs", 1]
    given += ["--networks", "branchynet", "--seeds", 1, 2]
    done = run(*given)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "branchynet, seed 1",
        "branchynet, seed 2",
    ]
    weights = [tmp_path / f"branchynet_{seed}/weights.safetensors" for seed in (1, 2)]
    one, two = (load("branchynet", 10, path, torch.device("cpu")) for path in weights)
    assert not torch.equal(one.conv1.weight, two.conv1.weight)
    origin = origin_of(read(tmp_path / "branchynet_1/training.parquet", "training"))
    spread = json.loads(origin["seeds"])
    assert spread.keys() == {"1", "2"} and len(spread["2"]) == 6
    want = purpose("branchynet", "digits", None, settings_of("branchynet", 1, 1))
    assert json.loads(origin[PURPOSE]) == want
    # What is there is not trained again.
    before = weights[0].stat().st_mtime_ns
    assert run(*given).returncode == 0
    assert weights[0].stat().st_mtime_ns == before


def test_a_training_that_fails_is_named_with_its_log(tmp_path):
    done = run("--data", tmp_path / "digits", "--out", tmp_path, "--device", "cpu")
    assert done.returncode != 0
    assert "error: not trained; see" in done.stderr and "branchynet_1.log" in done.stderr


def test_a_recipe_is_the_networks_own_under_a_seed():
    for model in EXITS:
        found = settings_of(model, 3, None)
        assert found == recipe_of(model) | {"seed": 3}
        assert len(found["exit_weights"]) == EXITS[model]
    assert settings_of("branchynet", 1, 5)["epochs"] == 5
