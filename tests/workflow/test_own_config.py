"""What the config says of own logits and costs, as `check_config` takes and refuses it."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import documented
from jinja2 import Template

from offramp import OfframpError
from offramp.report.captions import NOT_LIVE, caption
from offramp.workflow.config import check_config
from offramp.workflow.own import splits_of

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
FILES = {"val": "v.npz", "test": "t.npz"}
COSTS = {"up_to": [1, 2, 3.5], "unit": "ms"}
PARTS = {"blocks": [0, 0], "heads": [1, 2], "unit": "ms"}
# What the schema says of a key by itself is its own words.
BY_SCHEMA = ("required property", "unknown key", "is not of type", "does not match")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("v.npz", "t.npz", "n.npz", "a.npy", "b.npy", "l.parquet", "c.parquet"):
        (tmp_path / name).write_bytes(b"")
    for name in ("logits/val.parquet", "logits/test.parquet", "timings.parquet"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(b"")
    (tmp_path / "half").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("logits", "costs", "splits"),
    [
        (FILES, COSTS, ("val", "test")),
        (FILES | {"train": None}, PARTS, ("val", "test")),
        (FILES | {"train": "n.npz"}, "c.parquet", ("train", "val", "test")),
        ({"val": {"logits": "a.npy", "labels": "b.npy"}, "test": "l.parquet"}, COSTS, None),
        ("run", None, ("val", "test")),
    ],
)
def test_own_logits_need_no_network_and_no_data(folder, logits, costs, splits):
    """The weights that config.yaml names are not there, and need not be."""
    check_config({**CONFIG, "logits": logits, "costs": costs}, SCHEMA)
    assert splits_of(logits) == (splits or ("val", "test"))


def test_a_run_with_a_train_split_has_one(folder):
    (folder / "run/logits/train.parquet").write_bytes(b"")
    assert splits_of("run") == splits_of(None) == ("train", "val", "test")


@pytest.mark.parametrize(
    ("logits", "costs", "words"),
    [
        ({"val": "v.npz"}, COSTS, "logits: 'test' is a required property"),
        ({**FILES, "tets": "t.npz"}, COSTS, "logits.tets: unknown key; did you mean test?"),
        ({**FILES, "val": "no.npz"}, COSTS, "logits.val: no file no.npz"),
        (
            {**FILES, "val": "a.npy"},
            COSTS,
            "logits.val: a.npy: want an .npz with logits and labels",
        ),
        ({**FILES, "val": ["v.npz"]}, COSTS, "logits.val: want a file, or {logits: a.npy"),
        (
            {**FILES, "val": {"logits": "a.npy"}},
            COSTS,
            "logits.val: want a file, or {logits: a.npy",
        ),
        (
            {**FILES, "val": {"logits": "a.npy", "labels": "v.npz"}},
            COSTS,
            "logits.val.labels: v.npz",
        ),
        ({**FILES, "train": "no.npz"}, COSTS, "logits.train: no file no.npz"),
        ("nowhere", None, "logits: no results folder nowhere; name the folder of a finished run"),
        ("half", None, "logits: half has no logits/val.parquet; run its config first"),
        ("results/", None, "logits: results is this config's own results folder"),
        ("run", COSTS, "costs: the timings of run count; leave this out"),
        (None, COSTS, "costs: these belong to own logits, and logits is null"),
        (FILES, None, "costs: missing; say what a sample costs"),
        (FILES, "no.parquet", "costs: no file no.parquet"),
        (FILES, "v.npz", "costs: v.npz: want a timings table (.parquet)"),
        (FILES, {"up_to": [1, 2]}, "costs: 'unit' is a required property"),
        (FILES, {"unit": "s"}, "costs: want blocks and heads, a number per exit each, or up_to"),
        (FILES, COSTS | PARTS, "costs: want blocks and heads, a number per exit each, or up_to"),
        (FILES, {"heads": [1, 2], "unit": "s"}, "costs: want blocks and heads"),
        (FILES, COSTS | {"up_to": [1, 1, 2]}, "costs.up_to: 1 at index 1 isn't above the 1 before"),
        (FILES, COSTS | {"up_to": [0, 1]}, "costs.up_to: 0 at index 0 isn't above the 0 before"),
        (FILES, COSTS | {"up_to": [1, -2]}, "costs.up_to: -2 at index 1; want finite numbers"),
        (FILES, COSTS | {"up_to": [1, float("inf")]}, "costs.up_to.1: want a finite number"),
        (FILES, COSTS | {"up_to": [float("nan"), 1]}, "costs.up_to.0: want a finite number"),
        (
            FILES,
            COSTS | {"up_to": [1, 1e300]},
            "costs.up_to: 1e+300 at index 1; want finite numbers",
        ),
        (FILES, COSTS | {"up_to": [1, "2"]}, "costs.up_to.1: want a finite number"),
        (FILES, PARTS | {"heads": [1]}, "costs: 2 blocks and 1 heads; want one number per exit"),
        (FILES, PARTS | {"heads": [1, 0]}, "costs: block and head at index 1 both cost 0"),
        (FILES, PARTS | {"blocks": [-1, 0]}, "costs.blocks: -1 at index 0; want finite numbers"),
        (FILES, PARTS | {"unit": ""}, "costs.unit: "),
        (FILES, PARTS | {"unit": "a | b"}, "costs.unit: "),
    ],
)
def test_wrong_logits_and_costs_are_refused_by_the_key(folder, logits, costs, words):
    with pytest.raises(OfframpError) as caught:
        check_config({**CONFIG, "logits": logits, "costs": costs}, SCHEMA)
    lines = str(caught.value).splitlines()[1:]
    if logits is None:  # a network's weights count, which are not there
        lines = [line for line in lines if not line.startswith("  model.weights")]
    assert [line for line in lines if words in line]
    assert all(line.startswith(("  logits", "  costs")) for line in lines)
    assert all(documented(line) for line in lines) or any(word in lines[0] for word in BY_SCHEMA)


def test_folders_to_compare_must_be_finished(folder):
    for name in ("run", "half"):
        (folder / name / "summary.json").write_text("{}")
    check_config({**CONFIG, "logits": "run", "compare": ["run", "half/", "results"]}, SCHEMA)
    (folder / "half/summary.json").unlink()
    with pytest.raises(OfframpError) as caught:
        check_config({**CONFIG, "logits": "run", "compare": ["run", "half"]}, SCHEMA)
    assert "compare: half has no summary.json; run its config first" in str(caught.value)
    assert documented(str(caught.value))


def test_captions_claim_nothing_live_of_own_logits():
    template = Template((ROOT / "rules/captions/workflow.rst").read_text())
    texts = [
        template.render(snakemake=SimpleNamespace(config={**CONFIG, **more}))
        for more in ({}, {"logits": None}, {"logits": FILES}, {"logits": "run"})
    ]
    assert "live" in texts[0] and "live" in texts[1]
    for text in texts[2:]:
        assert "live" not in text.replace("nothing was run live here", "")
        assert "branchynet" not in text and "cifar10" not in text
    assert "live" in caption("time_accuracy", True, True)
    for name in (*NOT_LIVE, "targets"):
        assert not re.search("live|training", caption(name, False, False))
