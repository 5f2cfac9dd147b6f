"""Checking a config before any job starts: by its JSON schema, then by what only sizes can tell."""

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from offramp import OfframpError
from offramp.data.datasets import DATASETS, split_sizes
from offramp.networks.index import mismatches
from offramp.scoring.criteria import CRITERIA
from offramp.workflow.own import compare_misfits, own_misfits


def renamed(config: dict[str, Any]) -> Iterable[str]:
    """Give keys of the version before their new names, and say so, a line each."""
    rival = config.pop("rival", None)
    if rival:
        if isinstance(rival, dict):  # else the schema says what is wrong
            rival = {"name" if key == "model" else key: value for key, value in rival.items()}
        config["baseline"] = rival
        yield "config: rival is baseline now, and rival.model is baseline.name"


def check_config(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Raise OfframpError that names every key that is wrong, and how. Which criteria there are, the
    library says. Keys of the version before are renamed in place, with a line on stderr."""
    for line in renamed(config):
        print(line, file=sys.stderr)
    properties = schema["properties"] | {"criterion": {"enum": list(CRITERIA)}}
    errors = Draft202012Validator(schema | {"properties": properties}).iter_errors(config)
    problems = [line for error in errors for line in _explain(error)]
    if not problems:
        problems = list(_misfits(config))
    if problems:
        listed = "\n".join(f"  {line}" for line in problems)
        raise OfframpError(f"the config is wrong:\n{listed}")


def _explain(error: ValidationError) -> Iterable[str]:
    path = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in sorted(set(error.instance) - set(known)):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            yield f"{path + '.' if path else ''}{key}: unknown key; {hint}"
    elif error.validator == "required":
        yield f"{path or 'config'}: {error.message}"
    elif "errorMessage" in error.schema:
        yield f"{path}: {error.schema['errorMessage']}, not {error.instance!r}"
    else:
        yield f"{path}: {error.message}"


def _misfits(config: Mapping[str, Any]) -> Iterable[str]:
    yield from own_misfits(config)
    yield from compare_misfits(config)
    if config.get("logits") is None:  # else no network and no data of the config count
        yield from _network_misfits(config)
    if CRITERIA[config["criterion"]].fitted and config["calibration"]["temperatures"]:
        yield (
            f"calibration.temperatures: {config['criterion']} is itself fitted to the logits as "
            "they are; set this to false"
        )


def _network_misfits(config: Mapping[str, Any]) -> Iterable[str]:
    name, validation = config["dataset"]["name"], config["dataset"]["validation"]
    sizes = split_sizes(name, validation)
    if sizes["train"] < 1:
        yield (
            f"dataset.validation: {validation} samples leave none to train on; {name} has "
            f"{sizes['train'] + sizes['val']} for both"
        )
    yield from _cutoff_misfits(config, DATASETS[name].classes)
    for key in ("model", "baseline"):
        if config[key]:
            yield from _weights_misfits(key, config, sizes["val"])


def _cutoff_misfits(config: Mapping[str, Any], classes: int) -> Iterable[str]:
    criterion, cutoffs = config["criterion"], config["sweep"]["cutoffs"]
    ends = CRITERIA[criterion].range
    largest = sys.float_info.max
    low, high = ends(classes) if ends else (-largest, largest)
    for key, values in (
        ("sweep.report_cutoff", [config["sweep"]["report_cutoff"]]),
        ("sweep.cutoffs", cutoffs if isinstance(cutoffs, list) else []),
    ):
        outside = [value for value in values if not low <= value <= high]
        if outside:
            yield (
                f"{key}: {outside[0]} is outside the range of {criterion} with {classes} classes, "
                f"{low:g} to {high:.7g}"
            )


def _weights_misfits(key: str, config: Mapping[str, Any], validation: int) -> Iterable[str]:
    chosen = config[key]
    weights = chosen["weights"]
    if key == "model" and weights == "train":
        return
    if Path(weights).is_file():
        names = f"{key}.weights", weights, f"{key}.name", chosen["name"]
        yield from mismatches(*names, config["dataset"]["name"], validation)
    else:
        way_out = "name a weights file, or train" if key == "model" else "name a weights file"
        yield f"{key}.weights: no file {weights}; {way_out}"
