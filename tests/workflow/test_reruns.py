"""What a further run does again, and what it leaves alone."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from workflow_helpers import (
    CONFIGS,
    EXITS,
    RESULTS,
    SPLITS,
    config_file,
    succeed,
)
from workflow_tables import (
    ANALYSIS,
    FROM_THRESHOLDS,
    LOOKED_AT,
    POLICIES,
    RERUN_BY,
    draw_again,
    frame,
    overall,
    read,
)

from offramp.figures.draw import draw
from offramp.report.results import read_results
from offramp.scoring.criteria import scores_of
from offramp.scoring.scores import read_logits_of, read_scores
from offramp.tables.files import read_logits
from offramp.thresholds.calibration import CalibrationData
from offramp.thresholds.joint import costs_of
from offramp.thresholds.optimism import optimism as optimism_of
from offramp.thresholds.time_model import fit_time_model

pytest_plugins = ["workflow_helpers"]


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
    assert set(run.jobs) == ANALYSIS - {"sweep"} - LOOKED_AT
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
    costs = costs_of(fit_time_model(read(tree, "timings"), 64))
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
    assert set(run.jobs) == (ANALYSIS | {"probe", "timings", "scores"}) - LOOKED_AT
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
    other = {"criterion": "deferral", "sweep": {"report_cutoff": 0.05}}
    configs = (*CONFIGS, config_file(tree, "other.yaml", other))
    run = succeed(tree, f"{RESULTS}/summary.md", "--cores", "2", configs=configs)
    assert set(run.jobs) == (ANALYSIS | {"deferral", "probe", "timings", "scores"}) - LOOKED_AT
    draw_again(tree, tmp_path, ["entropy", "time_cutoff"])
    live = frame(tree, "verification")
    assert (live["differ"] == live["excused"]).all()
    assert live["policy"].nunique() >= len(POLICIES) + 10
    rows = [row for row in read(tree, "deferral").to_pylist() if row["part"] == 0]
    for name in POLICIES:
        policy = json.loads((tree / RESULTS / f"policies/{name}.json").read_text())
        assert policy["criterion"] == "deferral"
        assert policy["weights"] == [row["weights"] for row in rows]
    # Other weights score what fitted these, and no sample is set aside.
    known = tuple(tuple(row["weights"]) for row in rows)
    for split, same in (("val", False), ("test", True)):
        logits = read_logits(tree / RESULTS / f"logits/{split}.parquet")[2]
        found = read_scores(tree / RESULTS / f"scores/{split}.parquet")[0]
        assert np.array_equal(found, scores_of("deferral", logits, weights=known)) == same
    text = (tree / RESULTS / "summary.md").read_text()
    assert "by deferral of raw logits, fitted to validation data, so all that is promised" in text


def test_criteria_and_methods_are_compared_by_name(tree):
    assert succeed(tree, "-n").jobs == {}
    run = succeed(tree, f"{RESULTS}/frontiers.md", "--cores", "2")
    assert run.jobs == {"deferral": 1, "frontiers": 1, "frontiers_page": 1}
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
