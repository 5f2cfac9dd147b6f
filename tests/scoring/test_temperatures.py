"""Temperatures and calibration errors against slow, obvious ones."""

import math

import numpy as np
import pytest

from offramp.scoring import temperatures
from offramp.scoring.scores import fitting_part
from offramp.scoring.temperatures import (
    BINS,
    WIDE_BINS,
    answers_of,
    bin_of,
    calibration_error,
    calibration_error_interval,
    confidence_of,
    confidence_table,
    fit_temperature,
    fit_temperatures,
    negative_log_likelihood,
    reliability_table,
    temperatures_table,
)


def sampled(samples, factor, seed=0, classes=4):
    """Logits ``factor`` times too large: labels are drawn from softmax(logits / factor)."""
    draw = np.random.default_rng(seed)
    true = draw.normal(size=(samples, classes)) * 2
    chances = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    label = (draw.random((samples, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return (true * factor).astype(np.float32), label


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_is_that_by_which_logits_are_too_large(factor):
    assert fit_temperature(*sampled(60_000, factor)) == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 100.0, 1e6, 1e30])
def test_logits_may_be_of_any_scale(scale):
    logits, label = sampled(2_000, 1.0)
    plain = fit_temperature(logits, label)
    found = fit_temperature(scale * logits.astype(np.float64), label)
    assert found == pytest.approx(scale * plain, rel=1e-6)


def test_no_temperature_nearby_is_likelier():
    logits, label = sampled(500, 1.7)
    best = fit_temperature(logits, label)

    def nll(t):
        return negative_log_likelihood(logits.astype(np.float64) / t, label)

    assert nll(best) <= min(nll(best * f) for f in (0.8, 0.99, 1.01, 1.25))


def test_the_negative_log_likelihood_is_the_plain_loop():
    logits, label = sampled(20, 1.0)
    total = 0.0
    for row, y in zip(logits.tolist(), label.tolist(), strict=True):
        total -= row[y] - math.log(math.fsum(math.exp(z) for z in row))
    assert negative_log_likelihood(logits, label) == pytest.approx(total / 20)


def test_temperatures_see_only_their_own_half():
    logits, label = sampled(400, 2.0)
    exits = np.stack([logits, logits * 3], axis=1)
    some = fitting_part(400)
    changed, changed_label = exits.copy(), label.copy()
    changed[some:] = 99.0
    changed_label[some:] = 0
    assert some == 200
    assert fit_temperatures(exits, label) == fit_temperatures(changed, changed_label)
    assert fit_temperatures(exits, label)[1] == pytest.approx(
        3 * fit_temperatures(exits, label)[0], rel=1e-3
    )


def test_bins_hold_equally_many_by_rising_confidence():
    confidence = np.random.default_rng(1).random(BINS * 4 + 7)
    place = bin_of(confidence)
    counts = np.bincount(place)
    assert len(counts) == BINS and counts.max() - counts.min() <= 1
    assert (np.diff(place[np.argsort(confidence)]) >= 0).all()


def test_the_calibration_error_is_the_slow_sum_over_bins():
    draw = np.random.default_rng(2)
    confidence, right = draw.random(300), draw.random(300) < 0.7
    place = bin_of(confidence)
    weight = draw.integers(0, 3, (4, 300)).astype(float)
    for found, counts in zip(
        calibration_error(confidence, right, place, weight), weight, strict=True
    ):
        total = 0.0
        for b in range(BINS):
            here = [i for i in range(300) if place[i] == b]
            n = sum(counts[i] for i in here)
            if n:
                accuracy = sum(counts[i] for i in here if right[i]) / n
                sure = sum(counts[i] * confidence[i] for i in here) / n
                total += n * abs(accuracy - sure)
        assert found == pytest.approx(total / counts.sum())


@pytest.mark.parametrize("off", [0.0, 0.03, 0.1])
def test_the_interval_holds_the_truth(monkeypatch, off):
    monkeypatch.setattr(temperatures, "RESAMPLES", 200)
    temperatures.resamples.cache_clear()
    covered = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        confidence = draw.uniform(0.3, 1.0, 1500)
        right = draw.random(1500) < confidence - off
        _, low, high = calibration_error_interval(confidence, right)
        assert low <= high
        covered += low <= off <= high
    temperatures.resamples.cache_clear()
    assert covered >= 51  # 57 expected; fewer than 51 has a chance of 1 in 100


def test_where_no_temperature_is_likeliest_it_is_one():
    right, label = 5 * np.eye(4, dtype=np.float32), np.arange(4)
    assert fit_temperature(right, label) == 1.0
    assert fit_temperature(right[:0], label[:0]) == 1.0
    assert fit_temperature(-right, label) == 1.0


@pytest.mark.timeout(20)
@pytest.mark.parametrize("scale", [1e-200, 1e-5, 1.0, 1e5])
def test_logits_exactly_as_good_as_chance_have_none_either(scale):
    for classes in (3, 5, 7):
        for seed in range(20):
            row = np.random.default_rng(seed).normal(size=classes)
            balanced = np.tile(np.arange(classes), 3)
            assert fit_temperature(scale * np.tile(row, (3 * classes, 1)), balanced) == 1.0
    assert fit_temperature(np.ones((4, 3)), np.arange(4) % 3) == 1.0


def test_a_sample_without_wrong_answers_does_not_make_the_error_certain():
    missed = 0
    for seed in range(100):
        right = np.random.default_rng(seed).random(60) < 0.99
        low, high = calibration_error_interval(np.full(60, 0.999), right)[1:]
        missed += not low <= 0.009 <= high
    assert missed <= 10


def test_the_tables_have_a_row_per_exit_and_bins_that_add_up():
    logits, label = sampled(600, 3.0)
    exits = np.stack([logits, logits / 3], axis=1)
    found = temperatures_table(exits, label).to_pylist()
    assert [row["exit"] for row in found] == [1, 2]
    assert all(row["nll_scaled"] <= row["nll"] for row in found)
    divisors = [row["temperature"] for row in found]
    table = reliability_table(answers_of({"test": (exits, label)}, divisors)).to_pandas()
    assert len(table) == 2 * 2 * (BINS + 1)
    for (k, scaled), rows in table.groupby(["exit", "scaled"]):
        overall, bins = rows[rows["bin"] == 0].iloc[0], rows[rows["bin"] > 0]
        z = exits[:, k - 1] / (divisors[k - 1] if scaled else 1.0)
        right = int((z.argmax(axis=1) == label).sum())
        assert bins["n"].sum() == overall["n"] == 600
        assert bins["correct"].sum() == overall["correct"] == right
        assert overall["confidence"] == pytest.approx(confidence_of(z).mean())
        assert overall["ece_low"] <= overall["ece"] <= overall["ece_high"]
    first = table[(table["bin"] == 0) & (table["exit"] == 1)].set_index("scaled")["ece"]
    assert first[True] < first[False] / 2


def test_the_histogram_of_confidences_is_the_slow_count():
    logits, label = sampled(300, 3.0)
    logits[:20] = 100 * np.eye(logits.shape[1])[label[:20]]  # sure to the last bit
    exits = np.stack([logits, logits / 3], axis=1)
    divisors = [1.7, 0.5]
    rows = confidence_table(answers_of({"test": (exits, label)}, divisors)).to_pylist()
    assert len(rows) == 2 * 2 * WIDE_BINS
    for row in rows:
        z = exits[:, row["exit"] - 1] / (divisors[row["exit"] - 1] if row["scaled"] else 1.0)
        inside = [
            k
            for k, sure in enumerate(confidence_of(z))
            if row["low"] <= sure < row["high"] or sure == row["high"] == 1
        ]
        assert row["n"] == len(inside)
        assert row["correct"] == sum(z[k].argmax() == label[k] for k in inside)
    assert sum(row["n"] for row in rows) == 4 * 300
