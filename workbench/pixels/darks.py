"""Darks: the noise in the difference of two, and what subtracting a master of them takes away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import Setting, channels_of, check_cube, first_green, group_frames
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, planes, spread, tiles
from ..core.pairs import OUTLIER_SIGMAS, pair_moments, pair_sums
from ..core.parallel import counted, frame_memory, frame_zeros, stream_frames
from ..core.results import at_iso, same_setting
from ..core.settings import setting_dim
from ..core.statistics import mad_std
from .spatial import deviation_products

_BINS = 200
_MOST_DARKS = 16  # make a master good enough to be shown
_CROP = 300  # side of the part of a frame that is shown [pixels]


def dark_noise(
    dark: xr.DataArray, gain: xr.Dataset, read: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Compare the difference of two equal darks with a normal distribution.

    Of the group with the most dark signal (the warmest, then the longest exposure) the first two darks' difference,
    divided by √2 and in electrons, is what shot noise and read noise leave; hot pixels and offsets cancel.  With
    10⁵ pixels any test calls it not normal, so the departure is given as effect sizes.  Pixels beyond 8 robust σ
    (flickering ones, particle hits) are counted apart.  One channel, the green that shares its rows with red, so
    that every bin is whole ADU.

    Parameters
    ----------
    dark
        Raw darks; at least two of one ISO, temperature and exposure.
    gain
        From `fit_gain`.
    read
        From `read_noise`: without it no width can be expected.

    Returns
    -------
    xarray.Dataset
        Over bin [e⁻]: ``count``, ``density`` [per e⁻], ``normal``, the normal curve of the same width.  attrs:
        ``sigma`` [e⁻], ``expected_sigma`` (shot noise of the mean dark signal, read noise, rounding), ``ks_distance``,
        ``skewness``, ``excess_kurtosis``, ``n_pixels``, ``outliers``, ``channel``, ``iso``, ``exposure``,
        ``temperature``.

    Raises
    ------
    WorkbenchError
        If no two darks are equal, or the gain at their ISO is not measured.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> y = np.random.default_rng(0).normal(700, 5, (2, 256, 256)).round().astype("uint16")
    >>> darks = make_cube(y, cfa_pattern="mono", kind="dark", iso=200, exposure=60, temperature=20)
    >>> gain = xr.Dataset({"gain": (("iso", "channel"), [[2.0]])}, {"iso": [200.0], "channel": ["mono"]})
    >>> result = dark_noise(darks, gain, progress=False)
    >>> round(result.attrs["sigma"]), result.attrs["ks_distance"] < 0.01
    (10, True)
    """
    check_cube(dark, stage="raw", kind="dark")
    names = channels_of(dark.attrs["cfa_pattern"])
    channel = first_green(names)
    dim = setting_dim(dark)
    factors = gain["gain"].sel(channel=channel).dropna(setting_dim(gain), how="any")
    setting, frames = _strongest(dark, 2, factors[setting_dim(gain)].values)
    factor = float(at_iso(factors, setting[dim]))
    pair = list(counted(stream_frames(dark.data[int(i)] for i in frames[:2]), progress, 2))
    first, second = (dict(planes(frame, dark.attrs["cfa_pattern"]))[names.index(channel)] for frame in pair)
    whole = np.issubdtype(first.dtype, np.integer)
    clear = np.isfinite(first) & np.isfinite(second) & (np.minimum(first, second) > 0)
    clear &= ~(np.maximum(first, second) >= dark.attrs["white_level"])
    if not clear.any():
        files = " and ".join(str(dark["filename"].values[int(i)]) for i in frames[:2])
        raise WorkbenchError(f"{files}: no pixel is above 0 and below the white level in both; look at these darks")
    first, second = (plane[clear].astype(np.int32 if whole else np.float64) for plane in (first, second))
    difference = first - second
    values, counts = _tally(difference)
    kept = np.abs(values - np.median(difference)) <= OUTLIER_SIGMAS * (mad_std(difference) or np.inf)
    values, counts = values[kept], counts[kept]
    total = int(counts.sum())
    mean = (counts * values).sum() / total
    m2, m3, m4 = ((counts * (values - mean) ** power).sum() / total for power in (2, 3, 4))
    sigma = np.sqrt(m2 * total / (total - 1))
    half = _step(values) / 2  # codes are compared where one ends and the next begins
    ks = np.abs(np.cumsum(counts) / total - special.ndtr((values + half - mean) / sigma)).max()
    expected = np.nan
    if read is not None:  # NaN without bias frames of this ISO, or of another black level than the darks
        here = read.sel(channel=channel)
        zero, quiet = (float(at_iso(here[name], setting[dim])) for name in ("black_level", "variance"))
        signal = (first.mean(dtype=float) + second.mean(dtype=float)) / 2 - zero
        variance = quiet + signal / factor
        expected = float(factor * np.sqrt(variance)) if variance > 0 else np.nan
    scale = factor / np.sqrt(2)
    attrs = setting | {
        "sigma": float(sigma * scale),
        "expected_sigma": expected,
        "ks_distance": float(ks),
        "skewness": float(m3 / m2**1.5),
        "excess_kurtosis": float(m4 / m2**2 - 3),
        "n_pixels": total,
        "outliers": difference.size - total,
        "channel": channel,
        "camera": dark.attrs["camera"],
        "long_name": "difference of two darks",
    }
    return _density(values, counts, mean, sigma, scale).assign_attrs(attrs)


def _tally(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values in rising order, and how often each occurs."""
    if not np.issubdtype(values.dtype, np.integer):
        return np.unique(values, return_counts=True)
    counts = np.bincount(values - values.min())
    found = np.flatnonzero(counts)
    return (found + values.min()).astype(float), counts[found]


def _step(values: np.ndarray) -> float:
    """Return the step of rising values if they are whole numbers, of padded codes 4 or 16; else 0.

    Examples
    --------
    >>> _step(np.array([-32.0, 0.0, 16.0])), _step(np.array([1.0, 2.0, 5.0])), _step(np.array([0.5, 1.0]))
    (16.0, 1.0, 0.0)
    """
    if (values != np.rint(values)).any():
        return 0.0
    return float(max(1, np.gcd.reduce(np.diff(values).astype(np.int64), initial=0)))


def _density(values: np.ndarray, counts: np.ndarray, mean: float, sigma: float, scale: float) -> xr.Dataset:
    """Return the histogram of tallied differences [ADU] in e⁻ (`scale` each ADU), and the normal curve of its width."""
    step, span = _step(values), values[-1] - values[0]
    width = step * max(1, int(np.ceil((span + step) / step / _BINS))) if step else span / _BINS
    start = values[0] - step / 2
    edges = start + width * np.arange(int(np.ceil((values[-1] - start) / width)) + 1)
    count = np.histogram(values, edges, weights=counts)[0].astype(int)
    centres = ((edges[1:] + edges[:-1]) / 2 - mean) * scale
    normal = np.exp(-0.5 * (centres / (sigma * scale)) ** 2) / (sigma * scale * np.sqrt(2 * np.pi))
    columns = {
        "count": (count, "1", "pixels"),
        "density": (count / counts.sum() / (width * scale), "1 / electron", "fraction of pixels per electron"),
        "normal": (normal, "1 / electron", "normal distribution of the same width"),
    }
    data = {
        name: ("bin", column, {"units": units, "long_name": title}) for name, (column, units, title) in columns.items()
    }
    return xr.Dataset(data, {"bin": ("bin", centres, {"units": "electron", "long_name": "difference/√2"})})


def _strongest(dark: xr.DataArray, least: int, known: np.ndarray | None = None) -> tuple[Setting, np.ndarray]:
    """Return the group of at least so many equal darks with the most dark signal, of these ISO or gain settings."""
    dim = setting_dim(dark)
    groups = [
        (setting, frames)
        for setting, frames in group_frames(dark, dim, "temperature", "exposure")
        if len(frames) >= least and (known is None or same_setting(known, setting[dim]).any())
    ]
    if not groups:
        among = "" if known is None else " at a setting whose gain is measured"
        raise WorkbenchError(f"no {least} darks of one setting, temperature and exposure{among}; shoot {least} or more")
    return max(groups, key=lambda group: [np.nan_to_num(group[0][n], nan=-np.inf) for n in ("temperature", "exposure")])


def dark_subtraction(
    dark: xr.DataArray, light: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Show what subtracting a master dark does to a light with matching darks, else to a dark that is not in it.

    The master is the mean of the darks of one ISO, temperature and exposure, sixteen at most.  What remains in a dark
    is its temporal noise and the master's, σ √(1 + 1/n).

    Parameters
    ----------
    dark
        Raw darks, three or more of one setting (two, with a light).
    light
        Raw lights; the longest with darks of its ISO and exposure, and temperature within 2 K where both state it.
    gain
        From `fit_gain`, to show electrons; without it ADU.

    Returns
    -------
    xarray.Dataset
        ``before`` and ``after`` (y, x) of the part of the frame around its hottest 300 x 300 pixels of the master, y
        and x in pixels of the frame.  attrs, over the whole frame and in the same unit: ``std_before``, ``std_after``,
        ``row_std_before``, ``row_std_after`` (of the rows' means), ``expected_std`` (temporal noise; NaN for a light,
        which has stars and sky), ``darks``, ``kind``, ``filename`` and the setting.

    Raises
    ------
    WorkbenchError
        If no darks match and no three are equal.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> rng = np.random.default_rng(0)
    >>> pattern = rng.exponential(100, (64, 64))
    >>> y = (600 + pattern + rng.normal(0, 3, (6, 64, 64))).round().astype("uint16")
    >>> darks = make_cube(y, cfa_pattern="mono", kind="dark", iso=200, exposure=60, temperature=20)
    >>> shown = dark_subtraction(darks, progress=False)
    >>> round(shown.attrs["std_before"], -1), round(shown.attrs["std_after"])
    (100.0, 3)
    """
    check_cube(dark, stage="raw", kind="dark")
    matched = None if light is None else _warmest_with_darks(light, dark)
    if light is not None and matched is not None:
        number, setting, frames = matched
        kind, cube = "light", light
    else:
        setting, frames = _strongest(dark, 3)
        kind, cube, number, frames = "dark", dark, int(frames[-1]), frames[:-1]
    frames = frames[:_MOST_DARKS]
    pattern = dark.attrs["cfa_pattern"]
    lazy = [*(dark.data[int(i)] for i in frames), cube.data[number]]
    stream = counted(stream_frames(lazy), progress, len(lazy))
    master, variance = _mean_and_noise(stream, len(frames), dark.shape[1:], pattern)
    before, after = (frame_memory(master.shape, np.float32) for _ in range(2))
    np.copyto(before, next(stream))
    np.subtract(before, master, out=after)
    before -= np.float32(np.median(_some_rows(master)))
    factors, units = _gains(gain, setting[setting_dim(dark)], pattern)
    for picture in (before, after):
        picture *= spread(factors.astype(np.float32), channel_index(pattern), picture.shape)
    products = deviation_products(before, after)
    expected = np.sqrt((factors**2 * variance).mean() * (1 + 1 / len(frames)))
    attrs = setting | {
        "std_before": float(np.sqrt(products.pixels[0] / before.size)),
        "std_after": float(np.sqrt(products.pixels[1] / after.size)),
        "row_std_before": float(np.sqrt(products.rows[0] / len(before))),
        "row_std_after": float(np.sqrt(products.rows[1] / len(after))),
        "expected_std": float(expected) if kind == "dark" else np.nan,
        "darks": len(frames),
        "kind": kind,
        "filename": str(cube["filename"].values[number]),
        "camera": dark.attrs["camera"],
        "units": units,
    }
    y, x = _hottest_corner(master)
    part = {"before": before[y : y + _CROP, x : x + _CROP], "after": after[y : y + _CROP, x : x + _CROP]}
    data = {
        name: (("y", "x"), values, {"units": units, "long_name": f"{name} the master dark is subtracted"})
        for name, values in part.items()
    }
    sides = zip(("y", "x"), (y, x), part["before"].shape, strict=True)
    coords = {name: (name, first + np.arange(count) + 0.5, {"units": "pix"}) for name, first, count in sides}
    return xr.Dataset(data, coords, attrs)


def _mean_and_noise(
    stream: Iterator[np.ndarray], count: int, shape: tuple[int, ...], pattern: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (y, x) of so many frames [ADU], and each channel's temporal variance [ADU²], NaN of one frame."""
    total, noise, previous = frame_zeros(shape, np.float32), [], None  # exact: sums of whole numbers below 2²⁴
    for _ in range(count):
        frame = next(stream)
        total += frame
        if previous is not None:
            noise.append(pair_moments(pair_sums(previous, frame, pattern).plain.sum(axis=1)).half_variance)
        previous = frame
    variance = np.mean(noise, axis=0) if noise else np.full(len(channels_of(pattern)), np.nan)
    return np.divide(total, np.float32(count), out=total), variance


def _some_rows(picture: np.ndarray) -> np.ndarray:
    """Return every n-th row, enough of them for a median."""
    return picture[:: max(1, picture.size >> 20)]


def _warmest_with_darks(light: xr.DataArray, dark: xr.DataArray) -> tuple[int, Setting, np.ndarray] | None:
    """Return the longest, then warmest, light that has two darks or more of its setting, those nearest in temperature.

    In it the dark signal shows best.
    """
    if light.shape[1:] != dark.shape[1:] or light.attrs["cfa_pattern"] != dark.attrs["cfa_pattern"]:
        return None
    dim = setting_dim(dark)
    groups = [group for group in group_frames(dark, dim, "temperature", "exposure") if len(group[1]) >= 2]
    strength = [np.nan_to_num(-light[name].values, nan=np.inf) for name in ("temperature", "exposure")]
    for number in np.lexsort(strength):  # the last key counts first; equal ones stay in their order
        own, warm, seconds = (float(light[name].values[number]) for name in (dim, "temperature", "exposure"))
        matches = [
            (abs(np.nan_to_num(setting["temperature"] - warm)), setting, frames)
            for setting, frames in groups
            if same_setting(np.array([setting[dim]]), own)[0] and np.isclose(setting["exposure"], seconds, rtol=0.01)
        ]
        away, setting, frames = min(matches, key=lambda match: match[0], default=(np.inf, {}, np.empty(0)))
        if away <= 2:  # K
            return int(number), setting, frames
    return None


def _gains(gain: xr.Dataset | None, setting: float, pattern: str) -> tuple[np.ndarray, str]:
    """Return the gain of each channel with the unit that it leads to; ones [ADU] where it is not known."""
    channels = list(channels_of(pattern))
    values = np.full(len(channels), np.nan) if gain is None else at_iso(gain["gain"].sel(channel=channels), setting)
    return (values, "electron") if np.isfinite(values).all() else (np.ones(len(channels)), "adu")


def _hottest_corner(master: np.ndarray) -> tuple[int, int]:
    """Return the first row and column of the window with the most bright pixels, on whole cells of the mosaic."""
    sample = _some_rows(master)
    bright = master > np.median(sample) + 10 * mad_std(sample)
    height, width = (min(_CROP, side) for side in master.shape)
    windows = tiles(bright, height, width).sum(axis=(2, 3))
    row, column = np.unravel_index(np.argmax(windows), windows.shape)
    return int(row * height) // 2 * 2, int(column * width) // 2 * 2
