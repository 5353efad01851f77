"""The frames of a dark library, read once: what each group tells, and every pixel's sums over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numba
import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.pairs import QUANTISATION_VARIANCE
from ..core.parallel import counted, lazy_frames, stream_frames
from ..core.selection import group_frames
from .dark_frames import Group, clipped, read_group

USUAL_DOUBLING = 6.0  # K: the doubling by which darks are ordered before it is known
_MOST_TEMPERATURES = 8  # maps held at once


class GroupRead(NamedTuple):
    """A group of equal darks, or the bias frames, read."""

    group: Group
    temperature: float  # NaN for bias frames
    timed: float  # its exposure as its temperature's map has it; 0 for bias frames
    kelvin: int  # number of that map; -1 for bias frames
    weight: float  # frames over the temporal variance of a pixel [1/ADU²]
    variance: float  # that variance, mean of the channels [ADU²]
    pixels: int


class PixelSums(NamedTuple):
    """Σwy, Σwty for each temperature, over the groups that a pixel has, and how many it lost."""

    plain: np.ndarray
    timed: list[np.ndarray]
    lost: np.ndarray


def read_darks(
    dark: xr.DataArray, bias: xr.DataArray | None, progress: Any
) -> tuple[list[GroupRead], PixelSums, np.ndarray]:
    """Read all frames in one stream, the most intense first, and sum them up; return the maps' temperatures too."""
    groups = group_frames(dark, "temperature", "exposure")
    warm = np.array([setting["temperature"] for setting, _ in groups])
    kelvins, member = _binned(warm)
    intensity = [s["exposure"] * 2 ** (np.nan_to_num(s["temperature"]) / USUAL_DOUBLING) for s, _ in groups]
    order = np.argsort(intensity, kind="stable")[::-1]
    lazy = lazy_frames(dark)
    wanted = [lazy[i] for number in order for i in groups[number][1]]
    if bias is not None:
        wanted += list(lazy_frames(bias))
    stream = counted(stream_frames(wanted), progress, len(wanted))
    shape = dark.shape[1:]
    sums = PixelSums(
        np.zeros(shape, np.float32), [np.zeros(shape, np.float32) for _ in kelvins], np.zeros(shape, np.uint8)
    )
    reads: list[GroupRead] = []
    for number in order:
        setting, frames = groups[number]
        kelvin, exposure = int(member[number]), setting["exposure"]
        apart = setting["temperature"] - kelvins[kelvin]
        timed = exposure * 2 ** ((0.0 if np.isnan(apart) else apart) / USUAL_DOUBLING)
        names = tuple(dark["filename"].values[frames])
        _take(stream, dark, names, exposure, sums, reads, (setting["temperature"], timed, kelvin))
    if bias is not None:
        _take(stream, bias, tuple(bias["filename"].values), 0.0, sums, reads, (math.nan, 0.0, -1))
    for _ in stream:  # nothing is left; lets the bar close
        pass
    if not reads:
        raise WorkbenchError(
            "all darks are clipped at zero: the camera subtracts its black level before saving; use firmware or a "
            "setting that keeps the offset"
        )
    return reads, sums, kelvins


def _binned(warm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the temperatures of the maps, at most a handful, and the number of its map for each group."""
    for width in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 1e9):
        place = np.nan_to_num(warm, nan=1e6) if width == 0 else np.round(np.nan_to_num(warm, nan=1e6) / width)
        values, member = np.unique(place, return_inverse=True)
        if values.size <= _MOST_TEMPERATURES:
            break
    member = member.reshape(-1)
    return np.array([warm[member == k].mean() for k in range(values.size)]), member


def _take(
    stream: Iterator[np.ndarray],
    cube: xr.DataArray,
    names: tuple[str, ...],
    exposure: float,
    sums: PixelSums,
    reads: list[GroupRead],
    where: tuple[float, float, int],
) -> None:
    """Read one group and add it to the sums, unless it is clipped at zero."""
    pattern, white = cube.attrs["cfa_pattern"], cube.attrs["white_level"]
    group, total, saturated = read_group(
        islice(stream, len(names)), names, exposure, pattern, white, saturated_before=sums.lost > 0
    )
    if clipped(group):
        return
    variance = float(np.nanmean(group.noise)) if group.count > 1 else _within(total, channel_index(pattern))
    variance = max(variance, QUANTISATION_VARIANCE)
    weight = group.count / variance
    temperature, timed, kelvin = where
    total /= np.float32(group.count)
    _add(total, saturated, np.float32(weight), np.uint8(len(reads) + 1), sums.lost, sums.plain, sums.timed)
    if kelvin >= 0:
        total *= np.float32(weight * timed)
        sums.timed[kelvin] += total
        sums.timed[kelvin][saturated] = 0
    reads.append(GroupRead(group, temperature, timed, kelvin, weight, variance, total.size))


def _within(picture: np.ndarray, cell: np.ndarray) -> float:
    """Return the variance of a single frame's pixels, from neighbours of one colour: a little high, but known."""
    step = cell.shape[0]
    difference = picture[::step, step::step] - picture[::step, :-step:step]
    return float((1.4826 * np.median(np.abs(difference))) ** 2 / 2)


def _add(
    mean: np.ndarray,
    saturated: np.ndarray,
    weight: np.float32,
    number: np.uint8,
    lost: np.ndarray,
    plain: np.ndarray,
    timed: list[np.ndarray],
) -> None:
    """Add a group's mean to Σwy; where it saturates, forget this group and those before."""
    plain += mean * weight
    if saturated.any():
        lost[saturated] = number
        for picture in (plain, *timed):
            picture[saturated] = 0


def pixel_maps(
    sums: PixelSums, seconds: np.ndarray, weight: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and dark current of every pixel, in the memory of the sums."""
    crossed = sums.timed[0]
    crossed *= np.float32(factor[0])
    for picture, f in zip(sums.timed[1:], factor[1:], strict=True):
        picture *= np.float32(f)
        crossed += picture
    moments = [np.append(np.cumsum((weight * seconds**k)[::-1])[::-1], 0.0) for k in range(3)]
    _solve(sums.plain, crossed, sums.lost, *moments)
    return sums.plain, crossed


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _solve(plain, crossed, lost, s0, s1, s2):
    for i in range(plain.shape[0]):
        for j in range(plain.shape[1]):
            k = lost[i, j]
            determinant = s0[k] * s2[k] - s1[k] * s1[k]
            if determinant <= 1e-9 * s0[k] * s2[k]:
                plain[i, j] = np.nan
                crossed[i, j] = np.nan
                continue
            y, xy = np.float64(plain[i, j]), np.float64(crossed[i, j])
            d = (s0[k] * xy - s1[k] * y) / determinant
            crossed[i, j] = d
            plain[i, j] = (y - d * s1[k]) / s0[k]
