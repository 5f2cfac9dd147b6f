"""Figures that look closer: entropies, predicted times, confidence, who leaves where."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from offramp.report.panels import DARK, LIGHT, MARKS, MIDDLE, error_lengths, new_panels
from offramp.report.results import (
    EXIT_RULES,
    Results,
    class_names,
    labelled,
    leaving_counts,
)


def draw_reliability(results: Results) -> Figure:
    """How often each exit is right when it is so and so sure, raw and with its temperature."""
    rows = results.reliability[results.reliability["split"] == "test"]
    exits = sorted(rows["exit"].unique())
    columns = min(3, len(exits))
    figure, panels = new_panels(
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
    figure, axes = new_panels()
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
    figure, panels = new_panels(1, 2)
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
        spread = error_lengths(values, rows["speedup_low"], rows["speedup_high"])
    axes.errorbar(
        rows[f"{what}_predicted"], values, yerr=spread, fmt=marker, color="black", capsize=2,
        linewidth=1, markerfacecolor=fill, label=label,
    )  # fmt: skip


def draw_leaving(results: Results) -> Figure:
    """How many of each class leave at each exit under the best policy, classes that leave early
    on top."""
    figure, axes = new_panels()
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
    figure, panels = new_panels(
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
    figure, panels = new_panels(1, 2, figsize=(8.4, 4.2), sharex=True, sharey=True)
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
