"""Plan the next night with sliders: darker or brighter sky, a better or a poorer mount."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from workbench import charts
from workbench.app.live_charts import Moving
from workbench.core.cube import make_cube
from workbench.core.values import value_text
from workbench.plan.conditions import star_shapes, tracking
from workbench.plan.subs import hours, plan_subs, read_out_noise
from workbench.simulate.sensor import d7000, expose
from workbench.simulate.sky import View, make_sky, render

from .showing import fit, live_text

_SHAPE = (256, 384)
_FWHM = 2.6  # px


def brighter(background: xr.Dataset, factor: float) -> xr.Dataset:
    """Return the background under a sky so many times as bright; the dark current stays."""
    dark = background["dark"].fillna(0.0)
    rate = (background["rate"] - dark) * factor + dark
    changed = {
        "rate": rate,
        "rate_error": background["rate_error"] * max(factor, 1e-6),
        "sky": background["sky"] * factor,
    }
    return background.assign({name: value.assign_attrs(background[name].attrs) for name, value in changed.items()})


def subs_under(
    sensor: xr.Dataset, background: xr.Dataset, sky: float = 1.0, penalty: float = 5.0, longest: float = 600.0
) -> hv.Layout:
    """Chart what sub length costs under a sky `sky` times as bright, and which ISO and length are best.

    Parameters
    ----------
    sensor, background
        From `open_sensor` (or `characterize`) and `plan.background_rate`.
    penalty
        Noise that reading out may add [%].
    longest
        Longest sub that the mount allows [s].
    """
    return charts.sub_length(plan_subs(sensor, brighter(background, sky), penalty=penalty / 100, longest=longest))


def answer(
    sensor: xr.Dataset, background: xr.Dataset, sky: float = 1.0, penalty: float = 5.0, longest: float = 600.0,
    snr: float = 10.0, target: float = 10.0,
) -> str:  # fmt: skip
    """Say in words which ISO and sub length are best, and how many hours a target takes.

    Parameters
    ----------
    snr, target
        The signal-to-noise ratio wanted of a pixel, and the target's brightness [% of the sky as it was measured].
    """
    here = brighter(background, sky)
    plan = plan_subs(sensor, here, penalty=penalty / 100, longest=longest)
    return _in_words(plan, sensor, background, here, snr, target)


def _in_words(
    plan: xr.Dataset, sensor: xr.Dataset, background: xr.Dataset, here: xr.Dataset, snr: float, target: float
) -> str:
    """Say what a plan says, under the background as it was measured and as it is here."""
    iso, length = plan.attrs["best_iso"], plan.attrs["best_length"]
    worst = str(plan["channel"].values[int(np.nanargmax(plan["needed"].sel(iso=iso).values))])
    one = background.sel(channel=worst)
    measured = "sky" if math.isfinite(float(one["sky"])) else "rate"
    signal = tuple(target / 100 * float(one[name]) for name in (measured, f"{measured}_error"))
    rate = tuple(float(here[name].sel(channel=worst)) for name in ("rate", "rate_error"))
    time = hours(snr, signal, rate, read_out_noise(sensor, iso, worst), length)
    kept = "" if plan.attrs["met"] else " The mount's limit is shorter than the noise asks for."
    return (
        f"**ISO {iso:g}, subs of {value_text(length, plan.attrs['best_length_error'], 's')}**; "
        f"**{value_text(time.value, time.error, 'hours')}** for a ratio of {snr:g} in {worst}.{kept}"
    )


def planner(sensor: xr.Dataset, background: xr.Dataset) -> Any:
    """Choose sky, allowed noise and the mount's limit: the plan answers, in words and as a chart.

    Parameters
    ----------
    sensor, background
        From `open_sensor` (or `characterize`) and `plan.background_rate`.
    """
    import panel as pn

    sky = pn.widgets.DiscreteSlider(
        label="sky brightness, of the measured one", options=[0.1, 0.2, 0.5, 1, 2, 5, 10], value=1
    )
    penalty = pn.widgets.FloatSlider(label="noise allowed [%]", start=1, end=20, step=0.5, value=5)
    longest = pn.widgets.DiscreteSlider(
        label="the mount's limit [s]", options=[10, 20, 30, 60, 120, 300, 600], value=600
    )

    @lru_cache(maxsize=4)  # chart and words ask for the same
    def plan(sky: float, penalty: float, longest: float) -> tuple[xr.Dataset, xr.Dataset]:
        here = brighter(background, sky)
        return plan_subs(sensor, here, penalty=penalty / 100, longest=longest), here

    def words(*chosen: float) -> str:
        planned, here = plan(*chosen)
        return _in_words(planned, sensor, background, here, 10.0, 10.0)

    controls = (sky, penalty, longest)
    return pn.Column(
        pn.Row(*controls),
        live_text(pn.bind(words, *controls)),
        Moving(pn.bind(lambda *chosen: charts.sub_length(plan(*chosen)[0]), *controls), fit),
        name="Subs",
    )


def drifting_lights(
    drift: float, exposures: tuple[float, ...] = (30.0, 60.0, 120.0, 240.0), seed: int = 1
) -> xr.DataArray:
    """Shoot simulated lights of several exposures with a mount that drifts, as a cube.

    A drift v makes a star image longer by a variance of (v t)²/12.

    Parameters
    ----------
    drift
        In pixels a second.

    Examples
    --------
    >>> drifting_lights(0.01, (60.0,)).sizes["frame"]
    1
    """
    camera = d7000(seed=4, shape=_SHAPE)
    sky = make_sky(_SHAPE, stars=90, brightest=600.0, faintest=25.0, nebula=0.0, seed=2)
    sigma = _FWHM / 2.3548
    mosaics = []
    for number, time in enumerate(exposures):
        stretch = math.sqrt(1 + (drift * time) ** 2 / 12 / sigma**2)
        view = View(exposure=time, fwhm=_FWHM, beta=math.inf, elongation=stretch, angle=0.5, seed=seed + number)
        rate = render(sky, view, camera.cfa_pattern)
        mosaics.append(expose(camera, rate, iso=800, exposure=time, temperature=5.0, seed=(seed, number)))
    return make_cube(
        np.stack(mosaics), cfa_pattern=camera.cfa_pattern, kind="light", iso=800, exposure=list(exposures),
        temperature=5.0, camera=camera.camera, black_level=camera.black_level, white_level=camera.white_level,
        filename=[f"light_{time:g}s" for time in exposures],
    )  # fmt: skip


def mount(drift: float = 0.01, elongation: float = 1.15) -> hv.Layout:
    """Chart how the stars of simulated lights draw out with the exposure, and the longest sub for an elongation."""
    shapes = star_shapes(drifting_lights(drift), progress=False)
    return charts.star_elongation(shapes, tracking(shapes, elongation))
