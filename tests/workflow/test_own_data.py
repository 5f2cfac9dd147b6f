"""Data of the user's own through the pipeline: the example, the guide, and what runs again."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from conftest import documented
from PIL import Image
from workflow_helpers import ROOT, config_file, copy_tree, snakemake, succeed
from workflow_tables import metadata, read

pytest_plugins = ["workflow_helpers"]

FEW = {
    "train": {"epochs": 1},
    "sweep": {"cutoffs": 10},
    "calibration": {"targets": [0.6, 0.9]},
    "batch_size": 32,
}
EXAMPLE = ("examples/folder.yaml", "few.yaml")
SUMMARY, EXPLORER = "results/shapes/summary.md", "results/shapes/explorer.html"
GUIDE = ROOT / "docs/guides/own-data.md"


@pytest.fixture(scope="module")
def example(pristine, tmp_path_factory):
    """The example at small size, up to its summary and interactive page; to look at."""
    clone = copy_tree(pristine, tmp_path_factory.mktemp("shapes") / "offramp")
    script = [sys.executable, "examples/folder_pictures.py", "data/shapes", "40"]
    subprocess.run(script, cwd=clone, check=True)
    config_file(clone, "few.yaml", FEW)
    succeed(clone, SUMMARY, EXPLORER, "--cores", "2", configs=EXAMPLE)
    return clone


def test_a_folder_of_pictures_goes_through_to_the_summary(example):
    [data] = (example / "data").glob("folder-*")
    images = np.load(data / "all_images.npy", mmap_mode="r")
    assert images.shape == (120, 32, 32, 3)
    sizes = {s: len(read(example / f"results/shapes/logits/{s}.parquet")) for s in
             ("train", "val", "test")}  # fmt: skip
    assert sizes == {"train": 84, "val": 12, "test": 24}
    summary = json.loads((example / "results/shapes/summary.json").read_text())
    assert summary["about"]["dataset"] == data.name
    assert "with 3 classes: 84 training samples" in (example / SUMMARY).read_text()
    page = (example / EXPLORER).read_text()
    assert '"classes":["disc","square","triangle"]' in page and "data:image/webp;base64" in page
    verified = read(example / "results/shapes/verification.parquet")
    assert sum(verified["differ"].to_pylist()) == sum(verified["excused"].to_pylist())
    known = metadata(example / "results/shapes/logits/test.parquet")["known"]
    assert json.loads(known)["names"] == ["disc", "square", "triangle"]


def test_explain_names_the_class_and_draws_the_picture(example):
    [data] = (example / "data").glob("folder-*")
    labels = np.load(data / "all_labels.npy")
    sample = int(read(example / "results/shapes/logits/test.parquet")["sample_id"][0].as_py())
    command = [sys.executable, "-m", "offramp.commands.main", "explain", str(sample)]
    command += ["--results", "results/shapes", "--split", "test"]
    done = subprocess.run(
        command,
        cwd=example,
        env={"PYTHONPATH": "scripts", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    truth = ("disc", "square", "triangle")[labels[sample]]
    assert len(done.stdout.splitlines()) > 16 and truth in done.stdout


def test_only_a_changed_picture_makes_anything_run_again(example, tmp_path):
    clone = copy_tree(example, tmp_path / "offramp")
    picture = clone / "data/shapes/disc/0001.png"
    picture.touch()
    assert succeed(clone, SUMMARY, "-n", configs=EXAMPLE).jobs == {}
    shutil.move(clone / "data/shapes", clone / "data/moved")
    moved = config_file(clone, "moved.yaml", {"dataset": {"path": "data/moved"}})
    assert succeed(clone, SUMMARY, "-n", configs=(*EXAMPLE, moved)).jobs == {}
    shutil.move(clone / "data/moved", clone / "data/shapes")
    Image.new("RGB", (40, 40)).save(picture)
    run = snakemake(clone, SUMMARY, "-n", configs=EXAMPLE)
    assert run.code != 0 and "would be deleted and trained anew" in run.output
    assert "dataset.name: folder-" in run.output
    anew = config_file(clone, "anew.yaml", {"retrain": True})
    jobs = succeed(clone, SUMMARY, "-n", configs=(*EXAMPLE, anew)).jobs
    assert {"download", "train", "logits", "probe", "sweep", "summary"} <= jobs.keys()


def test_wrong_pictures_stop_the_run_with_their_line(example, tmp_path):
    clone = copy_tree(example, tmp_path / "offramp")
    (clone / "data/shapes/square/0002.png").write_bytes(b"not a picture")
    (clone / "data/shapes/lone").mkdir()
    run = snakemake(clone, SUMMARY, "-n", configs=EXAMPLE)
    line = "data/shapes/lone: no picture in it"
    assert run.code != 0 and line in run.output and not run.started
    shutil.rmtree(clone / "data/shapes/lone")
    run = snakemake(clone, "download", "--cores", "1", configs=EXAMPLE)
    log = (clone / "results/shapes/logs/download.log").read_text()
    assert run.code != 0 and log.splitlines()[-1].startswith(
        "error: data/shapes/square/0002.png: not a readable picture ("
    )
    assert documented(log) and "Traceback" not in log


def test_the_guide_is_true(pristine, tmp_path):
    clone = copy_tree(pristine, tmp_path / "offramp")
    text = GUIDE.read_text()
    assert len(text.splitlines()) <= 50
    [python] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.M)
    subprocess.run([sys.executable, "-c", python], cwd=clone, check=True)
    photos = [np.random.default_rng(i).integers(0, 256, (9, 9, 3), np.uint8) for i in range(40)]
    for i, photo in enumerate(photos):
        place = clone / "photos" / ("cat" if i % 2 else "dog") / ("a" if i % 3 else ".")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(place / f"{i}.png")
    for number, config in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.M)):
        name = config_file(clone, f"guide{number}.yaml", yaml.safe_load(config))
        few = config_file(clone, "few.yaml", {"batch_size": 8, "train": {"batch_size": 8}})
        run = succeed(clone, "download", "--cores", "1", configs=(name, few))
        assert run.jobs == {"download": 1}
    [data] = (clone / "data").glob("arrays-*")
    assert np.load(data / "train_images.npy").shape == (400, 32, 32, 3)
