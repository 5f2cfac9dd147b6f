"""Tables of a run as data frames, for figures and summary."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from offramp import OfframpError
from offramp.common.intervals import interval, paired_difference
from offramp.data.datasets import dataset_of_tables
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.policy import Policy, exits_of, load_policy_and_origin
from offramp.scoring.scores import read_splits
from offramp.tables.files import origin_of, read, same_weights

# Exit rules of the oracle table in words; the others are all samples at one exit.
EXIT_RULES = {"full": "full network", "policy": "best policy", "oracle": "oracle"}
# Where a chosen policy may come from: a row of the sweep, or of the calibration.
ORIGINS = ({"cutoff"}, {"calibrated_on", "target", "method"})
RECHOOSE = "delete the folder policies and rerun"
TABLES = (
    "network", "sweep", "calibration", "verification", "timings", "temperatures", "reliability",
    "confidence", "leaving", "agreement", "oracle", "training", "baseline", "coverage",
)  # fmt: skip


class Results(SimpleNamespace):
    """The tables of a run by name, those that were read (of own logits there are no network and no
    verification); ``policies`` and, as their files say it, ``about`` by the policy's name;
    ``scores`` holds the criterion's scores (N, K) and correct (N, K) by split; ``origin`` is the
    verification's, else the sweep's, else that of the first table; ``unit`` is what columns of
    seconds are in."""

    network: pd.DataFrame
    sweep: pd.DataFrame
    calibration: pd.DataFrame
    verification: pd.DataFrame
    timings: pd.DataFrame
    temperatures: pd.DataFrame
    reliability: pd.DataFrame
    confidence: pd.DataFrame
    leaving: pd.DataFrame
    agreement: pd.DataFrame
    oracle: pd.DataFrame
    training: pd.DataFrame
    baseline: pd.DataFrame
    coverage: pd.DataFrame
    policies: dict[str, Policy]
    about: dict[str, dict[str, Any]]
    scores: dict[str, tuple[np.ndarray, np.ndarray]]
    origin: dict[str, str]
    unit: str


def read_results(paths: Any) -> Results:
    """Read what ``paths`` names: any of TABLES, and the lists policies and scores.

    Raises OfframpError when the tables are of different weights, or a policy file does not say how
    it was chosen from them.
    """
    tables = {name: read(getattr(paths, name), name) for name in TABLES if hasattr(paths, name)}
    policies = {Path(path).stem: _chosen(path) for path in getattr(paths, "policies", [])}
    scores = read_splits(getattr(paths, "scores", []))
    everything = [*tables.values(), *(split.table for split in scores.values())]
    same_weights(everything)
    return Results(
        **{name: table.to_pandas() for name, table in tables.items()},
        policies={name: policy for name, (policy, _) in policies.items()},
        about={name: about for name, (_, about) in policies.items()},
        scores={name: split[:2] for name, split in scores.items()},
        origin=origin_of(tables.get("verification", tables.get("sweep", everything[0]))),
        unit=next((o["unit"] for o in map(origin_of, everything) if "unit" in o), "s"),
    )


def _chosen(path: str) -> tuple[Policy, dict[str, Any]]:
    policy, about = load_policy_and_origin(path)
    origin = about.get("origin", "none")
    if origin is not None and not (isinstance(origin, dict) and set(origin) in ORIGINS):
        raise OfframpError(f"{path}: origin: not one of the sweep or calibration; {RECHOOSE}")
    if not isinstance(about.get("selection"), dict):
        raise OfframpError(f"{path}: selection: missing; {RECHOOSE}")
    return policy, about


def add_intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with columns ``low`` and ``high``, the 95 % intervals of their accuracies."""
    bounds = [interval(c, n) for c, n in zip(rows["correct"], rows["n"], strict=True)]
    return rows.assign(low=[b[0] for b in bounds], high=[b[1] for b in bounds])


def sweep_rows_of(results: Results, split: str, **where: Any) -> pd.DataFrame:
    """Rows of the sweep on a split, with intervals; ``where`` names further columns' values."""
    return add_intervals(_where(results.sweep, {"split": split, **where}))


def calibration_rows_of(results: Results, split: str, **where: Any) -> pd.DataFrame:
    """Rows of the calibration on a split, with intervals."""
    return add_intervals(_where(results.calibration, {"split": split, **where}))


def policy_rows(results: Results, name: str, split: str) -> pd.DataFrame:
    """The rows, exits 0 to K, of a chosen policy on a split.

    Read where the policy came from, sweep or calibration; empty for the policy that disables all
    exits because no candidate satisfied the rule.
    """
    origin = results.about[name]["origin"]
    if origin is None:
        return add_intervals(results.sweep.iloc[:0])
    rows_of = sweep_rows_of if "cutoff" in origin else calibration_rows_of
    rows = rows_of(results, split, **origin)
    if rows.empty:
        raise OfframpError(f"{name}.json: origin: {origin} is in no table of this run; {RECHOOSE}")
    return rows


def full_network(results: Results, split: str) -> dict[str, float]:
    """The full network on a split: n, correct, accuracy with its interval, predicted seconds."""
    _, correct = results.scores[split]
    n, right = len(correct), int(correct[:, -1].sum())
    low, high = interval(right, n)
    row = sweep_rows_of(results, split, exit=0).iloc[0]
    seconds = float(row["seconds"] * row["speedup"])
    return {
        "n": n, "correct": right, "accuracy": right / n, "low": low, "high": high,
        "seconds": seconds,
    }  # fmt: skip


def exit_rule_in_words(rule: str) -> str:
    """An exit rule of the oracle table: ``exit_2`` is all samples at exit 2."""
    return EXIT_RULES.get(rule, f"all at {rule.replace('_', ' ')}")


def unit_of(results: Results) -> str:
    """The unit of scores, cutoffs and thresholds, empty where they have none."""
    return CRITERIA[results.policies["best"].criterion].unit


def labelled(results: Results, what: str) -> str:
    """``what`` is on an axis of scores, with its unit."""
    unit = unit_of(results)
    return f"{what} [{unit}]" if unit else what


def class_names(results: Results) -> tuple[str, ...]:
    """The names of the classes, in the order of the labels; their numbers where they have none."""
    dataset = dataset_of_tables(results.origin)
    return dataset.names if dataset else tuple(map(str, range(results.leaving["label"].nunique())))


def leaving_counts(results: Results) -> np.ndarray:
    """int64 (K, C, C): how many test samples leave at each exit under the best policy, by true
    class and predicted label."""
    rows = results.leaving.sort_values(["exit", "label", "predicted"])
    classes = rows["label"].nunique()
    return rows["n"].to_numpy().reshape(-1, classes, classes)


# Of what decides alike for every sample there is.
SAME = {"points": 0.0, "low": 0.0, "high": 0.0}


def against_full_network(results: Results, name: str, split: str) -> dict[str, float]:
    """How much more accurate a chosen policy is than the full network on a split, paired: points
    (a fraction, negative where accuracy is lost) and their 95 % interval; exactly 0 where no exit
    is enabled, since it is the full network then."""
    if all(threshold is None for threshold in results.policies[name].thresholds):
        return dict(SAME)
    full = results.scores[split][1][:, -1]
    return _paired(_right(results, name, split), full)


def difference(results: Results, name: str, other: str, split: str) -> dict[str, float]:
    """How much more accurate a chosen policy is than another one on a split, paired; exactly 0
    where both are the same."""
    if results.policies[name].thresholds == results.policies[other].thresholds:
        return dict(SAME)
    return _paired(_right(results, name, split), _right(results, other, split))


def _right(results: Results, name: str, split: str) -> np.ndarray:
    """Whether a chosen policy is right, bool (N,)."""
    scores, correct = results.scores[split]
    exits = exits_of(scores, results.policies[name].thresholds)
    return correct[np.arange(len(correct)), exits - 1]


def _paired(right: np.ndarray, other: np.ndarray) -> dict[str, float]:
    points, low, high = paired_difference(right, other)
    return {"points": points, "low": low, "high": high}


def _where(table: pd.DataFrame, conditions: Mapping[str, Any]) -> pd.DataFrame:
    for column, value in conditions.items():
        table = table[table[column] == value]
    return table
