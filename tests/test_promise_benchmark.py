"""The benchmark of the promise: its choices and its truth against a slow recount."""

import numpy as np
import pytest
from conftest import hand_made_model, slow_exit, slow_stage_seconds

from offramp import promise_benchmark
from offramp.calibration import CalibrationData, thresholds_for
from offramp.intervals import largest_loss
from offramp.joint import costs_of
from offramp.optimism import optimism
from offramp.policy import Policy, shared_cutoff
from offramp.promise_benchmark import SEED, Setting, page, promise
from offramp.selection import Candidate

EXITS, BATCH, N, DRAWN = 3, 32, 500, 300
CALIBRATION = {"method": "empirical", "target": 0.9, "targets": [0.8, 0.95]}
SELECTION = {"max_loss": 0.02, "confidence": 0.9}


@pytest.fixture(scope="module")
def setting():
    draw = np.random.default_rng(0)
    hard = draw.random(N)
    scores = np.clip(hard[:, None] + draw.normal(0, 0.1, (N, EXITS)), 0, None)
    right = draw.random((N, EXITS)) < 1 - hard[:, None] * [0.5, 0.35, 0.3]
    label = draw.integers(0, 4, N)
    answers = np.where(right, label[:, None], (label[:, None] + 1) % 4)
    logits = np.eye(4)[answers] / (0.2 + scores[..., None])
    fixed = [
        Candidate(shared_cutoff(c, EXITS - 1), {"cutoff": c}, 0.0, 0, 1)
        for c in np.linspace(0, 1, 11).tolist()
    ]
    trained = Policy("entropy", (0.3, 0.4))
    fixed.append(Candidate(trained, {"calibrated_on": "train"}, 0.0, 0, 1))
    model = hand_made_model(EXITS, BATCH)
    model.parts[0] *= 1_000  # blocks dear, heads cheap: leaving early pays
    pool = CalibrationData(scores, right, logits, label)
    return Setting(pool, DRAWN, fixed, CALIBRATION, SELECTION, model, BATCH)


def slow(setting, thresholds, rows):
    """Those who were right and are not, those who are right only now, and seconds."""
    taken = [slow_exit(row, thresholds) for row in setting.pool.scores[rows].tolist()]
    lost = gained = 0
    for i, exit_ in zip(rows, taken, strict=True):
        before, now = setting.pool.correct[i, -1], setting.pool.correct[i, exit_ - 1]
        lost, gained = lost + (before and not now), gained + (now and not before)
    on = [t is not None for t in thresholds] + [True]
    return int(lost), int(gained), sum(slow_stage_seconds(setting.model, taken, BATCH, on))


def slow_choice(setting, candidates, rows, families):
    """The fastest that keeps the loss on the rows, and the one that a promise leaves."""
    most, sure = SELECTION["max_loss"], 1 - (1 - SELECTION["confidence"]) / len(families)
    good, promised = [], []
    for family in families:
        seen = []
        for thresholds, lucky in candidates[family]:
            lost, gained, seconds = slow(setting, thresholds, rows)
            bound = largest_loss(lost, gained, len(rows), sure) + max(0, lucky)
            nobody = all(t is None for t in thresholds)
            seen.append((seconds, thresholds, lost - gained, 0 if nobody else bound))
        good += [(s, t) for s, t, loss, _ in seen if loss <= most * len(rows)]
        for seconds, thresholds, _, bound in sorted(seen, key=lambda c: -c[0]):
            if bound > most:
                break
            promised.append((seconds, thresholds))
    nobody = (0.0, (None,) * (EXITS - 1))
    return [min(found, default=nobody, key=lambda c: c[0])[1] for found in (good, promised)]


@pytest.mark.parametrize("method, draws", [("empirical", 4), ("joint", 1)])
def test_every_row_is_a_slow_recount_of_the_same_draws(setting, method, draws):
    settings = CALIBRATION | {"method": method}
    setting = setting._replace(calibration=settings)
    found = {}
    everyone = range(N)
    full = sum(
        slow_stage_seconds(setting.model, [EXITS] * N, BATCH, [False] * (EXITS - 1) + [True])
    )
    for number in range(draws):
        rows = np.random.default_rng([SEED, number]).integers(N, size=DRAWN)
        asked = (
            settings,
            setting.pool.sample(rows),
            [0.8, 0.9, 0.95],
            costs_of(setting.model, BATCH),
        )
        candidates = {
            "cutoff": [(c.policy.thresholds, 0.0) for c in setting.fixed[:-1]],
            "train": [(setting.fixed[-1].policy.thresholds, 0.0)],
            "val": list(zip(thresholds_for(*asked), optimism(*asked), strict=True)),
        }
        for choice, families in promise_benchmark.CHOICES.items():
            chosen = slow_choice(setting, candidates, rows, families)
            for promised, thresholds in zip((False, True), chosen, strict=True):
                lost, gained, seconds = slow(setting, thresholds, everyone)
                outcome = (lost - gained) / N, full / seconds
                found.setdefault((choice, promised), []).append(outcome)
    outcomes = [promise_benchmark.outcomes(setting, number) for number in range(draws)]
    for key, want in found.items():
        assert [o[key] for o in outcomes] == [pytest.approx(w) for w in want]


def test_the_table_counts_the_broken_promises_and_the_page_shows_them(setting):
    draws = 6
    table = promise(setting, draws)
    outcomes = [promise_benchmark.outcomes(setting, number) for number in range(draws)]
    rows = table.to_pylist()
    assert [(r["choice"], r["promised"]) for r in rows] == list(outcomes[0])
    for row in rows:
        losses, speedups = zip(*(o[row["choice"], row["promised"]] for o in outcomes), strict=True)
        assert row["broken"] == sum(loss > 0.02 + 1e-9 for loss in losses)
        assert row["share"] == row["broken"] / row["draws"] == row["broken"] / draws
        assert row["loss"] == pytest.approx(np.median(losses))
        assert row["speedup"] == pytest.approx(np.median(speedups))
    some = next(r for r in rows if r["choice"] == "shared cutoffs" and not r["promised"])
    text = page(table, {"model": "toy"})
    assert f"{100 * some['share']:.1f} % [" in text and "at most 10 % may lose more" in text
    assert "made on 300 samples" in text
    assert f"{100 * some['loss']:.2f} lost, {some['speedup']:.2f}x" in text


def test_where_nothing_can_be_promised_the_full_network_runs(setting):
    strict = setting._replace(selection={"max_loss": 0.0, "confidence": 0.99})
    found = promise_benchmark.outcomes(strict, 0)
    assert found["calibrated on train", True] == pytest.approx((0.0, 1.0))
