"""Simulated firmware does to frames what its name says."""

import course
import pytest

from workbench.ingest import open_folder


def test_each_firmware_does_what_its_name_says(small_samples):
    bias = open_folder(small_samples, progress=False).bias
    for how, strength in (("noise filtered", 0.1), ("hot pixels removed", 0.0)):
        altered = course.simulate_firmware(bias, how, strength)
        assert altered.shape == bias.shape
        assert altered.attrs["history"].splitlines()[-1].startswith(f"simulated firmware: {how}")
    assert (course.simulate_firmware(bias, "untouched").values == bias.values).all()
    with pytest.raises(ValueError, match="unknown firmware"):
        course.simulate_firmware(bias, "fried")
    assert course.noise_after_filtering(bias, 0.02) is not None
