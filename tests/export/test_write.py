"""The charts as files: every form of each, readable without a network, whole or not at all."""

import dataclasses
import html
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench.charts.registry import REGISTRY
from workbench.core.errors import WorkbenchError
from workbench.core.parallel import in_background, machine_share
from workbench.export import write_charts

BLOG = (
    "shot-noise-demo", "shot-noise-snr", "ccd-vs-cmos", "read-noise-vs-iso", "ptc", "iso-to-gain",
    "dark-current-vs-time", "dark-shot-noise-histogram", "dark-current-vs-temperature", "dcnu-histogram",
    "hot-pixels", "vignette", "dark-subtraction",
)  # fmt: skip


@pytest.mark.parametrize("name", BLOG)
def test_png_is_1600_wide_and_carries_its_caption(folder, result, name):
    with Image.open(folder / f"{name}.png") as picture:
        assert picture.width == 1600
        assert 400 < picture.height < 1400
        assert picture.info["Description"] == REGISTRY[name].caption(result).text
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20  # something is drawn


@pytest.mark.parametrize("name", BLOG)
def test_svg_is_sound_and_described(folder, result, name):
    text = (folder / f"{name}.svg").read_text()
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img"
    tags = {child.tag.split("}")[1]: child.text for child in root}
    assert tags["title"] == REGISTRY[name].title
    assert tags["desc"] == REGISTRY[name].caption(result).alt
    assert not re.search(r'href="(?!#|data:)', text)


@pytest.mark.parametrize("name", BLOG)
def test_page_is_small_needs_no_network_and_says_its_caption(folder, result, name):
    path = folder / f"{name}.html"
    assert path.stat().st_size < 2_000_000
    text = path.read_text()
    own = html.unescape(re.sub(r"<script[ >].*?</script>", "", text, flags=re.DOTALL))
    assert not re.search(r'(?:src|href)="(?!data:)', own)
    assert "<script src" not in text
    caption, alt = REGISTRY[name].caption(result)
    assert caption in own
    assert alt in own


@pytest.mark.parametrize("name", sorted(set(BLOG) - {"ccd-vs-cmos", "dark-subtraction"}))
def test_csv_holds_what_is_plotted_with_units(folder, result, name):
    table = pd.read_csv(folder / f"{name}.csv", comment="#")
    assert table.columns[0] == "series"
    assert len(table) > 5
    if REGISTRY[name].needs:
        assert any("[" in column for column in table.columns[1:])
    first = (folder / f"{name}.csv").read_text().splitlines()[0]
    assert REGISTRY[name].caption(result).text.startswith(first.removeprefix("# "))


def test_csv_numbers_are_the_measured_ones(folder, result):
    table = pd.read_csv(folder / "iso-to-gain.csv", comment="#")
    shown = table[(table.series == "G1") & table["gain [e⁻/ADU]"].notna()]
    one = result.gain.sel(channel="G1")
    np.testing.assert_allclose(shown["ISO"], one.iso)
    np.testing.assert_allclose(shown["gain [e⁻/ADU]"], one.gain, rtol=1e-7)
    np.testing.assert_allclose(shown["gain error [e⁻/ADU]"], one.gain_error, rtol=1e-7)


def test_pictures_come_as_tables_of_their_own(folder, result):
    values = np.loadtxt(folder / "vignette-picture.csv", delimiter=",")
    np.testing.assert_allclose(values, 100 * result.vignetting.illumination, rtol=1e-4)
    for name in ("before", "subtracted", "after"):
        assert np.loadtxt(folder / f"dark-subtraction-{name}.csv", delimiter=",").shape == (96, 96)
    assert "[e⁻]" in (folder / "dark-subtraction-after.csv").read_text().split("one line a row")[0]


def test_the_diagram_has_no_numbers(folder):
    assert not (folder / "ccd-vs-cmos.csv").exists()


def test_index_links_every_file(folder):
    links = re.findall(r'(?:href|src)="([^"#]+)"', (folder / "index.html").read_text())
    links = {link for link in links if not link.startswith("data:")}
    assert {f"{name}{ending}" for name in BLOG for ending in (".html", ".embed.html", ".js", ".png")} <= links
    assert all((folder / link).is_file() for link in links)


def test_what_cannot_be_drawn_is_said_with_what_to_shoot(result, tmp_path):
    bare = dataclasses.replace(result, dark_law=None, vignetting=None)
    written = write_charts(bare, tmp_path, only=["vignette", "dark-current-vs-temperature"], progress=False)
    assert written.files == {}
    assert "flats of an evenly lit field" in written.not_drawn["vignette"]
    assert "two or more sensor temperatures" in written.not_drawn["dark-current-vs-temperature"]
    assert list(tmp_path.iterdir()) == []


def test_the_index_says_what_is_missing(tmp_path):
    nothing = SimpleNamespace()
    written = write_charts(nothing, tmp_path, progress=False)
    assert set(written.files) == {"shot-noise-demo", "ccd-vs-cmos", "ptc-demo", "rejection-demo"}
    assert "The photon transfer curve: not drawn" in (tmp_path / "index.html").read_text()


def test_a_chart_that_cannot_be_drawn_does_not_stop_the_others(result, tmp_path):
    nameless = dataclasses.replace(result, gain=result.gain.assign_coords(iso=[np.nan, np.nan]))
    written = write_charts(nameless, tmp_path, only=["iso-to-gain", "ccd-vs-cmos"], progress=False)
    assert "state no ISO" in written.not_drawn["iso-to-gain"]
    assert "ccd-vs-cmos" in written.files


def test_the_same_result_gives_the_same_files_in_two_processes_too(folder, result, tmp_path):
    with machine_share(threads=2), in_background(process=True) as start:
        write_charts(result, tmp_path, only=["dcnu-histogram"], progress=False, start=start)
    for ending in ("png", "svg", "csv", "txt"):
        again = (tmp_path / f"dcnu-histogram.{ending}").read_bytes()
        assert again == (folder / f"dcnu-histogram.{ending}").read_bytes(), ending


def test_an_unknown_chart_is_refused_before_anything_is_written(result, tmp_path):
    with pytest.raises(WorkbenchError, match="no chart 'iso'"):
        write_charts(result, tmp_path / "new", only=["iso"], progress=False)
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_is_named(result, tmp_path):
    (tmp_path / "charts").write_text("not a folder")
    with pytest.raises(WorkbenchError, match="charts: cannot be made a folder"):
        write_charts(result, tmp_path / "charts", progress=False)


def test_a_file_is_whole_or_as_before(result, tmp_path, monkeypatch):
    write_charts(result, tmp_path, only=["ptc"], progress=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.core.files.os.replace", fail)
    with pytest.raises(WorkbenchError, match="cannot be written .No space left on device.; choose another folder"):
        write_charts(result, tmp_path, only=["ptc"], progress=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
