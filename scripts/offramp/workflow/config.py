"""A config before any job starts: made whole, then checked."""

import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from offramp import OfframpError
from offramp.data.datasets import dataset_of, known_of, split_sizes, text_of
from offramp.data.own import described
from offramp.networks.index import recipe_of
from offramp.workflow.faults import faults_of_several_keys
from offramp.workflow.paths import path_faults, settle_paths
from offramp.workflow.schema import keys_given_twice, schema_faults, validator_of, value_of_text

LONGEST_LINE = 400


def check_config(
    config: dict[str, Any],
    schema: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
    given: Mapping[str, Any] = MappingProxyType({}),
    prefixed: Callable[[str], str] = str,
    files: Iterable[str | Path] = (),
) -> None:
    """Make a config whole and check it, in place; raise OfframpError that names every key that is
    wrong, and how.

    Keys that it lacks come from ``defaults``, those of ``train`` from the network's own recipe;
    ``given`` is what ``--config`` gave, whose nested values Snakemake leaves as text; ``prefixed``
    is what Snakemake makes of a path; ``files`` are those that the config was read from. Keys of
    the version before are renamed, with a line on stderr. What is known of the dataset is noted as
    ``dataset.known`` where its name alone does not say it.
    """
    validator = validator_of(schema)
    _complete(config, defaults, given, validator)
    settle_paths(config, prefixed, files, given)
    if isinstance(config["dataset"], dict):
        config["dataset"].pop("known", None)  # of a config that was checked before
    lines = [line for file in dict.fromkeys(files) for line in keys_given_twice(file)]
    by_schema, wrong_keys = schema_faults(config, validator)
    lines += by_schema
    if "dataset" not in wrong_keys and config.get("logits") is None:
        fault = _note_dataset(config["dataset"])
        if fault:
            lines.append(fault)
            wrong_keys.add("dataset")
    lines += faults_of_several_keys(config, wrong_keys)
    if "results" not in wrong_keys:
        lines += path_faults(config, prefixed)
    refuse(lines)
    _fit_batch_size(config)


def _complete(
    config: dict[str, Any], defaults: Mapping[str, Any], given: Mapping[str, Any], validator: Any
) -> None:
    """Give a config the keys that it lacks, the new names of old ones, and the values that its
    texts from ``--config`` stand for, in place."""
    fill_in(config, defaults)
    if isinstance(config.get("train"), dict) and isinstance(config.get("model"), dict):
        fill_in(config["train"], recipe_of(str(config["model"].get("name"))))
    for line in rename_old_keys(config):
        print(line, file=sys.stderr)
    texts = copy.deepcopy(dict(given))
    rename_old_keys(texts)
    read_texts(config, texts, validator)


def fill_in(config: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Give a config the keys that only ``defaults`` has, at every level, in place."""
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            fill_in(config[key], value)
        else:
            config.setdefault(key, copy.deepcopy(value))


def rename_old_keys(config: dict[str, Any]) -> list[str]:
    """Give keys of the version before their new names, in place; returns what to say of it, a line
    each."""
    lines = []
    rival = config.pop("rival", None)
    if rival:
        if isinstance(rival, dict):  # else the schema says what is wrong
            rival = {"name" if key == "model" else key: value for key, value in rival.items()}
        config["baseline"] = rival
        lines.append("config: rival is baseline now, and rival.model is baseline.name")
    if config.get("criterion") == "risk":
        config["criterion"] = "deferral"
        lines.append("config: the criterion risk is deferral now")
    selection = config.get("selection")
    if isinstance(selection, dict) and "max_loss" in selection:
        selection["max_drop"] = selection.pop("max_loss")
        lines.append("config: selection.max_loss is selection.max_drop now")
    if isinstance(selection, dict) and selection.get("rule") == "fastest_within_loss":
        selection["rule"] = "fastest_within_drop"
        lines.append("config: the rule fastest_within_loss is fastest_within_drop now")
    return lines


def read_texts(config: dict[str, Any], given: Mapping[str, Any], validator: Any) -> None:
    """Make numbers, true, false and null of what ``--config`` gave as text, in place, wherever the
    schema wants them."""
    for error in list(validator.iter_errors(given)):
        value = value_of_text(error.instance)
        asked = {error.validator: error.validator_value}
        if error.absolute_path and validator.evolve(schema=asked).is_valid(value):
            place: Any = config
            *outer, last = error.absolute_path
            for key in outer:
                place = place[key]
            place[last] = value
    model = given.get("model")
    options = model.get("options") if isinstance(model, dict) else None
    if isinstance(options, dict) and isinstance(config["model"]["options"], dict):
        config["model"]["options"] |= value_of_text(options)  # of which the schema knows nothing


def _note_dataset(data: dict[str, Any]) -> str | None:
    """Look at the dataset's files and note what they are; returns what is wrong with them."""
    try:
        known = text_of(described(data))
    except OfframpError as error:
        return str(error)
    if known != data["name"]:
        data["known"] = known
    return None


def _fit_batch_size(config: dict[str, Any]) -> None:
    """No batch is larger than the largest split, and none is made or timed that never comes."""
    if config.get("logits") is not None:
        return  # of whose samples the config says nothing
    data = config["dataset"]
    known = known_of(data)
    largest = max(split_sizes(known, data["validation"]).values())
    if config["batch_size"] > largest:
        more = f"{config['batch_size']} is more than any split of {dataset_of(known).name} has"
        print(f"config: batch_size: {more}; {largest} is taken", file=sys.stderr)
        config["batch_size"] = largest


def refuse(lines: Sequence[str]) -> None:
    """Raise OfframpError that lists what is wrong with the config, if anything is."""
    if lines:
        listed = "\n".join(f"  {_cut(line)}" for line in lines)
        raise OfframpError(f"the config is wrong:\n{listed}")


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-100:]}"
