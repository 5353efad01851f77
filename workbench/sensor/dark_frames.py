"""Darks read once: of equal frames their means and the noise between them, of every pixel its sums over all frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numba
import numpy as np
import xarray as xr

from ..core.cube import Setting, check_cube, group_frames
from ..core.dark import line_inverse
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, planes
from ..core.pairs import pair_moments, pair_sums
from ..core.parallel import counted, frame_zeros, in_threads, lazy_frames, stream_frames
from .bias import CLIPPED_FRACTION

_LARGEST_SAMPLE = 1 << 18  # pixels a channel for a median, which is then known to 0.3 % of the spread


@dataclass(frozen=True)
class DarkGroup:
    """Equal frames, measured, per channel [ADU].

    Attributes
    ----------
    exposure
        In s; zero for bias frames.
    files
        Their names.
    means
        Of each frame over all pixels (frame, channel).
    noise
        Half-variance of pairs (channel, block), nothing clipped; NaN for a single frame.
    level
        Mean over the pixels that do not saturate in any frame of the group (channel).
    steady
        The same without those that saturate in longer darks of the setting either.
    median
        Median over the pixels, less that of the bias frames pixel by pixel where there are any (channel).
    saturated, zero
        Pixels that saturate; share of pixels at zero.
    """

    exposure: float
    files: tuple[str, ...]
    means: np.ndarray
    noise: np.ndarray
    level: np.ndarray
    steady: np.ndarray
    median: np.ndarray
    saturated: int
    zero: float

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.files)

    @property
    def scatter(self) -> float:
        """Variance of the frames' means [ADU²]; NaN for a single frame."""
        return float(np.var(self.means.mean(axis=1), ddof=1)) if self.count > 1 else math.nan


@dataclass(frozen=True)
class DarkSetting:
    """All frames of one ISO and temperature, measured.

    Attributes
    ----------
    key
        ISO and temperature.
    pattern
        The mosaic.
    groups, bias
        Its exposures, rising, and the bias frames of the ISO.
    slope
        Of every pixel's least-squares line (y, x) [ADU/s]; None where one exposure makes no line.
    saturated
        Pixels that saturate in any of the frames.
    ever_saturated
        Those, and the ones that do in warmer settings.
    """

    key: Setting
    pattern: str
    groups: list[DarkGroup]
    bias: DarkGroup | None
    slope: np.ndarray | None
    saturated: np.ndarray
    ever_saturated: np.ndarray

    @property
    def points(self) -> list[DarkGroup]:
        """The groups that the slope goes through."""
        return [group for group in ([self.bias] if self.bias else []) + self.groups if not clipped(group)]


class PixelSums(NamedTuple):
    """Of every pixel Σwy, and Σwty for each temperature, over the groups that it has; `lost`: how many it has not."""

    plain: np.ndarray
    timed: list[np.ndarray]
    lost: np.ndarray


def clipped(group: DarkGroup) -> bool:
    """Return whether so many pixels are at zero that means and variances are wrong."""
    return group.zero > CLIPPED_FRACTION


def check_alike(dark: xr.DataArray, bias: xr.DataArray) -> None:
    """Refuse bias frames that are not raw, or of another size or mosaic than the darks."""
    check_cube(bias, stage="raw", kind="bias")
    for name, of_dark, of_bias in (
        ("size", dark.shape[1:], bias.shape[1:]),
        ("mosaic", dark.attrs["cfa_pattern"], bias.attrs["cfa_pattern"]),
    ):
        if of_dark != of_bias:
            raise WorkbenchError(
                f"darks and bias frames differ in {name}: {of_dark} and {of_bias}; measure them separately"
            )


def read_settings(dark: xr.DataArray, bias: xr.DataArray | None, progress: Any) -> Iterator[DarkSetting]:
    """Read all frames in one stream, setting by setting.

    The warmest settings, the highest ISO and the longest exposures come first: most pixels saturate there, and can be
    left out of what follows where it is to be compared.  What is yielded is overwritten by the next.
    """
    plan = []
    for setting, frames in reversed(group_frames(dark, "temperature", "iso")):
        exposures = group_frames(dark.isel(frame=frames), "exposure")
        plan.append((setting, [(key["exposure"], frames[where]) for key, where in reversed(exposures)]))
    zeros = {} if bias is None else {str(key["iso"]): where for key, where in group_frames(bias, "iso")}
    order, unread = [], dict(zeros)
    for setting, groups in plan:
        if bias is not None and str(setting["iso"]) in unread:
            order.append((bias, unread.pop(str(setting["iso"]))))
        order += [(dark, frames) for _, frames in groups]
    stream = equal_frames(order, progress)
    everywhere = np.zeros(dark.shape[1:], bool)
    masters: dict[str, tuple[DarkGroup | None, np.ndarray | None]] = {}
    for setting, groups in plan:
        iso = str(setting["iso"])
        if iso not in masters:
            masters[iso] = None, None
            if iso in zeros:
                zero, total, _ = read_group(next(stream), 0.0)
                total /= np.float32(zero.count)
                masters[iso] = zero, total
        yield _read_setting(setting, [exposure for exposure, _ in groups], stream, *masters[iso], everywhere)
    next(stream, None)  # nothing is left; lets the bar close


class EqualFrames(NamedTuple):
    """Frames of one setting as they are read: their names, an iterator of frames (y, x) [ADU], their cube's attrs."""

    files: tuple[str, ...]
    frames: Iterator[np.ndarray]
    attrs: dict[str, Any]


def equal_frames(groups: Sequence[tuple[xr.DataArray, np.ndarray]], progress: Any) -> Iterator[EqualFrames]:
    """Yield groups of frames, each a cube and the numbers of its frames, in one stream; use one before the next."""
    lazy = {id(cube): lazy_frames(cube) for cube, _ in groups}
    frames = [lazy[id(cube)][i] for cube, numbers in groups for i in numbers]
    stream = counted(stream_frames(frames), progress, len(frames))
    for cube, numbers in groups:
        yield EqualFrames(tuple(cube["filename"].values[numbers]), islice(stream, len(numbers)), cube.attrs)
    for _ in stream:  # nothing is left; lets the bar close
        pass


def _read_setting(
    setting: Setting,
    exposures: list[float],
    stream: Iterator[EqualFrames],
    zero: DarkGroup | None,
    master: np.ndarray | None,
    everywhere: np.ndarray,
) -> DarkSetting:
    """Sum y and t·y of every pixel over the frames, hence the slope of the least-squares line."""
    shape, measured = everywhere.shape, []
    sum_y, sum_ty, saturated = (frame_zeros(shape, kind) for kind in (np.float32, np.float32, bool))
    counts, times = [], []
    if zero is not None and master is not None and not clipped(zero):
        np.multiply(master, np.float32(zero.count), out=sum_y)
        counts, times = [zero.count], [0.0]
    for exposure in exposures:
        frames = next(stream)
        group, total, own = read_group(frames, exposure, saturated, master)
        measured.append(group)
        if not clipped(group):
            add_weighted(total, np.float32(1), np.float32(exposure), sum_y, sum_ty)
            counts, times = [*counts, group.count], [*times, exposure]
        del total, own  # their memory serves the next group
    inverse = line_inverse(np.array(counts, float), np.array(times, float))[[0, -1]]  # of all frames, and of none
    slope = None
    if np.isfinite(inverse[0]).all():
        _solve(sum_y, sum_ty, saturated.view(np.uint8), inverse)
        slope = sum_ty
    everywhere |= saturated
    return DarkSetting(setting, frames.attrs["cfa_pattern"], measured[::-1], zero, slope, saturated, everywhere)


def pixel_maps(
    sums: PixelSums, seconds: np.ndarray, weight: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and dark current of every pixel of a library, in the memory of the sums.

    Parameters
    ----------
    seconds, weight
        Of each group: t f(T) [s], and weight [1/ADU²].
    factor
        f(T) of each map.
    """
    crossed = sums.timed[0]
    crossed *= np.float32(factor[0])
    for picture, f in zip(sums.timed[1:], factor[1:], strict=True):
        picture *= np.float32(f)
        crossed += picture
    _solve(sums.plain, crossed, sums.lost, line_inverse(weight, seconds))
    return sums.plain, crossed


def read_group(
    equal: EqualFrames,
    exposure: float,
    ever_saturated: np.ndarray | None = None,
    zero: np.ndarray | None = None,
) -> tuple[DarkGroup, np.ndarray, np.ndarray]:
    """Read equal frames once; return what they show, their sum float32 (y, x), and which pixels saturate.

    The sum is exact up to 2²⁴: a thousand frames of 14 bits.

    Parameters
    ----------
    ever_saturated
        Pixels that saturate in longer exposures; those of these frames are added.
    zero
        The master bias (y, x) to take the median against.
    """
    pattern, white = equal.attrs["cfa_pattern"], equal.attrs["white_level"]
    cell, count = channel_index(pattern), len(equal.files)
    sums: list[np.ndarray] = []  # the two that grow while pairs of frames go by

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = previous = None
        for frame in equal.frames:
            if previous is None:
                first = frame
                sums.extend(frame_zeros(frame.shape, kind) for kind in (np.float32, bool))
            _add_frame(sums[0], sums[1], frame, np.float32(np.inf if np.isnan(white) else white))
            if previous is not None:
                yield previous, frame
            previous = frame
        if count != 2 and first is not None and previous is not None:
            yield first, previous  # closes the ring; a lone frame, paired with itself, still has a mean

    measured, noise = [], []
    for pair in in_threads(lambda pair: pair_sums(pair[0], pair[1], pattern), pairs()):
        whole = pair_moments(pair.plain.sum(axis=1))
        measured.append((whole.mean1, whole.mean2, pair.zero.sum() / pair.plain[..., 0].sum()))
        noise.append(pair_moments(pair.plain).half_variance)
    total, saturated = sums
    last = max(count - 1, 1)
    means = np.array([pair[0] for pair in measured[:last]] + [pair[1] for pair in measured[last - 1 : count - 1]])
    zeros = float(np.mean([pair[2] for pair in measured]))
    half = np.mean(noise, axis=0) if count > 1 else np.full_like(noise[0], np.nan)
    if ever_saturated is None:
        ever_saturated = saturated
    ever_saturated |= saturated
    own = steady = map_sums(total, saturated, cell, 1)[:2, :, 0]
    bright = int(np.count_nonzero(saturated))
    if np.count_nonzero(ever_saturated) > bright:
        steady = map_sums(total, ever_saturated, cell, 1)[:2, :, 0]
    of_own, of_steady = (level / np.where(pixels > 0, pixels, np.nan) / count for pixels, level in (own, steady))
    middle = medians(total, saturated, cell, count, zero)
    group = DarkGroup(exposure, equal.files, means, half, of_own, of_steady, middle, bright, zeros)
    return group, total, saturated


def medians(
    total: np.ndarray, masked: np.ndarray, cell: np.ndarray, count: int = 1, zero: np.ndarray | None = None
) -> np.ndarray:
    """Return each channel's median of total/count − zero, of an even sample where there are very many pixels."""
    result = np.empty(cell.size)
    for (channel, plane), (_, mask) in zip(planes(total, cell), planes(masked, cell), strict=True):
        stride = max(1, int(np.ceil(np.sqrt(plane.size / _LARGEST_SAMPLE))))
        values = plane[::stride, ::stride] / np.float32(count)
        if zero is not None:
            values -= dict(planes(zero, cell))[channel][::stride, ::stride]
        values = values[~mask[::stride, ::stride]]
        result[channel] = np.median(values) if values.size else np.nan
    return result


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_frame(total, saturated, frame, white):
    """Add a frame (y, x) [ADU] to a sum and note the pixels at or above white, in place."""
    for y in range(frame.shape[0]):
        row, sums = frame[y], total[y]
        high = row[0]
        for x in range(row.size):
            sums[x] += np.float32(row[x])
            high = max(high, row[x])
        if np.float32(high) >= white:
            for x in range(row.size):
                saturated[y, x] |= np.float32(row[x]) >= white


def map_sums(picture: np.ndarray, masked: np.ndarray, cell: np.ndarray, blocks: int) -> np.ndarray:
    """Return n, Σ, Σ², Σ³ of a picture's unmasked pixels (4, channel, block), blocks being strips of rows."""
    rows = picture.shape[0] // cell.shape[0]
    sums = np.zeros((4, cell.size, max(1, min(blocks, rows))))
    _map_sums(picture, masked, cell, sums)
    return sums


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _map_sums(picture, masked, cell, sums):
    step = cell.shape[0]
    rows, columns = picture.shape[0] // step, picture.shape[1] // step
    blocks = sums.shape[2]
    for row in range(rows):
        block = row * blocks // rows
        for dy in range(step):
            for dx in range(step):
                n, s1, s2, s3 = 0, 0.0, 0.0, 0.0
                for k in range(columns):
                    y, x = row * step + dy, k * step + dx
                    if not masked[y, x]:
                        value = np.float64(picture[y, x])
                        n += 1
                        s1 += value
                        s2 += value * value
                        s3 += value * value * value
                sums[0, cell[dy, dx], block] += n
                sums[1, cell[dy, dx], block] += s1
                sums[2, cell[dy, dx], block] += s2
                sums[3, cell[dy, dx], block] += s3


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_weighted(
    picture: np.ndarray, weight: np.float32, timed_weight: np.float32, plain: np.ndarray, timed: np.ndarray
) -> None:
    """Add a picture (y, x) [ADU] to Σwy and, times the other weight, to Σwty."""
    for y in range(picture.shape[0]):
        row, to_plain, to_timed = picture[y], plain[y], timed[y]
        for x in range(row.size):
            to_plain[x] += weight * row[x]
            to_timed[x] += timed_weight * row[x]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _solve(plain, timed, lost, inverse):
    """Turn Σwy [ADU] and Σwty [ADU s] (y, x) into offset [ADU] and slope [ADU/s] of the least-squares line, in place.

    `inverse` (number, 2, 2) is `core.dark.line_inverse`; `lost` (y, x): how many groups a pixel lacks.
    """
    for i in range(plain.shape[0]):
        for j in range(plain.shape[1]):
            k, y, ty = lost[i, j], np.float64(plain[i, j]), np.float64(timed[i, j])
            plain[i, j] = inverse[k, 0, 0] * y + inverse[k, 0, 1] * ty
            timed[i, j] = inverse[k, 1, 0] * y + inverse[k, 1, 1] * ty
