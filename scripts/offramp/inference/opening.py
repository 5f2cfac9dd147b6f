"""What every rule that runs a network begins with: the device, the network, a split."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.data.datasets import dataset_of
from offramp.data.splits import Split, load_images, open_split
from offramp.inference.backends import for_inference
from offramp.inference.machine import prepare
from offramp.networks.loading import Model, build, digest_of, load, name_of
from offramp.networks.multiexit import MultiExitNetwork
from offramp.networks.own.trying import TRIED, check_network


class Opened(NamedTuple):
    """A network ready for inference on its device, a split, and what a table of timings says of the
    machine."""

    network: MultiExitNetwork
    split: Split
    device: torch.device
    machine: dict[str, str]


def open_run(paths: Any, params: Any, split: str) -> Opened:
    """All of it, from a rule's inputs ``data`` and ``weights`` and its parameters; call once,
    before anything large. Raises OfframpError as `load` and `prepare` do."""
    device, machine = prepare(params)
    samples = split_of(paths, params, split)
    network = ready_network(params.model, paths.weights or None, params, samples, device)
    return Opened(network, samples, device, machine)


def ready_network(
    model: Model, weights: str | None, params: Any, split: Split, device: torch.device
) -> MultiExitNetwork:
    """This network with these weights, on the run's dataset, of which this is a split, and backend.
    One of one's own is tried on a few samples first, see `check_network`."""
    classes = dataset_of(params.dataset).classes
    samples = load_images(split, slice(0, TRIED), "cpu")
    network = load(model, classes, weights, device, samples)
    if network.own:
        if weights is None:
            _check_settled(network, model, classes, samples)
        check_network(network, name_of(model), samples.to(device), classes)
    example = load_images(split, np.arange(2) % len(split.order), device)
    return for_inference(network, params.backend, example)


def _check_settled(network: MultiExitNetwork, model: Model, classes: int, samples: Tensor) -> None:
    """Raise OfframpError where a factory that loads its own weights gives others each time: every
    job calls it anew."""
    assert network.identity is not None
    again = build(model, classes, samples)
    if digest_of(again.state_dict()) != network.identity.weights_sha256:
        raise OfframpError(
            f"{name_of(model)} gives other weights each time it is called; let it load them, or "
            "draw them under a seed of its own, or name a file, or train, in model.weights"
        )


def split_of(paths: Any, params: Any, name: str) -> Split:
    """A split of the run's data."""
    return open_split(Path(paths.data[0]).parent, params.dataset, name, params.validation)
