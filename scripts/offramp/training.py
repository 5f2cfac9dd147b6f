"""Training a network from nothing: all exits together, seeded, resumable after a kill."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from offramp.datasets import DATASETS, Split
from offramp.multiexit import MultiExitNetwork
from offramp.networks import build
from offramp.progress import bar
from offramp.tables import TRAINING

SHIFT = 2
WARM_UP_SHARE = 0.2
WEIGHT_DECAY = 0.01


def train(
    model: str,
    dataset: str,
    split: Split,
    settings: Mapping[str, Any],
    device: torch.device,
    resume: str | Path,
) -> tuple[MultiExitNetwork, pa.Table]:
    """Train and return the network after the last epoch, with its training curves.

    Parameters: ``split`` is the train split; ``settings`` has epochs, batch_size, learning_rate
    and seed; ``resume`` is a file that holds the state after each whole epoch: a run that finds one
    of the same settings goes on from there, to the same result.

    The loss is the mean of the exits' cross-entropies, without label smoothing, which would lift
    the entropy of sure answers. Source: joint training as in BranchyNet (2016); AdamW and a
    one-cycle learning rate after Smith, "Super-Convergence" (2018).
    """
    torch.manual_seed(settings["seed"])
    network = build(model, DATASETS[dataset].classes).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["learning_rate"], weight_decay=WEIGHT_DECAY
    )
    purpose = json.dumps([model, dataset, len(split.order), dict(settings)], sort_keys=True)
    fingerprint = hashlib.sha256(purpose.encode()).hexdigest()
    history = _restore(Path(resume), fingerprint, network, optimizer)
    steps = math.ceil(len(split.order) / settings["batch_size"])
    done = len(history)
    total = steps * settings["epochs"]
    with bar(desc="train", total=total, initial=done * steps, unit="step") as shown:
        for epoch in range(done, settings["epochs"]):
            shown.set_description(f"train epoch {epoch + 1}/{settings['epochs']}")
            flip = DATASETS[dataset].flip
            history.append(_epoch(network, optimizer, split, settings, epoch, steps, flip, shown))
            _report(history[-1], epoch, settings["epochs"])
            _store(Path(resume), fingerprint, network, optimizer, history)
    return network.eval(), _curves(history)


def _epoch(network, optimizer, split, settings, epoch, steps, flip, shown) -> dict:
    """One pass over the training samples in a new order; sums of loss and hits per exit."""
    # Seeded per epoch, so that a run resumed at an epoch's start draws what it would have drawn.
    torch.manual_seed(settings["seed"] * 100_003 + epoch)
    network.train()
    device = next(network.parameters()).device
    order = torch.randperm(len(split.order)).numpy()
    exits = len(network.heads)
    loss_sum, hits = torch.zeros(exits), torch.zeros(exits)
    start = time.perf_counter()
    for step, rows in enumerate(np.array_split(order, steps)):
        progress = (epoch * steps + step) / (settings["epochs"] * steps)
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * one_cycle(progress)
        x = augment(torch.from_numpy(split.images[split.order[rows]]), flip).to(device)
        labels = torch.from_numpy(split.labels[rows]).to(device)
        logits = network(x)
        losses = torch.stack([cross_entropy(z, labels) for z in logits])
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimizer.step()
        loss_sum += losses.detach().cpu() * len(rows)
        hits += torch.stack([(z.argmax(1) == labels).sum() for z in logits]).cpu()
        shown.update(1)
    samples = len(split.order)
    return {
        "loss": (loss_sum / samples).tolist(),
        "accuracy": (hits / samples).tolist(),
        "seconds": time.perf_counter() - start,
    }


def one_cycle(progress: float) -> float:
    """The learning rate's factor at a share of the whole run: up in a line, then down to 0 along a
    cosine."""
    if progress < WARM_UP_SHARE:
        return (progress + 0.01) / (WARM_UP_SHARE + 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))


def augment(images: Tensor, flip: bool) -> Tensor:
    """Shift each image by up to SHIFT pixels (edges repeated) and, if wanted, mirror half of them.

    uint8 (n, H, W, 3) -> float32 (n, 3, H, W) in 0..1, channels_last.
    """
    n, height, width, _ = images.shape
    shift = torch.randint(-SHIFT, SHIFT + 1, (2, n, 1))
    rows = (torch.arange(height) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[1]).clamp(0, width - 1)
    if flip:
        mirrored = torch.rand(n, 1) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    moved = images[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).to(torch.float32) / 255


def _report(epoch_result: dict, epoch: int, epochs: int) -> None:
    accuracy = " ".join(f"{a:.1%}" for a in epoch_result["accuracy"])
    print(f"epoch {epoch + 1}/{epochs}: training accuracy per exit {accuracy}", file=sys.stderr)


def _store(path: Path, fingerprint: str, network, optimizer, history: list[dict]) -> None:
    state = {
        "fingerprint": fingerprint,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _restore(path: Path, fingerprint: str, network, optimizer) -> list[dict]:
    if not path.exists():
        return []
    state = torch.load(path, weights_only=True)
    if state["fingerprint"] != fingerprint:
        print(f"{path} is of other settings; training starts anew", file=sys.stderr)
        return []
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"going on after epoch {len(state['history'])}, from {path}", file=sys.stderr)
    return state["history"]


def _curves(history: list[dict]) -> pa.Table:
    rows = [
        {
            "epoch": epoch,
            "exit": k,
            "loss": result["loss"][k - 1],
            "accuracy": result["accuracy"][k - 1],
            "seconds": result["seconds"],
        }
        for epoch, result in enumerate(history, 1)
        for k in range(1, len(result["loss"]) + 1)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING)
