"""Which bias, darks and flats belong to which lights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import check_cube
from ..core.dark import TYPICAL_DOUBLING, law_factor
from ..core.errors import WorkbenchError
from ..core.settings import SETTING, setting_differs, setting_of
from ..core.values import describe
from .sessions import flat_doubts, flat_sessions, flats_in_words, no_flats, session_of

SAME_EXPOSURE = 0.01  # relative
SAME_TEMPERATURE = 2.0  # [K]: without a dark law darks count as fitting within this; so do the darks of one master
_PLACE = ("binning", "window")  # frames that differ in these see other parts of the sensor


@dataclass(frozen=True)
class Group:
    """Lights that share their masters: numbers of the frames in their cubes, and the dark's scale for each light.

    `flats_used` names the flats and why these were chosen; `adopted` names the kinds of which a master of another
    program stands in; `warnings` says what does not match and what follows from it.
    """

    lights: tuple[int, ...]
    bias: tuple[int, ...] = ()
    dark: tuple[int, ...] = ()
    flat: tuple[int, ...] = ()
    darkflat: tuple[int, ...] = ()
    flat_bias: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    flats_used: str = ""
    adopted: tuple[str, ...] = ()

    def in_words(self, light: xr.DataArray) -> str:
        """Say what these lights, of the cube that the group was made for, are calibrated with."""
        own = light.isel(frame=list(self.lights))
        setting = describe({**setting_of(own), "exposure": float(own["exposure"].values[0])})
        counts = {"bias": (self.bias, "bias frames"), "dark": (self.dark, "darks")}
        kinds = [f"a master {k}" if k in self.adopted else f"{len(n)} {what}" for k, (n, what) in counts.items() if n]
        kinds += ["a master flat" if "flat" in self.adopted else self.flats_used] if self.flat else []
        kinds += [f"{len(self.darkflat)} darkflats"] if self.darkflat and "flat" not in self.adopted else []
        return f"{len(self.lights)} lights ({setting}) calibrated with {', '.join(kinds) or 'nothing'}"


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

    Lights of one setting (`workbench.core.settings`), one exposure and one set of flats form a group.  Bias and darks
    must have the lights' whole setting; what a file does not state is not held against it, but reported.  Of several
    darks the nearest exposure, then the nearest temperature is taken.  Where it is not the same, the dark
    signal above the bias is multiplied with

        f = (t_light / t_dark) · 2^((T_light - T_dark) / T_d)

    which needs bias frames, and for the temperature the measured `doubling_temperature` T_d [K].  Flats go to the
    lights of their filter and session (`workbench.calibrate.sessions`); their own setting may be another.

    Raises
    ------
    WorkbenchError
        If frames of other cameras or sizes, or darks of another setting, are all there is, or darks of another exposure
        without bias; the message says what was found and what to shoot.

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
    sessions = flat_sessions(flat) if flat is not None else []
    keys: dict[tuple, list[int]] = {}
    for number in range(light.sizes["frame"]):
        session = session_of(light, number, flat, sessions) if flat is not None else (-1, "")
        exposure = float(light["exposure"].values[number])
        own = tuple(_comparable(value) for value in setting_of(light, number).values()), session
        like = (key for key in keys if key[0] == own and close(key[1], exposure, SAME_EXPOSURE))
        keys.setdefault(next(like, (own, exposure)), []).append(number)
    return [
        _group(light, numbers, (sessions[session] if session >= 0 else [], by), cubes, doubling_temperature)
        for ((_, (session, by)), _), numbers in keys.items()
    ]


class Calibration(NamedTuple):
    """Cubes of the calibration frames, None where there are none."""

    bias: xr.DataArray | None
    dark: xr.DataArray | None
    flat: xr.DataArray | None
    darkflat: xr.DataArray | None


def _group(
    light: xr.DataArray, numbers: list[int], session: tuple[list[int], str], cubes: Calibration, doubling: float
) -> Group:
    lights = light.isel(frame=numbers)
    setting = setting_of(lights)
    warnings: list[str] = []
    bias = _fitting(cubes.bias, setting)
    if cubes.bias is not None and not bias:
        warnings.append(f"{_both('bias frames', cubes.bias, lights, setting)}: not used for them")
    warnings += _unstated("bias frames", cubes.bias, bias, setting)
    darks = _matching_darks(cubes.dark, lights, bool(bias), warnings)
    factors = _factors(cubes.dark, darks, lights, bool(bias), doubling, warnings)
    if not darks:
        ground = f"{'the master bias' if bias else 'the black level from the files'} is subtracted"
        if not bias and not np.isfinite(light.attrs["black_level"]).all():
            ground = "nothing is subtracted, because neither bias frames nor the files give the black level"
        exposure = float(lights["exposure"].values[0])
        warnings.append(f"no darks for the lights of {exposure:g} s: {ground}; the dark signal stays")
    flats, by = session
    darkflats: list[int] = []
    flat_bias: list[int] = []
    if cubes.flat is None:
        warnings.append("no flats: vignetting, dust and the pixels' own response stay in the lights")
    elif not flats:
        warnings.append(no_flats(lights, cubes.flat))
    else:
        flats, darkflats, flat_bias = _for_flats(cubes.flat, flats, cubes, lights, bias, warnings)
        if flats:
            warnings += flat_doubts(lights, cubes.flat, flats, by)
    return Group(
        tuple(numbers), tuple(bias), tuple(darks), tuple(flats), tuple(darkflats), tuple(flat_bias), factors,
        tuple(warnings), flats_in_words(cubes.flat, flats, by) if cubes.flat is not None and flats else "",
        tuple(k for k, cube in cubes._asdict().items() if cube is not None and "combined" in cube.coords),
    )  # fmt: skip


def _for_flats(
    flat: xr.DataArray,
    flats: list[int],
    cubes: Calibration,
    lights: xr.DataArray,
    bias: list[int],
    warnings: list[str],
) -> tuple[list[int], list[int], list[int]]:
    """Return the flats of the lights' setting, else of that which most have, and their darkflats and bias frames."""
    own = setting_of(lights)
    elsewhere = [n for n in flats if set(_PLACE) & set(setting_differs(setting_of(flat, n), own))]
    if elsewhere:
        flats = [n for n in flats if n not in elsewhere]
        warnings.append(f"{_both(f'{len(elsewhere)} flats', flat.isel(frame=elsewhere), lights, own)}: not used")
    if not flats:
        return [], [], []
    usual = [tuple(_comparable(value) for value in setting_of(flat, n).values()) for n in flats]
    same = [n for n in flats if not setting_differs(setting_of(flat, n), own)]
    flats = same or [n for n, key in zip(flats, usual, strict=True) if key == max(usual, key=usual.count)]
    chosen = flat.isel(frame=flats)
    of_flats, of_lights = (cube["aperture"].dropna("frame").values for cube in (chosen, lights))
    if of_lights.size and of_flats.size and not np.isclose(np.median(of_lights), of_flats, rtol=0.02).all():
        warnings.append(
            f"the flats were taken at f/{_values(chosen, 'aperture')}, the lights at f/{_values(lights, 'aperture')}: "
            "the vignetting differs"
        )
    return (
        flats,
        _darkflats(cubes.darkflat, chosen, warnings),
        bias if same else _fitting(cubes.bias, setting_of(chosen)),
    )


def _darkflats(darkflat: xr.DataArray | None, flat: xr.DataArray, warnings: list[str]) -> list[int]:
    """Return the darkflats of the flats' setting and exposure."""
    if darkflat is None:
        return []
    setting, exposure = setting_of(flat), median_of(flat, "exposure")
    times, fitting = darkflat["exposure"].values, _fitting(darkflat, setting)
    found = [n for n in fitting if close(times[n], exposure, 0.1)]
    if not found:
        both = f"the darkflats have {_values(darkflat, 'exposure')} s, the flats {exposure:g} s"
        if not fitting:
            both = _both("darkflats", darkflat, flat, setting, "flats")
        warnings.append(f"{both}: the bias is used in their place")
    return found


def _matching_darks(dark: xr.DataArray | None, lights: xr.DataArray, has_bias: bool, warnings: list[str]) -> list[int]:
    """Return the darks of the lights' setting with the nearest exposure, then the nearest temperature."""
    if dark is None:
        return []
    setting, exposure = setting_of(lights), float(lights["exposure"].values[0])
    fitting = _fitting(dark, setting)
    if not fitting:
        raise WorkbenchError(
            f"{_both('darks', dark, lights, setting)}: their offset and gain differ; shoot darks at "
            f"{describe(setting)} and {exposure:g} s, or put these away to go on without darks"
        )
    warnings += _unstated("darks", dark, fitting, setting)
    times = dark["exposure"].values
    nearest = min((times[n] for n in fitting), key=lambda t: abs(math.log(max(t, 1e-9) / max(exposure, 1e-9))))
    if math.isfinite(exposure) and not close(nearest, exposure, SAME_EXPOSURE):
        if not has_bias:
            raise WorkbenchError(
                f"the darks have {_values(dark.isel(frame=fitting), 'exposure')} s, the lights {exposure:g} s: scaling "
                f"a dark needs bias frames at {describe(setting)}; shoot those, or darks of {exposure:g} s"
            )
        warnings.append(f"darks of {nearest:g} s are scaled to the lights' {exposure:g} s above the bias")
    fitting = [n for n in fitting if close(times[n], nearest, SAME_EXPOSURE)]
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


def require_one_setting(cube: xr.DataArray, task: str) -> dict[str, Any]:
    """Return the setting that all frames of a cube share.

    Raises
    ------
    WorkbenchError
        If two differ; the message names them and the `task` that wants one setting.
    """
    first = setting_of(cube)
    for number in range(1, cube.sizes["frame"]):
        if differing := setting_differs(first, other := setting_of(cube, number)):
            names = cube["filename"].values
            raise WorkbenchError(
                f"{task} needs frames of one setting; these have {_words(first, differing)} ({names[0]}) and "
                f"{_words(other, differing)} ({names[number]}): select one"
            )
    return first


def _fitting(cube: xr.DataArray | None, setting: Mapping[str, Any]) -> list[int]:
    """Return the frames that do not differ from a setting."""
    frames = range(0 if cube is None else cube.sizes["frame"])
    return [] if cube is None else [n for n in frames if not setting_differs(setting_of(cube, n), setting)]


def _both(what: str, cube: xr.DataArray, others: xr.DataArray, setting: Mapping[str, Any], of: str = "lights") -> str:
    """Name the setting of some frames and that of others, in what they differ, each with a file."""
    settings = [setting_of(cube, n) for n in range(cube.sizes["frame"])]
    differing = [name for name in SETTING if any(name in setting_differs(one, setting) for one in settings)]
    settings_there = list(dict.fromkeys(_words(one, differing) for one in settings))
    return (
        f"the {what} have {' and '.join(settings_there[:4])} ({cube['filename'].values[0]}), the {of} "
        f"{_words(setting, differing)} ({others['filename'].values[0]})"
    )


def _unstated(what: str, cube: xr.DataArray | None, numbers: list[int], setting: Mapping[str, Any]) -> list[str]:
    """Say which part of the lights' setting some frames do not state, and are taken to have."""
    if cube is None or not numbers:
        return []
    missing = [
        name
        for name in ("gain_setting", "offset_setting")
        if math.isfinite(setting[name]) and np.isnan(cube[name].values[numbers]).any()
    ]
    if not missing:
        return []
    keywords = " or ".join({"gain_setting": "GAIN", "offset_setting": "OFFSET"}[name] for name in missing)
    return [
        f"the {what} state no {keywords} ({cube['filename'].values[numbers[0]]}); they are taken to have the lights' "
        f"{_words(setting, missing)}: make sure they do"
    ]


def _words(setting: Mapping[str, Any], names: Sequence[str]) -> str:
    return describe({name: setting[name] for name in SETTING if name in names})


def _comparable(value: Any) -> Any:
    """Return a value of a setting so that equal ones, and two unknown ones, are equal."""
    return value.casefold() if isinstance(value, str) else f"{value:.6g}"


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
