"""Exposures as cameras have them: those on a dial, or of two digits."""

from __future__ import annotations

import math

import numpy as np

from ..core.values import SHUTTER_ERROR, SHUTTER_PARTS

BULB = 30.0  # s: longer exposures are held open, to the second
DIAL = (
    *(1 / part for part in SHUTTER_PARTS),
    *(0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 15.0, 20.0, 25.0, BULB),
)  # s, as cameras mark them
_THIRD = 2 ** (1 / 3)


def settable(time: float, dial: bool = True) -> float:
    """Return the exposure [s] nearest to the wanted one that can be set.

    On a camera's dial in thirds of a stop, from 1/8000 s to 30 s; beyond, and without a dial (an astronomical camera,
    driven by a computer), any number of two digits.

    Examples
    --------
    >>> [settable(time) for time in (1 / 297, 11.7, 333.3)], settable(1 / 297, dial=False)
    ([0.003125, 13.0, 330.0], 0.0034)
    """
    if not (math.isfinite(time) and time > 0):
        return time
    if dial and time <= BULB * _THIRD**0.5:
        return DIAL[int(np.argmin(np.abs(np.log(np.divide(DIAL, time)))))]
    return float(f"{time:.2g}")


def settable_above(time: float) -> float | None:
    """Return the first exposure [s] on a camera's dial that is not shorter; None beyond 30 s, where every one is.

    Examples
    --------
    >>> settable_above(17.3), settable_above(15.01), settable_above(61.0)
    (20.0, 15.0, None)
    """
    return next((mark for mark in DIAL if mark >= time / (1 + SHUTTER_ERROR)), None)
