"""A measured sensor as one Dataset, and its file ``sensor.json``.

`sensor_dataset` puts the measurements together, `write_sensor` and `open_sensor` take them to the file and back.  The
file's form is in ``sensor.schema.json`` beside this module and in docs/sensor-json.md; what was not measured is NaN
here and null there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import WorkbenchError
from .files import whole_file

SCHEMA = Path(__file__).with_name("sensor.schema.json")
SCHEMA_VERSION = 2
READABLE = (1, 2)  # version 1 lacks what came later; it is NaN then
FILE = "sensor.json"

_SETTINGS = {"black_level": "ADU", "gain": "e-/ADU", "read_noise": "e- rms"}
# measured of a setting since version 2
_DETAILS = {
    "dynamic_range": "stops",
    "full_well": "e-",
    "linearity_error": "%",
    "gain_from_darks": "e-/ADU",
    "curvature": "1/e-",
}
_NUMBERS = {"linearity_error_min": "%", "linearity_error_max": "%", "gain_from_darks_agrees": "1"}
_METHODS = {
    "read_noise_method": "how the read noise was measured",
    "full_well_method": "how saturation was found",
    "full_well_limit": "what saturates first",
}
_SPLIT = {"noise_before_gain": "e- rms", "noise_after_gain": "ADU rms", "invariance_iso": "ISO"}
_COUNTS = {"frames_used": "frames used", "bias_frames": "bias frames used", "flat_frames": "flats used"}
_LAW = {"doubling_temperature": "K", "dark_current_reference": "e-/s/pixel", "activation_energy": "eV"}
# what is kept as it stands in the file: JSON in the attribute ``blocks``
BLOCKS = ("dsnu", "prnu", "dcnu", "defects", "emva", "fidelity")
_TITLES = {
    "black_level": "black level",
    "gain": "gain",
    "read_noise": "read noise",
    "unity_gain_iso": "unity-gain ISO",
    "dark_current": "dark current",
    "dark_current_median": "median dark current",
    "doubling_temperature": "doubling temperature of the dark current",
    "dark_current_reference": "dark current at the reference temperature",
    "reference_temperature": "reference temperature",
    "activation_energy": "activation energy of the dark current",
    "dynamic_range": "dynamic range",
    "full_well": "full well",
    "linearity_error": "linearity error",
    "linearity_error_min": "least deviation from the line",
    "linearity_error_max": "greatest deviation from the line",
    "gain_from_darks": "gain from darks alone",
    "gain_from_darks_agrees": "whether it agrees with the flats' gain",
    "curvature": "curvature of the photon transfer curve",
    "noise_before_gain": "read noise before the gain",
    "noise_after_gain": "read noise after the gain",
    "invariance_iso": "ISO from which nothing is gained",
}


def is_simulated(camera: str) -> bool:
    """Tell whether a camera's name says that its frames are simulated.

    Examples
    --------
    >>> is_simulated("NIKON D7000 (simulated)"), is_simulated("NIKON D7000")
    (True, False)
    """
    return "simulated" in (camera or "").casefold()


def sensor_dataset(
    camera: str,
    *,
    read: xr.Dataset | None = None,
    ptc: xr.Dataset | None = None,
    gain: xr.Dataset | None = None,
    unity: xr.Dataset | None = None,
    dark_current: xr.Dataset | None = None,
    dark_law: xr.Dataset | None = None,
    split: xr.Dataset | None = None,
    wells: xr.Dataset | None = None,
    dynamic_range: xr.Dataset | None = None,
    linearity: xr.Dataset | None = None,
    curvature: xr.Dataset | None = None,
    dark_gain: xr.Dataset | None = None,
    channels: Iterable[str] = (),
    warnings: Iterable[str] = (),
    blocks: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Put the measurements of one camera together.

    Parameters
    ----------
    read, ptc, gain, unity, dark_current, dark_law
        Results of `sensor.read_noise`, `photon_transfer`, `fit_gain`, `unity_gain_iso`, `dark_current`, `dark_law`;
        None for what these frames do not give.
    split, wells, dynamic_range, linearity, curvature, dark_gain
        Results of `sensor.split_read_noise`, `full_well`, `dynamic_range`, `linearity`, `fit_curvature`, and
        `compare_gains` (or `gain_from_darks`).
    channels
        The camera's channels, if none of the results tells them.
    blocks
        Further results in the form that they have in the file, under names of `BLOCKS`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``black_level`` [ADU], ``gain`` [e⁻/ADU], ``read_noise`` [e⁻ rms], the product of the read
        noise in ADU and the gain; ``dynamic_range`` [stops], ``full_well`` [e⁻], ``linearity_error`` [%],
        ``gain_from_darks`` [e⁻/ADU], ``curvature`` [1/e⁻], each with ``_error``; ``linearity_error_min`` and ``_max``
        [%], ``gain_from_darks_agrees`` (1, 0, NaN), ``read_noise_method``, ``full_well_method``, ``full_well_limit``;
        ``frames_used``, ``bias_frames``, ``flat_frames``.  Over setting (``setting_iso``, ``setting_temperature``):
        ``dark_current`` [e⁻/s/pixel] with error, ``dark_current_median``, ``saturated_pixels``.  Scalars:
        ``unity_gain_iso``, ``noise_before_gain`` [e⁻ rms], ``noise_after_gain`` [ADU rms], ``invariance_iso``,
        ``doubling_temperature``, ``dark_current_reference``, ``activation_energy``, each with error, and
        ``reference_temperature``.  attrs: ``camera``, ``simulated``, ``warnings``, ``blocks``.
    """
    measured = [part for part in (read, gain) if part is not None]
    names = [str(name) for name in (measured[0]["channel"].values if measured else channels)]
    isos = np.unique(np.concatenate([part["iso"].values for part in measured] or [np.empty(0)]).astype(float))
    blank = np.full((isos.size, len(names)), np.nan)
    values = {name: blank.copy() for key in _SETTINGS | _DETAILS for name in (key, f"{key}_error")}
    values |= {name: blank.copy() for name in _NUMBERS} | {name: np.full(blank.shape, "", object) for name in _METHODS}
    values |= {name: np.zeros(blank.shape, int) for name in _COUNTS}
    for row, iso in enumerate(isos):
        zero = _at(read, iso)
        slope = _at(gain, iso)
        if zero is not None:
            values["black_level"][row] = zero["black_level"]
            values["black_level_error"][row] = zero["black_level_error"]
            values["bias_frames"][row] = int(zero["frames"])
        if slope is not None:
            values["gain"][row], values["gain_error"][row] = slope["gain"], slope["gain_error"]
            values["flat_frames"][row] = _flats_used(ptc, gain, iso, len(names))
        if zero is not None and slope is not None:
            noise, factor = zero["read_noise_adu"].values, slope["gain"].values
            values["read_noise"][row] = noise * factor
            values["read_noise_error"][row] = np.hypot(
                zero["read_noise_adu_error"].values * factor, noise * slope["gain_error"].values
            )
    values["frames_used"] = values["bias_frames"] + values["flat_frames"]
    for part, source, target in (
        (read, "method", "read_noise_method"),
        (wells, "method", "full_well_method"),
        (wells, "limit", "full_well_limit"),
        (linearity, "linearity_error_min", "linearity_error_min"),
        (linearity, "linearity_error_max", "linearity_error_max"),
        (dark_gain, "agrees", "gain_from_darks_agrees"),
        *(
            (part, f"{source}{tail}", f"{target}{tail}")
            for part, source, target in (
                (wells, "full_well", "full_well"),
                (dynamic_range, "dynamic_range", "dynamic_range"),
                (linearity, "linearity_error", "linearity_error"),
                (dark_gain, "gain", "gain_from_darks"),
                (curvature, "curvature", "curvature"),
            )
            for tail in ("", "_error")
        ),
    ):
        for row, iso in enumerate(isos):
            one = None if part is None or source not in part else _at(part, iso)
            if one is not None:
                blank_value = "" if target in _METHODS else np.nan
                values[target][row] = one[source].reindex(channel=names, fill_value=blank_value).values
    known = np.isfinite(values["gain_from_darks"]) & np.isfinite(values["gain"])
    values["gain_from_darks_agrees"] = np.where(known, values["gain_from_darks_agrees"], np.nan)
    data: dict[str, Any] = {}
    for name, unit in _NUMBERS.items():
        data[name] = (("iso", "channel"), values[name], {"units": unit, "long_name": _TITLES[name]})
    for name, text in _METHODS.items():
        data[name] = (("iso", "channel"), values[name], {"long_name": text})
    for key, unit in (_SETTINGS | _DETAILS).items():
        data[key] = (("iso", "channel"), values[key], {"units": unit, "long_name": _TITLES[key]})
        data[f"{key}_error"] = (
            ("iso", "channel"),
            values[f"{key}_error"],
            {"units": unit, "long_name": f"error of the {_TITLES[key]}"},
        )
    data |= {name: (("iso", "channel"), values[name], {"long_name": text}) for name, text in _COUNTS.items()}
    dark = {
        name: np.empty(0)
        for name in ("iso", "temperature", "dark_current", "dark_current_error", "median", "saturated_pixels")
    }
    if dark_current is not None:
        dark = {name: dark_current[name].values.astype(float) for name in dark}
    scalars = {}
    for part, key in (
        (unity, "unity_gain_iso"),
        (dark_law, "doubling_temperature"),
        (dark_law, "dark_current_reference"),
        (dark_law, "activation_energy"),
    ):
        for name in (key, f"{key}_error"):
            scalars[name] = float(part[name]) if part is not None and name in part else np.nan
    scalars["reference_temperature"] = np.nan if dark_law is None else float(dark_law["reference_temperature"])
    for key, name in (
        ("noise_before_gain", "before_gain"), ("noise_after_gain", "after_gain"), ("invariance_iso", "invariance_iso"),
    ):  # fmt: skip
        for tail in ("", "_error"):
            scalars[f"{key}{tail}"] = np.nan if split is None else float(split[f"{name}{tail}"])
    return _assemble(camera, isos, names, data, dark, scalars, list(warnings), dict(blocks or {}))


def _assemble(
    camera: str,
    isos: np.ndarray,
    names: list[str],
    data: dict[str, Any],
    dark: dict[str, np.ndarray],
    scalars: dict[str, float],
    warnings: list[str],
    blocks: dict[str, Any],
) -> xr.Dataset:
    per_second = {"units": "e-/s/pixel"}
    data |= {
        "dark_current": ("setting", dark["dark_current"], per_second | {"long_name": _TITLES["dark_current"]}),
        "dark_current_error": ("setting", dark["dark_current_error"], per_second | {"long_name": "its error"}),
        "dark_current_median": ("setting", dark["median"], per_second | {"long_name": _TITLES["dark_current_median"]}),
        "saturated_pixels": (
            "setting",
            dark["saturated_pixels"].astype(int),
            {"long_name": "saturated pixels left out"},
        ),
    }
    units = {"unity_gain_iso": "ISO", "reference_temperature": "°C"} | _LAW | _SPLIT
    for name, value in scalars.items():
        key = name.removesuffix("_error")
        title = _TITLES[key] if key == name else f"error of the {_TITLES[key]}"
        data[name] = ((), float(value), {"units": units[key], "long_name": title})
    coords = {
        "iso": ("iso", isos, {"long_name": "ISO setting"}),
        "channel": names,
        "setting_iso": ("setting", dark["iso"], {"long_name": "ISO setting"}),
        "setting_temperature": ("setting", dark["temperature"], {"units": "°C", "long_name": "sensor temperature"}),
    }
    attrs = {
        "camera": camera,
        "simulated": is_simulated(camera),
        "warnings": warnings,
        "long_name": "measured sensor",
        "blocks": blocks,
    }
    return xr.Dataset(data, coords, attrs)


def _at(part: xr.Dataset | None, iso: float) -> xr.Dataset | None:
    if part is None:
        return None
    values = part["iso"].values
    where = np.flatnonzero(np.isnan(values) if np.isnan(iso) else values == iso)
    return part.isel(iso=where[0]) if where.size else None


def _flats_used(ptc: xr.Dataset | None, gain: xr.Dataset, iso: float, channels: int) -> list[int]:
    """Count the different flats in the pairs that each channel's fit used."""
    if ptc is None:
        return [0] * channels
    here = np.isnan(ptc["iso"].values) if np.isnan(iso) else ptc["iso"].values == iso
    counts = []
    for channel in range(channels):
        used = here & gain["used"].values[:, channel]
        counts.append(len({*ptc["filename_1"].values[used], *ptc["filename_2"].values[used]}))
    return counts


def write_sensor(sensor: xr.Dataset, path: str | Path) -> Path:
    """Write a `sensor_dataset` as JSON; the file appears whole or not at all.

    Parameters
    ----------
    path
        The file, or a folder in which ``sensor.json`` is written.

    Raises
    ------
    WorkbenchError
        If it cannot be written there.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    text = sensor_text(sensor)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def sensor_text(sensor: xr.Dataset) -> str:
    """Return what `write_sensor` puts into the file."""
    return json.dumps(_to_json(sensor), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _to_json(sensor: xr.Dataset) -> dict[str, Any]:
    settings = []
    for row, iso in enumerate(sensor["iso"].values):
        for column, channel in enumerate(sensor["channel"].values):
            entry: dict[str, Any] = {"iso": json_number(iso), "channel": str(channel)}
            for key, unit in (_SETTINGS | _DETAILS).items():
                entry[key] = _quantity(
                    sensor[key].values[row, column], sensor[f"{key}_error"].values[row, column], unit
                )
            entry |= {name: sensor[name].values[row, column] or None for name in _METHODS}
            entry |= {name: json_number(sensor[name].values[row, column]) for name in _NUMBERS}
            entry |= {name: int(sensor[name].values[row, column]) for name in _COUNTS}
            settings.append(entry)
    dark = [
        {
            "iso": json_number(sensor["setting_iso"].values[i]),
            "temperature_c": json_number(sensor["setting_temperature"].values[i]),
            "value": json_number(sensor["dark_current"].values[i]),
            "error": json_number(sensor["dark_current_error"].values[i]),
            "unit": "e-/s/pixel",
            "median": json_number(sensor["dark_current_median"].values[i]),
            "saturated_pixels": int(sensor["saturated_pixels"].values[i]),
        }
        for i in range(sensor.sizes["setting"])
    ]
    law: dict[str, Any] = {
        key: _quantity(sensor[key].item(), sensor[f"{key}_error"].item(), unit) for key, unit in _LAW.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "camera": sensor.attrs["camera"],
        "simulated": bool(sensor.attrs["simulated"]),
        "settings": settings,
        "unity_gain_iso": _quantity(sensor["unity_gain_iso"].item(), sensor["unity_gain_iso_error"].item(), "ISO"),
        "read_noise_split": {
            key: _quantity(sensor[key].item(), sensor[f"{key}_error"].item(), unit) for key, unit in _SPLIT.items()
        },
        "full_well": at_lowest_iso(sensor, "full_well", {"method": "full_well_method", "limit": "full_well_limit"}),
        "linearity": at_lowest_iso(
            sensor, "linearity_error", {"minimum": "linearity_error_min", "maximum": "linearity_error_max"}
        ),
        "gain_from_darks": [
            {"iso": entry["iso"], "channel": entry["channel"]}
            | entry["gain_from_darks"]
            | {"agrees_with_flats": agrees}
            for entry, agrees in zip(settings, _truths(sensor["gain_from_darks_agrees"].values), strict=True)
            if entry["gain_from_darks"] is not None
        ],
        "dark_current": dark,
        "dark_law": law | {"reference_temperature": json_number(sensor["reference_temperature"].item())},
        **{name: value for name, value in sensor.attrs.get("blocks", {}).items() if name in BLOCKS},
        "warnings": [str(text) for text in sensor.attrs["warnings"]],
    }


def at_lowest_iso(data: xr.Dataset, key: str, more: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return a quantity of the lowest ISO that has it, of its first green or the only channel there.

    Green, because cameras that multiply colours before saving leave it as it is: a multiplied colour ends at fewer
    electrons, for the scale's sake and not the pixel's.

    Parameters
    ----------
    data
        Over (iso, channel), with ``key`` and its ``_error``.
    more
        Names for what goes with it, and the variable that each is.

    Returns
    -------
    dict or None
        ``iso``, ``channel``, ``value``, ``error``, ``unit`` and what was asked for; None where nothing is measured.
    """
    for iso in np.argsort(data["iso"].values):
        known = data.isel(iso=iso, channel=np.flatnonzero(np.isfinite(data[key].values[iso])))
        if known.sizes["channel"]:
            names = known["channel"].values.tolist()
            one = known.sel(channel=next((name for name in ("G1", "G2") if name in names), names[0]))
            found = {"iso": json_number(one["iso"].item()), "channel": str(one["channel"].item())}
            found |= _quantity(one[key].item(), one[f"{key}_error"].item(), (_SETTINGS | _DETAILS)[key]) or {}
            for name, source in (more or {}).items():
                value = one[source].item()
                found[name] = (value or None) if source in _METHODS else json_number(value)
            return found
    return None


def place_of(quantity: Mapping[str, Any], *, why: bool = False) -> str:
    """Say in words where a quantity of `at_lowest_iso` holds, and why there.

    Examples
    --------
    >>> place_of({"iso": 100, "channel": "G1"}), place_of({"iso": None, "channel": "mono"})
    ('ISO 100, G1', '')
    >>> place_of({"iso": 100, "channel": "G1"}, why=True)
    'ISO 100, G1: cameras may multiply red and blue, green never'
    """
    channel = quantity["channel"]
    parts = [f"ISO {quantity['iso']:g}"] if quantity["iso"] is not None else []
    place = ", ".join([*parts, *([] if channel == "mono" else [channel])])
    return place + (": cameras may multiply red and blue, green never" if why and channel in ("G1", "G2") else "")


def _truths(values: np.ndarray) -> list[bool | None]:
    return [None if math.isnan(value) else bool(value) for value in values.ravel()]


def json_number(value: float) -> float | int | None:
    """Return a number as JSON has it: null for what is not finite, whole numbers without a point."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _quantity(value: float, error: float, unit: str) -> dict[str, Any] | None:
    if not math.isfinite(value):
        return None
    return {"value": float(value), "error": float(error) if math.isfinite(error) else None, "unit": unit}


def open_sensor(path: str | Path) -> xr.Dataset:
    """Open a ``sensor.json`` (or the folder it is in) as the Dataset it was written from; see `sensor_dataset`.

    Raises
    ------
    WorkbenchError
        If there is no such file, or it is not a sensor.json of a version that this workbench knows.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbenchError(f"{file}: there is no such file; `workbench characterize` writes one") from None
    except OSError as error:
        raise WorkbenchError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise WorkbenchError(f"{file}: not a JSON file ({error}); give the {FILE} that characterize wrote") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READABLE:
        found = "no schema_version" if version is None else f"schema_version {version!r}"
        raise WorkbenchError(
            f"{file}: {found} where {' or '.join(map(str, READABLE))} is expected; give a {FILE} that "
            "characterize wrote, or measure the frames again with this version of the workbench"
        )
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise WorkbenchError(f"{file}: not a complete {FILE} ({what}); measure the frames again") from error


def _from_json(content: dict[str, Any]) -> xr.Dataset:
    settings, dark_list, law = content["settings"], content["dark_current"], content["dark_law"]
    names = list(dict.fromkeys(str(entry["channel"]) for entry in settings))
    isos = list(dict.fromkeys(entry["iso"] for entry in settings))
    place = {(entry["iso"], entry["channel"]): entry for entry in settings}
    data: dict[str, Any] = {}
    shape = len(isos), len(names)
    for name, text in _METHODS.items():
        words = [[place[iso, channel].get(name) or "" for channel in names] for iso in isos]
        data[name] = (("iso", "channel"), np.array(words, object).reshape(shape), {"long_name": text})
    for name, unit in _NUMBERS.items():
        values = [[_float(place[iso, channel].get(name)) for channel in names] for iso in isos]
        attrs = {"units": unit, "long_name": _TITLES[name]}
        data[name] = (("iso", "channel"), np.array(values, float).reshape(shape), attrs)
    for key, unit in (_SETTINGS | _DETAILS).items():
        for name, part, title in ((key, "value", ""), (f"{key}_error", "error", "error of the ")):
            # what every version has must be there
            entries = [[place[iso, channel] for channel in names] for iso in isos]
            values = [[_part(one[key] if key in _SETTINGS else one.get(key), part) for one in row] for row in entries]
            data[name] = (
                ("iso", "channel"),
                np.array(values, float).reshape(shape),
                {"units": unit, "long_name": f"{title}{_TITLES[key]}"},
            )
    for name, text in _COUNTS.items():
        values = [[int(place[iso, channel][name]) for channel in names] for iso in isos]
        data[name] = (("iso", "channel"), np.array(values, int).reshape(shape), {"long_name": text})
    keys = {
        "iso": "iso",
        "temperature": "temperature_c",
        "dark_current": "value",
        "dark_current_error": "error",
        "median": "median",
        "saturated_pixels": "saturated_pixels",
    }
    dark = {name: np.array([_float(entry[key]) for entry in dark_list], float) for name, key in keys.items()}
    scalars = {}
    for quantity, key in (
        (content["unity_gain_iso"], "unity_gain_iso"),
        *((law.get(key), key) for key in _LAW),  # files of earlier versions lack the later ones
    ):
        scalars[key], scalars[f"{key}_error"] = _part(quantity, "value"), _part(quantity, "error")
    scalars["reference_temperature"] = _float(law["reference_temperature"])
    split = content.get("read_noise_split") or {}
    for key in _SPLIT:
        scalars[key], scalars[f"{key}_error"] = (_part(split.get(key), part) for part in ("value", "error"))
    iso_values = np.array([_float(iso) for iso in isos], float)
    blocks = {name: content[name] for name in BLOCKS if name in content}
    return _assemble(str(content["camera"]), iso_values, names, data, dark, scalars, list(content["warnings"]), blocks)


def _part(quantity: dict[str, Any] | None, part: str) -> float:
    return math.nan if quantity is None else _float(quantity[part])


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def written(value: float, error: float | None = None, unit: str = "") -> str:
    """Write a value with its error to two figures of the error, or that it was not measured.

    Examples
    --------
    >>> written(2.49312, 0.0123, "e-/ADU"), written(41541, 2052), written(0.12345), written(float("nan"))
    ('2.493 ± 0.012 e-/ADU', '41500 ± 2100', '0.123', 'not measured')
    """
    if not math.isfinite(value):
        return "not measured"
    tail = f" {unit}" if unit else ""
    if error is None or not (math.isfinite(error) and error > 0):
        return f"{value:.3g}{tail}"
    rounded = float(f"{error:.1e}")  # 0.0998 is written 0.10
    digits = 1 - math.floor(math.log10(rounded))
    shown = max(digits, 0)
    return f"{round(value, digits):.{shown}f} ± {rounded:.{shown}f}{tail}"
