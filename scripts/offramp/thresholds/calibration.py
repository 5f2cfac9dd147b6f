"""Per-exit thresholds for a wanted accuracy, by one of three methods: `empirical` (here, on the
survivors of `survivors.py`), `guaranteed` (`guarantee.py`) and `joint` (here, from the frontier of
`joint.py`)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from offramp.scoring.policy import Policy
from offramp.scoring.pool import expected_correct
from offramp.scoring.scores import fitting_part
from offramp.thresholds.evaluation import evaluate, evaluation_rows
from offramp.thresholds.guarantee import calibrate_guaranteed
from offramp.thresholds.joint import ROUNDING, Costs, costs_of, joint_frontier
from offramp.thresholds.survivors import Passes, Thresholds, largest_thresholds
from offramp.thresholds.time_model import TimeModel


class CalibrationData(NamedTuple):
    """What thresholds are fitted to: ``scores`` float64 (N, K), ``correct`` bool (N, K), and for
    data on which the network was not trained ``logits`` (N, K, C) and ``label`` int64 (N,).

    `joint` takes from these how right each answer is to be expected; without them it goes by single
    labels. On training data, whose labels the exits know, the pool of all exits brought nothing.
    """

    scores: np.ndarray
    correct: np.ndarray
    logits: np.ndarray | None = None
    label: np.ndarray | None = None

    def sample(self, rows: np.ndarray) -> "CalibrationData":
        """The data of these rows."""
        logits = None if self.logits is None else self.logits[rows]
        label = None if self.label is None else self.label[rows]
        return CalibrationData(self.scores[rows], self.correct[rows], logits, label)


def thresholds_for(
    settings: Mapping[str, Any], data: CalibrationData, targets: Sequence[float], costs: Costs
) -> list[Thresholds]:
    """Thresholds for every target by ``settings["method"]``: `empirical` wants it at every exit on
    these data, `guaranteed` at every exit on new data with ``settings["confidence"]``, `joint` over
    all exits together."""
    if settings["method"] == "joint":
        return calibrate_jointly(data, targets, costs)
    scores, correct = data.scores, data.correct
    if settings["method"] == "guaranteed":
        confidence = settings["confidence"]
        return [calibrate_guaranteed(scores, correct, target, confidence) for target in targets]
    return [calibrate_empirical(scores, correct, target) for target in targets]


def calibrate_empirical(scores: np.ndarray, correct: np.ndarray, target: float) -> Thresholds:
    """Thresholds of the K-1 side exits, so that on these data every exit's leaving samples are at
    least as accurate as the target; None disables an exit.

    Parameters: ``scores`` float64 (N, K), ``correct`` bool (N, K).
    """
    return largest_thresholds(scores, correct, at_least(target))


def at_least(target: float) -> Passes:
    """Passes where the share of the right ones is at least the target."""
    return lambda right, n: right / n >= target


def calibrate_jointly(
    data: CalibrationData, targets: Sequence[float], costs: Costs
) -> list[Thresholds]:
    """For each target, the thresholds of least cost found at which that share of all is expected to
    be right.

    Every exit is disabled where no thresholds found reach the target.
    """
    samples, exits = data.scores.shape
    nobody = (None,) * (exits - 1)
    if not samples:
        return [nobody] * len(targets)
    levels = np.array(targets) * samples
    frontier = joint_frontier(data.scores, expected_of(data), costs, np.unique(levels))
    places = np.searchsorted(frontier.correct, levels - ROUNDING, side="left")
    return [frontier.thresholds(i) if i < len(frontier.cost) else nobody for i in places]


def expected_of(data: CalibrationData) -> np.ndarray:
    """How right `joint` takes each answer to be, (N, K)."""
    if data.logits is None or data.label is None:
        return data.correct
    return expected_correct(data.logits, data.label)


def calibration_rows(
    calibrated_on: str,
    method: str,
    target: float,
    thresholds: Thresholds,
    split: str,
    result: dict[str, Any],
) -> dict[str, list]:
    """The rows of `calibration.parquet` for one policy on one split: exits 0 (overall) to K."""
    exits = len(result["n"])
    return {
        "calibrated_on": [calibrated_on] * exits,
        "method": [method] * exits,
        "target": [target] * exits,
        "threshold": [None, *thresholds, None],
        "split": [split] * exits,
        **evaluation_rows(result),
    }


def calibrate_all(
    splits: Mapping[str, CalibrationData],
    criterion: str,
    settings: Mapping[str, Any],
    model: TimeModel,
) -> dict[str, list]:
    """The rows of `calibration.parquet`: every target, calibrated on train (if any), val and val's
    first half (`val_half`, whose second half then tests), and looked at on every split.

    Parameters: ``splits`` gives the data by split; ``settings`` has method, confidence, target and
    targets.
    """
    rows: dict[str, list] = {}
    targets = targets_of(settings)
    costs = costs_of(model, criterion)
    half = splits["val"].sample(np.arange(fitting_part(len(splits["val"].scores))))
    fitted_to = {"val": splits["val"], "val_half": half}
    if "train" in splits:
        fitted_to = {"train": splits["train"], **fitted_to}
    for calibrated_on, fitting_data in fitted_to.items():
        method = settings["method"]
        if calibrated_on == "train" and method == "guaranteed":
            method = "empirical"  # what the network was trained on guarantees nothing
        fitted = thresholds_for({**settings, "method": method}, fitting_data, targets, costs)
        for target, thresholds in zip(targets, fitted, strict=True):
            for split, data in splits.items():
                policy = Policy(criterion, thresholds)
                result = evaluate(data.scores, data.correct, policy, model)
                table = calibration_rows(calibrated_on, method, target, thresholds, split, result)
                for column, values in table.items():
                    rows.setdefault(column, []).extend(values)
    return rows


def targets_of(settings: Mapping[str, Any]) -> list[float]:
    """Every wanted accuracy in the config's section ``calibration``, ascending."""
    return sorted({settings["target"], *settings["targets"]})
