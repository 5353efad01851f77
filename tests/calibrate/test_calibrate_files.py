"""A whole night in files: the frames that a user has, calibrated against what was there."""

import os

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, calibrate, make_masters, plan_groups
from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.simulate.night import write_night


@pytest.fixture(scope="module", params=["dng", "fits"])
def night(request, tmp_path_factory):
    return write_night(
        tmp_path_factory.mktemp("night"),
        shape=(160, 240),
        lights=2,
        biases=9,
        darks=9,
        flats=9,
        exposure=120.0,
        trails=1,
        cosmic_rays=8,
        suffix=request.param,
        seed=5,
        progress=False,
    )


def frames_of(night):
    folder = open_folder(night.folder, progress=False)
    return folder, {"bias": folder.bias, "dark": folder.dark, "flat": folder.flat}


def true_light(night, number):
    """The electrons that a perfectly flat sensor would have collected, and where nothing struck."""
    response = night.sensor.illumination() * night.sensor.response_map * night.through
    for place in np.ndindex(2, 2):
        plane = (slice(place[0], None, 2), slice(place[1], None, 2))
        response[plane] /= response[plane].mean()
    return night.expected(number) / response, ~night.cosmic_ray_mask(number)


def test_lights_from_files_come_out_as_the_truth(night):
    folder, frames = frames_of(night)
    noise = SensorNoise(night.sensor.gain(200), night.sensor.read_noise(200), iso=200)
    got = calibrate(folder.light, make_masters(folder.light, **frames, noise=noise, progress=False)).compute()
    for number, name in enumerate(folder.light["filename"].values):
        assert str(name).endswith(night.lights[number])
        truth, quiet = true_light(night, number)
        clean = quiet & (got["mask"].values[number] == 0)
        ratio = (got["signal"].values[number] - truth)[clean] ** 2 / got["variance"].values[number][clean]
        assert ratio.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / ratio.size))


def test_masters_are_kept_until_a_file_is_replaced(night, tmp_path):
    folder, frames = frames_of(night)
    make_masters(folder.light, **frames, folder=tmp_path, progress=False)
    first = sorted(path.name for path in tmp_path.iterdir())
    folder, frames = frames_of(night)  # opened anew, as the next run would
    make_masters(folder.light, **frames, folder=tmp_path, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == first
    touched = next((night.folder / "darks").iterdir())
    os.utime(touched, ns=(1, 1))
    folder, frames = frames_of(night)
    make_masters(folder.light, **frames, folder=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == len(first) + 1


def test_a_dark_cut_short_after_the_folder_was_opened_is_left_out_and_named(night):
    folder, frames = frames_of(night)
    victim = sorted((night.folder / "darks").iterdir())[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) * 3 // 4])
    try:
        made = make_masters(folder.light, **frames, progress=False)
    finally:
        victim.write_bytes(whole)
    assert made.masters[0].dark.attrs["frames"] == 8
    assert any(victim.name in word and "left out" in word for word in made.warnings)


def test_darks_of_another_night_setting_stop_with_a_word(night, tmp_path):
    other = write_night(
        tmp_path, shape=(160, 240), lights=1, biases=0, darks=2, flats=0, iso=800, suffix="fits", progress=False
    )
    folder = open_folder(night.folder, progress=False)
    with pytest.raises(WorkbenchError, match="the darks have ISO 800 .*, the lights ISO 200"):
        plan_groups(folder.light, dark=open_folder(other.folder, progress=False).dark)
