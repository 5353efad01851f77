"""What charts over settings share: the axis, values along it, several cameras on one, and the words for a setting.

A setting is an ISO, or the gain setting of a camera without one: the dimension of a result is ``iso`` or
``gain_setting``.  Gain is nearly proportional to 1/ISO, so an axis of ISO is logarithmic; gain settings follow no law
that all cameras share, and 0 is one of them, so that axis is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.settings import TITLES, in_words_of, setting_dim
from ..core.values import describe
from . import theme
from .registry import listing
from .theme import MARKERS, SERIES


class SettingAxis(NamedTuple):
    """An axis of settings.

    Attributes
    ----------
    name
        Of the results' dimension: ``iso`` or ``gain_setting``.
    dim
        Of the chart.
    log
        ``x`` for a logarithmic axis, else empty.
    """

    name: str
    dim: hv.Dimension
    log: str

    @property
    def by_iso(self) -> bool:
        """Whether these are ISOs."""
        return self.name == "iso"

    def words(self, text: str) -> str:
        """Return a text that speaks of the ISO in the words of these settings."""
        return in_words_of(self.name, text)

    def scales(self, values: Iterable[float]) -> dict[str, Any]:
        """Return limits that leave air around the settings, and ticks at settings whose labels never touch.

        Examples
        --------
        >>> axis_of("gain_setting").scales([0, 100, 200])
        {'xlim': (-16.0, 216.0), 'xticks': [(0.0, '0'), (100.0, '100'), (200.0, '200')]}
        """
        settings = sorted({float(value) for value in values})
        if self.by_iso:
            return theme.iso_axis(settings)
        room = 0.08 * (settings[-1] - settings[0]) or 1.0
        ticks: list[float] = []
        for value in settings:
            if not ticks or value - ticks[-1] >= room:
                ticks.append(value)
        return {"xlim": (settings[0] - room, settings[-1] + room), "xticks": [(tick, f"{tick:g}") for tick in ticks]}

    def along(self, values: Iterable[float], count: int = 120) -> np.ndarray:
        """Return settings to draw a law at: a little beyond the measured ISOs, between the measured gain settings."""
        if self.by_iso:
            return np.geomspace(*self.scales(values)["xlim"], count)
        return np.linspace(min(values), max(values), count)


def axis_of(data: xr.Dataset | xr.DataArray | str) -> SettingAxis:
    """Return the axis of a result's settings.

    Examples
    --------
    >>> [(axis.name, axis.dim.name, axis.log) for axis in map(axis_of, ("iso", "gain_setting"))]
    [('iso', 'ISO', 'x'), ('gain_setting', 'gain setting', '')]
    """
    name = data if isinstance(data, str) else setting_dim(data)
    return SettingAxis(name, theme.ISO if name == "iso" else theme.GAIN_SETTING, "x" if name == "iso" else "")


def settings_of(data: Any) -> np.ndarray:
    """Return the ISOs, or gain settings, of a result."""
    return data[setting_dim(data)].values.astype(float)


def words_of(data: xr.Dataset | xr.DataArray | Mapping[str, Any]) -> str:
    """Write the setting of a result of one setting, or of its attributes.

    Examples
    --------
    >>> words_of({"iso": 800.0, "exposure": 60.0}), words_of(xr.Dataset(coords={"gain_setting": 0.0}))
    ('ISO 800', 'gain setting 0')
    """
    stated = data.coords if isinstance(data, xr.Dataset | xr.DataArray) else data
    known = {name: float(stated[name]) for name in TITLES if name in stated}
    return describe(known or {"iso": np.nan})


def at_setting(data: xr.Dataset | xr.DataArray | Mapping[str, Any]) -> str:
    """Write at which setting something is, or that it is not stated.

    Examples
    --------
    >>> at_setting({"iso": 800.0}), at_setting({"iso": float("nan")})
    ('at ISO 800', '(ISO not stated)')
    """
    words = words_of(data)
    return f"({words})" if words.endswith("not stated") else f"at {words}"


def ends_text(values: xr.DataArray, text: Callable[[float], str]) -> str:
    """Write the first and last known value along the settings, each with its own; an empty text where none is known."""
    dim = setting_dim(values)
    known = values.dropna(dim)
    ends = dict.fromkeys((0, known.sizes[dim] - 1)) if known.sizes[dim] else ()
    return listing(f"{text(float(known[i]))} {at_setting(known[i])}" for i in ends)


def channels(data: xr.Dataset) -> list[str]:
    """Return the names of the channels, of one too."""
    return [str(name) for name in np.atleast_1d(data["channel"].values)]


def with_setting(data: xr.Dataset) -> xr.Dataset:
    """Leave out what has no ISO or gain setting; a `WorkbenchError` says so if nothing has one."""
    known = np.flatnonzero(np.isfinite(settings_of(data)))
    if not known.size:
        raise WorkbenchError(
            "these frames state no ISO and no gain setting; give one in frames.csv (column iso or gain_setting)"
        )
    return data.isel({setting_dim(data): known})


def series(data: xr.Dataset, name: str, channel: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return setting, value and error of one channel where the value is known."""
    one = data.sel(channel=channel)
    value, error = one[name].values, one[f"{name}_error"].values
    good = np.isfinite(value)
    return settings_of(one)[good], value[good], error[good]


def cameras_panel(
    cameras: Mapping[str, Any], name: str, value: hv.Dimension, *, log: bool = False, inverse: bool = False, **options
) -> hv.Overlay:
    """Draw a quantity of several cameras, or one over it, against their settings: the mean of the channels, with error.

    Each camera, from `open_sensor` or `characterize`, has its name in the legend; one without the quantity is left
    out.  `log` is for the axis of the value; `options` are those of `theme.panel`.

    Raises
    ------
    WorkbenchError
        If no camera has the quantity, or some have ISOs and others gain settings, which share no axis.
    """
    sensors = {camera: getattr(saved, "sensor", saved) for camera, saved in cameras.items()}
    sensors = {camera: one for camera, one in sensors.items() if name in one and np.isfinite(one[name].values).any()}
    axis, shown = _common_axis(sensors), []
    elements = []
    for number, (camera, sensor) in enumerate(sensors.items()):
        setting, error = settings_of(sensor), sensor[f"{name}_error"]
        mean = sensor[name].mean("channel").values
        error = (np.sqrt((error**2).sum("channel")) / sensor[name].count("channel")).values
        measured, error = (1 / mean, error / mean**2) if inverse else (mean, error)
        good = np.isfinite(setting) & np.isfinite(measured)
        look = {"colour": SERIES[number % len(SERIES)], "marker": MARKERS[number % len(MARKERS)], "joined": 1.2}
        known = setting[good], measured[good], error[good]
        elements.append(theme.points(*known, dims=(axis.dim, value), label=camera, **look))
        shown += setting[good].tolist()
    if not shown:
        raise WorkbenchError(f"no {name.replace('_', ' ')} is known of {listing(cameras) or 'any camera'}")
    return theme.panel(elements, log=axis.log + ("y" if log else ""), **axis.scales(shown), **options)


def _common_axis(sensors: Mapping[str, xr.Dataset]) -> SettingAxis:
    """Return the axis of several cameras."""
    names = {camera: setting_dim(sensor) for camera, sensor in sensors.items()}
    if len({*names.values()}) > 1:
        isos, gains = ([camera for camera, name in names.items() if name == dim] for dim in TITLES)
        raise WorkbenchError(
            f"{listing(isos)} {'has' if len(isos) == 1 else 'have'} ISO settings and {listing(gains)} "
            f"{'has' if len(gains) == 1 else 'have'} gain settings, which share no axis; chart them apart"
        )
    return axis_of(next(iter(names.values()), "iso"))
