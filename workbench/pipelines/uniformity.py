"""Uniformity, defects and EMVA 1288 of a sensor, and their form in ``sensor.json``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .. import fidelity, pixels, sensor
from ..core.cube import is_xtrans, take_frames
from ..core.errors import WorkbenchError
from ..core.noise import mean_of_channels
from ..core.pairs import CLIPPED_FRACTION, pair_moments
from ..core.parallel import in_threads
from ..core.results import at_iso, same_setting
from ..core.settings import TITLES, setting_dim
from ..core.values import json_number, json_quantity, json_unit
from ..pixels.emva import emva_dark_current, emva_spatial, emva_temporal, emva_unit
from ..pixels.stacks import FrameStack
from .measurement import as_warning

_MOST_PIXELS = 180e6  # of bias frames, read once more: ten of 16 Mpx at the lowest ISO, all ISOs of smaller ones
DEFECTS_FILE = "defects.fits"
_OF_SATURATION = ("u_e_sat", "SNR_max", "SNR_max_dB", "SNR_max_bit", "inverse_SNR_max", "DR", "DR_dB", "DR_bit")


@dataclass
class Uniformity:
    """Uniformity of a sensor; None for what these frames do not give.

    Attributes
    ----------
    dsnu, prnu
        Results of `pixels.measure_dsnu` and `measure_prnu`.
    defects
        The map, from `pixels.find_sensor_defects`.
    bias_pattern, flat_pattern
        From `pixels.fixed_pattern`, to be looked at.
    emva
        The EMVA 1288 quantities by channel, at the setting `iso` (ISO, or gain setting of a camera without: `dim`).
    warnings
        What is missing, and what to shoot.
    """

    dsnu: xr.Dataset | None = None
    prnu: xr.Dataset | None = None
    defects: xr.DataArray | None = None
    bias_pattern: xr.Dataset | None = None
    flat_pattern: xr.Dataset | None = None
    emva: dict[str, dict[str, float]] = field(default_factory=dict)
    iso: float = math.nan
    dim: str = "iso"
    warnings: list[str] = field(default_factory=list)


class Patterns(NamedTuple):
    """What bias frames and flats alone give, and their stacks: bias frames of the lowest ISO, half-saturated flats."""

    uniformity: Uniformity
    zero: FrameStack | None
    flats: FrameStack | None


def measure_uniformity(
    bias: xr.DataArray | None,
    flat: xr.DataArray | None,
    *,
    read: xr.Dataset | None = None,
    ptc: xr.Dataset | None = None,
    gain: xr.Dataset | None = None,
    darks: sensor.Darks | None = None,
    progress: Any = True,
) -> Uniformity:
    """Measure DSNU, PRNU, defects and the EMVA 1288 quantities of a camera whose photon transfer is known.

    Bias frames are stacked ISO by ISO, the lowest first, as far as some seconds go; PRNU is of the flats nearest to
    half of saturation at the lowest ISO.

    Parameters
    ----------
    bias, flat
        Raw cubes, or None.
    read, ptc, gain, darks
        Results of `sensor.read_noise`, `photon_transfer`, `fit_gain`, `measure_dark`, or None.
    """
    patterns = measure_patterns(bias, flat, ptc=ptc, gain=gain, progress=progress)
    return complete(patterns, read=read, ptc=ptc, gain=gain, darks=darks)


def measure_patterns(
    bias: xr.DataArray | None,
    flat: xr.DataArray | None,
    *,
    ptc: xr.Dataset | None = None,
    gain: xr.Dataset | None = None,
    progress: Any = True,
) -> Patterns:
    """Measure DSNU and PRNU, the first half of `measure_uniformity`."""
    uniformity = Uniformity()
    zero = None if bias is None else _dsnu(uniformity, bias, gain, progress)
    if zero is not None:  # what its halves have in common is known
        zero = replace(zero, half_difference=None)
    flats = None if flat is None or ptc is None else _prnu(uniformity, flat, ptc, zero, progress)
    if flats is not None:
        flats = replace(flats, half_difference=None)
    return Patterns(uniformity, zero, flats)


def complete(
    patterns: Patterns,
    *,
    read: xr.Dataset | None = None,
    ptc: xr.Dataset | None = None,
    gain: xr.Dataset | None = None,
    darks: sensor.Darks | None = None,
) -> Uniformity:
    """Find the defects and the EMVA 1288 quantities, the second half of `measure_uniformity`."""
    uniformity = replace(patterns.uniformity, defects=_defects(patterns, read, gain, darks))
    if uniformity.dsnu is not None and read is not None:
        uniformity = replace(uniformity, dsnu=_unclipped(uniformity.dsnu, read, gain))
    if ptc is None or read is None:
        return uniformity
    settings = ptc[dim := setting_dim(ptc)].values
    lowest = float(np.nanmin(settings)) if np.isfinite(settings).any() else math.nan
    here = dim in read.dims and same_setting(read[dim].values, lowest).any()
    emva = _emva(patterns, ptc, read, darks, lowest) if here else {}
    return replace(uniformity, emva=emva, iso=lowest, dim=dim) if emva else uniformity


def _dsnu(uniformity: Uniformity, bias: xr.DataArray, gain: xr.Dataset | None, progress: Any) -> FrameStack | None:
    """Fill in DSNU at the settings that there is time for; return the stack of the lowest."""
    dim = uniformity.dim = setting_dim(bias)
    settings = bias[dim].values
    first, budget = None, _MOST_PIXELS
    parts: list[xr.Dataset] = []
    for setting in np.unique(settings):  # NaN, where the files state none, is one value
        frames = np.flatnonzero(same_setting(settings, setting))
        cost = frames.size * bias.sizes["y"] * bias.sizes["x"]
        if frames.size < 2 or (parts and cost > budget):
            continue
        budget -= cost
        stack = pixels.stack_cube(take_frames(bias, frames), progress=progress)
        first = first or stack
        parts.append(pixels.measure_dsnu({float(setting): stack}, gain, dim=dim))
        if first is stack:
            uniformity.iso, uniformity.bias_pattern = float(setting), _pattern(stack, relative=False)
    if not parts:
        uniformity.warnings.append(
            "a single bias frame at each setting: DSNU is not measured, for its noise looks like its pattern; "
            "shoot ten or more"
        )
        return None
    uniformity.dsnu = xr.concat(parts, dim, join="outer", combine_attrs="drop_conflicts")
    uniformity.warnings += list(dict.fromkeys(text for part in parts for text in part.attrs["warnings"]))
    return first


def _unclipped(dsnu: xr.Dataset, read: xr.Dataset, gain: xr.Dataset | None) -> xr.Dataset:
    """Return the DSNU with that of the likelihood where bias frames are clipped; its parts are unknown there."""
    dim, dsnu = setting_dim(dsnu), dsnu.copy(deep=True)
    for number, setting in enumerate(dsnu[dim].values):
        clipped = at_iso(read["zero_fraction"], setting) > CLIPPED_FRACTION
        value, error = (at_iso(read[name], setting)[clipped] for name in ("pattern_adu", "pattern_adu_error"))
        factor, factor_error = np.full((2, value.size), np.nan)
        if gain is not None:
            factor, factor_error = (at_iso(gain[name], setting)[clipped] for name in ("gain", "gain_error"))
        found = {
            "dsnu_adu": value,
            "dsnu_adu_error": error,
            "dsnu": factor * value,
            "dsnu_error": np.hypot(factor * error, factor_error * value),
        }
        for name, values in found.items():
            table = dsnu[name].transpose(dim, "channel", "filter", "part").values  # a view
            table[number, clipped] = np.nan
            table[number, clipped, 0, 0] = np.where(np.isfinite(error), values, np.nan)
    return dsnu


def _pattern(stack: FrameStack, *, relative: bool) -> xr.Dataset | None:
    """Return the fixed pattern; None for X-Trans and a picture too small for it, of which the measurement warns."""
    try:
        return pixels.fixed_pattern(stack, relative=relative)
    except WorkbenchError:
        return None


def _prnu(
    uniformity: Uniformity, flat: xr.DataArray, ptc: xr.Dataset, zero: FrameStack | None, progress: Any
) -> FrameStack | None:
    """Fill in PRNU; return the stack of the flats."""
    flats = take_frames(flat, np.isin(flat["filename"].values, pixels.half_saturated(ptc)))
    black = ptc["black_level"].isel(pair=0).values
    if not np.isfinite(black).all():
        uniformity.warnings.append("PRNU is not measured: the black level is not known; shoot bias frames")
        return None
    stack = None
    with as_warning(uniformity.warnings, "PRNU is not measured: "):  # flats without light
        stack = pixels.stack_cube(flats, black=black, progress=progress)
    if stack is None:
        return None
    setting = float(flats[dim := setting_dim(flats)].values[0])
    alike = zero is not None and dim == uniformity.dim and same_setting(np.array([uniformity.iso]), setting).all()
    uniformity.prnu = pixels.measure_prnu(stack, zero if alike else None).assign_coords({dim: setting})
    uniformity.warnings += uniformity.prnu.attrs["warnings"]
    uniformity.flat_pattern = _pattern(stack, relative=True)
    return stack


def _defects(
    patterns: Patterns, read: xr.Dataset | None, gain: xr.Dataset | None, darks: sensor.Darks | None
) -> xr.DataArray | None:
    """Return the map of defects; None without darks, bias frames and flats."""
    dark_map = None if darks is None else darks.map
    if dark_map is None and patterns.zero is None and patterns.flats is None:
        return None
    exposure, noise = math.nan, None
    if darks is not None and dark_map is not None:
        signal, dim = darks.signal, setting_dim(darks.signal)
        setting = dark_map.attrs[dim]
        here = same_setting(signal[dim].values, setting)
        here &= same_setting(signal["temperature"].values, dark_map.attrs["temperature"])
        exposure = float(signal["exposure"].values[here].max())
        if read is not None and gain is not None:
            noise = at_iso(read["read_noise_adu"], setting) * at_iso(gain["gain"], setting)
    return pixels.find_sensor_defects(dark_map, noise, exposure, flat=patterns.flats, bias=patterns.zero)


def _has_spatial_values(patterns: Patterns, read: xr.Dataset, setting: float) -> bool:
    """Whether the pattern of bias frames is known at a setting, and is not clipped there."""
    if (zero := patterns.zero) is None or zero.count < 2 or is_xtrans(zero.pattern):
        return False
    alike = same_setting(np.array([patterns.uniformity.iso]), setting).all()
    return bool(alike and (at_iso(read["zero_fraction"], setting) <= CLIPPED_FRACTION).all())


def _emva(
    patterns: Patterns, ptc: xr.Dataset, read: xr.Dataset, darks: sensor.Darks | None, setting: float
) -> dict[str, dict[str, float]]:
    """Return the EMVA quantities of a setting by channel, the exposure standing for the photons, drift removed."""
    zero, flats = patterns.zero, patterns.flats
    here = ptc.isel(pair=np.flatnonzero(same_setting(ptc[setting_dim(ptc)].values, setting)))
    one_aperture = np.unique(np.nan_to_num(here["aperture"].values)).size == 1 if "aperture" in here.coords else True
    black, noise = (at_iso(read[name], setting) for name in ("black_level", "read_noise_adu"))
    levels, place = np.unique(here["level"].values, return_inverse=True)
    moments = pair_moments(here["sums_plain"].sum("block").transpose("pair", "channel", "moment").values)
    spatial = _has_spatial_values(patterns, read, setting)

    def measure(number: int) -> dict[str, float] | None:
        of_pairs = (moments.mean1 + moments.mean2)[:, number] / 2, moments.half_variance[:, number]
        mean, variance, seconds = (
            np.array([column[place == k].mean() for k in range(levels.size)])
            for column in (*of_pairs, here["exposure"].values)
        )
        order = np.argsort(mean)
        dark_variance = noise[number] ** 2 + 1 / 12  # the read noise is without rounding
        try:
            values = emva_temporal(
                seconds[order], None, mean[order], variance[order], np.full(levels.size, black[number]),
                np.full(levels.size, dark_variance),
            )  # fmt: skip
            if spatial and zero is not None:
                values |= emva_spatial(zero, flats, values["K"], number)
        except WorkbenchError:
            return None
        if not one_aperture:
            values |= {"LE_min": math.nan, "LE_max": math.nan}
        if values["index_u_ysat"] == levels.size - 1:  # still rising: the brightest flats do not saturate
            values |= dict.fromkeys(_OF_SATURATION, math.nan)
        # bias frames stand for the darks of the short exposures; the dark current is that of the long darks
        values |= {"u_I_mean": math.nan, "u_I_var": math.nan}
        return values | emva_dark_current(None if darks is None else darks.current)

    names = here["channel"].values.tolist()
    measured = zip(names, in_threads(measure, range(len(names))), strict=True)
    return {name: values for name, values in measured if values is not None}


def json_blocks(
    uniformity: Uniformity, darks: sensor.Darks | None, report: Any = None, *, written: bool
) -> dict[str, Any]:
    """Return the fields of ``sensor.json``: plain numbers, None for what is not known.

    Parameters
    ----------
    report
        The raw report card, from `fidelity.inspect_frames`.
    written
        Whether the defect map is written next to it.
    """
    blocks: dict[str, Any] = {}
    if uniformity.dsnu is not None:
        dsnu = uniformity.dsnu
        dim = setting_dim(dsnu)
        settings = [dsnu.isel({dim: number}) for number in range(dsnu.sizes[dim])]
        first = settings[0].sel(filter="none", part="total")
        blocks["dsnu"] = _headed(
            [entry for one in settings for entry in _entries(one, "dsnu", "none")],
            (first["dsnu_shared_error"] / first["dsnu"]).values,
        )
    if uniformity.prnu is not None:
        blocks["prnu"] = _headed(list(_entries(uniformity.prnu, "prnu", "highpass")))
    if darks is not None and darks.current.sizes["setting"]:
        blocks["dcnu"] = _dcnu(darks.current)
    if uniformity.defects is not None:
        blocks["defects"] = _defect_entry(uniformity.defects.attrs) | {"file": DEFECTS_FILE if written else None}
    if uniformity.emva:
        blocks["emva"] = {uniformity.dim: json_number(uniformity.iso), "light": "exposure time", "drift": "removed"}
        for name in next(iter(uniformity.emva.values())):
            if not name.startswith("index_"):
                blocks["emva"][name] = _emva_entry(name, uniformity.emva)
    if report is not None:
        blocks["fidelity"] = fidelity.fidelity_to_json(report)
    return blocks


def _defect_entry(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what the map of defects holds, and how they were found."""
    return {
        **{kind: attrs["counts"].get(kind) for kind in ("hot", "warm", "dead", "unstable")},
        "pixels": attrs["pixels"],
        **{name: json_number(attrs[name]) for name in TITLES if name in attrs},
        "temperature_c": json_number(attrs.get("temperature", math.nan)),
        "exposure_s": json_number(attrs["exposure"]),
        "thresholds": {name: float(value) for name, value in attrs["thresholds"].items()},
    }


def _emva_entry(name: str, emva: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return an EMVA quantity: the mean of the channels, and each."""
    each = {channel: json_number(values.get(name, math.nan)) for channel, values in emva.items()}
    known = [value for value in each.values() if value is not None]
    return {"value": float(np.mean(known)) if known else None, "unit": emva_unit(name), "channels": each}


def _headed(entries: list[dict[str, Any]], shared: Any = 0.0) -> dict[str, Any]:
    """Put the mean of the channels at the lowest setting before the entries of all; `shared` is relative (channel)."""
    dim = next(name for name in TITLES if name in entries[0])
    first = [entry for entry in entries if entry[dim] == entries[0][dim]]

    def mean(parts: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
        values, errors = (np.array([(part or {}).get(key) for part in parts], float) for key in ("value", "error"))
        value, error = mean_of_channels(values, errors, np.nan_to_num(values * shared))
        return json_quantity(float(value), float(error), first[0]["unit"])

    names = ("row", "column", "pixel", "unfiltered", "highpass")
    return {
        dim: first[0][dim],
        **(mean(first) or {"value": None, "error": None, "unit": first[0]["unit"]}),
        **{name: mean([entry[name] for entry in first]) for name in names},
        "filter": first[0]["filter"],
        "settings": entries,
    }


def _dcnu(current: xr.Dataset) -> dict[str, Any]:
    """Return the DCNU of every setting, before them that of the warmest at which no pixel saturates."""
    dim = setting_dim(current)
    names = {dim: dim, "temperature_c": "temperature", "value": "dcnu", "error": "dcnu_error"}
    rows: list[dict[str, Any]] = [
        {key: json_number(current[name].values[i]) for key, name in names.items()} | {"unit": "e-/s"}
        for i in range(current.sizes["setting"])
    ]
    saturated = current["saturated_pixels"].values
    known = [i for i, row in enumerate(rows) if row["value"] is not None] or [0]
    whole = [i for i in known if saturated[i] == 0] or known
    best = max(whole, key=lambda i: -300.0 if rows[i]["temperature_c"] is None else rows[i]["temperature_c"])
    return {**rows[best], "settings": rows}


def _entries(one: xr.Dataset, name: str, wanted: str) -> Iterator[dict[str, Any]]:
    """Yield DSNU or PRNU of each channel at one setting as it stands in the file."""
    dim = setting_dim(one)
    setting, frames, unit = one[dim].item(), int(one["frames"]), json_unit(one[name].attrs["units"])
    order = ("channel", "filter", "part")
    values, errors = (one[key].transpose(*order).values for key in (name, f"{name}_error"))
    filters, parts = one["filter"].values.tolist(), one["part"].values.tolist()
    for channel, value, error in zip(one["channel"].values, values, errors, strict=True):
        table = {
            (kind, part): json_quantity(value[i, j], error[i, j], unit)
            for i, kind in enumerate(filters)
            for j, part in enumerate(parts)
        }
        # a picture too small for the high-pass has the plain value
        kind = wanted if table[wanted, "total"] else "none"
        yield {
            dim: json_number(setting),
            "channel": str(channel),
            **(table[kind, "total"] or {"value": None, "error": None, "unit": unit}),
            **{part: table[kind, part] for part in ("row", "column", "pixel")},
            "filter": kind,
            "unfiltered": table["none", "total"],
            "highpass": table["highpass", "total"],
            "frames": frames,
        }
