"""A night with a comet: its flux is right, stars leave no trail in its stack, nor it one in that of the stars."""

import dataclasses
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner
from scipy import ndimage

from tests.comets import COLOUR, COMA, COUNT, FIRST, NUCLEUS, SHAPE, STEP, comet_night
from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.core.statistics import mad_std
from workbench.pipelines import stack_outputs
from workbench.pipelines.finishing import finish_stack
from workbench.pipelines.stacking import StackResult, stack_folder
from workbench.simulate import picture, star_table
from workbench.simulate.night import START, Night
from workbench.simulate.sky import replace_stars
from workbench.stack.fits_out import open_stack
from workbench.stack.window import BAND


class Made(NamedTuple):
    night: Night
    result: StackResult
    unit: float  # [e- of the stack for 1 e-/s]

    def open(self, name):
        return open_stack(self.result.path.with_name(f"stack{name}.fits")).load()


def unit_of(night):
    """Return the stack's electrons for 1 e-/s in the sky."""
    through = night.through * night.sensor.illumination() * night.sensor.response_map
    return 60 * night.views[0].transparency * through.mean()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    night = comet_night(tmp_path_factory.mktemp("night"), stars=90, brightest=1200.0)
    with fits.open(night.folder / night.lights[0], mode="update") as hdus:
        hdus[0].header.update(SOLUTION)
    out = tmp_path_factory.mktemp("out") / "stack.fits"
    result = stack_folder(night.folder, out, reference="light_0000", comet="auto", progress=False)
    return Made(night, result, unit_of(night))


SOLUTION = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 240.0,
            "CRPIX2": 160.0, "CD1_1": -5e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5e-4}  # fmt: skip


def distance(x, y):
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(u - x, v - y)


def flux_of(stack, channel, radius=22.0):
    """The comet's flux in an aperture less the background around, and its error by the stack's variance."""
    r = distance(*FIRST)
    inside, ring = r <= radius, (r > 30) & (r < 45)
    signal, variance = (stack[name].values[channel] for name in ("signal", "variance"))
    ring &= np.abs(signal - np.median(signal[ring])) < 4 * mad_std(signal[ring])
    count = inside.sum()
    error = np.sqrt(variance[inside].sum() + count**2 * variance[ring].sum() / ring.sum() ** 2)
    return signal[inside].sum() - count * signal[ring].mean(), error


def test_the_comets_flux_is_right(made):
    comet = made.open("-comet")
    for channel, colour in enumerate(COLOUR):
        truth = (NUCLEUS + COMA) * colour * made.unit
        found, error = flux_of(comet, channel)
        assert abs(found / truth - 1) < 0.01
        assert abs(found - truth) < 3 * error


def test_no_star_leaves_a_trail(made):
    comet, view = made.open("-comet"), made.night.views[0]
    stars = star_table(made.night.sky, view, border=5)[:25]
    peaks = picture(replace_stars(made.night.sky, stars["x"], stars["y"], stars["flux"]), view).values * made.unit
    across = np.array([-STEP[1], STEP[0]]) / np.hypot(*STEP)
    shares = []
    for star in stars:
        way = np.array([star["x"], star["y"]]) - np.linspace(0, COUNT - 1, 200)[:, None] * STEP
        far = np.hypot(*(way - FIRST).T) > 45

        def level(off, channel, way=way[far]):
            u, v = np.rint(way + off * across).astype(int).T
            on = (u >= 8) & (u < SHAPE[1] - 8) & (v >= 8) & (v < SHAPE[0] - 8)
            return comet["signal"].values[channel][v[on], u[on]]

        if len(level(0, 0)) < 80:
            continue
        x, y = round(star["x"]), round(star["y"])
        for channel in range(3):
            trail = np.mean([level(off, channel).mean() for off in (-1, 0, 1)])
            beside = np.median(np.concatenate([level(off, channel) for off in (-14, -11, -8, 8, 11, 14)]))
            shares.append((trail - beside) / peaks[channel][y, x])
    assert len(shares) > 30
    assert np.abs(shares).max() < 0.025


def test_the_stack_of_the_stars_shows_no_comet(made):
    stars, view = made.open(""), dataclasses.replace(made.night.views[0], background=(0.0, 0.0, 0.0))
    left = stars["signal"].values - picture(made.night.sky, view).values * 60 * made.unit / (60 * view.transparency)
    table = star_table(made.night.sky, view)
    whole = (NUCLEUS + COMA) * made.unit
    seen = 0
    for number in range(COUNT):
        x, y = FIRST + number * STEP
        if np.hypot(table["x"] - x, table["y"] - y).min() < 14:
            continue
        r = distance(x, y)
        for plane in left:
            flux = plane[r <= 10].sum() - (r <= 10).sum() * np.median(plane[(r > 15) & (r < 25)])
            assert abs(flux) < 0.025 * whole
        seen += 1
    assert seen > 3


def test_the_composed_stack_is_the_sum(made):
    stars, comet, both = (made.open(name) for name in ("", "-comet", "-comet-and-stars"))
    more = (both["signal"] - stars["signal"]).values
    for channel, colour in enumerate(COLOUR):
        truth = (NUCLEUS + COMA) * colour * made.unit
        assert more[channel].sum() == pytest.approx(truth, rel=0.02)
    nucleus = np.s_[:, round(FIRST[1]), round(FIRST[0])]
    sum_there = (stars["variance"] + comet["variance"]).values[nucleus]
    np.testing.assert_allclose(both["variance"].values[nucleus], sum_there, rtol=1e-5)
    far = distance(*FIRST) > 90
    np.testing.assert_array_equal(both["signal"].values[:, far], stars["signal"].values[:, far])


def test_the_variance_of_empty_sky_is_right(made):
    comet = made.open("-comet")
    (of_comet, _) = made.result.comet.values()
    assert all(0.93 < value < 1.07 for value in of_comet.chi_square.values())
    rows, columns = (size // 16 for size in SHAPE)

    def blocks(plane):
        return plane.reshape(rows, 16, columns, 16).swapaxes(1, 2).reshape(rows, columns, 256)

    full = blocks(comet["coverage"].values.min(0)).mean(2) > 0.97 * COUNT
    full &= blocks(distance(*FIRST)).min(2) > 45
    full[:1] = full[:, :1] = False
    for channel in range(3):  # in red there is a nebula of 22 e-
        signal, variance = (blocks(comet[name].values[channel].astype(float)) for name in ("signal", "variance"))
        mean, sigma = signal.mean(2)[full], np.sqrt(variance.mean(2) / 256)[full]
        pulls = (mean - np.median(mean)) / sigma
        assert len(pulls) > 150
        assert abs(pulls.std() - 1) < 3 / np.sqrt(2 * len(pulls))


def test_the_variance_on_the_trails_of_subtracted_stars_is_right(tmp_path):
    """Their photon noise is left, much more than the sky's: pulls of single pixels scatter by 1."""
    still = {"seeing_scatter": 0.0, "transparency_scatter": 0.0, "gradient": 0.0, "background": (0.3, 0.3, 0.3)}
    night = comet_night(
        tmp_path / "night", cfa_pattern="mono", stars=150, brightest=4000.0, faintest=100.0, fwhm=3.6, **still
    )
    last = night.views[COUNT - 1].matrix @ np.append(FIRST + (COUNT - 1) * STEP, 1.0)
    way = ("{:g},{:g}@light_0000".format(*FIRST), f"{last[0]:g},{last[1]:g}@light_{COUNT - 1:04d}")
    result = stack_folder(night.folder, tmp_path / "s.fits", reference="light_0000", comet=way, progress=False)
    path = next(iter(result.comet))
    comet, share = open_stack(path).load().isel(channel=0), fits.getheader(path)["PIXVAR_M"]
    view = dataclasses.replace(night.views[0], background=(0.0, 0.0, 0.0))
    sky = replace_stars(night.sky, night.sky.x, night.sky.y, night.sky.flux)
    stars = picture(sky, view).values[1] * unit_of(night)
    trail = sum(ndimage.shift(stars, -number * STEP[::-1], order=1, cval=np.nan) for number in range(COUNT))
    signal, variance = comet["signal"].values, comet["variance"].values
    good = np.isfinite(trail) & (distance(*FIRST) > 60)
    good[:8] = good[-8:] = good[:, :8] = good[:, -8:] = False
    pulls = (signal - np.median(signal[good & (trail < 30)])) / np.sqrt(share * variance)
    for low, high in ((0, 30), (30, 100), (100, 300), (300, 1000), (1000, 3000)):
        part = good & (trail >= low) & (trail < high)
        rms, count = np.sqrt(np.mean(pulls[part] ** 2)), part.sum()
        assert count > 3000
        assert abs(rms - 1) < 3 / np.sqrt(2 * count), (low, rms)
    rejected = comet["rejected_low"].values.astype(int) + comet["rejected_high"].values
    assert np.mean(rejected[good & (trail > 300)] > 0) < 0.01  # the photon noise of stars is no outlier


def test_a_run_that_is_stopped_again_and_again_gives_the_same_planes(made, tmp_path, monkeypatch):
    """Stopped in the first stack of the comet, in the second of the stars, in the second of the comet."""
    whole, written = stack_outputs.write_band, []

    def stops(layout, band):
        if len(written) in stops.at:
            stops.at.discard(len(written))
            raise KeyboardInterrupt
        written.append((layout.path.name, band.top))
        whole(layout, band)

    stops.at = {7, 12, 18}
    monkeypatch.setattr(stack_outputs, "write_band", stops)
    out, settings = tmp_path / "stack.fits", {"reference": "light_0000", "comet": "auto", "progress": False}
    for _ in range(3):
        with pytest.raises(WorkbenchError, match="the same command goes on from here"):
            stack_folder(made.night.folder, out, threads=1, **settings)
        assert not list(tmp_path.glob("*.fits"))
    result = stack_folder(made.night.folder, out, threads=1, **settings)
    assert len(set(written)) == len(written) == 4 * -(-SHAPE[0] // BAND)
    for path, first in zip((out, *result.comet), (made.result.path, *made.result.comet), strict=True):
        assert path.read_bytes() == first.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in (out, *result.comet))


def test_headers_state_what_is_shown_and_all_can_be_finished(made, tmp_path):
    paths = [made.result.path, *made.result.comet]
    assert [path.name for path in paths] == ["stack.fits", "stack-comet.fits", "stack-comet-and-stars.fits"]
    for path, what in zip(paths, ("stars", "comet", "comet and stars"), strict=True):
        header = fits.getheader(path)
        assert header["STACKOF"] == what
        assert (header["COMETX"], header["COMETY"]) == pytest.approx(tuple(FIRST), abs=0.5)
        speed = STEP / 62 * 3600
        assert (header["COMETVX"], header["COMETVY"]) == pytest.approx(tuple(speed), rel=0.01)
        assert header["CRPIX1"] == SOLUTION["CRPIX1"]
        assert header["HISTORY"][0].startswith("shows the ")
        finish_stack(path, tmp_path / f"{path.stem}.png", progress=False)
    assert "stack-comet.fits: shows the comet; the stars are subtracted and rejected" in repr(made.result)
    assert not any("something moves" in text for text in made.result.warnings)


def test_positions_and_an_ephemeris_give_the_same_way(made, tmp_path):
    night = made.night
    last = len(night.lights) - 1
    on_last = night.views[last].matrix @ np.append(FIRST + last * STEP, 1.0)
    first, late = (f"{x:.2f},{y:.2f}@light_{n:04d}" for n, (x, y) in ((0, FIRST), (last, on_last[:2])))
    middle = START + timedelta(hours=1, seconds=30)
    minutes = np.array([-1.0, 15.0])
    at = FIRST[:, None] + np.outer(STEP, minutes * 60 / 62)
    ra, dec = WCS(fits.Header(SOLUTION)).all_pix2world(*at, 0)
    table = tmp_path / "comet.csv"
    times = [middle + timedelta(minutes=minute) for minute in minutes.tolist()]
    rows = [f"{time.isoformat()},{a:.7f},{d:.7f}" for time, a, d in zip(times, ra, dec, strict=True)]
    table.write_text("\n".join(["Time,RA,Dec", *rows]))
    for number, way in enumerate(([late, first], [str(table)])):
        out = tmp_path / f"{number}.fits"
        options = [word for text in way for word in ("--comet", text)]
        command = ["stack", str(night.folder), "--out", str(out), "--reference", "light_0000", "--quiet"]
        done = CliRunner().invoke(main, [*command, *options])
        assert done.exit_code == 0, done.output
        header = fits.getheader(tmp_path / f"{number}-comet.fits")
        assert (header["COMETX"], header["COMETY"]) == pytest.approx(tuple(FIRST), abs=0.05)
        found, error = flux_of(open_stack(tmp_path / f"{number}-comet.fits").load(), 1)
        assert abs(found - (NUCLEUS + COMA) * made.unit) < 3 * error


def test_a_comet_that_is_not_there(made, tmp_path):
    with pytest.raises(WorkbenchError, match=r"outside the stack of 480 x 320 pixels"):
        stack_folder(made.night.folder, tmp_path / "a.fits", comet=("-90,20", "-50,30"), progress=False)
    assert not list(tmp_path.iterdir())
    result = stack_folder(made.night.folder, tmp_path / "b.fits", comet=("400,250", "330,270"), progress=False)
    assert any("no comet stands above the noise" in text for text in result.warnings)
