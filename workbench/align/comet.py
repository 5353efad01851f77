"""The way of a comet over the stack's pixels: given, from an ephemeris, or found; and lights registered on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scipy

from ..core.errors import WorkbenchError
from .hints import degrees
from .moving import find_moving
from .registration import Registration

if TYPE_CHECKING:
    from astropy.wcs import WCS

_ADVICE = "give two positions (--comet X,Y@LIGHT twice), --comet auto, or an ephemeris, --comet FILE.csv"
_COLUMNS = ("time", "ra", "dec")


class TimedLights(NamedTuple):
    """Lights on the stack's grid: their registration, names, and the middles of their exposures (datetime64)."""

    registration: Registration
    names: tuple[str, ...]
    times: np.ndarray


class CometTrack(NamedTuple):
    """Where a comet is [px of the stack] at some times (datetime64), two at least."""

    times: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the places (time, 2) as (x, y) [px]: on a straight line through two, on a cubic spline through more.

        Examples
        --------
        >>> times = np.array(["2025-01-01T00:00", "2025-01-01T01:00"], "datetime64[ns]")
        >>> track = CometTrack(times, np.array([10.0, 70.0]), np.array([5.0, 5.0]))
        >>> track.at(times[:1] + np.timedelta64(30, "m")).tolist()
        [[40.0, 5.0]]
        """
        hours = (self.times - self.times[0]) / np.timedelta64(1, "h")
        line = scipy.interpolate.make_interp_spline(hours, np.stack([self.x, self.y], 1), k=min(3, len(hours) - 1))
        return line((times - self.times[0]) / np.timedelta64(1, "h"))


def is_ephemeris(wanted: Sequence[str]) -> bool:
    """Return whether what was asked for is a file."""
    return len(wanted) == 1 and wanted[0].casefold().endswith(".csv")


def check_comet(wanted: Sequence[str]) -> None:
    """Refuse what does not name a way to follow a comet: ``auto``, two positions or an ephemeris that is there."""
    if tuple(wanted) == ("auto",):
        return
    if is_ephemeris(wanted):
        if not Path(wanted[0]).is_file():
            raise WorkbenchError(f"{wanted[0]}: no such file; {_ADVICE}")
        return
    for text in wanted:
        _split(text)
    if len(wanted) == 1 or len(wanted) > 2:
        raise WorkbenchError(f"--comet has {len(wanted)} position{'s' * (len(wanted) != 1)}: {_ADVICE}")


def _split(text: str) -> tuple[float, float, str]:
    """x and y [px] of a position, and the light that it names."""
    place, _, name = text.partition("@")
    try:
        x, y = map(float, place.split(","))
    except ValueError:
        x = y = np.nan
    if not np.isfinite([x, y]).all():
        raise WorkbenchError(
            f"--comet {text!r} is not a position X,Y or X,Y@LIGHT, such as 812,430@light_001; {_ADVICE}"
        )
    return x, y, name


def on_comet(lights: TimedLights, track: CometTrack, epoch: np.datetime64) -> Registration:
    """Return the registration with every light shifted so that the comet stays where it was at `epoch`.

    T'(x) = T(x + c(t) - c(epoch)), T the light's transform and c the track: exact for every model.
    """
    found, (home,) = lights.registration, track.at(np.array([epoch]))
    shift = {number: track.at(lights.times[[number]])[0] - home for number in found.used}
    matches = tuple(
        match and replace(match, transform=match.transform.moved(*shift[number]))
        for number, match in enumerate(found.matches)
    )
    return replace(found, matches=matches, grid=found.grid.moved(*shift[found.reference]))


def comet_track(wanted: Sequence[str], lights: Sequence[TimedLights]) -> CometTrack:
    """Return the track that was asked for: ``auto``, or two positions ``X,Y`` or ``X,Y@LIGHT`` (see `check_comet`).

    ``X,Y`` are pixels of the reference, the first in the earliest and the second in the latest light;
    ``X,Y@LIGHT`` are pixels of that light.

    Raises
    ------
    WorkbenchError
        If a light states no time, nothing moves, a position is none, or both have one time.
    """
    for names, times, found in ((one.names, one.times, one.registration) for one in lights):
        untimed = [names[number] for number in found.used if np.isnat(times[number])]
        if untimed:
            raise WorkbenchError(
                f"{len(untimed)} of {len(found.used)} lights state no time (the first is {untimed[0]}), so that the "
                "comet's place in them is not known; leave them out with --exclude, or give DATE-OBS"
            )
    if tuple(wanted) == ("auto",):
        return _found_track(lights)
    taken = times_taken(lights)
    ends = taken.min(), taken.max()
    places = [_position(text, end, lights) for text, end in zip(wanted, ends, strict=True)]
    (start, x0, y0), (end, x1, y1) = sorted(places)
    if start == end:
        raise WorkbenchError(
            f"both positions of the comet are of one time ({start}): its motion does not follow; take them in an early "
            "and in a late light"
        )
    return CometTrack(np.array([start, end]), np.array([x0, x1]), np.array([y0, y1]))


def times_taken(lights: Sequence[TimedLights]) -> np.ndarray:
    """Return when all lights that are used were taken."""
    return np.concatenate([one.times[list(one.registration.used)] for one in lights])


def _found_track(lights: Sequence[TimedLights]) -> CometTrack:
    """The line, fitted by least squares, of what moves among the stars in most lights."""
    every = [(found, one) for one in lights for found in find_moving(one.registration, one.times)[:1]]
    if not every:
        raise WorkbenchError(
            "nothing moves evenly among the stars of these lights, so that there is nothing for --comet auto to "
            "follow; give two positions, --comet X,Y@LIGHT --comet X,Y@LIGHT"
        )
    found, one = max(every, key=lambda pair: len(pair[0].frames))
    times = one.times[list(found.frames)]
    ends = times[[0, -1]]
    line = np.polynomial.polynomial.polyfit(
        (times - ends[0]) / (ends[1] - ends[0]), np.stack([found.x, found.y], 1), 1
    )  # fmt: skip
    return CometTrack(ends, *np.stack([line[0], line[0] + line[1]], 1))


def _position(text: str, time: np.datetime64, lights: Sequence[TimedLights]) -> tuple[np.datetime64, float, float]:
    """When and where [px of the stack] a position is; `time` counts where it names no light."""
    x, y, name = _split(text)
    if not name:
        top, left, *_ = lights[0].registration.area or (0, 0)
        return time, x - left, y - top
    meant = [
        (one, number) for one in lights for number, own in enumerate(one.names)
        if name in (own, Path(own).name, Path(own).stem)
    ]  # fmt: skip
    if len(meant) != 1:
        raise WorkbenchError(
            f"--comet {text!r}: {name!r} is {'more than one' if meant else 'none'} of the lights (the first is "
            f"{lights[0].names[0]!r}); give the name of one"
        )
    one, number = meant[0]
    if number not in one.registration.used:
        reason = one.registration.set_aside.get(number, "it cannot be aligned")
        raise WorkbenchError(f"--comet {text!r}: {one.names[number]} is not stacked ({reason}); take another light")
    height, width = one.registration.frame_shape
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise WorkbenchError(f"--comet {text!r} lies outside the light, which has {width} x {height} pixels")
    return (one.times[number], *one.registration.transform(number).inverse(x, y))


def ephemeris_track(path: Path, wcs: WCS, lights: Sequence[TimedLights]) -> CometTrack:
    """Return the track of an ephemeris: a CSV file with the columns time (UTC), RA and Dec (J2000).

    RA and Dec are degrees, or sexagesimal; `wcs` is that of the stack, for pixels counted from 0.

    Raises
    ------
    WorkbenchError
        If the file cannot be read as such, or does not cover the lights' times.
    """
    try:
        table = pd.read_csv(path, comment="#", skipinitialspace=True)
        table.columns = [str(name).strip().casefold() for name in table.columns]
        if missing := [name for name in _COLUMNS if name not in table]:
            raise WorkbenchError(f"no column {missing[0]}")
        times = pd.to_datetime(table["time"], utc=True).dt.tz_localize(None).to_numpy("datetime64[ns]")
        units = ("ra", "hourangle"), ("dec", "deg")
        ra, dec = (np.array([degrees(value, unit) for value in table[name]]) for name, unit in units)
    except (OSError, ValueError) as problem:
        raise WorkbenchError(
            f"{path}: not an ephemeris ({problem}); it needs the columns time (UTC, 2025-01-18T20:00), RA and Dec "
            "(J2000, degrees or 12h50m53s and +41d07m14s)"
        ) from problem
    order = np.argsort(times)
    times, ra, dec = times[order], ra[order], dec[order]
    if len(times) < 2 or (np.diff(times) <= np.timedelta64(0)).any():
        raise WorkbenchError(f"{path}: an ephemeris needs two rows or more, each of another time")
    taken = times_taken(lights)
    if taken.min() < times[0] or taken.max() > times[-1]:
        raise WorkbenchError(
            f"{path}: the ephemeris is of {times[0]} to {times[-1]}, the lights are of {taken.min()} to {taken.max()}; "
            "both count in UTC: give one that covers the lights, or correct the camera's clock in it"
        )
    return CometTrack(times, *wcs.all_world2pix(ra, dec, 0))
