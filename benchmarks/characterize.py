"""How fast, and in how much memory, is a full-size set of frames measured?

    python benchmarks/characterize.py

The virtual D7000 shoots 150 frames of 16 million pixels once, 4.8 GB, into a cache folder; they are then decoded
without anything else on two threads, and measured, each in a process of its own and in turn, so that the ratio of the
two rates depends little on what else the machine does.  Writes docs/benchmark-characterize.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from tqdm import tqdm

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmark-characterize.md"
CACHE = Path(tempfile.gettempdir()) / "workbench-benchmark-16mpx"
ISOS = (100, 200, 400, 800, 1600, 3200)
LEVELS = (0.05, 0.15, 0.3, 0.5, 0.65)
BIAS, FLATS = 10, 2
DARK_ISO, DARK_TIMES, DARK_TEMPERATURES, DARKS = 800, (60.0, 180.0, 600.0), (5.0, 20.0), 5
TASKS = ("libraw", "plain", "measure")
DIFFERENT = 2  # frames of a setting; further ones are hard links to these


def shots() -> list[tuple[str, int, float, float, float, int]]:
    """Return (kind, iso, exposure, temperature, electrons, frames) of every setting."""
    plan = [("bias", iso, 1 / 8000, 20.0, 0.0, BIAS) for iso in ISOS]
    for iso in ISOS:
        plan += [
            ("flats", iso, 0.001 * (n + 1), 20.0, level * 33_000 * 100 / iso, FLATS) for n, level in enumerate(LEVELS)
        ]
    plan += [("darks", DARK_ISO, t, warm, 0.0, DARKS) for warm in DARK_TEMPERATURES for t in DARK_TIMES]
    return plan


def make(folder: Path) -> None:
    """Shoot what is not there yet."""
    from workbench.simulate import d7000, expose, save_frame

    camera = d7000()
    start, number = datetime(2025, 1, 18, 20), 0
    for kind, iso, exposure, temperature, electrons, count in tqdm(shots(), desc="shooting", unit="setting"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for frame in range(count):
            number += 1
            path = folder / kind / f"{kind}_ISO{iso}_{exposure:g}s_{temperature:g}C_{frame:02d}.dng"
            if path.exists():
                continue
            if frame >= DIFFERENT:
                os.link(folder / kind / path.name.replace(f"_{frame:02d}", f"_{frame % DIFFERENT:02d}"), path)
                continue
            rate = electrons / exposure
            mosaic = expose(camera, rate, iso=iso, exposure=exposure, temperature=temperature, seed=number)
            moment = start + timedelta(seconds=number)
            save_frame(
                path, mosaic, camera, iso=iso, exposure=exposure, temperature=temperature, time=moment, aperture=8.0
            )


def decode(folder: Path, how: str) -> dict[str, float]:
    """Decode every frame once on two threads."""
    import rawpy

    from workbench.ingest import read_frame

    def by_libraw(path: Path) -> int:
        with rawpy.imread(str(path)) as raw:
            return raw.raw_image_visible.copy().size

    paths = sorted(folder.rglob("*.dng"))
    work = by_libraw if how == "libraw" else lambda path: read_frame(path).size
    work(paths[0])
    begin, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(2) as pool:
        pixels = sum(pool.map(work, paths))
    taken = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    return taken | {"frames": len(paths), "megapixels": pixels / 1e6}


def measure(folder: Path) -> dict[str, float]:
    """Measure the set, as the command does."""
    from workbench.pipelines import characterize

    begin, cpu = time.perf_counter(), time.process_time()
    result = characterize(folder, progress=False)
    taken = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    gain = float(result.gain["gain"].sel(iso=200, channel="G1"))
    doubling = float(result.dark_law["doubling_temperature"])
    return taken | {"peak_mib": peak, "gain": gain, "doubling": doubling}


def alone(task: str, folder: Path) -> dict[str, float]:
    """Run a task in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--task", task, "--folder", str(folder)], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def document(rounds: list[dict[str, dict[str, float]]]) -> str:
    """Write what was measured."""
    frames, pixels = rounds[0]["plain"]["frames"], rounds[0]["plain"]["megapixels"]
    rows = []
    for number, one in enumerate(rounds, 1):
        cells = [f"{one[task][unit]:.1f} s" for unit in ("seconds", "cpu") for task in TASKS]
        ratios = [one[task][unit] / one["measure"][unit] for unit in ("seconds", "cpu") for task in ("libraw", "plain")]
        peak = f"{one['measure']['peak_mib']:,.0f} MiB"
        rows.append(f"| {number} | " + " | ".join([*cells, *(f"{ratio:.2f}" for ratio in ratios), peak]) + " |")
    table = "\n".join(rows)
    head = "LibRaw", "read only", "measured"
    columns = [f"{name}, {what}" for what in ("time", "CPU") for name in head]
    columns += ["measured/LibRaw", "measured/read only", "the same by CPU", "by CPU", "peak memory"]
    return f"""# Speed of characterize

{frames:.0f} frames of {pixels / frames:.1f} Mpx, {2 * pixels / 1000:.1f} GB of uncompressed DNG: {len(ISOS)} x {BIAS} \
bias frames,
{len(ISOS)} x {len(LEVELS)} x {FLATS} flats, {len(DARK_TEMPERATURES)} x {len(DARK_TIMES)} x {DARKS} darks.

| round | {" | ".join(columns)} |
| {" | ".join(["---:"] * (len(columns) + 1))} |
{table}

*LibRaw* is what decodes camera RAW, here on two threads and with nothing else to do; *read only* is what `read_frame`
needs to bring uncompressed pixels into memory, hardly more than copying them. The columns with a slash are ratios of
rates, frames a second: 0.5 means half as fast. Those by CPU compare the processors' time, which depends little on what
else the machine does. Measuring includes looking through the folder, loading the libraries, all fits, and reading some
frames twice (the bias frames of the darks' ISO, and those shown in pictures).

Of each setting {DIFFERENT} frames differ, further ones are hard links to them: read and measured like any other.
Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}.

`python benchmarks/characterize.py` writes this page.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=CACHE, help="where the frames are or will be")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        work = measure if given.task == "measure" else lambda folder: decode(folder, given.task)
        print(json.dumps(work(given.folder)))
        return
    make(given.folder)
    rounds = []
    for number in range(given.rounds):
        rounds.append({task: alone(task, given.folder) for task in TASKS})
        print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    aside = given.out.with_suffix(".part")
    aside.write_text(document(rounds))
    os.replace(aside, given.out)
    print(given.out.read_text())


if __name__ == "__main__":
    main()
