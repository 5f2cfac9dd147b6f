"""What is wrong with a config that only several of its keys, and the files they name, can tell."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from offramp.data.datasets import dataset_of, known_of, split_sizes
from offramp.networks.index import EXITS, TAKEN, is_listed, mismatches
from offramp.networks.own.factory import PAGE, fault, is_own
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.scores import LEAST
from offramp.workflow.own import compare_faults, own_faults
from offramp.workflow.paths import unusable_path

# What is wrong with a config, a line each.
Faults = Callable[[Mapping[str, Any]], Iterable[str]]


def faults_of_several_keys(config: Mapping[str, Any], wrong_keys: set[str]) -> Iterable[str]:
    """What is wrong, a line each, but for checks that would look at a key already known as wrong,
    one of ``wrong_keys``."""
    for keys, faults in CHECKS:
        if not wrong_keys & keys:
            yield from faults(config)


def training_faults(config: Mapping[str, Any]) -> Iterable[str]:
    """What of a recipe does not fit the network or the data: for those who train."""
    name, data, recipe = config["model"]["name"], config["dataset"], config["train"]
    weights, exits = recipe["exit_weights"] or [], config["model"]["exits"]
    # A factory's own tell themselves.
    count = len(exits) + 1 if exits and is_own(name) else EXITS.get(name, len(weights))
    if weights and len(weights) != count:
        yield (
            f"train.exit_weights: {len(weights)} numbers, but {name} has {count} exits; "
            "give one per exit"
        )
    dataset = dataset_of(known_of(data))
    side = min(dataset.shape[:2]) if dataset.pictures else math.inf
    for key, most in (("shift", side - 1), ("cutout", side)):
        if recipe[key] > most:
            yield f"train.{key}: {recipe[key]} pixels, where pictures have a side of {side}"
    samples = split_sizes(known_of(data), data["validation"])["train"]
    steps = math.ceil(samples / recipe["batch_size"])
    if 0 < samples < 2 * steps:
        yield (
            f"train.batch_size: {samples} training samples in batches of {recipe['batch_size']} "
            "leave a batch of one, from which batch norm can't learn; take another size"
        )


def _faults_if_trained(config: Mapping[str, Any]) -> Iterable[str]:
    if config["model"]["weights"] == "train":
        yield from training_faults(config)


def _split_faults(config: Mapping[str, Any]) -> Iterable[str]:
    known, validation = known_of(config["dataset"]), config["dataset"]["validation"]
    sizes = split_sizes(known, validation)
    if not all(sizes[split] for split in ("val", "test")):
        yield f"dataset: {sum(sizes.values())} samples are too few; each split needs some"
    if sizes["train"] < 1:
        yield (
            f"dataset.validation: {validation} samples leave none to train on; "
            f"{dataset_of(known).name} has "
            f"{sizes['train'] + sizes['val']} for both"
        )


def _cutoff_faults(config: Mapping[str, Any]) -> Iterable[str]:
    criterion, report = config["criterion"], config["sweep"]["report_cutoff"]
    classes = dataset_of(known_of(config["dataset"])).classes
    ends = CRITERIA[criterion].range
    if ends is None:
        # Energies are below 0 wherever a logit is above 0; 0.6 is entropy's, of config.yaml.
        if report > 0:
            yield (
                f"sweep.report_cutoff: {report} is no cutoff of {criterion}, whose scores are "
                "negative; name one below 0, such as -8"
            )
        return
    low, high = ends(classes)
    cutoffs = config["sweep"]["cutoffs"]
    for key, values in (
        ("sweep.report_cutoff", [report]),
        ("sweep.cutoffs", cutoffs if isinstance(cutoffs, list) else []),
    ):
        outside = [value for value in values if not low <= value <= high]
        if outside:
            yield (
                f"{key}: {outside[0]} is outside the range of {criterion} with {classes} classes, "
                f"{low:g} to {high:.7g}"
            )


def _fitted_faults(config: Mapping[str, Any]) -> Iterable[str]:
    if not CRITERIA[config["criterion"]].fitted:
        return
    data = config["dataset"]
    own_logits = config.get("logits") is not None
    validation = LEAST if own_logits else split_sizes(known_of(data), data["validation"])["val"]
    if validation < LEAST:
        yield (
            f"dataset.validation: {validation} samples are too few for the criterion "
            f"{config['criterion']}, which is fitted to them; take {LEAST} or more"
        )
    if config["calibration"]["temperatures"]:
        yield (
            f"calibration.temperatures: {config['criterion']} is itself fitted to the logits as "
            "they are; set this to false"
        )


def _weights_faults(key: str, config: Mapping[str, Any]) -> Iterable[str]:
    chosen, dataset = config[key], config["dataset"]
    if chosen is None or (key == "model" and chosen["weights"] == "train"):
        return
    if key == "model" and chosen["weights"] == "none":
        if not is_own(chosen["name"]):
            yield (
                f"model.weights: none is for a factory that loads its own, which {chosen['name']} "
                "is not; name a weights file, or train"
            )
        return
    if is_own(chosen["name"]) and is_listed(chosen["weights"]):
        yield (
            f"{key}.weights: {chosen['weights']}, which ships, is not of {chosen['name']}; name a "
            "file of its own, train, or none where the factory loads them"
        )
        return
    weights, harm = chosen["weights"], unusable_path(chosen["weights"])
    way_out = "name a weights file, or train" if key == "model" else "name a weights file"
    if harm:
        yield f"{key}.weights: {harm}; {way_out}"
    elif not Path(weights).is_file():
        what = "is a folder" if Path(weights).is_dir() else "is not there"
        yield f"{key}.weights: {weights} {what}, nor is such a file beside the Snakefile; {way_out}"
    elif not os.access(weights, os.R_OK):
        yield f"{key}.weights: {weights} may not be read; mend its permissions, or {way_out}"
    else:
        names = f"{key}.weights", weights, f"{key}.name", chosen["name"]
        validation = split_sizes(known_of(dataset), dataset["validation"])["val"]
        yield from mismatches(*names, dataset_of(known_of(dataset)).name, validation)


def _shape_faults(key: str, config: Mapping[str, Any]) -> Iterable[str]:
    """Whether a network of this project takes what the dataset has."""
    chosen, dataset = config[key], dataset_of(known_of(config["dataset"]))
    fits = dataset.pictures and dataset.input_shape == TAKEN
    if chosen is not None and chosen["name"] in EXITS and not fits:
        shape = " x ".join(map(str, dataset.input_shape))
        yield (
            f"{key}.name: {chosen['name']} takes pictures of {' x '.join(map(str, TAKEN))}, and "
            f"{dataset.name} has {shape} in {dataset.dtype}; bring them to that (a folder's with "
            "dataset.size: 32), or name a network of your own"
        )


def _normalised_faults(key: str, config: Mapping[str, Any]) -> Iterable[str]:
    """Whether weights that ship would be given pictures unlike those they were trained on."""
    chosen, dataset = config[key], dataset_of(known_of(config["dataset"]))
    if chosen is not None and dataset.mean is not None and is_listed(chosen["weights"]):
        yield (
            f"dataset.mean: {chosen['weights']} take pictures in 0..1 that are not normalised; "
            "leave dataset.mean and dataset.std out"
        )


def _factory_faults(config: Mapping[str, Any]) -> Iterable[str]:
    name, options = config["model"]["name"], config["model"]["options"]
    if not is_own(name):
        if options:
            yield f"model.options: {name} has none; they are for a network of your own, see {PAGE}"
        return
    problem = fault(name)
    if problem:
        yield f"model.name: {problem}"
    yield from _not_plain("model.options", options)


def _exits_faults(config: Mapping[str, Any]) -> Iterable[str]:
    model, frozen = config["model"], config["train"].get("trunk") == "frozen"
    name, head, trained = model["name"], model["head"], model["weights"] == "train"
    if not is_own(name):
        if model["exits"]:
            yield f"model.exits: {name} has its exits; they are for a network of your own"
        if frozen and trained:
            yield (
                f"train.trunk: frozen is for a network that a factory gives trained; {name} is "
                "trained from nothing; set it to joint"
            )
    elif model["exits"] and model["weights"] == "none" and not is_own(head):
        yield (
            "model.weights: none, but the heads that model.exits adds are new; take train, with "
            "train.trunk: frozen if the rest is trained already"
        )
    if is_own(head) and (problem := fault(head)):
        yield f"model.head: {problem}"
    if head != "pooled" and not model["exits"]:
        yield "model.head: there is no exit to put it on; name some in model.exits"


def _not_plain(key: str, value: Any) -> Iterable[str]:
    """What of a value JSON can't say: YAML knows dates, and keys that are no text."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                yield f"{key}: want text as a key, not {name!r}"
            else:
                yield from _not_plain(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _not_plain(key, inner)
    elif not isinstance(value, str | int | float | None):
        yield f"{key}: want text, numbers, true, false, null, lists or keys, not {value!r}"


def _of_network(faults: Faults) -> Faults:
    """Those of a run with a network; with own logits no network and no data of the config count."""
    return lambda config: faults(config) if config.get("logits") is None else ()


# What only several keys together can tell, with the keys that it looks at.
CHECKS: list[tuple[set[str], Faults]] = [
    ({"results", "logits", "costs"}, own_faults),
    ({"results", "compare"}, compare_faults),
    ({"dataset"}, _of_network(_split_faults)),
    ({"dataset", "criterion", "sweep"}, _of_network(_cutoff_faults)),
    ({"dataset", "criterion", "calibration"}, _fitted_faults),
    ({"dataset", "model", "train"}, _of_network(_faults_if_trained)),
    ({"model"}, _of_network(_factory_faults)),
    ({"model", "train"}, _of_network(_exits_faults)),
    ({"dataset", "model"}, _of_network(partial(_weights_faults, "model"))),
    ({"dataset", "baseline"}, _of_network(partial(_weights_faults, "baseline"))),
    ({"dataset", "model"}, _of_network(partial(_normalised_faults, "model"))),
    ({"dataset", "baseline"}, _of_network(partial(_normalised_faults, "baseline"))),
    ({"dataset", "model"}, _of_network(partial(_shape_faults, "model"))),
    ({"dataset", "baseline"}, _of_network(partial(_shape_faults, "baseline"))),
]
