"""The night as it comes in: against the stack of the same lights, one light after the other, and what goes wrong."""

import shutil
import threading

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.pipelines import stack_folder, watch_folder, watching
from workbench.pipelines.stack_inputs import open_frames
from workbench.simulate.night import write_night
from workbench.stack.fits_out import open_stack
from workbench.stack.live import RunningStack, running_mean

REFERENCE = {"reference": "light_0000"}


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    write_night(
        folder, shape=(256, 352), stars=90, faintest=30.0, brightest=600.0, lights=6, biases=5, darks=5, flats=5,
        suffix="fits", trails=1, trail_electrons=900.0, cosmic_rays=20, dither=5.0, seed=11, progress=False,
    )  # fmt: skip
    return folder


@pytest.fixture
def tonight(night, tmp_path):
    """The night before its first light, and a function that lets so many lights arrive."""
    folder = tmp_path / "tonight"
    shutil.copytree(night, folder)
    lights = sorted((folder / "lights").iterdir())
    later = tmp_path / "later"
    later.mkdir()
    waiting = [shutil.move(path, later / path.name) for path in lights]

    def arrive(count):
        for path in [waiting.pop(0) for _ in range(count)]:
            shutil.move(path, folder / "lights" / path.name)

    return folder, arrive


def watched(folder, out, **settings):
    """Look once and end."""
    stop = threading.Event()
    stop.set()
    return list(watch_folder(folder, out, stop=stop, settled=0.0, **REFERENCE | settings))


def sums(out):
    with np.load(out / ".live" / "sums.npz") as kept:
        running = RunningStack(*(kept[name] for name in RunningStack._fields))
        return running_mean(running, kept["weights"], kept["level"])


def test_the_live_stack_is_the_stack_at_half_its_size(night, tmp_path):
    rows = watched(night, tmp_path / "live")
    assert [row.used for row in rows] == [True] * 6
    assert (rows[-1].frames, rows[-1].total_exposure) == (6, 360.0)
    signal, variance = sums(tmp_path / "live")
    for name, options in (("stack", {}), ("after", {"masters": tmp_path / "live" / "masters"})):
        stack_folder(night, tmp_path / f"{name}.fits", progress=False, **options, **REFERENCE)
    whole, after = (open_stack(tmp_path / f"{name}.fits")["signal"].values for name in ("stack", "after"))
    np.testing.assert_array_equal(whole, after)  # the full run that follows gives what a stack gives
    halved = whole.reshape(3, 128, 2, 176, 2).mean((2, 4))
    apart = ((signal - halved) / np.sqrt(variance))[:, 10:-10, 10:-10]
    local = (apart[..., 8:] - apart[..., :-8]) / np.sqrt(2)  # its gradients are the reference's, not the mean of all
    assert np.nanmedian(np.abs(local)) < 0.2  # of one sigma
    # a trail left in would stand 10 sigma and more above its surroundings in 1 % of the pixels
    assert np.nanpercentile(np.abs(local), 99.8) < 4
    stated = open_stack(tmp_path / "stack.fits")["variance"][1].values
    assert np.nanmedian(variance[1]) == pytest.approx(np.nanmedian(stated) / 4, rel=0.1)
    table = pd.read_csv(tmp_path / "live" / "lights.csv")
    assert list(table["file"]) == [row.file for row in rows]
    assert set(table["units"]) == {"electron"}
    np.testing.assert_allclose(table["noise_G"] * np.sqrt(np.arange(1, 7)) / table["noise_G"][0], 1, atol=0.06)
    with Image.open(tmp_path / "live" / "live.png") as picture:
        assert picture.size == (176, 128)


def test_light_by_light_and_stopped_between_gives_the_same_sums(tonight, night, tmp_path):
    folder, arrive = tonight
    out = tmp_path / "live"
    counts = []
    for count in (3, 1, 2):
        arrive(count)
        counts.append(len(watched(folder, out)))
    assert counts == [3, 1, 2]
    assert len(pd.read_csv(out / "lights.csv")) == 6
    watched(night, tmp_path / "at-once")
    for one, other in zip(sums(out), sums(tmp_path / "at-once"), strict=True):
        np.testing.assert_array_equal(one, other)


def watched_while(folder, out, events, last):
    """The rows up to the `last`; each event happens after so many rows."""
    rows = []
    lights = watch_folder(folder, out, settled=0.0, idle=60.0, **REFERENCE)
    for row in lights:
        rows.append(row)
        events.get(len(rows), lambda: None)()
        if len(rows) == last:
            lights.close()
    return rows


def test_lights_that_arrive_while_it_watches_are_added(tonight, tmp_path):
    folder, arrive = tonight
    arrive(4)
    rows = watched_while(folder, tmp_path / "live", {4: lambda: arrive(2)}, last=6)
    assert [row.frames for row in rows] == [1, 2, 3, 4, 5, 6]


def test_lights_that_were_added_long_ago_are_not_opened_again(tonight, tmp_path, monkeypatch):
    folder, arrive = tonight
    arrive(4)
    opened = []
    monkeypatch.setattr(watching, "COMPARED", 3)
    monkeypatch.setattr(watching, "open_frames", lambda *given: opened.append(open_frames(*given)) or opened[-1])
    rows = watched_while(folder, tmp_path / "live", {4: lambda: arrive(2)}, last=6)
    assert [row.frames for row in rows] == [1, 2, 3, 4, 5, 6]
    assert len(opened[0].lights.names) == 4
    assert len(opened[-1].lights.names) == 5  # three to compare with, and two that are new


def test_a_light_that_is_cut_short_is_added_once_it_is_whole(tonight, tmp_path):
    folder, arrive = tonight
    arrive(5)
    last = sorted((folder / "lights").iterdir())[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    first = watched(folder, tmp_path / "live")
    assert [row.used for row in first] == [False, True, True, True, True]
    assert first[0].file == f"lights/{last.name}"
    last.write_bytes(whole)
    again = watched(folder, tmp_path / "live")
    assert [(row.used, row.frames) for row in again] == [(True, 5)]


def test_a_light_that_does_not_fit_is_named_and_left_out(tonight, tmp_path):
    folder, arrive = tonight
    arrive(6)
    rows = watched(folder, tmp_path / "live", min_stars=10_000)
    assert not any(row.used for row in rows)
    assert "stars" in rows[0].reason
    assert "not added" in str(rows[0])
    assert not (tmp_path / "live" / "live.png").exists()


def test_a_light_may_be_excluded_before_it_comes(tonight, tmp_path):
    folder, arrive = tonight
    arrive(4)
    name = sorted((folder / "lights").iterdir())[3].name
    rows = watched(folder, tmp_path / "live", exclude=(name, "light_9999.fits"))
    assert [row.used for row in rows] == [True, True, True, False]
    assert "excluded" in rows[3].reason


def test_what_a_folder_shows_after_the_beginning_is_said_once(tonight, tmp_path):
    folder, arrive = tonight
    arrive(4)
    events = {
        4: lambda: (folder / "lights" / "noise.fits").write_bytes(b"no frame"),
        5: lambda: arrive(1),
        6: lambda: (folder / "frames.csv").write_bytes(b"\xff\xfe bad"),
    }
    rows = watched_while(folder, tmp_path / "live", events, last=7)
    assert [row.used for row in rows] == [True] * 4 + [False, True, False]
    assert rows[4].file == "lights/noise.fits"
    assert "frames.csv" in rows[6].reason


def test_what_cannot_be_watched_is_refused(tonight, tmp_path):
    folder, _ = tonight
    with pytest.raises(WorkbenchError, match="is not a folder; give the one that the lights arrive in"):
        watched(tmp_path / "nowhere", tmp_path / "live")
    with pytest.raises(WorkbenchError, match="lies within .* would be taken for frames"):
        watched(folder, folder / "live")
    with pytest.raises(WorkbenchError, match="the best are not known before the last"):
        watched(folder, tmp_path / "live", keep=80)
    with pytest.raises(WorkbenchError, match="no stack was begun"):
        watched(folder, tmp_path / "live")


def test_the_command_prints_a_line_a_light_and_ends_when_none_comes(tonight, tmp_path):
    folder, arrive = tonight
    arrive(3)
    call = ["watch", str(folder), "--out", str(tmp_path / "live"), "--idle", "0.02"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 3
    assert "3 lights, 0.05 h, noise R" in lines[2]
