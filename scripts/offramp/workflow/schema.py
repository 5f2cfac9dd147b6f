"""What is wrong with a config as it is written: by its JSON schema, and keys given twice."""

import difflib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from offramp.scoring.criteria import CRITERIA

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


def validator_of(schema: Mapping[str, Any]) -> Any:
    """What checks a config by its schema; which criteria there are, the library says."""
    properties = schema["properties"] | {"criterion": {"enum": list(CRITERIA)}}
    return Validator({**schema, "properties": properties})


def schema_faults(config: Mapping[str, Any], validator: Any) -> tuple[list[str], set[str]]:
    """What the schema finds wrong, a line each, and the outermost keys of what is."""
    errors = list(validator.iter_errors(config))
    lines = [line for error in errors for line in _explain(error, validator)]
    return lines, {str(error.absolute_path[0]) for error in errors if error.absolute_path}


def _explain(error: ValidationError, validator: Any) -> Iterable[str]:
    path, value = ".".join(map(str, error.absolute_path)), error.instance
    if error.validator == "additionalProperties":
        keys = list(error.schema["properties"])
        for key in sorted(map(str, value.keys() - set(keys))):
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(keys)}"
            yield f"{path + '.' if path else ''}{key}: unknown key; {hint}"
    elif error.validator == "required":
        yield f"{path or 'config'}: {error.message}"
    elif "errorMessage" in error.schema:
        yield f"{path}: {error.schema['errorMessage']}, not {value!r}{_rewritten(error, validator)}"
    elif error.validator == "type":
        types = error.validator_value
        kinds = " or ".join(WORDS[name] for name in ([types] if isinstance(types, str) else types))
        yield f"{path}: want {kinds}, not {value!r}{_rewritten(error, validator)}"
    else:
        yield f"{path}: {error.message}{_rewritten(error, validator)}"


def _rewritten(error: ValidationError, validator: Any) -> str:
    """How to write what was probably meant, where that is a matter of writing."""
    value = value_of_text(error.instance)
    meant = [value]
    if isinstance(value, float) and value.is_integer():
        meant.append(int(value))
    if isinstance(error.instance, int | float) and not isinstance(error.instance, bool):
        meant.append(str(error.instance))
    fits = validator.evolve(schema=error.schema).is_valid
    written = [yaml.safe_dump(value, default_flow_style=True, width=LARGEST) for value in meant]
    fitting = [text for value, text in zip(meant, written, strict=True) if fits(value)]
    return f"; write {fitting[0].splitlines()[0]}" if fitting else ""


def value_of_text(value: Any) -> Any:
    """What a text says as YAML, and 5e-3, which YAML takes for text; a list entry by entry."""
    if isinstance(value, list):
        return [value_of_text(entry) for entry in value]
    if isinstance(value, dict):
        return {key: value_of_text(entry) for key, entry in value.items()}
    if isinstance(value, str):
        for parse in (int, float, yaml.safe_load):
            try:
                return parse(value)
            except (ValueError, yaml.YAMLError):
                pass
    return value


def keys_given_twice(file: str | Path) -> Iterable[str]:
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
