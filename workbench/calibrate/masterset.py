"""The masters of a whole run: for each group of lights the masters, the noise, the defects, the tables.

Masters are FITS files, kept in a folder and used again as long as their frames and settings are the same.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from astropy.io import fits
from tqdm.auto import tqdm

from ..core.cube import black_levels, digest
from ..core.defects import FILLED, defect_map
from ..core.errors import FrameReadError, WorkbenchError
from ..core.files import whole_file
from ..core.fits_cards import (
    UNSTABLE,
    put_cards,
    put_plane,
    put_seal,
    require_sealed,
    seal,
    setting_cards,
    with_gaps,
    without_gaps,
)
from ..core.mosaic import channel_count, channel_index, planes
from ..core.settings import setting_differs, setting_of
from .apply import Tables
from .bands import in_place
from .defects import defects_in_lights, find_defects
from .masters import master_bias, master_dark, master_flat, plane_means
from .matching import Group, plan_groups
from .noise import SensorNoise, estimates_in_words, from_sensor, noise_of_flats, noise_of_masters, with_own_noise
from .usable import saturation_level

VERSION = 3  # of the way masters are made; after another number all are made again
_VARIABLES = ("signal", "variance", "count", "unstable")


@dataclass(frozen=True, eq=False)
class Masters:
    """The masters of one group of lights, the noise that goes with them, and the defects they show.

    `tables` turns them into what calibration reads; `warnings` are those of matching, combining and the noise.
    """

    group: Group
    noise: SensorNoise
    cfa_pattern: str
    black_level: tuple[float, ...]
    white_level: float
    bias: xr.Dataset | None = None
    dark: xr.Dataset | None = None
    flat: xr.Dataset | None = None
    defects: xr.DataArray | None = None
    warnings: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """A digest of what `tables` come from: frames and settings of the masters, noise, factors of the darks."""
        keys = [one.attrs["key"] for one in (self.bias, self.dark, self.flat) if one is not None]
        return digest(keys, repr(self.noise), sorted(set(self.group.factors)), self.white_level)[:8]

    def tables(self) -> Tables:
        """Return the maps and numbers that calibration reads."""
        cell = channel_index(self.cfa_pattern)
        model = self.noise.model(channel_count(cell))
        scaled = any(abs(factor - 1) > 1e-6 for factor in self.group.factors)
        black = np.array(self.black_level, float)
        maps: dict[str, np.ndarray] = {}
        constant = np.zeros(channel_count(cell))
        if self.dark is not None and self.bias is not None and scaled:
            bias, dark = self.bias["signal"].values, self.dark["signal"].values
            maps["base"], maps["base_variance"] = bias, self.bias["variance"].values
            maps["dark"], maps["dark_variance"] = dark - bias, self.dark["variance"].values
        elif self.dark is not None:
            maps["dark"], maps["dark_variance"] = self.dark["signal"].values, self.dark["variance"].values
        elif self.bias is not None:
            maps["base"] = self.bias["signal"].values
            maps["dark_variance"] = self.bias["variance"].values  # its factor is one
        else:
            constant = np.where(np.isfinite(black), black, 0.0)
        if self.bias is not None:
            black = plane_means(self.bias["signal"].values, cell)
        elif not np.isfinite(black).all():
            black = constant
            if self.dark is not None:  # the darks' own noise is read noise and dark shot noise together
                black = plane_means(self.dark["signal"].values, cell)
                model[:, 0] = np.maximum(model[:, 0], _typical_variance(self.dark, cell))
        if not self.noise.known:  # then the scatter of the lights' background is all that is known of the noise
            black = np.full(channel_count(cell), np.inf)
        if self.flat is not None:
            maps["response"] = self.flat["signal"].values
            maps["response_variance"] = self.flat["variance"].values
        if self.defects is not None:
            maps["defects"] = (self.defects.values & FILLED) > 0
        white = self.white_level if np.isfinite(self.white_level) else np.inf
        law, black = np.ascontiguousarray(model), np.ascontiguousarray(black, float)
        return Tables(cell, 1 / law[:, 1], law, constant, black, saturation=white, **maps)


@dataclass(frozen=True, eq=False)
class MasterSet:
    """The masters of all lights of a run: one `Masters` for each group of lights with the same masters.

    `files` names the lights in the order of the cube that the set was made for.
    """

    masters: tuple[Masters, ...]
    files: tuple[str, ...]
    warnings: tuple[str, ...]

    def of(self, light: xr.DataArray, number: int) -> tuple[Masters, float]:
        """Return the masters of one light of a cube, and its dark's scale.

        The light is known by its file's name, so that a part of the cube will do; frames without one by their number.

        Raises
        ------
        WorkbenchError
            If the masters were not made for that light.
        """
        name = str(light["filename"].values[number])
        unnamed = len(set(self.files)) < len(self.files)
        if not unnamed and name not in self.files:
            raise WorkbenchError(f"{name or f'light {number}'}: these masters were not made for it; make them again")
        place = number if unnamed else self.files.index(name)
        for masters in self.masters:
            if place in masters.group.lights:
                return masters, masters.group.factors[masters.group.lights.index(place)]
        raise WorkbenchError(f"light {number} was not among the {len(self.files)} that these masters were made for")


def make_masters(
    light: xr.DataArray,
    *,
    bias: xr.DataArray | None = None,
    dark: xr.DataArray | None = None,
    flat: xr.DataArray | None = None,
    darkflat: xr.DataArray | None = None,
    noise: SensorNoise | None = None,
    sensor: xr.Dataset | None = None,
    folder: str | Path | None = None,
    scratch: str | Path | None = None,
    defects: bool = True,
    progress: bool = True,
) -> MasterSet:
    """Make the masters for these lights from whatever calibration frames there are.

    Parameters
    ----------
    light, bias, dark, flat, darkflat
        Cubes as read.  The warnings name what is missing.
    noise, sensor
        Gain and read noise: given outright, or a measured sensor (`workbench.open_sensor`) with its dark law.  Without
        either they are estimated from the frames: gain from flats by photon transfer (else from warm pixels in the
        darks), read noise from bias, else darks; the warnings state it.
    folder
        Where masters are kept and looked for; they are made again when a frame or a setting has changed.
    scratch
        Folder for the temporary file of decoded frames; the system's by default.
    defects
        Find defects, so that they are filled.

    Raises
    ------
    WorkbenchError
        As `plan_groups` and the masters do.

    Examples
    --------
    >>> from workbench.calibrate import calibrate
    >>> from workbench.simulate import d7000, expose
    >>> from workbench.core.cube import make_cube
    >>> camera = d7000(shape=(64, 96))
    >>> def frames(kind, seconds, rate, count=8):
    ...     data = [expose(camera, rate, iso=200, exposure=seconds, seed=(len(kind), n)) for n in range(count)]
    ...     return make_cube(data, cfa_pattern="RGGB", kind=kind, iso=200, exposure=seconds, white_level=16383)
    >>> light = frames("light", 60, 10.0, count=2)
    >>> darks, flats = frames("dark", 60, 0), frames("flat", 0.1, 8e4)
    >>> masters = make_masters(light, bias=frames("bias", 0, 0), dark=darks, flat=flats)
    >>> masters.masters[0].noise.source
    'estimated from 8 flats and bias'
    >>> signal = calibrate(light, masters).signal  # lazy
    >>> bool(abs(signal.mean() / (600 * camera.illumination().mean()) - 1) < 0.02)
    True
    """
    cubes = {"bias": bias, "dark": dark, "flat": flat, "darkflat": darkflat}
    if noise is None:
        doubling = math.nan if sensor is None else float(sensor.get("doubling_temperature", math.nan))
    else:
        doubling = noise.doubling_temperature
    groups = plan_groups(light, **cubes, doubling_temperature=doubling)
    made: dict[str, xr.Dataset] = {}
    bar = tqdm(desc="masters", unit="master", leave=False, disable=not progress)

    def master(kind: str, numbers: Sequence[int], make: Callable[..., xr.Dataset], *others: Any) -> xr.Dataset | None:
        """Return the master of some frames of a kind, made once; `make` takes `others` after the cube."""
        cube = cubes[kind]
        if cube is None or not len(numbers):
            return None
        combined = float(cube["combined"].values[numbers[0]]) if "combined" in cube.coords else None
        if combined is not None:  # a master of another program: one, whose noise is settled once that of the sensor is
            numbers, others = numbers[:1], tuple(None for _ in others)
        settings = [other.attrs["key"] if isinstance(other, xr.Dataset) else repr(other) for other in others]
        key = digest(VERSION, cube.isel(frame=list(numbers)), kind, settings)[:16]
        how = {"scratch": scratch, "progress": progress}
        if key not in made:
            made[key] = kept(folder, kind, key, lambda: in_place(make, cube, numbers, *others, **how))
            if combined is not None:
                made[key] = made[key].assign_attrs(combined=combined, warnings=[])
            bar.update()
        return made[key]

    white = saturation_level(light)
    results = []
    with bar:
        for group in groups:
            first = light.isel(frame=group.lights[0])
            known = noise
            if noise is None and sensor is not None:
                known = from_sensor(sensor, setting_of(first), light.attrs["cfa_pattern"])
            results.append(_masters_of(group, light, flat, master, known, white, defects))
    files = tuple(str(name) for name in light["filename"].values)
    lines = estimates_in_words([(m.noise, setting_of(light, m.group.lights[0])) for m in results], light)
    warnings = dict.fromkeys([*lines, *(text for masters in results for text in masters.warnings)])
    return MasterSet(tuple(results), files, tuple(warnings))


def _masters_of(
    group: Group,
    light: xr.DataArray,
    flats: xr.DataArray | None,
    master: Callable[..., xr.Dataset | None],
    known: SensorNoise | None,
    white: float,
    defects: bool,
) -> Masters:
    """Make the masters of one group of lights; `known`: the noise at their ISO where it was measured; `white` [ADU]."""
    lights = light.isel(frame=list(group.lights))
    setting = setting_of(lights)
    bias = master("bias", group.bias, master_bias, known)
    flat_bias = bias if group.flat_bias == group.bias else master("bias", group.flat_bias, master_bias, None)
    same = flats is not None and group.flat and not setting_differs(setting, setting_of(flats, group.flat[0]))
    flat_noise = known if same else None
    darkflat = master("darkflat", group.darkflat, master_dark, None, flat_noise)
    flat = master("flat", group.flat, master_flat, darkflat, flat_bias, flat_noise)
    dark = master("dark", group.dark, master_dark, bias, known or noise_of_flats(flat, bias, setting))
    noise, warnings = (known, []) if known else noise_of_masters(lights[0], bias, dark, flat)
    ground = next((master for master in (bias, dark) if master is not None), None)
    cell = channel_index(light.attrs["cfa_pattern"])
    black = np.zeros(channel_count(cell)) if ground is None else plane_means(ground["signal"].values, cell)
    bias, dark, flat = (with_own_noise(master, noise, black) for master in (bias, dark, flat))
    made = [item for item in (bias, darkflat, flat, dark) if item is not None]
    warnings = [*group.warnings, *warnings, *(text for item in made for text in item.attrs["warnings"])]
    return Masters(
        group=group,
        noise=noise,
        cfa_pattern=light.attrs["cfa_pattern"],
        black_level=tuple(black_levels(light.attrs).tolist()),
        white_level=white,
        bias=bias,
        dark=dark,
        flat=flat,
        defects=_defects(dark, flat, lights) if defects else None,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _defects(dark: xr.Dataset | None, flat: xr.Dataset | None, lights: xr.DataArray) -> xr.DataArray | None:
    """Return the defects that the masters show, and without a dark the hot pixels that the lights do."""
    found = find_defects(dark, flat) if dark is not None or flat is not None else None
    if dark is not None or lights.sizes["frame"] < 2:
        return found
    hot = defects_in_lights(lights)
    if found is None:
        return hot
    kinds = [*found.attrs["counts"], "hot"]
    thresholds = found.attrs["thresholds"] | hot.attrs["thresholds"]
    return defect_map(found.values | hot.values, hot.attrs["cfa_pattern"], thresholds, kinds)


def _typical_variance(dark: xr.Dataset, cell: np.ndarray) -> np.ndarray:
    """Return the variance of an ordinary pixel of one dark frame, by channel [ADU²]."""
    one_frame = dark["variance"].values * dark["count"].values
    return np.array([np.nanmedian(plane) for _, plane in planes(one_frame, cell)])


def save_master(master: xr.Dataset, path: str | Path) -> Path:
    """Write a master as a multi-extension FITS file: signal, MASK, VARIANCE, COUNT; whole or not at all.

    The mask has bit 1 where there is no value (the signal is 0 there) and bit 2 where a pixel is unstable.  The header
    has the usual keywords for other programs and, as JSON in ``WBATTRS``, all that `open_master` returns.

    Raises
    ------
    WorkbenchError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from workbench.calibrate import master_bias
    >>> from workbench.core.cube import make_cube
    >>> frames = np.random.default_rng(1).normal(600, 3, (4, 16, 16)).round().astype("uint16")
    >>> master = master_bias(make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100))
    >>> open_master(save_master(master, Path(tempfile.mkdtemp()) / "bias.fits")).identical(master)
    True
    """
    path = Path(path)
    about = master.attrs
    attrs = {**about, "variables": {name: dict(master[name].attrs) for name in _VARIABLES}}
    header = fits.Header()
    header["IMAGETYP"] = f"master {about['kind']}"
    exposure = float(about["exposure"])
    cards = {"INSTRUME": about["camera"], "EXPTIME": exposure if np.isfinite(exposure) else None}
    put_cards(header, cards | setting_cards(about) | {"NCOMBINE": about["frames"], "ROWORDER": "TOP-DOWN"})
    if about["cfa_pattern"] != "mono":
        header["BAYERPAT"] = about["cfa_pattern"]
    header["WBATTRS"] = json.dumps(attrs)
    signal, mask = without_gaps(master["signal"].values, master["unstable"].values * np.uint8(UNSTABLE))
    planes = {"MASK": mask, "VARIANCE": master["variance"].values, "COUNT": master["count"].values}
    hdus = fits.HDUList([fits.PrimaryHDU(signal, header)])
    for name, values in planes.items():
        hdus.append(fits.ImageHDU(values, name=name))
    for name, hdu in zip(("SIGNAL", *planes), hdus, strict=True):
        put_seal(hdu.header)
        put_plane(hdu.header, name, master["signal"].attrs["units"])
    with whole_file(path, "the master", "give another folder") as part:
        needed = sum(hdu.filebytes() for hdu in hdus)
        if shutil.disk_usage(path.parent).free < needed:  # what astropy raises for a full disk hides the reason
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed / 1e6:,.0f} MB are needed")
        hdus.writeto(part)
        seal(part)
    return path


def open_master(path: str | Path) -> xr.Dataset:
    """Return a master that `save_master` wrote.

    Raises
    ------
    FrameReadError
        If the file is not one, or damaged.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            require_sealed(path)
            attrs = json.loads(hdus[0].header["WBATTRS"])
            described = attrs.pop("variables")
            planes = {name: hdus[name].data for name in ("VARIANCE", "COUNT", "MASK", "UNSTABLE") if name in hdus}
            planes = {n: values.astype(values.dtype.newbyteorder("="), copy=False) for n, values in planes.items()}
            signal = hdus[0].data.astype(np.float32, copy=False)
            if "MASK" in planes:
                signal, unstable = with_gaps(signal, planes["MASK"]), (planes["MASK"] & UNSTABLE) > 0
            else:  # a file of an earlier version
                unstable = planes["UNSTABLE"].astype(bool)
            values = (signal, planes["VARIANCE"], planes["COUNT"], unstable)
            data = {n: (("y", "x"), held, described[n]) for n, held in zip(_VARIABLES, values, strict=True)}
            return xr.Dataset(data, attrs=attrs)
    except FrameReadError:
        raise
    except FileNotFoundError:
        raise FrameReadError(path, "is not there") from None
    except Exception as error:
        raise FrameReadError(path, f"is not a master of the workbench ({type(error).__name__}: {error})") from None


def kept(folder: str | Path | None, kind: str, key: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Return the master of that key from the folder, or make it and keep it there; without a folder only make it.

    A file that is damaged is made again.
    """
    if folder is None:
        return make().assign_attrs(key=key)
    path = Path(folder) / f"master-{kind}-{key}.fits"
    if path.exists():
        try:
            return open_master(path)
        except FrameReadError:
            path.unlink(missing_ok=True)
    master = make().assign_attrs(key=key)
    save_master(master, path)
    return master
