"""A multi-scale dense network, whose features are a tuple: `model.name: multiscale.py:MultiScale`.

In the manner of Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image
Classification" (2018, arXiv 1703.09844), written from the paper: every layer works at all scales at
once, so that early exits, too, see coarse features; each layer sees what all before it made.
"""

import torch
from torch import nn

Scales = tuple[torch.Tensor, ...]


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A 3x3 convolution with batch norm and ReLU."""
    kernel = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(outputs), nn.ReLU())


class First(nn.Module):
    """Pictures to features at every scale, each half the size of the one before."""

    def __init__(self, widths: list[int]):
        super().__init__()
        pairs = zip([3, *widths], widths, strict=False)
        self.convs = nn.ModuleList(conv(before, width, stride=2) for before, width in pairs)

    def forward(self, x: torch.Tensor) -> Scales:
        """(N, 3, H, W) to a tuple of (N, width, H / 2, W / 2), (N, width, H / 4, W / 4), ..."""
        scales = []
        for layer in self.convs:
            x = layer(x)
            scales.append(x)
        return tuple(scales)


class Layer(nn.Module):
    """New features at every scale, from all of that scale and of the finer one beside it; they are
    put behind those that there are."""

    def __init__(self, widths: list[int], growth: int):
        super().__init__()
        self.same = nn.ModuleList(conv(width, growth) for width in widths)
        self.finer = nn.ModuleList(conv(width, growth, stride=2) for width in widths[:-1])

    def forward(self, x: Scales) -> Scales:
        """A tuple of features to one with more channels."""
        wider = [torch.cat([x[0], self.same[0](x[0])], 1)]
        for s in range(1, len(x)):
            wider.append(torch.cat([x[s], self.same[s](x[s]), self.finer[s - 1](x[s - 1])], 1))
        return tuple(wider)


class Head(nn.Module):
    """An exit: the coarsest scale alone, its mean over all places, one linear layer."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.conv, self.linear = conv(width, width), nn.Linear(width, classes)

    def forward(self, x: Scales) -> torch.Tensor:
        """A tuple of features to (N, classes) logits."""
        return self.linear(self.conv(x[-1]).mean((2, 3)))


class MultiScale(nn.Module):
    """As many exits as ``steps`` has numbers, which are those of the layers before each."""

    def __init__(self, classes: int, steps: tuple = (1, 1, 1), growth: int = 6, scales: int = 3):
        super().__init__()
        widths = [growth * 2**s for s in range(scales)]
        blocks, heads = [], []
        for number in steps:
            layers = [] if blocks else [First(widths)]
            for _ in range(number):
                layers.append(Layer(widths, growth))
                widths = [width + growth * (2 if s else 1) for s, width in enumerate(widths)]
            blocks.append(nn.Sequential(*layers))
            heads.append(Head(widths[-1], classes))
        self.blocks, self.heads = nn.ModuleList(blocks), nn.ModuleList(heads)
