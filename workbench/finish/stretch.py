"""From linear light to the screen: the curve's numbers from the picture's own statistics, the curve applied, and
what only makes sense on the screen's scale: smaller stars, local contrast.

The numbers are found once, on the full picture; the same numbers then stretch any level of its pyramid.  Curves:
``asinh`` (Lupton et al. 2004), which keeps the colours; ``autostretch``, the midtone transfer function with its
published constants; ``ghs``, the generalised hyperbolic stretch (Payne and Cranfield 2021); ``linear``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import tiles
from ..core.statistics import MAD_TO_SIGMA, mad_std
from ..stars.background import block_background
from .curves import CURVES, curve_terms, midtones_balance, smooth_colours, softening, stretch_each, stretch_together
from .picture import check_picture, check_strength, in_bands, luminance, note, plane
from .sky import star_mask

SHADOWS = -2.8  # autostretch: the black point in (normalised) median absolute deviations from the median
TARGET = 0.25  # autostretch: where the median lands
_LEAST_SPAN = 12  # [σ] from the sky to white, at least
_LEAST_HEADROOM = 8  # white above the sky, at least, as a multiple of the typical cell above it
_BRIGHTEST_TYPICAL = 0.2  # where the typical cell of a frame full of nebula may land
_SAMPLE = 1_000_000  # pixels that the statistics are taken from


@dataclasses.dataclass(frozen=True)
class StretchSettings:
    """How to stretch; `stretch_parameters` finds the rest.

    Attributes
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
    """

    method: str = "asinh"
    sky: float | None = None
    strength: float = 1.0
    linked: bool = True
    black: float | None = None
    white: float | None = None
    intensity: float = 5.0
    shape: float = 2.0
    symmetry: float | None = None
    chroma: float = 1.5


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
    for part in (signal[:, ::step, ::step], signal):
        some = part.reshape(len(signal), -1)
        some = some[:, np.isfinite(some).all(axis=0)].astype(float)
        if some.size:
            break
    else:
        raise WorkbenchError("this picture has no pixel that is finite in every channel: nothing can be stretched")
    # of the mean: rows in a regular grid, each cell one stretch of 32 px along it
    lines = signal[:, :: max(1, signal.shape[1] // 1024, step)]
    rows = luminance(lines)
    apart = 8 if rows.shape[1] > 16 else 1
    far = (lines[..., apart::step] - lines[..., :-apart:step]).astype(float)
    noises = [np.nan_to_num(mad_std(values, centre=0)) / np.sqrt(2) for values in far]
    cells = block_background(rows, 32)[0] if min(rows.shape) >= 64 else np.array([])
    cells = cells[np.isfinite(cells)]
    mean = some.mean(axis=0)
    cells = cells if cells.size >= 20 else mean
    median = np.median(some, axis=1)
    found = {
        "median": (median, "median"),
        "mad": (np.median(np.abs(some - median[:, None]), axis=1), "median absolute deviation"),
        "peak": ([np.max(v, where=np.isfinite(v), initial=-np.inf) for v in signal], "brightest pixel"),
        "sky": (np.quantile(cells, 0.05), "level of the darkest cells"),
        "noise": (np.sqrt(np.mean(np.square(noises))), "noise of a pixel of one channel"),
        "typical": (np.median(cells), "level of the typical cell"),
        "bright": (np.quantile(mean, 0.9995), "exceeded by 1 pixel in 2,000"),
    }
    units = picture.attrs.get("units", "")
    data = {
        name: ("channel" if np.ndim(value) else (), np.asarray(value, float), {"units": units, "long_name": text})
        for name, (value, text) in found.items()
    }
    return xr.Dataset(data, coords={"channel": picture["channel"].values})


def stretch_parameters(
    picture: xr.Dataset, settings: StretchSettings | None = None, *, statistics: xr.Dataset | None = None
) -> dict[str, Any]:
    """Find the numbers of a stretch from the picture itself, or from its `sky_statistics` where already measured.

    Returns
    -------
    dict of plain numbers for `apply_stretch`, which JSON can hold.

    Raises
    ------
    WorkbenchError
        If the method is unknown, a number is out of its range, or the picture is flat.
    """
    how = StretchSettings() if settings is None else settings
    target = float(how.sky if how.sky is not None else TARGET if how.method == "autostretch" else 0.10)
    _check(how, target)
    stats = sky_statistics(picture) if statistics is None else statistics
    level, blacks = _sky_and_black(stats, how)
    white = _white_point(stats, how, blacks[0])
    spans = white - blacks
    if np.any(spans <= 0) or not np.all(np.isfinite(spans)):
        raise WorkbenchError(
            f"white ({white:.4g}) does not lie above black ({float(blacks.max()):.4g}): nothing to stretch"
        )
    found: dict[str, Any] = {"method": how.method, "black": blacks.tolist(), "white": white}
    if how.method in ("asinh", "ghs") and stats.sizes["channel"] == 3:
        found["chroma"] = float(how.chroma)
    # where black is put above the sky, the curve is that of a sky just above black
    above = level - blacks
    above = above if how.black is None else np.maximum(above, -SHADOWS * float(stats["noise"]))
    levels = np.clip(above / spans, 1e-9, 0.999)
    typical = float(np.clip((stats["typical"] - blacks[0]) / spans[0], 1e-9, 0.999))
    return found | _curve_numbers(how, target, levels, typical, float(spans[0]))


def _curve_numbers(
    how: StretchSettings, target: float, levels: np.ndarray, typical: float, span: float
) -> dict[str, Any]:
    """The numbers of the method's curve; the sky's `levels` and the `typical` one as shares of the `span`."""
    if how.method == "autostretch":
        raised = 1 - (1 - target) ** how.strength  # the same share of the rest for every strength
        return {"midtones": [midtones_balance(float(v), raised) for v in levels], "linked": bool(how.linked)}
    if how.method == "asinh":
        soft = softening(float(levels[0]), target)
        if how.sky is None and typical > levels[0]:  # a frame full of light is not to be bright all over
            soft = max(soft, softening(typical, _BRIGHTEST_TYPICAL))
        return {"softening": soft * span}
    if how.method == "ghs":
        symmetry = float(levels[0] if how.symmetry is None else how.symmetry)
        return {"intensity": float(how.intensity), "shape": float(how.shape), "symmetry": symmetry}
    return {}


def _check(how: StretchSettings, target: float) -> None:
    """Raise a WorkbenchError for the first setting that is out of its range."""
    if how.method not in CURVES:
        raise WorkbenchError(f"stretch {how.method!r} is not known; choose {', '.join(CURVES)}")
    if not 0 < target < 1:
        raise WorkbenchError(f"the sky's level after the stretch lies between 0 and 1; got {target:g}")
    if not how.strength > 0:
        raise WorkbenchError(f"the strength of a stretch is above 0; got {how.strength:g}")
    if not 0 <= how.chroma <= 20:
        raise WorkbenchError(f"colour is smoothed over 0 to 20 pixels; got {how.chroma:g}")
    symmetry = 0.0 if how.symmetry is None else how.symmetry
    if how.method == "ghs" and not (0 <= symmetry <= 1 and 0 <= how.intensity <= 20 and -5 <= how.shape <= 15):
        raise WorkbenchError(
            "a generalised hyperbolic stretch has intensity 0 to 20, shape -5 to 15, symmetry 0 to 1;"
            f" got {how.intensity:g}, {how.shape:g}, {symmetry:g}"
        )


def _sky_and_black(stats: xr.Dataset, how: StretchSettings) -> tuple[np.ndarray, np.ndarray]:
    """The sky's level and the black point of each channel [picture's units]."""
    channels = stats.sizes["channel"]
    if how.method == "autostretch":  # linked: the mean of the channels' own constants
        level = stats["median"].values
        blacks = level + SHADOWS * MAD_TO_SIGMA * stats["mad"].values
        if how.linked:
            level, blacks = np.full(channels, level.mean()), np.full(channels, blacks.mean())
    else:
        level = np.full(channels, float(stats["sky"]))
        blacks = level + SHADOWS * float(stats["noise"])
    return level, blacks if how.black is None else np.full(channels, float(how.black))


def _white_point(stats: xr.Dataset, how: StretchSettings, black: float) -> float:
    if how.white is not None:
        return float(how.white)
    if how.method != "asinh":
        return float(stats["peak"].max())
    # neither noise nor a nebula that fills the frame is blown up to white
    sky, noise, typical = (float(stats[name]) for name in ("sky", "noise", "typical"))
    bright = max(float(stats["bright"]), sky + _LEAST_SPAN * noise, sky + _LEAST_HEADROOM * (typical - sky))
    return float(black + (bright - black) / how.strength)


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
    terms, out = curve_terms(parameters, values.shape[0]), np.empty(values.shape, np.float32)
    together = values.shape[0] == 3 and parameters["method"] in ("asinh", "ghs")
    # on a smaller level of the pyramid, so many of its pixels
    sigma = float(parameters.get("chroma", 0.0)) / picture.attrs.get("reduction", 1)

    def work(rows: slice) -> None:
        if together:
            stretch_together(values[:, rows], smooth_colours(values, rows, sigma), terms, out[:, rows])
        else:
            stretch_each(values[:, rows], terms, out[:, rows])

    in_bands(work, values.shape[1], band=128)
    words = "".join(
        f", {key} {', '.join(f'{v:.5g}' for v in np.atleast_1d(value))}"
        for key, value in parameters.items()
        if key not in ("method", "linked")
    )
    stretched = picture[["signal"]].assign(signal=plane(out, "display value", units="1"))
    sentence = f"Stretch: {parameters['method']}{words}."
    return note(stretched, sentence, stage="stretched", units="1", stretch=dict(parameters))


def quantise(picture: xr.Dataset, bits: int = 16) -> np.ndarray:
    """Return a stretched picture as integers of 8 or 16 bits, (y, x) or (y, x, 3), missing pixels black."""
    check_picture(picture, stage="stretched")
    values = picture["signal"].values
    out = np.empty((*values.shape[1:], len(values)), np.uint16 if bits == 16 else np.uint8)
    top = np.float32(np.iinfo(out.dtype).max)
    in_bands(lambda rows: _quantise(values[:, rows], top, out[rows]), len(out))
    return out if len(values) == 3 else out[..., 0]


@kernel()
def _quantise(values, top, out):
    """Nearest of `top` levels, from (channel, y, x) to (y, x, channel); what is missing becomes 0."""
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            for channel in range(out.shape[2]):
                level = values[channel, row, column]
                level = min(max(level, np.float32(0.0)), np.float32(1.0)) if np.isfinite(level) else np.float32(0.0)
                out[row, column, channel] = np.rint(level * top)


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


def reduce_stars(picture: xr.Dataset, stars: xr.Dataset, *, strength: float = 0.3) -> xr.Dataset:
    """Make stars smaller on the stretched picture, so that they do not cover what lies behind.

    Inside soft discs around the `stars` (of the linear picture: `find_picture_stars`), each channel gives way by
    `strength` to its erosion (the darkest within half a FWHM): a star's rim becomes the sky or the nebula it lies
    on, in their colour, its core stays bright.  It does not keep their measured brightness.
    """
    check_picture(picture, stage="stretched")
    check_strength(strength)
    values = picture["signal"].values
    fwhm = stars.attrs.get("searched_fwhm", np.nan)
    if not stars.sizes["star"] or not np.isfinite(fwhm):
        return note(picture, "Star reduction: no stars found, nothing changed.")
    mask = star_mask(stars, values.shape[1:], depth=1.0).astype(np.float32)
    mask = ndimage.gaussian_filter(mask, 0.5 * fwhm)
    reach = max(1, round(0.5 * fwhm))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = u * u + v * v <= (reach + 0.5) ** 2
    changed = np.empty_like(values, np.float32)
    for level, out in zip(values, changed, strict=True):
        known = np.nan_to_num(level, nan=0.0)
        soft = ndimage.gaussian_filter(known, 0.35 * fwhm)  # a minimum of noise would be darker than the sky
        eroded = ndimage.grey_erosion(soft, footprint=disc, mode="nearest")
        eroded = np.minimum(ndimage.gaussian_filter(eroded, 0.25 * fwhm), known)
        out[:] = level - np.float32(strength) * mask * (known - eroded)
    return note(
        picture.assign(signal=plane(changed, "display value", units="1")),
        f"Star reduction: strength {strength:g}, {stars.sizes['star']} stars; their brightness is not kept.",
    )


def local_contrast(picture: xr.Dataset, *, strength: float = 0.2, radius: float | None = None) -> xr.Dataset:
    """Raise the contrast of structures up to `radius` [px] on the stretched picture, without halos around stars.

    Stars are first opened away from the brightness B; what is left moves away from its own mean over the radius,
    B' = B + 2 strength (C - mean C) 4B(1 - B), C the brightness without stars, and the channels follow by the same
    factor.  By default the radius is a twentieth of the shorter side.
    """
    check_picture(picture, stage="stretched")
    check_strength(strength)
    values = picture["signal"].values
    level = np.nan_to_num(luminance(values), nan=0.0)
    radius = max(4.0, min(level.shape) / 20) if radius is None else float(radius)
    step = max(1, int(radius / 24))  # the mean over a wide radius needs no more than that
    calm = tiles(level, step).mean(axis=(2, 3))
    calm = ndimage.grey_opening(calm, size=(7, 7), mode="nearest")
    calm = ndimage.gaussian_filter(calm, 2, mode="nearest")
    change = calm - ndimage.gaussian_filter(calm, radius / step, mode="nearest")
    rows, columns = ((np.arange(size) + 0.5) / step - 0.5 for size in level.shape)
    grid = np.meshgrid(rows.astype(np.float32), columns.astype(np.float32), indexing="ij", copy=False)
    change = ndimage.map_coordinates(change, grid, order=1, mode="nearest")
    wanted = np.clip(level + np.float32(8 * strength) * change * level * (1 - level), 0, 1)
    changed = np.clip(values * (wanted / np.maximum(level, np.float32(1e-6))), 0, 1).astype(np.float32)
    return note(
        picture.assign(signal=plane(changed, "display value", units="1")),
        f"Local contrast: strength {strength:g}, radius {radius:.0f} px.",
    )
