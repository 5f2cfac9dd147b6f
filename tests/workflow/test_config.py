"""A config is checked once, before any job: every key, every path, with the way out."""

import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import documented
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snakemake.utils import update_config
from workflow_helpers import (
    CONFIGS,
    RESULTS,
    ROOT,
    config_file,
    snakemake,
    succeed,
)

from offramp import OfframpError
from offramp.networks.index import EXITS, recipe_of
from offramp.networks.loading import NETWORKS, build
from offramp.workflow.config import check_config
from offramp.workflow.faults import training_faults
from offramp.workflow.paths import OWN, normal
from offramp.workflow.schema import keys_given_twice

pytest_plugins = ["workflow_helpers"]

SCHEMA = yaml.safe_load((ROOT / "rules/config.schema.yaml").read_text())
DEFAULTS = yaml.safe_load((ROOT / "config.yaml").read_text())
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory that is not the project's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(settings=None, given=None, prefixed=str):
    """The config that results from settings and from nested values given on the command line."""
    config = {}
    update_config(config, settings or {})
    update_config(config, given or {})
    check_config(config, SCHEMA, yaml.safe_load(yaml.safe_dump(DEFAULTS)), given or {}, prefixed)
    return config


def refusal(settings=None, **more):
    with pytest.raises(OfframpError) as caught:
        checked(settings, **more)
    assert str(caught.value).startswith("the config is wrong:\n")
    return str(caught.value).splitlines()[1:]


def test_the_config_that_ships_is_taken_as_it_is():
    config = checked()
    weights = str(ROOT / DEFAULTS["model"]["weights"])
    filled = {
        "model": DEFAULTS["model"] | {"weights": weights},
        "train": recipe_of(DEFAULTS["model"]["name"]),
    }
    assert config == DEFAULTS | filled


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"batch_size": 64.0}, "batch_size: want a whole number, not 64.0; write 64"),
        ({"train": {"seed": True}}, "train.seed: want a whole number, not True"),
        ({"threads": 2.0}, "threads: want a whole number or null, not 2.0; write 2"),
        ({"dataset": {"validation": 5.0}}, "not 5.0; write 5"),
        ({"sweep": {"cutoffs": 100.0}}, "or a list of numbers, not 100.0; write 100"),
        ({"selection": {"max_drop": NAN}}, "selection.max_drop: want a finite number, not nan"),
        ({"calibration": {"target": NAN}}, "calibration.target: want a finite number, not nan"),
        ({"train": {"distillation": INF}}, "train.distillation: want a finite number, not inf"),
        ({"train": {"learning_rate": {"others": NAN}}}, "train.learning_rate.others: want a fin"),
        ({"train": {"exit_weights": [1, INF]}}, "train.exit_weights.1: want a finite number"),
        ({"sweep": {"cutoffs": [0.1, NAN]}}, "sweep.cutoffs: want a count of at least 2"),
        ({"sweep": {"report_cutoff": 10**400}}, "sweep.report_cutoff: want a finite number"),
        ({"selection": {"max_drop": "5e-3"}}, "want a finite number, not '5e-3'; write 0.005"),
        ({"train": {"learning_rate": {"others": "5e-7"}}}, "not '5e-7'; write 5.0e-07"),
        ({"batch_size": "1e2"}, "batch_size: want a whole number, not '1e2'; write 100"),
        ({"sweep": {"cutoffs": ["0.1", "5e-1"]}}, "write [0.1, 0.5]"),
        ({"results": None}, "results: want text, not None"),
        ({"retrain": "true"}, "retrain: want true or false, not 'true'; write true"),
        ({"results": 2024}, "results: want text, not 2024; write '2024'"),
        ({"sweep": {"cutoffs": 10**9}}, "at least 2 and at most 100000"),
        ({"sweep": {"cutoffs": 1}}, "at least 2 and at most 100000"),
        ({"train": {"seed": 2**62}}, "greater than the maximum of 4294967295"),
        ({"train": {"epochs": 10**9}}, "greater than the maximum of 100000"),
        ({"threads": 10**6}, "greater than the maximum of 1024"),
        ({"dataset": {"validation": 0}}, "dataset.validation: 0 is less than the minimum of 1"),
        ({"swep": {"cutoffs": 5}}, "swep: unknown key; did you mean sweep?"),
        ({"sweep": {"cutofs": 5}}, "sweep.cutofs: unknown key; did you mean cutoffs?"),
        ({"sweep": {"cutoffs": [0.5, -0.1]}}, "sweep.cutoffs: -0.1 is outside the range"),
        ({"sweep": {"report_cutoff": 2.4}}, "sweep.report_cutoff: 2.4 is outside the range of en"),
        (
            {"criterion": "margin", "sweep": {"report_cutoff": 1.5}},
            "sweep.report_cutoff: 1.5 is outside the range of margin with 10 classes, 0 to 1",
        ),
        (
            {
                "criterion": "deferral",
                "sweep": {"report_cutoff": 0.05},
                "calibration": {"temperatures": True},
            },
            "calibration.temperatures: deferral is itself fitted to the logits as they are; set",
        ),
        ({"criterion": "entropie"}, "criterion: 'entropie' is not one of ['entropy', 'max_pro"),
        ({"dataset": {"name": "cifar1"}}, "dataset.name: 'cifar1' is not one of ['cifar10'"),
        ({"train": {"exit_weights": [0, 0]}}, "train.exit_weights: want one number per exit, not"),
        ({"calibration": {"targets": [0.5, 1.5]}}, "calibration.targets.1: 1.5 is greater than"),
        ({"rival": "cpunet_static"}, "baseline: want keys with values or null, not 'cpunet_s"),
        (
            {"baseline": {"name": "branchynet", "weights": "nowhere/r.pt"}},
            "baseline.weights: nowhere/r.pt is not there, nor is such a file beside the Snakefile",
        ),
        ({1: 2, None: 3, "sweep": {5: 1}}, "sweep.5: unknown key; known: cutoffs, report_cutoff"),
        ({"dataset": None}, "dataset: want keys with values, not None"),
        ({"baseline": {"name": "cpunet"}}, "baseline: 'weights' is a required property"),
        ({"batch_size": "x" * 9999}, "batch_size: want a whole number, not 'xxx"),
        (
            {"model": {"weights": "train"}, "train": {"exit_weights": [1] * 5}},
            "train.exit_weights: 5 numbers, but branchynet has 6 exits; give one per exit",
        ),
        (
            {
                "model": {"weights": "train"},
                "dataset": {"validation": 1},
                "train": {"batch_size": 2},
            },
            "train.batch_size: 49999 training samples in batches of 2 leave a batch of one, from",
        ),
        (
            {"criterion": "energy"},
            "sweep.report_cutoff: 0.6 is no cutoff of energy, whose scores are negative",
        ),
        (
            {"criterion": "deferral", "dataset": {"validation": 5}},
            "dataset.validation: 5 samples are too few for the criterion deferral, which is fitted",
        ),
        ({"dataset": {"validation": 50_000}}, "dataset.validation: 50000 samples leave none"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key_with_the_way_out(settings, line):
    found = refusal(settings)
    said = [each for each in found if line in each]
    assert len(said) == 1, found
    assert max(map(len, found)) < 450
    assert documented(said[0])


def test_all_that_is_wrong_is_said_at_once():
    settings = {
        "results": "..",
        "batch_size": 2.5,
        "criterion": "energy",
        "train": {"seed": -1, "exit_weights": [1]},
        "model": {"weights": "nowhere.pt"},
        "nobody": 1,
    }
    keys = {line.split(":")[0].strip() for line in refusal(settings)}
    assert keys == {
        *("results", "batch_size", "sweep.report_cutoff", "train.seed", "model.weights", "nobody")
    }


def test_a_recipe_of_another_network_matters_only_to_those_who_train():
    weights = "weights/cpunet_static.safetensors"
    six = {"exit_weights": [1] * 6}
    config = checked({"model": {"name": "cpunet_static", "weights": weights}, "train": six})
    [line] = training_faults(config)
    assert line.startswith("train.exit_weights: 6 numbers, but cpunet_static has 1 exits")


@pytest.mark.parametrize("name", EXITS)
def test_a_network_brings_its_recipe_and_the_config_overrides_it(name):
    model = {"name": name, "weights": "train"}
    assert checked({"model": model})["train"] == recipe_of(name)
    found = checked({"model": model, "train": {"learning_rate": {"others": 0.5}, "epochs": 3}})
    want = recipe_of(name)
    assert found["train"] == want | {
        "epochs": 3,
        "learning_rate": want["learning_rate"] | {"others": 0.5},
    }
    assert list(training_faults(found)) == []


def test_how_many_exits_a_network_has_is_known_without_it():
    assert {name: len(build(name, 10).heads) for name in NETWORKS} == EXITS


def test_nested_values_of_the_command_line_are_what_they_say():
    given = {
        "sweep": {"cutoffs": "5", "report_cutoff": "5e-1"},
        "train": {"exit_weights": ["1", "0.5", *"1111"], "learning_rate": {"others": "1"}},
        "calibration": {"temperatures": "true", "targets": ["0.5", "1"]},
        "dataset": {"validation": "null"},
        "baseline": "null",
    }  # fmt: skip
    config = checked({"train": {"seed": 7}}, given)
    assert config["sweep"] == {"cutoffs": 5, "report_cutoff": 0.5}
    assert config["train"]["exit_weights"] == [1, 0.5, 1, 1, 1, 1] and config["train"]["seed"] == 7
    assert config["calibration"]["temperatures"] is True
    assert config["calibration"]["targets"] == [0.5, 1]
    assert config["dataset"]["validation"] is None and config["baseline"] is None
    [line] = refusal({}, given={"batch_size": "many"})
    assert line == "  batch_size: want a whole number, not 'many'"


def test_a_batch_is_never_larger_than_the_largest_split(capsys):
    assert checked({"batch_size": 10**6})["batch_size"] == 45_000
    said = "batch_size: 1000000 is more than any split of cifar10 has; 45000 is taken"
    assert said in capsys.readouterr().err


def test_a_key_written_twice_is_named_with_both_lines(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("sweep:\n  cutoffs: 5\n  cutoffs: 6\nbatch_size: 1\nsweep: {}\n")
    found = list(keys_given_twice(file))
    assert found == [
        f"sweep: twice in {file}, in lines 1 and 5; keep one",
        f"sweep.cutoffs: twice in {file}, in lines 2 and 3; keep one",
    ]
    assert all(documented(line) for line in found)
    file.write_text("a: &x {b: 1}\nc: {<<: *x, d: *x}\n<<: *x\n")
    assert list(keys_given_twice(file)) == []
    file.write_text("a: [")
    assert list(keys_given_twice(file)) == []
    for shipped in [ROOT / "config.yaml", *(ROOT / "examples").glob("*.yaml")]:
        assert list(keys_given_twice(shipped)) == []


# Paths


@pytest.mark.parametrize(
    "path, wanted",
    [
        ("results", "results"),
        ("results/", "results"),
        ("./a", "a"),
        ("a//b/./c/", "a/b/c"),
        ("a/../b", "b"),
        ("//a//b", "/a/b"),
        ('é ü/it\'s "$(x)"', 'é ü/it\'s "$(x)"'),
        ("https://a//b", "https://a//b"),
        (".", "."),
    ],
)
def test_a_path_has_one_form(path, wanted):
    assert normal(path) == wanted == normal(wanted)
    if not wanted.startswith((".", "http")):
        assert checked({"results": path})["results"] == wanted


def test_a_home_is_put_in_for_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert checked({"results": "~/out/"})["results"] == f"{tmp_path}/me/out"
    assert checked({"dataset": {"sources": ["~/a/"]}})["dataset"]["sources"] == [f"{tmp_path}/me/a"]
    [line] = refusal({"results": "~nobody-of-that-name/x"})
    assert "but no such home folder is known" in line


@pytest.mark.parametrize(
    "path, words",
    [
        ("a{b}", "has braces, which Snakemake takes for a wildcard"),
        ("a}", "has braces"),
        ("a<b>", "has a name in < and >"),
        ("a\nb", "has a control character"),
        ("a\0b", "has a control character"),
        ("a\udc80", "has bytes that are not UTF-8"),
        (" a", "has a blank before or after a name"),
        ("a /b", "has a blank before or after a name"),
        ("-n", "has a - in front"),
        ("s3://bucket/x", "is an address"),
        ("x" * 5000, "a path of 5,000 characters is too long"),
        ("x/" * 3000, "is too long"),
    ],
)
@pytest.mark.parametrize("key", ["results", "model.weights"])
def test_what_is_no_path_for_snakemake_is_refused_by_key(key, path, words):
    settings = {"results": path} if key == "results" else {"model": {"weights": path}}
    [line] = refusal(settings)
    assert line.startswith(f"  {key}: ") and words in line
    assert documented(line)


@pytest.mark.parametrize("path", ["/", "..", ".", "a/..", "~", str(ROOT), str(ROOT.parent)])
def test_results_may_not_be_what_holds_everything_else(path):
    [line] = refusal({"results": path})
    assert " itself, or a folder that it lies in; name a folder of its own" in line
    assert documented(line)


@pytest.mark.parametrize("path", ["docs", "rules/x", "scripts", ".git/x", "data", "data/digits"])
def test_results_may_not_lie_among_the_projects_own_files(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    [line] = refusal({"results": path})
    assert f"results: {path} is, or lies in, {path.split('/')[0]}, which holds other th" in line
    assert documented(line)


def test_results_may_not_reach_them_by_a_link_either(elsewhere):
    (elsewhere / "link").symlink_to(ROOT / "docs")
    assert "lies in, docs" in refusal({"results": "link/x"})[0]
    (elsewhere / "file").touch()
    assert f"{elsewhere}/file is a file" in refusal({"results": "file/x"})[0]
    (elsewhere / "ring").symlink_to(elsewhere / "ring")
    assert "ring/x can't be reached (Too many levels" in refusal({"results": "ring/x"})[0]
    (elsewhere / "far").symlink_to(elsewhere)
    assert checked({"results": "far/docs"})["results"] == "far/docs"


def test_every_folder_of_the_project_is_one_of_its_own():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    folders = {line.split("/")[0] for line in listed.splitlines() if "/" in line}
    assert "rules" in folders and folders - {"results"} <= OWN


def test_weights_are_those_here_before_those_beside_the_snakefile(elsewhere):
    name = "weights/cpunet.safetensors"
    model = {"model": {"name": "cpunet", "weights": f"./{name}"}}
    assert checked(model)["model"]["weights"] == str(ROOT / name)
    (elsewhere / "weights").mkdir()
    shutil.copy(ROOT / name, elsewhere / name)
    assert checked(model)["model"]["weights"] == name
    # No prefix of a module may come before it.
    under = checked(model, prefixed=lambda path: path if path.startswith("/") else f"sub/{path}")
    assert under["model"]["weights"] == str(elsewhere / name)
    [line] = refusal({"model": {"weights": "nowhere/net.pt"}})
    assert documented(line)


# As a user meets it


def test_from_another_folder_defaults_and_weights_are_the_clones(clone, elsewhere):
    (elsewhere / "a b").mkdir()
    mine = config_file(elsewhere / "a b", "config.yaml", {"results": "./é//out/"})
    assert mine
    run = snakemake(
        elsewhere / "a b", "./é/out/sweep.parquet", "-n", "-s", str(clone / "Snakefile"), configs=()
    )
    assert run.code == 0, run.output
    assert f"{clone}/weights/branchynet.safetensors" in run.output
    assert "output: é/out/sweep.parquet" in run.output and "output: data/cifar10" in run.output
    assert "starts with './'" not in run.output


MODULE = """
module offramp:
    snakefile: "{clone}/Snakefile"
    config: {config}
    prefix: "sub"
use rule * from offramp
"""


def test_as_a_module_with_a_prefix_a_training_is_found_under_it(tree, elsewhere):
    (elsewhere / "sub").symlink_to(tree)
    settings = {}
    for name in CONFIGS:
        update_config(settings, yaml.safe_load((tree / name).read_text()))
    target = f"sub/{RESULTS}/training.parquet"
    for seed, text in [(42, "Nothing to be done"), (43, "train.seed: 42 then, 43 now")]:
        settings["train"]["seed"] = seed
        (elsewhere / "Snakefile").write_text(MODULE.format(clone=tree, config=settings))
        run = snakemake(elsewhere, target, "-n", configs=())
        assert text in run.output, run.output
    assert f"sub/{RESULTS}/model/weights.safetensors would be deleted" in run.output


def test_what_is_given_twice_or_by_the_command_line_counts_before_any_job(clone):
    (clone / "two.yaml").write_text("batch_size: 5\nbatch_size: 6\n")
    run = snakemake(clone, "-n", configs=["two.yaml"])
    assert run.code != 0 and "batch_size: twice in" in run.output
    run = succeed(clone, "-n", "--config", "sweep={cutoffs: 20}", "results=./out/", configs=())
    assert "output: out/sweep.parquet" in run.output and "starts with" not in run.output


def test_deleting_all_output_leaves_the_copy_of_a_training(tree):
    run = succeed(tree, "--delete-all-output", "--cores", "2")
    assert (
        documented("Deleting data/digits/all_images.npy") and "Deleting data/digits" in run.output
    )
    assert not list(tree.glob("data/digits/*"))
    assert (tree / RESULTS / "model/trained/weights.safetensors").exists()


# Whatever a config says


def places(node, path=()):
    """The path of every key of a config, sections and all in them."""
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "train", "5e-3", "64", "true", "null", "~/x", "./a//b/", "/", "..", "a{b}"]
    ),
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-2, 300), st.floats(), TEXTS,
    st.sampled_from(["cifar10", "digits", "deferral", "energy", "joint", 2**63, 1e300]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.integers(), inner),
    max_leaves=6,
)
EDITS = st.lists(
    st.tuples(st.sampled_from([*places(DEFAULTS), ("logits",), ("costs",), ("compare",)]), VALUES),
    min_size=1, max_size=3,
)  # fmt: skip


@settings(max_examples=800, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EDITS)
def test_any_config_is_taken_or_refused_by_key_in_short_lines(edits):
    config = yaml.safe_load(yaml.safe_dump(DEFAULTS))
    for path, value in edits:
        place = config
        for key in path[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[path[-1]] = value
    try:
        check_config(config, SCHEMA, yaml.safe_load(yaml.safe_dump(DEFAULTS)))
    except OfframpError as error:
        first, *lines = str(error).split("\n  ")
        assert first == "the config is wrong:" and lines
        for line in lines:
            key = re.match(r"[^:]*", line)[0]
            assert key.split(".")[0] in {*DEFAULTS, "logits", "costs", "compare", "config"}
            assert len(line) < 500
        return
    # What is taken is what the schema says, with numbers that can be reckoned with.
    numbers = [v for p in places(config) for v in [at(config, p)] if type(v) is float]
    assert all(map(math.isfinite, numbers))
    assert type(config["batch_size"]) is int and config["batch_size"] >= 1


def at(node, path):
    for key in path:
        node = node[key]
    return node


def test_what_may_not_be_read_or_written_is_named(elsewhere, monkeypatch):
    weights, mine = elsewhere / "net.safetensors", elsewhere / "mine"
    weights.touch()
    mine.mkdir()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: Path(p) not in (weights, mine) and access(p, mode)
    )
    [unread] = refusal({"model": {"weights": str(weights)}})
    assert "may not be read; mend its permissions" in unread and documented(unread)
    [unwritten] = refusal({"results": str(mine / "results")})
    assert "can't be written to" in unwritten and documented(unwritten)
