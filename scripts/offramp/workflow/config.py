"""Checking a config before any job starts: by its JSON schema, then by what only sizes can tell."""

import copy
import difflib
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from offramp import OfframpError
from offramp.data.datasets import dataset_of, known_of, split_sizes, text_of
from offramp.data.own import described
from offramp.networks.index import EXITS, TAKEN, is_listed, mismatches, recipe_of
from offramp.networks.own.factory import PAGE, fault, is_own
from offramp.scoring.criteria import CRITERIA
from offramp.scoring.scores import LEAST
from offramp.workflow.own import compare_faults, own_faults
from offramp.workflow.paths import path_faults, settle_paths, unusable

LARGEST = sys.float_info.max
# JSON Schema takes 64.0 for an integer, and NaN and infinity for numbers like others.
TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda _, value: (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
        ),
    }
)
WORDS = {
    "integer": "a whole number",
    "number": "a finite number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "keys with values",
    "null": "null",
}
Validator = extend(Draft202012Validator, type_checker=TYPES)
LONGEST_LINE = 400
# What is wrong with a config, a line each.
Faults = Callable[[Mapping[str, Any]], Iterable[str]]


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
    ``given`` is what ``--config`` gave, whose nested
    values Snakemake leaves as text; ``prefixed`` is what Snakemake makes of a path; ``files`` are
    those that the config was read from. Keys of the version before are renamed, with a line on
    stderr. What is known of the dataset is noted as ``dataset.known`` where its name alone does not
    say it.
    """
    fill_in(config, defaults)
    if isinstance(config.get("train"), dict) and isinstance(config.get("model"), dict):
        fill_in(config["train"], recipe_of(str(config["model"].get("name"))))
    for line in renamed(config):
        print(line, file=sys.stderr)
    given_now = copy.deepcopy(dict(given))
    list(renamed(given_now))
    # Which criteria there are, the library says.
    properties = schema["properties"] | {"criterion": {"enum": list(CRITERIA)}}
    validator = Validator({**schema, "properties": properties})
    read_texts(config, given_now, validator)
    settle_paths(config, prefixed, files, given)
    if isinstance(config["dataset"], dict):
        config["dataset"].pop("known", None)  # of a config that was checked before
    errors = list(validator.iter_errors(config))
    problems = [line for file in dict.fromkeys(files) for line in twice(file)]
    problems += [line for error in errors for line in _explain(error, validator)]
    wrong = {error.absolute_path[0] for error in errors if error.absolute_path}
    if "dataset" not in wrong and config.get("logits") is None:
        for line in _note_dataset(config["dataset"]):
            problems.append(line)
            wrong.add("dataset")
    for keys, faults in CHECKS:
        if not wrong & keys:
            problems += faults(config)
    if "results" not in wrong:
        problems += path_faults(config, prefixed)
    refuse(problems)
    _fit_batch_size(config)


def _note_dataset(data: dict[str, Any]) -> Iterable[str]:
    """Look at the dataset's files and note what they are; what is wrong with them, if anything."""
    try:
        known = text_of(described(data))
    except OfframpError as error:
        yield str(error)
        return
    if known != data["name"]:
        data["known"] = known


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


def refuse(problems: Sequence[str]) -> None:
    """Raise OfframpError that lists what is wrong with the config, if anything is."""
    if problems:
        listed = "\n".join(f"  {_short(line)}" for line in problems)
        raise OfframpError(f"the config is wrong:\n{listed}")


def _short(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} … {line[-100:]}"


def fill_in(config: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Give a config the keys that only ``defaults`` has, at every level, in place."""
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            fill_in(config[key], value)
        else:
            config.setdefault(key, copy.deepcopy(value))


def renamed(config: dict[str, Any]) -> Iterable[str]:
    """Give keys of the version before their new names, and say so, a line each."""
    rival = config.pop("rival", None)
    if rival:
        if isinstance(rival, dict):  # else the schema says what is wrong
            rival = {"name" if key == "model" else key: value for key, value in rival.items()}
        config["baseline"] = rival
        yield "config: rival is baseline now, and rival.model is baseline.name"
    if config.get("criterion") == "risk":
        config["criterion"] = "deferral"
        yield "config: the criterion risk is deferral now"
    selection = config.get("selection")
    if isinstance(selection, dict) and "max_loss" in selection:
        selection["max_drop"] = selection.pop("max_loss")
        yield "config: selection.max_loss is selection.max_drop now"
    if isinstance(selection, dict) and selection.get("rule") == "fastest_within_loss":
        selection["rule"] = "fastest_within_drop"
        yield "config: the rule fastest_within_loss is fastest_within_drop now"


def read_texts(config: dict[str, Any], given: Mapping[str, Any], validator: Any) -> None:
    """Make numbers, true, false and null of what ``--config`` gave as text, in place, wherever the
    schema wants them."""
    for error in list(validator.iter_errors(given)):
        value = _read(error.instance)
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
        config["model"]["options"] |= _read(options)  # of which the schema knows nothing


def _read(value: Any) -> Any:
    """What a text says as YAML, and 5e-3, which YAML takes for text; a list entry by entry."""
    if isinstance(value, list):
        return [_read(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _read(entry) for key, entry in value.items()}
    if isinstance(value, str):
        for read in (int, float, yaml.safe_load):
            try:
                return read(value)
            except (ValueError, yaml.YAMLError):
                pass
    return value


def twice(file: str | Path) -> Iterable[str]:
    """The keys that a config file gives twice, of which Snakemake silently takes the last, a line
    each; nothing of a file that is no YAML, which Snakemake refuses itself."""
    try:
        with open(file, encoding="utf-8") as text:
            waiting = [("", yaml.compose(text, Loader=yaml.SafeLoader))]
    except (OSError, ValueError, yaml.YAMLError):
        return
    seen = set()
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))  # an alias leads to a node again
        lines: dict[str, int] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                yield f"{path}{name}: twice in {file}, in lines {lines[name]} and {line}; keep one"
            lines[name] = line
            waiting.append((f"{path}{name}.", value))


def _explain(error: ValidationError, validator: Any) -> Iterable[str]:
    path, value = ".".join(map(str, error.absolute_path)), error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema["properties"])
        for key in sorted(map(str, value.keys() - set(known))):
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            yield f"{path + '.' if path else ''}{key}: unknown key; {hint}"
    elif error.validator == "required":
        yield f"{path or 'config'}: {error.message}"
    elif "errorMessage" in error.schema:
        yield f"{path}: {error.schema['errorMessage']}, not {value!r}{_cure(error, validator)}"
    elif error.validator == "type":
        types = error.validator_value
        wanted = " or ".join(WORDS[name] for name in ([types] if isinstance(types, str) else types))
        yield f"{path}: want {wanted}, not {value!r}{_cure(error, validator)}"
    else:
        yield f"{path}: {error.message}{_cure(error, validator)}"


def _cure(error: ValidationError, validator: Any) -> str:
    """How to write what was probably meant, where that is a matter of writing."""
    read = _read(error.instance)
    meant = [read]
    if isinstance(read, float) and read.is_integer():
        meant.append(int(read))
    if isinstance(error.instance, int | float) and not isinstance(error.instance, bool):
        meant.append(str(error.instance))
    fits = validator.evolve(schema=error.schema).is_valid
    written = [yaml.safe_dump(value, default_flow_style=True, width=LARGEST) for value in meant]
    fitting = [text for value, text in zip(meant, written, strict=True) if fits(value)]
    return f"; write {fitting[0].splitlines()[0]}" if fitting else ""


def training_faults(config: Mapping[str, Any]) -> Iterable[str]:
    """What of a recipe does not fit the network or the data: for those who train."""
    name, data, recipe = config["model"]["name"], config["dataset"], config["train"]
    weights, exits = recipe["exit_weights"] or [], config["model"]["exits"]
    # A factory's own tell themselves.
    wanted = len(exits) + 1 if exits and is_own(name) else EXITS.get(name, len(weights))
    if weights and len(weights) != wanted:
        yield (
            f"train.exit_weights: {len(weights)} numbers, but {name} has {wanted} exits; "
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


def _wanted_training_faults(config: Mapping[str, Any]) -> Iterable[str]:
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
    own = config.get("logits") is not None
    validation = LEAST if own else split_sizes(known_of(data), data["validation"])["val"]
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
    weights, wrong = chosen["weights"], unusable(chosen["weights"])
    way_out = "name a weights file, or train" if key == "model" else "name a weights file"
    if wrong:
        yield f"{key}.weights: {wrong}; {way_out}"
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
    taken = dataset.pictures and dataset.input_shape == TAKEN
    if chosen is not None and chosen["name"] in EXITS and not taken:
        found = " x ".join(map(str, dataset.input_shape))
        yield (
            f"{key}.name: {chosen['name']} takes pictures of {' x '.join(map(str, TAKEN))}, and "
            f"{dataset.name} has {found} in {dataset.dtype}; bring them to that (a folder's with "
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
    ({"dataset", "model", "train"}, _of_network(_wanted_training_faults)),
    ({"model"}, _of_network(_factory_faults)),
    ({"model", "train"}, _of_network(_exits_faults)),
    ({"dataset", "model"}, _of_network(partial(_weights_faults, "model"))),
    ({"dataset", "baseline"}, _of_network(partial(_weights_faults, "baseline"))),
    ({"dataset", "model"}, _of_network(partial(_normalised_faults, "model"))),
    ({"dataset", "baseline"}, _of_network(partial(_normalised_faults, "baseline"))),
    ({"dataset", "model"}, _of_network(partial(_shape_faults, "model"))),
    ({"dataset", "baseline"}, _of_network(partial(_shape_faults, "baseline"))),
]
