"""The table of lights: what it shows is true, and the stack is made from those with a tick."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from workbench.app.components import Screen
from workbench.app.jobs import CANCELLED, FINISHED, Job, Runner
from workbench.app.lights import LightsPart, WatchPage
from workbench.app.pages import StackPage
from workbench.app.session import Session
from workbench.simulate import make_night, make_sky
from workbench.simulate.capture import Batch, cooled, write_frames
from workbench.stack.settings import StackSettings

SHAPE = (300, 450)
FWHM = (3.0, 3.0, 4.2, 3.0, 3.0, 3.0)  # px before the pixels integrate
CLEAR = (1.0, 1.0, 1.0, 0.6, 1.0, 0.0)  # transparency; the last is overcast


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Lights of a cooled camera: one out of focus, one through haze, one through clouds."""
    sky = make_sky(SHAPE, stars=80, brightest=900.0, faintest=40.0, seed=5)
    views = make_night(sky, len(FWHM), exposure=60.0, fwhm=3.0, seed=5)
    views = [
        dataclasses.replace(view, fwhm=fwhm, transparency=clear)
        for view, fwhm, clear in zip(views, FWHM, CLEAR, strict=True)
    ]
    folder = tmp_path_factory.mktemp("lights") / "night"
    batches = [
        Batch("bias", 4, 0.0), Batch("dark", 4, 60.0), Batch("flat", 4, 1.0), Batch("light", 6, 60.0, views=views),
    ]  # fmt: skip
    write_frames(folder, cooled(SHAPE), batches, sky=sky)
    return folder


@pytest.fixture
def session(tmp_path):
    runner = Runner()
    yield Session(runner, Screen(width=1200))
    runner.close()


@pytest.fixture(scope="module")
def graded(night):
    return wb.pipelines.grade_lights(night, progress=False)


def test_the_grades_are_those_of_the_sky(graded):
    frames = graded.frames
    good = [0, 1, 3, 4]
    assert frames["used"].tolist() == [True] * 5 + [False]
    assert "stars found" in frames["reason"][5]
    np.testing.assert_allclose(frames["fwhm"][2] / frames["fwhm"][good].median(), 4.2 / 3.0, rtol=0.05)
    relative = frames["transparency"][:5] / frames["transparency"][[0, 1, 4]].mean()
    np.testing.assert_allclose(relative, CLEAR[:5], rtol=0.03)


def test_what_has_no_tick_is_not_stacked(night, graded, session, tmp_path):
    page = StackPage(session)
    session.use(*session.find(night, tmp_path / "results"))
    session.results.mkdir()
    page.lights.show_result(Job("", session.key, FINISHED, value=graded))
    table = page.lights.table
    assert table.fixed == [5]
    assert [row[0] for row in table.rows] == graded.frames["file"].tolist()
    assert "5 of 6 lights are ticked; 1 cannot be stacked" in page.lights.count.pane.object
    table.unticked = [2]
    assert "4 of 6 lights" in page.lights.count.pane.object
    assert page._command()[-2:] == ["--exclude", table.rows[2][0]]
    done = wb.stack_folder(**page._arguments(), progress=False)
    assert done.frames["used"].tolist() == [True, True, False, True, True, False]
    kept = graded.frames.loc[done.frames["used"], ["stars", "fwhm", "background"]]
    assert kept.equals(done.frames.loc[done.frames["used"], ["stars", "fwhm", "background"]])


def test_lights_blink_in_the_order_of_the_table_without_the_unticked(night, graded, session, tmp_path):
    part = LightsPart(session)
    session.use(*session.find(night, tmp_path / "results"))
    part.show_result(Job("", session.key, FINISHED, value=graded))
    files = part.files
    part.table.param.update(order=[5, 4, 3, 2, 1, 0], unticked=[3])
    part.table.chosen = 4
    seen = [part.light.value]
    for _ in range(3):
        part._next()
        seen.append(part.light.value)
    assert seen == [files[number] for number in (4, 2, 1, 0)]


def test_a_name_that_could_mean_others_is_given_as_a_path(session):
    part = LightsPart(session)
    part.paths = {"a.fits": "/night/a.fits", "2/a.fits": "/night/2/a.fits"}
    part.table.param.update(rows=[["a.fits"], ["2/a.fits"]], unticked=[0, 1])
    assert part.left_out == ["/night/a.fits", "2/a.fits"]


def test_the_live_page_shows_each_light_as_it_is_added(night, session, tmp_path):
    page = WatchPage(session)
    session.use(*session.find(night, tmp_path / "results"))
    page.refresh()
    assert len(page.result) == 0
    page._start()
    table = session.live_folder / "lights.csv"
    for _ in range(3000):
        if not session.job("watch").active or (table.is_file() and len(pd.read_csv(table)) == 6):
            break
        time.sleep(0.1)
    session.cancel("watch")
    ended = session.runner.wait("watch", session.key, 60)
    assert ended.state == CANCELLED, ended.message
    assert "continues from there" in ended.message
    lights = pd.read_csv(table)
    assert lights["used"].tolist() == [True] * 5 + [False]
    np.testing.assert_allclose(
        lights["transparency"][:5] / lights["transparency"][[0, 1, 4]].mean(), CLEAR[:5], rtol=0.05
    )
    page.refresh()
    picture, _, last = page.result
    assert picture.object[:4] == b"\x89PNG"
    assert Path(lights["file"][5]).name in last.object


def test_a_comet_is_followed_by_two_places_or_as_it_was_found(night, session, tmp_path):
    page = StackPage(session)
    session.use(*session.find(night, tmp_path / "results"))
    page.comet.value = "12,30@light_0; 60.5,44@light_4"
    assert page._command()[-4:] == ["--comet", "12,30@light_0", "--comet", "60.5,44@light_4"]
    assert StackSettings(comet=page._arguments()["comet"]).comet == ("12,30@light_0", "60.5,44@light_4")
    page.comet.value = "there"
    with pytest.raises(wb.WorkbenchError, match=r"'there' is not a position X,Y or X,Y@LIGHT"):
        StackSettings(comet=page._arguments()["comet"])
    page.comet.value = ""
    assert page._arguments()["comet"] == ()


def test_taps_on_a_comet_in_the_first_and_the_last_ticked_light_fill_the_field(night, graded, session, tmp_path):
    page = StackPage(session)
    lights = page.lights
    lights._tapped(3.0, 4.0)
    lights.tap.value = True
    assert "a comet is followed through two lights or more" in lights.next_tap.pane.object
    session.use(*session.find(night, tmp_path / "results"))
    lights.show_result(Job("", session.key, FINISHED, value=graded))
    files = lights.files
    lights.table.param.update(order=[5, 4, 3, 2, 1, 0], unticked=[0])
    lights._tapped(3.0, 4.0)
    assert (lights.tap.value, lights.comet.value) == (False, "")
    lights.tap.value = True
    assert (lights.light.value, lights.comet.value) == (files[1], "")
    lights._tapped(13.0, 30.6)
    assert lights.light.value == files[4]  # the last one is overcast
    lights._tapped(61.0, 44.5)
    assert not lights.tap.value
    assert page._arguments()["comet"] == (f"12.5,30.1@{files[1]}", f"60.5,44.0@{files[4]}")
    lights._tapped(1.0, 1.0)
    assert lights.comet.value.count("@") == 2
