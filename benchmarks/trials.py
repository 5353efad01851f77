"""Thousands of small sets of frames, shot by virtual cameras and measured: what the accuracy benchmarks share."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
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
    """Return every interval of many trials: quantity, value, error, truth."""
    seeds = range(first_seed, first_seed + trials)
    rows: list[Row] = []
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        for seed in tqdm(seeds, desc="sets of frames", disable=not progress):
            rows += trial(seed)
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = pool.map(trial, seeds, chunksize=4)
            for one in tqdm(found, desc="sets of frames", total=trials, disable=not progress):
                rows += one
    return pd.DataFrame(rows, columns=["quantity", "value", "error", "truth"])


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
    parser.add_argument("--out", type=Path, default=page, help="where to write the page")
    given = parser.parse_args()
    start = time.monotonic()
    summary = summarise(run(given.trials, given.first_seed, workers=given.workers))
    text = document(summary, given.trials)
    with aside(given.out) as part:
        part.write_text(text)
    print(text)
    print(f"{time.monotonic() - start:.0f} s")
    good = (summary["bias"].abs() <= bound) & summary["coverage"].between(*COVERED) & (summary["missing"] == 0)
    for quantity in summary.index[~good]:
        print(f"NOT WITHIN BOUNDS: {quantity}")
    return int(not good.all())
