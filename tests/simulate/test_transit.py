"""A night with a transit is as its truth has it."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.simulate import Transit, read_transit, write_transit


def test_frames_and_truth(tmp_path):
    night = write_transit(tmp_path / "night", lights=3, shape=(96, 144), calibration=2)
    frames = open_folder(night.folder, progress=False)
    assert [frames.light.sizes["frame"], frames.bias.sizes["frame"], frames.flat.sizes["frame"]] == [3, 2, 2]
    assert np.diff(frames.light["time"].values)[0] == np.timedelta64(150, "s")
    assert night.x.size == 6
    read = read_transit(night.folder)
    assert all(np.array_equal(*pair) for pair in zip(read, night, strict=True))
    assert read_transit(tmp_path) is None
    level = frames.light.isel(frame=0).values
    x, y = round(night.x[0]), round(night.y[0])
    assert level[y - 1 : y + 2, x - 1 : x + 2].mean() > 3 * np.median(level) - 1500  # the target, over black 600
    with pytest.raises(WorkbenchError, match="already there"):
        write_transit(tmp_path / "night")


def test_the_light_falls_and_rises():
    light = Transit(depth=0.1, middle=2.0, duration=1.0, ingress=0.25).light(np.array([1.0, 1.5, 1.75, 2.0, 2.5, 3.0]))
    np.testing.assert_allclose(light, [1, 1, 0.9, 0.9, 1, 1])
