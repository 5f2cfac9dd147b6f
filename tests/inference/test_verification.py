"""Live run against tables: what counts as a difference, what excuses it, what is reported."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import documented, hand_made_model, slow_stage_seconds, toy_network

from offramp import OfframpError
from offramp.data.splits import Split, load_images
from offramp.inference.verification import (
    Case,
    cases_of,
    check_logits,
    compared,
    differences,
    fail_on_differences,
    run_interleaved,
    speedups,
    verify,
    warm_up,
)
from offramp.networks.identity import Identity
from offramp.scoring.policy import (
    Outcome,
    Policy,
    outcome_of_tables,
    policy_scores,
    save_policy,
    shared_cutoff,
)
from offramp.tables.files import Logits

CPU = torch.device("cpu")
# Two exits, two classes; entropy at exit 1 is that of a softmax over (0, gap).
GAPS = np.array([0.0, 1.0, 3.0])


def two_exit_logits() -> np.ndarray:
    logits = np.zeros((3, 2, 2), dtype=np.float32)
    logits[:, 0, 1] = GAPS
    logits[:, 1, 0] = 5.0
    return logits


def entropy_of_gap(gap: float) -> float:
    p = np.array([1.0, np.exp(gap)]) / (1.0 + np.exp(gap))
    return float(-(p * np.log(p)).sum())


def live_like(table: Outcome, **changes) -> Outcome:
    """The table's outcome with `exits` or `labels` of sample 1 changed."""
    exits, labels = table.exits.copy(), table.labels.copy()
    exits[1], labels[1] = changes.get("exit", exits[1]), changes.get("label", labels[1])
    return Outcome(exits, labels)


def test_an_outcome_of_the_tables_is_exit_and_label_of_each_sample():
    policy = Policy("entropy", (entropy_of_gap(2.0),))
    table = outcome_of_tables(policy, two_exit_logits())
    assert table.exits.tolist() == [2, 2, 1]
    assert table.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("distance", "excused"), [(0.9e-5, True), (1.1e-5, False)])
@pytest.mark.parametrize("side", [-1, 1])
def test_another_exit_is_excused_only_within_1e5_of_the_threshold(distance, excused, side):
    policy = Policy("entropy", (entropy_of_gap(1.0) + side * distance,))
    table = outcome_of_tables(policy, two_exit_logits())
    live = live_like(table, exit=3 - table.exits[1])
    differ, free = differences(policy, two_exit_logits(), table, live)
    assert differ.tolist() == [False, True, False]
    assert free.tolist() == [False, excused, False]


@pytest.mark.parametrize(("gap", "excused"), [(0.9e-4, True), (1.1e-4, False)])
def test_another_label_is_excused_only_when_the_two_largest_logits_are_near(gap, excused):
    logits = two_exit_logits()
    logits[1, 0] = (0.0, gap)
    policy = shared_cutoff(1.0, 1)
    table = outcome_of_tables(policy, logits)
    differ, free = differences(policy, logits, table, live_like(table, label=0))
    assert differ.tolist() == [False, True, False]
    assert free.tolist() == [False, excused, False]


def test_an_entropy_near_the_threshold_does_not_excuse_another_label():
    policy = Policy("entropy", (entropy_of_gap(1.0),))
    table = outcome_of_tables(policy, two_exit_logits())
    _, free = differences(policy, two_exit_logits(), table, live_like(table, label=0))
    assert not free.any()


def test_an_unexcused_difference_fails_and_names_policy_and_sample():
    policy = shared_cutoff(0.0, 1)
    table = outcome_of_tables(policy, two_exit_logits())
    case, sample_id = Case("mine", policy, True), np.array([10, 11, 12])
    same = compared(case, two_exit_logits(), table, table)
    fail_on_differences([same], sample_id)
    other = compared(case, two_exit_logits(), table, live_like(table, exit=1))
    with pytest.raises(OfframpError, match=r"mine, sample 11: table exit 2 .* live exit 1"):
        fail_on_differences([same, other], sample_id)


def toy_problem(exits: int, samples: int):
    network = toy_network(exits)
    pixels = np.random.default_rng(0).integers(0, 256, (samples, 32, 32, 3), dtype=np.uint8)
    order = np.random.default_rng(1).permutation(samples)
    split = Split(pixels, np.random.default_rng(2).integers(0, 10, samples), order)
    with torch.inference_mode():
        logits = torch.stack(network(load_images(split, slice(None), CPU)), dim=1).numpy()
    return network, split, logits


def test_a_verification_counts_what_the_tables_say_and_measures_what_ran():
    network, split, logits = toy_problem(exits=3, samples=40)
    model = hand_made_model(3, 16)
    cases = [
        Case("chosen", Policy("entropy", (1.2, None)), True),
        Case("other", shared_cutoff(1.5, 2), False),
    ]
    rows = verify(network, cases, split, logits, model, CPU).to_pylist()
    assert [(r["policy"], r["exit"]) for r in rows] == [
        (name, k) for name in ("chosen", "other") for k in range(4)
    ]
    for case, found in zip(cases, (rows[:4], rows[4:]), strict=True):
        table = outcome_of_tables(case.policy, logits)
        right = table.labels == split.labels
        assert [r["n_live"] for r in found] == [
            40,
            *(int((table.exits == k).sum()) for k in (1, 2, 3)),
        ]
        assert [r["correct_live"] for r in found] == [
            int(right.sum()),
            *(int(right[table.exits == k].sum()) for k in (1, 2, 3)),
        ]
        assert all(r["n_table"] == r["n_live"] and r["differ"] == 0 for r in found)
        slow = slow_stage_seconds(model, table.exits, 16, *case.policy.runs)
        assert [r["seconds_predicted"] for r in found] == pytest.approx([sum(slow), *slow])
        assert found[0]["seconds_measured"] > 0
        whole = slow_stage_seconds(model, [3] * 40, 16, [False, False, True])
        assert found[0]["speedup_predicted"] == pytest.approx(sum(whole) / sum(slow))
        assert 0 < found[0]["speedup_low"] <= found[0]["speedup_high"]
        assert found[0]["speedup_low"] <= found[0]["speedup_measured"] * (1 + 1e-9)
        assert found[0]["speedup_measured"] <= found[0]["speedup_high"] * (1 + 1e-9)


def watched(network):
    """The network, and what its blocks and heads were called with: (part, k, batch size)."""
    calls = []

    def watch(part, k, run):
        def call(x):
            calls.append((part, k, len(x)))
            return run(x)

        return call

    network.blocks = tuple(watch("block", k, b) for k, b in enumerate(network.blocks))
    network.heads = tuple(watch("head", k, h) for k, h in enumerate(network.heads))
    return calls


def test_a_warm_up_runs_every_part_on_the_sizes_that_it_meets():
    network, split, _ = toy_problem(exits=3, samples=20)
    calls = watched(network)
    warm_up(network, np.array([[16, 9, 4], [4, 0, 0]]), load_images(split, slice(0, 16), CPU))
    for part in ("block", "head"):
        sizes = [{n for kind, at, n in calls if (kind, at) == (part, k)} for k in range(3)]
        assert sizes == [{16, 4}, {16, 9}, {16, 4}]


def test_every_batch_runs_under_all_policies_and_through_the_full_network_in_new_orders():
    network, split, logits = toy_problem(exits=2, samples=100)
    calls = watched(network)
    cases = [Case("all", shared_cutoff(9.0, 1), True), Case("none", shared_cutoff(-1.0, 1), True)]
    outcomes, seconds = run_interleaved(network, cases, split, 16, CPU)
    assert seconds.shape == (7, 3) and (seconds > 0).all()
    for case, live in zip(cases, outcomes, strict=True):
        table = outcome_of_tables(case.policy, logits)
        np.testing.assert_array_equal(live.exits, table.exits)
        np.testing.assert_array_equal(live.labels, table.labels)
    # What each of three runs calls: everyone leaves at once, nobody does, no side head at all.
    kinds = {
        (("block", 0), ("head", 0)): "all",
        (("block", 0), ("head", 0), ("block", 1), ("head", 1)): "none",
        (("block", 0), ("block", 1), ("head", 1)): "full",
    }
    runs: list[list] = []
    for part, k, n in calls:
        if (part, k) == ("block", 0):
            runs.append([n])
        runs[-1].append((part, k))
    batches = [runs[i : i + 3] for i in range(0, len(runs), 3)]
    orders = [[kinds[tuple(run[1:])] for run in batch] for batch in batches]
    assert [{run[0] for run in batch} for batch in batches] == [{16}] * 6 + [{4}]
    assert all(sorted(order) == ["all", "full", "none"] for order in orders)
    assert len(set(map(tuple, orders))) > 2


def test_speedups_are_ratios_of_the_same_batches_with_those_of_even_and_odd_ones():
    seconds = np.array([[1.0, 4.0], [2.0, 6.0], [1.0, 2.0]])
    np.testing.assert_allclose(speedups(seconds), [[3.0], [3.0], [3.0]])
    seconds[1] = [1.0, 6.0]
    np.testing.assert_allclose(speedups(seconds), [[4.0], [3.0], [6.0]])
    np.testing.assert_allclose(speedups(seconds[:1]), [[4.0], [4.0], [4.0]])


def test_a_verification_against_tables_of_other_weights_fails():
    network, split, logits = toy_problem(exits=2, samples=20)
    other = -logits
    with pytest.raises(OfframpError, match="disagree"):
        verify(
            network, [Case("c", shared_cutoff(1.0, 1), True)], split, other,
            hand_made_model(2, 8), CPU,
        )  # fmt: skip


def test_patience_is_excused_by_a_tie_of_logits_and_by_nothing_else():
    # Scores of patience lie exactly on thresholds; that excuses nothing.
    logits = np.zeros((2, 3, 2), dtype=np.float32)
    logits[0, :, 0] = 3.0  # sure at every exit
    logits[1, :, 0] = (5e-5, 3.0, 3.0)  # the first exit's label hangs by a thread
    policy = Policy("patience", (None, 0.5))
    table = outcome_of_tables(policy, logits)
    assert table.exits.tolist() == [2, 2]
    live = Outcome(np.array([3, 3]), table.labels)
    differ, excused = differences(policy, logits, table, live)
    assert differ.tolist() == [True, True]
    assert excused.tolist() == [False, True]


def test_a_temperature_below_one_stretches_what_a_score_may_be_off_by():
    logits = np.array([[[0.0, 1.0], [0.0, 1.0]]], dtype=np.float32)
    for temperature, want in ((1.0, False), (0.1, True)):
        blank = Policy("entropy", (None,), (temperature,))
        score = float(policy_scores(blank, logits)[0, 0])
        policy = blank._replace(thresholds=(score + 5e-5,))
        table = outcome_of_tables(policy, logits)
        live = Outcome(np.array([2]), table.labels)
        assert differences(policy, logits, table, live)[1].tolist() == [want]


def test_cases_are_the_policy_files_and_ten_cutoffs_spread_over_the_range(tmp_path):
    save_policy(tmp_path / "best.json", Policy("entropy", (0.1, None)))
    logits = np.zeros((4, 3, 10), dtype=np.float32)
    cases = cases_of([str(tmp_path / "best.json")], logits)
    others = [case.policy.thresholds[0] for case in cases if not case.chosen]
    assert cases[0] == Case("best", Policy("entropy", (0.1, None)), True)
    assert others == pytest.approx(np.log(10) * np.arange(0.05, 1, 0.1))


def test_a_policy_for_another_number_of_exits_is_refused(tmp_path):
    save_policy(tmp_path / "best.json", Policy("entropy", (0.1, None)))
    with pytest.raises(OfframpError, match=r"best\.json: 2 thresholds for 5 side exits"):
        cases_of([str(tmp_path / "best.json")], np.zeros((4, 6, 10), dtype=np.float32))


def as_read(split, logits, weights="a" * 64):
    """What is read of a logits table with these samples."""
    table = pa.table({"sample_id": split.order}).replace_schema_metadata(
        {"weights_sha256": weights}
    )
    return Logits(split.order, split.labels, logits, table)


@pytest.mark.parametrize(
    "rows",
    [list(range(39)), [*range(40), 3], [*range(39), 3], list(range(40))[::-1], []],
    ids=["missing", "doubled", "one for another", "reversed", "none"],
)
def test_tables_with_missing_or_doubled_rows_are_refused_in_one_line(rows):
    network, split, logits = toy_problem(exits=3, samples=40)
    known = Logits(
        split.order[rows], split.labels[rows], logits[rows], as_read(split, logits).table
    )
    with pytest.raises(OfframpError) as caught:
        check_logits("logits/test.parquet", known, split, network)
    message = str(caught.value)
    assert f"logits/test.parquet: {len(rows)} samples that are not the split's 40" in message
    assert documented(message)


def test_tables_of_another_network_are_refused_before_anything_runs():
    network, split, logits = toy_problem(exits=3, samples=8)
    network.identity = Identity("toy", "toy.pt", "a" * 64)
    check_logits("test.parquet", as_read(split, logits), split, network)
    for known, words in (
        (as_read(split, logits[:, :2]), "test.parquet: 2 exits, where the network has 3"),
        (as_read(split, logits, "b" * 64), "test.parquet: not made with toy.pt as it is now"),
        (as_read(split, logits)._replace(label=(split.labels + 1) % 10), "with its labels"),
    ):
        with pytest.raises(OfframpError, match=words):
            check_logits("test.parquet", known, split, network)


def test_a_verification_refuses_a_policy_of_another_size_or_network(tmp_path):
    network, split, logits = toy_problem(exits=3, samples=8)
    with pytest.raises(OfframpError, match=r"mine: 1 thresholds for 2 side exits"):
        verify(
            network, [Case("mine", shared_cutoff(1.0, 1), True)], split, logits,
            hand_made_model(3, 8), CPU,
        )  # fmt: skip
    other = Identity("other", "other.pt", "b" * 64)
    save_policy(tmp_path / "best.json", shared_cutoff(1.0, 2)._replace(network=other))
    with pytest.raises(OfframpError, match=r"best\.json: network: chosen for other with other\.pt"):
        cases_of([str(tmp_path / "best.json")], logits, Identity("toy", "toy.pt", "a" * 64))


def test_few_batches_are_run_several_times_and_told_as_once(monkeypatch):
    network, split, logits = toy_problem(exits=2, samples=40)
    cases = [Case("all", shared_cutoff(9.0, 1), True)]
    again, seconds = run_interleaved(network, cases, split, 16, CPU, rounds=4)
    assert seconds.shape == (12, 2)
    np.testing.assert_array_equal(again[0].exits, np.ones(40))

    def slow(*_, rounds, **__):
        ticks = np.arange(1.0, rounds + 1)  # the seconds of a whole round
        return again, np.repeat(ticks / 3, 3)[:, None] * [1.0, 2.0]

    monkeypatch.setattr("offramp.inference.verification.run_interleaved", slow)
    rows = verify(network, cases, split, logits, hand_made_model(2, 16), CPU).to_pylist()
    rounds = 7  # of three batches, until there are 20
    assert rows[0]["seconds_measured"] == pytest.approx((rounds + 1) / 2)
    assert rows[0]["speedup_measured"] == pytest.approx(2)
    assert rows[0]["n_live"] == 40
