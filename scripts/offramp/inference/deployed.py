"""A policy to use in one's own code: `Cascade`, also `from offramp import Cascade`.

Needs torch, numpy and safetensors, and nothing of the pipeline.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.data.datasets import DATASETS
from offramp.inference.backends import for_inference
from offramp.inference.cascade import run_cascade
from offramp.inference.machine import choose_device
from offramp.networks.finding import chosen_for, find_weights, read_about
from offramp.networks.loading import IMAGE_SHAPE, NETWORKS, load
from offramp.networks.multiexit import MultiExitNetwork
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

    ``policy``, ``network``, ``names`` (of the classes, by label) and ``device`` are there to be
    read; nothing changes them, so that any number of threads may call one cascade.
    """

    def __init__(
        self,
        network: MultiExitNetwork,
        policy: Policy,
        names: tuple[str, ...],
        device: torch.device,
    ):
        self.network, self.policy, self.names, self.device = network, policy, names, device

    @classmethod
    def load(
        cls, policy: str | Path, weights: str | Path | None = None, device: str = "cpu"
    ) -> "Cascade":
        """The cascade of a policy file, on a ``device``: cpu, cuda, cuda:1, mps or auto.

        The network's ``weights`` are looked for beside the policy, in its results folder and in the
        clone, and known by their sha256. On cuda convolutions are set to full float32 for the
        whole process: with TF32 about 1 sample in 100 would leave elsewhere.

        Raises OfframpError when the policy can't be read, its weights are not found, those given
        are of another network, or the device is not there.
        """
        decided = load_policy(policy)
        chosen = chosen_for(policy, read_about(policy))
        if chosen.model not in NETWORKS:
            raise OfframpError(
                f"{policy}: chosen for the network {chosen.model!r}, which is none of those here: "
                f"{', '.join(NETWORKS)}"
            )
        if chosen.dataset not in DATASETS:
            raise OfframpError(
                f"{policy}: chosen on the dataset {chosen.dataset!r}, which is none of those here: "
                f"{', '.join(DATASETS)}"
            )
        names, where = DATASETS[chosen.dataset].names, choose_device(device)
        found = find_weights(policy, chosen, weights)
        network = load(chosen.model, len(names), found, where)
        if len(decided.thresholds) != len(network.heads) - 1:
            raise OfframpError(
                f"{policy}: {len(decided.thresholds)} thresholds, where {chosen.model} has "
                f"{len(network.heads) - 1} side exits"
            )
        if where.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        return cls(for_inference(network, "eager"), decided, names, where)

    def __call__(self, images: Any) -> Answers:
        """Where each image leaves, and as what.

        ``images``: one, H x W x 3 or 3 x H x W, or a batch of them; an array, a tensor on any
        device, or what numpy makes an array of; uint8 in 0..255 or floats in 0..1, RGB.
        Raises OfframpError, naming what is wrong, for any other.
        """
        batch, one = prepared(images, self.device)
        precision = torch.float32 if self.device.type == "mps" else torch.float64
        scores = torch.empty(len(batch), dtype=precision, device=self.device)
        labels, exits = run_cascade(self.network, self.policy, batch, scores)
        found = labels, exits, scores
        if one:
            return Answers(*(value.item() for value in found))
        if isinstance(images, Tensor):
            return Answers(*(value.to(images.device) for value in found))
        return Answers(*(value.cpu().numpy() for value in found))


def prepared(images: Any, device: torch.device) -> tuple[Tensor, bool]:
    """Images as the networks take them: float32 (N, 3, H, W) in 0..1, channels_last, on the device;
    and whether it was a single one. Raises OfframpError as `Cascade.__call__`."""
    x = _tensor(images)
    channels_first, channels_last = IMAGE_SHAPE, (*IMAGE_SHAPE[1:], IMAGE_SHAPE[0])
    if x.ndim not in (3, 4) or x.shape[-3:] not in (channels_first, channels_last):
        wanted = " or ".join(" x ".join(map(str, each)) for each in (channels_last, channels_first))
        raise OfframpError(
            f"images: want one of {wanted}, or a batch of them, not {' x '.join(map(str, x.shape))}"
        )
    if x.shape[-3:] == channels_last:
        x = x.movedim(-1, -3)
    one = x.ndim == 3
    x = (x[None] if one else x).to(device)
    if x.dtype == torch.uint8:
        x = x.to(torch.float32) / 255
    else:
        x = x.to(torch.float32)
        low, high = (end.item() for end in x.aminmax()) if len(x) else (0.0, 1.0)
        if not 0 <= low <= high <= 1:  # nor with a nan
            raise OfframpError(
                f"images: floats are wanted in 0..1 (pixels / 255), found {low:.3g} to {high:.3g}"
            )
    return x.contiguous(memory_format=torch.channels_last), one


def _tensor(images: Any) -> Tensor:
    """A tensor of uint8 or floats."""
    if isinstance(images, Tensor):
        x = images.detach()
        if x.dtype == torch.uint8 or x.is_floating_point():
            return x
        found = str(x.dtype)
    else:
        try:
            array = np.array(images)  # a copy: torch wants to be able to write
        except ValueError:
            raise OfframpError("images: of different shapes; want one shape") from None
        if array.dtype.kind == "f":
            return torch.from_numpy(array.astype(np.float32))
        if array.dtype == np.uint8:
            return torch.from_numpy(array)
        found = str(array.dtype)
    raise OfframpError(f"images: want uint8 in 0..255 or floats in 0..1, not {found}")
