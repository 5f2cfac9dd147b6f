"""The one pass: every exit's raw logits and every part's seconds, batch by batch."""

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.common.progress import progress
from offramp.data.splits import Split, load_images
from offramp.inference.cascade import Notes, Samples, decide, decide_final, new_notes
from offramp.inference.machine import timed
from offramp.networks.features import Features, count, first_of
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Policy, shared_cutoff
from offramp.tables.files import TableWriter
from offramp.tables.schemas import TIMINGS, logits_schema

# Batches run before the first is timed: all but the last have its size.
WARM_UP = 1


class Stopwatch:
    """Times parts of one batch and keeps the rows; it holds state because every part of a batch
    shares split, batch and size."""

    def __init__(self, device: torch.device, split: str):
        self.device, self.split = device, split
        self.rows: list[dict] = []

    def time(self, part: str, exit_: int, size: int, call, batch=None, kept=None, repeat=0):
        """Time ``call``, note the row, return what it gave."""
        result, seconds = timed(call, self.device)
        self.rows.append(
            {
                "split": self.split,
                "batch": batch,
                "part": part,
                "exit": exit_,
                "batch_size": size,
                "kept": kept,
                "repeat": repeat,
                "seconds": seconds,
            }
        )
        return result

    def table(self) -> pa.Table:
        """The rows as a timings table."""
        return pa.Table.from_pylist(self.rows, schema=TIMINGS)


def all_samples(x: Features) -> tuple[Samples, Notes]:
    """A batch and its notes as the cascade begins with them."""
    n, device = count(x), first_of(x).device
    return Samples(x, torch.arange(n, device=device)), new_notes(n, device)


def timed_stage(
    network: MultiExitNetwork,
    policy: Policy,
    samples: Samples,
    notes: Notes,
    watch: Stopwatch,
    **row,
) -> Samples:
    """The next block, head and decision on everyone: the same samples behind them, ``seen`` with
    the logits of every exit so far, whatever the criterion looks at."""
    k, n = len(samples.seen), count(samples.x)
    x = watch.time("block", k + 1, n, lambda: network.blocks[k](samples.x), **row)
    logits = watch.time("head", k + 1, n, lambda: network.heads[k](x), **row)
    places, seen = samples.places, (*samples.seen, logits)
    if k == len(network.blocks) - 1:
        watch.time("decide", k + 1, n, lambda: decide_final(logits, k + 1, places, notes), **row)
    else:
        watch.time("decide", k + 1, n, lambda: decide(seen, policy, k, places, notes), **row)
    return Samples(x, places, seen)


@torch.inference_mode()
def dump_split(
    network: MultiExitNetwork,
    split: Split,
    name: str,
    classes: int,
    batch_size: int,
    device: torch.device,
    path: str,
    origin: dict[str, str],
) -> pa.Table:
    """Write the logits table of a split to ``path`` and return its timings table.

    Memory is bounded by one batch. Raises OfframpError when a logit is not finite or the number of
    samples written is not the number in the split; nothing is left at ``path`` then.
    """
    exits = len(network.heads)
    policy = shared_cutoff(0.0, exits - 1)
    schema = logits_schema(exits, classes)
    watch = Stopwatch(device, name)
    written = 0
    batches = list(split.batches(batch_size))
    for rows in batches[:WARM_UP]:
        network(load_images(split, rows, device))
    with TableWriter(path, schema, "logits", origin, len(split.order), split.order) as writer:
        for batch, rows in enumerate(progress(batches, f"logits {name}", "batch")):
            samples, notes = all_samples(load_images(split, rows, device))
            for _ in range(exits):
                samples = timed_stage(network, policy, samples, notes, watch, batch=batch)
            table = _logits_rows(samples.seen, split, rows, schema)
            writer.append(table)
            written += table.num_rows
        if written != len(split.order):
            raise OfframpError(f"wrote {written} samples of {name}, which has {len(split.order)}")
    return watch.table()


def _logits_rows(seen: Sequence[Tensor], split: Split, rows: slice, schema: pa.Schema) -> pa.Table:
    """One batch of the logits table: ``seen`` are every exit's logits (n, C) of these rows."""
    columns = [pa.array(split.order[rows]), pa.array(split.labels[rows])]
    for k, logits in enumerate(seen):
        values = _finite(logits, split, rows, k)
        columns.append(pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1]))
    return pa.Table.from_arrays(columns, schema=schema)


def _finite(logits: Tensor, split: Split, rows: slice, k: int):
    values = logits.cpu()
    finite = torch.isfinite(values).all(1)
    if not bool(finite.all()):
        sample = split.order[rows][int((~finite).nonzero()[0])]
        raise OfframpError(
            f"sample {sample}: a logit of exit {k + 1} is not finite; the weights can't be right"
        )
    return values.numpy()
