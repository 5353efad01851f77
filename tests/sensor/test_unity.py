"""Unity gain of a camera with gain settings: between measured ones, with its error, and never beyond them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench.sensor import unity_gain_iso, with_stated_gain
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


def frames(egain, settings=(0.0, 120.0)):
    return pd.DataFrame({"iso": np.nan, "gain_setting": settings, "egain": egain, "camera": "ASI1600"})


def test_a_header_that_agrees_says_nothing_and_one_that_does_not_is_reported():
    gain = gains([0, 120], error=0.002)
    same, warnings = with_stated_gain(gain, frames([4.0, 1.0047]), ["mono"], 16)
    assert not warnings
    xr.testing.assert_identical(same, gain)
    _, warnings = with_stated_gain(gain, frames([4.0, 1.25]), ["mono"], 16)
    (warning,) = warnings
    assert "gain setting 120" in warning
    assert "EGAIN 1.25" in warning
    assert "0.07812" in warning


def test_a_header_per_adu_of_a_padded_file_agrees_too():
    assert not with_stated_gain(gains([0], error=0.002), frames([0.25], [0.0]), ["mono"], 16)[1]


def test_where_no_flats_are_the_header_is_taken_and_named():
    gain, (warning,) = with_stated_gain(gains([0]), frames([4.0, 1.0]), ["mono"], 16)
    assert gain["gain_setting"].values.tolist() == [0, 120]
    assert gain["gain"].values[1, 0] == 1 / 16
    assert np.isnan(gain["gain_error"].values[1, 0])
    assert "gain setting 120 is what the headers state, EGAIN 1 e-/step of 16 ADU" in warning
    assert with_stated_gain(None, frames([np.nan, np.nan]), ["mono"]) == (None, [])


def test_what_the_gains_of_both_greens_share_does_not_average_out():
    truth, own, shared, settings = 200.0, 0.002, 0.004, np.array([100.0, 400.0])
    pulls = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        true = truth / settings[:, None] * np.ones(2)
        off = own * rng.standard_normal((2, 2)) + shared * rng.standard_normal((2, 1))
        values = {
            "gain": true * (1 + off),
            "gain_error": np.hypot(own, shared) * true,
            "gain_shared_error": shared * true,
        }
        gain = xr.Dataset(
            {name: (("iso", "channel"), value) for name, value in values.items()},
            {"iso": settings, "channel": ["G1", "G2"]},
        )
        found = unity_gain_iso(gain)
        pulls.append(((found.unity_gain_iso - truth) / found.unity_gain_iso_error).item())
    assert 0.9 < np.std(pulls) < 1.1
