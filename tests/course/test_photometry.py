"""Notebook 16: errors of stars in one light and in the stack hold the truth of the simulated night."""

import course
import numpy as np
import pytest

import workbench as wb
from workbench.ingest import open_folder
from workbench.simulate import Transit, read_transit, write_transit


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A short night with a transit, its truth and its fluxes in all apertures."""
    folder = tmp_path_factory.mktemp("transit") / "night"
    truth = write_transit(folder, Transit(middle=0.35, duration=0.4), lights=16, calibration=4, seed=2)
    star = (float(truth.x[0]) + 6.8, float(truth.y[0]) + 2.0)  # the reference is dithered
    return read_transit(folder), course.photometry._fluxes_by_aperture(open_folder(folder, progress=False), star)


def test_faint_stars_ask_for_a_small_aperture_and_errors_cover(night):
    truth, fluxes = night
    errors = course.aperture_errors(fluxes)
    assert 0.6 < course.best_radius(errors, "faint") < course.photometry.USUAL
    pulls = course.curve_pulls(fluxes, truth)
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1, abs=3 / np.sqrt(2 * pulls.size))
    curve = wb.pipelines.compare_stars(fluxes.sel(radius=1.5))
    depth, error = course.transit_depth(curve, truth)
    assert abs(depth - 100 * truth.transit.depth) < 3 * error


def test_of_real_frames_there_are_no_pulls(night):
    with pytest.raises(wb.WorkbenchError, match="the truth of these stars is not known"):
        course.stack_pulls(None, None)
