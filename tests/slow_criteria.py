"""Every criterion by its words, one sample at a time: what tables and cascade are held against."""

import math

from offramp.scoring.criteria import FEATURES

Rows = list[list[float]]  # one sample's logits, an exit a row


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(z - max(row)) for z in row]
    return [p / math.fsum(powers) for p in powers]


def slow_entropy(exits: Rows, _=None) -> float:
    return -math.fsum(p * math.log(p) for p in softmax(exits[-1]) if p > 0)


def slow_margin(exits: Rows, _=None) -> float:
    first, second = sorted(softmax(exits[-1]), reverse=True)[:2]
    return 1 - (first - second)


def slow_energy(exits: Rows, _=None) -> float:
    largest = max(exits[-1])
    return -largest - math.log(math.fsum(math.exp(z - largest) for z in exits[-1]))


def slow_patience(exits: Rows, _=None) -> float:
    labels = [row.index(max(row)) for row in exits]
    run = 1
    while run < len(labels) and labels[-run - 1] == labels[-1]:
        run += 1
    return 1 / run


def slow_agreement(exits: Rows, _=None) -> float:
    if len(exits) == 1:
        return 1.0
    pairs = zip(softmax(exits[-1]), softmax(exits[-2]), strict=True)
    return 1 - math.fsum(p * q for p, q in pairs)


def slow_deferral(exits: Rows, weights) -> float:
    first, second = sorted(exits[-1], reverse=True)[:2]
    features = [slow_entropy(exits), slow_margin(exits), min(first - second, 30.0)]
    value = math.fsum(w * x for w, x in zip(weights, features, strict=False))
    return 1 / (1 + math.exp(-value - weights[FEATURES + exits[-1].index(max(exits[-1]))]))


# The score at the last of the exits whose logits are given, with that exit's weights if any.
SLOW = {
    "entropy": slow_entropy,
    "max_probability": lambda exits, _=None: 1 - max(softmax(exits[-1])),
    "margin": slow_margin,
    "energy": slow_energy,
    "patience": slow_patience,
    "agreement": slow_agreement,
    "deferral": slow_deferral,
}
