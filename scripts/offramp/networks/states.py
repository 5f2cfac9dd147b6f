"""Weights from a file to a network: read by content, unwrapped, and fitted key by key."""

import pickletools
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from offramp import OfframpError
from offramp.networks.files import SAVE_THERE, safetensors_header, unusable

LISTED = 10
# What torch counts while training; inference does not use it, and older files lack it.
COUNTER = "num_batches_tracked"
# What torch's averaged models keep beside the network's own tensors.
AVERAGED = "n_averaged"
COMPILED = "_orig_mod."


def read(weights: str | Path) -> Any:
    """What a weights file holds, by its content, not its name: of a safetensors file its tensors by
    name, of torch's what was saved, never unpickled beyond tensors and plain Python.

    Raises OfframpError that says what the file is instead.
    """
    problem = unusable(weights)
    if problem:
        raise OfframpError(f"{weights}: {problem}")
    try:
        if safetensors_header(weights) is not None:
            return safetensors.torch.load_file(weights)
        # An open file: by its name torch would judge it.
        with open(weights, "rb") as file:
            return torch.load(file, weights_only=True, map_location="cpu")
    except SafetensorError as error:
        raise OfframpError(
            f"{weights}: is a safetensors file that is damaged or cut off ({error}); copy or "
            "download it again"
        ) from None
    # Damaged bytes make the weights-only unpickler raise nearly anything.
    except Exception as error:
        raise OfframpError(f"{weights}: {_refusal(error, weights)}") from None


def _refusal(error: Exception, weights: str | Path) -> str:
    match = re.search(r"(?:GLOBAL|class) ([\w.]+\.[\w.]+)", str(error))
    refused = match[1] if match else _first_type(weights)
    if refused:
        return (
            f"holds an object of the type {refused}, and unpickling that could run any code, so "
            f"it is refused; {SAVE_THERE}"
        )
    # The first alone: torch goes on to recommend unpickling what may hold any code.
    sentence = (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]
    why = "" if sentence == "Weights only load failed" else f" ({sentence})"
    return f"not a readable weights file, neither safetensors nor what torch.save writes{why}"


def _first_type(pickled: str | Path) -> str | None:
    """The type of the first object in a plain pickle, by its opcodes alone; None when there is none
    or the file is something else."""
    strings = ["", ""]
    with open(pickled, "rb") as file, suppress(Exception):
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL":
                return ".".join(strings[-2:])
            if "UNICODE" in opcode.name:
                strings.append(str(argument))
    return None


def fitting(
    weights: str | Path, content: Any, wanted: Mapping[str, Tensor], network: str
) -> dict[str, Tensor]:
    """The one state dict in a file's content whose names, shapes and kinds are ``wanted``;
    ``network`` says whose those are.

    A checkpoint's other entries and a prefix of all names are taken off. Raises OfframpError that
    lists what differs, or the keys among which only the user can choose.
    """
    states = {place: _bare(state, wanted) for place, state in _states(content)}
    if not states:
        raise OfframpError(
            f"{weights}: holds no state dict, tensors by name, but {_held(content)}; {SAVE_THERE}"
        )
    problems = {place: list(_problems(state, wanted)) for place, state in states.items()}
    good = [place for place, lines in problems.items() if not lines]
    if len(good) > 1:
        raise OfframpError(
            f"{weights}: holds several state dicts of {network}, at {' and '.join(good)}; save the "
            f"one you mean alone: torch.save(torch.load(path, weights_only=True){good[0]}, new)"
        )
    if good:
        return {**wanted, **states[good[0]]}
    best = max(states, key=lambda place: len(states[place].keys() & wanted.keys()))
    what = f"its state dict at {best} is not" if best else "not"
    cause = _cause(states[best], wanted)
    if len(states) > 1 and not states[best].keys() & wanted.keys():
        cause = f"\n  it holds {_held(content)}"
    raise OfframpError(f"{weights}: {what} weights of {network}:{cause}\n{_listed(problems[best])}")


def _states(
    content: Any, place: str = "", deeper: int = 3
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict in the content that names tensors, with the way to it, as in ['state_dict']; in it
    no more than ``deeper`` levels down, since a pickled dict may hold itself."""
    if not isinstance(content, dict) or deeper < 0:
        return
    # An optimizer's tensors lie under numbers.
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in named.items():
        yield from _states(value, f"{place}[{key!r}]", deeper - 1)


def _bare(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what wrappers put before all its names."""
    bare = {key.replace(COMPILED, ""): v for key, v in state.items() if key != AVERAGED}
    wanted_prefixes = {key.partition(".")[0] for key in wanted}
    while True:
        prefix, *others = {key.partition(".")[0] for key in bare} or {""}
        if not bare or others or prefix in wanted_prefixes or not all("." in key for key in bare):
            return bare
        bare = {key.partition(".")[2]: value for key, value in bare.items()}


def _problems(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterator[str]:
    for key in wanted:
        if key not in state and not key.endswith(COUNTER):
            yield f"missing key {key}"
    for key in state:
        if key not in wanted:
            yield f"unexpected key {key[:100]}"
    for key, tensor in wanted.items():
        if key in state and (problem := _tensor_problem(state[key], tensor)):
            yield f"{key}: {problem}"


def _tensor_problem(found: Tensor, wanted: Tensor) -> str | None:
    if found.layout != torch.strided:
        return f"a sparse tensor ({found.layout}), want a dense one"
    if found.shape != wanted.shape:
        return f"shape {tuple(found.shape)}, want {tuple(wanted.shape)}"
    if found.is_meta:
        return "has a shape but no data (it was saved on the meta device)"
    if found.is_complex() or (wanted.is_floating_point() and not found.is_floating_point()):
        return f"{found.dtype}, want {wanted.dtype} or another floating-point type"
    bad = int((~found.to(wanted.dtype).isfinite()).sum())
    return f"{bad} of {found.numel()} values are not finite (NaN or infinite)" if bad else None


def _cause(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """A line for names that only some prefix keeps from fitting."""
    if not wanted:
        return ""
    *_, last = wanted
    for prefix in (key.removesuffix(last) for key in state if key.endswith(f".{last}")):
        if all(prefix + key in state for key in wanted if not key.endswith(COUNTER)):
            others = [key for key in state if not key.startswith(prefix)]
            return (
                f"\n  its names begin with {prefix!r}, but not all do: {', '.join(others[:3])}; "
                "save those alone"
            )
    return ""


def _held(content: Any) -> str:
    if isinstance(content, dict) and content:
        keys = [str(key) for key in content]
        return f"the keys {', '.join(keys[:LISTED])}" + (", ..." if len(keys) > LISTED else "")
    return f"a {type(content).__name__}" + (" of nothing" if content == {} else "")


def _listed(problems: list[str]) -> str:
    more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "\n".join(f"  {line}" for line in problems[:LISTED] + more)
