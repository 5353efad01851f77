"""Darks with muons in them, for the course: simulated, with far more particles than the sky sends."""

from __future__ import annotations

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from workbench import charts
from workbench.core.cube import make_cube
from workbench.pixels.tracks import find_cosmic_rays
from workbench.simulate.sensor import d7000, expose
from workbench.simulate.sky import View, cosmic_rays, make_sky

_SHAPE = (256, 384)


def muon_darks(frames: int = 24, muons: int = 2, exposure: float = 60.0, seed: int = 1) -> xr.DataArray:
    """Shoot simulated darks, each crossed by so many muons (through so small a sensor one comes in two hours).

    Examples
    --------
    >>> muon_darks(2, muons=1).sizes["frame"]
    2
    """
    camera = d7000(seed=9, shape=_SHAPE)
    sky = make_sky(_SHAPE, stars=1, nebula=0.0)
    mosaics = []
    for number in range(frames):
        hits = cosmic_rays(sky, View(cosmic_rays=muons, seed=1000 * seed + number, exposure=exposure))
        mosaics.append(expose(camera, iso=800, exposure=exposure, seed=(seed, number), hits=hits))
    return make_cube(
        np.stack(mosaics), cfa_pattern=camera.cfa_pattern, kind="dark", iso=800, exposure=exposure, temperature=20.0,
        camera=camera.camera, black_level=camera.black_level, white_level=camera.white_level,
        filename=[f"dark_{number:02d}" for number in range(frames)],
    )  # fmt: skip


def gallery(dark: xr.DataArray, threshold: float = 6.0, frames: int | None = None) -> hv.Layout:
    """Chart the tracks found in the first so many of a series of darks, beyond a threshold [σ]."""
    some = dark if frames is None else dark.isel(frame=slice(0, frames))
    return charts.cosmic_rays(find_cosmic_rays(some, threshold=threshold, progress=False))


def count(found: xr.Dataset) -> pd.DataFrame:
    """Tabulate how many events a series of darks holds, and how many muons were to be expected.

    Parameters
    ----------
    found
        From `sensor.find_cosmic_rays`.

    Examples
    --------
    >>> found = find_cosmic_rays(muon_darks(6, muons=3), progress=False)
    >>> count(found).loc["darks, and their exposure together", "number"]
    '6, 6.0 min'
    """
    expected = float(found["expected"])
    rows = {
        "darks, and their exposure together": f"{int(found['frames'])}, {float(found['seconds']) / 60:.1f} min",
        "tracks of two pixels or more": f"{int(found['tracks']):,}",
        "events of one pixel": f"{int(found['singles']):,}",
        "muons to be expected": f"{expected:.1f}" if np.isfinite(expected) else "pixel size not known",
        "pixels as far below the mean, which no particle can do": f"{int(found['dips']):,}",
    }
    return pd.DataFrame({"number": rows})
