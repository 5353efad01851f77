"""Real lights of a monochrome camera that record neither ISO nor gain, from station to station."""

import pytest

from workbench.app import worker
from workbench.app.jobs import FINISHED, Job, Runner
from workbench.app.pixel_page import Spot
from workbench.app.screen import Screen
from workbench.app.session import Desk
from workbench.app.stations import Finish, Stack


@pytest.fixture
def desk(real_data, tmp_path):
    runner = Runner()
    yield Desk(runner, Screen(width=390, dark=True))
    runner.close()


def test_lights_without_iso_are_looked_at_stacked_and_finished(desk, real_data, tmp_path):
    spot, stack, finish = Spot(desk), Stack(desk), Finish(desk)
    desk.open(real_data / "m13", tmp_path / "results")
    desk.results.mkdir()

    def done(station, value):
        station._done(Job("", desk.key, FINISHED, value=value))
        return len(station.found)

    seen = worker.look(desk.folder.root)
    assert seen["aligned"].sizes["frame"] == 5
    assert done(spot, seen) == 4
    assert "calibrated" in spot.kinds.options
    assert done(stack, worker.stack(desk.folder.root, desk.stack_file)) == 3
    assert done(finish, worker.finish(desk.stack_file, desk.picture_file(), desk.linear_file)) == 4
