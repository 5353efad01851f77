"""The measurements of one camera: each by setting and channel, and all of them put together.

A setting is an ISO, or the gain setting of a camera without one: the dimension is ``iso`` or ``gain_setting``.

`QUANTITIES` is the one table of what they are: the Dataset and ``sensor.json`` follow from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .cube import first_green
from .settings import TITLES, in_words_of, setting_dim
from .values import is_simulated, joined_lines, json_number, json_quantity, json_unit

# Further results, kept as they stand in the file: JSON text in the attribute ``blocks``.
BLOCKS = ("dsnu", "prnu", "dcnu", "defects", "emva", "fidelity")
_FILL = {"quantity": np.nan, "number": np.nan, "text": "", "count": 0}


class Quantity(NamedTuple):
    """What is measured of a sensor.

    Attributes
    ----------
    name, title
        Of its variable in the Dataset, and in words.
    units
        As astropy parses them; empty for text and counts.
    source
        The result that it comes from and its name there: ``"gain.gain"``.
    dims
        ``("iso", "channel")`` (``gain_setting`` for a camera without ISO), ``("setting",)`` (of darks) or none.
    form
        ``quantity`` (a second variable ``<name>_error`` has its error), ``number``, ``text`` or ``count``.
    where
        The object of the file that holds it, and its key there: ``"dark_law.activation_energy"``.
    shown
        Its unit in the file, if that says more than ``units``.
    version
        The first version of the file that has it.
    """

    name: str
    title: str
    units: str
    source: str
    dims: tuple[str, ...] = ("iso", "channel")
    form: str = "quantity"
    where: str = ""
    shown: str = ""
    version: int = 2

    @property
    def unit(self) -> str:
        """Return the unit as it stands in the file."""
        return self.shown or json_unit(self.units)

    @property
    def key(self) -> str:
        """Return the key in the file's object."""
        return self.where.rpartition(".")[2] or self.name

    def variables(self) -> Iterator[tuple[str, str, dict[str, str], Any]]:
        """Yield each variable's name, the ending of its name in the source, its attributes and its value if missing."""
        units = {"units": self.units} if self.units else {}
        yield self.name, "", {**units, "long_name": self.title}, _FILL[self.form]
        if self.form == "quantity":
            yield f"{self.name}_error", "_error", {**units, "long_name": f"error of the {self.title}"}, np.nan


MODE = {"offset_setting": np.nan, "readout_mode": "", "binning": np.nan, "window": "", "code_step": 1}  # attributes
_GAIN, _RATE = "electron / adu", "electron / (s pix)"
QUANTITIES = (
    Quantity("black_level", "black level", "adu", "read.black_level", version=1),
    Quantity("gain", "gain", _GAIN, "gain.gain", version=1),
    Quantity("read_noise", "read noise", "electron", "noise.read_noise", shown="e- rms", version=1),
    Quantity("dynamic_range", "dynamic range", "bit", "dynamic_range.dynamic_range", shown="stops"),
    Quantity("full_well", "full well", "electron", "wells.full_well"),
    Quantity("linearity_error", "linearity error", "%", "linearity.linearity_error"),
    Quantity("gain_from_darks", "gain from darks alone", _GAIN, "dark_gain.gain"),
    Quantity("curvature", "curvature of the photon transfer curve", "1 / electron", "curvature.curvature"),
    Quantity("black_level_error_95", "95 % error of black level", "adu", "read.black_level_error_95", form="number"),
    Quantity("read_noise_method", "how the read noise was measured", "", "read.method", form="text"),
    Quantity("full_well_method", "how saturation was found", "", "wells.method", form="text"),
    Quantity("full_well_limit", "what saturates first", "", "wells.limit", form="text"),
    *(
        Quantity(f"linearity_error_{end}", title, "%", f"linearity.linearity_error_{end}", form="number")
        for end, title in (("min", "least deviation from the line"), ("max", "greatest deviation from the line"))
    ),
    Quantity("gain_shared_error", "shared part of the gain's error", _GAIN, "gain.gain_shared_error", form="number"),
    Quantity("gain_from_darks_agrees", "whether the flats' gain agrees", "1", "dark_gain.agrees", form="number"),
    Quantity("frames_used", "frames used", "", "counts.frames", form="count", version=1),
    Quantity("bias_frames", "bias frames used", "", "counts.bias", form="count", version=1),
    Quantity("flat_frames", "flats used", "", "counts.flat", form="count", version=1),
    Quantity("unity_gain_iso", "unity-gain ISO", "1", "unity.unity_gain_iso", (), shown="ISO", version=1),
    *(
        Quantity(name, title, units, f"split.{source}", (), where=f"read_noise_split.{name}", shown=shown)
        for name, source, title, units, shown in (
            ("noise_before_gain", "before_gain", "read noise before the gain", "electron", "e- rms"),
            ("noise_after_gain", "after_gain", "read noise after the gain", "adu", "ADU rms"),
            ("invariance_iso", "invariance_iso", "ISO from which nothing is gained", "1", "ISO"),
        )
    ),
    *(
        Quantity(name, title, units, f"dark_law.{name}", (), form, f"dark_law.{name}")
        for name, title, units, form in (
            ("doubling_temperature", "doubling temperature of the dark current", "K", "quantity"),
            ("dark_current_reference", "dark current at the reference temperature", _RATE, "quantity"),
            ("activation_energy", "activation energy of the dark current", "eV", "quantity"),
            (
                "dark_current_reference_arrhenius",
                "dark current at the reference temperature by the Arrhenius law",
                _RATE,
                "quantity",
            ),
            ("reference_temperature", "reference temperature", "°C", "number"),
            ("doubling_correlation", "correlation of the errors of the doubling law", "1", "number"),
            ("activation_correlation", "correlation of the errors of the Arrhenius law", "1", "number"),
        )
    ),
    *(
        Quantity(name, title, units, f"dark_current.{source}", ("setting",), form, where, version=1)
        for name, source, title, units, form, where in (
            ("dark_current", "dark_current", "dark current", _RATE, "quantity", "value"),
            ("dark_current_median", "median", "median dark current", _RATE, "number", "median"),
            ("saturated_pixels", "saturated_pixels", "saturated pixels left out", "", "count", "saturated_pixels"),
        )
    ),
)
_BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
_RESULTS = {quantity.source.partition(".")[0] for quantity in QUANTITIES} - {"noise", "counts"} | {"ptc"}


def of_dims(*dims: str) -> list[Quantity]:
    """Return the quantities that have these dims."""
    return [quantity for quantity in QUANTITIES if quantity.dims == dims]


def sensor_dataset(
    camera: str,
    *,
    channels: Iterable[str] = (),
    warnings: Iterable[str] = (),
    blocks: Mapping[str, Any] | None = None,
    mode: Mapping[str, Any] | None = None,
    **results: xr.Dataset | None,
) -> xr.Dataset:
    """Put the measurements of one camera together.

    Parameters
    ----------
    channels
        The camera's channels, if none of the results has them.
    blocks
        Further results in the form that they have in the file, under names of `BLOCKS`.
    mode
        The operating mode that was measured: what is known of `MODE`.
    **results
        ``read``, ``ptc``, ``gain``, ``unity``, ``dark_current``, ``dark_law``: results of `sensor.read_noise`,
        `photon_transfer`, `fit_gain`, `unity_gain_iso`, `measure_dark` (``current``), `dark_law`; ``split``, ``wells``,
        ``dynamic_range``, ``linearity``, ``curvature``, ``dark_gain``: of `sensor.split_read_noise`, `full_well`,
        `dynamic_range`, `linearity`, `fit_curvature` and `compare_gains` (or `gain_from_darks`).  None, or left out,
        where these frames do not give it.

    Returns
    -------
    xarray.Dataset
        The variables of `QUANTITIES`, each with its units and its title, those with an error with a second one
        ``<name>_error``: over (iso, channel), over setting (``setting_iso``, ``setting_temperature``: those of the
        darks), and scalars; ``gain_setting`` in place of ``iso`` for a camera without ISO.  ``read_noise`` [e⁻ rms] is
        the product of the read noise in ADU and the gain; ``gain_from_darks_agrees`` is 1, 0 or NaN.  attrs:
        ``camera``, ``simulated`` (1 or 0), the operating mode (`MODE`), ``warnings`` and ``dark_laws`` (those that the
        darks do not exclude) as lines (see `core.values.attribute_lines`), ``blocks`` as JSON.

    Raises
    ------
    TypeError
        If a result of another name is given.
    """
    if not set(results) <= _RESULTS:
        raise TypeError(f"unknown results {sorted(set(results) - _RESULTS)}; known are {sorted(_RESULTS)}")
    given = {name: part for name, part in results.items() if part is not None}
    measured = [given[name] for name in ("read", "gain") if name in given]
    names = [str(name) for name in (measured[0]["channel"].values if measured else channels)]
    dim = "gain_setting" if "gain_setting" in map(setting_dim, given.values()) else "iso"
    settings = np.unique(np.concatenate([part[dim].values for part in measured] or [np.empty(0)]).astype(float))
    axes = {dim: settings, "channel": names}
    given |= _derived(given, dim)
    values = _values(given, axes)
    known = np.isfinite(values["gain_from_darks"]) & np.isfinite(values["gain"])
    values["gain_from_darks_agrees"] = np.where(known, values["gain_from_darks_agrees"], np.nan)
    darks = given.get("dark_current")
    of_darks = {name: np.empty(0) if darks is None else darks[name].values for name in (dim, "temperature")}
    laws = given["dark_law"].attrs.get("dark_laws", ["doubling"]) if "dark_law" in given else []
    attrs = {"camera": camera, "warnings": warnings, "blocks": blocks or {}, "dark_laws": laws, "mode": mode or {}}
    return build_dataset(values, axes, of_darks, attrs)


def _values(given: Mapping[str, xr.Dataset], axes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the values of all variables that the results have, those by setting at these settings and channels."""
    values = {}
    for quantity in QUANTITIES:
        part, _, variable = quantity.source.partition(".")
        for name, ending, _, fill in quantity.variables():
            found = given[part].get(f"{variable}{ending}") if part in given else None
            if quantity.dims == ("iso", "channel"):
                values[name] = _over_settings(found, axes, fill)
            elif found is not None:
                values[name] = found.values
    return values


def build_dataset(
    values: Mapping[str, Any], axes: Mapping[str, Any], settings: Mapping[str, np.ndarray], attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Return the Dataset of `QUANTITIES`.

    Parameters
    ----------
    values
        By variable, in the shape of its dims; what is missing is NaN, 0 or empty.
    axes
        ``iso`` or ``gain_setting``, and ``channel``.
    settings
        The same and ``temperature`` [°C] of the darks' settings.
    attrs
        ``camera``, ``warnings``, ``blocks``, ``dark_laws``, ``mode``.
    """
    dim = next(iter(axes))
    sizes = {dim: len(axes[dim]), "channel": len(axes["channel"]), "setting": len(settings[dim])}
    types: dict[str, type] = {"quantity": float, "number": float, "count": int, "text": object}
    data: dict[str, Any] = {}
    for quantity in QUANTITIES:
        dims = tuple(dim if name == "iso" else name for name in quantity.dims)
        shape = tuple(sizes[name] for name in dims)
        for name, _, about, fill in quantity.variables():
            array: np.ndarray = np.asarray(values.get(name, np.full(shape, fill)), types[quantity.form]).reshape(shape)
            data[name] = (dims, array, about | {"long_name": in_words_of(dim, about["long_name"])})
    coords = {
        dim: (dim, np.asarray(axes[dim], float), {"long_name": TITLES[dim]}),
        "channel": list(axes["channel"]),
        f"setting_{dim}": ("setting", settings[dim].astype(float), {"long_name": TITLES[dim]}),
        "setting_temperature": (
            "setting", settings["temperature"].astype(float), {"units": "°C", "long_name": "sensor temperature"},
        ),
    }  # fmt: skip
    camera = attrs["camera"]
    described: dict[str, Any] = {"camera": camera, "simulated": int(is_simulated(camera)), **MODE, **attrs["mode"]}
    described |= {"long_name": "measured sensor"}
    described |= {name: joined_lines(attrs[name]) for name in ("warnings", "dark_laws")}
    return xr.Dataset(data, coords, described | {"blocks": json.dumps(attrs["blocks"], ensure_ascii=False)})


def _derived(given: Mapping[str, xr.Dataset], dim: str) -> dict[str, xr.Dataset]:
    """Return what follows from several results: the read noise in electrons, the numbers of frames."""
    derived: dict[str, xr.Dataset] = {}
    read, gain = given.get("read"), given.get("gain")
    if read is not None and gain is not None:
        zero, slope = read.reset_coords(drop=True), gain.reset_coords(drop=True)
        noise, factor = zero["read_noise_adu"], slope["gain"]  # arithmetic is over the settings of both
        error = np.hypot(zero["read_noise_adu_error"] * factor, noise * slope["gain_error"])
        derived["noise"] = xr.Dataset({"read_noise": noise * factor, "read_noise_error": error})
    counts = []
    if read is not None:
        frames = read["frames"].reset_coords(drop=True).broadcast_like(read["black_level"])
        counts.append(frames.rename("bias"))
    if gain is not None and "ptc" in given:
        pairs = [given["ptc"][f"filename_{number}"].values for number in (1, 2)]
        here = [same_setting(given["ptc"][dim].values, setting)[:, None] for setting in gain[dim].values]
        flats = [[len({*pairs[0][pair], *pairs[1][pair]}) for pair in (gain["used"].values & some).T] for some in here]
        counts.append(xr.DataArray(flats, {name: gain[name].values for name in (dim, "channel")}, name="flat"))
    if counts:
        merged = xr.merge(counts, join="outer", combine_attrs="drop").fillna(0)
        derived["counts"] = merged.assign(frames=sum(merged.data_vars.values()))
    return derived


def _over_settings(found: xr.DataArray | None, axes: Mapping[str, Any], fill: Any) -> np.ndarray:
    """Return values over (setting, channel) at these settings and channels."""
    if found is None:
        return np.full([len(values) for values in axes.values()], fill)
    plain = found.reset_coords(drop=True).transpose(*axes)
    plain = plain if isinstance(fill, str) else plain.astype(float)
    values = plain.reindex(axes, fill_value=fill).values
    return np.nan_to_num(values) if isinstance(fill, int) else values


def at_lowest_iso(data: xr.Dataset, key: str, more: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return a quantity of the lowest setting that has it, of its first green or the only channel there.

    Green, because cameras that multiply colours before saving leave it as it is: a multiplied colour ends at fewer
    electrons, for the scale's sake and not the pixel's.

    Parameters
    ----------
    data
        Over (iso, channel), or (gain_setting, channel), with ``key`` and its ``_error``.
    more
        Names for what goes with it, and the variable that each is.

    Returns
    -------
    dict or None
        ``iso`` (or ``gain_setting``), ``channel``, ``value``, ``error``, ``unit`` and what was asked for; None where
        nothing is measured.
    """
    dim = setting_dim(data)
    for row in np.argsort(data[dim].values):
        known = data.isel({dim: row, "channel": np.flatnonzero(np.isfinite(data[key].values[row]))})
        if known.sizes["channel"]:
            one = known.sel(channel=first_green(known["channel"].values.tolist()))
            result = {dim: json_number(one[dim].item()), "channel": str(one["channel"].item())}
            result |= json_quantity(one[key].item(), one[f"{key}_error"].item(), _BY_NAME[key].unit) or {}
            for name, source in (more or {}).items():
                value = one[source].item()
                result[name] = (value or None) if isinstance(value, str) else json_number(value)
            return result
    return None


def same_setting(values: np.ndarray, setting: float) -> np.ndarray:
    """Flag where the ISO, gain setting or temperature is this one; frames that state none (NaN) are of one setting."""
    return np.isclose(np.asarray(values, float), float(setting), equal_nan=True)


def at_iso(values: xr.DataArray, iso: float) -> np.ndarray:
    """Return a result's values at an ISO or gain setting, NaN where it was not measured there.

    Examples
    --------
    >>> gain = xr.DataArray([[2.0, 2.1], [1.0, 1.1]], dims=("iso", "channel"), coords={"iso": [100.0, 200.0]})
    >>> at_iso(gain, 200).tolist(), at_iso(gain, 400).tolist()
    ([1.0, 1.1], [nan, nan])
    """
    where = np.flatnonzero(same_setting(values[setting_dim(values)].values, iso))
    return values.values[where[0]] if where.size else np.full(values.shape[1:], np.nan)


def at_isos(values: xr.DataArray, isos: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return a result's values (setting, channel) at several ISO or gain settings, as `at_iso` does at one."""
    found = [at_iso(values, iso) for iso in isos]
    return np.reshape(found, (len(found), *values.shape[1:]))


Table = dict[str, tuple[str, str]]  # of quantities: name, units (empty for text), title


def with_errors(table: Table) -> Table:
    """Return a table of quantities with a row for the error of each."""
    rows: Table = {}
    for name, (units, title) in table.items():
        rows |= {name: (units, title), f"{name}_error": (units, f"error of the {title}")}
    return rows


def described(table: Table, dims: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the quantities of a table, of which `values` has an array each, as variables with units and titles."""
    about = {name: {"units": units} if units else {} for name, (units, _) in table.items()}
    return {name: (dims, values[name], about[name] | {"long_name": title}) for name, (_, title) in table.items()}


def per_channel(
    table: Table,
    rows: Sequence[Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
    channels: Sequence[str],
    **attrs: Any,
) -> xr.Dataset:
    """Return what was measured of each setting and channel as variables over both.

    Parameters
    ----------
    table
        The quantities.
    rows
        For each setting and channel the values found, by name; what is missing is NaN, or empty text.
    settings
        The name of the dimension, ``iso`` or ``gain_setting``, and the settings.
    **attrs
        Of the Dataset.

    Examples
    --------
    >>> found = per_channel({"gain": ("e-/ADU", "gain")}, [[{"gain": 2.0}, {}]], {"iso": [100.0]}, ["G1", "G2"])
    >>> found.gain.values.tolist(), found.gain.attrs["units"]
    ([[2.0, nan]], 'e-/ADU')
    """
    shape, values = (len(rows), len(channels)), {}
    for name, (units, _) in table.items():
        found = [[one.get(name, np.nan if units else "") for one in row] for row in rows]
        values[name] = np.array(found, float if units else object).reshape(shape)
    ((dim, where),) = settings.items()
    coords = {dim: (dim, np.asarray(where, float), {"long_name": TITLES[dim]}), "channel": list(channels)}
    return xr.Dataset(described(table, (dim, "channel"), values), coords, attrs)
