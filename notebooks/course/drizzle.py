"""Notebook 11: dithered lights of stars narrower than two pixels, resampled as ever and drizzled."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from workbench.app import viewer
from workbench.core.values import attribute_dict
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.night import write_night
from workbench.stack.fits_out import open_stack

_SHAPE, _LIGHTS, _SCALE, _PIXFRAC = (160, 240), 24, 2, 0.6
_STARS, _REACH, _VIEW = 12, 3, 20  # that are measured; [px] about each that are fitted; half a side of what is shown


class Drizzled(NamedTuple):
    """The signal (channel, y, x) [e-] of the ordinary and of the drizzled stack about one star, and a row a channel."""

    plain: np.ndarray
    fine: np.ndarray
    table: pd.DataFrame


@cache
def stack_drizzled() -> Drizzled:
    """Simulate dithered lights of undersampled stars (1.6 px), and stack them with and without drizzle."""
    with tempfile.TemporaryDirectory() as aside:
        folder, stacks = Path(aside), []
        night = write_night(
            folder / "night", shape=_SHAPE, lights=_LIGHTS, biases=8, darks=8, flats=8, suffix="fits", stars=40,
            faintest=60.0, brightest=300.0, fwhm=1.6, beta=20.0, dither=5.0, seed=5, progress=False,
        )  # fmt: skip
        for name, drop in (("plain", {}), ("fine", {"scale": _SCALE, "pixfrac": _PIXFRAC})):
            out = folder / f"{name}.fits"
            stack_folder(folder / "night", out, reference="light_0000", progress=False, **drop)
            stacks.append(open_stack(out).load())
    plain, fine = stacks
    x, y, _ = night.views[0].matrix @ [night.sky.x, night.sky.y, np.ones(night.sky.x.size)]
    inner = (np.abs(x - _SHAPE[1] / 2) < _SHAPE[1] / 2 - 24) & (np.abs(y - _SHAPE[0] / 2) < _SHAPE[0] / 2 - 24)
    apart = np.hypot(x - x[:, None], y - y[:, None]) + 99 * np.eye(x.size)
    chosen = np.flatnonzero(inner & (apart.min(0) > 2 * _REACH))
    chosen = chosen[np.argsort(-night.sky.flux[chosen, 1])][:_STARS]
    places = np.stack([x[chosen], y[chosen]], 1)
    columns = {}
    for name, stack, scale in (("ordinary", plain, 1), ("drizzled", fine, _SCALE)):
        columns[f"FWHM [px], {name}"] = [_fwhm(plane, places, scale) for plane in stack["signal"].values]
    for name, stack in (("ordinary", plain), ("drizzled", fine)):
        shares = attribute_dict(stack.attrs, "pixel_variance_share")
        columns[f"variance, pixel over area, {name}"] = list(shares.values())
    table = pd.DataFrame(columns, index=pd.Index(["R", "G", "B"], name="channel"))
    return Drizzled(_cut(plain, places[0], 1), _cut(fine, places[0], _SCALE), table)


def _fwhm(plane: np.ndarray, places: np.ndarray, scale: int) -> float:
    """Median FWHM [px of the reference] of stars, see `gaussian_fwhm`."""
    v, u = ((part + 0.5) / scale - 0.5 for part in np.mgrid[: plane.shape[0], : plane.shape[1]])
    widths = []
    for x, y in places:
        square = (u - x) ** 2 + (v - y) ** 2
        sky = np.nanmedian(plane[(square > 6**2) & (square < 12**2)])
        core = (square < _REACH**2) & np.isfinite(plane)
        light = np.maximum(plane[core] - sky, 1.0)
        widths.append(gaussian_fwhm(u[core], v[core], light))
    return float(np.median(widths))


def gaussian_fwhm(x: np.ndarray, y: np.ndarray, light: np.ndarray) -> float:
    """Return the FWHM of a round Gaussian that is fitted to the logarithm of a star's light, weighed by the light."""
    design = np.stack([np.ones(light.size), x, y, x**2 + y**2], 1)
    fitted = np.linalg.lstsq(design * light[:, None], np.log(light) * light, rcond=None)[0]
    return float(2.3548 * np.sqrt(-0.5 / fitted[3]))


def _cut(stack: xr.Dataset, place: np.ndarray, scale: int) -> np.ndarray:
    """The signal of a stack about a place (x, y) [px of the reference]."""
    left, top = (round(scale * (at - _VIEW)) for at in place)
    return stack["signal"].values[:, top : top + 2 * _VIEW * scale, left : left + 2 * _VIEW * scale]


def drizzle_views(drizzled: Drizzled, width: int = 640) -> hv.Layout:
    """Show a star in both stacks, side by side."""
    plain = drizzled.plain.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)  # on as many pixels
    pictures = [
        viewer.picture("ordinary stack", plain, "e⁻", stretched=True),
        viewer.picture("drizzled", drizzled.fine, "e⁻", stretched=True),
    ]
    return viewer.side_by_side(pictures, columns=2, width=width)
