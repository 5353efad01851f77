"""Normalisation: bring every frame to the reference's transparency and to the mean background of all.

Transparency is the ratio of the matched stars' light.  The background is compared block by block, on the sky: what
a frame has more or less than the mean of all frames is a smooth surface, which is taken off.  The mean is the target,
not the reference, whose own gradient would otherwise read as a fault of all others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.ndimage import map_coordinates

from ..align.match import Match
from ..align.transform import Transform
from .survey import BLOCK, FrameSurvey

_TERMS = {1: 3, 2: 6}  # of a surface of first and second order: 1, x, y, x², x y, y²
_CURVED = 8.0  # a second-order surface must explain this many times more than its terms' share of noise


def star_ratio(reference: xr.Dataset, frame: xr.Dataset, match: Match) -> tuple[float, float, int]:
    """Return by what a frame must be multiplied to show stars as bright as the reference, its error, and how many tell.

    The median of the flux ratios of unsaturated matched stars with a signal-to-noise ratio of at least 15 in both,
    each star with its weight; (nan, nan, 0) with fewer than three.
    """
    one, two = reference.isel(star=match.reference_index), frame.isel(star=match.frame_index)
    here, there = one["flux"].values, two["flux"].values
    here_error, there_error = one["flux_error"].values, two["flux_error"].values
    with np.errstate(invalid="ignore", divide="ignore"):
        good = match.residuals["used"].values & ~one["saturated"].values & ~two["saturated"].values
        good &= (here > 15 * here_error) & (there > 15 * there_error)
        error = np.hypot(here_error / here, there_error / there)
        logs = np.log(here / there)
    if np.count_nonzero(good) < 3:
        return np.nan, np.nan, 0
    logs, error = logs[good], np.hypot(error[good], 0.005)  # the sampling of the aperture leaves half a per cent
    centre = _weighted_median(logs, 1 / error)
    for _ in range(10):
        pull = (logs - centre) / error
        spread = max(1.4826 * float(np.median(np.abs(pull))), 1.0)
        weight = np.maximum(1 - (pull / (5 * spread)) ** 2, 0) ** 2 / error**2
        centre = float((weight * logs).sum() / weight.sum())
    return float(np.exp(centre)), float(np.exp(centre) * spread / np.sqrt(weight.sum())), int(np.count_nonzero(weight))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def background_surfaces(
    surveys: Sequence[FrameSurvey],
    transforms: Sequence[Transform],
    scales: Sequence[float],
    shape: tuple[int, int],
    *,
    order: int | str = "auto",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each frame's background surface over the mean of all, (frame, channel, 6) in e- of the reference.

    Coefficients of 1, x, y, x², x y, y² in output pixels.  Also returns their scatter: the rms (frame, channel) of what
    the surfaces leave, and the mean background (channel).

    Parameters
    ----------
    order
        1 a plane, 2 a second-order surface, ``auto`` the second order where it is plainly needed (moonlight, clouds).
    """
    height, width = shape
    rows, columns = (max(2, -(-size // BLOCK)) for size in shape)
    y, x = np.meshgrid(
        (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns, indexing="ij"
    )
    y, x = y.ravel() - 0.5, x.ravel() - 0.5
    channels = surveys[0].level.shape[0]
    seen = np.full((len(surveys), channels, y.size), np.nan)
    for number, (survey, transform, scale) in enumerate(zip(surveys, transforms, scales, strict=True)):
        fx, fy = transform.apply(x, y)
        tall, wide = survey.level.shape[1:]
        places = np.stack([(fy + 0.5) * tall / height - 0.5, (fx + 0.5) * wide / width - 0.5])
        # Blocks at the frame's edge stand for half a block beyond their centres, no further.
        inside = (places[0] > -0.5) & (places[0] < tall - 0.5) & (places[1] > -0.5) & (places[1] < wide - 0.5)
        for channel in range(channels):
            sampled = map_coordinates(survey.level[channel], places, order=1, mode="nearest")
            seen[number, channel] = np.where(inside, scale * sampled, np.nan)
    surfaces = np.zeros((len(surveys), channels, 6))
    rms = np.zeros((len(surveys), channels))
    known = np.isfinite(seen)
    enough = known.all(0)  # blocks that all frames see, where there are enough of them
    few = np.count_nonzero(enough, axis=1) < 30
    mean = np.where(known, seen, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    target = np.where((few[:, None] & known.any(0)) | enough, mean, np.nan)
    u, v = x / width, y / height
    design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    for number in range(len(surveys)):
        for channel in range(channels):
            difference = seen[number, channel] - target[channel]
            good = np.isfinite(difference)
            if np.count_nonzero(good) < 3:
                continue
            wanted = order
            first, first_rms = _surface(design[:, :3], difference, good)
            chosen, left = first, first_rms
            if wanted in (2, "auto") and np.count_nonzero(good) >= 30:
                second, second_rms = _surface(design, difference, good)
                gain = (first_rms**2 - second_rms**2) * np.count_nonzero(good) / max(second_rms**2, 1e-12)
                if wanted == 2 or gain > _CURVED * 3:
                    chosen, left = second, second_rms
            surfaces[number, channel, : chosen.size] = chosen
            rms[number, channel] = left
    scale = np.array([1.0, width, height, width**2, width * height, height**2])
    level = np.array([float(np.nanmedian(plane)) if np.isfinite(plane).any() else 0.0 for plane in target])
    return surfaces / scale, rms, level


def _surface(design: np.ndarray, values: np.ndarray, good: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a surface with Tukey's biweight; returns its coefficients and the robust rms that it leaves."""
    weight = good.astype(float)
    values = np.where(good, values, 0.0)
    coefficients, spread = np.zeros(design.shape[1]), 0.0
    for _ in range(15):
        root = np.sqrt(weight)
        coefficients, *_ = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)
        residual = values - design @ coefficients
        spread = 1.4826 * float(np.median(np.abs(residual[good])))
        if spread <= 1e-9:
            break
        new = np.where(good, np.maximum(1 - (residual / (5 * spread)) ** 2, 0) ** 2, 0.0)
        if np.count_nonzero(new) <= design.shape[1] or np.abs(new - weight).max() < 1e-3:
            break
        weight = new
    return coefficients, spread


def frame_weights(surveys: Sequence[FrameSurvey], scales: Sequence[float], *, seeing: bool = False) -> np.ndarray:
    """Return the weights (frame, channel): one over the measured background variance after scaling.

    That is the ideal combination of sky-limited pixels.  With `seeing` a frame also counts by how much light a star
    puts into its brightest pixels, (best FWHM/FWHM)², which sharpens the stack at the price of noise.
    """
    noise = np.array([[np.nanmedian(plane) for plane in survey.noise] for survey in surveys])
    scaled = np.maximum(noise * np.asarray(scales, float)[:, None], 1e-9)
    weights = 1.0 / scaled**2
    if seeing:
        fwhm = np.array([survey.stars.attrs["fwhm"] for survey in surveys])
        weights *= np.where(np.isfinite(fwhm), (np.nanmin(fwhm) / fwhm) ** 2, 1.0)[:, None]
    return weights / weights.mean(0)
