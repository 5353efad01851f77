"""Build the site: `python docs/build_site.py [OUT] [--stale]` (`make site`) writes it to site/, without a network.

The pages of docs/, README, CHANGELOG and CONTRIBUTING, the executed course, the charts of the samples and the reference
from the docstrings are laid out in build/site-pages, and Sphinx (docs/conf.py) makes the site of them.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import ModuleType

import nbformat
from course_pages import NOTEBOOKS, ROOT, as_page, embedded, executed, sources_digest
from filelock import FileLock
from nbclient.exceptions import CellExecutionError
from PIL import Image

sys.path.insert(0, str(NOTEBOOKS))  # the course draws the chain

DOCS = ROOT / "docs"
PAGES = ROOT / "build" / "site-pages"
CHARTS = ROOT / "build" / "charts"
RENAMED = {"README.md": "start.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
THUMBNAIL = 480  # pixels wide
PICTURE_OF = {
    "ptc-demo": "ptc",
    "rejection-demo": "rejection",
    "stretch-demo": "stretch",
    "sub-length-demo": "sub-length",
}
ROOMS = (
    "ingest", "simulate", "sensor", "pixels", "fidelity", "stars", "align", "calibrate", "stack", "finish", "plan",
    "pipelines", "charts", "export", "app", "core",
)  # fmt: skip
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
_CHART = re.compile(r"<!-- chart: ([\w-]+) -->")


def place_of(path: PurePosixPath) -> PurePosixPath:
    """Return where a file of the repository stands among the pages: docs/ is their root."""
    if path.parts[0] == "docs":
        return PurePosixPath(*path.parts[1:])
    return PurePosixPath(RENAMED.get(str(path), path))


def moved_links(text: str, source: PurePosixPath) -> str:
    """Return a text of the repository with its relative links as they lead from its place among the pages.

    A file that is linked to but no page (a licence, a script) is laid next to the pages.
    """
    here = place_of(source).parent

    def moved(link: re.Match[str]) -> str:
        start, target, anchor, end = link.groups()
        path = PurePosixPath(os.path.normpath(source.parent / target))
        if path.parent == PurePosixPath("docs/charts") and (CHARTS / f"{path.stem}.embed.html").exists():
            return link[0]  # a page that `lay_gallery` writes
        if not (ROOT / path).is_file():
            raise SystemExit(f"{source}: the link to {target} leads to no file of the repository")
        place = place_of(path)
        if path.suffix not in (".md", ".ipynb") or path.parts[0] == "data-samples":
            lay(place, ROOT / path)
        return f"{start}{os.path.relpath(place, here)}{anchor or ''}{end}"

    return _LINK.sub(moved, text)


def lay(place: PurePosixPath, content: Path | str) -> None:
    """Put a page, or a file that pages use, into its place."""
    path = PAGES / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(content, encoding="utf-8")


def lay_texts() -> None:
    """Lay out what is written: docs/, README, CHANGELOG, CONTRIBUTING; a chapter's charts stand in it."""
    from course.chain import journey

    for path in [*DOCS.rglob("*.md"), *(ROOT / name for name in RENAMED)]:
        source = PurePosixPath(path.relative_to(ROOT).as_posix())
        text = moved_links(path.read_text(encoding="utf-8"), source)
        if not re.search(r"^# |^## ", text, re.M):  # a chapter of several places in the post has no heading of its own
            text = f"# {path.stem.replace('-', ' ').capitalize()}\n\n{text}"
        up = "../" * (len(place_of(source).parts) - 1)
        text = _CHART.sub(lambda place, up=up: _raw(embedded(CHARTS, place[1], f"{up}charts/")), text)
        lay(place_of(source), text.replace("<!-- journey -->", _raw(journey().data)))
    for path in DOCS.rglob("*.svg"):
        lay(place_of(PurePosixPath(path.relative_to(ROOT).as_posix())), path)


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html.strip()}\n```"


def lay_course(stale: bool) -> None:
    """Lay out the notebooks as they ran on the samples."""
    from workbench.simulate import sample_folder

    samples = sample_folder()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        try:
            notebook = as_page(executed(path, samples, stale), CHARTS)
        except CellExecutionError as problem:
            if problem.ename != "NoRealNightError":
                raise
            sys.stdout.write(f"{path.name} stands without its figures. {problem.evalue}\n")
            notebook = nbformat.read(path, 4)
        source = PurePosixPath("notebooks") / path.name
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = moved_links(cell.source, source)
        lay(source, nbformat.writes(notebook))


def draw_charts(stale: bool) -> None:
    """Draw every chart of the samples, unless they stand there as this package draws them."""
    import workbench as wb
    from workbench.charts.registry import REGISTRY

    made = CHARTS / ".made-from"
    digest = sources_digest()
    if made.exists() and (stale or made.read_text() == digest):
        return
    shutil.rmtree(CHARTS, ignore_errors=True)
    folder = wb.sample_folder(progress=False)
    frames = wb.open_folder(folder, progress=False)
    needs = {need for chart in REGISTRY.values() for need in chart.needs}
    with wb.core.parallel.in_background(process=True) as start:
        measured = wb.pipelines.characterize_with_lights(frames, needs, out=CHARTS, progress=False, start=start)
        wb.pipelines.show_warm_samples(measured)
        wb.export.write_charts(measured, CHARTS, progress=False, start=start)
    asked = [chart.id for chart in REGISTRY.values() if chart.asked and not chart.missing(measured)]
    inspected = wb.inspect(folder, progress=False)
    planned = wb.plan_night(folder, CHARTS / "sensor.json", progress=False)
    for result, names in ((measured, asked), (inspected, inspected.charts()), (planned, planned.charts())):
        if names:
            wb.export.write_charts(result, CHARTS, only=names, progress=False)
    made.write_text(digest)


def lay_gallery() -> None:
    """Lay out a page for each chart, and the gallery with their thumbnails."""
    from workbench.charts.registry import REGISTRY
    from workbench.export import DEMONSTRATIONS

    topics = (DOCS / "blog.md").read_text(encoding="utf-8").split("\n## ")[0]
    taught = re.findall(r"^\| .+? \| (.+?) \| (.+?) \|$", topics, re.M)
    sections: dict[str, list[str]] = {}
    drawn = []
    for chart in [*REGISTRY.values(), *DEMONSTRATIONS]:
        if not (CHARTS / f"{chart.id}.embed.html").exists():
            continue
        pictures = [CHARTS / f"{name}.png" for name in (PICTURE_OF.get(chart.id, chart.id), "snr-vs-frames")]
        picture = next(path for path in pictures if path.exists())
        _thumbnail(picture, PAGES / "charts" / f"thumbnail-{chart.id}.png")
        drawn.append(chart.id)
        live = " · *live*" if chart.id.endswith("-demo") else ""
        card = f":::{{grid-item-card}} {chart.title.rstrip('?')}{live}\n:link: {chart.id}\n:link-type: doc\n"
        card += f":img-top: thumbnail-{chart.id}.png\n:img-alt: {chart.title}\n:::"
        sections.setdefault(chart.heading, []).append(card)
        notebooks = [links for links, charts in taught if f"`{chart.id}`" in charts]
        lines = [f"# {chart.title}", _raw(embedded(CHARTS, chart.id, ""))]
        if notebooks:
            lines.append(f"Explained in {', '.join(notebooks)}.")
        files = [
            f"{chart.id}.{kind}" for kind in ("png", "svg", "csv", "txt") if (CHARTS / f"{chart.id}.{kind}").exists()
        ]
        downloads = [f'<a href="{name}">{name}</a>' for name in files]
        if downloads:
            lines.append(_raw(f'<p class="files">Files: {" · ".join(downloads)}</p>'))
        lay(PurePosixPath("charts") / f"{chart.id}.md", "\n\n".join(lines) + "\n")
    grids = [
        f"## {heading}\n\n::::{{grid}} 1 2 3 3\n:gutter: 3\n\n" + "\n\n".join(cards) + "\n\n::::"
        for heading, cards in sections.items()
    ]
    listed = "\n".join(drawn)
    contents = [
        (DOCS / "charts" / "index.md").read_text(encoding="utf-8"),
        *grids,
        f"```{{toctree}}\n:hidden:\n{listed}\n```",
    ]
    lay(PurePosixPath("charts/index.md"), "\n\n".join(contents) + "\n")


def _thumbnail(picture: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(picture) as image:
        small = image.convert("RGB").resize((THUMBNAIL, round(image.height * THUMBNAIL / image.width)), Image.LANCZOS)
        small.quantize(64).save(out, optimize=True)


def lay_reference() -> None:
    """Lay out the reference: the public face, and a page for each room."""
    import workbench

    own = [name for name in workbench.__all__ if not isinstance(getattr(workbench, name), ModuleType)]
    _lay_room(workbench, "workbench", own, "The public face: `import workbench as wb`.")
    for room in ROOMS:
        module = importlib.import_module(f"workbench.{room}")
        names = [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
        _lay_room(module, f"workbench.{room}", names)


def _lay_room(module: ModuleType, name: str, names: Iterable[str], words: str = "") -> None:
    import workbench

    documented = [one for one in names if inspect.getdoc(getattr(module, one)) and _directive(getattr(module, one))]
    at_the_top = [one for one in documented if module is not workbench and one in workbench.__all__]
    documented = [one for one in documented if one not in at_the_top]
    lines = [name, "=" * len(name), "", words or inspect.getdoc(module) or "", "", f".. currentmodule:: {name}", ""]
    if at_the_top:
        lines += ["On :doc:`the public face <workbench>`: " + ", ".join(f"``{one}``" for one in at_the_top) + ".", ""]
    lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {one}" for one in documented), ""]
    for one in documented:
        lines += [f".. {_directive(getattr(module, one))}:: {one}", ""]
    lay(PurePosixPath("api") / f"{name}.rst", "\n".join(lines))


def _directive(thing: object) -> str:
    """Return the directive that documents a thing; empty for a constant."""
    if isinstance(thing, type):
        return "autoexception" if issubclass(thing, Exception) else "autoclass"
    return "autofunction" if callable(thing) else ""


def lay_scripts(out: Path) -> None:
    """Put the scripts that all pages share into the site, once: Bokeh with what draws charts, and Panel."""
    import panel as pn
    from bokeh.resources import Resources

    panel_script = Path(pn.__file__).parent / "dist" / "panel.min.js"
    tables = Resources(mode="inline", components=["bokeh-tables"]).js_raw[0]
    (out / "charts" / "panel.js").write_text(f"{tables};\n{panel_script.read_text(encoding='utf-8')}", encoding="utf-8")


def build(out: Path, stale: bool = False) -> Path:
    """Build the site, and return its folder.

    Parameters
    ----------
    stale
        Take charts and executed notebooks as they are, whatever has changed since: for work on the pages.

    Raises
    ------
    SystemExit
        If a link leads nowhere, or Sphinx warns of anything.
    """
    PAGES.parent.mkdir(exist_ok=True)
    with FileLock(PAGES.parent / ".site.lock"):
        began = time.monotonic()
        shutil.rmtree(PAGES, ignore_errors=True)
        draw_charts(stale)
        lay_texts()
        lay_course(stale)
        lay_gallery()
        lay_reference()
        sys.stdout.write(f"pages laid out in {time.monotonic() - began:.0f} s\n")
        html = PAGES.parent / "html"  # MyST-NB writes the notebooks next to this folder
        for old in (out, html, PAGES.parent / "doctrees"):
            shutil.rmtree(old, ignore_errors=True)
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-j", "2", "-c", str(DOCS)]
        command += ["-d", str(PAGES.parent / "doctrees"), "-q", str(PAGES), str(html)]
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise SystemExit(done.returncode)
        shutil.move(html, out)
        for path in CHARTS.iterdir():
            if path.suffix in (".js", ".png", ".svg", ".csv", ".txt"):
                shutil.copyfile(path, out / "charts" / path.name)
        lay_scripts(out)
        (out / "_static" / "webpack-macros.html").unlink(missing_ok=True)  # a template of the theme's, no page
        sys.stdout.write(f"{out / 'index.html'}: built in {time.monotonic() - began:.0f} s\n")
    return out


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--stale"]
    build(Path(words[0]) if words else ROOT / "site", stale="--stale" in sys.argv)
