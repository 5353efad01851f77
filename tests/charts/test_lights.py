"""Charts of lights, from calibration to the finish, show what was measured."""

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from tests.charts.drawn import check_drawn, columns, parts, titles
from workbench import calibrate, charts


def test_dark_subtraction_shows_one_place_on_one_scale(result):
    drawn = charts.dark_subtraction(result.dark_subtraction)
    before, master, after = parts(drawn, hv.Image)
    assert before.bounds.lbrt() == after.bounds.lbrt() == master.bounds.lbrt()
    assert before.vdims[0].range == after.vdims[0].range == master.vdims[0].range
    values = [part.dimension_values(2, flat=False) for part in (before, master, after)]
    assert np.abs(values[0] - values[1] - values[2]).max() < 60  # each about its own medians
    hottest = np.unravel_index(np.argmax(values[1]), values[1].shape)
    assert values[0][hottest] > 5 * abs(values[2][hottest])


@pytest.fixture(scope="module")
def steps(night):
    return calibrate.calibration_steps(night.frames.light, night.masters)


def test_steps_of_a_calibration_measured_and_predicted(steps):
    noise = calibrate.step_noise(steps)
    drawn = charts.calibration_steps(steps, noise)
    check_drawn(drawn)
    assert titles(drawn) == ["As read", "Calibrated", "Measured, and predicted (lines)"]
    before, after = parts(drawn, hv.Image)
    assert before.bounds.lbrt() == after.bounds.lbrt()
    assert before.vdims[0].range == after.vdims[0].range
    (green,) = parts(drawn, hv.Scatter, "G1")
    one = noise.sel(channel="G1")
    np.testing.assert_allclose(columns(green)[1:], [one.noise, one.noise_error])
    left, _, right, _ = before.bounds.lbrt()
    window = steps["mask"].values[:, int(left) : int(right)] & 1
    assert window.any(), "the window holds defects"


def test_masters_follow_one_over_the_root_of_n(night):
    own = night.masters.masters[0]
    bias = night.frames.bias.isel(frame=list(own.group.bias))
    found = calibrate.master_noise(bias, None, own.noise, progress=False)
    drawn = charts.master_noise(found, light=4.0)
    check_drawn(drawn)
    (law,) = parts(drawn, hv.Curve, "one frame's over √N")
    x, y = columns(law)
    np.testing.assert_allclose(y * np.sqrt(x), y[0] * np.sqrt(x[0]))
    measured, deviation = parts(drawn, hv.Scatter, "G1")
    np.testing.assert_allclose(
        columns(measured)[1:], [found.noise.sel(channel="G1"), found.noise_error.sel(channel="G1")]
    )
    ratio = found.noise.sel(channel="G1") / found.law.sel(channel="G1")
    np.testing.assert_allclose(deviation.dimension_values(1), 100 * (ratio - 1))
    (light,) = parts(drawn, hv.Curve, "one light")
    assert set(light.dimension_values(1)) == {4.0}


def test_the_flat_is_audited_from_the_centre_outwards(lights):
    audit = lights.lights.audit
    drawn = charts.flat_correction(audit)
    raw, flat = (parts(drawn, hv.Scatter, label)[0] for label in ("without the flat", "with the flat"))
    assert np.ptp(flat.dimension_values(1)) < np.ptp(raw.dimension_values(1)) / 2
    assert (flat.dimension_values(2) > 0).all()
    (image,) = parts(drawn, hv.Image)
    assert image.dimension_values(2, flat=False).shape == audit.background.sel(channel="G1").shape
    left, _bottom, right, _top = image.bounds.lbrt()
    assert (left < audit.bx.values.min()) & (right > audit.bx.values.max())
    assert len([part for part in drawn[1] if isinstance(part, hv.Curve)]) == audit.sizes["mote"]


def test_what_is_left_of_the_flat_has_its_error(lights):
    audit = lights.lights.audit
    drawn = charts.flat_left(audit)
    check_drawn(drawn)
    for label, name in (("from the pixels' own response", "correction"),
                        ("from the smooth background (nebulae too)", "smooth_correction")):  # fmt: skip
        (shown,) = parts(drawn, hv.Scatter, label)
        np.testing.assert_allclose(columns(shown)[1:], [audit[name], audit[f"{name}_error"]])
    (text,) = parts(drawn, hv.Labels)
    assert text.dimension_values(2)[0].startswith("verdict: ")


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
    before = charts.stretch_before(found, centres, centres / 200)
    check_drawn([before, charts.stretch_after(found)])
    (red,) = parts([before], hv.Curve, "R")
    top = counts[:, 1:-1].max()
    np.testing.assert_allclose(columns(red), [centres, np.minimum(counts[0] / top, 1.02)])
    (curve,) = parts([before], hv.Curve, "the stretch")
    np.testing.assert_allclose(curve.dimension_values(1), centres / 200)
    assert before.get(0).dimensions()[0].unit == "e⁻"


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
    drawn = charts.background(model)
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
    drawn = charts.star_fluxes(check)
    check_drawn(drawn)
    for channel in ("R", "G", "B"):
        one = check.sel(channel=channel)
        (shown,) = parts(drawn, hv.Scatter, channel)
        np.testing.assert_allclose(columns(shown), [one.flux_before, 100 * one.deviation, 100 * one.uncertainty])
    (allowed,) = parts(drawn, hv.Area, "1 % allowed")
    assert columns(allowed)[2].tolist() == [1.0, 1.0]
