"""The public face: what `import workbench` offers works on a fresh import, and loads nothing heavy."""

import pytest

import workbench
from tests.test_cli import HEAVY, python


def test_importing_the_package_imports_nothing_heavy():
    done = python(f"import sys, workbench\nprint(sorted(set(sys.modules) & {HEAVY!r}))\nworkbench.charts.REGISTRY")
    assert done.stdout.strip() == "[]", done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", ["core", "stars", "align"])
def test_every_name_that_a_room_lists_is_there(room):
    module = getattr(workbench, room)
    for name in module.__all__:
        assert getattr(module, name) is not None
