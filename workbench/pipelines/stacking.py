"""A folder of lights and calibration frames in, a linear stack with its variance out.

The work goes through stages, each of which leaves its results in a working folder beside the output: a run that was
interrupted goes on where it stopped.  A result counts only when its file is whole and belongs to the same frames and
settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from ..align.transform import KINDS
from ..calibrate.masterset import MasterSet, make_masters
from ..core.errors import WorkbenchError, said_of
from ..core.files import check_target
from ..core.sensor_file import open_sensor
from ..ingest.catalogue import Folder, open_folder
from ..ingest.plain import PlainPixels
from ..stack.engine import Plan, save_planes, stack_bands
from ..stack.fits_out import create_file, finish_stack, plan_layout, write_band
from ..stack.reject import method_number
from ..stack.survey import FrameSurvey, prepare_planes
from .stack_files import bands_done, keep_chi, load_survey, plan_digest, write_whole
from .stack_forecast import foretell
from .stack_header import stack_header
from .stack_jobs import spread, stack_on, survey_one, workers
from .stack_plan import Aligned, Lights, Settings, align_lights, frame_table, plan_stack

_CHI_HOLDS = (0.9, 1.1)  # within this the noise model describes the scatter between frames


@dataclass(frozen=True, eq=False)
class StackResult:
    """What a run made and from what: `path` of the stack, `frames` (one row a light), `set_aside`, `warnings`.

    `chi_square` a channel: the scatter between frames over the noise model's.  `plan` lists, for a dry run, what would
    be used for what.  `units` of the stack: ``electron``, or ``adu`` where nothing told the gain.
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
            relative = "" if self.units == "electron" else "; the gain is not known, so only its changes tell something"
            lines.append(f"scatter between frames over the noise model's (chi-square): {chi}{relative}")
            lines.append("time: " + ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items()))
        lines += [f"set aside: {said_of(name, reason)}" for name, reason in self.set_aside]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def stack_folder(
    folder: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    sensor: str | Path | xr.Dataset | None = None,
    masters: str | Path | None = None,
    method: str = "noise",
    low: float | None = None,
    high: float | None = None,
    transform: str = "auto",
    background: int | str = "auto",
    seeing_weights: bool = False,
    scratch: str | Path | None = None,
    dry_run: bool = False,
    scheduler: Any = None,
    threads: int = 2,
    progress: bool = True,
) -> StackResult:
    """Stack the lights of a folder with its bias, darks and flats, and write the stack with its variance.

    Parameters
    ----------
    folder
        Frames in folders named bias, dark, flat, light (any depth), or with a manifest ``frames.csv``.
    out
        The FITS file (see `workbench.stack.fits_out`).
    reference
        Path or name of the light on whose pixel grid and exposure the stack is; else the best.
    sensor
        A ``sensor.json``, or what `open_sensor` gives; else gain and read noise come from the calibration frames.
    masters
        A folder where masters are kept and used again.
    method, low, high
        Rejection (`workbench.stack.METHODS`) and its thresholds.
    transform
        ``auto`` or one of `workbench.align.KINDS`.
    background
        Order of the surface by which frames' backgrounds are matched: 1, 2 or ``auto``.
    seeing_weights
        Let sharp frames count for more.
    scratch
        Folder for the working files, beside the output by default.  It is removed at the end; after an
        interruption it stays, and the same call goes on from it.
    dry_run
        Only say what would be used for what, how long it may take and how much disk.
    scheduler
        Address of a dask scheduler, or a ``Client``: its workers, who must see the same files, do the work.
    threads
        On this machine.

    Raises
    ------
    WorkbenchError
        If there are no lights, none that match, or the output cannot be written; the message says what to do.
    """
    settings = Settings(
        None if reference is None else str(reference), method, low, high, transform, background, seeing_weights
    )
    method_number(method)
    if transform not in ("auto", *KINDS):
        raise WorkbenchError(f"transform {transform!r} is none of auto, {', '.join(KINDS)}")
    check_target(out, "FITS file")
    run = _Run(Path(folder), Path(out), settings, masters, scratch, threads, progress)
    run.open(sensor)
    if dry_run:
        return run.describe()
    with workers(scheduler) as client:
        return run.work(client)


class _Run:
    """One run: its stages in order, what they found, and where they keep it."""

    def __init__(self, folder, out, settings, masters, scratch, threads, progress) -> None:
        self.folder, self.out, self.settings = folder, out, settings
        self.masters_folder = None if masters is None else Path(masters)
        self.work_folder = (out.parent if scratch is None else Path(scratch)) / f".{out.name}.work"
        self.threads, self.progress = threads, progress
        self.set_aside: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    # -- what there is -------------------------------------------------------------------------------------------

    def open(self, sensor: Any) -> None:
        self.frames: Folder = open_folder(self.folder, progress=self.progress)
        self.set_aside += [(str(path), reason) for path, reason in self.frames.set_aside]
        if not self.frames.has("light"):
            _ = self.frames.light  # raises with what is there and what to do
        self.sensor = open_sensor(sensor) if isinstance(sensor, (str, Path)) else sensor
        self._sort_lights()
        light = self.light = self.frames.light
        table = self.frames.table
        self.lights = Lights(
            names=tuple(str(name) for name in light["filename"].values),
            paths=tuple(Path(path) for path in table.loc[table["kind"] == "light", "path"]),
            exposure=light["exposure"].values.astype(float),
            iso=light["iso"].values.astype(float),
            shape=tuple(int(size) for size in light.shape[1:]),
            cfa_pattern=light.attrs["cfa_pattern"],
            camera=str(light.attrs["camera"]),
        )
        self.warnings += self.frames.warnings
        if len(self.lights.names) < 2:
            raise WorkbenchError(
                f"{self.folder} has one light that can be used ({self.lights.names[0]}): a stack needs at least two"
                + self._reasons()
            )

    def _reasons(self) -> str:
        return "".join(f"; set aside: {said_of(name, reason)}" for name, reason in self.set_aside[:5])

    def _sort_lights(self) -> None:
        """Keep the lights of the camera, size and mosaic that most have; set the others aside."""
        table = self.frames.table
        lights = table[table["kind"] == "light"]
        key = ["camera", "height", "width", "cfa_pattern"]
        groups = lights.groupby(key, dropna=False, sort=True).size()
        if len(groups) < 2:
            return
        most = groups.idxmax()
        other = lights[(lights[key] != pd.Series(dict(zip(key, most, strict=True)))).any(axis=1)]
        for _, row in other.iterrows():
            self.set_aside.append(
                (
                    row["file"],
                    f"is of {_sort_of(row['camera'], row['height'], row['width'], row['cfa_pattern'])}; "
                    f"most lights are of {_sort_of(*most)}",
                )
            )
        keep = table.drop(index=other.index)
        same = (keep[key[:3]] == pd.Series(dict(zip(key[:3], most[:3], strict=True)))).all(axis=1)
        for _, row in keep[~same].iterrows():
            self.set_aside.append((row["file"], "belongs to the camera of the lights that were set aside"))
        self.frames = Folder(keep[same], self.frames.root, [], self.frames.findings)

    def describe(self) -> StackResult:
        """Say what would be used for what."""
        lines = foretell(self.frames, self.light, self.lights, self._calibration(), self.sensor, self.out)
        table = pd.DataFrame({"file": list(self.lights.names), "used": True})
        return StackResult(None, table, self.set_aside, self.warnings, plan=tuple(lines))

    def _calibration(self) -> dict[str, xr.DataArray | None]:
        kinds = ("bias", "dark", "flat", "darkflat")
        return {kind: self.frames.cube(kind) if self.frames.has(kind) else None for kind in kinds}

    # -- the work ------------------------------------------------------------------------------------------------

    def work(self, client: Any) -> StackResult:
        self._claim()
        try:
            with self._timed("masters"):
                self._make_masters()
            with self._timed("first pass"):
                surveys = self._survey(client)
            with self._timed("alignment"):
                plan, aligned = self._plan(surveys)
            with self._timed("stack"):
                result = self._stack(plan, aligned, client)
            result = replace(result, seconds=dict(self.seconds))
        except KeyboardInterrupt:
            raise WorkbenchError(
                f"stopped; the same command goes on from here (working files in {self.work_folder}; "
                "delete it to start anew)"
            ) from None
        except OSError as problem:
            raise WorkbenchError(
                f"{problem.filename or self.work_folder}: {problem.strerror or problem}; make room or give --scratch "
                "another place, then the same command goes on from here"
            ) from problem
        shutil.rmtree(self.work_folder, ignore_errors=True)
        return result

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - begin

    def _identity(self) -> str:
        """A digest of frames (name, size, time), settings and version: the same means the same result."""
        files = []
        for path in self.frames.table["path"]:
            stat = Path(path).stat()
            files.append([str(path), stat.st_size, stat.st_mtime_ns])
        table = self.frames.table.drop(columns=["path"], errors="ignore").astype(str).to_dict("list")
        sensor = None if self.sensor is None else self.sensor.to_dict()
        text = json.dumps([__version__, files, table, asdict(self.settings), sensor], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _claim(self) -> None:
        """Take the working folder: go on from it if it is of the same run, else start anew."""
        identity = self._identity()
        marker = self.work_folder / "run.json"
        try:
            if self.work_folder.exists():
                if marker.is_file() and marker.read_text() == identity:
                    self.notes.append("continued after an interruption")
                    return
                shutil.rmtree(self.work_folder)
            self.work_folder.mkdir(parents=True)
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(marker, identity.encode())
        except OSError as problem:
            raise WorkbenchError(
                f"{self.work_folder}: cannot be written ({problem.strerror or problem}); "
                "choose another place with --scratch"
            ) from problem

    def _make_masters(self) -> None:
        try:
            masters: MasterSet = make_masters(
                self.light,
                **self._calibration(),
                sensor=self.sensor,
                folder=self.masters_folder or self.work_folder / "masters",
                scratch=self.work_folder,
                progress=self.progress,
            )
        except OSError as problem:
            raise WorkbenchError(
                f"{self.work_folder}: {problem.strerror or problem}; make room, or give --scratch"
            ) from problem
        self.warnings += masters.warnings
        self.planes: list[Path] = []
        for number, group in enumerate(masters.masters):
            path = self.work_folder / f"planes-{number}"
            if not (path / "white.npy").exists():
                factors = group.group.factors or (1.0,)
                save_planes(prepare_planes(group.tables(), self.lights.shape, float(np.median(factors))), path)
            self.planes.append(path)
        self.group_of: list[tuple[int, float]] = []
        for number in range(len(self.lights.names)):
            one, factor = masters.of(self.light, number)
            self.group_of.append((masters.masters.index(one), float(factor)))
        self.noise = [group.noise for group in masters.masters]
        self.units = "electron" if all(noise.known for noise in self.noise) else "adu"

    def _survey(self, client: Any) -> list[FrameSurvey | None]:
        (self.work_folder / "survey").mkdir(exist_ok=True)
        dtype = np.dtype(np.uint16 if self.light.dtype == np.uint16 else np.float32)
        jobs = [
            (path, self.work_folder, number, self.planes[group], factor, self.lights.shape, dtype)
            for number, (path, (group, factor)) in enumerate(zip(self.lights.paths, self.group_of, strict=True))
        ]
        results: list[Any] = [None] * len(jobs)
        for number, (pixels, error) in spread(
            survey_one, jobs, client, self.threads, self.progress, "looking at lights", "frame"
        ):
            results[number] = pixels
            if error:
                self.set_aside.append((self.lights.names[number], error))
        self.pixels: list[PlainPixels | None] = results
        return [
            load_survey(self.work_folder, number) if pixels is not None else None
            for number, pixels in enumerate(results)
        ]

    def _plan(self, surveys: list[FrameSurvey | None]) -> tuple[Plan, Aligned]:
        lights, told = self.lights, dict(self.set_aside)
        unread = {
            number: told.get(name, "cannot be read")
            for number, (name, survey) in enumerate(zip(lights.names, surveys, strict=True))
            if survey is None
        }
        aligned = align_lights(lights, surveys, self.settings, unread)
        self.warnings += aligned.warnings
        self.set_aside += [
            (lights.names[number], why) for number, why in sorted(aligned.reasons.items()) if number in aligned.seen
        ]
        count = len(aligned.used)
        if count < 2:
            raise WorkbenchError(
                f"only {count} of {len(lights.names)} lights can be stacked onto {lights.names[aligned.reference]}; "
                "a stack needs two" + self._reasons()
            )
        if count < 0.5 * len(lights.names):
            self.warnings.append(f"only {count} of {len(lights.names)} lights were stacked; see what was set aside")
        plan = plan_stack(lights, aligned, surveys, self.pixels, self.group_of, self.planes, self.settings)
        return plan, aligned

    # -- the stack -----------------------------------------------------------------------------------------------

    def _stack(self, plan: Plan, aligned: Aligned, client: Any) -> StackResult:
        part = self.out.parent / f".{self.out.name}.part"
        layout = plan_layout(part, (len(plan.channels), *plan.shape), len(plan.frames), self.units)
        journal = self.work_folder / "bands"
        digest = plan_digest(plan)
        done = bands_done(journal, layout, digest)
        if not done:
            shutil.rmtree(journal, ignore_errors=True)
            journal.mkdir()
            create_file(layout)
            write_whole(journal / "plan.json", digest.encode())
        missing = [number for number in range(plan.bands) if number not in done]
        with tqdm(
            total=plan.bands, initial=len(done), desc="stacking", unit="band", disable=not self.progress, leave=False
        ) as bar:

            def write(number: int, band) -> None:
                write_band(layout, band)
                keep_chi(journal, number, band.chi)
                bar.update()

            if client is None:
                stack_bands(plan, write, missing, threads=self.threads)
            else:
                stack_on(client, plan, layout, journal, missing, bar)
        chi = np.concatenate([np.load(journal / f"{number}.npy") for number in range(plan.bands)], axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            chi_map = np.where(chi[1] > 0, chi[0] / chi[1], np.nan)
            numbers = {
                name: float(values[0].sum() / values[1].sum()) if values[1].sum() else math.nan
                for name, values in zip(plan.channels, np.moveaxis(chi, 1, 0), strict=True)
            }
        known = self.units == "electron"
        if known and any(not _CHI_HOLDS[0] <= value <= _CHI_HOLDS[1] for value in numbers.values()):
            self.warnings.append(
                "the scatter between frames is not what the noise model says (chi-square "
                + ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())
                + "): check the gain and the read noise, or look for clouds and moving light; "
                "the variance is off by as much"
            )
        frames = frame_table(self.lights, aligned)
        remarks = [*self.notes, *dict.fromkeys(self.warnings)]
        remarks += [f"set aside: {said_of(name, reason)}" for name, reason in self.set_aside]
        group, _ = self.group_of[aligned.reference]
        header, cards = stack_header(self.lights, plan, self.noise[group], aligned, numbers, remarks)
        finish_stack(layout, self.out, header, cards, chi_map, frames)
        reference = self.lights.names[aligned.reference]
        warnings = list(dict.fromkeys(self.warnings))
        return StackResult(self.out, frames, self.set_aside, warnings, numbers, reference, units=self.units)


def _sort_of(camera: str, height: int, width: int, cfa_pattern: str) -> str:
    return f"{camera or 'an unnamed camera'}, {width} x {height} {cfa_pattern}"
