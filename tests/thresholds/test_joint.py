"""Thresholds chosen together, against every combination there is."""

import itertools

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from offramp import OfframpError
from offramp.scoring.policy import Policy, exits_of
from offramp.thresholds import joint
from offramp.thresholds.calibration import CalibrationData, calibrate_jointly
from offramp.thresholds.evaluation import evaluate
from offramp.thresholds.joint import (
    bill_of,
    costs_of,
    joint_frontier,
    line_searches,
    linear_costs,
    policy_cost,
    search_data_of,
)
from offramp.thresholds.time_model import TimeModel, reached_by, stage_seconds


def slow_total(scores, correct, thresholds, costs):
    """Cost and number correct, sample by sample and stage by stage: the mean over all batches that
    could be made of the samples with replacement, from the costs of a batch."""
    exits, n = scores.shape[1], len(scores)
    on = [t is not None for t in thresholds] + [True]
    heads = [x or (costs.looks_back and any(on[k:-1])) for k, x in enumerate(on)]
    taken = [slow_exit(sample, thresholds) for sample in scores]
    batches = n / costs.batch_size
    cost = 0.0
    for k in range(exits):
        reach, stay = (sum(t > j for t in taken) / n for j in (k, k + 1))
        shares = np.linspace(0, 1, costs.decide.shape[1]) ** 2
        for runs, line in (
            (True, costs.stage[0, k]), (heads[k], costs.stage[1, k]), (on[k], costs.decide[k])
        ):  # fmt: skip
            cost += n * np.interp(reach, shares, line) if runs else 0.0
        if on[k] and k < exits - 1:
            cost += batches * slow_removal(costs, k, reach - stay, stay)
    return cost, sum(hits[t - 1] for hits, t in zip(correct, taken, strict=True))


def slow_removal(costs, k, leave, stay):
    """What removal costs a batch in the mean, over how many of it leave, stay, or never came."""
    a, b, c = costs.removal[k]
    size = costs.batch_size
    total = 0.0
    for left in range(1, size + 1):
        for kept in range(1, size + 1 - left):
            rest = [left, kept, size - left - kept]
            chance = multinomial.pmf(rest, size, [leave, stay, max(0.0, 1 - leave - stay)])
            total += chance * (a + b * (left + kept) + c * kept)
    return total


def some_data(samples, exits, seed, levels=6, soft=False):
    """Scores with many ties, answers the more often right the later the exit; batches of 3."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, levels, (samples, exits)) / 4.0
    correct = draw.random((samples, exits)) < np.linspace(0.5, 0.9, exits)
    if soft:  # what is expected: fractions, now and then below 0 or above 1
        correct = correct + draw.normal(0, 0.3, (samples, exits))
    model = hand_made_model(exits, 3)
    removal = draw.uniform(0.0, 0.2, (exits - 1, 3))
    return scores, correct, costs_of(model._replace(removal=removal))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 25), st.booleans())
def test_a_line_search_is_every_threshold_of_one_exit(seed, exits, samples, soft):
    scores, correct, costs = some_data(samples, exits, seed, soft=soft)
    draw = np.random.default_rng(seed + 1)
    limits = np.where(draw.random(exits - 1) < 0.3, -np.inf, draw.integers(0, 6, exits - 1) / 4)
    searched = []
    for k, at, cost, right in line_searches(search_data_of(scores, correct, costs), limits):
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
        part = joint_frontier(scores, correct, costs, np.arange(least, 201))
        want, found = (f.cost[np.searchsorted(f.correct, least) :].min() for f in (whole, part))
        assert found <= 1.1 * want
    improve, steps = joint._improve, []
    monkeypatch.setattr(joint, "_improve", lambda *a: steps.append(1) or improve(*a))
    joint_frontier(scores, correct, costs, whole.correct[-1:])
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


def test_under_a_criterion_that_looks_back_heads_run_up_to_the_last_enabled_exit():
    model = hand_made_model(4, 64)
    plain, back = costs_of(model), costs_of(model, "patience")
    everyone = [np.array([100])] * 4
    for on in itertools.product([False, True], repeat=3):
        enabled = np.array(on)
        some, all_ = (
            policy_cost(bill_of(costs, 100), enabled, everyone)[0] for costs in (plain, back)
        )
        behind = [k for k in range(3) if not on[k] and any(on[k:])]
        assert all_ - some == pytest.approx(100 * plain.stage[1, behind, -1].sum())


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("criterion", ["entropy", "agreement"])
def test_costs_are_what_the_time_model_predicts_of_the_samples_in_batches(batch_size, criterion):
    """The mean over many orders of the samples is the expected cost."""
    draw = np.random.default_rng(batch_size)
    model = hand_made_model(4, 64)
    model = model._replace(removal=np.abs(model.removal))
    scores, samples = draw.random((4_096, 4)), 4_096
    for thresholds in ((0.3, None, 0.5), (None, 0.9, None), (0.02, 0.1, 0.05), (None, None, None)):
        policy = Policy(criterion, thresholds)
        taken = exits_of(scores, thresholds)
        reach = [np.array([(taken > k).sum()]) for k in range(4)]
        bill = bill_of(costs_of(model._replace(batch_size=batch_size), criterion), samples)
        expected = policy_cost(bill, policy.runs[1, :-1], reach)[0]
        real = [
            stage_seconds(
                model, reached_by(draw.permutation(taken), batch_size, 4), policy.runs
            ).sum()
            for _ in range(20)
        ]
        assert expected == pytest.approx(np.mean(real), rel=0.01)


@pytest.mark.parametrize("came", [1, 5, 25, 50, 500])
def test_large_batches_of_which_few_come_to_a_stage_are_priced(came):
    sizes = np.arange(5_001)
    parts = np.zeros((3, 2, 5_001))
    parts[0, 1, 1:] = 5.5 + sizes[1:]
    bill = bill_of(costs_of(TimeModel(parts, np.zeros((1, 3)), 5_000)), 50_000)
    often = 10 * (1 - (1 - came / 50_000) ** 5_000)
    assert bill.block[1, came] == pytest.approx(5.5 * often + came, rel=0.005)


def test_small_batches_are_not_taken_to_need_every_block():
    """The audit's case: a block's cost that does not depend on the batch is saved where nobody
    comes."""
    n = np.arange(5)
    parts = np.zeros((3, 2, 5))
    parts[0] = [1e-3 + 1e-4 * n, 3e-3 + 1e-4 * n]
    parts[1] = 2e-4 + 1e-5 * n
    parts[2] = 1e-4
    parts[:, :, 0] = 0.0
    timed = TimeModel(parts, np.array([[1e-4, 0.0, 1e-6]]), 1)
    draw = np.random.default_rng(0)
    easy = draw.random(1_000) < 0.8
    scores = np.where(easy, 0.0, 1.0)[:, None] * [1.0, 1.0]
    correct = np.stack([easy, np.ones(1_000, bool)], axis=1)
    for batch_size, gain in ((2, 1.55), (4, 1.25)):
        model = timed._replace(batch_size=batch_size)
        costs = costs_of(model)
        (thresholds,) = calibrate_jointly(CalibrationData(scores, correct), [0.99], costs)
        assert thresholds == (0.0,)
        found = evaluate(scores, correct, Policy("entropy", thresholds), model)
        assert found["speedup"] > gain


def test_a_target_is_met_by_fractions_of_right_answers():
    """The audit's case: ten samples, each of which loses a tenth by leaving."""
    scores = np.arange(10)[:, None] / 10 * [1.0, 1.0]
    correct = np.ones((10, 2))
    correct[:, 0] -= 0.1
    costs = linear_costs(np.ones(2), np.zeros(2))
    frontier = joint_frontier(scores, correct, costs, np.array([9.5]))
    assert frontier.thresholds(0) == (0.4,) and frontier.cost.tolist() == [15.0]


@pytest.mark.parametrize("exits, samples, slack", [(2, 1_000, 1.0), (3, 1_000, 1.005)])
def test_the_frontier_is_near_an_exhaustive_search(exits, samples, slack):
    for seed in range(4):
        draw = np.random.default_rng(seed)
        hard = draw.random((samples, 1))
        scores = np.clip(hard + draw.normal(0, 0.3, (samples, exits)), 0, None)
        correct = draw.random((samples, exits)) < 1 - np.linspace(0.5, 0.1, exits) * hard
        model = hand_made_model(exits, 8)
        costs = costs_of(model._replace(removal=np.abs(model.removal)))
        target = correct[:, -1].sum() - 10.0
        found = joint_frontier(scores, correct, costs, np.array([target]))
        assert found.cost[0] <= slack * exhaustive(scores, correct, costs, target)


def exhaustive(scores, correct, costs, target):
    """The least cost of any thresholds, by one line search of the last side exit for each
    combination of the others."""
    data = search_data_of(scores, correct, costs)
    exits = scores.shape[1]
    others = [[-np.inf, *np.unique(scores[:, k])] for k in range(exits - 2)]
    least = np.inf
    for limits in itertools.product(*others):
        _, _, cost, right = next(line_searches(data, np.array([*limits, -np.inf])))
        least = min(least, cost[right >= target - 1e-6].min(initial=np.inf))
    return least


def test_a_batch_larger_than_those_measured_is_refused():
    with pytest.raises(OfframpError, match=r"batches of 65 samples, .* up to 64"):
        costs_of(hand_made_model(4, 64, 65))
