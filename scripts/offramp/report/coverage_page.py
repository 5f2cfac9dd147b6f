"""The page of the coverage study: stated and measured, promise by promise."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from scipy.special import bdtrc

from offramp.common import markdown
from offramp.common.markdown import short_commit

# Over all cells of the page together.
SIGNIFICANCE = 0.05

# What is promised; by name, or by its part before a comma.
PROMISES = {
    "drop": "A policy that was fixed beforehand loses at most the bound on its accuracy drop.",
    "difference": "The interval of the difference of two accuracies on the same samples holds the "
    "true one.",
    "accuracy": "The true accuracy of a fixed policy is at least its bound.",
    "accuracy, 95 %": "The interval of an accuracy holds the true one.",
    "calibration error": "The interval of the calibration error holds the true one.",
    "guaranteed": "Every enabled exit is truly as accurate as wanted, on the samples that leave "
    "there.",
    "empirical": "The same, of thresholds for which it is true on the samples drawn.",
    "drop of the chosen": "The policy that `fastest_within_drop` chooses loses at most half a "
    "point against the full network.",
    "drop of the fastest on the draw": "The same, of the fastest that loses at most half a point "
    "on the samples drawn.",
    "accuracy of the chosen": "The policy that `fastest_above_accuracy` chooses is at most one "
    "point less accurate than the full network.",
    "expected accuracy (an estimate)": "Jointly chosen thresholds are as accurate as was expected "
    "of them.",
}
WORDS = (
    "A *draw* is a new set of n validation samples. A *population* is what they are drawn from; a "
    "*cell* is one population at one n. A policy *loses* the samples that only the full network "
    "has right and *gains* those that only the policy has right; a point is one percentage point "
    "of accuracy. Guaranteed, empirical and joint are ways to find thresholds, of which the "
    "pipeline's [methods](methods.md#thresholds) tell more."
)
POPULATIONS = {
    "no gains": "half a point lost; early answers are never right where the last one is wrong",
    "few gains": "0.6 points lost, 0.1 gained",
    "as many gains": "3.5 points lost, 3 gained",
    "exits err together": "30.5 points lost, 30 gained; below, exits that are wrong on the same "
    "samples",
    "accuracy": "answers that are right at this rate",
    "ordered by luck": "policies that lose a little too much, of which the luckiest on the draw "
    "are the fastest",
    "hardness is the score": "the score says how likely an exit is wrong",
    "noisy scores": "the score says so with noise",
    "ties": "scores of nine values",
    "surest are wrong": "the samples with the lowest scores are often wrong",
    "1,000 classes": "scores up to ln 1,000, and low accuracies",
    "classes": "logits of so many classes, in truth or so many times too large",
}


def page(table: pa.Table, origin: Mapping[str, str], date: str) -> str:
    """The table for a reader."""
    rows = table.to_pylist()
    stated = [row for row in rows if row["stated"] is not None]
    broken = beyond_chance(stated)
    sizes = sorted({row["n"] for row in rows})
    verdict = f"No rate is above the stated one beyond chance, in {len(stated)} cells."
    if broken:
        cells = Counter(row["promise"] for row in broken)
        named = "; ".join(f"{promise} in {count} cells" for promise, count in cells.items())
        verdict = (
            f"In {len(broken)} of {len(stated)} cells the rate is above the stated one beyond "
        )
        verdict += f"chance, in bold: {named}. In all others it is not."
    lines = [
        "# Are the promises kept?",
        "How often each promise was broken on new draws of n samples, where the truth is known. "
        f"{verdict} Beyond chance is what an exact test says at a level of {SIGNIFICANCE:g}, "
        "shared by all cells. Where a policy was chosen, its median speed-up stands beside the "
        "rate.",
        f"Measured on {date} at commit {short_commit(origin.get('git_commit', 'unknown'))}, "
        f"{min(r['draws'] for r in rows):,} to {max(r['draws'] for r in rows):,} draws a cell. "
        f"`network` is {origin['model']}: its validation and test samples, drawn with replacement. "
        "The other populations are made up to be hard on a promise; they stand at the end.",
        WORDS,
        "![stated and measured rates](figures/coverage.svg)",
    ]
    for promise in dict.fromkeys(row["promise"] for row in rows):
        of_promise = [row for row in rows if row["promise"] == promise]
        lines += [
            f"## {promise[0].upper()}{promise[1:]}",
            f"{promised(promise)} {_stated(of_promise[0])}",
        ]
        lines.append(_by_population(of_promise, sizes, broken))
    lines += [
        "## The populations",
        "- " + "\n- ".join(f"*{n}*: {m}." for n, m in POPULATIONS.items()),
    ]
    return "\n\n".join(lines) + "\n"


def beyond_chance(rows: Sequence[Mapping[Any, Any]]) -> list[Mapping[Any, Any]]:
    """Those that were broken more often than stated, by the exact test at SIGNIFICANCE shared by
    all."""
    level = SIGNIFICANCE / max(1, len(rows))
    return [
        r for r in rows if r["broken"] and bdtrc(r["broken"] - 1, r["draws"], r["stated"]) < level
    ]


def promised(name: str) -> str:
    """What a promise says."""
    return PROMISES[name] if name in PROMISES else PROMISES[name.split(",")[0]]


def _stated(row: Mapping[str, Any]) -> str:
    if row["stated"] is None:
        return "Nobody promises that; it stands here for comparison. How often it was not so:"
    return f"This may be broken in at most {row['stated']:.0%} of the draws:"


def _by_population(
    rows: Sequence[Mapping[str, Any]], sizes: Sequence[int], broken: Sequence[Mapping[str, Any]]
) -> str:
    cells: dict[str, dict[int, str]] = {}
    for row in rows:
        shown = f"{row['rate']:.1%}"
        shown = f"**{shown}**" if row in broken else shown
        if row["speedup"] is not None:
            shown += f", {row['speedup']:.2f}x"
        cells.setdefault(row["population"], {})[row["n"]] = shown
    header = ["population", *(f"n = {n:,}" for n in sizes)]
    return markdown.table(
        header, [[name, *(c.get(n, "") for n in sizes)] for name, c in cells.items()]
    )
