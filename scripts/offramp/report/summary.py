"""The answers to tasks 1a, 1b, 2a and 2b, from the tables, as JSON and as Markdown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp.common.files import write_text
from offramp.common.intervals import interval
from offramp.report.results import (
    Results,
    add_intervals,
    against_full_network,
    calibration_rows_of,
    class_names,
    difference,
    full_network,
    leaving_counts,
    policy_rows,
    sweep_rows_of,
)
from offramp.report.summary_page import as_markdown


def write_summary(
    results: Results, config: Mapping[str, Any], markdown: str | Path, json_path: str | Path
) -> None:
    """Write both forms of the summary; the Markdown says in words what the JSON holds."""
    summary = summarize(results, config)
    write_text(json_path, json.dumps(summary, indent=2) + "\n")
    write_text(markdown, as_markdown(summary))


def summarize(results: Results, config: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of the summary, as plain numbers, lists and strings."""
    return {
        "about": {
            **{k: results.origin[k] for k in ("dataset", "model", "weights_sha256", "git_commit")},
            **{k: results.origin.get(k) for k in ("device_name", "threads", "torch")},
            "unit": results.unit,
            "logits": results.origin.get("logits"),
            "ran_live": hasattr(results, "verification"),
            "run": config["logits"] if isinstance(config.get("logits"), str) else None,
            "batch_size": config["batch_size"],
            "classes": leaving_counts(results).shape[1],
            "splits": {split: len(correct) for split, (_, correct) in results.scores.items()},
            "criterion": results.policies["best"].criterion,
            "temperatures": results.policies["best"].temperatures,
        },
        "full_network": {split: full_network(results, split) for split in ("val", "test")},
        "exit_accuracy": exit_accuracy(results),
        "task_1a": {
            "network": results.network.to_dict("records") if hasattr(results, "network") else None,
            "cutoff": config["sweep"]["report_cutoff"],
            "test": records(policy_rows(results, "report_cutoff", "test")),
            "against_full_network": against_full_network(results, "report_cutoff", "test"),
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
            "against_full_network": against_full_network(results, "target", "test"),
            "live": live(results, "target"),
        },
        "task_2b": {
            "targets": target_rows(results),
            "best": chosen(results, "best_train"),
            "against_task_1b": difference(results, "best_train", "best_cutoff", "test"),
        },
        "best": chosen(results, "best"),
        "overlooked": overlooked(results),
        "verification": verification(results),
        "reliability": reliability(results),
        "leaving": leaving(results),
        "config": dict(config),
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


def live(results: Results, policy: str) -> dict[str, float] | None:
    """What the live cascade measured of a chosen policy on test data; None where none ran."""
    if not hasattr(results, "verification"):
        return None
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


def overlooked(results: Results) -> int:
    """How many of the cutoffs and calibrated thresholds are on test data both faster than the best
    policy and at least as accurate. Known too late to choose by; the count says what it costs to
    ask for proof."""
    best = policy_rows(results, "best", "test")
    if best.empty:
        return 0
    overall = best[best["exit"] == 0].iloc[0]
    tables = [table[table["exit"] == 0] for table in (results.sweep, results.calibration)]
    rows = pd.concat([table[table["split"] == "test"] for table in tables])
    better = (rows["seconds"] < overall["seconds"]) & (rows["correct"] >= overall["correct"])
    return len(rows[better].drop_duplicates(["seconds", "correct"]))


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
    targets = []
    for calibrated_on in ("train", "val") if "train" in results.scores else ("val",):
        rows = calibration_rows_of(results, "test", calibrated_on=calibrated_on)
        for target, group in rows.groupby("target"):
            side = group[(group["exit"] > 0) & (group["exit"] < group["exit"].max())]
            thresholds = [None if pd.isna(t) else t for t in side["threshold"]]
            judged = group[group["exit"] == 0] if group["method"].iloc[0] == "joint" else side
            missed = judged[(judged["n"] > 0) & (judged["accuracy"] < target)]
            targets.append(
                {"calibrated_on": calibrated_on, "target": target, "thresholds": thresholds}
                | {"exits_below_target": missed["exit"].tolist()}
                | records(group[group["exit"] == 0])[0]
            )
    return targets


def verification(results: Results) -> dict[str, Any] | None:
    """How far live runs and tables agree; None where nothing ran live."""
    if not hasattr(results, "verification"):
        return None
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
    exits = []
    for exit_, temperature in zip(
        results.temperatures["exit"], results.temperatures["temperature"], strict=True
    ):
        of_exit = overall[overall["exit"] == exit_].set_index("scaled")
        errors = {
            name: of_exit.loc[scaled, ["ece", "ece_low", "ece_high"]].tolist()
            for name, scaled in (("raw", False), ("scaled", True))
        }
        exits.append({"exit": int(exit_), "temperature": float(temperature)} | errors)
    return exits


def leaving(results: Results) -> dict[str, Any]:
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
