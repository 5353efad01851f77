"""The stack as a file: multi-extension FITS, written band by band, and opened again without loss.

==================  =====================================================================================
primary             signal, float32 electrons (channel, y, x), or (y, x) of a mono stack, scaled to the reference's
                    exposure; ADU, and ``BUNIT`` says so, where the gain is not known; 0 where there is none
``MASK``            1 where the signal has no value; `open_stack` makes these pixels NaN
``VARIANCE``        its square: equivalent white noise, right for the mean of 16 x 16 pixels
                    (divided by their number); a single pixel's is ``PIXVAR_c`` times this less
                    the shared variance, because resampling shares each sample out
``COVERAGE``        samples that went in after rejection
``REJECTED_LOW``    samples rejected as too low, ``REJECTED_HIGH`` as too high
``SATURATED``       samples that were saturated
``CHI_SQUARE``      scatter between frames over the noise model's, in blocks of 32 pixels: 1 where it holds
``SHARED_NOISE``    what the frames share of the masters' noise, part of the variance, in blocks of 64 x 32
                    pixels: two numbers a channel; shared variance = first + second times signal squared
``SET_ASIDE``       table: every file that could not be used, with the reason; absent where there is none
``FRAMES``          table: every light, used or set aside, with its numbers and the reason; its header holds
                    ``WORKBNCH``: units, history and attributes as JSON
==================  =====================================================================================

The order is what other programs need: images of one size and type next to each other are a sequence to Siril, and zeros
are its missing pixels (with NaN among them it gives no statistics).  astropy's `CCDData.read(path,
hdu_uncertainty="VARIANCE")` takes unit, variance and mask.  Files of earlier versions, with other orders and NaN, are
read as well.

The file is made under another name and takes its own when it is whole.  Bands may be written in any order, by
several processes, and again.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits

from ..core.errors import FrameReadError, WorkbenchError
from ..core.files import make_durable, require_replaceable
from ..core.fits_cards import (
    RECORD,
    ascii_text,
    put_cards,
    put_plane,
    put_seal,
    record_of,
    require_sealed,
    seal,
    with_gaps,
    without_gaps,
)
from ..core.values import plain_attributes
from .engine import Band
from .normalise import shared_variance
from .window import BAND, BLOCK

IMAGES = ("SIGNAL", "MASK", "VARIANCE", "COVERAGE", "REJECTED_LOW", "REJECTED_HIGH", "SATURATED")
_BLOCK_MAPS = ("CHI_SQUARE", "SHARED_NOISE")
_FLOATS = ("SIGNAL", "VARIANCE")
_FITS_BLOCK = 2880
_HEADER_ROOM = 3 * _FITS_BLOCK  # kept free for the primary header, which is known only at the end: 108 cards


@dataclass(frozen=True)
class Layout:
    """Where each image lies in the file; plain data, the same in every process."""

    path: Path
    shape: tuple[int, int, int]
    counts: str
    offsets: tuple[int, ...]
    total: int
    units: str = "electron"


def _stored_type(name: str, counts: str) -> np.dtype:
    """How an image is stored; counts of 16 bits have their sign bit flipped."""
    return np.dtype({"MASK": "u1"}.get(name, ">f4" if name in _FLOATS else counts))


def _axes(shape: tuple[int, int, int]) -> tuple[int, ...]:
    """The axes of an image in the file: a mono one has two, as other programs expect."""
    return shape[1:] if shape[0] == 1 else shape


def _extension_header(shape: tuple[int, int, int], name: str, counts: str, units: str) -> bytes:
    dtype = _stored_type(name, counts).newbyteorder("=")
    header = fits.ImageHDU(np.broadcast_to(dtype.type(0), _axes(shape)), name=name).header
    put_seal(header)
    put_plane(header, name, units)
    return header.tostring().encode("ascii")


def plan_layout(path: Path, shape: tuple[int, int, int], frames: int, units: str = "electron") -> Layout:
    """Lay out the file for a stack of `frames` frames and `shape` (channel, y, x), in ``electron`` or ``adu``."""
    counts = "u1" if frames < 256 else ">u2"
    offsets, at = [], 0
    for name in IMAGES:
        room = _HEADER_ROOM if name == "SIGNAL" else len(_extension_header(shape, name, counts, units))
        offsets.append(at + room)
        size = math.prod(shape) * _stored_type(name, counts).itemsize
        at += room + -(-size // _FITS_BLOCK) * _FITS_BLOCK
    return Layout(path, shape, counts, tuple(offsets), at, units)


def create_file(layout: Layout) -> None:
    """Make the file at its full size, so that a disk that is too small says so now.

    Raises
    ------
    WorkbenchError
        If the place cannot be written to or has no room.
    """
    try:
        layout.path.unlink(missing_ok=True)  # a link would lead elsewhere
        with open(layout.path, "xb") as file:
            os.posix_fallocate(file.fileno(), 0, layout.total)
            for name, offset in zip(IMAGES[1:], layout.offsets[1:], strict=True):
                text = _extension_header(layout.shape, name, layout.counts, layout.units)
                os.pwrite(file.fileno(), text, offset - len(text))
    except OSError as problem:
        layout.path.unlink(missing_ok=True)
        raise WorkbenchError(_no_room(layout, problem)) from problem


def _no_room(layout: Layout, problem: OSError) -> str:
    return (
        f"{layout.path.parent}: the stack cannot be written there ({problem.strerror or problem}); it takes "
        f"{layout.total / 1e6:,.0f} MB: make room or choose another place with --out"
    )


def write_band(layout: Layout, band: Band) -> None:
    """Write a band's images to their places; the order of bands does not matter."""
    _, height, width = layout.shape
    try:
        handle = os.open(layout.path, os.O_WRONLY)
        try:
            for offset, stored in zip(layout.offsets, _stored_images(layout, band), strict=True):
                for channel, plane in enumerate(stored):
                    start = offset + ((channel * height + band.top) * width) * stored.itemsize
                    data = np.ascontiguousarray(plane).data.cast("B")
                    while data:
                        written = os.pwrite(handle, data, start)
                        data, start = data[written:], start + written
            os.fsync(handle)  # on the disk before the journal says so
        finally:
            os.close(handle)
    except OSError as problem:
        raise WorkbenchError(_no_room(layout, problem)) from problem


def _stored_images(layout: Layout, band: Band) -> Iterator[np.ndarray]:
    """A band's images as the file has them, in its order."""
    signal, *others = band.arrays[: len(IMAGES) - 1]
    for name, values in zip(IMAGES, (*without_gaps(signal), *others), strict=True):
        stored = values.astype(_stored_type(name, layout.counts))
        if stored.itemsize == 2:
            stored ^= stored.dtype.type(0x8000)
        yield stored


def read_plane(layout: Layout, name: str, channel: int) -> np.ndarray:
    """Return a channel (y, x) of an image that was written, before the file has its name; no value is 0."""
    stored, number = _stored_type(name, layout.counts), IMAGES.index(name)
    plane = np.memmap(layout.path, stored, "r", layout.offsets[number], layout.shape)[channel]
    plane = plane.astype(stored.newbyteorder("="))
    return plane ^ plane.dtype.type(0x8000) if stored.kind == "u" and stored.itemsize == 2 else plane


def add_to_plane(layout: Layout, name: str, channel: int, values: np.ndarray) -> None:
    """Add values (y, x) to a channel of a written image of floats, where it has a value."""
    known = read_plane(layout, "MASK", channel) == 0
    plane = np.memmap(layout.path, ">f4", "r+", layout.offsets[IMAGES.index(name)], layout.shape)
    plane[channel] += np.where(known, values, 0)
    plane.flush()


def finish_stack(
    layout: Layout,
    out: Path,
    about: Mapping[str, Any],
    cards: Mapping[str, tuple[Any, str]],
    maps: tuple[np.ndarray, np.ndarray],
    frames: pd.DataFrame,
    aside: pd.DataFrame | None = None,
) -> Path:
    """Write the primary header, the maps in blocks and the table, and give the file its name.

    `about` travels as JSON in the card ``WORKBNCH`` of the table: units, stage, history, attributes.  `maps` are the
    chi-square (channel, block row, block) and the shared noise (2, channel, block row, block).  `frames` and `aside`
    become tables.
    """
    text = _primary_header(layout, cards, about["history"])
    hdus = [fits.ImageHDU(part.astype(">f4"), name=name) for part, name in zip(maps, _BLOCK_MAPS, strict=True)]
    for hdu, size in zip(hdus, (32, 64), strict=True):
        hdu.header["BLOCK"] = (size, "[px] rows of the image for one of this map")
    table = _table(frames, "FRAMES")
    for hdu in (*hdus, table):
        put_seal(hdu.header)
    table.header[RECORD] = ascii_text(json.dumps(about))
    extensions = io.BytesIO()
    if aside is not None and len(aside):
        hdus.append(_table(aside, "SET_ASIDE"))
        put_seal(hdus[-1].header)
    fits.HDUList([fits.PrimaryHDU(), *hdus, table]).writeto(extensions)
    try:
        with open(layout.path, "r+b") as file:
            file.write(text)
            file.seek(layout.total)
            file.write(extensions.getbuffer()[_FITS_BLOCK:])  # less the empty primary header
        seal(layout.path)
        require_replaceable(out)
        make_durable(layout.path)
        os.replace(layout.path, out)
        make_durable(out.parent)  # its name too, before the working files go
    except OSError as problem:
        raise WorkbenchError(_no_room(layout, problem)) from problem
    return out


def _table(rows: pd.DataFrame, name: str) -> fits.BinTableHDU:
    """A table as FITS can hold it: texts in ASCII, whole numbers in 32 bits."""
    texts, whole = rows.select_dtypes(exclude=["number", "bool"]), rows.select_dtypes("integer").astype(np.int32)
    plain = rows.assign(**{text: texts[text].map(lambda value: ascii_text(str(value))) for text in texts}, **whole)
    columns = [np.array(plain[name].tolist(), "S" if name in texts else plain[name].dtype) for name in plain]
    kinds = [(name, values.dtype) for name, values in zip(plain, columns, strict=True)]
    table = fits.BinTableHDU(name=name)  # given the rows it would load astropy's tables, a quarter of a second
    table.data = fits.FITS_rec.from_columns(fits.ColDefs(np.rec.fromarrays(columns, dtype=kinds)))
    return table


def _primary_header(layout: Layout, cards: Mapping[str, Any], history: list[str]) -> bytes:
    """The header before the signal, as long as the room kept for it; of the history as much as fits."""
    header = fits.PrimaryHDU(np.broadcast_to(np.float32(0), _axes(layout.shape))).header
    put_seal(header)
    put_plane(header, "SIGNAL", layout.units)
    put_cards(header, cards)
    for sentence in history:
        header["HISTORY"] = ascii_text(sentence)
    text = header.tostring(endcard=False, padding=False)[: _HEADER_ROOM - 80]
    # data begin at the block after END: blank cards fill up to the last block, if so few are written
    return (text.ljust(_HEADER_ROOM - _FITS_BLOCK) + "END").ljust(_HEADER_ROOM).encode("ascii")


@dataclass(frozen=True)
class _Image:
    """An image in the file as dask reads it: only the wanted part, in native byte order."""

    path: Path
    offset: int
    stored: str
    shape: tuple[int, ...]
    flip: int

    ndim = 3

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.stored).newbyteorder("=")

    def __getitem__(self, part):
        values = np.memmap(self.path, self.stored, "r", self.offset, self.shape)[part].astype(self.dtype)
        return values ^ values.dtype.type(self.flip) if self.flip else values


def _lazy_planes(path: Path, hdus: fits.HDUList) -> dict[str, da.Array]:
    """Return a stack's images (channel, y, x), read when they are needed; no value where the mask says so."""
    planes: dict[str, da.Array] = {}
    masked = "MASK" in hdus  # not in files of earlier versions
    names = [name for name in IMAGES[1:] if masked or name != "MASK"]
    for name, hdu in {"SIGNAL": hdus[0], **{name: hdus[name] for name in names}}.items():
        offset, shape = hdu.fileinfo()["datLoc"], (hdu.shape if len(hdu.shape) == 3 else (1, *hdu.shape))
        stored, flip = {-32: (">f4", 0), 8: ("u1", 0), 16: (">u2", 0x8000)}[hdu.header["BITPIX"]]
        size = math.prod(shape) * np.dtype(stored).itemsize
        if offset + size > path.stat().st_size:
            raise FrameReadError(path, f"is cut short: its {name} needs {size:,} bytes; make the stack again")
        image = _Image(path, offset, stored, shape, flip)
        key = f"{path}-{path.stat().st_mtime_ns}-{name.lower()}"
        planes[name.lower()] = da.from_array(image, chunks=(1, 512, shape[2]), name=key)
    if masked:
        planes["signal"] = with_gaps(planes["signal"], planes.pop("mask"))
    return planes


_PLANES = {
    "signal": ("{units}", "mean of the samples used"),
    "variance": ("{units}**2", "its variance, as areas have it"),
    "coverage": ("1", "samples used"),
    "rejected_low": ("1", "samples rejected as too faint"),
    "rejected_high": ("1", "samples rejected as too bright"),
    "saturated": ("1", "saturated samples"),
    "shared_variance": ("{units}**2", "part of the variance that all frames share"),
}


def about_plane(name: str, units: str) -> dict[str, str]:
    """Return the units and the long name of a stack's plane.

    Examples
    --------
    >>> about_plane("variance", "electron")
    {'units': 'electron**2', 'long_name': 'its variance, as areas have it'}
    """
    unit, title = _PLANES.get(name, ("1", name.replace("_", " ")))
    return {"units": unit.format(units=units), "long_name": title}


def open_stack(path: str | Path) -> xr.Dataset:
    """Open a stack as a Dataset, lazily: (channel, y, x) planes, the chi-square map and the table of frames.

    Variables ``signal`` [e-, or ADU where the gain is not known], ``variance`` and its part ``shared_variance``, its
    squares (see `workbench.stack.normalise`; files of earlier versions have no shared part), ``coverage``,
    ``rejected_low``, ``rejected_high``, ``saturated``, ``chi_square`` (channel, block_y, block_x), and over ``frame``
    the columns of the table.  The attributes hold what the header says.

    Raises
    ------
    FrameReadError
        If the file is not there, cut short, or no stack of the workbench.
    """
    path = Path(path)
    if not path.is_file():
        raise FrameReadError(path, "no such file; give a stack that `workbench stack` wrote")
    try:
        with fits.open(path, memmap=True, lazy_load_hdus=False) as hdus:
            about = {"units": "electron", "history": [], "attributes": {}} | json.loads(record_of(hdus) or "{}")
            planes = _lazy_planes(path, hdus)
            chi = hdus["CHI_SQUARE"].data.astype(np.float32)
            if "SHARED_NOISE" in hdus:
                signal, blocks = planes["signal"], da.from_array(hdus["SHARED_NOISE"].data.astype(np.float32))
                common = blocks.repeat(BAND, 2).repeat(BLOCK, 3)[..., : signal.shape[1], : signal.shape[2]]
                planes["shared_variance"] = shared_variance(common.rechunk((2, *signal.chunks)), signal)
            require_sealed(path)
            table = {name: np.array(hdus["FRAMES"].data[name]) for name in hdus["FRAMES"].data.names}
    except (KeyError, OSError) as problem:
        raise FrameReadError(path, f"is not a stack of the workbench ({problem})") from problem
    attrs = plain_attributes(
        {"units": about["units"], "stage": "stacked", "history": about["history"], **about["attributes"]}
    )
    data: dict[str, Any] = {
        name: (("channel", "y", "x"), plane, about_plane(name, attrs["units"])) for name, plane in planes.items()
    }
    about_chi = {"units": "1", "long_name": "scatter over the model's"}
    data["chi_square"] = (("channel", "block_y", "block_x"), chi, about_chi)
    for name, values in table.items():
        native = object if values.dtype.kind in "US" else values.dtype.newbyteorder("=")
        data[f"frame_{name}"] = ("frame", values.astype(native))
    channels = ["mono"] if planes["signal"].shape[0] == 1 else ["R", "G", "B"]
    return xr.Dataset(data, coords={"channel": channels}, attrs=attrs)
