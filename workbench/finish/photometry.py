"""Stars as the judges of a finish: their fluxes and colours before and after every linear step.

A linear step may scale and mix the channels, shift the frame or take a background away; what it may not do is
change how bright one star is beside another.  Each step leaves in the attribute ``colour_transform`` what it meant
to do to the channels; `check_photometry` measures what it did.
"""

from __future__ import annotations

import warnings

import numba
import numpy as np
import xarray as xr
from photutils.aperture import CircularAperture, aperture_photometry

from ..errors import WorkbenchError
from ..stars import clipped_stats, find_stars
from .picture import check_picture, luminance

TOLERANCE = 0.003  # what a linear step may change of a bright star's flux
_CLEAR = 0.001  # of the flux: what the background's error may be of a star that judges
_RADIUS = 2.5  # [FWHM] of the aperture
_ANNULUS = (4.0, 6.0)  # [FWHM] of the local background


def find_picture_stars(picture: xr.Dataset, *, limit: int = 20_000) -> xr.Dataset:
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
    height, width = level.shape
    if height * width > 2_000_000:
        even = level[: height // 2 * 2, : width // 2 * 2]
        searched = 0.25 * (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2])
        stars = find_stars(searched, scale=2.0, offset=0.5, limit=limit)
    else:
        stars = find_stars(level, limit=limit)
    spoilt = stars["saturated"].values.copy()
    fwhm = float(stars.attrs.get("fwhm", np.nan))
    reach = int(np.ceil(fwhm)) if np.isfinite(fwhm) else 3
    if stars.sizes["star"]:
        bad = ~np.isfinite(level)
        if "saturated" in picture:
            bad |= (picture["saturated"].values > 0).any(axis=0)
        if bad.any():
            spoilt |= _touches(bad, stars["x"].values, stars["y"].values, reach)
    return stars.assign(saturated=("star", spoilt)).assign_attrs(searched_fwhm=fwhm)


@numba.njit(nogil=True, cache=True)
def _touches(bad, xs, ys, reach):
    height, width = bad.shape
    out = np.zeros(xs.size, np.bool_)
    for star in range(xs.size):
        x0, y0 = int(np.rint(xs[star])), int(np.rint(ys[star]))
        for j in range(max(0, y0 - reach), min(height, y0 + reach + 1)):
            for i in range(max(0, x0 - reach), min(width, x0 + reach + 1)):
                out[star] |= bad[j, i]
    return out


def bright_stars(stars: xr.Dataset, shape: tuple[int, int], *, count: int = 100, apart: float = 7.0) -> xr.Dataset:
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
    flux, error, local, doubt = (np.full((x.size, names.size), np.nan) for _ in range(4))
    if x.size:
        aperture = CircularAperture(np.stack([x, y], axis=1), _RADIUS * fwhm)
        inner, outer = (radius * fwhm for radius in _ANNULUS)
        for channel in range(names.size):
            values = picture["signal"].values[channel]
            rings = _rings(values, x, y, inner, outer)
            sums = aperture_photometry(values, aperture)["aperture_sum"].value
            flux[:, channel] = sums - aperture.area * rings[:, 0]
            local[:, channel] = rings[:, 0]
            doubt[:, channel] = aperture.area * rings[:, 1] / np.sqrt(rings[:, 2])
            if "variance" in picture:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)
                    noise = aperture_photometry(picture["variance"].values[channel], aperture)["aperture_sum"].value
                    error[:, channel] = np.sqrt(noise + doubt[:, channel] ** 2)
    dims = ("star", "channel")
    return xr.Dataset(
        {
            "flux": (dims, flux, {"units": units, "long_name": "star flux"}),
            "flux_error": (dims, error, {"units": units, "long_name": "standard error of the flux"}),
            "background": (dims, local, {"units": units, "long_name": "local background per pixel"}),
            "background_error": (dims, doubt, {"units": units, "long_name": "its error's share in the flux"}),
        },
        coords={"channel": names, "x": ("star", x, {"units": "px"}), "y": ("star", y, {"units": "px"})},
        attrs={"fwhm": fwhm},
    )


def _rings(values: np.ndarray, xs: np.ndarray, ys: np.ndarray, inner: float, outer: float) -> np.ndarray:
    """Clipped mean, standard deviation and count of the ring around each star."""
    reach = int(np.ceil(outer))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    out = np.full((xs.size, 3), np.nan)
    for star, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x0, y0 = round(x), round(y)
        top, left = max(y0 - reach, 0), max(x0 - reach, 0)
        cut = values[top : y0 + reach + 1, left : x0 + reach + 1]
        radius = np.hypot(u + x0 - x, v + y0 - y)
        rows, columns = slice(top - y0 + reach, top - y0 + reach + cut.shape[0]), slice(left - x0 + reach, None)
        radius = radius[rows, columns][:, : cut.shape[1]]
        ring = cut[(radius >= inner) & (radius <= outer)]
        out[star] = clipped_stats(np.ascontiguousarray(ring, np.float32))
    return out


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
    times `gain` at the star (for a background that was divided out); crops are followed.  Stars judge that are so
    bright that the local background's error is below 0.1 % of their flux (all, if these are fewer than three).

    Parameters
    ----------
    stars
        Of the picture `before`; the hundred best are chosen among them.  Found when not given.
    gain
        A factor (channel, star) that the steps were meant to multiply by.
    relative
        Compare the stars with each other only: for a step that moves light into or out of the aperture, of all
        stars alike, as a deconvolution does.

    Returns
    -------
    Dataset over (star, channel): ``flux_before``, ``flux_after``, ``expected``, ``deviation`` (relative to the
    star's strongest expected channel).  Attributes: ``median`` and ``worst`` absolute deviation (worst: of the 90 % of
    stars that agree best, as a neighbour may lie in one ring), ``passed`` (nine tenths within `tolerance`; where no
    star is bright enough to tell so much: within twice their errors), ``stars``.

    Raises
    ------
    WorkbenchError
        If fewer than three stars can be measured in both.
    """
    check_picture(before), check_picture(after)
    shape = tuple(before["signal"].shape[1:])
    if stars is None:
        stars = find_picture_stars(before)
    if stars.sizes["star"]:
        stars = bright_stars(stars, shape)
    fwhm = float(stars.attrs.get("searched_fwhm", np.nan))
    box_before, box_after = (np.asarray(p.attrs.get("crop", (0, 0, 0, 0)), float) for p in (before, after))
    x = stars["x"].values + box_before[2] - box_after[2]
    y = stars["y"].values + box_before[0] - box_after[0]
    reach = _ANNULUS[1] * fwhm + 1
    inside = (x > reach) & (y > reach) & (x < after.sizes["x"] - reach) & (y < after.sizes["y"] - reach)
    if inside.sum() < 3:
        raise WorkbenchError(
            f"{int(inside.sum())} unsaturated, isolated stars can be measured; the photometry check needs three"
        )
    first = photometry(before, stars["x"].values[inside], stars["y"].values[inside], fwhm)
    second = photometry(after, x[inside], y[inside], fwhm)
    channels = first.sizes["channel"]
    transforms = [np.asarray(p.attrs.get("colour_transform", np.eye(channels)), float) for p in (before, after)]
    transform = transforms[1] @ np.linalg.inv(transforms[0])
    expected = first["flux"].values @ transform.T
    if gain is not None:
        expected *= np.asarray(gain)[:, inside].T
    if relative:
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = expected * np.nanmedian(second["flux"].values / expected, axis=0)
    scale = np.max(np.abs(expected), axis=1, keepdims=True)
    deviation = (second["flux"].values - expected) / scale
    whole = np.isfinite(deviation).all(axis=1)
    # bright enough that the background's own error cannot be taken for the step's
    doubt = first["background_error"].values @ np.abs(transform).T + second["background_error"].values
    clear = whole & (doubt < 2 * _CLEAR * scale).all(axis=1)
    whole = clear if clear.sum() >= 3 else whole
    blurred = 2 * (doubt + np.nan_to_num(first["flux_error"].values) @ np.abs(transform).T) / scale
    beyond = np.abs(deviation) > np.maximum(tolerance, 0 if clear.sum() >= 3 else blurred)
    sizes = np.sort(np.abs(deviation[whole]), axis=0)
    if len(sizes) < 3:
        raise WorkbenchError("fewer than three stars without missing pixels: their photometry cannot be checked")
    median, worst = float(np.median(sizes, axis=0).max()), float(sizes[int(0.9 * (len(sizes) - 1))].max())
    dims = ("star", "channel")
    units = after.attrs.get("units", "")
    return xr.Dataset(
        {
            "flux_before": (dims, first["flux"].values, {"units": units, "long_name": "flux before"}),
            "flux_after": (dims, second["flux"].values, {"units": units, "long_name": "flux after"}),
            "expected": (dims, expected, {"units": units, "long_name": "flux that the steps should leave"}),
            "deviation": (dims, deviation, {"units": "1", "long_name": "relative deviation"}),
        },
        coords=first.coords,
        attrs={
            "median": median,
            "worst": worst,
            "tolerance": tolerance,
            "passed": bool(beyond[whole].any(axis=1).mean() <= 0.1),
            "stars": int(whole.sum()),
        },
    )
