"""The coverage study: its populations' truth, its counts, and what its page says of them."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import slow_exit
from scipy.stats import binomtest

from offramp.report.coverage_page import POPULATIONS, beyond_chance, page, promised
from offramp.studies import coverage as study
from offramp.tables.schemas import COVERAGE
from offramp.thresholds.calibration import calibrate_empirical
from offramp.thresholds.guarantee import calibrate_guaranteed


@pytest.fixture(scope="module")
def populations():
    return study.made_up()


def test_populations_are_as_hard_as_their_names_say(populations):
    by_name = {population.name: population.data for population in populations}
    together = by_name["exits err together"].correct
    assert (together[:, 0] <= together[:, 1]).all()  # wrong later is wrong before
    assert len(np.unique(by_name["ties"].scores[:, 0])) < 20
    surest = by_name["surest are wrong"]
    sure = surest.scores[:, 0] < 0.05
    assert surest.correct[sure, 0].mean() < 0.87 < 0.98 < surest.correct[~sure, 0].mean()
    assert by_name["1,000 classes"].scores.max() <= np.log(1_000)


def test_a_choice_is_judged_by_a_slow_recount_of_the_population(populations):
    population = populations[3]._replace(data=populations[3].data.sample(np.arange(3_000)))
    for method in ("empirical", "guaranteed"):
        broken, speedup = study.exits_below(method, 0.8, population, 400, np.random.default_rng(5))
        sample = study.drawn(population, 400, np.random.default_rng(5))
        thresholds = {
            "empirical": calibrate_empirical(sample.scores, sample.correct, 0.8),
            "guaranteed": calibrate_guaranteed(sample.scores, sample.correct, 0.8, 0.9),
        }[method]
        data = population.data
        taken = [slow_exit(row, thresholds) for row in data.scores.tolist()]
        below = []
        for k, t in enumerate(thresholds, 1):
            right = [data.correct[i, k - 1] for i, exit_ in enumerate(taken) if exit_ == k]
            below.append(t is not None and bool(right) and np.mean(right) < 0.8)
        assert broken == any(below)
        assert speedup >= 0.9


def test_the_page_says_what_every_promise_and_population_is(populations):
    effort = study.EFFORTS["full"]
    trials = [*study.counted_trials(effort), *study.chosen_trials(populations[0], effort)]
    assert all(promised(trial.promise).endswith(".") for trial in trials)
    names = {trial.population for trial in trials}
    unnamed = {n for n in names - POPULATIONS.keys() if not any(word in n for word in POPULATIONS)}
    assert not unnamed


def test_an_order_by_luck_has_no_say():
    draws = [study.lucky_order(5_000, np.random.default_rng([1, i]))[0] for i in range(300)]
    assert np.mean(draws) <= 0.1 + 3 * np.sqrt(0.09 / 300)  # 38 % where seconds gave the order


def test_counts_and_rates_add_up(monkeypatch, populations):
    effort = study.Effort((60,), 40, 8, 8)
    monkeypatch.setitem(study.EFFORTS, "quick", effort)
    monkeypatch.setattr(study, "made_up", lambda: [])
    rows = study.coverage(populations[0], "quick").to_pylist()
    assert len({(r["promise"], r["population"]) for r in rows}) == len(rows)
    for row in rows:
        assert row["rate"] == row["broken"] / row["draws"]
        want = binomtest(row["broken"], row["draws"]).proportion_ci(method="exact")
        assert (row["rate_low"], row["rate_high"]) == pytest.approx((want.low, want.high))
    drop = next(r for r in rows if (r["promise"], r["population"]) == ("drop", "no gains"))
    assert (drop["stated"], drop["draws"], drop["n"]) == (pytest.approx(0.1), 40, 60)


def row(**more):
    """A cell of the table."""
    usual = {"promise": "drop", "population": "few gains", "n": 60, "stated": 0.1, "draws": 100}
    made = usual | {"broken": 10, "speedup": None} | more
    rate = made["broken"] / made["draws"]
    return made | {"rate": rate, "rate_low": rate, "rate_high": rate}


def test_the_page_names_what_is_broken_beyond_chance():
    rows = [row(), row(n=250, broken=40), row(promise="empirical", stated=None, broken=90)]
    assert beyond_chance(rows[:2]) == [rows[1]]
    text = page(pa.Table.from_pylist(rows, schema=COVERAGE), {"model": "toy"}, "2026-11-27")
    assert "In 1 of 2 cells the rate is above the stated one" in text
    assert "in bold: drop in 1 cells" in text
    assert "| few gains | 10.0% | **40.0%** |" in text
    assert "Nobody promises that" in text
    calm = page(pa.Table.from_pylist(rows[:1], schema=COVERAGE), {"model": "toy"}, "2026-11-27")
    assert "No rate is above the stated one beyond chance, in 1 cells." in calm
