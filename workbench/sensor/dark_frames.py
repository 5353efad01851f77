"""Equal darks, each frame read once: their means, the noise between them, and the errors that follow from these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from ..core.cube import Setting, check_cube, group_frames
from ..core.dark import line_inverse
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index, planes
from ..core.pairs import jackknife_error, leave_one_out, pair_moments, pair_sums, ring_error
from ..core.parallel import counted, frame_zeros, in_threads, lazy_frames, stream_frames
from ..core.settings import setting_dim
from ..core.statistics import fit_line
from .bias import CLIPPED_FRACTION
from .law import freedom_of

SAME_TEMPERATURE = 2.0  # K between bias frames and darks: the black level is the same
_MOVED = 1e-4  # chance that the black levels of bias frames and darks differ so much, of few frames
_LARGEST_SAMPLE = 1 << 18  # pixels a channel for a median, which is then known to 0.3 % of the spread


@dataclass(frozen=True)
class DarkGroup:
    """Equal frames, measured, per channel [ADU]."""

    exposure: float  # s; zero for bias frames
    files: tuple[str, ...]
    means: np.ndarray  # of each frame over all pixels (frame, channel)
    noise: np.ndarray  # half-variance of pairs (channel, block), nothing clipped; NaN for a single frame
    noise_error: float  # of its mean over the channels, from frame to frame; 0 for two frames
    level: np.ndarray  # mean over the pixels that do not saturate in any frame of the group (channel)
    steady: np.ndarray  # the same without those that saturate in longer darks of the setting either
    median: np.ndarray  # over the pixels, less that of the bias frames pixel by pixel where there are any (channel)
    saturated: int  # pixels
    zero: float  # share of pixels at zero

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.files)

    @property
    def clipped(self) -> bool:
        """Whether so many pixels are at zero that means and variances are wrong."""
        return self.zero > CLIPPED_FRACTION


@dataclass(frozen=True)
class DarkSetting:
    """All frames of one ISO and temperature, measured."""

    key: Setting  # ISO and temperature
    pattern: str
    groups: list[DarkGroup]  # its exposures, rising
    bias: DarkGroup | None  # of the ISO, None where the camera clipped it
    slope: np.ndarray | None  # of every pixel's least-squares line (y, x) [ADU/s]; None of one exposure
    lost: np.ndarray  # pixels that saturate in so many frames that the rest gives no line
    saturated: np.ndarray  # pixels that do in any of the frames
    ever_saturated: np.ndarray  # those, and the ones that do in warmer settings
    white_level: float  # ADU
    bias_apart: float  # K that the bias frames were warmer; NaN where not known
    moved: float  # ADU by which the darks' black level differs from that of the bias frames, which then do not count

    @property
    def points(self) -> list[DarkGroup]:
        """The groups that the slope goes through."""
        return [*([self.bias] if self.bias else []), *(group for group in self.groups if not group.clipped)]


def check_darks(dark: xr.DataArray, bias: xr.DataArray | None) -> None:
    """Refuse darks and bias frames that are not raw, or that differ in size or mosaic."""
    check_cube(dark, stage="raw", kind="dark")
    if bias is None:
        return
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
    """Read all frames in one stream, bias frames first, then setting by setting.

    The warmest settings, the highest ISO or gain setting and the longest exposures come first: most pixels saturate
    there, and can be left out of what follows where it is to be compared.  What is yielded is overwritten by the next.
    """
    dim = setting_dim(dark)
    used = {str(float(value)) for value in dark[dim].values}
    zeros: list[str] = []
    order: list[tuple[xr.DataArray, np.ndarray]] = []
    if bias is not None:
        known = [(str(key[dim]), where) for key, where in group_frames(bias, dim) if str(key[dim]) in used]
        zeros, order = [value for value, _ in known], [(bias, where) for _, where in known]
    plan = []
    for setting, frames in reversed(group_frames(dark, "temperature", dim)):
        exposures = group_frames(dark.isel(frame=frames), "exposure")
        plan.append((setting, [(key["exposure"], frames[where]) for key, where in reversed(exposures)]))
    order += [(dark, frames) for _, groups in plan for _, frames in groups]
    stream = equal_frames(order, progress)
    masters: dict[str, tuple[DarkGroup, np.ndarray]] = {}
    warmth = dict.fromkeys(zeros, 0.0)
    for value, (cube, where) in zip(zeros, order, strict=False):
        zero, total, _ = read_group(next(stream), 0.0)
        warmth[value] = float(np.mean(cube["temperature"].values[where]))
        if not zero.clipped:
            total /= np.float32(zero.count)
            masters[value] = zero, total
    everywhere = np.zeros(dark.shape[1:], bool)
    for setting, groups in plan:
        equal = ((exposure, next(stream)) for exposure, _ in groups)
        apart = warmth.get(str(setting[dim]), np.nan) - setting["temperature"]
        yield _read_setting(setting, equal, masters.get(str(setting[dim])), everywhere, apart)
    next(stream, None)  # nothing is left; lets the bar close


class EqualFrames(NamedTuple):
    """Frames of one setting as they are read: names, an iterator of frames (y, x) [ADU], their shape and attrs."""

    files: tuple[str, ...]
    frames: Iterator[np.ndarray]
    shape: tuple[int, ...]
    attrs: dict[str, Any]


def equal_frames(groups: Sequence[tuple[xr.DataArray, np.ndarray]], progress: Any) -> Iterator[EqualFrames]:
    """Yield groups of frames, each a cube and the numbers of its frames, in one stream; use one before the next."""
    lazy = {id(cube): lazy_frames(cube) for cube, _ in groups}
    frames = [lazy[id(cube)][i] for cube, numbers in groups for i in numbers]
    stream = counted(stream_frames(frames), progress, len(frames))
    for cube, numbers in groups:
        files = tuple(cube["filename"].values[numbers])
        yield EqualFrames(files, islice(stream, len(numbers)), cube.shape[1:], cube.attrs)
    for _ in stream:  # nothing is left; lets the bar close
        pass


def _read_setting(
    setting: Setting,
    equal: Iterator[tuple[float, EqualFrames]],
    master: tuple[DarkGroup, np.ndarray] | None,
    everywhere: np.ndarray,
    apart: float,
) -> DarkSetting:
    """Sum y and t·y of every pixel over the frames, hence the slope of the least-squares line.

    A pixel that saturates loses that exposure and the longer ones.  Bias frames that were `apart` K warmer do not count
    where their level is not the one that the darks of several exposures lead to.
    """
    measured: list[Any] = []
    counts: list[Any] = []
    times: list[Any] = []
    sum_y, sum_ty, saturated = (frame_zeros(everywhere.shape, kind) for kind in (np.float32, np.float32, bool))
    lacks = frame_zeros(everywhere.shape, np.uint8)
    zero, level = (None, None) if master is None else master
    if zero is not None and level is not None:
        np.multiply(level, np.float32(zero.count), out=sum_y)
    for exposure, frames in equal:
        group, total, own = read_group(frames, exposure, saturated, level)
        measured.append(group)
        if not group.clipped:
            sum_y += total
            total *= np.float32(exposure)
            sum_ty += total
            counts, times = [*counts, group.count], [*times, exposure]
            if own.any():
                lacks[own], sum_ty[own] = min(len(counts), 255), 0
                sum_y[own] = 0 if zero is None or level is None else np.float32(zero.count) * level[own]
        del total, own  # their memory serves the next group
    moved = 0.0
    if zero is not None and level is not None and not abs(apart) <= SAME_TEMPERATURE:
        moved = _moved_black(zero, [group for group in measured if not group.clipped])
        if moved:
            sum_y -= np.float32(zero.count) * level
            measured = [replace(group, median=group.median + zero.level) for group in measured]
            zero = None
    if zero is not None:  # bias frames are the last that a pixel loses
        counts, times = [*counts, zero.count], [*times, 0.0]
    inverse = line_inverse(np.array(counts, float), np.array(times, float))  # without the longest 0, 1, 2, ...
    slope = None
    if np.isfinite(inverse[0]).all():
        solve_lines(sum_y, sum_ty, lacks, inverse)
        slope = sum_ty
    everywhere |= saturated
    lost = ~np.isfinite(inverse[:, 0, 0])[lacks]
    pattern, white = frames.attrs["cfa_pattern"], float(frames.attrs["white_level"])
    return DarkSetting(setting, pattern, measured[::-1], zero, slope, lost, saturated, everywhere, white, apart, moved)


def _moved_black(zero: DarkGroup, groups: list[DarkGroup]) -> float:
    """Return by how much the darks' line meets exposure zero off the bias frames [ADU]; 0 where that may be chance."""
    times, counts = (np.array([getattr(group, name) for group in groups], float) for name in ("exposure", "count"))
    if np.unique(times).size < 2:
        return 0.0
    share = np.full(zero.level.size, 1 / zero.level.size)
    line = fit_line(times, [group.steady @ share for group in groups], counts)
    away = times - line.centre
    levers = 1 / counts.sum() - line.centre * away / (counts * away**2).sum()  # of a frame in the intercept
    terms, freedoms = scatter_terms([*groups, zero], np.array([*levers, 1 / zero.count]), share)
    off, error = float(line.intercept - zero.level @ share), float(np.sqrt(terms.sum()))
    return off if error > 0 and 2 * special.stdtr(freedom_of(terms, freedoms), -abs(off) / error) < _MOVED else 0.0


def read_group(
    equal: EqualFrames,
    exposure: float,
    ever_saturated: np.ndarray | None = None,
    zero: np.ndarray | None = None,
) -> tuple[DarkGroup, np.ndarray, np.ndarray]:
    """Read equal frames once; return what they show, their sum float32 (y, x), and which pixels saturate.

    The sum is exact up to 2²⁴: a thousand frames of 14 bits.  Pixels that saturate are added to `ever_saturated`, those
    of longer exposures; medians are against `zero`, the master bias (y, x).
    """
    pattern, white, count = equal.attrs["cfa_pattern"], equal.attrs["white_level"], len(equal.files)
    cell, last = channel_index(pattern), max(count - 1, 1)
    total, saturated = (frame_zeros(equal.shape, kind) for kind in (np.float32, bool))

    def added() -> Iterator[np.ndarray]:
        for frame in equal.frames:
            _add_frame(total, saturated, frame, np.float32(np.inf if np.isnan(white) else white))
            yield frame

    def measure(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        sums = pair_sums(*pair, pattern)
        whole = pair_moments(sums.plain.sum(axis=1))
        zeros = sums.zero.sum() / sums.plain[..., 0].sum()
        return whole.mean1, whole.mean2, zeros, pair_moments(sums.plain).half_variance

    columns = zip(*in_threads(measure, _ring(added(), count)), strict=True)
    first, second, zeros, noise = (np.array(column) for column in columns)
    ever_saturated = saturated if ever_saturated is None else ever_saturated
    ever_saturated |= saturated
    # over the pixels that do not saturate in these frames, and over those that do not in longer ones either
    own, steady = (map_sums(total, mask, cell, 1)[:2, :, 0] for mask in (saturated, ever_saturated))
    level, steadily = (value / np.where(pixels > 0, pixels, np.nan) / count for pixels, value in (own, steady))
    group = DarkGroup(
        exposure,
        equal.files,
        np.concatenate([first[:last], second[last - 1 : count - 1]]),
        noise.mean(axis=0) if count > 1 else np.full_like(noise[0], np.nan),
        float(ring_error(noise.mean(axis=2).mean(axis=1, keepdims=True))[0]),
        level,
        steadily,
        medians(total, saturated, cell, count, zero),
        int(np.count_nonzero(saturated)),
        float(zeros.mean()),
    )
    return group, total, saturated


def _ring(frames: Iterator[np.ndarray], count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each frame with the next, and the last with the first; a lone frame with itself: it still has a mean."""
    first = previous = next(frames)
    for frame in frames:
        yield previous, frame
        previous = frame
    if count != 2:
        yield first, previous


def medians(
    total: np.ndarray, masked: np.ndarray, cell: np.ndarray, count: int = 1, zero: np.ndarray | None = None
) -> np.ndarray:
    """Return each channel's median of total/count − zero, of an even sample where there are very many pixels."""
    result = np.empty(channel_count(cell))
    for (channel, plane), (_, mask) in zip(planes(total, cell), planes(masked, cell), strict=True):
        stride = max(1, int(np.ceil(np.sqrt(plane.size / _LARGEST_SAMPLE))))
        values = plane[::stride, ::stride] / np.float32(count)
        if zero is not None:
            values -= dict(planes(zero, cell))[channel][::stride, ::stride]
        values = values[~mask[::stride, ::stride]]
        result[channel] = np.median(values) if values.size else np.nan
    return result


@kernel(error_model="numpy")
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


@kernel(error_model="numpy")
def map_sums(picture: np.ndarray, masked: np.ndarray, cell: np.ndarray, blocks: int) -> np.ndarray:
    """Return n, Σ, Σ², Σ³ of a picture's unmasked pixels (4, channel, block), blocks being strips of rows."""
    step = cell.shape[0]
    rows, columns = picture.shape[0] // step, picture.shape[1] // step
    blocks = max(1, min(blocks, rows))
    sums = np.zeros((4, cell.max() + 1, blocks))
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
    return sums


@kernel(error_model="numpy")
def solve_lines(plain: np.ndarray, timed: np.ndarray, lost: np.ndarray, inverse: np.ndarray) -> None:
    """Turn Σwy [ADU] and Σwty [ADU s] (y, x) into offset [ADU] and slope [ADU/s] of the least-squares line, in place.

    `inverse` (number, 2, 2) is `core.dark.line_inverse`; `lost` (y, x): how many groups a pixel lacks.
    """
    for i in range(plain.shape[0]):
        for j in range(plain.shape[1]):
            k, y, ty = lost[i, j], np.float64(plain[i, j]), np.float64(timed[i, j])
            plain[i, j] = inverse[k, 0, 0] * y + inverse[k, 0, 1] * ty
            timed[i, j] = inverse[k, 1, 0] * y + inverse[k, 1, 1] * ty


def pooled_variance(groups: list[DarkGroup], weight: np.ndarray) -> tuple[float, int]:
    """Return the variance of the frames' weighted means within their groups, and its degrees of freedom."""
    several = [group for group in groups if group.count > 1]
    freedom = sum(group.count - 1 for group in several)
    squares = sum(float(np.var(group.means @ weight, ddof=1)) * (group.count - 1) for group in several)
    return (squares / freedom if freedom else np.nan), freedom


def scatter_terms(
    points: list[DarkGroup], levers: np.ndarray, weight: np.ndarray, others: list[DarkGroup] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return each group's part of the variance of Σ lever · (weighted frame mean), and its degrees of freedom.

    From the scatter of the frames' means within the group; a single frame takes the pooled variance of `others`
    (by default the points), NaN where none has several frames.
    """
    terms, freedoms = [], []
    for group, lever in zip(points, levers, strict=True):
        variance, freedom = pooled_variance([group] if group.count > 1 else others or points, weight)
        terms.append(lever**2 * group.count * variance)
        freedoms.append(freedom)
    return np.array(terms), np.array(freedoms, float)


def spatial_variance(
    points: list[DarkGroup], levers: np.ndarray, sums: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each channel's variance of the slope map without temporal noise [ADU²/s²], and its variance.

    A pixel's temporal noise is in the map with T = Σ lever² · count · half-variance; a single frame's half-variance is
    taken on the line through those of the other groups against exposure (shot noise grows with it).  The error is for
    these very pixels: of the map's variance S² + T, Var = (4 S²T + 2 T² + 4 τ m₃ + 2 τ²S²)/n, where the last two terms
    are the greater shot noise of hot pixels, τ = Σ lever² · count · exposure/g, m₃ the map's third central moment; and
    of T, by a jackknife over blocks.  NaN where T cannot be measured.
    """
    counts, times = (np.array([getattr(group, name) for group in points], float) for name in ("count", "exposure"))
    noise, several = np.array([group.noise for group in points]), counts > 1  # (group, channel, block)
    if not several.all():
        if np.unique(times[several]).size < 2:
            return np.full(gain.size, np.nan), np.full(gain.size, np.nan)
        line = fit_line(times[several], np.moveaxis(noise[several], 0, -1))
        noise[~several] = line.intercept + line.slope * times[~several, None, None]
    temporal = np.tensordot(levers**2 * counts, noise, 1)  # (channel, block)
    shot = levers**2 * counts @ times / gain
    weight = sums[0] / sums[0].sum(axis=1, keepdims=True)
    without = leave_one_out(weight * temporal, axis=1) / leave_one_out(weight, axis=1)
    temporal_error = jackknife_error(without, axis=1)
    temporal = (weight * temporal).sum(axis=1)
    n, s, s2, s3 = sums.sum(axis=2)
    mean = s / n
    spatial = (s2 - s**2 / n) / (n - 1) - temporal
    third = s3 / n - 3 * mean * s2 / n + 2 * mean**3
    of_map = 4 * np.maximum(spatial, 0) * temporal + 2 * temporal**2
    of_hot = 4 * shot * np.maximum(third, 0) + 2 * shot**2 * np.maximum(spatial, 0)
    return spatial, (of_map + of_hot) / n + temporal_error**2
