"""The course as pages: notebooks are executed once, and what they show is drawn without Python.

A notebook saved as it ran would carry 3 MB of scripts, and controls that nothing answers.  Here each figure is data in
the page, drawn by the charts' own script in light or dark as it comes near the view; controls that need Python are
disabled and say so, and the demonstrations that need none stand below the figure that they belong to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from filelock import FileLock
from nbclient import NotebookClient

from workbench.charts import theme

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "build" / "notebooks"
NEEDS_PYTHON = "These controls need the running notebook (<code>make lab</code>)."
DEMONSTRATION_OF = {  # a figure with controls that need Python: the demonstration that needs none
    "course.ptc_explorer(": "ptc-demo",
    "course.pixel_explorer(": "rejection-demo",
    "course.stretch_explorer(": "stretch-demo",
    "course.sub_length_explorer(": "sub-length-demo",
}
_DOCUMENT = re.compile(r"var docs_json = (\{.*?\});\n\s*var render_items = (\[.*?\]);\n", re.S)
_WIDGETS = re.compile(r"(Slider|Select|Button|Group|Input|Spinner|Toggle|Picker|Checkbox|Switch|Tabulator)$")
_FOREIGN = re.compile(r"https?://")


def sources_digest() -> str:
    """Return a digest of everything that an executed notebook depends on, but for the notebook itself."""
    digest = hashlib.sha256(" ".join(version(name) for name in ("bokeh", "holoviews", "panel")).encode())
    for folder, kinds in ((ROOT / "workbench", ("*.py", "*.js")), (NOTEBOOKS / "course", ("*.py", "*.toml"))):
        for path in sorted(path for kind in kinds for path in folder.rglob(kind)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def execute(path: Path, samples: Path) -> nbformat.NotebookNode:
    """Execute a notebook on the samples as a reader would, with nothing kept from another; keep what it showed.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    with _claimed(path):
        return _execute(path, samples)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Let one process at a time execute a notebook; another one waits for what it keeps."""
    EXECUTED.mkdir(parents=True, exist_ok=True)
    with FileLock(EXECUTED / f".{path.stem}.lock"):
        yield


def _execute(path: Path, samples: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as cache:
        (Path(cache) / "samples").symlink_to(samples)
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
        )
        client.execute(env=os.environ | {"WORKBENCH_CACHE": cache})
    notebook.metadata["made_from"] = _made_from(path)
    part = EXECUTED / f".{path.name}.{os.getpid()}"
    nbformat.write(notebook, part)
    part.replace(EXECUTED / path.name)
    return notebook


def _made_from(path: Path) -> str:
    return hashlib.sha256(path.read_bytes() + sources_digest().encode()).hexdigest()


def executed(path: Path, samples: Path, stale: bool = False) -> nbformat.NotebookNode:
    """Return a notebook as it ran, executed only if that has not been done since it or the package changed.

    Parameters
    ----------
    stale
        Take what was executed before any change, too: for work on the pages.
    """
    with _claimed(path):
        there = EXECUTED / path.name
        if there.exists():
            notebook = nbformat.read(there, 4)
            if stale or notebook.metadata.get("made_from") == _made_from(path):
                return notebook
        return _execute(path, samples)


def as_page(notebook: nbformat.NotebookNode, charts: Path) -> nbformat.NotebookNode:
    """Return an executed notebook as a page of the site shows it.

    Parameters
    ----------
    charts
        The folder that `workbench.export.write_charts` wrote, with the demonstrations.
    """
    notebook.metadata.pop("made_from", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
        cell.outputs = [shown for output in cell.outputs if (shown := _shown(output)) is not None]
        for call, demonstration in DEMONSTRATION_OF.items():
            if call in cell.source and (charts / f"{demonstration}.embed.html").exists():
                cell.outputs.append(_html(embedded(charts, demonstration, "../charts/")))
    return notebook


def _shown(output: Any) -> Any:
    """Return an output as the page shows it; None for progress, and for what only loads scripts."""
    data = output.get("data")
    if data is None:
        return output if output.output_type == "error" or output.get("name") == "stdout" else None
    text = data.get("text/html", "")
    found = _DOCUMENT.search(text)
    if found:
        return _figure(json.loads(found[1]), json.loads(found[2]))
    loads = any("holoviews_load" in kind or "widget-view" in kind for kind in data)
    if loads or "esms-options" in text or set(data) == {"application/vnd.holoviews_exec.v0+json"}:
        return None
    return _html(text) if text else output if data else None


def _html(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/html": text})


def _objects(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every model of a document's JSON."""
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield part
        for value in part.values():
            yield from _objects(value)
    elif isinstance(part, list):
        for value in part:
            yield from _objects(value)


def _figure(documents: dict[str, Any], items: list[dict[str, Any]]) -> Any:
    """Return a figure as data for the page's script; None where there is nothing to see."""
    disabled = False
    for document in documents.values():
        document["roots"] = [root for root in document["roots"] if not root["name"].startswith("panel.models.comm_")]
        document.pop("config", None)
        for model in _objects(document["roots"]):
            attributes = model.setdefault("attributes", {})
            _set_colours(model["name"], attributes)
            if model["name"] == "ImportedStyleSheet" and _FOREIGN.match(attributes.get("url", "")):
                model["name"], model["attributes"] = "InlineStyleSheet", {"css": ""}
            classes = attributes.get("css_classes", [])
            if "with-python" in classes or "without-python" in classes:  # what a question shows with and without
                attributes["visible"] = "without-python" in classes
            elif _WIDGETS.search(model["name"]) and not _answers_itself(attributes):
                attributes["disabled"] = disabled = True
    if all(document["roots"] == [] or _is_empty(document["roots"]) for document in documents.values()):
        return None
    place = "".join(
        f'<div id="{root}" data-root-id="{model}"></div>' for item in items for model, root in item["roots"].items()
    )
    data = json.dumps([documents, items], ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    note = f'<p class="needs-python">{NEEDS_PYTHON}</p>' if disabled else ""
    return _html(f'<div class="course-figure">{place}{note}<script type="application/json">{data}</script></div>')


def _set_colours(name: str, attributes: dict[str, Any]) -> None:
    """Set the colours that Bokeh would take for granted, as `workbench.export.pages.set_colours` does for models."""
    paper, ink = "#fffffe", theme.INK  # what equals Bokeh's default, #ffffff, could not be changed in the dark
    if name == "Figure":
        attributes["border_fill_color"] = paper
        if attributes.get("background_fill_color", "#ffffff") == "#ffffff":
            attributes["background_fill_color"] = paper
    elif name in ("Legend", "ColorBar"):
        attributes["background_fill_color"] = paper
        texts = ("label_text_color",) if name == "Legend" else ("major_label_text_color", "title_text_color")
        attributes.update(dict.fromkeys(texts, ink))
    elif name.endswith("Axis"):
        attributes["axis_label_text_color"] = attributes["major_label_text_color"] = ink


def _is_empty(roots: list[dict[str, Any]]) -> bool:
    return all(root["name"] == "panel.models.browser.BrowserInfo" for root in roots)


def _answers_itself(attributes: dict[str, Any]) -> bool:
    """Whether a control does something by itself: a script that is more than the link to its own label."""
    scripts = [
        model
        for kind in ("js_property_callbacks", "js_event_callbacks")
        for model in _objects(attributes.get(kind))
        if model["name"] == "CustomJS"
    ]
    return any("target.text = labels[source.value]" not in script["attributes"]["code"] for script in scripts)


def embedded(charts: Path, name: str, where: str) -> str:
    """Return the snippet of a chart or demonstration for a page whose charts are in the folder `where`."""
    snippet = (charts / f"{name}.embed.html").read_text(encoding="utf-8")
    snippet = re.sub(r'src="([\w.-]+)"', rf'src="{where}\1"', snippet)
    return re.sub(r"<!--.*?-->\s*", "", snippet, count=1, flags=re.S)
