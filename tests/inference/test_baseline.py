"""Intervals, and the comparison with a plain network."""

import numpy as np
import pytest
import torch
from conftest import toy_network
from scipy.stats import bootstrap

from offramp.common.intervals import interval, paired_difference
from offramp.data.splits import Split, load_images
from offramp.inference.baseline import REPEATS, compare
from offramp.scoring.policy import Policy

CPU = torch.device("cpu")


def test_a_paired_difference_is_the_one_a_bootstrap_finds():
    draw = np.random.default_rng(0)
    b = draw.random(4_000) < 0.8
    a = np.where(draw.random(4_000) < 0.05, draw.random(4_000) < 0.5, b)
    found = paired_difference(a, b)
    difference = a.astype(float) - b
    want = bootstrap((difference,), np.mean, n_resamples=4_000, rng=1, method="percentile")
    assert found[0] == pytest.approx(difference.mean())
    assert found[1:] == pytest.approx(tuple(want.confidence_interval), abs=8e-4)


def test_pairing_makes_the_interval_narrower_than_two_separate_ones():
    draw = np.random.default_rng(0)
    b = draw.random(2_000) < 0.8
    a = b.copy()
    a[:20] = ~a[:20]
    _, low, high = paired_difference(a, b)
    apart = interval(int(b.sum()), 2_000)
    assert high - low < (apart[1] - apart[0]) / 2


def test_networks_that_never_differ_may_still_differ_a_little_on_new_samples():
    same = np.random.default_rng(0).random(10_000) < 0.9
    difference, low, high = paired_difference(same, same)
    assert difference == 0 and low == -high and 0.0001 < high < 0.0004


@pytest.mark.parametrize("rate", [0.002, 0.02])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(rate):
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        b = draw.random(2_000) < 0.8
        a = np.where(draw.random(2_000) < rate, ~b, b)
        truth = rate * (0.2 - 0.8)
        _, low, high = paired_difference(a, b)
        covered += low <= truth <= high
    assert covered / 400 >= 0.93  # at few differences more often than it says


def test_the_comparison_reads_each_networks_own_answers():
    network, baseline = toy_network(3, seed=1), toy_network(1, seed=2)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    split = Split(images, draw.integers(0, 10, 90), np.arange(90))
    with torch.inference_mode():
        x = load_images(split, slice(0, 90), CPU)
        side, _, final = network(x)
        (plain,) = baseline(x)
    p = side.double().softmax(1)
    entropy = -(p * p.log()).sum(1)
    cutoff = float(entropy.median()) + 1e-6
    leaves = entropy <= cutoff
    assert 0 < leaves.sum() < 90

    table = compare(
        network, Policy("entropy", (cutoff, None)), baseline, split, 40, CPU
    ).to_pandas()
    assert table.groupby("network").size().to_dict() == {
        "cascade": REPEATS, "full": 1, "baseline": REPEATS
    }  # fmt: skip
    assert (table["seconds"] > 0).all()
    answers = {
        "cascade": torch.where(leaves, side.argmax(1), final.argmax(1)),
        "full": final.argmax(1),
        "baseline": plain.argmax(1),
    }
    right = {name: labels.numpy() == split.labels for name, labels in answers.items()}
    for name, hits in right.items():
        row = table[table["network"] == name].iloc[0]
        assert (row["n"], row["correct"]) == (90, hits.sum())
        want = paired_difference(hits, right["cascade"])
        assert (row["difference"], row["difference_low"], row["difference_high"]) == want
