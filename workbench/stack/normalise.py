"""Normalisation: every frame on the reference's transparency and the mean background, and the noise it then has.

Transparency is the ratio of the matched stars' light.  The background is compared block by block, on the sky: what
a frame has more or less than the mean of all frames is a smooth surface, which is taken off.  The mean is the target,
not the reference, whose own gradient would otherwise read as a fault of all others.

A sample's variance is (α m + β) Σw² with m the light [e-], the median of the frames, and Σw² of the resampling.  The
masters' noise, μ + ν m², μ a part of β, stays with the sensor: dithers move it over the sky, so that in a single pixel
it is independent from frame to frame, and averages with them; in areas wider than the dithers all frames share it.

A stack's ``variance`` is that of the mean of an area, as equivalent white noise: divided by the number of its pixels it
is the variance of the mean of 16 x 16 of them.  ``shared_variance`` is the part of it that only areas have: a single
pixel's variance is ``pixel_variance_share`` times (``variance`` - ``shared_variance``);
that of other areas is `area_variance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..align.registration import Registration
from ..align.transform import Transform
from ..calibrate.planes import NOISE_BLOCK
from ..core.cube import COLOURS, is_xtrans
from ..core.kernels import kernel
from ..core.scattered import area_noise, mean_square
from .backgrounds import background_surfaces
from .lanczos import lanczos3, mean_squared_weight, narrowing_for, squared_weights
from .reject import PixelPlanes
from .window import BAND, BLOCK, Tile

AREA = 16  # [pixels] side of the areas for which `variance` counts the noise that the frames share


class Noise(NamedTuple):
    """What is known of the samples' noise on a tile, in blocks of 32 columns.

    A sample's variance is ``alpha`` m + ``beta`` (frame, channel, block) times Σw², m [e-] the median, see
    `combine.sample_variance`; what the frames
    share of the masters' noise adds ``shared`` (channel, block, 2), μ + ν m², to the mean's (see `tile_noise`);
    `white` (channel): what white noise a sample's variance is worth.  `taken` (channel + 1, y, x), if any: light
    [e-] that was subtracted from the frames, and the share of a sample's variance that went with it, of a frame's pixel
    at its place plus `steps` (frame, 2) (x, y) [px].
    """

    alpha: np.ndarray
    beta: np.ndarray
    shared: np.ndarray
    white: np.ndarray
    taken: np.ndarray = np.zeros((0, 0, 0), np.float32)
    steps: np.ndarray = np.zeros((0, 2))


@kernel()
def blocks_of(order: np.ndarray, tile: Tile, noise: Noise) -> np.ndarray:
    """Return which block of the `Noise` each place along a row of a tile belongs to."""
    block = np.empty(tile.width, np.int64)
    for i in range(tile.width):
        block[i] = min(max(order[i] - tile.rim_left + tile.phase, 0) // BLOCK, noise.alpha.shape[2] - 1)
    return block


@kernel()
def fill_noise(c: int, noise: Noise, tile: Tile, order: np.ndarray, planes: PixelPlanes) -> None:
    """Set the `planes`' parameters a and b (frame, 1 or y, x) of one channel of a tile.

    Where light l [e-] was subtracted a sample's variance is (a m + b + a l)(1 - s): the light has left its photon
    noise, and the share s of the sample's own noise went with it.
    """
    block = blocks_of(order, tile, noise)
    for f in range(planes.a.shape[0]):
        for v in range(planes.a.shape[1]):
            for i in range(tile.width):
                planes.a[f, v, i], planes.b[f, v, i] = noise.alpha[f, c, block[i]], noise.beta[f, c, block[i]]
        if noise.taken.size:
            _add_taken(f, c, noise, tile, order, planes)


@kernel()
def _add_taken(f, c, noise, tile, order, planes):
    """Let the variance of frame f be that of samples from which light was subtracted, between its pixels linearly."""
    light, share = noise.taken[c], noise.taken[-1]
    height, width = share.shape
    ahead, shift = int(np.floor(noise.steps[f, 0])), int(np.floor(noise.steps[f, 1]))
    right, down = np.float32(noise.steps[f, 0] - ahead), np.float32(noise.steps[f, 1] - shift)
    left, up = np.float32(1) - right, np.float32(1) - down
    for v in range(tile.height):
        top = min(max(tile.top + v + shift, 0), height - 1)
        below, a, b = min(top + 1, height - 1), planes.a[f, v], planes.b[f, v]
        one, two, three, four = light[top], light[below], share[top], share[below]
        for i in range(tile.width):
            x = min(max(tile.left + order[i] + ahead, 0), width - 1)
            y = min(x + 1, width - 1)
            taken = up * (left * one[x] + right * one[y]) + down * (left * two[x] + right * two[y])
            gone = up * (left * three[x] + right * three[y]) + down * (left * four[x] + right * four[y])
            b[i] = (b[i] + a[i] * taken) * (np.float32(1) - gone)
            a[i] *= np.float32(1) - gone


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
    1, x, y, x², x y, y², and its ``surface_error`` (channel) in the frame's middle; ``weight`` (channel), one over the
    background's variance, mean 1: the ideal combination of sky-limited pixels; and over ``channel`` the mean background
    ``level`` [e-] and ``block_chi_square``, the scatter of the frames' background in blocks of 64 pixels over what
    their noise gives: what many pixels share (flats that do not fit, clouds) counts here, and little in the scatter of
    single pixels.
    """
    used = list(registration.used)
    scales = registration.scales[used]
    surveys = [survey for survey in (registration.surveys[number] for number in used) if survey is not None]
    transforms = [registration.transform(number) for number in used]
    shapes = registration.frame_shape, registration.shape
    surfaces, error, level, blocks = background_surfaces(surveys, transforms, scales, shapes, order)
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
            "surface_error": (("frame", "channel"), error, {"units": "electron"}),
            "weight": (("frame", "channel"), weights / weights.mean(0)),
            "level": ("channel", level, {"units": "electron", "long_name": "mean background"}),
            "block_chi_square": ("channel", blocks, {"units": "1", "long_name": "scatter of blocks over the model's"}),
        },
        coords={"channel": ["mono"] if len(level) == 1 else ["R", "G", "B"], "number": ("frame", used)},
    )


def channel_share(channel: str, cfa_pattern: str) -> float:
    """Return the share of a mosaic's pixels that have the colour of a stack's channel."""
    return 1.0 if channel == "mono" else cfa_pattern.count(channel) / len(cfa_pattern)


def _mean_square(channel: str, cfa_pattern: str) -> float:
    """Return Σw² of a channel's resampling, averaged over all places."""
    if is_xtrans(cfa_pattern):
        return mean_square(cfa_pattern, COLOURS.index(channel))
    return mean_squared_weight(narrowing_for(channel))


@cache
def white_noise(channel: str, cfa_pattern: str, side: int = AREA) -> float:
    """Return what white noise a sample's variance is worth in means of `side` x `side` resampled pixels of a channel.

    Close to one over the channel's share of the mosaic: a pixel's kernel reaches over the area's edge, and the pixels
    outside reach in.  Averaged over all positions between the samples.

    Examples
    --------
    >>> patterns = {"R": "RGGB", "G": "RGGB", "mono": "mono"}
    >>> [round(channel_share(*each) * white_noise(*each), 3) for each in patterns.items()]
    [0.964, 0.997, 0.994]
    """
    if is_xtrans(cfa_pattern):
        return area_noise(cfa_pattern, COLOURS.index(channel), side)
    narrowing = narrowing_for(channel)
    phases = [(i / 8 + 1 / 16, j / 8 + 1 / 16) for i in range(8) for j in range(8)]
    taps = np.arange(-2, 4)
    y, x = (part.ravel() for part in np.mgrid[:side, :side])
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
        np.add.at(samples, (i[:, :, None], j[:, None, :]), weight / side**2)
        total += (samples**2).sum()
    return float(total / len(phases) * side**2)


def pixel_share(
    channel: str, cfa_pattern: str, places: np.ndarray | None = None, weight: np.ndarray | None = None
) -> float:
    """Return the variance of a single pixel over the equivalent white noise: resampling shares each sample out.

    It depends on where pixels fall between the samples: where a frame is not moved, nothing is shared out.  `places`
    (frame, 2, band, block) [px] are those of the blocks' centres in the frames, of `weight`; else all are averaged.
    """
    square = _mean_square(channel, cfa_pattern)
    if places is not None and weight is not None and not is_xtrans(cfa_pattern):
        whole = places[:, :, : max(places.shape[2] - 1, 1)].astype(float) + 0.5  # the last band may be cut
        squares = squared_weights(channel, whole[:, 0], whole[:, 1])
        known = np.isfinite(squares)
        share = np.asarray(weight)[:, None, None] * known / np.maximum(known.sum((1, 2), keepdims=True), 1)
        square = float(np.where(known, squares, 0).ravel() @ share.ravel() / share.sum())
    return square / white_noise(channel, cfa_pattern)


def block_centres(numbers: Sequence[int], shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y [px] (band, block) of the centres of the blocks of bands, of an output of `shape`."""
    x = (np.arange(-(-shape[1] // BLOCK)) + 0.5) * BLOCK - 0.5
    y = np.array([number * BAND + min(BAND, shape[0] - number * BAND) / 2 - 0.5 for number in numbers])
    return tuple(np.meshgrid(x, y))


def block_places(transform: Transform, centres: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return where `centres` (x, y) of blocks lie in a frame of `shape` (2, ...) [px], NaN outside it."""
    fx, fy = transform.apply(*(np.asarray(part, float) for part in centres))
    beyond = BLOCK / 2  # of the frame's edge: what a block has at least on each side of its centre
    inside = (fx > -beyond) & (fx < shape[1] - 1 + beyond) & (fy > -beyond) & (fy < shape[0] - 1 + beyond)
    return np.where(inside, np.stack([fx, fy]), np.nan).astype(np.float32)


def sample_noise(
    noise: np.ndarray,
    transform: Transform,
    scale: float,
    surface: np.ndarray,
    centres: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
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
    shape
        (height, width) of the frame.
    corner
        Row and column of the frame's first pixel on the sensor, whose blocks `noise` has.

    Returns
    -------
    Terms (term, channel, ...): α, β with μ in it, μ and ν; and the blocks' places in the frame (2, ...), x then y [px],
    NaN where a block lies outside it.
    """
    x, y = (np.asarray(part, float) for part in centres)
    fx, fy = transform.apply(x, y)
    row = np.clip((fy + corner[0]) / NOISE_BLOCK, 0, noise.shape[2] - 1).astype(np.int64)
    column = np.clip((fx + corner[1]) / NOISE_BLOCK, 0, noise.shape[3] - 1).astype(np.int64)
    light, dark, shared, flat = noise[:, :, row, column].astype(float)
    over = np.tensordot(surface, np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]), 1)
    beta = scale * over * light + scale**2 * (dark + shared)
    terms = np.stack([scale * light, beta, scale**2 * shared, flat]).astype(np.float32)
    return terms, block_places(transform, centres, shape)


def common_share(places: np.ndarray, weight: np.ndarray, side: float) -> np.ndarray:
    """Return how much of the masters' noise frames share in the mean of areas of `side` x `side` pixels.

    Of two frames displaced by (dx, dy) it is (1 - |dx|/side)(1 - |dy|/side); all pairs are averaged by weight.

    Parameters
    ----------
    places
        Where the areas lie in each frame (frame, 2, area) [px]; NaN where a frame does not see one.
    weight
        Of each frame.
    """
    weight = _seen_weight(places, weight)
    weight = weight / np.maximum(weight.sum(0), 1e-30)
    share = _sum_pairs(np.ascontiguousarray(places, float), weight, float(side))
    return np.where(weight.any(0), share, 1.0)


@kernel()
def _sum_pairs(places, weight, side):
    """Sum over all pairs of frames weight times weight times the overlap of their areas; see `common_share`."""
    frames, areas = weight.shape
    share, shared, per_pixel = np.zeros(areas), np.zeros(areas), 1.0 / side
    for one in range(frames):
        shared[:] = 0.0
        for two in range(frames):
            for area in range(areas):
                along = 1.0 - abs(places[two, 0, area] - places[one, 0, area]) * per_pixel
                across = 1.0 - abs(places[two, 1, area] - places[one, 1, area]) * per_pixel
                overlap = max(along, 0.0) * max(across, 0.0)
                shared[area] += weight[two, area] * overlap if overlap > 0.0 else 0.0
        for area in range(areas):
            share[area] += weight[one, area] * shared[area]
    return share


def _seen_weight(places: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights (frame, area), 0 where a frame does not see an area; `places` (frame, 2, area), `weight` (frame)."""
    return np.where(np.isfinite(places).all(1), weight[:, None], 0.0)


def tile_noise(
    terms: np.ndarray,
    places: np.ndarray,
    weight: np.ndarray,
    tiles: Sequence[Tile],
    white: np.ndarray,
    left: int = 0,
    area_side: float = AREA,
) -> tuple[list[Noise], np.ndarray]:
    """Return the `Noise` of each tile of a band, and what the frames share (2, channel, block).

    `terms` (frame, term, channel, block) and `places` (frame, 2, block) of the band's blocks, from column 0 on;
    `weight` (frame, channel); `white` is `white_noise` of each channel; `left` is the output's column where the tiles'
    arrays begin; `area_side` [px of the frames] is that of the areas whose variance is counted.

    The second gives the shared variance of a pixel of signal m: the first plus the second times m².
    """
    known = np.isfinite(places).all(1)
    own = weight[:, :, None] * known[:, None]  # of the frames that see a block (frame, channel, block)
    own /= np.maximum(own.sum(0), 1e-30)
    masters = np.stack([(own * terms[:, term]).sum(0) for term in (2, 3)], -1)
    independent = np.square(own).sum(0)  # what a sample's own variance holds of them already
    firsts = [(tile.column + left) // BLOCK for tile in tiles]
    lasts = [(tile.column + left + tile.columns - 1) // BLOCK + 1 for tile in tiles]
    block = np.arange(places.shape[2])
    if known.all():  # the blocks of a tile are alike
        for first, last in zip(firsts, lasts, strict=True):
            block[first:last] = (first + last) // 2
    each, of_each = np.unique(block, return_inverse=True)
    seen = places[:, :, each].astype(float)
    pixel, area = (common_share(seen, weight.mean(1), side)[of_each] for side in (1, area_side))
    common = np.zeros((2, *masters.shape[:2]), np.float32)
    noises = []
    for first, last in zip(firsts, lasts, strict=True):
        part = slice(first, last)
        alpha, beta = (np.ascontiguousarray(values[..., part]) for values in (terms[:, 0], terms[:, 1]))
        dark, flat = np.moveaxis(masters[:, part], -1, 0)
        shared = np.stack([dark * (area[part] - independent[:, part]), flat * area[part]], -1)
        noises.append(Noise(alpha, beta, shared.astype(float), white))
        rise = white[:, None] * (area - pixel)[part]
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
