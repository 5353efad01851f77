"""Planning from a folder."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from workbench.cli import main
from workbench.core import write_sensor
from workbench.pipelines import characterize, plan_night
from workbench.pipelines.planning import Plan
from workbench.plan import ShotList, plan_subs
from workbench.simulate import d7000
from workbench.simulate.capture import Batch, cooled, write_frames


@pytest.fixture(scope="module")
def measured(samples):
    return characterize(samples, progress=False).sensor


def test_samples_get_iso_and_length(samples, measured):
    result = plan_night(samples, measured, progress=False)
    assert result.simulated
    assert result.subs.attrs["met"]
    camera = d7000(shape=(480, 720), activation_energy=0.65)
    frames = json.loads((samples / "truth.json").read_text())["frames"]
    sky = np.mean([frame["background"] for frame in frames if frame["kind"] == "light"], axis=0)
    iso = result.subs.attrs["best_iso"]
    faintest = min(sky) * (1 - camera.vignetting / 3) + camera.mean_dark_current(10.0)  # r² is a third on average
    assert result.subs.attrs["best_length"] == pytest.approx(9.76 * camera.read_noise(iso) ** 2 / faintest, rel=0.25)
    assert np.isfinite(result.hours.hours).all()
    assert not result.tracking.attrs["several_exposures"]  # so that a lower limit is all that they give
    text = repr(result)
    assert "shoot at ISO" in text
    assert "sky (from 8 lights of ISO 800)" in text
    assert "at least" in text
    assert text.count(" e⁻/s/pixel") == 2
    assert "e-/" not in text
    assert "<table" in result._repr_html_()
    assert result.charts() == ["sub-length", "star-elongation"]


def test_a_limit_given_counts(samples, measured):
    result = plan_night(samples, measured, longest=15.0, progress=False)
    assert not result.subs.attrs["met"]
    assert result.subs.attrs["best_length"] == 15.0
    assert "mount's limit" in repr(result)


def test_without_lights_there_is_still_a_shot_list(real_data):
    result = plan_night(real_data / "d7000-flats", progress=False)
    assert result.subs is None
    assert any("no light frames" in text for text in result.warnings)
    assert len(result.shots.missing)
    assert "what to shoot next" in repr(result)


def test_lights_without_a_measured_gain(real_data):
    result = plan_night(real_data / "m13", progress=False)
    assert result.subs is None
    assert any("gain is not measured" in text for text in result.warnings)


def test_on_the_command_line(samples, measured, tmp_path):
    sensor = write_sensor(measured, tmp_path / "sensor.json")
    out = tmp_path / "plan"
    done = CliRunner().invoke(main, ["plan", str(samples), "--sensor", str(sensor), "--out", str(out), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "frames to shoot" in done.output
    shots = pd.read_csv(out / "shots.csv")
    assert {"kind", "iso", "exposure_s", "wanted", "there", "shoot", "why"} <= set(shots.columns)
    assert (out / "sub-length.html").exists()
    assert (out / "star-elongation.png").exists()
    done = CliRunner().invoke(main, ["plan", str(samples), "--sensor", str(tmp_path / "none.json")])
    assert done.exit_code == 2
    assert "none.json" in done.output


def test_short_subs_name_the_mark_on_the_dial_and_a_camera_without_iso_none():
    def headline(iso, length):
        subs = xr.Dataset(attrs={"best_iso": iso, "best_length": length, "best_length_error": 0.4, "met": True})
        return Plan("", False, ShotList(pd.DataFrame()), subs=subs)._headline()

    assert "shoot at ISO 200, subs of 17.30 ± 0.40 s (20 s on the dial)" in headline(200.0, 17.3)
    assert "(" not in headline(200.0, 60.0)
    assert "shoot subs of 17.30 ± 0.40 s" in headline(np.nan, 17.3)


def test_cooled_cameras_are_planned_by_their_gain_settings(tmp_path):
    camera = cooled((64, 96))
    batches = [Batch("bias", 3, 0.0, 120.0), Batch("light", 2, 60.0, 120.0)]
    write_frames(tmp_path, camera, batches)
    gain = np.array([[camera.gain(setting)] for setting in (0.0, 120.0)])
    noise = np.array([[camera.read_noise(setting)] for setting in (0.0, 120.0)])
    values = {"gain": gain, "gain_error": 0.01 * gain, "read_noise": noise, "read_noise_error": 0.01 * noise}
    values |= {"black_level": 0 * gain + 800.0, "black_level_error": 0 * gain + 0.1}
    values |= dict.fromkeys(("bias_frames", "flat_frames"), np.full((2, 1), 12))
    data = {name: (("gain_setting", "channel"), value) for name, value in values.items()}
    sensor = xr.Dataset(data, {"gain_setting": [0.0, 120.0], "channel": ["mono"]}, {"camera": camera.camera})
    unknown = repr(plan_night(tmp_path, sensor, progress=False, longest=600))
    assert "nan" not in unknown
    assert "the dynamic range is not known: no file states a white level" in unknown
    padded = plan_night(tmp_path, sensor.assign_attrs(code_step=16), progress=False, longest=600)
    assert "stops" in repr(padded)
    stated = plan_subs(
        sensor.assign_attrs(code_step=16), padded.background, longest=600, white_level=camera.white_level
    )
    assert padded.subs.equals(stated)
    assert (
        padded.subs.attrs["best_iso"]
        == plan_night(tmp_path, sensor, progress=False, longest=600).subs.attrs["best_iso"]
    )
