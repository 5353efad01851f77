"""Bad folders from a seed: a small night of the virtual camera in which something is spoilt.

`spoil` is a pure function of the seed, so that a folder that did harm can be made again:
``python -m tests.torture DIR SEED``.
"""

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from workbench.simulate import sky as virtual
from workbench.simulate.capture import Batch, cooled, write_frames

SHAPE = (96, 128)
BATCHES = [Batch("bias", 4, 0.0), Batch("dark", 4, 60.0), Batch("flat", 4, 2.0, lamp=0.4), Batch("light", 5, 60.0)]
_NUMBERS = ["nan", "NaN", "inf", "-1E400", "-5", "0", "1E300", "''", "'abc'", "T", "", "3000000000000", "65535", "0.5"]
_WORDS = [
    "'" + "x" * 60 + "'",
    "'Flat'",
    "'Light'",
    "'Dark'",
    "'Bias'",
    "'Master Dark'",
    "''",
    "42",
    "'\x07\x1b[31m'",
    "nan",
]
_KEYS = {
    "NAXIS": ["0", "1", "3", "-2", "999", "'2'"],
    "BITPIX": ["7", "8", "0", "64", "-32", "nan", "'16'"],
    "DATE-OBS": ["'9999-99-99'", "'1066-10-14T09:00:00'", "'99999-01-01'", "nan", "'2026-01-01T25:61:61'", "'//'"],
    "BAYERPAT": ["'RGGB'", "'QWER'", "42", "'rggb '", "nan"],
    "ROWORDER": ["'BOTTOM-UP'", "42", "'sideways'"],
    "TRIMSEC": ["'[1:1,1:1]'", "'[0:0,0:0]'", "'[-5:9999,1:2]'", "'[3:100,5:90]'", "42"],
    "BIASSEC": ["'[1:999,1:999]'", "'[1:4,1:96]'"],
    "HISTORY": ["'ImageIntegration.'"],
    "CALSTAT": ["'BDF'", "nan"],
    **dict.fromkeys(["IMAGETYP", "FILTER", "INSTRUME", "READOUTM"], _WORDS),
    **dict.fromkeys(["NAXIS1", "NAXIS2", "BZERO", "BSCALE", "EXPTIME", "CCD-TEMP", "GAIN", "OFFSET"], _NUMBERS),
    **dict.fromkeys(["XBINNING", "EGAIN", "XBAYROFF", "STACKCNT", "XORGSUBF", "ROTATOR"], _NUMBERS),
}
_LIGHT = "lights/light_0012.fits"
_TABLES = [
    b"",
    b"\0" * 500,
    b"file,kind\n",
    b"file,kind\n../../etc/passwd,dark\n",
    b"file;kind;iso\nlights/x.fits;light;nan\n",
    b"kind\nflat\n",
    b"file,exposure_s\n" + b"lights/missing.fits,60\n" * 3,
    f"file,iso\n{_LIGHT},1/0\n".encode(),
    f"file,exposure_s\n{_LIGHT},1e300\n".encode(),
    f'file,kind\n"{_LIGHT},light\n'.encode(),
    b"\xff\xfe\x00bad",
    b"file,kind\n" + b"".join(b"lights/none_%d.fits,light\n" % n for n in range(400)),
]
_NAMES = [
    "new\nline.fits",
    "bell\x07.fits",
    "\x1b[31mred.fits",
    "ünï\u202ecode.fits",
    "a" * 200 + ".fits",
    "quote'\".fits",
    "sp ace .fits",
    "-x.fits",
]


def make_night(folder):
    """A night that stacks."""
    sky = virtual.make_sky(SHAPE, stars=40, faintest=300.0, brightest=3000.0, step=14.0, seed=3)
    write_frames(folder, cooled(SHAPE), BATCHES, sky=sky, seed=1)
    return folder


def spoil(night: Path, folder: Path, seed: int) -> str:
    """Copy a night and spoil something in it; returns what."""
    shutil.copytree(night, folder)
    rng = np.random.default_rng(seed)
    ways = [_card, _card, _card, _card, _bytes, _cut, _kind, _node, _table, _name, _pixels, _copy]
    done = []
    for _ in range(1 + (seed % 4 == 3)):
        frames = sorted(path for path in folder.rglob("*.fits") if path.is_file() and not path.is_symlink())
        done.append(ways[rng.integers(len(ways))](frames[rng.integers(len(frames))], folder, rng))
    return "; ".join(done)


def _pick(rng, values):
    return values[int(rng.integers(len(values)))]


def _card(path, folder, rng):
    """Replace a card of a header, or add it, as any program might have written it."""
    key = _pick(rng, list(_KEYS))
    value = _pick(rng, _KEYS[key])
    data = bytearray(path.read_bytes())
    card = f"{key:8}= {value:>20}".encode("latin-1")[:80].ljust(80)
    ends = [at for at in range(0, 2880 * 2, 80) if data[at : at + 8].rstrip() in (key.encode(), b"END")]
    data[ends[0] : ends[0] + 80] = card
    if not any(data[at : at + 8] == b"END     " for at in range(0, 2880, 80)):
        data[ends[0] + 80 : ends[0] + 160] = b"END".ljust(80)
    path.write_bytes(data)
    return f"{path.name}: {key} = {value}"


def _bytes(path, folder, rng):
    data = bytearray(path.read_bytes())
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 3000))
    data[start : start + length] = rng.bytes(min(length, len(data) - start))
    path.write_bytes(data)
    return f"{path.name}: {length} bytes of noise from {start} on"


def _cut(path, folder, rng):
    length = int(rng.integers(path.stat().st_size))
    os.truncate(path, length)
    return f"{path.name}: cut to {length} bytes"


def _kind(path, folder, rng):
    """A frame of one kind in the folder of another."""
    other = _pick(rng, sorted(one for one in folder.iterdir() if one.is_dir()))
    path.write_bytes(path.read_bytes().replace(b"IMAGETYP=", b"COMMENT  ", 1))
    shutil.move(path, other / f"moved_{path.name}")
    return f"{path.name}: moved into {other.name}, without IMAGETYP"


def _node(path, folder, rng):
    """Something that is no file, or cannot be read."""
    what = _pick(rng, ["fifo", "loop", "dangling", "folder", "locked", "locked folder", "around"])
    if what == "locked folder":
        path.parent.chmod(0)
        return f"{path.parent.name}: {what}"
    if what == "locked":
        path.chmod(0)
        return f"{path.name}: {what}"
    name = _pick(rng, [path, folder / "frames.csv", folder / "sensor.json"])
    name.unlink(missing_ok=True)
    if what == "fifo":
        os.mkfifo(name)
    elif what == "folder":
        name.mkdir()
    else:
        name.symlink_to({"loop": name, "dangling": folder / "nowhere", "around": folder}[what])
    return f"{name.name}: {what}"


def _table(path, folder, rng):
    table = _pick(rng, _TABLES)
    with contextlib.suppress(OSError):
        (folder / "frames.csv").write_bytes(table)
    return f"frames.csv: {table[:60]!r}"


def _name(path, folder, rng):
    name = _pick(rng, _NAMES)
    path.rename(path.with_name(name))
    return f"{path.name}: named {name!r}"


def _pixels(path, folder, rng):
    """Pixels that no sensor gives: doubled, halved, white, black, noise."""
    what = _pick(rng, ["doubled", "halved", "white", "black", "noise", "zeros in the middle"])
    data = bytearray(path.read_bytes())
    values = np.frombuffer(data, ">i2", offset=2880 * (len(data) // 2880 - -(-2 * SHAPE[0] * SHAPE[1] // 2880)))
    values = values[: SHAPE[0] * SHAPE[1]].reshape(SHAPE)
    adu = values.astype(int) + 0x8000
    if what == "zeros in the middle":
        adu[SHAPE[0] // 4 : SHAPE[0] // 2] = 0
    noise = rng.integers(0, 65535, SHAPE)
    made = {"doubled": adu * 2, "halved": adu // 2, "white": 65535, "black": 0, "noise": noise}.get(what, adu)
    values[:] = np.clip(made, 0, 65535) - 0x8000
    path.write_bytes(data)
    return f"{path.name}: {what}"


def _copy(path, folder, rng):
    shutil.copy(path, path.with_name(f"again_{path.name}"))
    return f"{path.name}: twice"


def unlock(folder):
    """Let everything be read and removed again."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)


class LateError(BaseException):
    """What hangs: no `Exception`, which a reader could take for a damaged file."""


@contextlib.contextmanager
def at_most(seconds):
    """End what hangs with a `LateError`."""

    def late(*_):
        raise LateError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    there = Path(sys.argv[1])
    print(spoil(make_night(there / "clean"), there / sys.argv[2], int(sys.argv[2])))
