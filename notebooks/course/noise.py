"""Notebooks 00, 01, 02 and 03: a frame and its histogram, noise by its source, averages of bias frames, single flats.

Each function takes data and settings and returns a HoloViews object; notebooks bind them to widgets.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from workbench import ingest
from workbench.charts import theme
from workbench.core import mosaic as bayer
from workbench.core.cube import channels_of
from workbench.core.noise import variance_terms
from workbench.core.settings import setting_dim
from workbench.core.values import describe, value_text
from workbench.simulate.sensor import VirtualSensor, expose

_ADU = theme.dimension("pixel value", "ADU")
_OFFSET = theme.dimension("pixel value less its mean", "ADU")
_FRACTION = theme.dimension("share of pixels", "per ADU")
_PIXELS = theme.dimension("pixels")
_WIDEST = 480  # of a reduced picture [px]
_CLIPPED = 0.1  # % of the pixels: from there on the noise is visibly cut off
_SINGLE = 120  # a picture of so few columns shows every pixel of the mosaic by itself


def frame_picture(folder: ingest.Folder, file: str, zoom: float = 1.0) -> hv.Layout:
    """Show one frame of a folder as a picture and as a histogram of its raw numbers.

    The picture averages whole cells of the mosaic until it is small enough (zoomed in far, it shows the single
    pixels), and runs from the 0.5th to the 99.5th percentile, in proportion to the numbers; nothing else is done to it.

    Parameters
    ----------
    file
        A name from the column ``file`` of the folder's table.
    zoom
        Enlargement of the frame's middle, 1 for the whole frame.
    """
    row = folder.select(file=file).table.iloc[0]
    mosaic = ingest.read_frame(row["path"])
    height, width = (max(2, round(size / zoom / 2)) for size in mosaic.shape)
    top, left = ((size // 2 - half) // 2 * 2 for size, half in zip(mosaic.shape, (height, width), strict=True))
    part = mosaic[top : top + 2 * height, left : left + 2 * width]
    single = row["cfa_pattern"] == "mono" or part.shape[1] <= _SINGLE
    reduced = _reduce(part, 1 if single else 2)
    shown = theme.picture(
        reduced,
        (left, top + part.shape[0], left + part.shape[1], top),
        dims=(theme.dimension("column", "px"), theme.dimension("row", "px")),
        value=_ADU,
        limits=tuple(np.percentile(reduced, (0.5, 99.5)) + np.array([0.0, 1e-3])),
    )
    counts, edges = np.histogram(part, bins=_bins(part))
    # a line, because bars that start at zero cannot be drawn on a logarithmic axis
    outline = np.repeat(edges, 2)[1:-1], np.repeat(np.maximum(counts, 0.5), 2)
    colour = theme.KIND_COLOUR.get(row["kind"], theme.INK)
    bars = theme.line(*outline, dims=(_ADU, _PIXELS), colour=colour)
    title = f"mean {part.mean():,.1f}, spread {part.std():,.2f} ADU"
    ratio = part.shape[1] / part.shape[0]
    panels = [theme.panel([shown], title=Path(file).name, legend=None, ratio=ratio, invert_y=True)]
    panels += [theme.panel([bars], title=title, log="y", legend=None, ylim=(0.5, counts.max() * 2))]
    return theme.layout(panels)


def browse_frames(folder: ingest.Folder, kind: str, number: int = 1, zoom: float = 1.0) -> hv.Layout:
    """Show one frame of a kind, by its number from 1 on; past the last one the last is shown."""
    files = folder.select(kind=kind).table["file"]
    return frame_picture(folder, files.iloc[min(number, len(files)) - 1], zoom)


def _reduce(mosaic: np.ndarray, cell: int) -> np.ndarray:
    """Average square blocks of whole cells until the picture is at most `_WIDEST` wide."""
    block = cell * max(1, math.ceil(mosaic.shape[1] / cell / _WIDEST))
    height, width = (size // block for size in mosaic.shape)
    blocks = mosaic[: height * block, : width * block].reshape(height, block, width, block)
    return blocks.mean(axis=(1, 3), dtype=float)


def _bins(values: np.ndarray, most: int = 120) -> np.ndarray:
    """Return edges of equal bins, whole ADU wide and between them, over nearly all of the values."""
    low, high = np.percentile(values, (0.02, 99.98))
    width = max(1, math.ceil((high - low) / most))
    return np.arange(math.floor(low) - 1.5 * width, high + 2.5 * width, width)


def noise_by_source(
    sensor: VirtualSensor, *, light: float, exposure: float, iso: float, temperature: float
) -> dict[str, float]:
    """Return what each source of noise adds to a pixel [e⁻ rms], from the virtual camera's truth.

    √(light · t) and √(dark current · t), Poisson's law; the read noise; rounding to whole ADU, g/√12.

    Examples
    --------
    >>> from workbench.simulate import d7000
    >>> parts = noise_by_source(d7000(), light=100, exposure=4, iso=800, temperature=20)
    >>> {name: round(value, 2) for name, value in parts.items()}
    {'light': 20.0, 'dark current': 1.1, 'read noise': 2.45, 'rounding': 0.08}
    """
    terms = variance_terms(
        light * exposure,
        dark=sensor.mean_dark_current(temperature) * exposure,
        read_noise=sensor.read_noise(iso),
        gain=sensor.gain(iso),
    )
    return {name: math.sqrt(term) for name, term in terms.items() if name != "response"}


def virtual_exposure(
    sensor: VirtualSensor,
    light: float = 100.0,
    exposure: float = 4.0,
    iso: float = 800,
    temperature: float = 20.0,
    seed: int = 1,
) -> hv.Layout:
    """Take two equal frames with the virtual camera and chart their numbers, and the noise by its source.

    The noise is measured as in any camera, from the difference of the two, in the middle of the frame; the other bars
    are the truth there.  The light is the mean minus black level and dark signal.  Where pixels are saturated the title
    says so, and neither noise nor SNR is stated.

    Parameters
    ----------
    light
        Photo-electrons a second in each pixel at the centre.
    exposure, iso, temperature
        Time [s], setting, sensor temperature [°C].
    """
    settings = {"iso": iso, "exposure": exposure, "temperature": temperature}
    pair = [expose(sensor, light, **settings, seed=(seed, number)).astype(float) for number in range(2)]
    gain = sensor.gain(iso)
    middle = tuple(slice(size // 4, 3 * size // 4) for size in sensor.shape)
    values = pair[0][middle]
    noise = (pair[0] - pair[1])[middle].std() / math.sqrt(2) * gain
    signal = (values.mean() - sensor.black_level) * gain - sensor.mean_dark_current(temperature) * exposure
    signal = max(signal, 0.0)
    counts, edges = np.histogram(values, bins=_bins(values))
    colour = theme.KIND_COLOUR["light" if light > 0 else "dark"]
    bars, highest = _noise_bars(noise_by_source(sensor, light=light, **settings), noise)
    ratio = f"light {signal:,.1f} e⁻, noise {noise:,.2f} e⁻: SNR {signal / noise:,.1f}" if noise else ""
    clipped = 100 * float(((values - sensor.black_level) * gain > sensor.saturation(iso) - gain).mean())
    if clipped > _CLIPPED:  # the scale ends, and the noise with it: no number to state
        ratio = f"{clipped:.3g} % of the pixels are saturated: no SNR"
        bars, highest = _noise_bars(noise_by_source(sensor, light=light, **settings), math.nan)
    numbers = [theme.steps(edges, counts.astype(float), dims=(_ADU, _PIXELS), colour=colour)]
    title = f"The numbers: mean {values.mean():,.1f} ADU"
    panels = [theme.panel(numbers, title=title, legend=None, ylim=(0, counts.max() * 1.1))]
    return theme.layout([*panels, theme.panel([bars], title=ratio, legend=None, ylim=(0, highest * 1.15))])


def _noise_bars(sources: dict[str, float], measured: float) -> tuple[hv.Bars, float]:
    """Return bars of the noise by source, all together and measured [e⁻ rms], and the highest of them."""
    total = math.sqrt(sum(value**2 for value in sources.values()))
    names = [*sources, "all together", "measured" if math.isfinite(measured) else "measured: saturated"]
    colours = [theme.KIND_COLOUR[kind] for kind in ("light", "dark", "bias")] + [theme.UNUSED, theme.MUTED, theme.INK]
    bars = hv.Bars(
        (names, [*sources.values(), total, np.nan_to_num(measured)]),
        hv.Dimension("source"),
        theme.dimension("noise", "e⁻ rms"),
    )
    fill = hv.dim("source").categorize(dict(zip(names, colours, strict=True)))
    return theme.styled(bars, fill_color=fill, line_color=None, xrotation=25), float(np.nanmax([total, measured]))


def bias_average(bias: xr.DataArray, frames: int = 1, iso: float | None = None) -> hv.Layout:
    """Chart the spread of the average of some bias frames: its noise falls, the fixed pattern stays.

    Left, the histogram of the average; right, its standard deviation against the number of frames averaged, with σ/√N
    and √(σ²/N + pattern²), the noise σ of one frame from differences and the pattern from what is left.  Only the
    middle of the frame is used.

    Parameters
    ----------
    bias
        Bias frames (frame, y, x).
    frames
        How many of them the average on the left takes.
    iso
        Which; the lowest ISO or gain setting by default.  The first green is taken.
    """
    dim = setting_dim(bias)
    iso = float(np.unique(bias[dim].values)[0] if iso is None else iso)
    names = channels_of(bias.attrs["cfa_pattern"])
    channel = "G1" if "G1" in names else names[0]
    planes = bayer.split(bias.isel(frame=np.flatnonzero(bias[dim].values == iso))).sel(channel=channel)
    cube = planes.isel({dim: slice(*_middle(planes.sizes[dim])) for dim in ("y", "x")}).astype("float32").values
    count = len(cube)
    frames = min(frames, count)
    means = np.cumsum(cube, axis=0) / np.arange(1, count + 1)[:, None, None]
    spread = means.std(axis=(1, 2))
    noise = float(np.diff(cube, axis=0).std(axis=(1, 2)).mean() / math.sqrt(2)) if count > 1 else math.nan
    pattern = math.sqrt(max(spread[-1] ** 2 - noise**2 / count, 0.0)) if count > 1 else math.nan
    lowest = 0.8 * (noise / math.sqrt(count) if count > 1 else spread[0])
    ticks = [(n, str(n)) for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= count]
    left = _average_histogram(means[frames - 1], frames, noise, 4.5 * max(spread[0], 0.5))
    panels = [theme.panel(left, title=f"{channel} at {describe({dim: iso})}: {_frames(frames)}")]
    panels += [theme.panel(
        _spread_against_count(spread, frames, noise, pattern),
        title=f"noise {value_text(noise)} ADU, fixed pattern {value_text(pattern)} ADU", log="xy",
        xticks=ticks, xlim=(0.9, count * 1.15), ylim=(lowest or 0.1, 1.4 * spread[0] or 1.0),
    )]  # fmt: skip
    return theme.layout(panels)


def _average_histogram(mean: np.ndarray, frames: int, noise: float, widest: float) -> list[Any]:
    """Return the histogram of an average of frames about its mean, and the normal curve of noise alone."""
    # an average of N whole numbers is a multiple of 1/N: bins of whole multiples, with edges between them
    level = float(mean.mean())
    width = math.ceil(widest / 40 * frames) / frames
    start = (math.floor((level - widest) * frames) - 0.5) / frames
    density, edges = np.histogram(mean, bins=np.arange(start, level + widest + width, width), density=True)
    dims, colour = (_OFFSET, _FRACTION), theme.KIND_COLOUR["bias"]
    elements = [theme.steps(edges - level, density, dims=dims, label=_frames(frames), colour=colour)]
    if math.isfinite(noise):
        sigma, along = noise / math.sqrt(frames), np.linspace(-widest, widest, 200)
        normal = np.exp(-0.5 * (along / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        elements.append(theme.line(along, normal, dims=dims, label="noise alone", dash="dashed"))
    return elements


def _spread_against_count(spread: np.ndarray, frames: int, noise: float, pattern: float) -> list[Any]:
    """Return the spread of averages against the number of frames, its law, and a ring around one of them."""
    dims = (theme.dimension("frames averaged"), theme.dimension("standard deviation", "ADU"))
    count = np.arange(1, len(spread) + 1)
    elements = []
    if len(spread) > 1:
        along = np.geomspace(1, len(spread), 60)
        alone = noise / np.sqrt(along)
        both = np.hypot(alone, pattern)
        elements = [
            theme.line(along, alone, dims=dims, label="noise alone: σ/√N", dash="dashed"),
            theme.line(along, both, dims=dims, label="noise and fixed pattern", colour=theme.MUTED),
        ]
    ring = [frames], [spread[frames - 1]]
    return [
        *elements,
        theme.points(count, spread, dims=dims, label="measured", colour=theme.KIND_COLOUR["bias"]),
        theme.points(*ring, dims=dims, label="shown on the left", size=14, filled=False),
    ]


def _middle(size: int, most: int = 512) -> tuple[int, int]:
    """Return where the middle of a side begins and ends: enough pixels for a spread known to 0.2 %."""
    start = max(0, (size - most) // 2)
    return start, min(size, start + most)


def _frames(count: int) -> str:
    return "one frame" if count == 1 else f"average of {count} frames"


def gain_one_frame(
    ptc: xr.Dataset, gain: xr.Dataset, iso: float | None = None, true: xr.DataArray | None = None
) -> hv.Layout:
    """Chart the gain from each light level alone: from one frame's variance, and from a pair's.

    μ/σ² with the signal μ above black and the variance σ² less that of the bias frames.  One frame's σ² includes
    PRNU²μ², so its estimate falls as the light grows; that of a pair does not.

    Parameters
    ----------
    ptc, gain
        From `sensor.photon_transfer` with bias frames, and `sensor.fit_gain`.
    iso
        The ISO or gain setting; the lowest by default.
    true
        The true gain [e⁻/ADU] over iso where it is known.
    """
    dim = setting_dim(ptc)
    iso = float(np.unique(ptc[dim].values)[0] if iso is None else iso)
    pairs = np.flatnonzero(ptc[dim].values == iso)
    curve, used, fit = ptc.isel(pair=pairs), gain["used"].isel(pair=pairs), gain.sel({dim: iso})
    dims = (theme.dimension("signal", "e⁻"), theme.dimension("gain", "e⁻/ADU"))
    elements: list[Any] = []
    for name in ptc["channel"].values.tolist():
        channel = curve.sel(channel=name).isel(pair=np.flatnonzero(used.sel(channel=name).values))
        elements += _gains_of_levels(channel, float(fit["gain"].sel(channel=name)), name, dims)
    level = float(fit["gain"].mean())
    signals = np.concatenate([group.get(1 if len(group) > 1 else 0).dimension_values(0) for group in elements])
    ends = [signals.min() / 1.4, signals.max() * 1.4]
    elements.insert(0, theme.line(ends, [level, level], dims=dims, label="fit to the pairs", colour=theme.MUTED))
    if true is not None and iso in true["iso"]:
        level = float(true.sel(iso=iso))
        elements.insert(1, theme.line(ends, [level, level], dims=dims, label="truth", dash="dashed"))
    look = {"log": "x", "legend": "bottom_left", "ylim": (0, level * 1.25), "width": 640}
    return theme.layout([theme.panel(elements, title=f"{describe({dim: iso})}: gain from each light level", **look)])


def _gains_of_levels(channel: xr.Dataset, gain: float, name: str, dims: tuple[Any, Any]) -> list[Any]:
    """Return the gain from each pair of one channel, with errors, and from one frame of each pair."""
    floor = channel["dark_variance"].fillna(0.0)
    variance = (channel["variance"] - floor).values
    signal, error = channel["signal"].values, channel["variance_error"].values
    alone = (channel["mean_single"] - channel["black_level"]).values
    alone_gain = alone / (channel["variance_single"] - floor).values
    looks = {"dims": dims, "colour": theme.CHANNEL_COLOUR[name], "marker": name, "size": 7}
    pair_gain, pair_error = signal / variance, signal / variance**2 * error
    return [
        theme.points(signal * gain, pair_gain, pair_error, label=f"{name}, pair", **looks),
        theme.points(alone * gain, alone_gain, label=f"{name}, one frame", filled=False, **looks),
    ]
