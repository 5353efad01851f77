"""The architecture holds: imports run down, rooms are small, functions can be read at a glance."""

import ast
import collections
import functools
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "architecture.py")
architecture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architecture)

PACKAGE = architecture.PACKAGE
MODULES = sorted(PACKAGE.rglob("*.py"))
BELOW = architecture.below()
DRAWING = {"holoviews", "panel", "bokeh", "matplotlib", "datashader"}

CROWDED = {
    "core": "every room stands on it; its modules are small and each has one subject",
    "sensor": "one module a measurement",
    "calibrate": "a module for each step from frames to calibrated lights, and for each check of them",
    "charts": "a module for each topic of the blog",
    "pipelines": "a module for each command, and those of the stack by stage",
    "stack": "a module for each step of a sample's way, each with its compiled loops",
}
# functions that are longer or take more than the rule allows, each with its reason
LONG: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {
    "calibrate/masterset.py:make_masters": "each kind of frames under its own name, as users give them",
}


@functools.cache
def nodes(*kinds) -> list[tuple[Path, ast.AST]]:
    """Every node of some kinds, with its module."""
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES)
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def functions():
    for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        yield f"{path.relative_to(PACKAGE).as_posix()}:{node.name}", node


def body_lines(node) -> int:
    docstring = ast.get_docstring(node, clean=False) is not None
    return node.end_lineno - node.lineno + 1 - (node.body[0].end_lineno - node.body[0].lineno + 1 if docstring else 0)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_only_run_down(path):
    room = architecture.room_of(path)
    if room == "__init__":
        return
    for name in architecture.imported(path):
        if not name.startswith("workbench.") or name == "workbench.__version__":
            continue
        other = name.split(".")[1]
        assert other == room or other in BELOW[room], f"{path} imports {name}: {room} may not call {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_computation_never_imports_plotting(path):
    if architecture.room_of(path) in {room for rooms in architecture.JOURNEY for room in rooms}:
        drawing = {name for name in architecture.imported(path) if name.split(".")[0] in DRAWING}
        assert not drawing, f"{path} imports {drawing}"


def test_two_levels_and_a_dozen_modules_a_room():
    rooms = collections.Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in MODULES)
    assert {room.name for room, count in rooms.items() if count > 12} <= set(CROWDED)


def test_no_module_has_more_than_400_lines():
    lengths = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_no_body_has_more_than_60_lines_without_a_reason():
    assert {name for name, node in functions() if body_lines(node) > 60} == set(LONG)


def test_no_function_takes_more_than_8_parameters_without_a_reason():
    found = set()
    for name, node in functions():
        a = node.args
        if len([*a.posonlyargs, *a.args, *a.kwonlyargs]) + bool(a.vararg) + bool(a.kwarg) > 8:
            found.add(name)
    assert found == set(MANY_PARAMETERS)


def test_no_class_name_occurs_twice():
    names = collections.Counter(node.name for _, node in nodes(ast.ClassDef))
    assert {name: count for name, count in names.items() if count > 1} == {}


def test_the_picture_is_that_of_the_imports():
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert drawn == architecture.picture(), "the imports have changed: run python docs/architecture.py"
