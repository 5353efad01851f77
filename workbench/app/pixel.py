"""One pixel looked into: its number, its electrons, and where its noise comes from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import param
import xarray as xr

from ..core.cube import channels_of
from ..core.dark import dark_current_at
from ..core.errors import WorkbenchError
from ..core.noise import variance_terms
from ..core.values import value_text


class Spot(param.Parameterized):
    """A pixel that several views agree on: its column `x` and row `y`, counted from 0."""

    x = param.Integer(default=0)
    y = param.Integer(default=0)


def channel_at(cfa_pattern: str, y: int, x: int) -> str:
    """Return the name of the channel that a pixel of the mosaic belongs to.

    Examples
    --------
    >>> [channel_at("RGGB", y, x) for y in (0, 1) for x in (0, 1)]
    ['R', 'G1', 'G2', 'B']
    """
    if cfa_pattern == "mono":
        return "mono"
    letter = cfa_pattern[2 * (y % 2) + x % 2]
    if letter != "G":
        return letter
    red_row = cfa_pattern.index("R") // 2
    return "G1" if y % 2 == red_row else "G2"


def pixel_noise(
    value: float,
    *,
    black: float,
    gain: float,
    read_noise: float,
    dark: float = 0.0,
) -> dict[str, float]:
    """Return the electrons of a pixel and what each source adds to its noise [e⁻ rms].

    n = g (y - black); light √(n - D), dark current √D, read noise, rounding g/√12; all together in quadrature.

    Parameters
    ----------
    value, black
        In ADU.
    gain
        In e⁻/ADU.
    read_noise, dark
        In e⁻ rms, and the dark signal D in e⁻.

    Examples
    --------
    >>> {name: round(one, 2) for name, one in pixel_noise(1600, black=600, gain=0.4, read_noise=3.0).items()}
    {'electrons': 400.0, 'light': 20.0, 'dark current': 0.0, 'read noise': 3.0, 'rounding': 0.12, 'all together': 20.22}
    """
    electrons = gain * (value - black)
    terms = variance_terms(max(electrons - dark, 0.0), dark=max(dark, 0.0), read_noise=read_noise, gain=gain)
    parts = {name: math.sqrt(term) for name, term in terms.items() if name != "response"}
    return {"electrons": electrons, **parts, "all together": math.sqrt(sum(part**2 for part in parts.values()))}


def known_noise(
    sensor: xr.Dataset | None, iso: float, channel: str, exposure: float, temperature: float
) -> dict[str, float]:
    """Return what a measured sensor says of a setting: gain, read noise, black level, dark signal; {} if nothing.

    Parameters
    ----------
    sensor
        From `open_sensor`, or ``characterize(...).sensor``.
    exposure, temperature
        Of the frame [s, °C], for the dark signal; where these or the law are not known it is 0.
    """
    if sensor is None or not sensor.sizes.get("iso"):
        return {}
    where = np.flatnonzero(sensor["iso"].values == iso)
    if not where.size or channel not in sensor["channel"].values:
        return {}
    one = sensor.isel(iso=where[0]).sel(channel=channel)
    gain, noise, black = (float(one[name]) for name in ("gain", "read_noise", "black_level"))
    if not math.isfinite(gain):
        return {}
    dark = dark_current_at(sensor, temperature)[0] * exposure
    dark = dark if math.isfinite(dark) else 0.0
    return {"gain": gain, "read_noise": noise if math.isfinite(noise) else 0.0, "black": black, "dark": dark}


def pixel_table(mosaic: np.ndarray, row: Any, y: int, x: int, sensor: xr.Dataset | None = None) -> pd.DataFrame:
    """Tabulate one pixel of a raw frame: its number, its colour and, where the sensor is known, its noise budget.

    Parameters
    ----------
    mosaic
        (y, x), as `read_frame` gives it [ADU].
    row
        The frame's row of a folder's table.
    sensor
        The measured sensor.

    Raises
    ------
    WorkbenchError
        If the pixel lies outside of the frame.

    Examples
    --------
    >>> frame = np.full((4, 4), 1600, "uint16")
    >>> row = {"cfa_pattern": "RGGB", "iso": 800.0, "exposure": 60.0, "temperature": 20.0, "black_level": (600.0,) * 4}
    >>> pixel_table(frame, row, 1, 2)
                             value
    pixel         column 2, row 1
    channel                    G2
    number              1,600 ADU
    above black         1,000 ADU
    """
    if not (0 <= y < mosaic.shape[0] and 0 <= x < mosaic.shape[1]):
        raise WorkbenchError(f"column {x}, row {y} lies outside of the frame of {mosaic.shape[1]} x {mosaic.shape[0]}")
    channel = channel_at(row["cfa_pattern"], y, x)
    number = float(mosaic[y, x])
    known = known_noise(sensor, float(row["iso"]), channel, float(row["exposure"]), float(row["temperature"]))
    black = known.get("black", math.nan)
    if not math.isfinite(black):
        black = float(np.ravel(row["black_level"])[channels_of(row["cfa_pattern"]).index(channel)])
    lines = {"pixel": f"column {x}, row {y}", "channel": channel, "number": f"{number:,.0f} ADU"}
    if math.isfinite(black):
        lines["above black"] = (
            f"{number - black:,.5g} ADU" if abs(number - black) < 1000 else f"{number - black:,.0f} ADU"
        )
    if known and math.isfinite(black):
        parts = pixel_noise(number, **(known | {"black": black}))
        lines["electrons"] = value_text(parts.pop("electrons"), parts["all together"], "e⁻")
        lines |= {f"noise: {name}": f"{value:.2f} e⁻" for name, value in parts.items()}
    return pd.DataFrame({"value": lines})
