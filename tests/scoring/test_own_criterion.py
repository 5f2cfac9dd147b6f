"""The guide's criterion of one's own, as it stands there: from tables to a policy, and live."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import toy_images, toy_network
from slow_criteria import SLOW, softmax

from offramp.inference.cascade import run_cascade
from offramp.scoring import criteria
from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.policy import Policy, load_policy, outcome_of_tables, save_policy

GUIDE = Path(__file__).parents[2] / "docs/guides/criterion.md"


@pytest.fixture
def gini():
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    # The module's own names, and nothing else, as where the guide says that it stands.
    exec(code, dict(vars(criteria)))
    yield "gini"
    del CRITERIA["gini"]


@torch.inference_mode()
def test_the_guides_criterion_decides_in_tables_and_live_by_its_words(gini, tmp_path):
    network, images = toy_network(3), toy_images(40)
    logits = np.stack([head.numpy() for head in network(images)], axis=1)
    scores = scores_of(gini, logits)
    slow = [[1 - sum(p * p for p in softmax(row)) for row in sample] for sample in logits.tolist()]
    np.testing.assert_allclose(scores, slow, rtol=1e-9, atol=1e-12)
    low, high = CRITERIA[gini].range(10)
    assert low <= scores.min() <= scores.max() <= high
    thresholds = tuple(float(t) for t in np.median(scores[:, :2], axis=0) + 1e-4)
    save_policy(tmp_path / "policy.json", Policy(gini, thresholds))
    policy = load_policy(tmp_path / "policy.json")
    labels, exits = run_cascade(network, policy, images)
    table = outcome_of_tables(policy, logits)
    assert set(exits.tolist()) == {1, 2, 3}
    assert exits.tolist() == table.exits.tolist()
    assert labels.tolist() == table.labels.tolist()


def test_every_criterion_has_a_slow_twin_and_a_row_in_the_guide():
    rows = re.findall(r"^\| `(\w+)` \|", GUIDE.read_text(), re.M)
    assert rows[1:] == list(CRITERIA) == list(SLOW)
