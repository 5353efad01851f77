"""Notebook 11's mosaic: its panels are pasted where they belong and have the light of the truth."""

import course
import numpy as np


def test_the_panels_lie_side_by_side_and_their_scales_are_the_truth():
    mosaic = course.stack_mosaic()
    assert mosaic.pasted.shape == mosaic.coverage.shape == mosaic.signal.shape[1:]
    assert mosaic.coverage.max() >= 7  # two panels of four lights overlap
    off = (mosaic.scales["measured"] - mosaic.scales["truth"]).abs()
    assert (off <= 3.5 * mosaic.scales["± error"]).all()
    seen = np.isfinite(mosaic.pasted) & np.isfinite(mosaic.signal[1])
    bright = mosaic.signal[1] > np.nanpercentile(mosaic.signal[1], 98)
    sky = np.median(mosaic.pasted[seen])
    assert np.median(mosaic.pasted[seen & bright]) > sky + 20  # the stars are at the same places
