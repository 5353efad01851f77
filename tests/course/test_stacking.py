"""Live controls of masters, calibration, alignment and the stack: what they compute, without a browser."""

import course
import pytest

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
    assert drawn(course.warm_light_chart(30.0, 8)) > 6


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
