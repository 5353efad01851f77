"""The verbs on cubes and the command on files are one pipeline: on the samples both give one answer."""

import numpy as np
import pytest

from workbench import align, stack
from workbench.core.values import attribute_dict
from workbench.pipelines.stacking import stack_folder
from workbench.stack.fits_out import open_stack

MAPS = ("coverage", "rejected_low", "rejected_high", "saturated")


@pytest.fixture(scope="module")
def both(samples, night, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "stack.fits"
    done = stack_folder(samples, out, progress=False)
    lights = night.lights
    registration = align.register(lights, progress=False)
    names = [str(name) for name in lights["filename"].values]
    assert names[registration.reference] == done.reference
    return open_stack(out).load(), stack.stack(stack.aligned(lights, registration)).compute()


@pytest.mark.parametrize("name", ["signal", "variance", "shared_variance"])
def test_signal_and_variance_are_equal_to_rounding(both, name):
    files, cubes = (one[name].values for one in both)
    assert np.array_equal(np.isnan(files), np.isnan(cubes))
    # samples of some thousand electrons and their sums in float32
    np.testing.assert_allclose(cubes, files, rtol=2e-5, atol=2e-3)


@pytest.mark.parametrize("name", MAPS)
def test_the_maps_are_equal(both, name):
    files, cubes = (one[name].values for one in both)
    assert np.array_equal(files, cubes)


def test_what_is_said_of_a_pixel_is_the_same(both):
    files, cubes = both
    for name in ("units", "exposure", "frame_count", "rejection", "reference"):
        assert cubes.attrs[name] == files.attrs[name], name
    shares = [attribute_dict(one.attrs, "pixel_variance_share") for one in both]
    assert shares[0] == pytest.approx(shares[1])
    wide = [stack.area_variance(one, 64).values for one in both]
    np.testing.assert_allclose(wide[1], wide[0], rtol=2e-5, atol=2e-3)
