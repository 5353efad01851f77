"""The read noise of every pixel, and the ones that flicker."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import channels_of, check_cube, one_value
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.pairs import BLOCKS, QUANTISATION_VARIANCE, jackknife_error
from ..core.parallel import counted, lazy_frames, stream_frames

_FEWEST = 3  # frames; of two a pixel's spread says next to nothing
_RANGE = 4.0  # of the typical noise that the histogram spans


def noise_map(bias: xr.DataArray, *, progress: Any = True) -> xr.DataArray:
    """Measure the temporal noise of every pixel from a stack of equal frames.

    The standard deviation (ddof 1) of each pixel's values over the frames, each frame's mean of the channel taken out
    first, so that an offset that wanders does not count.  From N frames one pixel's is known to 1/√(2(N−1)).

    Parameters
    ----------
    bias
        Raw frames (frame, y, x) of one kind, ISO and exposure, three or more; twenty show the pixels that flicker.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.DataArray
        Over (y, x) [ADU], rounding included; attrs ``frames``, ``iso``, ``whole_numbers``, ``cfa_pattern``, ``camera``.

    Raises
    ------
    WorkbenchError
        If there are fewer than three frames, or they are not equal.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> noise = np.random.default_rng(0).normal(600, 3, (16, 64, 64)).round().astype("uint16")
    >>> found = noise_map(make_cube(noise, cfa_pattern="RGGB", kind="bias", iso=100, exposure=0), progress=False)
    >>> found.shape, float(np.sqrt((found**2).mean()).round(1))
    ((64, 64), 3.0)
    """
    check_cube(bias, stage="raw")
    count = bias.sizes["frame"]
    if count < _FEWEST:
        raise WorkbenchError(f"the noise of each pixel needs {_FEWEST} equal frames at least, and there are {count}")
    iso, _ = one_value(bias, "iso", "a noise map"), one_value(bias, "exposure", "a noise map")
    cell = channel_index(bias.attrs["cfa_pattern"])
    step = cell.shape[0]
    total, squares = np.zeros(bias.shape[1:], np.float32), np.zeros(bias.shape[1:], np.float32)
    base = None
    for frame in counted(stream_frames(lazy_frames(bias)), progress, count):
        values = frame.astype(np.float32)
        for row in range(step):
            for column in range(step):
                values[row::step, column::step] -= np.float32(values[row::step, column::step].mean(dtype=float))
        if base is None:
            base = values.copy()  # small numbers keep their digits in float32
        values -= base
        total += values
        squares += values * values
    total *= total
    total /= np.float32(count)
    squares -= total
    np.maximum(squares, 0, out=squares)
    squares /= np.float32(count - 1)
    attrs = {
        "units": "ADU",
        "long_name": "temporal noise of each pixel",
        "frames": count,
        "iso": iso,
        "whole_numbers": bool(np.issubdtype(bias.dtype, np.integer)),
        "cfa_pattern": bias.attrs["cfa_pattern"],
        "camera": bias.attrs["camera"],
    }
    return xr.DataArray(np.sqrt(squares, out=squares), dims=("y", "x"), attrs=attrs)


def noise_distribution(pixels: xr.DataArray, *, rare: float = 1e-3, bins: int = 200) -> xr.Dataset:
    """Compare the noise of the pixels with what chance makes of one noise for all, and count those beyond it.

    Of normal noise (N−1)s²/σ² is χ² of N−1 degrees of freedom; σ² is taken from the median, which the odd ones do not
    move.  Pixels whose s² exceeds what χ² exceeds once in a thousand (`rare`) are more than chance allows where their
    share is more than a thousandth: a source follower that switches between two levels (random telegraph noise) makes
    such a tail.

    Parameters
    ----------
    pixels
        From `noise_map`.
    rare
        The probability beyond which a pixel counts to the tail.
    bins
        Of the histogram, from zero to four times the typical noise.

    Returns
    -------
    xarray.Dataset
        Over channel: ``typical_noise`` [ADU], from the median; ``read_noise_adu`` [ADU], the root of the mean of s²
        less 1/12, as pairs give it, with ``read_noise_adu_error`` (jackknife over blocks of rows); ``threshold`` [ADU];
        ``tail_share``, the share of pixels beyond it less `rare`, with ``tail_share_error``.  Over (channel, bin):
        ``count`` and ``expected`` pixels; ``bin`` [ADU], the middle.  ``beyond``, pixels right of the last bin.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> s = np.sqrt(9 * rng.chisquare(15, (200, 200)) / 15)
    >>> s[::20, ::20] = 12  # a quarter per cent of the pixels flickers
    >>> attrs = {"frames": 16, "cfa_pattern": "mono", "whole_numbers": False, "iso": 100, "camera": ""}
    >>> found = noise_distribution(xr.DataArray(s, dims=("y", "x"), attrs=attrs))
    >>> round(found.typical_noise.item(), 1), round(100 * found.tail_share.item(), 2)
    (3.0, 0.26)
    """
    if not 0 < rare < 0.5:
        raise WorkbenchError(f"rare is a probability well below one half, not {rare}")
    pattern, count = pixels.attrs["cfa_pattern"], pixels.attrs["frames"]
    cell, names = channel_index(pattern), channels_of(pattern)
    step, degrees = cell.shape[0], count - 1
    rounding = QUANTISATION_VARIANCE if pixels.attrs["whole_numbers"] else 0.0
    found = {name: np.full(len(names), np.nan) for name in _VARIABLES}
    planes = {}
    for (row, column), channel in np.ndenumerate(cell):
        planes[channel] = pixels.values[row::step, column::step].astype(float) ** 2
        middle = special.chdtri(degrees, 0.5) / degrees
        found["typical_noise"][channel] = np.sqrt(np.median(planes[channel]) / middle)
    edges = np.linspace(0, _RANGE * np.nanmax(found["typical_noise"]), bins + 1)
    histogram, expected = np.zeros((2, len(names), bins))
    for channel, variance in planes.items():
        typical = found["typical_noise"][channel] ** 2
        limit = typical * special.chdtri(degrees, rare) / degrees
        share = float((variance > limit).mean())
        blocks = np.array_split(variance, min(BLOCKS, variance.shape[0]))
        sums, sizes = (np.array([f(block) for block in blocks]) for f in (np.sum, np.size))
        without = (sums.sum() - sums) / (sizes.sum() - sizes)
        mean = float(variance.mean()) - rounding
        found["read_noise_adu"][channel] = np.sqrt(max(mean, 0.0))
        found["read_noise_adu_error"][channel] = jackknife_error(without) / (2 * np.sqrt(mean)) if mean > 0 else np.nan
        found["threshold"][channel] = np.sqrt(limit)
        found["tail_share"][channel] = share - rare
        found["tail_share_error"][channel] = np.sqrt(max(share, rare) * (1 - share) / variance.size)
        histogram[channel] = np.histogram(np.sqrt(variance), edges)[0]
        chance = special.chdtr(degrees, degrees * edges**2 / typical) if typical > 0 else np.ones(edges.size)
        expected[channel] = np.diff(chance) * variance.size
        found["beyond"][channel] = variance.size - histogram[channel].sum()
    data: dict[str, Any] = {name: ("channel", found[name], attrs) for name, attrs in _VARIABLES.items()}
    data["count"] = (("channel", "bin"), histogram, {"units": "1", "long_name": "pixels"})
    data["expected"] = (("channel", "bin"), expected, {"units": "1", "long_name": "pixels by chance"})
    coords = {
        "channel": list(names),
        "bin": ("bin", (edges[1:] + edges[:-1]) / 2, {"units": "ADU", "long_name": "read noise of a pixel"}),
    }
    kept = {name: pixels.attrs[name] for name in ("frames", "iso", "camera")}
    return xr.Dataset(data, coords, kept | {"rare": rare, "long_name": "read noise pixel by pixel"})


_VARIABLES = {
    "typical_noise": {"units": "ADU", "long_name": "typical noise of a pixel"},
    "read_noise_adu": {"units": "ADU", "long_name": "read noise"},
    "read_noise_adu_error": {"units": "ADU", "long_name": "error of the read noise"},
    "threshold": {"units": "ADU", "long_name": "noise beyond which a pixel counts to the tail"},
    "tail_share": {"units": "1", "long_name": "share of pixels beyond what chance allows"},
    "tail_share_error": {"units": "1", "long_name": "error of that share"},
    "beyond": {"units": "1", "long_name": "pixels right of the histogram"},
}
