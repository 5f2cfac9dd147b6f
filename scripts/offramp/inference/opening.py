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


def opened(paths: Any, params: Any, split: str) -> Opened:
    """All of it, from a rule's inputs ``data`` and ``weights`` and its parameters; call once,
    before anything large. Raises OfframpError as `load` and `prepare` do."""
    device, machine = prepare(params)
    samples = split_of(paths, params, split)
    network = ready(params.model, paths.weights or None, params, samples, device)
    return Opened(network, samples, device, machine)


def ready(
    model: Model, weights: str | None, params: Any, split: Split, device: torch.device
) -> MultiExitNetwork:
    """This network with these weights, on the run's dataset, of which this is a split, and backend.
    One of one's own is tried on a few samples first, see `check_network`."""
    classes, two = dataset_of(params.dataset).classes, np.arange(2) % len(split.order)
    few = load_images(split, slice(0, TRIED), "cpu")
    network = load(model, classes, weights, device, few)
    if network.own:
        if weights is None:
            _check_settled(network, model, classes, few)
        check_network(network, name_of(model), few.to(device), classes)
    return for_inference(network, params.backend, load_images(split, two, device))


def _check_settled(network: MultiExitNetwork, model: Model, classes: int, few: Tensor) -> None:
    """Raise OfframpError where a factory that loads its own weights gives others each time: every
    job calls it anew."""
    assert network.identity is not None
    known = network.identity.weights_sha256
    if digest_of(build(model, classes, few).state_dict()) != known:
        raise OfframpError(
            f"{name_of(model)} gives other weights each time it is called; let it load them, or "
            "draw them under a seed of its own, or name a file, or train, in model.weights"
        )


def split_of(paths: Any, params: Any, name: str) -> Split:
    """A split of the run's data."""
    return open_split(Path(paths.data[0]).parent, params.dataset, name, params.validation)
