"""The median of every pixel and the scatter about it, sorted or selected, compared with numpy's."""

import numpy as np
import pytest

from workbench.core.statistics import MAD_TO_SIGMA
from workbench.stack.medians import SELECTED, find_medians
from workbench.stack.reject import MANY, empty_planes, rule_of


@pytest.mark.parametrize("count", [5, 21, SELECTED, SELECTED + 1])
def test_medians_and_scatter_are_those_of_sorted_samples(count):
    rng = np.random.default_rng(3)
    values = rng.normal(300, 30, (count, 1, 6, 40)).astype(np.float32)
    values[rng.integers(0, count, 50), 0, rng.integers(0, 6, 50), rng.integers(0, 40, 50)] += 1e4
    values[:, 0, 2] = np.round(values[:, 0, 2] / 10) * 10  # many are equal
    values[:, 0, 3][rng.random((count, 40)) < 0.3] = np.nan
    values[1:, 0, 4, :20] = np.nan
    values[:, 0, 4, :10] = np.nan
    planes = empty_planes(count, (6, 40), 1)
    find_medians(0, values, rule_of("noise", count), planes, False)
    for y, x in np.ndindex(6, 40):
        known = np.sort(values[:, 0, y, x])
        known = known[np.isfinite(known)]
        median = np.float32(0.5) * (known[(known.size - 1) // 2] + known[known.size // 2]) if known.size else 0
        assert (planes.count[y, x], planes.median[y, x]) == (known.size, median)
        if count >= MANY:
            scatter = np.sort(abs(known - median))[(known.size - 1) // 2] if known.size >= MANY else np.float32(0)
            assert planes.floor[y, x] == (np.float32(MAD_TO_SIGMA) * scatter) ** 2
