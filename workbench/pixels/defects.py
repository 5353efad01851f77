"""The sensor's defects, from what was measured: its dark-current map, its flat, its bias frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import chdtr, chdtri

from ..core.defects import Thresholds, UnlitFrames, flag_defects, sample_pixels
from ..core.mosaic import channel_index, planes
from .stacks import FrameStack


def find_sensor_defects(
    dark_map: xr.DataArray | None = None,
    read_noise: Any = None,
    exposure: float = math.nan,
    *,
    flat: FrameStack | None = None,
    bias: FrameStack | None = None,
    **thresholds: float,
) -> xr.DataArray:
    """Return the sensor's defects, uint8 (y, x) with the bits of `workbench.core.defects.KINDS`.

    The noise of an ordinary pixel in a dark of t seconds is σ² = σ_R² + D t, D the median dark current of its CFA
    plane; what hot, warm, dead and unstable mean is defined in `workbench.core.defects.flag_defects`.  A kind that
    these measurements cannot show is not in the counts.

    Parameters
    ----------
    dark_map
        The ``map`` of `measure_dark` [e⁻/s], NaN where saturated; a map in ADU/s shows only the warm ones.
    read_noise
        σ_R, one a channel [e⁻ rms], for the hot ones.
    exposure
        t [s]: of the darks, or of the lights that are to come.
    flat, bias
        Stacks of flats and of bias frames (`stack_cube`).
    thresholds
        Those of `workbench.core.defects.Thresholds` that are to differ from its defaults.

    Raises
    ------
    WorkbenchError
        If nothing is given, or the sizes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> current = xr.DataArray(rng.normal(0.1, 0.01, (40, 60)), dims=("y", "x"),
    ...                        attrs={"units": "electron / s", "cfa_pattern": "RGGB"})
    >>> current[3, 4], current[20, 30] = 5.0, 0.3
    >>> find_sensor_defects(current, 3.0, 300.0).attrs["counts"]
    {'hot': 1, 'warm': 2}
    """
    dark = steady = None
    attrs: dict[str, Any] = {"exposure": float(exposure)}
    if dark_map is not None:
        dark = _dark_frames(dark_map, read_noise, exposure)
        attrs |= {name: float(dark_map.attrs[name]) for name in ("iso", "temperature") if name in dark_map.attrs}
    if bias is not None and bias.variance is not None:
        channels = channel_index(bias.pattern).size
        ordinary = [_ordinary_variance(variance, bias.count) for _, variance in planes(bias.variance, bias.pattern)]
        steady = UnlitFrames(bias.mean, np.array(ordinary), np.zeros(channels), bias.variance, bias.count)
    pattern = dark_map.attrs["cfa_pattern"] if dark_map is not None else getattr(flat or bias, "pattern", "mono")
    response = None if flat is None else flat.mean
    found = flag_defects(
        pattern, dark=dark, steady=steady, response=response, thresholds=Thresholds(**thresholds), **attrs
    )
    return found.assign_attrs(pixels=found.size)


def _dark_frames(dark_map: xr.DataArray, read_noise: Any, exposure: float) -> UnlitFrames:
    """Return the dark-current map [e⁻/s] with the noise [e⁻] of darks of this exposure; NaN where it is not known."""
    pattern = dark_map.attrs["cfa_pattern"]
    channels = channel_index(pattern).size
    known = dark_map.attrs["units"] == "electron / s" and read_noise is not None and exposure > 0
    noise = np.broadcast_to(np.asarray(read_noise, float) if known else np.nan, (channels,))
    samples = [sample_pixels(plane) for _, plane in planes(dark_map.values, pattern)]
    current = np.array([max(float(np.median(sample)), 0.0) if sample.size else 0.0 for sample in samples])
    ordinary = noise**2 + (current * exposure if known else 0.0)
    return UnlitFrames(dark_map.values, ordinary, np.full(channels, exposure if known else 0.0))


def _ordinary_variance(variance: np.ndarray, count: int) -> float:
    """Return the variance of an ordinary pixel of a plane of bias frames [ADU²], at least that of rounding.

    Whole numbers make the variance of a quiet pixel uneven, so that a median would not do; it is the mean without the
    largest hundredth, which has a known share of it (χ² of count - 1 degrees of freedom).
    """
    sample = sample_pixels(variance)
    degrees = count - 1
    ordinary = float(sample[sample <= np.percentile(sample, 99)].mean(dtype=float))
    share = chdtr(degrees + 2, chdtri(degrees, 0.01)) / 0.99
    return max(ordinary / share, 1 / 12)
