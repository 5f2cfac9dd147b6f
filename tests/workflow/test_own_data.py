"""Data of the user's own through the pipeline: the example, the guide, and what runs again."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import documented
from PIL import Image
from workflow_helpers import ROOT, config_file, copy_tree, snakemake, succeed

from offramp.commands import answers, picture
from offramp.data.datasets import dataset_of_tables
from offramp.tables.files import origin_of
from offramp.training.purpose import purpose_of

pytest_plugins = ["workflow_helpers"]

FEW = {"train": {"epochs": 1}, "batch_size": 32}
EXAMPLE = ("examples/folder.yaml", "few.yaml")
LOGITS, SUMMARY = "results/shapes/logits/test.parquet", "results/shapes/summary.md"
GUIDE = ROOT / "docs/guides/own-data.md"


@pytest.fixture(scope="module")
def example(pristine, tmp_path_factory):
    """The example at small size, up to the logits, after which nothing asks what a sample is; to
    look at."""
    clone = copy_tree(pristine, tmp_path_factory.mktemp("shapes") / "offramp")
    script = [sys.executable, "examples/folder_pictures.py", "data/shapes", "40"]
    subprocess.run(script, cwd=clone, check=True)
    config_file(clone, "few.yaml", FEW)
    succeed(clone, LOGITS, "--cores", "2", configs=EXAMPLE)
    return clone


def test_a_folder_of_pictures_goes_through_to_the_logits(example):
    [data] = (example / "data").glob("folder-*")
    images = np.load(data / "all_images.npy", mmap_mode="r")
    assert images.shape == (120, 32, 32, 3)
    table = pq.read_table(example / LOGITS)
    origin = origin_of(table)
    assert origin["dataset"] == data.name and len(table) == 24
    assert dataset_of_tables(origin).names == ("disc", "square", "triangle")
    assert answers.names_of(origin, 3) == ("disc", "square", "triangle")
    labels = np.load(data / "all_labels.npy")
    assert (labels[table["sample_id"].to_numpy()] == table["label"].to_numpy()).all()
    curves = pq.read_table(example / "results/shapes/training.parquet")
    assert purpose_of(example / "results/shapes/training.parquet")["dataset.name"] == data.name
    assert len(curves) == 6


def test_a_sample_of_own_data_can_be_looked_at(example, monkeypatch):
    monkeypatch.chdir(example)
    sample = int(pq.read_table(LOGITS)["sample_id"][5].as_py())
    [data] = (example / "data").glob("folder-*")
    image = answers.image_of(example / "results/shapes", "test", sample)
    np.testing.assert_array_equal(image, np.load(data / "all_images.npy")[sample])
    assert len(picture.drawn(image, colours=False).splitlines()) == 16


def test_only_a_changed_picture_makes_anything_run_again(example, tmp_path):
    clone = copy_tree(example, tmp_path / "offramp")
    shutil.move(clone / "data/shapes", clone / "data/moved")
    (clone / "data/moved/disc/0001.png").touch()
    moved = config_file(clone, "moved.yaml", {"dataset": {"path": "data/moved"}})
    assert succeed(clone, LOGITS, "-n", configs=(*EXAMPLE, moved)).jobs == {}
    Image.new("RGB", (40, 40)).save(clone / "data/moved/disc/0001.png")
    run = snakemake(clone, LOGITS, "-n", configs=(*EXAMPLE, moved))
    assert run.code != 0 and "would be deleted and trained anew" in run.output
    assert 'dataset.name: "folder-' in run.output
    moved = config_file(clone, "moved.yaml", {"dataset": {"path": "data/moved"}, "retrain": True})
    jobs = succeed(clone, LOGITS, "-n", configs=(*EXAMPLE, moved)).jobs
    assert jobs == {"download": 1, "train": 1, "logits": 1}


def test_wrong_pictures_stop_the_run_with_their_line(example, tmp_path):
    clone = copy_tree(example, tmp_path / "offramp")
    configs = (*EXAMPLE, config_file(clone, "other.yaml", {"results": "results/other"}))
    (clone / "data/shapes/square/0002.png").write_bytes(b"not a picture")
    (clone / "data/shapes/lone").mkdir()
    run = snakemake(clone, SUMMARY, "-n", configs=configs)
    line = "data/shapes/lone: no picture in it"
    assert run.code != 0 and line in run.output and not run.started
    shutil.rmtree(clone / "data/shapes/lone")
    run = snakemake(clone, "download", "--cores", "1", configs=configs)
    log = (clone / "results/other/logs/download.log").read_text()
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
        how = ["--cores", "1"] if number else ["-n"]
        assert succeed(clone, "download", *how, configs=(name, few)).jobs == {"download": 1}
    [data] = (clone / "data").glob("arrays-*")
    assert np.load(data / "train_images.npy").shape == (400, 32, 32, 3)
