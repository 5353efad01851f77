"""Which flats belong to which lights: of their filter the session of each."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath

import numpy as np
import xarray as xr

from ..core.values import describe, listed
from ..ingest.metadata import kind_in_words

SESSION_GAP = np.timedelta64(8, "h")  # flats further apart belong to different nights
_FEWEST = 3  # flats of a session, where there is one of so many
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
        doubts.append(f"the lights state no FILTER; the flats of filter {of_flats} are used: make sure that they fit")
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
        return f"{count} lights state no FILTER, the flats are of {of_flats}: which fit is not known; {stays}"
    return f"no flats of filter {of_lights} (there are {of_flats}): {stays}; take flats through it"


def _folders(cube: xr.DataArray) -> list[str]:
    return list(dict.fromkeys(str(PurePosixPath(str(name)).parent) for name in cube["filename"].values))


def _filters(cube: xr.DataArray) -> list[str]:
    return sorted({str(name) for name in cube["filter"].values if name}, key=str.casefold)
