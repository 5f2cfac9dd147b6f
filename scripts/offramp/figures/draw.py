"""Every figure, from the tables; one function each, readable in grey, the same bytes each time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from offramp.common.files import replacing
from offramp.figures import closer_figures, study_figures, task_figures

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#5b6570",
    "axes.grid": True,
    "axes.labelsize": 9.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    # That of the PNG, whose letters are wider than in proportion: laid out for these.
    "figure.dpi": 150,
    # All are as wide, so that text is as large where they stand below each other.
    "figure.figsize": (8.4, 4.8),
    "font.size": 9.5,
    "grid.alpha": 0.3,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "offramp",
    "xtick.color": "#333a42",
    "ytick.color": "#333a42",
}

MARGIN = 0.06  # in inches, around figures and panels

DRAW: dict[str, Callable[[Any], Figure]] = {
    "report_cutoff": task_figures.draw_report_cutoff,
    "target": task_figures.draw_target,
    "time_accuracy": task_figures.draw_time_accuracy,
    "time_cutoff": task_figures.draw_time_cutoff,
    "accuracy_cutoff": task_figures.draw_accuracy_cutoff,
    "exit_shares": task_figures.draw_exit_shares,
    "targets": task_figures.draw_targets,
    "entropy": closer_figures.draw_entropy,
    "prediction": closer_figures.draw_prediction,
    "reliability": closer_figures.draw_reliability,
    "leaving": closer_figures.draw_leaving,
    "confusion": closer_figures.draw_confusion,
    "agreement": closer_figures.draw_agreement,
    "training": study_figures.draw_training,
    "baseline": study_figures.draw_baseline,
    "coverage": study_figures.draw_coverage,
    "frontier": study_figures.draw_frontier,
    "criteria": study_figures.draw_criteria,
    "benchmarks": study_figures.draw_benchmarks,
    "multiply_adds": study_figures.draw_multiply_adds,
}


def draw(path: str | Path, results: Any) -> None:
    """Draw the figure named by the path's stem, as SVG and as PNG beside it; ``results`` is what
    its function draws from, a `Results` with the tables that it needs, or tables themselves."""
    path = Path(path)
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever matplotlibrc a user has
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type]
        figure = DRAW[path.stem](results)
        # Once for both files: as the figure's own it would draw each a second time.
        ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN).execute(figure)
        with replacing(path.with_suffix(".svg")) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})
        with replacing(path.with_suffix(".png")) as part:
            figure.savefig(part, format="png", metadata={"Software": None})
