"""Results of one notebook, kept for the notebooks that follow."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.core.cache import code_version, digest, load, save
from workbench.core.errors import WorkbenchError
from workbench.ingest.folder import Folder
from workbench.simulate.samples import own_folder


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
        print(f"The {name}: measured on the same frames on {when:%Y-%m-%d at %H:%M}; read from there.")
        return result
    print(f"The {name}: not measured on these frames yet, so it is measured here.")
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
        print(f"The {name}: not made from these frames yet, so they are made here.")
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
