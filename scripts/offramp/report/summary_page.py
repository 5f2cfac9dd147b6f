"""The summary as a page to read."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offramp.common.markdown import parts_table, table
from offramp.report.answer import answer, compared, fast, hardest, origin, promised, rule_in_words
from offramp.report.captions import CAPTIONS
from offramp.report.results import EXIT_RULES
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
METHODS_IN_WORDS = {
    "empirical": "Each threshold is the largest at which, on validation data, those who leave "
    "there are at least {target} right; an exit without one is disabled. On test data:",
    "guaranteed": "With {confidence} confidence over the draw of the validation data, those who "
    "leave at each enabled exit are at least {target} right on new data, at all exits at once. On "
    "test data:",
    "joint": "The thresholds of least time found at which, on validation data, at least {target} "
    "of all samples are expected to be right; an exit may be disabled. On test data:",
}
# The scores of criteria, p being an exit's probabilities and z its logits.
SCORES_IN_WORDS = {
    "entropy": "H = -sum_c p_c ln p_c",
    "max_probability": "1 - max_c p_c",
    "margin": "1 - (largest p - second largest p)",
    "energy": "-ln sum_c exp z_c",
    "patience": "1 / exits in a row that give the same label",
    "agreement": "1 - sum_c p_c q_c, q being the p of the exit before",
    "risk": "how likely leaving here loses a right answer, by logistic regression",
}


def as_markdown(s: Mapping[str, Any]) -> str:
    """The summary as a page to read."""
    parts = [
        [f"# Summary: {s['about']['model']} on {s['about']['dataset']}"],
        answer(s),
        _measured(s),
        _task_1a(s),
        _task_1b(s),
        _task_2a(s),
        _task_2b(s),
        _best_of_all(s),
        _proof(s),
        _reliability(s),
        _easy(s),
    ]
    return "\n\n".join(line for part in parts for line in part if line) + "\n"


def _measured(s: Mapping[str, Any]) -> Iterable[str]:
    about, full = s["about"], s["full_network"]["test"]
    criterion, splits = about["criterion"], about["splits"]
    fitted = (
        ", fitted to validation data, so all that is promised of new data is an estimate"
        if CRITERIA[criterion].fitted
        else ""
    )
    yield "## What was measured"
    yield (
        f"`{about['model']}` on {about['dataset']} with {about['classes']} classes: "
        f"{splits['train']:,} training samples, {splits['val']:,} for validation (every choice is "
        f"made there), {splits['test']:,} for the test (looked at once, to report). Batches of "
        f"{about['batch_size']} on {about['device_name']}, {about['threads']} threads, torch "
        f"{about['torch']}. Samples leave by {criterion.replace('_', ' ')} of "
        f"{'logits divided by temperatures' if about['temperatures'] else 'raw logits'}{fitted}. "
        f"Weights sha256 `{about['weights_sha256'][:12]}`, code {about['git_commit'][:12]}."
    )
    yield _formulas(s)
    yield (
        f"Full network on test data: accuracy {percent(full)}, {seconds(full['seconds'])} for "
        f"{full['n']:,} samples (predicted). Intervals are 95 % (exact). Times at an exit are "
        "those of its stage: block, head, decision, removal of those who leave. Points are "
        "percentage points, against the full network and on the same samples (paired)."
    )


def _formulas(s: Mapping[str, Any]) -> str:
    """How who leaves, accuracy and time are reckoned, as a block of code."""
    about, exits = s["about"], len(s["exit_accuracy"])
    name, ends = about["criterion"], CRITERIA[about["criterion"]].range
    reach = ", {:g} to {:.7g}".format(*ends(about["classes"])) if ends else ""
    unit = f" {CRITERIA[name].unit}".rstrip()
    score = "H" if name == "entropy" else "score"
    lines = {
        name.replace("_", " "): f"{SCORES_IN_WORDS[name]}{reach}{unit}; p = softmax(logits)",
        "leaves": f"at the first exit k with {score}_k <= threshold_k; exit {exits} takes all else",
        "accuracy": "sum_k (n_k / N) accuracy_k = right answers / N",
        "time": "sum over batches and stages k of block_k(n) + head_k(n) + decide_k(n) + "
        "remove_k(n, stay)",
        "": "n: samples of the batch that reach stage k; the full network: all blocks, one head",
        "speed-up": "time of the full network / time of the policy",
    }
    width = max(map(len, lines)) + 2
    return "\n".join(["```text", *(f"{k:{width}}{v}" for k, v in lines.items()), "```"])


def _task_1a(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_1a"]
    yield "## Task 1a: the network, and one fixed cutoff"
    yield (
        "> What is the network made of? And if after each exit the samples leave whose score is at "
        f"most c = {task['cutoff']:g}, how accurate is each exit, and how long does it take?"
    )
    yield _exit_table(task["test"], {})
    yield hardest(task["test"], s["exit_accuracy"])
    yield _live_sentence(task["live"], s)
    yield _figure("report_cutoff")
    yield "Accuracy of each exit when all samples of a split leave there:"
    yield table(
        ["exit", "train", "val", "test"],
        [[r["exit"], *(f"{r[k]:.2%}" for k in ("train", "val", "test"))]
         for r in s["exit_accuracy"]],
    )  # fmt: skip
    yield "The network, part by part:"
    yield parts_table(task["network"])


def _task_1b(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_1b"]
    best, report, full = task["best"], s["task_1a"]["cutoff"], s["full_network"]
    yield f"## Task 1b: {task['cutoffs']} cutoffs"
    yield (
        "> How do total time and overall accuracy depend on the cutoff, over its whole range? "
        "Which cutoff is the best, and why?"
    )
    names = {report: "report cutoff"}
    if best["origin"]:
        cutoff = best["origin"]["cutoff"]
        names[cutoff] = " and ".join([names[cutoff], "best"] if cutoff in names else ["best"])
    yield _why(best, full, "cutoff")
    if task["next_faster"] and best["origin"]:
        other = task["next_faster"]
        yield (
            f"The next faster cutoff, {other['cutoff']:.4f}, saves "
            f"{seconds(best['val']['seconds'] - other['seconds'])} of "
            f"{seconds(best['val']['seconds'])} on val and has "
            f"{other['accuracy']:.2%} there, against {best['val']['accuracy']:.2%}."
        )
    yield _live_sentence(best["live"], s)
    yield "Some of the cutoffs on test data, times predicted (`sweep.parquet` has all, by exit):"
    yield table(
        ["cutoff", "accuracy", "time", "speed-up", ""],
        [
            [f"{r['cutoff']:.4f}", percent(r), seconds(r["seconds"]), times(r["speedup"]),
             names.get(r["cutoff"], "")]
            for r in task["compared"]
        ],
    )  # fmt: skip
    for name in ("time_accuracy", "time_cutoff", "accuracy_cutoff", "exit_shares"):
        yield _figure(name)


def _task_2a(s: Mapping[str, Any]) -> Iterable[str]:
    task = s["task_2a"]
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
    yield _exit_table(task["test"], thresholds, val=task["val"])
    if not joint:
        yield _below_target(task, thresholds)
    yield _live_sentence(task["live"], s)
    yield _figure("target")


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


def _task_2b(s: Mapping[str, Any]) -> Iterable[str]:
    task, full = s["task_2b"], s["full_network"]
    yield "## Task 2b: a range of wanted accuracies"
    yield (
        "> Which thresholds and which time follow from other wanted accuracies, calibrated on "
        "training data? Which set of thresholds is the best, and how does it fare on test data?"
    )
    yield _why(task["best"], full, "train-calibrated set of thresholds")
    yield _live_sentence(task["best"]["live"], s)
    yield (
        "Some of the wanted accuracies, figures on test data, times predicted; beside them what "
        "the same target gives when it is calibrated on validation data (`calibration.parquet` has "
        "all thresholds of both, exit by exit):"
    )
    yield _targets_table(s)
    yield _figure("targets")
    yield _fallen_short(s)


def _targets_table(s: Mapping[str, Any]) -> str:
    """The targets calibrated on train, those that come to the same in one row, some of them."""
    task, best = s["task_2b"], s["task_2b"]["best"]["origin"]
    split = {
        split: {r["target"]: r for r in task["targets"] if r["calibrated_on"] == split}
        for split in ("train", "val")
    }

    def same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return all(
            rows[row["target"]]["thresholds"] == rows[other["target"]]["thresholds"]
            for rows in split.values()
        )

    groups: list[list[Mapping[str, Any]]] = []
    for row in split["train"].values():
        if groups and same(row, groups[-1][-1]):
            groups[-1].append(row)
        else:
            groups.append([row])
    wanted = {s["task_2a"]["target"], best["target"] if best else None}
    body = []
    for group in _some(groups, wanted):
        first, row = group[0], group[-1]
        other = split["val"][row["target"]]
        ends = [target(first["target"]), *([target(row["target"])] if len(group) > 1 else [])]
        mark = " (best)" if best and best["target"] in [r["target"] for r in group] else ""
        body.append(
            [" to ".join(ends) + mark, " ".join(map(threshold, row["thresholds"])),
             percent(row), seconds(row["seconds"]), times(row["speedup"]),
             accuracy(other), times(other["speedup"])]
        )  # fmt: skip
    header = ["target", "thresholds 1 to K-1", "accuracy", "time", "speed-up"]
    return table([*header, "from val: accuracy", "from val: speed-up"], body)


def _some(groups: Sequence[Sequence[Mapping[str, Any]]], wanted: set[float | None]) -> list:
    """At most TARGETS_SHOWN of the groups, evenly spread, and those of the wanted targets."""
    steps = min(TARGETS_SHOWN, len(groups)) - 1
    places = {round(i * (len(groups) - 1) / max(steps, 1)) for i in range(steps + 1)}
    return [
        group
        for i, group in enumerate(groups)
        if i in places or wanted & {row["target"] for row in group}
    ]


def _fallen_short(s: Mapping[str, Any]) -> str:
    missed = {
        split: sum(
            len(r["exits_below_target"])
            for r in s["task_2b"]["targets"]
            if r["calibrated_on"] == split
        )
        for split in ("train", "val")
    }
    joint = s["task_2a"]["method"] == "joint"
    what = "sets of thresholds that fall" if joint else "enabled side exits that fall"
    return (
        f"Over all targets, {what} below their target on test data: {missed['train']} when "
        f"calibrated on training data, {missed['val']} when calibrated on validation data. The "
        "network has seen the training data, so on them it looks surer and more accurate than it "
        "is, and thresholds from them are too generous."
    )


def _best_of_all(s: Mapping[str, Any]) -> Iterable[str]:
    n = s["full_network"]["test"]["n"]
    yield "## Which is the best of all?"
    places = {
        "report_cutoff": s["task_1a"],
        "best_cutoff": s["task_1b"]["best"],
        "target": s["task_2a"],
        "best_train": s["task_2b"]["best"],
        "best": s["best"],
    }
    yield table(
        ["task", "policy", "accuracy", "points", "speed-up, live (halves)", "time a sample"],
        [
            [TASKS[name], f"`{name}`", percent(p["live"]), points(p["against_full_network"]),
             f"{times(p['live']['speedup_measured'])} ({p['live']['speedup_low']:.2f}, "
             f"{p['live']['speedup_high']:.2f})",
             a_sample(p["live"]["seconds_measured"] / n)]
            for name, p in places.items()
        ],
    )  # fmt: skip
    yield compared(s)
    yield _why(s["best"], s["full_network"], "policy")
    yield _overlooked(s)
    yield _live_sentence(s["best"]["live"], s)


def _overlooked(s: Mapping[str, Any]) -> str:
    """Why test data may know a better one; nothing where it knows none."""
    if not s["overlooked"] or not s["best"]["selection"]["satisfied"]:
        return ""
    one = s["overlooked"] == 1
    return (
        f"On test data, {s['overlooked']} other cutoff{'' if one else 's'} or set"
        f"{'' if one else 's'} of thresholds {'is' if one else 'are'} faster and no less accurate. "
        "That is known only afterwards: on the "
        f"{s['best']['expected']['n']:,} validation samples the rule could not tell."
    )


def _proof(s: Mapping[str, Any]) -> Iterable[str]:
    proof = s["verification"]
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
    yield _figure("prediction")
    yield _figure("entropy")


def _reliability(s: Mapping[str, Any]) -> Iterable[str]:
    used = "did" if s["about"]["temperatures"] else "did not"

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
            for r in s["reliability"]
        ],
    )
    yield _figure("reliability")


def _easy_classes(classes: Sequence[Mapping[str, Any]]) -> str:
    """Which class leaves first and which last, ``classes`` being in that order."""
    if classes[0]["mean_exit"] == classes[-1]["mean_exit"]:
        return "Under the best policy no class of test samples leaves earlier than another."
    first, last = (
        f"`{row['class']}` (after exit {row['mean_exit']:.1f} on average, "
        f"{row['before_final']:.0%} before the final one)"
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
        f"({found['overthinking'] / samples:.1%}) are right at an earlier exit and wrong at the "
        "final one. An oracle that lets each sample leave at its first right exit (at the final "
        "one if none is) would win them all; no exit rule can be more accurate. Predicted:"
    )
    yield table(
        ["", "accuracy", "time", "speed-up"],
        [
            [EXIT_RULES[rule], percent(row), seconds(row["seconds"]), times(row["speedup"])]
            for rule, row in found["exit_rules"].items()
        ],
    )
    yield _figure("agreement")


def _why(best: Mapping[str, Any], full: Mapping[str, Any], what: str) -> str:
    """Which was chosen, by which rule, and how it fares."""
    of = best["selection"]["of"]
    if not best["selection"]["satisfied"]:
        rule = rule_in_words(best)
        return f"**No {what} of {of} satisfies the rule ({rule}): all exits disabled.**"
    val, test, judged = best["val"], best["test"], best["expected"]
    lost = (judged["lost"] - judged["gained"]) / judged["n"]
    values = " ".join(map(threshold, best["thresholds"]))
    own = "" if "cutoff" in best["origin"] else f", in turn {values}"
    return (
        f"**Best {what}: {origin(best['origin'])}**{own}. Of {of} candidates it is "
        f"{rule_in_words(best)}, judged on {judged['n']:,} validation samples: "
        f"{judged['accuracy']:.2%} there against {judged['accuracy'] + lost:.2%} "
        f"({signed(-lost)} points; with {target(best['selection']['confidence'])} confidence "
        f"{promised(best)}). All validation samples take {seconds(val['seconds'])} against "
        f"{seconds(full['val']['seconds'])}. On test data: {percent(test)}, "
        f"{points(best['against_full_network'])} points, {seconds(test['seconds'])}, "
        f"{times(test['speedup'])} (predicted)."
    )


def _live_sentence(live: Mapping[str, float], s: Mapping[str, Any]) -> str:
    n = s["full_network"]["test"]["n"]
    measured, predicted = live["seconds_measured"], live["seconds_predicted"]
    return (
        f"Live, every batch in turn with the full network: accuracy {percent(live)}, {fast(live)}; "
        f"predicted {times(live['speedup_predicted'])}. {seconds(measured)} for all, "
        f"{a_sample(measured / n)} a sample (predicted {seconds(predicted)} and "
        f"{a_sample(predicted / n)})."
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
        line += [percent(r), seconds(r["seconds"])]
        if thresholds:
            line[1:1] = [threshold(thresholds[r["exit"]]) if r["exit"] in thresholds else ""]
        if val:
            line.insert(-1, percent(val[i]))
        body.append(line)
    return table(header, body[1:] + body[:1])


def _figure(name: str) -> str:
    """A figure, and below it what is seen and what follows."""
    return f"![{name.replace('_', ' ')}](figures/{name}.svg)\n*{CAPTIONS[name]}*"
