"""The setting of a camera: what frames must share to calibrate one another, compared and distinguished.

ISO, or the gain and offset settings of a camera without one, readout mode, binning and the window on the sensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

# coordinates of a cube and columns of a folder's table
SETTING = ("iso", "gain_setting", "offset_setting", "readout_mode", "binning", "window")
# of filters: the usual name, and in small letters and digits alone what else files call it
FILTERS = {
    "L": ("lum", "luminance"),
    "R": ("red",),
    "G": ("green",),
    "B": ("blue",),
    "Ha": ("halpha", "hydrogenalpha"),
    "Hb": ("hbeta",),
    "OIII": ("o3", "oxygen"),
    "SII": ("s2", "sulfur", "sulphur"),
    "NII": ("n2",),
}

TITLES = {"iso": "ISO setting", "gain_setting": "gain setting"}  # of what distinguishes settings


def setting_dim(found: xr.DataArray | xr.Dataset) -> str:
    """Return what distinguishes the settings of a cube or a result: ``iso``, or ``gain_setting`` without an ISO.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> cubes = [make_cube(np.zeros((1, 2, 2)), cfa_pattern="mono", **{name: 100}) for name in SETTING[:2]]
    >>> [setting_dim(cube) for cube in cubes]
    ['iso', 'gain_setting']
    """
    if "gain_setting" in found.dims or "iso" in found.dims:
        return "gain_setting" if "gain_setting" in found.dims else "iso"
    if "gain_setting" in found.coords and "iso" not in found.coords:  # also of no frames
        return "gain_setting"
    return _dim_of(*(found.coords.get(name, np.nan) for name in ("iso", "gain_setting")))


def in_words_of(dim: str, text: str) -> str:
    """Return a title or a unit that speaks of the ISO for a camera with gain settings.

    Examples
    --------
    >>> in_words_of("gain_setting", "unity-gain ISO"), in_words_of("iso", "unity-gain ISO")
    ('gain setting of unity gain', 'unity-gain ISO')
    """
    return text if dim == "iso" else text.replace("unity-gain ISO", "ISO of unity gain").replace("ISO", TITLES[dim])


def setting_of_table(table: pd.DataFrame) -> str:
    """Return what distinguishes the settings of a folder's table, as `setting_dim` does of a cube's."""
    return _dim_of(table["iso"], table.get("gain_setting", np.nan))


def _dim_of(iso: Any, gain_setting: Any) -> str:
    iso, gain_setting = np.asarray(iso, float), np.asarray(gain_setting, float)
    return "gain_setting" if np.isnan(iso).all() and np.isfinite(gain_setting).any() else "iso"


def setting_of(cube: xr.DataArray, number: int = 0) -> dict[str, Any]:
    """Return the setting of one frame of a cube.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> setting_of(make_cube(np.zeros((1, 2, 2)), cfa_pattern="mono", gain_setting=100))["gain_setting"]
    100.0
    """
    return {name: cube[name].values.item(number) for name in SETTING}


def setting_differs(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return in what two settings differ; what either of them does not state does not count, but for the ISO.

    Examples
    --------
    >>> nan = float("nan")
    >>> setting_differs({"iso": nan, "gain_setting": 0.0}, {"iso": nan, "gain_setting": 100.0, "offset_setting": 50.0})
    ['gain_setting']
    >>> setting_differs({"iso": 800.0}, {"iso": nan})
    ['iso']
    """
    return [name for name in SETTING if name in first and name in second and _differ(name, first[name], second[name])]


def _differ(name: str, first: Any, second: Any) -> bool:
    if isinstance(first, str):
        return bool(first and second) and first.casefold() != second.casefold()
    unknown = int(np.isnan(first)) + int(np.isnan(second))
    if unknown:
        return name == "iso" and unknown == 1
    return not np.isclose(first, second, rtol=1e-6, atol=1e-9)


def filter_name(stated: str) -> str:
    """Return the name of a filter as it stands in tables and headers: the usual one, else the stated one in capitals.

    Examples
    --------
    >>> [filter_name(name) for name in ("lum", "Red", "H-alpha", "oiii", "S2", "IrCut", "Ha 3nm", "")]
    ['L', 'R', 'Ha', 'OIII', 'SII', 'IRCUT', 'HA 3NM', '']
    """
    plain = re.sub(r"[^a-z0-9]", "", stated.casefold().replace("α", "alpha").replace("β", "beta"))
    usual = (name for name, others in FILTERS.items() if plain in (name.casefold(), *others))
    return next(usual, " ".join(stated.split()).upper())


def filter_in_file_name(name: str) -> str:
    """Return the name of a filter as a part of a file's name.

    Examples
    --------
    >>> filter_in_file_name("Ha"), filter_in_file_name("HA 3NM/2")
    ('Ha', 'HA-3NM-2')
    """
    return re.sub("[^A-Za-z0-9.+-]+", "-", name)
