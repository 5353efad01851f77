"""The sample frames: a folder as a user would have it, shot by the virtual camera, with its truth.

The recipe is fixed and seeded, so the same bytes come out every time; `samples.sha256` lists them.  The full
set is made on first use and kept; a small set of the same form is committed in ``data-samples/small``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock

from ..core.errors import WorkbenchError
from ..core.values import SHUTTER_PARTS
from .field import OBJECT, PIXEL, Field, make_field
from .night import NightSettings, Scene, Shot, make_night, shoot
from .sensor import d7000
from .sky import Trail, dust, pointing

HASHES = Path(__file__).with_name("samples.sha256")
_PROJECT = Path(__file__).parents[2]
_SEED = 2025
_START = datetime(2025, 1, 18, 20, 0, 0)  # the first frame's time; each next one follows when the last is saved
# Light of the flat-field lamp where it is brightest [e-/s/pixel], R G1 G2 B: daylight as the D7000's matrix sees it.
_LAMP = (26_900.0, 61_000.0, 61_000.0, 50_100.0)
# Shutter times of the camera's third stops, from 1/2 s; a flat at ISO 100 and 1/2 s is at 0.9 of saturation.
_SHUTTERS = (2, 2.5, 3, *reversed(SHUTTER_PARTS))
_OVEREXPOSED = 3.2  # s at ISO 100: every pixel saturates, those of the darkest colour in the corners too
_ROOM, _FREEZER = 20.0, -18.0  # °C
_NEXT_EVENING = 23.5 * 3600  # s


class SampleWarning(UserWarning):
    """The sample frames differ from the published ones."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a set is made of."""

    shape: tuple[int, int]
    isos: tuple[int, ...]
    bias: int
    steps: tuple[int, ...]  # of the flats, in third stops below the brightest
    transfer: tuple[int, ...]  # the same, of flats too bright or too faint for a master
    darks: tuple[tuple[float, float, float, int], ...]  # iso, temperature [°C], exposure [s], frames
    lights: tuple[int, ...]  # of each night
    focal_length: float  # [mm]
    light: tuple[float, float, float] = (800, 10.0, 120.0)  # iso, temperature [°C], exposure [s]
    aperture: float = 4.0  # of lights and flats


FULL = Recipe(
    shape=(480, 720),
    isos=(100, 200, 400, 800, 1600, 3200, 6400),
    bias=8,
    steps=(1, 4, 7, 10, 13),
    transfer=(17,),
    darks=(
        *((800, _ROOM, exposure, 4) for exposure in (30.0, 60.0, 120.0, 300.0, 600.0)),
        *((800, temperature, exposure, 4) for temperature in (0.0, 30.0) for exposure in (120.0, 600.0)),
        (800, 10.0, 120.0, 8),
        (800, 10.0, 600.0, 4),
        # the two that the blog's author took
        (200, _ROOM, 60.0, 4),
        (200, _FREEZER, 600.0, 4),
    ),
    lights=(5, 3),
    focal_length=50.0,
)
SMALL = Recipe(
    shape=(192, 288),
    isos=(200, 800),
    bias=4,
    steps=(3, 7, 11),
    transfer=(0,),
    darks=tuple((800, temperature, exposure, 2) for temperature in (10.0, 20.0) for exposure in (120.0, 600.0)),
    lights=(2, 1),
    focal_length=24.0,
)


def sample_folder(progress: bool = True) -> Path:
    """Return the folder of the full set of sample frames, which the virtual camera shoots on first use.

    It lies in ``data-samples/generated`` of the project, or in the user's cache folder where the project is
    missing or cannot be written; the environment variable ``WORKBENCH_CACHE`` names another folder.  The set appears
    whole or not at all, and is made again when a later version of the workbench changes it.

    Warns
    -----
    SampleWarning
        If a frame differs from the published one (another processor may round differently).

    Raises
    ------
    WorkbenchError
        The same, where ``WORKBENCH_REQUIRE_REAL`` is set; or if the folder cannot be written.
    """
    folder = own_folder("samples", "data-samples/generated")
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):  # free again if its holder was killed
            if not _is_whole(folder):  # another process may have made it while this one waited
                for left in folder.parent.glob(f".{folder.name}.part-*"):  # by one that was killed
                    shutil.rmtree(left, ignore_errors=True)
                aside = folder.with_name(f".{folder.name}.part-{os.getpid()}")
                try:
                    write_samples(aside, FULL, progress=progress)
                    _check_hashes(aside)
                    shutil.rmtree(folder, ignore_errors=True)
                    os.replace(aside, folder)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise WorkbenchError(
            f"{folder}: cannot write the sample frames there ({error}); they need 200 MB: "
            "make room, or name another folder in the environment variable WORKBENCH_CACHE"
        ) from error
    return folder


def write_samples(
    folder: str | Path, recipe: Recipe = FULL, *, progress: bool = True, threads: int | None = None
) -> Path:
    """Shoot a set of sample frames into a folder, with their ``truth.json``.

    The bytes do not depend on the number of threads, which work on a frame each.
    """
    folder = Path(folder)
    frames = [(shot, (_SEED, number)) for number, shot in enumerate(plan(recipe))]
    shoot(folder, _scene(recipe), frames, _START, workers=threads, progress=progress)
    (folder / "truth.json").write_text(json.dumps(truth(recipe), indent=1) + "\n", encoding="utf-8", newline="\n")
    return folder


def plan(recipe: Recipe) -> Iterator[Shot]:
    """Yield the frames of a set in the order in which they are shot."""
    rng = np.random.default_rng(_SEED)
    for iso in recipe.isos:
        for number in range(1, recipe.bias + 1):
            yield Shot(f"bias/bias_ISO{iso}_{number:02d}.dng", "bias", iso, 1 / _SHUTTERS[-1], _ROOM)
    stops = {iso: round(np.log2(iso / 100)) for iso in recipe.isos}
    over = {iso: _OVEREXPOSED / 2**stop for iso, stop in stops.items()}
    # far too bright or faint for a master flat: taken first, so that the others are nearer in time to the lights
    flats = {f"flats/transfer/flat_ISO{iso}_{exposure:g}s": (iso, exposure) for iso, exposure in over.items()}
    for folder, steps in (("flats/transfer", recipe.transfer), ("flats", recipe.steps)):
        for (iso, stop), step in itertools.product(stops.items(), steps):
            speed = _SHUTTERS[3 * stop + step]
            flats[f"{folder}/flat_ISO{iso}_1-{speed:g}s"] = (iso, 1 / speed)
    for name, (iso, exposure) in flats.items():
        for number in (1, 2):
            lamp = 1.0 if number == 1 else 1 + float(rng.uniform(-0.015, 0.015))
            yield Shot(f"{name}_{number}.dng", "flat", iso, exposure, _ROOM, aperture=recipe.aperture, lamp=lamp)
    for dark_iso, temperature, exposure, frames in recipe.darks:
        for number in range(1, frames + 1):
            name = f"darks/{temperature:g}C/dark_ISO{dark_iso:g}_{exposure:g}s_{temperature:g}C_{number:02d}.dng"
            yield Shot(name, "dark", dark_iso, exposure, temperature)
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
            "dark_current": [
                {
                    "temperature_c": temperature,
                    "value": sensor.mean_dark_current(temperature),
                    "median": float(np.median(sensor.dark_map)) * sensor.dark_factor(temperature),
                    "dcnu": sensor.dcnu(temperature),
                    "unit": "e-/s/pixel",
                }
                for temperature in sorted({_ROOM, *(dark[1] for dark in recipe.darks)})
            ],
            "dark_law": {
                "doubling_temperature": {"value": sensor.doubling_temperature, "unit": "K"},
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


def hash_folder(folder: Path) -> str:
    """Return the SHA-256 of every file in a folder, in the form of ``sha256sum``, sorted by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}" for path in files
    )
    return "\n".join(lines) + "\n"


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
    through = dust(recipe.shape, motes=5, depth=0.08, seed=_SEED)
    return Scene(d7000(shape=recipe.shape), sky, tuple(views), through, _LAMP)


def own_folder(name: str, in_project: str) -> Path:
    """Return where files belong that the workbench makes for itself: in the project, else in the user's cache folder.

    Parameters
    ----------
    name
        The folder's name in the cache, or in the folder that the environment variable ``WORKBENCH_CACHE`` names.
    in_project
        The folder's path in the project, where there is one and it can be written.
    """
    if os.environ.get("WORKBENCH_CACHE"):
        return Path(os.environ["WORKBENCH_CACHE"]) / name
    project = _PROJECT / in_project
    if (_PROJECT / "data-samples" / "README.md").is_file() and os.access(project.parent, os.W_OK):
        return project
    return platformdirs.user_cache_path("astrophoto-workbench", appauthor=False) / name


def _is_whole(folder: Path) -> bool:
    """Return whether the folder holds every frame of this version's set."""
    expected = HASHES.read_text(encoding="utf-8") if HASHES.is_file() else ""
    mark = folder / ".recipe"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != hashlib.sha256(expected.encode()).hexdigest():
        return False
    return all((folder / line.split("  ", 1)[1]).is_file() for line in expected.splitlines())


def _check_hashes(folder: Path) -> None:
    """Compare the files with the published ones, and mark the folder as this version's."""
    expected = HASHES.read_text(encoding="utf-8") if HASHES.is_file() else ""
    found = hash_folder(folder)
    different = [line.split("  ", 1)[1] for line in sorted(set(found.splitlines()) ^ set(expected.splitlines()))]
    (folder / ".recipe").write_text(hashlib.sha256(expected.encode()).hexdigest(), encoding="utf-8")
    if not different:
        return
    message = (
        f"{len(set(different))} of the sample files made here differ from the published ones, first {different[0]}. "
        "Another processor or another NumPy rounds exp, log and pow differently in the last bit, which can shift a "
        "simulated pixel; the frames are just as good statistically, but numbers computed from them will differ "
        "slightly from those in the documentation."
    )
    if os.environ.get("WORKBENCH_REQUIRE_REAL"):
        raise WorkbenchError(message)
    warnings.warn(message, SampleWarning, stacklevel=3)


def publish() -> None:
    """Make the committed small set and the published hashes again, after the recipe was changed on purpose."""
    small = _PROJECT / "data-samples" / "small"
    shutil.rmtree(small, ignore_errors=True)
    write_samples(small, SMALL)
    with tempfile.TemporaryDirectory() as aside:
        HASHES.write_text(hash_folder(write_samples(aside)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    publish()
