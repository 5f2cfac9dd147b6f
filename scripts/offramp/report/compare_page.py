"""Runs and their variants side by side, in words."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp import OfframpError
from offramp.common.intervals import interval, paired_difference
from offramp.common.markdown import percent, table
from offramp.scoring.policy import exits_of
from offramp.scoring.scores import read_scores
from offramp.tables.files import origin_of

# What is compared, and where a summary holds it.
COMPARED = {
    "The best policy": lambda summary: summary["best"],
    "Task 2a: the wanted accuracy": lambda summary: summary["task_2a"],
}


class Compared(NamedTuple):
    """A finished run: its ``summary``; ``scores`` float64 (N, K) and ``correct`` bool (N, K) of its
    test samples; and ``samples``, what only runs over the same samples share."""

    summary: dict[str, Any]
    scores: np.ndarray
    correct: np.ndarray
    samples: str | None


def read_run(folder: str) -> Compared:
    """A run from its results folder. Raises OfframpError for one of an older version."""
    summary = json.loads(Path(folder, "summary.json").read_text())
    if "config" not in summary:
        raise OfframpError(f"{folder}/summary.json: of an older version; run its config again")
    scores, correct, table = read_scores(f"{folder}/scores/test.parquet")
    return Compared(summary, scores, correct, origin_of(table).get("samples_sha256"))


def compare_page(runs: Mapping[str, Compared]) -> str:
    """The page; ``runs`` by results folder, the first being what the others are held against."""
    first = next(iter(runs))
    lines = [
        "# Runs side by side",
        f"Accuracy is on test data, with 95 % intervals (exact). Points are against `{first}`, "
        "sample by sample, with 95 % intervals (paired). Times and speed-ups are predicted, those "
        "in brackets measured live. These figures are for reporting: who picks a variant by them "
        "has chosen on test data, and its promise no longer holds as stated.",
        *_clocks(runs),
        "## The full network",
        table(
            ["results", "network", "accuracy", f"against `{first}`", "time"],
            [
                [f"`{name}`", f"`{run.summary['about']['model']}`", _accuracy(run.correct[:, -1]),
                 _against(run, run.correct[:, -1], runs[first], runs[first].correct[:, -1]),
                 _time(run, run.summary["full_network"]["test"]["seconds"])]
                for name, run in runs.items()
            ],
        ),
    ]  # fmt: skip
    for title in COMPARED:
        lines += [f"## {title}", _policies(runs, title)]
    lines += ["## What differs in their configs", _differences(runs)]
    return "\n\n".join(lines) + "\n"


def _policies(runs: Mapping[str, Compared], title: str) -> str:
    first = next(iter(runs))
    right = {name: _right(run, COMPARED[title](run.summary)) for name, run in runs.items()}
    header = [
        "results",
        "thresholds 1 to K-1",
        "accuracy",
        f"against `{first}`",
        "time",
        "speed-up",
    ]
    rows = []
    for name, run in runs.items():
        policy = COMPARED[title](run.summary)
        overall = policy["test"][0] if isinstance(policy["test"], list) else policy["test"]
        full = run.summary["full_network"]["test"]["seconds"]
        seconds, speedup = (overall["seconds"], overall["speedup"]) if overall else (full, 1.0)
        live = f" ({policy['live']['speedup_measured']:.2f}x)" if policy["live"] else ""
        thresholds = ("off" if t is None else f"{t:.4f}" for t in policy["thresholds"])
        against = _against(run, right[name], runs[first], right[first])
        rows.append(
            [f"`{name}`", " ".join(thresholds), _accuracy(right[name]), against,
             _time(run, seconds), f"{speedup:.2f}x{live}"]
        )  # fmt: skip
    return table(header, rows)


def _right(run: Compared, policy: Mapping[str, Any]) -> np.ndarray:
    """Which test samples a policy has right, bool (N,)."""
    taken = exits_of(run.scores, tuple(policy["thresholds"]))
    return run.correct[np.arange(len(taken)), taken - 1]


def _accuracy(right: np.ndarray) -> str:
    return percent(right.mean(), *interval(int(right.sum()), len(right)))


def _against(run: Compared, right: np.ndarray, first: Compared, others: np.ndarray) -> str:
    if run is first:
        return ""
    if run.samples is None or run.samples != first.samples:
        return "other samples"
    points, low, high = (100 * value for value in paired_difference(right, others))
    return f"{points:+.2f} [{low:+.2f}, {high:+.2f}]"


def _time(run: Compared, value: float) -> str:
    digits = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{digits} {run.summary['about']['unit']}"


def _clock(run: Compared) -> str:
    about = run.summary["about"]
    if about["device_name"] is None:
        return f"costs in {about['unit']}"
    return (
        f"{about['device_name']}, {about['threads']} threads, torch {about['torch']}, batches of "
        f"{about['batch_size']}"
    )


def _clocks(runs: Mapping[str, Compared]) -> Iterable[str]:
    """What times may be held against each other, if not all may."""
    clocks: dict[str, list[str]] = {}
    for name, run in runs.items():
        clocks.setdefault(_clock(run), []).append(f"`{name}`")
    if len(clocks) > 1:
        listed = "; ".join(f"{', '.join(names)}: {clock}" for clock, names in clocks.items())
        yield f"**Times compare only where they were taken alike.** {listed}."


def _differences(runs: Mapping[str, Compared]) -> str:
    configs = {name: dict(_flat(run.summary["config"])) for name, run in runs.items()}
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    rows = [
        [f"`{key}`", *(_value(config.get(key)) for config in configs.values())]
        for key in keys
        if len({json.dumps(config.get(key)) for config in configs.values()}) > 1
    ]
    if not rows:
        return "Nothing that counts."
    return table(["key", *(f"`{name}`" for name in runs)], rows)


def _flat(config: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    """Every key that holds no others, by its dotted name."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def _value(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 4:
        return f"{len(value)} values, {value[0]} to {value[-1]}"
    return "" if value is None else f"`{json.dumps(value)}`"
