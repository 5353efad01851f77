"""Notebooks 04 and 05: dark current against time and temperature, muons, and a dark that a library predicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import holoviews as hv
import numpy as np
import pandas as pd
import xarray as xr

from workbench import charts
from workbench.charts import theme
from workbench.core.dark import predict_dark
from workbench.core.errors import WorkbenchError
from workbench.core.settings import setting_dim
from workbench.core.values import describe, temperature_text
from workbench.pixels.cosmic_rays import find_cosmic_rays
from workbench.pixels.darks import dark_noise
from workbench.pixels.stacks import stack_cube
from workbench.sensor.dark import Darks
from workbench.sensor.law import dark_law
from workbench.sensor.library import fit_dark_library
from workbench.simulate.firmware import cube_of
from workbench.simulate.sensor import d7000, expose
from workbench.simulate.sky import View, cosmic_rays, make_sky

from .photometry import pulls_panel

_SHAPE = (256, 384)


def dark_growth(darks: Darks, temperatures: Sequence[float]) -> hv.Layout:
    """Chart the dark signal against exposure time at some temperatures [°C] only, each with its fitted line."""
    signal, current = darks.signal, darks.current
    chosen = signal.isel(group=np.flatnonzero(signal["temperature"].isin(list(temperatures))))
    if not chosen.sizes["group"]:
        raise WorkbenchError("choose a temperature")
    return charts.dark_current_vs_time(chosen, current)


def dark_groups(dark: xr.DataArray) -> dict[str, tuple[float, float, float]]:
    """Name every setting, temperature and exposure of which there are two darks or more: what a menu offers.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> darks = make_cube(np.zeros((2, 2, 2)), cfa_pattern="mono", kind="dark", iso=200, exposure=60, temperature=5)
    >>> dark_groups(darks)
    {'60 s at 5 °C, ISO 200': (200.0, 5.0, 60.0)}
    """
    dim = setting_dim(dark)
    keys = zip(*(dark[name].values.tolist() for name in (dim, "temperature", "exposure")), strict=True)
    counts = Counter(keys)
    return {
        f"{seconds:g} s at {temperature_text(celsius)}, {describe({dim: iso})}": (iso, celsius, seconds)
        for iso, celsius, seconds in sorted(counts, key=lambda key: (key[1], key[2], key[0]))
        if counts[iso, celsius, seconds] > 1
    }


def dark_difference(
    dark: xr.DataArray, gain: xr.Dataset, noise: xr.Dataset, group: tuple[float, float, float]
) -> hv.Layout:
    """Chart the difference of two equal darks and a normal curve, for one of `dark_groups`.

    Parameters
    ----------
    dark
        Darks (frame, y, x).
    gain, noise
        From `sensor.fit_gain` and `sensor.read_noise`.
    group
        ISO or gain setting, temperature [°C] and exposure [s].
    """
    return charts.dark_shot_noise_histogram(dark_noise(dark.isel(frame=_of(dark, group)), gain, noise, progress=False))


def _of(dark: xr.DataArray, group: tuple[float, float, float]) -> np.ndarray:
    """Return the numbers of a group's frames."""
    same = [
        np.isclose(dark[name].values.astype(float), value, equal_nan=True)
        for name, value in zip((setting_dim(dark), "temperature", "exposure"), group, strict=True)
    ]
    return np.flatnonzero(np.logical_and.reduce(same))


def dark_settings(dark_current: xr.Dataset) -> dict[str, int]:
    """Name the settings of a dark current, coldest first: what a menu offers."""
    dim = setting_dim(dark_current)
    order = np.lexsort((dark_current[dim].values, dark_current["temperature"].values))
    names = (
        f"{temperature_text(dark_current['temperature'].values[i])}, {describe({dim: dark_current[dim].values[i]})}"
        for i in order
    )
    return dict(zip(names, order.tolist(), strict=True))


def doubling_law(dark_current: xr.Dataset, settings: Sequence[int]) -> hv.Layout:
    """Fit the doubling law to some settings of a dark current only, and chart it with its band.

    Parameters
    ----------
    dark_current
        The ``current`` of `sensor.measure_dark`.
    settings
        Numbers along its dimension ``setting``, as `dark_settings` gives them.
    """
    chosen = dark_current.isel(setting=sorted(settings))
    if np.unique(chosen["temperature"].values).size < 2:
        raise WorkbenchError("choose two temperatures or more")
    return charts.dark_current_vs_temperature(chosen, dark_law(chosen))


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
    return cube_of(camera, mosaics, "dark", iso=800, exposure=exposure, temperature=20.0)


def muon_tracks(dark: xr.DataArray, threshold: float = 6.0) -> hv.Layout:
    """Chart the tracks found in a series of darks, beyond a threshold [σ]."""
    return charts.cosmic_rays(find_cosmic_rays(dark, threshold=threshold, progress=False))


def count_muons(dark: xr.DataArray) -> pd.DataFrame | str:
    """Tabulate how many events a series of darks holds, and how many muons were to be expected; or why it cannot be.

    Parameters
    ----------
    dark
        Raw darks (frame, y, x), five or more equal ones.

    Examples
    --------
    >>> count_muons(muon_darks(6, muons=3)).loc["darks, and their exposure together", "number"]
    '6, 6.0 min'
    """
    try:
        found = find_cosmic_rays(dark, progress=False)
    except WorkbenchError as problem:
        return str(problem)
    expected = float(found["expected"])
    rows = {
        "darks, and their exposure together": f"{int(found['frames'])}, {float(found['seconds']) / 60:.1f} min",
        "tracks of two pixels or more": f"{int(found['tracks']):,}",
        "events of one pixel": f"{int(found['singles']):,}",
        "muons to be expected": f"{expected:.1f}" if np.isfinite(expected) else "pixel size not known",
        "pixels as far below the mean, which no particle can do": f"{int(found['dips']):,}",
    }
    return pd.DataFrame({"number": rows})


def held_out_settings(dark: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Name the exposures and temperatures of the darks that can be held out, the middle ones first.

    Of the ISO with the most darks; a control chooses among them.
    """
    cube = _most_darks(dark)
    pairs = sorted(set(zip(cube["temperature"].values.tolist(), cube["exposure"].values.tolist(), strict=True)))
    order = sorted(range(len(pairs)), key=lambda number: abs(number - len(pairs) / 2))
    return {f"{pairs[k][1]:g} s at {temperature_text(pairs[k][0])}": pairs[k][::-1] for k in order}


def _most_darks(dark: xr.DataArray) -> xr.DataArray:
    settings = dark[setting_dim(dark)].values
    different, counts = np.unique(settings, return_counts=True)
    return dark.isel(frame=np.flatnonzero(settings == different[np.argmax(counts)]))


def held_out_dark(dark: xr.DataArray, bias: xr.DataArray, setting: tuple[float, float]) -> hv.Layout:
    """Fit a library without the darks of one exposure and temperature, and chart its prediction against them.

    Parameters
    ----------
    setting
        From `held_out_settings`: exposure [s] and temperature [°C].
    """
    cube = _most_darks(dark)
    same = (cube["exposure"].values == setting[0]) & (cube["temperature"].values == setting[1])
    library = fit_dark_library(cube.isel(frame=np.flatnonzero(~same)), bias, progress=False)
    stack = stack_cube(cube.isel(frame=np.flatnonzero(same)), progress=False)
    predicted = predict_dark(library, *setting)
    # hot pixels scatter by their own shot noise in the measured darks, too
    slope = np.mean(library.attrs["shot_slope"])
    quiet = float(np.mean(library.attrs["read_variance"]))
    noise = (quiet + slope * np.maximum(predicted["signal"].values - library["offset"].values, 0)) / stack.count
    full = 0.97 * library.attrs["white_level"]  # above it some of the frames saturate, and their mean is low
    seen = np.where(stack.mean > full, np.nan, stack.mean) if np.isfinite(full) else stack.mean
    measured = xr.Dataset({"signal": (("y", "x"), seen), "variance": (("y", "x"), noise)})
    return dark_prediction(predicted, measured)


def dark_prediction(predicted: xr.Dataset, held_out: xr.Dataset) -> hv.Layout:
    """Chart a predicted master dark against held-out darks: pixel by pixel, and what is left over its error.

    Parameters
    ----------
    predicted
        From `predict_dark`: ``signal``, ``variance`` [ADU, ADU²].
    held_out
        ``signal`` and ``variance`` (y, x) of the mean of darks of the same exposure and temperature.
    """
    x, y = predicted["signal"].values, held_out["signal"].values
    pull = (y - x) / np.sqrt(predicted["variance"].values + held_out["variance"].values)
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(pull)
    x, y, pull = x[good], y[good], pull[good]
    hot, rest = np.argsort(x)[-400:], slice(None, None, max(1, x.size // 800))
    dark = theme.KIND_COLOUR["dark"]
    dims = (theme.dimension("predicted", "ADU"), theme.dimension("measured", "ADU"))
    ends = np.array([np.percentile(x, 0.1), float(x.max())])
    left = [
        theme.points(x[rest], y[rest], dims=dims, label="ordinary pixels", colour=theme.MUTED, size=4, filled=False),
        theme.points(x[hot], y[hot], dims=dims, label="the 400 hottest", colour=dark, size=5),
        theme.line(ends, ends, dims=dims, label="equal", dash="dashed"),
    ]
    title = f"What is left: σ = {pull.std():.2f}"
    return theme.layout([theme.panel(left, title="Predicted and measured", log="xy", legend="top_left"),
                         pulls_panel(pull, title, "pixels")])  # fmt: skip
