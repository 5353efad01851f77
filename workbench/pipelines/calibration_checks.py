"""What a run asks of its masters: whether darks and flats fit the lights, and which masters of others can serve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ..calibrate.dark_fit import dark_doubts, fit_darks, scaled_by_lights
from ..calibrate.flat_audit import BLOCK, audit_flat
from ..calibrate.masterset import Masters, MasterSet
from ..calibrate.planes import Planes, calibrate_signal
from ..core.cube import channels_of, evenly
from ..core.errors import FrameReadError, WorkbenchError
from ..core.mosaic import of_planes
from ..core.parallel import each_band, frame_memory
from ..core.settings import SETTING, setting_differs
from ..core.values import describe, listed
from ..ingest.folder import Folder, without_lights_among_flats
from ..ingest.metadata import PlainPixels
from ..ingest.reader import open_frames, read_frame
from ..ingest.review import follow_overscan
from ..sensor.dark_light import find_light, light_warning
from ..stack.engine import open_planes

CALIBRATION = ("bias", "dark", "flat", "darkflat")
_OLD = {"bias": 365.0, "dark": 365.0, "darkflat": 365.0, "flat": 1.5}  # [days]: then pixels, or dust, are others
_EMPTY = 0.01  # of a master's pixels at 0 or below: with its offset in it there are none
_CLIPPED = 0.001
_GAINS_DIFFER = 0.01  # of a channel's gain: what channels of one camera may differ by
_AUDITED = 3  # lights of a flat
_BAND = 96  # rows of a light that are read at once
_BLOCKS_HOLD = 2.0  # of honest nights it is 1.0 to 1.4: stars, and the seeing that moves their light about
_CHI_HOLDS = (0.9, 1.1)  # within this the noise model describes the scatter between frames


class CheckedMasters(NamedTuple):
    """The masters of a run, their darks scaled if that was asked for, and what is doubtful.

    `used` says for each group of lights what calibrates it; `darks_fit` is False where a warning says that they do not.
    """

    masters: MasterSet
    warnings: list[str]
    used: list[str]
    darks_fit: bool


def check_masters(
    light: xr.DataArray, cubes: dict[str, Any], masters: MasterSet, *, scale_darks: bool = False
) -> CheckedMasters:
    """Compare the masters with some of the lights that they are for, and scale the darks if asked to.

    Parameters
    ----------
    light, cubes
        The lights as read, and the cube of each kind of calibration frame.
    scale_darks
        Fit the darks' factor from all lights.

    Raises
    ------
    WorkbenchError
        If the darks cannot be scaled.
    """
    fitted: list[str] = []
    if scale_darks:
        masters, fitted = scaled_by_lights(masters, fit_darks(light, masters, most=None))
    doubts = []
    if cubes.get("dark") is not None:
        doubts = dark_doubts(light, cubes["dark"], masters, fit_darks(light, masters))
    used = [group.group.in_words(light) for group in masters.masters]
    if fitted:
        used = [f"{words}; {scaled}" for words, scaled in zip(used, fitted, strict=True)]
    lit = [text for text in dict.fromkeys(_light_in_dark(own) for own in masters.masters) if text]
    return CheckedMasters(masters, [*masters.warnings, *lit, *doubts], used, not doubts)


def _light_in_dark(own: Masters) -> str:
    """Return the warning that light has leaked into a master dark, "" where none shows; a bias master is needed."""
    if own.dark is None or own.bias is None:
        return ""
    dark, bias = own.dark["signal"].values, own.bias["signal"].values
    signal, masked = np.empty_like(dark), np.empty(dark.shape, bool)

    def subtract(rows: slice) -> None:
        np.subtract(dark[rows], bias[rows], out=signal[rows])
        masked[rows] = ~np.isfinite(signal[rows]) | (dark[rows] >= own.white_level)

    each_band(subtract, len(dark))
    gain = np.ones(len(channels_of(own.cfa_pattern)))
    level = np.array(of_planes(lambda plane: np.nanmedian(plane[::8]), signal, own.cfa_pattern))
    light = find_light(signal, masked, own.cfa_pattern, gain, np.diag((_GAINS_DIFFER * level) ** 2))
    value = f"up to {light.most:.2g} ADU of its signal may be light, which is subtracted from the lights"
    return light_warning("master dark", light, value) if light.words else ""


class UsedFlat(NamedTuple):
    """The master flat of a group of lights, None without one; its key and its files in words."""

    master: xr.Dataset | None
    key: str
    files: str

    @classmethod
    def of(cls, group: Masters, flat: xr.DataArray | None) -> UsedFlat:
        """Return that of a group, made from frames of a cube."""
        if group.flat is None or flat is None:
            return cls(None, "", "")
        return cls(group.flat, group.flat.attrs["key"], listed(flat["filename"].values[list(group.group.flat)], 1))


def flat_doubts(
    flats: Sequence[UsedFlat],
    planes_of: Sequence[Path],
    group_of: Sequence[tuple[int, float]],
    pixels: Sequence[PlainPixels | None],
    names: Sequence[str],
) -> tuple[list[str], bool | None]:
    """Return a sentence for each failure of each distinct flat, audited on three lights spread over those it is for.

    And whether the flats fit, None where there is none.

    Parameters
    ----------
    flats, planes_of
        One a group of lights: its flat, and the files of what calibrates it.
    group_of, pixels, names
        One a light: its group and its dark's factor, where its pixels are (None: not readable), and its name.
    """
    doubts = []
    for key in dict.fromkeys(used.key for used in flats if used.key):
        groups = [number for number, used in enumerate(flats) if used.key == key]
        lights = [n for n, (group, _) in enumerate(group_of) if group in groups and pixels[n] is not None]
        flat = flats[groups[0]]
        if not lights or flat.master is None or min(flat.master["signal"].shape) < 4 * BLOCK:
            continue
        some = [lights[place] for place in evenly(len(lights), _AUDITED)]
        signals = (
            light_signal(one, open_planes(planes_of[group_of[n][0]]), group_of[n][1], saturated=False)
            for n in some
            if (one := pixels[n]) is not None
        )
        try:
            audit = audit_flat(flat.master, signals, night=len(lights), progress=False)
            doubts += [
                f"the flats ({flat.files}) do not fit the lights ({listed([names[n] for n in lights], 1)}): {failure}"
                for failure in audit.attrs["failures"]
            ]
        except WorkbenchError as problem:
            doubts.append(f"whether the flats ({flat.files}) fit the lights is not known: {problem}")
    return doubts, not doubts if any(flat.master is not None for flat in flats) else None


def light_signal(pixels: PlainPixels, planes: Planes, factor: float, *, saturated: bool = True) -> np.ndarray:
    """Return the signal [e-] (y, x) of a light, NaN at defects and, if not wanted, where it is saturated.

    It is read in bands of rows: no second whole frame, of raw pixels, is in memory.
    """
    signal = frame_memory(pixels.shape, np.float32)
    for top in range(0, len(signal), _BAND):
        rows = slice(top, top + _BAND)
        raw, base = pixels.read(rows), planes.base[rows] if planes.base.size > 1 else planes.base
        here = planes._replace(base=base, dark=planes.dark[rows], scale=planes.scale[rows])
        calibrate_signal(raw, here, factor, signal[rows])
        if not saturated:
            signal[rows][raw >= planes.white] = np.nan
    return signal


def scatter_doubts(
    pixels: dict[str, float],
    blocks: dict[str, float],
    darks_fit: bool,
    flats_fit: bool | None,
    lights_fit: bool = True,
) -> list[str]:
    """Say by what the variance is off where frames do not scatter as the noise model has it, and what can be the cause.

    `pixels` and `blocks` are chi-squares of each channel, of pixels and of the background in blocks of 64 pixels;
    `flats_fit` is what `flat_doubts` found, None where it could not look; `lights_fit` is False where a light is odd.
    """
    doubts = []
    off = {name: value for name, value in pixels.items() if not _CHI_HOLDS[0] <= value <= _CHI_HOLDS[1]}
    if off:
        cause = "check the gain and the read noise, or look for clouds and moving light"
        if not darks_fit:
            cause = "the darks that do not fit the lights can be the cause"
        elif not lights_fit:
            cause = "the light whose noise is not that of its level can be the cause"
        size = ", ".join(
            f"{max(value, 1 / value):.2g} times too {'small' if value > 1 else 'large'} in {name}"
            for name, value in off.items()
        )
        values = ", ".join(f"{name} {value:.2f}" for name, value in pixels.items())
        doubts.append(
            f"the scatter between frames is not what the noise model predicts (chi-square {values}): {cause}; the "
            f"stated variance is {size}"
        )
    if any(value > _BLOCKS_HOLD for value in blocks.values()):
        values = ", ".join(f"{name} {value:.1f}" for name, value in blocks.items())
        cause = {
            None: "flats that do not fit, clouds or moving light",
            False: "the flats that do not fit the lights can be the cause",
            True: "clouds, haze or moving light; the flats fit",
        }[flats_fit]
        doubts.append(
            f"the background of the frames differs in blocks of 64 pixels by more than noise (chi-square {values}): "
            f"{cause}; the variance of means over so many pixels is at least that many times too small, and what is "
            "alike in all frames does not even show in it"
        )
    return doubts


def masters_cube(rows: pd.DataFrame) -> xr.DataArray:
    """Return masters of other programs as a cube of frames, with ``combined``, how many frames each is made of.

    A master flat has no offset in it, as Siril's scripts and PixInsight make them.
    """
    cube = open_frames(rows)
    if rows["kind"].iloc[0] == "flat":
        cube = cube.assign_attrs(black_level=0.0)
    return cube.assign_coords(combined=("frame", rows["combined"].to_numpy(float)))


def calibration_cubes(frames: Folder) -> dict[str, Any]:
    """Return the cube of each kind of calibration frame, or of the masters adopted in their place, None without."""
    cubes = {kind: frames.cube(kind) if frames.has(kind) else None for kind in CALIBRATION}
    return cubes | {kind: masters_cube(rows) for kind, rows in frames.adopted.groupby("kind")}


def prepare_calibration(frames: Folder) -> Folder:
    """Return the folder with its frames' levels following their overscans, and with masters of other programs.

    See `ingest.review.follow_overscan`.  Lights among the flats, and few lights of a setting that no dark has, are set
    aside.  A master serves where there are no raw frames of a kind: the newest that has the lights' size, camera,
    mosaic and setting, states what it must (a dark its exposure), and whose level shows that its offset is still in
    it.  A finding says how old it is and what it does not state; why others are left out stands with what is set aside.
    """
    frames = _without_odd_lights(follow_overscan(without_lights_among_flats(frames)))
    lights = frames.table[frames.table["kind"] == "light"]
    if frames.masters.empty or lights.empty:
        return frames
    adopted: list[pd.Series] = []
    reasons, findings = {}, list(frames.findings)
    order = frames.masters.assign(rank=frames.masters["kind"].map({"bias": 0, "dark": 1}).fillna(2))
    for _, row in order.sort_values(["rank", "time"], ascending=[True, False], kind="stable").iterrows():
        row = row.drop("rank")
        why = _unfit(row, frames, lights, adopted)
        if why:
            reasons[row["path"]] = why
            continue
        row["camera"], row["cfa_pattern"] = lights[["camera", "cfa_pattern"]].iloc[0]
        row["black_level"] = (math.nan,) * len(lights["black_level"].iloc[0])
        adopted.append(row)
        findings.append((lights["file"].iloc[0], *_adoption(row, lights)))
    taken = {row["path"] for row in adopted}
    aside = [
        (path, f"{why}; it is not used as one: {reasons[path]}" if path in reasons else why)
        for path, why in frames.set_aside
        if path not in taken
    ]
    return replace(frames, set_aside=aside, findings=findings, adopted=pd.DataFrame(adopted or frames.adopted))


def _without_odd_lights(frames: Folder) -> Folder:
    """Return the folder without lights whose setting no dark has, if most have one that some dark has."""
    lights, darks = (frames.table[frames.table["kind"] == kind] for kind in ("light", "dark"))
    settings = [one for _, one in darks[list(SETTING)].drop_duplicates().iterrows()]
    odd = []
    for path, (_, own) in zip(lights["path"], lights[list(SETTING)].iterrows(), strict=True):
        if settings and all(differing := [setting_differs(own, one) for one in settings]):
            names = min(differing, key=len)
            odd.append((path, names, describe({name: own[name] for name in names})))
    if 3 * len(odd) > len(lights):
        return frames
    for path, names, words in odd:
        lacks = all(pd.isna(frames.table.loc[frames.table["path"] == path, name]).all() for name in names)
        frames = frames.drop(
            path,
            f"states no {' and '.join(names)}, as most lights do; give it in frames.csv"
            if lacks
            else f"has {words}, which no dark has; shoot darks with it, or stack such lights by themselves",
        )
    return frames


def _unfit(row: pd.Series, frames: Folder, lights: pd.DataFrame, adopted: list[pd.Series]) -> str:
    """Why a master cannot serve these lights, empty if it can."""
    kind, light = row["kind"], lights.iloc[0]
    if frames.has(kind):
        return f"the raw {kind} frames are used"
    if (row["height"], row["width"]) != (light["height"], light["width"]):
        return f"it has {row['width']} x {row['height']} pixels, the lights {light['width']} x {light['height']}"
    if row["camera"] and light["camera"] and row["camera"].casefold() != light["camera"].casefold():
        return f"it is of the camera {row['camera']}, the lights of {light['camera']}"
    if row["cfa_stated"] and row["cfa_pattern"] != light["cfa_pattern"]:
        return f"its CFA pattern is {row['cfa_pattern']}, that of the lights {light['cfa_pattern']}"
    settings = [one for _, one in lights[list(SETTING)].drop_duplicates().iterrows()]
    fixed = ("binning", "window") if kind in ("flat", "darkflat") else SETTING
    differing = [[name for name in setting_differs(row, one) if name in fixed] for one in settings]
    if all(differing):
        own, those = (describe({name: one[name] for name in differing[0]}) for one in (row, settings[0]))
        return f"it has {own}, the lights {those if differing[0] != ['binning'] else 'another'}"
    if kind in ("dark", "darkflat") and math.isnan(row["exposure"]):
        return "it does not state its exposure (EXPTIME)"
    key = ["kind", *SETTING, "filter", "exposure", "temperature"]
    if (same := next((one for one in adopted if one[key].astype(str).equals(row[key].astype(str))), None)) is not None:
        return f"{same['file']}, newer or first, is used"
    try:
        return _level_problem(row, frames, light, adopted)
    except FrameReadError as problem:
        return problem.problem


def _level_problem(row: pd.Series, frames: Folder, light: pd.Series, adopted: list[pd.Series]) -> str:
    """What is wrong with a master's level, given that of a light and of the bias, empty if nothing is."""
    pixels = read_frame(row["path"], scale=row["scale"])
    level, empty = float(np.nanmedian(pixels)), float(np.mean(~(pixels > 0)))
    if row["kind"] == "flat":
        if level < 100:
            return f"its level is {level:.3g}, without a unit (normalised): how much light it holds is not known"
        high = float(np.mean(pixels >= 0.98 * row["scale"])) if row["scale"] > 1 else 0.0
        return f"{high:.1%} of its pixels are saturated" if high > _CLIPPED else ""
    subtracted = "its offset was subtracted; give one with the offset in it"
    if empty > _EMPTY:
        return f"{empty:.0%} of its pixels are 0 or less: {subtracted}"
    sky = float(np.nanmedian(read_frame(light["path"], scale=light["scale"])))
    if row["kind"] != "darkflat" and level > 1.05 * sky:
        return f"its level of {level:.4g} ADU is above the {sky:.4g} ADU of {light['file']}: its scale is another"
    bias = [one for one in adopted if one["kind"] == "bias"] or [
        one for _, one in frames.table[frames.table["kind"] == "bias"].head(1).iterrows()
    ]
    ground = float(np.nanmean(light["black_level"])) if np.isfinite(light["black_level"]).any() else 0.0
    if bias and row["kind"] != "bias":
        ground = float(np.nanmedian(read_frame(bias[0]["path"], scale=bias[0]["scale"])))
    return (
        f"its level is {level:.4g} ADU, that of no signal {ground:.4g} ADU: {subtracted}" if level < ground / 2 else ""
    )


def _adoption(row: pd.Series, lights: pd.DataFrame) -> tuple[str, str]:
    """Say that a master is used, and what is uncertain in it: the problem, and the same with the file."""
    count = row["combined"]
    doubts = [f"its numbers times {row['scale']:g} are ADU"] if row["scale"] != 1 else []
    if row["kind"] == "flat":
        doubts.append("it is taken to have no offset in it")
    doubts.append(
        "it does not state of how many frames it is made: its noise is estimated from neighbours, an upper bound"
        if math.isnan(count)
        else "its noise is the noise model's where the gain is known, else estimated from neighbours, an upper bound"
    )
    wanted = {"dark": ("temperature",), "flat": ()}.get(row["kind"], ())
    doubts += [f"it states no {name}" for name in wanted if math.isnan(row[name])]
    days = abs((lights["time"] - row["time"]) / pd.Timedelta(days=1)).min()
    if math.isnan(days):
        doubts.append("how old it is, is not known")
    elif days > _OLD[row["kind"]]:
        doubts.append(f"it was taken {days:.0f} days from the lights")
    of = "" if math.isnan(count) else f" of {count:g} frames"
    problem = (
        f"a master {row['kind']}{of} that another program made is used in place of raw frames ({'; '.join(doubts)})"
    )
    return problem, row["file"]
