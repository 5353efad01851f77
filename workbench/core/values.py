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


def value_text(value: float, error: float | None = None, unit: str = "") -> str:
    """Write a value with its standard error to two figures of the error, or to three figures where there is no error.

    Examples
    --------
    >>> value_text(2.49312, 0.0123, "e⁻/ADU"), value_text(199.4, 2.61), value_text(31234.0, 250.0, "e⁻")
    ('2.493 ± 0.012 e⁻/ADU', '199.4 ± 2.6', '31,230 ± 250 e⁻')
    >>> value_text(0.1234), value_text(float("nan"))
    ('0.123', 'not measured')
    """
    tail = f" {unit}" if unit else ""
    if not math.isfinite(value):
        return "not measured"
    if error is None or not math.isfinite(error) or error <= 0:
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{round(value, digits):,.{digits}f}{tail}"
    rounded = float(f"{error:.1e}")  # 0.0998 is written 0.10
    digits = 1 - math.floor(math.log10(rounded))
    shown = max(digits, 0)
    return f"{round(value, digits):,.{shown}f} ± {rounded:,.{shown}f}{tail}"
