"""Networks that were given exits, wherever a network is run: trained, tables, live, exported."""

import numpy as np
import pytest
import torch
import yaml
from conftest import ORIGIN, documented
from test_own_examples import CPU, EXAMPLES, PICTURES, SETTINGS, samples_of

from offramp import OfframpError
from offramp.common.hashing import sha256
from offramp.data.datasets import text_of
from offramp.data.splits import Split, blank
from offramp.inference.backends import for_inference
from offramp.inference.cascade import run_cascade
from offramp.inference.deployed import Cascade
from offramp.inference.export import export
from offramp.inference.forward import dump_split
from offramp.inference.probe import probe
from offramp.inference.runner import Runner
from offramp.inference.verification import cases_of, verify
from offramp.networks.identity import Identity
from offramp.networks.loading import build, load, save
from offramp.networks.own.splitting import SplitNetwork
from offramp.scoring.policy import Policy, load_policy, policy_scores, save_policy
from offramp.tables.files import read_logits
from offramp.thresholds.time_model import fit_time_model
from offramp.training.training import train

# A network of someone's own: batch norm, dropout, a residual branch that is cut, an aside that only
# training has, a tensor of its own, and something in place.
FILE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes=3, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 5, 4)
        self.norm, self.drop = nn.BatchNorm2d(width), nn.Dropout(0.5)
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.shift = nn.Parameter(torch.randn(1, width, 1, 1))
        self.aside, self.fc = nn.Linear(width, 2), nn.Linear(width, classes)

    def forward(self, x):
        x = self.drop(self.relu(self.norm(self.stem(x))))
        x = self.relu(self.b(self.a(x)) + x + self.shift)
        return self.fc(x.reshape(x.size(0), x.size(1), -1).mean(2))


def head(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))


class OfSeveral(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        assert shape == ((8, 7, 7), (8, 7, 7))
        self.fc = nn.Linear(16, classes)

    def forward(self, x):
        return self.fc(torch.cat(x, 1).mean((2, 3)))


def number(shape, classes):
    return 5
"""
EXITS = ["stem", "a"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(FILE)
    return folder


def model_in(place, head="pooled", **more) -> dict:
    return {"name": f"{place}/net.py:Net", "options": {}, "exits": EXITS, "head": head, **more}


def splits(monkeypatch, train=192, val=64, test=128) -> list[Split]:
    pixels, labels = samples_of("pictures", train + val + test, monkeypatch)
    ends = np.cumsum([train, val, test])
    rows = [np.arange(end - n, end) for end, n in zip(ends, (train, val, test), strict=True)]
    return [Split(pixels, labels[part], part) for part in rows]


def trained(model, monkeypatch, tmp_path, **settings):
    training, validation, _ = splits(monkeypatch)
    pools = {"train": 192, "val": 64, "test": 128}
    text = text_of(PICTURES._replace(pools=pools))
    settings = {**SETTINGS, "epochs": 1, **settings}
    resume = tmp_path / "resume.pt"
    network, _ = train(model, text, training, validation, settings, CPU, resume)
    return network


@pytest.mark.parametrize("trunk", ["frozen", "joint"])
def test_a_frozen_trunk_stays_as_it_is_bit_for_bit(place, tmp_path, monkeypatch, trunk):
    torch.manual_seed(SETTINGS["seed"])
    before = build(model_in(place), 3, blank(PICTURES, 3)).state_dict()
    before = {name: value.clone() for name, value in before.items()}
    after = trained(model_in(place), monkeypatch, tmp_path, trunk=trunk).state_dict()
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    of_trunk = {name for name in before if name.startswith("trunk.")}
    learned = {name for name in before if "aside" not in name}
    assert same == (of_trunk if trunk == "frozen" else before.keys() - learned)


def test_heads_of_any_kind_learn(place, tmp_path, monkeypatch):
    """A few epochs on a frozen trunk beat chance at each exit with a head of its own."""
    _, _, test = splits(monkeypatch)
    x = torch.from_numpy(test.images[test.order]).permute(0, 3, 1, 2) / 255
    kinds = {
        "pooled": EXITS, "convolution": EXITS, f"{place}/net.py:head": ["norm"],
        f"{place}/net.py:OfSeveral": ["a"],
    }  # fmt: skip
    for kind, exits in kinds.items():
        model = model_in(place, kind) | {"exits": exits}
        fast = {"epochs": 8, "learning_rate": {"convolutions": 0.1, "others": 0.1}}
        network = trained(model, monkeypatch, tmp_path, trunk="frozen", **fast)
        (tmp_path / "resume.pt").unlink()
        with torch.no_grad():
            for logits in network(x)[:-1]:
                right = (logits.argmax(1).numpy() == test.labels).mean()
                assert right > 0.5, (kind, right)


def test_it_is_loaded_proved_live_and_exported(place, tmp_path, monkeypatch):
    model = model_in(place)
    network = trained(model, monkeypatch, tmp_path, trunk="joint")
    save(network, tmp_path / "w.safetensors", {})
    _, _, test = splits(monkeypatch)
    few = blank(PICTURES, 3)
    again = load(model, 3, tmp_path / "w.safetensors", CPU, few)
    assert isinstance(again, SplitNetwork)
    again = for_inference(again, "eager", few[:2])
    path = str(tmp_path / "logits.parquet")
    dump_split(again, test, "test", 3, 32, CPU, path, ORIGIN | {"split": "test"})
    logits = read_logits(path).logits
    scores = policy_scores(Policy("entropy", (None,) * 2), logits)
    about = Identity("net.py:Net", "w.safetensors", sha256(tmp_path / "w.safetensors"))
    thresholds = tuple(np.quantile(scores, 0.4, axis=0).tolist())
    policy = Policy("entropy", thresholds, network=about)
    origin = {"dataset": "arrays", "known": text_of(PICTURES), "model": "net.py:Net"}
    save_policy(tmp_path / "best.json", policy, provenance=origin)
    cases = cases_of([str(tmp_path / "best.json")], logits)
    clock = fit_time_model(probe(again, policy, test, 32, CPU), 32)
    rows = verify(again, cases, test, logits, clock, CPU).to_pylist()
    assert all(row["differ"] == row["excused"] for row in rows)
    assert all(row["n_live"] for row in rows if row["policy"] == "best")

    fresh = build(model, 3, few)
    export(tmp_path / "best.json", None, tmp_path / "export", fresh)
    pictures = test.images[test.order]
    labels, exits, _ = Runner(tmp_path / "export")(pictures)
    wanted = Cascade.load(tmp_path / "best.json", network=build(model, 3, few))(pictures)
    assert (exits == wanted.exit).mean() > 0.98 and (labels == wanted.label).mean() > 0.98
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    live, _ = run_cascade(again, load_policy(tmp_path / "best.json"), x)
    assert (live.numpy() == wanted.label).all()


def test_the_example_adds_exits_to_a_trained_resnet18(tmp_path, monkeypatch):
    plain = yaml.safe_load((EXAMPLES / "resnet18_plain.yaml").read_text())["model"]
    plain["name"] = f"{EXAMPLES}/{plain['name']}"
    whole = trained(plain, monkeypatch, tmp_path)
    save(whole, tmp_path / "plain.safetensors", {})
    config = yaml.safe_load((EXAMPLES / "resnet18.yaml").read_text())
    model = {**config["model"], "options": {"file": str(tmp_path / "plain.safetensors")}}
    model["name"] = f"{EXAMPLES}/{model['name']}"
    network = trained(model, monkeypatch, tmp_path, trunk=config["train"]["trunk"])
    _, _, test = splits(monkeypatch)
    x = torch.from_numpy(test.images[test.order]).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        assert (network(x)[-1] - whole(x)[-1]).abs().max() <= 1e-5
    assert len(network.heads) == 4


def test_weights_of_the_network_without_exits_are_told(place, tmp_path):
    network = build(model_in(place), 3, blank(PICTURES, 3))
    torch.save(network.trunk.state_dict(), tmp_path / "trunk.pt")
    with pytest.raises(OfframpError) as error:
        load(model_in(place), 3, tmp_path / "trunk.pt", CPU, blank(PICTURES, 3))
    assert documented(str(error.value))
    assert "these are its weights without exits" in str(error.value)


def test_what_can_not_get_exits_is_told(place):
    for model in (
        model_in(place) | {"name": f"{place}/net.py:number", "options": {"shape": 1, "classes": 2}},
        model_in(place, f"{place}/net.py:number"),
        model_in(place, f"{place}/net.py:Net"),
    ):
        with pytest.raises(OfframpError) as error:
            build(model, 3, blank(PICTURES, 3))
        assert documented(str(error.value)), str(error.value)
    with pytest.raises(OfframpError, match=r"model\.exits"):
        build("torchvision.models:resnet18", 3)
