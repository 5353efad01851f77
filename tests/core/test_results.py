"""sensor.json: exactly the promised form, there and back, and clear words for a wrong file."""

import json
import os

import jsonschema
import numpy as np
import pytest
import xarray as xr
from astropy import units

from workbench import open_sensor
from workbench.core import SCHEMA, is_simulated, sensor_dataset, value_text, write_sensor
from workbench.core.errors import WorkbenchError
from workbench.core.sensor_file import sensor_text
from workbench.core.values import unit_registry, unit_text

CHANNELS = ["R", "G1", "G2", "B"]


@pytest.fixture
def sensor():
    """Two ISO settings with everything, a third without flats, one dark setting without gain."""
    rng = np.random.default_rng(0)
    dims = ("iso", "channel")
    read = xr.Dataset(
        {
            "read_noise_adu": (dims, rng.uniform(1, 3, (3, 4))),
            "read_noise_adu_error": (dims, np.full((3, 4), 0.01)),
            "black_level": (dims, rng.uniform(590, 610, (3, 4))),
            "black_level_error": (dims, np.full((3, 4), 0.02)),
            "frames": ("iso", [8, 8, 4]),
            "method": (dims, np.array([["pairs"] * 4, ["clipped"] * 4, ["pairs"] * 4], object)),
        },
        {"iso": [100.0, 200.0, 400.0], "channel": CHANNELS},
    )
    used = np.ones((4, 4), bool)
    used[3, 0] = False
    gain = xr.Dataset(
        {
            "gain": (dims, rng.uniform(1, 2, (2, 4))),
            "gain_error": (dims, np.full((2, 4), 0.015)),
            "used": (("pair", "channel"), used),
        },
        {"iso": [100.0, 200.0], "channel": CHANNELS},
    )
    ptc = xr.Dataset(
        coords={
            "iso": ("pair", [100.0, 100.0, 100.0, 200.0]),
            "filename_1": ("pair", ["a", "b", "c", "d"]),
            "filename_2": ("pair", ["b", "c", "a", "e"]),
        }
    )
    unity = xr.Dataset({"unity_gain_iso": 213.0, "unity_gain_iso_error": 0.4})
    dark = xr.Dataset(
        {
            "dark_current": ("setting", [0.1, 0.3, np.nan]),
            "dark_current_error": ("setting", [0.001, 0.002, np.nan]),
            "median": ("setting", [0.09, 0.28, np.nan]),
            "saturated_pixels": ("setting", [0.0, 3.0, 1.0]),
        },
        {"iso": ("setting", [200.0, 200.0, 800.0]), "temperature": ("setting", [10.0, 20.0, np.nan])},
    )
    law = xr.Dataset(
        {
            "doubling_temperature": 6.1,
            "doubling_temperature_error": 0.1,
            "reference_temperature": 15.0,
            "dark_current_reference": 0.17,
            "dark_current_reference_error": np.nan,
        }
    )
    full = np.array([[np.nan, 33_640.0, 33_600.0, 33_700.0], [np.nan] * 4])
    wells = gain.assign(
        full_well=(dims, full),
        full_well_error=(dims, np.where(full > 33_690, np.inf, full / 500)),  # one is a lower bound
        method=(dims, np.where(np.isfinite(full), "plateau", "").astype(object)),
        limit=(dims, np.where(np.isfinite(full), "well", "").astype(object)),
    )
    stops = xr.Dataset({"dynamic_range": (dims, full / 3000), "dynamic_range_error": (dims, full / 1e6)}, gain.coords)
    names = ("linearity_error", "linearity_error_min", "linearity_error_max", "linearity_error_error")
    line = xr.Dataset({name: (dims, full / 1e5 - i) for i, name in enumerate(names)}, gain.coords)
    line["linearity_error_error"] = abs(line["linearity_error_error"])
    bend = xr.Dataset({"curvature": (dims, -full / 1e10), "curvature_error": (dims, full / 1e11)}, gain.coords)
    alone = gain.isel(iso=[1], channel=[0, 1]).assign(agrees=(dims, [[True, False]]))
    split = xr.Dataset(
        {f"{name}{tail}": 0.5 for name in ("before_gain", "after_gain", "invariance_iso") for tail in ("", "_error")}
    )
    return sensor_dataset(
        "NIKON D7000 (simulated)",
        read=read, ptc=ptc, gain=gain, unity=unity, dark_current=dark, dark_law=law, warnings=["no darks at ISO 100"],
        split=split, wells=wells, dynamic_range=stops, linearity=line, curvature=bend, dark_gain=alone,
    )  # fmt: skip


def test_there_and_back(sensor, tmp_path):
    path = write_sensor(sensor, tmp_path)
    assert path == tmp_path / "sensor.json"
    assert [file.name for file in tmp_path.iterdir()] == ["sensor.json"]
    for given in (path, tmp_path, str(path)):
        xr.testing.assert_identical(open_sensor(given), sensor)


def test_read_noise_in_electrons_has_both_errors(sensor):
    noise, gain = 3.0, 2.0
    one = sensor.isel(iso=0, channel=1)
    adu = one.read_noise / one.gain
    np.testing.assert_allclose(one.read_noise_error / one.read_noise, np.hypot(0.01 / adu, 0.015 / one.gain))
    assert noise * gain == 6


def test_the_file_says_exactly_what_is_promised(sensor, tmp_path):
    content = json.loads(write_sensor(sensor, tmp_path).read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    assert content["schema_version"] == 3
    assert content["camera"] == "NIKON D7000 (simulated)"
    assert content["simulated"] is True
    assert len(content["settings"]) == 12
    first = content["settings"][0]
    assert (first["iso"], first["channel"]) == (100, "R")
    units = {name: first[name]["unit"] for name in ("black_level", "gain", "read_noise")}
    assert units == {"black_level": "ADU", "gain": "e-/ADU", "read_noise": "e- rms"}
    assert set(first["gain"]) == {"value", "error", "unit"}
    assert (first["bias_frames"], first["flat_frames"], first["frames_used"]) == (8, 3, 11)
    lacking = next(entry for entry in content["settings"] if entry["iso"] == 400)
    assert lacking["gain"] is None
    assert lacking["read_noise"] is None
    assert lacking["black_level"]["value"] > 0
    unused = next(entry for entry in content["settings"] if (entry["iso"], entry["channel"]) == (200, "R"))
    assert unused["flat_frames"] == 0
    assert content["unity_gain_iso"] == {"value": 213.0, "error": 0.4, "unit": "ISO"}
    assert content["dark_current"][1] == {
        "iso": 200, "temperature_c": 20, "value": 0.3, "error": 0.002, "unit": "e-/s/pixel", "median": 0.28,
        "saturated_pixels": 3,
    }  # fmt: skip
    assert content["dark_current"][2]["value"] is None
    assert content["dark_current"][2]["temperature_c"] is None
    assert content["dark_law"]["doubling_temperature"] == {"value": 6.1, "error": 0.1, "unit": "K"}
    assert content["dark_law"]["reference_temperature"] == 15
    assert content["dark_law"]["dark_current_reference"]["error"] is None
    assert content["warnings"] == ["no darks at ISO 100"]
    assert [entry["read_noise_method"] for entry in content["settings"][::4]] == ["pairs", "clipped", "pairs"]
    assert first["full_well"] is None
    assert first["full_well_method"] is None
    assert content["full_well"] == {
        "iso": 100, "channel": "G1", "value": 33_640, "error": 33_640 / 500, "unit": "e-", "method": "plateau",
        "limit": "well",
    }  # fmt: skip
    line = content["linearity"]
    assert (line["iso"], line["channel"], line["unit"], line["value"]) == (100, "G1", "%", 0.3364)
    assert line["minimum"] == 0.3364 - 1
    dark = content["gain_from_darks"]
    assert [(entry["iso"], entry["channel"], entry["agrees_with_flats"]) for entry in dark] == [
        (200, "R", True),
        (200, "G1", False),
    ]
    assert content["read_noise_split"]["invariance_iso"] == {"value": 0.5, "error": 0.5, "unit": "ISO"}


def test_a_file_of_the_first_version_opens_with_nan_for_what_came_later(sensor, tmp_path):
    path = write_sensor(sensor, tmp_path)
    content = json.loads(path.read_text()) | {"schema_version": 1}
    old = ("iso", "channel", "black_level", "gain", "read_noise", "frames_used", "bias_frames", "flat_frames")
    content["settings"] = [{name: entry[name] for name in old} for entry in content["settings"]]
    for name in ("read_noise_split", "full_well", "linearity", "gain_from_darks"):
        del content[name]
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    path.write_text(json.dumps(content))
    again = open_sensor(path)
    xr.testing.assert_identical(again["gain"], sensor["gain"])
    assert np.isnan(again.full_well).all()
    assert np.isnan(again.invariance_iso)
    assert (again.read_noise_method == "").all()


def test_the_schema_refuses_what_is_wrong(sensor, tmp_path):
    content = json.loads(write_sensor(sensor, tmp_path).read_text())
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    for break_it in (
        lambda c: c["settings"][0].update(channel="Ha"),
        lambda c: c["settings"][0]["gain"].update(unit="ADU/e-"),
        lambda c: c["settings"][0]["gain"].update(value="2.0"),
        lambda c: c["settings"][0].pop("read_noise"),
        lambda c: c.pop("warnings"),
        lambda c: c["dark_current"][0].update(error=-1),
    ):
        broken = json.loads(json.dumps(content))
        break_it(broken)
        assert not validator.is_valid(broken)


def test_a_sensor_of_which_little_is_known(tmp_path):
    empty = sensor_dataset("", channels=["mono"])
    xr.testing.assert_identical(
        open_sensor(write_sensor(empty, tmp_path)).drop_dims("channel"), empty.drop_dims("channel")
    )
    content = json.loads((tmp_path / "sensor.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    assert content["unity_gain_iso"] is None
    assert content["dark_law"]["doubling_temperature"] is None
    gain = xr.Dataset(
        {
            "gain": (("iso", "channel"), [[2.0]]),
            "gain_error": (("iso", "channel"), [[0.1]]),
            "used": (("pair", "channel"), [[True]]),
        },
        {"iso": [np.nan], "channel": ["mono"]},
    )
    nameless = sensor_dataset("ASI", gain=gain)
    xr.testing.assert_identical(open_sensor(write_sensor(nameless, tmp_path)), nameless)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json {", "not a JSON file"),
        ("[1, 2]", "no schema_version"),
        ("{}", "no schema_version"),
        ('{"schema_version": 99}', "schema_version 99 where 1 or 2 or 3 is expected"),
        ('{"schema_version": 1}', "'settings' is missing"),
        ('{"schema_version": 1, "settings": 3, "dark_current": [], "dark_law": {}}', "not a complete sensor.json"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(WorkbenchError, match=words) as caught:
        open_sensor(path)
    assert "other.json" in str(caught.value)


def test_pipes_and_absurd_depths_are_refused(tmp_path):
    os.mkfifo(tmp_path / "sensor.json")  # to read it would not end
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, words in (("sensor.json", "not an ordinary file"), ("deep.json", "not a JSON file")):
        with pytest.raises(WorkbenchError, match=words):
            open_sensor(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WorkbenchError, match="does not exist"):
        open_sensor(tmp_path)


def test_nothing_half_written_is_left_where_it_cannot_be_written(sensor, tmp_path, monkeypatch):
    target = tmp_path / "sensor.json"
    target.write_text('{"schema_version": 1}')  # an earlier result

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WorkbenchError, match="No space left"):
        write_sensor(sensor, tmp_path)
    assert target.read_text() == '{"schema_version": 1}'
    assert [file.name for file in tmp_path.iterdir()] == ["sensor.json"]


def test_names_of_cameras():
    assert is_simulated("NIKON D7000 (simulated)")
    assert not is_simulated("NIKON D7000")
    assert not is_simulated("")


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.49312, 0.0123, "2.493 ± 0.012"),
        (199.4, 2.61, "199.4 ± 2.6"),
        (15000.0, 250.0, "15,000 ± 250"),
        (0.33, 0.0998, "0.33 ± 0.10"),
        (0.5, np.nan, "0.500"),
        (np.nan, 0.1, "not measured"),
    ],
)
def test_written_to_two_figures_of_the_error(value, error, text):
    assert value_text(value, error) == text


def test_units_parse_with_astropy_and_print_as_before(sensor):
    for variable in sensor.variables.values():
        units.Unit(variable.attrs.get("units", ""))
    shown = {
        "gain": "e⁻/ADU",
        "dark_current": "e⁻/s/pixel",
        "curvature": "1/e⁻",
        "black_level": "ADU",
        "full_well": "e⁻",
    }
    assert {name: unit_text(sensor[name].attrs["units"]) for name in shown} == shown


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
def test_a_sensor_goes_to_netcdf_and_zarr_and_back(sensor, tmp_path, form):
    if form == "netcdf":
        sensor.to_netcdf(tmp_path / "sensor.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "sensor.nc", engine="h5netcdf") as file:
            back = file.load()
    else:
        sensor.to_zarr(tmp_path / "sensor.zarr", zarr_format=2)  # format 3 has no fixed text yet
        back = xr.open_zarr(tmp_path / "sensor.zarr").load()
    xr.testing.assert_identical(back, sensor)
    assert sensor_text(back) == sensor_text(sensor)


def test_an_unknown_result_is_refused():
    with pytest.raises(TypeError, match="unknown results \\['gian'\\]"):
        sensor_dataset("camera", gian=xr.Dataset())


def test_a_sensor_is_quantified_by_pint(sensor):
    pytest.importorskip("pint_xarray", reason="pint and pint-xarray are an extra")
    quantified = sensor.pint.quantify(unit_registry=unit_registry())
    noise = quantified["read_noise"] / quantified["gain"]
    assert str(noise.pint.units) == "adu"
    assert str(quantified["dark_current"].pint.units) == "electron / pixel / second"


def test_gain_settings_stand_in_place_of_iso(tmp_path):
    dims, coords = ("gain_setting", "channel"), {"gain_setting": [0.0, 120.0], "channel": ["mono"]}
    names = ("read_noise_adu", "read_noise_adu_error", "black_level", "black_level_error")
    read = xr.Dataset({name: (dims, [[14.0], [23.0]]) for name in names}, coords)
    read["frames"] = ("gain_setting", [8, 6])
    gain = xr.Dataset({"gain": (dims, [[0.25], [0.0628]]), "gain_error": (dims, [[1e-3], [1e-4]])}, coords)
    darks = {"gain_setting": ("setting", [0.0, 120.0]), "temperature": ("setting", [-10.0, -10.0])}
    names = ("dark_current", "dark_current_error", "median", "saturated_pixels")
    current = xr.Dataset({name: ("setting", [1.0, 2.0]) for name in names}, darks)
    unity = xr.Dataset({"unity_gain_iso": 120.4, "unity_gain_iso_error": 0.4})
    mode = {"offset_setting": 50.0, "readout_mode": "Normal", "binning": 1.0}
    sensor = sensor_dataset("ASI1600", read=read, gain=gain, unity=unity, dark_current=current, mode=mode)
    assert sensor.gain.sel(gain_setting=0, channel="mono") == 0.25
    assert sensor.unity_gain_iso.attrs["long_name"] == "gain setting of unity gain"
    path = write_sensor(sensor, tmp_path)
    xr.testing.assert_identical(open_sensor(path), sensor)
    content = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)
    known = {"offset_setting": 50, "readout_mode": "Normal", "binning": 1, "window": None, "code_step": 1}
    assert content["mode"] == known
    assert [entry["gain_setting"] for entry in content["settings"]] == [0, 120]
    assert content["unity_gain_iso"]["unit"] == "gain setting"
    assert content["dark_current"][1]["gain_setting"] == 120
    assert '"iso"' not in path.read_text()
