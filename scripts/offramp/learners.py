"""How a network's parameters learn: Muon for convolutions, AdamW for all else."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.8
WEIGHT_DECAY = 0.01


class Learners:
    """Both optimizers of a network as one.

    torch's Muon takes matrices, so it learns views of the convolutions' memory, one row per output
    channel. Batch norm makes the scale of a convolution (and its bias) idle; holding it fixed keeps
    the angle of each step true to the learning rate.
    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds" (2024) and its later Muon recipe.
    """

    def __init__(self, network: nn.Module, rates: Mapping[str, float]):
        learning = [p for p in network.parameters() if p.requires_grad]
        self.convolutions = [p for p in learning if p.ndim == 4]
        self.matrices = [nn.Parameter(_matrix(p.detach())) for p in self.convolutions]
        others = [p for p in learning if p.ndim != 4]
        muon = torch.optim.Muon(
            self.matrices, rates["convolutions"], weight_decay=0.0, momentum=MOMENTUM
        )
        adamw = torch.optim.AdamW(others, rates["others"], weight_decay=WEIGHT_DECAY)
        self.optimizers = {"convolutions": muon, "others": adamw}
        self.rates = rates
        self._fix_scale()

    def step(self, loss: Tensor, factor: float) -> None:
        """Go one step down the loss at ``factor`` times the full learning rates."""
        for parameter in self.convolutions:
            parameter.grad = None
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.rates[name] * factor
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for parameter, matrix in zip(self.convolutions, self.matrices, strict=True):
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self._fix_scale()

    @torch.no_grad()
    def _fix_scale(self) -> None:
        """Every output channel's weights have norm 1 on average."""
        for matrix in self.matrices:
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm())

    def state_dict(self) -> dict[str, Any]:
        """The state of both optimizers."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of both optimizers."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


def _matrix(kernel: Tensor) -> Tensor:
    """A channels_last (out, in, h, w) kernel as (out, h * w * in), on the same memory."""
    last = kernel.contiguous(memory_format=torch.channels_last)
    return last.permute(0, 2, 3, 1).flatten(1)
