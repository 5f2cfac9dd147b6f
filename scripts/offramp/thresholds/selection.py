"""Named rules that choose one policy out of many, always from validation data."""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from offramp.common.intervals import accuracy_bound, drop_bound
from offramp.scoring.policy import Policy, exits_of, shared_cutoff
from offramp.scoring.scores import Decided, fitting_part
from offramp.thresholds.evaluation import evaluate
from offramp.thresholds.time_model import TimeModel

SAME_TIME = 1e-9  # as a share: sums of the same seconds in another order differ by less


class Candidate(NamedTuple):
    """A policy and its figures on validation samples that did not fit it: seconds, correct of n
    (counted, or expected), how many of those that the full network has right it has wrong
    (``lost``) and the reverse (``gained``); both together on the validation samples that did
    fit it (``changed``); and its predicted ``speedup`` over the full network."""

    policy: Policy
    origin: dict[str, Any]
    seconds: float
    correct: float
    n: int
    lost: int = 0
    gained: int = 0
    changed: int = 0
    speedup: float = np.inf

    @property
    def accuracy(self) -> float:
        """Overall accuracy on these samples."""
        return self.correct / self.n


class ValidationScores(NamedTuple):
    """The validation split's scores table, which lies behind the candidates: ``scores`` float64
    (N, K), ``correct`` bool (N, K), and what is ``decided`` by these (`decided_by`)."""

    scores: np.ndarray
    correct: np.ndarray
    decided: Decided


def choose_policies(
    sweep: pa.Table,
    calibration: pa.Table,
    optimism: pa.Table,
    validation: ValidationScores,
    report_cutoff: float,
    target: float,
    selection: Mapping[str, Any],
) -> dict[str, tuple[Policy, dict]]:
    """The chosen policies by name, each with where it came from and what to expect of it.

    ``report_cutoff`` and ``target`` are given, the others chosen by ``selection["rule"]`` from
    their figures on validation samples that did not fit them. When no candidate satisfies the rule,
    all exits are disabled and ``satisfied`` is false.
    """
    scores, correct, decided = validation
    shared = [judged(c, scores, correct) for c in shared_candidates(sweep, decided)]
    fitted = [judged(c, scores, correct) for c in calibrated_candidates(calibration, decided)]
    by_family = families(shared + fitted)
    report = next(c for c in shared if c.origin["cutoff"] == report_cutoff)
    drop = drop_bound(report.lost, report.gained, report.n, selection["confidence"])
    on_val = next(c for c in by_family["val"] if c.origin["target"] == target)
    optimism_at = {row["target"]: max(0.0, row["optimism"]) for row in optimism.to_pylist()}
    policies = {
        "report_cutoff": _describe(report, {}, drop_at_most=drop),
        "target": _describe(on_val, {}, optimism=optimism_at[target]),
    }
    untouched = [c for c in fitted if c.origin["calibrated_on"] != "val"]
    for name, candidates in (
        ("best_cutoff", shared),
        # Without a train split, what is calibrated on half of val stands in for it.
        ("best_train", by_family.get("train") or by_family.get("val_half", [])),
        ("best", shared + untouched),
    ):
        policies[name] = _choose(candidates, shared[0].policy, selection)
    return policies


def _choose(
    candidates: Sequence[Candidate], like: Policy, selection: Mapping[str, Any]
) -> tuple[Policy, dict]:
    """The policy that the rule takes of the candidates, or one like ``like`` with all exits
    disabled; and what is said of it. ``drop_at_most`` holds for all candidates at once."""
    rule, limits = selection["rule"], {k: v for k, v in selection.items() if k != "rule"}
    best = RULES[rule](candidates, **limits)
    why = {"rule": rule, "chosen_on": "val", "of": len(candidates), **limits}
    if best is None:
        nobody = like._replace(thresholds=(None,) * len(like.thresholds))
        return nobody, {"origin": None, "selection": why | {"satisfied": False}}
    each = 1 - (1 - selection["confidence"]) / len(candidates)
    return _describe(best, why | {"satisfied": True}, drop_at_most=drop_at_most(best, each))


def _describe(
    candidate: Candidate, selection: dict[str, Any], optimism: float = 0.0, **about: float
) -> tuple[Policy, dict]:
    return candidate.policy, {
        "origin": candidate.origin,
        "selection": selection,
        "expected": {
            "split": "val",
            "n": candidate.n,
            "lost": candidate.lost,
            "gained": candidate.gained,
            "accuracy": candidate.accuracy - optimism,
            "optimism": optimism,
            "seconds": candidate.seconds,
            **about,
        },
    }


def shared_candidates(sweep: pa.Table, decided: Decided) -> list[Candidate]:
    """Every cutoff of a sweep, with its figures on the validation split; ``decided`` is the
    `decided_by` of its scores."""
    rows = [row for row in sweep.to_pylist() if row["split"] == "val" and row["exit"] == 0]
    side_exits = max(sweep["exit"].to_pylist()) - 1
    return [
        Candidate(
            shared_cutoff(row["cutoff"], side_exits, *decided),
            {"cutoff": row["cutoff"]},
            row["seconds"],
            row["correct"],
            row["n"],
            speedup=row["speedup"],
        )
        for row in rows
    ]


def calibrated_candidates(calibration: pa.Table, decided: Decided) -> list[Candidate]:
    """Every calibrated set of thresholds, with its figures on the whole validation split;
    ``decided`` is the `decided_by` of its scores."""
    rows_by_policy: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in calibration.to_pylist():
        if row["split"] == "val":
            rows_by_policy.setdefault((row["calibrated_on"], row["target"]), []).append(row)
    candidates = []
    for rows in rows_by_policy.values():
        overall, *side_exits, _ = sorted(rows, key=lambda row: row["exit"])
        thresholds = tuple(row["threshold"] for row in side_exits)
        policy = Policy(decided.criterion, thresholds, decided.temperatures, decided.weights)
        origin = {key: overall[key] for key in ("calibrated_on", "target", "method")}
        figures = overall["seconds"], overall["correct"], overall["n"]
        candidates.append(Candidate(policy, origin, *figures, speedup=overall["speedup"]))
    return candidates


def candidate_on(
    scores: np.ndarray,
    correct: np.ndarray,
    policy: Policy,
    model: TimeModel,
    origin: dict[str, Any],
) -> Candidate:
    """A policy with all its figures on validation data, scores float64 (N, K) and correct bool
    (N, K)."""
    result = evaluate(scores, correct, policy, model)
    figures = float(result["seconds"][0]), 0, len(correct)
    speedup = float(result["speedup"])
    return judged(Candidate(policy, origin, *figures, speedup=speedup), scores, correct)


def judged(candidate: Candidate, scores: np.ndarray, correct: np.ndarray) -> Candidate:
    """The candidate with what it has right, loses and gains against the full network on those
    samples of the validation split, ``scores`` float64 (N, K) and ``correct`` bool (N, K), that did
    not fit it: all, or the second half where the first did."""
    taken = exits_of(scores, candidate.policy.thresholds)
    right, full = correct[np.arange(len(correct)), taken - 1], correct[:, -1]
    lost, gained = full & ~right, right & ~full
    on_half = candidate.origin.get("calibrated_on") == "val_half"
    fitted = fitting_part(len(scores)) if on_half else 0
    return candidate._replace(
        correct=int(right[fitted:].sum()),
        n=len(right) - fitted,
        lost=int(lost[fitted:].sum()),
        gained=int(gained[fitted:].sum()),
        changed=int((lost | gained)[:fitted].sum()),
    )


def fastest_within_drop(
    candidates: Sequence[Candidate], max_drop: float, confidence: float, **_: float
) -> Candidate | None:
    """The fastest that with ``confidence`` loses at most ``max_drop`` (a fraction) against the full
    network on new data; see `_surely`."""
    return _surely(candidates, lambda c, sure: drop_at_most(c, sure) <= max_drop, confidence)


def drop_at_most(candidate: Candidate, confidence: float) -> float:
    """The most that a candidate, taken by itself, loses on new data with a one-sided
    ``confidence``. With all exits disabled it is the full network: 0."""
    if all(t is None for t in candidate.policy.thresholds):
        return 0.0
    return drop_bound(candidate.lost, candidate.gained, candidate.n, confidence)


def fastest_above_accuracy(
    candidates: Sequence[Candidate], min_accuracy: float, confidence: float, **_: float
) -> Candidate | None:
    """The fastest whose accuracy on new data is with ``confidence`` at least ``min_accuracy``; see
    `_surely`."""
    return _surely(
        candidates,
        lambda c, sure: accuracy_bound(c.correct, c.n, sure) >= min_accuracy,
        confidence,
    )


def _surely(
    candidates: Sequence[Candidate],
    passes: Callable[[Candidate, float], bool],
    confidence: float,
) -> Candidate | None:
    """The fastest that passes with a confidence that holds however many candidates are tried.

    The fastest of many that pass each by itself is the luckiest. So each family (shared cutoffs,
    thresholds calibrated on train, on half of val) is tested in an order that no tested sample has
    a say in (`caution`), up to the first that fails, and the families share the error. What is sure
    of the one chosen is what was tested, not more.
    Source: fixed-sequence testing in Angelopoulos et al., "Learn then Test" (2021).
    """
    each = confidence_each(candidates, confidence)
    passed: list[Candidate] = []
    for family in families(candidates).values():
        passed += takewhile(lambda c: passes(c, each), sorted(family, key=caution))
    return _if_faster(min(passed, key=lambda c: (c.seconds, -c.accuracy), default=None))


def _if_faster(best: Candidate | None) -> Candidate | None:
    """The one that a rule takes, unless the full network is as fast. Asked after the choice, so
    that the tested samples' seconds have no say in the order of tests."""
    return best if best and best.speedup > 1 + SAME_TIME else None


def caution(candidate: Candidate) -> tuple[float, float]:
    """Where a candidate stands in its family, the most cautious first: small cutoffs; thresholds
    that changed few answers on the half of val that fitted them; high targets. The highest are not
    always the most cautious: one above the full network's accuracy is met by luck."""
    origin = candidate.origin
    return candidate.changed, origin["cutoff"] if "cutoff" in origin else -origin["target"]


def confidence_each(candidates: Sequence[Candidate], confidence: float) -> float:
    """The confidence of every family's test, so that all together have ``confidence``."""
    return 1 - (1 - confidence) / max(1, len(families(candidates)))


def families(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Candidates by where they come from: `cutoff`, or what they were calibrated on."""
    by_origin: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_origin.setdefault(candidate.origin.get("calibrated_on", "cutoff"), []).append(candidate)
    return by_origin


def best_accuracy_per_second(candidates: Sequence[Candidate], **_: float) -> Candidate | None:
    """The one with the most accuracy per second."""
    return _if_faster(max(candidates, key=lambda c: c.accuracy / c.seconds, default=None))


def knee(candidates: Sequence[Candidate], **_: float) -> Candidate | None:
    """The knee of the frontier of time against accuracy; None when the frontier has none.

    Source: Satopaa et al., "Finding a 'Kneedle' in a Haystack" (2011), as in the package kneed.
    """
    from kneed import KneeLocator  # heavy to import, and wanted by this rule alone

    frontier = pareto_frontier(candidates)
    if len(frontier) < 3:
        return None
    seconds = np.array([c.seconds for c in frontier])
    accuracy = np.array([c.accuracy for c in frontier])
    bend = KneeLocator(seconds, accuracy, curve="concave", direction="increasing").knee
    return None if bend is None else _if_faster(frontier[int(np.abs(seconds - bend).argmin())])


def pareto_frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those to whom no other is both as fast and more accurate, from fast to slow."""
    frontier: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: (c.seconds, -c.accuracy)):
        if not frontier or candidate.accuracy > frontier[-1].accuracy:
            frontier.append(candidate)
    return frontier


# Each takes none that is no faster than the full network.
RULES: dict[str, Callable[..., Candidate | None]] = {
    "fastest_within_drop": fastest_within_drop,
    "fastest_above_accuracy": fastest_above_accuracy,
    "best_accuracy_per_second": best_accuracy_per_second,
    "knee": knee,
}
