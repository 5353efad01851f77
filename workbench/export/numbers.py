"""A chart's numbers as CSV, with units and the caption."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from typing import Any

import holoviews as hv
import numpy as np

from ..charts.registry import Caption


def tables(drawn: hv.Layout, words: Caption) -> dict[str, str]:
    """Return the CSV files of a chart: the points and curves of all panels in one, each picture in one of its own."""
    rows: list[dict[str, Any]] = []
    found: dict[str, str] = {}
    for panel in drawn:
        for element in panel:
            if isinstance(element, hv.Image):
                name = re.sub(r"\W+", "-", element.label.lower()).strip("-") or "picture"
                found[f"-{name}.csv"] = _picture_table(element, words)
            elif isinstance(element, (hv.Scatter, hv.Curve, hv.Area, hv.Histogram, hv.Points)):
                rows += _rows(element)
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        _comment(text, words)
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        found = {".csv": text.getvalue(), **found}
    return found


def _rows(element: hv.Element) -> list[dict[str, Any]]:
    names = [_heading(dim) for dim in element.dimensions()]
    if isinstance(element, hv.Histogram):
        low, high = element.edges[:-1], element.edges[1:]
        columns = {f"{names[0]}, from": low, f"{names[0]}, to": high, names[1]: element.dimension_values(1)}
    else:
        columns = {name: element.dimension_values(index) for index, name in enumerate(names)}
    series = element.label or "guide"
    count = len(next(iter(columns.values())))
    return [
        {"series": series} | {name: _number(values[row]) for name, values in columns.items()} for row in range(count)
    ]


def _heading(dim: hv.Dimension) -> str:
    return f"{dim.name} [{dim.unit}]" if dim.unit else dim.name


def _number(value: Any) -> str:
    return f"{value:.8g}" if isinstance(value, (float, int, np.number)) else str(value)


def _picture_table(image: hv.Image, words: Caption) -> str:
    """Return a picture as rows of numbers, the first line the top one."""
    text = io.StringIO()
    _comment(text, words)
    value = _heading(image.vdims[0])
    left, bottom, right, top = image.bounds.lbrt()
    text.write(
        f"# {value}; one line a row, from row {min(bottom, top):g} to {max(bottom, top):g}, "
        f"columns {left:g} to {right:g}\n"
    )
    np.savetxt(text, image.dimension_values(2, flat=False), fmt="%.5g", delimiter=",")
    return text.getvalue()


def _comment(text: io.StringIO, words: Caption) -> None:
    for line in textwrap.wrap(words.text, 110):
        text.write(f"# {line}\n")
