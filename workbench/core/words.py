"""A measured number in words."""

from __future__ import annotations

import math


def is_simulated(camera: str) -> bool:
    """Tell whether a camera's name says that its frames are simulated.

    Examples
    --------
    >>> is_simulated("NIKON D7000 (simulated)"), is_simulated("NIKON D7000")
    (True, False)
    """
    return "simulated" in (camera or "").casefold()


def written(value: float, error: float | None = None, unit: str = "") -> str:
    """Write a value with its error to two figures of the error, or that it was not measured.

    Examples
    --------
    >>> written(2.49312, 0.0123, "e-/ADU"), written(41541, 2052), written(0.12345), written(float("nan"))
    ('2.493 ± 0.012 e-/ADU', '41500 ± 2100', '0.123', 'not measured')
    """
    if not math.isfinite(value):
        return "not measured"
    tail = f" {unit}" if unit else ""
    if error is None or not (math.isfinite(error) and error > 0):
        return f"{value:.3g}{tail}"
    rounded = float(f"{error:.1e}")  # 0.0998 is written 0.10
    digits = 1 - math.floor(math.log10(rounded))
    shown = max(digits, 0)
    return f"{round(value, digits):.{shown}f} ± {rounded:.{shown}f}{tail}"
