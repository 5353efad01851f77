"""What of the reference's grid a stack holds: with field rotation every corner, or only what all lights cover."""

import dataclasses

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from workbench import align, calibrate, stack
from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.pipelines.stacking import stack_folder
from workbench.simulate import picture
from workbench.simulate.night import write_night
from workbench.stack.fits_out import open_stack

SHAPE = (240, 336)
COUNT = 8
SOLUTION = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 60.0, "CRPIX2": 50.0, "CD1_1": 1e-4, "CD2_2": 1e-4}


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """An alt-az night: the field turns by up to 12 degrees either way; the reference has a plate solution."""
    night = write_night(
        tmp_path_factory.mktemp("night"), shape=SHAPE, stars=70, faintest=30.0, brightest=600.0, lights=COUNT,
        biases=9, darks=9, flats=9, suffix="fits", dither=8.0, rotation=12.0, seed=4, progress=False,
    )  # fmt: skip
    with fits.open(night.folder / night.lights[0], mode="update") as hdus:
        hdus[0].header.update(SOLUTION)
    return night


@pytest.fixture(scope="module")
def whole(night, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "all.fits"
    stack_folder(night.folder, out, reference="light_0000", framing="all", progress=False)
    return out


def corner_of(path):
    header = fits.getheader(path)
    return header["REFTOP"], header["REFLEFT"]


def truth_of(night, path):
    """The sky [e-] in the stack's area, without background."""
    top, left = corner_of(path)
    view = night.views[0]
    moved = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]]) @ view.matrix
    sky = dataclasses.replace(night.sky, shape=open_stack(path)["signal"].shape[1:])
    view = dataclasses.replace(view, matrix=moved, background=(0.0, 0.0, 0.0), trails=())
    mean = (night.through * night.sensor.illumination() * night.sensor.response_map).mean()
    return picture(sky, view).values * 60 * mean


def test_every_corner_of_every_light_is_kept(night, whole):
    result = open_stack(whole).load()
    top, left = corner_of(whole)
    height, width = SHAPE
    x, y = np.array([0, width - 1, 0, width - 1]), np.array([0, 0, height - 1, height - 1])
    size = result["signal"].shape[1:]
    assert size[0] > height + 40
    for view in night.views:
        u, v, _ = np.linalg.inv(view.matrix) @ np.stack([x, y, np.ones(4)])
        for at, most in ((u - left, size[1]), (v - top, size[0])):
            assert at.min() > -0.5
            assert at.max() < most - 0.5
    coverage = result["coverage"].values[1]
    seen = coverage.sum() / np.prod(SHAPE)  # each light puts all of its pixels in
    assert COUNT - 0.1 < seen < COUNT + 0.02
    assert (coverage[0].max(), coverage.max()) < (3, COUNT + 1)


def test_variance_is_right_where_the_coverage_changes(night, whole):
    result = open_stack(whole).load()
    truth = truth_of(night, whole)
    pulls = []
    for channel in range(3):
        signal, variance = (result[name].values[channel] for name in ("signal", "variance"))
        counts = result["coverage"].values[channel]
        rows, columns = (size // 16 for size in signal.shape)
        blocks = [
            part[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16).swapaxes(1, 2).reshape(rows, columns, 256)
            for part in (signal - truth[channel], variance, counts, truth[channel])
        ]
        left, noise, seen, light = (part.reshape(-1, 256) for part in blocks)
        good = (seen > 0).all(1) & (light.max(1) < light.min(1) + 60)  # no star
        mean, sigma = left.mean(1), np.sqrt(noise.mean(1) / 256)
        v, u = np.divmod(np.arange(rows * columns), columns)
        design = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1) / sigma[:, None]  # the mean background
        fitted, *_ = np.linalg.lstsq(design[good], (mean / sigma)[good], rcond=None)
        pull = mean / sigma - design @ fitted
        seam = good & (np.ptp(seen, axis=1) >= 1) & (np.median(seen, axis=1) < COUNT)
        pulls.append(pull[seam])
    seams = np.concatenate(pulls)
    assert len(seams) > 200
    assert abs(seams.std() - 1) < 3 / np.sqrt(2 * len(seams))
    assert abs(seams.mean()) < 3 / np.sqrt(len(seams))


def test_verbs_on_cubes_give_the_same(night, whole):
    frames = open_folder(night.folder, progress=False)
    masters = calibrate.make_masters(frames.light, bias=frames.bias, dark=frames.dark, flat=frames.flat, progress=False)
    lights = calibrate.calibrate(frames.light, masters).compute()
    registration = align.framed(align.register(lights, reference="light_0000.fits", progress=False), "all")
    cubes = stack.stack(stack.aligned(lights, registration)).compute()
    files = open_stack(whole).load()
    for name in ("coverage", "rejected_low", "rejected_high", "saturated"):
        np.testing.assert_array_equal(cubes[name].values, files[name].values)
    for name in ("signal", "variance", "shared_variance"):
        np.testing.assert_allclose(cubes[name].values, files[name].values, rtol=2e-5, atol=2e-3)


def test_the_reference_header_follows_the_grid(whole):
    header = fits.getheader(whole)
    assert (header["CRPIX1"], header["CRPIX2"]) == (60.0 - header["REFLEFT"], 50.0 - header["REFTOP"])


def test_common_is_covered_by_all(night, tmp_path):
    out = tmp_path / "common.fits"
    wanted = ["--out", str(out), "--reference", "light_0000", "--framing", "common", "--quiet"]
    done = CliRunner().invoke(main, ["stack", str(night.folder), *wanted])
    assert done.exit_code == 0, done.output
    result = open_stack(out).load()
    met = sum(result[name].values.astype(int) for name in ("coverage", "rejected_low", "rejected_high"))
    assert (met == COUNT).all()
    assert 0.5 * np.prod(SHAPE) < np.prod(met.shape[1:]) < 0.8 * np.prod(SHAPE)


def test_a_drizzled_stack_of_every_corner_can_be_finished(night, whole, tmp_path):
    out, options = tmp_path / "fine.fits", ["--scale", "1.5", "--pixfrac", "1", "--framing", "all", "--quiet"]
    done = CliRunner().invoke(
        main, ["stack", str(night.folder), "--out", str(out), "--reference", "light_0000", *options]
    )
    assert done.exit_code == 0, done.output
    header, plain = fits.getheader(out), fits.getheader(whole)
    assert (header["SCALE"], header["PIXFRAC"], header["REFTOP"]) == (1.5, 1.0, plain["REFTOP"])
    assert [header[key] for key in ("NAXIS1", "NAXIS2")] == [int(1.5 * plain[key]) for key in ("NAXIS1", "NAXIS2")]
    assert header["CRPIX1"] - 0.5 == pytest.approx(1.5 * (plain["CRPIX1"] - 0.5))
    assert header["CD1_1"] == pytest.approx(1e-4 / 1.5)
    result, ordinary = open_stack(out).load(), open_stack(whole).load()
    assert result["chi_square"].shape[1:] == tuple(-(-size // 32) for size in result["signal"].shape[1:])
    covered = result["signal"].where(ordinary["coverage"].max() - result["coverage"] < 6).median(("y", "x"))
    np.testing.assert_allclose(covered, ordinary["signal"].median(("y", "x")), rtol=0.03)
    holes = float(result["signal"].isnull().mean()) - float(ordinary["signal"].isnull().mean())
    assert ("have no sample" in done.output) == (holes > 2e-4)
    finished = CliRunner().invoke(main, ["finish", str(out), "--out", str(tmp_path / "fine.png"), "--quiet"])
    assert finished.exit_code == 0, finished.output
    forecast = CliRunner().invoke(main, ["stack", str(night.folder), "--out", str(out), "--scale", "2", "--dry-run"])
    assert forecast.exit_code == 0, forecast.output


def test_mistakes_are_named(night, tmp_path):
    with pytest.raises(WorkbenchError, match="framing 'max' is none of reference, all, common"):
        stack_folder(night.folder, tmp_path / "a.fits", framing="max", progress=False)
    done = CliRunner().invoke(main, ["stack", str(night.folder), "--out", str(tmp_path / "a.fits"), "--scale", "5"])
    assert (done.exit_code, "scale 5 is none of 1, 1.5, 2, 3" in done.output) == (2, True)
