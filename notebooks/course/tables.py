"""Tables of the course: measurements with their errors, compared with the truth where it is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from workbench.core.cube import evenly
from workbench.core.errors import WorkbenchError
from workbench.core.noise import common_mean, mean_of_channels
from workbench.core.settings import in_words_of, setting_dim
from workbench.core.values import describe, temperature_text, unit_text, value_text
from workbench.sensor.dark import Darks


def truth(folder: str | Path) -> xr.Dataset:
    """Return the truth of simulated sample frames; an empty Dataset for real frames.

    Returns
    -------
    xarray.Dataset
        ``gain`` [e⁻/ADU], ``read_noise`` and ``saturation`` [e⁻], ``read_noise_adu`` [ADU] over iso;
        ``dark_current``, ``median`` and ``dcnu`` [e⁻/s/pixel] over temperature; ``black_level`` and
        ``fixed_pattern`` [ADU], ``prnu`` [%], ``unity_gain_iso``, ``activation_energy`` [eV].
    """
    path = Path(folder) / "truth.json"
    if not path.is_file():
        return xr.Dataset()
    content = json.loads(path.read_text(encoding="utf-8"))
    settings, darks = content["settings"], content["dark_current"]
    data: dict[str, Any] = {
        name: ("iso", [one[name]["value"] for one in settings], {"units": settings[0][name]["unit"]})
        for name in ("gain", "read_noise", "saturation")
    }
    for name, key in (("dark_current", "value"), ("median", "median"), ("dcnu", "dcnu")):
        data[name] = ("temperature", [one[key] for one in darks], {"units": darks[0]["unit"]})
    for name in ("black_level", "fixed_pattern", "prnu", "unity_gain_iso"):
        data[name] = ((), content[name]["value"], {"units": content[name].get("unit", "1")})
    energy = content["dark_law"]["activation_energy"]
    data["activation_energy"] = ((), energy["value"], {"units": energy["unit"]})
    coords = {
        "iso": [float(one["iso"]) for one in settings],
        "temperature": [float(one["temperature_c"]) for one in darks],
    }
    result = xr.Dataset(data, coords, {"camera": content["camera"]})
    return result.assign(read_noise_adu=(result["read_noise"] / result["gain"]).assign_attrs(units="adu"))


def with_truth(
    measured: xr.DataArray,
    error: xr.DataArray,
    true: xr.DataArray | None = None,
    *,
    shared: xr.DataArray | float = 0.0,
    saturated: xr.DataArray | None = None,
    digits: int = 4,
    most: int = 4,
) -> pd.DataFrame:
    """Tabulate a measurement with its errors, and the truth where it is known; channels that agree share a column.

    Parameters
    ----------
    measured, error
        A quantity over one dimension (a row each), and perhaps channel (a column each).
    true
        The truth over the same dimension, from `truth`; the last column then gives the mean difference over the
        channels in units of its error.
    shared
        Part of the error that the channels have in common, which their mean does not make smaller.
    saturated
        Pixels that saturate in every frame, as another column: they count with the least that does.
    digits
        Of the truth.
    most
        Rows; of more settings some are shown, the first and the last among them.

    Examples
    --------
    >>> gain = xr.DataArray([2.12, 1.06], {"iso": [100, 200]}, ["iso"], attrs={"units": "electron / adu"}, name="gain")
    >>> with_truth(gain, 0 * gain + 0.01, xr.DataArray([2.13, 1.065], {"iso": [100, 200]}, ["iso"]))
         gain [e⁻/ADU]  truth  off by
    ISO
    100  2.120 ± 0.010   2.13  −1.0 σ
    200  1.060 ± 0.010  1.065  −0.5 σ
    """
    (dim,) = [name for name in measured.dims if name != "channel"]
    chosen = evenly(measured.sizes[dim], most)
    shared = (xr.zeros_like(error) + shared).fillna(0.0)
    measured, error, shared = (part.isel({dim: chosen}) for part in (measured, error, shared))
    saturated = None if saturated is None else saturated.isel({dim: chosen})
    rows = measured[dim].values
    if measured.sizes.get("channel", 1) > 1:
        joined = [
            common_mean(*row)
            for row in zip(*(part.transpose(dim, "channel").values for part in (measured, error, shared)), strict=True)
        ]
        if None not in joined:
            mean, spread = np.transpose(joined)
            measured, error, shared = (
                part.isel(channel=0, drop=True).copy(data=data)
                for part, data in ((measured, mean), (error, spread), (shared, 0 * spread))
            )
    name = str(measured.name).removesuffix("_adu").replace("_", " ")
    title = f"{name} [{unit_text(measured.attrs.get('units', '1')) or '1'}]"
    apart = "channel" in measured.dims
    if not apart:
        measured, error, shared = (part.expand_dims(channel=[title]) for part in (measured, error, shared))
    values, errors, common = (part.transpose(dim, "channel").values for part in (measured, error, shared))
    table = {
        str(name): [value_text(value, spread) for value, spread in zip(values[:, i], errors[:, i], strict=True)]
        for i, name in enumerate(measured["channel"].values)
    }
    if saturated is not None:
        table["saturated pixels"] = [f"{int(count):,}" for count in saturated.values]
    if true is not None:
        known = true.reindex({dim: rows}).values if dim in true.dims else np.full(rows.size, float(true))
        mean, spread = mean_of_channels(values - known[:, None], errors, common)
        off = mean / spread
        table["truth"] = [f"{value:.{digits}g}" if math.isfinite(value) else "–" for value in known]
        table["off by"] = [f"{value:+.1f} σ".replace("-", "−") if math.isfinite(value) else "–" for value in off]
    return pd.DataFrame(table, index=_row_names(measured)).rename_axis(columns=title if apart else None)


def _row_names(measured: xr.DataArray) -> pd.Index:
    """Return the values along the dimension of a measurement, and the setting where that is another coordinate."""
    (dim,) = [str(name) for name in measured.dims if name != "channel"]
    setting = setting_dim(measured)
    label = {
        "iso": "ISO",
        "gain_setting": "gain setting",
        "temperature": "temperature [°C]",
        "exposure": "exposure [s]",
    }.get(dim, dim)
    names = [f"{value:g}".replace("-", "−") for value in measured[dim].values]
    if dim != setting and setting in measured.coords:
        label += f", {in_words_of(setting, 'ISO')}"
        names = [f"{name}, {value:g}" for name, value in zip(names, measured[setting].values, strict=True)]
    return pd.Index(names, name=label)


def quantities(*rows: tuple[str, Any, Any, Any]) -> pd.DataFrame:
    """Tabulate quantities: a label, the value, its standard error, and the truth or None.

    In place of a value and its error there may be those of the channels, or several values and None: shown is their
    mean, with the standard error that their errors, or their scatter, give.

    Examples
    --------
    >>> signal = [99.0, 101.0, 100.0, 100.0]
    >>> quantities(("DSNU [e⁻]", [0.8, 1.0], [0.03, 0.04], 0.9), ("signal [e⁻]", signal, None, 100))
                     measured truth
    DSNU [e⁻]     0.900 ± 0.025   0.9
    signal [e⁻]  100.00 ± 0.41   100
    """
    table = {}
    for label, value, error, true in rows:
        values = np.ravel(np.asarray(value, float))
        if error is None:
            error = np.full(values.size, values.std(ddof=1) if values.size > 1 else math.nan)
        table[label] = {"measured": value_text(*map(float, mean_of_channels(values, np.ravel(error))))}
        if true is not None:
            table[label]["truth"] = f"{float(true):,.5g}"
    return pd.DataFrame.from_dict(table, orient="index").fillna("")


def contents(data: xr.Dataset) -> pd.DataFrame:
    """Tabulate what a result holds: a row for each quantity with its unit, what it is, and how many numbers it has.

    Examples
    --------
    >>> light = xr.DataArray(np.zeros((2, 3)), dims=("y", "x"), attrs={"units": "electron", "long_name": "light"})
    >>> contents(xr.Dataset({"signal": light}))
            unit what it is           size
    signal    e⁻      light  2 rows × 3 columns
    """
    names = {"frame": " frames", "channel": " channels", "y": " rows", "x": " columns", "term": " terms"}
    names |= {"axis": " axes", "block_y": "", "block_x": " blocks"}
    rows = {
        str(name): {
            "unit": unit_text(one.attrs.get("units", "1")),
            "what it is": one.attrs.get("long_name", ""),
            "size": " × ".join(f"{count:,}{names.get(str(dim), f' {dim}')}" for dim, count in one.sizes.items()) or "1",
        }
        for name, one in data.data_vars.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_two_darks(darks: Darks) -> pd.DataFrame:
    """Compare the darks of one setting whose temperatures lie furthest apart: as they are, and divided by time.

    The doubling temperature is ΔT/log₂(ratio): wrong from the dark signals of different exposures, right from the dark
    currents.
    """
    signal = darks.signal.isel(group=np.flatnonzero(np.isfinite(darks.signal["dark_signal"])))
    dim = setting_dim(signal)
    iso = signal[dim].values
    reach = {one: np.ptp(signal["temperature"].values[iso == one]) for one in np.unique(iso)}
    best = max(reach, key=reach.__getitem__, default=math.nan)
    if not reach.get(best):
        raise WorkbenchError("these darks are of one temperature; shoot some with the camera much colder or warmer")
    group = signal.isel(group=np.flatnonzero(iso == best)).sortby("temperature").isel(group=[0, -1])
    names = ("temperature", "exposure", "dark_signal", "dark_signal_error")
    celsius, times, signals, errors = (group[name].values for name in names)
    rows = {
        f"{temperature_text(at)}, {seconds:g} s, {describe({dim: best})}": (
            value_text(value, error), value_text(value / seconds, error / seconds),
        )
        for at, seconds, value, error in zip(celsius, times, signals, errors, strict=True)
    }  # fmt: skip
    wrong, right = (np.ptp(celsius) / math.log2(part[1] / part[0]) for part in (signals, signals / times))
    rows["doubling temperature from these"] = (f"{wrong:.1f} K (wrong)", f"{right:.1f} K")
    return pd.DataFrame.from_dict(rows, orient="index", columns=["dark signal [e⁻]", "divided by time [e⁻/s]"])
