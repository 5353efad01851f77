"""A folder of lights in, the light curve of one star out: every light calibrated, its stars measured in apertures.

Each light is measured where its pixels are, unresampled: of a Bayer mosaic one colour's own samples, without
demosaicing.  The places follow from the registration, so that faint stars are measured where they must be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from dask.local import get_sync
from tqdm.auto import tqdm

from ..align.hints import degrees, hints_of, known_of, solve_stars
from ..align.registration import Registration, register
from ..calibrate.apply import SATURATED, calibrate
from ..calibrate.masterset import make_masters
from ..core.cube import is_xtrans
from ..core.errors import WorkbenchError
from ..core.files import check_target, whole_file
from ..core.mosaic import offsets
from ..core.values import is_simulated, value_text
from ..stack.settings import StackSettings
from ..stars.background import SQUARE_PIXELS, Sampling, green_sampling, half_green
from ..stars.light_curve import relative_flux
from ..stars.photometry import ANNULUS, RADIUS, aperture_fluxes, crowded_stars, nearest_star
from .calibration_checks import calibration_cubes, check_masters
from .stack_inputs import open_frames

_MOST = 20  # comparison stars
_PARTS = ("signal", "variance", "shared_variance", "mask")


class _Followed(NamedTuple):
    """Stars that are followed: places on the reference [px], the target first, and of which colour and width [px]."""

    x: np.ndarray
    y: np.ndarray
    channel: str
    fwhm: np.ndarray


def light_curve(
    folder: str | Path, star: str | tuple[float, float], out: str | Path | None = None, *, channel: str | None = None,
    aperture: float = RADIUS, sensor: str | Path | xr.Dataset | None = None, progress: bool = True, **settings: Any,
) -> xr.Dataset:  # fmt: skip
    """Measure how a star's brightness changes over the lights of a folder, compared with stars around it.

    Parameters
    ----------
    folder, sensor
        Lights with their bias, darks and flats, as for `stack_folder`.
    star
        Its place (x, y) [px] on the reference light, which is the grid of the stack; or as text ``"512.3,340.1"``, or
        where on the sky: ``"12h50m53s,+41d07m14s"``, degrees as ``"192.72d,+41.12d"``.
    out
        A CSV file for the table.
    channel
        R, G or B of a mosaic; G by default.
    aperture
        Its radius [FWHM].
    settings
        ``reference``, ``filter``, ``exclude``, ``transform`` (see `StackSettings`), and of where on the sky:
        ``target``, ``focal_length``, ``pixel_size``, ``scale`` (see `solve`).

    Returns
    -------
    As `follow_star`.

    Raises
    ------
    WorkbenchError
        If there is no star at that place, the lights have no times or are of several filters, or stars are too few.

    Examples
    --------
    >>> light_curve("night", "512.3,340.1", "curve.csv")["relative_flux"]  # doctest: +SKIP
    """
    hints = {"target", "focal_length", "pixel_size", "scale"} & {*settings}
    sky: dict[str, Any] = {name: settings.pop(name) for name in hints}
    chosen, place = StackSettings(**settings), _place(star)
    if out is not None:
        check_target(out, "CSV file")
    opened = open_frames(Path(folder), sensor, chosen, progress)
    if out is not None:
        check_target(out, "CSV file", frames=opened.frames.paths)
    filters = sorted(set(opened.lights.filters))
    if len(filters) > 1:
        raise WorkbenchError(
            f"{folder} has lights of {', '.join(filters)}; a light curve is of one filter: choose it (--filter)"
        )
    _check(channel, opened.lights.cfa_pattern, aperture)  # before the work
    light, cubes = opened.frames.light, calibration_cubes(opened.frames)
    excluded = chosen.excluded(opened.lights.names, opened.lights.paths)
    kept = [number for number in range(light.sizes["frame"]) if number not in excluded]
    made = make_masters(light, **cubes, sensor=opened.sensor, progress=progress)
    checked = check_masters(light, cubes, made)
    lights = calibrate(light, checked.masters).isel(frame=kept)
    reference = None if chosen.reference is None else kept.index(opened.lights.number_of(str(chosen.reference)))
    registration = register(lights, reference=reference, kind=chosen.transform, progress=progress)
    if place is None:
        path = opened.lights.paths[kept[registration.reference]]
        place = _on_reference(str(star), registration, path, sky)
    curve = follow_star(lights, registration, place, channel=channel, aperture=aperture, progress=progress)
    warnings = list(dict.fromkeys([*opened.warnings, *checked.warnings, *curve.attrs["warnings"]]))
    curve = curve.assign_attrs(warnings=warnings)
    if out is not None:
        write_light_curve(curve, out)
    return curve


def _place(star: str | tuple[float, float]) -> tuple[float, float] | None:
    """Return (x, y) [px], None where a place on the sky is given."""
    parts = star.split(",") if isinstance(star, str) else list(star)
    try:
        if len(parts) == 2:
            return float(parts[0]), float(parts[1])
    except ValueError:
        return None
    raise WorkbenchError(f"{star!r} is not the place of a star; give x,y in pixels, or RA,Dec: 12h50m53s,+41d07m14s")


def _on_reference(star: str, registration: Registration, path: Path, hints: dict[str, Any]) -> tuple[float, float]:
    """Return where RA and Dec are on the reference, which is solved for it."""
    ra, dec = star.split(",")
    sky = degrees(ra, "hourangle"), degrees(dec, "deg")
    stars = _stars_of(registration, registration.reference)
    given = hints if "target" in hints else hints | {"ra": sky[0], "dec": sky[1]}
    solution = solve_stars(stars, registration.frame_shape, hints_of(known_of(path), **given))
    x, y = solution.wcs.all_world2pix(*sky, 0)
    return float(x), float(y)


def follow_star(
    lights: xr.Dataset, registration: Registration, place: tuple[float, float], *, channel: str | None = None,
    aperture: float = RADIUS, progress: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Measure a star in every calibrated light, relative to the brightest stars around it.

    The parameters are those of `star_fluxes`; what is returned is that of `compare_stars`.
    """
    return compare_stars(
        star_fluxes(lights, registration, place, channel=channel, aperture=aperture, progress=progress)
    )


def star_fluxes(
    lights: xr.Dataset, registration: Registration, place: tuple[float, float], *, channel: str | None = None,
    aperture: float = RADIUS, progress: bool = True,
) -> xr.Dataset:  # fmt: skip
    """Measure a star and the brightest around it in every calibrated light.

    A frame's own noise and the masters' are in the errors; of the masters' only as much as moved against the pixels,
    since what all frames share does not change the ratios (see `relative_flux`).

    Parameters
    ----------
    lights
        What `calibrate` gives.
    registration
        What `align.register` found on them.
    place
        (x, y) [px] on the reference.
    channel, aperture
        As for `light_curve`.

    Returns
    -------
    Dataset over (frame, star), the star first: ``flux`` and ``flux_error`` [e-]; over frame ``time`` (UTC, middle of
    the exposure) and ``hours`` since the first; over star ``x``, ``y`` [px] on the reference.  Attributes: ``channel``,
    ``aperture`` [FWHM], ``fwhm`` [px], ``reference``, ``set_aside``, ``warnings``.

    Raises
    ------
    WorkbenchError
        As `light_curve`.
    """
    pattern = str(lights["signal"].attrs["cfa_pattern"])
    channel = _check(channel, pattern, aperture)
    times, dated = lights["time"].values.astype("datetime64[ns]"), ~np.isnat(lights["time"].values)
    used = [number for number in registration.used if dated[number]]
    if not used:
        raise WorkbenchError("none of the lights states when it was taken (DATE-OBS); a light curve needs times")
    followed, warnings = _followed(registration, place, channel, used)
    flux, own, shared, x, y = (np.full((len(used), followed.x.size), np.nan) for _ in range(5))
    bar = tqdm(used, desc="measuring stars", unit="frame", delay=2, leave=False, disable=not progress)
    for row, number in enumerate(bar):
        frame = lights[list(_PARTS)].isel(frame=number).compute(scheduler=get_sync)
        x[row], y[row] = registration.transform(number).apply(followed.x, followed.y)
        at = followed._replace(x=x[row], y=y[row], fwhm=followed.fwhm[row])
        flux[row], own[row], shared[row] = _measure(frame, pattern, at, aperture)
    usual = float(np.median(followed.fwhm))
    moved = 1 - _overlap(x, y, aperture * usual)
    error = np.sqrt(np.maximum(own, 0) + moved * shared)
    seconds = np.nan_to_num(lights["exposure"].values.astype(float)[used])
    middle = times[used] + (0.5e9 * seconds).astype("timedelta64[ns]")
    hours = (middle - middle.min()) / np.timedelta64(1, "h")
    names = lights["filename"].values.astype(str)
    aside = [f"{names[n]}: {why}" for n, why in sorted(registration.set_aside.items())]
    aside += [f"{names[n]}: states no time" for n in registration.used if not dated[n]]
    camera, unit = str(lights["signal"].attrs.get("camera", "")), {"units": "electron"}
    return xr.Dataset(
        {"flux": (("frame", "star"), flux, unit), "flux_error": (("frame", "star"), error, unit)},
        {
            "time": ("frame", middle), "hours": ("frame", hours, {"units": "h"}),
            "filename": ("frame", names[used].astype(object)), "x": ("star", followed.x), "y": ("star", followed.y),
        },
        {
            "channel": channel, "aperture": float(aperture), "fwhm": usual,
            "reference": str(names[registration.reference]), "set_aside": aside, "warnings": warnings, "camera": camera,
            "simulated": is_simulated(camera),
        },
    ).isel(frame=np.argsort(middle, kind="stable"))  # fmt: skip


def compare_stars(fluxes: xr.Dataset, star: int = 0) -> xr.Dataset:
    """Compare one star of `star_fluxes` with the others, by `relative_flux`.

    Returns
    -------
    Dataset over frame: ``time``, ``hours``, ``relative_flux`` and ``relative_flux_error``, ``check`` and
    ``check_error`` (a comparison star against the others), ``common``, the comparison stars' brightness, ``flux`` and
    ``flux_error`` [e-] of the star; over star (the star compared first) ``x``, ``y`` [px] on the reference,
    ``usual_flux`` [e-], ``comparison``.  Attributes: those of `star_fluxes`, ``scatter``, ``chi_square``.
    """
    fluxes = fluxes.isel(star=[star, *(other for other in range(fluxes.sizes["star"]) if other != star)])
    flux, error = fluxes["flux"].values, fluxes["flux_error"].values
    found = relative_flux(flux, error, 0)
    columns = {
        "relative_flux": (found.value, "1", "flux relative to the comparison stars"),
        "relative_flux_error": (found.error, "1", "standard error of the relative flux"),
        "check": (found.check, "1", "a comparison star relative to the others"),
        "check_error": (found.check_error, "1", "standard error of the check star"),
        "common": (found.common, "1", "brightness of the comparison stars"),
        "flux": (flux[:, 0], "electron", "the star's light in the aperture"),
        "flux_error": (error[:, 0], "electron", "standard error of the flux"),
    }
    data = {n: ("frame", values, {"units": u, "long_name": t}) for n, (values, u, t) in columns.items()}
    usual = np.nanmedian(flux, axis=0)
    curve = fluxes.coords.to_dataset().reset_coords(["x", "y"]).assign(data)
    return curve.assign(usual_flux=("star", usual), comparison=("star", found.comparison)).assign_attrs(
        fluxes.attrs, scatter=found.scatter, chi_square=found.chi_square, check_star=found.check_star
    )


def _check(channel: str | None, pattern: str, aperture: float) -> str:
    """Return the colour that is measured; refuse another, and an aperture that reaches into the background's ring."""
    if not 0.3 <= aperture <= ANNULUS[0]:
        raise WorkbenchError(
            f"the aperture's radius is {aperture:g} FWHM; give 0.3 to {ANNULUS[0]:g}, where the ring begins"
        )
    if is_xtrans(pattern):
        raise WorkbenchError(
            "light curves of X-Trans mosaics are not supported: their colours lie on no lattice; measure stacks of "
            "short series (workbench photometry)"
        )
    there = ("mono",) if pattern == "mono" else ("R", "G", "B")
    channel = there[len(there) // 2] if channel is None else channel
    if channel not in there:
        raise WorkbenchError(f"channel {channel!r} is none of these frames; they have {', '.join(there)}")
    return channel


def _stars_of(registration: Registration, number: int) -> xr.Dataset:
    """Return the stars of a frame that is used, which has some."""
    stars = registration.stars[number]
    assert stars is not None  # frames that cannot be read are not used
    return stars


def _followed(
    registration: Registration, place: tuple[float, float], channel: str, used: list[int]
) -> tuple[_Followed, list[str]]:
    """Return the star at a place and the brightest around that can be compared with it; and warnings.

    Raises
    ------
    WorkbenchError
        If no star is there, or it is saturated.
    """
    stars = _stars_of(registration, registration.reference)
    x, y, flux = (stars[name].values for name in ("x", "y", "flux"))
    fwhm = np.array([_stars_of(registration, number).attrs["fwhm"] for number in used])
    usual = float(np.nanmedian(fwhm))
    fwhm = np.where(np.isfinite(fwhm), fwhm, usual)
    nearest = nearest_star(x, y, place, usual, "the reference")
    saturated = stars["saturated"].values
    if saturated[nearest]:
        raise WorkbenchError(
            f"the star at x {x[nearest]:.1f}, y {y[nearest]:.1f} is saturated in the reference, so its light cannot be "
            "measured; choose a fainter star, or shorter exposures"
        )
    crowded = crowded_stars(x, y, flux, usual, 0.02 * flux)
    good = ~saturated & ~crowded & (stars["roundness"].values > 0.6) & (flux > 0)
    good[nearest] = False
    order = [nearest, *np.flatnonzero(good)[np.argsort(-flux[good], kind="stable")][:_MOST]]
    warnings = []
    if crowded[nearest]:
        warnings.append(
            "neighbours leave more than 2 % of the star's light in the aperture, which makes its changes look smaller "
            "and follows the seeing"
        )
    if channel in "RGB" and usual < 2.0:
        warnings.append(
            f"stars are {usual:.1f} px wide, and one colour's samples lie 2 px apart: what they catch changes with the "
            "star's place; the comparison stars' scatter shows by how much"
        )
    return _Followed(x[order], y[order], channel, fwhm), warnings


def _plane(values: np.ndarray, pattern: str, channel: str) -> tuple[np.ndarray, Sampling]:
    """Return the samples of a colour of a mosaic as a plane, and how it samples the frame; green is the mean of two."""
    if channel == "mono":
        return values, SQUARE_PIXELS
    if channel == "G":
        return half_green(values, pattern), green_sampling(pattern)
    row, column = offsets(pattern)[channel]
    height, width = (size // 2 * 2 for size in values.shape)
    return np.ascontiguousarray(values[row:height:2, column:width:2]), Sampling(2.0)


def _measure(
    frame: xr.Dataset, pattern: str, stars: _Followed, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each star the flux [e-], and the frame's own and the masters' share of its variance [e-²]."""
    samples = 2.0 if stars.channel == "G" else 1.0  # summed: of the mean of two greens it takes twice
    signal, sampling = _plane(frame["signal"].values, pattern, stars.channel)
    shift = (0.0, 0.0) if stars.channel in ("mono", "G") else offsets(pattern)[stars.channel]
    at_x, at_y = (
        (at - sampling.offset - off) / sampling.scale for at, off in ((stars.x, shift[1]), (stars.y, shift[0]))
    )
    variances = [
        _plane(frame[name].values, pattern, stars.channel)[0] / samples for name in ("variance", "shared_variance")
    ]
    width = float(stars.fwhm) / sampling.scale
    found = aperture_fluxes(signal, at_x, at_y, width, variances[0], radius)
    of_masters = aperture_fluxes(variances[1], at_x, at_y, width, radius=radius)
    area = np.pi * (radius * width) ** 2
    shared = np.maximum(of_masters.flux + area * of_masters.background, 0)  # the plain sum
    full = _plane((frame["mask"].values & SATURATED > 0).astype(np.float32), pattern, stars.channel)[0]
    core = aperture_fluxes(full, at_x, at_y, width, radius=radius)
    clipped = core.flux + area * core.background > 0.01
    flux = np.where(clipped, np.nan, samples * found.flux)
    return flux, samples**2 * (found.error**2 - shared), samples**2 * shared


def _overlap(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Return which share of its aperture a frame has on average in common with the others' on the sensor (frame, star).

    Two discs of radius R at a distance d share 2/π (acos u − u √(1 − u²)), u = d/2R.
    """
    out = np.empty(x.shape)
    for row in range(len(x)):
        u = np.minimum(np.hypot(x - x[row], y - y[row]) / (2 * radius), 1.0)
        out[row] = (2 / np.pi * (np.arccos(u) - u * np.sqrt(1 - u**2))).mean(axis=0)
    return out


def write_light_curve(curve: xr.Dataset, out: str | Path) -> Path:
    """Write a light curve as CSV: time, relative flux, check star, the star's own flux, a row a light."""
    names = (
        "filename", "time", "hours", "relative_flux", "relative_flux_error", "check", "check_error", "common", "flux",
        "flux_error",
    )  # fmt: skip
    table = pd.DataFrame({name: curve[name].values for name in names})
    table["time"] = table["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f").str[:-3]
    with whole_file(out) as part:
        table.to_csv(part, index=False, float_format="%.7g")
    return Path(out)


def light_curve_text(curve: xr.Dataset) -> str:
    """Return in words what a light curve shows."""
    value, error = curve["relative_flux"].values, curve["relative_flux_error"].values
    known = np.isfinite(value) & np.isfinite(error)
    chi = float((((value - np.average(value[known], weights=error[known] ** -2)) / error)[known] ** 2).sum())
    attrs = curve.attrs
    scatter = f"{100 * attrs['scatter']:.2f} % beyond their noise" if attrs["scatter"] else "as their noise predicts"
    lines = [
        f"{int(known.sum())} lights over {float(curve['hours'].max()):.2f} h, channel {attrs['channel']}, reference "
        f"{attrs['reference']}; the star at x {float(curve['x'][0]):.1f}, y {float(curve['y'][0]):.1f}, "
        f"{value_text(float(curve['usual_flux'][0]))} e⁻ a light",
        f"{int(curve['comparison'].sum())} comparison stars, which scatter {scatter} (χ² {attrs['chi_square']:.2f} per "
        "degree of freedom)",
        f"error of a point {100 * float(np.median(error[known])):.2f} %; as a constant the star has χ² "
        f"{chi / max(int(known.sum()) - 1, 1):.2f} per degree of freedom",
    ]
    lines += [f"set aside: {text}" for text in attrs["set_aside"]]
    return "\n".join([*lines, *(f"warning: {text}" for text in attrs["warnings"])])
