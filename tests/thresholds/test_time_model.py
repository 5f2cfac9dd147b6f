"""The time model: what it recovers from a probe, and what it charges for."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import hand_made_model, linear_seconds, probe_table, slow_stage_seconds
from hypothesis import given
from hypothesis import strategies as st

from offramp import OfframpError
from offramp.tables.schemas import TIMINGS
from offramp.thresholds.time_model import (
    PARTS,
    batch_of,
    fit_time_model,
    full_network_seconds,
    reached_by,
    stage_seconds,
)


@st.composite
def taken_exits(draw):
    exits = draw(st.integers(1, 5))
    taken = draw(st.lists(st.integers(1, exits), min_size=1, max_size=30))
    return exits, taken, draw(st.integers(1, len(taken) + 3))


def test_the_fit_recovers_a_linear_formula_at_measured_and_unmeasured_sizes():
    model = fit_time_model(probe_table(exits=3))
    for p, part in enumerate(PARTS):
        for k in range(3):
            want = [linear_seconds(part, k + 1, n) for n in range(1, 9)]
            np.testing.assert_allclose(model.parts[p, k, 1:], want, rtol=1e-12)
    for k in range(2):
        # linear_seconds("remove", ...) = 1e-5 exit (1 + 0.25 n + 0.75 kept)
        np.testing.assert_allclose(
            model.removal[k], 1e-5 * (k + 1) * np.array([1, 0.25, 0.75]), rtol=1e-9
        )


def test_an_empty_batch_costs_nothing():
    assert (fit_time_model(probe_table(exits=2)).parts[:, :, 0] == 0).all()


def test_the_median_of_the_repeats_counts_and_not_their_mean():
    model = fit_time_model(probe_table(exits=1, noise=(1.0, 0.9, 50.0, 1.0, 1.1)))
    assert model.parts[0, 0, 4] == pytest.approx(linear_seconds("block", 1, 4))


def of_the_pass(size: int, factor: float, exits: int = 2) -> pa.Table:
    """Rows of a split's pass in batches of ``size``, ``factor`` times as slow as the probe's."""
    rows = probe_table(exits, sizes=(size,), noise=(factor, 0.5 * factor, 9 * factor))
    index = rows.schema.get_field_index("split")
    table = rows.set_column(index, "split", pa.array(["test"] * len(rows))).cast(TIMINGS)
    return table.filter(pc.field("part") != "remove")


def test_the_pass_over_the_data_says_what_a_full_batch_takes_and_the_probe_the_shape():
    probe = probe_table(exits=2)
    alone = fit_time_model(probe)
    both = fit_time_model(pa.concat_tables([probe, of_the_pass(8, 3.0)]))
    np.testing.assert_allclose(both.parts, 3 * alone.parts, rtol=1e-12)
    np.testing.assert_allclose(both.removal, 3 * alone.removal, rtol=1e-12)


def test_a_pass_in_batches_of_another_size_says_nothing():
    probe = probe_table(exits=2)
    both = fit_time_model(pa.concat_tables([probe, of_the_pass(4, 3.0)]))
    np.testing.assert_array_equal(both.parts, fit_time_model(probe).parts)


def test_a_drift_between_rounds_does_not_change_the_shape():
    """The rounds hold different sizes: means over all of them would mix pace and size."""
    steady = probe_table(exits=1, sizes=(2, 4, 8), noise=(1.0, 1.0, 1.0))
    slow = [5.0 if r == 2 else 1.0 for r in steady["repeat"].to_pylist()]
    odd = [
        n == 2 and r != 2
        for n, r in zip(steady["batch_size"].to_pylist(), steady["repeat"].to_pylist(), strict=True)
    ]
    index = steady.schema.get_field_index("seconds")
    drifted = steady.set_column(index, "seconds", pc.multiply(steady["seconds"], pa.array(slow)))
    drifted = drifted.filter(pa.array([not one for one in odd]))
    np.testing.assert_allclose(
        fit_time_model(drifted).parts[:, :, [2, 4, 8]],
        fit_time_model(steady).parts[:, :, [2, 4, 8]],
        rtol=1e-12,
    )


def test_between_measured_sizes_the_time_lies_between_theirs():
    model = fit_time_model(probe_table(exits=2, sizes=(1, 3, 8, 20)))
    assert (np.diff(model.parts[:, :, 1:], axis=2) > 0).all()


def test_a_table_without_probe_rows_is_refused():
    with pytest.raises(OfframpError, match="probe"):
        fit_time_model(TIMINGS.empty_table())


def test_a_network_without_side_exits_has_no_removal():
    assert fit_time_model(probe_table(exits=1)).removal.shape == (0, 3)


def test_a_probe_of_batches_of_one_can_be_fitted():
    # One sample either leaves or stays, so a probe at batch_size 1 has no removal rows at all.
    table = probe_table(exits=3, sizes=(1,))
    assert "remove" not in table["part"].to_pylist()
    model = fit_time_model(table)
    seconds = stage_seconds(model, np.array([[1, 1, 1]]), np.ones((2, 3), dtype=bool))
    want = [sum(linear_seconds(part, k, 1) for part in PARTS) for k in (1, 2, 3)]
    np.testing.assert_allclose(seconds, want)


@given(taken_exits())
def test_reached_is_counted_as_a_loop_counts(case):
    exits, taken, batch_size = case
    batches = [taken[i : i + batch_size] for i in range(0, len(taken), batch_size)]
    want = [[sum(1 for t in batch if t >= k) for k in range(1, exits + 1)] for batch in batches]
    assert reached_by(np.array(taken), batch_size, exits).tolist() == want


def test_batches_are_consecutive_rows_and_the_last_may_be_short():
    assert batch_of(7, 3).tolist() == [0, 0, 0, 1, 1, 1, 2]


@given(taken_exits(), st.data())
def test_stage_seconds_are_those_of_a_loop(case, data):
    exits, taken, batch_size = case
    # Nobody leaves at a disabled exit.
    enabled = [data.draw(st.booleans()) or k + 1 in taken for k in range(exits - 1)] + [True]
    # A head may run where nothing is decided: under a criterion that looks back.
    heads = [on or data.draw(st.booleans()) for on in enabled]
    model = hand_made_model(exits, len(taken))
    reached = reached_by(np.array(taken), batch_size, exits)
    seconds = stage_seconds(model, reached, np.array([heads, enabled]))
    want = slow_stage_seconds(model, taken, batch_size, heads, enabled)
    np.testing.assert_allclose(seconds, want, rtol=1e-12)


def test_leading_axes_are_policies_of_their_own():
    model, enabled = hand_made_model(3, 5), np.ones((2, 3), dtype=bool)
    several = np.array([[[5, 3, 0], [5, 5, 2]], [[5, 0, 0], [4, 4, 4]]])
    together = stage_seconds(model, several, enabled)
    assert together.shape == (2, 3)
    for i in range(2):
        np.testing.assert_array_equal(together[i], stage_seconds(model, several[i], enabled))


def test_a_disabled_exit_costs_its_block_and_nothing_else():
    model = hand_made_model(3, 4)
    seconds = stage_seconds(model, np.array([[4, 4, 4]]), np.array([[False, False, True]] * 2))
    assert seconds.tolist() == [
        model.parts[0, 0, 4],
        model.parts[0, 1, 4],
        model.parts[:, 2, 4].sum(),
    ]


def test_an_enabled_exit_at_which_nobody_leaves_costs_head_and_decision_but_no_removal():
    model = hand_made_model(2, 4)
    seconds = stage_seconds(model, np.array([[4, 4]]), np.ones((2, 2), dtype=bool))
    np.testing.assert_allclose(seconds, model.parts[:, :, 4].sum(axis=0))


def test_removal_is_paid_where_some_leave_and_some_stay():
    model = hand_made_model(2, 4)
    some = stage_seconds(model, np.array([[4, 3]]), np.ones((2, 2), dtype=bool))[0]
    a, b, c = model.removal[0]
    assert some == pytest.approx(model.parts[:, 0, 4].sum() + a + 4 * b + 3 * c)


def test_the_full_network_is_all_blocks_and_the_final_head():
    model = hand_made_model(3, 4)
    want = sum(model.parts[0, :, n].sum() + model.parts[1:, 2, n].sum() for n in (4, 4, 2))
    assert full_network_seconds(model, 10) == pytest.approx(want)


def test_a_batch_larger_than_those_measured_is_refused():
    with pytest.raises(OfframpError, match=r"batches of 5 samples, .* up to 4"):
        full_network_seconds(hand_made_model(3, 4, 5), 10)


def test_no_samples_take_no_time():
    assert reached_by(np.zeros(0, int), 4, 3).shape == (0, 3)
    assert full_network_seconds(hand_made_model(3, 4), 0) == 0.0
