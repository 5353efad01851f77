import numpy as np
import pytest

from workbench import WorkbenchError, make_cube
from workbench.core import mosaic as bayer
from workbench.core.cube import MOSAICS, XTRANS, check_cube


@pytest.mark.parametrize("pattern", MOSAICS)
def test_split_takes_each_channel_from_its_place(pattern):
    letters = np.array(list(pattern)).reshape(2, 2)
    mosaic = np.tile(np.vectorize(ord)(letters), (3, 4)).astype("uint16")
    cube = make_cube(mosaic[None], cfa_pattern=pattern)
    planes = bayer.split(cube)
    assert planes.sizes == {"frame": 1, "channel": 4, "y": 3, "x": 4}
    for channel in ("R", "G1", "G2", "B"):
        assert (planes.sel(channel=channel) == ord(channel[0])).all()


@pytest.mark.parametrize("pattern", MOSAICS)
def test_g1_shares_its_rows_with_red(pattern):
    places = bayer.offsets(pattern)
    assert places["G1"][0] == places["R"][0]
    assert places["G2"][0] == places["B"][0]
    index = bayer.channel_index(pattern)
    assert [index[places[name]] for name in ("R", "G1", "G2", "B")] == [0, 1, 2, 3]


def test_a_crop_shifts_the_pattern():
    mosaic = np.arange(48, dtype="uint16").reshape(1, 6, 8)
    whole = bayer.split(make_cube(mosaic, cfa_pattern="RGGB"))
    crop = bayer.split(make_cube(mosaic[:, 1:5, 1:7], cfa_pattern=bayer.shifted("RGGB", 1, 1)))
    assert set(crop.sel(channel="R").values.ravel()) <= set(whole.sel(channel="R").values.ravel())


def test_mono_and_odd_sizes():
    mono = bayer.split(make_cube(np.ones((2, 3, 5)), cfa_pattern="mono"))
    assert mono.sizes == {"frame": 2, "channel": 1, "y": 3, "x": 5}
    assert bayer.split(make_cube(np.ones((1, 5, 7)), cfa_pattern="GRBG")).sizes["x"] == 3
    assert bayer.shifted("mono", 1, 1) == "mono"
    with pytest.raises(WorkbenchError, match="none of"):
        bayer.offsets("XXXX")


# the mosaic that the levels show


def cell_of(levels, shape=(256, 320), noise=30.0, seed=4):
    cell = np.tile(np.array(levels, float).reshape(2, 2), (shape[0] // 2, shape[1] // 2))
    return cell + np.random.default_rng(seed).normal(0, noise, shape)


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ((300, 900, 900, 500), "RGGB"),
        ((900, 300, 500, 900), "GRBG"),
        ((600, 640, 640, 600), "RGGB"),  # red and blue alike: the greens are the brighter ones
        ((600, 630, 630, 660), "RGGB"),  # under lamps: red, green, blue in falling order
        ((600, 600, 600, 600), ""),
        ((600, 605, 600, 605), ""),  # columns with offsets of their own
        ((600, 600, 640, 640), ""),  # rows
        ((600, 640, 620, 660), ""),  # both
        ((600, 601, 601, 603), ""),  # too little to tell
    ],
)
def test_the_mosaic_shows_in_the_levels(levels, shown):
    assert bayer.checkerboard(cell_of(levels)) == shown


def test_stars_and_gradients_are_no_mosaic():
    frame = cell_of((600,) * 4) + np.linspace(0, 300, 320)
    rng = np.random.default_rng(5)
    frame[rng.integers(0, 256, 300), rng.integers(0, 320, 300)] += 5000
    assert bayer.checkerboard(frame) == ""


def test_nothing_is_no_mosaic():
    assert bayer.checkerboard(np.full((256, 256), np.nan)) == bayer.checkerboard(np.zeros((2, 2))) == ""


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 0), (2, 5), (4, 3)])
def test_planes_of_x_trans_hold_each_pixel_of_a_colour_once_near_its_neighbours(rows, columns):
    cell = bayer.channel_index(bayer.shifted(XTRANS, rows, columns))
    mosaic = np.arange(36 * 48).reshape(36, 48)
    again = np.full_like(mosaic, -1)
    for channel, plane in bayer.planes(mosaic, cell):
        own = np.tile(cell == channel, (6, 8))
        assert set(plane.ravel()) == set(mosaic[own])
        y, x = np.divmod(plane, 48)
        assert np.abs(np.diff(y, axis=1)).max() <= 2
        assert np.abs(np.diff(x, axis=1)).max() <= 3
        assert (np.diff(y, axis=0) > 0).all()
        with pytest.raises(ValueError, match="read-only"):
            plane[0] = 0
        bayer.put_plane(again, cell, channel, plane)
    np.testing.assert_array_equal(again, mosaic)


def test_x_trans_is_cut_by_whole_cells_or_with_its_pattern_and_not_split():
    cube = make_cube(np.zeros((1, 24, 24)), cfa_pattern=XTRANS, black_level=(1, 2, 3), kind="light")
    assert check_cube(cube.isel(y=slice(6, None), x=slice(12, 20))).sizes["y"] == 18
    with pytest.raises(WorkbenchError, match="X-Trans at row 0: every colour .* multiples of 6"):
        check_cube(cube.isel(y=slice(2, None)))
    cut = check_cube(bayer.crop(cube, slice(2, None), slice(5, None)))
    assert cut.attrs["cfa_pattern"] == bayer.shifted(XTRANS, 2, 5)
    with pytest.raises(WorkbenchError, match="stays whole until it is resampled"):
        bayer.split(cube)
