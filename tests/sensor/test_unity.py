"""Unity gain of a camera with gain settings: between measured ones, with its error, and never beyond them."""

import numpy as np
import pytest
import xarray as xr

from workbench.sensor import unity_gain_iso
from workbench.simulate.capture import cooled


def gains(settings, step=16, error=0.003, seed=0):
    body, rng = cooled((8, 8), step=step), np.random.default_rng(seed)
    true = np.array([[body.gain(setting)] for setting in settings])
    data = {"gain": true * (1 + error * rng.standard_normal(true.shape)), "gain_error": error * true}
    return xr.Dataset(
        {name: (("gain_setting", "channel"), values) for name, values in data.items()},
        {"gain_setting": np.array(settings, float), "channel": ["mono"]},
        {"step": step},
    )


@pytest.mark.parametrize("step", [1, 4, 16])
def test_it_lies_between_the_settings_that_bracket_one_electron_a_step(step):
    truth = 200 * np.log10(4.0)
    found = [unity_gain_iso(gains([0, 60, 180, 300], step, seed=seed)) for seed in range(200)]
    pulls = [((one.unity_gain_iso - truth) / one.unity_gain_iso_error).item() for one in found]
    assert abs(np.mean(pulls)) < 0.3
    assert 0.85 < np.std(pulls) < 1.15
    assert not any(one.attrs["warnings"] for one in found)


@pytest.mark.parametrize(("settings", "words"), [([0, 60], "not reached"), ([60], "one gain setting only (60)")])
def test_beyond_the_measured_settings_nothing_is_given(settings, words):
    found = unity_gain_iso(gains(settings))
    assert np.isnan(found.unity_gain_iso)
    (warning,) = found.attrs["warnings"]
    assert words in warning
    assert "ISO" not in warning
