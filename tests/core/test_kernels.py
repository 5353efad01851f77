"""Loops kept on disk: none is used that was made from other files than today's."""

import importlib
import subprocess
import sys
import textwrap

from workbench.core.kernels import kernel_stamp
from workbench.stack import reject

CALLEE = """
from typing import NamedTuple
from workbench.core.kernels import kernel

class Pair(NamedTuple):
    a: float
    b: float

FACTOR = {factor}

@kernel()
def inner(x):
    return x + {added}
"""
CALLER = """
from workbench.core.kernels import kernel
from callee import FACTOR, {record}, inner

@kernel()
def outer(x):
    return inner(x) * FACTOR

print(outer(1))
"""


def run(folder, **values):
    (folder / "callee.py").write_text(textwrap.dedent(CALLEE.format(**values)).replace("Pair", values["record"]))
    (folder / "caller.py").write_text(textwrap.dedent(CALLER.format(**values)))
    done = subprocess.run([sys.executable, "caller.py"], cwd=folder, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_loop_is_compiled_again_when_what_it_calls_has_changed(tmp_path):
    assert run(tmp_path, added=1, factor=10, record="Pair") == 20
    kept = {path.name for path in tmp_path.rglob("*.nbi")}
    assert any("outer" in name for name in kept)
    assert run(tmp_path, added=2, factor=10, record="Pair") == 30
    assert run(tmp_path, added=2, factor=100, record="Pair") == 300
    assert run(tmp_path, added=2, factor=100, record="Other") == 300


def test_the_stamp_stays_while_nothing_changes():
    first = kernel_stamp(reject.count_rejected.py_func)
    assert first == kernel_stamp(importlib.reload(reject).count_rejected.py_func)


def test_whether_a_loop_has_been_compiled_is_known_before_it_runs(tmp_path):
    text = "from workbench.core.kernels import is_compiled, kernel\n\n@kernel()\ndef loop(x):\n    return x\n\n"
    (tmp_path / "one.py").write_text(text + "print(is_compiled(loop), loop(1), is_compiled(loop))\n")
    run_one = [sys.executable, "one.py"]
    lines = [subprocess.run(run_one, cwd=tmp_path, capture_output=True, text=True, check=True).stdout for _ in "12"]
    assert lines == ["False 1 True\n", "True 1 True\n"]
