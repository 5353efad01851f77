"""The notebooks on other people's folders: each runs to its end, or says in a sentence what the folder lacks."""

import ast
import re
from pathlib import Path

import nbformat
import panel as pn
import pytest

from workbench.core.errors import WorkbenchError
from workbench.simulate.capture import Batch, cooled, smart_telescope, write_frames
from workbench.simulate.sky import make_sky

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))[:15]  # the last is on one real night
SHAPE = (192, 256)
LIGHTS = [Batch("light", 4, 60.0)]
CALIBRATION = [
    Batch("bias", 4, 0.0), Batch("dark", 4, 60.0), Batch("flat", 4, 1.0, lamp=0.5), Batch("flat", 2, 2.0, lamp=0.25),
]  # fmt: skip
FOLDERS = {
    "mono": (
        cooled(SHAPE), [*CALIBRATION, *(Batch("dark", 3, 300.0, temperature=warm) for warm in (0.0, 10.0)), *LIGHTS],
    ),
    "colour": (smart_telescope(SHAPE), [*CALIBRATION, *LIGHTS]),
    "lights-alone": (smart_telescope(SHAPE), LIGHTS),
}  # fmt: skip
OF_COLOUR = ("02", "03", "05", "06", "07", "12", "14")  # where it matters; the samples are of a mosaic, too
LACKS = r"has no (bias|dark|flat|bias, flat or dark) frames .*\(it has 4 light\); put (them|frames) into .* named"
FEW = "only . unsaturated stars can be measured in all channels, 5 are needed"
ENDS = {  # with what the folder lacks, in words
    ("mono", "12"): "a mono picture has no white balance",
    ("colour", "05"): "these darks are of one temperature; shoot some",
    ("colour", "12"): FEW,
    ("lights-alone", "12"): FEW,
    ("lights-alone", "13"): "^$",
}


@pytest.fixture(scope="module", params=list(FOLDERS))
def folder(request, tmp_path_factory):
    """Frames of a cooled mono camera, of one with a mosaic (12 bits in 16), and the lights of a smart telescope."""
    root = tmp_path_factory.mktemp("frames") / request.param
    camera, batches = FOLDERS[request.param]
    sky = make_sky(SHAPE, stars=60, faintest=100.0, brightest=1500.0, step=14.0, seed=3)
    write_frames(root, camera, batches, program="asiair", sky=sky, seed=3)
    return root


def run(path, folder):
    """Run a notebook's cells as a reader would who has set the folder, and draw what they show."""
    names = {}
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code":
            continue
        source = re.sub(r"^folder = wb\.sample_folder\(\)", f"folder = {str(folder)!r}", cell.source, flags=re.M)
        body = ast.parse(re.sub(r"^(hv|pn)\.extension\(.*\)$", "", source, flags=re.M)).body
        shown = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), path.name, "exec"), names)
        result = eval(compile(ast.Expression(shown.value), path.name, "eval"), names) if shown else None
        if isinstance(result, pn.viewable.Viewable):
            result.get_root()
        elif hasattr(result, "_repr_html_"):
            result._repr_html_()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_or_says_what_is_missing(path, folder, tmp_path, monkeypatch):
    """Warnings of numpy are errors here as everywhere in the tests."""
    if folder.name == "colour" and path.stem[:2] not in OF_COLOUR:
        return
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    said = ""
    try:
        run(path, folder)
    except WorkbenchError as problem:
        (said,) = problem._render_traceback_()  # what JupyterLab shows
    alone = LACKS if folder.name == "lights-alone" else "^$"
    assert re.search(ENDS.get((folder.name, path.stem[:2]), alone), said)
    assert "\n" not in said
