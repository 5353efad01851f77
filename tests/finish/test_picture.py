import numpy as np
import pytest

from workbench.core.errors import StageError, WorkbenchError
from workbench.finish import (
    apply_stretch,
    check_picture,
    common_box,
    crop,
    fill_holes,
    make_picture,
    pyramid,
    stretch_parameters,
)


def covered(shape=(200, 300), top=13, left=21, count=20):
    """A picture whose frames overlap in a known box: dithers leave steps in the coverage."""
    coverage = np.zeros((1, *shape), np.uint16)
    rng = np.random.default_rng(0)
    for _ in range(count):
        y, x = rng.integers(0, top), rng.integers(0, left)
        coverage[:, y : shape[0] - top + y, x : shape[1] - left + x] += 1
    signal = np.where(coverage > 0, rng.normal(10, 1, coverage.shape), np.nan)
    return make_picture(signal, np.ones_like(signal), coverage=coverage)


def test_a_rejected_trail_does_not_part_the_picture():
    picture = covered()
    rows, columns = np.indices(picture.signal.shape[1:])
    trail = np.abs(rows - 0.7 * columns + 20) < 11  # 18 px wide, from edge to edge, gone from a few frames
    parted = picture.assign(coverage=picture.coverage.where(~trail, picture.coverage * 0.5))
    whole, found = common_box(picture), common_box(parted)
    assert np.abs(np.subtract(whole, found)).max() <= 8


def test_crop_finds_the_common_area_and_can_be_undone():
    picture = covered()
    cut = crop(picture, share=0.99)
    top, bottom, left, right = cut.attrs["crop"]
    assert (cut.coverage == 20).mean() > 0.999
    best = (picture.coverage[0] == 20).values
    assert cut.signal[0].size > 0.97 * best.sum()
    assert dict(crop(picture, share=None).sizes) == dict(picture.sizes)
    np.testing.assert_array_equal(cut.signal, picture.signal[:, top:bottom, left:right])
    assert "Crop" in cut.attrs["history"][-1]
    assert picture.attrs["history"] == []


def test_rejected_pixels_inside_do_not_cut_the_picture():
    picture = covered()
    coverage = picture.coverage.values.copy()
    coverage[0, 100:102, 50:250] = 3  # a satellite
    coverage[0, 150, 150] = 0
    holed = picture.assign(coverage=(picture.coverage.dims, coverage))
    assert common_box(holed) == common_box(picture)


def test_a_box_by_hand_and_twice():
    picture = covered()
    cut = crop(crop(picture, box=(10, -10, 20, -20)), box=(5, 100, 5, 100))
    assert cut.attrs["crop"] == [15, 110, 25, 120]
    assert cut.sizes["y"] == 95


def test_nan_borders_are_cut_without_coverage():
    signal = np.ones((3, 120, 160), np.float32)
    signal[:, :7] = np.nan
    signal[1, :, 151:] = np.nan
    signal += np.random.default_rng(0).normal(0, 0.1, signal.shape).astype("float32")
    cut = crop(make_picture(signal))
    assert cut.attrs["crop"] == [7, 120, 0, 151]
    assert np.isfinite(cut.signal).all()


def test_holes_are_filled_from_neighbours_and_said():
    rng = np.random.default_rng(0)
    signal = rng.normal(50, 1, (64, 64))
    signal[10, 10] = np.nan
    signal[30:44, 30:44] = np.nan
    picture = make_picture(signal, np.full_like(signal, 1.0))
    filled = fill_holes(picture)
    assert abs(float(filled.signal[0, 10, 10]) - 50) < 1
    assert np.isnan(filled.signal[0, 36, 36])
    assert "1" in filled.attrs["history"][-1]
    assert np.isnan(picture.signal[0, 10, 10])
    whole = make_picture(np.ones((32, 32)))
    assert fill_holes(whole) is whole


def test_pyramid_halves_by_means():
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 1, (1, 300, 402)).astype("float32")
    signal[0, 0, 0] = np.nan
    levels = pyramid(make_picture(signal, np.ones_like(signal)), smallest=64)
    assert [level.sizes["y"] for level in levels] == [300, 150, 75]
    assert levels[1].signal[0, 0, 0] == pytest.approx(np.nanmean(signal[0, :2, :2]))
    assert levels[1].signal[0, 7, 9] == pytest.approx(signal[0, 14:16, 18:20].mean(), abs=1e-6)
    assert levels[2].variance[0, 3, 3] == pytest.approx(1 / 16)


def test_what_cannot_be_finished_is_named():
    good = np.random.default_rng(0).normal(1, 1, (3, 40, 40))
    with pytest.raises(WorkbenchError, match="2 channels"):
        make_picture(good[:2])
    with pytest.raises(WorkbenchError, match="shape"):
        make_picture(good[0, 0])
    with pytest.raises(WorkbenchError, match="variance has shape"):
        make_picture(good, good[:, :5])
    with pytest.raises(WorkbenchError, match="NaN everywhere"):
        check_picture(make_picture(np.full((40, 40), np.nan)), content=True)
    with pytest.raises(WorkbenchError, match="every pixel is 0"):
        check_picture(make_picture(np.zeros((40, 40))), content=True)
    with pytest.raises(WorkbenchError, match="none of them empty"):
        make_picture(np.zeros((3, 0, 10)))
    with pytest.raises(WorkbenchError, match="DataArray"):
        check_picture(make_picture(good).signal)
    picture = make_picture(good)
    stretched = apply_stretch(picture, stretch_parameters(picture))
    with pytest.raises(StageError, match="stretched already"):
        crop(stretched)
    with pytest.raises(WorkbenchError, match="at least 16 x 16"):
        crop(picture, box=(0, 5, 0, 5))
    with pytest.raises(WorkbenchError, match="between 0 and 1"):
        crop(picture, share=2)
