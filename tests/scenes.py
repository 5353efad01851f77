"""Scenes that several test files share: frames of a virtual camera as a cube or in a folder, and its true gain."""

import dataclasses
from datetime import datetime, timedelta

import numpy as np
import xarray as xr
from scipy.ndimage import convolve

from workbench.core.cube import make_cube
from workbench.finish import apply_stretch, curve, histogram, make_picture, stretch_parameters
from workbench.simulate import d7000, expose, save_frame

CHANNELS = ["R", "G1", "G2", "B"]


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


def sensor_of(values, isos=(800.0,)):
    """A measured sensor whose channels and ISO settings are alike."""
    data = {name: (("iso", "channel"), np.full((len(isos), 4), value)) for name, value in values.items()}
    return xr.Dataset(data, {"iso": list(isos), "channel": CHANNELS})


def true_gain(camera, iso=800.0, error=0.0):
    """The gain as `sensor.fit_gain` would give it, with a relative error."""
    gain = camera.gain(iso)
    return sensor_of({"gain": gain, "gain_error": error * gain}, [iso])


def true_sensor(camera):
    """Gain, black level and read noise of a camera at ISO 800, with small errors."""
    return sensor_of({
        "gain": camera.gain(800), "gain_error": 0.002, "black_level": 600.0, "black_level_error": 0.02,
        "read_noise": camera.read_noise(800), "read_noise_error": 0.01,
    })  # fmt: skip


def plain_sensor():
    values = {"gain": 0.5, "gain_error": 0.005, "read_noise": 2.5, "read_noise_error": 0.02, "black_level": 600.0}
    return sensor_of(values, [200.0, 800.0])


def plain_background():
    """Rates of the sky and the dark current as `plan.background_rate` gives them."""
    rates = {"rate": [1.0, 2.0, 2.0, 1.5], "sky": [0.9, 1.9, 1.9, 1.4], "dark": [0.1] * 4}
    errors = {"rate_error": [0.02] * 4, "sky_error": [0.02] * 4, "dark_error": [0.01] * 4}
    data = {name: ("channel", value) for name, value in (rates | errors).items()}
    return xr.Dataset(data, {"channel": CHANNELS}, {"white_level": 16383.0})


def in_gain_settings(found, settings):
    """A measurement as of a camera without ISO, each ISO being the gain setting that `settings` has for it."""
    if dataclasses.is_dataclass(found):
        fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.init}
        return dataclasses.replace(found, **{name: in_gain_settings(part, settings) for name, part in fields.items()})
    if hasattr(found, "_fields"):
        return found._make(in_gain_settings(part, settings) for part in found)
    if not isinstance(found, xr.Dataset):
        return found
    for name in {"iso", "setting_iso", "iso_of_level"} & {*found.variables}:
        values = [settings.get(float(iso), np.nan) for iso in found[name].values.flat]
        found = found.assign_coords({name: (found[name].dims, np.reshape(values, found[name].shape))})
    names = {"iso": "gain_setting", "setting_iso": "setting_gain_setting"}
    found = found.rename({old: new for old, new in names.items() if old in found.variables})
    if "iso" in found.attrs:
        found = found.assign_attrs(gain_setting=settings.get(float(found.attrs["iso"]), np.nan))
        del found.attrs["iso"]
    return found


class Shooting:
    """A camera that shoots into a folder as a user would."""

    LAMP = (27_000.0, 61_000.0, 61_000.0, 50_000.0)

    def __init__(self, folder, camera=None, firmware="patched", lamp=LAMP):
        self.lamp, self.folder, self.firmware, self.count = lamp, folder, firmware, 0
        self.camera = d7000(seed=11, shape=(96, 128)) if camera is None else camera

    def shoot(self, kind, frames=2, *, iso=800.0, exposure=1 / 8000, temperature=20.0, light=0.0, name=""):
        paths = []
        (self.folder / kind).mkdir(parents=True, exist_ok=True)
        settings = {"iso": iso, "exposure": exposure, "temperature": temperature}
        for _ in range(frames):
            self.count += 1
            mosaic = expose(self.camera, np.multiply(self.lamp, light), seed=self.count, **settings)
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


def small_finish(shape=(120, 180)):
    """A small stack on its way to a picture, as `finished_steps` gives it: sky, nebula, stars, a gradient."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype("float32")
    rng = np.random.default_rng(9)
    nebula = 60 * np.exp(-((y - 60) ** 2 + (x - 90) ** 2) / 1200)
    linear = np.stack([share * nebula + rng.normal(20, 4, shape) for share in (1.5, 1.0, 0.7)]).astype("float32")
    linear[:, rng.integers(5, 115, 30), rng.integers(5, 175, 30)] += rng.uniform(200, 2000, 30).astype("float32")
    gradient = np.broadcast_to(0.2 * (x - 90), linear.shape).astype("float32")
    picture = make_picture(linear)
    parameters = stretch_parameters(picture)
    pictures = {"stack": linear + gradient, "background": gradient, "linear": linear}
    pictures["finished"] = pictures["stretched"] = apply_stretch(picture, parameters)["signal"].values
    counts = histogram(picture)
    steps = xr.Dataset({name: (("channel", "y", "x"), values) for name, values in pictures.items()})
    steps["count"] = counts["count"]
    steps["curve"] = "bin", curve(counts["level"].values, parameters, 1)
    return steps.assign_coords(counts.coords).assign_attrs(stretch=parameters["method"], frames=8, camera="test")


def debayered(raw, pattern):
    """Debayered as the simplest programs do it: what was measured stays, what is missing is its neighbours' mean."""
    row, column = np.indices(raw.shape) % 2
    colour = np.array([*pattern])[2 * row + column]
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 4
    planes = []
    for name in "RGB":
        there = (colour == name).astype(float)
        mean = convolve(raw * there, kernel, mode="mirror") / convolve(there, kernel, mode="mirror")
        planes.append(np.where(there > 0, raw, mean.round()))
    return np.array(planes, "uint16")
