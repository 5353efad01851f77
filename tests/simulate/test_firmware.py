"""What the firmware saves, and that real readers get the very same numbers back."""

import subprocess
from datetime import datetime

import exifread
import numpy as np
import pytest
import rawpy

from workbench.core.errors import WorkbenchError
from workbench.simulate import cube_of, d7000, expose, save_frame, stock
from workbench.simulate import firmware as changes

SHAPE = (128, 192)


@pytest.fixture(scope="module")
def camera():
    return d7000(seed=3, shape=SHAPE)


@pytest.fixture(scope="module")
def ramp(camera):
    """Every code the converter can give, many times over, at every colour."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 16384, (1200, 1200), dtype=np.uint16)


@pytest.fixture
def light(camera):
    """A frame from black to white."""
    return expose(camera, np.geomspace(1, 1e5, SHAPE[1]) * np.ones(SHAPE), iso=100, exposure=1, seed=1)


SETTINGS = {"iso": 400, "exposure": 1 / 640, "temperature": -5.0, "time": datetime(2025, 2, 3, 4, 5, 6)}


@pytest.mark.parametrize(("place", "spacing"), [((0, 0), 9.33), ((1, 1), 7.25), ((0, 1), None), ((1, 0), None)])
def test_stock_firmware_leaves_codes_out(camera, ramp, place, spacing):
    saved = stock(ramp, camera)[place[0] :: 2, place[1] :: 2]
    missing = np.setdiff1d(np.arange(0, 15_000), saved)
    if spacing is None:
        assert missing.size == 0
    else:
        assert 15_000 / missing.size == pytest.approx(spacing, abs=0.01)
        assert np.diff(missing).min() >= int(spacing)
        assert np.diff(missing).max() <= int(spacing) + 1


def test_stock_firmware_subtracts_clips_and_multiplies(camera, ramp):
    saved = stock(ramp, camera)
    assert saved.dtype == np.uint16
    assert saved.max() == 16383
    assert (saved[ramp <= 600] == 0).all()
    green = saved[0::2, 1::2]
    np.testing.assert_array_equal(green, np.maximum(ramp[0::2, 1::2].astype(int) - 600, 0))
    assert green.max() == 16383 - 600
    for (y, x), multiplier in (((0, 0), 1.12), ((1, 1), 1.16)):
        signal, colour = ramp[y::2, x::2] - 600.0, saved[y::2, x::2]
        inside = (signal > 0) & (signal < 13_000)
        assert np.abs(colour[inside] - multiplier * signal[inside]).max() <= 0.5 + 1e-9


def test_stock_bias_is_half_a_gaussian(camera):
    plain = d7000(seed=1, shape=(512, 512), pixel_offset=0.0, column_offset=0.0, row_offset=0.0)
    sigma = plain.read_noise(1600) / plain.gain(1600)
    green = stock(expose(plain, iso=1600, exposure=0, seed=1), plain)[0::2, 1::2]
    # a Gaussian clipped at zero: mean 0.399 σ, standard deviation 0.584 σ
    assert green.mean() == pytest.approx(0.399 * sigma, rel=0.02)
    assert green.std() == pytest.approx(0.584 * sigma, rel=0.02)


def test_stock_firmware_makes_the_gain_read_low(camera):
    flats = [stock(expose(camera, 20_000, iso=100, exposure=0.5, seed=seed), camera).astype(float) for seed in (1, 2)]
    measured = {}
    for channel, (y, x) in {"R": (0, 0), "G1": (0, 1), "B": (1, 1)}.items():
        first, second = (flat[y::2, x::2] for flat in flats)
        noise = (camera.read_noise(100) / camera.gain(100)) ** 2
        measured[channel] = np.mean(flats[0][y::2, x::2]) / (np.var(first - second) / 2 - noise)
    error = 4 * camera.gain(100) * (2 / (SHAPE[0] * SHAPE[1] / 4)) ** 0.5
    assert measured["G1"] == pytest.approx(camera.gain(100), abs=error)
    assert measured["R"] == pytest.approx(camera.gain(100) / 1.12, abs=error)
    assert measured["B"] == pytest.approx(camera.gain(100) / 1.16, abs=error)


def test_stock_leaves_its_input_alone(camera, light):
    before = light.copy()
    stock(light, camera)
    np.testing.assert_array_equal(light, before)


@pytest.mark.parametrize("firmware", ["patched", "stock"])
def test_saved_frames_come_back_bit_for_bit(camera, light, tmp_path, firmware):
    path = save_frame(tmp_path / "frame.dng", light, camera, firmware=firmware, **SETTINGS)
    expected = stock(light, camera) if firmware == "stock" else light
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, expected)
        assert raw.black_level_per_channel == [0 if firmware == "stock" else 600] * 4
        assert raw.white_level == (16383 - 600 if firmware == "stock" else 16383)
        assert raw.raw_pattern.tolist() == [[0, 1], [3, 2]]
        assert raw.color_desc == b"RGBG"


def test_dcraw_reads_the_same_numbers(camera, light, tmp_path, require):
    path = save_frame(tmp_path / "frame.dng", light, camera, **SETTINGS)
    pgm = subprocess.run([require("dcraw"), "-4", "-D", "-c", str(path)], capture_output=True, check=True).stdout
    header, size, depth, pixels = pgm.split(b"\n", 3)
    assert (header, size, depth) == (b"P5", b"192 128", b"65535")
    np.testing.assert_array_equal(np.frombuffer(pixels, ">u2").reshape(SHAPE), light)


def test_the_label_simulated_travels_with_the_frame(camera, light, tmp_path):
    path = save_frame(tmp_path / "frame.dng", light, camera, aperture=8.0, **SETTINGS)
    with path.open("rb") as file:
        tags = exifread.process_file(file, details=False)
    assert str(tags["Image Model"]) == "NIKON D7000 (simulated)"
    assert str(tags["Image Make"]) == "NIKON CORPORATION"
    assert str(tags["Image Software"]) == "Astrophoto Workbench virtual camera"
    assert tags["EXIF ISOSpeedRatings"].values == [400]
    assert float(tags["EXIF ExposureTime"].values[0]) == pytest.approx(1 / 640)
    assert float(tags["EXIF FNumber"].values[0]) == 8
    assert str(tags["EXIF DateTimeOriginal"]) == "2025:02:03 04:05:06"


def test_unknown_firmware_is_refused(camera, light, tmp_path):
    with pytest.raises(WorkbenchError, match="'magic lantern' is not known; choose patched or stock"):
        save_frame(tmp_path / "frame.dng", light, camera, firmware="magic lantern", **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_cube_is_what_reading_the_saved_frames_gives(camera, tmp_path):
    from workbench.ingest import open_frames

    frames = [expose(camera, iso=200, exposure=0.5, temperature=5.0, seed=n) for n in range(2)]
    setting = {"iso": 200, "exposure": 0.5, "temperature": 5.0, "time": datetime(2025, 1, 18)}
    paths = [save_frame(tmp_path / f"dark_{n:02d}.dng", frame, camera, **setting) for n, frame in enumerate(frames)]
    read, made = open_frames(paths, kind="dark"), cube_of(camera, frames, "dark", **setting)
    np.testing.assert_array_equal(read, made)
    for name in ("kind", "iso", "exposure", "temperature", "filename", "time"):
        assert (read[name] == made[name]).all()
    for name in ("cfa_pattern", "camera", "white_level", "units", "stage"):
        assert read.attrs[name] == made.attrs[name]
    np.testing.assert_allclose(read.attrs["black_level"], made.attrs["black_level"])


BODY = d7000(seed=6, shape=(128, 192))


@pytest.fixture(scope="module")
def frame():
    return expose(BODY, iso=1600, exposure=60.0, seed=1)


def test_smoothing_keeps_the_mean_and_lowers_the_noise_as_it_says():
    noise = np.random.default_rng(1).normal(5000, 40, (256, 256)).round().astype("uint16")
    smoothed = changes.smooth(noise, BODY, 0.05)
    assert smoothed.mean() == pytest.approx(noise.mean(), abs=0.1)
    assert smoothed.std() / noise.std() == pytest.approx(np.sqrt(0.8**2 + 4 * 0.05**2), rel=0.02)
    # colours stay apart: only neighbours two pixels away are alike
    centred = smoothed - smoothed.mean()
    assert abs((centred[:, 1:] * centred[:, :-1]).mean() / centred.var()) < 0.02
    assert (changes.smooth(noise, BODY, 0.0) == noise).all()
    with pytest.raises(WorkbenchError, match=r"0 to 0\.25"):
        changes.smooth(noise, BODY, 0.3)


def test_a_star_eater_leaves_no_pixel_above_all_its_neighbours(frame):
    eaten = changes.remove_hot_pixels(frame, BODY)
    assert (eaten <= frame).all()
    assert eaten.max() < frame.max()
    assert (changes.remove_hot_pixels(frame, BODY, margin=1e6) == frame).all()
    changed = eaten != frame
    assert changed.mean() == pytest.approx(1 / 9, abs=0.02)


def test_row_noise_moves_whole_rows(frame):
    banded = changes.row_noise(frame, BODY, 8.0, seed=1)
    moved = (banded.astype(float) - frame).mean(axis=1)
    assert moved.std() == pytest.approx(8.0, rel=0.2)
    assert (banded.astype(float) - frame - moved[:, None]).std() < 0.5
    assert (changes.row_noise(frame, BODY, 8.0, seed=1) == banded).all()


def test_compression_rounds_bright_numbers_only():
    numbers = np.arange(0, 16384, dtype="uint16").reshape(128, 128)
    saved = changes.compress(numbers, BODY, first=1024)
    black = round(BODY.black_level)
    assert (saved.ravel()[: black + 1024] == numbers.ravel()[: black + 1024]).all()
    assert np.unique(saved.ravel()[black + 1024 : black + 2048]).size == pytest.approx(512, abs=2)
    error = saved.astype(int) - numbers
    assert np.abs(error).max() <= 8
    assert saved.max() <= BODY.white_level
