"""Numbers of cameras, lamps and thermometers that break an assumption: right, covered by their errors, or warned of?

Virtual cameras, each a body of its own, shoot small sets of frames in which one assumption is broken; the numbers are
compared with the truth, and the warnings with the cause.  The verdict of each row is computed.  Run it with

    python benchmarks/accuracy_broken.py

which takes some minutes and writes docs/accuracy-broken.md; `--kept FILE` goes on where an earlier run stopped.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from accuracy_uniformity import plane
from trials import keep, kept, known_gain, shoot, table

from workbench.core.cube import channels_of
from workbench.core.files import aside
from workbench.fidelity import inspect_frames
from workbench.fidelity.card import true_causes
from workbench.pipelines.characterization import characterize
from workbench.pipelines.measurement import derive_transfer
from workbench.pipelines.uniformity import measure_uniformity
from workbench.sensor import dark_law, fit_gain, measure_dark, photon_transfer, read_noise
from workbench.simulate import VirtualSensor, d7000
from workbench.simulate.capture import cooled
from workbench.simulate.firmware import STOCK_MULTIPLIERS, compress, remove_hot_pixels, row_noise, smooth, stock
from workbench.simulate.night import save_fits

DOCUMENT = Path(__file__).parents[1] / "docs" / "accuracy-broken.md"
SHAPE, LARGER, ISO, BODIES = (96, 128), (192, 256), 200.0, 30
LEVELS = np.array([0.04, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68])  # of saturation
DARKS = ((0.0, 60.0), (0.0, 240.0), (20.0, 60.0), (20.0, 240.0))  # °C, s
FRAMES = 3  # darks of each
COLOUR = (0.62, 1.0, 1.0, 0.7)  # of the light that leaks in, through the filters
HALF, NEARLY_ALL, FEW = 0.5, 0.9, 0.1  # intervals that hold the truth; bodies warned of the cause; of a wrong cause
LEAST = {"black level, 95 % interval": 0.9}  # of the intervals that hold the truth, where they are not of 68 %
CAUSES = {  # what warnings say of each cause
    "filter": "neighbouring pixels share noise",
    "lamp": "the lamp or the exposure times",
    "level": "left out of the linearity",
    "bend": "bends",
    "clipped": "clipped at zero",
    "multiplied": "multiplied its numbers",
    "curve": "applies a curve|come out of a table",
    "light": "light leaks into|light that leaks in",
    "warmth": "not equally warm(?! all)|check their temperatures|(warm|cold)er than stated|sensor had (warm|cool)ed",
    "black": "black level of the darks|black level was not the same",
    "subtracted": "subtracts the mean dark",
    "eater": "removes lone bright pixels|filter of bright pixels",
    "saturated": "hot pixels saturate",
    "uneven": "lit differently",
    "odd": r"bias_5\.fits:? differs from the others",
}


class Shot(NamedTuple):
    """A frame's kind, exposure [s] and temperature [°C]."""

    kind: str
    exposure: float
    temperature: float


Change = Callable[[np.ndarray, Shot, VirtualSensor, np.random.Generator], np.ndarray]
Row = tuple[str, float, float, float]  # quantity, value, error, truth


class Violation(NamedTuple):
    """An assumption that is broken: how frames are changed, how lamp and thermometer err, what names it."""

    title: str
    cause: str = ""  # of `CAUSES`
    change: Change | None = None
    measured: str = "light"  # and dark, card
    wanted: tuple[str, ...] = ()  # quantities; all, without any
    lamp: Callable[[np.random.Generator], Any] = lambda rng: 1.0  # its factor at each level
    leak: float = 0.0  # e⁻/s of light in darks
    thermometer: float = 0.0  # K that stated temperatures are off
    stated: float | None = None  # °C, of all darks
    darks: tuple[tuple[float, float], ...] = DARKS
    bias: int = 6
    added: float = 0.0  # noise that the change adds to a bias frame [ADU rms]
    odd: float = 1.0  # what the numbers of the last bias frame, flat and dark are multiplied with
    camera: Callable[..., VirtualSensor] = d7000
    bodies: Mapping[str, Any] = MappingProxyType({})


def _noise(frame: np.ndarray, camera: VirtualSensor, line: np.ndarray, axis: int) -> np.ndarray:
    """Add a value to each row (axis 0) or column."""
    shifted = frame + (line[:, None] if axis == 0 else line)
    return np.rint(shifted).clip(0, camera.white_level).astype(frame.dtype)


def _filtered(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return smooth(frame, camera, 0.05)


def _bent(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """The response falls by 1 % at full scale; codes stay whole."""
    signal = (frame - camera.black_level) / (camera.white_level - camera.black_level)
    dithered = frame - 0.01 * signal * (frame - camera.black_level) + rng.uniform(-0.5, 0.5, frame.shape)
    return np.rint(dithered).clip(0, camera.white_level).astype(frame.dtype)


def _pushed(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """Each pixel gives each of four neighbours 2e-7 of its charge a pixel for each electron it has more than they."""
    if shot.kind != "flat":
        return frame
    charge = (frame - camera.black_level) * camera.gain(ISO)
    for axis in (0, 1):
        moved = 2e-7 * charge.mean() * (np.roll(charge, 1, axis) - charge)
        charge += moved - np.roll(moved, -1, axis)
    return np.rint(charge / camera.gain(ISO) + camera.black_level).clip(0, camera.white_level).astype(frame.dtype)


def _rows(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return row_noise(frame, camera, 1.5, int(rng.integers(2**32)))


def _columns(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return _noise(frame, camera, 1.5 * rng.standard_normal(frame.shape[1]), 1)


def _together(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """Noise of rows, each 0.95 of the one before; what all have in common is a frame's offset, and no noise."""
    line = 1.5 * rng.standard_normal(frame.shape[0])
    for row in range(1, line.size):
        line[row] = 0.95 * line[row - 1] + np.sqrt(1 - 0.95**2) * line[row]
    return _noise(frame, camera, line - line.mean(), 0)


_WITHIN = np.sqrt(1 - (0.95 ** np.abs(np.subtract.outer(np.arange(SHAPE[0]), np.arange(SHAPE[0])))).mean())


def _banded(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """A wave of 14 rows that moves from frame to frame."""
    phase = 2 * np.pi * (np.arange(frame.shape[0]) / 14.3 + rng.random())
    return _noise(frame, camera, 1.5 * np.sqrt(2) * np.sin(phase), 0)


def _stock(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return stock(frame, camera)


def _clipped(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return (np.maximum(frame, 600) - 600).astype(frame.dtype)


def _curved(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return np.rint(camera.white_level * (frame / camera.white_level) ** 0.7).astype(frame.dtype)


def _compressed(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return compress(frame, camera, 1024)


def _eaten(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return remove_hot_pixels(frame, camera) if shot.exposure > 1 else frame


def _moved(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return (frame + 0.2 * (shot.temperature - 20)).round().astype(frame.dtype)


def _subtracted(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    dark = camera.mean_dark_current(shot.temperature) * shot.exposure / camera.gain(ISO)
    return np.floor(frame - dark + rng.random(frame.shape)).astype(
        frame.dtype
    )  # on average, of what is no whole number


def _risen(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return (frame + round(min(0.02 * shot.exposure, 6.0))).astype(frame.dtype)


def _flickering(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """One pixel in fifty has 0.2 e⁻/s more in half of the frames, and as much less in the others: noise, no signal."""
    unsteady = np.random.default_rng([camera.seed, 3]).random(frame.shape) < 0.02
    charge = 0.2 * shot.exposure * unsteady * rng.choice([-1, 1], frame.shape)
    return np.rint(frame + charge / camera.gain(ISO)).clip(0, camera.white_level).astype(frame.dtype)


PARTICLES, DEPOSIT = 2e-6, 2500.0  # a pixel and second, and what each leaves [ADU]


def _struck(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    hit = rng.random(frame.shape) < PARTICLES * shot.exposure
    return np.minimum(frame + hit * rng.exponential(DEPOSIT, frame.shape), 16383).astype(frame.dtype)


def _graded(frame: np.ndarray, shot: Shot, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """Each flat's light falls off by up to 10 % in a direction of its own; what is missing of it leaves no noise."""
    if shot.kind != "flat":
        return frame
    slopes = [rng.uniform(-0.025, 0.025) * np.linspace(-1, 1, side) for side in frame.shape]
    left = 0.95 + np.add.outer(*slopes)
    charge = (frame - camera.black_level) * camera.gain(ISO)
    light = left * charge + np.sqrt(left * (1 - left) * np.maximum(charge, 0)) * rng.standard_normal(frame.shape)
    return np.rint(light / camera.gain(ISO) + camera.black_level).clip(0, camera.white_level).astype(frame.dtype)


def _off(rng: np.random.Generator) -> np.ndarray:
    """Every level's lamp is as it should, but one is 1.4 % brighter."""
    return 1 + 0.014 * (np.arange(LEVELS.size) == rng.integers(2, 6)) + 0.001 * rng.standard_normal(LEVELS.size)


_NOISES = ("gain", "read noise", "DSNU", "linearity error")
_BLACK = ("read noise", "DSNU")
_DARK = ("dark current", "DCNU")
_HOT = MappingProxyType({"hot_median": 10.0, "hot_spread": 0.5, "hot_fraction": 0.002, "shape": LARGER})
_SHORT_AND_LONG = ((20.0, 30.0), (20.0, 480.0), (30.0, 300.0))
_MONO = MappingProxyType({"shape": LARGER, "cfa_pattern": "mono"})
_LARGE = MappingProxyType({"shape": LARGER})

VIOLATIONS = (
    Violation("none", measured="light dark card"),
    Violation("the camera filters its raw (5 % of each of four neighbours)", "filter", _filtered, "light dark card"),
    Violation("the same filter, larger frames", "filter", _filtered, bodies=_LARGE),
    Violation("12 bits saved in 16", camera=cooled, bodies={"cfa_pattern": "RGGB"}),
    Violation("lamp off by 1 % from level to level", "lamp", lamp=lambda rng: rng.normal(1, 0.01, LEVELS.size)),
    Violation("lamp off by 1.4 % at one level", "level", lamp=_off, wanted=("linearity error",)),
    Violation("response falls by 1 % at full scale", "bend", _bent),
    Violation("the same response, larger frames", "bend", _bent, bodies=_LARGE),
    Violation("bright pixels push charge to their neighbours", "bend", _pushed, bodies=_LARGE),
    Violation("each flat lit from another side", "uneven", _graded, wanted=("gain",)),
    Violation("each flat lit from another side, larger frames", "uneven", _graded, wanted=("gain",), bodies=_LARGE),
    Violation("noise of whole rows, 1.5 ADU", change=_rows, wanted=_NOISES, added=1.5),
    Violation("noise of rows, each 0.95 of the one before", change=_together, wanted=_NOISES, added=1.5 * _WITHIN),
    Violation("noise of whole columns, 1.5 ADU", change=_columns, wanted=_NOISES, added=1.5),
    Violation("bands of rows that move, 1.5 ADU", change=_banded, wanted=_NOISES, added=1.5),
    Violation("bands of rows that move, three bias frames", change=_banded, wanted=_NOISES, added=1.5, bias=3),
    Violation("four bias frames", bias=4, wanted=("read noise", "black level", "black level, 95 % interval")),
    Violation("bias clipped at zero", "clipped", _clipped, wanted=(*_BLACK, "black level")),
    Violation("bias clipped, red and blue multiplied", "clipped", _stock, wanted=_BLACK),
    Violation("tone curve in the camera", "curve", _curved, "light dark card", bodies=_LARGE),
    Violation("steps that double with the level, from 1024 ADU", change=_compressed, measured="light card"),
    Violation("hot pixels that saturate", "saturated", measured="dark", darks=_SHORT_AND_LONG, bodies=_HOT),
    Violation(
        "hot pixels that saturate, one temperature", "saturated", measured="dark", darks=((20.0, 480.0),), bodies=_HOT
    ),
    Violation("light leaks in, two temperatures", "light", measured="dark", leak=0.02, bodies=_LARGE),
    Violation(
        "light leaks in, one temperature", "light", measured="dark", leak=0.02, darks=DARKS[2:], bodies=_LARGE
    ),
    Violation("light leaks in, mono, two temperatures", "light", measured="dark", leak=0.05, bodies=_MONO),
    Violation(
        "light leaks in, mono, one temperature", "light", measured="dark", leak=0.3, darks=DARKS[2:], bodies=_MONO
    ),
    Violation("black level moves by 0.2 ADU/K", "black", _moved, "dark"),
    Violation("black level moves, one exposure when cold", "black", _moved, "dark", darks=DARKS[1:]),
    Violation("darks of 240 s 2 K warmer than the others", "warmth", measured="dark", wanted=("dark current",),
              darks=((20.0, 60.0), (22.0, 240.0), (20.0, 600.0)), stated=20.0),
    Violation("black level rises by 0.02 ADU/s up to 300 s", "black", _risen, "dark", wanted=("dark current",),
              darks=((20.0, 60.0), (20.0, 240.0), (20.0, 600.0)), bodies=_LARGE),
    Violation("the camera subtracts the mean dark", "subtracted", _subtracted, "dark", wanted=("dark current",)),
    Violation("dark noise grows faster than the mean: pixels that flicker", change=_flickering, measured="dark",
              wanted=("dark current",)),
    Violation("particles hit the darks", change=_struck, measured="dark", wanted=("dark current",)),
    Violation("thermometer off by 0.5 K", "warmth", measured="dark", thermometer=0.5, wanted=("doubling temperature",),
              darks=tuple((t, s) for t in (-10.0, 0.0, 10.0, 20.0) for s in (60.0, 240.0))),
    Violation("the camera removes lone bright pixels", "eater", _eaten, "dark card", bodies={"shape": (384, 512)}),
    Violation("the numbers of a bias frame, a flat and a dark halved", "odd", measured="folder", odd=0.5),
    Violation("the numbers of a bias frame, a flat and a dark doubled", "odd", measured="folder", odd=2.0),
)  # fmt: skip


def measure(violation: Violation, body: int) -> list[dict[str, Any]]:
    """Shoot and measure one body; a row for each number, with its truth and whether warnings name the cause."""
    rng = np.random.default_rng([body, 11])
    camera = violation.camera(**{"seed": body, "shape": SHAPE, **violation.bodies})
    setting = ISO if violation.camera is d7000 else 0.0

    def take(kind: str, shots: list[tuple[float, float, float]], colour: Any = 1.0) -> xr.DataArray:
        cube = shoot(camera, rng, kind, [(setting, *shot) for shot in shots], colour)
        if violation.change:
            about = [Shot(kind, exposure, temperature) for exposure, temperature, _ in shots]
            frames = zip(cube.values, about, strict=True)
            cube = cube.copy(data=np.stack([violation.change(*frame, camera, rng) for frame in frames]))
            if violation.change in (_stock, _clipped):
                cube.attrs |= {"black_level": 0.0, "white_level": camera.white_level - camera.black_level}
        if violation.odd == 1:
            return cube
        last = np.minimum(violation.odd * cube.values[-1:], 65535).astype(cube.dtype)
        return cube.copy(data=np.concatenate([cube.values[:-1], last]))

    bias, found, warnings = take("bias", [(1 / 8000, 20.0, 0.0)] * violation.bias), [], []
    cubes = [bias]
    if {"light", "folder"} & set(violation.measured.split()):
        full = min((camera.white_level - camera.black_level) * camera.gain(setting), camera.full_well)
        lamp = np.repeat(LEVELS * violation.lamp(rng), 2)
        flat = take("flat", [(t, 20.0, share * full) for t, share in zip(np.repeat(LEVELS, 2), lamp, strict=True)])
        cubes.append(flat)
    if "light" in violation.measured:
        rows, texts = _light(violation, camera, setting, bias, flat)
        found, warnings = [*found, *rows], [*warnings, *texts]
    if {"dark", "folder"} & set(violation.measured.split()):
        stated = [one for one in violation.darks for _ in range(FRAMES)]
        off = {warm: rng.normal(0, violation.thermometer) for warm, _ in violation.darks}
        shots = [(seconds, warm + off[warm], violation.leak * seconds) for warm, seconds in stated]
        dark = take("dark", shots, 1.0 if camera.cfa_pattern == "mono" else COLOUR)
        told = [warm if violation.stated is None else violation.stated for warm, _ in stated]
        dark = dark.assign_coords(temperature=("frame", told))
        cubes.append(dark)
    if "dark" in violation.measured:
        rows, texts = _dark(violation, camera, setting, bias, dark)
        found, warnings = [*found, *rows], [*warnings, *texts]
    if "folder" in violation.measured:
        found, warnings = _folder(camera, setting, cubes)
    if "card" in violation.measured:
        card = inspect_frames(xr.concat(cubes, "frame", combine_attrs="override"), progress=False)
        warnings = true_causes(warnings, card)
    said = {name for name, words in CAUSES.items() if any(re.search(words, text) for text in warnings)}
    about = {
        "violation": violation.title,
        "warned": violation.cause in said,
        "misled": ", ".join(sorted(said - {violation.cause})),
    }
    return [
        about | dict(zip(("quantity", "value", "error", "truth"), row, strict=True))
        for row in found
        if not violation.wanted or row[0] in violation.wanted
    ]


def _light(
    violation: Violation, camera: VirtualSensor, setting: float, bias: xr.DataArray, flat: xr.DataArray
) -> tuple[list[Row], list[str]]:
    """Return what bias frames and flats give, and the warnings."""
    cooked = violation.change is _stock
    factors = [STOCK_MULTIPLIERS[name] if cooked else 1.0 for name in channels_of(camera.cfa_pattern)]
    known = dict(zip(channels_of(camera.cfa_pattern), factors, strict=True)) if cooked else None
    read = read_noise(bias, multiplier=known, progress=False)
    ptc = photon_transfer(flat, read, progress=False)
    gain = fit_gain(ptc)
    derived = derive_transfer(read, ptc, gain, None)
    uniformity = measure_uniformity(bias, flat, read=read, ptc=ptc, gain=gain, progress=False)
    truth, rows = camera.gain(setting), []
    black = 0.0 if cooked or violation.change is _clipped else camera.black_level
    noise = float(np.hypot(camera.read_noise(setting), violation.added * truth))
    of_read, of_gain = read.isel({read["black_level"].dims[0]: 0}), gain.isel({gain["gain"].dims[0]: 0})
    dsnu = uniformity.dsnu["dsnu"].dims[0]
    for number, factor in enumerate(factors):
        one, two = of_read.isel(channel=number), of_gain.isel(channel=number)
        offsets, response = (plane(picture, camera, number) for picture in (camera.offset_map, camera.response_map))
        adu, adu_error, slope, slope_error = (
            float(v) for v in (one.read_noise_adu, one.read_noise_adu_error, two.gain, two.gain_error)
        )
        rows += [
            ("gain", slope, slope_error, truth / factor),
            ("read noise", adu * slope, float(np.hypot(adu_error * slope, adu * slope_error)), noise),
            ("black level", float(one.black_level), float(one.black_level_error), factor * (black + offsets.mean())),
            (
                "black level, 95 % interval", float(one.black_level), float(one.black_level_error_95),
                factor * (black + offsets.mean()),
            ),
            ("DSNU", *_pair(uniformity.dsnu.isel({dsnu: 0}).sel(filter="none", part="total"), "dsnu", number),
             offsets.std(dtype=float) * truth),
            ("PRNU", *_pair(uniformity.prnu.sel(filter="highpass", part="total"), "prnu", number),
             100 * response.std(dtype=float) / response.mean(dtype=float)),
        ]  # fmt: skip
        if derived.wells is not None:
            rows.append(("full well", *_pair(derived.wells.isel({dsnu: 0}), "full_well", number),
                         camera.saturation(setting)))  # fmt: skip
        if derived.linearity is not None and violation.change is not _bent:
            rows.append(("linearity error", *_pair(derived.linearity.isel({dsnu: 0}), "linearity_error", number), 0.0))
    texts = [text for part in (read, ptc, gain) for text in part.attrs["warnings"]]
    return rows, [*texts, *derived.warnings, *uniformity.warnings]


def _dark(
    violation: Violation, camera: VirtualSensor, setting: float, bias: xr.DataArray, dark: xr.DataArray
) -> tuple[list[Row], list[str]]:
    """Return what darks give, and the warnings; the gain is known, as it has rows of its own."""
    current = measure_dark(dark, bias, known_gain(camera, setting), progress=False).current
    law = dark_law(current)
    rows: list[Row] = []
    particles = PARTICLES * DEPOSIT * camera.gain(setting) if violation.change is _struck else 0.0
    within = [
        plane(camera.dark_map, camera, number).var(dtype=float)
        for number in range(len(channels_of(camera.cfa_pattern)))
    ]
    for number, warm in enumerate(current["temperature"].values):
        factor = camera.dark_factor(warm)
        rows += [
            ("dark current", *_pair(current, "dark_current", number), camera.mean_dark_current(warm) + particles),
            ("DCNU", *_pair(current, "dcnu", number), float(np.sqrt(np.mean(within))) * factor),
        ]
    if np.unique(current["temperature"]).size > 1:
        values = (float(law[f"doubling_temperature{end}"]) for end in ("", "_error"))
        rows.append(("doubling temperature", *values, camera.doubling_temperature))
    return rows, [*current.attrs["warnings"], *law.attrs["warnings"]]


def _folder(camera: VirtualSensor, setting: float, cubes: list[xr.DataArray]) -> tuple[list[Row], list[str]]:
    """Return what `characterize` finds in a folder of these frames, and its warnings."""
    with tempfile.TemporaryDirectory() as folder:
        for frame in (frame for cube in cubes for frame in cube):
            number = sum(1 for _ in Path(folder).glob(f"{frame.kind.item()}_*"))
            facts = {name: frame[name].item() for name in ("iso", "exposure", "temperature")}
            path = Path(folder) / f"{frame.kind.item()}_{number}.fits"
            save_fits(path, frame.values, camera, time=datetime(2025, 1, 1, 20), **facts)
        found = characterize(folder, progress=False)
    sensor, rows = found.sensor.isel(iso=0), []
    for name, truth in (("gain", camera.gain(setting)), ("read_noise", camera.read_noise(setting))):
        rows += [(name.replace("_", " "), *_pair(sensor, name, number), truth) for number in range(sensor.channel.size)]
    for number, warm in enumerate(sensor["setting_temperature"].values):
        rows.append(("dark current", *_pair(sensor, "dark_current", number), camera.mean_dark_current(warm)))
    return rows, found.warnings


def _pair(result: xr.Dataset, name: str, number: int) -> tuple[float, float]:
    return float(result[name][number]), float(result[f"{name}_error"][number])


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each violation and quantity, with its verdict."""
    return pd.DataFrame(_summaries(found))


def _summaries(found: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (violation, quantity), part in found.groupby(["violation", "quantity"], sort=False):
        off, bound = (part["value"] - part["truth"]).abs(), np.isinf(part["error"])
        held = np.where(bound, part["value"] <= part["truth"], off < part["error"]).mean()
        warned, misled = part["warned"].mean(), (part["misled"] != "").mean()
        sound = held > LEAST.get(quantity, HALF)
        verdict = (
            "WRONG" if misled > FEW
            else ("bounded" if bound.all() else "covered") if sound
            else "warned" if warned > NEARLY_ALL else "WRONG"
        )  # fmt: skip
        scale = part["truth"].where(part["truth"] != 0, 100.0)  # of the linearity error, which is in per cent
        shares = {
            "off": ((part["value"] - part["truth"]) / scale).mean(),
            "error": (part["error"] / scale).median(),
            "held": held,
            "warned": warned,
            "misled": misled,
        }
        shares = {name: 100 * float(share) for name, share in shares.items()}
        yield {"violation": violation, "quantity": quantity, **shares, "verdict": verdict}


def document(summary: pd.DataFrame, bodies: int) -> str:
    """Return the page."""
    head = [
        "broken", "quantity", "mean off [%]", "median error [%]", "held the truth [%]", "cause named [%]",
        "wrong cause [%]", "verdict",
    ]  # fmt: skip
    lines = [
        [
            row.violation, row.quantity, f"{row.off:+.2f}", "bound" if np.isinf(row.error) else f"{row.error:.2f}",
            f"{row.held:.0f}", f"{row.warned:.0f}", f"{row.misled:.0f}", row.verdict,
        ]
        for row in summary.itertuples()
    ]  # fmt: skip
    return f"""# When assumptions fail

One assumption is broken at a time, in {bodies} simulated bodies of {SHAPE[0]} x {SHAPE[1]} pixels each ({LARGER[0]} x
{LARGER[1]} where the row says so, and for light that leaks in): 6 bias frames, 2 flats at each of {LEVELS.size} light
levels, none saturated, and {FRAMES} darks of each exposure and temperature. A number is *covered* if its 68 % interval
holds the truth in more than half of the cases (a 95 % interval: in nine of ten), *bounded* if it is stated as a lower
bound and is one, *warned* if it is neither but a warning of nearly every body names the cause, and *WRONG* otherwise,
or if the warnings of more than one body in ten name a cause that is not there. The verdict is computed.

{table(head, lines)}

`python benchmarks/accuracy_broken.py` writes this page.
"""


def run(bodies: int, violations: tuple[Violation, ...] = VIOLATIONS) -> pd.DataFrame:
    """Return every number of all violations and bodies."""
    return pd.DataFrame([row for one in violations for body in range(bodies) for row in measure(one, body)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=int, default=BODIES)
    parser.add_argument("--only", default="", help="rows whose title holds these words; the page needs all")
    parser.add_argument("--kept", type=Path, help="CSV of rows measured before, which are not measured again")
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    given = parser.parse_args()
    numbers = kept(given.kept)
    known = set() if numbers.empty else set(numbers["violation"])
    for one in VIOLATIONS:
        if given.only in one.title and one.title not in known:
            numbers = pd.concat([numbers, run(given.bodies, (one,))])
            keep(given.kept, numbers)
    order = [one.title for one in VIOLATIONS if one.title in set(numbers["violation"])]
    numbers = pd.concat([numbers[numbers["violation"] == title] for title in order])
    summary = summarise(numbers)
    text = document(summary, given.bodies)
    print(text)
    print(numbers.groupby(["violation", "misled"])["value"].count())
    if len(order) == len(VIOLATIONS):
        with aside(given.out) as part:
            part.write_text(text)
    raise SystemExit(int((summary["verdict"] == "WRONG").any()))
