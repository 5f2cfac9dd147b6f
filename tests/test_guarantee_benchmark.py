"""The benchmark of the guarantee: its truth against samples, its counts against a slow recount."""

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit, slow_stage_seconds
from scipy.stats import binom, binomtest

from offramp.calibration import calibrate
from offramp.guarantee import calibrate_guaranteed
from offramp.guarantee_benchmark import (
    LOSSES,
    SAMPLES,
    SEED,
    TARGETS,
    benchmark,
    pooled,
    synthetic,
)

EXITS = 3
METHODS = {"empirical": calibrate, "guaranteed": lambda *data: calibrate_guaranteed(*data, 0.9)}


def two_splits():
    draw = np.random.default_rng(0)
    scores = draw.random((600, EXITS))
    correct = draw.random((600, EXITS)) < 1 - scores * [0.4, 0.3, 0.1]
    return [(scores[:200], correct[:200]), (scores[200:], correct[200:])]


def slow_judge(scores, correct, thresholds):
    """Where each sample leaves, and the accuracy of those who leave at each enabled exit."""
    taken = [slow_exit(row, thresholds) for row in scores.tolist()]
    accuracy = []
    for k, threshold in enumerate(thresholds, 1):
        if threshold is not None:
            right = [bool(correct[i, k - 1]) for i, exit_ in enumerate(taken) if exit_ == k]
            accuracy.append(sum(right) / len(right))
    return taken, accuracy


@pytest.mark.parametrize("thresholds", [(0.3, 0.5), (None, 0.4), (0.6, None), (None, None)])
def test_the_truth_about_a_network_is_that_of_all_its_samples(thresholds):
    splits, model = two_splits(), hand_made_model(EXITS, 64)
    accuracy, speedup = pooled(splits, "entropy", model, 64).judge(thresholds)
    scores, correct = (np.vstack([split[part] for split in splits]) for part in (0, 1))
    taken, want = slow_judge(scores, correct, thresholds)
    assert accuracy.tolist() == want
    enabled = [t is not None for t in thresholds] + [True]
    spent = slow_stage_seconds(model, taken, 64, enabled)
    full = slow_stage_seconds(model, [EXITS] * 600, 64, [False, False, True])
    assert speedup == pytest.approx(sum(full) / sum(spent))


def test_a_networks_draws_are_its_own_samples_with_replacement():
    splits = two_splits()
    population = pooled(splits, "entropy", hand_made_model(EXITS, 64), 64)
    scores, correct = population.draw(np.random.default_rng(1))
    place = {row[0]: i for i, row in enumerate(np.vstack([s for s, _ in splits]).tolist())}
    rows = [place[first] for first in scores[:, 0].tolist()]
    assert len(rows) == SAMPLES
    np.testing.assert_array_equal(scores, np.vstack([s for s, _ in splits])[rows])
    np.testing.assert_array_equal(correct, np.vstack([c for _, c in splits])[rows])
    times = np.bincount(rows, minlength=600)
    # Poisson with mean and variance 8.3 but for the fixed total.
    assert 6.5 < times.var() < 10.5


@pytest.mark.parametrize(
    "thresholds", [(0.25, 0.4, 0.9), (None, 0.3, None), (0.5, None, 1.0), (None, None, None)]
)
def test_the_truth_about_the_synthetic_population_is_what_its_samples_show(thresholds):
    population = synthetic()
    accuracy, speedup = population.judge(thresholds)
    draws = [population.draw(np.random.default_rng(seed)) for seed in range(20)]
    scores, correct = (np.vstack([data[part] for data in draws]) for part in (0, 1))
    taken, seen = slow_judge(scores, correct, thresholds)
    assert len(accuracy) == len(seen)
    # 100,000 samples, a fifth and more of them at an exit: a standard error of 0.003 at most.
    assert accuracy == pytest.approx(seen, abs=0.01)
    assert speedup == pytest.approx(len(LOSSES) / np.mean(taken), rel=0.01)


def test_a_threshold_below_an_earlier_one_lets_nobody_leave_and_counts_for_nothing():
    population = synthetic()
    accuracy, speedup = population.judge((0.5, 0.4, None))
    alone = population.judge((0.5, None, None))
    assert (accuracy.tolist(), speedup) == (alone[0].tolist(), alone[1])


def test_every_row_is_a_slow_recount_of_the_same_draws():
    splits, model, draws = two_splits(), hand_made_model(EXITS, 64), 5
    scores, correct = (np.vstack([split[part] for split in splits]) for part in (0, 1))
    population = pooled(splits, "entropy", model, 64)
    rows = benchmark({"network": population}, 0.9, draws).to_pylist()
    assert [(r["target"], r["method"]) for r in rows] == [(t, m) for t in TARGETS for m in METHODS]
    for row in rows:
        below, enabled, speedups = 0, [], []
        for number in range(draws):
            data = population.draw(np.random.default_rng([SEED, number]))
            thresholds = METHODS[row["method"]](*data, row["target"])
            _, accuracy = slow_judge(scores, correct, thresholds)
            below += any(a < row["target"] for a in accuracy)
            enabled.append(len(accuracy))
            speedups.append(population.judge(thresholds)[1])
        assert (row["population"], row["confidence"]) == ("network", 0.9)
        assert (row["draws"], row["below"], row["share"]) == (draws, below, below / draws)
        want = binomtest(below, draws).proportion_ci(method="wilson")
        assert (row["share_low"], row["share_high"]) == pytest.approx((want.low, want.high))
        assert row["enabled"] == sorted(enabled)[draws // 2]
        assert row["speedup"] == sorted(speedups)[draws // 2]


def test_the_guaranteed_method_keeps_its_word_where_the_empirical_does_not_and_costs_time():
    draws = 40
    table = benchmark({"synthetic": synthetic()}, 0.9, draws).to_pandas()
    empirical, guaranteed = (table[table["method"] == m].set_index("target") for m in METHODS)
    assert (empirical["share"] >= 0.5).all()
    assert (guaranteed["below"] <= binom.ppf(0.995, draws, 0.1)).all()
    assert (guaranteed["enabled"] >= 1).all()
    assert (guaranteed["speedup"] > 1.05).all()
    assert (guaranteed["speedup"] < empirical["speedup"]).all()
