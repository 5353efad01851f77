"""The kernel: a Lanczos-3, narrowed on colour lattices, as polynomials for the compiled loops."""

from __future__ import annotations

import numba
import numpy as np

NARROWING = 0.85  # of the kernel on a colour mosaic's lattices
REACH = 3  # lattice steps from the centre to the end of the kernel
FAST = {"contract", "reassoc", "nsz", "arcp"}  # liberties that keep NaN


def lanczos3(distance: np.ndarray) -> np.ndarray:
    """Return Lanczos's kernel sinc(x) sinc(x/3) for |x| < 3.

    Examples
    --------
    >>> lanczos3(np.array([0.0, 1.0, 1.5, 3.0])).round(4) + 0.0
    array([ 1.    ,  0.    , -0.1351,  0.    ])
    """
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


def kernel_polynomials(narrowing: float = 1.0) -> tuple[np.float32, ...]:
    """Return the kernel's weights as polynomials in t², t the fraction less ½, for the compiled loops.

    The weights (normalised to sum 1) at both ends of the kernel mirror each other: w_j(t) = even_j(t²) + t odd_j(t²)
    and w_{5-j}(t) = even_j(t²) - t odd_j(t²) for j = 0, 1, 2; last comes the sum of the squares, even, too.  Five
    coefficients each.

    Parameters
    ----------
    narrowing
        The kernel is L(x/narrowing).  1 is Lanczos-3.  Less lets through more of what lies near the lattice's own
        limit: a star of 3 px FWHM, which a lattice of two pixels undersamples, comes out 6 % wide instead of 10 %;
        dithered frames average the aliases away, and a single pixel's noise is higher, not that of larger areas.
    """
    t = -0.5 * np.cos(np.pi * (np.arange(400) + 0.5) / 800)  # Chebyshev's nodes in (-0.5, 0)
    weights = lanczos3((np.arange(-2, 4)[:, None] - (t + 0.5)) / narrowing)
    weights /= weights.sum(0)

    def fit(values):
        return tuple(np.float32(value) for value in np.polynomial.Polynomial.fit(t**2, values, 4).convert().coef)

    even = [fit((weights[j] + weights[5 - j]) / 2) for j in range(3)]
    odd = [fit((weights[j] - weights[5 - j]) / 2 / t) for j in range(3)]
    return tuple(sum([*even, *odd, fit((weights**2).sum(0))], ()))


def narrowing_for(cfa_pattern: str) -> float:
    """Return the kernel's narrowing: colour lattices undersample, a mono sensor's pixels mostly do not."""
    return 1.0 if cfa_pattern == "mono" else NARROWING


def mean_squared_weight(narrowing: float = 1.0) -> float:
    """Return Σw² of the two-dimensional kernel, averaged over all positions between the samples.

    A resampled pixel's variance is this times the samples' own.

    Examples
    --------
    >>> round(mean_squared_weight(), 3), round(mean_squared_weight(0.85), 3)
    (0.798, 1.109)
    """
    t = (np.arange(2000) + 0.5) / 2000 - 0.5
    squares = [float(value) for value in kernel_polynomials(narrowing)[30:]]
    return float(np.polynomial.Polynomial(squares)(t**2).mean() ** 2)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def weights_at(t, k):
    """Return the six weights at t, the fraction less ½, from the coefficients of `kernel_polynomials`."""
    q = t * t
    e0 = k[0] + q * (k[1] + q * (k[2] + q * (k[3] + q * k[4])))
    e1 = k[5] + q * (k[6] + q * (k[7] + q * (k[8] + q * k[9])))
    e2 = k[10] + q * (k[11] + q * (k[12] + q * (k[13] + q * k[14])))
    o0 = t * (k[15] + q * (k[16] + q * (k[17] + q * (k[18] + q * k[19]))))
    o1 = t * (k[20] + q * (k[21] + q * (k[22] + q * (k[23] + q * k[24]))))
    o2 = t * (k[25] + q * (k[26] + q * (k[27] + q * (k[28] + q * k[29]))))
    return e0 + o0, e1 + o1, e2 + o2, e2 - o2, e1 - o1, e0 - o0


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def squares_at(t, k):
    """Return the sum of their squares."""
    q = t * t
    return k[30] + q * (k[31] + q * (k[32] + q * (k[33] + q * k[34])))
