"""A stack in, or a stack for each filter, a picture out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import xarray as xr
from tqdm.auto import tqdm

from ..core.errors import FrameReadError, StageError, WorkbenchError
from ..core.files import check_target, whole_file
from ..core.settings import filter_name
from ..finish.files import SUFFIXES, read_picture, write_picture
from ..finish.palettes import compose
from ..finish.settings import Finished, FinishSettings, finish

Stacks = str | Path | Sequence[str | Path] | Mapping[str, str | Path]  # a file, or several of mono stacks


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
    stack: Stacks,
    out: str | Path,
    settings: FinishSettings | None = None,
    *,
    palette: str = "auto",
    weights: Mapping[str, float] | None = None,
    linear_out: str | Path | None = None,
    settings_out: str | Path | None = None,
    progress: bool = True,
) -> Finished:
    """Finish a stack, or stacks through several filters composed to one picture, and write it to `out`.

    Parameters
    ----------
    stack
        A file; or several, one a filter, whose headers state it, or by the filter's name.
    out
        .png or .tif (16 bits), .jpg (8 bits), .fits or .xisf (32-bit floats).
    settings
        How; the defaults give a picture of most stacks.  Settings are kept inside the picture.
    palette, weights
        How several stacks make a picture (see `workbench.finish.compose`).
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
    files = [stack] if isinstance(stack, (str, Path)) else [*(stack.values() if isinstance(stack, Mapping) else stack)]
    _can_be_written(out, set(SUFFIXES), files)
    if linear_out is not None:
        _can_be_written(linear_out, {".fits", ".fit", ".fts", ".tif", ".tiff", ".xisf"}, files)
    if settings_out is not None:
        check_target(settings_out, "settings file", inputs=files)
    targets = [Path(path).absolute() for path in (out, linear_out, settings_out) if path is not None]
    if len(set(targets)) < len(targets):
        raise WorkbenchError(f"{targets[0].name}: picture, linear picture and settings need a name each")
    picture = open_linear(stack, palette, weights)
    if "palette" in picture.attrs:  # a camera's colour matrix is not that of its filters
        balance = "none" if picture.attrs["balanced"] and settings.colour.balance == "auto" else settings.colour.balance
        settings = replace(settings, colour=replace(settings.colour, balance=balance, matrix=False))
    try:
        done = finish(picture, settings, progress=progress)
    except WorkbenchError as problem:
        kind = StageError if isinstance(problem, StageError) else WorkbenchError
        raise kind(f"{', '.join(map(str, files))}: {problem}") from problem
    pictures = [(done.picture, out), *([] if linear_out is None else [(done.linear, linear_out)])]
    for picture, target in tqdm(pictures, desc="writing", unit="file", delay=2, leave=False, disable=not progress):
        write_picture(picture, target, settings=settings.to_dict())
    if settings_out is not None:
        with whole_file(settings_out) as part:
            part.write_text(settings.to_json(), encoding="utf-8")
    return done


def open_linear(stack: Stacks, palette: str = "auto", weights: Mapping[str, float] | None = None) -> xr.Dataset:
    """Open a linear stack, or compose those of several filters; see `finish_stack`.

    Raises
    ------
    WorkbenchError
        If one of several stacks states no filter, two state the same, or they cannot be composed.
    """
    if isinstance(stack, (str, Path)):
        return read_picture(stack)
    if not isinstance(stack, Mapping):
        if len(stack) == 1:
            return read_picture(stack[0])
        named: dict[str, str | Path] = {}
        for path in stack:
            name = filter_name(str(read_picture(path).attrs.get("filter", "")))
            if not name or name in named:
                problem = f"is of {name} as {named[name]} is" if name else "states no filter; name it: Ha=stack.fits"
                raise FrameReadError(path, problem)
            named[name] = path
        stack = named
    return compose({name: read_picture(path) for name, path in stack.items()}, palette, weights)


def _can_be_written(path: str | Path, suffixes: set[str], inputs: Sequence[str | Path]) -> None:
    """Say before the work, not after it, that its result has nowhere to go."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise WorkbenchError(
            f"{path}: no picture is written as {path.suffix or 'a file without a suffix'!r}; known are"
            f" {', '.join(sorted(suffixes))}"
        )
    if not path.parent.is_dir():
        raise WorkbenchError(f"{path}: the folder {path.parent} does not exist; make it first")
    check_target(path, "picture", inputs=inputs)
