"""One mosaic onto the reference's grid, tile by tile."""

from __future__ import annotations

import numpy as np

from ..align.transform import Transform
from ..core.errors import WorkbenchError
from .geometry import place_polynomials, quarter_turns, turned_cell, window_bounds
from .kernel import kernel_polynomials, narrowing_for
from .sample import PADDING, sample_window, unsplit
from .window import fill_window


def resample(
    mosaic: np.ndarray,
    transform: Transform,
    cfa_pattern: str,
    shape: tuple[int, int] | None = None,
    *,
    narrowing: float | None = None,
    tile: int = 256,
) -> np.ndarray:
    """Resample one calibrated mosaic onto the reference's pixel grid, in colour.

    Parameters
    ----------
    mosaic
        Two-dimensional; NaN is missing and filled from same-colour neighbours.
    transform
        From reference to this frame (`workbench.align.match_stars`).
    cfa_pattern
        Of the mosaic, or ``mono``.
    shape
        (height, width) of the reference, the mosaic's own by default.
    narrowing
        Of the kernel (see `kernel_polynomials`); by default `narrowing_for` the mosaic.

    Returns
    -------
    float32 (channel, y, x), channels R, G, B or one for mono; NaN outside the frame.

    Examples
    --------
    >>> grey = np.full((64, 64), 7.0, "float32")
    >>> picture = resample(grey, Transform("shift", np.array([[3.3], [-2.6]])), "RGGB")
    >>> picture.shape, bool(np.allclose(picture[:, 8:-8, 8:-8], 7.0, atol=1e-4)), bool(np.isnan(picture[0, 0, 0]))
    ((3, 64, 64), True, True)
    """
    if mosaic.ndim != 2:
        raise WorkbenchError(f"resample wants one mosaic (y, x); this array has shape {mosaic.shape}")
    mosaic = np.ascontiguousarray(mosaic, np.float32)
    kernel = kernel_polynomials(narrowing_for(cfa_pattern) if narrowing is None else narrowing)
    frame = mosaic.shape
    height, width = shape or frame
    split = cfa_pattern != "mono"
    zero, one = np.zeros(frame, np.float32), np.ones(frame, np.float32)
    result = np.full((3 if split else 1, height, width), np.nan, np.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            tall, wide = min(tile, height - top), min(tile, width - left)
            turn = quarter_turns(transform, left + wide / 2, top + tall / 2)
            place = place_polynomials(transform, turn, frame, np.array([left]), top, wide, tall)[0]
            value, _ = resample_tile(mosaic, 0, zero, one, place, turn, cfa_pattern, tall, wide, kernel)
            x, y = transform.apply(*np.meshgrid(left + np.arange(wide), top + np.arange(tall)))
            outside = (x < -0.5) | (y < -0.5) | (x > frame[1] - 0.5) | (y > frame[0] - 0.5)
            value = unsplit(value) if split else value
            value[:, outside] = np.nan
            result[:, top : top + tall, left : left + wide] = value
    return result


def resample_tile(raw, row0, dark, scale, place, turn, cfa_pattern, height, width, kernel):
    """Resample one tile: (value, Σw²), both (channel, y, x); see `fill_window` and `sample_window`."""
    split = cfa_pattern != "mono"
    frame = scale.shape
    zero = np.zeros((1, 1), np.float32)
    high, wide = frame if turn % 2 == 0 else frame[::-1]
    channels = 3 if split else 1
    value, square = np.full((2, channels, height, width), np.nan, np.float32)
    top, left, rows, half = window_bounds(place[None], width, height, split)[0]
    if top >= high or left >= wide or top + rows <= 0 or left + 2 * half <= 0:
        return value, square
    window = np.zeros(rows * 2 * half + PADDING, np.float32)
    marks = np.empty((0, 2), np.int64)
    fill_window(
        raw, row0, zero, dark, 1.0, scale, turn, top, left, rows, half, split, np.float32(np.inf), window, marks
    )
    local = place.copy()
    local[0, 0] -= left
    local[1, 0] -= top
    flat = np.empty((2, value.size + PADDING), np.float32)
    ramp = np.arange(width + PADDING, dtype=np.float32)
    cell = turned_cell(cfa_pattern, turn, frame)
    sample_window(window, half, split, cell, local, height, width, kernel, ramp, flat[0], flat[1], 0)
    return flat[0, : value.size].reshape(value.shape), flat[1, : value.size].reshape(value.shape)
