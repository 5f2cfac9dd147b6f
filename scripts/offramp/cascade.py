"""The live cascade: block, head, decide, remove those who left, next block.

`decide` and `remove` are functions of their own because the probe times the very same code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from offramp.criteria import CRITERIA, score_at
from offramp.multiexit import MultiExitNetwork
from offramp.policy import Policy


@torch.inference_mode()
def run_cascade(network: MultiExitNetwork, policy: Policy, images: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and exits of a batch under a policy.

    Parameters: ``images`` float32 (N, 3, H, W) on the network's device, channels_last. Returns
    label int64 (N,) and exit int64 (N,) in 1..K, in input order, on the same device. A disabled
    exit's head does not run, unless the criterion looks back at it.
    """
    labels = torch.empty(len(images), dtype=torch.int64, device=images.device)
    exits = torch.empty_like(labels)
    index = torch.arange(len(images), device=images.device)
    looks_back, runs = CRITERIA[policy.criterion].looks_back, policy.enabled
    x = images
    seen: list[Tensor] = []
    for k, block in enumerate(network.blocks):
        x = block(x)
        if k == len(policy.thresholds):
            break
        if not runs[k]:
            continue
        logits = network.heads[k](x)
        seen = [*seen, logits] if looks_back else [logits]
        stay = decide(seen, policy, k, index, labels, exits)
        if len(stay) == 0:
            return labels, exits
        if len(stay) < len(index):
            x, index = remove(x, index, stay)
            if looks_back:
                seen = [logits[stay] for logits in seen]
    decide_final(network.heads[-1](x), len(network.heads), index, labels, exits)
    return labels, exits


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
    overwritten at a later exit, which costs less than picking out those who leave.
    """
    looks_back = CRITERIA[policy.criterion].looks_back
    logits = torch.stack(list(seen), 1) if looks_back else seen[-1][:, None]
    precise = logits if logits.device.type == "mps" else logits.double()  # mps has no float64
    if policy.temperatures is not None:
        first = k + 1 - precise.shape[1]
        divisors = policy.temperatures[first : k + 1]
        precise = precise / precise.new_tensor(divisors)[:, None]
    threshold = policy.thresholds[k]
    limit = -torch.inf if threshold is None else threshold
    stays = score_at(policy.criterion, precise, torch) > limit
    labels[index] = seen[-1].argmax(1)
    exits[index] = k + 1
    return stays.nonzero().squeeze(1)


def decide_final(logits: Tensor, exit_: int, index: Tensor, labels: Tensor, exits: Tensor) -> None:
    """Note the answer of the final exit for all who remain."""
    labels[index] = logits.argmax(1)
    exits[index] = exit_


def remove(x: Tensor, index: Tensor, stay: Tensor) -> tuple[Tensor, Tensor]:
    """The features and positions of those who stay; plain indexing keeps channels_last."""
    return x[stay], index[stay]
