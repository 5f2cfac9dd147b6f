"""The benchmarks as a page: medians with their spread, and what follows from them."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from offramp.common.markdown import table

TITLES = {
    "speed": "The cascade against its full network, by backend",
    "answers": "The same answers on every backend",
    "overhead": "The cascade at cutoff 0 against the sum of its parts",
    "peak": "How near to the machine's limit",
    "profile": "Where the cascade's time goes",
    "time model": "Predicted against measured time",
    "sweep": "One pass against reruns",
    "dump": "The dump against a bare forward pass",
    "memory": "Peak memory of the dump",
    "thresholds": "Thresholds against those of others",
    "equal accuracy": "Ways to choose thresholds at equal test accuracy",
    "multiply-adds": "Accuracy over multiply-adds",
    "student": "Against a plain cascade",
    "public": "Against public networks without exits",
    "run": "Where the seconds of a run go",
}
UNITS = ("predicted seconds", "multiply-adds")
# So many points of a curve are shown.
CURVE_POINTS = 8


def page(rows: pd.DataFrame, origin: Mapping[str, str]) -> str:
    """The Markdown page of a benchmarks table."""
    machine = f"{origin['device_name']}, {origin['threads']} threads, torch {origin['torch']}"
    parts = [f"# Benchmarks of {origin['model']}", f"{machine}. Medians, with the extremes."]
    for name, title in TITLES.items():
        of_benchmark = rows[rows["benchmark"] == name]
        if len(of_benchmark):
            parts += [f"## {title}", SECTIONS.get(name, _section)(of_benchmark)]
            parts += [FINDINGS[name](of_benchmark)] if name in FINDINGS else []
    return "\n\n".join(parts) + "\n"


def spread(values: pd.Series) -> str:
    """Median [low, high]."""
    low, middle, high = (f"{v:.3g}" for v in (values.min(), values.median(), values.max()))
    return middle if len(values) == 1 else f"{middle} [{low}, {high}]"


def prediction_errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Relative errors of every prediction, one row a policy, batch size and contender: columns
    batch_size, contender, case; ``error`` (predicted / measured - 1) of the speed-up over the full
    network and ``seconds_error`` of the seconds; and ``spread``, how far the speed-ups of the run's
    even and odd batches lie apart."""
    keys = ["batch_size", "case"]
    measured = rows[rows["contender"] == "measured"]
    halves = measured.pivot(index=keys, columns="repeat", values="value")
    faster = _over_full_network(halves)
    spread = faster.max(axis=1) / faster.min(axis=1) - 1
    total = halves.sum(axis=1)
    whole = _over_full_network(total.to_frame())[0]
    pieces = []
    for contender, guesses in rows[rows["contender"] != "measured"].groupby(
        "contender", sort=False
    ):
        seconds = guesses.set_index(keys)["value"]
        errors = pd.DataFrame(
            {
                "contender": contender,
                "error": _over_full_network(seconds.to_frame())["value"] / whole - 1,
                "seconds_error": seconds / total - 1,
                "spread": spread,
            }
        )
        pieces.append(errors.loc[seconds.index].drop("full network", level="case").reset_index())
    return pd.concat(pieces, ignore_index=True)


def _over_full_network(seconds: pd.DataFrame) -> pd.DataFrame:
    """Speed-ups from seconds indexed by batch size and case."""
    full = seconds.xs("full network", level="case")
    return full.reindex(seconds.index, level="batch_size") / seconds


def _time_model(rows: pd.DataFrame) -> str:
    errors = prediction_errors(rows).astype({"batch_size": int})
    lines = []
    for (size, name), here in errors.groupby(["batch_size", "contender"], sort=False):
        off, seconds, halves = here["error"].abs(), here["seconds_error"].abs(), here["spread"]
        lines.append(
            [
                size,
                name,
                len(here),
                f"{off.median():.1%}, {off.quantile(0.9):.1%}, {off.max():.1%}",
                f"{here['error'].median():+.1%}",
                f"{halves.median():.1%}, {halves.quantile(0.9):.1%}",
                f"{seconds.median():.1%}, {seconds.max():.1%}",
            ]
        )
    header = ["batch size", "predicted by", "policies"]
    header += ["speed-ups off by: median, 90th percentile, worst", "with its sign"]
    header += ["even and odd batches differ by: median, 90th percentile"]
    return table([*header, "seconds off by: median, worst"], lines)


def _speed(rows: pd.DataFrame) -> str:
    lines = []
    per_image = rows.assign(value=1000 * rows["value"] / rows["images"])
    for size in per_image["batch_size"].unique():
        by_name = per_image[per_image["batch_size"] == size].set_index("contender")["value"]
        for backend in dict.fromkeys(name.split(":")[0] for name in by_name.index):
            full, cascade = by_name[f"{backend}: full network"], by_name[f"{backend}: cascade"]
            ratio, pairs = full.median() / cascade.median(), full.to_numpy() / cascade.to_numpy()
            fast = f"{ratio:.2f}x [{pairs.min():.2f}, {pairs.max():.2f}]"
            regrouped = by_name[f"{backend}: cascade, regrouped"]
            lines.append(
                [int(size), backend, spread(full), spread(cascade), fast, spread(regrouped)]
            )
    header = ["batch size", "backend", "full network, ms per image", "cascade, ms per image"]
    return table([*header, "speed-up", "survivors regrouped, ms per image"], lines)


def _thresholds(rows: pd.DataFrame) -> str:
    lines = []
    for name, here in rows.groupby("contender", sort=False):
        value = here.groupby("case")["value"].median()
        losses = [
            f"{value[f'{split} loss']:.2f} [{value[f'{split} loss, low']:.2f}, "
            f"{value[f'{split} loss, high']:.2f}]"
            for split in ("val", "test")
        ]
        speedups = [_faster(value, f"in {unit}") for unit in UNITS]
        spent = spread(here.loc[here["case"] == "to find", "value"])
        lines.append([name, spent, *losses, *speedups])
    header = ["at most 0.5 points lost", "s to find", "lost on val, points", "lost on test, points"]
    return table([*header, *(f"speed-up, {unit}" for unit in UNITS)], lines)


def _faster(value: pd.Series, case: str) -> str:
    return f"{value[case]:.2f} [{value[f'{case}, low']:.2f}, {value[f'{case}, high']:.2f}]"


def _equal_accuracy(rows: pd.DataFrame) -> str:
    cases = [case for case in dict.fromkeys(rows["case"]) if not case.endswith((", low", ", high"))]
    lines = []
    for name, here in rows.groupby("contender", sort=False):
        value = here.set_index("case")["value"]
        lines.append([name, *(_faster(value, case) for case in cases)])
    return table(["speed-up where so much is lost on test", *cases], lines)


def curve_points(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By curve of that benchmark, its points: columns ``multiply-adds`` and ``accuracy``."""
    return {
        str(name): here.pivot(index="repeat", columns="case", values="value")[
            ["multiply-adds", "accuracy"]
        ]
        for name, here in rows.groupby("contender", sort=False)
    }


def _multiply_adds(rows: pd.DataFrame) -> str:
    lines = []
    for name, points in curve_points(rows).items():
        shown = np.unique(np.linspace(0, len(points) - 1, CURVE_POINTS).round().astype(int))
        for spent, accuracy in points.iloc[shown].to_numpy():
            lines.append([name, f"{spent / 1e6:.1f}", f"{100 * accuracy:.2f}"])
    return table(["", "million multiply-adds an image", "accuracy, %"], lines)


def public_points(rows: pd.DataFrame) -> pd.DataFrame:
    """The contenders of that benchmark, one row each, the fastest first.

    Columns: ``ms`` an image (median; ``low`` and ``high``, the extremes), ``accuracy``,
    ``multiply_adds``, ``parameters``, and, nan for the public networks, the accuracy ``on val`` and
    that of thresholds which did not see the samples, ``on val, crossed``.
    """
    timed = rows[rows["case"].isna()]
    ms = (1000 * timed["value"] / timed["images"]).groupby(timed["contender"])
    stated = rows[rows["case"].notna()].pivot(index="contender", columns="case", values="value")
    points = pd.DataFrame({"ms": ms.median(), "low": ms.min(), "high": ms.max()}).join(stated)
    return points.rename(columns={"multiply-adds": "multiply_adds"}).sort_values("ms")


def _public(rows: pd.DataFrame) -> str:
    lines = [
        [
            name,
            f"{100 * row.accuracy:.2f}",
            *("" if np.isnan(v) else f"{100 * v:.2f}" for v in row[["on val", "on val, crossed"]]),
            f"{row.ms:.3g} [{row.low:.3g}, {row.high:.3g}]",
            f"{row.multiply_adds / 1e6:.1f}",
            f"{row.parameters / 1e6:.2f}",
        ]
        for name, row in public_points(rows).iterrows()
    ]
    header = ["network", "accuracy, %", "on val, %", "on val, fitted to its other half, %"]
    header += ["ms per image", "million multiply-adds", "parameters, million"]
    return table(header, lines)


def _run(rows: pd.DataFrame) -> str:
    jobs = rows[rows["case"].notna()].sort_values("value", ascending=False)
    named = zip(jobs["contender"], jobs["case"], jobs["value"], strict=True)
    lines = [[rule, file, f"{seconds:.1f}"] for rule, file, seconds in named]
    return table(["rule", "in rules/", "seconds"], lines)


def _section(rows: pd.DataFrame) -> str:
    named = rows[["contender", "case", "batch_size", "images", "unit"]]
    named = named.astype({"batch_size": "Int64", "images": "Int64"}).astype(object)
    named = named.where(named.notna(), "")
    lines = []
    for place in named.drop_duplicates().index:
        *names, unit = named.loc[place]
        same = named.eq(named.loc[place]).all(axis=1)
        lines.append([*names, spread(rows.loc[same, "value"]), unit])
    return table(["", "", "batch size", "images", "median [low, high]", "unit"], lines)


def medians(rows: pd.DataFrame) -> pd.Series:
    """The median of every contender."""
    return rows.groupby("contender", sort=False)["value"].median()


def _overhead(rows: pd.DataFrame) -> str:
    value = medians(rows)
    more = value["cascade at cutoff 0"] / value["sum of the parts"] - 1
    return f"The cascade takes {more:+.1%} against the sum of its parts."


def _peak(rows: pd.DataFrame) -> str:
    value = medians(rows)
    most = value.filter(like="convolution of").max()
    return (
        f"The full network runs at {value['full network'] / most:.0%} of the best convolution; the "
        f"cascade takes {value['full network'] / value['cascade']:.2f} times as long per "
        "multiply-add as the full network."
    )


def _probes(rows: pd.DataFrame) -> str:
    return (
        "Every batch ran under all policies and through the full network, in a new order each "
        "time, so a speed-up is free of the machine's pace, which the error of seconds is not. The "
        "pipeline's model was made at another time, of the one pass over the data and a probe; the "
        "other one is of a probe whose rounds lie between these very batches."
    )


def _sweep(rows: pd.DataFrame) -> str:
    value = medians(rows)
    swept = next(name for name in value.index if name.startswith("sweep of"))
    count, masks = int(swept.split()[2]), value.filter(like="loop of masks").iloc[0]
    reruns = count * value.filter(like="live run").mean()
    return (
        f"A live run for each of the {count} cutoffs would take {reruns:.0f} s at the mean of "
        f"those above: {reruns / value[swept]:,.0f} times the sweep. The loop of masks takes "
        f"{masks / value[swept]:.1f} times as long as the sweep, and tells no times."
    )


def _dump(rows: pd.DataFrame) -> str:
    value = medians(rows)
    return f"The dump takes {value['dump'] / value['bare forward pass'] - 1:+.1%}."


def _memory(rows: pd.DataFrame) -> str:
    few, many = rows.sort_values("images")["value"].iloc[[0, -1]]
    return f"The larger dump's peak is {many - few:+.0f} MiB from the smaller's."


def _student(rows: pd.DataFrame) -> str:
    value = medians(rows)
    return f"{value['as a student writes it'] / value['offramp']:.1f} times as fast."


def _promises(rows: pd.DataFrame) -> str:
    return (
        "*On val*: the fastest of the way's settings that loses at most half a point on the "
        "validation data. *Promised*: loses no more on new data, with 90 % confidence. Earlyon, "
        "Pareto Testing and the ways without a name go by the entropy, those *of deferral* by the "
        "fitted criterion, MSDNet, PCEE and RC-EENN by the max probability, as published. "
        "Brackets: 95 %; of speed-ups, by resampling test samples."
    )


def _ranges(rows: pd.DataFrame) -> str:
    return (
        "Every way over the range of its one setting, all from the same validation data; which "
        "setting loses so much is read off test data, so nobody's luck in choosing it counts. "
        "RC-EENN and Pareto Testing choose among the policies named after them. Brackets: 95 %, by "
        "resampling test samples."
    )


def _protocol(rows: pd.DataFrame) -> str:
    return (
        "Anytime: all samples answer at one exit, and all heads up to it have run. Budgeted: the "
        "mean over test samples, each leaving where it may. L2W-DEN, ResNet and MobileNetV2 were "
        "trained on all 50,000 images, ours on 45,000, the other 5,000 choosing thresholds; so "
        "were MSDNet's. Multiply-adds of ResNet and MobileNetV2 are counted here."
    )


def _published(rows: pd.DataFrame) -> str:
    return (
        "Accuracies of the public networks are their authors', who trained on all 50,000 images, "
        "not 45,000; only their seconds and multiply-adds were measured here. The points lost on "
        "validation data are those that all exits' logits let expect; by single labels it is a "
        "little else. Thresholds fitted to the half without the sample tell the truth, for as few "
        "samples as a half has."
    )


def _rules(rows: pd.DataFrame) -> str:
    value, nothing = medians(rows), medians(rows)["a rule that does nothing"]
    longest = rows.groupby("case")["value"].max()
    at_most = [
        f"those in {file} take at most {longest[file]:.1f} s, "
        f"{longest[file] - nothing:.1f} beyond that"
        for file in ("analysis.smk", "report.smk")
    ]
    return (
        f"`snakemake --cores 4` took {value['the whole run']:.0f} s by the clock, from data and "
        "weights in place. A rule's seconds, by Snakemake's own account, hold its start of Python "
        f"and imports: {nothing:.2f} s for a rule that does nothing. Of the rules, "
        f"{'; '.join(at_most)}."
    )


FINDINGS: dict[str, Callable[[pd.DataFrame], str]] = {
    "overhead": _overhead,
    "peak": _peak,
    "time model": _probes,
    "sweep": _sweep,
    "dump": _dump,
    "memory": _memory,
    "thresholds": _promises,
    "equal accuracy": _ranges,
    "multiply-adds": _protocol,
    "student": _student,
    "public": _published,
    "run": _rules,
}
SECTIONS: dict[str, Callable[[pd.DataFrame], str]] = {
    "speed": _speed,
    "time model": _time_model,
    "thresholds": _thresholds,
    "equal accuracy": _equal_accuracy,
    "multiply-adds": _multiply_adds,
    "public": _public,
    "run": _run,
}
