"""A quantity with its error, as the file and the reports have it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .vocabulary import DETAILS, METHODS, SETTINGS


def json_number(value: float) -> float | int | None:
    """Return a number as JSON has it: null for what is not finite, whole numbers without a point."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def json_quantity(value: float, error: float, unit: str) -> dict[str, Any] | None:
    """Return a value with its error and unit as JSON has them; None where it is not measured."""
    if not math.isfinite(value):
        return None
    return {"value": float(value), "error": float(error) if math.isfinite(error) else None, "unit": unit}


def at_lowest_iso(data: xr.Dataset, key: str, more: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return a quantity of the lowest ISO that has it, of its first green or the only channel there.

    Green, because cameras that multiply colours before saving leave it as it is: a multiplied colour ends at fewer
    electrons, for the scale's sake and not the pixel's.

    Parameters
    ----------
    data
        Over (iso, channel), with ``key`` and its ``_error``.
    more
        Names for what goes with it, and the variable that each is.

    Returns
    -------
    dict or None
        ``iso``, ``channel``, ``value``, ``error``, ``unit`` and what was asked for; None where nothing is measured.
    """
    for iso in np.argsort(data["iso"].values):
        known = data.isel(iso=iso, channel=np.flatnonzero(np.isfinite(data[key].values[iso])))
        if known.sizes["channel"]:
            names = known["channel"].values.tolist()
            one = known.sel(channel=next((name for name in ("G1", "G2") if name in names), names[0]))
            found = {"iso": json_number(one["iso"].item()), "channel": str(one["channel"].item())}
            found |= json_quantity(one[key].item(), one[f"{key}_error"].item(), (SETTINGS | DETAILS)[key]) or {}
            for name, source in (more or {}).items():
                value = one[source].item()
                found[name] = (value or None) if source in METHODS else json_number(value)
            return found
    return None


def place_of(quantity: Mapping[str, Any], *, why: bool = False) -> str:
    """Say in words where a quantity of `at_lowest_iso` holds, and why there.

    Examples
    --------
    >>> place_of({"iso": 100, "channel": "G1"}), place_of({"iso": None, "channel": "mono"})
    ('ISO 100, G1', '')
    >>> place_of({"iso": 100, "channel": "G1"}, why=True)
    'ISO 100, G1: cameras may multiply red and blue, green never'
    """
    channel = quantity["channel"]
    parts = [f"ISO {quantity['iso']:g}"] if quantity["iso"] is not None else []
    place = ", ".join([*parts, *([] if channel == "mono" else [channel])])
    return place + (": cameras may multiply red and blue, green never" if why and channel in ("G1", "G2") else "")
