"""The cascade against a plain network that is as fast: which is the more accurate?"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from offramp.common.intervals import paired_difference
from offramp.common.progress import progress
from offramp.data.splits import Split, load_images
from offramp.inference.cascade import cascade, run_full_network
from offramp.inference.machine import timed
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.policy import Policy
from offramp.tables.schemas import BASELINE

REPEATS = 3


def compare(
    network: MultiExitNetwork,
    policy: Policy,
    baseline: MultiExitNetwork,
    split: Split,
    batch_size: int,
    device: torch.device,
) -> pa.Table:
    """Run the cascade and the baseline interleaved, REPEATS times over a whole split, and before
    them the full network once, to show what both fall short of (the verification has its speed-up).

    A run of the cascade before all only warms up every batch size that it meets; the others meet
    two. Each row has one network's accuracy, how much more accurate it is than the cascade with its
    paired 95 % interval, and the seconds of one repeat.
    """
    contestants: dict[str, Callable[[Tensor], Tensor]] = {
        "cascade": lambda x: cascade(network, policy, x)[0],
        "full": lambda x: run_full_network(network, x),
        "baseline": lambda x: run_full_network(baseline, x),
    }
    correct = {name: np.zeros(len(split.order), dtype=bool) for name in contestants}
    seconds = {name: np.zeros(REPEATS + 1) for name in contestants}
    turns = [(0, "cascade"), (1, "full"), *product(range(1, REPEATS + 1), ("cascade", "baseline"))]
    for repeat, name in progress(turns, "against the baseline", "run"):
        for rows in split.batches(batch_size):
            x = load_images(split, rows, device)
            labels, spent = timed(partial(contestants[name], x), device)
            seconds[name][repeat] += spent
            correct[name][rows] = labels.cpu().numpy() == split.labels[rows]
    return pa.Table.from_pylist(_rows(correct, seconds), schema=BASELINE)


def _rows(correct: Mapping[str, np.ndarray], seconds: Mapping[str, np.ndarray]) -> list[dict]:
    rows = []
    for name, hits in correct.items():
        difference, low, high = paired_difference(hits, correct["cascade"])
        for repeat in np.flatnonzero(seconds[name][1:]) + 1:
            rows.append(
                {
                    "network": name,
                    "repeat": int(repeat),
                    "n": len(hits),
                    "correct": int(hits.sum()),
                    "difference": difference,
                    "difference_low": low,
                    "difference_high": high,
                    "seconds": float(seconds[name][repeat]),
                }
            )
    return rows
