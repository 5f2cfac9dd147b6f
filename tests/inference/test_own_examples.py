"""The examples with features that are tuples, trained a little: the live cascade against tables."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ORIGIN

from offramp.data.datasets import DATASETS, text_of
from offramp.data.splits import Split
from offramp.inference.backends import for_inference
from offramp.inference.forward import dump_split
from offramp.inference.probe import probe
from offramp.inference.verification import cases_of, verify
from offramp.scoring.policy import Policy, policy_scores, save_policy
from offramp.tables.files import read_logits
from offramp.thresholds.time_model import fit_time_model
from offramp.training.training import train

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "epochs": 2,
    "batch_size": 32,
    "learning_rate": {"convolutions": 0.05, "others": 0.004},
    "exit_weights": None,
    "distillation": 0.5,
    "shift": 0,
    "cutout": 0,
    "precision": "fp32",
    "seed": 1,
}
PICTURES = DATASETS["digits"]._replace(
    name="arrays", names=tuple("abc"), pools={"train": 256, "val": 64, "test": 128}, test=0.0,
    shape=(32, 32, 3),
)  # fmt: skip
TOKENS = PICTURES._replace(names=tuple("abcd"), shape=(16,), dtype="int64")
MODELS = {
    "multiscale.py:MultiScale": {"steps": [1, 2, 1], "growth": 4},
    "transformer.py:Encoder": {"layers": 3, "width": 16},
}


def samples_of(name: str, count: int, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels, harder and easier ones."""
    draw = np.random.default_rng(5)
    if name.startswith("transformer"):
        monkeypatch.syspath_prepend(str(EXAMPLES))
        import transformer

        found = transformer.sentences(count, draw)
        sys.modules.pop("transformer")
        return found["inputs"], found["labels"]
    labels = np.arange(count) % 3
    bright = 90 + 20 * labels + draw.normal(0, 12, count)
    pixels = bright[:, None, None, None] + draw.normal(0, 25, (count, 32, 32, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


@pytest.mark.parametrize("name", MODELS)
def test_live_and_tables_agree_on_every_sample(tmp_path, monkeypatch, name):
    dataset = TOKENS if name.startswith("transformer") else PICTURES
    inputs, labels = samples_of(name, 448, monkeypatch)
    parts = np.arange(256), np.arange(256, 320), np.arange(320, 448)
    training, validation, test = (Split(inputs, labels[rows], rows) for rows in parts)
    model = {"name": f"{EXAMPLES}/{name}", "options": MODELS[name]}
    network, _ = train(
        model, text_of(dataset), training, validation, SETTINGS, CPU, tmp_path / "resume.pt"
    )
    network = for_inference(network, "eager")
    path = str(tmp_path / "logits.parquet")
    dump_split(network, test, "test", dataset.classes, 32, CPU, path, ORIGIN | {"split": "test"})
    known = read_logits(path)
    scores = policy_scores(Policy("entropy", (None,) * 2), known.logits)
    policy = Policy("entropy", tuple(np.quantile(scores, 0.4, axis=0).tolist()))
    save_policy(tmp_path / "best.json", policy)
    cases = cases_of([str(tmp_path / "best.json")], known.logits)
    model = fit_time_model(probe(network, policy, test, 32, CPU), 32)
    rows = verify(network, cases, test, known.logits, model, CPU).to_pylist()
    assert all(row["differ"] == row["excused"] for row in rows)
    left = [row["n_live"] for row in rows if row["policy"] == "best"]
    assert left[0] == 128 and all(left[1:])
