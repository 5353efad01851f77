"""A folder of lights and calibration frames in, a linear stack with its variance out.

Six stages, each a function: open the frames, make the masters, look at every light, register them, plan, stack.  Each
leaves its results in a working folder next to the output, so that a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from ..align.registration import Registration, register_frames
from ..align.transform import KINDS
from ..calibrate.masterset import make_masters
from ..calibrate.noise import SensorNoise
from ..calibrate.planes import prepare_planes
from ..core.errors import WorkbenchError, said_of
from ..core.files import check_target
from ..core.sensor_file import open_sensor
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder
from ..ingest.plain import PlainPixels
from ..stack.engine import PlannedFrame, StackPlan, save_planes, stack_bands
from ..stack.fits_out import create_file, finish_stack, plan_layout, write_band
from ..stack.normalise import normalisation
from ..stack.reject import method_number
from .stack_report import LightList, forecast, frame_table, stack_header
from .stack_work import (
    LightJob,
    bands_done,
    claim_folder,
    keep_sums,
    load_survey,
    plan_digest,
    read_sums,
    spread,
    stack_on,
    survey_light,
    workers,
    write_whole,
)

_CHI_HOLDS = (0.9, 1.1)  # within this the noise model describes the scatter between frames


@dataclass(frozen=True, eq=False)
class StackResult:
    """What a run made and from what: `path` of the stack, `frames` (one row a light), `set_aside`, `warnings`.

    `chi_square` a channel: the scatter between frames over the noise model's.  `plan` lists, for a dry run, what would
    be used for what.  `units` of the stack: ``electron``, or ``adu`` where the gain is not known.
    """

    path: Path | None
    frames: pd.DataFrame
    set_aside: list[tuple[str, str]]
    warnings: list[str]
    chi_square: dict[str, float] = field(default_factory=dict)
    reference: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    units: str = "electron"

    def __repr__(self) -> str:
        lines = list(self.plan)
        if self.path is not None:
            used = int(self.frames["used"].sum())
            gone = f", {len(self.set_aside)} set aside" if self.set_aside else ""
            lines.append(f"{self.path}: {used} of {len(self.frames)} lights stacked{gone}, reference {self.reference}")
            chi = ", ".join(f"{name} {value:.3f}" for name, value in self.chi_square.items())
            relative = "" if self.units == "electron" else "; the gain is not known, so only its changes mean something"
            lines.append(f"scatter between frames over the noise model's (chi-square): {chi}{relative}")
            lines.append("time: " + ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items()))
        lines += [f"set aside: {said_of(name, reason)}" for name, reason in self.set_aside]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


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
    """The masters of a run as files of planes, one a group, with its noise; and each light's group and factor."""

    noise: list[SensorNoise]
    planes: list[Path]
    group_of: list[tuple[int, float]]

    @property
    def units(self) -> str:
        """Of the stack."""
        return "electron" if all(noise.known for noise in self.noise) else "adu"


def stack_folder(
    folder: str | Path,
    out: str | Path,
    *,
    sensor: str | Path | xr.Dataset | None = None,
    masters: str | Path | None = None,
    scratch: str | Path | None = None,
    dry_run: bool = False,
    scheduler: Any = None,
    **settings: Any,
) -> StackResult:
    """Stack the lights of a folder with its bias, darks and flats, and write the stack with its variance.

    Parameters
    ----------
    folder
        Frames in folders named bias, dark, flat, light (any depth), or with a manifest ``frames.csv``.
    out
        The FITS file (see `workbench.stack.fits_out`).
    sensor
        A ``sensor.json``, or what `open_sensor` gives; else gain and read noise come from the calibration frames.
    masters
        A folder where masters are kept and used again.
    scratch
        Folder for the working files, next to the output by default.  It is removed at the end; after an
        interruption it stays, and the same call goes on from it.
    dry_run
        Only list what would be used for what, how long it may take and how much disk.
    scheduler
        Address of a dask scheduler, or a ``Client``: its workers, who must see the same files, do the work.
    settings
        Those of `StackSettings`: reference, method, low, high, transform, background, seeing_weights; ``threads`` (2)
        on this machine and ``progress`` (True) for progress bars.

    Raises
    ------
    WorkbenchError
        If there are no lights, none that match, or the output cannot be written; the message says what to do.
    """
    threads, progress = settings.pop("threads", 2), settings.pop("progress", True)
    chosen = StackSettings(**settings)
    check_target(out, "FITS file")
    out = Path(out)
    work = (out.parent if scratch is None else Path(scratch)) / f".{out.name}.work"
    place = Place(out, work, Path(masters) if masters is not None else work / "masters", threads, progress)
    opened = open_frames(Path(folder), sensor, progress)
    if dry_run:
        lines = forecast(opened.frames, opened.lights, _calibration(opened), opened.sensor, out)
        table = pd.DataFrame({"file": list(opened.lights.names), "used": True})
        return StackResult(None, table, opened.set_aside, opened.warnings, plan=tuple(lines))
    with workers(scheduler) as client:
        try:
            return _run(opened, chosen, place, client)
        except KeyboardInterrupt:
            raise WorkbenchError(
                f"stopped; the same command goes on from here (working files in {work}; delete it to begin again)"
            ) from None
        except OSError as problem:
            raise WorkbenchError(
                f"{problem.filename or work}: {problem.strerror or problem}; make room or give --scratch another "
                "place, then the same command goes on from here"
            ) from problem


def _run(opened: OpenedFrames, settings: StackSettings, place: Place, client: Any) -> StackResult:
    """The stages, one after the other."""
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments)
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begin
        return result

    continued = claim_folder(place.work, place.out, _identity(opened, settings))
    ready = timed("masters", prepare_masters, opened, place)
    pixels = timed("first pass", survey_lights, opened, ready, place, client)
    registration = timed("alignment", register_lights, opened, settings, place, pixels)
    plan, level = timed("alignment", plan_stack, opened, settings, ready, registration, pixels)
    chi_maps = timed("stack", write_stack, plan, place, ready.units, client)
    notes = ["continued after an interruption"] if continued else []
    result = timed("stack", finish, opened, place, ready, registration, plan, level, chi_maps, notes)
    shutil.rmtree(place.work, ignore_errors=True)
    return replace(result, seconds=seconds)


# -- what there is -----------------------------------------------------------------------------------------------------


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
        shape=tuple(int(size) for size in light.shape[1:]),
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


def _calibration(opened: OpenedFrames) -> dict[str, xr.DataArray | None]:
    frames = opened.frames
    return {kind: frames.cube(kind) if frames.has(kind) else None for kind in ("bias", "dark", "flat", "darkflat")}


def _identity(opened: OpenedFrames, settings: StackSettings) -> str:
    """A digest of frames (name, size, time), settings and version: the same means the same result."""
    files = []
    for path in opened.frames.table["path"]:
        stat = Path(path).stat()
        files.append([str(path), stat.st_size, stat.st_mtime_ns])
    table = opened.frames.table.drop(columns=["path"], errors="ignore").astype(str).to_dict("list")
    sensor = None if opened.sensor is None else opened.sensor.to_dict()
    text = json.dumps([__version__, files, table, asdict(settings), sensor], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


# -- the stages --------------------------------------------------------------------------------------------------------


def prepare_masters(opened: OpenedFrames, place: Place) -> PreparedMasters:
    """Make the masters, and keep the planes that calibrate each group of lights."""
    light = opened.frames.light
    masters = make_masters(
        light, **_calibration(opened), sensor=opened.sensor, folder=place.masters, scratch=place.work,
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
    return PreparedMasters([group.noise for group in masters.masters], planes, group_of)


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
    reference = None if settings.reference is None else lights.number_of(settings.reference)
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


def plan_stack(
    opened: OpenedFrames,
    settings: StackSettings,
    ready: PreparedMasters,
    registration: Registration,
    pixels: list[PlainPixels | None],
) -> tuple[StackPlan, np.ndarray]:
    """Return the plan of the stack: what to read where, how to normalise and weigh it; and the mean background."""
    norm = normalisation(registration, order=settings.background, seeing=settings.seeing_weights)
    lights = opened.lights
    frames = tuple(
        PlannedFrame(
            lights.names[number], pixels[number], registration.transform(number), float(scale), surface, weight,
            *ready.group_of[number],
        )
        for number, scale, surface, weight in zip(
            registration.used, norm["scale"].values, norm["surface"].values, norm["weight"].values, strict=True
        )
    )  # fmt: skip
    plan = StackPlan(
        frames, tuple(ready.planes), lights.shape, lights.cfa_pattern, settings.method, settings.low, settings.high
    )
    return plan, norm["level"].values


def write_stack(plan: StackPlan, place: Place, units: str, client: Any) -> tuple[np.ndarray, np.ndarray]:
    """Stack the bands that are missing and write them; returns chi-square sums and shared noise (see `Band`)."""
    layout = _layout(plan, place, units)
    journal, digest = place.work / "bands", plan_digest(plan)
    done = bands_done(journal, layout, digest)
    if not done:
        shutil.rmtree(journal, ignore_errors=True)
        journal.mkdir()
        create_file(layout)
        write_whole(journal / "plan.json", digest.encode())
    missing = [number for number in range(plan.bands) if number not in done]
    with tqdm(
        total=plan.bands, initial=len(done), desc="stacking", unit="band", disable=not place.progress, leave=False
    ) as bar:

        def write(number: int, band: Any) -> None:
            write_band(layout, band)
            keep_sums(journal, number, band)
            bar.update()

        if client is None:
            stack_bands(plan, write, missing, threads=place.threads)
        else:
            stack_on(client, plan, layout, journal, missing, bar)
    return read_sums(journal, plan.bands)


def _layout(plan: StackPlan, place: Place, units: str) -> Any:
    part = place.out.parent / f".{place.out.name}.part"
    return plan_layout(part, (len(plan.channels), *plan.shape), len(plan.frames), units)


def finish(
    opened: OpenedFrames,
    place: Place,
    ready: PreparedMasters,
    registration: Registration,
    plan: StackPlan,
    level: np.ndarray,
    maps: tuple[np.ndarray, np.ndarray],
    notes: list[str],
) -> StackResult:
    """Write the header, the maps in blocks and the table of lights, and give the stack its name."""
    chi, shared = maps
    with np.errstate(invalid="ignore", divide="ignore"):
        chi_map = np.where(chi[1] > 0, chi[0] / chi[1], np.nan)
    chi_square = {
        name: float(values[0].sum() / values[1].sum()) if values[1].sum() else math.nan
        for name, values in zip(plan.channels, np.moveaxis(chi, 1, 0), strict=True)
    }
    if ready.units == "electron" and any(not _CHI_HOLDS[0] <= one <= _CHI_HOLDS[1] for one in chi_square.values()):
        opened.warnings.append(
            "the scatter between frames is not what the noise model predicts (chi-square "
            + ", ".join(f"{name} {value:.2f}" for name, value in chi_square.items())
            + "): check the gain and the read noise, or look for clouds and moving light; "
            "the variance is off by as much"
        )
    lights, warnings = opened.lights, list(dict.fromkeys(opened.warnings))
    reference = registration.reference
    noise = ready.noise[ready.group_of[reference][0]]
    table = frame_table(lights, registration, np.stack([frame.weight for frame in plan.frames]))
    about, cards = stack_header(lights, plan, noise, reference, level, chi_square)
    about["history"] += [*notes, *warnings]
    about["history"] += [f"set aside: {said_of(name, reason)}" for name, reason in opened.set_aside]
    finish_stack(_layout(plan, place, ready.units), place.out, about, cards, (chi_map, shared), table)
    return StackResult(
        place.out, table, opened.set_aside, warnings, chi_square, lights.names[reference], units=ready.units
    )
