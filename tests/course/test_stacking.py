"""Live controls of masters, calibration, alignment and the stack: what they compute, without a browser."""

import course
import holoviews as hv
import numpy as np
import pytest

from tests.charts.drawn import check_drawn, columns, parts
from workbench import calibrate, charts
from workbench.align import compare_models
from workbench.core.errors import WorkbenchError


def drawn(chart):
    return sum(len(panel) for panel in chart)


def test_simulated_frames_say_so_and_repeat():
    one, two = (course.simulated_frames("dark", 2, exposure=30, shape=(32, 48)) for _ in range(2))
    assert (one.values == two.values).all()
    assert "simulated" in one.attrs["camera"]
    assert (one.values[0] != one.values[1]).any()


def test_dithering_saves_darks():
    apart = course.darks_needed_text(12.0, 15.0, 16, 50, True)
    together = course.darks_needed_text(12.0, 15.0, 16, 50, False)
    needed = [int(words.rsplit("**", 2)[1]) for words in (apart, together)]
    assert needed[1] == pytest.approx(50 * needed[0], rel=0.2)
    assert drawn(course.darks_needed(12.0, 15.0, 16, 50, True)) >= 4


def test_a_single_dark_is_a_bad_bargain():
    after = {count: course.warm_light(30.0, count)[1]["noise"].sel(step="dark subtracted").mean() for count in (1, 8)}
    assert after[1] > 1.1 * after[8]
    assert drawn(charts.calibration_steps(*course.warm_light(30.0, 8))) > 6


def test_residuals_of_one_frame_or_all(night):
    registration = night.registration
    other = next(n for n in registration.used if n != registration.reference)
    assert drawn(course.alignment_residuals(registration)) > drawn(course.alignment_residuals(registration, other))
    with pytest.raises(WorkbenchError, match="no matched stars"):
        course.alignment_residuals(registration, registration.reference)


def test_distortion_takes_a_richer_model():
    reference, frame = course.distorted_stars(0.01)
    assert reference.shape == frame.shape == (250, 2)
    rms = {}
    for kind in ("similarity", "homography", "quadratic"):
        chart = course.model_residuals(kind, 0.01)
        label = next(one.label for one in chart[1] if "×" in one.label)
        rms[kind] = float(label.split()[2])
    assert rms["similarity"] > 2 * rms["homography"] > 2 * rms["quadratic"]
    with pytest.raises(WorkbenchError, match="unknown model 'bent'"):
        course.model_residuals("bent")


def test_trials_are_worked_out_once(night):
    trials = course.RejectionTrials(night.lights, night.registration)
    assert trials.counts == [3, 5, 8]
    assert trials.of(3) is trials.of(3)
    assert drawn(trials.chart(3)) > 10


def test_the_table_has_the_usual_thresholds_and_those_of_equal_false_alarms(night):
    table = course.RejectionTrials(night.lights, night.registration).table(8)
    assert table.shape == (5, 6)
    assert table.loc["sigma clipping", "usual threshold"] == "3 σ"
    assert table.loc["sigma clipping", "found"] == "0 %"
    assert table.loc["sigma clipping", "found there"] != "0 %"


def test_masters_follow_one_over_the_root_of_n(night):
    own = night.masters.masters[0]
    bias = night.frames.bias.isel(frame=list(own.group.bias))
    found = course.measure_master_noise(bias, None, own.noise, progress=False)
    drawn = course.master_noise(found)
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


def test_what_is_left_of_the_flat_has_its_error(night):
    flat = night.masters.masters[0].flat
    audit = calibrate.audit_flat(flat, night.lights.isel(frame=[0, 1]), progress=False)
    drawn = course.flat_left(audit)
    check_drawn(drawn)
    for label, name in (("from the pixels' own response", "correction"),
                        ("from the smooth background (nebulae too)", "smooth_correction")):  # fmt: skip
        (shown,) = parts(drawn, hv.Scatter, label)
        np.testing.assert_allclose(columns(shown)[1:], [audit[name], audit[f"{name}_error"]])
    (text,) = parts(drawn, hv.Labels)
    assert text.dimension_values(2)[0].startswith("verdict: ")


def test_models_are_compared_on_fitted_and_held_out_stars(night):
    models = compare_models(night.registration)
    drawn = course.transform_models(models)
    check_drawn(drawn)
    for label, name in (("fitted stars", "rms"), ("held-out stars", "held_out")):
        (shown,) = parts(drawn, hv.Scatter, label)
        np.testing.assert_allclose(shown.dimension_values(1), np.sqrt(np.nanmean(models[name].values ** 2, axis=0)))
    (held,) = parts(drawn, hv.Scatter, "held-out stars")
    assert (held.dimension_values(2) > 0).all()
    names = [text for note in parts(drawn, hv.Labels) for text in note.dimension_values(2)]
    assert set(names) <= set(models.kind.values.astype(str))
