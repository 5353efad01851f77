"""What a stacking run would do, before it does it: what calibrates what, how long, how much disk."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import ndimage

from ..calibrate.matching import plan_groups
from ..core.errors import FrameReadError
from ..ingest.catalogue import Folder
from ..ingest.reader import plain_pixels, read_frame
from ..stack.fits_out import plan_layout
from .stack_plan import Lights

# Of runs measured on 4 and 16 Mpx, FITS, two threads: what a pixel of a frame costs, over what a trial pixel does.
_OF_A_LIGHT, _OF_A_CALIBRATION = 0.75, 0.12
_BEGIN = 3.0  # s: compiled code is loaded, stars are matched, the file is closed
_TRIAL = (512, 512)


def foretell(
    frames: Folder,
    light: xr.DataArray,
    lights: Lights,
    calibration: Mapping[str, xr.DataArray | None],
    sensor: xr.Dataset | None,
    out: Path,
) -> list[str]:
    """Say, a line each, which frames would calibrate which lights, about how long it takes, and what disk it needs."""
    law = math.nan if sensor is None else float(sensor.get("doubling_temperature", math.nan))
    lines = []
    for group in plan_groups(light, **calibration, doubling_temperature=law):
        counts = ", ".join(
            f"{len(getattr(group, kind))} {kind} frames"
            for kind in ("bias", "dark", "flat", "darkflat")
            if getattr(group, kind)
        )
        first = light.isel(frame=group.lights[0])
        iso = f"ISO {float(first.iso):g}" if math.isfinite(float(first.iso)) else "no ISO recorded"
        lines.append(
            f"{len(group.lights)} lights ({iso}, {float(first.exposure):g} s) calibrated with {counts or 'nothing'}"
        )
        lines += [f"  {text}" for text in group.warnings]
    pixels = math.prod(lights.shape)
    files = [Path(path) for path in frames.table.loc[frames.table["kind"].isin([*calibration, "light"]), "path"]]
    packed = {path for path in files if plain_pixels(path) is None}
    count = len(lights.paths)
    seconds, told = working_time(lights.paths, len(files) - count, len(packed), pixels)
    lines.append(f"time: about {_rounded(seconds)}, an estimate from {told}")
    layout = plan_layout(out, (len(lights.channels), *lights.shape), count)
    kept = len(packed & set(lights.paths)) * pixels * 2 + 8 * pixels
    lines.append(f"disk: {layout.total / 1e6:,.0f} MB for {out}, {kept / 1e6:,.0f} MB of working files until the end")
    return lines


def working_time(lights: tuple[Path, ...], calibration: int, packed: int, pixels: int) -> tuple[float, str]:
    """Estimate how long a run takes [s] on two threads, and say from what.

    t = 3 s + t_read n_packed/2 + (0.75 n_light + 0.12 n_cal) n_px t_trial: one light is read, and one pixel of a cubic
    interpolation timed, on this machine as busy as it is now.  Good to about a factor of 1.5.

    Parameters
    ----------
    lights
        Their files, of which one is read.
    calibration
        Number of calibration frames.
    packed
        Number of files that must be decoded; others are read in place.
    pixels
        Of a frame.
    """
    begin = time.perf_counter()
    for path in lights:
        try:
            read_frame(path)
        except FrameReadError:
            begin = time.perf_counter()
            continue
        break
    reading = time.perf_counter() - begin
    trial = _trial_pixel()
    frames = _OF_A_LIGHT * len(lights) + _OF_A_CALIBRATION * calibration
    seconds = _BEGIN + reading * packed / 2 + frames * pixels * trial
    return seconds, (
        f"{len(lights) + calibration} frames of {pixels / 1e6:.3g} Mpx, {reading:.2g} s to read one and this machine's "
        "speed just now; the very first run takes a minute more to compile"
    )


def _trial_pixel() -> float:
    """Return the seconds that one pixel of a cubic interpolation takes here: the best of three tries."""
    image = np.random.default_rng(0).normal(size=_TRIAL).astype(np.float32)
    tries = []
    for _ in range(3):
        begin = time.perf_counter()
        ndimage.shift(image, (0.3, 0.4), order=3, prefilter=False)
        tries.append(time.perf_counter() - begin)
    return min(tries) / image.size


def _rounded(seconds: float) -> str:
    """Write a time that is an estimate.

    Examples
    --------
    >>> _rounded(7.3), _rounded(43.0), _rounded(420.0), _rounded(9000.0)
    ('7 s', '45 s', '7 min', '2.5 h')
    """
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 90:
        return f"{5 * round(seconds / 5):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
