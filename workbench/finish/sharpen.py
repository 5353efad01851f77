"""Deconvolution: the blur measured on the stars, undone where the noise allows, with its rings held in bounds."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr
from scipy import fft, ndimage
from tqdm.auto import tqdm

from ..core.errors import WorkbenchError
from ..stars.shapes import FWHM_PER_SIGMA
from .detail import noise_model
from .photometry import bright_stars
from .picture import check_picture, note, plane

_TILE = 768  # [px]
_DAMPING = 3.0  # [σ]: residuals below it do not sharpen


def measure_psf(picture: xr.Dataset, stars: xr.Dataset, *, count: int = 100) -> xr.DataArray:
    """Measure the point spread function: the median of the brightest unsaturated, isolated stars.

    Each is cut out, its local background subtracted, moved onto the pixel grid by cubic splines and scaled to
    the same flux.  The wings fade out towards the edge of the stamp, 4 FWHM from the middle.

    Returns
    -------
    DataArray (channel, y, x) of an odd number of pixels, each channel's sum 1; attributes ``fwhm`` [px], ``stars``.

    Raises
    ------
    WorkbenchError
        If fewer than three stars can be used.
    """
    check_picture(picture)
    chosen = bright_stars(stars, tuple(picture["signal"].shape[1:]), count=count, apart=8.0)
    if chosen.sizes["star"] < 3:
        raise WorkbenchError(
            f"{chosen.sizes['star']} unsaturated, isolated stars are too few to measure a point spread function;"
            " finish without deconvolution"
        )
    fwhm = float(np.median(chosen["fwhm"].values))
    reach = int(np.ceil(4 * fwhm))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    radius = np.hypot(u, v)
    fade = np.clip((reach - radius) / (0.25 * reach), 0, 1)
    out = []
    for values in picture["signal"].values:
        stamps = []
        for x, y in zip(chosen["x"].values, chosen["y"].values, strict=True):
            x0, y0 = round(x), round(y)
            margin = reach + 2
            cut = values[y0 - margin : y0 + margin + 1, x0 - margin : x0 + margin + 1].astype(float)
            if cut.shape != (2 * margin + 1,) * 2 or not np.isfinite(cut).all():
                continue
            stamp = ndimage.shift(cut, (y0 - y, x0 - x), order=3, mode="nearest")[2:-2, 2:-2]
            stamp -= np.median(stamp[radius > 0.85 * reach])
            total = stamp[radius < 2 * fwhm].sum()
            if total > 0:
                stamps.append(stamp / total)
        if len(stamps) < 3:
            raise WorkbenchError("fewer than three stars without missing pixels: no point spread function")
        psf = np.clip(np.median(stamps, axis=0), 0, None) * fade**2 * (3 - 2 * fade)
        out.append(psf / psf.sum())
    return xr.DataArray(
        np.array(out, np.float32),
        dims=("channel", "y", "x"),
        coords={"channel": picture["channel"].values},
        attrs={"fwhm": fwhm, "stars": int(chosen.sizes["star"]), "long_name": "point spread function"},
    )


def deconvolve(
    picture: xr.Dataset,
    psf: xr.DataArray,
    *,
    strength: float = 0.5,
    iterations: int = 15,
    progress: bool = True,
) -> xr.Dataset:
    """Sharpen a linear picture by damped Richardson-Lucy deconvolution, its rings held in bounds.

    The signal is lifted by b/a, with variance = a · signal + b fitted to the stack's own (`noise_model`): then it is
    a scaled Poisson variable, read noise and sky included (Snyder, Hammoud and White 1993), which is what
    Richardson and Lucy's iteration is the likelihood ascent of.  Residuals within 3 σ are damped (White 1994), so
    noise is not sharpened.  Around stars the result is kept from falling below the darkest level that the picture
    itself has nearby, less 1 σ, and, in the wings of what is five times brighter, from rising above the picture: no
    dark rings and no bright ones.  What a core gains is scaled to what is lost within 4 FWHM.  Clipped cores keep
    their shape.

    Parameters
    ----------
    psf
        From `measure_psf`.
    strength
        Share of the sharpened picture in the result.

    Raises
    ------
    WorkbenchError
        If there is no variance, or a number is out of its range.
    """
    check_picture(picture)
    if not 0 <= strength <= 1 or not 1 <= iterations <= 200:
        raise WorkbenchError(
            f"a deconvolution has a strength from 0 to 1 and 1 to 200 iterations; got {strength:g}, {iterations}"
        )
    if "variance" not in picture:
        raise WorkbenchError("this picture has no variance to regularise a deconvolution by; stack with the workbench")
    if psf.sizes["channel"] != picture.sizes["channel"]:
        raise WorkbenchError("this point spread function is of another picture: it has other channels")
    signal, variance = picture["signal"].values, picture["variance"].values
    keep = ~np.isfinite(signal).all(axis=0)
    if "saturated" in picture:
        keep |= (picture["saturated"].values > 0).any(axis=0)
    fwhm = float(psf.attrs["fwhm"])
    frozen = None
    if keep.any():
        frozen = ndimage.binary_dilation(keep, iterations=max(1, round(1.5 * fwhm))).astype(np.float32)
        frozen = ndimage.gaussian_filter(frozen, fwhm / FWHM_PER_SIGMA)
    out = np.empty_like(signal)
    jobs = []
    for channel in range(len(signal)):
        a, b = noise_model(signal[channel], variance[channel])
        if a <= 0:  # no photon noise to be seen: a constant one, far from zero
            a = 0.01 * float(np.sqrt(b))
        jobs += [(channel, a, b, box) for box in _tiles(signal.shape[1:])]
    overlap = psf.sizes["y"] // 2 * 2

    def work(job: tuple) -> None:
        channel, a, b, (rows, columns) = job
        wide = tuple(
            slice(max(s.start - overlap, 0), min(s.stop + overlap, size))
            for s, size in zip((rows, columns), signal.shape[1:], strict=True)
        )
        cut = signal[channel][wide]
        sharp = _richardson_lucy(cut, psf.values[channel], a, b, iterations, fwhm)
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip((rows, columns), wide, strict=True))
        share = np.float32(strength)
        if frozen is not None:
            share = share * (1 - frozen[rows, columns])
        own = signal[channel, rows, columns]
        out[channel, rows, columns] = own + share * (sharp[inner] - own)

    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        tqdm(total=len(jobs), desc="deconvolving", unit="tile", delay=2, leave=False, disable=not progress) as bar,
    ):
        for _ in pool.map(work, jobs):
            bar.update()
    return note(
        picture.assign(signal=plane(out, "signal")),
        f"Deconvolution: Richardson-Lucy, {iterations} iterations damped at {_DAMPING:g} σ, strength {strength:g}, "
        f"point spread function of {psf.attrs['stars']} stars, FWHM {fwhm:.2f} px.",
    )


def _tiles(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    edges = [np.linspace(0, size, max(1, round(size / _TILE)) + 1).astype(int) for size in shape]
    return [
        (slice(top, bottom), slice(left, right))
        for top, bottom in zip(edges[0][:-1], edges[0][1:], strict=True)
        for left, right in zip(edges[1][:-1], edges[1][1:], strict=True)
    ]


def _richardson_lucy(
    signal: np.ndarray, psf: np.ndarray, a: float, b: float, iterations: int, fwhm: float
) -> np.ndarray:
    """One tile, mirrored at its edges; missing pixels are filled by their surroundings and come back as they were."""
    missing = ~np.isfinite(signal)
    known = np.where(missing, np.float32(np.nanmedian(signal) if not missing.all() else 0), signal)
    lift = np.float32(b / a)
    counts = np.maximum((known + lift) / np.float32(a), np.float32(1e-3))
    pad = psf.shape[0] // 2
    counts = np.pad(counts, pad, mode="symmetric")
    shape = [fft.next_fast_len(size, real=True) for size in counts.shape]
    kernel = np.zeros(shape, np.float32)
    kernel[: psf.shape[0], : psf.shape[1]] = psf
    kernel = np.roll(kernel, (-pad, -pad), axis=(0, 1))
    transfer = fft.rfft2(kernel)
    whole = tuple(slice(0, size) for size in counts.shape)

    def blur(values: np.ndarray, back: bool) -> np.ndarray:
        filled = np.zeros(shape, np.float32)
        filled[whole] = values
        spectrum = fft.rfft2(filled)
        return fft.irfft2(spectrum * (np.conj(transfer) if back else transfer), s=shape)[whole]

    norm = np.maximum(blur(np.ones_like(counts), True), np.float32(1e-3))
    estimate = counts.copy()
    for _ in range(iterations):
        model = np.maximum(blur(estimate, False) / norm, np.float32(1e-3))
        # White's damping: U is the squared residual in units of the threshold, flat below one
        unlikely = np.float32(-2 / _DAMPING**2) * (counts * np.log(model / counts) - model + counts)
        unlikely = np.clip(unlikely, 0, 1)
        damping = unlikely**9 * (10 - 9 * unlikely)
        estimate *= np.maximum(1 + blur(damping * (counts - model) / model, True) / norm, np.float32(0.01))
    inner = tuple(slice(pad, pad + size) for size in signal.shape)
    sharp = estimate[inner] * np.float32(a) - lift
    calm = ndimage.gaussian_filter(known, fwhm / FWHM_PER_SIGMA, mode="nearest")
    size, sigma = 2 * round(1.5 * fwhm) + 1, np.float32(np.sqrt(b))
    floor = ndimage.minimum_filter(calm, size=size, mode="nearest") - sigma
    sharp = np.maximum(sharp, np.minimum(floor, known))
    lowest = floor + sigma
    size = 2 * round(3 * fwhm) + 1
    wing = calm - lowest < 0.2 * (ndimage.maximum_filter(calm, size=size, mode="nearest") - lowest)
    sharp = np.where(wing, np.minimum(sharp, known), sharp)
    # the light gathered into a core is what its surroundings gave: no more, no less
    change = sharp - known
    size = 2 * round(4 * fwhm) + 1
    given = ndimage.uniform_filter(np.maximum(-change, 0), size, mode="nearest")
    gained = ndimage.uniform_filter(np.maximum(change, 0), size, mode="nearest")
    change = np.where(change > 0, change * np.minimum(given / np.maximum(gained, np.float32(1e-9)), 2), change)
    return np.where(missing, signal, known + change)
