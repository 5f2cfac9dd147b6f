"""What the commands answer, as plain rows, from the tables of a results folder; without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp import OfframpError
from offramp.common.intervals import paired_difference
from offramp.data.datasets import DATASETS
from offramp.networks.finding import chosen_for, read_about
from offramp.scoring.criteria import CRITERIA, scores_of
from offramp.scoring.policy import Policy, load_policy, outcome_of_tables, policy_scores
from offramp.scoring.scores import read_scores
from offramp.tables.files import origin_of, read, read_logits, same_weights
from offramp.thresholds.evaluation import evaluate_exits
from offramp.thresholds.sweep import sweep_split
from offramp.thresholds.time_model import TimeModel, fit_time_model


class Clock(NamedTuple):
    """How long things take: the time model, and the batch size of the run that measured it."""

    model: TimeModel
    batch_size: int
    table: Any


def read_clock(results: Path) -> Clock:
    """The clock of a results folder."""
    table = read(results / "timings.parquet", "timings")
    sizes = table["batch_size"].to_numpy()
    passed = table["split"].to_numpy(zero_copy_only=False) != "probe"
    return Clock(fit_time_model(table), int(sizes[passed].max()), table)


def sweep(results: Path, split: str, cutoffs: Sequence[float]) -> list[dict[str, Any]]:
    """Accuracy, predicted seconds and speed-up of shared cutoffs, the lowest first, with the share
    of the samples that leaves at each exit."""
    if not np.isfinite(cutoffs).all():
        raise OfframpError(f"cutoffs: want finite numbers, not {', '.join(map(str, cutoffs))}")
    known, clock = read_scores(results / f"scores/{split}.parquet"), read_clock(results)
    same_weights([known.table, clock.table])
    grid = np.unique(cutoffs)
    found = sweep_split(known.scores, known.correct, grid, clock.model, clock.batch_size)
    seconds = found["seconds"].sum(axis=1)
    samples = len(known.scores)
    return [
        {
            "cutoff": float(cutoff),
            "accuracy": int(found["correct"][m].sum()) / samples,
            "seconds": float(seconds[m]),
            "speedup": float(found["full"][0] / seconds[m]),
            **{f"exit_{k}": int(n) / samples for k, n in enumerate(found["n"][m], 1)},
        }
        for m, cutoff in enumerate(grid)
    ]


def policy_file(results: Path, name: str) -> Path:
    """The file of a policy, by its name in the results folder or its path."""
    named = results / f"policies/{name}.json"
    return named if named.exists() else Path(name)


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


def explain(results: Path, split: str, policy: str, sample_id: int) -> dict[str, Any]:
    """What each exit says of a sample, where it leaves under a policy, and why."""
    path = results / f"logits/{split}.parquet"
    known = read_logits(path)
    [places] = np.nonzero(known.sample_id == sample_id)
    if not len(places):
        raise OfframpError(
            f"{path}: no sample {sample_id}; it has {known.sample_id[:3].tolist()}, ..."
        )
    logits = known.logits[places]
    origin = origin_of(known.table)
    rule = policy_of_tables(
        policy_file(results, policy), origin["weights_sha256"], logits.shape[1] - 1
    )
    names = DATASETS[origin["dataset"]].names
    leaves = int(outcome_of_tables(rule, logits).exits[0])
    rows = exit_rows(rule, logits, leaves, names)
    answer, truth = rows[leaves - 1]["answer"], names[known.label[places[0]]]
    verdict = "right" if answer == truth else f"wrong, it is {truth}"
    return {
        "sample_id": sample_id,
        "dataset": origin["dataset"],
        "policy": policy,
        "label": truth,
        "exit": leaves,
        "answer": answer,
        "exits": rows,
        "why": f"It leaves at exit {leaves} as {answer} ({verdict}): {reason(rule, rows, leaves)}.",
    }


def exit_rows(
    rule: Policy, logits: np.ndarray, leaves: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row per exit of one sample, logits float32 (1, K, C)."""
    probabilities = np.exp(logits[0] - logits[0].max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = [*policy_scores(rule, logits)[0].tolist(), None]
    if not CRITERIA[rule.criterion].fitted:
        scores[-1] = float(scores_of(rule.criterion, logits)[0, -1])
    rows = []
    for k, (score, threshold) in enumerate(zip(scores, [*rule.thresholds, None], strict=True), 1):
        final = k == len(scores)
        what = "stays" if k < leaves else "leaves" if k == leaves else "is not asked"
        if threshold is None and not final:
            what = "is disabled"
        best = int(probabilities[k - 1].argmax())
        rows.append(
            {
                "exit": k,
                "answer": names[best],
                "probability": float(probabilities[k - 1, best]),
                rule.criterion: score,
                "threshold": threshold,
                "what": what,
            }
        )
    return rows


def reason(rule: Policy, rows: Sequence[dict[str, Any]], leaves: int) -> str:
    """Why a sample leaves where it does, in words."""
    row = rows[leaves - 1]
    if leaves == len(rows):
        return "no exit before was sure enough, and the last takes all who remain"
    return (
        f"its {rule.criterion} there, {row[rule.criterion]:.4f}, is at most the threshold, "
        f"{row['threshold']:.4f}; at no exit before was it"
    )


def image_of(dataset: str, split: str, sample_id: int) -> np.ndarray | None:
    """A sample's image, uint8 (H, W, 3), from `data/` here; None where that is not."""
    pools = list(DATASETS[dataset].pools)
    pool = "test" if split == "test" and "test" in pools else pools[0]
    file = Path("data", dataset, f"{pool}_images.npy")
    return np.load(file, mmap_mode="r", allow_pickle=False)[sample_id] if file.exists() else None


def described(path: Path) -> dict[str, Any]:
    """A policy file in a few lines, each by its name."""
    policy, about = load_policy(path), read_about(path)
    chosen = chosen_for(path, about)
    limits = ", ".join("disabled" if t is None else f"{t:.4g}" for t in policy.thresholds)
    found = {
        "network": f"{chosen.model} on {chosen.dataset}, weights of sha256 {chosen.sha256[:12]}",
        "criterion": policy.criterion,
        "thresholds": f"{limits} (exits 1 to {len(policy.thresholds)}; lower scores leave)",
    }
    if policy.temperatures:
        found["temperatures"] = ", ".join(f"{t:.4g}" for t in policy.temperatures)
    for name in ("origin", "selection", "expected"):
        if about.get(name):
            found[name] = ", ".join(f"{key} {value}" for key, value in about[name].items())
    return found


def compare(results: Path, names: Sequence[str]) -> dict[str, Any]:
    """Two policies on test data: accuracy, predicted seconds and speed-up of each, and the paired
    difference in accuracy of the first less the second with its 95 % interval."""
    known, clock = read_logits(results / "logits/test.parquet"), read_clock(results)
    weights = same_weights([known.table, clock.table])
    right = known.logits.argmax(axis=2) == known.label[:, None]
    rows, correct = [], []
    for name in names:
        path = policy_file(results, name)
        policy = policy_of_tables(path, weights, right.shape[1] - 1)
        exits = outcome_of_tables(policy, known.logits).exits
        took = evaluate_exits(exits, right, policy.runs, clock.model, clock.batch_size)
        correct.append(right[np.arange(len(right)), exits - 1])
        rows.append(
            {
                "policy": name,
                "accuracy": float(correct[-1].mean()),
                "seconds": float(took["seconds"][0]),
                "speedup": float(took["speedup"]),
            }
        )
    difference, low, high = paired_difference(*correct)
    return {"policies": rows, "difference": difference, "low": low, "high": high, "n": len(right)}


def predict(folder: Path, images: Sequence[str]) -> list[dict[str, Any]]:
    """What an exported folder says of picture files, which are scaled to the network's size."""
    from offramp.inference.runner import Runner

    if not (folder / "manifest.json").exists():
        raise OfframpError(f"{folder}: no manifest.json; want a folder that `offramp export` wrote")
    try:
        runner = Runner(folder)
    except ValueError as error:
        raise OfframpError(f"{error}; export again") from None
    _, height, width, _ = runner.manifest["input"]["shape"]
    pixels = np.stack([read_picture(path, (width, height)) for path in images])
    found = zip(images, *(values.tolist() for values in runner(pixels)), strict=True)
    names = runner.manifest["classes"]
    return [
        {"image": image, "label": names[label], "exit": exit_, "score": score}
        for image, label, exit_, score in found
    ]


def read_picture(path: str, size: tuple[int, int]) -> np.ndarray:
    """A picture file as uint8 (H, W, 3), RGB, scaled to ``size`` (width, height)."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    except UnidentifiedImageError:
        raise OfframpError(f"{path}: not a picture") from None
    except OSError as error:
        raise OfframpError(f"{path}: can't be read ({error.strerror or error})") from None
