"""Pictures for people to look at: python -m tests.browser.screenshots OUT [notebooks|app|charts|NOTEBOOK ...].

Every notebook run in JupyterLab, a screen at a time, and once more after its main control was moved (a figure must then
show other numbers); every page of the app; the index of the charts; the latter two at the width of a desk and of a
phone, the index in light and dark.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from .controls import move_the_main_control
from .jupyter import Lab, jupyter_lab
from .watch import Watch, chromium

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
DESK, PHONE, HEIGHT = 1400, 390, 1000
PATIENCE = 300_000  # milliseconds


def of_notebooks(out: Path, names: list[str], program: str) -> int:
    """Take pictures of notebooks; returns how many printed errors or asked for the network."""
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "notebooks"
        # as a reader first opens them: nothing measured yet
        shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns("measured", ".ipynb_checkpoints"))
        with jupyter_lab(folder, Path(scratch) / "jupyter") as address:
            for path in sorted(folder.glob("*.ipynb")):
                if names and path.stem not in names:
                    continue
                with chromium(program) as browser:
                    lab = Lab(browser.new_page(viewport={"width": DESK, "height": HEIGHT}), address)
                    lab.open(path.name)
                    started = time.monotonic()
                    lab.run_all()
                    seconds = time.monotonic() - started
                    (out / path.stem).mkdir(parents=True, exist_ok=True)
                    for number in lab.walk(800):
                        lab.page.screenshot(path=out / path.stem / f"{number:02d}.png")
                    moved = move_the_main_control(lab, path.stem)
                    lab.page.screenshot(path=out / path.stem / "moved.png")
                    problems = [*lab.errors(), *lab.refused, *lab.complaints]
                wrong += bool(problems) or not moved
                result = "a control moved, a figure changed" if moved else "A CONTROL MOVED AND NO FIGURE CHANGED"
                print(f"{path.stem}: ran in {seconds:.0f} s; {result}", *problems, sep="\n  ", flush=True)
    return wrong


def of_the_app(out: Path, program: str) -> int:
    """Take pictures of every page of the app, after its work is done."""
    from workbench.simulate import sample_folder

    out.mkdir(parents=True, exist_ok=True)
    pages = {
        "Frames": {"": "What is there"},
        "Sensor": {"Measure the sensor": r"^done in"},
        "Charts": {"": "Gain against ISO"},
        "Live": {"": "Each light that arrives"},
        "Stack": {
            "Measure the lights": "lights are ticked",
            "Calibrate and stack": "lights stacked",
            "Measure the stars": "stars are measured",
        },
        "Pixels": {"Calibrate and align": "lights at column"},
        "Picture": {"Make the picture": "^Written:"},
    }
    with tempfile.TemporaryDirectory() as scratch, chromium(program) as browser:
        command = [sys.executable, "-m", "workbench.cli", "app", "--no-browser", "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"HOME": scratch})
        try:
            address = re.search(r"http://\S+", server.stdout.readline())[0]
            asked = urlencode({"folder": str(sample_folder()), "results": f"{scratch}/results"})
            complaints = []
            for width, scheme in ((DESK, "light"), (DESK, "dark"), (PHONE, "dark")):
                page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
                page.set_default_timeout(PATIENCE)
                watch = Watch(page)
                page.goto(f"{address}&{asked}")
                if scheme == "light":  # the folder is known afterwards
                    page.get_by_role("button", name="Open", exact=True).click()
                page.get_by_text("What is there").wait_for()
                for name, work in pages.items():
                    page.locator(".bk-tab", has_text=name).click()
                    for button, sign in work.items():
                        if button and scheme == "light":  # the jobs belong to the server: later pages find them done
                            page.get_by_role("button", name=button).click()
                        page.get_by_text(re.compile(sign)).filter(visible=True).last.wait_for()
                    page.wait_for_timeout(2500)
                    page.screenshot(path=out / f"{name.lower().replace(' ', '-')}-{scheme}-{width}.png", full_page=True)
                complaints += [*watch.complaints, *watch.refused]
                page.close()
        finally:
            server.terminate()
            server.wait(30)
            server.stdout.close()
    print("the app", *complaints, sep="\n  ")
    return bool(complaints)


def of_the_charts(out: Path, program: str) -> int:
    """Take pictures of the index of the charts: at a desk in light and dark, on a phone."""
    from workbench.export import write_charts
    from workbench.pipelines import characterize
    from workbench.simulate import sample_folder

    out.mkdir(parents=True, exist_ok=True)
    complaints = []
    with tempfile.TemporaryDirectory() as scratch, chromium(program) as browser:
        write_charts(characterize(sample_folder()), scratch)
        for name, width, scheme in (("desk", DESK, "light"), ("dark", DESK, "dark"), ("phone", PHONE, "light")):
            context = browser.new_context(
                offline=True, viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
            )
            page = context.new_page()
            watch = Watch(page, re.compile(r"file://|data:|blob:"))
            page.goto((Path(scratch) / "index.html").as_uri())
            for chart in page.locator(".chart").all():  # each is drawn as it comes near the view
                chart.scroll_into_view_if_needed()
                chart.locator("[data-drawn]").first.wait_for(timeout=PATIENCE)
            page.wait_for_timeout(1500)
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=out / f"index-{name}.png", full_page=True)
            complaints += [*watch.complaints, *watch.refused]
            context.close()
    print("the charts", *complaints, sep="\n  ")
    return bool(complaints)


def take(out: Path, wanted: list[str]) -> int:
    """Take the pictures; returns how many things went wrong."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("the program chromium is not installed")
    names = [name for name in wanted if name not in ("notebooks", "app", "charts")]
    wrong = 0
    if not wanted or "charts" in wanted:
        wrong += of_the_charts(out / "charts", program)
    if not wanted or "app" in wanted:
        wrong += of_the_app(out / "app", program)
    if not wanted or "notebooks" in wanted or names:
        wrong += of_notebooks(out, names, program)
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(take(Path(sys.argv[1]), sys.argv[2:]))
