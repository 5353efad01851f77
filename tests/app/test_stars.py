"""A tap on a star of the stack: its table, what cannot be measured in words, and its light curve."""

import inspect

import pytest

import workbench as wb
from workbench.app import jobs
from workbench.app.components import Screen
from workbench.app.jobs import FINISHED, Job, Runner
from workbench.app.pages import StackPage
from workbench.app.session import Session
from workbench.app.stars import star_table
from workbench.simulate import write_transit


@pytest.fixture(scope="module")
def transit(tmp_path_factory):
    night = write_transit(tmp_path_factory.mktemp("stars") / "night", lights=6, calibration=4, seed=2)
    stack = night.folder.parent / "results" / "stack.fits"
    wb.stack_folder(night.folder, stack, reference="light_000.fits", progress=False)
    return night


@pytest.fixture
def page(transit):
    runner = Runner()
    session = Session(runner, Screen(width=1200))
    page = StackPage(session)
    session.use(*session.find(transit.folder, transit.folder.parent / "results"))
    yield page
    runner.close()


def done(part, value):
    part.show_result(Job(part.task, "", FINISHED, value=value))


def test_a_tap_measures_the_stars_and_shows_the_one_that_was_tapped(page, transit):
    part = page.stars
    page.refresh()
    assert part.panel.visible
    assert "Choose a star first" in part.curve.same.object
    assert part.curve.button.disabled
    part.pixel.param.update(x=round(transit.x[0]) + 2, y=round(transit.y[0]) - 1)
    assert page.session.job("photometry").active
    job = page.session.runner.wait("photometry", page.session.key)
    assert job.state == FINISHED, job.message
    page.refresh()
    assert (page.session.results / "stars-stack.csv").is_file()
    measured = wb.pipelines.star_at(job.value[2], transit.x[0], transit.y[0])
    (shown,) = (pane.object for pane in part.result if "The star" in str(pane.object))
    assert f"x {float(measured.x):.1f}, y {float(measured.y):.1f} px" in shown
    flux, error = (float(measured[name].sel(channel="G")) for name in ("flux", "flux_error"))
    assert wb.core.values.value_text(flux, error, "e⁻") in shown
    assert f"{flux / error:.3g}" in shown
    assert (part.pixel.x, part.pixel.y) == (round(float(measured.x)), round(float(measured.y)))
    assert not part.curve.button.disabled

    # what is no star takes the table away
    part.pixel.param.update(x=part.pixel.x + 24, y=part.pixel.y + 24)
    assert "there is no star at" in part.said.pane.object
    assert len(part.result) == 0
    page.refresh()
    assert part.curve.button.disabled


def test_the_light_curve_is_the_command_s(page, transit, tmp_path):
    part = page.stars
    done(part, jobs.TASKS["photometry"](part.stack.value, tmp_path / "stars.csv"))
    assert "stars are measured: tap one" in part.said.pane.object
    part.pixel.param.update(x=round(transit.x[0]), y=round(transit.y[0]))
    given = part.curve._arguments()
    inspect.signature(wb.light_curve).bind(**given)
    curve = wb.light_curve(**given, progress=False)
    assert curve.attrs["reference"] == wb.open_stack(part.stack.value).attrs["reference"]
    assert float(curve["x"][0]) == pytest.approx(given["star"][0], abs=0.5)
    done(part.curve, curve)
    assert "6 lights over" in part.curve.result[-1].object
    assert part.curve._command()[-2:] == ["--reference", curve.attrs["reference"]]
    page.lights.table.param.update(rows=[[name] for name in page.lights.paths], unticked=[1])
    part.pixel.param.update(x=round(transit.x[3]), y=round(transit.y[3]))
    assert part.curve._arguments()["exclude"] == (page.lights.files[1],)


def test_a_solved_stack_has_coordinates_and_magnitudes(page, transit, tmp_path):
    measured = jobs.TASKS["photometry"](page.stars.stack.value, tmp_path / "stars.csv")[2]
    star = wb.pipelines.star_at(measured, transit.x[0], transit.y[0])
    assert "magnitude (Gaia G)" not in star_table(star).index
    solved = star.assign(ra=192.7208, dec=41.12, magnitude=11.2345, magnitude_error=0.012, flags="crowded")
    shown = star_table(solved.assign_attrs(zero_point=20.1, zero_point_error=0.03))["value"]
    assert shown["RA, Dec"] == "12h50m53.0s +41d07m12.0s"
    assert shown["magnitude (Gaia G)"] == "11.235 ± 0.012 mag"
    assert shown["zero point"] == "20.100 ± 0.030 mag"
    assert shown["aperture's radius"] == f"{2.5 * measured.attrs['fwhm']:.1f} px (2.5 FWHM)"
    assert "neighbours leave more light" in shown["note"]


def test_lights_that_are_elsewhere_have_no_light_curve(page, transit, small_samples, tmp_path):
    part = page.stars
    done(part, jobs.TASKS["photometry"](part.stack.value, tmp_path / "stars.csv"))
    stack = part.stack.value
    part.curve.result[:] = ["of the first folder"]
    page.session.use(*page.session.find(small_samples, tmp_path / "results"))
    assert len(part.curve.result) == 0
    assert not part.panel.visible
    part.offer([stack])
    part.pixel.param.update(x=round(transit.x[0]), y=round(transit.y[0]))
    page.refresh()
    assert "are not in the folder" in part.curve.same.object
    assert part.curve.button.disabled
