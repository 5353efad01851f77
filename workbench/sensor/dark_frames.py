"""Darks read once: per exposure their means and the noise between them, per setting every pixel's slope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numba
import numpy as np
import xarray as xr

from ..core.buffers import frame_zeros
from ..core.mosaic import channel_index
from ..core.pairs import pair_moments, pair_sums
from ..core.parallel import counted, in_threads, lazy_frames, stream_frames
from ..core.selection import Setting, group_frames
from .bias import CLIPPED_FRACTION

_LARGEST_SAMPLE = 1 << 18  # pixels a channel for a median: they tell it to 0.3 % of the spread


@dataclass(frozen=True)
class Group:
    """Equal frames: what their means, their pairs and their sum tell, per channel [ADU].

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


@dataclass(frozen=True)
class SettingRead:
    """All frames of one ISO and temperature, read.

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
    groups: list[Group]
    bias: Group | None
    slope: np.ndarray | None
    saturated: np.ndarray
    ever_saturated: np.ndarray

    @property
    def points(self) -> list[Group]:
        """The groups that the slope goes through."""
        return [group for group in ([self.bias] if self.bias else []) + self.groups if not clipped(group)]


def clipped(group: Group) -> bool:
    """Tell whether so many pixels are at zero that means and variances are wrong."""
    return group.zero > CLIPPED_FRACTION


def read_settings(dark: xr.DataArray, bias: xr.DataArray | None, progress: Any) -> Iterator[SettingRead]:
    """Read all frames in one stream, setting by setting.

    The warmest settings, the highest ISO and the longest exposures come first: most pixels saturate there, and can be
    left out of what follows where it is to be compared.  What is yielded is overwritten by the next.
    """
    plan = []
    for setting, frames in group_frames(dark, "temperature", "iso"):
        groups = group_frames(dark.isel(frame=frames), "exposure")
        plan.append((setting, [(key["exposure"], frames[where]) for key, where in reversed(groups)]))
    plan.reverse()
    zeros = {} if bias is None else {_hashable(key["iso"]): where for key, where in group_frames(bias, "iso")}
    order, wanted = [], dict(zeros)
    lazy_dark, lazy_bias = lazy_frames(dark), None if bias is None else lazy_frames(bias)
    for setting, groups in plan:
        order += [lazy_bias[i] for i in wanted.pop(_hashable(setting["iso"]), ())]
        order += [lazy_dark[i] for _, frames in groups for i in frames]
    stream = counted(stream_frames(order), progress, len(order))
    pattern, white = dark.attrs["cfa_pattern"], dark.attrs["white_level"]
    everywhere = np.zeros(dark.shape[1:], bool)
    masters: dict[float | None, tuple[Group | None, np.ndarray | None]] = {}
    for setting, groups in plan:
        iso = _hashable(setting["iso"])
        if iso not in masters:
            where = zeros.get(iso, ())
            masters[iso] = None, None
            if len(where):
                files = tuple(bias["filename"].values[where])
                zero, total, _ = read_group(islice(stream, len(where)), files, 0.0, pattern, white)
                total /= np.float32(zero.count)
                masters[iso] = zero, total
        yield _read_setting(dark, setting, groups, stream, *masters[iso], everywhere)
    for _ in stream:  # nothing is left; lets the bar close
        pass


def _hashable(iso: float) -> float | None:
    return None if np.isnan(iso) else iso


def _read_setting(
    dark: xr.DataArray,
    setting: Setting,
    groups: list[tuple[float, np.ndarray]],
    stream: Iterator[np.ndarray],
    zero: Group | None,
    master: np.ndarray | None,
    everywhere: np.ndarray,
) -> SettingRead:
    """Sum y and t·y of every pixel over the frames, hence the slope of the least-squares line."""
    pattern, shape = dark.attrs["cfa_pattern"], dark.shape[1:]
    found: list[Group] = []
    sum_y, sum_ty, saturated = (frame_zeros(shape, kind) for kind in (np.float32, np.float32, bool))
    n = s_t = s_tt = 0.0
    if zero is not None and not clipped(zero):
        np.multiply(master, np.float32(zero.count), out=sum_y)
        n = zero.count
    for exposure, frames in groups:
        files = tuple(dark["filename"].values[frames])
        group, total, own = read_group(
            islice(stream, len(frames)), files, exposure, pattern, dark.attrs["white_level"], saturated, master
        )
        saturated |= own
        found.append(group)
        if not clipped(group):
            _add_to_line(total, np.float32(exposure), sum_y, sum_ty)
            n, s_t, s_tt = n + group.count, s_t + group.count * exposure, s_tt + group.count * exposure**2
        del total, own  # their memory serves the next group
    spread = s_tt - s_t**2 / n if n else 0.0
    slope = None
    if spread > 1e-9 * s_tt > 0:
        # Σ(t − t̄)y / Σ(t − t̄)²
        _slope(sum_y, sum_ty, np.float32(s_t / n), np.float32(spread))
        slope = sum_ty
    everywhere |= saturated
    return SettingRead(setting, pattern, found[::-1], zero, slope, saturated, everywhere)


def read_group(
    frames: Iterable[np.ndarray],
    files: tuple[str, ...],
    exposure: float,
    pattern: str,
    white: float,
    saturated_before: np.ndarray | None = None,
    zero: np.ndarray | None = None,
) -> tuple[Group, np.ndarray, np.ndarray]:
    """Read equal frames once; return what they tell, their sum float32 (y, x), and which pixels saturate.

    The sum is exact up to 2²⁴: a thousand frames of 14 bits.

    Parameters
    ----------
    saturated_before
        Pixels that saturate in longer exposures.
    zero
        The master bias (y, x) to take the median against.
    """
    cell = channel_index(pattern)
    count = len(files)
    sums: list[np.ndarray] = []  # the two that grow while pairs of frames go by

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        first = previous = None
        for frame in frames:
            if previous is None:
                first = frame
                sums.extend(frame_zeros(frame.shape, kind) for kind in (np.float32, bool))
            add_frame(*sums, frame, np.float32(np.inf if np.isnan(white) else white))
            if previous is not None:
                yield previous, frame
            previous = frame
        if count != 2:
            yield first, previous  # closes the ring; a lone frame, paired with itself, still has a mean

    moments, noise = [], []
    for one in in_threads(lambda pair: pair_sums(*pair, pattern), pairs()):
        whole = pair_moments(one.plain.sum(axis=1))
        moments.append((whole.mean1, whole.mean2, one.zero.sum() / one.plain[..., 0].sum()))
        noise.append(pair_moments(one.plain).half_variance)
    total, saturated = sums
    last = max(count - 1, 1)
    means = np.array([pair[0] for pair in moments[:last]] + [pair[1] for pair in moments[last - 1 : count - 1]])
    zeros = float(np.mean([pair[2] for pair in moments]))
    half = np.mean(noise, axis=0) if count > 1 else np.full_like(noise[0], np.nan)
    lit = np.zeros((2, 2, cell.size))
    _level_sums(total, saturated, saturated if saturated_before is None else saturated_before, cell, lit)
    levels = lit[:, 1] / np.where(lit[:, 0] > 0, lit[:, 0], np.nan) / count
    middle = medians(total, saturated, cell, count, zero)
    group = Group(exposure, files, means, half, *levels, middle, int(np.count_nonzero(saturated)), zeros)
    return group, total, saturated


def medians(
    total: np.ndarray, masked: np.ndarray, cell: np.ndarray, count: int = 1, zero: np.ndarray | None = None
) -> np.ndarray:
    """Return each channel's median of total/count − zero, of an even sample where there are very many pixels."""
    step = cell.shape[0]
    result = np.empty(cell.size)
    for (row, column), channel in np.ndenumerate(cell):
        rows, columns = total.shape[0] // step, total.shape[1] // step
        stride = step * max(1, int(np.ceil(np.sqrt(rows * columns / _LARGEST_SAMPLE))))
        where = slice(row, None, stride), slice(column, None, stride)
        values = total[where] / np.float32(count)
        if zero is not None:
            values -= zero[where]
        values = values[~masked[where]]
        result[channel] = np.median(values) if values.size else np.nan
    return result


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_frame(total, saturated, frame, white):
    """Add a frame to a sum and note the pixels at or above white, in place."""
    for y in range(frame.shape[0]):
        row, sums = frame[y], total[y]
        high = row[0]
        for x in range(row.size):
            sums[x] += np.float32(row[x])
            high = max(high, row[x])
        if np.float32(high) >= white:
            for x in range(row.size):
                saturated[y, x] |= np.float32(row[x]) >= white


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _level_sums(total, own, before, cell, sums):
    """Count and sum (mask, moment, channel) the pixels that are not in `own`, and those in neither mask."""
    step = cell.shape[0]
    for y in range(total.shape[0] // step * step):
        odd = False
        for x in range(total.shape[1]):
            odd |= own[y, x] | before[y, x]
        for dx in range(step):
            c = cell[y % step, dx]
            line = total[y, dx : total.shape[1] // step * step : step]
            s = 0.0
            if not odd:
                for k in range(line.size):
                    s += np.float64(line[k])
                for mask in range(2):
                    sums[mask, 0, c] += line.size
                    sums[mask, 1, c] += s
                continue
            for k in range(line.size):
                x = dx + k * step
                if not own[y, x]:
                    sums[0, 0, c] += 1
                    sums[0, 1, c] += np.float64(line[k])
                    if not before[y, x]:
                        sums[1, 0, c] += 1
                        sums[1, 1, c] += np.float64(line[k])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add_to_line(total, exposure, sum_y, sum_ty):
    """Add a group's sum, and that times its exposure."""
    for y in range(total.shape[0]):
        row, plain, timed = total[y], sum_y[y], sum_ty[y]
        for x in range(row.size):
            plain[x] += row[x]
            timed[x] += exposure * row[x]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _slope(sum_y, sum_ty, middle, spread):
    """Turn Σty into (Σty − t̄ Σy)/Σ(t − t̄)²."""
    for y in range(sum_y.shape[0]):
        plain, timed = sum_y[y], sum_ty[y]
        for x in range(plain.size):
            timed[x] = (timed[x] - middle * plain[x]) / spread


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
