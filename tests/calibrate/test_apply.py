"""Calibrated lights against the light that truly fell, with the variance they claim."""

from dataclasses import replace

import dask
import numpy as np
import pytest

from workbench.calibrate import SensorNoise, calibrate, make_masters
from workbench.calibrate.apply import DEFECT, MISSING, SATURATED, Tables, calibrate_frame
from workbench.calibrate.planes import REACH
from workbench.core.errors import StageError, WorkbenchError
from workbench.core.mosaic import crop


@pytest.fixture(scope="module")
def masters(rig):
    noise = SensorNoise(rig.gain, rig.read, iso=rig.iso)
    return make_masters(rig.light, bias=rig.bias, dark=rig.dark, flat=rig.flat, noise=noise, progress=False)


@pytest.fixture(scope="module")
def calibrated(rig, masters):
    return calibrate(rig.light, masters).compute()


def test_the_signal_is_the_true_light_and_the_variance_its_scatter(rig, calibrated):
    for number, truth in enumerate(rig.true_light):
        clean = calibrated["mask"].values[number] == 0
        got, variance = (calibrated[name].values[number] for name in ("signal", "variance"))
        chi, error = rig.chi_square(got, truth, variance, clean)
        assert chi == pytest.approx(1, abs=4 * error)
        bright = clean & (truth > 5000)
        assert bright.sum() > 20
        assert rig.chi_square(got, truth, variance, bright)[0] == pytest.approx(1, abs=4 * np.sqrt(2 / bright.sum()))


def test_the_variance_of_the_master_shows_where_few_frames_make_it_matter(rig):
    noise = SensorNoise(rig.gain, rig.read, iso=rig.iso)
    few = {"bias": rig.bias[:2], "dark": rig.dark[:2], "flat": rig.flat[:2]}
    masters = make_masters(rig.light, **few, noise=noise, progress=False)
    got = calibrate(rig.light, masters).compute()
    alone = make_masters(rig.light, bias=rig.bias, dark=rig.dark, flat=rig.flat, noise=noise, progress=False)
    share = float((got["variance"] / calibrate(rig.light, alone).compute()["variance"]).median())
    assert share > 1.05  # 16 of the lights' 750 e-² are two darks', 32 two flats'
    for number, truth in enumerate(rig.true_light):
        clean = got["mask"].values[number] == 0
        chi, error = rig.chi_square(got["signal"].values[number], truth, got["variance"].values[number], clean)
        assert chi == pytest.approx(1, abs=5 * error)


def test_negatives_stay_so_that_the_noise_averages_to_zero(rig, masters):
    closed = rig.cube("light", 4, rig.exposure, series=21).assign_coords(filename=("frame", [""] * 4))
    tables = masters.masters[0].tables()
    got = calibrate(closed, tables).compute()
    clean = got["mask"].values == 0
    values, variance = got["signal"].values[clean], got["variance"].values[clean]
    assert (values < 0).mean() == pytest.approx(0.5, abs=0.05)
    frames = np.sqrt(variance.mean() / clean.sum())
    common = np.sqrt(float(masters.masters[0].dark["variance"].mean()) / rig.light[0].size)
    assert values.mean() == pytest.approx(0, abs=4 * np.hypot(frames, common) * 1.2)


def test_it_is_lazy_and_the_answer_does_not_depend_on_the_chunks(rig, masters, calibrated):
    for chunks in ({"frame": 3, "y": 50, "x": 77}, {"frame": 2}):
        lazy = calibrate(rig.light.chunk(chunks), masters)
        assert dask.is_dask_collection(lazy["signal"].data)
        got = lazy.compute()
        for name in ("signal", "variance", "mask"):
            assert np.array_equal(got[name].values, calibrated[name].values, equal_nan=True)
    assert got.attrs["stage"] == "calibrated"
    assert got["signal"].attrs["units"] == "electron"
    assert "calibrated" in got["signal"].attrs["history"].splitlines()[-1]


def test_a_part_of_the_lights_finds_its_masters_by_name(rig, masters, calibrated):
    got = calibrate(rig.light.isel(frame=[2]), masters).compute()
    assert np.array_equal(got["signal"].values[0], calibrated["signal"].values[2], equal_nan=True)
    stranger = rig.light.isel(frame=[0]).assign_coords(filename=("frame", ["other.dng"]))
    with pytest.raises(WorkbenchError, match="other.dng.*not made for it"):
        calibrate(stranger, masters)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (1, 2), (3, 5)])
def test_cropped_lights_and_cropped_masters_give_the_cropped_picture(rig, masters, calibrated, top, left):
    cut = (slice(top, 150), slice(left, 200))
    one = masters.masters[0]
    parts = {name: crop(getattr(one, name), *cut) for name in ("bias", "dark", "flat", "defects")}
    light = crop(rig.light, *cut)
    assert (light.attrs["cfa_pattern"] == "RGGB") == (top % 2 == 0 and left % 2 == 0)
    cropped = replace(one, cfa_pattern=light.attrs["cfa_pattern"], **parts)
    got = calibrate(light, replace(masters, masters=(cropped,))).compute()
    inner = (slice(None), slice(REACH, -REACH), slice(REACH, -REACH))
    for name in ("signal", "mask"):
        whole = calibrated[name].values[:, cut[0], cut[1]]
        assert np.array_equal(got[name].values[inner], whole[inner], equal_nan=True)


def test_lights_of_floating_point_with_gaps(rig, masters, calibrated):
    values = rig.light.values.astype("float64")
    values[0, 30, 40], values[1, 50:52, 60:62] = np.nan, np.inf
    got = calibrate(rig.light.copy(data=values), masters).compute()
    lost = ~np.isfinite(values)
    assert ((got["mask"].values & MISSING) > 0)[lost].all()
    assert np.isnan(got["signal"].values[lost]).all()
    far = ~lost & (calibrated["mask"].values == 0)
    assert np.array_equal(got["signal"].values[far], calibrated["signal"].values[far])


def flat_tables(shape, defects=None, **changes):
    cell = np.array([[0, 1], [2, 3]])
    law, one, zero = np.tile([4.0, 1.0], (4, 1)), np.ones(4), np.zeros(4)
    maps = {"defects": np.zeros(shape, bool) if defects is None else defects, **changes}
    return Tables(cell, gain=one, law=law, constant=zero, black=zero, **maps)


def test_a_filled_defect_is_flagged_and_does_not_bleed():
    shape = (24, 32)
    raw = np.full(shape, 100, np.uint16)
    raw[0::2, 0::2] = 400  # red is brighter than its neighbours of other colours
    raw[10, 12] = raw[13, 15] = 60000
    raw[12, 14] = raw[12, 12] = 30000  # three red defects close together
    defects = raw > 20000
    signal, variance, mask, _ = calibrate_frame(raw, flat_tables(shape, defects))
    expected = np.where(np.indices(shape).sum(axis=0) % 2 + np.indices(shape)[0] % 2 == 0, 400.0, 100.0)
    assert np.array_equal(signal, expected)
    assert np.array_equal(mask == DEFECT, defects)
    assert np.isfinite(variance).all()
    assert variance[10, 12] < 404 / 4


def test_a_defect_is_filled_on_a_slope_without_bias_and_beside_a_star_with_more_doubt():
    shape = (40, 40)
    y, x = np.indices(shape)
    slope = (500 + 3 * y + 5 * x).astype("uint16")
    star = (500 + 20000 * np.exp(-0.5 * ((y - 20) ** 2 + (x - 20) ** 2) / 3**2)).astype("uint16")
    defects = np.zeros(shape, bool)
    defects[20, 23] = True
    on_slope, _, _, _ = calibrate_frame(slope, flat_tables(shape, defects))
    assert on_slope[20, 23] == pytest.approx(slope[20, 23], abs=0.5)
    by_star, variance, _, _ = calibrate_frame(star, flat_tables(shape, defects))
    error = by_star[20, 23] - float(star[20, 23])
    assert abs(error) < 3 * np.sqrt(variance[20, 23])
    assert variance[20, 23] > 50 * float(star[20, 23]) / 8


def test_filling_knows_its_error(rig):
    rng = np.random.default_rng(2)
    raw = rng.poisson(900, (200, 300)).astype("uint16")
    defects = rng.random(raw.shape) < 0.02
    signal, variance, _, _ = calibrate_frame(raw, flat_tables(raw.shape, defects))
    chi, error = rig.chi_square(signal, 900.0, variance, defects)
    assert chi == pytest.approx(1, abs=4 * error + 0.05)  # few of them have neighbours that differ by chance
    assert (signal[defects] - 900).mean() == pytest.approx(0, abs=4 * np.sqrt(variance[defects].mean() / defects.sum()))


def test_what_cannot_be_filled_is_missing():
    shape = (30, 30)
    defects = np.zeros(shape, bool)
    defects[5:20, 5:20] = True
    raw = np.full(shape, 100, np.uint16)
    signal, variance, mask, _ = calibrate_frame(raw, flat_tables(shape, defects))
    assert mask[12, 12] == DEFECT | MISSING
    assert np.isnan(signal[12, 12])
    assert np.isnan(variance[12, 12])
    assert mask[5, 5] == DEFECT
    assert np.isfinite(signal[mask == DEFECT]).all()


def test_saturation_is_flagged_and_a_defect_amid_it_is_saturated():
    raw = np.full((20, 20), 100, np.uint16)
    raw[4:12, 4:12] = 16383
    defects = np.zeros(raw.shape, bool)
    defects[8, 8] = True
    _, _, mask, _ = calibrate_frame(raw, flat_tables(raw.shape, defects, saturation=16383.0))
    assert mask[8, 8] == DEFECT | SATURATED
    assert (mask & SATURATED > 0).sum() == 64


def test_without_a_flat_value_or_a_sample_there_is_nothing():
    raw = np.full((20, 20), 100, np.float32)
    raw[3, 3], raw[4, 4] = np.nan, np.inf
    response = np.ones(raw.shape, np.float32)
    response[10, 10], response[11, 11], response[12, 12] = np.nan, 0.0, -0.1
    signal, variance, mask, _ = calibrate_frame(raw, flat_tables(raw.shape, response=response))
    for place in ((3, 3), (4, 4), (10, 10), (11, 11), (12, 12)):
        assert mask[place] == MISSING
        assert np.isnan(signal[place])
        assert np.isnan(variance[place])
    assert (mask != 0).sum() == 5


def test_defects_left_open_on_request(rig, masters, calibrated):
    got = calibrate(rig.light, masters, fill=False).compute()
    defect = (calibrated["mask"].values & DEFECT) > 0
    assert defect.sum() > 10
    assert np.isnan(got["signal"].values[defect]).all()
    assert np.array_equal(got["signal"].values[~defect], calibrated["signal"].values[~defect], equal_nan=True)


def test_wrong_lights_are_refused(rig, masters):
    tables = masters.masters[0].tables()
    with pytest.raises(WorkbenchError, match="300 x 240 pixels, the masters 360 x 240"):
        calibrate(rig.light.isel(x=slice(0, 300)), tables)
    with pytest.raises(WorkbenchError, match="mosaic is GRBG"):
        calibrate(rig.light.assign_attrs(cfa_pattern="GRBG"), tables)
    with pytest.raises(StageError, match="calibrated"):
        calibrate(calibrate(rig.light, masters)["signal"], masters)
    with pytest.raises(WorkbenchError, match="wants light frames and got dark"):
        calibrate(rig.dark, masters)
    with pytest.raises(WorkbenchError, match="cut both alike"):
        calibrate_frame(rig.light.values[0][:20], tables)
