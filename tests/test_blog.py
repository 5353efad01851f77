"""docs/blog.md, docs/blog/: each chart and notebook has its place; the chapters' charts exist, and their code runs."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from workbench.charts.registry import REGISTRY
from workbench.export import DEMONSTRATIONS

ROOT = Path(__file__).parent.parent
BLOG = (ROOT / "docs" / "blog.md").read_text()
TOPICS = BLOG.split("## Where")[0]  # the chapters have a table of their own
ROWS = [line.split("|")[1:-1] for line in TOPICS.splitlines() if line.startswith("| ")]


def test_every_chart_stands_under_its_topic():
    told = {name: topic.strip() for topic, _, charts in ROWS for name in re.findall(r"`([\w-]+)`", charts)}
    assert set(told) == set(REGISTRY)
    for name, topic in told.items():
        assert topic.startswith(REGISTRY[name].heading), f"{name} belongs under {REGISTRY[name].heading!r}"


def test_every_notebook_has_a_topic():
    named = {name for _, links, _ in ROWS for name in re.findall(r"notebooks/([\w-]+)\.ipynb", links)}
    assert named == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_what_notebooks_write_in_bold_as_a_term_is_in_the_glossary():
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    terms = {term.lower() for term in re.findall(r"\*\*([^*]+)\*\*", glossary)}
    for term in (
        "shot noise",
        "read noise",
        "gain",
        "black level",
        "dark current",
        "doubling temperature",
        "prnu",
        "dcnu",
    ):
        assert term in terms


CHAPTERS = sorted((ROOT / "docs" / "blog").glob("*.md"))
PLACES = {path.name: re.findall(r"<!-- chart: ([\w-]+) -->", path.read_text()) for path in CHAPTERS}


def code(chapter):
    """Run what a chapter shows; return its names."""
    text = (ROOT / "docs" / "blog" / chapter).read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)
    return names


def test_chapters_name_charts_that_exist_and_their_list_is_true():
    known = {*REGISTRY, "shot-noise-demo", *(demo.id for demo in DEMONSTRATIONS)}
    assert {name for places in PLACES.values() for name in places} <= known
    rows = re.findall(r"^\| \[.+\]\(blog/([\w-]+\.md)\) \|.+\| (.+) \|$", BLOG, re.M)
    listed = {name: re.findall(r"`([\w-]+)`", charts) for name, charts in rows}
    assert {name: sorted(charts) for name, charts in listed.items()} == {
        name: sorted(places) for name, places in PLACES.items()
    }


def test_the_flat_of_the_chapter_removes_the_shading_and_keeps_the_colours():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:60, :80]
    shade = 1 - 0.4 * ((y - 30) ** 2 + (x - 40) ** 2) / 2500
    lamp = np.tile([[0.5, 1.0], [1.0, 0.7]], (30, 40))
    flats = [rng.poisson(50_000 * lamp * shade) + 600.0 for _ in range(20)]
    flat = code("flat-field-corrections.md")["master_flat"](flats, [np.full(shade.shape, 600.0)] * 3)
    for place in np.ndindex(2, 2):
        plane = np.s_[place[0] :: 2, place[1] :: 2]
        assert flat[plane].mean() == pytest.approx(1)
        assert np.abs(flat[plane] / shade[plane] * shade[plane].mean() - 1).std() < 0.003


def test_triangles_of_the_chapter_match_stars_after_shift_and_rotation():
    rng = np.random.default_rng(5)
    stars = rng.uniform(0, 1000, (20, 2))
    turn = np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    order = rng.permutation(20)
    moved = (stars @ turn.T + [37, -12] + rng.normal(0, 0.1, stars.shape))[order]
    pairs = code("alignment.md")["match"](stars, moved)
    assert len(pairs) >= 15
    assert all(order[other] == one for one, other in pairs)


def test_sigma_clipping_of_the_chapter_keeps_the_satellite_as_it_claims():
    names = code("stacking.md")
    assert names["sigma_clip"](names["sky"]).all()
    many = np.append(np.random.default_rng(1).normal(100, 1, 30), 1e6)
    kept = names["sigma_clip"](many)
    assert not kept[-1]
    assert kept.sum() >= 28


def test_the_stretch_of_the_chapter_shows_the_sky_where_it_is_asked_to():
    rng = np.random.default_rng(7)
    image = rng.normal([20, 30, 25], 2, (80, 90, 3))
    image[40, 40] = [8000, 4000, 2000]
    shown = code("post-processing.md")["stretch"](image, 0, 5000, sky=0.1)
    assert np.median(shown.mean(axis=2)) == pytest.approx(0.1, abs=0.002)
    assert shown[40, 40, 0] == 1
    assert shown[10, 10] / shown[10, 10].sum() == pytest.approx(image[10, 10] / image[10, 10].sum(), rel=1e-6)


def test_chapters_are_written_with_the_snippets_and_their_files(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("blog", ROOT / "docs" / "blog.py")
    blog = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(blog)
    snippet = (
        '<!-- Put vignette.js into the folder of the page. -->\n<figure><script src="vignette.js"></script></figure>\n'
    )
    (tmp_path / "vignette.embed.html").write_text(snippet)
    (tmp_path / "vignette.js").write_text("draw()")
    written = blog.fill(tmp_path)
    assert [path.name for path in written] == [path.name for path in CHAPTERS]
    text = (tmp_path / "blog" / "flat-field-corrections.md").read_text()
    assert '<figure><script src="vignette.js"></script></figure>' in text
    assert "<!-- chart: vignette -->" not in text
    assert (tmp_path / "blog" / "vignette.js").read_text() == "draw()"
    assert "no chart flat-before-after" in capsys.readouterr().err
