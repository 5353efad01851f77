"""A folder of lights with its calibration frames in, what the charts of calibration and stacking show out."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..align.registration import Registration, register
from ..calibrate.apply import calibrate
from ..calibrate.flat_audit import audit_flat
from ..calibrate.masterset import MasterSet, make_masters
from ..core.errors import WorkbenchError
from ..core.mosaic import middle
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder
from ..stack.cubes import aligned
from ..stack.trial import before_after, noise_against_frames, rejection_trial

MOST_LIGHTS = 16  # looked at; more only take longer
WINDOW = (1024, 1536)  # rows and columns about the middle that are aligned and stacked
PIECE = (240, 360)  # rows and columns shown
TRIED = (192, 384)  # rows and columns in which rejection is tried
_AUDITED = 4  # lights whose background shows what a flat leaves


@dataclass(frozen=True, eq=False)
class Lights:
    """What a look at a folder's lights found; a piece is None where these frames cannot give it.

    Attributes
    ----------
    audit
        `calibrate.audit_flat` of the master flat on the calibrated lights.
    registration
        `align.register` of the lights.
    growth
        `stack.noise_against_frames`.
    trial
        `stack.rejection_trial`.
    pair
        ``light`` and ``stack`` (y, x) [e-]: a piece of sky before and after stacking.
    warnings
        What is doubtful, and why a piece is missing.
    """

    audit: xr.Dataset | None = None
    registration: Registration | None = None
    growth: xr.Dataset | None = None
    trial: xr.Dataset | None = None
    pair: xr.Dataset | None = None
    warnings: list[str] = field(default_factory=list)


def examine_lights(folder: str | Path | Folder, *, sensor: xr.Dataset | None = None, progress: bool = True) -> Lights:
    """Calibrate, register and stack a part of a folder's lights, and measure what the charts show.

    Of large frames the middle, of many lights the first `MOST_LIGHTS` of the setting that most have.

    Parameters
    ----------
    folder
        A folder (see `open_folder`), or what `open_folder` returned.
    sensor
        A measured sensor (`open_sensor`), whose gain and read noise are used; else those of these frames.
    progress
        False for no progress bars.

    Returns
    -------
    Lights
        With a warning for each piece that these frames cannot give.
    """
    frames = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    found: dict[str, Any] = {}
    warnings: list[str] = []
    try:
        lights, masters = _calibrated(frames, sensor, progress)
    except WorkbenchError as problem:
        return Lights(warnings=[f"the lights were not looked at: {problem}"])
    warnings += masters.warnings
    own = masters.masters[0]
    if own.flat is None:
        warnings.append("no flats: whether they flatten is not measured")
    else:
        try:
            found["audit"] = audit_flat(own.flat, lights.isel(frame=slice(0, _AUDITED)), progress=progress)
        except WorkbenchError as problem:
            warnings.append(f"the flat is not audited: {problem}")
    try:
        cut = _cut(lights).compute()
        found["registration"] = registration = register(cut, progress=progress)
        put = aligned(cut, registration).compute()
        found["growth"] = noise_against_frames(put)
        found["pair"] = before_after(put, piece=PIECE)
        found["trial"] = rejection_trial(cut, registration, window=TRIED, thresholds=(2.0, 2.5, 3.0, 4.0, 6.0))
    except WorkbenchError as problem:
        warnings.append(f"the lights were not stacked: {problem}")
    return Lights(**found, warnings=list(dict.fromkeys(warnings)))


@contextlib.contextmanager
def examined_beside(frames: Folder | None) -> Iterator[Callable[[], Lights | None]]:
    """Examine lights in a process of its own while this one does something else; yields what waits for the answer.

    Compiling for the first time, which Python does on one core, then takes half as long.  None for no frames.

    Examples
    --------
    >>> with examined_beside(None) as lights:
    ...     print(lights())
    None
    """
    if frames is None:
        yield lambda: None
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        future = pool.submit(examine_lights, frames, progress=False)

        def answer() -> Lights:
            try:
                return future.result()
            except BrokenProcessPool:  # killed, for its memory perhaps: once more, here
                return examine_lights(frames, progress=False)

        try:
            yield answer
        finally:
            future.cancel()


def _calibrated(frames: Folder, sensor: xr.Dataset | None, progress: bool) -> tuple[xr.Dataset, MasterSet]:
    """The lights of the setting that most of them have, calibrated lazily, and their masters."""
    light = frames.light
    # what is not known counts as one setting
    settings = np.nan_to_num(np.stack([light["iso"].values, light["exposure"].values], 1).astype(float), nan=-1)
    kinds, member = np.unique(settings, axis=0, return_inverse=True)
    member = member.ravel()
    same = np.flatnonzero(member == np.bincount(member, minlength=len(kinds)).argmax())
    light = light.isel(frame=same[:MOST_LIGHTS])
    others: dict[str, Any] = {
        kind: frames.cube(kind) for kind in ("bias", "dark", "flat", "darkflat") if frames.has(kind)
    }
    masters = make_masters(light, **others, sensor=sensor, progress=progress)
    first = masters.masters[0]  # one group: lights of one setting, or the first night of several
    light = light.isel(frame=list(first.group.lights))
    return calibrate(light, masters), masters


def _cut(lights: xr.Dataset) -> xr.Dataset:
    """The middle of large frames; even edges keep the mosaic's phase."""
    rows, columns = middle((lights.sizes["y"], lights.sizes["x"]), WINDOW)
    return lights.isel(y=rows, x=columns)
