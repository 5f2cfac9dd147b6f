"""Errors as a user meets them: what is wrong and what to do, in words, and nothing half-done."""

import io
import math
import os
import pickle
import socket
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from conftest import named_path, real_archive
from workflow_helpers import (
    EXITS,
    RESULTS,
    config_file,
    rewrite,
    snakemake,
    succeed,
    with_cell,
)

from offramp.data.datasets import pool_files
from offramp.networks.branchynet import BranchyNet
from offramp.networks.loading import load

pytest_plugins = ["workflow_helpers"]

ARCHIVE = "cifar-10-python.tar.gz"
CIFAR_FILES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]
CHECKPOINT_ACCURACY = [0.6202, 0.7310, 0.7780, 0.8010, 0.8236, 0.8456]


def fail(folder, *arguments, **options):
    """Run Snakemake and demand that it fails, without a traceback; returns its output."""
    run = snakemake(folder, *arguments, "--cores", "2", **options)
    assert run.code != 0, run.output
    assert "Traceback" not in run.output
    return run


# The config


def test_a_wrong_config_is_refused_by_the_key_before_any_job(clone):
    settings = {"swep": {"cutoffs": 5}, "batch_size": 64.0, "results": "docs"}
    run = fail(clone, configs=[config_file(clone, "wrong.yaml", settings)])
    assert "the config is wrong" in run.output
    words = ["swep: unknown key; did you mean sweep?", "batch_size: want", "results: docs is"]
    assert [word for word in words if word not in run.output] == []
    assert not run.started
    assert not (clone / "results/logs").exists()


def test_keys_of_the_version_before_are_accepted_with_their_new_names(clone):
    old = {
        "rival": {"model": "cpunet_static", "weights": "weights/cpunet_static.safetensors"},
        "criterion": "risk",
        "selection": {"rule": "fastest_within_loss", "max_loss": 0.01},
    }
    cifar = {"dataset": {"name": "cifar10"}, "results": "results/old"}
    run = succeed(
        clone, "results/old/baseline.parquet", "-n",
        configs=["examples/cpu.yaml", config_file(clone, "old.yaml", old | cifar)],
    )  # fmt: skip
    for line in (
        "rival is baseline now, and rival.model is baseline.name",
        "the criterion risk is deferral now",
        "selection.max_loss is selection.max_drop now",
        "the rule fastest_within_loss is fastest_within_drop now",
    ):
        assert f"config: {line}" in run.output
    assert "baseline" in run.jobs


# The download


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fake_archive(path):
    """An archive of the right form with the wrong contents."""
    noise = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as tar:
        for name in CIFAR_FILES:
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = 20_000
            tar.addfile(member, io.BytesIO(noise.bytes(member.size)))
    return path


def download(folder, sources):
    """The output of a download of CIFAR-10 that must fail and leave nothing."""
    config = config_file(folder, "sources.yaml", {"dataset": {"sources": [*map(str, sources)]}})
    run = fail(folder, "data/cifar10/train_images.npy", configs=[config], NO_PROXY="127.0.0.1")
    assert not (folder / "data/cifar10").exists()
    assert list(folder.glob("data/*")) == []
    assert "CIFAR-10 could not be had" in run.output
    return run


@pytest.mark.alone
def test_without_network_each_address_and_all_ways_out_are_named_within_half_a_minute(clone):
    addresses = [f"http://127.0.0.1:{closed_port()}/{name}/{ARCHIVE}" for name in ("a", "b")]
    run = download(clone, addresses)
    assert run.seconds < 30
    assert [address for address in addresses if address not in run.output] == []
    ways_out = ("dataset.sources", "OFFRAMP_DATA", "make demo")
    assert [way for way in ways_out if way not in run.output] == []


def test_data_that_can_not_be_taken_anew_stay(clone):
    files = [clone / "data/cifar10" / file for file in pool_files("cifar10")]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.write_text(f"old {file.name}")
    config = config_file(clone, "nowhere.yaml", {"dataset": {"sources": ["/nowhere/at/all"]}})
    run = fail(clone, "data/cifar10/train_images.npy", "--force", configs=[config])
    assert "/nowhere/at/all" in run.output
    assert [file.read_text() for file in files] == [f"old {file.name}" for file in files]


def test_a_source_that_is_not_there_is_named(clone):
    assert "/nowhere/at/all" in download(clone, ["/nowhere/at/all"]).output


def test_truncated_and_corrupted_archives_are_told_apart_by_name(clone):
    whole = fake_archive(clone / "whole.tar.gz")
    packed = whole.read_bytes()
    (clone / "truncated.tar.gz").write_bytes(packed[: len(packed) // 2])
    middle = len(packed) // 2
    spoilt = packed[:middle] + bytes(1000) + packed[middle + 1000 :]
    (clone / "corrupted.tar.gz").write_bytes(spoilt)
    names = ["whole.tar.gz", "truncated.tar.gz", "corrupted.tar.gz"]
    told = download(clone, [clone / name for name in names]).output
    reasons = {}
    for name in names:
        lines = [x for x in told.splitlines() if x.strip().startswith(f"{clone / name}: ")]
        assert lines, told
        reasons[name] = lines[0].split(f"{name}: ")[1].strip()
    assert "sha256" in reasons["whole.tar.gz"]
    assert all(reasons.values())


# The weights


def a_network():
    torch.manual_seed(0)
    return BranchyNet(10).eval()


def lacking_key(path):
    state = a_network().state_dict()
    del state["fc5.weight"]
    torch.save(state, path)


def with_another_key(path):
    torch.save(a_network().state_dict() | {"fc6.weight": torch.zeros(1)}, path)


def of_another_shape(path):
    safetensors.torch.save_file(BranchyNet(7).state_dict(), path)


def no_weights(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


@pytest.mark.parametrize(
    "name, make, words",
    [
        ("lacking.pt", lacking_key, ["missing key fc5.weight"]),
        ("other.pt", with_another_key, ["unexpected key fc6.weight"]),
        ("shape.safetensors", of_another_shape, ["fc5.weight: shape (7, 128), want (10, 128)"]),
        ("noise.pt", no_weights, ["not a readable weights file"]),
        ("noise.safetensors", no_weights, ["not a readable weights file"]),
    ],
)
def test_wrong_weights_are_refused_by_file_and_key(clone, name, make, words):
    make(clone / name)
    weights = config_file(clone, "weights.yaml", {"model": {"weights": name}})
    table = f"{RESULTS}/network.parquet"
    run = fail(clone, table, configs=["examples/digits.yaml", weights])
    assert [word for word in [f"error: {name}", *words] if word not in run.output] == []
    assert not (clone / table).exists()


# The tables


def test_a_logit_that_is_not_finite_is_named_by_sample_and_exit(tree):
    path = tree / RESULTS / "logits/test.parquet"
    table = pq.read_table(path)
    sample = table["sample_id"][7].as_py()
    rewrite(path, with_cell(table, "exit_3", 7, [math.nan] * 10))
    run = fail(tree, f"{RESULTS}/scores/test.parquet")
    assert run.jobs == {"scores": 1}
    assert f"sample {sample}, exit 3" in run.output
    assert f"{RESULTS}/logits/test.parquet" in run.output


def test_a_table_of_another_schema_version_is_refused_in_one_line(tree):
    path = tree / RESULTS / "sweep.parquet"
    rewrite(path, pq.read_table(path), schema_version="0")
    run = fail(tree)
    log = (tree / RESULTS / "logs/policies.log").read_text().splitlines()
    assert len(log) == 1
    assert log[0] in run.output
    for word in (f"{RESULTS}/sweep.parquet", "version 1", "version 0", "delete it and rerun"):
        assert word in log[0]


def test_a_file_that_is_no_table_is_named(tree):
    (tree / RESULTS / "scores/val.parquet").write_bytes(b"no parquet")
    run = fail(tree, f"{RESULTS}/sweep.parquet")
    assert f"{RESULTS}/scores/val.parquet: not a readable Parquet table" in run.output


def test_tables_of_different_weights_are_not_combined(tree):
    path = tree / RESULTS / "scores/val.parquet"
    rewrite(path, pq.read_table(path), weights_sha256="0" * 64)
    run = fail(tree, f"{RESULTS}/sweep.parquet")
    assert "different weights" in run.output


def test_a_live_cascade_that_disagrees_with_the_table_fails_by_sample(tree):
    path = tree / RESULTS / "logits/test.parquet"
    dates = path.stat()
    table = pq.read_table(path)
    sample, label = table["sample_id"][5].as_py(), table["label"][5].as_py()
    wrong = [100.0 if c == (label + 1) % 10 else 0.0 for c in range(10)]
    rewrite(path, with_cell(table, "exit_1", 5, wrong))
    os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    target = f"{RESULTS}/verification.parquet"
    run = fail(tree, target, "-R", "verification", "--allowed-rules", "verification")
    assert run.jobs == {"verification": 1}
    named = [x for x in run.output.splitlines() if f"sample {sample}: table exit 1" in x]
    assert named and f"label {(label + 1) % 10}, live" in named[0]
    assert not (tree / target).exists()


# The real dataset


def archive_images(folder):
    """The 50,000 training images float32 (N, 3, 32, 32) in 0..1 and all labels, read plainly."""
    pools = {}
    with tarfile.open(folder / ARCHIVE) as tar:
        for name in CIFAR_FILES[:-1]:
            raw = tar.extractfile(f"cifar-10-batches-py/{name}").read()
            pools[name] = pickle.loads(raw, encoding="latin1")
    train = [pools[name] for name in CIFAR_FILES[:5]]
    pixels = np.concatenate([p["data"] for p in train]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([p["labels"] for p in train])
    return torch.from_numpy(pixels), labels, np.array(pools["test_batch"]["labels"])


def test_cifar10_goes_through_in_the_order_of_its_split(clone):
    folder, weights = real_archive(), named_path("OFFRAMP_TEST_CHECKPOINT")
    given = weights is not None
    if not given:
        weights = clone / "random.safetensors"
        safetensors.torch.save_file(a_network().state_dict(), weights)
    config = config_file(clone, "cifar10.yaml", {"model": {"weights": str(weights)}})
    targets = [f"results/{name}.parquet" for name in ("logits/val", "sweep", "calibration")]
    succeed(clone, *targets, "--cores", "all", configs=[config], OFFRAMP_DATA=str(folder))

    pixels, labels, test_labels = archive_images(folder)
    order = torch.randperm(50_000, generator=torch.Generator().manual_seed(42)).numpy()
    tables = {s: pq.read_table(clone / f"results/logits/{s}.parquet") for s in ("train", "val")}
    for split, wanted in (("train", order[:45_000]), ("val", order[45_000:])):
        np.testing.assert_array_equal(tables[split]["sample_id"], wanted)
        np.testing.assert_array_equal(tables[split]["label"], labels[wanted])
    test = pq.read_table(clone / "results/logits/test.parquet")
    np.testing.assert_array_equal(test["sample_id"], np.arange(10_000))
    np.testing.assert_array_equal(test["label"], test_labels)

    network = load("branchynet", 10, weights, torch.device("cpu"))
    rows = [0, 1, 777, 4_999]
    with torch.inference_mode():
        own = network(pixels[order[45_000:][rows]].float() / 255)
    for k in range(EXITS):
        column = tables["val"][f"exit_{k + 1}"]
        found = np.array([column[row].as_py() for row in rows])
        np.testing.assert_allclose(found, own[k].numpy(), atol=1e-4, rtol=1e-4)
    if given:
        val = tables["val"]
        logits = [np.stack(val[f"exit_{k}"].to_numpy()) for k in range(1, EXITS + 1)]
        accuracy = [float((z.argmax(1) == val["label"].to_numpy()).mean()) for z in logits]
        assert [round(a, 4) for a in accuracy] == CHECKPOINT_ACCURACY
