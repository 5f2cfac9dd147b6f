"""Policy files that a report can't place: one line that names the file."""

from types import SimpleNamespace

import pandas as pd
import pytest

from offramp import OfframpError
from offramp.report.results import Results, policy_rows, read_results
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
