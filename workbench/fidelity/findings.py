"""The sentences of the raw report card: from what was measured to what it means for a beginner."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import black_levels
from ..core.selection import describe

OK, NOTICE, CHANGED, UNKNOWN = "as it should be", "worth knowing", "changed by the camera", "cannot tell"
DARK_KINDS = ("bias", "dark", "darkflat")

_CLIPPED = 1e-3  # of bias or dark pixels at zero: more than noise puts there above any black level that is kept
_PEDESTAL = 32.0  # ADU: cameras that keep their black level keep more than that
_SURE = 3.0  # standard errors
_DIGITAL = 1.4  # growth of the multiplier with ISO that is no accident
_COARSE = 0.1  # of the variance, added by rounding to coarse codes, that matters
_ALIKE, _ALIKE_SIGMAS = 0.02, 5.0  # correlation of neighbours; bright flats have up to 0.01 (brighter-fatter effect)
_BANDED = 0.1  # of the pixel noise: rows that an eye sees
_RARE = 1e-5


class Finding(NamedTuple):
    """One row of the card: status, three sentences, a number with its error and unit, and a p-value."""

    status: str
    finding: str
    effect: str = ""
    remedy: str = ""
    value: float = math.nan
    error: float = math.nan
    unit: str = ""
    p_value: float = math.nan


def codes(missing: xr.Dataset) -> Finding:
    """Judge the missing codes: of a multiplier for one colour, or of none."""
    known = missing["relative"].dropna("iso", how="all")
    if not known.sizes["iso"]:
        return Finding(
            UNKNOWN, "Too few numbers occur often enough to see whether any is missing.", "",
            "Give frames with more pixels, or flats at several levels.",
        )  # fmt: skip
    lowest = known.isel(iso=0)
    at = missing.sel(iso=lowest["iso"]) if np.isfinite(lowest["iso"]) else missing.isel(iso=0)
    relative = {str(name): float(value) for name, value in zip(known["channel"].values, lowest.values, strict=True)}
    # a share of missing codes tells the multiplier to its error; a difference below three errors is none
    error = {name: float(at["multiplier_error"].sel(channel=name)) for name in relative}
    off = {
        name: value
        for name, value in relative.items()
        if math.isfinite(value) and abs(value - 1) > _SURE * error[name] and abs(value - 1) > 2e-3
    }
    worst = max(off, key=lambda name: abs(off[name] - 1)) if off else ""
    if off:
        words = _listing(
            f"{_COLOUR.get(name, name)} × {value:.4g} (a gap every {float(at['period'].sel(channel=name)):.3g} numbers)"
            for name, value in off.items()
        )
        return Finding(
            CHANGED,
            f"Numbers are missing at regular distances: the camera multiplies {words} before saving.",
            f"A gain measured in {_listing(_COLOUR.get(name, name) for name in off)} comes out too low by that factor, "
            "and these colours clip earlier.",
            "Multiply the measured gain by the factor (the report does), or save without white-balance scaling.",
            off[worst], error[worst], "", float(at["p_value"].sel(channel=worst)),
        )  # fmt: skip
    common = float(at["multiplier"].mean())
    tested = int(at["tested"].min())
    if list(relative) == ["mono"]:
        text = f"Every number occurs: none of {tested} or more tested is missing."
    elif bool(missing["coarse"].any()) or abs(common - 1) > 2e-3:
        text = f"No colour is treated apart: of {tested} or more numbers tested in each, the same are missing in all."
    else:
        text = f"Every number occurs: none of {tested} or more tested in each colour is missing."
    unseen = 1 + float(at["multiplier_error"].max())
    return Finding(OK, text, "", "", 1.0, float(at["multiplier_error"].max()), "", 1.0) if unseen < 1.02 else Finding(
        OK, f"{text} A factor below {unseen:.3g} would not have shown.", "", "", 1.0, unseen - 1, "", 1.0
    )  # fmt: skip


_COLOUR = {"R": "red", "G1": "green 1", "G2": "green 2", "B": "blue", "mono": "all pixels"}


def black(counted: xr.Dataset, vanishing: tuple[float, float] = (math.nan, math.nan)) -> tuple[Finding, bool | None]:
    """Judge whether the black level was subtracted, and whether what fell below was clipped at zero.

    Bias frames or darks tell by the pixels at zero; flats by the level at which their noise vanishes (`vanishing`:
    level and error [ADU]); other frames by pixels below the black level that the file states.
    """
    at_zero = {}
    for kind in np.unique(counted["kind"].values):
        pixels = counted["pixels"].isel(group=np.flatnonzero(counted["kind"].values == kind)).sum("group")
        at_zero[str(kind)] = float((pixels.isel(code=0).sum() / pixels.sum()).values)
    remedy = "Use a firmware or a camera setting that keeps the offset; shoot bias frames to see whether it does."
    for kind in DARK_KINDS:
        if kind not in at_zero:
            continue
        share = at_zero[kind]
        name = {"bias": "bias frames", "dark": "darks", "darkflat": "dark flats"}[kind]
        if share > _CLIPPED:
            return Finding(
                CHANGED,
                f"{100 * share:.3g} % of the pixels of the {name} are exactly zero: the camera subtracts its black "
                "level and cuts off what falls below.",
                "Half of the noise is lost: cut in the middle, a normal distribution keeps 0.58 of its standard "
                "deviation and its mean is not zero, so read noise reads 42 % low and faint light is lifted.",
                remedy, share, math.nan, "of the pixels at zero",
            ), True  # fmt: skip
        level = _mean_level(counted, kind)
        if level > _PEDESTAL:
            return Finding(
                OK, f"The {name} lie at {level:.0f} ADU, well above zero: the black level is kept.", "", "",
                level, math.nan, "ADU",
            ), False  # fmt: skip
    stated = black_levels(counted.attrs)
    level, error = vanishing
    if math.isfinite(level):
        told = f"The noise of the flats vanishes at {level:.1f} ± {error:.1f} ADU"
        if level + _SURE * error < _PEDESTAL:
            lowest = float(counted["pixels"].code[(counted["pixels"].sum(("group", "channel")) > 0).values].min())
            clip = at_zero.get("flat", 0.0) > _CLIPPED
            return Finding(
                CHANGED,
                f"{told}, and pixels go down to {lowest:g} ADU: the camera has subtracted its black level.",
                "Bias frames and darks of this camera will be cut off at zero: their standard deviation reads 42 % "
                "low, and faint light is lifted.",
                remedy, level, error, "ADU",
            ), True if clip else None  # fmt: skip
        if level - _SURE * error > _PEDESTAL:
            return Finding(OK, f"{told}: the black level is kept.", "", "", level, error, "ADU"), False
    below = _below_black(counted, stated)
    if below > 0:
        return Finding(
            OK,
            f"{100 * below:.2g} % of the pixels lie below the stated black level of {np.nanmin(stated):g} ADU, none is "
            "cut off at zero: the black level is kept.", "", "", float(np.nanmin(stated)), math.nan, "ADU",
        ), False  # fmt: skip
    return Finding(
        UNKNOWN, "These frames do not show whether the black level was subtracted.", "",
        "Shoot ten bias frames: shortest exposure, lens cap on.",
    ), None  # fmt: skip


def _mean_level(counted: xr.Dataset, kind: str) -> float:
    pixels = counted["pixels"].isel(group=np.flatnonzero(counted["kind"].values == kind)).sum(("group", "channel"))
    return float((pixels * pixels["code"]).sum() / pixels.sum())


def _below_black(counted: xr.Dataset, stated: np.ndarray) -> float:
    """Return the share of pixels below a stated black level; 0 where none is stated or numbers pile up at zero."""
    if not np.isfinite(stated).all() or stated.min() < 1:
        return 0.0
    pixels = counted["pixels"].sum("group").values
    if pixels[:, 0].sum() > 10 * max(1, pixels[:, 1:4].sum()):
        return 0.0
    below = sum(int(row[: int(level)].sum()) for row, level in zip(pixels, stated, strict=True))
    return below / max(1, int(pixels.sum())) if below > 100 else 0.0


def bits(missing: xr.Dataset, noise: np.ndarray | None = None) -> Finding:
    """Judge how many bits the numbers really have, and whether coarse codes hide the noise.

    Parameters
    ----------
    missing
        From `missing_codes`.
    noise
        Standard deviation of the noise [ADU] in each octave of levels (`smooth_noise`), where codes are coarse.
    """
    used = float(missing["bits"].max())
    if not math.isfinite(used):
        return Finding(
            UNKNOWN, "Too few numbers occur often enough to count the bits in use.", "", "Give a bright flat."
        )
    top = float(missing["highest"].max())
    white = missing.attrs["white_level"]
    # a few pixels may lie above the white level that the file states
    stored = math.ceil(math.log2((white if math.isfinite(white) and top < 1.2 * white else top) + 1))
    value = {"value": used, "unit": "bit"}
    steps = missing["step"].where(missing["step"] > 0).max(("iso", "channel")).values
    if not math.isfinite(white) and not np.isfinite(missing["clipped_at"]).any():
        text = f"The numbers come in steps of {np.nanmax(steps):.3g} ADU up to {top:g}"
        return Finding(
            OK, f"{text}; how many bits they have shows when a frame is saturated or the file states its white level.",
            **value,
        )  # fmt: skip
    if not bool(missing["coarse"].any()):
        if used > stored - 0.3:
            return Finding(OK, f"The numbers use {used:.3g} of the {stored} bits.", **value)
        return Finding(
            NOTICE, f"The numbers use {used:.3g} of the {stored} bits: they come in steps of {np.nanmax(steps):.3g}.",
            "Rounding adds noise of 0.29 of a step; nothing else is lost.", **value,
        )  # fmt: skip
    finest, coarsest = float(missing["multiplier"].min()), np.nanmax(steps)
    at = float(missing["level"][int(np.nanargmax(steps))])
    text = (
        f"The numbers are compressed: steps of {finest:.3g} ADU in the dark grow to {coarsest:.3g} above {at:g} ADU, "
        f"and {used:.3g} bits stand for {stored}."
    )
    share = _rounding(steps, noise)
    effect = "Rounding adds noise of 0.29 of a step."
    if math.isfinite(share):
        effect = f"Rounding to them makes at most {100 * share:.2g} % of the variance of the noise."
    remedy = "Choose uncompressed or lossless RAW where the camera offers it."
    if share > _COARSE:
        return Finding(
            CHANGED, f"{text} They are coarser than the noise.", f"{effect} A gain from bright flats comes out wrong.",
            remedy, **value,
        )  # fmt: skip
    if abs(finest - round(finest)) > 0.02:
        return Finding(
            CHANGED, f"{text} Even in the dark a step is no whole number: they come out of a table.",
            f"{effect} Whether the table is linear in light no file can tell.", remedy, **value,
        )  # fmt: skip
    return Finding(NOTICE, text, effect, remedy, **value)


def _rounding(steps: np.ndarray, noise: np.ndarray | None) -> float:
    """Return the largest share of the noise's variance that rounding makes in any octave: step²/12 over σ²."""
    if noise is None:
        return math.nan
    size = min(len(noise), len(steps))
    share = steps[:size] ** 2 / 12 / np.where(noise[:size] > 0, noise[:size], np.nan) ** 2
    return float(np.nanmax(share)) if np.isfinite(share).any() else math.nan


def white(missing: xr.Dataset) -> Finding:
    """Judge at which number the pixels clip."""
    clipped = missing["clipped_at"].max("iso")
    stated = missing.attrs["white_level"]
    known = clipped.dropna("channel")
    if not known.sizes["channel"]:
        highest = float(missing["highest"].max())
        return Finding(
            UNKNOWN, f"No frame is saturated (the highest number is {highest:g}).", "",
            "Shoot one overexposed frame to see where the camera clips.", highest, math.nan, "ADU",
        )  # fmt: skip
    levels = {str(name): float(value) for name, value in zip(known["channel"].values, known.values, strict=True)}
    lowest = min(levels.values())
    words = _listing(f"{_COLOUR.get(name, name)} at {value:,.0f}" for name, value in levels.items())
    if math.isfinite(stated) and lowest < 0.99 * stated:
        return Finding(
            NOTICE, f"Pixels pile up: {words} ADU, below the {stated:,.0f} that the file states.",
            "A program that trusts the file takes clipped stars for good ones, and tints them.",
            f"Give {lowest:,.0f} ADU as the white level.", lowest, math.nan, "ADU",
        )  # fmt: skip
    return Finding(OK, f"Pixels clip where the file says: {words} ADU.", "", "", lowest, math.nan, "ADU")


def digital_iso(missing: xr.Dataset) -> Finding:
    """Judge from which ISO on numbers are multiplied instead of signals amplified."""
    green = [name for name in missing["channel"].values if name in ("G1", "G2", "mono")]
    step = missing["multiplier"].sel(channel=green).mean("channel").dropna("iso")
    step = step.isel(iso=np.isfinite(step["iso"].values))
    if not step.sizes["iso"]:
        return Finding(
            UNKNOWN, "The frames record no ISO; a camera without that setting has nothing to tell here.", "",
            "Where the camera has one, name it in frames.csv (column iso).",
        )  # fmt: skip
    if step.sizes["iso"] < 2:
        return Finding(
            UNKNOWN, "Frames of one ISO do not tell from which ISO on the camera only multiplies.", "",
            "Give frames at several ISO settings.",
        )  # fmt: skip
    isos, factors = step["iso"].values, step.values / float(step.min())
    above = np.flatnonzero(factors > _DIGITAL)
    if not above.size:
        return Finding(
            OK, f"From ISO {isos[0]:g} to {isos[-1]:g} no number is skipped: the amplifier does the work.", "", "",
            1.0, math.nan, "times",
        )  # fmt: skip
    first = int(above[0])
    return Finding(
        NOTICE,
        f"From ISO {isos[first]:g} on the camera multiplies numbers (at ISO {isos[-1]:g} by {factors[-1]:.3g}) instead "
        "of amplifying the signal.",
        "Nothing is gained above the setting before: the same noise, and bright stars clip sooner.",
        f"Stay at or below ISO {isos[first - 1]:g}." if first else "", float(isos[first]), math.nan, "ISO",
    )  # fmt: skip


_NOT_ALONE = "Without two equal frames noise cannot be told from picture."
_NO_PAIRS = "Shoot at least two equal frames, best ten bias frames."


def bands(texture: xr.Dataset | None) -> Finding:
    """Judge whether whole rows or columns have noise of their own."""
    if texture is None:
        return Finding(UNKNOWN, _NOT_ALONE, "", _NO_PAIRS)
    at = texture["band_noise"].argmax(("iso", "axis"))
    one = texture.isel({name: int(where) for name, where in at.items()})
    value, error, chance = (float(one[name]) for name in ("band_noise", "band_noise_error", "band_p_value"))
    tests = texture["band_noise"].size
    number = (value, error, "of the pixel noise", min(1.0, chance * tests))
    axis = str(one["axis"].item())
    peaks = texture["peak_p_value"].values
    least = np.unravel_index(np.argmin(peaks), peaks.shape)
    tone = ""
    if peaks[least] * tests < _RARE:
        tone = f" A wave of {1 / float(texture['peak'].values[least]):.3g} {AXES_WORDS[least[1]]} stands out."
    flats = "flat" in texture["kind"].values.tolist()
    lamp = " (In flats a lamp that flickers does the same.)" if flats and axis == "row" else ""
    if chance * tests < _RARE and value > _BANDED:
        return Finding(
            NOTICE, f"Each {axis} has noise of its own, {100 * value:.2g} % of a pixel's.{tone}{lamp}",
            f"On single numbers little ({100 * value**2:.2g} % of the variance); the eye sees it as bands.",
            "Stack many dithered frames; bands do not average out over a picture, only over frames.", *number,
        )  # fmt: skip
    small = (
        f"{100 * value:.2g} % of a pixel's noise"
        if chance * tests < _RARE
        else f"less than {100 * (value + 2 * error):.2g} % of it"
    )
    return Finding(
        OK, f"The noise of whole rows and columns is too small to see: {small}.{tone}{lamp}", "", "", *number
    )


AXES_WORDS = ("rows", "columns")


def neighbours(texture: xr.Dataset | None, smooth: tuple[float, float] = (math.nan, math.nan)) -> Finding:
    """Judge whether neighbouring pixels share noise, as after a filter.

    Parameters
    ----------
    texture
        From `noise_texture`.
    smooth
        Without it: correlation and error in the smoothest patches of one frame (`patch_correlation`), which can clear
        a camera but not convict it.
    """
    value, error = smooth
    if texture is None:
        if abs(value) < max(_ALIKE, 2 * error) and error < _ALIKE:
            return Finding(
                OK, "Each pixel's noise is its own: even in the smoothest patches of the picture neighbours correlate "
                f"by {value:+.3f} ± {error:.3f} only.", "", "", value, error,
            )  # fmt: skip
        return Finding(UNKNOWN, _NOT_ALONE, "", _NO_PAIRS)
    nearest = texture["correlation"].isel(lag=np.flatnonzero((texture["dy"] <= 1) & (abs(texture["dx"]) <= 1)))
    errors = texture["correlation_error"].sel(lag=nearest["lag"])
    strength = abs(nearest) / errors
    at = {name: int(where) for name, where in strength.argmax(strength.dims).items()}
    value, error = float(nearest.isel(at)), float(errors.isel(at))
    chance = min(1.0, math.erfc(abs(value) / error / math.sqrt(2)) * nearest.size)
    found = f"correlation {value:+.3f} ± {error:.3f}"
    if abs(value) > _ALIKE and abs(value) > _ALIKE_SIGMAS * error:
        factor = float(texture["variance_factor"].isel(iso=at["iso"]).mean())
        return Finding(
            CHANGED, f"Neighbouring pixels of one colour share noise ({found}): the camera filters it.",
            f"The variance of single pixels reads {factor:.2g} times too small, and a gain from it as much too high.",
            "Switch off noise reduction; where that does not help, measure variance in blocks.",
            value, error, "", chance,
        )  # fmt: skip
    return Finding(OK, f"Each pixel's noise is its own (largest {found}).", "", "", value, error, "", chance)


def hot_pixels(hot: xr.Dataset | None) -> Finding:
    """Judge whether the camera takes lone bright pixels away."""
    if hot is None:
        return Finding(UNKNOWN, "Without darks it cannot be seen.", "", "Shoot a dark of 30 s or longer.")
    found, chance = hot.attrs["found"], float(hot.attrs["p_value"])
    bright = hot.attrs["bright_pixels"]
    alone = hot.sel(test="alone")
    share = float(alone["observed"]) / bright if bright else math.nan
    number = (
        share,
        math.sqrt(share * (1 - share) / bright) if bright else math.nan,
        "of the bright pixels alone",
        chance,
    )
    if found:
        which = str(hot["test"].values[int(np.argmax(hot["positive"].values))])
        seen = _hot_words(which, *(float(hot[name].sel(test=which)) for name in ("observed", "expected")))
        return Finding(
            CHANGED, f"The camera removes lone bright pixels: {seen}.",
            "Small stars go with them, and the measured dark current and its hot pixels come out too low.",
            "Use exposures or modes without the filter (on Nikons below 1/4 s, or bulb with noise reduction off).",
            *number,
        )  # fmt: skip
    setting = describe({"exposure": hot.attrs["exposure"], "temperature": hot.attrs["temperature"]})
    if found is None:
        why = f"{bright} bright pixels" if bright < 20 else "too short an exposure for such a filter"
        return Finding(
            UNKNOWN, f"The dark of {setting} has {why}: too little to tell.", "",
            "Shoot a dark of 30 s or longer with the sensor warm.", *number,
        )  # fmt: skip
    expected = float(alone["expected"]) / bright
    return Finding(
        OK, f"In a dark of {setting} {100 * share:.3g} % of {bright} bright pixels stand alone, as they should (at "
        f"least {100 * expected:.3g} %).", "", "", *number,
    )  # fmt: skip


def _hot_words(test: str, observed: float, expected: float) -> str:
    if test == "alone":
        return f"only {observed:.0f} of them stand alone where {expected:.0f} should"
    if test == "spike":
        return f"{observed:.0f} equal their brightest neighbour exactly where {expected:.0f} should"
    return f"{observed:.0f} pixels rise above all their neighbours while {expected:.0f} lie below all of theirs"


def _listing(words: Any) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
