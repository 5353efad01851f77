"""Foreign files, the same exposure twice, mosaics that nobody states, exposures that cannot be."""

import shutil

import numpy as np
import pytest
from astropy.io import fits

from workbench.core.errors import WorkbenchError
from workbench.ingest import open_folder
from workbench.simulate.capture import Batch, cooled, smart_telescope, write_frames

SHAPE = (96, 128)


def rewrite(path, into=None, data=None, **words):
    """The file again, with other words in its header or other pixels."""
    with fits.open(path) as units:
        header, pixels = units[0].header, np.array(units[0].data) if data is None else data
    for key in ("BZERO", "BSCALE"):
        header.remove(key, ignore_missing=True)
    for key, value in words.items():
        key = key.replace("_", "-")
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    into = into or path
    into.parent.mkdir(parents=True, exist_ok=True)
    fits.writeto(into, pixels, header, overwrite=True)
    return into


@pytest.fixture
def night(tmp_path):
    """Two frames of each kind of a cooled mono camera."""
    batches = [
        Batch("bias", 2, 0.0), Batch("dark", 2, 60.0), Batch("flat", 2, 0.5, filter="L"), Batch("light", 3, 60.0)
    ]  # fmt: skip
    return tmp_path, [path for path, *_ in write_frames(tmp_path, cooled(SHAPE), batches)]


def counts(folder):
    return folder.table["kind"].value_counts().to_dict()


WHOLE = {"bias": 2, "dark": 2, "flat": 2, "light": 3}


def test_a_tidy_folder_raises_no_question(night):
    folder = open_folder(night[0])
    assert (counts(folder), folder.set_aside, folder.warnings, len(folder.masters)) == (WHOLE, [], [], 0)


# the same exposure twice


def copies(path):
    """The file as people and programs copy it."""
    yield shutil.copy(path, path.with_name(f"{path.stem} copy.fits"))
    yield shutil.copy(path, path.with_name(f"{path.stem} (1).fits"))
    yield rewrite(path, path.parent.parent / "process" / f"light_{path.stem[-5:]}.fit", PROGRAM="Siril")
    with fits.open(path) as units:
        packed = path.parent / "packed" / f"a{path.stem}.fits.fz"
        packed.parent.mkdir(exist_ok=True)
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(units[0].data, units[0].header)]).writeto(packed)
        yield packed


@pytest.mark.parametrize("timed", [True, False])
def test_an_exposure_counts_once_however_often_it_lies_there(night, timed):
    root, files = night
    lights = [path for path in files if path.parent.name == "lights"]
    for path in files if not timed else ():
        rewrite(path, DATE_OBS=None)
    made = [copy for path in lights for copy in copies(path)]
    if not timed:  # packed, without a time, it is not decoded for every comparison
        made = [path for path in made if not str(path).endswith(".fz")]
        shutil.rmtree(root / "lights" / "packed")
    folder = open_folder(root)
    assert counts(folder) == WHOLE
    assert sorted(map(str, made)) == sorted(str(path) for path, _ in folder.set_aside)
    assert set(folder.table["path"]) == set(files)
    reasons = {path.name: reason for path, reason in folder.set_aside}
    name = lights[0].name
    assert reasons[name.replace(".fits", " copy.fits")] == f"is the same exposure as lights/{name}, which is used"
    (remark,) = (line for line in repr(folder).splitlines() if line.startswith("set aside"))
    assert f"and {len(made) - 1} more files like it" in remark


def test_frames_of_one_time_or_of_one_level_are_not_taken_for_copies(night):
    root, files = night
    for number, path in enumerate(files):
        data = np.full(SHAPE, 65520, np.uint16) if "flat" in path.name else None
        rewrite(path, data=data, DATE_OBS="2024-05-12T22:00:00", EXPTIME=60.0 + (number == 0))
    assert counts(open_folder(root)) == WHOLE


def test_copies_whose_times_are_cut_to_seconds(night):
    root, files = night
    light = rewrite(files[-1], DATE_OBS="2024-05-12T22:00:00.25", EXPTIME=1 / 60, EXPOSURE=None)
    with fits.open(light) as units:
        level = units[0].data.astype("float32")
    rewrite(
        light, root / "process" / "i_00001.fit", level, DATE_OBS="2024-05-12T22:00:00", EXPTIME=0.016667, EXPOSURE=None
    )
    folder = open_folder(root)
    assert (counts(folder), len(folder.set_aside)) == (WHOLE, 1)


def test_frames_that_serve_as_two_kinds_stay_both(night):
    root, files = night
    rewrite(files[0], root / "darkflats" / "a.fits", IMAGETYP="DARKFLAT")
    folder = open_folder(root)
    assert (counts(folder), folder.set_aside) == (WHOLE | {"darkflat": 1}, [])


def test_dates_without_a_time_are_no_time(night):
    root, files = night
    for path in files:
        rewrite(path, DATE_OBS="2024-05-12")
    copy = rewrite(files[-1], files[-1].with_name("x again.fits"))
    folder = open_folder(root)
    assert (counts(folder), [path for path, _ in folder.set_aside]) == (WHOLE, [copy])


# masters, stacks and processed pictures


@pytest.mark.parametrize(
    ("name", "words", "scale", "reason"),
    [
        ("old.fits", {"IMAGETYP": "Master Dark"}, 1.0, r"is a master dark \(IMAGETYP 'Master Dark'"),
        ("master_dark.fits", {}, 1.0, r"is a master dark \(its name master_dark\.fits\)"),
        ("masterDark_BIN-1.fits", {"IMAGETYP": None}, 1.0, "is a master dark"),
        ("dark_stacked.fits", {"STACKCNT": 30}, 1 / 65535, r"is a master dark \(STACKCNT 30\)"),
        ("d.fits", {"NCOMBINE": 20}, 1.0, r"is a master dark \(NCOMBINE 20\)"),
        ("d.fits", {"NFRAMES": 20}, 1.0, r"is a master dark \(NFRAMES 20\)"),
        ("d.fits", {}, 1 / 65535, r"holds numbers from 0 to 0\.\d+, not ADU, .*, taken for a master dark: not counted"),
    ],
)
def test_a_master_is_never_counted_as_a_frame(night, name, words, scale, reason):
    root, files = night
    dark = next(path for path in files if "dark" in path.name)
    with fits.open(dark) as units:
        level = units[0].data.astype("float32") * np.float32(scale)
    path = rewrite(dark, dark.with_name(name), level, **words)
    folder = open_folder(root)
    assert counts(folder) == WHOLE
    ((aside, why),) = folder.set_aside
    assert aside == path
    with pytest.raises(WorkbenchError, match=reason):
        raise WorkbenchError(why)
    assert folder.masters[["path", "kind", "exposure"]].values.tolist() == [[path, "dark", 60.0]]
    assert folder.warnings == []


def test_a_folder_of_masters_holds_no_frames(night):
    root, files = night
    rewrite(files[2], root / "MasterDarks" / "60s.fits", IMAGETYP=None, DATE_OBS=None, GAIN=99)
    folder = open_folder(root)
    assert (counts(folder), folder.masters["kind"].tolist()) == (WHOLE, ["dark"])
    assert folder.set_aside[0][1].startswith("is a master dark (its folder MasterDarks)")


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("Stacked_12_M 42_10.0s.fits", {}, r"is a stacked or processed picture \(its name"),
        ("result.fits", {"STACKCNT": 12}, r"is a stacked or processed picture \(STACKCNT 12\)"),
        ("r_pp_light_00001.fits", {}, r"is a stacked or processed picture \(its name"),
        ("light_00001.fits", {}, r"holds numbers from 0 to .*, not ADU.*column white_level.* or give the raw frame"),
    ],
)
def test_pictures_among_the_lights_are_set_aside(night, name, words, reason):
    root, files = night
    picture = np.random.default_rng(3).random(SHAPE).astype("float32") * np.float32(0.01)
    rewrite(files[-1], files[-1].with_name(name), picture, **words)
    folder = open_folder(root)
    assert (counts(folder), len(folder.masters)) == (WHOLE, 0)
    with pytest.raises(WorkbenchError, match=reason):
        raise WorkbenchError(folder.set_aside[0][1])


def test_float_lights_are_scaled_by_a_stated_level(night):
    root, files = night
    light = files[-1]
    with fits.open(light) as units:
        level = units[0].data.astype("float32")
    rewrite(light, data=level / np.float32(65535))
    (root / "frames.csv").write_text(f"file,kind\nlights/{light.name},light\n")
    ((aside, why),) = open_folder(root).set_aside  # a kind alone does not make them ADU
    assert aside == light
    assert "column white_level" in why
    (root / "frames.csv").write_text(f"file,white_level\nlights/{light.name},65535\n")
    folder = open_folder(root)
    assert (counts(folder), folder.set_aside) == (WHOLE, [])
    np.testing.assert_allclose(folder.light[2].values, level, rtol=1e-6)
    assert folder.table["scale"].tolist() == [1.0] * 8 + [65535.0]


def test_a_float_frame_in_adu_is_a_frame(night):
    root, files = night
    with fits.open(files[-1]) as units:
        level = units[0].data.astype("float32")
    rewrite(files[-1], data=level)
    assert counts(open_folder(root)) == WHOLE


def test_lights_that_are_all_processed_are_refused_with_the_reason(night):
    root, files = night
    for path in files[-3:]:
        with fits.open(path) as units:
            level = units[0].data.astype("float32") / np.float32(65535)
        rewrite(path, data=level)
    with pytest.raises(
        WorkbenchError, match=r"no light frames .*set aside: .* not ADU, .*\(and 2 more files like it\)"
    ):
        _ = open_folder(root).light


def test_the_manifest_has_the_last_word(night):
    root, files = night
    rewrite(files[2], files[2].with_name("stack 7.fits"), DATE_OBS="2024-01-01T00:00:00", data=None)
    (root / "frames.csv").write_text("file,kind\ndarks/stack 7.fits,dark\n")
    with fits.open(files[2]) as units:
        rewrite(files[2], files[2].with_name("stack 7.fits"), units[0].data + np.uint16(1))
    assert counts(open_folder(root)) == WHOLE | {"dark": 3}


# mosaics


def colour_night(tmp_path, camera, **header):
    batches = [
        Batch("bias", 1, 0.0, header=header),
        Batch("flat", 2, 0.5, header=header),
        Batch("light", 2, 10.0, header=header),
    ]
    return write_frames(tmp_path, camera, batches)


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_a_mosaic_without_bayerpat_shows_in_the_pixels(tmp_path, pattern):
    colour_night(tmp_path, smart_telescope(SHAPE, cfa_pattern=pattern, camera="a camera"), BAYERPAT=None)
    folder = open_folder(tmp_path)
    taken = {"BGGR": "RGGB", "GBRG": "GRBG"}.get(pattern, pattern)
    assert set(folder.table["cfa_pattern"]) == {taken}
    assert {len(level) for level in folder.table["black_level"]} == {4}
    (warning,) = folder.warnings
    assert f"the pixels show a colour mosaic: taken for {taken}; if it is" in warning
    assert "frames.csv (column cfa)" in warning
    assert warning.endswith("and 4 more")


def test_a_mosaic_that_some_frames_state_is_that_of_all(tmp_path):
    written = colour_night(tmp_path, smart_telescope(SHAPE, camera="a camera"))
    rewrite(written[0][0], BAYERPAT=None)
    folder = open_folder(tmp_path)
    assert set(folder.table["cfa_pattern"]) == {"GRBG"}
    (warning,) = folder.warnings
    assert warning.startswith("no CFA pattern recorded, taken for GRBG as in the other frames of this camera")


@pytest.mark.parametrize(
    ("camera", "words", "asked"),
    [
        ("ZWO ASI294MC Pro", {}, True),
        ("QHY268C", {}, True),
        ("a camera", {"ISOSPEED": 800}, True),
        ("a camera", {}, False),
        ("ZWO ASI294MM Pro", {}, False),
        ("ZWO ASI294MC Pro", {"COLORTYP": "MONO"}, False),
    ],
)
def test_a_colour_camera_without_a_visible_mosaic_is_asked_about(tmp_path, camera, words, asked):
    dark = Batch("dark", 2, 60.0, header={"BAYERPAT": None} | words)
    write_frames(tmp_path, smart_telescope(SHAPE, camera=camera), [dark])
    folder = open_folder(tmp_path)
    assert set(folder.table["cfa_pattern"]) == {"mono"}
    told = (
        "no CFA pattern recorded, taken for mono; give it in frames.csv (column cfa): darks/dark_0000.fits and 1 more"
    )
    assert folder.warnings == ([told] if asked else [])


@pytest.mark.parametrize("words", [{"ISOSPEED": 800}, {"INSTRUME": "Canon EOS 6D"}])
def test_a_flat_without_a_mosaic_answers_the_question(tmp_path, words):
    batches = [Batch("flat", 1, 0.5, header=words), Batch("light", 2, 60.0, header=words)]
    write_frames(tmp_path, cooled(SHAPE), batches)
    folder = open_folder(tmp_path)
    assert (set(folder.table["cfa_pattern"]), folder.warnings) == ({"mono"}, [])


def test_colortyp_states_the_mosaic(tmp_path):
    words = {"BAYERPAT": None, "COLORTYP": "GRBG"}
    colour_night(tmp_path, smart_telescope(SHAPE), **words)
    folder = open_folder(tmp_path)
    assert (set(folder.table["cfa_pattern"]), folder.warnings) == ({"GRBG"}, [])


# what cannot be


def test_an_exposure_longer_than_the_time_to_the_next_frame_is_questioned(night):
    root, files = night
    for path in files[-3:]:
        rewrite(path, EXPTIME=60_000.0, EXPOSURE=60_000.0)
    (warning,) = open_folder(root).warnings
    assert warning.startswith("the exposure is longer than the time to the camera's next frame; is its unit seconds?")
    assert warning.endswith("lights/light_0006.fits (60000 s, the next frame 62 s later) and 1 more")


def test_frames_that_are_turned_among_others_are_reported(night):
    """Once for all of them; nothing where the rows of all frames run the same way."""
    root, files = night
    for path in files[:6]:
        rewrite(path, ROWORDER="BOTTOM-UP")
    (warning,) = open_folder(root).warnings
    assert warning.startswith("ROWORDER is BOTTOM-UP, that of other frames TOP-DOWN: turned over so that all are")
    assert warning.endswith(" and 5 more")
    for path in files[6:]:
        rewrite(path, ROWORDER=None)
    (silent,) = open_folder(root).warnings
    assert silent.startswith("no ROWORDER recorded, taken for top-down, while other frames are bottom-up")
    for path in files[6:]:
        rewrite(path, ROWORDER="BOTTOM-UP")
    assert open_folder(root).warnings == []


# real frames


def test_the_real_subs_of_a_smart_telescope_raise_no_question(real_data):
    folder = open_folder(real_data / "seestar-m94")
    table = folder.table
    assert (counts(folder), folder.set_aside, folder.warnings) == ({"light": 10}, [], [])
    assert set(table["cfa_pattern"]) == {"GRBG"}
    assert (set(table["gain_setting"]), set(table["exposure"])) == ({80.0}, {10.0})
    assert table["iso"].isna().all()
    assert [name.upper() for name in set(table["filter"])] == ["IRCUT"]
    assert (folder.cameras, folder.light.shape) == (["Seestar S50"], (10, 1920, 1080))


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_a_master_that_siril_stacked_is_set_aside(kind, tmp_path, siril):
    """Its floats run from 0 to 1: counted as a frame it would be subtracted as 0.01 ADU."""
    frames = [Batch("bias", 3, 0.0), Batch("dark", 3, 60.0), Batch("flat", 3, 1.0), Batch("light", 2, 60.0)]
    write_frames(tmp_path, cooled((64, 96)), [batch for batch in frames if batch.kind in (kind, "light")])
    folder = tmp_path / {"bias": "biases"}.get(kind, f"{kind}s")
    siril(folder, "convert f -out=../process", "cd ../process", f"stack f rej 3 3 -nonorm -out={folder}/stacked")
    master = folder / "stacked.fit"
    assert 0 < fits.getdata(master).mean() < 1
    (folder / "script.ssf").unlink()
    shutil.rmtree(tmp_path / "process")
    opened = open_folder(tmp_path, progress=False)
    assert opened.count(kind) == 3
    assert [(path, "STACKCNT 3" in reason) for path, reason in opened.set_aside] == [(master, True)]
