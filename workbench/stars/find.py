"""The stars of a frame as a table."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError
from .background import block_background, subtract
from .search import extract, search_deeper, typical_sigma
from .shapes import FWHM_PER_SIGMA, intrinsic, measure, photometry

_ENOUGH = 40  # with fewer stars found, look deeper
_LEAST_MEASURED = 15  # stars that tell a frame's width and roundness, where there are so many
_CENTROID_FLOOR = 0.02  # pixels of the searched plane: what sampling leaves at a width (sigma) of 0.9 of them


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
    subtract(plane, level, flat_sky)
    objects, hot = extract(flat_sky, noise, threshold)
    start = typical_sigma(objects)
    deeper = objects.size < _ENOUGH
    if deeper:
        objects, hot, start, flat_sky = search_deeper(flat_sky, noise, threshold, objects, hot, start)
    detected = objects.size
    objects = objects[np.argsort(-objects["flux"], kind="stable")][:limit]
    sigma = max(start, 0.9)
    for _ in range(2):  # the weight follows the frame's own stars
        measured = np.full((objects.size, 8), np.nan)
        measure(flat_sky, objects["x"].copy(), objects["y"].copy(), sigma, noise, gain, measured)
        own = intrinsic(measured, sigma)
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
    photometry(
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


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else np.nan
