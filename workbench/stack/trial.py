"""A trial of the rejection methods: plant a satellite and cosmic rays into real lights, and count what is found.

The satellite brightens along its way, so that one trail holds events of every strength.  What was planted is known to
the electron; everything else in the frames is as it was.  **The planted events are simulated**, the frames need not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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
from .tile import place_frame

STRENGTHS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 14.0, 20.0, 30.0)  # [σ of a sample]
THRESHOLDS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
COMPARED = ("sigma", "winsorized", "linear-fit", "mad", "noise")
CLEAR = 5.0  # [σ] an event this strong should be found
_EVENT = 6.0  # [σ of the noise model] what was there before and counts neither way


def plant(
    shape: tuple[int, int], *, brightest: float, rays: int = 40, fwhm: float = 2.5, seed: int = 0
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


def rejection_trial(
    lights: xr.Dataset,
    registration: Registration,
    *,
    frames: int | None = None,
    brightest: float | None = None,
    rays: int = 40,
    methods: Sequence[str] = COMPARED,
    thresholds: Sequence[float] = THRESHOLDS,
    window: tuple[int, int] = (256, 384),
    channel: str | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Plant events into one of the calibrated lights, reject by every method, and count.

    Parameters
    ----------
    lights, registration
        What `calibrate` and `register` give.
    frames
        Use only the first so many of the frames; all by default.
    brightest
        See `plant`; 25 times the noise of a sample by default.
    methods, thresholds
        Compared methods, each with its defaults, and at each threshold those of k σ.
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
    used = list(registration.used)
    if frames is not None:
        if not 3 <= frames <= len(used):
            raise WorkbenchError(f"a trial takes 3 to {len(used)} of these frames; got {frames}")
        # the reference stays among them: the first others go with it
        others = [number for number in used if number != registration.reference]
        used = sorted([registration.reference, *others[: frames - 1]])
    if len(used) < 3:
        raise WorkbenchError(f"rejection is tried on three frames or more; there are {len(used)}")
    for method in methods:
        if method_number(method) >= MEAN:
            raise WorkbenchError(f"{method!r} rejects nothing: there is nothing to try")
    norm = normalisation(registration)
    norm = norm.isel(frame=np.flatnonzero(np.isin(norm["number"].values, used)))
    names = [str(name) for name in norm["channel"].values]
    channel = channel or ("mono" if names == ["mono"] else "G")
    if channel not in names:
        raise WorkbenchError(f"these lights have no channel {channel!r}, only {', '.join(names)}")
    height, width = lights["signal"].shape[1:]
    rows, columns = (_middle(size, wanted) for size, wanted in ((height, window[0]), (width, window[1])))
    whole = aligned(lights, registration, norm)
    clean = whole.sel(channel=channel).isel(y=rows, x=columns)[["signal", "variance", "slope"]].compute()
    values, variance, slope = (clean[name].values for name in ("signal", "variance", "slope"))
    median, sigma = noise_limits(values, variance, slope)
    with np.errstate(invalid="ignore"):
        before = np.abs(values - median) > _EVENT * sigma
    before = ndimage.binary_dilation(before, np.ones((1, 9, 9))) | ~np.isfinite(values)
    struck = int(np.argmin(before.sum(axis=(1, 2))))  # the frame in which least is there already
    typical = float(np.sqrt(np.nanmedian(variance[struck])))
    planted, centre_line = _planted(
        lights, registration, norm, struck, brightest or 25 * typical, rays, rows, columns, names.index(channel), seed
    )
    values_hit, variance_hit = values.copy(), variance.copy()
    values_hit[struck] = planted
    variance_hit[struck] += slope[struck] * (np.maximum(planted, 0) - np.maximum(values[struck], 0))
    strength = (values_hit[struck] - values[struck]) / np.sqrt(variance[struck])
    quiet = ~before
    quiet[struck] &= np.abs(strength) < 0.3  # where something was planted false alarms are not counted
    hit = ~before[struck]
    weight = norm["weight"].sel(channel=channel).values[:, None]
    shape = (len(methods), len(thresholds))
    found, alarms = np.zeros(shape), np.zeros(shape)
    share, error = (np.full((len(methods), len(STRENGTHS) - 1), np.nan) for _ in range(2))
    default = np.zeros((3, len(methods)))
    left, pictures = np.zeros(len(methods)), []

    def stacked(cube, spread, flags):
        return average(cube[:, None], spread[:, None], flags[:, None], weight)[0][0]

    nothing = np.zeros(values.shape, np.int8)
    plain = stacked(values_hit, variance_hit, nothing)
    pictures.append(plain)
    bright = centre_line & (strength > CLEAR)
    full = float((plain - stacked(values, variance, nothing))[bright].mean()) if bright.any() else np.nan
    clear = hit & (strength >= CLEAR)
    for row, method in enumerate(methods):
        flags = reject_samples(values_hit, variance_hit, slope, method)
        for step, (low, high) in enumerate(pairwise(STRENGTHS)):
            here = hit & (strength >= low) & (strength < high)
            if here.sum() >= 10:
                share[row, step] = p = float((flags[struck][here] != 0).mean())
                # neighbouring pixels share samples of the mosaic: some four of them are worth one
                error[row, step] = np.sqrt(max(p * (1 - p), 0.25 / here.sum()) / (here.sum() / 4))
        default[:, row] = (flags[struck][clear] != 0).mean(), (flags[quiet] != 0).mean(), DEFAULTS[method][1]
        without = stacked(values, variance, reject_samples(values, variance, slope, method))
        picture = stacked(values_hit, variance_hit, flags)
        left[row] = float((picture - without)[bright].mean()) / full
        pictures.append(picture)
        for column, k in enumerate(thresholds if method not in ("esd", "percentile") else ()):
            flags = reject_samples(values_hit, variance_hit, slope, method, low=k, high=k)
            found[row, column] = (flags[struck][clear] != 0).mean()
            alarms[row, column] = (flags[quiet] != 0).mean()
    middle = np.sqrt(np.array(STRENGTHS[:-1]) * np.array(STRENGTHS[1:]))
    return xr.Dataset(
        {
            "completeness": (("rejection", "strength"), share),
            "completeness_error": (("rejection", "strength"), error),
            "found": (("rejection", "threshold"), found),
            "false_alarms": (("rejection", "threshold"), alarms),
            "default_found": ("rejection", default[0]),
            "default_false_alarms": ("rejection", default[1]),
            "default_threshold": ("rejection", default[2]),
            "left": ("rejection", left),
            "picture": (("shown", "y", "x"), np.stack(pictures), {"units": "electron"}),
        },
        coords={
            "rejection": list(methods),
            "threshold": list(thresholds),
            "strength": ("strength", middle, {"long_name": "what was planted", "units": "1"}),
            "shown": ["mean", *methods],
            "y": np.arange(rows.start, rows.stop),
            "x": np.arange(columns.start, columns.stop),
        },
        attrs={
            "frames": len(used),
            "struck": str(registration.quality["filename"].values[used[struck]]),
            "channel": channel,
            "camera": lights.attrs["camera"],
            "noise": typical,
            "planted": int(np.count_nonzero(clear)),
            "rays": rays,
        },
    )


def _middle(size: int, wanted: int) -> slice:
    wanted = min(wanted, size)
    first = (size - wanted) // 2
    return slice(first, first + wanted)


def _planted(lights, registration, norm, place, brightest, rays, rows, columns, channel, seed):
    """The struck frame on the reference's grid: signal of the window, and where the trail's centre lies."""
    number = int(norm["number"][place])
    signal, mask = (lights[name].isel(frame=number).values for name in ("signal", "mask"))
    light, line = plant(signal.shape, brightest=brightest, rays=rays, seed=seed)
    transform = registration.transform(number)
    placed = place_frame(
        signal + light, mask, lights.attrs["cfa_pattern"], transform, signal.shape, scale=float(norm["scale"][place]),
        surface=norm["surface"].values[place],
    )  # fmt: skip
    x, y = transform.apply(*np.meshgrid(np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)))
    onto = ndimage.map_coordinates(line.astype(np.uint8), [y, x], order=0) > 0
    return placed.value[channel, rows, columns], onto
