"""The virtual cooled camera and smart telescope, and FITS files as capture programs write them.

A cooled camera has a gain setting in steps of 0.1 dB and an offset setting in place of an ISO, converts to 12 or 14
bits and saves them in 16, looks through filters and is cooled to a set-point.  Capture programs name all this
differently; `PROGRAMS` lists their habits (keywords as their files have them).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from ..core.cube import channels_of
from ..core.errors import WorkbenchError
from ..core.files import whole_file
from ..core.values import json_number
from .night import FOLDERS, LAMPS, START, NightSettings, make_night
from .sensor import VirtualSensor, expose
from .sky import Sky, View, make_sky, render


@dataclasses.dataclass(frozen=True)
class CooledCamera(VirtualSensor):
    """A cooled camera with known truth: gain and offset settings, few bits in sixteen; mono unless a pattern is given.

    Attributes
    ----------
    gain_zero
        Gain at gain setting 0 [e⁻ per step of the converter]; each 0.1 dB more divides it by 10^(1/200).
    step
        As for `VirtualSensor`: 12 bits in 16.
    offset_step
        Black level [ADU] that one more of the offset setting adds.
    noise_before_gain, noise_after_gain
        As for `VirtualSensor`, the second in steps of the converter.

    Examples
    --------
    >>> camera = cooled((64, 96))
    >>> camera.gain(0), round(camera.gain(120), 4), camera.at_offset(50).black_level
    (0.25, 0.0628, 800.0)
    """

    gain_zero: float = 4.0
    step: int = 16
    offset_step: float = 16.0
    noise_before_gain: float = 1.2
    noise_after_gain: float = 0.8
    black_level: float = 800.0
    white_level: int = 65520
    pixel_offset: float = 3.0
    column_offset: float = 1.0
    row_offset: float = 0.5
    full_well: float = 20_000.0
    dark_current: float = 0.05
    cfa_pattern: str = "mono"
    camera: str = "ZWO ASI1600MM Pro (simulated)"

    def gain(self, iso: float) -> float:
        """Return the gain [e⁻/ADU of the file] at a gain setting [0.1 dB]."""
        if not math.isfinite(iso):
            raise WorkbenchError(f"a gain setting is a number, not {iso}")
        return self.gain_zero / self.step * 10 ** (-iso / 200)

    def read_noise(self, iso: float) -> float:
        """Return the read noise [e⁻ rms] at a gain setting, quantisation not included."""
        return math.hypot(self.noise_before_gain, self.noise_after_gain * self.step * self.gain(iso))

    def at_offset(self, offset: float) -> CooledCamera:
        """Return the same camera at another offset setting."""
        return dataclasses.replace(self, black_level=self.offset_step * offset)


def cooled(shape: tuple[int, int] = (480, 640), seed: int = 1600, **changes: Any) -> CooledCamera:
    """Return a simulated cooled camera; `changes` are its attributes."""
    return CooledCamera(shape, seed, **changes)


def smart_telescope(shape: tuple[int, int] = (1920, 1080), seed: int = 50, **changes: Any) -> CooledCamera:
    """Return the simulated camera of a smart telescope: a colour sensor without cooling; `changes` its attributes.

    Examples
    --------
    >>> smart_telescope((64, 96)).camera
    'Seestar S50 (simulated)'
    """
    own: dict[str, Any] = {
        "cfa_pattern": "GRBG",
        "camera": "Seestar S50 (simulated)",
        "dark_current": 0.3,
        "hot_fraction": 0.0005,
    }
    return CooledCamera(shape, seed, **own | changes)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Frames of one kind taken one after the other at one setting.

    `lamp` is the level of flats [share of saturation], one for all or one a frame; `transmission` the share of the
    sky's light that the filter passes; `through` what dust lets pass; `header` further or other keywords, None to leave
    one out; `views` how lights see the sky, else as `make_night` has it.
    """

    kind: str
    count: int
    exposure: float
    gain_setting: float = 0.0
    offset_setting: float = 50.0
    temperature: float = -10.0
    filter: str = ""
    lamp: float | Sequence[float] = 0.5
    transmission: float = 1.0
    through: np.ndarray | float = 1.0
    folder: str = ""
    start: datetime | None = None
    header: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    views: Sequence[View] | None = None


_COLOURS = {"R": "R", "G": "G", "B": "B", "Ha": "R", "SII": "R", "OIII": "G"}  # of the sky, through a filter
_KINDS = {"bias": "Bias", "dark": "Dark", "flat": "Flat", "darkflat": "Dark Flat", "light": "Light"}
# keyword by what it holds; one that a program does not write is missing, several are separated by a space
PROGRAMS: dict[str, dict[str, str]] = {
    "nina": {
        "kind": "IMAGETYP", "exposure": "EXPTIME EXPOSURE", "gain": "GAIN", "offset": "OFFSET", "egain": "EGAIN",
        "temperature": "CCD-TEMP", "set_point": "SET-TEMP", "filter": "FILTER", "binning": "XBINNING YBINNING",
        "mode": "READOUTM", "pattern": "BAYERPAT", "rotation": "ROTATOR ROTATANG", "rows": "ROWORDER",
        "pixel": "XPIXSZ YPIXSZ", "focal": "FOCALLEN", "program": "SWCREATE",
    },
    "sharpcap": {
        "kind": "FRAMETYP", "exposure": "EXPTIME", "gain": "GAIN", "offset": "BLKLEVEL", "temperature": "CCD-TEMP",
        "filter": "FILTER", "binning": "XBINNING YBINNING", "pattern": "COLORTYP BAYERPAT", "rows": "ROWORDER",
        "pixel": "XPIXSZ YPIXSZ", "program": "SWCREATE",
    },
    "asiair": {
        "kind": "IMAGETYP", "exposure": "EXPOSURE EXPTIME", "gain": "GAIN", "offset": "OFFSET", "egain": "EGAIN",
        "temperature": "CCD-TEMP", "set_point": "SET-TEMP", "filter": "FILTER", "binning": "XBINNING YBINNING",
        "pattern": "BAYERPAT", "pixel": "XPIXSZ YPIXSZ", "focal": "FOCALLEN", "program": "CREATOR",
    },
    "ekos": {
        "kind": "FRAME", "exposure": "EXPTIME", "gain": "GAIN", "offset": "OFFSET", "temperature": "CCD-TEMP",
        "filter": "FILTER", "binning": "XBINNING YBINNING", "pattern": "BAYERPAT", "rows": "ROWORDER",
        "pixel": "PIXSIZE1 PIXSIZE2", "focal": "FOCALLEN",
    },
    "maxim": {
        "kind": "IMAGETYP", "exposure": "EXPTIME EXPOSURE", "egain": "EGAIN", "temperature": "CCD-TEMP",
        "set_point": "SET-TEMP", "filter": "FILTER", "binning": "XBINNING YBINNING", "mode": "READOUTM",
        "window": "XORGSUBF YORGSUBF", "pixel": "XPIXSZ YPIXSZ", "focal": "FOCALLEN", "program": "SWCREATE",
    },
    "apt": {
        "kind": "IMAGETYP", "exposure": "EXPTIME", "gain": "GAIN", "offset": "OFFSET", "temperature": "CCD-TEMP",
        "set_point": "SET-TEMP", "filter": "FILTER", "binning": "XBINNING YBINNING", "pixel": "XPIXSZ YPIXSZ",
        "focal": "FOCALLEN", "program": "SWCREATE",
    },
    "sgp": {
        "kind": "IMAGETYP", "exposure": "EXPOSURE", "gain": "GAIN", "offset": "OFFSET", "temperature": "CCD-TEMP",
        "set_point": "SET-TEMP", "filter": "FILTER", "binning": "XBINNING YBINNING", "pixel": "XPIXSZ YPIXSZ",
        "focal": "FOCALLEN", "program": "CREATOR",
    },
    "dwarf": {
        "exposure": "EXPTIME", "gain": "GAIN", "temperature": "DET-TEMP", "filter": "FILTER",
        "binning": "XBINNING YBINNING", "pattern": "BAYERPAT", "pixel": "XPIXSZ YPIXSZ", "focal": "FOCALLEN",
    },
    "seestar": {
        "kind": "IMAGETYP", "exposure": "EXPTIME EXPOSURE", "gain": "GAIN", "temperature": "CCD-TEMP",
        "filter": "FILTER", "binning": "XBINNING YBINNING", "pattern": "BAYERPAT", "pixel": "XPIXSZ YPIXSZ",
        "focal": "FOCALLEN", "program": "CREATOR",
    },
}  # fmt: skip
_NAMES = {
    "nina": "N.I.N.A. 3.1", "sharpcap": "SharpCap v4.1", "asiair": "ZWO ASIAIR Plus", "maxim": "MaxIm DL Version 6.40",
    "apt": "Astro Photography Tool - APT v.4", "seestar": "ZWO Seestar S50", "sgp": "Sequence Generator Pro v4.2",
}  # fmt: skip
# of the kind; else as it is
_WORDING = {"nina": str.upper, "sgp": str.upper, "maxim": "{} Frame".format, "apt": "{} Frame".format}


def capture_header(program: str, camera: CooledCamera, batch: Batch, time: datetime) -> fits.Header:
    """Return the header that a capture program writes for a frame of a batch begun at a time.

    Examples
    --------
    >>> header = capture_header("sharpcap", cooled((64, 96)), Batch("dark", 1, 60.0, gain_setting=139), START)
    >>> header["FRAMETYP"], header["GAIN"], header["BLKLEVEL"], "OFFSET" in header
    ('Dark', 139, 50, False)
    """
    kind = _KINDS[batch.kind]
    values = {
        "kind": _WORDING.get(program, str)(kind), "exposure": batch.exposure, "gain": json_number(batch.gain_setting),
        "offset": json_number(batch.offset_setting), "egain": round(camera.gain(batch.gain_setting) * camera.step, 6),
        "temperature": batch.temperature, "set_point": round(batch.temperature), "filter": batch.filter or None,
        "binning": 1, "mode": "Normal", "pattern": None if camera.cfa_pattern == "mono" else camera.cfa_pattern,
        "rotation": 0.0, "rows": "TOP-DOWN", "window": 0, "pixel": 3.8, "focal": 530.0, "program": _NAMES.get(program),
    }  # fmt: skip
    header = fits.Header()
    for name, keys in PROGRAMS[program].items():
        for key in keys.split():
            if values[name] is not None:
                header[key] = values[name]
    header["INSTRUME"], header["DATE-OBS"] = camera.camera, time.isoformat()
    for key, value in batch.header.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    return header


def write_frames(
    folder: str | Path,
    camera: CooledCamera,
    batches: Sequence[Batch],
    *,
    program: str = "nina",
    sky: Sky | None = None,
    seed: int = 0,
) -> list[tuple[Path, Batch, View | None]]:
    """Simulate batches of frames and write them as a capture program does, each kind into a folder of its own.

    Returns
    -------
    list
        Each file with its batch and, of a light, how it sees the sky.

    Raises
    ------
    WorkbenchError
        If the program is none of `PROGRAMS`.

    Examples
    --------
    >>> import tempfile
    >>> written = write_frames(tempfile.mkdtemp(), cooled((64, 96)), [Batch("bias", 2, 0.0), Batch("dark", 1, 60.0)])
    >>> [path.name for path, *_ in written]
    ['bias_0000.fits', 'bias_0001.fits', 'dark_0002.fits']
    """
    if program not in PROGRAMS:
        raise WorkbenchError(f"program {program!r} is none of {', '.join(PROGRAMS)}")
    written: list[tuple[Path, Batch, View | None]] = []
    time, sky = START, sky or make_sky(camera.shape, seed=seed)
    lamp = np.array(LAMPS[len(channels_of(camera.cfa_pattern))])
    for order, batch in enumerate(batches):
        time = batch.start or time
        views: Sequence[View] = batch.views or ()
        if batch.kind == "light":
            night = NightSettings(exposure=batch.exposure, background=(2.0,) * 3)
            views = views or make_night(sky, batch.count, night, seed=seed + order)
        body = camera.at_offset(batch.offset_setting)
        levels = np.broadcast_to(batch.lamp, batch.count)
        for number in range(batch.count):
            rate: Any = 0.0
            if batch.kind == "flat":
                full = levels[number] * body.saturation(batch.gain_setting) / batch.exposure
                rate = body.spread(full * lamp) * np.asarray(batch.through)
            elif batch.kind == "light":
                light = render(sky, views[number], _COLOURS.get(batch.filter, camera.cfa_pattern))
                rate = light * batch.transmission * np.asarray(batch.through)
            mosaic = expose(
                body, rate, iso=batch.gain_setting, exposure=batch.exposure, temperature=batch.temperature,
                seed=(seed, order, number),
            )  # fmt: skip
            path = (
                Path(folder)
                / (batch.folder or FOLDERS.get(batch.kind, f"{batch.kind}s"))
                / f"{batch.kind}_{len(written):04d}.fits"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path, frame=True) as part:
                fits.PrimaryHDU(mosaic, capture_header(program, body, batch, time)).writeto(part)
            written.append((path, batch, views[number] if batch.kind == "light" else None))
            time += timedelta(seconds=batch.exposure + 2)
    return written
