"""The same data finished in five ways, and background models against a known sky."""

import course
import holoviews as hv
import numpy as np
import xarray as xr

from tests.charts.drawn import check_drawn, columns, parts, titles


def test_the_five_ways_differ_as_they_say(known):
    made = course.five_finishes(known[0])
    assert [way.name for way, _, _ in made] == [way.name for way in course.finishing.STYLES]
    plain, _, deep, smooth, eaten = (numbers for _, _, numbers in made)
    assert plain["black"] < 1 < deep["black"]
    assert smooth["grain"] < 0.5 * plain["grain"]
    assert eaten["nebula"] < 0.5 * plain["nebula"]
    spread = [np.ptp(np.nanmean(picture.signal, axis=(1, 2))) for _, picture, _ in made[:2]]
    assert spread[1] < spread[0]  # each channel by itself makes everything grey


def test_models_beside_the_truth():
    table = course.background_errors().astype(float)
    assert (table.loc[["polynomial", "rbf", "mesh"]].abs().to_numpy() < 2).all()
    assert table.loc["rbf, samples everywhere"].min() > 50


def test_nearly_all_of_a_linear_picture_is_black(done):
    assert course.darkest_share(done.linear) > 80


def test_the_background_is_shown_with_its_model_on_one_scale():
    y, x = np.arange(8, 64, 16.0), np.arange(8, 96, 16.0)
    level = 100 + np.add.outer(y, x)[None].repeat(3, 0)
    level[:, 1, 2] = np.nan
    sky = np.isfinite(level[0])
    full = {"y": np.arange(64.0), "x": np.arange(96.0)}
    surface = 100 + np.add.outer(full["y"], full["x"])[None].repeat(3, 0)
    model = xr.Dataset(
        {"sky_level": (("channel", "cell_y", "cell_x"), level), "is_sky": (("cell_y", "cell_x"), sky),
         "background": (("channel", "y", "x"), surface)},
        {"channel": ["R", "G", "B"], "cell_y": y, "cell_x": x, **full}, {"units": "electron", "method": "plane"},
    )  # fmt: skip
    drawn = course.background(model)
    check_drawn(drawn)
    assert titles(drawn) == ["Between the stars", "The model: plane"]
    cells, laid = parts(drawn, hv.Image)
    assert cells.vdims[0].range == laid.vdims[0].range
    assert cells.vdims[0].label == "light between the stars, G"
    np.testing.assert_allclose(laid.dimension_values(2, flat=False), 100 + np.add.outer(y, x))
    (dots,) = parts(drawn, hv.Scatter, "empty sky")
    assert len(dots) == sky.sum()
    (grey,) = parts(drawn, hv.Rectangles)
    assert grey.array().tolist() == [[x[2] - 8, y[1] - 8, x[2] + 8, y[1] + 8]]


def test_star_fluxes_deviate_by_what_was_measured():
    rng = np.random.default_rng(2)
    shape = (30, 3)
    check = xr.Dataset(
        {"deviation": (("star", "channel"), rng.normal(0, 0.01, shape)),
         "uncertainty": (("star", "channel"), rng.uniform(0.005, 0.02, shape)),
         "flux_before": (("star", "channel"), rng.uniform(10, 1000, shape), {"units": "electron"})},
        {"channel": ["R", "G", "B"]}, {"tolerance": 0.01},
    )  # fmt: skip
    drawn = course.star_fluxes(check)
    check_drawn(drawn)
    for channel in ("R", "G", "B"):
        one = check.sel(channel=channel)
        (shown,) = parts(drawn, hv.Scatter, channel)
        np.testing.assert_allclose(columns(shown), [one.flux_before, 100 * one.deviation, 100 * one.uncertainty])
    (allowed,) = parts(drawn, hv.Area, "1 % allowed")
    assert columns(allowed)[2].tolist() == [1.0, 1.0]
