"""What a config says of a network of one's own: where its file is, and what is wrong with it."""

import json
import os
from pathlib import Path

import pytest
import yaml
from conftest import documented
from snakemake.utils import update_config
from workflow_helpers import ROOT

from offramp import OfframpError
from offramp.workflow import code
from offramp.workflow.config import check_config

SCHEMA = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
DEFAULTS = yaml.safe_load((ROOT / "config.yaml").read_text())
NET = "def net(classes, width=3): pass\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with a factory's file in a folder, beside its config."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/net.py").write_text(NET)
    return tmp_path


def model(name="net.py:net", **more):
    return {"model": {"name": name, "weights": "train"} | more, "dataset": {"name": "digits"}}


def checked(settings, given=None, *, file="mine/net.yaml"):
    """The config of a file with these settings."""
    Path(file).write_text(yaml.safe_dump(settings))
    config = {}
    update_config(config, settings)
    update_config(config, given or {})
    defaults = yaml.safe_load(yaml.safe_dump(DEFAULTS))
    check_config(config, SCHEMA, defaults, given or {}, str, [ROOT / "config.yaml", file])
    return config


def refusal(settings, given=None) -> list[str]:
    with pytest.raises(OfframpError) as caught:
        checked(settings, given)
    lines = str(caught.value).splitlines()[1:]
    assert all(documented(line) for line in lines), lines
    return lines


def test_a_factorys_file_is_looked_for_beside_the_config_that_names_it(here):
    assert checked(model())["model"]["name"] == "mine/net.py:net"
    absolute = checked(model(), file=f"{here}/mine/net.yaml")["model"]["name"]
    assert absolute == "mine/net.py:net"
    os.chdir(here / "mine")
    assert checked(model(), file="net.yaml")["model"]["name"] == "net.py:net"
    found = checked(model("./../mine//net.py:net"), file="net.yaml")["model"]["name"]
    assert found == "../mine/net.py:net"
    os.chdir(here.parent)
    found = checked(model(), file=f"{here}/mine/net.yaml")["model"]["name"]
    assert found == f"{here.name}/mine/net.py:net"
    found = checked(model(f"{here}/mine/net.py:net"), file=f"{here}/a.yaml")["model"]["name"]
    assert found in (f"{here}/mine/net.py:net", f"{here.name}/mine/net.py:net")


def test_one_of_the_command_line_is_looked_for_here():
    given = {"model": {"name": "mine/net.py:net"}}
    assert checked(model("other.py:net"), given)["model"]["name"] == "mine/net.py:net"


def test_a_module_is_named_as_it_is_imported():
    assert checked(model("torchvision.models:resnet18"))["model"]["name"].startswith("torchvision")


def test_options_of_the_command_line_are_numbers_where_they_look_so():
    given = {"model": {"options": {"width": "5", "names": ["1", "a"], "on": "true"}}}
    options = checked(model(options={"width": 3, "depth": 2}), given)["model"]["options"]
    assert options == {"width": 5, "depth": 2, "names": [1, "a"], "on": True}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (model("absent.py:net"), "model.name: mine/absent.py is not there"),
        (model("net.py:"), "is no factory"),
        (model("net.py:other"), "mine/net.py has no other; it has net"),
        (model("absent.nets:net"), "no module absent.nets can be found"),
        (model("my net"), "cpunet_static, or a factory of your own, path/to/file.py:name, not"),
        (model("net.py"), "not 'net.py'"),
        (model(3), "model.name: want text, not 3"),
        (model("branchynet", options={"width": 2}), "model.options: branchynet has none"),
        (model("branchynet", weights="none"), "none is for a factory that loads its own"),
        (model(options=[3]), "model.options: want keys with values"),
        (model(options={1: 2}), "model.options: want text as a key, not 1"),
        (
            model(options={"since": yaml.safe_load("2020-01-01")}),
            "model.options.since: want text, numbers, true, false, null, lists or keys",
        ),
        (model(options={"a": {"b": [{2: 3}]}}), "model.options.a.b: want text as a key, not 2"),
        (model(weights="absent.pt"), "model.weights: absent.pt is not there"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_told_before_any_job(settings, words):
    [line] = refusal(settings)
    assert words in line


def test_a_file_that_is_no_python_is_told_by_its_line(here):
    (here / "mine/net.py").write_text("\n\ndef net(:\n")
    assert "mine/net.py: line 3: " in refusal(model())[0]


def test_weights_may_be_none_of_a_file_here():
    assert checked(model(weights="none"))["model"]["weights"] == "none"


def digest(name) -> str:
    for known in (code.imported, code.factory_files, code.factory_digest):
        known.cache_clear()
    return code.model_of({"name": name, "options": {}, "weights": "x"})["code"]


def test_an_edit_of_the_file_or_what_lies_beside_it_counts(here):
    net, beside, inner = here / "mine/net.py", here / "mine/parts.py", here / "mine/more/deep.py"
    inner.parent.mkdir()
    net.write_text("import numpy\nfrom parts import a\n")
    beside.write_text("import more.deep\n")
    inner.write_text("")
    (here / "mine/idle.py").write_text("")
    before = digest("mine/net.py:net")
    for file in (net, beside, inner):
        text = file.read_text()
        file.write_text(text + "# edited\n")
        assert digest("mine/net.py:net") != before
        file.write_text(text)
        assert digest("mine/net.py:net") == before
    (here / "mine/idle.py").write_text("# edited\n")
    beside.write_text(beside.read_text())
    assert digest("mine/net.py:net") == before
    beside.write_text("no python (\n")
    assert digest("mine/net.py:net") != before


def test_all_of_a_package_counts(here, monkeypatch):
    (here / "pack/inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/net.py", "other.py"):
        (here / "pack" / file).write_text(NET)
    monkeypatch.syspath_prepend(str(here))
    for name in ("pack:net", "pack.inner:net", "pack.inner.net:net"):
        before = digest(name)
        (here / "pack/other.py").write_text(NET + "# edited\n")
        assert digest(name) != before
        (here / "pack/other.py").write_text(NET)
        assert digest(name) == before
    (here / "alone.py").write_text(NET)
    before = digest("alone:net")
    (here / "net.py").write_text("# another\n")
    assert digest("alone:net") == before


def test_a_network_of_the_project_has_no_code_of_its_own():
    assert code.model_of({"name": "branchynet", "options": {}, "weights": "w"}) == {
        "name": "branchynet", "options": {},
    }  # fmt: skip
    assert json.dumps(code.model_of({"name": "mine/net.py:net", "options": {}, "weights": "w"}))


def test_weights_that_ship_are_not_those_of_a_network_of_ones_own():
    [line] = refusal({"model": {"name": "net.py:net"}, "dataset": {"name": "digits"}})
    assert line.strip().startswith("model.weights: ") and "which ships, is not of" in line
    assert "mine/net.py:net; name a file of its own, train, or none" in line
