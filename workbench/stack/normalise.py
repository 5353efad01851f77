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

from ..align.registration import Registration
from ..align.transform import Transform
from ..core.statistics import MAD_TO_SIGMA
from ..stars.survey import BLOCK, FrameSurvey

_TERMS = {1: 3, 2: 6}  # of a surface of first and second order: 1, x, y, x², x y, y²
_CURVED = 8.0  # a second-order surface must explain this many times more than its terms' share of noise


def normalisation(registration: Registration, *, order: int | str = "auto", seeing: bool = False) -> xr.Dataset:
    """Return what brings each frame to the reference's transparency and to the mean background of all.

    Parameters
    ----------
    registration
        What `workbench.align.register` found.
    order
        Of the background surfaces; see `background_surfaces`.
    seeing
        Let sharp frames count for more; see `frame_weights`.

    Returns
    -------
    Dataset over ``frame`` (the frames used): ``scale`` (by which a frame is multiplied, from matched stars) and its
    ``scale_error``; ``surface`` (channel, term) [e-], what it then has more than the mean of all, as coefficients of
    1, x, y, x², x y, y²; ``weight`` (channel), one over the background's variance, mean 1.
    """
    used = list(registration.used)
    scales = registration.scales[used]
    surveys = [registration.surveys[number] for number in used]
    transforms = [registration.transform(number) for number in used]
    shape = registration.quality.attrs["height"], registration.quality.attrs["width"]
    surfaces, _, level = background_surfaces(surveys, transforms, scales, shape, order=order)
    return xr.Dataset(
        {
            "scale": ("frame", scales),
            "scale_error": ("frame", registration.scale_errors[used]),
            "surface": (("frame", "channel", "term"), surfaces, {"units": "electron"}),
            "weight": (("frame", "channel"), frame_weights(surveys, scales, seeing=seeing)),
            "level": ("channel", level, {"units": "electron", "long_name": "mean background"}),
        },
        coords={"channel": ["mono"] if len(level) == 1 else ["R", "G", "B"], "number": ("frame", used)},
    )


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
        spread = MAD_TO_SIGMA * float(np.median(np.abs(residual[good])))
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
