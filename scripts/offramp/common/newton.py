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
    found = start
    here, state = value(found)
    for _ in range(STEPS):
        gradient, curvature = slopes(found, state)
        # Least squares, since some directions may change nothing.
        step = np.linalg.lstsq(curvature, -gradient, rcond=1e-10)[0]
        gain, size = -float(gradient @ step), 1.0
        if gain < 1e-8:
            break
        while (new := value(found + size * step))[0] > here - 1e-4 * size * gain and size > 1e-9:
            size /= 2
        if new[0] > here:  # rounding leaves nothing to gain
            break
        found, (here, state) = found + size * step, new
    else:
        warnings.warn(
            f"Newton's method was stopped after {STEPS} steps, {gain:.1e} from the optimum: the "
            "logits may hold huge or nearly equal values",
            stacklevel=2,
        )
    return found
