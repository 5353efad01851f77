"""The fixed pattern to be looked at: a part of it, its profiles along rows and columns, its spectrograms."""

from __future__ import annotations

import numpy as np
import xarray as xr

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from .parts import INNER, MARGIN, inner_lowpass
from .stacks import FrameStack

_SHOWN = 200, 300  # px of the middle that the picture shows


def fixed_pattern(stack: FrameStack, channel: str | None = None, *, relative: bool = False) -> xr.Dataset:
    """Return what is fixed in a stack of equal frames, high-passed, of one channel.

    The spectrogram is the mean over the rows (columns) of the power spectrum of each, as a standard deviation
    (EMVA 1288 release 4.0 linear, section 8.6): white noise lies at its own standard deviation, stripes stand out as
    peaks.  ``noise`` is what temporal noise leaves of it in the mean of the frames.

    Parameters
    ----------
    stack
        From `stack_cube`.
    channel
        The first green, or mono, where none is named.
    relative
        Of flats: in % of the smoothed flat instead of ADU.

    Returns
    -------
    xarray.Dataset
        ``picture`` (y, x), the middle of it; ``row_profile`` (row) and ``column_profile`` (column), means of rows and
        columns; ``along_rows`` and ``along_columns`` (frequency) [cycles a pixel of the channel]; scalar ``noise``.

    Examples
    --------
    >>> from workbench.sensor import stack_frames
    >>> y = np.random.default_rng(1).normal(600, 3, (4, 64, 96)) + np.tile([0.0, 2.0], 48)
    >>> found = fixed_pattern(stack_frames(y))
    >>> float(found.along_rows.idxmax())
    0.5
    """
    names = channels_of(stack.pattern)
    if channel is None:
        channel = "G1" if "G1" in names else names[0]
    if channel not in names:
        raise WorkbenchError(f"there is no channel {channel!r}; the channels are {', '.join(names)}")
    number = names.index(channel)
    mean = stack.plane("mean", number)
    smooth = inner_lowpass(mean)
    pattern = mean[INNER] - smooth
    unit, factor = "ADU", 1.0
    if relative:
        pattern *= 100 / smooth
        unit, factor = "%", 100 / float(mean.mean(dtype=float))
    pattern -= pattern.mean(dtype=float)
    noise = np.nan
    if stack.variance is not None:
        noise = factor * float(np.sqrt(stack.plane("variance", number).mean(dtype=float) / stack.count))
    spectra = [_spectrogram(pattern), _spectrogram(pattern.T)]
    # both on the frequencies of the shorter side
    frequency = np.fft.rfftfreq(min(pattern.shape))[1:]
    along = [
        np.interp(frequency, np.fft.rfftfreq(size)[1:], spectrum)
        for size, spectrum in zip(pattern.shape[::-1], spectra, strict=True)
    ]
    top, left = (max(0, (size - shown) // 2) for size, shown in zip(pattern.shape, _SHOWN, strict=True))
    picture = pattern[top : top + _SHOWN[0], left : left + _SHOWN[1]]
    attrs = {"units": unit}
    return xr.Dataset(
        {
            "picture": (("y", "x"), picture, attrs | {"long_name": "fixed pattern"}),
            "row_profile": ("row", pattern.mean(axis=1, dtype=float), attrs | {"long_name": "mean of a row"}),
            "column_profile": ("column", pattern.mean(axis=0, dtype=float), attrs | {"long_name": "mean of a column"}),
            "along_rows": ("frequency", along[0], attrs | {"long_name": "spectrogram along the rows"}),
            "along_columns": ("frequency", along[1], attrs | {"long_name": "spectrogram along the columns"}),
            "noise": ((), noise, attrs | {"long_name": "temporal noise of the mean"}),
        },
        {
            "y": ("y", np.arange(picture.shape[0]) + top + MARGIN, {"units": "px"}),
            "x": ("x", np.arange(picture.shape[1]) + left + MARGIN, {"units": "px"}),
            "row": ("row", np.arange(pattern.shape[0]) + MARGIN, {"units": "px"}),
            "column": ("column", np.arange(pattern.shape[1]) + MARGIN, {"units": "px"}),
            "frequency": ("frequency", frequency, {"units": "1/px", "long_name": "spatial frequency"}),
        },
        {"channel": channel, "frames": stack.count, "units": unit},
    )


def _spectrogram(pattern: np.ndarray) -> np.ndarray:
    """Return the root of the mean power along the second axis, without the frequency zero, of some hundred lines."""
    lines = pattern[:: max(1, pattern.shape[0] // 600)]
    power = np.abs(np.fft.rfft(lines, axis=1, norm="ortho")) ** 2
    return np.sqrt(power.mean(axis=0)[1:])
