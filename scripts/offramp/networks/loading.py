"""Networks by name or factory: building, loading and saving their weights, looking at their
parts."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from offramp import OfframpError
from offramp.common.hashing import sha256
from offramp.networks import states
from offramp.networks.branchynet import BranchyNet
from offramp.networks.cpunet import CPUNet, CPUNetStatic
from offramp.networks.features import Features, tensors_of
from offramp.networks.identity import Identity
from offramp.networks.multiexit import MultiExitNetwork, OwnNetwork
from offramp.networks.own.factory import PAGE, is_own, make
from offramp.networks.own.heads import HEADS, head_for
from offramp.networks.own.splitting import SplitNetwork, split

if TYPE_CHECKING:
    import pyarrow as pa

NETWORKS = {"branchynet": BranchyNet, "cpunet": CPUNet, "cpunet_static": CPUNetStatic}
# What the networks above take.
IMAGE_SHAPE = (3, 32, 32)
NONE = "none"
# What the config says of a model: `name`, `options`, `exits` and `head`; or the name alone.
Model = str | Mapping[str, Any]


def build(model: Model, classes: int, like: Features | None = None) -> MultiExitNetwork:
    """A fresh network, its kernels in channels_last memory format (3 to 5 times as fast on a CPU as
    the default). A name with a colon is a factory, whose code is run. Where ``model`` has `exits`,
    the network is cut there; ``like`` is a small batch to see by what passes between the blocks.

    Raises OfframpError, one line, where a factory is not there, fails or gives no network, or its
    network can't be cut so.
    """
    name, options = _name_and_options(model)
    if not is_own(name):
        network: MultiExitNetwork = NETWORKS[name](classes)
    else:
        given = make(name, options, classes)
        exits = None if isinstance(model, str) else model.get("exits")
        network = with_exits(given, model, classes, like) if exits else own_network(name, given)
    lay_out(network)
    return network


def with_exits(given: Any, model: Model, classes: int, like: Features | None) -> SplitNetwork:
    """What a factory gave, cut and given heads as ``model`` says."""
    assert isinstance(model, Mapping) and like is not None
    if not isinstance(given, nn.Module):
        raise OfframpError(
            f"model.exits: {name_of(model)} gave {_type(given)}; want a torch.nn.Module to cut"
        )
    kind = model.get("head") or "pooled"

    def by_factory(shape: tuple, classes: int) -> nn.Module:
        return make(kind, {"shape": shape, "classes": classes}, classes, "model.head")

    maker = kind if kind in HEADS else by_factory
    return split(given, model["exits"], like, partial(head_for, classes=classes, kind=maker))


def lay_out(network: nn.Module) -> None:
    """Kernels to channels_last; torch's own way refuses networks with others beside them."""
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


def name_of(model: Model) -> str:
    """Its name, or its factory's."""
    return _name_and_options(model)[0]


def _name_and_options(model: Model) -> tuple[str, Mapping[str, Any]]:
    if isinstance(model, str):
        return model, {}
    return model["name"], model.get("options") or {}


def own_network(what: str, given: Any) -> MultiExitNetwork:
    """Someone's network, which ``what`` gave, as one of ours.

    Raises OfframpError where it is none: see `offramp.networks.multiexit.MultiExit`.
    """
    parts = {}
    for name in ("blocks", "heads"):
        modules = getattr(given, name, None)
        if not isinstance(modules, Sequence | nn.ModuleList | nn.Sequential):
            raise OfframpError(
                f"{what} gave {_type(given)} without a list of {name}; want an object with blocks "
                f"and heads, see {PAGE}; or name in model.exits where a module gets exits"
            )
        parts[name] = list(modules)
        for i, part in enumerate(parts[name]):
            if not isinstance(part, nn.Module):
                raise OfframpError(f"{what}: {name}[{i}] is {_type(part)}; want a torch.nn.Module")
    blocks, heads = map(len, parts.values())
    if blocks != heads or not blocks:
        raise OfframpError(
            f"{what} gave {blocks} blocks and {heads} heads; want as many of each, a pair per exit"
        )
    return OwnNetwork(given)


def _type(value: Any) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def load(
    model: Model,
    classes: int,
    weights: str | Path | None,
    device: torch.device,
    like: Features | None = None,
) -> MultiExitNetwork:
    """A network with weights from a file, ready for inference on the device.

    ``weights`` is a safetensors file or a torch state dict, alone or in a checkpoint (see
    states.py); None where a factory loads its own. Raises OfframpError when the file can't be read,
    or says how what it holds differs from the network's weights; and as `build` does.
    """
    return filled(build(model, classes, like), model, classes, weights, device)


def filled(
    network: MultiExitNetwork,
    model: Model,
    classes: int,
    weights: str | Path | None,
    device: torch.device,
) -> MultiExitNetwork:
    """A network fresh from its ``model`` as `load` gives it."""
    name, options = _name_and_options(model)
    if weights is None:
        digest = digest_of(network.state_dict())
    else:
        _load_weights(network, name, weights, classes)
        digest = sha256(weights)
    network.identity = Identity(name, str(weights or NONE), digest, dict(options) or None)
    return network.to(device).eval()


def _load_weights(network: MultiExitNetwork, name: str, weights: str | Path, classes: int) -> None:
    content = states.read(weights)
    try:
        state = states.fitting(
            weights, content, network.state_dict(), f"{name} with {classes} classes"
        )
    except OfframpError as error:
        hint = _whose(content, name, classes) or _uncut(content, network)
        raise OfframpError(f"{error}{hint}") from None
    network.load_state_dict(state, strict=True)


def _uncut(content: Any, network: MultiExitNetwork) -> str:
    """A line that says so if the weights are those of a network before it got exits."""
    if isinstance(network, SplitNetwork):
        with suppress(OfframpError):
            states.fitting("", content, network.trunk.state_dict(), "")
            return (
                "\n  these are its weights without exits: load them in a factory, and train the "
                "heads, see docs/guides/exits-on-your-network.md"
            )
    return ""


def digest_of(state: Mapping[str, Any]) -> str:
    """sha256 of a state dict by names, types, shapes and values: of weights that have no file."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def _whose(content: Any, name: str, classes: int) -> str:
    """A line that says of which other network here the weights are, if of any."""
    for other in NETWORKS.keys() - {name}:
        with torch.device("meta"):
            state = NETWORKS[other](classes).state_dict()
        with suppress(OfframpError):
            states.fitting("", content, state, other)
            return f"\n  these are weights of {other}: name that network in the config"
    return ""


def save(
    network: MultiExitNetwork, path: str | Path, about: dict[str, str], half: bool = False
) -> None:
    """Write the state dict as safetensors with ``about`` as its metadata.

    ``half`` stores kernels and matrices in half precision; vectors (biases, what batch norm knows
    of its inputs) cost next to nothing and stay as they are.
    """
    # Copies: safetensors refuses tensors that share memory, as those of a part used twice do.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
    if half:
        state = {k: v.half() if v.ndim > 1 else v for k, v in state.items()}
    part = Path(f"{path}.part")
    safetensors.torch.save_file(state, part, metadata=about)
    part.chmod(0o644)  # safetensors makes it readable by its owner alone
    with part.open("rb+") as file:
        os.fsync(file.fileno())  # else after a power cut the name may stand for nothing
    part.replace(path)


@torch.inference_mode()
def describe(network: MultiExitNetwork, x: Features) -> "pa.Table":
    """Shapes, learned parameters and multiply-adds of every block and head, for one sample ``x``,
    a batch of one.

    Multiply-adds are half of what torch's own FlopCounterMode counts.
    """
    import pyarrow as pa  # only here: whoever uses a policy has no need of tables

    from offramp.tables.schemas import NETWORK

    rows = []
    for k, (block, head) in enumerate(zip(network.blocks, network.heads, strict=True), 1):
        features, row = _described(block, x)
        rows.append({"part": "block", "exit": k, **row})
        _, row = _described(head, features)
        rows.append({"part": "head", "exit": k, **row})
        x = features
    return pa.Table.from_pylist(rows, schema=NETWORK)


def _described(part: nn.Module, x: Features) -> tuple[Features, dict]:
    with FlopCounterMode(display=False) as counter:
        y = part(x)
    return y, {
        "input_shape": _shape(x),
        "output_shape": _shape(y),
        "parameters": sum(p.numel() for p in part.parameters() if p.requires_grad),
        "multiply_adds": counter.get_total_flops() // 2,
    }


def _shape(x: Features) -> str:
    """As 32x8x8; of several tensors joined by +. A number a sample is 1."""
    return " + ".join("x".join(map(str, t.shape[1:])) or "1" for t in tensors_of(x))
