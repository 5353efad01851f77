"""Colours on no lattice: slopes are kept, stars keep their place, defects and edges cost nothing but noise."""

import numpy as np
import pytest

from workbench.core.cube import XTRANS
from workbench.core.mosaic import colour_index, shifted
from workbench.core.scattered import green_plane, sample_weights, weight_table
from workbench.stars import find_stars, green_sampling, half_green


def test_the_table_holds_the_weights_of_all_colours():
    pattern = shifted(XTRANS, 3, 1)
    table = weight_table(pattern)
    place = (np.array([3, 30]) + 0.5) / 32 - 0.5
    weights = sum(sample_weights(pattern, colour, (4, 5), place, place[::-1]) for colour in range(3))
    np.testing.assert_allclose(table[4, 5, [3, 30], [30, 3]], weights, atol=1e-7)


def test_a_slope_is_kept_with_missing_samples_and_at_the_edge():
    y, x = np.mgrid[:60, :66]
    mosaic = (200 + 3.0 * y - 2.0 * x).astype(np.float32)
    whole = green_plane(mosaic, XTRANS)
    wanted = 200 + 3.0 * (y[::2, ::2] + 0.5) - 2.0 * (x[::2, ::2] + 0.5)
    # a place is rounded by 1/64 pixel
    np.testing.assert_allclose(whole[3:-3, 3:-3], wanted[3:-3, 3:-3], atol=5 / 64 + 1e-3)
    assert np.abs(whole - wanted).max() < 6
    rows, columns = np.nonzero(colour_index(XTRANS) == 1)
    mosaic[24 + rows[3], 30 + columns[3]] = np.nan
    assert np.abs(green_plane(mosaic, XTRANS) - wanted).max() < 6


@pytest.mark.parametrize("fwhm", [2.6, 4.0])
def test_stars_are_where_they_are_in_the_mosaic(fwhm):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:240, :300]
    mosaic, places = np.full(y.shape, 300.0), []
    for row in range(20, 230, 21):
        for column in range(20, 290, 21):
            v, u = row + rng.uniform(-3, 3), column + rng.uniform(-3, 3)
            places.append((u, v))
            mosaic += 3000 * np.exp(-((x - u) ** 2 + (y - v) ** 2) * 2.7726 / fwhm**2)
    mosaic = rng.poisson(mosaic).astype(np.float32)
    stars = find_stars(half_green(mosaic, XTRANS), sampling=green_sampling(XTRANS), gain=1.7)
    assert stars.sizes["star"] == pytest.approx(len(places), abs=2)
    away = np.array(places)[:, None] - np.stack([stars["x"].values, stars["y"].values], -1)
    nearest = away[np.arange(len(places)), np.hypot(*np.moveaxis(away, -1, 0)).argmin(1)]
    assert np.abs(nearest.mean(axis=0)).max() < 0.03
    assert np.median(np.hypot(*nearest.T)) < 0.12
    assert stars.attrs["fwhm"] == pytest.approx(fwhm, rel=0.08)
