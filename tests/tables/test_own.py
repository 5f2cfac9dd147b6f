"""Own logits and costs: what is taken, and how each fault is named."""

import hashlib
import pickle

import numpy as np
import pyarrow as pa
import pytest
from conftest import ORIGIN, documented, hand_made_model, slow_stage_seconds
from hypothesis import given
from hypothesis import strategies as st

from offramp import OfframpError
from offramp.tables.files import read_logits, write
from offramp.tables.own import (
    check_own_splits,
    own_costs,
    own_table,
    own_weights,
    read_costs,
    read_own,
)
from offramp.tables.schemas import TIMINGS
from offramp.thresholds.time_model import (
    fit_time_model,
    full_network_seconds,
    reached_by,
    stage_seconds,
)

DRAW = np.random.default_rng(3)
LOGITS = DRAW.normal(size=(12, 3, 4)).astype(np.float32)
LABELS = DRAW.permutation(np.arange(12) % 4)
SHAPE = "logits: want shape (samples, exits, classes), none of them 0, found"


def saved(folder, logits=LOGITS, labels=LABELS, name="v.npz"):
    np.savez(folder / name, logits=logits, labels=labels)
    return str(folder / name)


def message(call, *arguments) -> str:
    with pytest.raises(OfframpError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_file_order(known):
    order = np.argsort(known.sample_id)
    return known.logits[order], known.label[order]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_npz_and_two_npy_and_a_logits_table_say_the_same(tmp_path, split):
    np.save(tmp_path / "a.npy", LOGITS.astype(np.float64))
    np.save(tmp_path / "b.npy", LABELS.astype(np.uint8))
    two = {"logits": str(tmp_path / "a.npy"), "labels": str(tmp_path / "b.npy")}
    found = [read_own(saved(tmp_path), split), read_own(two, split)]
    write(tmp_path / "v.parquet", own_table(found[0]), "logits", ORIGIN)
    found.append(read_own(str(tmp_path / "v.parquet"), split))
    for known in found:
        logits, labels = in_file_order(known)
        assert logits.dtype == np.float32 and labels.dtype == np.int64
        assert np.array_equal(logits, LOGITS) and np.array_equal(labels, LABELS)
        assert np.array_equal(known.sample_id, found[0].sample_id)
    assert np.array_equal(read_logits(tmp_path / "v.parquet").logits, found[0].logits)
    assert found[0].origin == {} and found[2].origin["model"] == "toy"


def test_what_thresholds_are_chosen_on_is_put_in_a_random_order(tmp_path):
    labels = np.sort(np.arange(400) % 4)  # as files often are
    path = saved(tmp_path, DRAW.normal(size=(400, 2, 4)), labels)
    for split in ("train", "val"):
        known = read_own(path, split)
        assert np.array_equal(known.label, labels[known.sample_id])
        assert set(np.bincount(known.label[:200], minlength=4) // 30) == {1}
    assert np.array_equal(read_own(path, "test").sample_id, np.arange(400))


def with_value(array, place, value):
    array = array.copy()
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (LOGITS[:, 0], LABELS, f"{SHAPE} (12, 4)"),
        (LOGITS[:0], LABELS[:0], f"{SHAPE} (0, 3, 4)"),
        (LOGITS[:, :1], LABELS, "logits: 1 exit, shape (12, 1, 4): without a side exit nothing"),
        (LOGITS[:, :, :1], 0 * LABELS, "logits: 1 class, shape (12, 3, 1)"),
        (with_value(LOGITS, (7, 1, 2), np.nan), LABELS, "logits: nan at index (7, 1, 2) (sample,"),
        (with_value(LOGITS, (7, 1, 2), -np.inf), LABELS, "logits: -inf at index (7, 1, 2)"),
        (with_value(LOGITS * 1.0, (0, 2, 3), -np.inf), LABELS, "logits: -inf at index (0, 2, 3)"),
        (LOGITS.astype(float) * 1e39, LABELS, f"logits: {LOGITS[0, 0, 0].item() * 1e39} at index"),
        (LOGITS.astype(complex), LABELS, "logits: want numbers (float32), found complex128"),
        (LOGITS.astype(str), LABELS, "logits: want numbers (float32), found <U"),
        (np.full((12, 3, 4), 0.25), LABELS, "logits: probabilities, it seems: every row sums to 1"),
        (LOGITS, with_value(LABELS, 5, 4), "labels: 4 at index 5, outside 0..3 for 4 classes"),
        (LOGITS, with_value(LABELS, 5, -1), "labels: -1 at index 5, outside 0..3"),
        (LOGITS, LABELS[:11], "labels: want one label for each of 12 samples, found shape (11,)"),
        (LOGITS, LABELS[:, None], "labels: want one label for each of 12 samples, found shape (12"),
        (LOGITS, LABELS + 0.5, "labels: want whole numbers (int64), found float64"),
        (LOGITS, 0 * LABELS + 2, "labels: all 12 samples are of class 2"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_named_with_key_and_index(tmp_path, logits, labels, words):
    found = message(read_own, saved(tmp_path, logits, labels), "val")
    assert f"v.npz: {words}" in found
    assert documented(found)


def test_logits_whose_rows_happen_to_sum_to_one_are_no_probabilities(tmp_path):
    shifted = LOGITS + (1 - LOGITS.sum(axis=2, keepdims=True)) / 4
    assert (shifted < 0).any()
    read_own(saved(tmp_path, shifted), "val")


def test_wrong_files_are_named(tmp_path):
    path = str(tmp_path / "v.npz")
    np.savez(path, logit=LOGITS, labels=LABELS)
    found = message(read_own, path, "val")
    assert found.startswith(f"{path}: no array logits, only logit, labels; want") and documented(
        found
    )
    ragged = np.empty(2, dtype=object)
    ragged[:] = [[1.0], [2.0, 3.0]]
    found = message(read_own, saved(tmp_path, ragged), "val")
    assert found.startswith(f"{path}: logits: pickled objects, which could run code")
    assert documented(found)
    for raw in (pickle.dumps(LOGITS), b"nonsense", b"", b"PK\x03\x04 cut off"):
        (tmp_path / "v.npz").write_bytes(raw)
        found = message(read_own, path, "val")
        assert found.startswith(f"{path}: ") and documented(found), raw
    whole = saved(tmp_path)
    (tmp_path / "v.npz").write_bytes((tmp_path / "v.npz").read_bytes()[:-30])
    assert message(read_own, whole, "val").startswith(f"{path}: not a readable file of arrays")
    np.save(tmp_path / "a.npy", ragged)
    two = {"logits": str(tmp_path / "a.npy"), "labels": str(tmp_path / "a.npy")}
    assert "a.npy: pickled objects" in message(read_own, two, "val")
    two["logits"] = saved(tmp_path, name="b.npz")
    assert "b.npz: an .npz, where one array is wanted" in message(read_own, two, "val")
    (tmp_path / "v.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:0])
    np.save(tmp_path / "c.npy", LOGITS)
    (tmp_path / "c.npy").rename(path)
    assert "v.npz: one array, no .npz" in message(read_own, path, "val")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("was unpickled",))


def test_nothing_is_unpickled(tmp_path):
    (tmp_path / "v.npz").write_bytes(pickle.dumps(Trap()))
    message(read_own, str(tmp_path / "v.npz"), "val")
    trap = np.empty(1, dtype=object)
    trap[0] = Trap()
    message(read_own, saved(tmp_path, trap), "val")


def test_a_file_is_held_against_the_sums_beside_it(tmp_path):
    path = saved(tmp_path)
    digest = hashlib.sha256((tmp_path / "v.npz").read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  v.npz\n{'0' * 64}  other.npz\n")
    read_own(path, "val")
    saved(tmp_path, LOGITS + 1)
    found = message(read_own, path, "val")
    assert found.startswith(f"{path}: damaged: its sha256 is not the one in {tmp_path}/SHA256SUMS")
    assert documented(found)


def test_splits_must_fit_and_differ(tmp_path):
    val = read_own(saved(tmp_path), "val")
    test = read_own(saved(tmp_path, LOGITS[:, :2] + 1), "test")
    found = message(check_own_splits, {"val": val, "test": test})
    assert found == "logits.test: 2 exits and 4 classes, where logits.val has 3 and 4"
    assert documented(found)
    again = read_own(saved(tmp_path, LOGITS[::-1], LABELS[::-1]), "test")
    found = message(check_own_splits, {"val": val, "test": again})
    assert found.startswith("logits.test: the same samples as logits.val")
    assert documented(found)
    test = read_own(saved(tmp_path, LOGITS + 1), "test")
    check_own_splits({"val": val, "test": test})
    found = message(
        check_own_splits, {"val": val._replace(origin={"split": "train"}), "test": test}
    )
    assert found == "logits.val: a logits table of the split train; name that of val"
    assert documented(found)


def test_tables_of_different_weights_are_refused(tmp_path):
    known = read_own(saved(tmp_path), "val")
    stated = [known._replace(origin={"weights_sha256": letter * 64}) for letter in "ab"]
    assert own_weights({"val": stated[0], "test": stated[0]}) == "a" * 64
    assert len(own_weights({"val": known, "test": known})) == 64
    for other in (stated[1], known):
        found = message(own_weights, {"val": stated[0], "test": other})
        assert found.startswith("logits: tables of different weights, or tables beside arrays")
        assert documented(found)


@st.composite
def costs_and_exits(draw):
    exits, size = draw(st.integers(2, 5)), draw(st.integers(1, 9))
    numbers = st.lists(st.sampled_from([0.0, 0.1, 3.0, 1e-9, 7e6]), min_size=exits, max_size=exits)
    blocks, heads = draw(numbers), [cost + 0.5 for cost in draw(numbers)]
    taken = draw(st.lists(st.integers(1, exits), min_size=1, max_size=20))
    runs = np.append(draw(st.lists(st.booleans(), min_size=exits - 1, max_size=exits - 1)), True)
    return blocks, heads, size, np.array(taken), runs


@given(costs_and_exits())
def test_every_sample_pays_what_the_config_says_whatever_the_batch(case):
    blocks, heads, size, taken, runs = case
    exits = len(blocks)
    model = fit_time_model(own_costs({"blocks": blocks, "heads": heads, "unit": "x"}, exits, size))
    want = np.zeros(exits)
    for exit_ in taken:
        for k in range(exit_):
            want[k] += blocks[k] + heads[k] * runs[k]
    found = stage_seconds(model, reached_by(taken, size, exits), np.stack([runs, runs]))
    np.testing.assert_allclose(found, want, rtol=1e-12)
    full = full_network_seconds(model, len(taken))
    np.testing.assert_allclose(full, len(taken) * (sum(blocks) + heads[-1]), rtol=1e-12)


def test_costs_up_to_each_exit_are_those_of_who_leaves_there():
    up_to = [2.0, 5.0, 5.5]
    model = fit_time_model(own_costs({"up_to": up_to, "unit": "ms"}, 3, 4))
    for exit_, cost in enumerate(up_to, 1):
        for runs in ([True, True, True], [False, True, True]):
            reached = reached_by(np.full(7, exit_), 4, 3)
            seconds = stage_seconds(model, reached, np.array([runs, runs]))
            assert seconds.sum() == pytest.approx(7 * cost, rel=1e-12)


def test_costs_of_another_length_are_named(tmp_path):
    for costs, words in (
        ({"up_to": [1, 2], "unit": "s"}, "costs.up_to: 2 numbers, where the logits have 3 exits"),
        (
            {"blocks": [1, 2, 3, 4], "heads": [1, 2, 3, 4], "unit": "s"},
            "costs.blocks: 4 numbers, where the logits have 3 exits",
        ),
    ):
        found = message(own_costs, costs, 3, 8)
        assert found == words and documented(found)
    timings = own_costs({"up_to": [1, 2], "unit": "s"}, 2, 8)
    write(tmp_path / "t.parquet", timings, "timings", ORIGIN)
    assert read_costs(str(tmp_path / "t.parquet"), 2).equals(timings)
    found = message(read_costs, str(tmp_path / "t.parquet"), 3)
    assert "t.parquet: times of 2 exits, where the logits have 3" in found and documented(found)


def test_a_measured_time_model_is_as_it_was():
    """What 0 costs need changes nothing where all cost something."""
    model = hand_made_model(3, 8)
    rows = [
        {"split": "probe", "part": part, "exit": k + 1, "batch_size": n, "repeat": 0,
         "seconds": model.parts[p, k, n]}
        for p, part in enumerate(("block", "head", "decide"))
        for k in range(3)
        for n in range(1, 9)
    ]  # fmt: skip
    fitted = fit_time_model(pa.Table.from_pylist(rows, schema=TIMINGS))
    taken = np.array([1, 2, 3, 3, 2, 1, 3])
    flat = model._replace(removal=np.zeros((2, 3)))
    found = stage_seconds(fitted, reached_by(taken, 4, 3), np.ones((2, 3), dtype=bool))
    np.testing.assert_allclose(found, slow_stage_seconds(flat, taken, 4, [True] * 3), rtol=1e-12)
