"""Combining: the exact mean where nothing happened, the truth where something did."""

import dask.array as da
import numpy as np
import pytest

from workbench.calibrate import bands
from workbench.calibrate.bands import Frames
from workbench.calibrate.combine import combine_frames
from workbench.core.cube import make_cube
from workbench.core.errors import FrameReadError, WorkbenchError
from workbench.core.parallel import machine_share

QUIET = np.array([9.0 + 1 / 12, 0.0])


def noise(count=16, shape=(64, 96), level=600.0, sigma=3.0, seed=1):
    return np.random.default_rng(seed).normal(level, sigma, (count, *shape)).round().astype("uint16")


def cube_of(data, **coords):
    return make_cube(data, cfa_pattern="RGGB", kind="dark", **coords)


def run(data, model=QUIET, **options):
    with Frames(cube_of(data), progress=False) as frames:
        return combine_frames(frames, model, progress=False, **options)


def test_without_events_it_is_the_mean_to_the_last_bit_and_the_variance_that_of_the_mean():
    data = noise()
    got = run(data)
    whole = got.count == 16
    assert whole.mean() > 0.999
    np.testing.assert_allclose(got.mean[whole], data.mean(axis=0)[whole], rtol=1e-6)
    measured = np.tile(got.chi2.reshape(2, 2), (32, 48)) * QUIET[0] / 16
    np.testing.assert_allclose(got.variance[whole], measured[whole], rtol=5e-3)
    assert got.chi2 == pytest.approx(np.ones(4), abs=5 * np.sqrt(2 / 15 / (64 * 96 / 4)))


@pytest.mark.parametrize("count", [3, 5, 8, 16])
def test_a_struck_sample_leaves_no_trace(count):
    data = noise(count)
    clean = run(data).mean
    struck = data.copy()
    struck[1, 10:20, 10:20] += 500
    struck[count - 1, 30, :] += 60
    got = run(struck)
    hit = np.zeros((64, 96), bool)
    hit[10:20, 10:20] = hit[30, :] = True
    assert (got.count[hit] == count - 1).mean() > 0.99
    assert abs(got.mean[hit].mean() - 600) < 4 * 3 / np.sqrt((count - 1) * hit.sum())
    assert np.array_equal(got.mean[~hit], clean[~hit])
    assert got.rejected[1] == pytest.approx(100 / data[0].size, rel=0.1)


def test_of_two_samples_that_disagree_the_lower_stays():
    data = noise(2)
    data[0, 5, 5] += 400
    got = run(data)
    assert got.count[5, 5] == 1
    assert got.mean[5, 5] == data[1, 5, 5]
    assert got.variance[5, 5] == pytest.approx(QUIET[0], rel=0.1)


def test_a_pixel_that_jumps_between_two_levels_is_unstable_and_its_variance_its_own():
    data = noise(16)
    data[::2, 7, 9] += 200
    got = run(data)
    assert got.unstable[7, 9]
    assert got.variance[7, 9] == pytest.approx(data[:, 7, 9].var() / 15, rel=0.1)
    assert np.count_nonzero(got.unstable) == 1


def test_false_rejections_are_as_rare_as_the_clip_says():
    got = run(noise(16, (400, 600), sigma=8.0), np.array([64 + 1 / 12, 0.0]))
    assert 0.2 < got.rejected.mean() / 6.8e-6 < 4


def test_the_mean_of_scaled_frames_is_weighted_by_their_light_and_its_variance_holds():
    rng = np.random.default_rng(3)
    level, gain, shape = np.linspace(3000, 6000, 12), 2.0, (120, 160)
    response = rng.normal(1, 0.05, shape)
    data = np.stack([rng.poisson(level_ * gain * response) / gain + rng.normal(0, 3, shape) for level_ in level])
    data = (data + 600).round().astype("uint16")
    scale = np.repeat((level.mean() / level)[:, None], 4, axis=1)
    model = np.array([9 + 1 / 12, 1 / gain])
    got = run(data, model, pedestal=np.full(shape, 600, np.float32), scale=scale, saturation=16000)
    truth = response * level.mean()
    chi = (got.mean - truth) ** 2 / got.variance
    assert chi.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / chi.size))
    assert (got.mean - truth).mean() == pytest.approx(0, abs=4 * float(np.sqrt(got.variance.mean() / chi.size)))
    expected = (data.astype(float) - 600).sum(axis=0) / (1 / scale[:, 0]).sum()
    whole = got.count == 12
    np.testing.assert_allclose(got.mean[whole], expected[whole], rtol=2e-6)
    assert got.chi2 == pytest.approx(np.ones(4), abs=0.02)


def test_saturated_samples_do_not_count_and_a_pixel_without_any_is_nan():
    data = noise(6, level=5000, sigma=10)
    data[:3, 4, 4] = 16000
    data[:, 8, 8] = 16000
    got = run(data, np.array([100.0, 0.0]), saturation=15000.0)
    assert got.count[4, 4] == 3
    assert got.mean[4, 4] == pytest.approx(data[3:, 4, 4].mean())
    assert got.count[8, 8] == 0
    assert np.isnan(got.mean[8, 8])
    assert np.isnan(got.variance[8, 8])


def test_nan_and_infinity_are_missing_samples():
    data = noise(6).astype("float32")
    data[0, 3, 3], data[2, 3, 3], data[:, 9, 9] = np.nan, np.inf, np.nan
    got = run(data)
    assert got.count[3, 3] == 4
    assert got.mean[3, 3] == pytest.approx(data[[1, 3, 4, 5], 3, 3].mean(), abs=1e-3)
    assert np.isnan(got.mean[9, 9])
    assert np.isfinite(got.mean).sum() == got.mean.size - 1


def test_the_same_bits_from_memory_and_scratch_whatever_the_bands_and_threads(monkeypatch, tmp_path):
    data = noise(5)
    data[1, 10:20, 10:20] += 300
    expected = run(data)
    monkeypatch.setattr(bands, "IN_MEMORY", 0)
    monkeypatch.setattr(bands, "BAND_BYTES", 5 * 96 * 2 * 6)
    with machine_share(threads=3), Frames(cube_of(data), scratch=tmp_path, progress=False) as frames:
        assert list(tmp_path.rglob("frames"))
        assert len(frames.bands()) == 11
        got = combine_frames(frames, QUIET, progress=False)
    for name in ("mean", "variance", "count", "unstable", "rejected"):
        assert np.array_equal(getattr(got, name), getattr(expected, name)), name
    assert not list(tmp_path.iterdir())


def test_each_frame_is_decoded_once_and_a_damaged_one_is_left_out(tmp_path):
    data, calls = noise(4), []

    def decode(block_info=None):
        number = block_info[None]["array-location"][0][0]
        calls.append(number)
        if number == 2:
            raise FrameReadError("dark_2.dng", "is cut short")
        return data[number : number + 1]

    lazy = da.map_blocks(decode, dtype="uint16", chunks=((1,) * 4, (64,), (96,)), meta=np.empty((0, 0, 0), "uint16"))
    cube = cube_of(lazy, filename=[f"dark_{n}.dng" for n in range(4)])
    with Frames(cube, scratch=tmp_path, progress=False) as frames:
        got = combine_frames(frames, QUIET, progress=False)
        assert frames.dropped == [("dark_2.dng", "is cut short")]
    assert sorted(calls) == [0, 1, 2, 3]
    np.testing.assert_allclose(got.mean[got.count == 3], data[[0, 1, 3]].mean(axis=0)[got.count == 3], rtol=1e-6)


def test_when_nothing_can_be_read_it_says_so(monkeypatch, tmp_path):
    def decode(block_info=None):
        raise FrameReadError("x.dng", "is cut short")

    lazy = da.map_blocks(decode, dtype="uint16", chunks=((1,) * 2, (4,), (4,)), meta=np.empty((0, 0, 0), "uint16"))
    with pytest.raises(WorkbenchError, match="none of 2 frames can be read: x.dng is cut short"):
        Frames(cube_of(lazy), progress=False)
    monkeypatch.setattr(bands, "IN_MEMORY", 0)
    with pytest.raises(WorkbenchError, match="another folder"):
        Frames(cube_of(noise(2)), scratch=tmp_path / "not there", progress=False)
