"""Heads for exits on somebody's network, made for the features there."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from offramp import OfframpError
from offramp.networks.features import Features, tensors_of

# By the features' shape without the batch, of each if there are several, and the number of classes.
HeadFactory = Callable[[tuple, int], nn.Module]


class Pooled(nn.Module):
    """The mean over all places, and a linear layer; for (C, H, W), (H, W, C), (L, D) or (D)."""

    def __init__(self, shape: Sequence[int], classes: int):
        super().__init__()
        self.axes = _axes_of_places(shape)
        self.fc = nn.Linear(_channels(shape), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.fc(x.mean(self.axes) if self.axes else x)


class Convolution(nn.Module):
    """3x3 convolution of stride 2, batch norm, ReLU, then as `Pooled`; for images only."""

    def __init__(self, shape: Sequence[int], classes: int):
        super().__init__()
        if len(shape) != 3:
            raise OfframpError(
                f"model.head: convolution needs features (N, channels, height, width), not "
                f"(N, {', '.join(map(str, shape))}); take pooled"
            )
        self.channels_last, channels = _channels_last(shape), _channels(shape)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        x = x.permute(0, 3, 1, 2) if self.channels_last else x
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


class OfOne(nn.Module):
    """A head that looks at one of several features, the named submodule's own output."""

    def __init__(self, place: int, head: nn.Module):
        super().__init__()
        self.place, self.head = place, head

    def forward(self, x: tuple[Tensor, ...]) -> Tensor:
        """Features to logits."""
        return self.head(x[self.place])


HEADS: dict[str, HeadFactory] = {"pooled": Pooled, "convolution": Convolution}


def head_for(x: Features, place: int, classes: int, kind: str | HeadFactory) -> nn.Module:
    """A head of a kind in HEADS, on the one of the features at ``place``; or what a factory makes
    of the shape of them all.

    Raises OfframpError when the kind has no use for such features.
    """
    if callable(kind):
        shapes = [tuple(t.shape[1:]) for t in tensors_of(x)]
        head = kind(tuple(shapes) if isinstance(x, tuple) else shapes[0], classes)
        if not isinstance(head, nn.Module):
            raise OfframpError(
                f"model.head: the factory gave an object of type {type(head).__name__}; want a "
                "torch.nn.Module"
            )
        return head
    output = x[place] if isinstance(x, tuple) else x
    if not output.is_floating_point() or output.ndim < 2:
        raise OfframpError(
            f"model.head: {kind} needs floating-point features of 2 axes or more, not "
            f"{output.dtype} of shape (N, {', '.join(map(str, output.shape[1:]))}); name a factory"
        )
    head = HEADS[kind](output.shape[1:], classes)
    return OfOne(place, head) if isinstance(x, tuple) else head


def _channels_last(shape: Sequence[int]) -> bool:
    """Whether channels come last: by their places, since images here are nearly always square."""
    return len(shape) == 3 and shape[0] == shape[1] != shape[2]


def _channels(shape: Sequence[int]) -> int:
    return shape[-1] if len(shape) < 3 or _channels_last(shape) else shape[0]


def _axes_of_places(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) < 3 or _channels_last(shape):
        return tuple(range(1, len(shape)))
    return tuple(range(2, len(shape) + 1))
