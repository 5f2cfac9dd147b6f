"""How a network's parameters learn: Muon for convolutions, AdamW for all else."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from offramp import OfframpError

MOMENTUM = 0.8
WEIGHT_DECAY = 0.01
# Newton-Schulz: five steps of a quintic polynomial.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


class Optimisers:
    """Both optimizers of a network as one.

    Muon takes matrices: it learns views of the convolutions' memory, one row per output channel.
    It is written out here because torch's own computes in bfloat16 only, which a CPU without it in
    hardware does a hundred times slower; ``dtype`` is what the orthogonalization computes in.
    Batch norm makes the scale of a convolution (and its bias) idle; holding it fixed keeps the
    angle of each step true to the learning rate.
    Without ``muon`` all is AdamW's: of a network of one's own it is not known whether a scale is
    idle, nor whether four axes are a convolution's. Raises OfframpError where nothing learns.
    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds" (2024) and its later Muon recipe.
    """

    def __init__(
        self,
        network: nn.Module,
        rates: Mapping[str, float],
        dtype: torch.dtype,
        muon: bool = True,
    ):
        learning = [p for p in network.parameters() if p.requires_grad]
        if not learning:
            raise OfframpError("model.weights: train: the network has no parameters that learn")
        self.convolutions = [p for p in learning if muon and p.ndim == 4]
        self.matrices = [_matrix(p.detach()) for p in self.convolutions]
        self.momenta = [torch.zeros_like(matrix) for matrix in self.matrices]
        self.adamw = torch.optim.AdamW(
            [p for p in learning if not muon or p.ndim != 4],
            rates["others"],
            weight_decay=WEIGHT_DECAY,
        )
        self.rates, self.dtype = rates, dtype
        self._fix_scale()

    def step(self, loss: Tensor, factor: float) -> None:
        """Go one step down the loss at ``factor`` times the full learning rates."""
        for parameter in self.convolutions:
            parameter.grad = None
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()
        self._step_convolutions(self.rates["convolutions"] * factor)
        self.adamw.param_groups[0]["lr"] = self.rates["others"] * factor
        self.adamw.step()

    @torch.no_grad()
    def _step_convolutions(self, rate: float) -> None:
        for parameter, matrix, momentum in zip(
            self.convolutions, self.matrices, self.momenta, strict=True
        ):
            if parameter.grad is None:
                continue
            gradient = _matrix(parameter.grad)
            momentum.lerp_(gradient, 1 - MOMENTUM)
            step = orthogonalized(gradient.lerp(momentum, MOMENTUM), self.dtype)
            rows, columns = matrix.shape
            matrix.add_(step, alpha=-rate * max(1, rows / columns) ** 0.5)
        self._fix_scale()

    @torch.no_grad()
    def _fix_scale(self) -> None:
        """Every output channel's weights have norm 1 on average."""
        for matrix in self.matrices:
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm())

    def state_dict(self) -> dict[str, Any]:
        """The state of both optimizers."""
        return {"convolutions": self.momenta, "others": self.adamw.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of both optimizers."""
        for momentum, stored in zip(self.momenta, state["convolutions"], strict=True):
            momentum.copy_(stored)
        self.adamw.load_state_dict(state["others"])


def orthogonalized(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The matrix with its singular values moved near 1 (0.7 to 1.2), in ``dtype``.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """
    wide = matrix.to(dtype)
    if matrix.shape[0] > matrix.shape[1]:
        wide = wide.T
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def _matrix(kernel: Tensor) -> Tensor:
    """A channels_last (out, in, h, w) kernel as (out, h * w * in), on the same memory."""
    last = kernel.contiguous(memory_format=torch.channels_last)
    return last.permute(0, 2, 3, 1).flatten(1)
