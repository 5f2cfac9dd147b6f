"""What thresholds lose more on new data, against much new data."""

import numpy as np
import pytest
from conftest import hand_made_model
from scipy.special import softmax

from offramp.scoring.criteria import scores_of
from offramp.thresholds import optimism as of_thresholds
from offramp.thresholds.calibration import CalibrationData, thresholds_for
from offramp.thresholds.evaluation import accuracy_drop
from offramp.thresholds.joint import costs_of, linear_costs
from offramp.thresholds.optimism import optimism


def noisy_data(samples, seed):
    draw = np.random.default_rng(seed)
    entropy = draw.random((samples, 4))
    correct = draw.random((samples, 4)) < 1 - entropy * [0.5, 0.4, 0.3, 0.2]
    return CalibrationData(entropy, correct)


def known_data(samples, seed):
    """Six exits with logits, the later the surer, and labels that all together make likely."""
    draw = np.random.default_rng(seed)
    weights = np.array([0.05, 0.1, 0.1, 0.15, 0.2, 0.4])
    logits = 2 * draw.normal(size=(samples, 1, 5)) + draw.normal(size=(samples, 6, 5))
    pool = softmax(np.tensordot(logits, weights, axes=(1, 0)), axis=1)
    label = (pool.cumsum(axis=1) < draw.random((samples, 1))).sum(axis=1)
    right = logits.argmax(axis=2) == label[:, None]
    return CalibrationData(scores_of("entropy", logits), right, logits, label)


@pytest.mark.parametrize(
    "method, target", [("empirical", 0.8), ("guaranteed", 0.8), ("joint", 0.86)]
)
def test_optimism_is_about_what_fitted_thresholds_lose_more_on_new_data(
    monkeypatch, method, target
):
    monkeypatch.setattr(of_thresholds, "RESAMPLES", 6)
    settings, costs = {"method": method, "confidence": 0.9}, costs_of(hand_made_model(4, 60))
    costs.stage[1] /= 10
    costs.decide[:] /= 10
    new = noisy_data(100_000, 99)
    found, want = [], []
    for seed in range(8):
        data = noisy_data(400, seed)
        found.append(optimism(settings, data, [target], costs)[0])
        (thresholds,) = thresholds_for(settings, data, [target], costs)
        lost = [accuracy_drop(each.scores, each.correct, thresholds) for each in (new, data)]
        want.append(lost[0] - lost[1])
    spread = np.std(want) / np.sqrt(len(want))
    assert np.mean(found) == pytest.approx(np.mean(want), abs=3 * spread)
    if method == "joint":
        assert np.mean(want) > 2 * spread and np.mean(found) > 0


def test_with_few_samples_optimism_of_the_pool_of_exits_is_but_part_of_it(monkeypatch):
    monkeypatch.setattr(of_thresholds, "RESAMPLES", 8)
    settings = {"method": "joint"}
    costs = linear_costs(np.ones(6), np.zeros(6))
    new = known_data(60_000, 99)
    found, want = [], []
    for seed in range(10):
        data = known_data(800, seed)
        target = [data.correct[:, -1].mean() - 0.01]
        found.append(optimism(settings, data, target, costs)[0])
        (thresholds,) = thresholds_for(settings, data, target, costs)
        lost = [accuracy_drop(each.scores, each.correct, thresholds) for each in (new, data)]
        want.append(lost[0] - lost[1])
    # It is an estimate, and too small here; the coverage study shows what it is good for.
    assert 0 < np.mean(found) < np.mean(want)


def test_optimism_is_the_same_every_time_and_0_where_nobody_can_leave(monkeypatch):
    monkeypatch.setattr(of_thresholds, "RESAMPLES", 4)
    settings, costs = {"method": "joint"}, costs_of(hand_made_model(4, 60))
    data = noisy_data(200, 1)
    targets = [0.8, 1.0]
    first, again = (optimism(settings, data, targets, costs) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert first[1] == 0
