"""The cube: one contract for frames on their whole way from the camera to the picture.

A cube is an `xarray.DataArray`, lazily dask-backed, with dims ``(frame, y, x)`` while mosaiced and
``(frame, channel, y, x)`` once split into colours.  It is made by `make_cube` and checked by
`check_cube`, here and nowhere else.

Coordinates on ``frame``
    ``kind`` (`KINDS`), ``iso``, ``exposure`` [s], ``aperture`` (f-number), ``temperature`` [°C],
    ``time`` (datetime64), ``filename``.  A number that is not known is NaN, a time NaT.
Attributes
    ``units`` (`UNITS`), ``long_name``, ``stage`` (`STAGES`), ``history`` (a list of sentences),
    ``camera``, ``black_level`` (one value a channel) and ``white_level`` [ADU],
    ``cfa_pattern`` (of the pixels from (0, 0): ``RGGB``, ``GRBG``, ``GBRG``, ``BGGR``, or ``mono``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .errors import StageError, WorkbenchError

KINDS = ("bias", "dark", "flat", "darkflat", "light")
STAGES = ("raw", "calibrated", "stacked", "stretched")
UNITS = ("adu", "electron")
MOSAICS = ("RGGB", "GRBG", "GBRG", "BGGR")
CFA_CHANNELS = ("R", "G1", "G2", "B")

_FRAME_COORDS: dict[str, tuple[type | str, Any]] = {
    "kind": (object, ""),
    "iso": (float, np.nan),
    "exposure": (float, np.nan),
    "aperture": (float, np.nan),
    "temperature": (float, np.nan),
    "time": ("datetime64[ns]", np.datetime64("NaT")),
    "filename": (object, ""),
}
_COORD_ATTRS = {
    "iso": {"long_name": "ISO setting"},
    "exposure": {"long_name": "exposure time", "units": "s"},
    "aperture": {"long_name": "f-number"},
    "temperature": {"long_name": "sensor temperature", "units": "°C"},
    "time": {"long_name": "start of exposure"},
}
_ATTRS = ("units", "long_name", "stage", "history", "camera", "black_level", "white_level", "cfa_pattern")


def channels_of(cfa_pattern: str) -> tuple[str, ...]:
    """Name the channels of a mosaic: R, G1, G2, B, or mono where there is none."""
    return ("mono",) if cfa_pattern == "mono" else CFA_CHANNELS


def make_cube(
    data: Any,
    *,
    cfa_pattern: str,
    camera: str = "",
    black_level: float | Sequence[float] = np.nan,
    white_level: float = np.nan,
    stage: str = "raw",
    units: str = "adu",
    long_name: str = "pixel value",
    history: Sequence[str] = (),
    **coords: Any,
) -> xr.DataArray:
    """Make a cube of mosaiced frames, `data` with dims (frame, y, x), and check it.

    Parameters
    ----------
    data
        A dask or numpy array, or a sequence of two-dimensional ones of the same shape (one a frame).
    cfa_pattern
        The four colours from pixel (0, 0), row by row, or ``mono``.
    black_level, white_level
        In ADU; the black level one value for all, or one a channel (R, G1, G2, B).
    **coords
        ``kind``, ``iso``, ``exposure`` [s], ``aperture``, ``temperature`` [°C], ``time``,
        ``filename``: one value for all frames or one a frame.

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
    if cfa_pattern not in (*MOSAICS, "mono"):
        raise WorkbenchError(f"cfa_pattern {cfa_pattern!r} is none of {', '.join(MOSAICS)} or mono")
    count = data.shape[0]
    frame_coords = {}
    for name, (dtype, missing) in _FRAME_COORDS.items():
        value = coords.get(name, missing)
        values = np.asarray(missing if value is None else value, dtype=dtype)
        if values.ndim and values.shape != (count,):
            raise WorkbenchError(f"coordinate {name!r} has {values.size} values for {count} frames")
        frame_coords[name] = ("frame", np.broadcast_to(values, (count,)).copy(), _COORD_ATTRS.get(name, {}))
    n_channels = len(channels_of(cfa_pattern))
    black = np.broadcast_to(np.asarray(black_level, float), (n_channels,))
    attrs = {
        "units": units,
        "long_name": long_name,
        "stage": stage,
        "history": list(history),
        "camera": camera,
        "black_level": tuple(float(value) for value in black),
        "white_level": float(white_level),
        "cfa_pattern": cfa_pattern,
    }
    return check_cube(xr.DataArray(data, dims=("frame", "y", "x"), coords=frame_coords, attrs=attrs))


def check_cube(cube: xr.DataArray, *, stage: str | None = None, kind: str | None = None) -> xr.DataArray:
    """Return the cube if it keeps the contract (and is of that stage and kind), else say what breaks it.

    Raises
    ------
    StageError
        If the cube is of another stage.
    WorkbenchError
        If dims, coordinates, kinds or attributes are not a cube's.
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
    kinds = set(cube["kind"].values.tolist())
    if kind is not None and kinds - {kind}:
        raise WorkbenchError(f"this step wants {kind} frames and got {', '.join(sorted(map(str, kinds)))}")
    return cube


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


def add_history(array: xr.DataArray, sentence: str) -> xr.DataArray:
    """Return the array with one more sentence in its history; the input stays as it is."""
    return array.assign_attrs(history=[*array.attrs.get("history", ()), sentence])


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
