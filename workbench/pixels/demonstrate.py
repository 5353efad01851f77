"""Noise made visible: the shot noise of the dark, a dark subtracted, signal to noise against signal."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import xarray as xr
from scipy import special

from ..core.buffers import frame_memory, frame_zeros
from ..core.cube import channels_of, check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.pairs import OUTLIER_SIGMAS, pair_moments, pair_sums
from ..core.parallel import counted, stream_frames
from ..core.selection import at_iso, group_frames, same_iso
from .kernels import deviation_products

_BINS = 200
_QUIET = ("black_level", "variance")
_MOST_DARKS = 16  # make a master good enough to be shown
_CROP = 300  # side of the part of a frame that is shown [pixels]


def dark_noise(
    dark: xr.DataArray, gain: xr.Dataset, read: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Compare the difference of two equal darks with a normal distribution.

    Of the group with the most dark signal (the warmest, then the longest exposure) the first two darks' difference,
    divided by √2 and in electrons, is what shot noise and read noise leave; hot pixels and offsets cancel.  With
    10⁵ pixels any test calls it not normal, so the departure is given as effect sizes.  Pixels beyond 8 robust σ
    (flickering ones, particle hits) are counted apart.  One channel, the green beside red, so that every bin is whole
    ADU.

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
    channel = "G1" if "G1" in channels_of(dark.attrs["cfa_pattern"]) else "mono"
    factors = gain["gain"].sel(channel=channel).dropna("iso", how="any")
    setting, frames = _strongest(dark, 2, factors["iso"].values)
    factor = float(at_iso(factors, setting["iso"]))
    order = [int(frame) for frame in frames[:2]]
    first, second = counted(stream_frames(dark.data[i] for i in order), progress, 2)
    index = channels_of(dark.attrs["cfa_pattern"]).index(channel)
    cell = channel_index(dark.attrs["cfa_pattern"])
    (row, column), step = np.argwhere(cell == index)[0], cell.shape[0]
    planes = [frame[row::step, column::step] for frame in (first, second)]
    whole = np.issubdtype(first.dtype, np.integer)
    kind = np.int32 if whole else np.float64
    clear = np.isfinite(planes[0]) & np.isfinite(planes[1]) & (np.minimum(*planes) > 0)
    clear &= ~(np.maximum(*planes) >= dark.attrs["white_level"])
    planes = [plane[clear].astype(kind) for plane in planes]
    values, counts = _tally(planes[0] - planes[1])
    pixels = int(counts.sum())
    middle = _median(values, counts)
    spread = 1.4826 * _median(np.abs(values - middle), counts) or np.inf
    kept = np.abs(values - middle) <= OUTLIER_SIGMAS * spread
    values, counts = values[kept], counts[kept]
    total = int(counts.sum())
    mean = (counts * values).sum() / total
    m2, m3, m4 = ((counts * (values - mean) ** power).sum() / total for power in (2, 3, 4))
    sigma = np.sqrt(m2 * total / (total - 1))
    # whole numbers are compared where one ends and the next begins
    ends = (values + (0.5 if whole else 0.0) - mean) / sigma
    ks = np.abs(np.cumsum(counts) / total - special.ndtr(ends)).max()
    width = max(1, int(np.ceil((values[-1] - values[0] + 1) / _BINS))) if whole else (values[-1] - values[0]) / _BINS
    start = values[0] - (0.5 if whole else 0.0)
    edges = start + width * np.arange(int(np.ceil((values[-1] - start) / width)) + 1)
    count = np.histogram(values, edges, weights=counts)[0].astype(int)
    scale = factor / np.sqrt(2)
    centres = ((edges[1:] + edges[:-1]) / 2 - mean) * scale
    density = count / total / (width * scale)
    expected = np.nan
    if read is not None:  # NaN where no bias frames of this ISO are
        zero, quiet = (float(at_iso(read[name].sel(channel=channel), setting["iso"])) for name in _QUIET)
        signal = (planes[0].mean(dtype=float) + planes[1].mean(dtype=float)) / 2 - zero
        expected = float(factor * np.sqrt(quiet + signal / factor))
    attrs = setting | {
        "sigma": float(sigma * scale),
        "expected_sigma": expected,
        "ks_distance": float(ks),
        "skewness": float(m3 / m2**1.5),
        "excess_kurtosis": float(m4 / m2**2 - 3),
        "n_pixels": total,
        "outliers": pixels - total,
        "channel": channel,
        "camera": dark.attrs["camera"],
        "long_name": "difference of two darks",
    }
    return xr.Dataset(
        {
            "count": ("bin", count, {"units": "1", "long_name": "pixels"}),
            "density": ("bin", density, {"units": "1/e-", "long_name": "fraction of pixels per electron"}),
            "normal": (
                "bin",
                np.exp(-0.5 * (centres / (sigma * scale)) ** 2) / (sigma * scale * np.sqrt(2 * np.pi)),
                {"units": "1/e-", "long_name": "normal distribution of the same width"},
            ),
        },
        {"bin": ("bin", centres, {"units": "e-", "long_name": "difference/√2"})},
        attrs,
    )


def _tally(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values in rising order, and how often each occurs."""
    if not np.issubdtype(values.dtype, np.integer):
        return np.unique(values, return_counts=True)
    counts = np.bincount(values - values.min())
    found = np.flatnonzero(counts)
    return (found + values.min()).astype(float), counts[found]


def _median(values: np.ndarray, counts: np.ndarray) -> float:
    """Return the median of tallied values."""
    order = np.argsort(values, kind="stable")
    total = counts[order].cumsum()
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _strongest(dark: xr.DataArray, least: int, isos: np.ndarray | None = None) -> tuple[dict, np.ndarray]:
    """Return the group of at least so many equal darks with the most dark signal, of these ISO settings."""
    groups = [
        (setting, frames)
        for setting, frames in group_frames(dark, "iso", "temperature", "exposure")
        if len(frames) >= least and (isos is None or same_iso(isos, setting["iso"]).any())
    ]
    if not groups:
        among = "" if isos is None else " at an ISO whose gain is measured"
        raise WorkbenchError(f"no {least} darks of one ISO, temperature and exposure{among}; shoot {least} or more")
    return max(groups, key=lambda group: [np.nan_to_num(group[0][n], nan=-np.inf) for n in ("temperature", "exposure")])


def dark_subtraction(
    dark: xr.DataArray, light: xr.DataArray | None = None, gain: xr.Dataset | None = None, *, progress: Any = True
) -> xr.Dataset:
    """Show what subtracting a master dark does: to a light with matching darks, else to a dark kept out of the master.

    The master is the mean of the darks of one ISO, temperature and exposure, sixteen at most.  What remains in a dark
    is its temporal noise and the master's, σ √(1 + 1/n).

    Parameters
    ----------
    dark
        Raw darks, three or more of one setting (two, with a light).
    light
        Raw lights; the first with darks of its ISO and exposure, and temperature within 2 K where both state it.
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
    chosen = None if light is None else _matching(light, dark)
    if chosen is not None:
        number, setting, frames = chosen
        kind, cube = "light", light
    else:
        setting, frames = _strongest(dark, 3)
        kind, cube, number, frames = "dark", dark, int(frames[-1]), frames[:-1]
    frames = frames[:_MOST_DARKS]
    total, noise, previous = frame_zeros(dark.shape[1:], np.float32), [], None  # exact: sums of whole numbers below 2²⁴
    pattern = dark.attrs["cfa_pattern"]
    lazy = [*(dark.data[int(i)] for i in frames), cube.data[number]]
    stream = counted(stream_frames(lazy), progress, len(lazy))
    for _ in frames:
        frame = next(stream)
        total += frame
        if previous is not None:
            noise.append(pair_moments(pair_sums(previous, frame, pattern).plain.sum(axis=1)).half_variance)
        previous = frame
    master = np.divide(total, np.float32(len(frames)), out=total)
    before, after = (frame_memory(master.shape, np.float32) for _ in range(2))
    np.copyto(before, next(stream))
    np.subtract(before, master, out=after)
    factors, units = _factors(gain, setting["iso"], pattern)
    before -= np.float32(np.median(_sample(master)))
    if units == "e-":
        _scale(before, after, factors.astype(np.float32)[channel_index(pattern)])
    y, x = _hottest_corner(master, 2)
    part = (slice(y, y + _CROP), slice(x, x + _CROP))
    expected = np.sqrt((factors**2 * np.mean(noise, axis=0)).mean() * (1 + 1 / len(frames))) if noise else np.nan
    products = deviation_products(before, after)
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
    names = {"before": "before the master dark is subtracted", "after": "after the master dark is subtracted"}
    data = {
        name: (("y", "x"), values[part], {"units": units, "long_name": names[name]})
        for name, values in (("before", before), ("after", after))
    }
    rows, columns = data["before"][1].shape
    coords = {
        "y": ("y", y + np.arange(rows) + 0.5, {"units": "px"}),
        "x": ("x", x + np.arange(columns) + 0.5, {"units": "px"}),
    }
    return xr.Dataset(data, coords, attrs)


def _sample(picture: np.ndarray) -> np.ndarray:
    """Return rows enough for a median."""
    return picture[:: max(1, picture.size >> 20)]


def _matching(light: xr.DataArray, dark: xr.DataArray) -> tuple[int, dict, np.ndarray] | None:
    """Return the first light that has two darks or more of its setting, and those darks."""
    if light.shape[1:] != dark.shape[1:] or light.attrs["cfa_pattern"] != dark.attrs["cfa_pattern"]:
        return None
    groups = group_frames(dark, "iso", "temperature", "exposure")
    for number in range(light.sizes["frame"]):
        iso, warm, seconds = (float(light[name].values[number]) for name in ("iso", "temperature", "exposure"))
        fits = [
            (abs(setting["temperature"] - warm) if np.isfinite(setting["temperature"] - warm) else 0.0, setting, frames)
            for setting, frames in groups
            if same_iso(np.array([setting["iso"]]), iso)[0]
            and np.isclose(setting["exposure"], seconds, rtol=0.01)
            and len(frames) >= 2
        ]
        fits = [fit for fit in fits if fit[0] <= 2]
        if fits:
            _, setting, frames = min(fits, key=lambda fit: fit[0])
            return number, setting, frames
    return None


def _factors(gain: xr.Dataset | None, iso: float, pattern: str) -> tuple[np.ndarray, str]:
    channels = channels_of(pattern)
    if gain is not None:
        values = at_iso(gain["gain"].sel(channel=list(channels)), iso)
        if np.isfinite(values).all():
            return values, "e-"
    return np.ones(len(channels)), "ADU"


@numba.njit(nogil=True, cache=True)
def _scale(before, after, cell):
    """Multiply two pictures with a cell of the mosaic, over and over."""
    step = cell.shape[0]
    for y in range(before.shape[0]):
        for dx in range(step):
            factor = cell[y % step, dx]
            for x in range(dx, before.shape[1], step):
                before[y, x] *= factor
                after[y, x] *= factor


def _hottest_corner(master: np.ndarray, step: int) -> tuple[int, int]:
    """Return the first row and column of the window with the most bright pixels, on whole cells of the mosaic."""
    sample = _sample(master)
    middle = np.median(sample)
    bright = master > middle + 10 * 1.4826 * np.median(np.abs(sample - middle))
    rows, columns = (max(1, side // _CROP) for side in master.shape)
    size = [min(_CROP, side) for side in master.shape]
    windows = bright[: rows * size[0], : columns * size[1]].reshape(rows, size[0], columns, size[1]).sum(axis=(1, 3))
    row, column = np.unravel_index(np.argmax(windows), windows.shape)
    return int(row * size[0]) // step * step, int(column * size[1]) // step * step


def shot_noise_snr(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Compare the signal-to-noise ratio of each pair of flats with that of shot noise alone, √N.

    Measured: signal/√variance of a pair's pixels, read noise included; N = signal · gain electrons.

    Returns
    -------
    xarray.Dataset
        Over point, one for each pair and channel that the fit used: ``snr`` with ``snr_error``, ``snr_expected`` = √N,
        ``electrons`` N, and ``iso``, ``exposure`` [s], ``aperture``, ``channel``.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import fit_gain, photon_transfer
    >>> rng = np.random.default_rng(0)
    >>> y = rng.poisson(np.repeat([400, 1600], 2)[:, None, None], (4, 256, 256)).astype("uint16")
    >>> ptc = photon_transfer(make_cube(y, cfa_pattern="mono", kind="flat", iso=100, exposure=[1, 1, 4, 4],
    ...                                 black_level=0), progress=False)
    >>> shot_noise_snr(ptc, fit_gain(ptc)).snr.round().values
    array([20., 40.])
    """
    pair, channel = np.nonzero(gain["used"].values)
    isos = ptc["iso"].values[pair]
    factor = np.array([at_iso(gain["gain"], iso)[c] for iso, c in zip(isos, channel, strict=True)])
    signal, variance, error = (ptc[name].values[pair, channel] for name in ("signal", "variance", "variance_error"))
    good = np.isfinite(factor) & (factor > 0) & (signal > 0) & (variance > 0)
    pair, channel, factor, signal, variance, error = (
        part[good] for part in (pair, channel, factor, signal, variance, error)
    )
    ratio, electrons = signal / np.sqrt(variance), signal * factor
    data = {
        "snr": (ratio, "1", "signal-to-noise ratio"),
        "snr_error": (ratio * error / (2 * variance), "1", "error of the signal-to-noise ratio"),
        "snr_expected": (np.sqrt(electrons), "1", "√N"),
        "electrons": (electrons, "e-", "signal"),
    }
    coords = {name: ("point", ptc[name].values[pair], ptc[name].attrs) for name in ("iso", "exposure", "aperture")}
    coords["channel"] = ("point", ptc["channel"].values[channel])
    return xr.Dataset(
        {name: ("point", value, {"units": units, "long_name": text}) for name, (value, units, text) in data.items()},
        coords,
        {"camera": ptc.attrs["camera"], "long_name": "signal-to-noise ratio"},
    )
