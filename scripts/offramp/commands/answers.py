"""What the commands answer, as plain rows, from the tables of a results folder; without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp import OfframpError
from offramp.common.intervals import paired_difference
from offramp.data.datasets import dataset_of_tables, inputs_file, text_of
from offramp.networks.finding import chosen_for, read_about
from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.policy import Policy, load_policy, outcome_of_tables, policy_scores
from offramp.scoring.scores import read_scores
from offramp.tables.files import origin_of, read, read_logits, same_weights
from offramp.thresholds.evaluation import evaluate_exits
from offramp.thresholds.sweep import sweep_split
from offramp.thresholds.time_model import TimeModel, fit_time_model


class Clock(NamedTuple):
    """How long things take: the time model at the batch size of the run that measured it."""

    model: TimeModel
    table: Any


def read_clock(results: Path) -> Clock:
    """The clock of a results folder."""
    table = read(results / "timings.parquet", "timings")
    sizes = table["batch_size"].to_numpy()
    of_pass = table["split"].to_numpy(zero_copy_only=False) != "probe"
    return Clock(fit_time_model(table, int(sizes[of_pass].max())), table)


def sweep(results: Path, split: str, cutoffs: Sequence[float]) -> list[dict[str, Any]]:
    """Accuracy, predicted seconds and speed-up of shared cutoffs, the lowest first, with the share
    of the samples that leaves at each exit."""
    if not np.isfinite(cutoffs).all():
        raise OfframpError(f"cutoffs: want finite numbers, not {', '.join(map(str, cutoffs))}")
    scored, clock = read_scores(results / f"scores/{split}.parquet"), read_clock(results)
    same_weights([scored.table, clock.table])
    grid = np.unique(cutoffs)
    counts = sweep_split(scored.scores, scored.correct, grid, clock.model)
    seconds = counts["seconds"].sum(axis=1)
    samples = len(scored.scores)
    return [
        {
            "cutoff": float(cutoff),
            "accuracy": int(counts["correct"][m].sum()) / samples,
            "seconds": float(seconds[m]),
            "speedup": float(counts["full"][0] / seconds[m]),
            **{f"exit_{k}": int(n) / samples for k, n in enumerate(counts["n"][m], 1)},
        }
        for m, cutoff in enumerate(grid)
    ]


def policy_file(results: Path, name: str) -> Path:
    """The file of a policy, by its name in the results folder or its path."""
    file = results / f"policies/{name}.json"
    return file if file.exists() else Path(name)


def policy_of_tables(path: Path, weights_sha256: str, side_exits: int) -> Policy:
    """A policy that belongs to tables of the given weights. Raises OfframpError for any other."""
    policy = load_policy(path)
    chosen = chosen_for(path, read_about(path))
    if chosen.sha256 != weights_sha256:
        raise OfframpError(
            f"{path}: chosen for {chosen.model} with weights of sha256 {chosen.sha256[:12]}, where "
            f"the tables are of {weights_sha256[:12]}; name its own folder with --results"
        )
    if len(policy.thresholds) != side_exits:
        raise OfframpError(
            f"{path}: {len(policy.thresholds)} thresholds for {side_exits} side exits"
        )
    return policy


def explain(results: Path, split: str, name: str, sample_id: int) -> dict[str, Any]:
    """What each exit says of a sample, where it leaves under a policy, and why."""
    path = results / f"logits/{split}.parquet"
    dumped = read_logits(path)
    [places] = np.nonzero(dumped.sample_id == sample_id)
    if not len(places):
        raise OfframpError(
            f"{path}: no sample {sample_id}; it has {dumped.sample_id[:3].tolist()}, ..."
        )
    logits = dumped.logits[places]
    origin = origin_of(dumped.table)
    policy = policy_of_tables(
        policy_file(results, name), origin["weights_sha256"], logits.shape[1] - 1
    )
    names = names_of(origin, logits.shape[2])
    leaves = int(outcome_of_tables(policy, logits).exits[0])
    rows = exit_rows(policy, logits, leaves, names)
    answer, truth = rows[leaves - 1]["answer"], names[dumped.label[places[0]]]
    verdict = "right" if answer == truth else f"wrong, it is {truth}"
    why = reason(policy, rows, leaves)
    return {
        "sample_id": sample_id,
        "dataset": origin["dataset"],
        "policy": name,
        "label": truth,
        "exit": leaves,
        "answer": answer,
        "exits": rows,
        "why": f"It leaves at exit {leaves} as {answer} ({verdict}): {why}.",
    }


def names_of(origin: Mapping[str, str], classes: int) -> Sequence[str]:
    """The classes' names, numbers where a table does not know its dataset."""
    dataset = dataset_of_tables(origin)
    return dataset.names if dataset else [*map(str, range(classes))]


def exit_rows(
    policy: Policy, logits: np.ndarray, leaves: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row per exit of one sample, logits float32 (1, K, C)."""
    probabilities = np.exp(logits[0] - logits[0].max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = [*policy_scores(policy, logits)[0].tolist(), None]
    if not CRITERIA[policy.criterion].fitted:
        scores[-1] = float(scores_of(policy.criterion, logits)[0, -1])
    rows = []
    for k, (score, threshold) in enumerate(zip(scores, [*policy.thresholds, None], strict=True), 1):
        final = k == len(scores)
        event = "stays" if k < leaves else "leaves" if k == leaves else "is not asked"
        if threshold is None and not final:
            event = "is disabled"
        best = int(probabilities[k - 1].argmax())
        rows.append(
            {
                "exit": k,
                "answer": names[best],
                "probability": float(probabilities[k - 1, best]),
                policy.criterion: score,
                "threshold": threshold,
                "what": event,
            }
        )
    return rows


def reason(policy: Policy, rows: Sequence[dict[str, Any]], leaves: int) -> str:
    """Why a sample leaves where it does, in words."""
    row = rows[leaves - 1]
    if all(threshold is None for threshold in policy.thresholds):
        return "all exits before are disabled"
    if leaves == len(rows):
        return "no exit before was sure enough, and the last takes all who remain"
    return (
        f"its {policy.criterion} there, {row[policy.criterion]:.4f}, is at most the threshold, "
        f"{row['threshold']:.4f}; at no exit before was it"
    )


def image_of(results: Path, split: str, sample_id: int) -> np.ndarray | None:
    """A sample's picture, uint8 (H, W, 3), from `data/` here; None where that is not, or it is no
    picture."""
    dataset = dataset_of_tables(origin_of(read_logits(results / f"logits/{split}.parquet").table))
    if dataset is None or not dataset.pictures:
        return None
    file = Path("data", dataset.name, inputs_file(text_of(dataset), split))
    if not file.exists():
        return None
    image = np.load(file, mmap_mode="r", allow_pickle=False)[sample_id]
    return np.broadcast_to(image, (*image.shape[:2], 3))


def compare(results: Path, names: Sequence[str]) -> dict[str, Any]:
    """Two policies on test data: accuracy, predicted seconds and speed-up of each, and the paired
    difference in accuracy of the first less the second with its 95 % interval."""
    dumped, clock = read_logits(results / "logits/test.parquet"), read_clock(results)
    weights = same_weights([dumped.table, clock.table])
    correct = dumped.logits.argmax(axis=2) == dumped.label[:, None]
    rows, right = [], []
    for name in names:
        path = policy_file(results, name)
        policy = policy_of_tables(path, weights, correct.shape[1] - 1)
        exits = outcome_of_tables(policy, dumped.logits).exits
        figures = evaluate_exits(exits, correct, policy.runs, clock.model)
        right.append(correct[np.arange(len(correct)), exits - 1])
        rows.append(
            {
                "policy": name,
                "accuracy": float(right[-1].mean()),
                "seconds": float(figures["seconds"][0]),
                "speedup": float(figures["speedup"]),
            }
        )
    difference, low, high = paired_difference(*right)
    return {"policies": rows, "difference": difference, "low": low, "high": high, "n": len(correct)}
