"""Calibration frames of a virtual camera whose truth is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from workbench.core.cube import make_cube
from workbench.core.mosaic import channel_index
from workbench.simulate import d7000, dust, expose, make_night, make_sky, render

ISO, EXPOSURE, CELSIUS = 200, 300.0, 10.0
LAMP = np.array([0.75, 1.0, 1.0, 0.6])


def plane_of(values, pattern, shape):
    """One value a channel, spread over the mosaic."""
    cell = channel_index(pattern)
    return np.tile(np.asarray(values, float)[cell], [side // 2 for side in shape])


def chi_square(got, truth, variance, where=slice(None)):
    """Mean of (got - truth)²/variance, and its standard error for independent Gaussian pixels."""
    ratio = (np.square(np.asarray(got, float) - truth) / np.asarray(variance))[where]
    return ratio.mean(), np.sqrt(2 / ratio.size)


@pytest.fixture(scope="session")
def rig():
    """A camera, its frames as cubes, and what is true of them."""
    camera = d7000(seed=11, shape=(240, 360), hot_fraction=0.004)
    common = {
        "cfa_pattern": camera.cfa_pattern,
        "camera": camera.camera,
        "black_level": camera.black_level,
        "white_level": camera.white_level,
    }

    def cube(kind, count, exposure, rate=0.0, *, iso=ISO, celsius=CELSIUS, series=0, scale=None, hits=None):
        frames = []
        for number in range(count):
            light = rate(number) if callable(rate) else rate
            light = light if scale is None else np.asarray(light) * scale[number]
            frames.append(
                expose(camera, light, iso=iso, exposure=exposure, temperature=celsius, seed=(series, number), hits=hits)
            )
        names = [f"{kind}s/{kind}_{series}_{number}.dng" for number in range(count)]
        return make_cube(frames, kind=kind, iso=iso, exposure=exposure, temperature=celsius, filename=names, **common)

    through = dust(camera.shape, motes=4, depth=0.3, seed=1)
    lamp = plane_of(LAMP, camera.cfa_pattern, camera.shape) * through * 0.5 * camera.saturation(ISO) / 0.02
    drift = 1 + 0.05 * np.random.default_rng(5).standard_normal(16)
    sky = make_sky(camera.shape, stars=25, seed=3)
    views = make_night(sky, 3, exposure=EXPOSURE, seed=4)
    illumination = camera.illumination() * camera.response_map * through
    gain = camera.gain(ISO)
    offset = camera.black_level + camera.offset_map
    dark_electrons = camera.dark_map * camera.dark_factor(CELSIUS) * EXPOSURE
    cell = channel_index(camera.cfa_pattern)
    flat_truth = illumination.copy()
    for place in np.ndindex(2, 2):
        plane = (slice(place[0], None, 2), slice(place[1], None, 2))
        flat_truth[plane] /= flat_truth[plane].mean()
    return SimpleNamespace(
        camera=camera,
        iso=ISO,
        exposure=EXPOSURE,
        chi_square=chi_square,
        plane_of=plane_of,
        cell=cell,
        cube=cube,
        gain=gain,
        read=camera.read_noise(ISO),
        bias=cube("bias", 16, 0.0, series=1),
        dark=cube("dark", 16, EXPOSURE, series=2),
        flat=cube("flat", 16, 0.02, lamp, series=3, scale=drift),
        light=cube("light", 3, EXPOSURE, lambda n: render(sky, views[n]) * through, series=4),
        lamp=lamp,
        drift=drift,
        sky=sky,
        views=views,
        through=through,
        true_bias=offset,
        true_dark=offset + dark_electrons / gain,
        true_flat=flat_truth,
        dark_electrons=dark_electrons,
        # the light that a perfectly flattened sensor would have collected [e-]
        true_light=[render(sky, view).astype(float) * EXPOSURE * illumination / flat_truth for view in views],
    )
