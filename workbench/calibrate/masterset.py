"""The masters of a whole run: for each group of lights the masters, the noise, the defects, the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from ..core.cube import black_levels, channels_of
from ..core.defects import FILLED
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index
from .apply import Tables
from .defects import defects_in_lights, find_defects
from .masters import master_bias, master_dark, master_flat, plane_means
from .matching import Group, close, plan_groups
from .noise import QUANTISATION, SensorNoise, from_sensor, saturation_level
from .store import kept, master_key


@dataclass(frozen=True, eq=False)
class Masters:
    """The masters of one group of lights, the noise that goes with them, and the defects they show.

    `tables` turns them into what calibration reads; `warnings` gathers what matching and combining had to say.
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

    def tables(self) -> Tables:
        """Return the maps and numbers that `calibrate_tile` reads."""
        cell = channel_index(self.cfa_pattern)
        model = self.noise.model(cell.size)
        scaled = any(abs(factor - 1) > 1e-6 for factor in self.group.factors)
        black = np.array(self.black_level, float)
        maps: dict[str, np.ndarray] = {}
        constant = np.zeros(cell.size)
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
            if self.dark is not None:  # the darks' own noise stands for read noise and dark shot noise together
                black = plane_means(self.dark["signal"].values, cell)
                model[:, 0] = np.maximum(model[:, 0], _typical_variance(self.dark, cell))
        if not self.noise.known:  # the scatter of the lights' background is all noise that is known
            black = np.full(cell.size, np.inf)
        if self.flat is not None:
            maps["response"] = self.flat["signal"].values
            maps["response_variance"] = self.flat["variance"].values
        if self.defects is not None:
            maps["defects"] = (self.defects.values & FILLED) > 0
        numbers = np.stack([1 / model[:, 1], model[:, 0], model[:, 1], constant, black], axis=1)
        white = self.white_level if np.isfinite(self.white_level) else np.inf
        return Tables(cell=cell, numbers=np.ascontiguousarray(numbers), saturation=white, **maps)


@dataclass(frozen=True, eq=False)
class MasterSet:
    """The masters of all lights of a run: one `Masters` for each group of lights that share theirs.

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
        Cubes as read.  What is missing is said in the warnings.
    noise, sensor
        Gain and read noise: given outright, or a measured sensor (`workbench.open_sensor`) with its dark law.  Without
        either they come from the frames: gain from flats by photon transfer (else from warm pixels in the darks),
        read noise from bias, else darks; the warnings say so.
    folder
        Where masters are kept and looked for; they are made anew when a frame or a setting has changed.
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
    law = (
        noise.doubling_temperature if noise else float(sensor["doubling_temperature"]) if _has_law(sensor) else math.nan
    )
    groups = plan_groups(light, bias=bias, dark=dark, flat=flat, darkflat=darkflat, doubling_temperature=law)
    made: dict[tuple, xr.Dataset] = {}
    options = {"scratch": scratch, "progress": progress}
    bar = tqdm(desc="masters", unit="master", leave=False, disable=not progress)

    def master(kind: str, cube: xr.DataArray | None, numbers: Sequence[int], make, *others) -> xr.Dataset | None:
        if cube is None or not len(numbers):
            return None
        part = cube.isel(frame=list(numbers))
        settings = [repr(other) if isinstance(other, SensorNoise) else other and other.attrs["key"] for other in others]
        key = master_key(part, [kind, settings])
        if key not in made:
            made[key] = kept(folder, kind, key, lambda: make(part, *others, **options))
            bar.update()
        return made[key]

    white = saturation_level(light)
    results, warnings = [], []
    with bar:
        for group in groups:
            iso = float(light["iso"].values[group.lights[0]])
            told = noise or (from_sensor(sensor, iso, light.attrs["cfa_pattern"]) if sensor is not None else None)
            this_bias = master("bias", bias, group.bias, master_bias, told)
            flat_bias = (
                this_bias if group.flat_bias == group.bias else master("bias", bias, group.flat_bias, master_bias, None)
            )
            flat_noise = told if flat is not None and group.flat and _iso_of(flat, group.flat) == iso else None
            flat_dark = master("darkflat", darkflat, group.darkflat, master_dark, None, flat_noise)
            this_flat = master("flat", flat, group.flat, master_flat, flat_dark, flat_bias, flat_noise)
            this_dark = master(
                "dark", dark, group.dark, master_dark, this_bias, told or _gain_only(this_flat, this_bias, iso)
            )
            this_noise, words = (
                (told, []) if told else _noise_at_hand(light, group, this_bias, this_dark, this_flat, iso)
            )
            found = None
            if defects and (this_dark is not None or this_flat is not None):
                found = find_defects(this_dark, this_flat)
            if defects and this_dark is None and len(group.lights) > 1:
                hot = defects_in_lights(light.isel(frame=list(group.lights)))
                found = hot if found is None else found.copy(data=found.values | hot.values)
            said = [*group.warnings, *words]
            for one in (this_bias, flat_dark, this_flat, this_dark):
                said += one.attrs["warnings"] if one is not None else []
            results.append(
                Masters(
                    group=group,
                    noise=this_noise,
                    cfa_pattern=light.attrs["cfa_pattern"],
                    black_level=tuple(black_levels(light.attrs).tolist()),
                    white_level=white,
                    bias=this_bias,
                    dark=this_dark,
                    flat=this_flat,
                    defects=found,
                    warnings=tuple(dict.fromkeys(said)),
                )
            )
            warnings += said
    files = tuple(str(name) for name in light["filename"].values)
    return MasterSet(tuple(results), files, tuple(dict.fromkeys(warnings)))


def _gain_only(flat: xr.Dataset | None, bias: xr.Dataset | None, iso: float) -> SensorNoise | None:
    """The noise that flats and bias of the lights' ISO tell, for the darks' own model."""
    if flat is None or bias is None or not close(flat.attrs["iso"], iso, 1e-6) or flat.attrs["frames"] < 2:
        return None
    slope, quiet = (np.reshape(m.attrs["model"], (-1, 2))[:, k] for m, k in ((flat, 1), (bias, 0)))
    return SensorNoise(
        1 / slope, np.sqrt(np.maximum(quiet - QUANTISATION, 1e-3)) / slope, iso=iso, source="flats and bias"
    )


def _noise_at_hand(
    light: xr.DataArray,
    group: Group,
    bias: xr.Dataset | None,
    dark: xr.Dataset | None,
    flat: xr.Dataset | None,
    iso: float,
) -> tuple[SensorNoise, list[str]]:
    """Gain and read noise from the masters' own scatter, and the words that say so."""
    channels = channel_index(light.attrs["cfa_pattern"]).size
    quiet = next((np.reshape(m.attrs["model"], (-1, 2))[:, 0] for m in (bias, dark) if m is not None), None)
    slope, source, words = None, "", []
    if flat is not None and flat.attrs["frames"] > 1:
        slope = np.reshape(flat.attrs["model"], (-1, 2))[:, 1]
        source = f"{flat.attrs['frames']} flats"
        if not close(flat.attrs["iso"], iso, 1e-6):
            slope = slope * (iso / flat.attrs["iso"])
            words.append(
                f"the gain comes from flats at ISO {flat.attrs['iso']:g}, scaled to the lights' ISO {iso:g} as if it "
                "went with 1/ISO; a measured sensor file (--sensor) is safer"
            )
    elif dark is not None and (np.reshape(dark.attrs["model"], (-1, 2))[:, 1] > 0).all():
        slope = np.full(channels, np.mean(np.reshape(dark.attrs["model"], (-1, 2))[:, 1]))
        source = "the shot noise of the darks' warm pixels"
    if slope is None:
        read = np.sqrt(quiet) if quiet is not None else _light_scatter(light, group)[0]
        words.append(
            "nothing tells the gain (no sensor file, no flats, no warm pixels in darks): ADU are taken for electrons, "
            "so that weights and error bars are only relative"
        )
        return SensorNoise(np.ones(channels), read, iso=iso, source="unknown: one electron an ADU", known=False), words
    if quiet is None:
        scatter, level = _light_scatter(light, group)
        black = np.nan_to_num(black_levels(light.attrs))
        read = np.sqrt(np.maximum(scatter**2 - slope * np.maximum(level - black, 0), 0.25)) / slope
        source += ", read noise from the lights' background (an upper bound)"
    else:
        read = np.sqrt(np.maximum(quiet - QUANTISATION, 1e-3)) / slope
        source += " and bias" if bias is not None else " and darks"
    gains = ", ".join(
        f"{name} {1 / b:.3f}" for name, b in zip(channels_of(light.attrs["cfa_pattern"]), slope, strict=True)
    )
    words.append(f"gain ({gains} e-/ADU) and read noise were estimated from the frames at hand: {source}")
    return SensorNoise(1 / slope, read, iso=iso, source=f"estimated from {source}"), words


def _light_scatter(light: xr.DataArray, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """The robust scatter of one light's pixels about their neighbours of the same plane, and its level, a channel."""
    frame = np.asarray(light.isel(frame=group.lights[0]).values, np.float64)
    cell = channel_index(light.attrs["cfa_pattern"])
    scatter, level = np.empty(cell.size), np.empty(cell.size)
    for (row, column), channel in np.ndenumerate(cell):
        plane = frame[row :: cell.shape[0], column :: cell.shape[1]]
        step = np.abs(np.diff(plane, axis=1))
        scatter[channel] = max(1.4826 * float(np.nanmedian(step)) / math.sqrt(2), 0.5)
        level[channel] = float(np.nanmedian(plane))
    return scatter, level


def _typical_variance(dark: xr.Dataset, cell: np.ndarray) -> np.ndarray:
    """The variance of an ordinary pixel of one dark frame, one a channel [ADU²]."""
    one = dark["variance"].values * dark["count"].values
    steps = cell.shape
    return np.array([np.nanmedian(one[r :: steps[0], c :: steps[1]]) for r, c in _places(cell)])


def _places(cell: np.ndarray) -> list[tuple[int, int]]:
    """Where each channel lies in the cell, in channel order."""
    return [tuple(int(k) for k in np.argwhere(cell == channel)[0]) for channel in range(cell.size)]


def _has_law(sensor: xr.Dataset | None) -> bool:
    return sensor is not None and "doubling_temperature" in sensor


def _iso_of(cube: xr.DataArray, numbers: Sequence[int]) -> float:
    return float(cube["iso"].values[numbers[0]])
