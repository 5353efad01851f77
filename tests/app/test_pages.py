"""From page to page: real lights that record neither ISO nor gain; stacks of several filters and their palette."""

import inspect

import numpy as np
import pytest
from astropy.io import fits

import workbench as wb
from workbench.app import jobs
from workbench.app.components import Screen
from workbench.app.jobs import FINISHED, Job, Runner
from workbench.app.lights import LightsPart, WatchPage
from workbench.app.pages import PicturePage, SensorPage, StackPage
from workbench.app.pixel import PixelPage
from workbench.app.session import Session
from workbench.core.errors import WorkbenchError


@pytest.fixture
def session():
    runner = Runner()
    yield Session(runner, Screen(width=390, dark=True))
    runner.close()


def test_a_button_that_cannot_be_pressed_says_why(session, small_samples, tmp_path):
    page = StackPage(session)
    page.refresh()
    assert page.button.disabled
    assert "Open a folder of frames first" in page.same.object
    session.use(*session.find(small_samples, tmp_path / "results"))
    page.refresh()
    assert not page.button.disabled
    assert "Open a folder" not in page.same.object


def test_pages_give_their_tasks_what_these_take(session, small_samples, tmp_path):
    called = {"characterize": wb.characterize, "grade_lights": wb.pipelines.grade_lights, "stack": wb.stack_folder}
    pages = (SensorPage(session), LightsPart(session), WatchPage(session), StackPage(session), PixelPage(session))
    session.use(*session.find(small_samples, tmp_path / "results"))
    for page in pages:
        inspect.signature(called.get(page.task, jobs.TASKS[page.task])).bind(**page._arguments())


def test_lights_without_iso_are_looked_at_stacked_and_finished(session, real_data, tmp_path):
    spot, stack, finish = PixelPage(session), StackPage(session), PicturePage(session)
    session.use(*session.find(real_data / "m13", tmp_path / "results"))
    session.results.mkdir()

    def done(page, value):
        page.show_result(Job("", session.key, FINISHED, value=value))
        return len(page.result)

    seen = jobs.align_lights(session.folder.root)
    assert seen["aligned"].sizes["frame"] == 5
    assert done(spot, seen) == 4
    assert "calibrated" in spot.kinds.options
    assert done(stack, wb.stack_folder(session.folder.root, session.stack_file)) == 1
    assert len(stack.stars.picture) == 2
    assert done(finish, jobs.finish(session.stack_files, session.picture_file, session.linear_file)) == 4


@pytest.fixture
def filters(session, small_samples, tmp_path):
    """A session with stacks through SII, Ha and OIII that show the same stars."""
    session.use(*session.find(small_samples, tmp_path / "results"))
    session.results.mkdir()
    y, x = np.mgrid[:120, :160]
    rng = np.random.default_rng(4)
    stars = sum(
        flux * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 4)
        for cx, cy, flux in zip(
            rng.uniform(10, 150, 15), rng.uniform(10, 110, 15), rng.uniform(400, 2000, 15), strict=True
        )
    )
    for number, name in enumerate(("Ha", "OIII", "SII"), 1):
        image = number * stars + 100 + rng.normal(0, 3, stars.shape)
        header = fits.Header([("FILTER", name), ("EXPTIME", 300.0)])
        path = session.stack_file.with_name(f"stack_{name}.fits")
        fits.PrimaryHDU(image.astype(np.float32), header).writeto(path)
    return session


def test_a_palette_and_its_weights_are_chosen_for_stacks_of_several_filters(filters):
    page = PicturePage(filters)
    assert not page.palette.panel.visible
    page.refresh()
    assert page.palette.panel.visible
    assert list(page.palette.weights) == ["SII", "Ha", "OIII"]  # auto: SHO
    page.palette.menu.value = "HOO"
    assert list(page.palette.weights) == ["Ha", "OIII"]
    page.palette.weights["Ha"].value = 0.5
    assert page._command()[-4:] == ["--palette", "HOO", "--weights", "Ha=0.5"]
    done = jobs.finish(**page._arguments())
    composed = [line for line in done["history"] if "Composed as HOO" in line]
    assert len(composed) == 1
    assert done["picture"] == filters.results / "picture.png"
    # the next one goes into another file, and the gallery holds both, each with how it was made
    page.settings["stretch"].value = "autostretch"
    assert jobs.finish(**page._arguments())["picture"] == filters.results / "picture-2.png"
    page.refresh()
    buttons = [card[1].label for card in page.gallery.small]
    assert buttons == ["Look at picture-2.png", "Look at picture.png"]
    assert [card[0].object.partition("caption")[2][2:].split(",")[0] for card in page.gallery.small] == [
        "autostretch",
        "asinh",
    ]
    page.gallery.small[1][1].clicks += 1
    assert len(page.gallery.large) == 1


def test_sums_of_filters_are_read_before_the_work(filters):
    page = PicturePage(filters)
    page.refresh()
    page.palette.menu.value = page.palette._SUMS
    assert page.palette.sums.visible
    page.palette.sums.value = "R=Ha, G=0.5*Ha+0.5*OIII, B=OIII"
    assert page._arguments()["palette"] == page.palette.sums.value
    assert list(page.palette.weights) == ["Ha", "OIII"]
    page.palette.sums.value = "R=Ha, G="
    with pytest.raises(WorkbenchError, match="is not known; give auto"):
        page._arguments()
