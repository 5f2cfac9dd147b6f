"""What others do, on cases with a known answer."""

import math

import numpy as np
import pytest
from conftest import slow_exit

from offramp.common.intervals import drop_bound
from offramp.studies.opponents import (
    Reliability,
    geometric,
    inaccuracy,
    mean_is_below,
    pareto_front,
    pareto_tested,
    reliability,
    risk_controlled,
)
from offramp.thresholds.joint import linear_costs

CONFIDENCE = 0.9


def slow_upper_bound(values, confidence):
    """Waudby-Smith and Ramdas's bound, sample by sample, on a grid of means."""
    n, wanted = len(values), 1 / (1 - confidence)
    for mean in np.arange(0.0005, 1, 0.001):
        total, squares, capital, before, best = 0.0, 0.0, 1.0, 0.25, 0.0
        for t, x in enumerate(values, 1):
            bet = min(1.0, math.sqrt(2 * math.log(wanted) / (n * before)))
            capital *= 1 - bet * (x - mean)
            best = max(best, capital)
            total += x
            squares += (x - (0.5 + total) / (t + 1)) ** 2
            before = (0.25 + squares) / (t + 1)
        if best > wanted:
            return mean
    return 1.0


def test_the_betting_bound_is_that_of_its_slow_definition():
    draw = np.random.default_rng(0)
    for gains, losses in ((0.0, 0.0), (0.02, 0.05), (0.1, 0.1), (0.0, 0.4)):
        values = draw.choice([-1.0, 0.0, 1.0], 150, p=[gains, 1 - gains - losses, losses])
        bound = slow_upper_bound(values, CONFIDENCE)
        assert mean_is_below(values, bound, CONFIDENCE)
        assert not mean_is_below(values, bound - 0.001, CONFIDENCE)


def test_the_betting_bound_errs_as_seldom_as_it_says():
    draw, limit = np.random.default_rng(1), 0.03
    drawn = draw.choice([-1.0, 0.0, 1.0], (400, 500), p=[0.02, 0.93, 0.05])  # the mean is the limit
    wrong = sum(mean_is_below(values, limit, CONFIDENCE) for values in drawn)
    assert 0 < wrong <= 400 * 0.1
    assert all(mean_is_below(values, 0.1, CONFIDENCE) for values in drawn)


def one_side_exit(samples, wrong_from, seed=0):
    """Scores 1..N in random order; the side exit is wrong from one on, the full network never."""
    scores = np.random.default_rng(seed).permutation(np.arange(1.0, samples + 1))
    correct = np.stack([scores < wrong_from, np.ones(samples, dtype=bool)], axis=1)
    return np.stack([scores, np.zeros(samples)], axis=1), correct


def test_risk_control_stops_before_the_first_cutoff_that_is_not_proved():
    scores, correct = one_side_exit(1_000, 400)
    (found,) = risk_controlled(scores, correct, np.arange(1001.0), 0.03, CONFIDENCE)
    # From 400 on each cutoff loses one sample more: 30 may be lost, and a margin is kept.
    assert 400 < found < 430
    lost = [(scores[:, 0] <= cutoff) & ~correct[:, 0] for cutoff in (found, found + 1)]
    assert [mean_is_below(x.astype(float), 0.03, CONFIDENCE) for x in lost] == [True, False]


@pytest.mark.parametrize(("wrong_from", "found"), [(2_000, 1000.0), (1, None)])
def test_risk_control_lets_all_leave_where_nothing_is_lost_and_none_where_all_is(wrong_from, found):
    scores, correct = one_side_exit(1_000, wrong_from)
    cutoffs = np.arange(1.0 if found is None else 0.0, 1001.0, 50)
    cutoffs = cutoffs if found else cutoffs + 100
    assert risk_controlled(scores, correct, cutoffs, 0.03, CONFIDENCE) == (found,)


def test_geometric_shares_leave_the_surest_first():
    scores = np.repeat(np.random.default_rng(0).permutation(np.arange(150.0))[:, None], 4, axis=1)
    # Of 150: 80, 40, 20, 10.
    assert geometric(scores, 0.5) == (79.0, 119.0, 139.0)
    assert geometric(scores, 1.0) == (36.0, 73.0, 110.0)  # 37 each
    assert geometric(scores, 1e-9) == (148.0, None, None)  # never quite all, and then none
    # Other exits find others sure.
    scores[:, 1] *= -1
    assert geometric(scores, 0.5) == (79.0, -110.0, 99.0)


def test_a_like_confidence_is_as_wrong_as_its_bin_of_validation_samples():
    scores = np.arange(8.0)[:, None]
    correct = np.array([1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)[:, None]
    known = reliability(scores, correct, bins=4)
    np.testing.assert_allclose(known.accuracy, [[1, 0.5, 0.5, 0]])
    new = np.array([-5.0, 1.0, 2.5, 6.9, 99.0])[:, None]
    np.testing.assert_allclose(inaccuracy(new, known)[:, 0], [0, 0, 0.5, 1, 1])
    same = reliability(np.zeros((6, 1)), np.ones((6, 1), dtype=bool), bins=3)
    np.testing.assert_allclose(inaccuracy(np.zeros((1, 1)), same), 0)
    assert isinstance(same, Reliability)


def test_pareto_testing_walks_the_front_to_the_first_that_fails():
    scores, correct = one_side_exit(4_000, 1_000)
    first, second = slice(2_000), slice(2_000, None)
    costs = linear_costs(np.array([1.0, 9.0]), np.zeros(2))
    front = pareto_front(scores[first], correct[first], costs, 0.02)
    # Who leaves more makes more errors, one by one: each is on the front.
    known = np.sort(scores[first, 0])
    places = np.searchsorted(known, 1_000.0) - 1 + np.arange(41)
    np.testing.assert_array_equal(front.limits[::-1, 0], known[places])
    (found,) = pareto_tested(front, scores[second], correct[second], 0.02, CONFIDENCE)
    lost = [int(((scores[second, 0] <= t) & ~correct[second, 0]).sum()) for t in known[places]]
    passed = [drop_bound(n, 0, 2_000, CONFIDENCE) <= 0.02 for n in lost]
    assert found == known[places][passed.index(False) - 1]
    assert pareto_tested(front, scores[second], correct[second], 1e-9, CONFIDENCE) == (None,)


def test_pareto_testing_keeps_its_promise():
    draw, limit = np.random.default_rng(2), 0.02
    costs = linear_costs(np.array([1.0, 1.0, 4.0]), np.zeros(3))
    scores = draw.random((5_000, 3))
    right = np.array([0.9, 0.95, 0.97]) - np.array([0.6, 0.4, 0.0]) * scores**3
    correct = draw.random(scores.shape) < right
    draws, broken, untested = 60, 0, 0
    for _ in range(draws):
        first, second = draw.integers(0, len(scores), (2, 300))
        front = pareto_front(scores[first], correct[first], costs, limit)
        found = pareto_tested(front, scores[second], correct[second], limit, CONFIDENCE)
        cheapest = next(t for c, t in each_of(front) if c >= correct[first, -1].sum() - limit * 300)
        broken += lost_by(found, scores, correct) > limit
        untested += lost_by(cheapest, scores, correct) > limit
    assert 0.1 * draws >= broken and untested > draws / 2


def each_of(front):
    return ((front.correct[i], front.thresholds(i)) for i in range(len(front.cost)))


def lost_by(thresholds, scores, correct):
    taken = np.array([slow_exit(row, thresholds) for row in scores.tolist()])
    return correct[:, -1].mean() - correct[np.arange(len(taken)), taken - 1].mean()
