"""The first pass over the lights: where the pixels of each are, its stars and its background.

A light is looked at by the same function on threads here and by the workers of a cluster.  A file that must be decoded
is decoded once, into the working folder, from which an interrupted run goes on.
"""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..core.errors import FrameReadError, WorkbenchError
from ..core.files import aside
from ..core.parallel import frame_buffers
from ..ingest.metadata import PlainPixels
from ..ingest.reader import plain_pixels, read_frame
from ..stack.engine import open_planes
from ..stars.survey import FrameSurvey, survey_mosaic
from .calibration_checks import light_signal
from .stack_inputs import OpenedFrames, Place, PreparedMasters
from .stack_outputs import spread, write_whole

_OF_A_SURVEY = 24.0  # [bytes] of a pixel that a thread holds: raw, signal, and what its stars are found in
Source = tuple[Path, float, float]  # a light's file, its scale and its shift


def kept_pixels(source: Source, work: Path, number: int, shape: tuple[int, int], dtype: np.dtype) -> PlainPixels:
    """Return where a light's pixels can be read in place: in its file, or decoded into a scratch file, once.

    They are decoded where they do not lie in their file as plain numbers of the run's type (uint16 or float32, the same
    for all lights).
    """
    path, scale, shift = source
    pixels = plain_pixels(path)
    if pixels is None or scale != 1 or shift or not _as_planned(pixels, dtype):
        pixels = PlainPixels(work / f"light-{number}.raw", 0, dtype.newbyteorder("<").str, shape)
        if not pixels.path.exists() or pixels.path.stat().st_size != math.prod(shape) * dtype.itemsize:
            raw = read_frame(path, scale=scale, shift=shift)
            _require_shape(path, raw.shape, shape)
            write_whole(pixels.path, np.ascontiguousarray(raw, pixels.stored).data)
    return pixels


def survey_light(
    source: Source,
    work: Path,
    number: int,
    calibration: tuple[Path, float, float],
    shape: tuple[int, int],
    cfa_pattern: str,
    dtype: np.dtype,
) -> tuple[PlainPixels | None, str]:
    """Survey a light and keep what was found; returns where its pixels can be read in place, or the problem.

    `calibration` is its planes, its dark's factor and the level [e-] at which it saturates.
    """
    planes, factor, saturation = calibration
    try:
        pixels = kept_pixels(source, work, number, shape, dtype)
        if load_survey(work, number) is None:
            _require_shape(source[0], pixels.shape, shape)
            signal = light_signal(pixels, open_planes(planes), factor)
            save_survey(work, number, survey_mosaic(signal, cfa_pattern, saturation))
    except FrameReadError as problem:
        return None, problem.problem
    except WorkbenchError as problem:
        return None, str(problem)
    except OSError as problem:
        if problem.errno == errno.ENOSPC:
            raise WorkbenchError(f"{work}: the disk is full; make room, or give --scratch another place") from problem
        return None, f"cannot be read: {problem.strerror or problem}"
    return pixels, ""


def _as_planned(pixels: PlainPixels, dtype: np.dtype) -> bool:
    """Whether the engine can read these pixels in place; int16 with an offset counts as uint16."""
    stored = np.dtype(pixels.stored).newbyteorder("=")
    return stored == dtype or (dtype == np.uint16 and stored == np.int16)


def _require_shape(path: Path, found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if tuple(found) != tuple(wanted):
        raise FrameReadError(
            path, f"has {found[1]} x {found[0]} pixels where the others have {wanted[1]} x {wanted[0]}"
        )


def save_survey(work: Path, number: int, survey: FrameSurvey) -> None:
    """Keep what the first pass found on a light."""
    stars: dict[str, Any] = {f"star_{name}": survey.stars[name].values for name in survey.stars}
    with aside(work / "survey" / f"{number}.npz") as part:
        np.savez(part, level=survey.level, noise=survey.noise, attrs=json.dumps(survey.stars.attrs), **stars)


def load_survey(work: Path, number: int) -> FrameSurvey | None:
    """Return what the first pass found on a light; None where it has not been there."""
    path = work / "survey" / f"{number}.npz"
    if not path.exists():
        return None
    with np.load(path) as kept:
        stars = {name[5:]: ("star", kept[name]) for name in kept.files if name.startswith("star_")}
        attrs = json.loads(str(kept["attrs"]))
        return FrameSurvey(xr.Dataset(stars, attrs=attrs), kept["level"], kept["noise"])


def lights_type(opened: OpenedFrames) -> np.dtype:
    """Return the type in which the pixels of all lights are read."""
    return np.dtype(np.uint16 if opened.frames.light.dtype == np.uint16 else np.float32)


def _sources(opened: OpenedFrames) -> list[Source]:
    return [(path, *change) for path, change in zip(opened.lights.paths, opened.lights.changes, strict=True)]


def lights_kept(opened: OpenedFrames, place: Place) -> xr.DataArray:
    """Return the cube of the lights; what must be decoded to read one of them is kept for the first pass."""
    shape, dtype = opened.lights.shape, lights_type(opened)

    @dask.delayed
    def read(source: Source, number: int) -> np.ndarray:
        try:
            return kept_pixels(source, place.work, number, shape, dtype).read()
        except OSError as problem:
            if problem.errno == errno.ENOSPC:
                raise
            raise FrameReadError(source[0], f"cannot be read: {problem.strerror or problem}") from problem

    frames = [
        da.from_delayed(read(source, number), shape, dtype)[None] for number, source in enumerate(_sources(opened))
    ]
    return opened.frames.light.copy(data=da.concatenate(frames))


def survey_lights(opened: OpenedFrames, ready: PreparedMasters, place: Place, client: Any) -> list[PlainPixels | None]:
    """Look at every light and keep its stars and background; returns where its pixels are, None for a bad file."""
    (place.work / "survey").mkdir(exist_ok=True)
    lights = opened.lights
    full = [open_planes(planes).saturation for planes in ready.planes]
    calibration = [(ready.planes[group], factor, full[group]) for group, factor in ready.group_of]
    jobs = [
        (source, place.work, number, own, lights.shape, lights.cfa_pattern, lights_type(opened))
        for number, (source, own) in enumerate(zip(_sources(opened), calibration, strict=True))
    ]
    surveys = tqdm(
        spread(survey_light, jobs, client, _OF_A_SURVEY * math.prod(lights.shape)), desc="looking at lights",
        total=len(jobs), unit="frame", disable=not place.progress, leave=False,
    )  # fmt: skip
    with frame_buffers():
        found = list(surveys)
    opened.set_aside.extend((name, why) for name, (_, why) in zip(lights.names, found, strict=True) if why)
    return [pixels for pixels, _ in found]
