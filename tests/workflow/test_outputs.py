"""What a run leaves behind, and that its tables agree with each other."""

import json
import math
import re
import subprocess
from functools import partial

import numpy as np
import pytest
from pictures import cut_off
from workflow_helpers import (
    EXITS,
    RESULTS,
    SPLITS,
    UNUSED,
    rule_texts,
)
from workflow_tables import (
    DRAWN,
    FIGURES,
    POLICIES,
    TABLES,
    TIMED,
    all_tables,
    draw_again,
    frame,
    metadata,
    overall,
    read,
    slow_counts,
    slow_entropy,
    slow_thresholds,
)

from offramp.figures.draw import DRAW

pytest_plugins = ["workflow_helpers"]


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


def test_a_run_makes_every_table_policy_figure_and_the_summary(finished):
    results = finished / RESULTS
    wanted = [f"{name}.parquet" for name in TABLES]
    wanted += [f"policies/{name}.json" for name in POLICIES]
    wanted += [f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")]
    wanted += ["summary.md", "summary.html", "summary.json", "explorer.html"]
    wanted += ["model/weights.safetensors"]
    wanted += ["figures/training.svg", "figures/training.png"]
    assert [name for name in wanted if not (results / name).stat().st_size] == []


def test_a_run_leaves_no_unfinished_file(finished):
    assert list(finished.rglob("*.part")) == []
    assert not (finished / RESULTS / "model/resume.pt").exists()
    assert sorted(p.name for p in (finished / "data").iterdir()) == ["digits"]


def test_every_job_has_a_log_without_carriage_returns(finished):
    logs = {p.stem: p.read_bytes() for p in (finished / RESULTS / "logs").iterdir()}
    split_rules = {f"{rule}_{split}" for rule in ("logits", "scores") for split in SPLITS}
    once = set(rule_texts()) - {"all", "logits", "scores", "figure"} - UNUSED
    assert set(logs) == once | split_rules | DRAWN | {"figure_training"}
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
    for rule, record in summary["leaving"]["exit_rules"].items():
        row = overall(oracle[oracle["exit_rule"] == rule]).iloc[0]
        assert all(record[key] == row[key] for key in ("n", "correct", "seconds", "speedup"))
    assert sum(row["n"] for row in summary["leaving"]["classes"]) == SPLITS["test"]


def test_the_summary_names_every_figure_and_task(finished):
    text = (finished / RESULTS / "summary.md").read_text()
    assert all(f"(figures/{name}.svg)" in text for name in FIGURES)
    assert all(f"Task {task}" in text for task in ("1a", "1b", "2a", "2b"))


def test_the_page_holds_the_whole_summary(finished):
    page = (finished / RESULTS / "summary.html").read_text()
    assert page.count('src="data:image/svg+xml;base64,') == len(FIGURES)
    headings = re.findall(r"^## (.+)$", (finished / RESULTS / "summary.md").read_text(), re.M)
    assert [h for h in headings if f"<h2>{h}</h2>" not in page] == []


def test_a_run_ends_with_where_to_look(finished_run):
    last = finished_run[1].output.strip().splitlines()[-3:]
    assert [line.split(":")[0] for line in last] == ["The answers", "The figures", "On one page"]
    for line in last:
        assert (finished_run[0] / line.split()[2 if "page" not in line else 3]).exists()


def test_every_figure_says_what_it_shows_with_its_number(finished):
    tables = all_tables(finished)
    for name in FIGURES:
        headline = DRAW[name](tables).get_suptitle()
        assert re.search(r"\d", headline) and len(headline) < 90, name


def test_no_text_of_a_figure_is_cut_off(finished, tmp_path, monkeypatch):
    drawn = {}
    for name, function in list(DRAW.items()):
        keep = partial(_kept, drawn, name, function)
        monkeypatch.setitem(DRAW, name, keep)
    draw_again(finished, tmp_path)
    assert {name: cut_off(figure) for name, figure in drawn.items()} == {n: [] for n in FIGURES}


def _kept(drawn, name, function, tables):
    drawn[name] = function(tables)
    return drawn[name]


@pytest.mark.parametrize("name", POLICIES)
def test_the_policies_were_chosen_on_validation_data(finished, name):
    policy = json.loads((finished / RESULTS / f"policies/{name}.json").read_text())
    assert len(policy["thresholds"]) == EXITS - 1
    assert policy["provenance"]["split"] == "val"
    assert policy.get("expected", {"split": "val"})["split"] == "val"
