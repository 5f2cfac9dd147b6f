"""The exported folder: it runs by itself, as the cascade does, and refuses what was changed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import documented, some_weights, toy_network

from offramp import OfframpError
from offramp.common.hashing import sha256
from offramp.data.datasets import DATASETS
from offramp.data.splits import Split, load_images
from offramp.inference import deployed, exported
from offramp.inference import export as exporting
from offramp.inference.cascade import run_cascade
from offramp.inference.deployed import Cascade
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.policy import Policy, policy_scores, save_policy

pytestmark = pytest.mark.xdist_group("export")  # the fixture is costly: one worker makes it

EXITS, CLASSES = 4, 10
CPU = torch.device("cpu")
PIXELS = np.random.default_rng(3).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
ABOUT = {"provenance": {"model": "toy", "dataset": "digits", "weights_sha256": "a" * 64}}


@pytest.fixture(scope="module")
def network():
    return toy_network(EXITS, CLASSES, seed=4)


@pytest.fixture(scope="module")
def logits(network):
    with torch.inference_mode():
        return torch.stack(network(deployed.prepared(PIXELS, CPU)[0]), 1).numpy()


def policy_of(criterion: str, logits: np.ndarray) -> Policy:
    """One under which samples leave at exits 2 and 4, and at 1 if that can be; 3 is disabled."""
    weights = some_weights(criterion, EXITS - 1, CLASSES)
    blank = Policy(criterion, (None,) * (EXITS - 1), (0.5, 1.0, 3.0), weights)
    scores = policy_scores(blank, logits)
    first, second = (gap(scores[:, k]) for k in (0, 1))
    return blank._replace(
        thresholds=(None if CRITERIA[criterion].looks_back else first, second, None)
    )


NORMALISED = DATASETS["cifar10"]._replace(mean=(0.5, 0.25, 0.1), std=(0.5, 2.0, 1.0))
TOKENS = DATASETS["cifar10"]._replace(name="tokens", shape=(6,), dtype="int64")


class Words(MultiExitNetwork):
    """Two exits over token ids."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        embed, layer = torch.nn.EmbeddingBag(50, 8), torch.nn.Linear(8, 8)
        first, second = torch.nn.Linear(8, CLASSES), torch.nn.Linear(8, CLASSES)
        self.parts = torch.nn.ModuleList([embed, layer, first, second])
        self.blocks, self.heads = (embed, layer), (first, second)


@pytest.mark.parametrize(
    ("dataset", "inputs"),
    [
        (NORMALISED, PIXELS),
        (TOKENS, np.random.default_rng(1).integers(0, 50, (24, 6))),
    ],
)
def test_an_export_prepares_inputs_as_the_dataset_says(tmp_path, network, dataset, inputs):
    if dataset is TOKENS:
        network = Words().eval()
    x, one = deployed.prepared(inputs, CPU, dataset)
    split = Split(inputs, np.zeros(24, np.int64), np.arange(24), dataset.mean, dataset.std)
    assert torch.equal(x, load_images(split, slice(None), CPU)) and not one
    with torch.inference_mode():
        logits = torch.stack(network(x), 1).numpy()
    side = logits.shape[1] - 1
    first = gap(policy_scores(Policy("entropy", (None,) * side), logits)[:, 0])
    policy = Policy("entropy", (first, *(None,) * (side - 1)))
    save_policy(tmp_path / "policy.json", policy, **ABOUT)
    cascade = Cascade(network, policy, tuple("0123456789"), CPU, dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting.Cascade, "load", lambda *_, **__: cascade)
        exporting.export(tmp_path / "policy.json", None, tmp_path / "folder")
    proof = exported.prove(tmp_path / "folder", cascade, split, logits)
    assert proof["differ"] == 0 and 0 < proof["exits"][0] < 24
    answers, lone = cascade(inputs), cascade(inputs[3])
    assert np.bincount(answers.exit)[1] == proof["exits"][0] and lone.exit == answers.exit[3]
    floats = inputs / 255 if dataset.pictures else inputs.astype(np.int32)
    assert (cascade(floats).label == answers.label).all()
    told = json.loads((tmp_path / "folder/manifest.json").read_text())["input"]
    assert told["dtype"] == dataset.dtype and told["shape"] == ["N", *dataset.shape]


def gap(scores: np.ndarray) -> float:
    """A threshold amid the widest gap, so that no float noise matters."""
    ordered = np.unique(scores)
    place = np.diff(ordered)[: max(1, len(ordered) // 2)].argmax() if len(ordered) > 1 else 0
    return float(ordered[place : place + 2].mean())


@pytest.fixture(scope="module")
def folder(network, logits, tmp_path_factory):
    """An export of the toy network; stage 3 without logits."""
    base = tmp_path_factory.mktemp("export")
    policy = policy_of("entropy", logits)
    save_policy(base / "policy.json", policy, **ABOUT, expected={"accuracy": 0.5})
    cascade = Cascade(network, policy, tuple("0123456789"), CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting.Cascade, "load", lambda *_, **__: cascade)
        exporting.export(base / "policy.json", None, base / "folder")
    return base / "folder"


def run(folder: Path, images: np.ndarray, tmp_path: Path):
    """The runner as a program that finds numpy and onnxruntime, but neither torch nor offramp."""
    np.save(tmp_path / "in.npy", images)
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfor name in ('torch', 'offramp', 'onnx', 'pyarrow', 'scipy', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
    )
    return subprocess.run(
        [sys.executable, "-B", folder / "run.py", tmp_path / "in.npy", tmp_path / "out.npz"],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip


def with_policy(folder: Path, policy: Policy, tmp_path: Path) -> Path:
    """A copy of the folder under another policy of the same disabled exits."""
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    save_policy(other / "policy.json", policy, **ABOUT)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["sha256"]["policy.json"] = sha256(other / "policy.json")
    (other / "manifest.json").write_text(json.dumps(manifest))
    return other


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_folder_alone_gives_labels_exits_and_scores_of_the_cascade(
    folder, network, logits, tmp_path, criterion
):
    policy = policy_of(criterion, logits)
    done = run(with_policy(folder, policy, tmp_path), PIXELS, tmp_path)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stderr
    found = np.load(tmp_path / "out.npz")
    scores = torch.empty(len(PIXELS), dtype=torch.float64)
    labels, exits = run_cascade(network, policy, deployed.prepared(PIXELS, CPU)[0], scores)
    assert len(set(exits.tolist())) > 1
    assert found["exits"].tolist() == exits.tolist()
    assert found["labels"].tolist() == labels.tolist()
    np.testing.assert_allclose(found["scores"], scores.numpy(), atol=1e-4)
    assert [found[name].dtype for name in ("labels", "exits", "scores")] == [int, int, float]


def test_batches_of_every_size_are_taken(folder, logits, tmp_path):
    done = run(folder, PIXELS[:1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(np.load(tmp_path / "out.npz")["labels"]) == 1
    assert run(folder, PIXELS[:0], tmp_path).returncode == 0
    assert len(np.load(tmp_path / "out.npz")["labels"]) == 0
    assert run(folder, np.tile(PIXELS, (11, 1, 1, 1)), tmp_path).returncode == 0
    whole = np.load(tmp_path / "out.npz")["exits"].reshape(11, -1)  # more than a batch of 256
    assert (whole == whole[0]).all()


def test_the_runner_is_short_and_knows_nothing_of_the_project(folder):
    text = (folder / "run.py").read_text()
    assert len(text.splitlines()) <= 80
    assert "offramp" not in text and "torch" not in text


def test_the_manifest_says_all(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {file.name for file in folder.iterdir()} - {"manifest.json"}
    assert files == {f"stage_{k}.onnx" for k in range(1, 5)} | {
        "policy.json",
        "run.py",
        "criteria.py",
    }
    assert manifest["sha256"] == {name: sha256(folder / name) for name in files}
    assert manifest["opset"] >= 18 and manifest["expected"] == {"accuracy": 0.5}
    assert manifest["input"]["shape"] == ["N", 32, 32, 3]
    first, _, third, last = manifest["stages"]
    assert first["inputs"] == {"inputs": {"dtype": "float32", "shape": ["N", 3, 32, 32]}}
    assert first["outputs"]["logits"] == {"dtype": "float32", "shape": ["N", CLASSES]}
    assert list(first["outputs"]) == ["features", "logits"]
    assert list(third["outputs"]) == ["features"]  # disabled: its head is not there to cost
    assert list(last["outputs"]) == ["logits"]


@pytest.mark.parametrize("name", ["stage_2.onnx", "policy.json", "criteria.py"])
def test_a_changed_file_is_refused_by_name(folder, tmp_path, name):
    (tmp_path / "copy").mkdir()
    for file in folder.iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "copy" / name).open("ab") as file:
        file.write(b"\n")
    done = run(tmp_path / "copy", PIXELS, tmp_path)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"{name}: not what was exported" in done.stderr
    assert documented(done.stderr.replace(name, "stage_2.onnx"))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (PIXELS.astype(np.float32), "not float32 [24, 32, 32, 3]"),
        (PIXELS[:, :8], "want uint8 ['N', 32, 32, 3], not uint8 [24, 8, 32, 3]"),
    ],
)
def test_the_runner_refuses_what_is_no_image_in_one_line(folder, tmp_path, images, words):
    done = run(folder, images, tmp_path)
    assert done.returncode == 1 and words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "manifest", [None, "{}", "[1]", '{"made_by": "me", "sha256": {"mine.txt": ""}}', "an export's"]
)
def test_a_folder_with_other_files_is_not_written_over(folder, tmp_path, manifest):
    (tmp_path / "mine.txt").write_text("precious")
    if manifest == "an export's":
        manifest = (folder / "manifest.json").read_text()
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    policy = Path(__file__).parents[2] / "docs/record/branchynet/policies/best.json"
    with pytest.raises(OfframpError, match="holds other files; name a new folder") as error:
        exporting.export(policy, None, tmp_path)
    assert documented(str(error.value))
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_an_earlier_export_makes_room(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    exporting.make_room(tmp_path / "old")
    exporting.make_room(tmp_path / "new/one")
    assert not list((tmp_path / "old").iterdir()) and (tmp_path / "new/one").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(OfframpError, match="holds other files"):
        exporting.make_room(tmp_path / "file")


@pytest.fixture
def toy(folder, network, logits):
    cascade = Cascade(network, policy_of("entropy", logits), tuple("0123456789"), CPU)
    split = Split(PIXELS, logits[:, -1].argmax(1), np.arange(len(PIXELS)))
    return folder, cascade, split


def test_the_folder_is_proved_against_the_tables(toy, logits):
    proof = exported.prove(*toy, logits)
    assert proof["n"] == sum(proof["exits"]) == len(PIXELS) and proof["differ"] == 0
    with pytest.raises(OfframpError, match="the export, sample"):
        exported.prove(*toy, logits[::-1])


def test_the_race_times_everyone_alike_and_the_manifest_takes_it(
    toy, logits, monkeypatch, tmp_path
):
    monkeypatch.setattr(exported, "TIMED_BATCHES", {1: 3, 16: 2})
    seconds = exported.time_export(*toy, threads=1)
    rows = seconds.to_pylist()
    assert {row["contender"] for row in rows} == {"export", "torch", "full_onnx"}
    assert len(rows) == 3 * exported.REPEATS * (3 + 2)
    assert all(row["seconds"] > 0 for row in rows)
    other = with_policy(toy[0], toy[1].policy, tmp_path)
    exported.note_measured(other, {"n": 24}, seconds, {"threads": "1"})
    measured = json.loads((other / "manifest.json").read_text())["measured"]
    assert measured["n"] == 24 and measured["machine"] == {"threads": "1"}
    alone = [r["seconds"] for r in rows if (r["contender"], r["batch_size"]) == ("torch", 1)]
    assert measured["ms_per_batch"]["1"]["torch"] == pytest.approx(1000 * np.median(alone), rel=0.2)
