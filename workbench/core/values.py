"""Measured values and settings as text and as JSON, units as text, and attributes that are lists."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import Guess
from .settings import SETTING

_SYMBOLS = {"electron": "e⁻", "adu": "ADU", "deg_C": "°C", "arcsec": "″"}
_POWERS = {"**2": "²", "**3": "³"}
SHUTTER_PARTS = (
    *(8000, 6400, 5000, 4000, 3200, 2500, 2000, 1600, 1250, 1000, 800, 640, 500, 400, 320, 250, 200, 160, 125, 100),
    *(80, 60, 50, 40, 30, 25, 20, 15, 13, 10, 8, 6, 5, 4),
)  # of a second, in third stops, as cameras mark them
SHUTTER_ERROR = 0.03  # 1/125 s is really 1/128 s, and recorded as either
AT_LEAST = "at least"  # of a quantity that is a lower bound


def is_simulated(camera: str) -> bool:
    """Return whether a camera's name says that its frames are simulated.

    Examples
    --------
    >>> is_simulated("NIKON D7000 (simulated)"), is_simulated("NIKON D7000")
    (True, False)
    """
    return "simulated" in (camera or "").casefold()


def value_text(value: float, error: float | None = None, unit: str = "") -> str:
    """Write a value with its standard error to two figures of the error, or without an error to three figures.

    Parameters
    ----------
    value, error
        In the same unit; an error that is None, NaN or not positive is left out, an infinite one is that of a bound:
        the quantity is at least the value.
    unit
        As it is to be shown; see `unit_text`.

    Examples
    --------
    >>> value_text(2.49312, 0.0123, "e⁻/ADU"), value_text(199.4, 2.61), value_text(31234.0, 250.0, "e⁻")
    ('2.493 ± 0.012 e⁻/ADU', '199.4 ± 2.6', '31,230 ± 250 e⁻')
    >>> value_text(0.1234), value_text(float("nan")), value_text(31234.0, float("inf"), "e⁻")
    ('0.123', 'not measured', '≥ 31,234 e⁻')
    """
    tail = f" {unit}" if unit else ""
    if not math.isfinite(value):
        return "not measured"
    if error is None or not math.isfinite(error) or error <= 0:
        digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{'≥ ' if error == math.inf else ''}{round(value, digits):,.{digits}f}{tail}"
    rounded = float(f"{error:.1e}")  # 0.0998 is written 0.10
    digits = 1 - math.floor(math.log10(rounded))
    shown = max(digits, 0)
    return f"{round(value, digits):,.{shown}f} ± {rounded:,.{shown}f}{tail}"


def unit_text(units: str) -> str:
    """Return a unit as it is shown to readers, from its name in a ``units`` attribute (which astropy and pint parse).

    Examples
    --------
    >>> [unit_text(units) for units in ("electron / adu", "electron / (s pix)", "adu**2", "1 / electron", "pix", "1")]
    ['e⁻/ADU', 'e⁻/s/pixel', 'ADU²', '1/e⁻', 'px', '']
    >>> unit_text("e-/s"), unit_text("ADU"), unit_text("electron**2")
    ('e⁻/s', 'ADU', '(e⁻)²')
    """
    units = re.sub(" ?/ ?", " / ", units.replace("e-", "electron"))
    if units in ("", "1"):
        return ""
    parts = [part.strip("()") for part in units.split(" / ")]
    names = [parts[0], *(name for part in parts[1:] for name in part.split())]
    shown = []
    for name in names:
        for power, sign in _POWERS.items():
            name = name.replace(power, sign)
        base = name.rstrip("²³")
        pixel = "px" if len(names) == 1 or names[0] == "1" else "pixel"
        symbol = pixel if base == "pix" else _SYMBOLS.get(base, base)
        power = name[len(base) :]
        shown.append(f"({symbol}){power}" if power and not symbol.isalpha() else symbol + power)
    return "/".join(shown)


def json_unit(units: str) -> str:
    """Return a unit as ``sensor.json`` has it: as `unit_text`, electrons in plain ASCII.

    Examples
    --------
    >>> json_unit("electron / adu")
    'e-/ADU'
    """
    return unit_text(units).replace("e⁻", "e-")


def unit_registry() -> Any:
    """Return a pint registry that knows the units of this package: electron, adu, photon and pix as well as pint's own.

    ``dataset.pint.quantify(unit_registry=unit_registry())`` then works (with the package pint-xarray).

    Raises
    ------
    ImportError
        If pint is not installed (``pip install "astrophoto-workbench[units]"``).
    """
    import pint

    registry: Any = pint.UnitRegistry(force_ndarray_like=True)
    for name in ("electron", "adu", "photon"):
        registry.define(f"{name} = [{name}s]")
    registry.define("@alias pixel = pix")
    return registry


def json_number(value: float) -> float | int | None:
    """Return a number as JSON has it: null for what is not finite, whole numbers without a point."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def json_quantity(value: float, error: float, unit: str) -> dict[str, Any] | None:
    """Return a value with its error and unit as JSON has them; None where it is not measured.

    A lower bound, whose error is infinite, has no error and ``"bound": "at least"``.
    """
    if not math.isfinite(value):
        return None
    bound = {"bound": AT_LEAST} if error == math.inf else {}
    return {"value": float(value), "error": float(error) if math.isfinite(error) else None, "unit": unit} | bound


def error_of(quantity: Mapping[str, Any]) -> float:
    """Return the error of a quantity as JSON has it: NaN where none is known, infinity for a lower bound."""
    error = math.inf if quantity.get("bound") == AT_LEAST else quantity["error"]
    return math.nan if error is None else float(error)


def setting_text(quantity: Mapping[str, Any], *, why: bool = False) -> str:
    """Return the setting and channel of a quantity of `core.results.at_lowest_iso`, with the reason for the channel.

    Examples
    --------
    >>> setting_text({"iso": 100, "channel": "G1"}), setting_text({"iso": None, "channel": "mono"})
    ('ISO 100, G1', '')
    >>> setting_text({"gain_setting": 0, "channel": "mono"})
    'gain setting 0'
    >>> setting_text({"iso": 100, "channel": "G1"}, why=True)
    'ISO 100, G1: cameras may multiply red and blue, green never'
    """
    channel = quantity["channel"]
    known = {name: quantity[name] for name in SETTING if quantity.get(name) is not None}
    text = ", ".join([*([describe(known)] if known else []), *([] if channel == "mono" else [channel])])
    return text + (": cameras may multiply red and blue, green never" if why and channel in ("G1", "G2", "G") else "")


def joined_lines(lines: Iterable[str]) -> str:
    r"""Return texts as one attribute, a line each: netCDF and zarr keep text as it is, and no list of one or none.

    Examples
    --------
    >>> joined_lines(["no darks", "no flats"])
    'no darks\nno flats'
    """
    return "\n".join(str(line).replace("\n", " ") for line in lines)


def attribute_lines(attrs: Mapping[str, Any], name: str) -> list[str]:
    """Return the texts of an attribute that `joined_lines` wrote, or that is a list; none where it is missing.

    Examples
    --------
    >>> attribute_lines({"warnings": "no darks"}, "warnings"), attribute_lines({}, "warnings")
    (['no darks'], [])
    """
    value = attrs.get(name, ())
    return value.splitlines() if isinstance(value, str) else [str(line) for line in value]


def plain_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as netCDF and zarr keep them: text, numbers and arrays of numbers.

    Texts become lines (`attribute_lines`), dicts JSON (`attribute_dict`), truth values 1 or 0; None is left out.

    Examples
    --------
    >>> plain_attributes({"history": ["stacked"], "chi_square": {"R": 1.0}, "simulated": True, "gain": [0.5]})
    {'history': 'stacked', 'chi_square': '{"R": 1.0}', 'simulated': 1, 'gain': 0.5}
    """
    plain: dict[str, Any] = {}
    for name, value in attrs.items():
        if isinstance(value, Mapping):
            plain[name] = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            plain[name] = joined_lines(value)
        elif isinstance(value, (list, tuple, np.ndarray)):
            plain[name] = np.asarray(value) if np.size(value) > 1 else float(np.ravel(value)[0])
        elif value is not None:
            plain[name] = int(value) if isinstance(value, bool) else value
    return plain


def attribute_dict(attrs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the dict of an attribute that is JSON text, as netCDF and zarr keep it; empty where it is missing.

    Examples
    --------
    >>> attribute_dict({"blocks": '{"prnu": {"value": 0.5}}'}, "blocks"), attribute_dict({}, "blocks")
    ({'prnu': {'value': 0.5}}, {})
    """
    return json.loads(attrs.get(name) or "{}")


def temperature_text(temperature: float) -> str:
    """Write a temperature [°C], or that there is none.

    Examples
    --------
    >>> temperature_text(-5.0), temperature_text(float("nan"))
    ('−5 °C', 'temperature not recorded')
    """
    known = math.isfinite(float(temperature))
    return f"{float(temperature):g} °C".replace("-", "−") if known else "temperature not recorded"


def channel_warnings(
    what: str, setting: Mapping[str, Any], channels: Sequence[str], problems: Sequence[str]
) -> list[str]:
    """Return one warning for each problem that channels have at a setting, with the channels that have it.

    Examples
    --------
    >>> channel_warnings("gain", {"iso": 100}, ["R", "G1", "G2"], ["too dark", "", "too dark"])
    ['gain at ISO 100 (R, G2): too dark']
    """
    named: dict[str, list[str]] = {}
    for channel, problem in zip(channels, problems, strict=True):
        if problem:
            named.setdefault(problem, []).append(str(channel))
    warnings: list[str] = []
    for text, names in named.items():
        where = f"{what} at {describe(setting)} ({', '.join(names)}): "
        if isinstance(text, Guess):
            warnings.append(Guess(where + text.facts, text[len(text.facts) + 2 :], text.blamed))
        else:
            warnings.append(where + text)
    return warnings


def shutter(time: float) -> str:
    """Write an exposure as a camera does.

    Examples
    --------
    >>> shutter(1 / 125), shutter(2.5), shutter(300), shutter(0.0034), shutter(0.0), shutter(float("nan"))
    ('1/125 s', '2.5 s', '300 s', '0.0034 s', 'shortest', '')
    """
    if math.isnan(time):
        return ""
    if time <= 0:
        return "shortest"
    part = next((part for part in SHUTTER_PARTS if abs(time * part - 1) < SHUTTER_ERROR), None)
    return f"{float(f'{time:.3g}'):g} s" if part is None else f"1/{part} s"


def describe(setting: Mapping[str, Any]) -> str:
    """Write a setting as text, without what is not known: ``ISO 100, 1/30 s, f/5.6, 20 °C``.

    An ISO that is not known is left out where there is a gain setting, as is binning of 1.

    Examples
    --------
    >>> describe({"iso": 100, "exposure": 1 / 30, "aperture": float("nan")})
    'ISO 100, 1/30 s'
    >>> describe({"iso": float("nan"), "gain_setting": 0, "offset_setting": 50, "binning": 2, "readout_mode": "Fast"})
    'gain setting 0, offset setting 50, 2 x 2 binning, readout mode Fast'
    """
    words = []
    for name, value in setting.items():
        known = bool(value) if isinstance(value, str) else value is not None and not np.isnan(value)
        if name == "iso" and not known and math.isnan(setting.get("gain_setting", math.nan)):
            words.append("ISO not stated")
        elif known and not (name == "binning" and value == 1):
            words.append(_SETTING_WORDS[name](value))
    return ", ".join(words) or "settings not stated"


_SETTING_WORDS: dict[str, Callable[[Any], str]] = {
    "iso": "ISO {:.10g}".format,
    "gain_setting": "gain setting {:g}".format,
    "offset_setting": "offset setting {:g}".format,
    "readout_mode": "readout mode {}".format,
    "binning": "{0:g} x {0:g} binning".format,
    "window": "window from {}".format,
    "filter": "filter {}".format,
    "exposure": lambda value: shutter(value) if value > 0 else "0 s",
    "aperture": "f/{:g}".format,
    "temperature": "{:g} °C".format,
    "rotation": "rotated by {:g}°".format,
}


def listed(names: Sequence[str] | np.ndarray, at_most: int = 4) -> str:
    """Join file names for a message, the first few and how many more."""
    shown = [str(name) or "a frame without a name" for name in names[:at_most]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
