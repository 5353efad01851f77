"""A desk: the frames of a page, and where its results go."""

import pytest

from workbench.app.jobs import Runner
from workbench.app.session import Desk, check_results, results_beside
from workbench.core.errors import WorkbenchError


@pytest.fixture
def desk():
    runner = Runner()
    yield Desk(runner)
    runner.close()


def test_a_folder_is_opened_with_its_results_beside_it(desk, small_samples):
    desk.open(f" {small_samples} ")
    assert len(desk.folder) == 35
    assert desk.results == results_beside(small_samples)
    assert str(small_samples.resolve()) in desk.key


def test_a_wrong_folder_changes_nothing(desk, small_samples, tmp_path):
    desk.open(small_samples)
    before = desk.folder
    for wrong, said in ((tmp_path / "nowhere", "does not exist"), ("", "give the path"), (tmp_path, "has no frames")):
        with pytest.raises(WorkbenchError, match=said):
            desk.open(wrong)
    assert desk.folder is before


def test_results_are_not_written_among_the_frames(desk, small_samples):
    desk.open(small_samples, small_samples / "bias")
    with pytest.raises(WorkbenchError, match="lies within the frames"):
        desk.start("characterize", folder=small_samples, out=desk.results)


def test_results_need_a_place_that_can_be_written(small_samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="results: cannot be made a folder"):
        check_results(small_samples, tmp_path / "file" / "results")


def test_nothing_starts_without_frames(desk):
    with pytest.raises(WorkbenchError, match="open a folder of frames first"):
        desk.start("stack")


def test_a_folder_without_lights_says_so_before_a_job_starts(desk, small_samples, tmp_path):
    desk.open(small_samples / "flats", tmp_path)
    with pytest.raises(WorkbenchError, match="has no light frames"):
        desk.check_lights()
    desk.open(small_samples, tmp_path)
    desk.check_lights()
