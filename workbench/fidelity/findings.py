"""The rows of the raw report card: from what was measured to what it means for a beginner, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import GREENS
from ..core.settings import TITLES, in_words_of, setting_dim
from ..core.values import describe

OK, NOTICE, CHANGED, UNKNOWN = "as it should be", "worth knowing", "changed by the camera", "not known"
DARK_KINDS = ("bias", "dark", "darkflat")

_CLIPPED = 1e-3  # of bias or dark pixels at zero: more than noise puts there above any black level that is kept
_PEDESTAL = 32.0  # ADU: cameras that keep their black level keep more than that
_SURE = 3.0  # standard errors
_FACTOR = 2e-3  # of a multiplier: smaller differences do not matter
_DIGITAL = 1.4  # growth of the multiplier with ISO that is not chance
_COARSE = 0.1  # of the variance, added by rounding to coarse codes, that matters
_UNEVEN, _CHANCE = 20, 1e-6  # missing codes, and the probability of so many, that no one factor explains
_ALIKE, _ALIKE_SIGMAS = 0.02, 5.0  # correlation of neighbours; bright flats have up to 0.01 (brighter-fatter effect)
_BANDED = 0.1  # of the pixel noise: rows that an eye sees
_RARE = 1e-5
_COLOUR = {"R": "red", "G1": "green 1", "G2": "green 2", "G": "green", "B": "blue", "mono": "all pixels"}
_KIND = {"bias": "bias frames", "dark": "darks", "darkflat": "dark flats"}
_LINES = ("rows", "columns")
_NO_PAIRS = "Without two equal frames, noise and picture cannot be separated."
_SHOOT_PAIRS = "Shoot at least two equal frames, best ten bias frames."
_KEEP_OFFSET = "Use a firmware or a camera setting that keeps the offset; shoot bias frames to check that it does."


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


NO_LATTICE = Finding(UNKNOWN, "Not looked at: the colours of an X-Trans sensor lie on no regular lattice.", "", "")


def multiplied_codes(missing: xr.Dataset) -> Finding:
    """Report whether missing codes show that one colour is multiplied (`missing` from `missing_codes`)."""
    dim = setting_dim(missing)
    known = missing["relative"].dropna(dim, how="all")
    uneven = (missing["missing"] >= _UNEVEN) & (missing["p_value"] < _CHANCE) & missing["multiplier"].isnull()
    uneven &= ~missing["coarse"]  # codes that are coarser the brighter they are have a question of their own
    if uneven.any():
        count = int(missing["missing"].where(uneven).max())
        return Finding(
            CHANGED,
            f"Numbers are missing ({count} in one colour), at distances that are not regular: the camera applies a "
            "curve before saving, or does something that this tool does not know.",
            "Numbers that are not proportional to the light give wrong gains, noises, dark currents and linearity.",
            "Save without a tone curve and without compression.", p_value=float(missing["p_value"].where(uneven).min()),
        )  # fmt: skip
    if not known.sizes[dim]:
        text = "Too few numbers occur often enough to see whether any is missing."
        return Finding(UNKNOWN, text, "", "Give frames with more pixels, or flats at several levels.")
    lowest = known.isel({dim: 0})
    at = missing.sel({dim: lowest[dim]}) if np.isfinite(lowest[dim]) else missing.isel({dim: 0})
    error, period, p_value = (at[name].to_series() for name in ("multiplier_error", "period", "p_value"))
    # a difference from 1 below three errors is none; a missing multiplier is NaN
    factor = lowest.to_series()
    off = factor[(factor - 1).abs() > np.maximum(_SURE * error, _FACTOR)]
    if off.size:
        worst = (off - 1).abs().idxmax()
        factors = _listing(
            f"{_COLOUR.get(name, name)} × {value:.4g} (a gap every {period[name]:.3g} numbers)"
            for name, value in off.items()
        )
        return Finding(
            CHANGED,
            f"Numbers are missing at regular distances: the camera multiplies {factors} before saving.",
            f"A gain measured in {_listing(_COLOUR.get(name, name) for name in off.index)} comes out too low by that "
            "factor, and these colours clip earlier.",
            "Multiply the measured gain by the factor (the report does), or save without white-balance scaling.",
            float(off[worst]), float(error[worst]), "", float(p_value[worst]),
        )  # fmt: skip
    tested = int(at["tested"].min())
    if list(error.index) == ["mono"]:
        text = f"Every number occurs: none of {tested} or more tested is missing."
    elif bool(missing["coarse"].any()) or abs(float(at["multiplier"].mean()) - 1) > _FACTOR:
        text = f"All colours are treated alike: of {tested} or more numbers tested in each, the same are missing."
    else:
        text = f"Every number occurs: none of {tested} or more tested in each colour is missing."
    unseen = float(error.max())
    if unseen >= 0.02:
        text += f" A factor below {1 + unseen:.3g} would not have shown."
    return Finding(OK, text, "", "", 1.0, unseen, "", 1.0)


def black_level(
    counted: xr.Dataset, vanishing: tuple[float, float] = (math.nan, math.nan)
) -> tuple[Finding, bool | None]:
    """Report whether the black level was subtracted, and whether what fell below was clipped at zero.

    Of `count_codes`, bias frames and darks show it by their pixels at zero, other frames by pixels below the black
    level that the file states; so does the level, with its error [ADU], at which the noise of flats vanishes.
    """
    at_zero, mean = {}, {}
    for kind in np.unique(counted["kind"].values):
        pixels = counted["pixels"].values[counted["kind"].values == kind].sum((0, 1))
        at_zero[kind] = pixels[0] / pixels.sum()
        mean[kind] = float(pixels @ counted["code"].values / pixels.sum())
    for kind in DARK_KINDS:
        share = at_zero.get(kind, 0.0)
        if share > _CLIPPED:
            return Finding(
                CHANGED,
                f"{100 * share:.3g} % of the pixels of the {_KIND[kind]} are exactly zero: the camera subtracts "
                "its black level and cuts off what falls below.",
                "Half of the noise is lost: cut in the middle, a normal distribution keeps 0.58 of its standard "
                "deviation and its mean is not zero, so read noise reads 42 % low and faint light is lifted.",
                _KEEP_OFFSET, share, math.nan, "of the pixels at zero",
            ), True  # fmt: skip
        if mean.get(kind, 0.0) > _PEDESTAL:
            text = f"The {_KIND[kind]} lie at {mean[kind]:.0f} ADU, well above zero: the black level is kept."
            return Finding(OK, text, "", "", mean[kind], math.nan, "ADU"), False
    return _black_level_of_pictures(counted, vanishing, at_zero.get("flat", 0.0))


def _black_level_of_pictures(
    counted: xr.Dataset, vanishing: tuple[float, float], flats_at_zero: float
) -> tuple[Finding, bool | None]:
    """Report the same without bias frames and darks."""
    stated = np.broadcast_to(np.asarray(counted.attrs["black_level"], float), counted.sizes["channel"])
    level, error = vanishing
    text = f"The noise of the flats vanishes at {level:.1f} ± {error:.1f} ADU"
    if level + _SURE * error < _PEDESTAL:
        lowest = float(counted["pixels"].code[(counted["pixels"].sum(("group", "channel")) > 0).values].min())
        return Finding(
            CHANGED, f"{text}, and pixels go down to {lowest:g} ADU: the camera has subtracted its black level.",
            "Bias frames and darks of this camera will be cut off at zero: their standard deviation reads 42 % low, "
            "and faint light is lifted.",
            _KEEP_OFFSET, level, error, "ADU",
        ), True if flats_at_zero > _CLIPPED else None  # fmt: skip
    if level - _SURE * error > _PEDESTAL:
        return Finding(OK, f"{text}: the black level is kept.", "", "", level, error, "ADU"), False
    below = _share_below(counted, stated)
    if below > 0:
        text = (
            f"{100 * below:.2g} % of the pixels lie below the stated black level of {np.nanmin(stated):g} ADU, none is "
            "cut off at zero: the black level is kept."
        )
        return Finding(OK, text, "", "", float(np.nanmin(stated)), math.nan, "ADU"), False
    text = "These frames do not show whether the black level was subtracted."
    return Finding(UNKNOWN, text, "", "Shoot ten bias frames: shortest exposure, lens cap on."), None


def _share_below(counted: xr.Dataset, stated: np.ndarray) -> float:
    """Return the share of pixels below a stated black level; 0 where none is stated or numbers pile up at zero."""
    if not np.isfinite(stated).all() or stated.min() < 1:
        return 0.0
    pixels = counted["pixels"].sum("group").values
    if pixels[:, 0].sum() > 10 * max(1, pixels[:, 1:4].sum()):
        return 0.0
    below = sum(int(row[: int(level)].sum()) for row, level in zip(pixels, stated, strict=True))
    return below / max(1, int(pixels.sum())) if below > 100 else 0.0


def bits(missing: xr.Dataset, noise: np.ndarray | None = None) -> Finding:
    """Report how many bits the numbers really have (`missing_codes`), and whether coarse codes hide the noise.

    `noise` is its standard deviation [ADU] in each octave of levels (`smooth_noise`), where codes are coarse.
    """
    used = float(missing["bits"].max())
    if not math.isfinite(used):
        text = "Too few numbers occur often enough to count the bits in use."
        return Finding(UNKNOWN, text, "", "Give a bright flat.")
    top, white = float(missing["highest"].max()), missing.attrs["white_level"]
    # a few pixels may lie above the white level that the file states
    stored = math.ceil(math.log2((white if math.isfinite(white) and top < 1.2 * white else top) + 1))
    steps = missing["step"].where(missing["step"] > 0).max((setting_dim(missing), "channel")).values
    coarsest = np.nanmax(steps)
    ending = f"The numbers use {used:.3g} of the {stored} bits"
    if not math.isfinite(white) and not np.isfinite(missing["clipped_at"]).any():
        text = (
            f"The numbers come in steps of {coarsest:.3g} ADU up to {top:g}; how many bits they have shows when a "
            "frame is saturated or the file states its white level."
        )
        found = Finding(OK, text)
    elif bool(missing["coarse"].any()):
        found = _compressed(missing, steps, noise, f"{used:.3g} bits stand for {stored}")
    elif used > stored - 0.3:
        found = Finding(OK, f"{ending}.")
    else:
        effect = "Rounding adds noise of 0.29 of a step; nothing else is lost."
        found = Finding(NOTICE, f"{ending}: they come in steps of {coarsest:.3g}.", effect)
    return found._replace(value=used, unit="bit")


def _compressed(missing: xr.Dataset, steps: np.ndarray, noise: np.ndarray | None, ending: str) -> Finding:
    """Report codes that are coarser the brighter they are; `steps` [ADU] of each octave of levels."""
    finest = float(missing["multiplier"].fillna(np.nanmin(steps)).min())
    at = float(missing["level"][int(np.nanargmax(steps))])
    text = (
        f"The numbers are compressed: steps of {finest:.3g} ADU in the dark grow to {np.nanmax(steps):.3g} above "
        f"{at:g} ADU, and {ending}."
    )
    remedy = "Choose uncompressed or lossless RAW where the camera offers it."
    share, effect = math.nan, "Rounding adds noise of 0.29 of a step."
    if noise is not None:
        size = min(len(noise), len(steps))
        shares = steps[:size] ** 2 / 12 / np.where(noise[:size] > 0, noise[:size], np.nan) ** 2
        if np.isfinite(shares).any():
            share = float(np.nanmax(shares))
            effect = f"Rounding to them makes at most {100 * share:.2g} % of the variance of the noise."
    if share > _COARSE:
        effect += " A gain from bright flats comes out wrong."
        return Finding(CHANGED, f"{text} They are coarser than the noise.", effect, remedy)
    if abs(finest - round(finest)) > 0.02:
        effect += " No file shows whether the table is linear in light."
        text += " Even in the dark a step is not a whole number: the numbers come out of a table."
        return Finding(CHANGED, text, effect, remedy)
    return Finding(NOTICE, text, effect, remedy)


def white_level(missing: xr.Dataset) -> Finding:
    """Report at which number the pixels clip."""
    known = missing["clipped_at"].max(setting_dim(missing)).dropna("channel")
    stated = missing.attrs["white_level"]
    if not known.sizes["channel"]:
        highest = float(missing["highest"].max())
        return Finding(
            UNKNOWN, f"No frame is saturated (the highest number is {highest:g}).", "",
            "Shoot one overexposed frame to see where the camera clips.", highest, math.nan, "ADU",
        )  # fmt: skip
    lowest = float(known.min())
    found = _listing(f"{_COLOUR.get(name, name)} at {value:,.0f}" for name, value in known.to_series().items())
    if math.isfinite(stated) and lowest < 0.99 * stated:
        return Finding(
            NOTICE, f"Pixels pile up: {found} ADU, below the {stated:,.0f} that the file states.",
            "A program that trusts the file takes clipped stars for good ones, and tints them.",
            f"Give {lowest:,.0f} ADU as the white level.", lowest, math.nan, "ADU",
        )  # fmt: skip
    text = f"Pixels clip at the stated level: {found} ADU."
    if not math.isfinite(stated):
        text = f"Pixels clip: {found} ADU; the files state no white level."
    return Finding(OK, text, "", "", lowest, math.nan, "ADU")


def digital_iso(missing: xr.Dataset) -> Finding:
    """Report from which ISO, or gain setting, on numbers are multiplied instead of signals amplified."""
    dim = setting_dim(missing)
    green = [name for name in missing["channel"].values if name in GREENS]
    step = missing["multiplier"].sel(channel=green).mean("channel").dropna(dim)
    step = step.isel({dim: np.isfinite(step[dim].values)})
    if not step.sizes[dim]:
        text = "The frames record no ISO; cameras without that setting do not multiply by it."
        return Finding(UNKNOWN, text, "", "Where the camera has one, name it in frames.csv (column iso).")
    if step.sizes[dim] < 2:
        text = f"Frames of one {TITLES[dim]} do not show from which one on the camera only multiplies."
        return Finding(UNKNOWN, text, "", f"Give frames at several {TITLES[dim]}s.")
    factors = step.values / float(step.min())
    at = [describe({dim: setting}) for setting in step[dim].values]
    above = np.flatnonzero(factors > _DIGITAL)
    if not above.size:
        text = f"From {at[0]} to {step[dim].values[-1]:g} every number occurs: the amplifier does the work."
        return Finding(OK, text, "", "", 1.0, math.nan, "times")
    first = int(above[0])
    return Finding(
        NOTICE,
        f"From {at[first]} on the camera multiplies numbers (at {at[-1]} by {factors[-1]:.3g}) instead "
        "of amplifying the signal.",
        "Nothing is gained above the setting before: the same noise, and bright stars clip sooner.",
        f"Stay at or below {at[first - 1]}." if first else "", float(step[dim][first]), math.nan,
        in_words_of(dim, "ISO"),
    )  # fmt: skip


def bands(texture: xr.Dataset | None) -> Finding:
    """Report whether whole rows or columns have noise of their own (`texture` from `noise_texture`)."""
    if texture is None:
        return Finding(UNKNOWN, _NO_PAIRS, "", _SHOOT_PAIRS)
    largest = texture.isel(
        {name: int(at) for name, at in texture["band_noise"].argmax((setting_dim(texture), "axis")).items()}
    )
    value, error, chance = (float(largest[name]) for name in ("band_noise", "band_noise_error", "band_p_value"))
    tests, axis = texture["band_noise"].size, str(largest["axis"].item())
    peaks = texture["peak_p_value"].values
    least = np.unravel_index(np.argmin(peaks), peaks.shape)
    more = ""
    if peaks[least] * tests < _RARE:
        more = f" A wave of {1 / float(texture['peak'].values[least]):.3g} {_LINES[least[1]]} stands out."
    if "flat" in texture["kind"].values.tolist() and axis == "row":
        more += " (In flats a lamp that flickers does the same.)"
    number = (value, error, "of the pixel noise", min(1.0, chance * tests))
    seen = chance * tests < _RARE
    if seen and value > _BANDED:
        return Finding(
            NOTICE, f"Each {axis} has noise of its own, {100 * value:.2g} % of a pixel's.{more}",
            f"On single numbers little ({100 * value**2:.2g} % of the variance); the eye sees it as bands.",
            "Stack many dithered frames; bands do not average out over a picture, only over frames.", *number,
        )  # fmt: skip
    small = f"{100 * value:.2g} %" if seen else f"less than {100 * (value + 2 * error):.2g} %"
    text = f"The noise of whole rows and columns is too small to see: {small} of a pixel's noise.{more}"
    return Finding(OK, text, "", "", *number)


def neighbours(texture: xr.Dataset | None, smooth: tuple[float, float] = (math.nan, math.nan)) -> Finding:
    """Report whether neighbouring pixels share noise, as after a filter.

    Without the `noise_texture` of equal frames, correlation and error in the smoothest patches of one frame
    (`patch_correlation`) can clear a camera but not convict it.
    """
    own = "Each pixel's noise is its own"
    if texture is None:
        value, error = smooth
        if abs(value) < max(_ALIKE, 2 * error) and error < _ALIKE:
            text = (
                f"{own}: even in the smoothest patches of the picture neighbours correlate by {value:+.3f} ± "
                f"{error:.3f} only."
            )
            return Finding(OK, text, "", "", value, error)
        return Finding(UNKNOWN, _NO_PAIRS, "", _SHOOT_PAIRS)
    nearest = texture["correlation"].isel(lag=np.flatnonzero((texture["dy"] <= 1) & (abs(texture["dx"]) <= 1)))
    errors = texture["correlation_error"].sel(lag=nearest["lag"])
    strength, dim = abs(nearest) / errors, setting_dim(texture)
    at = {name: int(where) for name, where in strength.argmax(strength.dims).items()}
    value, error = float(nearest.isel(at)), float(errors.isel(at))
    number = (value, error, "", min(1.0, math.erfc(abs(value) / error / math.sqrt(2)) * nearest.size))
    found = f"correlation {value:+.3f} ± {error:.3f}"
    if abs(value) > max(_ALIKE, _ALIKE_SIGMAS * error):
        factor = float(texture["variance_factor"].isel({dim: at[dim]}).mean())
        return Finding(
            CHANGED, f"Neighbouring pixels of one colour share noise ({found}): the camera filters it.",
            f"The variance of single pixels reads {factor:.2g} times too small, and a gain from it as much too high.",
            "Switch off noise reduction; where that does not help, measure variance in blocks.", *number,
        )  # fmt: skip
    return Finding(OK, f"{own} (largest {found}).", "", "", *number)


def hot_pixels(hot: xr.Dataset | None) -> Finding:
    """Report whether the camera takes lone bright pixels away (`hot` from `hot_pixel_filter`)."""
    if hot is None:
        return Finding(UNKNOWN, "Only darks show it, and there are none.", "", "Shoot a dark of 30 s or longer.")
    bright = hot.attrs["bright_pixels"]
    observed, expected = (hot[name].to_series() for name in ("observed", "expected"))
    share = observed["alone"] / bright if bright else math.nan
    error = math.sqrt(share * (1 - share) / bright) if bright else math.nan
    number = (share, error, "of the bright pixels alone", float(hot.attrs["p_value"]))
    if hot.attrs["found"]:
        test = str(hot["test"].values[int(np.argmax(hot["positive"].values))])
        seen = {
            "alone": f"only {observed[test]:.0f} of them stand alone where {expected[test]:.0f} should",
            "spike": f"{observed[test]:.0f} equal their brightest neighbour exactly where {expected[test]:.0f} should",
            "extremes": f"{observed[test]:.0f} pixels rise above all their neighbours while {expected[test]:.0f} lie "
            "below all neighbours",
        }[test]
        return Finding(
            CHANGED, f"The camera removes lone bright pixels: {seen}.",
            "Small stars go with them, and the measured dark current and its hot pixels come out too low.",
            "Use exposures or modes without the filter (on Nikons below 1/4 s, or bulb with noise reduction off).",
            *number,
        )  # fmt: skip
    setting = describe({"exposure": hot.attrs["exposure"], "temperature": hot.attrs["temperature"]})
    if hot.attrs["found"] is None:
        why = f"has only {bright} bright pixels" if bright < 20 else "is exposed too briefly for such a filter"
        text = f"The dark of {setting} {why}, which is not enough to decide."
        return Finding(UNKNOWN, text, "", "Shoot a dark of 30 s or longer with the sensor warm.", *number)
    text = (
        f"In a dark of {setting} {100 * share:.3g} % of {bright} bright pixels stand alone, as they should (at least "
        f"{100 * expected['alone'] / bright:.3g} %)."
    )
    return Finding(OK, text, "", "", *number)


def _listing(names: Iterable[str]) -> str:
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
