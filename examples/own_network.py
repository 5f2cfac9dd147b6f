"""A network of one's own with three exits, for images: `model.name: own_network.py:ThreeExits`."""

from itertools import pairwise

import torch
from torch import nn


def stage(inputs: int, outputs: int) -> nn.Module:
    """A block: half the size of its input."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))


class Head(nn.Module):
    """Features to logits: the mean of each quarter of each channel, then one linear layer."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(4 * channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) to (N, classes)."""
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class ThreeExits(nn.Module):
    """`classes` comes from the data, `width` from `model.options`."""

    def __init__(self, classes: int, width: int = 16):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(stage(a, b) for a, b in pairwise(widths))
        self.heads = nn.ModuleList(Head(channels, classes) for channels in widths[1:])
