"""Figures asked for by name: training, baselines, criteria, promises, benchmarks."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from offramp.common.intervals import interval
from offramp.figures.panels import (
    DARK,
    LIGHT,
    MIDDLE,
    cost_word,
    draw_curve,
    headline,
    in_text,
    name_point,
    new_panels,
    total_time,
)
from offramp.report.bench_page import curve_points, prediction_errors
from offramp.report.coverage_page import beyond_chance
from offramp.report.frontiers_page import CHOSEN_IN_WORDS, name_of
from offramp.report.results import (
    Results,
)

# Of a percentage point lost, which is where ways to choose are compared.
HALF = 0.5
# Down to so much below the highest accuracy are curves over multiply-adds shown.
DEPTH = 0.14


def draw_training(results: Results) -> Figure:
    """Loss and validation accuracy of every exit over the epochs."""
    curves = results.training
    figure, (left, right) = new_panels(1, 2, figsize=(8.4, 3.8))
    last = int(curves["exit"].max())
    shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.0, last))
    ends = {}
    for k in range(1, last + 1):
        rows = curves[curves["exit"] == k].sort_values("epoch")
        how = {"color": shades[k - 1], "label": f"exit {k}" if k < last else f"final exit {k}"}
        how["marker"] = "o" if len(rows) == 1 else ""  # an only epoch is no line
        left.plot(rows["epoch"], rows["loss"], **how)
        right.plot(rows["epoch"], 100 * rows["val_accuracy"], **how)
        ends[k] = rows["val_accuracy"].iloc[-1]
    left.set(xlabel="epoch", ylabel="cross-entropy, training images [nats]", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="accuracy, validation images [%]")
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    first = f", exit 1 {ends[1]:.1%}" if last > 1 else ""
    headline(
        figure, f"At the end the final exit is {ends[last]:.1%} right on validation data{first}"
    )
    return figure


def draw_baseline(results: Results) -> Figure:
    """Time against accuracy of cascade, full network and baseline, interleaved; behind them the
    sweep."""
    baseline, sweep = results.baseline, results.sweep
    figure, axes = new_panels()
    shared = sweep[(sweep["split"] == "test") & (sweep["exit"] == 0)]
    axes.plot(
        shared["seconds"], 100 * shared["accuracy"], color=LIGHT, label="cascade, every cutoff"
    )
    styles = {
        "cascade": ("P", MIDDLE, "cascade, best policy"),
        "full": ("X", "black", "full network"),
        "baseline": ("s", DARK, "plain network, no side exits"),
    }
    measured = {}
    for name, (marker, color, label) in styles.items():
        rows = baseline[baseline["network"] == name]
        correct, n = int(rows["correct"].to_numpy()[0]), int(rows["n"].to_numpy()[0])
        low, high = interval(correct, n)
        runs, accuracy = rows["seconds"].to_numpy(), correct / n
        seconds = float(np.median(runs))
        measured[name] = f"{accuracy:.2%} right in {seconds:.2f} s"
        axes.errorbar(
            seconds, 100 * accuracy, fmt=marker, color=color, markersize=8, capsize=2,
            xerr=[[seconds - runs.min()], [runs.max() - seconds]],
            yerr=[[100 * (accuracy - low)], [100 * (high - accuracy)]],
        )  # fmt: skip
        name_point(axes, seconds, 100 * accuracy, label, (10, -9), color=color)
    axes.set(xlabel=total_time(n), ylabel="overall accuracy [%]; bars: 95 %", xlim=(0, None))
    axes.legend(loc="lower right")
    headline(figure, f"Cascade: {measured['cascade']}; plain network: {measured['baseline']}")
    return figure


def draw_coverage(results: Results) -> Figure:
    """How often each promise was broken, against how often it may be, by the number of samples."""
    rows = results.coverage[~results.coverage["stated"].isna()]
    promises = list(dict.fromkeys(rows["promise"]))
    columns = 3
    figure, panels = new_panels(
        -(-len(promises) // columns), columns, figsize=(8.4, 2.1 * -(-len(promises) // columns)),
        sharex=True, squeeze=False,
    )  # fmt: skip
    for axes, promise in zip(panels.flat, promises, strict=False):
        promised = rows[rows["promise"] == promise]
        for _, line in promised.groupby("population", sort=False):
            axes.plot(line["n"], 100 * line["rate"], color=MIDDLE, marker=".", linewidth=0.8)
        stated = 100 * promised["stated"].iloc[0]
        axes.axhline(stated, color="black", linestyle=":")
        axes.set_title(promise, fontsize=8.5, loc="left")
        axes.set(xscale="log", ylim=(0, max(1.5 * stated, 105 * promised["rate"].max())))
    for axes in panels.flat[len(promises) :]:
        axes.axis("off")
    figure.supylabel("broken [% of draws]; dotted: may be broken", fontsize=9.5)
    figure.supxlabel("samples", fontsize=9.5)
    records: Any = rows.to_dict("records")
    more = len(beyond_chance(records))
    headline(figure, f"{more or 'None'} of {len(rows)} rates above what is promised, beyond chance")
    return figure


def draw_frontier(tables: Mapping[str, Any]) -> Figure:
    """Time against accuracy of entropy policies, by way to choose thresholds; from the frontiers
    table."""
    figure, axes = new_panels()
    rows = tables["frontiers"]
    rows = rows[(rows["criterion"] == "entropy") & ~rows["scaled"]]
    styles = {"shared": (LIGHT, "--"), "empirical": (MIDDLE, "-."), "joint": (DARK, "-")}
    for method, (color, line) in styles.items():
        curve = rows[rows["method"] == method].sort_values("seconds")
        curve = curve.rename(columns={"accuracy_low": "low", "accuracy_high": "high"})
        draw_curve(axes, curve, "seconds", color, line, CHOSEN_IN_WORDS[method])
    best = 100 * rows["accuracy"].max()
    shown = rows.loc[100 * rows["accuracy"] > best - 6, "seconds"]
    axes.set(
        xlabel=total_time(rows["n"].iloc[0], tables["unit"]) + ", predicted",
        xlim=(0.95 * shown.min(), 1.02 * shown.max()),
        ylim=(best - 6, best + 1),
    )
    axes.set(ylabel="overall accuracy [%], 95 % interval")
    axes.legend(loc="lower right")
    equal = tables["equal_accuracy"]
    equal = equal[(equal["criterion"] == "entropy") & ~equal["scaled"]]
    half = equal[equal["points_lost"] == HALF].set_index("method")["speedup"].dropna()
    speedups = [f"{CHOSEN_IN_WORDS[m]} {half[m]:.2f}" for m in reversed(styles) if m in half]
    headline(figure, f"Speed-ups at half a point lost: {', '.join(speedups) or 'none reached'}")
    return figure


def draw_criteria(tables: Mapping[str, Any]) -> Figure:
    """Seconds at half a point lost, by criterion and method; from the equal-accuracy table."""
    rows = tables["equal_accuracy"]
    rows = rows[rows["points_lost"] == HALF]
    names = list(dict.fromkeys(name_of(row) for row in rows.to_dict("records")))
    figure, axes = new_panels()
    styles = {
        "shared": ("o", LIGHT, 0.2),
        "empirical": ("^", MIDDLE, 0.0),
        "joint": ("s", DARK, -0.2),
    }
    for method, (marker, color, shift) in styles.items():
        of_method = rows[(rows["method"] == method) & rows["seconds"].notna()]
        heights = [names.index(name_of(row)) + shift for row in of_method.to_dict("records")]
        # No error bars: of a crooked curve the interval need not hold the value.
        axes.hlines(heights, of_method["seconds_low"], of_method["seconds_high"], color=color)
        axes.plot(
            of_method["seconds"], heights, marker, color=color, markersize=5,
            label=CHOSEN_IN_WORDS[method],
        )  # fmt: skip
    full = (rows["seconds"] * rows["speedup"]).dropna()
    if len(full):
        axes.axvline(full.iloc[0], color="black", linestyle=":", label="full network")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    what = f"{cost_word(tables['unit'])} at 0.5 points lost [{in_text(tables['unit'])}]"
    axes.set(xlabel=f"predicted {what}, 95 % interval")
    figure.legend(loc="outside lower center", ncols=4)
    finding = "At half a point lost, no thresholds were found"
    if rows["speedup"].notna().any():
        best: Any = rows.loc[rows["speedup"].idxmax()]
        finding = (
            f"The fastest at half a point lost: {name_of(best)}, {CHOSEN_IN_WORDS[best['method']]}"
        )
        finding += f", {best['speedup']:.2f} times as fast"
    headline(figure, finding)
    return figure


def draw_benchmarks(rows: pd.DataFrame) -> Figure:
    """Predicted over measured speed-ups of held-out policies, by batch size and way to predict."""
    errors = prediction_errors(rows[rows["benchmark"] == "time model"])
    sizes = list(dict.fromkeys(errors["batch_size"]))
    figure, panels = new_panels(1, len(sizes), sharey=True, squeeze=False)
    marks = {
        "time model of the pipeline": ("o", DARK, "pipe-\nline's\nmodel"),
        "time model, probed between the runs": ("o", MIDDLE, "probed\nin be-\ntween"),
        "constant per exit": ("s", MIDDLE, "con-\nstant\nper exit"),
        "multiply-adds": ("^", LIGHT, "mul-\ntiply-\nadds"),
    }
    for axes, size in zip(panels[0], sizes, strict=True):
        for place, (name, (mark, color, _)) in enumerate(marks.items()):
            contender = errors[(errors["batch_size"] == size) & (errors["contender"] == name)]
            spots = place + np.linspace(-0.25, 0.25, len(contender))
            axes.plot(spots, 100 * contender["error"], mark, color=color, markersize=4)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(marks)), [label for *_, label in marks.values()], fontsize=7)
        axes.set_title(f"batch size {int(size)}", fontsize=10)
    panels[0, 0].set_ylabel("predicted over measured speed-up, error [%]")
    off = errors.assign(error=errors["error"].abs()).groupby("contender")["error"].median()
    medians = [f"{name} {off[name]:.1%}" for name in marks if name in off]
    headline(figure, "Speed-ups are off, in the median: " + ", ".join(medians))
    return figure


def draw_multiply_adds(rows: pd.DataFrame) -> Figure:
    """Accuracy over multiply-adds: left of every exit at which all answer, right of cascades; and
    of what others publish, as far as it is of that kind or without exits."""
    curves = curve_points(rows[rows["benchmark"] == "multiply-adds"])
    figure, (left, right) = new_panels(1, 2, figsize=(8.4, 4.4), sharex=True, sharey=True)
    both = (left, right)
    others: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": ":"}
    others |= {"markerfacecolor": "white", "markersize": 5}
    styles: dict[str, tuple[tuple, str, dict[str, Any]]] = {
        "anytime": ((left,), "every exit", {"color": DARK, "marker": "o"}),
        "budgeted, joint of deferral": ((right,), "joint of deferral", {"color": DARK}),
        "budgeted, joint of entropy": (
            (right,), "joint of entropy", {"color": MIDDLE, "linestyle": "--"}),
        "budgeted, geometric shares": (
            (right,), "geometric shares", {"color": LIGHT, "linestyle": "-."}),
        "MSDNet, published": ((right,), "MSDNet", others | {"marker": "^"}),
        "L2W-DEN, published": ((right,), "L2W-DEN", others | {"marker": "v"}),
        "ResNet, published": (both, "ResNet", others | {"marker": "s"}),
        "MobileNetV2, published": (both, "MobileNetV2", others | {"marker": "D"}),
    }  # fmt: skip
    # What others publish is named at this end of its line, so far from it, where no curve comes.
    places = {
        "MSDNet, published": (0, (-7, -3), "right"),
        "L2W-DEN, published": (-1, (0, 9), "center"),
        "ResNet, published": (-1, (0, 9), "center"),
        "MobileNetV2, published": (-1, (0, 9), "center"),
    }
    for name, (panels, label, how) in styles.items():
        if name in curves:
            along, height = curves[name]["multiply-adds"] / 1e6, 100 * curves[name]["accuracy"]
            for axes in panels:
                axes.plot(along, height, label="" if name in places else label, **how)
                if name in places:
                    end, shift, side = places[name]
                    name_point(axes, along.iloc[end], height.iloc[end], label, shift, ha=side)
    every = pd.concat(curves.values())
    shown = every[every["accuracy"] >= every["accuracy"].max() - DEPTH]
    accuracy, spent = 100 * shown["accuracy"], shown["multiply-adds"] / 1e6
    left.set(ylim=(accuracy.min() - 0.3, accuracy.max() + 0.8), ylabel="accuracy, test images [%]")
    left.set(xlim=(0.8 * spent.min(), 1.4 * spent.max()), xscale="log")
    for axes, title in ((left, "anytime prediction"), (right, "budgeted batch classification")):
        axes.set_title(title, loc="left")
        axes.set_xlabel("multiply-adds an image [million]")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.minorticks_off()
        axes.legend(loc="lower right")
    full, best = curves["anytime"].iloc[-1], curves["budgeted, joint of deferral"]
    near = best[best["accuracy"] >= full["accuracy"] - 0.005].iloc[0]
    headline(
        figure,
        f"{near['accuracy']:.1%} at {near['multiply-adds'] / 1e6:.3g} million multiply-adds, "
        f"{full['accuracy']:.1%} through all exits at {full['multiply-adds'] / 1e6:.3g}",
    )
    return figure
