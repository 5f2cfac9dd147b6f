"""A network of one's own: the function that makes it, found by name, imported and called.

Whoever names a factory has its code run. Without torch, since configs are checked without it.
"""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from offramp import OfframpError

LONGEST = 300
PAGE = "docs/guides/own-network.md"


class Factory(NamedTuple):
    """Where a factory is: a Python ``file`` or an importable ``module``, one of them, and its
    ``name`` there."""

    file: Path | None
    module: str | None
    name: str

    @property
    def source(self) -> str:
        """The file or module, in words."""
        return str(self.file or self.module)


def is_own(model: str) -> bool:
    """Whether a model's name is that of a factory."""
    return ":" in model


def factory_of(model: str) -> Factory:
    """The factory that ``path/to/file.py:name`` or ``package.module:name`` names."""
    source, _, name = model.rpartition(":")
    if source.endswith(".py"):
        return Factory(Path(source), None, name)
    return Factory(None, source, name)


def file_of(factory: Factory) -> Path | None:
    """The file whose code is run, found without running any; None where it is not there."""
    if factory.file is not None:
        return factory.file if factory.file.is_file() else None
    package, _, rest = str(factory.module).partition(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    for folder in spec.submodule_search_locations or ():
        inner = Path(folder, *rest.split("."))
        for file in (inner.with_name(f"{inner.name}.py"), inner / "__init__.py"):
            if file.is_file():
                return file
    return None


def fault(model: str) -> str | None:
    """Why a factory can't be called, as far as looking at its file tells; None for nothing."""
    factory = factory_of(model)
    if not factory.name.isidentifier() or not (factory.file or factory.module):
        return (
            f"{model!r} is no factory; want path/to/file.py:name or package.module:name, where "
            "name is a function or class"
        )
    file = file_of(factory)
    if file is None and factory.file is not None:
        what = "is a folder" if factory.file.is_dir() else "is not there"
        return f"{factory.file} {what}; a file is looked for beside the config that names it"
    if file is None:
        return (
            f"no module {factory.module} can be found; install it where the pipeline runs, or name "
            f"a file: path/to/file.py:{factory.name}"
        )
    if file.suffix != ".py":
        return None
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        return f"{file}: line {error.lineno}: {error.msg}"
    except (OSError, ValueError) as error:
        return f"{file}: can't be read ({error})"
    names = _bound(tree)
    if names is None or factory.name in names:
        return None
    return _missing(factory, names)


def _bound(tree: ast.Module) -> set[str] | None:
    """The names that a module may bind; None where that can't be seen."""
    if any(
        isinstance(node, ast.Global)
        or (isinstance(node, ast.Name) and node.id in ("globals", "exec", "setattr"))
        for node in ast.walk(tree)
    ):
        return None
    names, waiting = set(), list[ast.AST](tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
            continue  # what is bound inside is not the module's
        if isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return None if names & {"*", "__getattr__"} else names


def _missing(factory: Factory, names: set[str]) -> str:
    public = sorted(name for name in names if not name.startswith("_"))
    near = difflib.get_close_matches(factory.name, public, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    listed = ", ".join(public[:10]) or "nothing"
    return f"{factory.source} has no {factory.name}; it has {listed}{hint}"


def make(model: str, options: Mapping[str, Any], classes: int, key: str = "model.options") -> Any:
    """What a factory gives for these keyword arguments, which the config's ``key`` decides, and for
    ``classes`` where it has an argument of that name. Its code is run.

    Raises OfframpError, one line, when it can't be imported or called, or fails.
    """
    factory = factory_of(model)
    problem = fault(model)
    if problem:
        raise OfframpError(problem)
    with _importing_beside(factory.file):
        module = _imported(factory)
        if not hasattr(module, factory.name):
            raise OfframpError(_missing(factory, set(vars(module))))
        call = getattr(module, factory.name)
        if not callable(call):
            raise OfframpError(f"{model} is of type {type(call).__name__}, not a function or class")
        arguments = _arguments(model, call, options, classes, key)
        return guarded(f"{model} raised", lambda: call(**arguments))


@contextmanager
def _importing_beside(file: Path | None) -> Iterator[None]:
    """Let a file import what lies beside it, as a script does; and leave no bytecode there, which
    Python would take for an edit of the same second."""
    if file is None:
        yield
        return
    folder, bytecode = str(file.absolute().parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        if folder in sys.path:  # what the file itself has added stays
            sys.path.remove(folder)


def _arguments(
    model: str, call: Any, options: Mapping[str, Any], classes: int, key: str
) -> dict[str, Any]:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # some that are written in C
        return dict(options)
    parameter = signature.parameters.get("classes")
    arguments = dict(options)
    if parameter is not None and parameter.kind != parameter.POSITIONAL_ONLY:
        arguments.setdefault("classes", classes)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise OfframpError(
            f"{key}: {model} {error}; it is called as {factory_of(model).name}{signature}"
        ) from None
    return arguments


def _imported(factory: Factory) -> ModuleType:
    if factory.module:
        path = factory.module
        return guarded(f"importing {path} raised", lambda: importlib.import_module(path))
    file = Path(str(factory.file)).absolute()
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    name = f"own_{file.stem}_{digest}"  # no other module's
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    guarded(f"importing {factory.file} raised", lambda: spec.loader.exec_module(module))
    return module


def guarded(what: str, call: Any) -> Any:
    """What a call into someone's code gives; what it raises becomes one line that says where."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)[2:]
        outside = [f for f in frames if "site-packages" not in f.filename and "<" not in f.filename]
        last = (outside or frames)[-1:]
        place = "".join(f" ({Path(f.filename).name}, line {f.lineno})" for f in last)
        words = (str(error).strip() or "without a message").splitlines()[0]
        raise OfframpError(f"{what} {type(error).__name__}: {words[:LONGEST]}{place}") from error
