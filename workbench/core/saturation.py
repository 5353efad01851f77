"""Where frames saturate: the level that their files state, or where values pile up below it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from .errors import FrameReadError
from .mosaic import planes
from .parallel import Frames

_ABOVE_THE_END = 0.01  # of all samples: above a level where one frame's values pile up


def saturation_level(light: xr.DataArray, frames: int = 3) -> float:
    """Return the level [ADU] at which lights saturate: the white level, or where values pile up below; inf if unknown.

    Looked for in a few frames, plane by plane (`piled_level`).  Some cameras saturate below the level they state.
    """
    white = light.attrs["white_level"]
    level = float(white) if math.isfinite(white) else math.inf
    for frame in sampled_lights(light, frames):
        for _, plane in planes(frame, light.attrs["cfa_pattern"]):
            level = min(level, piled_level(plane))
    return level


def piled_level(plane: np.ndarray) -> float:
    """Return the greatest value of a plane [ADU] if values pile up there, as a converter's end makes them; else inf.

    They do where at least eight pixels have it and four times as many as the eight codes below it together.

    Examples
    --------
    >>> values = 16 * np.random.default_rng(1).poisson(1000, 4000)  # 12 bits in 16
    >>> piled_level(values), piled_level(np.minimum(values, 16000))
    (inf, 16000.0)
    """
    whole = plane.dtype.kind in "iu"
    top = plane.max() if whole else np.nanmax(plane, initial=-np.inf)
    if not np.isfinite(top):
        return math.inf
    step = max(int(np.gcd.reduce(plane.ravel()[::7])), 1) if whole else 1
    piled, below = np.count_nonzero(plane == top), np.count_nonzero((plane < top) & (plane >= top - 8.0 * step))
    return float(top) if piled >= 8 and piled > 4 * below else math.inf


def frames_saturate_at(frames: Frames, white: float) -> float:
    """Return the level [ADU] at which frames saturate: the white level, or where values of a frame pile up below."""
    level = math.inf if math.isnan(white) else float(white)
    _, rows = frames.sampled_rows()
    for _, plane in planes(rows, frames.cell):
        found = [piled_level(frame) for frame in plane]  # nothing lies above a converter's end, in no frame
        level = min([level, *(value for value in found if (plane > value).mean() < _ABOVE_THE_END)])
    return level


def sampled_lights(light: xr.DataArray, most: int) -> Iterator[np.ndarray]:
    """Yield frames (y, x) spread over a cube, except what cannot be read: the work on the lights reports that."""
    count = light.sizes["frame"]
    for number in sorted({round(k) for k in np.linspace(0, count - 1, min(most, count))}):
        try:
            yield np.asarray(light.isel(frame=number).values)
        except FrameReadError:
            continue
