"""Imports only run down: a station never imports one above or beside it."""

import ast
from pathlib import Path

import pytest

import workbench

# From the ground up; rooms on one line stand side by side and do not import each other.
LAYERS = [
    ["errors"],
    ["files", "buffers"],
    ["frames"],
    ["bayer", "defects", "keeping", "results", "vignetting"],
    ["darklibrary", "streams"],
    ["statistics"],
    ["noise"],
    ["stars"],
    ["ingest"],
    ["camera", "sensor", "calibrate", "align", "finish", "plan"],
    ["stack"],
    ["runs"],
    ["charts"],
    ["apps"],
    ["export"],
    ["app"],
    ["cli"],
    ["__main__"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
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
    assert room in LEVEL, f"{room} has no place in LAYERS: give it one"
    for name in imported(path):
        if not name.startswith("workbench.") or name == "workbench.__version__":
            continue
        other = name.split(".")[1]
        if other not in LEVEL:  # a name that workbench/__init__ offers
            assert LEVEL[room] >= LEVEL["apps"], f"{path} imports {name} through the package's front door"
            continue
        assert other == room or LEVEL[other] < LEVEL[room], f"{path} imports {name}: an arrow that does not run down"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_computation_never_imports_plotting(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__" or LEVEL[room] >= LEVEL["charts"]:
        return
    drawing = {name for name in imported(path) if name.split(".")[0] in DRAWING}
    assert not drawing, f"{path} imports {drawing}"


def test_a_room_is_taken_in_at_a_glance():
    rooms = {path.parent for path in MODULES} - {PACKAGE}
    crowded = {room.name: count for room in rooms if (count := len(list(room.glob("*.py"))) - 1) > 15}
    assert not crowded, f"too many modules in one room: {crowded}"
