"""A light as it comes in, compared with its share of a stack: processor time, elapsed time, memory.

    python benchmarks/watch.py FOLDER [--shape 4000x6000] [--lights 8] [--repeat 3]

FOLDER keeps the simulated night, generated once.  `watch` and `stack` run in turn, each in a process of its own; the
ratio of a light in `watch` to the whole time of `stack`, masters left out, over its lights, is printed pair by pair.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from workbench.simulate.night import write_night

WATCH = """
import json, resource, sys, time
from workbench.pipelines import watch_folder
folder, out = sys.argv[1:]
clock, spent, memory, seconds, begin = [], [], [], [], time.process_time()
for light in watch_folder(folder, out, settled=0.0, idle=0.01, reference="light_0000"):
    clock.append(light.seconds)
    spent.append(time.process_time() - begin)
    memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    begin = time.process_time()
print(json.dumps([clock[1:], spent[1:], memory[1:]]))
"""
STACK = """
import json, sys, time
from workbench.pipelines import stack_folder
folder, out, masters = sys.argv[1:]
begin = time.process_time()
done = stack_folder(folder, out, masters=masters, progress=False, reference="light_0000")
print(json.dumps([{name: value for name, value in done.seconds.items()}, time.process_time() - begin]))
"""


def run(program: str, *arguments: Path) -> list:
    """Run a program in a process of its own; return what its last line holds."""
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", default="4000x6000")
    parser.add_argument("--lights", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    chosen = parser.parse_args()
    shape = tuple(int(side) for side in chosen.shape.split("x"))
    night = chosen.folder / f"{chosen.shape}-{chosen.lights}"
    if not (night / "truth.json").exists():
        write_night(night, shape=shape, lights=chosen.lights, biases=5, darks=5, flats=5, suffix="fits", seed=3)
    for number in range(chosen.repeat + 1):
        with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
            live = Path(scratch) / "live"
            clock, spent, memory = run(WATCH, night, live)
            seconds, whole = run(STACK, night, Path(scratch) / "stack.fits", live / "masters")
        if number == 0:
            continue  # the first run compiles the numerical loops
        share = sum(value for name, value in seconds.items() if name != "masters") / chosen.lights
        print(
            f"a light: watch {median(clock):.2f} s ({median(spent):.2f} s of the processors), stack {share:.2f} s "
            f"({whole / chosen.lights:.2f} s); ratio {median(clock) / share:.2f} "
            f"({median(spent) * chosen.lights / whole:.2f}); memory of watch after the second light "
            f"{memory[0] / 1e6:.2f}, after the last {memory[-1] / 1e6:.2f} GB"
        )


if __name__ == "__main__":
    main()
