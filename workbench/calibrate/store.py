"""Masters as FITS files, kept in a folder and used again as long as their frames and settings are the same."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from astropy.io import fits

from ..core.cube import black_levels
from ..core.errors import FrameReadError
from ..core.files import whole_file

VERSION = 1  # of the way masters are made: another number, and all are made anew
_NAMES = {"signal": "PRIMARY", "variance": "VARIANCE", "count": "COUNT", "unstable": "UNSTABLE"}


def save_master(master: xr.Dataset, path: str | Path) -> Path:
    """Write a master as a multi-extension FITS file: signal, VARIANCE, COUNT, UNSTABLE; whole or not at all.

    The header has the usual keywords for other programs and, as JSON in ``WBATTRS``, all that `open_master` returns.

    Raises
    ------
    WorkbenchError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from workbench.calibrate import master_bias
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(600, 3, (4, 16, 16)).round().astype("uint16")
    >>> master = master_bias(make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100))
    >>> open_master(save_master(master, Path(tempfile.mkdtemp()) / "bias.fits")).identical(master)
    True
    """
    path = Path(path)
    attrs = {**master.attrs, "variables": {name: dict(master[name].attrs) for name in _NAMES}}
    header = fits.Header()
    header["IMAGETYP"] = f"master {master.attrs['kind']}"
    header["INSTRUME"] = master.attrs["camera"].encode("ascii", "replace").decode()
    keywords = {"iso": "ISOSPEED", "exposure": "EXPTIME", "temperature": "CCD-TEMP", "frames": "NCOMBINE"}
    for name, keyword in keywords.items():
        if np.isfinite(master.attrs[name]):
            header[keyword] = master.attrs[name]
    if master.attrs["cfa_pattern"] != "mono":
        header["BAYERPAT"] = master.attrs["cfa_pattern"]
    header["ROWORDER"] = "TOP-DOWN"
    header["WBATTRS"] = json.dumps(attrs)
    hdus = fits.HDUList([fits.PrimaryHDU(master["signal"].values, header)])
    for name, extension in list(_NAMES.items())[1:]:
        values = master[name].values
        hdus.append(fits.ImageHDU(values.astype(np.uint8) if values.dtype == bool else values, name=extension))
    with whole_file(path, "the master", "give another folder") as part:
        _require_room(path, sum(hdu.filebytes() for hdu in hdus))
        hdus.writeto(part)
    return path


def _require_room(path: Path, needed: int) -> None:
    """Raise before astropy runs into a full disk: what it raises then hides the reason."""
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:,.0f} MB are needed")


def open_master(path: str | Path) -> xr.Dataset:
    """Return a master that `save_master` wrote.

    Raises
    ------
    FrameReadError
        If the file is not one, or damaged.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            attrs = json.loads(hdus[0].header["WBATTRS"])
            described = attrs.pop("variables")
            data = {}
            for name, extension in _NAMES.items():
                values = hdus[extension].data
                values = values.astype(bool if name == "unstable" else values.dtype.newbyteorder("="), copy=False)
                data[name] = (("y", "x"), values, described[name])
            return xr.Dataset(data, attrs=attrs)
    except FileNotFoundError:
        raise FrameReadError(path, "is not there") from None
    except Exception as error:
        raise FrameReadError(path, f"is no master of the workbench ({type(error).__name__}: {error})") from None


def master_key(cube: xr.DataArray, settings: Any) -> str:
    """Return a name for what a master is made of: its frames' files, sizes and times (or values), and the settings.

    The cube's dask name is the digest of its frames (paths with size and modification time where they come from
    files), so the key changes when a file is replaced.
    """
    digest = getattr(cube.data, "name", None) or dask.base.tokenize(cube.data)
    coords = {name: np.asarray(cube[name].values).astype(str).tolist() for name in sorted(cube.coords)}
    content = json.dumps(
        [VERSION, digest, coords, cube.attrs["cfa_pattern"], black_levels(cube.attrs).tolist(), settings],
        default=str,
        sort_keys=True,
    )
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def kept(folder: str | Path | None, kind: str, key: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Return the master of that key from the folder, or make it and keep it there; without a folder just make it.

    A file that is damaged is made anew, never trusted.
    """
    if folder is None:
        return make().assign_attrs(key=key)
    path = Path(folder) / f"master-{kind}-{key}.fits"
    if path.exists():
        try:
            return open_master(path)
        except FrameReadError:
            path.unlink(missing_ok=True)
    master = make().assign_attrs(key=key)
    save_master(master, path)
    return master
