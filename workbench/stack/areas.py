"""The variance of means over areas of any size: the wider an area, the more of the masters' noise its frames share.

A stack's ``variance`` is that of areas of 16 pixels (see `normalise`).  In wider ones the dithers separate the frames
less: with 16 bias frames, darks and flats and 20 lights dithered by 12 pixels the variance of means over 128 pixels is
1.09 to 1.16 times what it states, and more with more lights.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.values import attribute_dict
from .normalise import AREA, common_share

SMALL = 8  # [pixels] side of the smallest areas
SIDES = (SMALL, AREA, 32, 64, 128, 256, 512)  # [pixels]
_KNOWN = 0.01  # of the masters' noise: with less of it shared in areas of 16 pixels, what wider ones share is not known
_PLACES = 4  # along each axis, at least, of the blocks that stand for all


def area_growth(
    places: np.ndarray, weight: np.ndarray, small: dict[str, float], scale: float = 1.0
) -> dict[str, list[float]]:
    """Return the variance of areas of each ``side`` [pixels] over that of 16.

    ``shared`` for the part that frames share, empty where they share next to nothing in 16 pixels; by channel for the
    whole: what a sample's noise loses over an area's edge is inverse to the side.

    Parameters
    ----------
    places, weight
        Where blocks lie in each frame (frame, 2, band, block) [px], and the frames' weights; see `common_share`.
    small
        `white_noise` of areas of 8 pixels over that of 16, by channel.
    scale
        Pixels of the stack for one of the frames, along an axis.

    Examples
    --------
    >>> places = np.array([[0.0, 0.0], [8.0, 0.0]])[:, :, None, None]  # 16 pixels share half, 32 three quarters
    >>> growth = area_growth(places, np.ones(2), {"R": 0.963})
    >>> [(side, round(shared, 3), round(own, 3)) for side, shared, own in list(zip(*growth.values()))[:3]]
    [(8, 0.0, 0.963), (16, 1.0, 1.0), (32, 1.5, 1.018)]
    """
    steps = [max(size // _PLACES, 1) for size in places.shape[2:]]
    some = places[:, :, *(slice(step // 2, None, step) for step in steps)].astype(float).reshape(*places.shape[:2], -1)
    pixel, *areas = (common_share(some, weight, side).mean() for side in (1.0, *np.array(SIDES) / scale))
    rise = np.array(areas) - pixel
    shared = np.ones(len(SIDES))
    if rise[-1] > _KNOWN:  # else single pixels share all already
        shared = rise / rise[1] if rise[1] > _KNOWN else np.empty(0)
    own = {name: 1 + (1 - ratio) * (1 - AREA / np.array(SIDES)) for name, ratio in small.items()}
    return {"side": [*SIDES]} | {name: values.tolist() for name, values in {"shared": shared, **own}.items()}


def area_variance(stack: xr.Dataset, side: float) -> xr.DataArray:
    """Return the variance of areas of `side` x `side` pixels, lazily, as ``variance`` states it for 16 x 16.

    Parameters
    ----------
    stack
        What `open_stack` or `stack` gives.
    side
        [pixels], 8 to 512.

    Returns
    -------
    Equivalent white noise (channel, y, x) [e-²]: divided by the number of pixels it is the variance of their mean.

    Raises
    ------
    WorkbenchError
        If the side is out of range, the stack is of an earlier version, or its frames lie so far apart that areas of 16
        pixels do not show what wider ones share.

    Examples
    --------
    >>> stack = open_stack("stack.fits")  # doctest: +SKIP
    >>> area_variance(stack, 100).sel(channel="R")[500:600, 700:800].mean() / 100**2  # doctest: +SKIP
    """
    growth = attribute_dict(stack.attrs, "area_growth")
    if not growth or "shared_variance" not in stack:
        raise WorkbenchError("this stack does not hold what areas share (an earlier version's): make it again")
    sides = np.array(growth["side"], float)
    if not sides[0] <= side <= sides[-1]:
        raise WorkbenchError(f"areas are {sides[0]:g} to {sides[-1]:g} pixels wide; got {side:g}")
    if not growth["shared"]:
        raise WorkbenchError(
            "the lights lie so far apart that areas of 16 pixels share next to nothing of the masters' noise: what "
            "wider areas share is not known"
        )
    shared, *own = (
        float(np.interp(-1 / side, -1 / sides, growth[name])) for name in ("shared", *stack["channel"].values)
    )
    whole = stack["variance"] + (shared - 1) * stack["shared_variance"]
    found = whole * xr.DataArray(np.array(own, np.float32), dims="channel", coords={"channel": stack["channel"]})
    return found.assign_attrs(stack["variance"].attrs, long_name=f"variance, as areas of {side:g} pixels have it")
