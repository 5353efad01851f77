"""Which bias, darks and flats belong to which lights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import check_cube
from ..core.dark import TYPICAL_DOUBLING, law_factor
from ..core.errors import WorkbenchError

SAME_EXPOSURE = 0.01  # relative
SAME_TEMPERATURE = 2.0  # [K]: without a dark law darks count as fitting within this; so do the darks of one master
SESSION_GAP = np.timedelta64(8, "h")  # flats further apart belong to different nights


@dataclass(frozen=True)
class Group:
    """Lights that share their masters: numbers of the frames in their cubes, and the dark's scale for each light.

    `warnings` says what does not match and what follows from it.
    """

    lights: tuple[int, ...]
    bias: tuple[int, ...] = ()
    dark: tuple[int, ...] = ()
    flat: tuple[int, ...] = ()
    darkflat: tuple[int, ...] = ()
    flat_bias: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_groups(
    light: xr.DataArray,
    *,
    bias: xr.DataArray | None = None,
    dark: xr.DataArray | None = None,
    flat: xr.DataArray | None = None,
    darkflat: xr.DataArray | None = None,
    doubling_temperature: float = math.nan,
) -> list[Group]:
    """Decide which calibration frames belong to which lights; nothing is read.

    Lights of one ISO, one exposure and one set of flats form a group.  Bias and darks must have the lights' ISO.  Of
    several darks the nearest exposure, then the nearest temperature is taken.  Where it is not the same, the dark
    signal above the bias is multiplied with

        f = (t_light / t_dark) · 2^((T_light - T_dark) / T_d)

    which needs bias frames, and for the temperature the measured `doubling_temperature` T_d [K].  Flats of several
    nights (folders, or eight hours apart) go to the lights of their own folder's branch, else to the nearest in time.

    Raises
    ------
    WorkbenchError
        If frames of other cameras, sizes or ISOs are all there is, or darks of another exposure without bias; the
        message says what was found and what to shoot.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> frames = np.zeros((2, 4, 6), "uint16")
    >>> light = make_cube(frames, cfa_pattern="RGGB", kind="light", iso=200, exposure=120, black_level=600)
    >>> bias = make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=200, exposure=0)
    >>> dark = make_cube(frames, cfa_pattern="RGGB", kind="dark", iso=200, exposure=60)
    >>> (group,) = plan_groups(light, bias=bias, dark=dark)
    >>> group.lights, group.factors
    ((0, 1), (2.0, 2.0))
    """
    check_cube(light, stage="raw", kind="light")
    cubes = Calibration(bias, dark, flat, darkflat)
    for what, cube in zip(("bias frames", "darks", "flats", "darkflats"), cubes, strict=True):
        if cube is not None:
            _require_fit(cube, light, what)
    sessions = _sessions(flat) if flat is not None else []
    keys: dict[tuple, list[int]] = {}
    for number in range(light.sizes["frame"]):
        session = _session_of(light, number, flat, sessions) if flat is not None and sessions else -1
        iso, exposure = (float(light[name].values[number]) for name in ("iso", "exposure"))
        like = (k for k in keys if close(k[0], iso, 1e-6) and close(k[1], exposure, SAME_EXPOSURE) and k[2] == session)
        keys.setdefault(next(like, (iso, exposure, session)), []).append(number)
    return [
        _group(light, numbers, sessions[session] if session >= 0 else [], cubes, doubling_temperature)
        for (_, _, session), numbers in keys.items()
    ]


class Calibration(NamedTuple):
    """Cubes of the calibration frames, None where there are none."""

    bias: xr.DataArray | None
    dark: xr.DataArray | None
    flat: xr.DataArray | None
    darkflat: xr.DataArray | None


def _group(light: xr.DataArray, numbers: list[int], flats: list[int], cubes: Calibration, doubling: float) -> Group:
    lights = light.isel(frame=numbers)
    iso, exposure = (float(lights[name].values[0]) for name in ("iso", "exposure"))
    bias = _with_iso(cubes.bias, iso)
    warnings: list[str] = []
    if cubes.bias is not None and not bias:
        warnings.append(
            f"the bias frames have ISO {_values(cubes.bias, 'iso')}, the lights ISO {iso:g}: not used for them"
        )
    darks = _matching_darks(cubes.dark, lights, bool(bias), warnings)
    factors = _factors(cubes.dark, darks, lights, bool(bias), doubling, warnings)
    if not darks:
        ground = f"{'the master bias' if bias else 'the black level from the files'} is subtracted"
        if not bias and not np.isfinite(light.attrs["black_level"]).all():
            ground = "nothing is subtracted, because neither bias frames nor the files give the black level"
        warnings.append(f"no darks for the lights of {exposure:g} s: {ground}; the dark signal stays")
    if not flats or cubes.flat is None:
        warnings.append("no flats: vignetting, dust and the pixels' own response stay in the lights")
        return Group(tuple(numbers), tuple(bias), tuple(darks), factors=factors, warnings=tuple(warnings))
    flats, darkflats, flat_bias = _for_flats(cubes.flat, flats, cubes, lights, bias, warnings)
    own = tuple(flats), tuple(darkflats), tuple(flat_bias)
    return Group(tuple(numbers), tuple(bias), tuple(darks), *own, factors, tuple(warnings))


def _for_flats(
    flat: xr.DataArray,
    flats: list[int],
    cubes: Calibration,
    lights: xr.DataArray,
    bias: list[int],
    warnings: list[str],
) -> tuple[list[int], list[int], list[int]]:
    """Return the flats of the lights' ISO, else of that which most have, and their darkflats and bias frames."""
    darkflat, iso = cubes.darkflat, float(lights["iso"].values[0])
    isos = flat["iso"].values
    values, counts = np.unique(isos[flats], return_counts=True)
    wanted = iso if any(close(isos[n], iso, 1e-6) for n in flats) else values[counts.argmax()]
    flats = [n for n in flats if close(isos[n], wanted, 1e-6)]
    flat_iso, flat_exposure = (median_of(flat, name, flats) for name in ("iso", "exposure"))
    of_flats, of_lights = (cube["aperture"].values for cube in (flat.isel(frame=flats), lights))
    of_flats, of_lights = of_flats[np.isfinite(of_flats)], of_lights[np.isfinite(of_lights)]
    if of_lights.size and of_flats.size and not np.isclose(np.median(of_lights), of_flats, rtol=0.02).all():
        warnings.append(
            f"the flats were taken at f/{_values(flat.isel(frame=flats), 'aperture')}, the lights at "
            f"f/{_values(lights, 'aperture')}: the vignetting differs"
        )
    times = darkflat["exposure"].values if darkflat is not None else np.zeros(0)
    own = [n for n in _with_iso(darkflat, flat_iso) if close(times[n], flat_exposure, 0.1)]
    if darkflat is not None and not own:
        warnings.append(
            f"the darkflats have ISO {_values(darkflat, 'iso')} and {_values(darkflat, 'exposure')} s, the flats ISO "
            f"{flat_iso:g} and {flat_exposure:g} s: the bias is used in their place"
        )
    return flats, own, bias if close(flat_iso, iso, 1e-6) else _with_iso(cubes.bias, flat_iso)


def _matching_darks(dark: xr.DataArray | None, lights: xr.DataArray, has_bias: bool, warnings: list[str]) -> list[int]:
    """Return the darks of the lights' ISO with the nearest exposure, then the nearest temperature."""
    if dark is None:
        return []
    iso, exposure = (float(lights[name].values[0]) for name in ("iso", "exposure"))
    fitting = _with_iso(dark, iso)
    if not fitting:
        raise WorkbenchError(
            f"the darks have ISO {_values(dark, 'iso')}, the lights ISO {iso:g}: their offset and gain differ; shoot "
            f"darks at ISO {iso:g} and {exposure:g} s, or put these away to go on without darks"
        )
    times = dark["exposure"].values
    nearest = min((times[n] for n in fitting), key=lambda t: abs(math.log(max(t, 1e-9) / max(exposure, 1e-9))))
    fitting = [n for n in fitting if close(times[n], nearest, SAME_EXPOSURE)]
    if math.isfinite(exposure) and not close(nearest, exposure, SAME_EXPOSURE):
        if not has_bias:
            raise WorkbenchError(
                f"the darks have {_values(dark, 'exposure')} s, the lights {exposure:g} s: scaling a dark needs "
                f"bias frames at ISO {iso:g}; shoot those, or darks of {exposure:g} s"
            )
        warnings.append(f"darks of {nearest:g} s are scaled to the lights' {exposure:g} s above the bias")
    degrees = dark["temperature"].values
    wanted = median_of(lights, "temperature")
    if not math.isfinite(wanted) or not np.isfinite(degrees[fitting]).any():
        return fitting
    best = min((degrees[n] for n in fitting if np.isfinite(degrees[n])), key=lambda t: abs(t - wanted))
    return [n for n in fitting if abs(degrees[n] - best) <= SAME_TEMPERATURE]


def _factors(
    dark: xr.DataArray | None,
    darks: list[int],
    lights: xr.DataArray,
    has_bias: bool,
    doubling: float,
    warnings: list[str],
) -> tuple[float, ...]:
    """Return the dark's scale for each light: by exposure, and by temperature where the dark law is known."""
    exposure = float(lights["exposure"].values[0])
    factors = np.ones(lights.sizes["frame"])
    if dark is None or not darks:
        return tuple(factors.tolist())
    seconds, celsius = (median_of(dark, name, darks) for name in ("exposure", "temperature"))
    if has_bias and not close(seconds, exposure, SAME_EXPOSURE) and math.isfinite(exposure):
        factors *= exposure / seconds
    warmer = np.nan_to_num(lights["temperature"].values - celsius)
    if has_bias and math.isfinite(doubling):
        factors *= law_factor("doubling", doubling, warmer, 0.0)
    elif np.abs(warmer).max() > SAME_TEMPERATURE:
        worst = float(warmer[np.abs(warmer).argmax()])
        factor = float(law_factor("doubling", TYPICAL_DOUBLING, abs(worst), 0.0))
        missing = " and ".join(
            word
            for word, absent in (("bias frames", not has_bias), ("a measured dark law", math.isnan(doubling)))
            if absent
        )
        warnings.append(
            f"the darks were taken at {celsius:g} °C, the lights at up to {worst:+.3g} K from that: their dark signal "
            f"may be off by a factor of {factor:.2g}; to scale it takes {missing}"
        )
    if factors.max() > 2:
        warnings.append(f"the dark is scaled up to {factors.max():.3g} times, and its noise with it: take longer darks")
    return tuple(np.where(np.abs(factors - 1) < 1e-3, 1.0, factors).tolist())


def _sessions(flat: xr.DataArray) -> list[list[int]]:
    """Return the flats that were taken together: of one folder, without a gap of eight hours."""
    folders: dict[str, list[int]] = {}
    for number, name in enumerate(flat["filename"].values):
        folders.setdefault(str(PurePosixPath(str(name)).parent), []).append(number)
    sessions = []
    for numbers in folders.values():
        times = flat["time"].values[numbers]
        if np.isnat(times).any():
            sessions.append(numbers)
            continue
        order = np.argsort(times, kind="stable")
        breaks = np.flatnonzero(np.diff(times[order]) > SESSION_GAP) + 1
        sessions += [sorted(numbers[index] for index in run) for run in np.split(order, breaks)]
    return sessions


def _session_of(light: xr.DataArray, number: int, flat: xr.DataArray, sessions: list[list[int]]) -> int:
    """Return which flats have the light's own branch of folders, else which are the nearest in time."""
    parts = PurePosixPath(str(light["filename"].values[number])).parent.parts

    def rank(session: list[int]) -> tuple[float, float]:
        others = PurePosixPath(str(flat["filename"].values[session[0]])).parent.parts
        shared = next(
            (n for n, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b), min(len(parts), len(others))
        )
        time, times = light["time"].values[number], flat["time"].values[session]
        if np.isnat(time) or np.isnat(times).all():
            return -shared, 0.0
        return -shared, float(np.nanmin(np.abs((times - time) / np.timedelta64(1, "s"))))

    return min(range(len(sessions)), key=lambda number: rank(sessions[number]))


def _difference(first: xr.DataArray | xr.Dataset, second: xr.DataArray | xr.Dataset) -> tuple[str, str, str] | None:
    """Return the first of camera, size and CFA pattern in which two differ, and both values."""
    known = (
        (array.attrs["camera"], f"{array.sizes['x']} x {array.sizes['y']} pixels", array.attrs["cfa_pattern"])
        for array in (first, second)
    )
    for name, one, other in zip(("camera", "size", "CFA pattern"), *known, strict=True):
        if one != other:
            return name, one or "unknown", other or "unknown"
    return None


def _require_fit(cube: xr.DataArray, light: xr.DataArray, what: str) -> None:
    if (differing := _difference(cube, light)) is not None:
        name, other, ours = differing
        raise WorkbenchError(
            f"the {what} have {name} {other} ({cube['filename'].values[0]}), the lights {ours} "
            f"({light['filename'].values[0]}): they do not belong together; put the {what} away"
        )


def require_alike(frames: xr.DataArray, master: xr.Dataset, what: str) -> None:
    """Refuse to bring frames and a master of different cameras, mosaics or sizes together."""
    if (differing := _difference(frames, master)) is not None:
        name, ours, other = differing
        raise WorkbenchError(
            f"the {what} have {name} {ours}, the master {master.attrs['kind']} {other}: they do not belong together"
        )


def require_one_temperature(cube: xr.DataArray) -> None:
    """Refuse darks whose temperatures are too far apart for one master."""
    known = cube["temperature"].values
    known = known[np.isfinite(known)]
    if known.size and np.ptp(known) > 2 * SAME_TEMPERATURE:
        names = cube["filename"].values
        coldest, warmest = (int(pick(cube["temperature"].values)) for pick in (np.nanargmin, np.nanargmax))
        raise WorkbenchError(
            f"the darks' temperature runs from {known.min():g} °C ({names[coldest]}) to {known.max():g} °C "
            f"({names[warmest]}); for one master they must lie within {2 * SAME_TEMPERATURE:g} K: make several"
        )


def _with_iso(cube: xr.DataArray | None, iso: float) -> list[int]:
    return [] if cube is None else [n for n, value in enumerate(cube["iso"].values) if close(value, iso, 1e-6)]


def median_of(cube: xr.DataArray, name: str, numbers: Sequence[int] | None = None) -> float:
    """Return the median of a coordinate over some frames, or all; NaN where none is known."""
    values = cube[name].values if numbers is None else cube[name].values[list(numbers)]
    return float(np.nanmedian(values)) if np.isfinite(values).any() else math.nan


def _values(cube: xr.DataArray, name: str) -> str:
    return ", ".join(f"{value:g}" for value in np.unique(cube[name].values)[:5])


def close(first: float, second: float, tolerance: float) -> bool:
    """Return whether two values are equal within a relative tolerance; two unknown ones (NaN) are."""
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return math.isclose(first, second, rel_tol=tolerance, abs_tol=1e-12)
