"""The sensor report: one page with everything that was measured, fit for printing and for posting.

It works without a network: pictures, numbers and the data behind them are all inside.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from ..charts.registry import REGISTRY, Chart, source
from ..core.cube import evenly
from ..core.errors import WorkbenchError, said_of
from ..core.files import check_target, whole_file
from ..core.noise import mean_at_settings, mean_of_channels
from ..core.results import at_lowest_iso
from ..core.sensor_file import sensor_text
from ..core.settings import TITLES, in_words_of, setting_dim
from ..core.values import (
    attribute_dict,
    attribute_lines,
    describe,
    error_of,
    setting_text,
    temperature_text,
    unit_text,
    value_text,
)
from ..fidelity.card import TESTS
from ..finish.files import read_picture
from ..finish.zero_point import stack_depth
from ..pipelines.characterization import Characterization, written_table
from .pages import template
from .write import pictures, tables

MOST_BYTES = 3_000_000
_AT_ISO = {
    "black_level": "black level [ADU]",
    "gain": "gain [e⁻/ADU]",
    "read_noise": "read noise [e⁻ rms]",
    "full_well": "full well [e⁻]",
    "dynamic_range": "dynamic range [stops]",
    "linearity_error": "linearity error [%]",
    "gain_from_darks": "gain from darks [e⁻/ADU]",
}
_DARKS = {
    "setting_iso": "ISO",
    "setting_temperature": "sensor [°C]",
    "dark_current": "dark current [e⁻/s/pixel]",
    "dark_current_median": "median pixel",
    "saturated_pixels": "saturated pixels",
}
_FIRST = ("iso-to-gain", "read-noise-vs-iso", "dark-current-vs-temperature")  # figures of the first two pages
_EMVA = {
    "K": "system gain K: ADU for each electron", "sigma_d": "read noise σ_d", "u_e_min": "faintest detectable signal",
    "u_e_sat": "saturation: brightest unclipped flat",
    "u_I_mean": "dark current, from means", "u_I_var": "dark current, from variances",
    "SNR_max_dB": "best signal-to-noise ratio",
    "DR_dB": "dynamic range", "LE_min": "linearity error, lowest", "LE_max": "linearity error, highest",
    "PRNU1288_highpass": "PRNU, high-passed",
}  # fmt: skip
_SETTINGS = 4  # of each quantity of the uniformity that the page shows
_FILTERS = {"none": "no", "highpass": "yes"}
_LINES = {"": "", "_row": ", rows", "_col": ", columns", "_pixel": ", pixels"}
_PATTERNS = {"DSNU": "DSNU", "PRNU": "PRNU with vignetting"}
_EMVA |= {f"{name}1288{part}": full + words for name, full in _PATTERNS.items() for part, words in _LINES.items()}
_COLOURS = 256  # of a chart's palette; its PNG is half as large and looks the same


def _figures(result: Characterization, progress: bool) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The figures that can be drawn, and the titles of the others by what is missing."""
    charts = [chart.in_words_of(result) for chart in REGISTRY.values() if chart.needs and not _of_the_sky(chart)]
    figures: list[dict[str, Any]] = []
    missing: dict[str, list[str]] = {}
    for chart in tqdm(charts, desc="report", unit="chart", disable=not progress, leave=False):
        if chart.missing(result):
            if not chart.asked:
                missing.setdefault(chart.shoot, []).append(chart.title)
            continue
        try:
            figures.append(_figure(chart, result))
        except WorkbenchError as problem:
            missing.setdefault(str(problem), []).append(chart.title)
    return figures, missing


def write_report(
    result: Characterization, out: str | Path, *, stack: str | Path | None = None, progress: bool = True
) -> Path:
    """Write the report of a characterization as one HTML file.

    Parameters
    ----------
    result
        From `characterize`; what is missing in it is named on the page, with what to shoot.
    out
        The file to write.
    stack
        A stack with a plate solution, whose zero point, limiting magnitude and sky brightness join the numbers.

    Returns
    -------
    The file: HTML without any link to elsewhere, under 3 MB.

    Raises
    ------
    WorkbenchError
        If nothing was measured, the stack gives no photometry, or the file cannot be written.
    """
    out = Path(out)
    check_target(out, "HTML file")
    sky = list(_sky_cards(Path(stack))) if stack is not None else []
    figures, missing = _figures(result, progress)
    if not figures and not result.sensor.sizes[setting_dim(result.sensor)]:
        raise WorkbenchError("these frames give no measurement to report; `workbench plan` says what to shoot")
    sensor = result.sensor
    page = template("report").render(
        camera=result.camera or "unknown camera",
        simulated=result.simulated,
        source=source(result),
        cards=[*_cards(sensor), *sky],
        tables=list(_tables(sensor)),
        first=[figure for figure in figures if figure["id"] in _FIRST],
        more=[figure for figure in figures if figure["id"] not in _FIRST],
        missing=missing,
        warnings=[str(text) for text in result.warnings],
        sensor=_data_address(sensor_text(sensor).encode(), "application/json"),
    )
    content = page.encode()
    if len(content) > MOST_BYTES:
        raise WorkbenchError(f"the report takes {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:g} MB are meant")
    with whole_file(out, advice="choose another place") as part:
        part.write_bytes(content)
    return out


def _of_the_sky(chart: Chart) -> bool:
    """Whether a chart is of the lights, not of the sensor."""
    return chart.heading == "Planning" or any(need.startswith("lights.") for need in chart.needs)


def _figure(chart: Chart, result: Characterization) -> dict[str, str]:
    """A chart as a picture in the page, with its caption and its numbers."""
    from PIL import Image

    drawn, caption = chart.draw(result), chart.caption(result)
    png, _ = pictures(drawn, chart.title, caption)
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            small, "PNG", optimize=True
        )
    # pictures pixel by pixel would make the page too large: `workbench charts` writes them
    numbers = tables(drawn, caption).get(".csv") if chart.numbers else None
    return {
        "id": chart.id,
        "title": chart.title,
        "caption": caption.text,
        "alt": caption.alt,
        "picture": _data_address(small.getvalue(), "image/png"),
        "numbers": _data_address(numbers.encode(), "text/csv") if numbers else "",
    }


def _data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _cards(sensor: xr.Dataset) -> Iterator[tuple[str, str, str]]:
    """The headline numbers: what it is, the value with its error, where it holds."""
    blocks = attribute_dict(sensor.attrs, "blocks")
    reference = float(sensor["reference_temperature"])
    where = f"at {reference:.3g} °C" if math.isfinite(reference) else ""
    setting = in_words_of(setting_dim(sensor), "ISO ")
    yield from _scalar(sensor, "unity_gain_iso", "unity gain", before=setting)
    yield from _best(sensor, "read_noise", "least read noise", "e⁻ rms", np.nanargmin)
    yield from _scalar(sensor, "invariance_iso", "nothing gained above", "read noise within 5 % of its least", setting)
    if well := at_lowest_iso(sensor, "full_well") if "full_well" in sensor else None:
        yield "full well", value_text(well["value"], error_of(well), "e⁻"), setting_text(well, why=True)
    yield from _best(sensor, "dynamic_range", "dynamic range", "stops", np.nanargmax)
    yield from _scalar(sensor, "dark_current_reference", "dark current", where, unit="e⁻/s/pixel")
    yield from _scalar(sensor, "doubling_temperature", "dark current doubles every", unit="K")
    yield from _scalar(sensor, "activation_energy", "activation energy", "of the dark current", unit="eV")
    for name, title in (("prnu", "PRNU"), ("dsnu", "DSNU")):
        block = blocks.get(name)
        if block and block.get("value") is not None:
            yield title, value_text(block["value"], block["error"], unit_text(block["unit"])), _place(block)
    if fidelity := blocks.get("fidelity"):
        yield "the raw file is", str(fidelity["verdict"]), _multipliers(fidelity)


def _sky_cards(path: Path) -> Iterator[tuple[str, str, str]]:
    """How deep a stack reaches, by its catalogued stars: as `_cards`."""
    try:
        picture = read_picture(path)
        depth = stack_depth(picture)
    except WorkbenchError as problem:
        raise WorkbenchError(said_of(path, str(problem))) from problem
    where = f"{path.name}: {depth['stars']} catalogued stars, Gaia G"
    for name, title, unit, meaning in (
        ("zero_point", "zero point", "mag", "a star that gives 1 e⁻ in a second"),
        ("limiting_magnitude", "limiting magnitude", "mag", "5 σ above the noise"),
        ("sky_brightness", "sky brightness", "mag/arcsec²", "between the stars"),
    ):
        if math.isfinite(depth[name][0]):
            yield title, value_text(*depth[name], unit), f"{meaning}; {where}"
    for line in attribute_lines(picture.attrs, "history"):
        if line.startswith("panel "):
            title, _, text = line.partition(": ")
            yield title, text, f"of the mosaic; what a seam may show is both panels' errors; {path.name}"


def _scalar(
    sensor: xr.Dataset, name: str, title: str, where: str = "", before: str = "", unit: str = ""
) -> Iterator[tuple[str, str, str]]:
    if name in sensor and math.isfinite(float(sensor[name])):
        yield title, before + value_text(float(sensor[name]), float(sensor[f"{name}_error"]), unit), where


def _best(
    sensor: xr.Dataset, name: str, title: str, unit: str, pick: Callable[..., Any]
) -> Iterator[tuple[str, str, str]]:
    """The mean of the channels at the best setting."""
    values, errors = mean_at_settings(sensor, name) if name in sensor else np.empty((2, 0))
    if np.isfinite(values).any():
        place, dim = int(pick(values)), setting_dim(sensor)
        where = f"at {describe({dim: sensor[dim].values[place]})}, mean of the channels (sensor.json has all)"
        yield title, value_text(float(values[place]), float(errors[place]), unit), where


def _tables(sensor: xr.Dataset) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables of words with their titles: settings, dark current, uniformity, defects, EMVA 1288, raw fidelity."""
    known = {name: title for name, title in _AT_ISO.items() if np.isfinite(sensor.get(name, np.nan)).any()}
    yield (
        in_words_of(setting_dim(sensor), "At each ISO"),
        written_table(sensor, {"iso": "ISO", "channel": "channel"} | known),
    )
    yield "Dark current", written_table(sensor, _DARKS)
    blocks = attribute_dict(sensor.attrs, "blocks")
    for table in (_uniformity_table, _defect_table, _emva_table, _fidelity_table):
        yield from table(blocks)


def _uniformity_table(blocks: dict[str, Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The mean of the channels, of each quantity at a few settings."""
    rows = []
    for name, title in (("dsnu", "DSNU"), ("prnu", "PRNU"), ("dcnu", "DCNU")):
        settings: dict[str, list[dict[str, Any]]] = {}
        for block in (blocks.get(name) or {}).get("settings", []):
            if block.get("value") is not None:
                settings.setdefault(_place(block | {"channel": None}), []).append(block)
        for number in evenly(len(settings), _SETTINGS):
            place, channels = list(settings.items())[number]
            parts = [_mean([block.get(part) for block in channels]) for part in ("row", "column", "pixel")]
            value = _mean(channels, unit_text(channels[0]["unit"]))
            rows.append([title, place, value, *parts, _FILTERS.get(channels[0].get("filter"), "–")])
    if rows:
        head = ["", "where", "in all", "rows", "columns", "pixels", "high-pass"]
        yield "Uniformity, mean of the channels (sensor.json has all)", pd.DataFrame(rows, columns=head)


def _mean(channels: list[Any], unit: str = "") -> str:
    """Return the mean of some channels' numbers with its error, as text."""
    if not all(channels):
        return "–"
    value, error = mean_of_channels(*([one[name] for one in channels] for name in ("value", "error")))
    return value_text(float(value), float(error), unit)


def _defect_table(blocks: dict[str, Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    defects = blocks.get("defects")
    if defects:
        kinds = ("hot", "warm", "dead", "unstable")
        counts = {kind: defects[kind] for kind in kinds if defects[kind] is not None}
        rows = [[kind, f"{count:,}", f"{1e6 * count / defects['pixels']:.0f}"] for kind, count in counts.items()]
        table = pd.DataFrame(rows, columns=["kind", "pixels", "per million"])
        yield f"Defects among {defects['pixels']:,} pixels", table


def _emva_table(blocks: dict[str, Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    emva = blocks.get("emva")
    if emva:
        rows = [
            [
                _EMVA[name],
                value_text(entry["value"]).replace("-", "−"),
                unit_text(entry.get("unit", "")),
            ]
            for name, entry in emva.items()
            if name in _EMVA and isinstance(entry, dict) and entry.get("value") is not None
        ]
        where = _place(emva) or "settings not stated"
        title = f"By the names of EMVA 1288 (release 4.0), {where}, mean of the channels (sensor.json has all)"
        yield title, pd.DataFrame(rows, columns=["quantity", "value", "unit"])


def _fidelity_table(blocks: dict[str, Any]) -> Iterator[tuple[str, pd.DataFrame]]:
    tests = (blocks.get("fidelity") or {}).get("tests")
    if tests:
        rows = [[TESTS.get(test["test"], test["test"]), test["status"], test["finding"]] for test in tests]
        yield "Is the raw file raw?", pd.DataFrame(rows, columns=["question", "answer", "finding"])


def _place(block: dict[str, Any]) -> str:
    known = {name: block[name] for name in TITLES if block.get(name) is not None}
    parts = [describe(known)] if known else []
    parts += [str(block["channel"])] if block.get("channel") else []
    parts += [temperature_text(block["temperature_c"])] if block.get("temperature_c") is not None else []
    return ", ".join(parts)


def _multipliers(fidelity: dict[str, Any]) -> str:
    changed = [f"{name} × {value:.3g}" for name, value in fidelity["multiplier"].items() if value and value != 1]
    return ", ".join(changed) if changed else "no colour was multiplied"
