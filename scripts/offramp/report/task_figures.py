"""Figures of the tasks: time and accuracy under cutoffs and targets."""

from functools import partial

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.report.panels import (
    DARK,
    LIGHT,
    MARKS,
    MIDDLE,
    cost_word,
    draw_curve,
    error_lengths,
    in_text,
    new_panels,
    total_time,
)
from offramp.report.results import (
    Results,
    calibration_rows_of,
    full_network,
    labelled,
    policy_rows,
    sweep_rows_of,
    unit_of,
)
from offramp.scoring.criteria import CRITERIA


def draw_report_cutoff(results: Results) -> Figure:
    """Accuracy and time at each exit under the report cutoff (task 1a)."""
    cutoff = results.about["report_cutoff"]["origin"]["cutoff"]
    rows = policy_rows(results, "report_cutoff", "test")
    return _by_exit(results, {"test": rows}, f"shared cutoff c = {cutoff:g} {unit_of(results)}")


def draw_target(results: Results) -> Figure:
    """Accuracy and time at each exit under the calibrated target (task 2a)."""
    origin = results.about["target"]["origin"]
    target, where = origin["target"], "overall" if origin["method"] == "joint" else "at every exit"
    rows = {split: policy_rows(results, "target", split) for split in ("val", "test")}
    figure = _by_exit(results, rows, f"thresholds calibrated on val for {100 * target:g}% {where}")
    if origin["method"] == "joint":  # nothing is wanted of a single exit
        return figure
    figure.axes[0].axhline(100 * target, color="black", linestyle="--", linewidth=1)
    figure.axes[0].annotate(
        f"target {100 * target:g}%", (1, 100 * target), xycoords=("axes fraction", "data"),
        xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=8.5,
    )  # fmt: skip
    return figure


def draw_time_accuracy(results: Results) -> Figure:
    """Total time against overall accuracy, every cutoff (task 1b)."""
    figure, axes = new_panels()
    rows = sweep_rows_of(results, "test", exit=0)
    draw_curve(axes, rows, "seconds", DARK, "-", f"every cutoff ({_predicted(results)})")
    if hasattr(results, "verification"):
        live = _live_cutoffs(results)
        axes.errorbar(
            live["seconds"], 100 * live["correct_live"] / live["n_live"],
            xerr=error_lengths(live["seconds"], live["seconds_low"], live["seconds_high"]),
            fmt="o", color="black", markerfacecolor="none", capsize=2,
            label="live cascade, at the same pace",
        )  # fmt: skip
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "seconds", "accuracy")
    full = _mark_full_network(axes, results)
    axes.set(xlabel=total_time(full["n"], results.unit))
    axes.set(ylabel="overall accuracy [%], 95 % interval")
    axes.set_xlim(0, None)
    axes.legend(loc="lower right")
    return figure


def draw_time_cutoff(results: Results) -> Figure:
    """Total time against the cutoff (task 1b)."""
    figure, axes = new_panels()
    rows = sweep_rows_of(results, "test", exit=0)
    axes.plot(
        rows["cutoff"], rows["seconds"], color=DARK, label=f"every cutoff ({_predicted(results)})"
    )
    if hasattr(results, "verification"):
        live = _live_cutoffs(results)
        axes.errorbar(
            live["cutoff"], live["seconds"],
            yerr=error_lengths(live["seconds"], live["seconds_low"], live["seconds_high"]),
            fmt="o", color="black", markerfacecolor="none", capsize=2,
            label="measured live, at the same pace",
        )  # fmt: skip
    full = full_network(results, "test")
    axes.axhline(full["seconds"], color=LIGHT, linestyle="--", label="full network (predicted)")
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "cutoff", "seconds")
    axes.set(ylabel=total_time(full["n"], results.unit), ylim=(0, None))
    _over_cutoffs(axes, results)
    axes.legend()
    return figure


def draw_accuracy_cutoff(results: Results) -> Figure:
    """Overall accuracy against the cutoff (task 1b)."""
    figure, axes = new_panels()
    for split, color, line in (("val", LIGHT, "--"), ("test", DARK, "-")):
        draw_curve(axes, sweep_rows_of(results, split, exit=0), "cutoff", color, line, split)
    full = full_network(results, "test")
    axes.axhline(100 * full["accuracy"], color="black", linestyle=":", label="full network, test")
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "cutoff", "accuracy")
    axes.set(ylabel="overall accuracy [%], 95 % interval")
    _over_cutoffs(axes, results)
    axes.legend()
    return figure


def draw_exit_shares(results: Results) -> Figure:
    """Share of test samples that leave at each exit against the cutoff (task 1b)."""
    figure, axes = new_panels()
    rows = results.sweep[(results.sweep["split"] == "test") & (results.sweep["exit"] > 0)]
    counts = rows.pivot(index="cutoff", columns="exit", values="n")
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    exits = len(shares.columns)
    greys = mpl.colormaps["cividis"](np.linspace(0.05, 0.95, exits))
    labels = [f"exit {k}" for k in range(1, exits)] + [f"final exit {exits}"]
    axes.stackplot(
        shares.index, shares.T, colors=greys, labels=labels, edgecolor="white", linewidth=0.5
    )
    for name, x in _cutoffs(results).items():
        axes.axvline(x, color="black", linestyle="--" if name == "report_cutoff" else "-.")
        axes.annotate(
            f"{MARKS[name][1]} {x:.2f}", (x, 100), xytext=(3, 3 if name == "best_cutoff" else 13),
            textcoords="offset points", fontsize=8.5, annotation_clip=False,
        )  # fmt: skip
    axes.set(ylabel="test samples leaving at each exit [%]")
    _over_cutoffs(axes, results)
    axes.set(xlim=(shares.index.min(), shares.index.max()), ylim=(0, 100))
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_targets(results: Results) -> Figure:
    """Time against accuracy over the wanted accuracies, calibrated on train and val (task 2b)."""
    figure, axes = new_panels()
    shared = sweep_rows_of(results, "test", exit=0)
    axes.plot(shared["seconds"], 100 * shared["accuracy"], color=LIGHT, label="one shared cutoff")
    styles = {"train": (MIDDLE, "--", "^"), "val": (DARK, "-", "v")}
    for split, (color, line, marker) in styles.items():
        if split not in results.scores:  # own logits may have no train split
            continue
        rows = calibration_rows_of(results, "test", calibrated_on=split, exit=0)
        _error_bars(axes, rows, rows["seconds"], color, marker, f"calibrated on {split}", line)
    _mark(axes, results, ["target", "best_train"], "seconds", "accuracy")
    full = _mark_full_network(axes, results)
    axes.set(xlabel=total_time(full["n"], results.unit) + ", predicted", xlim=(0, None))
    axes.set(ylabel="overall accuracy [%], 95 % interval")
    axes.legend(loc="lower right")
    return figure


def _by_exit(results: Results, rows_by_split: dict[str, pd.DataFrame], title: str) -> Figure:
    """Two panels: accuracy of those who leave at each exit, and seconds of each stage."""
    figure, (left, right) = new_panels(1, 2, figsize=(8.4, 3.8))
    styles = {"val": (LIGHT, "v", -0.12), "test": (DARK, "o", 0.0)}
    for split, rows in rows_by_split.items():
        exits = rows[rows["exit"] > 0]
        color, marker, shift = styles[split]
        _error_bars(left, exits, exits["exit"] + shift, color, marker, split, "none")
    test = rows_by_split["test"]
    exits = test[test["exit"] > 0]
    samples = int(test.loc[test["exit"] == 0, "n"].iloc[0])
    for k, n, high in zip(exits["exit"], exits["n"], exits["high"].fillna(0), strict=True):
        left.annotate(
            f"{n / samples:.0%}", (k, 100 * high), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=8.5,
        )  # fmt: skip
    bars = right.bar(exits["exit"], exits["seconds"], color=DARK, width=0.6)
    right.bar_label(bars, fmt="%.2g", fontsize=8.5)
    left.set(xlabel="exit", ylabel="accuracy of those who leave [%], 95 % interval")
    left.set_title("labels: share of test samples", fontsize=8.5, loc="left")
    right.set(xlabel="stage (block, head, decision, removal)")
    right.set(ylabel=f"predicted {cost_word(results.unit)}, test [{in_text(results.unit)}]")
    for axes in (left, right):
        axes.set_xticks(exits["exit"])
        axes.set_xlim(0.5, exits["exit"].max() + 0.5)  # also where few exits have samples
    if len(rows_by_split) > 1:
        left.legend(loc="lower left")
    figure.suptitle(title, fontsize=10)
    return figure


def _error_bars(
    axes: Axes, rows: pd.DataFrame, x: pd.Series, color: str, marker: str, label: str, line: str
) -> None:
    rows, x = rows[rows["n"] > 0], x[rows["n"] > 0]
    accuracy = 100 * rows["accuracy"]
    axes.errorbar(
        x, accuracy, yerr=[accuracy - 100 * rows["low"], 100 * rows["high"] - accuracy],
        fmt=marker, color=color, linestyle=line, linewidth=1, markersize=5, capsize=2, label=label,
    )  # fmt: skip


def _mark(axes: Axes, results: Results, names: list[str], x: str, y: str) -> None:
    for name in names:
        rows = policy_rows(results, name, "test")
        overall = rows[rows["exit"] == 0]
        if len(overall):
            marker, label = MARKS[name]
            height = overall[y] * (100 if y == "accuracy" else 1)
            if (results.about[name]["origin"] or {}).get("calibrated_on") == "val_half":
                label = label.replace("train-calibrated", "calibrated on half of val")
            axes.plot(
                overall[x], height, marker, color=MIDDLE, markeredgecolor="black", markersize=11,
                linestyle="none", label=f"{label}{_detail(results, name)}", zorder=5,
            )  # fmt: skip


def _detail(results: Results, name: str) -> str:
    origin = results.about[name]["origin"]
    return f" {origin['cutoff']:.3g}" if "cutoff" in origin else f" {100 * origin['target']:g}%"


def _mark_full_network(axes: Axes, results: Results) -> dict[str, float]:
    full = full_network(results, "test")
    spread = [[100 * (full["accuracy"] - full["low"])], [100 * (full["high"] - full["accuracy"])]]
    axes.errorbar(
        full["seconds"], 100 * full["accuracy"], yerr=spread, fmt="X", color="black", markersize=8,
        capsize=2, label="full network (predicted)",
    )  # fmt: skip
    return full


def _predicted(results: Results) -> str:
    """What a curve of the time model says of itself."""
    if hasattr(results, "verification"):
        return f"predicted {cost_word(results.unit)}"
    return "predicted, nothing run live"


def _cutoffs(results: Results) -> dict[str, float]:
    origins = {name: results.about[name]["origin"] for name in ("report_cutoff", "best_cutoff")}
    return {name: origin["cutoff"] for name, origin in origins.items() if origin}


def _over_cutoffs(axes: Axes, results: Results) -> None:
    """Name the axis of cutoffs, and bend it as the criterion bends their spread."""
    axes.set_xlabel(labelled(results, "cutoff"))
    bend = CRITERIA[results.policies["best"].criterion].bend
    if bend > 1:
        axes.set_xscale("function", functions=(partial(_power, 1 / bend), partial(_power, bend)))
        ticks = np.linspace(0, 1, 6) ** bend
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_xlim(ticks[0], ticks[-1])


def _power(exponent: float, values: np.ndarray) -> np.ndarray:
    """The power of what may lie a little below 0, as an axis's margin does before its limits are
    set."""
    return np.sign(values) * np.abs(values) ** exponent


def _live_cutoffs(results: Results) -> pd.DataFrame:
    """The live runs of shared cutoffs, their measured ``seconds`` brought to the time model's pace:
    the predicted full network over the measured speed-up, and over that of the run's halves."""
    rows = results.verification[~results.verification["chosen"]]
    cutoff = rows[rows["exit"] == 1].set_index("policy")["threshold"]
    overall = rows[rows["exit"] == 0]
    full = overall["seconds_predicted"] * overall["speedup_predicted"]
    return overall.assign(
        cutoff=overall["policy"].map(cutoff),
        seconds=full / overall["speedup_measured"],
        seconds_low=full / overall["speedup_high"],
        seconds_high=full / overall["speedup_low"],
    )
