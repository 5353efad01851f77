"""A whole simulated night in a folder: biases, darks, flats and lights as files, and the truth beside them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..core.errors import WorkbenchError
from ..core.files import aside
from ..core.mosaic import channel_index
from .firmware import save_frame
from .sensor import VirtualSensor, d7000, expose
from .sky import Sky, Trail, View, cosmic_rays, dust, make_night, make_sky, render

FOLDERS = {"bias": "biases", "dark": "darks", "flat": "flats", "light": "lights"}  # Siril's names
LAMP = (0.75, 1.0, 1.0, 0.6)  # a flat panel's light in R, G1, G2, B: any lamp that is not white
START = datetime(2024, 3, 9, 21, 0, 0)
_TRUTH = "truth.json"
_ARRAYS = "truth.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class Night:
    """A simulated night and its truth: the camera, the sky, and how each light saw it.

    `through` (y, x) is the share of light that the dust lets pass; `lights` names the files in the order of
    `views`; `settings` holds iso, temperature [°C], flat_exposure [s], seed and the counts of frames.
    """

    folder: Path
    sensor: VirtualSensor
    sky: Sky
    views: tuple[View, ...]
    through: np.ndarray
    lights: tuple[str, ...]
    settings: dict

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


def write_night(
    folder: str | Path,
    *,
    shape: tuple[int, int] = (1088, 1632),
    lights: int = 20,
    biases: int = 16,
    darks: int = 16,
    flats: int = 16,
    iso: float = 200,
    exposure: float = 60.0,
    temperature: float = 10.0,
    dark_exposure: float | None = None,
    dark_temperature: float | None = None,
    flat_exposure: float = 0.02,
    flat_level: float = 0.5,
    lamp_drift: float = 0.03,
    motes: int = 12,
    suffix: str = "dng",
    sensor: VirtualSensor | None = None,
    sky: Sky | None = None,
    views: Sequence[View] | None = None,
    seed: int = 0,
    progress: bool = True,
    **night,
) -> Night:
    """Simulate a night and write it as DNG or FITS files into Siril's folders, the truth into truth.json and .npz.

    Parameters
    ----------
    folder
        Gets ``biases``, ``darks``, ``flats`` and ``lights``; must not hold frames yet.
    shape, lights, biases, darks, flats
        Size of a frame [pixels] and counts of frames.
    iso, exposure, temperature
        The lights' setting, time [s] and sensor temperature [°C]; the darks' too unless given.
    flat_level, lamp_drift
        The flats' green level in the frame's centre, of saturation, and the scatter of the lamp from flat to flat.
    motes
        Dust shadows, in flats and lights alike.
    suffix
        ``dng`` or ``fits``.
    sensor, sky, views
        The camera, the scene and its views, where the defaults (`d7000`, `make_sky`, `make_night`) do not do.
    **night
        What `make_night` takes: ``fwhm``, ``dither``, ``rotation``, ``trails``, ``cosmic_rays`` and so on.

    Raises
    ------
    WorkbenchError
        If the folder already holds a night, or the suffix is neither.
    """
    folder = Path(folder)
    if suffix not in ("dng", "fits"):
        raise WorkbenchError(f"a night is written as dng or fits files, not {suffix!r}")
    taken = [name for name in FOLDERS.values() if (folder / name).exists()]
    if taken:
        raise WorkbenchError(f"{folder}: {', '.join(taken)} already there; give an empty folder")
    sensor = d7000(seed=7000 + seed, shape=shape) if sensor is None else sensor
    sky = make_sky(sensor.shape, seed=seed) if sky is None else sky
    if sky.shape != sensor.shape:
        raise WorkbenchError(f"the sky's field is {sky.shape}, the sensor {sensor.shape}: make both of one size")
    views = make_night(sky, lights, exposure=exposure, seed=seed, **night) if views is None else list(views)
    through = dust(sensor.shape, motes=motes, seed=seed)
    settings = {
        "iso": iso,
        "temperature": temperature,
        "dark_exposure": exposure if dark_exposure is None else dark_exposure,
        "dark_temperature": temperature if dark_temperature is None else dark_temperature,
        "flat_exposure": flat_exposure,
        "seed": seed,
        "motes": motes,
        "counts": {"bias": biases, "dark": darks, "flat": flats, "light": len(views)},
    }
    names = tuple(f"{FOLDERS['light']}/light_{number:04d}.{suffix}" for number in range(len(views)))
    result = Night(folder, sensor, sky, tuple(views), through, names, settings)
    jobs = [(kind, number) for kind, count in settings["counts"].items() for number in range(count)]
    for kind in FOLDERS:
        if settings["counts"][kind]:
            (folder / FOLDERS[kind]).mkdir(parents=True, exist_ok=True)
    time = START
    for kind, number in tqdm(jobs, desc="simulating a night", unit="frame", disable=not progress):
        mosaic, seconds, celsius = _take(result, kind, number, flat_level, lamp_drift)
        path = folder / FOLDERS[kind] / f"{kind}_{number:04d}.{suffix}"
        save = save_frame if suffix == "dng" else save_fits
        save(path, mosaic, sensor, iso=iso, exposure=seconds, temperature=celsius, time=time)
        time += timedelta(seconds=seconds + 2)
    _write_truth(result)
    return result


def open_night(folder: str | Path) -> Night:
    """Return the truth of a night that `write_night` wrote.

    Raises
    ------
    WorkbenchError
        If the folder holds none.
    """
    folder = Path(folder)
    if not (folder / _TRUTH).is_file():
        raise WorkbenchError(f"{folder} holds no simulated night ({_TRUTH} is missing)")
    truth = json.loads((folder / _TRUTH).read_text())
    with np.load(folder / _ARRAYS) as arrays:
        sky = Sky(
            shape=tuple(truth["sensor"]["shape"]),
            x=arrays["star_x"],
            y=arrays["star_y"],
            flux=arrays["star_flux"],
            nebula=arrays["nebula"],
            step=truth["nebula_step"],
            origin=tuple(truth["nebula_origin"]),
        )
    sensor = VirtualSensor(**{**truth["sensor"], "shape": sky.shape})
    through = dust(sky.shape, motes=truth["settings"]["motes"], seed=truth["settings"]["seed"])
    views = tuple(_view(entry) for entry in truth["lights"])
    names = tuple(entry["file"] for entry in truth["lights"])
    return Night(folder, sensor, sky, views, through, names, truth["settings"])


def save_fits(
    path: str | Path,
    mosaic: np.ndarray,
    sensor: VirtualSensor,
    *,
    iso: float,
    exposure: float,
    temperature: float,
    time: datetime,
) -> Path:
    """Save a frame as capture programs do: unsigned 16-bit FITS, rows top down, with the usual keywords."""
    from astropy.io import fits

    path = Path(path)
    hdu = fits.PrimaryHDU(mosaic)
    kind = path.stem.split("_")[0]
    hdu.header["INSTRUME"] = (sensor.camera, "simulated")
    hdu.header["IMAGETYP"] = kind.capitalize()
    hdu.header["EXPTIME"] = (exposure, "[s]")
    hdu.header["ISOSPEED"] = iso
    hdu.header["CCD-TEMP"] = (temperature, "[degC]")
    hdu.header["BAYERPAT"] = sensor.cfa_pattern
    hdu.header["ROWORDER"] = "TOP-DOWN"
    hdu.header["DATE-OBS"] = time.isoformat()
    with aside(path) as part:
        hdu.writeto(part)
    return path


def _take(night: Night, kind: str, number: int, level: float, drift: float) -> tuple[np.ndarray, float, float]:
    """Expose one frame; returns the mosaic, its exposure [s] and temperature [°C]."""
    sensor, settings = night.sensor, night.settings
    rate, hits, seconds, celsius = 0.0, None, 0.0, settings["temperature"]
    if kind == "dark":
        seconds, celsius = settings["dark_exposure"], settings["dark_temperature"]
    elif kind == "flat":
        seconds = settings["flat_exposure"]
        lamp = 1 + drift * np.random.default_rng((settings["seed"], 6, number)).standard_normal()
        green = level * sensor.saturation(settings["iso"]) / seconds * lamp
        rate = night.through * _spread(sensor, green)
    elif kind == "light":
        view = night.views[number]
        seconds = view.exposure
        rate = render(night.sky, view, sensor.cfa_pattern) * night.through
        hits = cosmic_rays(night.sky, view)
    seed = (settings["seed"], list(FOLDERS).index(kind), number)
    mosaic = expose(sensor, rate, iso=settings["iso"], exposure=seconds, temperature=celsius, seed=seed, hits=hits)
    return mosaic, seconds, celsius


def _spread(sensor: VirtualSensor, green: float) -> np.ndarray:
    """The lamp's light over the mosaic [e-/s/pixel]."""
    colours = np.asarray(LAMP if sensor.cfa_pattern != "mono" else (1.0,)) * green
    cell = colours[channel_index(sensor.cfa_pattern)]
    return np.tile(cell, [side // period for side, period in zip(sensor.shape, cell.shape, strict=True)])


def _write_truth(night: Night) -> None:
    """Write what is true beside the frames: numbers as JSON, arrays as npz."""
    lights = []
    for name, view in zip(night.lights, night.views, strict=True):
        entry = dataclasses.asdict(view)
        entry.update(matrix=view.matrix.tolist(), gradient=np.asarray(view.gradient).tolist())
        entry["beta"] = None if math.isinf(view.beta) else view.beta  # JSON knows no infinity
        lights.append({"file": name, **entry})
    iso = night.settings["iso"]
    truth = {
        "simulated": True,
        "sensor": dataclasses.asdict(night.sensor) | {"analogue_limit_iso": _finite(night.sensor.analogue_limit_iso)},
        "gain": night.sensor.gain(iso),
        "read_noise": night.sensor.read_noise(iso),
        "settings": night.settings,
        "nebula_step": night.sky.step,
        "nebula_origin": list(night.sky.origin),
        "lights": lights,
    }
    if truth["sensor"]["analogue_limit_iso"] is None:
        del truth["sensor"]["analogue_limit_iso"]
    hits = [cosmic_rays(night.sky, view) for view in night.views]
    np.savez_compressed(
        night.folder / _ARRAYS,
        star_x=night.sky.x,
        star_y=night.sky.y,
        star_flux=night.sky.flux,
        nebula=night.sky.nebula,
        hit_frame=np.concatenate([np.full(len(hit[0]), number) for number, hit in enumerate(hits)] or [[]]),
        hit_y=np.concatenate([hit[0] for hit in hits] or [[]]),
        hit_x=np.concatenate([hit[1] for hit in hits] or [[]]),
        hit_electrons=np.concatenate([hit[2] for hit in hits] or [[]]),
    )
    with aside(night.folder / _TRUTH) as part:
        part.write_text(json.dumps(truth, indent=1))


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else value


def _view(entry: dict) -> View:
    fields = {key: value for key, value in entry.items() if key != "file"}
    fields["matrix"], fields["gradient"] = np.array(fields["matrix"]), np.array(fields["gradient"])
    fields["trails"] = tuple(Trail(**{**t, "electrons": tuple(t["electrons"])}) for t in fields["trails"])
    fields["beta"] = math.inf if fields["beta"] is None else fields["beta"]
    return View(**fields | {key: tuple(fields[key]) for key in ("background", "curvature")})
