"""How pixels differ: dark current, hot pixels, defects, and the fall-off of light to the corners."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import chdtr, chdtri

from ..core.cube import channels_of, check_cube
from ..core.defects import Thresholds, UnlitFrames, flag_defects, sample_pixels
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index, planes, tiles
from ..core.parallel import counted, stream_frames
from ..core.settings import TITLES
from ..core.statistics import Lens, fit_lens
from .stacks import FrameStack

_SAMPLE = 1 << 20
_FITTED = 5000  # cells of the picture that the vignetting model is fitted to
_FEWEST_CELLS = 20
_RINGS = 40  # of the profile
_PICTURE = 340  # longest side of a reduced picture [pixels], so that it has fewer than 10⁵ numbers


def dcnu_histogram(dark_map: xr.DataArray, bins: int = 240) -> xr.Dataset:
    """Count the pixels by their dark current, from a little below zero (noise) to the hottest.

    Parameters
    ----------
    dark_map
        The ``map`` of `measure_dark`.
    bins
        Of one width, up to twenty times the median or the 99.9th percentile; hotter pixels are in ``beyond``.

    Returns
    -------
    xarray.Dataset
        ``count`` over bin (centre [e⁻/s]); attrs ``mean``, ``median``, ``beyond``, ``n_pixels``, and the map's own.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> dark_map = xr.DataArray(rng.normal(1, 0.1, (50, 50)), dims=("y", "x"), attrs={"units": "electron / s"})
    >>> result = dcnu_histogram(dark_map)
    >>> int(result["count"].sum()) + result.attrs["beyond"]
    2500
    """
    values = dark_map.values
    sample = _sample(values.ravel())
    low, median, high = np.percentile(sample[np.isfinite(sample)], [0.01, 50, 99.9])
    high = max(high, 20 * median) if median > 0 else high
    low, high = min(low, 0.0), min(high, float(np.nanmax(values)))
    edges = np.linspace(low, high, bins + 1) if high > low else np.linspace(low - 0.5, low + 0.5, bins + 1)
    count = np.zeros(bins, np.int64)
    finite, total = _tally(values, edges[0], edges[-1], count)
    attrs = _setting_attrs(dark_map) | {
        "mean": total / finite,
        "median": float(median),
        "beyond": int(finite - count.sum()),
        "n_pixels": int(finite),
    }
    units = dark_map.attrs["units"]
    return xr.Dataset(
        {"count": ("bin", count, {"units": "1", "long_name": "pixels"})},
        {"bin": ("bin", (edges[1:] + edges[:-1]) / 2, {"units": units, "long_name": "dark current"})},
        attrs,
    )


def hot_pixels(dark_map: xr.DataArray, most: int = 500) -> xr.Dataset:
    """Find how many pixels exceed which dark current, and where the hottest are.

    Returns
    -------
    xarray.Dataset
        ``fraction`` of all pixels above ``threshold`` [e⁻/s], on a logarithmic grid; over point, the hottest `most`
        first: ``y``, ``x``, ``dark_current`` [e⁻/s]; attrs ``height``, ``width``.  Pixels that saturated (NaN) count as
        hotter than all and are listed first, with NaN.

    Examples
    --------
    >>> picture = xr.DataArray(np.full((4, 4), 0.1), dims=("y", "x"), attrs={"units": "electron / s"})
    >>> picture[2, 3] = 7.0
    >>> one = hot_pixels(picture, most=1).isel(point=0)
    >>> one.y.item(), one.x.item(), one.dark_current.item()
    (2, 3, 7.0)
    """
    values = dark_map.values
    flat = values.ravel()
    sample = _sample(flat)
    top = float(np.nanmax(values))
    low = max(float(np.median(sample[np.isfinite(sample)])), top * 1e-4, float(np.finfo(np.float32).tiny))
    threshold = np.geomspace(low, max(top, low * 1.01), 200)
    count = np.zeros(200, np.int64)
    _tally_octaves(values, low, 199 / np.log(threshold[-1] / low), count)
    saturated = np.flatnonzero(np.isnan(flat))
    above = count[::-1].cumsum()[::-1] + saturated.size
    most = min(most, flat.size)
    enough = np.flatnonzero(above >= most)
    hot = np.flatnonzero(flat > threshold[enough[-1]]) if enough.size else np.flatnonzero(np.isfinite(flat))
    hottest = np.concatenate([saturated, hot[np.argsort(-flat[hot], kind="stable")]])[:most]
    y, x = np.unravel_index(hottest, values.shape)
    units = dark_map.attrs["units"]
    return xr.Dataset(
        {
            "fraction": ("threshold", above / flat.size, {"units": "1", "long_name": "fraction of pixels above"}),
            "dark_current": ("point", flat[hottest], {"units": units, "long_name": "dark current"}),
        },
        {
            "threshold": ("threshold", threshold, {"units": units, "long_name": "dark current"}),
            "y": ("point", y, {"units": "pix"}),
            "x": ("point", x, {"units": "pix"}),
        },
        _setting_attrs(dark_map) | {"height": values.shape[0], "width": values.shape[1]},
    )


@kernel()
def _tally(values, low, high, count):
    """Count values in bins of one width, those below in the first; return how many are finite, and their sum."""
    finite, total = 0, 0.0
    scale = count.size / (high - low)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            value = np.float64(values[y, x])
            if not np.isfinite(value):
                continue
            finite += 1
            total += value
            if value <= high:
                count[min(max(np.int64((value - low) * scale), 0), count.size - 1)] += 1
    return finite, total


@kernel()
def _tally_octaves(values, low, scale, count):
    """Count the values above `low` by their logarithm: in bin k those above the k-th threshold and not the next."""
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            if values[y, x] > low:
                place = np.int64(np.ceil(np.log(np.float32(values[y, x] / low)) * np.float32(scale))) - 1
                count[min(max(place, 0), count.size - 2)] += 1


def _sample(values: np.ndarray) -> np.ndarray:
    """Return an even sample, large enough for a percentile of millions of numbers."""
    return values[:: max(1, values.size // _SAMPLE)]


def _setting_attrs(dark_map: xr.DataArray) -> dict[str, Any]:
    return {name: dark_map.attrs[name] for name in (*TITLES, "temperature", "units") if name in dark_map.attrs}


def find_sensor_defects(
    dark_map: xr.DataArray | None = None,
    read_noise: Any = None,
    exposure: float = math.nan,
    *,
    flat: FrameStack | None = None,
    bias: FrameStack | None = None,
    **thresholds: float,
) -> xr.DataArray:
    """Return the sensor's defects, uint8 (y, x) with the bits of `workbench.core.defects.KINDS`.

    The noise of an ordinary pixel in a dark of t seconds is σ² = σ_R² + D t, D the median dark current of its CFA
    plane; what hot, warm, dead and unstable mean is defined in `workbench.core.defects.flag_defects`.  A kind that
    these measurements cannot show is not in the counts.

    Parameters
    ----------
    dark_map
        The ``map`` of `measure_dark` [e⁻/s], NaN where saturated; a map in ADU/s shows only the warm ones.
    read_noise
        σ_R, one a channel [e⁻ rms], for the hot ones.
    exposure
        t [s]: of the darks, or of the lights that are to come.
    flat, bias
        Stacks of flats and of bias frames (`stack_cube`).
    thresholds
        Those of `workbench.core.defects.Thresholds` that are to differ from its defaults.

    Raises
    ------
    WorkbenchError
        If nothing is given, or the sizes differ.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> current = xr.DataArray(rng.normal(0.1, 0.01, (40, 60)), dims=("y", "x"),
    ...                        attrs={"units": "electron / s", "cfa_pattern": "RGGB"})
    >>> current[3, 4], current[20, 30] = 5.0, 0.3
    >>> find_sensor_defects(current, 3.0, 300.0).attrs["counts"]
    {'hot': 1, 'warm': 2}
    """
    dark = steady = None
    attrs: dict[str, Any] = {"exposure": float(exposure)}
    if dark_map is not None:
        dark = _dark_frames(dark_map, read_noise, exposure)
        attrs |= {name: float(dark_map.attrs[name]) for name in (*TITLES, "temperature") if name in dark_map.attrs}
    if bias is not None and bias.variance is not None:
        channels = channel_count(channel_index(bias.pattern))
        ordinary = [_ordinary_variance(variance, bias.count) for _, variance in planes(bias.variance, bias.pattern)]
        steady = UnlitFrames(bias.mean, np.array(ordinary), np.zeros(channels), bias.variance, bias.count)
    pattern = dark_map.attrs["cfa_pattern"] if dark_map is not None else getattr(flat or bias, "pattern", "mono")
    response = None if flat is None else flat.mean
    found = flag_defects(
        pattern, dark=dark, steady=steady, response=response, thresholds=Thresholds(**thresholds), **attrs
    )
    return found.assign_attrs(pixels=found.size)


def _dark_frames(dark_map: xr.DataArray, read_noise: Any, exposure: float) -> UnlitFrames:
    """Return the dark-current map [e⁻/s] with the noise [e⁻] of darks of this exposure; NaN where it is not known."""
    pattern = dark_map.attrs["cfa_pattern"]
    channels = channel_count(channel_index(pattern))
    known = dark_map.attrs["units"] == "electron / s" and read_noise is not None and exposure > 0
    noise = np.broadcast_to(np.asarray(read_noise, float) if known else np.nan, (channels,))
    samples = [sample_pixels(plane) for _, plane in planes(dark_map.values, pattern)]
    current = np.array([max(float(np.median(sample)), 0.0) if sample.size else 0.0 for sample in samples])
    ordinary = noise**2 + (current * exposure if known else 0.0)
    return UnlitFrames(dark_map.values, ordinary, np.full(channels, exposure if known else 0.0))


def _ordinary_variance(variance: np.ndarray, count: int) -> float:
    """Return the variance of an ordinary pixel of a plane of bias frames [ADU²], at least that of rounding."""
    # whole numbers make a quiet pixel's variance uneven: no median, but the mean without the largest hundredth, which
    # has a known share of it (χ² of count - 1 degrees of freedom)
    sample = sample_pixels(variance)
    degrees = count - 1
    ordinary = float(sample[sample <= np.percentile(sample, 99)].mean(dtype=float))
    share = chdtr(degrees + 2, chdtri(degrees, 0.01)) / 0.99
    return max(ordinary / share, 1 / 12)


def vignetting(flat: xr.DataArray, black: Any = None, *, progress: Any = True) -> xr.Dataset:
    """Show how the light falls off to the corners: a flat as a small picture, its profile, and a model.

    Parameters
    ----------
    flat
        Raw flats of one light level; up to eight are averaged.
    black
        Black level [ADU], one or one a channel; without it the one the files state.

    Returns
    -------
    xarray.Dataset
        ``illumination`` (y, x), mean of the channels, each divided by its value in the centre, in cells of some pixels;
        ``profile`` (channel, radius), the mean over rings, with ``profile_error``, the standard error of that mean
        from the scatter in the ring; y, x and radius in pixels of the frame.  ``model`` (y, x), A (1 + a₂ρ² + a₄ρ⁴)
        about the centre ``centre_y``, ``centre_x`` [px] (``centre_error``), ρ the distance over the half diagonal
        (`core.statistics.fit_lens`), with ``a2``, ``a4``, ``falloff``, the light lost in the farthest corner, and
        ``uneven``, the rms of illumination/model − 1: dust, and whatever no lens does.  NaN for a picture of fewer than
        20 cells.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> light = np.full((1, 64, 96), 1600, "uint16")
    >>> flats = make_cube(light, cfa_pattern="RGGB", kind="flat", black_level=600)
    >>> float(vignetting(flats, progress=False).illumination.mean())
    1.0
    """
    check_cube(flat, stage="raw", kind="flat")
    cell = channel_index(flat.attrs["cfa_pattern"])
    channels = channel_count(cell)
    levels = np.broadcast_to(np.nan_to_num(flat.attrs["black_level"] if black is None else black), (channels,))
    count = min(flat.sizes["frame"], 8)
    size = max(1, int(np.ceil(max(flat.shape[1:]) / cell.shape[0] / _PICTURE)))  # cells of the mosaic to a side
    scale = size * cell.shape[0]
    light = np.zeros((channels, *(side // scale for side in flat.shape[1:])))
    for frame in counted(stream_frames(flat.data[i] for i in range(count)), progress, count):
        for channel, plane in planes(frame, cell):
            # of X-Trans a cell holds several pixels of a colour, in two rows
            each = (side // (whole // len(cell)) for side, whole in zip(plane.shape, frame.shape, strict=True))
            block = tiles(plane, *(size * pixels for pixels in each))[: light.shape[1], : light.shape[2]]
            light[channel] += block.mean(axis=(2, 3)) - levels[channel]
    y, x = ((np.arange(side) + 0.5) * scale for side in light.shape[1:])
    radius = np.hypot((y - flat.shape[1] / 2)[:, None], x - flat.shape[2] / 2)
    edges = np.linspace(0, radius.max() * (1 + 1e-9), _RINGS + 1)
    nearest = np.partition(radius.ravel(), min(8, radius.size - 1))[min(8, radius.size - 1)]
    light /= light[:, radius <= max(edges[2], nearest)].mean(axis=1)[:, None, None]
    centres, profile, error = _profile(light, radius, edges)
    picture = light.mean(axis=0)
    lens = _model(picture)
    model = lens(*np.indices(picture.shape))
    scalars = {
        "centre_y": (lens.centre_y * scale + 0.5 * scale, "pix"),
        "centre_x": (lens.centre_x * scale + 0.5 * scale, "pix"),
        "centre_error": (lens.centre_error * scale, "pix"),
        "a2": (lens.a2, "1"),
        "a4": (lens.a4, "1"),
        "falloff": (lens.falloff(picture.shape), "1"),
        "uneven": (float(np.sqrt(np.mean((picture / model - 1) ** 2))), "1"),
    }
    columns: dict[str, tuple[Any, ...]] = {
        "illumination": (("y", "x"), picture, "1", "relative illumination"),
        "model": (("y", "x"), model, "1", "vignetting model"),
        "profile": (("channel", "radius"), profile, "1", "relative illumination"),
        "profile_error": (("channel", "radius"), error, "1", "error of the profile"),
    }
    columns |= {name: ((), value, unit, name.replace("_", " ")) for name, (value, unit) in scalars.items()}
    return xr.Dataset(
        {
            name: (dims, values, {"units": unit, "long_name": title})
            for name, (dims, values, unit, title) in columns.items()
        },
        {
            "y": ("y", y, {"units": "pix"}),
            "x": ("x", x, {"units": "pix"}),
            "radius": ("radius", centres, {"units": "pix", "long_name": "distance from the centre"}),
            "channel": list(channels_of(flat.attrs["cfa_pattern"])),
        },
        {"frames": count, "camera": flat.attrs["camera"]},
    )


def _profile(light: np.ndarray, radius: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the middle (ring) of each ring with cells in it, each channel's mean (channel, ring) and its error."""
    ring = np.digitize(radius.ravel(), edges) - 1
    inside = np.bincount(ring, minlength=_RINGS)
    some = inside > 0
    count = inside[some]
    mean, square = (
        np.array([np.bincount(ring, plane.ravel() ** power, _RINGS) for plane in light])[:, some] / count
        for power in (1, 2)
    )
    error = np.sqrt(np.maximum(square - mean**2, 0) / np.maximum(count - 1, 1))
    return ((edges[1:] + edges[:-1]) / 2)[some], mean, error


def _model(picture: np.ndarray) -> Lens:
    """Fit the vignetting model to the picture, thinned to some thousands of cells, in cells of the picture."""
    stride = max(1, int(np.sqrt(picture.size / _FITTED)))
    thin = picture[::stride, ::stride]
    if thin.size < _FEWEST_CELLS:
        return Lens(*[np.nan] * 7)
    return fit_lens(thin).enlarged(stride, np.hypot(*picture.shape) / 2)
