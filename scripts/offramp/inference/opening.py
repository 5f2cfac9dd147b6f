"""What every rule that runs a network begins with: the device, the network, a split."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from offramp.data.datasets import dataset_of
from offramp.data.splits import Split, open_split
from offramp.inference.backends import for_inference
from offramp.inference.machine import prepare
from offramp.networks.loading import load
from offramp.networks.multiexit import MultiExitNetwork


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
    network = ready(params.model, paths.weights, params, device)
    return Opened(network, split_of(paths, params, split), device, machine)


def ready(name: str, weights: str, params: Any, device: torch.device) -> MultiExitNetwork:
    """The network of this name with these weights, on the run's dataset and backend."""
    loaded = load(name, dataset_of(params.dataset).classes, weights, device)
    return for_inference(loaded, params.backend)


def split_of(paths: Any, params: Any, name: str) -> Split:
    """A split of the run's data."""
    return open_split(Path(paths.data[0]).parent, params.dataset, name, params.validation)
