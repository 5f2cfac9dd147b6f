"""The workflow as a user runs it: what a run leaves behind, and what a further run does again."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import yaml
from snakemake.utils import available_cpu_count
from workflow_helpers import (
    CONFIGS,
    EXITS,
    RESULTS,
    ROOT,
    SPLITS,
    UNUSED,
    command,
    config_file,
    environment,
    rule_texts,
    snakemake,
    succeed,
)

from offramp.report.figures import draw
from offramp.report.results import read_results
from offramp.scoring.criteria import scores_of
from offramp.scoring.scores import read_logits_of, read_scores
from offramp.tables.files import read_logits
from offramp.thresholds.calibration import CalibrationData
from offramp.thresholds.joint import costs_of
from offramp.thresholds.optimism import optimism as optimism_of
from offramp.thresholds.time_model import fit_time_model

pytest_plugins = ["workflow_helpers"]

FIGURES = {
    "report_cutoff": "Task 1a",
    "time_accuracy": "Task 1b",
    "time_cutoff": "Task 1b",
    "accuracy_cutoff": "Task 1b",
    "exit_shares": "Task 1b",
    "target": "Task 2a",
    "targets": "Task 2b",
    "entropy": "Look closer",
    "prediction": "Look closer",
    "reliability": "Look closer",
    "leaving": "Look closer",
    "confusion": "Look closer",
    "agreement": "Look closer",
}
DRAWN = {f"figure_{name}" for name in FIGURES}
POLICIES = ("report_cutoff", "target", "best_cutoff", "best_train", "best")
# Table -> the split that its metadata name.
TABLES = {
    **{f"logits/{split}": split for split in SPLITS},
    **{f"scores/{split}": split for split in SPLITS},
    **{f"timings/{split}": split for split in SPLITS},
    "timings/probe": "probe",
    "timings": "all",
    "sweep": "all",
    "calibration": "all",
    "optimism": "val",
    "temperatures": "val",
    "reliability": "val, test",
    "verification": "test",
    "leaving": "test",
    "agreement": "test",
    "oracle": "test",
    "network": "all",
    "training": "train",
}
TIMED = [name for name in TABLES if name.startswith(("timings", "logits"))] + ["verification"]
TIMING_RULES = {"logits", "probe", "verification", "rival", "benchmark", "benchmark_run"}

CONFIDENCE = {"temperatures", "reliability", "figure_reliability"}
FROM_THRESHOLDS = DRAWN - CONFIDENCE | {"policies", "verification", "easy", "summary"}
ANALYSIS = FROM_THRESHOLDS | {"sweep", "calibration", "optimism"}
FROM_LOGITS = ANALYSIS | CONFIDENCE | {"logits", "probe", "scores", "timings"}
FROM_WEIGHTS = FROM_LOGITS | {"network"}
# Library module -> the rules whose scripts import it, directly or not, and all that follow them.
RERUN_BY = {
    "data/download": FROM_LOGITS | {"download"},
    # A finished training stands, whatever happens to the code that did it.
    "training/training": set(),
    "tables/files": FROM_WEIGHTS | {"figure_training"},
    "inference/cascade": FROM_LOGITS,
    "thresholds/sweep": ANALYSIS,
    "thresholds/calibration": ANALYSIS - {"sweep"},
    "thresholds/optimism": FROM_THRESHOLDS | {"optimism"},
    "thresholds/easy": {
        "easy",
        "summary",
        "figure_leaving",
        "figure_confusion",
        "figure_agreement",
    },
    "report/figures": DRAWN | {"figure_training"},
    "scoring/risk": set(),
    "inference/rival": set(),
    "report/summary": {"summary"},
}


def read(folder, name):
    return pq.read_table(folder / RESULTS / f"{name}.parquet")


def metadata(folder, name):
    found = pq.read_schema(folder / RESULTS / f"{name}.parquet").metadata
    return {key.decode(): value.decode() for key, value in found.items()}


def frame(folder, name):
    return read(folder, name).to_pandas()


def draw_again(folder, to, figures=tuple(FIGURES)):
    """Draw figures of a finished run anew, in this process and from all tables at once."""
    results = folder / RESULTS
    names = {name for name in TABLES if "/" not in name} - {"optimism", "training"}
    paths = {name: results / f"{name}.parquet" for name in names}
    paths["policies"] = sorted((results / "policies").iterdir())
    paths["scores"] = [results / f"scores/{split}.parquet" for split in SPLITS]
    tables = read_results(SimpleNamespace(**paths))
    for name in figures:
        draw(to / f"{name}.svg", tables)


def overall(rows):
    return rows[rows["exit"] == 0]


def slow_entropy(logits):
    """Entropy of one softmax in nats, term by term."""
    largest = max(logits)
    powers = [math.exp(z - largest) for z in logits]
    total = sum(powers)
    terms = [p / total * math.log(p / total) for p in powers if p > 0]
    return min(max(-sum(terms), 0.0), math.log(len(logits)))


@pytest.fixture(scope="module")
def slow_scores(finished):
    """Entropy and correctness of each sample at each exit, straight from the logits."""
    found = {}
    for split in SPLITS:
        rows = read(finished, f"logits/{split}").to_pylist()
        exits = [[row[f"exit_{k}"] for k in range(1, EXITS + 1)] for row in rows]
        found[split] = (
            [[slow_entropy(z) for z in sample] for sample in exits],
            [
                [int(np.argmax(z)) == row["label"] for z in sample]
                for row, sample in zip(rows, exits, strict=True)
            ],
        )
    return found


def slow_counts(entropy, correct, thresholds):
    """n and correct of those that leave at each exit, 0 being overall, sample by sample."""
    n, right = [0] * (EXITS + 1), [0] * (EXITS + 1)
    for scores, hits in zip(entropy, correct, strict=True):
        fires = [t is not None and h <= t for h, t in zip(scores, thresholds, strict=False)]
        k = fires.index(True) if True in fires else EXITS - 1
        for place in (0, k + 1):
            n[place] += 1
            right[place] += hits[k]
    return n, right


def slow_thresholds(entropy, correct, target):
    """Per exit, the largest entropy of a survivor at which those at or below it are at least as
    accurate as the target."""
    here, thresholds = list(range(len(entropy))), []
    for k in range(EXITS - 1):
        passing = []
        for candidate in {entropy[i][k] for i in here}:
            leave = [i for i in here if entropy[i][k] <= candidate]
            if sum(correct[i][k] for i in leave) / len(leave) >= target:
                passing.append(candidate)
        threshold = max(passing, default=None)
        thresholds.append(threshold)
        here = [i for i in here if threshold is None or entropy[i][k] > threshold]
    return thresholds


# What a run leaves behind


def test_a_run_makes_every_table_policy_figure_and_the_summary(finished):
    results = finished / RESULTS
    wanted = [f"{name}.parquet" for name in TABLES]
    wanted += [f"policies/{name}.json" for name in POLICIES]
    wanted += [f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")]
    wanted += ["summary.md", "summary.json", "model/weights.safetensors"]
    wanted += ["figures/training.svg", "figures/training.png"]
    assert [name for name in wanted if not (results / name).stat().st_size] == []


def test_a_run_leaves_no_unfinished_file(finished):
    assert list(finished.rglob("*.part")) == []
    assert not (finished / RESULTS / "model/resume.pt").exists()
    assert sorted(p.name for p in (finished / "data").iterdir()) == ["digits"]


def test_every_job_has_a_log_without_carriage_returns(finished):
    logs = {p.stem: p.read_bytes() for p in (finished / RESULTS / "logs").iterdir()}
    split_rules = {f"{rule}_{split}" for rule in ("logits", "scores") for split in SPLITS}
    assert set(logs) == set(rule_texts()) - {"all", "logits", "scores"} - UNUSED | split_rules
    assert [name for name, text in logs.items() if b"\r" in text] == []
    assert "epoch 1/1" in logs["train"].decode()


def test_every_log_is_free_of_tracebacks_and_warnings(finished):
    for log in (finished / RESULTS / "logs").iterdir():
        assert not re.search("Traceback|Warning", log.read_text()), log.read_text()


@pytest.mark.parametrize("name", TABLES)
def test_every_table_says_where_it_came_from(finished, name):
    found = metadata(finished, name)
    weights = finished / RESULTS / "model/weights.safetensors"
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=finished, text=True).strip()
    digest = subprocess.check_output(["sha256sum", weights], text=True).split()[0]
    assert found["schema"] == name.split("/")[0]
    assert found["schema_version"] == "1"
    assert (found["dataset"], found["split"]) == ("digits", TABLES[name])
    assert (found["model"], found["weights_sha256"]) == ("branchynet", digest)
    assert re.fullmatch("[0-9a-f]{64}", found["config_digest"])
    assert found["git_commit"] == commit
    assert {"numpy", "pyarrow", "torch", "snakemake"} <= set(json.loads(found["library_versions"]))


@pytest.mark.parametrize("name", TIMED)
def test_every_table_with_timings_says_on_what_machine(finished, name):
    found = metadata(finished, name)
    assert (found["device"], found["dtype"]) == ("cpu", "float32")
    assert int(found["threads"]) >= 1
    assert found["torch"] and found["device_name"]


@pytest.mark.parametrize("split", SPLITS)
def test_logits_hold_every_sample_of_the_split_once(finished, split):
    ids = read(finished, f"logits/{split}")["sample_id"].to_pylist()
    assert len(ids) == len(set(ids)) == SPLITS[split]


def test_the_splits_share_no_sample(finished):
    ids = [set(read(finished, f"logits/{s}")["sample_id"].to_pylist()) for s in SPLITS]
    assert len(set.union(*ids)) == sum(SPLITS.values()) == 1797


def test_live_cascade_and_tables_agree_but_for_excused_samples(finished):
    rows = frame(finished, "verification")
    assert set(rows.loc[rows["chosen"], "policy"]) == set(POLICIES)
    assert rows["policy"].nunique() >= len(POLICIES) + 10
    assert (rows["differ"] == rows["excused"]).all()
    assert (overall(rows)[["n_table", "n_live"]] == SPLITS["test"]).all(axis=None)
    assert (overall(rows)["seconds_measured"] > 0).all()
    assert (overall(rows[rows["chosen"]])["speedup_measured"] > 0).all()


# The tables agree with each other


def test_sweep_has_all_exits_and_the_overall_row_for_every_split_and_cutoff(finished):
    rows = frame(finished, "sweep")
    assert rows["cutoff"].nunique() == 21
    grid = [*np.linspace(0, math.log(10), 20), 0.6]
    np.testing.assert_allclose(sorted(rows["cutoff"].unique()), sorted(grid), atol=1e-12)
    for (split, _), group in rows.groupby(["split", "cutoff"]):
        assert group["exit"].tolist() == list(range(EXITS + 1))
        assert overall(group)["n"].item() == SPLITS[split]
    assert len(rows) == len(SPLITS) * 21 * (EXITS + 1)


@pytest.mark.parametrize(
    "name, keys",
    [
        ("sweep", ["split", "cutoff"]),
        ("calibration", ["calibrated_on", "target", "split"]),
    ],
)
def test_exits_sum_to_the_overall_row(finished, name, keys):
    for key, group in frame(finished, name).groupby(keys):
        exits, total = group[group["exit"] > 0], overall(group).iloc[0]
        assert exits["n"].sum() == total["n"] == SPLITS[dict(zip(keys, key, strict=True))["split"]]
        assert exits["correct"].sum() == total["correct"], key
        assert exits["seconds"].sum() == pytest.approx(total["seconds"], rel=1e-9), key
        assert total["accuracy"] == total["correct"] / total["n"]
        assert (exits["accuracy"].isna() == (exits["n"] == 0)).all(), key


@pytest.mark.parametrize("index", [0, 3, 6, 10, 16, 20])
def test_sweep_is_what_a_slow_loop_over_the_logits_finds(finished, slow_scores, index):
    rows = frame(finished, "sweep")
    cutoff = np.sort(rows["cutoff"].unique())[index]
    found = rows[(rows["split"] == "test") & (rows["cutoff"] == cutoff)]
    n, correct = slow_counts(*slow_scores["test"], [cutoff] * (EXITS - 1))
    assert found["n"].tolist() == n
    assert found["correct"].tolist() == correct
    accuracy = [None if math.isnan(a) else a for a in found["accuracy"]]
    assert accuracy == [c / m if m else None for c, m in zip(correct, n, strict=True)]


@pytest.mark.parametrize("calibrated_on, target", [("val", 0.8), ("train", 0.9)])
def test_thresholds_are_what_a_slow_search_over_the_logits_finds(
    finished, slow_scores, calibrated_on, target
):
    thresholds = slow_thresholds(*slow_scores[calibrated_on], target)
    rows = frame(finished, "calibration")
    rows = rows[(rows["calibrated_on"] == calibrated_on) & (rows["target"] == target)]
    for split, group in rows.groupby("split"):
        found = [None if math.isnan(t) else t for t in group["threshold"]]
        assert found == [None, *(pytest.approx(t, abs=1e-12) for t in thresholds), None]
        # The table's own thresholds from here on: a sample lies exactly on each of them.
        n, correct = slow_counts(
            *slow_scores[split], [t if t is None else t + 1e-12 for t in found[1:-1]]
        )
        assert group["n"].tolist() == n
        assert group["correct"].tolist() == correct


def test_who_leaves_where_is_what_a_slow_loop_over_the_logits_finds(finished, slow_scores):
    best = json.loads((finished / RESULTS / "policies/best.json").read_text())["thresholds"]
    entropy, correct = slow_scores["test"]
    n, right = slow_counts(entropy, correct, best)
    leaving, oracle = frame(finished, "leaving"), frame(finished, "oracle")
    policy = oracle[oracle["exit_rule"] == "policy"]
    assert (policy["n"].tolist(), policy["correct"].tolist()) == (n, right)
    assert leaving.groupby("exit")["n"].sum().tolist() == n[1:]
    hits = leaving[leaving["label"] == leaving["predicted"]]
    assert hits.groupby("exit")["n"].sum().tolist() == right[1:]
    assert metadata(finished, "leaving")["policy"] == "best"

    total = overall(oracle).set_index("exit_rule")["correct"]
    assert total["oracle"] == sum(any(row) for row in correct)
    assert total["full"] == sum(row[-1] for row in correct)
    pairs = frame(finished, "agreement").set_index(["first", "second"])
    lost = sum(row[0] and not row[-1] for row in correct)
    assert pairs.loc[(1, EXITS), "only_first_right"] == lost


def test_a_calibrated_target_holds_at_every_enabled_exit_on_its_own_split(finished):
    rows = frame(finished, "calibration")
    own = rows[(rows["calibrated_on"] == rows["split"]) & ~rows["threshold"].isna()]
    assert len(own)
    assert (own["accuracy"] >= own["target"]).all()


def test_the_summary_holds_the_numbers_of_the_tables(finished):
    summary = json.loads((finished / RESULTS / "summary.json").read_text())
    sweep, verification = frame(finished, "sweep"), frame(finished, "verification")
    report = sweep[(sweep["split"] == "test") & (sweep["cutoff"] == 0.6)]
    calibration = frame(finished, "calibration")
    target = calibration[
        (calibration["calibrated_on"] == "val")
        & (calibration["target"] == 0.8)
        & (calibration["split"] == "test")
    ]
    for listed, rows in (
        (summary["task_1a"]["test"], report),
        (summary["task_2a"]["test"], target),
    ):
        for key in ("exit", "n", "correct", "seconds"):
            assert [row[key] for row in listed] == rows[key].tolist()
    policies = {
        name: json.loads((finished / RESULTS / f"policies/{name}.json").read_text())
        for name in POLICIES
    }
    assert summary["task_1b"]["cutoffs"] == 21
    assert summary["task_1b"]["best"]["thresholds"] == policies["best_cutoff"]["thresholds"]
    assert summary["task_2a"]["thresholds"] == policies["target"]["thresholds"]
    assert summary["task_2b"]["best"]["thresholds"] == policies["best_train"]["thresholds"]
    assert summary["best"]["thresholds"] == policies["best"]["thresholds"]
    live = overall(verification).set_index("policy")
    for name, place in (
        ("report_cutoff", summary["task_1a"]),
        ("best_cutoff", summary["task_1b"]["best"]),
        ("target", summary["task_2a"]),
        ("best_train", summary["task_2b"]["best"]),
        ("best", summary["best"]),
    ):
        assert place["live"]["seconds_measured"] == live.loc[name, "seconds_measured"]
        assert place["live"]["speedup_measured"] == live.loc[name, "speedup_measured"]
        assert place["live"]["accuracy"] == live.loc[name, "correct_live"] / SPLITS["test"]
    assert summary["verification"]["decisions"] == live["n_live"].sum()
    assert summary["verification"]["differ"] == live["differ"].sum()
    oracle = frame(finished, "oracle")
    for rule, record in summary["easy"]["exit_rules"].items():
        row = overall(oracle[oracle["exit_rule"] == rule]).iloc[0]
        assert all(record[key] == row[key] for key in ("n", "correct", "seconds", "speedup"))
    assert sum(row["n"] for row in summary["easy"]["classes"]) == SPLITS["test"]


def test_the_summary_names_every_figure_and_task(finished):
    text = (finished / RESULTS / "summary.md").read_text()
    assert all(f"(figures/{name}.svg)" in text for name in FIGURES)
    assert all(f"Task {task}" in text for task in ("1a", "1b", "2a", "2b"))


@pytest.mark.parametrize("name", POLICIES)
def test_the_policies_were_chosen_on_validation_data(finished, name):
    policy = json.loads((finished / RESULTS / f"policies/{name}.json").read_text())
    assert len(policy["thresholds"]) == EXITS - 1
    assert policy["provenance"]["split"] == "val"
    assert policy.get("expected", {"split": "val"})["split"] == "val"


# What a further run does again


@pytest.mark.alone
def test_a_second_run_does_nothing_within_five_seconds(tree):
    run = succeed(tree, "--cores", "2")
    assert "Nothing to be done" in run.output
    assert not run.started
    assert run.seconds <= 5


@pytest.mark.alone
def test_other_cutoffs_rerun_the_analysis_and_nothing_slow(tree):
    more = (*("examples/digits.yaml", "small.yaml"), "more.yaml")
    config_file(tree, "more.yaml", {"sweep": {"cutoffs": 30}})
    target = f"{RESULTS}/sweep.parquet"
    whole = succeed(tree, "-n", configs=more)
    assert set(whole.jobs) == FROM_THRESHOLDS | {"sweep"}
    assert succeed(tree, target, "-n", configs=more).jobs == {"sweep": 1}
    run = succeed(tree, target, "--cores", "2", configs=more)
    assert run.jobs == {"sweep": 1}
    assert run.seconds <= 10
    assert frame(tree, "sweep")["cutoff"].nunique() == 31


def test_other_targets_rerun_the_calibration_and_nothing_slow(tree):
    more = (*("examples/digits.yaml", "small.yaml"), "more.yaml")
    config_file(tree, "more.yaml", {"calibration": {"targets": [0.5]}})
    assert set(succeed(tree, "-n", configs=more).jobs) == ANALYSIS - {"sweep"}


def test_other_methods_go_through_to_the_summary(tree):
    sure = config_file(tree, "sure.yaml", {"calibration": {"method": "guaranteed"}})
    succeed(tree, f"{RESULTS}/calibration.parquet", "--cores", "2", configs=(*CONFIGS, sure))
    methods = frame(tree, "calibration").groupby("calibrated_on")["method"].unique()
    # What the network was trained on guarantees nothing.
    assert methods.map(list).to_dict() == {
        "train": ["empirical"], "val": ["guaranteed"], "val_half": ["guaranteed"]
    }  # fmt: skip

    joint = config_file(tree, "joint.yaml", {"calibration": {"method": "joint"}})
    run = succeed(tree, f"{RESULTS}/summary.md", "--cores", "2", configs=(*CONFIGS, joint))
    assert set(run.jobs) == ANALYSIS - {"sweep"} - DRAWN
    rows = frame(tree, "calibration")
    assert set(rows["method"]) == {"joint"}
    own = overall(rows[(rows["calibrated_on"] == "val") & (rows["split"] == "val")])
    reached = rows[(rows["calibrated_on"] == "val") & (rows["exit"] > 0)]
    for _, row in own.iterrows():
        thresholds = reached[(reached["target"] == row["target"]) & reached["threshold"].notna()]
        assert row["accuracy"] >= row["target"] or thresholds.empty
    optimism = frame(tree, "optimism").set_index("target")["optimism"]
    assert optimism.index.tolist() == sorted(set(rows["target"]))
    scores, correct, table = read_scores(tree / RESULTS / "scores/val.parquet")
    known = read_logits_of(table, tree / RESULTS / "logits/val.parquet")
    costs = costs_of(fit_time_model(read(tree, "timings")), 64)
    data = CalibrationData(scores, correct, *known)
    assert (
        optimism.tolist() == optimism_of({"method": "joint"}, data, optimism.index, costs).tolist()
    )
    policy = json.loads((tree / RESULTS / "policies/target.json").read_text())
    assert policy["expected"]["optimism"] == max(0.0, optimism[0.8])
    assert "wanted over all exits" in (tree / RESULTS / "summary.md").read_text()
    live = frame(tree, "verification")
    assert (live["differ"] == live["excused"]).all()


def test_another_criterion_and_temperatures_go_through_to_the_live_cascade(tree, tmp_path):
    other = {
        "criterion": "agreement",
        "sweep": {"report_cutoff": 0.4},
        "calibration": {"temperatures": True, "method": "joint"},
    }
    configs = (*CONFIGS, config_file(tree, "other.yaml", other))
    run = succeed(tree, f"{RESULTS}/summary.md", "--cores", "2", configs=configs)
    # The one pass is not run again.
    assert set(run.jobs) == (ANALYSIS | {"probe", "timings", "scores"}) - DRAWN
    draw_again(tree, tmp_path)
    live = frame(tree, "verification")
    assert (live["differ"] == live["excused"]).all()
    assert live["policy"].nunique() >= len(POLICIES) + 10
    fitted = frame(tree, "temperatures")["temperature"].tolist()
    assert len(fitted) == EXITS
    for name in POLICIES:
        policy = json.loads((tree / RESULTS / f"policies/{name}.json").read_text())
        assert policy["criterion"] == "agreement"
        assert policy["temperatures"] == fitted[:-1]
    # What fitted the temperatures chooses no threshold.
    ids = {split: read(tree, f"scores/{split}")["sample_id"].to_pylist() for split in SPLITS}
    assert ids["val"] == read(tree, "logits/val")["sample_id"].to_pylist()[90:]
    assert set(frame(tree, "sweep")["criterion"]) == {"agreement"}
    text = (tree / RESULTS / "summary.md").read_text()
    assert "by agreement of logits divided by temperatures" in text


def test_the_risk_is_fitted_and_goes_through_to_the_live_cascade(tree, tmp_path):
    other = {"criterion": "risk", "sweep": {"report_cutoff": 0.05}}
    configs = (*CONFIGS, config_file(tree, "other.yaml", other))
    run = succeed(tree, f"{RESULTS}/summary.md", "--cores", "2", configs=configs)
    assert set(run.jobs) == (ANALYSIS | {"risk", "probe", "timings", "scores"}) - DRAWN
    draw_again(tree, tmp_path, ["entropy", "time_cutoff"])
    live = frame(tree, "verification")
    assert (live["differ"] == live["excused"]).all()
    assert live["policy"].nunique() >= len(POLICIES) + 10
    rows = [row for row in read(tree, "risk").to_pylist() if row["part"] == 0]
    for name in POLICIES:
        policy = json.loads((tree / RESULTS / f"policies/{name}.json").read_text())
        assert policy["criterion"] == "risk"
        assert policy["weights"] == [row["weights"] for row in rows]
    # Other weights score what fitted these, and no sample is set aside.
    known = tuple(tuple(row["weights"]) for row in rows)
    for split, same in (("val", False), ("test", True)):
        logits = read_logits(tree / RESULTS / f"logits/{split}.parquet")[2]
        found = read_scores(tree / RESULTS / f"scores/{split}.parquet")[0]
        assert np.array_equal(found, scores_of("risk", logits, weights=known)) == same
    text = (tree / RESULTS / "summary.md").read_text()
    assert "by risk of raw logits, fitted to validation data, so all that is promised" in text


def test_criteria_and_methods_are_compared_by_name(tree):
    assert succeed(tree, "-n").jobs == {}
    run = succeed(tree, f"{RESULTS}/frontiers.md", "--cores", "2")
    assert run.jobs == {"risk": 1, "frontiers": 1, "frontiers_page": 1}
    rows = frame(tree, "frontiers")
    assert rows.groupby(["criterion", "scaled", "method"]).ngroups == 24
    assert set(rows["n"]) == {SPLITS["test"]}
    equal = frame(tree, "equal_accuracy")
    assert len(equal) == 24 * 4
    yardstick = equal[(equal["criterion"] == "entropy") & (equal["method"] == "shared")]
    assert set(yardstick.loc[~yardstick["scaled"], "over_shared"].dropna()) == {1.0}
    page = (tree / RESULTS / "frontiers.md").read_text()
    assert "| entropy, with temperatures |" in page and "| patience |" in page
    for name in ("frontier", "criteria"):
        assert (tree / RESULTS / f"figures/{name}.svg").stat().st_size


def test_a_deleted_table_alone_is_made_again(tree):
    table = tree / RESULTS / "sweep.parquet"
    before = read(tree, "sweep")
    table.unlink()
    run = succeed(tree, f"{RESULTS}/sweep.parquet", "--cores", "2")
    assert run.jobs == {"sweep": 1}
    assert read(tree, "sweep").equals(before, check_metadata=True)


@pytest.mark.parametrize(
    "pattern",
    [
        "scripts/offramp/*/*.py",
        "**/*.yaml",
        f"{RESULTS}/*/*.parquet",
        f"{RESULTS}/*.parquet",
        f"{RESULTS}/policies/*",
        f"{RESULTS}/model/*",
        "data/*/*",
    ],
)
def test_a_touched_file_of_the_same_content_reruns_nothing(tree, pattern):
    files = list(tree.glob(pattern))
    assert files
    for file in files:
        file.touch()
    assert succeed(tree, "-n").jobs == {}


@pytest.mark.parametrize("module", RERUN_BY)
def test_an_edited_module_reruns_those_who_use_it_and_no_others(tree, module):
    with open(tree / f"scripts/offramp/{module}.py", "a") as file:
        file.write("# edited\n")
    assert set(succeed(tree, "-n").jobs) == RERUN_BY[module]


def test_the_figures_are_the_same_bytes_every_time(finished, tmp_path):
    draw_again(finished, tmp_path)
    training = SimpleNamespace(training=finished / RESULTS / "training.parquet")
    draw(tmp_path / "training.svg", read_results(training))
    before = finished / RESULTS / "figures"
    drawn = sorted(tmp_path.iterdir())
    assert [file.name for file in drawn] == sorted(file.name for file in before.iterdir())
    differ = [f.name for f in drawn if f.read_bytes() != (before / f.name).read_bytes()]
    assert differ == []


# A rival, and weights that ship


def test_a_rival_is_measured_in_turn_and_drawn(tree):
    own = f"{RESULTS}/model/weights.safetensors"
    target = f"{RESULTS}/figures/rival.svg"
    without = snakemake(tree, target, "-n")
    assert without.code != 0 and "name a plain network's model and weights" in without.output
    rival = config_file(tree, "rival.yaml", {"rival": {"model": "branchynet", "weights": own}})
    configs = (*CONFIGS, rival)
    run = succeed(tree, target, "--cores", "2", configs=configs)
    assert set(run.jobs) == {"rival", "figure_rival"}
    rows = frame(tree, "rival")
    test = read(tree, "scores/test").to_pandas()
    # The rival is the very network, so it must be right where the full network is.
    for name in ("full", "rival"):
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
    assert (tree / RESULTS / "figures/rival.svg").stat().st_size
    assert metadata(tree, "rival")["rival"] == "branchynet"


def test_the_promises_are_put_to_the_test_by_name(tree):
    module = tree / "scripts/offramp/studies/coverage.py"
    quick = "Effort((60, 250, 1_000, 5_000), 2_000, 200)"
    assert quick in module.read_text()
    module.write_text(module.read_text().replace(quick, "Effort((60,), 20, 8)"))
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
    succeed(tree, f"{RESULTS}/benchmarks.md", "--cores", "2")
    rows = frame(tree, "benchmarks")
    names = (
        "speed|answers|overhead|peak|profile|time model|sweep|dump|memory|thresholds|student|run"
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
    assert page.startswith("# Benchmarks of branchynet") and page.count("\n## ") == 12
    assert (tree / RESULTS / "figures/benchmarks.png").stat().st_size


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


# What undoes a training, and what does not


def test_a_finished_training_stands_whatever_happens_to_the_code(tree):
    weights = tree / RESULTS / "model/weights.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(weights.with_name("trained"))  # as an older version left it
    with (tree / "scripts/train.py").open("a") as file:
        file.write("# Another comment.\n")
    for module in ("training/training", "training/learners", "networks/branchynet"):
        with (tree / f"scripts/offramp/{module}.py").open("a") as file:
            file.write("# Another comment.\n")
    (tree / "data/digits/all_labels.npy").touch()
    for target in (f"{RESULTS}/training.parquet", f"{RESULTS}/summary.md", "train"):
        run = succeed(tree, target, "-n")
        assert "train" not in run.jobs, target
    assert weights.read_bytes() == before
    # Not even what deletes it.
    weights.unlink()
    run = succeed(tree, f"{RESULTS}/training.parquet", "--cores", "2", "--forcerun", "train")
    assert run.jobs == {"train": 1} and weights.read_bytes() == before


def test_another_recipe_is_refused_before_any_job_and_trains_when_told_to(tree):
    weights = tree / RESULTS / "model/weights.safetensors"
    before = weights.read_bytes()
    seed = {"train": {"seed": 43}}
    configs = (*CONFIGS, config_file(tree, "seed.yaml", seed))
    target = f"{RESULTS}/training.parquet"
    refused = snakemake(tree, target, "--cores", "2", configs=configs)
    assert refused.code != 0 and refused.jobs == {}
    assert f"{RESULTS}/model/weights.safetensors would be deleted" in refused.output
    assert "train.seed: 42 then, 43 now" in refused.output
    assert "--config retrain=true" in refused.output
    assert weights.read_bytes() == before
    # What needs no training is not kept from running.
    shipped = config_file(
        tree, "shipped.yaml", {"model": {"weights": str(weights.relative_to(tree))}}
    )
    assert "train" not in succeed(tree, "-n", configs=(*configs, shipped)).jobs
    again = config_file(tree, "again.yaml", {"retrain": True})
    run = succeed(tree, target, "--cores", "2", configs=(*configs, again))
    assert run.jobs == {"train": 1}
    assert weights.read_bytes() != before
    assert succeed(tree, target, "-n", configs=configs).jobs == {}


def test_a_network_of_other_code_is_another_training(tree):
    network = tree / "scripts/offramp/networks/branchynet.py"
    network.write_text(network.read_text().replace("nn.Dropout(0.2)", "nn.Dropout(0.1)"))
    refused = snakemake(tree, "-n")
    assert refused.code != 0 and "the network's code:" in refused.output


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "Snakemake ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_killed_training_goes_on_to_the_same_weights(clone):
    # Few training images, so that an epoch is a matter of a second.
    few = {"dataset": {"validation": 1240}, "train": {"epochs": 6, "batch_size": 100}}
    configs = ("examples/digits.yaml", config_file(clone, "few.yaml", few))
    target = f"{RESULTS}/training.parquet"
    weights = clone / RESULTS / "model/weights.safetensors"
    resume = clone / RESULTS / "model/resume.pt"

    succeed(clone, target, "--cores", "2", configs=configs)
    straight = safetensors.numpy.load_file(weights)
    curves = frame(clone, "training").drop(columns="seconds")
    shutil.rmtree(weights.parent)
    (clone / target).unlink()

    with subprocess.Popen(
        command(target, "--cores", "2", configs=configs),
        cwd=clone,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_for(resume.exists, process)
        finally:
            kill_group(process)
    assert not weights.exists()

    locked = snakemake(clone, target, "--cores", "2", configs=configs)
    assert locked.code != 0
    assert "unlock" in locked.output
    succeed(clone, target, "--unlock", configs=configs)
    # Another rule's success in between costs nothing of what was trained.
    succeed(clone, "data/digits/all_images.npy", "-R", "download", "--cores", "2", configs=configs)
    succeed(clone, target, "--cores", "2", configs=configs)
    went_on = re.search(
        r"going on after epoch (\d)", (clone / RESULTS / "logs/train.log").read_text()
    )
    assert went_on and 1 <= int(went_on[1]) < 6
    assert not resume.exists()
    again = safetensors.numpy.load_file(weights)
    assert again.keys() == straight.keys()
    for name, values in straight.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    assert np.allclose(frame(clone, "training").drop(columns="seconds"), curves, atol=1e-3)


# The workflow's own shape


def test_the_linter_finds_nothing(pristine):
    run = snakemake(pristine, "--lint", configs=())
    assert run.code == 0, run.output


@pytest.mark.parametrize("configs", [(), ("examples/cpu.yaml",)])
def test_a_shipped_network_downloads_and_does_not_train(clone, configs):
    run = succeed(clone, "-n", configs=configs)
    assert "download" in run.jobs and "train" not in run.jobs
    assert "cifar10" in run.output


@pytest.mark.parametrize("configs", [(), ("examples/cpu.yaml",), ("examples/rival.yaml",)])
def test_each_network_can_be_trained_from_nothing(clone, configs):
    run = succeed(clone, "train", "-n", configs=configs)
    assert run.jobs == {"download": 1, "train": 1}


def test_a_figure_of_the_sweep_alone_is_drawn_without_the_live_cascade(clone):
    jobs = succeed(clone, "results/figures/accuracy_cutoff.svg", "-n", configs=()).jobs
    assert {"sweep", "figure_accuracy_cutoff"} <= jobs.keys()
    assert not {"verification", "easy", "summary"} & jobs.keys()


def test_the_report_shows_every_figure_under_its_task(tree):
    succeed(tree, "--report", "report.html")
    page = (tree / "report.html").read_text()
    assert [c for c in {*FIGURES.values(), "Answers"} if c not in page] == []
    assert [name for name in FIGURES if f"{RESULTS}/figures/{name}.svg" not in page] == []


def test_every_figure_has_a_category_and_a_caption():
    text = (ROOT / "rules/report.smk").read_text()
    found = dict(re.findall(r'^    "(\w+)": \("([^"]+)"', text, re.MULTILINE))
    by_name = {"training": "Training", "rival": "Look closer", "coverage": "Look closer"}
    assert found == FIGURES | by_name
    for name in found:
        assert (ROOT / f"rules/captions/{name}.rst").read_text().strip(), name


def test_every_rule_has_a_docstring(pristine):
    listed = succeed(pristine, "--list", configs=()).output
    described = dict(re.findall(r"^(\w+) \((.+)\)$", listed, re.MULTILINE))
    assert set(described) == set(rule_texts())


@pytest.mark.parametrize("rule", sorted(rule_texts().keys() - {"all"}))
def test_every_rule_has_all_that_a_cluster_and_a_reader_need(rule):
    text = rule_texts()[rule]
    directives = set(re.findall(r"^    (\w+):", text, re.MULTILINE))
    assert {"log", "benchmark", "conda", "resources", "script"} <= directives
    assert {"budget", "mem_mb", "runtime"} <= set(
        re.findall(r"^        (\w+)=", text, re.MULTILINE)
    )


def budgets(run):
    """The budget that every job of a run takes, by rule."""
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?: +.*\n)+)", run.output, re.MULTILINE)
    taken = {name: re.search(r"\bbudget=(\d+)", block) for name, block in blocks if name != "all"}
    return {name: int(found[1]) if found else None for name, found in taken.items()}


def whole_budget(run):
    return int(re.search(r"^Provided resources:.*\bbudget\b\D*(\d+)", run.output, re.MULTILINE)[1])


@pytest.mark.parametrize("more", [(), ("--resources", "mem_mb=100000")])
def test_a_timing_job_takes_the_whole_budget_and_any_other_one_unit(tree, more):
    run = succeed(tree, "-n", "--forceall", *more)
    taken = budgets(run)
    assert set(taken) == set(rule_texts()) - {"all"} - UNUSED
    (tree / RESULTS / "sweep.parquet").unlink()
    whole = whole_budget(succeed(tree, f"{RESULTS}/sweep.parquet", "--cores", "2", *more))
    assert whole == available_cpu_count() > 1
    assert {name for name, budget in taken.items() if budget == whole} == TIMING_RULES - UNUSED
    assert {taken[name] for name in taken.keys() - TIMING_RULES} == {1}


def test_the_rules_that_take_timings_are_those_that_say_so():
    assert {n for n, text in rule_texts().items() if "budget=BUDGET" in text} == TIMING_RULES


def test_nothing_runs_beside_a_timing_job(finished_run):
    output = finished_run[1].output
    running, beside = {}, []
    for rule, job, done in re.findall(
        r"^(?:local)?rule (\w+):\n(?: +.*\n)*?    jobid: (\d+)|^Finished jobid: (\d+)",
        output,
        re.MULTILINE,
    ):
        if done:
            running.pop(done)
        else:
            running[job] = rule
            if len(running) > 1 and TIMING_RULES & set(running.values()):
                beside.append(sorted(running.values()))
    assert beside == []
    assert running == {}


def test_profiles_name_only_rules_that_exist():
    profiles = list((ROOT / "profiles").glob("*/profile.yaml"))
    assert profiles
    for profile in profiles:
        settings = yaml.safe_load(profile.read_text())
        for key in ("set-resources", "set-threads"):
            named = {str(item).split(":")[0].split("=")[0] for item in settings.get(key) or ()}
            assert named <= set(rule_texts()), f"{profile}: {key}"
