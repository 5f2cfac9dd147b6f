"""The promise, against populations whose truth is known, and its pieces against slow oracles."""

import time

import numpy as np
import pytest
from conftest import slow_exit
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control import MultiClassificationLTTController, control_fwer
from mapie.risk_control.risks import ClassSpecificRisk
from scipy.stats import binomtest

from offramp.thresholds.calibration import calibrate_empirical
from offramp.thresholds.guarantee import (
    calibrate_guaranteed,
    last_passed,
    passes_test,
    sort_by_score,
    surest_threshold,
)


def population(samples, seed):
    """Entropies of three exits that share how hard a sample is, and answers the more often right
    the lower they are."""
    draw = np.random.default_rng(seed)
    hard = draw.random((samples, 1))
    scores = np.clip(hard * [1.6, 1.3, 1.0] + draw.normal(0, 0.15, (samples, 3)), 0, 2.3)
    return scores, draw.random((samples, 3)) < 1 - 0.45 * scores


def steep(samples, seed):
    """Scores that are little but how hard a sample is, and exits of which the later are far better:
    thresholds at both side exits keep the target."""
    draw = np.random.default_rng(seed)
    hard = draw.random((samples, 1))
    scores = hard + draw.normal(0, 0.05, (samples, 3))
    return scores, draw.random((samples, 3)) < 1 - np.array([0.8, 0.25, 0.1]) * hard


@pytest.mark.parametrize("target", [0.8, 0.9])
def test_the_guarantee_is_kept_where_the_empirical_choice_breaks_its_word(target):
    """150 calibrations of 600 samples, the truth read on 40,000 others."""
    truth = population(40_000, 0)
    failures = {"guaranteed": 0, "empirical": 0}
    enabled = 0
    for seed in range(1, 151):
        data = population(600, seed)
        sure = calibrate_guaranteed(*data, target, 0.9)
        enabled += any(t is not None for t in sure)
        for name, thresholds in (
            ("guaranteed", sure),
            ("empirical", calibrate_empirical(*data, target)),
        ):
            limits = np.array([-np.inf if t is None else t for t in thresholds])
            taken = np.hstack([truth[0][:, :2] <= limits, np.ones((40_000, 1), bool)]).argmax(1)
            hits = [truth[1][taken == k, k] for k in range(2) if np.isfinite(limits[k])]
            failures[name] += any(len(h) and h.mean() < target for h in hits)
    # 15 failures are allowed in the mean; 25 is beyond the 99.5 % point of that.
    assert failures["guaranteed"] <= 25
    assert failures["empirical"] >= 60
    assert enabled >= 50  # the promise is not kept by never leaving


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.7, 0.9]), st.booleans())
def test_the_search_ends_at_the_first_test_that_fails(seed, target, ties):
    scores, correct = population(60, seed)
    scores, correct = scores[:, 0], correct[:, 0]
    scores = np.round(scores, 1) if ties else scores
    start = float(np.sort(scores)[20])
    found, failed = last_passed(sort_by_score(scores, correct), start, target, 0.1)
    want, want_failed = None, np.inf
    for t in [start, *sorted({s for s in scores.tolist() if s > start})]:
        leave = [i for i in range(60) if scores[i] <= t]
        hits = int(sum(correct[i] for i in leave))
        if binomtest(hits, len(leave), target, alternative="greater").pvalue > 0.1:
            if want is not None:
                want, want_failed = np.nextafter(t, -np.inf), t
            break
        want = t
    assert (found, failed) == (want, want_failed)


def test_long_searches_are_the_short_one(monkeypatch):
    scores, correct = population(3_000, 9)
    data = sort_by_score(scores[:, 2], correct[:, 2])
    whole = last_passed(data, 0.2, 0.8, 0.05)
    monkeypatch.setattr("offramp.thresholds.guarantee.CHUNK", 7)
    assert last_passed(data, 0.2, 0.8, 0.05) == whole
    assert whole[0] < whole[1] < np.inf


@pytest.mark.parametrize("target", [0.8, 0.95, 0.5])
def test_a_test_passes_where_the_exact_one_rejects(target):
    for n in range(1, 60):
        for right in range(n + 1):
            want = binomtest(right, n, target, alternative="greater").pvalue <= 0.05
            assert passes_test(np.array([right]), np.array([n]), target, 0.05)[0] == want


def test_the_search_begins_where_the_learning_samples_are_most_clearly_above():
    scores, correct = np.arange(60.0), np.arange(60) < 40
    place, above = surest_threshold(sort_by_score(scores, correct), 0.5)
    assert place == 39.0 and above == pytest.approx(20 / np.sqrt(10))
    assert surest_threshold(sort_by_score(scores, ~correct), 0.5)[1] < 0
    assert surest_threshold(sort_by_score(scores[:0], correct[:0]), 0.5)[1] == -np.inf
    assert surest_threshold(sort_by_score(scores, correct), 1.0)[1] <= 0


def test_without_evidence_every_exit_is_disabled():
    scores, correct = population(12, 5)
    assert calibrate_guaranteed(scores, correct, 0.95, 0.9) == (None, None)
    assert calibrate_guaranteed(scores[:0], correct[:0], 0.5, 0.9) == (None, None)


def test_more_confidence_is_never_bolder():
    data = population(2_000, 6)
    bold, sure = (calibrate_guaranteed(*data, 0.85, c) for c in (0.6, 0.99))
    leaves = [np.mean([slow_exit(s, t) == 1 for s in data[0]]) for t in (bold, sure)]
    assert leaves[0] >= leaves[1]


def mapie_p_values(scores, correct, thresholds, target):
    """MAPIE's p-value of each threshold at one exit: samples that stay on are abstained from, the
    risk is how often those who leave are wrong."""

    def leaves(rows, threshold):
        return np.where(rows[:, 0] <= threshold, 1, np.nan)

    controller = MultiClassificationLTTController(
        leaves,
        [
            ClassSpecificRisk(
                class_label=1,
                risk_occurrence=lambda label, exit_: label == 0,
                risk_condition=lambda label, exit_: exit_ == 1,
                higher_is_better=False,
            )
        ],
        target_level=[1 - target],
        list_predict_params=np.array(thresholds)[:, None],
    )
    return controller.calibrate(scores[:, None], correct.astype(int)).p_values[:, 0]


@pytest.mark.filterwarnings("ignore:All predict parameters", "ignore:No predict parameters")
@pytest.mark.parametrize("target", [0.8, 0.9])
def test_the_tests_at_an_exit_are_mapies(target):
    """MAPIE tests the thresholds of one exit, in the same fixed order. It rounds n * (wrong / n)
    up, which in floats may lie just above the whole number; there it is more cautious."""
    draw = np.random.default_rng(1)
    scores = draw.random(1_500)
    correct = draw.random(1_500) < 1 - 0.6 * scores
    thresholds = np.sort(scores)[300::10]
    theirs = mapie_p_values(scores, correct, thresholds, target)
    n = np.array([(scores <= t).sum() for t in thresholds])
    wrong = np.array([(~correct[scores <= t]).sum() for t in thresholds])
    exact = np.ceil(n * (wrong / n)) == wrong
    for error in (0.02, 0.1):
        ours = passes_test(n - wrong, n, target, error)
        assert (ours[exact] == (theirs[exact] <= error)).all()
        valid = control_fwer(np.where(exact, theirs, 1 - ours), error, "split_fixed_sequence")
        assert len(valid) == (ours.argmin() if not ours.all() else len(ours)) > 0


def test_what_an_earlier_search_has_seen_counts_as_wrong_later():
    """Two exits with the same scores and answers. The first search ends at a tie of 200 samples; of
    these the second search may believe nothing, however right they are."""
    draw = np.random.default_rng(0)
    scores = np.concatenate([draw.random(4_000), np.full(1_500, 2.0)])
    correct = np.concatenate([np.ones(4_000, bool), np.zeros(1_500, bool)])
    both = np.stack([scores, scores, scores], axis=1)
    late = np.stack([correct, np.ones(5_500, bool), correct], axis=1)
    first, second = calibrate_guaranteed(both, late, 0.9, 0.9)
    assert first == np.nextafter(2.0, -np.inf) and second is None


def test_an_exit_whose_first_test_fails_ends_the_search(monkeypatch):
    scores, correct = steep(12_000, 2)
    assert None not in calibrate_guaranteed(scores, correct, 0.85, 0.9)
    real = passes_test
    calls = []

    def fails_once(*asked):
        calls.append(1)
        return real(*asked) if len(calls) > 1 else np.zeros(1, dtype=bool)

    monkeypatch.setattr("offramp.thresholds.guarantee.passes_test", fails_once)
    assert calibrate_guaranteed(scores, correct, 0.85, 0.9) == (None, None)


@pytest.mark.parametrize("samples, seconds", [(10_000, 0.3), (1_000_000, 10.0)])
def test_studies_are_affordable(samples, seconds):
    data = steep(samples, 1)
    start = time.process_time()
    assert None not in calibrate_guaranteed(*data, 0.85, 0.9)
    assert time.process_time() - start < seconds
