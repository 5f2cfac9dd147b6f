"""What passes between blocks: a tensor or a tuple of tensors, whose first axis is the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

Features = Tensor | tuple[Tensor, ...]


def first_of(x: Features) -> Tensor:
    """The only tensor, or the first."""
    return x if isinstance(x, Tensor) else x[0]


def count(x: Features) -> int:
    """How many samples."""
    return len(first_of(x))


def take(x: Features, rows: Tensor | slice) -> Features:
    """These samples; plain indexing keeps channels_last."""
    return x[rows] if isinstance(x, Tensor) else tuple(t[rows] for t in x)


def joined(batches: Sequence[Features]) -> Features:
    """The samples of several batches, one after the other."""
    if isinstance(batches[0], Tensor):
        return torch.cat(batches)  # type: ignore[arg-type] # all are tensors, or none
    return tuple(map(torch.cat, zip(*batches, strict=True)))


def tensors_of(x: Features) -> tuple[Tensor, ...]:
    """All tensors."""
    return (x,) if isinstance(x, Tensor) else tuple(x)
