"""What characterize derives from read noise and photon transfer together, on the samples and on thin sets."""

import numpy as np
import pytest

from workbench.ingest import open_folder
from workbench.pipelines import characterize, measure_pixel_noise
from workbench.pipelines.measurement import Transfer, card_frames, derive_transfer
from workbench.simulate import d7000


@pytest.fixture(scope="module")
def result(samples):
    return characterize(samples, progress=False)


def test_the_samples_give_their_truth(result):
    truth, found, values = d7000(shape=(480, 720)), result.transfer, result.sensor
    for name, value in (
        ("noise_before_gain", truth.noise_before_gain),
        ("noise_after_gain", truth.noise_after_gain),
        ("invariance_iso", truth.unity_gain_iso * truth.noise_after_gain / truth.noise_before_gain / np.sqrt(0.1025)),
    ):
        assert abs(values[name] - value) < 4 * values[f"{name}_error"], name
        assert values[f"{name}_error"] < 0.01 * value, name
    for iso in (200, 800):
        one = values.sel(iso=iso)
        assert (abs(one.gain_from_darks - truth.gain(iso)) < 4 * one.gain_from_darks_error).all()
        assert (one.gain_from_darks_error < 0.01 * truth.gain(iso)).all()
        assert (one.gain_from_darks_agrees == 1).sum() >= 3
    green = values.sel(channel=["G1", "G2"])
    saturation = np.array([truth.saturation(iso) for iso in green.iso.values])[:, None]
    assert (green.full_well_method == "plateau").all()
    assert (abs(green.full_well - saturation) < 4 * green.full_well_error).all()
    assert (green.full_well_error < 0.01 * saturation).all()
    stops = np.log2(saturation[:, 0] / [truth.read_noise(iso) for iso in green.iso.values])
    assert (abs(green.dynamic_range - stops[:, None]) < 4 * green.dynamic_range_error).all()
    # the lamp of the samples drifts, and no more than that is to be seen
    assert float(values.linearity_error.max()) < 1
    assert float(abs(values.curvature / values.curvature_error).max()) < 4.5
    assert (values.read_noise_method == "pairs").all()
    assert found.linearity.attrs["true_times"] is False
    assert not found.warnings
    words = "\n".join(result.lines())
    assert "read noise before the gain: 2.44" in words
    assert "from ISO 24" in words
    assert "full well (ISO 100, G1: cameras may multiply red and blue, green never): " in words
    assert "linearity error (ISO 100, G1): " in words


def test_nothing_comes_of_nothing():
    empty = derive_transfer(None, None, None, None)
    assert empty == Transfer()
    assert set(empty.results().values()) == {None}


def test_the_noise_of_every_pixel_at_the_iso_with_the_most_frames(small_samples):
    found = measure_pixel_noise(open_folder(small_samples, progress=False), progress=False)
    assert (found.attrs["iso"], found.attrs["frames"]) == (200, 4)
    assert (abs(found.tail_share) < 4 * found.tail_share_error).all()
    truth = d7000(shape=(192, 288)).read_noise(200) / d7000(shape=(192, 288)).gain(200)
    assert (abs(found.read_noise_adu - truth) < 4 * found.read_noise_adu_error).all()


def test_a_cut_bias_frame_is_left_out_of_it(small_samples, tmp_path):
    for path in sorted((small_samples / "bias").glob("bias_ISO200*.dng")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    last = tmp_path / "bias_ISO200_04.dng"
    last.write_bytes(last.read_bytes()[:-3000])
    assert measure_pixel_noise(open_folder(tmp_path, progress=False), progress=False).attrs["frames"] == 3
    last.with_name("bias_ISO200_03.dng").unlink()
    assert measure_pixel_noise(open_folder(tmp_path, progress=False), progress=False) is None


def test_gains_that_differ_are_told(result):
    found = result.transfer
    flats = result.gain.assign(gain=result.gain.gain * 1.2)
    told = derive_transfer(result.read_noise, result.ptc, flats, found.dark_transfer)
    assert any("different gains at ISO 800 (darks/flats 0.83" in text for text in told.warnings)


def test_the_card_takes_the_middle_of_large_frames_and_all_of_small_ones(small_samples):
    folder = open_folder(small_samples, progress=False)
    frames = card_frames(folder)
    assert frames.shape[1:] == (192, 288)
    assert set(frames.kind.values) == {"bias", "flat", "dark"}
    assert frames.sizes["frame"] == len(folder.table[folder.table["kind"] != "light"])
