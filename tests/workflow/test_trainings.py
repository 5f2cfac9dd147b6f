"""What undoes a training, and what does not."""

import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import safetensors.numpy
from workflow_helpers import (
    CONFIGS,
    RESULTS,
    command,
    config_file,
    environment,
    snakemake,
    succeed,
)
from workflow_tables import frame

pytest_plugins = ["workflow_helpers"]


def test_a_finished_training_stands_whatever_happens_to_the_code(tree):
    weights = tree / RESULTS / "model/weights.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(weights.with_name("trained"))  # as an older version left it
    with (tree / "scripts/train.py").open("a") as file:
        file.write("# Another comment.\n")
    for module in ("training/training", "training/optimisers", "networks/branchynet"):
        with (tree / f"scripts/offramp/{module}.py").open("a") as file:
            file.write("# Another comment.\n")
    (tree / "data/digits/all_labels.npy").touch()
    for target in (f"{RESULTS}/training.parquet", f"{RESULTS}/summary.md", "train"):
        run = succeed(tree, target, "-n")
        assert "train" not in run.jobs, target
    assert weights.read_bytes() == before
    # Not even what deletes it.
    weights.unlink()
    run = succeed(tree, f"{RESULTS}/training.parquet", "--cores", "2", "--forcerun", "train")
    assert run.jobs == {"train": 1} and weights.read_bytes() == before


def test_another_recipe_is_refused_before_any_job_and_trains_when_told_to(tree):
    weights = tree / RESULTS / "model/weights.safetensors"
    before = weights.read_bytes()
    seed = {"train": {"seed": 43}}
    configs = (*CONFIGS, config_file(tree, "seed.yaml", seed))
    target = f"{RESULTS}/training.parquet"
    refused = snakemake(tree, target, "--cores", "2", configs=configs)
    assert refused.code != 0 and refused.jobs == {}
    assert f"{RESULTS}/model/weights.safetensors would be deleted" in refused.output
    assert "train.seed: 42 then, 43 now" in refused.output
    assert "--config retrain=true" in refused.output
    assert weights.read_bytes() == before
    # What needs no training is not kept from running.
    shipped = config_file(
        tree, "shipped.yaml", {"model": {"weights": str(weights.relative_to(tree))}}
    )
    assert "train" not in succeed(tree, "-n", configs=(*configs, shipped)).jobs
    again = config_file(tree, "again.yaml", {"retrain": True})
    run = succeed(tree, target, "--cores", "2", configs=(*configs, again))
    assert run.jobs == {"train": 1}
    assert weights.read_bytes() != before
    assert succeed(tree, target, "-n", configs=configs).jobs == {}


def test_a_network_of_other_code_is_another_training(tree):
    network = tree / "scripts/offramp/networks/branchynet.py"
    network.write_text(network.read_text().replace("nn.Dropout(0.2)", "nn.Dropout(0.1)"))
    refused = snakemake(tree, "-n")
    assert refused.code != 0 and "the network's code:" in refused.output


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "Snakemake ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_training_goes_on_to_the_same_weights(clone):
    # Few training images, so that an epoch is a matter of a second.
    few = {"dataset": {"validation": 1240}, "train": {"epochs": 6, "batch_size": 100}}
    configs = ("examples/digits.yaml", config_file(clone, "few.yaml", few))
    target = f"{RESULTS}/training.parquet"
    weights = clone / RESULTS / "model/weights.safetensors"
    resume = clone / RESULTS / "model/resume.pt"

    succeed(clone, target, "--cores", "2", configs=configs)
    straight = safetensors.numpy.load_file(weights)
    curves = frame(clone, "training").drop(columns="seconds")
    shutil.rmtree(weights.parent)
    (clone / target).unlink()

    with subprocess.Popen(
        command(target, "--cores", "2", configs=configs),
        cwd=clone,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_for(resume.exists, process)
        finally:
            kill_group(process)
    assert not weights.exists()

    locked = snakemake(clone, target, "--cores", "2", configs=configs)
    assert locked.code != 0
    assert "unlock" in locked.output
    succeed(clone, target, "--unlock", configs=configs)
    # Another rule's success in between costs nothing of what was trained.
    succeed(clone, "data/digits/all_images.npy", "-R", "download", "--cores", "2", configs=configs)
    succeed(clone, target, "--cores", "2", configs=configs)
    went_on = re.search(
        r"going on after epoch (\d)", (clone / RESULTS / "logs/train.log").read_text()
    )
    assert went_on and 1 <= int(went_on[1]) < 6
    assert not resume.exists()
    again = safetensors.numpy.load_file(weights)
    assert again.keys() == straight.keys()
    for name, values in straight.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    assert np.allclose(frame(clone, "training").drop(columns="seconds"), curves, atol=1e-3)
