"""What a stacking run writes: bands that an interrupted run goes on from, header and table of the stack.

A band is worked off by the same function on threads here and by the workers of a cluster.  A result counts only when
its file is whole (written aside, then renamed) and belongs to the same frames and settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from dask import threaded

from .. import __version__
from ..align.registration import Registration
from ..calibrate.noise import SensorNoise
from ..core.cube import CFA_CHANNELS, COLOURS
from ..core.errors import WorkbenchError
from ..core.files import aside, remove_folder
from ..core.parallel import in_threads
from ..core.values import is_simulated
from ..stack.engine import Band, Prepared, StackPlan, prepare, stack_band
from ..stack.fits_out import Layout, write_band
from ..stack.normalise import block_centres, block_places, pixel_share
from ..stars.survey import QUALITY

if TYPE_CHECKING:
    from .stack_inputs import LightList


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write aside, then rename: the file is whole or not there."""
    with aside(path) as part:
        part.write_bytes(data)


def claim_folder(work: Path, out: Path, identity: str) -> bool:
    """Take the working folder; return whether it goes on from an interrupted run of the same identity.

    Raises
    ------
    WorkbenchError
        If it cannot be written.
    """
    marker = work / "run.json"
    try:
        if work.exists():
            if marker.is_file() and marker.read_text() == identity:
                return True
            if not marker.is_file() and any(path.suffixes[-2:] != [".part", marker.suffix] for path in work.iterdir()):
                raise WorkbenchError(f"{work}: holds files of something else; choose another place with --scratch")
            remove_folder(work)
        work.mkdir(parents=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(marker, identity.encode())
    except OSError as problem:
        raise WorkbenchError(
            f"{work}: cannot be written ({problem.strerror or problem}); choose another place with --scratch"
        ) from problem
    return False


def plan_digest(plan: StackPlan) -> str:
    """Return a digest of a plan: the same means the same stack."""
    frames = [
        [f.name, f.pixels.path.name, f.transform.to_dict(), f.scale, f.surface.tolist(), f.weight.tolist(),
         f.group, f.factor, f.step]
        for f in plan.frames
    ]  # fmt: skip
    rules = plan.cfa_pattern, plan.method, plan.thresholds, plan.drop, plan.taken and plan.taken.name
    return hashlib.sha256(json.dumps([frames, plan.shape, *rules]).encode()).hexdigest()


def bands_done(journal: Path, layout: Layout, digest: str) -> set[int]:
    """Bands that an interrupted run has finished: their sums are kept after their pixels are written."""
    marker = journal / "plan.json"
    whole = layout.path.is_file() and layout.path.stat().st_size == layout.total
    if not (whole and marker.is_file() and marker.read_text() == digest):
        return set()
    return {int(path.stem) for path in journal.glob("[0-9]*.npy")}


def keep_sums(journal: Path, number: int, band: Band) -> None:
    """Keep a band's chi-square sums and shared noise; that the file is there says that its pixels are written."""
    with aside(_sums_path(journal, number)) as part:
        np.save(part, np.concatenate([band.arrays.chi, band.shared[:, :, None]], axis=2))


def _sums_path(journal: Path, number: int) -> Path:
    return journal / f"{number}.npy"


def read_sums(journal: Path, bands: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the chi-square sums (2, channel, block row, block) and the shared noise (2, channel, band, block)."""
    kept = [np.load(_sums_path(journal, number)) for number in range(bands)]
    return np.concatenate([part[:, :, :-1] for part in kept], axis=2), np.stack([part[:, :, -1] for part in kept], 2)


_PREPARED: dict[str, tuple[Prepared, threading.local]] = {}
_PREPARING = threading.Lock()


def stack_one(plan: StackPlan, digest: str, layout: Layout, journal: Path, number: int) -> None:
    """Stack one band, in a thread here or in a worker's process, and write it to the shared file.

    A scheduler that has lost a worker asks again for what that worker had finished: then nothing is left to do.
    """
    if _sums_path(journal, number).exists():
        return
    with _PREPARING:
        if digest not in _PREPARED:
            _PREPARED.clear()
            _PREPARED[digest] = prepare(plan), threading.local()
        ready, kept = _PREPARED[digest]
    band = stack_band(ready, number, vars(kept))  # a thread's own buffers
    write_band(layout, band)
    keep_sums(journal, number, band)


def stack_all(
    plan: StackPlan, digest: str, layout: Layout, journal: Path, numbers: list[int], client: Any
) -> Iterator[None]:
    """Stack bands; yields as each is written."""
    shared = plan if client is None else client.scatter(plan, broadcast=True)
    try:
        jobs = [(shared, digest, layout, journal.absolute(), number) for number in numbers]
        yield from spread(stack_one, jobs, client, plan.held)
    finally:
        _PREPARED.clear()


def spread(task: Callable[..., Any], jobs: list[tuple[Any, ...]], client: Any, each: float) -> Iterator[Any]:
    """Yield task(*job) in order, from threads that hold `each` bytes, or a cluster, which repeats what is lost."""
    if client is None:
        yield from in_threads(lambda job: task(*job), jobs, each=each)
    else:
        for future in [client.submit(task, *job, pure=False, retries=3) for job in jobs]:
            yield future.result()


@contextlib.contextmanager
def workers(scheduler: Any) -> Iterator[Any]:
    """A dask client for an address, the client that was given, or None for this machine's threads.

    Their function is named because dask, asked for it by name, loads its cluster first.
    """
    if scheduler is None:
        with dask.config.set(scheduler=threaded.get):
            yield None
        return
    from dask.distributed import Client

    if isinstance(scheduler, Client):
        yield scheduler
        return
    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, ValueError) as problem:
        raise WorkbenchError(f"no dask scheduler answers at {scheduler!r} ({problem}); check the address") from problem
    with client:
        yield client


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
    weights, centres = np.stack([one.weight for one in plan.frames]), block_centres(range(plan.bands), plan.shape)
    places = np.stack([block_places(one.transform, centres, lights.shape) for one in plan.frames])
    for place, name in enumerate(plan.channels):
        letter = name[0].upper()
        share = pixel_share(name, plan.cfa_pattern, places, weights[:, place])
        cards[f"PIXVAR_{letter}"] = (share, "variance of one pixel over VARIANCE")
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
        "area_growth": plan.area_growth(places),
        "chi_square": {name: _number(value) for name, value in chi.items()},
    }
    if lights.filter:
        attributes["filter"] = lights.filter
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
        "CREATOR": (f"astrophoto-workbench {__version__}", ""),
        "ROWORDER": ("TOP-DOWN", "the first row is the top of the picture"),
        "CHANNELS": (",".join(plan.channels), "along axis 3"),
        "INSTRUME": (lights.camera, "camera"),
        "REFFRAME": (lights.names[reference], "its pixel grid and exposure"),
        "EXPTIME": (_number(lights.exposure[reference]), "[s] of the reference, to which all is scaled"),
        "TOTALEXP": (_number(lights.exposure[used].sum()), "[s] of all frames stacked"),
        "LIVETIME": (_number(lights.exposure[used].sum()), "[s] the same, as Siril names it"),
        **dict.fromkeys(("NFRAMES", "NCOMBINE", "STACKCNT"), (len(used), "frames stacked")),
        "NLIGHTS": (len(lights.names), "lights found"),
        "REJECT": (plan.method, "rejection method"),
        "REJLOW": (_number(low), "its lower threshold"),
        "REJHIGH": (_number(high), "its upper threshold"),
        "SIMULATE": (bool(is_simulated(lights.camera)), "made by a virtual camera"),
        **({"FILTER": (lights.filter, "of the lights")} if lights.filter else {}),
    }


def _noise_cards(noise: SensorNoise, unit: str) -> dict[str, tuple[Any, str]]:
    """The cards of the gain, where it is known, and of the read noise, one a channel of the mosaic."""
    names = {1: ("mono",), 3: COLOURS, 4: CFA_CHANNELS}
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


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


_OF_CHANNELS = {"weight": 0.0, "surface_error": math.nan}  # columns for each channel; their value for lights not used


def frame_table(lights: LightList, registration: Registration, norm: xr.Dataset | None = None) -> pd.DataFrame:
    """Return one row a light: whether it is used and why not, its quality, its scale, weights and transform.

    `norm` is the `normalisation` of the lights that are used, where it is known: their weights, and the errors of
    their backgrounds.
    """
    count, reference, used = len(lights.names), registration.reference, list(registration.used)
    table = pd.DataFrame({"file": list(lights.names)})
    table["used"] = [number in used for number in range(count)]
    table["reference"] = [number == reference for number in range(count)]
    table["reason"] = [registration.set_aside.get(number, "") for number in range(count)]
    table["exposure"] = lights.exposure
    table["iso"] = lights.iso
    if lights.filter:
        table["filter"] = lights.filters
    for name in QUALITY:
        table[name] = registration.quality[name].values
    relative = lights.exposure / lights.exposure[reference]
    table["scale"] = registration.scales
    table["transparency"] = 1.0 / (table["scale"] * np.where(np.isfinite(relative), relative, 1.0))
    known = {} if norm is None else {name: (norm[name].values.T, blank) for name, blank in _OF_CHANNELS.items()}
    for column, (by_channel, blank) in known.items():
        for channel, of_frames in zip(lights.channels, by_channel, strict=True):
            values = np.full(count, blank)
            values[used] = of_frames
            table[f"{column}_{channel}"] = values
    unknown = dict.fromkeys(("rms", "place_error", "rotation", "scale_error"), math.nan)
    rows = [{"transform": "", "stars_matched": 0, **unknown, "model": ""} for _ in range(count)]
    for number, (row, match) in enumerate(zip(rows, registration.matches, strict=True)):
        if match is not None:
            transform = registration.transform(number)
            row |= {
                "transform": json.dumps(transform.to_dict()),  # of pixels of the reference to the light's
                "stars_matched": int(match.reference_index.size),
                **{name: match.residuals.attrs[name] for name in ("rms", "place_error")},
                "rotation": transform.rotation,
                "scale_error": registration.scale_errors[number],
                "model": transform.kind,
            }
    return table.join(pd.DataFrame(rows))
