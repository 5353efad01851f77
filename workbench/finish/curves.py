"""The curves of the stretch, as formulas and as the loops that apply them to every pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from ..core.errors import WorkbenchError
from ..core.kernels import kernel

CURVES = ("asinh", "autostretch", "ghs", "linear")
_KNEE = 0.7  # where the shoulder begins


class Curve(NamedTuple):
    """A stretch's curve for the kernels, each term an array (channel,), 0 where its kind has no use for it.

    `scale` is 1/(white - black), [1/units]; `bend` the slope of asinh at black, the midtones or GHS's D; `shape`,
    `symmetry` and `low` (the value at black) are GHS's; `norm` brings asinh and GHS to 1 at white.
    """

    kind: int
    black: np.ndarray
    scale: np.ndarray
    bend: np.ndarray
    norm: np.ndarray
    shape: np.ndarray
    symmetry: np.ndarray
    low: np.ndarray


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


def softening(level: float, target: float) -> float:
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
    terms = curve_terms(parameters, channel + 1)
    own = Curve(terms.kind, *(term[channel : channel + 1] for term in terms[1:]))
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty((1, 1, x.size), np.float32)
    stretch_each(x.reshape(1, 1, -1), own, out)
    return out.reshape(x.shape)


def curve_terms(parameters: dict[str, Any], channels: int) -> Curve:
    """The curve of `stretch_parameters`' numbers, for at least so many channels."""
    try:
        kind = CURVES.index(parameters["method"])
        black = np.asarray(parameters["black"], float)
        black = np.array(np.broadcast_to(black, (max(channels, black.size),)))
        terms = {name: np.zeros(black.size) for name in Curve._fields[3:]}
        scale = 1 / (float(parameters["white"]) - black)
        if kind == 0:
            terms["bend"] = 1 / (float(parameters["softening"]) * scale)
            terms["norm"] = 1 / np.arcsinh(terms["bend"])
        elif kind == 1:
            terms["bend"][:] = parameters["midtones"]
        elif kind == 2:
            strength = np.expm1(float(parameters["intensity"]))
            shape, symmetry = float(parameters["shape"]), float(parameters["symmetry"])
            low, high = -_ghs(symmetry, strength, shape), _ghs(1 - symmetry, strength, shape)
            norm = 1 / (high - low) if high > low else 1.0
            for name, value in zip(terms, (strength, norm, shape, symmetry, low), strict=True):
                terms[name][:] = value
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise WorkbenchError(
            f"these are not the numbers of a stretch ({problem!r}); stretch_parameters finds them"
        ) from problem
    return Curve(kind, black, scale, **terms)


@kernel()
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


@kernel(inline="always")
def _arcsinh(x):
    """To 1e-15, in a third of the time of the C library's, which is exact about 0."""
    size = np.log(abs(x) + np.sqrt(x * x + 1.0))
    return size if x >= 0.0 else -size


@kernel(inline="always")
def _level(value, curve, channel):
    """The curve at one brightness; odd below black, so that noise about it stays what it is."""
    x = (value - curve.black[channel]) * curve.scale[channel]
    if curve.kind == 0:
        return _arcsinh(x * curve.bend[channel]) * curve.norm[channel]
    if curve.kind == 1:
        if x <= 0.0:
            return x
        m = curve.bend[channel]
        return (m - 1.0) * x / ((2.0 * m - 1.0) * x - m) if x < 1.0 else 1.0
    if curve.kind == 2:
        x = min(max(x, 0.0), 1.0)
        away = x - curve.symmetry[channel]
        change = _ghs(abs(away), curve.bend[channel], curve.shape[channel])
        return ((change if away >= 0.0 else -change) - curve.low[channel]) * curve.norm[channel]
    return x


@kernel(inline="always")
def _shoulder(level):
    """What is brighter than the knee approaches 1 and never reaches it: a star's core keeps its shape."""
    return level if level <= _KNEE else 1.0 - (1.0 - _KNEE) * np.exp(-(level - _KNEE) / (1.0 - _KNEE))


@kernel(fastmath={"contract", "nsz"})
def stretch_each(values: np.ndarray, curve: Curve, out: np.ndarray) -> None:
    """Each channel of `values` (channel, y, x) through its own curve into `out`, cut to 0 to 1; NaN stays."""
    for channel in range(values.shape[0]):
        for row in range(values.shape[1]):
            for column in range(values.shape[2]):
                value = values[channel, row, column]
                if np.isfinite(value):
                    level = _level(np.float64(value), curve, channel)
                    level = _shoulder(level) if curve.kind == 0 else level
                    out[channel, row, column] = min(max(level, 0.0), 1.0)
                else:
                    out[channel, row, column] = np.nan


@kernel(fastmath={"contract", "nsz"})
def stretch_together(values: np.ndarray, colours: np.ndarray, curve: Curve, out: np.ndarray) -> None:
    """Three channels (R, G, B; y, x) scaled by what the curve does to their mean, into 0 to 1 without a turn of hue."""
    black = curve.black[0]
    for row in range(values.shape[1]):
        for column in range(values.shape[2]):
            mean = (np.float64(values[0, row, column]) + values[1, row, column] + values[2, row, column]) / 3.0 - black
            if not np.isfinite(mean):
                out[0, row, column] = out[1, row, column] = out[2, row, column] = np.nan
                continue
            level = _level(mean + black, curve, 0)
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


@kernel(fastmath={"contract", "reassoc", "nsz"})
def _blur(values, taps, first, count):
    """Rows `first` to `first + count` of a plane (y, x), convolved both ways by symmetric taps; edges repeat.

    In a third of the time of scipy's Gaussian filter, on the way of every move of a stretch's control.
    """
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


def smooth_colours(values: np.ndarray, rows: slice, sigma: float) -> np.ndarray:
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
