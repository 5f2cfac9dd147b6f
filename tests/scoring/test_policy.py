"""Who leaves where, and policy files that can't be run."""

import json

import numpy as np
import pytest
from conftest import slow_exit, some_weights
from hypothesis import given
from hypothesis import strategies as st

from offramp import OfframpError
from offramp.scoring.criteria import entropy
from offramp.scoring.policy import (
    Policy,
    exits_of,
    load_policy,
    policy_scores,
    save_policy,
    shared_cutoff,
)

# Few values, so that scores often tie with thresholds.
LEVELS = [0.0, 0.25, 0.5, 1.0]


@st.composite
def scores_and_thresholds(draw):
    side = draw(st.integers(0, 4))
    samples = draw(st.integers(1, 12))
    row = st.lists(st.sampled_from(LEVELS), min_size=side + 1, max_size=side + 1)
    scores = np.array(draw(st.lists(row, min_size=samples, max_size=samples)))
    limits = st.one_of(st.none(), st.sampled_from([-1.0, *LEVELS, 9.0]))
    return scores, tuple(draw(st.lists(limits, min_size=side, max_size=side)))


@given(scores_and_thresholds())
def test_exits_are_those_of_a_loop_over_samples(case):
    scores, thresholds = case
    want = [slow_exit(row, thresholds) for row in scores.tolist()]
    assert exits_of(scores, thresholds).tolist() == want


@given(scores_and_thresholds())
def test_the_final_exits_scores_are_not_needed(case):
    scores, thresholds = case
    np.testing.assert_array_equal(
        exits_of(scores[:, :-1], thresholds), exits_of(scores, thresholds)
    )


def test_a_sample_that_ties_with_the_threshold_leaves():
    assert exits_of(np.array([[0.6], [np.nextafter(0.6, 1)]]), (0.6,)).tolist() == [1, 2]


def test_a_disabled_exit_never_fires_even_at_entropy_zero():
    assert exits_of(np.zeros((3, 3)), (None, None)).tolist() == [3, 3, 3]
    assert exits_of(np.zeros((3, 3)), (None, 0.0)).tolist() == [2, 2, 2]


def test_with_one_exit_all_take_it():
    assert exits_of(np.array([[0.0], [2.0]]), ()).tolist() == [1, 1]


def test_no_samples_take_no_exits():
    assert exits_of(np.empty((0, 3)), (0.5, None)).tolist() == []


def test_a_shared_cutoff_stands_at_every_side_exit():
    assert shared_cutoff(1, 3) == Policy("entropy", (1.0, 1.0, 1.0), None)
    assert shared_cutoff(0.6, 0).thresholds == ()


def test_enabled_names_the_heads_that_run():
    assert Policy("entropy", (0.5, None, 0.0)).runs[0].tolist() == [True, False, True, True]
    assert Policy("entropy", ()).runs[0].tolist() == [True]


def test_policy_scores_are_the_float64_entropies_of_the_side_exits():
    logits = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    scores = policy_scores(Policy("entropy", (0.5, None)), logits)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, entropy(logits[:, :2].astype(np.float64)))


def test_each_side_exits_logits_are_divided_by_its_own_temperature():
    logits = np.random.default_rng(2).normal(size=(6, 3, 4)).astype(np.float32)
    temperatures = (0.5, 3.0)
    scores = policy_scores(Policy("entropy", (0.5, 0.5), temperatures), logits)
    for sample in range(6):
        for k in range(2):
            divided = logits[sample, k].astype(np.float64) / temperatures[k]
            assert scores[sample, k] == entropy(divided)


@pytest.mark.parametrize(
    ("criterion", "thresholds", "want"),
    [
        ("entropy", (None, 0.5, None), [False, True, False, True]),
        ("agreement", (None, 0.5, None), [True, True, False, True]),
        ("patience", (None, None, None), [False, False, False, True]),
        ("patience", (), [True]),
    ],
)
def test_heads_run_where_an_exit_is_enabled_or_looked_back_at(criterion, thresholds, want):
    assert Policy(criterion, thresholds).runs[0].tolist() == want


def test_policy_scores_of_a_network_without_side_exits_are_empty():
    assert policy_scores(Policy("entropy", ()), np.zeros((4, 1, 10), np.float32)).shape == (4, 0)


def test_a_saved_policy_keeps_its_weights_bit_for_bit(tmp_path):
    weights = some_weights("deferral", 2, 4)
    policy = Policy("deferral", (0.1, None), None, weights)
    save_policy(tmp_path / "policy.json", policy)
    assert load_policy(tmp_path / "policy.json") == policy


@pytest.mark.parametrize(
    "weights",
    [
        None,
        [],
        [[0.1] * 7],
        [[0.1] * 7, [0.1] * 6],
        [[0.1] * 3] * 2,
        [[0.1] * 7, None],
        [[0.1] * 6 + ["x"]] * 2,
        [[float("nan")] * 7] * 2,
        "many",
    ],
)
def test_a_fitted_criterion_wants_its_weights(tmp_path, weights):
    content = {**GOOD, "criterion": "deferral", "weights": weights}
    text = "weights: want 2 lists of 3 numbers and one per class"
    assert text in refusal(tmp_path / "bad.json", content)


def test_weights_of_a_criterion_that_has_none_are_refused(tmp_path):
    content = {**GOOD, "weights": [[0.1] * 7] * 2}
    assert "weights: entropy has none" in refusal(tmp_path / "bad.json", content)


@given(
    thresholds=st.lists(st.one_of(st.none(), st.floats(0, 3)), max_size=6),
    temperature=st.one_of(st.none(), st.floats(1e-3, 1e3)),
)
def test_a_saved_policy_is_loaded_bit_for_bit(tmp_path_factory, thresholds, temperature):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    temperatures = None if temperature is None else (temperature,) * len(thresholds)
    policy = Policy("entropy", tuple(thresholds), temperatures)
    save_policy(path, policy, source="here", expected={"n": [1, 2]})
    assert load_policy(path) == policy
    assert json.loads(path.read_text())["source"] == "here"
    assert list(path.parent.iterdir()) == [path]


GOOD = {
    "schema": "policy",
    "schema_version": 1,
    "criterion": "entropy",
    "thresholds": [0.5, None],
    "temperatures": None,
}


def without(field: str) -> dict:
    return {name: value for name, value in GOOD.items() if name != field}


def refusal(path, content) -> str:
    """The message with which a policy file of this content is refused."""
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    with pytest.raises(OfframpError) as caught:
        load_policy(path)
    return str(caught.value)


def test_the_file_that_the_bad_ones_are_made_from_is_good(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(GOOD))
    assert load_policy(path) == Policy("entropy", (0.5, None), None)


@pytest.mark.parametrize(
    "content",
    ["", "{", "not json", "[]", "null", "3", '"policy"', json.dumps(GOOD)[:-5]],
)
def test_what_is_not_a_json_object_is_refused_by_name(tmp_path, content):
    assert str(tmp_path / "bad.json") in refusal(tmp_path / "bad.json", content)


@pytest.mark.parametrize(
    "content",
    [
        without("schema"),
        without("schema_version"),
        {**GOOD, "schema": "sweep"},
        {**GOOD, "schema_version": 2},
        {**GOOD, "schema_version": "1"},
    ],
)
def test_another_schema_or_version_is_refused(tmp_path, content):
    message = refusal(tmp_path / "bad.json", content)
    assert str(tmp_path / "bad.json") in message
    assert "schema version 1" in message


BAD_NUMBERS = [float("nan"), float("inf"), -float("inf"), "0.5", True, [0.5], {}, 10**400]


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("criterion", without("criterion")),
        *(
            ("criterion", {**GOOD, "criterion": value})
            for value in (None, 3, "entropies", "", ["entropy"], {"entropy": 1})
        ),
        ("thresholds", without("thresholds")),
        *(("thresholds", {**GOOD, "thresholds": value}) for value in (None, 0.5, "0.5", {"1": 2})),
        *(("thresholds", {**GOOD, "thresholds": [0.5, value]}) for value in BAD_NUMBERS),
        *(("temperatures", {**GOOD, "temperatures": value}) for value in (1.0, "1", {}, False)),
        *(("temperatures", {**GOOD, "temperatures": value}) for value in ([], [1.0], [1.0] * 3)),
        *(
            ("temperatures", {**GOOD, "temperatures": [1.0, value]})
            for value in (*BAD_NUMBERS, 0, -1.0, None)
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_field_is_refused_with_file_and_field(tmp_path, field, content):
    message = refusal(tmp_path / "bad.json", content)
    assert message.startswith(f"{tmp_path / 'bad.json'}: {field}: ")


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(OfframpError, match=path.name):
            load_policy(path)
    with pytest.raises(OfframpError, match=r"absent\.json: no such file$"):
        load_policy(tmp_path / "absent.json")


def test_bytes_that_are_no_text_are_refused_by_name(tmp_path):
    path = tmp_path / "binary.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(OfframpError, match=r"binary\.json"):
        load_policy(path)


@pytest.mark.parametrize("threshold", [float("inf"), float("-inf"), float("nan")])
def test_what_no_reader_would_take_is_not_written(tmp_path, threshold):
    with pytest.raises(OfframpError, match="want finite thresholds"):
        save_policy(tmp_path / "policy.json", Policy("entropy", (0.5, threshold)))
    assert not list(tmp_path.iterdir())
