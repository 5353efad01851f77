"""The real night, fetched with its checksums or copied from where it is, and the night with three faults."""

import functools
import hashlib
import http.server
import math
import re
import threading
import tomllib

import course
import numpy as np
import pytest
from course.night import TABLE, NoRealNightError, real_night

from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.simulate import d7000, dust
from workbench.simulate.samples import FAULTS


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of this machine with two files, and the table that describes them."""
    monkeypatch.delenv("WORKBENCH_REAL_DATA", raising=False)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=shelf))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    lines = ['about = "two files"', 'licence = "CC0"', "size_mb = 1"]
    for number in (1, 2):
        content = bytes([number]) * 5000
        (shelf / f"{number}.fit").write_bytes(content)
        lines += [
            "[[frames]]",
            f'name = "lights/light_{number}.fit"',
            f'url = "http://127.0.0.1:{httpd.server_port}/{number}.fit"',
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
            f'local = "night/{number}.fit"',
        ]
    table = tmp_path / "table.toml"
    table.write_text("\n".join(lines))
    yield table, shelf, asked
    httpd.shutdown()
    httpd.server_close()


def test_files_are_fetched_once_and_are_those_of_the_table(server, tmp_path):
    table, shelf, asked = server
    folder = real_night(table)
    assert folder == tmp_path / "cache" / "real-night"
    for number in (1, 2):
        assert (folder / f"lights/light_{number}.fit").read_bytes() == (shelf / f"{number}.fit").read_bytes()
    real_night(table)
    assert asked == ["/1.fit", "/2.fit"]


def test_a_file_with_another_checksum_is_refused_and_not_kept(server):
    table, shelf, _ = server
    (shelf / "2.fit").write_bytes(b"something else")
    with pytest.raises(WorkbenchError, match=r"2\.fit: the file is not the one .*not kept"):
        real_night(table)
    (shelf / "2.fit").write_bytes(bytes([2]) * 5000)
    assert {path.name for path in (real_night(table) / "lights").iterdir()} == {"light_1.fit", "light_2.fit"}


def test_a_file_that_was_damaged_is_fetched_again(server):
    table, _, asked = server
    damaged = real_night(table) / "lights/light_1.fit"
    damaged.write_bytes(b"cut")
    real_night(table)
    assert damaged.stat().st_size == 5000
    assert asked.count("/1.fit") == 2


def test_without_a_network_one_sentence_says_so(server):
    table, *_ = server
    text = table.read_text()
    port = text.split("127.0.0.1:")[1].split("/")[0]
    table.write_text(text.replace(port, "9"))  # where nothing listens
    with pytest.raises(NoRealNightError, match="when there is a network, or give the folder of a night") as caught:
        real_night(table)
    (sentence,) = caught.value._render_traceback_()
    assert sentence.startswith("No real night: two files (1 MB, CC0) could not be fetched")
    assert "\n" not in sentence


def test_frames_that_lie_there_are_taken_and_none_is_asked_for(server, tmp_path, monkeypatch):
    table, _, asked = server
    (tmp_path / "mine/night").mkdir(parents=True)
    for number in (1, 2):
        (tmp_path / f"mine/night/{number}.fit").write_bytes(b"here")
    monkeypatch.setenv("WORKBENCH_REAL_DATA", str(tmp_path / "mine"))
    folder = real_night(table)
    assert sorted(path.read_bytes() for path in folder.rglob("*.fit")) == [b"here", b"here"]
    assert not asked


def test_the_real_frames_are_the_table_s(real_data, tmp_path, monkeypatch):
    """The pixels of the frames that lie there, under the header as published, have the table's checksums."""
    monkeypatch.setenv("WORKBENCH_REAL_DATA", str(real_data))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    table = tomllib.loads(TABLE.read_text())
    if not (real_data / table["frames"][0]["local"]).is_file():
        pytest.skip(f"no frames of M 94 at {real_data}")
    frames = open_folder(real_night(), progress=False)
    assert len(frames.light) == len(table["frames"]) == 5
    assert frames.cameras == ["Seestar S50"]
    for frame in table["frames"]:
        assert frame["url"].startswith("https://")
        assert len(frame["sha256"]) == 64


def test_the_faults_are_those_that_the_exercises_ask_for():
    asked, night = course.exercises(), course.night_with_faults()
    text = "; ".join(night.messages)
    twice = asked["09 twice"].answer
    assert twice == sum(FAULTS.lights) + 1
    assert re.search(rf"_{twice:02d}\.dng is the same exposure as \S+_{FAULTS.doubled:02d}\.dng", text)
    sensor, stated = d7000(activation_energy=0.65), FAULTS.darks[0][1]
    warm = sensor.dark_factor(stated + dict(FAULTS.thermometer)[stated]) / sensor.dark_factor(stated)
    assert asked["09 warm darks"].answer == pytest.approx(warm, rel=0.005)
    assert float(re.search(r"the lights need ([\d.]+) ±", text)[1]) == pytest.approx(1 / warm, rel=0.02)
    assert asked["09 moved dust"].answer == pytest.approx(math.hypot(*FAULTS.dust_moved))
    # what no message names is in the picture: the light's dust over the flat's, which lies elsewhere
    through = dust(FAULTS.shape, motes=FAULTS.dust[0], depth=FAULTS.dust[1], seed=2025)
    left = np.log(through / np.roll(through, [-step for step in FAULTS.dust_moved], axis=(0, 1)))
    dusty = np.abs(left) > 0.1
    planes = [night.light[y::2, x::2] / np.median(night.light[y::2, x::2]) for y in (0, 1) for x in (0, 1)]
    cells, there = np.mean(planes, axis=0), left[::2, ::2]
    seen = dusty[::2, ::2] & (cells > 0.3) & (cells < 2)
    assert seen.sum() > 200
    assert np.corrcoef(np.log(cells[seen]), there[seen])[0, 1] > 0.8
