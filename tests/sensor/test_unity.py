"""Unity gain and the split of the read noise: between measured settings, with their errors, and never beyond."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench.sensor import split_read_noise, unity_gain_iso, with_stated_gain
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


ISOS = np.array([100.0, 200, 400, 800, 1600, 3200])
BEFORE, AFTER, UNITY = 2.44, 0.9, 213.0
DIMS = ("iso", "channel")


def measured(isos=ISOS, *, after=AFTER, rng=None, noise_error=0.01, gain_error=0.01, extra=0.0):
    """Read noise and gain of a camera that follows the law, with errors drawn as stated."""
    shape = (len(isos), 2)
    g = np.broadcast_to((UNITY / np.asarray(isos))[:, None], shape)
    adu = np.hypot(BEFORE / g, after) * (1 + extra * (np.asarray(isos)[:, None] > 500))
    if rng is not None:
        adu = adu * (1 + noise_error * rng.standard_normal(shape))
        g = g * (1 + gain_error * rng.standard_normal(shape))
    coords = {"iso": isos, "channel": ["G1", "G2"]}
    read = xr.Dataset({"read_noise_adu": (DIMS, adu), "read_noise_adu_error": (DIMS, noise_error * adu)}, coords)
    return read, xr.Dataset({"gain": (DIMS, g), "gain_error": (DIMS, gain_error * g)}, coords)


def test_the_split_is_unbiased_and_its_errors_hold():
    rng = np.random.default_rng(1)
    truth = {
        "before_gain": BEFORE,
        "after_gain": AFTER,
        # σ_post g = σ_pre √(1.05² − 1) with g = 213/ISO
        "invariance_iso": UNITY * AFTER / (BEFORE * np.sqrt(1.05**2 - 1)),
    }
    splits = [split_read_noise(*measured(rng=rng)) for _ in range(300)]
    for name, value in truth.items():
        pulls = np.array([(one[name].item() - value) / one[f"{name}_error"].item() for one in splits])
        assert abs(pulls.mean()) < 1 / 3, name
        assert 0.60 < (abs(pulls) < 1).mean() < 0.76, name
    assert sum(bool(one.attrs["warnings"]) for one in splits) < 6


def test_the_invariance_iso_is_where_the_floor_is_near():
    split = split_read_noise(*measured(), within=0.2)
    at = split.invariance_iso.item()
    np.testing.assert_allclose(np.hypot(BEFORE, AFTER * UNITY / at), 1.2 * BEFORE, rtol=1e-6)


def test_what_the_settings_do_not_tell_is_said():
    one = split_read_noise(*measured(ISOS[:1]))
    assert np.isnan(one.before_gain)
    assert "one ISO setting" in one.attrs["warnings"][0]
    silent = split_read_noise(*measured(after=0.0))
    assert np.isnan(silent.after_gain)
    assert np.isnan(silent.invariance_iso)
    assert "nothing is gained" in silent.attrs["warnings"][0]
    far = split_read_noise(*measured(ISOS[3:], after=3.0, noise_error=1e-3, gain_error=1e-3))
    assert (
        "lies outside" in split_read_noise(*measured(ISOS[3:], noise_error=1e-4, gain_error=1e-4)).attrs["warnings"][0]
    )
    assert not far.attrs["warnings"]


def test_a_camera_that_changes_its_law_is_told():
    split = split_read_noise(*measured(extra=0.3))
    assert "does not follow one law" in split.attrs["warnings"][0]


@pytest.mark.parametrize("missing", ["read", "gain"])
def test_settings_of_one_kind_only_do_not_count(missing):
    read, gain = measured()
    few = {"read": (read.isel(iso=slice(2)), gain), "gain": (read, gain.isel(iso=slice(2)))}[missing]
    assert split_read_noise(*few).attrs["settings"] == 2
