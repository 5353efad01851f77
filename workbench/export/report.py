"""The sensor report: one page with everything that was measured, fit for printing and for posting.

It works without a network: pictures, numbers and the data behind them are all inside.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tqdm.auto import tqdm

from .. import __version__
from ..charts.registry import REGISTRY, Chart, source
from ..core.errors import WorkbenchError
from ..core.files import whole_file
from ..core.results import at_lowest_iso
from ..core.sensor_file import sensor_text
from ..core.values import attribute_dict, setting_text, unit_text, value_text
from ..fidelity.card import TESTS
from ..pipelines.characterization import Characterization
from .write import pictures, tables

MOST_BYTES = 3_000_000
_COLOURS = 256  # of a chart's palette; its PNG is half as large and looks the same


def write_report(result: Characterization, out: str | Path, *, progress: bool = True) -> Path:
    """Write the report of a characterization as one HTML file.

    Parameters
    ----------
    result
        From `characterize`; what is missing in it is named on the page, with what to shoot.
    out
        The file to write.

    Returns
    -------
    The file: HTML without any link to elsewhere, under 3 MB.

    Raises
    ------
    WorkbenchError
        If nothing was measured, or the file cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise WorkbenchError(f"{out} is a folder; give the name of the HTML file to write")
    charts = [chart for chart in REGISTRY.values() if chart.needs and not _of_the_sky(chart)]
    figures, missing = [], {}
    for chart in tqdm(charts, desc="report", unit="chart", disable=not progress, leave=False):
        if chart.missing(result) and chart.asked:
            continue
        if chart.missing(result):
            missing.setdefault(chart.shoot, []).append(chart.title)
            continue
        try:
            figures.append(_figure(chart, result))
        except WorkbenchError as problem:
            missing.setdefault(str(problem), []).append(chart.title)
    if not figures and not result.sensor.sizes.get("iso"):
        raise WorkbenchError("these frames give no measurement to report; `workbench plan` says what to shoot")
    page = _template().render(
        camera=result.camera or "unknown camera",
        simulated=result.simulated,
        source=source(result),
        cards=list(_cards(result.sensor)),
        settings=_settings(result.sensor),
        darks=_darks(result.sensor),
        groups=list(_groups(result.sensor)),
        figures=figures,
        missing=missing,
        warnings=[str(text) for text in result.warnings],
        sensor=_data_address(sensor_text(result.sensor).encode(), "application/json"),
        version=__version__,
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


def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html.jinja")


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
    yield from _scalar(sensor, "unity_gain_iso", "unity gain", "", "ISO ")
    best = _best_read_noise(sensor)
    if best:
        yield best
    yield from _scalar(sensor, "invariance_iso", "nothing gained above", "read noise within 5 % of its least", "ISO ")
    well = at_lowest_iso(sensor, "full_well") if "full_well" in sensor else None
    if well:
        yield "full well", value_text(well["value"], well["error"], "e⁻"), setting_text(well, why=True)
    if "dynamic_range" in sensor and np.isfinite(sensor["dynamic_range"].values).any():
        values = sensor["dynamic_range"].mean("channel")
        place = int(np.nanargmax(values.values))
        error = float(sensor["dynamic_range_error"].isel(iso=place).mean("channel"))
        yield (
            "dynamic range",
            value_text(float(values[place]), error, "stops"),
            f"at ISO {float(sensor['iso'][place]):g}, mean of the channels",
        )
    reference = float(sensor["reference_temperature"])
    where = f"at {reference:.3g} °C" if math.isfinite(reference) else ""
    yield from _scalar(sensor, "dark_current_reference", "dark current", where, unit="e⁻/s/pixel")
    yield from _scalar(sensor, "doubling_temperature", "dark current doubles every", "", unit="K")
    yield from _scalar(sensor, "activation_energy", "activation energy", "of the dark current", unit="eV")
    for name, title in (("prnu", "PRNU"), ("dsnu", "DSNU")):
        block = _blocks(sensor).get(name)
        if block and block.get("value") is not None:
            yield title, value_text(block["value"], block["error"], unit_text(block["unit"])), _place(block)
    fidelity = _blocks(sensor).get("fidelity")
    if fidelity:
        yield "the raw file is", str(fidelity["verdict"]), _multipliers(fidelity)


def _scalar(
    sensor: xr.Dataset, name: str, title: str, where: str, before: str = "", unit: str = ""
) -> Iterator[tuple[str, str, str]]:
    if name in sensor and math.isfinite(float(sensor[name])):
        yield title, before + value_text(float(sensor[name]), float(sensor[f"{name}_error"]), unit), where


def _best_read_noise(sensor: xr.Dataset) -> tuple[str, str, str] | None:
    values = sensor["read_noise"].mean("channel").values if sensor.sizes.get("iso") else np.array([])
    if not np.isfinite(values).any():
        return None
    place = int(np.nanargmin(values))
    errors = sensor["read_noise_error"].values[place]
    error = math.sqrt(float(np.nansum(errors**2))) / max(int(np.isfinite(errors).sum()), 1)
    where = f"at ISO {float(sensor['iso'][place]):g}, mean of the channels"
    return "least read noise", value_text(float(values[place]), error, "e⁻ rms"), where


def _settings(sensor: xr.Dataset) -> dict[str, Any]:
    """The table of ISO settings: headings, and rows of words."""
    columns = {
        "black_level": "black level [ADU]",
        "gain": "gain [e⁻/ADU]",
        "read_noise": "read noise [e⁻ rms]",
        "full_well": "full well [e⁻]",
        "dynamic_range": "dynamic range [stops]",
        "linearity_error": "linearity error [%]",
        "gain_from_darks": "gain from darks [e⁻/ADU]",
    }
    known = [name for name in columns if name in sensor and np.isfinite(sensor[name].values).any()]
    rows = []
    for iso in range(sensor.sizes.get("iso", 0)):
        for channel in range(sensor.sizes.get("channel", 0)):
            one = sensor.isel(iso=iso, channel=channel)
            values = [value_text(float(one[name]), float(one[f"{name}_error"])) for name in known]
            number = float(one["iso"])
            rows.append(
                [f"{number:g}" if math.isfinite(number) else "–", str(one["channel"].item())]
                + ["–" if value == "not measured" else value for value in values]
            )
    return {"head": ["ISO", "channel", *(columns[name] for name in known)], "rows": rows}


def _darks(sensor: xr.Dataset) -> dict[str, Any]:
    rows = []
    for number in range(sensor.sizes.get("setting", 0)):
        one = sensor.isel(setting=number)
        rows.append(
            [
                f"{float(one['setting_iso']):g}" if np.isfinite(one["setting_iso"]) else "–",
                f"{float(one['setting_temperature']):g}" if np.isfinite(one["setting_temperature"]) else "–",
                value_text(float(one["dark_current"]), float(one["dark_current_error"])),
                value_text(float(one["dark_current_median"])),
                f"{int(one['saturated_pixels'])}",
            ]
        )
    head = ["ISO", "sensor [°C]", "dark current [e⁻/s/pixel]", "median pixel", "saturated pixels"]
    return {"head": head, "rows": rows}


def _groups(sensor: xr.Dataset) -> Iterator[dict[str, Any]]:
    """The tables of what is beyond the settings: uniformity, defects, EMVA 1288, raw fidelity."""
    blocks = _blocks(sensor)
    rows = []
    for name, title in (("dsnu", "DSNU"), ("prnu", "PRNU"), ("dcnu", "DCNU")):
        for block in _entries(sensor, name):
            parts = [
                value_text(block[part]["value"], block[part]["error"]) if block.get(part) else "–"
                for part in ("row", "column", "pixel")
            ]
            value = value_text(block["value"], block["error"], unit_text(block["unit"]))
            rows.append([title, _place(block), value, *parts, str(block.get("filter", "–"))])
    if rows:
        head = ["", "where", "in all", "rows", "columns", "pixels", "high-pass"]
        yield {"title": "Uniformity", "head": head, "rows": rows}
    defects = blocks.get("defects")
    if defects:
        kinds = ("hot", "warm", "dead", "unstable")
        counts = {kind: defects[kind] for kind in kinds if defects[kind] is not None}
        rows = [[kind, f"{count:,}", f"{1e6 * count / defects['pixels']:.0f}"] for kind, count in counts.items()]
        title = f"Defects among {defects['pixels']:,} pixels"
        yield {"title": title, "head": ["kind", "pixels", "per million"], "rows": rows}
    emva = blocks.get("emva")
    if emva:
        rows = [
            [name, _short(entry["value"]), unit_text(entry.get("unit", ""))]
            for name, entry in emva.items()
            if isinstance(entry, dict) and entry.get("value") is not None
        ]
        title = f"By the names of EMVA 1288 (release 4.0), ISO {emva.get('iso', 0):g}, mean of the channels"
        yield {"title": title, "head": ["quantity", "value", "unit"], "rows": rows}
    fidelity = blocks.get("fidelity")
    if fidelity and fidelity.get("tests"):
        rows = [[TESTS.get(test["test"], test["test"]), test["status"], test["finding"]] for test in fidelity["tests"]]
        yield {"title": "Is the raw file raw?", "head": ["question", "answer", "finding"], "rows": rows}


def _blocks(sensor: xr.Dataset) -> dict[str, Any]:
    return attribute_dict(sensor.attrs, "blocks")


def _entries(sensor: xr.Dataset, name: str) -> list[dict[str, Any]]:
    """The settings at which a quantity was measured."""
    settings = (_blocks(sensor).get(name) or {}).get("settings", [])
    return [block for block in settings if block.get("value") is not None]


def _place(block: dict[str, Any]) -> str:
    parts = [f"ISO {block['iso']:g}"] if block.get("iso") is not None else []
    parts += [str(block["channel"])] if block.get("channel") else []
    parts += [f"{block['temperature_c']:g} °C"] if block.get("temperature_c") is not None else []
    return ", ".join(parts)


def _multipliers(fidelity: dict[str, Any]) -> str:
    changed = [f"{name} × {value:.3g}" for name, value in fidelity["multiplier"].items() if value and value != 1]
    return ", ".join(changed) if changed else "no colour was multiplied"


def _short(value: float) -> str:
    return f"{value:.5g}"
