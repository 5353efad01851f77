"""The reference is of the exposure with most light, and never one against which the others vote."""

import numpy as np
import pytest
import xarray as xr

from workbench import align
from workbench.simulate import make_night, make_sky, render
from workbench.stars import FrameSurvey, survey_mosaic

SHAPE = (300, 400)
SKY = make_sky(SHAPE, stars=120, seed=7)


def survey(exposure=60.0, light=1.0, gain=1.0, shift=(0.0, 0.0), seed=1, noise=3.0, sky=2.0):
    """A mono light of the sky moved by (dx, dy); `light` is what clouds leave of it."""
    (view,) = make_night(SKY, 1, exposure=60, seed=3)
    matrix = view.matrix + np.array([[0, 0, shift[0]], [0, 0, shift[1]], [0, 0, 0]])
    view = type(view)(60.0, matrix, fwhm=3.0, background=(0.0,) * 3)
    rng = np.random.default_rng(seed)
    electrons = rng.poisson(exposure * (light * render(SKY, view, "G", trails=False) + sky))
    return survey_mosaic(((electrons + rng.normal(0, noise, SHAPE)) * gain).astype("f4"), "mono")


def register(surveys, exposure, **options):
    names = [f"light_{number}" for number in range(len(surveys))]
    return align.register_frames(surveys, names, np.array(exposure, float), SHAPE, **options)


def test_mixed_exposures_have_exact_scales_and_a_long_reference():
    exposure = [60.0] * 3 + [240.0] * 2
    found = register([survey(e, seed=n, shift=(n, -n)) for n, e in enumerate(exposure)], exposure)
    assert found.reference in (3, 4)
    assert found.used == (0, 1, 2, 3, 4), found.set_aside  # that they show fewer stars is no fault of short frames
    pulls = (found.scales[:3] - 4.0) / found.scale_errors[:3]
    assert np.abs(pulls).max() < 3.5
    assert (found.scale_errors[:3] < 0.04).all()


def test_one_long_frame_is_not_the_reference():
    exposure = [60.0] * 5 + [240.0]
    found = register([survey(e, seed=n) for n, e in enumerate(exposure)], exposure)
    assert found.reference < 5
    assert found.scales[5] == pytest.approx(0.25, abs=4 * found.scale_errors[5])


def test_one_frame_of_another_setting_is_not_the_reference_and_no_cloud():
    exposure, sorts = [60.0] * 5, ["gain setting 0"] + ["gain setting 100"] * 4
    surveys = [survey(gain=0.25 if number == 0 else 1.0, noise=0.5 if number == 0 else 3.0) for number in range(5)]
    found = register(surveys, exposure, sorts=sorts)  # in ADU: a gain setting of 0 shows a quarter
    assert found.reference > 0
    assert found.used == (0, 1, 2, 3, 4)
    assert found.scales[0] == pytest.approx(4.0, rel=0.02)


def test_a_cloudy_frame_is_not_the_reference():
    surveys = [survey(light=0.6, noise=0.1, sky=0.1, seed=9), *(survey(seed=n, noise=6.0, sky=20.0) for n in range(4))]
    bait = surveys[0].stars
    bait.attrs |= {"fwhm": 1.5, "detected": 500}  # the sharpest by its numbers
    found = register(surveys, [60.0] * 5)
    assert found.reference > 0
    assert not [text for text in found.warnings if "poor" in text]
    asked = register(surveys, [60.0] * 5, reference=0)
    assert asked.reference == 0
    assert any("most other lights show 1." in text and "light_0" in text for text in asked.warnings)


def test_a_frame_of_another_field_is_not_the_reference():
    mirrored = survey_mosaic(
        np.ascontiguousarray(1000 * render(SKY, make_night(SKY, 1, seed=3)[0], "G")[:, ::-1]), "mono"
    )
    mirrored.stars.attrs |= {"fwhm": 1.5, "detected": 500}
    found = register([mirrored, *(survey(seed=n) for n in range(4))], [60.0] * 5)
    assert found.reference > 0
    assert "no star pattern" in found.set_aside[0]


def test_the_reference_has_itself_in_common_however_few_its_stars():
    def few(count, shift, extra=()):
        rng = np.random.default_rng(5)
        x, y = np.append(rng.uniform(20, 380, count) + shift, extra), np.append(rng.uniform(20, 280, count), extra)
        star = {name: ("star", np.full(x.size, value)) for name, value in {
            "x_error": 0.05, "y_error": 0.05, "flux": 5000.0, "flux_error": 50.0, "fwhm": 3.0, "roundness": 0.9,
            "snr": 100.0, "peak": 300.0}.items()}  # fmt: skip
        star |= {"x": ("star", x), "y": ("star", y), "saturated": ("star", np.zeros(x.size, bool))}
        about = {"detected": x.size, "fwhm": 3.0, "roundness": 0.9, "background": 100.0, "noise": 10.0}
        return FrameSurvey(xr.Dataset(star, attrs=about), np.full((1, 5, 7), 100.0), np.full((1, 5, 7), 10.0))

    found = register([few(3, 0.0), few(3, 2.5), few(3, -4.0)], [60.0] * 3)
    assert found.used == (0, 1, 2), found.set_aside
    assert any("2 of 3 lights are aligned by few stars (3 at least)" in text for text in found.warnings)
    lone = register([few(3, 0.0), few(2, 2.5)], [60.0] * 2)
    assert lone.reference == 0
    assert list(lone.set_aside) == [1]


def test_a_strip_of_another_panel_is_named():
    surveys = [survey(seed=n, shift=(0.0, n)) for n in range(3)] + [survey(seed=9, shift=(-270.0, n)) for n in range(2)]
    found = register(surveys, [60.0] * 5)
    assert found.used == (0, 1, 2, 3, 4)
    (text,) = [text for text in found.warnings if "strip" in text]
    assert text.startswith("2 lights overlap the reference by 3")
    assert text.endswith("%: they add only a strip; --framing all keeps them whole")
