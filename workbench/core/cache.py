"""Results kept as files and used again while what they were made from is the same.

One digest stands for "the same inputs as before": of files their path, size and time of change; of everything else the
content.  A kept result is a netCDF file, of several groups for a named tuple, and bears the digest of its inputs and of
the workbench's source.  Where that is another one, or the file is damaged, the result is computed again.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import dask
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize

from .errors import WorkbenchError
from .files import whole_file

Result = TypeVar("Result")
_PACKAGE = Path(__file__).parents[1]
_JSON = "json:"  # begins an attribute that netCDF cannot hold as it is
_SUM = hashlib.sha256().digest_size  # bytes after the netCDF file: its SHA-256, as HDF5 does not notice every damage
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, ImportError, RuntimeError)


def cached(work: str | Path | None, name: str, function: Callable[..., Result], *inputs: Any) -> Result:
    """Return ``function(*inputs)``, from the folder `work` where these very inputs gave it before.

    Parameters
    ----------
    work
        Folder of the kept results, one file ``<name>.nc`` each; None computes and keeps nothing.
    name
        What the file is called.
    function
        Returns a Dataset, a DataArray, or one of the package's named tuples of these.
    *inputs
        See `digest`.  Another version of the workbench's source counts as another input.

    Raises
    ------
    WorkbenchError
        If the file cannot be written, or the result is of a type that cannot be kept.

    Examples
    --------
    >>> import tempfile
    >>> work = tempfile.mkdtemp()
    >>> def double(value):
    ...     print("computing")
    ...     return xr.Dataset({"double": 2 * value})
    >>> cached(work, "double", double, 3).double.item(), cached(work, "double", double, 3).double.item()
    computing
    (6, 6)
    """
    if work is None:
        return function(*inputs)
    path, key = Path(work) / f"{name}.nc", digest(code_version(), *inputs)
    result = load(path, key)
    if result is None:
        result = function(*inputs)
        save(path, key, result)
    return result


def digest(*inputs: Any) -> str:
    """Return a digest of the inputs: the same digest means the same inputs.

    Parameters
    ----------
    *inputs
        Frames as a table (one row a frame, its file in the column ``path``; all columns count, as ``frames.csv`` may
        correct what a file states), paths of files, cubes, Datasets, settings, and tuples, lists and dicts of these.  A
        file counts by its path, size and time of change; a lazy cube by the name of its graph, which stands for the
        files it is read from; everything else by its content.

    Raises
    ------
    WorkbenchError
        If a file does not exist any more.

    Examples
    --------
    >>> table = pd.DataFrame({"path": [Path(__file__)], "iso": [100]})
    >>> digest(table) == digest(table), digest(table) == digest(table.assign(iso=200))
    (True, False)
    """
    with dask.config.set({"tokenize.ensure-deterministic": True}):
        return hashlib.sha256(tokenize([_identity(value) for value in inputs]).encode()).hexdigest()


def _identity(value: Any) -> Any:
    """Return what stands for an input in its digest."""
    if isinstance(value, pd.DataFrame) and "path" in value:
        others = value.drop(columns="path")
        rows = [sorted((str(name), repr(item)) for name, item in row.items()) for row in others.to_dict("records")]
        return [(_identity(Path(path)), row) for path, row in zip(value["path"], rows, strict=True)]
    if isinstance(value, Path):
        path = value.resolve()
        try:
            state = path.stat()
        except OSError as problem:
            raise WorkbenchError(f"{path}: cannot be read ({problem.strerror}); open the folder again") from problem
        return path.as_posix(), state.st_size, state.st_mtime_ns
    if isinstance(value, Mapping) and not isinstance(value, xr.Dataset):
        return [(name, _identity(item)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(_identity(item) for item in value)]
    return value


@cache
def code_version() -> str:
    """Return a digest of the package's source: results of another version are not used again."""
    content = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        content.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def save(path: str | Path, key: str, result: Any) -> Path:
    """Keep a result in a file under a key; the file is whole or not there.

    Raises
    ------
    WorkbenchError
        If the file cannot be written, or the result is of a type that cannot be kept.

    Examples
    --------
    >>> import tempfile
    >>> gain = xr.Dataset({"gain": ("iso", [2.5, np.nan])}, {"iso": [100.0, 200.0]}, {"units": "electron / adu"})
    >>> path = save(Path(tempfile.mkdtemp()) / "gain.nc", "these frames", gain)
    >>> load(path, "these frames").identical(gain), load(path, "other frames")
    (True, None)
    """
    kind = type(result)
    named = hasattr(kind, "_fields") and kind.__module__.startswith("workbench.")
    parts = dict(zip(kind._fields, result, strict=True)) if named else {"result": result}
    root = {"key": key, "type": f"{kind.__module__}:{kind.__qualname__}" if named else ""}
    groups = {f"/{name}": _packed(part) for name, part in parts.items()}
    with whole_file(path, "the result", "the computation works without it") as part:
        tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=root), **groups})
        tree.to_netcdf(part, engine="h5netcdf")
        content = part.read_bytes()
        part.write_bytes(content + hashlib.sha256(content).digest())
    return Path(path)


def load(path: str | Path, key: str) -> Any:
    """Return the result kept under this key; None if there is none, it is of another key, or the file is damaged."""
    try:
        content = Path(path).read_bytes()
        if hashlib.sha256(content[:-_SUM]).digest() != content[-_SUM:]:
            return None
        with xr.open_datatree(io.BytesIO(content[:-_SUM]), engine="h5netcdf") as tree:
            if tree.attrs["key"] != key:
                return None
            parts = {name: _unpacked(group.to_dataset().load()) for name, group in tree.children.items()}
            module, _, name = tree.attrs["type"].partition(":")
        if not module:
            return parts["result"]
        if not module.startswith("workbench."):
            return None
        kind = getattr(importlib.import_module(module), name)
        return kind(*(parts[field] for field in kind._fields))
    except _DAMAGED:
        return None


def _packed(result: Any) -> xr.Dataset:
    """Return a result as a Dataset that netCDF can hold; what netCDF would change is in the attributes."""
    if not isinstance(result, (xr.Dataset, xr.DataArray)):
        raise WorkbenchError(f"a {type(result).__name__} cannot be kept; Datasets and DataArrays can")
    data = result
    if isinstance(result, xr.DataArray):
        data = result.rename("result").to_dataset().assign_attrs(kept_name=[result.name])
    variables = {}
    for name, variable in data.variables.items():
        attrs = {key: _attribute(value) for key, value in variable.attrs.items()}
        if variable.dtype.kind in "OUM":
            attrs["kept_dtype"] = variable.dtype.str
        variables[name] = xr.Variable(variable.dims, variable.values, attrs)
    coords = {name: variables.pop(name) for name in data.coords}
    return xr.Dataset(variables, coords, {key: _attribute(value) for key, value in data.attrs.items()})


def _unpacked(data: xr.Dataset) -> xr.Dataset | xr.DataArray:
    """Return the result that `_packed` was given."""
    variables = {}
    for name, variable in data.variables.items():
        attrs = {key: _value(value) for key, value in variable.attrs.items()}
        dtype = attrs.pop("kept_dtype", variable.dtype)
        variables[name] = xr.Variable(variable.dims, variable.values.astype(dtype), attrs)
    coords = {name: variables.pop(name) for name in data.coords}
    attrs = {key: _value(value) for key, value in data.attrs.items()}
    if "kept_name" in attrs:
        return xr.DataArray(variables["result"], coords, name=attrs["kept_name"][0])
    return xr.Dataset(variables, coords, attrs)


def _attribute(value: Any) -> Any:
    """Return an attribute as netCDF can hold it: text and numbers as they are, the rest as JSON."""
    if type(value) is float or (type(value) is str and not value.startswith(_JSON)):
        return value
    return _JSON + json.dumps(_tagged(value))


def _value(attribute: Any) -> Any:
    """Return the attribute that `_attribute` was given."""
    if isinstance(attribute, str):
        return _untagged(json.loads(attribute[len(_JSON) :])) if attribute.startswith(_JSON) else attribute
    return attribute.item()


def _tagged(value: Any) -> Any:
    """Return a value as JSON has it, what JSON would change as a dict of its type."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufU":
        return {"dtype": value.dtype.str, "values": value.tolist()}
    if isinstance(value, Mapping):
        return {"dict": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        items = [_tagged(item) for item in value]
        return items if type(value) is list else {"tuple": items}
    raise WorkbenchError(f"a {type(value).__name__} cannot be kept as an attribute; text, numbers and lists can")


def _untagged(value: Any) -> Any:
    """Return the value that `_tagged` was given."""
    if isinstance(value, list):
        return [_untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_untagged(value["tuple"]))
    if "dict" in value:
        return {_untagged(key): _untagged(item) for key, item in value["dict"]}
    return np.array(value["values"], value["dtype"])[()]
