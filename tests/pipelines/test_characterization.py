"""A folder in, sensor.json out: the truth within its errors, and clear words for every kind of bad input."""

import json
import re
import shutil
from collections import Counter

import jsonschema
import numpy as np
import pytest
import xarray as xr

import workbench
from tests.scenes import Shooting
from workbench.core import SCHEMA
from workbench.core.cube import XTRANS
from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder, reader
from workbench.ingest.raw import read_raw
from workbench.pipelines import characterize, inspect
from workbench.simulate import d7000
from workbench.simulate.capture import Batch, cooled, write_frames

CAMERA = d7000(seed=11, shape=(96, 128))
PIECES = (
    "read_noise", "ptc", "gain", "unity", "dark_signal", "dark_current", "dark_law", "dark_noise", "dcnu", "hot_pixels",
    "vignetting", "dark_subtraction", "snr",
)  # fmt: skip


@pytest.fixture
def camera(tmp_path):
    return Shooting(tmp_path / "frames")


def measure(folder, out=None):
    return characterize(folder, out=out, progress=False)


def says(result, *words):
    """Exactly one warning holds all these words."""
    found = [text for text in result.warnings if all(word in text for word in words)]
    assert len(found) == 1, result.warnings
    return found[0]


def pulls(result, truth, name):
    values, errors = result.sensor[name], result.sensor[f"{name}_error"]
    return ((values - truth) / errors).values


def check_schema(path):
    content = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    return content


def test_the_samples_give_their_truth_within_the_stated_errors(samples, tmp_path):
    result = measure(samples, tmp_path / "out")
    truth = d7000(shape=(480, 720))
    known = json.loads((samples / "truth.json").read_text())["dark_current"]
    dark = {one["temperature_c"]: one["value"] for one in known}
    assert all(getattr(result, piece) is not None for piece in PIECES)
    isos = result.sensor.iso.values
    assert isos.tolist() == [100, 200, 400, 800, 1600, 3200, 6400]
    per_iso = {
        "gain": [truth.gain(iso) for iso in isos],
        "read_noise": [truth.read_noise(iso) for iso in isos],
        "black_level": [600.0] * 7,
    }
    for name, values in per_iso.items():
        pull = pulls(result, np.array(values)[:, None], name)
        assert np.abs(pull).max() < 4.5, name  # of 28
        assert 0.5 < np.sqrt(np.mean(pull**2)) < 1.6, name
    np.testing.assert_allclose(result.sensor.gain, np.array(per_iso["gain"])[:, None] * np.ones(4), rtol=0.01)
    assert abs(result.sensor.unity_gain_iso - 213) < 4 * result.sensor.unity_gain_iso_error
    assert result.sensor.unity_gain_iso_error < 1
    for one in (result.sensor.isel(setting=i) for i in range(6)):
        assert abs(one.dark_current / dark[float(one.setting_temperature)] - 1) < 0.01
    assert abs(result.sensor.activation_energy - 0.65) < 3 * result.sensor.activation_energy_error
    assert 0.005 < result.sensor.activation_energy_error < 0.015  # 0.5 K of the thermometer in 40 K
    assert result.sensor.attrs["dark_laws"] == "arrhenius", "the data choose: one doubling temperature does not hold"
    assert result.simulated
    assert not result.warnings
    content = check_schema(tmp_path / "out" / "sensor.json")
    assert content["camera"] == "NIKON D7000 (simulated)"
    assert workbench.open_sensor(tmp_path / "out").identical(result.sensor)


def test_the_small_samples_give_every_piece(result):
    lacking = [piece for piece in PIECES if getattr(result, piece) is None]
    assert not lacking
    assert (
        sum(getattr(result, piece).nbytes for piece in ("dcnu", "hot_pixels", "vignetting", "dark_subtraction")) < 2e6
    )


def test_what_is_printed_is_short_and_complete(result):
    text = str(result)
    assert "simulated" in text.splitlines()[0]
    assert "±" in text
    assert "unity gain" in text
    assert len(text.splitlines()) < 30
    assert text.splitlines()[2].split()[:2] == ["200", "all"], "channels that agree share a row"
    table = result.table()
    assert set(table["iso"]) == {200, 800}
    assert len(table) == 8
    assert "<table" in result._repr_html_()


def test_a_real_camera_without_bias_frames(real_data, tmp_path):
    result = measure(real_data / "d7000-flats", tmp_path)
    published = [2.270, 2.577, 2.528, 2.174]
    np.testing.assert_allclose(result.sensor.gain[0], published, rtol=0.03)
    assert (result.sensor.gain_error[0] / result.sensor.gain[0] < 0.012).all()
    assert not result.simulated
    assert result.read_noise is None
    assert result.sensor.read_noise.isnull().all()
    says(result, "no bias frames", "shoot")
    says(result, "no darks")
    says(result, "only one flat", "crop_55.fit")
    says(result, "multiplied its numbers", "R by 1.12", "B by 1.16")
    content = check_schema(tmp_path / "sensor.json")
    assert content["settings"][0]["black_level"] is None
    assert content["unity_gain_iso"] is None


def test_bias_alone_gives_noise_in_adu_and_says_what_is_missing(camera):
    camera.bias()
    result = measure(camera.folder)
    assert result.read_noise is not None
    assert [p for p in PIECES if getattr(result, p) is not None] == ["read_noise"]
    assert result.sensor.read_noise.isnull().all()
    assert result.sensor.black_level.notnull().all()
    says(result, "no pairs of flats", "70 % of saturation")


def test_no_bias_at_all_is_a_free_intercept(camera):
    camera.flats((0.004, 0.0125, 0.03, 0.05))
    result = measure(camera.folder)
    assert (np.abs(pulls(result, CAMERA.gain(800), "gain")) < 4).all()
    says(result, "no bias frames", "free intercept")


def test_bias_at_another_iso_is_named(camera):
    camera.bias(iso=200.0)
    camera.flats()
    result = measure(camera.folder)
    says(result, "no bias frames at ISO 800")
    assert result.sensor.read_noise.isnull().all()
    assert result.sensor.gain.sel(iso=800).notnull().all()


def test_a_single_flat_at_a_level(camera):
    camera.bias()
    camera.flats((0.0125, 0.03))
    (lone,) = camera.flats((0.05,), frames=1)
    result = measure(camera.folder)
    says(result, "only one flat", lone.name)
    assert (np.abs(pulls(result, CAMERA.gain(800), "gain")) < 4).all()


def test_single_flats_only(camera):
    camera.bias()
    camera.flats((0.0125, 0.03), frames=1)
    result = measure(camera.folder)
    assert result.gain is None
    assert result.ptc is None
    says(result, "no pairs of flats")


@pytest.mark.parametrize(("exposure", "words"), [(4.0, "saturated"), (1e-7, "no light")])
def test_saturated_and_black_flats(camera, exposure, words):
    camera.bias()
    camera.flats((exposure,), frames=3)
    result = measure(camera.folder)
    assert result.gain is None
    assert result.sensor.gain.isnull().all()
    says(result, "gain at ISO 800", words, "shoot")


def test_a_frame_of_another_size_is_set_aside(camera):
    camera.bias(6)
    camera.flats()
    (odd,) = Shooting(camera.folder, d7000(seed=1, shape=(64, 64))).bias(1, name="other")
    result = measure(camera.folder)
    assert [path for path, _ in result.set_aside] == [odd]
    says(result, odd.name, "size is 64 x 64", "128 x 96")
    assert result.frame_counts["bias"] == 6


def test_a_frame_of_another_camera_or_mosaic_is_set_aside(camera):
    camera.bias(6)
    camera.flats()
    stranger = d7000(seed=1, shape=(96, 128), camera="NIKON D5300 (simulated)")
    turned = d7000(seed=1, shape=(96, 128), cfa_pattern="GBRG")
    others = {"d5300": stranger, "turned": turned}
    odd = [Shooting(camera.folder, other).bias(1, name=name)[0] for name, other in others.items()]
    result = measure(camera.folder)
    assert sorted(path for path, _ in result.set_aside) == sorted(odd)
    says(result, "d5300", "NIKON D5300")
    says(result, "turned", "GBRG", "RGGB")


def test_a_light_of_another_size_is_set_aside(camera):
    camera.bias()
    camera.flats()
    camera.darks(frames=3)
    (odd,) = Shooting(camera.folder, d7000(seed=1, shape=(64, 64))).shoot("lights", 1, exposure=600.0)
    result = measure(camera.folder)
    assert [path for path, _ in result.set_aside] == [odd]
    assert result.dark_subtraction.attrs["kind"] == "dark"


def test_half_of_one_camera_and_half_of_another_is_refused(camera):
    camera.bias(3)
    Shooting(camera.folder, d7000(seed=1, shape=(64, 64))).bias(3, name="other")
    with pytest.raises(WorkbenchError, match=r"different size .*128 x 96: 3 .*64 x 64: 3 .*folder of its own"):
        measure(camera.folder)


def strip_iso(folder, kinds=("bias", "flats")):
    """A manifest that leaves the ISO empty does not hide it; frames that never had one are dcraw's PGM files."""
    for path in [path for kind in kinds for path in sorted((folder / kind).glob("*.dng"))]:
        mosaic = workbench.read_frame(path)
        with path.with_suffix(".pgm").open("wb") as file:
            file.write(b"P5\n%d %d\n65535\n" % mosaic.shape[::-1] + mosaic.astype(">u2").tobytes())
        path.unlink()


def test_frames_that_state_neither_iso_nor_exposure(camera):
    """dcraw's PGM files know nothing: the levels are told apart by their light."""
    camera.bias()
    camera.flats((0.0125, 0.03, 0.05))
    strip_iso(camera.folder)
    names = [f"flats/{path.name},flat,RGGB" for path in sorted((camera.folder / "flats").iterdir())]
    names += [f"bias/{path.name},bias,RGGB" for path in sorted((camera.folder / "bias").iterdir())]
    (camera.folder / "frames.csv").write_text("\n".join(["file,kind,cfa", *names]))
    result = measure(camera.folder)
    says(result, "not of one light level", "3 levels")
    assert result.sensor.iso.isnull().all()
    assert (np.abs(pulls(result, CAMERA.gain(800), "gain")) < 4).all()
    assert "–" in str(result)


def test_a_flat_without_iso_among_others_is_set_aside(camera):
    camera.bias()
    camera.flats()
    path = camera.folder / "frames.csv"
    mosaic = workbench.read_frame(sorted((camera.folder / "flats").iterdir())[0])
    with (camera.folder / "flats" / "nameless.pgm").open("wb") as file:
        file.write(b"P5\n%d %d\n65535\n" % mosaic.shape[::-1] + mosaic.astype(">u2").tobytes())
    path.write_text("file,kind,cfa,camera\nflats/nameless.pgm,flat,RGGB,NIKON D7000 (simulated)\n")
    result = measure(camera.folder)
    says(result, "nameless.pgm", "states no ISO", "frames.csv")


def test_a_file_that_fails_only_when_it_is_decoded_is_set_aside_and_the_rest_measured(camera):
    camera.bias(4)
    flats = camera.flats()
    camera.darks()
    found = open_folder(camera.folder)
    for path in (flats[2], camera.folder / "bias" / "bias_002.dng"):
        path.write_bytes(path.read_bytes()[:-3000])  # as if the card were pulled out
    result = measure(found)
    assert {path.name for path, _ in result.set_aside} == {flats[2].name, "bias_002.dng"}
    says(result, "cut short", "1 more file like it")
    assert result.frame_counts["bias"] == 3
    assert result.gain.levels_used.max() == 2
    assert (np.abs(pulls(result, CAMERA.gain(800), "gain")) < 4).all()


def test_frames_that_must_be_decoded_are_decoded_once_and_give_the_same_numbers(camera, monkeypatch):
    camera.bias(4)
    camera.flats()
    camera.darks()
    found = open_folder(camera.folder)
    plain = measure(found)
    decoded = Counter()

    def decode(path, area="visible"):
        decoded[path] += 1
        return read_raw(path, area)

    monkeypatch.setattr(reader, "plain_pixels", lambda path: None)  # as of compressed frames
    monkeypatch.setattr(reader, "read_raw", decode)
    assert measure(found).sensor.identical(plain.sensor)
    assert set(decoded.values()) == {1}
    assert len(decoded) == found.table["kind"].isin(["bias", "flat", "dark"]).sum()


def test_stock_firmware_gives_no_silent_number(tmp_path):
    stock = Shooting(tmp_path, firmware="stock")
    stock.bias(4)
    stock.flats((0.004, 0.0125, 0.03, 0.05))
    stock.darks()
    result = measure(tmp_path)
    assert (result.read_noise.method == "clipped").all()
    # saved ADU are smaller by the multiplier, and so is the gain: in electrons nothing of it is left
    assert (abs(result.sensor.read_noise / CAMERA.read_noise(800) - 1) < 0.04).all()
    assert (abs(result.sensor.read_noise - CAMERA.read_noise(800)) < 4 * result.sensor.read_noise_error).all()
    np.testing.assert_allclose(result.sensor.black_level, 0, atol=0.5)
    says(result, "bias frames at ISO 800 are clipped at zero", "explains the pixels above zero")
    says(result, "multiplied its numbers", "R by 1.12", "B by 1.16")
    # greens are not multiplied: their gain is right
    green = result.gain.sel(iso=800, channel=["G1", "G2"])
    assert (abs(green.gain - CAMERA.gain(800)) < 4 * green.gain_error).all()


def test_darks_without_a_gain_at_their_iso(camera):
    camera.bias(iso=200.0)
    camera.flats((0.03, 0.1), iso=200.0)
    camera.bias(iso=800.0)
    camera.darks(iso=800.0)
    result = measure(camera.folder)
    says(result, "gain at ISO 800 is not measured", "flats")
    assert result.dark_current is None
    assert result.sensor.sizes["setting"] == 1
    assert result.sensor.dark_current.isnull().all()


def test_darks_warmer_than_they_say(camera):
    camera.bias()
    camera.flats()
    camera.darks(frames=3)
    (liar,) = camera.shoot("darks", 1, exposure=600.0, temperature=32.0, name="sun")
    text = f"file,kind,temperature_c\ndarks/{liar.name},dark,20\n"
    (camera.folder / "frames.csv").write_text(text)
    found = open_folder(camera.folder)
    found.table.loc[found.table["file"] == f"darks/{liar.name}", "temperature"] = 20.0
    says(measure(found), liar.name, "check its temperature")


def test_folders_with_nothing_to_measure(tmp_path, camera):
    for folder, words in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "no frames")):
        with pytest.raises(WorkbenchError, match=words):
            measure(folder)
    camera.shoot("lights", 1, exposure=60.0)
    with pytest.raises(WorkbenchError, match="no bias, flat or dark frames to measure"):
        measure(camera.folder)


def test_the_output_folder_is_checked_before_the_work(camera, tmp_path):
    camera.bias()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WorkbenchError, match="cannot be made a folder"):
        measure(camera.folder, tmp_path / "file")


def test_what_lies_in_the_output_folder_is_not_measured_with_the_rest(camera):
    camera.bias()
    measure(camera.folder, camera.folder / "out")
    again = measure(camera.folder, camera.folder / "out")
    assert again.frame_counts["bias"] == 3
    assert not again.set_aside


def test_the_same_frames_give_the_same_file(camera, tmp_path):
    camera.bias()
    camera.flats()
    camera.darks()
    for name in ("one", "two"):
        measure(camera.folder, tmp_path / name)
    assert (tmp_path / "one" / "sensor.json").read_bytes() == (tmp_path / "two" / "sensor.json").read_bytes()
    moved = tmp_path / "moved"
    shutil.copytree(camera.folder, moved)
    measure(moved, tmp_path / "three")
    assert (tmp_path / "one" / "sensor.json").read_bytes() == (tmp_path / "three" / "sensor.json").read_bytes()


@pytest.fixture(scope="module")
def cooled_camera(tmp_path_factory):
    """Two gain settings of a cooled camera, twelve bits in sixteen, with frames of other modes among them."""
    body, folder = cooled((120, 160), dark_current=1.5), tmp_path_factory.mktemp("cooled")
    batches = [
        batch
        for gain in (0, 120)
        for batch in (
            Batch("bias", 8, 0.0, gain_setting=gain),
            Batch("dark", 4, 60.0, gain_setting=gain),
            Batch("dark", 4, 300.0, gain_setting=gain),
            *(Batch("flat", 2, seconds, gain_setting=gain, lamp=0.1 * seconds) for seconds in (1, 2, 4, 6)),
            Batch("flat", 2, 16.0, gain_setting=gain, lamp=1.6),
        )
    ]
    batches += [
        Batch("bias", 3, 0.0, offset_setting=10),
        Batch("dark", 2, 300.0, header={"READOUTM": "High Gain"}),
    ]
    write_frames(folder, body, batches, seed=3)
    return body, folder


@pytest.fixture(scope="module")
def cooled_result(cooled_camera, tmp_path_factory):
    out = tmp_path_factory.mktemp("measured")
    return characterize(cooled_camera[1], out, progress=False), out


def test_each_gain_setting_has_its_own_numbers(cooled_camera, cooled_result):
    body, (result, out) = cooled_camera[0], cooled_result
    sensor = result.sensor.sel(channel="mono")
    assert sensor["gain_setting"].values.tolist() == [0, 120]
    for setting in (0.0, 120.0):
        one = sensor.sel(gain_setting=setting)
        truth = {"gain": body.gain(setting), "read_noise": body.read_noise(setting), "black_level": 800.0}
        for name, value in truth.items():
            assert abs(one[name] - value) < 3.5 * one[f"{name}_error"], (setting, name)
        assert abs(one["full_well"] / (body.gain(setting) * (65520 - 800)) - 1) < 0.01
    rate = body.mean_dark_current(-10)
    assert sensor["setting_gain_setting"].values.tolist() == [0, 120]
    assert (abs(sensor["dark_current"] - rate) < 3.5 * sensor["dark_current_error"]).all()
    xr.testing.assert_identical(workbench.open_sensor(out), result.sensor)
    check_schema(out / "sensor.json")


def test_no_iso_in_the_words_for_a_camera_with_gain_settings(cooled_result):
    result, _ = cooled_result
    assert "gain setting" in str(result)
    assert not re.search(r"\bISO\b", f"{result}{result._repr_html_()}")
    assert not any("subtract" in text for text in result.warnings)


def test_frames_of_another_operating_mode_are_set_aside_with_the_reason(cooled_result):
    result, _ = cooled_result
    assert [result.sensor.attrs[name] for name in ("offset_setting", "readout_mode")] == [50, "Normal"]
    assert len(result.set_aside) == 5
    says(result, "offset setting 10", "offset setting 50", "2 more files")
    says(result, "readout mode High Gain", "readout mode Normal")


def test_twelve_bits_in_sixteen_are_an_ordinary_camera(cooled_camera, cooled_result):
    result, out = cooled_result
    report = inspect(cooled_camera[1], progress=False)
    for fidelity in (result.fidelity, report.fidelity):
        assert fidelity.card.attrs["verdict"] == "raw"
        assert fidelity.missing.attrs["padding"] == 16
        assert "12 of the 16 bits: they come in steps of 16." in fidelity.card.sel(test="bits").finding.item()
        assert "stated level" not in fidelity.card.sel(test="white").finding.item()
        assert fidelity.missing.multiplier.min() == 1
    assert result.sensor.attrs["code_step"] == 16
    assert "steps of 16 ADU: 12 bits" in str(result)
    assert not any(word in text for text in result.warnings for word in ("multiplied", "firmware"))
    assert workbench.open_sensor(out).attrs["code_step"] == 16


def test_x_trans_is_measured_by_colour(tmp_path):
    truth = d7000(seed=12, shape=(192, 240), cfa_pattern=XTRANS)
    camera = Shooting(tmp_path / "frames", truth, lamp=(27_000.0, 61_000.0, 50_000.0))
    camera.bias(8)
    camera.flats((0.005, 0.0125, 0.02, 0.03), iso=800)
    camera.darks((120.0, 300.0), frames=3)
    result = measure(camera.folder, tmp_path / "out")
    assert result.sensor.channel.values.tolist() == ["R", "G", "B"]
    for name, value in (
        ("gain", truth.gain(800)), ("read_noise", truth.read_noise(800)), ("black_level", truth.black_level),
    ):  # fmt: skip
        assert np.abs(pulls(result, value, name)).max() < 4, name
    assert result.uniformity.defects.sizes == {"y": 192, "x": 240}
    says(result, "DSNU and PRNU are given in all", "X-Trans")
    prnu = result.uniformity.prnu.sel(filter="highpass", part="total")
    assert (np.abs(prnu.prnu - 100 * truth.response_map.std()) < 4 * prnu.prnu_error + 0.02).all()
    check_schema(tmp_path / "out" / "sensor.json")
    card = inspect(camera.folder, progress=False)
    assert "an X-Trans sensor" in str(card)
