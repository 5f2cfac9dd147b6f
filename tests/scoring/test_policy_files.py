"""Policy files and tables of any content: a right answer or one line that names file and field."""

import json
import math
import os
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from conftest import ORIGIN, documented, slow_exit, some_weights
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_criteria import SLOW

from offramp import OfframpError
from offramp.networks.identity import Identity
from offramp.scoring import policy as policies
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.policy import (
    Policy,
    load_policy,
    load_policy_for,
    outcome_of_tables,
    policy_scores,
    save_policy,
)
from offramp.tables.files import read_logits, write
from offramp.tables.schemas import logits_schema

NETWORK = Identity("toy", "toy.pt", "a" * 64)
GOOD = {
    "schema": "policy",
    "schema_version": 1,
    "criterion": "entropy",
    "thresholds": [0.5, None],
    "temperatures": [1.5, 2.0],
    "weights": None,
    "network": NETWORK._asdict(),
    "origin": {"cutoff": 0.5},
}
FIELDS = ["criterion", "thresholds", "temperatures", "weights", "network"]
NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.booleans())
JSON = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=5), st.sampled_from(sorted(CRITERIA))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("policies") / "best.json"


def refusal(path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(OfframpError) as caught:
        load_policy(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message and len(message) < len(str(path)) + 250
    return message


def refused_or_right(path) -> Policy | None:
    """What is loaded, every field of it as the file has it; None if the file is refused."""
    try:
        policy = load_policy(path)
    except OfframpError:
        refusal(path)
        return None
    found = json.loads(path.read_text())
    assert policy.criterion == found["criterion"]
    assert list(policy.thresholds) == found["thresholds"]
    assert all(t is None or math.isfinite(t) for t in policy.thresholds)
    for field in ("temperatures", "weights"):
        value = getattr(policy, field)
        assert json.loads(json.dumps(value)) == found.get(field)
    return policy


@st.composite
def policy_contents(draw):
    """A policy with one or two fields of any JSON, or left out; or any JSON at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    content = dict(GOOD)
    for field in draw(st.lists(st.sampled_from([*FIELDS, "schema_version"]), max_size=2)):
        content.pop(field, None)
        if draw(st.integers(0, 3)):
            row = st.lists(NUMBERS, min_size=5, max_size=7)
            near = st.one_of(JSON, st.lists(st.one_of(NUMBERS, st.none()), max_size=3))
            content[field] = draw(st.one_of(near, st.lists(row, min_size=2, max_size=2)))
    return content


@given(policy_contents())
@settings(max_examples=500)
@example(GOOD)
@example(GOOD | {"criterion": "deferral", "temperatures": None, "weights": [[0.1] * 7] * 2})
def test_a_policy_of_any_content_is_refused_or_right(path, content):
    path.write_text(json.dumps(content))
    policy = refused_or_right(path)
    if content == GOOD:
        assert policy is not None


@given(st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 6))
@settings(max_examples=300)
def test_a_policy_with_bytes_changed_is_refused_or_right(path, place, new, old):
    whole = json.dumps(GOOD).encode()
    place %= len(whole)
    path.write_bytes(whole[:place] + new + whole[place + old :])
    refused_or_right(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        (json.dumps(GOOD).replace("[0.5", "[" + "[" * 900 + "0" + "]" * 900), ""),
        ("", "not a readable policy file"),
        ("\x00" * 50, "not a readable policy file"),
        (json.dumps(GOOD)[:-1] + ', "criterion": "margin"}', "'criterion' is written twice"),
        (json.dumps(GOOD | {"thresholds": ["0.5", None]}), "thresholds: want a list of finite"),
        (json.dumps(GOOD | {"thresholds": [math.nan, None]}), "thresholds: want a list of finite"),
        (json.dumps(GOOD | {"network": "toy"}), "network: want null or name, weights, weights_sha"),
        (json.dumps({k: GOOD[k] for k in GOOD if k != "temperatures"}), "temperatures: missing"),
        (json.dumps(GOOD | {"criterion": "x" * 10_000}), "criterion: "),
        (json.dumps(GOOD | {"thresholds": "9" * 10**6}), "thresholds: "),
        ('{"schema": ' + "9" * 10_000 + "}", "not a readable policy file"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_no_policy_is_refused_in_one_line(path, content, words):
    path.write_text(content)
    message = refusal(path)
    assert words in message
    if words:
        assert documented(message)


def test_a_huge_file_is_not_read_to_its_end(path, monkeypatch):
    monkeypatch.setattr(policies, "LARGEST", 2**20)
    path.write_text(json.dumps(GOOD) + " " * 2**20)
    assert "more than 1 MiB" in refusal(path)
    path.unlink()


def test_what_has_no_end_or_waits_for_a_writer_is_not_read(path):
    for make in (lambda: path.symlink_to("/dev/zero"), lambda: os.mkfifo(path)):
        make()
        assert refusal(path) == f"{path}: not a file"
        with pytest.raises(OfframpError, match="not a file"):
            read_logits(path)
        path.unlink()


def test_a_policy_of_the_version_before_is_loaded(path):
    """It does not say for which network; and its first ones had no weights."""
    old = {k: v for k, v in GOOD.items() if k not in ("network", "weights")}
    path.write_text(json.dumps(old))
    assert load_policy_for(path, 3, 4, NETWORK) == Policy("entropy", (0.5, None), (1.5, 2.0))


def test_a_policy_for_another_network_is_refused_by_name(path):
    save_policy(path, Policy("entropy", (0.5, None), None, None, NETWORK))
    moved = NETWORK._replace(weights="elsewhere/toy.pt")
    assert load_policy_for(path, 3, 4, moved).network == NETWORK
    assert load_policy_for(path, 3, 4, None).network == NETWORK
    with pytest.raises(OfframpError) as caught:
        load_policy_for(path, 3, 4, Identity("other", "other.pt", "b" * 64))
    message = str(caught.value)
    assert f"{path}: network: chosen for toy with toy.pt (sha256 aaaaaaaaaaaa)" in message
    assert "not for other with other.pt (sha256 bbbbbbbbbbbb)" in message
    assert documented(message)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy("entropy", (0.5,)), "1 thresholds for 2 side exits"),
        (Policy("entropy", (0.5,) * 5), "5 thresholds for 2 side exits"),
        (
            Policy("deferral", (0.5, 0.5), None, some_weights("deferral", 2, 10)),
            "weights: of 10 classes, not of 4",
        ),
    ],
)
def test_a_policy_of_another_size_is_refused_by_file(path, policy, words):
    save_policy(path, policy)
    with pytest.raises(OfframpError) as caught:
        load_policy_for(path, 3, 4, None)
    assert str(caught.value) == f"{path}: {words}"
    assert documented(str(caught.value))


# Policies and tables through their files, against a cascade of one sample at a time


def slow_scores(policy: Policy, rows) -> list[float]:
    """One sample's scores at the side exits, from its logits (K, C)."""
    heat = policy.temperatures or [1.0] * len(policy.thresholds)
    cooled = [[z / t for z in row] for row, t in zip(rows, heat, strict=False)]
    weights = policy.weights or [None] * len(heat)
    return [SLOW[policy.criterion](cooled[: k + 1], weights[k]) for k in range(len(heat))]


@st.composite
def policies_and_logits(draw):
    """Logits float32 (N, K, C) and a policy for them, whose thresholds lie on no score."""
    samples, exits, classes = (draw(st.integers(*ends)) for ends in ((1, 6), (1, 4), (2, 5)))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    logits = random.normal(size=(samples, exits, classes)) * draw(st.sampled_from([0.1, 3.0, 20.0]))
    criterion = draw(st.sampled_from(sorted(CRITERIA)))
    side = exits - 1
    heat = tuple(random.uniform(0.5, 3.0, side).tolist())
    fitted = CRITERIA[criterion].fitted
    hot = draw(st.booleans()) and not fitted
    policy = Policy(
        criterion,
        (None,) * side,
        heat if hot else None,
        some_weights(criterion, side, classes),
    )
    logits = logits.astype(np.float32)
    scores = np.array([slow_scores(policy, rows) for rows in logits.tolist()])
    thresholds = []
    for k in range(side):
        known = sorted({round(float(s), 6) for s in scores[:, k]})
        between = [(a + b) / 2 for a, b in pairwise(known) if b - a > 1e-5]
        ends = [known[0] - 1, known[-1] + 1]
        thresholds.append(draw(st.one_of(st.none(), st.sampled_from([*ends, *between]))))
    return policy._replace(thresholds=tuple(thresholds), network=NETWORK), logits


@given(policies_and_logits())
@settings(max_examples=500)
def test_policies_and_tables_from_files_decide_as_one_sample_at_a_time(path, case):
    policy, logits = case
    samples, exits, classes = logits.shape
    lists = [pa.FixedSizeListArray.from_arrays(logits[:, k].ravel(), classes) for k in range(exits)]
    columns = [pa.array(np.arange(samples)), pa.array(np.zeros(samples, np.int64)), *lists]
    table = pa.Table.from_arrays(columns, schema=logits_schema(exits, classes))
    write(path.with_suffix(".parquet"), table, "logits", ORIGIN)
    save_policy(path, policy, origin=None)

    loaded = load_policy_for(path, exits, classes, NETWORK)
    assert loaded == policy
    known = read_logits(path.with_suffix(".parquet")).logits
    found = outcome_of_tables(loaded, known)
    for i, rows in enumerate(logits.tolist()):
        slow = slow_scores(policy, rows)
        np.testing.assert_allclose(policy_scores(loaded, known)[i], slow, atol=1e-9)
        taken = slow_exit(slow, policy.thresholds)
        assert found.exits[i] == taken
        assert found.labels[i] == rows[taken - 1].index(max(rows[taken - 1]))
