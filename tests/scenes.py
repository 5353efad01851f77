"""Scenes that several test files share: frames of a virtual camera as a cube or in a folder, and its true gain."""

from datetime import datetime, timedelta

import numpy as np
import xarray as xr

from workbench.core.cube import make_cube
from workbench.simulate import d7000, expose, save_frame


def frames_of(camera, kind, shots, /, *, iso=800.0, rate=0.0, seed=lambda number: number, change=None, **coords):
    """A cube of frames, one for each (exposure [s], temperature [°C]); `change` alters a mosaic, given its number."""
    frames = []
    for number, (exposure, temperature) in enumerate(shots):
        frame = expose(camera, rate, iso=iso, exposure=exposure, temperature=temperature, seed=seed(number), threads=1)
        frames.append(frame if change is None else change(frame, number))
    exposure, temperature = np.array(shots, float).T
    given = {"iso": iso, "exposure": exposure, "temperature": temperature, "white_level": camera.white_level}
    return make_cube(frames, cfa_pattern=camera.cfa_pattern, kind=kind, **(given | coords))


def names_of(kind, count):
    return [f"{kind}_{number}.dng" for number in range(count)]


def less_mean_dark(camera, frame, exposure, temperature, iso=800.0):
    """A frame as cameras save it that take the mean dark signal off; what is left of it is less than rounding."""
    taken = round(camera.mean_dark_current(temperature) * exposure / camera.gain(iso))
    return (frame.astype(int) - taken).clip(0).astype(np.uint16)


def true_gain(camera, iso=800.0, error=0.0):
    """The gain as `sensor.fit_gain` would give it, with a relative error."""
    gain = np.full((1, 4), camera.gain(iso))
    data = {"gain": (("iso", "channel"), gain), "gain_error": (("iso", "channel"), error * gain)}
    return xr.Dataset(data, {"iso": [iso], "channel": ["R", "G1", "G2", "B"]})


class Shooting:
    """A camera that shoots into a folder as a user would."""

    LAMP = (27_000.0, 61_000.0, 61_000.0, 50_000.0)

    def __init__(self, folder, camera=None, firmware="patched"):
        self.folder, self.firmware, self.count = folder, firmware, 0
        self.camera = d7000(seed=11, shape=(96, 128)) if camera is None else camera

    def shoot(self, kind, frames=2, *, iso=800.0, exposure=1 / 8000, temperature=20.0, light=0.0, name=""):
        paths = []
        (self.folder / kind).mkdir(parents=True, exist_ok=True)
        settings = {"iso": iso, "exposure": exposure, "temperature": temperature}
        for _ in range(frames):
            self.count += 1
            mosaic = expose(self.camera, np.multiply(self.LAMP, light), seed=self.count, **settings)
            time = datetime(2025, 1, 18, 20) + timedelta(minutes=self.count)
            paths.append(self.folder / kind / f"{name or kind}_{self.count:03d}.dng")
            save_frame(paths[-1], mosaic, self.camera, time=time, firmware=self.firmware, **settings)
        return paths

    def bias(self, frames=3, **settings):
        return self.shoot("bias", frames, **settings)

    def flats(self, exposures=(0.0125, 0.03, 0.05), frames=2, **settings):
        settings = {"light": 1.0} | settings
        return [path for t in exposures for path in self.shoot("flats", frames, exposure=t, **settings)]

    def darks(self, exposures=(120.0, 600.0), frames=2, temperatures=(20.0,), **settings):
        return [
            path
            for warm in temperatures
            for t in exposures
            for path in self.shoot("darks", frames, exposure=t, temperature=warm, **settings)
        ]
