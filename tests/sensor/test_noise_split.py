"""Read noise before and after the gain, and what follows from it."""

import numpy as np
import pytest
import xarray as xr

from workbench.sensor import dynamic_range, split_read_noise

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


def test_dynamic_range_is_full_well_over_read_noise():
    read, gain = measured()
    wells = gain.assign(
        saturation=(DIMS, np.full(gain["gain"].shape, 15783.0)), saturation_error=(DIMS, np.full((6, 2), 100.0))
    ).assign_attrs(camera="")
    found = dynamic_range(read, wells)
    np.testing.assert_allclose(found.dynamic_range, np.log2(15783 / read.read_noise_adu))
    share = np.hypot(100 / 15783, 0.01)
    np.testing.assert_allclose(found.dynamic_range_error, share / np.log(2))
