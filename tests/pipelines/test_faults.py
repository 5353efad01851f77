"""What happens to files while a stack is made, and to what is kept from one run to the next; bad folders from seeds."""

import os
import shutil
import warnings

import filelock
import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import uniform_filter

from tests import torture
from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.pipelines import characterize, grade_lights, stack_folder, stacking

SEEDS = int(os.environ.get("WORKBENCH_TORTURE", "12"))  # `make torture` takes more


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return torture.make_night(tmp_path_factory.mktemp("torture") / "night")


@pytest.fixture(scope="module")
def clean(night, tmp_path_factory):
    """The stack of the night as it should be, and the masters kept of it."""
    folder = tmp_path_factory.mktemp("clean")
    return stack_folder(night, folder / "s.fits", masters=folder / "masters", progress=False)


def signal(path):
    return fits.getdata(path, 0)


def test_hundreds_of_bad_files_go_into_a_table(night, clean, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    for number in range(400):
        (tmp_path / "night" / "lights" / f"bad{number}\x07é.fits").write_bytes(b"SIMPLE  = %d" % number)
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    with fits.open(done.path) as hdus:
        hdus.verify("exception")
        assert len(hdus["SET_ASIDE"].data) == 400
        assert np.array_equal(hdus[0].data, signal(clean.path), equal_nan=True)
    assert "399 more files like it" in repr(done)
    assert "\x07" not in repr(done)


def test_a_second_run_on_one_output_says_so(night, tmp_path):
    with filelock.FileLock(tmp_path / ".s.fits.lock"), pytest.raises(WorkbenchError, match=r"s\.fits is being written"):
        stack_folder(night, tmp_path / "s.fits", progress=False)
    assert not (tmp_path / "s.fits").exists()


def test_frames_replaced_while_they_are_stacked_are_found(night, tmp_path, monkeypatch):
    shutil.copytree(night, tmp_path / "night")
    light = sorted((tmp_path / "night" / "lights").iterdir())[2]
    plan_stack = stacking.plan_stack

    def meanwhile(*args):
        content = bytearray(light.read_bytes())
        content[-20000:-19000] = bytes(1000)
        light.write_bytes(content)
        return plan_stack(*args)

    monkeypatch.setattr(stacking, "plan_stack", meanwhile)
    with pytest.raises(WorkbenchError, match=rf"{light.name} changed or went while it was used"):
        stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["night"]  # swept


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_a_damaged_master_is_made_again(kind, night, clean, tmp_path):
    masters = tmp_path / "masters"
    shutil.copytree(clean.path.parent / "masters", masters)
    (path,) = masters.glob(f"master-{kind}-*.fits")
    before, state = path.read_bytes(), path.stat()
    path.write_bytes(before[:9000] + bytes(9000) + before[18000:])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    done = stack_folder(night, tmp_path / "s.fits", masters=masters, progress=False)
    assert path.read_bytes() == before
    assert np.array_equal(signal(done.path), signal(clean.path), equal_nan=True)


def _black(adu):
    return adu * 0


def _hole(adu):
    adu[20:60] = 0
    return adu


@pytest.mark.parametrize(
    ("kind", "change"), [("flats", _black), ("flats", _hole), ("biases", _hole), ("biases", None), ("darks", None)]
)
def test_one_wrong_calibration_frame_does_not_outweigh_the_others(kind, change, night, clean, tmp_path):
    """A damaged frame, or (None) a light that has its header: it is named, and the stack is that of the others."""
    shutil.copytree(night, tmp_path / "night")
    path = sorted((tmp_path / "night" / kind).iterdir())[1]
    if change is None:
        light = fits.getdata(sorted((night / "lights").iterdir())[0])
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = light
    else:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = change(hdus[0].data)
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    off = (signal(done.path) - signal(clean.path)) / np.sqrt(fits.getdata(clean.path, "VARIANCE"))
    assert f"{path.name} differs from the others" in repr(done) or f"{path.name} has too little light" in repr(done)
    assert abs(np.nanmedian(off)) < 0.3
    assert np.nanstd(off) < 0.3


def test_a_light_that_is_marked_flat_is_not_the_flat(night, clean, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    light = sorted((tmp_path / "night" / "lights").iterdir())[-1]
    with fits.open(light, mode="update") as hdus:
        hdus[0].header["IMAGETYP"] = "Flat"
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    assert light.name in repr(done)
    assert abs(np.nanmedian(signal(done.path) / signal(clean.path)) - 1) < 0.02


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_light_whose_numbers_were_multiplied_is_set_aside(factor, number, night, clean, tmp_path):
    """Before a reference is chosen: it could be the one, and all others would be clouded."""
    shutil.copytree(night, tmp_path / "night")
    light = sorted((tmp_path / "night" / "lights").iterdir())[number]
    with fits.open(light, mode="update") as hdus:
        hdus[0].data[:] = np.clip(hdus[0].data * factor, 0, 65535)
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    reasons = done.frames.set_index("file")["reason"]
    assert "its numbers were multiplied" in reasons[f"lights/{light.name}"]
    without = stack_folder(night, tmp_path / "without.fits", exclude=(light.name,), progress=False)
    assert np.array_equal(signal(done.path), signal(without.path), equal_nan=True)


@pytest.mark.parametrize("cards", [{"GAIN": 200}, {"OFFSET": 20}])
def test_one_light_that_no_dark_fits_does_not_refuse_the_stack(cards, night, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    light = sorted((tmp_path / "night" / "lights").iterdir())[3]
    with fits.open(light, mode="update") as hdus:
        hdus[0].header.update(cards)
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    assert any(light.name in str(name) and "which no dark has" in reason for name, reason in done.set_aside)
    assert len(done.frames) == 4


def test_one_light_without_iso_does_not_refuse_the_stack(night, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    files = sorted(path.relative_to(tmp_path / "night").as_posix() for path in (tmp_path / "night").rglob("*.fits"))
    rows = [f"{name},{'' if name.endswith('light_0014.fits') else 800}" for name in files]
    (tmp_path / "night" / "frames.csv").write_text("\n".join(["file,iso", *rows, ""]))
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    assert [(str(name), reason) for name, reason in done.set_aside] == [
        ("lights/light_0014.fits", "states no iso, as most lights do; give it in frames.csv")
    ]


@pytest.mark.parametrize("low", [float("nan"), -3.0, 0.0])
def test_impossible_thresholds_are_refused(low, night, tmp_path):
    with pytest.raises(WorkbenchError, match="the threshold of the rejection is a positive number"):
        stack_folder(night, tmp_path / "s.fits", low=low, progress=False)


def test_a_refused_run_leaves_nothing(night, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    for light in (tmp_path / "night" / "lights").iterdir():
        with fits.open(light, mode="update") as hdus:
            hdus[0].data[:] = 500
    with pytest.raises(WorkbenchError):
        stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["night"]


def attempt(command, *args, **options):
    """Return what a command gives, None if it refuses, and all that it says; any warning of a library is an error."""
    try:
        with torture.at_most(60), warnings.catch_warnings():
            warnings.simplefilter("error")
            result = command(*args, progress=False, **options)
    except WorkbenchError as problem:
        return None, {str(problem)}
    return result, {repr(result), *result.warnings, *(f"{path}: {reason}" for path, reason in result.set_aside)}


@pytest.fixture(scope="module")
def measured(night):
    return characterize(night, progress=False)


def _off(found, wanted):
    """By how many errors the numbers of a sensor are off, where both have them; NaN where only one has."""
    for name in sorted(set(wanted.data_vars) & {name.removesuffix("_error") for name in wanted.data_vars}):
        if (error := f"{name}_error") in wanted:
            either = np.hypot(found[error].values, wanted[error].values)
            off = np.abs(found[name].values - wanted[name].values) / either
            both_lack = np.isnan(found[name].values) & np.isnan(wanted[name].values)
            yield name, float(np.where(both_lack, 0, off).max(initial=0))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_bad_folder_ends_in_words(seed, night, measured, clean, tmp_path):
    """No traceback, no hang, nothing that a terminal obeys; no number that differs by more than its error, unsaid."""
    folder, out = tmp_path / "night", tmp_path / "s.fits"
    what = torture.spoil(night, folder, seed)
    try:
        _, words = attempt(open_folder, folder)
        sensor, more = attempt(characterize, folder)
        words |= more | attempt(stack_folder, folder, out, dry_run=True)[1]
        stack, said = attempt(stack_folder, folder, out) if seed % 4 == 0 else (None, set())
    finally:
        torture.unlock(folder)
    for text in words | said:
        assert text.replace("\n", "").isprintable(), what
    if sensor is not None and not (sensor.set_aside or set(sensor.warnings) - set(measured.warnings)):
        for name, off in _off(sensor.sensor, measured.sensor):
            assert off < 3, (what, name)
    if stack is not None and not (stack.set_aside or set(stack.warnings) - set(clean.warnings)):
        off = (signal(stack.path) - signal(clean.path)) / np.sqrt(fits.getdata(clean.path, "VARIANCE"))
        assert abs(np.nanmedian(off)) < 0.1, what
        assert np.nanstd(off) < 0.3, what
    assert {path.name for path in tmp_path.iterdir()} <= {"night", "s.fits"}, what


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("lights", lambda adu: adu + 2000),
        ("lights", lambda adu: adu // 256 * 256),
        ("lights", lambda adu: uniform_filter(adu, 3)),
        ("darks", lambda adu: adu + 70),
        ("biases", lambda adu: adu + 40),
    ],
)
def test_a_frame_whose_noise_is_not_that_of_its_level_is_named(kind, change, night, clean, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    path = sorted((tmp_path / "night" / kind).iterdir())[1]
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[:] = change(hdus[0].data.astype(int))
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    new = [text for text in done.warnings if text not in clean.warnings]
    assert any(path.name in text for text in new)
    assert not any("check the gain and the read noise" in text for text in new)
    assert not any("do not scatter" in text for text in new)


def test_a_light_that_is_damaged_is_set_aside(night, tmp_path):
    """Of the rows that a power cut left as zeros no trace is in the stack."""
    shutil.copytree(night, tmp_path / "night")
    light = sorted((tmp_path / "night" / "lights").iterdir())[1]
    with fits.open(light, mode="update") as hdus:
        hdus[0].data[60:] = 0
    done = stack_folder(tmp_path / "night", tmp_path / "s.fits", progress=False)
    (reason,) = [reason for name, reason in done.set_aside if name == f"lights/{light.name}"]
    assert reason.startswith("is damaged: 72 stretches of 64 pixels in rows 60 to 95")
    without = stack_folder(night, tmp_path / "without.fits", exclude=(light.name,), progress=False)
    assert np.array_equal(signal(done.path), signal(without.path), equal_nan=True)


def test_results_are_not_written_among_frames(night, tmp_path):
    shutil.copytree(night, tmp_path / "night")
    lights = tmp_path / "night" / "lights"
    before = sorted(lights.iterdir())
    for call in (
        lambda: characterize(tmp_path / "night", lights, progress=False),
        lambda: grade_lights(tmp_path / "night", out=lights / "frames.csv", progress=False),
        lambda: stack_folder(tmp_path / "night", tmp_path / "s.fits", scratch=lights, progress=False),
    ):
        with pytest.raises(WorkbenchError, match=r"lie among"):
            call()
    assert sorted(lights.iterdir()) == before
