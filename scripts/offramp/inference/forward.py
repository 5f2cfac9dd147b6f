"""The one pass: every exit's raw logits and every part's seconds, batch by batch."""

import pyarrow as pa
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.common.progress import progress
from offramp.data.splits import Split, load_images
from offramp.inference.cascade import decide, decide_final
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


def timed_stage(
    network: MultiExitNetwork,
    policy: Policy,
    x: Features,
    seen: list[Tensor],
    notes: tuple,
    watch: Stopwatch,
    **row,
) -> Features:
    """The next block, head and decision on everyone; returns the features and appends the logits
    to ``seen``, those of all exits before."""
    k, n = len(seen), count(x)
    features = watch.time("block", k + 1, n, lambda: network.blocks[k](x), **row)
    seen.append(watch.time("head", k + 1, n, lambda: network.heads[k](features), **row))
    if k == len(network.blocks) - 1:
        watch.time("decide", k + 1, n, lambda: decide_final(seen[-1], k + 1, *notes), **row)
    else:
        watch.time("decide", k + 1, n, lambda: decide(seen, policy, k, *notes), **row)
    return features


def new_notes(x: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, labels and exits of a batch, as the cascade keeps them."""
    index = torch.arange(count(x), device=first_of(x).device)
    return index, torch.empty_like(index), torch.empty_like(index)


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
    for rows in list(split.batches(batch_size))[:WARM_UP]:
        network(load_images(split, rows, device))
    with TableWriter(path, schema, "logits", origin, len(split.order), split.order) as writer:
        batches = list(split.batches(batch_size))
        for b, rows in enumerate(progress(batches, f"logits {name}", "batch")):
            x: Features = load_images(split, rows, device)
            notes = new_notes(x)
            seen: list[Tensor] = []
            for _ in range(exits):
                x = timed_stage(network, policy, x, seen, notes, watch, batch=b)
            columns = [_checked(logits, split, rows, k) for k, logits in enumerate(seen)]
            ids = [pa.array(split.order[rows]), pa.array(split.labels[rows])]
            lists = [pa.FixedSizeListArray.from_arrays(c.ravel(), classes) for c in columns]
            writer.append(pa.Table.from_arrays(ids + lists, schema=schema))
            written += len(ids[0])
        if written != len(split.order):
            raise OfframpError(f"wrote {written} samples of {name}, which has {len(split.order)}")
    return watch.table()


def _checked(logits: Tensor, split: Split, rows: slice, k: int):
    values = logits.cpu()
    finite = torch.isfinite(values).all(1)
    if not bool(finite.all()):
        sample = split.order[rows][int((~finite).nonzero()[0])]
        raise OfframpError(
            f"sample {sample}: a logit of exit {k + 1} is not finite; the weights can't be right"
        )
    return values.numpy()
