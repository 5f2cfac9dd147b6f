"""Which samples are easy: every count and second against a slow loop over the samples."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit, slow_stage_seconds

from offramp.figures.closer_figures import draw_agreement, draw_confusion, draw_leaving
from offramp.report.results import leaving_counts
from offramp.report.summary import leaving
from offramp.report.summary_page import _leaving_classes
from offramp.scoring.criteria import entropy
from offramp.scoring.policy import Policy, outcome_of_tables
from offramp.thresholds.leaving import (
    agreement_table,
    confusion_by_exit,
    leaving_table,
    oracle_exits,
    oracle_table,
)

EXITS, CLASSES, SAMPLES = 3, 10, 60
# Some leave everywhere; a disabled exit; an enabled one that nobody leaves at; all at exit 1.
THRESHOLDS = [(1.6, 1.7), (None, 1.6), (1.6, 0.0), (None, None), (2.4, 2.4)]


def some_logits(right: str = "some") -> tuple[np.ndarray, np.ndarray]:
    """logits (N, K, C) and label (N,); the label's own logit says how many exits are right."""
    draw = np.random.default_rng(3)
    logits = draw.normal(size=(SAMPLES, EXITS, CLASSES)).astype(np.float32)
    label = draw.integers(0, CLASSES, SAMPLES)
    push = {"some": 1.5, "all": 20.0, "none": -20.0}[right]
    logits[np.arange(SAMPLES), :, label] += push
    return logits, label


def slow_taken(logits: np.ndarray, thresholds) -> list[int]:
    return [slow_exit(row, thresholds) for row in entropy(logits.astype(np.float64)).tolist()]


def tables_of(logits, label, thresholds, batch_size=16):
    """Leaving, agreement and oracle as the script makes them, as data frames."""
    policy = Policy("entropy", thresholds)
    outcome, predicted = outcome_of_tables(policy, logits), logits.argmax(axis=2)
    model = hand_made_model(EXITS, SAMPLES, batch_size)
    correct = predicted == label[:, None]
    return (
        leaving_table(confusion_by_exit(outcome, label, EXITS, CLASSES)).to_pandas(),
        agreement_table(predicted, label).to_pandas(),
        oracle_table(correct, outcome, policy, model).to_pandas(),
    )


def results_of(thresholds, right="some") -> SimpleNamespace:
    """What figures and summary read of the tables."""
    leaving, agreement, oracle = tables_of(*some_logits(right), thresholds)
    shuffled = leaving.sample(frac=1, random_state=0)
    origin = {"dataset": "cifar10"}
    return SimpleNamespace(leaving=shuffled, agreement=agreement, oracle=oracle, origin=origin)


@pytest.mark.parametrize("thresholds", THRESHOLDS)
def test_the_leaving_table_counts_each_sample_once_where_it_leaves(thresholds):
    logits, label = some_logits()
    leaving, _, _ = tables_of(logits, label, thresholds)
    want = {}
    for sample, truth, k in zip(logits, label, slow_taken(logits, thresholds), strict=True):
        cell = (k, int(truth), max(range(CLASSES), key=lambda c, z=sample[k - 1]: z[c]))
        want[cell] = want.get(cell, 0) + 1
    assert len(leaving) == EXITS * CLASSES**2
    cells = zip(leaving["exit"], leaving["label"], leaving["predicted"], strict=True)
    found = dict(zip(cells, leaving["n"], strict=True))
    assert {cell: n for cell, n in found.items() if n} == want


def test_agreement_is_the_slow_loop_over_pairs_and_samples():
    logits, label = some_logits()
    _, agreement, _ = tables_of(logits, label, (1.6, 1.7))
    said = [[int(np.argmax(z)) for z in sample] for sample in logits]
    assert list(zip(agreement["first"], agreement["second"], strict=True)) == [
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3)
    ]
    for row in agreement.itertuples():
        same = both = only_first = 0
        for labels, truth in zip(said, label, strict=True):
            a, b = labels[row.first - 1], labels[row.second - 1]
            same += a == b
            both += a == truth and b == truth
            only_first += a == truth and b != truth
        assert (row.n, row.same_label, row.both_right) == (SAMPLES, same, both)
        assert row.only_first_right == only_first
    apart = agreement[agreement["first"] != agreement["second"]]
    assert (apart["same_label"] > apart["both_right"]).any() and apart["only_first_right"].all()


@pytest.mark.parametrize(("right", "only"), [("all", 1), ("none", EXITS)])
def test_the_oracle_leaves_at_once_where_all_are_right_and_at_the_end_where_none_is(right, only):
    logits, label = some_logits(right)
    assert set(oracle_exits(logits.argmax(axis=2) == label[:, None])) == {only}


def test_the_oracle_leaves_at_the_first_right_exit():
    correct = np.array(
        [[0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=bool
    )
    assert oracle_exits(correct).tolist() == [2, 1, 3, 3, 2, 1]


def test_an_oracle_without_side_exits_is_the_full_network():
    assert oracle_exits(np.array([[True], [False]])).tolist() == [1, 1]


@pytest.mark.parametrize("right", ["some", "all", "none"])
@pytest.mark.parametrize("thresholds", THRESHOLDS)
def test_the_oracle_table_is_the_slow_loop(right, thresholds):
    logits, label = some_logits(right)
    oracle = tables_of(logits, label, thresholds, batch_size=7)[2]
    model = hand_made_model(EXITS, SAMPLES)
    hits = [[np.argmax(z) == t for z in s] for s, t in zip(logits, label, strict=True)]
    first = [row.index(True) + 1 if True in row else EXITS for row in hits]
    cases = {
        "full": ([EXITS] * SAMPLES, [False, False, True]),
        "policy": (slow_taken(logits, thresholds), [t is not None for t in thresholds] + [True]),
        "oracle": (first, [True] * EXITS),
        "exit_1": ([1] * SAMPLES, [True, False, False]),
        "exit_2": ([2] * SAMPLES, [False, True, False]),
    }
    assert list(dict.fromkeys(oracle["exit_rule"])) == list(cases)
    full = sum(slow_stage_seconds(model, *_with_batch(cases["full"], 7)))
    for rule, case in cases.items():
        rows = oracle[oracle["exit_rule"] == rule]
        seconds = slow_stage_seconds(model, *_with_batch(case, 7))
        assert rows["exit"].tolist() == [0, 1, 2, 3]
        assert rows["n"].tolist() == [SAMPLES, *(case[0].count(k) for k in (1, 2, 3))]
        correct = [
            sum(row[k - 1] for row, at in zip(hits, case[0], strict=True) if at == k)
            for k in (1, 2, 3)
        ]
        assert rows["correct"].tolist() == [sum(correct), *correct]
        np.testing.assert_allclose(rows["seconds"], [sum(seconds), *seconds], rtol=1e-12)
        assert rows["speedup"].iloc[0] == pytest.approx(full / sum(seconds))


def _with_batch(case, batch_size):
    taken, enabled = case
    return taken, batch_size, enabled


def test_counts_come_back_from_the_table_in_whatever_order_its_rows_are():
    logits, label = some_logits()
    outcome = outcome_of_tables(Policy("entropy", (1.6, 1.7)), logits)
    want = confusion_by_exit(outcome, label, EXITS, CLASSES)
    np.testing.assert_array_equal(leaving_counts(results_of((1.6, 1.7))), want)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_confusion_figure_has_a_panel_for_every_exit_also_where_nobody_leaves():
    figure = draw_confusion(results_of((None, 1.6)))
    first, second, third = figure.axes[:3]
    assert first.get_title("left") == "exit 1: nobody leaves" and texts(first) == []
    shown = sum(int(text) for axes in (second, third) for text in texts(axes))
    assert shown == SAMPLES


def names_classes(axis) -> bool:
    labels = [tick.label1 for tick in axis.get_major_ticks() if tick.label1.get_visible()]
    return axis.get_visible() and "frog" in [label.get_text() for label in labels]


def test_the_confusion_figure_names_the_classes_below_each_column_and_left_of_each_row():
    leaving = leaving_table(np.ones((5, 10, 10), dtype=np.int64)).to_pandas()
    figure = draw_confusion(SimpleNamespace(leaving=leaving, origin={"dataset": "cifar10"}))
    figure.draw_without_rendering()
    panels = figure.axes[:5]
    assert [k for k, axes in enumerate(panels, 1) if names_classes(axes.xaxis)] == [4, 5]
    assert [k for k, axes in enumerate(panels, 1) if names_classes(axes.yaxis)] == [1, 3, 5]


def test_the_leaving_figure_has_the_class_that_leaves_earliest_on_top():
    results = results_of((1.6, 1.7))
    figure = draw_leaving(results)
    axes = figure.axes[0]
    means = (
        results.leaving.groupby("label")[["exit", "n"]]
        .apply(lambda rows: np.average(rows["exit"], weights=rows["n"]))
        .to_numpy()
    )
    drawn = [tick.get_text() for tick in axes.get_yticklabels()]
    assert drawn == [row["class"] for row in leaving(results)["classes"]]
    assert [row["mean_exit"] for row in leaving(results)["classes"]] == pytest.approx(sorted(means))
    assert sum(int(text) for text in texts(axes)) == SAMPLES


def test_the_agreement_figure_reads_rows_as_the_exit_that_is_right():
    results = results_of((1.6, 1.7))
    figure = draw_agreement(results)
    rows = results.agreement
    lost = rows[(rows["first"] == 1) & (rows["second"] == 3)]["only_first_right"].item()
    cells = {tuple(map(round, t.get_position())): t.get_text() for t in figure.axes[1].texts}
    assert cells[(2, 0)] == f"{100 * lost / SAMPLES:.1f}"
    assert (0, 0) not in cells


def test_the_summary_counts_overthinking_as_right_before_and_wrong_at_the_end():
    logits, label = some_logits()
    found = leaving(results_of((1.6, 1.7)))
    want = 0
    for sample, truth in zip(logits, label, strict=True):
        *before, final = [np.argmax(z) == truth for z in sample]
        want += any(before) and not final
    assert found["overthinking"] == want > 0
    assert set(found["exit_rules"]) == {"full", "policy", "oracle", "exit_1", "exit_2"}


def test_a_class_without_samples_has_no_place_among_the_easy_and_the_hard():
    results = results_of((1.6, 1.7))
    results.leaving.loc[results.leaving["label"] == 3, "n"] = 0
    classes = [row["class"] for row in leaving(results)["classes"]]
    assert len(classes) == CLASSES - 1 and "cat" not in classes
    draw_leaving(results)


def test_the_summary_names_no_easy_class_where_all_leave_alike():
    rows = [{"class": name, "mean_exit": 1.0, "before_final": 1.0} for name in ("cat", "dog")]
    assert _leaving_classes(rows).endswith("no class of test samples leaves earlier than another.")
    rows[1] = {"class": "dog", "mean_exit": 2.5, "before_final": 0.75}
    assert "`cat` (after exit 1.0 on average, 100% before" in _leaving_classes(rows)
    assert "those of `dog` (after exit 2.5 on average, 75% before" in _leaving_classes(rows)
