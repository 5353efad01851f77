"""A stack in, or one for each filter, a picture out, or its place on the sky; and pictures of each step, for charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from PIL import Image
from tqdm.auto import tqdm

from ..align.hints import hints_of, known_of, solve_stars
from ..align.sky import Solution
from ..core.errors import FrameReadError, StageError, WorkbenchError, said_of
from ..core.files import check_target, whole_file
from ..core.fits_cards import broken_seal, put_cards
from ..core.mosaic import colour_index, middle
from ..core.settings import filter_name
from ..core.values import attribute_lines
from ..finish.background import evaluate_background, model_means
from ..finish.curves import curve
from ..finish.files import SUFFIXES, read_picture, write_picture
from ..finish.palettes import compose
from ..finish.photometry import find_picture_stars
from ..finish.picture import crop, fill_holes, make_picture, pyramid
from ..finish.settings import Finished, FinishSettings, finish
from ..finish.stretch import apply_stretch, histogram, stretch_parameters
from ..ingest.reader import read_frame, read_metadata
from ..stack import cubes
from ..stars.background import green_sampling, half_green
from ..stars.find import find_stars
from ..stars.survey import find_plane_stars

WIDEST = 300  # [pixels] of a picture in a chart
_FITS = (".fits", ".fit", ".fts")
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


def _check_targets(
    out: str | Path, linear_out: str | Path | None, settings_out: str | Path | None, files: Sequence[str | Path]
) -> None:
    """Check before the work that all can be written, each under a name of its own."""
    _can_be_written(out, set(SUFFIXES), files)
    if linear_out is not None:
        _can_be_written(linear_out, {*_FITS, ".tif", ".tiff", ".xisf"}, files)
    if settings_out is not None:
        check_target(settings_out, "settings file", inputs=files)
    targets = [Path(path).absolute() for path in (out, linear_out, settings_out) if path is not None]
    if len(set(targets)) < len(targets):
        raise WorkbenchError(f"{targets[0].name}: picture, linear picture and settings need a name each")


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
    _check_targets(out, linear_out, settings_out, files)
    picture = open_linear(stack, palette, weights)
    if "palette" in picture.attrs:  # a camera's colour matrix is not that of its filters
        balance = "none" if picture.attrs["balanced"] and settings.colour.balance == "auto" else settings.colour.balance
        settings = replace(settings, colour=replace(settings.colour, balance=balance, matrix=False))
    try:
        done = finish(picture, settings, progress=progress)
    except WorkbenchError as problem:
        kind = StageError if isinstance(problem, StageError) else WorkbenchError
        raise kind(f"{', '.join(map(str, files))}: {problem}") from problem
    for path in files:
        if Path(path).suffix.lower() in _FITS and (broken := broken_seal(path)):
            done.warnings.append(said_of(path, broken))
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


def solve(path: str | Path, *, reach: float | None = None, out: str | Path | None = None, **hints: Any) -> Solution:
    """Find where on the sky a frame, a stack or a linear picture is: its plate solution, without a network.

    Parameters
    ----------
    path
        FITS, XISF, TIFF or camera RAW.
    reach
        How far the middle may be from the direction given [deg]; by default 1°, or half the field.
    out
        A FITS file without data for the solution's header.
    hints
        ``ra``, ``dec`` [deg, or RA as ``12h50m53s``] of the middle or a ``target`` near it by name;
        ``focal_length`` [mm] and ``pixel_size`` [µm], or ``scale`` [arcsec a pixel]; by default as the header or EXIF
        says.  Without a direction, fields of more than 8° are sought on the whole sky.

    Raises
    ------
    NoSolutionError
        If no place is found that chance would almost never show as well.
    WorkbenchError
        If the file cannot be read, or scale or direction are not known; the message says what to give.

    Examples
    --------
    >>> solve("stack.fits", target="M 94").wcs  # doctest: +SKIP
    """
    path = Path(path)
    if out is not None:
        check_target(out, "FITS file", inputs=[path])
    stars, shape = picture_stars(path)
    try:
        solution = solve_stars(stars, shape, hints_of(known_of(path), **hints), reach)
    except FrameReadError:  # of a catalogue
        raise
    except WorkbenchError as problem:
        raise type(problem)(said_of(path, str(problem))) from None
    if out is not None:
        header = fits.PrimaryHDU().header
        put_cards(header, solution.cards() | {"CREATOR": "made by the Astrophoto Workbench"})
        with whole_file(out) as part:
            fits.PrimaryHDU(header=header).writeto(part)
    return solution


def picture_stars(path: str | Path) -> tuple[xr.Dataset, tuple[int, int]]:
    """Return the stars of a frame, a stack or a linear picture, and its shape (y, x)."""
    try:
        pattern = read_metadata(path).cfa_pattern
    except FrameReadError:
        picture = read_picture(path)
        return find_picture_stars(picture), (picture.sizes["y"], picture.sizes["x"])
    frame = read_frame(path)
    if pattern == "mono":
        return find_plane_stars(frame.astype(np.float32)), frame.shape
    return find_stars(half_green(frame, pattern), sampling=green_sampling(pattern)), frame.shape


def flat_pair(lights: xr.Dataset, flat: xr.Dataset) -> xr.Dataset:
    """Return a calibrated light with and without its flat, whole, reduced: ``before`` and ``after`` (y, x) [e-].

    Parameters
    ----------
    lights
        What `calibrate` gives, whole frames; the first is shown, in green where the sensor has colours.
    flat
        The master that they were divided by.
    """
    light = lights["signal"].isel(frame=0).compute()
    response = flat["signal"].values
    shown = {"before": light.values * response, "after": light.values}
    pattern = str(lights.attrs["cfa_pattern"])
    return _pictures({name: _green(values, pattern) for name, values in shown.items()}, lights)


def alignment_pair(lights: xr.Dataset, aligned: xr.Dataset) -> xr.Dataset:
    """Return the mean of calibrated lights as they came and aligned: ``unaligned``, ``aligned`` (y, x) [e-].

    The middle of the frame at half the scale, in green where the sensor has colours; lights set aside do not count.
    """
    used = np.isin(lights["filename"].values, aligned["filename"].values)
    came = lights["signal"].values[used].mean(axis=0)
    channel = "G" if "G" in aligned["channel"].values else str(aligned["channel"].values[0])
    fits = cubes.stack(aligned.sel(channel=[channel]))["signal"].values[0]
    piece = middle(fits.shape, (4 * WIDEST // 3, 2 * WIDEST))
    shown = {"unaligned": _green(came, str(lights.attrs["cfa_pattern"]))[piece], "aligned": fits[piece]}
    return _pictures(shown, lights).assign_attrs(frames=int(used.sum()))


def finished_steps(aligned: xr.Dataset) -> xr.Dataset:
    """Return the stack of aligned lights on its way to a picture, reduced, with the curve and the histogram.

    Returns
    -------
    Dataset over (channel, y, x): ``stack`` [e-], ``background`` [e-] (what was removed of it), ``linear`` [e-], and
    ``stretched`` (the stack through the curve alone) and ``finished``, from 0 to 1; over (channel, bin): ``count``, the
    linear picture's histogram at ``level`` [e-], and over bin ``curve``, what the stretch makes of it (green).
    Attributes: ``stretch`` (the curve's name), ``history``, ``frames``.

    Raises
    ------
    WorkbenchError
        If the stack cannot be finished.
    """
    whole = cubes.stack(aligned).compute()
    done = finish(whole, progress=False)
    before = fill_holes(crop(whole, share=done.settings.crop.share, box=done.settings.crop.box))
    parameters = stretch_parameters(done.linear, done.settings.stretch)
    gone = np.zeros_like(done.linear["signal"].values)
    if done.background is not None:
        gone = evaluate_background(done.background).values - model_means(done.background)[:, None, None]
    pictures = {"stack": before, "background": make_picture(gone), "linear": done.linear, "finished": done.picture}
    raw = before["signal"].values
    low = float(np.nanpercentile(raw, 1))
    alone = parameters | {"black": [low] * len(raw), "white": low + float(parameters["white"])}
    pictures["stretched"] = apply_stretch(before, alone)
    small = {name: _reduced(picture, WIDEST - 40) for name, picture in pictures.items()}
    counts = histogram(done.linear)
    result = xr.Dataset({name: (("channel", "y", "x"), values) for name, values in small.items()})
    result["count"] = counts["count"]
    result["curve"] = "bin", curve(counts["level"].values, parameters, len(raw) // 2)
    history = "\n".join(attribute_lines(done.picture.attrs, "history"))
    return result.assign_coords(counts.coords).assign_attrs(
        stretch=parameters["method"], history=history, frames=aligned.sizes["frame"], camera=aligned.attrs["camera"]
    )


def _green(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """The green pixels of a mosaic, NaN at the others; of a mono frame all."""
    if pattern == "mono":
        return mosaic
    cell = colour_index(pattern) == 1
    rows, columns = (np.arange(size) % part for size, part in zip(mosaic.shape, cell.shape, strict=True))
    return np.where(cell[rows[:, None], columns], mosaic, np.float32(np.nan))


def _pictures(shown: dict[str, np.ndarray], lights: xr.Dataset) -> xr.Dataset:
    small = {name: _reduced(make_picture(values))[0] for name, values in shown.items()}
    attrs = {"camera": lights.attrs["camera"], "filename": str(lights["filename"].values[0])}
    return xr.Dataset(
        {name: (("y", "x"), values, {"units": "electron"}) for name, values in small.items()}, attrs=attrs
    )


def _reduced(picture: xr.Dataset, widest: int = WIDEST) -> np.ndarray:
    """Return a picture (channel, y, x) so many pixels wide, each the mean of what it covers; a smaller one halved."""
    levels: list[Any] = pyramid(picture, smallest=32)
    halved = [level["signal"].values for level in levels[1:]] or [levels[0]["signal"].values]
    least = [values for values in halved if values.shape[2] >= widest]
    values = least[-1] if least else halved[0]
    if values.shape[2] <= widest:
        return values
    size = widest, round(values.shape[1] * widest / values.shape[2])
    return np.stack([np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX)) for plane in values])
