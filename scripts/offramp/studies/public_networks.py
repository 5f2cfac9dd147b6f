"""Public networks without exits, rebuilt with random weights for their seconds and multiply-adds;
their accuracy is what their authors publish."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models import mobilenet_v2

from offramp.networks.multiexit import MultiExitNetwork


class Public(NamedTuple):
    """How to build a network, and its accuracy on CIFAR-10's test images."""

    build: Callable[[], nn.Module]
    accuracy: float


class Basic(nn.Module):
    """A residual block of two 3x3 convolutions; where the size changes, a 1x1 convolution is the
    way past it. Source: He et al., "Deep Residual Learning for Image Recognition" (2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.convs = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(), *conv_norm(outputs, outputs, 3, 1)
        )
        same = inputs == outputs
        self.past = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        return torch.relu(self.convs(x) + self.past(x))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def resnet(depth: int) -> nn.Module:
    """The ResNet for CIFAR of this depth, 6 n + 2: three times n blocks of 16, 32, 64 channels."""
    layers, inputs = [*conv_norm(3, 16, 3, 1), nn.ReLU()], 16
    for outputs in (16, 32, 64):
        for number in range((depth - 2) // 6):
            halves = number == 0 and outputs > 16
            layers.append(Basic(inputs, outputs, 2 if halves else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mobilenet(width: float) -> nn.Module:
    """MobileNetV2 with the first two strides of 2 left out, as on small images."""
    stages = [
        [1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]  # fmt: skip
    network = mobilenet_v2(width_mult=width, inverted_residual_setting=stages, num_classes=10)
    network.features[0][0].stride = (1, 1)
    return network


# Accuracies by the repository chenyaofo/pytorch-cifar-models, trained on all 50,000 images.
PUBLIC = {
    **{
        f"ResNet-{depth}": Public(partial(resnet, depth), accuracy)
        for depth, accuracy in ((20, 0.9260), (32, 0.9353), (44, 0.9401), (56, 0.9437))
    },
    "MobileNetV2 x0.5": Public(partial(mobilenet, 0.5), 0.9288),
    "MobileNetV2 x0.75": Public(partial(mobilenet, 0.75), 0.9372),
}


def built(name: str, device: torch.device) -> MultiExitNetwork:
    """One of PUBLIC as a network of one block, ready for inference, batch norm folded."""
    torch.manual_seed(0)
    plain = fuse(PUBLIC[name].build().eval()).to(device)
    plain.to(memory_format=torch.channels_last)
    network = MultiExitNetwork()
    network.blocks, network.heads = (plain,), (nn.Identity(),)
    return network
