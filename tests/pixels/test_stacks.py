"""The noise of every pixel: what numpy says, chance alone, and pixels that flicker."""

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.pixels import noise_distribution, noise_map
from workbench.sensor import read_noise


def stack(sigma=2.0, *, frames=16, shape=(128, 192), seed=0, wander=0.5, telegraph=0.0):
    rng = np.random.default_rng(seed)
    y = 600 + rng.normal(0, 3, shape) + rng.normal(0, wander, (frames, 1, 1)) + rng.normal(0, sigma, (frames, *shape))
    flickers = rng.random(shape) < telegraph
    y += 12 * flickers * (rng.random((frames, *shape)) < 0.5)
    return make_cube(y.round().astype("uint16"), cfa_pattern="RGGB", kind="bias", iso=100, exposure=0), flickers


def test_the_map_is_numpys():
    cube, _ = stack(frames=4, shape=(8, 12))
    values = cube.values.astype(float)
    for row in range(2):
        for column in range(2):
            plane = values[:, row::2, column::2]
            plane -= plane.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(noise_map(cube, progress=False), values.std(axis=0, ddof=1), rtol=1e-4)


def test_a_stack_agrees_with_pairs_and_chance_alone_makes_no_tail():
    cube, _ = stack(shape=(256, 256))
    found = noise_distribution(noise_map(cube, progress=False))
    pairs = read_noise(cube, progress=False).isel(iso=0)
    np.testing.assert_allclose(found.read_noise_adu, pairs.read_noise_adu, rtol=0.02)
    assert (abs(found.read_noise_adu - 2.0) < 4 * found.read_noise_adu_error).all()
    assert (abs(found.tail_share) < 4 * found.tail_share_error).all()
    np.testing.assert_allclose(found["count"].sum("bin") + found.beyond, 128 * 128)
    chi2 = ((found["count"] - found.expected) ** 2 / np.maximum(found.expected, 5)).where(found.expected > 5)
    assert 0.7 < float(chi2.mean()) < 1.4


def test_pixels_that_flicker_are_counted():
    cube, flickers = stack(telegraph=0.004)
    found = noise_distribution(noise_map(cube, progress=False))
    np.testing.assert_allclose(found.tail_share.mean(), flickers.mean(), rtol=0.15)
    assert (found.tail_share > 3 * found.tail_share_error).all()
    np.testing.assert_allclose(found.typical_noise, np.sqrt(4 + 1 / 12), rtol=0.02)


def test_what_gives_no_map_is_refused():
    cube, _ = stack(frames=3, shape=(8, 8))
    with pytest.raises(WorkbenchError, match="needs 3 equal frames"):
        noise_map(cube.isel(frame=slice(2)), progress=False)
    with pytest.raises(WorkbenchError, match="one iso"):
        noise_map(cube.assign_coords(iso=("frame", [100.0, 100, 200])), progress=False)
    with pytest.raises(WorkbenchError, match="probability"):
        noise_distribution(noise_map(cube, progress=False), rare=2)
