"""Policy files that a report can't place: one line that names the file."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from offramp import OfframpError
from offramp.report.results import (
    Results,
    against_full_network,
    difference,
    policy_rows,
    read_results,
)
from offramp.scoring.policy import Policy, save_policy


@pytest.mark.parametrize(
    ("about", "field"),
    [
        ({}, "origin"),
        ({"selection": {}}, "origin"),
        ({"origin": 0.5, "selection": {}}, "origin"),
        ({"origin": {"cutof": 0.5}, "selection": {}}, "origin"),
        ({"origin": {"cutoff": 0.5, "split": "val"}, "selection": {}}, "origin"),
        ({"origin": {"cutoff": 0.5}}, "selection"),
        ({"origin": None, "selection": "best"}, "selection"),
    ],
)
def test_a_policy_that_does_not_say_how_it_was_chosen_is_refused(tmp_path, about, field):
    path = tmp_path / "best.json"
    save_policy(path, Policy("entropy", (0.5,)), **about)
    with pytest.raises(OfframpError) as caught:
        read_results(SimpleNamespace(policies=[str(path)]))
    assert str(caught.value).startswith(f"{path}: {field}: ")
    assert str(caught.value).endswith("delete the folder policies and rerun")


def test_a_policy_of_another_sweep_is_refused():
    columns = ["split", "cutoff", "correct", "n", "exit"]
    sweep = pd.DataFrame([["val", 0.5, 1, 2, 0]], columns=columns)
    results = Results(sweep=sweep, about={"best": {"origin": {"cutoff": 0.6}}})
    with pytest.raises(OfframpError, match=r"best\.json: origin: .*'cutoff': 0\.6.* in no table"):
        policy_rows(results, "best", "val")
    results.about["best"]["origin"]["cutoff"] = 0.5
    assert len(policy_rows(results, "best", "val")) == 1


def test_what_is_the_same_differs_by_exactly_nothing():
    scores = np.array([[0.1, 0.9], [0.7, 0.3], [0.2, 0.1], [0.9, 0.8]])
    correct = np.array([[1, 1], [0, 1], [0, 1], [1, 0]], dtype=bool)
    thresholds = {"best": (None,), "target": (None,), "best_cutoff": (0.5,), "best_train": (0.5,)}
    results = Results(
        scores={"test": (scores, correct)},
        policies={name: Policy("entropy", t) for name, t in thresholds.items()},
    )
    nothing = {"points": 0.0, "low": 0.0, "high": 0.0}
    assert against_full_network(results, "best", "test") == nothing
    assert difference(results, "best_cutoff", "best_train", "test") == nothing
    one_lost = against_full_network(results, "best_cutoff", "test")
    assert one_lost["points"] == -0.25 and one_lost["low"] < -0.25 < one_lost["high"]
    assert difference(results, "best", "best_cutoff", "test")["points"] == 0.25
