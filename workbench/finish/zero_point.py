"""Colour and brightness measured on catalogued stars: white balance, zero points, limiting magnitude, sky brightness.

A picture with a plate solution knows which of its stars the catalogue holds.  Their magnitudes and colours (Gaia's G
and BP - RP) are compared with the fluxes measured; saturated, crowded and cut-off stars are left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from ..core.errors import WorkbenchError
from ..core.statistics import mad_std
from ..core.values import value_text
from ..stars.catalogue import catalogue_stars
from .photometry import bright_stars, find_picture_stars, photometry
from .picture import PLANES, check_picture, crop, fill_holes, observed_cards

SUN = 0.818  # mag: BP - RP of the Sun (Creevey et al. 2023, A&A 674, A39): what is made white
_FEWEST = 6  # stars; a line and its scatter
_WORST = 0.05  # a factor less certain than this is not a measurement
_NEAR = 2.0  # px: a star of the catalogue is one of the picture's within this
_COLOURS = (-0.5, 2.5)  # mag: BP - RP over which a camera's colours follow a parabola
_CURVED = 15  # stars from which the parabola is fitted
_MOST = 300
_LIMIT, _DISC = 5.0, 0.7  # sigma and aperture radius [FWHM] of the limiting magnitude


class Fit(NamedTuple):
    """A robust fit at the Sun's colour: value and its standard error, slope, the stars' scatter [mag], their number."""

    value: float
    error: float
    slope: float
    scatter: float
    stars: int


def world_coordinates(picture: xr.Dataset) -> WCS:
    """Return a picture's plate solution, for pixels counted from 0.

    Raises
    ------
    WorkbenchError
        If it has none.
    """
    cards = observed_cards(picture.attrs)
    if "CTYPE1" not in cards:
        raise WorkbenchError("this picture has no plate solution; solve its stack first (workbench solve)")
    return WCS({key: value for key, value in cards.items() if not key.startswith(("NAXIS", "DATE"))}, naxis=2)


def catalogue_photometry(picture: xr.Dataset, stars: xr.Dataset) -> xr.Dataset:
    """Measure the stars of a solved linear picture that the catalogue knows with a colour.

    Parameters
    ----------
    stars
        From `find_picture_stars`.

    Returns
    -------
    Dataset over (star, channel): ``flux``, ``flux_error``, ``background`` as of `photometry`, ``magnitude`` (G) and
    ``bp_rp``, ``x``, ``y`` [px].
    """
    check_picture(picture)
    wcs, shape = world_coordinates(picture), (picture.sizes["y"], picture.sizes["x"])
    ra, dec = (float(value) for value in wcs.all_pix2world((shape[1] - 1) / 2, (shape[0] - 1) / 2, 0))
    radius = 1.05 * np.hypot(*shape) / 2 * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    cards = observed_cards(picture.attrs)
    date = next((cards[key] for key in ("DATE-AVG", "DATE-OBS") if cards.get(key)), None)
    catalogue = catalogue_stars(ra, dec, min(float(radius), 180.0), date=date)
    catalogue = catalogue.isel(star=np.isfinite(catalogue["bp_rp"].values))
    places = wcs.all_world2pix(np.stack([catalogue["ra"].values, catalogue["dec"].values], axis=1), 0, quiet=True)
    chosen = bright_stars(stars, shape, count=_MOST) if stars.sizes["star"] else stars
    own = np.stack([chosen["x"].values, chosen["y"].values], axis=1)
    if not len(own) or not len(places):
        index = nearest = np.zeros(0, int)
    else:
        apart, nearest = cKDTree(own).query(np.nan_to_num(places, nan=-1e6), distance_upper_bound=_NEAR)
        index = np.flatnonzero(np.isfinite(apart))
    taken = chosen.isel(star=nearest[index])
    table = photometry(picture, taken["x"].values, taken["y"].values, float(stars.attrs["searched_fwhm"]))
    known = {name: ("star", catalogue[name].values[index], {"units": "mag"}) for name in ("magnitude", "bp_rp")}
    return table.assign(known)


def fit_at_sun(value: np.ndarray, error: np.ndarray, bp_rp: np.ndarray) -> Fit:
    """Fit value = a + b (c - Sun) (+ d (c - Sun)², of many stars) to magnitudes, robustly; a at the Sun's colour.

    Weights are 1/(error² + scatter²) times Tukey's biweight (cut at 5 sigma), to convergence; the scatter is what the
    stars show beyond their errors.

    Raises
    ------
    WorkbenchError
        If fewer than six stars are left.

    Examples
    --------
    >>> colour = np.linspace(0, 2, 12)
    >>> fit_at_sun(20 + 0.3 * (colour - SUN), np.full(12, 0.01), colour).value.__round__(6)
    20.0
    """
    good = np.isfinite(value) & np.isfinite(error) & (bp_rp > _COLOURS[0]) & (bp_rp < _COLOURS[1])
    if good.sum() < _FEWEST:
        raise WorkbenchError(f"{int(good.sum())} catalogued stars can be measured; {_FEWEST} are needed")
    y, own, c = value[good], error[good], bp_rp[good] - SUN
    design = np.vander(c, 3 if good.sum() >= _CURVED else 2, increasing=True)
    weight, scatter = np.ones(len(y)), 0.0
    for _ in range(30):
        root = np.sqrt(weight / (own**2 + scatter**2 + 1e-12))
        solution = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        rest = y - design @ solution
        degrees = len(y) / max(len(y) - design.shape[1], 1)
        spread = degrees * float(mad_std(rest, centre=0)) ** 2
        scatter = float(np.sqrt(max(spread - np.median(own**2), 0.0)))
        pull = rest / np.sqrt(own**2 + scatter**2 + 1e-12)
        new = np.maximum(1 - (pull / 5) ** 2, 0) ** 2
        change, weight = np.abs(new - weight).max(), new
        if change < 1e-5:
            break
    used = weight > 0
    if used.sum() < _FEWEST:
        raise WorkbenchError(f"only {int(used.sum())} catalogued stars agree with each other; {_FEWEST} are needed")
    total = own**2 + scatter**2 + 1e-12
    covariance = np.linalg.inv((design[used] / total[used, None]).T @ design[used])
    factor = max(float((rest[used] ** 2 / total[used]).sum() / max(used.sum() - design.shape[1], 1)), 1.0)
    return Fit(
        float(solution[0]), float(np.sqrt(covariance[0, 0] * factor)), float(solution[1]), scatter, int(used.sum())
    )


def measured_balance(table: xr.Dataset) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the multipliers that make a star of the Sun's colour white, their errors, and how many stars gave them.

    Raises
    ------
    WorkbenchError
        If there are too few stars, or a factor is uncertain by more than 5 %.
    """
    flux, error = table["flux"].values, table["flux_error"].values
    multipliers, errors, count = np.ones(3), np.zeros(3), 0
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(np.isfinite(error), error, 0.0) / flux
        for channel in (0, 2):
            index = np.where((flux > 0).all(axis=1), np.log(flux[:, 1] / flux[:, channel]), np.nan)
            fit = fit_at_sun(index, np.hypot(relative[:, 1], relative[:, channel]), table["bp_rp"].values)
            multipliers[channel] = np.exp(fit.value)
            errors[channel], count = multipliers[channel] * fit.error, max(count, fit.stars)
            if fit.error > _WORST:
                raise WorkbenchError(
                    f"{fit.stars} catalogued stars leave a factor uncertain by {100 * fit.error:.0f} %, and"
                    f" {100 * _WORST:.0f} % is the most"
                )
    return multipliers, errors, count


def measure_depth(picture: xr.Dataset, table: xr.Dataset) -> dict[str, Any]:
    """Measure zero point, limiting magnitude and sky brightness of a solved picture whose background is still there.

    G = zero point - 2.5 log10(flux in one second), for a star of the Sun's colour, in the green or the only channel.
    The limit: 5 sigma of the noise in a disc of 0.7 FWHM, corrected for a Gaussian's light outside it.  The sky: the
    level about the stars, over a pixel's area, in electrons alone (of ADU the zero is often not known).

    Returns
    -------
    ``zero_point``, ``limiting_magnitude`` [mag], ``sky_brightness`` [mag/arcsec²], each (value, standard error), NaN
    where not known; ``colour_term`` (slope on BP - RP), ``scatter`` [mag], ``stars``, and ``text``.

    Raises
    ------
    WorkbenchError
        If too few catalogued stars can be measured.
    """
    channel, seconds = picture.sizes["channel"] // 2, float(picture.attrs.get("exposure") or np.nan)
    flux, error = table["flux"].values[:, channel], table["flux_error"].values[:, channel]
    seconds, unit = (seconds, "") if np.isfinite(seconds) and seconds > 0 else (1.0, " (of the whole exposure)")
    with np.errstate(invalid="ignore", divide="ignore"):
        value = table["magnitude"].values + 2.5 * np.log10(np.where(flux > 0, flux, np.nan) / seconds)
        doubt = 2.5 / np.log(10) * np.where(np.isfinite(error), error, 0.0) / flux
    fit = fit_at_sun(value, doubt, table["bp_rp"].values)
    none = (np.nan, np.nan)
    found: dict[str, Any] = {"zero_point": (fit.value, fit.error), "colour_term": fit.slope, "scatter": fit.scatter}
    found |= {"stars": fit.stars, "limiting_magnitude": none, "sky_brightness": none}
    area = 3600**2 * abs(float(np.linalg.det(world_coordinates(picture).pixel_scale_matrix)))
    level = table["background"].values[:, channel]
    if picture.attrs.get("units") == "electron" and np.median(level) > 0:  # of ADU the zero is often not known
        sky = float(np.median(level))
        wander = float(mad_std(level)) / sky * 2.5 / np.log(10)  # the sky differs over the field: its own spread
        found["sky_brightness"] = (fit.value - 2.5 * np.log10(sky / seconds / area), float(np.hypot(fit.error, wander)))
    if "variance" in picture:
        fwhm = float(table.attrs["fwhm"])
        noise = np.sqrt(np.pi * (_DISC * fwhm) ** 2 * float(np.nanmedian(picture["variance"].values[channel])))
        inside = 1 - np.exp(-4 * np.log(2) * _DISC**2)
        limit = fit.value - 2.5 * np.log10(_LIMIT * noise / inside / seconds)
        found["limiting_magnitude"] = (limit, float(np.hypot(fit.error, 0.05)))  # the profile is not a Gaussian: 5 %
    said = [f"zero point {value_text(fit.value, fit.error, 'mag')}{unit}"]
    said += [
        f"{name.replace('_', ' ')} {value_text(found[name][0], found[name][1], units)}"
        for name, units in (("limiting_magnitude", "mag (5 σ)"), ("sky_brightness", "mag/arcsec²"))
        if np.isfinite(found[name][0])
    ]
    found["text"] = f"Photometry on {fit.stars} catalogued stars (Gaia G, Sun's colour): {', '.join(said)}."
    return found


def stack_depth(stack: xr.Dataset) -> dict[str, Any]:
    """Measure zero point, limiting magnitude and sky brightness of an opened stack; see `measure_depth`.

    Raises
    ------
    WorkbenchError
        If it has no plate solution, or too few catalogued stars can be measured.
    """
    check_picture(stack)
    world_coordinates(stack)  # before the work
    picture = fill_holes(crop(stack[[name for name in PLANES if name in stack]].compute()))
    return measure_depth(picture, catalogue_photometry(picture, find_picture_stars(picture)))
