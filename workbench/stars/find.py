"""The stars of a frame as a table: detected above the noise, less hot pixels and bad lines, then measured.

Measured are moments under a Gaussian weight, for place and shape, and the flux in an aperture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import sep
import xarray as xr
from scipy.ndimage import gaussian_filter

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.parallel import frame_memory
from .background import SQUARE_PIXELS, Sampling, block_background, clipped_stats, subtract

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_APERTURE = 2.2  # flux within this many FWHM: a fraction that does not change with the seeing
_ANNULUS = (3.0, 5.0)  # local background, in FWHM
_ENOUGH = 40  # with fewer stars found, look deeper
_LEAST_MEASURED = 15  # stars that a frame's width and roundness are taken from, where there are so many
_CENTROID_FLOOR = 0.02  # pixels of the searched plane: what sampling leaves at a width (sigma) of 0.9 of them
_SMOOTHING = (1.0, 2.0, 3.0)  # px: widths of the matched filters of the deeper search
# A star spreads light into the eight neighbours of its brightest pixel.  Even at a FWHM of 1.5 pixels, centred,
# the eight hold 0.35 of the peak; a hot pixel leaves them at the background.
_NEIGHBOURS = 0.3


class _Search(NamedTuple):
    """What was detected: sep's table, rejected hot pixels, a width to start from [px], the plane to measure on."""

    objects: np.ndarray
    hot: int
    sigma: float
    plane: np.ndarray


def find_stars(
    plane: np.ndarray,
    *,
    sampling: Sampling = SQUARE_PIXELS,
    gain: float = np.inf,
    background: np.ndarray | None = None,
    noise: float | None = None,
    saturation: float = np.inf,
    threshold: float = 5.0,
    limit: int = 3000,
) -> xr.Dataset:
    """Find stars on a plane and measure them: position, flux, FWHM, roundness, each with what it is worth.

    Detection is SExtractor's (the `sep` library: photutils' DAOStarFinder takes five times as long and gives no widths)
    on the background-subtracted plane; a peak whose neighbours hold no light is a hot pixel, not a star.  Positions and
    widths are adaptive moments (Bernstein and Jarvis 2002, AJ 123, 583): a Gaussian weight matched to the star, errors
    from the noise.  Flux is what lies within 2.2 FWHM of the frame's typical star over a local background.

    Parameters
    ----------
    plane
        Two-dimensional, in electrons or ADU.  Of a mosaic: `half_green`.
    sampling
        Where the plane's pixels lie in the frame and what they add to a star's width; of a mosaic: `green_sampling`.
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
    levels, deviations = block_background(plane) if background is None or noise is None else (background, noise)
    background = levels if background is None else background
    noise = max(float(np.nanmedian(deviations)) if noise is None else float(noise), 1e-6)
    usual = np.nanmedian(background)
    flat_sky = frame_memory(plane.shape, np.float32)
    subtract(plane, np.where(np.isfinite(background), background, usual).astype(np.float32), flat_sky)
    found = _detect(flat_sky, noise, threshold)
    objects = found.objects[np.argsort(-found.objects["flux"], kind="stable")][:limit]
    moments, own, sigma, width = _matched_moments(found, objects, noise, gain, saturation)
    columns, kept = _places_and_shapes(moments, own, sigma, sampling, threshold)
    flux, flux_error = photometry(found.plane, moments.x, moments.y, FWHM_PER_SIGMA * width, noise, gain)
    columns |= {
        "flux": (flux, "", "light within 2.2 FWHM"),
        "flux_error": (flux_error, "", "standard error of flux"),
        "peak": (objects["peak"].astype(float), "", "brightest pixel over the background"),
        "saturated": (objects["peak"] >= saturation, "", "brightest pixel at white level"),
    }
    about = {name: {"units": units, "long_name": text} for name, (_, units, text) in columns.items()}
    stars = xr.Dataset({name: ("star", values[kept], about[name]) for name, (values, *_) in columns.items()})
    saturated, snr = stars["saturated"].values, stars["snr"].values
    usable = np.argsort(np.where(saturated, np.inf, -snr), kind="stable")[: np.count_nonzero(~saturated)]
    well = usable[: min(300, max(_LEAST_MEASURED, np.count_nonzero(snr[usable] > 15)))]  # one may be a cluster's core
    stars.attrs = {
        "background": float(usual),
        "noise": noise,
        "detected": int(found.objects.size),
        "hot_pixels": int(found.hot),
        "fwhm": _median(stars["fwhm"].values[well]),
        "roundness": _median(stars["roundness"].values[well]),
    }
    return stars


def _detect(flat_sky: np.ndarray, noise: float, threshold: float) -> _Search:
    """Search the background-subtracted plane (y, x); a poor field with matched filters, for faint wide stars."""
    objects, hot = _extract(flat_sky, noise, threshold)
    bright = objects[: max(10, objects.size // 2)]
    widths = np.sqrt(np.abs(bright["a"] * bright["b"]))  # from isophotal moments
    first = _Search(objects, hot, float(np.clip(np.median(widths), 0.6, 6.0)) if objects.size else 1.0, flat_sky)
    if objects.size >= _ENOUGH:
        return first
    cleaned = np.empty_like(flat_sky)
    spikes = _clean(flat_sky, noise, cleaned)
    chosen, best = first, 0.0
    for sigma in _SMOOTHING:
        smooth = gaussian_filter(cleaned, sigma, mode="nearest")
        smooth_noise = float(np.nanmedian(block_background(smooth)[1]))
        if not smooth_noise > 0:  # a picture of one value holds no stars
            continue
        found, _ = _extract(smooth, smooth_noise, 0.75 * threshold, least_pixels=max(5, int(3 * sigma**2)))
        # The filter that suits the stars makes them stand out most.
        score = float(np.sort(found["peak"])[-30:].sum()) / smooth_noise
        if found.size > 1.2 * objects.size and score > best:
            chosen, best = _Search(found, spikes, sigma, cleaned), score
    return chosen


def _extract(flat_sky: np.ndarray, noise: float, threshold: float, least_pixels: int = 4) -> tuple[np.ndarray, int]:
    """Return what stands out of the noise (sep's table), less single pixels and lines, and how many of these were."""
    objects = _sep_table(flat_sky, noise, threshold, least_pixels)
    if not objects.size:
        return objects, 0
    height, width = flat_sky.shape
    x, y = objects["xpeak"], objects["ypeak"]
    objects = objects[(x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)]
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


def _sep_table(flat_sky: np.ndarray, noise: float, threshold: float, least_pixels: int) -> np.ndarray:
    """SExtractor's objects; with larger buffers, then a higher threshold, where a sky is too full for it."""
    stack, level = 300_000, threshold
    while True:
        try:
            sep.set_extract_pixstack(stack)
            return sep.extract(
                flat_sky, level, err=noise, minarea=least_pixels, filter_kernel=None, clean=False, deblend_nthresh=16
            )
        except Exception as problem:  # sep raises a bare Exception: its buffers are too small for this sky
            if stack < 8_000_000:
                stack *= 5
            elif level < 100 * threshold:
                level *= 2
            else:
                raise WorkbenchError(f"the star search failed on this frame: {problem}") from problem


@kernel()
def _clean(plane, noise, out):
    """Copy a plane (y, x) less single outlying pixels and what whole rows share; return how many pixels were bright."""
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


def _matched_moments(
    found: _Search, objects: np.ndarray, noise: float, gain: float, saturation: float
) -> tuple[Moments, np.ndarray, float, float]:
    """Measure with a weight as wide as the frame's own stars: the moments, covariances, width [px]; and the stars'."""
    few, sigma = objects.size < _ENOUGH, max(found.sigma, 0.9)
    for _ in range(2):
        moments = measure(found.plane, objects["x"].copy(), objects["y"].copy(), sigma, noise, gain)
        own = intrinsic(moments, sigma)
        bright = np.flatnonzero((moments.light > 20 * moments.noise) & (objects["peak"] < saturation))[:300]
        widths = (own[bright, 0] * own[bright, 1] - own[bright, 2] ** 2) ** 0.25
        if not np.isfinite(widths).any():
            break
        new = max(float(np.nanmedian(widths)), 0.9)
        if few and new > 1.5 * sigma:  # a crowd's light, or that of stars which the search was too narrow for
            return moments, own, sigma, new
        if abs(new - sigma) < 0.1 * sigma:
            break
        sigma = new
    return moments, own, sigma, sigma


def _places_and_shapes(
    moments: Moments, own: np.ndarray, sigma: float, sampling: Sampling, threshold: float
) -> tuple[dict[str, tuple[np.ndarray, str, str]], np.ndarray]:
    """Return columns (values, units, title) in pixels of the frame, and which are wide and bright enough for a star."""
    scale, offset, (blur_xx, blur_xy, blur_yy) = sampling
    with np.errstate(all="ignore"):
        snr = moments.light / moments.noise
        kept = np.isfinite(snr) & (snr > threshold)
        # Not much wider than the sampling alone: a hot pixel, or two, or one with a noisy neighbour.
        least = 1.3 * (blur_xx + blur_yy) / 2 / scale**2
        kept &= (moments.xx + moments.yy) / 2 > least * sigma**2 / (least + sigma**2)
        xx, yy, xy = (own * scale**2 - np.array([blur_xx, blur_yy, blur_xy])).T
        trace, det = xx + yy, xx * yy - xy**2
        half = np.sqrt(np.maximum(trace**2 / 4 - det, 0.0))
        roundness = np.sqrt(np.maximum(trace / 2 - half, 0.0) / (trace / 2 + half))
        fwhm = FWHM_PER_SIGMA * np.where(det > 0, np.abs(det), np.nan) ** 0.25
        kept &= (trace > 0) & (det > 0)  # narrower than a pixel on one axis: two hot pixels, or a bad line's rest
        error = 2.0 * moments.lever / moments.light  # of a star as wide as the weight
    error = np.hypot(error, _CENTROID_FLOOR * min(1.0, (0.9 / sigma) ** 4)) * scale
    columns = {
        "x": (moments.x * scale + offset, "pix", "column of the centroid"),
        "x_error": (error, "pix", "standard error of x"),
        "y": (moments.y * scale + offset, "pix", "row of the centroid"),
        "y_error": (error, "pix", "standard error of y"),
        "fwhm": (fwhm, "pix", "full width at half maximum"),
        "roundness": (roundness, "1", "minor over major axis"),
        "snr": (snr, "1", "signal-to-noise ratio within the matched weight"),
    }
    return columns, kept


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else np.nan


class Moments(NamedTuple):
    """Stars under a Gaussian weight, each array (star,): NaN for a star that walked away.

    Centroid `x`, `y` [px]; second moments `xx`, `yy`, `xy` [px²], as weighted; `light`, the sum of weight times light,
    with its `noise`; `lever` [units · px], the noise of the light's first moment about the centroid.
    """

    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    yy: np.ndarray
    xy: np.ndarray
    light: np.ndarray
    noise: np.ndarray
    lever: np.ndarray


@kernel()
def measure(plane, xs, ys, sigma, noise, gain):
    """Return the `Moments` of stars on a background-subtracted plane (y, x) under a round Gaussian weight.

    `xs`, `ys` (star,) are where to start and `sigma` the weight's width [px]; `noise` is a pixel's, in the units of the
    plane, `gain` electrons for one of them.  The weight is moved until it is centred on the star.
    """
    height, width = plane.shape
    found = np.full((8, xs.size), np.nan)
    out = Moments(found[0], found[1], found[2], found[3], found[4], found[5], found[6], found[7])
    reach = int(np.ceil(3.5 * sigma))
    narrow = -0.5 / (sigma * sigma)
    size = 2 * reach + 1
    row_weight, column_weight = np.empty(size), np.empty(size)
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
        if good:
            out.x[star], out.y[star] = x, y
            out.xx[star], out.yy[star], out.xy[star] = sxx / total, syy / total, sxy / total
            out.light[star], out.noise[star], out.lever[star] = total, np.sqrt(variance), np.sqrt(leverage)
    return out


def intrinsic(measured: Moments, sigma: float) -> np.ndarray:
    """Return the stars' own covariances xx, yy, xy [px²], (star, 3); NaN where they cannot be had.

    The moments of star times weight are (C⁻¹ + W⁻¹)⁻¹ for a Gaussian star; solved for C.
    """
    xx, yy, xy = measured.xx, measured.yy, measured.xy
    with np.errstate(all="ignore"):
        det = xx * yy - xy**2
        axx, ayy, axy = yy / det - sigma**-2, xx / det - sigma**-2, -xy / det
        own = axx * ayy - axy**2
        return np.where((det > 0) & (own > 0) & (axx > 0), np.stack([ayy / own, axx / own, -axy / own]), np.nan).T


@kernel()
def photometry(plane, xs, ys, fwhm, noise, gain):
    """Return flux and error of each star (star,): light in an aperture of 2.2 `fwhm` [px] less that of a ring about it.

    In the units of the plane (y, x); NaN where the aperture is not complete.
    """
    height, width = plane.shape
    fluxes, errors = np.full(xs.size, np.nan), np.full(xs.size, np.nan)
    inner, begin, end = _APERTURE * fwhm, _ANNULUS[0] * fwhm, _ANNULUS[1] * fwhm
    reach = int(np.ceil(end))
    ring = np.empty((2 * reach + 1) ** 2, np.float32)
    for star in np.flatnonzero((xs >= 0) & (xs < width) & (ys >= 0) & (ys < height)):
        x, y = xs[star], ys[star]
        x0, y0 = int(np.round(x)), int(np.round(y))
        light = area = 0.0
        count = 0
        for j in range(max(0, y0 - reach), min(height, y0 + reach + 1)):
            for i in range(max(0, x0 - reach), min(width, x0 + reach + 1)):
                radius = np.sqrt((i - x) ** 2 + (j - y) ** 2)
                weight = min(max(inner + 0.5 - radius, 0.0), 1.0)
                light += weight * plane[j, i]
                area += weight
                if begin <= radius <= end:
                    ring[count] = plane[j, i]
                    count += 1
        local, _, used = clipped_stats(ring[:count])
        complete = area > 0.98 * np.pi * inner * inner
        if used >= 8 and complete:
            flux = light - area * local
            fluxes[star] = flux
            errors[star] = np.sqrt(max(flux, 0.0) / gain + area * noise * noise * (1.0 + area / used))
    return fluxes, errors
