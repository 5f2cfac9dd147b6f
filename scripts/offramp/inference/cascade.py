"""The live cascade: block, head, decide, remove those who left, next block.

`run_cascade` and `run_cascade_regrouped` look at what they are given; `cascade` and
`cascade_regrouped` don't, and are what is timed. `decide` and `remove` are functions of their own
because the probe times the very same code.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from offramp import OfframpError
from offramp.networks.loading import IMAGE_SHAPE
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA, FEATURES, score_at
from offramp.scoring.policy import Policy, check_fits, check_network


class Samples(NamedTuple):
    """The samples at a stage: features (n, ...), their places in the input, int64 (n,), and, for a
    criterion that looks back, their logits (n, C) of every exit so far."""

    x: Tensor
    places: Tensor
    seen: tuple[Tensor, ...] = ()


def run_cascade(network: MultiExitNetwork, policy: Policy, images: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and exits of a batch under a policy.

    Parameters: ``images`` float32 (N, 3, H, W) in 0..1 on the network's device, best channels_last.
    Returns label int64 (N,) and exit int64 (N,) in 1..K, in input order, on the same device. A
    disabled exit's head does not run, unless the criterion looks back at it.

    Raises OfframpError for images that are none, and a policy that is not one for this network.
    """
    check_policy(network, policy, images)
    check_images(network, images)
    return cascade(network, policy, images)


@torch.inference_mode()
def cascade(network: MultiExitNetwork, policy: Policy, images: Tensor) -> tuple[Tensor, Tensor]:
    """`run_cascade` without a look at what it is given."""
    labels = torch.empty(len(images), dtype=torch.int64, device=images.device)
    exits = torch.empty_like(labels)
    here = Samples(images, torch.arange(len(images), device=images.device))
    for k in range(len(network.blocks)):
        stay = run_stage(network, policy, k, here, labels, exits)
        if stay is None:
            break
        here = stay
    return labels, exits


def run_cascade_regrouped(
    network: MultiExitNetwork, policy: Policy, batches: Sequence[Tensor], batch_size: int
) -> tuple[Tensor, Tensor]:
    """Labels and exits of all batches, as `run_cascade` gives them one after the other; but before
    each block those who are left of several batches are put together into one of ``batch_size``.

    Faster where few are left of a batch and small batches are slow; a sample may wait for others,
    so its latency is that of the whole run. Raises OfframpError as `run_cascade` does.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise OfframpError(f"batch_size: want a whole number from 1 on, not {batch_size!r}")
    if not len(batches):
        raise OfframpError("batches: there are none")
    for images in batches:
        check_images(network, images)
    check_policy(network, policy, batches[0])
    return cascade_regrouped(network, policy, batches, batch_size)


def check_images(network: MultiExitNetwork, images: Tensor) -> None:
    """Raise OfframpError where ``images`` are not what `run_cascade` takes."""
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise OfframpError(f"images: want float32 in 0..1 (pixels / 255), not {found}")
    if images.shape[1:] != IMAGE_SHAPE:
        wanted = ", ".join(map(str, IMAGE_SHAPE))
        raise OfframpError(f"images: want shape (N, {wanted}), not {tuple(images.shape)}")
    weights = next(network.parameters(), None)
    if weights is not None and weights.device != images.device:
        raise OfframpError(f"images: on {images.device}, where the network is on {weights.device}")
    low, high = (end.item() for end in images.aminmax()) if len(images) else (0.0, 1.0)
    if not 0 <= low <= high <= 1:
        raise OfframpError(
            f"images: want 0..1 (pixels / 255, not normalised), found {low:.3g} to {high:.3g}"
        )


@torch.inference_mode()
def check_policy(network: MultiExitNetwork, policy: Policy, images: Tensor) -> None:
    """Raise OfframpError where the policy is not one for this network. How many classes that has,
    which only matters to a fitted criterion, it shows on the first of the ``images``."""
    classes = 0
    if policy.weights and len(images):
        classes = network.heads[0](network.blocks[0](images[:1])).shape[1]
    elif policy.weights:
        classes = len(policy.weights[0]) - FEATURES
    check_fits("the policy", policy, len(network.heads), classes)
    check_network("the policy", policy, network.identity)


@torch.inference_mode()
def cascade_regrouped(
    network: MultiExitNetwork, policy: Policy, batches: Sequence[Tensor], batch_size: int
) -> tuple[Tensor, Tensor]:
    """`run_cascade_regrouped` without a look at what it is given."""
    device, stages = batches[0].device, len(network.blocks)
    labels = torch.empty(sum(map(len, batches)), dtype=torch.int64, device=device)
    exits = torch.empty_like(labels)
    waiting: list[list[Samples]] = [[] for _ in range(stages)]

    def advance(k: int, least: int) -> None:
        while waiting[k] and sum(len(group.places) for group in waiting[k]) >= least:
            here, rest = _first(waiting[k], batch_size)
            waiting[k] = [rest] if len(rest.places) else []
            stay = run_stage(network, policy, k, here, labels, exits)
            if stay is not None:
                waiting[k + 1].append(stay)

    start = 0
    for images in batches:
        index = torch.arange(start, start + len(images), device=device)
        waiting[0].append(Samples(images, index))
        start += len(images)
        for k in range(stages):
            advance(k, batch_size)
    for k in range(stages):
        advance(k, 1)
    return labels, exits


def _first(groups: Sequence[Samples], size: int) -> tuple[Samples, Samples]:
    """The first ``size`` samples of the groups together, and the rest."""
    x, places, seen = groups[0]
    if len(groups) > 1:
        x, places = torch.cat([g.x for g in groups]), torch.cat([g.places for g in groups])
        seen = tuple(torch.cat(logits) for logits in zip(*(g.seen for g in groups), strict=True))
    some, rest = (
        Samples(x[part], places[part], tuple(z[part] for z in seen))
        for part in (slice(0, size), slice(size, None))
    )
    return some, rest


def run_stage(
    network: MultiExitNetwork, policy: Policy, k: int, here: Samples, labels: Tensor, exits: Tensor
) -> Samples | None:
    """Block k (from 0), its head, decision and removal: notes label and exit of those who leave in
    ``labels`` and ``exits``, int64 (N,), and returns those who stay, None if nobody does."""
    x = network.blocks[k](here.x)
    if k == len(policy.thresholds):
        decide_final(network.heads[-1](x), k + 1, here.places, labels, exits)
        return None
    looks_back = CRITERIA[policy.criterion].looks_back
    # `runs` only where it matters: asking costs as much as a small layer on one sample.
    if policy.thresholds[k] is None and not (looks_back and policy.runs[0, k]):
        return here._replace(x=x)
    logits = network.heads[k](x)
    seen = (*here.seen, logits) if looks_back else (logits,)
    if policy.thresholds[k] is None:
        return Samples(x, here.places, seen)
    stay = decide(seen, policy, k, here.places, labels, exits)
    kept = seen if looks_back else ()
    if len(stay) == len(here.places):
        return Samples(x, here.places, kept)
    return remove(Samples(x, here.places, kept), stay) if len(stay) else None


@torch.inference_mode()
def run_full_network(network: MultiExitNetwork, images: Tensor) -> Tensor:
    """Labels int64 (N,) of the full network: all blocks and only the final head."""
    x = images
    for block in network.blocks:
        x = block(x)
    return network.heads[-1](x).argmax(1)


def decide(
    seen: Sequence[Tensor], policy: Policy, k: int, index: Tensor, labels: Tensor, exits: Tensor
) -> Tensor:
    """Decide at side exit k (from 0) and return the rows that stay, int64 (kept,).

    ``seen`` ends with this exit's logits (n, C); for a criterion that looks back, those of all
    exits before it come first. The answer of this exit is noted for everyone here; who stays is
    overwritten at a later exit, which costs less than picking out those who leave. On an
    accelerator the host waits here, once an exit: how many stay is the next block's batch size.
    """
    used = list(seen) if CRITERIA[policy.criterion].looks_back else [seen[-1]]
    logits = torch.stack(used, 1)
    precise = logits if logits.device.type == "mps" else logits.double()  # mps has no float64
    if policy.temperatures is not None:
        for place, exit_ in enumerate(range(k + 1 - len(used), k + 1)):
            precise[:, place] /= policy.temperatures[exit_]
    weights = policy.weights[k] if policy.weights is not None else None
    stays = score_at(policy.criterion, precise, torch, weights) > policy.thresholds[k]
    labels[index] = seen[-1].argmax(1)
    exits[index] = k + 1
    return stays.nonzero().squeeze(1)


def decide_final(logits: Tensor, exit_: int, index: Tensor, labels: Tensor, exits: Tensor) -> None:
    """Note the answer of the final exit for all who remain."""
    labels[index] = logits.argmax(1)
    exits[index] = exit_


def remove(here: Samples, stay: Tensor) -> Samples:
    """Those who stay, by their rows int64 (kept,); plain indexing keeps channels_last."""
    return Samples(here.x[stay], here.places[stay], tuple(z[stay] for z in here.seen))
