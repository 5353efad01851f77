"""Pictures as files: 16-bit PNG and TIFF for the wall, 32-bit FITS, TIFF and XISF for more work; and read back.

Every file carries, as one JSON text, the picture's stage, units, history and attributes and the settings that made
it.  The same picture gives the same bytes: no date is written.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import png
import tifffile
import xarray as xr
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from PIL import Image, UnidentifiedImageError

from ..core.errors import FrameReadError, StageError, WorkbenchError
from ..core.files import whole_file
from ..core.values import attribute_lines
from .colour import srgb_profile
from .picture import CHANNELS, PLANES, check_picture, make_picture
from .stretch import quantise

KEYWORD = "WORKBNCH"  # of the FITS card; "workbench" elsewhere
SUFFIXES = {".png": "png", ".xisf": "xisf"} | dict.fromkeys((".tif", ".tiff"), "tiff")
SUFFIXES |= dict.fromkeys((".fits", ".fit", ".fts"), "fits")


def write_picture(
    picture: xr.Dataset,
    path: str | Path,
    *,
    bits: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a picture; the suffix says how: .png, .tif, .fits, .xisf.

    Parameters
    ----------
    picture
        Stretched for PNG and 16-bit TIFF, which get an sRGB profile; linear or stretched for the 32-bit kinds.
    bits
        16 or 32 for TIFF (16 by default for a stretched picture, 32 for a linear one), 8 or 16 for PNG (16);
        FITS and XISF have 32-bit floats.
    settings
        What finished the picture, kept in the file so that it can be replayed.

    Returns
    -------
    The path written.  Nothing half-written is ever at that path.

    Raises
    ------
    WorkbenchError
        If the suffix is unknown, the bits do not suit it, a linear picture is to become PNG, or the file cannot be
        written.
    """
    check_picture(picture, stage=None)
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise WorkbenchError(
            f"{path}: pictures are not written as {path.suffix or 'files without a suffix'!r}; use .png, .tif, .fits or"
            " .xisf"
        )
    stretched = picture.attrs.get("stage") == "stretched"
    allowed = {"png": (16, 8), "tiff": (16, 32) if stretched else (32,), "fits": (32,), "xisf": (32,)}[kind]
    bits = allowed[0] if bits is None else bits
    if kind == "png" and not stretched:
        raise StageError(f"{path}: a linear picture is nearly black on a screen; stretch it, or write .fits or .tif")
    if bits not in allowed:
        raise WorkbenchError(f"{path}: {bits} bits do not suit this picture; choose {' or '.join(map(str, allowed))}")
    if not path.parent.is_dir():
        raise WorkbenchError(f"{path}: the folder {path.parent} does not exist; make it first")
    writer = {"png": _write_png, "tiff": _write_tiff, "fits": _write_fits, "xisf": _write_xisf}[kind]
    with whole_file(path) as part:
        writer(part, picture, bits, describe(picture, settings))
    return path


def describe(picture: xr.Dataset, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a file records of its picture, for JSON: program, stage, units, history, attributes, settings."""
    attrs = {key: _plain(value) for key, value in picture.attrs.items()}
    about = {
        "program": f"astrophoto-workbench {importlib.metadata.version('astrophoto-workbench')}",
        "stage": attrs.pop("stage", "stacked"),
        "units": attrs.pop("units", ""),
        "history": attribute_lines({"history": attrs.pop("history", [])}, "history"),
        "attributes": {key: value for key, value in attrs.items() if value is not None},
    }
    return about if settings is None else {**about, "settings": _plain(dict(settings))}


def _plain(value: Any) -> Any:
    """Anything as JSON can hold it; NaN becomes null."""

    def plain(held: Any) -> Any:
        return held.tolist() if isinstance(held, (np.ndarray, np.generic)) else str(held)

    return json.loads(json.dumps(value, default=plain), parse_constant=lambda _: None)


def _write_png(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    texts = {"workbench": json.dumps(about, ensure_ascii=False), "Software": about["program"]}
    write_png(path, quantise(picture, bits), srgb_profile(picture.sizes["channel"]), texts)


def write_png(path: Path, values: np.ndarray, profile: bytes, texts: Mapping[str, str]) -> None:
    """Write uint8 or uint16 values (y, x) or (y, x, 3) as a PNG with an ICC profile and international texts.

    Huffman's code only: zlib's search for repetitions makes the noise of 16 Mpx no smaller and takes twice the 1.8 s.
    """
    pixels = imagecodecs.png_encode(values, level=1, strategy=imagecodecs.PNG.STRATEGY.HUFFMAN_ONLY)
    header, *rest = png.Reader(bytes=pixels).chunks()
    own = [(b"iCCP", b"sRGB\0\0" + zlib.compress(profile, 9))]
    own += [(b"iTXt", key.encode() + b"\0\1\0\0\0" + zlib.compress(text.encode(), 9)) for key, text in texts.items()]
    with path.open("wb") as file:
        png.write_chunks(file, [header, *own, *rest])


def _write_tiff(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    signal = np.moveaxis(picture["signal"].values, 0, -1)
    signal = signal[..., 0] if signal.shape[-1] == 1 else signal
    values = quantise(picture, 16) if bits == 16 else np.ascontiguousarray(signal, np.float32)
    stretched = about["stage"] == "stretched"
    tifffile.imwrite(
        path,
        values,
        photometric="rgb" if values.ndim == 3 else "minisblack",
        planarconfig="contig" if values.ndim == 3 else None,
        iccprofile=srgb_profile(picture.sizes["channel"]) if stretched else None,
        description=json.dumps(about),
        software=about["program"],
        metadata=None,
        rowsperstrip=64,
    )


def _write_fits(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    primary = fits.PrimaryHDU(_fits_plane(picture["signal"]))
    header = primary.header
    header["BUNIT"] = (about["units"] or "1", "of the pixel values")
    header["STAGE"] = (about["stage"], "linear until stretched")
    header["CHANNELS"] = (",".join(map(str, picture["channel"].values)), "along axis 3")
    header["CREATOR"] = about["program"]
    header[KEYWORD] = json.dumps(about)
    for sentence in about["history"]:
        header["HISTORY"] = sentence.encode("ascii", "replace").decode()  # the JSON has it whole
    extra = [fits.ImageHDU(_fits_plane(picture[name]), name=name.upper()) for name in PLANES[1:] if name in picture]
    fits.HDUList([primary, *extra]).writeto(path, overwrite=True)


def _fits_plane(values: xr.DataArray) -> np.ndarray:
    kinds = {"b": np.uint8, "f": np.float32}
    return values.values.astype(kinds.get(values.dtype.kind, values.dtype), copy=False)


def _write_xisf(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    values = np.ascontiguousarray(np.moveaxis(picture["signal"].values.astype(np.float32), 0, -1))
    keywords = {
        "BUNIT": [{"value": about["units"], "comment": "of the pixel values"}],
        "HISTORY": [{"value": "", "comment": line.encode("ascii", "replace").decode()} for line in about["history"]],
    }
    text = {"id": "Workbench:About", "type": "String", "value": json.dumps(about)}
    xisf_package().write(
        str(path),
        values,
        creator_app=about["program"],
        image_metadata={"FITSKeywords": keywords, "XISFProperties": {"Workbench:About": text}},
    )
    linear = about["stage"] != "stretched"
    bounds = (min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 1.0)) if linear else (0.0, 1.0)
    _amend_xisf(path, bounds)


def _amend_xisf(path: Path, bounds: tuple[float, float]) -> None:
    """Correct in the header what the xisf package cannot be given: no date, and the range that black to white spans.

    The pixels lie on a block boundary behind the header, so that there is room for a longer one.
    """
    with open(path, "r+b") as file:
        signature, length = struct.unpack("<8sI4x", file.read(16))
        text = file.read(length).decode()
        start = int(re.findall(r'location="attachment:(\d+):', text)[0])
        text = re.sub(r"(XISF:CreationTime[^>]*>)[^<]*<", r"\g<1>2000-01-01T00:00:00<", text)
        text = re.sub(r'bounds="[^"]*"', f'bounds="{bounds[0]:.9g}:{bounds[1]:.9g}"', text)
        body = text.encode()
        if 16 + len(body) > start:
            raise WorkbenchError("the history is too long for this XISF file; write FITS")
        file.seek(0)
        file.write(struct.pack("<8sI4x", signature, len(body)) + body.ljust(start - 16, b"\0"))


def xisf_package() -> Any:
    """Return the xisf package's class: under the GPL, and so not among the requirements."""
    try:
        from xisf import XISF
    except ImportError as problem:
        raise WorkbenchError(
            "XISF files need the package xisf: pip install xisf; or use .fits, which holds as much"
        ) from problem
    return XISF


def read_picture(path: str | Path) -> xr.Dataset:
    """Read a picture back from PNG, TIFF, FITS or XISF, with its history and, in ``attrs["settings"]``, its settings.

    A file of another program counts as a linear stack if its values are floating point or 16-bit without a colour
    profile, else as a stretched picture.

    Raises
    ------
    FrameReadError
        If the file cannot be read, is 8-bit, a JPEG, not a picture, or has other than one or three channels.
    """
    path = Path(path)
    if not path.is_file():
        raise FrameReadError(path, "is a folder; give a stack" if path.exists() else "does not exist; check the name")
    kind = SUFFIXES.get(path.suffix.lower()) or _sniff(path)
    reader = {"png": _read_png, "tiff": _read_tiff, "fits": _read_fits, "xisf": _read_xisf}[kind]
    try:
        planes, about = reader(path)
    except FrameReadError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error) as problem:
        raise FrameReadError(path, f"cannot be read as {kind.upper()}: {problem}") from problem
    try:
        attrs = {**about.get("attributes", {}), "units": about.get("units", ""), "history": about.get("history", [])}
        if "settings" in about:
            attrs["settings"] = about["settings"]
        return make_picture(**planes, stage=about.get("stage", "stacked"), attrs=attrs)
    except WorkbenchError as problem:
        raise FrameReadError(path, str(problem)) from problem


def _sniff(path: Path) -> str:
    """The kind of a file with an unknown suffix; what cannot be finished is refused here, by name."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"SIMPLE  ="):
        return "fits"
    if start.startswith(b"XISF0100"):
        return "xisf"
    try:
        with Image.open(path) as image:
            name = image.format or ""
    except (UnidentifiedImageError, OSError) as problem:
        raise FrameReadError(path, "is not a picture that can be read; use .fits, .xisf, .tif or .png") from problem
    if name in ("PNG", "TIFF"):
        return name.lower()
    raise FrameReadError(
        path,
        f"is a {name} picture: 8 bits, stretched already; a finish starts from the linear stack (.fits, .xisf, .tif)",
    )


def _foreign(path: Path, values: np.ndarray, profile: Any, *, scale: bool = True) -> tuple[np.ndarray, dict[str, Any]]:
    """Values of another program's file, integers scaled to 0 to 1 where asked, and what is known of them."""
    if values.dtype == np.uint8:
        raise FrameReadError(
            path, "has 8 bits a channel: too few for a linear picture; finish the stack itself (16 or 32 bits)"
        )
    if values.dtype.kind in "ui" and not scale:
        values = values.astype(np.float32)
    elif values.dtype.kind == "u":
        values = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    elif values.dtype.kind != "f":
        raise FrameReadError(path, f"holds {values.dtype} values; 16-bit or floating-point ones can be finished")
    stage = "stretched" if profile else "stacked"
    return values, {"stage": stage, "units": "1", "history": [f"Read from {path.name}."]}


def _about(text: str | None) -> dict[str, Any] | None:
    """The record in a file of the workbench; None for another program's."""
    try:
        about = json.loads(text or "")
    except ValueError:
        return None
    return (
        about if isinstance(about, dict) and str(about.get("program", "")).startswith("astrophoto-workbench") else None
    )


def _read_png(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    values, profile, texts = read_png(path)
    return _display_values(path, values, profile, _about(texts.get("workbench")))


def read_png(path: Path) -> tuple[np.ndarray, bytes | None, dict[str, str]]:
    """Return a PNG's values (y, x) or (y, x, channel), its ICC profile and its international texts.

    Raises
    ------
    FrameReadError
        If it is not a PNG file, a checksum is wrong, or it is cut short.
    """
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG"):
        raise FrameReadError(path, "is not a PNG file")
    profile, texts = None, {}
    try:
        for name, body in png.Reader(bytes=content).chunks():
            keyword, _, rest = body.partition(b"\0")
            if name == b"iCCP":
                profile = zlib.decompress(rest[1:])
            elif name == b"iTXt":
                text = rest[2:].split(b"\0", 2)[2]
                texts[keyword.decode("latin-1")] = (zlib.decompress(text) if rest[0] else text).decode()
        return imagecodecs.png_decode(content), profile, texts
    except (png.Error, EOFError, zlib.error, imagecodecs.PngError) as problem:
        raise FrameReadError(path, f"is damaged: a checksum is wrong or it is cut short ({problem})") from problem


def _display_values(
    path: Path, values: np.ndarray, profile: Any, about: dict[str, Any] | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Values (y, x) or (y, x, channel) of a PNG or TIFF as a picture's signal, integers scaled to 0 to 1."""
    if about is None:
        values, about = _foreign(path, values, profile)
    elif values.dtype.kind == "u":
        values = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return {"signal": values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)}, about


def _read_tiff(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            values = page.asarray()
            profile = page.tags.get(34675)
            about = _about(page.description)
            if page.planarconfig == 2 and values.ndim == 3:
                values = np.moveaxis(values, 0, -1)
    except tifffile.TiffFileError as problem:
        raise FrameReadError(path, f"cannot be read as TIFF: {problem}") from problem
    return _display_values(path, values, profile, about)


def _read_fits(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        planes, header = _fits_planes(path, memmap=True)
    except ValueError as problem:
        if "memory-mapped" not in str(problem):
            raise
        planes, header = _fits_planes(path, memmap=False)  # scaled integers cannot be mapped
    about = _about(header.get(KEYWORD))
    if about is None:
        usual = "1" if planes["signal"].dtype.kind == "f" else "adu"
        planes["signal"], about = _foreign(path, planes["signal"], None, scale=False)
        units = str(header.get("BUNIT", "")).strip() or usual
        about["units"] = "electron" if "electron" in units.lower() or units.lower() in ("e-", "e") else units
        about["history"] = [*map(str, header.get("HISTORY", [])), *about["history"]]
        keys = {"camera": "INSTRUME", "exposure": "EXPTIME", "object": "OBJECT"}
        about["attributes"] = {name: header[key] for name, key in keys.items() if key in header}
    shape = planes["signal"].shape
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        planes = {name: np.moveaxis(values, -1, 0) for name, values in planes.items()}
    return planes, about


def _fits_planes(path: Path, *, memmap: bool) -> tuple[dict[str, np.ndarray], fits.Header]:
    """The planes of a stack by name, in this processor's byte order, and the header of the first."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AstropyUserWarning)
        hdus = fits.open(path, memmap=memmap, lazy_load_hdus=False)
    with hdus:
        cut = [str(warning.message) for warning in caught if "truncated" in str(warning.message)]
        if cut:
            raise FrameReadError(path, f"is a FITS file cut short: {cut[0]}")
        images = [hdu for hdu in hdus if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) > 0]
        if not images:
            raise FrameReadError(path, "holds no image")
        named = {"signal": images[0]} | {hdu.name.lower(): hdu for hdu in images[1:] if hdu.name.lower() in PLANES}
        planes = {name: np.array(hdu.data, hdu.data.dtype.newbyteorder("=")) for name, hdu in named.items()}
        return planes, images[0].header


def _read_xisf(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    xisf = xisf_package()
    try:
        file = xisf(str(path))
        meta = file.get_images_metadata()[0]
        values = file.read_image(0)
    except Exception as problem:  # the package raises whatever its parsers raise
        raise FrameReadError(path, f"cannot be read as XISF: {problem}") from problem
    about = _about(meta.get("XISFProperties", {}).get("Workbench:About", {}).get("value"))
    if about is None:
        values, about = _foreign(path, values, None)
    return {"signal": np.moveaxis(np.array(values), -1, 0)}, about
