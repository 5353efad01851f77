"""Charts of the finish: the sky and its model, star fluxes through a step, histograms on both sides of the stretch."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from .pictures import COLUMN, ROW, _frame, _shown
from .theme import (
    CHANNEL_COLOUR,
    INK,
    MUTED,
    SERIES,
    UNUSED,
    band,
    boxes,
    dimension,
    layout,
    line,
    panel,
    picture,
    points,
)

LEVEL = dimension("brightness on the screen", "0 to 1")
_PIXELS = dimension("share of the fullest bin")
_FLUX = dimension("star's flux before")
_CHANGE = dimension("change beyond what was meant", "%")
_COLOUR = {
    "R": CHANNEL_COLOUR["R"],
    "G": CHANNEL_COLOUR["G1"],
    "B": CHANNEL_COLOUR["B"],
    "mono": CHANNEL_COLOUR["mono"],
}
_MARKER = {"R": "R", "G": "G1", "B": "B", "mono": "mono"}


def background(model: xr.Dataset, channel: str | None = None) -> hv.Layout:
    """Chart the light between the stars, cell by cell, and the surface that was laid through the empty sky.

    Cells that count as empty sky are marked, those full of stars are grey.  Both pictures have one scale.

    Parameters
    ----------
    model
        From `finish.background_model`.
    channel
        Which to show; the middle one by default.
    """
    names = model["channel"].values.tolist()
    number = len(names) // 2 if channel is None else names.index(channel)
    unit = _unit(model.attrs["units"])
    cells = model["sky_level"].isel(channel=number).rename(cell_y="y", cell_x="x")
    y, x = (cells[dim].values for dim in ("y", "x"))
    surface = model["background"].isel(channel=number).interp(y=y, x=x).assign_coords(y=y, x=x)
    seen = cells.values[np.isfinite(cells.values)]
    limits = (float(min(seen.min(), surface.min())), float(np.quantile(seen, 0.999)))
    value = dimension(f"light between the stars, {names[number]}", unit)
    panels = []
    for data, title in ((cells, "Between the stars"), (surface, f"The model: {model.attrs['method']}")):
        values, bounds = _shown(data)
        style = {"dims": (COLUMN, ROW), "value": value, "limits": limits, "cmap": "viridis", "label": title}
        image = picture(values, bounds, **style)
        marks = _marks(cells, model["is_sky"].values) if data is cells else []
        panels.append(_frame(image, title, marks))
    return layout(panels)


def _marks(cells: xr.DataArray, is_sky: np.ndarray) -> list[Any]:
    """Draw grey boxes over the cells without a level, and dots on those that show nothing but sky."""
    y, x = (cells[dim].values.astype(float) for dim in ("y", "x"))
    half_y, half_x = ((axis[1] - axis[0]) / 2 if axis.size > 1 else 0.5 for axis in (y, x))
    marks: list[Any] = []
    rows, columns = np.nonzero(~np.isfinite(cells.values))
    if rows.size:
        corners = [
            (x[c] - half_x, y[r] - half_y, x[c] + half_x, y[r] + half_y) for r, c in zip(rows, columns, strict=True)
        ]
        marks.append(boxes(corners, fill=UNUSED, edge=UNUSED))
    rows, columns = np.nonzero(is_sky)
    if rows.size:
        style = {"label": "empty sky", "colour": SERIES[1], "size": 2.5, "filled": True}
        marks.append(points(x[columns], y[rows], dims=(COLUMN, ROW), **style))
    return marks


def star_fluxes(check: xr.Dataset, title: str = "Star fluxes through the step") -> hv.Layout:
    """Chart how much each star's flux deviates from what a step was meant to do to it, with its error.

    Parameters
    ----------
    check
        From `finish.check_photometry`.
    """
    unit = _unit(check["flux_before"].attrs.get("units", ""))
    dims = (_FLUX.clone(unit=unit), _CHANGE)
    allowed = 100 * float(check.attrs["tolerance"])
    flux = check["flux_before"].values
    good = np.isfinite(check["deviation"].values).all(axis=1) & (flux > 0).all(axis=1)
    low, high = (float(np.nanmin(flux[good])), float(np.nanmax(flux[good]))) if good.any() else (1.0, 10.0)
    along = np.array([0.8 * low, 1.25 * high])
    elements: list[Any] = [
        band(along, [-allowed] * 2, [allowed] * 2, dims=dims, label=f"{allowed:.1g} % allowed", colour=MUTED)
    ]
    for number, name in enumerate(check["channel"].values.astype(str)):
        change, error = (100 * check[part].values[good, number] for part in ("deviation", "uncertainty"))
        style = {"label": name, "colour": _COLOUR[name], "marker": _MARKER[name], "size": 5}
        elements.append(points(flux[good, number], change, error, dims=dims, **style))
    reach = max(2 * allowed, 1.1 * float(np.nanmax(np.abs(100 * check["deviation"].values[good]), initial=0.0)))
    return layout([panel(elements, title=title, log="x", ylim=(-reach, reach), legend="bottom_right")])


def stretch_before(counts: xr.Dataset, levels: np.ndarray, screen: np.ndarray) -> hv.Overlay:
    """Chart the histogram of a linear picture and, over it, the curve that takes it to the screen.

    Parameters
    ----------
    counts
        From `finish.histogram`, of the linear picture.
    levels, screen
        The curve: brightness before, in the picture's units, and after, 0 to 1.
    """
    dims = (dimension("brightness before", _unit(counts["level"].attrs.get("units", ""))), _PIXELS)
    curve = line(levels, screen, dims=dims, label="the stretch", colour=INK, dash="dashed", width=2.2)
    return panel([*_curves(counts, dims), curve], title="Before: linear", legend="bottom_right", ylim=(0, 1.05))


def stretch_after(counts: xr.Dataset) -> hv.Overlay:
    """Chart the histogram of a stretched picture; `counts` from `finish.histogram`."""
    return panel(_curves(counts, (LEVEL, _PIXELS)), title="After: on the screen", xlim=(0, 1), ylim=(0, 1.05))


def _unit(units: str) -> str | None:
    return {"electron": "e⁻", "adu": "ADU", "1": "share of full scale"}.get(units, units) or None


def _curves(counts: xr.Dataset, dims: tuple[hv.Dimension, hv.Dimension]) -> list[Any]:
    """One line a channel, the fullest bin of all at 1; the outermost bins, which hold what is clipped, do not count."""
    top = float(counts["count"].values[:, 1:-1].max(initial=1))
    return [
        line(counts["level"].values, np.minimum(row / top, 1.02), dims=dims, label=name, colour=_COLOUR[name])
        for name, row in zip(counts["channel"].values.astype(str), counts["count"].values, strict=True)
    ]
