"""Detail: noise taken out where the variance says it is noise; stars and contrast on the screen's scale.

Every step is off until asked for, takes a strength from 0 to 1, and can be looked at with `removed`: what it took.
"""

from __future__ import annotations

import itertools
import math

import numba
import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.errors import WorkbenchError
from ..core.values import attribute_lines
from .photometry import find_picture_stars
from .picture import check_picture, in_bands, luminance, note, plane
from .sky import star_mask

SCALES = 4  # of the starlet transform: structures up to 2^4 px
_THRESHOLDS = (4.5, 4.0, 3.25, 2.5)  # [σ] a coefficient must exceed to be kept, fine to coarse
_WINGS = 0.5  # [σ of a pixel]: a star ends, for the denoise, where its wings fall below it
_B3 = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)  # the starlet's spline (Starck and Murtagh)


def removed(before: xr.Dataset, after: xr.Dataset) -> xr.Dataset:
    """Return what a step took away: before - after, as a picture to look at, with its stage.

    Noise taken out looks like noise.  Stars, rings or a nebula in it are what the step destroyed.
    """
    check_picture(before, stage=None), check_picture(after, stage=before.attrs.get("stage", "stacked"))
    if before["signal"].shape != after["signal"].shape:
        raise WorkbenchError(
            f"pictures of {before['signal'].shape} and {after['signal'].shape} have no difference: compare before and"
            " after one step"
        )
    difference = before["signal"].values - after["signal"].values
    steps = attribute_lines(after.attrs, "history")[len(attribute_lines(before.attrs, "history")) :]
    return xr.Dataset(
        {"signal": plane(difference, "what was removed", units=before.attrs.get("units", ""))},
        coords={"channel": before["channel"]},
        attrs={**before.attrs, "history": [f"Removed by: {step}" for step in steps]},
    )


def noise_model(signal: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Fit variance = a · signal + b to a picture's own variance: (a, b) of one channel.

    a is what one electron of signal adds (the inverse of the stack's gain in its own units), b the variance of the
    empty sky: its light, read noise and dark current.  Medians in classes of signal, so that no star leads the fit.

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
        raise WorkbenchError("this picture's variance is missing or zero nearly everywhere: it cannot steer a denoise")
    s, v = s[good], v[good]
    order = np.argsort(s, kind="stable")
    s, v = s[order], v[order]
    # classes from the sky upwards, the brighter half of the pixels in ever finer ones
    shares = np.concatenate([np.linspace(0.05, 0.95, 19), 1 - np.geomspace(0.04, 20 / s.size, 10)])
    edges = np.unique((shares * s.size).astype(int))
    middles = np.array([(np.median(s[i:j]), np.median(v[i:j])) for i, j in itertools.pairwise(edges) if j - i > 4])
    x, y = middles.T
    weight = 1 / y
    a, b = np.polyfit(x, y, 1, w=weight)
    sky = float(np.median(v))
    if not np.isfinite(a) or a <= 0 or b <= 0:  # no photon noise to be seen
        return 0.0, sky
    return float(a), float(b)


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


def denoise(
    picture: xr.Dataset, *, strength: float = 0.5, scales: int = SCALES, stars: xr.Dataset | None = None
) -> xr.Dataset:
    """Denoise a linear picture as its own variance says: noise goes, what stands out of it stays.

    Each channel is stabilised (`stabilise`, with a and b fitted to the variance), and what the variance map knows
    beyond that (coverage, the flat's noise) is divided out.  The starlet transform (Starck and Murtagh 2006) splits
    it into `scales`; the noise of each scale is measured there, since a stack's noise is correlated by resampling.
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
    _check_strength(strength)
    if "variance" not in picture:
        raise WorkbenchError(
            "this picture has no variance to weigh a denoise by; stack with the workbench, which keeps it"
        )
    if not 1 <= scales <= 8:
        raise WorkbenchError(f"a denoise has 1 to 8 scales; got {scales}")
    signal, variance = picture["signal"].values, picture["variance"].values
    scales = min(scales, int(math.log2(min(signal.shape[1:]) / 4)))
    stars = find_picture_stars(picture) if stars is None else stars
    masked = star_mask(stars, signal.shape[1:], depth=_WINGS, least=0.0)
    fade = 0.25 * float(np.nan_to_num(stars.attrs.get("searched_fwhm", np.nan), nan=4.0))
    out = np.empty_like(signal)
    shares = []
    for channel in range(len(signal)):
        out[channel], share = _denoise_plane(signal[channel], variance[channel], masked, strength, scales, fade)
        shares.append(share)
    return note(
        picture.assign(signal=plane(out, "signal")),
        f"Denoise: strength {strength:g} on {scales} scales, weighted by the variance, stars left alone; noise of a"
        f" pixel between them lowered to {', '.join(f'{share:.0%}' for share in shares)}.",
    )


def _denoise_plane(
    signal: np.ndarray, variance: np.ndarray, masked: np.ndarray, strength: float, scales: int, fade: float
) -> tuple[np.ndarray, float]:
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
        coarser = _smooth(rest, 2**scale)
        detail = rest - coarser
        ratio = detail / excess
        sigma = 1.4826 * float(np.median(np.abs(ratio[::step, ::step][free[::step, ::step]])))
        limit = _THRESHOLDS[min(scale, len(_THRESHOLDS) - 1)] * sigma
        in_bands(
            lambda rows, d=detail, r=ratio, t=limit: _shrink(d[rows], r[rows], t, strength, taken[rows]), len(detail)
        )
        rest = coarser
    taken *= ndimage.gaussian_filter(free.astype(np.float32), fade, mode="nearest") * free
    # the transform's own inverse on both sides: what is not touched comes back as it was.  A mean in the
    # stabilised domain lies low by a/4 of the noise variance taken out (the exact unbiased inverse, see below)
    result = signal + (unstabilise(stable - taken, a, b) - unstabilise(stable, a, b))
    before, after = (
        float(np.median(np.abs(np.diff(values[::4], axis=1)[free[::4, 1:] & free[::4, :-1]])))
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


def _smooth(values: np.ndarray, step: int) -> np.ndarray:
    """Convolve with the B3 spline whose taps lie `step` px apart, both ways."""
    kernel = np.zeros(4 * step + 1, np.float32)
    kernel[::step] = _B3
    return ndimage.convolve1d(ndimage.convolve1d(values, kernel, axis=0, mode="mirror"), kernel, axis=1, mode="mirror")


@numba.njit(nogil=True, cache=True)
def _shrink(detail, ratio, limit, strength, taken):
    """Add to `taken` what is to go: all of a small coefficient, nothing of a large one, smoothly between."""
    for row in range(detail.shape[0]):
        for column in range(detail.shape[1]):
            size = abs(ratio[row, column])
            if size < limit:
                # the share kept rises smoothly towards the threshold: no edge at it
                keep = (size / limit) ** 4
                taken[row, column] += strength * (1.0 - keep) * detail[row, column]


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise WorkbenchError(f"a strength lies between 0 (nothing) and 1; got {strength:g}")


def reduce_stars(picture: xr.Dataset, stars: xr.Dataset, *, strength: float = 0.3) -> xr.Dataset:
    """Make stars smaller on the stretched picture, so that they do not cover what lies behind.

    Inside soft discs around the `stars` (of the linear picture: `find_picture_stars`), each channel gives way by
    `strength` to its erosion (the darkest within half a FWHM): a star's rim becomes the sky or the nebula it lies
    on, in their colour, its core stays bright.  Their brightness is no longer measured light.
    """
    check_picture(picture, stage="stretched")
    _check_strength(strength)
    values = picture["signal"].values
    fwhm = stars.attrs.get("searched_fwhm", np.nan)
    if not stars.sizes["star"] or not np.isfinite(fwhm):
        return note(picture, "Star reduction: no stars found, nothing changed.")
    mask = star_mask(stars, values.shape[1:], depth=1.0).astype(np.float32)
    mask = ndimage.gaussian_filter(mask, 0.5 * fwhm)
    reach = max(1, round(0.5 * fwhm))
    v, u = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = u * u + v * v <= (reach + 0.5) ** 2
    changed = np.empty_like(values, np.float32)
    for level, out in zip(values, changed, strict=True):
        known = np.nan_to_num(level, nan=0.0)
        soft = ndimage.gaussian_filter(known, 0.35 * fwhm)  # a minimum of noise would be darker than the sky
        eroded = ndimage.grey_erosion(soft, footprint=disc, mode="nearest")
        eroded = np.minimum(ndimage.gaussian_filter(eroded, 0.25 * fwhm), known)
        out[:] = level - np.float32(strength) * mask * (known - eroded)
    return note(
        picture.assign(signal=plane(changed, "display value", units="1")),
        f"Star reduction: strength {strength:g}, {stars.sizes['star']} stars; their brightness is no longer measured.",
    )


def local_contrast(picture: xr.Dataset, *, strength: float = 0.2, radius: float | None = None) -> xr.Dataset:
    """Raise the contrast of structures up to `radius` [px] on the stretched picture, without halos around stars.

    Stars are first opened away from the brightness B; what is left moves away from its own mean over the radius,
    B' = B + 2 strength (C - mean C) 4B(1 - B), C the brightness without stars, and the channels follow by the same
    factor.  By default the radius is a twentieth of the shorter side.
    """
    check_picture(picture, stage="stretched")
    _check_strength(strength)
    values = picture["signal"].values
    level = np.nan_to_num(luminance(values), nan=0.0)
    radius = max(4.0, min(level.shape) / 20) if radius is None else float(radius)
    step = max(1, int(radius / 24))  # the mean over a wide radius needs no more than that
    height, width = (size // step * step for size in level.shape)
    calm = level[:height, :width].reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    calm = ndimage.grey_opening(calm, size=(7, 7), mode="nearest")
    calm = ndimage.gaussian_filter(calm, 2, mode="nearest")
    change = calm - ndimage.gaussian_filter(calm, radius / step, mode="nearest")
    rows, columns = ((np.arange(size) + 0.5) / step - 0.5 for size in level.shape)
    grid = np.meshgrid(rows.astype(np.float32), columns.astype(np.float32), indexing="ij", sparse=True)
    change = ndimage.map_coordinates(change, np.broadcast_arrays(*grid), order=1, mode="nearest")
    wanted = np.clip(level + np.float32(8 * strength) * change * level * (1 - level), 0, 1)
    changed = np.clip(values * (wanted / np.maximum(level, np.float32(1e-6))), 0, 1).astype(np.float32)
    return note(
        picture.assign(signal=plane(changed, "display value", units="1")),
        f"Local contrast: strength {strength:g}, radius {radius:.0f} px.",
    )
