"""The exact sweep: every shared cutoff from one sort of the running minima."""

from collections.abc import Sequence

import numpy as np

from offramp import OfframpError
from offramp.scoring.criteria import CRITERIA, score_range, spread
from offramp.thresholds.evaluation import accuracy_or_none
from offramp.thresholds.time_model import TimeModel, batch_of, full_network_seconds, stage_seconds

# Cutoffs worked on at a time: bounds the memory of counts to a few megabytes at any batch size.
CHUNK = 16


def cutoff_ends(
    criterion: str, classes: int, cutoffs: int | Sequence[float], train: np.ndarray | None
) -> tuple[float, float]:
    """The ends between which cutoffs lie: those of the criterion's range; where it has none, those
    of the ``train`` scores; and where there are none either, infinite for a list of cutoffs.

    Not those of the validation scores: what tests the cutoffs has no say in them. Raises
    OfframpError for a count of cutoffs without ends, and for a listed one outside them.
    """
    ranged = CRITERIA[criterion].range is not None
    if ranged or train is not None:
        ends = score_range(criterion, classes, np.empty(0) if train is None else train)
    elif isinstance(cutoffs, int):
        raise OfframpError(
            f"config: sweep.cutoffs: {criterion} has no range of its own, and without a train "
            "split there is none to take: list the cutoffs here"
        )
    else:
        ends = (-np.inf, np.inf)
    for value in cutoffs if ranged and not isinstance(cutoffs, int) else ():
        if not ends[0] <= value <= ends[1]:
            raise OfframpError(
                f"config: sweep.cutoffs: {value} is outside the range of {criterion} with "
                f"{classes} classes, {ends[0]:g} to {ends[1]:.7g}"
            )
    return ends


def cutoff_grid(
    cutoffs: int | Sequence[float],
    report: float,
    ends: tuple[float, float],
    criterion: str = "entropy",
) -> np.ndarray:
    """Ascending distinct cutoffs: a count, spread between the ``ends`` of the criterion's range,
    both included (`offramp.scoring.criteria.spread`), or a list; and the report cutoff.

    Raises OfframpError when the report cutoff lies outside.
    """
    if not ends[0] <= report <= ends[1]:
        raise OfframpError(
            f"config: sweep.report_cutoff: {report} is outside the criterion's scores, "
            f"{ends[0]:.4f} to {ends[1]:.4f}"
        )
    if isinstance(cutoffs, int):
        grid = spread(criterion, ends, np.linspace(0, 1, cutoffs))
    else:
        grid = np.asarray(cutoffs, dtype=np.float64)
    return np.unique(np.append(grid, report))


def departures(scores: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """From which cutoff on each sample has left by each exit, as an index into ``cutoffs``.

    A sample has left by exit k iff min(H_1..H_k) <= c, so the first such cutoff answers all of
    them. Parameters: ``scores`` float64 (N, K); ``cutoffs`` ascending (M,). Returns int64 (N, K),
    M where no cutoff is large enough; column K is 0 throughout, since exit K takes all who remain.
    """
    minima = np.minimum.accumulate(scores[:, :-1], axis=1)
    departure = np.searchsorted(cutoffs, minima.ravel(), side="left").reshape(minima.shape)
    return np.hstack([departure, np.zeros((len(scores), 1), dtype=departure.dtype)])


def count_by_cutoff(
    departure: np.ndarray, cutoffs: int, group: np.ndarray, groups: int
) -> np.ndarray:
    """How many samples of each group have ``departure`` <= m, m = 0..M-1: int64 (groups, M)."""
    cell = group * (cutoffs + 1) + departure
    counts = np.bincount(cell, minlength=groups * (cutoffs + 1)).reshape(groups, cutoffs + 1)
    return counts[:, :-1].cumsum(axis=1)


def sweep_split(
    scores: np.ndarray,
    correct: np.ndarray,
    cutoffs: np.ndarray,
    model: TimeModel,
) -> dict[str, np.ndarray]:
    """Every cutoff on one split.

    Parameters: ``scores`` float64 (N, K), ``correct`` bool (N, K), rows in the order of the
    batches; ``cutoffs`` ascending (M,). Returns ``n`` and ``correct`` int64 (M, K) of the samples
    that leave at each exit, ``seconds`` float64 (M, K) of each stage, ``full`` seconds (1,).
    """
    samples, exits = scores.shape
    departure = departures(scores, cutoffs)
    n, right = (np.zeros((len(cutoffs), exits), dtype=np.int64) for _ in range(2))
    one_group = np.zeros(samples, dtype=np.int64)
    departure_before = np.full(samples, len(cutoffs))  # nobody has left before exit 1
    for k in range(exits):
        right_at_k = correct[:, k]
        # Leaving at k: left by k, and not yet left by k-1.
        for counts, rows in ((n, slice(None)), (right, right_at_k)):
            left_by_k = count_by_cutoff(departure[rows, k], len(cutoffs), one_group[rows], 1)
            left_before = np.zeros_like(left_by_k)
            if k:
                left_before = count_by_cutoff(
                    departure_before[rows], len(cutoffs), one_group[rows], 1
                )
            counts[:, k] = (left_by_k - left_before)[0]
        departure_before = departure[:, k]
    return {
        "n": n,
        "correct": right,
        "seconds": _sweep_seconds(departure, cutoffs, model),
        "full": np.array([full_network_seconds(model, samples)]),
    }


def _sweep_seconds(departure: np.ndarray, cutoffs: np.ndarray, model: TimeModel) -> np.ndarray:
    """Seconds (M, K) of each stage, from the real batches."""
    samples, exits = departure.shape
    batch = batch_of(samples, model.batch_size)
    sizes = np.bincount(batch)
    everywhere = np.ones((2, exits), dtype=bool)
    left_by_exit = [
        count_by_cutoff(departure[:, k], len(cutoffs), batch, len(sizes)) for k in range(exits - 1)
    ]
    seconds = np.empty((len(cutoffs), exits))
    for start in range(0, len(cutoffs), CHUNK):
        chunk = slice(start, start + CHUNK)
        reached = [np.broadcast_to(sizes[:, None], (len(sizes), len(cutoffs[chunk])))]
        reached += [sizes[:, None] - left[:, chunk] for left in left_by_exit]
        seconds[chunk] = stage_seconds(model, np.stack(reached, axis=-1).swapaxes(0, 1), everywhere)
    return seconds


def sweep_rows(
    split: str, criterion: str, cutoffs: np.ndarray, result: dict[str, np.ndarray]
) -> dict[str, list]:
    """The rows of `sweep.parquet` for one split: K + 1 a cutoff, exit 0 being the overall row."""
    n, correct, seconds = (_with_overall(result[name]) for name in ("n", "correct", "seconds"))
    exits = n.shape[1]
    overall = np.arange(exits) == 0
    speedup = np.where(overall, result["full"] / seconds[:, :1], np.nan)
    return {
        "split": [split] * n.size,
        "criterion": [criterion] * n.size,
        "cutoff": np.repeat(cutoffs, exits).tolist(),
        "exit": np.tile(np.arange(exits), len(cutoffs)).tolist(),
        "n": n.ravel().tolist(),
        "correct": correct.ravel().tolist(),
        "accuracy": accuracy_or_none(correct.ravel(), n.ravel()),
        "seconds": seconds.ravel().tolist(),
        "speedup": [None if np.isnan(s) else s for s in speedup.ravel().tolist()],
    }


def _with_overall(values: np.ndarray) -> np.ndarray:
    return np.hstack([values.sum(axis=1, keepdims=True), values])
