"""The finish, live: what the controls compute is what the export does, and the divider moves."""

import re

import course
import numpy as np
import pytest

from workbench import finish
from workbench.app import finishing
from workbench.charts import background as background_chart
from workbench.charts import star_fluxes, stretch_after, stretch_before


@pytest.fixture(scope="module")
def known():
    return course.known_sky()


@pytest.fixture(scope="module")
def done(known):
    return finish.finish(known[0], progress=False)


@pytest.fixture(scope="module")
def flat(known, done):
    return finish.remove_background(finish.crop(known[0]), done.background)


def pictures(view):
    return re.findall(r'src="(data:image/jpeg;base64,[^"]+)"', view)


def test_the_background_explorer_removes_what_the_slider_says(known):
    made = finishing.BackgroundSteps(finish.crop(known[0]))
    before = made.picture.signal.mean(("y", "x")).values
    half, whole = (made.after("polynomial", share).signal.mean(("y", "x")).values for share in (0.5, 1.0))
    np.testing.assert_allclose(before - half, half - whole, rtol=1e-4)
    assert len(pictures(made.view("rbf", 0.7))) == 2
    assert "what it removed" in made.view("mesh", 1.0, "removed")
    assert "% of the cells were empty sky" in made.text("polynomial").replace("*", "")
    share, error = course.sky_share(known[0], made.models["polynomial"])
    true = 100 * known[1].mean() / known[0].signal.values.mean()
    assert share == pytest.approx(true, abs=0.3)
    assert error < 1


def test_the_colour_explorer_offers_what_the_file_knows(flat):
    made = finishing.ColourSteps(flat)
    assert set(made.balances) == {"stars", "none"}  # this file names no daylight multipliers, and no matrix
    assert made.matrix is None
    own = made.after("none", False)
    np.testing.assert_allclose(own.signal, made.picture.signal, rtol=1e-6)
    assert "stars" in made.text("stars")
    assert "Green cast" in made.text("none", False, 0.5)


def test_the_stretch_explorer_shows_the_whole_pictures_stretch(done):
    made = finishing.StretchSteps(done.linear)
    exported = finish.apply_stretch(
        done.linear, finish.stretch_parameters(done.linear, finish.StretchSettings(sky=0.2))
    )
    np.testing.assert_array_equal(made.apply("asinh", 0.2).signal, exported.signal)
    for method in made.methods:
        assert len(pictures(made.view(method, 0.1, 1.0, 1.5, 5.0))) == 2
    titles = [
        made.curve("asinh").opts.get("plot").kwargs["title"],
        made.histogram("ghs").opts.get("plot").kwargs["title"],
    ]
    assert titles == ["Before: linear", "After: on the screen"]


def test_the_detail_explorer_does_what_the_export_does(known, done):
    made = finishing.DetailSteps(known[0], done)
    rows, columns = finishing._brightest_piece(done.linear, (200, 300))
    np.testing.assert_allclose(
        made.plain.signal[:, 10:-10, 10:-10],
        done.picture.signal[:, rows, columns][:, 10:-10, 10:-10],
        atol=2e-3,
    )
    noise = [float(np.diff(made.after(strength).signal, axis=2).std()) for strength in (0.0, 0.5, 1.0)]
    assert noise[0] > noise[1] > noise[2]
    for numbers in ((0.5, 0.5), (0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 0.5)):
        assert len(pictures(made.view(*numbers, show="removed"))) == 2


def test_charts_of_the_finish(known, done):
    layout = background_chart(done.background)
    assert len(layout) == 2
    check = finish.check_photometry(known[0], done.linear)
    assert check.attrs["passed"]
    assert len(star_fluxes(check)) == 1
    counts = finish.histogram(done.linear)
    assert stretch_before(counts, np.linspace(0, 10, 5), np.linspace(0, 1, 5))
    assert stretch_after(finish.histogram(done.picture))
