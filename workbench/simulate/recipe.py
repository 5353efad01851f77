"""What a set of sample frames is made of: the recipe, the frames in their order, the truth.

A recipe is fixed and seeded, so the same bytes come out every time.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.dark import BOLTZMANN
from ..core.values import SHUTTER_PARTS
from .field import OBJECT, PIXEL, Field, make_field
from .night import NightSettings, Scene, Shot, make_night, shoot, write_truth
from .sensor import ABSOLUTE_ZERO, d7000
from .sky import Trail, dust, pointing

ROOM = 20.0  # °C
_SEED = 2025
_START = datetime(2025, 1, 18, 20, 0, 0)  # the first frame's time; each next one follows when the last is saved
# Light of the flat-field panel where it is brightest [e-/s/pixel], R G1 G2 B: warmer than daylight, as LEDs are, so
# that red has four levels above 5 % of saturation, too.
_LAMP = (42_000.0, 57_000.0, 57_000.0, 46_800.0)
# Shutter times of the camera's third stops, from 1/2 s; a flat at ISO 100 and 1/2 s is at 0.85 of saturation.
_SHUTTERS = (2, 2.5, 3, *reversed(SHUTTER_PARTS))
_OVEREXPOSED = 3.2  # s at ISO 100: every pixel saturates, those of the darkest colour in the corners too
_NEXT_EVENING = 23.5 * 3600  # s
# eV: silicon's, as of many CMOS sensors; the dark current doubles over 6.0 K at -18 °C, 8.4 K at 30 °C
_ACTIVATION = 0.65


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a set is made of."""

    shape: tuple[int, int]
    isos: tuple[int, ...]
    bias: int
    steps: tuple[int, ...]  # of the flats, in third stops below the brightest
    transfer: tuple[int, ...] | None  # the same, of others for no master; None: no saturated ones either
    darks: tuple[tuple[float, float, float, int], ...]  # iso, temperature [°C], exposure [s], frames
    lights: tuple[int, ...]  # of each night
    focal_length: float  # [mm]
    light: tuple[float, float, float] = (800, 10.0, 120.0)  # iso, temperature [°C], exposure [s]
    aperture: float = 4.0  # of lights and flats
    thermometer: tuple[tuple[float, float], ...] = ()  # stated temperature of darks [°C], how much warmer they were [K]
    dust: tuple[int, float] = (5, 0.08)  # motes, and the share of light that one takes at most
    dust_moved: tuple[int, int] = (0, 0)  # from flats to lights (y, x) [px]
    doubled: int = 0  # number of a light that is there twice, the second time as the last of all


def write_samples(folder: str | Path, recipe: Recipe, *, progress: bool = True, threads: int | None = None) -> Path:
    """Shoot a set of sample frames into a folder, with their ``truth.json``.

    The bytes do not depend on the number of threads, which work on a frame each.
    """
    folder = Path(folder)
    frames = [(shot, (_SEED, number)) for number, shot in enumerate(plan(recipe))]
    shoot(folder, _scene(recipe), frames, _START, workers=threads, progress=progress)
    if recipe.doubled:
        lights = sorted((folder / "lights").iterdir())
        again = lights[-1].name.replace(f"_{len(lights):02d}.", f"_{len(lights) + 1:02d}.")
        shutil.copyfile(lights[recipe.doubled - 1], folder / "lights" / again)
    write_truth(folder, truth(recipe))
    return folder


def plan(recipe: Recipe) -> Iterator[Shot]:
    """Yield the frames of a set in the order in which they are shot."""
    rng = np.random.default_rng(_SEED)
    for iso in recipe.isos:
        for number in range(1, recipe.bias + 1):
            yield Shot(f"bias/bias_ISO{iso}_{number:02d}.dng", "bias", iso, 1 / _SHUTTERS[-1], ROOM)
    stops = {iso: round(np.log2(iso / 100)) for iso in recipe.isos}
    over = {iso: _OVEREXPOSED / 2**stop for iso, stop in stops.items()}
    # far too bright or faint for a master flat: taken first, so that the others are nearer in time to the lights
    flats = {f"flats/transfer/flat_ISO{iso}_{exposure:g}s": (iso, exposure) for iso, exposure in over.items()}
    if recipe.transfer is None:
        flats = {}
    for folder, steps in (("flats/transfer", recipe.transfer or ()), ("flats", recipe.steps)):
        for (iso, stop), step in itertools.product(stops.items(), steps):
            speed = _SHUTTERS[3 * stop + step]
            flats[f"{folder}/flat_ISO{iso}_1-{speed:g}s"] = (iso, 1 / speed)
    for name, (iso, exposure) in flats.items():
        for number in (1, 2):
            lamp = 1.0 if number == 1 else 1 + float(rng.uniform(-0.015, 0.015))
            shot = Shot(f"{name}_{number}.dng", "flat", iso, exposure, ROOM, aperture=recipe.aperture, lamp=lamp)
            yield dataclasses.replace(shot, dust_moved=(-recipe.dust_moved[0], -recipe.dust_moved[1]))
    for dark_iso, temperature, exposure, frames in recipe.darks:
        for number in range(1, frames + 1):
            name = f"darks/{temperature:g}C/dark_ISO{dark_iso:g}_{exposure:g}s_{temperature:g}C_{number:02d}.dng"
            warmer = dict(recipe.thermometer).get(temperature, 0.0)
            yield Shot(name, "dark", dark_iso, exposure, temperature, warmer=warmer)
    light_iso, temperature, exposure = recipe.light
    evenings = set(np.cumsum(recipe.lights)[:-1].tolist())
    for number in range(sum(recipe.lights)):
        name = f"lights/light_ISO{light_iso:g}_{exposure:g}s_{temperature:g}C_{number + 1:02d}.dng"
        shot = Shot(name, "light", light_iso, exposure, temperature, aperture=recipe.aperture, view=number)
        wait = _NEXT_EVENING if number in evenings else 0.0
        yield dataclasses.replace(shot, lens=(recipe.focal_length, PIXEL), wait=wait)


def truth(recipe: Recipe) -> dict[str, Any]:
    """Return what is true of a set, as ``truth.json`` has it; realised values, not expected ones."""
    scene, field = _scene(recipe), _field(recipe)
    sensor = scene.sensor
    hot = sensor.dark_map[tuple(sensor.hot_pixels.T)]
    temperatures = sorted({ROOM, *(dark[1] for dark in recipe.darks)})
    text = json.dumps(
        {
            "camera": sensor.camera,
            "simulated": True,
            "cfa_pattern": sensor.cfa_pattern,
            "shape": list(sensor.shape),
            "black_level": {"value": sensor.black_level + float(sensor.offset_map.mean(dtype=float)), "unit": "adu"},
            "white_level": {"value": sensor.white_level, "unit": "adu"},
            "settings": [
                {
                    "iso": iso,
                    "gain": {"value": sensor.gain(iso), "unit": "e-/adu"},
                    "read_noise": {"value": sensor.read_noise(iso), "unit": "e-"},
                    "saturation": {"value": sensor.saturation(iso), "unit": "e-"},
                }
                for iso in recipe.isos
            ],
            "unity_gain_iso": {"value": sensor.unity_gain_iso},
            "dark_current": [_dark_truth(recipe, temperature) for temperature in temperatures],
            "dark_law": {
                "activation_energy": {"value": sensor.activation_energy, "unit": "eV"},
                "doubling_temperature": {"value": _doubling(sensor.reference_temperature), "unit": "K", "at_c": ROOM},
                "reference_temperature": {"value": sensor.reference_temperature, "unit": "°C"},
                "dark_current_reference": {"value": sensor.dark_current, "unit": "e-/s/pixel"},
            },
            "fixed_pattern": {"value": float(sensor.offset_map.std(dtype=float)), "unit": "adu"},
            "prnu": {"value": 100 * float(sensor.response_map.std(dtype=float)), "unit": "%"},
            "vignetting": {"value": 100 * sensor.vignetting, "unit": "% lost in the corners, growing as r²"},
            "hot_pixels": [
                {"y": int(y), "x": int(x), "dark_current": float(value)}
                for (y, x), value in zip(sensor.hot_pixels, hot, strict=True)
            ],
            "object": OBJECT,
            "lens": {"focal_length_mm": recipe.focal_length, "aperture": recipe.aperture, "pixel_um": PIXEL},
            "wcs": field.wcs,
            "stars": _stars(field),
            "frames": [_frame_truth(scene, shot) for shot in plan(recipe)],
        }
    )
    # nine digits, so that the text does not depend on the processor's last bit
    return json.loads(text, parse_float=lambda number: float(f"{float(number):.9g}"))


def _dark_truth(recipe: Recipe, temperature: float) -> dict[str, Any]:
    """The dark current of the darks that state a temperature [°C], and how warm the sensor was."""
    sensor, warm = _scene(recipe).sensor, temperature + dict(recipe.thermometer).get(temperature, 0.0)
    return {
        "temperature_c": temperature,
        "sensor_c": warm,
        "value": sensor.mean_dark_current(warm),
        "median": float(np.median(sensor.dark_map)) * sensor.dark_factor(warm),
        "dcnu": sensor.dcnu(warm),
        "unit": "e-/s/pixel",
    }


def _doubling(temperature: float) -> float:
    """Return over how many kelvin the dark current doubles near a temperature [°C]: ln 2 kT²/ΔE."""
    return math.log(2) * BOLTZMANN * (temperature - ABSOLUTE_ZERO) ** 2 / _ACTIVATION


def _stars(field: Field) -> list[dict[str, Any]]:
    """Return the stars in the plain view, brightest first: places on the frame and in the sky, light and colour."""
    height, width = field.sky.shape
    x, y, flux = field.sky.x, field.sky.y, field.sky.flux
    inside = np.flatnonzero((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
    return [
        {
            "x": float(x[star]),
            "y": float(y[star]),
            "flux": flux[star].tolist(),
            "unit": "e-/s in R, G, B",
            "ra": float(field.ra[star]),
            "dec": float(field.dec[star]),
            "magnitude": float(field.magnitude[star]),
            "b_v": float(field.b_v[star]),
            "catalogued": bool(field.real[star]),
        }
        for star in inside[np.argsort(-flux[inside, 1], kind="stable")]
    ]


def _frame_truth(scene: Scene, shot: Shot) -> dict[str, Any]:
    """How a frame was taken; of a light, how it saw the sky: `matrix` takes the stars' positions to its pixels."""
    frame = {
        "file": shot.file,
        "kind": shot.kind,
        "iso": shot.iso,
        "exposure_s": shot.exposure,
        "temperature_c": shot.temperature,
    }
    if shot.kind == "flat":
        frame["lamp"] = [shot.lamp * rate for rate in scene.lamp]
    if shot.view is None:
        return frame
    view = scene.views[shot.view]
    return frame | {
        "matrix": view.matrix.tolist(),
        "fwhm": view.fwhm,
        "transparency": view.transparency,
        "background": list(view.background),
        "trails": [dataclasses.asdict(trail) | {"electrons": list(trail.electrons)} for trail in view.trails],
        "cosmic_rays": view.cosmic_rays,
    }


@cache
def _field(recipe: Recipe) -> Field:
    """Return the field of a set."""
    return make_field(recipe.shape, focal_length=recipe.focal_length, aperture=recipe.aperture, seed=_SEED)


@cache
def _scene(recipe: Recipe) -> Scene:
    """Return the camera of a set, its sky, how each light sees it, and what the dust lets through."""
    height, width = recipe.shape
    sky = _field(recipe).sky
    # a sky of 20.2 mag/arcsec² through f/4, somewhat yellower than daylight
    night = NightSettings(
        exposure=recipe.light[2], dither=8.0, rotation=0.2, cosmic_rays=2, background=(0.50, 1.0, 0.75), fwhm=2.8
    )
    views = make_night(sky, sum(recipe.lights), night, seed=_SEED)
    # the second night: the camera put on again, and the moon up
    turned = pointing(recipe.shape, shift=(0.012 * width, -0.016 * width), degrees=1.3)
    for number in range(recipe.lights[0], len(views)):
        moonlit = tuple(1.35 * level for level in views[number].background)
        views[number] = dataclasses.replace(views[number], matrix=turned @ views[number].matrix, background=moonlit)
    # one satellite, in the middle of the night, for the stack to reject
    trail = Trail(0.0, 0.3 * height, width - 1.0, 0.8 * height, fwhm=2.5, electrons=(250.0, 500.0, 400.0))
    views[len(views) // 2] = dataclasses.replace(views[len(views) // 2], trails=(trail,))
    through = dust(recipe.shape, motes=recipe.dust[0], depth=recipe.dust[1], seed=_SEED)
    return Scene(d7000(shape=recipe.shape, activation_energy=_ACTIVATION), sky, tuple(views), through, _LAMP)
