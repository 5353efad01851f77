"""The first look at calibrated mosaics: their background in blocks, their stars, and how good each frame is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import channel_count, channel_index
from ..core.parallel import frame_memory
from ..core.scattered import green_plane_weights
from .background import Sampling, clipped_stats, green_sampling, half_green
from .damage import torn_blocks
from .find import find_stars

BLOCK = 64  # pixels of the mosaic
QUALITY = {
    "stars": ("1", "stars found"),
    "fwhm": ("pix", "median FWHM"),
    "roundness": ("1", "median roundness (minor over major axis)"),
    "background": ("", "median background"),
    "noise": ("", "background noise of a pixel of the searched plane"),
    "snr": ("1", "median signal-to-noise ratio of the 100 brightest stars"),
}

_LEAST_STARS = 3  # of a frame to be stacked


class FrameSurvey(NamedTuple):
    """What the first look found: `stars`, and background `level` and `noise` [e-] (channel, block row, block column).

    Channels R, G, B or mono; blocks of at most 64 pixels, that divide the frame evenly.
    """

    stars: xr.Dataset
    level: np.ndarray
    noise: np.ndarray


@kernel()
def _split(line, even, odd):
    """Part the columns (x) of a line of a mosaic."""
    for x in range(even.size):
        even[x], odd[x] = line[2 * x], line[2 * x + 1]


@kernel()
def _mean_green(one, two, out):
    """Average two lines of green (x); where one of the two is a defect the other stands for both."""
    for x in range(out.size):
        mean = np.float32(0.5) * (one[x] + two[x])
        valid = one[x] if one[x] == one[x] else two[x]
        out[x] = mean if mean == mean else valid


@kernel()
def _block(lines, left, wide, scratch):
    """Copy the columns of a block from lines (y, x) into a run of values."""
    for y in range(lines.shape[0]):
        line = lines[y, left : left + wide]
        for x in range(wide):
            scratch[y * wide + x] = line[x]


@kernel()
def _survey(signal, cell, green, level, noise):
    """Set level and noise (channel, block row, block column) and the green plane (y, x) of a mosaic (y, x) [e-].

    Channels R, G1, G2, B or mono; defects are NaN.
    """
    height, width = signal.shape
    channels, rows, columns = level.shape
    step = 1 if channels == 1 else 2
    half = width // step
    # Every channel of a row of blocks, as lines of its own.
    lines = np.empty((channels, BLOCK // step + 1, half), np.float32)
    scratch = np.empty((BLOCK // step) ** 2 * 4, np.float32)
    for row in range(rows):
        top, bottom = row * height // rows // step, (row + 1) * height // rows // step
        for y in range(top, bottom):
            if channels == 1:
                lines[0, y - top] = green[y] = signal[y]
                continue
            for j in range(2):
                _split(signal[2 * y + j], lines[cell[j, 0], y - top], lines[cell[j, 1], y - top])
            _mean_green(lines[1, y - top], lines[2, y - top], green[y])
        for channel in range(channels):
            for column in range(columns):
                left, right = column * width // columns // step, (column + 1) * width // columns // step
                size = (bottom - top) * (right - left)
                _block(lines[channel, : bottom - top], left, right - left, scratch)
                level[channel, row, column], noise[channel, row, column], _ = clipped_stats(scratch[:size])


@kernel()
def _survey_colours(signal, cell, level, noise):
    """Set level and noise (colour, block row, block column) of a mosaic (y, x) whose colours lie on no lattice."""
    height, width = signal.shape
    colours, rows, columns = level.shape
    scratch = np.empty((BLOCK + 1) ** 2, np.float32)
    for colour in range(colours):
        for row in range(rows):
            for column in range(columns):
                size = 0
                for y in range(row * height // rows, (row + 1) * height // rows):
                    for x in range(column * width // columns, (column + 1) * width // columns):
                        if cell[y % cell.shape[0], x % cell.shape[1]] == colour:
                            scratch[size] = signal[y, x]
                            size += 1
                level[colour, row, column], noise[colour, row, column], _ = clipped_stats(scratch[:size])


def survey_mosaic(signal: np.ndarray, cfa_pattern: str, saturation: float = np.inf) -> FrameSurvey:
    """Find the stars and the background of one calibrated mosaic.

    Parameters
    ----------
    signal
        (y, x) [e-]; defects are NaN.
    cfa_pattern
        Of the mosaic, or ``mono``.
    saturation
        Level [e-] at which a typical pixel saturates; stars beyond 85 % of it count as saturated.
    """
    signal = np.ascontiguousarray(signal, np.float32)
    height, width = signal.shape
    cell = channel_index(cfa_pattern)
    mono = cell.size == 1
    step, channels = (1, 1) if mono else (2, channel_count(cell))
    green = frame_memory((height // step, width // step), np.float32)
    blocks = tuple(-(-size // BLOCK) for size in signal.shape)
    level, noise = (np.empty((channels, *blocks), np.float32) for _ in range(2))
    gain = 1.0 if mono else 2.0
    if channels == 3:
        _survey_colours(signal, cell, level, noise)
        green, share = half_green(signal, cfa_pattern), green_plane_weights(cfa_pattern)[0]
        background, deviation, gain = level[1], float(np.nanmedian(noise[1])) * share**0.5, 1 / share
    else:
        _survey(signal, cell, green, level, noise)
    if mono:
        background, deviation = level[0], float(np.nanmedian(noise))
    elif channels == 4:
        background = (level[1] + level[2]) / 2
        deviation = float(np.sqrt(np.nanmedian(noise[1]) ** 2 + np.nanmedian(noise[2]) ** 2) / 2)
        level = np.stack([level[0], background, level[3]])
        noise = np.stack([noise[0], np.sqrt((noise[1] ** 2 + noise[2] ** 2) / 2), noise[3]])
    stars = find_stars(
        green,
        sampling=green_sampling(cfa_pattern),
        gain=gain,
        background=background,
        noise=deviation,
        saturation=0.85 * saturation,
        limit=2000,
    )
    stars.attrs["torn"] = torn_blocks(signal, level, noise, cell.shape[1])
    return FrameSurvey(stars, level, noise)


def find_plane_stars(level: np.ndarray, limit: int = 3000) -> xr.Dataset:
    """Find the stars of a plane without a mosaic (y, x); one of more than 2 Mpx is searched at half size.

    Twice as many pixels a side would take four times as long, and find few more of resampled stars.
    """
    height, width = level.shape
    if height * width <= 2_000_000:
        return find_stars(level, limit=limit)
    even = level[: height // 2 * 2, : width // 2 * 2]
    half = 0.25 * (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2])
    return find_stars(half, sampling=Sampling(2.0, 0.5), limit=limit)


def quality_table(catalogues: Sequence[xr.Dataset], filenames: Sequence[str]) -> xr.Dataset:
    """Return the quality of frames, a Dataset over ``frame``, from their star lists (`find_stars`).

    Variables ``stars``, ``fwhm`` [px], ``roundness``, ``background``, ``noise``, ``snr`` (of the hundred
    brightest); ``transparency`` is added once stars are matched.
    """
    rows = []
    for stars in catalogues:
        snr = stars["snr"].values[~stars["saturated"].values][:100]
        row = [stars.attrs[name] for name in ("detected", "fwhm", "roundness", "background", "noise")]
        rows.append([*row, float(np.median(snr)) if snr.size else np.nan])
    columns = np.array(rows, float).reshape(-1, len(QUALITY)).T
    about = [{"units": units, "long_name": text} for units, text in QUALITY.values()]
    data = {name: ("frame", *column) for name, *column in zip(QUALITY, columns, about, strict=True)}
    return xr.Dataset(data, coords={"filename": ("frame", np.array(list(filenames), object))})


def poor_frames(quality: xr.Dataset, *, groups: Sequence[Hashable] | None = None) -> dict[int, str]:
    """Return the frames that should not be stacked, as index → reason.

    No stars; fewer than a fifth of the median count (clouds) of the frames of its group (by default all are one; frames
    of another exposure show more or fewer); FWHM beyond the median by 60 % (focus lost);
    roundness below 0.5 and well below the others' (trailed).  What half of the frames share is not a fault of
    one of them, so that a wide or poorly guided set still stacks.

    Examples
    --------
    >>> table = xr.Dataset({"stars": ("frame", [500, 480, 2, 510]), "fwhm": ("frame", [3.0, 3.0, 3.0, 6.5]),
    ...                     "roundness": ("frame", [0.9, 0.9, 0.9, 0.9])})
    >>> poor_frames(table)
    {2: '2 stars found, fewer than 3', 3: 'FWHM 6.5 px where the others have 3.0 px: out of focus or bad seeing'}
    """
    stars, fwhm, roundness = (quality[name].values for name in ("stars", "fwhm", "roundness"))
    reasons: dict[int, str] = {}
    enough = stars >= _LEAST_STARS
    if not enough.any():
        return {index: f"{int(count)} stars found, fewer than {_LEAST_STARS}" for index, count in enumerate(stars)}
    codes: dict[Hashable, int] = {}
    alike = np.array([codes.setdefault(group, len(codes)) for group in groups or [""] * len(stars)])
    usual_counts = [
        float(np.median(stars[enough & (alike == one)])) if enough[n] else 0.0 for n, one in enumerate(alike)
    ]
    usual_fwhm = float(np.nanmedian(fwhm[enough]))
    usual_round = float(np.nanmedian(roundness[enough]))
    for index, count in enumerate(stars):
        if count < _LEAST_STARS:
            reasons[index] = f"{int(count)} stars found, fewer than {_LEAST_STARS}"
        elif count < 0.2 * usual_counts[index]:
            reasons[index] = (
                f"{int(count)} stars found where the others have {usual_counts[index]:.0f}: clouds or another field"
            )
        elif roundness[index] < min(0.5, 0.7 * usual_round):
            reasons[index] = f"stars are trailed: roundness {roundness[index]:.2f}, the others' {usual_round:.2f}"
        elif fwhm[index] > 1.6 * usual_fwhm:
            reasons[index] = (
                f"FWHM {fwhm[index]:.1f} px where the others have {usual_fwhm:.1f} px: out of focus or bad seeing"
            )
    return reasons


def choose_reference(quality: xr.Dataset, usable: Sequence[int] | None = None) -> int:
    """Return the index of the frame that the others are best aligned to.

    The score multiplies star count and squared roundness over squared FWHM and noise, each relative to the
    median; among equals the first.

    Examples
    --------
    >>> table = xr.Dataset({"stars": ("frame", [500, 480]), "fwhm": ("frame", [3.0, 2.5]),
    ...                     "roundness": ("frame", [0.9, 0.9]), "noise": ("frame", [4.0, 4.0])})
    >>> choose_reference(table)
    1
    """
    indices = list(range(quality.sizes["frame"])) if usable is None else list(usable)
    if not indices:
        raise WorkbenchError("no usable frame: none of the frames shows enough stars to be the reference")
    score = frame_scores(quality.isel(frame=indices))
    return int(indices[int(np.argmax(score))])


def frame_scores(quality: xr.Dataset) -> np.ndarray:
    """Return how good frames are among each other: stars · roundness² / (FWHM² · noise), each over its median.

    0 where one of them is not known.
    """
    columns = {name: quality[name].values.astype(float) for name in ("stars", "fwhm", "roundness", "noise")}
    values = {
        name: column / np.nanmedian(column) if np.isfinite(column).any() else column for name, column in columns.items()
    }
    score = values["stars"] * values["roundness"] ** 2 / (values["fwhm"] ** 2 * values["noise"])
    return np.where(np.isfinite(score), score, 0.0)
