"""The sensor's defects, from what was measured: its dark-current map, its flat, its bias frames."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numba
import numpy as np
import xarray as xr
from scipy import special

from ..core.defects import (
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
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.parallel import in_threads
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
    lasting = dark_map is not None and dark_map.attrs["units"] == "e-/s" and read_noise is not None and exposure > 0
    noises = np.broadcast_to(np.asarray(read_noise, float) if lasting else np.nan, (cell.size,))
    if dark_map is not None:
        told["warm"] = warm_sigmas
        if np.isfinite(noises).any():
            told["hot"] = hot_noise
    if flat is not None:
        told["dead"] = dead_response
    steady = bias is not None and bias.count >= FEWEST
    if steady:
        told["unstable"] = unstable_excess

    def flag(plane: tuple[tuple[int, int], int]) -> None:
        (row, column), channel = plane
        where = slice(row, None, cell.shape[0]), slice(column, None, cell.shape[0])
        found = np.zeros(flags[where].shape, np.uint8)
        if flat is not None:
            flag_response(flat.mean[where], dead_response, found)
        if dark_map is not None:
            _flag_dark(dark_map.values[where], noises[channel], exposure, hot_noise, warm_sigmas, found)
        if steady:
            _flag_unstable(bias.variance[where], bias.count, flags.size, unstable_excess, found)
        flags[where] = found

    deque(in_threads(flag, np.ndenumerate(cell)), maxlen=0)
    names = {"hot": "hot_noise", "warm": "warm_sigmas", "dead": "dead_response", "unstable": "unstable_excess"}
    attrs = {"pixels": int(flags.size), "exposure": float(exposure)}
    if dark_map is not None:
        attrs |= {name: float(dark_map.attrs[name]) for name in ("iso", "temperature") if name in dark_map.attrs}
    result = defect_map(flags, pattern, {names[kind]: value for kind, value in told.items()}, **attrs)
    result.attrs["counts"] = {kind: count for kind, count in result.attrs["counts"].items() if kind in told}
    return result


def _flag_dark(
    current: np.ndarray, noise: float, exposure: float, hot_noise: float, warm_sigmas: float, flags: np.ndarray
) -> None:
    sample = _sample(current)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        flags |= HOT
        return
    middle = float(np.median(sample))
    spread = 1.4826 * float(np.median(np.abs(sample - middle)))
    hot = np.inf
    if np.isfinite(noise):
        ordinary = noise**2 + max(middle, 0.0) * exposure
        hot = middle + (hot_noise**2 - 1) * ordinary / exposure
    _flag_above(current, np.float32(middle + warm_sigmas * spread), WARM, flags)
    _flag_above(current, np.float32(hot), HOT, flags)
    flags[~np.isfinite(current)] |= HOT  # saturated


@numba.njit(nogil=True, cache=True)
def _flag_above(values, limit, bit, flags):
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            if values[y, x] > limit:
                flags[y, x] |= bit


def _sample(plane: np.ndarray) -> np.ndarray:
    stride = max(1, int(np.sqrt(plane.size / _SAMPLE)))
    return plane[::stride, ::stride]


def _flag_unstable(variance: np.ndarray, count: int, pixels: int, excess: float, flags: np.ndarray) -> None:
    """Flag variances that neither the plane's typical one nor chance explains.

    Whole numbers make the variance of a quiet pixel uneven; that of the plane is therefore its mean without the tail,
    at least that of rounding.
    """
    sample = _sample(variance).ravel()
    ordinary = float(sample[sample <= np.percentile(sample, 99)].mean(dtype=float))
    degrees = count - 1
    # of the mean, the share below the 99th percentile
    share = special.chdtr(degrees + 2, special.chdtri(degrees, 0.01)) / 0.99
    ordinary = max(ordinary / share, 1 / 12)
    chance = float(special.chdtri(degrees, _CHANCE / pixels)) / degrees
    _flag_above(variance, np.float32(max(excess, chance) * ordinary), UNSTABLE, flags)
