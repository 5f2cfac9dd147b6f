"""What computes a network's blocks and heads: torch as it is, torch.compile, or onnxruntime."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from offramp import OfframpError
from offramp.networks.loading import IMAGE_SHAPE
from offramp.networks.multiexit import MultiExitNetwork


def for_inference(network: MultiExitNetwork, backend: str) -> MultiExitNetwork:
    """The same blocks and heads, computed by ``backend``; batch norm is folded into convolutions
    where that is exact, so the network itself can't be trained or saved any more.

    Raises OfframpError when what the backend needs is not installed or can't do what is asked.
    """
    network.eval()
    for part in network.modules():
        fold = getattr(part, "fold", None)
        if fold is not None:
            fold()
    # Folded convolutions are new.
    network.to(memory_format=torch.channels_last)
    return BACKENDS[backend](network)


def eager(network: MultiExitNetwork) -> MultiExitNetwork:
    """The network itself."""
    return network


def compiled(network: MultiExitNetwork) -> MultiExitNetwork:
    """Every block and head through torch.compile, with the weights frozen into the code, for
    batches of any size. Needs a C++ compiler; the first call of each takes seconds."""
    # Layers of one class share one count of compilations: by default too few for a whole network.
    torch._dynamo.config.recompile_limit = 256
    return _assembled(
        network,
        lambda part, _: torch.compile(part, dynamic=True, options={"freezing": True}),
    )


def onnx(network: MultiExitNetwork) -> MultiExitNetwork:
    """Every block and head as an onnxruntime session with as many threads as torch has."""
    if next(network.parameters()).device.type != "cpu":
        raise OfframpError("config: backend: onnxruntime runs on device cpu only here")
    return _assembled(network, _session)


BACKENDS: dict[str, Callable[[MultiExitNetwork], MultiExitNetwork]] = {
    "eager": eager,
    "compile": compiled,
    "onnxruntime": onnx,
}


def _assembled(network: MultiExitNetwork, make: Callable[[nn.Module, Tensor], Any]):
    """A network of stages, each made from a part and an example of its input, a batch of 2."""
    x = torch.zeros(2, *IMAGE_SHAPE, device=next(network.parameters()).device)
    x = x.contiguous(memory_format=torch.channels_last)
    blocks: list[Any] = []
    heads: list[Any] = []
    with torch.inference_mode():
        for block, head in zip(network.blocks, network.heads, strict=True):
            blocks.append(make(block, x))
            x = block(x)
            heads.append(make(head, x))
    made = MultiExitNetwork()
    made.blocks, made.heads, made.identity = tuple(blocks), tuple(heads), network.identity
    return made


def _session(part: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less clearly
    except ImportError as error:
        raise OfframpError(
            f"config: backend: onnxruntime needs the package {error.name}; "
            'install it with: pip install -e ".[onnxruntime]"'
        ) from None
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own old calls
        program = torch.onnx.export(part, (x.clone(),), dynamic_shapes=shapes, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Each session has its own threads; those that spin when done take the cores from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.contiguous().numpy()})[0])
