"""A policy to use in one's own code: `Cascade`, also `from offramp import Cascade`.

Needs torch, numpy and safetensors, and nothing of the pipeline.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.data.datasets import DATASETS, Dataset, dataset_of
from offramp.data.splits import as_pictures, normalised
from offramp.inference.backends import for_inference
from offramp.inference.cascade import cascade, check_policy
from offramp.inference.machine import choose_device
from offramp.networks.finding import ChosenFor, chosen_for, find_weights, read_about
from offramp.networks.loading import NETWORKS, NONE, build, filled, own_network
from offramp.networks.multiexit import MultiExitNetwork
from offramp.networks.own.factory import factory_of, is_own
from offramp.scoring.policy import Policy, load_policy


class Answers(NamedTuple):
    """Per sample its ``label``, the ``exit`` where it left, 1..K, and its ``score`` there, by which
    it was decided (see `offramp.scoring.criteria.final_score` for the final exit). For a batch
    int64, int64 and float64 (N,), arrays or tensors like the images; for one sample plain numbers.
    """

    label: Any
    exit: Any
    score: Any


class Cascade:
    """A network under a policy: ``cascade(images)`` gives `Answers`.

    ``policy``, ``network``, ``names`` (of the classes, by label), ``device`` and ``dataset``, which
    says what a sample is, are there to be read; nothing changes them, so that any number of threads
    may call one cascade.
    """

    def __init__(
        self,
        network: MultiExitNetwork,
        policy: Policy,
        names: tuple[str, ...],
        device: torch.device,
        dataset: Dataset = DATASETS["cifar10"],
    ):
        self.network, self.policy, self.names, self.device = network, policy, names, device
        self.dataset = dataset

    @classmethod
    def load(
        cls,
        policy: str | Path,
        weights: str | Path | None = None,
        device: str = "cpu",
        network: Any = None,
    ) -> "Cascade":
        """The cascade of a policy file, on a ``device``: cpu, cuda, cuda:1, mps or auto.

        The network's ``weights`` are looked for beside the policy, in its results folder and in the
        clone, and known by their sha256. A policy that was chosen for a network of one's own wants
        that ``network``, as its factory gives it: a policy file runs no code. On cuda convolutions
        are set to full float32 for the whole process: with TF32 about 1 sample in 100 would leave
        elsewhere.

        Raises OfframpError when the policy can't be read, its weights are not found, those given
        are of another network, or the device is not there.
        """
        loaded = load_policy(policy)
        chosen = chosen_for(policy, read_about(policy))
        if is_own(chosen.model) or network is not None:
            _check_own(policy, chosen, network)
        elif chosen.model not in NETWORKS:
            raise OfframpError(
                f"{policy}: chosen for the network {chosen.model!r}, which is none of those here: "
                f"{', '.join(NETWORKS)}"
            )
        try:
            dataset = dataset_of(chosen.known or chosen.dataset)
        except OfframpError:
            raise OfframpError(
                f"{policy}: chosen on the dataset {chosen.dataset!r}, which is none of those here: "
                f"{', '.join(DATASETS)}"
            ) from None
        names, torch_device = dataset.names, choose_device(device)
        fresh = build(chosen.model, len(names)) if network is None else as_multi_exit(network)
        file = None if chosen.file == NONE else find_weights(policy, chosen, weights)
        network = filled(fresh, chosen.model, len(names), file, torch_device)
        if network.identity.weights_sha256 != chosen.sha256:
            raise OfframpError(
                f"{policy}: chosen for {chosen.model} with other weights than this network has"
            )
        if len(loaded.thresholds) != len(network.heads) - 1:
            raise OfframpError(
                f"{policy}: {len(loaded.thresholds)} thresholds, where {chosen.model} has "
                f"{len(network.heads) - 1} side exits"
            )
        if torch_device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        return cls(for_inference(network, "eager"), loaded, names, torch_device, dataset)

    def __call__(self, images: Any) -> Answers:
        """Where each image leaves, and as what.

        ``images``: one, H x W x channels or channels x H x W, or a batch of them; an array, a
        tensor on any device, or what numpy makes an array of; uint8 in 0..255 or floats in 0..1,
        which are normalised here if the dataset is. Of a dataset of other inputs: one of its shape,
        or a batch. Raises OfframpError, naming what is wrong, for any other.
        """
        batch, single = prepared(images, self.device, self.dataset)
        check_policy(self.network, self.policy, batch)
        precision = torch.float32 if self.device.type == "mps" else torch.float64
        scores = torch.empty(len(batch), dtype=precision, device=self.device)
        labels, exits = cascade(self.network, self.policy, batch, scores)
        answers = labels, exits, scores
        if single:
            return Answers(*(value.item() for value in answers))
        if isinstance(images, Tensor):
            return Answers(*(value.to(images.device) for value in answers))
        return Answers(*(value.cpu().numpy() for value in answers))


def _check_own(policy: str | Path, chosen: ChosenFor, network: Any) -> None:
    if not is_own(chosen.model):
        raise OfframpError(f"{policy}: chosen for {chosen.model}; leave network out")
    if network is None:
        options = ", ".join(f"{key}={value!r}" for key, value in (chosen.options or {}).items())
        call = f"{factory_of(chosen.model).name}({options})"
        raise OfframpError(
            f"{policy}: chosen for {chosen.model}, a network of your own, and a policy file runs "
            f"no code; make it yourself and hand it in: Cascade.load(policy, network={call})"
        )


def as_multi_exit(network: Any) -> MultiExitNetwork:
    """A network as it is handed in, in the form that everything here expects. Raises OfframpError
    where it is none."""
    return network if isinstance(network, MultiExitNetwork) else own_network("network", network)


def prepared(
    images: Any, device: torch.device, dataset: Dataset = DATASETS["cifar10"]
) -> tuple[Tensor, bool]:
    """Images as the networks take them: float32 (N, channels, H, W) in 0..1, normalised if the
    dataset is, channels_last, on the device; or other inputs (N, ...) as they are, in the dataset's
    type; and whether it was a single one. Raises OfframpError as `Cascade.__call__`."""
    if not dataset.pictures:
        return _other_inputs(images, device, dataset)
    x = _tensor(images)
    channels_first, channels_last = dataset.input_shape, dataset.shape
    if x.ndim not in (3, 4) or x.shape[-3:] not in (channels_first, channels_last):
        shapes = " or ".join(map(_axes, (channels_last, channels_first)))
        raise OfframpError(
            f"images: want one of {shapes}, or a batch of them, not {_axes(x.shape)}"
        )
    if x.shape[-3:] != channels_last:
        x = x.movedim(-3, -1)
    single = x.ndim == 3
    x = (x[None] if single else x).to(device)
    if x.dtype == torch.uint8:
        x = as_pictures(x, dataset.mean, dataset.std)
    else:
        x = x.permute(0, 3, 1, 2).to(torch.float32)
        low, high = (extreme.item() for extreme in x.aminmax()) if len(x) else (0.0, 1.0)
        if not 0 <= low <= high <= 1:  # nor with a nan
            raise OfframpError(
                f"images: floats are wanted in 0..1 (pixels / 255), found {low:.3g} to {high:.3g}"
            )
        x = normalised(x, dataset.mean, dataset.std)
    return x.contiguous(memory_format=torch.channels_last), single


def _other_inputs(inputs: Any, device: torch.device, dataset: Dataset) -> tuple[Tensor, bool]:
    """Inputs that are no pictures."""
    try:
        x = inputs.detach() if isinstance(inputs, Tensor) else torch.from_numpy(np.array(inputs))
    except (ValueError, TypeError):
        raise OfframpError("inputs: of different shapes, or no numbers; want one shape") from None
    whole = dataset.dtype == "int64"
    if x.is_complex() or x.dtype == torch.bool or (whole and x.is_floating_point()):
        raise OfframpError(f"inputs: want {dataset.dtype}, not {str(x.dtype).split('.')[1]}")
    single = tuple(x.shape) == dataset.shape
    if not single and tuple(x.shape[1:]) != dataset.shape:
        raise OfframpError(
            f"inputs: want one of {_axes(dataset.shape)}, or a batch of them, not {_axes(x.shape)}"
        )
    x = (x[None] if single else x).to(device, getattr(torch, dataset.dtype))
    if not x.isfinite().all():
        raise OfframpError("inputs: want finite numbers, found NaN or infinity")
    return x, single


def _axes(shape: Sequence[int]) -> str:
    """As 32 x 32 x 3."""
    return " x ".join(map(str, shape))


def _tensor(images: Any) -> Tensor:
    """A tensor of uint8 or floats."""
    if isinstance(images, Tensor):
        x = images.detach()
        if x.dtype == torch.uint8 or x.is_floating_point():
            return x
        dtype = str(x.dtype)
    else:
        try:
            array = np.array(images)  # a copy: torch wants to be able to write
        except ValueError:
            raise OfframpError("images: of different shapes; want one shape") from None
        if array.dtype.kind == "f":
            return torch.from_numpy(array.astype(np.float32))
        if array.dtype == np.uint8:
            return torch.from_numpy(array)
        dtype = str(array.dtype)
    raise OfframpError(f"images: want uint8 in 0..255 or floats in 0..1, not {dtype}")
