"""The cooled camera keeps its own laws, and its files read back as what was set."""

import numpy as np
import pytest

from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.ingest.fits import read_fits
from workbench.simulate.capture import PROGRAMS, Batch, cooled, write_frames


def test_gain_noise_and_codes_are_those_of_the_setting(tmp_path):
    camera = cooled((96, 128), pixel_offset=0, column_offset=0, row_offset=0)
    lamp = Batch("flat", 8, 1.0, gain_setting=200, lamp=0.4)
    frames = np.stack([read_fits(path) for path, *_ in write_frames(tmp_path, camera, [lamp])]).astype(float)
    assert (frames % 16 == 0).all()
    signal = frames.mean() - camera.at_offset(50).black_level
    noise = frames.var(axis=0, ddof=1).mean()
    gain = camera.gain(200)
    expected = signal / gain + (camera.read_noise(200) / gain) ** 2 + 16**2 / 12
    assert noise == pytest.approx(expected, rel=5 * np.sqrt(2 / frames.size))
    assert camera.gain(200) == pytest.approx(camera.gain(0) / 10)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_folder_reads_back_as_it_was_set(tmp_path, program):
    camera = cooled((32, 48))
    batches = [
        Batch("dark", 1, 60.0, gain_setting=0, offset_setting=10),
        Batch("flat", 1, 2.0, gain_setting=139, offset_setting=50, filter="Ha", temperature=-15.0),
    ]
    write_frames(tmp_path, camera, batches, program=program)
    table = open_folder(tmp_path, progress=False).table.set_index("kind")
    habits = PROGRAMS[program]
    for kind, gain, offset in (("dark", 0, 10), ("flat", 139, 50)):
        if "gain" in habits:
            assert table.loc[kind, "gain_setting"] == gain
        if "offset" in habits:
            assert table.loc[kind, "offset_setting"] == offset
    assert table.loc["flat", "filter"] == "Ha"
    assert table.loc["flat", "temperature"] == -15
    assert table.loc["flat", "exposure"] == 2
    assert np.isnan(table.iso).all()
    assert (table.binning == 1).all()


def test_an_unknown_program_is_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="none of nina"):
        write_frames(tmp_path, cooled((32, 48)), [], program="other")
