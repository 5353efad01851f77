"""A folder of darks in, a dark library out; a library in, a master dark out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from ..calibrate.masterset import save_master
from ..core.dark import open_dark_library, predict_dark, save_dark_library
from ..core.errors import WorkbenchError, said_of
from ..core.files import check_target
from ..core.values import is_simulated, value_text
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder
from ..sensor.library import fit_dark_library

DARK_LIBRARY_FILE = "dark-library.fits"


@dataclass(repr=False)
class DarkLibraryResult:
    """A dark library that was made, and where it lies; prints as what it can predict."""

    library: xr.Dataset
    path: Path | None = None
    set_aside: list[tuple[Path, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what it is, one line a fact."""
        attrs = self.library.attrs
        seconds, warm = self.library["exposure"].values, self.library["temperature"].values
        darks = seconds > 0
        label = " [simulated data]" if is_simulated(attrs["camera"]) and "simulated" not in attrs["camera"] else ""
        iso = f", ISO {attrs['iso']:g}" if math.isfinite(attrs["iso"]) else ""
        found = [
            f"{attrs['camera'] or 'unknown camera'}{label}{iso}: dark library of "
            f"{int(self.library['frames'].sum())} frames",
            f"exposures {seconds[darks].min():g} to {seconds.max():g} s",
        ]
        if np.isfinite(warm[darks]).any():
            found[-1] += f", temperatures {np.nanmin(warm):g} to {np.nanmax(warm):g} °C"
        for law, key, name, unit in (
            ("doubling", "doubling_temperature", "dark current doubles every", "K"),
            ("arrhenius", "activation_energy", "activation energy", "eV"),
        ):
            if math.isfinite(attrs[key]):
                used = " (used)" if attrs["law"] == law else ""
                found.append(f"{name} {value_text(attrs[key], attrs[f'{key}_error'], unit)}{used}")
        return [*found, *(f"warning: {text}" for text in attrs["warnings"])]

    def __repr__(self) -> str:
        aside = [f"set aside: {said_of(path.name, reason)}" for path, reason in self.set_aside]
        return "\n".join([*self.lines(), *aside])


def make_dark_library(
    folder: str | Path | Folder, out: str | Path | None = None, *, iso: float | None = None, progress: bool = True
) -> DarkLibraryResult:
    """Fit the darks (and bias frames) in a folder together and keep the result: see `sensor.fit_dark_library`.

    Parameters
    ----------
    folder
        A folder (see `open_folder`), or what `open_folder` returned.
    out
        The FITS file to write, or a folder for ``dark-library.fits``; nothing is written without it.
    iso
        Which ISO; without it the one with the most darks.

    Raises
    ------
    WorkbenchError
        If the folder has no darks (of that ISO), or they do not separate offset and dark current; the message
        names what to shoot.

    Examples
    --------
    >>> from workbench.simulate import samples
    >>> result = make_dark_library(samples._PROJECT / "data-samples" / "small", progress=False)
    >>> 5 < result.library.attrs["doubling_temperature"] < 7
    True
    """
    path = None
    if out is not None:
        path = Path(out)
        if path.is_dir() or not path.suffix:
            path = path / DARK_LIBRARY_FILE
        check_target(path, "FITS file")
    found = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    library, found = found.without_unreadable(lambda folder: _fit(folder, iso, progress), "dark")
    if library is None:
        raise WorkbenchError(
            f"{found.root} has no darks: shoot two or more at each of two exposures, and at two temperatures or more"
        )
    if path is not None:
        save_dark_library(library, path)
    return DarkLibraryResult(library, path, list(found.set_aside))


def _fit(folder: Folder, iso: float | None, progress: bool) -> xr.Dataset:
    """Fit the darks of an ISO, or of the one with the most."""
    counts = folder.table.loc[folder.table["kind"] == "dark", "iso"].value_counts()
    if iso is not None and iso not in counts.index:
        known = ", ".join(f"{value:g}" for value in sorted(counts.index)) or "not stated"
        raise WorkbenchError(f"{folder.root} has no darks at ISO {iso:g} (there are ISO {known})")
    dark, bias = folder.cube("dark"), folder.cube("bias") if folder.has("bias") else None
    if counts.size:
        wanted = counts.index[0] if iso is None else iso
        dark = dark.isel(frame=np.flatnonzero(dark["iso"].values == wanted))
    return fit_dark_library(dark, bias, progress=progress)


def predict_master_dark(
    library: str | Path, out: str | Path, *, exposure: float, temperature: float = math.nan
) -> xr.Dataset:
    """Predict a master dark from a library file and write it as the masters of the workbench are; see `predict_dark`.

    Raises
    ------
    WorkbenchError
        If the file is not a library, does not reach that temperature, or the master cannot be written.
    """
    check_target(out, "FITS file")
    master = predict_dark(open_dark_library(library), exposure, temperature)
    save_master(master.assign_attrs(key=""), out)
    return master
