"""Stars of a stack as a table, and one star over a night, against the truth of a simulated night."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from click.testing import CliRunner

import workbench as wb
from tests.stars.conftest import painted
from workbench.cli import main
from workbench.core.errors import StageError, WorkbenchError
from workbench.finish import make_picture
from workbench.simulate import Transit, write_transit

FIRST = "light_000.fits"  # whose grid is the truth's


@pytest.fixture(scope="module")
def transit(tmp_path_factory):
    return write_transit(tmp_path_factory.mktemp("transit") / "night", Transit(depth=0.03), lights=30, seed=2)


@pytest.fixture(scope="module")
def stack(transit):
    path = transit.folder.parent / "stack.fits"
    wb.stack_folder(transit.folder, path, reference=FIRST, progress=False)
    return path


@pytest.fixture(scope="module")
def curve(transit):
    return wb.light_curve(transit.folder, (transit.x[0], transit.y[0]), reference=FIRST, progress=False)


def test_fluxes_of_a_stack_are_covered_by_their_errors(transit, stack, tmp_path):
    table = wb.photometry(stack, tmp_path / "stars.csv")
    away = np.hypot(table.x.values[:, None] - transit.x, table.y.values[:, None] - transit.y)
    match, good = away.argmin(axis=1), (away.min(axis=1) < 1) & (table["flags"].values == "")
    good &= match != 0  # which is dimmed
    assert good.sum() > 20
    for name in ("flux", "psf_flux"):
        pulls = []
        for channel in range(3):
            truth = 60 * transit.flux[match, channel]
            flux, error = table[name].values[:, channel], table[f"{name}_error"].values[:, channel]
            use = good & np.isfinite(flux)
            weight = (truth / error)[use] ** 2  # the share in the aperture and the air's are one factor for all
            scale = np.average((flux / truth)[use], weights=weight)
            assert 0.8 < scale < 1.0
            pulls.append(((flux - scale * truth) / error)[use])
        pulls = np.concatenate(pulls)
        assert 0.85 < np.sqrt(np.mean(pulls**2)) < 1.15, name  # some 75 fluxes: 0.08
    written = pd.read_csv(tmp_path / "stars.csv")
    np.testing.assert_allclose(written["flux_G"], table["flux"].sel(channel="G"), rtol=1e-6)
    wb.photometry(stack, tmp_path / "stars.csv")  # over its own output


def test_stars_that_cannot_be_measured_are_flagged():
    image, x, y, truth = painted(4, stars=60)
    brightest = int(np.argmax(truth))
    image[:, :8] = np.roll(image, 8 - round(x[0]), axis=1)[:, :8]  # a star on the edge
    full = image > 0.9 * image.max()
    table = wb.photometry(make_picture(image, np.maximum(image, 1), saturated=full))
    flags = table["flags"].values.astype(str)
    near = np.argmin(np.hypot(table.x.values - x[brightest], table.y.values - y[brightest]))
    assert "saturated" in flags[near]
    assert np.isnan(table["flux"].values[near]).all()
    assert np.isnan(table["psf_flux"].values[near]).all()
    edge = (table.x.values < 7) | (table.x.values > image.shape[1] - 8)
    assert edge.any()
    assert all("incomplete" in flag for flag in flags[edge])
    assert f"{sum('saturated' in flag for flag in flags)} saturated" in wb.pipelines.photometry_text(table)


def test_the_star_at_a_place_has_its_true_flux_or_a_reason():
    """The flux of a painted star at a place near it; of a reduced picture, the brightest that a tap can mean."""
    image, x, y, truth = painted(4, stars=60)
    brightest = int(np.argmax(truth))
    v, u = np.indices(image.shape)
    full = np.hypot(u - x[brightest], v - y[brightest]) < 2
    table = wb.photometry(make_picture(image, np.maximum(image, 1) + 25, saturated=full))  # 5 e⁻ of read noise
    pulls = []
    for number in np.flatnonzero(np.arange(len(x)) != brightest):
        star = wb.pipelines.star_at(table, x[number] + 2, y[number] - 1.5)
        assert abs(float(star.x) - x[number]) < 0.3
        pulls.append((float(star["flux"][0]) - truth[number]) / float(star["flux_error"][0]))
    assert len(pulls) > 25
    assert 0.7 < np.sqrt(np.mean(np.square(pulls))) < 1.3  # 29 fluxes: 0.13
    with pytest.raises(WorkbenchError, match=r"the star at x \d.* is saturated, so its light cannot be measured"):
        wb.pipelines.star_at(table, x[brightest], y[brightest])
    edge = int(x[1]) - 4
    cut = wb.photometry(make_picture(image[:, edge:], np.maximum(image[:, edge:], 1) + 25))
    with pytest.raises(WorkbenchError, match=r"the star at x [34]\.\d, .* is too near to the border of the stack"):
        wb.pipelines.star_at(cut, x[1] - edge, y[1])
    v, u = np.mgrid[30:270:5, 30:370:5]
    apart = np.hypot(v[..., None] - y, u[..., None] - x)
    empty = np.unravel_index(apart.min(axis=-1).argmax(), v.shape)  # the emptiest place
    place = float(u[empty]), float(v[empty])
    with pytest.raises(WorkbenchError, match=r"there is no star at x .* of the stack; the nearest is \d+ px away"):
        wb.pipelines.star_at(table, *place)
    near = np.argsort(apart[empty])[:3]
    reach = float(apart[empty][near[-1]]) + 0.5
    meant = near[np.argmax(truth[near])]
    assert abs(float(wb.pipelines.star_at(table, *place, reach).x) - x[meant]) < 0.3


def test_a_place_on_a_finer_and_wider_stack_is_found_on_its_reference(transit, tmp_path):
    given = {"reference": FIRST, "framing": "all", "scale": 1.5, "exclude": ("light_00[6-9]*", "light_0[12]*")}
    wb.stack_folder(transit.folder, tmp_path / "fine.fits", progress=False, **given)
    stack = wb.open_stack(tmp_path / "fine.fits")
    assert stack.sizes["x"] > 1.5 * 336
    star = wb.photometry(stack).isel(star=0)
    light, place = wb.pipelines.place_on_reference(stack, float(star.x), float(star.y))
    assert light.endswith(FIRST)
    assert np.hypot(transit.x - place[0], transit.y - place[1]).min() < 0.2
    assert np.hypot(transit.x - float(star.x), transit.y - float(star.y)).min() > 5


def test_what_is_no_stack_with_its_variance_is_refused(tmp_path):
    image = painted(1)[0]
    with pytest.raises(WorkbenchError, match="there is no variance with the signal"):
        wb.photometry(make_picture(image))
    fits.writeto(tmp_path / "other.fits", image)
    with pytest.raises(WorkbenchError, match=r"other\.fits: there is no variance"):
        wb.photometry(tmp_path / "other.fits")
    with pytest.raises(StageError, match="stretched already"):
        wb.photometry(make_picture(image, image, stage="stretched"))
    noise = np.random.default_rng(1).normal(100, 5, (96, 96)).astype("float32")
    with pytest.raises(WorkbenchError, match="no stars are found"):
        wb.photometry(make_picture(noise, np.full_like(noise, 25)))


def test_a_transit_has_its_depth_and_its_errors(transit, curve):
    dip = (transit.transit.light(curve.hours.values + 30 / 3600) - 1) / -transit.transit.depth
    weight = curve.relative_flux_error.values**-2
    design = np.stack([np.ones(dip.size), -dip], axis=1)
    covariance = np.linalg.inv((design * weight[:, None]).T @ design)
    level, depth = covariance @ ((design * weight[:, None]).T @ curve.relative_flux.values)
    doubt = np.sqrt(covariance[1, 1])
    assert abs(depth / level - 0.03) < 3 * doubt
    assert doubt < 0.005
    rest = (curve.relative_flux.values - design @ [level, depth]) / curve.relative_flux_error.values
    assert 0.7 < np.sqrt(np.sum(rest**2) / (dip.size - 2)) < 1.35  # 30 points: 0.13
    flat = (curve.check.values - 1) / curve.check_error.values
    assert 0.7 < np.sqrt(np.mean(flat**2)) < 1.35
    assert 0.8 < curve.attrs["chi_square"] < 1.2
    assert curve.attrs["channel"] == "G"
    assert curve["comparison"].sum() >= 10
    assert str(curve.time.values[0]).startswith("2024-03-09T21:00:30")


def test_where_there_is_no_star_is_said(transit):
    with pytest.raises(WorkbenchError, match=r"no star at x 96\.0, y 96\.0 of the reference; the nearest is \d+ px"):
        wb.light_curve(transit.folder, "96,96", reference=FIRST, progress=False)
    with pytest.raises(WorkbenchError, match="is not the place of a star; give x,y in pixels"):
        wb.light_curve(transit.folder, "96", reference=FIRST, progress=False)
    with pytest.raises(WorkbenchError, match="channel 'V' is none of these frames; they have R, G, B"):
        wb.light_curve(transit.folder, "96,96", channel="V", reference=FIRST, progress=False)
    with pytest.raises(WorkbenchError, match="scale is not known; give the focal length"):
        wb.light_curve(transit.folder, "12h50m53s,+41d07m14s", reference=FIRST, progress=False)


def test_the_commands_write_tables_and_a_chart(transit, stack, tmp_path):
    place = f"{transit.x[0]:.1f},{transit.y[0]:.1f}"
    given = ["lightcurve", str(transit.folder), "--star", place, "--reference", FIRST, "--quiet"]
    for _ in range(2):  # the second time over its own output
        done = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "curve.csv")])
        assert done.exit_code == 0, done.output
    assert "comparison stars, which scatter as their noise predicts" in done.output
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    table = pd.read_csv(tmp_path / "curve.csv")
    assert len(table) == 30
    assert {"time", "relative_flux", "relative_flux_error", "check"} <= set(table)
    done = CliRunner().invoke(main, ["photometry", str(stack), "--out", str(tmp_path / "stars.csv")])
    assert done.exit_code == 0, done.output
    assert "G: " in done.output
    done = CliRunner().invoke(main, ["photometry", str(stack), "--out", str(stack)])
    assert done.exit_code == 2
