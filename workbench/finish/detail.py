"""Detail of a linear picture by its own variance: noise taken out, and the blur measured on the stars undone.

Every step is off until asked for, takes a strength from 0 to 1, and can be looked at with `removed`: what it took.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import xarray as xr
from scipy import fft, ndimage
from tqdm.auto import tqdm

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.parallel import in_threads
from ..core.statistics import mad_std
from ..stars.find import FWHM_PER_SIGMA
from .photometry import bright_stars, find_picture_stars
from .picture import check_picture, check_strength, in_bands, note, plane
from .sky import star_mask

# [σ] a coefficient must exceed to be kept, one a scale of the starlet transform: 2 to 16 px
_THRESHOLDS = (4.5, 4.0, 3.25, 2.5)
_WINGS = 0.5  # [σ of a pixel]: a star ends, for the denoise, where its wings fall below it
_TILE = 768  # [px] deconvolved at a time
_DAMPING = 3.0  # [σ]: residuals below it do not sharpen
_B3 = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)  # the starlet's spline (Starck and Murtagh)


def noise_model(signal: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Fit variance = a · signal + b to a picture's own variance: (a, b) of one channel.

    a is what one electron of signal adds (the inverse of the stack's gain in its own units), b the variance of the
    empty sky: its light, read noise and dark current.  Medians in classes of signal, so that no star leads the fit.
    Where no photon noise can be seen, a is 0 and b the median variance.

    Examples
    --------
    >>> s = np.linspace(0, 1000, 10_000, dtype="float32").reshape(100, 100)
    >>> a, b = noise_model(s, 0.05 * s + 3)
    >>> round(a, 4), round(b, 3)
    (0.05, 3.0)
    """
    step = max(1, int(math.sqrt(signal.size / 500_000)))
    s, v = signal[::step, ::step].ravel().astype(float), variance[::step, ::step].ravel().astype(float)
    good = np.isfinite(s) & np.isfinite(v) & (v > 0)
    if good.sum() < 100:
        raise WorkbenchError("this picture's variance is missing or zero nearly everywhere: no denoise by it")
    order = np.argsort(s[good], kind="stable")
    s, v = s[good][order], v[good][order]
    # classes from the sky upwards, the brighter half of the pixels in ever finer ones
    shares = np.concatenate([np.linspace(0.05, 0.95, 19), 1 - np.geomspace(0.04, 20 / s.size, 10)])
    edges = np.unique((shares * s.size).astype(int))
    x, y = np.array([(np.median(s[i:j]), np.median(v[i:j])) for i, j in itertools.pairwise(edges) if j - i > 4]).T
    if np.ptp(y) > 1e-6 * y.max():  # a slope of the last bits is not photon noise
        a, b = np.polyfit(x, y, 1, w=1 / y)
        if a > 0 and b > 0:
            return float(a), float(b)
    return 0.0, float(np.median(v))


def stabilise(signal: np.ndarray, a: float, b: float) -> np.ndarray:
    """Return the generalised Anscombe transform, 0 at signal 0: noise of variance a·s + b becomes noise of variance 1.

    T(s) = (2/a)(√(a·s + c) - √c) with c = b + 3a²/8 (Murtagh, Starck and Bijaoui 1995, A&AS 112, 179), written as
    2s/(√(a·s + c) + √c), which is exact for any a down to 0.
    """
    c = np.float32(b + 0.375 * a * a)
    lowest = np.maximum(np.float32(a) * signal + c, np.float32(1e-12) * c)
    return 2 * signal / (np.sqrt(lowest, dtype=np.float32) + np.sqrt(c))


def unstabilise(values: np.ndarray, a: float, b: float) -> np.ndarray:
    """Return the signal that `stabilise` takes to these values: s = √c·T + a·T²/4.

    Of a mean of transformed noise it gives a value that is a/4 too low (the unbiased inverse of Mäkitalo and Foi
    2013, IEEE TIP 22, 91, has 1/8 for 3/8 far from zero); `denoise` adds that for the share of noise taken out.

    Examples
    --------
    >>> s = np.array([-1.0, 0.0, 50.0], "float32")
    >>> np.round(unstabilise(stabilise(s, 0.1, 2.0), 0.1, 2.0), 3).tolist()
    [-1.0, 0.0, 50.0]
    """
    c = b + 0.375 * a * a
    return np.float32(math.sqrt(c)) * values + np.float32(a / 4) * values * values


def denoise(picture: xr.Dataset, *, strength: float = 0.5, stars: xr.Dataset | None = None) -> xr.Dataset:
    """Denoise a linear picture as its own variance says: noise goes, what stands out of it stays.

    Each channel is stabilised (`stabilise`, with a and b fitted to the variance), and what the variance map knows
    beyond that (coverage, the flat's noise) is divided out.  The starlet transform (Starck and Murtagh 2006) splits
    it into four scales; the noise of each scale is measured there, since a stack's noise is correlated by resampling.
    Coefficients below 2.5 to 4.5 σ of their scale lose the share `strength`; those above stay as they are.  The
    `stars` are taken out before and left as they are: the faint dark rings that wavelets draw around a point would
    otherwise be taken for noise, and the star would gain light.  scikit-image's wavelets and non-local means, on the
    same stabilised picture, end further from the truth (docs/benchmarks-denoise.md).

    Apply it before the colours are mixed: the channels' noise is independent then.  The variance is kept as it
    was: that of a pixel without the smoothing, an upper limit.

    Raises
    ------
    WorkbenchError
        If the picture has no variance, or the strength is not 0 to 1.
    """
    check_picture(picture)
    check_strength(strength)
    if "variance" not in picture:
        raise WorkbenchError(
            "this picture has no variance to weigh a denoise by; stack with the workbench, which keeps it"
        )
    signal, variance = picture["signal"].values, picture["variance"].values
    scales = min(len(_THRESHOLDS), int(math.log2(min(signal.shape[1:]) / 4)))
    stars = find_picture_stars(picture) if stars is None else stars
    masked = star_mask(stars, signal.shape[1:], depth=_WINGS, least=0.0)
    fade = 0.25 * float(np.nan_to_num(stars.attrs.get("searched_fwhm", np.nan), nan=4.0))
    planes = zip(signal, variance, strict=True)
    calm, shares = zip(*(_denoise_plane(*own, masked, strength, scales, fade) for own in planes), strict=True)
    return note(
        picture.assign(signal=plane(np.stack(calm), "signal")),
        f"Denoise: strength {strength:g} on {scales} scales, weighted by the variance, stars left alone; noise of a"
        f" pixel between them lowered to {', '.join(f'{share:.0%}' for share in shares)}.",
    )


def _denoise_plane(
    signal: np.ndarray, variance: np.ndarray, masked: np.ndarray, strength: float, scales: int, fade: float
) -> tuple[np.ndarray, float]:
    """One channel (y, x) denoised, and the share of its noise that is left; `fade` [px] softens the stars' edges."""
    a, b = noise_model(signal, variance)
    missing = ~(np.isfinite(signal) & np.isfinite(variance) & (variance > 0))
    apart = masked | missing
    if apart.mean() > 0.95:
        return signal, 1.0
    known = np.where(missing, np.float32(0), signal)
    # where the variance is larger than the model's (fewer frames), a coefficient must stand out by more
    expected = np.maximum(np.float32(a) * np.maximum(known, 0) + np.float32(b), np.float32(1e-30))
    excess = np.sqrt(np.where(missing, expected, variance) / expected)
    excess = ndimage.uniform_filter(excess, 9, mode="nearest")
    stable = stabilise(known, a, b)
    rest = _without(stable, apart)
    free = ~apart
    taken = np.zeros_like(stable)
    step = max(1, min(signal.shape) // 1024)
    for scale in range(scales):
        kernel = np.zeros(2 ** (scale + 2) + 1, np.float32)
        kernel[:: 2**scale] = _B3
        coarser = ndimage.convolve1d(rest, kernel, axis=0, mode="mirror")
        coarser = ndimage.convolve1d(coarser, kernel, axis=1, mode="mirror")
        detail = rest - coarser
        ratio = detail / excess
        sigma = float(mad_std(ratio[::step, ::step][free[::step, ::step]].astype(float), centre=0))
        limit = _THRESHOLDS[scale] * sigma
        in_bands(partial(_shrink, detail, ratio, limit, strength, taken), len(detail))
        rest = coarser
    taken *= ndimage.gaussian_filter(free.astype(np.float32), fade, mode="nearest") * free
    # the transform's own inverse on both sides: what is not touched comes back as it was.  A mean in the
    # stabilised domain lies low by a/4 of the noise variance taken out (the exact unbiased inverse, see below)
    result = signal + (unstabilise(stable - taken, a, b) - unstabilise(stable, a, b))
    before, after = (
        float(mad_std(np.diff(values[::4], axis=1)[free[::4, 1:] & free[::4, :-1]], centre=0))
        for values in (stable, stable - taken)
    )
    share = after / before if before else 1.0
    result += np.float32(0.25 * a * (1 - share**2)) * (taken != 0)
    return np.where(missing, signal, result).astype(np.float32), share


def _without(values: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """The values with stars and holes replaced by the mean of what surrounds them, near first, then wider."""
    out = np.where(apart, np.float32(0), values)
    weight = (~apart).astype(np.float32)
    filled = out.copy()
    left = apart
    for sigma in (4, 16, 64, 256):
        if not left.any():
            break
        near = ndimage.gaussian_filter(weight, sigma, mode="nearest", truncate=3)
        level = ndimage.gaussian_filter(out, sigma, mode="nearest", truncate=3)
        found = left & (near > 0.02)
        filled[found] = level[found] / near[found]
        left = left & ~found
    filled[left] = np.median(values[~apart])
    return filled


@kernel()
def _shrink(detail, ratio, limit, strength, taken, rows):
    """Add to `taken` (y, x) in some `rows` what is to go: all of a small coefficient, nothing of a large one."""
    for row in range(rows.start, rows.stop):
        for column in range(detail.shape[1]):
            size = abs(ratio[row, column])
            if size < limit:
                # the share kept rises smoothly towards the threshold: no edge at it
                keep = (size / limit) ** 4
                taken[row, column] += strength * (1.0 - keep) * detail[row, column]


def measure_psf(picture: xr.Dataset, stars: xr.Dataset) -> xr.DataArray:
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
    chosen = bright_stars(stars, picture["signal"].shape[1:], apart=8.0)
    if chosen.sizes["star"] < 3:
        raise WorkbenchError(
            f"{chosen.sizes['star']} unsaturated, isolated stars are too few to measure a point spread function;"
            " finish without deconvolution"
        )
    fwhm = float(np.median(chosen["fwhm"].values))
    reach = int(np.ceil(4 * fwhm))
    radius = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    fade = np.clip((reach - radius) / (0.25 * reach), 0, 1)
    out = []
    for values in picture["signal"].values:
        stamps = []
        for x, y in zip(chosen["x"].values, chosen["y"].values, strict=True):
            x0, y0, margin = round(x), round(y), reach + 2
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
        If the variance is missing, or a number is out of its range.
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
    fwhm, overlap = float(psf.attrs["fwhm"]), psf.sizes["y"] // 2 * 2
    share = np.float32(strength) * (1 - _frozen(picture, fwhm))
    out = np.empty_like(signal)
    models = [noise_model(*planes) for planes in zip(signal, variance, strict=True)]
    edges = (np.linspace(0, size, max(1, round(size / _TILE)) + 1).astype(int) for size in signal.shape[1:])
    jobs = list(itertools.product(range(len(signal)), *(itertools.pairwise(ends) for ends in edges)))

    def work(job: tuple) -> None:
        channel, *tile = job
        begins = [max(start - overlap, 0) for start, _ in tile]
        wide = tuple(slice(begin, stop + overlap) for begin, (_, stop) in zip(begins, tile, strict=True))
        sharp = _richardson_lucy(signal[channel][wide], psf.values[channel], models[channel], iterations, fwhm)
        inner = tuple(slice(start - begin, stop - begin) for begin, (start, stop) in zip(begins, tile, strict=True))
        box = tuple(slice(*ends) for ends in tile)
        own = signal[channel][box]
        out[channel][box] = own + share[box] * (sharp[inner] - own)

    done = in_threads(work, jobs)
    for _ in tqdm(done, "deconvolving", len(jobs), unit="tile", delay=2, leave=False, disable=not progress):
        pass
    return note(
        picture.assign(signal=plane(out, "signal")),
        f"Deconvolution: Richardson-Lucy, {iterations} iterations damped at {_DAMPING:g} σ, strength {strength:g}, "
        f"point spread function of {psf.attrs['stars']} stars, FWHM {fwhm:.2f} px.",
    )


def _frozen(picture: xr.Dataset, fwhm: float) -> np.ndarray:
    """Where a deconvolution changes nothing, 0 to 1 (y, x): around missing and clipped pixels."""
    keep = ~np.isfinite(picture["signal"].values).all(axis=0)
    if "saturated" in picture:
        keep |= (picture["saturated"].values > 0).any(axis=0)
    if not keep.any():
        return np.zeros(keep.shape, np.float32)
    wide = ndimage.binary_dilation(keep, iterations=max(1, round(1.5 * fwhm))).astype(np.float32)
    return ndimage.gaussian_filter(wide, fwhm / FWHM_PER_SIGMA)


def _richardson_lucy(
    signal: np.ndarray, psf: np.ndarray, noise: tuple[float, float], iterations: int, fwhm: float
) -> np.ndarray:
    """One tile (y, x), mirrored at its edges; missing pixels come back as they were.  `noise`: see `noise_model`."""
    a, b = noise
    a = a or 0.01 * float(np.sqrt(b))  # no photon noise to be seen: a constant one, far from zero
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
        spectrum = fft.rfft2(values, s=shape)
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
