"""The cube: one contract for frames on their whole way from the camera to the picture.

A cube is an `xarray.DataArray`, lazily dask-backed, with dims ``(frame, y, x)`` while mosaiced and
``(frame, channel, y, x)`` once split into colours.  It is made by `make_cube` and checked by
`check_cube`, here and nowhere else.

Coordinates on ``frame``
    ``kind`` (`KINDS`); the setting (`SETTING`): ``iso``, or ``gain_setting`` and ``offset_setting`` on the camera's own
    scales, ``readout_mode``, ``binning`` and ``window`` (where the frame begins on the sensor); ``filter``;
    ``exposure`` [s], ``aperture`` (f-number), ``temperature`` [°C], ``rotation`` of the camera [deg], ``time``
    (datetime64), ``filename``.  A number that is not known is NaN, a time NaT, a text empty.
Coordinates ``y``, ``x`` while mosaiced
    Row and column of each pixel's centre in the full frame [px], from 0.  `check_cube` compares them with the
    mosaic: a slice that would swap its colours, every other row, or binned pixels are refused.
Attributes
    ``units`` (`UNITS`), ``long_name``, ``stage`` (`STAGES`), ``history`` (a sentence a line), ``camera``,
    ``black_level`` (one value a channel, see `black_levels`) and ``white_level`` [ADU], ``cfa_pattern`` (of the first
    pixels: ``RGGB``, ``GRBG``, ``GBRG``, ``BGGR``, the 36 letters of an X-Trans cell row by row, or ``mono``).  All
    are text, numbers or tuples of numbers, so that ``to_netcdf`` and ``to_zarr`` write a cube and it comes back equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize

from .errors import StageError, WorkbenchError
from .files import fingerprint, real
from .values import attribute_lines, joined_lines

KINDS = ("bias", "dark", "flat", "darkflat", "light")
STAGES = ("raw", "calibrated", "stacked", "stretched")
UNITS = ("adu", "electron")
MOSAICS = ("RGGB", "GRBG", "GBRG", "BGGR")
CFA_CHANNELS = ("R", "G1", "G2", "B")
COLOURS = ("R", "G", "B")
GREENS = ("G1", "G2", "G", "mono")  # the channels that no camera multiplies
XTRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"  # as LibRaw counts it; cameras begin anywhere in it

Setting = dict[str, Any]  # values of the coordinates that a group of frames has in common

_FRAME_COORDS: dict[str, tuple[type | str, Any]] = {
    "kind": (object, ""),
    "iso": (float, np.nan),
    "gain_setting": (float, np.nan),
    "offset_setting": (float, np.nan),
    "egain": (float, np.nan),
    "readout_mode": (object, ""),
    "binning": (float, np.nan),
    "window": (object, ""),
    "filter": (object, ""),
    "exposure": (float, np.nan),
    "aperture": (float, np.nan),
    "temperature": (float, np.nan),
    "rotation": (float, np.nan),
    "time": ("datetime64[ns]", np.datetime64("NaT")),
    "filename": (object, ""),
}
_COORD_ATTRS = {
    "iso": {"long_name": "ISO setting"},
    "gain_setting": {"long_name": "gain setting"},
    "offset_setting": {"long_name": "offset setting"},
    "egain": {"long_name": "gain that the header states"},
    "binning": {"long_name": "sensor pixels along a side of a pixel"},
    "exposure": {"long_name": "exposure time", "units": "s"},
    "aperture": {"long_name": "f-number"},
    "temperature": {"long_name": "sensor temperature", "units": "°C"},
    "rotation": {"long_name": "angle of the rotator", "units": "deg"},
    "time": {"long_name": "start of exposure"},
}
_ORIGIN = "cfa_origin"  # attribute of y and x: the row and column that `cfa_pattern` begins with
_ATTRS = ("units", "long_name", "stage", "history", "camera", "black_level", "white_level", "cfa_pattern")


def channels_of(cfa_pattern: str) -> tuple[str, ...]:
    """Name the channels of a mosaic: R, G1, G2, B, those of X-Trans R, G, B, or mono where there is none."""
    return ("mono",) if cfa_pattern == "mono" else COLOURS if is_xtrans(cfa_pattern) else CFA_CHANNELS


def first_green(channels: Sequence[str]) -> str:
    """Return the channel that stands for all: the first green, or what there is.

    Examples
    --------
    >>> first_green(CFA_CHANNELS), first_green(["mono"])
    ('G1', 'mono')
    """
    return next((name for name in channels if name in GREENS), channels[0])


def is_xtrans(cfa_pattern: str) -> bool:
    """Whether a pattern is the 6 x 6 cell of an X-Trans mosaic: 36 letters, 8 red, 20 green, 8 blue.

    Examples
    --------
    >>> is_xtrans(XTRANS), is_xtrans("RGGB")
    (True, False)
    """
    return len(cfa_pattern) == 36 and sorted(cfa_pattern) == sorted(XTRANS)


def is_mosaic(cfa_pattern: str) -> bool:
    """Whether a text is the pattern of a colour mosaic that is supported."""
    return cfa_pattern in MOSAICS or is_xtrans(cfa_pattern)


def cell_side(cfa_pattern: str) -> int:
    """Return the side of the mosaic's cell [pixels]: 2, of X-Trans 6, of mono 1."""
    return 1 if cfa_pattern == "mono" else 6 if is_xtrans(cfa_pattern) else 2


def mosaic_name(cfa_pattern: str) -> str:
    """Return a pattern as messages name it: the letters of a Bayer cell, ``X-Trans``, ``mono``."""
    return "X-Trans" if is_xtrans(cfa_pattern) else cfa_pattern


def make_cube(
    data: Any,
    *,
    cfa_pattern: str,
    camera: str = "",
    black_level: float | Sequence[float] = np.nan,
    white_level: float = np.nan,
    stage: str = "raw",
    units: str = "adu",
    **coords: Any,
) -> xr.DataArray:
    """Make a cube of mosaiced frames, `data` with dims (frame, y, x), and check it.

    Parameters
    ----------
    data
        A dask or numpy array, or a sequence of two-dimensional ones of the same shape (one a frame).
    cfa_pattern
        The colours of the cell (four, of X-Trans 36) from pixel (0, 0), row by row, or ``mono``.
    black_level, white_level
        In ADU; the black level one value for all, or one a channel (see `channels_of`).
    **coords
        As listed above: one value for all frames or one a frame.

    Raises
    ------
    WorkbenchError
        If shape, coordinates or attributes break the contract.

    Examples
    --------
    >>> cube = make_cube(np.zeros((2, 4, 6), "uint16"), cfa_pattern="RGGB", kind="bias", iso=100)
    >>> cube.dims, cube.attrs["black_level"], cube.iso.values
    (('frame', 'y', 'x'), (nan, nan, nan, nan), array([100., 100.]))
    """
    if not isinstance(data, da.Array):
        if isinstance(data, Sequence):
            data = da.stack([da.asarray(frame) for frame in data])
        else:
            data = np.asarray(data)
            data = da.from_array(data, chunks=(1, *data.shape[1:]) if data.ndim == 3 else "auto")
    if data.ndim != 3:
        raise WorkbenchError(f"a cube of mosaiced frames has dims (frame, y, x); the data given has {data.ndim} dims")
    unknown = set(coords) - set(_FRAME_COORDS)
    if unknown:
        raise WorkbenchError(f"unknown frame coordinates {sorted(unknown)}; a cube has {list(_FRAME_COORDS)}")
    if cfa_pattern != "mono" and not is_mosaic(cfa_pattern):
        raise WorkbenchError(f"cfa_pattern {cfa_pattern!r} is none of {', '.join(MOSAICS)}, X-Trans or mono")
    count = data.shape[0]
    frame_coords = {}
    for name, (dtype, missing) in _FRAME_COORDS.items():
        value = coords.get(name, missing)
        values = np.asarray(missing if value is None else value, dtype=dtype)
        if values.ndim and values.shape != (count,):
            raise WorkbenchError(f"coordinate {name!r} has {values.size} values for {count} frames")
        frame_coords[name] = ("frame", np.broadcast_to(values, (count,)).copy(), _COORD_ATTRS.get(name, {}))
    black = np.broadcast_to(np.asarray(black_level, float), len(channels_of(cfa_pattern))).tolist()
    attrs = {
        "units": units,
        "long_name": {"adu": "pixel value", "electron": "signal"}.get(units, units),
        "stage": stage,
        "history": "",
        "camera": camera,
        "black_level": tuple(black) if len(black) > 1 else black[0],
        "white_level": float(white_level),
        "cfa_pattern": cfa_pattern,
    }
    pixels = {}
    for dim, axis, title in (("x", 2, "column"), ("y", 1, "row")):  # in the order in which HoloViews takes them
        pixels[dim] = (dim, np.arange(data.shape[axis]), {"units": "pix", "long_name": title, _ORIGIN: 0})
    cube = xr.DataArray(data, dims=("frame", "y", "x"), coords=frame_coords | pixels, attrs=attrs, name="value")
    return check_cube(cube)


def check_cube(cube: xr.DataArray, *, stage: str | None = None, kind: str | None = None) -> xr.DataArray:
    """Return the cube if it keeps the contract and is of that stage and kind.

    Raises
    ------
    StageError
        If the cube is of another stage.
    WorkbenchError
        If dims, coordinates, kinds or attributes are not a cube's, or its pixels are not all those of a rectangle of
        the frame that begins with the colours that ``cfa_pattern`` names.

    Examples
    --------
    >>> cube = make_cube(np.zeros((1, 4, 6)), cfa_pattern="RGGB", kind="dark")
    >>> check_cube(cube.isel(x=slice(1, None)))
    Traceback (most recent call last):
    ...
    workbench.core.errors.WorkbenchError: this cube begins at column 1, its cfa_pattern RGGB at column 0: ...
    """
    if not isinstance(cube, xr.DataArray):
        raise WorkbenchError(f"a cube is an xarray.DataArray; this is a {type(cube).__name__}")
    if cube.dims not in (("frame", "y", "x"), ("frame", "channel", "y", "x")):
        raise WorkbenchError(f"a cube has dims (frame, y, x) or (frame, channel, y, x); this has {cube.dims}")
    missing = [name for name in _FRAME_COORDS if name not in cube.coords]
    missing += [name for name in _ATTRS if name not in cube.attrs]
    if missing:
        raise WorkbenchError(f"this cube lacks {missing}; make cubes with workbench.make_cube or open_folder")
    if cube.attrs["stage"] not in STAGES or cube.attrs["units"] not in UNITS:
        raise WorkbenchError(
            f"stage {cube.attrs['stage']!r} or units {cube.attrs['units']!r} unknown; "
            f"stages are {', '.join(STAGES)}, units {', '.join(UNITS)}"
        )
    if stage is not None and cube.attrs["stage"] != stage:
        raise StageError(f"this step wants a cube of stage {stage!r} and got one of stage {cube.attrs['stage']!r}")
    check_pixels(cube)
    kinds = set(cube["kind"].values.tolist())
    if kind is not None and kinds - {kind}:
        raise WorkbenchError(f"this step wants {kind} frames and got {', '.join(sorted(map(str, kinds)))}")
    return cube


def check_pixels(cube: xr.DataArray) -> None:
    """Compare the coordinates of the pixels with the mosaic.

    Raises
    ------
    WorkbenchError
        If rows or columns were left out, or the cube begins with other colours than ``cfa_pattern`` names.
    """
    pattern = cube.attrs["cfa_pattern"]
    for dim, title in (("y", "row"), ("x", "column")):
        if dim not in cube.coords or "channel" in cube.dims:
            continue
        places = cube[dim].values
        if (places % 1).any() or (np.diff(places) != 1).any():
            raise WorkbenchError(
                f"the {title}s of this cube do not follow one another, as after binning or a slice with a step; these "
                "are other pixels with other noise: use all pixels of a rectangle (workbench.core.mosaic.crop)"
            )
        origin = cube[dim].attrs.get(_ORIGIN, 0)
        if places.size and (places[0] - origin) % cell_side(pattern):
            by = "multiples of 6" if is_xtrans(pattern) else "even numbers"
            raise WorkbenchError(
                f"this cube begins at {title} {places[0]:g}, its cfa_pattern {mosaic_name(pattern)} at {title} "
                f"{origin:g}: every colour would be taken for another; cut it with workbench.core.mosaic.crop, or by "
                f"{by}"
            )


def black_levels(attrs: Mapping[str, Any]) -> np.ndarray:
    """Return the black level of each channel [ADU] from the attributes of a cube or master; NaN where not known.

    Examples
    --------
    >>> black_levels({"black_level": 600.0}).tolist(), black_levels({"black_level": (1.0, 2.0, 3.0, 4.0)}).tolist()
    ([600.0], [1.0, 2.0, 3.0, 4.0])
    """
    return np.array(attrs["black_level"], float).ravel()


def take_frames(cube: xr.DataArray, which: Any) -> xr.DataArray:
    """Return some frames of a cube, in the order given, so that reading them copies nothing (as ``isel`` would).

    Parameters
    ----------
    which
        Numbers of frames, or one truth value for each.

    Examples
    --------
    >>> cube = make_cube(np.arange(3)[:, None, None] * np.ones((1, 2, 2)), cfa_pattern="mono", kind="bias")
    >>> take_frames(cube, [2, 0]).values[:, 0, 0].tolist()
    [2.0, 0.0]
    """
    which = np.asarray(which)
    numbers = np.flatnonzero(which) if which.dtype == bool else which
    taken = cube.isel(frame=numbers)
    if numbers.size and cube.chunks is not None and set(cube.chunksizes["frame"]) == {1}:
        taken = taken.copy(data=cube.data.blocks[numbers.tolist()])
    return taken


def group_frames(cube: xr.DataArray | xr.Dataset, *coords: str) -> list[tuple[Setting, np.ndarray]]:
    """Return each combination of these coordinates' values with the numbers of its frames, in rising order.

    Frames in which a value is not known (NaN, or empty text) form groups of their own.

    Examples
    --------
    >>> cube = make_cube(np.zeros((3, 2, 2), "uint16"), cfa_pattern="RGGB", kind="bias", iso=[200, 100, 200])
    >>> [(setting["iso"], frames.tolist()) for setting, frames in group_frames(cube, "iso")]
    [(100.0, [1]), (200.0, [0, 2])]
    """
    columns = {name: pd.factorize(cube[name].values, sort=True)[0] for name in coords}
    values, number = np.unique(np.stack([*columns.values()], axis=1), axis=0, return_inverse=True)
    groups = [np.flatnonzero(number.reshape(-1) == index) for index in range(len(values))]
    groups.sort(key=lambda frames: [code if code >= 0 else np.inf for code in (columns[n][frames[0]] for n in coords)])
    return [({name: cube[name].values.item(frames[0]) for name in coords}, frames) for frames in groups]


def evenly(count: int, most: int) -> np.ndarray:
    """Return at most so many of the numbers 0 to count − 1, evenly spread, the first and the last among them.

    Examples
    --------
    >>> evenly(3, 5).tolist(), evenly(9, 3).tolist()
    ([0, 1, 2], [0, 4, 8])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def add_history(array: xr.DataArray, sentence: str) -> xr.DataArray:
    """Return the array with one more sentence in its history; the input stays as it is."""
    return array.assign_attrs(history=joined_lines([*attribute_lines(array.attrs, "history"), sentence]))


def one_value(cube: xr.DataArray, coord: str, task: str) -> float:
    """Return the one value that a coordinate has over all frames.

    Raises
    ------
    WorkbenchError
        If the frames differ in it; the message names a file of each value and the `task` that wants one.
    """
    values = np.unique(cube[coord].values)
    if values.size == 1:
        return float(values[0])
    examples = [f"{value:g} ({cube['filename'].values[cube[coord].values == value][0]})" for value in values[:4]]
    raise WorkbenchError(
        f"{task} needs frames of one {coord}; these have {', '.join(examples)}: select one, "
        f"for example cube.sel(frame=cube.{coord} == {values[0]:g})"
    )


def digest(*inputs: Any) -> str:
    """Return a digest of the inputs: the same digest means the same inputs.

    Inputs are tables of frames (one row a frame, its file in the column ``path``; all columns count, as ``frames.csv``
    may correct what a file states), paths of files, cubes, Datasets, settings, and tuples, lists and dicts of these.  A
    file counts by its path, size and time of change; a lazy cube by the name of its graph, which stands for the files
    it is read from; everything else by its content.

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
        path = real(value)
        try:
            state = fingerprint(path)
        except OSError as problem:
            raise WorkbenchError(f"{path}: cannot be read ({problem.strerror}); open the folder again") from problem
        return path.as_posix(), *state
    if isinstance(value, Mapping) and not isinstance(value, xr.Dataset):
        return [(name, _identity(item)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(_identity(item) for item in value)]
    return value
