"""How often each exit's answer is to be expected right, from what all exits say together."""

import numpy as np

from offramp.common.newton import minimum
from offramp.scoring.temperatures import fit_temperature


def expected_correct(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """How right each exit's answer is, float64 (N, K): 1 or 0 by the label for the full network's,
    and for a side exit's that, less what answering there is expected to lose.

    Parameters: ``logits`` float (N, K, C), ``label`` int64 (N,). Where two exits answer
    differently, one label says who is right in a single case; thresholds fitted to that are fitted
    to its noise. All exits together say how likely each class is: p ~ e ^ b prod_k p_k ^ w_k, with
    the weights and class biases of `fit_pool`. The loss is the full network's answer's probability
    less the exit's: 0 where they agree. Exact labels give the sum its level, so with all exits
    disabled it is the number that are right.
    Source: Genest and Zidek, "Combining Probability Distributions" (1986), the logarithmic pool;
    the weights here are free, so an exit that repeats others' errors may get a negative one.
    """
    _, probability = _pooled(_by_class(logits), *fit_pool(logits, label))
    answers = logits.argmax(axis=2)
    likely = probability[answers, np.arange(len(label))[:, None]]
    full = (answers[:, -1] == label).astype(np.float64)
    return full[:, None] - (likely[:, -1:] - likely)


def fit_pool(logits: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exits' weights w, float64 (K,), and biases b of the classes, float64 (C,), under which
    the labels are likeliest: the least negative log-likelihood of softmax(b + sum_k w_k logits_k),
    a convex problem. Parameters as in `expected_correct`. Logits may be of any scale: each exit's
    are divided by their own, and the search begins where the softmax of their mean is calibrated.
    Source: Heskes, "Selecting Weighting Factors in Logarithmic Opinion Pools" (1998).
    """
    by_class, (samples, exits, classes) = _by_class(logits), logits.shape
    size = np.abs(by_class).max(axis=(0, 1), initial=0.0)
    by_class -= by_class.mean(axis=0)  # what all classes share says nothing
    scale = by_class.std(axis=(0, 1))
    constant = scale <= 1e-12 * size
    scale[constant] = 1.0
    by_class[:, :, constant] = 0.0
    by_class /= scale
    tempered = 1 / fit_temperature(by_class.mean(axis=2).T, label)
    shares = np.bincount(label, minlength=classes) / samples
    true = np.append(by_class[label, np.arange(samples)].mean(axis=0), shares)

    def value(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        log_total, probability = _pooled(by_class, parameters[:exits], parameters[exits:])
        return float(log_total.mean() - true @ parameters), probability

    def slopes(parameters: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, covariance = _moments(by_class, probability)
        return mean - true, covariance

    start = np.append(np.full(exits, tempered / exits), np.zeros(classes))
    parameters = minimum(value, slopes, start)
    return parameters[:exits] / scale, parameters[exits:]


def _moments(by_class: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each exit's logit of a class drawn by ``probability`` (C, N), and of that class as 0 or 1:
    the means over samples, float64 (K+C,), and the mean covariance, float64 (K+C, K+C)."""
    samples, exits = by_class.shape[1:]
    weighted = probability[:, :, None] * by_class
    expected = weighted.sum(axis=0)
    of_logits = weighted.reshape(-1, exits).T @ by_class.reshape(-1, exits) - expected.T @ expected
    of_both = weighted.sum(axis=1).T - expected.T @ probability.T
    of_classes = np.diag(probability.sum(axis=1)) - probability @ probability.T
    mean = np.append(expected.mean(axis=0), probability.mean(axis=1))
    return mean, np.block([[of_logits, of_both], [of_both.T, of_classes]]) / samples


def _by_class(logits: np.ndarray) -> np.ndarray:
    """float64 (C, N, K): pooling is one product, and sums over classes run along samples."""
    return np.ascontiguousarray(logits.transpose(2, 0, 1), dtype=np.float64)


def _pooled(
    by_class: np.ndarray, weights: np.ndarray, biases: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the softmax's denominator, float64 (N,), and its probabilities (C, N)."""
    values = by_class @ weights + biases[:, None]
    largest = values.max(axis=0)
    powers = np.exp(values - largest)
    total = powers.sum(axis=0)
    return np.log(total) + largest, powers / total
