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
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import __version__
from ..align import NoMatchError, Transform, match_stars
from ..calibrate import MasterSet, make_masters
from ..errors import FrameReadError, WorkbenchError
from ..ingest import Folder, PlainPixels, open_folder, plain_pixels, read_frame
from ..results import is_simulated, open_sensor
from ..stack.engine import Engine, Plan, PlannedFrame, open_planes, save_planes, stack_bands
from ..stack.fits_out import Layout, create_file, finish_file, plan_layout, write_band
from ..stack.normalise import background_surfaces, frame_weights, star_ratio
from ..stack.reject import method_number
from ..stack.resample import mean_squared_weight, narrowing_for
from ..stack.survey import FrameSurvey, prepare_planes, survey_frame
from ..stars import choose_reference, poor_frames, quality_table

LEAST_TRANSPARENCY = 0.3  # of the reference; less and clouds cover too much
_CHI_HOLDS = (0.9, 1.1)  # within this the noise model describes the scatter between frames


@dataclass(frozen=True)
class Settings:
    """How to stack; what changes the result, and so belongs to an interrupted run's identity."""

    reference: str | None = None
    method: str = "noise"
    low: float | None = None
    high: float | None = None
    transform: str = "auto"
    background: int | str = "auto"
    seeing_weights: bool = False


@dataclass(frozen=True, eq=False)
class StackResult:
    """What a run made and from what: `path` of the stack, `frames` (one row a light), `set_aside`, `warnings`.

    `chi_square` a channel: the scatter between frames over the noise model's.  `plan` lists, for a dry run, what would
    be used for what.
    """

    path: Path | None
    frames: pd.DataFrame
    set_aside: list[tuple[str, str]]
    warnings: list[str]
    chi_square: dict[str, float] = field(default_factory=dict)
    reference: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    plan: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = list(self.plan)
        if self.path is not None:
            used = int(self.frames["used"].sum())
            lines.append(f"{self.path}: {used} of {len(self.frames)} lights stacked, reference {self.reference}")
            chi = ", ".join(f"{name} {value:.3f}" for name, value in self.chi_square.items())
            lines.append(f"scatter between frames over the noise model's (chi-square): {chi}")
            lines.append("time: " + ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items()))
        lines += [f"set aside: {name}: {reason}" for name, reason in self.set_aside]
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
    run = _Run(Path(folder), Path(out), settings, masters, scratch, threads, progress)
    run.open(sensor)
    if dry_run:
        return run.describe()
    with _workers(scheduler) as client:
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
        self.light = self.frames.light
        self.table = self.frames.table[self.frames.table["kind"] == "light"].reset_index(drop=True)
        self.names = [str(name) for name in self.light["filename"].values]
        self.paths = [Path(path) for path in self.table["path"]]
        self.shape = tuple(int(size) for size in self.light.shape[1:])
        self.cfa_pattern = self.light.attrs["cfa_pattern"]
        self.warnings += self.frames.warnings
        if len(self.names) < 2:
            raise WorkbenchError(
                f"{self.folder} has one light that can be used ({self.names[0]}): a stack needs at least two"
                + self._reasons()
            )

    def _reasons(self) -> str:
        return "".join(f"; set aside: {name}: {reason}" for name, reason in self.set_aside[:5])

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
        from ..calibrate import plan_groups

        cubes = self._calibration()
        law = math.nan if self.sensor is None else float(self.sensor.get("doubling_temperature", math.nan))
        groups = plan_groups(self.light, **cubes, doubling_temperature=law)
        lines = []
        for group in groups:
            counts = ", ".join(
                f"{len(getattr(group, kind))} {kind} frames"
                for kind in ("bias", "dark", "flat", "darkflat")
                if getattr(group, kind)
            )
            first = self.light.isel(frame=group.lights[0])
            lines.append(
                f"{len(group.lights)} lights (ISO {float(first.iso):g}, {float(first.exposure):g} s) "
                f"calibrated with {counts or 'nothing'}"
            )
            lines += [f"  {text}" for text in group.warnings]
        pixels = math.prod(self.shape)
        calibration = sum(
            len(self.frames.table[self.frames.table["kind"] == kind]) for kind in ("bias", "dark", "flat", "darkflat")
        )
        seconds = 4 + pixels / 16e6 * (0.09 * calibration + 0.5 * len(self.names))
        layout = plan_layout(self.out, (1 if self.cfa_pattern == "mono" else 3, *self.shape), len(self.names))
        packed = sum(plain_pixels(path) is None for path in self.paths)
        lines.append(f"about {seconds:.0f} s on two cores, once the compiled code is in its cache")
        lines.append(
            f"disk: {layout.total / 1e6:,.0f} MB for {self.out}, {(packed * pixels * 2 + 8 * pixels) / 1e6:,.0f} MB of "
            "working files until the end"
        )
        table = pd.DataFrame({"file": self.names, "used": True})
        return StackResult(None, table, self.set_aside, self.warnings, plan=tuple(lines))

    def _calibration(self) -> dict[str, xr.DataArray | None]:
        kinds = ("bias", "dark", "flat", "darkflat")
        return {kind: self.frames.cube(kind) if self.frames.has(kind) else None for kind in kinds}

    # -- the work ------------------------------------------------------------------------------------------------

    def work(self, client: Any) -> StackResult:
        with _folder_for(self.out):
            pass
        self._claim()
        try:
            with self._timed("masters"):
                self._make_masters()
            with self._timed("first pass"):
                surveys = self._survey(client)
            with self._timed("alignment"):
                plan, frames, about = self._plan(surveys)
            with self._timed("stack"):
                result = self._stack(plan, frames, about, client)
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
            _write_whole(marker, identity.encode())
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
                save_planes(prepare_planes(group.tables(), self.shape, float(np.median(factors))), path)
            self.planes.append(path)
        self.group_of: list[tuple[int, float]] = []
        for number in range(len(self.names)):
            one, factor = masters.of(self.light, number)
            self.group_of.append((masters.masters.index(one), float(factor)))
        self.noise = [group.noise for group in masters.masters]

    def _survey(self, client: Any) -> list[FrameSurvey | None]:
        (self.work_folder / "survey").mkdir(exist_ok=True)
        jobs = [
            (path, self.work_folder, number, self.planes[group], factor, self.shape)
            for number, (path, (group, factor)) in enumerate(zip(self.paths, self.group_of, strict=True))
        ]
        results: list[Any] = [None] * len(jobs)
        for number, (pixels, error) in _spread(
            _survey_one, jobs, client, self.threads, self.progress, "looking at lights", "frame"
        ):
            results[number] = pixels
            if error:
                self.set_aside.append((self.names[number], error))
        self.pixels: list[PlainPixels | None] = results
        return [
            _load_survey(self.work_folder, number) if pixels is not None else None
            for number, pixels in enumerate(results)
        ]

    def _plan(self, surveys: list[FrameSurvey | None]) -> tuple[Plan, pd.DataFrame, dict[str, Any]]:
        reasons = {number: reason for number, reason in enumerate(self._read_problems(surveys)) if reason}
        seen = [number for number, survey in enumerate(surveys) if survey is not None]
        if len(seen) < 2:
            raise WorkbenchError(
                f"{len(seen)} of {len(self.names)} lights can be read; a stack needs two" + self._reasons()
            )
        quality = quality_table([surveys[number].stars for number in seen], [self.names[number] for number in seen])
        wanted = self._wanted_reference()
        for place, reason in poor_frames(quality).items():
            if seen[place] != wanted:
                reasons[seen[place]] = reason
        usable = [place for place, number in enumerate(seen) if number not in reasons]
        if not usable:
            raise WorkbenchError(
                f"no light shows enough stars to be aligned: {self.names[seen[0]]}: {reasons.get(seen[0], 'no stars')}"
            )
        reference = wanted if wanted is not None else seen[choose_reference(quality, usable)]
        if surveys[reference] is None:
            raise WorkbenchError(f"{self.names[reference]}: the reference cannot be read: {reasons[reference]}")
        stars = surveys[reference].stars
        transforms: dict[int, Transform] = {}
        scales: dict[int, float] = {}
        columns: dict[str, dict[int, Any]] = {
            name: {} for name in ("stars_matched", "rms", "place_error", "rotation", "scale_error", "model")
        }
        exposures = self.light["exposure"].values.astype(float)
        for number in seen:
            if number in reasons:
                continue
            survey = surveys[number]
            try:
                match = match_stars(stars, survey.stars, kind=self.settings.transform)
            except NoMatchError as problem:
                reasons[number] = str(problem)
                continue
            ratio, error, count = star_ratio(stars, survey.stars, match)
            if number == reference:
                transforms[number], ratio, error = Transform.identity(), 1.0, 0.0
            else:
                transforms[number] = match.transform
            if not np.isfinite(ratio):
                ratio = exposures[reference] / exposures[number]
                if not np.isfinite(ratio):
                    reasons[number] = "too few stars to tell its transparency, and its exposure is not known"
                    continue
                self.warnings.append(
                    f"{self.names[number]}: {count} stars are bright enough to tell the transparency; "
                    "the exposure times do"
                )
            transparency = exposures[reference] / exposures[number] / ratio
            if np.isfinite(transparency) and transparency < LEAST_TRANSPARENCY:
                reasons[number] = f"clouds: only {100 * transparency:.0f} % of the reference's light comes through"
                continue
            scales[number] = ratio
            attrs = match.residuals.attrs
            for name, value in (
                ("stars_matched", int(match.reference_index.size)),
                ("rms", attrs["rms"]),
                ("place_error", attrs["place_error"]),
                ("rotation", transforms[number].rotation),
                ("scale_error", error),
                ("model", transforms[number].kind),
            ):
                columns[name][number] = value
        used = [number for number in seen if number not in reasons]
        self.set_aside += [(self.names[number], reasons[number]) for number in sorted(reasons) if number in seen]
        if len(used) < 2:
            raise WorkbenchError(
                f"only {len(used)} of {len(self.names)} lights can be stacked onto {self.names[reference]}; "
                "a stack needs two" + self._reasons()
            )
        if len(used) < 0.5 * len(self.names):
            self.warnings.append(f"only {len(used)} of {len(self.names)} lights were stacked; see what was set aside")
        chosen = [surveys[number] for number in used]
        ratio = [scales[number] for number in used]
        surfaces, _, level = background_surfaces(
            chosen, [transforms[n] for n in used], ratio, self.shape, order=self.settings.background
        )
        weights = frame_weights(chosen, ratio, seeing=self.settings.seeing_weights)
        frames = tuple(
            PlannedFrame(
                self.names[number],
                self.pixels[number],
                transforms[number],
                scales[number],
                surfaces[place],
                weights[place],
                *self.group_of[number],
            )
            for place, number in enumerate(used)
        )
        s = self.settings
        plan = Plan(frames, tuple(self.planes), self.shape, self.cfa_pattern, s.method, s.low, s.high)
        table = self._frame_table(quality, seen, used, reference, reasons, columns, scales, weights)
        about = {"reference": reference, "level": level.tolist()}
        return plan, table, about

    def _read_problems(self, surveys) -> list[str]:
        told = dict(self.set_aside)
        return [
            "" if survey is not None else told.get(name, "cannot be read")
            for survey, name in zip(surveys, self.names, strict=True)
        ]

    def _wanted_reference(self) -> int | None:
        wanted = self.settings.reference
        if wanted is None:
            return None
        found = [
            number
            for number, (path, name) in enumerate(zip(self.paths, self.names, strict=True))
            if wanted in (name, path.name, path.stem, str(path)) or (Path(wanted).exists() and path.samefile(wanted))
        ]
        if len(found) != 1:
            raise WorkbenchError(
                f"the reference {wanted!r} is {'none' if not found else 'more than one'} of the lights "
                f"(the first is {self.names[0]!r}); give the path or the name of one"
            )
        return found[0]

    def _frame_table(self, quality, seen, used, reference, reasons, columns, scales, weights) -> pd.DataFrame:
        count = len(self.names)
        table = pd.DataFrame({"file": self.names})
        table["used"] = [number in used for number in range(count)]
        table["reference"] = [number == reference for number in range(count)]
        table["reason"] = [reasons.get(number, "") for number in range(count)]
        table["exposure"] = self.light["exposure"].values.astype(float)
        table["iso"] = self.light["iso"].values.astype(float)
        for name in ("stars", "fwhm", "roundness", "background", "noise", "snr"):
            values = np.full(count, np.nan)
            values[seen] = quality[name].values
            table[name] = values
        exposure = table["exposure"].to_numpy()
        relative = exposure / exposure[reference]
        table["scale"] = [scales.get(number, np.nan) for number in range(count)]
        table["transparency"] = 1.0 / (table["scale"] * np.where(np.isfinite(relative), relative, 1.0))
        for place, channel in enumerate(self._channels()):
            values = np.zeros(count)
            values[used] = weights[:, place]
            table[f"weight_{channel}"] = values
        for name, values in columns.items():
            default = "" if name == "model" else (0 if name == "stars_matched" else np.nan)
            table[name] = [values.get(number, default) for number in range(count)]
        return table

    def _channels(self) -> tuple[str, ...]:
        return ("mono",) if self.cfa_pattern == "mono" else ("R", "G", "B")

    # -- the stack -----------------------------------------------------------------------------------------------

    def _stack(self, plan: Plan, frames: pd.DataFrame, about: dict[str, Any], client: Any) -> StackResult:
        part = self.out.parent / f".{self.out.name}.part"
        layout = plan_layout(part, (len(plan.channels), *plan.shape), len(plan.frames))
        journal = self.work_folder / "bands"
        digest = _digest(plan)
        done = _bands_done(journal, layout, digest)
        if not done:
            shutil.rmtree(journal, ignore_errors=True)
            journal.mkdir()
            create_file(layout)
            _write_whole(journal / "plan.json", digest.encode())
        missing = [number for number in range(plan.bands) if number not in done]
        with tqdm(
            total=plan.bands, initial=len(done), desc="stacking", unit="band", disable=not self.progress, leave=False
        ) as bar:

            def write(number: int, band) -> None:
                write_band(layout, band)
                _keep_chi(journal, number, band.chi)
                bar.update()

            if client is None:
                stack_bands(plan, write, missing, threads=self.threads)
            else:
                _stack_on(client, plan, layout, journal, missing, bar)
        chi = np.concatenate([np.load(journal / f"{number}.npy") for number in range(plan.bands)], axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            chi_map = np.where(chi[1] > 0, chi[0] / chi[1], np.nan)
            numbers = {
                name: float(values[0].sum() / values[1].sum()) if values[1].sum() else math.nan
                for name, values in zip(plan.channels, np.moveaxis(chi, 1, 0), strict=True)
            }
        if any(not _CHI_HOLDS[0] <= value <= _CHI_HOLDS[1] for value in numbers.values()):
            self.warnings.append(
                "the scatter between frames is not what the noise model says (chi-square "
                + ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())
                + "): check the gain and the read noise, or look for clouds and moving light; "
                "the variance is off by as much"
            )
        header_about, cards = self._header(plan, about, numbers)
        finish_file(layout, self.out, header_about, cards, chi_map, frames)
        reference = self.names[about["reference"]]
        return StackResult(self.out, frames, self.set_aside, list(dict.fromkeys(self.warnings)), numbers, reference)

    def _header(self, plan: Plan, about: dict[str, Any], chi: dict[str, float]):
        reference = about["reference"]
        exposure = self.light["exposure"].values.astype(float)
        camera = str(self.light.attrs["camera"])
        group, _ = self.group_of[reference]
        noise = self.noise[group]
        used = [self.names.index(frame.name) for frame in plan.frames]
        low, high = plan.thresholds
        cards: dict[str, tuple[Any, str]] = {
            "CHANNELS": (",".join(plan.channels), "along axis 3"),
            "INSTRUME": (_plain(camera), "camera"),
            "REFFRAME": (_plain(self.names[reference]), "its pixel grid and exposure"),
            "EXPTIME": (_number(exposure[reference]), "[s] of the reference, to which all is scaled"),
            "TOTALEXP": (_number(exposure[used].sum()), "[s] of all frames stacked"),
            "NFRAMES": (len(used), "frames stacked"),
            "NLIGHTS": (len(self.names), "lights found"),
            "REJECT": (plan.method, "rejection method"),
            "REJLOW": (_number(low), "its lower threshold"),
            "REJHIGH": (_number(high), "its upper threshold"),
            "SIMULATE": (bool(is_simulated(camera)), "made by a virtual camera"),
        }
        names = {1: ("mono",), 4: ("R", "G1", "G2", "B")}
        for kind, values in (("EGAIN", noise.gain), ("RDNOIS", noise.read_noise)):
            unit = "[e-/ADU] gain used" if kind == "EGAIN" else "[e-] read noise used"
            for name, value in zip(names[len(values)], values, strict=True):
                cards[f"{kind}{'' if name == 'mono' else name}"[:8]] = (value, unit)
        kernel = mean_squared_weight(narrowing_for(self.cfa_pattern))
        for place, name in enumerate(plan.channels):
            share = {"R": 0.25, "G": 0.5, "B": 0.25, "mono": 1.0}[name]
            letter = name[0].upper()
            cards[f"PIXVAR_{letter}"] = (share * kernel, "variance of one pixel over VARIANCE")
            cards[f"CHI2_{letter}"] = (_number(chi[name]), "scatter between frames over the model's")
            cards[f"BACKGR_{letter}"] = (_number(about["level"][place]), "[electron] mean background left in")
        attributes: dict[str, Any] = {
            "camera": camera,
            "exposure": _number(exposure[reference]),
            "frame_count": len(used),
            "reference": self.names[reference],
            "rejection": plan.method,
            "gain": list(noise.gain),
            "read_noise": list(noise.read_noise),
            "pixel_variance_share": {n: cards[f"PIXVAR_{n[0].upper()}"][0] for n in plan.channels},
            "chi_square": {name: _number(value) for name, value in chi.items()},
        }
        colours = _camera_colours(self.paths[reference])
        if colours is not None and len(plan.channels) == 3:
            attributes |= colours
            for index, value in enumerate(colours["color_matrix"]):
                cards[f"CMAT{index // 3 + 1}_{index % 3 + 1}"] = (value, "XYZ (D65) to camera")
            for name, value in zip("RGB", colours["daylight_multipliers"], strict=True):
                cards[f"DAYMUL_{name}"] = (value, "daylight white balance")
        history = [
            f"{len(used)} lights of {len(self.names)} calibrated, aligned to {self.names[reference]}, "
            "resampled once (Lanczos-3)",
            f"rejection: {plan.method} ({low:g}, {high:g}); weights from the measured noise",
            f"gain and read noise: {noise.source}",
            *self.notes,
            *dict.fromkeys(self.warnings),
            *(f"set aside: {name}: {reason}" for name, reason in self.set_aside),
        ]
        return {
            "program": f"astrophoto-workbench {__version__}",
            "units": "electron",
            "stage": "stacked",
            "history": history,
            "attributes": attributes,
        }, cards


def _sort_of(camera: str, height: int, width: int, cfa_pattern: str) -> str:
    return f"{camera or 'an unnamed camera'}, {width} x {height} {cfa_pattern}"


# -- one light, one band: plain functions that any process can run ---------------------------------------------------


def _survey_one(path: Path, work: Path, number: int, planes: Path, factor: float, shape: tuple[int, int]):
    """Survey a light and keep what was found; returns where its pixels can be read in place, or the problem."""
    kept = work / "survey" / f"{number}.npz"
    scratch = work / f"light-{number}.raw"
    try:
        pixels = plain_pixels(path)
        raw = None
        if pixels is None:
            pixels = PlainPixels(scratch, 0, "<u2", shape)
            size = scratch.stat().st_size if scratch.exists() else 0
            if size not in (math.prod(shape) * 2, math.prod(shape) * 4):
                raw = read_frame(path)
                if raw.dtype != np.uint16:
                    pixels = PlainPixels(scratch, 0, "<f4", shape)
                    raw = raw.astype(np.float32)
                _require_shape(path, raw.shape, shape)
                _write_whole(scratch, np.ascontiguousarray(raw).astype(pixels.stored, copy=False).tobytes())
            elif size == math.prod(shape) * 4:
                pixels = PlainPixels(scratch, 0, "<f4", shape)
        elif np.dtype(pixels.stored).itemsize not in (2, 4) or np.dtype(pixels.stored).newbyteorder("=") not in (
            np.uint16, np.int16, np.float32,
        ):  # fmt: skip
            raw = read_frame(path)
            pixels = PlainPixels(scratch, 0, "<f4" if raw.dtype.kind == "f" else "<u2", shape)
            _write_whole(scratch, raw.astype(pixels.stored).tobytes())
        if _load_survey(work, number) is None:
            raw = pixels.read() if raw is None else raw
            _require_shape(path, raw.shape, shape)
            survey = survey_frame(raw, open_planes(planes), factor)
            _save_survey(kept, survey)
    except FrameReadError as problem:
        return None, problem.problem
    except WorkbenchError as problem:
        return None, str(problem)
    except OSError as problem:
        if problem.errno == 28:
            raise WorkbenchError(f"{work}: the disk is full; make room, or give --scratch another place") from problem
        return None, f"cannot be read: {problem.strerror or problem}"
    return pixels, ""


def _require_shape(path: Path, found: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if tuple(found) != tuple(wanted):
        raise FrameReadError(
            path, f"has {found[1]} x {found[0]} pixels where the others have {wanted[1]} x {wanted[0]}"
        )


def _save_survey(path: Path, survey: FrameSurvey) -> None:
    aside = path.with_name(f".{path.stem}.part.npz")
    stars = {f"star_{name}": survey.stars[name].values for name in survey.stars}
    np.savez(aside, level=survey.level, noise=survey.noise, attrs=json.dumps(survey.stars.attrs), **stars)
    os.replace(aside, path)


def _load_survey(work: Path, number: int) -> FrameSurvey | None:
    path = work / "survey" / f"{number}.npz"
    if not path.exists():
        return None
    with np.load(path) as kept:
        stars = {name[5:]: ("star", kept[name]) for name in kept.files if name.startswith("star_")}
        attrs = json.loads(str(kept["attrs"]))
        return FrameSurvey(xr.Dataset(stars, attrs=attrs), kept["level"], kept["noise"])


def _write_whole(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.part")
    with open(aside, "wb") as file:
        file.write(data)
    os.replace(aside, path)


def _digest(plan: Plan) -> str:
    frames = [
        [f.name, f.transform.to_dict(), f.scale, f.level.tolist(), f.weight.tolist(), f.group, f.factor]
        for f in plan.frames
    ]
    text = json.dumps([frames, plan.shape, plan.cfa_pattern, plan.method, plan.thresholds])
    return hashlib.sha256(text.encode()).hexdigest()


def _bands_done(journal: Path, layout: Layout, digest: str) -> set[int]:
    """Bands that an interrupted run has finished: their chi-square file is written after their pixels are."""
    marker = journal / "plan.json"
    whole = layout.path.is_file() and layout.path.stat().st_size == layout.total
    if not (whole and marker.is_file() and marker.read_text() == digest):
        return set()
    return {int(path.stem) for path in journal.glob("[0-9]*.npy")}


def _keep_chi(journal: Path, number: int, chi: np.ndarray) -> None:
    aside = journal / f".{number}.part.npy"
    np.save(aside, chi)
    os.replace(aside, journal / f"{number}.npy")


_ENGINES: dict[str, tuple[Engine, dict]] = {}


def _band_on_worker(plan: Plan, digest: str, layout: Layout, journal: Path, number: int) -> int:
    """Work off one band in a worker process and write it to the shared file."""
    if digest not in _ENGINES:
        _ENGINES.clear()
        _ENGINES[digest] = (Engine(plan), {})
    engine, memory = _ENGINES[digest]
    band = engine.band(number, memory)
    write_band(layout, band)
    _keep_chi(journal, number, band.chi)
    return number


def _stack_on(client: Any, plan: Plan, layout: Layout, journal: Path, missing: list[int], bar: tqdm) -> None:
    from dask.distributed import as_completed

    digest = _digest(plan)
    shared = client.scatter(plan, broadcast=True)
    futures = [
        client.submit(_band_on_worker, shared, digest, layout, journal.absolute(), number, pure=False, retries=3)
        for number in missing
    ]
    for future in as_completed(futures):
        future.result()
        bar.update()


def _spread(
    task: Callable, jobs: list[tuple], client: Any, threads: int, progress: bool, what: str, unit: str
) -> Iterator[tuple[int, Any]]:
    """Run a task on each job, on threads here or on a cluster; yields (number, result) as they come."""
    with tqdm(total=len(jobs), desc=what, unit=unit, disable=not progress, leave=False) as bar:
        if client is not None:
            from dask.distributed import as_completed

            futures = {client.submit(task, *job, pure=False, retries=3): number for number, job in enumerate(jobs)}
            for future in as_completed(futures):
                yield futures[future], future.result()
                bar.update()
            return
        with ThreadPoolExecutor(threads) as pool:
            running = {pool.submit(task, *job): number for number, job in enumerate(jobs)}
            try:
                left = set(running)
                while left:
                    done, left = wait(left, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running[future], future.result()
                        bar.update()
            except BaseException:
                for future in running:
                    future.cancel()
                raise


@contextlib.contextmanager
def _workers(scheduler: Any) -> Iterator[Any]:
    """A dask client for an address, the client that was given, or None for this machine's threads."""
    if scheduler is None:
        yield None
        return
    from dask.distributed import Client

    if isinstance(scheduler, Client):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, ValueError) as problem:
        raise WorkbenchError(f"no dask scheduler answers at {scheduler!r} ({problem}); check the address") from problem
    with client:
        yield client


@contextlib.contextmanager
def _folder_for(out: Path) -> Iterator[None]:
    """Check that the output can be written before an hour's work goes into it."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise WorkbenchError(f"{out} is a folder; give the name of the FITS file to write")
        probe = out.parent / f".{out.name}.probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as problem:
        raise WorkbenchError(
            f"{out.parent}: cannot be written to ({problem.strerror or problem}); choose another --out"
        ) from problem
    yield


def _camera_colours(path: Path) -> dict[str, Any] | None:
    """The camera's colour matrix (XYZ to camera) and daylight multipliers, where its RAW file tells them."""
    if path.suffix.lower() in (".fits", ".fit", ".fts", ".pgm", ".gz", ".fz"):
        return None
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            matrix = np.asarray(raw.rgb_xyz_matrix, float)[:3]
            multipliers = np.asarray(raw.daylight_whitebalance, float)[:3]
    except rawpy.LibRawError:
        return None
    if not np.any(matrix) or not np.all(multipliers > 0):
        return None
    return {
        "color_matrix": [float(value) for value in matrix.ravel()],
        "daylight_multipliers": [float(value) for value in multipliers / multipliers[1]],
    }


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
