"""Bounds and intervals: against scipy, and against every sample there is."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from offramp import OfframpError
from offramp.common.intervals import accuracy_bound, drop_bound, interval, paired_difference


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_accuracies_have_the_exact_intervals_of_scipy(counted):
    right, n = counted
    want = binomtest(right, n).proportion_ci(0.95, method="exact")
    assert interval(right, n) == pytest.approx((want.low, want.high), abs=1e-9)
    for sure in (0.6, 0.9, 0.99):
        bound = binomtest(right, n, alternative="greater").proportion_ci(sure, "exact").low
        assert accuracy_bound(right, n, sure) == pytest.approx(bound, abs=1e-9)
        assert accuracy_bound(right + 0.7, n + 1, sure) == accuracy_bound(right, n + 1, sure)


@pytest.mark.parametrize(
    "p, n", [(0.99, 180), (0.995, 1_000), (0.8, 60), (0.97, 5_000), (0.999, 50_000)]
)
def test_the_bound_on_an_accuracy_errs_as_seldom_as_it_says(p, n):
    counts = np.arange(n + 1)
    likely = counts[binom.pmf(counts, n, p) > 1e-12]
    above = [k for k in likely.tolist() if accuracy_bound(k, n, 0.9) > p]
    assert binom.pmf(above, n, p).sum() <= 0.1
    if n > 1_000:
        assert binom.pmf(above, n, p).sum() > 0.03


def broken(n: int, lost: float, gained: float, sure: float) -> float:
    """The exact rate at which the bound lies below what is truly lost, over all samples but those
    whose chance together is below 1e-9."""
    total = 0.0
    most = [int(binom.ppf(1 - 1e-10, n, p)) for p in (lost, gained)]
    for a in range(most[0] + 1):
        for b in range(most[1] + 1):
            if a + b <= n and drop_bound(a, b, n, sure) < lost - gained - 1e-12:
                rest = 1 - lost - gained
                total += multinomial.pmf([a, b, n - a - b], n, [lost, gained, rest])
    return total


@pytest.mark.parametrize("sure", [0.5, 0.8, 0.9, 0.975, 0.999])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_small_samples_break_the_bound_on_a_drop_no_more_often_than_allowed(n, sure):
    for gained in np.linspace(0, 0.5, 9):
        for drop in np.linspace(-gained, 1 - 2 * gained, 15):
            assert broken(n, drop + gained, gained, sure) <= 1 - sure + 1e-9


@pytest.mark.parametrize("sure", [0.9, 1 - 0.1 / 3])
@pytest.mark.parametrize(
    "n, gained",
    [
        (180, 0),
        (255, 0),
        (366, 0),
        (1_000, 0),
        (5_000, 0),
        (366, 0.01),
        (1_000, 0.002),
        (5_000, 0.001),
    ],
)
def test_the_audits_samples_break_the_bound_no_more_often_than_allowed(n, gained, sure):
    assert broken(n, 0.005 + gained, gained, sure) <= 1 - sure


@pytest.mark.parametrize(
    "lost, gained, n", [(0.03, 0.02, 180), (0.3, 0.28, 250), (0.02, 0.015, 2_000)]
)
def test_with_many_changes_it_uses_most_of_what_is_allowed(lost, gained, n):
    draws = np.random.default_rng(0).multinomial(n, [lost, gained, 1 - lost - gained], 4_000)
    below = [drop_bound(a, b, n, 0.9) < lost - gained for a, b, _ in draws.tolist()]
    assert 0.04 <= np.mean(below) <= 0.1 + 3 * math.sqrt(0.09 / 4_000)


def test_it_is_little_above_approximate_bounds_and_exact_where_nothing_changes():
    assert 0.00440 < drop_bound(20, 5, 5_000, 0.9) < 1.15 * 0.00440  # Tango's score bound
    for n in (10, 100, 10_000):
        for sure in (0.9, 0.99):
            exact = 1 - (1 - sure) ** (1 / n)  # so large a rate leaves none with what is allowed
            assert exact <= drop_bound(0, 0, n, sure) < 1.04 * exact
    assert drop_bound(22, 4, 5_000, 0.9) == pytest.approx(0.0050, abs=2e-4)


@given(st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))
).filter(lambda c: c[0] + c[1] < c[2]))  # fmt: skip
def test_more_losses_raise_it_and_it_lies_above_what_was_counted(counted):
    lost, gained, n = counted
    here, more = (drop_bound(m, gained, n, 0.9) for m in (lost, lost + 1))
    assert (lost - gained) / n < here <= 1.0
    assert more > here - 1e-12


def test_where_gains_far_exceed_losses_one_loss_more_does_not_lower_it():
    """An audit's case, at the confidence of many candidates together."""
    for sure in (0.99, 0.9992):
        bounds = [drop_bound(lost, 16, 180, sure) for lost in range(4)]
        assert bounds == sorted(bounds) and bounds[0] < 0
    assert drop_bound(0, 9, 30, 0.99) < drop_bound(0, 8, 30, 0.99) < 0.02


def test_a_choice_among_many_is_quick():
    draw = np.random.default_rng(1)
    for n, seconds in ((5_000, 2.0), (50_000, 5.0)):
        drop_bound.cache_clear()
        lost, gained = (draw.integers(0, int(share * n), 150) for share in (0.01, 0.005))
        start = time.process_time()
        for a, b in zip(lost.tolist(), gained.tolist(), strict=True):
            drop_bound(a, b, n, 0.9667)
        assert time.process_time() - start < 2 * seconds  # room for a busy machine


def test_a_paired_difference_has_a_bound_at_both_ends():
    draw = np.random.default_rng(3)
    a, b = draw.random((2, 300)) < [[0.8], [0.7]]
    gained, lost = int((a & ~b).sum()), int((b & ~a).sum())
    found = paired_difference(a, b)
    ends = -drop_bound(lost, gained, 300, 0.975), drop_bound(gained, lost, 300, 0.975)
    assert found == ((gained - lost) / 300, *ends)
    assert ends[0] < found[0] < ends[1]
    assert paired_difference(b, a) == (-found[0], -ends[1], -ends[0])


def test_of_one_sample_little_is_known_and_of_none_nothing():
    one = np.ones(1, dtype=bool)
    low, high = paired_difference(one, ~one)[1:]
    assert low < -0.9 and high == 1.0
    assert np.isnan(paired_difference(one[:0], one[:0])).all()
    assert np.isnan(interval(0, 0)).all()
    assert interval(0, 5)[0] == 0.0 and interval(5, 5)[1] == 1.0


@pytest.mark.parametrize(
    "asked, words",
    [
        ((0, 0, 0, 0.9), "at least one sample"),
        ((3, 3, 5, 0.9), "3 lost and 3 gained are not among 5 samples"),
        ((-1, 0, 5, 0.9), "-1 lost"),
        ((1, 0, 5, 0.4), "at least 0.5"),
        ((1, 0, 5, 1.0), "between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_named(asked, words):
    with pytest.raises(OfframpError, match=words):
        drop_bound(*asked)
