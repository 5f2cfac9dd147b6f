"""What computes a network's blocks and heads: torch as it is, torch.compile, or onnxruntime."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from offramp import OfframpError
from offramp.networks.features import Features, first_of, tensors_of
from offramp.networks.loading import lay_out
from offramp.networks.multiexit import MultiExitNetwork


def for_inference(
    network: MultiExitNetwork, backend: str, x: Features | None = None
) -> MultiExitNetwork:
    """The same blocks and heads, computed by ``backend``; batch norm is folded into convolutions
    where that is exact, so the network itself can't be trained or saved any more. ``x``, which
    onnxruntime needs, is an example of the network's input, two samples.

    Raises OfframpError when what the backend needs is not installed or can't do what is asked.
    """
    network.eval()
    network.fold()
    lay_out(network)  # folded convolutions are new
    return BACKENDS[backend](network, x)


def eager(network: MultiExitNetwork, x: Features | None) -> MultiExitNetwork:
    """The network itself."""
    return network


def compiled(network: MultiExitNetwork, x: Features | None) -> MultiExitNetwork:
    """Every block and head through torch.compile, with the weights frozen into the code, for
    batches of any size. Needs a C++ compiler; the first call of each takes seconds."""
    # Layers of one class share one count of compilations: by default too few for a whole network.
    torch._dynamo.config.recompile_limit = 256
    compiling = partial(torch.compile, dynamic=True, options={"freezing": True})
    return _assembled(network, map(compiling, network.blocks), map(compiling, network.heads))


def onnx(network: MultiExitNetwork, x: Features | None) -> MultiExitNetwork:
    """Every block and head as an onnxruntime session with as many threads as torch has."""
    assert x is not None
    if first_of(x).device.type != "cpu":
        raise OfframpError("config: backend: onnxruntime runs on device cpu only here")
    blocks, heads = [], []
    with torch.inference_mode():
        for block, head in zip(network.blocks, network.heads, strict=True):
            features = block(x)
            blocks.append(_session(block, x, features))
            heads.append(_session(head, features, head(features)))
            x = features
    return _assembled(network, blocks, heads)


BACKENDS: dict[str, Callable[[MultiExitNetwork, Features | None], MultiExitNetwork]] = {
    "eager": eager,
    "compile": compiled,
    "onnxruntime": onnx,
}


def _assembled(network: MultiExitNetwork, blocks: Iterable[Any], heads: Iterable[Any]):
    """A network of these stages, which are the same ``network`` computed otherwise."""
    assembled = MultiExitNetwork()
    assembled.blocks, assembled.heads = tuple(blocks), tuple(heads)
    assembled.identity, assembled.own = network.identity, network.own
    return assembled


def onnx_bytes(part: nn.Module, x: Features, outputs: Sequence[str]) -> bytes:
    """A part as an ONNX file for batches of any size, which takes inputs called as `named` says and
    gives ``outputs``; ``x`` is an example of its input, two samples.

    Raises OfframpError when a package is not installed, or torch can't export the part.
    """
    try:
        import onnxruntime  # noqa: F401 - torch's exporter needs these, and says so less clearly
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OfframpError(
            f"backend: onnxruntime needs the package {error.name}; "
            'install it with: pip install -e ".[onnxruntime]"'
        ) from None
    batch = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own old calls
        try:
            program = torch.onnx.export(
                part,
                (x.clone() if isinstance(x, Tensor) else tuple(t.clone() for t in x),),
                input_names=named("inputs", x),
                output_names=list(outputs),
                dynamic_shapes=(batch if isinstance(x, Tensor) else (batch,) * len(x),),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise OfframpError(
                f"torch can't export {type(part).__name__} to ONNX ({_last_line(error)}); take "
                "backend eager or compile"
            ) from error
    assert program is not None
    return program.model_proto.SerializeToString()


def named(word: str, x: Features) -> list[str]:
    """The names of tensors in an ONNX file: the word, or with a number where there are several."""
    if isinstance(x, Tensor):
        return [word]
    return [f"{word}_{place}" for place in range(1, len(x) + 1)]


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), repr(error)).strip()


def _session(part: nn.Module, x: Features, y: Features) -> Callable[[Any], Features]:
    """A part as a function of its input; ``x`` and ``y`` are examples of its input and output."""
    model, inputs = onnx_bytes(part, x, named("outputs", y)), named("inputs", x)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Each session has its own threads; those that spin when done take the cores from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    used = {taken.name for taken in session.get_inputs()}  # not those that a part ignores

    def of_tensors(x: Any) -> Features:
        tensors = zip(inputs, tensors_of(x), strict=True)
        arrays = session.run(None, {n: t.contiguous().numpy() for n, t in tensors if n in used})
        outputs = tuple(map(torch.from_numpy, arrays))
        return outputs[0] if isinstance(y, Tensor) else outputs

    def of_a_tensor(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"inputs": x.contiguous().numpy()})[0])

    return of_a_tensor if isinstance(x, Tensor) and isinstance(y, Tensor) else of_tensors
