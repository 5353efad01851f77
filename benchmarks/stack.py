"""Stacking beside Siril on the same files: wall time, processor time, peak memory.

    python benchmarks/stack.py FOLDER [--frames 4928x3264:20] [--repeat 3] [--skip-siril] [--threads]

FOLDER keeps the simulated nights, generated once.  Needs ``siril-cli`` for the comparison.  The programs run in turn,
each in a process of its own; medians are printed, and those of the ratios pair by pair.  The workbench's first run
fills the cache of compiled code; how much longer it took is printed too.  With --threads one thread runs beside two:
the serial part s of t(n) = (s + (1 - s)/n) t(1) follows, and the time on eight cores.  Compressed frames (``:dng``) are
also only decoded, in two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from workbench.simulate.night import write_night

NIGHTS = {
    "4928x3264:20": {"shape": (3264, 4928), "lights": 20},
    "4928x3264:100": {"shape": (3264, 4928), "lights": 100},
    "2464x1632:60": {"shape": (1632, 2464), "lights": 60},
    "2464x1632:20": {"shape": (1632, 2464), "lights": 20},
    "2464x1632:100": {"shape": (1632, 2464), "lights": 100},
    "2464x1632:200": {"shape": (1632, 2464), "lights": 200},
    "2464x1632:400": {"shape": (1632, 2464), "lights": 400},
    "4928x3264:20:dng": {"shape": (3264, 4928), "lights": 20, "compressed": True},
    "6000x4000:10": {"shape": (4000, 6000), "lights": 10},
    "8256x5504:10": {"shape": (5504, 8256), "lights": 10},
    "9504x6336:10": {"shape": (6336, 9504), "lights": 10},
}
SIRIL = """requires 1.0.0
cd biases
convert bias -out=../process
cd ../process
stack bias rej 3 3 -nonorm
cd ../darks
convert dark -out=../process
cd ../process
stack dark rej 3 3 -nonorm
cd ../flats
convert flat -out=../process
cd ../process
preprocess flat -bias=bias_stacked
stack pp_flat rej 3 3 -norm=mul
cd ../lights
convert light -out=../process
cd ../process
preprocess light -dark=dark_stacked -flat=pp_flat_stacked -cc=dark -cfa -equalize_cfa -debayer
register pp_light
stack r_pp_light rej w 3 3 -norm=addscale -out=../result
close
"""


def night(folder: Path, name: str) -> Path:
    where = folder / name.replace(":", "-")
    if not (where / "truth.json").exists():
        shutil.rmtree(where, ignore_errors=True)
        suffix = "dng" if "compressed" in NIGHTS[name] else "fits"
        write_night(
            where, **NIGHTS[name], biases=16, darks=16, flats=16, suffix=suffix, trails=1, cosmic_rays=500, seed=20
        )
    return where


def measured(command: list[str], **options) -> dict[str, float]:
    """Run a command to its end; wall [s], processor time [s], peak resident memory [MB]."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}


def workbench(where: Path, *options: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=where.parent) as out:
        command = [sys.executable, "-m", "workbench.cli", "stack", str(where), "--out", f"{out}/stack.fits", "--quiet"]
        return measured([*command, *options])


def decoding(where: Path) -> dict[str, float]:
    """Read every frame once, in two threads, and do nothing with it."""
    code = (
        "import sys; from pathlib import Path; from workbench.core.parallel import frame_buffers, in_threads; "
        "from workbench.ingest import read_frame\n"
        "frames = [path for path in Path(sys.argv[1]).rglob('*.*') if path.suffix in ('.dng', '.fits')]\n"
        "with frame_buffers():\n    print(sum(1 for _ in in_threads(read_frame, frames, 2)))"
    )
    return measured([sys.executable, "-c", code, str(where)])


def siril(where: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=where.parent) as room:
        for kind in ("biases", "darks", "flats", "lights"):
            (Path(room) / kind).mkdir()
            for path in (where / kind).iterdir():
                (Path(room) / kind / path.name).symlink_to(path)
        script = Path(room) / "stack.ssf"
        script.write_text(SIRIL)
        return measured(["siril-cli", "-s", str(script), "-d", room])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", action="append", choices=sorted(NIGHTS))
    parser.add_argument("--repeat", type=int, default=3, help="pairs of runs")
    parser.add_argument("--skip-siril", action="store_true")
    parser.add_argument("--threads", action="store_true", help="one thread beside two, in place of Siril")
    parser.add_argument("--json", type=Path, help="results are added to this file")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.json or options.folder / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for name in options.frames or ("4928x3264:20", "2464x1632:60"):
        where = night(options.folder, name)
        entry = results.setdefault(name, {})
        first = workbench(where)  # compiled code into its cache, files into the page cache
        programs = {"workbench": workbench}
        if shutil.which("siril-cli") and not options.skip_siril:
            programs["siril"] = siril
        if options.threads:
            programs = {
                "one thread": lambda where: workbench(where, "--threads", "1"),
                "two threads": lambda where: workbench(where, "--threads", "2"),
            }
        elif "compressed" in NIGHTS[name]:
            programs["decoding"] = decoding
        pairs = [{program: run(where) for program, run in programs.items()} for _ in range(options.repeat)]
        for program in programs:
            entry[program] = {key: median(pair[program][key] for pair in pairs) for key in first}
            run = entry[program]
            times = f"{run['wall']:7.1f} s wall {run['cpu']:7.1f} s cpu"
            print(f"{name:14s} {program:10s} {times} {run['memory']:7.0f} MB")
        if options.threads:
            share = median(pair["two threads"]["wall"] / pair["one thread"]["wall"] for pair in pairs)
            entry["serial"] = 2 * share - 1
            eight = (entry["serial"] + (1 - entry["serial"]) / 8) * entry["one thread"]["wall"]
            busy = entry["two threads"]["cpu"] / entry["two threads"]["wall"]
            print(f"{name:14s} serial part {entry['serial']:.3f}; {busy:.2f} of two cores busy; on eight {eight:.1f} s")
        else:
            entry["first over second"] = first["wall"] / pairs[0]["workbench"]["wall"]
            print(f"{name:14s} first over second run: {entry['first over second']:.2f} wall")
        if "decoding" in programs:
            rate = median(pair["decoding"]["wall"] / pair["workbench"]["wall"] for pair in pairs)
            print(f"{name:14s} rate over that of decoding alone: {rate:.2f}")
        if "siril" in programs:
            ratio = {key: median(pair["workbench"][key] / pair["siril"][key] for pair in pairs) for key in first}
            entry["ratio"] = ratio
            print(
                f"{name:14s} ratio      {ratio['wall']:.3f} wall, {ratio['cpu']:.3f} cpu, {ratio['memory']:.2f} memory"
            )
        entry["load"] = os.getloadavg()[0]
        kept.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
