"""characterize's uniformity: against the truth, with thin frames, on real ones, and as it stands in the file."""

import json

import jsonschema
import numpy as np
import pytest

from workbench.core import SCHEMA, open_sensor
from workbench.core.cube import make_cube
from workbench.core.defects import open_defects
from workbench.core.values import attribute_dict
from workbench.ingest import open_folder
from workbench.pipelines import characterize
from workbench.pipelines.uniformity import json_blocks, measure_uniformity
from workbench.sensor import fit_gain, photon_transfer, read_noise
from workbench.simulate import d7000, expose


@pytest.fixture(scope="module")
def written(small_samples, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return characterize(small_samples, out=out, progress=False), out


def test_the_file_keeps_its_form_and_comes_back(written):
    result, out = written
    content = json.loads((out / "sensor.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    assert open_sensor(out).identical(result.sensor)
    assert set(attribute_dict(result.sensor.attrs, "blocks")) == {"dsnu", "prnu", "dcnu", "defects", "emva", "fidelity"}


def test_numbers_against_the_truth(written, small_samples):
    _, out = written
    content = json.loads((out / "sensor.json").read_text())
    truth = json.loads((small_samples / "truth.json").read_text())
    prnu, dsnu = content["prnu"], content["dsnu"]
    assert abs(prnu["value"] - truth["prnu"]["value"]) < 4 * prnu["error"] < 0.1
    assert prnu["unfiltered"]["value"] > 5
    pattern = truth["fixed_pattern"]["value"] * truth["settings"][0]["gain"]["value"]
    assert abs(dsnu["value"] - pattern) < 4 * dsnu["error"] < 0.2
    assert len(dsnu["settings"]) == 8
    assert content["dark_law"]["activation_energy"]["unit"] == "eV"
    energy, true = (one["dark_law"]["activation_energy"] for one in (content, truth))
    assert abs(energy["value"] - true["value"]) < 3 * energy["error"] < 0.15
    warmest = content["dcnu"]["settings"][-1]
    assert warmest["temperature_c"] == 20
    assert warmest["value"] > 0.03
    emva = content["emva"]
    np.testing.assert_allclose(emva["K"]["value"], 1 / truth["settings"][0]["gain"]["value"], rtol=0.02)
    np.testing.assert_allclose(emva["sigma_d"]["value"], truth["settings"][0]["read_noise"]["value"], rtol=0.03)
    assert emva["QE"]["value"] is None
    assert content["fidelity"]["verdict"] == "raw"
    assert content["fidelity"]["multiplier"] == {"R": 1.0, "G1": 1.0, "G2": 1.0, "B": 1.0}


def test_the_map_of_defects_lies_beside(written):
    result, out = written
    content = json.loads((out / "sensor.json").read_text())["defects"]
    found = open_defects(out / content["file"])
    assert found.identical(result.uniformity.defects)
    assert np.count_nonzero(found.values & 1) == content["hot"] > 10
    assert content["dead"] == 0


def test_without_a_folder_nothing_is_written_and_the_file_is_not_named(small_samples):
    folder = open_folder(small_samples, progress=False)
    result = characterize(folder.select(kind="bias"), progress=False)
    found = attribute_dict(result.sensor.attrs, "blocks")
    assert found["defects"]["file"] is None
    assert found["defects"]["hot"] is None
    assert found["dsnu"]["value"] is None  # no gain, no electrons
    assert "prnu" not in found
    assert np.isfinite(result.uniformity.dsnu["dsnu_adu"].sel(part="total")).all()


def test_one_bias_frame_says_what_to_shoot(small_samples):
    bias = open_folder(small_samples, progress=False).bias
    single = bias.isel(frame=[0])
    found = measure_uniformity(single, None, progress=False)
    assert found.dsnu is None
    assert "shoot ten or more" in found.warnings[0]
    assert json_blocks(found, None, written=False) == {}


def test_one_light_level_is_too_few_for_the_standard(small_samples):
    folder = open_folder(small_samples, progress=False)
    flat = folder.flat
    one = flat.isel(frame=np.flatnonzero((flat.iso == 200) & (flat.exposure == flat.exposure.max())))
    noise = read_noise(folder.bias, progress=False)
    ptc = photon_transfer(one, noise, progress=False)
    found = measure_uniformity(folder.bias, one, read=noise, ptc=ptc, gain=fit_gain(ptc), progress=False)
    assert found.emva == {}
    assert found.prnu is not None


def test_a_camera_without_a_mosaic():
    camera = d7000(seed=6, shape=(120, 160), cfa_pattern="mono")
    common = {"cfa_pattern": "mono", "white_level": 16383, "black_level": 600, "iso": 100}
    bias = make_cube([expose(camera, iso=100, exposure=1e-4, seed=n) for n in range(6)], kind="bias", **common)
    times = np.repeat([0.01, 0.04, 0.08, 0.12, 0.16, 0.2, 0.25], 2)
    frames = [expose(camera, 2e5, iso=100, exposure=t, seed=n) for n, t in enumerate(times)]
    flat = make_cube(frames, kind="flat", exposure=times, filename=[f"{n}.dng" for n in range(14)], **common)
    noise = read_noise(bias, progress=False)
    ptc = photon_transfer(flat, noise, progress=False)
    found = measure_uniformity(bias, flat, read=noise, ptc=ptc, gain=fit_gain(ptc), progress=False)
    content = json_blocks(found, None, written=False)
    assert list(content["emva"]["K"]["channels"]) == ["mono"]
    assert content["emva"]["u_e_sat"]["value"] is not None
    assert abs(content["prnu"]["value"] - 0.6) < 4 * content["prnu"]["error"]


def test_the_real_d7000_is_cooked_and_its_pixels_differ_little(real_data, tmp_path):
    characterize(real_data / "d7000-flats", out=tmp_path, progress=False)
    content = json.loads((tmp_path / "sensor.json").read_text())
    jsonschema.validate(content, json.loads(SCHEMA.read_text()))
    fidelity = content["fidelity"]
    assert fidelity["verdict"] == "cooked"
    assert abs(fidelity["multiplier"]["R"] - 1.12) < 0.01
    assert abs(fidelity["multiplier"]["B"] - 1.16) < 0.01
    assert fidelity["multiplier"]["G1"] == fidelity["multiplier"]["G2"] == 1
    assert fidelity["black_subtracted"] is True
    assert 0.1 < content["prnu"]["value"] < 1.5
    assert "dsnu" not in content
    assert any("bias" in text for text in content["warnings"])


def test_bias_frames_clipped_at_zero_give_the_dsnu_of_the_likelihood():
    camera = d7000(seed=4, shape=(256, 320), black_level=0.0, pixel_offset=0.8, column_offset=0.4)
    frames = [expose(camera, iso=100, exposure=1 / 8000, seed=number) for number in range(6)]
    bias = make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100, white_level=16383)
    noise = read_noise(bias, progress=False)
    found = measure_uniformity(bias, None, read=noise, progress=False).dsnu.isel(iso=0)
    total = found.sel(filter="none", part="total")
    truth = [camera.offset_map[y::2, x::2].std() for y in (0, 1) for x in (0, 1)]
    assert (np.abs(total.dsnu_adu - truth) < 4 * total.dsnu_adu_error).all()
    assert (total.dsnu_adu_error < 0.06 * total.dsnu_adu).all()
    assert np.isnan(found.dsnu_adu.sel(part="row")).all()
    assert any("DSNU" in text and "clipped" in text for text in noise.attrs["warnings"])
