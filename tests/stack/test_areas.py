"""The variance of areas: of frames whose masters' noise is known, and what the acceptance of a stack makes of it."""

import json
from functools import partial

import numpy as np
import pytest
import xarray as xr
from stack_acceptance import block_means, mean_chi_square, smooth_residual

from tests.stack.test_engine import GAIN, Scene
from workbench.core.errors import WorkbenchError
from workbench.core.parallel import in_threads
from workbench.stack import area_variance
from workbench.stack.areas import area_growth
from workbench.stack.engine import prepare, stack_band
from workbench.stack.normalise import block_centres, block_places, shared_variance
from workbench.stack.window import BAND, BLOCK

MASTERS = 8.0  # [e-] noise that is the same in every frame
SHAPE = (704, 1088)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """A stack of six frames that are calibrated with the same noisy masters, and what it is above the truth."""
    scene = Scene(tmp_path_factory.mktemp("areas"), frames=6, shape=SHAPE, stars=False, seed=5)
    noise = scene.rng.normal(0, MASTERS / GAIN, SHAPE)
    scene.mosaics = [mosaic + noise for mosaic in scene.mosaics]
    scene.planes.noise[2] = MASTERS**2
    plan = scene.plan()
    bands = list(in_threads(partial(stack_band, prepare(plan)), range(plan.bands), 2))
    signal, variance = (
        np.concatenate([getattr(one.arrays, name) for one in bands], 1) for name in ("signal", "variance")
    )
    common = np.stack([one.shared for one in bands], 2).repeat(BAND, 2).repeat(BLOCK, 3)[..., : SHAPE[0], : SHAPE[1]]
    centres = block_centres(range(plan.bands), SHAPE)
    growth = plan.area_growth(np.stack([block_places(one.transform, centres, SHAPE) for one in plan.frames]))
    planes = {"signal": signal, "variance": variance, "shared_variance": shared_variance(common, signal)}
    stack = xr.Dataset(
        {name: (("channel", "y", "x"), plane) for name, plane in planes.items()},
        {"channel": list(plan.channels)},
        {"area_growth": json.dumps(growth)},
    )
    return stack, signal - scene.truth()


def chi_square(residual, variance, side):
    """Of all channels' blocks of some pixels, and its error."""
    good = np.zeros(SHAPE, bool)
    good[32:-32, 32:-32] = True
    means = [block_means(one, other, good, side) for one, other in zip(residual, variance, strict=True)]
    mean, expected, share = (np.stack(part) for part in zip(*means, strict=True))
    return mean_chi_square(mean[share == 1], expected[share == 1])


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_the_variance_of_areas_covers_the_truth(painted, side):
    stack, residual = painted
    chi, error = chi_square(residual, area_variance(stack, side).values, side)
    assert abs(chi - 1) < 3 * error


def test_wider_areas_need_more_than_the_variance_of_16_pixels(painted):
    stack, residual = painted
    np.testing.assert_allclose(area_variance(stack, 16), stack["variance"], rtol=1e-6)
    chi, error = chi_square(residual, stack["variance"].values, 32)
    assert chi - 1 > 4 * error


def test_a_surface_taken_off_leaves_the_noise_of_wide_areas():
    noise = np.random.default_rng(1).normal(0, 1, (768, 1024))
    good = np.random.default_rng(2).random(noise.shape) < 0.9
    y, x = np.mgrid[: noise.shape[0], : noise.shape[1]] / 1000
    residual = smooth_residual(noise + 3 + 4 * x - 2 * y * y + x * y, good)
    for side in (32, 64):
        mean, variance, _ = block_means(residual, np.ones(noise.shape), good, side)
        chi, error = mean_chi_square(mean.ravel(), variance.ravel())
        assert abs(chi - (1 - 6 / mean.size)) < 3 * error


def test_what_is_not_known_is_refused(painted):
    stack, _ = painted
    with pytest.raises(WorkbenchError, match="8 to 512"):
        area_variance(stack, 4)
    with pytest.raises(WorkbenchError, match="earlier version"):
        area_variance(stack.drop_attrs(), 32)
    far = area_growth(20.0 * np.arange(10.0).reshape(5, 2, 1, 1), np.ones(5), {"R": 0.96, "G": 0.99, "B": 0.96})
    with pytest.raises(WorkbenchError, match="so far apart"):
        area_variance(stack.assign_attrs(area_growth=json.dumps(far)), 32)


def test_frames_that_are_not_moved_share_no_more_in_wider_areas():
    assert area_growth(np.zeros((5, 2, 3, 4)), np.ones(5), {"mono": 0.99})["shared"] == [1.0] * 7
