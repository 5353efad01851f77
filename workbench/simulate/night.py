"""A simulated night: how its frames see the sky, and a folder of biases, darks, flats and lights with their truth."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from tqdm.auto import tqdm

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from ..core.files import whole_file
from ..core.parallel import FRAME_BYTES, in_threads
from .firmware import save_frame
from .sensor import VirtualSensor, d7000, expose
from .sky import Sky, Trail, View, cosmic_rays, dust, make_sky, pointing, render

FOLDERS = {"bias": "biases", "dark": "darks", "flat": "flats", "light": "lights"}  # Siril's names
LAMP = (0.75, 1.0, 1.0, 0.6)  # a flat panel's light in R, G1, G2, B: any lamp that is not white
LAMPS = {1: (1.0,), 3: (0.75, 1.0, 0.6), 4: LAMP}  # by the number of a mosaic's channels
START = datetime(2024, 3, 9, 21, 0, 0)
_TRUTH = "truth.json"


@dataclasses.dataclass(frozen=True)
class NightSettings:
    """What is shot in a night, and how its views of the sky differ.

    Attributes
    ----------
    shape, lights, biases, darks, flats
        Size of a frame [pixels] and counts of frames.
    cfa_pattern
        Of the camera: a Bayer mosaic, ``core.cube.XTRANS``, or ``mono``.
    iso, exposure, temperature
        The lights' setting, time [s] and sensor temperature [°C]; the darks' too unless `dark_exposure` and
        `dark_temperature` are given.
    flat_exposure, flat_level, lamp_drift
        The flats' time [s], their green level in the frame's centre, of saturation, and the scatter of the lamp from
        flat to flat.
    motes
        Dust shadows, in flats and lights alike.
    stars, brightest, faintest
        See `make_sky`.
    fwhm, seeing_scatter, beta, distortion
        See `View`; the seeing scatters by a fraction.
    dither, rotation, flip_after
        Pointings scatter [px rms] and turn by up to so many degrees either way; from a frame on the mount has flipped
        over the meridian (180° more).
    transparency_scatter
        A fraction.
    background, gradient, curvature
        The sky's [e-/s/pixel] in R, G, B, and its relative change over the frame; both drift through the night.
    trails, trail_electrons, cosmic_rays
        Satellites a frame, each in another position, with about so much light along their centre; muons a frame.
    """

    shape: tuple[int, int] = (1088, 1632)
    lights: int = 20
    biases: int = 16
    darks: int = 16
    flats: int = 16
    iso: float = 200
    exposure: float = 60.0
    temperature: float = 10.0
    dark_exposure: float | None = None
    dark_temperature: float | None = None
    flat_exposure: float = 0.02
    flat_level: float = 0.5
    lamp_drift: float = 0.03
    motes: int = 12
    stars: int | None = None
    brightest: float = 2500.0
    faintest: float = 10.0
    fwhm: float = 3.0
    seeing_scatter: float = 0.08
    beta: float = 3.5
    distortion: float = 0.0
    dither: float = 12.0
    rotation: float = 0.3
    flip_after: int | None = None
    transparency_scatter: float = 0.05
    background: tuple[float, ...] = (1.0, 2.0, 1.5)
    gradient: float = 0.15
    curvature: float = 0.0
    trails: int = 0
    trail_electrons: float = 400.0
    cosmic_rays: int = 0
    cfa_pattern: str = "RGGB"


@dataclasses.dataclass(frozen=True)
class Shot:
    """One frame to be taken: its file and setting (exposure [s], temperature [°C]), and what it is pointed at.

    A flat has the lamp's level, a light the number of its view and the `lens`: focal length [mm] and pixel size [µm].
    `wait` [s] goes by before it is taken.  The sensor may be `warmer` [K] than its thermometer states, and the dust may
    have moved (y, x) [px].
    """

    file: str
    kind: str
    iso: float
    exposure: float
    temperature: float
    aperture: float | None = None
    lamp: float = 0.0
    view: int | None = None
    lens: tuple[float, float] | None = None
    wait: float = 0.0
    warmer: float = 0.0
    dust_moved: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What frames are taken of, and with: the camera, the sky and how each light sees it, dust and flat lamp.

    `through` (y, x) is the share of light that the dust lets pass, `lamp` the flat lamp's light [e-/s/pixel], one value
    a channel, at level 1.
    """

    sensor: VirtualSensor
    sky: Sky
    views: tuple[View, ...]
    through: np.ndarray
    lamp: tuple[float, ...]

    def take(self, shot: Shot, seed: Sequence[int]) -> np.ndarray:
        """Expose one frame: the mosaic, uint16 (y, x) [ADU]."""
        rate, hits = 0.0, None
        if shot.kind == "flat":
            through = np.roll(self.through, shot.dust_moved, axis=(0, 1))
            rate = through * self.sensor.spread(shot.lamp * np.array(self.lamp))
        elif shot.view is not None:  # a light
            view = self.views[shot.view]
            rate = self.through * render(self.sky, view, self.sensor.cfa_pattern, threads=1)
            hits = cosmic_rays(self.sky, view)
        setting = {"iso": shot.iso, "exposure": shot.exposure, "temperature": shot.temperature + shot.warmer}
        return expose(self.sensor, rate, **setting, seed=seed, hits=hits, threads=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Night(Scene):
    """A simulated night in a folder and its truth; `lights` names the files in the order of `views`."""

    folder: Path
    lights: tuple[str, ...]
    settings: NightSettings

    def expected(self, number: int) -> np.ndarray:
        """Return the noise-free electrons of one light as the sensor collects them, dark signal and cosmic rays apart.

        rate · exposure · dust · vignetting · response, float64 (y, x) [e-], trails included.
        """
        view = self.views[number]
        light = render(self.sky, view, self.sensor.cfa_pattern) * (self.through * float(view.exposure))
        return light * self.sensor.illumination() * self.sensor.response_map

    def cosmic_ray_mask(self, number: int) -> np.ndarray:
        """Return where cosmic rays hit one light, boolean (y, x)."""
        mask = np.zeros(self.sky.shape, bool)
        rows, columns, _ = cosmic_rays(self.sky, self.views[number])
        mask[rows, columns] = True
        return mask


def make_night(
    sky: Sky, frames: int, settings: NightSettings | None = None, *, seed: int = 0, **changes: Any
) -> list[View]:
    """Make the views of one night: dithered, slowly rotating, through an air that changes.

    The first view is the reference: it points straight (identity) and has no rotation.  The others scatter and turn as
    the `settings` (all defaults without them) and the `changes`, fields of `NightSettings`, have it; trails fall on
    every frame in another position.

    Examples
    --------
    >>> views = make_night(make_sky((64, 96), stars=5), 3, flip_after=2, seed=4)
    >>> len(views), np.array_equal(views[0].matrix, np.eye(3)), float(np.sign(views[2].matrix[0, 0]))
    (3, True, -1.0)
    """
    night = dataclasses.replace(settings or NightSettings(), **changes)
    views = []
    for number in range(frames):
        rng = np.random.default_rng((seed, 2, number))
        shift, turn = rng.normal(0.0, night.dither, 2), rng.uniform(-night.rotation, night.rotation)
        if number == 0:
            shift, turn = np.zeros(2), 0.0
        flipped = night.flip_after is not None and number >= night.flip_after
        phase = number / max(frames - 1, 1)
        direction = 2 * np.pi * (0.1 + 0.25 * phase)
        plane = night.gradient * (1 + 0.5 * phase) * np.array([np.sin(direction), np.cos(direction)])
        fwhm = night.fwhm * float(np.exp(rng.normal(0.0, night.seeing_scatter)))
        views.append(
            View(
                exposure=night.exposure,
                matrix=pointing(sky.shape, shift=shift, degrees=turn + 180.0 * flipped),
                distortion=night.distortion,
                fwhm=fwhm,
                beta=night.beta,
                transparency=float(np.exp(-abs(rng.normal(0.0, night.transparency_scatter)))),
                background=tuple(float(level) * (1 + 0.2 * phase) for level in night.background),
                gradient=np.outer([1.0, 0.9, 0.7], plane),
                curvature=(night.curvature,) * 3,
                trails=tuple(_random_trail(rng, sky.shape, fwhm, night.trail_electrons) for _ in range(night.trails)),
                cosmic_rays=night.cosmic_rays,
                seed=int(rng.integers(2**31)),
            )
        )
    return views


def _random_trail(rng: np.random.Generator, shape: tuple[int, int], fwhm: float, electrons: float) -> Trail:
    height, width = shape
    x, y, angle = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height, rng.uniform(0, np.pi)
    reach = math.hypot(height, width)
    dx, dy = reach * math.cos(angle), reach * math.sin(angle)
    level = electrons * float(np.exp(rng.normal(0.0, 0.5)))
    return Trail(x - dx, y - dy, x + dx, y + dy, fwhm, (0.5 * level, level, 0.7 * level))


def shoot(
    folder: Path,
    scene: Scene,
    frames: Sequence[tuple[Shot, Sequence[int]]],
    start: datetime,
    *,
    save: Callable[..., Path] = save_frame,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Take frames, each by its own seed, and save them into a folder; the first at `start`, each after the last.

    The bytes do not depend on the number of `workers`, who take a frame each.
    """
    for parent in {(folder / shot.file).parent for shot, _ in frames}:
        parent.mkdir(parents=True, exist_ok=True)
    sensor = scene.sensor
    sensor.dark_map, sensor.response_map, sensor.offset_map  # noqa: B018  drawn once, before the threads want them
    waits = [shot.wait for shot, _ in frames]
    seconds = itertools.accumulate(
        (round(shot.exposure) + 2 + wait for (shot, _), wait in zip(frames, [*waits[1:], 0.0], strict=True)),
        initial=waits[0] if waits else 0.0,
    )

    def take(job: tuple[tuple[Shot, Sequence[int]], int]) -> None:
        (shot, seed), after = job
        setting = {name: getattr(shot, name) for name in ("iso", "exposure", "temperature", "aperture")}
        if shot.lens:
            setting |= {"focal_length": shot.lens[0], "pixel_size": shot.lens[1]}
        save(folder / shot.file, scene.take(shot, seed), sensor, **setting, time=start + timedelta(seconds=after))

    done = in_threads(take, zip(frames, seconds, strict=False), workers, each=FRAME_BYTES)
    for _ in tqdm(done, "shooting frames", len(frames), unit="frame", disable=not progress):
        pass


def write_night(
    folder: str | Path,
    settings: NightSettings | None = None,
    *,
    suffix: str = "dng",
    compressed: bool = False,
    seed: int = 0,
    progress: bool = True,
    **changes: Any,
) -> Night:
    """Simulate a night and write it as DNG or FITS files into Siril's folders, what it is made of into truth.json.

    Parameters
    ----------
    folder
        Gets ``biases``, ``darks``, ``flats`` and ``lights``; must not hold frames yet.
    settings
        Frames and sky; all defaults without them.  The `changes` are fields of `NightSettings`.
    suffix
        ``dng`` or ``fits``.
    compressed
        DNG files with lossless JPEG, as most cameras write.

    Raises
    ------
    WorkbenchError
        If the folder already holds a night, or the suffix is neither.
    """
    folder, settings = Path(folder), dataclasses.replace(settings or NightSettings(), **changes)
    if suffix not in ("dng", "fits"):
        raise WorkbenchError(f"a night is written as dng or fits files, not {suffix!r}")
    taken = [name for name in FOLDERS.values() if (folder / name).exists()]
    if taken:
        raise WorkbenchError(f"{folder}: {', '.join(taken)} already there; give an empty folder")
    night = _night(folder, settings, suffix, seed)
    save = partial(save_frame, compressed=compressed) if suffix == "dng" else save_fits
    shoot(folder, night, _frames(night, suffix, seed), START, save=save, progress=progress)
    truth = {"simulated": True, "suffix": suffix, "seed": seed, "settings": dataclasses.asdict(settings)}
    write_truth(folder, truth)
    return night


def write_truth(folder: Path, truth: dict[str, Any]) -> None:
    """Write what a simulation is made of into the ``truth.json`` of its folder."""
    with whole_file(folder / _TRUTH, frame=True) as part:
        part.write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8", newline="\n")


def read_truth(folder: Path) -> dict[str, Any] | None:
    """Return what `write_truth` wrote into a folder; None where there is none."""
    path = folder / _TRUTH
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _night(folder: Path, settings: NightSettings, suffix: str, seed: int) -> Night:
    """The night that these settings and this seed make."""
    recipe: dict[str, Any] = {"stars": settings.stars, "brightest": settings.brightest, "faintest": settings.faintest}
    sky = make_sky(settings.shape, **recipe, seed=seed)
    return Night(
        sensor=d7000(seed=7000 + seed, shape=settings.shape, cfa_pattern=settings.cfa_pattern),
        sky=sky,
        views=tuple(make_night(sky, settings.lights, settings, seed=seed)),
        through=dust(settings.shape, motes=settings.motes, seed=seed),
        lamp=LAMPS[len(channels_of(settings.cfa_pattern))],
        folder=folder,
        lights=tuple(f"{FOLDERS['light']}/light_{number:04d}.{suffix}" for number in range(settings.lights)),
        settings=settings,
    )


def _frames(night: Night, suffix: str, seed: int) -> list[tuple[Shot, tuple[int, ...]]]:
    """The frames of a night in their order, each with its seed."""
    plan = night.settings
    dark = plan.exposure if plan.dark_exposure is None else plan.dark_exposure
    dark_temperature = plan.temperature if plan.dark_temperature is None else plan.dark_temperature
    lamp = plan.flat_level * night.sensor.saturation(plan.iso) / plan.flat_exposure
    frames: list[tuple[Shot, tuple[int, ...]]] = []
    for kind, count in zip(FOLDERS, (plan.biases, plan.darks, plan.flats, plan.lights), strict=True):
        for number in range(count):
            shot = Shot(f"{FOLDERS[kind]}/{kind}_{number:04d}.{suffix}", kind, plan.iso, 0.0, plan.temperature)
            change: dict[str, Any] = {}
            if kind == "dark":
                change = {"exposure": dark, "temperature": dark_temperature}
            elif kind == "flat":
                level = 1 + plan.lamp_drift * np.random.default_rng((seed, 6, number)).standard_normal()
                change = {"exposure": plan.flat_exposure, "lamp": lamp * level}
            elif kind == "light":
                change = {"exposure": plan.exposure, "view": number}
            frames.append((dataclasses.replace(shot, **change), (seed, list(FOLDERS).index(kind), number)))
    return frames


def open_night(folder: str | Path) -> Night:
    """Return the truth of a night that `write_night` wrote, made again from its settings and its seed.

    Raises
    ------
    WorkbenchError
        If the folder holds none.
    """
    folder = Path(folder)
    truth = read_truth(folder)
    if truth is None:
        raise WorkbenchError(f"{folder} holds no simulated night ({_TRUTH} is missing)")
    settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in truth["settings"].items()}
    return _night(folder, NightSettings(**settings), truth["suffix"], truth["seed"])


def save_fits(path: str | Path, mosaic: np.ndarray, sensor: VirtualSensor, **setting: Any) -> Path:
    """Save a frame as capture programs do: unsigned 16-bit FITS, rows top down, with the usual keywords.

    The `setting` has ``iso``, ``exposure`` [s], ``temperature`` [°C] and ``time``, as for `save_frame`.
    """
    hdu = fits.PrimaryHDU(mosaic)
    hdu.header["INSTRUME"] = (sensor.camera, "simulated")
    hdu.header["IMAGETYP"] = Path(path).stem.split("_")[0].capitalize()
    hdu.header["EXPTIME"] = (setting["exposure"], "[s]")
    hdu.header["ISOSPEED"] = setting["iso"]
    hdu.header["CCD-TEMP"] = (setting["temperature"], "[degC]")
    hdu.header["BAYERPAT"] = sensor.cfa_pattern
    hdu.header["ROWORDER"] = "TOP-DOWN"
    hdu.header["DATE-OBS"] = setting["time"].isoformat()
    with whole_file(path, frame=True) as part:
        hdu.writeto(part)
    return Path(path)
