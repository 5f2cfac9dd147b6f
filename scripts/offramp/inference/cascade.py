"""The live cascade: block, head, decide, remove those who left, next block.

`run_cascade` and `run_cascade_regrouped` look at what they are given; `cascade` and
`cascade_regrouped` don't, and are what is timed. `decide` and `remove` are functions of their own
because the probe times the very same code.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from offramp import OfframpError
from offramp.networks.features import Features, count, first_of, joined, take
from offramp.networks.loading import IMAGE_SHAPE
from offramp.networks.multiexit import MultiExitNetwork
from offramp.scoring.criteria import CRITERIA, FEATURES, final_score, score_at
from offramp.scoring.policy import Policy, check_fits, check_network


class Samples(NamedTuple):
    """The samples at a stage: features (n, ...), a tensor or a tuple of them, their places in the
    input, int64 (n,), and, for a criterion that looks back, their logits (n, C) of every exit so
    far."""

    x: Features
    places: Tensor
    seen: tuple[Tensor, ...] = ()


class Notes(NamedTuple):
    """What is noted of every sample of the input, by its place there: label and exit int64 (N,),
    and, if wanted, score float64 (N,)."""

    labels: Tensor
    exits: Tensor
    scores: Tensor | None = None


def new_notes(samples: int, device: torch.device, scores: Tensor | None = None) -> Notes:
    """Notes of so many samples, still to be filled, with ``scores`` if they are wanted."""
    labels = torch.empty(samples, dtype=torch.int64, device=device)
    return Notes(labels, torch.empty_like(labels), scores)


def run_cascade(
    network: MultiExitNetwork, policy: Policy, images: Features, scores: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Labels and exits of a batch under a policy.

    Parameters: ``images`` float32 (N, 3, H, W) in 0..1 on the network's device, best channels_last;
    for a network of one's own what it takes, a tensor or a tuple of them, (N, ...) each.
    Returns label int64 (N,) and exit int64 (N,) in 1..K, in input order, on the same device. A
    disabled exit's head does not run, unless the criterion looks back at it. ``scores``, if given,
    float64 (N,), is filled with the score of each sample at the exit where it left.

    Raises OfframpError for images that are none, and a policy that is not one for this network.
    """
    check_policy(network, policy, images)
    check_images(network, images)
    return cascade(network, policy, images, scores)


@torch.inference_mode()
def cascade(
    network: MultiExitNetwork, policy: Policy, images: Features, scores: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`run_cascade` without a look at what it is given."""
    n, device = count(images), first_of(images).device
    notes = new_notes(n, device, scores)
    samples = Samples(images, torch.arange(n, device=device))
    for k in range(len(network.blocks)):
        survivors = run_stage(network, policy, k, samples, notes)
        if survivors is None:
            break
        samples = survivors
    return notes.labels, notes.exits


def run_stage(
    network: MultiExitNetwork, policy: Policy, k: int, samples: Samples, notes: Notes
) -> Samples | None:
    """Block k (from 0), its head, decision and removal: fills the notes of those who leave, and
    returns those who stay, None if nobody does."""
    x = network.blocks[k](samples.x)
    if k == len(policy.thresholds):
        logits = network.heads[-1](x)
        decide_final(logits, k + 1, samples.places, notes)
        if notes.scores is not None:
            notes.scores[samples.places] = final_score(policy.criterion, _precise(logits), torch)
        return None
    looks_back = CRITERIA[policy.criterion].looks_back
    # `runs` only where it matters: asking costs as much as a small layer on one sample.
    if policy.thresholds[k] is None and not (looks_back and policy.runs[0, k]):
        return samples._replace(x=x)
    logits = network.heads[k](x)
    seen = (*samples.seen, logits) if looks_back else (logits,)
    if policy.thresholds[k] is None:
        return Samples(x, samples.places, seen)
    stay = decide(seen, policy, k, samples.places, notes)
    decided = Samples(x, samples.places, seen if looks_back else ())
    if len(stay) == len(samples.places):
        return decided
    return remove(decided, stay) if len(stay) else None


def decide(seen: Sequence[Tensor], policy: Policy, k: int, places: Tensor, notes: Notes) -> Tensor:
    """Decide at side exit k (from 0) and return the rows that stay, int64 (kept,).

    ``seen`` ends with this exit's logits (n, C); for a criterion that looks back, those of all
    exits before it come first. The answer of this exit is noted for everyone here, by their
    ``places`` in the input, int64 (n,); who stays is overwritten at a later exit, which costs less
    than picking out those who leave. On an accelerator the host waits here, once an exit: how many
    stay is the next block's batch size.
    """
    used = list(seen) if CRITERIA[policy.criterion].looks_back else [seen[-1]]
    precise = _precise(torch.stack(used, 1))
    if policy.temperatures is not None:
        for column, exit_ in enumerate(range(k + 1 - len(used), k + 1)):
            precise[:, column] /= policy.temperatures[exit_]
    weights = policy.weights[k] if policy.weights is not None else None
    score = score_at(policy.criterion, precise, torch, weights)
    stays = score > policy.thresholds[k]
    if notes.scores is not None:
        notes.scores[places] = score
    notes.labels[places] = seen[-1].argmax(1)
    notes.exits[places] = k + 1
    return stays.nonzero().squeeze(1)


def decide_final(logits: Tensor, exit_: int, places: Tensor, notes: Notes) -> None:
    """Note the answer of the final exit for all who remain."""
    notes.labels[places] = logits.argmax(1)
    notes.exits[places] = exit_


def _precise(logits: Tensor) -> Tensor:
    return logits if logits.device.type == "mps" else logits.double()  # mps has no float64


def remove(samples: Samples, stay: Tensor) -> Samples:
    """Those who stay, by their rows int64 (kept,)."""
    seen = tuple(logits[stay] for logits in samples.seen)
    return Samples(take(samples.x, stay), samples.places[stay], seen)


def run_cascade_regrouped(
    network: MultiExitNetwork, policy: Policy, batches: Sequence[Features], batch_size: int
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


@torch.inference_mode()
def cascade_regrouped(
    network: MultiExitNetwork, policy: Policy, batches: Sequence[Features], batch_size: int
) -> tuple[Tensor, Tensor]:
    """`run_cascade_regrouped` without a look at what it is given."""
    device, stages = first_of(batches[0]).device, len(network.blocks)
    notes = new_notes(sum(map(count, batches)), device)
    waiting: list[list[Samples]] = [[] for _ in range(stages)]

    def advance(k: int, least: int) -> None:
        while waiting[k] and sum(len(group.places) for group in waiting[k]) >= least:
            batch, rest = _regrouped(waiting[k], batch_size)
            waiting[k] = [rest] if len(rest.places) else []
            survivors = run_stage(network, policy, k, batch, notes)
            if survivors is not None:
                waiting[k + 1].append(survivors)

    start = 0
    for images in batches:
        places = torch.arange(start, start + count(images), device=device)
        waiting[0].append(Samples(images, places))
        start += count(images)
        for k in range(stages):
            advance(k, batch_size)
    for k in range(stages):
        advance(k, 1)
    return notes.labels, notes.exits


def _regrouped(groups: Sequence[Samples], size: int) -> tuple[Samples, Samples]:
    """The first ``size`` samples of the groups together, and the rest."""
    x, places, seen = groups[0]
    if len(groups) > 1:
        x, places = joined([g.x for g in groups]), torch.cat([g.places for g in groups])
        seen = tuple(torch.cat(logits) for logits in zip(*(g.seen for g in groups), strict=True))
    batch, rest = (
        Samples(take(x, part), places[part], tuple(logits[part] for logits in seen))
        for part in (slice(0, size), slice(size, None))
    )
    return batch, rest


@torch.inference_mode()
def run_full_network(network: MultiExitNetwork, images: Features) -> Tensor:
    """Labels int64 (N,) of the full network: all blocks and only the final head."""
    x = images
    for block in network.blocks:
        x = block(x)
    return network.heads[-1](x).argmax(1)


def check_images(network: MultiExitNetwork, images: Features) -> None:
    """Raise OfframpError where ``images`` are not what `run_cascade` takes."""
    weights = next(network.parameters(), None)
    if network.own:
        _check_inputs(images, weights)
        return
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise OfframpError(f"images: want float32 in 0..1 (pixels / 255), not {given}")
    if images.shape[1:] != IMAGE_SHAPE:
        axes = ", ".join(map(str, IMAGE_SHAPE))
        raise OfframpError(f"images: want shape (N, {axes}), not {tuple(images.shape)}")
    if weights is not None and weights.device != images.device:
        raise OfframpError(f"images: on {images.device}, where the network is on {weights.device}")
    low, high = (extreme.item() for extreme in images.aminmax()) if len(images) else (0.0, 1.0)
    if not 0 <= low <= high <= 1:
        raise OfframpError(
            f"images: want 0..1 (pixels / 255, not normalised), found {low:.3g} to {high:.3g}"
        )


def _check_inputs(inputs: Any, weights: Tensor | None) -> None:
    """What is known of what a network of one's own takes."""
    tensors = inputs if isinstance(inputs, tuple) and inputs else (inputs,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.ndim:
            given = "a number" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
            raise OfframpError(f"inputs: want a tensor or a tuple of tensors (N, ...), not {given}")
        if weights is not None and weights.device != tensor.device:
            raise OfframpError(
                f"inputs: on {tensor.device}, where the network is on {weights.device}"
            )
    if len({len(tensor) for tensor in tensors}) > 1:
        raise OfframpError(f"inputs: tensors of {', '.join(map(str, map(len, tensors)))} samples")


@torch.inference_mode()
def check_policy(network: MultiExitNetwork, policy: Policy, images: Features) -> None:
    """Raise OfframpError where the policy is not one for this network. How many classes that has,
    which only matters to a fitted criterion, it shows on the first of the ``images``."""
    classes = 0
    if policy.weights and count(images):
        classes = network.heads[0](network.blocks[0](take(images, slice(0, 1)))).shape[1]
    elif policy.weights:
        classes = len(policy.weights[0]) - FEATURES
    check_fits("the policy", policy, len(network.heads), classes)
    check_network("the policy", policy, network.identity)
