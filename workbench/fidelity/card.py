"""The raw report card: what the camera did to its numbers before saving them, and what that does to measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.cube import check_cube, is_xtrans
from ..core.errors import FrameReadError, Guess, WorkbenchError
from ..core.mosaic import planes, tiles
from ..core.pairs import jackknife_error, leave_one_out, pair_moments
from ..core.parallel import stream_frames
from ..core.results import same_setting
from ..core.settings import setting_dim
from ..core.statistics import fit_line
from . import findings
from .codes import count_codes, missing_codes
from .findings import CHANGED, NOTICE, OK, UNKNOWN, Finding
from .texture import hot_pixel_filter, noise_texture

_PATCH = 16  # pixels of a channel

TESTS = {
    "codes": "Is any colour multiplied?",
    "black": "Is the black level kept?",
    "bits": "How many bits are really used?",
    "white": "Where does it clip?",
    "digital-iso": "Are high settings amplified, or multiplied?",
    "bands": "Do rows and columns have noise of their own?",
    "neighbours": "Is the noise filtered?",
    "hot-pixels": "Are hot pixels left alone?",
}


class Fidelity(NamedTuple):
    """The report card and what it rests on.

    ``card`` has, over test, ``status`` (`OK`, `NOTICE`, `CHANGED` or `UNKNOWN`), the sentences ``finding``, ``effect``
    (on measurements) and ``remedy`` (what to do, or to shoot), a number: ``value`` with ``error`` and ``unit``, and
    ``p_value``; its attribute ``verdict`` is ``raw`` or ``cooked``.  The others are what `count_codes`,
    `missing_codes`, `noise_texture` and `hot_pixel_filter` gave; the last two are None where frames for them are
    missing.
    """

    card: xr.Dataset
    codes: xr.Dataset
    missing: xr.Dataset
    texture: xr.Dataset | None
    hot: xr.Dataset | None


def inspect_frames(frames: xr.DataArray, *, ptc: xr.Dataset | None = None, progress: Any = True) -> Fidelity:
    """Find what a camera does to its numbers before it saves them, from whatever frames there are.

    Parameters
    ----------
    frames
        Raw frames (frame, y, x) of any kinds and settings of one camera.  Bias frames and a long dark show most.
    ptc
        From `sensor.photon_transfer`; without bias frames or darks it shows whether the black level was subtracted.
    progress
        False for no progress bar.

    Raises
    ------
    WorkbenchError
        If the frames are not raw or not whole numbers.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> rng = np.random.default_rng(1)
    >>> clipped = np.maximum(rng.normal(0, 4, (4, 128, 128)), 0).round().astype("uint16")
    >>> report = inspect_frames(make_cube(clipped, cfa_pattern="RGGB", kind="bias", iso=100), progress=False)
    >>> report.card.attrs["verdict"], report.card.status.sel(test="black").item()
    ('cooked', 'changed by the camera')
    """
    check_cube(frames, stage="raw")
    codes = count_codes(frames, progress=progress)
    missing = missing_codes(codes)
    kinds = frames["kind"].values
    try:
        texture = noise_texture(frames, progress=progress)
    except FrameReadError:
        raise
    except WorkbenchError:  # no equal frames: the card says so
        texture = None
    looked = (kinds == "dark").any() and not is_xtrans(frames.attrs["cfa_pattern"])
    hot = hot_pixel_filter(frames.isel(frame=kinds == "dark")) if looked else None
    black, clipped = findings.black_level(codes, vanishing_level(ptc) if ptc is not None else (math.nan, math.nan))
    single = None if texture is not None and not bool(missing["coarse"].any()) else _brightest_picture(frames)
    pattern = frames.attrs["cfa_pattern"]
    smooth = (math.nan, math.nan) if single is None or texture is not None else patch_correlation(single, pattern)
    rows = {
        "codes": findings.multiplied_codes(missing),
        "black": black,
        "bits": findings.bits(missing, None if single is None else smooth_noise(single, pattern)),
        "white": findings.white_level(missing),
        "digital-iso": findings.digital_iso(missing),
        "bands": findings.bands(texture),
        "neighbours": findings.neighbours(texture, smooth),
        "hot-pixels": findings.hot_pixels(hot),
    }
    if is_xtrans(pattern):
        rows |= {n: findings.NO_LATTICE for n in ("bands", "neighbours", "hot-pixels") if rows[n].status == UNKNOWN}
    card = _card(rows, clipped, frames.attrs["camera"], mono=pattern == "mono")
    return Fidelity(card, codes, missing, texture, hot)


def _brightest_picture(frames: xr.DataArray) -> np.ndarray:
    """Return one picture (y, x): the light, else the flat, else the other frame of longest exposure."""
    kinds, exposure = frames["kind"].values, np.nan_to_num(frames["exposure"].values)
    rank = [(kind == "light") * 2 + (kind == "flat") for kind in kinds]
    return next(stream_frames([frames.data[int(np.lexsort((exposure, rank))[-1])]]))


def _card(found: dict[str, Finding], clipped: bool | None, camera: str, *, mono: bool) -> xr.Dataset:
    rows = [found[name]._asdict() for name in TESTS]
    data: dict[str, Any] = {
        name: ("test", np.array([row[name] for row in rows], object if isinstance(rows[0][name], str) else float))
        for name in Finding._fields
    }
    questions = TESTS | ({"codes": "Are the numbers multiplied?"} if mono else {})
    data["question"] = ("test", np.array(list(questions.values()), object))
    changed = [name for name, row in found.items() if row.status == CHANGED]
    attrs = {
        "camera": camera,
        "long_name": "raw report card",
        "verdict": "cooked" if changed else "raw",
        "changed": changed,
        "unknown": [name for name, row in found.items() if row.status == UNKNOWN],
        "clipped_at_zero": clipped,
    }
    return xr.Dataset(data, {"test": list(TESTS)}, attrs)


def smooth_noise(frame: np.ndarray, cfa_pattern: str) -> np.ndarray:
    """Return the noise [ADU] at each octave of levels (0, 1, 2 to 3, ...), from the smoothest patches of one frame.

    From second differences along rows of one colour, (2p(x) − p(x−1) − p(x+1))/√6, in patches of 16 x 16 pixels: the
    fifth part with the smallest deviation.  Detail in the picture makes it too large, never much too small.  NaN at
    levels that the frame does not have.

    Examples
    --------
    >>> frame = np.random.default_rng(1).normal(1500, 20, (256, 256))
    >>> smooth_noise(frame, "mono")[11].round()
    np.float64(19.0)
    """
    noise = np.full(17, np.nan)
    for octave, patches in _patches(frame, cfa_pattern).items():
        if len(patches) >= 10:
            second = (2 * patches[..., 1:-1] - patches[..., :-2] - patches[..., 2:]) / np.float32(np.sqrt(6))
            noise[octave] = np.quantile(second.std(axis=(1, 2)), 0.2)
    return noise


def patch_correlation(frame: np.ndarray, cfa_pattern: str) -> tuple[float, float]:
    """Return how neighbours of one colour correlate in the smoothest patches of one frame, with the error.

    The larger of the correlations to the right and below, in the fifth part of the patches that deviate least from
    a plane, which is taken away, in the octave of levels where it is smallest.  A filter would show at
    all levels, picture detail does where there is some: a small value clears the camera, a large one proves nothing.
    NaN where there are too few patches.
    """
    y, x = np.mgrid[:_PATCH, :_PATCH] - (_PATCH - 1) / 2
    plane, _ = np.linalg.qr(np.stack([np.ones(_PATCH**2), y.ravel(), x.ravel()], axis=1).astype(np.float32))
    best = (np.nan, np.nan)
    for patches in _patches(frame, cfa_pattern).values():
        flat = patches.reshape(len(patches), -1)
        flat = flat - flat @ plane @ plane.T
        spread = np.mean(flat**2, axis=1)
        smooth = spread <= np.quantile(spread, 0.2)
        count = np.count_nonzero(smooth)
        if count < 30:
            continue
        rest, variance = flat[smooth].reshape(-1, _PATCH, _PATCH), float(spread[smooth].mean())
        # a plane has three of the 256 degrees of freedom: without it white noise correlates by −3/256
        found = [
            float(np.mean(a * b)) / variance + 3 / _PATCH**2
            for a, b in ((rest[..., 1:], rest[..., :-1]), (rest[:, 1:], rest[:, :-1]))
        ]
        value = max(found, key=abs)
        if not abs(value) > abs(best[0]):  # the first of them, too
            best = (value, float(1 / np.sqrt(count * _PATCH * (_PATCH - 1))))
    return best


def _patches(frame: np.ndarray, cfa_pattern: str) -> dict[int, np.ndarray]:
    """Return the patches (patch, y, x) [ADU] of all colours by the octave of their median, in rising order."""
    parts = [tiles(p.astype(np.float32), _PATCH).reshape(-1, _PATCH, _PATCH) for _, p in planes(frame, cfa_pattern)]
    patches = np.concatenate(parts)
    octave = np.frexp(np.clip(np.median(patches, axis=(1, 2)), 0, 65535).astype(int))[1]
    return {int(number): patches[octave == number] for number in np.unique(octave)}


def vanishing_level(ptc: xr.Dataset) -> tuple[float, float]:
    """Return the level [ADU] at which the variance of flats comes to zero, with its error.

    −intercept/slope of a line through the variance of pairs against their mean as read, weights 1/variance of what the
    line predicts, below 70 % of the brightest level; the mean over ISO settings and channels.  It is the black level
    less the read noise's share σ²g (a few ADU).  Errors are jackknifed over blocks of rows.
    """
    levels, weights = [], []
    settings = ptc[setting_dim(ptc)].values
    for setting in np.unique(settings):
        here = ptc.isel(pair=np.flatnonzero(same_setting(settings, setting)))
        for channel in ptc["channel"].values:
            sums = here["sums_plain"].sel(channel=channel).transpose("pair", "block", "moment").values
            whole = pair_moments(sums.sum(axis=1))
            mean = (whole.mean1 + whole.mean2) / 2
            good = (here["saturated_fraction"].sel(channel=channel).values < 1e-4) & (mean < 0.7 * mean.max())
            if np.unique(mean[good].round()).size < 3:
                continue
            level = float(_x_intercept(mean[good], whole.half_variance[good]))
            parts = pair_moments(np.moveaxis(leave_one_out(sums[good], axis=1), 1, 0))  # (block, pair)
            error = float(jackknife_error(_x_intercept((parts.mean1 + parts.mean2) / 2, parts.half_variance)))
            if math.isfinite(level) and error > 0:
                levels.append(level)
                weights.append(error**-2)
    if not levels:
        return math.nan, math.nan
    total = float(np.sum(weights))
    mean_level = float(np.dot(levels, weights) / total)
    scatter = float(np.dot(weights, (np.array(levels) - mean_level) ** 2)) / max(1, len(levels) - 1)
    return mean_level, math.sqrt(max(1.0, scatter) / total)


def _x_intercept(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return where lines through points (..., pair) cross zero, weighted by the inverse square of what they predict."""
    predicted = variance
    for _ in range(8):
        line = fit_line(mean, variance, 1 / predicted**2)
        predicted = np.maximum(line.intercept[..., None] + line.slope[..., None] * mean, 1e-3 * variance)
    return np.where(line.slope > 0, -line.intercept / line.slope, math.nan)


def descaled_gain(gain: xr.Dataset, missing: xr.Dataset) -> xr.Dataset:
    """Return the gain with ``gain_descaled`` [e⁻/ADU], the gain without the camera's multiplication of that colour.

    Photon transfer (`fit_gain`) of numbers multiplied by m gives g/m; the multiplier relative to green
    (`missing_codes`), at the same ISO or the lowest, undoes that.  The error has the multiplier's in it.
    """
    dims = (setting_dim(gain), "channel")
    known = missing[["relative", "multiplier_error"]].reindex({name: gain[name] for name in dims})
    factor, error = known["relative"].fillna(relative_multiplier(missing)), known["multiplier_error"].fillna(0.0)
    share = np.hypot(gain["gain_error"] / gain["gain"], error.where(factor != 1, 0.0) / factor)
    value = gain["gain"] * factor
    about = {
        "gain_descaled": (value, "gain without the camera's factors"),
        "gain_descaled_error": (value * share, "error of the descaled gain"),
    }
    return gain.assign(
        {
            name: (dims, data.transpose(*dims).values, {"units": "electron / adu", "long_name": title})
            for name, (data, title) in about.items()
        }
    )


def relative_multiplier(missing: xr.Dataset) -> xr.DataArray:
    """Return by which factor each channel is multiplied relative to green, at the lowest ISO that shows it."""
    dim = setting_dim(missing)
    known = missing["relative"].dropna(dim, how="any")
    return known.isel({dim: 0}, drop=True) if known.sizes[dim] else missing["relative"].max(dim) * math.nan


def true_causes(warnings: Sequence[str], report: Fidelity | None) -> list[str]:
    """Return the warnings of a measurement with the causes that the report card shows, and without those it excludes.

    After a curve in the camera no number is proportional to light or time; after a filter of hot pixels the darks hold
    less the longer they are.  Neither is a lamp, a warm sensor or a flickering pixel.
    """
    if report is None:
        return list(warnings)
    card = report.card
    changed = dict(zip(card["test"].values.tolist(), card["status"].values == CHANGED, strict=True))
    finding = {name: card["finding"].sel(test=name).item().rstrip(".") for name in ("hot-pixels", "codes")}
    named = list(warnings)
    if changed["hot-pixels"]:
        named = [
            f"{finding['hot-pixels']}: dark current, DCNU and hot pixels of its darks are too low, which no error here "
            "holds; shoot with the camera's noise reduction off, or in bulb mode where that avoids it",
            *(
                f"{text.facts}; the camera's filter of bright pixels does this"
                if isinstance(text, Guess) and text.blamed == "warmth"
                else text
                for text in named
            ),
        ]
    if changed["codes"] and math.isnan(float(card["value"].sel(test="codes"))):
        named = [
            f"{finding['codes']}: the numbers are not proportional to the light; gain, read noise, full well, "
            "linearity and dark current are not the sensor's, which no error here holds",
            *(text for text in named if not isinstance(text, Guess)),
        ]
    return named


def fidelity_to_json(report: Fidelity) -> dict[str, Any]:
    """Return the report card as it stands in ``sensor.json``: plain numbers, None for what is not known.

    ``verdict`` (``raw`` or ``cooked``), ``multiplier`` by channel, ``black_subtracted``, ``clipped_at_zero``,
    ``hot_pixel_filter``, ``filtered_noise``, ``coarse_codes``, ``bits``, ``white_level`` [ADU] by channel where pixels
    pile up, ``digital_iso``, ``row_noise`` and ``column_noise`` (of the pixel noise), and ``tests``, the whole card.
    """
    card, missing = report.card, report.missing
    status = dict(zip(card["test"].values.tolist(), card["status"].values.tolist(), strict=True))
    yes = {OK: False, NOTICE: False, CHANGED: True, UNKNOWN: None}
    channels = [str(name) for name in missing["channel"].values]
    factors = relative_multiplier(missing)
    bands: dict[str, Any] = {"row_noise": None, "column_noise": None}
    if report.texture is not None:
        first = report.texture.isel({setting_dim(report.texture): 0})
        for name, axis in (("row_noise", "row"), ("column_noise", "column")):
            noise, error = (float(first[key].sel(axis=axis)) for key in ("band_noise", "band_noise_error"))
            bands[name] = {"value": noise, "error": error, "unit": "of the pixel noise"}
    value, p_value = (dict(zip(status, card[name].values, strict=True)) for name in ("value", "p_value"))
    return {
        "verdict": card.attrs["verdict"],
        "multiplier": {name: _number(factors.sel(channel=name), 4) for name in channels},
        "black_subtracted": yes[status["black"]],
        "clipped_at_zero": card.attrs["clipped_at_zero"],
        "hot_pixel_filter": yes[status["hot-pixels"]],
        "filtered_noise": yes[status["neighbours"]],
        "coarse_codes": bool(missing["coarse"].any()),
        "bits": _number(value["bits"], 2),
        "white_level": {name: _number(missing["clipped_at"].sel(channel=name).max(), 0) for name in channels},
        "digital_iso": _number(value["digital-iso"], 0) if status["digital-iso"] == NOTICE else None,
        **bands,
        "tests": [
            {
                "test": name,
                **{key: str(card[key].sel(test=name).item()) for key in ("status", "finding", "effect", "remedy")},
                "value": _number(value[name], 6),
                "p_value": _number(p_value[name], 9),
            }
            for name in TESTS
        ],
    }


def _number(value: Any, digits: int) -> float | None:
    """Return a plain rounded number, or None where there is none."""
    return round(float(value), digits) if math.isfinite(value) else None
