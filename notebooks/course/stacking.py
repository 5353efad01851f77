"""Notebooks 08 to 11: darks for a master, noise after each step of calibration, residuals of the alignment, rejection.

What is simulated here says so in the name of its camera.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import xarray as xr

from workbench import charts
from workbench.align.grid import FRAMINGS, framed
from workbench.align.registration import Registration
from workbench.align.transform import KINDS, fit_robust
from workbench.calibrate.masterset import make_masters
from workbench.charts import theme
from workbench.charts.lights import METHOD_NAMES, VERDICTS
from workbench.core.errors import WorkbenchError
from workbench.core.statistics import mad_std
from workbench.ingest.reader import read_frame, read_metadata
from workbench.pipelines.calibration import fair_trial
from workbench.pipelines.finishing import solve
from workbench.simulate.firmware import cube_of
from workbench.simulate.sensor import d7000, expose
from workbench.stars.background import half_green
from workbench.stars.objects import names_on

from .calibration_noise import added_noise, calibration_steps, frames_needed, step_noise
from .presentation import FITS, figure, typeset

_SHAPE = (256, 384)
_DARKS = theme.dimension("darks in the master")
_ADDED = theme.dimension("noise added to the stack", "%")
_COUNT, _RATIO = theme.dimension("frames in the master"), theme.dimension("over the law σ/√N − 1", "%")
_CHANNEL, _LEFT = theme.dimension("channel"), theme.dimension("exponent of the flat left in the lights")
_PARAMETERS, _RMS = theme.dimension("parameters of the model"), theme.dimension("residual, rms per axis", "px")


def simulated_frames(
    kind: str, count: int, *, exposure: float, temperature: float = 20.0, light: float = 0.0, iso: float = 800.0,
    shape: tuple[int, int] = _SHAPE, seed: int = 0,
) -> xr.DataArray:  # fmt: skip
    """Shoot simulated frames of one kind with the virtual D7000; `light` [e-/s/pixel] where it is brightest.

    Examples
    --------
    >>> simulated_frames("dark", 2, exposure=60).sizes["frame"]
    2
    """
    camera = d7000(seed=11, shape=shape)
    order = ("bias", "dark", "flat", "darkflat", "light").index(kind)
    frames = [
        expose(camera, light, iso=iso, exposure=exposure, temperature=temperature, seed=(seed, order, n), threads=1)
        for n in range(count)
    ]
    return cube_of(camera, frames, kind, iso=iso, exposure=exposure, temperature=temperature, aperture=5.6)


def darks_needed(dark: float, light: float, darks: int, lights: int, dithered: bool) -> hv.Layout:
    """Chart what a master dark adds to the noise of a stack, against the number of its frames.

    Parameters
    ----------
    dark, light
        Noise of one dark and of one light, in the same unit.
    darks
        Chosen number of darks.
    lights, dithered
        How many lights are stacked, and whether they are dithered.
    """
    dims = (_DARKS, _ADDED)
    along = np.unique(np.geomspace(1, 256, 60).round())
    elements = []
    for shifted, colour, dash in ((False, theme.SERIES[1], "dashed"), (True, theme.SERIES[0], "solid")):
        added = 100 * added_noise(dark, light, along, lights=lights, dithered=shifted)
        label = "dithered" if shifted else "not dithered"
        width = 2.6 if shifted == dithered else 1.4
        elements.append(theme.line(along, added, dims=dims, label=label, colour=colour, dash=dash, width=width))
    chosen = 100 * float(added_noise(dark, light, darks, lights=lights, dithered=dithered))
    elements.append(theme.line([1, 256], [5, 5], dims=dims, label="5 %", dash="dotted", width=1.4))
    elements.append(theme.points([darks], [chosen], dims=dims, label="your choice", marker="star", size=14))
    title = f"{lights} lights stacked"
    return theme.layout([theme.panel(elements, title=title, log="xy", ylim=(0.01, 500), legend="bottom_left")])


def darks_needed_text(dark: float, light: float, darks: int, lights: int, dithered: bool) -> str:
    """Say what a master dark of so many frames adds, and how many would add 5 %.

    Examples
    --------
    >>> darks_needed_text(12.0, 15.0, 16, 20, False)
    '16 darks add **34.2 %** to the noise of 20 lights that are not dithered; **125** would add 5 %.'
    """
    added = 100 * float(added_noise(dark, light, darks, lights=lights, dithered=dithered))
    need = frames_needed(dark, light, lights=lights, dithered=dithered)
    how = "dithered lights" if dithered else "lights that are not dithered"
    return f"{darks} darks add **{added:.3g} %** to the noise of {lights} {how}; **{need}** would add 5 %."


@lru_cache(maxsize=32)
def warm_light(temperature: float = 20.0, darks: int = 8) -> tuple[xr.Dataset, xr.Dataset]:
    """Simulate a light of five minutes at a temperature with so many darks; its steps and their noise.

    Returns
    -------
    What `calibration_steps` and `step_noise` give.
    """
    sky = {"exposure": 300.0, "temperature": temperature}
    light = simulated_frames("light", 1, light=1.5, seed=1, **sky)
    dark = simulated_frames("dark", darks, seed=2, **sky)
    flat = simulated_frames("flat", 8, exposure=0.05, light=3e4, seed=3)
    bias = simulated_frames("bias", 8, exposure=1 / 8000, seed=4)
    masters = make_masters(light, bias=bias, dark=dark, flat=flat, progress=False)
    steps = calibration_steps(light, masters)
    return steps, step_noise(steps)


def alignment_residuals(registration: Registration, number: int = -1) -> hv.Layout:
    """Chart the residuals of one frame of a registration, or of all for -1.

    Raises
    ------
    WorkbenchError
        If that frame has none.
    """
    residuals = registration.residuals()
    if number >= 0:
        here = residuals["frame"].values == number
        if not here.any():
            raise WorkbenchError(f"frame {number} has no matched stars: it is the reference or was set aside")
        residuals = residuals.isel(star=np.flatnonzero(here))
    return charts.alignment_residuals(residuals)


def distorted_stars(distortion: float, stars: int = 250, error: float = 0.06):
    """Return simulated star positions of a wide field, of two frames dithered by 60 px: (reference, frame) (star, 2).

    The lens moves a point at radius r from the centre to r (1 + k (r/R)²), k = `distortion`, R the half diagonal; each
    position is measured with an `error` [px].
    """
    rng = np.random.default_rng(5)
    size = np.array([4928.0, 3264.0])
    half = np.hypot(*size) / 2
    true = rng.uniform(80, size - 80, (stars, 2))

    def seen(places: np.ndarray) -> np.ndarray:
        off = places - size / 2
        radius2 = (off**2).sum(1, keepdims=True) / half**2
        return size / 2 + off * (1 + distortion * radius2) + rng.normal(0, error, places.shape)

    turn = np.radians(0.4)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return seen(true), seen((true - size / 2) @ matrix.T + size / 2 + np.array([60.0, -35.0]))


def model_residuals(kind: str, distortion: float = 0.01) -> hv.Layout:
    """Chart the residuals of a model of the transform fitted to `distorted_stars`.

    Raises
    ------
    WorkbenchError
        If the model is unknown.
    """
    if kind not in KINDS:
        raise WorkbenchError(f"unknown model {kind!r}; choose one of {', '.join(KINDS)}")
    reference, frame = distorted_stars(distortion)
    _, residuals = fit_robust(reference, frame, np.full(len(reference), 0.085), kind=kind)
    everything = residuals.assign(frame=("star", np.ones(len(reference), int)))
    return charts.alignment_residuals(everything.assign(used=("star", np.ones(len(reference), bool))))


class RejectionTrials:
    """Rejection trials on some lights with any number of their frames; each is worked out once.

    Methods are compared where each throws out one sound sample in a thousand: at one threshold for all, those that take
    their σ from the samples would throw out far more or nothing.

    Parameters
    ----------
    lights, registration
        Calibrated lights, computed, and what `align.register` found.
    """

    def __init__(self, lights: xr.Dataset, registration: Registration) -> None:
        self.lights, self.registration = lights, registration
        self.of = cache(self.of)

    @property
    def counts(self) -> list[int]:
        """Numbers of frames worth trying: 3, 5, 8, 12, 20 ... up to all."""
        total = len(self.registration.used)
        return sorted({count for count in (3, 5, 8, 12, 20, 40) if count < total} | {total})

    def of(self, frames: int) -> xr.Dataset:
        """Return the trial with so many frames (see `fair_trial`)."""
        return fair_trial(self.lights, self.registration, frames=frames, window=_SHAPE)

    def chart(self, frames: int) -> hv.Layout:
        """Chart the trial with so many frames, at equal false alarms."""
        return charts.rejection(self.of(frames))

    def table(self, frames: int) -> pd.DataFrame:
        """Tabulate what each method finds of the planted samples of 5 σ and more, and what that costs."""
        trial = self.of(frames)
        rows = {}
        for name in trial["rejection"].values.astype(str):
            one = trial.sel(rejection=name)
            rows[METHOD_NAMES.get(name, name)] = {
                "usual threshold": f"{float(one['usual_threshold']):g} σ",
                "found": _percent(one["usual_found"]),
                "sound samples lost": _percent(one["usual_false_alarms"]),
                "threshold for 1 lost in 1,000": f"{float(one['default_threshold']):.1f} σ",
                "found there": _percent(one["default_found"]),
                "left of the trail": _percent(one["left"]),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def _percent(share: Any) -> str:
    return f"{100 * float(share):.0f} %" if share >= 0.1 else f"{100 * float(share):.2g} %"


def framings(registration: Registration) -> pd.DataFrame:
    """Tabulate the rows and columns of a stack with each framing (see `align.framed`)."""
    sizes = {name: framed(registration, name).shape for name in FRAMINGS}
    return pd.DataFrame.from_dict(sizes, orient="index", columns=["rows", "columns"]).rename_axis("framing")


def master_noise(found: xr.Dataset) -> hv.Layout:
    """Chart the noise of masters against the number of their frames, with the law σ/√N, and how far from it.

    Parameters
    ----------
    found
        From `measure_master_noise`.
    """
    unit = {"1": "%", "adu": "ADU"}[found["noise"].attrs["units"]]
    times = 100.0 if unit == "%" else 1.0
    dims = (_COUNT, theme.dimension(f"noise of the master {found.attrs['kind']}", unit))
    count = found["count"].values.astype(float)
    along = np.geomspace(count[0], 4 * count[-1], 30)
    law = times * float(np.sqrt((found["law"][:, 0] ** 2).mean())) * np.sqrt(count[0] / along)
    around = (count[0] / 1.3, 1.3 * count[-1])
    left: list[Any] = [theme.line(along, law, dims=dims, label="one frame's over √N", dash="dashed")]
    right: list[Any] = [theme.level(0, around, dims=(_COUNT, _RATIO), dash="dashed")]
    for number, channel in enumerate(found["channel"].values.astype(str)):
        one = found.sel(channel=channel)
        shift = count * (1 + 0.03 * (number - (found.sizes["channel"] - 1) / 2))
        noise, error, law = (times * one[name].values for name in ("noise", "noise_error", "law"))
        left.append(theme.channel_points(channel, count, noise, error, dims=dims, size=8))
        deviation, bars = 100 * (noise / law - 1), 100 * error / law
        right.append(theme.channel_points(channel, shift, deviation, bars, dims=(_COUNT, _RATIO), size=8))
    claimed = times * np.sqrt((found["claimed"].values ** 2).mean(axis=0))
    label = "by the master's own variance"
    left.append(theme.points(count, claimed, dims=dims, label=label, colour=theme.INK, marker="cross", size=9))
    reach = max(3.0, 1.4 * float(np.abs(100 * (found["noise"] / found["law"] - 1)).max()))
    ticks = [(int(value), f"{int(value)}") for value in (*count, 2 * count[-1], 4 * count[-1])]
    wide = {"log": "xy", "xticks": ticks, "xlim": (0.85 * along[0], 1.1 * along[-1])}
    narrow = {"log": "x", "xticks": ticks[:-2], "xlim": around, "ylim": (-reach, reach)}
    panels = [theme.panel(left, title="Noise of the master", legend="bottom_left", **wide)]
    return theme.layout([*panels, theme.panel(right, title="Measured against √N", legend="top_left", **narrow)])


def flat_left(audit: xr.Dataset) -> hv.Layout:
    """Chart the exponent k of the flat that stays in the lights, from single pixels and from the smooth background.

    Parameters
    ----------
    audit
        From `calibrate.audit_flat` with lights.
    """
    dims = (_CHANNEL, _LEFT)
    names = audit["channel"].values.astype(str)
    place = np.arange(names.size, dtype=float)
    ends = (-0.6, names.size - 0.4)
    elements: list[Any] = [theme.level(0, ends, dims=dims, dash="dashed", label="correct: nothing left")]
    for name, label, colour, marker, shift in (
        ("correction", "from the pixels' own response", theme.SERIES[0], "circle", -0.08),
        ("smooth_correction", "from the smooth background (nebulae too)", theme.SERIES[4], "square", 0.08),
    ):
        value, error = audit[name].values, audit[f"{name}_error"].values
        look = {"label": label, "colour": colour, "marker": marker, "size": 9}
        elements.append(theme.points(place + shift, value, error, dims=dims, **look))
    reach = max(0.3, 1.35 * max(float(np.nanmax(np.abs(audit[name]))) for name in ("correction", "smooth_correction")))
    verdict = f"verdict: {VERDICTS[audit.attrs['verdict']]}"
    elements.append(theme.note(-0.5, -0.93 * reach, verdict, dims=dims, size=13))
    scales = {"xticks": list(zip(place.tolist(), names.tolist(), strict=True)), "xlim": ends}
    title = "How much of the flat is left"
    return theme.layout([theme.panel(elements, title=title, legend="top_left", ylim=(-reach, 1.6 * reach), **scales)])


def transform_models(models: xr.Dataset) -> hv.Layout:
    """Chart how closely each model of the transform follows the stars it was fitted to, and held-out stars.

    Parameters
    ----------
    models
        From `align.compare_models`.
    """
    dims = (_PARAMETERS, _RMS)
    number = models["parameters"].values
    fitted, held = (np.sqrt((models[name] ** 2).mean("frame", skipna=True)).values for name in ("rms", "held_out"))
    error = np.sqrt((models["held_out_error"] ** 2).sum("frame")).values / models.sizes["frame"]
    elements = [
        theme.line(number, fitted, dims=dims, colour=theme.SERIES[0]),
        theme.points(number, fitted, dims=dims, label="fitted stars", colour=theme.SERIES[0]),
        theme.line(number, held, dims=dims, colour=theme.SERIES[1], dash="dashed"),
        theme.points(number, held, error, dims=dims, label="held-out stars", colour=theme.SERIES[1], marker="square"),
    ]
    top = 1.25 * float(np.nanmax([fitted, held]))
    for place, kind in enumerate(models["kind"].values.astype(str)):
        if np.isfinite(held[place]):
            up = 0.05 * top * (1 + place % 2)
            elements.append(theme.note(number[place] + 0.2, max(held[place], fitted[place]) + up, kind, dims=dims))
    scales = {"ylim": (0, top), "xlim": (0, 22)}
    return theme.layout([theme.panel(elements, title="What more parameters buy", legend="top_right", **scales)])


def on_the_sky(path: str | Path, **hints: Any) -> pn.viewable.Viewable:
    """Solve a frame (`workbench.solve` has the hints) and show it with its names; or say why there is no solution."""
    try:
        solution = solve(path, **hints)
    except WorkbenchError as problem:
        return pn.pane.Markdown(f"No plate solution: {problem}.", **FITS)
    about = read_metadata(path)
    level = half_green(read_frame(path), about.cfa_pattern)
    sky, noise = float(np.nanmedian(level)), float(mad_std(level[np.isfinite(level)]))
    low, high = sky - noise, max(sky + 15 * noise, float(np.nanpercentile(level, 99.8)))
    names = names_on(solution.wcs, solution.shape)
    shown = charts.pictures.colour_panel(
        np.sqrt(np.clip((level - low) / (high - low), 0, 1))[None], "Where on the sky", size=names.shape,
        over=charts.names_overlay(names),
    )  # fmt: skip
    return figure(shown, typeset(f"{solution}.").replace("\n", "; "), camera=about.camera)
