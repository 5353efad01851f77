"""Painted stars, of which every number is known."""

import numpy as np
import pytest

from workbench.stars import FWHM_PER_SIGMA

SHAPE = (300, 400)


def painted(seed=1, *, stars=60, fwhm=3.5, noise=5.0, sky=200.0, faintest=3000.0, elongation=1.0):
    """A frame with Gaussian stars integrated over the pixels, and their truth (x, y, flux)."""
    from scipy.special import erf

    rng = np.random.default_rng(seed)
    x, y = rng.uniform(15, SHAPE[1] - 15, stars), rng.uniform(15, SHAPE[0] - 15, stars)
    keep = [k for k in range(stars) if not np.any(np.hypot(x[:k] - x[k], y[:k] - y[k]) < 25)]
    x, y = x[keep], y[keep]
    flux = faintest * 10 ** rng.uniform(0, 1.5, x.size)
    sx, sy = fwhm / FWHM_PER_SIGMA * np.array([elongation, 1.0])
    image = np.zeros(SHAPE)
    i, j = np.arange(SHAPE[1]), np.arange(SHAPE[0])
    for a, b, f in zip(x, y, flux, strict=True):
        across = np.diff(erf((np.append(i, i[-1] + 1) - 0.5 - a) / (np.sqrt(2) * sx))) / 2
        along = np.diff(erf((np.append(j, j[-1] + 1) - 0.5 - b) / (np.sqrt(2) * sy))) / 2
        image += f * np.outer(along, across)
    image = rng.poisson(image + sky) - sky + rng.normal(sky, noise, SHAPE)
    return image.astype(np.float32), x, y, flux


@pytest.fixture(name="painted")
def painted_stars():
    return painted
