"""What a training is of: its data, network and recipe. Only another one of these makes another
training; no edited script, renamed file or library around it does."""

import ast
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from offramp.data.datasets import dataset_of, known_of, split_sizes
from offramp.networks.own.factory import factory_of, is_own
from offramp.workflow.code import factories_of, factory_digest, factory_files

# Where each network's class stands; torch need not be imported to look.
NETWORKS = Path(__file__).parents[1] / "networks"
NETWORK_FILES = {
    "branchynet": "branchynet.py",
    "cpunet": "cpunet.py",
    "cpunet_static": "cpunet.py",
}
PURPOSE = "purpose"
KEPT = "trained"


def purpose(
    model: str | Mapping[str, Any],
    dataset: str,
    validation: int | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """All that a training's result depends on, but for the machine, by the names of the config's
    keys. ``model`` is what the config says of it, or its name; ``dataset`` what `dataset_of` takes;
    ``settings`` is the config's ``train``."""
    return {
        **_of_model({"name": model} if isinstance(model, str) else model),
        "dataset.name": _dataset_as_seen(dataset),
        "training samples": split_sizes(dataset, validation)["train"],
        **{f"train.{key}": value for key, value in sorted(settings.items())},
    }


def _dataset_as_seen(known: str) -> str:
    """The dataset as a training sees it."""
    dataset = dataset_of(known)
    if dataset.mean is None or dataset.std is None:
        return dataset.name
    return f"{dataset.name} less {[*dataset.mean]} by {[*dataset.std]}"


def _of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    name = model["name"]
    if not is_own(name):
        code = _statements_digest(NETWORKS / NETWORK_FILES[name])
        return {"model.name": name, "the network's code": code}
    of_factory = {key: value for key, value in model.items() if key not in ("weights", "code")}
    digests: list[str] = []
    for factory in factories_of(model):
        files = sorted(factory_files(factory), key=lambda file: file.name)
        # Of a whole package, which may be large, every byte counts.
        whole = factory_of(factory).module
        digests += [factory_digest(factory)] if whole else map(_statements_digest, files)
    noted = {f"model.{key}": value for key, value in of_factory.items()}
    return noted | {"the network's code": " ".join(digests)}


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two purposes, a line a key; what ``then`` does not know is passed over,
    since older tables noted less."""
    return [
        f"{key}: {_short_json(value)} then, {_short_json(now.get(key))} now"
        for key, value in then.items()
        if value != now.get(key)
    ]


def purpose_of(curves: str | Path) -> dict[str, Any]:
    """The purpose noted in a training table.

    Raises ValueError or OSError when the file can't be read.
    """
    try:
        noted = pq.read_schema(curves).metadata or {}
    except pa.ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from None
    if PURPOSE.encode() in noted:
        return json.loads(noted[PURPOSE.encode()])
    # Written by 0.1.0.
    settings = json.loads(noted.get(b"recipe", b"{}"))
    then = {f"train.{key}": value for key, value in sorted(settings.items())}
    names = {"model.name": b"model", "dataset.name": b"dataset"}
    return then | {key: noted[name].decode() for key, name in names.items() if name in noted}


def purpose_now(config: Mapping[str, Any]) -> dict[str, Any]:
    """The purpose of the training that a config asks for."""
    data = config["dataset"]
    return purpose(config["model"], known_of(data), data["validation"], config["train"])


def mismatches_of(curves: str | Path, config: Mapping[str, Any]) -> list[str]:
    """Why a finished training, by its table, is not the one that a config asks for; a line each."""
    try:
        return changes(purpose_of(curves), purpose_now(config))
    except (ValueError, OSError) as error:
        return [f"{curves} can't be read ({error}), so what was trained is not known"]


def keep_trained(weights: str | Path, curves: str | Path) -> None:
    """Keep a copy of what was trained, out of reach of whoever deletes outputs. The curves come
    last, and an older training's go first: they say what the weights are of."""
    kept = Path(weights).parent / KEPT
    kept.mkdir(exist_ok=True)
    (kept / Path(curves).name).unlink(missing_ok=True)
    for file in map(Path, (weights, curves)):
        _copy_whole(file, kept / file.name)


def keep_once(weights: str | Path, curves: str | Path) -> None:
    """`keep_trained`, if nothing is kept: an older version's training has no copy yet."""
    if not (Path(weights).parent / KEPT / Path(curves).name).exists():
        keep_trained(weights, curves)


def put_back(weights: str | Path, curves: str | Path, now: Mapping[str, Any]) -> bool:
    """Put back what `keep_trained` kept, if it was trained for this very purpose; is it there?"""
    kept = Path(weights).parent / KEPT
    files = [kept / Path(file).name for file in (weights, curves)]
    if not all(file.exists() for file in files) or changes(purpose_of(files[1]), now):
        return False
    for file, place in zip(files, (weights, curves), strict=True):
        _copy_whole(file, Path(place))
    return True


def _copy_whole(file: Path, place: Path) -> None:
    """A copy that is there whole or not at all."""
    part = place.with_name(f"{place.name}.part")
    shutil.copyfile(file, part)
    part.replace(place)


def _statements_digest(file: Path) -> str:
    """sha256 of a module's statements; comments, docstrings and layout don't count, nor where the
    library's other modules lie."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # one of someone's own, which may never be imported
        return hashlib.sha256(file.read_bytes()).hexdigest()
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("offramp"))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _short_json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:12] + '..."'
