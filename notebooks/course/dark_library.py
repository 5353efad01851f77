"""Notebook 06: the dark library's prediction beside a dark that it has not seen."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import xarray as xr

from workbench import charts
from workbench.charts.words import degrees
from workbench.core.dark import predict_dark
from workbench.pixels.uniformity import stack_cube
from workbench.sensor.library import fit_dark_library


def settings(dark: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Name the exposures and temperatures of the darks that can be held out, the middle ones first.

    Of the ISO with the most darks; a control chooses among them.
    """
    cube = _busiest(dark)
    pairs = sorted(set(zip(cube["temperature"].values.tolist(), cube["exposure"].values.tolist(), strict=True)))
    order = sorted(range(len(pairs)), key=lambda number: abs(number - len(pairs) / 2))
    return {f"{pairs[k][1]:g} s at {degrees(pairs[k][0])}": pairs[k][::-1] for k in order}


def _busiest(dark: xr.DataArray) -> xr.DataArray:
    isos, counts = np.unique(dark["iso"].values, return_counts=True)
    return dark.isel(frame=np.flatnonzero(dark["iso"].values == isos[np.argmax(counts)]))


def held_out(dark: xr.DataArray, bias: xr.DataArray, setting: tuple[float, float]) -> hv.Layout:
    """Fit a library without the darks of one exposure and temperature, and chart its prediction beside them.

    Parameters
    ----------
    setting
        From `settings`: exposure [s] and temperature [°C].
    """
    cube = _busiest(dark)
    same = (cube["exposure"].values == setting[0]) & (cube["temperature"].values == setting[1])
    library = fit_dark_library(cube.isel(frame=np.flatnonzero(~same)), bias, progress=False)
    stack = stack_cube(cube.isel(frame=np.flatnonzero(same)), progress=False)
    predicted = predict_dark(library, *setting)
    # hot pixels scatter by their own shot noise in the measured darks, too
    slope = np.mean(library.attrs["shot_slope"])
    quiet = float(np.mean(library.attrs["read_variance"]))
    noise = (quiet + slope * np.maximum(predicted["signal"].values - library["offset"].values, 0)) / stack.count
    full = 0.97 * library.attrs["white_level"]  # above it some of the frames saturate, and their mean is low
    seen = np.where(stack.mean > full, np.nan, stack.mean) if np.isfinite(full) else stack.mean
    measured = xr.Dataset({"signal": (("y", "x"), seen), "variance": (("y", "x"), noise)})
    return charts.dark_prediction(predicted, measured)
