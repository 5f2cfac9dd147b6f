"""A temperature per exit, and how well an exit's confidence says how often it is right."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import log_softmax

from offramp.tables import RELIABILITY, TEMPERATURES
from offramp.thresholds import fitting_part

BINS = 15
RESAMPLES = 500
SEED = 42
# The range searched: far wider than networks need.
LOG_RANGE = (-4.0, 4.0)


def fit_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature that makes the labels likeliest: least negative log-likelihood of the softmax
    of logits / T. Parameters: ``logits`` float (N, C), ``label`` int64 (N,).

    1 where none is: no samples, all of them right, or none better than at random.
    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    from scipy.optimize import minimize_scalar  # heavy to import, and not wanted for reliability

    if (logits.argmax(axis=1) == label).all():
        return 1.0
    precise = logits.astype(np.float64)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(precise / np.exp(log), label),
        bounds=LOG_RANGE,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x)) if found.x < LOG_RANGE[1] - 1e-3 else 1.0


def fit_temperatures(logits: np.ndarray, label: np.ndarray) -> tuple[float, ...]:
    """The temperature of every exit, fitted to the calibration samples' `fitting_part`; ``logits``
    is (N, K, C), ``label`` (N,)."""
    some = slice(0, fitting_part(len(label)))
    return tuple(fit_temperature(logits[some, k], label[some]) for k in range(logits.shape[1]))


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

    The upper end is that of the basic bootstrap: chance alone makes an error, and a resample holds
    it about twice. The lower end is what is left without as much as chance adds in 39 of 40 cases,
    answers being drawn with the confidences as their chances (bin sums by the normal law); it is 0
    where chance explains all.
    """
    place = bin_of(confidence)
    whole = calibration_error(confidence, right, place, np.ones((1, len(confidence))))
    found = float(whole[0])
    resampled = calibration_error(confidence, right, place, resamples(len(confidence)))
    spread = np.sqrt(np.bincount(place, confidence * (1 - confidence), minlength=BINS))
    noise = np.random.default_rng(SEED).normal(size=(RESAMPLES, BINS)) * spread
    chance = np.quantile(np.abs(noise).sum(axis=1), 0.975) / len(confidence)
    high = 2 * found - float(np.quantile(resampled, 0.025))
    return found, max(0.0, found - float(chance)), max(found, high)


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
    some = fitting_part(len(label))
    rows = []
    for k, temperature in enumerate(fit_temperatures(logits, label)):
        precise, here = logits[:some, k].astype(np.float64), label[:some]
        rows.append(
            {"exit": k + 1, "temperature": temperature, "n": some}
            | {"nll": negative_log_likelihood(precise, here)}
            | {"nll_scaled": negative_log_likelihood(precise / temperature, here)}
        )
    return pa.Table.from_pylist(rows, schema=TEMPERATURES)


def reliability_table(
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]], temperatures: Sequence[float]
) -> pa.Table:
    """The bins of the reliability diagrams, and of each exit (bin 0) its calibration error and
    negative log-likelihood; of raw logits and of those divided by ``temperatures`` (K,).

    ``splits`` gives logits (N, K, C) and labels (N,) by split: samples that fitted no temperature.
    """
    rows = []
    for split, (logits, label) in splits.items():
        for k, temperature in enumerate(temperatures):
            for scaled, divisor in ((False, 1.0), (True, temperature)):
                z = logits[:, k].astype(np.float64) / divisor
                confidence, right = confidence_of(z), z.argmax(axis=1) == label
                where = {"split": split, "exit": k + 1, "scaled": scaled}
                error = calibration_error_interval(confidence, right)
                overall = _bin_row(0, confidence, right)
                overall |= dict(zip(("ece", "ece_low", "ece_high"), error, strict=True))
                overall["nll"] = negative_log_likelihood(z, label)
                place = bin_of(confidence)
                bins = [(b, place == b) for b in np.unique(place)]
                found = [_bin_row(b + 1, confidence[here], right[here]) for b, here in bins]
                rows += [where | row for row in (overall, *found)]
    return pa.Table.from_pylist(rows, schema=RELIABILITY)


def _bin_row(number: int, confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    return {
        "bin": int(number),
        "n": len(right),
        "confidence": float(confidence.mean()),
        "correct": int(right.sum()),
    }
