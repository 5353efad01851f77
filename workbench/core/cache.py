"""Results kept as files, to the last bit: what one notebook measured is there for the next.

A result is a Dataset, a DataArray or one of this package's named tuples of these.  Its file is a NumPy ``.npz``: the
arrays as they are, and as JSON how they belong together.  A key stands in it, made of the frames and of the workbench's
own code; whoever asks with another key gets nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .errors import WorkbenchError
from .files import whole_file

_PACKAGE = Path(__file__).parent
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, ImportError, RuntimeError)


def frames_key(table: pd.DataFrame) -> str:
    """Return a key of these frames: another file, size, time of change, place or setting gives another one.

    Parameters
    ----------
    table
        One row a frame, its file in ``path``; all columns count, as ``frames.csv`` may correct what a file says.  The
        workbench's own code counts as well: numbers that an older one measured are not taken.

    Raises
    ------
    WorkbenchError
        If a file has gone meanwhile.

    Examples
    --------
    >>> here = pd.DataFrame({"path": [Path(__file__)], "iso": [100]})
    >>> frames_key(here) == frames_key(here), frames_key(here) == frames_key(here.assign(iso=200))
    (True, False)
    """
    made = hashlib.sha256(_code().encode())
    for row in table.to_dict("records"):
        path = Path(row["path"]).resolve()
        try:
            state = path.stat()
        except OSError as problem:
            raise WorkbenchError(f"{path}: cannot be read ({problem.strerror}); open the folder anew") from problem
        told = sorted((name, repr(value)) for name, value in row.items() if name != "path")
        made.update(repr((path.as_posix(), state.st_size, state.st_mtime_ns, told)).encode())
    return made.hexdigest()


@cache
def _code() -> str:
    """Return a hash of this package's source: numbers of another version are other numbers."""
    made = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        made.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return made.hexdigest()


def save(path: str | Path, key: str, result: Any) -> Path:
    """Keep a result under a key; the file is whole or not there.

    Raises
    ------
    WorkbenchError
        If the file cannot be written, or the result is none of those that can be kept.

    Examples
    --------
    >>> import tempfile
    >>> gain = xr.Dataset({"gain": ("iso", [2.5, np.nan])}, {"iso": [100.0, 200.0]}, {"units": "e-/ADU"})
    >>> path = save(Path(tempfile.mkdtemp()) / "gain.npz", "these frames", gain)
    >>> load(path, "these frames").identical(gain), load(path, "other frames")
    (True, None)
    """
    arrays: list[np.ndarray] = []
    told = json.dumps({"key": key, "result": _pack(result, arrays)})
    packed = {f"array{number}": array for number, array in enumerate(arrays)}
    with whole_file(path, "the kept numbers", "the notebooks work without them") as part:
        np.savez(part, told=np.array(told), **packed)
    return Path(path)


def load(path: str | Path, key: str) -> Any:
    """Return the result kept under this key; None where there is none, another one's, or a damaged file."""
    try:
        with Path(path).open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            told = json.loads(str(file["told"]))
            return _unpack(told["result"], file) if told["key"] == key else None
    except (*_DAMAGED, zipfile.BadZipFile):
        return None


def _pack(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a value as JSON can tell it, its arrays put aside; whatever JSON would change gets its type beside it."""

    def array(values: Any) -> int:
        arrays.append(np.asarray(values))
        return len(arrays) - 1

    def many(values: Any) -> list:
        return [_pack(one, arrays) for one in values]

    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, xr.Dataset):
        parts = [[name, _pack(value[name].variable, arrays), name in value.coords] for name in value.variables]
        return {"is": "Dataset", "parts": parts, "attrs": _pack(dict(value.attrs), arrays)}
    if isinstance(value, xr.DataArray):
        coords = [[name, _pack(coord.variable, arrays)] for name, coord in value.coords.items()]
        return {"is": "DataArray", "name": value.name, "data": _pack(value.variable, arrays), "coords": coords}
    if isinstance(value, xr.Variable):
        told = {"is": "Variable", "dims": list(value.dims), "attrs": _pack(dict(value.attrs), arrays)}
        return told | {"data": _pack(np.asarray(value.values), arrays)}
    if isinstance(value, np.ndarray) and value.dtype == object:
        return {"is": "objects", "shape": list(value.shape), "items": many(value.ravel())}
    if isinstance(value, (np.ndarray, np.generic)):
        return {"is": "array" if isinstance(value, np.ndarray) else "scalar", "number": array(value)}
    if isinstance(value, Mapping):
        return {"is": "dict", "items": [many(pair) for pair in value.items()]}
    if type(value) in (list, tuple):
        return {"is": type(value).__name__, "items": many(value)}
    kind = type(value)
    if isinstance(value, tuple) and hasattr(kind, "_fields") and kind.__module__.startswith(f"{__package__}."):
        return {"is": "named", "module": kind.__module__, "name": kind.__name__, "items": many(value)}
    raise WorkbenchError(f"a {kind.__name__} cannot be kept; Datasets, DataArrays and their attributes can")


def _unpack(told: Any, file: Mapping[str, np.ndarray]) -> Any:
    """Return what `_pack` told."""
    if not isinstance(told, dict):
        return told
    kind, items = told["is"], [_unpack(one, file) for one in told.get("items", ())] if told["is"] != "dict" else []
    if kind == "dict":
        return {_unpack(name, file): _unpack(value, file) for name, value in told["items"]}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](items)
    if kind in ("array", "scalar"):
        values = file[f"array{told['number']}"]
        return values if kind == "array" else values[()]
    if kind == "objects":
        values = np.empty(len(items), object)
        values[:] = items
        return values.reshape(told["shape"])
    if kind == "Variable":
        return xr.Variable(told["dims"], _unpack(told["data"], file), _unpack(told["attrs"], file))
    if kind == "DataArray":
        coords = {name: _unpack(one, file) for name, one in told["coords"]}
        return xr.DataArray(_unpack(told["data"], file), coords, name=told["name"])
    if kind == "Dataset":
        parts = {True: {}, False: {}}
        for name, one, coord in told["parts"]:
            parts[coord][name] = _unpack(one, file)
        return xr.Dataset(parts[False], parts[True], _unpack(told["attrs"], file))
    if kind == "named" and told["module"].startswith(f"{__package__}."):
        return getattr(importlib.import_module(told["module"]), told["name"])(*items)
    raise ValueError(f"{kind!r} is nothing that was kept")
