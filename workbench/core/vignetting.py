"""The fall of light to the corners: an even polynomial about a fitted centre."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize

from .errors import WorkbenchError
from .statistics import mad_std


class Lens(NamedTuple):
    """A (1 + a₂ρ² + a₄ρ⁴), ρ² = ((y − y₀)² + (x − x₀)²)/R²; lengths in pixels of the picture that was fitted.

    cos⁴ of the angle is such a series, with a₂ = −2 (R/f)² to the first order.
    """

    level: float
    a2: float
    a4: float
    centre_y: float
    centre_x: float
    reach: float
    centre_error: float = math.nan

    def __call__(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the model at rows y and columns x.

        Examples
        --------
        >>> Lens(2.0, -0.5, 0.0, 10, 10, 10)(np.array([10, 0]), np.array([10, 10])).tolist()
        [2.0, 1.0]
        """
        rho2 = ((y - self.centre_y) ** 2 + (x - self.centre_x) ** 2) / self.reach**2
        return self.level * (1 + self.a2 * rho2 + self.a4 * rho2**2)

    def enlarged(self, factor: int, reach: float) -> Lens:
        """Return the model of a picture from that of every `factor`-th of its pixels, with the reach of the whole."""
        ratio = (reach / (self.reach * factor)) ** 2
        centre_y, centre_x, error = self.centre_y * factor, self.centre_x * factor, self.centre_error * factor
        return Lens(self.level, self.a2 * ratio, self.a4 * ratio**2, centre_y, centre_x, float(reach), error)

    def falloff(self, shape: tuple[int, int]) -> float:
        """Return the light lost in the farthest corner of a picture of that shape, against the centre."""
        y, x = np.array([[0, 0, shape[0] - 1, shape[0] - 1], [0, shape[1] - 1, 0, shape[1] - 1]])
        return float(1 - self(y, x).min() / self.level)


def fit_lens(picture: np.ndarray) -> Lens:
    """Fit the model to a picture of blocks, dust down-weighted (soft L1); what is not finite is left out.

    Raises
    ------
    WorkbenchError
        If fewer than 20 blocks are valid.

    Examples
    --------
    >>> y, x = np.mgrid[:30, :40]
    >>> lens = fit_lens(1 - 0.3 * ((y - 12) ** 2 + (x - 22) ** 2) / 25**2)
    >>> round(lens.centre_y, 3), round(lens.centre_x, 3)
    (12.0, 22.0)
    """
    rows, columns = picture.shape
    y, x = np.mgrid[:rows, :columns].astype(float)
    reach = math.hypot(rows, columns) / 2
    good = np.isfinite(picture)
    if good.sum() < 20:
        raise WorkbenchError("the flat has fewer than 20 valid blocks: most of it is saturated or missing")
    start = np.array([np.nanmax(picture), -0.2, 0.0, (rows - 1) / 2, (columns - 1) / 2])
    scale = max(1e-4, float(mad_std(picture[good])) / 50)
    y, x, values = y[good], x[good], picture[good]
    fit = optimize.least_squares(
        lambda p: Lens(*p, reach)(y, x) - values, start, loss="soft_l1", f_scale=scale, x_scale=[1, 0.1, 0.1, 1, 1]
    )
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * 2 * fit.cost / max(values.size - 5, 1)
    error = float(np.sqrt(max(covariance[3, 3], covariance[4, 4])))
    return Lens(*(float(value) for value in fit.x), reach, error)
