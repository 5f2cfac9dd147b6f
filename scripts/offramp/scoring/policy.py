"""Policies: everything needed to decide who leaves where, as a value and as a JSON file."""

import json
import reprlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp import OfframpError
from offramp.common.files import check_is_file, write_text
from offramp.networks.identity import Identity
from offramp.scoring.criteria import CRITERIA, FEATURES, Weights, scores_of

SCHEMA = {"schema": "policy", "schema_version": 1}
LARGEST = 64 * 2**20  # bytes of a policy file


class Policy(NamedTuple):
    """A criterion with one threshold per side exit.

    ``thresholds`` has K-1 entries; None is a disabled exit, which never fires. ``temperatures``
    divide the logits of each side exit before the criterion; None means raw logits. ``weights``
    are those of a fitted criterion, a row per side exit; None for any other. ``network`` is the one
    that the thresholds were chosen for; None where that is not known, as in files of 0.1.0.
    """

    criterion: str
    thresholds: tuple[float | None, ...]
    temperatures: tuple[float, ...] | None = None
    weights: Weights | None = None
    network: Identity | None = None

    @property
    def runs(self) -> np.ndarray:
        """bool (2, K): at which exits the head runs, and at which it is decided who leaves: those
        enabled and the final one."""
        enabled = np.array([t is not None for t in self.thresholds], dtype=bool)
        heads = heads_run(enabled, CRITERIA[self.criterion].looks_back)
        return np.stack([heads, np.append(enabled, True)])


def heads_run(enabled: np.ndarray, looks_back: bool) -> np.ndarray:
    """The exits whose heads run, bool (K,): the side exits enabled, bool (K-1,), the final one, and
    under a criterion that looks back all before the last enabled side exit."""
    if looks_back:
        enabled = np.logical_or.accumulate(enabled[::-1])[::-1]
    return np.append(enabled, True)


def shared_cutoff(
    cutoff: float,
    side_exits: int,
    criterion: str = "entropy",
    temperatures: tuple[float, ...] | None = None,
    weights: Weights | None = None,
) -> Policy:
    """The policy that uses one cutoff at every side exit."""
    return Policy(criterion, (float(cutoff),) * side_exits, temperatures, weights)


def exits_of(scores: np.ndarray, thresholds: tuple[float | None, ...]) -> np.ndarray:
    """The exit, 1..K, at which each sample leaves: the first k with score <= threshold, else K.

    ``scores`` is (N, K) or (N, K-1), float64; a sample that ties with the threshold leaves.
    """
    taken = np.full(len(scores), len(thresholds) + 1)
    for k in range(len(thresholds), 0, -1):  # the first that fires is written last
        if (threshold := thresholds[k - 1]) is not None:
            taken[scores[:, k - 1] <= threshold] = k
    return taken


def policy_scores(policy: Policy, logits: np.ndarray) -> np.ndarray:
    """Scores float64 (N, K-1) of raw ``logits`` float32 (N, K, C) under the policy's criterion,
    temperatures and weights."""
    side = logits[:, : len(policy.thresholds)]
    return scores_of(policy.criterion, side, policy.temperatures, policy.weights)


class Outcome(NamedTuple):
    """Where each sample left and what it was called, int64 (N,) each."""

    exits: np.ndarray
    labels: np.ndarray


def outcome_of_tables(policy: Policy, logits: np.ndarray) -> Outcome:
    """What the tables say of a policy, from ``logits`` float32 (N, K, C)."""
    exits = exits_of(policy_scores(policy, logits), policy.thresholds)
    return Outcome(exits, logits[np.arange(len(logits)), exits - 1].argmax(axis=1))


def save_policy(path: str | Path, policy: Policy, **about: Any) -> None:
    """Write the policy as JSON; ``about`` says where it came from and what to expect of it.

    Raises OfframpError for thresholds, temperatures or weights that are not finite, which no reader
    would take.
    """
    numbers = [*policy.thresholds, *(policy.temperatures or ()), *sum(policy.weights or (), ())]
    if not all(value is None or _finite(value) for value in numbers):
        raise OfframpError(f"{path}: want finite thresholds, temperatures and weights: {policy}")
    fields = policy._asdict() | {"network": policy.network and policy.network._asdict()}
    write_text(path, json.dumps({**SCHEMA, **fields, **about}, indent=2) + "\n")


def load_policy(path: str | Path) -> Policy:
    """Read a policy file, checking every field.

    Raises OfframpError, naming file and field, when the file is not a policy that can be run.
    """
    return load_policy_and_origin(path)[0]


def load_policy_and_origin(path: str | Path) -> tuple[Policy, dict[str, Any]]:
    """A policy, checked as `load_policy` does, and all that its file says of it."""
    content = _read_content(path)
    policy = Policy(
        _read_criterion(path, content),
        thresholds := _read_thresholds(path, content),
        _read_temperatures(path, content, len(thresholds)),
        _read_weights(path, content, len(thresholds)),
        _read_network(path, content),
    )
    return policy, content


def load_policy_for(path: str | Path, exits: int, classes: int, network: Identity | None) -> Policy:
    """Read a policy file that is to decide for a ``network`` with K ``exits`` and C ``classes``.

    Raises OfframpError when the file is not a policy, or one for another network.
    """
    policy = load_policy(path)
    check_fits(path, policy, exits, classes)
    check_network(path, policy, network)
    return policy


def check_fits(what: str | Path, policy: Policy, exits: int, classes: int) -> None:
    """Raise OfframpError where a policy, ``what``, is not one for K ``exits`` and C ``classes``."""
    side = exits - 1
    for field in ("thresholds", "temperatures", "weights"):
        numbers = getattr(policy, field)
        if numbers is not None and len(numbers) != side:
            raise OfframpError(f"{what}: {len(numbers)} {field} for {side} side exits")
    other_classes = {len(row) - FEATURES for row in policy.weights or ()} - {classes}
    if other_classes:
        raise OfframpError(f"{what}: weights: of {other_classes.pop()} classes, not of {classes}")


def check_network(what: str | Path, policy: Policy, network: Identity | None) -> None:
    """Raise OfframpError where a policy, ``what``, was chosen for another network. A policy of
    0.1.0 does not say for which, and a network that was not loaded has no identity."""
    chosen_for = policy.network
    if chosen_for and network and chosen_for.weights_sha256 != network.weights_sha256:
        expected, given = (
            f"{each.name} with {each.weights} (sha256 {each.weights_sha256[:12]})"
            for each in (chosen_for, network)
        )
        raise OfframpError(
            f"{what}: network: chosen for {expected}, not for {given}; rerun the rule policies for "
            "this network"
        )


def _read_content(path: str | Path) -> dict[str, Any]:
    check_is_file(path)
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise OfframpError(f"{path}: not a policy: more than {LARGEST // 2**20} MiB")
        content = json.loads(text.decode(), object_pairs_hook=_no_key_twice)
    except RecursionError:
        raise OfframpError(f"{path}: not a readable policy file (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise OfframpError(f"{path}: not a readable policy file ({error})") from None
    if not isinstance(content, dict) or any(
        type(content.get(key)) is not type(value) or content[key] != value
        for key, value in SCHEMA.items()
    ):
        raise OfframpError(f"{path}: not a policy of schema version 1")
    return content


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is written twice")
    return mapping


def _read_criterion(path: str | Path, content: dict[str, Any]) -> str:
    criterion = content.get("criterion")
    if criterion not in list(CRITERIA):
        raise OfframpError(f"{path}: criterion: {_brief(criterion)} is none of {sorted(CRITERIA)}")
    return criterion


def _read_thresholds(path: str | Path, content: dict[str, Any]) -> tuple[float | None, ...]:
    thresholds = content.get("thresholds")
    if not isinstance(thresholds, list) or not all(t is None or _finite(t) for t in thresholds):
        raise OfframpError(
            f"{path}: thresholds: want a list of finite numbers or nulls, not {_brief(thresholds)}"
        )
    return tuple(thresholds)


def _read_temperatures(
    path: str | Path, content: dict[str, Any], side: int
) -> tuple[float, ...] | None:
    if "temperatures" not in content:
        raise OfframpError(f"{path}: temperatures: missing; want null or {side} positive numbers")
    temperatures = content["temperatures"]
    if temperatures is None:
        return None
    if (
        not isinstance(temperatures, list)
        or len(temperatures) != side
        or not all(_finite(t) and t > 0 for t in temperatures)
    ):
        raise OfframpError(
            f"{path}: temperatures: want null or {side} positive numbers, not "
            f"{_brief(temperatures)}"
        )
    return tuple(temperatures)


def _read_weights(path: str | Path, content: dict[str, Any], side: int) -> Weights | None:
    criterion, weights = content["criterion"], content.get("weights")
    if not CRITERIA[criterion].fitted:
        if weights is not None:
            raise OfframpError(f"{path}: weights: {criterion} has none")
        return None
    rows = weights if isinstance(weights, list) else []
    fits = [
        isinstance(row, list) and all(map(_finite, row)) and len(row) > FEATURES for row in rows
    ]
    if len(rows) != side or not all(fits) or len(set(map(len, rows))) > 1:
        raise OfframpError(
            f"{path}: weights: want {side} lists of {FEATURES} numbers and one per class"
        )
    return tuple(map(tuple, rows))


def _read_network(path: str | Path, content: dict[str, Any]) -> Identity | None:
    network = content.get("network")
    if network is None:
        return None
    fields = Identity._fields[:3]
    if not isinstance(network, dict) or not all(isinstance(network.get(k), str) for k in fields):
        raise OfframpError(
            f"{path}: network: want null or {', '.join(fields)}, not {_brief(network)}"
        )
    options = network.get("options")
    if options is not None and not isinstance(options, dict):
        raise OfframpError(
            f"{path}: network.options: want null or a mapping, not {_brief(options)}"
        )
    return Identity(network["name"], network["weights"], network["weights_sha256"], options)


def _brief(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
