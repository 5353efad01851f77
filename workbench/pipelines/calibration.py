"""What calibration frames and lights give: a dark library, a master dark, the lights examined for the charts."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..align.registration import Registration, register
from ..calibrate.apply import calibrate
from ..calibrate.flat_audit import audit_flat
from ..calibrate.masterset import make_masters, save_master
from ..core.cube import group_frames
from ..core.dark import open_dark_library, predict_dark, save_dark_library
from ..core.errors import WorkbenchError, said_of_all
from ..core.files import check_target
from ..core.mosaic import middle
from ..core.parallel import Start
from ..core.settings import TITLES, in_words_of, setting_dim
from ..core.values import describe, value_text
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder, of_one_camera, of_one_mode
from ..pixels.darks import dark_subtraction
from ..sensor.library import fit_dark_library
from ..simulate.samples import sample_folder
from ..stack.cubes import aligned
from ..stack.trial import before_after, noise_against_frames, rejection_trial
from .calibration_checks import CALIBRATION, calibration_cubes, prepare_calibration
from .characterization import Characterization, characterize
from .finishing import alignment_pair, finished_steps, flat_pair
from .measurement import MAJORITY, as_warning, measure_pixel_noise, set_aside_lines

DARK_LIBRARY_FILE = "dark-library.fits"
MOST_LIGHTS = 16  # looked at; more only take longer
WINDOW = (1024, 1536)  # rows and columns about the middle that are aligned and stacked
PIECE = (200, 300)  # rows and columns shown
TRIED = (192, 384)  # rows and columns in which rejection is tried
PRICE = 1e-3  # of the good samples: what every method may reject where they are compared
_THRESHOLDS = (1.5, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0)  # [σ]
_AUDITED = 4  # lights whose background shows what a flat leaves


@dataclass(frozen=True, eq=False)
class Lights:
    """What a look at a folder's lights found; a piece is None where these frames cannot give it.

    Attributes
    ----------
    audit
        `calibrate.audit_flat` of the master flat on the calibrated lights.
    registration
        `align.register` of the lights.
    growth
        `stack.noise_against_frames`.
    trial
        `fair_trial`.
    pair
        ``light`` and ``stack`` (y, x) [e-]: a piece of sky before and after stacking.
    flattened, together, finished
        Pictures before and after the flat and the alignment, and of the finish (see `workbench.pipelines.finishing`).
    warnings
        What is doubtful, and why a piece is missing.
    """

    audit: xr.Dataset | None = None
    registration: Registration | None = None
    growth: xr.Dataset | None = None
    trial: xr.Dataset | None = None
    pair: xr.Dataset | None = None
    flattened: xr.Dataset | None = None
    together: xr.Dataset | None = None
    finished: xr.Dataset | None = None
    warnings: list[str] = field(default_factory=list)


def examine_lights(folder: str | Path | Folder, *, sensor: xr.Dataset | None = None, progress: bool = True) -> Lights:
    """Calibrate, register and stack a part of a folder's lights, and measure what the charts show.

    Of large frames the middle, of many lights the first `MOST_LIGHTS` of the setting that most have.  A piece that
    these frames cannot give is None, and a warning says why.

    Parameters
    ----------
    folder
        A folder (see `open_folder`), or what `open_folder` returned.
    sensor
        A measured sensor (`open_sensor`), whose gain and read noise are used; else those of these frames.
    """
    frames = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    try:
        if frames.has("light"):
            frames = prepare_calibration(of_one_camera(frames, ["light"], CALIBRATION))
        lights, frames = frames.without_unreadable(lambda frames: _examine(frames, sensor, progress))
    except WorkbenchError as problem:
        return Lights(warnings=[f"the lights were not looked at: {problem}"])
    return replace(lights, warnings=[*lights.warnings, *set_aside_lines(frames)])


def _examine(frames: Folder, sensor: xr.Dataset | None, progress: bool) -> Lights:
    """Look at the lights of the setting that most of them have."""
    light = frames.light
    _, same = max(group_frames(light, setting_dim(light), "exposure"), key=lambda group: len(group[1]))
    light = light.isel(frame=same[:MOST_LIGHTS])
    masters = make_masters(light, **calibration_cubes(frames), sensor=sensor, progress=progress)
    own = masters.masters[0]  # one group: lights of one setting, or the first night of several
    lights = calibrate(light.isel(frame=list(own.group.lights)), masters)
    found: dict[str, Any] = {}
    warnings = list(masters.warnings)
    if own.flat is None:
        warnings.append("no flats: whether they flatten is not measured")
    else:
        with as_warning(warnings, "the flat is not audited: "):
            some = lights.isel(frame=slice(0, _AUDITED))
            found["audit"] = audit_flat(own.flat, some, night=len(same), progress=progress)
            found["flattened"] = flat_pair(lights, own.flat)
    with as_warning(warnings, "the lights were not stacked: "):
        rows, columns = middle((lights.sizes["y"], lights.sizes["x"]), WINDOW, lights.attrs["cfa_pattern"])
        cut = lights.isel(y=rows, x=columns).compute()
        found["registration"] = registration = register(cut, progress=progress)
        put = aligned(cut, registration).compute()
        found["growth"] = noise_against_frames(put)
        found["pair"] = before_after(put, piece=PIECE)
        found["together"] = alignment_pair(cut, put)
        found["trial"] = fair_trial(cut, registration)
        found["finished"] = finished_steps(put)
    return Lights(**found, warnings=list(dict.fromkeys(warnings)))


def fair_trial(lights: xr.Dataset, registration: Registration, *, frames: int | None = None,
               window: tuple[int, int] = TRIED) -> xr.Dataset:  # fmt: skip
    """Try every method of rejection at the threshold at which it rejects `PRICE` of the good samples.

    At one threshold for all, or at the usual ones, methods that take σ from the samples reject far too much or, of few
    samples, nothing; at equal false alarms they can be compared.

    Parameters
    ----------
    lights, registration, frames, window
        As those of `stack.rejection_trial`.

    Returns
    -------
    What `stack.rejection_trial` gives, its own thresholds being those of equal false alarms (attribute ``price``), and
    over ``rejection`` what the methods do at their usual ones: ``usual_threshold`` [σ], ``usual_found`` and
    ``usual_false_alarms`` (shares).

    Raises
    ------
    WorkbenchError
        If there are fewer than three frames.
    """
    usual = rejection_trial(lights, registration, frames=frames, window=window, thresholds=_THRESHOLDS)
    own = {}
    for name in usual["rejection"].values.astype(str):
        alarms = np.log(np.maximum(usual["false_alarms"].sel(rejection=name).values, 1e-6))
        own[name] = float(np.interp(-math.log(PRICE), -alarms, _THRESHOLDS))  # else the nearest that was tried
    fair = rejection_trial(lights, registration, frames=frames, window=window, thresholds=(), own=own)
    at_usual = {f"default_{name}": f"usual_{name}" for name in ("threshold", "found", "false_alarms")}
    along = usual[["found", "false_alarms", *at_usual]].rename(at_usual)
    return fair.drop_dims("threshold").merge(along).assign_attrs(fair.attrs, price=PRICE)


def characterize_with_lights(
    frames: Folder, needs: Collection[str], *, out: Path | None = None, progress: bool = True, start: Start = partial
) -> Characterization:
    """Characterize a folder, with what more some charts need: the noise of every pixel, and the lights examined.

    Parameters
    ----------
    needs
        Of the charts (`workbench.charts.registry`): ``lights.…`` and ``pixel_noise`` are measured where they are named.
    out
        Folder for ``sensor.json``.
    start
        Of `in_background`, which then examines the lights meanwhile.
    """
    examined = frames.has("light") and any(need.startswith("lights.") for need in needs)
    lights = start(examine_lights, frames, progress=False) if examined else None
    result = characterize(frames, out=out, progress=progress)
    if "pixel_noise" in needs:
        result.pixel_noise = measure_pixel_noise(frames, progress=progress)
    if lights is not None:
        result.lights = lights()
        result.warnings += [f"lights: {text}" for text in result.lights.warnings]
    return result


def show_warm_samples(result: Characterization) -> None:
    """Let a result of the sample frames show dark subtraction on their warm light, where there is more to be seen."""
    warm = open_folder(sample_folder("warm", progress=False), progress=False)
    result.dark_subtraction = dark_subtraction(warm.dark, warm.light, result.gain, progress=False)


@dataclass(repr=False)
class DarkLibraryResult:
    """A dark library that was made, and where it lies; prints as what it can predict."""

    library: xr.Dataset
    path: Path | None = None
    set_aside: list[tuple[Path, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return what it is, one line a fact."""
        attrs = self.library.attrs
        seconds, warm = self.library["exposure"].values, self.library["temperature"].values
        darks = seconds > 0
        known = {name: attrs[name] for name in TITLES if math.isfinite(attrs.get(name, math.nan))}
        setting = f", {describe(known)}" if known else ""
        count = int(self.library["frames"].sum())
        found = [
            f"{attrs['camera'] or 'unknown camera'}{setting}: dark library of {count} frames",
            f"exposures {seconds[darks].min():g} to {seconds.max():g} s",
        ]
        if np.isfinite(warm[darks]).any():
            found[-1] += f", temperatures {np.nanmin(warm):g} to {np.nanmax(warm):g} °C"
        for law, key, name, unit in (
            ("doubling", "doubling_temperature", "dark current doubles every", "K"),
            ("arrhenius", "activation_energy", "activation energy", "eV"),
        ):
            if math.isfinite(attrs[key]):
                used = " (used)" if attrs["law"] == law else ""
                found.append(f"{name} {value_text(attrs[key], attrs[f'{key}_error'], unit)}{used}")
        return [*found, *(f"warning: {text}" for text in attrs["warnings"])]

    def __repr__(self) -> str:
        aside = [f"set aside: {sentence}" for sentence in said_of_all(self.set_aside)]
        return "\n".join([*self.lines(), *aside])


def make_dark_library(
    folder: str | Path | Folder, out: str | Path | None = None, *, iso: float | None = None, progress: bool = True
) -> DarkLibraryResult:
    """Fit the darks (and bias frames) in a folder together and keep the result: see `sensor.fit_dark_library`.

    Parameters
    ----------
    folder
        A folder (see `open_folder`), or what `open_folder` returned.
    out
        The FITS file to write, or a folder for ``dark-library.fits``; nothing is written without it.
    iso
        Which ISO, or gain setting of a camera without; else the one with the most darks.

    Raises
    ------
    WorkbenchError
        If the folder has no darks (of that ISO), or they do not separate offset and dark current; the message
        names what to shoot.

    Examples
    --------
    >>> from workbench.simulate import samples
    >>> result = make_dark_library(samples._PROJECT / "data-samples" / "small", progress=False)
    >>> 6.5 < result.library.attrs["doubling_temperature"] < 8.5
    True
    """
    path = None
    if out is not None:
        path = Path(out)
        if path.is_dir() or not path.suffix:
            path = path / DARK_LIBRARY_FILE
        check_target(path, "FITS file")
    found = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    if path is not None:
        check_target(path, "FITS file", frames=found.paths)
    if found.has("dark"):
        found = of_one_mode(found, ["dark"], ["bias"])
        found = of_one_camera(found, ["dark"], ["bias"], share=MAJORITY)
    library, found = found.without_unreadable(lambda folder: _fit(folder, iso, progress), "dark")
    if library is None:
        raise WorkbenchError(
            f"{found.root} has no darks: shoot two or more at each of two exposures, and at two temperatures or more"
        )
    if path is not None:
        save_dark_library(library, path)
    return DarkLibraryResult(library, path, list(found.set_aside))


def _fit(folder: Folder, iso: float | None, progress: bool) -> xr.Dataset:
    """Fit the darks of an ISO or gain setting, or of the one with the most."""
    dark, bias = folder.dark, folder.bias if folder.has("bias") else None
    dim = setting_dim(dark)
    counts = folder.table.loc[folder.table["kind"] == "dark", dim].value_counts()
    if iso is not None and iso not in counts.index:
        known = ", ".join(f"{value:g}" for value in sorted(counts.index)) or "not stated"
        there = f"{in_words_of(dim, 'ISO')} {known}"
        raise WorkbenchError(f"{folder.root} has no darks at {describe({dim: iso})} (there are {there})")
    if counts.size:
        wanted = counts.index[0] if iso is None else iso
        dark = dark.isel(frame=np.flatnonzero(dark[dim].values == wanted))
    return fit_dark_library(dark, bias, progress=progress)


def predict_master_dark(
    library: str | Path, out: str | Path, *, exposure: float, temperature: float = math.nan
) -> xr.Dataset:
    """Predict a master dark from a library file and write it as the masters of the workbench are; see `predict_dark`.

    Raises
    ------
    WorkbenchError
        If the file is not a library, does not reach that temperature, or the master cannot be written.
    """
    check_target(out, "FITS file", inputs=[library])
    master = predict_dark(open_dark_library(library), exposure, temperature)
    save_master(master.assign_attrs(key=""), out)
    return master
