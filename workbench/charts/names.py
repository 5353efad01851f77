"""Names, grid, scale bar and north over a solved picture: a HoloViews overlay, and drawn into a copy of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import holoviews as hv
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pictures import colour_panel
from .theme import COLUMN, ROW, styled

OBJECT, STAR, GRID, WHITE = "#ffd166", "#8ecae6", "#5f7d99", "#ffffff"
_SHOWN = 1000  # px of the longer side of a picture on a page
_RIM = 12.0  # px: least half-axis of an object's ellipse, and distance of a star's name


def _ellipses(names: Any) -> list[np.ndarray]:
    """Outlines (n, 2) [px] of the objects, y down."""
    turn = np.linspace(0, 2 * np.pi, 73)
    outlines = []
    for row in names.labels[names.labels["kind"] == "object"].itertuples():
        a, b = max(row.width / 2, _RIM), max(row.height / 2, _RIM)
        angle = np.radians(row.angle)
        u, v = a * np.cos(turn), b * np.sin(turn)
        across = row.x + u * np.cos(angle) - v * np.sin(angle)
        down = row.y + u * np.sin(angle) + v * np.cos(angle)
        outlines.append(np.stack([across, down], axis=1))
    return outlines


def _marks(names: Any) -> dict[str, list[np.ndarray]]:
    """The scale bar and the two arrows from the lower left corner, as lines (n, 2) [px], y down."""
    height, width = names.shape
    left, low = 0.04 * width, 0.95 * height
    bar = np.array([[left, low], [left + names.bar[0], low]])
    at, size = np.array([0.92 * width, 0.9 * height]), 0.06 * min(names.shape)
    return {"bar": [bar], "N": [np.stack([at, at + size * np.array(names.north)])],
            "E": [np.stack([at, at + size * np.array(names.east)])]}  # fmt: skip


def names_overlay(names: Any, *, grid: bool = True) -> hv.Overlay:
    """Return names, ellipses, grid, scale bar and north as an overlay for a picture whose first row is at the top.

    Its axes are those of `colour_panel`: pixel 0 runs from 0 to 1, rows are counted downwards.

    Parameters
    ----------
    names
        From `workbench.stars.names_on`.
    """
    dims = [COLUMN, ROW]

    def shown(lines: list[np.ndarray], colour: str, width: float, **style: Any) -> hv.Path:
        return styled(hv.Path([line + 0.5 for line in lines], kdims=dims), color=colour, line_width=width, **style)

    def words(rows: list[tuple[float, float, str]], colour: str, size: str) -> hv.Labels:
        moved = [(x + 0.5, y + 0.5, text) for x, y, text in rows]
        return styled(hv.Labels(moved, kdims=dims, vdims=["name"]), text_color=colour, text_font_size=size, **middle)

    middle = {"text_baseline": "middle", "text_align": "center"}
    labels = names.labels
    objects, stars = (labels[labels["kind"] == kind] for kind in ("object", "star"))
    marks = _marks(names)
    parts: list[Any] = []
    if grid and names.grid:
        parts.append(shown([line for line, _ in names.grid], GRID, 1, alpha=0.5))
        parts.append(words([(*line[len(line) // 2], text) for line, text in names.grid], GRID, "11px"))
    parts.append(shown(_ellipses(names), OBJECT, 1.5))
    below = np.maximum(objects["height"].fillna(0) / 2, _RIM) + _RIM
    parts.append(words(list(zip(objects["x"], objects["y"] + below, objects["label"], strict=True)), OBJECT, "13px"))
    parts.append(words(list(zip(stars["x"], stars["y"] + 1.5 * _RIM, stars["label"], strict=True)), STAR, "11px"))
    parts.append(shown([line for lines in marks.values() for line in lines], WHITE, 2))
    ends = [(*marks[name][0][1], name) for name in ("N", "E")]
    parts.append(words([*ends, (*marks["bar"][0].mean(axis=0) - [0, _RIM], names.bar[1])], WHITE, "13px"))
    return hv.Overlay(parts)


def named_picture(levels: np.ndarray, names: Any, title: str = "") -> hv.Overlay:
    """Show a finished picture (channel, y, x) from 0 to 1, reduced for the screen, with its names over it."""
    step = max(max(names.shape) // _SHOWN, 1)
    return colour_panel(levels[:, ::step, ::step], title, size=names.shape, over=names_overlay(names))


def draw_names(values: np.ndarray, names: Any, *, grid: bool = True) -> np.ndarray:
    """Return a copy of a picture, uint8 (y, x, 3) or (y, x), with its names drawn in; uint8 (y, x, 3)."""
    colour = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values
    image = Image.fromarray(np.ascontiguousarray(colour))
    draw = ImageDraw.Draw(image)
    size = max(min(names.shape) / 60, 10.0)
    face = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Pillow's own lacks the minute's sign
    font, small = (ImageFont.truetype(face, share * size) for share in (1.0, 0.8))
    width = max(round(size / 12), 1)

    def line(points: np.ndarray, ink: str, thick: int = width) -> None:
        draw.line([tuple(point) for point in points.tolist()], fill=ink, width=thick)

    def word(x: float, y: float, text: str, ink: str, letters: Any = font) -> None:
        draw.text((x, y), text, fill=ink, font=letters, anchor="mm", stroke_width=width, stroke_fill="black")

    if grid:
        for points, text in names.grid:
            line(points, GRID, 1)
            word(*points[len(points) // 2], text, GRID, small)
    for outline in _ellipses(names):
        line(outline, OBJECT)
    for row in names.labels.itertuples():
        half = max(row.height / 2, _RIM) if row.kind == "object" else 0.5 * _RIM
        ink, letters = (OBJECT, font) if row.kind == "object" else (STAR, small)
        word(row.x, min(row.y + half + size, names.shape[0] - size), row.label, ink, letters)
    marks = _marks(names)
    for name, lines in marks.items():
        line(lines[0], WHITE, 2 * width)
        if name != "bar":
            tip, along = lines[0][1], lines[0][1] - lines[0][0]
            word(*(tip + 0.6 * size * along / np.hypot(*along)), name, WHITE)
    word(*(marks["bar"][0].mean(axis=0) - [0, size]), names.bar[1], WHITE)
    return np.asarray(image)
