"""Which numbers a camera saves: missing codes and the multiplier behind them, coarse codes, where it clips.

A converter gives every whole number.  A camera that multiplies its numbers by m before saving leaves codes out:
of a multiplier between 1 and 2 every s-th code is missing, m = s/(s − 1); of a larger one only every m-th code
occurs; one below 1 sends two numbers to one code, at every s-th code, m = s/(s + 1).  A camera that compresses its
numbers by a curve leaves out more codes the brighter they are.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import special
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter1d

from ..core.cube import GREENS, channels_of, check_cube, evenly, group_frames
from ..core.errors import WorkbenchError
from ..core.mosaic import planes
from ..core.noise import code_step
from ..core.parallel import counted, stream_frames
from ..core.results import per_channel, same_setting
from ..core.settings import setting_dim
from ..core.statistics import fit_line
from .findings import DARK_KINDS

ENOUGH = 12  # pixels at the codes on both sides of one, without which its absence proves nothing
_DOUBLED, _DOUBLED_ENOUGH = 1.5, 200
_REACHES = (2, 4, 8, 16, 32)  # how far off the neighbours may be: twice that is the coarsest step that is seen
_COVERED = 0.8  # of the pixels at well-filled codes whose absence could have been seen: else look further
_CHANCE = 1e-3  # that noise empties a code whose neighbours have `ENOUGH` pixels (Poisson: 3e-4)
_SIGNIFICANT = 1e-6
_PIXELS = 1 << 22  # that suffice of one kind at one ISO
_SETTINGS = 3  # exposures and temperatures of bias frames and darks looked at, at each ISO
_PILED_UP, _PILE = 10, 16  # times the fullest code nearby, and pixels: a pile-up
_NEARBY = 64
_FEWEST, _FEWEST_MISSING = 8, 3  # codes tested for a multiplier, missing ones among them
_FIRM, _GROWN = 50, 1.3  # codes tested of an octave for its step to be firm; growth of the step that is coarse
_COHERENT = 0.5  # of the rare codes must keep step with the period
_HIGHEST = 1 << 16
_VARIABLES = {
    "multiplier": ("1", "multiplier"),
    "multiplier_error": ("1", "error of the multiplier"),
    "relative": ("1", "multiplier relative to green"),
    "period": ("adu", "distance of missing or doubled codes"),
    "tested": ("1", "codes tested"),
    "missing": ("1", "codes missing"),
    "doubled": ("1", "codes doubled"),
    "p_value": ("1", "probability of so many missing codes by chance"),
    "lowest": ("adu", "lowest code"),
    "highest": ("adu", "highest code"),
    "clipped_at": ("adu", "code at which pixels pile up"),
    "bits": ("bit", "bits really used"),
}


def count_codes(cube: xr.DataArray, *, progress: Any = True) -> xr.Dataset:
    """Count how often each code occurs in raw frames (frame, y, x), for each channel and each setting.

    Bias frames and darks are counted apart by ISO, exposure and temperature (their narrow peaks, put together, would
    leave gaps that look like missing codes), other frames by ISO.  Of many frames some suffice: 4 million pixels of
    one kind at one ISO, spread over the settings; of flats and lights the longest exposed and one between at least.

    Returns
    -------
    xarray.Dataset
        ``pixels`` over (group, channel, code); on group ``kind``, ``iso``, ``exposure`` [s], ``temperature`` [°C] (NaN
        where they are put together) and ``frames``.

    Raises
    ------
    WorkbenchError
        If the frames are not raw, or not whole numbers from 0 to 65,535.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> cube = make_cube(np.array([[[7, 1], [2, 7]]], "uint16"), cfa_pattern="RGGB", kind="flat")
    >>> codes = count_codes(cube, progress=False)
    >>> codes.pixels.isel(group=0).sel(code=7).values.tolist()
    [1, 0, 0, 1]
    """
    check_cube(cube, stage="raw")
    if not np.issubdtype(cube.dtype, np.integer) or cube.dtype.itemsize > 2:
        raise WorkbenchError(
            f"these frames hold {cube.dtype} values; which codes a camera saves shows in its own 16-bit numbers only: "
            "give the files that the camera wrote"
        )
    pattern = cube.attrs["cfa_pattern"]
    channels = list(channels_of(pattern))
    groups = _groups(cube)
    order = [(number, frame) for number, (_, members) in enumerate(groups) for frame in members]
    counts = np.zeros((len(groups), len(channels), _HIGHEST), np.int64 if cube.size >> 31 else np.int32)
    frames = counted(stream_frames(cube.data[i] for _, i in order), progress, len(order))
    for (number, _), frame in zip(order, frames, strict=True):
        for channel, plane in planes(frame, pattern):
            counts[number, channel] += np.bincount(plane.ravel(), minlength=_HIGHEST)
    highest = int(np.flatnonzero(counts.any(axis=(0, 1))).max(initial=0))
    names = ("kind", setting_dim(cube), "exposure", "temperature")
    coords: dict[str, Any] = {name: ("group", np.array([setting[name] for setting, _ in groups])) for name in names}
    coords |= {"channel": channels, "code": np.arange(highest + 1)}
    data: dict[str, tuple] = {
        "pixels": (("group", "channel", "code"), counts[..., : highest + 1], {"long_name": "pixels with that code"}),
        "frames": ("group", [len(frames) for _, frames in groups], {"long_name": "frames counted"}),
    }
    kept = {name: cube.attrs[name] for name in ("camera", "black_level", "white_level")}
    return xr.Dataset(data, coords, {**kept, "long_name": "codes"})


def _groups(cube: xr.DataArray) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Return each setting with the numbers of the frames to count."""
    most = max(1, _PIXELS // (cube.sizes["y"] * cube.sizes["x"]))
    kinds = cube["kind"].values
    groups = []
    for kind in dict.fromkeys(kinds.tolist()):
        of_kind = np.flatnonzero(kinds == kind)
        for setting, frames in group_frames(cube.isel(frame=of_kind), setting_dim(cube)):
            here = of_kind[frames]
            if kind in DARK_KINDS:
                apart = group_frames(cube.isel(frame=here), "exposure", "temperature")
                share = max(1, most // min(len(apart), _SETTINGS))
                for other, members in (apart[which] for which in evenly(len(apart), _SETTINGS)):
                    groups.append(({"kind": kind, **setting, **other}, here[members[evenly(len(members), share)]]))
            else:
                brightest = here[np.argsort(np.nan_to_num(cube["exposure"].values[here]), kind="stable")][::-1]
                # from the longest exposed on: it shows where the camera clips
                members = brightest[evenly(len(brightest), 1 + max(2, most))[: max(2, most)]]
                groups.append(({"kind": kind, **setting, "exposure": np.nan, "temperature": np.nan}, members))
    return groups


class Gaps(NamedTuple):
    """Of each code: its absence would have been seen, it was missing; its doubling would have been seen, it doubled."""

    tested: np.ndarray
    missing: np.ndarray
    crowded: np.ndarray
    doubled: np.ndarray


def find_gaps(pixels: np.ndarray) -> Gaps:
    """Return which codes are missing or doubled in one histogram: codes far below, or above, those on both sides.

    A code is tested where codes on either side, no further away than the coarsest step seen there, have at least 12
    pixels; it is missing where it has less than a twelfth of them.  A single peak, however narrow, gives no gap.
    Doubled are codes with 1.5 times the pixels of the fuller of their two neighbours, which have 200 or more.

    Examples
    --------
    >>> levels = np.random.default_rng(1).poisson(400, 20_000)
    >>> gaps = find_gaps(np.bincount((levels * 1.2).round().astype(int)))
    >>> np.unique(np.diff(np.flatnonzero(gaps.missing)))
    array([6])
    """
    octave = _octave(np.arange(pixels.size))
    lesser = {reach: _lesser_neighbour(pixels, reach) for reach in _REACHES}
    chosen = np.zeros(pixels.size, pixels.dtype)
    filled = pixels >= ENOUGH
    for number in np.unique(octave[filled]):
        here = octave == number
        mass = pixels[here & filled].sum()
        for reach in _REACHES:
            seen = here & filled & (lesser[reach] >= ENOUGH)
            if pixels[seen].sum() >= _COVERED * mass:
                chosen[here] = lesser[reach][here]
                break
    tested = chosen >= ENOUGH
    missing = tested & (pixels < chosen / ENOUGH)
    sides = np.append(0, pixels[:-1]), np.append(pixels[1:], 0)
    crowded = np.minimum(*sides) >= _DOUBLED_ENOUGH
    doubled = crowded & (pixels > _DOUBLED * np.maximum(*sides))
    return Gaps(tested, missing, crowded, doubled)


def _lesser_neighbour(pixels: np.ndarray, reach: int) -> np.ndarray:
    """Return the lesser of the fullest codes within reach on the left and on the right of each code."""
    padded = np.pad(pixels, reach)
    # the largest of the `reach` codes ending at each place
    ending = maximum_filter1d(padded, reach, origin=(reach - 1) // 2, mode="constant")
    left = np.append(0, ending[:-1])
    right = np.roll(ending, -reach)
    return np.minimum(left, right)[reach:-reach]


def missing_codes(codes: xr.Dataset) -> xr.Dataset:
    """Find the codes that are missing in `count_codes`, the multiplier they imply, and how coarse codes are by level.

    Of a multiplier m a share 1/m of the codes occurs.  Where the missing ones recur at one distance s, 1/m is refined
    to the frequency at which occurring and missing codes alternate; its error is that of a straight line through
    their positions.  Codes are *coarse*, as of a camera that compresses its numbers by a curve, where their distance
    grows with the level by more than 30 % in any channel; the multiplier is then that of the levels below.  Codes of a
    converter of 12 or 14 bits that are saved in 16 are multiples of 16 or 4 (``attrs["padding"]``): it alone can leave
    out others, and the multiplier is that of its own numbers.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``multiplier``, 1 where every code occurs, NaN where too few could be tested or the
        missing ones keep to no one distance, with
        ``multiplier_error`` (where every code occurs, the excess over 1 that would have gone unseen);
        ``relative``, the multiplier over that of green; ``period`` of the missing or doubled codes [ADU]; ``tested``,
        ``missing`` and ``doubled`` codes; ``p_value``, of so many missing by chance; ``lowest`` and ``highest`` code;
        ``clipped_at``, the code at which pixels pile up, NaN where none does; ``bits``, log₂ of how many different
        numbers the camera can save.  Over (iso, channel, level): ``step``, the mean distance of occurring codes [ADU]
        in each octave of levels.  Over iso: ``coarse``.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> y = np.random.default_rng(1).poisson(400, (1, 256, 256)) * np.tile([[1.12, 1], [1, 1.16]], (128, 128))
    >>> cube = make_cube(y.round().astype("uint16"), cfa_pattern="RGGB", kind="flat", iso=100)
    >>> missing_codes(count_codes(cube, progress=False)).multiplier.round(2).values.tolist()
    [[1.12, 1.0, 1.0, 1.16]]
    """
    dim = setting_dim(codes)
    settings = np.unique(codes[dim].values)
    counts, padding, first = _without_padding(codes["pixels"].values)
    octaves = np.arange(_octave(counts.shape[-1] - 1) + 1)
    rows, steps, coarse = [], [], []
    for setting in settings:
        pixels = counts[same_setting(codes[dim].values, setting)]
        every = [_joined([find_gaps(one) for one in group]) for group in pixels.swapaxes(0, 1)]
        found = [_steps(gaps, octaves) for gaps in every]
        ends = [_ends(group) for group in pixels.sum(axis=0)]
        rows.append([_multiplier(gaps, even) | end for gaps, (_, even), end in zip(every, found, ends, strict=True)])
        steps.append([step for step, _ in found])
        coarse.append(not all(even.all() for _, even in found))
    attrs = codes.attrs | {"padding": padding, "long_name": "missing codes"}
    result = per_channel(_VARIABLES, rows, {dim: settings}, codes["channel"].values.tolist(), **attrs)
    level = np.where(octaves > 0, 2.0 ** (octaves - 1), 0) * padding
    result = result.assign_coords(level=("level", level, {"units": "adu", "long_name": "from this code on"}))
    result["step"] = (
        (dim, "channel", "level"),
        np.array(steps),
        {"units": "adu", "long_name": "mean distance of codes"},
    )
    result["coarse"] = (dim, np.array(coarse), {"long_name": "whether bright codes are coarser"})
    green = result["multiplier"].sel(channel=result["channel"].isin(list(GREENS))).mean("channel")
    result["relative"][:] = result["multiplier"] / green.where(green > 0)
    # one curve for all colours: what the brightest of them shows holds for the others
    filled = result["step"].fillna(result["step"].mean("channel")).where(result["coarse"], result["step"])
    result["bits"][:] = xr.apply_ufunc(
        partial(_bits, octaves, attrs["white_level"] / padding), filled, result["clipped_at"], result["highest"],
        input_core_dims=[["level"], [], []], vectorize=True,
    )  # fmt: skip
    for name in ("step", "period"):
        result[name][:] = padding * result[name]
    for name in ("lowest", "highest", "clipped_at"):
        result[name][:] = np.minimum(padding * result[name] + first, _HIGHEST - 1)
    return result


def _without_padding(pixels: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return the histograms (..., code) over the codes that a padded converter can save, their step and the first."""
    codes = np.flatnonzero(pixels.any(axis=tuple(range(pixels.ndim - 1))))
    step = code_step(codes)
    if step < 2:
        return pixels, 1, 0
    first = int(codes[0]) % step
    kept = pixels[..., first::step].copy()
    if codes[-1] % step != first:  # cut off at the file's highest number, between two codes
        kept[..., -1] += pixels[..., codes[-1]]
    return kept, step, first


def _octave(code: Any) -> Any:
    """Return the number of binary digits: 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7."""
    return np.frexp(code)[1]


def _joined(parts: list[Gaps]) -> Gaps:
    """Join the groups of one ISO: a code is missing, or doubled, where it is in most of the groups that test it."""
    tested, missing, crowded, doubled = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
    return Gaps(
        tested > 0, (missing > 0) & (2 * missing >= tested), crowded > 0, (doubled > 0) & (2 * doubled >= crowded)
    )


def _steps(gaps: Gaps, octaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean distance of occurring codes in each octave, and which codes lie where it has not grown yet."""
    number = _octave(np.arange(gaps.tested.size))
    tested = np.bincount(number, gaps.tested, octaves.size)
    found = np.bincount(number, gaps.tested & ~gaps.missing, octaves.size)
    step = np.where(tested > 0, tested / np.maximum(found, 0.5), np.nan)
    firm = np.flatnonzero(tested >= _FIRM)
    even = np.ones(gaps.tested.size, bool)
    if firm.size:
        grown = firm[step[firm] > _GROWN * np.minimum.accumulate(step[firm])]
        if grown.size:
            even = number < grown[0]
    return step, even


def _multiplier(gaps: Gaps, even: np.ndarray) -> dict[str, float]:
    """Return the multiplier of one channel at one ISO, from the gaps among the `even` codes."""
    tested, missing, crowded, doubled = (part & even for part in gaps)
    total, absent, twice = (int(np.count_nonzero(part)) for part in (tested, missing, doubled))
    p_value = float(special.bdtrc(absent - 1, total, _CHANCE)) if absent else 1.0
    one = {"tested": total, "missing": absent, "doubled": twice, "p_value": p_value, "period": np.nan}
    if total < _FEWEST:
        return one | {"multiplier": np.nan, "multiplier_error": np.nan}
    if absent >= _FEWEST_MISSING and p_value < _SIGNIFICANT:
        return one | _from_missing(tested, missing)
    if twice >= _FEWEST_MISSING + 1:
        codes = np.flatnonzero(crowded)
        share = 1 - twice / codes.size
        period, error = _period(codes, ~doubled[crowded], np.flatnonzero(doubled), share)
        if np.isfinite(period):
            multiplier = period / (period + 1)
            return one | {"multiplier": multiplier, "period": period, "multiplier_error": error / (period + 1) ** 2}
    return one | {"multiplier": 1.0, "multiplier_error": 1 / total}


def _from_missing(tested: np.ndarray, missing: np.ndarray) -> dict[str, float]:
    """Return a multiplier above 1, of which a share 1/m of the codes occurs, and the period of the rarer ones.

    NaN where they keep to no one distance, as after a curve.
    """
    codes = np.flatnonzero(tested)
    share = 1 - np.count_nonzero(missing) / codes.size
    rare = np.flatnonzero(missing if share > 0.5 else tested & ~missing)
    period, error = _period(codes, ~missing[tested], rare, share)
    if not np.isfinite(period):  # missing, yet at no one distance: no factor does that
        return {"multiplier": np.nan, "period": np.nan, "multiplier_error": np.nan}
    if share > 0.5:
        error /= (period - 1) ** 2
    multiplier = period / (period - 1) if share > 0.5 else period
    return {"multiplier": multiplier, "period": period, "multiplier_error": error}


def _period(tested: np.ndarray, present: np.ndarray, rare: np.ndarray, share: float) -> tuple[float, float]:
    """Return the distance at which the rare codes recur, with its error; NaN where they do not keep to one."""
    frequency = min(share, 1 - share)
    span = tested[-1] - tested[0] + 1
    # a comb has overtones as strong as its tone: keep well below the first
    reach = min(max(0.02, 5 * np.sqrt(share * (1 - share) / tested.size)), 0.45 * frequency)
    place = tested - tested[0]
    size = next_fast_len(16 * int(span), real=True)
    signal = np.zeros(int(span))
    signal[place] = present - present.mean()
    wave = np.abs(np.fft.rfft(signal, size))
    trial = np.arange(wave.size) / size
    wave[(trial < max(frequency - reach, 0.5 / span)) | (trial > frequency + reach)] = 0
    best = trial[np.argmax(wave)]
    # the order of each rare code along a comb of that frequency, and a line through their positions
    phase = np.angle(np.sum(np.exp(2j * np.pi * best * rare))) / (2 * np.pi)
    order = np.round(best * rare - phase)
    if np.unique(order).size < 2 or wave.max() < _COHERENT * rare.size * max(share, 1 - share):
        return np.nan, np.nan
    line = fit_line(order, rare)
    slope = float(line.slope)
    # rounding to whole codes alone scatters the positions by 0.29
    scatter = max(float(np.std(rare - slope * order)), np.sqrt(1 / 12))
    return slope, float(scatter * np.sqrt(line.slope_variance))


def _ends(pixels: np.ndarray) -> dict[str, float]:
    """Return the lowest and the highest code, and the one at which the pixels of the bright half pile up."""
    found = np.flatnonzero(pixels)
    if not found.size:
        return {}
    top = int(found[-1])
    fullest = top // 2 + int(np.argmax(pixels[top // 2 :]))
    around = np.append(pixels[max(fullest - _NEARBY, 0) : fullest], pixels[fullest + 1 : fullest + 1 + _NEARBY])
    piled = pixels[fullest] >= max(_PILE, _PILED_UP * around.max(initial=0)) and top > _NEARBY
    return {"lowest": float(found[0]), "highest": float(top), "clipped_at": float(fullest) if piled else np.nan}


def _bits(octaves: np.ndarray, white: float, step: np.ndarray, clipped: float, highest: float) -> float:
    """Return log₂ of how many codes occur up to the white level, taking untested octaves like their neighbours."""
    known = np.isfinite(step)
    if not known.any():
        return np.nan
    top = next(value for value in (clipped, white, highest) if np.isfinite(value))
    number = np.arange(_octave(int(top)) + 1)
    steps = np.interp(number, octaves[known], step[known])
    low, high = np.where(number > 0, 2.0 ** (number - 1), 0), np.where(number > 0, 2.0**number, 1)
    return float(np.log2(np.sum((np.minimum(high, top + 1) - low) / steps)))
