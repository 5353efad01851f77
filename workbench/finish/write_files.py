"""Pictures as files: 16-bit PNG and TIFF for the wall, 32-bit FITS, TIFF and XISF for more work.

Every file carries, as one JSON text, the picture's stage, units, history and attributes and the settings that made
it.  The same picture gives the same bytes: no date is written.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import xarray as xr
from astropy.io import fits
from PIL import ImageCms

from ..core.errors import StageError, WorkbenchError
from ..core.files import whole_file
from .picture import PLANES, check_picture, in_bands
from .png import write_png

KEYWORD = "WORKBNCH"  # of the FITS card; "workbench" elsewhere
SUFFIXES = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".fits": "fits",
    ".fit": "fits",
    ".fts": "fits",
    ".xisf": "xisf",
}


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
            f"{path}: no picture is written as {path.suffix or 'a file without a suffix'!r};"
            " .png, .tif, .fits and .xisf are known"
        )
    stretched = picture.attrs.get("stage") == "stretched"
    allowed = {"png": (16, 8), "tiff": (16, 32) if stretched else (32,), "fits": (32,), "xisf": (32,)}[kind]
    bits = allowed[0] if bits is None else bits
    if kind == "png" and not stretched:
        raise StageError(
            f"{path}: a linear picture is nearly black on a screen; stretch it, or write .fits, .tif, .xisf"
        )
    if bits not in allowed:
        raise WorkbenchError(f"{path}: {bits} bits do not suit this picture; {', '.join(map(str, allowed))} do")
    if not path.parent.is_dir():
        raise WorkbenchError(f"{path}: the folder {path.parent} does not exist; make it first")
    writer = {"png": _write_png, "tiff": _write_tiff, "fits": _write_fits, "xisf": _write_xisf}[kind]
    with whole_file(path) as part:
        writer(part, picture, bits, describe(picture, settings))
    return path


def describe(picture: xr.Dataset, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a file says of its picture, for JSON: program, stage, units, history, attributes, settings."""
    attrs = {key: _plain(value) for key, value in picture.attrs.items()}
    about = {
        "program": f"astrophoto-workbench {importlib.metadata.version('astrophoto-workbench')}",
        "stage": attrs.pop("stage", "stacked"),
        "units": attrs.pop("units", ""),
        "history": attrs.pop("history", []),
        "attributes": {key: value for key, value in attrs.items() if value is not None},
    }
    return about if settings is None else {**about, "settings": _plain(dict(settings))}


def _plain(value: Any) -> Any:
    """Anything as JSON can hold it; NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (str, int, bool)) or value is None else str(value)


def quantise(picture: xr.Dataset, bits: int = 16) -> np.ndarray:
    """Return a stretched picture as integers, (y, x) or (y, x, 3), missing pixels black."""
    check_picture(picture, stage="stretched")
    values = picture["signal"].values
    channels, height, width = values.shape
    dtype, top = (np.uint16, 65535) if bits == 16 else (np.uint8, 255)
    out = np.empty((height, width, channels), dtype)

    def rows_of(rows: slice) -> None:
        for channel in range(channels):
            scaled = np.nan_to_num(values[channel, rows], nan=0.0) * np.float32(top)
            out[rows, :, channel] = np.rint(np.clip(scaled, 0, top, out=scaled), out=scaled)

    in_bands(rows_of, height)
    return out if channels == 3 else out[..., 0]


def srgb_profile(channels: int = 3) -> bytes:
    """Return the sRGB profile, the same bytes always; for one channel its curve as a grey profile.

    Made by Little CMS (Pillow); the date and platform that it stamps into the header are cleared.
    """
    rgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    rgb[24:36] = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    rgb[40:44] = b"\0\0\0\0"
    if channels == 3:
        return bytes(rgb)
    count = struct.unpack(">I", rgb[128:132])[0]
    tags = {}
    for number in range(count):
        name, offset, size = struct.unpack(">4sII", rgb[132 + 12 * number : 144 + 12 * number])
        tags[name] = bytes(rgb[offset : offset + size])
    kept = {b"desc": tags[b"desc"], b"cprt": tags[b"cprt"], b"wtpt": tags[b"wtpt"], b"kTRC": tags[b"rTRC"]}
    table, body = struct.pack(">I", len(kept)), b""
    start = 132 + 12 * len(kept)
    for name, content in kept.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    rgb[16:20] = b"GRAY"
    rgb[0:4] = struct.pack(">I", start + len(body))
    return bytes(rgb[:128]) + table + body


def _write_png(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        write_png(
            file,
            quantise(picture, bits),
            profile=srgb_profile(picture.sizes["channel"]),
            text={"workbench": json.dumps(about, ensure_ascii=False), "Software": about["program"]},
        )


def _write_tiff(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    if bits == 16:
        values = quantise(picture, 16)
    else:
        values = np.moveaxis(picture["signal"].values.astype(np.float32), 0, -1)
        values = np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values)
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
    units = fits.PrimaryHDU(_fits_plane(picture["signal"]))
    header = units.header
    header["BUNIT"] = (about["units"] or "1", "of the pixel values")
    header["STAGE"] = (about["stage"], "linear until stretched")
    header["CHANNELS"] = (",".join(map(str, picture["channel"].values)), "along axis 3")
    header["CREATOR"] = about["program"]
    header[KEYWORD] = json.dumps(about)
    for sentence in about["history"]:
        header["HISTORY"] = _ascii(sentence)
    extra = [fits.ImageHDU(_fits_plane(picture[name]), name=name.upper()) for name in PLANES[1:] if name in picture]
    fits.HDUList([units, *extra]).writeto(path, overwrite=True)


def _ascii(text: str) -> str:
    """Text as FITS headers hold it; the whole of it stands in the JSON beside it."""
    return text.encode("ascii", "replace").decode()


def _fits_plane(values: xr.DataArray) -> np.ndarray:
    data = values.values
    if data.dtype == bool:
        return data.astype(np.uint8)
    return data.astype(np.float32) if data.dtype.kind == "f" else data


def _write_xisf(path: Path, picture: xr.Dataset, bits: int, about: dict[str, Any]) -> None:
    values = np.ascontiguousarray(np.moveaxis(picture["signal"].values.astype(np.float32), 0, -1))
    keywords = {
        "BUNIT": [{"value": about["units"], "comment": "of the pixel values"}],
        "HISTORY": [{"value": "", "comment": _ascii(line)} for line in about["history"]],
    }
    text = {"id": "Workbench:About", "type": "String", "value": json.dumps(about)}
    xisf_package().write(
        str(path),
        values,
        creator_app=about["program"],
        image_metadata={"FITSKeywords": keywords, "XISFProperties": {"Workbench:About": text}},
    )
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    _amend_xisf(path, (0.0, 1.0) if about["stage"] == "stretched" else (min(low, 0.0), max(high, 1.0)))


def _amend_xisf(path: Path, bounds: tuple[float, float]) -> None:
    """Put right in the header what the xisf package cannot be told: no date, and the range that black to white spans.

    The pixels lie on a block boundary behind the header, so that there is room for a longer one.
    """
    with open(path, "r+b") as file:
        signature, length = struct.unpack("<8sI4x", file.read(16))
        text = file.read(length).decode()
        start = int(re.search(r'location="attachment:(\d+):', text).group(1))
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
