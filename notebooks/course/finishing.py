"""Notebooks 12 and 13: models of the background against a known sky, and the same data finished in five ways."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from workbench import finish
from workbench.app.pictures import html_pane, jpeg, pixels, screen_level
from workbench.charts import theme
from workbench.core.statistics import mad_std
from workbench.core.values import unit_text
from workbench.ingest.catalogue import open_folder
from workbench.pipelines.stacking import stack_folder
from workbench.simulate import sky as virtual
from workbench.stars.background import block_background

from .results import kept

BACKGROUND_METHODS = ("polynomial", "rbf", "mesh")
_FLUX = theme.dimension("star's flux before")
_CHANGE = theme.dimension("change beyond what was meant", "%")
_DARKEST = 0.01  # of the range from black to white: what a screen shows as good as black


def open_linear_stack(source: str | Path, *, keep: bool = False, progress: bool = False) -> xr.Dataset:
    """Open a linear stack: a file, or a folder of lights with their calibration frames, which is stacked first.

    Parameters
    ----------
    source
        The file or the folder.
    keep
        Keep the stack of a folder for the other notebooks of the course, or take the one that is kept (`lessons.kept`).
        `workbench stack` writes a file of your own.
    """
    if Path(source).is_file():
        return finish.read_picture(source)
    if keep:
        frames = open_folder(source, progress=progress)
        return kept("stack", frames, otherwise=lambda: open_linear_stack(source, progress=progress))
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "stack.fits"
        stack_folder(source, path, progress=progress)
        return finish.read_picture(path).load()


def sky_share(picture: xr.Dataset, model: xr.Dataset) -> tuple[float, float]:
    """Return the share [%] of all light in a picture that is the sky's, and its error from how well the model fits.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> picture = finish.make_picture(rng.normal(100, 1, (100, 100)))
    >>> round(sky_share(picture, finish.background_model(picture))[0])
    100
    """
    total = float(np.nanmean(picture["signal"].values, dtype=float))
    share, error = (float(np.mean(part)) / total for part in (finish.model_means(model), model["residual"].values))
    return 100 * share, 100 * error


def darkest_share(linear: xr.Dataset) -> float:
    """Return the share [%] of pixels that a screen shows as good as black when a linear picture is not stretched.

    Those in the lowest hundredth of the range from the sky's black point to the brightest pixel.

    Examples
    --------
    >>> picture = finish.make_picture(np.concatenate([np.zeros(99), [1000.0]]).reshape(10, 10))
    >>> round(darkest_share(picture))
    99
    """
    numbers = finish.stretch_parameters(linear, finish.StretchSettings("linear"))
    level = finish.luminance(linear["signal"].values)
    level = level[np.isfinite(level)]
    black = float(numbers["black"][0])
    return 100 * float(np.mean(level < black + _DARKEST * (numbers["white"] - black)))


@dataclasses.dataclass(frozen=True)
class FinishStyle:
    """One way to finish a picture: its settings, what it hides and what it invents."""

    name: str
    settings: Callable[[xr.Dataset], finish.FinishSettings]
    hides: str
    invents: str


def _grey(_: xr.Dataset) -> finish.FinishSettings:
    return finish.FinishSettings(
        colour=finish.ColourSettings(balance="none", matrix=False),
        stretch=finish.StretchSettings(method="autostretch", linked=False),
    )


def _deep(linear: xr.Dataset) -> finish.FinishSettings:
    statistics = finish.sky_statistics(linear)
    return finish.FinishSettings(stretch=finish.StretchSettings(black=float(statistics["typical"]), sky=0.05))


def _smooth(_: xr.Dataset) -> finish.FinishSettings:
    return finish.FinishSettings(detail=finish.DetailSettings(denoise=1.0, stars=0.9, contrast=0.8))


def _eaten(linear: xr.Dataset) -> finish.FinishSettings:
    height, width = linear.sizes["y"], linear.sizes["x"]
    points = [(x * width, y * height) for x in np.linspace(0.04, 0.96, 10) for y in np.linspace(0.05, 0.95, 7)]
    return finish.FinishSettings(background=finish.BackgroundSettings("rbf", samples=tuple(points), smoothing=0.0))


STYLES = (
    FinishStyle(
        "As it is", lambda _: finish.FinishSettings(), "little: what is very bright is compressed.", "nothing."
    ),
    FinishStyle(
        "Each channel by itself",
        _grey,
        "the true colour of sky and nebula: whatever fills the frame becomes grey.",
        "a balance that nobody measured.",
    ),
    FinishStyle(
        "Black sky",
        _deep,
        "the faint half of the nebula, and the noise that shows how certain the rest is.",
        "an edge where the nebula has none.",
    ),
    FinishStyle(
        "Smooth",
        _smooth,
        "the grain: faint and bright parts look equally certain. Stars lose their brightness.",
        "contours from what little structure the noise left.",
    ),
    FinishStyle(
        "Samples everywhere",
        _eaten,
        "the nebula itself, taken for background wherever a sample lies on it.",
        "dark hollows next to what remains.",
    ),
)


def five_finishes(stack: xr.Dataset) -> list[tuple[FinishStyle, xr.Dataset, dict[str, float]]]:
    """Finish the same data in five ways, on the level that half a page shows; each with what can be measured of it.

    Returns
    -------
    list of (way, stretched picture, numbers): ``black`` and ``white``, the shares of pixels [%] where every channel is
    0 or any is 255; ``grain``, the noise of neighbouring pixels, and ``nebula``, how far the brightest tenth of the
    places between the stars lies above the darkest [both in levels of 255].
    """
    picture = screen_level(finish.fill_holes(finish.crop(stack)))
    whole = finish.CropSettings(share=None)
    plain = finish.finish(picture, finish.FinishSettings(crop=whole), progress=False)
    flat = picture if plain.background is None else finish.remove_background(picture, plain.background)
    out = []
    for way in STYLES:
        settings = dataclasses.replace(way.settings(plain.linear), crop=whole)
        if settings.background == finish.BackgroundSettings():  # the same for most: removed once
            settings = dataclasses.replace(settings, background=finish.BackgroundSettings(method="none"))
        begin = flat if settings.background.method == "none" else picture
        done = plain if way is STYLES[0] else finish.finish(begin, settings, progress=False)
        levels = pixels(done.picture).reshape(*done.picture["signal"].shape[1:], -1).astype(np.float32)
        grey = levels.mean(axis=-1)
        cells = block_background(grey, 16)[0]
        numbers = {
            "black": 100 * float((levels == 0).all(axis=-1).mean()),
            "white": 100 * float((levels == 255).any(axis=-1).mean()),
            "grain": float(mad_std(np.diff(grey, axis=1), centre=0)) / np.sqrt(2),
            "nebula": float(np.ptp(np.nanquantile(cells, (0.1, 0.9)))),
        }
        out.append((way, done.picture, numbers))
    return out


def finishes_gallery(stack: xr.Dataset) -> tuple[Any, pd.DataFrame]:
    """Show the same data finished in five ways, with what each hides and invents; and a table of measures."""
    made = five_finishes(stack)
    figures = [
        f'<figure style="margin:0"><img src="{jpeg(pixels(picture))}" alt="{way.name}" style="width:100%">'
        f'<figcaption style="font:13px system-ui,sans-serif"><b>{way.name}.</b> <i>Hides:</i> {way.hides}'
        f" <i>Invents:</i> {way.invents}</figcaption></figure>"
        for way, picture, _ in made
    ]
    columns = "repeat(auto-fit,minmax(min(100%,300px),1fr))"
    grid = f'<div style="display:grid;grid-template-columns:{columns};gap:12px">{"".join(figures)}</div>'
    rows = {
        way.name: {
            "black pixels [%]": f"{numbers['black']:.1f}",
            "white pixels [%]": f"{numbers['white']:.2f}",
            "grain [of 255]": f"{numbers['grain']:.1f}",
            "nebula over sky [of 255]": f"{numbers['nebula']:.0f}",
        }
        for way, _, numbers in made
    }
    return html_pane(grid), pd.DataFrame.from_dict(rows, orient="index")


@cache
def known_sky(seed: int = 0) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """Return a simulated stack of a nebula in the middle of a sky with a gradient; its background; its nebula.

    All in electrons, the arrays (channel, y, x); twenty frames of 60 s.
    """
    shape, exposure, frames, read_noise = (480, 720), 60.0, 20, 2.5
    sky = virtual.make_sky(shape, stars=300, brightest=3000.0, step=16.0, seed=seed)
    rows, columns = sky.nebula.shape[1:]
    v, u = np.mgrid[:rows, :columns]
    cloud = np.exp(-0.5 * (((v / rows - 0.5) / 0.09) ** 2 + ((u / columns - 0.5) / 0.09) ** 2))
    sky = dataclasses.replace(sky, nebula=0.5 * np.array([1.0, 0.35, 0.3])[:, None, None] * cloud)
    slopes = np.outer([1.0, 0.9, 0.7], [0.06, 0.14])
    view = virtual.View(exposure=exposure, gradient=slopes)
    dark = virtual.View(exposure=exposure, background=(0.0, 0.0, 0.0))
    light, background, nebula = (
        virtual.picture(one, at).values.astype(float) * exposure
        for one, at in (
            (sky, view),
            (virtual.replace_stars(sky), view),
            (virtual.replace_stars(sky, nebula=1.0), dark),
        )
    )
    rng = np.random.default_rng((seed, 9))
    noise = rng.normal(0, read_noise / np.sqrt(frames), light.shape)
    picture = finish.make_picture(
        rng.poisson(light * frames) / frames + noise,
        (light + read_noise**2) / frames,
        attrs={"camera": "virtual camera (simulated)"},
    )
    return picture, background, nebula


def background_errors() -> pd.DataFrame:
    """Tabulate how far each background model is from the truth of `known_sky`, the worst of the channels."""
    picture, background, nebula = known_sky()
    sky = finish.measure_sky(picture)
    rows = {}
    samples = tuple((x, y) for x in np.linspace(30, 690, 10) for y in np.linspace(25, 455, 7))
    models = {name: finish.background_model(picture, name, sky=sky) for name in BACKGROUND_METHODS}
    models["rbf, samples everywhere"] = finish.background_model(picture, "rbf", sky=sky, samples=samples, smoothing=0.0)
    for name, model in models.items():
        miss = finish.evaluate_background(model).values - background
        core = nebula > 0.1 * nebula.max(axis=(1, 2), keepdims=True)
        gradient = max(np.ptp(one) / np.ptp(true) for one, true in zip(miss, background, strict=True))
        lost = max(one[where].sum() / cloud[where].sum() for one, cloud, where in zip(miss, nebula, core, strict=True))
        rows[name] = {
            "residual gradient [% of it]": f"{100 * gradient:.1f}",
            "nebula taken [% of its light]": f"{100 * lost:.1f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def background(model: xr.Dataset) -> hv.Layout:
    """Chart the light between the stars, cell by cell, and the surface that was laid through the empty sky.

    Of the middle channel.  Cells that count as empty sky are marked, those full of stars are grey.  Both pictures have
    one scale.

    Parameters
    ----------
    model
        From `finish.background_model`.
    """
    names = model["channel"].values.tolist()
    number = len(names) // 2
    cells = model["sky_level"].isel(channel=number).rename(cell_y="y", cell_x="x")
    y, x = (cells[dim].values for dim in ("y", "x"))
    surface = model["background"].isel(channel=number).interp(y=y, x=x).assign_coords(y=y, x=x)
    seen = cells.values[np.isfinite(cells.values)]
    limits = (float(min(seen.min(), surface.min())), float(np.quantile(seen, 0.999)))
    value = theme.dimension(f"light between the stars, {names[number]}", unit_of(model.attrs["units"]))
    style = {"value": value, "limits": limits, "cmap": "viridis"}
    title = f"The model: {model.attrs['method']}"
    marks = _marks(cells, model["is_sky"].values)
    left = theme.image_panel(cells, "Between the stars", label="Between the stars", over=marks, **style)
    return theme.layout([left, theme.image_panel(surface, title, label=title, **style)])


def _marks(cells: xr.DataArray, is_sky: np.ndarray) -> list[Any]:
    """Draw grey boxes over the cells without a level, and dots on those that show nothing but sky."""
    y, x = (cells[dim].values.astype(float) for dim in ("y", "x"))
    half_y, half_x = ((axis[1] - axis[0]) / 2 if axis.size > 1 else 0.5 for axis in (y, x))
    marks: list[Any] = []
    rows, columns = np.nonzero(~np.isfinite(cells.values))
    if rows.size:
        corners = np.stack([x[columns], y[rows]] * 2, 1) + np.array([-half_x, -half_y, half_x, half_y])
        marks.append(theme.boxes(corners, fill=theme.UNUSED, edge=theme.UNUSED))
    rows, columns = np.nonzero(is_sky)
    if rows.size:
        look = {"label": "empty sky", "colour": theme.SERIES[1], "size": 2.5}
        marks.append(theme.points(x[columns], y[rows], dims=(theme.COLUMN, theme.ROW), **look))
    return marks


def star_fluxes(check: xr.Dataset, title: str = "Star fluxes through the step") -> hv.Layout:
    """Chart how much each star's flux deviates from what a step was meant to do to it, with its error.

    Parameters
    ----------
    check
        From `finish.check_photometry`.
    """
    dims = (_FLUX.clone(unit=unit_of(check["flux_before"].attrs.get("units", ""))), _CHANGE)
    allowed = 100 * float(check.attrs["tolerance"])
    flux, deviation, error = (check[name].values for name in ("flux_before", "deviation", "uncertainty"))
    good = np.isfinite(deviation).all(axis=1) & (flux > 0).all(axis=1)
    low, high = (float(np.nanmin(flux[good])), float(np.nanmax(flux[good]))) if good.any() else (1.0, 10.0)
    along, label = np.array([0.8 * low, 1.25 * high]), f"{allowed:.1g} % allowed"
    elements: list[Any] = [theme.band(along, [-allowed] * 2, [allowed] * 2, dims=dims, label=label, colour=theme.MUTED)]
    for number, name in enumerate(check["channel"].values.astype(str)):
        change, bars = 100 * deviation[good, number], 100 * error[good, number]
        elements.append(theme.channel_points(name, flux[good, number], change, bars, dims=dims, size=5))
    reach = max(2 * allowed, 110 * float(np.nanmax(np.abs(deviation[good]), initial=0.0)))
    return theme.layout([theme.panel(elements, title=title, log="x", ylim=(-reach, reach), legend="bottom_right")])


def unit_of(units: str) -> str | None:
    """Return how the unit of a picture is written on an axis."""
    return "share of full scale" if units == "1" else unit_text(units) or None
