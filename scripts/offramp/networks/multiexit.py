"""What every network here is: blocks and heads of equal length."""

from torch import Tensor, nn

from offramp.networks.identity import Identity


class MultiExitNetwork(nn.Module):
    """Block k maps the features of block k-1 (the image for the first) to those of k; head k maps
    the features of block k to (N, classes) logits. Everything past this class works for any number
    of exits and classes. ``identity`` says which weights it was loaded with, if any."""

    blocks: tuple[nn.Module, ...]
    heads: tuple[nn.Module, ...]
    identity: Identity | None = None

    def forward(self, x: Tensor) -> list[Tensor]:
        """The logits (N, classes) of every exit."""
        logits = []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            logits.append(head(x))
        return logits

    def fit_to(self, images: Tensor) -> None:
        """Set from training images, (n, 3, H, W) in 0..1, what is fixed before the first step; by
        default nothing."""
