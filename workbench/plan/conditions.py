"""Conditions measured on frames: how bright lamp and sky are, and how well the mount tracks."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import GREENS, black_levels, channels_of, check_cube, evenly, is_xtrans, one_value
from ..core.dark import dark_current_at
from ..core.errors import FrameReadError, WorkbenchError
from ..core.mosaic import channel_index, planes
from ..core.parallel import counted, lazy_frames, stream_frames
from ..core.results import at_iso
from ..core.settings import in_words_of, setting_dim
from ..core.statistics import MEDIAN_ERROR, StraightLine, fit_line, mad_std, t_factor
from ..core.values import describe
from ..ingest.folder import Folder
from ..ingest.reader import read_frame
from ..stars.background import SQUARE_PIXELS, block_background, green_sampling, half_green, subtract
from ..stars.find import FWHM_PER_SIGMA, find_stars, intrinsic, measure

_BLOCK = 64  # pixels of a channel
_FRAMES = 8  # that suffice
_SNR, _FEWEST_STARS = 30.0, 5  # of stars whose shape counts
ELONGATION = 1.15  # longest over shortest axis of a star that still looks round
_DARK_UNKNOWN = (
    "the dark current at the lights' temperature is not known: the background is sky and dark current together"
)


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
            frame = read_frame(row.path, scale=row.scale)
            frame = frame[::5, ::5] if min(frame.shape) > 256 else frame
        except FrameReadError:
            continue
        black = np.nan_to_num(np.asarray(row.black_level, float)).mean()
        room = row.white_level - black
        level = (float(np.quantile(frame, 0.9)) - black) / room
        if best < level < 0.9:
            best, found = level, row.exposure * row.iso / 100 / level
    return found


def saturates(folder: Folder) -> bool:
    """Return whether one of the three longest exposed flats and lights reaches the white level."""
    table = folder.table[folder.table["kind"].isin(["flat", "light"])]
    light = table["exposure"].fillna(0) * table["iso"].fillna(100)
    for row in table.loc[light.sort_values(ascending=False).index[:3]].itertuples():
        with contextlib.suppress(FrameReadError):
            if np.count_nonzero(read_frame(row.path, scale=row.scale) >= 0.97 * row.white_level) > 16:
                return True
    return False


def background_rate(light: xr.DataArray, sensor: xr.Dataset, *, progress: Any = True) -> xr.Dataset:
    """Measure how fast the background of lights fills up: sky and dark current together, and the sky alone.

    Of raw lights (frame, y, x) of one ISO, (median level − black level) · gain / exposure, level by blocks of 64 x 64
    pixels of a channel from which stars are clipped.  The dark current is the sensor's at the lights' temperature, by
    its law, or the one measured within 2 K.  The error has that of gain, black level and dark current in it, and the
    scatter between frames.

    Returns
    -------
    xarray.Dataset
        Over channel: ``rate``, ``sky``, ``dark`` [e⁻/s/pixel], each with ``_error``; sky and dark are NaN where the
        dark current is not known.  attrs: ``iso``, ``exposure`` (of each frame used), ``temperature``, ``frames``,
        ``white_level`` [ADU], ``warnings``.

    Raises
    ------
    WorkbenchError
        If the frames are not raw lights of one ISO with stated exposure, or that ISO's gain is not measured.

    Examples
    --------
    >>> from workbench.core.cube import make_cube
    >>> values = {"gain": 0.5, "gain_error": 0.005, "black_level": 600.0, "black_level_error": 0.05}
    >>> sensor = xr.Dataset({name: (("iso", "channel"), [[value]]) for name, value in values.items()},
    ...                     {"iso": [800.0], "channel": ["mono"]})
    >>> y = np.random.default_rng(1).poisson(1.5 * 120, (1, 256, 256)) / 0.5 + 600
    >>> light = make_cube(y.round().astype("uint16"), cfa_pattern="mono", kind="light", iso=800, exposure=120)
    >>> background_rate(light, sensor, progress=False).rate.round(2).values
    array([1.5])
    """
    check_cube(light, stage="raw", kind="light")
    dim = setting_dim(light)
    setting = one_value(light, dim, "a background rate")
    pattern = light.attrs["cfa_pattern"]
    channels = list(channels_of(pattern))
    gain, gain_error, black, black_error = _at_setting(
        sensor, {dim: setting}, channels, np.nan_to_num(black_levels(light.attrs))
    )
    chosen = evenly(light.sizes["frame"], _FRAMES)
    exposure = light["exposure"].values[chosen]
    if not (np.isfinite(exposure) & (exposure > 0)).all():
        raise WorkbenchError(
            "these lights do not state their exposure, which a rate needs; give it in frames.csv (column exposure_s)"
        )
    frames = counted(stream_frames(light.data[i] for i in chosen), progress, len(chosen))
    levels = np.array(
        [
            [np.nanmedian(block_background(plane.astype(np.float32), _BLOCK)[0]) for _, plane in planes(frame, pattern)]
            for frame in frames
        ],
        float,
    )
    rates = (levels - black) * gain / exposure[:, None]
    rate = rates.mean(axis=0)
    scatter = np.zeros(len(channels))
    if len(chosen) > 1:  # also real: the sky changes through a night
        scatter = rates.std(axis=0, ddof=1) / math.sqrt(len(chosen)) * t_factor(len(chosen) - 1)
    levelling = black_error * gain * float(np.mean(1 / exposure))
    error = np.sqrt((rate * gain_error / gain) ** 2 + levelling**2 + scatter**2)
    known = light["temperature"].values[chosen]
    known = known[np.isfinite(known)]
    temperature = float(known.mean()) if known.size else math.nan
    dark, dark_error = dark_current_at(sensor, temperature)
    values = {
        "rate": (rate, "sky and dark current"),
        "rate_error": (error, "error of sky and dark current"),
        "sky": (rate - dark, "sky"),
        "sky_error": (np.hypot(error, dark_error), "error of the sky"),
        "dark": (np.full(len(channels), dark), "dark current"),
        "dark_error": (np.full(len(channels), dark_error), "error of the dark current"),
    }
    attrs = {
        "iso": math.nan,
        dim: setting,
        "exposure": float(np.median(exposure)),
        "temperature": temperature,
        "frames": len(chosen),
        "white_level": light.attrs["white_level"],
        "camera": light.attrs["camera"],
        "warnings": [_DARK_UNKNOWN] if math.isnan(dark) else [],
        "long_name": "background of the lights",
    }
    data = {
        name: ("channel", value, {"units": "electron / (s pix)", "long_name": text})
        for name, (value, text) in values.items()
    }
    return xr.Dataset(data, {"channel": channels}, attrs)


def _at_setting(
    sensor: xr.Dataset, setting: dict[str, float], channels: list[str], stated: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return gain and black level of each channel with their errors; the black level else as stated [ADU]."""
    names = ("gain", "gain_error", "black_level", "black_level_error")
    known = sensor[[*names]].reindex(channel=channels)
    ((dim, value),) = setting.items()
    if dim not in known.dims:
        other = in_words_of(setting_dim(known), "ISO")
        raise WorkbenchError(
            f"the lights state {describe(setting)}, the sensor was measured by {other}: measure it again"
        )
    gain, gain_error, black, black_error = (at_iso(known[name], value) for name in names)
    if not np.isfinite(gain).all():
        isos = sensor[dim].values[sensor["gain"].notnull().all("channel").values]
        measured = ", ".join(f"{value:g}" for value in isos) or "none"
        raise WorkbenchError(
            f"the gain at {describe(setting)}, that of the lights, is not measured (measured: {measured}): shoot bias "
            "frames and pairs of flats at that setting and characterize them"
        )
    return gain, np.nan_to_num(gain_error), np.where(np.isfinite(black), black, stated), np.nan_to_num(black_error)


def star_shapes(light: xr.DataArray, *, progress: Any = True) -> xr.Dataset:
    """Measure how wide the stars of raw lights (frame, y, x) are, and in which direction they are drawn out.

    Second moments of each star under a round Gaussian weight of the frame's own width, over the green pixels (or all of
    a mono frame; of X-Trans those of `half_green`), freed of the weight and of the pixels' own width (1/12 px²); then
    the median of each moment over the stars.  A direction that all stars share stays; what noise does to each star
    cancels, which the mean of their elongations would not.

    Returns
    -------
    xarray.Dataset
        Over frame: ``plus``, xx − yy, and ``cross``, 2 xy [px²], each with ``_error``; ``short`` [px²], the variance
        along the shorter axis; ``elongation``, long over short axis; ``fwhm`` [px]; ``stars`` used.  Coordinates
        ``exposure`` [s], ``filename``.  NaN for a frame with fewer than five good stars.

    Raises
    ------
    WorkbenchError
        If the frames are not raw lights.
    """
    check_cube(light, stage="raw", kind="light")
    pattern = light.attrs["cfa_pattern"]
    white = light.attrs["white_level"]
    top = 0.9 * (white - np.nan_to_num(black_levels(light.attrs)).mean()) if math.isfinite(white) else math.inf
    green = np.isin(np.array(channels_of(pattern))[channel_index(pattern)], GREENS)
    green = np.tile(green, [-(-size // step) for size, step in zip(light.shape[1:], green.shape, strict=True)])
    green = green[: light.sizes["y"], : light.sizes["x"]]
    frames = counted(stream_frames(lazy_frames(light)), progress, light.sizes["frame"])
    rows = [_shape(frame, pattern, green, top) for frame in frames]
    values = dict(zip(_SHAPE, np.array(rows).T, strict=True))
    data: dict[str, Any] = {name: ("frame", values[name], {"units": unit}) for name, unit in _SHAPE.items()}
    data["stars"] = ("frame", values["stars"].astype(int))
    coords = {name: ("frame", light[name].values) for name in ("exposure", "filename")}
    return xr.Dataset(data, coords, {"camera": light.attrs["camera"], "long_name": "shapes of the stars"})


_SHAPE = {
    "plus": "px2", "plus_error": "px2", "cross": "px2", "cross_error": "px2", "short": "px2", "elongation": "1",
    "fwhm": "px", "stars": "1",
}  # fmt: skip


def _shape(frame: np.ndarray, pattern: str, green: np.ndarray, top: float) -> list[float]:
    """Return one raw frame's values of `_SHAPE`; `green` (y, x) marks the pixels that count, `top` [ADU] saturation."""
    plane = half_green(frame, pattern)
    stars = find_stars(plane, sampling=green_sampling(pattern), saturation=top)
    good = ~stars["saturated"].values & (stars["snr"].values > _SNR) & np.isfinite(stars["fwhm"].values)
    count = int(np.count_nonzero(good))
    unknown = [*[math.nan] * (len(_SHAPE) - 1), count]
    if count < _FEWEST_STARS:
        return unknown
    image, sampling = frame.astype(np.float32), SQUARE_PIXELS
    if is_xtrans(pattern):
        image, sampling = plane, green_sampling(pattern)
    scale, offset, (blur_xx, blur_xy, blur_yy) = sampling
    flat = np.empty_like(image)
    subtract(image, block_background(plane, _BLOCK)[0], flat)
    if image is not plane:
        flat[~green] = 0
    sigma = max(float(np.median(stars["fwhm"].values[good])) / FWHM_PER_SIGMA / scale, 0.9)
    x, y = ((stars[name].values[good] - offset) / scale for name in ("x", "y"))
    own = intrinsic(measure(flat, x, y, sigma, 0.0, math.inf), sigma) * scale**2
    own = (own - np.array([blur_xx, blur_yy, blur_xy]))[np.isfinite(own).all(axis=1)]  # less the pixels' own width
    if len(own) < _FEWEST_STARS:
        return unknown
    xx, yy, xy = own.T
    centres = [float(np.median(sample)) for sample in (xx - yy, 2 * xy)]
    errors = [MEDIAN_ERROR * float(mad_std(sample)) / math.sqrt(len(own)) for sample in (xx - yy, 2 * xy)]
    width, half = float(np.median(xx + yy)) / 2, math.hypot(*centres) / 2
    elongation = math.sqrt((width + half) / (width - half)) if width > half else math.nan
    fwhm = FWHM_PER_SIGMA * math.sqrt(max(width, 0.0))
    return [centres[0], errors[0], centres[1], errors[1], width - half, elongation, fwhm, count]


def tracking(shapes: xr.Dataset, elongation: float = ELONGATION) -> xr.Dataset:
    """Estimate the longest sub that the mount allows, from how star images draw out with the exposure.

    A star that drifts by v t is blurred along its path by a variance of (v t)²/12, on top of the optics: the vector (xx
    − yy, 2 xy) is a + q t² with |q| = v²/12, fitted to lights of different exposures with weights from the errors and
    scatter.  The longest sub keeps √(1 + |a + q t²|/short), long over short axis, to `elongation`.  From lights of one
    exposure all of the elongation counts as drift, and the sub is a lower limit.

    Returns
    -------
    xarray.Dataset
        Scalars: ``drift`` [px/s], ``longest`` [s], each with ``_error``; where the drift is less than twice its error,
        ``longest`` is that of a drift of twice the error, a lower limit (attribute ``limit``).  ``optics`` [px²], |a|;
        ``short`` [px²]; over (term, component) ``law``: a and q.  attrs: ``several_exposures``, ``elongation``.

    Raises
    ------
    WorkbenchError
        If no frame has five good stars, or the elongation asked for is not above 1.

    Examples
    --------
    >>> t = np.array([30.0, 60.0, 120.0, 240.0])
    >>> shapes = xr.Dataset({"plus": ("frame", 0.1 + (0.02 * t) ** 2 / 12), "cross": ("frame", 0 * t),
    ...                      "plus_error": ("frame", 0.01 + 0 * t), "cross_error": ("frame", 0.01 + 0 * t),
    ...                      "short": ("frame", 1.5 + 0 * t)}, {"exposure": ("frame", t)})
    >>> found = tracking(shapes)
    >>> round(found.drift.item(), 4), round(found.longest.item())
    (0.02, 107)
    """
    if not elongation > 1:
        raise WorkbenchError(f"the elongation allowed is a ratio above 1, such as 1.15, not {elongation}")
    good = np.isfinite(shapes["plus"].values) & (shapes["exposure"].values > 0)
    if not good.any():
        raise WorkbenchError(
            "none of the lights has five stars that are bright and unsaturated: the tracking cannot be measured"
        )
    time = shapes["exposure"].values[good]
    short = float(np.median(shapes["short"].values[good]))
    several = bool(np.unique(np.round(np.log(time), 2)).size > 1)
    lines, covariances = [], []
    for name in ("plus", "cross"):
        error = np.maximum(shapes[f"{name}_error"].values[good], 1e-4)
        line, covariance = _drift_line(time**2, shapes[name].values[good], error, several)
        lines.append(line)
        covariances.append(covariance)
    offset, slope = np.array([(line.intercept, line.slope) for line in lines]).T
    size = math.hypot(*slope)
    weights = slope / size if size > 0 else np.ones(2)
    slope_error = math.hypot(*(weight * math.sqrt(c[0, 0]) for weight, c in zip(weights, covariances, strict=True)))
    room = short * (elongation**2 - 1)
    limit = size < 2 * slope_error
    if limit:
        longest, longest_error = _reach(np.zeros(2), np.array([2 * slope_error, 0.0]), room), math.nan
    else:
        longest, longest_error = _reach(offset, slope, room), _reach_error(offset, slope, covariances, room)
    drift = math.sqrt(12 * size)
    data = {
        "drift": ((), drift, {"units": "px/s", "long_name": "drift during an exposure"}),
        "drift_error": ((), 6 * slope_error / max(drift, math.sqrt(6 * slope_error)), {"units": "px/s"}),
        "longest": ((), longest, {"units": "s", "long_name": "longest sub"}),
        "longest_error": ((), longest_error, {"units": "s", "long_name": "error of the longest sub"}),
        "optics": ((), math.hypot(*offset), {"units": "px2", "long_name": "elongation without drift"}),
        "short": ((), short, {"units": "px2", "long_name": "variance along the shorter axis"}),
        "law": (("term", "component"), [offset, slope], {"long_name": "a [px²] and q [px²/s²]"}),
    }
    attrs = {"several_exposures": several, "elongation": float(elongation), "limit": limit, "long_name": "tracking"}
    return xr.Dataset(data, attrs=attrs)


def _reach(offset: np.ndarray, slope: np.ndarray, room: float) -> float:
    """Solve |a + q t²| = room for t, with vectors a and q of two components."""
    square, product, rest = slope @ slope, offset @ slope, offset @ offset - room**2
    if rest >= 0:
        return 0.0
    return math.sqrt((-product + math.sqrt(product**2 - square * rest)) / square) if square > 0 else math.inf


def _reach_error(offset: np.ndarray, slope: np.ndarray, covariances: list[np.ndarray], room: float) -> float:
    """The error of `_reach`: central differences along the principal axes of each component's covariance of (q, a)."""
    variance = 0.0
    for component, covariance in enumerate(covariances):
        unit = np.eye(2)[component]
        for size, axis in zip(*np.linalg.eigh(covariance), strict=True):
            step = math.sqrt(max(size, 0.0)) * axis
            ends = [_reach(offset + sign * step[1] * unit, slope + sign * step[0] * unit, room) for sign in (1, -1)]
            variance += ((ends[0] - ends[1]) / 2) ** 2
    return math.sqrt(variance)


def _drift_line(x: np.ndarray, y: np.ndarray, error: np.ndarray, free: bool) -> tuple[StraightLine, np.ndarray]:
    """Fit y = a + q x, or y = q x; return the line and the covariance of (q, a), widened to the scatter about it."""
    line = fit_line(x, y, 1 / error**2, through_origin=not free)
    degrees = x.size - (2 if free else 1)
    # seeing and gusts scatter more than the stars' own errors
    chi2 = float(np.sum(((y - line.intercept - line.slope * x) / error) ** 2)) / degrees if degrees > 0 else 1.0
    return line, line.covariance * max(1.0, chi2)
