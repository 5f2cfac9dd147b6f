"""CPUNet: a network made for early exit on a CPU, five side exits and a final one on 3x32x32
images; and CPUNetStatic, its family without side exits."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from offramp.networks.multiexit import MultiExitNetwork

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
    """The fixed first layer: patches of an RGB image in 0..1 projected on the ``kept`` strongest
    whitened eigenvectors of the training images' patches, each with both signs, then ReLU.

    3 x S x S -> 2 ``kept`` x T x T with T = (S - ``patch``) // ``stride`` + 1. Source: Jordan, "94%
    on CIFAR-10 in 3.29 seconds" (2024), there with a stride of 1.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, patch: int, stride: int, kept: int) -> None:
        super().__init__()
        self.patch, self.stride, self.kept = patch, stride, kept
        self.register_buffer("weight", torch.zeros(2 * kept, 3, patch, patch))
        self.register_buffer("bias", torch.zeros(2 * kept))

    def fit(self, images: Tensor) -> None:
        """Set the layer from (n, 3, H, W) images in 0..1."""
        patches = images.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * self.patch**2).double()
        mean = patches.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov(patches.T))  # the weakest first
        scaled = (directions / torch.sqrt(variance + WHITENING_EPSILON)).T[-self.kept :]
        both = torch.cat([scaled, -scaled])
        self.weight.copy_(both.reshape(self.weight.shape))
        self.bias.copy_(-both @ mean)

    def forward(self, x: Tensor) -> Tensor:
        """Images to features."""
        return torch.relu_(nn.functional.conv2d(x, self.weight, self.bias, stride=self.stride))


# CPUNet's stages: the convolutions of the block, each by its output channels and whether it pools,
# and the channels of the head's own convolutions.
STAGES = (
    (((64, False),), (96, 128)),
    (((64, False), (64, False)), (96, 128)),
    (((128, True), (192, False)), (128,)),
    (((192, False),), ()),
    (((192, False),), ()),
    (((192, False), (256, True), (256, False)), ()),
)


class CPUNet(MultiExitNetwork):
    """A network made for early exit on a CPU: five side exits and a final one. Its first layer
    already halves the image, so that early blocks are cheap by the clock; early heads are deep,
    since those who leave there pay for nothing else.

    Images are RGB in 0..1, not normalised. A convolution that keeps the number of channels adds its
    input.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.whitening = Whitening(patch=3, stride=2, kept=24)
        self.stages, self.exits = nn.ModuleList(), nn.ModuleList()
        channels = 2 * self.whitening.kept
        for convs, widths in STAGES:
            units = []
            for outputs, pool in convs:
                same = outputs == channels and not pool
                units.append(ConvUnit(channels, outputs, pool, residual=same))
                channels = outputs
            self.stages.append(nn.Sequential(*units))
            self.exits.append(Head(channels, widths, classes))
        first, *later = self.stages
        self.blocks = (nn.Sequential(self.whitening, first), *later)
        self.heads = tuple(self.exits)

    def fit_to(self, images: Tensor) -> None:
        """What is set from training images before the first step: the whitening."""
        self.whitening.fit(images)


class CPUNetStatic(MultiExitNetwork):
    """The baseline: CPUNet's family without side exits, one block and one head, made as small as it
    takes to be as fast as CPUNet's cascade."""

    def __init__(self, classes: int):
        super().__init__()
        self.whitening = Whitening(patch=2, stride=1, kept=12)
        self.convs = nn.Sequential(
            ConvUnit(24, 48, pool=True),
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
