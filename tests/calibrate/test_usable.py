"""Which frames can be used for a master, and what their light does."""

import re

import numpy as np
import pytest

from workbench.calibrate import master_flat
from workbench.core.cube import make_cube


def flats_under_a_lamp(swing, count=6, seed=4):
    """Flats of 1/4000 s, their rows read one after the other under a lamp at 100 Hz that dims by `swing`."""
    rng = np.random.default_rng(seed)
    y = np.arange(192)[:, None]
    shade = 1 - 0.3 * ((y - 96) / 96) ** 2 * np.ones((1, 256))
    mosaics = []
    for _ in range(count):
        lamp = 1 + swing * np.sin(2 * np.pi * (3.2 * y / 192 + rng.uniform()))
        mosaics.append(600 + rng.poisson(6000 * rng.uniform(0.9, 1.1) * shade * lamp))
    names = [f"flats/{number}" for number in range(count)]
    return make_cube(
        np.array(mosaics, "uint16"), cfa_pattern="RGGB", kind="flat", iso=100, black_level=600, white_level=16383,
        filename=names,
    )  # fmt: skip


def test_a_lamp_that_flickers_is_named_with_its_size():
    for seed in range(3):
        cube = flats_under_a_lamp(0.02, count=20, seed=seed)
        (text,) = [one for one in master_flat(cube).attrs["warnings"] if "flicker" in one]
        share = float(re.search(r"brighter or darker by ([\d.]+)%", text)[1])
        assert share == pytest.approx(100 * 0.02 / np.sqrt(2), rel=0.1)


def test_a_steady_lamp_and_twilight_do_not_flicker():
    twilight = flats_under_a_lamp(0.0)
    y = np.linspace(-1, 1, twilight.sizes["y"])[:, None]
    for number, frame in enumerate(twilight.values):
        frame[:] = 600 + (frame - 600.0) * (1 + 0.01 * (number - 2) * (y + y**2))
    for cube in (*(flats_under_a_lamp(0.0, seed=seed) for seed in range(8)), twilight):
        assert not [one for one in master_flat(cube).attrs["warnings"] if "flicker" in one]


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("count", [4, 8])
def test_a_flat_whose_numbers_were_multiplied_is_left_out(factor, count):
    """Its light may be right for twilight; its noise is not, and would move the gain by up to 15 %."""
    cube = flats_under_a_lamp(0.0, count=count)
    values = cube.values
    values[1] = values[1] * factor
    master = master_flat(cube.copy(data=values))
    assert master.attrs["frames"] == count - 1
    (text,) = [one for one in master.attrs["warnings"] if "flats/1" in one]
    assert "are its numbers multiplied" in text
    assert np.reshape(master.attrs["model"], (4, 2))[:, 1] == pytest.approx(np.ones(4), rel=0.03)  # 1 e⁻/ADU


@pytest.mark.parametrize("count", [4, 12])
@pytest.mark.parametrize("along", ["x", "y"])
def test_a_flat_that_is_lit_otherwise_is_left_out(along, count):
    """A gradient of 10 % in one flat would be noise to the gain."""
    cube = flats_under_a_lamp(0.0, count=count)
    slope = np.linspace(0.9, 1.1, cube.sizes[along])
    values = cube.values
    values[1] = 600 + (values[1] - 600.0) * (slope if along == "x" else slope[:, None])
    master = master_flat(cube.copy(data=values))
    assert master.attrs["frames"] == count - 1
    assert any("flats/1 differs from the others" in one for one in master.attrs["warnings"])
    assert np.reshape(master.attrs["model"], (4, 2))[:, 1] == pytest.approx(np.ones(4), rel=0.03)  # 1 e⁻/ADU


def test_flats_in_falling_light_are_all_used():
    rng = np.random.default_rng(5)
    falling = [600 + rng.poisson(6000 * 0.8**number, (96, 128)) for number in range(8)]
    cube = make_cube(
        np.array(falling, "uint16"), cfa_pattern="RGGB", kind="flat", iso=100, black_level=600, white_level=16383
    )
    assert master_flat(cube).attrs["frames"] == 8


def test_a_faint_flat_is_not_lit_otherwise_than_a_bright_one():
    """The offset, in which all are alike, is no light: with it the faint ones would look flatter."""
    rng = np.random.default_rng(6)
    shade = 1 - 0.35 * ((np.arange(192)[:, None] - 96) / 96) ** 2 * np.ones((1, 256))
    levels = np.repeat([700, 1400, 2800, 5500, 11_000], 2)
    flats = np.array([600 + rng.poisson(level * shade) for level in levels], "uint16")
    names = [f"flats/{number}" for number in range(10)]
    look = {"cfa_pattern": "RGGB", "kind": "flat", "iso": 100, "black_level": 600, "white_level": 16383}
    assert master_flat(make_cube(flats, filename=names, **look)).attrs["frames"] == 10
