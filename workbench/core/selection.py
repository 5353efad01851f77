"""Which frames belong together, what was measured at each of their settings, and how messages name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .statistics import mad_std

Setting = dict[str, float]


def group_frames(cube: xr.DataArray, *coords: str) -> list[tuple[Setting, np.ndarray]]:
    """Return each combination of these coordinates' values with the numbers of its frames, in rising order.

    Frames in which a value is not known (NaN) form groups of their own.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> cube = make_cube(np.zeros((3, 2, 2), "uint16"), cfa_pattern="RGGB", kind="bias", iso=[200, 100, 200])
    >>> [(setting["iso"], frames.tolist()) for setting, frames in group_frames(cube, "iso")]
    [(100.0, [1]), (200.0, [0, 2])]
    """
    keys = np.stack([np.asarray(cube[name].values, float) for name in coords], axis=1)
    values, number = np.unique(np.where(np.isnan(keys), np.inf, keys), axis=0, return_inverse=True)
    number = number.reshape(-1)
    groups = []
    for index, key in enumerate(values):
        setting = {name: float(np.nan if np.isinf(value) else value) for name, value in zip(coords, key, strict=True)}
        groups.append((setting, np.flatnonzero(number == index)))
    return groups


def evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many of the numbers 0 to count − 1, evenly spread, the first and the last among them.

    Examples
    --------
    >>> evenly(3, 5).tolist(), evenly(9, 3).tolist()
    ([0, 1, 2], [0, 4, 8])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def same_iso(values: np.ndarray, iso: float) -> np.ndarray:
    """Flag where the ISO is this one; frames that state none (NaN) are of one setting."""
    return np.isnan(values) if np.isnan(iso) else np.asarray(values) == iso


def at_iso(values: xr.DataArray, iso: float) -> np.ndarray:
    """Return a result's values at an ISO, NaN where it was not measured there.

    Examples
    --------
    >>> gain = xr.DataArray([[2.0, 2.1], [1.0, 1.1]], dims=("iso", "channel"), coords={"iso": [100.0, 200.0]})
    >>> at_iso(gain, 200).tolist(), at_iso(gain, 400).tolist()
    ([1.0, 1.1], [nan, nan])
    """
    where = np.flatnonzero(same_iso(values["iso"].values, iso))
    return values.values[where[0]] if where.size else np.full(values.shape[1:], np.nan)


def at_isos(values: xr.DataArray, isos: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return a result's values (iso, channel) at several ISO settings, as `at_iso` does at one."""
    found = [at_iso(values, iso) for iso in isos]
    return np.reshape(found, (len(found), *values.shape[1:]))


Table = dict[str, tuple[str, str]]  # of quantities: name, units (empty for text), title


def with_errors(table: Table) -> Table:
    """Return a table of quantities with a row for the error of each."""
    rows: Table = {}
    for name, (units, title) in table.items():
        rows |= {name: (units, title), f"{name}_error": (units, f"error of the {title}")}
    return rows


def per_channel(
    table: Table, rows: Sequence[Sequence[Mapping[str, Any]]], isos: Any, channels: Sequence[str], **attrs: Any
) -> xr.Dataset:
    """Return what was measured of each ISO and channel as variables over (iso, channel).

    Parameters
    ----------
    table
        The quantities.
    rows
        For each ISO and channel the values found, by name; what is missing is NaN, or empty text.
    **attrs
        Of the Dataset.

    Examples
    --------
    >>> found = per_channel({"gain": ("e-/ADU", "gain")}, [[{"gain": 2.0}, {}]], [100.0], ["G1", "G2"])
    >>> found.gain.values.tolist(), found.gain.attrs["units"]
    ([[2.0, nan]], 'e-/ADU')
    """
    data = {}
    for name, (units, title) in table.items():
        missing, about = (np.nan, {"units": units}) if units else ("", {})
        values = [[one.get(name, missing) for one in row] for row in rows]
        shape = (len(rows), len(channels))
        data[name] = (("iso", "channel"), np.array(values, float if units else object).reshape(shape), about)
        data[name][2]["long_name"] = title
    coords = {"iso": ("iso", np.asarray(isos, float), {"long_name": "ISO setting"}), "channel": list(channels)}
    return xr.Dataset(data, coords, attrs)


def channel_warnings(what: str, iso: float, channels: Sequence[str], problems: Sequence[str]) -> list[str]:
    """Return one warning for each problem that channels have at an ISO, with the channels that have it.

    Examples
    --------
    >>> channel_warnings("gain", 100, ["R", "G1", "G2"], ["too dark", "", "too dark"])
    ['gain at ISO 100 (R, G2): too dark']
    """
    named: dict[str, list[str]] = {}
    for channel, problem in zip(channels, problems, strict=True):
        if problem:
            named.setdefault(problem, []).append(str(channel))
    return [f"{what} at {describe({'iso': iso})} ({', '.join(names)}): {text}" for text, names in named.items()]


def describe(setting: Setting) -> str:
    """Write a setting as text: ``ISO 100, 1/30 s, f/5.6, 20 °C``.

    Examples
    --------
    >>> describe({"iso": 100, "exposure": 1 / 30, "aperture": float("nan")})
    'ISO 100, 1/30 s'
    """
    words = []
    for name, value in setting.items():
        if name == "iso":
            words.append("ISO not stated" if np.isnan(value) else f"ISO {value:g}")
        elif np.isnan(value):
            continue
        elif name == "exposure":
            words.append(f"1/{1 / value:.4g} s" if 0 < value < 0.3 else f"{value:.4g} s")
        elif name == "aperture":
            words.append(f"f/{value:g}")
        elif name == "temperature":
            words.append(f"{value:g} °C")
    return ", ".join(words) or "settings not stated"


def listed(names: Sequence[str] | np.ndarray, at_most: int = 4) -> str:
    """Join file names for a message, the first few and how many more."""
    shown = [str(name) or "a frame without a name" for name in names[:at_most]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def odd_ones_out(means: np.ndarray, tolerance: np.ndarray | float) -> np.ndarray:
    """Return the numbers of the frames whose mean lies off their group's median: by more than `tolerance` [ADU]
    and by more than six robust standard deviations of the group.

    Of two frames either may be the odd one; both are returned.
    """
    deviation = np.abs(means - np.median(means))
    if means.size < 2:
        return np.empty(0, int)
    spread = mad_std(means) if means.size > 2 else 0.0
    return np.flatnonzero(deviation > np.maximum(tolerance, 6 * spread))
