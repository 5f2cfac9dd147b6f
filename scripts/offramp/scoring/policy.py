"""Policies: everything needed to decide who leaves where, as a value and as a JSON file."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offramp import OfframpError
from offramp.scoring.criteria import CRITERIA, FEATURES, Weights, scores_of

SCHEMA = {"schema": "policy", "schema_version": 1}


class Policy(NamedTuple):
    """A criterion with one threshold per side exit.

    ``thresholds`` has K-1 entries; None is a disabled exit, which never fires. ``temperatures``
    divide the logits of each side exit before the criterion; None means raw logits. ``weights``
    are those of a fitted criterion, a row per side exit; None for any other.
    """

    criterion: str
    thresholds: tuple[float | None, ...]
    temperatures: tuple[float, ...] | None = None
    weights: Weights | None = None

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
    known = [*policy.thresholds, *(policy.temperatures or ()), *sum(policy.weights or (), ())]
    if not all(value is None or _finite(value) for value in known):
        raise OfframpError(f"{path}: want finite thresholds, temperatures and weights: {policy}")
    text = json.dumps({**SCHEMA, **policy._asdict(), **about}, indent=2) + "\n"
    temporary = Path(f"{path}.part")
    temporary.write_text(text)
    temporary.replace(path)


def load_policy(path: str | Path) -> Policy:
    """Read a policy file, checking every field.

    Raises OfframpError, naming file and field, when the file is not a policy that can be run.
    """
    try:
        found = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise OfframpError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise OfframpError(f"{path}: not a readable policy file ({error})") from None
    if not isinstance(found, dict) or {k: found.get(k) for k in SCHEMA} != SCHEMA:
        raise OfframpError(f"{path}: not a policy of schema version 1")
    if found.get("criterion") not in list(CRITERIA):
        raise OfframpError(
            f"{path}: criterion: {found.get('criterion')!r} is none of {sorted(CRITERIA)}"
        )
    thresholds = found.get("thresholds")
    if not isinstance(thresholds, list) or not all(t is None or _finite(t) for t in thresholds):
        raise OfframpError(f"{path}: thresholds: want a list of finite numbers or nulls")
    temperatures = found.get("temperatures")
    if temperatures is not None and not (
        isinstance(temperatures, list)
        and len(temperatures) == len(thresholds)
        and all(_finite(t) and t > 0 for t in temperatures)
    ):
        raise OfframpError(f"{path}: temperatures: want null or {len(thresholds)} positive numbers")
    return Policy(
        found["criterion"],
        tuple(thresholds),
        None if temperatures is None else tuple(temperatures),
        _checked_weights(path, found),
    )


def _checked_weights(path: str | Path, found: dict[str, Any]) -> Weights | None:
    criterion, weights = found["criterion"], found.get("weights")
    if not CRITERIA[criterion].fitted:
        if weights is not None:
            raise OfframpError(f"{path}: weights: {criterion} has none")
        return None
    rows, exits = weights if isinstance(weights, list) else [], len(found["thresholds"])
    fits = [
        isinstance(row, list) and all(map(_finite, row)) and len(row) > FEATURES for row in rows
    ]
    if len(rows) != exits or not all(fits) or len(set(map(len, rows))) > 1:
        raise OfframpError(
            f"{path}: weights: want {exits} lists of {FEATURES} numbers and one per class"
        )
    return tuple(map(tuple, rows))


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
