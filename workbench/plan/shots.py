"""The shot list: what a full characterisation of a camera needs, in shutter times and ISO settings that it has."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..core.dark import dark_current_at
from ..core.settings import in_words_of, setting_dim, setting_of_table
from ..core.values import shutter
from ..ingest.folder import Folder
from .conditions import saturates, saturation_time
from .shutter import settable

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.65)  # of saturation: of which a gain is fitted
GAIN_ERROR, READ_NOISE_ERROR = 0.01, 0.02  # wanted, as shares
BIAS, DARKS, CALIBRATION = 10, 4, 20  # frames of a kind below which rare pixels, or a master's noise, show
WARMER = 10.0  # K between the temperatures of darks
_TALLER = 1.5  # ratio within which two exposures are the same
_WITHIN = 2.0  # K
FULL_STOPS = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0)  # ISO
FASTEST = 1 / 8000  # s: of most shutters
FASTEST_WITHOUT_DIAL = 1 / 1000  # s: of most astronomical cameras
_NEAR = 1.22  # ratio of two settings nearer than a third of a stop, of which 100 and 125 are


@dataclass(frozen=True, repr=False)
class ShotList:
    """What to shoot.

    `table` has a row for each setting: ``kind``, ``iso`` or ``gain_setting``, ``exposure`` [s], ``temperature`` [°C];
    the numbers of frames ``wanted``, ``there`` and to ``shoot``; and ``why``.  `notes` list what could not be worked
    out.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> pd.DataFrame:
        """The rows of which frames are still to be shot."""
        return self.table[self.table["shoot"] > 0].reset_index(drop=True)

    def _shown(self) -> pd.DataFrame:
        """Return the table in words, the flats of a setting in one row."""
        rows = []
        dim = "gain_setting" if "gain_setting" in self.table else "iso"
        table = self.table.assign(part=np.where(self.table["kind"] == "flat", -1, np.arange(len(self.table))))
        for _, some in table.groupby(["kind", dim, "part"], sort=False, dropna=False):
            first = some.iloc[0]
            times = list(dict.fromkeys(filter(None, map(shutter, some["exposure"]))))
            rows.append(
                {
                    "kind": first["kind"],
                    in_words_of(dim, "ISO"): f"{first[dim]:g}" if math.isfinite(first[dim]) else "any",
                    "exposure": ", ".join(times),
                    "temperature": f"{first['temperature']:g} °C" if math.isfinite(first["temperature"]) else "",
                    "wanted": int(some["wanted"].sum()),
                    "there": int(np.minimum(some["there"], some["wanted"]).sum()) if len(some) > 1 else first["there"],
                    "to shoot": int(some["shoot"].sum()),
                    "what for": first["why"].split(":")[0] if len(some) > 1 else first["why"],
                }
            )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        text = self._shown().to_string(index=False)
        left = int(self.table["shoot"].sum())
        return "\n".join([text, f"{left} frames to shoot" if left else "nothing is missing", *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return self._shown().to_html(index=False, border=0) + (f"<ul>{notes}</ul>" if notes else "")


def bias_frames_needed(pixels: int, error: float = READ_NOISE_ERROR) -> int:
    """Return how many bias frames give the read noise of a channel of so many pixels to a relative error.

    The error of a standard deviation is 1/√(2ν); the ring of N frames has ν = 2N/3 degrees of freedom a pixel, two
    frames have one.

    Examples
    --------
    >>> bias_frames_needed(4_000_000), bias_frames_needed(256)
    (2, 8)
    """
    degrees = 1 / (2 * error**2) / pixels
    return 2 if degrees <= 1 else math.ceil(1.5 * degrees)


def flat_pairs_needed(pixels: int, error: float = GAIN_ERROR) -> int:
    """Return how many pairs of flats give the gain of a channel of so many pixels to a relative error.

    Var(s²)/s⁴ = 2/ν a pair, ν the number of pixels; pairs at several levels, read noise a small part, count alike.

    Examples
    --------
    >>> flat_pairs_needed(4_000_000), flat_pairs_needed(1024)
    (1, 20)
    """
    return max(1, math.ceil(2 / (error**2 * pixels)))


def shot_list(
    folder: Folder,
    sensor: xr.Dataset | None = None,
    *,
    isos: Sequence[float] | None = None,
    gain_error: float = GAIN_ERROR,
    read_noise_error: float = READ_NOISE_ERROR,
) -> ShotList:
    """List what a full characterisation of this camera needs, what is there, and what is missing.

    Bias frames and pairs of flats at six levels at each ISO or gain setting, darks of three exposures and of two more
    temperatures, one overexposed frame, and darks for the lights that are there.  How many: what the statistics of this
    frame size ask for, and no fewer than ten bias frames, two flats a level and four darks, in which rare pixels show.
    The flats' exposures bring the brightest colour to 2 to 65 % of saturation, reckoned from the flats that are there,
    and are such as a camera has; where they would be shorter, the lamp is to be dimmed.

    Parameters
    ----------
    sensor
        From `open_sensor`: what is measured so far.  Its errors say where more frames are needed than the statistics of
        pixels do.
    isos
        Settings wanted, ISO or gain settings; by default those of the frames that are there, and of ISO the full stops
        from 100 to 6400 that are more than a third of a stop from any of them.
    gain_error, read_noise_error
        Wanted, as shares.

    Examples
    --------
    >>> from workbench.simulate import sample_folder
    >>> from workbench.ingest import open_folder
    >>> shot_list(open_folder(sample_folder())).missing                  # doctest: +SKIP
    """
    dim = setting_of_table(folder.table)
    table = folder.table.assign(setting=folder.table.get(dim, math.nan))
    wanted = _settings_wanted(table["setting"].dropna(), dim) if isos is None else sorted(isos)
    colours = 1 if (table["cfa_pattern"] == "mono").all() else 4
    pixels = int(table["height"].iloc[0]) * int(table["width"].iloc[0]) // colours
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for setting in wanted:
        statistics = bias_frames_needed(pixels, read_noise_error)
        need = max(BIAS, _more(sensor, setting, "read_noise", read_noise_error, statistics))
        why = f"black level and read noise to {100 * read_noise_error:g} %"
        rows.append(_row(table, "bias", setting, 0.0, math.nan, need, why))
    folder = replace(folder, table=table)
    rows += _flats(folder, sensor, _saturation_times(folder, sensor, wanted, dim), pixels, gain_error, notes)
    rows += _darks(table, sensor, notes)
    if not saturates(folder):
        why = "overexposed, of anything; where the camera clips"
        rows.append(_row(table, "light", math.nan, math.nan, math.nan, 1, why) | {"there": 0, "shoot": 1})
    rows += _calibration(table)
    return ShotList(pd.DataFrame(rows).rename(columns={"setting": dim}), tuple(notes))


def _settings_wanted(used: Iterable[float], dim: str) -> list[float]:
    """Return the settings in use, and the full stops of ISO that none of them is near; NaN alone where none was seen.

    Gain settings have no such stops.
    """
    own = sorted({float(iso) for iso in used})
    if own and dim != "iso":
        return own
    near = {iso for iso in FULL_STOPS for seen in own if max(iso / seen, seen / iso) <= _NEAR}
    return sorted({*own, *FULL_STOPS} - (near - set(own))) if own else [math.nan]


def _row(
    table: pd.DataFrame, kind: str, setting: float, exposure: float, temperature: float, wanted: int, why: str
) -> dict[str, Any]:
    """Return a row with the frames that are there counted: of that kind, setting, exposure and temperature."""
    fits = (table["kind"] == kind).to_numpy(copy=True)
    if math.isfinite(setting):
        fits &= np.isclose(table["setting"].to_numpy(float), setting)
    if exposure > 0:
        ratio = table["exposure"].to_numpy(float) / exposure
        fits &= (ratio > 1 / _TALLER**0.5) & (ratio < _TALLER**0.5)
    if math.isfinite(temperature):
        fits &= np.abs(table["temperature"].to_numpy(float) - temperature) <= _WITHIN
    there = int(fits.sum())
    return {
        "kind": kind, "setting": float(setting), "exposure": float(exposure), "temperature": float(temperature),
        "wanted": wanted, "there": there, "shoot": max(0, wanted - there), "why": why,
    }  # fmt: skip


def _at(sensor: xr.Dataset | None, setting: float) -> xr.Dataset | None:
    """Return what is measured at a setting."""
    dim = None if sensor is None else setting_dim(sensor)
    if sensor is None or dim not in sensor.dims or setting not in sensor[dim].values:
        return None
    return sensor.sel({dim: setting})


def _more(sensor: xr.Dataset | None, setting: float, name: str, error: float, needed: int) -> int:
    """Return how many frames are needed where the error measured so far says more than the statistics of pixels."""
    one = _at(sensor, setting)
    share = math.nan if one is None else _share(one, name)
    if one is None or not math.isfinite(share):
        return needed
    frames = int(one["bias_frames" if name == "read_noise" else "flat_frames"].max())
    return max(needed, math.ceil(frames * (share / error) ** 2))


def _share(one: xr.Dataset, name: str) -> float:
    """Return the greatest relative error of a quantity over the channels; NaN where it is not measured."""
    shares = (one[f"{name}_error"] / one[name]).values
    return float(np.nanmax(shares)) if np.isfinite(shares).any() else math.nan


def _saturation_times(
    folder: Folder, sensor: xr.Dataset | None, settings: Sequence[float], dim: str
) -> dict[float, float]:
    """Return the exposure [s] that saturates the flats' brightest colour at each setting; NaN where it is not known.

    By the ISO from the flats of all; a gain setting from its own flats, or another's and the measured e⁻/ADU of both.
    """
    if dim == "iso":
        speed = saturation_time(folder)
        return {iso: speed * 100 / (iso if math.isfinite(iso) else 100) for iso in settings}
    flats = folder.table["kind"] == "flat"
    times = {
        one: saturation_time(replace(folder, table=folder.table[flats & (folder.table["setting"] == one)]))
        for one in settings
    }
    gains = {one: math.nan if (at := _at(sensor, one)) is None else float(at["gain"].mean()) for one in settings}
    rates = [times[one] / gains[one] for one in settings if math.isfinite(times[one] / gains[one])]
    rate = float(np.median(rates)) if rates else math.nan
    return {one: times[one] if math.isfinite(times[one]) else rate * gains[one] for one in settings}


def _flats(
    folder: Folder, sensor: xr.Dataset | None, full: dict[float, float], pixels: int, error: float, notes: list[str]
) -> list[dict[str, Any]]:
    """Return the rows of pairs of flats at six levels of each setting; what could not be worked out joins the notes.

    `full` [s] is the time to saturation by the setting.
    """
    table = folder.table
    dial = bool(np.isfinite([*full]).any()) and setting_of_table(table) == "iso"
    if math.isnan(min(full.values())):
        notes.append(_why_no_level(table, min(full), dial))
    known = table["exposure"][table["exposure"] > 0]
    fastest = min([FASTEST if dial else FASTEST_WITHOUT_DIAL, *known])
    pairs = max(1, math.ceil(flat_pairs_needed(pixels, error) / len(LEVELS)))
    rows, dimmed = [], False
    for setting, time in full.items():
        each = max(2 * pairs, 2 * math.ceil(_more(sensor, setting, "gain", error, 0) / len(LEVELS) / 2))
        same = np.isclose(table["setting"].to_numpy(float), setting) | math.isnan(setting)
        dimmer = math.log2(fastest / (LEVELS[0] * time))  # in stops, so that the shortest exposure can be set
        stops = 0 if math.isnan(time) else max(0, math.ceil(dimmer - 0.02))
        lamp = f", the lamp {stops} {'stop' if stops == 1 else 'stops'} dimmer" if stops else ""
        why = f"gain to {100 * error:g} %{lamp}"
        own = _flats_of_setting(table[(table["kind"] == "flat") & same], setting, time * 2**stops, each, why, dial)
        at = _at(sensor, setting)
        if at is not None and _share(at, "gain") <= error:  # however the light was varied: exposure or lamp
            own = [row | {"there": max(row["there"], row["wanted"]), "shoot": 0} for row in own]
        dimmed |= stops > 0 and any(row["shoot"] for row in own)
        rows += own
    if dimmed:
        notes.append(
            f"where the lamp is to be dimmed, flats would need less than {shutter(fastest)}: a dimmer, sheets of white "
            "paper before the lens or a smaller aperture do; a stop is a factor of two"
        )
    return rows


def _why_no_level(table: pd.DataFrame, setting: float, dial: bool) -> str:
    """Say what is missing to reckon the exposures of flats."""
    if (table["kind"] == "flat").any() and table["white_level"].isna().all():
        return (
            "at which level the camera clips is not known, so that the flats' exposures cannot be reckoned: shoot them "
            "from a histogram at its left end to one near its right end, or give white_level in frames.csv"
        )
    at = f"at ISO {setting:g} " if dial else ""
    return (
        f"how bright the flats' lamp is shows once there is a flat: shoot one {at}with the peak of the histogram in "
        "the middle, and plan again"
    )


def _flats_of_setting(
    have: pd.DataFrame, setting: float, full: float, each: int, why: str, dial: bool
) -> list[dict[str, Any]]:
    """Return one row a level of the flats of a setting; `full` [s] is the time to saturation, NaN where not known."""
    rows = []
    for level in LEVELS:
        exposure = settable(level * full, dial)
        row = _row(have, "flat", setting, exposure, math.nan, each, f"{why}: {100 * level:.0f} % of saturation")
        rows.append(row | {"there": 0, "shoot": each} if math.isnan(full) else row)
    # other levels will do as well: six of them with two frames each
    times = have.groupby("exposure").size()
    enough = int((times >= 2).sum()) >= len(LEVELS)
    if enough and (math.isnan(full) or times.index.max() < 1.4 * rows[-1]["exposure"] / LEVELS[-1]):
        for row in rows:
            row.update(there=max(row["there"], row["wanted"]), shoot=0)
    return rows


def _darks(table: pd.DataFrame, sensor: xr.Dataset | None, notes: list[str]) -> list[dict[str, Any]]:
    """Return the rows of darks for dark current and its law: three exposures, the longest at two more temperatures."""
    own = table[table["kind"] == "dark"]
    dial = setting_of_table(table) == "iso" and bool(table["setting"].notna().any())
    setting, longest, room = _dark_setting(table, dial)
    here = own[np.isclose(own["setting"].to_numpy(float), setting, equal_nan=True)]
    if math.isfinite(room):
        here = here[(here["temperature"] - room).abs() <= _WITHIN]
    times = here.groupby("exposure").size()
    times = times[times >= 2].index.to_numpy(float)
    longest = max(longest, 60.0, *times)
    if sensor is not None and math.isfinite(room):
        rate, _ = dark_current_at(sensor, room)
        # the dark signal of the longest should exceed the read noise, or its growth does not show
        if rate > 0 and rate * longest < 10:
            longest = settable(min(1200.0, 10 / rate))
    rows = []
    for target in (settable(longest / 10, dial), settable(longest / 3, dial), longest):
        near = times[np.abs(np.log(times / target)) < math.log(2)]  # another exposure will do as well
        exposure = float(near[np.argmin(np.abs(np.log(near / target)))]) if near.size else target
        rows.append(_row(own, "dark", setting, exposure, room, DARKS, "dark current: its growth with time"))
    if math.isnan(room):
        notes.append(
            "no frame records the sensor's temperature: put darks into folders named by it (20C, 10C), the camera left "
            "for half an hour to settle"
        )
        room = 20.0
    others = [value for value in sorted(own["temperature"].dropna().unique()) if abs(value - room) >= WARMER / 2]
    for wanted in (room - WARMER, room - 2 * WARMER):
        value = next((value for value in others if abs(value - wanted) < WARMER / 2 + 1e-9), wanted)
        rows.append(_row(own, "dark", setting, longest, value, DARKS, "dark law: its doubling temperature"))
    return rows


def _dark_setting(table: pd.DataFrame, dial: bool) -> tuple[float, float, float]:
    """Return setting, longest exposure [s] and usual temperature [°C] of the lights, else of darks, else a guess."""
    lights, darks = (table[table["kind"] == kind] for kind in ("light", "dark"))
    chosen = lights if len(lights) else darks
    setting, longest = 800.0 if dial else math.nan, 300.0
    if len(chosen):
        setting, longest = _usual(chosen["setting"]), float(chosen["exposure"].max())
    known = pd.concat([darks["temperature"], lights["temperature"]]).dropna()
    return setting, longest if math.isfinite(longest) else 300.0, _usual(known)


def _usual(values: pd.Series) -> float:
    """Return the most frequent known value, NaN where none is known."""
    known = values.dropna().mode()
    return float(known.iloc[0]) if len(known) else math.nan


def _calibration(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of darks for the lights that are there: of their setting, exposure and temperature."""
    why = "calibration: the lights' own master dark"
    groups = table[table["kind"] == "light"].groupby(["setting", "exposure"], dropna=False)["temperature"].mean()
    return [
        _row(table, "dark", setting, exposure, temperature, CALIBRATION, why)
        for (setting, exposure), temperature in groups.items()
    ]
