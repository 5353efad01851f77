"""Run every notebook in JupyterLab and take pictures of it: python -m tests.browser.screenshots OUT [NOTEBOOK ...]."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

from .jupyter import CHROMIUM_ARGUMENTS, Lab, jupyter_lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
WIDTH, HEIGHT = 1400, 1000


def take(out: Path, names: list[str]) -> int:
    """Take the pictures; returns how many notebooks printed errors or asked for the network."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("the program chromium is not installed")
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        folder = Path(scratch) / "notebooks"
        shutil.copytree(NOTEBOOKS, folder)
        with jupyter_lab(folder, Path(scratch) / "jupyter") as address:
            for path in sorted(folder.glob("*.ipynb")):
                if names and path.stem not in names:
                    continue
                with playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS) as browser:
                    lab = Lab(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}), address)
                    lab.open(path.name)
                    started = time.monotonic()
                    lab.run_all(sum(cell.cell_type == "code" for cell in nbformat.read(path, 4).cells))
                    seconds = time.monotonic() - started
                    (out / path.stem).mkdir(parents=True, exist_ok=True)
                    for number in lab.walk():
                        lab.page.screenshot(path=out / path.stem / f"{number:02d}.png")
                    problems = [*lab.errors(), *lab.refused, *lab.complaints]
                wrong += bool(problems)
                print(f"{path.stem}: ran in {seconds:.0f} s", *problems, sep="\n  ")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(take(Path(sys.argv[1]), sys.argv[2:]))
