"""What belongs to a network and not to a config: the weights that ship, and how to train it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from offramp.common.hashing import sha256
from offramp.networks.files import unusable

INDEX = "index.json"
# How many exits each network has; torch need not be imported to look.
EXITS = {"branchynet": 6, "cpunet": 6, "cpunet_static": 1}
RECIPES = Path(__file__).with_name("recipes.json")
# What these take: channels, height, width.
TAKEN = (3, 32, 32)


def read_index(path: str | Path) -> dict[str, dict[str, Any]]:
    """The entries by file name; empty when there is no index."""
    return json.loads(Path(path).read_text()) if Path(path).exists() else {}


def recipe_of(network: str) -> dict[str, Any]:
    """How weights of a network are made from nothing, by the keys of the config's ``train``; for
    one that is not of this project a neutral recipe."""
    recipes = json.loads(RECIPES.read_text())
    return recipes.get(network, recipes["any other"])


def is_listed(weights: str | Path) -> bool:
    """Whether a weights file is one of those that ship; these take pictures in 0..1 as they are."""
    return Path(weights).name in read_index(Path(weights).parent / INDEX)


def mismatches(
    key: str, weights: str | Path, name_key: str, model: str, dataset: str, validation: int
) -> Iterable[str]:
    """What keeps weights from being used so: of any file what its first bytes tell, and of a listed
    one all that the index does.

    ``key`` and ``name_key`` are the config's keys of the weights and of their network;
    ``validation`` is the number of validation samples that the config asks for.
    """
    weights = Path(weights)
    if weights.exists() and (problem := unusable(weights)):
        yield f"{key}: {weights} {problem}"
        return
    entry = read_index(weights.parent / INDEX).get(weights.name)
    if entry is None:
        return
    for config_key, listed, configured in (
        (name_key, entry["model"], model),
        ("dataset.name", entry["dataset"], dataset),
    ):
        if listed != configured:
            yield f"{config_key}: {weights} are of {listed}, not of {configured}"
    if entry["dataset"] == dataset and validation > entry["validation"]:
        yield (
            f"dataset.validation: {validation} samples, but {weights} were trained on all except "
            f"{entry['validation']}; thresholds would be chosen on training data"
        )
    if sha256(weights) != entry["sha256"]:
        yield (
            f"{key}: {weights} is damaged: its sha256 is not the one in "
            f"{weights.parent / INDEX}; restore it with git"
        )
