"""A stack in, a picture out."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from ..core.errors import StageError, WorkbenchError
from ..core.files import check_folder, check_target, whole_file
from ..finish.files import SUFFIXES, read_picture, write_picture
from ..finish.settings import Finished, FinishSettings, finish


def open_linear(path: str | Path) -> xr.Dataset:
    """Open a linear stack to be finished: the workbench's own, or any linear FITS, XISF or TIFF.

    Raises
    ------
    FrameReadError
        If the file is not a linear picture; the message says what it is.
    """
    return read_picture(path)


def settings_from(
    settings: str | Path | None = None,
    *,
    background: str | None = None,
    balance: str | None = None,
    stretch: str | None = None,
    strength: float | None = None,
    denoise: float | None = None,
) -> FinishSettings:
    """Return the settings of a file (or the defaults) with single ones replaced.

    Examples
    --------
    >>> settings_from(stretch="autostretch", denoise=0.5).stretch.method
    'autostretch'
    """
    values = (FinishSettings() if settings is None else FinishSettings.open(settings)).to_dict()
    replaced = {
        ("background", "method"): background,
        ("colour", "balance"): balance,
        ("stretch", "method"): stretch,
        ("stretch", "strength"): strength,
        ("detail", "denoise"): denoise,
    }
    for (part, name), value in replaced.items():
        if value is not None:
            values[part][name] = value
    return FinishSettings.from_dict(values)


def finish_stack(
    path: str | Path,
    out: str | Path,
    settings: FinishSettings | None = None,
    *,
    linear_out: str | Path | None = None,
    settings_out: str | Path | None = None,
    progress: bool = True,
) -> Finished:
    """Finish the stack at `path` and write the picture to `out`.

    Parameters
    ----------
    out
        .png (16 bits), .tif (16 bits), .fits or .xisf (32-bit floats).
    settings
        How; the defaults give a picture of most stacks.  Settings are kept inside the picture.
    linear_out
        Where the linear picture goes that was stretched: .fits, .tif or .xisf.
    settings_out
        Where the settings go, as JSON that `FinishSettings.open` reads.

    Raises
    ------
    WorkbenchError
        If the stack cannot be finished or a file not be written; then no picture is written.
    """
    settings = FinishSettings() if settings is None else settings
    _can_be_written(out, set(SUFFIXES))
    if linear_out is not None:
        _can_be_written(linear_out, {".fits", ".fit", ".fts", ".tif", ".tiff", ".xisf"})
    if settings_out is not None:
        check_target(settings_out, "settings file")
    stack = open_linear(path)
    try:
        done = finish(stack, settings, progress=progress)
    except StageError as problem:
        raise StageError(f"{path}: {problem}") from problem
    except WorkbenchError as problem:
        raise WorkbenchError(f"{path}: {problem}") from problem
    targets = [(done.picture, out), *([] if linear_out is None else [(done.linear, linear_out)])]
    for picture, target in tqdm(targets, desc="writing", unit="file", delay=2, leave=False, disable=not progress):
        write_picture(picture, target, settings=settings.to_dict())
    if settings_out is not None:
        with whole_file(settings_out) as part:
            part.write_text(settings.to_json(), encoding="utf-8")
    return done


def _can_be_written(path: str | Path, suffixes: set[str]) -> None:
    """Say before the work, not after it, that its result has nowhere to go."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise WorkbenchError(
            f"{path}: no picture is written as {path.suffix or 'a file without a suffix'!r}; known are"
            f" {', '.join(sorted(suffixes))}"
        )
    if path.is_dir():
        raise WorkbenchError(f"{path}: is a folder; name a file in it, for example {path / 'picture.png'}")
    if not path.parent.is_dir():
        raise WorkbenchError(f"{path}: the folder {path.parent} does not exist; make it first")
    check_folder(path.parent)
