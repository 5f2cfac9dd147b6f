"""Datasets: what they hold, how they are split, and what a sample is.

On disk a dataset is `data/<name>/<pool>_images.npy` (uint8, N x H x W x channels), or for what are
no pictures `<pool>_inputs.npy` (float32 or int64, N x any shape), and `<pool>_labels.npy` (int64);
a pool is one of the dataset's own files or file groups.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from offramp import OfframpError

SPLITS = ("train", "val", "test")
SPLIT_SEED = 42
# Of the user's own data without test data of their own, so much is that.
TEST_SHARE = 0.2


class Dataset(NamedTuple):
    """``name`` is also that of its folder; ``names`` are those of the classes, in the order of the
    labels; ``pools`` gives the samples of each, that of the train split first; ``test`` is a share
    of the only pool, 0 where the test split is a pool of its own; ``validation`` a number of
    samples, None being 10 %; ``flip`` says that a mirrored image is still of its class.

    ``shape`` and ``dtype`` are those of one sample on disk: uint8 is a picture, H x W x channels.
    A picture's values, 0..1, are normalised per channel: less ``mean``, divided by ``std``, where
    these are given.
    """

    name: str
    names: tuple[str, ...]
    pools: dict[str, int]
    test: float = 0.0
    validation: int | None = None
    flip: bool = False
    shape: tuple[int, ...] = (32, 32, 3)
    dtype: str = "uint8"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def classes(self) -> int:
        """How many classes."""
        return len(self.names)

    @property
    def pictures(self) -> bool:
        """Whether samples are pictures, which can be looked at, shifted and mirrored."""
        return self.dtype == "uint8"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample as a network sees it: channels x H x W for pictures."""
        return (self.shape[2], *self.shape[:2]) if self.pictures else self.shape

    @property
    def input_dtype(self) -> str:
        """The type of what a network sees: float32, or int64 for whole numbers that are no
        picture."""
        return "float32" if self.pictures else self.dtype


CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR100_NAMES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup",
    "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house",
    "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
    "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy",
    "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal",
    "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar",
    "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman",
    "worm",
)  # fmt: skip
FASHION_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
DATASETS = {
    "cifar10": Dataset(
        "cifar10", CIFAR10_NAMES, {"train": 50_000, "test": 10_000}, validation=5_000, flip=True
    ),
    "cifar100": Dataset("cifar100", CIFAR100_NAMES, {"train": 50_000, "test": 10_000}, flip=True),
    "fashion_mnist": Dataset(
        "fashion_mnist", FASHION_NAMES, {"train": 60_000, "test": 10_000}, flip=True
    ),
    "digits": Dataset("digits", tuple("0123456789"), {"all": 1_797}, test=0.2),
}
# Datasets of the user's own, each known only once its files were looked at.
OWN = ("arrays", "folder")


def dataset_of(known: str) -> Dataset:
    """The dataset of a name in DATASETS, or of a text that `text_of` made."""
    if known in DATASETS:
        return DATASETS[known]
    try:
        fields = json.loads(known)
        lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return Dataset(**{**fields, **lists})
    except (ValueError, TypeError, AttributeError):
        raise OfframpError(
            f"dataset {known!r}: none of those here: {', '.join(DATASETS)}"
        ) from None


def text_of(dataset: Dataset) -> str:
    """What rules, tables and policies carry of a dataset: its name, if that says all, or all of it
    in one line."""
    if DATASETS.get(dataset.name) == dataset:
        return dataset.name
    return json.dumps(dataset._asdict(), separators=(",", ":"))


def known_of(data: Mapping[str, Any]) -> str:
    """What `dataset_of` takes, from a config's ``dataset``, where it is noted if the name alone
    does not say it (see `offramp.workflow.config.check_config`)."""
    return data.get("known", data["name"])


def origin_of_data(data: Mapping[str, Any]) -> dict[str, str]:
    """What tables say of a config's ``dataset``: its name, and the rest where there is more."""
    if "known" not in data:
        return {"dataset": data["name"]}
    return {"dataset": dataset_of(data["known"]).name, "known": data["known"]}


def dataset_of_tables(origin: Mapping[str, str]) -> Dataset | None:
    """The dataset that a table or a policy says it is of; None where it is not known here."""
    known = origin.get("known", origin.get("dataset", ""))
    try:
        return dataset_of(known)
    except OfframpError:
        return None


def pool_files(known: str) -> list[str]:
    """The files of a dataset, relative to its folder."""
    dataset = dataset_of(known)
    pairs = ((f"{pool}_{inputs(dataset)}.npy", f"{pool}_labels.npy") for pool in dataset.pools)
    return [file for pair in pairs for file in pair]


def inputs_file(known: str, split: str) -> str:
    """The file that holds the samples of a split."""
    dataset = dataset_of(known)
    return f"{pool_of(dataset, split)}_{inputs(dataset)}.npy"


def inputs(dataset: Dataset) -> str:
    """What the files of samples are called."""
    return "images" if dataset.pictures else "inputs"


def pool_of(dataset: Dataset, split: str) -> str:
    """The pool that a split is taken from."""
    return split if split in dataset.pools else next(iter(dataset.pools))


def split_sizes(known: str, validation: int | None) -> dict[str, int]:
    """Samples per split; ``validation`` None takes the dataset's own number (10 % by default). A
    pool of its own is a whole split."""
    dataset = dataset_of(known)
    if "val" in dataset.pools:
        return {split: dataset.pools[split] for split in SPLITS}
    samples = next(iter(dataset.pools.values()))
    test = round(dataset.test * samples) if dataset.test else dataset.pools["test"]
    left = samples - test if dataset.test else samples
    held_out = validation or dataset.validation or round(0.1 * samples)
    return {"train": left - held_out, "val": held_out, "test": test}
