"""Runs side by side: who is right under which policy, paired, and what differs."""

import json

import numpy as np
import pytest
from conftest import documented

from offramp import OfframpError
from offramp.common.intervals import paired_difference
from offramp.report.compare_page import Compared, compare_page, read_run

DRAW = np.random.default_rng(5)
SCORES, CORRECT = DRAW.random((60, 3)), DRAW.random((60, 3)) < 0.7


def run_of(thresholds, samples="a", found=True, **config):
    about = {"model": "toy", "unit": "mJ", "device_name": None, "batch_size": 8}
    test = {"seconds": 12.5, "speedup": 1.75} if found else None
    policy = {"thresholds": thresholds, "test": test, "live": None}
    summary = {
        "about": about,
        "full_network": {"test": {"seconds": 4321.0}},
        "best": policy,
        "task_2a": policy | {"test": [{"seconds": 9.0, "speedup": 2.0}, {}]},
        "config": config,
    }
    return Compared(summary, SCORES, CORRECT, samples)


def rows_of(page, title):
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if "|" in line]
    return {line[0].strip("`"): line for line in lines[2:]}


def slow_right(thresholds):
    right = []
    for scores, correct in zip(SCORES, CORRECT, strict=True):
        fires = [t is not None and s <= t for s, t in zip(scores, thresholds, strict=False)]
        right.append(correct[fires.index(True) if True in fires else 2])
    return np.array(right)


def test_accuracies_and_paired_points_are_those_of_the_samples():
    thresholds = {"a": [0.5, 0.5], "b": [None, 0.8], "c": [0.1, None]}
    page = compare_page({name: run_of(t) for name, t in thresholds.items()})
    rows = rows_of(page, "The best policy")
    right = {name: slow_right(t) for name, t in thresholds.items()}
    for name, row in rows.items():
        assert row[2].startswith(f"{right[name].mean():.2%} [")
        assert row[4:] == ["12.5 mJ", "1.75x"]
        if name != "a":
            points, low, high = (100 * x for x in paired_difference(right[name], right["a"]))
            assert row[3] == f"{points:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert [row[1] for row in rows.values()] == ["0.5000 0.5000", "off 0.8000", "0.1000 off"]
    assert rows["a"][3] == ""
    assert rows_of(page, "Task 2a: the wanted accuracy")["b"][4:] == ["9 mJ", "2.00x"]
    assert rows_of(page, "The full network")["b"][4] == "4,321 mJ"
    assert "Nothing that counts." in page and "Times compare only" not in page


def test_other_samples_are_not_paired_and_other_clocks_are_named():
    other = run_of([0.5, 0.5], samples="b", found=False)
    other.summary["about"] |= {"device_name": "CPU", "threads": 2, "torch": "2", "unit": "s"}
    other.summary["best"]["live"] = {"speedup_measured": 1.5}
    page = compare_page({"a": run_of([0.5, 0.5]), "b": other})
    row = rows_of(page, "The best policy")["b"]
    # No candidate satisfied its rule: the full network.
    assert row[3:] == ["other samples", "4,321 s", "1.00x (1.50x)"]
    assert "`a`: costs in mJ; `b`: CPU, 2 threads, torch 2, batches of 8." in page


def test_what_differs_is_listed_key_by_key():
    first = run_of([0.5, 0.5], selection={"max_drop": 0.01, "rule": "knee"}, criterion="entropy")
    second = run_of(
        [0.5, 0.5], selection={"max_drop": 0.02, "rule": "knee"}, criterion="entropy",
        logits="results/a", sweep={"cutoffs": [1, 2, 3, 4, 5]},
    )  # fmt: skip
    rows = rows_of(compare_page({"a": first, "b": second}), "What differs in their configs")
    assert rows == {
        "selection.max_drop": ["`selection.max_drop`", "`0.01`", "`0.02`"],
        "logits": ["`logits`", "", '`"results/a"`'],
        "sweep.cutoffs": ["`sweep.cutoffs`", "", "5 values, 1 to 5"],
    }


def test_a_run_of_an_older_version_is_named(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"about": {}}))
    with pytest.raises(OfframpError) as caught:
        read_run(str(tmp_path))
    found = str(caught.value)
    assert found == f"{tmp_path}/summary.json: of an older version; run its config again"
    assert documented(found)
