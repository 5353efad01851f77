"""One finder of defects: what the virtual camera planted is found in both rooms that use it, and little else."""

from types import SimpleNamespace

import numpy as np
import pytest

from workbench.calibrate import SensorNoise, find_defects, master_bias, master_dark, master_flat
from workbench.core.cube import make_cube
from workbench.core.defects import DEAD, HOT, UNSTABLE, WARM, Thresholds, UnlitFrames, flag_defects
from workbench.core.errors import WorkbenchError
from workbench.core.statistics import mad_std
from workbench.pixels import find_sensor_defects, stack_cube
from workbench.simulate import d7000, expose

ISO, SECONDS = 200, 60.0
DEAD_PIXELS = [(100, 101), (101, 120), (31, 40)]
JUMPING = [(50, 60), (51, 91), (200, 301)]


@pytest.fixture(scope="module")
def both():
    """The same frames through both rooms, and what is true of the camera [e-]."""
    camera = d7000(seed=5, shape=(240, 360), hot_fraction=0.006)
    read, gain = camera.read_noise(ISO), camera.gain(ISO)

    def shoot(kind, count, exposure, rate=0.0):
        frames = [expose(camera, rate, iso=ISO, exposure=exposure, seed=(len(kind), n)) for n in range(count)]
        return kind, exposure, np.stack(frames)

    def cube(kind, exposure, frames):
        common = {"camera": camera.camera, "black_level": 600, "white_level": camera.white_level}
        return make_cube(frames, cfa_pattern="RGGB", kind=kind, iso=ISO, exposure=exposure, temperature=20, **common)

    bias, dark = shoot("bias", 16, 0.0), shoot("dark", 16, SECONDS)
    flat = shoot("flat", 16, 0.02, 0.4 * camera.saturation(ISO) / 0.02)
    for (y, x), response in zip(DEAD_PIXELS, (0.3, 1.6, 0.6), strict=True):
        flat[2][:, y, x] = 600 + response * (flat[2][:, y, x] - 600.0)
    for y, x in JUMPING:
        bias[2][::2, y, x] += 60
        dark[2][::2, y, x] += 60
    bias, dark, flat = (cube(*frames) for frames in (bias, dark, flat))
    noise = SensorNoise(gain, read, iso=ISO)
    zero = master_bias(bias, noise, progress=False)
    master = master_dark(dark, zero, noise, progress=False)
    bright = master_flat(flat, bias=zero, noise=noise, progress=False)
    current = ((master["signal"] - zero["signal"]) * gain / SECONDS).assign_attrs(
        units="electron / s", cfa_pattern="RGGB"
    )
    stacks = {
        "bias": stack_cube(bias, progress=False),
        "flat": stack_cube(flat, black=600, progress=False),
    }
    dark_signal = camera.dark_map.astype(float) * camera.dark_factor(20.0) * SECONDS
    return SimpleNamespace(
        of_masters=find_defects(master, bright),
        of_sensor=find_sensor_defects(current, np.hypot(read, gain / np.sqrt(12)), SECONDS, **stacks),
        excess=dark_signal - np.median(dark_signal),
        ordinary=np.median(dark_signal) + read**2 + gain**2 / 12,
        median=np.median(dark_signal),
    )


@pytest.mark.parametrize("room", ["of_masters", "of_sensor"])
def test_what_the_camera_has_is_found_and_little_else(both, room):
    found = getattr(both, room).values
    steady = np.ones(found.shape, bool)
    steady[tuple(np.transpose(JUMPING))] = False
    # hot: own shot noise makes the noise twice that of the others, d > 3 σ²; one dark has σ, the mean of 16 a quarter
    blur = np.sqrt(4 * both.ordinary / 16)
    surely, never = (both.excess > 3 * both.ordinary + 4 * blur), both.excess < 3 * both.ordinary - 4 * blur
    hot, warm = (found & HOT) > 0, (found & WARM) > 0
    assert surely.sum() > 100
    assert hot[surely].all()
    assert not hot[never & steady].any()
    truly = both.excess > 3 * both.ordinary
    assert hot[truly].mean() > 0.95
    assert (hot & ~truly & steady).sum() < 0.05 * truly.sum()
    assert warm[both.excess > 2 * both.median].all()
    assert not warm[(both.excess < 0.5 * both.median) & steady].any()
    assert set(zip(*np.nonzero(found & DEAD), strict=True)) == set(DEAD_PIXELS)
    assert set(zip(*np.nonzero(found & UNSTABLE), strict=True)) == set(JUMPING)


def test_both_rooms_find_the_same(both):
    masters, sensor = both.of_masters, both.of_sensor
    assert masters.attrs["thresholds"] == sensor.attrs["thresholds"] == Thresholds()._asdict()
    differ = masters.values ^ sensor.values
    differ[tuple(np.transpose(JUMPING))] = 0  # their jumps are in the bias as well, which only one room subtracts
    # they agree but for pixels at a limit, which the noise of the bias, subtracted in one room only, moves across it
    assert (differ > 0).mean() < 2e-4
    spread = np.hypot(mad_std(both.excess), np.sqrt(both.ordinary / 16))
    for bit, limit in ((HOT, 3 * both.ordinary), (WARM, 8 * spread)):
        moved = both.excess[(differ & bit) > 0]
        assert (np.abs(moved / limit - 1) < 0.25).all()
    for kind in ("dead", "unstable"):
        assert masters.attrs["counts"][kind] == sensor.attrs["counts"][kind] == 3


def test_one_unit_or_another_gives_the_same_defects():
    rng = np.random.default_rng(3)
    signal = rng.normal(100, 3, (80, 120)) + np.where(rng.random((80, 120)) < 0.01, 500, 0)
    gain = 0.3
    electrons = UnlitFrames(signal, np.full(4, 109.0), np.ones(4))
    adu = UnlitFrames(signal / gain, np.full(4, 109.0 / gain**2), np.full(4, 1 / gain))
    assert flag_defects("RGGB", dark=electrons).equals(flag_defects("RGGB", dark=adu))


def test_saturated_pixels_are_hot_and_an_unknown_noise_leaves_only_warm_ones():
    signal = np.random.default_rng(4).normal(100, 3, (40, 40))
    signal[3, 3], signal[5, 5], signal[7, 7] = np.nan, 16000, 200
    dark = UnlitFrames(signal, np.full(1, 109.0), np.ones(1), saturation=15000)
    found = flag_defects("mono", dark=dark)
    assert found.values[3, 3] == found.values[5, 5] == HOT
    assert found.values[7, 7] == WARM
    unknown = flag_defects("mono", dark=dark._replace(ordinary=np.full(1, np.nan), shot=np.zeros(1)))
    assert unknown.attrs["counts"] == {"warm": 1}


def test_a_variance_that_chance_explains_is_not_unstable():
    rng = np.random.default_rng(6)
    variance = 9 * rng.chisquare(7, (400, 600)) / 7
    variance[10, 10] = 9 * 12
    frames = UnlitFrames(np.zeros(variance.shape), np.full(1, 9.0), np.zeros(1), variance, 8)
    found = flag_defects("mono", steady=frames)
    assert np.argwhere(found.values).tolist() == [[10, 10]]
    with pytest.raises(WorkbenchError, match="of one size"):
        flag_defects("mono", steady=frames, response=np.ones((4, 4)))
