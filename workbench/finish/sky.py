"""Where the sky is empty: light between the stars measured in cells, and sky kept apart from nebula.

`measure_sky` reduces the picture to cells free of stars; `find_sky` finds the cells that nothing shines in.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import ndimage, special

from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.parallel import in_threads
from ..core.statistics import mad_std
from ..stars.background import block_background
from .photometry import find_picture_stars
from .picture import check_picture, plane

_CELLS = 48  # cells along the shorter side, where the picture has pixels enough
_GROW = 4  # [cells] by which the nebula is widened
_WINDOW, _EXCESS = 5, 3.0  # cells together, and how many standard errors above the sky make them nebula
_CURVED_SKY = 0.25  # share of cells that must show sky before a curved surface is trusted
_LITTLE_SKY = 0.15  # share below which any surface is doubtful


def measure_sky(picture: xr.Dataset, stars: xr.Dataset | None = None, *, cell: int | None = None) -> xr.Dataset:
    """Measure the light between the stars in cells: clipped mean per cell and channel, with its error.

    Stars are masked out to where their wings sink below the noise of a cell, then each cell is clipped at three
    standard deviations.  The error is that of the variance (where there is none: of the scatter within the cell),
    scaled up by the scatter between neighbouring cells where that is larger.

    Parameters
    ----------
    stars
        From `find_picture_stars`; found when not given.
    cell
        Side of a cell [px]; by default 1/48 of the shorter side, 8 to 64 pixels.

    Returns
    -------
    Dataset over (channel, y, x) of the cells, y and x their centres [px]: ``level``, ``error``.
    """
    check_picture(picture)
    signal = picture["signal"].values
    height, width = signal.shape[1:]
    cell = int(np.clip(min(height, width) // _CELLS, 8, 64)) if cell is None else int(cell)
    if not 4 <= cell <= min(height, width) // 4:
        raise WorkbenchError(
            f"cells of {cell} pixels do not suit a picture of {height} x {width}: 4 to {min(height, width) // 4} do"
        )
    stars = find_picture_stars(picture) if stars is None else stars
    masked = star_mask(stars, (height, width))

    def measure(channel: int) -> tuple[np.ndarray, np.ndarray]:
        free = np.where(masked, np.float32(np.nan), signal[channel])
        level, noise = block_background(free, cell)
        count = _cell_means(np.isfinite(free), level.shape) * cell**2
        enough = count > max(5, 0.05 * cell**2)
        level = np.where(enough, level, np.nan).astype(float)
        if "variance" in picture:
            noise = np.sqrt(_cell_means(picture["variance"].values[channel], level.shape))
        error = np.where(enough, noise / np.sqrt(np.maximum(count, 1)), np.nan).astype(float)
        # data without noise have an error all the same: the last bits of float32
        error = np.maximum(error, 1e-6 * np.nanmax(np.abs(level)) if enough.any() else 0)
        return level, error * _excess(level, error)

    levels, errors = map(np.array, zip(*in_threads(measure, range(len(signal))), strict=True))
    rows, columns = levels[0].shape
    units = picture.attrs.get("units", "")
    return xr.Dataset(
        {
            "level": plane(levels, "sky level between the stars", units=units),
            "error": plane(errors, "standard error", units=units),
        },
        coords={
            "channel": picture["channel"].values,
            "y": ("y", (np.arange(rows) + 0.5) * height / rows - 0.5, {"units": "pix"}),
            "x": ("x", (np.arange(columns) + 0.5) * width / columns - 0.5, {"units": "pix"}),
        },
        attrs={"units": units, "cell": cell, "height": height, "width": width, "masked": float(masked.mean())},
    )


def star_mask(stars: xr.Dataset, shape: tuple[int, int], *, depth: float = 0.05, least: float = 2.0) -> np.ndarray:
    """Return where stars shine, boolean (y, x): discs that grow with the star's brightness.

    Radius: where a Moffat profile of β = 3 falls below `depth` of a pixel's noise, not less than `least` FWHM.
    """
    out = np.zeros(shape, bool)
    if not stars.sizes["star"]:
        return out
    fwhm = np.nan_to_num(stars["fwhm"].values, nan=stars.attrs["searched_fwhm"])
    fwhm = np.minimum(fwhm, 4 * stars.attrs["searched_fwhm"])
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    ratio = np.maximum(stars["peak"].values, 0) / (depth * max(stars.attrs["noise"], 1e-30))
    radius = np.maximum(least * fwhm, alpha * np.sqrt(np.maximum(ratio, 1) ** (1 / 3) - 1))
    _discs(out, stars["x"].values, stars["y"].values, np.minimum(radius, 0.1 * min(shape)))
    return out


@kernel()
def _discs(out, xs, ys, radii):
    """Set `out` (y, x) within each star's radius [px], where it has one."""
    for star in np.flatnonzero(radii > 0):
        radius = radii[star]
        for j in range(max(0, int(ys[star] - radius)), min(out.shape[0], int(ys[star] + radius) + 2)):
            for i in range(max(0, int(xs[star] - radius)), min(out.shape[1], int(xs[star] + radius) + 2)):
                if (j - ys[star]) ** 2 + (i - xs[star]) ** 2 <= radius * radius:
                    out[j, i] = True


def _cell_means(values: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Mean of each cell, laid out as `block_background` lays them."""
    rows, columns = (np.arange(n) * size // n for n, size in zip(cells, values.shape, strict=True))
    summed = np.add.reduceat(np.add.reduceat(values, columns, axis=1, dtype=np.float32), rows, axis=0)
    sizes = np.diff(np.append(rows, values.shape[0]))[:, None] * np.diff(np.append(columns, values.shape[1]))
    return summed / sizes


def _excess(level: np.ndarray, error: np.ndarray) -> float:
    """How much larger the scatter between neighbours is than the error says; second differences hide gradients."""
    pairs = ((level, error), (level.T, error.T))
    ratio = np.concatenate([(np.diff(v, 2, axis=0) / (np.sqrt(6.0) * e[1:-1])).ravel() for v, e in pairs])
    ratio = ratio[np.isfinite(ratio)]
    return max(1.0, float(mad_std(ratio, centre=0))) if ratio.size > 10 else 1.0


def find_sky(sky: xr.Dataset, *, degree: int | str = "auto") -> xr.Dataset:
    """Find the cells of empty sky: fit a polynomial to the cells that nothing shines in.

    A cell's level is modelled as polynomial + noise, and in some cells an exponentially distributed excess on top
    (nebula, unresolved stars): a mixture, whose likelihood is climbed by expectation and maximisation (Dempster,
    Laird and Rubin 1977) from a fit to the lower envelope (quantile regression, Koenker and Bassett 1978).  Cells
    more likely nebula than sky, in any channel, grow by four cells to take in their faint wings; what is left is sky.

    Parameters
    ----------
    degree
        1 to 4, or ``auto``: the least that finds three quarters as much sky as the best one does; the plane where
        less than a quarter is sky, because a curved surface would follow the nebula.

    Returns
    -------
    Dataset: ``is_sky`` (y, x); attributes ``degree``, ``sky_share``, ``warnings``.

    Raises
    ------
    WorkbenchError
        If there are too few cells to fit.
    """
    if degree != "auto" and degree not in (1, 2, 3, 4):
        raise WorkbenchError(f"the degree of a background polynomial is 1, 2, 3, 4 or 'auto'; got {degree!r}")
    whole = np.isfinite(sky["level"].values).all(axis=0)
    if whole.sum() < 30:
        raise WorkbenchError(
            f"only {int(whole.sum())} cells between the stars can be measured: too few for a background;"
            " use smaller cells, or finish without background removal"
        )
    tried = {number: _mixture(sky, whole, number) for number in ((1, 2, 3) if degree == "auto" else (int(degree),))}
    shares = {number: float(is_sky.sum() / whole.sum()) for number, is_sky in tried.items()}
    best, chosen, cautions = max(shares.values()), min(tried), []
    if len(tried) > 1 and best >= _CURVED_SKY:
        chosen = min(number for number, share in shares.items() if share >= 0.75 * best)
    if shares[chosen] < _LITTLE_SKY:
        share = f"only {shares[chosen]:.0%}" if shares[chosen] >= 0.01 else "almost no part"
        cautions.append(
            f"{share} of the picture looks like empty sky: the background model is a lower envelope"
            " and may hold part of a nebula that fills the frame; place samples by hand if you know better"
        )
    return xr.Dataset(
        {"is_sky": (("y", "x"), tried[chosen], {"long_name": "cells of empty sky"})},
        coords={"y": sky["y"], "x": sky["x"]},
        attrs={"degree": chosen, "sky_share": shares[chosen], "warnings": cautions},
    )


def polynomial_terms(
    sky: xr.Dataset, degree: int, y: np.ndarray | None = None, x: np.ndarray | None = None
) -> np.ndarray:
    """Return the polynomial's terms (..., term) at cell centres, or on the grid of given pixel positions."""
    y, x = sky["y"].values if y is None else y, sky["x"].values if x is None else x
    v = (2 * (y + 0.5) / sky.attrs["height"] - 1)[:, None]
    u = (2 * (x + 0.5) / sky.attrs["width"] - 1)[None, :]
    return np.stack([u ** (order - j) * v**j for order in range(degree + 1) for j in range(order + 1)], axis=-1)


def least_squares(terms: np.ndarray, level: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the coefficients of weighted least squares.

    By the normal equations: the terms are few and of order one, and a picture asks for hundreds of fits.
    """
    weighted = terms / (error * error)[:, None]
    try:
        return np.linalg.solve(weighted.T @ terms, weighted.T @ level)
    except np.linalg.LinAlgError:  # samples on one line: the least of all that fit
        return np.linalg.lstsq(terms / error[:, None], level / error, rcond=None)[0]


def _mixture(sky: xr.Dataset, whole: np.ndarray, degree: int) -> np.ndarray:
    """The cells that are sky for a polynomial of this degree, boolean (y, x)."""
    terms = polynomial_terms(sky, degree)
    channels = list(zip(sky["level"].values, sky["error"].values, strict=True))
    doubts = np.zeros((len(channels), *whole.shape))
    for doubt, (level, error) in zip(doubts, channels, strict=True):
        doubt[whole] = 1 - _sky_probability(terms[whole], level[whole], error[whole])
    # single doubtful cells are chance or a faint star: left out, but nebula is what hangs together
    nebula = (ndimage.uniform_filter(doubts, (0, 3, 3), mode="nearest") > 0.5).any(axis=0)
    least = max(12, 3 * terms.shape[-1])
    left = whole & ~nebula
    if left.sum() < least:  # nebula everywhere: the cells that the envelope touches
        total = doubts.sum(axis=0)
        return whole & (total <= np.sort(total[whole])[min(least, int(whole.sum()) - 1)])
    for _ in range(20):
        wide = whole & (ndimage.distance_transform_edt(~nebula) > _GROW)
        left = wide if wide.sum() >= least else left & ~nebula
        if left.sum() < least:
            break
        found = np.zeros(whole.shape, bool)
        for level, error in channels:
            excess = np.where(left, (level - terms @ least_squares(terms[left], level[left], error[left])) / error, 0)
            # faint wings lie below the noise of one cell, not below that of five by five
            total = ndimage.uniform_filter(excess, _WINDOW, mode="constant") * _WINDOW**2
            count = ndimage.uniform_filter(left.astype(float), _WINDOW, mode="constant") * _WINDOW**2
            found |= left & (total > _EXCESS * np.sqrt(np.maximum(count, 1)))
            found |= left & (np.abs(excess) > 4)
        if not found.any():
            break
        nebula |= found & (ndimage.uniform_filter(found.astype(float), 3) > 0.3)
        whole = whole & ~found
    return left & ~nebula & whole


def _sky_probability(terms: np.ndarray, level: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Each cell's probability of being sky, from the mixture of `find_sky`."""
    typical = float(np.median(error))
    fit = least_squares(terms, level, np.ones_like(level))
    for _ in range(60):  # the quarter quantile's surface, by reweighting
        residual = level - terms @ fit
        weight = np.where(residual > 0, 0.25, 0.75) / np.maximum(np.abs(residual), typical)
        fit = least_squares(terms, level, 1 / np.sqrt(weight))
    residual = level - terms @ fit
    share, scale = 0.5, max(float(np.clip(residual, 0, None).mean()), 3 * typical)
    probability = np.ones(level.shape)
    for _ in range(300):
        residual = level - terms @ fit
        z = residual / error
        sky = np.log(share) - 0.5 * z**2 - np.log(error * np.sqrt(2 * np.pi))
        nebula = np.log1p(-share) - np.log(scale) + 0.5 * (error / scale) ** 2 - residual / scale
        nebula += special.log_ndtr(z - error / scale)
        probability = special.expit(sky - nebula)
        share = float(np.clip(probability.mean(), 0.02, 0.98))
        excess = (1 - probability) * np.clip(residual, 0, None)
        scale = max(float(excess.sum() / max((1 - probability).sum(), 1e-9)), 2 * typical)
        new = least_squares(terms, level, error / np.sqrt(np.maximum(probability, 1e-12)))
        moved = np.max(np.abs(terms @ (new - fit)))
        fit = new
        if moved < 1e-3 * typical:
            break
    return probability
