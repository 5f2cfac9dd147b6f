"""What code a script runs, found by following its imports: Snakemake itself does not notice that a
module which a script imports has changed."""

import ast
import hashlib
from functools import cache
from pathlib import Path


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
    listed = sorted(f"{file.relative_to(script.parent)} {d}" for file, d in digests.items())
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()


@cache
def imported(file: Path, root: Path) -> frozenset[Path]:
    """The library modules that a Python file below ``root`` imports, by absolute or relative
    names, and the packages they lie in."""
    here = file.relative_to(root).parts
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = here[: -node.level] if node.level else ()
            base = ".".join([*package, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    found = set()
    for parts in (name.split(".") for name in names if name.split(".")[0] == "offramp"):
        found.add(root / f"{'/'.join(parts)}.py")
        found |= {root.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)}
    return frozenset(path for path in found if path.exists())
