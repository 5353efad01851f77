"""Pixels against their neighbours: noise that neighbours, rows and columns share, and bright pixels taken away.

The noise of an untouched sensor is each pixel's own.  Where the difference of two equal frames is alike in
neighbours, something smoothed the picture; where whole rows or columns go together, the readout adds them.  Where no
bright pixel of a long dark stands alone, the camera takes them for defects, and small stars with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special, stats

from ..core.cube import black_levels, channels_of, check_cube, evenly, group_frames
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, planes, require_lattice
from ..core.noise import code_step_of
from ..core.parallel import counted, stream_frames
from ..core.settings import TITLES, setting_dim
from ..core.shared_noise import LAGS, WINDOW, scaled_difference, shared_covariance
from ..core.statistics import mad_std

AXES = ("row", "column")
_PIXELS = 1 << 22  # of differences that suffice at one ISO
_SETTINGS = 4  # looked at, from the lowest to the highest
_FREQUENCY = (np.arange(64) + 0.5) / 128
_BRIGHT, _WARM = 8.0, 5.0  # standard deviations above the median: a bright pixel, and one that may be its company
_HALF = 0.5  # as bright as it: what a filter leaves has a neighbour like itself, what a blur makes has fainter ones
_BEYOND = (0.0, 1.0, 2.0)  # how far beyond its neighbours an extreme lies, in standard deviations
_AROUND, _EDGE = range(-2, 3), 2  # the edge: pixels without all their neighbours
_ZERO = 65_535  # place of the difference 0
_SHOWN = 1500  # bright pixels, and as many others, kept for a picture
_ENOUGH_BRIGHT, _ENOUGH_EXTREMES = 20, 50
_REAL = 1e-3
_EXPOSED = 0.25  # s: Nikons filter from there on
_VARIABLES = {
    "correlation": (("channel", "lag"), "1", "correlation of neighbours"),
    "correlation_error": (("channel", "lag"), "1", "error of the correlation"),
    "noise": (("channel",), "adu", "temporal noise"),
    "variance_factor": (("channel",), "1", "variance before smoothing over as read"),
    "band_noise": (("axis",), "1", "row or column noise over pixel noise"),
    "band_noise_error": (("axis",), "1", "error of the row or column noise"),
    "band_p_value": (("axis",), "1", "probability of such rows by white noise"),
    "peak": (("axis",), "cycle / pix", "frequency of the highest peak"),
    "peak_p_value": (("axis",), "1", "probability of such a peak in white noise"),
    "peak_power": (("axis",), "1", "power of the highest peak over that of white noise"),
    "peak_limit": (("axis",), "1", "power that the highest peak of white noise exceeds once in a thousand"),
    "spectrum": (("axis", "frequency"), "1", "noise power over that of white noise"),
}


def noise_texture(cube: xr.DataArray, *, progress: Any = True) -> xr.Dataset:
    """Measure what neighbouring pixels, rows and columns share of the temporal noise, at each ISO.

    Of raw frames (frame, y, x) of any kinds, from differences d = (y₁ − r y₂)/√2 of equal frames, r the ratio of their
    levels (1 for bias frames and darks), in the middle of each channel.  Correlation at a lag is ⟨d(y, x) d(y+Δy,
    x+Δx)⟩/⟨d²⟩ less what it is six to nine times as far off, where no filter reaches but rows, columns and drift do.
    For rows, d over its standard deviation is averaged along each row of the mosaic; times √columns that has a variance
    of 1 where noise is white, and what is above 1 is row noise.  Bias frames are used where there are equal ones, else
    darks, else flats below half the white level (in which a lamp that flickers makes rows too).

    Returns
    -------
    xarray.Dataset
        Over (iso, channel, lag): ``correlation`` with ``correlation_error``; ``dy`` and ``dx`` on lag [pixels of the
        channel].  Over (iso, channel): ``noise`` [ADU], ``variance_factor``, 1 + 2 Σ correlation, by which a smoothed
        variance is too small.  Over (iso, axis): ``band_noise``, a fraction of the pixel noise, with ``_error`` and
        ``band_p_value``; ``peak`` of the spectrum [cycles/pixel] with ``peak_power``, ``peak_p_value`` and
        ``peak_limit``, which the highest peak of white noise exceeds once in a thousand.  Over (iso, axis, frequency):
        ``spectrum``, 1 where noise is white.  On iso: ``kind``, ``pairs``.  An ISO without equal frames is left out.

    Raises
    ------
    WorkbenchError
        If the frames are not raw, or no two are equal.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> y = np.random.default_rng(1).normal(600, 4, (2, 256, 256))
    >>> smoothed = (y + np.roll(y, 2, axis=2)) / 2
    >>> bias = make_cube(smoothed.round().astype("uint16"), cfa_pattern="RGGB", kind="bias", iso=100)
    >>> noise_texture(bias, progress=False).correlation.sel(lag="0,1").mean().round(1).item()
    0.5
    """
    check_cube(cube, stage="raw")
    require_lattice(cube.attrs["cfa_pattern"], "the noise that neighbours share")
    chosen = _choose_pairs(cube)
    if not chosen:
        raise WorkbenchError(
            "no two frames here are equal (of one kind, ISO, exposure and aperture): the noise of neighbouring pixels "
            "shows in the difference of two; shoot ten bias frames"
        )
    order = [frame for _, _, pairs in chosen for pair in pairs for frame in pair]
    frames = counted(stream_frames(cube.data[i] for i in order), progress, len(order))
    cell = channel_index(cube.attrs["cfa_pattern"])
    black = np.nan_to_num(black_levels(cube.attrs))
    white = cube.attrs["white_level"]
    results, kept, dim = [], [], setting_dim(cube)
    for setting, kind, pairs in chosen:
        limits = (black, white / 2) if kind == "flat" else (None, np.inf)
        differences = [_difference(next(frames), next(frames), cell, *limits) for _ in pairs]
        found = list(filter(None, differences))
        if found:
            results.append(_texture(found, cell))
            kept.append((setting, kind, len(found)))
    for _ in frames:  # lets the bar finish
        pass
    if not results:
        raise WorkbenchError(
            "the equal frames here are flats above half of saturation, or have no noise at all: what neighbouring "
            "pixels share cannot be seen in them; shoot ten bias frames"
        )
    settings, kinds, counts = zip(*kept, strict=True)
    data = {
        name: ((dim, *dims), np.stack([one[name] for one in results]), {"units": units, "long_name": title})
        for name, (dims, units, title) in _VARIABLES.items()
    }
    coords = {
        dim: (dim, list(settings), {"long_name": TITLES[dim]}),
        "kind": (dim, list(kinds)),
        "pairs": (dim, list(counts)),
        "channel": list(channels_of(cube.attrs["cfa_pattern"])),
        "lag": [f"{dy},{dx}" for dy, dx in LAGS],
        "dy": ("lag", np.array(LAGS)[:, 0], {"units": "pix"}),
        "dx": ("lag", np.array(LAGS)[:, 1], {"units": "pix"}),
        "axis": list(AXES),
        "frequency": ("frequency", _FREQUENCY, {"units": "cycle / pix", "long_name": "spatial frequency"}),
    }
    return xr.Dataset(data, coords, {"camera": cube.attrs["camera"], "long_name": "texture of the noise"})


def _choose_pairs(cube: xr.DataArray) -> list[tuple[float, str, list[tuple[int, int]]]]:
    """Return for each setting which kind to use, and separate pairs of equal frames of it."""
    kinds = cube["kind"].values
    most = max(1, _PIXELS // (min(cube.sizes["y"], 2 * WINDOW) * min(cube.sizes["x"], 2 * WINDOW)))
    chosen = []
    settings = group_frames(cube, dim := setting_dim(cube))
    for number in evenly(len(settings), _SETTINGS):
        setting, frames = settings[number]
        for kind in ("bias", "dark", "darkflat", "flat"):
            here = frames[kinds[frames] == kind]
            if not here.size:
                continue
            pairs = []
            for _, equal in group_frames(cube.isel(frame=here), "exposure", "aperture", "temperature"):
                same = here[equal]
                pairs += [(int(same[i]), int(same[i + 1])) for i in range(0, len(same) - 1, 2)]
            if kind == "flat" and len(pairs) > most:
                pairs = pairs[: max(most, len(pairs) // 2)]  # in the order of exposure: the brightest are of no use
            if pairs:
                chosen.append((setting[dim], kind, [pairs[i] for i in evenly(len(pairs), most)]))
                break
    return chosen


class _Difference(NamedTuple):
    """Of a pair: standard deviation of each channel [ADU], its sums over the pixels, and its rows and columns.

    `products` and `weights` (channel, lag) of each pixel's noise over its standard deviation; for rows and for columns
    `power` (frequency) and `variance` of their means, 1 in white noise; `sizes`, rows and columns.
    """

    sigma: np.ndarray
    products: np.ndarray
    weights: np.ndarray
    power: list[np.ndarray]
    variance: np.ndarray
    sizes: tuple[int, int]


def _difference(
    first: np.ndarray, second: np.ndarray, cell: np.ndarray, black: np.ndarray | None, highest: float
) -> _Difference | None:
    """Measure a pair, or None if a channel lies above `highest` [ADU]; flats are scaled to one level above `black`."""
    step = cell.shape[0]
    sizes = [min(size // step, WINDOW) for size in first.shape]
    starts = [(size // step - part) // 2 * step for size, part in zip(first.shape, sizes, strict=True)]
    window = tuple(slice(start, start + size * step) for start, size in zip(starts, sizes, strict=True))
    scaled = np.empty([size * step for size in sizes], np.float32)
    sigma, products, weights = np.empty(cell.size), np.zeros((cell.size, len(LAGS))), np.zeros((cell.size, len(LAGS)))
    every = zip(*(planes(frame, cell) for frame in (first[window], second[window], scaled)), strict=True)
    for (channel, a), (_, b), (_, plane) in every:
        if max(a.mean(dtype=float), b.mean(dtype=float)) > highest:
            return None
        d = scaled_difference(a, b, None if black is None else black[channel])
        sigma[channel] = d.std(dtype=float)
        if not sigma[channel] > 0:
            return None
        plane[:] = d / np.float32(sigma[channel])
        covariance, weights[channel] = shared_covariance(plane)
        products[channel] = weights[channel] * covariance
    means = [scaled.mean(axis=1 - axis, dtype=float) * np.sqrt(scaled.shape[1 - axis]) for axis in (0, 1)]
    power = [np.abs(np.fft.rfft(line)) ** 2 / line.size for line in means]
    return _Difference(sigma, products, weights, power, np.array([np.mean(line**2) for line in means]), scaled.shape)


def _texture(pairs: list[_Difference], cell: np.ndarray) -> dict[str, np.ndarray]:
    """Return the variables of one ISO."""
    weight = np.maximum(np.sum([pair.weights for pair in pairs], axis=0), 1)
    correlation = np.sum([pair.products for pair in pairs], axis=0) / weight
    rows = [_bands(pairs, axis, cell.size) for axis in (0, 1)]
    return {
        "correlation": correlation,
        "correlation_error": 1 / np.sqrt(weight),
        "noise": np.sqrt(np.mean([pair.sigma**2 for pair in pairs], axis=0)),
        "variance_factor": 1 + 2 * correlation.sum(axis=1),
        **{name: np.array([row[name] for row in rows]) for name in rows[0]},
    }


def _bands(pairs: list[_Difference], axis: int, channels: int) -> dict[str, Any]:
    """Return the noise of rows (axis 0) or columns (1) over the pixel noise, its spectrum and the highest peak."""
    lines, across = pairs[0].sizes[axis], pairs[0].sizes[1 - axis]
    degrees = len(pairs) * (lines - channels)  # each channel's median difference was taken away
    excess, error = float(np.mean([pair.variance[axis] for pair in pairs])) - 1, np.sqrt(2 / degrees)
    amplitude = np.sqrt(max(excess, 0.0) / across)
    power = np.mean([pair.power[axis] for pair in pairs], axis=0)
    frequency = np.fft.rfftfreq(lines)
    inner = (frequency > 0) & (frequency < 0.5)
    highest = int(np.argmax(np.where(inner, power, 0)))
    single = special.gammaincc(len(pairs), power[highest] * len(pairs))
    rare = -np.expm1(np.log1p(-_REAL) / inner.sum())
    return {
        "band_noise": amplitude,
        # of an excess consistent with none: the amplitude that one standard error would make
        "band_noise_error": error / (2 * across * max(amplitude, np.sqrt(error / across) / 2)),
        "band_p_value": special.chdtrc(degrees, (1 + excess) * degrees),
        "peak": frequency[highest],
        "peak_p_value": -np.expm1(inner.sum() * np.log1p(-single)) if single < 1 else 1.0,
        "peak_power": power[highest],
        "peak_limit": special.gammainccinv(len(pairs), rare) / len(pairs),
        "spectrum": stats.binned_statistic(frequency[inner], power[inner], bins=_FREQUENCY.size, range=(0, 0.5))[0],
    }


def hot_pixel_filter(dark: xr.DataArray) -> xr.Dataset:
    """Test one long dark for a filter in the camera that takes lone bright pixels away (a "star eater").

    Of raw darks (frame, y, x) the one of longest exposure is tested, and of those the warmest.  Three tests, none of
    which needs to know how many hot pixels the sensor has; each gives the probability of its finding on an untouched
    sensor. *Alone*: of pixels brighter than 8 σ the share without company among their 24 neighbours (5 σ, and half as
    bright as they) should be (1 − ρ)²⁴ or more, ρ being the share of pixels above 5 σ (binomial; the scatter plot of M.
    Shelley tests the same by eye). *Spike*: V − max(8 neighbours of one colour) of bright pixels should be exactly zero
    no more often than ±1, 2 or 3 (M. Shelley). *Extremes*: noise has as many pixels above all their 8 neighbours as
    below all, by 0, 1 or 2 σ; hot pixels only add to those above (binomial). A filter that takes only pixels far above
    their neighbours (by more than about ten σ) leaves enough of them to go unnoticed.

    Returns
    -------
    xarray.Dataset
        Over test (``alone``, ``spike``, ``extremes``): ``observed`` and ``expected`` counts, ``p_value``, ``positive``
        (p < 10⁻³ after allowing for the number of tests, and an effect that matters) and ``able`` (enough pixels).
        Over difference [ADU]: ``bright``, pixels by V − max(8 neighbours).  Over pixel: ``value`` and ``company``, V
        and the maximum of its 24 neighbours [σ above the median] of some pixels.
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
    require_lattice(dark.attrs["cfa_pattern"], "the test for a hot-pixel filter")
    exposure, temperature = dark["exposure"].fillna(-1.0).values, dark["temperature"].fillna(-300.0).values
    longest = dark.isel(frame=int(np.lexsort((temperature, exposure))[-1]))
    seconds, frame = float(longest["exposure"]), next(stream_frames([longest.data]))
    padding = max(code_step_of(dark), 1)  # else all differences would be ties
    frame = frame.astype(np.float32) / np.float32(padding)
    cell = channel_index(dark.attrs["cfa_pattern"])
    step = cell.shape[0]
    scaled = np.empty_like(frame)  # standard deviations above the median of the channel
    extremes = np.zeros((2, len(_BEYOND)), int)
    for (_, plane), (_, z) in zip(planes(frame, cell), planes(scaled, cell), strict=True):
        centre = np.median(plane)
        # at least that of rounding, so that a dark without any noise has no bright pixels
        sigma = np.float32(max(float(mad_std(plane, centre=centre)), 0.5))
        z[:] = (plane - centre) / sigma
        extremes += _count_extremes(np.ascontiguousarray(plane), _EDGE // step, sigma)
    inner, levels = (picture[_EDGE:-_EDGE, _EDGE:-_EDGE] for picture in (scaled, frame))
    bright = np.flatnonzero(inner > _BRIGHT)
    value, company = inner.flat[bright], _brightest(scaled, bright, _AROUND)
    above = np.round(levels.flat[bright] - _brightest(frame, bright, (-step, 0, step)))
    difference = np.bincount(np.clip(above, -_ZERO, _ZERO).astype(int) + _ZERO, minlength=2 * _ZERO + 1)
    alone = int(np.count_nonzero(company <= np.maximum(np.float32(_WARM), np.float32(_HALF) * value)))
    tests, able = _tests(np.count_nonzero(inner > _WARM) / max(inner.size, 1), value.size, alone, difference, extremes)
    chance = np.minimum(1.0, [test.p_value for test in tests])
    found = able & (chance < _REAL) & np.array([test.matters for test in tests])
    # few hot pixels, or an exposure too short for the filter to act on: it may be there all the same
    decided = able[0] and seconds >= _EXPOSED
    every, step = (max(1, size // _SHOWN) for size in (value.size, frame.size))
    others = np.setdiff1d(np.arange(step - 1, inner.size, step), bright)
    shown = np.append(bright[every - 1 :: every][:_SHOWN], others[:_SHOWN])
    around = _brightest(scaled, shown, _AROUND)
    data = {
        "observed": ("test", [float(test.observed) for test in tests], {"long_name": "observed"}),
        "expected": ("test", [float(test.expected) for test in tests], {"long_name": "expected"}),
        "p_value": ("test", chance, {"long_name": "probability by chance"}),
        "positive": ("test", found),
        "able": ("test", able),
        "bright": ("difference", difference, {"long_name": "bright pixels"}),
        "value": ("pixel", inner.flat[shown], {"units": "1", "long_name": "pixel"}),
        "company": ("pixel", around, {"units": "1", "long_name": "brightest of its 24 neighbours"}),
    }
    coords = {
        "test": ["alone", "spike", "extremes"],
        "difference": padding * (np.arange(2 * _ZERO + 1) - _ZERO),
    }
    attrs = {
        "camera": dark.attrs["camera"],
        "long_name": "hot-pixel filter",
        "found": True if found.any() else False if decided else None,
        "p_value": float(chance.min()),
        "exposure": seconds,
        "temperature": float(longest["temperature"]),
        "filename": str(longest["filename"].item()),
        "bright_pixels": int(value.size),
    }
    result = xr.Dataset(data, coords, attrs)
    result["difference"].attrs = {"units": "adu", "long_name": "V − max of 8"}
    return result


def _count_extremes(plane: np.ndarray, edge: int, sigma: np.float32) -> np.ndarray:
    """Count the pixels of a channel (y, x) [ADU] above and below their 8 neighbours by `_BEYOND` σ: (2, beyond)."""
    height, width = plane.shape
    corners = product(range(edge - 1, edge + 2), repeat=2)
    around = [plane[y : y + height - 2 * edge, x : x + width - 2 * edge] for y, x in corners]
    value = around.pop(4)
    high, low = value - reduce(np.maximum, around), reduce(np.minimum, around) - value
    return np.array(
        [[np.count_nonzero(side > np.float32(beyond) * sigma) for beyond in _BEYOND] for side in (high, low)]
    )


def _brightest(frame: np.ndarray, places: np.ndarray, reach: Iterable[int]) -> np.ndarray:
    """Return the brightest neighbour, at these distances, of some pixels: flat places in a frame without its edges."""
    y, x = np.unravel_index(places, [size - 2 * _EDGE for size in frame.shape])
    around = (frame[y + _EDGE + dy, x + _EDGE + dx] for dy, dx in product(reach, repeat=2) if dy or dx)
    return reduce(np.maximum, around)


class _Test(NamedTuple):
    """Observed and expected counts, their probability on an untouched sensor, and whether the effect is large."""

    observed: float
    expected: float
    p_value: float
    matters: bool


def _tests(
    warm: float, bright: int, alone: int, difference: np.ndarray, extremes: np.ndarray
) -> tuple[list[_Test], np.ndarray]:
    """Return the three tests, their p-values multiplied by the number of tests, and which have enough pixels."""
    odds = (1 - warm) ** 24
    spike = int(difference[_ZERO])
    around = int(difference[_ZERO - 3 : _ZERO + 4].sum()) - spike
    level = next((k for k in range(len(_BEYOND) - 1, 0, -1) if extremes[1, k] >= _ENOUGH_EXTREMES), 0)
    sides = [
        _Test(high, low, special.bdtr(high, high + low, 0.5), high < 0.8 * low)
        for high, low in extremes[:, : level + 1].T
    ]
    tests = [
        _Test(alone, bright * odds, special.bdtr(alone, bright, odds), alone < 0.5 * bright * odds),
        _Test(spike, around / 6, special.bdtrc(spike - 1, spike + around, 1 / 7), spike > 0.5 * around),
        min(sides, key=lambda test: test.p_value),
    ]
    number = len(sides) + 2
    able = np.array([bright >= _ENOUGH_BRIGHT, bright >= _ENOUGH_BRIGHT, tests[2].expected >= _ENOUGH_EXTREMES])
    return [test._replace(p_value=float(test.p_value) * number) for test in tests], able
