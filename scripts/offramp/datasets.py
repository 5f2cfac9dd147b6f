"""Datasets: what they hold, how they are split, and how a batch becomes a tensor.

On disk a dataset is `data/<name>/<pool>_images.npy` (uint8, N x H x W x 3) and
`<pool>_labels.npy` (int64); a pool is one of the dataset's own files or file groups.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "val", "test")
SPLIT_SEED = 42


class Dataset(NamedTuple):
    """``names`` are those of the classes, in the order of the labels; ``pools`` gives the samples
    of each; ``test`` is a share of the only pool, 0 where the test split is a pool of its own;
    ``validation`` a number of samples, None being 10 %; ``flip`` says that a mirrored image is
    still of its class."""

    names: tuple[str, ...]
    pools: dict[str, int]
    test: float = 0.0
    validation: int | None = None
    flip: bool = False

    @property
    def classes(self) -> int:
        """How many classes."""
        return len(self.names)


CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DATASETS = {
    "cifar10": Dataset(
        CIFAR10_NAMES, {"train": 50_000, "test": 10_000}, validation=5_000, flip=True
    ),
    "digits": Dataset(tuple("0123456789"), {"all": 1_797}, test=0.2),
}


def pool_files(name: str) -> list[str]:
    """The files of a dataset, relative to its folder."""
    return [f"{pool}_{what}.npy" for pool in DATASETS[name].pools for what in ("images", "labels")]


def split_sizes(name: str, validation: int | None) -> dict[str, int]:
    """Samples per split; ``validation`` None takes the dataset's own number (10 % by default)."""
    dataset = DATASETS[name]
    first = next(iter(dataset.pools.values()))
    test = round(dataset.test * first) if dataset.test else dataset.pools["test"]
    left = first - test if dataset.test else first
    held_out = validation or dataset.validation or round(0.1 * first)
    return {"train": left - held_out, "val": held_out, "test": test}


def split_indices(name: str, split: str, validation: int | None) -> tuple[str, np.ndarray]:
    """The pool of a split and which of its samples, int64, in the split's order.

    A permutation of the first pool under seed 42: train first, then val, then (where the dataset
    has no test pool) test. For CIFAR-10 that is `random_split(dataset, [45000, 5000])`'s order.
    """
    import torch  # not at the top: the sizes above serve the config check, which has no torch

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
    import torch

    pixels = torch.from_numpy(split.images[split.order[rows]])
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:  # what is copied from pinned memory need not be waited for
        pixels = pixels.pin_memory()
    # Permuting N x H x W x C gives a channels_last tensor without a copy.
    pixels = pixels.to(device, non_blocking=on_cuda).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) / 255
