"""Darks that do not fit: how much of them stays in the lights is measured with its error, and scaled away."""

import numpy as np
import pytest

from tests.calibrate.conftest import CELSIUS, EXPOSURE
from workbench.calibrate import calibrate, make_masters
from workbench.calibrate.dark_fit import dark_doubts, fit_darks, hot_pixels, scaled_by_lights
from workbench.core.errors import WorkbenchError


@pytest.fixture(scope="module")
def warm(rig):
    """Darks 12 K warmer than the lights, whose files state no temperature."""
    dark = rig.cube("dark", 8, EXPOSURE, celsius=CELSIUS + 12, series=21)
    return dark.assign_coords(temperature=("frame", np.full(8, np.nan)))


def made(rig, dark, **others):
    cubes = {"bias": rig.bias, "flat": rig.flat, "dark": dark} | others
    return make_masters(rig.light, **cubes, progress=False)


def test_darks_that_fit_leave_nothing(rig):
    masters = made(rig, rig.dark)
    fit = fit_darks(rig.light, masters)
    pull = fit["left"].values / fit["left_error"].values
    assert np.isfinite(pull).all()
    assert np.abs(pull).max() < 4
    assert (fit["left_error"].values < 0.02).all()
    assert dark_doubts(rig.light, rig.dark, masters, fit) == []


def test_warmer_darks_are_named_with_the_factor_and_the_kelvins(rig, warm):
    masters = made(rig, warm)
    fit = fit_darks(rig.light, masters)
    truth = rig.camera.dark_factor(CELSIUS) / rig.camera.dark_factor(CELSIUS + 12)
    assert (np.abs(fit["left"].values + 1 - truth) < 4 * fit["left_error"].values).all()
    (text,) = dark_doubts(rig.light, warm, masters, fit)
    assert "the darks (darks/dark_21_0.dng and 7 more) do not fit 3 lights (lights/light_4_0.dng)" in text
    assert "K warmer" in text
    assert "--scale-darks" in text
    kelvin = float(text.split(" K warmer")[0].split()[-1])
    assert kelvin == pytest.approx(-6.0 * np.log2(truth), abs=0.3)  # the usual doubling is assumed


def test_the_lights_scale_their_darks(rig, warm):
    masters = made(rig, warm)
    scaled, (told,) = scaled_by_lights(masters, fit_darks(rig.light, masters, most=None))
    truth = rig.camera.dark_factor(CELSIUS) / rig.camera.dark_factor(CELSIUS + 12)
    assert "fitted from the lights" in told
    assert scaled.masters[0].group.factors == pytest.approx((truth,) * 3, rel=0.05)
    after = fit_darks(rig.light, scaled)
    assert np.abs(after["left"].values).max() < 0.02
    assert dark_doubts(rig.light, warm, scaled, after) == []
    right = calibrate(rig.light, made(rig, rig.dark)).signal.median(("y", "x"))
    off, done = (calibrate(rig.light, one).signal.median(("y", "x")) for one in (masters, scaled))
    assert float(abs(done - right).max()) < 0.1 * float(abs(off - right).max())
    with pytest.raises(WorkbenchError, match="cannot be scaled to 3 lights: there are no bias frames"):
        scaled_by_lights(made(rig, warm, bias=None), fit_darks(rig.light, masters))


def test_lights_whose_camera_subtracted_its_own_dark_are_told_apart(rig):
    clean = rig.light.copy(data=np.round(rig.light.values - rig.dark_electrons / rig.gain).astype("uint16"))
    masters = make_masters(clean, bias=rig.bias, dark=rig.dark, flat=rig.flat, progress=False)
    (text,) = dark_doubts(clean, rig.dark, masters, fit_darks(clean, masters))
    assert "as if the lights had no dark signal: the camera subtracted a dark of its own" in text


def test_too_few_hot_pixels_give_no_answer(rig):
    masters = made(rig, rig.dark)
    assert hot_pixels(masters.masters[0].dark.isel(y=slice(0, 8), x=slice(0, 8))).y.size < 30
    cut = rig.light.isel(y=slice(0, 8), x=slice(0, 8))
    small = make_masters(
        cut, bias=rig.bias.isel(y=slice(0, 8), x=slice(0, 8)), dark=rig.dark.isel(y=slice(0, 8), x=slice(0, 8)),
        progress=False,
    )  # fmt: skip
    assert np.isnan(fit_darks(cut, small)["left"].values).all()
