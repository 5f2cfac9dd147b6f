"""The summary as a page to read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offramp.common.markdown import parts_table, short_commit, table
from offramp.report.answer import (
    answer,
    compared,
    fast,
    hardest,
    origin,
    outcome,
    promised,
    rule_in_words,
    trained,
)
from offramp.report.captions import caption
from offramp.report.results import exit_rule_in_words
from offramp.report.words import (
    TASKS,
    a_sample,
    accuracy,
    percent,
    points,
    seconds,
    signed,
    target,
    threshold,
    times,
)
from offramp.scoring.criteria import CRITERIA

# So many rows of the targets are listed, spread over those that differ; the table's file has all.
TARGETS_SHOWN = 9
# Below this accuracy the summary asks whether the weights met the images that they know.
LITTLE = 0.5
METHODS_IN_WORDS = {
    "empirical": "Each threshold is the largest at which, on validation data, those who leave "
    "there are at least {target} right; an exit without one is disabled. On test data:",
    "guaranteed": "With {confidence} confidence over the draw of the validation data, those who "
    "leave at each enabled exit are at least {target} right on new data, at all exits at once. On "
    "test data:",
    "joint": "The thresholds of least time found at which, on validation data, at least {target} "
    "of all samples are expected to be right; an exit may be disabled. On test data:",
}


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The summary as a page to read."""
    about = summary["about"]
    parts = [
        [f"# Summary: {_of(about)}"],
        _not_live(about),
        _inputs_hint(summary["full_network"]["val"]["accuracy"]) if about["ran_live"] else (),
        answer(summary),
        _measured(summary),
        _task_1a(summary),
        _task_1b(summary),
        _task_2a(summary),
        _task_2b(summary),
        _best_of_all(summary),
        _proof(summary),
        _reliability(summary),
        _leaving(summary),
    ]
    return "\n\n".join(line for part in parts for line in part if line) + "\n"


def _of(about: Mapping[str, Any]) -> str:
    """Which network, and of which data; own logits are neither's."""
    if about["model"] == about["dataset"]:
        return str(about["model"])
    return f"{about['model']} on {about['dataset']}"


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


def _inputs_hint(accuracy: float) -> Iterable[str]:
    """What most often makes good weights bad, where they are; nothing in the tables can tell."""
    if accuracy < LITTLE:
        yield (
            f"The full network is right on only {accuracy:.1%} of the validation samples. If these "
            "weights do better elsewhere, they were probably trained on images normalised by a "
            "mean and standard deviation, or in another order of the channels; here networks get "
            "RGB in 0..1, unless dataset.mean and dataset.std say otherwise."
        )


def _measured(summary: Mapping[str, Any]) -> Iterable[str]:
    about, full = summary["about"], summary["full_network"]["test"]
    criterion, splits = about["criterion"], about["splits"]
    fitted = (
        ", fitted to validation data, so all that is promised of new data is an estimate"
        if CRITERIA[criterion].fitted
        else ""
    )
    train_samples = (
        f"{splits['train']:,} training samples" if trained(summary) else "no training samples"
    )
    yield "## What was measured"
    yield (
        f"{_network(about)} with {about['classes']} classes: {train_samples}, "
        f"{splits['val']:,} for validation (every choice is made there), "
        f"{splits['test']:,} for the test (looked at once, "
        f"to report). Batches of {about['batch_size']}{_machine(about)}. Samples leave by "
        f"{criterion.replace('_', ' ')} of "
        f"{'logits divided by temperatures' if about['temperatures'] else 'raw logits'}{fitted}. "
        f"{'Weights' if about['device_name'] else 'Logits'} sha256 "
        f"`{about['weights_sha256'][:12]}`, code {short_commit(about['git_commit'])}."
    )
    yield _formulas(summary)
    yield (
        f"Full network on test data: accuracy {percent(full)}, "
        f"{seconds(full['seconds'], about['unit'])} for {full['n']:,} samples (predicted). "
        "Intervals are 95 % (exact). Times at an exit are those of its stage: block, head, "
        "decision, removal of those who leave. Points are "
        "percentage points, against the full network and on the same samples (paired)."
    )


def _network(about: Mapping[str, Any]) -> str:
    if about["model"] == about["dataset"]:
        return str(about["model"]).capitalize()
    return f"`{about['model']}` on {about['dataset']}"


def _machine(about: Mapping[str, Any]) -> str:
    """Where it was measured, if it was."""
    if about["device_name"] is None:
        return ""
    return f" on {about['device_name']}, {about['threads']} threads, torch {about['torch']}"


def _formulas(summary: Mapping[str, Any]) -> str:
    """How who leaves, accuracy and time are reckoned, as a block of code."""
    about, exits = summary["about"], len(summary["exit_accuracy"])
    name, ends = about["criterion"], CRITERIA[about["criterion"]].range
    reach = ", {:g} to {:.7g}".format(*ends(about["classes"])) if ends else ""
    unit = f" {CRITERIA[name].unit}".rstrip()
    score = "H" if name == "entropy" else "score"
    lines = {
        name.replace("_", " "): f"{CRITERIA[name].formula}{reach}{unit}; p = softmax(logits)",
        "leaves": f"at the first exit k with {score}_k <= threshold_k; exit {exits} takes all else",
        "accuracy": "sum_k (n_k / N) accuracy_k = right answers / N",
        "time": "sum over batches and stages k of block_k(n) + head_k(n) + decide_k(n) + "
        "remove_k(n, stay)",
        "": "n: samples of the batch that reach stage k; the full network: all blocks, one head",
        "speed-up": "time of the full network / time of the policy",
    }
    width = max(map(len, lines)) + 2
    return "\n".join(["```text", *(f"{k:{width}}{v}" for k, v in lines.items()), "```"])


def _task_1a(summary: Mapping[str, Any]) -> Iterable[str]:
    task = summary["task_1a"]
    yield "## Task 1a: the network, and one fixed cutoff"
    yield (
        "> What is the network made of? And if after each exit the samples leave whose score is at "
        f"most c = {task['cutoff']:g}, how accurate is each exit, and how long does it take?"
    )
    yield _exit_table(task["test"], {}, summary["about"]["unit"])
    yield hardest(task["test"], summary["exit_accuracy"])
    yield _live_sentence(task["live"], summary)
    yield _figure("report_cutoff", summary)
    yield "Accuracy of each exit when all samples of a split leave there:"
    splits = [split for split in ("train", "val", "test") if split in summary["exit_accuracy"][0]]
    yield table(
        ["exit", *splits],
        [[r["exit"], *(f"{r[k]:.2%}" for k in splits)] for r in summary["exit_accuracy"]],
    )
    if task["network"]:
        yield "The network, part by part:"
        yield parts_table(task["network"])


def _task_1b(summary: Mapping[str, Any]) -> Iterable[str]:
    task = summary["task_1b"]
    best, report = task["best"], summary["task_1a"]["cutoff"]
    unit = summary["about"]["unit"]
    yield f"## Task 1b: {task['cutoffs']} cutoffs"
    yield (
        "> How do total time and overall accuracy depend on the cutoff, over its whole range? "
        "Which cutoff is the best, and why?"
    )
    names = {report: "report cutoff"}
    if best["origin"]:
        cutoff = best["origin"]["cutoff"]
        names[cutoff] = " and ".join([names[cutoff], "best"] if cutoff in names else ["best"])
    yield _why(best, summary, "cutoff")
    if task["next_faster"] and best["origin"]:
        other = task["next_faster"]
        yield (
            f"The next faster cutoff, {other['cutoff']:.4f}, saves "
            f"{seconds(best['val']['seconds'] - other['seconds'], unit)} of "
            f"{seconds(best['val']['seconds'], unit)} on val and has "
            f"{other['accuracy']:.2%} there, against {best['val']['accuracy']:.2%}."
        )
    yield _live_sentence(best["live"], summary)
    yield "Some of the cutoffs on test data, times predicted (`sweep.parquet` has all, by exit):"
    yield table(
        ["cutoff", "accuracy", "time", "speed-up", ""],
        [
            [f"{r['cutoff']:.4f}", percent(r), seconds(r["seconds"], unit), times(r["speedup"]),
             names.get(r["cutoff"], "")]
            for r in task["compared"]
        ],
    )  # fmt: skip
    for name in ("time_accuracy", "time_cutoff", "accuracy_cutoff", "exit_shares"):
        yield _figure(name, summary)


def _task_2a(summary: Mapping[str, Any]) -> Iterable[str]:
    task = summary["task_2a"]
    wanted, joint = target(task["target"]), task["method"] == "joint"
    where = "over all exits" if joint else "at every exit"
    yield f"## Task 2a: {wanted} wanted {where}"
    yield (
        f"> An accuracy of at least {wanted} is wanted {where}, with a threshold for each exit, "
        "estimated on validation data. What accuracy and time come of it?"
    )
    yield METHODS_IN_WORDS[task["method"]].format(
        target=wanted, confidence=target(task["confidence"])
    )
    thresholds = dict(enumerate(task["thresholds"], 1))
    yield _exit_table(task["test"], thresholds, summary["about"]["unit"], val=task["val"])
    if not joint:
        yield _below_target(task, thresholds)
    yield _live_sentence(task["live"], summary)
    yield _figure("target", summary)


def _below_target(task: Mapping[str, Any], thresholds: Mapping[int, float | None]) -> str:
    """Which side exits fall below the target on test data, and why that is to be expected."""
    side = [r for r in task["test"] if 0 < r["exit"] <= len(thresholds) and r["n"]]
    below = [r for r in side if r["accuracy"] < task["target"]]
    sure = [r["exit"] for r in below if r["high"] < task["target"]]
    if not side:
        return "No side exit reaches the target on validation data, so everyone leaves at the end."
    if not below:
        return "Every side exit reaches the target on test data as well."
    listed = ", ".join(f"exit {r['exit']} with {percent(r)}" for r in below)
    firm = f" Beyond chance, it is exit {', '.join(map(str, sure))}." if sure else ""
    lucky = (
        " The largest threshold that passes on the validation data is a lucky one, so about "
        "half of the exits must be expected to fall a little short on new data."
    )
    why = lucky if task["method"] == "empirical" else ""
    return f"On test data below the target: {listed}.{firm}{why}"


def _task_2b(summary: Mapping[str, Any]) -> Iterable[str]:
    best = summary["task_2b"]["best"]
    calibrated_on = "training data" if trained(summary) else "validation data"
    yield "## Task 2b: a range of wanted accuracies"
    yield (
        f"> Which thresholds and which time follow from other wanted accuracies, calibrated on "
        f"{calibrated_on}? Which set of thresholds is the best, and how does it fare on test data?"
    )
    if not trained(summary):
        yield (
            "There is no training split, so calibrated on validation data alone. The best is "
            "chosen of those that half of the validation data calibrated; the other half tested "
            "them."
        )
    who = "train-calibrated" if trained(summary) else "val-calibrated"
    yield _why(best, summary, f"{who} set of thresholds")
    yield _live_sentence(best["live"], summary)
    beside = (
        "; beside them what the same target gives when it is calibrated on validation data "
        "(`calibration.parquet` has all thresholds of both, exit by exit)"
        if trained(summary)
        else " (`calibration.parquet` has all thresholds, exit by exit)"
    )
    yield f"Some of the wanted accuracies, figures on test data, times predicted{beside}:"
    yield _targets_table(summary)
    yield _figure("targets", summary)
    yield _fallen_short(summary)


def _targets_table(summary: Mapping[str, Any]) -> str:
    """The targets calibrated on train, where there is one, those that come to the same in one row,
    some of them; beside them those calibrated on val."""
    task, best, unit = (
        summary["task_2b"],
        summary["task_2b"]["best"]["origin"],
        summary["about"]["unit"],
    )
    first_split = "train" if trained(summary) else "val"
    split = {
        split: {r["target"]: r for r in task["targets"] if r["calibrated_on"] == split}
        for split in dict.fromkeys((first_split, "val"))
    }

    def same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return all(
            rows[row["target"]]["thresholds"] == rows[other["target"]]["thresholds"]
            for rows in split.values()
        )

    groups: list[list[Mapping[str, Any]]] = []
    for row in split[first_split].values():
        if groups and same(row, groups[-1][-1]):
            groups[-1].append(row)
        else:
            groups.append([row])
    # The best is of another row where half of val calibrated it.
    marked = best["target"] if best and best["calibrated_on"] == first_split else None
    body = []
    for group in _spread_and_wanted(groups, {summary["task_2a"]["target"], marked}):
        first, row = group[0], group[-1]
        other = split["val"][row["target"]]
        ends = [target(first["target"]), *([target(row["target"])] if len(group) > 1 else [])]
        mark = " (best)" if marked in [r["target"] for r in group] else ""
        beside = [accuracy(other), times(other["speedup"])] if trained(summary) else []
        body.append(
            [" to ".join(ends) + mark, " ".join(map(threshold, row["thresholds"])),
             percent(row), seconds(row["seconds"], unit), times(row["speedup"]), *beside]
        )  # fmt: skip
    header = ["target", "thresholds 1 to K-1", "accuracy", "time", "speed-up"]
    beside = ["from val: accuracy", "from val: speed-up"] if trained(summary) else []
    return table([*header, *beside], body)


def _spread_and_wanted(
    groups: Sequence[Sequence[Mapping[str, Any]]], wanted: set[float | None]
) -> list:
    """At most TARGETS_SHOWN of the groups, evenly spread, and those of the wanted targets."""
    steps = min(TARGETS_SHOWN, len(groups)) - 1
    places = {round(i * (len(groups) - 1) / max(steps, 1)) for i in range(steps + 1)}
    return [
        group
        for i, group in enumerate(groups)
        if i in places or wanted & {row["target"] for row in group}
    ]


def _fallen_short(summary: Mapping[str, Any]) -> str:
    missed = {
        split: sum(
            len(r["exits_below_target"])
            for r in summary["task_2b"]["targets"]
            if r["calibrated_on"] == split
        )
        for split in ("train", "val")
    }
    joint = summary["task_2a"]["method"] == "joint"
    what = "sets of thresholds that fall" if joint else "enabled side exits that fall"
    if not trained(summary):
        return f"Over all targets, {what} below their target on test data: {missed['val']}."
    return (
        f"Over all targets, {what} below their target on test data: {missed['train']} when "
        f"calibrated on training data, {missed['val']} when calibrated on validation data. The "
        "network has seen the training data, so on them it looks surer and more accurate than it "
        "is, and thresholds from them are too generous."
    )


def _best_of_all(summary: Mapping[str, Any]) -> Iterable[str]:
    n, unit = summary["full_network"]["test"]["n"], summary["about"]["unit"]
    yield "## Which is the best of all?"
    places = {
        "report_cutoff": summary["task_1a"],
        "best_cutoff": summary["task_1b"]["best"],
        "target": summary["task_2a"],
        "best_train": summary["task_2b"]["best"],
        "best": summary["best"],
    }
    rows = {name: outcome(task, summary) for name, task in places.items()}
    speed = "speed-up, live (halves)" if summary["about"]["ran_live"] else "speed-up, predicted"
    yield table(
        ["task", "policy", "accuracy", "points", speed, "time a sample"],
        [
            [TASKS[name], f"`{name}`", percent(r), points(places[name]["against_full_network"]),
             times(r["speedup"]) + _halves(r), a_sample(r["seconds"] / n, unit)]
            for name, r in rows.items()
        ],
    )  # fmt: skip
    yield compared(summary)
    yield _why(summary["best"], summary, "policy")
    yield _overlooked(summary)
    yield _live_sentence(summary["best"]["live"], summary)


def _halves(row: Mapping[str, Any]) -> str:
    return f" ({row['speedup_low']:.2f}, {row['speedup_high']:.2f})" if row["live"] else ""


def _overlooked(summary: Mapping[str, Any]) -> str:
    """Why test data may know a better one; nothing where it knows none."""
    if not summary["overlooked"] or not summary["best"]["selection"]["satisfied"]:
        return ""
    single = summary["overlooked"] == 1
    return (
        f"On test data, {summary['overlooked']} other cutoff{'' if single else 's'} or set"
        f"{'' if single else 's'} of thresholds {'is' if single else 'are'} faster and no less "
        "accurate. That is known only afterwards: on the "
        f"{summary['best']['expected']['n']:,} validation samples the rule could not tell."
    )


def _proof(summary: Mapping[str, Any]) -> Iterable[str]:
    proof = summary["verification"]
    if not proof:
        yield _figure("entropy", summary)
        return
    yield "## The proof"
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
    yield _figure("prediction", summary)
    yield _figure("entropy", summary)


def _reliability(summary: Mapping[str, Any]) -> Iterable[str]:
    used = "did" if summary["about"]["temperatures"] else "did not"

    def error(three: Sequence[float]) -> str:
        return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * e for e in three))

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
            [r["exit"], f"{r['temperature']:.2f}", *(error(r[k]) for k in ("raw", "scaled"))]
            for r in summary["reliability"]
        ],
    )
    yield _figure("reliability", summary)


def _leaving_classes(classes: Sequence[Mapping[str, Any]]) -> str:
    """Which class leaves first and which last, ``classes`` being in that order."""
    if classes[0]["mean_exit"] == classes[-1]["mean_exit"]:
        return "Under the best policy no class of test samples leaves earlier than another."
    first, last = (
        f"`{row['class']}` (after exit {row['mean_exit']:.1f} on average, "
        f"{row['before_final']:.0%} before the final one)"
        for row in (classes[0], classes[-1])
    )
    return f"Under the best policy, test samples of {first} leave earliest, those of {last} latest."


def _leaving(summary: Mapping[str, Any]) -> Iterable[str]:
    leaving = summary["leaving"]
    yield "## Which samples are easy"
    yield _leaving_classes(leaving["classes"])
    yield _figure("leaving", summary)
    yield _figure("confusion", summary)
    samples, unit = leaving["exit_rules"]["full"]["n"], summary["about"]["unit"]
    yield (
        f"Overthinking: {leaving['overthinking']:,} of {samples:,} samples "
        f"({leaving['overthinking'] / samples:.1%}) are right at an earlier exit and wrong at the "
        "final one. An oracle that lets each sample leave at its first right exit (at the final "
        "one if none is) would win them all; no exit rule can be more accurate. Predicted:"
    )
    yield table(
        ["", "accuracy", "time", "speed-up"],
        [
            [exit_rule_in_words(rule), percent(row), seconds(row["seconds"], unit),
             times(row["speedup"])]
            for rule, row in leaving["exit_rules"].items()
        ],
    )  # fmt: skip
    yield _figure("agreement", summary)


def _why(best: Mapping[str, Any], summary: Mapping[str, Any], what: str) -> str:
    """Which was chosen, by which rule, and how it fares."""
    of, unit = best["selection"]["of"], summary["about"]["unit"]
    if not best["selection"]["satisfied"]:
        rule = rule_in_words(best, summary)
        return (
            f"**No {what} of {of} is faster than the full network and satisfies the rule ({rule}): "
            "all exits disabled.**"
        )
    val, test, judged = best["val"], best["test"], best["expected"]
    lost = (judged["lost"] - judged["gained"]) / judged["n"]
    values = " ".join(map(threshold, best["thresholds"]))
    values_in_turn = "" if "cutoff" in best["origin"] else f", in turn {values}"
    return (
        f"**Best {what}: {origin(best['origin'])}**{values_in_turn}. Of {of} candidates it is "
        f"{rule_in_words(best, summary)}, judged on {judged['n']:,} validation samples: "
        f"{judged['accuracy']:.2%} there against {judged['accuracy'] + lost:.2%} "
        f"({signed(-lost)} points; with {target(best['selection']['confidence'])} confidence "
        f"{promised(best)}). All validation samples take {seconds(val['seconds'], unit)} "
        f"against {seconds(summary['full_network']['val']['seconds'], unit)}. On test data: "
        f"{percent(test)}, {points(best['against_full_network'])} points, "
        f"{seconds(test['seconds'], unit)}, "
        f"{times(test['speedup'])} (predicted)."
    )


def _live_sentence(live: Mapping[str, float] | None, summary: Mapping[str, Any]) -> str:
    if live is None:
        return ""
    n = summary["full_network"]["test"]["n"]
    measured, predicted = live["seconds_measured"], live["seconds_predicted"]
    speed = fast(outcome({"live": live}, summary))
    return (
        f"Live, every batch in turn with the full network: accuracy {percent(live)}, {speed}; "
        f"predicted {times(live['speedup_predicted'])}. {seconds(measured)} for all, "
        f"{a_sample(measured / n)} a sample (predicted {seconds(predicted)} and "
        f"{a_sample(predicted / n)})."
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
        line += [percent(r), seconds(r["seconds"], unit)]
        if thresholds:
            line[1:1] = [threshold(thresholds[r["exit"]]) if r["exit"] in thresholds else ""]
        if val:
            line.insert(-1, percent(val[i]))
        body.append(line)
    return table(header, body[1:] + body[:1])


def _figure(name: str, summary: Mapping[str, Any]) -> str:
    """A figure, and below it what is seen and what follows."""
    seen = caption(name, summary["about"]["ran_live"], trained(summary))
    return f"![{name.replace('_', ' ')}](figures/{name}.svg)\n*{seen}*"
