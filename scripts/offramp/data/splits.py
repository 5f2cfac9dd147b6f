"""The samples of a split, and their inputs for the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from offramp import OfframpError
from offramp.data.datasets import (
    DATASETS,
    SPLIT_SEED,
    SPLITS,
    Dataset,
    dataset_of,
    inputs_file,
    pool_of,
    split_sizes,
)


def split_indices(
    known: str, split: str, validation: int | None, labels: np.ndarray | None = None
) -> tuple[str, np.ndarray]:
    """The pool of a split and which of its samples, int64, in the split's order.

    A permutation of the first pool under seed 42: train first, then val, then (where the dataset
    has no test pool) test. For CIFAR-10 that is `random_split(dataset, [45000, 5000])`'s order.
    Test pools keep their own order, but for those of the user's own data: these may be sorted by
    class, and batches are consecutive rows. So may val pools, of which halves count as random. A
    first pool of the user's own, whose ``labels`` int64 (N,) must be given, is split class by
    class, so that small data don't leave one out.
    """
    sizes, dataset = split_sizes(known, validation), dataset_of(known)
    pool = pool_of(dataset, split)
    if split == "test" == pool and dataset.name in DATASETS:
        return pool, np.arange(sizes["test"])
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(dataset.pools[pool], generator=generator).numpy()
    if split == pool != "train":
        return pool, order
    start = {"train": 0, "val": sizes["train"], "test": sizes["train"] + sizes["val"]}[split]
    rows = slice(start, start + sizes[split])
    if dataset.name in DATASETS:
        return pool, order[rows]
    assert labels is not None
    part = order[np.argsort(_share_before(labels[order]), kind="stable")][rows]
    return pool, order[np.isin(order, part)]


def _share_before(labels: np.ndarray) -> np.ndarray:
    """How much of its own class comes before each sample, and half of itself: float64 (N,)."""
    shares = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        shares[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return shares


class Split(NamedTuple):
    """The samples of one split: ``images`` is memory-mapped, uint8 where they are pictures, else
    float32 or int64; ``order`` says which and in what order, ``labels`` int64 (N,) already in that
    order. Pictures are normalised by ``mean`` and ``std`` per channel, if these are given."""

    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def batches(self, batch_size: int) -> Iterator[slice]:
        """Consecutive rows."""
        return (
            slice(start, min(start + batch_size, len(self.order)))
            for start in range(0, len(self.order), batch_size)
        )


def open_split(folder: str | Path, known: str, split: str, validation: int | None) -> Split:
    """A split of the dataset in ``folder``.

    Raises OfframpError when a file is not what the download wrote, or a class of the user's own
    data has no sample in the split.
    """
    dataset = dataset_of(known)
    pool = pool_of(dataset, split)
    samples = dataset.pools[pool]
    path = Path(folder) / f"{pool}_labels.npy"
    file = Path(folder) / inputs_file(known, split)
    images = _map_array(file, dataset.dtype, (samples, *dataset.shape))
    labels = _map_array(path, "int64", (samples,))
    if labels.min() < 0 or labels.max() >= dataset.classes:
        span = f"labels {labels.min()} to {labels.max()}"
        raise _spoilt(path, f"{span}, want 0 to {dataset.classes - 1}")
    _, index = split_indices(known, split, validation, labels)
    opened_split = Split(images, np.array(labels[index]), index, dataset.mean, dataset.std)
    if dataset.name not in DATASETS:
        _check_classes(opened_split.labels, dataset, split)
    return opened_split


def check_splits(folder: str | Path, known: str, validation: int | None) -> None:
    """Raise OfframpError where `open_split` would for any split."""
    for split in SPLITS:
        open_split(folder, known, split, validation)


def _check_classes(labels: np.ndarray, dataset: Dataset, split: str) -> None:
    missing = np.flatnonzero(np.bincount(labels, minlength=dataset.classes) == 0)
    if not len(missing):
        return
    label, more = int(missing[0]), f" (nor have {len(missing) - 1} more)" * (len(missing) > 1)
    way_out = "add more, or give each split files of its own"
    if split in dataset.pools and "val" in dataset.pools:
        way_out = "add some to its files"
    raise OfframpError(
        f"{dataset.name}: class {label} ({dataset.names[label]}) has no sample among the "
        f"{len(labels):,} of the split {split}{more}; {way_out}"
    )


def _map_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of a file, memory-mapped: of its size no more than the header is read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        words = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise _spoilt(path, f"can't be read ({words})") from None
    if not isinstance(array, np.ndarray):
        raise _spoilt(path, "not a .npy file")
    if (array.dtype, array.shape) != (np.dtype(dtype), shape):
        have, want = (" x ".join(map(str, sides)) for sides in (array.shape, shape))
        raise _spoilt(path, f"{have} in {array.dtype}, want {want} in {dtype}")
    return array


def _spoilt(path: Path, what: str) -> OfframpError:
    return OfframpError(f"{path}: {what}; delete the folder {path.parent} and rerun")


def load_images(split: Split, rows: slice | np.ndarray, device) -> Tensor:
    """Rows of a split as the network takes them, on the device: pictures float32 (n, C, H, W) in
    0..1, channels_last, normalised where the split says so; anything else (n, ...) as it is."""
    samples = torch.from_numpy(split.images[split.order[rows]])
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:  # what is copied from pinned memory need not be waited for
        samples = samples.pin_memory()
    samples = samples.to(device, non_blocking=on_cuda)
    return as_pictures(samples, split.mean, split.std) if is_picture(samples) else samples


def blank(dataset: Dataset, n: int) -> Tensor:
    """``n`` samples of zeros in the form that a network takes, on the CPU."""
    x = torch.zeros(n, *dataset.input_shape, dtype=getattr(torch, dataset.input_dtype))
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def is_picture(samples: Tensor) -> bool:
    """Whether samples, as they are stored, are pictures."""
    return samples.dtype == torch.uint8


def as_pictures(
    pixels: Tensor, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> Tensor:
    """Pixels uint8 (n, H, W, C) as float32 (n, C, H, W) in 0..1, less ``mean`` and divided by
    ``std`` per channel if these are given."""
    # Permuting N x H x W x C gives a channels_last tensor without a copy.
    x = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    return normalised(x, mean, std)


def normalised(x: Tensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Tensor:
    """Pictures (n, C, H, W) in 0..1, less ``mean`` and divided by ``std`` per channel if these are
    given."""
    if mean is None or std is None:
        return x
    each = (torch.tensor(v, dtype=x.dtype, device=x.device)[:, None, None] for v in (mean, std))
    return (x - next(each)) / next(each)
