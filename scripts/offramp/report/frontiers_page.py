"""Criteria and ways to choose thresholds at equal accuracy, in words."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from offramp.common import markdown

CHOSEN_IN_WORDS = {
    "shared": "one shared cutoff",
    "empirical": "accuracy per exit",
    "joint": "chosen together",
}


def name_of(row: Mapping[Any, Any]) -> str:
    """A criterion in words."""
    return row["criterion"].replace("_", " ") + (", with temperatures" if row["scaled"] else "")


def page(table: pa.Table, origin: Mapping[str, str]) -> str:
    """The equal-accuracy table for a reader."""
    rows, unit = table.to_pylist(), origin.get("unit", "s")
    parts = [
        "# Criteria and ways to choose thresholds, at equal accuracy",
        f"`{origin['model']}` on test data of {origin['dataset']}: predicted "
        f"{'seconds' if unit == 's' else unit}, and in "
        "brackets how many times faster than the best shared cutoff of the entropy at the same "
        "accuracy, with 95 % intervals (bootstrap over test samples). Thresholds come from "
        "validation data; at which of them an accuracy is reached is read off test data, so this "
        "compares and chooses nothing. Every criterion is charged what the config's criterion "
        "takes to decide. With temperatures, thresholds come from half of the validation data.",
    ]
    for lost in sorted({row["points_lost"] for row in rows}):
        at_loss = [row for row in rows if row["points_lost"] == lost]
        parts.append(f"## {lost:g} points below the full network")
        body = [
            [name_of(row), *(_cell(r, unit) for r in at_loss if name_of(r) == name_of(row))]
            for row in at_loss
            if row["method"] == "shared"
        ]
        parts.append(markdown.table(["criterion", *CHOSEN_IN_WORDS.values()], body))
    return "\n\n".join(parts) + "\n"


def _cell(row: Mapping[str, Any], unit: str) -> str:
    if row["seconds"] is None:
        return "not reached"
    factors = [row[f"over_shared{end}"] for end in ("", "_low", "_high")]
    seconds = row["seconds"]
    cost = f"{seconds:,.0f} {unit}" if unit != "s" and seconds >= 1000 else f"{seconds:.3g} {unit}"
    if None in factors:
        return cost
    # 0 times as fast: in one of forty draws, or more, the accuracy is out of reach.
    low = f"{factors[1]:.2f}" if factors[1] else "not reached"
    return f"{cost} ({factors[0]:.2f}x [{low}, {factors[2]:.2f}])"
