"""The stack as a file: multi-extension FITS, written band by band, and opened again without loss.

==================  =====================================================================================
primary             signal, float32 electrons (channel, y, x), scaled to the reference's exposure; ADU, and
                    ``BUNIT`` says so, where the gain is not known
``VARIANCE``        its square: equivalent white noise, right for the mean of 16 x 16 pixels
                    (divided by their number); a single pixel's is ``PIXVAR_c`` times this less
                    the shared variance, because resampling shares each sample out
``COVERAGE``        samples that went in after rejection
``REJECTED_LOW``    samples rejected as too low, ``REJECTED_HIGH`` as too high
``SATURATED``       samples that were saturated
``CHI_SQUARE``      scatter between frames over the noise model's, in blocks of 32 pixels: 1 where it holds
``SHARED_NOISE``    what the frames share of the masters' noise, part of the variance, in blocks of 64 x 32
                    pixels: two numbers a channel; shared variance = first + second times signal squared
``FRAMES``          table: every light, used or set aside, with its numbers and the reason
==================  =====================================================================================

The file is made under another name and takes its own when it is whole.  Bands may be written in any order, by
several processes, and again.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits

from ..core.errors import FrameReadError, WorkbenchError
from ..core.values import plain_attributes
from .engine import Band
from .normalise import shared_variance
from .window import BAND

CARD = "WORKBNCH"
IMAGES = ("SIGNAL", "VARIANCE", "COVERAGE", "REJECTED_LOW", "REJECTED_HIGH", "SATURATED")
_BLOCK_MAPS = ("CHI_SQUARE", "SHARED_NOISE")
_FLOATS = ("SIGNAL", "VARIANCE")
_BLOCK = 2880
_HEADER_ROOM = 40  # FITS blocks kept free for the primary header, which is known only at the end


@dataclass(frozen=True)
class Layout:
    """Where each image lies in the file; plain data, the same in every process."""

    path: Path
    shape: tuple[int, int, int]
    counts: str
    offsets: tuple[int, ...]
    total: int
    units: str = "electron"

    def dtype(self, name: str) -> np.dtype:
        """Return the stored type of an image."""
        return np.dtype(">f4") if name in _FLOATS else np.dtype(self.counts)


def _extension_header(name: str, shape: tuple[int, int, int], counts: str, units: str) -> fits.Header:
    header = fits.Header()
    header["XTENSION"] = ("IMAGE", "image extension")
    bits = -32 if name in _FLOATS else 8 * np.dtype(counts).itemsize
    header["BITPIX"] = bits
    header["NAXIS"] = 3
    for axis, size in enumerate(reversed(shape), 1):
        header[f"NAXIS{axis}"] = size
    header["PCOUNT"], header["GCOUNT"] = 0, 1
    if bits == 16:
        header["BSCALE"], header["BZERO"] = 1, 32768
    header["EXTNAME"] = name
    if name == "VARIANCE":
        header["BUNIT"] = f"{units}**2"
    return header


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def plan_layout(path: Path, shape: tuple[int, int, int], frames: int, units: str = "electron") -> Layout:
    """Lay out the file for a stack of `frames` frames and `shape` (channel, y, x), in ``electron`` or ``adu``."""
    counts = "u1" if frames < 256 else ">u2"
    offsets = []
    at = 0
    for name in IMAGES:
        at += (
            _HEADER_ROOM * _BLOCK
            if name == "SIGNAL"
            else _padded(len(_extension_header(name, shape, counts, units).tostring()))
        )
        offsets.append(at)
        at += _padded(int(np.prod(shape)) * (4 if name in _FLOATS else np.dtype(counts).itemsize))
    return Layout(path, shape, counts, tuple(offsets), at, units)


def create_file(layout: Layout) -> None:
    """Make the file at its full size, so that a disk that is too small says so now.

    Raises
    ------
    WorkbenchError
        If the place cannot be written to or has no room.
    """
    try:
        with open(layout.path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, layout.total)
            for name, offset in zip(IMAGES[1:], layout.offsets[1:], strict=True):
                text = _extension_header(name, layout.shape, layout.counts, layout.units).tostring().encode("ascii")
                os.pwrite(file.fileno(), text, offset - _padded(len(text)))
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
    arrays = (band.signal, band.variance, band.coverage, band.rejected_low, band.rejected_high, band.saturated)
    channels, height, width = layout.shape
    try:
        handle = os.open(layout.path, os.O_WRONLY)
        try:
            for name, offset, values in zip(IMAGES, layout.offsets, arrays, strict=True):
                dtype = layout.dtype(name)
                stored = values.astype(dtype)
                if dtype.itemsize == 2:
                    stored ^= dtype.type(0x8000)
                for channel in range(channels):
                    start = offset + ((channel * height + band.top) * width) * dtype.itemsize
                    data = np.ascontiguousarray(stored[channel]).data.cast("B")
                    while data:
                        written = os.pwrite(handle, data, start)
                        data, start = data[written:], start + written
        finally:
            os.close(handle)
    except OSError as problem:
        raise WorkbenchError(_no_room(layout, problem)) from problem


def finish_stack(
    layout: Layout,
    out: Path,
    about: Mapping[str, Any],
    cards: Mapping[str, tuple[Any, str]],
    maps: tuple[np.ndarray, np.ndarray],
    frames: pd.DataFrame,
) -> Path:
    """Write the primary header, the maps in blocks and the table, and give the file its name.

    `about` travels as JSON in the card ``WORKBNCH``: units, stage, history, attributes.  `maps` are the chi-square
    (channel, block row, block) and the shared noise (2, channel, block row, block).
    """
    header = fits.Header()
    header["SIMPLE"] = (True, "conforms to FITS standard")
    header["BITPIX"], header["NAXIS"] = -32, 3
    for axis, size in enumerate(reversed(layout.shape), 1):
        header[f"NAXIS{axis}"] = size
    header["EXTEND"] = True
    header["BUNIT"] = (layout.units, "of the signal")
    for name, (value, comment) in cards.items():
        header[name] = (value, comment)
    header[CARD] = _ascii(json.dumps(about))
    for sentence in about["history"]:
        header["HISTORY"] = _ascii(sentence)
    room = _HEADER_ROOM * _BLOCK
    text = header.tostring(endcard=False, padding=False)
    if len(text) + 80 > room:  # an extraordinarily long history: keep what fits
        while len(text) + 80 > room and "HISTORY" in header:
            del header["HISTORY"][-1]
            text = header.tostring(endcard=False, padding=False)
    text = text.ljust(room - 80) + "END".ljust(80)  # blank cards are legal and keep the data in place
    hdus = [fits.ImageHDU(part.astype(">f4"), name=name) for part, name in zip(maps, _BLOCK_MAPS, strict=True)]
    for hdu, size in zip(hdus, (32, 64), strict=True):
        hdu.header["BLOCK"] = (size, "[px] rows of the image for one of this map")
    table = fits.BinTableHDU.from_columns(_columns(frames), name="FRAMES")
    try:
        with open(layout.path, "r+b") as file:
            file.write(text.encode("ascii"))
            file.seek(layout.total)
            for hdu in (*hdus, table):
                file.write(_hdu_bytes(hdu))
            file.flush()
            os.fsync(file.fileno())
        os.replace(layout.path, out)
    except OSError as problem:
        raise WorkbenchError(_no_room(layout, problem)) from problem
    return out


def _hdu_bytes(hdu) -> bytes:
    whole = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(whole)
    return whole.getvalue()[_BLOCK:]


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _columns(frames: pd.DataFrame) -> list[fits.Column]:
    columns = []
    for name in frames.columns:
        values = frames[name].to_numpy()
        if values.dtype == bool:
            columns.append(fits.Column(name, "L", array=values))
        elif values.dtype.kind in "iu":
            columns.append(fits.Column(name, "J", array=values.astype(np.int32)))
        elif values.dtype.kind == "f":
            columns.append(fits.Column(name, "D", array=values))
        else:
            texts = [_ascii(str(value)) for value in values]
            columns.append(fits.Column(name, f"{max([1, *map(len, texts)])}A", array=np.array(texts)))
    return columns


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


@dataclass(frozen=True, eq=False)
class _Shared:
    """The shared variance as dask reads it: from the signal and the file's two numbers a block."""

    signal: _Image
    blocks: np.ndarray

    ndim = 3
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.signal.shape

    def __getitem__(self, part):
        channel, rows, columns = part
        row = np.arange(self.shape[1])[rows] // BAND
        signal = self.signal[channel, rows, columns]
        out = np.empty(signal.shape, np.float32)
        for number in np.unique(row):
            same = row == number
            common = self.blocks[:, channel, number].astype(np.float32)
            out[:, same] = shared_variance(common, signal[:, same], columns.indices(self.shape[2])[0])
        return out


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
            header = hdus[0].header
            places = {"SIGNAL": hdus[0], **{name: hdus[name] for name in IMAGES[1:]}}
            planes: dict[str, Any] = {}
            for name, hdu in places.items():
                info = hdu.fileinfo()
                bits = hdu.header["BITPIX"]
                shape = tuple(hdu.header[f"NAXIS{axis}"] for axis in (3, 2, 1))
                stored, flip = {-32: (">f4", 0), 8: ("u1", 0), 16: (">u2", 0x8000)}[bits]
                size = int(np.prod(shape)) * np.dtype(stored).itemsize
                if info["datLoc"] + size > path.stat().st_size:
                    raise FrameReadError(path, f"is cut short: its {name} needs {size:,} bytes; make the stack again")
                planes[name.lower()] = _Image(path, info["datLoc"], stored, shape, flip)
            chi = hdus["CHI_SQUARE"].data.astype(np.float32)
            if "SHARED_NOISE" in hdus:
                planes["shared_variance"] = _Shared(planes["signal"], hdus["SHARED_NOISE"].data.astype(np.float32))
            table = hdus["FRAMES"].data
            columns = {name: np.array(table[name]) for name in table.names}
    except (KeyError, OSError) as problem:
        raise FrameReadError(path, f"is not a stack of the workbench ({problem})") from problem
    about = json.loads(header.get(CARD, "{}"))
    attrs = plain_attributes(
        {
            "units": str(about.get("units", "electron")),
            "stage": "stacked",
            "history": list(about.get("history", [])),
            **about.get("attributes", {}),
        }
    )
    data: dict[str, Any] = {}
    for name, image in planes.items():
        array = da.from_array(image, chunks=(1, 512, image.shape[2]), name=f"{path}-{path.stat().st_mtime_ns}-{name}")
        square = f"{attrs['units']}**2"
        units = {"signal": attrs["units"], "variance": square, "shared_variance": square}.get(name, "1")
        long_name = {"saturated": "saturated samples", "coverage": "samples used"}.get(name, name.replace("_", " "))
        data[name] = (("channel", "y", "x"), array, {"units": units, "long_name": long_name})
    data["chi_square"] = (
        ("channel", "block_y", "block_x"),
        chi,
        {"units": "1", "long_name": "scatter over the model's"},
    )
    for name, values in columns.items():
        native = values.astype(values.dtype.newbyteorder("=")) if values.dtype.kind in "if" else values
        data[f"frame_{name}"] = ("frame", native.astype(object) if native.dtype.kind in "US" else native)
    channels = ["mono"] if planes["signal"].shape[0] == 1 else ["R", "G", "B"]
    return xr.Dataset(data, coords={"channel": channels}, attrs=attrs)
