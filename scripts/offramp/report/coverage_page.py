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


def page(table: pa.Table, origin: Mapping[str, str], date: str) -> str:
    """The table for a reader."""
    rows = table.to_pylist()
    stated = [row for row in rows if row["stated"] is not None]
    broken = beyond_chance(stated)
    sizes = sorted({row["n"] for row in rows})
    found = f"No rate is above the stated one beyond chance, in {len(stated)} cells."
    if broken:
        cells = Counter(row["promise"] for row in broken)
        named = "; ".join(f"{promise} in {count} cells" for promise, count in cells.items())
        found = f"In {len(broken)} of {len(stated)} cells the rate is above the stated one beyond "
        found += f"chance, in bold: {named}. In all others it is not."
    lines = [
        "# Are the promises kept?",
        "How often each promise was broken on new draws of n samples, where the truth is known. "
        f"{found} Beyond chance is what an exact test says at a level of {SIGNIFICANCE:g}, shared "
        "by all cells. Where a policy was chosen, its median speed-up stands beside the rate.",
        f"Measured on {date} at commit {short_commit(origin.get('git_commit', 'unknown'))}, "
        f"{min(r['draws'] for r in rows):,} to {max(r['draws'] for r in rows):,} draws a cell. "
        f"`network` is {origin['model']}: its validation and test samples, drawn with replacement. "
        "The other populations are made up to be hard on a promise.",
        "![stated and measured rates](figures/coverage.svg)",
    ]
    for promise in dict.fromkeys(row["promise"] for row in rows):
        here = [row for row in rows if row["promise"] == promise]
        lines += [f"## {promise[0].upper()}{promise[1:]}", _stated(here[0])]
        lines.append(_by_population(here, sizes, broken))
    return "\n\n".join(lines) + "\n"


def beyond_chance(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that were broken more often than stated, by the exact test at SIGNIFICANCE shared by
    all."""
    level = SIGNIFICANCE / max(1, len(rows))
    return [
        r for r in rows if r["broken"] and bdtrc(r["broken"] - 1, r["draws"], r["stated"]) < level
    ]


def _stated(row: Mapping[str, Any]) -> str:
    if row["stated"] is None:
        return "Promises nothing; for comparison. Share of draws, and the median speed-up:"
    return f"May be broken in at most {row['stated']:.0%} of the draws:"


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
