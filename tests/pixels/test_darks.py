"""What is shown of the noise agrees with the noise that was put in."""

from functools import partial

import numpy as np
import pytest
import xarray as xr

from tests.scenes import frames_of, names_of, true_gain
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.pixels import dark_noise, dark_subtraction
from workbench.sensor import read_noise
from workbench.simulate import d7000

CAMERA = d7000(seed=5, shape=(320, 480))
ISO = 800.0


def shoot(count, kind, exposure, temperature=20.0, rate=0.0, start=0):
    shots, names = [(exposure, temperature)] * count, names_of(kind, count)
    return frames_of(CAMERA, kind, shots, rate=rate, seed=lambda number: [start + number], filename=names)


gains = partial(true_gain, CAMERA, error=0.01)


@pytest.fixture(scope="module")
def darks():
    return xr.concat([shoot(2, "dark", 60.0), shoot(4, "dark", 600.0, start=9)], "frame", join="exact")


def test_dark_noise_has_the_width_that_shot_and_read_noise_predict(darks):
    result = dark_noise(darks, gains(), read_noise(shoot(4, "bias", 1 / 8000), progress=False), progress=False)
    attrs = result.attrs
    assert attrs["exposure"] == 600.0
    true = np.sqrt(CAMERA.dark_map[::2, 1::2].mean() * 600 + CAMERA.read_noise(ISO) ** 2 + CAMERA.gain(ISO) ** 2 / 12)
    np.testing.assert_allclose(attrs["sigma"], true, rtol=0.01)
    np.testing.assert_allclose(attrs["expected_sigma"], true, rtol=0.003)
    assert attrs["ks_distance"] < 0.01
    assert attrs["n_pixels"] + attrs["outliers"] == pytest.approx(160 * 240, abs=20)
    assert result.sizes["bin"] <= 201
    width = float(result["bin"].diff("bin").mean())
    np.testing.assert_allclose((result.density * width).sum(), 1)
    assert result["count"].sum() == attrs["n_pixels"]
    np.testing.assert_allclose((result.normal * width).sum(), 1, rtol=1e-3)
    # the centre of the bins carries the mean of the differences, which was taken off
    np.testing.assert_allclose((result["count"] * result["bin"]).sum() / result["count"].sum(), 0, atol=0.01)


@pytest.mark.parametrize("step", [4, 16])
def test_padded_codes_are_binned_by_their_step(step):
    """A histogram of 12 bits in 16 is that of 12 bits, with wider bins, and no comb."""
    rng = np.random.default_rng(1)
    codes = rng.normal(60, 6, (2, 200, 200)).round().astype("uint16")
    gain = gains().isel(channel=[0]).assign_coords(channel=["mono"])
    plain, padded = (
        dark_noise(
            make_cube(factor * codes, cfa_pattern="mono", kind="dark", iso=ISO, exposure=60.0), gain, progress=False
        )
        for factor in (1, step)
    )
    np.testing.assert_array_equal(padded["count"], plain["count"])
    np.testing.assert_allclose(padded["bin"], step * plain["bin"], rtol=1e-9)
    assert padded.attrs["ks_distance"] == pytest.approx(plain.attrs["ks_distance"], rel=1e-9)
    inner = padded["density"].where(abs(padded["bin"]) < padded.attrs["sigma"], drop=True)
    assert (inner > 0).all()


def test_effect_sizes_tell_a_skewed_distribution_from_a_normal_one():
    rng = np.random.default_rng(0)
    y = np.stack([rng.gamma(2, 30, (300, 300)), np.zeros((300, 300))]).round() + 600
    skewed = make_cube(y.astype("uint16"), cfa_pattern="mono", kind="dark", iso=ISO, exposure=1.0)
    gain = gains().isel(channel=[0]).assign_coords(channel=["mono"])
    attrs = dark_noise(skewed, gain, progress=False).attrs
    np.testing.assert_allclose(attrs["skewness"], np.sqrt(2), rtol=0.05)  # of a gamma distribution of shape 2
    assert attrs["ks_distance"] > 0.05
    assert np.isnan(attrs["expected_sigma"])


def test_dark_noise_needs_two_equal_darks_at_an_iso_of_known_gain(darks):
    with pytest.raises(WorkbenchError, match="no 2 darks"):
        dark_noise(darks.isel(frame=[0, 2]), gains(), progress=False)
    with pytest.raises(WorkbenchError, match="gain is measured"):
        dark_noise(darks, gains(200.0), progress=False)


def test_a_dark_kept_out_of_the_master_is_left_with_temporal_noise_only(darks):
    result = dark_subtraction(darks, gain=gains(), progress=False)
    attrs = result.attrs
    assert (attrs["kind"], attrs["filename"], attrs["darks"], attrs["units"]) == ("dark", "dark_3.dng", 3, "electron")
    pattern = CAMERA.dark_map.std() * 600
    assert attrs["std_before"] > 0.9 * np.hypot(pattern, attrs["expected_std"])
    np.testing.assert_allclose(attrs["std_after"], attrs["expected_std"], rtol=0.02)
    assert result.before.size <= 1e5
    hottest = np.unravel_index(np.argmax(CAMERA.dark_map), CAMERA.shape)
    crop = result.before.sel(y=hottest[0] + 0.5, x=hottest[1] + 0.5, method="nearest")
    assert crop == result.before.max()


def test_a_light_with_matching_darks_is_shown_instead(darks):
    lights = xr.concat(
        [shoot(1, "light", 60.0, temperature=10.0, rate=2.0), shoot(1, "light", 600.0, rate=2.0)], "frame", join="exact"
    )
    result = dark_subtraction(darks, lights, progress=False)
    assert (result.attrs["kind"], result.attrs["exposure"], result.attrs["units"]) == ("light", 600.0, "adu")
    assert np.isnan(result.attrs["expected_std"])
    cold = lights.assign_coords(temperature=("frame", [-10.0, -10.0]))
    assert dark_subtraction(darks, cold, progress=False).attrs["kind"] == "dark"


def test_dark_subtraction_needs_three_equal_darks(darks):
    with pytest.raises(WorkbenchError, match="no 3 darks"):
        dark_subtraction(darks.isel(frame=[0, 1]), progress=False)
