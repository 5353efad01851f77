"""Any frame by its path, whatever the format: pixels, record, and lazy cubes of many frames."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.local import get_sync

from ..core.cube import KINDS, channels_of, group_frames, make_cube
from ..core.errors import FrameReadError, WorkbenchError, of_one_file
from ..core.files import holder
from ..core.mosaic import channel_index, planes, shifted, spread_rows
from ..core.parallel import decoded
from ..core.settings import SETTING, setting_dim
from ..core.statistics import odd_frames
from ..core.values import joined_lines
from .containers import frames_in, read_ser, read_tiff, read_xisf, ser_layout, tiff_layout, xisf_keywords, xisf_layout
from .dng import plain_dng
from .fits import fits_layout, header_of, read_fits
from .metadata import FrameInfo, PlainPixels, kind_in_words, read_exif, require_file
from .raw import raw_info, read_raw

_RECORDED = (*SETTING, "egain", "filter", "exposure", "aperture", "temperature", "rotation", "time")
_EQUAL = {  # coordinates that equal frames of one setting share, and what to do about one that is odd
    "bias": ((), "check that it is a bias frame"),
    "dark": (("temperature", "exposure"), "check its temperature, and that the shutter was closed"),
    "flat": (("exposure", "aperture", "filter"), "look at it"),
}
Area = Literal["visible", "full"]
_ONLY_READ = ("read_frame-", "from-value-", "stack-", "getitem-")  # dask's layers of a cube that nothing was done to
_STAND_INS: ContextVar[list[tuple[np.ndarray, PlainPixels]] | None] = ContextVar("stand-ins", default=None)
_LAYOUTS = {"fits": fits_layout, "xisf": xisf_layout, "tiff": tiff_layout, "ser": ser_layout}
_UNPACKERS = {"xisf": read_xisf, "tiff": read_tiff, "ser": read_ser}
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PGM_HEADER = re.compile(rb"P5" + 3 * (_GAP + rb"(\d+)") + rb"\s")


@of_one_file
def read_frame(path: str | Path, area: Area = "visible", scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Return one frame's pixels (y, x) in ADU as read: nothing subtracted or scaled, unless it is given.

    Integers come as uint16, floating-point FITS data as they are, always in native byte order, and the picture's top
    row first, whatever the order in the file.  ``area="full"`` includes a RAW's masked margins and a FITS overscan.

    Raises
    ------
    FrameReadError
        If the file is not a frame, damaged, cut short, or of a kind that is not supported.
    """
    if area not in ("visible", "full"):
        raise WorkbenchError(f"area {area!r} is not known; choose 'visible' or 'full'")
    if scale != 1 or shift:
        return read_frame(path, area) * np.float32(scale) + np.float32(shift)
    plain = plain_pixels(path)
    if plain is not None:
        pixels = plain.read(area=area)
        return pixels.astype(np.uint16) if pixels.dtype == np.uint8 else pixels
    form = _format(path)
    if form == "fits":
        return read_fits(path, area)
    return _UNPACKERS[form](path) if form in _UNPACKERS else read_raw(path, area)


@of_one_file
def plain_pixels(path: str | Path) -> PlainPixels | None:
    """Return where a frame's pixels lie in its file, so that any part can be read in place.

    Uncompressed DNG, FITS and PGM are plain; None means that the frame must be decoded by `read_frame`, whose errors
    this raises too.

    Examples
    --------
    >>> import tempfile
    >>> from workbench.ingest import DngMetadata, write_dng
    >>> frame = np.arange(32 * 32, dtype="uint16").reshape(32, 32)
    >>> path = write_dng(Path(tempfile.mkdtemp()) / "a.dng", frame, DngMetadata("RGGB", 0, 4095))
    >>> plain_pixels(path).read(slice(2, 4), slice(0, 3))
    array([[64, 65, 66],
           [96, 97, 98]], dtype=uint16)
    """
    form = _format(path)
    if form in _LAYOUTS:
        return _layout(form, path)[1]
    if form == "pgm":
        return _plain_pgm(Path(path))
    found = _dng(Path(path))
    return found[1] if found else None


@of_one_file
def read_metadata(path: str | Path, known: MutableMapping[Any, dict[str, Any]] | None = None) -> FrameInfo:
    """Return what a frame's file records of it, without its pixels.

    LibRaw knows a camera RAW's size, mosaic and levels only when it has decoded it; pass one dict as
    `known` when reading many, and only the first of each camera, ISO and file structure is decoded.  Raises a
    `FrameReadError` where `read_frame` does.
    """
    form = _format(path)
    if form in _LAYOUTS:
        return _layout(form, path)[0]
    if form == "pgm":  # records its size and nothing else
        height, width = shape = _plain_pgm(Path(path)).full_shape
        return FrameInfo(Path(path), "pgm", height, width, full_shape=shape, cfa_stated=False)
    found = _dng(Path(path))
    return FrameInfo(Path(path), "dng", **found[0], **read_exif(path)) if found else raw_info(path, known)


def read_header(path: str | Path) -> Mapping[str, Any]:
    """Return the header of a FITS frame or the FITS keywords of an XISF one, else, or if it cannot be read, nothing."""
    readers = {"fits": header_of, "xisf": xisf_keywords}
    try:
        return readers.get(_format(path), lambda _: {})(path)
    except FrameReadError:
        return {}


def open_frames(frames: Any, *, kind: str | None = None, area: Area = "visible") -> xr.DataArray:
    """Open frames, a path, paths or a table of `open_folder`, as one lazy cube (frame, y, x), one frame a chunk.

    Their `kind` is that of the table or the FITS header where it is not given; ``area="full"`` includes masked margins.

    Raises
    ------
    WorkbenchError
        If no frames are given, or they differ in size, camera or mosaic.
    FrameReadError
        If one of the paths cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> from workbench.ingest import DngMetadata, write_dng
    >>> metadata = DngMetadata("RGGB", black_level=600, white_level=16383, iso=100, exposure=2)
    >>> path = write_dng(Path(tempfile.mkdtemp()) / "a.dng", np.zeros((32, 32), "uint16"), metadata)
    >>> open_frames(path, kind="dark").exposure.values
    array([2.])
    """
    table = frames if isinstance(frames, pd.DataFrame) else _table_of_paths(frames)
    if kind is not None and kind not in KINDS:
        raise WorkbenchError(f"kind {kind!r} is not known; choose {', '.join(KINDS)}")
    if not len(table):
        raise WorkbenchError("no frames given: a cube needs at least one")
    pattern, camera = _same(table, "cfa_pattern"), _same(table, "camera")
    shape = (_same(table, "height"), _same(table, "width"))
    if area == "full":
        shape, margins = _same(table, "full_shape"), _same(table, "margins")
        pattern = shifted(pattern, -margins[0], -margins[1])
    dtype = np.result_type(*set(table["dtype"]), *([np.float32] if table["shift"].any() else []))
    history = [f"read {len(table)} frames"]
    black = _common_black(table["black_level"], pattern, history)
    white = float(table["white_level"].min())
    if table["white_level"].nunique(dropna=False) > 1:
        levels = _few(set(table["white_level"]))
        history.append(f"white levels differ among the frames ({levels} ADU): the attribute white_level is the lowest")
    chunks = [
        da.from_delayed(_delayed_read(path, area, shape, str(dtype), change), shape, dtype=dtype)
        for path, *change in table[["path", "scale", "shift"]].itertuples(index=False)
    ]
    cube = make_cube(
        da.stack(chunks),
        cfa_pattern=pattern,
        camera=camera,
        black_level=black,
        white_level=white,
        kind=kind or table["kind"].to_numpy(),
        filename=table["file"].to_numpy(),
        **{name: table[name].to_numpy() for name in _RECORDED},
    )
    return cube.assign_attrs(history=joined_lines(history))


def frame_row(info: FrameInfo, file: str, kind: str) -> dict[str, Any]:
    """Return a frame's row of the table: its record with its name in the folder and its kind."""
    return {"file": file, "kind": kind, **asdict(info)}


def _table_of_paths(frames: Any) -> pd.DataFrame:
    if not isinstance(frames, Iterable | os.PathLike):
        raise WorkbenchError(f"open_frames takes a path, paths or a folder's table; got {type(frames).__name__}")
    paths = [frames] if isinstance(frames, (str, os.PathLike)) else frames
    known: dict[Any, dict[str, Any]] = {}
    rows = []
    for path in (frame for file in paths for frame in frames_in(Path(file))):
        info = read_metadata(path, known)
        rows.append(frame_row(info, path.name, kind_in_words(info.imagetyp)))
    return pd.DataFrame(rows)


def _format(path: str | Path) -> str:
    """Return the format by the first bytes; a name can be wrong."""
    path = Path(path)
    with require_file(holder(path)).open("rb") as file:
        head = file.read(9)
    named_fits = ".fit" in path.name.lower() or path.suffix.lower() == ".fts"
    if head == b"SIMPLE  =" or (named_fits and head[:2] in (b"\x1f\x8b", b"BZ")):
        return "fits"
    if head == b"LUCAM-REC":
        return "ser"
    if head.startswith(b"XISF0100"):
        return "xisf"
    if path.suffix.casefold() in (".tif", ".tiff") and head[:4] in (b"II*\0", b"MM\0*") and not _dng(path):
        return "tiff"
    return "pgm" if head[:1] == b"P" and head[1:2] in b"1234567" else "raw"


def _dng(path: Path) -> tuple[dict[str, Any], PlainPixels] | None:
    return _as_it_is(plain_dng, path)


def _layout(form: str, path: str | Path) -> tuple[FrameInfo, PlainPixels | None]:
    return _as_it_is(_LAYOUTS[form], Path(path))


def _as_it_is(read: Callable[[Path], Any], path: Path) -> Any:
    stat = holder(path).stat()
    return _kept(read, path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)  # a file is read more than once, and looking through its header takes a third of that
def _kept(read: Callable[[Path], Any], path: Path, size: int, changed: int) -> Any:
    """Return what a function reads of the header of a file of that size, changed at that time."""
    return read(path)


def _delayed_read(path: Path, area: Area, shape: tuple[int, int], dtype: str, change: list[float]) -> Any:
    stat = holder(path).stat()  # a file that has been replaced is another chunk
    token = dask.base.tokenize(str(path), stat.st_size, stat.st_mtime_ns, area, dtype, *change, "upright")
    return dask.delayed(_read_checked, pure=True)(path, area, shape, dtype, change, dask_key_name=f"read_frame-{token}")


def is_as_read(cube: xr.DataArray) -> bool:
    """Whether frames of a lazy cube can only be those of `open_frames`, some or parts of them, or in another order."""
    return dask.is_dask_collection(cube.data) and all(name.startswith(_ONLY_READ) for name in cube.data.dask.layers)


def frame_place(frame: Any) -> PlainPixels | None:
    """Return where the file of a frame holds the very pixels of the frame; None where it must be computed.

    `frame` is one of the `lazy_frames` of a cube that `is_as_read`.  It is made of memory in place of the pixels: that
    nothing but the whole of it comes out shows that nothing has been cut off or moved.

    Raises
    ------
    FrameReadError
        If the file is damaged, cut short, or gone.
    """
    stand_ins: list[tuple[np.ndarray, PlainPixels]] = []
    token = _STAND_INS.set(stand_ins)
    try:
        result = dask.compute(frame, scheduler=get_sync)[0]
    except _NotInPlaceError:
        return None
    finally:
        _STAND_INS.reset(token)
    if len(stand_ins) != 1:
        return None
    pixels, place = stand_ins[0]
    whole = result.size == pixels.size and result.dtype == pixels.dtype and result.flags.c_contiguous
    return place if whole and result.ctypes.data == pixels.ctypes.data else None


def _stand_in(
    noted: list[tuple[np.ndarray, PlainPixels]], path: Path, area: Area, shape: tuple[int, int], dtype: str,
    change: list[float],
) -> np.ndarray:  # fmt: skip
    """Memory of a frame with anything in it, noted with where its file holds the frame's pixels."""
    place = plain_pixels(path)
    if place is None or area != "visible" or list(change) != [1, 0] or (place.shape, place.dtype) != (shape, dtype):
        raise _NotInPlaceError
    stand_in = np.empty(shape, dtype)
    noted.append((stand_in, place))
    return stand_in


class _NotInPlaceError(Exception):
    """The pixels of a frame do not lie in its file as they are."""


def _read_checked(path: Path, area: Area, shape: tuple[int, int], dtype: str, change: list[float]) -> np.ndarray:
    noted = _STAND_INS.get()
    if noted is not None:
        return _stand_in(noted, path, area, shape, dtype, change)
    if plain_pixels(path) is None:
        stat = holder(path).stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns, area, *change)
        pixels = decoded(key, partial(read_frame, path, area, *change))
    else:  # reading costs less than the memory
        pixels = read_frame(path, area, *change)
    if pixels.shape != tuple(shape):
        raise FrameReadError(
            path,
            f"decodes to {pixels.shape[0]} x {pixels.shape[1]} pixels, not to the announced {shape[0]} x {shape[1]}",
        )
    return pixels.astype(dtype, copy=False)


def _plain_pgm(path: Path) -> PlainPixels:
    """Return where the 16-bit pixels lie in a PGM (netpbm's ``pgm(5)``), a grey map as ``dcraw -4 -D`` writes it."""
    with path.open("rb") as file:
        match = _PGM_HEADER.match(file.read(4096))
    if not match:
        raise FrameReadError(path, "is not a binary PGM (P5) with width, height and maximum; make it with dcraw -4 -D")
    width, height, maximum = map(int, match.groups())
    if not (width and height and 0 < maximum < 65536):
        raise FrameReadError(path, f"has an impossible PGM header: {width} x {height}, maximum {maximum}")
    if maximum < 256:
        raise FrameReadError(
            path, "has eight bits a pixel: the camera's values are lost; make it again with dcraw -4 -D"
        )
    return PlainPixels(path, match.end(), ">u2", (height, width)).require_whole()


def differing(table: pd.DataFrame, column: str) -> str:
    """Return the first values of a column that is not the same for all frames, each with a frame's name."""
    first = table.drop_duplicates(column)
    shown = [f"{value or 'unknown'} ({file})" for value, file in zip(first[column], first["file"], strict=True)]
    return ", ".join(shown[:4]) if len(first) > 1 else ""


def _same(table: pd.DataFrame, column: str) -> Any:
    """The one value of a column, or an error that names a frame of each."""
    example, found = table[column].iloc[0], differing(table, column)
    if not found:
        return example
    names = {"cfa_pattern": "CFA pattern"}
    example = example.item() if isinstance(example, np.generic) else example
    raise WorkbenchError(
        f"these frames differ in {names.get(column, column)}: {found}; "
        f"one cube needs one: take a part, for example frames.select({column}={example!r})"
    )


def _common_black(levels: pd.Series, pattern: str, history: list[str]) -> Any:
    """The frames' black level; NaN and a sentence in the history where they differ."""
    unique = set(levels)
    if len({tuple("nan" if math.isnan(value) else value for value in level) for level in unique}) == 1:
        return next(iter(unique))
    history.append(f"black levels differ among the frames ({_few(unique)} ADU): the attribute black_level is NaN")
    return (math.nan,) * len(channels_of(pattern))


def _few(values: Iterable) -> str:
    texts = sorted("/".join(f"{v:g}" for v in dict.fromkeys(np.atleast_1d(value).tolist())) for value in values)
    return ", ".join(texts[:4]) + (", …" if len(texts) > 4 else "")


def watched_reading(cube: xr.DataArray, rows: dict[int, np.ndarray]) -> xr.DataArray:
    """Return a lazy cube that leaves sampled rows of each frame in `rows` as it is read."""
    where = spread_rows(cube.sizes["y"], max(2, len(channel_index(cube.attrs["cfa_pattern"]))))

    def look(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            first = block_info[0]["array-location"][0][0]
            rows.update({first + number: frame[where] for number, frame in enumerate(block)})
        return block

    return cube.copy(data=da.map_blocks(look, cube.data, name="watched", dtype=cube.dtype))


def odd_of(cube: xr.DataArray, rows: Mapping[int, np.ndarray], kind: str) -> dict[int, str]:
    """Return the `odd_frames` among equal ones of a cube by the rows that `watched_reading` left: number, sentence."""
    coords, advice = _EQUAL[kind]
    cell, odd = channel_index(cube.attrs["cfa_pattern"]), dict[int, str]()
    for _, frames in group_frames(cube, setting_dim(cube), *coords):
        if not rows.keys() >= set(frames):  # a flat that has no partner is not read
            continue
        samples = planes(np.stack([rows[number] for number in frames]), cell)
        found = odd_frames((plane.reshape(frames.size, -1) for _, plane in samples), kind)
        odd |= {int(frames[number]): f"{words}; {advice}" for number, words in found.items()}
    return odd
