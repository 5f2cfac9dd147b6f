"""Training a network from nothing: all exits together, seeded, resumable after a kill."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from tqdm import tqdm

from offramp import OfframpError
from offramp.common.progress import bar
from offramp.data.datasets import dataset_of
from offramp.data.splits import Split, load_images, normalised
from offramp.networks.loading import Model, build, name_of
from offramp.networks.multiexit import MultiExitNetwork
from offramp.networks.own.trying import TRIED, check_network
from offramp.tables.schemas import TRAINING
from offramp.training.augmentation import augmented_batches
from offramp.training.evaluation import correct_of
from offramp.training.optimisers import Optimisers
from offramp.training.purpose import purpose
from offramp.training.resuming import restore, store

WARM_UP_SHARE = 0.05
DISTILL_FROM = 0.3
FIT_IMAGES = 5_000
# Inputs and labels.
Batches = Iterator[tuple[Tensor, Tensor]]


def train(
    model: Model,
    dataset: str,
    split: Split,
    validation: Split,
    settings: Mapping[str, Any],
    device: torch.device,
    resume: str | Path,
) -> tuple[MultiExitNetwork, pa.Table]:
    """Train and return the network after the last epoch, with its training curves.

    Parameters: ``dataset`` is what `dataset_of` takes; ``split`` is the train split; ``validation``
    is looked at after each epoch for the curves and changes nothing; ``settings`` is the config's
    ``train``; ``resume`` is a file that holds the state after each whole epoch: a run that finds
    one of the same purpose (see `training.purpose`) goes on from there, on the same device and
    precision to the same result. A damaged file, or another training's, is put aside. Raises
    OfframpError when the loss is not finite any more, and where a network of one's own is none, see
    `check_network`.

    Source: Muon, whitening and alternating flips after Jordan, "94% on CIFAR-10 in 3.29 seconds"
    (2024); `joint_loss` says where the loss comes from.
    """
    torch.manual_seed(settings["seed"])
    network = _fresh(model, dataset_of(dataset).classes, split)
    for block in network.blocks if settings.get("trunk") == "frozen" else ():
        block.requires_grad_(False)
    exit_weights = _exit_weights(settings, len(network.heads), model)
    network.to(device)
    dtype = getattr(torch, precision(device, settings))
    optimisers = Optimisers(network, settings["learning_rate"], dtype, muon=not network.own)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch of an epoch has the same size
    about = purpose(model, dataset, len(validation.order), settings)
    settings = {**settings, "exit_weights": exit_weights}
    history = restore(Path(resume), about, network, optimisers)
    for epoch, result in enumerate(history):
        _report(result, epoch, settings["epochs"])
    batches_of = _augmented(split, dataset_of(dataset).flip, settings, device)
    steps = math.ceil(len(split.order) / settings["batch_size"])
    epochs = _epochs(network, optimisers, batches_of, steps, validation, settings, len(history))
    for result in epochs:
        history.append(result)
        store(Path(resume), about, network, optimisers, history)
    return network.eval(), _curves(history)


def _exit_weights(settings: Mapping[str, Any], exits: int, model: Model) -> list[float]:
    """The share of each exit in the loss, alike where the recipe names none."""
    exit_weights = settings["exit_weights"] or [1] * exits
    if len(exit_weights) != exits:
        raise OfframpError(
            f"config: train.exit_weights: want {exits} numbers, one per exit of {name_of(model)}, "
            f"found {len(exit_weights)}"
        )
    return exit_weights


def _fresh(model: Model, classes: int, split: Split) -> MultiExitNetwork:
    """The network before its first step, set from the training samples where it asks for that."""
    samples = load_images(split, slice(0, TRIED), "cpu")
    network = build(model, classes, samples)
    if network.own:
        check_network(network.eval(), name_of(model), samples, classes)
    network.fit_to(load_images(split, slice(0, FIT_IMAGES), "cpu"))
    return network


def _augmented(
    split: Split, flip: bool, settings: Mapping[str, Any], device: torch.device
) -> Callable[[int], Batches]:
    """The batches of an epoch, by its number; all samples lie on the device."""
    images = torch.from_numpy(split.images[split.order]).to(device)
    labels = torch.from_numpy(split.labels).to(device)
    normalise = partial(normalised, mean=split.mean, std=split.std)
    return lambda epoch: augmented_batches(images, labels, flip, settings, epoch, normalise)


def _epochs(
    network: MultiExitNetwork,
    optimisers: Optimisers,
    batches_of: Callable[[int], Batches],
    steps: int,
    validation: Split,
    settings: Mapping[str, Any],
    done: int,
) -> Iterator[dict]:
    """What came of each epoch from the ``done``-th on, once the network has learnt it, in so many
    ``steps`` each."""
    epochs, device = settings["epochs"], next(network.parameters()).device
    with bar(desc="train", total=steps * epochs, initial=steps * done, unit="step") as progress_bar:
        for epoch in range(done, epochs):
            progress_bar.set_description(f"train epoch {epoch + 1}/{epochs}")
            start = time.perf_counter()
            batches = _counting(batches_of(epoch), progress_bar)
            result = _epoch(network, optimisers, batches, settings, epoch * steps, epochs * steps)
            _refuse_infinite(result["loss"], network, epoch, settings)
            result["val_accuracy"] = correct_of(network, validation, device).mean(axis=0).tolist()
            result["seconds"] = time.perf_counter() - start
            _report(result, epoch, epochs)
            progress_bar.set_postfix_str(
                "val " + " ".join(f"{a:.0%}" for a in result["val_accuracy"])
            )
            yield result


def _counting(batches: Batches, progress_bar: tqdm) -> Batches:
    """The batches, each counted on the progress bar once it is done."""
    for batch in batches:
        yield batch
        progress_bar.update(1)


def _epoch(network, optimisers, batches, settings, steps_before, all_steps) -> dict:
    """One pass over the training samples; mean loss and accuracy per exit while learning."""
    # Dropout draws from the global generator: seeded here for the sake of a resumed run.
    torch.manual_seed(settings["seed"] * 100_003 + steps_before)
    network.train()
    for block in network.blocks if settings.get("trunk") == "frozen" else ():
        block.eval()  # else batch norm would learn of the samples, and dropout draw
    exits, device = len(network.heads), next(network.parameters()).device
    half = precision(device, settings) == "bfloat16"
    # Summed where they are computed: looking at them would make the host wait at every step.
    (loss_sum, hits), samples = torch.zeros(2, exits, device=device), 0
    for step, (x, labels) in enumerate(batches):
        progress = (steps_before + step) / all_steps
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits = [z.float() for z in network(x)]
        losses = torch.stack([cross_entropy(z, labels) for z in logits])
        loss = joint_loss(logits, losses, settings, progress)
        optimisers.step(loss, rate_factor(progress))
        loss_sum += losses.detach() * len(x)
        hits += torch.stack([(z.argmax(1) == labels).sum() for z in logits])
        samples += len(x)
    return {
        "loss": (loss_sum / samples).tolist(),
        "accuracy": (hits / samples).tolist(),
    }


def _refuse_infinite(
    loss: list[float], network: MultiExitNetwork, epoch: int, settings: Mapping[str, Any]
) -> None:
    """Such weights never recover, and nothing that follows would say why."""
    finite = all(bool(value.isfinite().all()) for value in network.state_dict().values())
    if finite and all(map(math.isfinite, loss)):
        return
    rates = ", ".join(f"{name} {rate:g}" for name, rate in settings["learning_rate"].items())
    per_exit = " ".join(f"{value:.3g}" for value in loss)
    raise OfframpError(
        f"epoch {epoch + 1} of {settings['epochs']}: loss or weights are no longer finite (loss "
        f"per exit {per_exit}), so the training stops and keeps nothing of this epoch; lower "
        f"train.learning_rate (now {rates}), or set train.precision to fp32, and rerun"
    )


def joint_loss(
    logits: list[Tensor], losses: Tensor, settings: Mapping[str, Any], progress: float
) -> Tensor:
    """The weighted mean of the exits' cross-entropies, and, from DISTILL_FROM of the run on, of the
    side exits' divergences from what the final exit says.

    No label smoothing: it would lift the entropy of sure answers.
    Sources: Teerapittayanon et al., "BranchyNet" (2016), for joint training; Phuong and Lampert,
    "Distillation-Based Training for Multi-Exit Architectures" (2019).
    """
    weights = torch.tensor(settings["exit_weights"], dtype=losses.dtype)
    weights = weights.to(losses.device, non_blocking=True)
    loss = (weights * losses).sum()
    if len(logits) > 1 and settings["distillation"] and progress >= DISTILL_FROM:
        teacher = softmax(logits[-1].detach(), 1)
        divergences = torch.stack(
            [kl_div(log_softmax(z, 1), teacher, reduction="batchmean") for z in logits[:-1]]
        )
        loss = loss + settings["distillation"] * (weights[:-1] * divergences).sum()
    return loss / weights.sum()


def precision(device: torch.device, settings: Mapping[str, Any]) -> str:
    """bfloat16 or float32, as ``settings["precision"]`` says; auto is bfloat16 where an x86 CPU or
    a CUDA device computes it in hardware."""
    name = settings["precision"]
    if name == "auto":
        name = "bf16" if HAS_BF16.get(device.type, lambda: False)() else "fp32"
    return {"bf16": "bfloat16", "fp32": "float32"}[name]


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)


HAS_BF16 = {
    "cpu": _cpu_has_bf16,
    "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
}


def rate_factor(progress: float) -> float:
    """The learning rates' factor at a share of the whole run: up in a line, then down to 0."""
    if progress < WARM_UP_SHARE:
        return (progress + 0.001) / (WARM_UP_SHARE + 0.001)
    return (1 - progress) / (1 - WARM_UP_SHARE)


def _report(result: dict, epoch: int, epochs: int) -> None:
    for name, data in (("accuracy", "training"), ("val_accuracy", "validation")):
        accuracy = " ".join(f"{a:.1%}" for a in result[name])
        print(f"epoch {epoch + 1}/{epochs}: {data} accuracy per exit {accuracy}", file=sys.stderr)


def _curves(history: list[dict]) -> pa.Table:
    rows = [
        {
            "epoch": epoch,
            "exit": k,
            **{name: result[name][k - 1] for name in ("loss", "accuracy", "val_accuracy")},
            "seconds": result["seconds"],
        }
        for epoch, result in enumerate(history, 1)
        for k in range(1, len(result["loss"]) + 1)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING)
