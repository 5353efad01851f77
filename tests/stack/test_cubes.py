"""The verbs on cubes: lazy, the same whatever the chunks, true to a known sky, and open to every look."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from workbench import align, stack
from workbench.core.cube import make_cube
from workbench.core.errors import WorkbenchError
from workbench.core.values import attribute_dict, attribute_lines
from workbench.simulate import make_night, make_sky, picture, render


def painted_lights(pattern, count=5, shape=(160, 240), seed=2):
    """Calibrated lights of a simulated sky with the noise of light and 4 e- more, and their reference's picture."""
    sky = make_sky(shape, stars=45, brightest=900.0, faintest=30.0, seed=seed)
    views = make_night(sky, count, exposure=60, dither=4.0, rotation=0.3, cosmic_rays=0, seed=seed)
    rng = np.random.default_rng(seed)
    light = np.stack([60 * render(sky, view, pattern, trails=False) for view in views])
    electrons = rng.poisson(light) + rng.normal(0, 4, light.shape)
    settings = {"cfa_pattern": pattern, "kind": "light", "stage": "calibrated", "units": "electron"}
    names = [f"{n}.fits" for n in range(count)]
    cube = make_cube(
        electrons.astype("float32"), **settings, exposure=60.0, filename=names, camera="painted (simulated)"
    )
    variance = cube.copy(data=da.from_array((light + 16).astype("float32"), chunks=(1, -1, -1)))
    lights = xr.Dataset({"signal": cube, "variance": variance, "mask": cube.astype("uint8") * 0}, attrs=cube.attrs)
    truth = 60 * picture(sky, views[0]).values
    return lights, truth[[1]] if pattern == "mono" else truth


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG", "mono"])
def test_stack_is_the_sky_within_its_variance(pattern):
    lights, truth = painted_lights(pattern)
    registration = align.register(lights, reference=0, progress=False)
    assert registration.used == tuple(range(5))
    result = stack.stack(stack.aligned(lights, registration)).compute()
    assert result["signal"].dims == ("channel", "y", "x")
    inside = np.s_[:, 16:144, 16:224]
    # backgrounds are brought to the mean of all frames: what differs from the reference's own is a smooth surface
    residual = (result["signal"].values - truth)[inside]
    blocks = residual.reshape(len(residual), 8, 16, 13, 16)
    level = np.median(blocks, axis=(2, 4), keepdims=True)
    share = np.array(list(attribute_dict(result.attrs, "pixel_variance_share").values()))[:, None, None]
    single = (result["variance"].values * share)[inside]
    calm = truth[inside] < np.percentile(truth[inside], 85, axis=(1, 2), keepdims=True)
    chi = ((blocks - level).reshape(residual.shape) ** 2 / single)[calm].mean()
    assert chi == pytest.approx(1.0, abs=0.12)
    assert result["coverage"].values[inside].mean() > 4.97


def test_stars_keep_their_light():
    lights, truth = painted_lights("RGGB")
    registration = align.register(lights, reference=0, progress=False)
    signal = stack.stack(stack.aligned(lights, registration))["signal"].values
    summits = (truth[1] == ndimage.maximum_filter(truth[1], 15)) & (truth[1] > np.median(truth[1]) + 300)
    ratio = []
    distance = np.hypot(*np.mgrid[-10:11, -10:11])
    for y, x in np.argwhere(summits):
        if 12 < y < 148 and 12 < x < 228:
            around = np.s_[1, y - 10 : y + 11, x - 10 : x + 11]
            stars = [cube[around] - cube[around][distance > 8].mean() for cube in (signal, truth)]
            lights_of = [star[distance < 7].sum() for star in stars]
            ratio.append(lights_of[0] / lights_of[1])
    assert len(ratio) >= 5
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)


def test_nothing_is_computed_until_asked_and_chunks_do_not_matter(night):
    lazy = stack.aligned(night.lights.chunk({"frame": 1}), night.registration)
    assert isinstance(lazy["signal"].data, da.Array)
    result = stack.stack(night.aligned.chunk({"y": 77, "frame": 3}))
    assert isinstance(result["signal"].data, da.Array)
    once = result["signal"].isel(y=slice(100, 160)).values
    whole = stack.stack(night.aligned)["signal"].values[:, 100:160]
    np.testing.assert_array_equal(once, whole)
    one = lazy["signal"].isel(frame=2, y=slice(100, 120)).values
    np.testing.assert_array_equal(one, night.aligned["signal"].values[2, :, 100:120])


def test_history_weights_and_units_travel(night):
    result = stack.stack(night.aligned, "winsorized", high=2.5)
    assert result.attrs["stage"] == "stacked"
    assert attribute_lines(result.attrs, "history")[-1] == "8 lights stacked, rejection: winsorized (3, 2.5)"
    assert result["signal"].attrs["units"] == "electron"
    assert night.aligned["weight"].mean("frame").values == pytest.approx([1, 1, 1])
    assert float(night.aligned["scale"][night.registration.reference]) == 1.0


def test_every_method_stacks(night):
    piece = night.aligned.isel(y=slice(60, 124), x=slice(500, 564))  # no satellite
    levels = [float(np.median(stack.stack(piece, method)["signal"])) for method in stack.METHODS]
    assert np.ptp(levels) < 3
    median, mean = (stack.stack(piece, method)["variance"].mean() for method in ("median", "mean"))
    assert 1.2 < float(median / mean) < 1.57


def test_mistakes_are_named(night):
    with pytest.raises(WorkbenchError, match="belongs to other lights"):
        stack.aligned(night.lights.isel(frame=slice(0, 3)), night.registration)
    with pytest.raises(WorkbenchError, match=r"workbench\.stack\.aligned"):
        stack.stack(night.lights)
    with pytest.raises(WorkbenchError, match="'guess' is none of"):
        stack.stack(night.aligned, "guess")
