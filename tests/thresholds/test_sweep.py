"""The one-sort sweep against a slow loop over cutoffs, batches, samples and exits."""

import math

import numpy as np
import pytest
from conftest import documented, hand_made_model, slow_exit, slow_stage_seconds
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offramp import OfframpError
from offramp.thresholds.evaluation import accuracy_or_none
from offramp.thresholds.sweep import CHUNK, cutoff_ends, cutoff_grid, sweep_rows, sweep_split

# Entropies and cutoffs share these few values, so that ties are the rule and not the exception.
LEVELS = [0.0, 0.3, 0.6, 1.0, math.log(10)]
NATS = (0.0, math.log(10))
CUTOFFS = np.array([-1.0, 0.0, 0.1, 0.3, 0.6, 0.8, 1.0, math.log(10)])


def matrix(values, rows: int, columns: int):
    row = st.lists(values, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)


@st.composite
def scored_splits(draw):
    exits, samples = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    entropy = draw(matrix(st.sampled_from(LEVELS), samples, exits))
    right = draw(st.sampled_from([st.booleans(), st.just(True), st.just(False)]))
    correct = draw(matrix(right, samples, exits))
    batch_size = draw(st.integers(1, samples + 3))
    return np.array(entropy), np.array(correct), batch_size


def slow_sweep(entropy, correct, cutoffs, model, batch_size):
    """n, correct and seconds, each a list over cutoffs of lists over exits."""
    samples, exits = entropy.shape
    all_n, all_correct, all_seconds = [], [], []
    for cutoff in cutoffs.tolist():
        n, right, taken = [0] * exits, [0] * exits, []
        for sample in range(samples):
            exit_ = slow_exit(entropy[sample].tolist(), [cutoff] * (exits - 1))
            taken.append(exit_)
            n[exit_ - 1] += 1
            if correct[sample, exit_ - 1]:
                right[exit_ - 1] += 1
        all_n.append(n)
        all_correct.append(right)
        # A cutoff is not a disabled exit: every head runs, even at a cutoff at which none leave.
        all_seconds.append(slow_stage_seconds(model, taken, batch_size, [True] * exits))
    return all_n, all_correct, all_seconds


def assert_sweep_is_the_slow_sweep(entropy, correct, cutoffs, batch_size):
    samples, exits = entropy.shape
    model = hand_made_model(exits, min(samples, batch_size), batch_size)
    result = sweep_split(entropy, correct, cutoffs, model)
    n, right, seconds = slow_sweep(entropy, correct, cutoffs, model, batch_size)
    assert result["n"].tolist() == n
    assert result["correct"].tolist() == right
    np.testing.assert_allclose(result["seconds"], seconds, rtol=1e-12)
    full = slow_stage_seconds(model, [exits] * samples, batch_size, [False] * (exits - 1) + [True])
    np.testing.assert_allclose(result["full"], [sum(full)], rtol=1e-12)


@given(scored_splits())
@example((np.zeros((7, 4)), np.ones((7, 4), dtype=bool), 3))
@example((np.full((7, 4), math.log(10)), np.zeros((7, 4), dtype=bool), 10))
@example((np.zeros((5, 1)), np.array([[True], [False], [True], [True], [False]]), 2))
@settings(max_examples=200)
def test_the_sweep_is_the_slow_loop(case):
    entropy, correct, batch_size = case
    assert_sweep_is_the_slow_sweep(entropy, correct, CUTOFFS, batch_size)


def test_the_sweep_is_the_slow_loop_on_continuous_entropies_and_many_cutoffs():
    random = np.random.default_rng(3)
    entropy = random.uniform(0, math.log(10), (60, 6))
    correct = random.random((60, 6)) < 0.7
    cutoffs = cutoff_grid(2 * CHUNK + 5, 0.6, NATS)  # more than two chunks, the last one not full
    assert_sweep_is_the_slow_sweep(entropy, correct, cutoffs, 13)


def test_when_all_leave_at_exit_1_later_stages_cost_nothing():
    entropy = np.zeros((9, 3))
    model = hand_made_model(3, 4)
    result = sweep_split(entropy, np.ones((9, 3), dtype=bool), np.array([0.0]), model)
    assert result["n"].tolist() == [[9, 0, 0]]
    assert result["seconds"][0, 1:].tolist() == [0.0, 0.0]
    # All of a batch leave, so nothing has to be removed.
    assert result["seconds"][0, 0] == pytest.approx(sum(model.parts[:, 0, [4, 4, 1]].ravel()))


def test_a_cutoff_of_zero_runs_every_head_and_costs_more_than_the_full_network():
    entropy = np.ones((8, 3))
    model = hand_made_model(3, 8)
    result = sweep_split(entropy, np.ones((8, 3), dtype=bool), np.array([0.0]), model)
    assert result["n"].tolist() == [[0, 0, 8]]
    assert result["seconds"].sum() == pytest.approx(model.parts[:, :, 8].sum())
    assert result["seconds"].sum() > result["full"][0]


def test_a_count_of_cutoffs_spans_the_range_with_both_ends_exact():
    grid = cutoff_grid(100, 0.6, NATS)
    assert len(grid) == 101  # 0.6 is not one of the hundred
    assert grid[0] == 0.0
    assert grid[-1] == math.log(10)
    np.testing.assert_allclose(np.diff(grid[grid != 0.6]), math.log(10) / 99, rtol=1e-12)
    assert (grid == 0.6).sum() == 1


@pytest.mark.parametrize("report", [0.0, math.log(10)])
def test_a_report_cutoff_already_on_the_grid_stands_there_once(report):
    grid = cutoff_grid(100, report, NATS)
    assert len(grid) == 100
    assert (grid == report).sum() == 1


@pytest.mark.parametrize("report", [-0.1, 2.4, float("nan")])
def test_a_report_cutoff_outside_the_scores_is_refused(report):
    with pytest.raises(OfframpError, match=r"sweep\.report_cutoff: .* 0\.0000 to 2\.3026"):
        cutoff_grid(100, report, NATS)


def test_the_ends_may_be_below_zero():
    assert cutoff_grid(3, 1.0, (-5.0, 5.0)).tolist() == [-5.0, 0.0, 1.0, 5.0]


def test_a_count_of_cutoffs_is_spread_as_the_criterion_asks():
    assert cutoff_grid(3, 0.5, (0.0, 1.0), "deferral").tolist() == [0.0, 0.125, 0.5, 1.0]


def test_a_list_of_cutoffs_is_taken_as_it_is_sorted_and_without_doubles():
    assert cutoff_grid([1.5, 0.2, 0.6, 0.2], 0.6, NATS).tolist() == [0.2, 0.6, 1.5]
    assert cutoff_grid([2.0, 1], 0.6, NATS).tolist() == [0.6, 1.0, 2.0]
    assert cutoff_grid([], 0.6, NATS).tolist() == [0.6]


def rows_by_key(rows: dict) -> dict:
    """The rows as dictionaries, by (cutoff, exit)."""
    names = list(rows)
    listed = [dict(zip(names, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    found = {(row["cutoff"], row["exit"]): row for row in listed}
    assert len(found) == len(listed)
    return found


@given(scored_splits())
def test_sweep_rows_are_one_overall_row_and_one_row_an_exit(case):
    entropy, correct, batch_size = case
    samples, exits = entropy.shape
    model = hand_made_model(exits, samples, batch_size)
    result = sweep_split(entropy, correct, CUTOFFS, model)
    rows = rows_by_key(sweep_rows("val", "margin", CUTOFFS, result))
    assert len(rows) == len(CUTOFFS) * (exits + 1)
    for m, cutoff in enumerate(CUTOFFS):
        parts = [rows[cutoff, k] for k in range(1, exits + 1)]
        for k, row in enumerate(parts):
            assert (row["split"], row["criterion"]) == ("val", "margin")
            assert (row["n"], row["correct"]) == (result["n"][m, k], result["correct"][m, k])
            assert row["accuracy"] == (row["correct"] / row["n"] if row["n"] else None)
            assert row["seconds"] == result["seconds"][m, k]
            assert row["speedup"] is None
        overall = rows[cutoff, 0]
        assert overall["n"] == samples == sum(row["n"] for row in parts)
        assert overall["correct"] == sum(row["correct"] for row in parts)
        assert overall["seconds"] == pytest.approx(sum(row["seconds"] for row in parts))
        assert overall["accuracy"] == overall["correct"] / samples
        # The definition of the overall accuracy: the exits' accuracies weighted by their samples.
        weighted = sum(row["accuracy"] * row["n"] for row in parts if row["n"])
        assert overall["accuracy"] == pytest.approx(weighted / samples)
        assert overall["speedup"] == pytest.approx(result["full"][0] / overall["seconds"])


def test_an_exit_where_nobody_leaves_has_no_accuracy():
    assert accuracy_or_none(np.array([0, 0, 3]), np.array([0, 2, 4])) == [None, 0.0, 0.75]


def test_cutoffs_lie_within_the_criterion_s_range_or_the_training_scores():
    train = np.array([[-3.0, -8.5], [2.0, 1.0]])
    assert cutoff_ends("entropy", 3, 100, None) == (0.0, np.log(3))
    assert cutoff_ends("entropy", 3, 100, train) == (0.0, np.log(3))
    assert cutoff_ends("energy", 3, 100, train) == (-8.5, 2.0)
    assert cutoff_ends("energy", 3, [-40.0, 3.0], train) == (-8.5, 2.0)
    assert cutoff_ends("energy", 3, [-40.0, 3.0], None) == (-np.inf, np.inf)
    assert cutoff_grid([-40.0, 3.0], -7.0, (-np.inf, np.inf), "energy").tolist() == [-40, -7, 3]


def test_cutoffs_without_ends_or_beyond_them_are_named():
    for arguments, words in (
        (("energy", 3, 100, None), "config: sweep.cutoffs: energy has no range of its own"),
        (("entropy", 2, [0.1, 0.7], None), "config: sweep.cutoffs: 0.7 is outside the range of"),
    ):
        with pytest.raises(OfframpError) as caught:
            cutoff_ends(*arguments)
        assert words in str(caught.value)
        assert documented(str(caught.value))
