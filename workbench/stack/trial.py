"""What a stack gains, tried on real lights: noise against the number of frames, and how well rejection works.

The trial of the rejection methods plants a satellite and cosmic rays into the lights and counts what is found.  The
satellite brightens along its way, so that one trail holds events of every strength.  What was planted is known to the
electron; everything else in the frames is as it was.  **The planted events are simulated**, the frames need not be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import ndimage

from ..align.registration import Registration
from ..core.errors import WorkbenchError
from ..core.mosaic import middle
from .cubes import aligned, stack
from .normalise import channel_share, masters_variance, normalisation
from .pixel import average, noise_limits, reject_samples, sky_noise, starless
from .reject import DEFAULTS, MEAN, method_number
from .tile import FrameLevels, place_frame

BLOCK = 32  # [pixels] of the blocks whose levels measure how much there is to see
_SUBSETS = 4  # of the frames, for each number of them
STRENGTHS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0)  # [σ of a sample]
THRESHOLDS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
COMPARED = ("sigma", "winsorized", "linear-fit", "mad", "noise")
CLEAR = 5.0  # [σ] an event this strong should be found
RAYS = 40  # cosmic rays that a trial plants
BRIGHTEST = 25  # [σ of a sample] light of its trail at the bright end
_EVENT = 6.0  # [σ of the noise model] what was there before and counts neither way


def noise_against_frames(
    lights: xr.Dataset, *, counts: Sequence[int] | None = None, method: str = "noise", seed: int = 0
) -> xr.Dataset:
    """Stack 1, 2, ... N of the aligned lights and measure each stack's noise, with what its variance predicts.

    The noise is that of single pixels of the starless sky: each against the mean of four pixels 8 pixels away,
    √(Var/1.25), so that a nebula's shape cancels.  For each count several sets of frames are stacked.  What does not
    belong is rejected once, with all frames.

    Parameters
    ----------
    lights
        What `aligned` gives.
    counts
        Numbers of frames; all from 1 on by default, of many frames some twelve.

    Returns
    -------
    Dataset over (channel, count): ``noise`` and ``noise_error`` [e-], ``predicted`` [e-]; ``snr`` and ``snr_error``
    with ``signal`` (channel) [e-]: how much brighter the brightest tenth of the sky's blocks is than the faintest, so
    that the ratio is that of a structure in the picture.

    Raises
    ------
    WorkbenchError
        If there are fewer than two frames, or no starless sky.
    """
    total = lights.sizes["frame"]
    if total < 2:
        raise WorkbenchError("how noise falls with the number of frames takes two frames or more")
    if counts is None:
        counts = [round(float(count)) for count in np.geomspace(1, total, 12)] if total > 12 else range(1, total + 1)
    counts = sorted(set(counts))
    if not counts or counts[0] < 1 or counts[-1] > total:
        raise WorkbenchError(f"there are {total} frames; the counts asked for are {counts}")
    channels = [str(name) for name in lights["channel"].values]
    shape = (len(channels), len(counts))
    noise, error, predicted = (np.zeros(shape) for _ in range(3))
    signal = np.zeros(len(channels))
    masters = lights.drop_vars(["signal", "variance", "slope"])  # large, and not needed for the masters' noise
    for row, channel in enumerate(channels):
        part = lights[["signal", "variance", "slope"]].sel(channel=[channel]).compute()
        values, variance, slope = (part[name].values for name in ("signal", "variance", "slope"))
        weight = lights["weight"].sel(channel=[channel]).transpose("frame", "channel").values
        flags = reject_samples(values, variance, slope, method)
        deep, _, _ = average(values, variance, flags, weight)
        sky = starless(deep[0], np.isfinite(values[:, 0]).all(axis=0))
        if np.count_nonzero(sky) < 2000:
            raise WorkbenchError("there is too little starless sky in these lights to measure the noise in")
        signal[row] = _contrast(deep[0], sky)
        for column, count in enumerate(counts):
            measured, expected = [], []
            for chosen in _subsets(total, count, seed):
                mean, spread, kept = average(values[chosen], variance[chosen], flags[chosen], weight[chosen])
                good = sky & (kept[0] > 0)
                level, pixels = sky_noise(mean[0], good)
                measured.append(level)
                common = masters_variance(masters.isel(frame=chosen), channel, mean[0])
                expected.append(np.sqrt((spread[0] + common)[good].mean(dtype=float)))
            noise[row, column] = np.sqrt(np.mean(np.square(measured)))
            predicted[row, column] = np.sqrt(np.mean(np.square(expected)))
            chance = noise[row, column] / np.sqrt(2 * pixels * channel_share(channel, lights.attrs["cfa_pattern"]) / 2)
            # sets of more than half of the frames have frames in common: their scatter shows less than chance
            error[row, column] = max(chance, np.std(measured) / np.sqrt(max(total // count, 1)))
    e = {"units": "electron"}
    snr = signal[:, None] / noise
    return xr.Dataset(
        {
            "noise": (("channel", "count"), noise, {**e, "long_name": "noise of a pixel of the sky"}),
            "noise_error": (("channel", "count"), error, e),
            "predicted": (("channel", "count"), predicted, {**e, "long_name": "the same, from the variance"}),
            "snr": (("channel", "count"), snr),
            "snr_error": (("channel", "count"), snr * error / noise),
            "signal": ("channel", signal, {**e, "long_name": "brightest less faintest tenth of the sky's blocks"}),
        },
        coords={"channel": channels, "count": list(counts)},
        attrs={"camera": lights.attrs["camera"], "frames": total, "method": method},
    )


def _subsets(total: int, count: int, seed: int) -> list[np.ndarray]:
    """Some sets of so many frames: without frames in common while there are enough, then drawn at random."""
    rng = np.random.default_rng((seed, count))
    order = rng.permutation(total)
    sets = [np.sort(order[at : at + count]) for at in range(0, total - count + 1, count)]
    while len(sets) < _SUBSETS and count < total and len(sets) < total:
        sets.append(np.sort(rng.permutation(total)[:count]))
    return sets[: max(_SUBSETS, total if count == 1 else _SUBSETS)]


def _contrast(picture: np.ndarray, sky: np.ndarray) -> float:
    """Brightest less faintest tenth of the blocks' medians [e-]."""
    rows, columns = (size // BLOCK for size in picture.shape)
    cut = np.where(sky, picture, np.nan)[: rows * BLOCK, : columns * BLOCK]
    blocks = cut.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK * BLOCK)
    enough = np.isfinite(blocks).mean(axis=1) > 0.2
    levels = np.sort(np.nanmedian(blocks[enough], axis=1))
    tenth = max(levels.size // 10, 1)
    return float(levels[-tenth:].mean() - levels[:tenth].mean())


def before_after(lights: xr.Dataset, *, piece: tuple[int, int] = (240, 360), method: str = "noise") -> xr.Dataset:
    """Return a piece of one light and of the stack of all, and the noise of a pixel in both.

    Parameters
    ----------
    lights
        What `aligned` gives.
    piece, method
        (rows, columns) about the middle; the method of rejection.

    Returns
    -------
    Dataset of ``light`` and ``stack`` (y, x) [e-], green or mono; attributes ``frames``, ``channel``, ``light_noise``
    and ``stack_noise`` [e-].
    """
    channel = "G" if "G" in lights["channel"].values else str(lights["channel"].values[0])
    same = np.flatnonzero(lights["filename"].values == lights.attrs["reference"])
    one = lights["signal"].isel(frame=int(same[0]) if same.size else 0).sel(channel=channel).values
    deep = stack(lights.sel(channel=[channel]), method)["signal"].values[0]
    sky = starless(deep, (abs(lights["signal"].sel(channel=channel)) < np.inf).all("frame").values)
    noise = [sky_noise(part, sky & np.isfinite(part))[0] for part in (one, deep)]
    rows, columns = middle(one.shape, piece)
    e = {"units": "electron"}
    attrs = {"frames": lights.sizes["frame"], "channel": channel, "light_noise": noise[0], "stack_noise": noise[1]}
    return xr.Dataset(
        {"light": (("y", "x"), one[rows, columns], e), "stack": (("y", "x"), deep[rows, columns], e)},
        coords={"y": np.arange(rows.start, rows.stop), "x": np.arange(columns.start, columns.stop)},
        attrs={**attrs, "camera": lights.attrs["camera"]},
    )


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
    own: Mapping[str, float] | None = None,
    window: tuple[int, int] = (256, 384),
    channel: str | None = None,
) -> xr.Dataset:
    """Plant events into one of the calibrated lights, reject by every method, and count.

    Parameters
    ----------
    lights, registration
        What `calibrate` and `register` give.
    frames
        Use only the first so many of the frames; all by default.
    methods, thresholds, own
        Compared methods, each at its own threshold (by default its usual one) and at each of the others [σ].
    window
        (rows, columns) about the frame's middle in which is counted.
    channel
        By default green, or mono.

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
    shape = registration.shape
    window_at = rows, columns = middle(shape, window)
    part = aligned(lights, registration, norm).sel(channel=channel).isel(y=rows, x=columns)
    part = part[["signal", "variance", "slope"]].compute()
    weight = norm["weight"].sel(channel=channel).values[:, None]
    clean = WindowSamples(part["signal"].values, part["variance"].values, part["slope"].values, weight)
    before = _disturbed(clean)
    struck = int(np.argmin(before.sum(axis=(1, 2))))  # the frame in which least is there already
    typical = float(np.sqrt(np.nanmedian(clean.variance[struck])))
    light, line = plant(registration.frame_shape, brightest=BRIGHTEST * typical, rays=RAYS)
    signal, mask = (lights[name].isel(frame=used[struck]).values for name in ("signal", "mask"))
    transform = registration.transform(used[struck])
    levels = FrameLevels(float(norm["scale"][struck]), norm["surface"].values[struck])
    placed = place_frame(signal + light, mask, lights.attrs["cfa_pattern"], transform, shape, levels=levels)
    hit = clean.with_planted(struck, placed.value[names.index(channel)][window_at])
    y, x = np.mgrid[window_at]
    centre_line = ndimage.map_coordinates(line.astype(np.uint8), transform.apply(x, y)[::-1], order=0) > 0
    strength = (hit.values[struck] - clean.values[struck]) / np.sqrt(clean.variance[struck])
    quiet = ~before
    quiet[struck] &= np.abs(strength) < 0.3  # where something was planted, false alarms are not counted
    counted = CountedSamples(struck, strength, ~before[struck], quiet, centre_line & (strength > CLEAR))
    tried = [_try_method(method, thresholds, (own or {}).get(method), (clean, hit), counted) for method in methods]
    result = xr.concat(tried, xr.DataArray(list(methods), dims="rejection", name="rejection"))
    plain = hit.mean(np.zeros(hit.values.shape, np.int8))
    pictures = np.stack([plain, *result["picture"].values])
    steps = np.sqrt(np.array(STRENGTHS[:-1]) * np.array(STRENGTHS[1:]))
    coords: dict[str, Any] = {"threshold": list(thresholds), "shown": ["mean", *methods], "y": y[:, 0], "x": x[0]}
    coords["strength"] = ("strength", steps, {"long_name": "what was planted", "units": "1"})
    attrs = {
        "frames": len(used),
        "struck": str(registration.quality["filename"].values[used[struck]]),
        "channel": channel,
        "camera": lights.attrs["camera"],
        "noise": typical,
        "planted": int(np.count_nonzero(counted.hit & (strength >= CLEAR))),
        "rays": RAYS,
    }
    result = result.assign(picture=(("shown", "y", "x"), pictures, {"units": "electron"}))
    return result.assign_coords(coords).assign_attrs(attrs)


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


def _disturbed(samples: WindowSamples) -> np.ndarray:
    """Which samples (frame, y, x) are missing or lie near something that stood out before anything was planted."""
    median, sigma = noise_limits(samples.values, samples.variance, samples.slope)
    with np.errstate(invalid="ignore"):
        out = np.abs(samples.values - median) > _EVENT * sigma
    return ndimage.binary_dilation(out, np.ones((1, 9, 9))) | ~np.isfinite(samples.values)


def _try_method(
    method: str, thresholds: Sequence[float], own: float | None, samples: tuple[WindowSamples, WindowSamples],
    counted: CountedSamples,
) -> xr.Dataset:  # fmt: skip
    """Reject by one method in the samples `clean` and `hit`, and count; the variables of `rejection_trial`."""
    clean, hit = samples
    clear = counted.hit & (counted.strength >= CLEAR)
    flags = hit.rejected(method, low=own, high=own)
    share, error = (np.full(len(STRENGTHS) - 1, np.nan) for _ in range(2))
    for step, (low, high) in enumerate(pairwise(STRENGTHS)):
        here = counted.hit & (counted.strength >= low) & (counted.strength < high)
        if here.sum() >= 10:
            share[step] = p = float((flags[counted.struck][here] != 0).mean())
            # neighbouring pixels share samples of the mosaic: some four of them are worth one
            error[step] = np.sqrt(max(p * (1 - p), 0.25 / here.sum()) / (here.sum() / 4))
    picture = hit.mean(flags)
    left = np.nan
    if counted.trail.any():
        nothing = np.zeros(flags.shape, np.int8)
        left = float((picture - clean.mean(clean.rejected(method, low=own, high=own)))[counted.trail].mean())
        left /= float((hit.mean(nothing) - clean.mean(nothing))[counted.trail].mean())
    found, alarms = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for column, k in enumerate(thresholds if method not in ("esd", "percentile") else ()):
        at_k = hit.rejected(method, low=k, high=k)
        found[column] = (at_k[counted.struck][clear] != 0).mean()
        alarms[column] = (at_k[counted.quiet] != 0).mean()
    return xr.Dataset(
        {
            "completeness": ("strength", share),
            "completeness_error": ("strength", error),
            "found": ("threshold", found),
            "false_alarms": ("threshold", alarms),
            "default_found": (flags[counted.struck][clear] != 0).mean(),
            "default_false_alarms": (flags[counted.quiet] != 0).mean(),
            "default_threshold": own or DEFAULTS[method][1],
            "left": left,
            "picture": (("y", "x"), picture),
        }
    )
