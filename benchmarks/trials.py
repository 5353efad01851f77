"""Thousands of small sets of frames, shot by virtual cameras and measured: what the accuracy benchmarks share."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from workbench.core.cube import channels_of
from workbench.core.files import aside
from workbench.simulate import VirtualSensor, cube_of, expose
from workbench.simulate.capture import CooledCamera

WANDER = 0.1  # standard deviation of each frame's offset [ADU]
DRIFT = 0.05  # greatest change of the lamp from one flat to the next
COVERED = 0.64, 0.72  # allowed share of intervals that hold the truth, where 0.683 is meant

Row = tuple[str, float, float, float]  # quantity, value, error, truth


def shoot(
    camera: VirtualSensor,
    rng: np.random.Generator,
    kind: str,
    shots: Sequence[tuple[float, float, float, float]],
    colour: Sequence[float] | float = 1.0,
) -> xr.DataArray:
    """Shoot frames of (iso, exposure [s], temperature [°C], electrons where the lamp is brightest).

    `colour` is that of the lamp, one number or R G1 G2 B.
    """
    frames = []
    for iso, exposure, temperature, electrons in shots:
        body = dataclasses.replace(camera, black_level=camera.black_level + rng.normal(0, WANDER))
        body.__dict__.update({name: getattr(camera, name) for name in ("offset_map", "response_map", "dark_map")})
        seed = int(rng.integers(2**32))
        rate = np.multiply(colour, electrons) / exposure
        frames.append(expose(body, rate, iso=iso, exposure=exposure, temperature=temperature, seed=seed, threads=1))
    iso, exposure, temperature, _ = np.array(shots).T
    return cube_of(camera, frames, kind, iso=iso, exposure=exposure, temperature=temperature)


def known_gain(camera: VirtualSensor, setting: float) -> xr.Dataset:
    """Return the camera's gain without error, for what is measured apart from the gain."""
    names = channels_of(camera.cfa_pattern)
    values = np.full((1, len(names)), camera.gain(setting))
    dims = ("gain_setting" if isinstance(camera, CooledCamera) else "iso", "channel")
    return xr.Dataset(
        {"gain": (dims, values), "gain_error": (dims, 0 * values)}, {dims[0]: [setting], "channel": list(names)}
    )


def repeat(
    trial: Callable[[int], list[Row]],
    trials: int,
    first_seed: int = 1,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Return every interval of many trials: seed, quantity, value, error, truth."""
    seeds = range(first_seed, first_seed + trials)
    rows: list[tuple[int, str, float, float, float]] = []
    workers = workers or os.cpu_count() or 1
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        found = pool.map(trial, seeds, chunksize=4) if pool else map(trial, seeds)
        numbered = tqdm(zip(seeds, found, strict=True), desc="sets of frames", total=trials, disable=not progress)
        for seed, intervals in numbered:
            rows += [(seed, *interval) for interval in intervals]
    return pd.DataFrame(rows, columns=["seed", "quantity", "value", "error", "truth"])


def kept(path: Path | None) -> pd.DataFrame:
    """Return what earlier parts of a run found, by the file that they left; nothing without one."""
    return (
        pd.DataFrame()
        if path is None or not path.exists()
        else pd.read_csv(path, keep_default_na=False, na_values=["nan"])
    )


def keep(path: Path | None, found: pd.DataFrame) -> None:
    """Leave what was found for the next part of a run."""
    if path is not None:
        with aside(path) as part:
            found.to_csv(part, index=False, na_rep="nan")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its first column of words, the others of numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def report(
    about: str,
    page: Path,
    run: Callable[..., pd.DataFrame],
    summarise: Callable[[pd.DataFrame], pd.DataFrame],
    document: Callable[[pd.DataFrame, int], str],
    bound: pd.Series | float,
) -> int:
    """Read the command line, run the trials, write the page; returns 1 if a mean or a coverage is out of bounds."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000, help="sets of frames (2000)")
    parser.add_argument("--first-seed", type=int, default=1, help="of the first set (1)")
    parser.add_argument("--workers", type=int, help="processes (as many as cores)")
    parser.add_argument(
        "--kept", type=Path, help="CSV of earlier parts of the run, which go into the page; this is added"
    )
    parser.add_argument("--out", type=Path, default=page, help="where to write the page")
    given = parser.parse_args()
    start = time.monotonic()
    earlier = kept(given.kept)
    found = run(given.trials, given.first_seed, workers=given.workers)
    if len(earlier) and earlier["seed"].isin(found["seed"]).any():
        parser.error(
            f"{given.kept} holds sets from {given.first_seed} on; give a --first-seed above {earlier.seed.max()}"
        )
    intervals = pd.concat([kept(given.kept), found])
    keep(given.kept, intervals)
    summary = summarise(intervals)
    text = document(summary, intervals["seed"].nunique())
    with aside(given.out) as part:
        part.write_text(text)
    print(text)
    print(f"{time.monotonic() - start:.0f} s")
    good = (summary["bias"].abs() <= bound) & summary["coverage"].between(*COVERED) & (summary["missing"] == 0)
    for quantity in summary.index[~good]:
        print(f"NOT WITHIN BOUNDS: {quantity}")
    return int(not good.all())
