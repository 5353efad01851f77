"""The rejection rules on arrays that can be looked at: which samples of aligned frames go, and why.

The engine applies the same rules tile by tile in compiled loops that keep nothing (`workbench.stack.tile`); here they
stand in plain NumPy, for inspection and for cubes, and a test holds the two to each other.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..core.errors import WorkbenchError
from .reject import DEFAULTS, MEAN, method_number, reject
from .tile import GROW, LOCAL_RANGE, STRICT, STRONG

MANY = 8  # from so many samples on a pixel's own scatter has a say
_MAD_SIGMA = 1.4826
_DISC = np.square(np.mgrid[-GROW : GROW + 1, -GROW : GROW + 1]).sum(axis=0) <= GROW**2 + 1


def median_of(values: np.ndarray) -> np.ndarray:
    """Return the median over the first axis, NaNs left out; NaN where there is nothing.

    Examples
    --------
    >>> median_of(np.array([[1.0], [np.nan], [4.0]])).tolist()
    [2.5]
    """
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(values).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    pick = [np.take_along_axis(ordered, index[None], 0)[0] for index in (low, high)]
    return np.where(count > 0, 0.5 * (pick[0] + pick[1]), np.nan).astype(values.dtype)


def noise_variance(values: np.ndarray, variance: np.ndarray, slope: np.ndarray, median: np.ndarray) -> np.ndarray:
    """Return the variance that a sample would have if it held what the median holds.

    A sample that a cosmic ray made bright has the shot noise of a bright one; what tells whether it belongs is the
    noise that it should have.  The shot noise of e electrons is e, times `slope`, Σw² of the resampling and the scale.
    """
    light = np.maximum(median, 0)
    # a flat makes the slope a little larger or smaller: never less than half of the shot noise that must be there
    least = np.maximum(0.5 * slope * light, 0.05 * variance)
    return np.maximum(variance + slope * (light - np.maximum(values, 0)), least)


def noise_limits(values: np.ndarray, variance: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median, and the σ of each sample that rejection by the noise model compares with.

    σ² = model + (0.2 · range of the median over 3 x 3 pixels)²; from eight samples on at least (1.4826 MAD)² of the
    pixel's own samples.

    Parameters
    ----------
    values, variance, slope
        (frame, ..., y, x): aligned and normalised samples [e-], their variance [e-²], and `slope` as in
        `noise_variance`.

    Returns
    -------
    median (..., y, x) and σ (frame, ..., y, x), both [e-].
    """
    median = median_of(values)
    window = (1,) * (median.ndim - 2) + (3, 3)
    known = np.where(np.isfinite(median), median, 0)
    span = ndimage.maximum_filter(known, window, mode="nearest") - ndimage.minimum_filter(known, window, mode="nearest")
    model = noise_variance(values, variance, slope, median) + (LOCAL_RANGE * span) ** 2
    count = np.isfinite(values).sum(axis=0)
    if len(values) >= MANY:
        apart = np.sort(np.abs(values - median), axis=0)
        half = np.minimum((count + 1) // 2 - 1, len(values) - 1)
        mad = np.take_along_axis(apart, np.maximum(half, 0)[None], 0)[0]
        model = np.where(count >= MANY, np.maximum(model, (_MAD_SIGMA * mad) ** 2), model)
    return median, np.sqrt(model)


def reject_samples(
    values: np.ndarray,
    variance: np.ndarray,
    slope: np.ndarray,
    method: str = "noise",
    *,
    low: float | None = None,
    high: float | None = None,
    grow: bool = True,
) -> np.ndarray:
    """Return which samples a method rejects: -1 too low, 1 too high, 0 kept or missing; int8 of `values`' shape.

    Parameters
    ----------
    values, variance, slope
        As for `noise_limits`; only ``noise`` looks at the variance.
    method
        One of `METHODS`.
    low, high
        Its thresholds, the defaults of `workbench.stack.reject.DEFAULTS` where not given.
    grow
        With ``noise``: around an outlier beyond 6 σ reject what lies beyond 2 σ in the same frame, up to 3 pixels away.

    Raises
    ------
    WorkbenchError
        If there is no such method.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> sky = rng.normal(100, 10, (5, 1, 40, 40)).astype("float32")
    >>> sky[2, 0, 20] += 400  # a trail
    >>> flags = reject_samples(sky, np.full_like(sky, 100), np.ones_like(sky))
    >>> bool((flags[2, 0, 20] == 1).all()), float(abs(flags[[0, 1, 3, 4]]).mean()) < 0.002
    (True, True)
    """
    number = method_number(method)
    if number >= MEAN:
        return np.zeros(values.shape, np.int8)
    if method != "noise":
        return reject(values, method, low=low, high=high)
    first, second = DEFAULTS[method]
    first, second = first if low is None else low, second if high is None else high
    if not (first > 0 and second > 0):
        raise WorkbenchError(f"thresholds of the noise model are positive numbers of σ; got {first:g} and {second:g}")
    median, sigma = noise_limits(values, variance, slope)
    with np.errstate(invalid="ignore"):
        pull = (values - median) / sigma
        flags = (pull > second).astype(np.int8) - (pull < -first).astype(np.int8)
        strong = np.abs(pull) > STRONG
    if not grow:
        return flags
    for place in np.ndindex(values.shape[:-2]):
        if not strong[place].any():
            continue
        near = ndimage.binary_dilation(strong[place], _DISC)
        with np.errstate(invalid="ignore"):
            more = near & (np.abs(pull[place]) > STRICT) & (flags[place] == 0)
        flags[place][more] = np.sign(pull[place][more]).astype(np.int8)
    return flags
