"""Weights of the criterion `deferral`: against scikit-learn, and blind to the part left out."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from offramp import OfframpError
from offramp.scoring.criteria import deferral, features, scores_of
from offramp.scoring.deferral import RIDGE, deferral_table, expected_loss, fit_deferral
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import PARTS, part_of, scores_left_out, weights_of

EXITS, CLASSES = 3, 4


def some_data(samples, seed=0):
    """Logits that are right the later the exit, and surer of some classes than of others."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, CLASSES, samples)
    logits = draw.normal(size=(samples, EXITS, CLASSES)).astype(np.float32)
    strength = draw.exponential(1.5, (samples, 1)) * np.array([0.7, 1.5, 3.0])
    logits[np.arange(samples)[:, None], np.arange(EXITS), label[:, None]] += strength
    logits[:, 0, 1] += 0.7
    return logits, label


def test_the_weights_are_those_of_a_logistic_regression_with_a_ridge():
    logits, label = some_data(400)
    lost = expected_loss(logits, label)
    for k, weights in enumerate(fit_deferral(logits, lost)):
        here = logits[:, k].astype(np.float64)
        columns = np.hstack([features(here), np.eye(CLASSES)[here.argmax(axis=1)]])
        columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
        # A share is as many samples of both kinds.
        oracle = LogisticRegression(C=1 / RIDGE, tol=1e-10, max_iter=10_000).fit(
            np.vstack([columns, columns]),
            np.repeat([1, 0], len(columns)),
            sample_weight=np.concatenate([lost[:, k], 1 - lost[:, k]]),
        )
        want = oracle.predict_proba(columns)[:, 1]
        np.testing.assert_allclose(deferral(here, weights), want, atol=1e-6)


def test_the_mean_risk_of_the_samples_that_fitted_it_is_their_mean_loss():
    logits, label = some_data(500)
    lost = expected_loss(logits, label)
    found = scores_of("deferral", logits, weights=fit_deferral(logits, lost))
    assert found[:, :-1].mean(axis=0) == pytest.approx(lost.mean(axis=0), abs=1e-6)


def test_what_is_lost_is_how_much_righter_the_full_network_is_expected_to_be():
    logits, label = some_data(200)
    right = expected_correct(logits, label)
    for i, row in enumerate(expected_loss(logits, label)):
        want = [min(max(right[i, -1] - right[i, k], 0), 1) for k in range(EXITS - 1)]
        assert row.tolist() == pytest.approx(want)


def test_an_answer_that_is_never_given_has_a_weight_all_the_same():
    logits, label = some_data(100)
    logits[:, :, 2] = -9
    weights = fit_deferral(logits, expected_loss(logits, label % 2))
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("samples", [10, 41])
def test_few_samples_are_fitted_too(samples):
    logits, label = some_data(samples)
    values = scores_left_out(deferral_table(logits, label), logits)
    assert ((values[:, :-1] > 0) & (values[:, :-1] < 1)).all()


def test_samples_are_scored_by_weights_that_know_nothing_of_them():
    logits, label = some_data(200)
    part = part_of(len(label))
    before = deferral_table(logits, label)
    for left_out in range(1, PARTS + 1):
        hidden = label.copy()
        hidden[part == left_out] = 0
        after = deferral_table(logits, hidden)
        assert weights_of(after, left_out) == weights_of(before, left_out)
        assert weights_of(after) != weights_of(before)
        here = part == left_out
        want = scores_of("deferral", logits[here], weights=weights_of(before, left_out))
        np.testing.assert_array_equal(scores_left_out(before, logits)[here], want)


def test_the_parts_are_as_large_as_can_be_and_hold_every_sample():
    assert np.bincount(part_of(12)).tolist() == [0, 3, 3, 2, 2, 2]


@pytest.mark.parametrize("samples", [0, 1, 9])
def test_too_few_samples_are_refused_with_the_way_out(samples):
    logits, label = np.zeros((samples, 2, 3), np.float32), np.zeros(samples, np.int64)
    with pytest.raises(OfframpError, match=f"and {samples} are too few: set .* to 10"):
        deferral_table(logits, label)


def test_ten_samples_will_do():
    draw = np.random.default_rng(0)
    found = deferral_table(draw.normal(size=(10, 2, 3)).astype(np.float32), draw.integers(0, 3, 10))
    assert np.isfinite([w for row in found.to_pylist() for w in row["weights"]]).all()
