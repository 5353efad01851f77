"""Flats belong to lights by filter and session."""

import numpy as np
import pytest

from workbench.calibrate import plan_groups
from workbench.core.cube import make_cube


def frames(kind, names, **coords):
    return make_cube(
        np.zeros((len(names), 4, 6)), cfa_pattern="mono", kind=kind, filename=names, exposure=1.0, **coords
    )


def flats_of(light, flat):
    return {group.lights: (group.flat, group.flats_used) for group in plan_groups(light, flat=flat)}


def doubts(light, flat):
    return [text for group in plan_groups(light, flat=flat) for text in group.warnings if "darks" not in text]


def test_a_light_gets_flats_of_its_filter_in_any_spelling_of_capitals():
    flat = frames("flat", ["flats/a", "flats/b", "flats/c", "flats/d"], filter=["L", "R", "l", "HA"])
    light = frames("light", ["lights/a", "lights/b", "lights/c"], filter=["r", "L", "Ha"])
    found = flats_of(light, flat)
    assert {lights: flats for lights, (flats, _) in found.items()} == {(0,): (1,), (1,): (0, 2), (2,): (3,)}
    assert found[(0,)][1] == "1 flats (filter R)"
    assert doubts(light, flat) == []


def test_no_flats_of_a_filter_and_flats_without_one_are_reported():
    light = frames("light", ["lights/a", "lights/b"], filter="OIII")
    (text,) = doubts(light, frames("flat", ["flats/a", "flats/b"], filter=["L", "R"]))
    assert text.startswith("no flats of filter OIII (there are L, R): vignetting")
    flat = frames("flat", ["flats/a"])
    assert flats_of(light, flat)[(0, 1)][0] == (0,)
    assert any(
        "the flats state no FILTER; they are used for the lights of filter OIII" in t for t in doubts(light, flat)
    )
    plain = frames("light", ["lights/a"])
    assert any(
        "lights state no FILTER; the flats of filter L" in t
        for t in doubts(plain, flat.copy().assign_coords(filter=("frame", np.array(["L"], object))))
    )
    assert any("which fit is not known" in t for t in doubts(plain, frames("flat", ["a", "b"], filter=["L", "R"])))


@pytest.mark.parametrize(
    ("flats", "lights"),
    [
        (("flats/night1", "flats/night2"), ("lights/night1", "lights/night2")),
        (("night1/flats", "night2/flats"), ("night1/lights", "night2/lights")),
        (("flats_night1", "flats_night2"), ("Lights night1", "Lights night2")),
        (("flats/night1", "flats/night2"), ("lights/M42/night1", "lights/M42/night2")),
    ],
)
def test_sessions_are_told_apart_by_folders_even_against_the_time(flats, lights):
    times = np.array(["2024-03-02T22", "2024-03-01T22"], "datetime64[ns]")
    flat = frames("flat", [f"{folder}/a" for folder in flats], time=times)
    light = frames("light", [f"{folder}/a" for folder in lights], time=times[::-1])
    found = flats_of(light, flat)
    assert found[(0,)] == ((0,), f"1 flats ({flats[0]}), chosen by folder")
    assert found[(1,)] == ((1,), f"1 flats ({flats[1]}), chosen by folder")


def test_then_by_the_angle_of_the_rotator_then_by_time_else_it_is_doubtful():
    times = np.array(["2024-03-01T22:00", "2024-03-01T23:00"], "datetime64[ns]")
    names = ["flats/a", "flats/b"]
    light = frames("light", ["lights/a", "lights/b"], rotation=[91.0, 359.5], time=times)
    found = flats_of(light, frames("flat", names, rotation=[0.0, 90.0], time=times))
    assert {lights: flats for lights, (flats, _) in found.items()} == {(0,): (1,), (1,): (0,)}
    assert "chosen by rotation" in found[(0,)][1]
    nights = np.array(["2024-03-01T20", "2024-03-04T20"], "datetime64[ns]")
    found = flats_of(frames("light", ["lights/a"], time=nights[1]), frames("flat", names, time=nights))
    assert found[(0,)] == ((1,), "1 flats (flats), chosen by time")
    assert any(
        "turned by 40°" in t
        for t in doubts(light[:1].assign_coords(rotation=("frame", [40.0])), frames("flat", names, rotation=0.0))
    )
    anywhere = frames("flat", ["flats/one/a", "flats/two/a"])
    assert any("several sessions (flats/one, flats/two)" in t for t in doubts(frames("light", ["lights/a"]), anywhere))
