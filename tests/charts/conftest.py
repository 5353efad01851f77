"""The measurements that chart tests draw: the small sample frames, a raw report card with a plan, the sample night."""

import dataclasses
from types import SimpleNamespace

import course
import pytest
import xarray as xr

from tests.scenes import plain_background, plain_sensor
from workbench import calibrate, fidelity, pixels, plan, stack
from workbench.charts.registry import REGISTRY
from workbench.pipelines import measure_pixel_noise
from workbench.pipelines.calibration import Lights
from workbench.pipelines.finishing import alignment_pair, finished_steps, flat_pair

CAMERA = "NIKON D7000 (simulated)"


@pytest.fixture(scope="session")
def result(result, frames):
    """What `characterize` finds in the small set, and the noise of every pixel."""
    return dataclasses.replace(result, pixel_noise=measure_pixel_noise(frames, progress=False))


@pytest.fixture(scope="session")
def card(frames):
    """A raw report card, cosmic rays and a plan of subs."""
    made = SimpleNamespace(camera=CAMERA, simulated=True, frame_counts={"bias": 4})
    everything = xr.concat([frames.bias, frames.flat, frames.dark], "frame", combine_attrs="override")
    made.fidelity = fidelity.inspect_frames(everything, progress=False)
    made.cosmic_rays = pixels.find_cosmic_rays(course.muon_darks(8), progress=False)
    made.sensor = plain_sensor()
    made.background = plain_background()
    made.subs = plan.plan_subs(made.sensor, made.background, longest=120.0)
    made.shapes = plan.star_shapes(course.drifting_lights(0.01), progress=False)
    made.tracking = plan.tracking(made.shapes)
    return made


@pytest.fixture(scope="session")
def lights(night, fair_night_trial):
    """The lights of the full samples, examined."""
    examined = Lights(
        audit=calibrate.audit_flat(night.masters.masters[0].flat, night.lights.isel(frame=[0, 1]), progress=False),
        registration=night.registration,
        growth=stack.noise_against_frames(night.aligned, counts=(1, 8)),
        trial=fair_night_trial,
        pair=stack.before_after(night.aligned, piece=(120, 180)),
        flattened=flat_pair(night.lights, night.masters.masters[0].flat),
        together=alignment_pair(night.lights, night.aligned),
        finished=finished_steps(night.aligned),
    )
    return SimpleNamespace(camera=CAMERA, simulated=True, frame_counts={"light": 8}, lights=examined)


@pytest.fixture
def measured(result, card, lights):
    """Give the measurement that a chart can be drawn from."""
    return lambda name: next(one for one in (result, card, lights) if not REGISTRY[name].missing(one))
