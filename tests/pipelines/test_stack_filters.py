"""Lights of several filters: a stack each on one grid, each filter judged by itself; then one picture of them."""

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.finish.photometry import photometry
from workbench.finish.picture import make_picture
from workbench.ingest.catalogue import open_folder
from workbench.ingest.folder import of_filters
from workbench.pipelines import stack_filters, stacking
from workbench.pipelines.finishing import finish_stack, open_linear
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.capture import Batch, cooled, write_frames
from workbench.simulate.sky import make_sky, star_table
from workbench.stack.fits_out import open_stack

SHAPE = (200, 300)
TRANSMISSION = {"L": 1.0, "R": 0.35, "G": 0.4, "B": 0.2}  # of B under a third of L's
SKY = make_sky(SHAPE, stars=60, seed=5)


def dust(x, y):
    """The light that gets past a ring of dust."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 1 - 0.25 * np.exp(-(((np.hypot(u - x, v - y) - 12) / 4) ** 2))


THROUGH = {"L": dust(80, 60), "R": dust(150, 60), "G": dust(220, 60), "B": dust(150, 140)}


def frames_of(spellings, lights=5):
    own = [Batch("bias", 4, 0.0), Batch("dark", 4, 60.0)]
    for name, spelling in spellings.items():
        through = {"filter": name, "header": {"FILTER": spelling}, "through": THROUGH.get(name, 1.0)}
        own.append(Batch("flat", 4, 1.0, **through))
        own.append(Batch("light", lights, 60.0, transmission=TRANSMISSION.get(name, 1.0), **through))
    return own


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lrgb")
    spellings = {"L": "Lum", "R": "r", "G": "Green", "B": "b"}
    return folder, write_frames(folder, cooled(SHAPE, offset_step=20.0), frames_of(spellings), sky=SKY, seed=3)


@pytest.fixture(scope="module")
def done(written, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "night.fits"
    return stack_folder(written[0], out, progress=False)


def test_a_stack_each_on_the_grid_of_one_frame(written, done):
    assert list(done.stacks) == ["L", "R", "G", "B"]
    assert [one.path.name for one in done.stacks.values()] == [f"night_{name}.fits" for name in "LRGB"]
    assert done.set_aside == []
    assert all(one.frames["used"].all() and len(one.frames) == 5 for one in done.stacks.values())
    for name, one in done.stacks.items():
        header = fits.getheader(one.path)
        assert (header["FILTER"], header["REFFRAME"]) == (name, done.grid)
        assert header.get("SCALEREF", done.grid) == one.reference
        assert (one.frames["filter"] == name).all()
        assert 0.9 < one.frames["transparency"].median() < 1.1  # of its own filter's
    assert "night_B.fits: 5 of 5 lights stacked" in repr(done)
    (gain,) = (text for text in done.warnings if "gain (mono" in text)  # once, not once a filter
    assert "(the mean of 4 such estimates)" in gain


def test_stars_lie_in_one_place_and_have_the_light_of_their_filter(written, done):
    views = {f"lights/{path.name}": view for path, batch, view in written[1] if batch.kind == "light"}
    view = views[done.grid]
    stars = star_table(SKY, view, border=25)
    near = np.hypot(stars["x"][:, None] - stars["x"], stars["y"][:, None] - stars["y"])
    alone = (np.sort(near, axis=1)[:, 1] > 20) & (stars["flux"][:, 1] * 60 > 4000)
    ratios = {}
    for name, one in done.stacks.items():
        picture = open_linear(one.path)
        flux = photometry(picture, stars["x"][alone], stars["y"][alone], 4.0)["flux"].values[:, 0]
        colour = {"R": 0, "B": 2}.get(name, 1)
        ratios[name] = np.nanmedian(flux / (stars["flux"][alone, colour] * 60 * TRANSMISSION[name]))
        ratios[name] /= views[one.reference].transparency
    values = np.array(list(ratios.values()))
    np.testing.assert_allclose(values / values[0], 1.0, atol=0.03)


def test_every_filters_dust_is_its_flats(done):
    x, y = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    for name, (u, v) in {"L": (80, 60), "R": (150, 60), "G": (220, 60), "B": (150, 140)}.items():
        signal = open_stack(done.stacks[name].path)["signal"].values[0]
        away = np.hypot(x - u, y - v)
        ring, around = (np.nanmedian(signal[part]) for part in (abs(away - 12) < 4, (away > 22) & (away < 34)))
        assert abs(ring / around - 1) < 0.05


def test_one_filter_wanted_is_one_stack_under_the_name_given(written, tmp_path):
    result = stack_folder(written[0], tmp_path / "night.fits", filter="blue", progress=False)
    assert (result.path, result.stacks) == (tmp_path / "night.fits", {})
    assert fits.getheader(result.path)["FILTER"] == "B"
    with pytest.raises(WorkbenchError, match=r"no light is taken through the filter 'Ha'; .* L \(5\)"):
        stack_folder(written[0], tmp_path / "a.fits", filter="Ha", progress=False)
    with pytest.raises(WorkbenchError, match="none of the lights"):
        stack_folder(written[0], tmp_path / "a.fits", reference="light_9", progress=False)


def test_the_wanted_reference_gives_the_grid_of_all_and_a_dry_run_names_the_files(written, tmp_path):
    wanted = next(path for path, batch, _ in written[1] if batch.kind == "light" and batch.filter == "G")
    plan = stack_folder(written[0], tmp_path / "night.fits", dry_run=True, progress=False)
    assert f"B: 5 lights into {tmp_path / 'night_B.fits'}" in plan.plan
    result = stack_folder(
        written[0], tmp_path / "night.fits", reference=wanted, filter=("G", "B"), threads=1, progress=False
    )
    assert (result.grid, list(result.stacks)) == (f"lights/{wanted.name}", ["G", "B"])


def test_an_interrupted_run_goes_on_with_the_stacks_it_has(written, done, tmp_path, monkeypatch):
    calls = []
    true = stacking.write_stack

    def stopped(plan, place, *others):
        calls.append(place.out.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true(plan, place, *others)

    monkeypatch.setattr(stacking, "write_stack", stopped)
    with pytest.raises(WorkbenchError, match="the same command goes on from here"):
        stack_folder(written[0], tmp_path / "night.fits", progress=False)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / ".night.fits.work").glob("night_*/bands/*.npy")}
    assert kept
    monkeypatch.setattr(stack_filters.shutil, "rmtree", lambda *_, **__: None)
    again = stack_folder(written[0], tmp_path / "night.fits", progress=False)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for name, one in again.stacks.items():
        mine, its = (open_stack(path)["signal"].values for path in (one.path, done.stacks[name].path))
        np.testing.assert_array_equal(mine, its)


def test_a_light_without_a_filter_is_reported(tmp_path):
    batches = [Batch("light", 2, 60.0, filter=name) for name in ("R", "G", "")]
    write_frames(tmp_path, cooled((96, 128)), batches, seed=4)
    frames = of_filters(open_folder(tmp_path, progress=False))
    assert (frames.count("light"), len(frames.set_aside)) == (4, 2)
    assert "states no filter, where the other lights state R, G" in frames.set_aside[0][1]
    only = of_filters(open_folder(tmp_path, progress=False).select(filter=["", "R"]))
    assert only.count("light") == 4
    assert any("counts as R" in warning for warning in only.warnings)


def test_the_stacks_make_a_picture_in_colour(done, tmp_path):
    paths = [str(one.path) for one in done.stacks.values()]
    ran = CliRunner().invoke(
        main, ["finish", *paths, "--out", str(tmp_path / "night.png"), "--linear", str(tmp_path / "linear.fits"),
               "--quiet"],
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert "Composed as LRGB from the stacks of L, R, G, B." in ran.output
    assert open_linear(tmp_path / "linear.fits").sizes["channel"] == 3
    assert "colour matrix" not in ran.output
    finished = finish_stack(paths[1:], tmp_path / "rgb.png", progress=False)
    assert finished.linear.attrs["palette"] == "RGB"
    assert "variance" in finished.linear


def test_palettes_are_refused_in_words(done, tmp_path):
    paths = [str(one.path) for one in done.stacks.values()]
    ran = CliRunner().invoke(main, ["finish", *paths, "--palette", "SHO", "--out", str(tmp_path / "a.png")])
    assert ran.exit_code == 2
    assert "the palette SHO needs SII and Ha and OIII; the stacks are of L, R, G, B" in ran.output
    ran = CliRunner().invoke(main, ["finish", *paths, "--weights", "R=lots", "--out", str(tmp_path / "a.png")])
    assert ran.exit_code == 2
    assert "Traceback" not in ran.output
    with pytest.raises(WorkbenchError, match="is of L as"):
        open_linear([paths[0], paths[0]])
    bare = make_picture(np.ones((32, 32)))
    assert "filter" not in bare.attrs
