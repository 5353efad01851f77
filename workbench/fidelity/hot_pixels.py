"""Hot pixels taken away by the camera: does it take lone bright pixels for defects, and small stars with them?"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import check_cube
from ..core.mosaic import channel_index, planes
from ..core.parallel import stream_frames
from ..core.statistics import mad_std

_BRIGHT, _WARM = 8.0, 5.0  # standard deviations above the median: a bright pixel, and one that may be its company
_HALF = 0.5  # as bright as it: what a filter leaves has a neighbour like itself, what a blur makes has fainter ones
_BEYOND = (0.0, 1.0, 2.0)  # how far beyond its neighbours an extreme lies, in standard deviations
_ZERO = 65_535  # place of the difference 0
_SHOWN = 1500  # bright pixels, and as many others, kept for a picture
_ENOUGH_BRIGHT, _ENOUGH_EXTREMES = 20, 50
_REAL = 1e-3
_EXPOSED = 0.25  # s: Nikons filter from there on


def hot_pixel_filter(dark: xr.DataArray) -> xr.Dataset:
    """Test one long dark for a filter in the camera that takes lone bright pixels away (a "star eater").

    Three tests, none of which needs to know how many hot pixels the sensor has; each gives the probability of its
    finding on an untouched sensor. *Alone*: of pixels brighter than 8 σ the share without company among their 24
    neighbours (5 σ, and half as bright as they) should be (1 − ρ)²⁴ or more, ρ being the share of pixels above 5 σ
    (binomial; the scatter plot of M. Shelley tests the same by eye). *Spike*: V − max(8 neighbours of one colour) of
    bright pixels should be exactly zero no more often than ±1, 2 or 3 (M. Shelley). *Extremes*: noise has as many
    pixels above all their 8 neighbours as below all, by 0, 1 or 2 σ; hot pixels only add to those above (binomial). A
    filter that takes only pixels far above their neighbours (by more than about ten σ) leaves enough of them to go
    unnoticed.

    Parameters
    ----------
    dark
        Raw darks (frame, y, x); the one of longest exposure, and of those the warmest, is tested.

    Returns
    -------
    xarray.Dataset
        Over test (``alone``, ``spike``, ``extremes``): ``observed`` and ``expected`` counts, ``p_value``, ``positive``
        (p < 10⁻³ after allowing for the number of tests, and an effect that matters) and ``able`` (enough pixels).
        Over
        difference [ADU]: ``bright``, pixels by V − max(8 neighbours).  Over pixel: ``value`` and ``company``, V and the
        maximum of its 24 neighbours [σ above the median] of some pixels.
        Attributes: ``found`` (True, False, or None where these pixels do not show it), ``p_value``, ``exposure``,
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
    longest = dark.isel(frame=int(np.lexsort((temperature, exposure))[-1]))
    frame = next(stream_frames([longest.data])).astype(np.float32)
    cell = channel_index(dark.attrs["cfa_pattern"])
    centre, sigma = np.empty(cell.size, np.float32), np.empty(cell.size, np.float32)
    for channel, plane in planes(frame, cell):
        centre[channel] = np.median(plane)
        # at least that of rounding, so that a dark without any noise has no bright pixels
        sigma[channel] = max(float(mad_std(plane, centre=centre[channel])), 0.5)
    counts = _count_neighbourhoods(frame, _ChannelLevels(cell, centre, sigma), np.array(_BEYOND, np.float32))
    tests, able = _tests(counts)
    chance = np.minimum(1.0, [test.p_value for test in tests])
    found = able & (chance < _REAL) & np.array([test.matters for test in tests])
    seconds = float(longest["exposure"])
    # few hot pixels, or an exposure too short for the filter to act on: it may be there all the same
    decided = able[0] and seconds >= _EXPOSED
    data = {
        "observed": ("test", [float(test.observed) for test in tests], {"long_name": "observed"}),
        "expected": ("test", [float(test.expected) for test in tests], {"long_name": "expected"}),
        "p_value": ("test", chance, {"long_name": "probability by chance"}),
        "positive": ("test", found),
        "able": ("test", able),
        "bright": ("difference", counts.difference, {"long_name": "bright pixels"}),
        "value": ("pixel", counts.shown[:, 0], {"units": "1", "long_name": "pixel"}),
        "company": ("pixel", counts.shown[:, 1], {"units": "1", "long_name": "brightest of its 24 neighbours"}),
    }
    coords = {
        "test": ["alone", "spike", "extremes"],
        "difference": ("difference", np.arange(2 * _ZERO + 1) - _ZERO, {"units": "adu", "long_name": "V − max of 8"}),
    }
    attrs = {
        "camera": dark.attrs["camera"],
        "long_name": "hot-pixel filter",
        "found": True if found.any() else False if decided else None,
        "p_value": float(chance.min()),
        "exposure": seconds,
        "temperature": float(longest["temperature"]),
        "filename": str(longest["filename"].item()),
        "bright_pixels": int(counts.bright),
    }
    return xr.Dataset(data, coords, attrs)


class _ChannelLevels(NamedTuple):
    """The mosaic's `channel_index`, median and robust standard deviation (channel) [ADU].

    Both over all pixels of a channel.
    """

    cell: np.ndarray
    centre: np.ndarray
    sigma: np.ndarray


class _Counts(NamedTuple):
    """Of a frame: pixels, those above 5 σ and 8 σ, those of the latter without company; extremes (beyond); and more.

    `difference` counts bright pixels by V − max(8 neighbours) [ADU]; `shown` (pixel, 2) has V and the maximum of its 24
    neighbours [σ] of some.
    """

    pixels: int
    warm: int
    bright: int
    alone: int
    above: np.ndarray
    below: np.ndarray
    difference: np.ndarray
    shown: np.ndarray


class _Test(NamedTuple):
    """Observed and expected counts, their probability on an untouched sensor, and whether the effect is large."""

    observed: float
    expected: float
    p_value: float
    matters: bool


def _tests(counts: _Counts) -> tuple[list[_Test], np.ndarray]:
    """Return the three tests, their p-values multiplied by the number of tests, and which have enough pixels."""
    bright, alone, above, below = counts.bright, counts.alone, counts.above, counts.below
    odds = (1 - counts.warm / max(counts.pixels, 1)) ** 24
    spike = int(counts.difference[_ZERO])
    around = int(counts.difference[_ZERO - 3 : _ZERO + 4].sum()) - spike
    level = next((k for k in range(len(_BEYOND) - 1, 0, -1) if below[k] >= _ENOUGH_EXTREMES), 0)
    extremes = [
        _Test(high, low, special.bdtr(high, high + low, 0.5), high < 0.8 * low)
        for high, low in zip(above[: level + 1], below[: level + 1], strict=True)
    ]
    tests = [
        _Test(alone, bright * odds, special.bdtr(alone, bright, odds), alone < 0.5 * bright * odds),
        _Test(spike, around / 6, special.bdtrc(spike - 1, spike + around, 1 / 7), spike > 0.5 * around),
        min(extremes, key=lambda test: test.p_value),
    ]
    number = len(extremes) + 2
    able = np.array([bright >= _ENOUGH_BRIGHT, bright >= _ENOUGH_BRIGHT, tests[2].expected >= _ENOUGH_EXTREMES])
    return [test._replace(p_value=float(test.p_value) * number) for test in tests], able


@numba.njit(nogil=True, cache=True)
def _company(frame, levels, y, x):
    """Return the brightest of the 24 neighbours of a pixel, in standard deviations above its channel's median."""
    cell, step = levels.cell, levels.cell.shape[0]
    company = np.float32(-np.inf)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if dy != 0 or dx != 0:
                o = cell[(y + dy) % step, (x + dx) % step]
                company = max(company, (frame[y + dy, x + dx] - levels.centre[o]) / levels.sigma[o])
    return company


@numba.njit(nogil=True, cache=True)
def _count_bright(frame, levels):
    """Count the pixels of a frame (y, x) above 8 σ, two pixels off its edges."""
    step, total = levels.cell.shape[0], 0
    for y in range(2, frame.shape[0] - 2):
        for x in range(2, frame.shape[1] - 2):
            c = levels.cell[y % step, x % step]
            total += (frame[y, x] - levels.centre[c]) > np.float32(_BRIGHT) * levels.sigma[c]
    return total


@numba.njit(nogil=True, cache=True)
def _count_neighbourhoods(frame, levels, beyond):
    """Count what `hot_pixel_filter` tests, over the pixels of a frame (y, x) [ADU]; `beyond` in standard deviations."""
    cell, centre, sigma = levels.cell, levels.centre, levels.sigma
    step, (height, width) = cell.shape[0], frame.shape
    bright_sigma, warm_sigma, half = np.float32(_BRIGHT), np.float32(_WARM), np.float32(_HALF)
    every_bright = max(1, _count_bright(frame, levels) // _SHOWN)
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
                        highest = max(highest, frame[y + dy, x + dx])
                        lowest = min(lowest, frame[y + dy, x + dx])
            for k in range(beyond.size):
                above[k] += value - highest > beyond[k] * s
                below[k] += lowest - value > beyond[k] * s
            pixels += 1
            warm += z > warm_sigma
            if z > bright_sigma:
                company = _company(frame, levels, y, x)
                bright += 1
                alone += company <= max(warm_sigma, half * z)
                difference[int(min(max(np.round(value - highest), -_ZERO), _ZERO)) + _ZERO] += 1
                if bright % every_bright == 0 and kept_bright < _SHOWN:
                    shown[kept_bright] = z, company
                    kept_bright += 1
            elif pixels % every == 0 and kept < 2 * _SHOWN:
                shown[kept] = z, _company(frame, levels, y, x)
                kept += 1
    return _Counts(pixels, warm, bright, alone, above, below, difference, shown)
