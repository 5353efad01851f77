"""The command chooses lights as it was asked to: of a written folder whose every fault is known."""

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from workbench.cli import main
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.capture import Batch, cooled, smart_telescope, write_frames
from workbench.simulate.sky import View, make_sky
from workbench.stack.fits_out import open_stack

SHAPE = (192, 240)
SKY = make_sky(SHAPE, stars=120, faintest=40.0, brightest=900.0, step=16.0, nebula=0.0, seed=4)


def view(number, **fault):
    """The sky, dithered."""
    matrix = np.eye(3)
    matrix[:2, 2] = 3.0 * np.cos(2.0 * number), 3.0 * np.sin(2.0 * number)
    return View(**{"matrix": matrix, "background": (2.0,) * 3, "seed": number} | fault)


FAULTS = {
    "good": {}, "fine": {"fwhm": 2.9}, "wide": {"fwhm": 4.4}, "trailed": {"elongation": 1.4},
    "bright": {"background": (9.0,) * 3}, "dim": {"transparency": 0.5},
}  # fmt: skip
NAMES = [*FAULTS, "plain"]


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Seven lights through L, named after their faults, and two through Ha."""
    folder = tmp_path_factory.mktemp("night")
    views = [view(number, **FAULTS.get(name, {})) for number, name in enumerate(NAMES)]
    batches = [
        Batch("bias", 4, 0.0), Batch("flat", 4, 1.0), Batch("light", len(views), 60.0, filter="L", views=views),
        Batch("light", 2, 60.0, filter="Ha", views=[view(8), view(9)]),
    ]  # fmt: skip
    written = write_frames(folder / "frames", cooled(SHAPE), batches, sky=SKY)
    lights = [path for path, batch, _ in written if batch.filter == "L"]
    for path, name in zip(lights, NAMES, strict=True):
        path.rename(path.with_name(f"{name}.fits"))
    return folder


def run(night, *options):
    """Which lights a command stacks, and the reasons for the others by name."""
    out = night / "stack.fits"
    call = ["stack", str(night / "frames"), "--out", str(out), "--masters", str(night / "masters"), "--quiet"]
    result = CliRunner().invoke(main, [*call, *map(str, options)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    stack = open_stack(out)
    names = [name.removeprefix("lights/").removesuffix(".fits") for name in stack.frame_file.values]
    used = {name for name, one in zip(names, stack.frame_used.values, strict=True) if one}
    reasons = dict(zip(names, map(str, stack.frame_reason.values), strict=True))
    return used, reasons, result.output


@pytest.mark.parametrize(
    ("options", "gone", "reason"),
    [
        ([], set(), ""),
        (["--exclude", "bright.fits", "--exclude", "*/wi*"], {"bright", "wide"}, "excluded"),
        (["--max-fwhm", 4.2], {"wide"}, "FWHM"),
        (["--min-roundness", 0.8], {"trailed"}, "roundness"),
        (["--max-background", 300], {"bright"}, "background"),
        (["--max-fwhm", 4.2, "--max-background", 300], {"wide", "bright"}, ""),
    ],
)
def test_limits_and_exclusions_leave_out_the_lights_they_mean(night, options, gone, reason):
    used, reasons, said = run(night, "--filter", "L", *options)
    assert used == set(NAMES) - gone
    assert all(reason in reasons[name] for name in gone)
    assert fits.getheader(night / "stack.fits")["NCOMBINE"] == len(NAMES) - len(gone)
    assert not gone or "set aside" in said


def test_the_least_stars_and_the_best_share(night):
    frames = open_stack(stack_folder(night / "frames", night / "all.fits", filter="L", progress=False).path)
    names = [name.removeprefix("lights/").removesuffix(".fits") for name in frames.frame_file.values]
    stars = dict(zip(names, frames.frame_stars.values.tolist(), strict=True))
    fewest = sorted(stars, key=stars.__getitem__)[:2]
    used, reasons, _ = run(night, "--filter", "L", "--min-stars", stars[fewest[1]] + 1)
    assert used == {name for name, count in stars.items() if count > stars[fewest[1]]}
    assert "stars" in reasons[fewest[0]]
    used, reasons, _ = run(night, "--filter", "L", "--keep", 40)
    assert len(used) == 3
    assert {"good", "fine", "plain"} == used
    assert all(reasons[name] for name in set(NAMES) - used)


def test_what_leaves_too_few_lights_is_said_and_nothing_is_written(night):
    (night / "none.fits").unlink(missing_ok=True)
    call = ["stack", str(night / "frames"), "--out", str(night / "none.fits"), "--quiet", "--filter", "L"]
    for options, said in (
        (["--max-fwhm", "1"], "are left by the limits and exclusions; a stack needs two"),
        (["--exclude", "nobody*"], "nobody"),
        (["--keep", "0"], "a share is over 0"),
        (["--filter", "OIII"], "no light is taken through the filter 'OIII'"),
    ):
        result = CliRunner().invoke(main, [*call, *options])
        assert result.exit_code != 0
        assert said in result.output + str(result.exception)
        assert not (night / "none.fits").exists()


def test_a_colour_camera_through_a_dual_band_filter_and_none(tmp_path):
    lights = [
        Batch("light", 3, 60.0, filter=name, views=[view(3 * first + n) for n in range(3)])
        for first, name in enumerate(("Duo-Band", "No Filter"))
    ]
    batches = [Batch("bias", 4, 0.0), Batch("flat", 4, 1.0, filter="Duo-Band"), *lights]
    camera = smart_telescope(SHAPE, cfa_pattern="RGGB")
    write_frames(tmp_path / "frames", camera, batches, sky=SKY)
    result = stack_folder(tmp_path / "frames", tmp_path / "m42.fits", progress=False)
    assert list(result.stacks) == ["DUO-BAND", "NO FILTER"]
    for name, one in result.stacks.items():
        stack = open_stack(one.path)
        assert stack.channel.values.tolist() == ["R", "G", "B"]
        assert fits.getheader(one.path)["FILTER"] == name
        assert int(stack.frame_used.sum()) == 3
    assert "4 flats" in result.stacks["DUO-BAND"].plan[0]
    assert "flats" not in result.stacks["NO FILTER"].plan[0]
    assert any("no flats of filter NO FILTER" in text for text in result.warnings)
