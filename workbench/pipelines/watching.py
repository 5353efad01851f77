"""The night as it comes in: each new light is calibrated, checked, aligned and added to a stack that can be looked at.

The first three lights give the reference.  Every light is compared with it and with the last lights before it.  What
is kept between the lights does not grow with their number (see `workbench.stack.live`).
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .. import __version__
from ..align.reference import LightsKnown
from ..align.registration import Registration, register_frames
from ..core.cube import digest
from ..core.errors import WorkbenchError
from ..core.files import aside, check_folder, locked, whole_file
from ..finish.files import write_picture
from ..finish.picture import make_picture, pyramid
from ..finish.stretch import StretchSettings, apply_stretch, sky_statistics, stretch_parameters
from ..ingest.metadata import PlainPixels
from ..stack.engine import PlannedFrame, StackPlan, open_planes
from ..stack.live import LiveLight, RunningStack, add_light, empty_running, running_mean
from ..stack.normalise import normalisation
from ..stack.settings import StackSettings, left_out
from ..stars.selection import unlike_others
from ..stars.survey import FrameSurvey, quality_table
from .stack_inputs import OpenedFrames, Place, open_frames, prepare_masters
from .stack_survey import lights_type, load_survey, survey_light

FIRST = 3  # lights from which the reference is chosen
COMPARED = 8  # lights before it that a new one is compared with
WIDEST = 1600  # pixels of the picture
SAMPLE = 200_000  # of them show how it is stretched
_STRETCH = StretchSettings(method="autostretch", linked=False)


class _Compared(NamedTuple):
    """A light that others are compared with; `key` numbers its survey."""

    name: str
    exposure: float
    sort: str
    key: int


@dataclass(eq=False)
class LiveStack:
    """The stack so far: its sums, the `level` [e-] that lights are normalised to, the weights of each light added.

    `compared` are the lights that a new one is compared with, the reference first, `surveys` by key what was found on
    them; `rows` what became of each light, `looked` the key of each file as it was looked at (see `_key`), and whether
    it was added.
    """

    identity: str
    running: RunningStack
    level: np.ndarray
    weights: list[np.ndarray] = field(default_factory=list)
    compared: list[_Compared] = field(default_factory=list)
    rows: list[LiveLight] = field(default_factory=list)
    looked: dict[str, list[int]] = field(default_factory=dict)
    surveys: dict[int, FrameSurvey | None] = field(default_factory=dict)


def watch_folder(
    folder: str | Path,
    out: str | Path,
    *,
    sensor: str | Path | xr.Dataset | None = None,
    stop: threading.Event | None = None,
    idle: float | None = None,
    settled: float = 2.0,
    **settings: Any,
) -> Generator[LiveLight, None, None]:
    """Add each light that arrives in a folder to a stack, and yield what became of it; ends never, unless asked to.

    After each light OUT holds the picture so far, ``live.png`` (stretched; a mosaic at half its size), and
    ``lights.csv``.  When the generator is closed, or the program is interrupted, the sums are kept, and the same call
    goes on from there.  `stack_folder` gives the final stack, at full size and with its own rejection.

    Parameters
    ----------
    folder
        Calibration frames and lights as for `stack_folder`, and `sensor`; lights may still be missing.
    out
        Folder for the results; created if it does not exist.
    stop, idle
        End the wait for more lights: when it is set; when no new light has come for so long [s].
    settled
        Seconds since a file was last written, before which it is not read: it may not be whole.
    settings
        Those of `StackSettings` that concern single lights: reference, transform, background, filter, exclude,
        max_fwhm, min_roundness, max_background, min_stars, scale_darks.

    Raises
    ------
    WorkbenchError
        If the folder does not exist, OUT cannot be written or lies within it, another run has it, or
        ``keep``, ``scale`` or ``pixfrac`` is given.

    Examples
    --------
    >>> for light in watch_folder("tonight", "tonight-live", idle=1800):  # doctest: +SKIP
    ...     print(light)
    """
    chosen, folder, out = StackSettings(**settings), Path(folder), Path(out)
    chosen.require_live()
    if not folder.is_dir():
        raise WorkbenchError(f"{folder} is not a folder; give the one that the lights arrive in")
    check_folder(out, "choose another folder", ["live.png", "lights.csv"], frames=folder)
    place = Place(out / "live.fits", out / ".live", out / "masters", False)
    (place.work / "survey").mkdir(parents=True, exist_ok=True)
    with locked(place.work):
        yield from _watch(folder, sensor, _Setting(place, chosen, {}), _ticks(folder, stop, idle), settled)


def _ticks(folder: Path, stop: threading.Event | None, idle: float | None) -> Iterator[bool]:
    """Yield now, and about every two seconds whether something in a folder has changed."""
    from watchfiles import watch

    last = time.monotonic()
    yield True
    stop = threading.Event() if stop is None else stop
    for number, changes in enumerate(watch(folder, stop_event=stop, rust_timeout=2000, yield_on_timeout=True)):
        last = time.monotonic() if changes else last
        if idle is not None and time.monotonic() - last > idle:
            break
        yield bool(changes) or number == 0  # what came before the watch began shows no change
    yield True


class _Setting(NamedTuple):
    """What stays over a night; `prepared`: by a light's kind, its planes, its darks' factor, the stack's units."""

    place: Place
    chosen: StackSettings
    prepared: dict[tuple[Any, ...], tuple[Path, float, str]]


def _watch(folder: Path, sensor: Any, night: _Setting, ticks: Iterator[bool], settled: float) -> Iterator[LiveLight]:
    """Look at the folder at every tick that may show something new, and add its lights."""
    live: LiveStack | None = None
    opened: OpenedFrames | None = None
    problem, waiting, said = "", False, set[tuple[str, str]]()
    try:
        for changed in ticks:
            if not (changed or waiting):
                continue
            waiting = False
            try:
                opened = open_frames(folder, sensor, replace(night.chosen, exclude=()), False, _done(live))
                live = live or _resumed(opened, night) or _begun(opened, night)
                problems = opened.set_aside
            except WorkbenchError as found:  # too few lights yet, or none with stars
                problem = str(found)
                opened, problems = None, [(str(folder), problem)]
            for name, reason in problems:
                path = folder / name
                if path.is_file() and time.time() - path.stat().st_mtime < settled:
                    waiting = True
                elif live and (name, reason) not in said:
                    said.add((name, reason))
                    yield _row(live, _Compared(name, math.nan, "", 0), time.perf_counter(), None, reason)
            if opened is None or live is None:
                continue
            for path in [path for path in opened.lights.paths if _is_new(path, live)]:
                if time.time() - path.stat().st_mtime < settled:
                    waiting = True
                    continue
                key = _key(path)
                live.rows.append(_add_light(live, opened, opened.lights.paths.index(path), night))
                live.looked[str(path)] = [key, int(live.rows[-1].used)]
                _write_results(live, night)
                yield live.rows[-1]
    finally:
        if live is not None:
            _keep(live, night.place)
    if live is None:
        raise WorkbenchError(f"{folder}: no stack was begun: {problem}")


def _is_new(path: Path, live: LiveStack) -> bool:
    """Whether a light has not been looked at; one that was not added is looked at again when it has changed."""
    found = live.looked.get(str(path))
    return found is None or not (found[1] or found[0] == _key(path))


def _done(live: LiveStack | None) -> set[Path]:
    """The lights that need not be opened again: all but the last, so that a long night takes no longer than a short."""
    if live is None:
        return set()
    looked = [Path(name) for name in live.looked][:-COMPARED]
    return {path for path in looked if path.exists() and not _is_new(path, live)}


def _begun(opened: OpenedFrames, night: _Setting) -> LiveStack:
    """Choose the reference among the last lights, and begin a stack on its grid; an error where none shows stars."""
    lights, wanted = opened.lights, night.chosen.reference
    excluded = night.chosen.excluded(lights.names, lights.paths)
    numbers = [number for number in range(len(lights.names)) if number not in excluded][-COMPARED:]
    numbers = numbers if wanted is None else [lights.number_of(str(wanted))]
    if wanted is None and len(numbers) < FIRST:
        raise WorkbenchError(f"there are {len(numbers)} lights; the reference is chosen from {FIRST} or more")
    surveys = [_survey(opened, number, night)[1] for number in numbers]
    some, unread = lights.of(numbers), {at: "cannot be read" for at, survey in enumerate(surveys) if survey is None}
    if len(unread) == len(surveys):
        raise WorkbenchError(f"none of {len(surveys)} lights can be read")
    found = register_frames(
        surveys, some.names, some.exposure, some.shape, sorts=some.sorts, kind=night.chosen.transform,
        reference=None if wanted is None else 0, unread=unread,
    )  # fmt: skip
    survey = surveys[found.reference]
    if survey is None:
        raise WorkbenchError(f"the reference {some.names[found.reference]} cannot be read")
    size = 1 if lights.cfa_pattern == "mono" else 2
    live = LiveStack(
        _identity(opened, night),
        empty_running((len(lights.channels), lights.shape[0] // size, lights.shape[1] // size)),
        np.array([float(np.nanmedian(plane)) for plane in survey.level]),
    )
    at = found.reference
    live.compared.append(_Compared(some.names[at], float(some.exposure[at]), some.sorts[at], _key(some.paths[at])))
    return live


def _identity(opened: OpenedFrames, night: _Setting) -> str:
    """What a stack that is gone on with must share: version, settings, and the lights' kind."""
    lights = opened.lights
    return digest(__version__, repr(night.chosen), opened.sensor, lights.shape, lights.cfa_pattern, lights.camera)


def _key(path: Path) -> int:
    """The number of a file as it is now, by its path, size and time of change; a light's survey is kept under it."""
    return int(digest(path)[:12], 16)


def _calibration(opened: OpenedFrames, number: int, night: _Setting) -> tuple[Path, float, str]:
    """Return a light's planes, its darks' factor and the units; masters are made for lights of a new kind."""
    lights, temperature = opened.lights, opened.frames.light["temperature"].values

    def kind(light: int) -> tuple[Any, ...]:
        return lights.sorts[light], float(lights.exposure[light]), str(np.round(temperature[light]))

    if kind(number) not in night.prepared:
        ready = prepare_masters(opened, night.chosen, night.place)
        for light, (group, factor) in enumerate(ready.group_of):
            night.prepared[kind(light)] = ready.planes[group], factor, ready.units
    return night.prepared[kind(number)]


def _survey(opened: OpenedFrames, number: int, night: _Setting) -> tuple[PlainPixels | None, FrameSurvey | None, str]:
    """Return where a light's pixels are and what its stars and background are, or the problem."""
    lights, work = opened.lights, night.place.work
    path, key = lights.paths[number], _key(lights.paths[number])
    planes, factor, _ = _calibration(opened, number, night)
    dtype = lights_type(opened)
    source = (path, *lights.changes[number])
    calibration = planes, factor, open_planes(planes).saturation
    pixels, problem = survey_light(source, work, key, calibration, lights.shape, lights.cfa_pattern, dtype)
    return pixels, None if problem else load_survey(work, key), problem


def _add_light(live: LiveStack, opened: OpenedFrames, number: int, night: _Setting) -> LiveLight:
    """Calibrate, check and align a light, and add it to the stack if nothing speaks against it."""
    begin = time.perf_counter()
    lights, chosen = opened.lights, night.chosen
    one = lights.of([number])
    mine = _Compared(one.names[0], float(one.exposure[0]), one.sorts[0], _key(one.paths[0]))
    pixels, survey, problem = _survey(opened, number, night)
    if survey is None or pixels is None:
        return _row(live, mine, begin, None, problem)
    reason = left_out(chosen, {0: survey}, one.names, one.paths, one.exposure, one.sorts).get(0, "")
    if reason:
        return _row(live, mine, begin, survey, reason)
    together = live.compared if mine == live.compared[0] else [*live.compared, mine]
    live.surveys = {one.key: live.surveys.get(one.key) or load_survey(night.place.work, one.key)
                    for one in together[: len(live.compared)]} | {mine.key: survey}  # fmt: skip
    found, reason = _aligned(live, together, lights.shape, chosen.transform)
    if found is None:
        return _row(live, mine, begin, survey, reason)
    last = len(found.matches) - 1
    norm = normalisation(found, order=chosen.background)
    surface = (norm["surface"][last] - norm["surface"][0]).values
    scale = float(norm["scale"][last])
    live.weights.append((norm["weight"][last] / norm["weight"][0]).values)
    planes, factor, _ = _calibration(opened, number, night)
    frame = PlannedFrame(mine.name, pixels, found.transform(last), scale, surface, np.ones(len(surface)), 0, factor)
    plan = StackPlan((frame,), (planes,), lights.shape, lights.cfa_pattern, "mean")
    add_light(live.running, plan, np.array(live.weights), live.level)
    if pixels.path.parent == night.place.work:
        pixels.path.unlink(missing_ok=True)
    live.compared[:] = [live.compared[0], *together[max(1, len(together) + 1 - COMPARED) :]]
    longer = mine.exposure / live.compared[0].exposure if live.compared[0].exposure > 0 else math.nan
    return _row(live, mine, begin, survey, transparency=1 / (scale * (longer if math.isfinite(longer) else 1.0)))


def _aligned(
    live: LiveStack, together: list[_Compared], shape: tuple[int, int], transform: str
) -> tuple[Registration | None, str]:
    """Return the registration of the last of some lights on the reference; None where it cannot be stacked, and why."""
    known = LightsKnown(np.array([one.exposure for one in together]), [one.sort for one in together])
    stars = {number: kept.stars for number, one in enumerate(together) if (kept := live.surveys[one.key])}
    reason = unlike_others(stars, [one.name for one in together], [known.group(number) for number in stars])
    if reason:
        return None, reason
    pair = [live.compared[0], *together[len(live.compared) :]]  # the others have been aligned before
    try:
        found = register_frames(
            [live.surveys[one.key] for one in pair], [one.name for one in pair],
            np.array([one.exposure for one in pair]), shape, reference=0, kind=transform,
            sorts=[one.sort for one in pair],
        )  # fmt: skip
    except WorkbenchError as failed:
        return None, str(failed)
    last = len(pair) - 1
    return (found, "") if last in found.used else (None, found.set_aside[last])


def _row(
    live: LiveStack, mine: _Compared, begin: float, survey: FrameSurvey | None, reason: str = "", *,
    transparency: float = math.nan,
) -> LiveLight:  # fmt: skip
    """What became of a light; the stack's noise is that before it."""
    before = next((row for row in reversed(live.rows) if row.used), None)
    frames, total, noise = (0, 0.0, {}) if before is None else (before.frames, before.total_exposure, before.noise)
    quality: dict[str, float] = dict.fromkeys(("stars", "fwhm", "roundness", "background"), math.nan)
    if survey is not None:
        table = quality_table([survey.stars], [mine.name])
        quality = {name: float(table[name][0]) for name in quality}
    if not reason:
        frames, total = frames + 1, total + mine.exposure
    return LiveLight(
        file=mine.name, exposure=mine.exposure, transparency=transparency, used=not reason, reason=reason,
        frames=frames, total_exposure=total, noise=noise, seconds=time.perf_counter() - begin, **quality,
    )  # fmt: skip


def _write_results(live: LiveStack, night: _Setting) -> None:
    """Write the picture and the table, and complete the last light's row with the noise and the time that it took."""
    row, begin, place = live.rows[-1], time.perf_counter(), night.place
    if row.used:
        signal, variance = running_mean(live.running, np.array(live.weights), live.level)
        names = ["mono"] if len(signal) == 1 else ["R", "G", "B"]
        noise = {n: float(np.sqrt(np.nanmedian(part[::3, ::3]))) for n, part in zip(names, variance, strict=True)}
        levels = pyramid(make_picture(signal), smallest=WIDEST // 4)
        shown = next((level for level in levels if level.sizes["x"] <= WIDEST), levels[-1])
        with contextlib.suppress(WorkbenchError):  # nothing but one level has no picture
            parameters = stretch_parameters(shown, _STRETCH, statistics=sky_statistics(shown, sample=SAMPLE))
            write_picture(apply_stretch(shown, parameters), place.out.with_name("live.png"), bits=8)
        live.rows[-1] = row._replace(noise=noise, seconds=row.seconds + time.perf_counter() - begin)
    columns = [one._asdict() | {f"noise_{name}": value for name, value in one.noise.items()} for one in live.rows]
    *_, (_, _, units) = night.prepared.values()
    with whole_file(place.out.with_name("lights.csv")) as part:
        pd.DataFrame(columns).drop(columns="noise").assign(units=units).to_csv(part, index=False)


def _keep(live: LiveStack, place: Place) -> None:
    """Keep the sums and what else the next run needs to go on."""
    about = {name: getattr(live, name) for name in ("identity", "compared", "rows", "looked")}
    arrays = live.running._asdict() | {"level": live.level, "weights": np.array(live.weights)}
    with aside(place.work / "sums.npz") as part:
        np.savez(part, about=np.array(json.dumps(about)), **arrays)


def _resumed(opened: OpenedFrames, night: _Setting) -> LiveStack | None:
    """Return the stack that an earlier run has kept; None where there is none of the same kind."""
    path = night.place.work / "sums.npz"
    if not path.is_file():
        return None
    with np.load(path) as kept:
        about = json.loads(str(kept["about"]))
        if about["identity"] != _identity(opened, night):
            return None
        live = LiveStack(about["identity"], RunningStack(*(kept[name] for name in RunningStack._fields)), kept["level"])
        live.weights.extend(kept["weights"])
    live.compared, live.rows = (
        [_Compared(*one) for one in about["compared"]],
        [LiveLight(*one) for one in about["rows"]],
    )
    live.looked.update(about["looked"])
    return live
