"""The guides to using a policy, as a reader follows them, and the rule `export` that they run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from workflow_helpers import EXITS, RESULTS, ROOT, SPLITS, copy_tree, succeed
from workflow_tables import frame, metadata, read

from offramp.scoring.policy import load_policy, outcome_of_tables
from offramp.tables.files import read_logits

pytest_plugins = ["workflow_helpers"]
pytestmark = pytest.mark.xdist_group("guides")  # one export serves all

GUIDES = {name: (ROOT / f"docs/guides/{name}.md") for name in ("python", "export", "command-line")}
IMPORTABLE = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}


@pytest.fixture(scope="module")
def clone(finished, tmp_path_factory):
    """A clone with a finished run, where the best policy was exported by its rule."""
    folder = copy_tree(finished, tmp_path_factory.mktemp("guides") / "clone")
    run = succeed(folder, f"{RESULTS}/export.parquet", "--cores", "2")
    assert run.jobs == {"export": 1}
    return folder


@pytest.fixture(scope="module")
def place(clone):
    """A reader's folder: the run's results and data as a default run has them, and some images."""
    folder = clone.parent / "reader"
    folder.mkdir()
    (folder / "results").symlink_to(clone / RESULTS)
    (folder / "data").symlink_to(clone / "data")
    images = np.load(clone / "data/digits/all_images.npy")[:300]
    np.save(folder / "images.npy", images)
    Image.fromarray(images[0]).save(folder / "cat.png")
    Image.fromarray(images[1]).resize((90, 60)).save(folder / "ship.jpg")
    return folder


def snippets(guide: Path) -> str:
    """The Python of a guide, in one."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.M))


def commands(guide: Path) -> list[str]:
    """The command lines of a guide, but for those of the pipeline itself."""
    text = re.sub(r"^```.*?^```", "", guide.read_text(), flags=re.DOTALL | re.M)
    return re.findall(r"^ {4,}((?:offramp (?!run|from-logits)|python ).*)$", text, re.M)


@pytest.mark.parametrize("name", ["python", "export"])
def test_the_python_of_a_guide_runs(place, name):
    done = subprocess.run(
        [sys.executable, "-c", snippets(GUIDES[name])],
        cwd=place, env=IMPORTABLE, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(("name", "count"), [("export", 1), ("command-line", 7)])
def test_the_commands_of_a_guide_run(place, name, count):
    lines = commands(GUIDES[name])
    assert len(lines) == count
    sample = read(place.parent / "clone", "logits/test")["sample_id"][0].as_py()
    for line in lines:
        program, *arguments = shlex.split(line.replace("1000", str(sample)))
        start = ["-m", "offramp.commands.main"] if program == "offramp" else []
        done = subprocess.run(
            [sys.executable, *start, *arguments],
            cwd=place, env=IMPORTABLE, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, line + done.stderr
        if "--json" in arguments:
            json.loads(done.stdout)


def test_the_command_line_runs_the_pipeline(clone):
    command = [sys.executable, "-m", "offramp.commands.main", "run", f"{RESULTS}/sweep.parquet"]
    command += ["-n", "-c", "examples/digits.yaml", "-c", "small.yaml"]
    done = subprocess.run(command, cwd=clone, env=IMPORTABLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr


def test_saved_logits_are_answered_by_the_line_of_the_guide(clone):
    draw = np.random.default_rng(2)
    for name in ("val", "test"):
        label = draw.integers(0, 3, 300)
        logits = draw.normal(0, 1, (300, 4, 3)).astype(np.float32)
        logits[np.arange(300), :, label] += np.array([1, 2, 3, 4], np.float32)
        np.savez(clone / f"{name}.npz", logits=logits, labels=label)
    [line] = re.findall(r"^ {4}offramp (from-logits .*)$", GUIDES["command-line"].read_text(), re.M)
    command = [sys.executable, "-m", "offramp.commands.main", *shlex.split(line)]
    done = subprocess.run(command, cwd=clone, env=IMPORTABLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((clone / "results/own/summary.json").read_text())
    assert summary["about"]["unit"] == "ms" and not summary["about"]["ran_live"]
    assert "Nothing was run live here" in (clone / "results/own/summary.md").read_text()
    wrong = subprocess.run(
        [*command[:-4], "--costs", "1,1"], cwd=clone, env=IMPORTABLE, capture_output=True, text=True
    )
    assert wrong.returncode != 0 and "Traceback" not in wrong.stderr
    assert "exits" in wrong.stdout + wrong.stderr


def test_the_exported_folder_alone_gives_what_the_tables_say(clone, tmp_path):
    """Where neither torch nor the project can be imported."""
    test = read_logits(clone / RESULTS / "logits/test.parquet")
    images = np.load(clone / "data/digits/all_images.npy")[test.sample_id]
    np.save(tmp_path / "in.npy", images)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'offramp', 'onnx'): sys.modules[name] = None\n"
    )
    command = [sys.executable, clone / RESULTS / "export/run.py", "in.npy", "out.npz"]
    alone = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    policy = load_policy(clone / RESULTS / "policies/best.json")
    want = outcome_of_tables(policy, test.logits)
    measured = json.loads((clone / RESULTS / "export/manifest.json").read_text())["measured"]
    assert (found["exits"] != want.exits).sum() <= measured["excused"]
    assert (found["labels"] != want.labels).sum() <= measured["excused"]
    assert measured["n"] == SPLITS["test"] and measured["differ"] == measured["excused"]
    assert measured["exits"] == np.bincount(found["exits"], minlength=EXITS + 1)[1:].tolist()
    assert measured["accuracy"] == pytest.approx((found["labels"] == test.label).mean())


def test_the_export_is_timed_beside_torch_and_one_file(clone):
    rows = frame(clone, "export")
    for size in (1, 32, 256):
        here = rows[rows["batch_size"] == size]
        assert set(here["contender"]) == {"export", "torch", "full_onnx"}
        assert (here["seconds"] > 0).all() and here["contender"].value_counts().nunique() == 1
    assert metadata(clone, "export")["split"] == "test"
    assert int(metadata(clone, "export")["threads"]) >= 1
