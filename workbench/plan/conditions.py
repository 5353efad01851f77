"""What a light frame tells about the night: how bright the sky is, and how well the mount tracks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from ..core.cube import channels_of, check_cube, one_value
from ..core.dark import dark_current_at
from ..core.errors import WorkbenchError
from ..core.mosaic import channel_index, offsets
from ..core.pairs import t_factor
from ..core.parallel import counted, stream_frames
from ..stars.background import block_background, green_sampling, half_green
from ..stars.find import find_stars
from ..stars.shapes import FWHM_PER_SIGMA

_BLOCK = 64  # pixels of a channel
_FRAMES = 8  # that suffice
_SNR, _FEWEST_STARS = 30.0, 5  # of stars whose shape counts
ELONGATION = 1.15  # longest over shortest axis of a star that still looks round


def background_rate(light: xr.DataArray, sensor: xr.Dataset, *, progress: Any = True) -> xr.Dataset:
    """Measure how fast the background of lights fills up: sky and dark current together, and the sky alone.

    (median level − black level) · gain / exposure, level by blocks of 64 x 64 pixels of a channel from which stars are
    clipped.  The dark current is the sensor's at the lights' temperature, by its law, or the one measured within
    2 K.  The error has that of gain, black level and dark current in it, and the scatter between frames.

    Parameters
    ----------
    light
        Raw lights (frame, y, x) of one ISO.
    sensor
        From `open_sensor` or `characterize`.
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over channel: ``rate``, ``sky``, ``dark`` [e⁻/s/pixel], each with ``_error``; sky and dark are NaN where the
        dark current is not known.  attrs: ``iso``, ``exposure`` (of each frame used), ``temperature``, ``frames``,
        ``white_level`` [ADU], ``warnings``.

    Raises
    ------
    WorkbenchError
        If the frames are no raw lights of one ISO with stated exposure, or that ISO's gain is not measured.

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
    iso = one_value(light, "iso", "a background rate")
    channels = list(channels_of(light.attrs["cfa_pattern"]))
    gain, gain_error, black, black_error = _at_iso(sensor, iso, channels, light.attrs["black_level"])
    chosen = _spread(light.sizes["frame"])
    exposure = light["exposure"].values[chosen]
    if not (np.isfinite(exposure) & (exposure > 0)).all():
        raise WorkbenchError(
            "these lights do not state their exposure, without which there is no rate; give it in frames.csv (column "
            "exposure_s)"
        )
    place = offsets(light.attrs["cfa_pattern"])
    step = 1 if light.attrs["cfa_pattern"] == "mono" else 2
    frames = counted(stream_frames(light.data[i] for i in chosen), progress, len(chosen))
    rates = np.empty((len(chosen), len(channels)))
    for number, frame in enumerate(frames):
        for column, name in enumerate(channels):
            plane = frame[place[name][0] :: step, place[name][1] :: step].astype(np.float32)
            level = float(np.nanmedian(block_background(plane, _BLOCK)[0]))
            rates[number, column] = (level - black[column]) * gain[column] / exposure[number]
    rate = rates.mean(axis=0)
    scatter = np.zeros(len(channels))
    if len(chosen) > 1:  # also real: the sky changes through a night
        scatter = rates.std(axis=0, ddof=1) / math.sqrt(len(chosen)) * t_factor(len(chosen) - 1)
    levelling = black_error * gain * float(np.mean(1 / exposure))
    error = np.sqrt((rate * gain_error / gain) ** 2 + levelling**2 + scatter**2)
    temperature = (
        float(np.nanmean(light["temperature"].values[chosen])) if _any(light["temperature"].values) else math.nan
    )
    warnings: list[str] = []
    dark, dark_error = dark_current_at(sensor, temperature)
    if math.isnan(dark):
        warnings.append(
            "the dark current at the lights' temperature is not known: the background is sky and dark current together"
        )
    per_second = {"units": "e-/s/pixel"}
    values = {
        "rate": (rate, "sky and dark current"),
        "rate_error": (error, "error of sky and dark current"),
        "sky": (rate - dark, "sky"),
        "sky_error": (np.hypot(error, dark_error), "error of the sky"),
        "dark": (np.full(len(channels), dark), "dark current"),
        "dark_error": (np.full(len(channels), dark_error), "error of the dark current"),
    }
    attrs = {
        "iso": iso,
        "exposure": float(np.median(exposure)),
        "temperature": temperature,
        "frames": len(chosen),
        "white_level": light.attrs["white_level"],
        "camera": light.attrs["camera"],
        "warnings": warnings,
        "long_name": "background of the lights",
    }
    data = {name: ("channel", value, per_second | {"long_name": text}) for name, (value, text) in values.items()}
    return xr.Dataset(data, {"channel": channels}, attrs)


def _any(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _spread(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _FRAMES)).round().astype(int))


def _at_iso(
    sensor: xr.Dataset, iso: float, channels: list[str], stated: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return gain and black level of each channel with their errors; the black level else as the file states it."""
    isos = sensor["iso"].values
    where = np.flatnonzero(np.isnan(isos) if math.isnan(iso) else isos == iso)
    one = sensor.isel(iso=where[0]).reindex(channel=channels) if where.size else None
    if one is None or not np.isfinite(one["gain"]).all():
        known = ", ".join(f"{value:g}" for value in isos[np.isfinite(sensor["gain"]).all("channel").values]) or "none"
        raise WorkbenchError(
            f"the gain at ISO {iso:g}, that of the lights, is not measured (measured: {known}): shoot bias frames and "
            "pairs of flats at that ISO and characterize them"
        )
    black, black_error = one["black_level"].values, one["black_level_error"].values
    black = np.where(np.isfinite(black), black, np.nan_to_num(np.asarray(stated, float)))
    return one["gain"].values, np.nan_to_num(one["gain_error"].values), black, np.nan_to_num(black_error)


def star_shapes(light: xr.DataArray, *, progress: Any = True) -> xr.Dataset:
    """Measure how wide the stars of lights are, and in which direction they are drawn out, frame by frame.

    Second moments of each star under a round Gaussian weight of the frame's own width, over the green pixels (or all of
    a mono frame), freed of the weight and of the pixels' own width (1/12 px²); then the median of each moment over the
    stars.  A direction that all stars share stays; what noise does to each star cancels, which the mean of their
    elongations would not.

    Parameters
    ----------
    light
        Raw lights (frame, y, x).
    progress
        False for no progress bar.

    Returns
    -------
    xarray.Dataset
        Over frame: ``plus``, xx − yy, and ``cross``, 2 xy [px²], each with ``_error``; ``short`` [px²], the variance
        along the shorter axis; ``elongation``, long over short axis; ``fwhm`` [px]; ``stars`` used.  Coordinates
        ``exposure`` [s], ``filename``.  NaN for a frame with fewer than five good stars.

    Raises
    ------
    WorkbenchError
        If the frames are no raw lights.
    """
    check_cube(light, stage="raw", kind="light")
    pattern = light.attrs["cfa_pattern"]
    green = np.array(
        [[name[0] in "Gm" for name in row] for row in np.array(channels_of(pattern))[channel_index(pattern)]]
    )
    names = ("plus", "plus_error", "cross", "cross_error", "short", "elongation", "fwhm")
    values = np.full((light.sizes["frame"], len(names)), np.nan)
    count = np.zeros(light.sizes["frame"], int)
    frames = counted(stream_frames(light.data[i] for i in range(len(count))), progress, len(count))
    black = np.nan_to_num(np.asarray(light.attrs["black_level"], float)).mean()
    white = light.attrs["white_level"]
    top = 0.9 * (white - black) if math.isfinite(white) else math.inf
    for number, frame in enumerate(frames):
        plane = half_green(frame, pattern)
        level = block_background(plane, _BLOCK)[0]
        found = find_stars(plane, sampling=green_sampling(pattern), saturation=top)
        good = (~found["saturated"] & (found["snr"] > _SNR) & np.isfinite(found["fwhm"])).values
        count[number] = np.count_nonzero(good)
        if count[number] < _FEWEST_STARS:
            continue
        sigma = max(float(np.median(found["fwhm"].values[good])) / FWHM_PER_SIGMA, 0.9)
        flat = frame.astype(np.float32) - np.float32(np.nanmedian(level))
        moments = _moments(flat, green, found["x"].values[good], found["y"].values[good], sigma)
        moments = moments[np.isfinite(moments).all(axis=1)] - np.array([1 / 12, 0.0, 1 / 12])
        if len(moments) < _FEWEST_STARS:
            continue
        xx, xy, yy = moments.T
        width = float(np.median(xx + yy)) / 2
        for place, sample in ((0, xx - yy), (2, 2 * xy)):
            centre = float(np.median(sample))
            spread = 1.4826 * float(np.median(np.abs(sample - centre)))
            # a median scatters 1.2533 times as much as a mean
            values[number, place : place + 2] = centre, 1.2533 * spread / math.sqrt(sample.size)
        half = math.hypot(values[number, 0], values[number, 2]) / 2
        values[number, 4] = width - half
        values[number, 5] = math.sqrt((width + half) / (width - half)) if width > half else math.nan
        values[number, 6] = FWHM_PER_SIGMA * math.sqrt(max(width, 0.0))
    units = {"elongation": "1", "fwhm": "px"}
    data: dict[str, Any] = {
        name: ("frame", column, {"units": units.get(name, "px²")}) for name, column in zip(names, values.T, strict=True)
    }
    data["stars"] = ("frame", count)
    coords = {name: ("frame", light[name].values) for name in ("exposure", "filename")}
    return xr.Dataset(data, coords, {"camera": light.attrs["camera"], "long_name": "shapes of the stars"})


def _moments(flat: np.ndarray, used: np.ndarray, xs: np.ndarray, ys: np.ndarray, sigma: float) -> np.ndarray:
    """Return xx, xy, yy [px²] of stars without their weight; NaN near the edge or where that fails.

    `used` is the cell of the mosaic with True for the pixels that count.  Of a Gaussian star of covariance S under a
    weight of covariance W the weighted moments are M = (S⁻¹ + W⁻¹)⁻¹.
    """
    reach = math.ceil(3.5 * sigma)
    found = np.full((xs.size, 3), np.nan)
    offset = np.arange(-reach, reach + 1)
    step = used.shape[0]
    for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
        column, row = round(float(x)), round(float(y))
        if not (reach <= column < flat.shape[1] - reach and reach <= row < flat.shape[0] - reach):
            continue
        stamp = flat[row - reach : row + reach + 1, column - reach : column + reach + 1].astype(float)
        mask = used[np.ix_((row + offset) % step, (column + offset) % step)]
        border = np.ones_like(mask)
        border[1:-1, 1:-1] = False
        stamp = np.where(mask, stamp - np.median(stamp[border & mask]), 0.0)  # less the local background
        for _ in range(4):  # the weight is centred on the star
            dx, dy = offset[None, :] - (x - column), offset[:, None] - (y - row)
            light = stamp * np.exp(-(dx**2 + dy**2) / (2 * sigma**2))
            total = light.sum()
            if total <= 0:
                break
            x, y = x + 2 * float((light * dx).sum() / total), y + 2 * float((light * dy).sum() / total)
        if total <= 0 or abs(x - column) > 2 or abs(y - row) > 2:
            continue
        xx, xy, yy = ((light * part).sum() / total for part in (dx * dx, dx * dy, dy * dy))
        inverse = np.linalg.inv([[xx, xy], [xy, yy]]) - np.eye(2) / sigma**2
        if np.linalg.det(inverse) > 0 and inverse[0, 0] > 0:
            own = np.linalg.inv(inverse)
            found[number] = own[0, 0], own[0, 1], own[1, 1]
    return found


def tracking(shapes: xr.Dataset, elongation: float = ELONGATION) -> xr.Dataset:
    """Estimate the longest sub that the mount allows, from how star images draw out with the exposure.

    A star that drifts by v t is blurred along its path by a variance of (v t)²/12, beside what optics leave: the vector
    (xx − yy, 2 xy) is a + q t² with |q| = v²/12, fitted to lights of different exposures with weights from the errors
    and scatter.  The longest sub keeps √(1 + |a + q t²|/short) to `elongation`.  From lights of one exposure all of the
    elongation counts as drift, and the sub is a lower limit.

    Parameters
    ----------
    shapes
        From `star_shapes`.
    elongation
        Long over short axis of a star that is still good enough.

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
            "none of the lights has five stars that are bright and unsaturated: tracking cannot be judged from them"
        )
    time = shapes["exposure"].values[good]
    short = float(np.median(shapes["short"].values[good]))
    several = bool(np.unique(np.round(np.log(time), 2)).size > 1)
    fits = []
    for name in ("plus", "cross"):
        error = np.maximum(shapes[f"{name}_error"].values[good], 1e-4)
        fits.append(_line(time**2, shapes[name].values[good], error, several))
    (a1, q1, covariance1), (a2, q2, covariance2) = fits
    slope = math.hypot(q1, q2)
    weights = (q1 / slope, q2 / slope) if slope > 0 else (1.0, 0.0)
    slope_error = math.hypot(weights[0] * math.sqrt(covariance1[1, 1]), weights[1] * math.sqrt(covariance2[1, 1]))
    room = short * (elongation**2 - 1)

    def reach(b1: float, b2: float, p1: float, p2: float) -> float:
        """Solve |b + p t²| = room for t."""
        square, product, rest = p1**2 + p2**2, b1 * p1 + b2 * p2, b1**2 + b2**2 - room**2
        if rest >= 0:
            return 0.0
        return math.sqrt((-product + math.sqrt(product**2 - square * rest)) / square) if square > 0 else math.inf

    limit = slope < 2 * slope_error
    if limit:
        longest, longest_error = reach(0.0, 0.0, 2 * slope_error, 0.0), math.nan
    else:
        longest = reach(a1, a2, q1, q2)
        moved = []
        for number, covariance in enumerate((covariance1, covariance2)):
            # along the principal axes of each fit's own errors
            size, axes = np.linalg.eigh(covariance)
            for one, axis in zip(size, axes.T, strict=True):
                step = math.sqrt(max(one, 0.0)) * axis
                ends = []
                for sign in (1, -1):
                    shifted = [a1, a2, q1, q2]
                    shifted[number] += sign * step[0]
                    shifted[number + 2] += sign * step[1]
                    ends.append(reach(*shifted))
                moved.append((ends[0] - ends[1]) / 2)
        longest_error = math.sqrt(sum(step**2 for step in moved))
    drift = math.sqrt(12 * slope)
    data = {
        "drift": ((), drift, {"units": "px/s", "long_name": "drift during an exposure"}),
        "drift_error": ((), 6 * slope_error / max(drift, math.sqrt(6 * slope_error)), {"units": "px/s"}),
        "longest": ((), longest, {"units": "s", "long_name": "longest sub"}),
        "longest_error": ((), longest_error, {"units": "s", "long_name": "error of the longest sub"}),
        "optics": ((), math.hypot(a1, a2), {"units": "px²", "long_name": "elongation without drift"}),
        "short": ((), short, {"units": "px²", "long_name": "variance along the shorter axis"}),
        "law": (("term", "component"), [[a1, a2], [q1, q2]], {"long_name": "a [px²] and q [px²/s²]"}),
    }
    attrs = {"several_exposures": several, "elongation": float(elongation), "limit": limit, "long_name": "tracking"}
    return xr.Dataset(data, attrs=attrs)


def _line(x: np.ndarray, y: np.ndarray, error: np.ndarray, free: bool) -> tuple[float, float, np.ndarray]:
    """Fit y = a + q x, or y = q x; return a, q and their covariance, widened to the scatter about the line."""
    design = np.stack([np.ones(x.size), x], axis=1) if free else x[:, None]
    covariance = np.linalg.inv(design.T @ (design / error[:, None] ** 2))
    answer = covariance @ (design.T @ (y / error**2))
    degrees = x.size - design.shape[1]
    if degrees > 0:  # seeing and gusts scatter more than the stars' own errors
        chi2 = float(np.sum(((y - design @ answer) / error) ** 2)) / degrees
        covariance = covariance * max(1.0, chi2)
    if free:
        return float(answer[0]), float(answer[1]), covariance
    whole = np.zeros((2, 2))
    whole[1, 1] = covariance[0, 0]
    return 0.0, float(answer[0]), whole
