"""What may be a star: objects above the noise, less hot pixels, bad lines and what whole rows share."""

from __future__ import annotations

import numba
import numpy as np
import sep
from scipy.ndimage import gaussian_filter

from ..core.errors import WorkbenchError
from .background import block_background, clipped_stats

_SMOOTHING = (1.0, 2.0, 3.0)  # px: widths of the matched filters of the deeper search
# A star spreads light into the eight neighbours of its brightest pixel.  Even at a FWHM of 1.5 pixels, centred,
# the eight hold 0.35 of the peak; a hot pixel leaves them at the background.
_NEIGHBOURS = 0.3


def extract(flat_sky: np.ndarray, noise: float, threshold: float, least_pixels: int = 4) -> tuple[np.ndarray, int]:
    """Return what stands out of the noise (sep's table), less single pixels and lines, and how many of these were."""
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


def search_deeper(flat_sky, noise, threshold, objects, hot, start):
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
        found, _ = extract(smooth, smooth_noise, 0.75 * threshold, least_pixels=max(5, int(3 * sigma**2)))
        # The filter that suits the stars makes them stand out most.
        score = float(np.sort(found["peak"])[-30:].sum()) / smooth_noise
        if found.size > least and score > best:
            best = score
            objects, hot, start, flat_sky = found, spikes, sigma, cleaned
    return objects, hot, start, flat_sky


def typical_sigma(objects: np.ndarray) -> float:
    """Return a starting width [px of the plane] from the brighter half's isophotal moments."""
    if not objects.size:
        return 1.0
    bright = objects[: max(10, objects.size // 2)]
    return float(np.clip(np.median(np.sqrt(np.abs(bright["a"] * bright["b"]))), 0.6, 6.0))
