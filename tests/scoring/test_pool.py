"""How right answers are expected to be, against the weights that made the labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from offramp.scoring.criteria import scores_of
from offramp.scoring.pool import _moments, expected_correct, fit_pool
from offramp.thresholds.calibration import CalibrationData, calibrate_jointly
from offramp.thresholds.evaluation import accuracy_drop
from offramp.thresholds.joint import linear_costs


def pooled_data(samples, weights, seed, biases=0.0, classes=5):
    """Logits of exits that see the same thing through noise of their own, and labels drawn from
    their pool: logits float32, labels, and each answer's true probability."""
    draw = np.random.default_rng(seed)
    seen = draw.normal(size=(samples, 1, classes)) * 2
    logits = (seen + draw.normal(size=(samples, len(weights), classes))).astype(np.float32)
    pool = softmax(biases + np.tensordot(logits, weights, axes=(1, 0)).astype(np.float64), axis=1)
    label = (pool.cumsum(axis=1) < draw.random((samples, 1))).sum(axis=1)
    return logits, label, np.take_along_axis(pool, logits.argmax(axis=2), axis=1)


def test_the_weights_and_biases_are_those_that_made_the_labels():
    weights, biases = np.array([0.2, 0.5, 0.9]), np.array([0.5, 0.0, -0.5, 0.3, -0.3])
    logits, label, _ = pooled_data(60_000, weights, 0, biases)
    found = fit_pool(logits, label)
    np.testing.assert_allclose(found[0], weights, atol=0.04)
    np.testing.assert_allclose(found[1] - found[1].mean(), biases, atol=0.06)


def test_no_other_weights_and_biases_make_the_labels_likelier():
    logits, label, _ = pooled_data(200, [0.3, 0.6], 1)

    def slow(weights, biases):
        pooled = weights[0] * logits[:, 0].astype(float) + weights[1] * logits[:, 1] + biases
        return -log_softmax(pooled, axis=1)[np.arange(len(label)), label].mean()

    found, draw = fit_pool(logits, label), np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            other = found[0] + size * draw.normal(size=2), found[1] + size * draw.normal(size=5)
            assert slow(*other) > slow(*found) - 1e-7


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 30.0, 200.0, 1e6])
def test_logits_of_any_scale_have_the_same_pool(scale):
    logits, label, _ = pooled_data(1_500, np.array([0.2, 0.5, 0.9]), 3)
    plain, large = expected_correct(logits, label), expected_correct(scale * logits, label)
    np.testing.assert_allclose(large, plain, atol=1e-3)
    found = fit_pool(scale * logits.astype(np.float64), label)
    np.testing.assert_allclose(found[0] * scale, fit_pool(logits, label)[0], rtol=0.01, atol=1e-3)


def test_exits_of_different_scales_are_pooled_as_one():
    logits, label, _ = pooled_data(1_500, np.array([0.2, 0.5, 0.9]), 4)
    factors = np.array([1e3, 1.0, 1e-3])[:, None]
    found, plain = fit_pool(logits * factors, label)[0], fit_pool(logits, label)[0]
    np.testing.assert_allclose(found * factors[:, 0], plain, rtol=0.01, atol=1e-3)


@pytest.mark.timeout(60)
def test_an_exit_that_always_says_the_same_gets_no_say():
    logits, label, _ = pooled_data(600, np.array([0.4, 0.8]), 5)
    flat = np.full((600, 1, 5), 0.3)
    found = fit_pool(np.concatenate([logits.astype(np.float64), flat], axis=1), label)[0]
    np.testing.assert_allclose(found[:2], fit_pool(logits, label)[0], rtol=1e-6)
    assert abs(found[2]) < 10
    shifted = logits + 1e6 * np.random.default_rng(0).normal(size=(600, 1, 1))
    np.testing.assert_allclose(fit_pool(shifted, label)[0], fit_pool(logits, label)[0], rtol=1e-4)
    balanced = np.tile(np.float32([[1, 2, 3], [0, 1, 0]]), (9, 1, 1))
    assert np.isfinite(fit_pool(balanced, np.tile(np.arange(3), 3))[0]).all()


def test_a_search_that_does_not_arrive_says_so(monkeypatch):
    monkeypatch.setattr("offramp.common.newton.STEPS", 1)
    logits, label, _ = pooled_data(200, [0.3, 0.6], 1)
    with pytest.warns(UserWarning, match="stopped after 1 steps"):
        fit_pool(logits, label)


@given(st.integers(0, 1_000), st.integers(1, 4), st.integers(1, 30))
def test_the_last_exit_counts_by_its_label_and_exits_that_agree_with_it_alike(seed, exits, samples):
    logits, label, _ = pooled_data(samples, np.full(exits, 0.5), seed)
    answers = logits.argmax(axis=2)
    found = expected_correct(logits, label)
    assert found[:, -1].tolist() == (answers[:, -1] == label).tolist()
    agree = answers == answers[:, -1:]
    assert (found[agree] == np.broadcast_to(found[:, -1:], found.shape)[agree]).all()
    assert ((found >= -1) & (found <= 2)).all()


def test_thresholds_fitted_to_it_lose_about_what_they_may_where_labels_mislead():
    weights, allowed = [0.05, 0.1, 0.1, 0.15, 0.2, 0.4], 0.01
    costs = linear_costs(np.ones(6), np.zeros(6))
    new, label, _ = pooled_data(50_000, weights, 99)
    new_scores, new_right = scores_of("entropy", new), new.argmax(axis=2) == label[:, None]
    lost: dict[str, list[float]] = {"labels": [], "expected": []}
    for seed in range(8):
        logits, label, _ = pooled_data(1_000, weights, seed)
        scores = scores_of("entropy", logits)
        right = logits.argmax(axis=2) == label[:, None]
        target = right[:, -1].mean() - allowed
        for name, known in (("labels", ()), ("expected", (logits, label))):
            data = CalibrationData(scores, right, *known)
            (thresholds,) = calibrate_jointly(data, [target], costs)
            lost[name].append(accuracy_drop(new_scores, new_right, thresholds))
    assert np.mean(lost["expected"]) < 1.7 * allowed < 2.2 * allowed < np.mean(lost["labels"])


def test_labels_that_all_exits_foresee_leave_the_weights_finite():
    # Four classes, one of them never seen; the second exit says the same louder.
    label = np.arange(30) % 3
    logits = np.eye(4, dtype=np.float32)[label][:, None] * np.float32([[[1.0], [3.0]]])
    assert all(np.isfinite(part).all() for part in fit_pool(logits, label))
    assert (expected_correct(logits, label) == 1).all()


def test_moments_are_those_of_a_class_drawn_sample_by_sample():
    draw = np.random.default_rng(0)
    logits, probability = draw.normal(size=(5, 2, 3)), draw.dirichlet(np.ones(3), 5)
    means, covariances = [], []
    for z, p in zip(logits, probability, strict=True):
        values = np.array([[*z[:, c], *np.eye(3)[c]] for c in range(3)])
        means.append(p @ values)
        covariances.append((values - means[-1]).T @ np.diag(p) @ (values - means[-1]))
    mean, covariance = _moments(logits.transpose(2, 0, 1).copy(), probability.T.copy())
    np.testing.assert_allclose(mean, np.mean(means, axis=0))
    np.testing.assert_allclose(covariance, np.mean(covariances, axis=0), atol=1e-15)
