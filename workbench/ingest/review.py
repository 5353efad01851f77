"""What shows only when files are looked into: foreign files, the same exposure twice, mosaics, impossible times."""

from __future__ import annotations

import filecmp
import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import FrameReadError
from ..core.mosaic import checkerboard, middle, shifted
from ..core.settings import SETTING
from ..core.statistics import mad_std
from .fits_header import BOTTOM_UP, TOP_DOWN
from .folder import Finding, Folder
from .metadata import FrameInfo, kind_in_folders, kind_in_words
from .reader import plain_pixels, read_frame

_FULL_SCALE = 65535.0  # what 1 stands for where a program divided 16-bit numbers
MASTER_KINDS = ("bias", "dark", "flat", "darkflat")
_MASTER = re.compile(r"(?<![a-z])(?:masters?|stack(?:ed)?)(?![a-z])", re.IGNORECASE)
_PROCESSED = re.compile(r"(?:(?:r|bkg|cc|drizzle|mtf|ght)_)*pp_", re.IGNORECASE)  # names that Siril gives
_COLOUR_CAMERA = re.compile(
    r"\d(?:MC|CC|C|KPC)\b|-C\b|colou?r|\bOSC\b|Canon|Nikon|Pentax|Fuji|Olympus|Lumix|ILCE|DSLR|Seestar|DWARF|Vespera",
    re.IGNORECASE,
)
_COPIED = re.compile(
    r"(?<![a-z])(?:cop(?:y|ie)|kopie|backup|process(?:ed)?)(?![a-z])|\(\d+\)|(?<![a-z])pp_", re.IGNORECASE
)


def foreign(info: FrameInfo, root: Path, stated: Mapping[str, Any]) -> tuple[str, str, float]:
    """Return why a file is not a raw frame, of which kind it is a master (each empty if it is not), and its scale.

    A master or stack by its header (`FrameInfo.derived`) or name, a picture that Siril processed by its name, or
    floating-point numbers from 0 to 1, which are not ADU.  The scale is what 1 stands for [ADU]: of such numbers the
    white level that the manifest has for the file (`stated`), else, of masters, the 65535 of Siril and PixInsight.
    """
    if info.format in ("raw", "dng", "pgm"):
        return "", "", 1.0
    peak, level, given = _peak(info), float(stated.get("white_level", 0)), stated.get("kind")
    scale = 1.0 if np.isnan(peak) else level if level > 1 else _FULL_SCALE
    name, folder = (re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text) for text in (info.path.stem, info.path.parent.name))
    why = "" if given else info.derived or _in_names(info.path, name, "" if info.path.parent == root else folder)
    if not why and (np.isnan(peak) or (given and level > 1)):
        return "", "", scale
    kinds = (kind_in_words(_MASTER.sub(" ", text)) for text in (info.imagetyp, name, folder))
    kind = given or next(filter(None, kinds), "") or kind_in_folders(info.path, root)
    scaled = f"holds numbers from 0 to {peak:.3g}, not ADU, as Siril and PixInsight write them"
    if kind in MASTER_KINDS:
        reason = f"is a master {kind} ({why})" if why else f"{scaled}, taken for a master {kind}"
        return f"{reason}: not counted as a raw frame", kind, scale
    if why:
        return f"is a stacked or processed picture ({why}): give the raw frames", "", scale
    remedy = (
        "write into frames.csv (column white_level) how many ADU 1 stands for, 65535 if the program divided 16 bits"
    )
    return "" if level > 1 else f"{scaled}; {remedy}, or give the raw frame", "", scale


def _in_names(path: Path, name: str, folder: str) -> str:
    """What in the names of a file and its folder speaks of a master, a stack or a processed picture."""
    if _MASTER.search(name) or _PROCESSED.match(name):
        return f"its name {path.name}"
    return f"its folder {path.parent.name}" if "master" in folder.casefold() else ""


def _peak(info: FrameInfo) -> float:
    """The highest value in the middle of a floating-point frame that runs from 0 to 1, NaN for any other frame."""
    if not info.dtype.startswith("float"):
        return np.nan
    try:
        values = _middle(info.path, 64)
    except FrameReadError:
        return np.nan  # what is the matter shows when the frame is read
    peak = float(np.nanmax(values, initial=-np.inf))
    return peak if 0 < peak <= 1 else np.nan


def _middle(path: Path, rows: int, columns: int | None = None) -> np.ndarray:
    """Return the middle of a frame, from a whole cell of its mosaic on: some rows, of all columns or some."""
    plain = plain_pixels(path)
    source = read_frame(path) if plain is None else plain
    part = middle(source.shape, (rows, columns or source.shape[1]))
    return source[part] if isinstance(source, np.ndarray) else source.read(*part)


def review(table: pd.DataFrame) -> tuple[pd.DataFrame, list[tuple[Path, str]], list[Finding]]:
    """Return a folder's table with each exposure once and its mosaic, what is set aside, and what is doubtful."""
    pairs = find_duplicates(table)
    paths, files = table["path"], table["file"]
    set_aside = [(paths[copy], f"is the same exposure as {files[kept]}, which is used") for copy, kept in pairs]
    pictures = debayered_beside_raw(table)
    set_aside += [(paths[number], why) for number, why in pictures.items()]
    table = table.drop(index={*(copy for copy, _ in pairs), *pictures}).reset_index(drop=True)
    table, doubts = complete_mosaics(table)
    doubts += impossible_exposures(table) + mixed_row_orders(table)
    return table, set_aside, doubts


# the same exposure twice


def find_duplicates(table: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the rows of a folder's table that hold an exposure again, each with the row that is kept.

    Only frames of one size and exposure time that began in the same second, or state no time, are compared: by their
    pixels, packed files of one form byte by byte.  Frames whose pixels are all equal prove nothing, and frames that
    serve as two kinds stay both.  Kept is the one whose name and folder do not speak of a copy, then the one less deep.
    """
    order = sorted(range(len(table)), key=lambda number: _rank(table.iloc[number], number))
    place = {number: rank for rank, number in enumerate(order)}
    times = pd.to_datetime(table["time"]).dt.floor("s")
    times = times.mask(times == times.dt.floor("D"))  # a date alone
    exposure = table["exposure"].map("{:.3g}".format)
    pairs = []
    key = [table["height"], table["width"], exposure, times]
    for values, group in table.groupby(key, sort=False, dropna=False):
        if len(group) < 2:
            continue
        plain = group["path"].map(_is_plain)
        mixed = plain.nunique() > 1 or group["format"].nunique() > 1
        pixels = plain | (mixed and not pd.isna(values[-1]))
        first: dict[Any, list[int]] = {}
        for number in sorted(group.index, key=place.__getitem__):
            path = table["path"][number]
            if not (mark := _mark(path, pixels[number])):
                continue
            earlier = [other for other in first.get(mark, ()) if _alike(table.loc[other], table.loc[number])]
            same = next((other for other in earlier if _equal(table["path"][other], path, pixels[number])), None)
            if same is None:
                first.setdefault(mark, []).append(int(number))
            else:
                pairs.append((int(number), same))
    return sorted(pairs)


def _alike(kept: pd.Series, copy: pd.Series) -> bool:
    """Whether nothing that is known of two frames says that they are two: kind, camera, mosaic."""
    cameras = sorted((kept["camera"].casefold(), copy["camera"].casefold()), key=len)
    mosaics = {row["cfa_pattern"] for row in (kept, copy) if row["cfa_stated"]}
    return copy["kind"] in ("", kept["kind"]) and cameras[0] in cameras[1] and len(mosaics) < 2


def _is_plain(path: Path) -> bool:
    try:
        return plain_pixels(path) is not None
    except FrameReadError:
        return False


def _rank(row: pd.Series, number: int) -> tuple:
    return row["kind"] == "", bool(_COPIED.search(row["file"])), row["file"].count("/"), number


def _mark(path: Path, pixels: bool) -> Any:
    """What differs between two exposures, and is cheap to find, in their pixels or bytes; None if it cannot be read."""
    try:
        if pixels:
            return hashlib.sha256(_middle(path, 1).astype(float).tobytes()).hexdigest()
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(size // 2)
            return size, hashlib.sha256(file.read(1 << 16)).hexdigest()
    except (FrameReadError, OSError):
        return None


def _equal(first: Path, second: Path, pixels: bool) -> bool:
    """Whether two files hold the same bytes, or the same pixels, and these not one value everywhere."""
    try:
        if not pixels:
            return filecmp.cmp(first, second, shallow=False)
        frame = read_frame(first)
        return bool((frame != frame.flat[0]).any()) and np.array_equal(frame, read_frame(second), equal_nan=True)
    except (FrameReadError, OSError):
        return False


_DEBAYERED = re.compile(r"[ _-]*(?:debayer(?:ed)?|rgb|colou?r|pp)[ _-]*")


def debayered_beside_raw(table: pd.DataFrame) -> dict[int, str]:
    """Return the rows of colour planes that are set aside, with the reason: the raw frames are there.

    Those that began in the same second, or have the name, of a raw frame of their kind; and those that do not show
    which samples were measured, among raw frames of their kind.
    """
    names = table["file"].map(lambda name: _DEBAYERED.sub("", Path(name).stem.casefold()))
    reasons = {}
    for number in table.index[table["planes"] > 1]:
        own = table.loc[number]
        raw = table[(table["planes"] == 1) & (table["kind"] == own["kind"])]
        same = (abs(raw["time"] - own["time"]) < pd.Timedelta(seconds=1)) | (
            (raw["time"].isna() | pd.isna(own["time"])) & (names[raw.index] == names[number])
        )
        if same.any():
            reasons[number] = f"is the debayered picture of {raw['file'][same].iloc[0]}, which is used"
        elif len(raw) and not own["cfa_stated"]:
            reasons[number] = (
                "is a picture of three colour planes that does not show which samples were measured, among raw frames: "
                "give its raw frame, or, if it is a linear stack, finish it: workbench finish"
            )
    return reasons


# the overscan


def follow_overscan(folder: Folder) -> Folder:
    """Return the folder with each frame's ``shift`` [ADU], so that their overscans have one mean, and with findings.

    Of frames of one camera and setting whose overscans differ by more than five of their errors: the shift is the
    median of all less the frame's own.  What light reaches, or has one value, is not an overscan: nothing is shifted.
    """
    table, doubts = folder.table.copy(), []
    for _, group in table[table["overscan"].map(len) > 0].groupby(["camera", *SETTING], dropna=False, sort=False):
        levels = np.array([_overscan_level(row) for _, row in group.iterrows()])
        shift, error = np.nanmedian(levels[:, 0]) - levels[:, 0], levels[:, 1]
        moved = np.abs(shift) > 5 * error
        if not moved.any():
            continue
        file = group["file"].iloc[int(np.nanargmax(np.abs(shift)))]
        if not np.isfinite(levels).all() or (levels[:, 0] > 1.05 * levels[:, 2] + 5 * error).any() or _lit(levels):
            problem = "BIASSEC is not an overscan (it sees light, or is brighter than the frame): not used"
            example = file
        else:
            table.loc[group.index, "shift"] = shift
            reach = f"{shift.min():+.3g} to {shift.max():+.3g} ADU, each ± {np.median(error):.2g}"
            problem = "the level of the overscan drifts, and the frames are shifted by it"
            example = f"{file} ({reach})"
        doubts.append((file, problem, example))
    return replace(folder, table=table, findings=[*folder.findings, *doubts])


def _overscan_level(row: pd.Series) -> tuple[float, float, float]:
    """Mean of a frame's overscan without its edges, the error of that, and the frame's own median [ADU]."""
    try:
        frame = read_frame(row["path"], "full", row["scale"]).astype(float)
    except FrameReadError:
        return np.nan, np.nan, np.nan
    (y, x, height, width), (top, left) = row["overscan"], row["margins"]
    part = frame[y + height // 8 : y + height - height // 8, x + width // 8 : x + width - width // 8].ravel()
    part = part[np.abs(part - np.median(part)) <= 5 * max(float(mad_std(part)), 1.0)]
    light = frame[top : top + row["height"], left : left + row["width"]]
    error = float(part.std() / np.sqrt(part.size))
    return float(part.mean()), error if error > 0 else np.nan, float(np.median(light))


def _lit(levels: np.ndarray) -> bool:
    """Whether the overscan of the brightest frame is brighter than others by half its light, and by a tenth of all."""
    own, _, light = levels[levels[:, 2].argmax()]
    above = own - levels[:, 0].min()
    return bool(above > max(0.5 * (light - own), 0.1 * np.median(levels[:, 0])))


# mosaics that no header states


def complete_mosaics(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Return the table with the mosaic of frames that do not state one, and what is doubtful: findings.

    It is that of the camera's other frames of this size, else what the levels of its flats and lights show
    (`core.mosaic.checkerboard`).  A camera that by its ISO or name should have one, and shows none, is asked about,
    unless its pixels of all four places are equally bright in a flat.
    """
    table, doubts = table.copy(), []
    ask = "give it in frames.csv (column cfa)"
    for (camera, *_), group in table.groupby(["camera", "full_shape"], sort=False, dropna=False):
        doubts += _contradicted(group)
        unstated = group[~group["cfa_stated"] & (group["planes"] == 1)]
        if not len(unstated):
            continue
        stated = group[group["cfa_stated"] & (group["cfa_pattern"] != "mono")]
        pattern = ""
        if len(stated):
            (top, left), pattern = stated["margins"].iloc[0], stated["cfa_pattern"].iloc[0]
            pattern = shifted(pattern, -top, -left)
            problem = f"no CFA pattern recorded, taken for {pattern} as in the other frames of this camera"
        elif (pattern := _mosaic_in_pixels(unstated)) == "mono":
            continue
        elif pattern:
            twin = {"RGGB": "BGGR", "GRBG": "GBRG"}[pattern]
            problem = (
                f"no CFA pattern recorded, but the pixels show a colour mosaic: taken for {pattern}; if it is {twin}, "
                f"red and blue are swapped: {ask}"
            )
        else:
            problem = f"no CFA pattern recorded, taken for mono; {ask}"
            if not _COLOUR_CAMERA.search(camera):
                unstated = unstated[unstated["format"].isin(("pgm", "tiff")) | (unstated["iso"] > 0)]
        for number, row in unstated.iterrows():
            doubts.append((row["file"], problem, row["file"]))
            if pattern:
                table.at[number, "cfa_pattern"] = shifted(pattern, *row["margins"])
                table.at[number, "black_level"] = (row["black_level"] * 4)[:4]
    return table, doubts


def _contradicted(group: pd.DataFrame) -> list[Finding]:
    """A finding where a camera's pixels show green on another diagonal than the files state, which camera RAW does not.

    Drivers that turn or mirror the picture, and windows that begin at an odd pixel, leave the words as they were.
    """
    stated = group[group["cfa_stated"] & (group["planes"] == 1) & ~group["format"].isin(("raw", "dng"))]
    stated = stated[stated["cfa_pattern"].str.len() == 4]
    stated = stated[stated["cfa_pattern"] != "mono"]
    shown = _mosaic_in_pixels(stated) if len(stated) else ""
    pattern = "" if stated.empty else shifted(stated["cfa_pattern"].iloc[0], *(-np.array(stated["margins"].iloc[0])))
    if shown in ("", "mono") or (pattern[0] == "G") == (shown[0] == "G"):
        return []
    problem = (
        f"the mosaic is stated as {pattern}, but the pixels show green on the other diagonal: {shown}, or red and blue "
        "swapped; was the picture mirrored, or cut at an odd pixel? give the true one in frames.csv (column cfa)"
    )
    return [(file, problem, file) for file in stated["file"]]


def _mosaic_in_pixels(group: pd.DataFrame) -> str:
    """The mosaic from the full frame's first pixel that the middle of a flat or a light shows; empty where none does.

    ``mono`` where the four places of a cell are alike in a flat, within a hundredth of their level.
    """
    for kind in ("flat", "light"):
        frames = group[group["kind"] == kind]
        if not len(frames):
            continue
        row = frames.iloc[len(frames) // 2]
        try:
            part = _middle(row["path"], 512, 512)
        except FrameReadError:
            continue
        if pattern := checkerboard(part):
            top, left = row["margins"]
            pattern = shifted(pattern, -top, -left)
            return pattern if pattern in ("RGGB", "GRBG") else {"BGGR": "RGGB", "GBRG": "GRBG"}[pattern]
        levels = [part[row::2, column::2].mean(dtype=float) for row in (0, 1) for column in (0, 1)]
        if kind == "flat" and np.ptp(levels) < 0.01 * np.mean(levels):
            return "mono"
    return ""


# what cannot be


def impossible_exposures(table: pd.DataFrame) -> list[Finding]:
    """Return frames whose exposure is longer than the time to the next frame of their camera: findings."""
    doubts, problem = [], "the exposure is longer than the time to the camera's next frame; is its unit seconds?"
    for _, group in table[table["time"].notna()].groupby("camera", sort=False, dropna=False):
        frames = group.sort_values("time", kind="stable")
        gap = -frames["time"].diff(-1).dt.total_seconds().to_numpy()
        exposure = frames["exposure"].to_numpy(float)
        # the next frame's exposure counts as well: the time may be that of the end; clocks give whole seconds
        shorter = np.fmin(exposure, np.append(exposure[1:], np.nan))
        for number in np.flatnonzero((gap > 0) & (gap + 1 < 0.95 * shorter)):
            file = frames["file"].iloc[number]
            example = f"{file} ({exposure[number]:g} s, the next frame {gap[number]:g} s later)"
            doubts.append((file, problem, example))
    return doubts


def mixed_row_orders(table: pd.DataFrame) -> list[Finding]:
    """Return the FITS frames whose rows are turned, where others' are not, or that state no order: findings."""
    orders = table["row_order"].where(table["format"] == "fits", "no FITS")
    if not (orders == BOTTOM_UP).any():
        return []
    problems = {"": "no ROWORDER recorded, taken for top-down, while other frames are bottom-up; add it to the header"}
    if (orders == TOP_DOWN).any():
        problems[BOTTOM_UP] = (
            "ROWORDER is BOTTOM-UP, that of other frames TOP-DOWN: turned over so that all are upright; if flats and "
            "lights do not fit, one program states it wrong"
        )
    return [
        (file, problems[order], file) for file, order in zip(table["file"], orders, strict=True) if order in problems
    ]
