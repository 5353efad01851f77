"""Where the pixels of a tile lie in a frame, and which window holds what they ask for."""

from __future__ import annotations

import numpy as np

from ..align.transform import Transform
from ..core.mosaic import channel_index
from .kernel import REACH
from .window import unturned


def quarter_turns(transform: Transform, x: float, y: float) -> int:
    """Return how many quarter turns bring a frame closest to the reference's orientation, 0 to 3."""
    matrix = transform.jacobian(x, y)
    angle = np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))
    return int(np.round(angle / 90.0)) % 4


def turned(turn: int, x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of a frame of `shape` (height, width) in the same frame turned by quarters.

    Examples
    --------
    >>> turned(2, 0.0, 0.0, (10, 20))
    (19.0, 9.0)
    """
    height, width = shape
    if turn == 0:
        return x, y
    if turn == 1:
        return y, width - 1.0 - x
    if turn == 2:
        return width - 1.0 - x, height - 1.0 - y
    return height - 1.0 - y, x


def turned_cell(cfa_pattern: str, turn: int, shape: tuple[int, int]) -> np.ndarray:
    """Return the 2 x 2 colours (0 R, 1 G, 2 B) of a frame's first pixels after quarter turns (zeros for mono).

    Examples
    --------
    >>> turned_cell("RGGB", 2, (10, 20)).tolist()
    [[2, 1], [1, 0]]
    """
    if cfa_pattern == "mono":
        return np.zeros((2, 2), np.int64)
    colours = np.array([0, 1, 1, 2])[channel_index(cfa_pattern)]
    cell = np.empty((2, 2), np.int64)
    for j in range(2):
        for i in range(2):
            y, x = unturned(turn, j, i, *shape)
            cell[j, i] = colours[y % 2, x % 2]
    return cell


_NODES = np.linspace(0.0, 1.0, 4)
_NODE_V, _NODE_U = (grid.ravel() for grid in np.meshgrid(_NODES, _NODES, indexing="ij"))


def _quadratics(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], -1)


_SOLVE = np.linalg.pinv(_quadratics(_NODE_U, _NODE_V))


def place_polynomials(
    transform: Transform, turn: int, shape: tuple[int, int], lefts: np.ndarray, top: float, width: int, height: int
) -> np.ndarray:
    """Return the places in the turned frame of tiles' pixels, as quadratics (tile, 2, 6) in their column and row.

    The tiles begin at columns `lefts` and row `top` of the reference.  Fitted to 16 nodes; over 256 pixels the cubic
    terms of real lenses leave less than 1e-4 px.
    """
    x = np.asarray(lefts, float)[:, None] + _NODE_U * (width - 1)
    y = np.broadcast_to(top + _NODE_V * (height - 1), x.shape)
    x, y = turned(turn, *transform.apply(x, y), shape)
    fitted = np.stack([x, y], 1) @ _SOLVE.T
    return fitted / _quadratics(np.array(max(width - 1.0, 1.0)), np.array(max(height - 1.0, 1.0)))


def window_bounds(places: np.ndarray, width: int, height: int, split: bool) -> np.ndarray:
    """Return (top, left, rows, half columns) of the windows (tile, 4) that hold all samples tiles ask for."""
    x, y = np.moveaxis(places @ _quadratics(_NODE_U * (width - 1), _NODE_V * (height - 1)).T, 1, 0)
    margin = 2 * REACH + 3 if split else REACH + 2
    top, left = (np.floor(values.min(-1)).astype(np.int64) - margin for values in (y, x))
    top, left = top - top % 2, left - left % 2
    rows = np.ceil(y.max(-1)).astype(np.int64) + margin - top + 1
    columns = np.ceil(x.max(-1)).astype(np.int64) + margin - left + 1
    return np.stack([top, left, rows, -(-columns // 2)], -1)
