"""The demonstrations: what they are made of before a browser shows them."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from tests.scenes import small_finish
from workbench.export import DEMONSTRATIONS, demonstrations
from workbench.pipelines.calibration import Lights

NAMES = [one.id for one in DEMONSTRATIONS]


def camera(**law):
    data = {"read_noise": (("iso", "channel"), [[3.0, 5.0], [2.0, 3.0], [np.nan, np.nan]])} | law
    sensor = xr.Dataset(data, {"iso": [100.0, 800.0, 1600.0], "channel": ["R", "B"]})
    lights = SimpleNamespace(finished=small_finish())
    return SimpleNamespace(sensor=sensor, simulated=False, camera="NIKON D7000", lights=lights)


LAW = {"doubling_temperature": 6.0, "doubling_temperature_error": 0.1, "dark_current_reference": 0.4,
       "dark_current_reference_error": 0.01, "reference_temperature": 20.0}  # fmt: skip


def model(built, name):
    return built.document.select_one({"name": name})


def test_the_order_is_that_of_the_blog():
    assert NAMES == ["ptc-demo", "rejection-demo", "stretch-demo", "sub-length-demo"]


@pytest.mark.parametrize("demo", DEMONSTRATIONS, ids=NAMES)
def test_each_has_controls_figures_and_a_caption(demo):
    built = demo.build(camera(**LAW))
    assert len(built.document.roots) == len(built.headings) >= 3
    assert built.headings[0] is None, "the controls take the whole width"
    assert built.caption.alt.startswith("Interactive: ")
    (script,) = built.document.callbacks._js_event_callbacks["document_ready"]
    assert {"said"} < set(script.args)
    assert script.code.startswith("// ")


def test_the_stretch_needs_a_stack():
    assert demonstrations.stretch(SimpleNamespace()) is None
    assert demonstrations.stretch(SimpleNamespace(lights=Lights())) is None


def test_the_sub_length_knows_the_measured_camera():
    built = demonstrations.sub_length(camera(**LAW))
    assert model(built, "iso").options == ["100", "800"], "an ISO without read noise is left out"
    assert model(built, "iso").value == "800"
    assert model(built, "warmth").visible
    assert model(built, "bars").data == {"iso": ["100", "800"], "seconds": [4.0, 2.5]}
    assert "Measured camera: NIKON D7000" in built.caption.text
    assert not model(demonstrations.sub_length(camera()), "warmth").visible, "without a law no temperature"
    assert demonstrations.sub_length(SimpleNamespace()) is None
    blind = camera()
    blind.sensor["read_noise"] = blind.sensor.read_noise * np.nan
    assert demonstrations.sub_length(blind) is None


def test_states_are_the_decisions_of_the_stacking_rule():
    states = demonstrations._states()
    assert set(states) == {f"{method} {count}" for method in demonstrations.METHODS for count in demonstrations.COUNTS}
    for method, count, strength in (("noise", 5, 30), ("winsorized", 24, 10), ("esd", 12, 20)):
        out = demonstrations.decisions(count, strength, method)
        assert [bool(states[f"{method} {count}"][strength] >> frame & 1) for frame in range(count)] == out.tolist()
    assert not demonstrations.decisions(5, 30, "sigma").any(), "three sigma cannot reject one of five"
    assert not any(states["mean 5"])


def test_flats_follow_the_photon_transfer():
    built = demonstrations.photon_transfer()
    points = model(built, "points")
    assert points.data["signal"].tolist() == demonstrations.LEVELS.tolist()
    assert model(built, "gain").categories == ["0.1", "0.25", "0.5", "1", "2", "4"]


def test_the_sub_length_of_a_camera_without_iso_goes_by_gain_settings():
    found = camera()
    found.sensor = found.sensor.isel(iso=[0, 1]).rename(iso="gain_setting").assign_coords(gain_setting=[0.0, 120.0])
    built = demonstrations.sub_length(found)
    assert (model(built, "iso").title, model(built, "iso").options) == ("gain setting", ["0", "120"])
    assert "ISO" not in f"{built.headings} {built.caption}"
