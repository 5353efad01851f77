"""Which flats belong to which lights: of their filter the session of each; and which frames belong to none."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr

from ..core.mosaic import planes
from ..core.parallel import Frames
from ..core.values import describe, listed
from ..ingest.metadata import kind_in_words

SESSION_GAP = np.timedelta64(8, "h")  # flats further apart belong to different nights
ODD = 0.2  # of a frame's pixels: one that differs from the others in more is none of them
_SIGMAS = 6.0
_ENOUGH = 20_000  # pixels of a channel, for a share of them to a hundredth
_FEWEST = 3  # flats of a session, where there is one of so many
_FLICKER = 0.002  # of the light, from row to row: more than pixels differ by in the mean of a few frames
_CERTAIN = 6.0  # σ of it
SAME_ANGLE = 2.0  # [deg] of the rotator: a shadow of dust 2000 px from the centre moves by its own size
_KIND_WORDS = re.compile(r"(?:dark|sky|dome)?[ _-]*(?:flat|light|object|science|frame)s?", re.IGNORECASE)


def flat_sessions(flat: xr.DataArray) -> list[list[int]]:
    """Return the flats that were taken together: of one filter, one folder, one angle, without a gap of eight hours.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> names = ["flats/night1/a", "flats/night1/b", "flats/night2/a", "flats/night2/b"]
    >>> cube = make_cube(
    ...     np.zeros((4, 2, 2)), cfa_pattern="mono", kind="flat", filename=names, filter=["L", "R", "L", "l"]
    ... )
    >>> flat_sessions(cube)
    [[0], [1], [2, 3]]
    """
    together: list[tuple[tuple[str, str], float, list[int]]] = []
    for number, name in enumerate(flat["filename"].values):
        key = str(flat["filter"].values[number]).casefold(), str(PurePosixPath(str(name)).parent)
        angle = float(flat["rotation"].values[number])
        like = (numbers for other, turned, numbers in together if other == key and _turned(turned, angle) <= SAME_ANGLE)
        if (numbers := next(like, None)) is None:
            together.append((key, angle, numbers := []))
        numbers.append(number)
    sessions = []
    for _, _, numbers in together:
        times = flat["time"].values[numbers]
        if np.isnat(times).any():
            sessions.append(numbers)
            continue
        order = np.argsort(times, kind="stable")
        breaks = np.flatnonzero(np.diff(times[order]) > SESSION_GAP) + 1
        sessions += [sorted(numbers[index] for index in run) for run in np.split(order, breaks)]
    return sessions


def _of_filter(own: str, flat: xr.DataArray, sessions: list[list[int]]) -> list[int]:
    """Return the sessions of flats through a light's filter; a stray frame does not outweigh the others."""
    filters = [str(flat["filter"].values[session[0]]).casefold() for session in sessions]
    wanted = own if own in filters else ""
    if not own and "" not in filters and len(set(filters)) == 1:
        wanted = filters[0]
    fitting = [index for index, name in enumerate(filters) if name == wanted]
    most = max((len(sessions[index]) for index in fitting), default=0)
    return [index for index in fitting if len(sessions[index]) >= _FEWEST or most < _FEWEST]


def session_of(light: xr.DataArray, number: int, flat: xr.DataArray, sessions: list[list[int]]) -> tuple[int, str]:
    """Return which session's flats are a light's, and by what: folder, rotation or time; -1 where there is none.

    Of its filter, else without a filter; of these the session that shares most names of folders with the light
    (``flats/night2`` with ``lights/night2``), then of the rotator's angle nearest to it, then the nearest in time.
    """
    fitting = _of_filter(str(light["filter"].values[number]).casefold(), flat, sessions)
    if not fitting:
        return -1, ""
    ranks = {index: _rank(light, number, flat, sessions[index]) for index in fitting}
    best = min(fitting, key=ranks.__getitem__)
    others = [ranks[index] for index in fitting if index != best]
    by = (
        name
        for name, value, *rest in zip(("folder", "rotation", "time"), ranks[best], *others, strict=True)
        if any(other != value for other in rest)
    )
    return best, next(by, "") if others else "the only ones"


def _rank(light: xr.DataArray, number: int, flat: xr.DataArray, session: list[int]) -> tuple[float, float, float]:
    """How little a session has in common with a light: folders, angle, time; the smaller the better."""
    own = _branch(str(light["filename"].values[number]))
    shared = len(own & _branch(str(flat["filename"].values[session[0]])))
    turned = _turned(float(light["rotation"].values[number]), float(flat["rotation"].values[session[0]]))
    time, times = light["time"].values[number], flat["time"].values[session]
    away = 0.0
    if not np.isnat(time) and not np.isnat(times).all():
        away = float(np.nanmin(np.abs((times - time) / np.timedelta64(1, "s"))))
    return -shared, turned if turned > SAME_ANGLE else 0.0, away


def _branch(name: str) -> set[str]:
    """Return the names of a file's folders, without the words for the kind of frame."""
    parts = PurePosixPath(name).parent.parts
    words = (_KIND_WORDS.sub("", part).strip(" _-.") if kind_in_words(part) else part for part in parts)
    return {word.casefold() for word in words if word}


def _turned(first: float, second: float) -> float:
    """Return the angle between two directions [deg], 0 where one is not known."""
    if math.isnan(first) or math.isnan(second):
        return 0.0
    return abs((first - second + 180) % 360 - 180)


def flats_in_words(flat: xr.DataArray, numbers: list[int], by: str) -> str:
    """Name some flats and why they were chosen, for the list of what calibrates what.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> names = ["flats/night1/a", "flats/night1/b"]
    >>> cube = make_cube(np.zeros((2, 2, 2)), cfa_pattern="mono", kind="flat", filename=names, filter="Ha")
    >>> flats_in_words(cube, [0, 1], "folder")
    '2 flats (filter Ha, flats/night1), chosen by folder'
    """
    name, several = str(flat["filter"].values[numbers[0]]), by != "the only ones"
    words = [describe({"filter": name})] if name else []
    words += [listed(_folders(flat.isel(frame=numbers)))] if several else []
    chosen = f", chosen by {by}" if several and by else ""
    return f"{len(numbers)} flats" + (f" ({', '.join(words)})" if words else "") + chosen


def flat_doubts(light: xr.DataArray, flat: xr.DataArray, numbers: list[int], by: str) -> list[str]:
    """Return sentences on filter, session and angle of flats that do not surely belong to these lights."""
    doubts = []
    apart = [n for session in flat_sessions(flat) if len(session) < _FEWEST <= len(numbers) for n in session]
    if stray := [str(flat["filename"].values[n]) for n in apart if n not in numbers]:
        doubts.append(f"{listed(stray)} stands apart from the other flats and is not used: is it a flat?")
    doubts += _filter_doubts(light, flat, numbers)
    if not by:
        doubts.append(
            f"the flats are of several sessions ({listed(_folders(flat))}), and neither folders nor angles nor times "
            f"show which are those of {light['filename'].values[0]}: the first are used; name the folders alike"
        )
    angle = float(flat["rotation"].values[numbers[0]])
    turned = max(_turned(float(value), angle) for value in light["rotation"].values)
    if SAME_ANGLE < turned < 180 - SAME_ANGLE:  # half a turn is what some programs write after a meridian flip
        doubts.append(
            f"the camera was turned by {turned:.0f}° between the flats ({flat['filename'].values[numbers[0]]}) and the "
            f"lights ({light['filename'].values[0]}): vignetting and dust do not fit; take flats at the lights' angle"
        )
    return doubts


def _filter_doubts(light: xr.DataArray, flat: xr.DataArray, numbers: list[int]) -> list[str]:
    """Sentences on filters that lights or flats do not state."""
    doubts = []
    of_lights, of_flats = (listed(_filters(cube)) for cube in (light, flat.isel(frame=numbers)))
    if of_lights and not of_flats:
        doubts.append(
            f"the flats state no FILTER; they are used for the lights of filter {of_lights}: make sure they are its"
        )
    elif of_flats and not of_lights:
        doubts.append(f"the lights state no FILTER; the flats of filter {of_flats} are used: make sure it is theirs")
    if of_flats and (unnamed := [str(name) for name in flat["filename"].values[flat["filter"].values == ""]]):
        doubts.append(
            f"{len(unnamed)} flats state no FILTER, where others do, and are not used ({listed(unnamed, 1)}): name "
            "their filter in frames.csv (column filter)"
        )
    return doubts


def no_flats(light: xr.DataArray, flat: xr.DataArray) -> str:
    """Say that none of the flats there are has the filter of these lights."""
    of_lights, of_flats = listed(_filters(light)), listed(_filters(flat))
    stays = "vignetting, dust and the pixels' own response stay in these lights"
    if not of_lights:
        count = light.sizes["frame"]
        return f"{count} lights state no FILTER, the flats are of {of_flats}: which are theirs is not known; {stays}"
    return f"no flats of filter {of_lights} (there are {of_flats}): {stays}; take flats through it"


def _folders(cube: xr.DataArray) -> list[str]:
    return list(dict.fromkeys(str(PurePosixPath(str(name)).parent) for name in cube["filename"].values))


def _filters(cube: xr.DataArray) -> list[str]:
    return sorted({str(name) for name in cube["filter"].values if name}, key=str.casefold)


@contextlib.contextmanager
def frames_alike(cube: xr.DataArray, *, scratch: str | Path | None, progress: bool) -> Iterator[Frames]:
    """Open the frames of a cube without the odd ones, which are among the `dropped`."""
    with Frames(cube, scratch=scratch, progress=progress) as frames:
        leave_out_odd(frames)
        yield frames


def leave_out_odd(frames: Frames, *, scaled: bool = False) -> list[int]:
    """Leave out frames that differ from most in more than `ODD` of their pixels; returns the places of the others.

    Differing is more than six times the scatter that most frames have about the frames' median; of flats (`scaled`),
    whose levels differ, that of frames brought to one level, or a frame's own scatter where that is larger.  Most
    frames must agree: of two that differ nobody knows which is wrong.
    """
    count = len(frames)
    share = np.zeros(count)
    for _, plane in planes(frames.sampled_rows()[1], frames.cell) if count > 2 else ():
        samples = plane.reshape(count, -1)
        samples = samples[:, :: max(1, samples.shape[1] // _ENOUGH)].astype(float)
        median = np.nanmedian if np.isnan(samples).any() else np.median  # of few frames the first is slow
        if scaled:
            samples /= np.maximum(median(samples, axis=0), 1)
            samples /= np.maximum(median(samples, axis=1, keepdims=True), 1e-6)
        away = np.abs(samples - median(samples, axis=0))
        spread = 1.25 * np.nanmean(away, axis=1, keepdims=True)  # the median is 0 where codes are coarse
        usual = float(np.median(spread))
        limit = _SIGMAS * (np.clip(spread, usual, 5 * usual) if scaled else max(usual, 0.5))  # codes are whole numbers
        share = np.maximum(share, (away > limit).mean(axis=1))
    odd = np.flatnonzero(share > ODD).tolist()
    if not odd or 2 * len(odd) >= count:
        return list(range(count))
    for number in odd:
        name = str(frames.cube["filename"].values[frames.kept[number]]) or f"frame {frames.kept[number]}"
        frames.dropped.append((name, f"differs from the others in {share[number]:.0%} of its pixels; look at it"))
    frames.leave_out(odd)
    return [number for number in range(count) if number not in odd]


def flicker(frames: Frames, pedestal: np.ndarray) -> tuple[float, float]:
    """Return by how much rows of flats are brighter or darker, otherwise in each frame (rms share), and how many σ.

    Both halves of a row have the lamp's light in common and noise of their own: the share's square is the mean product
    of what they are off.  Compared is with the mean of all frames, a curve of second order in each frame taken off, as
    twilight makes; (0, 0) of fewer than three frames or 24 rows.

    Parameters
    ----------
    frames
        Flats.
    pedestal
        Their offset (y, x) [ADU].
    """
    where, rows = frames.sampled_rows()
    light = rows.astype(np.float32) - pedestal[where]
    count, height, width = light.shape
    halves = np.stack([half.mean(axis=2, dtype=float) for half in (light[..., : width // 2], light[..., width // 2 :])])
    if count < 3 or height < 24 or not (halves > 0).all():
        return 0.0, 0.0
    off = np.log(halves) - np.log(halves).mean(axis=1, keepdims=True)
    parity = np.asarray(where) % frames.cell.shape[0]
    y = np.linspace(-1, 1, height)
    terms = np.stack([y, y**2, *(parity == number for number in np.unique(parity))]).astype(float)
    off -= off @ np.linalg.pinv(terms) @ terms
    freedom = (count - 1) * (height - len(terms))
    square = float((off[0] * off[1]).sum() / freedom)
    error = float(np.sqrt(np.square(off[0]).sum() * np.square(off[1]).sum() / freedom**3))
    return float(np.sqrt(max(square, 0.0))), square / max(error, 1e-300)


def flicker_warning(frames: Frames, pedestal: np.ndarray) -> list[str]:
    """Return a warning where the lamp flickers from row to row."""
    share, certainty = flicker(frames, pedestal)
    if share < _FLICKER or certainty < _CERTAIN:
        return []
    return [
        f"the light of the flats flickers: rows are brighter or darker by {share:.1%}, otherwise in each flat, and "
        f"{share / math.sqrt(len(frames)):.2%} of it stays in the master; expose for a tenth of a second or longer, or "
        "use a lamp that runs on neither the mains nor a dimmer"
    ]
