"""Hot pixels taken away by the camera: does it take lone bright pixels for defects, and small stars with them?"""

from __future__ import annotations

import numba
import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import check_cube
from ..core.mosaic import channel_index
from ..core.parallel import stream_frames

_BRIGHT, _WARM = 8.0, 5.0  # standard deviations above the median: a bright pixel, and one that may be its company
_HALF = 0.5  # as bright as it: what a filter leaves has a neighbour like itself, what a blur makes has fainter ones
_BEYOND = (0.0, 1.0, 2.0)  # how far beyond its neighbours an extreme lies, in standard deviations
_ZERO = 65_535  # place of the difference 0
_SHOWN = 1500  # bright pixels, and as many others, kept for a picture
_ENOUGH_BRIGHT, _ENOUGH_EXTREMES = 20, 50
_REAL = 1e-3
_EXPOSED = 0.25  # s: Nikons filter from there on
_MAD_TO_SIGMA = 1.4826


def hot_pixel_filter(dark: xr.DataArray) -> xr.Dataset:
    """Test one long dark for a filter in the camera that takes lone bright pixels away (a "star eater").

    Three tests, none of which needs to know how many hot pixels the sensor has; each says how probable the finding is
    on an untouched sensor.  *Alone*: of pixels brighter than 8 σ the share without company among their 24 neighbours
    (5 σ, and half as bright as they) should be (1 − ρ)²⁴ or more, ρ being the share of pixels above 5 σ (binomial; the
    scatter plot of M. Shelley tests the same by eye).  *Spike*: V − max(8 neighbours of one colour) of bright pixels
    should be exactly zero no more often than ±1, 2 or 3 (M. Shelley).  *Extremes*: noise has as many pixels above all
    their 8 neighbours as below all, by 0, 1 or 2 σ; hot pixels only add to those above (binomial).  A filter that takes
    only pixels far above their neighbours (by more than about ten σ) leaves enough of them to go unnoticed.

    Parameters
    ----------
    dark
        Raw darks (frame, y, x); the one of longest exposure, and of those the warmest, is tested.

    Returns
    -------
    xarray.Dataset
        Over test (``alone``, ``spike``, ``extremes``): ``observed`` and ``expected`` counts, ``p_value``, ``positive``
        (p < 10⁻³ after allowing for the number of tests, and an effect that matters) and ``able`` (enough pixels to
        tell).  Over difference [ADU]: ``bright``, pixels by V − max(8 neighbours).  Over pixel: ``value`` and
        ``company``, V and the maximum of its 24 neighbours [σ above the median] of some pixels.
        Attributes: ``found`` (True, False, or None where it cannot be told), ``p_value``, ``exposure``,
        ``temperature``, ``filename``, ``bright_pixels``.

    Raises
    ------
    WorkbenchError
        If the frames are not raw darks.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> rng = np.random.default_rng(1)
    >>> y = rng.normal(600, 4, (1, 256, 256)) + 400 * (rng.random((1, 256, 256)) < 0.002)
    >>> hot_pixel_filter(make_cube(y.round().astype("uint16"), cfa_pattern="RGGB", kind="dark", exposure=60)).found
    False
    """
    check_cube(dark, stage="raw", kind="dark")
    exposure = np.nan_to_num(dark["exposure"].values, nan=-1.0)
    temperature = np.nan_to_num(dark["temperature"].values, nan=-300.0)
    one = dark.isel(frame=int(np.lexsort((temperature, exposure))[-1]))
    frame = next(stream_frames([one.data])).astype(np.float32)
    cell = channel_index(dark.attrs["cfa_pattern"])
    centre, sigma = np.empty(cell.size, np.float32), np.empty(cell.size, np.float32)
    for place, channel in np.ndenumerate(cell):
        plane = frame[tuple(slice(begin, None, cell.shape[0]) for begin in place)]
        centre[channel] = np.median(plane)
        # at least that of rounding, so that a dark without any noise has no bright pixels
        sigma[channel] = max(_MAD_TO_SIGMA * float(np.median(np.abs(plane - centre[channel]))), 0.5)
    counts = _neighbourhoods(frame, cell, centre, sigma, np.array(_BEYOND, np.float32))
    pixels, warm, bright, alone, above, below, difference, shown = counts
    company = warm / max(pixels, 1)
    odds = (1 - company) ** 24
    beside = int(difference[_ZERO - 3 : _ZERO].sum() + difference[_ZERO + 1 : _ZERO + 4].sum())
    level = next((k for k in range(len(_BEYOND) - 1, 0, -1) if below[k] >= _ENOUGH_EXTREMES), 0)
    spike = int(difference[_ZERO])
    rows = [
        ("alone", alone, bright * odds, special.bdtr(alone, bright, odds), 0.5, bright >= _ENOUGH_BRIGHT),
        ("spike", spike, beside / 6, special.bdtrc(spike - 1, spike + beside, 1 / 7), 3.0, bright >= _ENOUGH_BRIGHT),
    ]
    extremes = [
        ("extremes", high, low, special.bdtr(high, high + low, 0.5), 0.8, low >= _ENOUGH_EXTREMES)
        for high, low in zip(above[: level + 1], below[: level + 1], strict=True)
    ]
    tests = len(rows) + len(extremes)
    rows.append(min(extremes, key=lambda row: row[3]))
    found = [
        bool(
            able and min(1, p * tests) < _REAL and (value < limit * expected if limit < 1 else value > limit * expected)
        )
        for _, value, expected, p, limit, able in rows
    ]
    seconds = float(one["exposure"])
    # few hot pixels, or an exposure too short for the filter to act on: it may be there all the same
    untold = not (rows[0][-1] and seconds >= _EXPOSED)
    data = {
        "observed": ("test", [float(row[1]) for row in rows], {"long_name": "observed"}),
        "expected": ("test", [float(row[2]) for row in rows], {"long_name": "expected"}),
        "p_value": ("test", [min(1.0, float(row[3]) * tests) for row in rows], {"long_name": "probability by chance"}),
        "positive": ("test", found),
        "able": ("test", [bool(row[5]) for row in rows]),
        "bright": ("difference", difference, {"long_name": "bright pixels"}),
        "value": ("pixel", shown[:, 0], {"units": "1", "long_name": "pixel"}),
        "company": ("pixel", shown[:, 1], {"units": "1", "long_name": "brightest of its 24 neighbours"}),
    }
    coords = {
        "test": [row[0] for row in rows],
        "difference": ("difference", np.arange(2 * _ZERO + 1) - _ZERO, {"units": "adu", "long_name": "V − max of 8"}),
    }
    attrs = {
        "camera": dark.attrs["camera"],
        "long_name": "hot-pixel filter",
        "found": True if any(found) else None if untold else False,
        "p_value": min(1.0, min(float(row[3]) * tests for row in rows)),
        "exposure": seconds,
        "temperature": float(one["temperature"]),
        "filename": str(one["filename"].item()),
        "bright_pixels": int(bright),
    }
    return xr.Dataset(data, coords, attrs)


@numba.njit(nogil=True, cache=True)
def _neighbourhoods(frame, cell, centre, sigma, beyond):
    """Count, over the pixels of a frame, what `hot_pixel_filter` tests."""
    step, (height, width) = cell.shape[0], frame.shape
    bright_sigma, warm_sigma, half = np.float32(_BRIGHT), np.float32(_WARM), np.float32(_HALF)
    total = 0
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            c = cell[y % step, x % step]
            total += (frame[y, x] - centre[c]) > bright_sigma * sigma[c]
    every_bright = max(1, total // _SHOWN)
    every = max(1, height * width // _SHOWN)
    pixels, warm, bright, alone = 0, 0, 0, 0
    above, below = np.zeros(beyond.size, np.int64), np.zeros(beyond.size, np.int64)
    difference = np.zeros(2 * _ZERO + 1, np.int64)
    shown = np.full((2 * _SHOWN, 2), np.nan, np.float32)
    kept, kept_bright = _SHOWN, 0
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            c = cell[y % step, x % step]
            value, s = frame[y, x], sigma[c]
            z = (value - centre[c]) / s
            highest, lowest = np.float32(-np.inf), np.float32(np.inf)
            for dy in (-step, 0, step):
                for dx in (-step, 0, step):
                    if dy != 0 or dx != 0:
                        other = frame[y + dy, x + dx]
                        highest = max(highest, other)
                        lowest = min(lowest, other)
            for k in range(beyond.size):
                above[k] += value - highest > beyond[k] * s
                below[k] += lowest - value > beyond[k] * s
            pixels += 1
            warm += z > warm_sigma
            show = pixels % every == 0
            if z <= bright_sigma and not show:
                continue
            company = np.float32(-np.inf)
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    if dy != 0 or dx != 0:
                        o = cell[(y + dy) % step, (x + dx) % step]
                        company = max(company, (frame[y + dy, x + dx] - centre[o]) / sigma[o])
            if z > bright_sigma:
                bright += 1
                alone += company <= max(warm_sigma, half * z)
                difference[int(min(max(np.round(value - highest), -_ZERO), _ZERO)) + _ZERO] += 1
                if bright % every_bright == 0 and kept_bright < _SHOWN:
                    shown[kept_bright] = z, company
                    kept_bright += 1
            elif kept < 2 * _SHOWN:
                shown[kept] = z, company
                kept += 1
    return pixels, warm, bright, alone, above, below, difference, shown
