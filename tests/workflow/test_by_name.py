"""What is asked for by name, and weights that ship."""

import json

import numpy as np
import pyarrow.parquet as pq
from workflow_helpers import (
    CONFIGS,
    EXITS,
    RESULTS,
    config_file,
    snakemake,
    succeed,
)
from workflow_tables import (
    frame,
    metadata,
    read,
    slow_counts,
)

pytest_plugins = ["workflow_helpers"]


def test_a_baseline_is_measured_in_turn_and_drawn(tree):
    own = f"{RESULTS}/model/weights.safetensors"
    target = f"{RESULTS}/figures/baseline.svg"
    without = snakemake(tree, target, "-n")
    assert without.code != 0 and "name a plain network and its weights" in without.output
    baseline = config_file(
        tree, "baseline.yaml", {"baseline": {"name": "branchynet", "weights": own}}
    )
    configs = (*CONFIGS, baseline)
    run = succeed(tree, target, "--cores", "2", configs=configs)
    assert set(run.jobs) == {"baseline", "figure_baseline"}
    rows = frame(tree, "baseline")
    test = read(tree, "scores/test").to_pandas()
    # The baseline is the very network, so it must be right where the full network is.
    for name in ("full", "baseline"):
        found = rows[rows["network"] == name]
        assert set(found["correct"]) == {test[f"correct_{EXITS}"].sum()}
        assert set(found["repeat"]) == ({1} if name == "full" else {1, 2, 3})
    best = json.loads((tree / RESULTS / "policies/best.json").read_text())
    _, right = slow_counts(
        test[[f"entropy_{k}" for k in range(1, EXITS + 1)]].to_numpy().tolist(),
        test[[f"correct_{k}" for k in range(1, EXITS + 1)]].to_numpy().tolist(),
        best["thresholds"],
    )
    assert set(rows.loc[rows["network"] == "cascade", "correct"]) == {right[0]}
    assert (tree / RESULTS / "figures/baseline.svg").stat().st_size
    assert metadata(tree, "baseline")["baseline"] == "branchynet"


def test_energys_cutoffs_come_from_the_train_split(tree):
    # They are tested on val, which must have no say in them.
    settings = {"criterion": "energy", "sweep": {"report_cutoff": -3.0, "cutoffs": 5}}
    energy = config_file(tree, "energy.yaml", settings)
    configs = (*CONFIGS, energy)
    succeed(tree, f"{RESULTS}/sweep.parquet", "--cores", "2", configs=configs)
    sides = [f"energy_{k}" for k in range(1, EXITS)]
    ends = {
        split: (found.min(), found.max())
        for split in ("train", "val")
        for found in [frame(tree, f"scores/{split}")[sides].to_numpy()]
    }
    cutoffs = frame(tree, "sweep")["cutoff"]
    assert (cutoffs.min(), cutoffs.max()) == ends["train"] != ends["val"]


def test_the_promises_are_put_to_the_test_by_name(tree):
    module = tree / "scripts/offramp/studies/coverage.py"
    quick = "Effort((60, 250, 1_000, 5_000), 2_000, 200, 100)"
    assert quick in module.read_text()
    module.write_text(module.read_text().replace(quick, "Effort((60,), 20, 8, 8)"))
    assert succeed(tree, "-n").jobs == {}
    run = succeed(tree, f"{RESULTS}/coverage.md", "--cores", "2")
    assert run.jobs == {"coverage": 1, "figure_coverage": 1, "coverage_page": 1}
    rows = frame(tree, "coverage")
    assert set(rows["n"]) == {60} and "network" in set(rows["population"])
    found, weights = metadata(tree, "coverage"), metadata(tree, "scores/val")["weights_sha256"]
    assert (found["split"], found["weights_sha256"]) == ("val, test", weights)
    assert (tree / RESULTS / "figures/coverage.png").stat().st_size
    assert "| network |" in (tree / RESULTS / "coverage.md").read_text()


def test_the_benchmarks_are_run_by_name(tree):
    library = tree / "scripts/offramp"
    smaller = {
        "studies/bench_live": {
            "256: 2_048, 32: 1_024, 1: 200": "256: 200, 32: 64, 1: 3",
            "REPEATS = 5": "REPEATS = 2",
        },
        "studies/bench_model": {
            "256: 10_000, 32: 4_000, 1: 500": "64: 359, 1: 3",
            "OF_EACH_KIND = 10": "OF_EACH_KIND = 2",
        },
        "studies/bench_thresholds": {"TURNS = 3": "TURNS = 1"},
        "studies/bench_curves": {"(0, 0.03, 16)": "(0, 0.03, 2)"},
        "studies/frontiers": {"RESAMPLES = 500": "RESAMPLES = 40"},
        "studies/bench_tables": {"(6_000, 60_000)": "(100, 3_000)"},
        "studies/bench_run": {'"all"': '"results/figures/reliability.svg"'},
        "inference/backends": {'    "compile": compiled,\n': ""},  # its compiler takes a minute
    }
    for name, changes in smaller.items():
        text = (library / f"{name}.py").read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (library / f"{name}.py").write_text(text)
    targets = f"{RESULTS}/benchmarks.md", f"{RESULTS}/figures/multiply_adds.svg"
    succeed(tree, *targets, "--cores", "2")
    rows = frame(tree, "benchmarks")
    names = (
        "speed|answers|overhead|peak|profile|time model|sweep|dump|memory|thresholds|"
        "equal accuracy|multiply-adds|student|run"
    )
    assert list(rows["benchmark"].unique()) == names.split("|")
    assert (rows["value"].notna() & (rows["unit"] != "")).all()
    wrong = rows[rows["contender"].str.contains("not excused")]
    assert len(wrong) == 2 and (wrong["value"] == 0).all()
    few, many = rows.loc[rows["benchmark"] == "memory", "value"]
    assert many < few + 200
    cold = rows[rows["benchmark"] == "run"]
    files = cold.set_index("contender")["case"].to_dict()
    assert (files["reliability"], files["logits_val"]) == ("analysis.smk", "inference.smk")
    seconds = cold.groupby("contender")["value"].max()
    assert seconds["a rule that does nothing"] < seconds["reliability"]
    assert seconds["the whole run"] > seconds.drop("the whole run").max()
    page = (tree / RESULTS / "benchmarks.md").read_text()
    assert page.startswith("# Benchmarks of branchynet") and page.count("\n## ") == 14
    for figure in ("benchmarks", "multiply_adds"):
        assert (tree / RESULTS / f"figures/{figure}.png").stat().st_size


def test_shipped_weights_are_used_without_training_and_only_for_what_they_are(tree):
    succeed(tree, "ship", "--cores", "2")
    assert "# branchynet" in (tree / "weights/branchynet.md").read_text()
    assert (tree / "weights/branchynet_training.png").stat().st_size
    weights = {"model": {"weights": "weights/branchynet.safetensors"}, "results": "results/shipped"}
    shipped = config_file(tree, "shipped.yaml", weights)
    succeed(
        tree, "results/shipped/scores/test.parquet", "--cores", "2", configs=(*CONFIGS, shipped)
    )
    assert not (tree / "results/shipped/model").exists()
    for k in range(1, EXITS + 1):
        pair = [
            pq.read_table(tree / f"results/{run}/scores/test.parquet")[f"entropy_{k}"].to_numpy()
            for run in ("digits", "shipped")
        ]
        np.testing.assert_allclose(*pair, atol=0.02)
    other = config_file(tree, "other.yaml", {**weights, "dataset": {"name": "cifar10"}})
    run = snakemake(tree, "-n", configs=(*CONFIGS, other))
    assert run.code != 0
    assert "weights/branchynet.safetensors are of digits, not of cifar10" in run.output
