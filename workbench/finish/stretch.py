"""The stretch: the one step from linear data to what a screen shows, and nowhere else.

`stretch_parameters` reads from a picture's histogram what a curve needs and gives plain numbers; `apply_stretch`
applies them, to the whole frame or to a small level of its pyramid.  Curves: ``asinh`` (Lupton et al. 2004), which
keeps the colours; ``autostretch``, the midtone transfer function with its published constants; ``ghs``, the
generalised hyperbolic stretch (Payne and Cranfield 2021).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..stars.background import block_background
from .curves import CURVES, curve_terms, midtones_balance, smooth_colours, softening, stretch_each, stretch_together
from .picture import check_picture, in_bands, luminance, note

SHADOWS = -2.8  # autostretch: the black point in (normalised) median absolute deviations from the median
TARGET = 0.25  # autostretch: where the median lands
MAD_TO_SIGMA = 1.4826
_LEAST_SPAN = 12  # [σ] from the sky to white, at least
_LEAST_HEADROOM = 8  # white above the sky, at least, as a multiple of the typical cell above it
_BRIGHTEST_TYPICAL = 0.2  # where the typical cell of a frame full of nebula may land
_SAMPLE = 1_000_000  # pixels that the statistics are taken from


def sky_statistics(picture: xr.Dataset, *, sample: int = _SAMPLE) -> xr.Dataset:
    """Return what a stretch needs to know of a linear picture.

    Each channel's ``median`` and ``mad`` (median absolute deviation) of `sample` pixels on a regular grid, and its
    ``peak`` of all; and of the channels' mean: ``sky``, the level that a twentieth of the cells of 32 px lie below;
    ``noise``, the standard deviation of a pixel of one channel (root mean square of the channels) from differences
    8 px apart, which neither nebula nor resampling changes much; ``typical``, the median cell; ``bright``, the level
    that one pixel in 2,000 exceeds.  Missing pixels are left out.

    Raises
    ------
    WorkbenchError
        If no pixel is finite in every channel.
    """
    check_picture(picture)
    signal = picture["signal"].values
    step = max(1, int(np.sqrt(signal[0].size / sample)))
    some = signal[:, ::step, ::step].reshape(len(signal), -1)
    some = some[:, np.isfinite(some).all(axis=0)].astype(float)
    if not some.size:
        some = signal.reshape(len(signal), -1)
        some = some[:, np.isfinite(some).all(axis=0)].astype(float)
    if not some.size:
        raise WorkbenchError("this picture has no pixel that is finite in every channel: nothing can be stretched")
    median = np.median(some, axis=1)
    mad = np.median(np.abs(some - median[:, None]), axis=1)
    mean = some.mean(axis=0)
    peak = np.array([max(in_bands(lambda rows, v=values: _peak(v[rows]), len(values))) for values in signal])
    # of the mean: rows in a regular grid, each cell one stretch of 32 px along it
    lines = signal[:, :: max(1, signal.shape[1] // 1024, step)]
    rows = luminance(lines)
    apart = 8 if rows.shape[1] > 16 else 1
    noises = []
    for values in lines:
        far = np.abs(values[:, apart:] - values[:, :-apart])
        far = far[np.isfinite(far)]
        noises.append(MAD_TO_SIGMA * float(np.median(far)) / np.sqrt(2) if far.size else 0.0)
    noise = float(np.sqrt(np.mean(np.square(noises))))
    cells = block_background(rows, 32)[0] if min(rows.shape) >= 64 else np.array([])
    cells = cells[np.isfinite(cells)]
    cells = cells if cells.size >= 20 else mean
    units = {"units": picture.attrs.get("units", "")}
    return xr.Dataset(
        {
            "median": ("channel", median, units),
            "mad": ("channel", mad, {**units, "long_name": "median absolute deviation"}),
            "peak": ("channel", peak, units),
            "sky": ((), float(np.quantile(cells, 0.05)), {**units, "long_name": "level of the darkest cells"}),
            "noise": ((), noise, {**units, "long_name": "noise of a pixel of one channel"}),
            "typical": ((), float(np.median(cells)), {**units, "long_name": "level of the typical cell"}),
            "bright": ((), float(np.quantile(mean, 0.9995)), {**units, "long_name": "exceeded by 1 pixel in 2,000"}),
        },
        coords={"channel": picture["channel"].values},
    )


@numba.njit(nogil=True, cache=True)
def _peak(values):
    top = -np.inf
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values[row, column]
            if value > top and value < np.inf:
                top = value
    return top


def stretch_parameters(
    picture: xr.Dataset,
    method: str = "asinh",
    *,
    sky: float | None = None,
    strength: float = 1.0,
    linked: bool = True,
    black: float | None = None,
    white: float | None = None,
    intensity: float = 5.0,
    shape: float = 2.0,
    symmetry: float | None = None,
    chroma: float = 1.5,
    statistics: xr.Dataset | None = None,
) -> dict[str, Any]:
    """Find the numbers of a stretch from the picture itself.

    Parameters
    ----------
    method
        ``asinh``: f(I) = asinh(I/s)/asinh(w/s) of the channels' mean I above black, the channels scaled alike, so
        that ratios of colours survive (Lupton et al. 2004, PASP 116, 133).  ``autostretch``: black at the median
        less 2.8 · 1.4826 MAD, midtones so that the median lands on 0.25.  ``ghs``: see below.  ``linear``: from
        black to white.  Beyond 0.7 asinh goes over into a shoulder, 1 - 0.3 exp(-(f - 0.7)/0.3), that never clips.
    sky
        Level (0 to 1) at which the sky lands: for autostretch the median, on 0.25 as published; for asinh the
        darkest cells, on 0.10, unless that would lift the typical cell above 0.2.
    strength
        Of asinh and autostretch, above 0: 1 is automatic; more lowers the white point by that factor (asinh) or
        raises the sky's level (autostretch).
    linked
        Autostretch: one curve for all channels (keeps the balance), or each its own (forces a grey sky).
    black, white
        In the picture's units; automatic when not given: black 2.8 σ of a pixel below the sky (autostretch: as
        published); white the level that one pixel in 2,000 exceeds (asinh; the shoulder holds what is brighter) or
        the brightest pixel (the others).
    intensity, shape, symmetry
        GHS: D = e^intensity - 1; b (-1 logarithmic, 0 exponential, above 0 hyperbolic); the point of the greatest
        contrast as a share of black to white (the sky when not given).  `sky` is not used.
    chroma
        Of asinh and ghs, on colour pictures: the brightness of each pixel is its own, its colour that of its
        surroundings within this many pixels (standard deviation).  A mosaic knows colour on every second pixel
        only: less noise, no fringes about stars.  0 switches it off.
    statistics
        From `sky_statistics`, when already measured.

    Returns
    -------
    dict of plain numbers for `apply_stretch`, which JSON can hold.

    Raises
    ------
    WorkbenchError
        If the method is unknown, a number is out of its range, or the picture is flat.
    """
    if method not in CURVES:
        raise WorkbenchError(f"stretch {method!r} is none of {', '.join(CURVES)}")
    target = (TARGET if method == "autostretch" else 0.10) if sky is None else float(sky)
    if not 0 < target < 1:
        raise WorkbenchError(f"the sky's level after the stretch lies between 0 and 1; got {target:g}")
    if not strength > 0:
        raise WorkbenchError(f"the strength of a stretch is above 0; got {strength:g}")
    stats = sky_statistics(picture) if statistics is None else statistics
    channels = stats.sizes["channel"]
    if method == "autostretch":  # linked: the mean of the channels' own constants
        level = stats["median"].values
        blacks = level + SHADOWS * MAD_TO_SIGMA * stats["mad"].values
        if linked:
            level, blacks = np.full(channels, level.mean()), np.full(channels, blacks.mean())
    else:
        level = np.full(channels, float(stats["sky"]))
        blacks = level + SHADOWS * float(stats["noise"])
    if black is not None:
        blacks = np.full(channels, float(black))
    if white is None:
        white = float(stats["peak"].max())
        if method == "asinh":  # neither noise nor a nebula that fills the frame is blown up to white
            least = float(stats["sky"] + _LEAST_SPAN * stats["noise"])
            filled = float(stats["sky"] + _LEAST_HEADROOM * (stats["typical"] - stats["sky"]))
            white = blacks[0] + (max(float(stats["bright"]), least, filled) - blacks[0]) / strength
    spans = float(white) - blacks
    if np.any(spans <= 0) or not np.all(np.isfinite(spans)):
        raise WorkbenchError(
            f"white ({float(white):.4g}) does not lie above black ({float(blacks.max()):.4g}): nothing to stretch"
        )
    if not 0 <= chroma <= 20:
        raise WorkbenchError(f"colour is smoothed over 0 to 20 pixels; got {chroma:g}")
    found: dict[str, Any] = {"method": method, "black": blacks.tolist(), "white": float(white)}
    if method in ("asinh", "ghs") and channels == 3:
        found["chroma"] = float(chroma)
    # where black is put above the sky, the curve is that of a sky just above black
    above = np.maximum(level - blacks, -SHADOWS * float(stats["noise"])) if black is not None else level - blacks
    levels = np.clip(above / spans, 1e-9, 0.999)
    if method == "autostretch":
        # the same share of what is left above the target for every strength
        raised = 1 - (1 - target) ** strength
        found["midtones"] = [midtones_balance(float(value), raised) for value in levels]
        found["linked"] = bool(linked)
    elif method == "asinh":
        soft = softening(float(levels[0]), target)
        typical = float(np.clip((stats["typical"] - blacks[0]) / spans[0], 1e-9, 0.999))
        if sky is None and typical > levels[0]:  # a frame full of light is not to be bright all over
            soft = max(soft, softening(typical, _BRIGHTEST_TYPICAL))
        found["softening"] = soft * float(spans[0])
    elif method == "ghs":
        found |= {"intensity": float(intensity), "shape": float(shape)}
        found["symmetry"] = float(levels[0]) if symmetry is None else float(symmetry)
        if not 0 <= found["symmetry"] <= 1 or not 0 <= intensity <= 20 or not -5 <= shape <= 15:
            raise WorkbenchError(
                f"a generalised hyperbolic stretch has intensity 0 to 20, shape -5 to 15, symmetry 0 to 1;"
                f" got {intensity:g}, {shape:g}, {found['symmetry']:g}"
            )
    return found


def apply_stretch(picture: xr.Dataset, parameters: dict[str, Any]) -> xr.Dataset:
    """Stretch a linear picture: ``signal`` from 0 to 1 for the screen, stage ``stretched``.

    ``asinh`` and ``ghs`` scale the three channels alike by what the curve does to their mean; where a channel then
    is negative it is brought in along the line to grey, and what is bright goes over a shoulder, in its own colour
    and on to white: neither turns the hue.
    ``autostretch`` and ``linear`` treat each channel by itself.  Missing pixels stay NaN.  A variance means nothing
    on a curved scale and is left behind.

    Raises
    ------
    StageError
        If the picture is stretched already.
    """
    check_picture(picture)
    values = picture["signal"].values
    kind, terms = curve_terms(parameters, values.shape[0])
    out = np.empty(values.shape, np.float32)
    together = values.shape[0] == 3 and parameters["method"] in ("asinh", "ghs")
    # on a smaller level of the pyramid, so many of its pixels
    sigma = float(parameters.get("chroma", 0.0)) / picture.attrs.get("reduction", 1)

    def work(rows: slice) -> None:
        if together:
            stretch_together(values[:, rows], smooth_colours(values, rows, sigma), kind, terms, out[:, rows])
        else:
            stretch_each(values[:, rows], kind, terms, out[:, rows])

    in_bands(work, values.shape[1], band=128)
    numbers = {key: value for key, value in parameters.items() if key not in ("method", "linked")}
    words = ", ".join(
        f"{key} {', '.join(f'{v:.5g}' for v in (value if isinstance(value, list) else [value]))}"
        for key, value in numbers.items()
    )
    stretched = xr.Dataset(
        {"signal": (("channel", "y", "x"), out, {"units": "1", "long_name": "display value"})},
        coords={"channel": picture["channel"]},
        attrs=dict(picture.attrs),
    )
    return note(
        stretched, f"Stretch: {parameters['method']}, {words}.", stage="stretched", units="1", stretch=dict(parameters)
    )


def to_bytes(picture: xr.Dataset) -> np.ndarray:
    """Return a stretched picture as 8-bit (y, x, 3) or (y, x), for a preview; missing pixels black."""
    check_picture(picture, stage="stretched")
    values = picture["signal"].values
    out = np.empty((*values.shape[1:], len(values)), np.uint8)
    in_bands(lambda rows: _quantise_bytes(values[:, rows], out[rows]), len(out))
    return out if len(values) == 3 else out[..., 0]


@numba.njit(nogil=True, cache=True)
def _quantise_bytes(values, out):
    """Nearest of 255 levels, the channels last; what is missing becomes 0."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            for channel in range(out.shape[2]):
                level = values[channel, row, column]
                level = min(max(level, np.float32(0.0)), np.float32(1.0)) if np.isfinite(level) else np.float32(0.0)
                out[row, column, channel] = np.uint8(level * np.float32(255.0) + np.float32(0.5))


def histogram(
    picture: xr.Dataset,
    *,
    bins: int = 256,
    low: float | None = None,
    high: float | None = None,
    sample: int = _SAMPLE,
) -> xr.Dataset:
    """Return the picture's histogram, before or after the stretch: ``count`` (channel, bin) over ``level``.

    The range is 0 to 1 for a stretched picture, else the 0.1 to 99.9 % quantiles; what lies outside is left out.
    About `sample` pixels on a regular grid are counted.
    """
    check_picture(picture, stage=None)
    values = picture["signal"].values
    step = max(1, int(np.sqrt(values[0].size / sample)))
    some = values[:, ::step, ::step].reshape(len(values), -1)
    finite = some[np.isfinite(some)]
    if not finite.size:
        raise WorkbenchError("this picture has no finite pixel: it has no histogram")
    stretched = picture.attrs.get("stage") == "stretched"
    low = (0.0 if stretched else float(np.quantile(finite, 0.001))) if low is None else low
    high = (1.0 if stretched else float(np.quantile(finite, 0.999))) if high is None else high
    counts = [np.histogram(row[np.isfinite(row)], bins=bins, range=(low, high))[0] for row in some]
    edges = np.linspace(low, high, bins + 1)
    return xr.Dataset(
        {"count": (("channel", "bin"), np.array(counts), {"long_name": "pixels (of a sample)"})},
        coords={
            "channel": picture["channel"].values,
            "level": ("bin", (edges[1:] + edges[:-1]) / 2, {"units": picture.attrs.get("units", "")}),
        },
    )
