"""Draw docs/architecture.svg from the imports of the package: `python docs/architecture.py`."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from xml.sax.saxutils import escape

PACKAGE = Path(__file__).parents[1] / "workbench"
PICTURE = Path(__file__).with_suffix(".svg")

# from the ground up; rooms on one line are of one rank and do not import each other
JOURNEY = (
    ("core",),
    ("ingest",),
    ("stars",),
    ("simulate", "sensor", "pixels", "fidelity", "align", "calibrate", "finish", "plan"),
    ("stack",),
    ("pipelines",),
)
FACE = (("core",), ("charts",), ("export",), ("app",), ("terminal",), ("cli_stars",), ("cli",), ("__main__",))
CALLS_PIPELINES = ("export", "app", "cli_stars", "cli")


def below() -> dict[str, set[str]]:
    """Return for each room the rooms that it may import."""
    allowed: dict[str, set[str]] = {}
    for chain in (JOURNEY, FACE):
        under: set[str] = set()
        for rooms in chain:
            for room in rooms:
                allowed[room] = allowed.get(room, set()) | under
            under = under.union(rooms)
    journey = {room for rooms in JOURNEY for room in rooms}
    for room in CALLS_PIPELINES:
        allowed[room] |= journey
    return allowed


def room_of(path: Path) -> str:
    """Return the room of a module: the folder, or the module's own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imported(path: Path) -> set[str]:
    """Return the full dotted names that a module imports, at any depth of its code."""
    package = ("workbench", *path.relative_to(PACKAGE).with_suffix("").parts)[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


def imports_between_rooms() -> dict[str, set[str]]:
    """Return for each room the other rooms that its modules import."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        rooms = {name.split(".")[1] for name in imported(path) if name.startswith("workbench.") and "__" not in name}
        found.setdefault(room_of(path), set()).update(rooms - {room_of(path)})
    return found


WIDE, HIGH = 110, 32  # of a room's box
STYLE = (
    "svg{background:#fff} rect{fill:#eef3f8;stroke:#33506b} path{fill:none;stroke:#8fa3b5}"
    " text{font:13px sans-serif;text-anchor:middle;fill:#16222e} .count{font-size:10px;fill:#5a6b7a}"
)


def places() -> dict[str, tuple[float, float]]:
    """Return the upper left corner of each room's box: the journey from left to right, the face below."""
    found = {room: (430.0, 20.0 + 42 * row) for row, room in enumerate(JOURNEY[3])}
    alone = [(*rooms, x) for rooms, x in zip((*JOURNEY[:3], *JOURNEY[4:]), (20, 150, 280, 590, 740), strict=True)]
    found |= {room: (float(x), 167.0) for room, x in alone}
    face = [room for (room,) in FACE[1:-1] if room not in ("terminal", "cli_stars")]  # parts of the command line
    return found | {room: (250.0 + 165 * column, 400.0) for column, room in enumerate(face)}


def picture() -> str:
    """Return the picture as SVG: a box for each room with its number of modules, a line for each import.

    Every room imports `core`; those lines are left out.
    """
    corners, used = places(), imports_between_rooms()
    lines, boxes = [], []
    for room, (x, y) in corners.items():
        for other in sorted(used[room] & set(corners) - {"core"}):
            x1, y1 = corners[other]
            if y >= 400 > y1:
                points = (x1 + WIDE / 2, y1 + HIGH, x + WIDE / 2, y)
            else:
                points = (x1 + WIDE, y1 + HIGH / 2, x, y + HIGH / 2)
            left, top, right, bottom = points
            middle = (left + right) / 2
            lines.append(
                f'<path d="M{left:g},{top:g} C{middle:g},{top:g} {middle:g},{bottom:g} {right:g},{bottom:g}"/>'
            )
        count = sum(path.name != "__init__.py" for path in (PACKAGE / room).glob("*.py")) or 1
        boxes.append(f'<rect x="{x:g}" y="{y:g}" width="{WIDE}" height="{HIGH}" rx="6"/>')
        text = f'{escape(room)} <tspan class="count">{count}</tspan>'
        boxes.append(f'<text x="{x + WIDE / 2:g}" y="{y + 21:g}">{text}</text>')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 870 450" role="img" aria-label="Rooms and imports">'
    return "\n".join([head, f"<style>{STYLE}</style>", *lines, *boxes, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
