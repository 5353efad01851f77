"""Particles falling on a detector, simulated and as cosmic rays in darks, and drawings of how sensors are read out."""

from __future__ import annotations

import math
from typing import Any

import holoviews as hv
import numpy as np
import xarray as xr

from ..core.values import unit_text
from . import theme
from .registry import Caption, caption, chart, quantity, source
from .theme import INK, KIND_COLOUR, MUTED, PAPER, SERIES

# The demonstration's detector: so many particles fall on it in an exposure of length 1.
PARTICLES_PER_UNIT = 100.0
EXPOSURES = tuple(0.5 * step for step in range(1, 9))

LENGTH, SNR = theme.dimension("exposure"), theme.dimension("signal to noise")
ACROSS, DOWN = theme.dimension("x"), theme.dimension("y")
GALLERY_COLUMN, GALLERY_ROW = theme.dimension("gallery column", "px"), theme.dimension("gallery row", "px")
PIXELS, EVENTS = theme.dimension("pixels of an event"), theme.dimension("events")
_TRACKS_ACROSS, _TRACKS_DOWN = 6, 4
_CELL, _WELL, _WIRE, _AMP, _ADC = "#dbe7f3", SERIES[0], MUTED, KIND_COLOUR["light"], KIND_COLOUR["dark"]


def expose(exposure: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Let particles fall on the unit square for a while; return where each one landed, x and y.

    How many fall is Poisson distributed about ``PARTICLES_PER_UNIT`` x exposure; an ideal detector counts each.

    Examples
    --------
    >>> x, y = expose(2.0, np.random.default_rng(1))
    >>> x.size, bool((x >= 0).all() and (y < 1).all())
    (200, True)
    """
    count = rng.poisson(PARTICLES_PER_UNIT * exposure)
    return rng.random(count), rng.random(count)


def running_snr(counts: Any) -> tuple[float, float]:
    """Return the signal-to-noise ratio of repeated counts, mean/SD, and its standard error.

    The error follows from those of mean and standard deviation, independent for a normal count:
    (δSNR/SNR)² = 1/(n SNR²) + 1/(2(n - 1)).  NaN for fewer than two counts or counts that are all equal.

    Examples
    --------
    >>> snr, error = running_snr(np.random.default_rng(0).poisson(100, 4000))
    >>> abs(snr - 10) < 3 * error < 0.4
    True
    """
    counts = np.asarray(counts, float)
    spread = float(counts.std(ddof=1)) if counts.size > 1 else 0.0
    if spread == 0:
        return math.nan, math.nan
    snr = float(counts.mean() / spread)
    return snr, snr * math.sqrt(1 / (counts.size * snr**2) + 0.5 / (counts.size - 1))


@chart("shot-noise-demo", "Shot noise: counting particles", "Shot noise")
def shot_noise_demo(*, repeats: int = 1000, seed: int = 1) -> hv.Layout:
    """Draw the demonstration as a picture: two exposures of an ideal detector, and the SNR of many.

    Parameters
    ----------
    repeats
        Exposures of each length that the signal-to-noise ratio is taken over.
    seed
        Of the random numbers; the same seed draws the same picture.
    """
    rng = np.random.default_rng(seed)
    panels = []
    corner, dims = np.array([-0.02, 1.02, 1.02, -0.02, -0.02]), (ACROSS, DOWN)
    bare = {"axes": False, "ratio": 1.0, "legend": None, "xlim": (-0.04, 1.04), "ylim": (-0.04, 1.04)}
    for exposure in (EXPOSURES[0], EXPOSURES[-1]):
        x, y = expose(exposure, rng)
        frame = theme.line(corner, np.sort(corner)[[0, 0, 3, 3, 0]], dims=dims, colour=MUTED, width=1)
        dots = theme.points(x, y, dims=dims, label="", colour=SERIES[0], size=4)
        panels.append(theme.panel([frame, dots], title=f"Exposure {exposure:g}: {x.size} particles", **bare))
    measured = [running_snr(rng.poisson(PARTICLES_PER_UNIT * length, repeats)) for length in EXPOSURES]
    along, dims = np.linspace(0, EXPOSURES[-1] * 1.05, 200), (LENGTH, SNR)
    label = f"{repeats} exposures each"
    elements = [
        theme.line(along, np.sqrt(PARTICLES_PER_UNIT * along), dims=dims, label="expected: √N", dash="dashed"),
        theme.points(EXPOSURES, *np.array(measured).T, dims=dims, label=label, colour=SERIES[1], size=7),
    ]
    scales = {"xlim": (0, 4.2), "ylim": (0, 22), "ratio": 1.0, "grid": True}
    return theme.layout([*panels, theme.panel(elements, title="SNR grows as √N", legend="bottom_right", **scales)])


@caption(shot_noise_demo)
def _shot_noise_demo_caption(_result: Any) -> Caption:
    return Caption(
        "Particles fall at random on an ideal detector, on average 100 in an exposure of length 1; it misses none and "
        "adds no noise of its own. Yet the count differs from exposure to exposure: with N particles on average it "
        "scatters by √N, so the signal-to-noise ratio is N/√N = √N. Four times the exposure doubles it. Simulated "
        "data: Poisson counts; bars: 1σ of the ratio.",
        "Squares speckled with randomly placed dots, few for a short and many for a long exposure, and a chart in "
        "which the signal-to-noise ratio follows the square root of the exposure.",
    )


@chart(
    "cosmic-rays", "Cosmic rays in darks", "Dark current", needs=("cosmic_rays",), shoot="twenty or more equal darks",
    asked=True,
)  # fmt: skip
def cosmic_rays(found: xr.Dataset) -> hv.Layout:
    """Show the largest tracks, each less the mean of the other darks, and how many pixels the events have.

    `found` comes from `pixels.find_cosmic_rays`.
    """
    stamps, side = found["picture"].values[: _TRACKS_ACROSS * _TRACKS_DOWN], found.sizes["row"]
    gallery = np.full((_TRACKS_DOWN * side, _TRACKS_ACROSS * side), np.nan, np.float32)
    for number, stamp in enumerate(stamps):
        y, x = (side * at for at in divmod(number, _TRACKS_ACROSS))
        gallery[y : y + side, x : x + side] = stamp
    # a square root, so that faint ends of bright tracks show
    values = np.sign(gallery) * np.sqrt(np.abs(np.nan_to_num(gallery)))
    top = float(np.nanpercentile(stamps, 99.8)) if stamps.size else 1.0
    height, width = gallery.shape
    dims, style = (GALLERY_COLUMN, GALLERY_ROW), {"colour": PAPER}
    over = [theme.upright(x * side, (0, height), dims=dims, width=1, **style) for x in range(1, _TRACKS_ACROSS)]
    over += [theme.level(y * side, (0, width), dims=dims, width=1, **style) for y in range(1, _TRACKS_DOWN)]
    if not stamps.size:
        over.append(theme.note(width / 2, height / 2, "no tracks", dims=dims, **style))
    value = theme.dimension(f"√ of the charge in {unit_text(found['charge'].attrs['units'])}")
    limits = (-float(np.sqrt(max(0.1 * top, 0.0))), float(np.sqrt(max(top, 1e-6))))
    bounds = (0.0, 0.0, float(width), float(height))
    image = theme.picture(values[::-1], bounds, dims=dims, value=value, cmap="inferno", limits=limits)
    left = theme.frame_panel([image, *over], f"The largest {len(stamps)} tracks", (0, 0, width, height), axes=False)
    sizes = found["pixels"].values
    edges = np.arange(0.5, min(int(sizes.max(initial=4)), 60) + 1.5)
    counts, _ = np.histogram(np.minimum(sizes, 60), edges)
    bars = theme.steps(edges, counts, dims=(PIXELS, EVENTS), colour=KIND_COLOUR["dark"])
    room = (0, max(5.0, 1.15 * float(counts.max(initial=1))))
    return theme.layout([left, theme.panel([bars], title="How long they are", legend=None, ylim=room)])


@caption(cosmic_rays)
def _cosmic_rays_caption(result: Any) -> Caption:
    found = result.cosmic_rays
    expected, minutes = float(found["expected"]), float(found["seconds"]) / 60
    compared = ""
    if np.isfinite(expected):
        flux = quantity(found, "flux", "per cm² and minute")
        compared = f"; {expected:.0f} muons are expected (1 per cm² and minute at sea level). Measured: {flux}"
    text = (
        f"{int(found['tracks'])} tracks of two pixels or more in {int(found['frames'])} darks, {minutes:.0f} minutes "
        f"in all, and {int(found['singles'])} events of one pixel{compared}."
    )
    return Caption(
        f"Each picture is {found.sizes['row']} pixels wide: a dark less the mean of the other darks, where pixels "
        f"stand out by more than {found.attrs['threshold']:g} σ. {text} {int(found['dips'])} pixels fell as far below "
        f"the mean, which no particle can cause: about as many of the others may be false. {source(result)}",
        f"A gallery of bright specks and streaks on dark ground, and a histogram of their sizes. {text}",
    )


@chart("ccd-vs-cmos", "How a CCD and a CMOS sensor are read out", "The sensor", numbers=False)
def ccd_vs_cmos() -> hv.Layout:
    """Draw the two readouts: one amplifier for all pixels, or one in every pixel and a converter for each column."""
    return theme.layout([_ccd(), _cmos()])


@caption(ccd_vs_cmos)
def _ccd_vs_cmos_caption(_result: Any) -> Caption:
    return Caption(
        "CCD: the charge itself travels. Row by row the electrons are shifted down into the serial register, then "
        "pixel by pixel to one output amplifier and one converter: every pixel has the same gain and the same read "
        "noise, and readout takes long. CMOS: an amplifier in every pixel turns its charge into a voltage in place; a "
        "row is selected and all its columns are converted at once: fast and low in noise, at the price of small "
        "differences from pixel to pixel and column to column, which bias frames and flats show. A drawing, not a "
        "measurement.",
        "Two diagrams of a four by four sensor. Left, CCD: arrows lead down through the pixels into a register, along "
        "it to the right, and through one amplifier and one converter. Right, CMOS: each pixel holds its own "
        "amplifier, one row is selected, and each column leads down to its own converter.",
    )


_SIDE = 0.78
_DIMS = (ACROSS, DOWN)


def _cells(fill: str, rows=range(4)) -> hv.Rectangles:
    corners = [(column, row, column + _SIDE, row + _SIDE) for column in range(4) for row in rows]
    return theme.boxes(corners, fill=fill, edge=_WIRE)


def _arrows(ends: list[tuple[float, float, float, float]], colour: str = INK, head: float = 0.11) -> list[Any]:
    """Draw straight arrows from (x0, y0) to (x1, y1)."""
    tips = []
    for x0, y0, x1, y1 in ends:
        along = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0)
        across = np.array([-along[1], along[0]])
        tip = np.array([x1, y1])
        base = tip - 1.7 * head * along
        tips.append(np.array([tip, base + head * across, base - head * across]))
    return [theme.segments(ends, colour=colour), theme.shapes(tips, fill=colour, edge=colour)]


def _triangle(x: float, y: float, size: float) -> np.ndarray:
    """Return an amplifier's symbol: a triangle that points where the signal goes."""
    return np.array([(x, y - size), (x, y + size), (x + 1.6 * size, y)])


def _write(words: list[tuple[float, float, str]], *, colour: str = INK, size: int = 12) -> hv.Labels:
    """Write words about the places given."""
    x, y, text = (list(part) for part in zip(*words, strict=True))
    return theme.note(x, y, text, dims=_DIMS, colour=colour, align=("center", "center"), size=size)


def _drawing(elements: list[Any], title: str, left: float) -> hv.Overlay:
    scales = {"ratio": 1.0, "xlim": (left, left + 6.6), "ylim": (-2.1, 4.5)}
    return theme.panel(elements, title=title, axes=False, legend=None, **scales)


def _ccd() -> hv.Overlay:
    middle = _SIDE / 2
    register = -1.25
    wells = [(column + middle, row + middle) for column in range(4) for row in range(4)]
    shift = [(x + middle, row + 0.2, x + middle, row - 0.22 - 0.2) for x in range(4) for row in range(1, 4)]
    into = [(column + middle, 0.2, column + middle, register + _SIDE + 0.02) for column in range(4)]
    along = [(column + 0.56, register + middle, column + 1.22, register + middle) for column in range(3)]
    out = [(3 + _SIDE - 0.16, register + middle, 4.12, register + middle)]
    elements = [
        _cells(_CELL),
        _cells("#f3e3cf", rows=[register]),
        theme.points(*np.array(wells).T, dims=_DIMS, label="", colour=_WELL, size=9),
        *_arrows(shift, colour=_WELL, head=0.09),
        *_arrows(into, colour=_WELL, head=0.09),
        *_arrows([*along, *out], colour=_WELL, head=0.09),
        theme.shapes([_triangle(4.15, register + middle, 0.36)], fill=_AMP, edge=_AMP),
        *_arrows([(4.73, register + middle, 5.08, register + middle)], head=0.09),
        theme.boxes([(5.1, register + 0.05, 5.95, register + _SIDE - 0.05)], fill=_ADC, edge=_ADC),
        _write([(5.525, register + middle, "ADC")], colour=PAPER),
        _write(
            [
                (1.89, 4.25, "pixels collect electrons"),
                (1.89, -1.6, "serial register"),
                (4.45, -0.2, "one\namplifier"),
                (5.525, -1.72, "one\nconverter"),
            ]
        ),
        _write([(4.95, 2.0, "charge\nmoves\nrow by row,\nthen pixel\nby pixel")], colour=_WELL),
    ]
    return _drawing(elements, "CCD: the charge travels", -0.35)


def _cmos() -> hv.Overlay:
    middle = _SIDE / 2
    selected = 2
    wells = [(column + 0.24, row + 0.52) for column in range(4) for row in range(4)]
    lines = [(column + 0.9, 3 + _SIDE, column + 0.9, -0.42) for column in range(4)]
    taps = [(column + 0.7, row + 0.26, column + 0.9, row + 0.26) for column in range(4) for row in range(4)]
    live = [(column + 0.9, selected + 0.26, column + 0.9, -0.42) for column in range(4)]
    elements = [
        theme.segments([(-0.32, row + middle, 3 + _SIDE, row + middle) for row in range(4)], colour="#cfd6dd"),
        _cells(_CELL, rows=[row for row in range(4) if row != selected]),
        _cells("#fdebc8", rows=[selected]),
        theme.segments(lines, colour=_WIRE),
        theme.segments(taps, colour=_WIRE),
        theme.points(*np.array(wells).T, dims=_DIMS, label="", colour=_WELL, size=9),
        theme.shapes(
            [_triangle(column + 0.44, row + 0.26, 0.16) for column in range(4) for row in range(4)],
            fill=_AMP,
            edge=_AMP,
        ),
        *_arrows(live, colour=SERIES[1], head=0.09),
        theme.boxes([(column + 0.55, -1.1, column + 1.25, -0.44) for column in range(4)], fill=_ADC, edge=_ADC),
        _write([(column + 0.9, -0.77, "ADC") for column in range(4)], colour=PAPER, size=10),
        *_arrows([(column + 0.9, -1.12, column + 0.9, -1.42) for column in range(4)], head=0.07),
        theme.boxes([(0.55, -1.78, 4.25, -1.44)], fill="#eceff2", edge=_WIRE),
        *_arrows([(4.27, -1.61, 4.9, -1.61)], head=0.09),
        *_arrows([(-0.75, selected + middle, -0.05, selected + middle)], colour=SERIES[1], head=0.09),
        _write(
            [
                (2.4, -1.61, "digital output"),
                (1.95, 4.25, "an amplifier in every pixel"),
                (5.1, -0.77, "a converter\nfor each\ncolumn"),
            ]
        ),
        _write([(5.0, 2.4, "the selected\nrow is read\nat once:\nvoltages\nmove")], colour=SERIES[1]),
    ]
    return _drawing(elements, "CMOS: each pixel amplifies", -0.8)
