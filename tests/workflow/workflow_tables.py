"""What the tests of the workflow share: its tables, figures and rules, and slow recounts."""

import math
from types import SimpleNamespace

import pyarrow.parquet as pq
from workflow_helpers import (
    EXITS,
    RESULTS,
    SPLITS,
)

from offramp.figures.draw import draw
from offramp.report.results import read_results

FIGURES = {
    "report_cutoff": "Task 1a",
    "time_accuracy": "Task 1b",
    "time_cutoff": "Task 1b",
    "accuracy_cutoff": "Task 1b",
    "exit_shares": "Task 1b",
    "target": "Task 2a",
    "targets": "Task 2b",
    "entropy": "Look closer",
    "prediction": "Look closer",
    "reliability": "Look closer",
    "leaving": "Look closer",
    "confusion": "Look closer",
    "agreement": "Look closer",
}
DRAWN = {f"figure_{name}" for name in FIGURES}
LOOKED_AT = DRAWN | {"explorer", "summary_page"}
POLICIES = ("report_cutoff", "target", "best_cutoff", "best_train", "best")
# Table -> the split that its metadata name.
TABLES = {
    **{f"logits/{split}": split for split in SPLITS},
    **{f"scores/{split}": split for split in SPLITS},
    **{f"timings/{split}": split for split in SPLITS},
    "timings/probe": "probe",
    "timings": "all",
    "sweep": "all",
    "calibration": "all",
    "optimism": "val",
    "temperatures": "val",
    "reliability": "val, test",
    "confidence": "val, test",
    "verification": "test",
    "leaving": "test",
    "agreement": "test",
    "oracle": "test",
    "network": "all",
    "training": "train",
}
TIMED = [name for name in TABLES if name.startswith(("timings", "logits"))] + ["verification"]
TIMING_RULES = {
    "logits",
    "probe",
    "verification",
    "baseline",
    "benchmark",
    "benchmark_run",
    "export",
}

CONFIDENCE = {"temperatures", "reliability", "figure_reliability"}
PAGE = {"summary", "summary_page"}
FROM_THRESHOLDS = LOOKED_AT - CONFIDENCE | {"policies", "verification", "leaving"} | PAGE
ANALYSIS = FROM_THRESHOLDS | {"sweep", "calibration", "optimism"}
FROM_LOGITS = ANALYSIS | CONFIDENCE | {"logits", "probe", "scores", "timings"}
FROM_WEIGHTS = FROM_LOGITS | {"network"}
# Library module -> the rules whose scripts import it, directly or not, and all that follow them.
RERUN_BY = {
    "data/download": FROM_LOGITS | {"download"},
    # A finished training stands, whatever happens to the code that did it.
    "training/training": set(),
    "tables/files": FROM_WEIGHTS | {"figure_training"},
    "inference/cascade": FROM_LOGITS,
    "thresholds/sweep": FROM_THRESHOLDS | {"sweep"},
    "thresholds/evaluation": ANALYSIS,
    "thresholds/__init__": ANALYSIS,
    "thresholds/calibration": ANALYSIS - {"sweep"},
    "thresholds/optimism": FROM_THRESHOLDS | {"optimism"},
    "thresholds/leaving": {
        *PAGE,
        "leaving",
        "figure_leaving",
        "figure_confusion",
        "figure_agreement",
        "figure_time_accuracy",
    },
    "figures/draw": DRAWN | {"figure_training", "summary_page"},
    "scoring/deferral": set(),
    "inference/baseline": set(),
    "report/summary": PAGE,
    "report/explorer": {"explorer"},
    "report/page": {"summary_page"},
}


def read(folder, name):
    return pq.read_table(folder / RESULTS / f"{name}.parquet")


def metadata(folder, name):
    found = pq.read_schema(folder / RESULTS / f"{name}.parquet").metadata
    return {key.decode(): value.decode() for key, value in found.items()}


def frame(folder, name):
    return read(folder, name).to_pandas()


def all_tables(folder):
    """All tables of a finished run that its figures are drawn from."""
    results = folder / RESULTS
    names = {name for name in TABLES if "/" not in name} - {"optimism", "training"}
    paths = {name: results / f"{name}.parquet" for name in names}
    paths["policies"] = sorted((results / "policies").iterdir())
    paths["scores"] = [results / f"scores/{split}.parquet" for split in SPLITS]
    return read_results(SimpleNamespace(**paths))


def draw_again(folder, to, figures=tuple(FIGURES)):
    """Draw figures of a finished run anew, in this process and from all tables at once."""
    tables = all_tables(folder)
    for name in figures:
        draw(to / f"{name}.svg", tables)


def overall(rows):
    return rows[rows["exit"] == 0]


def slow_entropy(logits):
    """Entropy of one softmax in nats, term by term."""
    largest = max(logits)
    powers = [math.exp(z - largest) for z in logits]
    total = sum(powers)
    terms = [p / total * math.log(p / total) for p in powers if p > 0]
    return min(max(-sum(terms), 0.0), math.log(len(logits)))


def slow_counts(entropy, correct, thresholds):
    """n and correct of those that leave at each exit, 0 being overall, sample by sample."""
    n, right = [0] * (EXITS + 1), [0] * (EXITS + 1)
    for scores, hits in zip(entropy, correct, strict=True):
        fires = [t is not None and h <= t for h, t in zip(scores, thresholds, strict=False)]
        k = fires.index(True) if True in fires else EXITS - 1
        for place in (0, k + 1):
            n[place] += 1
            right[place] += hits[k]
    return n, right


def slow_thresholds(entropy, correct, target):
    """Per exit, the largest entropy of a survivor at which those at or below it are at least as
    accurate as the target."""
    here, thresholds = list(range(len(entropy))), []
    for k in range(EXITS - 1):
        passing = []
        for candidate in {entropy[i][k] for i in here}:
            leave = [i for i in here if entropy[i][k] <= candidate]
            if sum(correct[i][k] for i in leave) / len(leave) >= target:
                passing.append(candidate)
        threshold = max(passing, default=None)
        thresholds.append(threshold)
        here = [i for i in here if threshold is None or entropy[i][k] > threshold]
    return thresholds
