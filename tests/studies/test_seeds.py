"""Several trainings side by side without Snakemake, as on a GPU, here at small size on the CPU."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits

from offramp.networks.loading import load
from offramp.studies import seeds
from offramp.studies.seeds import CONFIGS, ROOT, recipe_of
from offramp.tables.files import origin_of, read
from offramp.training.recipe import PURPOSE, purpose


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
    want = purpose("branchynet", "digits", None, recipe_of("branchynet", 1, 1))
    assert json.loads(origin[PURPOSE]) == want
    # What is there is not trained again.
    before = weights[0].stat().st_mtime_ns
    assert run(*given).returncode == 0
    assert weights[0].stat().st_mtime_ns == before


def test_a_training_that_fails_is_named_with_its_log(tmp_path):
    done = run("--data", tmp_path / "digits", "--out", tmp_path, "--device", "cpu")
    assert done.returncode != 0
    assert "error: not trained; see" in done.stderr and "branchynet_1.log" in done.stderr


def test_recipes_are_those_of_the_configs():
    for model, path in CONFIGS.items():
        config = yaml.safe_load(path.read_text())
        assert config["model"]["name"] == model
        found = recipe_of(model, 3, None)
        assert found["epochs"] == config["train"]["epochs"] and found["seed"] == 3
        assert found.keys() == recipe_of("branchynet", 1, 5).keys()
    assert seeds.recipe_of("branchynet", 1, 5)["epochs"] == 5
