"""How fast, and in how much memory, is a 16-megapixel colour stack finished, beside Siril on the same file?

    python benchmarks/finish.py

One simulated stack (the virtual sky, 4928 x 3264, three channels, variance, coverage and saturation) is made once into
a cache folder.  `workbench finish` (crop, background, white balance and matrix, photometry checks, asinh, 16-bit PNG)
and Siril's command line (seqsubsky of first order, asinh, savepng; its sequences need two pictures, so the second is a
tiny one) finish it in turn, each in a process of its own, so that the ratio depends little on what else the machine
does.  Also: the memory at 24 megapixels, and how soon a preview follows a slider.  Writes docs/benchmarks-finish.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks-finish.md"
CACHE = Path(tempfile.gettempdir()) / "workbench-benchmark-finish"
SHAPES = {16: (3264, 4928), 24: (4000, 6000)}
FRAMES, EXPOSURE = 20, 60.0
SIRIL = """requires 1.0.0
setext fit
seqsubsky pic 1
load bkg_pic_00001
asinh 100 0.001
savepng out
"""
PREVIEW = """
import json, sys, time
import numpy as np
from workbench import finish
from course import finish_explorers as live
stack = finish.crop(finish.read_picture(sys.argv[1]))
done = finish.finish(stack, progress=False)
start = time.perf_counter()
finish.pyramid(stack)
built = time.perf_counter() - start
flat = finish.remove_background(stack, done.background)
background, colour = live.BackgroundSteps(stack), live.ColourSteps(flat)
stretch, detail = live.StretchSteps(done.linear), live.DetailSteps(stack, done)

def all_of_stretch(at):
    numbers = ("asinh", 0.1, 0.5 + at)
    return stretch.view(*numbers), stretch.curve(*numbers), stretch.histogram(*numbers)

moves = {
    "background": lambda at: background.view("polynomial", at),
    "colour": lambda at: colour.view("stars", colour.matrix is not None, at),
    "stretch, with both histograms": all_of_stretch,
    "denoise": lambda at: detail.view(at),
    "deconvolve": lambda at: detail.view(0.0, at),
    "smaller stars": lambda at: detail.view(0.0, 0.0, at),
    "local contrast": lambda at: detail.view(0.0, 0.0, 0.0, at),
}
times = {}
for name, move in moves.items():
    taken = []
    for at in np.linspace(0.1, 1, 9):
        wall, busy = time.perf_counter(), time.process_time()
        move(float(at))
        taken.append((time.perf_counter() - wall, time.process_time() - busy))
    times[name] = np.median(taken[1:], axis=0).tolist()
size = [stretch.picture.sizes["x"], stretch.picture.sizes["y"]]
print(json.dumps({"pyramid": built, "moves": times, "size": size}))
"""


def make(megapixels: int) -> Path:
    """Make the simulated stack."""
    path = CACHE / f"stack-{megapixels}.fits"
    import numpy as np

    from workbench.finish import make_picture, write_picture
    from workbench.simulate import sky as virtual

    CACHE.mkdir(exist_ok=True)
    sky = virtual.make_sky(SHAPES[megapixels], stars=3000, nebula=0.3, seed=1)
    view = virtual.View(exposure=EXPOSURE, gradient=np.outer([1.0, 0.9, 0.7], [0.1, 0.08]))
    rng = np.random.default_rng(1)
    light = virtual.picture(sky, view).values
    signal, variance = np.empty_like(light), np.empty_like(light)
    for channel in range(3):
        electrons = light[channel].astype(float) * EXPOSURE
        variance[channel] = (electrons + 6.0) / FRAMES
        signal[channel] = electrons + rng.normal(0, 1, electrons.shape) * np.sqrt(variance[channel])
    clipped = signal > 30_000
    picture = make_picture(
        np.minimum(signal, 30_000),
        variance,
        coverage=np.full(signal.shape, FRAMES, np.uint8),
        saturated=clipped,
        attrs={"camera": "virtual camera (simulated)", "daylight_multipliers": [1.8, 1.0, 1.3],
               "color_matrix": [0.8198, -0.2239, -0.0724, -0.4871, 1.2389, 0.2798, -0.1043, 0.2050, 0.7181]},
    )  # fmt: skip
    return write_picture(picture, path)


FOR_SIRIL = """
import sys
import numpy as np
from astropy.io import fits
fits.writeto(sys.argv[2] + "/pic_00001.fit", (fits.getdata(sys.argv[1]) / 65535).astype(np.float32), overwrite=True)
tiny = np.random.default_rng(0).normal(0.01, 0.001, (3, 256, 256)).astype(np.float32)
fits.writeto(sys.argv[2] + "/pic_00002.fit", tiny, overwrite=True)
"""


def prepare_siril(stack: Path, folder: Path) -> None:
    """Write the same signal as Siril reads it, a tiny second picture, and the script."""
    folder.mkdir(exist_ok=True)
    if not (folder / "pic_00002.fit").exists():
        subprocess.run([sys.executable, "-c", FOR_SIRIL, str(stack), str(folder)], check=True)
    (folder / "finish.ssf").write_text(SIRIL)
    for left in (*folder.glob("bkg_*"), *folder.glob("*.seq")):
        left.unlink()


def run(command: list[str]) -> dict[str, float]:
    """Run a command; return wall seconds, processor seconds and peak memory [GiB] of it and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}\n{message.decode()}")
    return {
        "wall": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=2, help="runs of each; the fastest counts")
    parser.add_argument("--make", type=int, choices=list(SHAPES), help=argparse.SUPPRESS)
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write the document")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make)
        return
    stacks = {size: CACHE / f"stack-{size}.fits" for size in SHAPES}
    for size, path in stacks.items():  # in a process of its own: a child begins with its parent's peak memory
        if not path.exists():
            subprocess.run([sys.executable, __file__, "--make", str(size)], check=True)
    ours = [
        sys.executable,
        "-m",
        "workbench.cli",
        "finish",
        "--quiet",
        str(stacks[16]),
        "--out",
        str(CACHE / "out.png"),
    ]
    siril = shutil.which("siril-cli")
    folder = CACHE / "siril"
    best: dict[str, dict[str, float]] = {}
    for number in range(arguments.repeat + 1):  # the first of ours compiles and is not counted
        found = run(ours)
        if number:
            best["workbench"] = min(best.get("workbench", found), found, key=lambda one: one["wall"])
        if siril and number:
            prepare_siril(stacks[16], folder)
            found = run([siril, "-d", str(folder), "-s", str(folder / "finish.ssf")])
            best["siril"] = min(best.get("siril", found), found, key=lambda one: one["wall"])
        print(f"round {number}: {best}", flush=True)
    large = run([*ours[:5], str(stacks[24]), "--out", str(CACHE / "out24.png")])
    env = os.environ | {"PYTHONPATH": str(DOCUMENT.parents[1] / "notebooks")}
    preview = json.loads(subprocess.check_output([sys.executable, "-c", PREVIEW, str(stacks[16])], env=env))
    lines = table(best, large, preview)
    print("\n".join(lines))
    if arguments.write:
        DOCUMENT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(best: dict, large: dict, preview: dict) -> list[str]:
    """Return the document's lines."""
    ours, theirs = best["workbench"], best.get("siril")
    rows = [("`workbench finish`", ours), *([("Siril", theirs)] if theirs else [])]
    lines = [
        "# Finishing a stack: time and memory",
        "",
        f"Simulated stack of 16 megapixels, three channels; {os.cpu_count()} processors, {platform.machine()},"
        f" Python {platform.python_version()}. Made by `python benchmarks/finish.py`: the two take turns, the fastest"
        " run of each counts. Processes that wanted a processor meanwhile, these included (load average):"
        f" {os.getloadavg()[0]:.1f}; beyond {os.cpu_count()} they wait for each other, and the processor times tell"
        " more.",
        "",
        "| | time [s] | processor time [s] | peak memory [GiB] |",
        "|---|---|---|---|",
        *(f"| {name} | {one['wall']:.1f} | {one['cpu']:.1f} | {one['memory']:.2f} |" for name, one in rows),
    ]
    if theirs:
        lines += [
            f"| ratio | {ours['wall'] / theirs['wall']:.2f} | {ours['cpu'] / theirs['cpu']:.2f} |"
            f" {ours['memory'] / theirs['memory']:.2f} |"
        ]
    width, height = preview["size"]
    return [
        *lines,
        "",
        "Ours: start of Python, crop, background (stars masked, nebula told from sky), star white balance and colour"
        " matrix, photometry check after each step, asinh, 16-bit PNG with profile and history. Siril's: `seqsubsky`"
        " of first order, `asinh`, `savepng`.",
        "",
        f"- 24 megapixels, three channels, with variance and coverage: {large['wall']:.1f} s and"
        f" {large['memory']:.2f} GiB at most.",
        "",
        f"Live: from a moved slider to the new pictures of {width} x {height} pixels (detail: a piece of 300 x 200) as"
        " they are sent to the page. The pyramid is built once, in"
        f" {preview['pyramid']:.1f} s.",
        "",
        "| slider | time [ms] | processor time [ms] |",
        "|---|---|---|",
        *(f"| {name} | {1000 * wall:.0f} | {1000 * busy:.0f} |" for name, (wall, busy) in preview["moves"].items()),
    ]


if __name__ == "__main__":
    main()
