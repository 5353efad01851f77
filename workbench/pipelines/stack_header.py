"""What a stack says of itself: the FITS cards and the attributes that finishing needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..calibrate.noise import SensorNoise
from ..core.values import is_simulated
from ..stack.engine import Plan
from ..stack.kernel import mean_squared_weight, narrowing_for
from .stack_plan import Aligned, Lights


def stack_header(
    lights: Lights, plan: Plan, noise: SensorNoise, aligned: Aligned, chi: dict[str, float], remarks: list[str]
) -> tuple[dict[str, Any], dict[str, tuple[Any, str]]]:
    """Return what a stack says of itself, and its FITS cards: (value, comment) by keyword.

    `noise` is that of the reference's group, `chi` the chi-square of each channel, `remarks` what the history ends
    with.
    """
    reference = aligned.reference
    exposure = lights.exposure
    used = [lights.names.index(frame.name) for frame in plan.frames]
    low, high = plan.thresholds
    cards: dict[str, tuple[Any, str]] = {
        "CHANNELS": (",".join(plan.channels), "along axis 3"),
        "INSTRUME": (_plain(lights.camera), "camera"),
        "REFFRAME": (_plain(lights.names[reference]), "its pixel grid and exposure"),
        "EXPTIME": (_number(exposure[reference]), "[s] of the reference, to which all is scaled"),
        "TOTALEXP": (_number(exposure[used].sum()), "[s] of all frames stacked"),
        "NFRAMES": (len(used), "frames stacked"),
        "NLIGHTS": (len(lights.names), "lights found"),
        "REJECT": (plan.method, "rejection method"),
        "REJLOW": (_number(low), "its lower threshold"),
        "REJHIGH": (_number(high), "its upper threshold"),
        "SIMULATE": (bool(is_simulated(lights.camera)), "made by a virtual camera"),
    }
    names = {1: ("mono",), 4: ("R", "G1", "G2", "B")}
    unit = "electron" if noise.known else "adu"
    told = {"EGAIN": (noise.gain, "[e-/ADU] gain used")} if noise.known else {}
    told["RDNOIS"] = noise.read_noise, f"[{unit}] read noise used"
    for kind, (values, comment) in told.items():
        for name, value in zip(names[len(values)], values, strict=True):
            cards[f"{kind}{'' if name == 'mono' else name}"[:8]] = (value, comment)
    kernel = mean_squared_weight(narrowing_for(lights.cfa_pattern))
    for place, name in enumerate(plan.channels):
        share = {"R": 0.25, "G": 0.5, "B": 0.25, "mono": 1.0}[name]
        letter = name[0].upper()
        cards[f"PIXVAR_{letter}"] = (share * kernel, "variance of one pixel over VARIANCE")
        cards[f"CHI2_{letter}"] = (_number(chi[name]), "scatter between frames over the model's")
        cards[f"BACKGR_{letter}"] = (_number(aligned.level[place]), f"[{unit}] mean background left in")
    attributes: dict[str, Any] = {
        "camera": lights.camera,
        "exposure": _number(exposure[reference]),
        "frame_count": len(used),
        "reference": lights.names[reference],
        "rejection": plan.method,
        "gain": list(noise.gain),
        "read_noise": list(noise.read_noise),
        "pixel_variance_share": {n: cards[f"PIXVAR_{n[0].upper()}"][0] for n in plan.channels},
        "chi_square": {name: _number(value) for name, value in chi.items()},
    }
    colours = camera_colours(lights.paths[reference])
    if colours is not None and len(plan.channels) == 3:
        attributes |= colours
        for index, value in enumerate(colours["color_matrix"]):
            cards[f"CMAT{index // 3 + 1}_{index % 3 + 1}"] = (value, "XYZ (D65) to camera")
        for name, value in zip("RGB", colours["daylight_multipliers"], strict=True):
            cards[f"DAYMUL_{name}"] = (value, "daylight white balance")
    measured = "measured" if noise.known else "lights' own"
    history = [
        f"{len(used)} lights of {len(lights.names)} calibrated, aligned to {lights.names[reference]}, "
        "resampled once (Lanczos-3)",
        f"rejection: {plan.method} ({low:g}, {high:g}); weights from the {measured} noise",
        f"gain and read noise: {noise.source}",
        *remarks,
    ]
    return {
        "program": f"astrophoto-workbench {__version__}",
        "units": unit,
        "stage": "stacked",
        "history": history,
        "attributes": attributes,
    }, cards


def camera_colours(path: Path) -> dict[str, Any] | None:
    """The camera's colour matrix (XYZ to camera) and daylight multipliers, where its RAW file tells them."""
    if path.suffix.lower() in (".fits", ".fit", ".fts", ".pgm", ".gz", ".fz"):
        return None
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            matrix = np.asarray(raw.rgb_xyz_matrix, float)[:3]
            multipliers = np.asarray(raw.daylight_whitebalance, float)[:3]
    except rawpy.LibRawError:
        return None
    if not np.any(matrix) or not np.all(multipliers > 0):
        return None
    return {
        "color_matrix": [float(value) for value in matrix.ravel()],
        "daylight_multipliers": [float(value) for value in multipliers / multipliers[1]],
    }


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
