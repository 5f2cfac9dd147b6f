"""The first lines of the summary: what to use, how accurate, how fast, how sure; a sentence a task;
and a warning where the machine was disturbed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from offramp.report.words import (
    a_sample,
    accuracy,
    digits_of,
    listed,
    percent,
    points,
    signed,
    target,
    times,
)
from offramp.scoring.criteria import CRITERIA

RULES_IN_WORDS = {
    "fastest_within_drop": "the fastest that on new data loses at most {points:.4g} points of "
    "accuracy against the full network, with {sure} confidence",
    "fastest_above_accuracy": "the fastest with an accuracy of at least {min_accuracy:.1%} on new "
    "data, with {sure} confidence",
    "best_accuracy_per_second": "the most accuracy per {unit}",
    "knee": "the knee of the frontier of time against accuracy",
}
NONE = "none is faster than the full network and satisfies the rule"
# Live and predicted speed-ups further apart than this, and than the run's halves are: something
# else used the machine. Or halves so far apart, which small ones are not by themselves.
DISTURBED, UNSTEADY = 0.15, 0.5
# All that takes timings.
MEASURE_AGAIN = "snakemake --cores all --forcerun logits probe verification"


def answer(summary: Mapping[str, Any]) -> Iterable[str]:
    """The paragraphs that a summary opens with: plain words, which are reStructuredText as well as
    Markdown."""
    yield from warning(summary)
    yield from (
        _to_use(summary) if summary["best"]["selection"]["satisfied"] else _nothing_to_use(summary)
    )
    yield "\n".join(f"- {line}" for line in _a_line_a_task(summary))


def warning(summary: Mapping[str, Any]) -> Iterable[str]:
    """A paragraph where times can't be trusted, else nothing."""
    proof = summary["verification"]
    if not proof:  # nothing was timed live
        return
    best = _apart(summary["best"]["live"])
    error = max(proof["median_speedup_error"], best["error"])
    spread = max(proof["median_spread"], best["spread"])
    if error <= max(DISTURBED, spread) and spread <= UNSTEADY:
        return
    yield (
        "**Warning: this machine was disturbed, and the times below can't be trusted.** Predicted "
        f"and live speed-ups differ by {error:.0%}, two halves of the same live run by "
        f"{spread:.0%}. Accuracies and who leaves where stand; the choice of the fastest rests on "
        f"these times. When nothing else runs here, measure again: `{MEASURE_AGAIN}`, with the "
        "same --configfile as before."
    )


def _apart(live: Mapping[str, float]) -> dict[str, float]:
    """How far a live run is from its prediction, and its halves from each other."""
    return {
        "error": abs(live["speedup_predicted"] / live["speedup_measured"] - 1),
        "spread": live["speedup_high"] / live["speedup_low"] - 1,
    }


def _to_use(summary: Mapping[str, Any]) -> Iterable[str]:
    """Three sentences on the best policy."""
    best, full = summary["best"], summary["full_network"]["test"]
    reached, judged = outcome(best, summary), best["expected"]
    how = "live it is" if reached["live"] else "by the tables"
    fitted = CRITERIA[summary["about"]["criterion"]].fitted
    estimate = ", which also fitted the criterion, so this is an estimate" if fitted else ""
    yield f"**Use policies/best.json: {_leaves_where(summary)}** ({origin(best['origin'])})."
    yield (
        f"On the {full['n']:,} test samples it is {percent(reached)} right, "
        f"{_against(best['against_full_network'])} the full network's {accuracy(full)}, and {how} "
        f"{fast(reached, '**')}, {_time_a_sample(reached, summary)} a sample in place of "
        f"{_time_a_sample(reached, summary, reached['speedup'])}."
    )
    yield (
        f"How sure: of {best['selection']['of']} candidates it is {rule_in_words(best, summary)}, "
        f"judged on {judged['n']:,} validation samples{_bound(best)}{estimate}"
        f"{_proven(summary, '; and ')}."
    )


def _nothing_to_use(summary: Mapping[str, Any]) -> Iterable[str]:
    """Three sentences where no candidate satisfies the rule."""
    best, full, unit = summary["best"], summary["full_network"], summary["about"]["unit"]
    n, of = full["test"]["n"], best["selection"]["of"]
    yield (
        f"**Use the full network: none of {of} policies is faster and satisfies the rule** "
        f"({rule_in_words(best, summary)})."
    )
    yield (
        f"On the {n:,} test samples it is {percent(full['test'])} right, and takes "
        f"{a_sample(full['test']['seconds'] / n, unit)} a sample."
    )
    yield (
        f"More than {full['val']['n']:,} validation samples, or another selection.rule or limit of "
        f"it, may let one pass{_proven(summary, '; ')}."
    )


def _leaves_where(summary: Mapping[str, Any]) -> str:
    """Who leaves where under the best policy, for someone who has only this sentence."""
    enabled = {k: t for k, t in enumerate(summary["best"]["thresholds"], 1) if t is not None}
    if not enabled:
        return "no side exit is enabled"
    name = summary["about"]["criterion"].replace("_", " ")
    scaled = ", of logits divided by the temperatures," if summary["about"]["temperatures"] else ""
    every = len(enabled) == len(summary["best"]["thresholds"]) > 1
    exits = f"1 to {len(enabled)}" if every else listed([str(k) for k in enabled])
    same = len(set(enabled.values())) == 1
    values = [f"{t:.3g}" for t in enabled.values()][: 1 if same else None]
    return (
        f"at exit{'s' if len(enabled) > 1 else ''} {exits} those leave whose {name}{scaled} is "
        f"at most {listed(values)}{'' if same else ' in turn'}"
    )


def _a_line_a_task(summary: Mapping[str, Any]) -> Iterable[str]:
    """An answer to every task, in a line each."""
    one_a, one_b, two_a, two_b = (summary[f"task_{name}"] for name in ("1a", "1b", "2a", "2b"))
    yield (
        f"**1a.** With the cutoff {one_a['cutoff']:g} at every side exit: "
        f"{_task_outcome(one_a, summary)}. "
        f"{hardest(one_a['test'], summary['exit_accuracy'])}".strip()
    )
    best = one_b["best"]
    yield f"**1b.** Of {one_b['cutoffs']} cutoffs, " + (
        f"the best is {best['origin']['cutoff']:.4f}: {_task_outcome(best, summary)}."
        if best["selection"]["satisfied"]
        else f"{NONE} ({rule_in_words(best, summary)})."
    )
    where = "over all exits" if two_a["method"] == "joint" else "at every exit"
    yield (
        f"**2a.** With {target(two_a['target'])} wanted {where}, and thresholds from validation "
        f"data: {_task_outcome(two_a, summary)}. {_target_held(two_a)}"
    )
    best = two_b["best"]
    calibrated_on = "training data" if trained(summary) else "half of the validation data"
    yield f"**2b.** Of the sets of thresholds calibrated on {calibrated_on}, " + (
        f"the best is that for {target(best['origin']['target'])} wanted: "
        f"{_task_outcome(best, summary)}."
        if best["selection"]["satisfied"]
        else f"{NONE} ({rule_in_words(best, summary)})."
    )
    yield f"**1b or 2b?** {compared(summary)}"


def trained(summary: Mapping[str, Any]) -> bool:
    """Whether there is a training split; own logits may come without one."""
    return "train" in summary["about"]["splits"]


def outcome(task: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """How a policy fares on test data, live if it ran, else as the tables predict: its accuracy
    with the interval, ``seconds`` for all, the speed-up and, if ``live``, those of the halves."""
    live = task["live"]
    if live:
        keys = ("accuracy", "low", "high", "speedup_low", "speedup_high")
        ends = {key: live[key] for key in keys}
        values = {key: live[f"{key}_measured"] for key in ("seconds", "speedup")}
        return {**ends, **values, "live": True}
    rows = task["test"]
    # Where no candidate satisfies the rule all exits are disabled.
    row = (rows[0] if isinstance(rows, list) else rows) or summary["full_network"]["test"]
    speedup = row.get("speedup", 1.0)
    accuracies = {key: row[key] for key in ("accuracy", "low", "high", "seconds")}
    same = dict.fromkeys(("speedup", "speedup_low", "speedup_high"), speedup)
    return {**accuracies, **same, "live": False}


def _task_outcome(task: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """How a policy fares on test data, live where it ran."""
    reached = outcome(task, summary)
    return (
        f"{accuracy(reached)} right on test data ({points(task['against_full_network'])} points), "
        f"{_speed(reached)} times as fast, {_time_a_sample(reached, summary)} a sample"
    )


def hardest(rows: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]]) -> str:
    """Why those who reach the final exit are right so seldom, where they are; ``rows`` are a
    policy's on test data, overall first, ``alone`` how accurate each exit is for all samples."""
    final, everyone = rows[-1], alone[-1]
    if len(rows) == 2 or not final["n"] or final["accuracy"] >= everyone["test"]:
        return ""
    return (
        f"Those who stay to exit {final['exit']} are only {accuracy(final)} right there, where all "
        f"samples together would be {everyone['test']:.1%}: they are the {final['n']:,} that no "
        "earlier exit was sure of, the hardest."
    )


def _target_held(task: Mapping[str, Any]) -> str:
    """Whether the wanted accuracy holds on test data, in a sentence."""
    if task["method"] == "joint":
        held = task["test"][0]["accuracy"] >= task["target"]
        return f"On test data that is {'reached' if held else 'missed'}."
    side = [r for r in task["test"] if 0 < r["exit"] <= len(task["thresholds"]) and r["n"]]
    below = sum(r["accuracy"] < task["target"] for r in side)
    if not below:
        return "On test data every side exit in use reached it."
    return f"On test data {below} of {len(side)} side exits in use did not reach it."


def compared(summary: Mapping[str, Any]) -> str:
    """The best shared cutoff against the best set of thresholds, in words."""
    ends = summary["task_1b"]["best"], summary["task_2b"]["best"]
    if not all(best["selection"]["satisfied"] for best in ends):
        return "There is nothing to compare, since one of them has no policy that is good enough."
    paired, (shared, calibrated) = (
        summary["task_2b"]["against_task_1b"],
        (outcome(best, summary) for best in ends),
    )
    right = (paired["low"] > 0) - (paired["high"] < 0)
    quick = (calibrated["speedup_low"] > shared["speedup_high"]) - (
        calibrated["speedup_high"] < shared["speedup_low"]
    )
    verdict = {
        (0, 0): "Neither is better beyond chance",
        (1, -1): "2b is more accurate, 1b faster",
        (-1, 1): "2b is faster, 1b more accurate",
    }.get((right, quick), "2b is better" if right + quick > 0 else "1b is better")
    explained = shared["live"] and not quick
    spread = ", which the spread of the runs may explain" if explained else ""
    what = "speed-up" if shared["live"] else "predicted speed-up"
    return (
        f"{verdict}: with a threshold for each exit (2b) in place of one for all (1b), accuracy "
        f"changes by {points(paired)} points, and the {what} is {times(calibrated['speedup'])} "
        f"in place of {times(shared['speedup'])}{spread}."
    )


def fast(reached: Mapping[str, Any], mark: str = "") -> str:
    """How fast a policy is against the full network, with the halves of a live run; ``mark`` stands
    before and after what counts most."""
    ends = f"{reached['speedup_low']:.2f} and {reached['speedup_high']:.2f} in the run's two halves"
    slower = ", so slower" if reached["speedup_high"] < 1 else ""
    how = ends if reached["live"] else "predicted"
    return f"{mark}{_speed(reached)} times as fast{mark}{slower} ({how})"


def _speed(reached: Mapping[str, Any]) -> str:
    return times(reached["speedup"]).removesuffix("x")


def rule_in_words(best: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The rule that a policy was chosen by."""
    selection, unit = best["selection"], summary["about"]["unit"]
    limits = {"points": 100 * selection["max_drop"], "sure": target(selection["confidence"])}
    limits["unit"] = "second" if unit == "s" else unit
    return RULES_IN_WORDS[selection["rule"]].format(**limits | dict(selection))


def promised(best: Mapping[str, Any]) -> str:
    """What is sure of a chosen policy: what was tested, else a bound that allows for the choice."""
    selection = best["selection"]
    if selection["rule"] == "fastest_within_drop":
        return f"at most {100 * selection['max_drop']:g} points lost on new data, as was tested"
    if selection["rule"] == "fastest_above_accuracy":
        return f"at least {selection['min_accuracy']:.2%} on new data, as was tested"
    bound = math.ceil(1e4 * best["expected"]["drop_at_most"]) / 100  # never below what it was
    return f"at most {bound:.2f} points lost on new data, a bound for all candidates at once"


def _bound(best: Mapping[str, Any]) -> str:
    """The bound that a rule without a promise leaves, to stand after its name."""
    if "confidence" in RULES_IN_WORDS[best["selection"]["rule"]]:
        return ""
    return f", with {target(best['selection']['confidence'])} confidence {promised(best)}"


def origin(source: Mapping[str, Any]) -> str:
    """Where a policy came from."""
    if "cutoff" in source:
        return f"the cutoff {source['cutoff']:.4f} at every side exit"
    known = {
        "train": "training data",
        "val": "validation data",
        "val_half": "half of the validation data",
    }.get(source["calibrated_on"], source["calibrated_on"])
    return f"thresholds from {known} for {target(source['target'])} wanted"


def _against(paired: Mapping[str, float]) -> str:
    """So many points below, above, or the same as."""
    digits = digits_of(paired["low"], paired["high"])
    value = signed(paired["points"], digits)
    if not float(value):
        return "the same as"
    sign = -1 if value[0] == "-" else 1
    ends = sorted(sign * paired[end] for end in ("low", "high"))
    low, high = (signed(end, digits).removeprefix("+") for end in ends)
    return f"{value[1:]} points [{low}, {high}] {'below' if sign < 0 else 'above'}"


def _time_a_sample(
    reached: Mapping[str, Any], summary: Mapping[str, Any], factor: float = 1.0
) -> str:
    """The time of one test sample, times a factor."""
    n = summary["full_network"]["test"]["n"]
    return a_sample(factor * reached["seconds"] / n, summary["about"]["unit"])


def _proven(summary: Mapping[str, Any], before: str) -> str:
    """What live runs say of the tables, with what stands ``before`` it; nothing where none ran."""
    proof = summary["verification"]
    if not proof:
        return ""
    return f"{before}of {proof['decisions']:,} decisions taken live, {_differ(proof)}"


def _differ(proof: Mapping[str, Any]) -> str:
    if not proof["differ"]:
        return "not one differs from the tables"
    return (
        f"{proof['differ']:,} differ from the tables, {proof['excused']:,} of them within what "
        "float sums may differ"
    )
