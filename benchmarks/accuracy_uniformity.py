"""Do DSNU, PRNU, DCNU and the activation energy recover the truth, and do their errors say how well?

As benchmarks/accuracy.py: the virtual camera shoots thousands of small sets of frames, each with a body of its own;
every set is measured, and value and stated error are compared with that body's truth.  Run it with

    python benchmarks/accuracy_uniformity.py

which takes some minutes and writes docs/accuracy-uniformity.md; a smaller run is part of the tests.
"""

from __future__ import annotations

import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from trials import DRIFT, WANDER, known_gain, repeat, report, shoot, table

from workbench.core.mosaic import planes
from workbench.pixels import measure_dsnu, measure_prnu, stack_cube
from workbench.sensor import dark_law, measure_dark
from workbench.simulate import VirtualSensor, d7000

DOCUMENT = Path(__file__).parents[1] / "docs" / "accuracy-uniformity.md"
SHAPE = (128, 160)
ISO = 200.0
BIAS_FRAMES, FLAT_FRAMES, DARK_FRAMES = 6, 4, 3
LEVEL = 0.5  # of saturation, of the flats
TEMPERATURES, EXPOSURES = (-5.0, 8.0, 20.0), (120.0, 600.0)
ENERGIES = (0.55, 0.75)  # eV: between these each body has its own
QUANTITIES = {"DSNU": "e⁻", "PRNU": "%", "DCNU": "e⁻/s", "activation energy": "eV"}
BOUND = 1 / 3  # of the stated error that the mean may be off


def trial(seed: int) -> list[tuple[str, float, float, float]]:
    """Shoot one set with a body of its own and measure it; rows of quantity, value, error, truth."""
    rng = np.random.default_rng([seed, 2])
    camera = d7000(seed=seed, shape=SHAPE, activation_energy=rng.uniform(*ENERGIES), prnu=rng.uniform(0.004, 0.01))
    bias = shoot(camera, rng, "bias", [(ISO, 1 / 8000, 20.0, 0.0)] * BIAS_FRAMES)
    full = (camera.white_level - camera.black_level) * camera.gain(ISO)
    lamp = LEVEL * full * (1 + rng.uniform(-DRIFT, DRIFT, FLAT_FRAMES) / 2)
    flat = shoot(camera, rng, "flat", [(ISO, 0.01, 20.0, electrons) for electrons in lamp])
    shots = [(ISO, t, warm, 0.0) for warm in TEMPERATURES for t in EXPOSURES for _ in range(DARK_FRAMES)]
    dark = shoot(camera, rng, "dark", shots)

    gain = known_gain(camera, ISO)
    zero = stack_cube(bias, progress=False)
    dsnu = measure_dsnu({ISO: zero}, gain).isel(iso=0).sel(filter="none", part="total")
    prnu = measure_prnu(flat, zero, progress=False).sel(filter="highpass", part="total")
    current = measure_dark(dark, bias, gain, progress=False).current
    law = dark_law(current, thermometer=0)  # the virtual camera's is exact
    rows = []
    for channel in range(4):
        offsets, response = (plane(picture, camera, channel) for picture in (camera.offset_map, camera.response_map))
        rows.append(("DSNU", *_pair(dsnu, "dsnu", channel), offsets.std(dtype=float) * camera.gain(ISO)))
        spread = 100 * response.std(dtype=float) / response.mean(dtype=float)
        rows.append(("PRNU", *_pair(prnu, "prnu", channel), spread))
    saturated = current["saturated_pixels"].values
    for number, warm in enumerate(TEMPERATURES):
        if saturated[number] == 0:  # where pixels saturate the truth is of the others
            within = [plane(camera.dark_map, camera, channel).var(dtype=float) for channel in range(4)]
            truth = np.sqrt(np.mean(within)) * camera.dark_factor(warm)
            rows.append(("DCNU", float(current["dcnu"][number]), float(current["dcnu_error"][number]), truth))
    energy = (float(law[name]) for name in ("activation_energy", "activation_energy_error"))
    rows.append(("activation energy", *energy, camera.activation_energy))
    return rows


def plane(picture: np.ndarray, camera: VirtualSensor, channel: int) -> np.ndarray:
    """Return the pixels of a channel."""
    return dict(planes(picture, camera.cfa_pattern))[channel]


def _pair(result: xr.Dataset, name: str, channel: int) -> tuple[float, float]:
    return float(result[name][channel]), float(result[f"{name}_error"][channel])


run = partial(repeat, trial)  # every interval of many trials


def summarise(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return for each quantity the bias in units of the stated error, the coverage, the typical stated error."""
    rows = []
    for quantity in QUANTITIES:
        one = intervals[intervals["quantity"] == quantity]
        known = one.dropna()
        pull = ((known["value"] - known["truth"]) / known["error"]).to_numpy()
        rows.append(
            {
                "quantity": quantity,
                "intervals": len(one),
                "bias": pull.mean(),
                "bias_error": pull.std(ddof=1) / np.sqrt(len(pull)),
                "coverage": float((np.abs(pull) <= 1).mean()),
                "coverage_error": np.sqrt(0.6827 * 0.3173 / len(pull)),
                "median_error": (known["error"] / known["truth"]).median(),
                "missing": int(len(one) - len(known)),
            }
        )
    return pd.DataFrame(rows).set_index("quantity")


def document(summary: pd.DataFrame, trials: int) -> str:
    """Write the table with what it says."""
    head = "quantity", "intervals", "mean of (measured − true)/error", "held the truth", "median error"
    rows = []
    for quantity, row in summary.iterrows():
        cells = (
            f"{quantity} [{QUANTITIES[quantity]}]",
            f"{row['intervals']:,.0f}",
            f"{row['bias']:+.3f} ± {row['bias_error']:.3f}",
            f"{100 * row['coverage']:.1f} %",
            f"{100 * row['median_error']:.2g} %",
        )
        rows.append(cells)
    made = f"""
        {trials:,} sets of frames, each from a simulated body of its own ({SHAPE[0]} x {SHAPE[1]} pixels, so that errors
        are large enough to be tested), at ISO {ISO:g}: {BIAS_FRAMES} bias frames, {FLAT_FRAMES} flats at {LEVEL:.0%} of
        saturation with vignetting and a lamp that drifts, {DARK_FRAMES} darks each of
        {", ".join(f"{t:g}" for t in EXPOSURES)} s at {", ".join(f"{t:g}" for t in TEMPERATURES)} °C; an offset that
        wanders by {WANDER:g} ADU from frame to frame.  The truth is that body's own: the standard deviation of its
        pixels' offsets, responses and dark currents within a colour, and its activation energy.  DSNU (plain) and PRNU
        (high-passed) count once for each colour, DCNU for each temperature at which no pixel saturates."""
    parts = [
        "# Accuracy of the uniformity",
        "The stated interval should hold the truth 68.3 % of the time; 64 to 72 % is allowed, and a mean within a "
        "third of the\nstated error.",
        table(head, rows),
        textwrap.fill(" ".join(made.split()), 110),
        "`python benchmarks/accuracy_uniformity.py` writes this page.",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(report(__doc__, DOCUMENT, run, summarise, document, BOUND))
