"""Who belongs to whom, and a clear word where it does not fit."""

import numpy as np
import pytest

from workbench.calibrate import plan_groups
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError

SHAPE = (4, 6)


def frames(kind, count=2, **changes):
    settings = {"iso": 200.0, "exposure": 60.0, "temperature": 10.0, "aperture": 4.0} | changes
    names = settings.pop("filename", [f"{kind}s/{kind}_{n}.dng" for n in range(count)])
    attrs = {"camera": settings.pop("camera", "D7000"), "cfa_pattern": settings.pop("cfa_pattern", "RGGB")}
    shape = settings.pop("shape", SHAPE)
    black = settings.pop("black_level", 600)
    return make_cube(
        np.zeros((count, *shape), "uint16"), kind=kind, filename=names, black_level=black, **attrs, **settings
    )


LIGHT, BIAS, DARK = frames("light", 3), frames("bias", exposure=0.0), frames("dark")
FLAT = frames("flat", exposure=0.02)


def test_when_all_fits_there_is_one_group_and_nothing_to_say():
    (group,) = plan_groups(LIGHT, bias=BIAS, dark=DARK, flat=FLAT)
    assert (group.lights, group.bias, group.dark, group.flat) == ((0, 1, 2), (0, 1), (0, 1), (0, 1))
    assert group.factors == (1.0, 1.0, 1.0)
    assert group.flat_bias == group.bias
    assert group.warnings == ()


def test_lights_of_other_iso_or_exposure_form_groups_with_their_own_darks():
    light = frames("light", 4, iso=[200.0, 200, 800, 200], exposure=[60.0, 300, 60, 60])
    dark = frames("dark", 6, iso=[200.0, 200, 800, 800, 200, 200], exposure=[60.0, 60, 60, 60, 300, 300])
    bias = frames("bias", 2, iso=[200.0, 800.0], exposure=0.0)
    groups = {group.lights: group for group in plan_groups(light, bias=bias, dark=dark, flat=FLAT)}
    assert groups[(0, 3)].dark == (0, 1)
    assert groups[(1,)].dark == (4, 5)
    assert groups[(2,)].dark == (2, 3)
    assert groups[(2,)].bias == (1,)
    assert groups[(2,)].flat_bias == (0,)  # the flats have ISO 200


def test_the_nearest_exposure_is_scaled_above_the_bias():
    dark = frames("dark", 4, exposure=[30.0, 30.0, 120.0, 600.0])
    (group,) = plan_groups(frames("light", 1, exposure=100.0), bias=BIAS, dark=dark, flat=FLAT)
    assert group.dark == (2,)
    assert group.factors == pytest.approx((100 / 120,))
    assert any("darks of 120 s are scaled to the lights' 100 s" in word for word in group.warnings)
    with pytest.raises(
        WorkbenchError, match=r"30, 120, 600 s, the lights 100 s: scaling a dark needs bias frames at ISO 200"
    ):
        plan_groups(frames("light", 1, exposure=100.0), dark=dark)


def test_temperature_is_corrected_by_the_measured_law_for_each_light():
    light = frames("light", 3, temperature=[10.0, 16.0, 4.0])
    (group,) = plan_groups(light, bias=BIAS, dark=DARK, flat=FLAT, doubling_temperature=6.0)
    assert group.factors == pytest.approx((1.0, 2.0, 0.5))
    assert group.warnings == ()


def test_without_law_or_bias_a_temperature_that_differs_is_told_and_not_corrected():
    light = frames("light", 2, temperature=[10.0, 22.0])
    (group,) = plan_groups(light, bias=BIAS, dark=DARK, flat=FLAT)
    assert group.factors == (1.0, 1.0)
    (word,) = group.warnings
    assert "10 °C" in word
    assert "+12 K" in word
    assert "factor of 4" in word
    assert "a measured dark law" in word
    assert "bias" not in word
    (group,) = plan_groups(light, dark=DARK, flat=FLAT)
    assert any("bias frames and a measured dark law" in word for word in group.warnings)


def test_of_several_temperatures_the_nearest_darks_are_taken():
    dark = frames("dark", 5, temperature=[-10.0, 8.0, 9.5, 9.0, 30.0])
    (group,) = plan_groups(LIGHT, bias=BIAS, dark=dark, flat=FLAT)
    assert group.dark == (1, 2, 3)
    unknown = frames("dark", 2, temperature=np.nan)
    (group,) = plan_groups(LIGHT, bias=BIAS, dark=unknown, flat=FLAT)
    assert group.dark == (0, 1)
    assert group.factors == (1.0,) * 3


def test_a_dark_scaled_up_far_gets_a_word():
    (group,) = plan_groups(frames("light", 1, exposure=600.0), bias=BIAS, dark=DARK, flat=FLAT)
    assert group.factors == (10.0,)
    assert any("10 times, and its noise with it" in word for word in group.warnings)


def test_what_is_missing_is_said():
    (group,) = plan_groups(LIGHT)
    assert any(word.startswith("no darks for the lights of 60 s: the black level") for word in group.warnings)
    assert any(word.startswith("no flats") for word in group.warnings)
    (group,) = plan_groups(frames("light", black_level=np.nan))
    assert any(
        "nothing is subtracted, because neither bias frames nor the files give the black level" in word
        for word in group.warnings
    )
    (group,) = plan_groups(LIGHT, bias=BIAS)
    assert any("the master bias is subtracted; the dark signal stays" in word for word in group.warnings)


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        (
            {"dark": frames("dark", iso=800.0)},
            "darks have ISO 800 .darks/dark_0.dng., the lights ISO 200.*shoot darks at ISO 200 and 60 s",
        ),
        ({"dark": frames("dark", shape=(6, 6))}, "darks have size 6 x 6 pixels .darks/dark_0.dng., the lights 6 x 4"),
        ({"flat": frames("flat", camera="D5300")}, "flats have camera D5300 .flats/flat_0.dng., the lights D7000"),
        ({"bias": frames("bias", cfa_pattern="GBRG")}, "bias frames have CFA pattern GBRG"),
        ({"dark": frames("dark", shape=(6, 4))}, "size 4 x 6"),  # portrait orientation
    ],
)
def test_what_cannot_belong_together_stops(kinds, match):
    with pytest.raises(WorkbenchError, match=match):
        plan_groups(LIGHT, **kinds)


def test_bias_of_another_iso_is_not_used_and_told():
    (group,) = plan_groups(LIGHT, bias=frames("bias", iso=1600.0, exposure=0.0), dark=DARK, flat=FLAT)
    assert group.bias == ()
    assert any("bias frames have ISO 1600" in word for word in group.warnings)


def test_each_night_gets_its_own_flats_by_folder_then_by_time():
    flat = frames("flat", 4, exposure=0.02, filename=["n1/flats/a", "n1/flats/b", "n2/flats/a", "n2/flats/b"])
    light = frames("light", 3, filename=["n2/lights/a", "n1/lights/a", "n2/lights/b"])
    groups = {group.lights: group.flat for group in plan_groups(light, bias=BIAS, dark=DARK, flat=flat)}
    assert groups == {(0, 2): (2, 3), (1,): (0, 1)}
    times = np.array(["2024-03-01T22", "2024-03-01T22:05", "2024-03-02T22"], "datetime64[ns]")
    flat = frames("flat", 3, exposure=0.02, time=times)
    light = frames("light", 2, time=times[[2, 0]] + np.timedelta64(3, "h"))
    groups = {group.lights: group.flat for group in plan_groups(light, bias=BIAS, dark=DARK, flat=flat)}
    assert groups == {(0,): (2,), (1,): (0, 1)}


def test_darkflats_must_fit_the_flats():
    fitting = frames("darkflat", exposure=0.02)
    (group,) = plan_groups(LIGHT, bias=BIAS, dark=DARK, flat=FLAT, darkflat=fitting)
    assert group.darkflat == (0, 1)
    other = frames("darkflat", exposure=2.0)
    (group,) = plan_groups(LIGHT, bias=BIAS, dark=DARK, flat=FLAT, darkflat=other)
    assert group.darkflat == ()
    assert any("darkflats have 2 s, the flats 0.02 s" in word for word in group.warnings)


def test_flats_of_the_lights_iso_are_preferred_and_another_aperture_told():
    flat = frames("flat", 5, iso=[100.0, 100, 100, 200, 200], exposure=0.02, aperture=8.0)
    (group,) = plan_groups(LIGHT, bias=BIAS, dark=DARK, flat=flat)
    assert group.flat == (3, 4)
    assert any("flats were taken at f/8, the lights at f/4" in word for word in group.warnings)


def test_lights_that_know_nothing_form_one_group():
    light = frames("light", 3, iso=np.nan, exposure=np.nan, temperature=np.nan)
    (group,) = plan_groups(light)
    assert group.lights == (0, 1, 2)


def test_exposures_that_differ_by_less_than_a_hundredth_are_one_group():
    light = frames("light", 3, exposure=[60.0, 60.1, 61.0])
    assert [group.lights for group in plan_groups(light, bias=BIAS, dark=DARK, flat=FLAT)] == [(0, 1), (2,)]


COOLED = {"iso": np.nan, "gain_setting": 100.0, "offset_setting": 50.0, "camera": "ASI1600", "cfa_pattern": "mono"}


@pytest.mark.parametrize(
    ("changes", "theirs", "ours"),
    [
        ({"gain_setting": 0.0}, "gain setting 0", "gain setting 100"),
        ({"offset_setting": 10.0}, "offset setting 10", "offset setting 50"),
        ({"readout_mode": "Fast"}, "readout mode Fast", "readout mode Normal"),
        ({"binning": 2.0}, "2 x 2 binning", "settings not stated"),
        ({"window": "64, 32"}, "window from 64, 32", "window from 0, 0"),
    ],
)
def test_bias_and_darks_of_another_setting_are_never_used(changes, theirs, ours):
    own = COOLED | {"readout_mode": "Normal", "binning": 1.0, "window": "0, 0"}
    light, dark, bias = frames("light", 2, **own), frames("dark", **own), frames("bias", **own)
    other_dark, other_bias = frames("dark", **own | changes), frames("bias", **own | changes)
    with pytest.raises(WorkbenchError, match=f"the darks have {theirs} .darks/dark_0.dng., the lights {ours}.*shoot"):
        plan_groups(light, dark=other_dark, bias=bias)
    (group,) = plan_groups(light, dark=dark, bias=other_bias)
    assert group.bias == ()
    assert any(f"bias frames have {theirs}" in text and "not used" in text for text in group.warnings)
    (group,) = plan_groups(light, dark=dark, bias=bias)
    assert (group.dark, group.bias) == ((0, 1), (0, 1))


def test_lights_of_two_gain_settings_get_their_own_frames():
    settings = COOLED | {"gain_setting": [0.0, 100.0, 0.0, 100.0]}
    cubes = {kind: frames(kind, 4, **settings) for kind in ("light", "bias", "dark", "flat")}
    groups = {group.lights: group for group in plan_groups(cubes.pop("light"), **cubes)}
    for lights in ((0, 2), (1, 3)):
        group = groups[lights]
        assert group.bias == group.dark == group.flat == group.flat_bias == lights


def test_what_a_dark_does_not_state_is_reported_and_flats_may_have_their_own_setting():
    light, bias = frames("light", 2, **COOLED), frames("bias", 4, **COOLED | {"gain_setting": [0.0, 0.0, 100.0, 100.0]})
    dark = frames("dark", **COOLED | {"gain_setting": np.nan})
    flat = frames("flat", **COOLED | {"gain_setting": 0.0, "exposure": 0.02})
    (group,) = plan_groups(light, bias=bias, dark=dark, flat=flat)
    assert (group.dark, group.bias, group.flat, group.flat_bias) == ((0, 1), (2, 3), (0, 1), (0, 1))
    assert any("the darks state no GAIN (darks/dark_0.dng)" in text for text in group.warnings)
    elsewhere = frames("flat", **COOLED | {"window": "64, 32"})
    (group,) = plan_groups(frames("light", 2, **COOLED | {"window": "0, 0"}), flat=elsewhere)
    assert group.flat == ()
    assert any("2 flats have window from 64, 32" in text and "not used" in text for text in group.warnings)
