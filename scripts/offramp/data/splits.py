"""The samples of a split, and their images for the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from offramp.data.datasets import DATASETS, SPLIT_SEED, split_sizes


def split_indices(name: str, split: str, validation: int | None) -> tuple[str, np.ndarray]:
    """The pool of a split and which of its samples, int64, in the split's order.

    A permutation of the first pool under seed 42: train first, then val, then (where the dataset
    has no test pool) test. For CIFAR-10 that is `random_split(dataset, [45000, 5000])`'s order.
    """
    sizes = split_sizes(name, validation)
    pools = list(DATASETS[name].pools.items())
    if split == "test" and len(pools) == 2:
        return "test", np.arange(sizes["test"])
    pool, samples = pools[0]
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(samples, generator=generator).numpy()
    start = {"train": 0, "val": sizes["train"], "test": sizes["train"] + sizes["val"]}[split]
    return pool, order[start : start + sizes[split]]


class Split(NamedTuple):
    """The samples of one split: ``images`` is memory-mapped uint8, ``order`` says which and in what
    order, ``labels`` int64 (N,) already in that order."""

    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray

    def batches(self, batch_size: int) -> Iterator[slice]:
        """Consecutive rows."""
        return (
            slice(start, min(start + batch_size, len(self.order)))
            for start in range(0, len(self.order), batch_size)
        )


def open_split(folder: str | Path, name: str, split: str, validation: int | None) -> Split:
    """A split of the dataset in ``folder``."""
    pool, index = split_indices(name, split, validation)
    images = np.load(Path(folder) / f"{pool}_images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(Path(folder) / f"{pool}_labels.npy", allow_pickle=False)
    return Split(images, labels[index], index)


def load_images(split: Split, rows: slice | np.ndarray, device):
    """Rows of a split as float32 (n, 3, H, W) in 0..1, channels_last, on the device."""
    pixels = torch.from_numpy(split.images[split.order[rows]])
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:  # what is copied from pinned memory need not be waited for
        pixels = pixels.pin_memory()
    # Permuting N x H x W x C gives a channels_last tensor without a copy.
    pixels = pixels.to(device, non_blocking=on_cuda).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) / 255
