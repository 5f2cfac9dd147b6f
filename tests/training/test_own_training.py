"""Training of networks of one's own: any modules, any features, a loss that falls."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import documented

from offramp import OfframpError
from offramp.data.datasets import DATASETS, text_of
from offramp.data.splits import Split
from offramp.networks.loading import load, save
from offramp.training.purpose import changes, purpose
from offramp.training.training import train
from offramp.workflow import code

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": {"convolutions": 0.05, "others": 0.004},
    "exit_weights": None,
    "distillation": 0.5,
    "shift": 0,
    "cutout": 0,
    "precision": "fp32",
    "seed": 1,
}
TOKENS = DATASETS["digits"]._replace(
    name="arrays", names=tuple("abcd"), pools={"train": 640, "test": 64}, test=0.0,
    validation=64, shape=(16,), dtype="int64",
)  # fmt: skip


def split_of(inputs, labels, rows) -> Split:
    return Split(inputs, labels[rows], rows)


def sentences(monkeypatch) -> tuple[Split, Split]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import transformer

    made = transformer.sentences(704, np.random.default_rng(0))
    sys.modules.pop("transformer")
    inputs, labels = made["inputs"], made["labels"]
    return split_of(inputs, labels, np.arange(640)), split_of(inputs, labels, np.arange(640, 704))


def test_a_transformer_learns_and_its_weights_are_taken_again(tmp_path, monkeypatch):
    model = {"name": f"{EXAMPLES}/transformer.py:Encoder", "options": {"layers": 2, "width": 16}}
    splits, known = sentences(monkeypatch), text_of(TOKENS)
    network, curves = train(model, known, *splits, SETTINGS, CPU, tmp_path / "resume.pt")
    loss = np.array(curves["loss"].to_pylist()).reshape(3, 2)
    assert (loss[-1] < loss[0]).all()
    save(network, tmp_path / "w.safetensors", {})
    again = load(model, 4, tmp_path / "w.safetensors", CPU)
    x = torch.from_numpy(splits[1].images)
    assert all(map(torch.equal, network(x), again(x)))


def test_every_parameter_learns_whatever_its_axes(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "  def __init__(self, classes):\n"
        "    super().__init__()\n"
        "    self.blocks = nn.ModuleList([nn.Embedding(41, 8), Own()])\n"
        "    self.heads = nn.ModuleList([Head(classes), Head(classes)])\n"
        "class Own(nn.Module):\n"
        "  def __init__(self):\n"
        "    super().__init__()\n"
        "    self.four = nn.Parameter(torch.zeros(1, 1, 8, 8))\n"
        "    self.one = nn.Parameter(torch.zeros(()))\n"
        "    self.idle = nn.Parameter(torch.zeros(3), requires_grad=False)\n"
        "  def forward(self, x):\n"
        "    return x + x @ self.four[0, 0] + self.one\n"
        "class Head(nn.Linear):\n"
        "  def __init__(self, classes):\n"
        "    super().__init__(8, classes)\n"
        "  def forward(self, x):\n"
        "    return super().forward(x.mean(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    splits, once = sentences(monkeypatch), {**SETTINGS, "epochs": 1}
    network, _ = train("net.py:Net", text_of(TOKENS), *splits, once, CPU, tmp_path / "resume.pt")
    state = network.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    assert (
        state["blocks.1.four"].any() and state["blocks.1.one"] and not state["blocks.1.idle"].any()
    )


def refusal(tmp_path, monkeypatch, body, settings=SETTINGS) -> str:
    (tmp_path / "net.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OfframpError) as caught:
        train("net.py:Net", text_of(TOKENS), *sentences(monkeypatch), settings, CPU, "resume.pt")
    assert documented(str(caught.value))
    return str(caught.value)


def test_what_can_not_learn_is_refused_before_the_first_step(tmp_path, monkeypatch):
    one = (
        "import torch\nfrom torch import nn\n"
        "class Count(nn.Module):\n"
        "  def forward(self, x):\n"
        "    return torch.stack([(x == i).sum(1).float() for i in range({})], 1)\n"
        "class Net:\n  blocks, heads = [nn.Identity()], [Count()]\n"
    )
    assert "no parameters that learn" in refusal(tmp_path, monkeypatch, one.format(4))
    said = refusal(tmp_path, monkeypatch, one.format(5))
    assert "head 1 gives (4, 5) in float32 for 4 samples of 4 classes" in said
    assert not (tmp_path / "resume.pt").exists()


def test_a_training_is_of_its_factorys_statements_and_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = text_of(TOKENS)

    def now(text, options=None, beside="X = 1\n"):
        (tmp_path / "net.py").write_text(text)
        (tmp_path / "beside.py").write_text(beside)
        for known_by in (code.imported, code.factory_files, code.factory_digest):
            known_by.cache_clear()
        return purpose({"name": "net.py:Net", "options": options or {}}, known, None, SETTINGS)

    before = now("from beside import X\ndef Net(classes): pass\n")
    same = now("from beside import X\n# a comment\ndef Net(classes):\n    'words'\n    pass\n")
    assert changes(before, same) == []
    assert changes(before, now("from beside import X\ndef Net(classes): return 1\n"))
    assert changes(before, now("from beside import X\ndef Net(classes): pass\n", {"a": 1}))
    edited = now("from beside import X\ndef Net(classes): pass\n", beside="X = 2\n")
    assert [line.split(":")[0] for line in changes(before, edited)] == ["the network's code"]
