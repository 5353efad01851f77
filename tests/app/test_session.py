"""A session: the frames of a page, and where its results go."""

import pytest

from workbench.app.jobs import Runner
from workbench.app.session import Session, check_results, default_results
from workbench.core.errors import WorkbenchError


@pytest.fixture
def session():
    runner = Runner()
    yield Session(runner, screen=None)
    runner.close()


def test_a_folder_is_opened_with_its_results_next_to_it(session, small_samples):
    session.use(*session.find(f" {small_samples} "))
    assert len(session.folder) == 39
    assert session.results == default_results(small_samples)
    assert str(small_samples.resolve()) in session.key


def test_a_wrong_folder_changes_nothing(session, small_samples, tmp_path):
    session.use(*session.find(small_samples))
    before = session.folder
    for wrong, said in ((tmp_path / "nowhere", "does not exist"), ("", "give the path"), (tmp_path, "has no frames")):
        with pytest.raises(WorkbenchError, match=said):
            session.use(*session.find(wrong))
    assert session.folder is before


def test_results_are_not_written_among_the_frames(session, small_samples):
    session.use(*session.find(small_samples, small_samples / "bias"))
    with pytest.raises(WorkbenchError, match="lies within .* taken for frames; choose another folder, for"):
        session.start("characterize", folder=small_samples, out=session.results)


def test_results_need_a_place_that_can_be_written(small_samples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="results: cannot be made a folder"):
        check_results(small_samples, tmp_path / "file" / "results")


def test_nothing_starts_without_frames(session):
    with pytest.raises(WorkbenchError, match="open a folder of frames first"):
        session.start("stack")


def test_a_folder_without_lights_says_so_before_a_job_starts(session, small_samples, tmp_path):
    session.use(*session.find(small_samples / "flats", tmp_path))
    with pytest.raises(WorkbenchError, match="has no light frames"):
        session.check_lights()
    session.use(*session.find(small_samples, tmp_path))
    session.check_lights()


def test_stacks_on_a_comet_are_no_filters(session, tmp_path):
    session.results = tmp_path
    for name in ("stack_Ha.fits", "stack_Ha-comet.fits", "stack_Ha-comet-and-stars.fits", "stack_OIII.fits"):
        (tmp_path / name).touch()
    assert session.stack_filters == ("Ha", "OIII")
