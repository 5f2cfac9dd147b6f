"""Every criterion against its definition, at the edges, and alike in numpy and torch."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from conftest import some_weights
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from slow_criteria import SLOW, slow_entropy

from offramp.scoring.criteria import CRITERIA, entropy, score_at, score_range, scores_of, spread

LOGITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 12)),
    elements=st.floats(-40, 40, allow_nan=False),
)
ANY_LOGITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 12)),
    elements=st.one_of(
        st.floats(-1e30, 1e30), st.sampled_from([1e4, -1e4, 1e30, -1e30, 0.0, 1e-300])
    ),
)


@given(LOGITS)
def test_entropy_is_scipys_entropy_of_the_softmax(logits):
    want = scipy.stats.entropy(scipy.special.softmax(logits, axis=1), axis=1)
    np.testing.assert_allclose(entropy(logits), want, rtol=1e-9, atol=1e-12)


@given(ANY_LOGITS)
def test_entropy_is_the_plain_loop_at_any_magnitude(logits):
    want = [slow_entropy([row]) for row in logits.tolist()]
    np.testing.assert_allclose(entropy(logits), want, rtol=1e-9, atol=1e-12)


@given(ANY_LOGITS)
def test_entropy_lies_between_zero_and_the_log_of_the_classes(logits):
    values = entropy(logits)
    assert (values >= 0).all()
    assert (values <= math.log(logits.shape[1])).all()


@pytest.mark.parametrize("spread", [1e-9, 1e-7, 40.0])
def test_rounding_never_leads_out_of_the_range(spread):
    # Nearly equal or nearly one-hot: where the last bit of the sum would step over an end.
    values = entropy(np.random.default_rng(0).normal(size=(20_000, 10)) * spread)
    assert (values >= 0).all()
    assert (values <= math.log(10)).all()


@given(ANY_LOGITS)
def test_torch_gives_what_numpy_gives(logits):
    live = entropy(torch.from_numpy(logits), torch).numpy()
    np.testing.assert_allclose(live, entropy(logits), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("level", [0.0, 1e4, -1e4, 1e30, -1e30])
def test_equal_logits_have_the_largest_entropy(classes, level):
    value = entropy(np.full((1, classes), level))
    assert value == pytest.approx(math.log(classes), rel=1e-14)


@pytest.mark.parametrize("height", [1e4, 1e30])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_single_certain_class_has_entropy_zero_exactly(height, sign):
    logits = np.full((1, 10), -height if sign > 0 else -2 * height)
    logits[0, 3] = sign * height if sign > 0 else -height
    assert entropy(logits)[0] == 0.0


@pytest.mark.parametrize("height", [1e4, 1e30])
def test_two_equal_certain_classes_have_the_entropy_of_a_coin(height):
    logits = np.full((1, 10), -height)
    logits[0, [2, 7]] = height
    assert entropy(logits)[0] == pytest.approx(math.log(2), rel=1e-15)


def test_small_entropies_are_not_rounded_to_zero():
    # One class ahead by 30: (C-1) exp(-30) (30 + 1), to first order.
    logits = np.zeros((1, 10))
    logits[0, 0] = 30.0
    assert entropy(logits)[0] == pytest.approx(9 * math.exp(-30) * 31, rel=1e-2)


def test_one_class_has_entropy_zero():
    np.testing.assert_array_equal(entropy(np.array([[3.0], [-1e30], [0.0]])), [0.0, 0.0, 0.0])


def test_entropy_keeps_the_leading_axes():
    logits = np.random.default_rng(0).normal(size=(4, 3, 10))
    values = entropy(logits)
    assert values.shape == (4, 3)
    np.testing.assert_array_equal(values[2, 1], entropy(logits[2, 1][None])[0])


def test_adding_a_constant_to_all_logits_changes_nothing():
    logits = np.array([[1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(entropy(logits), entropy(logits + 1024.0))


def test_the_range_of_the_entropy_ends_at_the_log_of_the_classes():
    assert CRITERIA["entropy"].range(10) == (0.0, math.log(10))
    assert CRITERIA["entropy"].range(1) == (0.0, 0.0)


SEVERAL_EXITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6)),
    # A few values, so that exits often agree and probabilities often tie.
    elements=st.sampled_from([-3.0, 0.0, 0.5, 1.0, 2.5, 7.0]),
)


@pytest.mark.parametrize("criterion", CRITERIA)
@given(SEVERAL_EXITS)
def test_scores_at_every_exit_are_the_criterions_words(criterion, logits):
    weights = some_weights(criterion, *logits.shape[1:])
    given = weights or [None] * logits.shape[1]
    want = [
        [SLOW[criterion](sample[: k + 1], given[k]) for k in range(len(sample))]
        for sample in logits.tolist()
    ]
    found = scores_of(criterion, logits, weights=weights)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("criterion", CRITERIA)
@given(SEVERAL_EXITS)
def test_torch_decides_by_the_same_scores(criterion, logits):
    weights = some_weights(criterion, *logits.shape[1:])
    own = weights and weights[-1]
    live = score_at(criterion, torch.from_numpy(logits), torch, own).numpy()
    want = score_at(criterion, logits, weights=own)
    np.testing.assert_allclose(live, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("criterion", CRITERIA)
@given(SEVERAL_EXITS)
def test_scores_keep_to_the_range(criterion, logits):
    values = scores_of(criterion, logits, weights=some_weights(criterion, *logits.shape[1:]))
    low, high = score_range(criterion, logits.shape[2], values)
    assert (values >= low).all() and (values <= high).all()


@pytest.mark.parametrize("criterion", ["entropy", "max_probability", "margin", "energy"])
def test_a_surer_answer_has_a_lower_score(criterion):
    logits = np.zeros((8, 1, 10))
    logits[:, 0, 4] = np.arange(8.0)
    assert (np.diff(scores_of(criterion, logits)[:, 0]) < 0).all()


@pytest.mark.parametrize("criterion", ["max_probability", "margin"])
def test_sure_answers_keep_their_order(criterion):
    # 1 - p rounds to 0 from about 37 on; the sum of the others does not.
    logits = np.zeros((3, 1, 10))
    logits[:, 0, 0] = [40.0, 50.0, 60.0]
    values = scores_of(criterion, logits)[:, 0]
    assert values[0] > values[1] > values[2] > 0


def test_temperatures_divide_the_logits_of_their_exit():
    logits = np.random.default_rng(0).normal(size=(5, 3, 10)).astype(np.float32)
    found = scores_of("entropy", logits, (1.0, 2.0, 4.0))
    for k, temperature in enumerate((1.0, 2.0, 4.0)):
        want = entropy(logits[:, k].astype(np.float64) / temperature)
        np.testing.assert_array_equal(found[:, k], want)


def test_a_fitted_criterion_risks_nothing_where_there_are_no_weights():
    logits = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    found = scores_of("deferral", logits, weights=some_weights("deferral", 2, 4))
    assert (found[:, :2] > 0).all() and (found[:, 2] == 0).all()


def test_a_lead_beyond_all_measure_changes_no_risk():
    logits = np.zeros((2, 1, 4))
    logits[:, 0, 1] = [50.0, 1e30]
    known = ((0.0, 0.0, -1.0, 9.0, 9.0, 9.0, 9.0),)
    assert np.ptp(scores_of("deferral", logits, weights=known)) == 0


def test_cutoffs_spread_evenly_or_closer_where_scores_are_low():
    places = np.array([0.0, 0.5, 1.0])
    assert spread("entropy", (0.0, 2.0), places).tolist() == [0.0, 1.0, 2.0]
    assert spread("energy", (-8.0, -2.0), places).tolist() == [-8.0, -5.0, -2.0]
    assert spread("deferral", (0.0, 1.0), places).tolist() == [0.0, 0.125, 1.0]


def test_a_criterion_without_ends_takes_those_of_the_values():
    assert score_range("energy", 10, np.array([[-3.0, 2.0], [7.5, 0.0]])) == (-3.0, 7.5)
