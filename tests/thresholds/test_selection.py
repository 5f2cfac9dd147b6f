"""Each rule against its statement, tried on every candidate in turn."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import hand_made_model, slow_exit
from hypothesis import given
from hypothesis import strategies as st

from offramp.common.intervals import accuracy_bound, drop_bound
from offramp.scoring.policy import Policy, exits_of
from offramp.scoring.scores import Decided
from offramp.thresholds.calibration import CalibrationData, calibrate_all, targets_of
from offramp.thresholds.joint import costs_of
from offramp.thresholds.optimism import optimism
from offramp.thresholds.selection import (
    RULES,
    Candidate,
    ValidationScores,
    calibrated_candidates,
    choose_policies,
    confidence_each,
    drop_at_most,
    judged,
    pareto_frontier,
)
from offramp.thresholds.sweep import sweep_rows, sweep_split

N = 20
ENTROPY = Decided("entropy", None, None)


def candidate(seconds: float, correct: int, n: int = N, **more) -> Candidate:
    """One against a full network that is always right, if ``more`` does not say otherwise; the
    slower, the more cautious."""
    more = {"lost": n - correct} | more
    return Candidate(Policy("entropy", (0.5,)), {"cutoff": -seconds}, seconds, correct, n, **more)


def choose(rule: str, candidates, **options):
    limits = {"max_drop": 0.15, "min_accuracy": 0.7, "confidence": 0.6} | options
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
def test_fastest_within_drop_stops_at_the_first_that_may_lose_too_much(candidates, lost, sure):
    chosen = choose("fastest_within_drop", candidates, max_drop=lost, confidence=sure)
    assert chosen == slow_walk(candidates, lambda c: drop_at_most(c, sure) <= lost)


@given(CANDIDATES, st.floats(0, 1), st.sampled_from([0.5, 0.9]))
def test_fastest_above_accuracy_stops_at_the_first_that_may_be_less(candidates, least, sure):
    chosen = choose("fastest_above_accuracy", candidates, min_accuracy=least, confidence=sure)
    assert chosen == slow_walk(candidates, lambda c: accuracy_bound(c.correct, c.n, sure) >= least)


def test_families_are_walked_apart_and_share_the_error():
    def of(origin, seconds, lost):
        return candidate(seconds, 5000 - lost, n=5000)._replace(origin=origin)

    cutoffs = [of({"cutoff": c}, 3 - c, lost) for c, lost in ((0.0, 0), (1.0, 40), (1.5, 0))]
    on_train = [of({"calibrated_on": "train", "target": 0.9}, 1.8, 12)]
    limits = {"max_drop": 0.004, "confidence": 0.9}
    assert choose("fastest_within_drop", cutoffs, **limits) == cutoffs[0]
    assert choose("fastest_within_drop", cutoffs + on_train, **limits) == on_train[0]
    assert confidence_each(cutoffs, 0.9) == pytest.approx(0.9)
    assert confidence_each(cutoffs + on_train, 0.9) == pytest.approx(0.95)
    assert drop_at_most(on_train[0], 0.9) < 0.0037 < drop_at_most(on_train[0], 0.95)
    assert choose("fastest_within_drop", on_train, max_drop=0.0037, confidence=0.9) == on_train[0]
    both = choose("fastest_within_drop", cutoffs + on_train, max_drop=0.0037, confidence=0.9)
    assert both == cutoffs[0]


def test_the_confidence_holds_for_the_chosen_one_of_many():
    # All candidates truly lose a little more than allowed, but for the full network's own answers.
    draw = np.random.default_rng(0)
    n, broken, draws = 2_000, 0, 400
    for _ in range(draws):
        hit = draw.random(n)  # candidate i turns the first losses[i] of the samples wrong
        lost = [int((hit < 0.0105 + 0.0002 * i).sum()) for i in range(40)]
        some = [candidate(100.0 - i, n - m, n=n) for i, m in enumerate(lost)]
        broken += choose("fastest_within_drop", some, max_drop=0.01, confidence=0.9) is not None
    assert (
        0.02 <= broken / draws <= 0.13
    )  # rarely, but not never: a rule that never chooses is no use


def test_a_policy_that_disables_all_exits_loses_nothing():
    nobody = candidate(1.0, 170, n=180)._replace(policy=Policy("entropy", (None, None)))
    assert drop_at_most(nobody, 0.99) == 0.0


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
    assert choose("fastest_within_drop", [candidate(1, 10), candidate(2, 17)]) is None
    assert choose("fastest_above_accuracy", [candidate(1, 10), candidate(2, 14)]) is None


@pytest.mark.parametrize("sure", [0.5, 0.9])
@pytest.mark.parametrize("lost", [0, 1, 25])
def test_a_loss_of_exactly_what_is_allowed_passes_and_one_more_does_not(lost, sure):
    passes, fails = (candidate(1.0, 5000 - m, n=5000) for m in (lost, lost + 1))
    limits = {"max_drop": drop_at_most(passes, sure), "confidence": sure}
    assert choose("fastest_within_drop", [passes], **limits) == passes
    assert choose("fastest_within_drop", [fails], **limits) is None


@pytest.mark.parametrize("sure", [0.5, 0.9])
def test_an_accuracy_of_exactly_the_minimum_passes_and_one_less_does_not(sure):
    passes, fails = (candidate(1.0, hits, n=5000) for hits in (4000, 3999))
    limits = {"min_accuracy": accuracy_bound(passes.correct, passes.n, sure), "confidence": sure}
    assert choose("fastest_above_accuracy", [passes], **limits) == passes
    assert choose("fastest_above_accuracy", [fails], **limits) is None


@pytest.mark.parametrize("sure", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("accuracy", [0.7, 0.94])
def test_the_bound_on_the_accuracy_holds_as_often_as_it_says(sure, accuracy):
    hits = np.random.default_rng(0).binomial(5_000, accuracy, 2_000)
    bounds = {k: accuracy_bound(int(k), 5_000, sure) for k in set(hits)}
    held = np.mean([bounds[k] <= accuracy for k in hits])
    assert held == pytest.approx(sure, abs=0.03)


def test_few_validation_samples_vouch_for_little():
    few, many = candidate(1.0, 180, n=180), candidate(2.0, 5000, n=5000)
    assert choose("fastest_within_drop", [few, many], max_drop=0.005, confidence=0.9) == many
    options = {"min_accuracy": 0.995, "confidence": 0.9}
    assert choose("fastest_above_accuracy", [few, many], **options) == many


def test_of_the_same_loss_the_one_with_more_changes_is_less_sure():
    calm = candidate(2.0, 4990, n=5000, lost=10)
    moved = candidate(1.0, 4990, n=5000, lost=110, gained=100)
    options = {"max_drop": 0.004, "confidence": 0.9}
    assert choose("fastest_within_drop", [calm, moved], **options) == calm
    assert choose("fastest_within_drop", [calm, moved], **options | {"max_drop": 0.01}) == moved


def test_what_the_tested_samples_know_has_no_say_in_the_order():
    """The audit's case: who leaves on the tested samples makes a candidate fast, and bad."""
    good = candidate(1.0, 5000, n=5000)._replace(origin={"cutoff": 0.1})
    bad = candidate(3.0, 4900, n=5000)._replace(origin={"cutoff": 0.2})
    lucky = candidate(0.5, 5000, n=5000)._replace(origin={"cutoff": 0.3})
    options = {"max_drop": 0.005, "confidence": 0.9}
    assert choose("fastest_within_drop", [lucky, bad, good], **options) == good
    wanted = [
        c._replace(origin={"calibrated_on": "train", "target": t})
        for c, t in ((good, 0.99), (bad, 0.98), (lucky, 0.97))
    ]
    assert choose("fastest_within_drop", wanted[::-1], **options) == wanted[0]


def test_half_calibrated_thresholds_are_judged_on_the_other_half():
    draw = np.random.default_rng(0)
    scores = draw.random((101, 2))
    correct = draw.random((101, 2)) < 0.7
    policy = Policy("entropy", (0.5,))
    whole, half = (
        judged(Candidate(policy, {"calibrated_on": on}, 1.0, 0, 101), scores, correct)
        for on in ("train", "val_half")
    )
    leave = scores[:, 0] <= 0.5
    right = np.where(leave, correct[:, 0], correct[:, 1])
    for found, some in ((whole, slice(None)), (half, slice(50, None))):
        assert (found.n, found.correct) == (len(right[some]), right[some].sum())
        assert found.lost == (correct[some, 1] & ~right[some]).sum()
        assert found.gained == (right[some] & ~correct[some, 1]).sum()
    assert whole.changed == 0  # no sample of val fitted it
    assert half.changed == (right[:50] != correct[:50, 1]).sum() > 0


def test_thresholds_fitted_to_luck_do_not_stop_those_that_change_little():
    # As `joint` fits them above the full network's accuracy: many answers changed, most of them
    # well on the half that fitted them and half of them badly on the other.
    lucky, good = candidate(2.0, 4800, n=5000, gained=60), candidate(1.0, 4990, n=5000)
    half = [
        c._replace(origin={"calibrated_on": "val_half", "target": t}, changed=changed)
        for c, t, changed in ((lucky, 0.95, 300), (good, 0.93, 12))
    ]
    options = {"max_drop": 0.005, "confidence": 0.9}
    assert choose("fastest_within_drop", half, **options) == half[1]


def test_a_gain_over_the_full_network_is_no_loss():
    better = candidate(1.0, 20, lost=0, gained=5)
    assert choose("fastest_within_drop", [better], max_drop=0.0, confidence=0.9) == better


def test_changes_are_counted_sample_by_sample():
    draw = np.random.default_rng(3)
    scores, correct = draw.random((500, 2)), draw.random((500, 2)) < 0.8
    found = judged(candidate(1.0, 0), scores, correct)
    taken = exits_of(scores, (0.5,))
    pairs = [(correct[i, taken[i] - 1], correct[i, 1]) for i in range(500)]
    assert found.lost == pairs.count((False, True)) > 0
    assert found.gained == pairs.count((True, False)) > 0


def test_of_the_equally_fast_the_more_accurate_is_chosen():
    best = candidate(1.0, 19)
    some = [candidate(1.0, 18), best, candidate(2.0, 20)]
    assert choose("fastest_within_drop", some, max_drop=0.2) == best


def test_the_knee_is_the_corner_of_a_bent_frontier():
    # Steep up to 5 seconds, flat from there on: the corner is no matter of taste.
    steep = [candidate(s, 10 * s, n=100) for s in range(1, 6)]
    flat = [candidate(s, 45 + s, n=100) for s in range(6, 16)]
    dominated = [candidate(9.5, 3, n=100)]
    chosen = choose("knee", dominated + flat + steep)
    assert (chosen.seconds, chosen.correct) == (5, 50)


CUTS = np.linspace(0, 1, 21)


def test_a_frontier_of_fewer_than_three_has_no_knee():
    assert choose("knee", [candidate(1, 5), candidate(2, 9), candidate(3, 9)]) is None


@pytest.mark.parametrize("max_drop, satisfied", [(0.05, True), (-1.0, False)])
def test_policies_are_chosen_from_the_tables_and_say_why(max_drop, satisfied):
    draw, model = np.random.default_rng(0), hand_made_model(3, 64)
    model.parts[0] *= 1_000  # blocks dear, heads cheap: leaving early pays
    scores = {split: draw.random((800, 3)) for split in ("train", "val", "test")}
    data = {k: (s, draw.random(s.shape) < 1 - s * [0.5, 0.3, 0.1]) for k, s in scores.items()}
    settings = {"method": "empirical", "target": 0.9, "targets": [0.85, 0.9, 0.95]}
    splits = {split: CalibrationData(*known) for split, known in data.items()}
    calibration = pa.table(calibrate_all(splits, "entropy", settings, model))
    optimism = pa.table({"target": settings["targets"], "optimism": [-0.01, 0.01, 0.002]})
    cutoffs = np.linspace(0, 1, 21)
    rows = sweep_rows("val", "entropy", cutoffs, sweep_split(*data["val"], cutoffs, model))
    limits = {"confidence": 0.9, "max_drop": max_drop, "min_accuracy": 0.5}
    validation = ValidationScores(*data["val"], ENTROPY)
    found = choose_policies(
        pa.table(rows), calibration, optimism, validation, 0.5, 0.9,
        {"rule": "fastest_within_drop", **limits},
    )  # fmt: skip
    assert found["report_cutoff"][0].thresholds == (0.5, 0.5)
    assert found["target"][1]["origin"]["target"] == 0.9
    assert found["target"][1]["expected"]["optimism"] == 0.01
    below = choose_policies(
        pa.table(rows), calibration, optimism, validation, 0.5, 0.85,
        {"rule": "fastest_within_drop", **limits},
    )  # fmt: skip
    assert below["target"][1]["expected"]["optimism"] == 0.0
    values, correct = data["val"]
    for name, families, many in (("best_cutoff", 1, 21), ("best_train", 1, 3), ("best", 3, 27)):
        policy, about = found[name]
        assert about["selection"]["satisfied"] == satisfied
        assert about["selection"]["of"] == many
        if not satisfied:
            assert policy.thresholds == (None, None)
            continue
        expected, origin = about["expected"], about["origin"]
        assert origin.get("calibrated_on") != "val" and expected["optimism"] == 0.0
        some = slice(400, None) if origin.get("calibrated_on") == "val_half" else slice(None)
        taken = np.array([slow_exit(row, policy.thresholds) for row in values[some].tolist()]) - 1
        right, full = correct[some][np.arange(len(taken)), taken], correct[some, -1]
        lost, gained = int((full & ~right).sum()), int((right & ~full).sum())
        assert drop_bound(lost, gained, len(taken), 1 - 0.1 / families) <= max_drop
        if policy.thresholds != (None, None):
            bound = drop_bound(lost, gained, len(taken), 1 - 0.1 / many)
            assert expected["drop_at_most"] == bound
    if satisfied:
        seconds = {name: found[name][1]["expected"]["seconds"] for name in found}
        assert seconds["best_cutoff"] < max(rows["seconds"])


def test_the_calibrated_candidates_do_not_depend_on_the_order_of_the_rows():
    draw, model = np.random.default_rng(0), hand_made_model(4, 64)
    scores = {split: draw.random((60, 4)) for split in ("train", "val", "test")}
    splits = {k: CalibrationData(s, draw.random(s.shape) < 1 - s / 3) for k, s in scores.items()}
    settings = {"method": "empirical", "target": 0.9, "targets": [0.7, 0.8, 0.9]}
    calibration = pa.table(calibrate_all(splits, "entropy", settings, model))
    shuffled = calibration.take(draw.permutation(len(calibration)))

    def ordered(table):
        return sorted(calibrated_candidates(table, ENTROPY), key=lambda c: str(c.origin))

    assert len(ordered(calibration)) == 9
    assert ordered(shuffled) == ordered(calibration)


def test_without_a_train_split_half_of_val_stands_in_for_it():
    draw, model = np.random.default_rng(0), hand_made_model(3, 64)
    model.parts[0] *= 1_000
    scores = {split: draw.random((800, 3)) for split in ("val", "test")}
    data = {k: (s, draw.random(s.shape) < 1 - s * [0.5, 0.3, 0.1]) for k, s in scores.items()}
    splits = {split: CalibrationData(*known) for split, known in data.items()}
    settings = {"method": "empirical", "target": 0.9, "targets": [0.85, 0.9, 0.95]}
    calibration = pa.table(calibrate_all(splits, "entropy", settings, model))
    assert set(calibration["calibrated_on"].to_pylist()) == {"val", "val_half"}
    luck = pa.table({"target": settings["targets"], "optimism": [0.0, 0.0, 0.0]})
    rows = sweep_rows("val", "entropy", CUTS, sweep_split(*data["val"], CUTS, model))
    selection = {"rule": "fastest_within_drop", "confidence": 0.9, "max_drop": 0.2}
    validation = ValidationScores(*data["val"], ENTROPY)
    found = choose_policies(pa.table(rows), calibration, luck, validation, 0.5, 0.9, selection)
    policy, about = found["best_train"]
    assert about["origin"]["calibrated_on"] == "val_half"
    assert about["expected"]["n"] == 400  # those that did not fit it
    taken = exits_of(scores["val"][400:], policy.thresholds) - 1
    right = data["val"][1][400:]
    lost = right[:, -1] & ~right[np.arange(400), taken]
    assert about["expected"]["lost"] == lost.sum()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["empirical", "guaranteed", "joint"])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_handful_of_validation_samples_will_do(samples, method):
    """No warning, no error; and what so few samples cannot promise is not chosen."""
    draw, model = np.random.default_rng(samples), hand_made_model(3, 8)

    def data(n):
        logits, label = draw.normal(size=(n, 3, 4)).astype(np.float32), draw.integers(0, 4, n)
        right = logits.argmax(axis=2) == label[:, None]
        return CalibrationData(draw.random((n, 3)), right, logits, label)

    splits = {"train": data(40)._replace(logits=None, label=None), "val": data(samples)}
    splits["test"] = data(20)
    val = splits["val"]
    settings = {"method": method, "confidence": 0.9, "target": 0.8, "targets": [0.5, 0.9]}
    calibration = pa.table(calibrate_all(splits, "entropy", settings, model))
    more = optimism(settings, val, targets_of(settings), costs_of(model))
    luck = pa.table({"target": targets_of(settings), "optimism": more})
    cutoffs = np.linspace(0, 1, 5)
    swept = sweep_split(val.scores, val.correct, cutoffs, model)
    sweep = pa.table(sweep_rows("val", "entropy", cutoffs, swept))
    for rule in RULES:
        selection = {"rule": rule, "confidence": 0.9, "max_drop": 0.005, "min_accuracy": 0.5}
        validation = ValidationScores(val.scores, val.correct, ENTROPY)
        found = choose_policies(sweep, calibration, luck, validation, 0.5, 0.8, selection)
        if rule == "fastest_within_drop":
            enabled = [t for t in found["best"][0].thresholds if t is not None]
            assert not enabled


@pytest.mark.parametrize("rule", RULES)
def test_a_policy_slower_than_the_full_network_is_never_chosen(rule):
    """Heads so dear that every exit costs more than it saves, however little it loses."""
    draw, model = np.random.default_rng(0), hand_made_model(3, 64)
    model.parts[1, :-1] *= 10_000
    scores = {split: draw.random((800, 3)) for split in ("train", "val", "test")}
    data = {k: (s, np.ones(s.shape, dtype=bool)) for k, s in scores.items()}
    settings = {"method": "empirical", "target": 0.9, "targets": [0.9, 0.95]}
    splits = {split: CalibrationData(*known) for split, known in data.items()}
    calibration = pa.table(calibrate_all(splits, "entropy", settings, model))
    luck = pa.table({"target": settings["targets"], "optimism": [0.0, 0.0]})
    cutoffs = np.linspace(0, 0.5, 6)
    rows = pa.table(
        sweep_rows("val", "entropy", cutoffs, sweep_split(*data["val"], cutoffs, model))
    )
    assert max(s for s in rows["speedup"].to_pylist() if s) < 1
    selection = {"rule": rule, "confidence": 0.9, "max_drop": 0.05, "min_accuracy": 0.5}
    validation = ValidationScores(*data["val"], ENTROPY)
    found = choose_policies(rows, calibration, luck, validation, 0.5, 0.9, selection)
    policy, about = found["best_cutoff"]
    assert policy.thresholds == (None, None) and not about["selection"]["satisfied"]
    assert found["report_cutoff"][0].thresholds == (0.5, 0.5)  # given, not chosen
