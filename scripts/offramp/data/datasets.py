"""Datasets: what they hold, how they are split, and how a batch becomes a tensor.

On disk a dataset is `data/<name>/<pool>_images.npy` (uint8, N x H x W x 3) and
`<pool>_labels.npy` (int64); a pool is one of the dataset's own files or file groups.
"""

from typing import NamedTuple

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
