"""The background of every frame, compared block by block on the sky: what each has more or less than all together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import map_coordinates

from ..align.transform import Transform
from ..core.statistics import mad_std
from ..stars.survey import BLOCK as SURVEY_BLOCK
from ..stars.survey import FrameSurvey

_CURVED = 8.0  # a second-order surface must explain this many times more than its terms' share of noise


def background_surfaces(
    surveys: Sequence[FrameSurvey], transforms: Sequence[Transform], scales: np.ndarray,
    shapes: tuple[tuple[int, int], tuple[int, int]], order: int | str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Each frame's background over the mean of all as (frame, channel, 6) [e-] in output pixels.

    And over the channels their mean, and the chi-square of the blocks.  `shapes` are a frame's and the output's.
    """
    (tall_frame, wide_frame), (height, width) = shapes
    rows, columns = (max(2, -(-size // SURVEY_BLOCK)) for size in (height, width))
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns, indexing="ij"
    )
    y, x = y.ravel() - 0.5, x.ravel() - 0.5
    channels = surveys[0].level.shape[0]
    seen = np.full((len(surveys), channels, y.size), np.nan)
    sigma = np.full_like(seen, np.nan)
    pixels = SURVEY_BLOCK**2 * np.array(
        [1.0] if channels == 1 else [0.25, 0.5, 0.25]
    )  # of a Bayer mosaic; X-Trans has 12 % more or less
    for number, (survey, transform, scale) in enumerate(zip(surveys, transforms, scales, strict=True)):
        fx, fy = transform.apply(x, y)
        tall, wide = survey.level.shape[1:]
        places = np.stack([(fy + 0.5) * tall / tall_frame - 0.5, (fx + 0.5) * wide / wide_frame - 0.5])
        # Blocks at the frame's edge stand for half a block beyond their centres, no further.
        inside = (places[0] > -0.5) & (places[0] < tall - 0.5) & (places[1] > -0.5) & (places[1] < wide - 0.5)
        for channel in range(channels):
            sampled = map_coordinates(survey.level[channel], places, order=1, mode="nearest")
            seen[number, channel] = np.where(inside, scale * sampled, np.nan)
            noise = map_coordinates(survey.noise[channel], places, order=1, mode="nearest")
            between = ((places % 1) ** 2 + (1 - places % 1) ** 2).prod(0)  # of linear interpolation
            missed = _missed(survey.level[channel], places)
            sigma[number, channel] = scale * np.sqrt(noise**2 * between / pixels[channel] + missed**2)
    surfaces = np.zeros((len(surveys), channels, 6))
    known = np.isfinite(seen)
    enough = known.all(0)  # blocks that all frames see, where there are enough of them
    few = np.count_nonzero(enough, axis=1) < 30
    mean = np.where(known, seen, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    target = np.where((few[:, None] & known.any(0)) | enough, mean, np.nan)
    u, v = x / width, y / height
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    for number, channel in np.ndindex(surfaces.shape[:2]):
        difference = seen[number, channel] - target[channel]
        good = np.isfinite(difference)
        count = np.count_nonzero(good)
        if count < 3:
            continue
        chosen, rms = _surface(design[:, :3], difference, good)
        if order in (2, "auto") and count >= 30:
            second, left = _surface(design, difference, good)
            if order == 2 or (rms**2 - left**2) * count / max(left**2, 1e-12) > _CURVED * 3:
                chosen = second
        surfaces[number, channel, : chosen.size] = chosen
    units = np.array([1.0, width, height, width**2, width * height, height**2])
    level = np.array([float(np.nanmedian(plane)) if np.isfinite(plane).any() else 0.0 for plane in target])
    chi = [_block_chi(seen[:, c] - surfaces[:, c] @ design.T, sigma[:, c]) for c in range(channels)]
    return surfaces / units, level, np.array(chi)


def _missed(level: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return what linear interpolation between blocks misses of curved light: f (1 - f)/2 of f'' an axis."""
    total = np.zeros(places.shape[1])
    for axis, place in enumerate(places):
        curved = np.abs(np.diff(level, 2, axis=axis)) if level.shape[axis] > 2 else np.zeros_like(level)
        curved = map_coordinates(curved, [p - (a == axis) for a, p in enumerate(places)], order=1, mode="nearest")
        total += curved * (place % 1) * (1 - place % 1) / 2
    return total


def _block_chi(left: np.ndarray, sigma: np.ndarray) -> float:
    """Return the chi-square of frames in blocks (frame, block) over that of noise, from the median: stars count little.

    NaN with fewer than thirty blocks that all frames see.
    """
    whole = np.isfinite(left / sigma).all(axis=0) & (sigma > 0).all(axis=0)
    count = len(left)
    if count < 2 or np.count_nonzero(whole) < 30:
        return np.nan
    left, weight = left[:, whole], 1 / np.square(sigma[:, whole])
    apart = (left - (weight * left).sum(0) / weight.sum(0)) * np.sqrt(weight * count / (count - 1))
    return float(mad_std(apart, centre=0) ** 2)


def _surface(design: np.ndarray, values: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a surface with Tukey's biweight; returns its coefficients and the robust rms that it leaves."""
    weight = good.astype(float)
    values = np.where(good, values, 0.0)
    coefficients, spread = np.zeros(design.shape[1]), 0.0
    for _ in range(15):
        root = np.sqrt(weight)
        coefficients, *_ = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)
        residual = values - design @ coefficients
        spread = float(mad_std(residual[good], centre=0))
        if spread <= 1e-9:
            break
        new = np.where(good, np.maximum(1 - (residual / (5 * spread)) ** 2, 0) ** 2, 0.0)
        if np.count_nonzero(new) <= design.shape[1] or np.abs(new - weight).max() < 1e-3:
            break
        weight = new
    return coefficients, spread
