"""The shot list."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from workbench.ingest import Folder, open_folder, read_frame
from workbench.plan.conditions import saturation_time
from workbench.plan.shots import bias_frames_needed, flat_pairs_needed, shot_list
from workbench.plan.shutter import DIAL
from workbench.simulate.capture import Batch, cooled, write_frames


@pytest.fixture(scope="module")
def cooled_folder(tmp_path_factory):
    """Frames at two gain settings, flats at one of them, the lights at the other; and the camera."""
    camera = cooled((64, 96), step=16)
    batches = [Batch("bias", 3, 0.0, setting) for setting in (0.0, 120.0)]
    batches += [Batch("flat", 2, 1.0, 0.0, lamp=0.5), Batch("light", 2, 60.0, 120.0)]
    folder = tmp_path_factory.mktemp("cooled")
    write_frames(folder, camera, batches)
    found = open_folder(folder, progress=False)
    return dataclasses.replace(found, table=found.table.assign(white_level=float(camera.white_level))), camera


def true_sensor_of(camera, error):
    """The camera's true gain at two gain settings, with a relative error."""
    gain = np.array([[camera.gain(setting)] for setting in (0.0, 120.0)])
    data = {"gain": gain, "gain_error": error * gain, "read_noise": gain, "read_noise_error": 0.01 * gain}
    data |= {name: np.full((2, 1), 12) for name in ("bias_frames", "flat_frames")}
    dims = ("gain_setting", "channel")
    return xr.Dataset({name: (dims, values) for name, values in data.items()}, {"gain_setting": [0.0, 120.0]})


def test_what_is_there_is_counted_and_what_is_missing_asked_for(samples):
    shots = shot_list(open_folder(samples, progress=False))
    rows = shots.table
    bias = rows[(rows.kind == "bias") & (rows.iso == 200)].iloc[0]
    assert (bias.wanted, bias.there, bias.shoot) == (10, 8, 2)
    flats = rows[(rows.kind == "flat") & (rows.iso == 100)].set_index("exposure")
    assert len(flats) == 6
    assert rows[rows.kind == "flat"].shoot.sum() == 0  # six levels in the folder, at every ISO
    growth = rows[rows.why.str.contains("growth")]
    assert growth.exposure.tolist() == [60, 300, 600]
    assert growth.shoot.sum() == 0
    law = rows[rows.why.str.contains("doubling")]
    assert law.temperature.tolist() == [10, 0]
    own = rows[rows.why.str.contains("master dark")].iloc[0]
    assert (own.iso, own.exposure, own.there, own.shoot) == (800, 120, 8, 12)
    assert f"{rows.shoot.sum()} frames to shoot" in repr(shots)
    assert (shots.missing["shoot"] > 0).all()


def test_flats_stay_below_saturation(samples):
    folder = open_folder(samples, progress=False)
    some = folder.select(iso=[100, 200, 800])
    speed = saturation_time(some)
    rows = shot_list(some, isos=[100, 200, 400]).table
    times = {iso: rows[(rows.kind == "flat") & (rows.iso == iso)].exposure.to_numpy() for iso in (100, 200, 400)}
    assert set(np.concatenate(list(times.values()))) <= set(DIAL)
    sixth = 2 ** (1 / 6) - 1  # of a stop: half the step of the dial, whose marks are rounded by 3 % and less
    assert times[400] == pytest.approx(times[100] / 4, rel=2 * (sixth + 0.03))
    assert times[100].max() == pytest.approx(0.65 * speed, rel=sixth + 0.03)
    assert rows[(rows.kind == "flat") & (rows.iso == 400)]["shoot"].sum() == 12
    # a flat of that exposure, with a tenth to spare for the lamp, is not saturated
    flats = folder.select(kind="flat", iso=100).table
    for row in flats[flats.exposure < 0.9 * speed].itertuples():
        assert (read_frame(row.path) >= row.white_level).mean() < 1e-3


def test_real_small_crops_need_more_flats(real_data):
    shots = shot_list(open_folder(real_data / "d7000-flats", progress=False), isos=[100])
    rows = shots.table
    flats = rows[rows.kind == "flat"]
    assert (flats.wanted == 8).all()  # 20 pairs of 1024 pixels for 1 %, over six levels
    assert flats["shoot"].sum() == 0
    assert rows.loc[rows.kind == "bias", "shoot"].tolist() == [10]
    assert rows.why.str.contains("overexposed").any()
    # its flats are short: at a high ISO only a dimmer lamp gives exposures that the shutter has
    many = shot_list(open_folder(real_data / "d7000-flats", progress=False))
    flats = many.table[many.table.kind == "flat"]
    assert set(flats.exposure) <= set(DIAL)
    assert flats[flats.iso == 6400].why.iloc[0] == "gain to 1 %, the lamp 4 stops dimmer: 2 % of saturation"
    assert any("1/8000 s: a dimmer" in note for note in many.notes)
    assert any("temperature" in note for note in shots.notes)


def test_the_numbers_of_frames_give_the_errors_promised():
    rng = np.random.default_rng(1)
    pixels, error = 256, 0.02
    count = bias_frames_needed(pixels, error)
    trials = []
    for _ in range(400):
        frames = rng.normal(0, 1, (count, pixels))
        pairs = [(frames[i] - frames[(i + 1) % count]) / np.sqrt(2) for i in range(count)]
        trials.append(np.sqrt(np.mean(np.square(pairs))))
    assert np.std(trials) <= 1.1 * error
    pairs = flat_pairs_needed(400, 0.02)
    gains = [np.mean([1 / rng.normal(0, 1, 400).var(ddof=1) for _ in range(pairs)]) for _ in range(400)]
    assert np.std(gains) == pytest.approx(0.02, rel=0.25)


def test_measured_errors_ask_for_more_frames(small_samples):
    folder = open_folder(small_samples, progress=False)
    values = {"gain": 1.0, "gain_error": 0.03, "read_noise": 2.5, "read_noise_error": 0.25}
    data = {name: (("iso", "channel"), np.full((1, 1), value)) for name, value in values.items()}
    data |= {name: (("iso", "channel"), np.full((1, 1), 8)) for name in ("bias_frames", "flat_frames")}
    sensor = xr.Dataset(data, {"iso": [200.0], "channel": ["G1"]}, {"camera": ""})
    rows = shot_list(folder, sensor, isos=[200]).table
    # 10 % where 2 % is wanted: 25 times as many bias frames; 3 % where 1 % is: nine times as many flats
    assert rows[rows.kind == "bias"].wanted.tolist() == [200]
    assert rows[rows.kind == "flat"].wanted.sum() >= 72


def test_an_almost_empty_folder_gets_a_whole_list():
    row = {
        "file": "a.fits", "path": Path("a.fits"), "kind": "", "iso": np.nan, "exposure": np.nan, "aperture": np.nan,
        "temperature": np.nan, "camera": "", "cfa_pattern": "mono", "black_level": (np.nan,), "white_level": np.nan,
        "height": 100, "width": 100,
    }  # fmt: skip
    shots = shot_list(Folder(pd.DataFrame([row]), Path()))
    assert set(shots.table.kind) == {"bias", "flat", "dark", "light"}
    assert np.isnan(shots.table.iso).all()
    assert (shots.table["shoot"] == shots.table.wanted).all()
    assert len(shots.notes) == 2
    assert "ISO 100" not in repr(shots)  # which this camera has not
    assert "any" in repr(shots)
    assert "<table" in shots._repr_html_()


def test_cooled_cameras_get_a_row_for_each_gain_setting(cooled_folder):
    folder, camera = cooled_folder
    shots = shot_list(folder, true_sensor_of(camera, error=0.03))
    rows = shots.table
    assert "iso" not in rows
    assert rows[rows.kind == "bias"].gain_setting.tolist() == [0, 120]
    assert rows.loc[rows.kind == "bias", "there"].tolist() == [3, 3]
    # time to saturation: measured at 0, where there are flats; at 120 by the e-/ADU of both
    full = {one: rows[(rows.kind == "flat") & (rows.gain_setting == one)].exposure.max() / 0.65 for one in (0, 120)}
    assert full[0] == pytest.approx(2.0, rel=0.1)  # the lamp reaches half of saturation in a second
    assert full[120] / full[0] == pytest.approx(camera.gain(120) / camera.gain(0), rel=0.1)
    assert rows[rows.why.str.contains("master dark")].gain_setting.tolist() == [120]
    assert "gain setting" in repr(shots)
    assert "ISO" not in repr(shots)


def test_a_gain_that_is_known_well_needs_no_more_flats(cooled_folder):
    folder, camera = cooled_folder
    rows = shot_list(folder, true_sensor_of(camera, error=0.002)).table
    assert rows.loc[rows.kind == "flat", "shoot"].sum() == 0


def test_without_a_white_level_the_list_asks_for_it(cooled_folder):
    folder, _ = cooled_folder
    unknown = dataclasses.replace(folder, table=folder.table.assign(white_level=np.nan))
    shots = shot_list(unknown)
    assert any("at which level the camera clips is not known" in note for note in shots.notes)
    assert not any("once there is a flat" in note for note in shots.notes)
