"""The promise, against populations whose truth is known, and its pieces against slow oracles."""

import numpy as np
import pytest
from conftest import slow_exit
from mapie.risk_control import MultiClassificationLTTController, control_fwer
from mapie.risk_control.risks import ClassSpecificRisk
from scipy.stats import binomtest

from offramp.calibration import calibrate
from offramp.guarantee import (
    LEVELS,
    SPLIT_SEED,
    calibrate_guaranteed,
    enough_right,
    exit_p_values,
    propose,
)
from offramp.policy import exits_of


def population(samples, seed):
    """Entropies of three exits that share how hard a sample is, and answers the more often right
    the lower they are."""
    draw = np.random.default_rng(seed)
    hard = draw.random((samples, 1))
    scores = np.clip(hard * [1.6, 1.3, 1.0] + draw.normal(0, 0.15, (samples, 3)), 0, 2.3)
    return scores, draw.random((samples, 3)) < 1 - 0.45 * scores


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
        for name, thresholds in (("guaranteed", sure), ("empirical", calibrate(*data, target))):
            limits = np.array([-np.inf if t is None else t for t in thresholds])
            taken = np.hstack([truth[0][:, :2] <= limits, np.ones((40_000, 1), bool)]).argmax(1)
            hits = [truth[1][taken == k, k] for k in range(2) if np.isfinite(limits[k])]
            failures[name] += any(len(h) and h.mean() < target for h in hits)
    # 15 failures are allowed in the mean; 25 is beyond the 99.5 % point of that.
    assert failures["guaranteed"] <= 25
    assert failures["empirical"] >= 60
    assert enabled >= 50  # the promise is not kept by never leaving


def test_proposals_are_the_largest_sure_thresholds_of_the_survivors():
    scores, correct = population(80, 3)
    scores = np.round(scores, 1)  # ties
    for level in (0.5, 0.9, 0.99):
        found = propose(scores, correct, 0.7, level)
        survivors = range(80)
        for k in range(2):
            sure = []
            for t in sorted({scores[i, k] for i in survivors}):
                leave = [i for i in survivors if scores[i, k] <= t]
                hits = int(sum(correct[i, k] for i in leave))
                test = binomtest(hits, len(leave), 0.7, alternative="greater")
                if test.pvalue <= 1 - level:
                    sure.append(t)
            assert found[k] == (max(sure) if sure else None)
            survivors = [i for i in survivors if found[k] is None or scores[i, k] > found[k]]


@pytest.mark.parametrize("target, level", [(0.8, 0.9), (0.95, 0.5), (0.5, 1 - 1e-6), (1.0, 0.5)])
def test_enough_right_is_where_the_exact_test_begins_to_reject(target, level):
    enough = enough_right(80, target, level)
    assert len(enough) == 80
    for n in range(1, 81):
        tests = [binomtest(right, n, target, alternative="greater") for right in range(n + 1)]
        sure = [right for right, test in enumerate(tests) if test.pvalue <= 1 - level]
        assert enough[n - 1] == min(sure, default=n + 1)


def test_p_values_are_those_of_the_exact_test_at_each_enabled_exit():
    scores, correct = population(200, 4)
    thresholds = (0.5, 0.8)
    taken = [slow_exit(s, thresholds) for s in scores]
    for found, k in zip(exit_p_values(scores, correct, thresholds, 0.8), (0, 1), strict=True):
        hits = [bool(correct[i, k]) for i in range(200) if taken[i] == k + 1]
        want = binomtest(sum(hits), len(hits), 0.8, alternative="greater").pvalue
        assert found == pytest.approx(want)
    assert len(exit_p_values(scores, correct, (None, 0.8), 0.8)) == 1
    assert exit_p_values(scores, correct, (-1.0, None), 0.8).tolist() == [1.0]


def test_without_evidence_every_exit_is_disabled():
    scores, correct = population(12, 5)
    assert calibrate_guaranteed(scores, correct, 0.95, 0.9) == (None, None)
    assert calibrate_guaranteed(scores[:0], correct[:0], 0.5, 0.9) == (None, None)


def test_more_confidence_is_never_bolder():
    data = population(2_000, 6)
    bold, sure = (calibrate_guaranteed(*data, 0.85, c) for c in (0.6, 0.99))
    leaves = [np.mean([slow_exit(s, t) == 1 for s in data[0]]) for t in (bold, sure)]
    assert leaves[0] >= leaves[1]


def mapie_p_values(scores, correct, candidates, target):
    """MAPIE's p-value of each policy: exits are its classes, samples that stay on are abstained
    from, the risk of a class is how often those who leave there are wrong. MAPIE takes the largest
    p-value of a policy's risks."""

    def leaves(rows, *thresholds):
        taken = np.array([slow_exit(row, thresholds) for row in rows.tolist()])
        return np.where(taken <= len(thresholds), taken, np.nan)

    exits = range(1, len(candidates[0]) + 1)
    controller = MultiClassificationLTTController(
        leaves,
        [
            # What is given as a sample's label has a bit for each exit at which it is right.
            ClassSpecificRisk(
                class_label=k,
                risk_occurrence=lambda label, exit_, k=k: (label >> (k - 1)) % 2 == 0,
                risk_condition=lambda label, exit_, k=k: exit_ == k,
                higher_is_better=False,
            )
            for k in exits
        ],
        target_level=[1 - target for _ in exits],
        list_predict_params=np.array(candidates),
    )
    bits = sum(correct[:, k - 1].astype(int) << (k - 1) for k in exits)
    return controller.calibrate(scores, bits).p_values[:, 0]


def mapie_rounds(scores, correct, thresholds):
    """Whether MAPIE counts one wrong answer too many at some exit: it rounds n * (wrong / n) up,
    which in floats may lie just above the whole number."""
    taken = exits_of(scores, thresholds)
    for k in range(1, len(thresholds) + 1):
        right = correct[taken == k, k - 1]
        n, wrong = len(right), int((~right).sum())
        if np.ceil(n * (wrong / n)) > wrong:
            return True
    return False


@pytest.mark.filterwarnings("ignore:All predict parameters", "ignore:No predict parameters")
@pytest.mark.parametrize(
    "losses, target", [([0.8, 0.1], 0.9), ([0.8, 0.25, 0.1], 0.85), ([0.8, 0.3, 0.15, 0.1], 0.8)]
)
def test_the_testing_half_is_mapies(losses, target):
    """MAPIE tests the policies that the learning half proposes, in the same fixed order.

    Two things are ours alone and not compared: how the sequence is proposed, and disabled exits,
    which MAPIE never accepts; here every proposal enables all exits.
    """
    samples, exits = 8_000, len(losses)
    draw = np.random.default_rng(1)
    hard = draw.random((samples, 1))
    scores = hard + draw.normal(0, 0.05, (samples, exits))
    correct = draw.random((samples, exits)) < 1 - losses * hard
    learn, test = np.array_split(np.random.default_rng(SPLIT_SEED).permutation(samples), 2)
    candidates = [propose(scores[learn], correct[learn], target, level) for level in LEVELS]
    assert None not in sum(candidates, ())

    theirs = mapie_p_values(scores[test], correct[test], candidates, target)
    ours = [exit_p_values(scores[test], correct[test], c, target).max() for c in candidates]
    exact = np.array([not mapie_rounds(scores[test], correct[test], c) for c in candidates])
    assert exact.sum() >= 30
    np.testing.assert_allclose(np.array(ours)[exact], theirs[exact], rtol=1e-9)
    assert (np.array(ours) <= theirs * (1 + 1e-9)).all()
    for confidence in (0.5, 0.9, 0.99):
        valid = control_fwer(ours, 1 - confidence, "split_fixed_sequence")
        want = candidates[valid[-1]] if len(valid) else (None,) * (exits - 1)
        assert calibrate_guaranteed(scores, correct, target, confidence) == want
