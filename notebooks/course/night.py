"""Notebook 15: a real night, fetched on request or taken from where it is; notebook 09: a night with faults."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pooch
import requests
import xarray as xr

from workbench.app import viewer
from workbench.calibrate import calibrate, make_masters
from workbench.core.errors import WorkbenchError
from workbench.core.files import whole_file
from workbench.ingest import open_folder
from workbench.pipelines.stacking import grade_lights, stack_folder
from workbench.simulate.samples import own_folder, sample_folder

TABLE = Path(__file__).with_name("real_night.toml")


class NoRealNightError(WorkbenchError):
    """The frames are neither there nor to be had; a notebook ends with the one sentence that says so."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def real_night(table: str | Path = TABLE) -> Path:
    """Return the folder of a real night, which is copied or fetched on first use and kept.

    The frames come from the folder that the environment variable ``WORKBENCH_REAL_DATA`` names if they lie there, else
    from their public address, and each is compared with its SHA-256.  Addresses, checksums, source and licence stand in
    ``real_night.toml``.  They are kept in ``data-samples/real-night``, or in the cache folder (see `sample_folder`).

    Raises
    ------
    NoRealNightError
        If there is neither.
    WorkbenchError
        If a file that was fetched has another checksum: it is not kept.
    """
    night = tomllib.loads(Path(table).read_text(encoding="utf-8"))
    here = os.environ.get("WORKBENCH_REAL_DATA")
    there = {frame["name"]: Path(here) / frame["local"] for frame in night["frames"]} if here else {}
    if there and all(path.is_file() for path in there.values()):
        folder = own_folder("real-night-copy", "data-samples/real-night-copy")
        for name, path in there.items():
            copy = (folder / name).with_name(path.name)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(copy, frame=True) as part:
                    shutil.copyfile(path, part)
        return folder
    folder = own_folder("real-night", "data-samples/real-night")
    _fetch(folder, night)
    return folder


def _fetch(folder: Path, night: dict[str, Any]) -> None:
    """Fetch what is missing of a night, and compare all of it with the checksums."""
    logging.getLogger("pooch").setLevel(logging.WARNING)
    frames = {frame["name"]: frame for frame in night["frames"]}
    registry = {name: f"sha256:{frame['sha256']}" for name, frame in frames.items()}
    urls = {name: frame["url"] for name, frame in frames.items()}
    fetcher = pooch.create(folder, base_url="", registry=registry, urls=urls)
    for name, frame in frames.items():
        try:
            fetcher.fetch(name)
        except requests.RequestException as problem:
            raise NoRealNightError(
                f"No real night: {night['about']} ({night['size_mb']} MB, {night['licence']}) could not be fetched "
                f"from {frame['url']} ({type(problem).__name__}); run this cell again when there is a network, or "
                "give the folder of a night of your own."
            ) from None
        except ValueError as problem:
            raise WorkbenchError(
                f"{frame['url']}: the file is not the one that the table of checksums means ({problem}); it was not "
                "kept. Fetch again; if that does not help, the file there has changed: use a night of your own"
            ) from problem


def grades(folder: str | Path) -> pd.DataFrame:
    """Tabulate how good each light of a folder is, in a reader's words."""
    table = grade_lights(folder, progress=False).frames
    words = {
        "stars": "stars", "fwhm": "FWHM [px]", "roundness": "roundness", "background": "background",
        "transparency": "transparency", "used": "used",
    }  # fmt: skip
    shown = table[[name for name in words if name in table]].rename(columns=words)
    shown = shown.astype({"stars": "Int64"}).assign(used=np.where(table["used"], "yes", "no"))
    return shown.set_axis([Path(name).name for name in table["file"]], axis=0).round({"background": 0}).round(2)


def inner(picture: xr.Dataset) -> xr.Dataset:
    """Return a picture without a tenth of its height and width on each side, which a notebook need not hold."""
    y, x = (size // 10 for size in (picture.sizes["y"], picture.sizes["x"]))
    return picture.isel(y=slice(y, -y), x=slice(x, -x))


class FaultyNight(NamedTuple):
    """The night with three faults: what `stack_folder` says of it, and its first light, calibrated."""

    messages: list[str]
    light: np.ndarray

    def picture(self) -> Any:
        """Show the light in cells of 2 x 2 pixels, each colour about its own median."""
        planes = [self.light[y::2, x::2] for y in (0, 1) for x in (0, 1)]
        cells = np.mean([plane / np.median(plane) for plane in planes], axis=0)
        return viewer.side_by_side([viewer.picture("the first light, calibrated", cells, "of the median")], width=720)


def night_with_faults() -> FaultyNight:
    """Stack the sample frames ``faults`` and calibrate the first light with their own masters."""
    folder = sample_folder("faults", progress=False)
    with tempfile.TemporaryDirectory() as aside:
        done = stack_folder(folder, Path(aside) / "night.fits", progress=False)
    frames = open_folder(folder, progress=False)
    masters = make_masters(frames.light, bias=frames.bias, dark=frames.dark, flat=frames.flat, progress=False)
    light = calibrate(frames.light.isel(frame=[0]), masters)["signal"].values[0]
    return FaultyNight([f"{name} {reason}" for name, reason in done.set_aside] + list(done.warnings), light)
