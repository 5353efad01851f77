"""The settings that a camera has: shutter times and ISO in thirds of a stop."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

FULL_STOPS = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0)  # ISO
FASTEST = 1 / 8000  # s: of most shutters
FASTEST_WITHOUT_DIAL = 1 / 1000  # s: of most astronomical cameras
BULB = 30.0  # s: longer exposures are held open, to the second
_PARTS = (
    *(8000, 6400, 5000, 4000, 3200, 2500, 2000, 1600, 1250, 1000, 800, 640, 500, 400, 320, 250, 200, 160, 125, 100),
    *(80, 60, 50, 40, 30, 25, 20, 15, 13, 10, 8, 6, 5, 4),
)  # of a second
_SECONDS = (
    *(0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0),
    *(13.0, 15.0, 20.0, 25.0, BULB),
)
DIAL = (*(1 / part for part in _PARTS), *_SECONDS)  # s, as cameras mark them
_THIRD = 2 ** (1 / 3)
_NEAR = 1.22  # ratio of two settings nearer than a third of a stop, of which 100 and 125 are
_SAME = 0.03  # 1/125 s is really 1/128 s, and recorded as either


def settable(time: float, dial: bool = True) -> float:
    """Return the exposure [s] nearest to the wanted one that can be set.

    On a camera's dial in thirds of a stop, from 1/8000 s to 30 s; beyond, and where there is no dial (an astronomical
    camera, driven by a computer), any number of two digits.

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
    return next((mark for mark in DIAL if mark >= time / (1 + _SAME)), None)


def shutter(time: float) -> str:
    """Write an exposure as a camera does.

    Examples
    --------
    >>> shutter(1 / 125), shutter(2.5), shutter(300), shutter(0.0034), shutter(0.0), shutter(float("nan"))
    ('1/125 s', '2.5 s', '300 s', '0.0034 s', 'shortest', '')
    """
    if math.isnan(time):
        return ""
    if time <= 0:
        return "shortest"
    part = next((part for part in _PARTS if abs(time * part - 1) < _SAME), None)
    return f"{time:.3g} s" if part is None else f"1/{part} s"


def isos_wanted(seen: Iterable[float]) -> list[float]:
    """Return the ISO settings of a whole characterisation: those in use, and the full stops that none of them is near.

    None that was seen means a camera without ISO settings, whose one setting is NaN.

    Examples
    --------
    >>> isos_wanted([84, 1000]), isos_wanted([])
    ([84.0, 200.0, 400.0, 800.0, 1000.0, 1600.0, 3200.0, 6400.0], [nan])
    """
    own = sorted({float(iso) for iso in seen})
    if not own:
        return [math.nan]
    return sorted({*own, *(iso for iso in FULL_STOPS if all(max(iso / one, one / iso) > _NEAR for one in own))})


def stops_too_bright(shortest: float, fastest: float) -> int:
    """Return by how many whole stops a lamp must be dimmed so that its shortest exposure [s] can be set.

    Examples
    --------
    >>> stops_too_bright(1 / 94947, FASTEST), stops_too_bright(1 / 300, FASTEST)
    (4, 0)
    """
    return max(0, math.ceil(math.log2(fastest / shortest) - 0.02))
