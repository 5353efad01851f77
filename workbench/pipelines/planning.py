"""A folder in, the plan for the next night out."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.files import whole_file
from ..core.sensor_file import open_sensor
from ..core.settings import TITLES, setting_dim, setting_of_table
from ..core.values import describe, is_simulated, shutter, value_text
from ..ingest.catalogue import open_folder
from ..ingest.folder import Folder, of_one_camera
from ..plan.conditions import ELONGATION, background_rate, star_shapes, tracking
from ..plan.shots import ShotList, shot_list
from ..plan.shutter import settable_above
from ..plan.subs import OVERHEAD, PENALTY, plan_subs, target_hours
from .characterization import characterize
from .measurement import MEASURED, as_warning, set_aside_lines


class PlanSettings(NamedTuple):
    """What a plan aims at, and what limits it.

    Attributes
    ----------
    penalty
        More noise than one endless exposure would have, as a share.
    elongation
        Long over short axis of stars that are still good enough.
    snr, target
        For the hours: the signal-to-noise ratio of a pixel, on a target of this share of the sky's brightness.
    longest
        Longest sub [s], instead of what the lights allow.
    overhead
        Pause between subs [s].
    pixels
        For the hours: over how many pixels of the stack one averages.
    """

    penalty: float = PENALTY
    elongation: float = ELONGATION
    snr: float = 10.0
    target: float = 0.1
    longest: float | None = None
    overhead: float = OVERHEAD
    pixels: float = 1.0


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
        Measured on the lights: sky and dark current, the stars' shapes, the longest sub that the mount allows.
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
        return [*self._sky_lines(), *self._sub_lines()]

    def _sky_lines(self) -> list[str]:
        """Return what the lights show of the sky and the mount."""
        lines = []
        if self.background is not None:
            back = self.background
            known = bool(np.isfinite(back["sky"]).all())
            what, name = ("sky", "sky") if known else ("rate", "sky and dark current")
            rates = ", ".join(
                f"{channel} {_text(back.sel(channel=channel), what)}" for channel in back["channel"].values
            )
            stated = {name: back.attrs[name] for name in TITLES if math.isfinite(back.attrs.get(name, math.nan))}
            setting = f" of {describe(stated)}" if stated else ""
            lines.append(f"{name} (from {back.attrs['frames']} lights{setting}): {rates} e⁻/s/pixel")
            if known:
                dark = _text(back.isel(channel=0), "dark", "e⁻/s/pixel")
                lines.append(f"dark current at the lights' {back.attrs['temperature']:.3g} °C: {dark}")
        if self.tracking is not None:
            lower = self.tracking.attrs["limit"] or not self.tracking.attrs["several_exposures"]
            longest = (
                f"at least {float(self.tracking['longest']):.0f} s" if lower else _text(self.tracking, "longest", "s")
            )
            lines.append(f"the mount holds round stars for {longest}")
        return lines

    def _sub_lines(self) -> list[str]:
        """Return the subs of each ISO, and the hours."""
        lines = []
        if self.subs is not None:
            dim = setting_dim(self.subs)
            for row, iso in enumerate(self.subs[dim].values):
                one = self.subs.isel({dim: row})
                stops = float(one["dynamic_range"])
                mark = "→" if iso == self.subs.attrs["best_iso"] else " "
                setting = f"{mark} {describe({dim: iso})}: subs" if math.isfinite(iso) else "subs"
                lines.append(
                    f"{setting} of {_text(one, 'length', 's')}, {100 * float(one['penalty']):.2g} % more noise than "
                    "one endless exposure" + (f", {stops:.1f} stops" if math.isfinite(stops) else "")
                )
            if not np.isfinite(self.subs["dynamic_range"]).any():
                lines.append(
                    "the dynamic range is not known: no file states a white level (column white_level of frames.csv); "
                    "all settings are taken to end at the same number"
                )
        if self.hours is not None:
            worst, about = self.hours.isel(channel=int(np.nanargmax(self.hours["hours"].values))), self.hours.attrs
            lines.append(
                f"{_text(worst, 'hours', 'h')}, {about['overhead']:g} s between subs, for a signal-to-noise ratio of "
                f"{about['snr']:g} {_over(about['pixels'])} on a target of {100 * about['share']:.3g} % of the sky's "
                f"brightness ({worst['channel'].item()})"
            )
        return lines

    def _headline(self) -> str:
        camera = self.camera or "unknown camera"
        if self.subs is None:
            return f"{camera}: what to shoot next"
        iso, length = self.subs.attrs["best_iso"], self.subs.attrs["best_length"]
        dim = setting_dim(self.subs)
        best = value_text(length, self.subs.attrs["best_length_error"], "s")
        if not self.subs.attrs["met"]:
            return f"{camera}: {_at(dim, iso)}subs of {best} (shorter than the noise asks for: the mount's limit)"
        mark = settable_above(length) if math.isfinite(iso) and dim == "iso" else None
        dial = "" if mark is None or math.isclose(mark, length, rel_tol=0.01) else f" ({shutter(mark)} on the dial)"
        return f"{camera}: {_at(dim, iso)}subs of {best}{dial}"

    def __repr__(self) -> str:
        notes = [f"warning: {text}" for text in self.warnings]
        return "\n".join([self._headline(), *self.lines(), "", repr(self.shots), *notes])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(text)}</li>" for text in (*self.lines(), *self.warnings))
        return f"<p><b>{html.escape(self._headline())}</b></p><ul>{lines}</ul>{self.shots._repr_html_()}"


def _over(pixels: float) -> str:
    return "a pixel" if pixels == 1 else f"of the mean of {pixels:g} pixels of the stack"


def _text(data: xr.Dataset, name: str, unit: str = "") -> str:
    """Return a quantity of a Dataset with its error."""
    return value_text(float(data[name]), float(data[f"{name}_error"]), unit)


def _at(dim: str, setting: float) -> str:
    return f"shoot at {describe({dim: setting})}, " if math.isfinite(setting) else "shoot "


def _of_another_camera(measured: xr.Dataset | None, camera: str) -> list[str]:
    """Return a warning where the sensor measured is not of the frames' camera."""
    if measured is None or measured.attrs["camera"] == camera:
        return []
    return [
        f"the sensor measured is a {measured.attrs['camera'] or 'camera not named'}, the frames are of a "
        f"{camera or 'camera not named'}: the plan holds for one camera only"
    ]


def plan_night(
    folder: str | Path | Folder,
    sensor: str | Path | xr.Dataset | None = None,
    *,
    progress: bool = True,
    **settings: Any,
) -> Plan:
    """Work out what to shoot next: the frames that a full characterisation lacks, and ISO and length of the subs.

    Parameters
    ----------
    folder
        Frames, with lights among them for the sub length.
    sensor
        A ``sensor.json`` or what `open_sensor` gave; without it the folder is characterized first.
    **settings
        Those of `PlanSettings`: ``penalty``, ``elongation``, ``snr``, ``target``, ``longest`` [s], ``overhead`` [s],
        ``pixels``.

    Raises
    ------
    WorkbenchError
        If the folder has no frames, or the sensor file cannot be read.

    Examples
    --------
    >>> from workbench import sample_folder
    >>> plan_night(sample_folder()).subs.attrs["best_iso"]                    # doctest: +SKIP
    """
    wanted = PlanSettings(**settings)
    frames = folder if isinstance(folder, Folder) else open_folder(folder, progress=progress)
    warnings: list[str] = []
    measured = sensor if isinstance(sensor, xr.Dataset) or sensor is None else open_sensor(sensor)
    if frames.has("light"):
        frames = of_one_camera(frames, ["light"], MEASURED)
    if measured is None and any(map(frames.has, MEASURED)):
        with as_warning(warnings):
            measured = characterize(frames, progress=progress).sensor
    camera = str(frames.table["camera"].iloc[0])
    warnings += _of_another_camera(measured, camera)
    frames = _with_white_level(frames, measured)
    plan = Plan(camera, is_simulated(camera), shot_list(frames, measured), sensor=measured, warnings=warnings)
    plan.frame_counts = {kind: frames.count(kind) for kind in (*MEASURED, "light")}
    if not frames.has("light"):
        warnings.append(
            "no light frames: how long subs should be depends on the sky; shoot one light of a minute or more"
        )
    elif measured is None or not np.isfinite(measured["gain"]).any():
        warnings.append(
            "the gain is not measured: sub lengths cannot be planned; characterize the camera from bias frames and "
            "pairs of flats"
        )
    else:
        _, frames = frames.without_unreadable(
            lambda frames: _plan_subs(plan, measured, frames, wanted, progress), "light"
        )
        if plan.subs is not None and plan.background is not None:
            plan.hours = target_hours(
                measured, plan.subs, plan.background, wanted.target, wanted.snr, overhead=wanted.overhead,
                pixels=wanted.pixels,
            )  # fmt: skip
    warnings += set_aside_lines(frames)
    return plan


def _with_white_level(frames: Folder, sensor: xr.Dataset | None) -> Folder:
    """Fill in the white level of files that state none, where codes in steps show that a converter ends at 65536."""
    step = 1 if sensor is None else int(sensor.attrs.get("code_step", 1))
    if step == 1:
        return frames
    return replace(frames, table=frames.table.assign(white_level=frames.table["white_level"].fillna(65536.0 - step)))


def _plan_subs(plan: Plan, sensor: xr.Dataset, folder: Folder, wanted: PlanSettings, progress: bool) -> None:
    """Measure the lights and plan the subs; what fails becomes a warning."""
    lights = folder.table[folder.table["kind"] == "light"]
    dim = setting_of_table(lights)
    most = lights[dim].mode(dropna=False).iloc[0]
    usual = folder.select(kind="light", **({dim: most} if math.isfinite(most) else {}))
    warnings: list[str] = []
    with as_warning(warnings):
        plan.shapes = star_shapes(folder.light, progress=progress)
        plan.tracking = tracking(plan.shapes, wanted.elongation)
    longest = wanted.longest
    if longest is None and plan.tracking is not None and plan.shapes is not None:
        longest = _limit(plan.tracking, plan.shapes, warnings)
    with as_warning(warnings):
        plan.background = background_rate(usual.light, sensor, progress=progress)
        warnings += plan.background.attrs["warnings"]
        plan.subs = plan_subs(sensor, plan.background, penalty=wanted.penalty, longest=longest)
    plan.warnings += warnings


def _limit(track: xr.Dataset, shapes: xr.Dataset, warnings: list[str]) -> float | None:
    """Return the longest sub [s] that the lights allow; None for the usual limit."""
    longest = float(track["longest"])
    shot = float(np.nanmax(shapes["exposure"]))
    if track.attrs["limit"]:  # no drift seen: what was shot can be shot again, and more as far as the error reaches
        return None if longest > 600 else max(longest, shot)
    if not track.attrs["several_exposures"]:
        warnings.append(
            "the lights are of one exposure: how long the mount tracks is a lower limit; shoot a few of twice and four "
            "times the length"
        )
    return longest if longest > 0 else None


def write_shots(result: Plan, out: str | Path) -> Path:
    """Write the shot list as ``shots.csv`` into a folder; returns its path."""
    path = Path(out) / "shots.csv"
    table = result.shots.table.rename(columns={"exposure": "exposure_s", "temperature": "temperature_c"})
    with whole_file(path) as part:
        table.to_csv(part, index=False)
    return path
