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
    """Median seconds: ``parts[p, k, n]`` for batches of n = 0..n_max samples (p as in PARTS), and
    ``removal[k]`` = (a, b, c) with removal seconds a + b n + c kept."""

    parts: np.ndarray
    removal: np.ndarray


def fit_time_model(timings: pa.Table) -> TimeModel:
    """Fit the model to the ``probe`` rows of a timings table.

    Medians over the repeats, linear interpolation between the measured batch sizes; removal by
    least squares on medians, relative to their size so that small batches count alike.
    """
    columns = {name: timings[name].to_numpy(zero_copy_only=False) for name in timings.column_names}
    probe = columns["split"] == "probe"
    if not probe.any():
        raise OfframpError("the timings table has no probe rows; rerun the rule `probe`")
    rows = {name: values[probe] for name, values in columns.items()}
    exits = int(rows["exit"].max())
    sizes = np.unique(rows["batch_size"])
    lengths = np.arange(sizes[-1] + 1)
    parts = np.zeros((len(PARTS), exits, len(lengths)))
    for p, part in enumerate(PARTS):
        for k in range(exits):
            here = (rows["part"] == part) & (rows["exit"] == k + 1)
            medians = [np.median(rows["seconds"][here & (rows["batch_size"] == n)]) for n in sizes]
            parts[p, k] = np.interp(lengths, sizes, medians)
    parts[:, :, 0] = 0.0
    removal = np.array([_fit_removal(rows, k) for k in range(1, exits)]).reshape(exits - 1, 3)
    return TimeModel(parts, removal)


def _fit_removal(rows: dict[str, np.ndarray], exit_: int) -> np.ndarray:
    here = (rows["part"] == "remove") & (rows["exit"] == exit_)
    pairs = np.stack([rows["batch_size"][here], rows["kept"][here]], axis=1).astype(np.int64)
    cases, case_of = np.unique(pairs, axis=0, return_inverse=True)
    seconds = rows["seconds"][here]
    medians = np.array([np.median(seconds[case_of == i]) for i in range(len(cases))])
    design = np.column_stack([np.ones(len(cases)), cases])
    return np.linalg.lstsq(design / medians[:, None], np.ones(len(cases)), rcond=None)[0]


def stage_seconds(model: TimeModel, reached: np.ndarray, enabled: np.ndarray) -> np.ndarray:
    """Predicted seconds of every stage, summed over the batches.

    Parameters: ``reached`` int (..., batches, K), how many samples of each batch reach each stage;
    ``enabled`` bool (K,). Returns float64 (..., K).
    """
    exits = reached.shape[-1]
    kept = np.concatenate([reached[..., 1:], np.zeros_like(reached[..., :1])], axis=-1)
    seconds = np.empty((*reached.shape[:-2], exits))
    for k in range(exits):
        n, stay = reached[..., k], kept[..., k]
        stage = model.parts[0, k][n]
        if enabled[k]:
            stage = stage + model.parts[1, k][n] + model.parts[2, k][n]
        if enabled[k] and k < exits - 1:
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
    batches = int(batch[-1]) + 1
    cell = batch * exits + exits_taken - 1
    left = np.bincount(cell, minlength=batches * exits).reshape(batches, exits)
    return left[:, ::-1].cumsum(axis=1)[:, ::-1]


def full_network_seconds(model: TimeModel, samples: int, batch_size: int) -> float:
    """Predicted seconds of the full network: all blocks, the final head, and its decision."""
    exits = model.parts.shape[1]
    reached = reached_by(np.full(samples, exits), batch_size, exits)
    return float(stage_seconds(model, reached, np.arange(exits) == exits - 1).sum())
