"""Notebooks 08 to 11: darks for a master, noise after each step of calibration, residuals of the alignment, rejection.

What is simulated here says so in the name of its camera.
"""

from __future__ import annotations

from functools import lru_cache

import holoviews as hv
import numpy as np
import xarray as xr

from workbench import charts
from workbench.align.registration import Registration
from workbench.align.transform import KINDS, fit_robust
from workbench.calibrate.calibration_noise import added_noise, calibration_steps, frames_needed, step_noise
from workbench.calibrate.masterset import make_masters
from workbench.charts import theme
from workbench.core.errors import WorkbenchError
from workbench.simulate.firmware import cube_of
from workbench.simulate.sensor import d7000, expose
from workbench.stack.trial import rejection_trial

_SHAPE = (256, 384)
_DARKS = theme.dimension("darks in the master")
_ADDED = theme.dimension("noise added to the stack", "%")


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
    What `calibrate.calibration_steps` and `calibrate.step_noise` give.
    """
    sky = {"exposure": 300.0, "temperature": temperature}
    light = simulated_frames("light", 1, light=1.5, seed=1, **sky)
    dark = simulated_frames("dark", darks, seed=2, **sky)
    flat = simulated_frames("flat", 8, exposure=0.05, light=3e4, seed=3)
    bias = simulated_frames("bias", 8, exposure=1 / 8000, seed=4)
    masters = make_masters(light, bias=bias, dark=dark, flat=flat, progress=False)
    steps = calibration_steps(light, masters)
    return steps, step_noise(steps)


def warm_light_chart(temperature: float = 20.0, darks: int = 8) -> hv.Layout:
    """Chart the steps of `warm_light`."""
    return charts.calibration_steps(*warm_light(temperature, darks))


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


def distorted_stars(distortion: float, stars: int = 250, error: float = 0.06, seed: int = 5):
    """Return simulated star positions of a wide field, of two frames dithered by 60 px: (reference, frame) (star, 2).

    The lens moves a point at radius r from the centre to r (1 + k (r/R)²), k = `distortion`, R the half diagonal; each
    position is measured with an `error` [px].
    """
    rng = np.random.default_rng(seed)
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

    Parameters
    ----------
    lights, registration
        Calibrated lights, computed, and what `align.register` found.
    """

    def __init__(self, lights: xr.Dataset, registration: Registration) -> None:
        self.lights, self.registration = lights, registration
        self._known: dict[int, xr.Dataset] = {}

    @property
    def counts(self) -> list[int]:
        """Numbers of frames worth trying: 3, 5, 8, 12, 20 ... up to all."""
        total = len(self.registration.used)
        return sorted({count for count in (3, 5, 8, 12, 20, 40) if count < total} | {total})

    def of(self, frames: int) -> xr.Dataset:
        """Return the trial with so many frames."""
        if frames not in self._known:
            self._known[frames] = rejection_trial(self.lights, self.registration, frames=frames)
        return self._known[frames]

    def chart(self, frames: int) -> hv.Layout:
        """Chart the trial with so many frames."""
        return charts.rejection(self.of(frames))
