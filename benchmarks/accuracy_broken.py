"""Numbers of cameras and lamps that break an assumption: right, covered by their errors, or warned of?

Virtual cameras, each a body of its own, shoot small sets of frames in which one assumption is broken; the numbers are
compared with the truth.  The verdict of each row is computed: *covered*, if the 68 % interval holds the truth in more
than half of the cases; *bounded*, if a lower bound is one; *warned*, if a warning of nearly every body names the cause;
*WRONG* otherwise.  Run it with

    python benchmarks/accuracy_broken.py

which takes some minutes and writes docs/accuracy-broken.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from trials import shoot, table

from workbench.core.files import aside
from workbench.sensor import fit_gain, full_well, linearity, photon_transfer, read_noise
from workbench.simulate import VirtualSensor, d7000
from workbench.simulate.capture import cooled
from workbench.simulate.firmware import row_noise, smooth

DOCUMENT = Path(__file__).parents[1] / "docs" / "accuracy-broken.md"
SHAPE, ISO, BODIES = (96, 128), 200.0, 30
LEVELS = np.array([0.04, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68])  # of saturation
HALF, NEARLY_ALL = 0.5, 0.9  # of the intervals that hold the truth; of the bodies that are warned of

Change = Callable[[np.ndarray, VirtualSensor, np.random.Generator], np.ndarray]


class Violation(NamedTuple):
    """An assumption that is broken: how frames are changed, how the lamp scatters, and the word that names it."""

    title: str
    word: str
    change: Change | None = None
    lamp: float = 0.0  # from level to level, relative
    camera: Callable[..., VirtualSensor] = d7000
    bodies: Mapping[str, Any] = MappingProxyType({})


def _filtered(frame: np.ndarray, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return smooth(frame, camera, 0.05)


def _bent(frame: np.ndarray, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    """The response falls by 1 % at full scale; codes stay whole."""
    signal = (frame - camera.black_level) / (camera.white_level - camera.black_level)
    dithered = frame - 0.01 * signal * (frame - camera.black_level) + rng.uniform(-0.5, 0.5, frame.shape)
    return np.rint(dithered).clip(0, camera.white_level).astype(frame.dtype)


def _rows(frame: np.ndarray, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return row_noise(frame, camera, 1.5, int(rng.integers(2**32)))


def _columns(frame: np.ndarray, camera: VirtualSensor, rng: np.random.Generator) -> np.ndarray:
    return _rows(frame.T, camera, rng).T


VIOLATIONS = (
    Violation("none", ""),
    Violation(
        "the camera filters its raw (5 % of each of four neighbours)", "neighbouring pixels share noise", _filtered
    ),
    Violation("12 bits saved in 16", "", camera=cooled, bodies={"cfa_pattern": "RGGB"}),
    Violation("lamp off by 1 % from level to level", "the lamp or the exposure times", lamp=0.01),
    Violation("response falls by 1 % at full scale", "bends", _bent),
    Violation("noise of whole rows, 1.5 ADU", "", _rows),
    Violation("noise of whole columns, 1.5 ADU", "", _columns),
)
_EXTRA = {_rows: 1.5, _columns: 1.5}  # ADU of noise that a change adds to the read noise


def measure(violation: Violation, body: int) -> list[dict[str, Any]]:
    """Shoot and measure one body; a row for each number, with its truth and whether a warning names the cause."""
    rng = np.random.default_rng([body, 11])
    camera = violation.camera(seed=body, shape=SHAPE, **violation.bodies)
    setting = ISO if violation.camera is d7000 else 0.0
    full = (camera.white_level - camera.black_level) * camera.gain(setting)
    full = min(full, camera.full_well)
    lamp = np.repeat(LEVELS * (1 + violation.lamp * rng.standard_normal(LEVELS.size)), 2)
    shots = {
        "bias": [(setting, 1 / 8000, 20.0, 0.0)] * 6,
        "flat": [(setting, t, 20.0, share * full) for t, share in zip(np.repeat(LEVELS, 2), lamp, strict=True)],
    }
    bias, flat = (shoot(camera, rng, kind, list(taken)) for kind, taken in shots.items())
    if violation.change:
        bias, flat = (
            cube.copy(data=np.stack([violation.change(frame, camera, rng) for frame in cube.values]))
            for cube in (bias, flat)
        )
    read = read_noise(bias, progress=False)
    ptc = photon_transfer(flat, read, progress=False)
    gain = fit_gain(ptc)
    wells = full_well(ptc, gain)
    line = linearity(ptc, wells)
    warnings = [text for part in (read, ptc, gain, wells, line) for text in part.attrs["warnings"]]
    straight = read["read_noise_adu"] * gain["gain"]
    error = np.hypot(read["read_noise_adu_error"] * gain["gain"], read["read_noise_adu"] * gain["gain_error"])
    truth = camera.gain(setting)
    found = [
        ("gain", gain["gain"], gain["gain_error"], truth),
        (
            "read noise",
            straight,
            error,
            np.hypot(camera.read_noise(setting), _EXTRA.get(violation.change, 0.0) * truth),
        ),
        ("full well", wells["full_well"], wells["full_well_error"], camera.saturation(setting)),
    ]
    if violation.change is not _bent:
        found.append(("linearity error", line["linearity_error"], line["linearity_error_error"], 0.0))
    warned = bool(violation.word) and any(violation.word in text for text in warnings)
    return [
        {"violation": violation.title, "quantity": name, "value": v, "error": e, "truth": true, "warned": warned}
        for name, values, errors, true in found
        for v, e in zip(values.values.ravel(), errors.values.ravel(), strict=True)
    ]


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each violation and quantity, with its verdict."""
    rows = []
    for (violation, quantity), part in found.groupby(["violation", "quantity"], sort=False):
        off, bound = (part["value"] - part["truth"]).abs(), np.isinf(part["error"])
        held = np.where(bound, part["value"] <= part["truth"], off < part["error"]).mean()
        warned = part["warned"].mean()
        verdict = (
            ("bounded" if bound.all() else "covered") if held > HALF
            else "warned" if warned > NEARLY_ALL else "WRONG"
        )  # fmt: skip
        scale = part["truth"].where(part["truth"] != 0, 100.0)  # of the linearity error, which is in per cent
        off, error = ((part["value"] - part["truth"]) / scale).mean(), (part["error"] / scale).median()
        shares = {"off": off, "error": error, "held": held, "warned": warned}
        shares = {name: 100 * float(share) for name, share in shares.items()}
        rows.append({"violation": violation, "quantity": quantity, **shares, "verdict": verdict})
    return pd.DataFrame(rows)


def document(summary: pd.DataFrame, bodies: int) -> str:
    """Return the page."""
    head = ["broken", "quantity", "mean off [%]", "median error [%]", "held the truth [%]", "warned [%]", "verdict"]
    lines = [
        [
            row.violation, row.quantity, f"{row.off:+.2f}", "bound" if np.isinf(row.error) else f"{row.error:.2f}",
            f"{row.held:.0f}", f"{row.warned:.0f}", row.verdict,
        ]
        for row in summary.itertuples()
    ]  # fmt: skip
    return f"""# When assumptions fail

One assumption is broken at a time, in {bodies} simulated bodies of {SHAPE[0]} x {SHAPE[1]} pixels each: 6 bias frames
and 2 flats at each of {LEVELS.size} light levels, none saturated. A number is *covered* if its 68 % interval holds the
truth in more than half of the cases, *bounded* if it is stated as a lower bound and is one, *warned* if it is neither
but a warning of nearly every body names the cause, and *WRONG* otherwise. The verdict is computed.

{table(head, lines)}

`python benchmarks/accuracy_broken.py` writes this page.
"""


def run(bodies: int, violations: tuple[Violation, ...] = VIOLATIONS) -> pd.DataFrame:
    """Return every number of all violations and bodies."""
    return pd.DataFrame([row for one in violations for body in range(bodies) for row in measure(one, body)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=int, default=BODIES)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    given = parser.parse_args()
    summary = summarise(run(given.bodies))
    text = document(summary, given.bodies)
    with aside(given.out) as part:
        part.write_text(text)
    print(text)
    raise SystemExit(int((summary["verdict"] == "WRONG").any()))
