"""Own logits, cascades of models, variants of a run and shipped logits, as a user runs them."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from workflow_helpers import (
    OWN_RULES,
    RESULTS,
    ROOT,
    config_file,
    copy_tree,
    rule_texts,
    snakemake,
    succeed,
)
from workflow_tables import LOOKED_AT

pytest_plugins = ["workflow_helpers"]

FEW = {"sweep": {"cutoffs": 20}, "calibration": {"targets": [0.6, 0.8, 0.9]}}


def example(pristine, folder, name):
    """A clone with an example's logits, and its config at small size."""
    clone = copy_tree(pristine, folder / "offramp")
    subprocess.run([sys.executable, f"examples/{name}_logits.py"], cwd=clone, check=True)
    return clone, (f"examples/{name}.yaml", config_file(clone, "few.yaml", FEW))


@pytest.fixture(scope="session")
def cascade(pristine, tmp_path_factory):
    """The example of three models, run up to its summary; to look at."""
    clone, configs = example(pristine, tmp_path_factory.mktemp("own"), "cascade")
    return clone, configs, succeed(clone, SUMMARY, "--cores", "2", configs=configs)


SUMMARY = "results/cascade/summary.md"


def test_logits_of_a_text_classifier_go_through_to_the_figures(pristine, tmp_path):
    clone, configs = example(pristine, tmp_path, "text")
    names = "time_accuracy", "targets", "confusion"
    drawn = [f"results/text/figures/{name}.svg" for name in names]
    run = succeed(clone, "results/text/summary.md", *drawn, "--cores", "2", configs=configs)
    environments = {
        rule_texts()[name.split("_")[0] if name.startswith("figure_") else name]
        .split("envs/")[1]
        .split(".")[0]
        for name in run.jobs
    }
    assert environments == {"analysis"}  # which has no torch
    lines = (clone / "results/text/summary.md").read_text().splitlines()
    assert lines[2].startswith(
        "**Nothing was run live here.** Logits are those in data/text/train.npz"
    )
    assert "costs are in words" in lines[2]
    summary = json.loads((clone / "results/text/summary.json").read_text())
    files = {s: np.load(clone / f"data/text/{s}.npz") for s in ("train", "val", "test")}
    for k, row in enumerate(summary["exit_accuracy"]):
        for split, known in files.items():
            right = known["logits"][:, k].argmax(axis=1) == known["labels"]
            assert row[split] == pytest.approx(right.mean())
    assert summary["full_network"]["test"]["seconds"] == pytest.approx(64 * 2000)
    text = (clone / drawn[0]).read_text()
    assert "[words]" in text and "total cost" in text
    assert "live" not in text.replace("nothing run live", "")
    policy = json.loads((clone / "results/text/policies/best.json").read_text())
    assert policy["provenance"]["unit"] == "words"
    rest = set(succeed(clone, "-n", configs=configs).jobs)
    assert rest == LOOKED_AT - {"figure_prediction", *(f"figure_{name}" for name in names)}


def test_a_cascade_of_models_pays_for_the_models_that_run(cascade):
    clone, _, _ = cascade
    costs, known = [160, 640, 9472], np.load(clone / "data/cascade/test.npz")
    summary = json.loads((clone / "results/cascade/summary.json").read_text())
    assert summary["full_network"]["test"]["seconds"] == pytest.approx(500 * 9472)
    for policy in (summary["best"], summary["task_2a"]):
        total = right = 0
        for logits, label in zip(known["logits"], known["labels"], strict=True):
            for k, threshold in enumerate([*policy["thresholds"], np.inf]):
                if threshold is None:
                    continue
                total += costs[k]
                p = np.exp(logits[k].astype(float) - logits[k].max())
                p /= p.sum()
                if -(p * np.log(np.maximum(p, 1e-300))).sum() <= threshold:
                    right += logits[k].argmax() == label
                    break
        overall = policy["test"][0] if isinstance(policy["test"], list) else policy["test"]
        assert overall["correct"] == right
        assert overall["seconds"] == pytest.approx(total)


def test_without_a_train_split_task_2b_calibrates_on_validation_data_and_says_so(cascade):
    clone, _, _ = cascade
    text = (clone / SUMMARY).read_text()
    assert "There is no training split" in text and "validation data alone" in text
    assert "train-calibrated" not in text
    summary = json.loads((clone / "results/cascade/summary.json").read_text())
    assert {row["calibrated_on"] for row in summary["task_2b"]["targets"]} == {"val"}
    assert summary["task_2b"]["best"]["selection"]["of"] == 3  # those of half of val
    assert set(summary["exit_accuracy"][0]) == {"exit", "val", "test"}


def test_only_what_depends_on_them_reruns_when_costs_change(cascade, tmp_path):
    clone = copy_tree(cascade[0], tmp_path / "offramp")
    configs = (*cascade[1], config_file(clone, "dear.yaml", {"costs": {"unit": "mJ"}}))
    jobs = succeed(clone, SUMMARY, "-n", configs=configs).jobs
    assert "own_costs" in jobs and "sweep" in jobs
    assert not {"own_logits", "scores", "temperatures", "reliability"} & jobs.keys()
    (clone / "data/cascade/val.npz").touch()
    assert succeed(clone, SUMMARY, "-n", configs=cascade[1]).jobs == {}
    np.savez(clone / "data/cascade/val.npz", **dict(np.load(clone / "data/cascade/test.npz")))
    run = snakemake(clone, SUMMARY, "--cores", "2", configs=cascade[1])
    assert run.code != 0 and "Traceback" not in run.output
    assert "error: logits.test: the same samples as logits.val" in run.output


def test_variants_and_runs_are_put_side_by_side(cascade, tmp_path):
    clone = copy_tree(cascade[0], tmp_path / "offramp")
    more = {
        "results": "results/variant",
        "logits": "results/cascade",
        "criterion": "margin",
        "selection": {"max_drop": 0.05},
        "compare": ["results/cascade", "results/variant"],
    }
    configs = (cascade[1][1], config_file(clone, "variant.yaml", more))
    run = succeed(clone, "results/variant/compare.md", "--cores", "2", configs=configs)
    assert not {"own_logits", "own_costs"} & run.jobs.keys()
    assert not (clone / "results/variant/logits").exists()
    text = (clone / "results/variant/summary.md").read_text().replace("`", "")
    assert "Logits are those of the run in results/cascade" in text
    page = (clone / "results/variant/compare.md").read_text()
    assert "| `selection.max_drop` | `0.02` | `0.05` |" in page
    assert '| `criterion` | `"entropy"` | `"margin"` |' in page
    for name in ("cascade", "variant"):
        best = json.loads((clone / f"results/{name}/summary.json").read_text())["best"]
        row = next(
            line for line in page.split("## The best policy")[1].splitlines()
            if line.startswith(f"| `results/{name}`")
        )  # fmt: skip
        assert f"{best['test']['accuracy']:.2%}" in row
        assert f"{best['test']['speedup']:.2f}x" in row
        assert " ".join("off" if t is None else f"{t:.4f}" for t in best["thresholds"]) in row
    again = snakemake(clone, "results/compare.md", "-n", configs=())
    assert again.code != 0 and "compare: name the results folders" in again.output


def test_a_variant_of_a_network_s_run_times_nothing_anew(tree):
    more = {"results": "results/variant", "logits": str(RESULTS), "batch_size": 32}
    configs = ("small.yaml", config_file(tree, "variant.yaml", more | FEW))
    before = {p: p.stat().st_mtime_ns for p in (tree / RESULTS).rglob("*") if p.is_file()}
    run = succeed(tree, "results/variant/summary.md", "--cores", "2", configs=configs)
    environments = {
        rule_texts()[name.split("_")[0] if name.startswith("figure_") else name]
        .split("envs/")[1]
        .split(".")[0]
        for name in run.jobs
    }
    assert environments == {"analysis"}
    text = (tree / "results/variant/summary.md").read_text().replace("`", "")
    assert f"Logits are those of the run in {RESULTS}; timings are its own, in s" in text
    assert "| 1 | block |" in text and "branchynet on digits" in text and "atches of 32" in text
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert succeed(tree, "-n").jobs == {}  # nor does the run itself change
    large = (*configs, config_file(tree, "large.yaml", {"batch_size": 128}))
    run = snakemake(tree, "results/variant/summary.md", "--cores", "2", configs=large)
    assert run.code != 0 and "Traceback" not in run.output
    assert "batches of 128 samples, where times were measured up to 64" in run.output


@pytest.mark.alone
def test_shipped_logits_answer_the_experiment_within_twenty_seconds(clone):
    target = "results/shipped/summary.md"
    run = succeed(clone, target, "--cores", "4", configs=["examples/shipped.yaml"])
    assert run.seconds <= 20
    found = json.loads((clone / "results/shipped/summary.json").read_text())
    record = json.loads((ROOT / "docs/record/branchynet/summary.json").read_text())
    assert found["about"]["weights_sha256"] == record["about"]["weights_sha256"]
    for place, row in enumerate(record["task_1a"]["test"]):
        assert found["task_1a"]["test"][place]["n"] == pytest.approx(row["n"], abs=5)
    text = (clone / target).read_text()
    assert "`branchynet` on cifar10" in text and "costs are in s" in text.splitlines()[2]
    assert "Under the best policy, test samples of `" in text
    (clone / "weights/logits/branchynet/val.parquet").write_bytes(b"")
    run = snakemake(clone, target, "--cores", "2", configs=["examples/shipped.yaml"])
    assert run.code != 0 and "weights/logits/branchynet/val.parquet: damaged" in run.output


def test_what_ships_is_small_and_as_its_sums_say():
    folder = ROOT / "weights/logits/branchynet"
    assert sum(file.stat().st_size for file in (ROOT / "logits").rglob("*")) <= 4_000_000
    listed = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    for name in ("val.parquet", "test.parquet", "timings.parquet"):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == listed[name]
    rows = {s: pq.read_metadata(folder / f"{s}.parquet").num_rows for s in ("val", "test")}
    assert rows == {"val": 5000, "test": 10000}


def test_a_finished_run_is_shipped_exactly(tree):
    run = succeed(tree, "weights/logits/branchynet/SHA256SUMS", "--cores", "1", "-R", "ship_logits")
    assert run.jobs == {"ship_logits": 1}
    for split in ("val", "test"):
        packed = pq.read_table(tree / f"weights/logits/branchynet/{split}.parquet")
        assert packed.equals(pq.read_table(tree / RESULTS / f"logits/{split}.parquet"))
        assert (
            packed.schema.metadata
            == pq.read_schema(tree / RESULTS / f"logits/{split}.parquet").metadata
        )


def test_rules_for_own_logits_are_described(cascade):
    listed = succeed(cascade[0], "--list", configs=cascade[1]).output
    assert [name for name in OWN_RULES if f"{name} (" not in listed] == []
