"""The config's paths: brought to one form, looked for, and refused where they would do harm."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

PROJECT = Path(__file__).parents[3]
# The project's own folders, into which no results may go.
OWN = {
    *(".ci", ".git", ".venv", "config", "docs", "envs", "examples", "locks", "profiles", "rules"),
    *("scripts", "tests", "weights"),
}
UNUSABLE = {
    r"[{}]": "braces, which Snakemake takes for a wildcard",
    r"<\w+>": "a name in < and >, which Snakemake replaces",
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029]": "a control character",
    r"[\ud800-\udfff]": "bytes that are not UTF-8",
    r"(^|/)\s|\s(/|$)": "a blank before or after a name",
    r"^-": "a - in front, as an option has it",
    r"^~": "a ~, but no such home folder is known",
    r"^\w+://": "an address, not a path here",
}
# The longest that a results folder holds is this long.
ROOM = "benchmarks/benchmarks_of_a_rule.parquet.part"


def normal(path: str) -> str:
    """The one form of a path: ``~`` and ``~name`` replaced, no ``./``, ``//`` or slash at the end;
    relative stays relative. What can't be used stays as it is, to be named so."""
    if not path or any(re.search(pattern, path) for pattern in UNUSABLE if pattern != "^~"):
        return path
    path = os.path.normpath(_with_home(path))
    return f"/{path.lstrip('/')}" if path.startswith("/") else path


def _with_home(path: str) -> str:
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # nobody of that name
        return path


def settle_paths(
    config: dict[str, Any],
    prefixed: Callable[[str], str],
    files: Iterable[str | Path] = (),
    given: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Bring every path of a config to its normal form, in place; what is no text is passed over.

    Weights that are not in the working directory are looked for beside the Snakefile; a factory's
    file beside that of the ``files`` which names it, unless the command line did, which gave
    ``given``. ``prefixed`` is what Snakemake makes of a path, which in a module may have a prefix.
    """
    model = config["model"]
    for key in ("name", "head"):
        if isinstance(model, dict) and isinstance(model.get(key), str):
            by_hand = _model_says(given, key, model[key])
            model[key] = _factory_from_here(key, model[key], () if by_hand else files)
    if isinstance(config["results"], str):
        config["results"] = normal(config["results"])
    for key in ("model", "baseline"):
        chosen = config[key]
        weights = chosen.get("weights") if isinstance(chosen, dict) else None
        if isinstance(weights, str) and (key != "model" or weights not in ("train", "none")):
            chosen["weights"] = _where_weights_lie(normal(weights), prefixed)
    data = config["dataset"]
    if isinstance(data, dict) and isinstance(data.get("sources"), list):
        data["sources"] = [
            normal(source) if isinstance(source, str) else source for source in data["sources"]
        ]
    for key in ("files", "path"):
        if isinstance(data, dict) and data.get(key) is not None:
            data[key] = _normal_within(data[key])
    for key in ("logits", "costs", "compare"):
        if key in config:
            config[key] = _normal_within(config[key])


def _factory_from_here(key: str, name: str, files: Iterable[str | Path]) -> str:
    """A factory's name with its file's path from the working directory, if it has a file."""
    source, _, factory = name.rpartition(":")
    if not source.endswith(".py"):
        return name
    base = Path()
    for file in files:
        if _model_says(_content(file), key, name):
            base = Path(file).parent  # the last one's value counts
    path = Path(normal(str(base / _with_home(source))))
    if path.is_absolute() and base.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{factory}"


def _content(file: str | Path) -> Any:
    """What a config file says; nothing of one that can't be read, which Snakemake refuses."""
    try:
        return yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _model_says(config: Any, key: str, name: str) -> bool:
    model = config.get("model") if isinstance(config, Mapping) else None
    return isinstance(model, Mapping) and model.get(key) == name


def _normal_within(value: Any) -> Any:
    """What own logits, costs and runs to compare name: a path, or paths in lists and under keys."""
    if isinstance(value, dict):
        return {key: v if key == "unit" else _normal_within(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_normal_within(entry) for entry in value]
    return normal(value) if isinstance(value, str) else value


def _where_weights_lie(weights: str, prefixed: Callable[[str], str]) -> str:
    """Where a weights file lies, absolute only where it must be: inputs are known by their path, so
    that another one for the same file would have everything made again."""
    if unusable_path(weights):
        return weights
    if not Path(weights).is_file() and (PROJECT / weights).is_file():
        return str(PROJECT / weights)
    return weights if prefixed(weights) == weights != "train" else str(Path(weights).absolute())


def unusable_path(path: str) -> str | None:
    """What keeps a normal path from being used, None for nothing."""
    for pattern, what in UNUSABLE.items():
        if re.search(pattern, path):
            return f"{path!r} has {what}" if "://" not in pattern else f"{path!r} is {what}"
    try:
        Path(path, ROOM).lstat()
    except (FileNotFoundError, NotADirectoryError):  # nothing there, or a file: as it should be
        pass
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"a path of {len(path):,} characters is too long"
        return f"{path} can't be reached ({error.strerror})"
    return None


def path_faults(config: Mapping[str, Any], prefixed: Callable[[str], str]) -> Iterable[str]:
    """What is wrong with where results go, a line each."""
    results = config["results"]
    reason = unusable_path(results) or _harm(results, prefixed)
    if reason:
        yield f"results: {reason}; name a folder of its own, such as results/mine"


def _harm(results: str, prefixed: Callable[[str], str]) -> str | None:
    """What a results folder would spoil; links are followed."""
    place = _real(Path(prefixed(f"{results}/file")).parent)
    for what, root in (
        ("the working directory", "."),
        ("the project", PROJECT),
        ("your home", _with_home("~")),
    ):
        if _real(root).is_relative_to(place):
            return f"{results} is {what} itself, or a folder that it lies in"
    data = Path(prefixed("data/file")).parent
    for folder in (data, Path(".snakemake"), *(PROJECT / name for name in sorted(OWN))):
        if place.is_relative_to(_real(folder)):
            return f"{results} is, or lies in, {folder.name}, which holds other things"
    nearest = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        return f"{nearest} is a file"
    # What is finished may well be read-only.
    writable = nearest == place or os.access(nearest, os.W_OK)
    return None if writable else f"{nearest} can't be written to"


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(path))
