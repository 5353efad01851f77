"""A finish checked on its stars: their fluxes and colours before and after every linear step.

A linear step may scale and mix the channels, shift the frame or take a background away; what it may not do is
change how bright one star is relative to another.  Each step leaves in the attribute ``colour_transform`` what it meant
to do to the channels; `check_photometry` measures what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from photutils.aperture import CircularAperture

from ..core.errors import WorkbenchError
from ..core.statistics import mad_std
from ..stars.background import clipped_stats
from ..stars.photometry import ANNULUS, RADIUS, aperture_fluxes
from ..stars.survey import find_plane_stars
from .picture import check_picture, luminance

TOLERANCE = 0.003  # what a linear step may change of a bright star's flux
_WIDE = (4.5, 5.0, 6.5)  # [FWHM] aperture and annulus where light moves within a star
_MOST_STARS = 20_000
_EMPTY = 12  # apertures on a side of the grid on which the noise that a step takes away is measured


class TooFewStarsError(WorkbenchError):
    """Fewer than three stars can be measured: photometry is not checked."""


def find_picture_stars(picture: xr.Dataset) -> xr.Dataset:
    """Find the stars of a linear picture on the mean of its channels; see `workbench.stars.find_stars`.

    Large pictures are searched at half size.  Stars whose core touches a saturated or a missing pixel are flagged
    ``saturated``.  The attribute ``searched_fwhm`` is the typical width [px of the picture].

    Raises
    ------
    WorkbenchError
        If the picture is not linear, or has no finite pixel.
    """
    check_picture(picture)
    level = luminance(picture["signal"].values)
    stars = find_plane_stars(level, _MOST_STARS)
    spoilt = stars["saturated"].values.copy()
    fwhm = float(stars.attrs.get("fwhm", np.nan))
    reach = int(np.ceil(fwhm)) if np.isfinite(fwhm) else 3
    bad = ~np.isfinite(level)
    if "saturated" in picture:
        bad |= (picture["saturated"].values > 0).any(axis=0)
    for star, (x, y) in enumerate(np.rint([stars["x"].values, stars["y"].values]).T.astype(int)):
        spoilt[star] |= bad[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].any()
    return stars.assign(saturated=("star", spoilt)).assign_attrs(searched_fwhm=fwhm)


def bright_stars(stars: xr.Dataset, shape: tuple[int, ...], *, count: int = 100, apart: float = 7.0) -> xr.Dataset:
    """Choose the brightest stars that can be measured well: unsaturated, round, alone, not at the edge.

    `apart` is the distance [FWHM] to any neighbour of a fiftieth of the star's flux, and to the edge.
    """
    fwhm = stars.attrs["searched_fwhm"]
    x, y, flux = (stars[name].values for name in ("x", "y", "flux"))
    reach = apart * fwhm
    inside = (x > reach) & (y > reach) & (x < shape[1] - 1 - reach) & (y < shape[0] - 1 - reach)
    good = inside & ~stars["saturated"].values & (stars["roundness"].values > 0.6) & (flux > 0)
    chosen: list[int] = []
    for index in np.argsort(-flux, kind="stable"):
        if len(chosen) == count:
            break
        if good[index]:
            near = (x - x[index]) ** 2 + (y - y[index]) ** 2 < reach**2
            near[index] = False
            if not np.any(near & (flux > 0.02 * flux[index])):
                chosen.append(int(index))
    return stars.isel(star=chosen)


def photometry(picture: xr.Dataset, x: np.ndarray, y: np.ndarray, fwhm: float) -> xr.Dataset:
    """Measure stars in circular apertures of 2.5 FWHM over the clipped mean of a ring of 4 to 6 FWHM.

    Returns
    -------
    Dataset over (star, channel): ``flux``, ``flux_error`` (from the picture's variance; NaN without one) in the
    picture's units, ``background`` per pixel, ``background_error`` in the flux; NaN where a missing pixel lies in
    the aperture.

    Examples
    --------
    >>> from workbench.finish import make_picture
    >>> v, u = np.mgrid[:64, :64]
    >>> star = 100 * np.exp(-((u - 30.2) ** 2 + (v - 31.7) ** 2) / (2 * 1.5**2)) + 7
    >>> table = photometry(make_picture(star), [30.2], [31.7], 3.5)
    >>> round(float(table.flux[0, 0]) / (100 * 2 * np.pi * 1.5**2), 3), float(table.background[0, 0].round(3))
    (1.0, 7.0)
    """
    check_picture(picture)
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    names, units = picture["channel"].values, picture.attrs.get("units", "")
    variances = picture["variance"].values if "variance" in picture else [None] * names.size
    planes = zip(picture["signal"].values, variances, strict=True)
    found = [aperture_fluxes(values, x, y, fwhm, variance) for values, variance in planes]
    flux, error, local, doubt = (np.stack(part, axis=1) for part in zip(*found, strict=True))
    dims = ("star", "channel")
    return xr.Dataset(
        {
            "flux": (dims, flux, {"units": units, "long_name": "star flux"}),
            "flux_error": (dims, error, {"units": units, "long_name": "standard error of the flux"}),
            "background": (dims, local, {"units": units, "long_name": "local background per pixel"}),
            "background_error": (dims, doubt, {"units": units, "long_name": "its error's share in the flux"}),
        },
        coords={"channel": names, "x": ("star", x, {"units": "pix"}), "y": ("star", y, {"units": "pix"})},
        attrs={"fwhm": fwhm},
    )


def check_photometry(
    before: xr.Dataset,
    after: xr.Dataset,
    stars: xr.Dataset | None = None,
    *,
    gain: xr.DataArray | None = None,
    relative: bool = False,
    tolerance: float = TOLERANCE,
) -> xr.Dataset:
    """Compare star fluxes and colours before and after linear steps with what the steps meant to do.

    expected = T · flux before, T the ratio of the two pictures' ``colour_transform`` (white balance and matrix),
    times `gain` at the star (for a background that was divided out); crops are followed.  Both fluxes are sums over
    the very same pixels with the very same weights, so the noise that both pictures share cancels: of a step that
    only scales, mixes and shifts nothing but the rounding of float32 is left, and what a background model bends
    within an aperture shows as it is.  A step that takes noise away (denoise, deconvolution) changes a flux by that
    noise too: ``uncertainty``, the scatter of what it did to apertures on a regular grid, most of them empty.

    A star is off when its deviation exceeds by more than three uncertainties what is allowed: `tolerance`, and of a
    faint star a tenth of its own error, which nobody could measure.

    Parameters
    ----------
    stars
        Of the picture `before`; the hundred best are chosen among them.  Found when not given.
    gain
        A factor (channel, star) that the steps were meant to multiply by.
    relative
        Compare the stars with each other only, in apertures of 4.5 FWHM and with neighbours 11 FWHM away: for a step
        that moves light within a star and out of the aperture, of all stars alike, as a deconvolution does.

    Returns
    -------
    Dataset over (star, channel): ``flux_before``, ``flux_after``, ``expected``, ``deviation`` and its standard error
    ``uncertainty`` (both relative to the star's strongest expected channel).  Attributes: ``median`` and ``worst``
    absolute deviation (worst: of the 90 % of stars that agree best, as a step may rightly change one's neighbour),
    ``uncertainty`` (its median), ``passed`` (nine tenths of the stars are not off), ``stars``.

    Raises
    ------
    TooFewStarsError
        If fewer than three stars can be measured in both.
    """
    check_picture(before), check_picture(after)
    stars = find_picture_stars(before) if stars is None else stars
    if stars.sizes["star"]:
        stars = bright_stars(stars, before["signal"].shape[1:], apart=11.0 if relative else 7.0)
    fwhm = float(stars.attrs.get("searched_fwhm", np.nan))
    crops = [np.asarray(p.attrs.get("crop", (0, 0, 0, 0)), int) for p in (before, after)]
    down, right = (int(crops[1][side] - crops[0][side]) for side in (0, 2))
    radii = [radius * fwhm for radius in (_WIDE if relative else (RADIUS, *ANNULUS))]
    x, y = stars["x"].values, stars["y"].values
    reach = radii[2] + 1
    inside = (x - right > reach) & (x - right < after.sizes["x"] - reach)
    inside &= (y - down > reach) & (y - down < after.sizes["y"] - reach)
    if inside.sum() < 3:
        raise TooFewStarsError(
            f"{int(inside.sum())} unsaturated, isolated stars can be measured; the photometry check needs three"
        )
    x, y = x[inside], y[inside]
    identity = np.eye(before.sizes["channel"])
    transforms = [np.asarray(p.attrs.get("colour_transform", identity), float) for p in (before, after)]
    transform = transforms[1] @ np.linalg.inv(transforms[0])
    factor = 1.0 if gain is None else np.asarray(gain)[:, inside].T
    sums = partial(_paired, before, after, shift=(down, right), radii=radii)
    first, second, error = sums(x, y)
    expected = first @ transform.T * factor
    if relative:
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = expected * np.nanmedian(second / expected, axis=0)
    grid = np.meshgrid(*(np.linspace(reach, size - reach, _EMPTY) for size in before["signal"].shape[:0:-1]))
    empty, changed, _ = sums(*(positions.ravel() for positions in grid))
    noise = mad_std(changed - empty @ transform.T * (1.0 if gain is None else np.median(factor, axis=0)), axis=0)
    scale = np.max(np.abs(expected), axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation, uncertainty = (second - expected) / scale, noise / scale
        own = np.sqrt(error**2 @ transform.T**2) / scale
    dims, units = ("star", "channel"), after.attrs.get("units", "")
    table = xr.Dataset(
        {
            "flux_before": (dims, first, {"units": units, "long_name": "flux before"}),
            "flux_after": (dims, second, {"units": units, "long_name": "flux after"}),
            "expected": (dims, expected, {"units": units, "long_name": "flux that the steps should leave"}),
            "deviation": (dims, deviation, {"units": "1", "long_name": "relative deviation"}),
            "uncertainty": (dims, uncertainty, {"units": "1", "long_name": "standard error of the deviation"}),
        },
        coords={
            "channel": before["channel"].values,
            "x": ("star", x, {"units": "pix"}),
            "y": ("star", y, {"units": "pix"}),
        },
    )
    return table.assign_attrs(fwhm=fwhm, tolerance=tolerance, **_verdict(deviation, uncertainty, own, tolerance))


def _verdict(deviation: np.ndarray, uncertainty: np.ndarray, own: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Summarise deviations (star, channel); `own` is what a star's flux is known to before the step."""
    whole = np.isfinite(deviation).all(axis=1)
    if whole.sum() < 3:
        raise TooFewStarsError("fewer than three stars without missing pixels: their photometry cannot be checked")
    sizes = np.sort(np.abs(deviation[whole]), axis=0)
    off = np.abs(deviation) > np.maximum(tolerance, 0.1 * own) + 3 * uncertainty
    return {
        "median": float(np.median(sizes, axis=0).max()),
        "worst": float(sizes[int(0.9 * (len(sizes) - 1))].max()),
        "uncertainty": float(np.median(uncertainty[whole])),
        "passed": bool(off[whole].any(axis=1).mean() <= 0.1),
        "stars": int(whole.sum()),
    }


def _paired(
    before: xr.Dataset,
    after: xr.Dataset,
    xs: np.ndarray,
    ys: np.ndarray,
    *,
    shift: tuple[int, int],
    radii: Sequence[float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fluxes (star, channel) before and after, by one set of weights a star, and the error of the first.

    A flux is the sum over the aperture less that of the plane that fits the ring best.  The ring's pixels are chosen
    once, by their brightness before.  `radii` [px]: of the aperture, and the ring's.  The error is that of the
    variance, 0 without one.  NaN where a pixel is missing in the aperture.
    """
    shape = (xs.size, before.sizes["channel"])
    first, second, error = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
    aperture, inner, outer = radii
    reach = int(np.ceil(outer)) + 1
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for star, (x, y) in enumerate(zip(xs, ys, strict=True)):
        corners = [(round(y) - down, round(x) - right) for down, right in ((0, 0), shift)]
        pairs = zip((before, after), corners, strict=True)
        inside = (_cut(picture["signal"], *corner, reach) for picture, corner in pairs)
        cuts = [cut for cut in inside if cut is not None]
        if len(cuts) < 2:
            continue
        good = np.all(np.isfinite(cuts[0]), axis=0) & np.all(np.isfinite(cuts[1]), axis=0)
        radius = np.hypot(u + round(x) - x, v + round(y) - y)
        disc = CircularAperture((reach + x - round(x), reach + y - round(y)), aperture).to_mask().to_image(u.shape)
        ring = good & (radius >= inner) & (radius <= outer)
        if not good[disc > 0].all() or not ring.any():
            continue
        level = cuts[0].mean(axis=0)
        middle, spread, _ = clipped_stats(level[ring].astype(np.float32))
        ring &= np.abs(level - middle) <= 3 * spread
        if ring.sum() < 10:
            continue
        # less the plane through the ring, so that a gradient is nothing: least squares as weights of its pixels
        weights = np.array(disc)
        terms = np.stack([np.ones(u.shape), u, v], axis=-1)
        weights[ring] -= np.linalg.pinv(terms[ring]).T @ (terms * weights[..., None]).sum(axis=(0, 1))
        used = weights != 0
        first[star], second[star] = (cut[:, used] @ weights[used] for cut in cuts)
        variance = _cut(before["variance"], *corners[0], reach) if "variance" in before else None
        if variance is not None:
            error[star] = np.sqrt(np.nan_to_num(variance[:, used]) @ weights[used] ** 2)
    return first, second, error


def _cut(values: xr.DataArray, row: int, column: int, reach: int) -> np.ndarray | None:
    """A square about a pixel, float64 (channel, y, x); None where it does not lie within the picture."""
    top, left = row - reach, column - reach
    if min(top, left) < 0 or row + reach >= values.sizes["y"] or column + reach >= values.sizes["x"]:
        return None
    return values.values[:, top : row + reach + 1, left : column + reach + 1].astype(float)
