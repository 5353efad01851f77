"""A night of a cooled mono camera through narrow bands: the sample frames ``cooled``."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from .capture import Batch, cooled, write_frames
from .night import START, make_night, write_truth
from .sky import make_sky

BANDS = ("SII", "Ha", "OIII")
_SHAPE = (240, 360)
_GAIN = 100.0  # gain setting
_BRIGHT = {"SII": 0.4, "Ha": 1.0, "OIII": 0.7}  # of the nebula [e-/s/pixel], at most
_STARLIGHT, _SKY = 0.15, (0.05, 0.05, 0.05)  # what a narrow band lets through: of the stars; [e-/s/pixel] of the sky


def write_cooled(folder: str | Path, *, lights: int = 5, seed: int = 12) -> Path:
    """Write a night through SII, Ha and OIII of a virtual cooled camera at gain setting 100, as a capture program does.

    The bands show the same stars and a nebula of their own each; ``truth.json`` has the camera's truth.
    """
    folder = Path(folder)
    camera, stars = cooled(_SHAPE), make_sky(_SHAPE, stars=90, brightest=900.0, faintest=40.0, seed=seed)
    dark = [Batch("bias", 6, 0.0, _GAIN), Batch("dark", 6, 300.0, _GAIN)]
    write_frames(folder, camera, [*dark, *(Batch("flat", 6, 2.0, _GAIN, filter=band) for band in BANDS)], seed=seed)
    for number, band in enumerate(BANDS, seed):
        gas = make_sky(_SHAPE, nebula=_BRIGHT[band], seed=number).nebula[:1].repeat(3, axis=0)
        turned = {"SII": gas[:, ::-1], "Ha": gas, "OIII": gas[:, :, ::-1]}[band]
        sky = replace(stars, nebula=turned, flux=_STARLIGHT * stars.flux)
        views = make_night(sky, lights, exposure=300.0, background=_SKY, seed=number)
        start = START + timedelta(hours=number - seed + 1)
        batch = Batch("light", lights, 300.0, _GAIN, filter=band, folder=f"lights/{band}", views=views, start=start)
        write_frames(folder, camera, [batch], sky=sky, seed=number)
    truth = {
        "camera": camera.camera,
        "simulated": True,
        "gain": {"value": round(camera.gain(_GAIN), 9), "unit": "e-/adu", "gain_setting": _GAIN},
        "read_noise": {"value": round(camera.read_noise(_GAIN), 9), "unit": "e-"},
        "dark_current": {
            "value": camera.dark_current,
            "unit": "e-/s/pixel",
            "temperature_c": camera.reference_temperature,
        },
        "nebula": {band: {"value": _BRIGHT[band], "unit": "e-/s/pixel where it is brightest"} for band in BANDS},
    }
    write_truth(folder, truth)
    return folder
