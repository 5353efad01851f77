"""A desk: the frames of a page, and where its results go."""

import pytest

from workbench.app.jobs import Runner
from workbench.app.screen import Drawing, Screen
from workbench.app.server import free_port, origins
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
    for wrong, said in ((tmp_path / "nowhere", "no such folder"), ("", "give the path"), (tmp_path, "has no frames")):
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


def test_only_this_machine_is_let_in_unless_asked():
    assert origins("localhost", 80) == ["localhost:80"]
    assert all(not origin.startswith("0.0.0.0") for origin in origins("0.0.0.0", 80))


def test_a_port_that_is_taken_is_passed_over():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) != port
    with pytest.raises(WorkbenchError, match="cannot listen there"):
        free_port("203.0.113.7", 5007)


def test_a_folder_without_lights_says_so_before_a_job_starts(desk, small_samples, tmp_path):
    desk.open(small_samples / "flats", tmp_path)
    with pytest.raises(WorkbenchError, match="has no light frames"):
        desk.check_lights()
    desk.open(small_samples, tmp_path)
    desk.check_lights()


def test_drawings_fit_the_screen():
    phone, unknown, desk = Screen(width=390), Screen(), Screen(width=1400)
    assert (phone.narrow, unknown.narrow, desk.narrow) == (True, False, False)
    assert phone.fit(760) < 390 - 60
    assert unknown.fit(760) == desk.fit(760) == 760
    assert Screen(width=100).fit(760) == 240


def test_a_drawing_takes_the_colours_of_a_dark_page_and_gives_them_back():
    import holoviews as hv
    from bokeh.models import Plot

    from workbench.charts import theme

    theme.load_backends()
    screen = Screen(width=390, dark=True)
    drawing = Drawing(hv.Curve([1, 2]).opts(color=theme.INK, width=900, backend="bokeh"), screen=screen)
    figure = drawing.get_root().select_one({"type": Plot})
    line = figure.renderers[0].glyph
    assert (line.line_color, figure.border_fill_color) == ("#e4eaf0", "#10181f")
    assert figure.width <= 390
    screen.dark = False
    assert line.line_color == theme.INK
