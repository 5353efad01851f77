"""A night of a DSLR on the panels of a mosaic: each has its own air, sky background and gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .night import LAMPS, START, Scene, Shot, save_fits, shoot
from .sensor import d7000
from .sky import Sky, View, dust, make_sky, pointing

SHAPE, STEP, EACH = (240, 300), 245, 4  # of a frame [px]; from panel to panel [px]: 18 % overlap; lights of a panel
EXPOSURE = 60.0  # of a light [s]
TRANSPARENCY = (1.0, 0.8, 0.9)  # of the air, for each panel
BRIGHTNESS = (1.0, 1.5, 0.8)  # of the sky background
_SKY = np.array([1.0, 2.0, 1.5])  # R, G, B [e-/s/pixel]


def mosaic_sky() -> Sky:
    """Return the sky of three panels of `SHAPE`, `STEP` apart, that notebook 11 and the tests stack.

    Examples
    --------
    >>> mosaic_sky().shape
    (240, 900)
    """
    return make_sky((240, 900), stars=600, faintest=30.0, brightest=600.0, seed=6)


def write_mosaic(
    folder: str | Path, sky: Sky, shape: tuple[int, int], *, step: int, each: int = 4, seed: int = 8
) -> Scene:
    """Write three panels of a sky, side by side, and their bias, dark and flat frames as FITS; return their truth.

    Parameters
    ----------
    folder
        Gets the folders ``bias``, ``dark``, ``flat`` and ``light``; the lights of a panel follow each other.
    sky
        Wide enough for three panels.
    shape
        Of a frame (rows, columns) [px].
    step
        From panel to panel [px]; less than the columns of a frame, so that they overlap.
    each
        Lights of a panel; they are dithered by 4 px and turned a little.

    Examples
    --------
    >>> import tempfile
    >>> from workbench.simulate import make_sky
    >>> scene = write_mosaic(tempfile.mkdtemp(), make_sky((64, 250), stars=9, seed=1), (64, 96), step=60, each=1)
    >>> len(scene.views), scene.views[1].transparency
    (3, 0.8)
    """
    rng = np.random.default_rng(seed)
    views = tuple(_view(panel, shape, step, rng) for panel in range(3) for _ in range(each))
    sensor = d7000(seed=7001, shape=shape)
    scene = Scene(sensor, replace(sky, shape=shape), views, dust(shape, motes=6, seed=2), LAMPS[4])
    lamp = 0.5 * sensor.saturation(200) / 0.02
    frames = []
    for kind, count, exposure in (("bias", 9, 0.0), ("dark", 9, EXPOSURE), ("flat", 9, 0.02), ("light", 0, EXPOSURE)):
        for number in range(count or len(views)):
            shot = Shot(f"{kind}/{kind}_{number:02d}.fits", kind, 200, exposure, 10.0)
            shot = replace(shot, lamp=lamp) if kind == "flat" else shot
            shot = replace(shot, view=number) if kind == "light" else shot
            frames.append((shot, (3, len(kind), number)))
    shoot(Path(folder), scene, frames, START, save=save_fits, progress=False)
    return scene


def _view(panel: int, shape: tuple[int, int], step: int, rng: np.random.Generator) -> View:
    """How a light of a panel sees the sky."""
    moved = np.array([-step * panel - 60.0, 0.0]) + rng.normal(0, 4, 2)
    red, green, blue = BRIGHTNESS[panel] * _SKY
    return View(
        exposure=EXPOSURE,
        matrix=pointing(shape, shift=(moved[0], moved[1]), degrees=rng.uniform(-0.8, 0.8)),
        fwhm=3.0,
        transparency=TRANSPARENCY[panel],
        background=(red, green, blue),
        gradient=np.outer([1.0, 0.9, 0.7], 0.15 * np.array([np.sin(panel), np.cos(panel)])),
    )
