"""Normalisation: every frame on the reference's transparency and the mean background, and the noise it then has.

Transparency is the ratio of the matched stars' light.  The background is compared block by block, on the sky: what
a frame has more or less than the mean of all frames is a smooth surface, which is taken off.  The mean is the target,
not the reference, whose own gradient would otherwise read as a fault of all others.

A sample's variance is (α m + β) Σw² with m the light [e-], the median of the frames, and Σw² of the resampling.  The
masters' noise, μ + ν m², μ a part of β, stays with the sensor: dithers move it over the sky, so that in a single pixel
it is independent from frame to frame, and averages with them; in areas wider than the dithers all frames share it.

A stack's ``variance`` is that of the mean of an area, as equivalent white noise: divided by the number of its pixels it
is the variance of the mean of 16 x 16 of them.  ``shared_variance`` is the part of it that only areas have: a single
pixel's variance is ``pixel_variance_share`` times (``variance`` - ``shared_variance``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import map_coordinates

from ..align.registration import Registration
from ..align.transform import Transform
from ..calibrate.planes import NOISE_BLOCK
from ..core.cube import COLOURS, is_xtrans
from ..core.scattered import area_noise, mean_square
from ..core.statistics import MAD_TO_SIGMA
from ..stars.survey import BLOCK as SURVEY_BLOCK
from ..stars.survey import FrameSurvey
from .lanczos import lanczos3, mean_squared_weight, narrowing_for
from .window import BAND, BLOCK, Tile

AREA = 16  # [pixels] side of the areas for which `variance` counts the noise that the frames share
_CURVED = 8.0  # a second-order surface must explain this many times more than its terms' share of noise


class Noise(NamedTuple):
    """What is known of the samples' noise on a tile, in blocks of 32 columns.

    A sample's variance is ``alpha`` m + ``beta`` (frame, channel, block) times Σw², m [e-] the median, see
    `combine.sample_variance`; what the frames
    share of the masters' noise adds ``shared`` (channel, block, 2), μ + ν m², to the mean's (see `tile_noise`);
    `white` (channel): what white noise a sample's variance is worth.
    """

    alpha: np.ndarray
    beta: np.ndarray
    shared: np.ndarray
    white: np.ndarray


def normalisation(registration: Registration, *, order: int | str = "auto", seeing: bool = False) -> xr.Dataset:
    """Return what brings each frame to the reference's transparency and to the mean background of all.

    Parameters
    ----------
    registration
        What `workbench.align.register` found.
    order
        Of the background surfaces: 1 a plane, 2 a second-order surface, ``auto`` the second order where it is plainly
        needed (moonlight, clouds).
    seeing
        Let a frame also count by how much light a star puts into its brightest pixels, (best FWHM/FWHM)², which
        sharpens the stack at the price of noise.

    Returns
    -------
    Dataset over ``frame`` (the frames used): ``scale`` (by which a frame is multiplied, from matched stars) and its
    ``scale_error``; ``surface`` (channel, term) [e-], what it then has more than the mean of all, as coefficients of
    1, x, y, x², x y, y²; ``weight`` (channel), one over the background's variance, mean 1: the ideal combination of
    sky-limited pixels; and over ``channel`` the mean background ``level`` [e-] and ``block_chi_square``, the scatter of
    the frames' background in blocks of 64 pixels over what their noise gives: what many pixels share (flats that do not
    fit, clouds) counts here, and little in the scatter of single pixels.
    """
    used = list(registration.used)
    scales = registration.scales[used]
    surveys = [survey for survey in (registration.surveys[number] for number in used) if survey is not None]
    transforms = [registration.transform(number) for number in used]
    shape = registration.quality.attrs["height"], registration.quality.attrs["width"]
    surfaces, level, blocks = _background_surfaces(surveys, transforms, scales, shape, order)
    noise = np.array([[np.nanmedian(plane) for plane in survey.noise] for survey in surveys])
    weights = 1.0 / np.maximum(noise * np.asarray(scales, float)[:, None], 1e-9) ** 2
    if seeing:
        fwhm = np.array([survey.stars.attrs["fwhm"] for survey in surveys])
        weights *= np.where(np.isfinite(fwhm), (np.nanmin(fwhm) / fwhm) ** 2, 1.0)[:, None]
    return xr.Dataset(
        {
            "scale": ("frame", scales),
            "scale_error": ("frame", registration.scale_errors[used]),
            "surface": (("frame", "channel", "term"), surfaces, {"units": "electron"}),
            "weight": (("frame", "channel"), weights / weights.mean(0)),
            "level": ("channel", level, {"units": "electron", "long_name": "mean background"}),
            "block_chi_square": ("channel", blocks, {"units": "1", "long_name": "scatter of blocks over the model's"}),
        },
        coords={"channel": ["mono"] if len(level) == 1 else ["R", "G", "B"], "number": ("frame", used)},
    )


def _background_surfaces(
    surveys: Sequence[FrameSurvey], transforms: Sequence[Transform], scales: np.ndarray, shape: tuple[int, int],
    order: int | str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Each frame's background over the mean of all as (frame, channel, 6) [e-] in output pixels.

    And over the channels their mean, and the chi-square of the blocks.
    """
    height, width = shape
    rows, columns = (max(2, -(-size // SURVEY_BLOCK)) for size in shape)
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
        places = np.stack([(fy + 0.5) * tall / height - 0.5, (fx + 0.5) * wide / width - 0.5])
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
    return float((MAD_TO_SIGMA * np.median(np.abs(apart))) ** 2)


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


def channel_share(channel: str, cfa_pattern: str) -> float:
    """Return the share of a mosaic's pixels that have the colour of a stack's channel."""
    return 1.0 if channel == "mono" else cfa_pattern.count(channel) / len(cfa_pattern)


def _mean_square(channel: str, cfa_pattern: str) -> float:
    """Return Σw² of a channel's resampling, averaged over all places."""
    if is_xtrans(cfa_pattern):
        return mean_square(cfa_pattern, COLOURS.index(channel))
    return mean_squared_weight(narrowing_for(channel))


@cache
def white_noise(channel: str, cfa_pattern: str) -> float:
    """Return what white noise a sample's variance is worth in the mean of 16 x 16 resampled pixels of a channel.

    Close to one over the channel's share of the mosaic: a pixel's kernel reaches over the area's edge, and the pixels
    outside reach in.  Averaged over all positions between the samples.

    Examples
    --------
    >>> patterns = {"R": "RGGB", "G": "RGGB", "mono": "mono"}
    >>> [round(channel_share(*each) * white_noise(*each), 3) for each in patterns.items()]
    [0.964, 0.997, 0.994]
    """
    if is_xtrans(cfa_pattern):
        return area_noise(cfa_pattern, COLOURS.index(channel), AREA)
    narrowing = narrowing_for(channel)
    phases = [(i / 8 + 1 / 16, j / 8 + 1 / 16) for i in range(8) for j in range(8)]
    taps = np.arange(-2, 4)
    y, x = (part.ravel() for part in np.mgrid[:AREA, :AREA])
    total = 0.0
    for dx, dy in phases:
        if channel == "G":
            a, b = (x + y + 2 * dx) / 2, (x - y + 2 * dy) / 2
        else:
            pace = 1.0 if channel == "mono" else 2.0
            a, b = x / pace + dx, y / pace + dy
        first, second = np.floor(a).astype(int), np.floor(b).astype(int)
        along, across = (lanczos3((taps - (t - i)[:, None]) / narrowing) for t, i in ((a, first), (b, second)))
        weight = (along / along.sum(1, keepdims=True))[:, :, None] * (across / across.sum(1, keepdims=True))[:, None]
        i, j = (first[:, None] + taps - first.min() + 2, second[:, None] + taps - second.min() + 2)
        samples = np.zeros((i.max() + 1, j.max() + 1))
        np.add.at(samples, (i[:, :, None], j[:, None, :]), weight / AREA**2)
        total += (samples**2).sum()
    return float(total / len(phases) * AREA**2)


def pixel_share(channel: str, cfa_pattern: str) -> float:
    """Return the variance of a single pixel over the equivalent white noise: resampling shares each sample out."""
    return _mean_square(channel, cfa_pattern) / white_noise(channel, cfa_pattern)


def block_centres(numbers: Sequence[int], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y [px] (band, block) of the centres of the blocks of bands, of an output of `shape`."""
    x = (np.arange(-(-shape[1] // BLOCK)) + 0.5) * BLOCK - 0.5
    y = np.array([number * BAND + min(BAND, shape[0] - number * BAND) / 2 - 0.5 for number in numbers])
    return tuple(np.meshgrid(x, y))


def sample_noise(
    noise: np.ndarray,
    transform: Transform,
    scale: float,
    surface: np.ndarray,
    centres: tuple[np.ndarray, np.ndarray],
    corner: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame's noise terms as its normalised samples have them in blocks of the output.

    Parameters
    ----------
    noise
        Of its calibration (term, channel, block row, block column); see `calibrate.Planes`.
    transform, scale, surface
        Where the frame lies, and what normalises it.
    centres
        x and y of the blocks' centres, any shape.
    corner
        Row and column of the frame's first pixel on the sensor, whose blocks `noise` has.

    Returns
    -------
    Terms (term, channel, ...): α, β with μ in it, μ and ν; and the blocks' places in the frame (2, ...), x then y [px].
    """
    x, y = (np.asarray(part, float) for part in centres)
    fx, fy = transform.apply(x, y)
    row = np.clip((fy + corner[0]) / NOISE_BLOCK, 0, noise.shape[2] - 1).astype(np.int64)
    column = np.clip((fx + corner[1]) / NOISE_BLOCK, 0, noise.shape[3] - 1).astype(np.int64)
    light, dark, shared, flat = noise[:, :, row, column].astype(float)
    over = np.tensordot(surface, np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]), 1)
    beta = scale * over * light + scale**2 * (dark + shared)
    terms = np.stack([scale * light, beta, scale**2 * shared, flat]).astype(np.float32)
    return terms, np.stack([fx, fy]).astype(np.float32)


def common_share(places: np.ndarray, weight: np.ndarray, side: float) -> np.ndarray:
    """Return how much of the masters' noise frames share in the mean of areas of `side` x `side` pixels.

    Of two frames displaced by (dx, dy) it is (1 - |dx|/side)(1 - |dy|/side); all pairs are averaged by weight.

    Parameters
    ----------
    places
        Where the areas lie in each frame (frame, 2, area) [px].
    weight
        Of each frame.
    """
    weight = weight / weight.sum()
    share = np.zeros(places.shape[2])
    for number, own in enumerate(weight):
        overlap = np.maximum(1 - np.abs(places - places[number]) / side, 0).prod(1)
        share += own * (weight[:, None] * overlap).sum(0)
    return share


def tile_noise(
    terms: np.ndarray,
    places: np.ndarray,
    weight: np.ndarray,
    tiles: Sequence[Tile],
    channels: Sequence[str],
    cfa_pattern: str,
    left: int = 0,
) -> tuple[list[Noise], np.ndarray]:
    """Return the `Noise` of each tile of a band, and what the frames share (2, channel, block).

    `terms` (frame, term, channel, block) and `places` (frame, 2, block) of the band's blocks, from column 0 on;
    `weight` (frame, channel); `channels` names them; `cfa_pattern` is that of the frames; `left` is the output's
    column where the tiles' arrays begin.

    The second gives the shared variance of a pixel of signal m: the first plus the second times m².
    """
    white = np.array([white_noise(str(name), cfa_pattern) for name in channels])
    total = np.maximum(weight.sum(0), 1e-30)
    masters = np.stack([(weight[:, :, None] * terms[:, term]).sum(0) / total[:, None] for term in (2, 3)], -1)
    firsts = [(tile.column + left) // BLOCK for tile in tiles]
    lasts = [(tile.column + left + tile.columns - 1) // BLOCK + 1 for tile in tiles]
    middles = [(first + last) // 2 for first, last in zip(firsts, lasts, strict=True)]
    pixel, area = (common_share(places[:, :, middles].astype(float), weight.mean(1), side) for side in (1, AREA))
    independent = ((weight / total) ** 2).sum(0)[:, None]  # what a sample's own variance holds of them already
    common = np.zeros((2, *masters.shape[:2]), np.float32)
    noises = []
    for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        part = slice(first, last)
        alpha, beta = (np.ascontiguousarray(values[..., part]) for values in (terms[:, 0], terms[:, 1]))
        dark, flat = np.moveaxis(masters[:, part], -1, 0)
        shared = np.stack([dark * (area[number] - independent), flat * area[number]], -1)
        noises.append(Noise(alpha, beta, shared.astype(float), white))
        rise = white[:, None] * (area[number] - pixel[number])
        common[:, :, part] = rise * dark, rise * flat
    return noises, common


def shared_variance(common: Any, signal: Any) -> Any:
    """Return the part of the variance that frames share (channel, y, x) [e-²]: first + second m², m the `signal` [e-].

    `common` (2, channel, y, x) holds the two numbers at every pixel; see `tile_noise`.
    """
    light = np.maximum(signal, 0)
    return common[0] + common[1] * light * light


def masters_variance(lights: xr.Dataset, channel: str, mean: np.ndarray) -> np.ndarray:
    """Return the variance (y, x) [e-²] of the masters' noise in a `mean` of aligned lights that `variance` lacks.

    A sample's variance has the noise of offset and dark as if frames did not share it, and none of the flat's.
    """
    terms = lights["noise_terms"].sel(channel=channel).values
    weight = lights["weight"].sel(channel=channel).values
    places = lights["place"].values.astype(float)
    share = common_share(places.reshape(*places.shape[:2], -1), weight, 1).reshape(places.shape[2:])
    dark, flat = np.tensordot(weight / weight.sum(), terms[:, 2:], 1)
    independent = float(np.square(weight / weight.sum()).sum())
    rows, columns = (
        (np.arange(lights.sizes[dim]) + int(lights[dim][0]) - lights.attrs[f"grid_{first}"]) // step
        for dim, first, step in (("y", "top", BAND), ("x", "left", BLOCK))
    )
    whole = np.stack([dark * (share - independent), flat * share])[:, rows[:, None], columns]
    return shared_variance(whole, mean) * _mean_square(channel, lights.attrs["cfa_pattern"])
