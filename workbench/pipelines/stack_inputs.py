"""What a stacking run reads: settings, frames, masters, the survey of every light, their registration; its forecast."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from ..align.hints import solver
from ..align.moving import moving_warnings
from ..align.panels import link_panels
from ..align.registration import Registration, light_sorts, register_frames
from ..calibrate.masterset import make_masters
from ..calibrate.matching import plan_groups
from ..calibrate.noise import SensorNoise
from ..calibrate.planes import prepare_planes
from ..core.cube import digest
from ..core.errors import FrameReadError, WorkbenchError, said_of_all
from ..core.kernels import is_compiled
from ..core.sensor_file import open_sensor
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder, of_filters, of_one_camera
from ..ingest.reader import plain_pixels, read_frame
from ..stack.combine import stack_tile
from ..stack.drizzle import Drop
from ..stack.engine import save_planes
from ..stack.fits_out import plan_layout
from ..stack.settings import StackSettings, left_out
from ..stars.selection import is_meant
from ..stars.survey import FrameSurvey
from .calibration_checks import CALIBRATION, UsedFlat, calibration_cubes, check_masters, prepare_calibration

_OF_A_LIGHT, _OF_A_CALIBRATION = 49e-9, 8e-9  # [s] of a frame's pixel: runs of 4 and 16 Mpx, FITS, two threads
_FIRST_RUN = "loops are compiled once for this machine: a minute or two more (or beforehand: workbench compile)"
_OF_DRIZZLE = 3.0  # times as long
_BEGIN = 3.0  # s: compiled code is loaded, stars are matched, the file is closed


@dataclass(frozen=True, eq=False)
class LightList:
    """The lights of a run: names, paths, exposures [s], ISO, filters, one each; and what they have in common.

    `sorts` are their settings and filters in words, `changes` scale and shift of the files' numbers.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    exposure: np.ndarray
    iso: np.ndarray
    filters: tuple[str, ...]
    sorts: tuple[str, ...]
    changes: tuple[tuple[float, float], ...]
    shape: tuple[int, int]
    cfa_pattern: str
    camera: str

    @property
    def channels(self) -> tuple[str, ...]:
        """Of the stack."""
        return ("mono",) if self.cfa_pattern == "mono" else ("R", "G", "B")

    @property
    def filter(self) -> str:
        """Of these lights, where they state one."""
        return next(filter(None, self.filters), "")

    def of(self, numbers: list[int]) -> LightList:
        """Return the list of some of the lights."""
        some: dict[str, Any] = {name: getattr(self, name)[numbers] for name in ("exposure", "iso")}
        for name in ("names", "paths", "filters", "sorts", "changes"):
            some[name] = tuple(getattr(self, name)[number] for number in numbers)
        return replace(self, **some)

    def meant_by(self, wanted: str) -> list[int]:
        """Return which lights a path, a name or a stem can mean."""
        return [
            number
            for number, (path, name) in enumerate(zip(self.paths, self.names, strict=True))
            if is_meant(wanted, name, path)
        ]

    def number_of(self, wanted: str) -> int:
        """Return which light is meant by a path, a name or a stem."""
        found = self.meant_by(wanted)
        if len(found) != 1:
            raise WorkbenchError(
                f"the reference {wanted!r} is {'none' if not found else 'more than one'} of the lights "
                f"(the first is {self.names[0]!r}); give the path or the name of one"
            )
        return found[0]


class Place(NamedTuple):
    """Where a run writes, and whether it draws progress bars: output, working folder, folder of masters if kept."""

    out: Path
    work: Path
    masters: Path | None
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

    `used` says for each group what calibrates it, `darks_fit` whether the darks do; `flats` are those of the groups.
    """

    noise: list[SensorNoise]
    planes: list[Path]
    group_of: list[tuple[int, float]]
    used: list[str]
    darks_fit: bool
    flats: list[UsedFlat]

    @property
    def units(self) -> str:
        """Of the stack."""
        return "electron" if all(noise.known for noise in self.noise) else "adu"

    def of(self, numbers: list[int]) -> PreparedMasters:
        """Return the masters of some of the lights."""
        groups = sorted({self.group_of[number][0] for number in numbers})
        noise, planes = [self.noise[group] for group in groups], [self.planes[group] for group in groups]
        used = [self.used[group] for group in groups]
        group_of = [(groups.index(group), factor) for group, factor in (self.group_of[number] for number in numbers)]
        return PreparedMasters(noise, planes, group_of, used, self.darks_fit, [])


def open_frames(
    folder: Path, sensor: str | Path | xr.Dataset | None, settings: StackSettings, progress: bool,
    without: Container[Path] = (),
) -> OpenedFrames:  # fmt: skip
    """Open a folder and keep the lights of the camera, size and mosaic that most have, and of the filters wanted.

    Files in `without` are passed over.  An error if there are fewer than two lights, or none of a filter or a name.
    """
    frames = open_folder(folder, progress=progress, without=without)
    if isinstance(sensor, (str, Path)):
        sensor = open_sensor(sensor)
    if frames.has("light"):
        frames = of_filters(of_one_camera(frames, ["light"], CALIBRATION), settings.filter)
        frames = prepare_calibration(frames)
    light, table = frames.light, frames.table  # without lights this raises, with what is there and what to do
    set_aside = [
        ((path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix(), reason)
        for path, reason in frames.set_aside
    ]
    lights = LightList(
        names=tuple(str(name) for name in light["filename"].values),
        paths=tuple(Path(path) for path in table.loc[table["kind"] == "light", "path"]),
        exposure=light["exposure"].values.astype(float),
        iso=light["iso"].values.astype(float),
        filters=tuple(str(name) for name in light["filter"].values),
        sorts=tuple(light_sorts(light)),
        changes=tuple(table.loc[table["kind"] == "light", ["scale", "shift"]].itertuples(index=False, name=None)),
        shape=(light.sizes["y"], light.sizes["x"]),
        cfa_pattern=light.attrs["cfa_pattern"],
        camera=str(light.attrs["camera"]),
    )
    if len(lights.names) < 2:
        raise WorkbenchError(
            f"{folder} has one light that can be used ({lights.names[0]}): a stack needs at least two"
            + _reasons(set_aside)
        )
    settings.excluded(lights.names, lights.paths, strict=True)
    warnings = list(frames.warnings)
    measured = "" if sensor is None else str(sensor.attrs.get("camera", ""))
    if measured and lights.camera and measured.casefold() != lights.camera.casefold():
        warnings.append(
            f"the sensor that was given is that of {measured}, the lights are of {lights.camera}: its gain and read "
            "noise are right only if both are one camera"
        )
    return OpenedFrames(frames, lights, sensor, set_aside, warnings)


def _reasons(set_aside: list[tuple[str, str]]) -> str:
    return "".join(f"; set aside: {sentence}" for sentence in said_of_all(set_aside)[:5])


def forecast(opened: OpenedFrames, files: Mapping[str, Path], drop: Drop | None = None) -> list[str]:
    """Return a line each: which frames would calibrate which lights, about how long it takes, what disk it needs.

    `files` are those of the stacks, by filter; with a `drop` they are drizzled.
    """
    frames, lights, sensor = opened.frames, opened.lights, opened.sensor
    law = math.nan if sensor is None else float(sensor.get("doubling_temperature", math.nan))
    light = frames.light
    lines = [f"{name}: {lights.filters.count(name)} lights into {path}" for name, path in files.items()]
    lines = lines if len(lines) > 1 else []
    for group in plan_groups(light, **calibration_cubes(frames), doubling_temperature=law):
        lines.append(group.in_words(light))
        lines += [f"  {text}" for text in group.warnings]
    pixels = math.prod(lights.shape)
    paths = [Path(path) for path in frames.table.loc[frames.table["kind"].isin([*CALIBRATION, "light"]), "path"]]
    packed = {path for path in paths if plain_pixels(path) is None}
    count = len(lights.paths)
    seconds, source = working_time(lights.paths, len(paths) - count, len(packed), pixels)
    seconds *= 1 if drop is None else _OF_DRIZZLE
    lines.append(f"time: about {_rounded(seconds)}, an estimate from {source}")
    shape = lights.shape if drop is None else drop.size(lights.shape)
    layout = plan_layout(next(iter(files.values())), (len(lights.channels), *shape), count)
    kept = len(packed & set(lights.paths)) * pixels * 2 + 8 * pixels
    size = len(files) * layout.total
    out = ", ".join(map(str, files.values()))
    lines.append(f"disk: {size / 1e6:,.0f} MB for {out}, {kept / 1e6:,.0f} MB of working files until the end")
    return lines


def working_time(lights: tuple[Path, ...], calibration: int, packed: int, pixels: int) -> tuple[float, str]:
    """Return about how long a run takes [s] on two threads, and from what that was estimated.

    t = 3 s + t_read n_packed/2 + (49 ns n_light + 8 ns n_cal) n_px, with one light read now.  Within a factor of two on
    most machines of the last ten years.

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
    seconds = _BEGIN + reading * packed / 2 + (_OF_A_LIGHT * len(lights) + _OF_A_CALIBRATION * calibration) * pixels
    compiling = "" if is_compiled(stack_tile) else f"; {_FIRST_RUN}"
    return seconds, (
        f"{len(lights) + calibration} frames of {pixels / 1e6:.3g} Mpx and {reading:.2g} s to read one{compiling}"
    )


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


def run_identity(opened: OpenedFrames, settings: StackSettings) -> str:
    """Return the digest of frames, settings, sensor and version: the same means the same result."""
    return digest(__version__, opened.frames.table, opened.frames.adopted, repr(settings), opened.sensor)


def prepare_masters(
    opened: OpenedFrames, settings: StackSettings, place: Place, light: xr.DataArray | None = None
) -> PreparedMasters:
    """Make the masters, compare them with the lights, and keep the planes that calibrate each group of lights.

    `light` is the cube of the lights, where they are not to be read from the files that were opened.
    """
    light, cubes = opened.frames.light if light is None else light, calibration_cubes(opened.frames)
    if place.progress and not is_compiled(stack_tile):
        tqdm.write(f"first run: {_FIRST_RUN}", file=sys.stderr)
    try:
        made = make_masters(
            light, **cubes, sensor=opened.sensor, folder=place.masters, scratch=place.work, progress=place.progress
        )
    except WorkbenchError as problem:  # what is missing may be among what was set aside
        raise WorkbenchError(f"{problem}{_reasons(opened.set_aside)}") from None
    masters, warnings, used, fit = check_masters(light, cubes, made, scale_darks=settings.scale_darks)
    opened.warnings.extend(warnings)
    planes = []
    for number, group in enumerate(masters.masters):
        path = place.work / f"planes-{number}-{group.content}"  # other masters, other planes
        if not (path / "white.npy").exists():
            factor = float(np.median(group.group.factors or (1.0,)))
            save_planes(prepare_planes(group.tables(), opened.lights.shape, factor), path)
        planes.append(path)
    group_of = []
    for number in range(len(opened.lights.names)):
        group, factor = masters.of(light, number)
        group_of.append((masters.masters.index(group), float(factor)))
    flats = [UsedFlat.of(group, cubes["flat"]) for group in masters.masters]
    return PreparedMasters([group.noise for group in masters.masters], planes, group_of, used, fit, flats)


def times_of(opened: OpenedFrames) -> np.ndarray:
    """When each light was taken."""
    light = opened.frames.light
    times = dict(zip(light["filename"].values.astype(str), light["time"].values, strict=True))
    return np.array([times[name] for name in opened.lights.names])


def register_lights(opened: OpenedFrames, settings: StackSettings, surveys: list[FrameSurvey | None]) -> Registration:
    """Register the lights that could be read (None: it could not), and set aside what does not fit.

    Raises
    ------
    WorkbenchError
        If fewer than two can be read or stacked, or the reference cannot.
    """
    lights, reasons = opened.lights, dict(opened.set_aside)
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
    unwanted = left_out(
        settings, {number: one for number, one in enumerate(surveys) if one is not None}, lights.names, lights.paths,
        lights.exposure, lights.sorts,
    )  # fmt: skip
    if reference in unwanted:
        raise WorkbenchError(f"{lights.names[reference]}: the reference is left out: {unwanted[reference]}")
    if len(unwanted | unread) > count - 2:
        raise WorkbenchError(
            f"{count - len(unwanted | unread)} of {count} lights are left by the limits and exclusions; a stack needs "
            f"two{_reasons([(lights.names[number], why) for number, why in sorted(unwanted.items())])}"
        )
    found = register_frames(
        surveys, lights.names, lights.exposure, lights.shape, reference=reference, kind=settings.transform,
        unread=unwanted | unread, sorts=lights.sorts,
    )  # fmt: skip
    if settings.framing == "all":
        found = link_panels(found, solver(lights.paths, found.stars, lights.shape))
    opened.warnings.extend(found.warnings)
    if found.few_stars:
        number, bright = next(iter(found.few_stars.items()))
        example = f"{lights.names[number]}: {bright}" + (", for example" if len(found.few_stars) > 1 else "")
        opened.warnings.append(
            f"{len(found.few_stars)} of {count} lights show too few bright stars to measure the transparency, so it is "
            f"taken from their exposure times ({example})"
        )
    opened.set_aside.extend((lights.names[n], why) for n, why in sorted(found.set_aside.items()) if n not in unread)
    opened.warnings.extend([] if settings.comet else moving_warnings(found, times_of(opened)))
    used = len(found.used)
    if used < 2:
        raise WorkbenchError(
            f"only {used} of {count} lights can be stacked onto {lights.names[found.reference]}; a stack needs two"
            + _reasons(opened.set_aside)
        )
    if used < 0.5 * (count - len(unwanted)):
        opened.warnings.append(f"only {used} of {count} lights were stacked; see what was set aside")
    return found
