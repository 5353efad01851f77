"""Registering lights: against the truth of the simulated night, the same bits twice, frames that do not belong."""

import json

import numpy as np
import pytest
import xarray as xr

from workbench import align
from workbench.core.errors import StageError, WorkbenchError


def test_transforms_are_the_true_ones_within_their_errors(night, samples):
    told = json.loads((samples / "truth.json").read_text())["frames"]
    matrices = [np.array(frame["matrix"]) for frame in told if frame["kind"] == "light"]
    registration = night.registration
    x, y = np.meshgrid(np.linspace(20, 700, 9), np.linspace(20, 460, 7))
    back = np.linalg.inv(matrices[registration.reference])
    pulls = []
    for number in registration.used:
        if number == registration.reference:
            continue
        true = matrices[number] @ back @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
        found = registration.transform(number).apply(x.ravel(), y.ravel())
        off = np.hypot(found[0] - true[0], found[1] - true[1])
        assert np.sqrt((off**2).mean()) < 0.08
        pulls.append(off.mean() / (1.25 * registration.matches[number].residuals.attrs["place_error"]))
    assert 0.4 < np.mean(pulls) < 1.8


def test_the_same_lights_give_the_same_bits(night):
    again = align.register(night.lights, progress=False)
    assert again.reference == night.registration.reference
    for one, two in zip(again.matches, night.registration.matches, strict=True):
        assert (one.transform.coefficients == two.transform.coefficients).all()


def test_residuals_and_table_tell_of_every_frame(night):
    residuals = night.registration.residuals()
    others = set(night.registration.used) - {night.registration.reference}
    assert set(np.unique(residuals["frame"])) == others
    used = residuals["used"].values
    assert np.hypot(residuals["dx"], residuals["dy"])[used].mean() < 0.3
    table = night.registration.table()
    assert len(table) == night.lights.sizes["frame"]
    assert (table["remark"] == "reference").sum() == 1
    assert abs(table.loc[night.registration.reference, ["dx", "dy", "rotation"]].astype(float)).max() == 0


def test_a_frame_without_stars_is_set_aside_with_the_reason(night):
    empty = night.lights.isel(frame=slice(0, 3)).copy(deep=True)
    noise = np.random.default_rng(3).normal(250, 16, empty["signal"].shape[1:])
    empty["signal"][1] = noise.astype("float32")
    found = align.register(empty, progress=False)
    assert found.used == (0, 2)
    assert "stars" in found.set_aside[1]
    assert "stars" in found.table()["remark"][1]
    with pytest.raises(WorkbenchError, match="frame 1 was set aside"):
        found.transform(1)


def test_mistakes_are_named(night):
    with pytest.raises(StageError, match="'calibrated'"):
        align.register(xr.Dataset({"signal": night.frames.light}), progress=False)
    with pytest.raises(WorkbenchError, match="'nothing.dng' is none of the lights"):
        align.register(night.lights, reference="nothing.dng", progress=False)
    with pytest.raises(WorkbenchError, match="frames 0 to 7"):
        align.register(night.lights, reference=8, progress=False)
    with pytest.raises(WorkbenchError, match="'bent' is none of"):
        align.register(night.lights, kind="bent", progress=False)
    one = night.lights.isel(frame=[0])
    with pytest.raises(WorkbenchError, match="two lights or more"):
        align.register(one, progress=False)
    apart = night.lights.isel(frame=slice(0, 2)).copy(deep=True)
    apart["signal"][1] = apart["signal"][1, ::-1].values  # a mirror image: another sky
    with pytest.raises(WorkbenchError, match=r"no light can be aligned to .*no star pattern"):
        align.register(apart, progress=False)


def test_real_lights_without_darks_keep_the_stated_drift(real_data, tmp_path):
    from workbench import calibrate, stack
    from workbench.ingest import open_folder

    (tmp_path / "light").mkdir()
    for path in (real_data / "m13").glob("*.fits"):
        (tmp_path / "light" / path.name).symlink_to(path)
    light = open_folder(tmp_path, progress=False).light
    lights = calibrate.calibrate(light, calibrate.make_masters(light, progress=False))
    found = align.register(lights, progress=False)
    table = found.table().iloc[list(found.used)]
    # the cluster's way by cross-correlation of the frames around it, see test_m13
    core = np.array([[0, 0], [-11.5, 0.7], [-24.7, 3.3], [-34.6, 3.4], [-46.3, 3.6]])[list(found.used)]
    moved = core - core[found.used.index(found.reference)]
    assert len(table) == 5
    assert np.abs(table[["dx", "dy"]].to_numpy(float) - moved).max() < 1.0  # some thirty stars of 10 px, each to 1.3 px
    growth = stack.noise_against_frames(stack.aligned(lights, found).compute(), counts=(1, len(table)))
    assert float(growth["noise"][0, 0] / growth["noise"][0, 1]) > 0.9 * np.sqrt(len(table))


def test_the_reference_can_be_chosen_by_name(night):
    name = str(night.lights["filename"].values[2])
    some = night.lights.isel(frame=slice(1, 4))
    assert align.register(some, reference=name.rsplit("/", 1)[-1], progress=False).reference == 1


def test_models_are_judged_by_stars_that_had_no_say(night):
    models = align.compare_models(night.registration, kinds=("shift", "similarity", "cubic"))
    fitted, held = (np.sqrt((models[name] ** 2).mean("frame")) for name in ("rms", "held_out"))
    assert held.sel(kind="shift") > 2 * held.sel(kind="similarity")  # the field turns
    assert held.sel(kind="cubic") > held.sel(kind="similarity")
    assert fitted.sel(kind="cubic") < held.sel(kind="cubic")
    assert (models["held_out_error"] > 0).all()
    with pytest.raises(WorkbenchError, match="'bent' is none of"):
        align.compare_models(night.registration, kinds=("bent",))
