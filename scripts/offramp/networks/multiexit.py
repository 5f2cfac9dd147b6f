"""What every network here is: blocks and heads of equal length."""

from collections.abc import Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from offramp.networks.features import Features
from offramp.networks.identity import Identity


class MultiExit(Protocol):
    """What a network of one's own has to be; it need not inherit from anything here.

    ``blocks`` and ``heads`` are K modules each, K >= 1. Block k maps the features of block k-1
    (the input for the first) to those of k; head k maps the features of block k to (N, C) logits,
    float32. Input and features are a tensor or a tuple of tensors, whose first axis is the batch,
    and what becomes of a sample does not depend on the others in its batch.
    """

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The pieces of the trunk."""

    @property
    def heads(self) -> Sequence[nn.Module]:
        """The classifiers, one after each block."""


class MultiExitNetwork(nn.Module):
    """Block k maps the features of block k-1 (the input for the first) to those of k; head k maps
    the features of block k to (N, classes) logits. Everything past this class works for any number
    of exits and classes. ``identity`` says which weights it was loaded with, if any; ``own`` that
    it is someone's own, of whose parts and inputs nothing is known here."""

    blocks: tuple[nn.Module, ...]
    heads: tuple[nn.Module, ...]
    identity: Identity | None = None
    own = False

    def forward(self, x: Features) -> list[Tensor]:
        """The logits (N, classes) of every exit."""
        logits = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            logits.append(head(x))
        return logits

    def fit_to(self, images: Tensor) -> None:
        """Set from training images, (n, 3, H, W) in 0..1, what is fixed before the first step; by
        default nothing."""

    def fold(self) -> None:
        """Fold batch norm into convolutions where that is exact; for inference only."""
        for part in list(self.modules())[1:]:
            fold = getattr(part, "fold", None)
            if fold is not None:
                fold()


class OwnNetwork(MultiExitNetwork):
    """Someone's network in the form that everything here expects; its weights keep the names that
    its own state dict gives them."""

    own = True

    def __init__(self, network: MultiExit):
        super().__init__()
        self.blocks, self.heads = tuple(network.blocks), tuple(network.heads)
        parts = nn.ModuleDict({"blocks": nn.ModuleList(network.blocks)})
        parts["heads"] = nn.ModuleList(network.heads)
        inside = {*network.modules()} if isinstance(network, nn.Module) else set()
        # Else a plain object, or a module that holds its parts in lists of Python's own.
        complete = inside >= {*self.blocks, *self.heads}
        self.holder: nn.Module = cast(nn.Module, network) if complete else parts

    def state_dict(self, *args, **kwargs):
        """That of the network as its author wrote it."""
        return self.holder.state_dict(*args, **kwargs)

    def load_state_dict(self, *args, **kwargs):
        """Into the network as its author wrote it."""
        return self.holder.load_state_dict(*args, **kwargs)

    def fold(self) -> None:
        """Nothing: what the parts call so is not known."""
