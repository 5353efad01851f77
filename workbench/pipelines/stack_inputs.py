"""What a stacking run reads: settings, frames, masters, the survey of every light and their registration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .. import __version__
from ..align.registration import Registration, register_frames
from ..align.transform import KINDS
from ..calibrate.masterset import make_masters
from ..calibrate.noise import SensorNoise
from ..calibrate.planes import prepare_planes
from ..core.cube import digest
from ..core.errors import WorkbenchError, said_of
from ..core.sensor_file import open_sensor
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder
from ..ingest.metadata import PlainPixels
from ..stack.engine import save_planes
from ..stack.reject import method_number
from .stack_report import LightList
from .stack_work import LightJob, load_survey, spread, survey_light


@dataclass(frozen=True)
class StackSettings:
    """How to stack; what changes the result, and so belongs to an interrupted run's identity.

    Attributes
    ----------
    reference
        Path or name of the light on whose pixel grid and exposure the stack is; else the best.
    method, low, high
        Rejection (`workbench.stack.METHODS`) and its thresholds.
    transform
        ``auto`` or one of `workbench.align.KINDS`.
    background
        Order of the surface by which frames' backgrounds are matched: 1, 2 or ``auto``.
    seeing_weights
        Let sharp frames count for more.
    """

    reference: str | Path | None = None
    method: str = "noise"
    low: float | None = None
    high: float | None = None
    transform: str = "auto"
    background: int | str = "auto"
    seeing_weights: bool = False

    def __post_init__(self) -> None:
        method_number(self.method)
        if self.transform not in ("auto", *KINDS):
            raise WorkbenchError(f"transform {self.transform!r} is none of auto, {', '.join(KINDS)}")
        object.__setattr__(self, "reference", None if self.reference is None else str(self.reference))


class Place(NamedTuple):
    """Where a run writes, and with what: output, working folder, folder of masters, threads, progress bars."""

    out: Path
    work: Path
    masters: Path
    threads: int
    progress: bool


class OpenedFrames(NamedTuple):
    """What a run stacks: the folder's frames, the lights, the sensor; `set_aside` and `warnings` of the run so far."""

    frames: Folder
    lights: LightList
    sensor: xr.Dataset | None
    set_aside: list[tuple[str, str]]
    warnings: list[str]


class PreparedMasters(NamedTuple):
    """The masters of a run as files of planes, one a group, with its noise; and each light's group and factor.

    `used` says for each group what calibrates it.
    """

    noise: list[SensorNoise]
    planes: list[Path]
    group_of: list[tuple[int, float]]
    used: list[str]

    @property
    def units(self) -> str:
        """Of the stack."""
        return "electron" if all(noise.known for noise in self.noise) else "adu"


def open_frames(folder: Path, sensor: str | Path | xr.Dataset | None, progress: bool) -> OpenedFrames:
    """Open a folder and keep the lights of the camera, size and mosaic that most have.

    Raises
    ------
    WorkbenchError
        If there are fewer than two lights.
    """
    frames = open_folder(folder, progress=progress)
    set_aside = [(str(path), reason) for path, reason in frames.set_aside]
    if isinstance(sensor, (str, Path)):
        sensor = open_sensor(sensor)
    if not frames.has("light"):
        _ = frames.light  # raises with what is there and what to do
    frames = _of_most_lights(frames, set_aside)
    light, table = frames.light, frames.table
    lights = LightList(
        names=tuple(str(name) for name in light["filename"].values),
        paths=tuple(Path(path) for path in table.loc[table["kind"] == "light", "path"]),
        exposure=light["exposure"].values.astype(float),
        iso=light["iso"].values.astype(float),
        shape=(light.sizes["y"], light.sizes["x"]),
        cfa_pattern=light.attrs["cfa_pattern"],
        camera=str(light.attrs["camera"]),
    )
    if len(lights.names) < 2:
        raise WorkbenchError(
            f"{folder} has one light that can be used ({lights.names[0]}): a stack needs at least two"
            + _reasons(set_aside)
        )
    return OpenedFrames(frames, lights, sensor, set_aside, list(frames.warnings))


def _reasons(set_aside: list[tuple[str, str]]) -> str:
    return "".join(f"; set aside: {said_of(name, reason)}" for name, reason in set_aside[:5])


def _of_most_lights(frames: Folder, set_aside: list[tuple[str, str]]) -> Folder:
    """Keep the lights of the camera, size and mosaic that most have; set the others aside."""
    table = frames.table
    lights = table[table["kind"] == "light"]
    key = ["camera", "height", "width", "cfa_pattern"]
    groups = lights.groupby(key, dropna=False, sort=True).size()
    if len(groups) < 2:
        return frames
    most = groups.idxmax()
    other = lights[(lights[key] != pd.Series(dict(zip(key, most, strict=True)))).any(axis=1)]
    for _, row in other.iterrows():
        set_aside.append((row["file"], f"is of {_sort_of(*row[key])}; most lights are of {_sort_of(*most)}"))
    keep = table.drop(index=other.index)
    same = (keep[key[:3]] == pd.Series(dict(zip(key[:3], most[:3], strict=True)))).all(axis=1)
    for _, row in keep[~same].iterrows():
        set_aside.append((row["file"], "belongs to the camera of the lights that were set aside"))
    return Folder(keep[same], frames.root, [], frames.findings)


def _sort_of(camera: str, height: int, width: int, cfa_pattern: str) -> str:
    return f"{camera or 'an unnamed camera'}, {width} x {height} {cfa_pattern}"


def calibration_cubes(opened: OpenedFrames) -> dict[str, Any]:
    """Return the cube of each kind of calibration frame, None where the folder has none."""
    frames = opened.frames
    return {kind: frames.cube(kind) if frames.has(kind) else None for kind in ("bias", "dark", "flat", "darkflat")}


def run_identity(opened: OpenedFrames, settings: StackSettings) -> str:
    """Return the digest of frames, settings, sensor and version: the same means the same result."""
    return digest(__version__, opened.frames.table, repr(settings), opened.sensor)


def prepare_masters(opened: OpenedFrames, place: Place) -> PreparedMasters:
    """Make the masters, and keep the planes that calibrate each group of lights."""
    light = opened.frames.light
    masters = make_masters(
        light, **calibration_cubes(opened), sensor=opened.sensor, folder=place.masters, scratch=place.work,
        progress=place.progress,
    )  # fmt: skip
    opened.warnings.extend(masters.warnings)
    planes = []
    for number, group in enumerate(masters.masters):
        path = place.work / f"planes-{number}"
        if not (path / "white.npy").exists():
            factor = float(np.median(group.group.factors or (1.0,)))
            save_planes(prepare_planes(group.tables(), opened.lights.shape, factor), path)
        planes.append(path)
    group_of = []
    for number in range(len(opened.lights.names)):
        group, factor = masters.of(light, number)
        group_of.append((masters.masters.index(group), float(factor)))
    used = [group.group.in_words(light) for group in masters.masters]
    return PreparedMasters([group.noise for group in masters.masters], planes, group_of, used)


def survey_lights(opened: OpenedFrames, ready: PreparedMasters, place: Place, client: Any) -> list[PlainPixels | None]:
    """Look at every light and keep its stars and background; returns where its pixels are, None for a bad file."""
    (place.work / "survey").mkdir(exist_ok=True)
    lights = opened.lights
    dtype = np.dtype(np.uint16 if opened.frames.light.dtype == np.uint16 else np.float32)
    jobs = [
        LightJob(path, place.work, number, ready.planes[group], factor, lights.shape, lights.cfa_pattern, dtype)
        for number, (path, (group, factor)) in enumerate(zip(lights.paths, ready.group_of, strict=True))
    ]
    results: list[PlainPixels | None] = [None] * len(jobs)
    for number, (pixels, problem) in spread(survey_light, jobs, client, place.threads, place.progress):
        results[number] = pixels
        if problem:
            opened.set_aside.append((lights.names[number], problem))
    return results


def register_lights(
    opened: OpenedFrames, settings: StackSettings, place: Place, pixels: list[PlainPixels | None]
) -> Registration:
    """Register the lights that could be read, and set aside what does not fit.

    Raises
    ------
    WorkbenchError
        If fewer than two can be read or stacked, or the reference cannot.
    """
    lights, reasons = opened.lights, dict(opened.set_aside)
    surveys = [load_survey(place.work, number) if one is not None else None for number, one in enumerate(pixels)]
    unread = {
        number: reasons.get(name, "cannot be read")
        for number, (name, survey) in enumerate(zip(lights.names, surveys, strict=True))
        if survey is None
    }
    count, read = len(lights.names), len(surveys) - len(unread)
    reference = None if settings.reference is None else lights.number_of(str(settings.reference))
    if reference in unread:
        raise WorkbenchError(f"{lights.names[reference]}: the reference cannot be read: {unread[reference]}")
    if read < 2:
        reason = "".join(f"; {lights.names[number]}: {reason}" for number, reason in sorted(unread.items())[:5])
        raise WorkbenchError(f"{read} of {count} lights can be read; a stack needs two{reason}")
    found = register_frames(
        surveys, lights.names, lights.exposure, lights.shape, reference=reference, kind=settings.transform,
        unread=unread,
    )  # fmt: skip
    if found.few_stars:
        number, bright = next(iter(found.few_stars.items()))
        example = f"{lights.names[number]}: {bright}" + (", for example" if len(found.few_stars) > 1 else "")
        opened.warnings.append(
            f"{len(found.few_stars)} of {count} lights show too few bright stars to measure the transparency, so it is "
            f"taken from their exposure times ({example})"
        )
    opened.set_aside.extend((lights.names[n], why) for n, why in sorted(found.set_aside.items()) if n not in unread)
    used = len(found.used)
    if used < 2:
        raise WorkbenchError(
            f"only {used} of {count} lights can be stacked onto {lights.names[found.reference]}; a stack needs two"
            + _reasons(opened.set_aside)
        )
    if used < 0.5 * count:
        opened.warnings.append(f"only {used} of {count} lights were stacked; see what was set aside")
    return found
