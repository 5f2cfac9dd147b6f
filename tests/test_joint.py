"""Thresholds chosen together, against every combination there is."""

import itertools

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit
from hypothesis import given
from hypothesis import strategies as st

from offramp import joint
from offramp.joint import Costs, costs_of, data_of, joint_frontier, line_searches


def slow_total(scores, correct, thresholds, costs):
    """Cost and number correct, sample by sample and stage by stage."""
    exits = scores.shape[1]
    on = [t is not None for t in thresholds] + [True]
    cost, right = 0.0, 0
    for sample, hits in zip(scores, correct, strict=True):
        leaves = slow_exit(sample, thresholds)
        for k in range(leaves):
            cost += costs.block[k] + (costs.head[k] if on[k] else 0.0)
        cost += sum(costs.fixed[k] for k in range(exits) if on[k])
        right += hits[leaves - 1]
    return cost, right


def some_data(samples, exits, seed, levels=6, soft=False):
    """Scores with many ties, answers the more often right the later the exit."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, levels, (samples, exits)) / 4.0
    correct = draw.random((samples, exits)) < np.linspace(0.5, 0.9, exits)
    if soft:  # what is expected: fractions, now and then below 0 or above 1
        correct = correct + draw.normal(0, 0.3, (samples, exits))
    costs = Costs(*draw.uniform(0.1, 1.0, (3, exits)) * [[1.0], [0.5], [0.1]])
    return scores, correct, costs


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 25), st.booleans())
def test_a_line_search_is_every_threshold_of_one_exit(seed, exits, samples, soft):
    scores, correct, costs = some_data(samples, exits, seed, soft=soft)
    draw = np.random.default_rng(seed + 1)
    limits = np.where(draw.random(exits - 1) < 0.3, -np.inf, draw.integers(0, 6, exits - 1) / 4)
    searched = []
    for k, at, cost, right in line_searches(data_of(scores, correct, costs), limits):
        earlier = [None if np.isneginf(t) else t for t in limits]
        reached = [s[k] for s in scores if slow_exit(s[:k], earlier[:k]) == k + 1 or k == 0]
        assert at.tolist() == [-np.inf, *sorted(set(reached))]
        for t, found_cost, found_right in zip(at, cost, right, strict=True):
            thresholds = tuple(
                None if np.isneginf(x) else x for x in [*limits[:k], t, *limits[k + 1 :]]
            )
            want_cost, want_right = slow_total(scores, correct, thresholds, costs)
            assert found_cost == pytest.approx(want_cost)
            assert found_right == pytest.approx(want_right)
        limits[k] = draw.choice(at)
        searched.append(k)
    assert searched == list(range(exits - 1))[::-1]


@pytest.mark.parametrize("seed", range(16))
def test_the_frontier_is_that_of_all_combinations_on_its_hull(seed):
    scores, correct, costs = some_data(30, 4, seed, levels=5)
    values = [None, *np.unique(scores)]
    everything = [
        slow_total(scores, correct, thresholds, costs)
        for thresholds in itertools.product(values, repeat=3)
    ]
    found = joint_frontier(scores, correct, costs)
    # At every price of an error, the best of all combinations is on the frontier that was found.
    for price in np.geomspace(0.05, 50, 25):
        want = min(cost - price * right for cost, right in everything)
        assert (found.cost - price * found.correct).min() == pytest.approx(want)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_frontier_says_what_its_thresholds_do_and_none_dominates_another(seed, soft):
    scores, correct, costs = some_data(60, 5, seed, soft=soft)
    found = joint_frontier(scores, correct, costs)
    assert (np.diff(found.cost) > 0).all() and (np.diff(found.correct) > 0).all()
    for i, (cost, right, _) in enumerate(zip(*found, strict=True)):
        want = slow_total(scores, correct, found.thresholds(i), costs)
        assert (cost, right) == pytest.approx(want)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_stops_below_what_is_of_interest_and_not_before_it_got_there(monkeypatch, seed):
    scores, correct, costs = some_data(200, 4, seed)
    whole = joint_frontier(scores, correct, costs)
    # The full network's count is where the search begins, or above: it may not end there at once.
    for least in (correct[:, -1].sum(), whole.correct[len(whole.correct) // 2], whole.correct[-1]):
        part = joint_frontier(scores, correct, costs, least)
        want, found = (f.cost[np.searchsorted(f.correct, least) :].min() for f in (whole, part))
        assert found <= 1.1 * want
    improve, steps = joint._improve, []
    monkeypatch.setattr(joint, "_improve", lambda *a: steps.append(1) or improve(*a))
    joint_frontier(scores, correct, costs, whole.correct[-1])
    assert 2 <= len(steps) < 2 * len(joint.PRICES)


def test_the_more_samples_the_fewer_random_starts(monkeypatch):
    improve, steps = joint._improve, []
    monkeypatch.setattr(joint, "_improve", lambda *a: steps.append(1) or improve(*a))
    for samples, starts in ((1_999, len(joint.PRICES)), (5_000, 6), (30_000, 1)):
        steps.clear()
        joint_frontier(*some_data(samples, 3, 0))
        assert len(steps) == len(joint.PRICES) + starts


def test_the_same_data_give_the_same_frontier():
    scores, correct, costs = some_data(50, 4, 1)
    first, again = (joint_frontier(scores, correct, costs) for _ in range(2))
    assert first.limits.tolist() == again.limits.tolist()


def test_under_a_criterion_that_looks_back_heads_are_paid_with_the_blocks():
    model = hand_made_model(4, 64)
    plain, back = costs_of(model, 64), costs_of(model, 64, "patience")
    removal = np.append(np.maximum(model.removal[:, 1] + model.removal[:, 2] / 2, 0), 0)
    np.testing.assert_allclose(back.head, removal, atol=1e-12)
    np.testing.assert_allclose(back.block + back.head, plain.block + plain.head)


def test_costs_are_the_straight_lines_of_the_time_model():
    model = hand_made_model(4, 64)
    model.parts[:] = 0.0
    n = np.arange(65)
    for p in range(3):
        for k in range(4):
            model.parts[p, k] = (p + 1) * (2.0 + 0.5 * k * n)
    costs = costs_of(model, 64)
    np.testing.assert_allclose(costs.block, 0.5 * np.arange(4), atol=1e-9)
    removal = np.maximum(model.removal[:, 1] + model.removal[:, 2] / 2, 0)
    np.testing.assert_allclose(costs.head, 2.5 * np.arange(4) + np.append(removal, 0), atol=1e-9)
    start = np.append(np.maximum(model.removal[:, 0], 0), 0)
    np.testing.assert_allclose(costs.fixed, (10.0 + start) / 64)
