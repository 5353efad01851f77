"""The engine on mosaics painted with a known truth: noise, variance, events, missing data, chunks, turns."""

from functools import partial

import numpy as np
import pytest

from workbench.align import Transform
from workbench.calibrate import Planes
from workbench.core.cube import XTRANS
from workbench.core.mosaic import channel_index, colour_index
from workbench.core.parallel import in_threads
from workbench.ingest import PlainPixels
from workbench.stack.engine import RAW_BYTES, PlannedFrame, StackPlan, prepare, save_planes, stack_band, tiles_read
from workbench.stack.normalise import pixel_share
from workbench.stack.window import BAND, strip_height

GAIN, READ, OFFSET = 2.0, 5.0, 500.0


class Scene:
    """A smooth sky with stars, seen by dithered frames whose noise is known."""

    def __init__(
        self, folder, *, frames=6, shape=(160, 352), pattern="RGGB", degrees=(), stars=True, seed=1, dtype="<u2"
    ):
        self.folder, self.shape, self.pattern = folder, shape, pattern
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.stars = [
            (rng.uniform(20, shape[1] - 20), rng.uniform(20, shape[0] - 20), 30000.0) for _ in range(12 if stars else 0)
        ]
        self.transforms = []
        for number in range(frames):
            angle = np.radians(degrees[number] if degrees else 0.2 * (number - frames / 2))
            dx, dy = (0.0, 0.0) if number == 0 else rng.uniform(-6, 6, 2)
            c, s = np.cos(angle), np.sin(angle)
            centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
            self.transforms.append(Transform("affine", np.array([[dx, c, -s], [dy, s, c]]), centre, 1.0))
        self.dtype = dtype
        blocks = tuple(-(-size // 32) for size in shape)
        channels = 1 if pattern == "mono" else 3
        noise = np.zeros((4, channels, *blocks), np.float32)
        noise[0], noise[1] = 1.0, READ**2 + GAIN**2 / 12
        planes = Planes(
            np.zeros((1, 1), np.float32), np.full(shape, OFFSET, np.float32), np.full(shape, GAIN, np.float32), noise,
            channel_index(pattern), 16000.0,
        )  # fmt: skip
        self.planes = planes
        self.mosaics = [self.expose(transform) for transform in self.transforms]

    def light(self, x, y, colour):
        """Electrons at sky positions; colour 0 R, 1 G, 2 B."""
        level = (150.0, 300.0, 200.0)[colour] * (1 + 0.1 * np.sin(x / 90) * np.cos(y / 70))
        for a, b, flux in self.stars:
            level = level + flux / (2 * np.pi * 1.7**2) * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 1.7**2))
        return level

    def expose(self, transform):
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        u, v = transform.inverse(x, y)
        colour = colour_index(self.pattern) + (self.pattern == "mono")
        colour = np.tile(colour, (self.shape[0], self.shape[1]))[: self.shape[0], : self.shape[1]]
        electrons = np.choose(colour, [self.light(u, v, c) for c in range(3)])
        return self.rng.poisson(electrons) / GAIN + self.rng.normal(OFFSET, READ / GAIN, self.shape)

    def truth(self):
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        return np.stack([self.light(x, y, c) for c in ([1] if self.pattern == "mono" else range(3))])

    def plan(self, **settings):
        where = save_planes(self.planes, self.folder / "planes")
        channels = 1 if self.pattern == "mono" else 3
        frames = []
        for number, mosaic in enumerate(self.mosaics):
            path = self.folder / f"{number}.raw"
            stored = np.round(mosaic) if self.dtype.endswith("u2") else mosaic
            path.write_bytes(stored.astype(self.dtype).tobytes())
            frames.append(
                PlannedFrame(
                    str(number),
                    PlainPixels(path, 0, self.dtype, self.shape),
                    self.transforms[number],
                    1.0,
                    np.zeros((channels, 6)),
                    np.ones(channels),
                )
            )
        return StackPlan(tuple(frames), (where,), self.shape, self.pattern, **settings)


def stacked(plan, threads=2):
    names = ("signal", "variance", "coverage", "rejected_low", "rejected_high", "saturated")
    arrays = {name: np.zeros((len(plan.channels), *plan.shape), np.float32) for name in names}
    chi = []
    for band in in_threads(partial(stack_band, prepare(plan)), range(plan.bands), threads):
        for name in names:
            arrays[name][:, band.top : band.top + band.arrays.signal.shape[1]] = getattr(band.arrays, name)
        chi.append(band.arrays.chi)
    arrays["chi"] = np.concatenate(chi, axis=2)
    return arrays


INSIDE = np.s_[..., 24:-24, 24:-24]


@pytest.mark.parametrize(("frames", "pattern"), [(3, "RGGB"), (9, "GRBG"), (6, "mono"), (6, XTRANS)])
def test_signal_variance_and_chi_square_are_honest(tmp_path, frames, pattern):
    scene = Scene(tmp_path, frames=frames, pattern=pattern, stars=False)
    plan = scene.plan()
    out = stacked(plan)
    residual = (out["signal"] - scene.truth())[INSIDE]
    blocks = residual[:, :96, :288].reshape(len(residual), 6, 16, 18, 16).mean((2, 4))
    variance = out["variance"][INSIDE][:, :96, :288].reshape(len(residual), 6, 16, 18, 16).mean((2, 4)) / 256
    chi = (blocks**2 / variance).mean()
    assert chi == pytest.approx(1.0, abs=4 * np.sqrt(2 / blocks.size) + 0.05)
    assert abs(blocks.mean()) < 4 * np.sqrt(variance.mean() / blocks.size)
    for place, name in enumerate(plan.channels):
        single = pixel_share(name, pattern) * out["variance"][INSIDE][place].mean()
        assert residual[place].var() == pytest.approx(single, rel=0.15)
    assert out["chi"][0].sum() / out["chi"][1].sum() == pytest.approx(1.0, abs=0.05)
    rejected = (out["rejected_low"] + out["rejected_high"])[INSIDE].mean() / frames
    assert rejected < 0.001


@pytest.mark.parametrize("frames", [3, 5, 8])
def test_a_trail_and_cosmic_rays_are_gone_from_few_frames(tmp_path, frames):
    scene = Scene(tmp_path, frames=frames, stars=False)
    clean = stacked(scene.plan())
    y, x = np.mgrid[: scene.shape[0], : scene.shape[1]]
    line = np.exp(-(((y - 60 - 0.1 * x) / 1.6) ** 2) / 2)
    scene.mosaics[1] = scene.mosaics[1] + 800 / GAIN * line
    hits = scene.rng.integers(30, np.array(scene.shape) - 30, (40, 2))
    scene.mosaics[2][hits[:, 0], hits[:, 1]] += 1500 / GAIN
    out = stacked(scene.plan())
    u, v = scene.transforms[1].inverse(x, y)
    del u, v
    onto = scene.transforms[1].apply(x, y)
    centre = np.abs(onto[1] - 60 - 0.1 * onto[0]) < 0.5
    centre[:24], centre[-24:], centre[:, :24], centre[:, -24:] = False, False, False, False
    left = (out["signal"] - clean["signal"])[:, centre].mean(1) / (800 / frames)
    assert np.abs(left).max() < 0.05
    places = scene.transforms[2].inverse(hits[:, 1].astype(float), hits[:, 0].astype(float))
    i, j = (np.rint(place).astype(int) for place in places)
    left = (out["signal"] - clean["signal"])[:, j, i].mean() / (1500 / frames)
    assert abs(left) < 0.05


def test_star_cores_are_kept(tmp_path):
    scene = Scene(tmp_path, frames=9)
    out = stacked(scene.plan())
    core = scene.truth() > 1000
    core[..., :24, :], core[..., -24:, :], core[..., :24], core[..., -24:] = False, False, False, False
    assert core.sum() > 50
    rejected = (out["rejected_low"] + out["rejected_high"])[core].mean() / 9
    assert rejected < 0.01


def test_the_answer_does_not_depend_on_threads_or_order(tmp_path):
    plan = Scene(tmp_path).plan()
    one, two = stacked(plan, threads=1), stacked(plan, threads=2)
    for name, values in one.items():
        assert np.array_equal(values, two[name], equal_nan=True), name


@pytest.mark.parametrize(("frames", "together"), [(20, 30), (400, 6), (4000, 1)])
def test_of_many_frames_the_pixels_of_fewer_tiles_are_held(frames, together):
    first = np.tile(np.arange(30) // 10, (frames, 1))  # slightly turned
    left = np.tile(128 * np.arange(30), (frames, 1))
    needed = [(first, first + 90), (left, left + 168)]
    assert tiles_read(needed, 0, itemsize=2) == together
    assert frames * 90 * (128 * together + 40) * 2 <= RAW_BYTES or together == 1


def test_strips_of_a_tile_give_what_the_tile_gives(tmp_path):
    plan = Scene(tmp_path, frames=9).plan()
    ready = prepare(plan)
    assert strip_height(500, 3) == ready.height == BAND
    assert strip_height(2000, 3) == 16
    for number in range(plan.bands):
        whole = stack_band(ready, number).arrays
        cut = stack_band(ready._replace(height=24), number).arrays
        for name, one, other in zip(whole._fields, whole, cut, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("degrees", [90.0, 180.0, 181.0, 40.0])
def test_turned_frames_land_where_they_belong(tmp_path, degrees):
    scene = Scene(tmp_path, frames=4, shape=(256, 256), degrees=(0.0, degrees, 0.1, degrees + 0.3))
    out = stacked(scene.plan())
    truth = scene.truth()
    middle = np.s_[:, 80:-80, 80:-80]
    sigma = np.sqrt(out["variance"][middle])
    flat = np.abs(truth - np.median(truth, axis=(1, 2), keepdims=True))[middle] < 60
    pull = ((out["signal"] - truth)[middle] / sigma)[flat]
    assert (out["coverage"][middle] >= 3).mean() > 0.999
    assert abs(pull.mean()) < 0.1
    assert np.sqrt(np.mean(pull**2)) < 0.9


def test_outside_a_frame_it_does_not_count(tmp_path):
    scene = Scene(tmp_path, frames=3, stars=False)
    scene.transforms[1] = Transform("shift", np.array([[200.0], [0.0]]))
    scene.mosaics[1] = scene.expose(scene.transforms[1])
    out = stacked(scene.plan())
    assert (out["coverage"][:, 40:-40, 190:-40] + out["rejected_low"][:, 40:-40, 190:-40]).max() <= 2
    assert np.median(out["coverage"][:, 40:-40, 40:120]) == 3


def test_defects_are_filled_and_saturation_is_flagged(tmp_path):
    scene = Scene(tmp_path, frames=5, stars=False)
    scene.planes.scale[70:72, 100] = np.nan
    for mosaic in scene.mosaics:
        mosaic[70:72, 100] = 16383.0
    scene.mosaics[0][40, 200] = 16383.0
    out = stacked(scene.plan())
    assert np.isfinite(out["signal"][INSIDE]).all()
    residual = (out["signal"] - scene.truth())[:, 60:82, 90:110] / np.sqrt(out["variance"][:, 60:82, 90:110])
    assert np.abs(residual).max() < 5
    assert out["saturated"][:, 40, 200].max() == 1
    assert out["saturated"][:, 100:, :].max() == 0
    spread = out["signal"][:, 34:47, 194:207] - scene.truth()[:, 34:47, 194:207]
    assert np.abs(spread).max() < 60  # the saturated sample itself was rejected, and nothing rings


@pytest.mark.parametrize("stored", [">u2", "<f4"])
def test_other_ways_of_storing_give_the_same(tmp_path, stored):
    first = Scene(tmp_path, frames=3, seed=4)
    (tmp_path / "other").mkdir()
    other = Scene(tmp_path / "other", frames=3, seed=4, dtype=stored)
    if stored == "<f4":
        other.mosaics = [np.round(mosaic) for mosaic in other.mosaics]
    one, two = stacked(first.plan()), stacked(other.plan())
    np.testing.assert_allclose(one["signal"], two["signal"], rtol=1e-5)


@pytest.mark.parametrize("method", ["winsorized", "esd", "sigma", "mad", "linear-fit", "mean", "median"])
def test_the_classical_methods_run_in_the_engine(tmp_path, method):
    scene = Scene(tmp_path, frames=15, shape=(128, 288), stars=False)  # with nine no value reaches its own 3 sigma
    scene.mosaics[4][80, 120:240] += 3000
    out = stacked(scene.plan(method=method))
    residual = (out["signal"] - scene.truth())[INSIDE] / np.sqrt(out["variance"][INSIDE])
    assert abs(residual.mean()) < (0.5 if method == "mean" else 0.1)
    hot = np.abs(residual).max()
    assert hot > 15 if method == "mean" else hot < 8
