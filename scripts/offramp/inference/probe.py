"""Timings of every part over a grid of batch sizes, and of removal over how many stay, in the
conditions in which a cascade meets them."""

from functools import partial

import numpy as np
import pyarrow as pa
import torch

from offramp.common.progress import progress
from offramp.data.splits import Split, load_images
from offramp.inference.cascade import remove
from offramp.inference.forward import Stopwatch, all_samples, timed_stage
from offramp.networks.features import Features, count, take
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.policy import Policy

GRID = (1, 4, 16, 48, 96, 160, 256, 384, 512, 768, 1024)
# Up to this batch size, every size below it is timed: of few, each would come again so soon that it
# finds in the caches what a cascade, whose sizes are all different, does not.
SMALL = 32
ROUNDS = 4
WARM_UP = 1
# Full batches that nobody leaves, in every round: what the others are compared with.
WHOLE = 2


def probe_sizes(batch_size: int) -> list[int]:
    """The batch sizes to time: those of the grid below ``batch_size``, or all if that is SMALL, and
    itself."""
    below = range(1, batch_size) if batch_size <= SMALL else GRID
    return [n for n in below if n < batch_size] + [batch_size]


def descents(batch_size: int, exits: int) -> list[list[int]]:
    """The rounds' walks through the network, each as the batch sizes at stages 1, 2, ...

    A small batch is slower where the one before it was large, since what it needs has left the
    caches: by up to a quarter. So every size at every stage is met as in a cascade, at the end of a
    full batch that shrinks by the same factor at each exit; one walk goes down to each size at each
    stage, and ends there. Batches that are small from the start take the first stage alone; WHOLE
    full batches, which nobody leaves, go all the way.
    """
    sizes = probe_sizes(batch_size)
    walks = [[batch_size] * exits] * WHOLE + [[n] for n in sizes[:-1]]
    for last in range(1, exits):
        for n in sizes[:-1]:
            ideals = batch_size * (n / batch_size) ** (np.arange(last + 1) / last)
            distances = [np.abs(np.log(np.divide(sizes, ideal))) for ideal in ideals]
            walks.append([sizes[distance.argmin()] for distance in distances])
    return walks


@torch.inference_mode()
def probe(
    network: MultiExitNetwork, policy: Policy, split: Split, batch_size: int, device: torch.device
) -> pa.Table:
    """The timings table of the probe, deciding by ``policy``: ``ROUNDS`` times all `descents`, in a
    new order each time so that a drift of the machine hits all alike, after ``WARM_UP`` rounds not
    kept. ``repeat`` is the round."""
    draw = np.random.default_rng(0)
    watch = Stopwatch(device, "probe")
    images = load_images(split, np.arange(batch_size) % len(split.order), device)
    for repeat in progress(range(-WARM_UP, ROUNDS), "probe", "round"):
        probe_round(network, policy, images, watch, repeat, draw)
        if repeat < 0:
            watch.rows.clear()
    return watch.table()


def probe_round(
    network: MultiExitNetwork,
    policy: Policy,
    images: Features,
    watch: Stopwatch,
    repeat: int,
    draw: np.random.Generator,
) -> None:
    """All descents once, in a random order; ``images`` is a full batch."""
    walks = descents(count(images), len(network.heads))
    for i in draw.permutation(len(walks)):
        descend(network, policy, images, walks[i], watch, repeat, draw)


@torch.inference_mode()
def descend(
    network: MultiExitNetwork,
    policy: Policy,
    images: Features,
    sizes: list[int],
    watch: Stopwatch,
    repeat: int,
    draw: np.random.Generator,
) -> None:
    """Time every part at every stage of one walk; who leaves in between is drawn at random."""
    looks_back = CRITERIA[policy.criterion].looks_back
    samples, notes = all_samples(take(images, slice(0, sizes[0])))
    for k, kept in enumerate([*sizes[1:], None], 1):
        samples = timed_stage(network, policy, samples, notes, watch, repeat=repeat)
        n = count(samples.x)
        if kept is not None and kept < n:
            stay = torch.from_numpy(np.sort(draw.permutation(n)[:kept])).to(samples.places.device)
            # Earlier logits are removed, too, where the criterion will look back at them.
            removed = samples if looks_back else samples._replace(seen=())
            call = partial(remove, removed, stay)
            survivors = watch.time("remove", k, n, call, kept=kept, repeat=repeat)
            samples = survivors if looks_back else survivors._replace(seen=samples.seen)
