"""Read noise and black level recover what made the frames, and refuse what cannot give them."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.sensor import read_noise
from workbench.simulate import d7000, expose, stock


def biases(noise, *, count=6, black=600.0, seed=0, shape=(96, 96), pattern=1.0, jitter=0.0, iso=100.0, clip=True):
    rng = np.random.default_rng(seed)
    fixed = rng.normal(0, pattern, shape)
    frames = []
    for _ in range(count):
        frame = black + rng.normal(0, jitter) + fixed + rng.normal(0, noise, shape)
        frames.append(np.clip(np.rint(frame), 0, 65535).astype("uint16"))
    names = [f"bias_{i}.nef" for i in range(count)]
    return make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=iso, filename=names)


def test_every_number_is_numpys():
    cube = biases(3.0, count=3)
    result = read_noise(cube, progress=False)
    b = cube.values[:, 1::2, ::2].astype(float)  # G2
    half = np.mean([np.var(b[i] - b[j], ddof=1) / 2 for i, j in ((0, 1), (1, 2), (0, 2))])
    one = result.sel(channel="G2", iso=100)
    np.testing.assert_allclose(one.variance, half)
    np.testing.assert_allclose(one.read_noise_adu, np.sqrt(half - 1 / 12))
    np.testing.assert_allclose(one.black_level, b.mean())
    np.testing.assert_allclose(one.frame_scatter, b.mean(axis=(1, 2)).std(ddof=1))
    assert one.frames == 3


def test_the_fixed_pattern_is_not_noise():
    result = read_noise(biases(2.0, pattern=10.0, shape=(256, 256)), progress=False)
    assert (abs(result.read_noise_adu - 2.0) < 4 * result.read_noise_adu_error).all()
    assert (result.read_noise_adu_error < 0.02).all()


def test_each_iso_is_measured_by_itself_also_when_mixed():
    cube = biases(2.0, iso=[100, 800, 100, 800, 100, 800])
    values = cube.values.astype(float)
    values[1::2] += np.random.default_rng(4).normal(0, 5, values[1::2].shape)
    cube = make_cube(values.round().astype("uint16"), cfa_pattern="RGGB", kind="bias", iso=cube.iso.values)
    result = read_noise(cube, progress=False)
    np.testing.assert_allclose(result.read_noise_adu.mean("channel"), [2.0, np.sqrt(29)], rtol=0.03)


def test_offsets_that_wander_are_in_the_error_of_the_black_level_and_not_in_the_noise():
    result = read_noise(biases(2.0, jitter=0.5, count=8), progress=False)
    assert (result.black_level_error > 0.1).all()
    assert (abs(result.read_noise_adu - 2.0) < 4 * result.read_noise_adu_error).all()


def test_two_frames_are_enough_and_one_is_not():
    two = read_noise(biases(2.0, count=2), progress=False)
    assert np.isfinite(two.read_noise_adu_error).all()
    one = read_noise(biases(2.0, count=1), progress=False)
    assert np.isnan(one.read_noise_adu).all()
    assert np.isfinite(one.black_level).all()
    assert np.isnan(one.black_level_error).all()
    assert "bias_0.nef" in one.attrs["warnings"][0]


def test_a_bias_clipped_at_zero_is_measured_by_what_is_left_of_it():
    cube = biases(2.0, black=0.2, pattern=0.4)
    result = read_noise(cube, progress=False)
    assert (result.method == "clipped").all()
    assert (abs(result.read_noise_adu - 2.0) < 4 * result.read_noise_adu_error).all()
    assert (result.read_noise_adu_error < 0.06).all()
    np.testing.assert_allclose(result.black_level, 0.2, atol=0.15)
    np.testing.assert_allclose(result.variance, result.read_noise_adu**2 + 1 / 12)
    assert len(result.attrs["warnings"]) == 1
    assert "at ISO 100 are clipped at zero" in result.attrs["warnings"][0]
    np.testing.assert_allclose(result.zero_fraction, 0.75, atol=0.1)


def test_a_bias_of_nothing_but_zeros_gives_no_number_and_says_why():
    result = read_noise(biases(2.0, black=-12.0, pattern=0.0), progress=False)
    for name in ("read_noise_adu", "read_noise_adu_error", "black_level", "black_level_error", "variance"):
        assert np.isnan(result[name]).all(), name
    assert (result.method == "").all()
    assert "left out" in result.attrs["warnings"][0]


def test_the_stock_firmware_of_the_virtual_camera_with_its_fixed_pattern():
    camera = d7000(seed=3, shape=(128, 192))
    frames = [stock(expose(camera, iso=200, exposure=1 / 8000, seed=n), camera) for n in range(6)]
    cube = make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=200)
    truth = camera.read_noise(200) / camera.gain(200) * np.array([1.12, 1, 1, 1.16])
    naive = cube.values[:, ::2, 1::2].astype(float).std(axis=0, ddof=1).mean()
    assert naive < 0.65 * truth[1]
    for known in (None, {"R": 1.12, "B": 1.16}):
        result = read_noise(cube, multiplier=known, progress=False).isel(iso=0)
        assert (abs(result.read_noise_adu / truth - 1) < 0.03).all()
        assert (abs(result.read_noise_adu - truth) < 4 * result.read_noise_adu_error).all()


def test_noise_hidden_by_rounding_gives_no_number():
    result = read_noise(biases(0.1, pattern=0.0), progress=False)
    assert np.isnan(result.read_noise_adu).all()
    assert "rounding" in result.attrs["warnings"][0]


def test_a_frame_that_is_no_bias_is_named():
    cube = biases(2.0)
    values = cube.values.copy()
    values[4] += 300
    bad = make_cube(values, cfa_pattern="RGGB", kind="bias", iso=100, filename=cube.filename.values)
    assert any("bias_4.nef" in text for text in read_noise(bad, progress=False).attrs["warnings"])
    assert not read_noise(cube, progress=False).attrs["warnings"]


def test_frames_without_a_stated_iso_are_one_setting():
    result = read_noise(biases(2.0, iso=np.nan), progress=False)
    assert result.sizes["iso"] == 1
    np.testing.assert_allclose(result.read_noise_adu[0].mean(), 2.0, rtol=0.03)


def test_mono_and_float_frames():
    frames = np.random.default_rng(1).normal(100, 3, (4, 128, 128))
    result = read_noise(make_cube(frames, cfa_pattern="mono", kind="bias"), progress=False)
    assert result.channel.values.tolist() == ["mono"]
    np.testing.assert_allclose(result.read_noise_adu, 3.0, rtol=0.02)  # nothing was rounded, nothing is subtracted


def test_other_frames_are_refused():
    with pytest.raises(WorkbenchError, match="wants bias frames and got dark"):
        read_noise(biases(2.0).assign_coords(kind=("frame", ["dark"] * 6)), progress=False)


@pytest.mark.parametrize(("columns", "rows"), [(0.0, 0.0), (0.8, 0.0), (0.6, 0.6)])
def test_the_error_covers_noise_of_whole_columns_and_of_rows_that_go_together(columns, rows):
    size, own, together = 128, 1.3, 0.8
    pulls = []
    for body in range(20):
        rng = np.random.default_rng([body, 2])
        frames = []
        for _ in range(6):
            line = rng.standard_normal(size)
            for row in range(1, size):
                line[row] = together * line[row - 1] + np.sqrt(1 - together**2) * line[row]
            shift = rows * line[:, None] + columns * rng.standard_normal(size)
            frames.append(np.rint(rng.normal(600, own, (size, size)) + shift).astype("uint16"))
        found = read_noise(make_cube(frames, cfa_pattern="mono", kind="bias", iso=100), progress=False)
        assert not found.attrs["warnings"]
        truth = np.sqrt(own**2 + columns**2 + rows**2)
        pulls.append(((found.read_noise_adu - truth) / found.read_noise_adu_error).item())
    assert np.mean(np.abs(pulls) < 1) > 0.4  # binomial: 0.68 ± 0.10; without the columns 0.2
    assert np.abs(pulls).max() < 4.5


def test_the_95_percent_interval_of_a_black_level_from_four_frames_covers():
    rng, count = np.random.default_rng(8), 400
    wander = rng.normal(0, 1.0, (count, 4, 1, 1))
    frames = (rng.normal(600, 3, (count, 4, 16, 16)) + wander).astype("float32")
    parts = []
    for first in range(0, count, 20):
        some = frames[first : first + 20].reshape(-1, 16, 16)
        cube = make_cube(some, cfa_pattern="mono", kind="bias", iso=np.repeat(np.arange(1.0, 21), 4))
        parts.append(read_noise(cube, progress=False))
    error, error_95, level = (
        np.concatenate([part[name].values for part in parts])
        for name in ("black_level_error", "black_level_error_95", "black_level")
    )
    off = abs(level - 600)
    assert 0.62 < (off < error).mean() < 0.75  # binomial: 0.68 ± 0.023
    assert 0.92 < (off < error_95).mean() < 0.98  # twice the error: 0.89
