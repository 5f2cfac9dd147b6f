"""torchvision's resnet18 in two steps: trained whole, then given exits on its frozen layers.
Whoever has a trained network needs the second alone."""

import torchvision
from safetensors.torch import load_file
from torch import nn


class Plain(nn.Module):
    """The network as it is: one block, one exit."""

    def __init__(self, classes: int):
        super().__init__()
        self.blocks = nn.ModuleList([torchvision.models.resnet18(num_classes=classes)])
        self.heads = nn.ModuleList([nn.Identity()])


def trained(classes: int, file: str) -> nn.Module:
    """The network with the weights that `Plain` learned."""
    network = torchvision.models.resnet18(num_classes=classes)
    state = load_file(file)
    network.load_state_dict({name.removeprefix("blocks.0."): w for name, w in state.items()})
    return network
