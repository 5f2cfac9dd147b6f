"""A temperature per exit, and how well an exit's confidence says how often it is right."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.special import log_softmax, softmax

from offramp.common.intervals import interval
from offramp.scoring.scores import fitting_part
from offramp.tables.schemas import CONFIDENCE, RELIABILITY, TEMPERATURES

BINS = 15
# Of the histogram of confidences: equally wide, from 0 to 1.
WIDE_BINS = 20
# How far 1 / T is searched from the logits' own scale, as a power of e.
WIDE = 30.0
RESAMPLES = 500
SEED = 42


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature that makes the labels likeliest: least negative log-likelihood of the softmax
    of logits / T, logits of any scale. Parameters: ``logits`` float (N, C), ``label`` int64 (N,).

    1 where none is: no samples, all of them right, or none better than at random.
    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    from scipy.optimize import brentq  # heavy to import, and not wanted for reliability

    leads = logits.astype(np.float64)
    leads -= leads.max(axis=1, keepdims=True, initial=-np.inf)
    true = leads[np.arange(len(label)), label]
    if not (true < 0).any():
        return 1.0

    def slope(log: float) -> float:
        """Of the negative log-likelihood, which is convex in 1 / T, at ln(1 / T)."""
        return float(((softmax(np.exp(log) * leads, axis=1) * leads).sum(axis=1) - true).mean())

    # The mean size of a lead makes the search independent of the logits' scale.
    size = -float(leads.mean())
    middle = -float(np.log(size))
    low, high = middle - WIDE, middle
    if slope(low) >= -1e-9 * size:
        return 1.0
    while slope(high) < 0 and high < middle + WIDE:
        high += 2.0
    return float(np.exp(-brentq(slope, low, high, xtol=1e-9)))


def fit_temperatures(logits: np.ndarray, label: np.ndarray) -> tuple[float, ...]:
    """The temperature of every exit, fitted to the calibration samples' `fitting_part`; ``logits``
    is (N, K, C), ``label`` (N,)."""
    fitted = slice(0, fitting_part(len(label)))
    return tuple(fit_temperature(logits[fitted, k], label[fitted]) for k in range(logits.shape[1]))


def negative_log_likelihood(logits: np.ndarray, label: np.ndarray) -> float:
    """Mean of -ln p of the true label, in nats; ``logits`` (N, C), ``label`` (N,)."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(label)), label].mean())


def confidence_of(logits: np.ndarray) -> np.ndarray:
    """The largest probability of each sample, float64 (N,), of ``logits`` (N, C)."""
    return np.exp(log_softmax(logits.astype(np.float64), axis=1).max(axis=1))


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """The bin, 0..BINS-1, of each sample; the bins hold equally many, by rising confidence."""
    ranks = np.empty(len(confidence), dtype=np.int64)
    ranks[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return ranks * BINS // len(confidence)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, place: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Expected calibration error: the mean, weighted by samples, of how far confidence and accuracy
    lie apart in a bin.

    Parameters: ``confidence`` float64, ``right`` bool, ``place`` the bin, (N,) each; ``weight``
    (R, N), how often each sample counts, for R resamples at once. Returns float64 (R,).
    Source: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning" (2015), with bins of equal mass.
    """
    members = np.eye(BINS)[place]
    gaps = (right - confidence)[:, None] * members
    return np.abs(weight @ gaps).sum(axis=1) / weight.sum(axis=1)


def calibration_error_interval(
    confidence: np.ndarray, right: np.ndarray
) -> tuple[float, float, float]:
    """The expected calibration error of these samples, with its 95 % interval.

    Chance alone makes an error, and a resample holds it about twice. So the upper end is the larger
    of those of the basic bootstrap, of the percentile bootstrap and of the exact interval of the
    mean gap. The lower end is what is left
    without as much as chance adds in 39 of 40 cases (bin sums by the normal law, their variance the
    larger of what the confidences and what the answers say); it is 0 where chance explains all.
    How often the truth lies outside is measured in `offramp.studies.coverage`.
    """
    place = bin_of(confidence)
    errors = calibration_error(confidence, right, place, np.ones((1, len(confidence))))
    error = float(errors[0])
    resampled = calibration_error(confidence, right, place, resamples(len(confidence)))
    n = np.bincount(place, minlength=BINS)
    hits = np.bincount(place, right, minlength=BINS)
    stated = np.bincount(place, confidence * (1 - confidence), minlength=BINS)
    # Half a right and half a wrong answer more: a bin without wrong ones has a variance, too.
    counted = n * (hits + 0.5) * (n - hits + 0.5) / (n + 1) ** 2
    spread = np.sqrt(np.maximum(stated, np.where(n, counted, 0.0)))
    noise = np.random.default_rng(SEED).normal(size=(RESAMPLES, BINS)) * spread
    chance = np.quantile(np.abs(noise).sum(axis=1), 0.975) / len(confidence)
    low, high = np.quantile(resampled, [0.025, 0.975])
    # Nor is it less than how far the mean confidence may lie from the accuracy, which counts where
    # resamples hold nothing but right answers.
    least, most = interval(int(right.sum()), len(right))
    apart = max(float(confidence.mean()) - least, most - float(confidence.mean()))
    upper = max(error, float(high), 2 * error - float(low), apart)
    return error, max(0.0, error - float(chance)), upper


@lru_cache(2)
def resamples(samples: int) -> np.ndarray:
    """How often each sample is drawn in each of RESAMPLES draws with replacement, float64 (R, N);
    the same draws for every exit, so that exits and temperatures compare."""
    draw = np.random.default_rng(SEED)
    drawn = draw.integers(samples, size=(RESAMPLES, samples))
    return np.array([np.bincount(rows, minlength=samples) for rows in drawn], dtype=np.float64)


def temperatures_table(logits: np.ndarray, label: np.ndarray) -> pa.Table:
    """One row per exit: its temperature, and the negative log-likelihood of the samples that fitted
    it before and after. ``logits`` is (N, K, C), ``label`` (N,), of the validation split."""
    fitting = fitting_part(len(label))
    rows = []
    for k, temperature in enumerate(fit_temperatures(logits, label)):
        precise, true = logits[:fitting, k].astype(np.float64), label[:fitting]
        rows.append(
            {"exit": k + 1, "temperature": temperature, "n": fitting}
            | {"nll": negative_log_likelihood(precise, true)}
            | {"nll_scaled": negative_log_likelihood(precise / temperature, true)}
        )
    return pa.Table.from_pylist(rows, schema=TEMPERATURES)


class Answers(NamedTuple):
    """What one exit answers on one split, raw or scaled: ``where`` holds these three; logits z
    float64 (N, C), labels (N,), the largest probability float64 (N,), who is right bool (N,)."""

    where: dict[str, Any]
    z: np.ndarray
    label: np.ndarray
    confidence: np.ndarray
    right: np.ndarray


def answers_of(
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]], temperatures: Sequence[float]
) -> Iterator[Answers]:
    """Every exit's answers, of raw logits and of those divided by ``temperatures`` (K,).

    ``splits`` gives logits (N, K, C) and labels (N,) by split: samples that fitted no temperature.
    """
    for split, (logits, label) in splits.items():
        for k, temperature in enumerate(temperatures):
            for scaled, divisor in ((False, 1.0), (True, temperature)):
                z = logits[:, k].astype(np.float64) / divisor
                where = {"split": split, "exit": k + 1, "scaled": scaled}
                yield Answers(where, z, label, confidence_of(z), z.argmax(axis=1) == label)


def reliability_table(answers: Iterable[Answers]) -> pa.Table:
    """The bins of the reliability diagrams, and of each exit (bin 0) its calibration error and
    negative log-likelihood."""
    rows = []
    for where, z, label, confidence, right in answers:
        error = calibration_error_interval(confidence, right)
        overall = _bin_row(0, confidence, right)
        overall |= dict(zip(("ece", "ece_low", "ece_high"), error, strict=True))
        overall["nll"] = negative_log_likelihood(z, label)
        place = bin_of(confidence)
        bins = [(b, place == b) for b in np.unique(place)]
        bin_rows = [_bin_row(b + 1, confidence[inside], right[inside]) for b, inside in bins]
        rows += [where | row for row in (overall, *bin_rows)]
    return pa.Table.from_pylist(rows, schema=RELIABILITY)


def confidence_table(answers: Iterable[Answers]) -> pa.Table:
    """How many samples are so and so sure, and how many of them are right: WIDE_BINS equally wide
    bins, low <= confidence < high, the last with 1 in it.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), their upper panels.
    """
    ends = np.linspace(0, 1, WIDE_BINS + 1)
    rows = []
    for where, _, _, confidence, right in answers:
        n, correct = (np.histogram(c, ends)[0] for c in (confidence, confidence[right]))
        rows += [
            where | {"low": low, "high": high, "n": int(a), "correct": int(b)}
            for low, high, a, b in zip(ends[:-1], ends[1:], n, correct, strict=True)
        ]
    return pa.Table.from_pylist(rows, schema=CONFIDENCE)


def _bin_row(number: int, confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    return {
        "bin": int(number),
        "n": len(right),
        "confidence": float(confidence.mean()),
        "correct": int(right.sum()),
    }
