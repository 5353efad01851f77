"""The measurements of one camera, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from .values import is_simulated
from .vocabulary import COUNTS, DETAILS, LAW, LAW_CORRELATIONS, METHODS, NUMBERS, SETTINGS, SPLIT, TITLES


def sensor_dataset(
    camera: str,
    *,
    read: xr.Dataset | None = None,
    ptc: xr.Dataset | None = None,
    gain: xr.Dataset | None = None,
    unity: xr.Dataset | None = None,
    dark_current: xr.Dataset | None = None,
    dark_law: xr.Dataset | None = None,
    split: xr.Dataset | None = None,
    wells: xr.Dataset | None = None,
    dynamic_range: xr.Dataset | None = None,
    linearity: xr.Dataset | None = None,
    curvature: xr.Dataset | None = None,
    dark_gain: xr.Dataset | None = None,
    channels: Iterable[str] = (),
    warnings: Iterable[str] = (),
    blocks: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Put the measurements of one camera together.

    Parameters
    ----------
    read, ptc, gain, unity, dark_current, dark_law
        Results of `sensor.read_noise`, `photon_transfer`, `fit_gain`, `unity_gain_iso`, `dark_current`, `dark_law`;
        None for what these frames do not give.
    split, wells, dynamic_range, linearity, curvature, dark_gain
        Results of `sensor.split_read_noise`, `full_well`, `dynamic_range`, `linearity`, `fit_curvature`, and
        `compare_gains` (or `gain_from_darks`).
    channels
        The camera's channels, if none of the results tells them.
    blocks
        Further results in the form that they have in the file, under names of `BLOCKS`.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``black_level`` [ADU], ``gain`` [e⁻/ADU], ``read_noise`` [e⁻ rms], the product of the read
        noise in ADU and the gain; ``dynamic_range`` [stops], ``full_well`` [e⁻], ``linearity_error`` [%],
        ``gain_from_darks`` [e⁻/ADU], ``curvature`` [1/e⁻], each with ``_error``; ``linearity_error_min`` and ``_max``
        [%], ``gain_from_darks_agrees`` (1, 0, NaN), ``read_noise_method``, ``full_well_method``, ``full_well_limit``;
        ``frames_used``, ``bias_frames``, ``flat_frames``.  Over setting (``setting_iso``, ``setting_temperature``):
        ``dark_current`` [e⁻/s/pixel] with error, ``dark_current_median``, ``saturated_pixels``.  Scalars:
        ``unity_gain_iso``, ``noise_before_gain`` [e⁻ rms], ``noise_after_gain`` [ADU rms], ``invariance_iso``,
        ``doubling_temperature``, ``dark_current_reference``, ``activation_energy``,
        ``dark_current_reference_arrhenius``, each with error, the correlations of their errors
        (``doubling_correlation``, ``activation_correlation``), and ``reference_temperature``.  attrs: ``camera``,
        ``simulated``, ``warnings``, ``blocks``, ``dark_laws`` (those that the darks do not exclude).
    """
    measured = [part for part in (read, gain) if part is not None]
    names = [str(name) for name in (measured[0]["channel"].values if measured else channels)]
    isos = np.unique(np.concatenate([part["iso"].values for part in measured] or [np.empty(0)]).astype(float))
    blank = np.full((isos.size, len(names)), np.nan)
    values = {name: blank.copy() for key in SETTINGS | DETAILS for name in (key, f"{key}_error")}
    values |= {name: blank.copy() for name in NUMBERS} | {name: np.full(blank.shape, "", object) for name in METHODS}
    values |= {name: np.zeros(blank.shape, int) for name in COUNTS}
    for row, iso in enumerate(isos):
        zero = _at(read, iso)
        slope = _at(gain, iso)
        if zero is not None:
            values["black_level"][row] = zero["black_level"]
            values["black_level_error"][row] = zero["black_level_error"]
            values["bias_frames"][row] = int(zero["frames"])
        if slope is not None:
            values["gain"][row], values["gain_error"][row] = slope["gain"], slope["gain_error"]
            values["flat_frames"][row] = _flats_used(ptc, gain, iso, len(names))
        if zero is not None and slope is not None:
            noise, factor = zero["read_noise_adu"].values, slope["gain"].values
            values["read_noise"][row] = noise * factor
            values["read_noise_error"][row] = np.hypot(
                zero["read_noise_adu_error"].values * factor, noise * slope["gain_error"].values
            )
    values["frames_used"] = values["bias_frames"] + values["flat_frames"]
    for part, source, target in (
        (read, "method", "read_noise_method"),
        (wells, "method", "full_well_method"),
        (wells, "limit", "full_well_limit"),
        (linearity, "linearity_error_min", "linearity_error_min"),
        (linearity, "linearity_error_max", "linearity_error_max"),
        (dark_gain, "agrees", "gain_from_darks_agrees"),
        *(
            (part, f"{source}{tail}", f"{target}{tail}")
            for part, source, target in (
                (wells, "full_well", "full_well"),
                (dynamic_range, "dynamic_range", "dynamic_range"),
                (linearity, "linearity_error", "linearity_error"),
                (dark_gain, "gain", "gain_from_darks"),
                (curvature, "curvature", "curvature"),
            )
            for tail in ("", "_error")
        ),
    ):
        for row, iso in enumerate(isos):
            one = None if part is None or source not in part else _at(part, iso)
            if one is not None:
                blank_value = "" if target in METHODS else np.nan
                values[target][row] = one[source].reindex(channel=names, fill_value=blank_value).values
    known = np.isfinite(values["gain_from_darks"]) & np.isfinite(values["gain"])
    values["gain_from_darks_agrees"] = np.where(known, values["gain_from_darks_agrees"], np.nan)
    data: dict[str, Any] = {}
    for name, unit in NUMBERS.items():
        data[name] = (("iso", "channel"), values[name], {"units": unit, "long_name": TITLES[name]})
    for name, text in METHODS.items():
        data[name] = (("iso", "channel"), values[name], {"long_name": text})
    for key, unit in (SETTINGS | DETAILS).items():
        data[key] = (("iso", "channel"), values[key], {"units": unit, "long_name": TITLES[key]})
        data[f"{key}_error"] = (
            ("iso", "channel"),
            values[f"{key}_error"],
            {"units": unit, "long_name": f"error of the {TITLES[key]}"},
        )
    data |= {name: (("iso", "channel"), values[name], {"long_name": text}) for name, text in COUNTS.items()}
    dark = {
        name: np.empty(0)
        for name in ("iso", "temperature", "dark_current", "dark_current_error", "median", "saturated_pixels")
    }
    if dark_current is not None:
        dark = {name: dark_current[name].values.astype(float) for name in dark}
    scalars = {}
    for part, key in (
        (unity, "unity_gain_iso"),
        (dark_law, "doubling_temperature"),
        (dark_law, "dark_current_reference"),
        (dark_law, "activation_energy"),
        (dark_law, "dark_current_reference_arrhenius"),
    ):
        for name in (key, f"{key}_error"):
            scalars[name] = float(part[name]) if part is not None and name in part else np.nan
    scalars["reference_temperature"] = np.nan if dark_law is None else float(dark_law["reference_temperature"])
    for key in LAW_CORRELATIONS:
        scalars[key] = np.nan if dark_law is None else float(dark_law.get(key, np.nan))
    laws = [] if dark_law is None else dark_law.attrs.get("dark_laws", ["doubling"])
    for key, name in (
        ("noise_before_gain", "before_gain"), ("noise_after_gain", "after_gain"), ("invariance_iso", "invariance_iso"),
    ):  # fmt: skip
        for tail in ("", "_error"):
            scalars[f"{key}{tail}"] = np.nan if split is None else float(split[f"{name}{tail}"])
    return assemble(camera, isos, names, data, dark, scalars, list(warnings), dict(blocks or {}), laws)


def assemble(
    camera: str,
    isos: np.ndarray,
    names: list[str],
    data: dict[str, Any],
    dark: dict[str, np.ndarray],
    scalars: dict[str, float],
    warnings: list[str],
    blocks: dict[str, Any],
    dark_laws: list[str],
) -> xr.Dataset:
    """Return the Dataset of measured variables over (iso, channel) in `data`, of darks, and of single numbers."""
    per_second = {"units": "e-/s/pixel"}
    data |= {
        "dark_current": ("setting", dark["dark_current"], per_second | {"long_name": TITLES["dark_current"]}),
        "dark_current_error": ("setting", dark["dark_current_error"], per_second | {"long_name": "its error"}),
        "dark_current_median": ("setting", dark["median"], per_second | {"long_name": TITLES["dark_current_median"]}),
        "saturated_pixels": (
            "setting",
            dark["saturated_pixels"].astype(int),
            {"long_name": "saturated pixels left out"},
        ),
    }
    units = (
        {"unity_gain_iso": "ISO", "reference_temperature": "°C"} | LAW | SPLIT | dict.fromkeys(LAW_CORRELATIONS, "1")
    )
    for name, value in scalars.items():
        key = name.removesuffix("_error")
        title = TITLES[key] if key == name else f"error of the {TITLES[key]}"
        data[name] = ((), float(value), {"units": units[key], "long_name": title})
    coords = {
        "iso": ("iso", isos, {"long_name": "ISO setting"}),
        "channel": names,
        "setting_iso": ("setting", dark["iso"], {"long_name": "ISO setting"}),
        "setting_temperature": ("setting", dark["temperature"], {"units": "°C", "long_name": "sensor temperature"}),
    }
    attrs = {
        "camera": camera,
        "simulated": is_simulated(camera),
        "warnings": warnings,
        "long_name": "measured sensor",
        "blocks": blocks,
        "dark_laws": dark_laws,
    }
    return xr.Dataset(data, coords, attrs)


def _at(part: xr.Dataset | None, iso: float) -> xr.Dataset | None:
    if part is None:
        return None
    values = part["iso"].values
    where = np.flatnonzero(np.isnan(values) if np.isnan(iso) else values == iso)
    return part.isel(iso=where[0]) if where.size else None


def _flats_used(ptc: xr.Dataset | None, gain: xr.Dataset, iso: float, channels: int) -> list[int]:
    """Count the different flats in the pairs that each channel's fit used."""
    if ptc is None:
        return [0] * channels
    here = np.isnan(ptc["iso"].values) if np.isnan(iso) else ptc["iso"].values == iso
    counts = []
    for channel in range(channels):
        used = here & gain["used"].values[:, channel]
        counts.append(len({*ptc["filename_1"].values[used], *ptc["filename_2"].values[used]}))
    return counts
