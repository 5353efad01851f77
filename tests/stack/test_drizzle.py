"""Drizzle on frames of a known sky: noise of pixels and blocks, light and width of stars, events, holes, refusals."""

import numpy as np
import pytest
from course.drizzle import gaussian_fwhm
from scipy.special import erf

from workbench.align import Transform
from workbench.calibrate import Planes
from workbench.core.cube import XTRANS
from workbench.core.errors import WorkbenchError
from workbench.core.mosaic import channel_index
from workbench.ingest import PlainPixels
from workbench.stack.drizzle import Drop, block_share, drop_of, finer_maps, hole_warning, own_shares
from workbench.stack.engine import PlannedFrame, StackPlan, prepare, save_planes, stack_band
from workbench.stack.settings import StackSettings

LEVEL, READ, OFFSET = 400.0, 5.0, 500.0
SIGMA = 1.6 / 2.3548  # [px] of the stars
PLANES = ("signal", "variance", "coverage", "rejected_low", "rejected_high", "saturated")


class Frames:
    """Dithered frames of a flat sky with stars of 1.6 px FWHM, their noise known."""

    def __init__(self, folder, count, pattern, *, shape=(192, 224), stars=(), degrees=0.0, dither=6.0, common=0.0):
        self.folder, self.shape, self.pattern, self.stars = folder, shape, pattern, stars
        self.channels = 1 if pattern == "mono" else 3
        self.rng = np.random.default_rng(7)
        self.noise = np.zeros((4, self.channels, *(-(-size // 32) for size in shape)), np.float32)
        self.noise[0], self.noise[1], self.noise[2] = 1.0, READ**2, common
        self.transforms, self.mosaics = [], []
        for number in range(count):
            angle = np.radians(0.05 * number + degrees * (number % 2))
            dx, dy = (0.0, 0.0) if number == 0 else self.rng.uniform(-dither, dither, 2)
            c, s = np.cos(angle), np.sin(angle)
            centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
            self.transforms.append(Transform("affine", np.array([[dx, c, -s], [dy, s, c]]), centre, 1.0))
            self.mosaics.append(self._expose(self.transforms[-1]))

    def _expose(self, transform):
        light = np.full(self.shape, LEVEL)
        for a, b, flux in self.stars:
            u, v = transform.apply(np.float64(a), np.float64(b))
            along, across = (  # the star's light on each pixel's own square
                np.diff(erf((np.arange(size + 1) - 0.5 - at) / (SIGMA * np.sqrt(2)))) / 2
                for size, at in ((self.shape[1], u), (self.shape[0], v))
            )
            light += flux * across[:, None] * along
        return (self.rng.poisson(light) + self.rng.normal(OFFSET, READ, self.shape)).astype("<f4")

    def stack(self, drop=None):
        cell = channel_index(self.pattern)
        flat = np.full(self.shape, OFFSET, np.float32), np.ones(self.shape, np.float32)
        where = save_planes(Planes(np.zeros((1, 1), np.float32), *flat, self.noise, cell, 60000.0), self.folder / "p")
        frames = []
        for number, (mosaic, transform) in enumerate(zip(self.mosaics, self.transforms, strict=True)):
            path = self.folder / f"{number}.raw"
            path.write_bytes(mosaic.tobytes())
            pixels = PlainPixels(path, 0, "<f4", self.shape)
            level = np.zeros((self.channels, 6)), np.ones(self.channels)
            frames.append(PlannedFrame(str(number), pixels, transform, 1.0, *level))
        plan = StackPlan(tuple(frames), (where,), self.shape, self.pattern, drop=drop)
        out = {name: np.zeros((self.channels, *plan.size), np.float32) for name in PLANES}
        bands = [stack_band(ready, number) for ready in [prepare(plan)] for number in range(plan.bands)]
        for band in bands:
            for name in PLANES:
                out[name][:, band.top : band.top + band.arrays.signal.shape[1]] = getattr(band.arrays, name)
        out["chi"] = np.concatenate([band.arrays.chi for band in bands], axis=2)
        out["shared"] = np.stack([band.shared for band in bands], axis=2)
        return out


def chi_squares(out, drop, inside):
    """Reduced chi-square of pixels and of blocks of 4 x 4 and 8 x 8, and the error of each, over all channels."""
    left, variance = (out["signal"] - LEVEL)[inside], out["variance"][inside]
    shares = own_shares(out["chi"])
    found = [((left**2 / variance).mean((1, 2)) / shares).mean()]
    errors = [0.01]
    for side in (4, 8):
        channels, rows, columns = left.shape[0], left.shape[1] // side, left.shape[2] // side
        mean, noise = (
            part[:, : rows * side, : columns * side].reshape(channels, rows, side, columns, side).mean((2, 4))
            for part in (left, variance)
        )
        noise *= block_share(drop, side) / block_share(drop, 16) / side**2
        found.append((mean**2 / noise).mean())
        errors.append(np.sqrt(2 / mean.size))
    return np.array(found), np.array(errors)


@pytest.mark.parametrize(
    ("pattern", "count", "scale", "pixfrac", "degrees"),
    [
        ("mono", 12, 2.0, 0.8, 0.0),
        ("RGGB", 40, 1.5, 0.8, 180.0),
        ("RGGB", 24, 1.0, 1.0, 0.0),
        (XTRANS, 24, 2.0, 1.0, 0),
    ],
)
def test_the_noise_of_pixels_and_of_blocks_is_honest(tmp_path, pattern, count, scale, pixfrac, degrees):
    drop = Drop(scale, pixfrac)
    out = Frames(tmp_path, count, pattern, degrees=degrees).stack(drop)
    margin = int(20 * scale)
    found, errors = chi_squares(out, drop, np.s_[:, margin:-margin, margin:-margin])
    assert (np.abs(found - 1) < 3 * errors + 0.03).all(), found
    pull = (out["signal"] - LEVEL) / np.sqrt(out["variance"])
    assert abs(np.nanmean(pull)) < 0.02
    assert own_shares(out["chi"]) == pytest.approx(block_share(drop, 1) / block_share(drop, 16), rel=0.1)
    scatter, freedom = out["chi"][:2].sum((1, 2, 3))
    assert scatter / freedom == pytest.approx(1.0, abs=0.03)


@pytest.fixture(scope="module")
def undersampled(tmp_path_factory):
    """60 frames of stars of 1.6 px FWHM, stacked and drizzled."""
    rng = np.random.default_rng(3)
    y, x = (part.ravel() for part in np.mgrid[30:170:28, 30:200:28])
    stars = [(a + rng.uniform(-3, 3), b + rng.uniform(-3, 3), 30000.0) for a, b in zip(x, y, strict=True)]
    frames = Frames(tmp_path_factory.mktemp("stars"), 60, "RGGB", stars=stars)
    return stars, frames.stack(), frames.stack(Drop(2.0, 0.6))


def light_and_width(stars, picture, variance, scale):
    """Mean of the stars' light over the truth with its error, and FWHM [px of the reference] of a fitted Gaussian."""
    v, u = (((part + 0.5) / scale - 0.5) for part in np.mgrid[: picture.shape[0], : picture.shape[1]])
    light, doubt, widths = [], [], []
    for a, b, flux in stars:
        square = (u - a) ** 2 + (v - b) ** 2
        near = square < 7.0**2
        sky = np.median(picture[(square > 8.5**2) & (square < 13**2)])
        light.append((picture[near] - sky).sum() / scale**2 / flux)
        doubt.append(np.sqrt(variance[near].sum()) / scale**2 / flux)
        core = square < 2.5**2
        widths.append(gaussian_fwhm(u[core], v[core], np.maximum(picture[core] - sky, 1.0)))
    return np.mean(light), np.sqrt(np.square(doubt).mean() / len(stars)), np.median(widths)


def test_undersampled_stars_keep_their_light_and_are_sharper(undersampled):
    stars, plain, fine = undersampled
    for channel, least in ((0, 0.12), (1, 0.03), (2, 0.12)):
        *_, wide = light_and_width(stars, plain["signal"][channel], plain["variance"][channel], 1.0)
        light, error, width = light_and_width(stars, fine["signal"][channel], fine["variance"][channel], 2.0)
        assert abs(light - 1) < 0.005 + 2 * error
        assert width < (1 - least) * wide


def test_a_trail_and_cosmic_rays_stay_out(tmp_path):
    frames, drop = Frames(tmp_path, 16, "RGGB"), Drop(2.0, 1.0)
    clean = frames.stack(drop)
    y, x = np.mgrid[: frames.shape[0], : frames.shape[1]]
    frames.mosaics[3] += (900 * np.exp(-(((y - 60 - 0.2 * x) / 1.5) ** 2) / 2)).astype("f4")
    hits = frames.rng.integers(20, 170, (60, 2))
    frames.mosaics[5][hits[:, 0], hits[:, 1]] += 2000
    out = frames.stack(drop)
    excess = (out["signal"] - clean["signal"])[:, 40:-40, 40:-40]
    plain = 900 / 16
    assert np.nanpercentile(excess, 99.9) < 0.35 * plain
    assert abs(np.nanmean(excess)) < 0.1
    assert out["rejected_high"].sum() > clean["rejected_high"].sum() + 60
    assert out["coverage"].max() <= 16


def test_holes_have_no_value_and_are_reported(tmp_path):
    drop = Drop(2.0, 0.3)
    out = Frames(tmp_path, 4, "RGGB").stack(drop)
    empty = out["coverage"] == 0
    np.testing.assert_array_equal(np.isnan(out["signal"]), empty)
    np.testing.assert_array_equal(np.isnan(out["variance"]), empty)
    for channel, name in enumerate("RGB"):
        text = hole_warning(out["coverage"][channel], name, drop, 4)
        assert text.startswith(f"{name}: ")
        assert "dithered lights fill" in text
    assert hole_warning(np.ones((50, 60), int), "R", drop, 4) == ""


def test_the_noise_that_the_masters_share_is_kept(tmp_path):
    frames = Frames(tmp_path, 8, "mono", dither=0.0, common=50.0)
    frames.transforms = [frames.transforms[0]] * 8
    drop = Drop(2.0, 0.8)
    plain, fine = frames.stack(), frames.stack(drop)
    assert fine["shared"][0].max() == pytest.approx(0, abs=1e-6)  # a single pixel has all of it
    ratio = np.median(fine["variance"]) / np.median(plain["variance"])
    assert ratio == pytest.approx(4 * block_share(drop, 16) / 0.994, rel=0.02)
    chi, shared = finer_maps((fine["chi"], fine["shared"]), drop, frames.shape)
    assert chi.shape == (2, 1, 12, 14)
    assert shared.shape == (2, 1, 6, 14)


def test_what_cannot_be_drizzled_is_refused():
    assert drop_of(None, 0.5, "noise") == Drop(1.0, 0.5)
    for scale, pixfrac, method, message in (
        (4.0, None, "noise", "scale 4 is none of 1, 1.5, 2, 3"),
        (2.0, 1.2, "noise", "pixfrac 1.2 is not between 0.1 and 1"),
        (2.0, None, "median", "the median cannot be drizzled"),
    ):
        with pytest.raises(WorkbenchError, match=message):
            StackSettings(scale=scale, pixfrac=pixfrac, method=method)
    with pytest.raises(WorkbenchError, match="a live stack cannot be drizzled"):
        StackSettings(scale=2.0).require_live()
