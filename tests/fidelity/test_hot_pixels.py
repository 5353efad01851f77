"""The hot-pixel filter: found where it is, not found where it is not."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.fidelity.hot_pixels import hot_pixel_filter
from workbench.simulate import d7000, expose, firmware

CAMERA = d7000(seed=5, shape=(512, 768))


def dark_cube(change=None, exposure=300.0, seed=1, black=600):
    frame = expose(CAMERA, iso=800, exposure=exposure, temperature=20.0, seed=seed)
    frame = frame if change is None else change(frame)
    return make_cube(
        frame[None], cfa_pattern="RGGB", kind="dark", iso=800, exposure=exposure, temperature=20.0, black_level=black,
        white_level=16383, filename="a.dng",
    )  # fmt: skip


def test_an_untouched_dark_has_lone_hot_pixels():
    result = hot_pixel_filter(dark_cube())
    assert result.attrs["found"] is False
    alone = result.sel(test="alone")
    signal = 300.0 * CAMERA.dark_map.astype(float)
    noise = np.sqrt(np.median(signal) + CAMERA.read_noise(800) ** 2)
    hot = np.count_nonzero(signal - np.median(signal) > 8 * noise)
    assert result.attrs["bright_pixels"] == pytest.approx(hot, rel=0.1)
    assert alone.observed >= 0.97 * result.attrs["bright_pixels"]
    extremes = result.sel(test="extremes")
    assert extremes.observed == pytest.approx(float(extremes.expected), rel=0.05)


@pytest.mark.parametrize("margin", [0.0, 30.0])
def test_a_star_eater_is_found(margin):
    result = hot_pixel_filter(dark_cube(lambda frame: firmware.remove_hot_pixels(frame, CAMERA, margin)))
    assert result.attrs["found"] is True
    assert result.attrs["p_value"] < 1e-6


def test_pixels_made_equal_to_their_neighbour_are_a_spike_at_zero():
    frame = expose(CAMERA, iso=800, exposure=300.0, seed=2)
    rng = np.random.default_rng(1)
    for y, x in zip(rng.integers(4, 500, 300), rng.integers(4, 750, 300), strict=True):
        frame[y, x] = frame[y, x + 2] = 3000 + rng.integers(0, 900)
    result = hot_pixel_filter(dark_cube(lambda _: frame))
    spike = result.sel(test="spike")
    assert spike.observed >= 500
    assert bool(spike.positive)


def test_stock_firmware_and_smoothing_are_not_taken_for_it():
    assert hot_pixel_filter(dark_cube(lambda f: firmware.stock(f, CAMERA), black=0)).attrs["found"] is False
    assert hot_pixel_filter(dark_cube(lambda f: firmware.smooth(f, CAMERA, 0.1))).attrs["found"] is False


def test_a_short_dark_or_one_without_hot_pixels_cannot_tell():
    assert hot_pixel_filter(dark_cube(exposure=0.1)).attrs["found"] is None
    noise = np.random.default_rng(2).normal(600, 4, (128, 128)).round().astype("uint16")
    assert hot_pixel_filter(dark_cube(lambda _: noise)).attrs["found"] is None
    assert hot_pixel_filter(dark_cube(lambda _: np.full((64, 64), 600, "uint16"))).attrs["found"] is None


def test_the_longest_and_warmest_dark_is_tested():
    frames = np.stack([expose(CAMERA, iso=800, exposure=e, seed=1) for e in (1.0, 300.0)])
    cube = make_cube(
        frames, cfa_pattern="RGGB", kind="dark", iso=800, exposure=[1.0, 300.0], filename=["short", "long"],
        white_level=16383,
    )  # fmt: skip
    assert hot_pixel_filter(cube).attrs["filename"] == "long"
