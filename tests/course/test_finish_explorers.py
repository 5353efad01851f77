"""The finish, live: what the controls compute is what the export does, and the divider moves."""

import re

import course
import holoviews as hv
import numpy as np
import pytest
import xarray as xr
from course import finish_explorers as live

from tests.charts.drawn import check_drawn, columns, parts
from workbench import finish


@pytest.fixture(scope="module")
def flat(known, done):
    return finish.remove_background(finish.crop(known[0]), done.background)


def pictures(made, view):
    return re.findall(r"data:image/jpeg;base64,[\w+/=]+", made.divider.style + view)


def test_the_background_explorer_removes_what_the_slider_says(known):
    made = live.BackgroundSteps(finish.crop(known[0]))
    before = made.picture.signal.mean(("y", "x")).values
    half, whole = (made.after("polynomial", share).signal.mean(("y", "x")).values for share in (0.5, 1.0))
    np.testing.assert_allclose(before - half, half - whole, rtol=1e-4)
    assert len(pictures(made, made.view("rbf", 0.7))) == 2
    assert "what it removed" in made.view("mesh", 1.0, "removed")
    assert "% of the cells were empty sky" in made.text("polynomial").replace("*", "")
    share, error = course.sky_share(known[0], made.models["polynomial"])
    true = 100 * known[1].mean() / known[0].signal.values.mean()
    assert share == pytest.approx(true, abs=0.3)
    assert error < 1


def test_the_colour_explorer_offers_what_the_file_knows(flat):
    made = live.ColourSteps(flat)
    assert set(made.balances) == {"stars", "none"}  # this file names no daylight multipliers, and no matrix
    assert made.matrix is None
    own = made.after("none", False)
    np.testing.assert_allclose(own.signal, made.picture.signal, rtol=1e-6)
    assert "stars" in made.text("stars")
    assert "Green cast" in made.text("none", False, 0.5)


def test_the_stretch_explorer_shows_the_whole_pictures_stretch(done):
    made = live.StretchSteps(done.linear)
    exported = finish.apply_stretch(
        done.linear, finish.stretch_parameters(done.linear, finish.StretchSettings(sky=0.2))
    )
    np.testing.assert_array_equal(made.apply("asinh", 0.2).signal, exported.signal)
    for method in made.methods:
        assert len(pictures(made, made.view(method, 0.1, 1.0, 1.5, 5.0))) == 2
    titles = [
        made.curve("asinh").opts.get("plot").kwargs["title"],
        made.histogram("ghs").opts.get("plot").kwargs["title"],
    ]
    assert titles == ["Before: linear", "After: on the screen"]


def test_the_detail_explorer_does_what_the_export_does(known, done):
    made = live.DetailSteps(known[0], done)
    rows, columns = live._brightest_piece(done.linear, (200, 300))
    np.testing.assert_allclose(
        made.plain.signal[:, 10:-10, 10:-10],
        done.picture.signal[:, rows, columns][:, 10:-10, 10:-10],
        atol=2e-3,
    )
    noise = [float(np.diff(made.after(strength).signal, axis=2).std()) for strength in (0.0, 0.5, 1.0)]
    assert noise[0] > noise[1] > noise[2]
    for numbers in ((0.5, 0.5), (0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 0.5)):
        assert len(pictures(made, made.view(*numbers, show="removed"))) == 2


@pytest.fixture(scope="module")
def picture():
    """A linear picture: sky with a slope and stars."""
    rng = np.random.default_rng(5)
    _y, x = np.mgrid[:128, :192]
    signal = 100 + 0.2 * x + rng.normal(0, 3, (3, 128, 192))
    signal[:, rng.integers(0, 128, 60), rng.integers(0, 192, 60)] += 900
    coords = {"channel": ["R", "G", "B"], "y": np.arange(128), "x": np.arange(192)}
    return xr.DataArray(signal.astype("float32"), coords, ("channel", "y", "x"), attrs={"units": "electron"})


def test_histograms_of_a_picture_before_and_after_the_stretch(picture):
    values = np.linspace(0, 200, 65)
    centres = (values[1:] + values[:-1]) / 2
    counts = np.stack([np.histogram(one, values)[0] for one in picture.values])
    found = xr.Dataset({"count": (("channel", "bin"), counts), "level": ("bin", centres, {"units": "electron"})},
                       {"channel": ["R", "G", "B"]})  # fmt: skip
    before = course.stretch_before(found, centres, centres / 200)
    check_drawn([before, course.stretch_after(found)])
    (red,) = parts([before], hv.Curve, "R")
    top = counts[:, 1:-1].max()
    np.testing.assert_allclose(columns(red), [centres, np.minimum(counts[0] / top, 1.02)])
    (curve,) = parts([before], hv.Curve, "the stretch")
    np.testing.assert_allclose(curve.dimension_values(1), centres / 200)
    assert before.get(0).dimensions()[0].unit == "e⁻"


def test_what_was_removed_is_grey_where_nothing_was(known):
    picture = known[0]
    same = live.difference(picture, picture)
    assert same.min() == same.max() == 128
    taken = picture.signal.values.copy()
    taken[:, 100, 100] -= 50
    shown = live.difference(picture, picture.assign(signal=picture.signal.copy(data=taken)))
    assert (shown[100, 100] > 200).all()
    assert (shown[0, 0] == 128).all()
