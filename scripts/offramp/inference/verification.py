"""The proof: the live cascade against the tables, sample by sample and second by second."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from offramp import OfframpError
from offramp.common.progress import bar, progress
from offramp.data.splits import Split, load_images
from offramp.inference.cascade import cascade, run_full_network
from offramp.inference.machine import timed
from offramp.networks.features import Features, take
from offramp.networks.identity import Identity
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA, score_range, spread
from offramp.scoring.policy import (
    Outcome,
    Policy,
    check_fits,
    load_policy_for,
    outcome_of_tables,
    policy_scores,
)
from offramp.tables.files import Logits, origin_of
from offramp.tables.schemas import VERIFICATION
from offramp.thresholds.time_model import TimeModel, full_network_seconds, reached_by, stage_seconds

# Live and table agree on a sample, or its score lies within the criterion's tolerance of the
# threshold, or its two largest logits this near to each other (float32 sums depend on the batch).
LOGIT_TOLERANCE = 1e-4
OTHER_CUTOFFS = 10
# A live run of fewer batches is repeated: a single hiccup of the machine would be all of its time.
LEAST_BATCHES = 20


class Case(NamedTuple):
    """A policy to verify; ``chosen`` says that the run chose it, for a reason of its own."""

    name: str
    policy: Policy
    chosen: bool


class Comparison(NamedTuple):
    """What the tables say of a case's policy and what came of it live; which samples differ, and
    which of those are excused (see `differences`), bool (N,) each."""

    case: Case
    table: Outcome
    live: Outcome
    differ: np.ndarray
    excused: np.ndarray


def check_logits(path: str, dumped: Logits, split: Split, network: MultiExitNetwork) -> None:
    """Raise OfframpError where the logits table ``dumped``, read from ``path``, is not of this
    split and network, so that nothing live could agree with it."""
    if not (
        np.array_equal(dumped.sample_id, split.order) and np.array_equal(dumped.label, split.labels)
    ):
        raise OfframpError(
            f"{path}: {len(dumped.label)} samples that are not the split's {len(split.order)}, in "
            "its order and with its labels; delete it and rerun"
        )
    if dumped.logits.shape[1] != len(network.heads):
        raise OfframpError(
            f"{path}: {dumped.logits.shape[1]} exits, where the network has {len(network.heads)}; "
            "delete it and rerun"
        )
    weights_sha256 = origin_of(dumped.table).get("weights_sha256")
    if network.identity and weights_sha256 != network.identity.weights_sha256:
        raise OfframpError(
            f"{path}: not made with {network.identity.weights} as it is now; delete it and rerun"
        )


def cases_of(
    paths: Sequence[str], logits: np.ndarray, network: Identity | None = None
) -> list[Case]:
    """The policies of the given files, and OTHER_CUTOFFS shared cutoffs, spread over the range of
    the first one's criterion from the middle of its first part to that of its last (at its ends
    next to nobody or everybody leaves). ``logits`` float32 (N, K, C) are those of the split.

    Raises OfframpError when a policy is not one for these logits, or for the ``network`` if given.
    """
    exits, classes = logits.shape[1:]
    policies = [load_policy_for(path, exits, classes, network) for path in paths]
    cases = [Case(Path(p).stem, policy, True) for p, policy in zip(paths, policies, strict=True)]
    first = cases[0].policy
    ends = score_range(first.criterion, classes, policy_scores(first, logits))
    middles = (np.arange(OTHER_CUTOFFS) + 0.5) / OTHER_CUTOFFS
    for cutoff in spread(first.criterion, ends, middles).tolist():
        policy = first._replace(thresholds=(cutoff,) * (exits - 1))
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
    earlier = np.minimum(table.exits, live.exits) - 1
    scores, tolerance = policy_scores(policy, logits), CRITERIA[policy.criterion].tolerance
    for i in np.flatnonzero(differ):
        k = earlier[i]
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


def compared(case: Case, logits: np.ndarray, table: Outcome, live: Outcome) -> Comparison:
    """A case's two outcomes, ``table`` from these ``logits``, float32 (N, K, C), held against each
    other."""
    return Comparison(case, table, live, *differences(case.policy, logits, table, live))


@torch.inference_mode()
def warm_up(network: MultiExitNetwork, reached: np.ndarray, images: Features) -> None:
    """Run every block and head once on every batch size that it will meet, and on all ``images``.

    Parameters: ``reached`` int (batches, K), how many samples of every batch to come reach each
    stage; ``images`` (n, ...), as many as the largest batch. Each new size costs a kernel's
    preparation, and its small lasting allocations fragment the heap of large tensors if they come
    in the middle of the work.
    """
    sizes = [np.unique(stage[stage > 0])[::-1].tolist() for stage in reached.T]
    x = images
    with bar(desc="warm-up", total=sum(map(len, sizes)), unit="size") as progress_bar:
        for block, head, stage_sizes in zip(network.blocks, network.heads, sizes, strict=True):
            for n in stage_sizes:
                head(block(take(x, slice(0, n))))
                progress_bar.update(1)
            x = block(x)
            head(x)


def run_interleaved(
    network: MultiExitNetwork,
    cases: Sequence[Case],
    split: Split,
    batch_size: int,
    device: torch.device,
    between: Callable[[int], None] = lambda batch: None,
    rounds: int = 1,
) -> tuple[list[Outcome], np.ndarray]:
    """Run every batch of the split under every case and through the full network, in a new order
    for each batch, so that all of them meet the same minutes of the machine. ``between`` is called
    before each batch with its number, for what else is to meet these minutes; in ``rounds`` all
    batches come again.

    Returns the cases' outcomes, and seconds float64 (batches, cases + 1), the full network last.
    """
    # Filled in place: small results kept between large tensors would fragment the heap.
    outcomes = [Outcome(*np.zeros((2, len(split.order)), dtype=np.int64)) for _ in cases]
    runs: list[Any] = [partial(cascade, network, case.policy) for case in cases]
    runs.append(partial(run_full_network, network))
    batches = list(split.batches(batch_size)) * rounds
    seconds, order = np.zeros((len(batches), len(runs))), np.random.default_rng(0)
    for batch in progress(range(len(batches)), "live cascade", "batch"):
        between(batch)
        rows = batches[batch]
        x = load_images(split, rows, device)
        for c in order.permutation(len(runs)):
            result, seconds[batch, c] = timed(partial(runs[c], x), device)
            if c < len(cases):
                labels, exits = (answer.cpu() for answer in result)
                outcomes[c].exits[rows], outcomes[c].labels[rows] = exits, labels
    return outcomes, seconds


def speedups(seconds: np.ndarray) -> np.ndarray:
    """How many times as fast as the full network each case was, from `run_interleaved`'s seconds
    (batches, cases + 1): float64 (3, cases), over all batches, and the lower and the higher of the
    run's two halves, its even and its odd batches (both the whole where there is one batch)."""
    parts = [seconds, seconds[::2], seconds[1::2] if len(seconds) > 1 else seconds]
    totals = np.stack([part.sum(axis=0) for part in parts])
    ratios = totals[:, -1:] / totals[:, :-1]
    return np.stack([ratios[0], ratios[1:].min(axis=0), ratios[1:].max(axis=0)])


def verification_rows(
    comparison: Comparison,
    labels: np.ndarray,
    model: TimeModel,
    seconds: float,
    speedup: np.ndarray,
) -> list[dict]:
    """The rows of `verification.parquet` for one case: exit 0 (overall) to K.

    ``labels`` int64 (N,) are the true ones; ``seconds`` were measured; ``speedup`` (3,) is one
    column of `speedups`. Rows of exits count differing samples by the exit the table gives them.
    """
    case, table, live, differ, excused = comparison
    exits, everyone = len(case.policy.thresholds) + 1, slice(None)
    reached = reached_by(table.exits, model.batch_size, exits)
    predicted = stage_seconds(model, reached, case.policy.runs)
    rows = []
    for k in range(exits + 1):
        left_in_table = table.exits == k if k else everyone
        left_live = live.exits == k if k else everyone
        rows.append(
            {
                "policy": case.name,
                "chosen": case.chosen,
                "exit": k,
                "threshold": case.policy.thresholds[k - 1] if 0 < k < exits else None,
                "n_table": len(table.exits[left_in_table]),
                "n_live": len(live.exits[left_live]),
                "correct_table": int((table.labels == labels)[left_in_table].sum()),
                "correct_live": int((live.labels == labels)[left_live].sum()),
                "differ": int(differ[left_in_table].sum()),
                "excused": int(excused[left_in_table].sum()),
                "seconds_predicted": float(predicted[k - 1] if k else predicted.sum()),
            }
        )
    full = full_network_seconds(model, len(labels))
    measured, low, high = speedup.tolist()
    rows[0] |= {
        "seconds_measured": float(seconds),
        "speedup_predicted": full / float(predicted.sum()),
        "speedup_measured": measured,
        "speedup_low": low,
        "speedup_high": high,
    }
    return rows


def verify(
    network: MultiExitNetwork,
    cases: Sequence[Case],
    split: Split,
    logits: np.ndarray,
    model: TimeModel,
    device: torch.device,
) -> pa.Table:
    """Run every case live on the split and hold it against the tables.

    Raises OfframpError when a sample differs that the float exceptions do not excuse.
    """
    exits, classes = logits.shape[1:]
    batch_size = model.batch_size
    for case in cases:
        check_fits(case.name, case.policy, exits, classes)
    tables = [outcome_of_tables(case.policy, logits) for case in cases]
    left_at = [table.exits for table in tables]
    left_at.append(np.full(len(logits), exits))  # the full network
    reached = np.concatenate([reached_by(run, batch_size, exits) for run in left_at])
    warm_up(network, reached, load_images(split, slice(0, batch_size), device))
    rounds = -(-LEAST_BATCHES // len(list(split.batches(batch_size))))
    outcomes, seconds = run_interleaved(network, cases, split, batch_size, device, rounds=rounds)
    if rounds > 1:  # halves of rounds, since batches of one round are few and unlike each other
        seconds = seconds.reshape(rounds, -1, seconds.shape[1]).sum(axis=1)
    comparisons = [
        compared(case, logits, table, live)
        for case, table, live in zip(cases, tables, outcomes, strict=True)
    ]
    fail_on_differences(comparisons, split.order)
    faster = speedups(seconds)
    rows = [
        row
        for c, comparison in enumerate(comparisons)
        for row in verification_rows(
            comparison, split.labels, model, seconds[:, c].sum() / rounds, faster[:, c]
        )
    ]
    return pa.Table.from_pylist(rows, schema=VERIFICATION)


def fail_on_differences(comparisons: Sequence[Comparison], sample_id: np.ndarray) -> None:
    """Raise OfframpError that names the first samples on which live run and tables disagree."""
    lines = [
        f"  {case.name}, sample {sample_id[i]}: table exit {table.exits[i]} label "
        f"{table.labels[i]}, live exit {live.exits[i]} label {live.labels[i]}"
        for case, table, live, differ, excused in comparisons
        for i in np.flatnonzero(differ & ~excused)
    ]
    if lines:
        shown = "\n".join(lines[:10])
        raise OfframpError(
            f"the live cascade and the tables disagree on {len(lines)} decisions, first:\n{shown}\n"
            "The tables were made by other weights, data or code: rerun with --forceall."
        )
