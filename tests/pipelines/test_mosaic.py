"""A mosaic of three panels, the last of which does not overlap the reference: one sky, without seams."""

import dataclasses
import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from workbench.align import Transform
from workbench.finish.photometry import photometry
from workbench.pipelines.finishing import open_linear, solve
from workbench.pipelines.stacking import stack_folder
from workbench.simulate import picture
from workbench.simulate.field import colours
from workbench.simulate.mosaic import EACH, SHAPE, STEP, TRANSPARENCY, mosaic_sky, write_mosaic
from workbench.simulate.sky import View
from workbench.stack.fits_out import open_stack
from workbench.stars import catalogue_stars

FWHM = 3.0  # [px]
SKY = mosaic_sky()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mosaic")
    return folder, write_mosaic(folder, SKY, SHAPE, step=STEP, each=EACH)


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
        assert off.max() < 0.35


def test_every_panel_is_reported_with_the_errors_of_its_seams(done):
    lines = [line for line in done.plan if line.startswith("panel ")]
    history = open_stack(done.path).attrs["history"]
    for number, line in enumerate(lines):
        scale, error = (float(done.frames[name][number * EACH]) for name in ("scale", "scale_error"))
        assert line.startswith(f"panel {number + 1} (4 lights, the first light/light_{number * EACH:02d}.fits): scale ")
        if number:
            assert line.partition("scale ")[2].startswith(f"{scale:.3f}"[:4])
            assert f"± {error:.4f}"[:6] in line
        assert f"± {done.frames['surface_error_R'][number * EACH]:.2g}, " in line
        assert line in history
    assert len(lines) == 3


def test_scales_are_the_panels_transparency(scene, done):
    true = np.repeat(TRANSPARENCY[0] / np.array(TRANSPARENCY), EACH)
    pull = (done.frames["scale"].values - true)[1:] / done.frames["scale_error"].values[1:]
    assert np.abs(done.frames["scale"].values / true - 1).max() < 0.02
    assert np.abs(pull).max() < 4


@pytest.fixture(scope="module")
def truth(scene, done):
    """The sky [e-] in the stack's area, without background."""
    size = open_stack(done.path)["signal"].shape[1:]
    view = View(exposure=60.0, matrix=at_origin(scene[1], done.path), background=(0.0, 0.0, 0.0))
    one = scene[1]
    mean = (one.through * one.sensor.illumination() * one.sensor.response_map).mean()
    return picture(dataclasses.replace(SKY, shape=size), view).values * 60 * mean


def test_stars_have_one_light_over_all_panels(scene, done, truth):
    result = open_linear(done.path)
    x, y, _ = at_origin(scene[1], done.path) @ np.stack([SKY.x, SKY.y, np.ones(SKY.x.size)])
    height, width = result["signal"].shape[1:]
    good = (x > 20) & (x < width - 20) & (y > 45) & (y < height - 45) & (SKY.flux[:, 1] > 80)
    seen = photometry(result, x[good], y[good], FWHM)
    true = photometry(result.assign(signal=(result["signal"].dims, truth)), x[good], y[good], FWHM)["flux"].values
    ratio, error = seen["flux"].values / true, np.hypot(seen["flux_error"].values / true, 0.02)
    panel = np.clip(((x[good] - 150) / STEP).round(), 0, 2)
    light, light_error = np.empty((3, 3)), np.empty((3, 3))
    for number in range(3):
        of = panel == number
        light[number] = np.average(ratio[of], axis=0, weights=1 / error[of] ** 2)
        light_error[number] = np.sqrt(1 / (1 / error[of] ** 2).sum(0))
    scale = done.frames["scale_error"].values[::EACH, None]
    pull = (light[1:] - light[0]) / np.sqrt(light_error[1:] ** 2 + light_error[0] ** 2 + scale[1:] ** 2)
    assert np.abs(pull).max() < 3
    assert light / light[0] == pytest.approx(1, abs=0.02)


def panel_shares(scene, done, channel, size):
    """Share of each panel in the stack's pixels (panel, y, x)."""
    y, x = np.mgrid[: size[0], : size[1]]
    sky = np.linalg.inv(at_origin(scene[1], done.path)) @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    parts = np.zeros((3, x.size))
    for number, one in enumerate(scene[1].views):
        u, v, _ = one.matrix @ sky
        inside = (np.abs(u - 149.5) <= 150) & (np.abs(v - 119.5) <= 120)
        parts[number // EACH] += done.frames[f"weight_{channel}"][number] * inside
    return (parts / np.maximum(parts.sum(0), 1e-9)).reshape(3, *size)


def test_no_seam_and_variance_right_across(scene, done, truth):
    """What is left of the sky are planes of the panels that agree where they overlap, and noise as stated."""
    result = open_stack(done.path).load()
    size = result["signal"].shape[1:]
    y, x = (part / 300 for part in np.mgrid[: size[0], : size[1]])
    pulls, steps, stated = [], [], []
    for channel, name in enumerate("RGB"):
        signal, noise, coverage = (result[key].values[channel] for key in ("signal", "variance", "coverage"))
        left, noise, seen, light, column, row, *share = map(
            blocks_of,
            (signal - truth[channel], noise, coverage, truth[channel], x, y, *panel_shares(scene, done, name, size)),
        )
        good = (seen > 0).all(1) & (light.max(1) < light.min(1) + 60)  # no star
        sigma = np.sqrt(noise.mean(1) / 256)
        share = np.array([part.mean(1) for part in share])
        place = np.array([np.ones(len(sigma)), column.mean(1), row.mean(1)])
        design = (share[:, None] * place).reshape(9, -1).T
        scaled = (design / sigma[:, None])[good]
        covariance = np.linalg.inv(scaled.T @ scaled)
        planes = covariance @ scaled.T @ (left.mean(1) / sigma)[good]
        pull = (left.mean(1) - design @ planes) / sigma
        pulls.append(pull[good & (np.ptp(seen, axis=1) >= 1)])
        of_panels = done.frames[f"surface_error_{name}"].values[::EACH]
        for first in (0, 1):
            both = (share[first] > 0.1) & (share[first + 1] > 0.1)
            contrast = np.zeros((3, 3))
            contrast[first + 1] = place[:, both].mean(1)
            contrast[first] = -contrast[first + 1]
            contrast = contrast.ravel()
            steps.append((contrast @ planes, np.sqrt(contrast @ covariance @ contrast), np.sqrt(noise[good].mean())))
            stated.append(np.hypot(*of_panels[first : first + 2]))
    pulls = np.concatenate(pulls)
    assert len(pulls) > 150
    assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * len(pulls))
    step, error, pixel = np.array(steps).T
    assert np.all(np.abs(step) < 3 * np.hypot(error, stated))
    assert np.all(np.abs(step) < 0.15 * pixel + 2 * error)  # not to be seen, where the skies differ by 50 to 120 e-


def blocks_of(part):
    rows, columns = (side // 16 for side in part.shape)
    part = part[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16)
    return part.swapaxes(1, 2).reshape(-1, 256)


APART = 286  # [px] from panel to panel: the strip that two share is too narrow for a star pattern


def real_view(panel, scale):
    """The plane that touches the sky where a panel is, and a sky of the real stars on it; `scale` [arcsec a pixel]."""
    stars = catalogue_stars(300.0, 20.0, 0.17 * scale, date="2025-01-18")
    flux = 40 * 10 ** (-0.4 * (stars["magnitude"].values - 10))[:, None] * colours(stars["b_v"].fillna(0.6).values)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], (210.0, 120.0), [-scale / 3600] * 2
    wcs.wcs.crval = 300.0 - APART * (panel - 1) * scale / 3600 / np.cos(np.radians(20)), 20.0
    x, y = wcs.all_world2pix(np.stack([stars["ra"], stars["dec"]], 1), 0).T
    return wcs, dataclasses.replace(SKY, x=x, y=y, flux=flux)


def point(path, wcs):
    """Write the direction, a tenth of a degree off, and the scale into a light's header."""
    known = {"FOCALLEN": 206.265 * 4.78 / (-3600 * wcs.wcs.cdelt[0]), "XPIXSZ": 4.78}
    with fits.open(path, mode="update") as hdus:
        hdus[0].header.update({"RA": wcs.wcs.crval[0] + 0.1, "DEC": wcs.wcs.crval[1]} | known)


@pytest.fixture(scope="module")
def real_stars(tmp_path_factory):
    """Three lights that hardly overlap, each on its own tangent plane, and where each saw what."""
    folder, seen = tmp_path_factory.mktemp("sky"), []
    for panel in range(3):
        wcs, sky = real_view(panel, 15.0)
        one = folder if panel == 0 else tmp_path_factory.mktemp("panel")
        scene = write_mosaic(one, sky, SHAPE, step=0, each=1)
        seen.append((wcs, scene.views[panel].matrix))
        mine = one / "light" / f"light_{panel:02d}.fits"
        point(mine, wcs)
        mine.replace(folder / "light" / mine.name)
    return folder, seen


def from_frame(seen, panel, x, y):
    """Where on the sky [deg] pixels of a panel's light are."""
    wcs, matrix = seen[panel]
    u, v, _ = np.linalg.inv(matrix) @ [x, y, np.ones_like(x)]
    return wcs.all_pix2world(u, v, 0)


def test_panels_without_a_common_star_pattern_are_placed_by_their_plate_solutions(real_stars, tmp_path):
    folder, seen = real_stars
    done = stack_folder(folder, tmp_path / "sky.fits", reference="light_00", framing="all", progress=False)
    assert done.frames["used"].all()
    assert any("are placed by their plate solutions (light/light_01.fits, " in text for text in done.warnings)
    header = fits.getheader(done.path)
    for number, row in done.frames.iterrows():
        x, y = (part.ravel() for part in np.meshgrid([0.0, 150, 299], [0.0, 120, 239]))
        wcs, matrix = seen[0]
        u, v = wcs.all_world2pix(*from_frame(seen, number, x, y), 0)
        u, v, _ = matrix @ [u, v, np.ones(9)]
        found = Transform.from_dict(json.loads(row["transform"])).apply(u - header["REFLEFT"], v - header["REFTOP"])
        off = np.subtract(found, (x, y))
        assert np.abs(off.mean(1)).max() < 3.5 * row["place_error"] + 1e-6
        assert np.hypot(*off).max() < 0.4
    ratio = done.frames["scale"].values * TRANSPARENCY / TRANSPARENCY[0]
    error = done.frames["scale_error"].values
    assert (np.abs(ratio - 1) < 3 * error + 0.01).all()
    assert error.max() < 0.15


def test_a_drizzled_stack_is_solved(tmp_path):
    wcs, sky = real_view(1, 30.0)
    scene = write_mosaic(tmp_path / "night", sky, SHAPE, step=0, each=3)
    for path in (tmp_path / "night" / "light").iterdir():
        point(path, wcs)
    out = tmp_path / "fine.fits"
    stack_folder(tmp_path / "night", out, reference="light_00", scale=1.5, pixfrac=1, progress=False)
    solution = solve(out)
    u, v, _ = np.linalg.inv(scene.views[0].matrix) @ [149.5, 119.5, 1.0]
    off = np.subtract(wcs.all_world2pix(*solution.centre, 0), (u, v))
    assert solution.shape == (360, 450)
    assert solution.scale == pytest.approx(20, rel=1e-3)
    assert np.abs(off).max() < 0.03  # [px], where 0.005 is stated
