"""Charts of the raw report card, of cosmic rays and of the plan: drawn from what was measured, by both backends."""

from dataclasses import dataclass, field

import course
import holoviews as hv
import numpy as np
import pytest
import xarray as xr

from workbench import charts, export, fidelity, pixels, plan
from workbench.charts.registry import REGISTRY, select
from workbench.core.cube import make_cube
from workbench.ingest import open_folder

NAMES = ("missing-codes", "noise-spectrum", "hot-pixel-filter", "cosmic-rays", "sub-length", "star-elongation")


@dataclass
class Result:
    """What the charts of these names are drawn from."""

    camera: str = "NIKON D7000 (simulated)"
    simulated: bool = True
    frame_counts: dict = field(default_factory=lambda: {"bias": 4})


@pytest.fixture(scope="module")
def result(small_samples):
    frames = open_folder(small_samples, progress=False)
    made = Result()
    everything = xr.concat([frames.bias, frames.flat, frames.dark], "frame", combine_attrs="override")
    made.fidelity = fidelity.inspect_frames(everything, progress=False)
    made.cosmic_rays = pixels.find_cosmic_rays(course.muon_darks(8), progress=False)
    values = {"gain": 0.5, "gain_error": 0.005, "read_noise": 2.5, "read_noise_error": 0.02, "black_level": 600.0}
    shape = (2, 4)
    made.sensor = xr.Dataset(
        {name: (("iso", "channel"), np.full(shape, value)) for name, value in values.items()},
        {"iso": [200.0, 800.0], "channel": ["R", "G1", "G2", "B"]},
    )
    rates = {
        "rate": [1.0, 2.0, 2.0, 1.5],
        "rate_error": [0.02] * 4,
        "sky": [0.9, 1.9, 1.9, 1.4],
        "sky_error": [0.02] * 4,
    }
    rates |= {"dark": [0.1] * 4, "dark_error": [0.01] * 4}
    made.background = xr.Dataset(
        {name: ("channel", value) for name, value in rates.items()}, {"channel": ["R", "G1", "G2", "B"]},
        {"white_level": 16383.0},
    )  # fmt: skip
    made.subs = plan.plan_subs(made.sensor, made.background, longest=120.0)
    made.shapes = plan.star_shapes(course.drifting_lights(0.01), progress=False)
    made.tracking = plan.tracking(made.shapes)
    return made


@pytest.mark.parametrize("backend", ["bokeh", "matplotlib"])
@pytest.mark.parametrize("name", NAMES)
def test_each_is_drawn_by_both_backends(name, backend, result):
    charts.theme.load_backends()
    assert hv.Store.renderers[backend].get_plot(REGISTRY[name].draw(result)) is not None


@pytest.mark.parametrize("name", NAMES)
def test_each_says_whose_data_it_is(name, result):
    caption, alt = REGISTRY[name].caption(result)
    assert "Simulated data: NIKON D7000 (simulated); 4 bias frames." in caption
    assert "nan" not in caption
    assert len(alt) > 40


def test_each_is_written_in_every_form(result, tmp_path):
    written = export.write_charts(result, tmp_path, only=NAMES, progress=False)
    assert not written.not_drawn
    for name in NAMES:
        for ending in ("png", "svg", "html", "txt"):
            assert (tmp_path / f"{name}.{ending}").stat().st_size > 100
        assert (tmp_path / f"{name}.html").stat().st_size < 2_000_000


def test_they_are_drawn_only_when_asked_for():
    assert not {chart.id for chart in select()} & set(NAMES)
    assert [chart.id for chart in select(["sub-length"])] == ["sub-length"]


def test_what_is_missing_is_named():
    class Poor:
        fidelity = None

    assert REGISTRY["noise-spectrum"].missing(Poor()) == ["fidelity.texture"]
    assert REGISTRY["star-elongation"].missing(Poor()) == ["shapes", "tracking"]


def test_gaps_in_the_chart_are_the_numbers_that_are_missing(small_samples):
    flats = open_folder(small_samples, progress=False).flat
    codes = fidelity.count_codes(course.simulate_firmware(flats, "red multiplied", 1.25), progress=False)
    drawn = charts.missing_codes(codes, fidelity.missing_codes(codes))
    rows = [one for one in drawn[0] if isinstance(one, hv.Curve) and one.label == "R"]
    heights = rows[0].dimension_values(1) - 3  # red is the top row
    assert np.count_nonzero(heights[::2] == 0) == pytest.approx(48 / 5, abs=1)


def test_no_tracks_and_no_limit_are_drawn_too(result):
    noise = np.random.default_rng(1).normal(600, 4, (6, 64, 64)).round().astype("uint16")
    cube = make_cube(noise, cfa_pattern="mono", kind="dark", iso=100, exposure=60.0)
    found = pixels.find_cosmic_rays(cube, progress=False)
    labels = [one for one in charts.cosmic_rays(found)[0] if isinstance(one, hv.Labels)]
    assert [one.dimension_values(2).tolist() for one in labels] == [["no tracks"]]
    open_ended = plan.plan_subs(result.sensor, result.background)
    labels = [one.label for one in charts.sub_length(open_ended)[0]]
    assert "the mount's limit" not in labels
