"""A folder in, the plan for the next night out."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..core.errors import FrameReadError, WorkbenchError
from ..core.files import whole_file
from ..core.sensor_file import open_sensor
from ..core.values import is_simulated, value_text
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder
from ..plan.conditions import ELONGATION, background_rate, star_shapes, tracking
from ..plan.shots import ShotList, settable_above, shot_list, shutter
from ..plan.subs import PENALTY, hours, plan_subs, read_out_noise
from .characterization import characterize

SNR, TARGET = 10.0, 0.1


@dataclass(repr=False)
class Plan:
    """What `plan` worked out; a piece that these frames do not give is None, and a warning says what is missing.

    Attributes
    ----------
    camera, simulated
        Its name, and whether that says that the frames are simulated.
    shots
        What to shoot for a full characterisation (`workbench.plan.ShotList`).
    background, shapes, tracking
        What the lights tell: sky and dark current, the stars' shapes, the longest sub that the mount allows.
    subs
        The plan of subs at each ISO (`workbench.plan.plan_subs`).
    hours
        Over channel: ``hours`` for ``snr`` of a target of ``share`` of the sky's brightness, with error.
    sensor
        The measured sensor that it rests on.
    frame_counts, warnings
        Frames there are of each kind; what is doubtful or missing.
    """

    camera: str
    simulated: bool
    shots: ShotList
    background: xr.Dataset | None = None
    shapes: xr.Dataset | None = None
    tracking: xr.Dataset | None = None
    subs: xr.Dataset | None = None
    hours: xr.Dataset | None = None
    sensor: xr.Dataset | None = None
    frame_counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def charts(self) -> list[str]:
        """Name the charts of the registry that these frames give."""
        found = ["sub-length"] if self.subs is not None else []
        return found + (["star-elongation"] if self.tracking is not None else [])

    def lines(self) -> list[str]:
        """Return the results in words, one a line."""
        found = []
        if self.background is not None:
            back = self.background
            what = "sky" if np.isfinite(back["sky"]).all() else "rate"
            rates = ", ".join(
                f"{name} {value_text(*(float(back[key].sel(channel=name)) for key in (what, f'{what}_error')))}"
                for name in back["channel"].values
            )
            name = "sky" if what == "sky" else "sky and dark current"
            iso = f" of ISO {back.attrs['iso']:g}" if math.isfinite(back.attrs["iso"]) else ""
            found.append(f"{name} (from {back.attrs['frames']} lights{iso}): {rates} e-/s/pixel")
            if what == "sky":
                dark = value_text(float(back["dark"][0]), float(back["dark_error"][0]), "e-/s/pixel")
                found.append(f"dark current at the lights' {back.attrs['temperature']:.3g} °C: {dark}")
        if self.tracking is not None:
            track = self.tracking
            longest, error = float(track["longest"]), float(track["longest_error"])
            if track.attrs["limit"] or not track.attrs["several_exposures"]:
                found.append(f"the mount holds round stars for at least {longest:.0f} s")
            else:
                found.append(f"the mount holds round stars for {value_text(longest, error, 's')}")
        if self.subs is not None:
            subs = self.subs
            for row, iso in enumerate(subs["iso"].values):
                one = subs.isel(iso=row)
                mark = "→" if iso == subs.attrs["best_iso"] else " "
                setting = f"{mark} ISO {iso:g}: subs" if math.isfinite(iso) else "subs"
                length = value_text(float(one["length"]), float(one["length_error"]), "s")
                found.append(
                    f"{setting} of {length}, {100 * float(one['penalty']):.2g} % more noise than one "
                    f"endless exposure, {float(one['dynamic_range']):.1f} stops"
                )
        if self.hours is not None:
            worst = self.hours.isel(channel=int(np.nanargmax(self.hours["hours"].values)))
            time = value_text(float(worst["hours"]), float(worst["hours_error"]), "h")
            found.append(
                f"{time} for a signal-to-noise ratio of {self.hours.attrs['snr']:g} a pixel on a target of "
                f"{100 * self.hours.attrs['share']:.3g} % of the sky's brightness ({worst['channel'].item()})"
            )
        return found

    def _headline(self) -> str:
        camera = self.camera or "unknown camera"
        if self.subs is None:
            return f"{camera}: what to shoot next"
        iso, length = self.subs.attrs["best_iso"], self.subs.attrs["best_length"]
        best = value_text(length, self.subs.attrs["best_length_error"], "s")
        if not self.subs.attrs["met"]:
            return f"{camera}: {_at(iso)}subs of {best} (shorter than the noise asks for: the mount's limit)"
        mark = settable_above(length) if math.isfinite(iso) else None
        dial = "" if mark is None or math.isclose(mark, length, rel_tol=0.01) else f" ({shutter(mark)} on the dial)"
        return f"{camera}: {_at(iso)}subs of {best}{dial}"

    def __repr__(self) -> str:
        notes = [f"warning: {text}" for text in self.warnings]
        return "\n".join([self._headline(), *self.lines(), "", repr(self.shots), *notes])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.lines(), *self.warnings))
        return f"<p><b>{html.escape(self._headline())}</b></p><ul>{lines}</ul>{self.shots._repr_html_()}"


def _at(iso: float) -> str:
    return f"shoot at ISO {iso:g}, " if math.isfinite(iso) else "shoot "


def plan_night(
    folder: str | Path | Folder,
    sensor: str | Path | xr.Dataset | None = None,
    *,
    penalty: float = PENALTY,
    elongation: float = ELONGATION,
    snr: float = SNR,
    target: float = TARGET,
    longest: float | None = None,
    overhead: float = 5.0,
    progress: bool = True,
) -> Plan:
    """Work out what to shoot next: the frames that a full characterisation lacks, and ISO and length of the subs.

    Parameters
    ----------
    folder
        Frames, with lights among them for the sub length.
    sensor
        A ``sensor.json`` or what `open_sensor` gave; without it the folder is characterized first.
    penalty
        More noise than one endless exposure would have, as a share.
    elongation
        Long over short axis of stars that are still good enough.
    snr, target
        For the hours: the signal-to-noise ratio wanted of a pixel, on a target of this share of the sky's brightness.
    longest
        Longest sub [s], instead of what the lights say of the mount.
    overhead
        Pause between subs [s].
    progress
        False for no progress bar.

    Raises
    ------
    WorkbenchError
        If there are no frames, or the sensor file cannot be read.

    Examples
    --------
    >>> from workbench.pipelines import sample_folder
    >>> plan_night(sample_folder()).subs.attrs["best_iso"]                    # doctest: +SKIP
    """
    found = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    warnings: list[str] = []
    measured = sensor if isinstance(sensor, xr.Dataset) else None if sensor is None else open_sensor(sensor)
    if measured is None and any(found.has(kind) for kind in ("bias", "flat", "dark")):
        try:
            measured = characterize(found, progress=progress).sensor
        except WorkbenchError as error:
            warnings.append(str(error))
    camera = str(found.table["camera"].iloc[0])
    if measured is not None and measured.attrs["camera"] != camera:
        warnings.append(
            f"the sensor measured is a {measured.attrs['camera'] or 'camera not named'}, the frames are of a "
            f"{camera or 'camera not named'}: the plan holds for one camera only"
        )
    shots = shot_list(found, measured)
    result = Plan(camera, is_simulated(camera), shots, sensor=measured, warnings=warnings)
    result.frame_counts = {kind: found.count(kind) for kind in ("bias", "flat", "dark", "light")}
    if not found.has("light"):
        warnings.append(
            "no light frames: how long subs should be depends on the sky; shoot one light of a minute or more"
        )
        return result
    if measured is None or not np.isfinite(measured["gain"]).any():
        warnings.append(
            "the gain is not measured: sub lengths cannot be planned; characterize the camera from bias frames and "
            "pairs of flats"
        )
        return result
    _subs(result, found, penalty, elongation, longest, progress)
    if result.subs is not None:
        result.hours = _hours(result, snr, target, overhead)
    return result


def _subs(
    result: Plan, folder: Folder, penalty: float, elongation: float, longest: float | None, progress: bool
) -> None:
    """Measure the lights and plan the subs; what fails becomes a warning."""
    lights = folder.table[folder.table["kind"] == "light"]
    iso = lights["iso"].mode(dropna=False).iloc[0]
    usual = folder.select(kind="light", iso=iso) if math.isfinite(iso) else folder.select(kind="light")
    try:
        result.shapes = star_shapes(folder.light, progress=progress)
        result.tracking = tracking(result.shapes, elongation)
    except FrameReadError:
        raise
    except WorkbenchError as error:
        result.warnings.append(str(error))
    limit = longest
    if limit is None and result.tracking is not None:
        limit = _limit(result)
    try:
        result.background = background_rate(usual.light, result.sensor, progress=progress)
        result.warnings += result.background.attrs["warnings"]
        result.subs = plan_subs(result.sensor, result.background, penalty=penalty, longest=limit)
    except FrameReadError:
        raise
    except WorkbenchError as error:
        result.warnings.append(str(error))


def _limit(result: Plan) -> float | None:
    """Return the longest sub [s] that the lights vouch for, None for no limit but the usual one."""
    track = result.tracking
    longest = float(track["longest"])
    shot = float(np.nanmax(result.shapes["exposure"]))
    if track.attrs["limit"]:  # no drift seen: what was shot can be shot again, and more as far as the error reaches
        return None if longest > 600 else max(longest, shot)
    if not track.attrs["several_exposures"]:
        result.warnings.append(
            "the lights are of one exposure: how long the mount tracks is a lower limit; shoot a few of twice and four "
            "times the length"
        )
    return longest if longest > 0 else None


def _hours(result: Plan, snr: float, share: float, overhead: float) -> xr.Dataset:
    """Return the hours for a target of a share of the sky's brightness, in each channel at the best ISO."""
    subs, back = result.subs, result.background
    values, errors = [], []
    for channel in back["channel"].values:
        one = back.sel(channel=channel)
        sky = float(one["sky"]) if math.isfinite(float(one["sky"])) else float(one["rate"])
        if not sky > 0:
            values.append(math.nan)
            errors.append(math.nan)
            continue
        error = float(one["sky_error"]) if math.isfinite(float(one["sky_error"])) else float(one["rate_error"])
        rate = (float(one["rate"]), float(one["rate_error"]))
        noise = read_out_noise(result.sensor, subs.attrs["best_iso"], str(channel))
        time = hours(snr, (share * sky, share * error), rate, noise, subs.attrs["best_length"], overhead=overhead)
        values.append(time.value)
        errors.append(time.error)
    data: dict[str, Any] = {
        "hours": ("channel", values, {"units": "h", "long_name": "hours under the sky"}),
        "hours_error": ("channel", errors, {"units": "h", "long_name": "error of the hours"}),
    }
    return xr.Dataset(data, {"channel": back["channel"].values}, {"snr": snr, "share": share, "overhead": overhead})


def write_shots(result: Plan, out: str | Path) -> Path:
    """Write the shot list as ``shots.csv`` into a folder; returns its path."""
    path = Path(out) / "shots.csv"
    table = result.shots.table.rename(columns={"exposure": "exposure_s", "temperature": "temperature_c"})
    with whole_file(path) as part:
        table.to_csv(part, index=False)
    return path
