"""Charge that bright pixels push to their neighbours shows as covariance: the brighter-fatter effect, pair by pair."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import check_cube
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from ..core.pairs import BLOCKS, jackknife_error, leave_one_out
from ..core.parallel import counted, lazy_frames, stream_frames
from ..core.selection import at_iso, same_iso

LAGS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
_SIGMAS = 8.0


def neighbour_covariance(flat: xr.DataArray, ptc: xr.Dataset, gain: xr.Dataset, *, progress: Any = True) -> xr.Dataset:
    """Measure what the noise of neighbouring pixels has in common, in the brightest flats that the gain fit used.

    C_ij = a_ij μ_i μ_j in electrons (Astier et al., A&A 629, A36 (2019), at first order), from the product of
    neighbours in the pair's difference, each channel scaled to one level; the error is a jackknife over blocks of
    rows.  Charge is kept: what a pixel's variance loses, a₀₀ < 0, its neighbours have in common, so that
    a₀₀ = −Σ a_ij over all of them.  A curve that bends (`fit_curvature`) without such neighbours is not linear, or not
    the sensor's doing.

    Parameters
    ----------
    flat
        The raw flats that `ptc` was measured from.
    ptc, gain
        From `photon_transfer` and `fit_gain`.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over (iso, lag): ``coefficient`` a_ij [1/e⁻] and ``correlation`` of the difference, each with ``_error``; lags
        are in pixels of the mosaic, so that the nearest are of other colours.  Over iso: ``neighbours`` [1/e⁻], the
        sum over these and their mirror images, −a₀₀ if no charge goes farther, with ``_error``; ``signal`` [e⁻].

    Raises
    ------
    WorkbenchError
        If no pair was used for the gain.
    """
    check_cube(flat, stage="raw", kind="flat")
    names = flat["filename"].values.tolist()
    jobs = []
    for iso in np.unique(np.asarray(gain["iso"].values, float)):
        used = same_iso(ptc["iso"].values, iso) & gain["used"].values.all(axis=1)
        if used.any() and np.isfinite(at_iso(gain["gain"], iso)).all():
            signal = np.where(used, ptc["signal"].values.mean(axis=1), -np.inf)
            jobs.append((iso, np.flatnonzero(used & (ptc["level"].values == ptc["level"].values[signal.argmax()]))))
    if not jobs:
        raise WorkbenchError("no pair of flats gave a gain, so there is nothing to look for neighbours in")
    cell = channel_index(flat.attrs["cfa_pattern"])
    lazy = lazy_frames(flat)
    order = [
        names.index(ptc[name].values[i]) for _, pairs in jobs for i in pairs for name in ("filename_1", "filename_2")
    ]
    stream = counted(stream_frames(lazy[i] for i in order), progress, len(order))
    values: dict[str, list] = {name: [] for name in _VARIABLES}
    for iso, pairs in jobs:
        factor = at_iso(gain["gain"], iso)
        black = ptc["black_level"].values[pairs[0]]
        sums = sum(_products(next(stream), next(stream), cell, black, factor) for _ in pairs)
        # of the difference of two frames, hence the half; a is per product of the two pixels' charges
        whole, parts = sums.sum(axis=0), leave_one_out(sums, axis=0)
        for name, of in (
            ("coefficient", lambda s: s[..., 0] / s[..., 1] / 2),
            ("correlation", lambda s: s[..., 0] / s[..., 2]),
            ("neighbours", lambda s: (s[..., 0] / s[..., 1]).sum(axis=-1)),
        ):
            values[name].append(of(whole))
            values[f"{name}_error"].append(jackknife_error(of(parts)))
        values["signal"].append(float(np.sqrt((whole[:, 1] / whole[:, 3]).mean())))
    for _ in stream:  # lets the bar close
        pass
    data = {
        name: (("iso", "lag")[: np.ndim(values[name])], np.array(values[name]), attrs)
        for name, attrs in _VARIABLES.items()
    }
    coords = {
        "iso": ("iso", [iso for iso, _ in jobs], {"long_name": "ISO setting"}),
        "lag": [f"{dy},{dx}" for dy, dx in LAGS],
    }
    return xr.Dataset(data, coords, {"camera": flat.attrs["camera"], "long_name": "covariance of neighbours"})


_VARIABLES = {
    "coefficient": {"units": "1/e-", "long_name": "a of neighbours"},
    "coefficient_error": {"units": "1/e-", "long_name": "error of a"},
    "correlation": {"units": "1", "long_name": "correlation of neighbours"},
    "correlation_error": {"units": "1", "long_name": "error of the correlation"},
    "neighbours": {"units": "1/e-", "long_name": "sum of a over the neighbours"},
    "neighbours_error": {"units": "1/e-", "long_name": "error of that sum"},
    "signal": {"units": "e-", "long_name": "signal"},
}


def _products(
    first: np.ndarray, second: np.ndarray, cell: np.ndarray, black: np.ndarray, gain: np.ndarray
) -> np.ndarray:
    """Return, over (block, lag), Σ d d′, Σ μ μ′ [e⁻²], Σ d² of the pixels and how many there are."""
    step = cell.shape[0]
    height, width = (side // step * step for side in first.shape)
    difference = np.empty((height, width), np.float32)
    level = np.empty((height, width), np.float32)
    for (row, column), channel in np.ndenumerate(cell):
        one, two = (frame[row:height:step, column:width:step].astype(float) for frame in (first, second))
        mean1, mean2 = one.mean() - black[channel], two.mean() - black[channel]
        mean = (mean1 + mean2) / 2
        d = ((one - black[channel]) * mean2 - (two - black[channel]) * mean1) / mean * gain[channel]
        limit = _SIGMAS * 1.4826 * np.median(np.abs(d[:: max(1, d.shape[0] // 64)]))
        d[np.abs(d) > limit] = np.nan  # a cosmic ray, a pixel that flickers
        difference[row::step, column::step] = d
        level[row::step, column::step] = (one + two - 2 * black[channel]) / 2 * gain[channel]
    bounds = np.linspace(0, height // step, min(BLOCKS, height // step) + 1).astype(int) * step
    sums = np.zeros((bounds.size - 1, len(LAGS), 4))
    for block, (top, bottom) in enumerate(pairwise(bounds)):
        for number, (dy, dx) in enumerate(LAGS):
            here = slice(top, min(bottom, height - dy)), slice(max(0, -dx), width - max(0, dx))
            there = slice(top + dy, here[0].stop + dy), slice(here[1].start + dx, here[1].stop + dx)
            a, b = difference[here].astype(float), difference[there]
            good = np.isfinite(a) & np.isfinite(b)
            sums[block, number] = (
                (a * b)[good].sum(),
                (level[here].astype(float) * level[there])[good].sum(),
                ((a**2 + b**2) / 2)[good].sum(),
                np.count_nonzero(good),
            )
    return sums
