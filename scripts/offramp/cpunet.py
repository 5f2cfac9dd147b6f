"""CPUNet: a network made for early exit on a CPU, five side exits and a final one on 3x32x32
images; and CPUNetStatic, its family without side exits."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from offramp.multiexit import MultiExitNetwork

PATCH = 2
WHITENED = 2 * 3 * PATCH**2
WHITENING_EPSILON = 5e-4


class ConvUnit(nn.Module):
    """3x3 convolution, perhaps max-pooling by 2, batch norm, ReLU; ``residual`` adds the input.

    ``inputs`` x S x S features -> ``outputs`` x S x S, or half the size when pooled. The batch norm
    has no weight, only a bias: its scale stays positive, so that for inference it can be folded
    into the convolution even past the pooling.
    """

    def __init__(self, inputs: int, outputs: int, pool: bool = False, residual: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.dirac_(self.conv.weight.data[:inputs])
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.bn: nn.Module = batch_norm(outputs)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Features to features."""
        y = torch.relu_(self.bn(self.pool(self.conv(x))))
        return x + y if self.residual else y

    def fold(self) -> None:
        """Put the batch norm into the convolution; for inference only."""
        assert isinstance(self.bn, nn.BatchNorm2d)
        self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


class Head(nn.Module):
    """An exit: 3x3 convolutions of stride 2 with batch norm and ReLU (as many as ``widths`` has),
    the maximum over all places, one linear layer. Features -> (N, classes) logits."""

    def __init__(self, channels: int, widths: tuple[int, ...], classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            conv = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
            layers += [conv, batch_norm(width), nn.ReLU(inplace=True)]
            channels = width
        self.convs = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.fc(self.convs(x).amax((2, 3)))

    def fold(self) -> None:
        """Put the batch norms into the convolutions; for inference only."""
        for place in range(0, len(self.convs), 3):
            conv, bn = self.convs[place], self.convs[place + 1]
            assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
            self.convs[place] = fuse_conv_bn_eval(conv, bn)
            self.convs[place + 1] = nn.Identity()


class Whitening(nn.Module):
    """The fixed first layer: 2x2 patches of an RGB image in 0..1 projected on the whitened
    eigenvectors of the training images' patches, each with both signs, then ReLU.

    3 x 32 x 32 -> 24 x 31 x 31. Source: Jordan, "94% on CIFAR-10 in 3.29 seconds" (2024).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(WHITENED, 3, PATCH, PATCH))
        self.register_buffer("bias", torch.zeros(WHITENED))

    def fit(self, images: Tensor) -> None:
        """Set the layer from (n, 3, H, W) images in 0..1."""
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH**2).double()
        mean = patches.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(patches.T))
        scaled = (directions / torch.sqrt(variance + WHITENING_EPSILON)).T
        both = torch.cat([scaled, -scaled])
        self.weight.copy_(both.reshape(self.weight.shape))
        self.bias.copy_(-both @ mean)

    def forward(self, x: Tensor) -> Tensor:
        """Images to features."""
        return torch.relu_(nn.functional.conv2d(x, self.weight, self.bias))


class CPUNet(MultiExitNetwork):
    """A network made for early exit on a CPU: five side exits and a final one. Early blocks are
    cheap by the clock and early heads deep, since those who leave there pay for nothing else.

    Images are RGB in 0..1, not normalised.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.whitening = Whitening()
        self.conv1 = ConvUnit(WHITENED, 64, pool=True)
        self.conv2 = ConvUnit(64, 64)
        self.conv3 = ConvUnit(64, 128, pool=True)
        self.conv4 = ConvUnit(128, 256)
        self.conv5 = ConvUnit(256, 256)
        self.conv6 = ConvUnit(256, 256, residual=True)
        self.conv7 = ConvUnit(256, 256, residual=True)
        self.conv8 = ConvUnit(256, 368, pool=True)
        self.conv9 = ConvUnit(368, 368, residual=True)
        self.exit1 = Head(64, (96, 128), classes)
        self.exit2 = Head(64, (96, 128), classes)
        self.exit3 = Head(256, (128,), classes)
        self.exit4 = Head(256, (), classes)
        self.exit5 = Head(256, (), classes)
        self.exit6 = Head(368, (), classes)
        self.blocks = (
            nn.Sequential(self.whitening, self.conv1),
            self.conv2,
            nn.Sequential(self.conv3, self.conv4),
            self.conv5,
            self.conv6,
            nn.Sequential(self.conv7, self.conv8, self.conv9),
        )
        self.heads = (self.exit1, self.exit2, self.exit3, self.exit4, self.exit5, self.exit6)

    def fit_to(self, images: Tensor) -> None:
        """What is set from training images before the first step: the whitening."""
        self.whitening.fit(images)


class CPUNetStatic(MultiExitNetwork):
    """The rival: CPUNet's family without side exits, one block and one head, made as small as it
    takes to be as fast as CPUNet's cascade."""

    def __init__(self, classes: int):
        super().__init__()
        self.whitening = Whitening()
        self.convs = nn.Sequential(
            ConvUnit(WHITENED, 48, pool=True),
            ConvUnit(48, 128, pool=True),
            ConvUnit(128, 128, residual=True),
            ConvUnit(128, 256, pool=True),
            ConvUnit(256, 256, residual=True),
        )
        self.exit = Head(256, (), classes)
        self.blocks = (nn.Sequential(self.whitening, self.convs),)
        self.heads = (self.exit,)

    def fit_to(self, images: Tensor) -> None:
        """What is set from training images before the first step: the whitening."""
        self.whitening.fit(images)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """A batch norm without weight."""
    norm = nn.BatchNorm2d(channels)
    norm.weight.requires_grad = False
    return norm
