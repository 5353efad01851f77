"""A night with a comet: a stack on the comet without stars, one on the stars without the comet, and both together.

The engine stacks the stars, then, on the comet, the lights less what that stack shows besides noise and the sky's
level; then the stars again of the lights less the comet's light, and the comet again.  Rejection takes out what
differences in seeing leave.  The composed stack is the sum of the stack of the stars and of the comet's light.  All is
linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from astropy.io import fits
from scipy import ndimage

from ..align.comet import CometTrack, TimedLights, comet_track, ephemeris_track, is_ephemeris, on_comet, times_taken
from ..align.hints import hints_of, known_of, solve_stars
from ..align.registration import Registration
from ..align.sky import NoSolutionError
from ..core.cube import digest
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_colours
from ..core.statistics import mad_std
from ..ingest.metadata import PlainPixels
from ..stack.engine import PlannedFrame, StackPlan, open_planes
from ..stack.fits_out import Layout, add_to_plane, read_plane
from ..stack.settings import StackSettings
from ..stars.background import block_background, subtract
from .stack_filters import FilterRun, Stacked, comet_files, layout_of, on_sky, part_of, write_stack
from .stack_inputs import times_of
from .stack_outputs import spread, write_whole

_ROWS = 256  # of a light from which is subtracted at a time
_FAINT, _CLEAR = 2.0, 4.0  # sigma of the smoothed light: below the first nothing is subtracted, above the second all
_BLOCK = 32  # [px] of the sky under the stars: nebulae are followed
_NEAR = 5.0  # [px] of the comet's place within which it must be seen
_RING = 20  # [px] around the comet, whose level is its background
_WIDTHS = 5.0  # of a star, by which the comet moves at least
_A_PIXEL = 40.0  # bytes that a thread holds of a light's pixel

Planned = tuple[FilterRun, Registration, StackPlan, xr.Dataset]


class Follow(NamedTuple):
    """What is followed: the comet's track, the time at which the stacks show it, and where it is then [px]."""

    track: CometTrack
    epoch: np.datetime64
    home: np.ndarray


class Subtracted(NamedTuple):
    """Light on the output's grid as spline coefficients (channel, y, x) in a file, and the `box` that holds it.

    (top, left, bottom, right) [px].
    """

    path: Path
    box: tuple[int, int, int, int]


def comet_stacks(stacks: Sequence[Planned], settings: StackSettings, client: Any) -> list[Stacked]:
    """Write the stacks of the stars, one a filter, then of each filter that on the comet and the composed one.

    Raises
    ------
    WorkbenchError
        If the comet's way is not known, or it is not in the stack's field.
    """
    lights = []
    for run, registration, *_ in stacks:
        of_run = run.opened.lights
        middles = times_of(run.opened) + (of_run.exposure * 5e8).astype("timedelta64[ns]")
        lights.append(TimedLights(registration, of_run.names, middles))
    if is_ephemeris(settings.comet):
        track = _of_ephemeris(Path(settings.comet[0]), stacks[0], lights)
    else:
        track = comet_track(settings.comet, lights)
    run, registration, *_ = stacks[0]
    names = [name for one in lights for name in one.names]
    at = names.index(run.grid or run.opened.lights.names[registration.reference])
    epoch = np.concatenate([one.times for one in lights])[at]
    home = track.at(np.array([epoch]))[0]
    height, width = registration.shape
    if not (0 <= home[0] <= width - 1 and 0 <= home[1] <= height - 1):
        raise WorkbenchError(
            f"the comet is at ({home[0]:.0f}, {home[1]:.0f}) when {names[at]} was taken, outside the stack of "
            f"{width} x {height} pixels; check the positions and the lights' times, or take --framing all"
        )
    taken = times_taken(lights)
    way = float(np.hypot(*np.diff(track.at(np.array([taken.min(), taken.max()])), axis=0)[0]))
    fwhm = float(np.nanmedian(registration.quality["fwhm"]))
    if way < _WIDTHS * fwhm:
        run.opened.warnings.append(
            f"the comet moves by {way:.1f} px while the lights are taken, {way / fwhm:.1f} times the width of a star: "
            "stars and comet are not well separated"
        )
    written = [_of_filter(*of, settings, Follow(track, epoch, home), client) for of in zip(stacks, lights, strict=True)]
    return [one[0] for one in written] + [one for of in written for one in of[1:]]


def _of_ephemeris(path: Path, planned: Planned, lights: list[TimedLights]) -> CometTrack:
    """The track of an ephemeris, by the plate solution of the reference's stars, else by its header's."""
    run, registration, plan, _ = planned
    number = registration.reference
    name, source = run.opened.lights.names[number], run.opened.lights.paths[number]
    stars = registration.stars[number]
    try:
        hints = hints_of(known_of(source))
        if hints.centre is None or stars is None:
            raise NoSolutionError("the headers name neither a direction nor a known object")
        wcs = solve_stars(stars, registration.frame_shape, hints).wcs
    except WorkbenchError as problem:
        cards = on_sky(run.opened, name, (0, 0), plan)
        if not cards:
            raise WorkbenchError(
                f"{path}: an ephemeris needs a plate solution, and {name} has none ({problem}); give two positions, "
                "--comet X,Y@LIGHT --comet X,Y@LIGHT"
            ) from None
        from astropy.wcs import WCS

        wcs = WCS(fits.Header(cards))
    track = ephemeris_track(path, wcs, lights)
    x, y = registration.transform(number).inverse(track.x, track.y)
    return track._replace(x=x, y=y)


def _of_filter(
    planned: Planned, lights: TimedLights, settings: StackSettings, follow: Follow, client: Any
) -> list[Stacked]:
    """The stack of the stars, that on the comet and the composed one, of the lights of one filter."""
    run, registration, plan, norm = planned
    place, units = run.place, run.ready.units
    work = place.work / f"comet-{digest(*follow.track, settings.comet)[:12]}"
    work.mkdir(exist_ok=True)
    tracked = on_comet(lights, follow.track, follow.epoch)
    moving = _moving(plan, registration, tracked, follow, lights)

    def written(of: StackPlan, out: Path) -> tuple[Layout, tuple[np.ndarray, np.ndarray]]:
        at = place._replace(out=out, work=work / out.stem)
        at.work.mkdir(exist_ok=True)
        return layout_of(of, at, units), write_stack(of, at, units, client)

    def less(of: StackPlan, stack: Layout, light: np.ndarray, share: np.ndarray, into: StackPlan) -> StackPlan:
        taken = work / f"taken{stack.path.stem}.npy"
        np.save(taken, np.stack([*light, _noise_gone(stack, share)]))
        return replace(_without(of, into, _kept(light, work / "light.npy"), work, client), taken=taken)

    on, together = comet_files(place.out)
    of_stars = plan
    for stars_out, comet_out in ((work / "first-stars.fits", work / "first-comet.fits"), (place.out, on)):
        stars, maps = written(of_stars, stars_out)
        comet, moving_maps = written(less(plan, stars, *star_light(stars), moving), comet_out)
        light, share = comet_light(comet, follow.home)
        if comet_out != on:
            of_stars = less(moving, comet, light, share, plan)
    if not share.any():
        run.opened.warnings.append(
            f"no comet stands above the noise within {_NEAR:g} px of ({follow.home[0]:.0f}, {follow.home[1]:.0f}): "
            f"check its positions; {together.name} shows the stars only"
        )
    composed = replace(stars, path=part_of(together))
    copyfile(stars.path, composed.path)
    for channel, plane in enumerate(light):
        add_to_plane(composed, "SIGNAL", channel, plane)
        add_to_plane(composed, "VARIANCE", channel, share**2 * read_plane(comet, "VARIANCE", channel))
    cards = _cards(follow)

    def made(out: Path, what: str, text: str, of: tuple[Registration, StackPlan], chi: Any) -> Stacked:
        own = {"STACKOF": (what, "what the stack shows")} | cards
        at, solved = run._replace(place=place._replace(out=out)), None if out == place.out else place.out
        return Stacked(at, *of, norm, chi, (f"shows {text}",), own, solved)

    on_stars, on_it = (registration, plan), (tracked, moving)
    return [
        made(place.out, "stars", "the stars; the comet is subtracted and rejected", on_stars, maps),
        made(on, "comet", "the comet; the stars are subtracted and rejected", on_it, moving_maps),
        made(together, "comet and stars", "the stack of the stars plus the comet's light above its background, where "
             "that stands out of the noise; variances added", on_stars, maps),
    ]  # fmt: skip


def _moving(
    plan: StackPlan, registration: Registration, tracked: Registration, follow: Follow, lights: TimedLights
) -> StackPlan:
    """The plan of the stack on the comet: that of the stars, each frame and its background's surface shifted."""
    steps = follow.track.at(lights.times[list(registration.used)]) - follow.home
    return replace(plan, frames=tuple(
        replace(frame, transform=tracked.transform(number), surface=_shifted(frame.surface, *step))
        for frame, number, step in zip(plan.frames, registration.used, steps, strict=True)
    ))  # fmt: skip


def _shifted(surface: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The surface (channel, 6) of 1, x, y, x², xy, y² about another origin: p(x + dx, y + dy).

    Examples
    --------
    >>> _shifted(np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]), 1.0, 2.0).tolist()
    [[47.0, 20.0, 32.0, 4.0, 5.0, 6.0]]
    """
    p, q, r, s, t, u = surface.T
    first = p + q * dx + r * dy + s * dx * dx + t * dx * dy + u * dy * dy
    return np.stack([first, q + 2 * s * dx + t * dy, r + t * dx + 2 * u * dy, s, t, u], axis=1)


def _cards(follow: Follow) -> dict[str, tuple[Any, str]]:
    hour = np.timedelta64(1, "h")
    speed = (follow.track.at(np.array([follow.epoch + hour])) - follow.track.at(np.array([follow.epoch - hour])))[0] / 2
    return {
        "COMETX": (round(float(follow.home[0]), 2), "[px] of the comet, from 0"),
        "COMETY": (round(float(follow.home[1]), 2), "[px]"),
        "COMETDAT": (str(follow.epoch)[:23], "the time of that"),
        "COMETVX": (round(float(speed[0]), 3), "[px/h] its motion"),
        "COMETVY": (round(float(speed[1]), 3), "[px/h]"),
    }


def _parted(layout: Layout, block: int, passes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The background in blocks of so many pixels, less its median, and the light above it, (channel, y, x).

    Both are 0 where values are missing.  A second pass takes what linear interpolation between the blocks leaves.
    """
    ground, light = (np.zeros(layout.shape, np.float32) for _ in range(2))
    for channel, out in enumerate(light):
        signal = read_plane(layout, "SIGNAL", channel)
        signal[read_plane(layout, "MASK", channel) > 0] = np.nan
        rest, sky = signal, 0.0
        for _ in range(passes):
            level, _ = block_background(rest, block)
            middle = np.nanmedian(level)
            subtract(rest, np.where(np.isfinite(level), level, middle), out)
            rest, sky = np.where(np.isfinite(signal), out, np.float32(np.nan)), sky + middle
        ground[channel] = np.nan_to_num(signal - sky) - out
    return ground, light


def _clearness(light: np.ndarray, smooth: float) -> np.ndarray:
    """The smoothed sum of the channels over its own noise (y, x)."""
    seen = light.any(axis=0)
    soft = ndimage.gaussian_filter(light.sum(axis=0), smooth)
    return soft / max(float(mad_std(soft[seen])), 1e-30)


def _ramp(clear: np.ndarray, grow: int) -> np.ndarray:
    """0 where light is lost in the noise, 1 where it is clear and `grow` pixels around, float32."""
    share = np.clip((clear - _FAINT) / (_CLEAR - _FAINT), 0, 1).astype(np.float32)
    return ndimage.uniform_filter(ndimage.maximum_filter(share, 2 * grow + 1), grow)


def star_light(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return what a stack (channel, y, x) shows besides noise and the sky's level, and the share (y, x) of its noise.

    Its background in blocks of 32 pixels, nebulae and gradients, and what stands above the noise on it.
    """
    ground, light = _parted(layout, _BLOCK, passes=2)
    share = _ramp(_clearness(light, 1.5), 3)
    return ground + light * share, share


def comet_light(layout: Layout, home: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the comet's light (channel, y, x) in a stack on it, and the share (y, x) of the stack's that it is.

    What hangs together with the clearest place about `home` and stands above the noise, over the level of a ring around
    it; nothing where nothing is clear.
    """
    _, light = _parted(layout, max(layout.shape[1:]) // 4)
    clear = _clearness(light, 3.0)
    y, x = np.ogrid[: clear.shape[0], : clear.shape[1]]
    near = np.where(np.hypot(x - home[0], y - home[1]) <= _NEAR, clear, 0)
    peak = divmod(int(np.argmax(near)), clear.shape[1])
    if near[peak] < _CLEAR:
        return np.zeros_like(light), np.zeros_like(clear, np.float32)
    parts, _ = ndimage.label(clear > _FAINT)
    share = _ramp(np.where(parts == parts[peak], clear, 0), 6)
    ring = (ndimage.maximum_filter(share, 2 * _RING + 1) > 0) & (share == 0)
    if ring.any():
        light -= np.median(light[:, ring], axis=1)[:, None, None]
    return light * share, share


def _noise_gone(layout: Layout, share: np.ndarray) -> np.ndarray:
    """The share (y, x) of a sample's variance that goes when the share r of its stack is subtracted: r (2 - r) / n.

    Of n alike samples one less r of their mean has (1 - r/n)² + (n - 1) (r/n)² of its variance.
    """
    seen = np.mean([read_plane(layout, "COVERAGE", channel) for channel in range(layout.shape[0])], axis=0)
    return (share * (2 - share) / np.maximum(seen, 2)).astype(np.float32)


def _kept(light: np.ndarray, path: Path) -> Subtracted:
    """Write light as cubic spline coefficients; see `Subtracted`."""
    rows, columns = (np.flatnonzero(light.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    with open(path, "wb") as file:
        np.save(file, np.stack([ndimage.spline_filter(plane, output=np.float32) for plane in light]))
    if not len(rows):
        return Subtracted(path, (0, 0, 0, 0))
    return Subtracted(path, (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1))


def _without(of: StackPlan, into: StackPlan, light: Subtracted, work: Path, client: Any) -> StackPlan:
    """The plan `into` with the light, which lies on the grid of the plan `of`, subtracted from every frame.

    The two grids of a frame differ by a shift.
    """
    jobs = [
        (frame, of.planes[frame.group], light, work / f"light-{number}.raw") for number, frame in enumerate(of.frames)
    ]
    each = _A_PIXEL * of.frames[0].pixels.shape[0] * of.frames[0].pixels.shape[1]
    pixels = list(spread(subtract_light, jobs, client, each))
    ways = [(here.transform, there.transform) for here, there in zip(of.frames, into.frames, strict=True)]
    steps = [here.inverse(*there.apply(0.0, 0.0)) for here, there in ways]
    return replace(into, frames=tuple(
        replace(one, pixels=own, step=(float(x), float(y)))
        for one, own, (x, y) in zip(into.frames, pixels, steps, strict=True)
    ))  # fmt: skip


def subtract_light(frame: PlannedFrame, planes: Path, light: Subtracted, out: Path) -> PlainPixels:
    """Write a light's raw numbers less the light that a stack has at each photosite; saturated ones stay as they are.

    raw - L(T⁻¹(x)) / (s k): L [e-] of the photosite's colour, s the frame's scale, k what makes electrons of ADU.
    """
    maps, coefficients = open_planes(planes), np.load(light.path, mmap_mode="r")
    raw = frame.pixels.read().astype(np.float32)
    colours = channel_colours(maps.cell)[maps.cell]
    top, left, bottom, right = light.box
    x, y = frame.transform.apply(np.array([left, right, left, right]), np.array([top, top, bottom, bottom]))
    first, last = (int(np.clip(edge, 0, raw.shape[0])) for edge in (y.min() - 2, y.max() + 3))
    begin, end = (int(np.clip(edge, 0, raw.shape[1])) for edge in (x.min() - 2, x.max() + 3))
    if bottom > top:
        for row in range(first, last, _ROWS):
            part = np.s_[row : min(row + _ROWS, last), begin:end]
            y, x = np.mgrid[part]
            u, v = frame.transform.inverse(x, y)
            colour = colours[y % colours.shape[0], x % colours.shape[1]]
            ours = np.zeros(y.shape, np.float32)
            for channel in np.unique(colour):
                here = colour == channel
                ours[here] = ndimage.map_coordinates(coefficients[channel], (v[here], u[here]), prefilter=False)
            with np.errstate(invalid="ignore", divide="ignore"):
                adu = ours / (frame.scale * maps.scale[part])
            piece = raw[part]
            piece -= np.where(np.isfinite(adu) & (piece < maps.white), adu, 0)
    stored = np.dtype("<f4")
    write_whole(out, np.ascontiguousarray(raw, stored).tobytes())
    return PlainPixels(out, 0, stored.str, raw.shape)
