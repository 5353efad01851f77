"""A folder of lights and calibration frames in, a linear stack with its variance out.

Stacking has six stages, each a function: open the frames, make the masters, look at every light, register them, plan,
stack.  Lights of several filters share the first three and the pixel grid, and give a stack each.  Each stage leaves
its results in a working folder next to the output, so that a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..align.hints import known_of
from ..align.panels import panel_lines
from ..core.errors import WorkbenchError, said_of_all
from ..core.files import check_target, fingerprints, remove_folder, require_unchanged, whole_file
from ..core.fits_cards import observation, wcs_cards
from ..core.parallel import in_background, machine_share
from ..core.values import unit_text
from ..ingest.reader import read_header
from ..stack import fits_out
from ..stack.settings import StackSettings
from ..stars.survey import QUALITY, quality_table
from .calibration_checks import flat_doubts, scatter_doubts
from .stack_comet import comet_stacks
from .stack_filters import (
    FilterRun,
    Stacked,
    claimed,
    comet_files,
    drizzled,
    filter_runs,
    finer_pixels,
    layout_of,
    on_sky,
    plan_stack,
    register_filters,
    solve_layout,
    stack_files,
    with_noise_doubts,
    write_stack,
)
from .stack_inputs import (
    OpenedFrames,
    Place,
    forecast,
    open_frames,
    prepare_masters,
    register_lights,
    run_identity,
)
from .stack_outputs import (
    claim_folder,
    frame_table,
    stack_header,
    workers,
)
from .stack_survey import lights_kept, survey_lights

GRADES = ("file", "filter", "exposure", *QUALITY, "transparency", "used", "reason")  # columns of `grade_lights`


@dataclass(frozen=True, eq=False)
class StackResult:
    """What a run made and from what: `path` of the stack, `frames` (one row a light), `set_aside`, `warnings`.

    `chi_square` a channel: the scatter between frames over the noise model's.  `plan` lists what is used for what, and
    for a dry run how long it would take.  `units` of the stack: ``electron``, or ``adu`` where the gain is not known.

    `stacks`: of lights of several filters, the result of each by the filter's name; then `path` is None, `grid` the
    frame whose pixel grid all have, and `set_aside` and `warnings` hold what concerns no filter alone.

    `comet`: by its path, each stack on a comet and each composed of both.
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
    grid: str = ""
    stacks: dict[str, StackResult] = field(default_factory=dict)
    comet: dict[Path, StackResult] = field(default_factory=dict)

    def __repr__(self) -> str:
        lines = list(self.plan)
        if self.stacks:
            lines.append(f"a stack for each of {len(self.stacks)} filters, on the pixel grid of {self.grid}")
        for name, one in self.stacks.items():
            lines += [name, *(f"  {line}" for line in repr(one).splitlines())]
        if self.path is not None:
            used = int(self.frames["used"].sum())
            gone = f", {len(self.set_aside)} set aside" if self.set_aside else ""
            lines.append(f"{self.path}: {used} of {len(self.frames)} lights stacked{gone}, reference {self.reference}")
            chi = ", ".join(f"{name} {value:.3f}" for name, value in self.chi_square.items())
            relative = "" if self.units == "electron" else "; the gain is not known, so only its changes mean something"
            lines.append(f"scatter between frames over the noise model's (chi-square): {chi}{relative}")
        lines += [f"{path}: {one.plan[0]}" for path, one in self.comet.items()]
        if self.seconds:
            lines.append("time: " + ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items()))
        lines += [f"set aside: {sentence}" for sentence in said_of_all(self.set_aside)]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)


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

    Lights of several filters give a stack for each, ``stack_Ha.fits`` for ``stack.fits`` and so on, all on one pixel
    grid; transparency, quality and the exposure that all is scaled to are each filter's own.  With a `comet` there are
    ``stack-comet.fits`` and ``stack-comet-and-stars.fits`` next to it.

    Parameters
    ----------
    folder
        Frames in folders named bias, dark, flat, light (any depth), or with a manifest ``frames.csv``.
    out
        The FITS file (see `workbench.stack.fits_out`).
    sensor
        A ``sensor.json``, or what `open_sensor` gives; else gain and read noise come from the calibration frames.
    masters
        A folder where masters are kept and used again; without one none is written.
    scratch
        Folder for the working files, next to the output by default.  It is removed at the end; after an
        interruption it stays, and the same call goes on from it.
    dry_run
        Only list what would be used for what, how long it may take and how much disk.
    scheduler
        Address of a dask scheduler, or a ``Client``: its workers, who must see the same files, do the work.
    settings
        Those of `StackSettings`: reference, method, low, high, framing, transform, background, seeing_weights, filter,
        scale, pixfrac, scale_darks, comet, site; exclude, keep, max_fwhm, min_roundness, max_background, min_stars;
        ``threads`` and ``memory`` (see `core.parallel.machine_share`) and ``progress`` (True) for progress bars.

    Raises
    ------
    WorkbenchError
        If no light is found or none matches, or the output cannot be written; the message says what to do.
    """
    progress, share = settings.pop("progress", True), [settings.pop(name, None) for name in ("threads", "memory")]
    chosen = StackSettings(**settings)
    check_target(out, "FITS file")
    out = Path(out)
    work = (out.parent if scratch is None else Path(scratch)) / f".{out.name}.work"
    place = Place(out, work, None if masters is None else Path(masters), progress)
    opened = open_frames(Path(folder), sensor, chosen, progress)
    if chosen.reference is not None:
        opened.lights.number_of(str(chosen.reference))
    files = stack_files(opened.lights, out)
    given = [path for path in (sensor,) if isinstance(path, (str, Path))]
    outputs = [*files.values(), *(path for of in files.values() if chosen.comet for path in comet_files(of))]
    kept = [] if place.masters is None else [place.masters / "master.fits"]
    for path in [*outputs, *kept, work.with_name(".working")]:
        check_target(path, "FITS file", inputs=given, frames=opened.frames.paths)
    if dry_run:
        lines = forecast(opened, files, chosen.drop)
        if chosen.comet:
            names = ", ".join(path.name for of in files.values() for path in comet_files(of))
            lines.append(f"comet: {names} too; stacking takes some five times as long, working files hold every light")
        excluded = chosen.excluded(opened.lights.names, opened.lights.paths)
        table = pd.DataFrame({"file": list(opened.lights.names), "used": True})
        table.loc[list(excluded), "used"] = False
        opened.set_aside.extend((opened.lights.names[number], reason) for number, reason in excluded.items())
        return StackResult(None, table, opened.set_aside, opened.warnings, plan=tuple(lines))
    with claimed(opened, place), workers(scheduler) as client, machine_share(*share):
        return _run(opened, chosen, place, client)


def _run(opened: OpenedFrames, settings: StackSettings, place: Place, client: Any) -> StackResult:
    """The stages, one after the other; all stacks are whole before the first gets its name: none is made twice."""
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments)
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begin
        return result

    before = fingerprints(opened.frames.paths)
    continued = claim_folder(place.work, place.out, run_identity(opened, settings))
    ready = timed("masters", prepare_masters, opened, settings, place, lights_kept(opened, place))
    pixels = timed("first pass", survey_lights, opened, ready, place, client)
    of_lights = ready.planes, ready.group_of, pixels, opened.lights.names
    audited = ready.flats if ready.darks_fit else []  # what darks leave is not a fault of the flats
    said = len(opened.warnings)
    with in_background() as start:
        audit = start(flat_doubts, audited, *of_lights)
        shared = [with_noise_doubts(run) for run in filter_runs(opened, ready, pixels, place)]
        runs = timed("alignment", register_filters, shared, settings, opened.warnings)
        planned = [timed("alignment", plan_stack, run, settings, registration) for run, registration in runs]
        opened.warnings[said:said], flats_fit = timed("first pass", audit)
    ready.flats.clear()
    if settings.comet:
        whole = [(run, found, *plan) for (run, found), plan in zip(runs, planned, strict=True)]
        written = timed("stack", comet_stacks, whole, settings, client)
    else:
        written = [
            Stacked(run, found, plan, norm, timed("stack", write_stack, plan, run.place, ready.units, client))
            for (run, found), (plan, norm) in zip(runs, planned, strict=True)
        ]
    require_unchanged(before)
    notes: list[str] = []
    if len(shared) > 1:
        notes += [*opened.warnings, *(f"set aside: {sentence}" for sentence in said_of_all(opened.set_aside))]
    results = [timed("stack", complete_stack, one, notes, flats_fit, settings.site) for one in written]
    results, of_comet = results[: len(runs)], {one.path: one for one in results[len(runs) :]}
    remove_folder(place.work)
    log = ("continued after an interruption",) if continued else ()
    if len(shared) == 1:
        return replace(results[0], seconds=seconds, plan=(*results[0].plan, *log), comet=of_comet)
    frames = pd.concat([one.frames for one in results], ignore_index=True)
    stacks = {run.opened.lights.filter: one for (run, _), one in zip(runs, results, strict=True)}
    warnings, grid = list(dict.fromkeys(opened.warnings)), results[0].grid
    return StackResult(
        None, frames, opened.set_aside, warnings, seconds=seconds, plan=log, units=ready.units, grid=grid,
        stacks=stacks, comet=of_comet,
    )  # fmt: skip


def grade_lights(
    folder: str | Path, *, sensor: str | Path | xr.Dataset | None = None, out: str | Path | None = None,
    scratch: str | Path | None = None, progress: bool = True, **settings: Any,
) -> StackResult:  # fmt: skip
    """Measure every light of a folder as `stack_folder` does before it stacks, so that one can choose among them.

    Parameters
    ----------
    folder, sensor, settings
        As for `stack_folder`.
    out
        A CSV file for the table.
    scratch
        Folder for the working files, which are removed at the end; the system's by default.

    Returns
    -------
    StackResult
        With ``frames``, one row a light: stars, FWHM [px], roundness, background and noise [e⁻; ADU without a gain],
        SNR, transparency (that of the filter's reference is 1), whether `stack_folder` would use it, and why not.

    Raises
    ------
    WorkbenchError
        If there are fewer than two lights.

    Examples
    --------
    >>> from workbench import sample_folder
    >>> grade_lights(sample_folder()).frames[["file", "fwhm", "transparency", "used"]]  # doctest: +SKIP
    """
    chosen = StackSettings(**settings)
    if out is not None:
        check_target(out, "CSV file")
    opened = open_frames(Path(folder), sensor, chosen, progress)
    if out is not None:
        check_target(out, "CSV file", frames=opened.frames.paths)
    with tempfile.TemporaryDirectory(prefix=".lights-", dir=scratch) as work, workers(None):
        place = Place(Path(work) / "stack.fits", Path(work), None, progress)
        ready = prepare_masters(opened, chosen, place, lights_kept(opened, place))
        pixels = survey_lights(opened, ready, place, None)
        graded = [_graded(run, chosen) for run in filter_runs(opened, ready, pixels, place)]
    frames = pd.concat([table for table, _ in graded], ignore_index=True)
    set_aside = list(dict.fromkeys([*opened.set_aside, *(one for _, run in graded for one in run.opened.set_aside)]))
    warnings = list(dict.fromkeys([*opened.warnings, *(text for _, run in graded for text in run.opened.warnings)]))
    frames = frames[[name for name in GRADES if name in frames]]
    if out is not None:
        with whole_file(out) as part:
            frames.to_csv(part, index=False)
    return StackResult(None, frames, set_aside, warnings, plan=tuple(ready.used), units=ready.units)


def _graded(run: FilterRun, settings: StackSettings) -> tuple[pd.DataFrame, FilterRun]:
    """Return the table of a filter's lights, also where they cannot be registered, and the run with its messages."""
    lights = run.opened.lights
    reference = settings.reference
    own = settings if reference and lights.meant_by(str(reference)) else replace(settings, reference=None)
    try:
        return frame_table(lights, register_lights(run.opened, own, run.surveys)), run
    except WorkbenchError as problem:
        run.opened.warnings.append(f"{lights.filter}: {problem}" if lights.filter else str(problem))
    unread = dict(run.opened.set_aside)
    table = pd.DataFrame({"file": list(lights.names), "used": False, "exposure": lights.exposure})
    table["reason"] = [unread.get(name, "the lights cannot be aligned") for name in lights.names]
    table["filter"] = lights.filters
    read = {name: one.stars for name, one in zip(lights.names, run.surveys, strict=True) if one is not None}
    quality = quality_table(list(read.values()), list(read)).to_dataframe().set_index("filename")
    return table.join(quality.reindex(columns=list(QUALITY)), on="file"), run


def complete_stack(stacked: Stacked, notes: list[str], flats_fit: bool | None, site: bool) -> StackResult:
    """Write the header, the maps in blocks and the table of lights, and give the stack its name."""
    run, registration, plan, norm, (chi, shared), *_ = stacked
    opened, place, ready = run.opened, run.place, run.ready
    with np.errstate(invalid="ignore", divide="ignore"):
        chi_map = np.where(chi[1] > 0, chi[0] / chi[1], np.nan)
        whole = np.divide(*chi[:2].sum(axis=(2, 3), dtype=float))
    chi_square = dict(zip(plan.channels, whole.tolist(), strict=True))
    if ready.units == "electron" and not stacked.stars:
        blocks = dict(zip(plan.channels, norm["block_chi_square"].values.tolist(), strict=True))
        opened.warnings.extend(scatter_doubts(chi_square, blocks, ready.darks_fit, flats_fit, run.lights_fit))
    lights, warnings = opened.lights, list(dict.fromkeys(opened.warnings))
    reference = registration.reference
    noise = ready.noise[ready.group_of[reference][0]]
    table = frame_table(lights, registration, norm)
    about, cards = stack_header(lights, plan, noise, reference, norm["level"].values, chi_square)
    layout = layout_of(plan, place, ready.units)
    if plan.drop is not None:
        chi_map, shared = drizzled(plan.drop, plan, layout, stacked.maps, about, cards)
        warnings += about.pop("warnings")
    light = opened.frames.light
    light = light.isel(frame=np.isin(light["filename"].values, table["file"][table["used"]]))
    name = lights.names[reference]
    observed = observation(light, name, read_header(lights.paths[reference]), site=site)
    known, observed = (finer_pixels(found, plan) for found in (known_of(lights.paths[reference]) | observed, observed))
    top, left, *_ = registration.area or (0, 0)
    if stacked.stars:
        placed, said = wcs_cards(read_header(stacked.stars), (0, 0)), f"plate solution: that of {stacked.stars.name}"
    else:
        placed, said = solve_layout(layout, known)
        placed = placed or on_sky(opened, run.grid or name, (top, left), plan)
    cards = placed | observed | cards | stacked.cards
    plain = {key: value[0] if isinstance(value, tuple) else value for key, value in placed.items()}
    plain |= {key: cards[key][0] for key in ("INSTRUME", "EXPTIME", "TOTALEXP")}
    about["attributes"]["observation"] = observed | plain
    if run.grid and run.grid != lights.names[reference]:
        cards["SCALEREF"] = cards["REFFRAME"][0], "to this all is scaled"
        cards["REFFRAME"] = run.grid, "its pixel grid"
        about["attributes"] |= {"reference": run.grid, "scale_reference": lights.names[reference]}
    if registration.area is not None:
        cards["REFTOP"], cards["REFLEFT"] = ((at, "[px] of REFFRAME's grid at the first pixel") for at in (top, left))
    placing = [said, *panel_lines(registration, norm, unit_text(ready.units))]
    about["history"] = [*stacked.history, *about["history"], *notes, *ready.used, *placing, *warnings]
    about["history"] += [f"set aside: {sentence}" for sentence in said_of_all(opened.set_aside)]
    aside = pd.DataFrame(opened.set_aside, columns=["file", "reason"], dtype=str)
    fits_out.finish_stack(layout, place.out, about, cards, (chi_map, shared), table, aside)
    return StackResult(
        place.out, table, opened.set_aside, warnings, chi_square, lights.names[reference],
        plan=(*(stacked.history if stacked.stars else ready.used), *placing), units=ready.units, grid=run.grid,
    )  # fmt: skip
