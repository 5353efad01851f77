"""docs/blog.md: every chart of the registry and every notebook has its place under the blog's topics."""

import re
from pathlib import Path

from workbench.charts.registry import REGISTRY

ROOT = Path(__file__).parent.parent
ROWS = [line.split("|")[1:-1] for line in (ROOT / "docs" / "blog.md").read_text().splitlines() if line.startswith("| ")]


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
