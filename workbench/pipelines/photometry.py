"""A stack in, a table of its stars' brightness out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..align.transform import Transform
from ..core.errors import FrameReadError, WorkbenchError
from ..core.files import check_target, whole_file
from ..core.values import value_text
from ..finish.detail import measure_psf
from ..finish.files import read_picture
from ..finish.photometry import find_picture_stars
from ..finish.photometry import photometry as picture_photometry
from ..finish.picture import check_picture, fill_holes
from ..finish.zero_point import catalogue_photometry, measure_depth, world_coordinates
from ..stars.photometry import Fluxes, crowded_stars, nearest_star, profile_scale, psf_fluxes

_APERTURE = ("flux", "flux_error", "background", "background_error")
FLAGS = ("saturated", "incomplete", "crowded")


def photometry(stack: str | Path | xr.Dataset, out: str | Path | None = None) -> xr.Dataset:
    """Measure the stars of a linear stack: fluxes in apertures and by its point spread function, with their errors.

    Parameters
    ----------
    stack
        A file that `stack_folder` wrote, or what `open_stack` or `make_picture` gives; with its variance.
    out
        A CSV file for the table.

    Returns
    -------
    Dataset over (star, channel), brightest star first: ``flux``, ``psf_flux``, each with ``_error``, and ``background``
    per pixel [units of the stack]; over star ``x``, ``y`` [px], ``fwhm`` [px], ``flags`` (``saturated``, which is not
    measured; ``incomplete``: at the edge or a hole; ``crowded``: neighbours leave more light in the
    aperture than a standard error);
    of a solved stack ``ra``, ``dec`` [deg], and where enough stars are catalogued ``magnitude`` (Gaia G, of a star of
    the Sun's colour) with ``magnitude_error``, without that of the zero point.  Attributes: ``fwhm``, ``warnings``,
    ``exposure`` [s] of the fluxes, ``zero_point``, ``zero_point_error``, ``profile_error`` (relative, of the point
    spread function; in the errors).

    Raises
    ------
    WorkbenchError
        If it is not a linear stack, has no variance, or no stars are found.

    Examples
    --------
    >>> photometry("stack.fits", "stars.csv")[["flux", "flux_error"]]  # doctest: +SKIP
    """
    if out is not None:
        check_target(out, "CSV file", inputs=[] if isinstance(stack, xr.Dataset) else [stack])
    if not isinstance(stack, xr.Dataset):
        picture = read_picture(stack)
        try:
            return _with_table(_measured(picture), out)
        except FrameReadError:
            raise
        except WorkbenchError as problem:
            raise type(problem)(f"{stack}: {problem}") from problem
    return _with_table(_measured(stack), out)


def _measured(picture: xr.Dataset) -> xr.Dataset:
    check_picture(picture)
    if "variance" not in picture:
        raise WorkbenchError(
            "there is no variance with the signal, so fluxes would have no errors; give a stack that `workbench "
            "stack` wrote, or make_picture(signal, variance)"
        )
    planes = [name for name in ("signal", "variance", "coverage", "saturated") if name in picture]
    picture = fill_holes(picture[planes].compute())
    stars = find_picture_stars(picture)
    if not stars.sizes["star"]:
        raise WorkbenchError("no stars are found on it; photometry needs a linear stack of a field with stars")
    fwhm, place = float(stars.attrs["searched_fwhm"]), (stars["x"].values, stars["y"].values)
    table = picture_photometry(picture, *place, fwhm)
    saturated = stars["saturated"].values
    for name in ("flux", "flux_error"):
        table[name] = table[name].where(~saturated[:, None])
    least = np.fmin.reduce(table["flux_error"].values / np.fmax(table["flux"].values, 1e-9), axis=1)
    crowded = crowded_stars(*place, stars["flux"].values, fwhm, least * stars["flux"].values)
    incomplete = ~saturated & ~np.isfinite(table["flux"].values).all(axis=1)
    flags = [" ".join(np.array(FLAGS)[[*one]]) for one in zip(saturated, incomplete, crowded, strict=True)]
    table = table.assign(fwhm=stars["fwhm"], flags=("star", np.array(flags, object)))
    warnings: list[str] = []
    table = _with_profile(table, picture, stars, ~crowded & ~saturated, warnings)
    return _with_sky(table, picture, stars, warnings).assign_attrs(
        warnings=warnings, units=picture.attrs.get("units", ""), exposure=float(picture.attrs.get("exposure") or np.nan)
    )


def _with_profile(
    table: xr.Dataset, picture: xr.Dataset, stars: xr.Dataset, alone: np.ndarray, warnings: list[str]
) -> xr.Dataset:
    """Add the fluxes of a fit of the point spread function, on the scale of the apertures' by the stars `alone`."""
    fwhm, nothing = table.attrs["fwhm"], np.full(table["flux"].shape, np.nan)
    flux, error, doubt = nothing.copy(), nothing.copy(), []
    try:
        psf = np.asarray(measure_psf(picture, stars).values)
    except WorkbenchError as problem:
        warnings.append(f"no fluxes by the point spread function: {str(problem).split(';')[0]}")
        psf = np.empty((0, 0, 0))
    for channel in range(len(psf)):
        around = Fluxes(*(table[name].values[:, channel] for name in _APERTURE))
        signal, variance = (picture[name].values[channel] for name in ("signal", "variance"))
        place = table["x"].values, table["y"].values
        found = psf_fluxes(signal, *place, psf[channel], fwhm, around, variance)
        scale, excess = profile_scale(found, around, alone)
        flux[:, channel] = found.flux / scale
        error[:, channel] = np.hypot(found.error / scale, excess * flux[:, channel])
        doubt.append(excess)
    about = {name: table[name].attrs for name in ("flux", "flux_error")}
    return table.assign(
        psf_flux=(("star", "channel"), flux, about["flux"]),
        psf_flux_error=(("star", "channel"), error, about["flux_error"]),
    ).assign_attrs(profile_error=doubt)


def _with_sky(table: xr.Dataset, picture: xr.Dataset, stars: xr.Dataset, warnings: list[str]) -> xr.Dataset:
    """Add where on the sky the stars of a solved stack are, and their magnitudes."""
    try:
        wcs = world_coordinates(picture)
    except WorkbenchError:
        return table
    ra, dec = wcs.all_pix2world(table["x"].values, table["y"].values, 0)
    table = table.assign(ra=("star", ra, {"units": "deg"}), dec=("star", dec, {"units": "deg"}))
    try:
        zero, error = measure_depth(picture, catalogue_photometry(picture, stars))["zero_point"]
    except WorkbenchError as problem:
        warnings.append(f"no magnitudes: {problem}")
        return table
    seconds = float(picture.attrs.get("exposure") or 1.0)
    channel = table.sizes["channel"] // 2
    flux, doubt = (table[name].values[:, channel] for name in ("flux", "flux_error"))
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitude = zero - 2.5 * np.log10(np.where(flux > 0, flux, np.nan) / seconds)
        own = np.where(flux > 0, 2.5 / np.log(10) * doubt / flux, np.nan)
    table = table.assign(
        magnitude=("star", magnitude, {"units": "mag"}), magnitude_error=("star", own, {"units": "mag"})
    )
    return table.assign_attrs(zero_point=zero, zero_point_error=error)


def _with_table(table: xr.Dataset, out: str | Path | None) -> xr.Dataset:
    """Write the table as CSV, a column for each channel."""
    if out is None:
        return table
    whole = [name for name in ("x", "y", "ra", "dec", "magnitude", "magnitude_error", "fwhm", "flags") if name in table]
    columns: dict[str, Any] = {name: table[name].values for name in whole}
    for name in ("flux", "flux_error", "psf_flux", "psf_flux_error", "background"):
        for channel in table["channel"].values.astype(str):
            columns[f"{name}_{channel}"] = table[name].sel(channel=channel).values
    places = {"x": 3, "y": 3, "ra": 6, "dec": 6, "magnitude": 4, "magnitude_error": 4, "fwhm": 3}
    with whole_file(out) as part:
        pd.DataFrame(columns).round(places).to_csv(part, index=False, float_format="%.8g")
    return table


def star_at(table: xr.Dataset, x: float, y: float, reach: float = 0.0) -> xr.Dataset:
    """Return the star of a table of `photometry` at a place: the nearest, at most 5 px or the FWHM away.

    Parameters
    ----------
    x, y, reach
        [px of the stack]; of the stars within `reach` the brightest is taken, unless one is nearer than its FWHM: what
        a tap on a reduced picture means.

    Raises
    ------
    WorkbenchError
        If no star is there, or the one that is there is saturated or incomplete.

    Examples
    --------
    >>> star_at(photometry("stack.fits"), 175.1, 126.0)["flux"]  # doctest: +SKIP
    """
    xs, ys = table["x"].values, table["y"].values
    away = np.hypot(xs - x, ys - y)
    within = np.flatnonzero(away <= reach)  # the brightest first
    place = (x, y) if not within.size or away.min() <= table.attrs["fwhm"] else (xs[within[0]], ys[within[0]])
    star = table.isel(star=nearest_star(xs, ys, place, table.attrs["fwhm"], "the stack"))
    which, flags = f"the star at x {float(star['x']):.1f}, y {float(star['y']):.1f}", str(star["flags"].values).split()
    if "saturated" in flags:
        raise WorkbenchError(
            f"{which} is saturated, so its light cannot be measured; choose a fainter star, or shorter exposures"
        )
    if "incomplete" in flags:
        raise WorkbenchError(
            f"{which} is too near to the border of the stack, or to missing pixels: its aperture is not complete; "
            "choose a star farther inside"
        )
    return star


def place_on_reference(stack: xr.Dataset, x: float, y: float) -> tuple[str, tuple[float, float]]:
    """Return the name of a stack's reference light (of its own filter), and where on it a place (x, y) [px] lies."""
    row = int(np.flatnonzero(stack["frame_reference"].values)[0])
    scale = float(stack.attrs.get("scale") or 1.0)  # of a drizzled stack
    transform = Transform.from_dict(json.loads(str(stack["frame_transform"].values[row])))
    return str(stack["frame_file"].values[row]), transform.apply((x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5)


def photometry_text(table: xr.Dataset) -> str:
    """Return in words what `photometry` found."""
    count, flags = table.sizes["star"], table["flags"].values.astype(str)
    lines = [f"{count} stars, FWHM {table.attrs['fwhm']:.2f} px"]
    lines[0] += "".join(f"; {sum(name in one.split() for one in flags)} {name}" for name in FLAGS)
    for channel in table["channel"].values.astype(str):
        one = table.sel(channel=channel)
        with np.errstate(invalid="ignore"):
            snr = (one["flux"] / one["flux_error"]).values, (one["psf_flux"] / one["psf_flux_error"]).values
        words = [
            f"{int((part > 5).sum())} above 5 σ {name}"
            for part, name in zip(snr, ("in apertures", "fitted"), strict=True)
        ]
        lines.append(f"{channel}: {', '.join(words)}")
    if "zero_point" in table.attrs:
        zero = value_text(table.attrs["zero_point"], table.attrs["zero_point_error"], "mag")
        lines.append(f"zero point {zero} (Gaia G, a star of the Sun's colour), not part of the magnitudes' errors")
    return "\n".join([*lines, *(f"warning: {text}" for text in table.attrs["warnings"])])
