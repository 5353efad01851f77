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
from scipy.optimize import brentq

from ..errors import WorkbenchError
from ..stars import block_background
from .picture import check_picture, in_bands, luminance, note

CURVES = ("asinh", "autostretch", "ghs", "linear")
SHADOWS = -2.8  # autostretch: the black point in (normalised) median absolute deviations from the median
TARGET = 0.25  # autostretch: where the median lands
MAD_TO_SIGMA = 1.4826
_LEAST_SPAN = 12  # [σ] from the sky to white, at least
_LEAST_HEADROOM = 8  # white above the sky, at least, as a multiple of the typical cell above it
_BRIGHTEST_TYPICAL = 0.2  # where the typical cell of a frame full of nebula may land
_KNEE = 0.7  # where the shoulder begins
_SAMPLE = 1_000_000  # pixels that the statistics are taken from


def midtones(x: Any, m: float) -> Any:
    """Return the midtone transfer function, MTF(x; m) = (m-1)x / ((2m-1)x - m), which takes 0, m, 1 to 0, ½, 1.

    Examples
    --------
    >>> [round(float(midtones(x, 0.1)), 3) for x in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.5, 0.9, 1.0]
    """
    return (m - 1) * x / ((2 * m - 1) * x - m)


def midtones_balance(x: float, target: float) -> float:
    """Return the m for which MTF(x; m) = target: MTF(x; target), as the function is symmetric in that sense.

    Examples
    --------
    >>> round(float(midtones(0.02, midtones_balance(0.02, 0.25))), 6)
    0.25
    """
    return float(midtones(x, target))


def sky_statistics(picture: xr.Dataset) -> xr.Dataset:
    """Return what a stretch needs to know of a linear picture.

    Each channel's ``median`` and ``mad`` (median absolute deviation) of a million pixels on a regular grid, and its
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
    step = max(1, int(np.sqrt(signal[0].size / _SAMPLE)))
    sample = signal[:, ::step, ::step].reshape(len(signal), -1)
    sample = sample[:, np.isfinite(sample).all(axis=0)].astype(float)
    if not sample.size:
        sample = signal.reshape(len(signal), -1)
        sample = sample[:, np.isfinite(sample).all(axis=0)].astype(float)
    if not sample.size:
        raise WorkbenchError("this picture has no pixel that is finite in every channel: nothing can be stretched")
    median = np.median(sample, axis=1)
    mad = np.median(np.abs(sample - median[:, None]), axis=1)
    peak = np.array([max(in_bands(lambda rows, v=values: _peak(v[rows]), len(values))) for values in signal])
    # of the mean: rows in a regular grid, each cell one stretch of 32 px along it
    some = signal[:, :: max(1, signal.shape[1] // 1024)]
    rows = luminance(some)
    apart = 8 if rows.shape[1] > 16 else 1
    noises = []
    for values in some:
        far = np.abs(values[:, apart:] - values[:, :-apart])
        far = far[np.isfinite(far)]
        noises.append(MAD_TO_SIGMA * float(np.median(far)) / np.sqrt(2) if far.size else 0.0)
    noise = float(np.sqrt(np.mean(np.square(noises))))
    mean = sample.mean(axis=0)
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
    levels = np.clip((level - blacks) / spans, 1e-9, 0.999)
    if method == "autostretch":
        # the same share of what is left above the target for every strength
        raised = 1 - (1 - target) ** strength
        found["midtones"] = [midtones_balance(float(value), raised) for value in levels]
        found["linked"] = bool(linked)
    elif method == "asinh":
        softening = _softening(float(levels[0]), target)
        typical = float(np.clip((stats["typical"] - blacks[0]) / spans[0], 1e-9, 0.999))
        if sky is None and typical > levels[0]:  # a frame full of light is not to be bright all over
            softening = max(softening, _softening(typical, _BRIGHTEST_TYPICAL))
        found["softening"] = softening * float(spans[0])
    elif method == "ghs":
        found |= {"intensity": float(intensity), "shape": float(shape)}
        found["symmetry"] = float(levels[0]) if symmetry is None else float(symmetry)
        if not 0 <= found["symmetry"] <= 1 or not 0 <= intensity <= 20 or not -5 <= shape <= 15:
            raise WorkbenchError(
                f"a generalised hyperbolic stretch has intensity 0 to 20, shape -5 to 15, symmetry 0 to 1;"
                f" got {intensity:g}, {shape:g}, {found['symmetry']:g}"
            )
    return found


def _softening(level: float, target: float) -> float:
    """The s of asinh(x/s)/asinh(1/s) that takes `level` to `target`; the curve is straight where that is less."""

    def miss(log_s: float) -> float:
        s = np.exp(log_s)
        return np.arcsinh(level / s) / np.arcsinh(1 / s) - target

    low, high = np.log(1e-12), np.log(1e3)
    if miss(high) >= 0:
        return 1e3
    if miss(low) <= 0:
        return 1e-12
    return float(np.exp(brentq(miss, low, high, xtol=1e-12)))


def curve(x: np.ndarray, parameters: dict[str, Any], channel: int = 0) -> np.ndarray:
    """Return the stretch's curve at brightnesses `x` [picture's units]: what to draw over a histogram.

    Examples
    --------
    >>> curve(np.array([0.0, 100.0]), {"method": "linear", "black": [0.0], "white": 200.0}).tolist()
    [0.0, 0.5]
    """
    kind, table = _terms(parameters, channel + 1)
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty(x.shape, np.float32)
    _curve_rows(np.atleast_2d(x), kind, table[channel], np.atleast_2d(out))
    return np.clip(out, 0, 1)


def _terms(parameters: dict[str, Any], channels: int) -> tuple[int, np.ndarray]:
    """A curve's number and its terms, one row a channel: black, 1/span, and what the curve needs."""
    try:
        kind = CURVES.index(parameters["method"])
        blacks = np.broadcast_to(np.asarray(parameters["black"], float), (max(channels, len(parameters["black"])),))
        table = np.zeros((len(blacks), 12))
        table[:, 0] = blacks
        table[:, 1] = 1 / (float(parameters["white"]) - blacks)
        if kind == 0:
            table[:, 2] = 1 / (float(parameters["softening"]) * table[:, 1])
            table[:, 3] = 1 / np.arcsinh(table[:, 2])
        elif kind == 1:
            table[:, 2] = parameters["midtones"]
        elif kind == 2:
            table[:, 2:] = _ghs_terms(*(float(parameters[key]) for key in ("intensity", "shape", "symmetry")))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise WorkbenchError(
            f"these are no stretch parameters ({problem!r}); stretch_parameters makes them"
        ) from problem
    return kind, table


def _ghs_terms(intensity: float, shape: float, symmetry: float) -> np.ndarray:
    """D, b, symmetry point, value at 0, one over the range: T(x) = ±∫ dT over |x - SP|, brought to 0 to 1."""
    strength = np.expm1(intensity)

    low, high = -_ghs(symmetry, strength, shape), _ghs(1 - symmetry, strength, shape)
    terms = np.zeros(10)
    terms[:5] = strength, shape, symmetry, low, 1 / (high - low) if high > low else 1.0
    return terms


@numba.njit(nogil=True, cache=True)
def _ghs(distance, strength, shape):
    """∫₀ᵘ of D (1 + bDt)^-(1+1/b) dt, the contrast falling with the distance from the symmetry point.

    b = 0 is its limit, exponential; below 0 the integral kind D (1 - bDt)^(1/b), of which -1 is the logarithm.
    """
    if strength < 1e-9:
        return distance
    if abs(shape) < 1e-6:
        return 1.0 - np.exp(-strength * distance)
    if shape > 0:
        return 1.0 - (1.0 + shape * strength * distance) ** (-1.0 / shape)
    if abs(shape + 1.0) < 1e-6:
        return np.log(1.0 + strength * distance)
    return (1.0 - (1.0 - shape * strength * distance) ** ((shape + 1.0) / shape)) / (shape + 1.0)


@numba.njit(nogil=True, cache=True, inline="always")
def _one(value, kind, terms):
    """The curve at one brightness; odd below black, so that noise about it stays what it is."""
    x = (value - terms[0]) * terms[1]
    if kind == 0:
        return np.arcsinh(x * terms[2]) * terms[3]
    if kind == 1:
        if x <= 0.0:
            return x
        return (terms[2] - 1.0) * x / ((2.0 * terms[2] - 1.0) * x - terms[2]) if x < 1.0 else 1.0
    if kind == 2:
        x = min(max(x, 0.0), 1.0)
        if x >= terms[4]:
            return (_ghs(x - terms[4], terms[2], terms[3]) - terms[5]) * terms[6]
        return (-_ghs(terms[4] - x, terms[2], terms[3]) - terms[5]) * terms[6]
    return x


@numba.njit(nogil=True, cache=True, inline="always")
def _shoulder(level):
    """What is brighter than the knee approaches 1 and never reaches it: a star's core keeps its shape."""
    return level if level <= _KNEE else 1.0 - (1.0 - _KNEE) * np.exp(-(level - _KNEE) / (1.0 - _KNEE))


@numba.njit(nogil=True, cache=True)
def _curve_rows(values, kind, terms, out):
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            level = _one(values[row, column], kind, terms)
            out[row, column] = _shoulder(level) if kind == 0 else level


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _each(values, kind, terms, out):
    """Each channel through its own curve, cut to 0 to 1."""
    for channel in range(values.shape[0]):
        for row in range(values.shape[1]):
            for column in range(values.shape[2]):
                value = values[channel, row, column]
                if np.isfinite(value):
                    level = _one(np.float64(value), kind, terms[channel])
                    level = _shoulder(level) if kind == 0 else level
                    out[channel, row, column] = min(max(level, 0.0), 1.0)
                else:
                    out[channel, row, column] = np.nan


@numba.njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _together(values, colours, kind, terms, out):
    """All channels scaled by what the curve does to their mean; into 0 to 1 without a turn of the hue."""
    black = terms[0, 0]
    for row in range(values.shape[1]):
        for column in range(values.shape[2]):
            mean = (np.float64(values[0, row, column]) + values[1, row, column] + values[2, row, column]) / 3.0 - black
            if not np.isfinite(mean):
                out[0, row, column] = out[1, row, column] = out[2, row, column] = np.nan
                continue
            level = _one(mean + black, kind, terms[0])
            if level <= 0.0:
                out[0, row, column] = out[1, row, column] = out[2, row, column] = 0.0
                continue
            r = np.float64(colours[0, row, column]) - black
            g = np.float64(colours[1, row, column]) - black
            b = np.float64(colours[2, row, column]) - black
            light = (r + g + b) / 3.0
            if not light > 1e-30:  # no colour to be known there: grey
                r, g, b, light = 1.0, 1.0, 1.0, 1.0
            scale = level / light
            r, g, b = r * scale, g * scale, b * scale
            least = min(r, min(g, b))
            if least < 0.0:  # outside the gamut: towards grey of the same brightness, as far as needed
                keep = level / (level - least)
                r = max(level + (r - level) * keep, 0.0)
                g = max(level + (g - level) * keep, 0.0)
                b = max(level + (b - level) * keep, 0.0)
            most = max(r, max(g, b))
            if most > _KNEE:  # bright: over the shoulder, and fading to white as a star's core does
                top = _shoulder(most)
                fade = (top - _KNEE) / (1.0 - _KNEE)
                fade, scale = fade * fade, top / most
                r, g, b = r * scale, g * scale, b * scale
                r, g, b = r + (top - r) * fade, g + (top - g) * fade, b + (top - b) * fade
            out[0, row, column], out[1, row, column], out[2, row, column] = r, g, b


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _blur(values, taps, first, count):
    """Rows `first` to `first + count` of a plane, convolved both ways by symmetric taps; edges repeat."""
    height, width = values.shape
    reach = taps.size // 2
    out = np.empty((count, width), np.float32)
    line = np.empty(width + 2 * reach, np.float32)
    for row in range(count):
        line[:] = np.float32(0.0)
        inner = line[reach : reach + width]
        for k in range(taps.size):
            source = values[min(max(first + row + k - reach, 0), height - 1)]
            tap = taps[k]
            for column in range(width):
                inner[column] += tap * source[column]
        line[:reach] = line[reach]
        line[reach + width :] = line[reach + width - 1]
        target = out[row]
        target[:] = np.float32(0.0)
        for k in range(taps.size):
            tap = taps[k]
            for column in range(width):
                target[column] += tap * line[column + k]
    return out


def _colours(values: np.ndarray, rows: slice, sigma: float) -> np.ndarray:
    """The channels of some rows, each pixel the mean of its surroundings; its own where one of those is missing."""
    if sigma < 0.3:  # less than the grid shows
        return values[:, rows]
    reach = int(np.ceil(2.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    smooth = np.stack([_blur(plane, taps, rows.start, rows.stop - rows.start) for plane in values])
    holes = ~np.isfinite(smooth).all(axis=0)
    if holes.any():
        smooth[:, holes] = values[:, rows][:, holes]
    return smooth


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
    kind, terms = _terms(parameters, values.shape[0])
    out = np.empty(values.shape, np.float32)
    together = values.shape[0] == 3 and parameters["method"] in ("asinh", "ghs")
    # on a smaller level of the pyramid, so many of its pixels
    sigma = float(parameters.get("chroma", 0.0)) / picture.attrs.get("reduction", 1)

    def work(rows: slice) -> None:
        if together:
            _together(values[:, rows], _colours(values, rows, sigma), kind, terms, out[:, rows])
        else:
            _each(values[:, rows], kind, terms, out[:, rows])

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
    values = np.nan_to_num(picture["signal"].values, nan=0.0)
    quantised = (np.clip(values, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return np.moveaxis(quantised, 0, -1).copy() if len(quantised) == 3 else quantised[0]


def histogram(
    picture: xr.Dataset, *, bins: int = 256, low: float | None = None, high: float | None = None
) -> xr.Dataset:
    """Return the picture's histogram, before or after the stretch: ``count`` (channel, bin) over ``level``.

    The range is 0 to 1 for a stretched picture, else the 0.1 to 99.9 % quantiles; what lies outside is left out.
    """
    check_picture(picture, stage=None)
    values = picture["signal"].values
    step = max(1, int(np.sqrt(values[0].size / _SAMPLE)))
    sample = values[:, ::step, ::step].reshape(len(values), -1)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        raise WorkbenchError("this picture has no finite pixel: it has no histogram")
    stretched = picture.attrs.get("stage") == "stretched"
    low = (0.0 if stretched else float(np.quantile(finite, 0.001))) if low is None else low
    high = (1.0 if stretched else float(np.quantile(finite, 0.999))) if high is None else high
    counts = [np.histogram(row[np.isfinite(row)], bins=bins, range=(low, high))[0] for row in sample]
    edges = np.linspace(low, high, bins + 1)
    return xr.Dataset(
        {"count": (("channel", "bin"), np.array(counts), {"long_name": "pixels (of a sample)"})},
        coords={
            "channel": picture["channel"].values,
            "level": ("bin", (edges[1:] + edges[:-1]) / 2, {"units": picture.attrs.get("units", "")}),
        },
    )
