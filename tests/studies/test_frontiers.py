"""Frontiers and what methods need at equal accuracy, against slow, obvious recounts."""

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit, slow_stage_seconds

from offramp.report.frontiers_page import page
from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.deferral import deferral_table
from offramp.scoring.policy import exits_of, shared_cutoff
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import scores_left_out, weights_of
from offramp.studies import frontiers
from offramp.studies.frontiers import (
    Curve,
    SplitData,
    curves,
    equal_accuracy_table,
    frontiers_table,
    seconds_at,
)
from offramp.thresholds.evaluation import evaluate

EXITS, CLASSES, BATCH = 3, 4, 16


def some_data(samples, seed):
    """Logits that are right the surer they are and the later the exit."""
    draw = np.random.default_rng(seed)
    label = draw.integers(0, CLASSES, samples)
    logits = draw.normal(size=(samples, EXITS, CLASSES)).astype(np.float32)
    strength = draw.exponential(2.0, (samples, 1)) * np.array([0.7, 1.0, 1.5])
    logits[np.arange(samples)[:, None], np.arange(EXITS), label[:, None]] += strength
    return SplitData(logits, label, logits.argmax(axis=2) == label[:, None])


@pytest.fixture(scope="module")
def found():
    val, test = some_data(80, 1), some_data(60, 2)
    model = hand_made_model(EXITS, BATCH)
    patch = pytest.MonkeyPatch()
    patch.setattr(frontiers, "POLICIES", 6)
    patch.setattr(frontiers, "TARGETS", (0.6, 0.8, 0.9))
    patch.setattr(frontiers, "RESAMPLES", 50)
    patch.setattr("offramp.thresholds.joint.PRICES", np.geomspace(100, 0.1, 8))
    made = curves(val, test, (1.5, 1.0, 0.8), deferral_table(val.logits, val.label), model)
    yield val, test, model, made
    patch.undo()


def test_there_is_a_curve_for_every_criterion_and_method_and_for_scaled_entropy(found):
    kinds = [(c.criterion, c.scaled, c.method) for c in found[-1]]
    want = [(name, False) for name in CRITERIA] + [("entropy", True)]
    assert kinds == [(*kind, m) for kind in want for m in ("shared", "empirical", "joint")]


def test_every_policy_is_right_and_takes_time_as_a_slow_run_of_the_table_says(found):
    val, test, model, made = found
    known = weights_of(deferral_table(val.logits, val.label))
    for curve in made:
        divisors = (1.5, 1.0, 0.8) if curve.scaled else None
        weights = known if curve.criterion == "deferral" else None
        scores = scores_of(curve.criterion, test.logits, divisors, weights)
        for m, policy in enumerate(curve.policies):
            taken = [slow_exit(row, policy.thresholds) for row in scores.tolist()]
            on = [t is not None for t in policy.thresholds] + [True]
            heads = list(on)
            if curve.criterion in ("patience", "agreement") and True in on[:-1]:
                last = max(k for k in range(EXITS - 1) if on[k])
                heads[:last] = [True] * last
            assert curve.seconds[:, m].sum() == pytest.approx(
                sum(slow_stage_seconds(model, taken, BATCH, heads, on))
            )
            right = [test.correct[i, k - 1] for i, k in enumerate(taken)]
            assert curve.right[:, m].tolist() == right


def test_thresholds_after_temperatures_come_from_the_other_half(found):
    val, test, model, _ = found
    spoilt = val.logits.copy()
    spoilt[: len(spoilt) // 2] = 5.0
    deferral = deferral_table(val.logits, val.label)
    changed = curves(val._replace(logits=spoilt), test, (1.5, 1.0, 0.8), deferral, model)
    for before, after in zip(found[-1], changed, strict=True):
        if before.scaled:
            assert before.policies == after.policies


def test_the_frontiers_table_counts_what_the_curves_hold(found):
    made = found[-1]
    rows = frontiers_table(made).to_pylist()
    assert len(rows) == sum(len(c.policies) for c in made)
    first = made[0]
    assert [r["correct"] for r in rows[: len(first.policies)]] == first.right.sum(axis=0).tolist()
    assert rows[0]["thresholds"] == list(first.policies[0].thresholds)
    assert all(r["accuracy_low"] <= r["accuracy"] <= r["accuracy_high"] for r in rows)


def test_time_is_read_between_policies_in_a_straight_line():
    accuracy = np.array([[0.5, 0.9, 0.7]])
    seconds = np.array([[1.0, 3.0, 2.0]])
    for wanted, want in ((0.4, 1.0), (0.6, 1.5), (0.7, 2.0), (0.8, 2.5)):
        assert seconds_at(accuracy, seconds, np.array([wanted]))[0] == pytest.approx(want)
    assert np.isinf(seconds_at(accuracy, seconds, np.array([0.91]))[0])


def test_a_lucky_fast_policy_is_pooled_with_the_slower_ones_it_beats():
    accuracy, seconds = np.array([[0.6, 0.8, 0.7, 0.9]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    # 0.8 and 0.7 become 0.75 each, reached at the mean of their times.
    assert seconds_at(accuracy, seconds, np.array([0.75]))[0] == pytest.approx(2.5)
    assert seconds_at(accuracy, seconds, np.array([0.825]))[0] == pytest.approx(3.25)


def test_a_curve_ends_with_all_exits_disabled_and_has_no_policy_that_another_beats(found):
    val, _, model, made = found
    expected = expected_correct(val.logits, val.label)
    for curve in made:
        if curve.scaled:
            continue
        if curve.criterion == "deferral":
            scores = scores_left_out(deferral_table(val.logits, val.label), val.logits)
        else:
            scores = scores_of(curve.criterion, val.logits)
        assert len(set(curve.policies)) == len(curve.policies)
        results = [evaluate(scores, val.correct, p, model) for p in curve.policies]
        taken = [exits_of(scores, p.thresholds) for p in curve.policies]
        right = [expected[np.arange(len(expected)), t - 1].sum() for t in taken]
        assert (np.diff([r["seconds"][0] for r in results]) > 0).all()
        assert (np.diff(right) > 0).all()
        assert right[-1] == max(val.correct[:, -1].sum(), right[-1])


def made_up_curve(method, seconds, right):
    policies = [shared_cutoff(c, 1) for c in range(right.shape[1])]
    return Curve("entropy", False, method, policies, right, seconds)


def test_a_curve_twice_as_fast_is_twice_as_fast_at_equal_accuracy_in_every_draw():
    draw = np.random.default_rng(0)
    correct = draw.random((400, 2)) < 0.9
    right = np.stack([draw.random(400) < p for p in (0.7, 0.8, 0.88, 0.9)], axis=1)
    right[:, -1] |= correct[:, -1]
    seconds = np.tile([1.0, 2.0, 3.0, 4.0], (400, 1))
    pair = [made_up_curve("shared", seconds, right), made_up_curve("joint", seconds / 2, right)]
    table = equal_accuracy_table(pair, correct, hand_made_model(2, 16))
    rows = [r for r in table.to_pylist() if r["points_lost"] == 1.0]
    for name in ("over_shared", "over_shared_low", "over_shared_high"):
        assert [r[name] for r in rows] == pytest.approx([1.0, 2.0])
    assert rows[0]["seconds_low"] <= rows[0]["seconds"] <= rows[0]["seconds_high"]


def test_what_is_out_of_reach_is_null_and_said_so(found):
    _, test, model, _ = found
    hopeless = made_up_curve("shared", np.ones((60, 1)), np.zeros((60, 1), dtype=bool))
    table = equal_accuracy_table([hopeless], test.correct, model)
    assert all(row["seconds"] is None for row in table.to_pylist())
    text = page(table, {"model": "toy", "dataset": "made up"})
    assert "not reached" in text and "0.25 points below the full network" in text


def test_an_accuracy_out_of_reach_in_some_draws_is_no_speed_up_of_nought():
    correct = np.arange(400) >= 40
    near = correct.copy()
    near[[0, *range(40, 43)]] = ~near[[0, *range(40, 43)]]  # 0.5 points below, more in most draws
    pair = [
        made_up_curve("shared", np.full((400, 1), 2.0), correct[:, None]),
        made_up_curve("joint", np.full((400, 1), 1.0), near[:, None]),
    ]
    table = equal_accuracy_table(pair, np.stack([correct] * 2, axis=1), hand_made_model(2, 16))
    low = {r["points_lost"]: r["over_shared_low"] for r in table.to_pylist()[1::2]}
    assert low[0.5] == 0 and low[2.0] == pytest.approx(2.0)
    assert "400 s (2.00x [not reached, 2.00])" in page(table, {"model": "toy", "dataset": "x"})
