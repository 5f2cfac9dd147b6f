"""A network of one's own on a few samples: is it what tables and cascade take it for?"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from offramp import OfframpError
from offramp.networks.features import Features, count, take, tensors_of
from offramp.networks.multiexit import MultiExitNetwork
from offramp.networks.own.factory import guarded

# How many samples are tried.
TRIED = 4
# Sums of float32 depend on the batch, by this share of the largest value at most.
TOLERANCE = 1e-3
# What each part gave, by its name: block 1, head 1, block 2, ...
Outputs = dict[str, Features]


@torch.inference_mode()
def check_network(network: MultiExitNetwork, what: str, x: Features, classes: int) -> None:
    """Raise OfframpError, one line, where a network that ``what`` gave can't be studied: for wrong
    shapes or types, logits that are not finite, and parts that change what they are given, give
    something else each time, or depend on the other samples of a batch.

    ``x`` is a batch of a few samples; the network is left in the mode that it is in, which should
    be that of inference.
    """
    together = _outputs_of(network, what, x, classes)
    for name, again in _outputs_of(network, what, x, classes).items():
        if not _alike(again, together[name]):
            raise OfframpError(
                f"{what}: {name} gives other values when it is called again with the same samples; "
                "nothing random may be left for inference"
            )
    for row in range(count(x)):
        sample = slice(row, row + 1)
        for name, alone in _outputs_of(network, what, take(x, sample), classes).items():
            if not _alike(alone, take(together[name], sample)):
                raise OfframpError(
                    f"{what}: {name} depends on the other samples of a batch: it gives something "
                    "else for one alone; no mean, norm or padding may reach over the first axis"
                )


def _outputs_of(network: MultiExitNetwork, what: str, x: Features, classes: int) -> Outputs:
    """What every part gives for a batch, each looked at."""
    outputs: Outputs = {}
    n = count(x)
    for k, (block, head) in enumerate(zip(network.blocks, network.heads, strict=True), 1):
        x = outputs[f"block {k}"] = _call(block, f"{what}: block {k}", x)
        for problem in _of_features(x, n):
            raise OfframpError(f"{what}: block {k} gives {problem}")
        logits = outputs[f"head {k}"] = _call(head, f"{what}: head {k}", x)
        for problem in _of_logits(logits, n, classes):
            raise OfframpError(f"{what}: head {k} gives {problem}")
    return outputs


def _call(part: nn.Module, name: str, x: Features) -> Any:
    """What a part gives; it may not change what it is given, which others look at, too."""
    copies = tuple(t.clone() for t in tensors_of(x))
    y = guarded(f"{name}, given {_words(x)}, raised", lambda: part(x))
    if not all(map(_same, copies, tensors_of(x))):
        raise OfframpError(
            f"{name} changes its input in place; let it work on a copy, such as relu(x), not "
            "relu_(x)"
        )
    return y


def _of_features(x: Any, n: int) -> Iterator[str]:
    if type(x) is tuple and x and all(isinstance(t, Tensor) for t in x):
        tensors = x
    elif isinstance(x, Tensor):
        tensors = (x,)
    else:
        yield f"{_words(x)}; want a tensor, or a plain tuple of tensors"
        return
    for tensor in tensors:
        if not tensor.ndim or len(tensor) != n:
            yield f"{_words(x)} for {n} samples; the first axis of every tensor is the batch"


def _of_logits(logits: Any, n: int, classes: int) -> Iterator[str]:
    if not isinstance(logits, Tensor):
        yield f"{_words(logits)}; want logits, a tensor ({n}, {classes}) for {n} samples"
    elif logits.shape != (n, classes):
        yield (
            f"{_words(logits)} for {n} samples of {classes} classes; want logits ({n}, {classes})"
        )
    elif logits.dtype != torch.float32:
        yield f"logits in {_dtype_name(logits.dtype)}; want float32: return logits.float()"
    elif not bool(logits.isfinite().all()):
        yield "logits that are not finite (NaN or infinite); are these its weights and its inputs?"
    elif bool(((logits >= 0).all() & ((logits.sum(1) - 1).abs() < 1e-4).all()).all()):
        yield "probabilities; want logits: leave softmax out, here and in training"


def _alike(x: Features, y: Features) -> bool:
    """Whether two results are the same but for the sums of float32."""
    tensors, others = tensors_of(x), tensors_of(y)
    return len(tensors) == len(others) and all(map(_near, tensors, others))


def _near(tensor: Tensor, other: Tensor) -> bool:
    if tensor.shape != other.shape or not tensor.is_floating_point():
        return _same(tensor, other)
    finite = other[other.isfinite()].double()
    largest = max(1e-3, finite.abs().max().item()) if finite.numel() else 1.0
    return torch.allclose(
        tensor.double(), other.double(), rtol=0, atol=TOLERANCE * largest, equal_nan=True
    )


def _same(tensor: Tensor, other: Tensor) -> bool:
    if tensor.shape != other.shape:
        return False
    both_nan = (tensor != tensor) & (other != other)
    return bool(((tensor == other) | both_nan).all())


def _words(value: Any) -> str:
    """Features in words: their shapes and types."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} in {_dtype_name(value.dtype)}"
    if type(value) is tuple and value and all(isinstance(t, Tensor) for t in value):
        return f"a tuple of {' and '.join(map(_words, value))}"
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
