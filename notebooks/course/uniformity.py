"""Notebook 06: fixed patterns, their spectrograms, defects, EMVA 1288, each with a control."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from workbench import charts
from workbench.charts import theme
from workbench.core.values import unit_text, value_text
from workbench.pipelines.uniformity import Uniformity
from workbench.pixels.emva import emva_unit, fixed_pattern
from workbench.pixels.maps import find_sensor_defects
from workbench.pixels.stacks import FrameStack

_FRAMES = theme.dimension("frames averaged")
_SPREAD = theme.dimension("standard deviation over the pixels", "ADU")
_EMVA = ("K", "sigma_d", "u_e_min", "u_e_sat", "SNR_max_dB", "DR_dB", "LE_min", "LE_max", "u_I_mean", "DSNU1288",
         "DSNU1288_row", "DSNU1288_col", "DSNU1288_pixel", "PRNU1288", "PRNU1288_highpass")  # fmt: skip

_SYMBOL = {"sigma_d": "σ_d", "u_e_min": "μ_e.min", "u_e_sat": "μ_e.sat", "SNR_max_dB": "SNR_max", "DR_dB": "DR",
           "u_I_mean": "μ_I", "DSNU1288_row": "DSNU1288, rows", "DSNU1288_col": "DSNU1288, columns",
           "DSNU1288_pixel": "DSNU1288, pixels", "PRNU1288_highpass": "PRNU1288, high-passed"}  # fmt: skip


def spread_of_mean(stack: FrameStack, frames: int, channel: int = 1) -> hv.Layout:
    """Chart how noise and pattern in a mean of frames change with their number: the noise falls, the pattern stays.

    σ/√n, the fixed pattern s, and what both make of the spread over the pixels, √(σ²/n + s²), with the temporal
    variance σ² of the stack; the points are the mean of so many.

    Parameters
    ----------
    stack
        From `sensor.stack_cube`.
    frames
        Where the point is drawn.
    """
    channel = min(channel, stack.black.size - 1)
    noise = float(stack.plane("variance", channel).mean(dtype=float))
    pattern = math.sqrt(max(float(stack.common(channel).value[0]), 0.0))
    count = np.geomspace(1, 1000, 100)
    spread = np.sqrt(noise / count + pattern**2)
    dims = (_FRAMES, _SPREAD)
    elements: list[Any] = [
        theme.line(count, spread, dims=dims, label="both: what one sees"),
        theme.line(count, np.sqrt(noise / count), dims=dims, label="noise that is left in the mean", dash="dotted"),
        theme.line([1, 1000], [pattern, pattern], dims=dims, label=f"fixed pattern, {pattern:.3f} ADU", dash="dashed"),
        theme.points([frames] * 2, [math.sqrt(noise / frames + pattern**2), math.sqrt(noise / frames)], dims=dims,
                     label=f"{frames} frames", size=12),
    ]  # fmt: skip
    title = f"{frames} frames: the pattern is known to {math.sqrt(noise / frames):.2g} ADU"
    return theme.layout([theme.panel(elements, title=title, log="xy")])


def fixed_patterns(zero: FrameStack, flats: FrameStack, channel: str) -> hv.Layout:
    """Show the fixed pattern of bias frames and of flats in a channel."""
    return charts.fixed_pattern(fixed_pattern(zero, channel), fixed_pattern(flats, channel, relative=True))


def spectrograms(zero: FrameStack, flats: FrameStack, channel: str) -> hv.Layout:
    """Show their spectrograms."""
    return charts.spectrogram(fixed_pattern(zero, channel), fixed_pattern(flats, channel, relative=True))


def sensor_defects(
    dark_map: xr.DataArray, noise: np.ndarray, zero: FrameStack, flats: FrameStack, exposure: float, hot_noise: float
) -> hv.Layout:
    """Show the defects for an exposure [s] and a threshold; see `pixels.find_sensor_defects`."""
    found = find_sensor_defects(dark_map, noise, exposure, flat=flats, bias=zero, hot_noise=hot_noise)
    return charts.defects(found)


def emva_table(measured: Uniformity) -> pd.DataFrame:
    """Tabulate what EMVA 1288 calls the sensor's numbers, a column for each channel."""
    found = measured.emva
    rows = {}
    for name in _EMVA:
        values = {channel: one.get(name, math.nan) for channel, one in found.items()}
        if any(math.isfinite(value) for value in values.values()):
            rows[f"{_SYMBOL.get(name, name)} [{unit_text(emva_unit(name))}]"] = {
                channel: value_text(value).replace("-", "−") if math.isfinite(value) else "–"
                for channel, value in values.items()
            }
    return pd.DataFrame.from_dict(rows, orient="index")
