"""Simulated stacks of which everything is known: what a perfect stacking engine would make of the virtual sky."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from workbench.finish import background_model, find_picture_stars, make_picture, remove_background
from workbench.simulate import sky as virtual

# Camera to XYZ of a plausible camera (the D7000's, as published in dcraw's table), and its daylight multipliers.
COLOR_MATRIX = np.array([[0.8198, -0.2239, -0.0724], [-0.4871, 1.2389, 0.2798], [-0.1043, 0.2050, 0.7181]])
DAYLIGHT = (2.0, 1.0, 1.3)


def nebula_in_the_middle(sky, rng, *, size=0.07, peak=0.5):
    """The sky with another nebula: red and blue clouds about the middle, so that the corners show empty sky."""
    rows, columns = sky.nebula.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    red, blue = (
        sum(
            rng.uniform(0.3, 1.0)
            * np.exp(
                -0.5
                * ((y - rng.normal(0.5, 0.06) * rows) ** 2 + (x - rng.normal(0.5, 0.06) * columns) ** 2)
                / (size * columns * rng.uniform(0.6, 1.0)) ** 2
            )
            for _ in range(8)
        )
        for _ in range(2)
    )
    mixed = np.stack([red + 0.1 * blue, 0.25 * red + 0.25 * blue, 0.1 * red + 0.5 * blue])
    return dataclasses.replace(sky, nebula=peak * mixed / mixed[0].max())


def simulate(
    shape=(600, 900),
    *,
    seed=0,
    stars=400,
    frames=20,
    exposure=60.0,
    gradient=0.15,
    curvature=0.0,
    nebula=0.5,
    read_noise=2.5,
    saturation=np.inf,
    attrs=None,
):
    """A stack of the virtual sky with Poisson and read noise [e-], and its truth, all per exposure of one frame."""
    sky = virtual.make_sky(shape, stars=stars, brightest=3000.0, step=16.0, seed=seed)
    rng = np.random.default_rng((seed, 77))
    sky = nebula_in_the_middle(sky, rng, peak=max(nebula, 1e-9))
    angle = rng.uniform(0, 2 * np.pi)
    slopes = np.outer([1.0, 0.9, 0.7], gradient * np.array([np.sin(angle), np.cos(angle)]))
    view = virtual.View(exposure=exposure, gradient=slopes, curvature=(curvature,) * 3)
    dark = virtual.View(exposure=exposure, background=(0.0, 0.0, 0.0))
    light = virtual.picture(sky, view).values.astype(float) * exposure
    cloud = virtual.picture(virtual.replace_stars(sky, nebula=1.0), dark).values.astype(float) * exposure
    background = virtual.picture(virtual.replace_stars(sky), view).values.astype(float) * exposure
    signal = rng.poisson(light * frames) / frames + rng.normal(0, read_noise / np.sqrt(frames), light.shape)
    variance = (light + read_noise**2) / frames
    clipped = light > saturation
    signal = np.where(clipped, saturation, signal)
    picture = make_picture(
        signal,
        variance,
        coverage=np.full(light.shape, frames, np.uint16),
        saturated=clipped,
        attrs={
            "camera": "virtual camera (simulated)",
            "exposure": exposure,
            "frame_count": frames,
            "color_matrix": COLOR_MATRIX.tolist(),
            "daylight_multipliers": list(DAYLIGHT),
            **(attrs or {}),
        },
    )
    return SimpleNamespace(picture=picture, light=light, nebula=cloud, background=background, sky=sky, view=view)


@pytest.fixture(scope="session")
def scene():
    """One stack with a plane gradient and a nebula in the middle; do not change it in place."""
    return simulate()


@pytest.fixture(scope="session")
def flat(scene):
    return remove_background(scene.picture, background_model(scene.picture))


@pytest.fixture(scope="session")
def stars(flat):
    return find_picture_stars(flat)


@pytest.fixture(scope="session")
def simulated():
    """The function that makes other stacks."""
    return simulate
