"""The noise budget: its terms are those that frames of the virtual camera show."""

import numpy as np
import pytest
import xarray as xr

from workbench.core.dark import dark_current_at
from workbench.core.errors import WorkbenchError
from workbench.core.noise import SOURCES, mean_at_settings, mean_of_channels, noise_budget, variance_terms
from workbench.simulate import d7000, expose


def sensor_of(camera, isos):
    """A perfect measurement of the virtual camera."""
    return xr.Dataset(
        {
            "gain": ("iso", [camera.gain(iso) for iso in isos]),
            "gain_error": ("iso", [0.0] * len(isos)),
            "read_noise": ("iso", [camera.read_noise(iso) for iso in isos]),
            "read_noise_error": ("iso", [0.05] * len(isos)),
            "dark_current_reference": camera.mean_dark_current(20.0),
            "dark_current_reference_error": 0.01,
            "reference_temperature": 20.0,
            "doubling_temperature": camera.doubling_temperature,
        },
        {"iso": np.array(isos, float)},
    )


@pytest.mark.parametrize(("iso", "exposure", "temperature"), [(200, 1.0, 20.0), (1600, 30.0, 20.0), (200, 300.0, 5.0)])
def test_the_sum_of_the_terms_is_the_variance_between_two_frames(iso, exposure, temperature):
    camera = d7000(seed=3, shape=(240, 360), hot_fraction=0.0)
    rate = 3.0
    one, two = (
        expose(camera, rate, iso=iso, exposure=exposure, temperature=temperature, seed=(1, number)).astype(float)
        for number in range(2)
    )
    middle = (slice(100, 140), slice(140, 220))
    measured = np.var((one - two)[middle], ddof=1) / 2 * camera.gain(iso) ** 2
    light = camera.illumination()[middle].mean()
    budget = noise_budget(sensor_of(camera, [iso]), rate=rate * light, exposure=[exposure], temperature=temperature)
    expected = float(budget.variance.sum())
    assert measured == pytest.approx(expected, rel=5 * np.sqrt(2 / 3200))


def test_response_shows_only_where_no_flat_was_applied():
    camera = d7000()
    with_flat = noise_budget(sensor_of(camera, [100, 800]), rate=5.0, exposure=[10.0, 100.0])
    without = noise_budget(sensor_of(camera, [100, 800]), rate=5.0, exposure=[10.0, 100.0], prnu=0.01)
    assert not with_flat.variance.sel(source="response").any()
    assert without.variance.sel(source="response", exposure=100.0).values == pytest.approx(25.0)
    assert np.allclose(without.share.sum("source"), 1)
    assert (without.share.sel(source="read noise").diff("exposure") < 0).all()
    assert float(without.variance_error.sel(source="read noise").isel(iso=0, exposure=0)) == pytest.approx(
        2 * camera.read_noise(100) * 0.05
    )


def test_the_terms_go_with_arrays():
    terms = variance_terms(np.array([10.0, 1000.0]), dark=4.0, read_noise=2.0, gain=1.0, prnu=0.01)
    assert tuple(terms) == SOURCES
    assert terms["response"] == pytest.approx([0.01, 100.0])


def test_the_dark_currents_share_has_the_laws_error():
    sensor = sensor_of(d7000(), [200]).assign(doubling_temperature_error=0.2, doubling_correlation=0.5)
    budget = noise_budget(sensor, rate=1.0, exposure=[60.0], temperature=-10.0)
    current, error = dark_current_at(sensor, -10.0)
    dark = budget.sel(source="dark current").isel(iso=0, exposure=0)
    assert float(dark.variance) == pytest.approx(60 * current)
    assert float(dark.variance_error) == pytest.approx(60 * error)
    assert budget.attrs["dark_current"] == current


def test_what_is_missing_is_named():
    sensor = sensor_of(d7000(), [200])
    sensor["gain"] = sensor["gain"] * np.nan
    with pytest.raises(WorkbenchError, match="no ISO has both a gain and a read noise"):
        noise_budget(sensor, rate=1.0, exposure=[1.0])
    sensor = sensor_of(d7000(), [200]).drop_vars("doubling_temperature")
    with pytest.raises(WorkbenchError, match=r"the dark current at 20 °C is not known: shoot darks"):
        noise_budget(sensor, rate=1.0, exposure=[1.0])


def test_the_error_of_a_mean_of_channels_holds_what_they_share():
    """Gains with own errors of 0.01 and a shared one of 0.02; the read noise is in proportion to the gain."""
    rng = np.random.default_rng(4)
    gain, read, trials = 0.5 + np.zeros(4), 3.0 + np.zeros(4), 20_000
    off = rng.normal(0, 0.02, (trials, 1)) + rng.normal(0, 0.01, (trials, 4))
    sensor = xr.Dataset(
        {
            "gain": (("iso", "channel"), gain + off),
            "gain_error": (("iso", "channel"), np.full((trials, 4), np.hypot(0.02, 0.01))),
            "gain_shared_error": (("iso", "channel"), np.full((trials, 4), 0.02)),
            "read_noise": (("iso", "channel"), read * (gain + off) / gain),
            "read_noise_error": (("iso", "channel"), np.full((trials, 4), 3.0 / 0.5 * np.hypot(0.02, 0.01))),
        }
    )
    for name, truth in (("gain", 0.5), ("read_noise", 3.0)):
        mean, error = mean_at_settings(sensor, name)
        assert np.std((mean - truth) / error) == pytest.approx(1, abs=0.02)
        alone, own = mean_at_settings(sensor.drop_vars("gain_shared_error"), name)
        assert np.std((alone - truth) / own) > 1.7  # as if independent: far too small


def test_a_mean_of_channels_leaves_out_what_is_unknown():
    values, errors = np.array([[1.0, np.nan, 3.0], [np.nan] * 3, [2.0, 2.0, 2.0]]), np.array([0.3, np.nan, 0.4])
    mean, error = mean_of_channels(values, np.broadcast_to(errors, (3, 3)))
    np.testing.assert_allclose(mean, [2.0, np.nan, 2.0])
    np.testing.assert_allclose(error, [0.25, np.nan, np.nan])
    bound = mean_of_channels([2.0, 3.0], [np.inf, np.inf], [np.inf, np.inf])
    assert (float(bound[0]), float(bound[1])) == (2.5, np.inf)
