"""The way of a comet: from two positions in words, from an ephemeris; what is no way is refused."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from workbench.align.comet import CometTrack, TimedLights, check_comet, comet_track, ephemeris_track, on_comet
from workbench.core.errors import WorkbenchError
from workbench.stack.settings import StackSettings

HOUR = np.timedelta64(3600, "s")


@pytest.fixture(scope="module")
def lights(night):
    count = len(night.registration.matches)
    times = np.datetime64("2025-01-18T20:00:00", "ns") + np.arange(count) * HOUR
    return TimedLights(night.registration, tuple(f"lights/light_{number}.dng" for number in range(count)), times)


def test_positions_in_the_reference_and_in_a_light_are_one_way(lights):
    last = max(lights.registration.used)
    x, y = lights.registration.transform(last).apply(120.0, 90.0)
    plain = comet_track(("50,60", "120,90"), [lights])
    named = comet_track(("50,60", f"{x},{y}@light_{last}"), [lights])
    for track in (plain, named):
        np.testing.assert_allclose(track.at(lights.times[[0, last]]), [[50, 60], [120, 90]], atol=1e-6)


def test_lights_are_shifted_by_the_way_since_the_epoch(lights):
    track = CometTrack(lights.times[[0, -1]], np.array([50.0, 120.0]), np.array([60.0, 90.0]))
    on = on_comet(lights, track, lights.times[2])
    home = track.at(lights.times[[2]])[0]
    for number in on.used:
        seen = on.transform(number).apply(*home)
        place = track.at(lights.times[[number]])[0]
        assert seen == pytest.approx(lights.registration.transform(number).apply(*place), abs=1e-9)


def test_an_ephemeris_is_read(lights, tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 180.0, "CRVAL2": 0.0, "CRPIX1": 101.0,
             "CRPIX2": 51.0, "CD1_1": -1e-3, "CD2_2": 1e-3}  # fmt: skip
    path = tmp_path / "c.csv"
    path.write_text("# mine\ntime, RA, Dec\n2025-01-18T19:00,12h00m00s,+00d00m00s\n2025-01-19T12:00,179.99,0.0\n")
    track = ephemeris_track(path, WCS(fits.Header(cards)), [lights])
    np.testing.assert_allclose([track.x, track.y], [[100, 110], [50, 50]], atol=1e-3)
    path.write_text("time,ra,dec\n2025-01-18T21:30,180,0\n2025-01-19T12:00,179.9,0.0\n")
    with pytest.raises(WorkbenchError, match="both count in UTC"):
        ephemeris_track(path, WCS(fits.Header(cards)), [lights])
    path.write_text("when,ra,dec\n2025-01-18T21:30,180,0\n")
    with pytest.raises(WorkbenchError, match=r"c\.csv: not an ephemeris \(no column time\)"):
        ephemeris_track(path, WCS(fits.Header(cards)), [lights])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("10,20",), "has 1 position: give two positions"),
        (("1,2", "3,4", "5,6"), "has 3 positions"),
        (("10;20", "30,40"), "'10;20' is not a position"),
        (("nan,20", "30,40"), "'nan,20' is not a position"),
        (("none.csv",), r"none\.csv: no such file"),
    ],
)
def test_what_is_no_way_is_refused(wanted, words):
    with pytest.raises(WorkbenchError, match=words):
        check_comet(wanted)


def test_a_comet_is_neither_drizzled_nor_live():
    with pytest.raises(WorkbenchError, match="a stack on a comet cannot be drizzled"):
        StackSettings(comet="auto", scale=2.0)
    with pytest.raises(WorkbenchError, match="a live stack does not follow a comet"):
        StackSettings(comet="auto").require_live()


def test_lights_that_do_not_give_a_way_are_named(lights):
    with pytest.raises(WorkbenchError, match="both positions of the comet are of one time"):
        comet_track(("1,2@light_0", "30,40@light_0.dng"), [lights])
    with pytest.raises(WorkbenchError, match="'light_77' is none of the lights"):
        comet_track(("1,2@light_0", "30,40@light_77"), [lights])
    with pytest.raises(WorkbenchError, match="lies outside the light"):
        comet_track(("1,2@light_0", "30,40000@light_1"), [lights])
    with pytest.raises(WorkbenchError, match="nothing moves evenly"):
        comet_track(("auto",), [lights])
    times = lights.times.copy()
    times[1] = np.datetime64("NaT")
    with pytest.raises(WorkbenchError, match=r"1 of \d+ lights state no time \(the first is lights/light_1.dng\)"):
        comet_track(("auto",), [lights._replace(times=times)])
