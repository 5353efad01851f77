"""Areas of a picture: what all frames cover, what surrounds a pixel."""

from __future__ import annotations

import numpy as np

from .kernels import kernel


def neighbour_mean(plane: np.ndarray) -> np.ndarray:
    """Return the mean of each pixel's four neighbours in planes (..., y, x), without the edge: (..., y - 2, x - 2)."""
    rows, columns = plane[..., 1:-1], plane[..., 1:-1, :]
    return (rows[..., :-2, :] + rows[..., 2:, :] + columns[..., :-2] + columns[..., 2:]) / 4


@kernel()
def largest_rectangle(good: np.ndarray) -> tuple[int, int, int, int]:
    """Return the largest all-true rectangle (top, bottom, left, right) of a boolean picture (y, x).

    Heights of columns, row by row, with a stack.

    Examples
    --------
    >>> good = np.ones((4, 6), bool); good[0, 0] = good[3] = False
    >>> tuple(map(int, largest_rectangle(good)))
    (0, 3, 1, 6)
    """
    rows, columns = good.shape
    heights = np.zeros(columns + 1, np.int64)
    starts = np.zeros(columns + 1, np.int64)
    levels = np.zeros(columns + 1, np.int64)
    best, area = (0, 0, 0, 0), 0
    for row in range(rows):
        depth = 0
        for column in range(columns + 1):
            height = 0
            if column < columns:
                heights[column] = heights[column] + 1 if good[row, column] else 0
                height = heights[column]
            start = column
            while depth > 0 and levels[depth - 1] >= height:
                depth -= 1
                start = starts[depth]
                size = levels[depth] * (column - start)
                if size > area:
                    area = size
                    best = (row + 1 - levels[depth], row + 1, start, column)
            starts[depth], levels[depth] = start, height
            depth += 1
    return best
