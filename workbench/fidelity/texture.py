"""The texture of noise: what neighbouring pixels, rows and columns share of it.

The noise of an untouched sensor is each pixel's own.  Where the difference of two equal frames is alike in
neighbours, something smoothed the picture; where whole rows or columns go together, the readout adds them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import black_levels, channels_of, check_cube, evenly, group_frames
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, planes, tiles
from ..core.parallel import counted, stream_frames
from ..core.statistics import mad_std, neighbour_covariance

LAGS = tuple((dy, dx) for dy in range(3) for dx in range(-2, 3) if (dy, dx) > (0, 0))
AXES = ("row", "column")
WINDOW = 1024  # rows and columns of a channel that are looked at, in the middle
_FAR = (6, 7, 8, 9)  # lags that no filter spans: what is shared there is of rows, columns or drift
_PIXELS = 1 << 22  # of differences that suffice at one ISO
_ISOS = 4  # looked at, from the lowest to the highest
_OUTLIER = 6.0
_PATCH = 16  # pixels of a channel
_FREQUENCY = (np.arange(64) + 0.5) / 128
_VARIABLES = {
    "correlation": (("iso", "channel", "lag"), "1", "correlation of neighbours"),
    "correlation_error": (("iso", "channel", "lag"), "1", "error of the correlation"),
    "noise": (("iso", "channel"), "adu", "temporal noise"),
    "variance_factor": (("iso", "channel"), "1", "variance before smoothing over as read"),
    "band_noise": (("iso", "axis"), "1", "row or column noise over pixel noise"),
    "band_noise_error": (("iso", "axis"), "1", "error of the row or column noise"),
    "band_p_value": (("iso", "axis"), "1", "probability of such rows by white noise"),
    "peak": (("iso", "axis"), "cycle / pix", "frequency of the highest peak"),
    "peak_p_value": (("iso", "axis"), "1", "probability of such a peak in white noise"),
    "spectrum": (("iso", "axis", "frequency"), "1", "noise power over that of white noise"),
}


def noise_texture(cube: xr.DataArray, *, progress: Any = True) -> xr.Dataset:
    """Measure what neighbouring pixels, rows and columns share of the temporal noise, at each ISO.

    From differences d = (y₁ − r y₂)/√2 of equal frames, r the ratio of their levels (1 for bias frames and darks), in
    the middle of each channel.  Correlation at a lag is ⟨d(y, x) d(y+Δy, x+Δx)⟩/⟨d²⟩ less what it is six to nine times
    as far off, where no filter reaches but rows, columns and drift do.  For rows, d over its standard deviation is
    averaged along each row of the mosaic; times √columns that has a variance of 1 where noise is white, and what is
    above 1 is row noise.  Bias frames are used where there are equal ones, else darks, else flats below half the white
    level (in which a lamp that flickers makes rows too).

    Parameters
    ----------
    cube
        Raw frames (frame, y, x) of any kinds.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel, lag): ``correlation`` with ``correlation_error``; ``dy`` and ``dx`` on lag [pixels of the
        channel].  Over (iso, channel): ``noise`` [ADU], ``variance_factor``, 1 + 2 Σ correlation, by which a smoothed
        variance is too small.  Over (iso, axis): ``band_noise``, a fraction of the pixel noise, with ``_error`` and
        ``band_p_value``; ``peak`` of the spectrum [cycles/pixel] with ``peak_p_value``.  Over (iso, axis, frequency):
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
    results, kept = [], []
    for iso, kind, pairs in chosen:
        limits = (black, white / 2) if kind == "flat" else (None, np.inf)
        differences = [_difference(next(frames), next(frames), cell, *limits) for _ in pairs]
        found = list(filter(None, differences))
        if found:
            results.append(_texture(found, cell))
            kept.append((iso, kind, len(found)))
    for _ in frames:  # lets the bar finish
        pass
    if not results:
        raise WorkbenchError(
            "the equal frames here are flats above half of saturation, or have no noise at all: what neighbouring "
            "pixels share cannot be seen in them; shoot ten bias frames"
        )
    isos, kinds, counts = zip(*kept, strict=True)
    data = {
        name: (dims, np.stack([one[name] for one in results]), {"units": units, "long_name": title})
        for name, (dims, units, title) in _VARIABLES.items()
    }
    coords = {
        "iso": ("iso", list(isos), {"long_name": "ISO setting"}),
        "kind": ("iso", list(kinds)),
        "pairs": ("iso", list(counts)),
        "channel": list(channels_of(cube.attrs["cfa_pattern"])),
        "lag": [f"{dy},{dx}" for dy, dx in LAGS],
        "dy": ("lag", np.array(LAGS)[:, 0], {"units": "pix"}),
        "dx": ("lag", np.array(LAGS)[:, 1], {"units": "pix"}),
        "axis": list(AXES),
        "frequency": ("frequency", _FREQUENCY, {"units": "cycle / pix", "long_name": "spatial frequency"}),
    }
    return xr.Dataset(data, coords, {"camera": cube.attrs["camera"], "long_name": "texture of the noise"})


def _choose_pairs(cube: xr.DataArray) -> list[tuple[float, str, list[tuple[int, int]]]]:
    """Return for each ISO which kind to use, and separate pairs of equal frames of it."""
    kinds = cube["kind"].values
    most = max(1, _PIXELS // (min(cube.sizes["y"], 2 * WINDOW) * min(cube.sizes["x"], 2 * WINDOW)))
    chosen = []
    isos = group_frames(cube, "iso")
    for number in evenly(len(isos), _ISOS):
        setting, frames = isos[number]
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
                chosen.append((setting["iso"], kind, [pairs[i] for i in evenly(len(pairs), most)]))
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
        a, b = a.astype(np.float32), b.astype(np.float32)
        levels = np.array([a.mean(dtype=float), b.mean(dtype=float)])
        if levels.max() > highest:
            return None
        above = levels - (0.0 if black is None else black[channel])
        ratio = above[0] / above[1] if black is not None and above.min() > 0 else 1.0
        d = (a - np.float32(ratio) * b) * np.float32(np.sqrt(0.5))
        d -= np.median(d)
        d[np.abs(d) > _OUTLIER * _spread(d)] = 0  # particles and flickering pixels
        sigma[channel] = d.std(dtype=float)
        if not sigma[channel] > 0:
            return None
        plane[:] = d / np.float32(sigma[channel])
        products[channel], weights[channel] = _correlations(np.ascontiguousarray(plane))
    means = [scaled.mean(axis=1 - axis, dtype=float) * np.sqrt(scaled.shape[1 - axis]) for axis in (0, 1)]
    power = [np.abs(np.fft.rfft(line)) ** 2 / line.size for line in means]
    return _Difference(sigma, products, weights, power, np.array([np.mean(line**2) for line in means]), scaled.shape)


def _correlations(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each lag, weight · covariance with the neighbour less that with pixels far off, and the weights."""
    near, count = neighbour_covariance(plane, LAGS)
    far, far_count = neighbour_covariance(plane, [(k * dy, k * dx) for dy, dx in LAGS for k in _FAR])
    far, known = far.reshape(-1, len(_FAR)), far_count.reshape(-1, len(_FAR)) > 0.25 * count[:, None]
    some = known.sum(axis=1)
    shared = (far * known).sum(axis=1) / np.maximum(some, 1)
    weight = np.where(some > 0, count / (1 + 1 / np.maximum(some, 1)), count)
    return weight * (near - shared), weight


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
    return {
        "band_noise": amplitude,
        # of an excess consistent with none: the amplitude that one standard error would make
        "band_noise_error": error / (2 * across * max(amplitude, np.sqrt(error / across) / 2)),
        "band_p_value": special.chdtrc(degrees, (1 + excess) * degrees),
        "peak": frequency[highest],
        "peak_p_value": -np.expm1(inner.sum() * np.log1p(-single)) if single < 1 else 1.0,
        "spectrum": _binned(frequency[inner], power[inner]),
    }


def _spread(values: np.ndarray) -> float:
    """Return a robust standard deviation; of few different numbers the mean deviation is better than the median one."""
    mean = np.sqrt(np.pi / 2) * float(np.abs(values).mean(dtype=float))
    return max(float(mad_std(values, centre=0)), mean, 1e-9)


def _binned(frequency: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Return the mean power in each of the bins of `_FREQUENCY`; NaN in bins that a small frame leaves empty."""
    which = np.minimum((frequency * 2 * _FREQUENCY.size).astype(int), _FREQUENCY.size - 1)
    count = np.bincount(which, minlength=_FREQUENCY.size)
    total = np.bincount(which, power, minlength=_FREQUENCY.size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def smooth_noise(frame: np.ndarray, cfa_pattern: str) -> np.ndarray:
    """Return the noise [ADU] at each octave of levels (0, 1, 2 to 3, ...), from the smoothest patches of one frame.

    From second differences along rows of one colour, (2p(x) − p(x−1) − p(x+1))/√6, in patches of 16 x 16 pixels: the
    fifth part with the smallest deviation.  Detail in the picture makes it too large, never much too small.  NaN at
    levels that the frame does not have.

    Examples
    --------
    >>> frame = np.random.default_rng(1).normal(1500, 20, (256, 256))
    >>> smooth_noise(frame, "mono")[11].round()
    np.float64(19.0)
    """
    noise = np.full(17, np.nan)
    level, deviation, _ = _patches(frame, channel_index(cfa_pattern))
    octave = np.frexp(np.clip(level, 0, 65535).astype(int))[1]
    for number in range(noise.size):
        here = deviation[octave == number]
        if here.size >= 10:
            noise[number] = np.quantile(here, 0.2)
    return noise


def patch_correlation(frame: np.ndarray, cfa_pattern: str) -> tuple[float, float]:
    """Return how neighbours of one colour correlate in the smoothest patches of one frame, with the error.

    The larger of the correlations to the right and below, in the fifth part of the patches that deviate least from
    a plane, which is taken away, in the octave of levels where it is smallest.  A filter would show at
    all levels, picture detail does where there is some: a small value clears the camera, a large one proves nothing.
    NaN where there are too few patches.
    """
    level, _, patches = _patches(frame, channel_index(cfa_pattern))
    octave = np.frexp(np.clip(level, 0, 65535).astype(int))[1]
    y, x = np.mgrid[:_PATCH, :_PATCH] - (_PATCH - 1) / 2
    plane, _ = np.linalg.qr(np.stack([np.ones(_PATCH**2), y.ravel(), x.ravel()], axis=1).astype(np.float32))
    flat = patches.reshape(len(patches), -1)
    flat = flat - flat @ plane @ plane.T
    spread = np.mean(flat**2, axis=1)
    best = (np.nan, np.nan)
    for number in np.unique(octave):
        here = np.flatnonzero(octave == number)
        smooth = here[spread[here] <= np.quantile(spread[here], 0.2)]
        if smooth.size < 30:
            continue
        rest = flat[smooth].reshape(-1, _PATCH, _PATCH)
        variance = float(spread[smooth].mean())
        # a plane has three of the 256 degrees of freedom: without it white noise correlates by −3/256
        found = [
            float(np.mean(a * b)) / variance + 3 / _PATCH**2
            for a, b in ((rest[..., 1:], rest[..., :-1]), (rest[:, 1:], rest[:, :-1]))
        ]
        value = max(found, key=abs)
        if not abs(value) > abs(best[0]):  # the first of them, too
            best = (value, float(1 / np.sqrt(smooth.size * _PATCH * (_PATCH - 1))))
    return best


def _patches(frame: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return level and deviation of the second differences of each patch of each colour, and the patches.

    Medians (patch) [ADU], standard deviations (patch) [ADU], and pixels (patch, y, x).
    """
    parts = [tiles(plane.astype(np.float32), _PATCH).reshape(-1, _PATCH, _PATCH) for _, plane in planes(frame, cell)]
    patches = np.concatenate(parts)
    second = (2 * patches[..., 1:-1] - patches[..., :-2] - patches[..., 2:]) / np.float32(np.sqrt(6))
    return np.median(patches, axis=(1, 2)), second.std(axis=(1, 2)), patches
