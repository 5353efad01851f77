"""Pair sums are exact, outliers are few and named, jackknife errors are what they claim."""

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.cube import make_cube
from workbench.core.mosaic import offsets
from workbench.core.pairs import (
    frame_pairs,
    jackknife_error,
    leave_one_out,
    measure_pairs,
    pair_moments,
    pair_sums,
    pair_weight,
)
from workbench.core.parallel import lazy_frames, machine_share, stream_frames
from workbench.core.statistics import t_factor


def planes(frame, pattern):
    if pattern == "mono":
        return [frame]
    height, width = (side // 2 * 2 for side in frame.shape)
    return [frame[row:height:2, column:width:2] for row, column in offsets(pattern).values()]


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    pattern=st.sampled_from(["RGGB", "GRBG", "GBRG", "BGGR", "mono"]),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_sums_are_numpys_for_every_size_and_phase(height, width, pattern, blocks, seed):
    y1, y2 = np.random.default_rng(seed).integers(0, 2**16, (2, height, width)).astype("uint16")
    sums = pair_sums(y1, y2, pattern, white=60_000, blocks=blocks)
    moments = pair_moments(sums.plain.sum(axis=1))
    for channel, (a, b) in enumerate(zip(planes(y1, pattern), planes(y2, pattern), strict=True)):
        a, b = a.astype(float), b.astype(float)
        assert sums.plain[channel, :, 0].sum() == a.size
        assert sums.plain[channel, :, 5].sum() == (a * b).sum()
        assert sums.saturated[channel].sum() == ((a >= 60_000) | (b >= 60_000)).sum()
        assert sums.zero[channel].sum() == ((a == 0) | (b == 0)).sum()
        if a.size > 1:
            np.testing.assert_allclose(moments.half_variance[channel], np.var(a - b, ddof=1) / 2, rtol=1e-9)
            np.testing.assert_allclose(moments.mean2[channel], b.mean(), rtol=1e-12)


def test_blocks_are_strips_of_rows_that_hold_every_pixel_once():
    y = np.zeros((48, 10), "uint16")
    y[:16] = 1  # the first third of the rows
    sums = pair_sums(y, y, "RGGB", blocks=3)
    np.testing.assert_array_equal(sums.plain[..., 0], 40)
    np.testing.assert_array_equal(sums.plain[..., 1], [[40, 0, 0]] * 4)


def test_whole_numbers_and_floats_agree():
    y = np.random.default_rng(0).poisson(300, (2, 64, 64))
    whole, floats = (pair_sums(*y.astype(kind), "RGGB", white=400) for kind in ("uint16", "float32"))
    for a, b in zip(whole, floats, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_sums_of_the_largest_values_do_not_wrap():
    y = np.full((256, 256), 65535, "uint16")
    assert pair_sums(y, y, "mono", blocks=1).plain[0, 0, 3] == 256 * 256 * 65535**2


def test_pixels_without_a_value_are_left_out():
    y = np.random.default_rng(0).normal(100, 5, (2, 32, 32))
    y[0, 3, 3] = np.nan
    moments = pair_moments(pair_sums(*y, "mono").plain.sum(axis=1))
    good = np.isfinite(y).all(axis=0)
    assert moments.n == 1023
    np.testing.assert_allclose(moments.half_variance, np.var((y[0] - y[1])[good], ddof=1) / 2)


def test_outliers_are_left_out_and_nothing_else():
    rng = np.random.default_rng(3)
    y = rng.normal(600, 4, (2, 200, 200)).round().astype("uint16")
    y[0, 10, 10] += 900  # a cosmic ray
    y[:, 20, 20] = 9000  # a hot pixel, the same in both: not an outlier of the difference
    sums = pair_sums(*y, "RGGB")
    lost = (sums.plain - sums.kept)[..., 0].sum(axis=1)
    np.testing.assert_array_equal(lost, [1, 0, 0, 0])
    plain, kept = (pair_moments(part.sum(axis=1)).half_variance for part in (sums.plain, sums.kept))
    assert plain[0] > 1.9 * kept[0]
    np.testing.assert_allclose(kept, 16 + 1 / 12, rtol=0.05)


def test_a_normal_distribution_loses_nothing_at_eight_sigma():
    y = np.random.default_rng(5).normal(600, 0.4, (2, 512, 512)).round().astype("uint16")  # MAD is zero
    sums = pair_sums(*y, "mono")
    assert (sums.plain == sums.kept).all()


def test_drift_under_vignetting_makes_no_outliers_once_scaled():
    rng = np.random.default_rng(1)
    light = np.linspace(2000, 12000, 256)[None, :] * np.ones((256, 1))
    y = rng.poisson(np.stack([light, 0.8 * light])) + 600
    sums = pair_sums(*y.astype("uint16"), "mono", black=600)
    assert (sums.plain[..., 0] == sums.kept[..., 0]).all()
    moments = pair_moments(sums.plain.sum(axis=1))
    # Poisson: var = mean; scaled pair: μ₁μ₂/μ
    level1, level2 = moments.mean1 - 600, moments.mean2 - 600
    expected = level1 * level2 / ((level1 + level2) / 2)
    np.testing.assert_allclose(moments.scaled_half_variance(600), expected, rtol=0.02)
    assert moments.half_variance > 10 * expected  # what removing the mean difference alone would say


def test_a_window_in_the_middle_gives_the_variance_of_one_frame():
    y = np.random.default_rng(0).normal(600, 4, (600, 600)).astype("float32")
    y[:100] = 0
    mean, variance = pair_sums(y, y, "mono").centre[0]
    np.testing.assert_allclose(
        [mean, variance], [y[225:375, 225:375].mean(), y[225:375, 225:375].var(ddof=1)], rtol=1e-4
    )


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_weight_of_a_ring_of_pairs_is_its_degrees_of_freedom(count):
    """Var of the mean squared difference over the ring, for normal noise, is 2/(worth of all pairs)."""
    y = np.random.default_rng(count).normal(size=(40_000, count))
    pairs = frame_pairs(count)
    half = np.mean([(y[:, i] - y[:, j]) ** 2 / 2 for i, j in pairs], axis=0)
    np.testing.assert_allclose(2 / half.var(), len(pairs) * pair_weight(count), rtol=0.05)


def test_three_frames_give_all_their_pairs_and_one_gives_none():
    assert frame_pairs(3) == [(0, 1), (1, 2), (0, 2)]
    assert frame_pairs(1) == []


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=(64, 50))
    replicates = leave_one_out(x, axis=1) / 49
    expected = x.std(axis=1, ddof=1) / np.sqrt(50) * t_factor(49)
    np.testing.assert_allclose(jackknife_error(replicates, axis=1), expected)
    assert np.isnan(jackknife_error(np.zeros((1, 3)))).all()


def test_each_frame_is_decoded_once_and_few_are_held():
    seen = []

    def load(number):
        seen.append(number)
        return np.full((8, 8), number, "uint16")

    frames = [da.from_delayed(dask.delayed(load)(i), (8, 8), "uint16") for i in range(12)]
    cube = make_cube(da.stack(frames), cfa_pattern="mono", kind="bias", iso=100)
    pairs = [(i + a, i + b) for i in (0, 4, 8) for a, b in frame_pairs(4)]
    sums = measure_pairs(cube, pairs, progress=False)
    assert sorted(seen) == list(range(12))
    means = pair_moments(sums.plain.sum(axis=2))
    np.testing.assert_array_equal(means.mean1[:, 0], [i for i, _ in pairs])
    np.testing.assert_array_equal(means.mean2[:, 0], [j for _, j in pairs])


def test_frames_come_in_the_order_asked_for_and_an_error_reaches_the_caller():
    cube = make_cube(np.arange(5)[:, None, None] * np.ones((5, 2, 2), "uint16"), cfa_pattern="mono", kind="bias")
    order = [3, 1, 4, 0]
    with machine_share(threads=3):
        assert [int(frame[0, 0]) for frame in stream_frames(cube.data[i] for i in order)] == order

    def broken():
        raise OSError("the card is gone")

    lost = da.from_delayed(dask.delayed(broken)(), (2, 2), "uint16")
    with pytest.raises(OSError, match="card is gone"):
        list(stream_frames([cube.data[0], lost, cube.data[1]]))


@pytest.mark.parametrize("chunks", [(1, -1, -1), (2, -1, -1), (1, 4, -1), (-1, 4, 4)])
def test_the_answer_does_not_depend_on_the_chunks(chunks):
    values = np.random.default_rng(0).integers(0, 99, (4, 8, 8)).astype("uint16")
    cube = make_cube(da.from_array(values, chunks=chunks), cfa_pattern="RGGB", kind="bias")
    np.testing.assert_array_equal(list(stream_frames(lazy_frames(cube))), values)
    whole = measure_pairs(cube, frame_pairs(4), progress=False)
    np.testing.assert_array_equal(whole.plain[0], pair_sums(values[0], values[1], "RGGB").plain)


def test_progress_counts_frames(capsys):
    class Bar:
        count = 0

        def update(self):
            self.count += 1

    bar = Bar()
    cube = make_cube(np.zeros((3, 4, 4), "uint16"), cfa_pattern="mono", kind="bias")
    measure_pairs(cube, frame_pairs(3), progress=bar)
    assert bar.count == 3
    assert measure_pairs(cube, [], progress=False).plain.shape[0] == 0


def test_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        pair_sums(np.zeros((2, 2)), np.zeros((2, 3)), "mono")


def test_pixels_that_pile_up_below_the_stated_white_level_are_saturated():
    y = np.minimum(np.random.default_rng(0).normal(15_700, 60, (2, 200, 200)).round(), 15_778).astype("uint16")
    sums = pair_sums(*y, "RGGB", white=16383)
    share = sums.saturated.sum() / y[0].size
    np.testing.assert_allclose(share, (y == 15_778).any(axis=0).mean())
    assert pair_sums(*y - 100, "RGGB", white=15_600).saturated.sum() == ((y - 100) >= 15_600).any(axis=0).sum()
