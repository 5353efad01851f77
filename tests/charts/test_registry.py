"""The blog's charts: all there, in order, each drawn by both backends with its caption."""

import dataclasses
import re
from types import SimpleNamespace

import pytest

from tests.charts.drawn import check_drawn
from workbench import charts, export
from workbench.charts import registry
from workbench.charts.registry import REGISTRY, select
from workbench.core.errors import WorkbenchError
from workbench.core.values import value_text

BLOG = (
    "shot-noise-demo", "shot-noise-snr", "ccd-vs-cmos", "read-noise-vs-iso", "ptc", "iso-to-gain",
    "dark-current-vs-time", "dark-shot-noise-histogram", "dark-current-vs-temperature", "dcnu-histogram",
    "hot-pixels", "vignette", "dark-subtraction",
)  # fmt: skip
MEASURED = [name for name in BLOG if REGISTRY[name].needs]


def test_the_blogs_charts_are_all_there():
    assert [name for name in REGISTRY if name in BLOG] == list(BLOG)
    assert all(charts.REGISTRY[name].id == name for name in BLOG)


@pytest.mark.parametrize("name", MEASURED)
def test_captions_say_whose_data_it_is(result, name):
    caption, alt = REGISTRY[name].caption(result)
    assert "Simulated data: NIKON D7000 (simulated); 8 bias frames, 20 flats, 8 darks, 3 lights." in caption
    assert len(alt) > 60
    assert "nan" not in caption.lower().replace("nano", "")
    real = dataclasses.replace(result, simulated=False, camera="NIKON D7000")
    assert "Real data: NIKON D7000; 8 bias" in REGISTRY[name].caption(real).text


def test_captions_give_the_fit_results(result):
    law = result.dark_law
    doubling = value_text(float(law.doubling_temperature), float(law.doubling_temperature_error), "K")
    assert doubling in REGISTRY["dark-current-vs-temperature"].caption(result).text
    unity = value_text(float(result.unity.unity_gain_iso), float(result.unity.unity_gain_iso_error))
    assert f"ISO {unity}" in REGISTRY["iso-to-gain"].caption(result).text
    assert (
        f"KS distance {result.dark_noise.attrs['ks_distance']:.4f}"
        in REGISTRY["dark-shot-noise-histogram"].caption(result).text
    )


def test_what_is_missing_is_named_with_what_to_shoot(result):
    bare = dataclasses.replace(result, dark_law=None)
    chart = REGISTRY["dark-current-vs-temperature"]
    assert chart.missing(bare) == ["dark_law"]
    assert "two or more sensor temperatures" in chart.shoot
    assert all(one.shoot for one in REGISTRY.values() if one.needs)


def test_select_refuses_a_name_it_does_not_know():
    assert [chart.id for chart in select(["ptc", "vignette"])] == ["ptc", "vignette"]
    with pytest.raises(WorkbenchError, match=r"no chart 'pct'; did you mean ptc\? The charts are shot-noise-demo, "):
        select(["pct"])


ALL = list(REGISTRY)
WITHOUT_UNIT = {
    "brightness shown",
    "colour",
    "ISO",
    "signal to noise",
    "pixels",
    "x",
    "y",
    "x1",
    "y1",
    "note",
    "how often it occurs",
    "correlation",
    "part",
    "noise power over that of white noise",
    "bright pixels",
    "pixels of an event",
    "events",
    "frames stacked",
    "kind",
    "longest over shortest axis of the stars",
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_both_backends_draw_all_of_each_chart_with_units(measured, name):
    drawn = REGISTRY[name].draw(measured(name))
    check_drawn(drawn)
    exposure = {"exposure"} if name == "shot-noise-demo" else set()  # its unit is one exposure
    for panel in drawn:
        for part in panel:
            for dim in part.dimensions():
                bare = dim.name.removesuffix(" error").removesuffix(" upper")
                bare = "unit in the name" if bare.startswith("√ of the charge in ") else bare
                assert dim.unit or bare in WITHOUT_UNIT | exposure | {"unit in the name"}, f"{dim.name} has no unit"


@pytest.mark.parametrize("name", ALL)
def test_each_has_a_caption_and_an_alternative(measured, name):
    found = measured(name)
    text, alt = REGISTRY[name].caption(found)
    kind = {"bias": "bias frames", "light": "lights"}
    counts = dict(found.frame_counts)
    if REGISTRY[name].needs:
        first = next(iter(counts))
        assert f"Simulated data: NIKON D7000 (simulated); {counts[first]} {kind[first]}" in text
    assert "nan" not in re.findall(r"[a-z]+", text.lower())
    assert len(alt) > 40
    assert text.endswith(".")


def test_charts_that_cost_time_are_drawn_only_when_asked_for():
    asked = {"missing-codes", "noise-spectrum", "hot-pixel-filter", "cosmic-rays", "sub-length", "star-elongation"}
    asked |= {"pixel-noise", "dark-law", "fixed-pattern", "spectrogram", "uniformity", "defects"}
    assert asked == set(REGISTRY) - {chart.id for chart in select()}
    assert [chart.id for chart in select(["sub-length"])] == ["sub-length"]


def test_missing_pieces_are_named():
    nothing = SimpleNamespace(lights=None, fidelity=None)
    for chart in REGISTRY.values():
        assert chart.missing(nothing) == list(chart.needs)
    assert REGISTRY["noise-spectrum"].needs == ("fidelity.texture",)
    assert REGISTRY["star-elongation"].needs == ("shapes", "tracking")
    assert all("lights" in REGISTRY[name].shoot for name in ("flat-correction", "snr-vs-frames", "rejection"))


def test_each_is_written_in_every_form(result, card, lights, tmp_path):
    """A few of them here; the test of the site holds the others."""
    names = {"card": ["cosmic-rays"], "result": ["linearity"], "lights": ["flat-correction"]}
    for key, found in (("card", card), ("result", result), ("lights", lights)):
        written = export.write_charts(found, tmp_path, only=names[key], progress=False)
        assert not written.not_drawn
        for name in names[key]:
            for ending in ("png", "svg", "html", "txt"):
                assert (tmp_path / f"{name}.{ending}").stat().st_size > 100
            assert (tmp_path / f"{name}.html").stat().st_size < 2_000_000
            assert list(tmp_path.glob(f"{name}*.csv"))


def test_a_piece_may_lie_deep_or_be_computed():
    found = SimpleNamespace(lights=SimpleNamespace(pair=3, residuals=lambda: 4))
    assert [registry.piece(found, name) for name in ("lights.pair", "lights.residuals", "lights.trial", "x.y")] == [
        3, 4, None, None,
    ]  # fmt: skip
