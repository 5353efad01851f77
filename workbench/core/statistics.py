"""Robust statistics that every station shares."""

from __future__ import annotations

from typing import Any

import numpy as np

MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation: 1/Φ⁻¹(3/4)


def mad_std(values: Any, axis: int | tuple[int, ...] | None = None, *, centre: Any = None) -> Any:
    """Return the standard deviation that the median absolute deviation stands for, 1.4826 median |y - centre|.

    The factor is that of a normal distribution.  NaN are left out; of nothing but NaN, or of nothing, it is NaN.
    `astropy.stats.mad_std` gives the same numbers about the median, more slowly, and knows no other centre.

    Parameters
    ----------
    values
        An array of any shape and unit.
    axis
        As for `numpy.median`; all values without it.
    centre
        What deviations are taken from, in the unit of the values: the median (default), or for example 0.

    Returns
    -------
    float or array
        In the unit of the values.

    Examples
    --------
    >>> round(float(mad_std([1.0, 2.0, 3.0, 4.0, 100.0])), 4)
    1.4826
    >>> round(float(mad_std([-1.0, 1.0, np.nan], centre=0)), 4)
    1.4826
    """
    values = np.asarray(values)
    whole = values.dtype.kind in "iub" or bool(np.isfinite(values).all())
    median = np.median if whole else np.nanmedian
    if values.size == 0:
        return np.float64(np.nan)
    if centre is None:
        centre = median(values, axis=axis, keepdims=axis is not None)
    elif values.dtype.kind in "ub":
        values = values.astype(np.float64)
    return MAD_TO_SIGMA * median(np.abs(values - centre), axis=axis)
