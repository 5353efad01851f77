"""A run of lights through several filters: shared out by filter, each registered by itself, all on one pixel grid;
and where on the sky a stack is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..align.grid import common_grid, framed
from ..align.hints import hints_of, solve_stars
from ..align.registration import Registration
from ..align.sky import NoSolutionError
from ..core.errors import WorkbenchError
from ..core.files import locked, remove_folder
from ..core.fits_cards import finer_wcs, wcs_cards
from ..core.settings import FILTERS, filter_in_file_name
from ..ingest.fits_header import BOTTOM_UP
from ..ingest.metadata import PlainPixels
from ..ingest.reader import read_header
from ..stack.drizzle import Drop, finer_maps, hole_warning, own_shares
from ..stack.engine import PlannedFrame, StackPlan
from ..stack.fits_out import Layout, create_file, plan_layout, read_plane
from ..stack.normalise import normalisation
from ..stack.settings import StackSettings
from ..stars.damage import odd_noise
from ..stars.survey import FrameSurvey, find_plane_stars
from .stack_inputs import LightList, OpenedFrames, Place, PreparedMasters, register_lights
from .stack_outputs import bands_done, plan_digest, read_sums, stack_all, write_whole
from .stack_survey import load_survey


class FilterRun(NamedTuple):
    """What one stack is made from: the lights of one filter, or all of a run without several, and where it goes.

    `pixels` and `surveys` of the lights are None where a file cannot be read; `grid` names the frame whose pixel grid
    the stacks of several filters share; `lights_fit` is False where a light's noise is not that of its level.
    """

    opened: OpenedFrames
    place: Place
    ready: PreparedMasters
    pixels: list[PlainPixels | None]
    surveys: list[FrameSurvey | None]
    grid: str = ""
    lights_fit: bool = True


class Stacked(NamedTuple):
    """A stack whose planes are written, and from what; `maps` are chi-square sums and shared noise (see `Band`).

    Of a comet's night: `history` and `cards` state what the stack shows, `stars` is the file whose plate solution it
    has, which is finished before.
    """

    run: FilterRun
    registration: Registration
    plan: StackPlan
    norm: xr.Dataset
    maps: tuple[np.ndarray, np.ndarray]
    history: tuple[str, ...] = ()
    cards: dict[str, tuple[Any, str]] = {}  # noqa: RUF012  never changed
    stars: Path | None = None


def with_noise_doubts(run: FilterRun) -> FilterRun:
    """Return a run with a warning for each light whose noise is not that of its level, where the gain is known."""
    lights, warnings = run.opened.lights, run.opened.warnings
    before = len(warnings)
    groups: dict[tuple[str, float], list[int]] = {}
    for number, survey in enumerate(run.surveys):
        if survey is not None and run.ready.units == "electron":
            groups.setdefault((lights.sorts[number], float(lights.exposure[number])), []).append(number)
    for numbers in groups.values():
        surveys = [one for number in numbers if (one := run.surveys[number]) is not None]
        level, noise = (np.array([np.nanmedian(plane, axis=(1, 2)) for plane in part]) for part in (
            [one.level for one in surveys], [one.noise for one in surveys],
        ))  # fmt: skip
        warnings += [
            f"{lights.names[numbers[place]]}: {text}: its numbers are not the sensor's (an offset, a factor, "
            "smoothing, coarse codes), or it is much warmer or colder; look at it, or leave it out with --exclude"
            for place, text in odd_noise(level, noise**2).items()
        ]
    return run._replace(lights_fit=len(warnings) == before)


def stack_files(lights: LightList, out: Path) -> dict[str, Path]:
    """Return the file of each filter's stack: `out` where there is one filter or none, else with the filter's name."""
    names = list(dict.fromkeys(name for name in lights.filters if name))
    if len(names) < 2:
        return {lights.filter: out}
    order = [name for name in FILTERS if name in names]
    order += sorted(set(names) - set(order))
    return {name: out.with_name(f"{out.stem}_{filter_in_file_name(name)}{out.suffix}") for name in order}


def comet_files(out: Path) -> tuple[Path, Path]:
    """Return the files of the stack on a comet and of the composed one, next to that of the stars."""
    return out.with_name(f"{out.stem}-comet{out.suffix}"), out.with_name(f"{out.stem}-comet-and-stars{out.suffix}")


def part_of(out: Path) -> Path:
    """Return the file in which a stack is made until it is whole."""
    return out.with_name(f".{out.name}.part")


@contextlib.contextmanager
def claimed(opened: OpenedFrames, place: Place) -> Iterator[None]:
    """Hold output and working folder against other runs; a run that is refused leaves nothing behind.

    Raises
    ------
    WorkbenchError
        If another run has them; after an interruption or where the disk is full, when the working files stay to go on
        from; and what the run itself raises.
    """
    with locked(place.out), locked(place.work):
        try:
            yield
        except KeyboardInterrupt:
            raise WorkbenchError(
                f"stopped; the same command goes on from here (working files in {place.work}; delete it to begin again)"
            ) from None
        except OSError as problem:
            raise WorkbenchError(
                f"{problem.filename or place.work}: {problem.strerror or problem}; make room or give --scratch another "
                "place, then the same command goes on from here"
            ) from problem
        except WorkbenchError as problem:
            if not isinstance(problem.__cause__, OSError):  # of a full disk, after which it goes on
                remove_folder(place.work)
                for path in stack_files(opened.lights, place.out).values():
                    for each in (path, *comet_files(path)):
                        part_of(each).unlink(missing_ok=True)
            raise


def filter_runs(
    opened: OpenedFrames, ready: PreparedMasters, pixels: list[PlainPixels | None], place: Place
) -> list[FilterRun]:
    """Share a run out by filter; a run without several filters is one, with its own output and working folder."""
    surveys = [load_survey(place.work, number) if one is not None else None for number, one in enumerate(pixels)]
    files = stack_files(opened.lights, place.out)
    if len(files) == 1:
        return [FilterRun(opened, place, ready, pixels, surveys)]
    runs = []
    for name, path in files.items():
        numbers = [number for number, one in enumerate(opened.lights.filters) if one == name]
        lights = opened.lights.of(numbers)
        own = [found for found in opened.set_aside if found[0] in lights.names]
        opened.set_aside[:] = [found for found in opened.set_aside if found not in own]
        work = place.work / path.stem
        work.mkdir(exist_ok=True)
        here = opened._replace(lights=lights, set_aside=own, warnings=[])
        own_pixels, own_surveys = [pixels[number] for number in numbers], [surveys[number] for number in numbers]
        runs.append(FilterRun(here, place._replace(out=path, work=work), ready.of(numbers), own_pixels, own_surveys))
    return runs


def register_filters(
    runs: list[FilterRun], settings: StackSettings, warnings: list[str]
) -> list[tuple[FilterRun, Registration]]:
    """Register the lights of every filter, and put all on one pixel grid: the wanted reference's, or the best's.

    A filter that cannot be stacked is left out with a warning.

    Raises
    ------
    WorkbenchError
        If no filter can be stacked, or not that of the wanted reference.
    """
    if len(runs) == 1:
        found = register_lights(runs[0].opened, settings, runs[0].surveys)
        return [(runs[0], framed(found, settings.framing))]
    registered, centre = _register_each(runs, settings, warnings)
    if not registered:
        raise WorkbenchError("no filter's lights can be stacked: " + "; ".join(warnings))
    centre, placed, apart = common_grid([found for _, found in registered], centre, kind=settings.transform)
    grids = [run.opened.lights.names[found.reference] for run, found in registered]
    for number, reason in apart.items():
        registered[number][0].opened.warnings.append(
            f"this stack has the pixel grid of {grids[number]}, the others that of {grids[centre]}, so that they "
            f"cannot be composed: {reason}"
        )
    together = [found for number, found in enumerate(placed) if number not in apart]
    framings = []
    for number, ((run, _), found) in enumerate(zip(registered, placed, strict=True)):
        alone = number in apart
        area = framed(found, settings.framing, [found] if alone else together)
        framings.append((run._replace(grid=grids[number if alone else centre]), area))
    return framings


def _register_each(
    runs: list[FilterRun], settings: StackSettings, warnings: list[str]
) -> tuple[list[tuple[FilterRun, Registration]], int | None]:
    """Register each filter's lights by themselves; returns which of them holds the wanted reference too."""
    registered: list[tuple[FilterRun, Registration]] = []
    centre = None
    for run in runs:
        here = settings.reference is not None and bool(run.opened.lights.meant_by(str(settings.reference)))
        try:
            own = settings if here else replace(settings, reference=None)
            registered.append((run, register_lights(run.opened, own, run.surveys)))
        except WorkbenchError as problem:
            if here:
                raise
            warnings.append(f"{run.opened.lights.filter} is not stacked: {problem}")
            continue
        centre = len(registered) - 1 if here else centre
    return registered, centre


def plan_stack(run: FilterRun, settings: StackSettings, registration: Registration) -> tuple[StackPlan, xr.Dataset]:
    """Return the plan of the stack: what to read where, how to normalise and weigh it; and the normalisation."""
    norm = normalisation(registration, order=settings.background, seeing=settings.seeing_weights)
    lights, ready = run.opened.lights, run.ready
    frames = tuple(
        PlannedFrame(
            lights.names[number], one, registration.transform(number), float(scale), surface, weight,
            *ready.group_of[number],
        )
        for number, scale, surface, weight in zip(
            registration.used, norm["scale"].values, norm["surface"].values, norm["weight"].values, strict=True
        )
        if (one := run.pixels[number]) is not None
    )  # fmt: skip
    rejection = settings.method, settings.low, settings.high
    ready_planes, shape = tuple(ready.planes), registration.shape
    return StackPlan(frames, ready_planes, shape, lights.cfa_pattern, *rejection, settings.drop), norm


def write_stack(plan: StackPlan, place: Place, units: str, client: Any) -> tuple[np.ndarray, np.ndarray]:
    """Stack the bands that are missing and write them; returns chi-square sums and shared noise (see `Band`)."""
    layout = layout_of(plan, place, units)
    journal, digest = place.work / "bands", plan_digest(plan)
    done = bands_done(journal, layout, digest)
    if not done:
        shutil.rmtree(journal, ignore_errors=True)
        journal.mkdir()
        create_file(layout)
        write_whole(journal / "plan.json", digest.encode())
    missing = [number for number in range(plan.bands) if number not in done]
    for _ in tqdm(
        stack_all(plan, digest, layout, journal, missing, client), desc="stacking", unit="band",
        total=plan.bands, initial=len(done), disable=not place.progress, leave=False,
    ):  # fmt: skip
        pass
    return read_sums(journal, plan.bands)


def layout_of(plan: StackPlan, place: Place, units: str) -> Layout:
    """Return where the images of a stack lie in the file in which it is made."""
    return plan_layout(part_of(place.out), (len(plan.channels), *plan.size), len(plan.frames), units)


def on_sky(opened: OpenedFrames, grid: str, corner: tuple[int, int], plan: StackPlan) -> dict[str, Any]:
    """Return the plate solution of the frame whose grid a stack has from `corner` on, where its header has one."""
    row = opened.frames.table.set_index("file").loc[grid]
    height = row["full_shape"][0] if row["row_order"] == BOTTOM_UP else 0
    cards = wcs_cards(wcs_cards(read_header(row["path"]), row["margins"], height), corner)
    return cards if plan.drop is None else finer_wcs(cards, plan.drop.scale)


def finer_pixels(cards: Mapping[str, Any], plan: StackPlan) -> dict[str, Any]:
    """Return the cards of a light for a stack of its pixels, or finer ones: their size, their angle."""
    if plan.drop is None:
        return dict(cards)
    sizes = {name: cards[name] for name in ("XPIXSZ", "YPIXSZ", "PIXSIZE1", "PIXSIZE2", "PIXSCALE") if name in cards}
    finer = {name: value / plan.drop.scale for name, value in sizes.items() if isinstance(value, (int, float))}
    return dict(cards) | finer


def drizzled(
    drop: Drop, plan: StackPlan, layout: Layout, maps: tuple[np.ndarray, np.ndarray], about: dict[str, Any],
    cards: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return chi-square and shared noise on the finer grid; complete what describes a stack that was drizzled.

    `about` gets scale, pixfrac, the share of the variance that a single pixel has, and `warnings` of holes.
    """
    chi, shared = finer_maps(maps, drop, plan.shape)
    shares = dict(zip(plan.channels, own_shares(maps[0]).tolist(), strict=True))
    for name, share in shares.items():
        cards[f"PIXVAR_{name[0].upper()}"] = share, "variance of one pixel over VARIANCE"
    cards["SCALE"] = drop.scale, "drizzled: pixels a pixel of REFFRAME, per axis"
    cards["PIXFRAC"] = drop.pixfrac, "[px of the lights] side of a drop"
    about["attributes"] |= {"scale": drop.scale, "pixfrac": drop.pixfrac, "pixel_variance_share": shares}
    about["history"][0] = about["history"][0].replace(
        "resampled once (Lanczos-3)",
        f"drizzled (scale {drop.scale:g}, pixfrac {drop.pixfrac:g}), signal per pixel of the reference",
    )
    found = [
        hole_warning(read_plane(layout, "COVERAGE", place), name, drop, len(plan.frames))
        for place, name in enumerate(plan.channels)
    ]
    about["warnings"] = [text for text in found if text]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chi[1] > 0, chi[0] / chi[1], np.nan), shared


def solve_layout(layout: Layout, known: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the cards of the plate solution of a stack whose planes are written, and a line about it.

    Without hints, a catalogue or enough stars there are no cards, and the line gives the reason.
    """
    try:
        hints = hints_of(known)
        if hints.centre is None:  # a search of the whole sky is asked for, never done by itself
            raise NoSolutionError("the headers name neither a direction nor a known object; try `workbench solve`")
        channel = layout.shape[0] // 2  # green
        signal, clipped = (read_plane(layout, name, channel) for name in ("SIGNAL", "SATURATED"))
        stars = find_plane_stars(np.where(signal == 0, np.float32(np.nan), signal))
        x, y = (np.rint(stars[name].values).astype(int) for name in ("x", "y"))
        stars["saturated"] = stars["saturated"] | (clipped[y, x] > 0)
        solution = solve_stars(stars, layout.shape[1:], hints)
    except WorkbenchError as problem:
        return {}, f"plate solution: none ({problem})"
    return solution.cards(), f"plate solution: {solution}".replace("\n", "; ")
