"""What one notebook has measured, kept for those that follow."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.core.cache import code_version, digest, load, save
from workbench.core.errors import WorkbenchError
from workbench.ingest.catalogue import Folder
from workbench.simulate.samples import own_folder


def keep(name: str, result: Any, frames: Folder) -> Any:
    """Keep what a notebook has measured for those that follow, and return it; `kept` takes it up.

    It goes into the folder ``measured`` beside the notebooks (or into ``WORKBENCH_CACHE``), one file a name and folder
    of frames; it may be deleted at any time.  Where nothing can be written nothing is kept, and a line says why.

    Parameters
    ----------
    name
        What the others ask for: ``"gain"``.
    result
        A Dataset, a DataArray or a named tuple of these.
    frames
        From `open_folder`: the whole folder that was measured.
    """
    return _save(name, result, _kept_file(name, frames), _key(frames))


def kept(name: str, frames: Folder, otherwise: Callable[[], Any]) -> Any:
    """Return what an earlier notebook has measured on these very frames; else measure it, and keep it.

    Of other frames, changed frames, another version of the workbench or a damaged file nothing is taken.  One line says
    where the numbers come from.

    Parameters
    ----------
    name, frames
        As for `keep`.
    otherwise
        Measures it: called where nothing is kept.
    """
    path, key = _kept_file(name, frames), _key(frames)
    result = load(path, key)
    if result is not None:
        when = datetime.fromtimestamp(path.stat().st_mtime)
        _say(f"The {name}: measured on these very frames before, {when:%Y-%m-%d %H:%M}; taken from there.")
        return result
    _say(f"The {name}: nothing is kept of these frames yet, so it is measured here.")
    return _save(name, otherwise(), path, key)


def kept_folder(name: str, frames: Folder) -> Path:
    """Return a folder for what keeps its own files, such as the masters of `calibrate.make_masters(folder=...)`.

    It belongs to these very frames; what was kept there for others that the same folder held before is removed.  One
    line says whether an earlier notebook has been there.
    """
    base = _kept_file(name, frames).with_suffix("")
    folder = base.with_name(f"{base.name}-{_key(frames)[:8]}")
    for old in folder.parent.glob(f"{glob.escape(base.name)}-*"):
        if old != folder and old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        _say(f"The {name}: made of these very frames before; taken from there.")
    else:
        _say(f"The {name}: none are kept of these frames yet, so they are made here.")
    return folder


def _key(frames: Folder) -> str:
    """Return what stands for these frames and this version of the workbench."""
    return digest(code_version(), frames.table)


def _save(name: str, result: Any, path: Path, key: str) -> Any:
    try:
        save(path, key, result)
    except WorkbenchError as problem:
        _say(f"The {name} is not kept: {problem}")
    return result


def _say(words: str) -> None:
    print(words)


def _kept_file(name: str, frames: Folder) -> Path:
    """One file a name and folder: what is measured anew takes the place of what it was measured for before."""
    root = Path(frames.root).resolve()
    mark = digest(root.as_posix())[:8]
    return own_folder("measured", "notebooks/measured") / f"{name.replace(' ', '-')}-{root.name}-{mark}.nc"
