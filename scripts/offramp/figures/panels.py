"""What figures share: colours, marks, panels, curves."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

DARK, MIDDLE, LIGHT = "#12355b", "#c8553d", "#9aa0a6"
# How each chosen policy is marked, everywhere.
MARKS = {
    "report_cutoff": ("o", "report cutoff"),
    "best_cutoff": ("*", "best cutoff"),
    "target": ("s", "calibrated target"),
    "best_train": ("D", "best train-calibrated"),
    "best": ("P", "best of all"),
}


def error_lengths(values: pd.Series, low: pd.Series, high: pd.Series) -> np.ndarray:
    """What matplotlib wants of error bars: distances down and up, none below 0."""
    return np.maximum(np.array([values - low, high - values], dtype=float), 0)


def headline(figure: Figure, finding: str) -> None:
    """Say above a figure what it shows, with its number; in two lines if one is too short."""
    figure.suptitle(finding, x=0.01, ha="left", fontsize=10.5, fontweight="bold", wrap=True)


def name_point(
    axes: Axes, x: float, y: float, text: str, shift: tuple[float, float], **how: Any
) -> None:
    """Call a point or line by its name, ``shift`` points away from it; white behind, so that it
    reads over lines."""
    halo = [withStroke(linewidth=3, foreground="white")]
    how = {"ha": "left" if shift[0] >= 0 else "right", "va": "center", "fontsize": 8.5} | how
    axes.annotate(
        text, (x, y), xytext=shift, textcoords="offset points", path_effects=halo, zorder=6,
        annotation_clip=False, **how,
    )  # fmt: skip


def new_panels(
    rows: int = 1, columns: int = 1, figsize: tuple[float, float] | None = None, **shared: Any
) -> tuple[Figure, Any]:
    """A figure of its own, not one of pyplot's, and its axes."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **shared)


def draw_curve(axes: Axes, rows: pd.DataFrame, x: str, color: str, line: str, label: str) -> None:
    """Accuracy in percent over a column, with its interval as a band."""
    along = rows.sort_values(x)  # a band that turns back on itself would break into islands
    axes.fill_between(
        along[x], 100 * along["low"], 100 * along["high"], color=color, alpha=0.2, linewidth=0
    )
    axes.plot(rows[x], 100 * rows["accuracy"], color=color, linestyle=line, label=label)


def total_time(samples: float, unit: str = "s") -> str:
    """The label of an axis."""
    return f"total {cost_word(unit)} for {samples:,} test samples [{in_text(unit)}]"


def cost_word(unit: str) -> str:
    """What is measured in a unit: time in seconds, else what the user gave as costs."""
    return "time" if unit == "s" else "cost"


def in_text(unit: str) -> str:
    """A unit as matplotlib is to write it, which takes dollars for formulas."""
    return unit.replace("$", r"\$")
