"""EMVA 1288 (release 4.0, linear): the standard's own estimates, from tables of means and variances."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..errors import WorkbenchError


def fit_emva_gain(mean: ArrayLike, variance: ArrayLike, mean_dark: ArrayLike, variance_dark: ArrayLike) -> xr.Dataset:
    """Fit the system gain K as the standard does.

    K is the slope of (σ²_y − σ²_dark) on (μ_y − μ_dark), through the origin, unweighted, over the levels up to 70 % of
    the one where the variance is greatest (EMVA 1288 release 4.0 linear, section 6.6).

    Parameters
    ----------
    mean, variance
        Of the illuminated pairs, one a level [ADU, ADU²].
    mean_dark, variance_dark
        Of the dark pairs of the same exposures.

    Returns
    -------
    xarray.Dataset
        Scalars ``system_gain`` K [ADU/e⁻], ``gain`` 1/K [e⁻/ADU], ``saturation`` [ADU], the level of the greatest
        variance; over level ``used``.

    Raises
    ------
    WorkbenchError
        If the columns differ in length, or nothing lies below saturation.

    Examples
    --------
    >>> mean = np.array([100.0, 200, 300, 400, 500])
    >>> result = fit_emva_gain(mean, [29, 54, 79, 104, 2], np.full(5, 20.0), np.full(5, 9.0))
    >>> result.system_gain.item(), int(result.used.sum())
    (0.25, 2)
    """
    columns = [np.asarray(column, float) for column in (mean, variance, mean_dark, variance_dark)]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1 or columns[0].size < 2:
        raise WorkbenchError("the four columns need one number a light level each, two levels at least")
    level, noise, dark, dark_noise = columns
    saturation = level[np.argmax(noise)]
    used = level <= 0.7 * saturation
    if not used.any():
        raise WorkbenchError("no light level lies below 70 % of saturation; add fainter ones")
    x, y = (level - dark)[used], (noise - dark_noise)[used]
    gain = (x * y).sum() / (x * x).sum()
    return xr.Dataset(
        {
            "system_gain": ((), gain, {"units": "ADU/e-", "long_name": "system gain K"}),
            "gain": ((), 1 / gain, {"units": "e-/ADU", "long_name": "gain"}),
            "saturation": ((), saturation, {"units": "ADU", "long_name": "level of the greatest variance"}),
            "used": ("level", used, {"long_name": "levels that the fit used"}),
        }
    )


def emva_dark_current(exposure: ArrayLike, mean_dark: ArrayLike, system_gain: float) -> float:
    """Return the dark current [e⁻/s/pixel]: the slope of the dark mean [ADU] over exposure [s], divided by K [ADU/e⁻].

    An unweighted line, by EMVA 1288 release 4.0 linear, section 7.1.

    Examples
    --------
    >>> round(emva_dark_current([1, 2, 3], [15, 15.5, 16], 0.25), 12)
    2.0
    """
    exposure, mean_dark = np.asarray(exposure, float), np.asarray(mean_dark, float)
    if np.unique(exposure).size < 3:
        raise WorkbenchError("the standard's dark current needs darks of more than two exposures")
    away = exposure - exposure.mean()
    return float((away * mean_dark).sum() / (away**2).sum() / system_gain)
