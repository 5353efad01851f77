"""The doubling law: truth recovered, shared gain errors cancel, wrong temperatures are noticed."""

import numpy as np
import pytest
import xarray as xr

from workbench.sensor import dark_law


def currents(temperature, value, error, scatter=None, iso=800.0):
    scatter = error if scatter is None else scatter
    n = len(temperature)
    return xr.Dataset(
        {
            "dark_current": ("setting", np.asarray(value, float)),
            "dark_current_error": ("setting", np.broadcast_to(error, n).astype(float)),
            "dark_current_scatter": ("setting", np.broadcast_to(scatter, n).astype(float)),
        },
        {
            "iso": ("setting", np.broadcast_to(iso, n).astype(float)),
            "temperature": ("setting", np.asarray(temperature, float)),
        },
    )


def law_of(temperature, doubling=6.0):
    return 0.3 * 2 ** ((np.asarray(temperature) - 20.0) / doubling)


def test_two_temperatures_give_the_exact_answer():
    law = dark_law(currents([-18.0, 20.0], law_of([-18.0, 20.0]), 0.001))
    np.testing.assert_allclose(law.doubling_temperature, 6.0, rtol=1e-6)
    predicted = law.dark_current_reference * 2 ** ((20 - law.reference_temperature) / law.doubling_temperature)
    np.testing.assert_allclose(predicted, 0.3, rtol=1e-6)


@pytest.mark.parametrize("thermometer", [0.0, 0.5, 1.5])
def test_intervals_hold_the_truth_and_cold_noise_does_not_bias(thermometer):
    rng = np.random.default_rng(0)
    temperature = np.array([-10.0, 0.0, 10.0, 20.0])
    sigma = np.full(4, 0.004)  # the coldest is known to 40 %
    found, inside = [], 0
    for _ in range(400):
        true = temperature + rng.normal(0, thermometer, 4)
        law = dark_law(currents(temperature, rng.normal(law_of(true), sigma), sigma), thermometer=thermometer)
        found.append(float(law.doubling_temperature))
        inside += abs(found[-1] - 6.0) < float(law.doubling_temperature_error)
    np.testing.assert_allclose(np.mean(found), 6.0, rtol=0.005 + 4 * np.std(found) / 20 / 6)
    assert 0.61 < inside / 400 < 0.76  # 68 % within three binomial standard deviations


def test_a_gain_error_that_all_share_is_in_the_level_only():
    temperature = [0.0, 10.0, 20.0, 30.0]
    value = law_of(temperature)
    scatter = 0.001 * value
    shared = dark_law(currents(temperature, value, np.hypot(scatter, 0.05 * value), scatter), thermometer=0)
    alone = dark_law(currents(temperature, value, scatter), thermometer=0)
    np.testing.assert_allclose(shared.doubling_temperature, 6.0, rtol=1e-3)
    np.testing.assert_allclose(shared.doubling_temperature_error, alone.doubling_temperature_error, rtol=0.02)
    np.testing.assert_allclose(shared.dark_current_reference_error / shared.dark_current_reference, 0.05, rtol=0.1)


def test_a_gain_error_between_two_isos_does_count():
    temperature, iso = [0.0, 20.0], [200.0, 800.0]
    value = law_of(temperature)
    law = dark_law(currents(temperature, value, np.hypot(0.001, 0.05) * value, 0.001 * value, iso), thermometer=0)
    # ln(D2/D1) has an error of 5 % √2
    np.testing.assert_allclose(
        law.doubling_temperature_error / law.doubling_temperature, 0.0708 / np.log(value[1] / value[0]), rtol=0.03
    )


def test_darks_warmer_than_stated_are_named_and_widen_the_errors():
    temperature = [0.0, 10.0, 20.0, 30.0]
    value = law_of([0.0, 13.0, 20.0, 30.0])
    law = dark_law(currents(temperature, value, 0.01 * value))
    honest = dark_law(currents(temperature, law_of(temperature), 0.01 * value))
    assert "10 °C" in law.attrs["warnings"][0]
    assert "warmer than stated" in law.attrs["warnings"][0]
    assert law.doubling_temperature_error > 3 * honest.doubling_temperature_error
    assert not honest.attrs["warnings"]


@pytest.mark.parametrize(
    ("temperature", "value", "words"),
    [
        ([20.0, 20.0], [0.3, 0.3], "two temperatures or more"),
        ([np.nan, 20.0], [0.3, 0.3], "two temperatures or more"),
        ([0.0, 20.0], [0.3, 0.1], "does not rise"),
        ([0.0, 20.0], [-0.001, 0.004], "does not rise"),
        ([0.0, 20.0], [np.nan, 0.3], "two temperatures or more"),
    ],
)
def test_what_cannot_be_fitted_is_not_a_number_and_says_why(temperature, value, words):
    law = dark_law(currents(temperature, value, 0.005))
    assert np.isnan(law.doubling_temperature)
    assert np.isnan(law.doubling_temperature_error)
    assert words in law.attrs["warnings"][0]


def arrhenius(temperature, energy=0.65):
    kelvin = np.asarray(temperature, float) + 273.15
    return 0.3 * np.exp(-energy / 8.617333262e-5 * (1 / kelvin - 1 / 293.15))


def test_an_activation_energy_is_recovered_and_preferred():
    temperature = [-15.0, 0.0, 10.0, 20.0, 32.0]
    law = dark_law(currents(temperature, arrhenius(temperature), 0.002 * arrhenius(temperature)), thermometer=0)
    np.testing.assert_allclose(law.activation_energy, 0.65, rtol=1e-4)
    assert law.attrs["law"] == "arrhenius"
    assert not law.attrs["warnings"]  # it lies on a law, if not on that of doubling
    assert law.chi2 > 10 > 1e-3 > law.chi2_arrhenius
    middle = float(law.dark_current_reference_arrhenius)
    np.testing.assert_allclose(middle, arrhenius(float(law.reference_temperature)), rtol=1e-4)
    doubling = dark_law(currents(temperature, law_of(temperature), 0.002 * law_of(temperature)), thermometer=0)
    assert doubling.attrs["law"] == "doubling"
    assert not doubling.attrs["warnings"]


def test_intervals_hold_the_activation_energy():
    rng = np.random.default_rng(5)
    temperature = np.array([-10.0, 5.0, 20.0])
    sigma = np.full(3, 0.003)
    found, inside = [], 0
    for _ in range(400):
        law = dark_law(currents(temperature, rng.normal(arrhenius(temperature), sigma), sigma), thermometer=0)
        found.append(float(law.activation_energy))
        inside += abs(found[-1] - 0.65) < float(law.activation_energy_error)
    np.testing.assert_allclose(np.mean(found), 0.65, rtol=0.005)
    assert 0.61 < inside / 400 < 0.76


def test_two_temperatures_give_both_laws_and_exclude_neither():
    law = dark_law(currents([-18.0, 20.0], law_of([-18.0, 20.0]), 0.001))
    assert law.attrs["law"] == "either"
    # one number for 38 K: ln(D2/D1)/(1/kT1 - 1/kT2)
    between = 38 * np.log(2) / 6 / ((1 / 255.15 - 1 / 293.15) / 8.617333262e-5)
    np.testing.assert_allclose(law.activation_energy, between, rtol=1e-6)


def test_exact_darks_leave_the_thermometers_error():
    temperature = [-10.0, 10.0, 30.0]
    law = dark_law(currents(temperature, law_of(temperature), 1e-6))
    # ln D is off by 0.5 K ln 2/T_d at either end
    expected = 6.0 * 0.5 * np.sqrt(2) / 40
    np.testing.assert_allclose(law.doubling_temperature_error, expected, rtol=0.02)


def test_light_is_in_the_laws_errors_and_named():
    temperature = np.array([-10.0, 0.0, 10.0, 20.0])
    value = law_of(temperature)
    given = currents(temperature, value + 0.05, 0.001 * value).assign(light=("setting", np.full(4, 0.08)))
    law = dark_law(given)
    assert abs(law.doubling_temperature - 6.0) < 1.5 * law.doubling_temperature_error
    assert any("light that leaks" in text for text in law.attrs["warnings"])
    assert not any("warmer" in text for text in law.attrs["warnings"])
