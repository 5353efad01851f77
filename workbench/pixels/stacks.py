"""Equal frames, read once: every pixel's mean, its scatter and noise, and the means of two halves.

What is fixed in the frames is in both halves, temporal noise is not: their covariance over the pixels is the spatial
variance without temporal noise, whatever that noise looks like.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import channels_of, check_cube, one_value
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index, planes, spread
from ..core.noise import code_step_of
from ..core.pairs import BLOCKS, QUANTISATION_VARIANCE, jackknife_error, leave_one_out
from ..core.parallel import counted, frame_memory, frame_zeros, lazy_frames, stream_frames
from ..core.settings import TITLES, setting_dim
from .spatial import Lines, Spatial, chance_variances, common_parts, deviation_products, highpass

_FEWEST = 3  # frames of a noise map; of two a pixel's spread says next to nothing
_RANGE = 4.0  # of the typical noise that its histogram spans


@dataclass(frozen=True)
class FrameStack:
    """Means and scatter of a stack of equal frames.

    `mean` (y, x) [ADU], of flats above `black` (channel,) [ADU] and scaled to one level; `half_difference` (y, x)
    [ADU], half the difference of the means of the even and the odd frames, and `variance` (y, x) [ADU²] over the
    frames (ddof 1), both None for a single frame; `count` of the frames; `levels` (frame, channel) [ADU], means of each
    flat, empty for bias frames and darks; the mosaic's `pattern`; of bias frames and darks the means of `lines` [ADU],
    of rows (frame, y, 2) and columns (frame, 2, x), apart for the two places in a cell.
    """

    mean: np.ndarray
    half_difference: np.ndarray | None
    variance: np.ndarray | None
    count: int
    levels: np.ndarray
    black: np.ndarray
    pattern: str
    lines: Lines | None
    _known: dict[tuple[int, bool], Spatial] = field(default_factory=dict, repr=False, compare=False)

    def common(self, channel: int, *, filtered: bool = False) -> Spatial:
        """Return the variances that a channel's two halves have in common (see `common_parts`), found once."""
        key = channel, filtered
        if key not in self._known:
            mean, half = self.plane("mean", channel), self.plane("half_difference", channel)
            if filtered:
                mean, half = highpass(mean), highpass(half)
            products = deviation_products(mean, half).of_halves(self.count)
            lines = self._lines_of(channel)
            chance = None if lines is None else chance_variances(mean, half, lines, filtered=filtered)
            self._known[key] = common_parts(products, mean.shape, filtered=filtered, chance=chance)
        return self._known[key]

    def _lines_of(self, channel: int) -> Lines | None:
        """Return the means of a channel's rows and columns in each frame; None of flats, which are scaled."""
        if self.lines is None:
            return None
        cell = channel_index(self.pattern)
        ((dy, dx),) = np.argwhere(cell == channel)
        rows, columns = (size // len(cell) * len(cell) for size in self.mean.shape)
        return Lines(self.lines.rows[:, dy : rows : len(cell), dx], self.lines.columns[:, dy, dx : columns : len(cell)])

    def plane(self, name: str, channel: int) -> np.ndarray:
        """Return the pixels (a view) of one channel of a picture: ``mean``, ``half_difference`` or ``variance``.

        Raises
        ------
        WorkbenchError
            If a single frame cannot have that picture.
        """
        picture = {"mean": self.mean, "half_difference": self.half_difference, "variance": self.variance}[name]
        if picture is None:
            raise WorkbenchError("one frame cannot separate noise from pattern; give a stack of fifty, two at least")
        cell = channel_index(self.pattern)
        rows, columns = (size // cell.shape[0] * cell.shape[0] for size in picture.shape)
        return dict(planes(picture[:rows, :columns], cell))[channel]


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
        If frames are missing, they differ in shape, or a flat has no light above black.

    Examples
    --------
    >>> y = np.random.default_rng(1).poisson(100, (10, 32, 48)).astype("uint16")
    >>> stack = stack_frames(y)
    >>> bool(np.allclose(stack.mean, y.mean(0))), bool(np.allclose(stack.variance, y.var(0, ddof=1), rtol=1e-5))
    (True, True)
    """
    cell = channel_index(pattern)
    channels = channel_count(cell)
    offset = np.zeros(channels) if black is None else np.broadcast_to(np.asarray(black, float), (channels,)).copy()
    sums: _StackSums | None = None
    levels: list[np.ndarray] = []
    lines: list[Lines] = []
    count = 0
    for number, picture in enumerate(counted(frames, progress, total or 0)):
        frame = np.asarray(picture)
        _check_shape(frame, sums)
        count = number + 1
        if black is not None:
            levels.append(_levels(frame, cell, offset))
        elif len(cell) <= 2:  # colours of X-Trans have no lattice of rows
            lines.append(_line_means(frame, len(cell)))
        if sums is None:
            first = frame_memory(frame.shape, frame.dtype)
            np.copyto(first, frame)
            sums = _StackSums(first, *(frame_zeros(frame.shape, np.float32) for _ in range(3)))
            continue
        half = sums.odd if number % 2 else sums.even
        scaling = None
        if black is not None:
            scale = (levels[0] - offset) / (levels[-1] - offset)
            scaling = tuple(_rows(each, cell, frame.shape[1]) for each in (scale, offset * (1 - scale)))
        _add(frame, sums.first, scaling, half, sums.square)
    if sums is None:
        raise WorkbenchError("a stack needs a frame at least; there is none")
    known = np.reshape(levels, (-1, channels))
    common = np.ones(channels) if black is None else (known.mean(axis=0) - offset) / (known[0] - offset)
    shift, factor = (_rows(each, cell, sums.first.shape[1]) for each in (offset, common))
    _finish(sums, shift, factor, np.array([(count + 1) // 2, count // 2]))
    several = count > 1
    return FrameStack(
        sums.odd, sums.even if several else None, sums.square if several else None, count, known, offset, pattern,
        Lines(*map(np.array, zip(*lines, strict=True))) if lines else None,
    )  # fmt: skip


def stack_cube(cube: xr.DataArray, *, black: Any = None, progress: Any = True) -> FrameStack:
    """Sum the frames of a cube as `stack_frames` does, each read once.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> y = np.random.default_rng(1).normal(600, 3, (4, 32, 48)).round().astype("uint16")
    >>> stack_cube(make_cube(y, cfa_pattern="RGGB", kind="bias", iso=100), progress=False).count
    4
    """
    check_cube(cube, stage="raw")
    frames = stream_frames(lazy_frames(cube))
    return stack_frames(frames, cube.attrs["cfa_pattern"], black=black, progress=progress, total=cube.sizes["frame"])


class _StackSums(NamedTuple):
    """The first frame [ADU], sums of even and odd frames' differences from it and of their squares, all (y, x)."""

    first: np.ndarray
    even: np.ndarray
    odd: np.ndarray
    square: np.ndarray


def _check_shape(frame: np.ndarray, sums: _StackSums | None) -> None:
    if frame.ndim != 2 or (sums is not None and frame.shape != sums.first.shape):
        others = "" if sums is None else f", the first {sums.first.shape}"
        raise WorkbenchError(f"a stack needs pictures of one shape; one has {frame.shape}{others}")


def _rows(values: np.ndarray, cell: np.ndarray, columns: int) -> np.ndarray:
    """Lay one value a channel out along the rows of a cell: (cell's rows, columns), float32."""
    return np.tile(values.astype(np.float32)[cell], -(-columns // cell.shape[1]))[:, :columns]


def _levels(frame: np.ndarray, cell: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the mean of each channel of a flat [ADU], which has to lie above the black level `offset`."""
    means = np.array([plane.mean(dtype=float) for _, plane in planes(frame, cell)])
    if not (means > offset).all():
        raise WorkbenchError(f"a flat of {(means - offset).min():.3g} ADU above black holds no light; leave it out")
    return means


def _line_means(frame: np.ndarray, period: int) -> Lines:
    """Return the means of each row (y, period) and column (period, x) over the pixels of each place in the cell."""
    sums = Lines(np.zeros((len(frame), period)), np.zeros((period, frame.shape[1])))
    _sum_lines(frame, *sums)
    per_column, per_row = (np.bincount(np.arange(size) % period) for size in frame.shape)
    return Lines(sums.rows / per_row, sums.columns / per_column[:, None])


@kernel(error_model="numpy", fastmath={"contract", "reassoc"})
def _sum_lines(frame, rows, columns):
    """Add the pixels of a frame (y, x) up by row and by column, apart for each place in a cell, in place."""
    period = rows.shape[1]
    for y in range(frame.shape[0]):
        sums = columns[y % period]
        for x in range(frame.shape[1]):
            sums[x] += frame[y, x]
        for place in range(period):
            total = 0.0
            for x in range(place, frame.shape[1], period):
                total += frame[y, x]
            rows[y, place] = total


@kernel(error_model="numpy")
def _add(frame, first, scaling, half, square):
    """Add the difference of a frame (y, x) from the first to `half`, its square to `square`; `scaling` None or rows."""
    for y in range(frame.shape[0]):
        line, start, sums, squares = frame[y], first[y], half[y], square[y]
        for x in range(line.size):
            value = np.float32(line[x])
            if scaling is not None:  # compiled apart, so that plain frames stay in vector registers
                factor, shift = scaling
                value = value * factor[y % factor.shape[0], x] + shift[y % shift.shape[0], x]
            difference = value - np.float32(start[x])
            sums[x] += difference
            squares[x] += difference * difference


@kernel(error_model="numpy")
def _finish(sums, black, common, sizes):
    """Turn sums, less `black` and times `common` (cell's rows, x), into half difference, mean, variance in place."""
    count, some, others = np.float32(sizes[0] + sizes[1]), np.float32(sizes[0]), np.float32(sizes[1])
    per_even, per_odd = np.float32(0.5) / some, np.float32(0.5) / max(others, np.float32(1))
    per_degree = np.float32(1) / max(count - np.float32(1), np.float32(1))
    for y in range(sums.first.shape[0]):
        start, ones, twos, squares = sums.first[y], sums.even[y], sums.odd[y], sums.square[y]
        zero, factor = black[y % black.shape[0]], common[y % common.shape[0]]
        for x in range(start.size):
            one, other = ones[x], twos[x]
            total = one + other
            # the first frame's difference from itself is zero, so it counts among the even ones
            twos[x] = (total / count + (np.float32(start[x]) - zero[x])) * factor[x]
            squares[x] = (squares[x] - total * total / count) * (factor[x] * factor[x] * per_degree)
            ones[x] = (one * per_even - other * per_odd) * factor[x]


def noise_map(bias: xr.DataArray, *, progress: Any = True) -> xr.DataArray:
    """Measure the temporal noise of every pixel from a stack of equal frames.

    The standard deviation (ddof 1) of each pixel's values over the frames, each frame's mean of the channel taken out
    first, so that an offset that wanders does not count.  From N frames one pixel's is known to 1/√(2(N−1)).

    Parameters
    ----------
    bias
        Raw frames (frame, y, x) of one kind, ISO and exposure, three or more; twenty show the pixels that flicker.

    Returns
    -------
    xarray.DataArray
        Over (y, x) [ADU], rounding included; attrs ``frames``, ``iso``, ``whole_numbers``, ``cfa_pattern``, ``camera``.

    Raises
    ------
    WorkbenchError
        If there are fewer than three frames, or they are not equal.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> noise = np.random.default_rng(0).normal(600, 3, (16, 64, 64)).round().astype("uint16")
    >>> found = noise_map(make_cube(noise, cfa_pattern="RGGB", kind="bias", iso=100, exposure=0), progress=False)
    >>> found.shape, float(np.sqrt((found**2).mean()).round(1))
    ((64, 64), 3.0)
    """
    check_cube(bias, stage="raw")
    count = bias.sizes["frame"]
    if count < _FEWEST:
        raise WorkbenchError(f"the noise of each pixel needs {_FEWEST} equal frames at least, and there are {count}")
    dim = setting_dim(bias)
    setting, _ = one_value(bias, dim, "a noise map"), one_value(bias, "exposure", "a noise map")
    pattern = bias.attrs["cfa_pattern"]
    frames = (_without_means(frame, pattern) for frame in stream_frames(lazy_frames(bias)))
    stack = stack_frames(frames, pattern, progress=progress, total=count)
    variance = np.asarray(stack.variance)  # there are enough frames for one
    attrs = {
        "units": "adu",
        "long_name": "temporal noise of each pixel",
        "frames": count,
        dim: setting,
        "whole_numbers": bool(np.issubdtype(bias.dtype, np.integer)),
        "step": code_step_of(bias),
        "cfa_pattern": bias.attrs["cfa_pattern"],
        "camera": bias.attrs["camera"],
    }
    return xr.DataArray(np.sqrt(np.maximum(variance, 0)), dims=("y", "x"), attrs=attrs)


def _without_means(frame: np.ndarray, pattern: str) -> np.ndarray:
    """Return a frame (y, x) less the mean of each channel [ADU], float32."""
    values = frame.astype(np.float32)
    means = np.array([plane.mean(dtype=float) for _, plane in planes(values, pattern)], np.float32)
    values -= spread(means, channel_index(pattern), values.shape)
    return values


def noise_distribution(pixels: xr.DataArray, *, rare: float = 1e-3, bins: int = 200) -> xr.Dataset:
    """Compare the noise of the pixels with what chance makes of one noise for all, and count those beyond it.

    Of normal noise (N−1)s²/σ² is χ² of N−1 degrees of freedom; σ² is taken from the median, which the odd ones do not
    move.  Pixels whose s² exceeds what χ² exceeds once in a thousand (`rare`) are more than chance allows where their
    share is more than a thousandth: a source follower that switches between two levels (random telegraph noise) makes
    such a tail.

    Parameters
    ----------
    pixels
        From `noise_map`.
    rare
        The probability beyond which a pixel counts to the tail.
    bins
        Of the histogram, from zero to four times the typical noise.

    Returns
    -------
    xarray.Dataset
        Over channel: ``typical_noise`` [ADU], from the median; ``read_noise_adu`` [ADU], the root of the mean of s²
        less 1/12, as pairs give it, with ``read_noise_adu_error`` (jackknife over blocks of rows); ``threshold`` [ADU];
        ``tail_share``, the share of pixels beyond it less `rare`, with ``tail_share_error``.  Over (channel, bin):
        ``count`` and ``expected`` pixels; ``bin`` [ADU], the middle.  ``beyond``, pixels right of the last bin.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> s = np.sqrt(9 * rng.chisquare(15, (200, 200)) / 15)
    >>> s[::20, ::20] = 12  # a quarter per cent of the pixels flickers
    >>> attrs = {"frames": 16, "cfa_pattern": "mono", "whole_numbers": False, "iso": 100, "camera": ""}
    >>> found = noise_distribution(xr.DataArray(s, dims=("y", "x"), attrs=attrs))
    >>> round(found.typical_noise.item(), 1), round(100 * found.tail_share.item(), 2)
    (3.0, 0.26)
    """
    if not 0 < rare < 0.5:
        raise WorkbenchError(f"rare is a probability well below one half, not {rare}")
    names, degrees = channels_of(pixels.attrs["cfa_pattern"]), pixels.attrs["frames"] - 1
    rounding = QUANTISATION_VARIANCE * pixels.attrs.get("step", int(pixels.attrs["whole_numbers"])) ** 2
    variances = [plane.astype(float) ** 2 for _, plane in planes(pixels.values, pixels.attrs["cfa_pattern"])]
    typical = np.array([np.median(variance) for variance in variances]) * degrees / special.chdtri(degrees, 0.5)
    edges = np.linspace(0, _RANGE * np.nanmax(np.sqrt(typical)), bins + 1)
    limit = typical * special.chdtri(degrees, rare) / degrees
    found = {name: np.full(len(names), np.nan) for name in _VARIABLES}
    found |= {"typical_noise": np.sqrt(typical), "threshold": np.sqrt(limit)}
    histogram, expected = np.zeros((2, len(names), bins))
    for channel, variance in enumerate(variances):
        share = float((variance > limit[channel]).mean())
        blocks = np.array_split(variance, min(BLOCKS, variance.shape[0]))
        sums = leave_one_out(np.array([[block.sum(), block.size] for block in blocks]), axis=0)
        mean = float(variance.mean()) - rounding
        error = jackknife_error(sums[:, 0] / sums[:, 1])
        found["read_noise_adu"][channel] = np.sqrt(max(mean, 0.0))
        found["read_noise_adu_error"][channel] = error / (2 * np.sqrt(mean)) if mean > 0 else np.nan
        found["tail_share"][channel] = share - rare
        found["tail_share_error"][channel] = np.sqrt(max(share, rare) * (1 - share) / variance.size)
        histogram[channel] = np.histogram(np.sqrt(variance), edges)[0]
        some = typical[channel] > 0
        chance = special.chdtr(degrees, degrees * edges**2 / typical[channel]) if some else np.ones(edges.size)
        expected[channel] = np.diff(chance) * variance.size
        found["beyond"][channel] = variance.size - histogram[channel].sum()
    data: dict[str, Any] = {name: ("channel", found[name], attrs) for name, attrs in _VARIABLES.items()}
    data["count"] = (("channel", "bin"), histogram, {"units": "1", "long_name": "pixels"})
    data["expected"] = (("channel", "bin"), expected, {"units": "1", "long_name": "pixels by chance"})
    coords = {
        "channel": list(names),
        "bin": ("bin", (edges[1:] + edges[:-1]) / 2, {"units": "adu", "long_name": "read noise of a pixel"}),
    }
    kept = {name: pixels.attrs[name] for name in ("frames", *TITLES, "camera") if name in pixels.attrs}
    return xr.Dataset(data, coords, kept | {"rare": rare, "long_name": "read noise pixel by pixel"})


_VARIABLES = {
    "typical_noise": {"units": "adu", "long_name": "typical noise of a pixel"},
    "read_noise_adu": {"units": "adu", "long_name": "read noise"},
    "read_noise_adu_error": {"units": "adu", "long_name": "error of the read noise"},
    "threshold": {"units": "adu", "long_name": "noise beyond which a pixel counts to the tail"},
    "tail_share": {"units": "1", "long_name": "share of pixels beyond what chance allows"},
    "tail_share_error": {"units": "1", "long_name": "error of that share"},
    "beyond": {"units": "1", "long_name": "pixels right of the histogram"},
}
