"""``sensor.json``: written whole or not at all, and opened again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .errors import WorkbenchError
from .files import read_text, whole_file
from .results import BLOCKS, MODE, QUANTITIES, Quantity, at_lowest_iso, build_dataset, of_dims
from .settings import in_words_of, setting_dim
from .values import attribute_dict, attribute_lines, error_of, json_number, json_quantity

SCHEMA = Path(__file__).parents[1] / "sensor.schema.json"
SCHEMA_VERSION = 3
READABLE = (1, 2, 3)  # the older ones lack what came later (1: most quantities, 2: gain settings); it is NaN then
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
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    text = sensor_text(sensor)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def sensor_text(sensor: xr.Dataset) -> str:
    """Return what `write_sensor` puts into the file."""
    return json.dumps(_to_json(sensor), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _to_json(sensor: xr.Dataset) -> dict[str, Any]:
    dim = setting_dim(sensor)
    settings = [
        {dim: json_number(setting), "channel": str(channel)}
        | {quantity.key: _entry(quantity, sensor, (row, column)) for quantity in of_dims("iso", "channel")}
        for row, setting in enumerate(sensor[dim].values)
        for column, channel in enumerate(sensor["channel"].values)
    ]
    objects: dict[str, Any] = {"": {}}
    for quantity in of_dims():
        objects.setdefault(quantity.where.rpartition(".")[0], {})[quantity.key] = _entry(quantity, sensor, ())
    blocks = attribute_dict(sensor.attrs, "blocks")
    return {
        "schema_version": SCHEMA_VERSION,
        "camera": sensor.attrs["camera"],
        "simulated": bool(sensor.attrs["simulated"]),
        "mode": {
            name: sensor.attrs.get(name) or None if fill == "" else json_number(sensor.attrs.get(name, fill))
            for name, fill in MODE.items()
        },
        "settings": settings,
        **objects[""],
        "read_noise_split": objects["read_noise_split"],
        "full_well": at_lowest_iso(sensor, "full_well", {"method": "full_well_method", "limit": "full_well_limit"}),
        "linearity": at_lowest_iso(
            sensor, "linearity_error", {"minimum": "linearity_error_min", "maximum": "linearity_error_max"}
        ),
        "gain_from_darks": [
            {name: entry[name] for name in (dim, "channel")}
            | entry["gain_from_darks"]
            | {"agrees_with_flats": None if agrees is None else bool(agrees)}
            for entry in settings
            for agrees in [entry["gain_from_darks_agrees"]]
            if entry["gain_from_darks"] is not None
        ],
        "dark_current": [_dark(sensor, dim, number) for number in range(sensor.sizes["setting"])],
        "dark_law": objects["dark_law"] | {"laws": attribute_lines(sensor.attrs, "dark_laws")},
        **{name: value for name, value in blocks.items() if name in BLOCKS},
        "warnings": attribute_lines(sensor.attrs, "warnings"),
    }


def _entry(quantity: Quantity, sensor: xr.Dataset, index: tuple[int, ...]) -> Any:
    """Return a quantity as the file has it."""
    value = sensor[quantity.name].values[index]
    if quantity.form == "quantity":
        unit = in_words_of(setting_dim(sensor), quantity.unit)
        return json_quantity(value, sensor[f"{quantity.name}_error"].values[index], unit)
    if quantity.form == "text":
        return value or None
    return int(value) if quantity.form == "count" else json_number(value)


def _dark(sensor: xr.Dataset, dim: str, number: int) -> dict[str, Any]:
    """Return the dark current of a setting; its value, error and unit stand with the setting, measured or not."""
    names = {dim: f"setting_{dim}", "temperature_c": "setting_temperature"}
    entry: dict[str, Any] = {key: json_number(sensor[name].values[number]) for key, name in names.items()}
    for quantity in of_dims("setting"):
        if quantity.form == "quantity":
            entry[quantity.key] = json_number(sensor[quantity.name].values[number])
            entry |= {"error": json_number(sensor[f"{quantity.name}_error"].values[number]), "unit": quantity.unit}
        else:
            entry[quantity.key] = _entry(quantity, sensor, (number,))
    return entry


def open_sensor(path: str | Path) -> xr.Dataset:
    """Open a ``sensor.json`` (or the folder it is in) as the Dataset it was written from; see `sensor_dataset`.

    Raises
    ------
    WorkbenchError
        If the file does not exist, or is not a sensor.json of a version that this workbench reads.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(read_text(file))
    except WorkbenchError as error:
        raise WorkbenchError(f"{error}; `workbench characterize` writes a {FILE}") from None
    except (ValueError, RecursionError) as error:
        raise WorkbenchError(f"{file}: not a JSON file ({error}); give the {FILE} that characterize wrote") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in READABLE:
        given = "no schema_version" if version is None else f"schema_version {version!r}"
        raise WorkbenchError(
            f"{file}: {given} where {' or '.join(map(str, READABLE))} is expected; give a {FILE} that "
            "characterize wrote, or measure the frames again with this version of the workbench"
        )
    try:
        sensor = _from_json(content)
        if wrong := [value for value in sensor["gain"].values.ravel() if not (math.isnan(value) or 1e-4 < value < 1e4)]:
            raise ValueError(f"a gain of {wrong[0]:g} e-/ADU is none of a camera")
        if wrong := [
            value for value in sensor["read_noise"].values.ravel() if not (math.isnan(value) or 0 < value < 1e4)
        ]:
            raise ValueError(f"a read noise of {wrong[0]:g} e- is none of a camera")
        return sensor
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise WorkbenchError(f"{file}: not a complete {FILE} ({what}); measure the frames again") from error


def _from_json(content: dict[str, Any]) -> xr.Dataset:
    settings, darks = content["settings"], content["dark_current"]
    first: dict[str, Any] = next(iter([*settings, *darks]), {})
    dim = "gain_setting" if "gain_setting" in first else "iso"
    entries = {(entry[dim], str(entry["channel"])): entry for entry in settings}
    places, names = (list(dict.fromkeys(part)) for part in zip(*entries, strict=True)) if entries else ([], [])
    grid = [entries[place, name] for place in places for name in names]
    values: dict[str, Any] = {}
    for quantity in QUANTITIES:
        values |= _columns(quantity, grid if "channel" in quantity.dims else _holders(quantity, content))
    names_in_file = {dim: dim, "temperature": "temperature_c"}
    of_darks = {name: np.array([_number(d[key]) for d in darks], float) for name, key in names_in_file.items()}
    mode = content.get("mode", {})
    attrs = {
        "camera": str(content["camera"]),
        "warnings": list(content["warnings"]),
        "blocks": {name: content[name] for name in BLOCKS if name in content},
        "dark_laws": content["dark_law"].get("laws", ["doubling"]),
        "mode": {name: mode[name] for name in MODE if mode.get(name) is not None},
    }
    axes = {dim: [_number(place) for place in places], "channel": names}
    return build_dataset(values, axes, of_darks, attrs)


def _holders(quantity: Quantity, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that hold a quantity of darks, or a single one."""
    if quantity.dims:
        darks = content["dark_current"]  # a value and its error are the entry's own
        return [{quantity.key: entry} for entry in darks] if quantity.form == "quantity" else darks
    name = quantity.where.rpartition(".")[0]
    if name == "dark_law":  # alone of these objects it is in every version
        return [content[name]]
    return [content.get(name) or {} if name else content]


def _columns(quantity: Quantity, entries: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return a quantity's variables from the objects that hold it; what every version has must be there."""
    found = [entry[quantity.key] if quantity.version == 1 else entry.get(quantity.key) for entry in entries]
    if quantity.form == "quantity":
        values = [math.nan if one is None else _number(one["value"]) for one in found]
        errors = [math.nan if one is None else error_of(one) for one in found]
        return {quantity.name: values, f"{quantity.name}_error": errors}
    convert: dict[str, Callable[[Any], Any]] = {"text": lambda one: one or "", "count": int, "number": _number}
    return {quantity.name: [convert[quantity.form](one) for one in found]}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
