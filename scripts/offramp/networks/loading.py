"""Networks by name: building, loading and saving their weights, and looking at their parts."""

from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from offramp import OfframpError
from offramp.networks.branchynet import BranchyNet
from offramp.networks.cpunet import CPUNet, CPUNetStatic
from offramp.networks.multiexit import MultiExitNetwork

if TYPE_CHECKING:
    import pyarrow as pa

NETWORKS = {"branchynet": BranchyNet, "cpunet": CPUNet, "cpunet_static": CPUNetStatic}
IMAGE_SHAPE = (3, 32, 32)


def build(name: str, classes: int) -> MultiExitNetwork:
    """A fresh network of the given name, in channels_last memory format (3 to 5 times as fast on a
    CPU as the default)."""
    return NETWORKS[name](classes).to(memory_format=torch.channels_last)


def load(name: str, classes: int, weights: str | Path, device: torch.device) -> MultiExitNetwork:
    """A network with weights from a file, ready for inference on the device.

    ``weights`` is a safetensors file or a torch state dict (never unpickled beyond tensors).
    Raises OfframpError when the file can't be read or its keys or shapes are not the network's.
    """
    network = build(name, classes)
    state = read_state(weights)
    problems = _mismatches(network.state_dict(), state)
    if problems:
        listed = "\n".join(f"  {line}" for line in problems)
        raise OfframpError(f"{weights}: not weights of {name} with {classes} classes:\n{listed}")
    network.load_state_dict(state, strict=True)
    return network.to(device).eval()


def read_state(weights: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; a file ending in .safetensors is that, any other a
    torch state dict."""
    try:
        if str(weights).endswith(".safetensors"):
            return safetensors.torch.load_file(weights)
        state = torch.load(weights, weights_only=True, map_location="cpu")
    except (
        Exception
    ) as error:  # damaged bytes make the weights-only unpickler raise nearly anything
        # The first sentence: torch goes on to recommend unpickling what may hold any code.
        first = (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]
        raise OfframpError(f"{weights}: not a readable weights file ({first})") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise OfframpError(f"{weights}: want a state dict, tensors by name")
    return state


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
    part.replace(path)


def _mismatches(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    problems = [f"missing key {key}" for key in wanted if key not in found]
    problems += [f"unexpected key {key}" for key in found if key not in wanted]
    problems += [
        f"{key}: shape {tuple(found[key].shape)}, want {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    return problems


@torch.inference_mode()
def describe(network: MultiExitNetwork) -> "pa.Table":
    """Shapes, learned parameters and multiply-adds of every block and head, for one image.

    Multiply-adds are half of what torch's own FlopCounterMode counts.
    """
    import pyarrow as pa  # only here: whoever uses a policy has no need of tables

    from offramp.tables.schemas import NETWORK

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
