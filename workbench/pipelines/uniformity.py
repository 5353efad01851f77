"""What `characterize` measures beyond the blog's charts: uniformity, defects, EMVA 1288, raw fidelity; as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from .. import fidelity, pixels, sensor
from ..core.cube import take_frames
from ..core.errors import FrameReadError, WorkbenchError
from ..core.pairs import pair_moments
from ..core.parallel import in_threads
from ..core.selection import at_iso, same_iso
from ..core.values import json_number, json_unit
from ..pixels.emva import emva_spatial, emva_temporal, emva_unit
from ..pixels.stacks import FrameStack

_MOST_PIXELS = 180e6  # of bias frames, read once more: ten of 16 Mpx at the lowest ISO, all ISOs of smaller ones
DEFECTS_FILE = "defects.fits"
_OF_SATURATION = ("u_e_sat", "SNR_max", "SNR_max_dB", "SNR_max_bit", "inverse_SNR_max", "DR", "DR_dB", "DR_bit")


@dataclass
class Uniformity:
    """What was found; None for what these frames do not give.

    Attributes
    ----------
    dsnu, prnu
        Results of `sensor.measure_dsnu` and `measure_prnu`.
    defects
        The map, from `sensor.find_sensor_defects`.
    bias_pattern, flat_pattern
        From `sensor.fixed_pattern`, to be looked at.
    emva
        The EMVA 1288 quantities by channel, in `iso`.
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
    warnings: list[str] = field(default_factory=list)


class Patterns(NamedTuple):
    """What bias frames and flats alone tell, and their stacks: bias frames of the lowest ISO, half-saturated flats."""

    found: Uniformity
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
    found = Uniformity()
    zero = None if bias is None else _dsnu(found, bias, gain, progress)
    if zero is not None:  # what its halves have in common is known
        zero = replace(zero, half_difference=None)
    flats = None if flat is None or ptc is None else _prnu(found, flat, ptc, zero, progress)
    if flats is not None:
        flats = replace(flats, half_difference=None)
    return Patterns(found, zero, flats)


def complete(
    patterns: Patterns,
    *,
    read: xr.Dataset | None = None,
    ptc: xr.Dataset | None = None,
    gain: xr.Dataset | None = None,
    darks: sensor.Darks | None = None,
) -> Uniformity:
    """Find the defects and the EMVA 1288 quantities, the second half of `measure_uniformity`."""
    found, zero, flats = patterns
    _defects(found, read, gain, darks, zero, flats)
    if ptc is not None:
        _emva(found, ptc, read, zero, flats, darks)
    return found


def _dsnu(found: Uniformity, bias: xr.DataArray, gain: xr.Dataset | None, progress: Any) -> FrameStack | None:
    """Measure DSNU at the ISO settings that there is time for; return the stack of the lowest."""
    isos = bias["iso"].values
    first, parts, budget = None, [], _MOST_PIXELS
    known = np.unique(isos)  # NaN, where the files state none, is one value
    for iso in known:
        frames = np.flatnonzero(same_iso(isos, iso))
        cost = frames.size * bias.sizes["y"] * bias.sizes["x"]
        if frames.size < 2 or (parts and cost > budget):
            continue
        budget -= cost
        stack = pixels.stack_cube(take_frames(bias, frames), progress=progress)
        parts.append(pixels.measure_dsnu({float(iso): stack}, gain))
        if first is None:
            first = stack
            found.iso = float(iso)
            found.bias_pattern = _pattern(stack, relative=False)
    if not parts:
        found.warnings.append(
            "a single bias frame at each ISO: DSNU is not measured, for its noise cannot be told from its pattern; "
            "shoot ten or more"
        )
        return None
    found.dsnu = xr.concat(parts, "iso", join="outer", combine_attrs="drop_conflicts")
    found.warnings += list(dict.fromkeys(text for part in parts for text in part.attrs["warnings"]))
    return first


def _pattern(stack: FrameStack, *, relative: bool) -> xr.Dataset | None:
    try:
        return pixels.fixed_pattern(stack, relative=relative)
    except WorkbenchError:  # too small for the high-pass; the measurement says so
        return None


def _prnu(
    found: Uniformity, flat: xr.DataArray, ptc: xr.Dataset, zero: FrameStack | None, progress: Any
) -> FrameStack | None:
    chosen = np.isin(flat["filename"].values, pixels.half_saturated(ptc))
    flats = take_frames(flat, chosen)
    black = ptc["black_level"].isel(pair=0).values
    if not np.isfinite(black).all():
        found.warnings.append("PRNU is not measured: the black level is not known; shoot bias frames")
        return None
    try:
        stack = pixels.stack_cube(flats, black=black, progress=progress)
    except FrameReadError:
        raise
    except WorkbenchError as error:  # flats without light
        found.warnings.append(f"PRNU is not measured: {error}")
        return None
    iso = float(flats["iso"].values[0])
    alike = zero is not None and (iso == found.iso or (math.isnan(iso) and math.isnan(found.iso)))
    found.prnu = pixels.measure_prnu(stack, zero if alike else None).assign_coords(iso=iso)
    found.warnings += found.prnu.attrs["warnings"]
    found.flat_pattern = _pattern(stack, relative=True)
    return stack


def _defects(
    found: Uniformity,
    read: xr.Dataset | None,
    gain: xr.Dataset | None,
    darks: sensor.Darks | None,
    zero: FrameStack | None,
    flats: FrameStack | None,
) -> None:
    dark_map = None if darks is None else darks.map
    exposure, noise = math.nan, None
    if dark_map is not None:
        signal = darks.signal
        here = same_iso(signal["iso"].values, dark_map.attrs["iso"])
        here &= same_iso(signal["temperature"].values, dark_map.attrs["temperature"])
        exposure = float(signal["exposure"].values[here].max())
        if read is not None and gain is not None:
            noise = at_iso(read["read_noise_adu"], dark_map.attrs["iso"])
            noise = noise * at_iso(gain["gain"], dark_map.attrs["iso"])
    if dark_map is None and zero is None and flats is None:
        return
    found.defects = pixels.find_sensor_defects(dark_map, noise, exposure, flat=flats, bias=zero)


def _emva(
    found: Uniformity,
    ptc: xr.Dataset,
    read: xr.Dataset | None,
    zero: FrameStack | None,
    flats: FrameStack | None,
    darks: sensor.Darks | None,
) -> None:
    """Fill in the EMVA quantities of the lowest ISO, the exposure standing for the photons, drift removed."""
    isos = ptc["iso"].values
    iso = float(np.nanmin(isos)) if np.isfinite(isos).any() else math.nan
    if read is None or not same_iso(read["iso"].values, iso).any():
        return
    here = ptc.isel(pair=np.flatnonzero(same_iso(isos, iso)))
    one_aperture = np.unique(np.nan_to_num(here["aperture"].values)).size == 1 if "aperture" in here.coords else True
    black, noise = (at_iso(read[name], iso) for name in ("black_level", "read_noise_adu"))
    levels, place = np.unique(here["level"].values, return_inverse=True)
    moments = pair_moments(here["sums_plain"].sum("block").transpose("pair", "channel", "moment").values)
    spatial = zero is not None and zero.count > 1 and (found.iso == iso or (math.isnan(found.iso) and math.isnan(iso)))

    def measure(number: int) -> dict[str, float] | None:
        mean, variance, seconds = (
            np.array([column[place == k].mean() for k in range(levels.size)])
            for column in (
                (moments.mean1 + moments.mean2)[:, number] / 2,
                moments.half_variance[:, number],
                here["exposure"].values,
            )
        )
        order = np.argsort(mean)
        dark_variance = noise[number] ** 2 + 1 / 12  # the read noise is without rounding
        try:
            values = emva_temporal(
                seconds[order], None, mean[order], variance[order], np.full(levels.size, black[number]),
                np.full(levels.size, dark_variance), photons=False,
            )  # fmt: skip
            if spatial:
                values |= emva_spatial(zero, flats, values["K"], number)
        except WorkbenchError:
            return None
        if not one_aperture:
            values |= {"LE_min": math.nan, "LE_max": math.nan}
        if values["index_u_ysat"] == levels.size - 1:  # still rising: the brightest flats do not saturate
            values |= dict.fromkeys(_OF_SATURATION, math.nan)
        # bias frames stand for the darks of the short exposures; the dark current is that of the long darks
        return values | {"u_I_mean": math.nan, "u_I_var": math.nan} | _dark_current(darks)

    names = here["channel"].values.tolist()
    for name, values in zip(names, in_threads(measure, range(len(names))), strict=True):
        if values is not None:
            found.emva[name] = values
    if found.emva:
        found.iso = iso


def _dark_current(darks: sensor.Darks | None) -> dict[str, float]:
    """Return the standard's dark current, of the warmest setting with more than two exposures."""
    if darks is None or not darks.current.sizes["setting"]:
        return {}
    current = darks.current
    enough = np.flatnonzero((current["exposures"].values > 2) & np.isfinite(current["dark_current"].values))
    if not enough.size:
        return {}
    warmest = enough[np.argmax(np.nan_to_num(current["temperature"].values[enough], nan=-300.0))]
    names = {"u_I_mean": "dark_current", "u_I_var": "dark_current_variance"}
    return {emva: float(current[name].values[warmest]) for emva, name in names.items()}


def blocks(found: Uniformity, darks: sensor.Darks | None, report: Any = None, *, written: bool) -> dict[str, Any]:
    """Return the fields of sensor.json: plain numbers, None for what cannot be told.

    Parameters
    ----------
    written
        Whether the defect map lies beside it.
    """
    result: dict[str, Any] = {}
    if found.dsnu is not None:
        frames = found.dsnu["frames"].values
        result["dsnu"] = _headed(
            [
                entry
                for number, iso in enumerate(found.dsnu["iso"].values)
                for entry in _entries(found.dsnu.isel(iso=number), "dsnu", "none", iso, frames[number])
            ]
        )
    if found.prnu is not None:
        iso, frames = found.prnu["iso"].values, found.prnu["frames"].values
        result["prnu"] = _headed(list(_entries(found.prnu, "prnu", "highpass", iso, frames)))
    if darks is not None and darks.current.sizes["setting"]:
        result["dcnu"] = _dcnu(darks.current)
    if found.defects is not None:
        attrs = found.defects.attrs
        result["defects"] = {
            **{kind: attrs["counts"].get(kind) for kind in ("hot", "warm", "dead", "unstable")},
            "pixels": attrs["pixels"],
            "iso": json_number(attrs.get("iso", math.nan)),
            "temperature_c": json_number(attrs.get("temperature", math.nan)),
            "exposure_s": json_number(attrs["exposure"]),
            "thresholds": {name: float(value) for name, value in attrs["thresholds"].items()},
            "file": DEFECTS_FILE if written else None,
        }
    if found.emva:
        names = next(iter(found.emva.values()))
        result["emva"] = {"iso": json_number(found.iso), "light": "exposure time", "drift": "removed"}
        for name in names:
            if name.startswith("index_"):
                continue
            each = {channel: json_number(values.get(name, math.nan)) for channel, values in found.emva.items()}
            known = [value for value in each.values() if value is not None]
            mean = float(np.mean(known)) if known else None
            result["emva"][name] = {"value": mean, "unit": emva_unit(name), "channels": each}
    if report is not None:
        result["fidelity"] = fidelity.fidelity_to_json(report)
    return result


def _headed(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the mean of the channels at the lowest ISO before the entries of all."""
    first = [entry for entry in entries if entry["iso"] == entries[0]["iso"]]

    def mean(parts: list[dict[str, Any] | None]) -> dict[str, Any] | None:
        known = [part for part in parts if part is not None and part["value"] is not None]
        if not known:
            return None
        errors = [part["error"] for part in known if part["error"] is not None]
        return {
            "value": float(np.mean([part["value"] for part in known])),
            "error": float(np.linalg.norm(errors)) / len(known) if len(errors) == len(known) else None,
            "unit": known[0]["unit"],
        }

    names = ("row", "column", "pixel", "unfiltered", "highpass")
    return {
        "iso": first[0]["iso"],
        **(mean(first) or {"value": None, "error": None, "unit": first[0]["unit"]}),
        **{name: mean([entry[name] for entry in first]) for name in names},
        "filter": first[0]["filter"],
        "settings": entries,
    }


def _dcnu(current: xr.Dataset) -> dict[str, Any]:
    """Return the DCNU of every setting, before them that of the warmest at which no pixel saturates."""
    names = {"iso": "iso", "temperature_c": "temperature", "value": "dcnu", "error": "dcnu_error"}
    rows = [
        {key: json_number(current[name].values[i]) for key, name in names.items()} | {"unit": "e-/s"}
        for i in range(current.sizes["setting"])
    ]
    saturated = current["saturated_pixels"].values
    known = [i for i, row in enumerate(rows) if row["value"] is not None] or [0]
    whole = [i for i in known if saturated[i] == 0] or known
    best = max(whole, key=lambda i: -300.0 if rows[i]["temperature_c"] is None else rows[i]["temperature_c"])
    return {**rows[best], "settings": rows}


def _entries(one: xr.Dataset, name: str, wanted: str, iso: Any, frames: Any) -> Iterator[dict[str, Any]]:
    """Yield DSNU or PRNU of each channel as it stands in the file."""
    unit = json_unit(one[name].attrs["units"])
    order = ("channel", "filter", "part")
    values, errors = (one[key].transpose(*order).values for key in (name, f"{name}_error"))
    filters, parts = one["filter"].values.tolist(), one["part"].values.tolist()
    for channel, value, error in zip(one["channel"].values, values, errors, strict=True):
        table = {
            (kind, part): {"value": float(value[i, j]), "error": json_number(error[i, j]), "unit": unit}
            if math.isfinite(value[i, j])
            else None
            for i, kind in enumerate(filters)
            for j, part in enumerate(parts)
        }
        # a picture too small for the high-pass has the plain value
        kind = wanted if table[wanted, "total"] else "none"
        yield {
            "iso": json_number(iso),
            "channel": str(channel),
            **(table[kind, "total"] or {"value": None, "error": None, "unit": unit}),
            **{part: table[kind, part] for part in ("row", "column", "pixel")},
            "filter": kind,
            "unfiltered": table["none", "total"],
            "highpass": table["highpass", "total"],
            "frames": int(frames),
        }
