"""A stack of equal frames, read once: every pixel's mean, its scatter, and the means of two halves.

What is fixed in the frames is in both halves, temporal noise is not: their covariance over the pixels is the spatial
variance without temporal noise, whatever that noise looks like.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np

from ..core.buffers import frame_memory, frame_zeros
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.parallel import counted
from .kernels import deviation_products
from .parts import Spatial, common_parts, highpass


@dataclass(frozen=True)
class FrameStack:
    """What a stack of equal frames tells.

    Attributes
    ----------
    mean
        Of each pixel, float32 (y, x) [ADU]; of flats above `black`, scaled to one level.
    half_difference
        Half the difference of the means of the even and the odd frames, float32 (y, x) [ADU]; None for a
        single frame.
    variance
        Of each pixel over the frames (ddof 1), float32 (y, x) [ADU²]; None for a single frame.
    count
        Number of frames.
    levels
        Mean of each flat and channel (frame, channel) [ADU]; empty for bias frames and darks.
    black
        What was subtracted, one a channel [ADU].
    pattern
        The mosaic.
    """

    mean: np.ndarray
    half_difference: np.ndarray | None
    variance: np.ndarray | None
    count: int
    levels: np.ndarray
    black: np.ndarray
    pattern: str
    _known: dict[tuple[int, bool], Spatial] = field(default_factory=dict, repr=False, compare=False)

    def common(self, channel: int, *, filtered: bool = False) -> Spatial:
        """Return the variances that a channel's two halves have in common (see `common_parts`), found once."""
        key = channel, filtered
        if key not in self._known:
            if self.half_difference is None:
                raise WorkbenchError("a single frame has no halves; give two or more equal frames")
            pictures = self.plane("mean", channel), self.plane("half_difference", channel)
            if filtered:
                pictures = tuple(map(highpass, pictures))
            products = deviation_products(*pictures).of_halves(self.count)
            self._known[key] = common_parts(products, pictures[0].shape, filtered=filtered)
        return self._known[key]

    def plane(self, name: str, channel: int) -> np.ndarray | None:
        """Return the pixels (a view) of one channel of a picture: ``mean``, ``half_difference`` or ``variance``."""
        picture = getattr(self, name)
        if picture is None:
            return None
        cell = channel_index(self.pattern)
        row, column = (int(k) for k in np.argwhere(cell == channel)[0])
        rows, columns = (size // cell.shape[0] * cell.shape[0] for size in picture.shape)
        return picture[row : rows : cell.shape[0], column : columns : cell.shape[0]]


def stack_frames(
    frames: Iterable[Any], pattern: str = "mono", *, black: Any = None, progress: Any = False, total: int | None = None
) -> FrameStack:
    """Sum equal frames as they come, in about five pictures of memory whatever their number.

    With `black` the frames are flats: y becomes (y − black) L̄/L, L the frame's own mean level in each channel and L̄
    that of all, so that a lamp that drifts leaves nothing behind.  The sums are of differences from the first frame,
    exact for whole numbers.

    Parameters
    ----------
    frames
        Pictures (y, x) [ADU] of one shape.
    black
        Black level [ADU] of flats, one or one a channel; None for bias frames and darks.
    progress, total
        As in `workbench.core.parallel.counted`.

    Raises
    ------
    WorkbenchError
        If there is no frame, they differ in shape, or a flat has no light above black.

    Examples
    --------
    >>> y = np.random.default_rng(1).poisson(100, (10, 32, 48)).astype("uint16")
    >>> stack = stack_frames(y)
    >>> bool(np.allclose(stack.mean, y.mean(0))), bool(np.allclose(stack.variance, y.var(0, ddof=1), rtol=1e-5))
    (True, True)
    """
    cell = channel_index(pattern)
    level0 = np.zeros(cell.size) if black is None else np.broadcast_to(np.asarray(black, float), (cell.size,)).copy()
    first: np.ndarray | None = None
    halves: list[np.ndarray] = []
    square = np.empty(0)
    levels: list[np.ndarray] = []
    count = 0
    for number, frame in enumerate(counted(frames, progress, total or 0)):
        frame = np.asarray(frame)
        if frame.ndim != 2 or (first is not None and frame.shape != first.shape):
            raise WorkbenchError(
                f"a stack needs pictures of one shape; one has {frame.shape}"
                + (f", the first {first.shape}" if first is not None else "")
            )
        scale, count = np.ones(cell.size), number + 1
        if black is not None:
            levels.append(_levels(frame, cell))
            light = levels[-1] - level0
            if not (light > 0).all():
                raise WorkbenchError(f"a flat of {light.min():.3g} ADU above black holds no light; leave it out")
            scale = (levels[0] - level0) / light
        if first is None:
            first = frame_memory(frame.shape, frame.dtype)
            np.copyto(first, frame)
            *halves, square = (frame_zeros(frame.shape, np.float32) for _ in range(3))
            continue
        if black is None:
            _add_plain(frame, first, halves[number % 2], square)
        else:
            factor, shift = (_rows(each, cell, frame.shape[1]) for each in (scale, level0 * (1 - scale)))
            _add(frame, first, factor, shift, halves[number % 2], square)
    if first is None:
        raise WorkbenchError("a stack needs a frame at least; there is none")
    known = np.reshape(levels, (-1, cell.size))
    common = np.ones(cell.size) if black is None else (known.mean(axis=0) - level0) / (known[0] - level0)
    sizes = (count + 1) // 2, count // 2
    half, mean = halves
    _finish(
        first, *(_rows(each, cell, first.shape[1]) for each in (level0, common)), half, mean, square, np.array(sizes)
    )
    return FrameStack(mean, half if count > 1 else None, square if count > 1 else None, count, known, level0, pattern)


def _rows(values: np.ndarray, cell: np.ndarray, columns: int) -> np.ndarray:
    """Lay one value a channel out along the rows of a cell."""
    return np.tile(values.astype(np.float32)[cell], -(-columns // cell.shape[1]))[:, :columns]


def _levels(frame: np.ndarray, cell: np.ndarray) -> np.ndarray:
    step = cell.shape[0]
    means = np.empty(cell.size)
    for (row, column), channel in np.ndenumerate(cell):
        means[channel] = frame[row::step, column::step].mean(dtype=float)
    return means


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add(frame, first, factor, shift, half, square):
    """Add a scaled frame's difference from the first, and its square."""
    for y in range(frame.shape[0]):
        line, start, sums, squares = frame[y], first[y], half[y], square[y]
        times, plus = factor[y % factor.shape[0]], shift[y % shift.shape[0]]
        for x in range(line.size):
            difference = np.float32(line[x]) * times[x] + plus[x] - np.float32(start[x])
            sums[x] += difference
            squares[x] += difference * difference


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_plain(frame, first, half, square):
    """The same without scaling, in vector registers."""
    for y in range(frame.shape[0]):
        line, start, sums, squares = frame[y], first[y], half[y], square[y]
        for x in range(line.size):
            difference = np.float32(line[x]) - np.float32(start[x])
            sums[x] += difference
            squares[x] += difference * difference


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _finish(first, black, common, even, odd, square, sizes):
    """Turn the sums into half difference (in `even`), mean (in `odd`) and variance (in `square`)."""
    count, some, others = np.float32(sizes[0] + sizes[1]), np.float32(sizes[0]), np.float32(sizes[1])
    per_even, per_odd = np.float32(0.5) / some, np.float32(0.5) / max(others, np.float32(1))
    per_degree = np.float32(1) / max(count - np.float32(1), np.float32(1))
    for y in range(first.shape[0]):
        start, ones, twos, squares = first[y], even[y], odd[y], square[y]
        zero, factor = black[y % black.shape[0]], common[y % common.shape[0]]
        for x in range(start.size):
            one, other = ones[x], twos[x]
            total = one + other
            # the first frame's difference from itself is zero, so it counts among the even ones
            twos[x] = (total / count + (np.float32(start[x]) - zero[x])) * factor[x]
            squares[x] = (squares[x] - total * total / count) * (factor[x] * factor[x] * per_degree)
            ones[x] = (one * per_even - other * per_odd) * factor[x]
