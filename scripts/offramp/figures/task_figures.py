"""Figures of the tasks: time and accuracy under cutoffs and targets."""

from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from offramp.figures.panels import (
    DARK,
    LIGHT,
    MARKS,
    MIDDLE,
    cost_word,
    draw_curve,
    error_lengths,
    headline,
    in_text,
    name_point,
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
)
from offramp.report.words import accuracy, seconds, signed, target, times
from offramp.scoring.criteria import CRITERIA

# Of 100 % of the height; an area less high has no room for a name.
THIN = 6


def draw_report_cutoff(results: Results) -> Figure:
    """Accuracy and time at each exit under the report cutoff (task 1a)."""
    cutoff = results.about["report_cutoff"]["origin"]["cutoff"]
    rows = policy_rows(results, "report_cutoff", "test")
    figure = _by_exit(results, {"test": rows})
    headline(figure, f"With a cutoff of {cutoff:g}, {_policy_outcome(results, rows)}")
    return figure


def draw_target(results: Results) -> Figure:
    """Accuracy and time at each exit under the calibrated target (task 2a)."""
    origin = results.about["target"]["origin"]
    wanted, joint = target(origin["target"]), origin["method"] == "joint"
    rows = {split: policy_rows(results, "target", split) for split in ("val", "test")}
    figure = _by_exit(results, rows)
    where = "overall" if joint else "at every exit"
    headline(figure, f"With {wanted} wanted {where}, {_policy_outcome(results, rows['test'])}")
    if not joint:  # else nothing is wanted of a single exit
        axes, height = figure.axes[0], 100 * origin["target"]
        axes.axhline(height, color="black", linestyle="--", linewidth=1)
        name_point(axes, axes.get_xlim()[1], height, f"{wanted} wanted", (-2, 6), ha="right")
    return figure


def _policy_outcome(results: Results, rows: pd.DataFrame) -> str:
    """How a policy fares on test data, as half a sentence."""
    overall: Any = rows[rows["exit"] == 0].iloc[0]
    speed = times(overall["speedup"]).removesuffix("x")
    return f"{accuracy(overall)} are right, {speed} times as {_fast(results)}"


def draw_time_accuracy(results: Results) -> Figure:
    """Total time against overall accuracy, every cutoff (task 1b)."""
    figure, axes = new_panels()
    rows = sweep_rows_of(results, "test", exit=0)
    draw_curve(axes, rows, "seconds", DARK, "-", f"every cutoff, {_predicted(results)}; band: 95 %")
    _draw_single_exits(axes, results)
    if hasattr(results, "verification"):
        live = _live_cutoffs(results)
        axes.errorbar(
            live["seconds"], 100 * live["correct_live"] / live["n_live"],
            xerr=error_lengths(live["seconds"], live["seconds_low"], live["seconds_high"]), fmt="o",
            color="black", markerfacecolor="white", markersize=5, capsize=3, linewidth=1,
            label="live runs; bars: the run's two halves",
        )  # fmt: skip
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "seconds", "accuracy", (-8, 10))
    full = _mark_full_network(axes, results)
    axes.set(xlabel=total_time(full["n"], results.unit), ylabel="overall accuracy [%]")
    axes.set_xlim(0, None)
    axes.legend(loc="lower right")
    headline(figure, _best_cutoff(results, full))
    return figure


def _draw_single_exits(axes: Axes, results: Results) -> None:
    """What the same network does without a decision: all samples answered at one exit."""
    overall = results.oracle[results.oracle["exit"] == 0].set_index("exit_rule")
    side = overall[overall.index.str.startswith("exit_")]
    way = pd.concat([side, overall.loc[["full"]]])
    axes.plot(
        way["seconds"], 100 * way["accuracy"], color="black", linestyle=":", linewidth=1,
        marker="d", markersize=4, label="all samples at one exit",
    )  # fmt: skip
    for rule, row in side.iterrows():
        name_point(axes, row["seconds"], 100 * row["accuracy"], str(rule).removeprefix("exit_"),
                   (5, -6))  # fmt: skip


def _best_cutoff(results: Results, full: dict[str, float]) -> str:
    origin = results.about["best_cutoff"]["origin"]
    if not origin:
        return f"No faster cutoff satisfies the rule; in full: {full['accuracy']:.1%} right"
    best = f"The best cutoff, {origin['cutoff']:.3g}:"
    if not hasattr(results, "verification"):
        rows = policy_rows(results, "best_cutoff", "test")
        overall = rows[rows["exit"] == 0].iloc[0]
        lost, speed = overall["accuracy"] - full["accuracy"], times(overall["speedup"])[:-1]
        return f"{best} {speed} times as {_fast(results)}, at {signed(lost)} points"
    rows = results.verification
    live = rows[(rows["policy"] == "best_cutoff") & (rows["exit"] == 0)].iloc[0]
    lost = live["correct_live"] / live["n_live"] - full["accuracy"]
    return f"{best} {live['speedup_measured']:.2f} times as fast live, at {signed(lost)} points"


def draw_time_cutoff(results: Results) -> Figure:
    """Total time against the cutoff (task 1b)."""
    figure, axes = new_panels()
    rows = sweep_rows_of(results, "test", exit=0)
    axes.plot(
        rows["cutoff"], rows["seconds"], color=DARK, label=f"every cutoff, {_predicted(results)}"
    )
    if hasattr(results, "verification"):
        live = _live_cutoffs(results)
        axes.errorbar(
            live["cutoff"], live["seconds"],
            yerr=error_lengths(live["seconds"], live["seconds_low"], live["seconds_high"]), fmt="o",
            color="black", markerfacecolor="white", markersize=5, capsize=3, linewidth=1,
            label="live runs; bars: the run's two halves",
        )  # fmt: skip
    full = full_network(results, "test")
    axes.axhline(full["seconds"], color="black", linestyle="--", linewidth=1)
    axes.set(ylabel=total_time(full["n"], results.unit), ylim=(0, None))
    _over_cutoffs(axes, results)
    end = axes.get_xlim()[1]
    takes = in_text(seconds(full["seconds"], results.unit))
    name_point(axes, end, full["seconds"], f"full network {takes}", (-2, 7))
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "cutoff", "seconds", (8, 9))
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.75))
    headline(figure, _where_faster(rows, full["seconds"], results.unit))
    return figure


def _where_faster(rows: pd.DataFrame, full: float, unit: str) -> str:
    """From which cutoff on the cascade takes less than the full network."""
    faster = "faster" if unit == "s" else "cheaper"
    slow = rows.loc[rows["seconds"] >= full, "cutoff"]
    quick = rows[rows["cutoff"] > (slow.max() if len(slow) else -np.inf)]
    if quick.empty:
        return f"No cutoff makes the cascade {faster} than the full network"
    return (
        f"{faster.capitalize()} than the full network from a cutoff of "
        f"{quick['cutoff'].min():.2g} on, up to {full / rows['seconds'].min():.1f} times"
    )


def draw_accuracy_cutoff(results: Results) -> Figure:
    """Overall accuracy against the cutoff (task 1b)."""
    figure, axes = new_panels()
    ends = {}
    for split, color, line in (("val", LIGHT, "--"), ("test", DARK, "-")):
        rows = ends[split] = sweep_rows_of(results, split, exit=0)
        draw_curve(axes, rows, "cutoff", color, line, f"{split} data; band: 95 %")
    full = full_network(results, "test")
    axes.axhline(100 * full["accuracy"], color="black", linestyle=":", linewidth=1.2)
    axes.set(ylabel="overall accuracy [%]")
    _over_cutoffs(axes, results)
    name_point(
        axes, axes.get_xlim()[1], 100 * full["accuracy"],
        f"full network on test {100 * full['accuracy']:.2f}%", (-2, 7),
    )  # fmt: skip
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "cutoff", "accuracy", (0, -16))
    axes.legend(loc="lower left")
    within = ends["test"]["accuracy"] > full["accuracy"] - 0.01
    reached = ends["test"].loc[within.cummin(), "cutoff"]
    headline(
        figure,
        f"Less than a point is lost up to a cutoff of {reached.max():.2g}"
        if len(reached)
        else "Every cutoff loses more than a point",
    )
    return figure


def draw_exit_shares(results: Results) -> Figure:
    """Share of test samples that leave at each exit against the cutoff (task 1b)."""
    figure, axes = new_panels()
    rows = results.sweep[(results.sweep["split"] == "test") & (results.sweep["exit"] > 0)]
    counts = rows.pivot(index="cutoff", columns="exit", values="n")
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    colors = mpl.colormaps["viridis"](np.linspace(0.1, 0.95, shares.shape[1]))
    axes.stackplot(shares.index, shares.T, colors=colors, edgecolor="white", linewidth=0.8)
    _name_areas(axes, shares, list(_cutoffs(results).values()))
    for name, x in _cutoffs(results).items():
        axes.axvline(x, color="black", linestyle="--" if name == "report_cutoff" else "-.")
        name_point(axes, x, 100, f"{MARKS[name][1]} {x:.3g}",
                   (3, 5 if name == "best_cutoff" else 15))  # fmt: skip
    axes.set(ylabel="test samples leaving at each exit [%]")
    _over_cutoffs(axes, results)
    axes.set(xlim=(shares.index.min(), shares.index.max()), ylim=(0, 100))
    cutoff = results.about["report_cutoff"]["origin"]["cutoff"]
    at_cutoff = shares.loc[cutoff]
    headline(
        figure,
        f"At a cutoff of {cutoff:g}, {at_cutoff.iloc[0]:.0f}% leave at exit 1 and "
        f"{at_cutoff.iloc[-1]:.0f}% stay to the end",
    )
    return figure


def _name_areas(axes: Axes, shares: pd.DataFrame, lines: list[float]) -> None:
    """The name of each exit where its area is the highest, but for the margins and what is near a
    line; in a legend where an area is too thin for it."""
    x = shares.index.to_numpy()
    reach, last = x.max() - x.min(), shares.shape[1]
    free = (x > x.min() + 0.1 * reach) & (x < x.max() - 0.1 * reach)
    for line in lines:
        free &= abs(x - line) > 0.07 * reach
    exits = shares.columns.astype(int)
    names = [f"exit {k}" if k < last else f"final exit {k}" for k in exits]
    if not free.any() or float(shares[free].max().to_numpy().min()) < THIN:
        areas = axes.collections[::-1]
        axes.legend(areas, names[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
        return
    tops = shares.cumsum(axis=1)
    for k, name in zip(exits, names, strict=True):
        widest = shares.loc[free, k].idxmax()
        axes.text(
            widest, tops.loc[widest, k] - shares.loc[widest, k] / 2, name, ha="center", va="center",
            fontsize=8.5, color="white" if k <= 0.6 * last else "black", in_layout=False,
        )  # fmt: skip


def draw_targets(results: Results) -> Figure:
    """Time against accuracy over the wanted accuracies, calibrated on train and val (task 2b)."""
    figure, axes = new_panels()
    shared = sweep_rows_of(results, "test", exit=0)
    axes.plot(
        shared["seconds"], 100 * shared["accuracy"], color=LIGHT, linewidth=4, alpha=0.6,
        label="one shared cutoff",
    )  # fmt: skip
    styles = {"train": (MIDDLE, "--", "^"), "val": (DARK, "-", "v")}
    for split, (color, line, marker) in styles.items():
        if split not in results.scores:  # own logits may have no train split
            continue
        rows = calibration_rows_of(results, "test", calibrated_on=split, exit=0)
        name = f"a target each, calibrated on {split}; bars: 95 %"
        _error_bars(axes, rows, rows["seconds"], color, marker, name, line)
    _mark(axes, results, ["target", "best_train"], "seconds", "accuracy", (9, -11))
    full = _mark_full_network(axes, results)
    axes.set(xlabel=total_time(full["n"], results.unit) + ", predicted", xlim=(0, None))
    axes.set(ylabel="overall accuracy [%]")
    axes.legend(loc="lower right")
    origin = results.about["best_train"]["origin"]
    known = "training data" if "train" in results.scores else "half of val"
    if origin:
        reached = _policy_outcome(results, policy_rows(results, "best_train", "test"))
        headline(figure, f"Best target on {known}, {target(origin['target'])}: {reached}")
    else:
        right = f"{full['accuracy']:.1%} right"
        headline(figure, f"No faster target on {known} satisfies the rule; in full: {right}")
    return figure


def _by_exit(results: Results, rows_by_split: dict[str, pd.DataFrame]) -> Figure:
    """Two panels: accuracy of those who leave at each exit, and seconds of each stage."""
    figure, (left, right) = new_panels(1, 2, figsize=(8.4, 3.8))
    styles = {"val": (LIGHT, "v", -0.15), "test": (DARK, "o", 0.0)}
    for split, rows in rows_by_split.items():
        exits = rows[rows["exit"] > 0]
        color, marker, shift = styles[split]
        name = f"{split} data; bars: 95 %"
        _error_bars(left, exits, exits["exit"] + shift, color, marker, name, "none")
    test = rows_by_split["test"]
    exits = test[test["exit"] > 0]
    samples = int(test.loc[test["exit"] == 0, "n"].iloc[0])
    bars = right.bar(exits["exit"], exits["seconds"], color=DARK, width=0.6)
    right.bar_label(bars, fmt="%.2g", fontsize=8.5, padding=2)
    left.set(ylabel="accuracy of those who leave [%]", xlabel="exit, and who leaves there")
    right.set(xlabel="exit: block, head, decision, removal")
    right.set(ylabel=f"predicted {cost_word(results.unit)}, test data [{in_text(results.unit)}]")
    shares = [f"{k}\n{n / samples:.0%}" for k, n in zip(exits["exit"], exits["n"], strict=True)]
    left.set_xticks(exits["exit"], shares)
    right.set_xticks(exits["exit"], [f"{k}\n" for k in exits["exit"]])  # aligned with the left
    for axes in (left, right):
        axes.set_xlim(0.5, exits["exit"].max() + 0.5)  # also where few exits have samples
        axes.grid(axis="x", visible=False)
    left.legend(loc="lower left", bbox_to_anchor=(0, 0.99), ncols=2, borderaxespad=0)
    return figure


def _error_bars(
    axes: Axes, rows: pd.DataFrame, x: pd.Series, color: str, marker: str, label: str, line: str
) -> None:
    rows, x = rows[rows["n"] > 0], x[rows["n"] > 0]
    right = 100 * rows["accuracy"]
    axes.errorbar(
        x, right, yerr=error_lengths(right, 100 * rows["low"], 100 * rows["high"]),
        fmt=marker, color=color, linestyle=line, linewidth=1, markersize=5, capsize=2, label=label,
    )  # fmt: skip


def _mark(
    axes: Axes, results: Results, names: list[str], x: str, y: str, shift: tuple[float, float]
) -> None:
    """Chosen policies on test data, each with its name beside it; above it where the name of one
    before would be in the way."""
    named: list[tuple[float, float]] = []
    for name in names:
        rows = policy_rows(results, name, "test")
        overall = rows[rows["exit"] == 0]
        if len(overall):
            marker, label = MARKS[name]
            if (results.about[name]["origin"] or {}).get("calibrated_on") == "val_half":
                label = label.replace("train-calibrated", "calibrated on half of val")
            place = float(overall[x].iloc[0])
            height = float(overall[y].iloc[0]) * (100 if y == "accuracy" else 1)
            axes.plot(
                place, height, marker, color=MIDDLE, markeredgecolor="black", markersize=11,
                linestyle="none", zorder=5,
            )  # fmt: skip
            how = {} if shift[0] else {"ha": "center"}
            axes.autoscale_view()  # else the limits are those before anything was drawn
            # In points, a name being about 110 wide and 10 high.
            spot = axes.transData.transform((place, height)) * 72 / axes.figure.dpi
            crowded = any(abs(spot[0] - x) < 110 and abs(spot[1] - y) < 10 for x, y in named)
            named.append(tuple(spot))
            aside = (shift[0], -shift[1]) if crowded else shift
            name_point(axes, place, height, f"{label}{_detail(results, name)}", aside, **how)


def _detail(results: Results, name: str) -> str:
    origin = results.about[name]["origin"]
    return f" {origin['cutoff']:.3g}" if "cutoff" in origin else f" {target(origin['target'])}"


def _mark_full_network(axes: Axes, results: Results) -> dict[str, float]:
    full = full_network(results, "test")
    spread = [[100 * (full["accuracy"] - full["low"])], [100 * (full["high"] - full["accuracy"])]]
    axes.errorbar(
        full["seconds"], 100 * full["accuracy"], yerr=spread, fmt="X", color="black", markersize=8,
        capsize=2,
    )  # fmt: skip
    name_point(axes, full["seconds"], 100 * full["accuracy"], "full network", (0, 15), ha="center")
    return full


def _predicted(results: Results) -> str:
    """What a curve of the time model says of itself."""
    if hasattr(results, "verification"):
        return f"predicted {cost_word(results.unit)}"
    return f"predicted {cost_word(results.unit)}, nothing run live"


def _fast(results: Results) -> str:
    """What a policy is that takes less, in time or in what the user gave as costs."""
    return "fast" if results.unit == "s" else "cheap"


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
