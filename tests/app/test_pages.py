"""Real lights of a monochrome camera that record neither ISO nor gain, from page to page."""

import pytest

import workbench as wb
from workbench.app import jobs
from workbench.app.components import Screen
from workbench.app.jobs import FINISHED, Job, Runner
from workbench.app.pages import PicturePage, StackPage
from workbench.app.pixel import PixelPage
from workbench.app.session import Session


@pytest.fixture
def session(real_data, tmp_path):
    runner = Runner()
    yield Session(runner, Screen(width=390, dark=True))
    runner.close()


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
    assert done(stack, wb.stack_folder(session.folder.root, session.stack_file)) == 3
    assert done(finish, jobs.finish(session.stack_files, session.picture_file, session.linear_file)) == 4
