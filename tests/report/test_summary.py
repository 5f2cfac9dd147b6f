"""What the summary says, from the numbers of a real run, changed where it matters."""

import copy
import json
import re
from pathlib import Path

import pytest
from conftest import documented

from offramp.report import answer, summary_page, words
from offramp.thresholds.selection import RULES

RECORD = Path(__file__).parents[2] / "docs/record/branchynet/summary.json"


@pytest.fixture
def run():
    """The summary of a real run, to change."""
    found = json.loads(RECORD.read_text())
    found["about"] |= {"unit": "s", "ran_live": True, "run": None, "logits": None}
    found["about"] |= {"classes": 10, "splits": {"train": 45000, "val": 5000, "test": 10000}}
    for task in ("task_1a", "task_2a"):
        found[task]["against_full_network"] = {"points": -0.03, "low": -0.035, "high": -0.025}
    found["task_2b"]["against_task_1b"] = {"points": 0.0, "low": -0.0009, "high": 0.0009}
    return copy.deepcopy(found) | {"overlooked": 0}


def first_lines(run):
    return summary_page.as_markdown(run).split("## What was measured")[0]


@pytest.mark.parametrize(
    ("accuracy", "low", "high", "said"),
    [
        (0.9105, 0.9047, 0.9160, "91.05% [90.47, 91.60]"),
        (0.8359, 0.8052, 0.8631, "83.6% [80.5, 86.3]"),
        (0.5, 0.2, 0.8, "50% [20, 80]"),
        (0.99999, 0.9999, 1.0, "100.00% [99.99, 100.00]"),
        (None, None, None, "nobody"),
    ],
)
def test_an_accuracy_has_the_digits_that_its_interval_deserves(accuracy, low, high, said):
    assert words.percent({"accuracy": accuracy, "low": low, "high": high}) == said


@pytest.mark.parametrize(
    ("value", "said"), [(-0.0, "+0.00"), (-0.00004, "+0.00"), (-0.0025, "-0.25"), (0.001, "+0.10")]
)
def test_no_difference_is_minus_zero(value, said):
    assert words.signed(value) == said


@pytest.mark.parametrize(
    ("value", "whole", "each"),
    [
        (12.34, "12.3 s", "12.3 s"),
        (1.0, "1.00 s", "1.00 s"),
        (0.0524, "0.0524 s", "52.4 ms"),
        (0.00017, "0.000170 s", "170 µs"),
        (0.0, "0.00 s", "0.00 µs"),
    ],
)
def test_seconds_have_three_digits(value, whole, each):
    assert (words.seconds(value), words.a_sample(value)) == (whole, each)


def test_the_summary_opens_with_what_to_use_how_accurate_how_fast_and_how_sure(run):
    live = run["best"]["live"]
    title, use, fares, sure, tasks = first_lines(run).strip().split("\n\n")
    assert title == "# Summary: branchynet on cifar10"
    assert "Use policies/best.json" in use
    assert f"{live['accuracy']:.2%}" in fares and "10,000 test samples" in fares
    assert f"**{live['speedup_measured']:.2f} times as fast**" in fares and "µs a sample" in fares
    assert "confidence" in sure and "150,000 decisions" in sure and "not one differs" in sure
    assert re.findall(r"^- \*\*(.+?)\.?\*\*", tasks, re.MULTILINE) == [
        "1a", "1b", "2a", "2b", "1b or 2b?",
    ]  # fmt: skip


def test_where_nothing_satisfies_the_rule_the_full_network_is_to_be_used(run):
    for best in (run["best"], run["task_1b"]["best"], run["task_2b"]["best"]):
        best["selection"]["satisfied"] = False
        best |= {"origin": None, "expected": None, "val": None, "test": None}
    text = first_lines(run)
    assert "**Use the full network: none of" in text and "best.json" not in text
    assert text.count("none is faster than the full network and satisfies the rule") == 2
    assert "no policy that is good enough" in text


def test_what_a_fitted_criterion_promises_is_called_an_estimate(run):
    assert "an estimate" not in first_lines(run)
    run["about"]["criterion"] = "deferral"
    assert "so this is an estimate" in first_lines(run)


def test_a_policy_that_is_slower_is_called_slower(run):
    run["best"]["live"] |= {"speedup_measured": 0.9, "speedup_low": 0.88, "speedup_high": 0.92}
    assert "0.90 times as fast**, so slower (0.88 and 0.92" in first_lines(run)


def test_a_quiet_machine_gets_no_warning(run):
    assert list(answer.warning(run)) == []


@pytest.mark.parametrize(
    ("proof", "live"),
    [
        ({"median_speedup_error": 0.72, "median_spread": 0.1}, {}),
        ({"median_spread": 0.6, "median_speedup_error": 0.3}, {}),
        ({}, {"speedup_predicted": 3.27, "speedup_measured": 0.82, "speedup_low": 0.49,
              "speedup_high": 2.5}),
    ],
)  # fmt: skip
def test_a_disturbed_machine_is_told_of_first_and_how_to_measure_again(run, proof, live):
    run["verification"] |= proof
    run["best"]["live"] |= live
    text = first_lines(run)
    assert text.split("\n\n")[1].startswith("**Warning: this machine was disturbed")
    assert documented(text)
    assert "`snakemake --cores all --forcerun logits probe verification`" in text


def test_what_measures_again_are_the_rules_that_take_timings():
    rules = (Path(__file__).parents[2] / "rules/inference.smk").read_text()
    named = answer.MEASURE_AGAIN.split("--forcerun ")[1].split()
    timed = [r for r in re.split(r"^rule ", rules, flags=re.MULTILINE) if "**TIMED" in r]
    assert named == [*(text.split(":")[0] for text in timed), "verification"]


@pytest.mark.parametrize(
    ("points", "own", "said"),
    [
        ((-0.001, 0.001), (1.2, 1.3), "Neither is better beyond chance"),
        ((0.001, 0.002), (1.2, 1.3), "2b is better"),
        ((-0.001, 0.001), (1.0, 1.1), "1b is better"),
        ((0.001, 0.002), (1.0, 1.1), "2b is more accurate, 1b faster"),
        ((-0.002, -0.001), (1.4, 1.5), "2b is faster, 1b more accurate"),
    ],
)
def test_the_best_of_1b_and_2b_are_compared(run, points, own, said):
    run["task_1b"]["best"]["live"] |= {"speedup_low": 1.2, "speedup_high": 1.3}
    run["task_2b"]["best"]["live"] |= {"speedup_low": own[0], "speedup_high": own[1]}
    low, high = points
    run["task_2b"]["against_task_1b"] = {"points": (low + high) / 2, "low": low, "high": high}
    assert answer.compared(run).startswith(said)


def test_why_the_last_are_the_least_accurate_is_said_only_where_they_are(run):
    rows, alone = run["task_1a"]["test"], run["exit_accuracy"]
    assert "the hardest" in answer.hardest(rows, alone)
    rows[-1]["accuracy"] = 1.0
    assert answer.hardest(rows, alone) == ""
    rows[-1] |= {"n": 0, "accuracy": None}
    assert answer.hardest(rows, alone) == ""


def test_targets_of_one_result_share_a_row_and_the_table_stays_short(run):
    table = summary_page._targets_table(run).splitlines()
    assert len(table) - 2 <= summary_page.TARGETS_SHOWN + 2 < len(run["task_2b"]["targets"]) / 2
    assert table[2].startswith("| 50% to ")
    assert sum("(best)" in line for line in table) == 1


def test_every_rule_has_its_words():
    assert set(answer.RULES_IN_WORDS) == set(RULES)


def test_what_only_test_data_know_is_said_as_such(run):
    assert "known only afterwards" not in summary_page.as_markdown(run)
    run["overlooked"] = 3
    assert "3 other cutoffs or sets of thresholds are faster" in summary_page.as_markdown(run)
