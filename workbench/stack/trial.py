"""A trial of the rejection methods: plant a satellite and cosmic rays into real lights, and count what is found.

The satellite brightens along its way, so that one trail holds events of every strength.  What was planted is known to
the electron; everything else in the frames is as it was.  **The planted events are simulated**, the frames need not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import ndimage

from ..align.registration import Registration
from ..core.errors import WorkbenchError
from .cubes import aligned
from .growth import average
from .normalise import normalisation
from .pixel import noise_limits, reject_samples
from .reject import DEFAULTS, MEAN, method_number
from .tile import FrameLevels, place_frame

STRENGTHS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0)  # [σ of a sample]
THRESHOLDS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
COMPARED = ("sigma", "winsorized", "linear-fit", "mad", "noise")
CLEAR = 5.0  # [σ] an event this strong should be found
_EVENT = 6.0  # [σ of the noise model] what was there before and counts neither way


def plant(
    shape: tuple[int, ...], *, brightest: float, rays: int = 40, fwhm: float = 2.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a satellite and cosmic rays add to a frame [e-] (y, x), and the satellite's centre line (boolean).

    Parameters
    ----------
    brightest
        Light along the trail's centre [e-/pixel] at its bright end; it grows from nothing at the other.
    rays
        Cosmic rays: straight tracks of 1 to 6 pixels, from a tenth of `brightest` to ten times as much in a pixel.
    fwhm
        Width of the trail [pixels].

    Examples
    --------
    >>> light, line = plant((60, 90), brightest=500.0, seed=1)
    >>> light.shape, bool(light[line].mean() > 100), bool((light >= 0).all())
    ((60, 90), True, True)
    """
    if not (brightest > 0 and rays >= 0):
        raise WorkbenchError(f"a trail needs light and rays number 0 or more; got {brightest:g} e- and {rays}")
    rng = np.random.default_rng((seed, 17))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    tilt = 0.35 * shape[0] / shape[1]
    off = (y - 0.3 * shape[0] - tilt * x) / np.hypot(1, tilt)
    level = brightest * x / (shape[1] - 1)
    light = rng.poisson(level * np.exp(-4 * np.log(2) * (off / fwhm) ** 2)).astype(np.float32)
    line = np.abs(off) < 0.5
    for _ in range(rays):
        row, column = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        angle, length = rng.uniform(0, 2 * np.pi), int(rng.integers(1, 7))
        electrons = brightest * 10 ** rng.uniform(-1, 1)
        steps = np.arange(length)
        rows, columns = (row + steps * np.sin(angle)).astype(int), (column + steps * np.cos(angle)).astype(int)
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        np.add.at(light, (rows[inside], columns[inside]), np.float32(electrons))
    return light, line


class PlantedEvents(NamedTuple):
    """What a trial plants (see `plant`): `brightest` is 25 times the noise of a sample where not given."""

    brightest: float | None = None
    rays: int = 40
    seed: int = 0


class WindowSamples(NamedTuple):
    """Samples of a window (frame, y, x) [e-], variance [e-²], its growth with the light [e-]; `weight` (frame, 1)."""

    values: np.ndarray
    variance: np.ndarray
    slope: np.ndarray
    weight: np.ndarray

    def rejected(self, method: str, **thresholds: Any) -> np.ndarray:
        """Return the flags of a method (frame, y, x); see `reject_samples`."""
        return reject_samples(self.values, self.variance, self.slope, method, **thresholds)

    def mean(self, flags: np.ndarray) -> np.ndarray:
        """Return the mean (y, x) [e-] of what is not flagged."""
        return average(self.values[:, None], self.variance[:, None], flags[:, None], self.weight)[0][0]

    def with_planted(self, frame: int, signal: np.ndarray) -> WindowSamples:
        """Return the samples with the `signal` (y, x) [e-] and its shot noise in one of the frames."""
        values, variance = self.values.copy(), self.variance.copy()
        values[frame] = signal
        variance[frame] += self.slope[frame] * (np.maximum(signal, 0) - np.maximum(self.values[frame], 0))
        return self._replace(values=values, variance=variance)


class CountedSamples(NamedTuple):
    """What a trial counts: the frame `struck`, the `strength` (y, x) [σ] of what was planted in it, and masks.

    `hit` (y, x): samples of that frame which nothing disturbed before; `quiet` (frame, y, x): samples that should stay;
    `trail` (y, x): the bright part of the trail's centre line.
    """

    struck: int
    strength: np.ndarray
    hit: np.ndarray
    quiet: np.ndarray
    trail: np.ndarray


def rejection_trial(
    lights: xr.Dataset,
    registration: Registration,
    *,
    frames: int | None = None,
    methods: Sequence[str] = COMPARED,
    thresholds: Sequence[float] = THRESHOLDS,
    window: tuple[int, int] = (256, 384),
    channel: str | None = None,
    events: PlantedEvents | None = None,
) -> xr.Dataset:
    """Plant events into one of the calibrated lights, reject by every method, and count.

    Parameters
    ----------
    lights, registration
        What `calibrate` and `register` give.
    frames
        Use only the first so many of the frames; all by default.
    methods, thresholds
        Compared methods, each with its defaults, and at each threshold those of k σ.
    window
        (rows, columns) about the frame's middle in which is counted.
    channel
        By default green, or mono.
    events
        What is planted.

    Returns
    -------
    Dataset with ``completeness`` (rejection, strength): the share of planted samples found, with the methods' default
    thresholds, against how many σ of a sample they add, and its ``completeness_error``; over (rejection, threshold)
    ``found``: the share of those of 5 σ and more, and ``false_alarms``: the share of other samples that go; over
    ``rejection`` the same with the default thresholds, ``default_found``, ``default_false_alarms`` and
    ``default_threshold``, and ``left``: what stays of the trail in the stack, of what a plain mean would leave;
    ``picture`` (shown, y, x) [e-]: the stacks, ``mean`` first.  Samples in which something stood out before, as real
    satellites do, count neither way.

    Raises
    ------
    WorkbenchError
        If there are fewer than three frames.
    """
    events = events or PlantedEvents()
    used = _frames_tried(registration, frames)
    for method in methods:
        if method_number(method) >= MEAN:
            raise WorkbenchError(f"{method!r} rejects nothing: there is nothing to try")
    norm = normalisation(registration)
    norm = norm.isel(frame=np.flatnonzero(np.isin(norm["number"].values, used)))
    names = [str(name) for name in norm["channel"].values]
    channel = channel or ("mono" if names == ["mono"] else "G")
    if channel not in names:
        raise WorkbenchError(f"these lights have no channel {channel!r}, only {', '.join(names)}")
    rows, columns = (_middle(size, wanted) for size, wanted in zip(lights["signal"].shape[1:], window, strict=True))
    part = aligned(lights, registration, norm).sel(channel=channel).isel(y=rows, x=columns)
    part = part[["signal", "variance", "slope"]].compute()
    weight = norm["weight"].sel(channel=channel).values[:, None]
    clean = WindowSamples(part["signal"].values, part["variance"].values, part["slope"].values, weight)
    before = _disturbed(clean)
    struck = int(np.argmin(before.sum(axis=(1, 2))))  # the frame in which least is there already
    typical = float(np.sqrt(np.nanmedian(clean.variance[struck])))
    brightest = events.brightest or 25 * typical
    event = plant(lights["signal"].shape[1:], brightest=brightest, rays=events.rays, seed=events.seed)
    place = names.index(channel), rows, columns
    planted, centre_line = _add_event(lights, registration, norm.isel(frame=struck), event, place)
    hit = clean.with_planted(struck, planted)
    strength = (hit.values[struck] - clean.values[struck]) / np.sqrt(clean.variance[struck])
    quiet = ~before
    quiet[struck] &= np.abs(strength) < 0.3  # where something was planted, false alarms are not counted
    counted = CountedSamples(struck, strength, ~before[struck], quiet, centre_line & (strength > CLEAR))
    results = {method: _try_method(method, thresholds, clean, hit, counted) for method in methods}
    plain = hit.mean(np.zeros(hit.values.shape, np.int8))
    attrs = {
        "frames": len(used),
        "struck": str(registration.quality["filename"].values[used[struck]]),
        "channel": channel,
        "camera": lights.attrs["camera"],
        "noise": typical,
        "planted": int(np.count_nonzero(counted.hit & (strength >= CLEAR))),
        "rays": events.rays,
    }
    return _tabulate(results, plain, thresholds, rows, columns).assign_attrs(attrs)


def _frames_tried(registration: Registration, frames: int | None) -> list[int]:
    """The numbers of the first so many frames that are used, the reference among them."""
    used = list(registration.used)
    if frames is not None:
        if not 3 <= frames <= len(used):
            raise WorkbenchError(f"a trial takes 3 to {len(used)} of these frames; got {frames}")
        # the reference stays among them: the first others go with it
        others = [number for number in used if number != registration.reference]
        used = sorted([registration.reference, *others[: frames - 1]])
    if len(used) < 3:
        raise WorkbenchError(f"rejection is tried on three frames or more; there are {len(used)}")
    return used


def _middle(size: int, wanted: int) -> slice:
    wanted = min(wanted, size)
    first = (size - wanted) // 2
    return slice(first, first + wanted)


def _disturbed(samples: WindowSamples) -> np.ndarray:
    """Which samples (frame, y, x) are missing or lie near something that stood out before anything was planted."""
    median, sigma = noise_limits(samples.values, samples.variance, samples.slope)
    with np.errstate(invalid="ignore"):
        out = np.abs(samples.values - median) > _EVENT * sigma
    return ndimage.binary_dilation(out, np.ones((1, 9, 9))) | ~np.isfinite(samples.values)


def _add_event(
    lights: xr.Dataset,
    registration: Registration,
    norm: xr.Dataset,
    event: tuple[np.ndarray, np.ndarray],
    window: tuple[int, slice, slice],
) -> tuple[np.ndarray, np.ndarray]:
    """Add what `plant` gave to the frame of `norm`, on the reference's grid; `window` is channel, rows and columns.

    Returns the signal [e-] of the window, and where the trail's centre lies, both (y, x).
    """
    number, (_, rows, columns), (light, line) = int(norm["number"]), window, event
    signal, mask = (lights[name].isel(frame=number).values for name in ("signal", "mask"))
    transform = registration.transform(number)
    levels = FrameLevels(float(norm["scale"]), norm["surface"].values)
    placed = place_frame(signal + light, mask, lights.attrs["cfa_pattern"], transform, signal.shape, levels=levels)
    x, y = transform.apply(*np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)))
    onto = ndimage.map_coordinates(line.astype(np.uint8), [y, x], order=0) > 0
    return placed.value[window], onto


def _try_method(
    method: str, thresholds: Sequence[float], clean: WindowSamples, hit: WindowSamples, counted: CountedSamples
) -> dict[str, np.ndarray | float]:
    """Reject by one method in the samples that were hit, and count; the variables of `rejection_trial`, by name."""
    clear = counted.hit & (counted.strength >= CLEAR)
    flags = hit.rejected(method)
    share, error = _completeness(flags[counted.struck], counted)
    picture = hit.mean(flags)
    left = full = np.nan
    if counted.trail.any():
        nothing = np.zeros(flags.shape, np.int8)
        full = float((hit.mean(nothing) - clean.mean(nothing))[counted.trail].mean())
        left = float((picture - clean.mean(clean.rejected(method)))[counted.trail].mean())
    found, alarms = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for column, k in enumerate(thresholds if method not in ("esd", "percentile") else ()):
        at_k = hit.rejected(method, low=k, high=k)
        found[column] = (at_k[counted.struck][clear] != 0).mean()
        alarms[column] = (at_k[counted.quiet] != 0).mean()
    return {
        "completeness": share,
        "completeness_error": error,
        "found": found,
        "false_alarms": alarms,
        "default_found": (flags[counted.struck][clear] != 0).mean(),
        "default_false_alarms": (flags[counted.quiet] != 0).mean(),
        "default_threshold": DEFAULTS[method][1],
        "left": left / full,
        "picture": picture,
    }


def _completeness(flags: np.ndarray, counted: CountedSamples) -> tuple[np.ndarray, np.ndarray]:
    """The share of the planted samples that is flagged (y, x), with its error, in each step of strength."""
    share, error = (np.full(len(STRENGTHS) - 1, np.nan) for _ in range(2))
    for step, (low, high) in enumerate(pairwise(STRENGTHS)):
        here = counted.hit & (counted.strength >= low) & (counted.strength < high)
        if here.sum() >= 10:
            share[step] = p = float((flags[here] != 0).mean())
            # neighbouring pixels share samples of the mosaic: some four of them are worth one
            error[step] = np.sqrt(max(p * (1 - p), 0.25 / here.sum()) / (here.sum() / 4))
    return share, error


def _tabulate(
    results: dict[str, dict[str, np.ndarray | float]],
    plain: np.ndarray,
    thresholds: Sequence[float],
    rows: slice,
    columns: slice,
) -> xr.Dataset:
    """The results of each method as one Dataset, with the `plain` mean (y, x) as the first picture."""
    over = {"completeness": ("strength",), "completeness_error": ("strength",)}
    over |= {"found": ("threshold",), "false_alarms": ("threshold",)}
    names = (*over, "default_found", "default_false_alarms", "default_threshold", "left")
    data = {
        name: (("rejection", *over.get(name, ())), np.array([result[name] for result in results.values()]))
        for name in names
    }
    pictures = np.stack([plain, *(result["picture"] for result in results.values())])
    middle = np.sqrt(np.array(STRENGTHS[:-1]) * np.array(STRENGTHS[1:]))
    return xr.Dataset(
        data | {"picture": (("shown", "y", "x"), pictures, {"units": "electron"})},
        coords={
            "rejection": list(results),
            "threshold": list(thresholds),
            "strength": ("strength", middle, {"long_name": "what was planted", "units": "1"}),
            "shown": ["mean", *results],
            "y": np.arange(rows.start, rows.stop),
            "x": np.arange(columns.start, columns.stop),
        },
    )
