"""The time model: seconds of every stage as a function of the batch, from measured parts.

A stage k is block k and, if its exit is enabled, head k, the decision and the removal of those who
left. Each part was timed over a grid of batch sizes; removal also over how many samples stay.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from offramp import OfframpError

PARTS = ("block", "head", "decide")


class TimeModel(NamedTuple):
    """Turns who reaches which stage into seconds, for batches of ``batch_size``.

    Median seconds: ``parts[p, k, n]`` for batches of n = 0..n_max samples (p as in PARTS), and
    ``removal[k]`` = (a, b, c) with removal seconds a + b n + c kept."""

    parts: np.ndarray
    removal: np.ndarray
    batch_size: int


def fit_time_model(timings: pa.Table, batch_size: int | None = None) -> TimeModel:
    """Fit the model to a timings table, for batches of ``batch_size`` (by default the largest).

    The ``probe`` rows tell how a part's seconds depend on the batch size: the median over the
    rounds of what it takes relative to a full batch in the same round, with linear interpolation
    between the measured sizes. What a full batch takes tell the rows of the one pass, hundreds of
    batches over minutes; where it had another batch size, the probe's own. Removal is fitted by
    least squares to the probe's medians, relative to their size so that small batches count alike,
    and follows its block to the pace of the one pass.
    """
    columns = {name: timings[name].to_numpy(zero_copy_only=False) for name in timings.column_names}
    probe = columns["split"] == "probe"
    if not probe.any():
        raise OfframpError("the timings table has no probe rows; rerun the rule `probe`")
    rows = {name: values[probe] for name, values in columns.items()}
    dump = {name: values[~probe] for name, values in columns.items()}
    exits, largest = int(rows["exit"].max()), int(rows["batch_size"].max())
    parts = np.zeros((len(PARTS), exits, largest + 1))
    removal = np.zeros((exits - 1, 3))
    for k in range(exits):
        for p, part in enumerate(PARTS):
            sizes, seconds = _probed(rows, part, k + 1, largest)
            passed = _of_part(dump, part, k + 1, largest)
            pace = np.median(passed) / seconds[-1] if len(passed) and seconds[-1] else 1.0
            parts[p, k] = np.interp(np.arange(largest + 1), sizes, pace * seconds)
            if part == "block" and k < exits - 1:
                removal[k] = pace * _fit_removal(rows, k + 1)
    parts[:, :, 0] = 0.0
    model = TimeModel(parts, removal, batch_size or largest)
    check_batch(model, model.batch_size)
    return model


def _of_part(rows: dict[str, np.ndarray], part: str, exit_: int, size: int) -> np.ndarray:
    """Seconds of a part at an exit on batches of one size."""
    chosen = (rows["part"] == part) & (rows["exit"] == exit_) & (rows["batch_size"] == size)
    return rows["seconds"][chosen]


def _probed(
    rows: dict[str, np.ndarray], part: str, exit_: int, largest: int
) -> tuple[np.ndarray, np.ndarray]:
    """The probed batch sizes of a part, int64 (sizes,), and its seconds there, float64 (sizes,):
    the typical full batch times the median share of it that a size takes in the same round."""
    chosen = (rows["part"] == part) & (rows["exit"] == exit_)
    size, round_, seconds = (rows[name][chosen] for name in ("batch_size", "repeat", "seconds"))
    full = {r: np.median(seconds[(size == largest) & (round_ == r)]) for r in np.unique(round_)}
    full_then = np.array([full[r] for r in round_])
    # Own costs may be 0, and have no share then.
    shares = np.divide(seconds, full_then, out=np.zeros_like(seconds), where=full_then > 0)
    sizes = np.unique(size)
    typical = np.median(list(full.values()))
    return sizes, typical * np.array([np.median(shares[size == n]) for n in sizes])


def _fit_removal(rows: dict[str, np.ndarray], exit_: int) -> np.ndarray:
    removals = (rows["part"] == "remove") & (rows["exit"] == exit_)
    if not removals.any():  # nor has their removal a cost
        return np.zeros(3)
    size, kept, seconds = (rows[name][removals] for name in ("batch_size", "kept", "seconds"))
    pairs = np.stack([size, kept], axis=1).astype(np.int64)
    cases, case_of = np.unique(pairs, axis=0, return_inverse=True)
    medians = np.array([np.median(seconds[case_of == i]) for i in range(len(cases))])
    design = np.column_stack([np.ones(len(cases)), cases])
    return np.linalg.lstsq(design / medians[:, None], np.ones(len(cases)), rcond=None)[0]


def stage_seconds(model: TimeModel, reached: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Predicted seconds of every stage, summed over the batches.

    Parameters: ``reached`` int (..., batches, K), how many samples of each batch reach each stage;
    ``runs`` bool (2, K), at which exits the head runs and at which it is decided who leaves.
    Returns float64 (..., K). Raises OfframpError for a batch larger than any that was measured, and
    for times of another number of exits.
    """
    exits = reached.shape[-1]
    check_batch(model, int(reached.max(initial=0)))
    if exits != model.parts.shape[1]:
        raise OfframpError(
            f"times of {model.parts.shape[1]} exits, where the samples have {exits}: delete "
            "timings.parquet and the folder timings, and rerun"
        )
    kept = np.concatenate([reached[..., 1:], np.zeros_like(reached[..., :1])], axis=-1)
    seconds = np.empty((*reached.shape[:-2], exits))
    for k in range(exits):
        n, stay = reached[..., k], kept[..., k]
        stage = model.parts[0, k][n]
        if runs[0, k]:
            stage = stage + model.parts[1, k][n]
        if runs[1, k]:
            stage = stage + model.parts[2, k][n]
        if runs[1, k] and k < exits - 1:
            a, b, c = model.removal[k]
            some_left = (stay > 0) & (stay < n)
            stage = stage + np.where(some_left, np.maximum(a + b * n + c * stay, 0.0), 0.0)
        seconds[..., k] = stage.sum(axis=-1)
    return seconds


def batch_of(samples: int, batch_size: int) -> np.ndarray:
    """The batch, 0.., of each of N consecutive samples; int64 (N,)."""
    return np.arange(samples) // batch_size


def reached_by(exits_taken: np.ndarray, batch_size: int, exits: int) -> np.ndarray:
    """How many samples of each batch reach each stage, from where each sample leaves.

    Parameters: ``exits_taken`` int (N,) in 1..K. Returns int64 (batches, K).
    """
    batch = batch_of(len(exits_taken), batch_size)
    batches = -(-len(exits_taken) // batch_size)
    cell = batch * exits + exits_taken - 1
    left = np.bincount(cell, minlength=batches * exits).reshape(batches, exits)
    return left[:, ::-1].cumsum(axis=1)[:, ::-1]


def full_network_seconds(model: TimeModel, samples: int) -> float:
    """Predicted seconds of the full network: all blocks, the final head, and its decision."""
    exits = model.parts.shape[1]
    reached = reached_by(np.full(samples, exits), model.batch_size, exits)
    final = np.arange(exits) == exits - 1
    return float(stage_seconds(model, reached, np.stack([final, final])).sum())


def check_batch(model: TimeModel, size: int) -> None:
    """Raise OfframpError where batches of this size are beyond those the model was measured on."""
    largest = model.parts.shape[2] - 1
    if size > largest:
        raise OfframpError(
            f"batches of {size} samples, where times were measured up to {largest}: set batch_size "
            "in the config to the largest you need and run again"
        )
