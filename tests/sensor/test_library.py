"""The dark library: the joint fit recovers the truth, and predicts darks that it has not seen, with their variance."""

import numpy as np
import pytest

from tests.scenes import frames_of, less_mean_dark, true_gain
from workbench.core.dark import dark_current_at, law_factor, open_dark_library, predict_dark, save_dark_library
from workbench.core.errors import FrameReadError, WorkbenchError
from workbench.sensor import dark_law, fit_dark_library, measure_dark
from workbench.simulate import d7000

ISO = 800.0
SHAPE = (96, 128)
GRID = [(t, warm) for warm in (0.0, 10.0, 20.0) for t in (120.0, 600.0)]


def shoot(camera, settings, frames=3, seed=1, subtract=False):
    shots = [shot for shot in settings for _ in range(frames)]
    return frames_of(
        camera, "bias" if shots[0][0] < 1 else "dark", shots, seed=lambda number: (seed, number % frames),
        change=(lambda frame, number: less_mean_dark(camera, frame, *shots[number])) if subtract else None,
        camera=camera.camera, black_level=600,
    )  # fmt: skip


def truth(camera, exposure, temperature):
    """The mean of what the camera saves [ADU]."""
    electrons = camera.dark_map.astype(float) * camera.dark_factor(temperature) * exposure
    return camera.black_level + camera.offset_map + electrons / camera.gain(ISO)


@pytest.fixture(scope="module")
def camera():
    return d7000(seed=3, shape=SHAPE)


@pytest.fixture(scope="module")
def bias(camera):
    return shoot(camera, [(1e-4, 20.0)], 6)


@pytest.fixture(scope="module")
def library(camera, bias):
    return fit_dark_library(shoot(camera, GRID), bias, progress=False)


def test_the_sensors_law(camera, library):
    attrs = library.attrs
    assert attrs["law"] == "doubling"
    assert abs(attrs["doubling_temperature"] - 6) < 3 * attrs["law_error"] < 0.3  # by the same thermometer
    assert attrs["doubling_temperature_error"] > 2 * attrs["law_error"]
    here = law_factor("doubling", 6.0, attrs["reference_temperature"], 20.0)
    level = 0.3 * here / camera.gain(ISO)
    assert abs(attrs["dark_current_reference"] - level) < 3 * attrs["dark_current_reference_error"]
    np.testing.assert_allclose(attrs["shot_slope"], 1 / camera.gain(ISO), rtol=0.05)
    assert not attrs["subtracts_mean_dark"]
    assert not attrs["warnings"]


def test_maps_are_those_of_the_camera(camera, library):
    current = camera.dark_map * camera.dark_factor(library.attrs["reference_temperature"]) / camera.gain(ISO)
    calm = library.lost.values == 0
    assert calm.mean() > 0.99
    np.testing.assert_allclose(library.dark_current.values[calm].mean(), current[calm].mean(), rtol=0.01)
    assert np.corrcoef(library.dark_current.values[calm], current[calm])[0, 1] > 0.9
    # 0.4 ADU of pattern under the noise of a few frames, 3 ADU
    assert np.corrcoef(library.offset.values.ravel() - 600, camera.offset_map.ravel())[0, 1] > 0.07


@pytest.mark.parametrize(("exposure", "temperature"), [(300.0, 15.0), (60.0, 20.0), (600.0, 5.0), (0.0, 10.0)])
def test_a_dark_that_it_has_not_seen(camera, library, exposure, temperature):
    predicted = predict_dark(library, exposure, temperature)
    pull = (predicted.signal - truth(camera, exposure, temperature)) / np.sqrt(predicted.variance)
    good = np.isfinite(pull.values)
    assert good.mean() > 0.999
    assert abs(float(pull.values[good].mean())) < 0.15  # the law's own error is common to all
    assert 0.92 < float(pull.values[good].std()) < 1.08
    assert not predicted.attrs["warnings"]


def test_hot_pixels_are_predicted_with_their_own_noise(camera, library):
    hot = tuple(camera.hot_pixels.T)
    predicted = predict_dark(library, 240.0, 12.0)
    pull = ((predicted.signal - truth(camera, 240.0, 12.0)) / np.sqrt(predicted.variance)).values[hot]
    assert 0.6 < np.nanstd(pull) < 1.5
    assert predicted.variance.values[hot].mean() > 1.3 * np.median(predicted.variance)


def test_saturated_pixels_are_measured_in_the_darks_that_they_do_not_fill(camera, bias):
    blazing = d7000(seed=3, shape=SHAPE, hot_fraction=0.02, hot_median=30.0, hot_spread=0.8, dark_current=2.0)
    settings = [(t, warm) for warm in (0.0, 10.0, 20.0) for t in (30.0, 120.0, 600.0)]
    library = fit_dark_library(shoot(blazing, settings), shoot(blazing, [(1e-4, 20.0)], 6), progress=False)
    lost = library.lost.values
    assert 0.001 < (lost > 0).mean() < 0.02
    predicted = predict_dark(library, 60.0, 10.0)
    pull = (predicted.signal - truth(blazing, 60.0, 10.0)).values / np.sqrt(predicted.variance.values)
    some = (lost > 0) & np.isfinite(pull)
    assert some.sum() > 20
    assert abs(np.median(pull[some])) < 0.7
    assert np.percentile(np.abs(pull[some]), 68) < 1.6


def test_sixty_seconds_in_the_room_and_six_hundred_in_the_freezer(camera, bias):
    darks = shoot(camera, [(60.0, 20.0), (600.0, -18.0)], 6)
    library = fit_dark_library(darks, bias, progress=False)
    attrs = library.attrs
    assert abs(attrs["doubling_temperature"] - 6) < 3 * attrs["doubling_temperature_error"]
    with pytest.raises(WorkbenchError, match="do not separate the pixels' offset"):
        fit_dark_library(darks, progress=False)


def test_two_temperatures_do_not_show_the_law_and_the_variance_knows(camera, bias):
    library = fit_dark_library(
        shoot(camera, [(t, warm) for warm in (-5.0, 25.0) for t in (60.0, 600.0)]), bias, progress=False
    )
    assert library.attrs["law"] == "doubling"
    between, at_end = (predict_dark(library, 600.0, warm).attrs["law_error"] for warm in (10.0, 25.0))
    assert between > 0.02 > at_end


def test_an_activation_energy_is_found_as_one(bias):
    arrhenius = d7000(seed=4, shape=SHAPE, activation_energy=0.63)
    settings = [(t, warm) for warm in (-10.0, 5.0, 20.0, 32.0) for t in (60.0, 300.0)]
    library = fit_dark_library(shoot(arrhenius, settings), shoot(arrhenius, [(1e-4, 20.0)], 6), progress=False)
    attrs = library.attrs
    assert attrs["law"] == "arrhenius"
    assert abs(attrs["activation_energy"] - 0.63) < 3 * attrs["activation_energy_error"]


def test_a_camera_that_subtracts_the_mean_dark_is_measured_by_its_noise(camera, bias):
    darks = shoot(camera, [(t, warm) for warm in (5.0, 13.0, 20.0) for t in (200.0, 600.0)], 4, subtract=True)
    library = fit_dark_library(darks, bias, progress=False)
    attrs = library.attrs
    assert attrs["subtracts_mean_dark"]
    assert "subtracts the mean dark" in attrs["warnings"][0]
    assert abs(attrs["doubling_temperature"] - 6) < 3 * attrs["doubling_temperature_error"] < 1.5
    predicted = predict_dark(library, 400.0, 16.0)
    level = truth(camera, 400.0, 16.0) - camera.mean_dark_current(16.0) * 400 / camera.gain(ISO)
    assert abs(float((predicted.signal - level).median())) < 0.6  # whole ADU are taken off
    hot = tuple(camera.hot_pixels.T)
    assert abs(np.median((predicted.signal.values - level)[hot])) < 3


def test_darks_at_one_temperature_predict_for_that_one(camera, bias, library):
    one = fit_dark_library(shoot(camera, [(120.0, 20.0), (600.0, 20.0)]), bias, progress=False)
    assert one.attrs["law"] == "none"
    predicted = predict_dark(one, 300.0)
    pull = (predicted.signal - truth(camera, 300.0, 20.0)) / np.sqrt(predicted.variance)
    assert 0.9 < float(pull.std()) < 1.1
    with pytest.raises(WorkbenchError, match="second temperature"):
        predict_dark(one, 300.0, 5.0)
    with pytest.raises(WorkbenchError, match="give the temperature"):
        predict_dark(library, 300.0)
    unknown = shoot(camera, [(120.0, 20.0), (600.0, 20.0)])
    unknown = unknown.assign_coords(temperature=("frame", np.full(unknown.sizes["frame"], np.nan)))
    assert predict_dark(fit_dark_library(unknown, bias, progress=False), 300.0).attrs["warnings"] == []
    assert "longer than" in predict_dark(library, 900.0, 30.0).attrs["warnings"][0]
    assert "outside" in predict_dark(library, 900.0, 30.0).attrs["warnings"][1]


def test_there_and_back(library, tmp_path):
    path = save_dark_library(library, tmp_path / "new" / "dark-library.fits")
    again = open_dark_library(path)
    assert again.identical(library)
    assert predict_dark(again, 300.0, 15.0).identical(predict_dark(library, 300.0, 15.0))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(FrameReadError, match="cut short"):
        open_dark_library(path)
    with pytest.raises(FrameReadError, match="cannot be found"):
        open_dark_library(tmp_path / "none.fits")


def test_the_answer_does_not_depend_on_the_order_of_the_frames(camera, bias, library):
    darks = shoot(camera, GRID)
    mixed = fit_dark_library(
        darks.isel(frame=np.random.default_rng(1).permutation(darks.sizes["frame"])), bias, progress=False
    )
    np.testing.assert_allclose(mixed.dark_current, library.dark_current, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(mixed.attrs["doubling_temperature"], library.attrs["doubling_temperature"], rtol=1e-6)


def test_the_library_and_the_sensor_have_one_law(camera, bias, library):
    """The same darks, measured setting by setting and all at once."""
    law = dark_law(measure_dark(shoot(camera, GRID), bias, true_gain(camera), progress=False).current)
    assert float(law["reference_temperature"]) == library.attrs["reference_temperature"]
    assert law.attrs["law"] == library.attrs["law"] == "doubling"
    for name, unit in (("doubling_temperature", 1.0), ("dark_current_reference", camera.gain(ISO))):
        value, error = unit * library.attrs[name], unit * library.attrs[f"{name}_error"]
        assert abs(float(law[name]) - value) < error
        assert 0.25 < float(law[f"{name}_error"]) / error < 4  # each from a few frames
    for warm in (-10.0, 10.0, 30.0):
        current, error = dark_current_at(law, warm)
        attrs = library.attrs
        factor = law_factor("doubling", attrs["doubling_temperature"], warm, attrs["reference_temperature"])
        assert abs(attrs["dark_current_reference"] * camera.gain(ISO) * factor - current) < 2 * error
