"""How often a chosen policy keeps its promise on new data, and what the promise costs in time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np
import pyarrow as pa

from offramp import markdown
from offramp.calibration import CalibrationData, evaluate, loss, targets_of, thresholds_for
from offramp.intervals import interval
from offramp.joint import costs_of
from offramp.optimism import optimism
from offramp.progress import progress
from offramp.selection import Candidate, candidate_on, families, fastest_within_loss
from offramp.tables import PROMISE
from offramp.thresholds import Thresholds
from offramp.timemodel import TimeModel

DRAWS = 200
SEED = 42
# Whose candidates a policy is chosen from, by the names of `families`.
CHOICES = {
    "shared cutoffs": ("cutoff",),
    "calibrated on train": ("train",),
    "calibrated on the draw": ("val",),
    "all of these": ("cutoff", "train", "val"),
}


class Setting(NamedTuple):
    """What all draws share: the data of the ``pool``, of which each takes as many ``samples`` as a
    run chooses from, the candidates that no draw changes, the config's sections ``calibration`` and
    ``selection``, and what predicts time."""

    pool: CalibrationData
    samples: int
    fixed: Sequence[Candidate]
    calibration: Mapping[str, Any]
    selection: Mapping[str, Any]
    model: TimeModel
    batch_size: int


def promise(setting: Setting, draws: int = DRAWS) -> pa.Table:
    """Draw validation data from the pool with replacement, choose policies on them, judge these on
    the whole pool: a table of schema PROMISE, one row per entry of CHOICES and way to choose.

    ``promised`` is `fastest_within_loss` as the pipeline calls it; the other way takes the fastest
    that loses at most ``max_loss`` on the draw.
    """
    jobs = (joblib.delayed(outcomes)(setting, number) for number in range(draws))
    # A process for every core; threads of their own would only wait for each other.
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        stream = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator")(jobs)
        found = [next(stream) for _ in progress(range(draws), "choices on new data", "draw")]
    rows = []
    for choice, promised in found[0]:
        losses, speedups = np.array([outcome[choice, promised] for outcome in found]).T
        broken = int((losses > setting.selection["max_loss"] + 1e-12).sum())
        low, high = interval(broken, draws)
        rows.append(
            {"choice": choice, "promised": promised, "confidence": setting.selection["confidence"]}
            | {"max_loss": setting.selection["max_loss"], "samples": setting.samples}
            | {"draws": draws, "broken": broken}
            | {"share": broken / draws, "share_low": low, "share_high": high}
            | {"loss": float(np.median(losses)), "speedup": float(np.median(speedups))}
        )
    return pa.Table.from_pylist(rows, schema=PROMISE)


def outcomes(setting: Setting, number: int) -> dict[tuple[str, bool], tuple[float, float]]:
    """What the policies chosen on one draw lose on the pool (a share of all samples), and their
    speed-up over the full network there, by choice and by whether a loss was promised."""
    random = np.random.default_rng([SEED, number])
    rows = random.integers(len(setting.pool.scores), size=setting.samples)
    known = families(candidates_on(setting, setting.pool.sample(rows)))
    judged = {}
    for choice, names in CHOICES.items():
        candidates = [c for name in names for c in known.get(name, [])]
        most = setting.selection["max_loss"]
        sure = fastest_within_loss(candidates, most, setting.selection["confidence"])
        for promised, chosen in ((False, _fastest_on_the_draw(candidates, most)), (True, sure)):
            judged[choice, promised] = _judge(setting, chosen)
    return judged


def candidates_on(setting: Setting, drawn: CalibrationData) -> list[Candidate]:
    """The fixed candidates and those calibrated on a draw, with their figures there."""
    like = setting.fixed[0].policy
    targets = targets_of(setting.calibration)
    costs = costs_of(setting.model, setting.batch_size, like.criterion)
    asked = setting.calibration, drawn, targets, costs
    made: list[tuple] = [(c.policy, c.origin) for c in setting.fixed]
    for thresholds, more in zip(thresholds_for(*asked), optimism(*asked), strict=True):
        policy = like._replace(thresholds=thresholds)
        made.append((policy, {"calibrated_on": "val"}, float(more)))
    clock = setting.model, setting.batch_size
    return [
        candidate_on(drawn.scores, drawn.correct, policy, *clock, *rest) for policy, *rest in made
    ]


def _fastest_on_the_draw(candidates: Sequence[Candidate], max_loss: float) -> Candidate | None:
    within = [c for c in candidates if c.lost - c.gained <= max_loss * c.n]
    return min(within, key=lambda c: c.seconds, default=None)


def _judge(setting: Setting, chosen: Candidate | None) -> tuple[float, float]:
    """Loss and speed-up on the pool; of the full network where nothing was chosen."""
    data = setting.pool.scores, setting.pool.correct
    nobody: Thresholds = (None,) * (data[0].shape[1] - 1)
    policy = chosen.policy if chosen else setting.fixed[0].policy._replace(thresholds=nobody)
    speedup = evaluate(*data, policy, setting.model, setting.batch_size)["speedup"]
    return loss(*data, policy.thresholds), float(speedup)


def page(table: pa.Table, origin: Mapping[str, str]) -> str:
    """The table for a reader."""
    rows = table.to_pylist()
    draws, most, sure = (rows[0][key] for key in ("draws", "max_loss", "confidence"))
    lines = []
    for choice in CHOICES:
        cells = [_cell(row) for row in rows if row["choice"] == choice]
        lines.append([choice, *cells])
    header = ["chosen from", "fastest that keeps it on the draw", "promised"]
    return (
        f"# Does the chosen policy of {origin['model']} keep its promise?\n\n"
        f"Share of {draws} choices that lose more than {100 * most:g} points on new data, with its "
        f"95 % interval; median loss in points and speed-up, predicted. Each choice is made on "
        f"{rows[0]['samples']} samples drawn from the validation and test data together and judged "
        f"on all of these. Promised with {100 * sure:g} % confidence: at most "
        f"{100 * (1 - sure):.3g} % may lose more.\n\n" + markdown.table(header, lines) + "\n"
    )


def _cell(row: Mapping[str, Any]) -> str:
    share, low, high = (100 * row[f"share{end}"] for end in ("", "_low", "_high"))
    shown = f"{share:.1f} % [{low:.1f}, {high:.1f}]"
    return f"{shown}; {100 * row['loss']:.2f} lost, {row['speedup']:.2f}x"
