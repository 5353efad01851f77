"""Notebook 14: sub lengths under another sky, whose noise it is, and what the mount allows."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import xarray as xr

from workbench import charts
from workbench.app.live_charts import LiveChart, live_text
from workbench.core.settings import in_words_of, setting_dim
from workbench.core.values import describe, value_text
from workbench.pipelines.planning import Plan
from workbench.plan.conditions import star_shapes, tracking
from workbench.plan.subs import OVERHEAD, plan_subs, stack_noise, target_hours
from workbench.simulate.firmware import cube_of
from workbench.simulate.sensor import d7000, expose
from workbench.simulate.sky import View, make_sky, render
from workbench.stack.normalise import channel_share, white_noise
from workbench.stack.pixel import sky_noise, starless

from .finishing import open_linear_stack
from .presentation import fit

_SHAPE = (256, 384)
_FWHM = 2.6  # px
_SNR = 10.0  # wanted of a pixel
_TARGET = 0.1  # brightness of the target, as a fraction of the measured sky's


def brighter_sky(background: xr.Dataset, factor: float) -> xr.Dataset:
    """Return the background under a sky that is `factor` times as bright; the dark current is unchanged."""
    dark = background["dark"].fillna(0.0)
    rate = (background["rate"] - dark) * factor + dark
    changed = {
        "rate": rate,
        "rate_error": background["rate_error"] * max(factor, 1e-6),
        "sky": background["sky"] * factor,
    }
    return background.assign({name: value.assign_attrs(background[name].attrs) for name, value in changed.items()})


def sub_length_text(plan: xr.Dataset, sensor: xr.Dataset, background: xr.Dataset, here: xr.Dataset) -> str:
    """Describe a plan: the best ISO and sub length, and the hours for a target at 10 % of the sky and an SNR of 10.

    Parameters
    ----------
    plan
        From `plan.plan_subs`, made with `here`.
    background, here
        The background as measured, and under the sky that was chosen (`brighter_sky`).
    """
    iso, length = plan.attrs["best_iso"], plan.attrs["best_length"]
    hours = target_hours(sensor, plan, here, _TARGET, _SNR, of=background)
    worst = hours.isel(channel=int(np.nanargmax(hours["hours"].values)))
    limited = "" if plan.attrs["met"] else " The mount's limit is shorter than the allowed noise requires."
    sub = value_text(length, plan.attrs["best_length_error"], "s")
    time = value_text(float(worst["hours"]), float(worst["hours_error"]), "hours")
    return (
        f"**{describe({setting_dim(plan): iso})}, subs of {sub}**; "
        f"**{time}**, {OVERHEAD:g} s between subs, for an SNR of {_SNR:g} in {worst['channel'].item()}.{limited}"
    )


def sub_length_explorer(sensor: xr.Dataset, background: xr.Dataset) -> Any:
    """Choose the sky, the allowed noise and the mount's limit: text and chart show the plan.

    Parameters
    ----------
    sensor, background
        From `open_sensor` (or `characterize`) and `plan.background_rate`.
    """
    sky = pn.widgets.DiscreteSlider(
        label="sky brightness, of the measured one", options=[0.1, 0.2, 0.5, 1, 2, 5, 10], value=1
    )
    penalty = pn.widgets.FloatSlider(label="noise allowed [%]", start=1, end=20, step=0.5, value=5)
    longest = pn.widgets.DiscreteSlider(
        label="the mount's limit [s]", options=[10, 20, 30, 60, 120, 300, 600], value=600
    )

    @lru_cache(maxsize=4)  # text and chart use the same plan
    def plan(sky: float, penalty: float, longest: float) -> tuple[xr.Dataset, xr.Dataset]:
        here = brighter_sky(background, sky)
        return plan_subs(sensor, here, penalty=penalty / 100, longest=longest), here

    def text(*chosen: float) -> str:
        planned, here = plan(*chosen)
        return sub_length_text(planned, sensor, background, here)

    controls = (sky, penalty, longest)
    return pn.Column(
        pn.FlexBox(*controls),
        live_text(pn.bind(text, *controls)),
        LiveChart(pn.bind(lambda *chosen: charts.sub_length(plan(*chosen)[0]), *controls), fit),
        name="Subs",
    )


def plan_against_stack(plan: Plan, source: str | Path) -> pd.DataFrame:
    """Tabulate the noise that the plan predicts for the lights that are stacked, and that of their stack's sky.

    Both of a pixel of the stack, in e-; the pull is measured less predicted, over both errors.  The table is empty
    where the lights' background is not measured, the stack is in ADU, or the mosaic has no lattice.

    Parameters
    ----------
    plan
        From `wb.plan_night`.
    source
        As for `open_linear_stack`; the stack is kept for the other notebooks.
    """
    if plan.background is None or plan.sensor is None or plan.background.sizes["channel"] == 3:
        return pd.DataFrame()
    stack = open_linear_stack(source, keep=True)
    pattern = "mono" if stack.sizes["channel"] == 1 else "RGGB"
    if stack.attrs.get("units") != "electron":
        return pd.DataFrame()
    about = {name: json.loads(str(stack.attrs[name])) for name in ("exposure", "frame_count")}
    shares = stack.attrs["pixel_variance_share"]
    shares = json.loads(shares) if isinstance(shares, str) else shares
    planned = stack_noise(plan.sensor, plan.background, about["exposure"], about["frame_count"])
    rows = {}
    for channel in map(str, stack["channel"].values):
        own = planned.sel(channel=["G1", "G2"] if channel == "G" else [channel]).mean("channel")
        share = math.sqrt(shares[channel] * white_noise(channel, pattern))
        picture = stack["signal"].sel(channel=channel).values
        noise, pixels = sky_noise(picture, starless(picture, np.isfinite(picture)))
        error = noise / math.sqrt(pixels * channel_share(channel, pattern))
        predicted, uncertain = share * float(own["noise"]), share * float(own["noise_error"])
        rows[channel] = {
            "predicted [e⁻]": value_text(predicted, uncertain),
            "measured [e⁻]": value_text(noise, error),
            "pull": round((noise - predicted) / math.hypot(uncertain, error), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def drifting_lights(
    drift: float, exposures: tuple[float, ...] = (30.0, 60.0, 120.0, 240.0), seed: int = 1
) -> xr.DataArray:
    """Simulate lights of several exposures taken with a drifting mount, as a cube (frame, y, x).

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
    names = [f"light_{time:g}s" for time in exposures]
    return cube_of(camera, mosaics, "light", iso=800, exposure=list(exposures), temperature=5.0, filename=names)


def mount_drift(drift: float = 0.01, elongation: float = 1.15) -> hv.Layout:
    """Chart how stars elongate with exposure time under a drift [px/s], and the longest sub for an elongation."""
    shapes = star_shapes(drifting_lights(drift), progress=False)
    return charts.star_elongation(shapes, tracking(shapes, elongation))


def _temperatures(sensor: xr.Dataset) -> Any:
    """Return a slider over temperatures; without a law of the dark current over those at which it was measured."""
    known = np.isfinite(sensor["dark_current"].values)
    there = sorted({round(float(one)) for one in sensor["setting_temperature"].values[known] if np.isfinite(one)})
    if there and not np.isfinite(sensor["doubling_temperature"]):
        return pn.widgets.DiscreteSlider(label="sensor [°C]", options=there, value=there[-1])
    return pn.widgets.IntSlider(label="sensor [°C]", start=-20, end=35, step=1, value=20)


def noise_budget_explorer(sensor: xr.Dataset) -> Any:
    """Choose light, temperature, ISO and exposure: the chart shows which noise dominates.

    Parameters
    ----------
    sensor
        From `open_sensor`, or ``characterize(...).sensor``.
    """
    known = np.isfinite(sensor["gain"]).any("channel") & np.isfinite(sensor["read_noise"]).any("channel")
    dim = setting_dim(sensor)
    isos = [float(iso) for iso in sensor[dim].values[known.values]]
    options = {
        "rate": pn.widgets.DiscreteSlider(
            label="sky and target [e⁻/s/pixel]", options=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100], value=1
        ),
        "temperature": _temperatures(sensor),
        "prnu": pn.widgets.DiscreteSlider(
            label="differences in response (PRNU)",
            options={"0, the flat is applied": 0.0, "0.3 %": 0.003, "0.6 %": 0.006, "1 %": 0.01},
            value=0.006,
        ),
        "iso": pn.widgets.DiscreteSlider(
            label=in_words_of(dim, "ISO"), options=isos, value=isos[len(isos) // 3], formatter="%.10g"
        ),
        "exposure": pn.widgets.DiscreteSlider(
            label="exposure [s]", options=[0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600], value=60
        ),
    }
    rows = list(options.values())
    return pn.Column(
        pn.FlexBox(*rows[:3]),
        pn.FlexBox(*rows[3:]),
        LiveChart(pn.bind(charts.noise_budget_chart, sensor, **options), fit),
        name="Noise budget",
    )
