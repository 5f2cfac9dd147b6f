"""The samples of a split, and their images for the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from offramp import OfframpError
from offramp.data.datasets import DATASETS, SPLIT_SEED, split_sizes

PIXELS = (32, 32, 3)


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
    """A split of the dataset in ``folder``.

    Raises OfframpError when a file is not what the download wrote.
    """
    pool, index = split_indices(name, split, validation)
    samples, classes = DATASETS[name].pools[pool], DATASETS[name].classes
    path = Path(folder) / f"{pool}_labels.npy"
    images = _array(Path(folder) / f"{pool}_images.npy", "uint8", (samples, *PIXELS))
    labels = _array(path, "int64", (samples,))
    if labels.min() < 0 or labels.max() >= classes:
        raise _spoilt(path, f"labels {labels.min()} to {labels.max()}, want 0 to {classes - 1}")
    return Split(images, np.array(labels[index]), index)


def _array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of a file, memory-mapped: of its size no more than the header is read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        words = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise _spoilt(path, f"can't be read ({words})") from None
    if not isinstance(array, np.ndarray):
        raise _spoilt(path, "not a .npy file")
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        found, wanted = (" x ".join(map(str, sides)) for sides in (array.shape, shape))
        raise _spoilt(path, f"{found} in {array.dtype}, want {wanted} in {dtype}")
    return array


def _spoilt(path: Path, what: str) -> OfframpError:
    return OfframpError(f"{path}: {what}; delete the folder {path.parent} and rerun")


def load_images(split: Split, rows: slice | np.ndarray, device):
    """Rows of a split as float32 (n, 3, H, W) in 0..1, channels_last, on the device."""
    pixels = torch.from_numpy(split.images[split.order[rows]])
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:  # what is copied from pinned memory need not be waited for
        pixels = pixels.pin_memory()
    # Permuting N x H x W x C gives a channels_last tensor without a copy.
    pixels = pixels.to(device, non_blocking=on_cuda).permute(0, 3, 1, 2)
    return pixels.to(torch.float32) / 255
