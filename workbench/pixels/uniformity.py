"""DSNU and PRNU of a camera's bias frames and flats, with their row, column and pixel parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import ndimage

from ..core.cube import black_levels, channels_of, check_cube, group_frames, is_xtrans, take_frames
from ..core.errors import WorkbenchError
from ..core.kernels import kernel
from ..core.mosaic import tiles
from ..core.parallel import frame_memory, in_threads
from ..core.results import at_iso, same_setting
from ..core.settings import setting_dim
from ..core.statistics import even_sample, fit_lens, mad_std
from ..core.values import describe
from .spatial import (
    INNER,
    MARGIN,
    PARTS,
    SMALLEST,
    Spatial,
    common_parts,
    deviation_products,
    highpass,
    inner_lowpass,
    lowpass,
    standard_deviations,
    total_alone,
)
from .stacks import FrameStack, stack_cube

FILTERS = ("none", "highpass")
_ODD = 4.0  # robust standard deviations beyond which a pixel's own response shows no dust
_SAMPLE = 400_000  # pixels that suffice for a median
_BLOCKS = 32  # along the shorter side, for the vignetting model
_HALF = 0.5  # of saturation: where the standard takes its flats
_NO_LINES = ["DSNU and PRNU are given in all, not by rows and columns: a colour of X-Trans has none"]
_TOO_BRIGHT = 1e-3  # of the pixels saturated: more, and a flat shows the white level and not the pixels


def _deviations(stack: FrameStack, kind_and_channel: tuple[int, int]) -> Spatial:
    kind, channel = kind_and_channel
    return _roots(stack.common(channel, filtered=kind == 1), stack.pattern, filtered=kind == 1)


def _roots(found: Spatial, pattern: str, *, filtered: bool) -> Spatial:
    return total_alone(found, filtered=filtered) if is_xtrans(pattern) else standard_deviations(found)


def measure_dsnu(
    bias: xr.DataArray | Mapping[float, FrameStack],
    gain: xr.Dataset | None = None,
    *,
    dim: str = "iso",
    progress: Any = True,
) -> xr.Dataset:
    """Measure the dark-signal non-uniformity of each ISO or gain setting: how much the pixels' black levels differ.

    The spatial standard deviation of the pixels' means without temporal noise: the covariance between the means of
    the even and of the odd frames, in which noise has no part.  Plain (``filter`` "none") and high-passed as EMVA 1288
    release 4.0 (linear, section 8.1) has it; in all (``part`` "total") and in rows, columns, single pixels (8.2).
    Errors are of these very pixels: what noise leaves open, and the gain's.  Of darks of one exposure it is the DSNU
    at that exposure.  Of X-Trans, whose colours have no rows and columns, there is the total alone.

    Parameters
    ----------
    bias
        Two or more bias frames (or equal darks) of each setting, or the stacks of them by setting.
    gain
        From `fit_gain`; without it what is in electrons is NaN.
    dim
        What stacks are distinguished by: ``iso`` or ``gain_setting``.

    Returns
    -------
    xarray.Dataset
        ``dsnu`` [e⁻] and ``dsnu_adu`` [ADU] over (iso, filter, channel, part), each with ``_error``; ``frames`` (iso).
        attrs ``warnings``.

    Raises
    ------
    WorkbenchError
        If the frames are not raw frames.

    Examples
    --------
    >>> from workbench.simulate import d7000, expose
    >>> from workbench.core.cube import make_cube
    >>> camera = d7000(shape=(128, 192))
    >>> frames = [expose(camera, iso=100, exposure=1 / 8000, seed=n) for n in range(16)]
    >>> found = measure_dsnu(make_cube(frames, cfa_pattern="RGGB", kind="bias", iso=100), progress=False)
    >>> found.dsnu_adu.sel(iso=100, filter="none", part="total").values.round(1)
    array([0.4, 0.4, 0.4, 0.4])
    """
    warnings: list[str] = []
    dim = dim if isinstance(bias, Mapping) else setting_dim(bias)
    stacks, pattern = _by_setting(bias, warnings, progress)
    warnings += _NO_LINES if is_xtrans(pattern) else []
    names = channels_of(pattern)
    shape = (len(stacks), len(FILTERS), len(names), len(PARTS))
    values, errors = np.full((2, *shape), np.nan)
    for number, stack in enumerate(stacks.values()):
        if stack is None:
            continue
        size = stack.plane("mean", 0).shape
        known = FILTERS if min(size) >= SMALLEST else FILTERS[:1]
        if known != FILTERS:
            warnings.append(_too_small(size))
        kinds = [(kind, channel) for channel in range(len(names)) for kind in range(len(known))]
        of_kinds = in_threads(partial(_deviations, stack), kinds)
        for (kind, channel), found in zip(kinds, of_kinds, strict=True):
            values[number, kind, channel], errors[number, kind, channel] = found
    slope, slope_error, shared = _gains(gain, stacks, len(names))
    dims = (dim, "filter", "channel", "part")
    words = "dark-signal non-uniformity"
    in_electrons = np.hypot(errors * slope, values * slope_error)
    counts = [0 if stack is None else stack.count for stack in stacks.values()]
    return xr.Dataset(
        {
            "dsnu": (dims, values * slope, {"units": "electron", "long_name": words}),
            "dsnu_error": (dims, in_electrons, {"units": "electron", "long_name": "error"}),
            "dsnu_shared_error": (dims, values * shared, {"units": "electron", "long_name": "shared part of it"}),
            "dsnu_adu": (dims, values, {"units": "adu", "long_name": words}),
            "dsnu_adu_error": (dims, errors, {"units": "adu", "long_name": "error"}),
            "frames": (dim, counts, {"long_name": "frames"}),
        },
        {dim: list(stacks), "filter": list(FILTERS), "channel": list(names), "part": list(PARTS)},
        {"long_name": words, "warnings": list(dict.fromkeys(warnings))},
    )


def _gains(gain: Any, settings: Any, channels: int) -> np.ndarray:
    """Return gain, error and shared error (3, setting, 1, channel, 1) at these settings; NaN without a gain."""
    found = np.full((3, len(settings), 1, channels, 1), np.nan)
    for row, name in enumerate(() if gain is None else ("gain", "gain_error", "gain_shared_error")):
        for number, setting in enumerate(settings):
            found[row, number, 0, :, 0] = at_iso(gain[name], setting) if name in gain else 0.0
    return found


def _by_setting(
    bias: xr.DataArray | Mapping[float, FrameStack], warnings: list[str], progress: Any
) -> tuple[dict[float, FrameStack | None], str]:
    """Return a stack for each ISO or gain setting, None where a single frame is all there is, and the mosaic."""
    if isinstance(bias, Mapping):
        return dict(bias), next(iter(bias.values())).pattern if bias else "mono"
    stacks: dict[float, FrameStack | None] = {}
    dim = setting_dim(bias)
    for setting, frames in group_frames(bias, dim):
        if frames.size < 2:
            warnings.append(
                f"one bias frame at {describe(setting)}: noise and pattern cannot be separated, so DSNU is not "
                "measured there; shoot ten or more"
            )
            stacks[setting[dim]] = None
            continue
        stacks[setting[dim]] = stack_cube(take_frames(bias, frames), progress=progress)
    return stacks, bias.attrs["cfa_pattern"]


def _too_small(shape: tuple[int, int]) -> str:
    return (
        f"colour planes of {shape[1]} x {shape[0]} pixels are too small for the standard's high-pass, which needs "
        f"{SMALLEST} a side"
    )


def measure_prnu(
    flat: xr.DataArray | FrameStack, dark: FrameStack | None = None, black: Any = None, *, progress: Any = True
) -> xr.Dataset:
    """Measure the photo-response non-uniformity from two or more equal flats: how much the pixels' responses differ.

    s² of the flats without temporal noise, less the fixed pattern of the dark, over the squared signal: the spatial
    covariance of the even and the odd frames' means as in `measure_dsnu`.  Plain (``filter`` "none"), where the fall
    of light to the corners counts, over the mean signal; and high-passed, the deviation of each pixel from the smoothed
    flat over that smoothed flat (the vignetting model divided out before), which is the pixels' own; edges of dust
    shadows, which the smoothing does not follow, are left out of it.  Flats are scaled to one level, so that a lamp
    that drifts does no harm.  Of X-Trans there is the total alone.

    Parameters
    ----------
    flat
        Equal flats, best at half of saturation, or what `stack_cube` made of them (with their black level).
    dark
        The stack of the bias frames of that ISO; without it the fixed pattern of the dark is not taken out.
    black
        Black level [ADU], one or one a channel; without it that of `dark`, else the one that the files state.

    Returns
    -------
    xarray.Dataset
        ``prnu`` [%] over (filter, channel, part) with ``prnu_error``; over channel ``signal`` [ADU] and ``dust``, the
        share of pixels left out for it; ``frames``; attrs ``warnings``.

    Raises
    ------
    WorkbenchError
        If there are fewer than two flats, or no black level is known.

    Examples
    --------
    >>> from workbench.simulate import d7000, expose
    >>> from workbench.core.cube import make_cube
    >>> camera = d7000(shape=(192, 256))
    >>> frames = [expose(camera, 4e5, iso=100, exposure=0.03, seed=n) for n in range(4)]
    >>> flats = make_cube(frames, cfa_pattern="RGGB", kind="flat", iso=100, black_level=600)
    >>> found = measure_prnu(flats, progress=False).sel(filter="highpass", part="total")
    >>> bool((abs(found.prnu - 0.6) < 4 * found.prnu_error).all()), bool((found.prnu_error < 0.02).all())
    (True, True)
    """
    warnings: list[str] = []
    stack = flat if isinstance(flat, FrameStack) else _flat_stack(flat, dark, black, progress)
    if stack.count < 2:
        raise WorkbenchError("PRNU needs two or more equal flats: noise shows only between frames")
    warnings += _NO_LINES if is_xtrans(stack.pattern) else []
    names = channels_of(stack.pattern)
    values, errors = np.full((2, len(FILTERS), len(names), len(PARTS)), np.nan)
    signal, dust = np.empty((2, len(names)))
    dust[:] = 0
    filtered = list(in_threads(lambda channel: _own_response(stack, channel), range(len(names))))
    dusty: list[np.ndarray] = []
    if filtered[0] is None:
        warnings.append(_too_small(stack.plane("mean", 0).shape))
    elif is_xtrans(stack.pattern):  # its planes have no places in common
        dusty = [_dust([one.own]) for one in filtered]
    else:
        dusty = [_dust([one.own for one in filtered])] * len(names)
    dust[: len(dusty)] = [np.count_nonzero(flags) / flags.size for flags in dusty]

    def measure(channel: int) -> tuple[float, list[Spatial]]:
        level = float(stack.plane("mean", channel).mean(dtype=float))
        plain = stack.common(channel)
        plain = Spatial(plain.value / level**2, plain.error / level**2)
        found = [_less(plain, dark, channel, 1 / level**2)]
        one = filtered[channel]
        if one is not None:
            one.own[dusty[channel]], one.noise[dusty[channel]] = 0, 0
            sound = 1 - dust[channel]
            products = deviation_products(one.own, one.noise).of_halves(stack.count)
            own = common_parts(products, one.own.shape, filtered=True)
            own = Spatial(own.value / sound, own.error / sound**1.5)  # what is set to zero counts for nothing
            found.append(_less(own, dark, channel, one.inverse_square, filtered=True))
        return level, found

    for channel, (level, found) in enumerate(in_threads(measure, range(len(names)))):
        signal[channel] = level
        for kind, one in enumerate(found):
            values[kind, channel], errors[kind, channel] = _roots(one, stack.pattern, filtered=kind == 1)
    dims = ("filter", "channel", "part")
    words = "photo-response non-uniformity"
    return xr.Dataset(
        {
            "prnu": (dims, 100 * values, {"units": "%", "long_name": words}),
            "prnu_error": (dims, 100 * errors, {"units": "%", "long_name": "error"}),
            "signal": ("channel", signal, {"units": "adu", "long_name": "mean signal of the flats"}),
            "dust": ("channel", dust, {"units": "1", "long_name": "share of the pixels under dust"}),
            "frames": ((), stack.count, {"units": "1", "long_name": "flats"}),
        },
        {"filter": list(FILTERS), "channel": list(names), "part": list(PARTS)},
        {"long_name": words, "warnings": list(dict.fromkeys(warnings))},
    )


class _Response(NamedTuple):
    """A channel's high-passed relative response (y, x), half the difference of its two halves, ⟨1/signal²⟩ [1/ADU²]."""

    own: np.ndarray
    noise: np.ndarray
    inverse_square: float


class _Light(NamedTuple):
    """The vignetting model level · (1 + a₂ρ² + a₄ρ⁴) [ADU] with ρ² = y2 + x2, terms (level, a₂, a₄), all float32."""

    y2: np.ndarray
    x2: np.ndarray
    terms: np.ndarray


def _own_response(stack: FrameStack, channel: int) -> _Response | None:
    """Divide by the vignetting model and by the smooth rest; None for a picture too small for the high-pass."""
    mean, half = stack.plane("mean", channel), stack.plane("half_difference", channel)
    if min(mean.shape) < SMALLEST:
        return None
    # what the model leaves is even enough for the high-pass: smoothing is off by a part of a picture's curvature
    scale = max(1, min(mean.shape) // _BLOCKS)
    lens = fit_lens(tiles(mean, scale).mean(axis=(2, 3), dtype=float))
    rows, columns = ((np.arange(side, dtype=np.float32) + 0.5) / scale - 0.5 for side in mean.shape)
    y2, x2 = (((rows - lens.centre_y) / lens.reach) ** 2, ((columns - lens.centre_x) / lens.reach) ** 2)
    light = _Light(y2, x2, np.array([lens.level, lens.a2, lens.a4], np.float32))
    own, noise = (frame_memory(mean.shape, np.float32) for _ in range(2))
    _divide_by_light(mean, half, light, own, noise)
    smooth = inner_lowpass(own)
    own, noise = own[INNER], highpass(noise)
    inner = light._replace(y2=y2[MARGIN:-MARGIN], x2=x2[MARGIN:-MARGIN])
    inverse_square = _divide_by_smooth(own, noise, smooth, inner)
    return _Response(own, noise, inverse_square / own.size)


@kernel(error_model="numpy")
def _divide_by_light(mean, half, light, own, noise):
    """Divide two pictures (y, x) [ADU] by the `_Light`, into `own` and `noise`."""
    terms = light.terms
    for y in range(mean.shape[0]):
        for x in range(mean.shape[1]):
            rho2 = light.y2[y] + light.x2[x]
            level = terms[0] * (np.float32(1) + rho2 * (terms[1] + terms[2] * rho2))
            own[y, x] = mean[y, x] / level
            noise[y, x] = half[y, x] / level


@kernel(error_model="numpy")
def _divide_by_smooth(own, noise, smooth, light):
    """Turn `own` (y, x) into own/smooth − 1, `noise` into noise/smooth, in place; return Σ 1/(smooth · light)²."""
    terms = light.terms
    total = 0.0
    for y in range(own.shape[0]):
        for x in range(own.shape[1]):
            rho2 = light.y2[y] + light.x2[x]
            level = terms[0] * (np.float32(1) + rho2 * (terms[1] + terms[2] * rho2))
            inverse = np.float32(1) / smooth[y, x]
            own[y, x] = own[y, x] * inverse - np.float32(1)
            noise[y, x] *= inverse
            total += np.float64(np.square(inverse / level))
    return total


def _dust(responses: list[np.ndarray]) -> np.ndarray:
    """Flag (y, x) where neighbours deviate together beyond chance: in small dust shadows, at edges of large ones."""
    # dust shadows all colours and neighbours alike; a pixel's own response, however odd, is its own and is cut
    together = np.zeros_like(responses[0])
    for own in responses:
        limit = _ODD * _spread(own)
        together += np.clip(own, -limit, limit)
    found = np.zeros(together.shape, bool)
    # six robust standard deviations off in the mean over a cell of the mosaic, 3 x 3 of them, or some tens of pixels
    scales = [(together, 2)] if len(responses) > 1 else []  # one colour's single pixels are left out
    scales += [(ndimage.uniform_filter(together, 3, mode="reflect"), 3), (lowpass(together), MARGIN)]
    for picture, reach in scales:
        threshold = np.full(picture.shape, 6 * _spread(picture), np.float32)
        if reach == MARGIN:  # mirrored edges scatter up to twice as much
            threshold *= 2
            threshold[INNER] /= 2
        core = np.abs(picture) > threshold
        if core.any():
            found |= ndimage.binary_dilation(core, iterations=reach)
    return found


def _spread(values: np.ndarray) -> float:
    return float(mad_std(even_sample(values, _SAMPLE), centre=0))


def _flat_stack(flat: xr.DataArray, dark: FrameStack | None, black: Any, progress: Any) -> FrameStack:
    check_cube(flat, stage="raw", kind="flat")
    if black is None:
        black = black_levels(flat.attrs)
        if dark is not None:
            black = [dark.plane("mean", channel).mean(dtype=float) for channel in range(len(black))]
    if not np.isfinite(black).all():
        raise WorkbenchError("the black level of these flats is not known; give bias frames, or the black level [ADU]")
    return stack_cube(flat, black=black, progress=progress)


def _less(found: Spatial, dark: FrameStack | None, channel: int, factor: float, *, filtered: bool = False) -> Spatial:
    """Take the fixed pattern of the dark [ADU²] out of the flat's relative variances."""
    if dark is None or dark.count < 2:
        return found
    own = dark.common(channel, filtered=filtered)
    return Spatial(found.value - factor * own.value, np.hypot(found.error, factor * own.error))


def half_saturated(ptc: xr.Dataset) -> list[str]:
    """Return the names of the flats nearest to half of saturation, at the lowest setting: the best ones for the PRNU.

    Parameters
    ----------
    ptc
        From `photon_transfer`.
    """
    settings = ptc[setting_dim(ptc)].values
    lowest = same_setting(settings, np.nanmin(settings) if np.isfinite(settings).any() else np.nan)
    signal = ptc["signal"].max("channel").values
    room = ptc.attrs["white_level"] - ptc["black_level"].max("channel").values
    if not np.isfinite(room).all():
        room = np.full(signal.shape, np.nanmax(signal[lowest]))
    clear = lowest & (ptc["saturated_fraction"].max("channel").values < _TOO_BRIGHT)
    choice = clear if clear.any() else lowest
    level = ptc["level"].values[np.argmin(np.where(choice, np.abs(signal / room - _HALF), np.inf))]
    same = choice & (ptc["level"].values == level)
    return sorted({*ptc["filename_1"].values[same].tolist(), *ptc["filename_2"].values[same].tolist()})
