"""One characterization for all chart tests: the small sample frames, measured."""

import pytest

from workbench.pipelines import characterize


@pytest.fixture(scope="session")
def result(small_samples):
    """What `characterize` finds in the small set; it gives every piece."""
    return characterize(small_samples, progress=False)
