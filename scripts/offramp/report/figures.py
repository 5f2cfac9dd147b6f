"""Every figure, from the tables; one function each, readable in grey, the same bytes each time."""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from offramp.common.intervals import interval
from offramp.report.bench_page import prediction_errors
from offramp.report.frontiers_page import CHOSEN_IN_WORDS, name_of
from offramp.report.results import (
    EXIT_RULES,
    Results,
    calibration_rows_of,
    class_names,
    full_network,
    labelled,
    leaving_counts,
    policy_rows,
    sweep_rows_of,
    unit_of,
)
from offramp.scoring.criteria import CRITERIA

STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.figsize": (6.4, 4.2),
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "offramp",
}
DARK, MIDDLE, LIGHT = "#12355b", "#c8553d", "#9aa0a6"
# How each chosen policy is marked, everywhere.
MARKS = {
    "report_cutoff": ("o", "report cutoff"),
    "best_cutoff": ("*", "best cutoff"),
    "target": ("s", "calibrated target"),
    "best_train": ("D", "best train-calibrated"),
    "best": ("P", "best of all"),
}


def draw(path: str | Path, results: Any) -> None:
    """Draw the figure named by the path's stem, as SVG and as PNG beside it; ``results`` is what
    its function draws from, a `Results` with the tables that it needs, or tables themselves."""
    path = Path(path)
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure = globals()[f"draw_{path.stem}"](results)
        # Once for both files: as the figure's own it would draw each a second time.
        ConstrainedLayoutEngine().execute(figure)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})


def draw_report_cutoff(results: Results) -> Figure:
    """Accuracy and time at each exit under the report cutoff (task 1a)."""
    cutoff = results.about["report_cutoff"]["origin"]["cutoff"]
    rows = policy_rows(results, "report_cutoff", "test")
    return _by_exit({"test": rows}, f"shared cutoff c = {cutoff:g} {unit_of(results)}")


def draw_target(results: Results) -> Figure:
    """Accuracy and time at each exit under the calibrated target (task 2a)."""
    origin = results.about["target"]["origin"]
    target, where = origin["target"], "overall" if origin["method"] == "joint" else "at every exit"
    rows = {split: policy_rows(results, "target", split) for split in ("val", "test")}
    figure = _by_exit(rows, f"thresholds calibrated on val for {100 * target:g}% {where}")
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
    figure, axes = _panels()
    rows = sweep_rows_of(results, "test", exit=0)
    _curve(axes, rows, "seconds", DARK, "-", "every cutoff (predicted time)")
    live = _live_cutoffs(results)
    axes.errorbar(
        live["seconds"], 100 * live["correct_live"] / live["n_live"],
        xerr=_spread(live["seconds"], live["seconds_low"], live["seconds_high"]), fmt="o",
        color="black", markerfacecolor="none", capsize=2, label="live cascade, at the same pace",
    )  # fmt: skip
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "seconds", "accuracy")
    full = _mark_full_network(axes, results)
    axes.set(xlabel=_total_time(full["n"]), ylabel="overall accuracy [%], 95 % interval")
    axes.set_xlim(0, None)
    axes.legend(loc="lower right")
    return figure


def draw_time_cutoff(results: Results) -> Figure:
    """Total time against the cutoff (task 1b)."""
    figure, axes = _panels()
    rows = sweep_rows_of(results, "test", exit=0)
    axes.plot(rows["cutoff"], rows["seconds"], color=DARK, label="predicted from the tables")
    live = _live_cutoffs(results)
    axes.errorbar(
        live["cutoff"], live["seconds"],
        yerr=_spread(live["seconds"], live["seconds_low"], live["seconds_high"]), fmt="o",
        color="black", markerfacecolor="none", capsize=2, label="measured live, at the same pace",
    )  # fmt: skip
    full = full_network(results, "test")
    axes.axhline(full["seconds"], color=LIGHT, linestyle="--", label="full network (predicted)")
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "cutoff", "seconds")
    axes.set(ylabel=_total_time(full["n"]), ylim=(0, None))
    _over_cutoffs(axes, results)
    axes.legend()
    return figure


def draw_accuracy_cutoff(results: Results) -> Figure:
    """Overall accuracy against the cutoff (task 1b)."""
    figure, axes = _panels()
    for split, color, line in (("val", LIGHT, "--"), ("test", DARK, "-")):
        _curve(axes, sweep_rows_of(results, split, exit=0), "cutoff", color, line, split)
    full = full_network(results, "test")
    axes.axhline(100 * full["accuracy"], color="black", linestyle=":", label="full network, test")
    _mark(axes, results, ["report_cutoff", "best_cutoff"], "cutoff", "accuracy")
    axes.set(ylabel="overall accuracy [%], 95 % interval")
    _over_cutoffs(axes, results)
    axes.legend()
    return figure


def draw_exit_shares(results: Results) -> Figure:
    """Share of test samples that leave at each exit against the cutoff (task 1b)."""
    figure, axes = _panels()
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
    figure, axes = _panels()
    shared = sweep_rows_of(results, "test", exit=0)
    axes.plot(shared["seconds"], 100 * shared["accuracy"], color=LIGHT, label="one shared cutoff")
    styles = {"train": (MIDDLE, "--", "^"), "val": (DARK, "-", "v")}
    for split, (color, line, marker) in styles.items():
        rows = calibration_rows_of(results, "test", calibrated_on=split, exit=0)
        _error_bars(axes, rows, rows["seconds"], color, marker, f"calibrated on {split}", line)
    _mark(axes, results, ["target", "best_train"], "seconds", "accuracy")
    full = _mark_full_network(axes, results)
    axes.set(xlabel=_total_time(full["n"]) + ", predicted", xlim=(0, None))
    axes.set(ylabel="overall accuracy [%], 95 % interval")
    axes.legend(loc="lower right")
    return figure


def draw_reliability(results: Results) -> Figure:
    """How often each exit is right when it is so and so sure, raw and with its temperature."""
    rows = results.reliability[results.reliability["split"] == "test"]
    exits = sorted(rows["exit"].unique())
    columns = min(3, len(exits))
    figure, panels = _panels(
        -(-len(exits) // columns), columns, figsize=(8.4, 2.6 * -(-len(exits) // columns)),
        sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    styles = {False: (MIDDLE, "o", "--", "raw"), True: (DARK, "s", "-", "with temperature")}
    for axes, k in zip(panels.flat, exits, strict=False):
        axes.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
        title = f"exit {k}, T = {results.temperatures['temperature'].iloc[k - 1]:.2f}"
        for scaled, (color, marker, line, label) in styles.items():
            here = rows[(rows["exit"] == k) & (rows["scaled"] == scaled)]
            bins, overall = here[here["bin"] > 0], here[here["bin"] == 0].iloc[0]
            axes.plot(
                100 * bins["confidence"], 100 * bins["correct"] / bins["n"], marker,
                linestyle=line, color=color, markersize=3.5, linewidth=1, label=label,
            )  # fmt: skip
            title += f"\n{label}: ECE {100 * overall['ece']:.1f}"
        axes.set_title(title, fontsize=8.5)
        axes.tick_params(labelbottom=k + columns > len(exits))
    low = 100 * min(0.9, rows.loc[rows["bin"] > 0, "confidence"].min())
    panels[0, 0].set(xlim=(low, 101), ylim=(0.8 * low, 101))
    for axes in panels.flat[len(exits) :]:
        axes.set_visible(False)
    figure.supxlabel("confidence: largest probability [%], 15 bins of equally many", fontsize=10)
    figure.supylabel("accuracy on test data [%]", fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def draw_entropy(results: Results) -> Figure:
    """The criterion's score at each exit, for right and wrong answers."""
    figure, axes = _panels()
    scores, correct = results.scores["test"]
    like = results.policies["best"]
    for right, shift, color, hatch in ((True, -0.18, "white", ""), (False, 0.18, LIGHT, "///")):
        values = [scores[correct[:, k] == right, k] for k in range(scores.shape[1])]
        boxes = axes.boxplot(
            values, positions=np.arange(1, len(values) + 1) + shift, widths=0.3, whis=(5, 95),
            showfliers=False, patch_artist=True, medianprops={"color": "black", "linewidth": 2},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set(facecolor=color, hatch=hatch)
        boxes["boxes"][0].set_label("right answers" if right else "wrong answers")
    axes.axhline(
        results.about["report_cutoff"]["origin"]["cutoff"], color="black", linestyle="--",
        label="report cutoff",
    )  # fmt: skip
    axes.set_xticks(range(1, scores.shape[1] + 1), [str(k + 1) for k in range(scores.shape[1])])
    name = like.criterion.replace("_", " ") + (", scaled logits" if like.temperatures else "")
    axes.set(xlabel="exit (all test samples at every exit)", ylabel=labelled(results, name))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.15 * (high - low))
    axes.legend(ncols=3, loc="upper center")
    return figure


def draw_prediction(results: Results) -> Figure:
    """Predicted against measured total time, and speed-up, of every verified policy."""
    figure, panels = _panels(1, 2)
    rows = results.verification[results.verification["exit"] == 0]
    for axes, what, unit in zip(
        panels, ("seconds", "speedup"), ("total time [s]", "speed-up"), strict=True
    ):
        top = 1.1 * max(rows[f"{what}_predicted"].max(), rows[f"{what}_measured"].max())
        axes.plot([0, top], [0, top], color="black", linewidth=1, label="equal")
        axes.fill_between(
            [0, top], [0, 0.9 * top], [0, 1.1 * top], color=LIGHT, alpha=0.3, label="within 10 %"
        )
        others = rows[~rows["chosen"]]
        _measured(axes, others, what, "o", "none", "shared cutoffs")
        for _, row in rows[rows["chosen"]].iterrows():
            marker, label = MARKS[row["policy"]]
            _measured(axes, row.to_frame().T, what, marker, MIDDLE, label)
        axes.set(xlabel=f"predicted {unit}", ylabel=f"measured {unit}")
        axes.set(xlim=(0, top), ylim=(0, top))
    panels[0].legend(loc="lower right", fontsize=7)
    return figure


def _measured(
    axes: Axes, rows: pd.DataFrame, what: str, marker: str, fill: str, label: str
) -> None:
    """Measured over predicted, speed-ups with the spread of the run's halves."""
    values = rows[f"{what}_measured"]
    spread = None
    if what == "speedup":
        spread = _spread(values, rows["speedup_low"], rows["speedup_high"])
    axes.errorbar(
        rows[f"{what}_predicted"], values, yerr=spread, fmt=marker, color="black", capsize=2,
        linewidth=1, markerfacecolor=fill, label=label,
    )  # fmt: skip


def _spread(values: pd.Series, low: pd.Series, high: pd.Series) -> np.ndarray:
    """What matplotlib wants of error bars: distances down and up, none below 0."""
    return np.maximum(np.array([values - low, high - values], dtype=float), 0)


def draw_leaving(results: Results) -> Figure:
    """How many of each class leave at each exit under the best policy, classes that leave early
    on top."""
    figure, axes = _panels()
    names, counts = class_names(results), leaving_counts(results).sum(axis=2).T
    exits = np.arange(1, counts.shape[1] + 1)
    shares = _shares(counts)
    order = np.argsort(shares @ exits, kind="stable")
    image = _heat_map(axes, shares[order], counts[order])
    axes.set_yticks(range(len(names)), [names[c] for c in order])
    axes.set_xticks(exits - 1, [f"{k}\n{n:,}" for k, n in zip(exits, counts.sum(0), strict=True)])
    axes.set(xlabel="exit, and how many test samples leave there", ylabel="class")
    figure.colorbar(image, use_gridspec=False, label="share of the class [%]")
    return figure


def draw_confusion(results: Results) -> Figure:
    """True class against predicted label of those who leave at each exit under the best policy."""
    names, counts = class_names(results), leaving_counts(results)
    rows = -(-len(counts) // 3)
    figure, panels = _panels(
        rows, 3, figsize=(10.5, 3.4 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    for axes in panels.flat[len(counts) :]:
        axes.set_axis_off()
    for k, (axes, cells) in enumerate(zip(panels.flat, counts, strict=False), 1):
        _heat_map(axes, _shares(cells), cells, fontsize=6)
        n = cells.sum()
        leave = f"{n:,} leave, {np.trace(cells) / n:.1%} right" if n else "nobody leaves"
        axes.set_title(f"exit {k}: {leave}", fontsize=10)
        # Classes stand below the last panel of a column and left of the first of a row.
        axes.xaxis.set_visible(k + 3 > len(counts))
        axes.tick_params(axis="x", labelrotation=90, labelbottom=True)
        axes.yaxis.set_visible(k % 3 == 1)
    panels[0, 0].set_xticks(range(len(names)), names)  # for all, which share them
    panels[0, 0].set_yticks(range(len(names)), names)
    figure.supxlabel("predicted label", fontsize=10)
    figure.supylabel("class", fontsize=10)
    return figure


def draw_agreement(results: Results) -> Figure:
    """On how many samples two exits say the same, and how often one alone is right."""
    figure, panels = _panels(1, 2, figsize=(8.4, 4.2), sharex=True, sharey=True)
    rows = results.agreement
    exits = range(1, int(rows["first"].max()) + 1)
    titles = {"same_label": "both say the same", "only_first_right": "row right, column wrong"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        shares = rows.assign(share=100 * rows[column] / rows["n"])
        cells = shares.pivot(index="first", columns="second", values="share").to_numpy()
        _heat_map(axes, cells, cells, form="{:.1f}")
        axes.set_title(f"{title} [% of test samples]", fontsize=10)
        axes.set_xticks(range(len(exits)), [str(k) for k in exits])
        axes.set_yticks(range(len(exits)), [str(k) for k in exits])
        axes.set_xlabel("exit")
    panels[0].set_ylabel("exit")
    overall = results.oracle[results.oracle["exit"] == 0].set_index("exit_rule")
    figures = overall.loc[list(EXIT_RULES), ["accuracy", "speedup"]].to_numpy()
    said = [
        f"{label} {accuracy:.2%}, {speedup:.2f}x"
        for label, (accuracy, speedup) in zip(EXIT_RULES.values(), figures, strict=True)
    ]
    figure.suptitle("accuracy and predicted speed-up: " + "; ".join(said), fontsize=10)
    return figure


def draw_training(results: Results) -> Figure:
    """Loss and validation accuracy of every exit over the epochs."""
    curves = results.training
    figure, (left, right) = _panels(1, 2, figsize=(8.4, 3.8))
    last = int(curves["exit"].max())
    shades = mpl.colormaps["cividis"](np.linspace(0.85, 0.0, last))
    for k in range(1, last + 1):
        rows = curves[curves["exit"] == k]
        label = f"exit {k}" if k < last else f"final exit {k}"
        left.plot(rows["epoch"], rows["loss"], color=shades[k - 1], label=label)
        right.plot(rows["epoch"], 100 * rows["val_accuracy"], color=shades[k - 1], label=label)
    left.set(xlabel="epoch", ylabel="cross-entropy, training images [nats]", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="accuracy, validation images [%]")
    final = curves[curves["epoch"] == curves["epoch"].max()]
    right.set_ylim(max(0, 100 * final["val_accuracy"].min() - 25), None)
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw_rival(results: Results) -> Figure:
    """Time against accuracy of cascade, full network and rival, measured in turn; behind them the
    sweep."""
    rival, sweep = results.rival, results.sweep
    figure, axes = _panels()
    shared = sweep[(sweep["split"] == "test") & (sweep["exit"] == 0)]
    axes.plot(
        shared["seconds"], 100 * shared["accuracy"], color=LIGHT, label="cascade, every cutoff"
    )
    styles = {
        "cascade": ("P", MIDDLE, "cascade, best policy"),
        "full": ("X", "black", "full network"),
        "rival": ("s", DARK, "plain network, no side exits"),
    }
    for name, (marker, color, label) in styles.items():
        rows = rival[rival["network"] == name]
        correct, n = int(rows["correct"].to_numpy()[0]), int(rows["n"].to_numpy()[0])
        low, high = interval(correct, n)
        runs, accuracy = rows["seconds"].to_numpy(), correct / n
        seconds = float(np.median(runs))
        axes.errorbar(
            seconds, 100 * accuracy, fmt=marker, color=color, markersize=8, capsize=2, label=label,
            xerr=[[seconds - runs.min()], [runs.max() - seconds]],
            yerr=[[100 * (accuracy - low)], [100 * (high - accuracy)]],
        )  # fmt: skip
    axes.set(xlabel=_total_time(n), ylabel="overall accuracy [%], 95 % interval", xlim=(0, None))
    axes.legend(loc="lower right")
    return figure


def draw_coverage(results: Results) -> Figure:
    """How often each promise was broken, against how often it may be, by the number of samples."""
    rows = results.coverage[~results.coverage["stated"].isna()]
    promises = list(dict.fromkeys(rows["promise"]))
    columns = 3
    figure, panels = _panels(
        -(-len(promises) // columns), columns, figsize=(8.4, 2.1 * -(-len(promises) // columns)),
        sharex=True, squeeze=False,
    )  # fmt: skip
    for axes, promise in zip(panels.flat, promises, strict=False):
        here = rows[rows["promise"] == promise]
        for _, line in here.groupby("population", sort=False):
            axes.plot(line["n"], 100 * line["rate"], color=MIDDLE, marker=".", linewidth=0.8)
        stated = 100 * here["stated"].iloc[0]
        axes.axhline(stated, color="black", linestyle=":")
        axes.set_title(promise, fontsize="small")
        axes.set(xscale="log", ylim=(0, max(1.5 * stated, 105 * here["rate"].max())))
    for axes in panels.flat[len(promises) :]:
        axes.axis("off")
    figure.supylabel("broken [% of draws]; dotted: may be broken", fontsize="medium")
    figure.supxlabel("samples", fontsize="medium")
    return figure


def draw_frontier(tables: dict[str, pd.DataFrame]) -> Figure:
    """Time against accuracy of entropy policies, by way to choose thresholds; from the frontiers
    table."""
    figure, axes = _panels()
    rows = tables["frontiers"]
    rows = rows[(rows["criterion"] == "entropy") & ~rows["scaled"]]
    styles = {"shared": (LIGHT, "--"), "empirical": (MIDDLE, "-."), "joint": (DARK, "-")}
    for method, (color, line) in styles.items():
        curve = rows[rows["method"] == method].sort_values("seconds")
        curve = curve.rename(columns={"accuracy_low": "low", "accuracy_high": "high"})
        _curve(axes, curve, "seconds", color, line, CHOSEN_IN_WORDS[method])
    best = 100 * rows["accuracy"].max()
    axes.set(xlabel=_total_time(rows["n"].iloc[0]) + ", predicted", ylim=(best - 6, best + 1))
    axes.set(ylabel="overall accuracy [%], 95 % interval", xlim=(0, None))
    axes.legend(loc="lower right")
    return figure


def draw_criteria(tables: dict[str, pd.DataFrame]) -> Figure:
    """Seconds at half a point lost, by criterion and method; from the equal-accuracy table."""
    rows = tables["equal_accuracy"]
    rows = rows[rows["points_lost"] == 0.5]
    names = list(dict.fromkeys(name_of(row) for row in rows.to_dict("records")))
    figure, axes = _panels()
    styles = {
        "shared": ("o", LIGHT, 0.2),
        "empirical": ("^", MIDDLE, 0.0),
        "joint": ("s", DARK, -0.2),
    }
    for method, (marker, color, shift) in styles.items():
        here = rows[(rows["method"] == method) & rows["seconds"].notna()]
        heights = [names.index(name_of(row)) + shift for row in here.to_dict("records")]
        # No error bars: of a crooked curve the interval need not hold the value.
        axes.hlines(heights, here["seconds_low"], here["seconds_high"], color=color)
        axes.plot(
            here["seconds"], heights, marker, color=color, markersize=5,
            label=CHOSEN_IN_WORDS[method],
        )  # fmt: skip
    full = (rows["seconds"] * rows["speedup"]).dropna()
    if len(full):
        axes.axvline(full.iloc[0], color="black", linestyle=":", label="full network")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="predicted time at 0.5 points lost [s], 95 % interval", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _panels(
    rows: int = 1, columns: int = 1, figsize: tuple[float, float] | None = None, **shared: Any
) -> tuple[Figure, Any]:
    """A figure of its own, not one of pyplot's, and its axes."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **shared)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Per cent of each row's sum; zeros where a row is empty."""
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _heat_map(
    axes: Axes, shares: np.ndarray, labels: np.ndarray, form: str = "{:,}", fontsize: float = 8.5
) -> AxesImage:
    """Cells shaded by per cent; each says its label where that is not 0."""
    # "none" keeps the SVG's image at one pixel a cell, so it is small and its edges are sharp.
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto", interpolation="none")
    axes.grid(False)
    for row, column in np.argwhere(labels):
        axes.text(
            column, row, form.format(labels[row, column]), ha="center", va="center",
            fontsize=fontsize, color="white" if shares[row, column] > 70 else "black",
            in_layout=False,  # inside its panel, so the layout need not measure it
        )  # fmt: skip
    return image


def _by_exit(rows_by_split: dict[str, pd.DataFrame], title: str) -> Figure:
    """Two panels: accuracy of those who leave at each exit, and seconds of each stage."""
    figure, (left, right) = _panels(1, 2, figsize=(8.4, 3.8))
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
    right.set(xlabel="stage (block, head, decision, removal)", ylabel="predicted time, test [s]")
    for axes in (left, right):
        axes.set_xticks(exits["exit"])
        axes.set_xlim(0.5, exits["exit"].max() + 0.5)  # also where few exits have samples
    if len(rows_by_split) > 1:
        left.legend(loc="lower left")
    figure.suptitle(title, fontsize=10)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, x: str, color: str, line: str, label: str) -> None:
    axes.fill_between(
        rows[x], 100 * rows["low"], 100 * rows["high"], color=color, alpha=0.2, linewidth=0
    )
    axes.plot(rows[x], 100 * rows["accuracy"], color=color, linestyle=line, label=label)


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


def _total_time(samples: float) -> str:
    return f"total time for {samples:,} test samples [s]"


def draw_benchmarks(rows: pd.DataFrame) -> Figure:
    """Predicted over measured speed-ups of held-out policies, by batch size and way to predict."""
    errors = prediction_errors(rows[rows["benchmark"] == "time model"])
    sizes = list(dict.fromkeys(errors["batch_size"]))
    figure, panels = _panels(1, len(sizes), sharey=True, squeeze=False)
    marks = {
        "time model of the pipeline": ("o", DARK, "pipe-\nline's\nmodel"),
        "time model, probed between the runs": ("o", MIDDLE, "probed\nin be-\ntween"),
        "constant per exit": ("s", MIDDLE, "con-\nstant\nper exit"),
        "multiply-adds": ("^", LIGHT, "mul-\ntiply-\nadds"),
    }
    for axes, size in zip(panels[0], sizes, strict=True):
        for place, (name, (mark, color, _)) in enumerate(marks.items()):
            here = errors[(errors["batch_size"] == size) & (errors["contender"] == name)]
            spots = place + np.linspace(-0.25, 0.25, len(here))
            axes.plot(spots, 100 * here["error"], mark, color=color, markersize=4)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(len(marks)), [label for *_, label in marks.values()], fontsize=7)
        axes.set_title(f"batch size {int(size)}", fontsize=10)
    panels[0, 0].set_ylabel("predicted over measured speed-up, error [%]")
    return figure
