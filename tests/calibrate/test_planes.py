"""What calibrates a group of lights, and the level that a variance follows."""

import numpy as np
import pytest

from workbench.calibrate.apply import Tables
from workbench.calibrate.planes import calm_levels, prepare_planes
from workbench.core.mosaic import channel_index, spread
from workbench.core.parallel import machine_share


def level_of(values, cell, model, black, count):
    """Return the definition, pixel by pixel."""
    levels = np.empty(values.shape, np.float32)
    rows, columns = cell.shape
    for (i, j), own in np.ndenumerate(values.astype(float)):
        c = cell[i % rows, j % columns]
        limit = 18 * (model[c, 0] + model[c, 1] * max(own - black[c], 0)) / count
        near = [(i + m, j + n) for m in (-rows, 0, rows) for n in (-columns, 0, columns) if m or n]
        inside = [(m, n) for m, n in near if 0 <= m < len(values) and 0 <= n < len(values[0])]
        agree = [float(values[place]) for place in inside if (float(values[place]) - own) ** 2 <= limit]
        levels[i, j] = (own + sum(agree)) / (1 + len(agree))
    return levels


@pytest.mark.parametrize("pattern", ["mono", "GBRG", "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_the_level_is_that_of_neighbours_of_the_same_plane_that_agree(pattern, kind):
    cell, rng = channel_index(pattern), np.random.default_rng(4)
    law, black = np.array([[9.0, 0.5]] * 4), np.array([100.0, 101.0, 102.0, 103.0])
    values = rng.normal(120, 5, (25, 31)).astype(kind)
    values[7, 9] = 4000
    if kind == "float32":
        values[3, 4] = np.nan
    levels = np.empty(values.shape, np.float32)
    calm_levels(values, cell, law, black, 2.0, levels)
    np.testing.assert_allclose(levels, level_of(values, cell, law, black, 2.0), rtol=1e-6)
    assert levels[7, 9] == 4000


@pytest.mark.parametrize("dark", [True, False])
def test_planes_are_the_formula_whatever_the_threads(dark):
    cell, rng, shape = channel_index("RGGB"), np.random.default_rng(5), (235, 180)
    gain, constant = np.array([1.0, 2.0, 3.0, 4.0]), np.array([7.0, 8.0, 9.0, 10.0])
    law = np.stack([np.full(4, 4.0), 1 / gain], axis=1)
    maps = {"base": rng.normal(600, 1, shape), "dark": rng.normal(20, 1, shape), "response": rng.normal(1, 0.01, shape)}
    maps = {name: values.astype(np.float32) for name, values in maps.items() if dark or name != "dark"}
    maps["response"][5, 6] = np.nan
    defects = rng.random(shape) < 0.01
    tables = Tables(cell, gain, law, constant, np.full(4, 600.0), defects=defects, saturation=16000.0, **maps)
    planes = prepare_planes(tables, shape, 1.5)
    scale = spread(gain, cell, shape) / maps["response"]
    scale[defects] = np.nan
    np.testing.assert_allclose(planes.scale, scale, rtol=1e-6)
    offset = maps["base"] + spread(constant, cell, shape)
    np.testing.assert_allclose(planes.base if dark else planes.dark, offset, rtol=1e-6)
    block = np.s_[224:235, 160:180]  # the last, cut off
    blue = spread(np.arange(4) == 3, cell, shape)[block] & np.isfinite(scale[block])
    assert planes.noise[0, 2, -1, -1] == pytest.approx((scale[block][blue] / 4).mean(), rel=1e-5)
    with machine_share(threads=1):
        alone = prepare_planes(tables, shape, 1.5)
    assert all(np.array_equal(one, two, equal_nan=True) for one, two in zip(planes[:4], alone[:4], strict=True))
