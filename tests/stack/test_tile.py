"""A frame on the grid, compared with a plain sum over the kernel and with surfaces that it must reproduce."""

import numpy as np
import pytest

from workbench.align import Transform
from workbench.core.cube import XTRANS
from workbench.core.scattered import mean_square
from workbench.stack import mean_squared_weight, narrowing_for, place_frame, turned_cell
from workbench.stack.lanczos import kernel_polynomials, weights_at
from workbench.stack.normalise import white_noise

HEIGHT, WIDTH = 130, 180


def turned_about(centre, degrees, shift) -> Transform:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return Transform("affine", np.array([[shift[0], c, -s], [shift[1], s, c]]), centre, 1.0)


def turned_about_centre(degrees: float) -> Transform:
    return turned_about((WIDTH / 2, HEIGHT / 2), degrees, (3.37, -2.21))


def placed(mosaic, transform, pattern):
    return place_frame(mosaic, None, pattern, transform, mosaic.shape).value


def plainly(mosaic: np.ndarray, transform: Transform, pattern: str) -> np.ndarray:
    """The kernel's sum, sample by sample, at some pixels; NaN elsewhere and near the frame's edge."""
    cell, polynomials = turned_cell(pattern, 0, mosaic.shape), kernel_polynomials(narrowing_for(pattern))
    taps = np.arange(-2, 4)
    result = np.full((1 if pattern == "mono" else 3, *mosaic.shape), np.nan)
    for v in range(0, HEIGHT, 7):
        for u in range(0, WIDTH, 5):
            x, y = transform.apply(float(u), float(v))
            if not (12 < x < WIDTH - 13 and 12 < y < HEIGHT - 13):
                continue
            for channel in range(len(result)):
                if pattern == "mono":
                    a, b = x, y
                elif channel == 1:
                    j, i = np.argwhere(cell == 1)[0]
                    odd = (j + i) % 2
                    a, b = (x + y - odd) / 2, (x - y - odd) / 2
                else:
                    cy, cx = np.argwhere(cell == channel)[0]
                    a, b = (x - cx) / 2, (y - cy) / 2
                ia, ib = int(np.floor(a)), int(np.floor(b))
                wa, wb = (np.array(weights_at(part - 0.5, polynomials)) for part in (a - ia, b - ib))
                i, j = np.meshgrid(ia + taps, ib + taps)
                if pattern == "mono":
                    samples = mosaic[j, i]
                elif channel == 1:
                    samples = mosaic[i - j, i + j + odd]
                else:
                    samples = mosaic[2 * j + cy, 2 * i + cx]
                result[channel, v, u] = wb @ samples @ wa
    return result


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG", "GRBG", "BGGR", "mono"])
@pytest.mark.parametrize("degrees", [0.0, 0.3, 5.0, 37.0, 90.0, 135.0, 180.0, 181.7, 270.0])
def test_equals_the_plain_sum(pattern, degrees):
    mosaic = np.random.default_rng(1).normal(100, 10, (HEIGHT, WIDTH)).astype(np.float32)
    transform = turned_about_centre(degrees)
    wanted = plainly(mosaic, transform, pattern)
    got = placed(mosaic, transform, pattern)
    inside = np.isfinite(wanted)
    assert inside.sum() > 200
    np.testing.assert_allclose(got[inside], wanted[inside], atol=1e-3)  # float32 sums of 36 terms of 100


@pytest.mark.parametrize("pattern", ["RGGB", XTRANS])
@pytest.mark.parametrize("degrees", [0.0, 12.0, 183.0])
def test_a_smooth_surface_stays_itself(degrees, pattern):
    y, x = np.mgrid[:HEIGHT, :WIDTH]

    def surface(x, y):
        return 50 + 0.3 * x + 0.2 * y + 10 * np.sin(x / 15) * np.cos(y / 18)

    transform = turned_about_centre(degrees)
    got = placed(surface(x, y).astype(np.float32), transform, pattern)
    wanted = surface(*transform.apply(x, y))
    inside = np.isfinite(got[1])
    inside[:14], inside[-14:], inside[:, :14], inside[:, -14:] = False, False, False, False
    far = np.hypot(*(np.array(transform.apply(x, y)) - np.array([WIDTH / 2, HEIGHT / 2])[:, None, None])) < 45
    assert np.abs(got - wanted)[:, inside & far].max() < 0.15


@pytest.mark.parametrize("pattern", ["RGGB", "mono", XTRANS])
def test_noise_after_resampling_is_predicted(pattern):
    mosaic = np.random.default_rng(2).normal(0, 1, (400, 400)).astype(np.float32)
    # 0.7 pixels a row and column of drift would visit all phases; a turn of 3 degrees does
    for colour, plane in enumerate(placed(mosaic, turned_about_centre(3.0), pattern)[:, 40:-40, 40:-40]):
        expected = mean_square(XTRANS, colour) if pattern == XTRANS else mean_squared_weight(narrowing_for(pattern))
        assert np.nanvar(plane) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("pattern", ["RGGB", XTRANS])
def test_the_noise_of_areas_is_predicted(pattern):
    rng = np.random.default_rng(3)
    sums = np.zeros(3)
    for number in range(6):
        mosaic = rng.normal(0, 1, (600, 600)).astype(np.float32)
        transform = turned_about((300.0, 300.0), 0.2 * number, (0.3 * number, 0.7 * number))
        picture = placed(mosaic, transform, pattern)[:, 28:572, 28:572]
        sums += (picture.reshape(3, 34, 16, 34, 16).mean((2, 4)) ** 2).mean((1, 2)) / 6
    predicted = [white_noise(name, pattern) / 256 for name in "RGB"]
    np.testing.assert_allclose(sums, predicted, rtol=4 * np.sqrt(2 / (6 * 34 * 34)))


def test_missing_pixels_are_filled_from_their_colour():
    mosaic = np.tile(np.array([[10.0, 20.0], [20.0, 30.0]], np.float32), (40, 40))
    mosaic[30, 30] = mosaic[41, 40] = mosaic[50:53, 50] = np.nan
    picture = placed(mosaic, Transform("shift", np.array([[0.4], [0.3]])), "RGGB")[:, 8:-8, 8:-8]
    for plane, level in zip(picture, (10.0, 20.0, 30.0), strict=True):
        np.testing.assert_allclose(plane, level, rtol=1e-5)


def test_a_dead_region_stays_missing():
    mosaic = np.ones((80, 80), np.float32)
    mosaic[30:60, 30:60] = np.nan
    picture = placed(mosaic, Transform.identity(), "mono")
    assert np.isnan(picture[0, 45, 45])
    assert np.isfinite(picture[0, 10:20, 10:20]).all()


def test_outside_the_frame_is_nan():
    picture = placed(np.ones((80, 80), np.float32), Transform("shift", np.array([[30.0], [0.0]])), "mono")[0]
    assert np.isnan(picture[:, 50:]).all()
    assert np.isfinite(picture[:, :49]).all()
