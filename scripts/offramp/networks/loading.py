"""Networks by name: building, loading and saving their weights, and looking at their parts."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from offramp import OfframpError
from offramp.networks import states
from offramp.networks.branchynet import BranchyNet
from offramp.networks.cpunet import CPUNet, CPUNetStatic
from offramp.networks.identity import Identity
from offramp.networks.multiexit import MultiExitNetwork
from offramp.tables.files import sha256
from offramp.tables.schemas import NETWORK

NETWORKS = {"branchynet": BranchyNet, "cpunet": CPUNet, "cpunet_static": CPUNetStatic}
IMAGE_SHAPE = (3, 32, 32)


def build(name: str, classes: int) -> MultiExitNetwork:
    """A fresh network of the given name, in channels_last memory format (3 to 5 times as fast on a
    CPU as the default)."""
    return NETWORKS[name](classes).to(memory_format=torch.channels_last)


def load(name: str, classes: int, weights: str | Path, device: torch.device) -> MultiExitNetwork:
    """A network with weights from a file, ready for inference on the device.

    ``weights`` is a safetensors file or a torch state dict, alone or in a checkpoint (see
    states.py). Raises OfframpError when the file can't be read, or says how what it holds differs
    from the network's weights.
    """
    network = build(name, classes)
    content = states.read(weights)
    try:
        state = states.fitting(
            weights, content, network.state_dict(), f"{name} with {classes} classes"
        )
    except OfframpError as error:
        raise OfframpError(f"{error}{_whose(content, name, classes)}") from None
    network.load_state_dict(state, strict=True)
    network.identity = Identity(name, str(weights), sha256(weights))
    return network.to(device).eval()


def _whose(content: Any, name: str, classes: int) -> str:
    """A line that says of which other network here the weights are, if of any."""
    for other in NETWORKS.keys() - {name}:
        with torch.device("meta"):
            wanted = NETWORKS[other](classes).state_dict()
        with suppress(OfframpError):
            states.fitting("", content, wanted, other)
            return f"\n  these are weights of {other}: name that network in the config"
    return ""


def save(
    network: MultiExitNetwork, path: str | Path, about: dict[str, str], half: bool = False
) -> None:
    """Write the state dict as safetensors with ``about`` as its metadata.

    ``half`` stores kernels and matrices in half precision; vectors (biases, what batch norm knows
    of its inputs) cost next to nothing and stay as they are.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if half:
        state = {k: v.half() if v.ndim > 1 else v for k, v in state.items()}
    part = Path(f"{path}.part")
    safetensors.torch.save_file(state, part, metadata=about)
    part.chmod(0o644)  # safetensors makes it readable by its owner alone
    with part.open("rb+") as file:
        os.fsync(file.fileno())  # else after a power cut the name may stand for nothing
    part.replace(path)


@torch.inference_mode()
def describe(network: MultiExitNetwork) -> pa.Table:
    """Shapes, learned parameters and multiply-adds of every block and head, for one image.

    Multiply-adds are half of what torch's own FlopCounterMode counts.
    """
    rows = []
    x = torch.zeros(1, *IMAGE_SHAPE)
    for k, (block, head) in enumerate(zip(network.blocks, network.heads, strict=True), 1):
        features, row = _look(block, x)
        rows.append({"part": "block", "exit": k, **row})
        _, row = _look(head, features)
        rows.append({"part": "head", "exit": k, **row})
        x = features
    return pa.Table.from_pylist(rows, schema=NETWORK)


def _look(part: nn.Module, x: Tensor) -> tuple[Tensor, dict]:
    with FlopCounterMode(display=False) as counter:
        y = part(x)
    return y, {
        "input_shape": "x".join(map(str, x.shape[1:])),
        "output_shape": "x".join(map(str, y.shape[1:])),
        "parameters": sum(p.numel() for p in part.parameters() if p.requires_grad),
        "multiply_adds": counter.get_total_flops() // 2,
    }
