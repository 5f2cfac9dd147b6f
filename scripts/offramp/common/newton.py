"""Newton's method for the convex fits: the exits' pool and deferral."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

STEPS = 100


def minimum(
    value: Callable[[np.ndarray], tuple[float, Any]],
    slopes: Callable[[np.ndarray, Any], tuple[np.ndarray, np.ndarray]],
    start: np.ndarray,
) -> np.ndarray:
    """Where a convex function is least, float64 (P,), from ``start`` on.

    ``value`` gives the function at a place and whatever ``slopes`` can use of it, ``slopes`` the
    gradient (P,) and the matrix of second derivatives (P, P) there. Warns where STEPS do not reach
    it. The damped method of Boyd and Vandenberghe, "Convex Optimization" (2004), 9.5.
    """
    place = start
    least, state = value(place)
    for _ in range(STEPS):
        gradient, curvature = slopes(place, state)
        # Least squares, since some directions may change nothing.
        step = np.linalg.lstsq(curvature, -gradient, rcond=1e-10)[0]
        gain, size = -float(gradient @ step), 1.0
        if gain < 1e-8:
            break
        while (trial := value(place + size * step))[0] > least - 1e-4 * size * gain and size > 1e-9:
            size /= 2
        if trial[0] > least:  # rounding leaves nothing to gain
            break
        place, (least, state) = place + size * step, trial
    else:
        warnings.warn(
            f"Newton's method was stopped after {STEPS} steps, {gain:.1e} from the optimum: the "
            "logits may hold huge or nearly equal values",
            stacklevel=2,
        )
    return place
