"""What code a script runs, found by following its imports: Snakemake itself does not notice that a
module which a script imports has changed."""

import ast
import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from offramp.networks.own.factory import factory_of, file_of, is_own


@cache
def code_digest(script: Path) -> str:
    """sha256 over a script and the library modules beside it in ``offramp/``, by their content."""
    digests: dict[Path, str] = {}
    waiting = {script}
    while waiting:
        file = waiting.pop()
        if file not in digests:
            digests[file] = hashlib.sha256(file.read_bytes()).hexdigest()
            waiting |= imported(file, script.parent)
    return _digest_of_all(digests)


def model_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a network is built from, of the config's ``model``; with the digest of a factory's code,
    by which an edit of it is noticed."""
    built = {key: value for key, value in model.items() if key != "weights"}
    code = "".join(factory_digest(factory) for factory in factories_of(model))
    return built | {"code": code} if code else built


def factories_of(model: Mapping[str, Any]) -> list[str]:
    """The factories whose code is run, of the config's ``model``."""
    return [name for name in (model["name"], model.get("head")) if name and is_own(name)]


@cache
def factory_digest(model: str) -> str:
    """sha256 over the code of a factory, by its content."""
    files = factory_files(model)
    return _digest_of_all({f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files})


@cache
def factory_files(model: str) -> frozenset[Path]:
    """The code of a factory: its file and all beside it that this imports; or, where it lies in a
    package that Python finds by name, all of that."""
    factory = factory_of(model)
    start = file_of(factory)
    assert start is not None  # the config was checked
    if factory.module and ("." in factory.module or start.name == "__init__.py"):
        package = start.parents[factory.module.count(".") - (start.name != "__init__.py")]
        return frozenset(package.rglob("*.py"))
    files, waiting = {start}, {start} if factory.file else set()
    while waiting:
        new_files = imported(waiting.pop(), start.parent, "") - files
        files |= new_files
        waiting |= new_files
    return frozenset(files)


def _digest_of_all(digests: Mapping[Path, str]) -> str:
    root = Path(os.path.commonpath([file.parent for file in digests]))
    listed = sorted(f"{file.relative_to(root)} {digest}" for file, digest in digests.items())
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


@cache
def imported(file: Path, root: Path, top: str = "offramp") -> frozenset[Path]:
    """The modules that a Python file below ``root`` imports, by absolute or relative names, and the
    packages they lie in: those of the package ``top``, or, if that is empty, all below ``root``.
    None of a file that is no Python."""
    file_parts = file.relative_to(root).parts
    names = set()
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return frozenset()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = file_parts[: -node.level] if node.level else ()
            base = ".".join([*package, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    modules = set()
    for parts in (name.split(".") for name in names if top in ("", name.split(".")[0])):
        if "" in parts:
            continue
        modules.add(root / f"{'/'.join(parts)}.py")
        modules |= {root.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)}
    return frozenset(path for path in modules if path.exists())
