"""Intervals against scipy's, which are slower to import."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from offramp.intervals import interval, wilson

counts = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.floats(0.5, 0.999))
def test_wilson_against_scipy(counted, confidence):
    correct, n = counted
    found = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert interval(correct, n) == pytest.approx((found.low, found.high), abs=1e-12)
    bound = binomtest(correct, n, alternative="greater").proportion_ci(confidence, "wilson").low
    assert wilson(correct, n, 1 - confidence) == pytest.approx(bound, abs=1e-12)
    bound = binomtest(correct, n, alternative="less").proportion_ci(confidence, "wilson").high
    assert wilson(correct, n, confidence) == pytest.approx(bound, abs=1e-12)


def test_nobody_counted_has_no_interval():
    assert np.isnan(interval(0, 0)).all()
