"""Results of one notebook, kept for the notebooks that follow.

A kept result is a netCDF file, of several groups for a named tuple, and bears the digest of the frames and of the
workbench's source.  Where that is another one, or the file is damaged, the result is measured again.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import io
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import workbench
from workbench.core.cube import digest
from workbench.core.errors import WorkbenchError
from workbench.core.files import overwriting, whole_file
from workbench.ingest.folder import Folder
from workbench.simulate.samples import own_folder

_PACKAGE = Path(workbench.__file__).parent
_JSON = "json:"  # begins an attribute that netCDF cannot hold as it is
_SUM = hashlib.sha256().digest_size  # bytes after the netCDF file: its SHA-256, as HDF5 does not notice every damage
_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, ImportError, RuntimeError)


def keep(name: str, result: Any, frames: Folder) -> Any:
    """Keep the result of a notebook for those that follow, and return it; `kept` reads it.

    It is written into the folder ``measured`` next to the notebooks (or into ``WORKBENCH_CACHE``), one file for each
    name and folder of frames, which may be deleted at any time.  If it cannot be written, a line says why.

    Parameters
    ----------
    name
        By which `kept` finds it: ``"gain"``.
    result
        A Dataset, a DataArray or a named tuple of these.
    frames
        From `open_folder`: the whole folder that was measured.
    """
    return _save(name, result, _kept_file(name, frames), _key(frames))


def kept(name: str, frames: Folder, otherwise: Callable[[], Any]) -> Any:
    """Return the result of an earlier notebook on the same frames; else measure it, and keep it.

    Results of other frames, changed frames, another version of the workbench or a damaged file are not used.  A line
    says where the result comes from.

    Parameters
    ----------
    name, frames
        As for `keep`.
    otherwise
        Measures it: called if nothing is kept.
    """
    path, key = _kept_file(name, frames), _key(frames)
    result = load(path, key)
    if result is not None:
        when = datetime.fromtimestamp(path.stat().st_mtime)
        print(f"The {name}: made from the same frames on {when:%Y-%m-%d at %H:%M}; read from there.")
        return result
    print(f"The {name}: not made from these frames yet, so made here.")
    return _save(name, otherwise(), path, key)


def kept_folder(name: str, frames: Folder) -> Path:
    """Return a folder for results that are files, such as the masters of `calibrate.make_masters(folder=...)`.

    It belongs to these frames; files of other frames that the same folder held before are removed.  A line says whether
    an earlier notebook has used it.
    """
    base = _kept_file(name, frames).with_suffix("")
    folder = base.with_name(f"{base.name}-{_key(frames)[:8]}")
    for old in folder.parent.glob(f"{glob.escape(base.name)}-*"):
        if old != folder and old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        print(f"The {name}: made from the same frames before; read from there.")
    else:
        print(f"The {name}: not made from these frames yet, so made here.")
    return folder


def _key(frames: Folder) -> str:
    """Return a digest of these frames and of this version of the workbench."""
    return digest(code_version(), frames.table)


def _save(name: str, result: Any, path: Path, key: str) -> Any:
    try:
        save(path, key, result)
    except WorkbenchError as problem:
        print(f"The {name} is not kept: {problem}")
    return result


def _kept_file(name: str, frames: Folder) -> Path:
    """Return the file of a name and a folder; a new result replaces the earlier one."""
    root = Path(frames.root).resolve()
    mark = digest(root.as_posix())[:8]
    return own_folder("measured", "notebooks/measured") / f"{name.replace(' ', '-')}-{root.name}-{mark}.nc"


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
    with overwriting(), whole_file(path, "the result", "the computation works without it") as part:
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
