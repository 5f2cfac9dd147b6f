"""The summary as a page to read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offramp.common.markdown import parts_table, percent, short_commit, table
from offramp.report.results import (
    EXIT_RULES,
)
from offramp.scoring.criteria import CRITERIA

# Below this accuracy the summary asks whether the weights met the images that they know.
LITTLE = 0.5
RULES_IN_WORDS = {
    "fastest_within_loss": "the fastest that on new data loses at most {points:.4g} points of "
    "accuracy against the full network, with {sure} confidence",
    "fastest_above_accuracy": "the fastest with an accuracy of at least {min_accuracy:.1%} on new "
    "data, with {sure} confidence",
    "best_accuracy_per_second": "the most accuracy per {unit}",
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


def as_markdown(s: Mapping[str, Any]) -> str:
    """The summary as a page to read."""
    about, full, unit = s["about"], s["full_network"]["test"], s["about"]["unit"]
    fitted = (
        ", fitted to validation data, so all that is promised of new data is an estimate"
        if CRITERIA[about["criterion"]].fitted
        else ""
    )
    head = [
        "# Summary",
        *_not_live(about),
        f"{_measured(about)}. Samples leave by {about['criterion'].replace('_', ' ')} of "
        f"{'logits divided by temperatures' if about['temperatures'] else 'raw logits'}{fitted}. "
        f"{'Weights' if about['device_name'] else 'Logits'} sha256 "
        f"`{about['weights_sha256'][:12]}`, code {short_commit(about['git_commit'])}.",
        f"Full network on test data: accuracy {_percent(full)}, "
        f"{_seconds(full['seconds'], unit)} for {full['n']:,} samples (predicted). Intervals are "
        "95 % (exact). Times at an exit are those of its stage: block, head, decision, removal of "
        "those who leave.",
        *(_inputs_hint(s["full_network"]["val"]["accuracy"]) if about["ran_live"] else ()),
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
    return "\n\n".join(line for part in parts for line in part if line) + "\n"


def _not_live(about: Mapping[str, Any]) -> Iterable[str]:
    """Where logits and costs are from, if no network ran here."""
    if about["ran_live"]:
        return
    unit = about["unit"]
    what = f"costs are in {unit}" if about["run"] is None else f"timings are its own, in {unit}"
    source = f"of the run in `{about['run']}`" if about["run"] else f"in {about['logits']}"
    means = "" if unit == "s" else "; where this page says time, it means these"
    decides = ", the decision by that run's criterion" if about["run"] else ""
    yield f"**Nothing was run live here.** Logits are those {source}; {what}{decides}{means}."


def _measured(about: Mapping[str, Any]) -> str:
    if about["device_name"] is None:
        return f"{about['model'].capitalize()}, batches of {about['batch_size']}"
    return (
        f"`{about['model']}` on {about['dataset']}, batches of {about['batch_size']}, measured on "
        f"{about['device_name']}, {about['threads']} threads, torch {about['torch']}"
    )


def _inputs_hint(accuracy: float) -> Iterable[str]:
    """What most often makes good weights bad, where they are; nothing in the tables can tell."""
    if accuracy < LITTLE:
        yield (
            f"The full network is right on only {accuracy:.1%} of the validation samples. If these "
            "weights do better elsewhere, they were probably trained on images normalised by a "
            "mean and standard deviation, or in another order of the channels; here networks get "
            "RGB in 0..1, as it is."
        )


def _task_1a(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_1a"]
    yield "## Task 1a: the network, and one fixed cutoff"
    yield parts_table(task["network"]) if task["network"] else ""
    yield "Accuracy of each exit when all samples of a split leave there:"
    splits = [split for split in ("train", "val", "test") if split in s["exit_accuracy"][0]]
    yield table(
        ["exit", *splits],
        [[r["exit"], *(f"{r[k]:.2%}" for k in splits)] for r in s["exit_accuracy"]],
    )
    yield f"With cutoff c = {task['cutoff']:g} at every side exit, on test data:"
    yield _exit_table(task["test"], {}, s["about"]["unit"])
    yield _figure("report_cutoff")
    yield _live_sentence(task["live"])


def _task_1b(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_1b"]
    best, report, full = task["best"], s["task_1a"]["cutoff"], s["full_network"]
    unit = s["about"]["unit"]
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
            [f"{r['cutoff']:.4f}", _percent(r), _seconds(r["seconds"], unit),
             f"{r['speedup']:.2f}x", names.get(r["cutoff"], "")]
            for r in task["compared"]
        ],
    )  # fmt: skip
    for name in ("time_accuracy", "time_cutoff", "accuracy_cutoff", "exit_shares"):
        yield _figure(name)
    yield _why(best, full, "cutoff", unit)
    if task["next_faster"] and best["origin"]:
        other = task["next_faster"]
        yield (
            f"The next faster cutoff, {other['cutoff']:.4f}, saves "
            f"{_seconds(best['val']['seconds'] - other['seconds'], unit)} of "
            f"{_seconds(best['val']['seconds'], unit)} on val and has "
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
    yield _exit_table(task["test"], thresholds, s["about"]["unit"], val=task["val"])
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
    task, full, unit = s["task_2b"], s["full_network"], s["about"]["unit"]
    trained = "train" in s["exit_accuracy"][0]
    yield "## Task 2b: a range of wanted accuracies"
    yield (
        "Calibrated on training data, and beside it on validation data; figures on test data."
        if trained
        else "There is no training split, so calibrated on validation data alone; figures on test "
        "data."
    )
    yield table(
        ["calibrated on", "target", "thresholds 1 to K-1", "accuracy", "time", "speed-up",
         "exits below target"],
        [
            [r["calibrated_on"], _target(r["target"]), " ".join(map(_threshold, r["thresholds"])),
             _percent(r), _seconds(r["seconds"], unit), f"{r['speedup']:.2f}x",
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
    if trained:
        yield (
            f"Over all targets, {what} below their target on test data: "
            f"{sum(missed['train'])} when calibrated on training data, {sum(missed['val'])} when "
            "calibrated on validation data. The network has seen the training data, so on them it "
            "looks surer and more accurate than it is, and thresholds from them are too generous."
        )
    else:
        yield (
            f"Over all targets, {what} below their target on test data: {sum(missed['val'])}. The "
            "best is chosen of those that half of the validation data calibrated; the other half "
            "tested them."
        )
    who = "train-calibrated" if trained else "val-calibrated"
    yield _why(task["best"], full, f"{who} set of thresholds", unit)
    yield _live_sentence(task["best"]["live"])


def _proof(s: Mapping[str, Any]) -> Iterable[str]:
    proof, best = s["verification"], s["best"]
    yield "## The best of all, and the proof" if proof else "## The best of all"
    yield _why(best, s["full_network"], "policy", s["about"]["unit"])
    if not proof:
        yield _figure("entropy")
        return
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
            [EXIT_RULES[rule], _percent(row), _seconds(row["seconds"], s["about"]["unit"]),
             f"{row['speedup']:.2f}x"]
            for rule, row in found["exit_rules"].items()
        ],
    )  # fmt: skip
    yield _figure("agreement")


def _why(best: Mapping[str, Any], full: Mapping[str, Any], what: str, unit: str) -> str:
    selection = best["selection"]
    sure = _target(selection["confidence"])
    limits = {"points": 100 * selection["max_loss"], "sure": sure} | dict(selection)
    limits["unit"] = "second" if unit == "s" else unit
    rule = RULES_IN_WORDS[selection["rule"]].format(**limits)
    if not selection["satisfied"]:
        return (
            f"**No {what} of {selection['of']} satisfies the rule ({rule}): all exits disabled.**"
        )
    val, test, judged = best["val"], best["test"], best["expected"]
    lost = (judged["lost"] - judged["gained"]) / judged["n"]
    return (
        f"**Best {what}: {_origin(best['origin'])}**, thresholds "
        f"{' '.join(map(_threshold, best['thresholds']))}. Of {selection['of']} candidates it is "
        f"{rule}, judged on {judged['n']:,} validation samples: {judged['accuracy']:.2%} there "
        f"against {judged['accuracy'] + lost:.2%} ({_signed(-lost)} points; with {sure} confidence "
        f"{_promised(best)}). All validation samples take {_seconds(val['seconds'], unit)} against "
        f"{_seconds(full['val']['seconds'], unit)}. "
        f"On test data: {_percent(test)}, "
        f"{_points(best['against_full_network'])}, "
        f"{_seconds(test['seconds'], unit)}, {test['speedup']:.2f}x as fast as the full network "
        "(predicted)."
    )


def _promised(best: Mapping[str, Any]) -> str:
    """What is sure of a chosen policy: what was tested, else a bound that allows for the choice."""
    selection = best["selection"]
    if selection["rule"] == "fastest_within_loss":
        return f"at most {100 * selection['max_loss']:g} points lost on new data, as was tested"
    if selection["rule"] == "fastest_above_accuracy":
        return f"at least {selection['min_accuracy']:.2%} on new data, as was tested"
    bound = math.ceil(1e4 * best["expected"]["loss_at_most"]) / 100  # never below what it was
    return f"at most {bound:.2f} points lost on new data, a bound for all candidates at once"


def _origin(origin: Mapping[str, Any]) -> str:
    if "cutoff" in origin:
        return f"cutoff {origin['cutoff']:.4f} at every side exit"
    known = {"val_half": "half of val"}.get(origin["calibrated_on"], origin["calibrated_on"])
    return f"{_target(origin['target'])} wanted, calibrated on {known}"


def _live_sentence(live: Mapping[str, float] | None) -> str:
    if live is None:
        return ""
    return (
        f"Live, interleaved with the full network: accuracy {_percent(live)}, "
        f"{live['speedup_measured']:.2f}x as fast ({live['speedup_low']:.2f} and "
        f"{live['speedup_high']:.2f} in the run's two halves; predicted "
        f"{live['speedup_predicted']:.2f}), {_seconds(live['seconds_measured'])} "
        f"(predicted {_seconds(live['seconds_predicted'])})."
    )


def _exit_table(
    rows: Sequence[Mapping[str, Any]],
    thresholds: Mapping[int, float | None],
    unit: str,
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
        line += [_percent(r), _seconds(r["seconds"], unit)]
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


def _seconds(value: float, unit: str = "s") -> str:
    if value >= 1000 and unit != "s":
        return f"{value:,.0f} {unit}"
    return f"{value:.2f} {unit}" if value >= 1 else f"{value:.3g} {unit}"


def _target(value: float) -> str:
    return f"{100 * value:g}%"


def _threshold(value: float | None) -> str:
    return "off" if value is None else f"{value:.4f}"


def _points(paired: Mapping[str, float]) -> str:
    low, high = _signed(paired["low"]), _signed(paired["high"])
    return f"{_signed(paired['points'])} points [{low}, {high}, paired]"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.2f}"
