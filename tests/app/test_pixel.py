"""One pixel of a raw frame: the stated noise is the noise it has."""

import numpy as np
import pytest

import workbench as wb
from workbench.app.pixel import known_noise, pixel_noise, pixel_table
from workbench.core.errors import WorkbenchError


def test_the_noise_that_a_pixel_is_said_to_have_is_the_noise_it_has(small_samples, result):
    """Flats of one light: the scatter of a pair is what the budget of its mean says."""
    folder = wb.open_folder(small_samples)
    flats = folder.select(kind="flat", iso=800.0).table
    flats = flats[flats["exposure"] == flats["exposure"].median()]  # neither dark nor saturated
    row, pair = flats.iloc[0], [wb.read_frame(path) for path in flats["path"][:2]]
    part = (slice(80, 112), slice(128, 160))  # where vignetting is flat
    greens = [frame[part][::2, 1::2].astype(float) for frame in pair]
    known = known_noise(result.sensor, row, "G1")
    budget = pixel_noise(np.mean(greens), **known)
    scaled = greens[1] * greens[0].mean() / greens[1].mean()
    measured = (greens[0] - scaled).std() / np.sqrt(2) * known["gain"]
    assert measured == pytest.approx(budget["all together"], rel=0.12)  # 256 pixels: 4.4 %


def test_the_pixel_s_table_says_what_is_known(small_samples):
    row = wb.open_folder(small_samples).select(kind="light").table.iloc[0]
    mosaic = wb.read_frame(row.path)
    without = pixel_table(mosaic, row, 7, 11)
    assert list(without.index) == ["pixel", "channel", "number", "above black"]
    assert without.value["number"] == f"{mosaic[7, 11]:,} ADU"
    with pytest.raises(WorkbenchError, match="lies outside"):
        pixel_table(mosaic, row, 192, 0)
