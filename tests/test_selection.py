"""Each rule against its statement, tried on every candidate in turn."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import hand_made_model, slow_exit
from hypothesis import given
from hypothesis import strategies as st

from offramp.calibration import CalibrationData, calibrate_all
from offramp.intervals import largest_loss
from offramp.policy import Policy, exits_of
from offramp.selection import (
    RULES,
    Candidate,
    accuracy_at_least,
    choose_policies,
    confidence_each,
    loss_at_most,
    pareto_frontier,
    with_changes,
)
from offramp.sweep import sweep_rows, sweep_split

N = 20


def candidate(seconds: float, correct: int, n: int = N, **more) -> Candidate:
    """One against a full network that is always right, if ``more`` does not say otherwise."""
    more = {"lost": n - correct} | more
    return Candidate(Policy("entropy", (0.5,)), {"cutoff": 0.5}, seconds, correct, n, **more)


def choose(rule: str, candidates, **options):
    limits = {"max_loss": 0.15, "min_accuracy": 0.7, "confidence": 0.6} | options
    return RULES[rule](candidates, **limits)


# Few values, so that candidates are often equally fast or equally right.
CANDIDATES = st.lists(
    st.builds(candidate, st.sampled_from([1.0, 2.0, 3.0]), st.integers(0, N)), max_size=8
)


def slow_walk(candidates, passes):
    """From slow to fast up to the first that fails; the fastest so far, the most right of these."""
    best = None
    for seconds in (3.0, 2.0, 1.0):
        for c in (c for c in candidates if c.seconds == seconds):
            if not passes(c):
                return best
            if best is None or c.seconds < best.seconds or c.correct > best.correct:
                best = c
    return best


@given(CANDIDATES, st.floats(0, 1), st.sampled_from([0.5, 0.9]))
def test_fastest_within_loss_stops_at_the_first_that_may_lose_too_much(candidates, lost, sure):
    chosen = choose("fastest_within_loss", candidates, max_loss=lost, confidence=sure)
    assert chosen == slow_walk(candidates, lambda c: loss_at_most(c, sure) <= lost)


@given(CANDIDATES, st.floats(0, 1), st.sampled_from([0.5, 0.9]))
def test_fastest_above_accuracy_stops_at_the_first_that_may_be_less(candidates, least, sure):
    chosen = choose("fastest_above_accuracy", candidates, min_accuracy=least, confidence=sure)
    assert chosen == slow_walk(candidates, lambda c: accuracy_at_least(c, sure) >= least)


def test_families_are_walked_apart_and_share_the_error():
    def of(origin, seconds, lost):
        return candidate(seconds, 5000 - lost, n=5000)._replace(origin=origin)

    cutoffs = [of({"cutoff": c}, 3 - c, lost) for c, lost in ((0.0, 0), (1.0, 40), (1.5, 0))]
    on_train = [of({"calibrated_on": "train"}, 1.8, 12)]
    limits = {"max_loss": 0.004, "confidence": 0.9}
    assert choose("fastest_within_loss", cutoffs, **limits) == cutoffs[0]
    assert choose("fastest_within_loss", cutoffs + on_train, **limits) == on_train[0]
    assert confidence_each(cutoffs, 0.9) == pytest.approx(0.9)
    assert confidence_each(cutoffs + on_train, 0.9) == pytest.approx(0.95)
    assert loss_at_most(on_train[0], 0.9) < 0.0034 < loss_at_most(on_train[0], 0.95)
    assert choose("fastest_within_loss", on_train, max_loss=0.0034, confidence=0.9) == on_train[0]
    both = choose("fastest_within_loss", cutoffs + on_train, max_loss=0.0034, confidence=0.9)
    assert both == cutoffs[0]


def test_the_confidence_holds_for_the_chosen_one_of_many():
    # All candidates truly lose a little more than allowed, but for the full network's own answers.
    draw = np.random.default_rng(0)
    n, broken, draws = 2_000, 0, 400
    for _ in range(draws):
        hit = draw.random(n)  # candidate i turns the first losses[i] of the samples wrong
        lost = [int((hit < 0.0105 + 0.0002 * i).sum()) for i in range(40)]
        some = [candidate(100.0 - i, n - m, n=n) for i, m in enumerate(lost)]
        broken += choose("fastest_within_loss", some, max_loss=0.01, confidence=0.9) is not None
    assert (
        0.02 <= broken / draws <= 0.13
    )  # rarely, but not never: a rule that never chooses is no use


def test_a_policy_that_disables_all_exits_loses_nothing():
    nobody = candidate(1.0, 170, n=180)._replace(policy=Policy("entropy", (None, None)))
    assert loss_at_most(nobody, 0.99) == 0.0


@given(CANDIDATES)
def test_best_accuracy_per_second_has_the_largest_ratio(candidates):
    chosen = choose("best_accuracy_per_second", candidates)
    if not candidates:
        assert chosen is None
    else:
        best = max(c.correct / c.n / c.seconds for c in candidates)
        assert chosen in candidates
        assert chosen.correct / chosen.n / chosen.seconds == best


@given(CANDIDATES)
def test_the_frontier_holds_exactly_those_whom_none_dominates(candidates):
    def dominated(c):
        return any(
            (o.seconds <= c.seconds and o.correct >= c.correct)
            and (o.seconds < c.seconds or o.correct > c.correct)
            for o in candidates
        )

    want = sorted({(c.seconds, c.correct) for c in candidates if not dominated(c)})
    assert [(c.seconds, c.correct) for c in pareto_frontier(candidates)] == want


@pytest.mark.parametrize("rule", RULES)
def test_without_candidates_every_rule_chooses_none(rule):
    assert choose(rule, []) is None


def test_when_every_candidate_loses_too_much_none_is_chosen():
    assert choose("fastest_within_loss", [candidate(1, 10), candidate(2, 17)]) is None
    assert choose("fastest_above_accuracy", [candidate(1, 10), candidate(2, 14)]) is None


@pytest.mark.parametrize("sure", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [180, 5_000])
@pytest.mark.parametrize("lost, gained", [(0.03, 0.02), (0.006, 0.001), (0.3, 0.1)])
def test_the_bound_on_the_loss_holds_as_often_as_it_says(sure, lost, gained, n):
    draws = 20_000
    counts = np.random.default_rng(0).multinomial(n, [lost, gained, 1 - lost - gained], draws)
    bounds = np.array([largest_loss(a, b, n, sure) for a, b, _ in counts])
    held = np.mean(bounds >= lost - gained)
    if n * lost > 20:
        assert held == pytest.approx(sure, abs=0.025)
    if n * lost > 5 or sure >= 0.9:  # with few changes it holds more often, but for low confidence
        assert held >= sure - 0.025


@pytest.mark.parametrize("sure", [0.5, 0.9])
@pytest.mark.parametrize("lost", [0, 1, 25])
def test_a_loss_of_exactly_what_is_allowed_passes_and_one_more_does_not(lost, sure):
    passes, fails = (candidate(1.0, 5000 - m, n=5000) for m in (lost, lost + 1))
    limits = {"max_loss": loss_at_most(passes, sure), "confidence": sure}
    assert choose("fastest_within_loss", [passes], **limits) == passes
    assert choose("fastest_within_loss", [fails], **limits) is None


@pytest.mark.parametrize("sure", [0.5, 0.9])
def test_an_accuracy_of_exactly_the_minimum_passes_and_one_less_does_not(sure):
    passes, fails = (candidate(1.0, hits, n=5000) for hits in (4000, 3999))
    limits = {"min_accuracy": accuracy_at_least(passes, sure), "confidence": sure}
    assert choose("fastest_above_accuracy", [passes], **limits) == passes
    assert choose("fastest_above_accuracy", [fails], **limits) is None


@pytest.mark.parametrize("sure", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("accuracy", [0.7, 0.94])
def test_the_bound_on_the_accuracy_holds_as_often_as_it_says(sure, accuracy):
    hits = np.random.default_rng(0).binomial(5_000, accuracy, 2_000)
    bounds = {k: accuracy_at_least(candidate(1.0, int(k), n=5_000), sure) for k in set(hits)}
    held = np.mean([bounds[k] <= accuracy for k in hits])
    assert held == pytest.approx(sure, abs=0.03)


def test_few_validation_samples_vouch_for_little():
    few, many = candidate(1.0, 180, n=180), candidate(2.0, 5000, n=5000)
    assert choose("fastest_within_loss", [few, many], max_loss=0.005, confidence=0.9) == many
    options = {"min_accuracy": 0.995, "confidence": 0.9}
    assert choose("fastest_above_accuracy", [few, many], **options) == many


def test_of_the_same_loss_the_one_with_more_changes_is_less_sure():
    calm = candidate(2.0, 4990, n=5000, lost=10)
    moved = candidate(1.0, 4990, n=5000, lost=110, gained=100)
    options = {"max_loss": 0.004, "confidence": 0.9}
    assert choose("fastest_within_loss", [calm, moved], **options) == calm
    assert choose("fastest_within_loss", [calm, moved], **options | {"max_loss": 0.01}) == moved


def test_what_was_fitted_to_validation_data_is_expected_to_lose_more():
    lucky = candidate(1.0, 4990, n=5000, optimism=0.004)
    honest = candidate(2.0, 4990, n=5000)
    for sure in (0.6, 0.9):
        bound = loss_at_most(honest, sure)
        assert loss_at_most(lucky, sure) == pytest.approx(bound + 0.004)
        options = {"max_loss": bound + 0.001, "confidence": sure}
        assert choose("fastest_within_loss", [lucky, honest], **options) == honest
        options["max_loss"] = bound + 0.005
        assert choose("fastest_within_loss", [lucky, honest], **options) == lucky
    assert choose("fastest_above_accuracy", [lucky, honest], min_accuracy=0.996) == honest
    assert pareto_frontier([honest, lucky]) == [lucky, honest]


def test_a_gain_over_the_full_network_is_no_loss():
    better = candidate(1.0, 20, lost=0, gained=5)
    assert choose("fastest_within_loss", [better], max_loss=0.0, confidence=0.9) == better


def test_changes_are_counted_sample_by_sample():
    draw = np.random.default_rng(3)
    scores, correct = draw.random((500, 2)), draw.random((500, 2)) < 0.8
    found = with_changes(candidate(1.0, 0), scores, correct)
    taken = exits_of(scores, (0.5,))
    pairs = [(correct[i, taken[i] - 1], correct[i, 1]) for i in range(500)]
    assert found.lost == pairs.count((False, True)) > 0
    assert found.gained == pairs.count((True, False)) > 0


def test_of_the_equally_fast_the_more_accurate_is_chosen():
    best = candidate(1.0, 19)
    assert choose("fastest_within_loss", [candidate(1.0, 18), best, candidate(2.0, 20)]) == best


def test_the_knee_is_the_corner_of_a_bent_frontier():
    # Steep up to 5 seconds, flat from there on: the corner is no matter of taste.
    steep = [candidate(s, 10 * s, n=100) for s in range(1, 6)]
    flat = [candidate(s, 45 + s, n=100) for s in range(6, 16)]
    dominated = [candidate(9.5, 3, n=100)]
    chosen = choose("knee", dominated + flat + steep)
    assert (chosen.seconds, chosen.correct) == (5, 50)


def test_a_frontier_of_fewer_than_three_has_no_knee():
    assert choose("knee", [candidate(1, 5), candidate(2, 9), candidate(3, 9)]) is None


@pytest.mark.parametrize("max_loss, satisfied", [(0.05, True), (-1.0, False)])
def test_policies_are_chosen_from_the_tables_and_say_why(max_loss, satisfied):
    draw, model = np.random.default_rng(0), hand_made_model(3, 64)
    model.parts[0] *= 1_000  # blocks dear, heads cheap: leaving early pays
    scores = {split: draw.random((800, 3)) for split in ("train", "val", "test")}
    data = {k: (s, draw.random(s.shape) < 1 - s * [0.5, 0.3, 0.1]) for k, s in scores.items()}
    settings = {"method": "empirical", "target": 0.9, "targets": [0.85, 0.9, 0.95]}
    splits = {split: CalibrationData(*known) for split, known in data.items()}
    calibration = pa.table(calibrate_all(splits, "entropy", settings, model, 64))
    optimism = pa.table({"target": settings["targets"], "optimism": [-0.01, 0.01, 0.002]})
    lucky = {("val", 0.9): 0.01, ("val", 0.95): 0.002}
    cutoffs = np.linspace(0, 1, 21)
    rows = sweep_rows("val", "entropy", cutoffs, sweep_split(*data["val"], cutoffs, model, 64))
    limits = {"confidence": 0.9, "max_loss": max_loss, "min_accuracy": 0.5}
    found = choose_policies(
        pa.table(rows), calibration, optimism, *data["val"], 0.5, 0.9,
        {"rule": "fastest_within_loss", **limits}, "entropy", None,
    )  # fmt: skip
    assert found["report_cutoff"][0].thresholds == (0.5, 0.5)
    assert found["target"][1]["origin"]["target"] == 0.9
    assert found["target"][1]["expected"]["optimism"] == 0.01
    below = choose_policies(
        pa.table(rows), calibration, optimism, *data["val"], 0.5, 0.85,
        {"rule": "fastest_within_loss", **limits}, "entropy", None,
    )  # fmt: skip
    assert below["target"][1]["expected"]["optimism"] == 0.0
    values, correct = data["val"]
    for name, families in (("best_cutoff", 1), ("best_train", 1), ("best", 3)):
        policy, about = found[name]
        assert about["selection"]["satisfied"] == satisfied
        if not satisfied:
            assert policy.thresholds == (None, None)
            continue
        taken = np.array([slow_exit(row, policy.thresholds) for row in values.tolist()]) - 1
        right, full = correct[np.arange(800), taken], correct[:, -1]
        lost, gained = int((full & ~right).sum()), int((right & ~full).sum())
        bound = largest_loss(lost, gained, 800, 1 - 0.1 / families)
        expected, origin = about["expected"], about["origin"]
        fitted = origin.get("calibrated_on"), origin.get("target")
        assert expected["optimism"] == lucky.get(fitted, 0.0)
        assert expected["loss_at_most"] == pytest.approx(bound + expected["optimism"])
        assert expected["loss_at_most"] <= max_loss
    if satisfied:
        seconds = {name: found[name][1]["expected"]["seconds"] for name in found}
        assert seconds["best_cutoff"] < max(rows["seconds"])
