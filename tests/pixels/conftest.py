import pytest

from workbench.core.cube import make_cube
from workbench.simulate import d7000, expose


@pytest.fixture(scope="module")
def striped():
    """A camera with rows and columns of its own, and its bias frames and flats."""
    camera = d7000(
        seed=4, shape=(240, 320), pixel_offset=0.8, column_offset=0.4, row_offset=0.3, prnu=0.008, vignetting=0.3
    )
    bias = [expose(camera, iso=100, exposure=1e-4, seed=n) for n in range(12)]
    flats = [expose(camera, 3e5 * (1 + 0.02 * n), iso=100, exposure=0.05, seed=n) for n in range(6)]
    common = {"cfa_pattern": "RGGB", "iso": 100, "black_level": 600, "white_level": 16383}
    cubes = (make_cube(bias, kind="bias", **common), make_cube(flats, kind="flat", exposure=0.05, **common))
    return camera, *cubes
