"""Intervals against scipy's, which are slower to import."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from offramp.intervals import interval, largest_loss, paired_difference, wilson

counts = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.floats(0.5, 0.999))
def test_wilson_against_scipy(counted, confidence):
    correct, n = counted
    found = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    low, high = interval(correct, n)
    assert (low, high) == pytest.approx((found.low, found.high), abs=1e-12)
    assert low <= correct / n <= high
    bound = binomtest(correct, n, alternative="greater").proportion_ci(confidence, "wilson").low
    assert wilson(correct, n, 1 - confidence) == pytest.approx(bound, abs=1e-12)
    bound = binomtest(correct, n, alternative="less").proportion_ci(confidence, "wilson").high
    assert wilson(correct, n, confidence) == pytest.approx(bound, abs=1e-12)


def test_none_or_all_right_are_an_end_of_their_interval_and_not_beyond():
    for n in range(1, 2_000):
        assert interval(0, n)[0] == 0.0 and interval(n, n)[1] == 1.0


def test_bounds_of_a_paired_difference_against_scipy():
    a, b = np.random.default_rng(0).random((2, 300)) < [[0.9], [0.8]]
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    mean = (gained - lost) / 302
    error = np.sqrt(gained + lost + 1 - (gained - lost) ** 2 / 302) / 302
    want = norm.interval(0.95, mean, error)
    assert paired_difference(a, b) == pytest.approx(((gained - lost) / 300, *want))
    assert largest_loss(gained, lost, 300, 0.9) == pytest.approx(norm.ppf(0.9, mean, error))


def test_nobody_counted_has_no_interval():
    assert np.isnan(interval(0, 0)).all()
