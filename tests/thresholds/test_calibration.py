"""Thresholds against all candidates tried one by one, and the promise they make."""

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit, slow_stage_seconds
from hypothesis import example, given
from hypothesis import strategies as st

from offramp.scoring.policy import Policy, exits_of
from offramp.scoring.pool import expected_correct
from offramp.thresholds.calibration import (
    CalibrationData,
    at_least,
    calibrate_empirical,
    calibrate_jointly,
    calibration_rows,
    expected_of,
    thresholds_for,
)
from offramp.thresholds.evaluation import evaluate
from offramp.thresholds.guarantee import calibrate_guaranteed
from offramp.thresholds.joint import bill_of, costs_of, policy_cost
from offramp.thresholds.survivors import largest_threshold

LEVELS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2]
TARGETS = [0.0, 0.5, 2 / 3, 0.75, 0.8, 0.9, 1.0]


@st.composite
def scored_samples(draw, largest=30):
    count = draw(st.integers(0, largest))
    scores = draw(st.lists(st.sampled_from(LEVELS), min_size=count, max_size=count))
    correct = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return np.array(scores, dtype=float), np.array(correct, dtype=bool)


@st.composite
def scored_splits(draw, fewest=0):
    exits, samples = draw(st.integers(1, 5)), draw(st.integers(fewest, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    entropy = random.choice(LEVELS, (samples, exits))
    # Wrong more often at high entropy, so that some exits pass a high target and others do not.
    correct = random.random((samples, exits)) > entropy * draw(st.sampled_from([0.0, 0.4, 0.8]))
    return entropy, correct


def slow_threshold(scores, correct, target):
    """Of all scores as candidates, the largest at which those at or below it are good enough."""
    best = None
    for candidate in scores:
        leaving = [
            right for score, right in zip(scores, correct, strict=True) if score <= candidate
        ]
        if sum(leaving) / len(leaving) >= target and (best is None or candidate > best):
            best = candidate
    return best


def slow_calibrate(entropy, correct, target):
    entropy, correct = entropy.tolist(), correct.tolist()
    exits = len(entropy[0])
    survivors = list(range(len(entropy)))
    thresholds = []
    for k in range(exits - 1):
        threshold = slow_threshold(
            [entropy[i][k] for i in survivors], [correct[i][k] for i in survivors], target
        )
        thresholds.append(threshold)
        if threshold is not None:
            survivors = [i for i in survivors if not entropy[i][k] <= threshold]
    return tuple(thresholds)


@given(scored_samples(), st.sampled_from(TARGETS))
def test_the_threshold_is_the_best_of_all_candidates(samples, target):
    scores, correct = samples
    want = slow_threshold(scores.tolist(), correct.tolist(), target)
    assert largest_threshold(scores, correct, at_least(target)) == want


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=30), st.sampled_from(TARGETS))
def test_the_threshold_is_the_best_of_all_candidates_on_continuous_scores(pairs, target):
    scores = np.array([score for score, _ in pairs], dtype=float)
    correct = np.array([right for _, right in pairs], dtype=bool)
    want = slow_threshold(scores.tolist(), correct.tolist(), target)
    assert largest_threshold(scores, correct, at_least(target)) == want


def test_a_dip_of_the_accuracy_below_the_target_does_not_end_the_search():
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    correct = np.array([False, True, True, True, True, False])
    # Accuracies along the way: 0, 1/2, 2/3, 3/4, 4/5, 4/6.
    assert largest_threshold(scores, correct, at_least(0.8)) == 0.5


def test_samples_of_equal_entropy_leave_together_or_not_at_all():
    scores = np.array([0.1, 0.3, 0.3])
    # Stopping after the first 0.3 would be right twice of twice; a tie is not split.
    assert largest_threshold(scores, np.array([True, True, False]), at_least(0.8)) == 0.1
    assert largest_threshold(scores, np.array([True, True, False]), at_least(0.6)) == 0.3


def test_when_all_may_leave_the_threshold_is_the_largest_entropy():
    assert largest_threshold(np.array([0.7, 0.2, 1.9]), np.array([True] * 3), at_least(1.0)) == 1.9


def test_when_no_threshold_is_good_enough_there_is_none():
    assert largest_threshold(np.array([0.7, 0.2]), np.array([False, False]), at_least(0.1)) is None


def test_one_right_sample_is_enough():
    scores, correct = np.array([0.1, 0.2, 0.3]), np.array([True, False, False])
    assert largest_threshold(scores, correct, at_least(1.0)) == 0.1


def test_without_samples_there_is_no_threshold():
    assert largest_threshold(np.array([]), np.array([], dtype=bool), at_least(0.0)) is None


def test_a_target_met_exactly_is_met():
    scores = np.arange(5.0)
    assert largest_threshold(scores, np.array([True] * 4 + [False]), at_least(0.8)) == 4.0


@given(scored_splits(fewest=1), st.sampled_from(TARGETS))
def test_calibration_is_the_slow_loop_by_the_definition(split, target):
    entropy, correct = split
    assert calibrate_empirical(entropy, correct, target) == slow_calibrate(entropy, correct, target)


@given(scored_splits(fewest=1), st.sampled_from(TARGETS))
def test_on_its_own_data_every_enabled_exit_reaches_the_target(split, target):
    entropy, correct = split
    thresholds = calibrate_empirical(entropy, correct, target)
    taken = exits_of(entropy, thresholds)
    for k, threshold in enumerate(thresholds):
        right = correct[taken == k + 1, k]
        if threshold is None:
            assert len(right) == 0
        else:
            assert right.sum() / len(right) >= target


def test_an_exit_that_no_calibration_sample_reaches_is_disabled():
    entropy, correct = np.zeros((4, 3)), np.ones((4, 3), dtype=bool)
    assert calibrate_empirical(entropy, correct, 0.8) == (0.0, None)


def test_later_exits_are_calibrated_on_survivors_only():
    entropy = np.array([[0.1, 0.1], [0.1, 0.2], [0.9, 0.3], [0.9, 0.4]])
    entropy = np.column_stack([entropy, np.zeros(4)])
    # Exit 2 is right on those who leave at exit 1 and wrong on those who do not.
    correct = np.array([[True, True], [True, True], [False, False], [False, False]])
    correct = np.column_stack([correct, np.ones(4, dtype=bool)])
    assert calibrate_empirical(entropy, correct, 0.6) == (0.1, None)


def test_a_network_without_side_exits_has_no_thresholds():
    assert calibrate_empirical(np.zeros((3, 1)), np.ones((3, 1), dtype=bool), 0.8) == ()


@given(scored_splits(fewest=1), st.data())
@example((np.zeros((5, 3)), np.ones((5, 3), dtype=bool)), None)
def test_evaluation_is_the_slow_loop(split, data):
    entropy, correct = split
    samples, exits = entropy.shape
    thresholds = (0.0,) * (exits - 1)
    batch_size = 2
    if data is not None:
        limit = st.one_of(st.none(), st.sampled_from(LEVELS))
        thresholds = tuple(data.draw(limit) for _ in range(exits - 1))
        batch_size = data.draw(st.integers(1, samples + 3))
    model = hand_made_model(exits, samples, batch_size)
    result = evaluate(entropy, correct, Policy("entropy", thresholds), model)

    taken = [slow_exit(row, thresholds) for row in entropy.tolist()]
    enabled = [t is not None for t in thresholds] + [True]
    seconds = slow_stage_seconds(model, taken, batch_size, enabled)
    full = slow_stage_seconds(model, [exits] * samples, batch_size, [False] * (exits - 1) + [True])
    n = [taken.count(k) for k in range(1, exits + 1)]
    right = [
        sum(1 for i in range(samples) if taken[i] == k and correct[i, k - 1])
        for k in range(1, exits + 1)
    ]
    assert result["n"].tolist() == [samples, *n]
    assert result["correct"].tolist() == [sum(right), *right]
    np.testing.assert_allclose(result["seconds"], [sum(seconds), *seconds], rtol=1e-12)
    assert result["speedup"] == pytest.approx(sum(full) / sum(seconds), rel=1e-12)


def test_with_all_exits_disabled_the_speed_up_is_one():
    entropy, correct = np.zeros((6, 4)), np.ones((6, 4), dtype=bool)
    nobody = Policy("entropy", (None, None, None))
    result = evaluate(entropy, correct, nobody, hand_made_model(4, 6, 4))
    assert result["speedup"] == pytest.approx(1.0)
    assert result["n"].tolist() == [6, 0, 0, 0, 6]


def test_calibration_rows_are_one_overall_row_and_one_row_an_exit():
    entropy = np.array([[0.1, 0.5, 0.0], [0.9, 0.5, 0.0], [0.9, 0.9, 0.0]])
    correct = np.array([[True, False, True], [True, True, True], [True, True, False]])
    policy = Policy("entropy", (0.5, None))
    result = evaluate(entropy, correct, policy, hand_made_model(3, 3))
    rows = calibration_rows("val", "empirical", 0.8, (0.5, None), "test", result)
    assert rows["exit"] == [0, 1, 2, 3]
    assert rows["threshold"] == [None, 0.5, None, None]
    assert rows["n"] == [3, 1, 0, 2]
    assert rows["correct"] == [2, 1, 0, 1]
    assert rows["accuracy"] == [2 / 3, 1.0, None, 0.5]
    assert rows["speedup"] == [result["speedup"], None, None, None]
    assert rows["seconds"][0] == pytest.approx(sum(rows["seconds"][1:]))
    assert {rows[name][0] for name in ("calibrated_on", "split", "method")} == {
        "val",
        "test",
        "empirical",
    }
    assert {len(values) for values in rows.values()} == {4}


def total_cost(entropy, thresholds, costs):
    """What a policy costs on the samples."""
    enabled = np.array([t is not None for t in thresholds])
    taken = np.array([slow_exit(sample, thresholds) for sample in entropy])
    reach = [np.array([(taken >= k).sum()]) for k in range(1, entropy.shape[1] + 1)]
    return policy_cost(bill_of(costs, len(entropy)), enabled, reach)[0]


def joint_data():
    draw = np.random.default_rng(4)
    entropy = draw.random((60, 4))
    correct = draw.random((60, 4)) < np.where(entropy < 0.5, 0.95, [0.3, 0.5, 0.7, 0.9])
    return CalibrationData(entropy, correct)


def test_joint_thresholds_reach_the_target_overall_and_the_least_wanted_is_the_cheapest():
    data = joint_data()
    entropy, correct = data.scores, data.correct
    model = hand_made_model(4, 60)
    costs = costs_of(model)
    targets = [0.6, 0.75, 0.85]
    found = calibrate_jointly(data, targets, costs)
    for target, thresholds in zip(targets, found, strict=True):
        taken = exits_of(entropy, thresholds)
        assert correct[np.arange(60), taken - 1].mean() >= target
    spent = [total_cost(entropy, thresholds, costs) for thresholds in found]
    assert spent == sorted(spent) and spent[0] < spent[-1]


def test_a_joint_target_out_of_reach_disables_every_exit():
    data = joint_data()
    data.correct[:10] = False
    costs = costs_of(hand_made_model(4, 60))
    assert calibrate_jointly(data, [0.9], costs) == [(None, None, None)]


def test_joint_thresholds_go_by_what_is_expected_where_the_logits_are_known():
    draw = np.random.default_rng(0)
    logits, label = draw.normal(size=(60, 4, 5)), draw.integers(0, 5, 60)
    data = joint_data()
    known = data._replace(logits=logits, label=label)
    assert expected_of(data) is data.correct
    np.testing.assert_array_equal(expected_of(known), expected_correct(logits, label))
    costs = costs_of(hand_made_model(4, 60))
    # The labels reach 80 %; what random logits expect does not.
    assert calibrate_jointly(known, [0.8], costs) == [(None, None, None)]
    assert calibrate_jointly(data, [0.8], costs) != [(None, None, None)]


def test_the_joint_method_costs_less_than_the_empirical_one_at_its_accuracy():
    data = joint_data()
    entropy, correct = data.scores, data.correct
    costs = costs_of(hand_made_model(4, 60))
    for target in (0.7, 0.8, 0.9):
        alone = calibrate_empirical(entropy, correct, target)
        reached = correct[np.arange(60), exits_of(entropy, alone) - 1].mean()
        (together,) = thresholds_for({"method": "joint"}, data, [reached], costs)
        assert total_cost(entropy, together, costs) <= total_cost(entropy, alone, costs) + 1e-9


def test_the_empirical_method_by_name_is_calibrate():
    data = joint_data()
    costs = costs_of(hand_made_model(4, 60))
    found = thresholds_for({"method": "empirical"}, data, [0.7, 0.9], costs)
    assert found == [
        calibrate_empirical(data.scores, data.correct, target) for target in (0.7, 0.9)
    ]


def test_the_guaranteed_method_takes_its_confidence_from_the_settings():
    data = joint_data().sample(np.tile(np.arange(60), 20))
    costs = costs_of(hand_made_model(4, 60))
    settings = {"method": "guaranteed", "confidence": 0.8}
    found = thresholds_for(settings, data, [0.7], costs)
    assert found == [calibrate_guaranteed(data.scores, data.correct, 0.7, 0.8)]
    assert found != [(None, None, None)]
