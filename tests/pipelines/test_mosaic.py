"""A mosaic of three panels, the last of which does not overlap the reference: one sky, without seams."""

import dataclasses
import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from workbench.align import Transform
from workbench.cli import main
from workbench.finish.photometry import photometry
from workbench.pipelines.finishing import open_linear
from workbench.pipelines.stacking import stack_folder
from workbench.simulate import d7000, dust, make_sky, picture
from workbench.simulate.night import LAMPS, START, Scene, Shot, save_fits, shoot
from workbench.simulate.sky import View, pointing
from workbench.stack.fits_out import open_stack

SHAPE = (240, 300)
STEP = 245  # [px] from panel to panel: they overlap by 18 %
EACH = 4
SKY = make_sky((240, 900), stars=600, faintest=30.0, brightest=600.0, seed=6)
TRANSPARENCY = (1.0, 0.8, 0.9)
BRIGHTNESS = (1.0, 1.5, 0.8)


def views():
    rng = np.random.default_rng(8)
    for panel in range(3):
        for _ in range(EACH):
            moved = np.array([-STEP * panel - 60.0, 0.0]) + rng.normal(0, 4, 2)
            yield View(
                exposure=60.0,
                matrix=pointing(SHAPE, shift=moved, degrees=rng.uniform(-0.8, 0.8)),
                fwhm=3.0,
                transparency=TRANSPARENCY[panel],
                background=tuple(BRIGHTNESS[panel] * level for level in (1.0, 2.0, 1.5)),
                gradient=np.outer([1.0, 0.9, 0.7], 0.15 * np.array([np.sin(panel), np.cos(panel)])),
            )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mosaic")
    sensor = d7000(seed=7001, shape=SHAPE)
    lamp = 0.5 * sensor.saturation(200) / 0.02
    through = dust(SHAPE, motes=6, seed=2)
    scene = Scene(sensor, dataclasses.replace(SKY, shape=SHAPE), tuple(views()), through, LAMPS[4])
    frames = []
    for kind, count, change in (
        ("bias", 9, {}),
        ("dark", 9, {"exposure": 60.0}),
        ("flat", 9, {"exposure": 0.02, "lamp": lamp}),
        ("light", len(scene.views), {"exposure": 60.0}),
    ):
        for number in range(count):
            shot = Shot(f"{kind}/{kind}_{number:02d}.fits", kind, 200, 0.0, 10.0)
            change = change | ({"view": number} if kind == "light" else {})
            frames.append((dataclasses.replace(shot, **change), (3, len(kind), number)))
    shoot(folder, scene, frames, START, save=save_fits, progress=False)
    return folder, scene


@pytest.fixture(scope="module")
def done(scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "mosaic.fits"
    return stack_folder(scene[0], out, reference="light_00", framing="all", progress=False)


def at_origin(scene, path):
    """What leads from the sky's pixels to the stack's: the first light's view of the sky, less the corner."""
    header = fits.getheader(path)
    corner = np.array([[1.0, 0.0, -header["REFLEFT"]], [0.0, 1.0, -header["REFTOP"]], [0.0, 0.0, 1.0]])
    return corner @ scene.views[0].matrix


def test_all_panels_are_in_and_lie_where_they_belong(scene, done):
    assert done.frames["used"].all()
    assert done.set_aside == []
    assert not any("strip" in text or "poor one" in text for text in done.warnings)
    result = open_stack(done.path)
    assert result["signal"].shape[2] > SHAPE[1] + 2 * STEP - 20
    for number, view in enumerate(scene[1].views):
        transform = Transform.from_dict(json.loads(done.frames["transform"][number]))
        x, y = np.meshgrid([0.0, 150, 299], [0.0, 120, 239])
        sky = np.linalg.inv(view.matrix) @ np.stack([x.ravel(), y.ravel(), np.ones(9)])
        u, v, _ = at_origin(scene[1], done.path) @ sky
        off = np.hypot(*np.subtract(transform.apply(u, v), (x.ravel(), y.ravel())))
        print(number, off.max())
        assert off.max() < 0.35


def test_scales_are_the_panels_transparency(scene, done):
    true = np.repeat(TRANSPARENCY[0] / np.array(TRANSPARENCY), EACH)
    pull = (done.frames["scale"].values - true)[1:] / done.frames["scale_error"].values[1:]
    print(done.frames["scale"].values / true, pull)
    assert np.abs(done.frames["scale"].values / true - 1).max() < 0.02
    assert np.abs(pull).max() < 4


def mean_response(scene):
    return (scene.through * scene.sensor.illumination() * scene.sensor.response_map).mean()


def test_stars_have_one_light_over_all_panels(scene, done):
    result = open_linear(done.path)
    x, y, _ = at_origin(scene[1], done.path) @ np.stack([SKY.x, SKY.y, np.ones(SKY.x.size)])
    height, width = result["signal"].shape[1:]
    near = np.sort(np.hypot(x[:, None] - x, y[:, None] - y), axis=1)[:, 1]
    good = (near > 16) & (x > 20) & (x < width - 20) & (y > 25) & (y < height - 25) & (SKY.flux[:, 1] > 60)
    flux = photometry(result, x[good], y[good], 5.0)["flux"].values
    ratio = flux[:, 1] / (SKY.flux[good, 1] * 60 * mean_response(scene[1]))
    panel = np.clip(((x[good] - 150) / STEP).round(), 0, 2)
    medians = np.array([np.nanmedian(ratio[panel == number]) for number in range(3)])
    print(medians, [np.count_nonzero(panel == number) for number in range(3)])
    assert medians / medians[0] == pytest.approx(1, abs=0.02)


def test_no_seam_and_variance_right_across(scene, done):
    """What is left of the sky are planes of the panels that agree where they overlap, and noise as stated."""
    result = open_stack(done.path).load()
    size = result["signal"].shape[1:]
    origin = at_origin(scene[1], done.path)
    view = View(exposure=60.0, matrix=origin, background=(0.0, 0.0, 0.0))
    truth = picture(dataclasses.replace(SKY, shape=size), view).values * 60 * mean_response(scene[1])
    y, x = np.mgrid[: size[0], : size[1]]
    sky = np.linalg.inv(origin) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    pulls, steps = [], []
    for channel, name in enumerate("RGB"):
        parts = np.zeros((3, x.size))  # of each panel in a pixel
        for number, one in enumerate(scene[1].views):
            u, v, _ = one.matrix @ sky
            inside = (np.abs(u - 149.5) <= 150) & (np.abs(v - 119.5) <= 120)
            parts[number // EACH] += done.frames[f"weight_{name}"][number] * inside
        parts = (parts / np.maximum(parts.sum(0), 1e-9)).reshape(3, *size)
        left, noise, seen, light, column, row, *share = (
            blocks_of(part)
            for part in (
                result["signal"].values[channel] - truth[channel],
                result["variance"].values[channel],
                result["coverage"].values[channel],
                truth[channel],
                (x - size[1] / 2) / 300,
                (y - size[0] / 2) / 300,
                *parts,
            )
        )
        good = (seen > 0).all(1) & (light.max(1) < light.min(1) + 60)  # no star
        sigma = np.sqrt(noise.mean(1) / 256)
        share = [part.mean(1) for part in share]
        place = [np.ones(len(sigma)), column.mean(1), row.mean(1)]
        design = np.stack([part * term for part in share for term in place], 1) / sigma[:, None]
        planes, *_ = np.linalg.lstsq(design[good], (left.mean(1) / sigma)[good], rcond=None)
        pull = left.mean(1) / sigma - design @ planes
        pulls.append(pull[good & (np.ptp(seen, axis=1) >= 1)])
        each = planes.reshape(3, 3) @ np.stack(place)
        for first in (0, 1):
            both = (share[first] > 0.1) & (share[first + 1] > 0.1)
            steps.append((each[first + 1] - each[first])[both].mean())
    print([pull.std() for pull in pulls], [len(pull) for pull in pulls], steps)
    pulls = np.concatenate(pulls)
    assert len(pulls) > 150
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * len(pulls))
    assert np.abs(steps).max() < 1.0  # [e-] of 60 to 180 of sky


def blocks_of(part):
    rows, columns = (side // 16 for side in part.shape)
    part = part[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16)
    return part.swapaxes(1, 2).reshape(-1, 256)


def test_with_the_reference_alone_the_panel_that_does_not_overlap_is_set_aside(scene, tmp_path):
    ran = CliRunner().invoke(
        main, ["stack", str(scene[0]), "--out", str(tmp_path / "a.fits"), "--reference", "light_00", "--quiet"]
    )
    assert ran.exit_code == 0, ran.output
    assert "only a strip; --framing all keeps them whole" in ran.output
    frames = open_stack(tmp_path / "a.fits")
    assert frames["frame_used"].values.tolist() == [True] * 8 + [False] * 4
