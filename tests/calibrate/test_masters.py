"""Masters against the virtual camera's truth: unbiased, and the variance map is the measured scatter."""

import re

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, master_bias, master_dark, master_flat
from workbench.calibrate.masters import plane_means
from workbench.calibrate.noise import noise_of_masters
from workbench.core.cube import make_cube
from workbench.core.errors import StageError, WorkbenchError


@pytest.fixture(scope="module")
def noise(rig):
    return SensorNoise(rig.gain, rig.read, iso=rig.iso)


@pytest.fixture(scope="module")
def bias(rig):
    return master_bias(rig.bias, progress=False)


def unbiased(master, truth, where=slice(None)):
    """The mean error in units of its own standard error."""
    error = (master["signal"].values - truth)[where].astype(float)
    return error.mean() / np.sqrt(master["variance"].values[where].astype(float).mean() / error.size)


def test_master_bias_is_unbiased_and_its_variance_is_the_scatter(rig, bias):
    chi, error = rig.chi_square(bias["signal"], rig.true_bias, bias["variance"])
    assert chi == pytest.approx(1, abs=4 * error)
    assert abs(unbiased(bias, rig.true_bias)) < 4
    read = (rig.read / rig.gain) ** 2 + 1 / 12
    assert np.reshape(bias.attrs["model"], (4, 2))[:, 0] == pytest.approx(np.full(4, read), rel=0.02)
    assert bias.attrs["frames"] == 16
    assert bias.attrs["warnings"] == []


@pytest.mark.parametrize("told", [True, False])
def test_master_dark_is_unbiased_and_its_variance_is_the_scatter(rig, bias, noise, told):
    master = master_dark(rig.dark, bias, noise if told else None, progress=False)
    chi, error = rig.chi_square(master["signal"], rig.true_dark, master["variance"])
    assert chi == pytest.approx(1, abs=4 * error)
    assert abs(unbiased(master, rig.true_dark)) < 4
    warm = rig.camera.dark_map > 3 * rig.camera.dark_current
    scatter = (rig.dark.values.astype(float).var(axis=0, ddof=1) / 16)[warm]
    assert master["variance"].values[warm].mean() == pytest.approx(scatter.mean(), rel=0.1 if told else 0.25)


def test_the_gain_shows_in_the_shot_noise_of_warm_pixels(rig, bias):
    master = master_dark(rig.dark, bias, progress=False)
    slopes = np.reshape(master.attrs["model"], (4, 2))[:, 1]
    assert 1 / slopes.mean() == pytest.approx(rig.gain, rel=0.15)


@pytest.mark.parametrize("told", [True, False])
def test_master_flat_is_unbiased_and_its_variance_is_the_scatter(rig, bias, noise, told):
    master = master_flat(rig.flat, bias=bias, noise=noise if told else None, progress=False)
    chi, error = rig.chi_square(master["signal"], rig.true_flat, master["variance"])
    assert chi == pytest.approx(1, abs=4 * error)
    assert abs(unbiased(master, rig.true_flat)) < 4
    assert plane_means(master["signal"].values, rig.cell) == pytest.approx(np.ones(4), abs=1e-6)
    assert master.attrs["chi2"] == pytest.approx(np.ones(4), abs=0.02)
    if not told:
        gain = 1 / np.reshape(master.attrs["model"], (4, 2))[:, 1]
        assert gain == pytest.approx(np.full(4, rig.gain), rel=0.03)


def test_a_drifting_lamp_costs_nothing(rig, bias, noise):
    steady = rig.cube("flat", 16, 0.02, rig.lamp, series=3)
    fading = rig.cube("flat", 16, 0.02, rig.lamp, series=3, scale=np.geomspace(1.3, 0.5, 16))
    results = {}
    for name, flats in (("steady", steady), ("fading", fading)):
        master = master_flat(flats, bias=bias, noise=noise, progress=False)
        chi, error = rig.chi_square(master["signal"], rig.true_flat, master["variance"])
        assert chi == pytest.approx(1, abs=4 * error), name
        results[name] = master
    share = results["fading"].attrs["level"][1] / results["steady"].attrs["level"][1]
    assert share == pytest.approx(np.geomspace(1.3, 0.5, 16).mean(), rel=0.01)
    # fading to less light: the noise is that of the light collected, no more
    ratio = float(results["fading"]["variance"].mean() / results["steady"]["variance"].mean())
    assert ratio == pytest.approx(1 / share, rel=0.03)
    assert results["fading"].attrs["lamp_drift"][0] > 1.2


def test_own_darks_take_the_dark_signal_out_of_long_flats(rig, bias, noise):
    rate = rig.lamp * 0.02 / 60.0
    flats = rig.cube("flat", 8, 60.0, rate, celsius=34.0, series=6)
    darkflats = rig.cube("darkflat", 16, 60.0, celsius=34.0, series=7)
    own = master_dark(darkflats, noise=noise, progress=False)
    good = master_flat(flats, dark=own, bias=bias, noise=noise, progress=False)
    chi, error = rig.chi_square(good["signal"], rig.true_flat, good["variance"])
    assert chi == pytest.approx(1, abs=4 * error)
    assert good.attrs["offset"] == "darkflat"
    wrong = master_flat(flats, bias=bias, noise=noise, progress=False)
    assert rig.chi_square(wrong["signal"], rig.true_flat, wrong["variance"])[0] > 2


def test_a_cosmic_ray_in_a_dark_leaves_no_trace(rig, bias, noise):
    frames = rig.dark.values.copy()
    frames[3, 50, 60] += 800
    struck = rig.dark.copy(data=frames)
    clean, got = (master_dark(cube, bias, noise, progress=False) for cube in (rig.dark, struck))
    assert got["count"].values[50, 60] == 15
    assert abs(float(got["signal"][50, 60] - clean["signal"][50, 60])) < 4 * float(got["variance"][50, 60]) ** 0.5


def test_saturated_and_unlit_flats_are_set_aside_and_named(rig, bias, noise):
    frames = rig.flat.values.copy()
    frames[2] = 16383
    frames[5] = rig.bias.values[0]
    mixed = rig.flat.copy(data=frames)
    master = master_flat(mixed, bias=bias, noise=noise, progress=False)
    assert master.attrs["frames"] == 14
    said = " ".join(master.attrs["warnings"])
    assert "flat_3_2.dng" in said
    assert "saturated" in said
    assert "flat_3_5.dng" in said
    assert "has too little light" in said
    chi, error = rig.chi_square(master["signal"], rig.true_flat, master["variance"])
    assert chi == pytest.approx(1, abs=4 * error)
    with pytest.raises(WorkbenchError, match="no flat can be used.*saturated.*expose it less"):
        master_flat(rig.flat.copy(data=np.full_like(frames, 16383)), bias=bias, noise=noise, progress=False)
    with pytest.raises(WorkbenchError, match="has too little light"):
        master_flat(
            rig.flat.copy(data=np.resize(rig.bias.values, frames.shape)), bias=bias, noise=noise, progress=False
        )


def test_a_saturated_region_becomes_missing_and_the_rest_stays_right(rig, bias, noise):
    frames = rig.flat.values.copy()
    frames[:, 20:40, 30:60] = 16383
    master = master_flat(rig.flat.copy(data=frames), bias=bias, noise=noise, progress=False)
    lost = np.isnan(master["signal"].values)
    assert lost[20:40, 30:60].all()
    assert lost.sum() == 20 * 30
    truth = rig.true_flat / rig.plane_of(
        plane_means(np.where(lost, np.nan, rig.true_flat), rig.cell), "RGGB", lost.shape
    )
    chi, error = rig.chi_square(master["signal"], truth, master["variance"], ~lost)
    assert chi == pytest.approx(1, abs=4 * error)


def test_flats_clipped_in_the_middle_are_refused_and_a_few_never_give_the_gain(rig, bias):
    bright = np.minimum(600 + (rig.flat.values - 600.0) * 1.6, 11000).astype("uint16")  # clips green in the middle
    cut = rig.flat.copy(data=bright).assign_attrs(white_level=np.nan)
    with pytest.raises(WorkbenchError, match=r"no flat can be used: flats/flat_3_0.dng is saturated .*G1.*15 more"):
        master_flat(cut, bias=bias, progress=False)
    mixed = rig.flat.values.copy()
    mixed[:6] = bright[:6]
    master = master_flat(rig.flat.copy(data=mixed).assign_attrs(white_level=np.nan), bias=bias, progress=False)
    assert master.attrs["frames"] == 10
    assert any("6 of 16 flat frames left out: flats/flat_3_0.dng is saturated" in t for t in master.attrs["warnings"])
    gain = 1 / np.reshape(master.attrs["model"], (4, 2))[:, 1]
    assert gain == pytest.approx(np.full(4, rig.gain), rel=0.03)
    spots = rig.flat.values.copy()
    spots[:, 20:40, 30:60] = 16383  # 0.7 % of the frame
    master = master_flat(rig.flat.copy(data=spots), bias=bias, progress=False)
    found, _ = noise_of_masters(rig.light[0], bias, None, master)
    assert not found.known
    assert any("gain does not come from them" in text for text in master.attrs["warnings"])


def test_a_wrong_noise_model_is_noticed(rig, bias):
    master = master_flat(rig.flat, bias=bias, noise=SensorNoise(rig.gain * 2, rig.read), progress=False)
    assert master.attrs["chi2"] == pytest.approx(np.full(4, 2.0), rel=0.05)
    assert any("do not scatter as the noise model says" in word for word in master.attrs["warnings"])
    chi, error = rig.chi_square(master["signal"], rig.true_flat, master["variance"])
    assert chi == pytest.approx(1, abs=4 * error)  # the variance is that of the frames all the same


def test_darks_of_another_offset_show_by_the_noise_that_they_lack(rig, bias, noise):
    def said(dark):
        return [text for text in master_dark(dark, bias, noise, progress=False).attrs["warnings"] if "lie" in text]

    assert said(rig.dark) == []
    (text,) = said(rig.dark.copy(data=rig.dark.values + np.uint16(60)))
    assert float(re.search(r"some ([\d.]+) ADU of it have not the noise", text)[1]) == pytest.approx(60, rel=0.15)


def test_what_does_not_belong_together_is_refused(rig, bias, noise):
    other_iso = rig.cube("flat", 2, 0.02, rig.lamp / 4, iso=800, series=8)
    with pytest.raises(WorkbenchError, match="ISO 800.*ISO 200"):
        master_flat(other_iso, bias=bias, noise=noise, progress=False)
    two = rig.cube("dark", 2, 10.0, series=9)
    mixed = two.assign_coords(exposure=("frame", [10.0, 20.0]))
    with pytest.raises(WorkbenchError, match=r"exposure.*10 .*20"):
        master_dark(mixed, bias, noise, progress=False)
    warm = two.assign_coords(temperature=("frame", [5.0, 25.0]))
    with pytest.raises(WorkbenchError, match=r"5 °C.*25 °C"):
        master_dark(warm, bias, noise, progress=False)
    with pytest.raises(WorkbenchError, match="wants bias frames and got dark"):
        master_bias(rig.dark, progress=False)
    with pytest.raises(StageError, match="calibrated"):
        master_bias(rig.bias.assign_attrs(stage="calibrated"), progress=False)
    with pytest.raises(WorkbenchError, match="camera"):
        master_flat(rig.flat.assign_attrs(camera="another"), bias=bias, noise=noise, progress=False)
    with pytest.raises(WorkbenchError, match="360 x 240.*358 x 240|358 x 240.*360 x 240"):
        master_flat(rig.flat.isel(x=slice(2, None)), bias=bias, noise=noise, progress=False)
    unknown = rig.flat.assign_attrs(black_level=(np.nan,) * 4)
    with pytest.raises(WorkbenchError, match="the flats' offset is not known"):
        master_flat(unknown, noise=noise, progress=False)


def test_darks_whose_bias_was_subtracted_already_are_noticed(rig, bias, noise):
    subtracted = (rig.dark.values.astype("float32") - rig.true_bias).astype("float32")
    cube = rig.dark.copy(data=subtracted)
    with pytest.raises(WorkbenchError, match="subtracted already"):
        master_dark(cube, bias, noise, progress=False)


def test_two_frames_are_enough_and_one_wants_the_noise(rig, bias, noise):
    pair = master_bias(rig.bias.isel(frame=[0, 1]), progress=False)
    chi, error = rig.chi_square(pair["signal"], rig.true_bias, pair["variance"])
    assert chi == pytest.approx(1, abs=5 * error)
    assert any("only 2 bias frames" in word for word in pair.attrs["warnings"])
    one = master_bias(rig.bias.isel(frame=[0]), noise, progress=False)
    assert float(one["variance"].mean()) == pytest.approx((rig.read / rig.gain) ** 2 + 1 / 12, rel=1e-5)


def test_one_frame_alone_gives_an_upper_bound_of_its_noise_and_says_so(rig, bias):
    one = master_bias(rig.bias.isel(frame=[0]), progress=False)
    read = (rig.read / rig.gain) ** 2 + 1 / 12
    assert read < float(one["variance"].median()) < 1.3 * read
    assert any("only one bias frame: cosmic rays stay" in word for word in one.attrs["warnings"])
    flat = master_flat(rig.flat.isel(frame=[0]), bias=bias, progress=False)
    chi, _ = rig.chi_square(flat["signal"], rig.true_flat, flat["variance"])
    assert 0.5 < chi < 1
    dark = master_dark(rig.dark.isel(frame=[0]), bias, progress=False)
    ordinary = rig.camera.dark_map < np.percentile(rig.camera.dark_map, 99)
    assert 0.5 < rig.chi_square(dark["signal"], rig.true_dark, dark["variance"], ordinary)[0] < 1.05


def test_mono_frames_have_one_plane(rig):
    data = np.random.default_rng(1).normal(500, 4, (6, 50, 71)).round().astype("uint16")
    master = master_bias(make_cube(data, cfa_pattern="mono", kind="bias", iso=100), progress=False)
    assert len(master.attrs["chi2"]) == 1
    assert float(master["variance"].mean()) == pytest.approx(16.1 / 6, rel=0.05)
