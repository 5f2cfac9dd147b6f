"""Figures that look closer: entropies, predicted times, confidence, who leaves where."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullFormatter

from offramp.figures.panels import (
    DARK,
    LIGHT,
    MARKS,
    MIDDLE,
    error_lengths,
    headline,
    name_point,
    new_panels,
)
from offramp.report.results import (
    Results,
    class_names,
    labelled,
    leaving_counts,
)

# A table of more rows has no room for a number in each cell.
MOST_LABELLED = 20


def draw_reliability(results: Results) -> Figure:
    """How often each exit is right when it is so and so sure, raw and with its temperature; below
    each exit how many samples are so sure."""
    rows = results.reliability[results.reliability["split"] == "test"]
    counts = results.confidence[
        (results.confidence["split"] == "test") & ~results.confidence["scaled"]
    ]
    exits = sorted(rows["exit"].unique())
    columns = min(3, len(exits))
    bands = -(-len(exits) // columns)
    figure, panels = new_panels(
        2 * bands, columns, figsize=(8.4, 3.5 * bands + 0.5), sharex=True, sharey="row",
        squeeze=False, height_ratios=[3, 1] * bands,
    )  # fmt: skip
    low = 100 * min(0.9, rows.loc[rows["bin"] > 0, "confidence"].min())
    for place in range(bands * columns):
        upper, lower = panels[2 * (place // columns) : 2 * (place // columns) + 2, place % columns]
        if place >= len(exits):
            upper.set_visible(False)
            lower.set_visible(False)
            continue
        k = exits[place]
        _diagram(upper, rows[rows["exit"] == k])
        _histogram(lower, counts[counts["exit"] == k], rows[rows["exit"] == k])
        temperature = results.temperatures["temperature"].iloc[k - 1]
        upper.set_title(f"exit {k}, T = {temperature:.2f}", loc="left")
        lower.tick_params(labelbottom=place + columns >= len(exits))
        if place + columns >= len(exits):
            lower.set_xlabel("confidence [%]")
        if place % columns == 0:
            upper.set_ylabel("accuracy [%]")
            lower.set_ylabel("samples [%]", fontsize=8.5)
    for band in range(bands):
        panels[2 * band, 0].set(xlim=(low - 2, 103), ylim=(0.8 * low, 103))
    handles, names = panels[0, 0].get_legend_handles_labels()
    more, others = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles + more, names + others, loc="outside lower center", ncols=3)
    raw = rows[(rows["bin"] == 0) & ~rows["scaled"]].set_index("exit")["ece"]
    cooled = rows[(rows["bin"] == 0) & rows["scaled"]].set_index("exit")["ece"]
    worst: Any = raw.idxmax()
    headline(
        figure,
        f"Exit {worst} is off the most, by {100 * raw[worst]:.1f} points; with its temperature "
        f"by {100 * cooled[worst]:.1f}",
    )
    return figure


def _diagram(axes: Axes, rows: pd.DataFrame) -> None:
    """One exit's accuracy over its confidence, and its calibration errors with their intervals."""
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
    # The raw ones are hollow and larger, so that both show where they are the same.
    styles = {
        False: (MIDDLE, "o", "--", 6.5, "raw, 15 bins of equally many"),
        True: (DARK, "s", "-", 3, "with temperature T"),
    }
    for scaled, (color, marker, line, size, label) in styles.items():
        bins = rows[(rows["bin"] > 0) & (rows["scaled"] == scaled)]
        stated, true = 100 * bins["confidence"], 100 * bins["correct"] / bins["n"]
        axes.plot(
            stated, true, marker, linewidth=1, linestyle=line, color=color, markersize=size,
            label=label, clip_on=False, markerfacecolor=color if scaled else "none",
        )  # fmt: skip
        if not scaled:  # the gap between what is stated and what is true
            axes.fill_between(stated, stated, true, color=color, alpha=0.2, linewidth=0)
        overall = rows[(rows["bin"] == 0) & (rows["scaled"] == scaled)].iloc[0]
        error, *ends = (100 * overall[name] for name in ("ece", "ece_low", "ece_high"))
        text = f"{'with T' if scaled else 'ECE'} {error:.1f} [{ends[0]:.1f}, {ends[1]:.1f}]"
        axes.text(
            0.97, 0.06 if scaled else 0.15, text, ha="right", fontsize=8.5,
            transform=axes.transAxes, in_layout=False,
        )  # fmt: skip


def _histogram(axes: Axes, counts: pd.DataFrame, rows: pd.DataFrame) -> None:
    """How many samples are so sure, right and wrong; their mean confidence and accuracy."""
    left, width = 100 * counts["low"], 100 * (counts["high"] - counts["low"])
    n = counts["n"].sum()
    right, wrong = 100 * counts["correct"] / n, 100 * (counts["n"] - counts["correct"]) / n
    how: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.4}
    axes.bar(left, right, width, color=LIGHT, label="right answers", **how)
    axes.bar(left, wrong, width, bottom=right, color="black", label="wrong answers", **how)
    overall = rows[(rows["bin"] == 0) & ~rows["scaled"]].iloc[0]
    for value, color, line, label in (
        (overall["correct"] / overall["n"], "black", "-", "accuracy"),
        (overall["confidence"], MIDDLE, "--", "mean confidence, raw"),
    ):
        axes.axvline(100 * value, color=color, linestyle=line, linewidth=1.2, label=label)


def draw_entropy(results: Results) -> Figure:
    """The criterion's score at each exit, for right and wrong answers."""
    figure, axes = new_panels()
    scores, correct = results.scores["test"]
    like = results.policies["best"]
    middles = {}
    for right, shift, color, hatch in ((True, -0.18, "white", ""), (False, 0.18, LIGHT, "///")):
        values = [scores[correct[:, k] == right, k] for k in range(scores.shape[1])]
        middles[right] = [np.median(v) if len(v) else np.nan for v in values]
        boxes = axes.boxplot(
            values, positions=np.arange(1, len(values) + 1) + shift, widths=0.3, whis=(5, 95),
            showfliers=False, patch_artist=True, medianprops={"color": "black", "linewidth": 2},
        )  # fmt: skip
        for box in boxes["boxes"]:
            box.set(facecolor=color, hatch=hatch)
        boxes["boxes"][0].set_label("right answers" if right else "wrong answers")
    axes.set_xticks(range(1, scores.shape[1] + 1), [str(k + 1) for k in range(scores.shape[1])])
    name = like.criterion.replace("_", " ") + (", scaled logits" if like.temperatures else "")
    axes.set(xlabel="exit (all test samples at every exit)", ylabel=labelled(results, name))
    axes.grid(axis="x", visible=False)
    cutoff = results.about["report_cutoff"]["origin"]["cutoff"]
    axes.axhline(cutoff, color="black", linestyle="--", linewidth=1)
    label = f"report cutoff {cutoff:g}"
    name_point(axes, axes.get_xlim()[1], cutoff, label, (4, 0), rotation=90)
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 0.99), borderaxespad=0)
    middle, other = middles[True][0], middles[False][0]
    headline(
        figure,
        f"At exit 1 the median {name.split(',')[0]} is {middle:.2g} of right answers and "
        f"{other:.2g} of wrong ones",
    )
    return figure


def draw_prediction(results: Results) -> Figure:
    """Predicted against measured total time, and speed-up, of every verified policy."""
    figure, panels = new_panels(1, 2, figsize=(8.4, 4.2))
    rows = results.verification[results.verification["exit"] == 0]
    for axes, what, unit in zip(
        panels, ("seconds", "speedup"), ("total time [s]", "speed-up"), strict=True
    ):
        both = rows[[f"{what}_predicted", f"{what}_measured"]].to_numpy()
        low, high = 0.8 * both.min(), 1.25 * both.max()
        ends = np.array([low, high])
        axes.plot(ends, ends, color="black", linewidth=1, label="equal")
        axes.fill_between(
            ends, 0.9 * ends, 1.1 * ends, color=LIGHT, alpha=0.3, linewidth=0, label="within 10 %"
        )
        others = rows[~rows["chosen"]]
        _measured(axes, others, what, "o", "white", "shared cutoffs")
        for _, row in rows[rows["chosen"]].iterrows():
            marker, label = MARKS[row["policy"]]
            _measured(axes, row.to_frame().T, what, marker, MIDDLE, label)
        axes.set(xlabel=f"predicted {unit}", ylabel=f"measured {unit}")
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=20))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    error = (rows["speedup_predicted"] / rows["speedup_measured"] - 1).abs()
    headline(
        figure,
        f"Predicted speed-ups are off by {error.median():.1%} in the median, "
        f"{error.max():.1%} at worst",
    )
    return figure


def _measured(
    axes: Axes, rows: pd.DataFrame, what: str, marker: str, fill: str, label: str
) -> None:
    """Measured over predicted, speed-ups with the spread of the run's halves."""
    values = rows[f"{what}_measured"]
    spread = None
    if what == "speedup":
        spread = error_lengths(values, rows["speedup_low"], rows["speedup_high"])
    axes.errorbar(
        rows[f"{what}_predicted"], values, yerr=spread, fmt=marker, color="black", capsize=2,
        linewidth=1, markerfacecolor=fill, label=label,
    )  # fmt: skip


def draw_leaving(results: Results) -> Figure:
    """How many of each class leave at each exit under the best policy, classes that leave early
    on top."""
    figure, axes = new_panels(figsize=(8.4, 4.6))
    names, counts = class_names(results), leaving_counts(results).sum(axis=2).T
    exits = np.arange(1, counts.shape[1] + 1)
    shares = _shares(counts)
    order = np.argsort(shares @ exits, kind="stable")
    image = _heat_map(axes, shares[order], counts[order])
    axes.set_yticks(range(len(names)), [names[c] for c in order])
    axes.set_xticks(exits - 1, [f"{k}\n{n:,}" for k, n in zip(exits, counts.sum(0), strict=True)])
    axes.set(xlabel="exit, and how many test samples leave there", ylabel="class, easy ones on top")
    figure.colorbar(image, use_gridspec=False, label="share of the class [%]")
    headline(figure, _easiest_and_hardest(names, counts, order))
    return figure


def _easiest_and_hardest(names: Sequence[str], counts: np.ndarray, order: np.ndarray) -> str:
    """Which class leaves first and which last; ``counts`` (C, K), classes in ``order``."""
    present = [c for c in order if counts[c].any()]
    means = _shares(counts) @ np.arange(1, counts.shape[1] + 1) / 100
    first, last = present[0], present[-1]
    if means[first] == means[last]:
        return f"No class leaves earlier than another: all after exit {means[first]:.1f}"
    return (
        f"Easiest: {names[first]}, leaving after exit {means[first]:.1f} on average; hardest: "
        f"{names[last]}, after {means[last]:.1f}"
    )


def draw_confusion(results: Results) -> Figure:
    """True class against predicted label of those who leave at each exit under the best policy."""
    names, counts = class_names(results), leaving_counts(results)
    columns = min(2, len(counts))
    rows = -(-len(counts) // columns)
    figure, panels = new_panels(
        rows, columns, figsize=(8.4, 3.4 * rows + 0.9), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axes in panels.flat[len(counts) :]:
        axes.set_axis_off()
    for k, (axes, cells) in enumerate(zip(panels.flat, counts, strict=False), 1):
        image = _heat_map(axes, _shares(cells), cells, fontsize=8)
        n = cells.sum()
        leave = f"{n:,} leave, {np.trace(cells) / n:.1%} right" if n else "nobody leaves"
        axes.set_title(f"exit {k}: {leave}", loc="left")
        # Classes stand below the last panel of a column and left of the first of a row.
        axes.xaxis.set_visible(k + columns > len(counts))
        axes.tick_params(axis="x", labelrotation=90, labelbottom=True)
        axes.yaxis.set_visible(columns == 1 or k % columns == 1)
    panels[0, 0].set_xticks(range(len(names)), names)  # for all, which share them
    panels[0, 0].set_yticks(range(len(names)), names)
    figure.supxlabel("predicted label", fontsize=9.5)
    figure.supylabel("class", fontsize=9.5)
    figure.colorbar(
        image, ax=list(panels.flat), use_gridspec=False, fraction=0.03, aspect=60,
        label="share of the class's samples that leave there [%]",
    )  # fmt: skip
    headline(figure, _often_mistaken(names, counts.sum(axis=0)))
    return figure


def _often_mistaken(names: Sequence[str], counts: np.ndarray) -> str:
    """The most frequent mistake of all."""
    mistakes = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    if not mistakes.any():
        return "No sample is mistaken for another class"
    true, answered = np.unravel_index(mistakes.argmax(), mistakes.shape)
    return (
        f"The most frequent mistake: {names[true]} called {names[answered]}, {mistakes.max():,} of "
        f"{mistakes.sum():,}"
    )


def draw_agreement(results: Results) -> Figure:
    """On how many samples two exits differ, and how often one alone is right."""
    figure, panels = new_panels(1, 2, figsize=(8.4, 4.4), sharex=True, sharey=True)
    rows = results.agreement.assign(differ=lambda t: t["n"] - t["same_label"])
    exits = range(1, int(rows["first"].max()) + 1)
    titles = {"differ": "their labels differ", "only_first_right": "row right, column wrong"}
    cells = {
        column: rows.assign(share=100 * rows[column] / rows["n"])
        .pivot(index="first", columns="second", values="share")
        .to_numpy()
        for column in titles
    }
    top = max(1.0, *(values.max() for values in cells.values()))
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        values = cells[column].copy()
        np.fill_diagonal(values, np.nan)
        if column == "differ":  # the same both ways
            values[np.triu_indices_from(values)] = np.nan
        image = _heat_map(axes, values, values, form="{:.1f}", fontsize=9, top=top)
        axes.set_title(title, loc="left")
        axes.set_xticks(range(len(exits)), [str(k) for k in exits])
        axes.set_yticks(range(len(exits)), [str(k) for k in exits])
        axes.set_xlabel("exit (column)")
    panels[0].set_ylabel("exit (row)")
    figure.colorbar(image, ax=list(panels), use_gridspec=False, label="test samples [%]")
    right = results.oracle[results.oracle["exit"] == 0].set_index("exit_rule")["accuracy"]
    headline(
        figure,
        f"{right['oracle'] - right['full']:.1%} of the test samples are right at an early exit and "
        "wrong at the last",
    )
    return figure


def _shares(counts: np.ndarray) -> np.ndarray:
    """Per cent of each row's sum; zeros where a row is empty."""
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _heat_map(
    axes: Axes,
    shares: np.ndarray,
    labels: np.ndarray,
    form: str = "{:,}",
    fontsize: float = 8.5,
    top: float = 100,
) -> AxesImage:
    """Cells shaded by per cent, up to ``top``; each says its label where that is not 0, if there is
    room for it."""
    # "none" keeps the SVG's image at one pixel a cell, so it is small and its edges are sharp.
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=top, aspect="auto", interpolation="none")
    axes.grid(False)
    for row, column in np.argwhere(np.nan_to_num(labels)) if len(labels) <= MOST_LABELLED else ():
        axes.text(
            column, row, form.format(labels[row, column]), ha="center", va="center",
            fontsize=fontsize, color="white" if shares[row, column] > 0.6 * top else "black",
            in_layout=False,  # inside its panel, so the layout need not measure it
        )  # fmt: skip
    return image
