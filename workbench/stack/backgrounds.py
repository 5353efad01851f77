"""The background of every frame, compared block by block on the sky: what each has more or less than all together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import map_coordinates

from ..align.transform import Transform, least_squares
from ..core.statistics import mad_std
from ..stars.survey import BLOCK as SURVEY_BLOCK
from ..stars.survey import FrameSurvey

_FEW = 30  # blocks
_FINER = 2  # blocks of a mosaic are compared at so many places along each axis
_HIDDEN = 0.15  # of a difference in noise: measured 0.12 to 0.14 with eleven stars a block
_CURVED = 8.0  # a second-order surface must explain this many times more than its terms' share of noise


class Backgrounds(NamedTuple):
    """Surfaces (frame, channel, 6) [e-] in output pixels and their error (frame, channel) where each frame lies.

    And over the channels the mean of all `level` [e-], and the chi-square of the blocks `chi`.
    """

    surface: np.ndarray
    error: np.ndarray
    level: np.ndarray
    chi: np.ndarray


def background_surfaces(
    surveys: Sequence[FrameSurvey], transforms: Sequence[Transform], scales: np.ndarray,
    shapes: tuple[tuple[int, int], tuple[int, int]], order: int | str,
) -> Backgrounds:  # fmt: skip
    """Return each frame's background over the mean of all; `shapes` are a frame's and the output's.

    All frames are compared in the blocks that all see; where there are too few of these and the output is wider than a
    frame, as of a mosaic, each pair of frames where it overlaps (`matched_planes`).  Faint stars raise the background
    of a block, and more where the noise hides them: the error holds a share of what a frame's noise differs from the
    mean of all.
    """
    height, width = shapes[1]
    frames = surveys, transforms, scales, shapes
    x, y, seen, sigma = _blocks(*frames, SURVEY_BLOCK)
    known = np.isfinite(seen)
    enough = known.all(0)  # blocks that all frames see, where there are enough of them
    few = np.count_nonzero(enough, axis=1) < _FEW
    mosaic = few.any() and shapes[0] != shapes[1]
    if mosaic:
        x, y, seen, sigma = _blocks(*frames, SURVEY_BLOCK // _FINER, linear=True)
    u, v = x / width, y / height
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    if mosaic:
        solved = [matched_planes(seen[:, c], sigma[:, c] * _FINER, design[:, :3]) for c in range(seen.shape[1])]
        surfaces, error = (np.stack(part, 1) for part in zip(*solved, strict=True))
        surfaces = np.pad(surfaces, ((0, 0), (0, 0), (0, 3)))
        apart = seen - surfaces @ design.T
        target = np.where(np.isfinite(apart), apart, 0).sum(0) / np.maximum(np.isfinite(apart).sum(0), 1)
        target = np.where(np.isfinite(apart).any(0), target, np.nan)
    else:
        mean = np.where(known, seen, 0.0).sum(0) / np.maximum(known.sum(0), 1)
        target = np.where((few[:, None] & known.any(0)) | enough, mean, np.nan)
        surfaces, error = _compared_with(target, seen, design, order)
    noise = scales[:, None] * np.array([np.nanmedian(survey.noise, axis=(1, 2)) for survey in surveys])
    error = np.hypot(error, _HIDDEN * (noise - noise.mean(0)))
    units = np.array([1.0, width, height, width**2, width * height, height**2])
    level = np.array([float(np.nanmedian(plane)) if np.isfinite(plane).any() else 0.0 for plane in target])
    chi = [_block_chi(seen[:, c] - surfaces[:, c] @ design.T, sigma[:, c]) for c in range(seen.shape[1])]
    return Backgrounds(surfaces / units, error, level, np.array(chi))


def _blocks(
    surveys: Sequence[FrameSurvey], transforms: Sequence[Transform], scales: np.ndarray,
    shapes: tuple[tuple[int, int], tuple[int, int]], step: int, linear: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Places x and y [px] of blocks of the output, `step` pixels apart; the frames' background there and its error.

    Both (frame, channel, block), NaN outside a frame.  Between a frame's outermost blocks and its edge the background
    is that of the blocks, or goes on as between them where `linear`.
    """
    (tall_frame, wide_frame), (height, width) = shapes
    rows, columns = (max(2, -(-size // step)) for size in (height, width))
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
        within = np.stack([np.clip(place, 0, size - 1) for place, size in zip(places, (tall, wide), strict=True)])
        beyond = np.abs(places - within) if linear else 0.0
        for channel in range(channels):
            level = np.pad(survey.level[channel], 1, "reflect", reflect_type="odd") if linear else survey.level[channel]
            sampled = map_coordinates(level, places + linear, order=1, mode="nearest")
            seen[number, channel] = np.where(inside, scale * sampled, np.nan)
            noise = map_coordinates(survey.noise[channel], places, order=1, mode="nearest")
            share = ((places % 1) ** 2 + (1 - places % 1) ** 2) if not linear else _shares(within, beyond)
            missed = _missed(survey.level[channel], places)
            sigma[number, channel] = scale * np.sqrt(noise**2 * share.prod(0) / pixels[channel] + missed**2)
    return x, y, seen, sigma


def _shares(within: np.ndarray, beyond: np.ndarray | float) -> np.ndarray:
    """Sum of the squared weights along an axis of linear interpolation, and of going on `beyond` the last block."""
    return np.where(beyond > 0, (1 + beyond) ** 2 + np.square(beyond), (within % 1) ** 2 + (1 - within % 1) ** 2)


def _compared_with(
    target: np.ndarray, seen: np.ndarray, design: np.ndarray, order: int | str
) -> tuple[np.ndarray, np.ndarray]:
    """Surfaces (frame, channel, 6) of what frames have more than the `target` (channel, block), and their errors."""
    surfaces, error = np.zeros((*seen.shape[:2], 6)), np.full(seen.shape[:2], np.nan)
    for number, channel in np.ndindex(surfaces.shape[:2]):
        difference = seen[number, channel] - target[channel]
        good = np.isfinite(difference)
        count = np.count_nonzero(good)
        if count < 3:
            continue
        chosen, rms = _surface(design[:, :3], difference, good)
        if order in (2, "auto") and count >= _FEW:
            second, left = _surface(design, difference, good)
            if order == 2 or (rms**2 - left**2) * count / max(left**2, 1e-12) > _CURVED * 3:
                chosen, rms = second, left
        surfaces[number, channel, : chosen.size], error[number, channel] = chosen, rms / np.sqrt(count)
    return surfaces, error


def matched_planes(seen: np.ndarray, sigma: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (frame, 3) that bring frames to one background wherever any two of them overlap, and their errors.

    Least squares over all pairs: with T the common background and w = 1/σ² times Tukey's biweight,
    Σ w (seen - T - plane)² is least, over the planes and over T in every block.  Slopes are fitted where they are
    significant, and held to the spread of the frames' own slopes: an overlap says little of the slope across it.  The
    planes' mean is zero.

    Parameters
    ----------
    seen, sigma
        Background and its error (frame, block) [e-], NaN where a frame does not see a block.
    design
        (block, 3): 1, x, y.

    Returns
    -------
    Planes, and the standard error of each in the middle of its frame (frame) [e-].

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x = np.arange(90.0)
    >>> offsets = np.array([0.0, 5.0, -2.0])
    >>> seen = 100 + np.sin(x / 9) + offsets[:, None] + rng.normal(0, 0.1, (3, 90))
    >>> for frame in range(3):
    ...     seen[frame, (x < 30 * frame - 5) | (x >= 30 * frame + 35)] = np.nan  # each overlaps the next in ten
    >>> planes, error = matched_planes(seen, np.full((3, 90), 0.1), np.stack([x * 0 + 1, x / 90, x * 0], 1))
    >>> bool((abs(planes[:, 0] - offsets + offsets.mean()) < 3 * error).all())
    True
    """
    own = np.array([_own_slopes(design, values) for values in seen])
    spread = np.maximum(own.std(0), 1e-9)
    flat = _solved(seen, sigma, design[:, :1], np.zeros(0))
    tilted = _solved(seen, sigma, design, spread)
    scatter = max(tilted.scatter, 1e-12)
    gained = sum(sign * np.minimum(np.square(one.pull) / scatter, 25).sum() for sign, one in ((1, flat), (-1, tilted)))
    chosen = tilted if gained > _CURVED * 2 * (len(seen) - 1) else flat
    planes = np.zeros((len(seen), design.shape[1]))
    planes[:, : chosen.planes.shape[1]] = chosen.planes
    return planes, chosen.error


def _own_slopes(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    good = np.isfinite(values)
    return _surface(design, values, good)[0][1:] if np.count_nonzero(good) > design.shape[1] else np.zeros(2)


class _Solution(NamedTuple):
    """Planes (frame, term), their errors (frame), what is left over σ (frame, block), and its squared scatter."""

    planes: np.ndarray
    error: np.ndarray
    pull: np.ndarray
    scatter: float


def _solved(seen: np.ndarray, sigma: np.ndarray, design: np.ndarray, spread: np.ndarray) -> _Solution:
    """Solve for the planes with `design` (block, term), slopes held by their `spread`; see `matched_planes`."""
    frames, terms = len(seen), design.shape[1]
    known = np.isfinite(seen) & (sigma > 0)
    values, trust = np.where(known, seen, 0.0), np.where(known, 1 / np.square(np.where(known, sigma, 1.0)), 0.0)
    compared = known & (known.sum(0) > 1)  # what one frame sees alone says nothing of the others
    held = np.diag(np.tile(np.concatenate([[0.0], 1 / spread**2])[:terms], frames))
    held += np.kron(np.ones((frames, frames)), np.eye(terms)) * trust.sum() / frames  # the planes' mean is zero
    weight = trust
    for turn in range(16):
        total = np.maximum(weight.sum(0), 1e-30)
        mean = (weight * values).sum(0) / total
        normal = np.empty((frames, terms, frames, terms))
        for i, j in np.ndindex(terms, terms):
            both = design[:, i] * design[:, j]
            normal[:, i, :, j] = np.diag(weight @ both) - (weight * (both / total)) @ weight.T
        right = (weight * (values - mean)) @ design
        inverse = np.linalg.inv(normal.reshape(frames * terms, -1) + held)
        planes = (inverse @ right.ravel()).reshape(frames, terms)
        left = values - planes @ design.T
        pull = np.where(compared, left - (weight * left).sum(0) / total, 0.0) * np.sqrt(trust)
        scatter = float(mad_std(pull[compared], centre=0)) ** 2 if compared.any() else 1.0
        far = np.abs(pull) / np.sqrt(max(scatter, 1e-12))
        # Huber's weights first: they find the way from wherever outliers have led
        weight = trust * (1 / np.maximum(far / 1.5, 1) if turn < 8 else np.maximum(1 - np.square(far / 5), 0) ** 2)
    middle = np.where(known, 1.0, 0.0) @ design / np.maximum(known.sum(1), 1)[:, None]
    covariance = inverse.reshape(frames, terms, frames, terms)
    error = np.einsum("fi,fifj,fj->f", middle, covariance, middle) * max(scatter, 1.0)
    return _Solution(planes, np.sqrt(error), pull, scatter)


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
    design, values = design[good], values[good]
    weight, spread = np.ones(len(values)), 0.0
    for _ in range(15):
        coefficients, _ = least_squares(design, values, weight)
        residual = values - design @ coefficients
        spread = float(mad_std(residual, centre=0))
        if spread <= 1e-9:
            break
        new = np.maximum(1 - (residual / (5 * spread)) ** 2, 0) ** 2
        if np.count_nonzero(new) <= design.shape[1] or np.abs(new - weight).max() < 1e-3:
            break
        weight = new
    return coefficients, spread
