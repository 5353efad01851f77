"""Pictures read back from files: the workbench's own with all they carry, other programs' linear stacks."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import xarray as xr
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from PIL import Image, UnidentifiedImageError

from ..core.errors import FrameReadError, WorkbenchError
from .picture import PLANES, in_bands, make_picture
from .png import read_png
from .write_files import KEYWORD, SUFFIXES, xisf_package


def read_picture(path: str | Path) -> xr.Dataset:
    """Read a picture back from PNG, TIFF, FITS or XISF, with its history and, in ``attrs["settings"]``, its settings.

    A file of another program counts as a linear stack if its values are floating point or 16-bit without a colour
    profile, else as a stretched picture.

    Raises
    ------
    FrameReadError
        If the file cannot be read, is 8-bit, a JPEG, has other than one or three channels, or is no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FrameReadError(path, "is not there" if not path.exists() else "is no file; give a stack, not a folder")
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
        picture = make_picture(
            planes["signal"],
            planes.get("variance"),
            coverage=planes.get("coverage"),
            saturated=planes.get("saturated"),
            stage=about.get("stage", "stacked"),
            attrs=attrs,
        )
    except WorkbenchError as problem:
        raise FrameReadError(path, str(problem)) from problem
    return picture


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
        raise FrameReadError(path, "is no picture that can be read; .fits, .xisf, .tif and .png can") from problem
    if name == "PNG":
        return "png"
    if name == "TIFF":
        return "tiff"
    raise FrameReadError(
        path,
        f"is a {name} picture: 8 bits, stretched already; a finish starts from the linear stack (.fits, .xisf, .tif)",
    )


def _channels_first(values: np.ndarray) -> np.ndarray:
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


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


def _told(text: str | None) -> dict[str, Any] | None:
    """What a file of the workbench says of itself; None for another program's."""
    try:
        about = json.loads(text or "")
    except ValueError:
        return None
    return (
        about if isinstance(about, dict) and str(about.get("program", "")).startswith("astrophoto-workbench") else None
    )


def _read_png(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    values, profile, texts = read_png(path)
    about = _told(texts.get("workbench"))
    if about is None:
        values, about = _foreign(path, values, profile)
    else:
        values = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return {"signal": _channels_first(values)}, about


def _read_tiff(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            values = page.asarray()
            profile = page.tags.get(34675)
            about = _told(page.description)
            if page.planarconfig == 2 and values.ndim == 3:
                values = np.moveaxis(values, 0, -1)
    except tifffile.TiffFileError as problem:
        raise FrameReadError(path, f"is no TIFF that can be read: {problem}") from problem
    if about is None:
        values, about = _foreign(path, values, profile)
    elif values.dtype.kind == "u":
        values = values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    return {"signal": _channels_first(values)}, about


def _read_fits(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        return _fits_planes(path, memmap=True)
    except ValueError as problem:
        if "memory-mapped" not in str(problem):
            raise
        return _fits_planes(path, memmap=False)  # scaled integers cannot be mapped


def _fits_planes(path: Path, *, memmap: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AstropyUserWarning)
        hdus = fits.open(path, memmap=memmap, lazy_load_hdus=False)
    with hdus:
        cut = [str(one.message) for one in caught if "truncated" in str(one.message)]
        if cut:
            raise FrameReadError(path, f"is a FITS file cut short: {cut[0]}")
        images = [hdu for hdu in hdus if getattr(hdu, "is_image", False) and hdu.header.get("NAXIS", 0) > 0]
        if not images:
            raise FrameReadError(path, "holds no image")
        first = images[0]
        header = first.header
        about = _told(header.get(KEYWORD))
        planes = {"signal": _native(first.data)}
        planes |= {hdu.name.lower(): _native(hdu.data) for hdu in images[1:] if hdu.name.lower() in PLANES}
        if about is None:
            kind = planes["signal"].dtype.kind
            planes["signal"], about = _foreign(path, planes["signal"], None, scale=False)
            about["units"] = str(header.get("BUNIT", "")).strip() or ("1" if kind == "f" else "adu")
            about["history"] = [*map(str, header.get("HISTORY", [])), *about["history"]]
            about["attributes"] = {
                name: header[key]
                for name, key in (("camera", "INSTRUME"), ("exposure", "EXPTIME"), ("object", "OBJECT"))
                if key in header
            }
            if "electron" in about["units"].lower() or about["units"].lower() in ("e-", "e"):
                about["units"] = "electron"
    if planes["signal"].ndim == 3 and planes["signal"].shape[0] not in (1, 3) and planes["signal"].shape[2] in (1, 3):
        planes = {name: np.moveaxis(values, -1, 0) for name, values in planes.items()}
    return planes, about


def _native(values: np.ndarray) -> np.ndarray:
    """A copy in this processor's byte order, made in threads: the file is big-endian, and mapped."""
    out = np.empty(values.shape, values.dtype.newbyteorder("="))
    flat, target = (array.reshape(-1, array.shape[-1]) for array in (values, out))

    def copy(rows: slice) -> None:
        target[rows] = flat[rows]

    in_bands(copy, len(flat))
    return out


def _read_xisf(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    xisf = xisf_package()
    try:
        file = xisf(str(path))
        meta = file.get_images_metadata()[0]
        values = file.read_image(0)
    except Exception as problem:  # the package raises whatever its parsers raise
        raise FrameReadError(path, f"is no XISF file that can be read: {problem}") from problem
    about = _told(meta.get("XISFProperties", {}).get("Workbench:About", {}).get("value"))
    if about is None:
        values, about = _foreign(path, values, None)
    return {"signal": np.moveaxis(np.array(values), -1, 0)}, about
