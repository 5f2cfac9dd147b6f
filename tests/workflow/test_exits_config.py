"""Exits on an existing network: what a config says of them, and the guide as it is followed."""

import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from conftest import documented
from workflow_helpers import ROOT, config_file, copy_tree, succeed

from offramp import OfframpError
from offramp.tables.files import read_logits
from offramp.training.purpose import changes, purpose_now
from offramp.workflow.code import model_of
from offramp.workflow.config import check_config

pytest_plugins = ["workflow_helpers"]
SCHEMA = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
DEFAULTS = yaml.safe_load((ROOT / "config.yaml").read_text())
GUIDE = ROOT / "docs/guides/exits-on-your-network.md"
FILE = "def net(classes): pass\ndef head(shape, classes): pass\n"
FACTORY = {"name": "net.py:net", "weights": "train"}
WITH_EXITS = {**FACTORY, "exits": ["a", "b"]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/net.py").write_text(FILE)
    return tmp_path


def checked(model, **train):
    """The whole config of a file beside net.py."""
    config = {"model": dict(model), "dataset": {"name": "digits"}, "train": train}
    with open("mine/net.yaml", "w") as file:
        yaml.safe_dump(config, file)
    check_config(config, SCHEMA, DEFAULTS, files=["mine/net.yaml"])
    return config


def test_keys_of_exits_are_taken_and_count(here):
    config = checked(WITH_EXITS | {"head": "net.py:head"}, trunk="frozen")
    assert config["model"]["head"] == "mine/net.py:head"
    was, code = purpose_now(config), model_of(config["model"])["code"]
    assert (was["model.exits"], was["train.trunk"]) == (["a", "b"], "frozen")
    for model, train in (
        (WITH_EXITS | {"head": "net.py:head", "exits": ["a", "c"]}, {"trunk": "frozen"}),
        (WITH_EXITS, {"trunk": "frozen"}),
        (WITH_EXITS | {"head": "net.py:head"}, {}),
    ):
        assert changes(was, purpose_now(checked(model, **train)))
    (here / "head.py").write_text("def head(shape, classes): return 1\n")
    model_of.__globals__["factory_digest"].cache_clear()
    other = {**config["model"], "head": "head.py:head"}
    assert model_of(other)["code"] != code


WRONG = [
    ({"name": "branchynet", "weights": "train", "exits": ["conv1"]}, {}),
    ({**FACTORY, "head": "convolution"}, {}),
    ({**WITH_EXITS, "weights": "none"}, {}),
    ({"name": "branchynet", "weights": "train"}, {"trunk": "frozen"}),
    ({**WITH_EXITS, "head": "net.py:nothing"}, {}),
    ({**WITH_EXITS, "head": "dense"}, {}),
    ({**WITH_EXITS, "exits": "a"}, {}),
    ({**WITH_EXITS, "exits": []}, {}),
    ({**WITH_EXITS, "exits": ["a", "a"]}, {}),
    (WITH_EXITS, {"exit_weights": [1, 1]}),
    (WITH_EXITS, {"trunk": "cold"}),
]


@pytest.mark.parametrize(("model", "train"), WRONG)
def test_keys_of_exits_that_do_not_fit_are_refused(here, model, train):
    with pytest.raises(OfframpError) as error:
        checked(model, **train)
    [line] = str(error.value).splitlines()[1:]
    print(line)
    assert documented(line)


SMALL = {"train": {"epochs": 1}, "batch_size": 64, "sweep": {"cutoffs": 10}}
CONFIGS = ("mine/mine.yaml", "small.yaml")
TABLE = "results/mine/logits/test.parquet"


@pytest.fixture(scope="module")
def clone(pristine, tmp_path_factory):
    """The lines of the guide in a folder, with weights for the network in it."""
    folder = copy_tree(pristine, tmp_path_factory.mktemp("exits") / "offramp")
    (folder / "mine").mkdir()
    for kind, end in (("python", "py"), ("yaml", "yaml")):
        [lines] = re.findall(rf"^```{kind}\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.M)
        (folder / f"mine/mine.{end}").write_text(lines)
    make = (
        "import sys, torch; sys.path.insert(0, 'mine'); from mine import Mine; "
        "torch.manual_seed(3); torch.save(Mine(10).state_dict(), 'mine.pth')"
    )
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)
    config_file(folder, "small.yaml", SMALL)
    return folder


def test_the_guide_gives_exits_to_a_network_whose_answers_stay(clone):
    assert len(GUIDE.read_text().splitlines()) <= 50
    succeed(clone, TABLE, "--cores", "2", configs=CONFIGS)
    script = (
        "import sys, numpy, torch; sys.path.insert(0, 'mine'); from mine import mine; "
        "net = mine(10, 'mine.pth').eval(); x = torch.from_numpy(numpy.load(sys.argv[1]))\n"
        "with torch.no_grad(): numpy.save('own.npy', net(x.permute(0, 3, 1, 2) / 255).numpy())"
    )
    pictures = "data/digits/all_images.npy"
    subprocess.run([sys.executable, "-c", script, pictures], cwd=clone, check=True)
    test = read_logits(clone / TABLE)
    own = np.load(clone / "own.npy")[test.sample_id]
    assert test.logits.shape[1] == 3
    assert np.abs(test.logits[:, -1] - own).max() <= 1e-5
