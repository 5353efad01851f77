"""Defects of the sensor: hot, warm, dead and unstable pixels, by thresholds that say what they cost."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import ndimage

from ..bayer import channel_index
from ..errors import WorkbenchError

HOT, WARM, DEAD, UNSTABLE = 1, 2, 4, 8
KINDS = {"hot": HOT, "warm": WARM, "dead": DEAD, "unstable": UNSTABLE}
FILLED = HOT | DEAD | UNSTABLE  # a warm pixel is only noisier; its dark signal is subtracted and its variance knows

HOT_NOISE = 2.0  # hot: its own dark shot noise makes the pixel's noise this many times that of its neighbours
WARM_SIGMAS = 8.0  # warm: its dark signal lies this many robust standard deviations above its plane's
DEAD_RESPONSE = 0.7  # dead: less than this of its neighbours' response to light, or more than its inverse
UNSTABLE_EXCESS = 2.5  # unstable: its variance is this many times the noise model's, and not by chance


def find_defects(
    dark: xr.Dataset | None = None,
    flat: xr.Dataset | None = None,
    *,
    hot_noise: float = HOT_NOISE,
    warm_sigmas: float = WARM_SIGMAS,
    dead_response: float = DEAD_RESPONSE,
    unstable_excess: float = UNSTABLE_EXCESS,
) -> xr.DataArray:
    """Return the defects that the masters show, uint8 (y, x) with the bits of `KINDS`.

    ========  ==========================================================================================
    hot       excess dark signal d [e-] with σ² + d > hot_noise² σ², σ the noise of an ordinary pixel in one dark
    warm      excess dark signal above warm_sigmas robust standard deviations of its CFA plane
    dead      response below dead_response of the median of its 24 nearest of the same plane, or above its inverse
    unstable  samples that scatter more than unstable_excess times the model's variance, and not by chance
    ========  ==========================================================================================

    The attributes state the thresholds and how many pixels each found.

    Raises
    ------
    WorkbenchError
        If neither master is given, or they differ in size.
    """
    masters = [master for master in (dark, flat) if master is not None]
    if not masters:
        raise WorkbenchError("defects show in darks and flats; give a master dark or a master flat")
    if len({(master.sizes["y"], master.sizes["x"]) for master in masters}) > 1:
        raise WorkbenchError("the master dark and the master flat differ in size: they do not belong together")
    pattern = masters[0].attrs["cfa_pattern"]
    cell = channel_index(pattern)
    flags = np.zeros((masters[0].sizes["y"], masters[0].sizes["x"]), np.uint8)
    for (row, column), channel in np.ndenumerate(cell):
        plane = (slice(row, None, cell.shape[0]), slice(column, None, cell.shape[1]))
        if dark is not None:
            flags[plane] |= _in_dark(dark, plane, int(channel), hot_noise, warm_sigmas, unstable_excess)
        if flat is not None:
            flags[plane] |= _in_flat(flat["signal"].values[plane], dead_response)
    counts = {name: int(np.count_nonzero(flags & bit)) for name, bit in KINDS.items()}
    return xr.DataArray(
        flags,
        dims=("y", "x"),
        attrs={
            "long_name": "defects",
            "cfa_pattern": pattern,
            "flag_masks": list(KINDS.values()),
            "flag_meanings": " ".join(KINDS),
            "counts": counts,
            "filled": int(np.count_nonzero(flags & FILLED)),
            "thresholds": {
                "hot_noise": hot_noise,
                "warm_sigmas": warm_sigmas,
                "dead_response": dead_response,
                "unstable_excess": unstable_excess,
            },
        },
    )


def _in_dark(
    dark: xr.Dataset, plane: tuple, channel: int, hot_noise: float, warm_sigmas: float, unstable_excess: float
) -> np.ndarray:
    level = dark["signal"].values[plane]
    count, variance = dark["count"].values[plane], dark["variance"].values[plane]
    middle = float(np.nanmedian(level))
    spread = 1.4826 * float(np.nanmedian(np.abs(level - middle)))
    excess = level - middle
    b = np.reshape(dark.attrs["model"], (-1, 2))[channel, 1]
    ordinary = float(np.nanmedian(variance * count))  # [ADU²] of one frame
    flags = np.zeros(level.shape, np.uint8)
    flags[excess > warm_sigmas * spread] |= WARM
    # where the gain is not known (b = 0) the frames' scatter is the only word on noise
    noisy = b * excess > (hot_noise**2 - 1) * ordinary if b > 0 else variance * count > hot_noise**2 * ordinary
    flags[noisy & (excess > warm_sigmas * spread)] |= HOT
    white = dark.attrs["white_level"]
    if np.isfinite(white):
        flags[level >= 0.98 * white] |= HOT
    model = ordinary + b * np.maximum(excess, 0)
    unstable = dark["unstable"].values[plane] & (variance * count > unstable_excess * model)
    flags[unstable] |= UNSTABLE
    flags[~np.isfinite(level)] |= HOT
    return flags


def _in_flat(response: np.ndarray, least: float) -> np.ndarray:
    around = ndimage.median_filter(np.where(np.isfinite(response), response, 0.0), size=5, mode="reflect")
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = response / around
        # where the surroundings are dark as well it is not the pixel but the flat that is missing
        return np.where((around > 0) & ((ratio < least) | (ratio > 1 / least)), DEAD, 0).astype(np.uint8)
