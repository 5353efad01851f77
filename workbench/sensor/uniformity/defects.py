"""The sensor's defects, from what was measured: its dark-current map, its flat, its bias frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from ...bayer import channel_index
from ...defects import (
    DEAD_RESPONSE,
    HOT,
    HOT_NOISE,
    UNSTABLE,
    UNSTABLE_EXCESS,
    WARM,
    WARM_SIGMAS,
    defect_map,
    flag_response,
)
from ...errors import WorkbenchError
from .stacks import FrameStack

_CHANCE = 0.01  # ordinary pixels taken for unstable in a whole sensor
_SAMPLE = 400_000  # pixels of a plane that tell its median to a thousandth of the spread
FEWEST = 4  # frames that can tell an unstable pixel


def find_sensor_defects(
    dark_map: xr.DataArray | None = None,
    read_noise: Any = None,
    exposure: float = math.nan,
    *,
    flat: FrameStack | None = None,
    bias: FrameStack | None = None,
    hot_noise: float = HOT_NOISE,
    warm_sigmas: float = WARM_SIGMAS,
    dead_response: float = DEAD_RESPONSE,
    unstable_excess: float = UNSTABLE_EXCESS,
) -> xr.DataArray:
    """Return the sensor's defects, uint8 (y, x) with the bits of `workbench.defects.KINDS`.

    ========  ==========================================================================================
    hot       excess dark current d with σ² + d t > hot_noise² σ², σ² = σ_R² + D t the noise of an ordinary
              pixel in a dark of t seconds; saturated pixels are hot
    warm      excess dark current above warm_sigmas robust standard deviations of its CFA plane
    dead      response below dead_response of the median of its 24 nearest of the same plane, or above its inverse
    unstable  variance over the bias frames more than unstable_excess times its plane's, and not by chance (χ², one
              pixel in a hundred sensors); random-telegraph pixels are
    ========  ==========================================================================================

    A kind that these measurements cannot tell is not in the counts.

    Parameters
    ----------
    dark_map
        The ``map`` of `measure_dark` [e⁻/s], NaN where saturated; of a map in ADU/s only the warm ones are told.
    read_noise
        One a channel [e⁻ rms], for the hot ones.
    exposure
        t [s]: of the darks, or of the lights that are to come.
    flat, bias
        Stacks of flats and of bias frames (`stack_cube`).

    Raises
    ------
    WorkbenchError
        If nothing is given, or the sizes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> current = xr.DataArray(rng.normal(0.1, 0.01, (40, 60)), dims=("y", "x"),
    ...                        attrs={"units": "e-/s", "cfa_pattern": "RGGB"})
    >>> current[3, 4], current[20, 30] = 5.0, 0.3
    >>> find_sensor_defects(current, 3.0, 300.0).attrs["counts"]
    {'hot': 1, 'warm': 2}
    """
    shapes = {tuple(part.shape) for part in (dark_map,) if part is not None}
    shapes |= {stack.mean.shape for stack in (flat, bias) if stack is not None}
    if len(shapes) != 1:
        found = " and ".join(map(str, sorted(shapes))) or "nothing"
        raise WorkbenchError(
            f"defects show in a dark-current map, in flats, in bias frames of one size; given: {found}"
        )
    shape = shapes.pop()
    pattern = dark_map.attrs["cfa_pattern"] if dark_map is not None else (flat or bias).pattern
    cell = channel_index(pattern)
    flags = np.zeros(shape, np.uint8)
    told: dict[str, float] = {}
    for (row, column), channel in np.ndenumerate(cell):
        where = slice(row, None, cell.shape[0]), slice(column, None, cell.shape[0])
        if dark_map is not None:
            told["warm"] = warm_sigmas
            noise = None
            if dark_map.attrs["units"] == "e-/s" and read_noise is not None and exposure > 0:
                noise = float(np.broadcast_to(np.asarray(read_noise, float), (cell.size,))[channel])
            if noise is not None and np.isfinite(noise):
                told["hot"] = hot_noise
            flags[where] |= _dark_flags(dark_map.values[where], noise, exposure, hot_noise, warm_sigmas)
        if flat is not None:
            told["dead"] = dead_response
            dead = np.zeros(flags[where].shape, np.uint8)
            flag_response(flat.mean[where], dead_response, dead)
            flags[where] |= dead
        if bias is not None and bias.count >= FEWEST:
            told["unstable"] = unstable_excess
            flags[where] |= _unstable_flags(bias.variance[where], bias.count, shape[0] * shape[1], unstable_excess)
    names = {"hot": "hot_noise", "warm": "warm_sigmas", "dead": "dead_response", "unstable": "unstable_excess"}
    attrs = {"pixels": int(flags.size), "exposure": float(exposure)}
    if dark_map is not None:
        attrs |= {name: float(dark_map.attrs[name]) for name in ("iso", "temperature") if name in dark_map.attrs}
    result = defect_map(flags, pattern, {names[kind]: value for kind, value in told.items()}, **attrs)
    result.attrs["counts"] = {kind: count for kind, count in result.attrs["counts"].items() if kind in told}
    return result


def _dark_flags(
    current: np.ndarray, noise: float | None, exposure: float, hot_noise: float, warm_sigmas: float
) -> np.ndarray:
    stride = max(1, int(np.sqrt(current.size / _SAMPLE)))
    sample = current[::stride, ::stride]
    sample = sample[np.isfinite(sample)]
    flags = np.zeros(current.shape, np.uint8)
    if not sample.size:
        flags[:] = HOT
        return flags
    middle = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - middle)))
    saturated = ~np.isfinite(current)
    flags[saturated] = HOT
    with np.errstate(invalid="ignore"):
        flags[current > middle + warm_sigmas * spread] |= WARM
        if noise is not None and np.isfinite(noise):
            ordinary = noise**2 + max(middle, 0.0) * exposure
            hot = current > middle + (hot_noise**2 - 1) * ordinary / exposure
            flags[hot] |= HOT
    return flags


def _unstable_flags(variance: np.ndarray, count: int, pixels: int, excess: float) -> np.ndarray:
    """Flag variances that neither the plane's typical one nor chance explains.

    Whole numbers make the variance of a quiet pixel uneven; that of the plane is therefore its mean without the tail,
    at least that of rounding.
    """
    stride = max(1, int(np.sqrt(variance.size / _SAMPLE)))
    sample = variance[::stride, ::stride].ravel()
    ordinary = float(sample[sample <= np.percentile(sample, 99)].mean(dtype=float))
    share = stats.chi2.cdf(stats.chi2.ppf(0.99, count - 1), count + 1) / 0.99  # of the mean below the 99th percentile
    ordinary = max(ordinary / share, 1 / 12)
    chance = float(stats.chi2.isf(_CHANCE / pixels, count - 1)) / (count - 1)
    return np.where(variance > max(excess, chance) * ordinary, UNSTABLE, 0).astype(np.uint8)
