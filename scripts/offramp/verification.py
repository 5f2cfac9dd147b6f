"""The proof: the live cascade against the tables, sample by sample and second by second."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.cascade import run_cascade, run_full_network
from offramp.criteria import CRITERIA, score_range, spread
from offramp.datasets import Split, load_images
from offramp.machine import timed
from offramp.multiexit import MultiExitNetwork
from offramp.policy import (
    Outcome,
    Policy,
    load_policy,
    outcome_of_tables,
    policy_scores,
)
from offramp.progress import bar, progress
from offramp.tables import VERIFICATION
from offramp.timemodel import TimeModel, reached_by, stage_seconds

# Live and table agree on a sample, or its score lies within the criterion's tolerance of the
# threshold, or its two largest logits this near to each other (float32 sums depend on the batch).
LOGIT_TOLERANCE = 1e-4
OTHER_CUTOFFS = 10
# Turns of the speed-ups: at least and at most so many, and no more once they took so long.
FEWEST_TURNS, MOST_TURNS, TURNS_SECONDS = 3, 9, 30.0
TURN_IMAGES = 2_000


class Case(NamedTuple):
    """A policy to verify; a chosen one is timed against the full network too."""

    name: str
    policy: Policy
    chosen: bool


def cases_of(paths: Sequence[str], logits: np.ndarray) -> list[Case]:
    """The policies of the given files, and OTHER_CUTOFFS shared cutoffs, spread over the range of
    the first one's criterion from the middle of its first part to that of its last (at its ends
    next to nobody or everybody leaves). ``logits`` float32 (N, K, C) are those of the split.

    Raises OfframpError when a policy is not one for this number of side exits.
    """
    side_exits = logits.shape[1] - 1
    cases = []
    for path in paths:
        policy = load_policy(path)
        if len(policy.thresholds) != side_exits:
            raise OfframpError(
                f"{path}: {len(policy.thresholds)} thresholds for {side_exits} side exits"
            )
        cases.append(Case(Path(path).stem, policy, True))
    like = cases[0].policy
    ends = score_range(like.criterion, logits.shape[2], policy_scores(like, logits))
    places = (np.arange(OTHER_CUTOFFS) + 0.5) / OTHER_CUTOFFS
    for cutoff in spread(like.criterion, ends, places).tolist():
        policy = like._replace(thresholds=(cutoff,) * side_exits)
        cases.append(Case(f"cutoff {cutoff:.4f}", policy, False))
    return cases


def differences(
    policy: Policy, logits: np.ndarray, table: Outcome, live: Outcome
) -> tuple[np.ndarray, np.ndarray]:
    """Which samples differ in exit or label, and which of those the float exceptions excuse; both
    bool (N,).

    Where the exits differ, the first of the two decided otherwise, so its score must lie near its
    threshold, or, under a criterion that counts labels, the two largest logits of some exit up to
    there near each other; where only the labels differ, those of that exit.
    """
    moved = table.exits != live.exits
    differ = moved | (table.labels != live.labels)
    excused = np.zeros_like(differ)
    first = np.minimum(table.exits, live.exits) - 1
    scores, tolerance = policy_scores(policy, logits), CRITERIA[policy.criterion].tolerance
    for i in np.flatnonzero(differ):
        k = first[i]
        second, largest = np.sort(logits[i, : k + 1])[:, -2:].T
        tied = largest - second <= LOGIT_TOLERANCE
        if not moved[i]:
            excused[i] = tied[k]
        elif tolerance is None:
            excused[i] = tied.any()
        else:
            # A temperature below 1 stretches what the logits are off by.
            stretch = max(1.0, 1 / policy.temperatures[k]) if policy.temperatures else 1.0
            excused[i] = abs(scores[i, k] - policy.thresholds[k]) <= tolerance * stretch
    return differ, excused


@torch.inference_mode()
def warm_up(network: MultiExitNetwork, reached: np.ndarray, images: Tensor) -> None:
    """Run every block and head once on every batch size that it will meet, and on all ``images``.

    Parameters: ``reached`` int (batches, K), how many samples of every batch to come reach each
    stage; ``images`` (n, 3, H, W), as many as the largest batch. Each new size costs a kernel's
    preparation, and its small lasting allocations fragment the heap of large tensors if they come
    in the middle of the work.
    """
    sizes = [np.unique(stage[stage > 0])[::-1].tolist() for stage in reached.T]
    x = images
    with bar(desc="warm-up", total=sum(map(len, sizes)), unit="size") as shown:
        for block, head, met in zip(network.blocks, network.heads, sizes, strict=True):
            for n in met:
                head(block(x[:n]))
                shown.update(1)
            x = block(x)
            head(x)


def run_live(
    network: MultiExitNetwork,
    cases: Sequence[Case],
    split: Split,
    batch_size: int,
    device: torch.device,
) -> tuple[list[Outcome], np.ndarray]:
    """Run every case once over the whole split, as a user would; outcomes, and seconds float64
    (cases,)."""
    # Filled in place: small results kept between large tensors would fragment the heap.
    outcomes = [Outcome(*np.zeros((2, len(split.order)), dtype=np.int64)) for _ in cases]
    seconds = np.zeros(len(cases))
    for c in progress(range(len(cases)), "live cascade", "run"):
        for rows in split.batches(batch_size):
            x = load_images(split, rows, device)
            (labels, exits), spent = timed(
                partial(run_cascade, network, cases[c].policy, x), device
            )
            outcomes[c].exits[rows], outcomes[c].labels[rows] = exits.cpu(), labels.cpu()
            seconds[c] += spent
    return outcomes, seconds


def measure_speedups(
    network: MultiExitNetwork,
    cases: Sequence[Case],
    split: Split,
    batch_size: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Seconds of the full network and of every chosen case, one after the other, turn after turn,
    each begun by another; over the first TURN_IMAGES: float64 (turns, 2), full network and case, by
    name. A fast network gets more turns, since the least disturbance upsets a short one."""
    images = min(TURN_IMAGES, len(split.order))
    ends = [*range(batch_size, images, batch_size), images]
    batches = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    runs: dict[str | None, Any] = {None: partial(run_full_network, network)}
    runs |= {c.name: partial(run_cascade, network, c.policy) for c in cases if c.chosen}
    seconds = {name: np.zeros(MOST_TURNS) for name in runs}
    turns = 0
    for turn in progress(range(MOST_TURNS), "against the full network", "turn"):
        first = turn % len(runs)
        for name in [*runs][first:] + [*runs][:first]:
            for rows in batches:
                x = load_images(split, rows, device)
                seconds[name][turn] += timed(partial(runs[name], x), device)[1]
        turns = turn + 1
        if turns >= FEWEST_TURNS and sum(map(np.sum, seconds.values())) > TURNS_SECONDS:
            break
    return {
        name: np.stack([seconds[None], spent], axis=1)[:turns]
        for name, spent in seconds.items()
        if name is not None
    }


def verification_rows(
    case: Case,
    logits: np.ndarray,
    labels: np.ndarray,
    live: Outcome,
    model: TimeModel,
    batch_size: int,
    seconds: float,
    pairs: np.ndarray | None,
) -> list[dict]:
    """The rows of `verification.parquet` for one case: exit 0 (overall) to K.

    ``seconds`` are measured; ``pairs`` (turns, 2) are those of the speed-up, if any. Rows of exits
    count differing samples by the exit the table gives them.
    """
    exits = logits.shape[1]
    table = outcome_of_tables(case.policy, logits)
    differ, excused = differences(case.policy, logits, table, live)
    predicted = stage_seconds(
        model, reached_by(table.exits, batch_size, exits), case.policy.heads_run
    )
    rows = []
    for k in range(exits + 1):
        here, there = (table.exits == k, live.exits == k) if k else (slice(None), slice(None))
        rows.append(
            {
                "policy": case.name,
                "chosen": case.chosen,
                "exit": k,
                "threshold": case.policy.thresholds[k - 1] if 0 < k < exits else None,
                "n_table": len(table.exits[here]),
                "n_live": len(live.exits[there]),
                "correct_table": int((table.labels == labels)[here].sum()),
                "correct_live": int((live.labels == labels)[there].sum()),
                "differ": int(differ[here].sum()),
                "excused": int(excused[here].sum()),
                "seconds_predicted": float(predicted[k - 1] if k else predicted.sum()),
            }
        )
    rows[0]["seconds_measured"] = float(seconds)
    if pairs is not None:
        full, fast = pairs.T
        rows[0] |= {
            "speedup_measured": float(np.median(full) / np.median(fast)),
            "speedup_low": float((full / fast).min()),
            "speedup_high": float((full / fast).max()),
        }
    return rows


def verify(
    network: MultiExitNetwork,
    cases: Sequence[Case],
    split: Split,
    logits: np.ndarray,
    model: TimeModel,
    batch_size: int,
    device: torch.device,
) -> pa.Table:
    """Run every case live on the split and hold it against the tables.

    Raises OfframpError when a sample differs that the float exceptions do not excuse.
    """
    exits = logits.shape[1]
    taken = [outcome_of_tables(case.policy, logits).exits for case in cases]
    taken += [exits_taken[:TURN_IMAGES] for exits_taken in taken]
    taken.append(np.full(min(TURN_IMAGES, len(logits)), exits))  # the full network
    reached = np.concatenate([reached_by(each, batch_size, exits) for each in taken])
    warm_up(network, reached, load_images(split, slice(0, batch_size), device))
    outcomes, seconds = run_live(network, cases, split, batch_size, device)
    fail_on_differences(cases, outcomes, logits, split.order)
    pairs = measure_speedups(network, cases, split, batch_size, device)
    rows = [
        row
        for c, (case, live) in enumerate(zip(cases, outcomes, strict=True))
        for row in verification_rows(
            case, logits, split.labels, live, model, batch_size, seconds[c], pairs.get(case.name)
        )
    ]
    return pa.Table.from_pylist(rows, schema=VERIFICATION)


def fail_on_differences(
    cases: Sequence[Case], outcomes: Sequence[Outcome], logits: np.ndarray, sample_id: np.ndarray
) -> None:
    """Raise OfframpError that names the first samples on which live run and tables disagree."""
    lines = []
    for case, live in zip(cases, outcomes, strict=True):
        table = outcome_of_tables(case.policy, logits)
        differ, excused = differences(case.policy, logits, table, live)
        lines += [
            f"  {case.name}, sample {sample_id[i]}: table exit {table.exits[i]} label "
            f"{table.labels[i]}, live exit {live.exits[i]} label {live.labels[i]}"
            for i in np.flatnonzero(differ & ~excused)
        ]
    if lines:
        shown = "\n".join(lines[:10])
        raise OfframpError(
            f"the live cascade and the tables disagree on {len(lines)} decisions, first:\n{shown}\n"
            "The tables were made by other weights, data or code: rerun with --forceall."
        )
