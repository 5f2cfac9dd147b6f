"""How often each promise of the project is broken, where the truth is known."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import joblib
import numpy as np
import pyarrow as pa

from offramp.common.intervals import accuracy_bound, drop_bound, interval, paired_difference
from offramp.common.progress import progress
from offramp.scoring.policy import Policy, shared_cutoff
from offramp.scoring.scores import fitting_part
from offramp.scoring.temperatures import calibration_error_interval
from offramp.tables.schemas import COVERAGE
from offramp.thresholds.calibration import CalibrationData, calibrate_empirical, thresholds_for
from offramp.thresholds.evaluation import accuracy_drop, evaluate
from offramp.thresholds.joint import costs_of
from offramp.thresholds.optimism import optimism
from offramp.thresholds.selection import (
    Candidate,
    candidate_on,
    fastest_above_accuracy,
    fastest_within_drop,
)
from offramp.thresholds.survivors import Thresholds
from offramp.thresholds.time_model import TimeModel

SEED = 42
CONFIDENCE = 0.9
MAX_DROP = 0.005
TARGETS = (0.8, 0.9, 0.95)
# Wanted accuracies of the calibrated candidates.
WANTED = (0.999, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.9, 0.85)
CUTOFFS = 20
POOL = 50_000
# Draws on which thresholds are chosen are a tenth as many from here on.
MANY = 20_000
BATCH = 64
# Draws a job makes: a job costs the time it takes to send it its population.
AT_A_TIME = 200


class Effort(NamedTuple):
    """Sizes of samples, and draws: of counts, of samples on which thresholds are guaranteed, and of
    samples on which a policy is chosen."""

    sizes: Sequence[int]
    counts: int
    guarantees: int
    choices: int


EFFORTS = {
    "quick": Effort((60, 250, 1_000, 5_000), 2_000, 200, 100),
    "full": Effort((60, 250, 1_000, 5_000, 50_000), 10_000, 1_000, 200),
}


class Population(NamedTuple):
    """Where samples are drawn from with replacement; the truth is that of all of them. With the
    time model that says what a policy takes, and the policies known beforehand."""

    name: str
    data: CalibrationData
    model: TimeModel
    policies: Sequence[tuple[Policy, dict[str, Any]]]

    @property
    def exits(self) -> int:
        """K."""
        return self.data.scores.shape[1]


# Whether the promise was broken, and the speed-up of what was chosen, nan where nothing was.
Verdict = tuple[bool, float]


class Trial(NamedTuple):
    """A promise put to the test: ``stated`` is the rate at which it may be broken, nan for what is
    shown beside it and promises nothing; ``judge`` draws anew and judges."""

    promise: str
    population: str
    n: int
    stated: float
    draws: int
    judge: Callable[[np.random.Generator], Verdict]


def coverage(network: Population, effort: str) -> pa.Table:
    """Every promise on every population: a table of schema COVERAGE."""
    trials = [*counted_trials(EFFORTS[effort]), *chosen_trials(network, EFFORTS[effort])]
    parts = [
        (number, first)
        for number, trial in enumerate(trials)
        for first in range(0, trial.draws, AT_A_TIME)
    ]
    jobs = (joblib.delayed(verdicts)(trials[number], number, first) for number, first in parts)
    # A process for every core; threads of their own would only wait for each other.
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        stream = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator")(jobs)
        by_part = [next(stream) for _ in progress(parts, "promises", "part")]
    by_trial: list[list[Verdict]] = [[] for _ in trials]
    for (number, _), part in zip(parts, by_part, strict=True):
        by_trial[number] += part
    rows = [_row(trial, judged) for trial, judged in zip(trials, by_trial, strict=True)]
    return pa.Table.from_pylist(rows, schema=COVERAGE)


def verdicts(trial: Trial, number: int, first: int) -> list[Verdict]:
    """Those of some of a trial's draws, from ``first`` on, each with a seed of its own."""
    draws = range(first, min(first + AT_A_TIME, trial.draws))
    return [trial.judge(np.random.default_rng([SEED, number, draw])) for draw in draws]


def _row(trial: Trial, judged: Sequence[Verdict]) -> dict[str, Any]:
    """The row of the table for a trial, by the verdicts on all its draws."""
    broken = sum(is_broken for is_broken, _ in judged)
    low, high = interval(broken, len(judged))
    speedups = [speedup for _, speedup in judged if np.isfinite(speedup)]
    return (
        {"promise": trial.promise, "population": trial.population, "n": trial.n}
        | {"stated": None if np.isnan(trial.stated) else trial.stated}
        | {"draws": len(judged), "broken": broken, "rate": broken / len(judged)}
        | {"rate_low": low, "rate_high": high}
        | {"speedup": float(np.median(speedups)) if speedups else None}
    )


def counted_trials(effort: Effort) -> Iterator[Trial]:
    """Bounds and intervals of counts, whose truth is a rate."""
    error = 1 - CONFIDENCE
    rates = {  # losses, gains
        "no gains": (MAX_DROP, 0.0),
        "few gains": (MAX_DROP + 0.001, 0.001),
        "as many gains": (0.03 + MAX_DROP, 0.03),
        "exits err together": (0.3 + MAX_DROP, 0.3),
    }
    for n in effort.sizes:
        for name, pair in rates.items():
            common = name, n
            yield Trial("drop", *common, error, effort.counts, partial(drop_broken, *pair, n))
            yield Trial(
                "difference, 95 %", *common, 0.05, effort.counts // 10,
                partial(difference_missed, *pair, n),
            )  # fmt: skip
        for accuracy in (0.5, 0.9, 0.99, 0.995):
            common = f"accuracy {accuracy:g}", n
            yield Trial(
                "accuracy", *common, error, effort.counts, partial(accuracy_broken, accuracy, n)
            )
            yield Trial(
                "accuracy, 95 %",
                *common,
                0.05,
                effort.counts,
                partial(accuracy_missed, accuracy, n),
            )
        yield Trial(
            "drop of the chosen", "ordered by luck", n, error, effort.counts // 10,
            partial(lucky_order, n),
        )  # fmt: skip
        for sharper in (1.0, 2.0):
            for classes in (10, 1_000):
                name = f"{classes} classes, logits times {sharper:g}"
                yield Trial(
                    "calibration error, 95 %", name, n, 0.05, effort.choices,
                    partial(calibration_error_missed, classes, sharper, n),
                )  # fmt: skip


def drop_broken(lost: float, gained: float, n: int, random: np.random.Generator) -> Verdict:
    """A policy with these rates of losses and gains."""
    losses, gains, _ = random.multinomial(n, [lost, gained, 1 - lost - gained]).tolist()
    return drop_bound(losses, gains, n, CONFIDENCE) < lost - gained - 1e-12, np.nan


def difference_missed(lost: float, gained: float, n: int, random: np.random.Generator) -> Verdict:
    """The paired interval of two answers that differ at these rates."""
    kind = random.choice(3, size=n, p=[lost, gained, 1 - lost - gained])
    _, low, high = paired_difference(kind != 0, kind != 1)
    return not low <= gained - lost <= high, np.nan


def accuracy_broken(accuracy: float, n: int, random: np.random.Generator) -> Verdict:
    """The lower bound of an accuracy."""
    return accuracy_bound(int(random.binomial(n, accuracy)), n, CONFIDENCE) > accuracy, np.nan


def accuracy_missed(accuracy: float, n: int, random: np.random.Generator) -> Verdict:
    """The interval of an accuracy."""
    low, high = interval(int(random.binomial(n, accuracy)), n)
    return not low <= accuracy <= high, np.nan


def lucky_order(n: int, random: np.random.Generator) -> Verdict:
    """Five policies that lose a little more than they may, each by samples of its own: who leaves,
    and so what it takes, tells how much it lost on the draw."""
    leave, wrong = 0.1, (MAX_DROP + 1e-5) / 0.1
    left = random.multinomial(n, [leave] * 5 + [1 - 5 * leave])[:5]
    lost = random.binomial(left, wrong)
    policy = Policy("entropy", (0.5,))
    candidates = [
        Candidate(policy, {"cutoff": i}, float(n - leaving), n - int(losses), n, lost=int(losses))
        for i, (leaving, losses) in enumerate(zip(left, lost, strict=True))
    ]
    chosen = fastest_within_drop(candidates, max_drop=MAX_DROP, confidence=CONFIDENCE)
    return chosen is not None, np.nan


def calibration_error_missed(
    classes: int, sharper: float, n: int, random: np.random.Generator
) -> Verdict:
    """The interval of the calibration error of logits that are ``sharper`` times too large: how
    often the confidence is right is known of each sample, and the error of a large population is
    the truth."""
    confidence, chance = _confidences(classes, sharper, n, random)
    _, low, high = calibration_error_interval(confidence, random.random(n) < chance)
    truth = _true_calibration_error(classes, sharper)
    return not low <= truth <= high, np.nan


def _confidences(
    classes: int, sharper: float, n: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability of each sample's softmax, and the chance that it is right: one class
    ahead of all others by a lead of its own."""
    lead = random.gamma(3.0, 1.5, n)
    stated, real = (1 / (1 + (classes - 1) * np.exp(-factor * lead)) for factor in (sharper, 1.0))
    return stated, real


def _true_calibration_error(classes: int, sharper: float) -> float:
    stated, real = _confidences(classes, sharper, POOL, np.random.default_rng(SEED))
    return float(np.abs(stated - real).mean())


def chosen_trials(network: Population, effort: Effort) -> Iterator[Trial]:
    """Thresholds and policies chosen on samples, judged on the population."""
    error = 1 - CONFIDENCE
    for n, population in product(effort.sizes, (network, *made_up())):
        common, asked = (population.name, n), (population, n)
        fewer = 10 if n >= MANY else 1
        draws, guaranteed = effort.choices // fewer, effort.guarantees // fewer
        for target, (method, rate) in product(
            TARGETS, (("guaranteed", error), ("empirical", np.nan))
        ):
            repeats = guaranteed if method == "guaranteed" else draws
            name = f"{method}, {100 * target:g} % at every exit"
            yield Trial(name, *common, rate, repeats, partial(exits_below, method, target, *asked))
        yield Trial("drop of the chosen", *common, error, draws, partial(loses_more, True, *asked))
        yield Trial(
            "drop of the fastest on the draw", *common, np.nan, draws,
            partial(loses_more, False, *asked),
        )  # fmt: skip
        yield Trial("accuracy of the chosen", *common, error, draws, partial(less_accurate, *asked))
        if n < MANY:  # its resamples take half an hour there
            yield Trial(
                "expected accuracy (an estimate)", *common, 0.5, draws // 2,
                partial(expected_too_high, *asked),
            )  # fmt: skip


def made_up() -> list[Population]:
    """Populations of scores and answers that are hard on a promise. Each sample has a hardness; an
    exit is right with a chance that falls with it, later exits less."""
    random = np.random.default_rng(SEED)
    falls = np.array([0.8, 0.3, 0.15, 0.1])
    hard = random.random((POOL, 1))
    luck = random.random((POOL, len(falls)))
    same = np.repeat(luck[:, :1], len(falls), axis=1)
    plain = np.repeat(hard, len(falls), axis=1)
    noisy = plain + random.normal(0, 0.1, plain.shape)
    right = luck < 1 - falls * hard
    surest_wrong = np.where(hard < 0.05, luck < 0.85, luck < 0.99)
    many_classes = np.log(1_000) * np.sqrt(plain)
    return [
        _population("hardness is the score", plain, right),
        _population("noisy scores", noisy, right),
        _population("exits err together", plain, same < 1 - falls * hard),
        _population("ties", np.round(noisy * 8) / 8, right),
        _population("surest are wrong", plain, surest_wrong),
        _population("1,000 classes", many_classes, luck < 1 - (0.2 + falls) * hard),
    ]


def _population(name: str, scores: np.ndarray, correct: np.ndarray) -> Population:
    """With blocks that cost the same and heads a tenth of that; cutoffs and thresholds calibrated
    on other samples are known beforehand."""
    exits, sizes = scores.shape[1], np.arange(BATCH + 1)
    parts = np.stack([np.tile(share * sizes, (exits, 1)) for share in (1.0, 0.1, 0.0)])
    model = TimeModel(parts, np.zeros((exits - 1, 3)), BATCH)
    tenth = slice(0, POOL // 10)
    policies = policies_beforehand("entropy", scores[tenth], correct[tenth])
    return Population(name, CalibrationData(scores, correct), model, policies)


def policies_beforehand(
    criterion: str, scores: np.ndarray, correct: np.ndarray
) -> list[tuple[Policy, dict[str, Any]]]:
    """Shared cutoffs over some samples' scores float64 (n, K), and thresholds calibrated on them,
    with correct bool (n, K)."""
    side = scores.shape[1] - 1
    cutoffs = np.quantile(scores[:, :side], np.linspace(0, 1, CUTOFFS))
    policies = [(shared_cutoff(c, side, criterion), {"cutoff": c}) for c in np.unique(cutoffs)]
    for target in WANTED:
        policy = Policy(criterion, calibrate_empirical(scores, correct, target))
        policies.append((policy, {"calibrated_on": "train", "target": target}))
    return policies


def drawn(population: Population, n: int, random: np.random.Generator) -> CalibrationData:
    """As many samples of the population."""
    return population.data.sample(random.integers(len(population.data.scores), size=n))


def speedup_of(population: Population, thresholds: Thresholds) -> float:
    """Over the full network, predicted, on the whole population."""
    criterion = population.policies[0][0].criterion
    data, policy = population.data, Policy(criterion, thresholds)
    return float(evaluate(data.scores, data.correct, policy, population.model)["speedup"])


def exits_below(
    method: str, target: float, population: Population, n: int, random: np.random.Generator
) -> Verdict:
    """Whether an enabled exit is truly below the target."""
    sample = drawn(population, n, random)
    settings = {"method": method, "confidence": CONFIDENCE}
    costs = costs_of(population.model)
    (thresholds,) = thresholds_for(settings, sample, [target], costs)
    data = population.data
    truth = evaluate(data.scores, data.correct, Policy("entropy", thresholds), population.model)
    exits = [k for k, t in enumerate(thresholds, 1) if t is not None and truth["n"][k]]
    below = truth["correct"][exits] < target * truth["n"][exits] - 1e-9
    return bool(below.any()), float(truth["speedup"])


def candidates_on(population: Population, sample: CalibrationData) -> list[Candidate]:
    """Those known beforehand and those fitted jointly to the first half of a sample, which of all
    methods makes the most of its luck; with figures."""
    half = sample.sample(np.arange(fitting_part(len(sample.scores))))
    policies, model = [*population.policies], population.model
    targets = half.correct[:, -1].mean() + np.linspace(-MAX_DROP, MAX_DROP, len(WANTED))
    fitted = thresholds_for({"method": "joint"}, half, targets, costs_of(model))
    for target, thresholds in zip(targets, fitted, strict=True):
        origin = {"calibrated_on": "val_half", "target": float(target)}
        policies.append((policies[0][0]._replace(thresholds=thresholds), origin))
    return [candidate_on(sample.scores, sample.correct, p, model, o) for p, o in policies]


def loses_more(
    promised: bool, population: Population, n: int, random: np.random.Generator
) -> Verdict:
    """Whether the policy chosen on a sample truly loses more than MAX_DROP: as the pipeline chooses
    it, or the fastest that keeps it on the sample."""
    candidates = candidates_on(population, drawn(population, n, random))
    if promised:
        chosen = fastest_within_drop(candidates, max_drop=MAX_DROP, confidence=CONFIDENCE)
    else:
        kept = [c for c in candidates if c.lost - c.gained <= MAX_DROP * c.n]
        chosen = min(kept, key=lambda c: c.seconds, default=None)
    if chosen is None:
        return False, 1.0
    data, thresholds = population.data, chosen.policy.thresholds
    lost = accuracy_drop(data.scores, data.correct, thresholds)
    return lost > MAX_DROP + 1e-12, speedup_of(population, thresholds)


def less_accurate(population: Population, n: int, random: np.random.Generator) -> Verdict:
    """Whether the policy chosen for an accuracy truly falls short of it: one point less than the
    full network has."""
    data = population.data
    least = float(data.correct[:, -1].mean()) - 0.01
    candidates = candidates_on(population, drawn(population, n, random))
    limits = {"min_accuracy": least, "confidence": CONFIDENCE}
    chosen = fastest_above_accuracy(candidates, **limits)
    if chosen is None:
        return False, 1.0
    thresholds = chosen.policy.thresholds
    truth = data.correct[:, -1].mean() - accuracy_drop(data.scores, data.correct, thresholds)
    return truth < least - 1e-12, speedup_of(population, thresholds)


def expected_too_high(population: Population, n: int, random: np.random.Generator) -> Verdict:
    """Whether thresholds fitted to a sample lose more on the population than they lose on the
    sample with the optimism added."""
    sample, data = drawn(population, n, random), population.data
    costs = costs_of(population.model)
    settings = {"method": "joint", "confidence": CONFIDENCE}
    target = [float(sample.correct[:, -1].mean()) - MAX_DROP]
    (thresholds,) = thresholds_for(settings, sample, target, costs)
    added = max(0.0, float(optimism(settings, sample, target, costs)[0]))
    expected = accuracy_drop(sample.scores, sample.correct, thresholds) + added
    truth = accuracy_drop(data.scores, data.correct, thresholds)
    return truth > expected, speedup_of(population, thresholds)
