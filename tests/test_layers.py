"""Imports only run down: a station never imports one above or beside it."""

import ast
from pathlib import Path

import pytest

import workbench

# From the ground up; rooms on one line are stations of one rank and do not import each other.
_JOURNEY = [
    ["core"],
    ["ingest"],
    ["stars"],
    ["simulate", "sensor", "pixels", "fidelity", "align", "calibrate", "finish", "plan"],
    ["stack"],
    ["pipelines"],
]
_FACE = [["core"], ["charts"], ["export"], ["app"], ["cli"], ["__main__"]]
_CALLS_PIPELINES = {"export", "app", "cli"}


def _below() -> dict[str, set[str]]:
    allowed = {}
    for chain in (_JOURNEY, _FACE):
        under: set[str] = set()
        for rooms in chain:
            for room in rooms:
                allowed[room] = allowed.get(room, set()) | under
            under = under.union(rooms)
    journey = {room for rooms in _JOURNEY for room in rooms}
    for room in _CALLS_PIPELINES:
        allowed[room] |= journey
    return allowed


BELOW = _below()
PACKAGE = Path(workbench.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
DRAWING = {"holoviews", "panel", "bokeh", "matplotlib", "datashader"}


def imported(path: Path) -> set[str]:
    """Full dotted names of every import in a module, at any depth of the code."""
    parts = ("workbench", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_run_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for name in imported(path):
        if not name.startswith("workbench.") or name == "workbench.__version__":
            continue
        other = name.split(".")[1]
        assert other == room or other in BELOW[room], f"{path} imports {name}: {room} may not call {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_computation_never_imports_plotting(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room not in {room for rooms in _JOURNEY for room in rooms}:
        return
    drawing = {name for name in imported(path) if name.split(".")[0] in DRAWING}
    assert not drawing, f"{path} imports {drawing}"


def test_a_room_is_taken_in_at_a_glance():
    rooms = {path.parent for path in MODULES} - {PACKAGE}
    crowded = {room.name: count for room in rooms if (count := len(list(room.glob("*.py"))) - 1) > 15}
    assert not crowded, f"too many modules in one room: {crowded}"
