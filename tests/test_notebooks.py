"""The course, executed top to bottom on the samples as a reader would."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from course_pages import execute

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STATIONS = ("question", "prediction", "measurement", "learned", "exercises", "next")
LIVE = r"pn\.widgets\.|\w+_explorer\(|chart_browser\(|shot_noise_demo\("
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


def notebook_id(path: Path) -> str:
    return path.stem


def cells_of(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == kind]


def words_of(path: Path) -> str:
    return "\n".join(cells_of(path, "markdown"))


def code_of(path: Path) -> str:
    return "\n".join(cells_of(path, "code"))


def sections_of(path: Path) -> dict[str, str]:
    """The notebook's text and code under each of its stations; what stands before the first is under ``""``."""
    sections, here = {"": ""}, ""
    for cell in nbformat.read(path, 4).cells:
        found = re.match(r"## (.+)", cell.source) if cell.cell_type == "markdown" else None
        found = found or (re.search(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else None)
        if found:
            here = next((name for name in STATIONS if name in found[1].lower()), found[1])
        sections[here] = sections.get(here, "") + "\n" + cell.source
    return sections


def shown_by(cell: str) -> str:
    """The function whose result a cell shows, if it ends with a call."""
    *_, last = ast.parse(cell).body or [None]
    return ast.unparse(last.value.func) if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call) else ""


def calls_of(path: Path, name: str) -> list[ast.Call]:
    """Every call of ``course.<name>``."""
    return [
        node
        for node in ast.walk(ast.parse(code_of(path)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"course.{name}"
    ]


def test_the_course_is_complete_and_listed_wherever_it_is_listed():
    names = [path.stem for path in NOTEBOOKS]
    assert [name[:2] for name in names] == [f"{number:02d}" for number in range(17)]
    row = re.compile(r"^\| \[([\w-]+)\]\((?:notebooks/)?\1\.ipynb\) \| (.+) \|$", re.M)
    in_start = row.findall(words_of(NOTEBOOKS[0]))
    in_readme = row.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [name for name, _ in in_start] == names[1:]
    assert [name for name, _ in in_readme] == names
    assert in_readme[1:] == in_start, "the same questions in both"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_committed_without_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_opens_with_what_it_is_about_and_one_folder_cell(path):
    first, *_ = cells_of(path, "markdown")
    assert first.startswith("# ")
    assert "minutes" in first, "how long it takes"
    assert "glossary" in first
    imports, folder, *rest = cells_of(path, "code")
    assert 'hv.extension("bokeh", inline=True' in imports
    assert "pn.extension(inline=True)" in imports, "without inline=True nothing shows when there is no network"
    assert re.search(
        r'^folder = (wb\.sample_folder|course\.real_night)\((?:"\w+")?\)  # or "path/to/your', folder, re.M
    )
    assert "sample_folder" not in "\n".join(rest), "one cell switches to the reader's own frames"
    assert "**simulated**" in sections_of(path)[""], "what the samples are is said where they are chosen"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_goes_from_question_to_exercises(path):
    sections = sections_of(path)
    assert [name for name in sections if name in STATIONS] == list(STATIONS)
    assert "?" in sections["question"].splitlines()[1], "the question stands in its heading"
    assert sections["prediction"].count("course.predict(") == code_of(path).count("course.predict(") == 1
    assert sections["measurement"].count("prediction.against(") == 1, "the prediction is set against the measurement"
    assert len(re.findall(r"^- ", sections["learned"], re.M)) >= 3
    told = re.findall(r'course\.exercise\("(\d\d) [^"]+"\)', sections["exercises"])
    assert told == [path.stem[:2]] * (5 if path.stem.startswith("09") else 2)  # 09 has a folder with faults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_every_figure_has_a_caption_and_says_whose_data_it_shows(path):
    figures = calls_of(path, "figure")
    assert figures
    assert re.search(LIVE, sections_of(path)["measurement"]), "no figure can be changed"
    for cell in cells_of(path, "code"):
        bare = re.fullmatch(r"(viewer|wb\.charts|wb\.app)\.\w+(?<!folder_overview)(?<!live_text)", shown_by(cell))
        assert not bare, f"{bare[0]} is shown without a caption"
    for call in figures:
        caption = ast.unparse(call.args[1])
        assert len(caption) > 20, f"{caption} is no caption"
        if "A drawing, not a measurement" not in caption:
            assert "camera" in {keyword.arg for keyword in call.keywords}, f"whose data: {caption}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_code_is_short_or_folded(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code" and "hv.extension" not in cell.source and "sample_folder" not in cell.source:
            folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert folded == ("hide-input" in cell.metadata.get("tags", [])), "JupyterLab and the site fold the same"
            assert folded or len(cell.source.splitlines()) <= 8, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_defines_nothing(path):
    assert not re.search(r"^\s*(def|class) ", code_of(path), re.M), "what a notebook defines belongs into the package"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_links_lead_somewhere_and_on_to_the_next(path):
    for link in re.findall(r"\]\(([\w./-]+\.(?:ipynb|md))\)", words_of(path)):
        assert (path.parent / link).exists(), f"{link} leads nowhere"
    following = NOTEBOOKS[(NOTEBOOKS.index(path) + 1) % len(NOTEBOOKS)]
    leads = re.findall(r"\[([\w-]+)\]\(([\w-]+\.ipynb)\)", sections_of(path)["next"])
    assert leads[0] == (following.stem, following.name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_a_word_in_bold_is_in_the_glossary_or_names_a_control(path):
    terms = {term.lower() for term in re.findall(r"\*\*(.+?)\*\*", GLOSSARY)}
    labels = {re.sub(r" \[.*", "", label) for label in re.findall(r'label="([^"]+)"', code_of(path))}
    first, *others = cells_of(path, "markdown")
    for bold in re.findall(r"\*\*(.+?)\*\*", first.replace("Words in **bold**", "").replace("words in **bold**", "")):
        others.append(f"**{bold}**")
    for bold in re.findall(r"\*\*(.+?)\*\*", "\n".join(others)):
        word = " ".join(bold.split()).lower()
        if len(word.split()) > 2 or word in labels:
            continue  # what was found, in a few words; or a control
        forms = {word, word.removesuffix("s"), word.removesuffix("ed"), re.sub("ies$", "y", word), word.split()[0]}
        assert forms & terms or f"({word})" in GLOSSARY, f"{bold!r} stands in bold but not in the glossary"


def test_what_a_notebook_takes_an_earlier_one_has_kept():
    there: set[str] = set()
    for path in NOTEBOOKS:
        takes = [call.args[0].value for call in calls_of(path, "kept")]
        keeps = [call.args[0].value for call in calls_of(path, "keep")]
        masters = [call.args[0].value for call in calls_of(path, "kept_folder")]
        stacks = ["stack"] if "open_linear_stack(folder, keep=True)" in code_of(path) else []
        for name in takes:
            assert name in there, f"{path.stem} asks for {name!r}, which no earlier notebook keeps"
        for call in calls_of(path, "kept"):
            assert [keyword.arg for keyword in call.keywords] == ["otherwise"], "each notebook stands alone"
        there |= {*keeps, *masters, *stacks}
    assert there >= {"read noise", "gain", "dark current", "masters", "stack", "sensor"}


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_runs_top_to_bottom_and_says_nothing_alarming(path, samples, request, monkeypatch):
    if "course.real_night()" in code_of(path):
        monkeypatch.setenv("WORKBENCH_REAL_DATA", str(request.getfixturevalue("real_data")))
    notebook = execute(path, samples)  # kept for the site
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text, output.text
                assert "Traceback" not in output.text, output.text
            assert "xr-wrap" not in output.get("data", {}).get("text/html", ""), f"no table for a reader: {cell.source}"
    # what `inline=True` embeds once is 6 MB; a notebook saved with its outputs may have 5 MB besides
    assert len(nbformat.writes(notebook).encode()) < 11e6
