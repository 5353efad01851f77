"""What each method decides about samples: as the engine does, pixel by pixel, with the reason; a pixel's noise."""

import numpy as np
import pytest

from workbench import stack
from workbench.align import Transform
from workbench.calibrate import Planes
from workbench.core.errors import WorkbenchError
from workbench.core.mosaic import channel_index
from workbench.ingest import PlainPixels
from workbench.stack.engine import PlannedFrame, StackPlan, prepare, save_planes, stack_band
from workbench.stack.pixel import (
    REJECTING,
    busiest_pixel,
    explain,
    inspect_pixel,
    noise_limits,
    reject_samples,
    sky_noise,
    starless,
)

SHAPE = (96, 160)
READ2 = 30.0


def frames_with_events(count, seed=4):
    """Mono frames of one sky with stars, a trail and cosmic rays; electrons."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    sky = 200.0 + 0.3 * x
    for row, column in rng.uniform(15, 80, (8, 2)):
        sky = sky + 4000 * np.exp(-((x - 1.6 * column) ** 2 + (y - row) ** 2) / 5)
    values = rng.poisson(sky, (count, *SHAPE)) + rng.normal(0, np.sqrt(READ2), (count, *SHAPE))
    values[1] += 500 * np.exp(-((y - 20 - 0.3 * x) ** 2) / 3)
    hits = rng.integers(8, 88, (30, 2))
    values[2, hits[:, 0], hits[:, 1]] += 900
    values[0, 40:44, 60:64] -= 150
    return values.astype(np.float32)


def by_engine(values, method, folder):
    """The engine's maps of what it rejects: frames as files, transforms the identity."""
    blocks = tuple(-(-size // 32) for size in SHAPE)
    noise = np.zeros((4, 1, *blocks), np.float32)
    noise[0], noise[1] = 1.0, READ2
    planes = Planes(
        np.zeros((1, 1), np.float32), np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32), noise,
        channel_index("mono"), np.inf,
    )  # fmt: skip
    where = save_planes(planes, folder / "planes")
    frames = []
    for number, value in enumerate(values):
        path = folder / f"{number}.raw"
        path.write_bytes(value.astype("<f4").tobytes())
        pixels = PlainPixels(path, 0, "<f4", SHAPE)
        frames.append(PlannedFrame(str(number), pixels, Transform.identity(), 1.0, np.zeros((1, 6)), np.ones(1)))
    maps = {name: np.zeros((1, *SHAPE), np.float32) for name in ("signal", "rejected_low", "rejected_high")}

    ready = prepare(StackPlan(tuple(frames), (where,), SHAPE, "mono", method))
    for band in (stack_band(ready, number) for number in range(ready.plan.bands)):
        for name, plane in maps.items():
            plane[:, band.top : band.top + band.arrays.signal.shape[1]] = getattr(band.arrays, name)
    return maps


@pytest.mark.parametrize("count", [3, 9])
@pytest.mark.parametrize("method", REJECTING)
def test_it_decides_as_the_engine_does(method, count, tmp_path):
    values = frames_with_events(count)
    maps = by_engine(values, method, tmp_path)
    flags = reject_samples(values[:, None], (values + READ2)[:, None], np.ones_like(values)[:, None], method)
    for name, sign in (("rejected_low", -1), ("rejected_high", 1)):
        mine = (flags == sign).sum(axis=0)
        inside = np.s_[:, 4:-4, 4:-4]  # at the frame's edge the engine knows what lies beyond
        assert (mine[inside] != maps[name][inside]).mean() < 2e-4
    kept = np.where(flags == 0, values[:, None], np.nan)
    mean = np.nanmean(kept, axis=0)
    same = (flags != 0).sum(axis=0) == maps["rejected_low"] + maps["rejected_high"]
    assert np.abs(mean - maps["signal"])[same].max() < 0.05


def test_the_noise_model_needs_three_frames_only():
    values = frames_with_events(3)
    spread, slope = (values + READ2)[:, None], np.ones_like(values)[:, None]
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    trail = np.abs(y - 20 - 0.3 * x) < 1
    flags = reject_samples(values[:, None], spread, slope)[:, 0]
    assert (flags[1][trail] == 1).mean() > 0.97
    others = reject_samples(values[:, None], spread, slope, "sigma")[:, 0]
    assert (others == 0).all()  # three samples never exceed three of their own standard deviations


def test_growing_takes_the_wings_of_strong_events():
    values = frames_with_events(5)
    spread, slope = (values + READ2)[:, None], np.ones_like(values)[:, None]
    plain = reject_samples(values[:, None], spread, slope, grow=False)
    grown = reject_samples(values[:, None], spread, slope)
    assert (grown[plain != 0] == plain[plain != 0]).all()
    assert (grown != 0).sum() > 1.1 * (plain != 0).sum()


def test_missing_samples_are_no_outliers():
    values = frames_with_events(6)
    values[3, :, :50] = np.nan
    flags = reject_samples(values[:, None], (values + READ2)[:, None], np.ones_like(values)[:, None])
    assert (flags[3, 0, :, :50] == 0).all()
    median, sigma = noise_limits(values, values + READ2, np.ones_like(values))
    assert np.isfinite(median).all()
    nothing = np.full((2, 3, 3), np.nan, np.float32)
    assert np.isnan(noise_limits(nothing, nothing, nothing)[0]).all()
    assert np.nanmin(sigma) > np.sqrt(READ2)


def test_methods_and_thresholds_that_do_not_exist_are_refused():
    values = frames_with_events(3)
    with pytest.raises(WorkbenchError, match="positive numbers"):
        reject_samples(values, values, values, low=-1.0)
    with pytest.raises(WorkbenchError, match="'guess' is none of"):
        reject_samples(values, values, values, "guess")


def test_a_pixel_is_decided_as_in_the_stack(night):
    y, x = busiest_pixel(night.aligned)
    piece = night.aligned.sel(channel="G").isel(y=slice(y - 40, y + 40), x=slice(x - 40, x + 40))
    cube = [piece[name].values for name in ("signal", "variance", "slope")]
    pixel = inspect_pixel(night.aligned, y, x)
    for method in REJECTING:
        whole = reject_samples(*cube, method)[:, 40, 40]
        assert (pixel["decision"].sel(rejection=method).values == whole).all()
    result = stack.stack(night.aligned)["signal"].sel(channel="G").values[y, x]
    assert float(pixel["result"].sel(rejection="noise")) == pytest.approx(result, rel=1e-5)


def test_what_goes_lies_outside_the_limits_and_what_stays_within(night):
    rng = np.random.default_rng(5)
    places = [busiest_pixel(night.aligned), *rng.integers(40, 440, (6, 2))]
    for y, x in places:
        pixel = inspect_pixel(night.aligned, int(y), int(x), methods=("sigma", "winsorized", "mad", "percentile"))
        kept = pixel["decision"] == 0
        inside = (pixel["value"] >= pixel["lower"] - 1e-3) & (pixel["value"] <= pixel["upper"] + 1e-3)
        assert bool((inside | ~kept).all())
        assert bool((~inside | kept).all())


def test_the_reason_stands_beside_each_sample(night):
    pixel = inspect_pixel(night.aligned, *busiest_pixel(night.aligned))
    table = explain(pixel)
    worst = int(np.argmax(pixel["value"].values))
    assert table["noise"][worst].startswith("too high (+")
    assert table["sigma"][worst].startswith("kept (+")  # it makes its own threshold
    assert "of the median" in table["percentile"][worst]
    assert len(table) == night.aligned.sizes["frame"]


def test_pixels_that_are_not_there_are_refused(night):
    with pytest.raises(WorkbenchError, match="outside the frame of 720 x 480"):
        inspect_pixel(night.aligned, 480, 3)
    with pytest.raises(WorkbenchError, match="no channel 'L'"):
        inspect_pixel(night.aligned, 4, 3, "L")
    with pytest.raises(WorkbenchError, match="'mean' rejects nothing"):
        inspect_pixel(night.aligned, 4, 3, methods=("mean",))
    corner = inspect_pixel(night.aligned, 0, 0)
    assert corner["kept"].max() <= night.aligned.sizes["frame"]


def test_the_noise_of_a_known_sky_is_found_beside_a_nebula_and_stars():
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:300, :400]
    sky = 200 + 80 * np.exp(-((x - 180) ** 2 + (y - 150) ** 2) / 2e4)
    for row, column in rng.uniform(10, 290, (30, 2)):
        sky = sky + 3000 * np.exp(-((x - 1.3 * column) ** 2 + (y - row) ** 2) / 6)
    picture = sky + rng.normal(0, 7, sky.shape)
    calm = starless(picture, np.ones(sky.shape, bool))
    noise, pixels = sky_noise(picture, calm)
    assert noise == pytest.approx(7, rel=4 / np.sqrt(2 * pixels) + 0.01)
    assert 0.3 < calm.mean() < 0.95
