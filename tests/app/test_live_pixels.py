"""What a screen shows of a frame: every pixel counts once, and enlarged each is shown as it is."""

import numpy as np
import pytest

from workbench.app.live_pixels import look, reduced


def frame(shape=(300, 400), dtype=np.uint16):
    return np.random.default_rng(3).integers(600, 16000, shape).astype(dtype)


def brute(values, view):
    """The mean of the pixels of each bin, one by one."""
    rows, columns = view.rows, view.columns
    return np.array(
        [
            [
                np.nanmean(values[rows[y] : rows[y + 1], columns[x] : columns[x + 1]].astype(float))
                for x in range(columns.size - 1)
            ]
            for y in range(rows.size - 1)
        ]
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int32, ">f4"])
def test_the_mean_of_what_falls_on_a_pixel_of_the_screen(dtype):
    values = frame(dtype=dtype)
    view = look(values.shape, (17.3, 391.8), (-20.0, 250.4), (57, 41))
    np.testing.assert_allclose(reduced(values, view), brute(values, view), rtol=1e-6)


@pytest.mark.parametrize("span", [None, (0.4, 371.2), (-100.0, 500.0), (399.0, 12.0)])
def test_every_pixel_whose_centre_is_in_view_counts_once(span):
    view = look((300, 400), span, None, (60, 45))
    low, high = sorted(span or (0.0, 400.0))
    inside = np.flatnonzero((np.arange(400) + 0.5 >= low) & (np.arange(400) + 0.5 < high))
    assert (np.diff(view.columns) >= 1).all()
    assert (view.columns[0], view.columns[-1]) == (inside[0], inside[-1] + 1)


def test_whole_bins_are_what_numpy_averages():
    values = frame(dtype=np.float32)
    view = look(values.shape, size=(40, 30))
    blocks = values.reshape(30, 10, 40, 10).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(reduced(values, view), blocks, rtol=1e-6)
    assert view.bounds == (0, 0, 400, 300)


@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_one_to_one_and_enlarged_nothing_is_averaged(size):
    values = frame()
    view = look(values.shape, (100.0, 140.0), (200.0, 230.0), size)
    assert np.array_equal(reduced(values, view), values[200:230, 100:140])
    assert view.bounds == (100, 200, 140, 230)


def test_missing_pixels_do_not_count():
    values = frame(dtype=np.float32)
    values[:10, :10] = np.nan
    values[0, 10] = np.inf
    values[20:30, 20] = np.nan
    view = look(values.shape, size=(40, 30))
    found = reduced(values, view)
    assert np.isnan(found[0, 0])
    assert np.isfinite(found).sum() == found.size - 1
    assert found[0, 1] == pytest.approx(values[:10, 10:20].ravel()[1:].mean(dtype=float), rel=1e-6)
    assert found[2, 2] == pytest.approx(np.nanmean(values[20:30, 20:30], dtype=float), rel=1e-6)


@pytest.mark.parametrize("span", [(-50.0, -10.0), (450.0, 500.0), (399.99, 401.0)])
def test_past_the_frame_there_is_something_to_draw(span):
    view = look((300, 400), span, span, (60, 45))
    assert reduced(frame(), view).shape == (1, 1)
    assert 0 <= view.columns[0] < view.columns[-1] <= 400
