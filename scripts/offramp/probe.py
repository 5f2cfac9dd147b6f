"""Timings of every part over a grid of batch sizes, and of removal over how many stay."""

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from offramp.cascade import Samples, remove
from offramp.criteria import CRITERIA
from offramp.datasets import Split, load_images
from offramp.forward import Stopwatch, new_notes, timed_stage
from offramp.multiexit import MultiExitNetwork
from offramp.policy import Policy
from offramp.progress import progress

GRID = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 384, 512, 768, 1024)
KEPT = (0.1, 0.3, 0.5, 0.7, 0.9)
REPEATS = 7
WARM_UP = 2


def probe_sizes(batch_size: int) -> list[int]:
    """The batch sizes to time: those of the grid below ``batch_size``, and itself."""
    return [n for n in GRID if n < batch_size] + [batch_size]


@torch.inference_mode()
def probe(
    network: MultiExitNetwork, policy: Policy, split: Split, batch_size: int, device: torch.device
) -> pa.Table:
    """The timings table of the probe, deciding by ``policy``: ``REPEATS`` rounds over all batch
    sizes, in a new order each round so that a drift of the machine hits all alike, after
    ``WARM_UP`` rounds not kept."""
    order = np.random.default_rng(0)
    sizes = probe_sizes(batch_size)
    watch = Stopwatch(device, "probe")
    for repeat in progress(range(-WARM_UP, REPEATS), "probe", "round"):
        for n in order.permutation(sizes):
            rows = np.arange(n) % len(split.order)
            probe_batch(network, policy, load_images(split, rows, device), watch, repeat)
        if repeat < 0:
            watch.rows.clear()
    return watch.table()


@torch.inference_mode()
def probe_batch(
    network: MultiExitNetwork, policy: Policy, x: Tensor, watch: Stopwatch, repeat: int
) -> None:
    """Time every part on one batch of images, and removal over the shares KEPT."""
    exits = len(network.heads)
    notes = new_notes(x)
    seen: list[Tensor] = []
    looks_back = CRITERIA[policy.criterion].looks_back
    for k in range(exits):
        x = timed_stage(network, policy, x, seen, notes, watch, repeat=repeat)
        if k < exits - 1:
            for kept in sorted({max(1, round(share * len(x))) for share in KEPT}):
                if kept < len(x):
                    stay = torch.arange(kept, device=x.device) * len(x) // kept
                    here = Samples(x, notes[0], tuple(seen) if looks_back else ())
                    watch.time(
                        "remove",
                        k + 1,
                        len(x),
                        lambda here=here, stay=stay: remove(here, stay),
                        kept=kept,
                        repeat=repeat,
                    )
