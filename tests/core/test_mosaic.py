import numpy as np
import pytest

from workbench import WorkbenchError, make_cube
from workbench.core import mosaic as bayer
from workbench.core.cube import MOSAICS


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
