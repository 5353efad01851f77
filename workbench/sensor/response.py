"""Response to light: linearity, the ISO at which an electron is an ADU, and noise against that of photons alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import special

from ..core.errors import Guess, WorkbenchError
from ..core.results import Table, at_iso, at_isos, described, per_channel, same_setting
from ..core.settings import setting_dim
from ..core.statistics import fit_line, t_factor
from ..core.values import describe

_RANGE = (0.05, 0.95)  # of saturation (EMVA 1288)
_FEWEST = 4  # levels: a line through three says little about the fourth
_ODD, _ODD_SIGMAS = 0.03, 6.0  # a level is odd if it is off the line of the others by both
_ODD_CHANCE = 1e-3  # of so many standard deviations of few levels
_MIX = 0.75  # of the mean deviation, to be covered 68 % of the time with a bend of any size (simulated, 5 and 9 levels)
_NAMED = 0.85  # true times are taken where they leave less than this of the deviation
_LONGEST_NAMED = 32.0  # s; beyond, times are counted and not named
_SURE, _COMMON, _WARN = 3.0, 2.0, 1.0  # errors; times the ratio's deviation; % of deviation that make a warning
_ABS_TO_SIGMA = np.sqrt(2 / np.pi)  # mean deviation of a normal distribution over its σ
_LINEARITY: Table = {
    "linearity_error": ("%", "linearity error"),
    "linearity_error_min": ("%", "least deviation from the line"),
    "linearity_error_max": ("%", "greatest deviation from the line"),
    "linearity_error_error": ("%", "uncertainty of the linearity error"),
    "lamp_share": ("%", "linearity error that the lamp's scatter alone would make"),
    "scatter_share": ("%", "linearity error that the levels' scatter alone would make"),
    "ratio_error": ("%", "deviation of the ratio to the brightest channel"),
    "levels": ("1", "light levels"),
}
_BY_LEVEL: Table = {
    "signal": ("adu", "signal"),
    "deviation": ("%", "deviation from the line"),
    "used": ("", "levels that the line was fitted to"),
}
_ON_LEVEL: Table = {
    "iso_of_level": ("", "ISO or gain setting"),
    "exposure": ("s", "exposure time as stated"),
    "exposure_used": ("s", "exposure time"),
    "aperture": ("", "f-number"),
}
_SNR: Table = {
    "snr": ("1", "signal-to-noise ratio"),
    "snr_error": ("1", "error of the signal-to-noise ratio"),
    "snr_expected": ("1", "√N"),
    "electrons": ("electron", "signal"),
}


class Linearity(NamedTuple):
    """A line fitted as EMVA 1288 has it, and the relative deviations from it [%]."""

    slope: float
    offset: float
    deviation: np.ndarray

    @property
    def error(self) -> float:
        """The linearity error LE: the mean absolute deviation [%]."""
        return float(np.abs(self.deviation).mean())


def linearity_error(light: ArrayLike, signal: ArrayLike) -> Linearity:
    """Fit signal = a·light + b with relative weights and return the relative deviations δ = (y − fit)/fit.

    EMVA 1288 release 4.0 linear, section 7: weights 1/y², so that each deviation counts as a share; LE is the mean of
    |δ|, and its least and greatest are what release 3.1 stated.

    Parameters
    ----------
    light
        Exposure times, or photons a pixel, of levels between 5 and 95 % of saturation.
    signal
        Mean less dark mean of each level [ADU].

    Raises
    ------
    WorkbenchError
        If there are fewer than three levels, or a signal is not above zero.

    Examples
    --------
    >>> line = linearity_error([1, 2, 3, 4], [100, 201, 299, 400])
    >>> line.deviation.round(2).tolist(), round(line.error, 2)
    ([-0.11, 0.46, -0.34, 0.0], 0.23)
    """
    x, y = np.asarray(light, float), np.asarray(signal, float)
    if x.shape != y.shape or x.ndim != 1 or x.size < 3 or not (y > 0).all():
        raise WorkbenchError("a linearity error needs the light and the signal of three levels or more, above zero")
    line = fit_line(x, y, 1 / y**2)
    return Linearity(float(line.slope), float(line.intercept), 100 * (y / (line.slope * x + line.intercept) - 1))


def linearity(ptc: xr.Dataset, wells: xr.Dataset | None = None) -> xr.Dataset:
    """Measure the linearity error of every ISO and channel, exposure time being the measure of light.

    The levels of one aperture between 5 and 95 % of saturation are fitted as EMVA 1288 has it.  A level that lies off
    the line through the others, with an offset or without, by more than 3 % and six times what their scatter makes of
    it there (a lamp that was moved, a wrong time) is left out and named.  The shutter times that cameras name are
    rounded (1/60 is 1/64, 30 s is 32 s): where the true ones, 2 to the power of thirds, leave less than 85 % of the
    deviation, they are used.

    A lamp that drifts looks like a sensor that bends.  What its scatter between equal flats would make of the
    linearity error is given as well.  A lamp, or a shutter, that is off from level to level does not show there: it
    shows in the levels' scatter about a smooth curve (a parabola), and the linearity error's uncertainty is at least
    what that scatter would make of a straight line, so that 0 lies within it.  Two flats of every level shot apart, in
    mixed order, separate them: the scatter between equal flats is then all of it.  Free of
    lamp and shutter is the ratio of two colours, which are at different levels in the same frame: where the ratio holds
    and the levels do not lie on a line, a warning says that it is not the sensor.

    Parameters
    ----------
    ptc
        From `photon_transfer`.
    wells
        From `full_well`; without it saturation is the white level the files state.

    Returns
    -------
    xarray.Dataset
        Over (iso, channel): ``linearity_error`` [%], the mean absolute deviation LE; ``linearity_error_min``,
        ``linearity_error_max`` [%]; ``linearity_error_error`` [%], its uncertainty from the lamp's scatter
        between equal flats and from level to level; ``lamp_share`` and ``scatter_share`` [%], the linearity errors that
        these alone would make; ``ratio_error`` [%], the mean
        absolute deviation of the channel's ratio to the brightest channel (NaN for that one); ``levels``.  Over (level,
        channel): ``signal`` [ADU], ``deviation`` [%], ``used``; on level: ``iso_of_level``, ``exposure`` as stated,
        ``exposure_used``, ``aperture``.  attrs: ``true_times``, whether named times were replaced; ``warnings``.
    """
    levels = _levels(ptc)
    dim = setting_dim(ptc)
    settings = np.unique(np.asarray(ptc[dim].values, float))
    channels = ptc["channel"].values.tolist()
    shape = (len(levels.setting), len(channels))
    deviation, used = np.full(shape, np.nan), np.zeros(shape, bool)
    time = levels.exposure.copy()
    rows: list[list[dict[str, float]]] = []
    warnings: list[str] = []
    renamed, few = False, []
    for setting in settings:
        here = np.flatnonzero(same_setting(levels.setting, setting) & np.isfinite(levels.exposure))
        here = _of_one_lens(levels, here)
        top, signal = _saturation(ptc, wells, setting, len(channels)), levels.signal[here]
        good = (signal >= _RANGE[0] * top) & (signal <= _RANGE[1] * top) & (levels.saturated[here] < 1e-3)
        inside = [here[column] for column in good.T]
        rows.append([{} for _ in channels])
        if max((np.unique(time[which]).size for which in inside), default=0) < _FEWEST:
            few.append(describe({dim: setting}))
            continue
        true = _true_times(time, here)
        if true is not None and _scatter(true, inside, levels) < _NAMED * _scatter(time, inside, levels):
            time, renamed = true, True
        odd: dict[int, float] = {}
        for column, which in enumerate(inside):
            if np.unique(time[which]).size >= _FEWEST:
                rows[-1][column], kept = _fit_levels(levels, which, column, time, deviation)
                used[kept, column] = True
                for i in np.setdiff1d(which, kept):
                    off, _ = _off_the_line(time[kept], levels.signal[kept, column], time[i], levels.signal[i, column])
                    odd[int(i)] = 100 * off
        ratio = _ratio_error(levels.signal, used, here)
        rows[-1] = [one | {"ratio_error": value} for one, value in zip(rows[-1], ratio, strict=True)]
        warnings += _warnings(describe({dim: setting}), rows[-1], odd, levels)
    if few:
        warnings.append(
            f"linearity at {', '.join(few)} needs flats of {_FEWEST} exposure times or more at one aperture, between 5 "
            "and 95 % of saturation; shoot eight, evenly spread, in mixed order"
        )
    attrs = {"camera": ptc.attrs["camera"], "long_name": "linearity"}
    result = per_channel(_LINEARITY, rows, {dim: settings}, channels, **attrs)
    values = levels._asdict() | {
        "deviation": deviation,
        "used": used,
        "iso_of_level": levels.setting,
        "exposure_used": time,
    }
    result = result.assign(described(_BY_LEVEL, ("level", "channel"), values))
    result = result.assign_coords(described(_ON_LEVEL, "level", values))
    return result.assign_attrs(true_times=renamed, warnings=warnings)


def _fit_levels(
    levels: _LightLevels, which: np.ndarray, column: int, time: np.ndarray, deviation: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Return the linearity of a channel and the levels kept; write all deviations [%] into `deviation`."""
    kept, line = _without_odd(time[which], levels.signal[which, column])
    deviation[which, column] = 100 * (levels.signal[which, column] / (line.slope * time[which] + line.offset) - 1)
    count = int(np.count_nonzero(kept))
    by_lamp = 100 * float(np.sqrt((levels.lamp[which[kept]] ** 2).mean()))
    scatter = _scatter_of_levels(time[which[kept]], levels.signal[which[kept], column])
    straight = _ABS_TO_SIGMA * np.sqrt(max(count - 2, 0) / count)  # LE of a straight line over its scatter
    noise = scatter * straight
    doubt = line.error - np.sqrt(max(line.error**2 - noise**2, 0.0))  # the scatter's part of the mean deviation
    doubt += _MIX * t_factor(count - 3) * scatter / np.sqrt(count) if count > 3 else line.error
    return {
        "linearity_error": line.error,
        "linearity_error_min": line.deviation.min(),
        "linearity_error_max": line.deviation.max(),
        "linearity_error_error": float(np.hypot(by_lamp / np.sqrt(count), doubt)),
        "between_equal": by_lamp / np.sqrt(count),
        "lamp_share": by_lamp * straight,
        "scatter_share": noise,
        "levels": count,
    }, which[kept]


def _warnings(where: str, row: list[dict[str, float]], odd: dict[int, float], levels: _LightLevels) -> list[str]:
    """Warn of a lamp or times that are off in all colours alike, and of odd levels (number: deviation in %)."""
    warnings: list[str] = []
    error, doubt, ratio = (
        np.array([one.get(name, np.nan) for one in row]) for name in ("linearity_error", "between_equal", "ratio_error")
    )
    if np.isfinite(ratio).any() and np.nanmean(error - _SURE * doubt) > max(_COMMON * np.nanmax(ratio), _WARN):
        warnings.append(
            Guess(
                f"the flats at {where} lie off a straight line by {np.nanmean(error):.1f} % on average, but all "
                f"colours alike (their ratios hold to {np.nanmax(ratio):.1f} %)",
                "the lamp or the exposure times are off, and not the sensor",
                "lamp",
            )
        )
    if odd:
        named = ", ".join(
            f"{describe({'exposure': levels.exposure[i]})} ({levels.file[i]}: {share:+.1f} %)"
            for i, share in sorted(odd.items())
        )
        warnings.append(
            f"flats at {where} lie off the line through the others and are left out of the "
            f"linearity: {named}; was the lamp as bright, and is the exposure time right?"
        )
    return warnings


def _ratio_error(signal: np.ndarray, used: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Return the mean absolute deviation [%] of each channel's ratio to the brightest, over the levels used of both."""
    brightest = int(np.argmax(signal[here].max(axis=0)))
    result = np.full(signal.shape[1], np.nan)
    for column in range(signal.shape[1]):
        both = here[used[here, column] & used[here, brightest]]
        if column != brightest and both.size >= _FEWEST:
            ratio = signal[both, column] / signal[both, brightest]
            result[column] = 100 * np.abs(ratio / ratio.mean() - 1).mean()
    return result


class _LightLevels(NamedTuple):
    """Light levels, each array over them."""

    setting: np.ndarray
    exposure: np.ndarray
    aperture: np.ndarray
    filter: np.ndarray
    file: np.ndarray  # the first
    signal: np.ndarray  # mean [ADU] (level, channel)
    saturated: np.ndarray  # share of pixels (level, channel)
    lamp: np.ndarray  # scatter of the mean, as a share of it


def _levels(ptc: xr.Dataset) -> _LightLevels:
    """Gather the pairs by light level."""
    level = ptc["level"].values
    groups = [np.flatnonzero(level == number) for number in np.unique(level)]
    first = np.array([where[0] for where in groups], int)
    pairs = np.array([where.size for where in groups], float)
    change = [ptc["level_change"].values[where] for where in groups]
    change = [values[np.isfinite(values).all(axis=1)] for values in change]  # the others hold no light
    squares = [float((np.median(values, axis=1) ** 2).mean()) for values in change if values.size]
    # the lamp is one for all levels, and so is its scatter: (μ₂ − μ₁)/μ has twice its variance
    scatter = np.sqrt(np.median(squares) / 2 / 0.4549) if squares else np.nan  # 0.4549: median of χ² of one degree
    shape = (len(groups), ptc.sizes["channel"])
    setting = [ptc[name].values[first].astype(float) for name in (setting_dim(ptc), "exposure", "aperture")]
    setting.append(ptc["filter"].values[first] if "filter" in ptc.coords else np.full(first.size, ""))
    signal = np.reshape([ptc["signal"].values[where].mean(axis=0) for where in groups], shape)
    saturated = np.reshape([ptc["saturated_fraction"].values[where].max(axis=0) for where in groups], shape)
    lamp = scatter / np.sqrt(np.where(pairs == 1, 2, pairs))
    return _LightLevels._make((*setting, ptc["filename_1"].values[first], signal, saturated, lamp))


def _of_one_lens(levels: _LightLevels, here: np.ndarray) -> np.ndarray:
    """Return the levels of the aperture and filter that have the most exposure times."""
    through = np.array([f"{levels.aperture[i]:g} {levels.filter[i]}" for i in here])
    groups = [here[through == value] for value in dict.fromkeys(through[np.argsort(levels.aperture[here])])]
    return max(groups, key=lambda group: np.unique(levels.exposure[group]).size) if groups else here


def _saturation(ptc: xr.Dataset, wells: xr.Dataset | None, iso: float, channels: int) -> np.ndarray:
    stated = np.full(channels, ptc.attrs["white_level"]) - np.nan_to_num(ptc["black_level"].values.mean(axis=0))
    if wells is None:
        return stated
    measured, error = (at_iso(wells[name], iso) for name in ("saturation", "saturation_error"))
    measured = np.where(np.isinf(error), np.nan, measured)  # a lower bound
    return np.where(np.isfinite(measured), measured, stated)


def _true_times(named: np.ndarray, here: np.ndarray) -> np.ndarray | None:
    """Return 2^(n/3) for the shutter times [s] that are named so `here`, or None where they are not."""
    if not ((named[here] > 0) & (named[here] <= _LONGEST_NAMED)).all():
        return None
    true = named.copy()
    true[here] = 2 ** (np.rint(3 * np.log2(named[here])) / 3)
    return true if (np.abs(true / named - 1)[here] < 0.08).all() else None


def _scatter(time: np.ndarray, inside: list[np.ndarray], levels: _LightLevels) -> float:
    """Return the mean linearity error of the channels for these times."""
    enough = [(column, which) for column, which in enumerate(inside) if which.size >= _FEWEST]
    return float(np.mean([linearity_error(time[which], levels.signal[which, c]).error for c, which in enough]))


def _without_odd(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, Linearity]:
    """Fit without levels that lie off the line through the others: a fifth of them at most, the worst first."""
    kept = np.ones(x.size, bool)
    for _ in range(x.size // 5):
        if np.count_nonzero(kept) <= _FEWEST:
            break
        candidates = []
        for i in np.flatnonzero(kept):
            others = kept & (np.arange(x.size) != i)
            line = linearity_error(x[others], y[others])
            candidates.append((line.error, i, *_off_the_line(x[others], y[others], x[i], y[i])))
        _, worst, off, doubt = min(candidates)
        degrees = int(np.count_nonzero(kept)) - 3
        if abs(off) < _ODD or abs(off) < max(_ODD_SIGMAS, special.stdtrit(degrees, 1 - _ODD_CHANCE / 2)) * doubt:
            break
        kept[worst] = False
    return kept, linearity_error(x[kept], y[kept])


def _off_the_line(x: np.ndarray, y: np.ndarray, light: float, signal: float) -> tuple[float, float]:
    """Return how far a level lies off the line through others, and the standard deviation expected, as shares.

    The line is that through the origin, or the one with an offset, as a shutter has, where that is nearer.  Expected is
    the others' scatter, and that of the line where it is continued to this level.
    """
    found = []
    for through_origin in (False, True):
        line = fit_line(x, y, 1 / y**2, through_origin=through_origin)
        predicted = line.slope * light + line.intercept
        scatter = np.sqrt(((y / (line.slope * x + line.intercept) - 1) ** 2).sum() / max(x.size - 2, 1))
        reach = (line.level_variance + line.slope_variance * (light - line.centre) ** 2) / predicted**2
        found.append((float(signal / predicted - 1), float(scatter * np.sqrt(1 + reach))))
    return min(found, key=lambda one: abs(one[0]))


def _scatter_of_levels(x: np.ndarray, y: np.ndarray) -> float:
    """Return the standard deviation [%] of levels about a parabola, weights 1/y²; that of noise, not of a bend."""
    if x.size < 4:
        return 0.0
    terms = np.stack([np.ones_like(x), x / x.max(), (x / x.max()) ** 2], axis=1) / y[:, None]
    best, *_ = np.linalg.lstsq(terms, np.ones_like(y))
    return 100 * float(np.sqrt(((1 / (terms @ best) - 1) ** 2).sum() / (x.size - 3)))


def shot_noise_snr(ptc: xr.Dataset, gain: xr.Dataset) -> xr.Dataset:
    """Compare the signal-to-noise ratio of each pair of flats with that of shot noise alone, √N.

    Measured: signal/√variance of a pair's pixels, read noise included; N = signal · gain electrons.

    Returns
    -------
    xarray.Dataset
        Over point, one for each pair and channel that the fit used: ``snr`` with ``snr_error``, ``snr_expected`` = √N,
        ``electrons`` N, and ``iso``, ``exposure`` [s], ``aperture``, ``channel``.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> from workbench.sensor import fit_gain, photon_transfer
    >>> rng = np.random.default_rng(0)
    >>> y = rng.poisson(np.repeat([400, 1600], 2)[:, None, None], (4, 256, 256)).astype("uint16")
    >>> ptc = photon_transfer(make_cube(y, cfa_pattern="mono", kind="flat", iso=100, exposure=[1, 1, 4, 4],
    ...                                 black_level=0), progress=False)
    >>> shot_noise_snr(ptc, fit_gain(ptc)).snr.round().values
    array([20., 40.])
    """
    pair, channel = np.nonzero(gain["used"].values)
    factor = at_isos(gain["gain"], ptc[setting_dim(ptc)].values)[pair, channel]
    measured = (ptc[name].values[pair, channel] for name in ("signal", "variance", "variance_error"))
    table = np.array([factor, *measured])
    good = np.isfinite(factor) & (table[:3] > 0).all(axis=0)
    pair, channel, (factor, signal, variance, error) = pair[good], channel[good], table[:, good]
    ratio, electrons = signal / np.sqrt(variance), signal * factor
    values = {"snr": ratio, "electrons": electrons, "snr_expected": np.sqrt(electrons)}
    values["snr_error"] = ratio * error / (2 * variance)
    coords: dict[str, Any] = {
        name: ("point", ptc[name].values[pair], ptc[name].attrs) for name in (setting_dim(ptc), "exposure", "aperture")
    }
    coords["channel"] = ("point", ptc["channel"].values[channel])
    attrs = {"camera": ptc.attrs["camera"], "long_name": "signal-to-noise ratio"}
    return xr.Dataset(described(_SNR, "point", values), coords, attrs)
