"""Dark current against temperature, and the dark library: predicting a master dark for any exposure and temperature.

Two laws are in use, doubling each T_d kelvin and Arrhenius' with its activation energy; both are written here and
nowhere else.  In a dark library every pixel has an offset o and a dark current D of its own, one law f of the
temperature is common to all: y = o + D t f(T).  `workbench.sensor` fits them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from astropy.io import fits

from .errors import FrameReadError, WorkbenchError
from .files import whole_file
from .fits_cards import ascii_text, put_seal, require_sealed, seal
from .mosaic import channel_index, planes, put_plane
from .values import attribute_lines

BOLTZMANN = 8.617333262e-5  # eV/K (CODATA 2018)
THERMOMETER = 0.5  # K: what a stated temperature is typically off
TYPICAL_DOUBLING = 6.0  # K: usual for silicon; to order darks and to word warnings, never to correct
VERSION = 1
_ZERO_CELSIUS = 273.15  # K
_NEAR = 2.0  # K: a dark current measured so near stands for that of a temperature where the law is not known
_APART = 1.0  # K: a library of one temperature predicts no further than this
_MAPS = {"offset": "OFFSET", "dark_current": "DARK", "lost": "LOST"}
_TABLE = ("weight", "seconds", "exposure", "temperature", "frames")
# where the fields of a `DarkLaw` stand in the Dataset of a measured sensor
LAW_QUANTITIES = {
    "doubling": ("doubling_temperature", "doubling_temperature_error", "dark_current_reference",
                 "dark_current_reference_error", "reference_temperature", "doubling_correlation"),
    "arrhenius": ("activation_energy", "activation_energy_error", "dark_current_reference_arrhenius",
                  "dark_current_reference_arrhenius_error", "reference_temperature", "activation_correlation"),
}  # fmt: skip


class DarkLaw(NamedTuple):
    """Dark current against temperature, D(T) = D_ref f(T), with the errors of its fit; f is `law_factor`.

    Attributes
    ----------
    name
        ``doubling``, ``arrhenius``, or ``none``: the same at all temperatures.
    value, value_error
        T_d [K] or ΔE [eV].
    current, current_error
        D_ref [e⁻/s/pixel or ADU/s].
    reference
        T_ref [°C].
    correlation
        Of the errors of `current` and `value`, -1 to 1.
    """

    name: str
    value: float
    value_error: float
    current: float
    current_error: float
    reference: float
    correlation: float = 0.0


def law_abscissa(name: str, temperature: Any, reference: float) -> np.ndarray:
    """Return what ln D is a line on: T − T_ref [K] (doubling), or 1/kT_ref − 1/kT [1/eV] (Arrhenius, slope ΔE).

    Examples
    --------
    >>> float(law_abscissa("arrhenius", 20.0, 10.0).round(3))
    1.398
    """
    temperature = np.asarray(temperature, float)
    if name == "doubling":
        return temperature - reference
    if name == "arrhenius":
        return (1 / (reference + _ZERO_CELSIUS) - 1 / (temperature + _ZERO_CELSIUS)) / BOLTZMANN
    return np.zeros_like(temperature)


def law_factor(name: str, value: float, temperature: Any, reference: float) -> np.ndarray:
    """Return f(T) = D(T)/D(T_ref): 2^((T − T_ref)/T_d) or exp(−ΔE (1/kT − 1/kT_ref)).

    Parameters
    ----------
    name
        ``doubling``, with `value` T_d [K], or ``arrhenius``, with ΔE [eV], or ``none``: 1 everywhere.
    temperature, reference
        In °C.

    Examples
    --------
    >>> law_factor("doubling", 6.0, np.array([20.0, 26.0]), 20.0).tolist()
    [1.0, 2.0]
    """
    x = law_abscissa(name, temperature, reference)
    return np.exp(np.log(2) * x / value if name == "doubling" else value * x)


def predict_current(laws: Sequence[DarkLaw], temperature: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the dark current at temperatures [°C] by the first of the laws, with its standard error, in its unit.

    (σ_D/D)² = (σ_ref/D_ref)² + (s σ_v)² + 2 ρ s σ_v σ_ref/D_ref + Σ Δ², s = ∂ ln f/∂v, v being T_d or ΔE and ρ the
    correlation of the errors of D_ref and v.  Δ is the logarithm of the ratio to each further law: where darks do not
    exclude a law, its distance counts as an error.

    Examples
    --------
    >>> law = DarkLaw("doubling", 6.0, 0.1, 0.4, 0.01, 20.0, 0.0)
    >>> [round(float(number), 4) for number in predict_current([law], 8.0)]
    [0.1, 0.0034]
    """
    law, temperature = laws[0], np.asarray(temperature, float)
    current = law.current * law_factor(law.name, law.value, temperature, law.reference)
    x = law_abscissa(law.name, temperature, law.reference)
    slope = -np.log(2) * x / law.value**2 if law.name == "doubling" else x  # ∂ ln f/∂v
    level, growth = law.current_error / law.current, law.value_error * slope
    variance = np.maximum(level**2 + growth**2 + 2 * law.correlation * level * growth, 0.0)
    for other in laws[1:]:
        factor = law_factor(other.name, other.value, temperature, other.reference)
        variance += np.log(other.current * factor / current) ** 2
    return current, current * np.sqrt(variance)


def dark_laws(sensor: xr.Dataset, names: Sequence[str] | None = None) -> list[DarkLaw]:
    """Return the laws of a measured sensor, or of `sensor.dark_law`; an empty list without a fit.

    Parameters
    ----------
    names
        Which laws; by default those that the darks do not exclude, the better one first (attribute ``dark_laws``;
        files of earlier versions have the doubling law).
    """
    laws = []
    listed = attribute_lines({"dark_laws": "doubling"} | sensor.attrs, "dark_laws")
    for name in listed if names is None else names:
        law = DarkLaw(name, *(float(sensor.get(key, math.nan)) for key in LAW_QUANTITIES[name]))
        if np.isfinite([law.value, law.reference]).all() and 0 < law.current < math.inf:
            laws.append(DarkLaw(name, *np.nan_to_num(law[1:]).tolist()))
    return laws


def dark_current_at(sensor: xr.Dataset, temperature: float) -> tuple[float, float]:
    """Return the dark current [e⁻/s/pixel] at a temperature [°C] with its standard error; NaN where it is not known.

    By the sensor's law with the law's own error (see `predict_current`); without a law, that of the setting within 2 K.

    Parameters
    ----------
    sensor
        From `workbench.open_sensor` or ``characterize(...).sensor``.

    Examples
    --------
    >>> sensor = xr.Dataset({"doubling_temperature": 6.0, "doubling_temperature_error": 0.1,
    ...                      "dark_current_reference": 0.4, "dark_current_reference_error": 0.01,
    ...                      "reference_temperature": 20.0})
    >>> [round(number, 4) for number in dark_current_at(sensor, 8.0)]
    [0.1, 0.0034]
    """
    if math.isnan(temperature):
        return math.nan, math.nan
    laws = dark_laws(sensor)
    if laws:
        value, error = predict_current(laws, temperature)
        return float(value), float(error)
    if "dark_current" in sensor and "setting_temperature" in sensor:
        distance = np.abs(sensor["setting_temperature"].values - temperature)
        near = np.flatnonzero((distance <= _NEAR) & np.isfinite(sensor["dark_current"].values))
        if near.size:
            nearest = near[np.argmin(distance[near])]
            return float(sensor["dark_current"][nearest]), float(sensor["dark_current_error"][nearest])
    return math.nan, math.nan


def predict_dark(library: xr.Dataset, exposure: float, temperature: float = math.nan) -> xr.Dataset:
    """Predict the master dark of an exposure and temperature: what the camera would have saved, with its variance.

    signal = o + D t f(T); its variance is that of the fit: Σ c² (σ_R² + D x/g)/n over the groups of darks that the
    pixel has, c their weights in o + D x, x their own t f(T); the offset of whole frames that wanders, Σ c² w²/n; and
    the law's error, (D x Δ ln f)², Δ ln f counted from the temperature where the darks measure D best, with the
    difference between the two laws where the darks do not exclude either.

    Parameters
    ----------
    library
        From `workbench.sensor.fit_dark_library` or `open_dark_library`.
    exposure, temperature
        In s and °C; a library of darks at one temperature predicts for that one only.

    Returns
    -------
    xarray.Dataset
        ``signal`` [ADU, as read], ``variance`` [ADU²], ``count``, ``unstable`` over (y, x), in the form of a master
        dark, NaN where the pixel saturates in all darks but those of one exposure; its
        attrs hold exposure, temperature and the law's relative error.

    Raises
    ------
    WorkbenchError
        If exposure or temperature are missing, or the library has no law and another temperature.
    """
    attrs = library.attrs
    temperature = _known_temperature(library, exposure, temperature)
    x = exposure * float(law_factor(attrs["law"], attrs["law_value"], temperature, attrs["reference_temperature"]))
    relative = _law_error(attrs, library, temperature)
    signal, variance = _predict_maps(library, x, relative)
    frames = library["frames"].values
    count = np.append(np.cumsum(frames[::-1])[::-1], 0).astype(np.uint16)[library["lost"].values]
    model = np.stack([attrs["read_variance"], attrs["shot_slope"]], axis=-1)
    longest, warnings = library["exposure"].values.max(), []
    if exposure > 1.001 * longest:
        warnings.append(f"{exposure:g} s is longer than the library's darks (up to {longest:g} s)")
    if attrs["law"] != "none":
        low, high = _celsius(library)
        if not low - 2 <= temperature <= high + 2:
            warnings.append(f"{temperature:g} °C is outside the library's darks ({low:g} to {high:g} °C)")
    return xr.Dataset(
        {
            "signal": (("y", "x"), signal, {"units": "adu", "long_name": "predicted master dark"}),
            "variance": (("y", "x"), variance, {"units": "adu**2", "long_name": "variance of a predicted master dark"}),
            "count": (("y", "x"), count, {"long_name": "samples that it rests on"}),
            "unstable": (("y", "x"), np.zeros(signal.shape, bool), {"long_name": "scatters more than it should"}),
        },
        attrs={
            "kind": "dark",
            **{name: attrs[name] for name in ("camera", "cfa_pattern", "black_level", "white_level", "iso")},
            **{name: attrs[name] for name in ("gain_setting",) if name in attrs},
            "exposure": float(exposure),
            "temperature": float(temperature),
            "frames": int(frames.sum()),
            "model": model.astype(float).ravel().tolist(),
            "noise_source": "the dark library's frames",
            "law_error": relative,
            "chi2": [],
            "warnings": warnings,
            "history": [*attrs["history"], f"predicted a master dark of {exposure:g} s at {temperature:g} °C"],
        },
    )


def _known_temperature(library: xr.Dataset, exposure: float, temperature: float) -> float:
    """Return the temperature [°C] to predict for; raise where it or the exposure is missing or out of reach."""
    if not 0 <= exposure <= 86400:
        raise WorkbenchError(f"a dark needs an exposure in seconds, from zero to a day, not {exposure}")
    reference = library.attrs["reference_temperature"]
    if library.attrs["law"] == "none":
        if math.isfinite(temperature) and math.isfinite(reference) and abs(temperature - reference) > _APART:
            raise WorkbenchError(
                f"this library is of darks at {reference:g} °C only, not of {temperature:g} °C; shoot darks at a "
                "second temperature"
            )
        return reference
    if not math.isfinite(temperature):
        low, high = _celsius(library)
        raise WorkbenchError(
            f"the darks of this library are of several temperatures ({low:g} to {high:g} °C): give the temperature"
        )
    return temperature


def _predict_maps(library: xr.Dataset, x: float, relative: float) -> tuple[np.ndarray, np.ndarray]:
    """Return o + D x [ADU] and its variance [ADU²] (y, x), x [s] = t f(T) known to `relative`."""
    attrs = library.attrs
    weight, seconds, frames = (library[name].values for name in ("weight", "seconds", "frames"))
    offset, current, lost = (library[name].values for name in _MAPS)
    read, slope = (np.asarray(attrs[name], float) for name in ("read_variance", "shot_slope"))
    # the groups' weights in o + D x, for each number of groups that a pixel has lost
    kept = np.arange(weight.size) >= np.arange(weight.size + 1)[:, None]
    basis = np.stack([np.ones(seconds.size), seconds])
    squares = (kept * weight * (np.array([1.0, x]) @ line_inverse(weight, seconds) @ basis)) ** 2
    squares /= np.maximum(frames, 1)
    # of each number of groups lost and channel: the constant part, and what the pixel's own dark current adds
    constant = squares.sum(axis=1)[:, None] * (read + attrs["wander"] ** 2)
    growing = (squares * seconds).sum(axis=1)[:, None] * slope
    subtracted = float(attrs["hidden_dark_current"])  # what a camera that subtracts the mean dark takes off
    signal, variance = np.empty((2, *offset.shape), np.float32)
    cell = channel_index(attrs["cfa_pattern"])
    for maps in zip(*(planes(part, cell) for part in (offset, current, lost)), strict=True):
        channel, (o, d, k) = maps[0][0], (plane for _, plane in maps)
        d = d.astype(float)
        put_plane(signal, cell, channel, o + d * x)
        own = (constant[k, channel] + growing[k, channel] * np.maximum(d + subtracted, 0.0)).astype(np.float32)
        own += (x * relative * d) ** 2
        put_plane(variance, cell, channel, own)
    return signal, variance


def line_inverse(weight: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the inverse of [[Σw, Σwt], [Σwt, Σwt²]] (number, 2, 2) for each number of the first groups left out.

    Times (Σwy, Σwty) it is offset and slope of the least-squares line; NaN where the groups do not determine one.
    """
    s0, s1, s2 = (
        np.array([(weight[k:] * seconds[k:] ** power).sum() for k in range(weight.size + 1)]) for power in range(3)
    )
    determinant = s0 * s2 - s1 * s1
    determinant = np.where(determinant > 1e-9 * s0 * s2, determinant, np.nan)
    return np.moveaxis(np.array([[s2, -s1], [-s1, s0]]) / determinant, -1, 0)


def _law_error(attrs: dict[str, Any], library: xr.Dataset, temperature: float) -> float:
    """Return the relative error of f at a temperature, counted from where the darks measure the dark current best.

    That is the mean of their temperatures (of the inverse ones for Arrhenius' law), weighted with the square of the
    dark signal: any law fitted to these darks runs through there.
    """
    name, reference = attrs["law"], attrs["reference_temperature"]
    if name == "none":
        return 0.0
    lever = library["weight"].values * library["seconds"].values ** 2
    warm = library["temperature"].values
    known = np.isfinite(warm) & (lever > 0)
    lever, warm = lever[known] / lever[known].sum(), warm[known]
    if name == "doubling":
        pivot = float((lever * warm).sum())
    else:
        pivot = float(1 / (lever / (warm + _ZERO_CELSIUS)).sum()) - _ZERO_CELSIUS
    start = float(law_factor(name, attrs["law_value"], pivot, reference))
    laws = [DarkLaw(name, attrs["law_value"], attrs["law_error"], start, 0.0, pivot)]
    if attrs["other"]:  # name, constant and level of the law that these darks do not exclude
        other, value, level = attrs["other"]
        laws.append(DarkLaw(other, value, 0.0, level, 0.0, reference))
    current, error = predict_current(laws, temperature)
    return float(error / current)


def _celsius(library: xr.Dataset) -> tuple[float, float]:
    warm = library["temperature"].values[library["exposure"].values > 0]
    return float(np.nanmin(warm)), float(np.nanmax(warm))


def save_dark_library(library: xr.Dataset, path: str | Path) -> Path:
    """Write a dark library as FITS: the maps as extensions, the groups of darks as a table; whole or not at all.

    Raises
    ------
    WorkbenchError
        If it cannot be written.
    """
    path = Path(path)
    header = fits.Header()
    header["WBLIB"] = VERSION, "dark library of the Astrophoto Workbench"
    header["INSTRUME"] = ascii_text(library.attrs["camera"])
    if math.isfinite(library.attrs["iso"]):
        header["ISOSPEED"] = library.attrs["iso"]
    if math.isfinite(library.attrs.get("gain_setting", math.nan)):
        header["GAIN"] = library.attrs["gain_setting"]
    header["WBATTRS"] = json.dumps(
        {**library.attrs, "variables": {n: dict(library[n].attrs) for n in library.data_vars}}
    )
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])  # no picture in it, so that it does not pass for a frame
    hdus += [fits.ImageHDU(library[name].values, name=extension) for name, extension in _MAPS.items()]
    columns = [fits.Column(name=name, format="D", array=library[name].values.astype(float)) for name in _TABLE]
    hdus.append(fits.BinTableHDU.from_columns(columns, name="GROUPS"))
    for hdu in hdus:
        put_seal(hdu.header)
    with whole_file(path, "the dark library", "give another folder") as part:
        hdus.writeto(part)
        seal(part)
    return path


def open_dark_library(path: str | Path) -> xr.Dataset:
    """Return a dark library that `save_dark_library` wrote.

    Raises
    ------
    FrameReadError
        If the file is none, damaged, or of a later version.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            version = hdus[0].header["WBLIB"]
            if version != VERSION:
                raise FrameReadError(path, f"is a dark library of version {version}, not {VERSION}; make it again")
            require_sealed(path)
            attrs = json.loads(hdus[0].header["WBATTRS"])
            described = attrs.pop("variables")
            data: dict[str, Any] = {}
            for name, extension in _MAPS.items():
                values = hdus[extension].data
                data[name] = (("y", "x"), values.astype(values.dtype.newbyteorder("=")), described[name])
            for name in _TABLE:
                data[name] = ("group", np.array(hdus["GROUPS"].data[name], float), described[name])
            return xr.Dataset(data, attrs=attrs)
    except FrameReadError:
        raise
    except FileNotFoundError:
        raise FrameReadError(path, "cannot be found") from None
    except KeyError:
        raise FrameReadError(path, "is not a dark library; give the file that `workbench dark-library` wrote") from None
    except Exception as error:
        raise FrameReadError(path, f"is not a readable dark library ({type(error).__name__}: {error})") from None
