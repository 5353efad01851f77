"""A simulated night on one field, in which a planet passes in front of a star: the truth of a light curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from .night import LAMPS, START, NightSettings, Scene, Shot, make_night, read_truth, save_fits, shoot, write_truth
from .sensor import d7000
from .sky import dust, make_sky, replace_stars

_CELL = 48  # px: each star has a cell of its own
_PAUSE = 90.0  # s between lights
_TARGET = 1500.0  # e-/s in green


@dataclass(frozen=True)
class Transit:
    """A star's light falls by `depth`, in `ingress` [h], and rises again: `duration` [h] from first to last contact.

    `middle` [h] counts from the start of the first light.

    Examples
    --------
    >>> Transit(depth=0.02, middle=1.0, duration=1.0, ingress=0.2).light(np.array([0.4, 0.6, 1.0])).tolist()
    [1.0, 0.99, 0.98]
    """

    depth: float = 0.02
    middle: float = 1.25
    duration: float = 1.2
    ingress: float = 0.2

    def light(self, hours: np.ndarray) -> np.ndarray:
        """Return the star's relative light at times [h]."""
        inside = (self.duration / 2 - np.abs(np.asarray(hours) - self.middle)) / self.ingress
        return (1 - self.depth * np.clip(inside, 0, 1)).round(12)


class TransitNight(NamedTuple):
    """A simulated night's folder and truth: the stars' places on the first light [px], the target first, its transit.

    `flux` (star, colour) [e-/s], R, G, B; `exposure` [s] of a light.
    """

    folder: Path
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    transit: Transit
    exposure: float


def write_transit(
    folder: str | Path, transit: Transit | None = None, *, lights: int = 60, shape: tuple[int, int] = (240, 336),
    cfa_pattern: str = "RGGB", calibration: int = 8, seed: int = 0,
) -> TransitNight:  # fmt: skip
    """Simulate a night of lights of a minute, every two and a half minutes, in which a star is dimmed; as FITS.

    Stars stand apart, each in a cell of 48 px; the lights are dithered by 3 px, transparency and seeing change.
    The truth is written into ``truth.json``; see `read_transit`.

    Parameters
    ----------
    folder
        Gets ``biases``, ``darks``, ``flats`` and ``lights``; must not hold frames yet.
    lights, calibration
        Number of lights, and of calibration frames of each kind.

    Raises
    ------
    WorkbenchError
        If the folder already holds a night.
    """
    folder, transit = Path(folder), transit or Transit()
    if (folder / "lights").exists():
        raise WorkbenchError(f"{folder}: lights already there; give an empty folder")
    rng = np.random.default_rng((seed, 31))
    rows, columns = (size // _CELL for size in shape)
    y, x = (_CELL * (part.ravel() + 0.5) + rng.uniform(-6, 6, part.size) for part in np.mgrid[:rows, :columns])
    target = (rows // 2) * columns + columns // 2
    order = np.r_[target, np.delete(np.arange(x.size), target)]
    green = np.r_[_TARGET, _TARGET * 10 ** rng.uniform(-1.3, 0.1, x.size - 1)]
    flux = green[:, None] * np.array([0.6, 1.0, 0.7])
    sky = replace_stars(make_sky(shape, stars=10, seed=seed), x[order], y[order], flux)
    settings = NightSettings(shape=shape, lights=lights, dither=3.0, rotation=0.05, cfa_pattern=cfa_pattern)
    scene = Scene(
        d7000(seed=7000 + seed, shape=shape, cfa_pattern=cfa_pattern),
        sky, tuple(make_night(sky, lights, settings, seed=seed)), dust(shape, motes=4, seed=seed),
        LAMPS[len(channels_of(cfa_pattern))],
    )  # fmt: skip
    lamp = settings.flat_level * scene.sensor.saturation(settings.iso) / settings.flat_exposure
    setting = {"bias": (0.0, 0.0), "dark": (settings.exposure, 0.0), "flat": (settings.flat_exposure, lamp)}
    for place, (kind, folders) in enumerate({"bias": "biases", "dark": "darks", "flat": "flats"}.items()):
        exposure, light = setting[kind]
        shots = [
            Shot(f"{folders}/{kind}_{n:03d}.fits", kind, settings.iso, exposure, settings.temperature, lamp=light)
            for n in range(calibration)
        ]
        seeds = [(seed, place, n) for n in range(calibration)]
        shoot(folder, scene, list(zip(shots, seeds, strict=True)), START, save=save_fits, progress=False)
    for number in range(lights):
        hours = (number * (settings.exposure + _PAUSE) + settings.exposure / 2) / 3600
        dimmed = flux.copy()
        dimmed[0] *= transit.light(np.array(hours))
        seen = replace(scene, sky=replace(sky, flux=dimmed))
        shot = Shot(
            f"lights/light_{number:03d}.fits",
            "light",
            settings.iso,
            settings.exposure,
            settings.temperature,
            view=number,
        )  # fmt: skip
        start = START + timedelta(seconds=number * (settings.exposure + _PAUSE))
        shoot(folder, seen, [(shot, (seed, 3, number))], start, save=save_fits, progress=False)
    night = TransitNight(folder, x[order], y[order], flux, transit, settings.exposure)
    truth = {"simulated": True, "transit": asdict(transit), "exposure": settings.exposure}
    truth |= {"x": night.x.tolist(), "y": night.y.tolist(), "flux": flux.tolist()}
    write_truth(folder, truth)
    return night


def read_transit(folder: str | Path) -> TransitNight | None:
    """Return the truth of a night that `write_transit` wrote into a folder; None of another night."""
    truth = read_truth(Path(folder))
    if truth is None or "transit" not in truth:
        return None
    x, y, flux = (np.array(truth[name]) for name in ("x", "y", "flux"))
    return TransitNight(Path(folder), x, y, flux, Transit(**truth["transit"]), truth["exposure"])
