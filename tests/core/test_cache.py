"""Files are whole or not there; kept results come back to the last bit, and never those of other inputs."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench.core import cache as store
from workbench.core.cache import cached, digest
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError


def exactly(one, other):
    """Compare two results: values, bits, types, coordinates, names and attributes."""
    xr.testing.assert_identical(one, other)
    for first, second in zip(one.coords.values(), other.coords.values(), strict=True):
        assert first.dtype == second.dtype
    pairs = zip(one.values(), other.values(), strict=True) if isinstance(one, xr.Dataset) else [(one, other)]
    for first, second in pairs:
        assert (first.name, first.dtype, first.dims) == (second.name, second.dtype, second.dims)
        if first.dtype != object:
            assert first.values.tobytes() == second.values.tobytes()
    assert repr(sorted(one.attrs.items())) == repr(sorted(other.attrs.items()))


def test_whatever_arrays_and_attributes_hold_survives(tmp_path):
    odd = np.array([np.nan, -0.0, np.inf, 5e-324, 0.1])
    attrs = {"nothing": None, "yes": True, "not a number": np.nan, "numpy": np.float32(0.1), "tuple": (1, (2.5, "µ"))}
    attrs |= {"list": [1, [2]], "array": np.arange(3, dtype="uint16"), "nested": {"a": {1: -np.inf}}}
    result = xr.Dataset(
        {
            "odd": ("x", odd, attrs),
            "scalar": np.float32(1.5),
            "words": ("x", np.array(["a", "bé", "", "c", "d"])),
            "objects": ("x", np.array(["1", "two", "", "2.5", "t"], dtype=object)),
            "times": ("x", np.array(["2025-01-18T20:00", "NaT"] + 3 * ["2025-01-19"], "datetime64[ns]")),
            "none": ("y", np.empty(0)),
        },
        {"x": [10, 20, 30, 40, 50], "beside": ("x", list("abcde")), "one": 7},
        attrs,
    )
    exactly(store.load(store.save(tmp_path / "odd.nc", "key", result), "key"), result)
    lazy = result[["odd", "times"]].chunk()
    exactly(store.load(store.save(tmp_path / "lazy.nc", "key", lazy), "key"), lazy.compute())
    nameless = result["odd"].rename(None)
    exactly(store.load(store.save(tmp_path / "array.nc", "key", nameless), "key"), nameless)


def test_what_cannot_be_kept_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(WorkbenchError, match="a set cannot be kept"):
        store.save(tmp_path / "no.nc", "key", xr.Dataset(attrs={"strange": {1}}))
    assert not list(tmp_path.rglob("*.nc"))


def test_a_result_is_computed_once_for_the_same_inputs(tmp_path):
    asked = []

    def measure(frames, settings):
        asked.append(settings)
        return xr.Dataset({"sum": frames.sum() * settings["factor"]})

    cube = make_cube(np.ones((2, 4, 4)), cfa_pattern="RGGB", kind="dark", black_level=0, white_level=9)
    first = cached(tmp_path, "sum", measure, cube, {"factor": 2})
    exactly(cached(tmp_path, "sum", measure, cube, {"factor": 2}), first.compute())
    assert len(asked) == 1
    cached(tmp_path, "sum", measure, cube, {"factor": 3})
    cached(tmp_path, "sum", measure, cube[:1], {"factor": 3})
    assert len(asked) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["sum.nc"]
    cached(None, "sum", measure, cube[:1], {"factor": 3})
    assert len(asked) == 4


def test_a_digest_is_that_of_the_files_and_of_all_else(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"one")
    table = pd.DataFrame({"path": [path], "iso": [100.0], "temperature": [np.nan]})
    first = digest(table, {"penalty": 0.05})
    assert first == digest(table.copy(), {"penalty": 0.05})
    assert first != digest(table, {"penalty": 0.06})
    assert first != digest(table.assign(iso=200.0), {"penalty": 0.05})
    assert digest(path) != digest(str(path))
    path.write_bytes(b"more")
    assert first != digest(table, {"penalty": 0.05})
    path.unlink()
    with pytest.raises(WorkbenchError, match="open the folder again"):
        digest(table)


def test_only_classes_of_this_package_are_made(tmp_path):
    path = store.save(tmp_path / "a.nc", "x", xr.Dataset())
    with xr.open_datatree(io.BytesIO(path.read_bytes()), engine="h5netcdf") as tree:
        tree.load()
    tree.attrs["type"] = "os:system"
    tree.to_netcdf(path, engine="h5netcdf")
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())
    assert store.load(path, "x") is None


KEEP_OFTEN = """
import sys
import numpy as np
import xarray as xr
from workbench.core import cache as store
path, value = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for _ in range(30):
    store.save(path, "key", xr.Dataset({"value": ("x", np.full(20_000, float(value)))}))
"""


def test_two_notebooks_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "number.nc"
    store.save(path, "key", xr.Dataset({"value": ("x", np.full(20_000, 3.0))}))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", KEEP_OFTEN, path, value], **pipes) for value in ("1", "2")]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    while any(worker.poll() is None for worker in workers):
        values = store.load(path, "key")["value"].values
        assert len(values) == 20_000
        assert (values == values[0]).all()
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    assert [one.name for one in tmp_path.iterdir()] == ["number.nc"], "nothing half-written is left"
    assert store.load(path, "key")["value"].values[0] in (1.0, 2.0)
