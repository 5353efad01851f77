"""Loops compiled beforehand: what a first stack of other frames needs is there."""

import subprocess
import sys

import pytest

from workbench.core.errors import WorkbenchError
from workbench.pipelines import compile_loops, compiling
from workbench.simulate.night import write_night

COUNT = """
import gc, sys
from numba.core.dispatcher import Dispatcher
import workbench as wb
wb.stack_folder(sys.argv[1], sys.argv[2], progress=False)
loops = [loop for loop in gc.get_objects() if isinstance(loop, Dispatcher) and "workbench" in loop.__module__]
print(sum(bool(loop.overloads) for loop in loops), sum(sum(loop.stats.cache_misses.values()) for loop in loops))
"""


def test_a_stack_of_other_frames_compiles_nothing(tmp_path):
    compile_loops(progress=False)
    write_night(
        tmp_path / "night", suffix="fits", shape=(300, 400), lights=4, biases=4, darks=4, flats=4, progress=False
    )
    call = [sys.executable, "-c", COUNT, tmp_path / "night", tmp_path / "stack.fits"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    used, compiled = map(int, done.stdout.split())
    assert used > 10
    assert compiled == 0


def test_what_a_command_complains_of_is_said(monkeypatch):
    monkeypatch.setattr(compiling, "_RUNS", (("stack", "{out}/nothing", "--out", "{out}/stack.fits"),))
    with pytest.raises(WorkbenchError, match=r"cannot be compiled: workbench: .*nothing"):
        compile_loops(progress=False)
