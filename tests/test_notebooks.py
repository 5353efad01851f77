"""The course, executed top to bottom on the samples as a reader would."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def notebook_id(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_committed_without_outputs(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_reads_as_a_course(path):
    cells = nbformat.read(path, 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert cells[0].source.startswith("# ")
    headings = re.findall(r"^## (.+)$", text, re.M)
    for station in ("question", "prediction", "measurement", "learned"):
        assert any(station in heading.lower() for heading in headings), f"no heading tells of the {station}"
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "hv.extension(" in code
    assert "inline=True" in code, "without inline=True nothing shows when there is no network"
    assert not re.search(r"^\s*(def|class) ", code, re.M), "what a notebook defines belongs into the package"
    for link in re.findall(r"\]\(([\w./-]+\.(?:ipynb|md))\)", text):
        assert (path.parent / link).exists(), f"{link} leads nowhere"


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_id)
def test_runs_top_to_bottom_and_says_nothing_alarming(path, samples):
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text, output.text
                assert "Traceback" not in output.text, output.text
