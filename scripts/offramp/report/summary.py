"""The answers to tasks 1a, 1b, 2a and 2b, from the tables, as JSON and as Markdown."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp.common.intervals import interval
from offramp.common.markdown import parts_table, percent, table
from offramp.report.results import (
    EXIT_RULES,
    Results,
    add_intervals,
    against_full_network,
    calibration_rows_of,
    class_names,
    full_network,
    leaving_counts,
    policy_rows,
    sweep_rows_of,
)
from offramp.scoring.criteria import CRITERIA

RULES_IN_WORDS = {
    "fastest_within_loss": "the fastest that on new data loses at most {points:.4g} points of "
    "accuracy against the full network, with {confidence:.0%} confidence",
    "fastest_above_accuracy": "the fastest with an accuracy of at least {min_accuracy:.1%} on new "
    "data, with {confidence:.0%} confidence",
    "best_accuracy_per_second": "the most accuracy per second",
    "knee": "the knee of the frontier of time against accuracy",
}
METHODS_IN_WORDS = {
    "empirical": "Each threshold is the largest at which, on validation data, those who leave "
    "there are at least {target} right; an exit without one is disabled. On test data:",
    "guaranteed": "With {confidence} confidence over the draw of the validation data, those who "
    "leave at each enabled exit are at least {target} right on new data, at all exits at once. On "
    "test data:",
    "joint": "The thresholds of least time found at which, on validation data, at least {target} "
    "of all samples are expected to be right; an exit may be disabled. On test data:",
}


def write_summary(
    results: Results, config: Mapping[str, Any], markdown: str | Path, json_path: str | Path
) -> None:
    """Write both forms of the summary; the Markdown says in words what the JSON holds."""
    summary = summarize(results, config)
    Path(json_path).write_text(json.dumps(summary, indent=2) + "\n")
    Path(markdown).write_text(as_markdown(summary))


def summarize(results: Results, config: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of the summary, as plain numbers, lists and strings."""
    return {
        "about": {
            **{k: results.origin[k] for k in ("dataset", "model", "weights_sha256", "device_name")},
            **{k: results.origin[k] for k in ("threads", "torch", "git_commit")},
            "batch_size": config["batch_size"],
            "criterion": results.policies["best"].criterion,
            "temperatures": results.policies["best"].temperatures,
        },
        "full_network": {split: full_network(results, split) for split in ("val", "test")},
        "exit_accuracy": exit_accuracy(results),
        "task_1a": {
            "network": results.network.to_dict("records"),
            "cutoff": config["sweep"]["report_cutoff"],
            "test": records(policy_rows(results, "report_cutoff", "test")),
            "live": live(results, "report_cutoff"),
        },
        "task_1b": {
            "cutoffs": int(results.sweep["cutoff"].nunique()),
            "best": chosen(results, "best_cutoff"),
            "next_faster": next_faster(results, config["selection"]),
            "compared": compared_cutoffs(results),
        },
        "task_2a": {
            "target": config["calibration"]["target"],
            "method": config["calibration"]["method"],
            "confidence": config["calibration"]["confidence"],
            "thresholds": list(results.policies["target"].thresholds),
            "val": records(policy_rows(results, "target", "val")),
            "test": records(policy_rows(results, "target", "test")),
            "live": live(results, "target"),
        },
        "task_2b": {
            "targets": target_rows(results),
            "best": chosen(results, "best_train"),
        },
        "best": chosen(results, "best"),
        "verification": verification(results),
        "reliability": reliability(results),
        "easy": easy(results),
    }


def exit_accuracy(results: Results) -> list[dict[str, Any]]:
    """Accuracy of every exit over all samples of a split, as if each were the only one."""
    exits = range(results.scores["test"][1].shape[1])
    return [
        {"exit": k + 1}
        | {split: float(correct[:, k].mean()) for split, (_, correct) in results.scores.items()}
        for k in exits
    ]


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Exit, n, correct, accuracy with its interval, seconds, speedup; NaN becomes None."""
    columns = ["exit", "n", "correct", "accuracy", "low", "high", "seconds", "speedup"]
    listed = rows[columns].to_dict("records")
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in listed]


def live(results: Results, policy: str) -> dict[str, float]:
    """What the live cascade measured of a chosen policy on test data."""
    table = results.verification
    row = table[(table["policy"] == policy) & (table["exit"] == 0)].iloc[0]
    keys = ["seconds_measured", "seconds_predicted"]
    keys += ["speedup_predicted", "speedup_measured", "speedup_low", "speedup_high"]
    low, high = interval(row["correct_live"], row["n_live"])
    accuracy = {"accuracy": float(row["correct_live"] / row["n_live"]), "low": low, "high": high}
    return accuracy | {key: float(row[key]) for key in keys}


def chosen(results: Results, name: str) -> dict[str, Any]:
    """A policy chosen by the selection rule: where it came from, and its figures."""
    about = results.about[name]
    rows = {split: policy_rows(results, name, split) for split in ("val", "test")}
    overall = {split: records(r[r["exit"] == 0]) for split, r in rows.items()}
    return {
        "origin": about["origin"],
        "selection": about["selection"],
        "thresholds": about["thresholds"],
        "expected": about.get("expected"),
        **{split: rows[0] if rows else None for split, rows in overall.items()},
        "against_full_network": against_full_network(results, name, "test"),
        "live": live(results, name),
    }


def next_faster(results: Results, selection: Mapping[str, Any]) -> dict[str, Any] | None:
    """The slowest cutoff that is faster on val than the best one: what the rule turned down."""
    best = policy_rows(results, "best_cutoff", "val")
    val = sweep_rows_of(results, "val", exit=0)
    if best.empty:
        return None
    faster = val[val["seconds"] < best["seconds"].iloc[0]]
    if faster.empty:
        return None
    row = faster.loc[faster["seconds"].idxmax()]
    return {key: float(row[key]) for key in ("cutoff", "accuracy", "seconds")}


def compared_cutoffs(results: Results) -> list[dict[str, Any]]:
    """Test figures of a few cutoffs: the ends, the report cutoff, the best, and some between."""
    cutoffs = np.unique(results.sweep["cutoff"])
    picked = set(cutoffs[np.linspace(0, len(cutoffs) - 1, min(9, len(cutoffs))).astype(int)])
    for name in ("report_cutoff", "best_cutoff"):
        origin = results.about[name]["origin"]
        picked |= {origin["cutoff"]} if origin else set()
    rows = sweep_rows_of(results, "test", exit=0)
    rows = rows[rows["cutoff"].isin(picked)]
    return [
        {"cutoff": cutoff} | record
        for cutoff, record in zip(rows["cutoff"].tolist(), records(rows), strict=True)
    ]


def target_rows(results: Results) -> list[dict[str, Any]]:
    """Every target calibrated on train and on val: thresholds, and overall figures on test."""
    found = []
    for calibrated_on in ("train", "val"):
        rows = calibration_rows_of(results, "test", calibrated_on=calibrated_on)
        for target, group in rows.groupby("target"):
            side = group[(group["exit"] > 0) & (group["exit"] < group["exit"].max())]
            thresholds = [None if pd.isna(t) else t for t in side["threshold"]]
            wanted = group[group["exit"] == 0] if group["method"].iloc[0] == "joint" else side
            missed = wanted[(wanted["n"] > 0) & (wanted["accuracy"] < target)]
            found.append(
                {"calibrated_on": calibrated_on, "target": target, "thresholds": thresholds}
                | {"exits_below_target": missed["exit"].tolist()}
                | records(group[group["exit"] == 0])[0]
            )
    return found


def verification(results: Results) -> dict[str, Any]:
    """How far live runs and tables agree."""
    rows = results.verification[results.verification["exit"] == 0]
    error = {
        what: (rows[f"{what}_predicted"] / rows[f"{what}_measured"] - 1).abs()
        for what in ("seconds", "speedup")
    }
    return {
        "policies": len(rows),
        "decisions": int(rows["n_live"].sum()),
        "differ": int(rows["differ"].sum()),
        "excused": int(rows["excused"].sum()),
        "median_time_error": float(error["seconds"].median()),
        "worst_time_error": float(error["seconds"].max()),
        "median_speedup_error": float(error["speedup"].median()),
        "worst_speedup_error": float(error["speedup"].max()),
        "median_spread": float((rows["speedup_high"] / rows["speedup_low"] - 1).median()),
    }


def reliability(results: Results) -> list[dict[str, Any]]:
    """Per exit its temperature, and the expected calibration error on test data with its 95 %
    interval, of raw logits and of those divided by the temperature."""
    rows = results.reliability
    overall = rows[(rows["split"] == "test") & (rows["bin"] == 0)]
    found = []
    for exit_, temperature in zip(
        results.temperatures["exit"], results.temperatures["temperature"], strict=True
    ):
        of_exit = overall[overall["exit"] == exit_].set_index("scaled")
        errors = {
            name: of_exit.loc[scaled, ["ece", "ece_low", "ece_high"]].tolist()
            for name, scaled in (("raw", False), ("scaled", True))
        }
        found.append({"exit": int(exit_), "temperature": float(temperature)} | errors)
    return found


def easy(results: Results) -> dict[str, Any]:
    """When each class leaves under the best policy, earliest first; what the full network, that
    policy and the oracle reach; how many samples only an earlier exit than the final one gets
    right. All on test data."""
    counts = leaving_counts(results).sum(axis=2)
    exits = np.arange(1, len(counts) + 1)
    classes = [
        {
            "class": name,
            "n": int(left.sum()),
            "mean_exit": float(left @ exits / left.sum()),
            "before_final": float(left[:-1].sum() / left.sum()),
        }
        for name, left in zip(class_names(results), counts.T, strict=True)
        if left.any()
    ]
    overall = add_intervals(results.oracle[results.oracle["exit"] == 0])
    rules = dict(zip(overall["exit_rule"], records(overall), strict=True))
    return {
        "classes": sorted(classes, key=lambda row: row["mean_exit"]),
        "exit_rules": rules,
        # The oracle is right wherever any exit is.
        "overthinking": rules["oracle"]["correct"] - rules["full"]["correct"],
    }


def as_markdown(s: Mapping[str, Any]) -> str:
    """The summary as a page to read."""
    about, full = s["about"], s["full_network"]["test"]
    fitted = (
        ", fitted to validation data, so all that is promised of new data is an estimate"
        if CRITERIA[about["criterion"]].fitted
        else ""
    )
    head = [
        "# Summary",
        f"`{about['model']}` on {about['dataset']}, batches of {about['batch_size']}, measured on "
        f"{about['device_name']}, {about['threads']} threads, torch {about['torch']}. Samples "
        f"leave by {about['criterion'].replace('_', ' ')} of "
        f"{'logits divided by temperatures' if about['temperatures'] else 'raw logits'}{fitted}. "
        f"Weights sha256 `{about['weights_sha256'][:12]}`, code {about['git_commit'][:12]}.",
        f"Full network on test data: accuracy {_percent(full)}, {_seconds(full['seconds'])} for "
        f"{full['n']:,} samples (predicted). Intervals are 95 % (exact). Times at an exit are "
        "those of its stage: block, head, decision, removal of those who leave.",
    ]
    parts = [
        head,
        _task_1a(s),
        _task_1b(s),
        _task_2a(s),
        _task_2b(s),
        _proof(s),
        _reliability(s),
        _easy(s),
    ]
    return "\n\n".join(line for part in parts for line in part) + "\n"


def _task_1a(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_1a"]
    yield "## Task 1a: the network, and one fixed cutoff"
    yield parts_table(task["network"])
    yield "Accuracy of each exit when all samples of a split leave there:"
    yield table(
        ["exit", "train", "val", "test"],
        [[r["exit"], *(f"{r[k]:.2%}" for k in ("train", "val", "test"))]
         for r in s["exit_accuracy"]],
    )  # fmt: skip
    yield f"With cutoff c = {task['cutoff']:g} at every side exit, on test data:"
    yield _exit_table(task["test"], {})
    yield _figure("report_cutoff")
    yield _live_sentence(task["live"])


def _task_1b(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_1b"]
    best, report, full = task["best"], s["task_1a"]["cutoff"], s["full_network"]
    yield f"## Task 1b: {task['cutoffs']} cutoffs"
    yield (
        "Overall accuracy is the mean of the exits' accuracies weighted by how many left at each; "
        "total time is that of all blocks and heads that had to run. On test data:"
    )
    names = {report: "report cutoff"}
    if best["origin"]:
        cutoff = best["origin"]["cutoff"]
        names[cutoff] = " and ".join([names[cutoff], "best"] if cutoff in names else ["best"])
    yield table(
        ["cutoff", "accuracy", "time", "speed-up", ""],
        [
            [f"{r['cutoff']:.4f}", _percent(r), _seconds(r["seconds"]), f"{r['speedup']:.2f}x",
             names.get(r["cutoff"], "")]
            for r in task["compared"]
        ],
    )  # fmt: skip
    for name in ("time_accuracy", "time_cutoff", "accuracy_cutoff", "exit_shares"):
        yield _figure(name)
    yield _why(best, full, "cutoff")
    if task["next_faster"] and best["origin"]:
        other = task["next_faster"]
        yield (
            f"The next faster cutoff, {other['cutoff']:.4f}, saves "
            f"{_seconds(best['val']['seconds'] - other['seconds'])} of "
            f"{_seconds(best['val']['seconds'])} on val and has "
            f"{other['accuracy']:.2%} there, against {best['val']['accuracy']:.2%}."
        )
    yield _live_sentence(best["live"])


def _task_2a(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_2a"]
    target = task["target"]
    where = "over all exits" if task["method"] == "joint" else "at every exit"
    yield f"## Task 2a: {_target(target)} wanted {where}"
    yield METHODS_IN_WORDS[task["method"]].format(
        target=_target(target), confidence=_target(task["confidence"])
    )
    thresholds = dict(enumerate(task["thresholds"], 1))
    yield _exit_table(task["test"], thresholds, val=task["val"])
    yield _figure("target")
    if task["method"] == "joint":
        yield _live_sentence(task["live"])
        return
    side = [r for r in task["test"] if 0 < r["exit"] <= len(thresholds) and r["n"]]
    below = [r for r in side if r["accuracy"] < target]
    sure = [r["exit"] for r in below if r["high"] < target]
    if not side:
        yield "No side exit reaches the target on validation data, so everyone leaves at the end."
    elif below:
        listed = ", ".join(f"exit {r['exit']} with {_percent(r)}" for r in below)
        firm = f" Beyond chance, it is exit {', '.join(map(str, sure))}." if sure else ""
        lucky = (
            " The largest threshold that passes on the validation data is a lucky one, so about "
            "half of the exits must be expected to fall a little short on new data."
        )
        why = lucky if task["method"] == "empirical" else ""
        yield f"On test data below the target: {listed}.{firm}{why}"
    else:
        yield "Every side exit reaches the target on test data as well."
    yield _live_sentence(task["live"])


def _task_2b(s: Mapping[str, Any]) -> Iterable[str]:
    task, full = s["task_2b"], s["full_network"]
    yield "## Task 2b: a range of wanted accuracies"
    yield "Calibrated on training data, and beside it on validation data; figures on test data."
    yield table(
        ["calibrated on", "target", "thresholds 1 to K-1", "accuracy", "time", "speed-up",
         "exits below target"],
        [
            [r["calibrated_on"], _target(r["target"]), " ".join(map(_threshold, r["thresholds"])),
             _percent(r), _seconds(r["seconds"]), f"{r['speedup']:.2f}x",
             ", ".join(str(k or "all") for k in r["exits_below_target"]) or "none"]
            for r in task["targets"]
        ],
    )  # fmt: skip
    yield _figure("targets")
    missed = {
        split: [
            len(r["exits_below_target"]) for r in task["targets"] if r["calibrated_on"] == split
        ]
        for split in ("train", "val")
    }
    joint = s["task_2a"]["method"] == "joint"
    what = "sets of thresholds that fall" if joint else "enabled side exits that fall"
    yield (
        f"Over all targets, {what} below their target on test data: "
        f"{sum(missed['train'])} when calibrated on training data, {sum(missed['val'])} when "
        "calibrated on validation data. The network has seen the training data, so on them it "
        "looks surer and more accurate than it is, and thresholds from them are too generous."
    )
    yield _why(task["best"], full, "train-calibrated set of thresholds")
    yield _live_sentence(task["best"]["live"])


def _proof(s: Mapping[str, Any]) -> Iterable[str]:
    proof, best = s["verification"], s["best"]
    yield "## The best of all, and the proof"
    yield _why(best, s["full_network"], "policy")
    yield _live_sentence(best["live"])
    yield (
        f"{proof['policies']} policies were run live on all test samples, "
        f"{proof['decisions']:,} decisions: {proof['differ']} differ from the tables, of which the "
        f"two float exceptions excuse {proof['excused']}. Predicted speed-ups are off by "
        f"{proof['median_speedup_error']:.1%} in the median and "
        f"{proof['worst_speedup_error']:.1%} at worst, where the run's even and odd batches differ "
        f"by {proof['median_spread']:.1%}. Predicted seconds, which also depend on the machine's "
        f"pace in that minute, are off by {proof['median_time_error']:.1%} and "
        f"{proof['worst_time_error']:.1%}."
    )
    yield _figure("prediction")
    yield _figure("entropy")


def _reliability(s: Mapping[str, Any]) -> Iterable[str]:
    used = "did" if s["about"]["temperatures"] else "did not"

    def points(error: Sequence[float]) -> str:
        return "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * e for e in error))

    yield "## How true the probabilities are"
    yield (
        "A temperature above 1 says that an exit is too sure of itself. Expected calibration error "
        "on test data in points, 15 bins of equally many samples, with 95 % intervals (bootstrap); "
        f"half of the validation data fitted the temperatures, which {used} serve the policies "
        "above:"
    )
    yield table(
        ["exit", "temperature", "raw logits", "with temperature"],
        [
            [r["exit"], f"{r['temperature']:.3f}", *(points(r[k]) for k in ("raw", "scaled"))]
            for r in s["reliability"]
        ],
    )
    yield _figure("reliability")


def _easy_classes(classes: Sequence[Mapping[str, Any]]) -> str:
    """Which class leaves first and which last, ``classes`` being in that order."""
    if classes[0]["mean_exit"] == classes[-1]["mean_exit"]:
        return "Under the best policy no class of test samples leaves earlier than another."
    first, last = (
        f"`{row['class']}` (after exit {row['mean_exit']:.2f} on average, "
        f"{row['before_final']:.1%} before the final one)"
        for row in (classes[0], classes[-1])
    )
    return f"Under the best policy, test samples of {first} leave earliest, those of {last} latest."


def _easy(s: Mapping[str, Any]) -> Iterable[str]:
    found = s["easy"]
    yield "## Which samples are easy"
    yield _easy_classes(found["classes"])
    yield _figure("leaving")
    yield _figure("confusion")
    samples = found["exit_rules"]["full"]["n"]
    yield (
        f"Overthinking: {found['overthinking']:,} of {samples:,} samples "
        f"({found['overthinking'] / samples:.2%}) are right at an earlier exit and wrong at the "
        "final one. An oracle that lets each sample leave at its first right exit (at the final "
        "one if none is) would win them all; no exit rule can be more accurate. Predicted:"
    )
    yield table(
        ["", "accuracy", "time", "speed-up"],
        [
            [EXIT_RULES[rule], _percent(row), _seconds(row["seconds"]), f"{row['speedup']:.2f}x"]
            for rule, row in found["exit_rules"].items()
        ],
    )
    yield _figure("agreement")


def _why(best: Mapping[str, Any], full: Mapping[str, Any], what: str) -> str:
    selection = best["selection"]
    rule = RULES_IN_WORDS[selection["rule"]].format(points=100 * selection["max_loss"], **selection)
    if not selection["satisfied"]:
        return (
            f"**No {what} of {selection['of']} satisfies the rule ({rule}): all exits disabled.**"
        )
    val, test = best["val"], best["test"]
    lost = full["val"]["accuracy"] - val["accuracy"]
    return (
        f"**Best {what}: {_origin(best['origin'])}**, thresholds "
        f"{' '.join(map(_threshold, best['thresholds']))}. Of {selection['of']} candidates it is "
        f"{rule}, judged on validation data: {val['accuracy']:.2%} there against "
        f"{full['val']['accuracy']:.2%} ({_signed(-lost)} points; with "
        f"{selection['confidence']:.0%} confidence {_promised(best)}) in "
        f"{_seconds(val['seconds'])} against {_seconds(full['val']['seconds'])}. "
        f"On test data: {_percent(test)}, "
        f"{_points(best['against_full_network'])}, "
        f"{_seconds(test['seconds'])}, {test['speedup']:.2f}x as fast as the full network "
        "(predicted)."
    )


def _promised(best: Mapping[str, Any]) -> str:
    """What is sure of a chosen policy: what was tested, and a bound that allows for the choice."""
    most = f"at most {100 * best['expected']['loss_at_most']:.2f} lost on new data"
    selection = best["selection"]
    if selection["rule"] == "fastest_within_loss":
        limit = f"at most {100 * selection['max_loss']:g} points lost on new data"
        return f"{limit}, as was tested; over all candidates at once, {most}"
    if selection["rule"] == "fastest_above_accuracy":
        return f"at least {selection['min_accuracy']:.2%} on new data, as was tested"
    return f"over all candidates at once, {most}"


def _origin(origin: Mapping[str, Any]) -> str:
    if "cutoff" in origin:
        return f"cutoff {origin['cutoff']:.4f} at every side exit"
    known = {"val_half": "half of val"}.get(origin["calibrated_on"], origin["calibrated_on"])
    return f"{_target(origin['target'])} wanted, calibrated on {known}"


def _live_sentence(live: Mapping[str, float]) -> str:
    return (
        f"Live, every batch in turn with the full network: accuracy {_percent(live)}, "
        f"{live['speedup_measured']:.2f}x as fast ({live['speedup_low']:.2f} and "
        f"{live['speedup_high']:.2f} in the run's two halves; predicted "
        f"{live['speedup_predicted']:.2f}), {_seconds(live['seconds_measured'])} "
        f"(predicted {_seconds(live['seconds_predicted'])})."
    )


def _exit_table(
    rows: Sequence[Mapping[str, Any]],
    thresholds: Mapping[int, float | None],
    val: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    header = ["exit", "leave", "share", "accuracy", "time"]
    if thresholds:
        header[1:1] = ["threshold"]
    if val:
        header.insert(-1, "accuracy on val")
    body = []
    for i, r in enumerate(rows):
        line = [r["exit"] or "all", f"{r['n']:,}", f"{r['n'] / rows[0]['n']:.1%}"]
        line += [_percent(r), _seconds(r["seconds"])]
        if thresholds:
            line[1:1] = [_threshold(thresholds[r["exit"]]) if r["exit"] in thresholds else ""]
        if val:
            line.insert(-1, _percent(val[i]))
        body.append(line)
    return table(header, body[1:] + body[:1])


def _figure(name: str) -> str:
    return f"![{name.replace('_', ' ')}](figures/{name}.svg)"


def _percent(row: Mapping[str, Any]) -> str:
    if row["accuracy"] is None:
        return "nobody"
    return percent(row["accuracy"], row["low"], row["high"])


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value:.3g} s"


def _target(value: float) -> str:
    return f"{100 * value:g}%"


def _threshold(value: float | None) -> str:
    return "off" if value is None else f"{value:.4f}"


def _points(paired: Mapping[str, float]) -> str:
    low, high = _signed(paired["low"]), _signed(paired["high"])
    return f"{_signed(paired['points'])} points [{low}, {high}, paired]"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.2f}"
