"""The standard's estimates on its own reference data, and on a virtual camera; spectrograms of a fixed pattern."""

import numpy as np
import pandas as pd
import pytest

from workbench.core.errors import WorkbenchError
from workbench.pixels import emva_spatial, emva_temporal, fixed_pattern, stack_cube, stack_frames
from workbench.simulate import d7000, expose

# what the reference implementation published for its set 001 (documentation of the emva1288 package)
PUBLISHED = {
    "K": 0.280769280926, "inverse_K": 3.56164319936, "R": 0.126726922819, "QE": 45.1356082834,
    "sigma_y_dark": 3.07341849276, "sigma_d": 10.8980275235, "u_p_min": 25.3600660517, "u_p_sat": 30957.0,
    "u_e_sat": 13972.6302563, "SNR_max": 118.205880802, "SNR_max_bit": 6.88515800189,
    "inverse_SNR_max": 0.845981598556, "DR": 1220.69871336, "DR_bit": 10.2534914503, "LE_min": -0.615797581149,
    "LE_max": 0.480448332752, "u_I_mean": 28.4074312749, "index_u_ysat": 36,
}  # fmt: skip


@pytest.fixture(scope="module")
def table(real_data):
    return pd.read_csv(real_data / "emva1288-set001" / "table.csv")


@pytest.mark.parametrize(("kind", "published"), [("plain", 0.280769280926), ("driftfree", 0.2800626484911438)])
def test_system_gain_of_reference_set_001(table, kind, published):
    found = emva_temporal(
        table["exposure_ns"] * 1e-9,
        None,
        table["mean_bright_dn"],
        table[f"variance_bright_{kind}_dn2"],
        table["mean_dark_dn"],
        table[f"variance_dark_{kind}_dn2"],
    )
    np.testing.assert_allclose(found["K"], published, rtol=1e-9)
    np.testing.assert_allclose(found["inverse_K"] * found["K"], 1)
    np.testing.assert_allclose(found["u_I_mean"] * found["K"], 28.4074 * 0.280769280926, rtol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_quantity_of_reference_set_001(table, name):
    found = emva_temporal(
        table["exposure_ns"] * 1e-9,
        table["photons_per_pixel"],
        table["mean_bright_dn"],
        table["variance_bright_plain_dn2"],
        table["mean_dark_dn"],
        table["variance_dark_plain_dn2"],
    )
    np.testing.assert_allclose(found[name], PUBLISHED[name], rtol=1e-6)  # its own fits stop at some 1e-8
    if name == "u_I_mean":  # 8.2628 was published, the root, before the standard's square
        np.testing.assert_allclose(np.sqrt(found["u_I_var"]), 8.26281507974, rtol=1e-6)


def test_tables_that_do_not_fit_together_are_refused():
    with pytest.raises(WorkbenchError, match="one number a light level"):
        emva_temporal([1, 2], None, [1, 2], [1, 2], [0], [0, 0])
    with pytest.raises(WorkbenchError, match="below 70 %"):
        emva_temporal([1, 2], None, [100, 101], [5, 4], [0, 0], [0, 0])
    two = emva_temporal([1, 2], None, [10, 101], [5, 6], [0, 0], [0, 0])
    assert np.isnan(two["u_I_mean"])  # the standard wants more than two exposures


def test_flats_of_one_exposure_show_no_linearity_and_no_numpy_warning():
    level = np.array([10.0, 40, 80, 120, 160, 200])
    found = emva_temporal(np.ones(6), None, level + 5, 2 * level + 1, np.full(6, 5.0), np.ones(6))
    assert np.isnan(found["LE_min"])
    assert found["K"] == pytest.approx(2.0)


@pytest.fixture(scope="module")
def camera():
    return d7000(
        seed=5, shape=(160, 200), cfa_pattern="mono", vignetting=0.0, prnu=0.01, pixel_offset=1.0, column_offset=0.3,
        row_offset=0.2, dark_current=20.0, hot_fraction=0.0, dark_spread=0.02,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(camera):
    """The standard's measurement of the virtual camera: a constant lamp, the exposure varied, stacks of 50."""
    rate = 80_000.0

    def shoot(lit, exposure, seed):
        return expose(camera, rate * lit, iso=100, exposure=exposure, seed=seed)

    def moments(lit, exposure, n):
        pair = np.array([shoot(lit, exposure, (series, lit, n)) for series in (1, 2)], float)
        return pair.mean(), np.square(pair[0] - pair[1]).mean() / 2

    exposures = np.linspace(0.005, 0.5, 40)
    (dark, dark_variance), (mean, variance) = (
        np.transpose([moments(lit, exposure, n) for n, exposure in enumerate(exposures)]) for lit in (0, 1)
    )
    found = emva_temporal(exposures, rate * exposures, mean, variance, dark, dark_variance)
    stacks = [stack_frames(shoot(lit, 0.2, (3 + lit, n)) for n in range(50)) for lit in (0, 1)]
    return found | emva_spatial(*stacks, found["K"])


def test_images_give_the_virtual_cameras_truth(camera, measured):
    gain = camera.gain(100)
    np.testing.assert_allclose(measured["K"], 1 / gain, rtol=0.01)
    np.testing.assert_allclose(measured["QE"], 100, rtol=0.012)
    np.testing.assert_allclose(measured["sigma_d"], camera.read_noise(100), rtol=0.04)
    full = (camera.white_level - camera.black_level) * gain
    np.testing.assert_allclose(measured["u_e_sat"], full, rtol=0.05)  # the steps of the exposure are 2.5 %
    np.testing.assert_allclose(measured["SNR_max"], np.sqrt(full), rtol=0.03)
    assert abs(measured["LE_min"]) < 0.5
    assert abs(measured["LE_max"]) < 0.5
    np.testing.assert_allclose(measured["DR"], full / (camera.read_noise(100) + 0.5 + 0.1), rtol=0.08)
    assert abs(measured["u_I_mean"] - 20) < 20  # 0.5 s is short for 20 e-/s


def test_images_give_the_spatial_parts(camera, measured):
    gain, offsets = camera.gain(100), camera.offset_map
    rows, columns = offsets.mean(axis=1), offsets.mean(axis=0)
    pixel = (offsets - rows[:, None] - columns + offsets.mean()).std()
    np.testing.assert_allclose(measured["DSNU1288"], offsets.std() * gain, rtol=0.02)
    np.testing.assert_allclose(measured["DSNU1288_pixel"], pixel * gain, rtol=0.02)
    np.testing.assert_allclose(measured["DSNU1288_row"], camera.row_offset * gain, rtol=0.2)
    np.testing.assert_allclose(measured["DSNU1288_col"], camera.column_offset * gain, rtol=0.2)
    np.testing.assert_allclose(measured["DSNU1288_highpass"], offsets.std() * gain, rtol=0.03)
    for name in ("PRNU1288", "PRNU1288_pixel", "PRNU1288_highpass"):
        np.testing.assert_allclose(measured[name], 100 * camera.response_map.std(), rtol=0.02)
    assert not measured["PRNU1288_row"] > 0.15


def test_the_high_pass_takes_vignetting_out():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-1:1:120j, -1:1:160j]
    shape = y.shape
    light = 5000 * (1 - 0.3 * (x**2 + y**2)) * rng.normal(1, 0.008, shape)
    dark = stack_frames(20 + rng.normal(0, 3, (10, *shape)))
    bright = stack_frames(20 + light + rng.normal(0, 40, (10, *shape)))
    found = emva_spatial(dark, bright, 1.0)
    assert found["PRNU1288"] > 5
    shading = 1 - 0.3 * (x**2 + y**2)
    np.testing.assert_allclose(
        found["PRNU1288_highpass"], 0.8 * np.sqrt((shading[9:-9, 9:-9] ** 2).mean()) / shading.mean(), rtol=0.02
    )


def test_a_stack_of_one_frame_is_refused():
    with pytest.raises(WorkbenchError, match="stack of fifty"):
        emva_spatial(stack_frames([np.zeros((4, 6))]), None, 1.0)


def test_stripes_stand_out_in_the_spectrogram(striped):
    _, bias, _ = striped
    stripes = bias.values + np.tile([0, 0, 0, 4], 80).astype("uint16")  # every second column of two channels
    found = fixed_pattern(stack_cube(bias.copy(data=stripes), progress=False), "G1")
    assert float(found.along_rows.idxmax("frequency")) == 0.5
    assert found.along_rows.max() > 5 * found.along_columns.max()
    calm = fixed_pattern(stack_cube(bias, progress=False), "G1")
    assert calm.along_columns.sel(frequency=slice(0.1, 0.5)).std() < 0.3 * calm.along_columns.mean()
    with pytest.raises(WorkbenchError, match="channel 'X'"):
        fixed_pattern(stack_cube(bias, progress=False), "X")
