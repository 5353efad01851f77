"""A measured sensor as one Dataset, and its file ``sensor.json``.

`sensor_dataset` puts the measurements together, `write_sensor` and `open_sensor` take them to the file and back.  The
file's form is in ``sensor.schema.json`` beside this module and in docs/sensor-json.md; what was not measured is NaN
here and null there.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import WorkbenchError

SCHEMA = Path(__file__).with_name("sensor.schema.json")
SCHEMA_VERSION = 1
FILE = "sensor.json"

_SETTINGS = {"black_level": "ADU", "gain": "e-/ADU", "read_noise": "e- rms"}
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
    channels
        The camera's channels, if none of the results tells them.
    blocks
        Further results in the form that they have in the file, under names of `BLOCKS`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``black_level`` [ADU], ``gain`` [e⁻/ADU], ``read_noise`` [e⁻ rms], the product of the read
        noise in ADU and the gain, each with ``_error``; ``frames_used``, ``bias_frames``, ``flat_frames``.  Over
        setting (``setting_iso``, ``setting_temperature``): ``dark_current`` [e⁻/s/pixel] with error,
        ``dark_current_median``, ``saturated_pixels``.  Scalars: ``unity_gain_iso``, ``doubling_temperature``,
        ``dark_current_reference``, ``activation_energy``, each with error, and ``reference_temperature``.  attrs:
        ``camera``, ``simulated``, ``warnings``, ``blocks``.
    """
    measured = [part for part in (read, gain) if part is not None]
    names = [str(name) for name in (measured[0]["channel"].values if measured else channels)]
    isos = np.unique(np.concatenate([part["iso"].values for part in measured] or [np.empty(0)]).astype(float))
    blank = np.full((isos.size, len(names)), np.nan)
    values = {name: blank.copy() for key in _SETTINGS for name in (key, f"{key}_error")}
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
    data: dict[str, Any] = {}
    for key, unit in _SETTINGS.items():
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
    units = {"unity_gain_iso": "ISO", "reference_temperature": "°C"} | _LAW
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
    text = json.dumps(_to_json(sensor), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except OSError as error:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
        raise WorkbenchError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
    return path


def _to_json(sensor: xr.Dataset) -> dict[str, Any]:
    settings = []
    for row, iso in enumerate(sensor["iso"].values):
        for column, channel in enumerate(sensor["channel"].values):
            entry: dict[str, Any] = {"iso": _number(iso), "channel": str(channel)}
            for key, unit in _SETTINGS.items():
                entry[key] = _quantity(
                    sensor[key].values[row, column], sensor[f"{key}_error"].values[row, column], unit
                )
            entry |= {name: int(sensor[name].values[row, column]) for name in _COUNTS}
            settings.append(entry)
    dark = [
        {
            "iso": _number(sensor["setting_iso"].values[i]),
            "temperature_c": _number(sensor["setting_temperature"].values[i]),
            "value": _number(sensor["dark_current"].values[i]),
            "error": _number(sensor["dark_current_error"].values[i]),
            "unit": "e-/s/pixel",
            "median": _number(sensor["dark_current_median"].values[i]),
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
        "dark_current": dark,
        "dark_law": law | {"reference_temperature": _number(sensor["reference_temperature"].item())},
        **{name: value for name, value in sensor.attrs.get("blocks", {}).items() if name in BLOCKS},
        "warnings": [str(text) for text in sensor.attrs["warnings"]],
    }


def _number(value: float) -> float | int | None:
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
    if version != SCHEMA_VERSION:
        found = "no schema_version" if version is None else f"schema_version {version!r}"
        raise WorkbenchError(
            f"{file}: {found} where {SCHEMA_VERSION} is expected; give a {FILE} that characterize wrote, or measure "
            "the frames again with this version of the workbench"
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
    for key, unit in _SETTINGS.items():
        for name, part, title in ((key, "value", ""), (f"{key}_error", "error", "error of the ")):
            values = [[_part(place[iso, channel][key], part) for channel in names] for iso in isos]
            data[name] = (
                ("iso", "channel"),
                np.array(values, float).reshape(len(isos), len(names)),
                {"units": unit, "long_name": f"{title}{_TITLES[key]}"},
            )
    for name, text in _COUNTS.items():
        values = [[int(place[iso, channel][name]) for channel in names] for iso in isos]
        data[name] = (("iso", "channel"), np.array(values, int).reshape(len(isos), len(names)), {"long_name": text})
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
    iso_values = np.array([_float(iso) for iso in isos], float)
    blocks = {name: content[name] for name in BLOCKS if name in content}
    return _assemble(str(content["camera"]), iso_values, names, data, dark, scalars, list(content["warnings"]), blocks)


def _part(quantity: dict[str, Any] | None, part: str) -> float:
    return math.nan if quantity is None else _float(quantity[part])


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def written(value: float, error: float = math.nan, unit: str = "") -> str:
    """Write a value with its error to two figures of the error, or that it was not measured.

    Examples
    --------
    >>> written(2.49312, 0.0123, "e-/ADU"), written(199.4, 2.61), written(0.12345), written(float("nan"))
    ('2.493 ± 0.012 e-/ADU', '199.4 ± 2.6', '0.123', 'not measured')
    """
    if not math.isfinite(value):
        return "not measured"
    tail = f" {unit}" if unit else ""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.3g}{tail}"
    digits = max(0, 1 - math.floor(math.log10(float(f"{error:.1e}"))))
    return f"{value:.{digits}f} ± {error:.{digits}f}{tail}"
