"""Numbers as people read them: no digit that the interval does not deserve, no minus zero."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# How each chosen policy is called beside its task.
TASKS = {
    "report_cutoff": "1a",
    "best_cutoff": "1b",
    "target": "2a",
    "best_train": "2b",
    "best": "best of all",
}


def digits_of(low: float, high: float) -> int:
    """How many decimals of per cent an interval deserves: two digits of its half, at most two
    decimals. ``low`` and ``high`` are fractions."""
    half = 50 * (high - low)
    return 2 if half < 1 else 1 if half < 10 else 0


def percent(row: Mapping[str, Any]) -> str:
    """The accuracy of a row with its interval: 83.42% [82.68, 84.14], 57% [43, 70]."""
    if row["accuracy"] is None:
        return "nobody"
    digits = digits_of(row["low"], row["high"])
    low, high = (f"{100 * row[end]:.{digits}f}" for end in ("low", "high"))
    return f"{row['accuracy']:.{digits}%} [{low}, {high}]"


def accuracy(row: Mapping[str, Any]) -> str:
    """The accuracy of a row alone, with the digits that its interval deserves."""
    return percent(row).split(" ")[0]


def points(paired: Mapping[str, float]) -> str:
    """A difference with its interval, in points: -0.25 [-0.41, -0.11]."""
    digits = digits_of(paired["low"], paired["high"])
    low, high = (signed(paired[end], digits) for end in ("low", "high"))
    return f"{signed(paired['points'], digits)} [{low}, {high}]"


def signed(difference: float, digits: int = 2) -> str:
    """A fraction as points with their sign; what rounds to zero is +0.00."""
    return f"{round(100 * difference, digits) + 0.0:+.{digits}f}"


def seconds(value: float, unit: str = "s") -> str:
    """Three digits: 12.4 s, 1.24 s, 0.0840 s; of another unit from a thousand on all: 1,234 mJ."""
    if value >= 1000 and unit != "s":
        return f"{value:,.0f} {unit}"
    return f"{_three_digits(value)} {unit}"


def a_sample(value: float, unit: str = "s") -> str:
    """Three digits, in the unit that fits the time of a sample: 1.24 s, 84.0 ms, 168 µs; a unit
    that is no second stays."""
    if unit != "s":
        return seconds(value, unit)
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{_three_digits(value / 1e-6)} µs"


def _three_digits(value: float) -> str:
    """A number >= 0 with three significant digits, more before the point where it has them."""
    place = math.floor(math.log10(value)) if value else 0
    return f"{value:.{max(0, 2 - place)}f}"


def times(ratio: float) -> str:
    """A speed-up: 1.24x, 12.3x."""
    return f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:.1f}x"


def target(value: float) -> str:
    """A wanted accuracy: 80%, 99.5%."""
    return f"{100 * value:g}%"


def threshold(value: float | None) -> str:
    """A threshold; a disabled exit has none."""
    return "off" if value is None else f"{value:.4f}"


def listed(words: Sequence[str]) -> str:
    """One, one and two, or one, two and three."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
