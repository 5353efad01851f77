"""What one notebook keeps the next one takes: the same bits, and never those of other frames."""

import hashlib
import io
import os
import shutil
import subprocess
import sys

import course
import numpy as np
import pytest
import xarray as xr
from course import results as store

from workbench import calibrate, sensor
from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder


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


@pytest.fixture(scope="module")
def measured(frames):
    noise = sensor.read_noise(frames.bias)
    transfer = sensor.photon_transfer(frames.flat, noise, progress=False)
    gain = sensor.fit_gain(transfer)
    darks = sensor.measure_dark(frames.dark, frames.bias, gain, progress=False)
    return {"read noise": noise, "transfer": transfer, "gain": gain, "darks": darks}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A folder of its own for what is kept."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "measured"


@pytest.fixture
def own(tmp_path, small_samples):
    """A copy of a few frames that may be changed."""
    folder = tmp_path / "my frames"
    shutil.copytree(small_samples / "bias", folder / "bias")
    return folder


def never():
    raise AssertionError("measured although it was kept")


@pytest.mark.parametrize("name", ["read noise", "transfer", "gain"])
def test_measured_datasets_come_back_to_the_last_bit(name, measured, frames, capsys):
    assert course.keep(name, measured[name], frames) is measured[name]
    exactly(course.kept(name, frames, otherwise=never), measured[name])
    assert capsys.readouterr().out.startswith(f"The {name}: made from the same frames on 2")


def test_a_named_tuple_with_a_map_comes_back_as_one(measured, frames):
    course.keep("darks", measured["darks"], frames)
    back = course.kept("darks", frames, otherwise=never)
    assert isinstance(back, sensor.Darks)
    for one, other in zip(back, measured["darks"], strict=True):
        exactly(one, other)


def test_where_nothing_is_kept_it_is_measured_and_kept(measured, frames, capsys):
    course.kept("gain", frames, otherwise=lambda: measured["gain"])
    assert "so made here" in capsys.readouterr().out
    exactly(course.kept("gain", frames, otherwise=never), measured["gain"])


def test_numbers_of_other_frames_are_never_taken(own, frames):
    numbers = iter(range(100))

    def ask(folder):
        found = course.kept("n", folder, lambda: xr.Dataset({"n": next(numbers)}))
        assert course.kept("n", folder, never).identical(found)
        return int(found.n)

    mine = open_folder(own, progress=False)
    assert (ask(frames), ask(mine)) == (0, 1)
    files = sorted((own / "bias").iterdir())
    os.utime(files[0], ns=(1, 1))  # another time
    assert ask(mine) == 2
    with files[0].open("ab") as file:  # another size at the same time
        file.write(b" ")
    os.utime(files[0], ns=(1, 1))
    assert ask(mine) == 3
    files[-1].rename(files[-1].with_name("another.dng"))  # another name
    assert ask(open_folder(own, progress=False)) == 4
    (own / "bias" / "another.dng").unlink()  # a frame less
    fewer = open_folder(own, progress=False)
    assert ask(fewer) == 5
    (own / "frames.csv").write_text(
        f"file,iso\nbias/{files[0].name},123\n"
    )  # the same files, told to be something else
    assert ask(open_folder(own, progress=False)) == 6
    own.rename(own.with_name("moved"))
    assert ask(open_folder(own.with_name("moved"), progress=False)) == 7
    with pytest.raises(WorkbenchError, match="open the folder again"):
        ask(fewer)


def test_numbers_of_another_version_are_never_taken(measured, frames, monkeypatch):
    course.keep("gain", measured["gain"], frames)
    monkeypatch.setattr(course.results, "code_version", lambda: "an older workbench")
    assert course.kept("gain", frames, lambda: xr.Dataset(attrs={"measured": "anew"})).attrs == {"measured": "anew"}


def test_a_damaged_file_is_measured_again(measured, frames, cache):
    course.keep("gain", measured["gain"], frames)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        path.write_bytes(damaged)
        asked = []
        course.kept("gain", frames, otherwise=lambda asked=asked: asked.append(1) or measured["gain"])
        assert asked == [1]
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_keeps_no_notebook_from_working(
    measured, frames, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    assert course.kept("gain", frames, lambda: measured["gain"]) is measured["gain"]
    assert "The gain is not kept: " in capsys.readouterr().out


def test_masters_are_kept_for_these_frames_only(frames, own, cache, capsys):
    cubes = {"bias": frames.bias, "dark": frames.dark, "flat": frames.flat, "progress": False}
    folder = course.kept_folder("masters", frames)
    assert "so made here" in capsys.readouterr().out
    first = calibrate.make_masters(frames.light, **cubes, folder=folder)
    assert course.kept_folder("masters", frames) == folder
    assert "made from the same frames before" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert made
    again = calibrate.make_masters(frames.light, **cubes, folder=folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert again.masters[0].dark.identical(first.masters[0].dark)

    course.kept_folder("masters", open_folder(own, progress=False)).mkdir()
    (own / "bias" / sorted(os.listdir(own / "bias"))[0]).unlink()
    course.kept_folder("masters", open_folder(own, progress=False)).mkdir()
    assert len([path for path in cache.iterdir() if path.name.startswith("masters-my frames")]) == 1
    assert folder.is_dir(), "what belongs to another folder of frames stays"


def test_the_stack_is_kept_for_the_next_notebook(tmp_path, small_samples, capsys):
    first = course.open_linear_stack(small_samples, keep=True)
    assert "made here" in capsys.readouterr().out
    exactly(course.open_linear_stack(small_samples, keep=True), first)
    assert "from the same frames on" in capsys.readouterr().out


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
from course import results as store
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
    pipes["env"] = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
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
