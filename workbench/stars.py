"""Finding and measuring stars: where they are, how bright, how sharp, and how good a frame is.

Colour frames are searched on the half-size green plane (the mean of the two greens of every 2 x 2 cell), mono
frames as they are.  Positions are always given in pixels of the full frame, the centre of its first pixel at
(0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import sep
import xarray as xr
from scipy.ndimage import gaussian_filter

from .bayer import offsets
from .errors import WorkbenchError

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_APERTURE = 2.2  # flux within this many FWHM: a fraction that does not change with the seeing
_ANNULUS = (3.0, 5.0)  # local background, in FWHM
_ENOUGH = 40  # with fewer stars found, look deeper
_LEAST_MEASURED = 15  # stars that tell a frame's width and roundness, where there are so many
_SMOOTHING = (1.0, 2.0, 3.0)  # px: widths of the matched filters of the deeper search
# A star spreads light into the eight neighbours of its brightest pixel.  Even at a FWHM of 1.5 pixels, centred,
# the eight hold 0.35 of the peak; a hot pixel leaves them at the background.
_NEIGHBOURS = 0.3
_CENTROID_FLOOR = 0.02  # pixels of the searched plane: what sampling leaves at a width (sigma) of 0.9 of them


def half_green(mosaic: np.ndarray, cfa_pattern: str) -> np.ndarray:
    """Return the half-size green plane of a mosaic (mean of G1 and G2), float32; a mono frame as it is.

    Examples
    --------
    >>> half_green(np.arange(16.0).reshape(4, 4), "RGGB")
    array([[ 2.5,  4.5], [10.5, 12.5]], dtype=float32)
    """
    if cfa_pattern == "mono":
        return np.ascontiguousarray(mosaic, np.float32)
    place = offsets(cfa_pattern)
    height, width = mosaic.shape[0] // 2 * 2, mosaic.shape[1] // 2 * 2
    first, second = (
        mosaic[row:height:2, column:width:2].astype(np.float32) for row, column in map(place.get, ("G1", "G2"))
    )
    return (first + second) * np.float32(0.5)


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def clipped_stats(values):
    """Return location and standard deviation of a run of float32 values, clipped at three sigma.

    Starts from the median and MAD of a sample of 63 values, so that stars and nebula do not lead it astray, and
    does not sort the rest.  NaNs are left out.  The deviation is divided by 0.98660, that of a normal distribution
    cut at three sigma.
    """
    size = values.size
    step = max(1, size // 63)
    sample = np.empty(64, np.float32)
    count = 0
    for index in range(step // 2, size, step):
        value = values[index]
        if value == value and count < 64:
            sample[count] = value
            count += 1
    if count < 5:
        return np.nan, np.nan, 0
    chosen = np.sort(sample[:count])
    centre = np.float32(chosen[count // 2])
    sigma = np.float32(1.4826) * np.sort(np.abs(chosen - centre))[count // 2] * np.float32(1.3)
    used = 0
    for _ in range(4):
        reach = np.float32(3.0) * sigma
        total = np.float32(0.0)
        square = np.float32(0.0)
        inside = np.float32(0.0)
        for index in range(size):
            difference = values[index] - centre
            kept = np.float32(1.0) if abs(difference) <= reach else np.float32(0.0)
            difference = difference if abs(difference) <= reach else np.float32(0.0)
            inside += kept
            total += difference
            square += difference * difference
        if inside < 5:
            break
        mean = total / inside
        used = int(inside)
        sigma = np.float32(np.sqrt(max(square / inside - mean * mean, np.float32(0.0))) / np.float32(0.98660))
        centre = centre + mean
    return centre, sigma, used


@numba.njit(nogil=True, cache=True)
def _blocks(plane, block, level, noise):
    rows, columns = level.shape
    height, width = plane.shape
    scratch = np.empty(block * block, np.float32)
    for row in range(rows):
        top, bottom = row * height // rows, (row + 1) * height // rows
        for column in range(columns):
            left, right = column * width // columns, (column + 1) * width // columns
            count = 0
            for y in range(top, min(bottom, top + block)):
                for x in range(left, min(right, left + block)):
                    scratch[count] = plane[y, x]
                    count += 1
            level[row, column], noise[row, column], _ = clipped_stats(scratch[:count])


def block_background(plane: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return background level and noise (standard deviation) in blocks of a plane, both in its units.

    Each block (about `block` x `block` pixels) is clipped at three sigma until stars are gone; a block without
    five finite pixels is NaN.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> level, noise = block_background(rng.normal(100, 5, (128, 128)).astype("float32"), block=32)
    >>> level.shape, float(level.mean().round()), float(noise.mean().round())
    ((4, 4), 100.0, 5.0)
    """
    shape = tuple(max(1, -(-size // block)) for size in plane.shape)
    level, noise = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _blocks(np.ascontiguousarray(plane, np.float32), block, level, noise)
    return level, noise


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def _subtract(plane, level, out):
    """Take a map of block levels, interpolated linearly between block centres, from a plane; NaN becomes 0."""
    height, width = plane.shape
    rows, columns = level.shape
    left = np.empty(width, np.int64)
    part = np.empty(width, np.float32)
    line = np.empty(columns, np.float32)
    for x in range(width):
        position = min(max((x + 0.5) * columns / width - 0.5, 0.0), columns - 1.0)
        left[x] = min(int(position), max(columns - 2, 0))
        part[x] = position - left[x]
    for y in range(height):
        position = min(max((y + 0.5) * rows / height - 0.5, 0.0), rows - 1.0)
        top = min(int(position), max(rows - 2, 0))
        down = np.float32(position - top)
        for column in range(columns):
            line[column] = level[top, column] + down * (level[min(top + 1, rows - 1), column] - level[top, column])
        for x in range(width):
            begin = line[left[x]]
            value = plane[y, x] - (begin + part[x] * (line[min(left[x] + 1, columns - 1)] - begin))
            out[y, x] = value if value == value else 0.0


@numba.njit(nogil=True, cache=True)
def _measure(plane, xs, ys, sigma, noise, gain, out):
    """Centroid and moments of every star under a round Gaussian weight; see `find_stars`.

    Sets x, y, the weighted moments xx, yy, xy, the sum of weight times light, its noise, and the noise of its
    moment about the centroid.  A star that walks away is NaN.
    """
    height, width = plane.shape
    reach = int(np.ceil(3.5 * sigma))
    narrow = -0.5 / (sigma * sigma)
    size = 2 * reach + 1
    row_weight = np.empty(size)
    column_weight = np.empty(size)
    for star in range(xs.size):
        x, y = xs[star], ys[star]
        good = False
        total = sxx = syy = sxy = variance = leverage = 0.0
        for iteration in range(12):
            x0, y0 = int(np.round(x)), int(np.round(y))
            if x0 < 2 or y0 < 2 or x0 >= width - 2 or y0 >= height - 2:
                break
            total = sx = sy = sxx = syy = sxy = variance = leverage = 0.0
            for i in range(size):
                row_weight[i] = np.exp(narrow * (y0 - reach + i - y) ** 2)
                column_weight[i] = np.exp(narrow * (x0 - reach + i - x) ** 2)
            for j in range(max(0, y0 - reach), min(height, y0 + reach + 1)):
                dy = j - y
                for i in range(max(0, x0 - reach), min(width, x0 + reach + 1)):
                    dx = i - x
                    weight = row_weight[j - y0 + reach] * column_weight[i - x0 + reach]
                    light = weight * plane[j, i]
                    total += light
                    sx += light * dx
                    sy += light * dy
                    sxx += light * dx * dx
                    syy += light * dy * dy
                    sxy += light * dx * dy
                    scatter = weight * weight * (noise * noise + max(plane[j, i], 0.0) / gain)
                    variance += scatter
                    leverage += scatter * 0.5 * (dx * dx + dy * dy)
            if total <= 0.0:
                break
            # A Gaussian star as wide as the weight is pulled half-way; twice the pull is the whole way.
            shift_x, shift_y = 2.0 * sx / total, 2.0 * sy / total
            if abs(shift_x) + abs(shift_y) < 1e-3 or iteration == 11:
                good = True
                break
            x += min(max(shift_x, -1.0), 1.0)
            y += min(max(shift_y, -1.0), 1.0)
            if abs(x - xs[star]) > 1.0 + 1.5 * sigma or abs(y - ys[star]) > 1.0 + 1.5 * sigma:
                break
        if not good:
            out[star, :] = np.nan
            continue
        out[star, 0], out[star, 1] = x, y
        out[star, 2], out[star, 3], out[star, 4] = sxx / total, syy / total, sxy / total
        out[star, 5], out[star, 6], out[star, 7] = total, np.sqrt(variance), np.sqrt(leverage)


def _intrinsic(measured: np.ndarray, sigma: float) -> np.ndarray:
    """Return the stars' own covariances (xx, yy, xy) from the moments under a Gaussian weight; NaN where it fails.

    The moments of star times weight are (C⁻¹ + W⁻¹)⁻¹ for a Gaussian star; solved for C.
    """
    xx, yy, xy = measured[:, 2], measured[:, 3], measured[:, 4]
    with np.errstate(all="ignore"):
        det = xx * yy - xy**2
        axx, ayy, axy = yy / det - sigma**-2, xx / det - sigma**-2, -xy / det
        own = axx * ayy - axy**2
        return np.where((det > 0) & (own > 0) & (axx > 0), np.stack([ayy / own, axx / own, -axy / own]), np.nan).T


@numba.njit(nogil=True, cache=True)
def _photometry(plane, xs, ys, fwhm, noise, gain, out):
    height, width = plane.shape
    inner, begin, end = 2.2 * fwhm, 3.0 * fwhm, 5.0 * fwhm
    reach = int(np.ceil(end))
    ring = np.empty((2 * reach + 1) ** 2, np.float32)
    for star in range(xs.size):
        x, y = xs[star], ys[star]
        x0, y0 = int(np.round(x)), int(np.round(y))
        light = area = 0.0
        count = 0
        for j in range(y0 - reach, y0 + reach + 1):
            for i in range(x0 - reach, x0 + reach + 1):
                if j < 0 or i < 0 or j >= height or i >= width:
                    continue
                radius = np.sqrt((i - x) ** 2 + (j - y) ** 2)
                weight = min(max(inner + 0.5 - radius, 0.0), 1.0)
                light += weight * plane[j, i]
                area += weight
                if begin <= radius <= end:
                    ring[count] = plane[j, i]
                    count += 1
        local, _, used = clipped_stats(ring[:count])
        complete = area > 0.98 * np.pi * inner * inner
        if used < 8 or not complete:
            out[star, 0] = out[star, 1] = np.nan
            continue
        flux = light - area * local
        out[star, 0] = flux
        out[star, 1] = np.sqrt(max(flux, 0.0) / gain + area * noise * noise * (1.0 + area / used))


def find_stars(
    plane: np.ndarray,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    gain: float = np.inf,
    background: np.ndarray | None = None,
    noise: float | None = None,
    saturation: float = np.inf,
    threshold: float = 5.0,
    limit: int = 3000,
    blur: tuple[float, float, float] = (1 / 12, 0.0, 1 / 12),
) -> xr.Dataset:
    """Find stars on a plane and measure them: position, flux, FWHM, roundness, each with what it is worth.

    Detection is SExtractor's (the `sep` library) on the background-subtracted plane; a peak whose neighbours
    hold no light is a hot pixel, not a star.  Positions and widths are adaptive moments (Bernstein and Jarvis
    2002, AJ 123, 583): a Gaussian weight matched to the star, errors from the noise.  Flux is what lies within
    2.2 FWHM of the frame's typical star over a local background.

    Parameters
    ----------
    plane
        Two-dimensional, in electrons or ADU.  Of a mosaic: `half_green`.
    scale, offset
        Where the plane's pixels lie in the frame: ``position = scale * index + offset`` (2 and 0.5 for a
        half-size plane).
    gain
        Electrons for one unit of the plane (for the half-size green plane in electrons: 2); infinite leaves the
        stars' own shot noise out of the errors.
    background, noise
        Block levels and noise of a pixel in the plane's units, where already known; else `block_background`.
    saturation
        A star whose brightest pixel reaches this is flagged `saturated`.
    threshold
        In units of the background noise, for at least four connected pixels.
    limit
        Measure at most so many, the brightest.
    blur
        Covariance (xx, xy, yy) [px²] that the sampling adds to a star's image, taken out of its width: that of a
        square pixel by default; see `green_blur`.

    Returns
    -------
    Dataset over ``star``, brightest first: ``x``, ``y`` [px] with ``x_error``, ``y_error``; ``flux`` (plane's
    units) with ``flux_error``; ``fwhm`` [px], before the pixels integrate the image; ``roundness`` (minor over major
    axis); ``peak``; ``snr``; ``saturated``.  Attributes: ``background``, ``noise`` (medians, plane's units),
    ``detected``, ``hot_pixels``, ``fwhm`` and ``roundness`` (medians over good stars).

    Raises
    ------
    WorkbenchError
        If the plane is not two-dimensional or smaller than 16 x 16 pixels.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> y, x = np.mgrid[:64, :64]
    >>> sky = rng.normal(100, 2, (64, 64)) + 500 * np.exp(-((x - 20.3)**2 + (y - 40.7)**2) / (2 * 1.5**2))
    >>> stars = find_stars(sky.astype("float32"))
    >>> stars.sizes["star"], float(stars.x[0].round(1)), float(stars.y[0].round(1)), float(stars.fwhm[0].round(1))
    (1, 20.3, 40.7, 3.5)
    """
    if plane.ndim != 2 or min(plane.shape) < 16:
        raise WorkbenchError(f"stars are sought on a plane of at least 16 x 16 pixels; this has shape {plane.shape}")
    plane = np.ascontiguousarray(plane, np.float32)
    if not np.isfinite(plane[::7, ::7]).any():
        raise WorkbenchError("this frame has no finite pixels: no stars can be sought on it")
    if background is None:
        background, deviations = block_background(plane)
        noise = float(np.nanmedian(deviations)) if noise is None else noise
    elif noise is None:
        noise = float(np.nanmedian(block_background(plane)[1]))
    noise = max(float(noise), 1e-6)
    level = np.where(np.isfinite(background), background, np.nanmedian(background)).astype(np.float32)
    flat_sky = np.empty_like(plane)
    _subtract(plane, level, flat_sky)
    objects, hot = _extract(flat_sky, noise, threshold)
    start = _typical_sigma(objects)
    deeper = objects.size < _ENOUGH
    if deeper:
        objects, hot, start, flat_sky = _search_deeper(flat_sky, noise, threshold, objects, hot, start)
    detected = objects.size
    objects = objects[np.argsort(-objects["flux"], kind="stable")][:limit]
    sigma = max(start, 0.9)
    for _ in range(2):  # the weight follows the frame's own stars
        measured = np.full((objects.size, 8), np.nan)
        _measure(flat_sky, objects["x"].copy(), objects["y"].copy(), sigma, noise, gain, measured)
        own = _intrinsic(measured, sigma)
        bright = np.flatnonzero((measured[:, 5] > 20 * measured[:, 6]) & (objects["peak"] < saturation))[:300]
        widths = (own[bright, 0] * own[bright, 1] - own[bright, 2] ** 2) ** 0.25
        if not np.isfinite(widths).any():
            break
        new = max(float(np.nanmedian(widths)), 0.9)
        if abs(new - sigma) < 0.1 * sigma or (deeper and new > 1.5 * sigma):  # a crowd's light, not a star's
            break
        sigma = new
    with np.errstate(all="ignore"):
        snr = measured[:, 5] / measured[:, 6]
        kept = np.isfinite(snr) & (snr > threshold)
        # Hardly wider than the sampling alone: a hot pixel, or two, or one with a noisy neighbour.
        least = 1.3 * (blur[0] + blur[2]) / 2 / scale**2
        kept &= (measured[:, 2] + measured[:, 3]) / 2 > least * sigma**2 / (least + sigma**2)
        own = own * scale**2 - np.array([blur[0], blur[2], blur[1]])
        trace, det = own[:, 0] + own[:, 1], own[:, 0] * own[:, 1] - own[:, 2] ** 2
        half = np.sqrt(np.maximum(trace**2 / 4 - det, 0.0))
        roundness = np.sqrt(np.maximum(trace / 2 - half, 0.0) / (trace / 2 + half))
        fwhm = FWHM_PER_SIGMA * np.where(det > 0, np.abs(det), np.nan) ** 0.25
        kept &= (trace > 0) & (det > 0)  # narrower than a pixel on one axis: two hot pixels, or a bad line's rest
        error = 2.0 * measured[:, 7] / measured[:, 5]  # of a star as wide as the weight
    light = np.full((objects.size, 2), np.nan)
    _photometry(
        flat_sky, measured[:, 0].copy(), measured[:, 1].copy(), FWHM_PER_SIGMA * sigma, noise, gain, light
    )  # fmt: skip
    error = np.hypot(error, _CENTROID_FLOOR * min(1.0, (0.9 / sigma) ** 4)) * scale
    columns = {
        "x": (measured[:, 0] * scale + offset, "px", "column of the centroid"),
        "x_error": (error, "px", "standard error of x"),
        "y": (measured[:, 1] * scale + offset, "px", "row of the centroid"),
        "y_error": (error, "px", "standard error of y"),
        "flux": (light[:, 0], "", "light within 2.2 FWHM"),
        "flux_error": (light[:, 1], "", "standard error of flux"),
        "fwhm": (fwhm, "px", "full width at half maximum"),
        "roundness": (roundness, "1", "minor over major axis"),
        "peak": (objects["peak"].astype(float), "", "brightest pixel over the background"),
        "snr": (snr, "1", "signal-to-noise ratio within the matched weight"),
        "saturated": (objects["peak"] >= saturation, "", "brightest pixel at the white level"),
    }
    dataset = xr.Dataset(
        {
            name: ("star", values[kept], {"units": units, "long_name": text})
            for name, (values, units, text) in columns.items()
        }
    )
    # the frame's own width is that of well-measured stars; of one alone, maybe a cluster's core, it would be a guess
    ranked = np.argsort(np.where(dataset["saturated"].values, np.inf, -dataset["snr"].values), kind="stable")
    usable = ranked[: np.count_nonzero(~dataset["saturated"].values)]
    well = usable[: min(300, max(_LEAST_MEASURED, np.count_nonzero(dataset["snr"].values[usable] > 15)))]
    dataset.attrs = {
        "background": float(np.nanmedian(background)),
        "noise": noise,
        "detected": int(detected),
        "hot_pixels": int(hot),
        "fwhm": _median(dataset["fwhm"].values[well]),
        "roundness": _median(dataset["roundness"].values[well]),
    }
    return dataset


@numba.njit(nogil=True, cache=True)
def _clean(plane, noise, out):
    """Take out single bright or dark pixels and what whole rows share; return how many pixels were bright."""
    height, width = plane.shape
    hot = 0
    for y in range(height):
        for x in range(width):
            value = plane[y, x]
            if abs(value) > 4.0 * noise and 0 < y < height - 1 and 0 < x < width - 1:
                around = -value
                for j in range(y - 1, y + 2):
                    for i in range(x - 1, x + 2):
                        around += plane[j, i]
                if around / value < 0.3 + 2.0 * noise / abs(value):
                    hot += value > 0
                    value = around / 8.0
            out[y, x] = value
        shared, _, _ = clipped_stats(out[y])
        for x in range(width):
            out[y, x] -= shared
    return hot


def _search_deeper(flat_sky, noise, threshold, objects, hot, start):
    """Search a poor field with matched filters: faint wide stars, on frames with hot pixels and banding too.

    Returns the objects of the filter that suits them, the hot pixels, the stars' width to start from, and the
    plane to measure them on.
    """
    cleaned = np.empty_like(flat_sky)
    spikes = _clean(flat_sky, noise, cleaned)
    best = 0.0
    least = 1.2 * objects.size
    for sigma in _SMOOTHING:
        smooth = gaussian_filter(cleaned, sigma, mode="nearest")
        smooth_noise = float(np.nanmedian(block_background(smooth)[1]))
        if not smooth_noise > 0:  # a picture of one value holds no stars
            continue
        found, _ = _extract(smooth, smooth_noise, 0.75 * threshold, least_pixels=max(5, int(3 * sigma**2)))
        # The filter that suits the stars makes them stand out most.
        score = float(np.sort(found["peak"])[-30:].sum()) / smooth_noise
        if found.size > least and score > best:
            best = score
            objects, hot, start, flat_sky = found, spikes, sigma, cleaned
    return objects, hot, start, flat_sky


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else np.nan


def green_blur(cfa_pattern: str) -> tuple[float, float, float]:
    """Return what `half_green` adds to a star's covariance (xx, xy, yy) [px²], for `find_stars`.

    Two pixels half a diagonal apart from their middle, each integrating over itself.

    Examples
    --------
    >>> green_blur("GRBG")
    (0.3333333333333333, 0.25, 0.3333333333333333)
    """
    if cfa_pattern == "mono":
        return 1 / 12, 0.0, 1 / 12
    return 1 / 3, 0.25 if cfa_pattern[0] == "G" else -0.25, 1 / 3


def _extract(flat_sky: np.ndarray, noise: float, threshold: float, least_pixels: int = 4) -> tuple[np.ndarray, int]:
    objects = None
    stack, level = 300_000, threshold
    while objects is None:
        try:
            sep.set_extract_pixstack(stack)
            objects = sep.extract(
                flat_sky, level, err=noise, minarea=least_pixels, filter_kernel=None, clean=False, deblend_nthresh=16
            )
        except Exception as problem:  # sep raises a bare Exception: its buffers are too small for this sky
            if stack < 8_000_000:
                stack *= 5
            elif level < 100 * threshold:
                level *= 2
            else:
                raise WorkbenchError(f"the star search failed on this frame: {problem}") from problem
    if not objects.size:
        return objects, 0
    height, width = flat_sky.shape
    inside = (
        (objects["xpeak"] > 0)
        & (objects["xpeak"] < width - 1)
        & (objects["ypeak"] > 0)
        & (objects["ypeak"] < height - 1)
    )
    objects = objects[inside]
    x, y = objects["xpeak"], objects["ypeak"]
    around = np.zeros(x.size)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dx or dy:
                around += flat_sky[y + dy, x + dx]
    single = around < _NEIGHBOURS * flat_sky[y, x]
    # One row or column of pixels is a bad line of the sensor, not a star.
    line = (objects["xmax"] == objects["xmin"]) | (objects["ymax"] == objects["ymin"])
    line |= (objects["b"] < 0.5) & (objects["a"] > 3 * objects["b"])
    return objects[~(single | line)], int(np.count_nonzero(single | line))


def _typical_sigma(objects: np.ndarray) -> float:
    """Return a starting width [px of the plane] from the brighter half's isophotal moments."""
    if not objects.size:
        return 1.0
    bright = objects[: max(10, objects.size // 2)]
    return float(np.clip(np.median(np.sqrt(np.abs(bright["a"] * bright["b"]))), 0.6, 6.0))


_QUALITY = {
    "stars": ("1", "stars found"),
    "fwhm": ("px", "median FWHM"),
    "roundness": ("1", "median roundness (minor over major axis)"),
    "background": ("", "median background"),
    "noise": ("", "background noise of a pixel of the searched plane"),
    "snr": ("1", "median signal-to-noise ratio of the 100 brightest stars"),
}


def quality_table(catalogues: Sequence[xr.Dataset], filenames: Sequence[str]) -> xr.Dataset:
    """Return the quality of frames, a Dataset over ``frame``, from their star lists (`find_stars`).

    Variables ``stars``, ``fwhm`` [px], ``roundness``, ``background``, ``noise``, ``snr`` (of the hundred
    brightest); ``transparency`` is added once stars are matched.
    """
    rows = []
    for stars in catalogues:
        snr = stars["snr"].values[~stars["saturated"].values][:100]
        rows.append(
            (
                stars.attrs["detected"],
                stars.attrs["fwhm"],
                stars.attrs["roundness"],
                stars.attrs["background"],
                stars.attrs["noise"],
                float(np.median(snr)) if snr.size else np.nan,
            )
        )
    columns = np.array(rows, float).reshape(-1, len(_QUALITY)).T
    return xr.Dataset(
        {
            name: ("frame", column, {"units": units, "long_name": text})
            for (name, (units, text)), column in zip(_QUALITY.items(), columns, strict=True)
        },
        coords={"filename": ("frame", np.array(list(filenames), object))},
    )


def poor_frames(quality: xr.Dataset, *, least_stars: int = 6) -> dict[int, str]:
    """Return the frames that should not be stacked, as index → reason.

    No stars; fewer than a fifth of the median count (clouds); FWHM beyond the median by 60 % (focus lost);
    roundness below 0.5 and well below the others' (trailed).  What half of the frames share is not a fault of
    one of them, so that a wide or poorly guided set still stacks.

    Examples
    --------
    >>> table = xr.Dataset({"stars": ("frame", [500, 480, 2, 510]), "fwhm": ("frame", [3.0, 3.0, 3.0, 6.5]),
    ...                     "roundness": ("frame", [0.9, 0.9, 0.9, 0.9])})
    >>> poor_frames(table)
    {2: '2 stars found, fewer than 6', 3: 'FWHM 6.5 px where the others have 3.0 px: out of focus or bad seeing'}
    """
    stars, fwhm, roundness = (quality[name].values for name in ("stars", "fwhm", "roundness"))
    reasons: dict[int, str] = {}
    enough = stars >= least_stars
    if not enough.any():
        return {index: f"{int(count)} stars found, fewer than {least_stars}" for index, count in enumerate(stars)}
    usual_count = float(np.median(stars[enough]))
    usual_fwhm = float(np.nanmedian(fwhm[enough]))
    usual_round = float(np.nanmedian(roundness[enough]))
    for index, count in enumerate(stars):
        if count < least_stars:
            reasons[index] = f"{int(count)} stars found, fewer than {least_stars}"
        elif count < 0.2 * usual_count:
            reasons[index] = (
                f"{int(count)} stars found where the others have {usual_count:.0f}: clouds or another field"
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
    values = {name: quality[name].values[indices].astype(float) for name in ("stars", "fwhm", "roundness", "noise")}
    values = {name: column / np.nanmedian(column) for name, column in values.items()}
    score = values["stars"] * values["roundness"] ** 2 / (values["fwhm"] ** 2 * values["noise"])
    return int(indices[int(np.nanargmax(score))])
