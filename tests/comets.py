"""A simulated night whose lights show a comet that moves among the stars."""

import dataclasses
from datetime import timedelta

import numpy as np

from workbench.simulate.night import START, Night, Shot, save_fits, shoot, write_night
from workbench.simulate.sky import replace_stars

SHAPE = (320, 480)
COUNT = 14
FIRST, STEP = np.array([150.0, 110.0]), np.array([8.0, 4.5])  # [px of the reference], of a light
NUCLEUS, COMA, WIDTH = 150.0, 800.0, 5.0  # [e-/s in green], [px] sigma of the coma
COLOUR = np.array([0.8, 1.0, 1.1])


@dataclasses.dataclass(frozen=True, eq=False)
class CometNight:
    """A night whose lights show a comet, a nucleus and a coma of 400 points, that moves by STEP a light."""

    night: Night

    @property
    def sensor(self):
        return self.night.sensor

    def take(self, shot, seed):
        sky, at = self.night.sky, FIRST + shot.view * STEP
        coma = np.random.default_rng(5).normal(0, WIDTH, (400, 2)) + at
        flux = np.concatenate([sky.flux, NUCLEUS * COLOUR[None], np.full((400, 1), COMA / 400) * COLOUR])
        x, y = (np.concatenate([part, at[[k]], coma[:, k]]) for k, part in enumerate((sky.x, sky.y)))
        return dataclasses.replace(self.night, sky=replace_stars(sky, x, y, flux, nebula=1.0)).take(shot, seed)


def comet_night(folder, **changes):
    """Write a night whose lights show the comet."""
    settings = {"shape": SHAPE, "lights": COUNT, "biases": 9, "darks": 9, "flats": 9, "dither": 6.0, "seed": 4}
    night = write_night(folder, suffix="fits", progress=False, **settings | changes)
    shots = [
        (Shot(name, "light", night.settings.iso, 60.0, night.settings.temperature, view=number), (4, 3, number))
        for number, name in enumerate(night.lights)
    ]
    shoot(night.folder, CometNight(night), shots, START + timedelta(hours=1), save=save_fits, progress=False)
    return night
