"""Notebook 16: how exactly a star's brightness is measured: by aperture, over a night, in the stack."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import xarray as xr

from workbench import charts
from workbench.align import register
from workbench.app.live_charts import LiveChart, live_text
from workbench.calibrate import calibrate, make_masters
from workbench.charts import theme
from workbench.core.errors import WorkbenchError
from workbench.core.values import value_text
from workbench.ingest.folder import Folder
from workbench.pipelines import compare_stars, star_fluxes
from workbench.simulate import TransitNight
from workbench.stack.normalise import channel_share
from workbench.stars.photometry import ANNULUS

from .presentation import fit
from .results import kept
from .tables import quantities

RADII = (0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)  # [FWHM]
USUAL = 2.5
_RADIUS, _ERROR = theme.dimension("radius of the aperture", "FWHM"), theme.dimension("error of one light", "%")
_PULL, _SHARE = theme.dimension("difference over its error", "σ"), theme.dimension("share", "per σ")
_FLUX, _RELATIVE = theme.dimension("flux in the stack", "e⁻"), theme.dimension("error of the flux", "%")
_SEEN = theme.dimension("brightness over its median", "%")
_SIGNAL = theme.dimension("green of the stack", "e⁻")
_NEAR = 12.0  # px between a star's true place on the first light and its place on another
_KINDS = (("bright", theme.SERIES[0], "circle"), ("faint", theme.SERIES[1], "square"))


def fluxes_by_aperture(frames: Folder, star: tuple[float, float]) -> xr.Dataset:
    """Measure a star and those around it in every light, in apertures of eight radii; kept, as `kept` does.

    Parameters
    ----------
    star
        (x, y) [px] on the stack.

    Returns
    -------
    As `star_fluxes`, over radius [FWHM], too.
    """
    return kept(f"fluxes of the star at {star[0]:g}, {star[1]:g}", frames, lambda: _fluxes_by_aperture(frames, star))


def _fluxes_by_aperture(frames: Folder, star: tuple[float, float]) -> xr.Dataset:
    masters = make_masters(frames.light, bias=frames.bias, dark=frames.dark, flat=frames.flat, progress=False)
    lights = calibrate(frames.light, masters).compute()
    registration = register(lights, kind="similarity", progress=False)
    measured = [star_fluxes(lights, registration, star, aperture=radius, progress=False) for radius in RADII]
    radii = xr.DataArray(np.array(RADII), dims="radius", name="radius")
    return xr.concat(measured, radii, combine_attrs="drop_conflicts")


def aperture_errors(fluxes: xr.Dataset) -> xr.Dataset:
    """Return how exactly one light measures a bright and a faint constant star, by the radius of the aperture.

    Parameters
    ----------
    fluxes
        From `fluxes_by_aperture`.

    Returns
    -------
    Dataset over (radius, kind): ``scatter`` over the lights and its standard error ``scatter_error``, the error
    ``predicted`` from the noise (root mean square), relative; ``flux`` [e-] of the kinds.
    """
    usual = np.nanmedian(fluxes["flux"].sel(radius=USUAL).values, axis=0)
    order = 1 + np.argsort(-usual[1:], kind="stable")
    stars = (int(order[1]), int(order[-2]))  # not the extremes
    table = np.empty((3, fluxes.sizes["radius"], 2))
    for row, radius in enumerate(fluxes["radius"].values):
        for column, star in enumerate(stars):
            curve = compare_stars(fluxes.sel(radius=radius), star)
            value, error = curve["relative_flux"].values, curve["relative_flux_error"].values
            known = np.isfinite(value)
            scatter = value[known].std(ddof=1)
            predicted = np.sqrt(np.mean(error[known] ** 2))
            table[:, row, column] = scatter, scatter / np.sqrt(2 * (known.sum() - 1)), predicted
    names = ("scatter", "scatter_error", "predicted")
    data = {name: (("radius", "kind"), values) for name, values in zip(names, table, strict=True)}
    kinds = [name for name, *_ in _KINDS]
    return xr.Dataset(data | {"flux": ("kind", usual[list(stars)])}, {"radius": fluxes["radius"], "kind": kinds})


def best_radius(errors: xr.Dataset, kind: str = "faint") -> float:
    """Return the radius [FWHM] of the smallest predicted error of `aperture_errors`."""
    return float(errors["predicted"].sel(kind=kind).idxmin("radius"))


def aperture_explorer(stack: xr.Dataset, fluxes: xr.Dataset, errors: xr.Dataset) -> Any:
    """Choose the radius of an aperture: the circle and the background's ring on the star, and what it costs.

    Parameters
    ----------
    stack
        The linear stack.
    fluxes, errors
        From `fluxes_by_aperture` and `aperture_errors`.
    """
    radius = pn.widgets.DiscreteSlider(label="radius of the aperture [FWHM]", options=list(RADII), value=USUAL)

    def text(chosen: float) -> str:
        here = errors.sel(radius=chosen)
        words = [
            f"the {kind} star ({float(here['flux'].sel(kind=kind)):,.0f} e⁻) scatters by "
            f"**{_percent(here['scatter'].sel(kind=kind), here['scatter_error'].sel(kind=kind))}**"
            for kind, *_ in _KINDS
        ]
        return f"From light to light {words[0]}, {words[1]}."

    def chart(chosen: float) -> hv.Layout:
        return theme.layout([star_panel(stack, fluxes, chosen), errors_panel(errors, chosen)])

    return pn.Column(radius, live_text(pn.bind(text, radius)), LiveChart(pn.bind(chart, radius), fit))


def _percent(value: Any, error: Any) -> str:
    return value_text(100 * float(value), 100 * float(error), "%")


def star_panel(stack: xr.Dataset, fluxes: xr.Dataset, radius: float) -> hv.Overlay:
    """Show a star of a stack with its aperture and the ring of its background."""
    x, y = (float(fluxes[name].values[0]) for name in ("x", "y"))
    fwhm = fluxes.attrs["fwhm"]
    reach = int(np.ceil(1.15 * ANNULUS[1] * fwhm))
    rows, columns = (
        np.arange(max(round(at) - reach, 0), min(round(at) + reach + 1, stack.sizes[dim]))
        for at, dim in ((y, "y"), (x, "x"))
    )
    signal = stack["signal"].isel(channel=stack.sizes["channel"] // 2)
    cut = xr.DataArray(signal.values[np.ix_(rows, columns)], dims=("y", "x"), coords={"y": rows, "x": columns})
    angle = np.linspace(0, 2 * np.pi, 73)
    over = []
    for size, colour, width in ((radius, theme.SERIES[0], 3.0), *((size, theme.SERIES[1], 1.6) for size in ANNULUS)):
        u, v = x + size * fwhm * np.cos(angle), y + size * fwhm * np.sin(angle)
        over.append(theme.segments(np.stack([u[:-1], v[:-1], u[1:], v[1:]], axis=1), colour=colour, width=width))
    low, high = np.nanpercentile(cut.values, (2, 99))
    return theme.image_panel(
        cut, f"Aperture of {radius:g} FWHM, and the background's ring", value=_SIGNAL, over=over, limits=(low, high)
    )


def errors_panel(errors: xr.Dataset, radius: float) -> hv.Overlay:
    """Chart the scatter of constant stars over the lights against the aperture, and what the noise predicts."""
    dims, radii = (_RADIUS, _ERROR), errors["radius"].values
    highest = 100 * float((errors["scatter"] + errors["scatter_error"]).max())
    lowest = 100 * float(errors["predicted"].min())
    elements: list[Any] = [
        theme.upright(radius, (lowest / 2, 2 * highest), dims=dims, colour=theme.MUTED, dash="dotted", width=1.6)
    ]
    for kind, colour, marker in _KINDS:
        one = errors.sel(kind=kind)
        elements.append(theme.line(radii, 100 * one["predicted"].values, dims=dims, colour=colour))
        shown = 100 * one["scatter"].values, 100 * one["scatter_error"].values
        label = f"a {kind} star: {float(one['flux']):,.0f} e⁻"
        elements.append(theme.points(radii, *shown, dims=dims, label=label, colour=colour, marker=marker))
    return theme.panel(
        elements, title="Scatter over the lights, and its prediction", log="y", legend="top_right",
        xlim=(radii.min() - 0.1, radii.max() + 0.1), ylim=(lowest / 1.5, 3 * highest),
    )  # fmt: skip


def star_curve(fluxes: xr.Dataset, night: TransitNight | None = None, radius: float = USUAL) -> hv.Layout:
    """Chart a star's light curve in an aperture, with its truth where it is known."""
    curve = compare_stars(fluxes.sel(radius=radius))
    if night is None:
        return charts.light_curve(curve)
    hours = np.linspace(0, float(curve["hours"].max()), 300)
    level = _level(curve, _true(curve, night))
    return charts.light_curve(curve, (hours, level * night.transit.light(hours + _first(night))))


def _level(curve: xr.Dataset, true: np.ndarray) -> float:
    """The brightness that a light curve has where its truth is 1, as its own level is that of its lights' mean."""
    value, error = curve["relative_flux"].values, curve["relative_flux_error"].values
    known = np.isfinite(value)
    return float(np.average((value / true)[known], weights=(true / error)[known] ** 2))


def _first(night: TransitNight) -> float:
    """The middle of the first light [h]."""
    return night.exposure / 7200


def _true(curve: xr.Dataset, night: TransitNight | None) -> np.ndarray:
    """The true brightness of a night's star in each light, of a constant one without a night; 1 out of transit."""
    hours = curve["hours"].values
    return np.ones(hours.size) if night is None else night.transit.light(hours + _first(night))


def star_and_air(curve: xr.Dataset) -> hv.Layout:
    """Chart a star's light and that of its comparison stars over a night, each over its median."""
    dims, hours = (charts.stars.HOURS, _SEEN), curve["hours"].values.astype(float)
    usual = float(np.nanmedian(curve["flux"]))
    flux, error = (100 * curve[name].values / usual for name in ("flux", "flux_error"))
    elements = [
        theme.points(hours, flux, error, dims=dims, label="the star", colour=theme.SERIES[0], size=6),
        theme.points(
            hours, 100 * curve["common"].values, dims=dims, label="the comparison stars together",
            colour=theme.SERIES[1], marker="square", size=5,
        ),
    ]  # fmt: skip
    known = np.concatenate([flux, 100 * curve["common"].values])
    low, high = np.nanmin(known), np.nanmax(known)
    room = (low - 0.1 * (high - low), high + 0.35 * (high - low))
    return theme.layout([theme.panel(elements, title="As the camera saw it", legend="top_right", ylim=room)])


def curve_table(curve: xr.Dataset, night: TransitNight | None = None) -> pd.DataFrame:
    """Tabulate what a light curve shows: the error of a light, what the comparison stars scatter, a transit's depth."""
    freedom = curve.sizes["frame"] - 1
    weight = curve["relative_flux_error"].values ** -2
    value = curve["relative_flux"].values
    known = np.isfinite(value)
    level = _level(curve, _true(curve, None))
    rows: list[tuple[str, Any, Any, Any]] = [
        ("error of one light [%]", 100 * float(curve["relative_flux_error"].median()), np.nan, None),
        ("χ² of the star per light, if it were constant", np.sum((value - level)[known] ** 2 * weight[known]) / freedom,
         np.sqrt(2 / freedom), None),
        ("χ² of the comparison stars per light", curve.attrs["chi_square"],
         np.sqrt(2 / (freedom * max(int(curve["comparison"].sum()) - 1, 1))), None),
    ]  # fmt: skip
    if night is not None:
        rows.append(("depth of the transit [%]", *transit_depth(curve, night), 100 * night.transit.depth))
    return quantities(*rows)


def transit_depth(curve: xr.Dataset, night: TransitNight) -> tuple[float, float]:
    """Return the depth [%] of a transit of known shape in a light curve, by least squares, and its standard error."""
    dip = (1 - _true(curve, night)) / night.transit.depth
    value, weight = curve["relative_flux"].values, curve["relative_flux_error"].values ** -2
    known = np.isfinite(value)
    design = np.stack([np.ones(dip.size), -dip], axis=1)[known]
    covariance = np.linalg.inv((design * weight[known, None]).T @ design)
    level, depth = covariance @ ((design * weight[known, None]).T @ value[known])
    return 100 * depth / level, 100 * float(np.sqrt(covariance[1, 1])) / level


def curve_pulls(fluxes: xr.Dataset, night: TransitNight | None = None) -> np.ndarray:
    """Return how far constant stars lie from constant, and the star from its truth, in units of the errors."""
    pulls = []
    for star in range(fluxes.sizes["star"]):
        if star == 0 and night is None:
            continue
        curve = compare_stars(fluxes.sel(radius=USUAL), star)
        value, error = curve["relative_flux"].values, curve["relative_flux_error"].values
        true, known = _true(curve, night if star == 0 else None), np.isfinite(value)
        count = int(known.sum())
        pulls.append(((value - _level(curve, true) * true) / error)[known] * np.sqrt(count / (count - 1)))
    return np.concatenate(pulls)


def flux_pulls(table: xr.Dataset, night: TransitNight, name: str = "flux") -> np.ndarray:
    """Return how far the fluxes of a stack's stars lie from the truth, in units of their errors.

    The share of the light in the aperture, and what air takes, is one factor of each channel for all stars, which is
    fitted.

    Parameters
    ----------
    table
        From `workbench.photometry`.
    name
        ``flux`` or ``psf_flux``.
    """
    away = np.hypot(table["x"].values[:, None] - night.x, table["y"].values[:, None] - night.y)
    match = away.argmin(axis=1)
    good = (away.min(axis=1) < _NEAR) & (table["flags"].values == "") & (match != 0)  # which is dimmed
    pulls = []
    for channel in range(table.sizes["channel"]):
        true = night.flux[match, channel]
        flux, error = table[name].values[:, channel], table[f"{name}_error"].values[:, channel]
        use = good & np.isfinite(flux) & np.isfinite(error)
        scale = np.average((flux / true)[use], weights=(true / error)[use] ** 2)
        pulls.append(((flux - scale * true) / error)[use])
    return np.concatenate(pulls)


def stack_pulls(table: xr.Dataset, night: TransitNight | None) -> dict[str, np.ndarray]:
    """Return the pulls of a stack's fluxes by method, for `pulls_chart`.

    Raises
    ------
    WorkbenchError
        If there is no truth.
    """
    if night is None:
        raise WorkbenchError("the truth of these stars is not known, as the frames are real: there are no pulls")
    return {
        "In apertures": flux_pulls(table, night),
        "By the point spread function": flux_pulls(table, night, "psf_flux"),
    }


def pulls_chart(pulls: dict[str, np.ndarray]) -> hv.Layout:
    """Chart pulls by their titles, with their root mean square."""
    rms = {title: float(np.sqrt(np.mean(values**2))) for title, values in pulls.items()}
    labels = {
        title: f"{values.size} pulls, rms {value_text(rms[title], rms[title] / np.sqrt(2 * values.size))}"
        for title, values in pulls.items()
    }
    return theme.layout([pulls_panel(values, title, labels[title]) for title, values in pulls.items()])


def pulls_panel(pulls: np.ndarray, title: str, label: str) -> hv.Overlay:
    """Chart pulls next to what they must be if the errors are right: normal, of standard deviation 1."""
    edges, along = np.linspace(-4, 4, 33), np.linspace(-4, 4, 161)
    heights = np.histogram(pulls, edges)[0] / (pulls.size * np.diff(edges))
    normal = np.exp(-(along**2) / 2) / np.sqrt(2 * np.pi)
    return theme.panel(
        [
            theme.steps(edges, heights, dims=(_PULL, _SHARE), label=label, colour=theme.SERIES[0]),
            theme.line(along, normal, dims=(_PULL, _SHARE), label="normal, of width 1"),
        ],
        title=title, legend="top_left", xlim=(-4, 4), ylim=(0, 1.5 * max(0.4, float(heights.max()))),
    )  # fmt: skip


def psf_against_aperture(table: xr.Dataset, lights: xr.DataArray) -> hv.Layout:
    """Chart the relative errors of a stack's fluxes against the flux, in apertures and by its point spread function.

    Parameters
    ----------
    table
        From `workbench.photometry`.
    lights
        The stack's lights: of a star of flux F [e-] in the stack they count N F a electrons, a the share of the
        channel's samples among the pixels.
    """
    one = table.isel(channel=table.sizes["channel"] // 2).isel(star=np.flatnonzero(table["flags"].values == ""))
    flux = one["flux"].values
    known = np.isfinite(flux) & (flux > 0)
    dims, elements = (_FLUX, _RELATIVE), []
    along = np.geomspace(flux[known].min(), flux[known].max(), 50)
    counted = along * lights.sizes["frame"] * channel_share(str(one["channel"].values), lights.attrs["cfa_pattern"])
    elements.append(theme.line(along, 100 / np.sqrt(counted), dims=dims, label="shot noise of the star", dash="dashed"))
    looks = (("flux", "in an aperture", "circle"), ("psf_flux", "by the point spread function", "square"))
    for (name, label, marker), colour in zip(looks, theme.SERIES, strict=False):
        error = 100 * one[f"{name}_error"].values / one[name].values
        elements.append(
            theme.points(flux[known], error[known], dims=dims, label=label, colour=colour, marker=marker, size=7)
        )
    look = {"log": "xy", "legend": "top_right", "xlim": (0.85 * along[0], 1.18 * along[-1])}
    return theme.layout([theme.panel(elements, title="Error of a star's flux in the stack", **look)])
