"""A policy in one's own code: what it answers, to what, and what it refuses."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import documented, some_weights, toy_images, toy_network

from offramp import Cascade, OfframpError
from offramp.data.datasets import DATASETS
from offramp.inference.cascade import run_cascade
from offramp.inference.deployed import prepared
from offramp.networks.loading import load
from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.policy import Policy, exits_of, policy_scores

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "docs/record/branchynet/policies/best.json"
WEIGHTS = ROOT / "weights/branchynet.safetensors"
CPU = torch.device("cpu")
# Noise, flat and dark pictures, so that several exits are taken.
PIXELS = np.random.default_rng(5).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
PIXELS[4:8] = PIXELS[4:8, :1, :1]
PIXELS[8:] //= 4


@pytest.fixture(scope="module")
def cascade():
    return Cascade.load(POLICY)


@pytest.fixture(scope="module")
def wanted():
    """label, exit and score of each sample, by the tables' way from the logits of all exits."""
    network = load("branchynet", 10, WEIGHTS, CPU)
    thresholds = tuple(json.loads(POLICY.read_text())["thresholds"])
    with torch.inference_mode():
        x = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
        logits = torch.stack(network(x), 1).numpy()
    scores = scores_of("entropy", logits)
    exits = exits_of(scores, thresholds)
    rows = np.arange(len(logits)), exits - 1
    assert len(set(exits)) > 1
    return logits.argmax(2)[rows], exits, scores[rows]


def check(answers, wanted, rows=slice(None)):
    label, exit_, score = (np.asarray(value) for value in answers)
    assert label.tolist() == wanted[0][rows].tolist()
    assert exit_.tolist() == wanted[1][rows].tolist()
    np.testing.assert_allclose(score, wanted[2][rows], atol=1e-5)


FLOATS = np.float32(PIXELS) / np.float32(255)
FORMS = {
    "uint8 array": PIXELS,
    "read-only array": np.frombuffer(PIXELS.tobytes(), dtype=np.uint8).reshape(PIXELS.shape),
    "channels first": PIXELS.transpose(0, 3, 1, 2),
    "doubles": FLOATS.astype(">f8"),
    "list of arrays": list(PIXELS),
    "uint8 tensor": torch.from_numpy(PIXELS),
    "float tensor": torch.from_numpy(FLOATS).permute(0, 3, 1, 2).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_in_any_usual_form_gets_the_answers_of_the_tables(cascade, wanted, form):
    answers = cascade(FORMS[form])
    kind = torch.Tensor if "tensor" in form else np.ndarray
    assert all(isinstance(value, kind) for value in answers)
    check(answers, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_a_single_sample_gets_plain_numbers(cascade, wanted, form):
    answers = cascade(FORMS[form][8])
    assert [type(value) for value in answers] == [int, int, float]
    check(answers, wanted, 8)


def test_no_sample_gets_no_answer(cascade):
    assert [len(value) for value in cascade(PIXELS[:0])] == [0, 0, 0]


def test_images_are_prepared_as_the_pipeline_does():
    x, one = prepared(PIXELS, CPU)
    assert torch.equal(x, torch.from_numpy(PIXELS).permute(0, 3, 1, 2).to(torch.float32) / 255)
    assert x.is_contiguous(memory_format=torch.channels_last) and not one


TABLE = DATASETS["cifar10"]._replace(name="table", shape=(4,), dtype="float32")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.zeros((3, 5)), "inputs: want one of 4, or a batch of them, not 3 x 5"),
        (np.zeros((3, 4)) > 0, "inputs: want float32, not bool"),
        (np.full((3, 4), np.nan), "inputs: want finite numbers, found NaN or infinity"),
        ([[1, 2, 3, 4], [1]], "inputs: of different shapes, or no numbers; want one shape"),
        (["a"], "inputs: of different shapes, or no numbers"),
    ],
)
def test_inputs_that_are_none_of_the_dataset_are_refused(inputs, words):
    with pytest.raises(OfframpError) as caught:
        prepared(inputs, CPU, TABLE)
    assert str(caught.value).startswith(words) and documented(str(caught.value))
    x, one = prepared(np.arange(4), CPU, TABLE)
    assert one and x.tolist() == [[0, 1, 2, 3]] and x.dtype == torch.float32
    whole = TABLE._replace(dtype="int64")
    with pytest.raises(OfframpError, match="inputs: want int64, not float64"):
        prepared(np.zeros((3, 4)), CPU, whole)


def test_threads_may_share_a_cascade(cascade, wanted):
    rows = [slice(start % 9, start % 9 + 3) for start in range(60)]
    with ThreadPoolExecutor(6) as pool:
        for some, answers in zip(rows, pool.map(lambda r: cascade(PIXELS[r]), rows), strict=True):
            check(answers, wanted, some)


@pytest.mark.parametrize("criterion", CRITERIA)
@torch.inference_mode()
def test_scores_are_those_of_the_exit_that_was_taken(criterion):
    network, images = toy_network(4, seed=4), toy_images(24, seed=1)
    logits = torch.stack(network(images), dim=1).numpy()
    blank = Policy(criterion, (None,) * 3, (0.5, 1.0, 3.0), some_weights(criterion, 3, 10))
    known = policy_scores(blank, logits)
    first, second, _ = (known.min(axis=0) + 1e-3).tolist()
    kind = CRITERIA[criterion]  # at exit 1 there is nothing to look back at
    policy = blank._replace(thresholds=(None if kind.looks_back else first, second, None))
    scores = torch.full((24,), -7.0, dtype=torch.float64)
    _, exits = run_cascade(network, policy, images, scores)
    for i, exit_ in enumerate(exits.tolist()):
        want = known[i, exit_ - 1] if exit_ < 4 else 0.0 if kind.fitted else np.nan
        if exit_ == 4 and not (kind.fitted or kind.looks_back):
            want = scores_of(criterion, logits[i : i + 1])[0, 3]
        assert scores[i].item() == pytest.approx(want, abs=1e-5, nan_ok=True)
    assert set(exits.tolist()) > {4}


def test_the_core_is_enough():
    """Whatever torch and numpy import themselves is there; nothing else of the pipeline is."""
    code = """
import torch, torch.onnx, torch._dynamo, numpy, safetensors.torch, sys
known = {name.split(".")[0] for name in sys.modules} - set(PIPELINE)
class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in PIPELINE or top not in known | {"offramp"} | set(sys.stdlib_module_names):
            raise ModuleNotFoundError("not of the core: " + name)
for name in PIPELINE:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Blocked())
from offramp import Cascade
print(Cascade.load(sys.argv[1])(numpy.zeros((2, 32, 32, 3), "uint8")).exit)
"""
    pipeline = ["pyarrow", "snakemake", "joblib", "scipy", "sklearn", "pandas", "jsonschema"]
    pipeline += ["yaml", "click", "torchvision", "onnxruntime", "matplotlib", "tqdm", "kneed"]
    code = f"PIPELINE = {pipeline}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(POLICY)],
        capture_output=True, text=True, cwd=ROOT / "scripts",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


@pytest.mark.parametrize("place", ["policies", "model", "weights"])
def test_weights_are_found_wherever_they_usually_lie(tmp_path, place):
    results = tmp_path / "results/mine"
    policy = results / "policies/best.json"
    policy.parent.mkdir(parents=True)
    policy.write_bytes(POLICY.read_bytes())
    folder = tmp_path / "weights" if place == "weights" else results / place
    folder.mkdir(exist_ok=True)
    (folder / "a.safetensors").write_bytes(b"other weights")
    (folder / "some name.safetensors").write_bytes(WEIGHTS.read_bytes())
    assert len(Cascade.load(policy).network.heads) == 6


def changed(tmp_path, **fields):
    about = json.loads(POLICY.read_text()) | fields
    (tmp_path / "policy.json").write_text(json.dumps(about))
    return tmp_path / "policy.json"


def refusal(call) -> str:
    with pytest.raises(OfframpError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_policy_of_another_network_is_refused_by_name():
    said = refusal(lambda: Cascade.load(POLICY, weights=ROOT / "weights/cpunet.safetensors"))
    assert "best.json: chosen for branchynet with" in said and "(cpunet with" in said
    assert documented(said)


def test_a_policy_whose_weights_are_nowhere_says_which_it_wants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal(lambda: Cascade.load(changed(tmp_path)))
    assert "branchynet with weights of sha256 3cf8fac64221; no such weights" in said
    assert documented(said)


def test_a_policy_names_its_weights_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "far/away/net.pt").write_bytes(WEIGHTS.read_bytes())
    origin = json.loads(POLICY.read_text())["provenance"]
    network = {"name": "branchynet", "weights": "far/away/net.pt"}
    network["weights_sha256"] = origin["weights_sha256"]
    cascade = Cascade.load(changed(tmp_path, network=network))
    assert cascade.network.identity.weights == "far/away/net.pt"


def test_what_a_policy_must_say_of_its_network(tmp_path):
    origin = json.loads(POLICY.read_text())["provenance"]
    for fields, words in (
        ({"provenance": None, "network": None}, "provenance: does not say the model"),
        (
            {"provenance": origin | {"model": "mine.py:make"}, "network": None},
            "mine.py:make, a network of your own, and a policy file runs no code",
        ),
        (
            {"provenance": origin | {"model": "mine"}, "network": None},
            "network 'mine', which is",
        ),
        ({"provenance": origin | {"dataset": "arrays"}}, "dataset 'arrays', which is none"),
        ({"thresholds": [0.5] * 3}, "3 thresholds, where branchynet has 5 side exits"),
    ):
        path = changed(tmp_path, **fields)
        said = refusal(lambda path=path: Cascade.load(path, weights=WEIGHTS))
        assert words in said and "policy.json: " in said
    said = refusal(lambda: Cascade.load(POLICY, weights=tmp_path / "none.safetensors"))
    assert said == f"{tmp_path}/none.safetensors: no such file"


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda:99", "cuda:99 is not available"), ("gpu", "'gpu' is none of auto"), ("cpu:x", "none")],
)
def test_a_device_that_is_not_there_is_refused(device, words):
    assert words in refusal(lambda: Cascade.load(POLICY, device=device))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (PIXELS.astype(int), "want uint8 in 0..255 or floats in 0..1, not int64"),
        (torch.from_numpy(PIXELS).int(), "not torch.int32"),
        (PIXELS.astype(float), "in 0..1 (pixels / 255), found 0 to 255"),
        (FLOATS - 0.5, "found -0.5 to 0.5"),
        (np.where(FLOATS > 0.9, np.nan, FLOATS), "found nan to nan"),
        (PIXELS[:, :16], "or a batch of them, not 12 x 16 x 32 x 3"),
        (PIXELS[0, 0], "not 32 x 3"),
        (PIXELS[None], "not 1 x 12 x 32 x 32 x 3"),
        ([PIXELS[0], PIXELS[1, :9]], "of different shapes"),
        ("cat.png", "not <U7"),
    ],
)
def test_images_that_are_none_are_refused(cascade, images, words):
    said = refusal(lambda: cascade(images))
    assert said.startswith("images: ") and words in said
    assert documented(said)
