"""How often the raw report card cries wolf, and how little cooking it finds: false alarms and power, as numbers.

Honest virtual cameras, no two alike (gain, read noise, black level, fixed pattern, hot pixels drawn at random), shoot
bias frames, flats and a dark; then each frame goes through one thing that firmware does, at several strengths.

    python benchmarks/fidelity.py --write
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from workbench.core.cube import make_cube
from workbench.core.files import aside
from workbench.fidelity import inspect_frames
from workbench.fidelity.findings import CHANGED, NOTICE, UNKNOWN
from workbench.pipelines.measurement import flat_transfer
from workbench.simulate import VirtualSensor, d7000, expose, firmware
from workbench.simulate.capture import CooledCamera, cooled

SHAPE, LARGER, SMALL = (384, 512), (1024, 1536), (192, 256)
LEVELS = (0.01, 0.03, 0.1, 0.3, 0.6)  # of saturation, green
LAMP = np.array([0.5, 1.0, 1.0, 0.7])  # R, G1, G2, B
ISOS = (100.0, 1600.0)
DOCUMENT = Path(__file__).parent.parent / "docs" / "fidelity.md"

Change = Callable[[np.ndarray, VirtualSensor, float, tuple[int, ...]], np.ndarray]  # frame, camera, ISO, seed


def camera(seed: int, **changes) -> VirtualSensor:
    """One honest camera; no two alike."""
    rng = np.random.default_rng((seed, 1))
    drawn = {
        "gain_iso100": float(np.exp(rng.uniform(np.log(0.6), np.log(4.0)))),
        "noise_before_gain": float(np.exp(rng.uniform(np.log(1.2), np.log(6.0)))),
        "noise_after_gain": float(rng.uniform(0.8, 2.0)),
        "black_level": float(round(np.exp(rng.uniform(np.log(128), np.log(2048))))),
        "pixel_offset": float(rng.uniform(0, 1)),
        "column_offset": float(rng.uniform(0, 0.5)),
        "row_offset": float(rng.uniform(0, 0.3)),
        "prnu": float(rng.uniform(0.002, 0.015)),
        "hot_fraction": float(np.exp(rng.uniform(np.log(3e-4), np.log(3e-3)))),
        "dark_current": 0.5,
    }
    sensor = d7000(**{"seed": seed, "shape": SHAPE} | drawn | changes)
    noise = sensor.read_noise(ISOS[-1]) / sensor.gain(ISOS[-1])
    return replace(sensor, black_level=max(sensor.black_level, float(round(8 * noise))))  # no camera clips its noise


def _cooled(seed: int, pattern: str) -> VirtualSensor:
    """A cooled camera, 12 bits in 16."""
    rng = np.random.default_rng((seed, 2))
    drawn = {
        "gain_zero": float(np.exp(rng.uniform(np.log(1.0), np.log(6.0)))),
        "noise_before_gain": float(rng.uniform(1.0, 3.0)),
        "noise_after_gain": float(rng.uniform(0.5, 1.5)),
        "black_level": float(16 * rng.integers(80, 200)),
        "prnu": float(rng.uniform(0.002, 0.015)),
    }
    return cooled(SMALL, seed, cfa_pattern=pattern, **drawn)


def _eight_bits(seed: int, pattern: str) -> VirtualSensor:
    """A video camera, whose steps are wider than its read noise."""
    rng = np.random.default_rng((seed, 3))
    gain = float(rng.uniform(20.0, 60.0))
    return d7000(
        seed, SMALL, cfa_pattern=pattern, gain_iso100=gain, noise_before_gain=float(rng.uniform(3, 8)),
        noise_after_gain=float(rng.uniform(0.3, 0.9)), black_level=float(rng.integers(5, 20)), white_level=255,
        pixel_offset=0.1, column_offset=0.02, row_offset=0.02, prnu=float(rng.uniform(0.002, 0.015)), full_well=1e6,
    )  # fmt: skip


class Honest(NamedTuple):
    """A kind of honest camera: its name, what makes one, its settings, and frames of each kind at a setting."""

    title: str
    body: Callable[[int], VirtualSensor]
    settings: tuple[float, ...] = ISOS
    count: tuple[int, int, int] = (4, 2, 1)  # bias frames, flats of a level, darks
    levels: tuple[float, ...] = LEVELS
    worth: tuple[str, ...] = ()  # questions of which something true is worth knowing


HONEST = (
    Honest("14 bits", camera),
    Honest("14 bits, small frames", partial(camera, shape=SMALL)),
    Honest("14 bits, mono", partial(camera, shape=SMALL, cfa_pattern="mono")),
    Honest("cooled, mono, 12 bits in 16", partial(_cooled, pattern="mono"), (0.0, 120.0), worth=("bits",)),
    Honest("cooled, colour, 12 bits in 16", partial(_cooled, pattern="GRBG"), (0.0, 120.0), worth=("bits",)),
    Honest("8 bits, mono", partial(_eight_bits, pattern="mono"), (100.0, 400.0)),
    Honest("8 bits, colour", partial(_eight_bits, pattern="RGGB"), (100.0, 400.0)),
    Honest("14 bits, two bias frames and two flats", partial(camera, shape=SMALL), (200.0,), (2, 2, 0), (0.3,)),
    Honest("14 bits, flats only", partial(camera, shape=SMALL), ISOS, (0, 2, 0)),
    Honest("cooled, mono, one flat", partial(_cooled, pattern="mono"), (0.0,), (0, 1, 0), (0.3,), ("bits",)),
)


def frames(
    sensor: VirtualSensor,
    seed: int,
    change: Change | None = None,
    kinds: Sequence[str] = ("bias", "flat", "dark"),
    kind_of: Honest = HONEST[0],
) -> xr.DataArray:
    """Bias frames and flats at each setting and a long dark at the last, in one cube, each frame through `change`."""
    shots = []
    biases, flats, darks = kind_of.count
    for iso in kind_of.settings:
        full = (sensor.white_level - sensor.black_level) * sensor.gain(iso)
        full = min(full, sensor.full_well)
        shots += [("bias", iso, 1 / 8000, 0.0)] * biases
        shots += [("flat", iso, level, level * full) for level in kind_of.levels for _ in range(flats)]
        shots += [("flat", iso, 2.0, 2.0 * full)] * (len(kind_of.levels) > 1)
    shots += [("dark", kind_of.settings[-1], 300.0, 0.0)] * darks
    shots = [shot for shot in shots if shot[0] in kinds]
    lamp = LAMP if sensor.cfa_pattern != "mono" else 1.0
    mosaics = []
    for number, (kind, iso, exposure, electrons) in enumerate(shots):
        light = lamp * electrons / exposure if kind == "flat" else 0.0
        mosaic = expose(sensor, light, iso=iso, exposure=exposure, seed=(seed, number), threads=1)
        mosaics.append(mosaic if change is None else change(mosaic, sensor, iso, (seed, number)))
    kind, iso, exposure, _ = zip(*shots, strict=True)
    stock = change is stock_firmware
    setting = "gain_setting" if isinstance(sensor, CooledCamera) else "iso"
    return make_cube(
        np.stack(mosaics), cfa_pattern=sensor.cfa_pattern, kind=list(kind), exposure=list(exposure),
        temperature=20.0, camera=sensor.camera, black_level=0.0 if stock else sensor.black_level,
        white_level=sensor.white_level - (sensor.black_level if stock else 0),
        filename=[str(number) for number in range(len(shots))], **{setting: list(iso)},
    )  # fmt: skip


def stock_firmware(mosaic, sensor, _iso, _seed):
    return firmware.stock(mosaic, sensor)


def multiplied(mosaic, sensor, _iso, _seed, factor):
    saved = mosaic.astype(float)
    saved[::2, ::2] = np.rint(saved[::2, ::2] * factor)
    return np.minimum(saved, sensor.white_level).astype(np.uint16)


def smoothed(mosaic, sensor, _iso, _seed, share):
    return firmware.smooth(mosaic, sensor, share)


def banded(mosaic, sensor, iso, seed, sigma):
    return firmware.row_noise(mosaic, sensor, sigma * sensor.read_noise(iso) / sensor.gain(iso), (*seed, 9))


def eaten(mosaic, sensor, iso, _seed, margin):
    noise = np.hypot(sensor.read_noise(iso), np.sqrt(0.5 * 300)) / sensor.gain(iso)
    return firmware.remove_hot_pixels(mosaic, sensor, margin * noise)


def compressed(mosaic, sensor, _iso, _seed, first):
    return firmware.compress(mosaic, sensor, first)


# what is done, how strongly, which question of the card should find it, frames, changes of the camera
CASES: list[tuple[str, Change | None, str, tuple[str, ...], dict]] = [
    *[
        (f"red × {m:g}", partial(multiplied, factor=m), "codes", ("flat",), {})
        for m in (1.003, 1.01, 1.03, 1.12, 1.5, 0.9)
    ],
    ("black level subtracted, bias frames there", stock_firmware, "black", ("bias",), {}),
    ("black level subtracted, only flats there", stock_firmware, "black", ("flat",), {}),
    *[(f"steps doubling from {n} ADU on", partial(compressed, first=n), "bits", ("flat",), {}) for n in (256, 1024)],
    ("digital above ISO 800", None, "digital-iso", ("bias", "flat"), {"analogue_limit_iso": 800.0}),
    *[
        (f"row noise {s:g} of the pixel noise", partial(banded, sigma=s), "bands", ("bias",), {})
        for s in (0.05, 0.1, 0.2, 0.4)
    ],
    *[
        (f"noise filtered, {a:g} of each neighbour", partial(smoothed, share=a), "neighbours", ("bias",), {})
        for a in (0.005, 0.01, 0.02, 0.05)
    ],
    *[
        (f"hot-pixel filter, beyond {m:g} σ", partial(eaten, margin=m), "hot-pixels", ("dark",), {"shape": LARGER})
        for m in (0.0, 3.0, 6.0, 12.0, 30.0)
    ],
]  # fmt: skip


def honest(seed: int) -> dict[str, str]:
    """The status of every question for one honest camera, of the kinds in turn."""
    kind = HONEST[seed % len(HONEST)]
    shots = frames(kind.body(seed), seed, kind_of=kind)
    card = inspect_frames(shots, ptc=flat_transfer(shots), progress=False).card
    return dict(zip(card["test"].values.tolist(), card["status"].values.tolist(), strict=True))


def cooked(case: int, seed: int) -> str:
    """The status of the question that should find a case."""
    _, change, test, kinds, changes = CASES[case]
    sensor = camera(seed, **changes)
    shots = frames(sensor, seed, change, kinds)
    card = inspect_frames(shots, ptc=flat_transfer(shots), progress=False).card
    return str(card["status"].sel(test=test).item())


def rate(count: int, total: int) -> str:
    """A share in per cent with its 68 % interval (Wilson)."""
    p, z = count / total, 1.0
    centre, half = (
        (p + z * z / (2 * total)) / (1 + z * z / total),
        z * np.sqrt(p * (1 - p) / total + z * z / (4 * total**2)),
    )
    low, high = (max(0.0, centre + sign * half / (1 + z * z / total)) for sign in (-1, 1))
    return f"{100 * p:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def honest_table(clean: Sequence[tuple[int, dict[str, str]]]) -> str:
    """Return what was found in honest cameras (seed, statuses): false alarms of each question, and the kinds."""
    total, alarms = len(clean), Counter(item for seed, found in clean for item in _alarms(seed, found).items())
    kinds = Counter(HONEST[seed % len(HONEST)].title for seed, _ in clean)
    lines = [f"Honest virtual cameras: {total} ({'; '.join(f'{title}: {count}' for title, count in kinds.items())})."]
    lines += ["", "| question | changed | worth knowing | not known |", "|---|---|---|---|"]
    for test in clean[0][1]:
        changed, notice, unknown = (alarms[test, status] for status in (CHANGED, NOTICE, UNKNOWN))
        lines.append(f"| {test} | {rate(changed, total)} | {rate(notice, total)} | {unknown} |")
    return "\n".join(lines)


def _alarms(seed: int, found: dict[str, str]) -> dict[str, str]:
    """Return the statuses without what is true of this kind of camera."""
    worth = HONEST[seed % len(HONEST)].worth
    return {test: status for test, status in found.items() if not (status == NOTICE and test in worth)}


def cooked_table(found: Sequence[tuple[int, str]], fewer: int) -> str:
    """Return the shares of cases (number, status) that were found."""
    lines = [f"Cooked ones: {fewer} cameras each.", "", "| what is done | question | found | not known |"]
    lines.append("|---|---|---|---|")
    for number, (name, _, test, kinds, _) in enumerate(CASES):
        status = Counter(one for case, one in found if case == number)
        share = rate(status[CHANGED] + status[NOTICE], fewer)
        lines.append(f"| {name} | {test} ({', '.join(kinds)}) | {share} | {status[UNKNOWN]} |")
    return "\n".join(lines)


def write(name: str, text: str) -> None:
    """Put a table into docs/fidelity.md, between its marks."""
    document = DOCUMENT.read_text(encoding="utf-8")
    before, rest = document.split(f"<!-- {name} -->", 1)
    after = rest.split(f"<!-- end of {name} -->", 1)[1]
    with aside(DOCUMENT) as part:
        part.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end of {name} -->{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=400, help="honest cameras")
    parser.add_argument("--cooked", type=int, default=50, help="cameras of each cooked case; 0 for none")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/fidelity.md")
    options = parser.parse_args()
    tables = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        seeds = range(options.seeds)
        clean = list(tqdm(pool.map(honest, seeds), total=options.seeds, desc="honest cameras"))
        tables["honest"] = honest_table(list(zip(seeds, clean, strict=True)))
        if options.cooked:
            jobs = [(case, 10_000 + seed) for case in range(len(CASES)) for seed in range(options.cooked)]
            found = list(tqdm(pool.map(cooked, *zip(*jobs, strict=True)), total=len(jobs), desc="cooked ones"))
            cases = [case for case, _ in jobs]
            tables["cooked"] = cooked_table(list(zip(cases, found, strict=True)), options.cooked)
    for name, text in tables.items():
        print(text)
        if options.write:
            write(name, text)


if __name__ == "__main__":
    main()
