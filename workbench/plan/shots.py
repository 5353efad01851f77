"""The shot list: what a full characterisation of a camera needs, what is there, and what is missing."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..core.dark import dark_current_at
from ..core.errors import FrameReadError
from ..ingest.catalogue import Folder
from ..ingest.reader import read_frame
from .shutters import FASTEST, FASTEST_WITHOUT_DIAL, isos_wanted, settable, shutter, stops_too_bright

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.65)  # of saturation: of which a gain is fitted
GAIN_ERROR, READ_NOISE_ERROR = 0.01, 0.02  # wanted, as shares
BIAS, DARKS, CALIBRATION = 10, 4, 20  # frames of a kind below which rare pixels, or a master's noise, show
WARMER = 10.0  # K between the temperatures of darks
_TALLER = 1.5  # ratio within which two exposures are the same
_WITHIN = 2.0  # K


@dataclass(frozen=True, repr=False)
class ShotList:
    """What to shoot: `table` has a row for each setting, ``kind``, ``iso``, ``exposure`` [s], ``temperature`` [°C],
    ``wanted``, ``there``, ``shoot`` (frames) and ``why``; `notes` say what could not be worked out."""

    table: pd.DataFrame
    notes: tuple[str, ...] = field(default=())

    @property
    def missing(self) -> pd.DataFrame:
        """The rows of which frames are still to be shot."""
        return self.table[self.table["shoot"] > 0].reset_index(drop=True)

    def _shown(self) -> pd.DataFrame:
        """Return the table in words, the flats of an ISO in one row."""
        rows = []
        table = self.table.assign(part=np.where(self.table["kind"] == "flat", -1, np.arange(len(self.table))))
        for _, some in table.groupby(["kind", "iso", "part"], sort=False, dropna=False):
            first = some.iloc[0]
            times = list(dict.fromkeys(filter(None, map(shutter, some["exposure"]))))
            rows.append(
                {
                    "kind": first["kind"],
                    "ISO": f"{first['iso']:g}" if math.isfinite(first["iso"]) else "any",
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

    Bias frames and pairs of flats at six levels at each ISO, darks of three exposures and of two more temperatures, one
    overexposed frame, and darks and flats for the lights that are there.  How many: what the statistics of this frame
    size ask for, and no fewer than ten bias frames, two flats a level and four darks, in which rare pixels show.  The
    flats' exposures bring the brightest colour to 2 to 65 % of saturation, reckoned from the flats that are there, and
    are such as a camera has; where they would be shorter, the lamp is to be dimmed.

    Parameters
    ----------
    folder
        From `open_folder`.
    sensor
        From `open_sensor`: what is measured so far.  Its errors say where more frames are needed than the statistics of
        pixels do.
    isos
        Settings wanted; by default those of the frames that are there, and the full stops from 100 to 6400 that are no
        nearer to one of them than a third of a stop.
    gain_error, read_noise_error
        Wanted, as shares.

    Examples
    --------
    >>> from workbench.pipelines import sample_folder
    >>> from workbench.ingest import open_folder
    >>> shot_list(open_folder(sample_folder())).missing                  # doctest: +SKIP
    """
    table = folder.table
    wanted = isos_wanted(table["iso"].dropna()) if isos is None else sorted(isos)
    pixels = int(table["height"].iloc[0]) * int(table["width"].iloc[0]) // (1 if _mono(table) else 4)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for iso in wanted:
        need = max(
            BIAS, _more(sensor, iso, "read_noise", read_noise_error, bias_frames_needed(pixels, read_noise_error))
        )
        why = f"black level and read noise to {100 * read_noise_error:g} %"
        rows.append(_row(table, "bias", iso, 0.0, math.nan, need, why))
    rows += _flats(folder, sensor, wanted, pixels, gain_error, notes)
    rows += _darks(table, sensor, notes)
    if not _saturated(folder):
        row = _row(table, "light", math.nan, math.nan, math.nan, 1, "overexposed, of anything; where the camera clips")
        rows.append(row | {"there": 0, "shoot": 1})
    rows += _calibration(table, pixels)
    return ShotList(pd.DataFrame(rows), tuple(notes))


def _mono(table: pd.DataFrame) -> bool:
    return bool((table["cfa_pattern"] == "mono").all())


def _row(
    table: pd.DataFrame, kind: str, iso: float, exposure: float, temperature: float, wanted: int, why: str
) -> dict[str, Any]:
    """Return a row with the frames that are there counted: of that kind, ISO, about that exposure and temperature."""
    fits = (table["kind"] == kind).to_numpy(copy=True)
    if math.isfinite(iso):
        fits &= np.isclose(table["iso"].to_numpy(float), iso)
    if exposure > 0:
        ratio = table["exposure"].to_numpy(float) / exposure
        fits &= (ratio > 1 / _TALLER**0.5) & (ratio < _TALLER**0.5)
    if math.isfinite(temperature):
        fits &= np.abs(table["temperature"].to_numpy(float) - temperature) <= _WITHIN
    there = int(fits.sum())
    return {
        "kind": kind, "iso": float(iso), "exposure": float(exposure), "temperature": float(temperature),
        "wanted": wanted, "there": there, "shoot": max(0, wanted - there), "why": why,
    }  # fmt: skip


def _more(sensor: xr.Dataset | None, iso: float, name: str, error: float, needed: int) -> int:
    """Return how many frames are needed where the error measured so far says more than the statistics of pixels."""
    if sensor is None or iso not in sensor["iso"].values:
        return needed
    one = sensor.sel(iso=iso)
    share = np.nanmax((one[f"{name}_error"] / one[name]).values) if np.isfinite(one[name]).any() else math.nan
    frames = int(one["bias_frames" if name == "read_noise" else "flat_frames"].max())
    if not (math.isfinite(share) and frames > 0):
        return needed
    return max(needed, math.ceil(frames * (share / error) ** 2))


def _flats(
    folder: Folder, sensor: xr.Dataset | None, isos: Sequence[float], pixels: int, error: float, notes: list[str]
) -> list[dict[str, Any]]:
    table = folder.table
    speed = saturation_time(folder)
    pairs = max(1, math.ceil(flat_pairs_needed(pixels, error) / len(LEVELS)))
    rows = []
    has_iso = bool(np.isfinite(isos).any())
    if math.isnan(speed):
        setting = f"at ISO {np.nanmin(isos):g} " if has_iso else ""
        notes.append(
            f"how bright the flats' lamp is shows once there is a flat: shoot one {setting}with the peak of the "
            "histogram in the middle, and plan again"
        )
    known = table["exposure"][table["exposure"] > 0]
    fastest = min([FASTEST if has_iso else FASTEST_WITHOUT_DIAL, *known])
    dimmed = False
    for iso in isos:
        each = 2 * pairs
        total = _more(sensor, iso, "gain", error, 0)
        if total:
            each = max(each, 2 * math.ceil(total / len(LEVELS) / 2))
        same = np.isclose(table["iso"].to_numpy(float), iso) | math.isnan(iso)
        have = table[(table["kind"] == "flat") & same]
        full = speed * 100 / (iso if math.isfinite(iso) else 100)  # s to saturation
        stops = 0 if math.isnan(speed) else stops_too_bright(LEVELS[0] * full, fastest)
        lamp = f", the lamp {stops} {'stop' if stops == 1 else 'stops'} dimmer" if stops else ""
        for level in LEVELS:
            exposure = settable(level * full * 2**stops, has_iso)
            why = f"gain to {100 * error:g} %{lamp}: {100 * level:.0f} % of saturation"
            if math.isnan(speed):
                rows.append(_row(have, "flat", iso, math.nan, math.nan, each, why) | {"there": 0, "shoot": each})
            else:
                rows.append(_row(have, "flat", iso, exposure, math.nan, each, why))
        # other levels will do as well: six of them with two frames each
        times = have.groupby("exposure").size()
        good = int((times >= 2).sum())
        if good >= len(LEVELS) and (math.isnan(speed) or times.index.max() < 1.4 * rows[-1]["exposure"] / LEVELS[-1]):
            for row in rows[-len(LEVELS) :]:
                row.update(there=max(row["there"], row["wanted"]), shoot=0)
        dimmed |= stops > 0 and any(row["shoot"] for row in rows[-len(LEVELS) :])
    if dimmed:
        notes.append(
            f"where the lamp is to be dimmed, flats would need less than {shutter(fastest)}: a dimmer, sheets of white "
            "paper before the lens or a smaller aperture do; a stop is a factor of two"
        )
    return rows


def saturation_time(folder: Folder) -> float:
    """Return the exposure [s] at ISO 100 at which the flats' brightest colour would saturate; NaN without flats.

    From the flat whose 90th percentile lies highest below 90 % of the white level, with the black level of its file.
    """
    best, found = 0.0, math.nan
    flats = folder.table[folder.table["kind"] == "flat"].dropna(subset=["exposure"])
    flats = flats.assign(iso=flats["iso"].fillna(100))
    flats = flats.sort_values(["iso", "exposure"]).drop_duplicates(["iso", "exposure", "aperture"])
    for row in flats.itertuples():
        if best > 0.5 or not row.exposure > 0:  # bright enough for a good estimate
            break
        try:
            frame = read_frame(row.path)[::4, ::4] if min(row.height, row.width) > 256 else read_frame(row.path)
        except FrameReadError:
            continue
        black = np.nan_to_num(np.asarray(row.black_level, float)).mean()
        room = row.white_level - black
        level = (float(np.quantile(frame, 0.9)) - black) / room
        if best < level < 0.9:
            best, found = level, row.exposure * row.iso / 100 / level
    return found


def _darks(table: pd.DataFrame, sensor: xr.Dataset | None, notes: list[str]) -> list[dict[str, Any]]:
    """Darks for dark current and its law: three exposures at one temperature, the longest at two others."""
    lights = table[table["kind"] == "light"]
    own = table[table["kind"] == "dark"]
    if len(lights):
        iso, longest = _usual(lights["iso"]), float(lights["exposure"].max())
    elif len(own):
        iso, longest = _usual(own["iso"]), float(own["exposure"].max())
    else:
        iso, longest = 800.0 if table["iso"].notna().any() else math.nan, 300.0
    longest = longest if math.isfinite(longest) else 300.0
    known = pd.concat([own["temperature"], lights["temperature"]]).dropna()
    room = _usual(known)
    here = own[np.isclose(own["iso"].to_numpy(float), iso, equal_nan=True)]
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
    dial = bool(table["iso"].notna().any())
    for target in (settable(longest / 10, dial), settable(longest / 3, dial), longest):
        near = times[np.abs(np.log(times / target)) < math.log(2)]  # another exposure will do as well
        exposure = float(near[np.argmin(np.abs(np.log(near / target)))]) if near.size else target
        rows.append(_row(own, "dark", iso, exposure, room, DARKS, "dark current: its growth with time"))
    if math.isnan(room):
        notes.append(
            "no frame records the sensor's temperature: put darks into folders named by it (20C, 10C), the camera left "
            "for half an hour to settle"
        )
        room = 20.0
    temperatures = sorted(own["temperature"].dropna().unique())
    others = [value for value in temperatures if abs(value - room) >= WARMER / 2]
    for step in (-WARMER, -2 * WARMER):
        near = [value for value in others if abs(value - (room + step)) < WARMER / 2 + 1e-9]
        value = near[0] if near else room + step
        rows.append(_row(own, "dark", iso, longest, value, DARKS, "dark law: its doubling temperature"))
    return rows


def _usual(values: pd.Series) -> float:
    """Return the most frequent known value, NaN where none is known."""
    known = values.dropna().mode()
    return float(known.iloc[0]) if len(known) else math.nan


def _saturated(folder: Folder) -> bool:
    """Tell whether the longest exposed flat or light reaches the white level."""
    table = folder.table[folder.table["kind"].isin(["flat", "light"])].copy()
    if not len(table):
        return False
    table["light"] = table["exposure"].fillna(0) * table["iso"].fillna(100)
    for row in table.sort_values("light", ascending=False).head(3).itertuples():
        try:
            if np.count_nonzero(read_frame(row.path) >= 0.97 * row.white_level) > 16:
                return True
        except FrameReadError:
            continue
    return False


def _calibration(table: pd.DataFrame, pixels: int) -> list[dict[str, Any]]:
    """Darks and flats for the lights that are there: of their ISO, exposure and temperature."""
    rows = []
    lights = table[table["kind"] == "light"]
    for (iso, exposure), some in lights.groupby(["iso", "exposure"], dropna=False):
        temperature = float(some["temperature"].mean()) if some["temperature"].notna().any() else math.nan
        rows.append(
            _row(table, "dark", iso, exposure, temperature, CALIBRATION, "calibration: the lights' own master dark")
        )
    return rows
