"""Charts of lights, from calibration to the stack, show what was measured."""

import course
import holoviews as hv
import numpy as np
import pandas as pd
import pytest

from tests.charts.drawn import check_drawn, columns, options, parts, titles
from workbench import charts, export
from workbench.charts.lights import METHOD_NAMES


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
    return course.calibration_steps(night.frames.light, night.masters)


def test_steps_of_a_calibration_measured_and_predicted(steps):
    noise = course.step_noise(steps)
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


def test_residuals_are_drawn_from_their_stars(lights):
    residuals = lights.lights.registration.residuals()
    used = residuals.isel(star=np.flatnonzero(residuals.used.values))
    left, right = charts.alignment_residuals(residuals)
    (stars,) = parts([left], hv.Scatter, "star")
    np.testing.assert_allclose(columns(stars), [used.x, used.y])
    strokes = np.concatenate([part.array() for part in parts([left], hv.Segments)][:-1])
    assert len(strokes) == used.sizes["star"]
    typical = float(np.sqrt((used.dx**2 + used.dy**2).mean() / 2))
    lengths = np.hypot(strokes[:, 2] - strokes[:, 0], strokes[:, 3] - strokes[:, 1])
    assert np.sqrt((lengths**2).mean() / 2) == pytest.approx(0.03 * options(left)["xlim"][1], rel=1e-5)
    (ring,) = parts([right], hv.Curve, f"1 × {typical:.3f} px")
    np.testing.assert_allclose(np.hypot(*columns(ring)), typical)


def test_noise_against_frames_has_its_law_and_errors(lights):
    growth = lights.lights.growth
    left, right = charts.snr_vs_frames(growth)
    for channel in growth.channel.values.astype(str):
        one = growth.sel(channel=channel)
        (snr,) = parts([left], hv.Scatter, channel)
        np.testing.assert_allclose(columns(snr), [growth["count"], one.snr, one.snr_error])
        (ratio,) = parts([right], hv.Scatter, channel)
        np.testing.assert_allclose(ratio.dimension_values(1), 100 * (one.noise / one.predicted - 1))
        np.testing.assert_allclose(ratio.dimension_values(2), 100 * one.noise_error / one.predicted)
    for law in parts([left], hv.Curve):
        count, snr = columns(law)
        np.testing.assert_allclose(snr / np.sqrt(count), snr[0])


def test_rejection_shows_each_method_where_all_cost_the_same(lights):
    trial = lights.lights.trial
    found, cost, pictures = charts.rejection(trial)
    for method in trial.rejection.values.astype(str):
        label = METHOD_NAMES.get(method, method)
        one = trial.sel(rejection=method)
        (share,) = parts([found], hv.Scatter, label)
        np.testing.assert_allclose(columns(share)[:2], [trial.strength, 100 * one.completeness])
        np.testing.assert_allclose(columns(share)[2], 100 * one.completeness_error)
        (default,) = parts([cost], hv.Scatter, label)
        assert default.dimension_values(1)[0] == pytest.approx(100 * float(one.default_found))
    names = [text for note in parts([pictures], hv.Labels) for text in note.dimension_values(2)]
    assert names[0] == "mean"
    assert len(names) == 4
    (image,) = parts([pictures], hv.Image)
    assert image.dimension_values(2, flat=False).shape[1] == trial.sizes["x"] // 2


def test_tables_hold_what_was_measured(lights, tmp_path):
    export.write_charts(lights, tmp_path, only=["snr-vs-frames", "rejection"], progress=False)
    table = pd.read_csv(tmp_path / "snr-vs-frames.csv", comment="#")
    red = table[(table["series"] == "R") & table["signal to noise"].notna()]
    measured = lights.lights.growth["snr"].sel(channel="R").values
    assert red["signal to noise"].to_numpy() == pytest.approx(measured, rel=1e-6)
    table = pd.read_csv(tmp_path / "rejection.csv", comment="#")
    assert {"noise model", "sigma clipping", "winsorized"} <= set(table["series"])
