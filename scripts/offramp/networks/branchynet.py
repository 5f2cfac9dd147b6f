"""BranchyNet: the network of the experiment, five side exits and a final one on 3x32x32 images."""

import torch
from torch import Tensor, nn

from offramp.networks.multiexit import MultiExitNetwork


class SideHead(nn.Module):
    """A side exit: 3x3 convolution, stride 2, to 16 channels, ReLU, batch norm, one linear layer.

    ``channels`` x ``size`` x ``size`` features -> (N, classes) logits.
    """

    def __init__(self, channels: int, size: int, classes: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 16, 3, stride=2)
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * ((size - 1) // 2) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits."""
        return self.fc(self.bn(torch.relu_(self.conv(x))).flatten(1))


class BranchyNet(MultiExitNetwork):
    """Six blocks and six heads; images are RGB in 0..1, not normalised.

    The layers carry the names of the published checkpoint; blocks and heads only arrange them, as
    tuples, so that the state dict holds every layer once. ReLU comes before batch norm.
    Source: Teerapittayanon et al., "BranchyNet" (2016), for side exits trained jointly.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 32)
        self.conv2, self.bn2 = _conv(32, 32)
        self.conv3, self.bn3 = _conv(32, 64)
        self.conv4, self.bn4 = _conv(64, 64)
        self.conv5, self.bn5 = _conv(64, 128)
        self.conv6, self.bn6 = _conv(128, 128)
        self.fc1, self.fc2 = nn.Linear(2048, 128), nn.Linear(128, 128)
        self.fc3, self.fc4 = nn.Linear(128, 128), nn.Linear(128, 128)
        self.bn7 = nn.BatchNorm1d(128)
        self.fc5 = nn.Linear(128, classes)
        self.branch1 = SideHead(32, 32, classes)
        self.branch2 = SideHead(32, 16, classes)
        self.branch3 = SideHead(64, 16, classes)
        self.branch4 = SideHead(64, 8, classes)
        self.branch5 = SideHead(128, 8, classes)
        self.drop2, self.drop4 = nn.Dropout(0.2), nn.Dropout(0.3)
        self.drop6, self.drop_fc5 = nn.Dropout(0.4), nn.Dropout(0.5)
        relu, pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        dense = (self.fc1, relu, self.fc2, relu, self.fc3, relu, self.fc4, relu)
        self.blocks = (
            nn.Sequential(self.conv1, relu, self.bn1),
            nn.Sequential(self.conv2, relu, self.bn2, pool, self.drop2),
            nn.Sequential(self.conv3, relu, self.bn3),
            nn.Sequential(self.conv4, relu, self.bn4, pool, self.drop4),
            nn.Sequential(self.conv5, relu, self.bn5),
            nn.Sequential(
                self.conv6, relu, self.bn6, pool, nn.Flatten(), *dense, self.bn7, self.drop6
            ),
        )
        side = (self.branch1, self.branch2, self.branch3, self.branch4, self.branch5)
        self.heads = (*side, nn.Sequential(self.drop_fc5, self.fc5))


def _conv(inputs: int, outputs: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inputs, outputs, 3, padding="same"), nn.BatchNorm2d(outputs)
