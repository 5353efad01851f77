"""Pictures as files: 16-bit PNG and TIFF and 8-bit JPEG to look at, 32-bit FITS, TIFF and XISF for more work; and back.

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
from ..core.fits_cards import (
    RECORD,
    ascii_text,
    put_cards,
    put_plane,
    put_seal,
    record_of,
    seal,
    with_gaps,
    without_gaps,
)
from ..core.values import attribute_lines
from ..ingest.containers import xisf_package
from .colour import srgb_profile
from .picture import CHANNELS, PLANES, check_picture, make_picture, observed_cards
from .stretch import quantise

JPEG_QUALITY = 95  # of 100; the colours at full resolution
_COMMENT_ROOM = 65_000  # bytes of a JPEG's comment
SUFFIXES = {".png": "png", ".xisf": "xisf"} | dict.fromkeys((".tif", ".tiff"), "tiff")
SUFFIXES |= dict.fromkeys((".fits", ".fit", ".fts"), "fits")
SUFFIXES |= dict.fromkeys((".jpg", ".jpeg"), "jpeg")


def write_picture(
    picture: xr.Dataset,
    path: str | Path,
    *,
    bits: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a picture; the suffix says how: .png, .jpg, .tif, .fits, .xisf.

    Parameters
    ----------
    picture
        Stretched for PNG, JPEG and 16-bit TIFF, which get an sRGB profile; linear or stretched for the 32-bit kinds.
    bits
        16 or 32 for TIFF (16 by default for a stretched picture, 32 for a linear one), 8 or 16 for PNG (16), 8 for
        JPEG; FITS and XISF have 32-bit floats.
    settings
        What finished the picture, kept in the file so that it can be replayed.

    Returns
    -------
    The path written.  Nothing half-written is ever at that path.

    Raises
    ------
    WorkbenchError
        If the suffix is unknown, the bits do not suit it, a linear picture is to become PNG or JPEG, or the file
        cannot be written.
    """
    check_picture(picture, stage=None)
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise WorkbenchError(
            f"{path}: pictures are not written as {path.suffix or 'files without a suffix'!r}; use .png, .jpg, .tif,"
            " .fits or .xisf"
        )
    stretched = picture.attrs.get("stage") == "stretched"
    allowed = {"png": (16, 8), "jpeg": (8,), "tiff": (16, 32) if stretched else (32,)}.get(kind, (32,))
    bits = allowed[0] if bits is None else bits
    if kind in ("png", "jpeg") and not stretched:
        raise StageError(f"{path}: a linear picture is nearly black on a screen; stretch it, or write .fits or .tif")
    if bits not in allowed:
        raise WorkbenchError(f"{path}: {bits} bits do not suit this picture; choose {' or '.join(map(str, allowed))}")
    if not path.parent.is_dir():
        raise WorkbenchError(f"{path}: the folder {path.parent} does not exist; make it first")
    writers = {"png": _write_png, "jpeg": _write_jpeg, "tiff": _write_tiff, "fits": _write_fits, "xisf": _write_xisf}
    with whole_file(path) as part:
        writers[kind](part, picture, bits, _record(picture, settings))
    return path


def _record(picture: xr.Dataset, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a file records of its picture, as JSON can hold it: program, stage, units, history, attributes, settings."""

    def plain(held: Any) -> Any:
        return held.tolist() if isinstance(held, (np.ndarray, np.generic)) else str(held)

    given = {"attrs": dict(picture.attrs)} | ({} if settings is None else {"settings": dict(settings)})
    given = json.loads(json.dumps(given, default=plain), parse_constant=lambda _: None)  # NaN becomes null
    attrs = given.pop("attrs")
    return {
        "program": f"astrophoto-workbench {importlib.metadata.version('astrophoto-workbench')}",
        "stage": attrs.pop("stage", "stacked"),
        "units": attrs.pop("units", ""),
        "history": attribute_lines({"history": attrs.pop("history", [])}, "history"),
        "attributes": {key: value for key, value in attrs.items() if value is not None},
        **given,
    }


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


def _write_jpeg(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    values = quantise(picture, bits)
    text = json.dumps(about).encode()
    if len(text) > _COMMENT_ROOM:  # the settings are what a picture is made again from
        text = json.dumps(about | {"history": []}).encode()
    Image.fromarray(values).save(
        path, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=srgb_profile(picture.sizes["channel"]),
        comment=text,
    )  # fmt: skip


def _write_tiff(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    signal = np.moveaxis(picture["signal"].values, 0, -1)
    signal = signal[..., 0] if signal.shape[-1] == 1 else signal
    values = quantise(picture, 16) if bits == 16 else np.ascontiguousarray(signal, np.float32)
    tifffile.imwrite(
        path,
        values,
        photometric="rgb" if values.ndim == 3 else "minisblack",
        planarconfig="contig" if values.ndim == 3 else None,
        iccprofile=srgb_profile(picture.sizes["channel"]) if about["stage"] == "stretched" else None,
        description=json.dumps(about),
        software=about["program"],
        metadata=None,
        rowsperstrip=64,
    )


def _write_fits(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    signal, mask = without_gaps(picture["signal"].values.astype(np.float32, copy=False))
    planes = {"signal": signal, "mask": mask, **{name: picture[name].values for name in PLANES[1:] if name in picture}}
    hdus: list[Any] = []
    for name, values in planes.items():
        kind = {"b": np.uint8, "f": np.float32}.get(values.dtype.kind, values.dtype)
        stored = values.astype(kind, copy=False)
        stored = stored[0] if len(stored) == 1 else stored  # a mono image has two axes
        hdus.append(fits.ImageHDU(stored, name=name.upper()) if hdus else fits.PrimaryHDU(stored))
        put_seal(hdus[-1].header)
        put_plane(hdus[-1].header, name.upper(), about["units"])
    header = hdus[0].header
    header["STAGE"] = (about["stage"], "linear until stretched")
    header["CHANNELS"] = (",".join(map(str, picture["channel"].values)), "along axis 3")
    put_cards(header, {"ROWORDER": "TOP-DOWN", **observed_cards(about["attributes"])})
    header["CREATOR"] = about["program"]
    header[RECORD] = json.dumps(about)
    for sentence in about["history"]:
        header["HISTORY"] = ascii_text(sentence)  # the JSON has it whole
    fits.HDUList(hdus).writeto(path, overwrite=True)
    seal(path)


def _write_xisf(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    values = np.ascontiguousarray(np.moveaxis(picture["signal"].values.astype(np.float32), 0, -1))
    keywords = {
        "BUNIT": [{"value": about["units"], "comment": "of the pixel values"}],
        "HISTORY": [{"value": "", "comment": ascii_text(line)} for line in about["history"]],
        **{key: [{"value": str(value), "comment": ""}] for key, value in observed_cards(about["attributes"]).items()},
    }
    text = {"id": "Workbench:About", "type": "String", "value": json.dumps(about)}
    xisf_package().write(
        str(path),
        values,
        creator_app=about["program"],
        image_metadata={"FITSKeywords": keywords, "XISFProperties": {"Workbench:About": text}},
    )
    low, high = (0.0, 1.0) if about["stage"] == "stretched" else (np.nanmin(values), np.nanmax(values))
    # corrected in the header, as the package cannot be given it: no date, and the range that black to white spans;
    # the pixels lie on a block boundary behind the header, so that there is room for a longer one
    with open(path, "r+b") as file:
        signature, length = struct.unpack("<8sI4x", file.read(16))
        header = file.read(length).decode()
        start = int(re.findall(r'location="attachment:(\d+):', header)[0])
        header = re.sub(r"(XISF:CreationTime[^>]*>)[^<]*<", r"\g<1>2000-01-01T00:00:00<", header)
        body = re.sub(r'bounds="[^"]*"', f'bounds="{min(low, 0.0):.9g}:{max(high, 1.0):.9g}"', header).encode()
        if 16 + len(body) > start:
            raise WorkbenchError("the history is too long for this XISF file; write FITS")
        file.seek(0)
        file.write(struct.pack("<8sI4x", signature, len(body)) + body.ljust(start - 16, b"\0"))


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
    kind = SUFFIXES.get(path.suffix.lower())
    kind = _sniff(path) if kind in (None, "jpeg") else kind
    reader = {"png": _read_png, "tiff": _read_tiff, "fits": _read_fits, "xisf": _read_xisf}[kind]
    try:
        planes, about, profile, header = reader(path)
        about = about or _foreign(path, planes["signal"].dtype, profile, header)
        if header is None:  # of a picture, whose integers span 0 to 1
            values = np.moveaxis(np.atleast_3d(planes["signal"]), -1, 0)
            top = np.float32(np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1)
            planes = {"signal": values.astype(np.float32) / top}
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


def _foreign(path: Path, dtype: np.dtype, profile: Any, header: fits.Header | None) -> dict[str, Any]:
    """The record of another program's file: what its colour profile or its FITS header say."""
    if dtype == np.uint8:
        raise FrameReadError(
            path, "has 8 bits a channel: too few for a linear picture; finish the stack itself (16 or 32 bits)"
        )
    if dtype.kind not in ("uf" if header is None else "uif"):
        raise FrameReadError(path, f"holds {dtype} values; 16-bit or floating-point ones can be finished")
    about = {"stage": "stretched" if profile else "stacked", "units": "1", "history": [f"Read from {path.name}."]}
    if header is None:
        return about
    units = str(header.get("BUNIT", "")).strip() or ("1" if dtype.kind == "f" else "adu")
    keys = {"camera": "INSTRUME", "exposure": "EXPTIME", "object": "OBJECT", "filter": "FILTER"}
    return about | {
        "units": "electron" if "electron" in units.lower() or units.lower() in ("e-", "e") else units,
        "history": [*map(str, header.get("HISTORY", [])), *about["history"]],
        "attributes": {name: header[key] for name, key in keys.items() if key in header},
    }


def _about(text: str | None) -> dict[str, Any] | None:
    """The record in a file of the workbench; None for another program's."""
    try:
        about = json.loads(text or "")
    except ValueError:
        return None
    own = isinstance(about, dict) and str(about.get("program", "")).startswith("astrophoto-workbench")
    return about if own else None


# the readers give the planes, their record (`_about`), an ICC profile and, of FITS files alone, the header
_Content = tuple[dict[str, np.ndarray], dict[str, Any] | None, Any, fits.Header | None]


def _read_png(path: Path) -> _Content:
    values, profile, texts = read_png(path)
    return {"signal": values}, _about(texts.get("workbench")), profile, None


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


def _read_tiff(path: Path) -> _Content:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        values = page.asarray()
        if page.planarconfig == 2 and values.ndim == 3:
            values = np.moveaxis(values, 0, -1)
        return {"signal": values}, _about(page.description), page.tags.get(34675), None


def _read_fits(path: Path) -> _Content:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AstropyUserWarning)
        hdus = fits.open(path, lazy_load_hdus=False)
    with hdus:
        cut = [str(warning.message) for warning in caught if "truncated" in str(warning.message)]
        if cut:
            raise FrameReadError(path, f"is a FITS file cut short: {cut[0]}")
        record = record_of(hdus)
        images = [hdu for hdu in hdus if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) > 0]
        if not images:
            raise FrameReadError(path, "holds no image")
        known = {hdu.name.lower(): hdu for hdu in images[1:] if hdu.name.lower() in (*PLANES, "mask")}
        named = {"signal": images[0], **known}
        planes = {name: np.array(hdu.data, hdu.data.dtype.newbyteorder("=")) for name, hdu in named.items()}
        header, shape = images[0].header, planes["signal"].shape
    if "mask" in planes and planes["signal"].dtype.kind == "f" and planes["mask"].shape == shape:
        planes["signal"] = with_gaps(planes["signal"], planes["mask"])
    planes.pop("mask", None)
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        planes = {name: np.moveaxis(values, -1, 0) for name, values in planes.items()}
    return planes, _about(record), None, header


def _read_xisf(path: Path) -> _Content:
    xisf = xisf_package()
    try:
        file = xisf(str(path))
        meta = file.get_images_metadata()[0]
        values = file.read_image(0)
    except Exception as problem:  # the package raises whatever its parsers raise
        raise FrameReadError(path, f"cannot be read as XISF: {problem}") from problem
    text = meta.get("XISFProperties", {}).get("Workbench:About", {}).get("value")
    return {"signal": np.array(values)}, _about(text), None, None
