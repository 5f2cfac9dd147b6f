"""A network of one's own through the pipeline: the guide as a reader follows it, and examples."""

import json
import re
import subprocess
import sys

import pytest
from workflow_helpers import ROOT, config_file, copy_tree, snakemake, succeed

from offramp.networks.multiexit import MultiExit
from offramp.tables.files import origin_of, read
from offramp.training.purpose import purpose_of

pytest_plugins = ["workflow_helpers"]

GUIDE = ROOT / "docs/guides/own-network.md"
PROOF, BEST = "results/net/verification.parquet", "results/net/policies/best.json"
SMALL = {
    "train": {"epochs": 1},
    "batch_size": 64,
    "sweep": {"cutoffs": 10},
    "calibration": {"targets": [0.5, 0.9]},
}
CONFIGS = ("mine/net.yaml", "small.yaml")


@pytest.fixture(scope="module")
def clone(pristine, tmp_path_factory):
    """The lines of the guide in a folder, run to the live proof; to look at."""
    folder = copy_tree(pristine, tmp_path_factory.mktemp("own") / "offramp")
    text = GUIDE.read_text()
    (folder / "mine").mkdir()
    for kind, file in (("python", "net.py"), ("yaml", "net.yaml")):
        [lines] = re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.M)
        (folder / "mine" / file).write_text(lines)
    config_file(folder, "small.yaml", SMALL)
    run = succeed(folder, PROOF, BEST, "--cores", "2", configs=CONFIGS)
    (folder / "said.txt").write_text(run.output)
    return folder


def test_the_guide_is_short_and_ends_in_a_proof(clone):
    assert len(GUIDE.read_text().splitlines()) <= 50
    rows = read(clone / PROOF, "verification").to_pylist()
    assert all(row["differ"] == row["excused"] for row in rows)
    assert {row["exit"] for row in rows} == {0, 1, 2, 3}
    assert MultiExit.__name__ in GUIDE.read_text()


def test_the_run_says_once_and_first_whose_code_it_runs(clone):
    said = (clone / "said.txt").read_text()
    line = "Runs the code of your network: mine/net.py (mine/net.py:Net)"
    assert said.count(line) == said.count("Runs the code") == 1
    assert said.index(line) < said.index("rule download:")


def test_policies_and_tables_name_the_factory(clone):
    network = json.loads((clone / BEST).read_text())["network"]
    assert (network["name"], network["options"]) == ("mine/net.py:Net", {"width": 16})
    assert origin_of(read(clone / PROOF, "verification"))["model"] == "mine/net.py:Net"
    assert purpose_of(clone / "results/net/training.parquet")["model.options"] == {"width": 16}


def test_an_edit_of_the_factory_reruns_what_depends_on_it(clone, tmp_path):
    folder = copy_tree(clone, tmp_path / "offramp")
    assert succeed(folder, PROOF, "-n", configs=CONFIGS).jobs == {}
    net = folder / "mine/net.py"
    net.write_text("# edited\n" + net.read_text())
    jobs = succeed(folder, PROOF, "-n", configs=CONFIGS).jobs
    assert jobs["logits"] == 3 and jobs["verification"] == 1 and "train" not in jobs
    net.write_text(net.read_text().replace("nn.ReLU()", "nn.GELU()"))
    run = snakemake(folder, PROOF, "-n", configs=CONFIGS)
    assert run.code != 0 and "would be deleted and trained anew" in run.output
    assert "the network's code" in run.output
    other = config_file(folder, "other.yaml", {"model": {"options": {"width": 8}}, "retrain": True})
    jobs = succeed(folder, PROOF, "-n", configs=(*CONFIGS, other)).jobs
    assert jobs["train"] == 1 and jobs["logits"] == 3


def test_a_factory_may_load_its_own_weights(clone, tmp_path):
    folder = copy_tree(clone, tmp_path / "offramp")
    net = folder / "mine/net.py"
    seeded = "        __import__('torch').manual_seed(1)\n        step ="
    net.write_text(net.read_text().replace("        step =", seeded))
    own = config_file(folder, "own.yaml", {"model": {"weights": "none"}, "results": "results/own"})
    table = "results/own/logits/val.parquet"
    assert succeed(folder, table, "--cores", "2", configs=(*CONFIGS, own)).jobs == {"logits": 1}
    assert len(origin_of(read(folder / table, "logits"))["weights_sha256"]) == 64
    assert succeed(folder, table, "-n", configs=(*CONFIGS, own)).jobs == {}


def test_faults_stop_the_first_job_with_one_line(clone, tmp_path):
    folder = copy_tree(clone, tmp_path / "offramp")
    net = folder / "mine/net.py"
    net.write_text(net.read_text().replace("nn.Linear(4 * a, classes)", "nn.Linear(4 * a, 7)"))
    other = config_file(folder, "other.yaml", {"results": "results/other"})
    proof = PROOF.replace("net", "other")
    run = snakemake(folder, proof, "--cores", "2", configs=(*CONFIGS, other))
    log = (folder / "results/other/logs/train.log").read_text()
    begun, line = log.splitlines()
    assert run.code != 0 and begun.startswith("-- ")
    assert line.startswith("error: mine/net.py:Net: head 1 gives (4, 7)")
    assert "rule logits:" not in run.output


def test_tokens_of_a_seeded_script_go_through_a_transformer(pristine, tmp_path):
    folder = copy_tree(pristine, tmp_path / "offramp")
    script = [sys.executable, "examples/transformer.py", "data/sentences", "400"]
    subprocess.run(script, cwd=folder, check=True)
    configs = ("examples/transformer.yaml", config_file(folder, "small.yaml", SMALL))
    table = "results/transformer/logits/test.parquet"
    targets = (table, "results/transformer/network.parquet")
    run = succeed(folder, *targets, "--cores", "2", configs=configs)
    assert run.jobs == {"download": 1, "train": 1, "logits": 1, "network": 1}
    assert len(read(folder / table, "logits")) == 100


def test_the_example_of_a_network_in_a_file_is_short():
    assert len((ROOT / "examples/own_network.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("name", ["own_network", "multiscale"])
def test_the_examples_are_taken(pristine, name):
    succeed(pristine, f"results/{name}/network.parquet", "-n", configs=(f"examples/{name}.yaml",))
