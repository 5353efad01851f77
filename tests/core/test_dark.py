"""Dark current by its law: one answer for all who ask, whose error covers the truth as often as it claims."""

import math

import numpy as np
import pytest
import xarray as xr

from tests.scenes import frames_of, true_gain, true_sensor
from workbench.core.cube import make_cube
from workbench.core.dark import BOLTZMANN, DarkLaw, dark_current_at, dark_laws, predict_current
from workbench.core.noise import noise_budget
from workbench.core.results import sensor_dataset
from workbench.core.sensor_file import open_sensor, write_sensor
from workbench.plan.conditions import background_rate
from workbench.sensor import dark_law, measure_dark
from workbench.simulate import d7000, expose

CHANNELS = ["R", "G1", "G2", "B"]


def currents(temperature, value, error, scatter):
    names = {"dark_current": value, "dark_current_error": error, "dark_current_scatter": scatter}
    return xr.Dataset(
        {name: ("setting", np.asarray(values, float)) for name, values in names.items()},
        {"iso": ("setting", np.full(len(value), 800.0)), "temperature": ("setting", np.asarray(temperature, float))},
    )


def covered(truth, temperature, at, trials=400, gain_error=0.01, scatter=0.004):
    """How often the error of the law holds the truth at some temperatures, if each is measured with these errors."""
    rng = np.random.default_rng(7)
    value, error = truth(np.asarray(temperature, float)), scatter * truth(np.asarray(temperature, float))
    inside, names = np.zeros(len(at)), []
    for _ in range(trials):
        measured = (value + error * rng.standard_normal(value.size)) * (1 + gain_error * rng.standard_normal())
        given = currents(temperature, measured, np.hypot(error, gain_error * measured), error)
        law = dark_law(given, thermometer=0)
        names.append(law.attrs["dark_laws"])
        for k, warm in enumerate(at):
            current, sigma = dark_current_at(law, warm)
            inside[k] += abs(current - truth(np.array(warm))) < sigma
    return inside / trials, names


def doubling(temperature):
    return 0.3 * 2 ** ((temperature - 20.0) / 6.0)


def arrhenius(temperature):
    return 0.3 * np.exp(-0.65 / BOLTZMANN * (1 / (temperature + 273.15) - 1 / 293.15))


AT = [-20.0, -10.0, 0.0, 8.0, 20.0, 30.0]


@pytest.mark.parametrize("truth", [doubling, arrhenius])
def test_the_error_covers_the_truth_at_every_temperature(truth):
    inside, names = covered(truth, [-10.0, 0.0, 10.0, 20.0], AT)
    assert {tuple(name) for name in names} == {(truth.__name__,)}  # so well measured, the other law is excluded
    assert ((inside > 0.61) & (inside < 0.76)).all(), inside  # 68 % within three binomial standard deviations


def test_where_both_laws_are_possible_their_distance_counts():
    """Two temperatures do not show which law holds; of cameras that follow the one or the other 68 % are covered."""
    shares = []
    for truth in (doubling, arrhenius):
        inside, names = covered(truth, [0.0, 20.0], AT)
        assert {tuple(name) for name in names} == {("doubling", "arrhenius")}
        shares.append(inside)
    assert (np.mean(shares, axis=0) > 0.63).all(), shares  # less three binomial standard deviations of 800


def test_the_virtual_cameras_frames():
    """From frames to the law: the known dark current lies within the errors as often as it should."""
    settings = [(t, warm) for warm in (4.0, 12.0, 20.0) for t in (100.0, 600.0) for _ in range(2)]
    pulls = []
    for trial in range(25):
        camera = d7000(seed=trial, shape=(48, 64), hot_fraction=0.0)
        bias, dark = (
            frames_of(camera, kind, shots, seed=lambda n, trial=trial, kind=kind: (trial, n, len(kind)))
            for kind, shots in (("bias", [(1e-4, 20.0)] * 6), ("dark", settings))
        )
        law = dark_law(measure_dark(dark, bias, true_gain(camera), progress=False).current)
        for warm in (-10.0, 4.0, 15.0, 30.0):
            value, error = dark_current_at(law, warm)
            pulls.append((value - camera.mean_dark_current(warm)) / error)
    pulls = np.abs(np.reshape(pulls, (25, 4)))
    inside = (pulls < 1).mean(axis=0)
    assert (inside > 0.4).all(), inside  # 68 % less three binomial standard deviations of 25
    assert np.median(pulls) < 0.9


def test_both_constants_errors_go_together_with_their_correlation():
    rng = np.random.default_rng(1)
    spread = np.array([[0.0001, 0.0015], [0.0015, 0.04]])
    level, value = rng.multivariate_normal([0.3, 6.0], spread, 200_000).T
    law = DarkLaw("doubling", 6.0, 0.2, 0.3, 0.01, 20.0, 0.75)
    for warm in (17.0, 26.0):
        current, error = predict_current([law], warm)
        drawn = level * 2 ** ((warm - 20) / value)
        assert float(current) == pytest.approx(drawn.mean(), rel=0.005)
        assert float(error) == pytest.approx(drawn.std(), rel=0.02)


def sensor_of(camera, law):
    known = sensor_dataset("camera (simulated)", channels=CHANNELS, dark_law=law)
    scalars = {name: known[name] for name in known.data_vars if known[name].ndim == 0}
    return true_sensor(camera).assign(scalars).assign_attrs(known.attrs)


def test_the_noise_budget_and_the_planner_give_the_same_dark_current(tmp_path):
    camera = d7000(seed=4, shape=(128, 192), vignetting=0.0)
    value = doubling(np.array([0.0, 10.0, 20.0]))
    law = dark_law(currents([0.0, 10.0, 20.0], value, 0.02 * value, 0.01 * value))
    sensor = sensor_of(camera, law)
    frames = [expose(camera, 1.0, iso=800, exposure=120.0, temperature=-10.0, seed=n) for n in range(2)]
    light = make_cube(
        frames, cfa_pattern="RGGB", kind="light", iso=800, exposure=120.0, temperature=-10.0, black_level=600,
        white_level=16383,
    )  # fmt: skip
    measured = background_rate(light, sensor, progress=False)
    budget = noise_budget(sensor, rate=1.0, exposure=[1.0], temperature=-10.0)
    of_budget = budget.sel(source="dark current").isel(iso=0, exposure=0)
    current, error = dark_current_at(law, -10.0)
    assert error > 0.02 * current
    for answer in (
        (float(measured.dark[0]), float(measured.dark_error[0])),
        (float(of_budget.variance), float(of_budget.variance_error)),
        dark_current_at(sensor, -10.0),
    ):
        assert answer == pytest.approx((current, error), rel=1e-12)
    whole = sensor_dataset("camera (simulated)", channels=CHANNELS, dark_law=law)
    assert dark_current_at(open_sensor(write_sensor(whole, tmp_path)), -10.0) == (current, error)


def test_without_a_law_a_measurement_near_by_stands_for_it():
    single = xr.Dataset(
        {"dark_current": ("setting", [0.2]), "dark_current_error": ("setting", [0.02])},
        {"setting_temperature": ("setting", [12.0])},
    )
    assert dark_laws(single) == []
    assert dark_current_at(single, 12.5) == (0.2, 0.02)
    assert math.isnan(dark_current_at(single, 20.0)[0])
    assert math.isnan(dark_current_at(single, math.nan)[0])
