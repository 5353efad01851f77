"""What a stacking run reports: what it would do, the table of its lights, the header of the file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import __version__
from ..align.registration import Registration
from ..calibrate.matching import plan_groups
from ..calibrate.noise import SensorNoise
from ..core.errors import FrameReadError, WorkbenchError
from ..core.values import is_simulated
from ..ingest.folder import Folder
from ..ingest.reader import plain_pixels, read_frame
from ..stack.engine import StackPlan
from ..stack.fits_out import plan_layout
from ..stack.normalise import pixel_share

_OF_A_LIGHT, _OF_A_CALIBRATION = 49e-9, 8e-9  # [s] of a frame's pixel: runs of 4 and 16 Mpx, FITS, two threads
_BEGIN = 3.0  # s: compiled code is loaded, stars are matched, the file is closed


@dataclass(frozen=True, eq=False)
class LightList:
    """The lights of a run: names, paths, exposures [s] and ISO, one each; and what they have in common."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    exposure: np.ndarray
    iso: np.ndarray
    shape: tuple[int, int]
    cfa_pattern: str
    camera: str

    @property
    def channels(self) -> tuple[str, ...]:
        """Of the stack."""
        return ("mono",) if self.cfa_pattern == "mono" else ("R", "G", "B")

    def number_of(self, wanted: str) -> int:
        """Return which light is meant by a path, a name or a stem."""
        found = [
            number
            for number, (path, name) in enumerate(zip(self.paths, self.names, strict=True))
            if wanted in (name, path.name, path.stem, str(path)) or (Path(wanted).exists() and path.samefile(wanted))
        ]
        if len(found) != 1:
            raise WorkbenchError(
                f"the reference {wanted!r} is {'none' if not found else 'more than one'} of the lights "
                f"(the first is {self.names[0]!r}); give the path or the name of one"
            )
        return found[0]


def forecast(
    frames: Folder,
    lights: LightList,
    calibration: Mapping[str, xr.DataArray | None],
    sensor: xr.Dataset | None,
    out: Path,
) -> list[str]:
    """Return a line each: which frames would calibrate which lights, about how long it takes, what disk it needs."""
    law = math.nan if sensor is None else float(sensor.get("doubling_temperature", math.nan))
    light = frames.light
    lines = []
    for group in plan_groups(light, **calibration, doubling_temperature=law):
        lines.append(group.in_words(light))
        lines += [f"  {text}" for text in group.warnings]
    pixels = math.prod(lights.shape)
    files = [Path(path) for path in frames.table.loc[frames.table["kind"].isin([*calibration, "light"]), "path"]]
    packed = {path for path in files if plain_pixels(path) is None}
    count = len(lights.paths)
    seconds, source = working_time(lights.paths, len(files) - count, len(packed), pixels)
    lines.append(f"time: about {_rounded(seconds)}, an estimate from {source}")
    layout = plan_layout(out, (len(lights.channels), *lights.shape), count)
    kept = len(packed & set(lights.paths)) * pixels * 2 + 8 * pixels
    lines.append(f"disk: {layout.total / 1e6:,.0f} MB for {out}, {kept / 1e6:,.0f} MB of working files until the end")
    return lines


def working_time(lights: tuple[Path, ...], calibration: int, packed: int, pixels: int) -> tuple[float, str]:
    """Return about how long a run takes [s] on two threads, and from what that was estimated.

    t = 3 s + t_read n_packed/2 + (49 ns n_light + 8 ns n_cal) n_px, with one light read now.  Within a factor of two on
    most machines of the last ten years.

    Parameters
    ----------
    lights
        Their files, of which one is read.
    calibration
        Number of calibration frames.
    packed
        Number of files that must be decoded; others are read in place.
    pixels
        Of a frame.
    """
    begin = time.perf_counter()
    for path in lights:
        try:
            read_frame(path)
        except FrameReadError:
            begin = time.perf_counter()
            continue
        break
    reading = time.perf_counter() - begin
    seconds = _BEGIN + reading * packed / 2 + (_OF_A_LIGHT * len(lights) + _OF_A_CALIBRATION * calibration) * pixels
    return seconds, (
        f"{len(lights) + calibration} frames of {pixels / 1e6:.3g} Mpx and {reading:.2g} s to read one; "
        "the very first run takes a minute more to compile"
    )


def _rounded(seconds: float) -> str:
    """Write a time that is an estimate.

    Examples
    --------
    >>> _rounded(7.3), _rounded(43.0), _rounded(420.0), _rounded(9000.0)
    ('7 s', '45 s', '7 min', '2.5 h')
    """
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 90:
        return f"{5 * round(seconds / 5):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def stack_header(
    lights: LightList, plan: StackPlan, noise: SensorNoise, reference: int, level: np.ndarray, chi: dict[str, float]
) -> tuple[dict[str, Any], dict[str, tuple[Any, str]]]:
    """Return what describes a stack, and its FITS cards: (value, comment) by keyword.

    `noise` is that of the reference's group, `level` the mean background left in [e-] and `chi` the chi-square of each
    channel.
    """
    used = [lights.names.index(frame.name) for frame in plan.frames]
    low, high = plan.thresholds
    unit = "electron" if noise.known else "adu"
    cards = _run_cards(lights, plan, used, reference) | _noise_cards(noise, unit)
    for place, name in enumerate(plan.channels):
        letter = name[0].upper()
        cards[f"PIXVAR_{letter}"] = (pixel_share(name), "variance of one pixel over VARIANCE")
        cards[f"CHI2_{letter}"] = (_number(chi[name]), "scatter between frames over the model's")
        cards[f"BACKGR_{letter}"] = (_number(level[place]), f"[{unit}] mean background left in")
    attributes: dict[str, Any] = {
        "camera": lights.camera,
        "exposure": _number(lights.exposure[reference]),
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
    ]
    return {
        "program": f"astrophoto-workbench {__version__}",
        "units": unit,
        "stage": "stacked",
        "history": history,
        "attributes": attributes,
    }, cards


def _run_cards(lights: LightList, plan: StackPlan, used: list[int], reference: int) -> dict[str, tuple[Any, str]]:
    """The cards of what was stacked and how; `used` numbers the lights of the plan."""
    low, high = plan.thresholds
    return {
        "CHANNELS": (",".join(plan.channels), "along axis 3"),
        "INSTRUME": (_plain(lights.camera), "camera"),
        "REFFRAME": (_plain(lights.names[reference]), "its pixel grid and exposure"),
        "EXPTIME": (_number(lights.exposure[reference]), "[s] of the reference, to which all is scaled"),
        "TOTALEXP": (_number(lights.exposure[used].sum()), "[s] of all frames stacked"),
        "NFRAMES": (len(used), "frames stacked"),
        "NLIGHTS": (len(lights.names), "lights found"),
        "REJECT": (plan.method, "rejection method"),
        "REJLOW": (_number(low), "its lower threshold"),
        "REJHIGH": (_number(high), "its upper threshold"),
        "SIMULATE": (bool(is_simulated(lights.camera)), "made by a virtual camera"),
    }


def _noise_cards(noise: SensorNoise, unit: str) -> dict[str, tuple[Any, str]]:
    """The cards of the gain, where it is known, and of the read noise, one a channel of the mosaic."""
    names = {1: ("mono",), 4: ("R", "G1", "G2", "B")}
    used_noise = {"EGAIN": (noise.gain, "[e-/ADU] gain used")} if noise.known else {}
    used_noise["RDNOIS"] = noise.read_noise, f"[{unit}] read noise used"
    return {
        f"{kind}{'' if name == 'mono' else name}"[:8]: (value, comment)
        for kind, (values, comment) in used_noise.items()
        for name, value in zip(names[len(values)], values, strict=True)
    }


def camera_colours(path: Path) -> dict[str, Any] | None:
    """The camera's colour matrix (XYZ to camera) and daylight multipliers, where its RAW file has them."""
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


def frame_table(lights: LightList, registration: Registration, weights: np.ndarray) -> pd.DataFrame:
    """Return one row a light: whether it is used and why not, its quality, its scale, weights and transform.

    `weights` (frame, channel) are of the lights that are used.
    """
    count, reference, used = len(lights.names), registration.reference, list(registration.used)
    table = pd.DataFrame({"file": list(lights.names)})
    table["used"] = [number in used for number in range(count)]
    table["reference"] = [number == reference for number in range(count)]
    table["reason"] = [registration.set_aside.get(number, "") for number in range(count)]
    table["exposure"] = lights.exposure
    table["iso"] = lights.iso
    for name in ("stars", "fwhm", "roundness", "background", "noise", "snr"):
        table[name] = registration.quality[name].values
    relative = lights.exposure / lights.exposure[reference]
    table["scale"] = registration.scales
    table["transparency"] = 1.0 / (table["scale"] * np.where(np.isfinite(relative), relative, 1.0))
    for place, channel in enumerate(lights.channels):
        values = np.zeros(count)
        values[used] = weights[:, place]
        table[f"weight_{channel}"] = values
    columns: dict[str, list[Any]] = {
        "transform": [""] * count, "stars_matched": [0] * count, "rms": [math.nan] * count,
        "place_error": [math.nan] * count, "rotation": [math.nan] * count, "scale_error": [math.nan] * count,
        "model": [""] * count,
    }  # fmt: skip
    for number, match in enumerate(registration.matches):
        if match is None:
            continue
        transform = registration.transform(number)
        columns["transform"][number] = json.dumps(transform.to_dict())  # of pixels of the reference to the light's
        columns["stars_matched"][number] = int(match.reference_index.size)
        columns["rms"][number], columns["place_error"][number] = (
            match.residuals.attrs[name] for name in ("rms", "place_error")
        )
        columns["rotation"][number], columns["model"][number] = transform.rotation, transform.kind
        columns["scale_error"][number] = registration.scale_errors[number]
    return table.assign(**columns)
