"""``sensor.json``: written whole or not at all, and opened again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import WorkbenchError
from .files import whole_file
from .quantities import at_lowest_iso, json_number, json_quantity
from .results import assemble
from .vocabulary import BLOCKS, COUNTS, DETAILS, LAW, LAW_CORRELATIONS, METHODS, NUMBERS, SETTINGS, SPLIT, TITLES

SCHEMA = Path(__file__).parents[1] / "sensor.schema.json"
SCHEMA_VERSION = 2
READABLE = (1, 2)  # version 1 lacks what came later; it is NaN then
FILE = "sensor.json"


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
            for key, unit in (SETTINGS | DETAILS).items():
                entry[key] = json_quantity(
                    sensor[key].values[row, column], sensor[f"{key}_error"].values[row, column], unit
                )
            entry |= {name: sensor[name].values[row, column] or None for name in METHODS}
            entry |= {name: json_number(sensor[name].values[row, column]) for name in NUMBERS}
            entry |= {name: int(sensor[name].values[row, column]) for name in COUNTS}
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
        key: json_quantity(sensor[key].item(), sensor[f"{key}_error"].item(), unit) for key, unit in LAW.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "camera": sensor.attrs["camera"],
        "simulated": bool(sensor.attrs["simulated"]),
        "settings": settings,
        "unity_gain_iso": json_quantity(sensor["unity_gain_iso"].item(), sensor["unity_gain_iso_error"].item(), "ISO"),
        "read_noise_split": {
            key: json_quantity(sensor[key].item(), sensor[f"{key}_error"].item(), unit) for key, unit in SPLIT.items()
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
        "dark_law": law
        | {key: json_number(sensor[key].item()) for key in ("reference_temperature", *LAW_CORRELATIONS)}
        | {"laws": list(sensor.attrs["dark_laws"])},
        **{name: value for name, value in sensor.attrs.get("blocks", {}).items() if name in BLOCKS},
        "warnings": [str(text) for text in sensor.attrs["warnings"]],
    }


def _truths(values: np.ndarray) -> list[bool | None]:
    return [None if math.isnan(value) else bool(value) for value in values.ravel()]


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
    for name, text in METHODS.items():
        words = [[place[iso, channel].get(name) or "" for channel in names] for iso in isos]
        data[name] = (("iso", "channel"), np.array(words, object).reshape(shape), {"long_name": text})
    for name, unit in NUMBERS.items():
        values = [[_float(place[iso, channel].get(name)) for channel in names] for iso in isos]
        attrs = {"units": unit, "long_name": TITLES[name]}
        data[name] = (("iso", "channel"), np.array(values, float).reshape(shape), attrs)
    for key, unit in (SETTINGS | DETAILS).items():
        for name, part, title in ((key, "value", ""), (f"{key}_error", "error", "error of the ")):
            # what every version has must be there
            entries = [[place[iso, channel] for channel in names] for iso in isos]
            values = [[_part(one[key] if key in SETTINGS else one.get(key), part) for one in row] for row in entries]
            data[name] = (
                ("iso", "channel"),
                np.array(values, float).reshape(shape),
                {"units": unit, "long_name": f"{title}{TITLES[key]}"},
            )
    for name, text in COUNTS.items():
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
        *((law.get(key), key) for key in LAW),  # files of earlier versions lack the later ones
    ):
        scalars[key], scalars[f"{key}_error"] = _part(quantity, "value"), _part(quantity, "error")
    scalars["reference_temperature"] = _float(law["reference_temperature"])
    scalars |= {key: _float(law.get(key)) for key in LAW_CORRELATIONS}
    laws = law.get("laws", ["doubling"])
    split = content.get("read_noise_split") or {}
    for key in SPLIT:
        scalars[key], scalars[f"{key}_error"] = (_part(split.get(key), part) for part in ("value", "error"))
    iso_values = np.array([_float(iso) for iso in isos], float)
    blocks = {name: content[name] for name in BLOCKS if name in content}
    warnings = list(content["warnings"])
    return assemble(str(content["camera"]), iso_values, names, data, dark, scalars, warnings, blocks, laws)


def _part(quantity: dict[str, Any] | None, part: str) -> float:
    return math.nan if quantity is None else _float(quantity[part])


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)
