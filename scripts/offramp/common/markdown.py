"""Pieces of Markdown that the pages share."""

from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A table; the cells as `str` gives them."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def short_commit(commit: str) -> str:
    """A git commit as pages name it, with the word that its code was edited."""
    sha, dash, edited = commit.partition("-")
    return f"{sha[:12]}{dash}{edited}"


def percent(accuracy: float, low: float, high: float) -> str:
    """An accuracy with its interval: 83.42% [82.68, 84.14]."""
    return f"{accuracy:.2%} [{100 * low:.2f}, {100 * high:.2f}]"


def parts_table(parts: Iterable[dict[str, Any]]) -> str:
    """The rows of `network.parquet`."""
    return table(
        ["exit", "part", "input", "output", "parameters", "multiply-adds"],
        [
            [p["exit"], p["part"], p["input_shape"], p["output_shape"],
             f"{p['parameters']:,}", f"{p['multiply_adds']:,}"]
            for p in parts
        ],
    )  # fmt: skip
