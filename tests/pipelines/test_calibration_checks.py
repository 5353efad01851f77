"""Darks and flats that do not fit the lights, light in darks; masters of other programs in place of raw frames."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from tests.scenes import frames_of, names_of
from workbench.calibrate import make_masters
from workbench.core.cube import digest
from workbench.core.errors import WorkbenchError
from workbench.core.statistics import mad_std
from workbench.ingest import open_folder
from workbench.pipelines import stack_folder
from workbench.pipelines.calibration_checks import check_masters, masters_cube, prepare_calibration
from workbench.simulate import d7000, dust, make_sky
from workbench.simulate.capture import Batch, cooled, write_frames
from workbench.simulate.night import make_night
from workbench.stack.fits_out import open_stack

SHAPE = (200, 240)
CAMERA = cooled(SHAPE)
FIELD = (256, 384)
SENSOR = cooled(FIELD, prnu=0.02)
SKY = make_sky(FIELD, stars=60, nebula=0.3, seed=5)


def sensor():
    """The camera's true gain and read noise, as `open_sensor` gives them."""
    numbers = {"gain": CAMERA.gain(0.0), "read_noise": CAMERA.read_noise(0.0)}
    data = {name: (("gain_setting", "channel"), [[value]]) for name, value in numbers.items()}
    return xr.Dataset(data, {"gain_setting": [0.0], "channel": ["mono"]}, {"code_step": CAMERA.step})


@pytest.fixture
def night(tmp_path):
    """Raw frames of all kinds in one folder."""
    batches = [Batch("bias", 8, 0.0), Batch("dark", 8, 60.0), Batch("flat", 8, 1.0), Batch("light", 3, 60.0)]
    sky = make_sky(SHAPE, stars=60, faintest=30.0, brightest=600.0, step=16.0, seed=3)
    write_frames(tmp_path / "raw", CAMERA, batches, sky=sky)
    return tmp_path / "raw"


def test_masters_of_siril_calibrate_as_their_raw_frames_do(night, tmp_path, siril):
    own = tmp_path / "own"
    shutil.copytree(night / "lights", own / "lights")
    (own / "masters").mkdir()
    for folder, stacked, *more in (
        ("biases", "f", "-nonorm"),
        ("darks", "f", "-nonorm"),
        ("flats", "pp_f", "-norm=mul"),
    ):
        process = tmp_path / f"process_{folder}"
        calibrated = [f"preprocess f -bias={own}/masters/biases_stacked"] if stacked == "pp_f" else []
        siril(
            night / folder, f"convert f -out={process}", f"cd {process}", *calibrated,
            f"stack {stacked} rej 3 3 {more[0]} -out={own}/masters/{folder}_stacked",
        )  # fmt: skip
        (night / folder / "script.ssf").unlink()
    settings = {"sensor": sensor(), "reference": "light_0024", "progress": False}
    raw = stack_folder(night, tmp_path / "raw.fits", **settings)
    adopted = stack_folder(own, tmp_path / "own.fits", **settings)
    assert adopted.plan[0].endswith("a master bias, a master dark, a master flat")
    assert adopted.set_aside == []
    assert sum("of 8 frames" in text and "65535" in text for text in adopted.warnings) == 3
    assert adopted.units == "electron"
    first, second = (open_stack(result.path) for result in (raw, adopted))
    apart = (first.signal - second.signal).values
    error = np.sqrt(first.variance.values)
    assert np.sqrt(np.nanmean((apart / error) ** 2)) < 0.2  # of the same frames: only what is rejected differs
    assert abs(np.nanmean(apart / error)) < 0.02
    np.testing.assert_allclose(np.nanmedian(second.variance / first.variance), 1, atol=0.02)


def master(folder, kind, name="old_master", change=None, **words):
    """The first raw frames of a kind as the master of some program, in place of all of them."""
    files = sorted((folder / {"bias": "biases"}.get(kind, f"{kind}s")).glob("*.fits"))
    header = fits.getheader(files[0])
    mean = np.mean([fits.getdata(file) for file in files], axis=0, dtype=np.float32)
    if kind == "flat":
        mean -= CAMERA.black_level
    for file in files:
        file.unlink()
    for key in ("BZERO", "BSCALE"):
        header.remove(key, ignore_missing=True)
    for key, value in {"IMAGETYP": f"Master {kind}", "NCOMBINE": len(files), **words}.items():
        header[key.replace("_", "-")] = value
        if value is None:
            del header[key.replace("_", "-")]
    fits.writeto(files[0].with_name(f"{name}.fits"), mean if change is None else change(mean), header)


@pytest.mark.parametrize(
    ("kind", "words", "change", "reason"),
    [
        ("dark", {"GAIN": 200}, None, "it has gain setting 200, the lights gain setting 0"),
        ("bias", {"OFFSET": 10}, None, "it has offset setting 10, the lights offset setting 50"),
        ("dark", {"XBINNING": 2, "YBINNING": 2}, None, "it has 2 x 2 binning, the lights another"),
        ("dark", {"EXPTIME": None, "EXPOSURE": None}, None, "it does not state its exposure"),
        ("dark", {"INSTRUME": "another"}, None, "it is of the camera another, the lights of"),
        ("flat", {"BAYERPAT": "RGGB"}, None, "its CFA pattern is RGGB, that of the lights mono"),
        ("flat", {}, lambda values: values[::2], "it has 240 x 100 pixels, the lights 240 x 200"),
        ("flat", {}, lambda values: values / values.mean(), "normalised"),
        ("dark", {}, lambda values: values - 800, "of its pixels are 0 or less: its offset was subtracted"),
        ("dark", {}, lambda values: values - 750, "that of no signal 800 ADU: its offset was subtracted"),
        ("bias", {}, lambda values: values / 5000, "is above the .* of lights/light_0024.fits: its scale is another"),
    ],
)  # fmt: skip
def test_masters_that_do_not_fit_are_left_out(night, kind, words, change, reason):
    master(night, kind, change=change, **words)
    folder = prepare_calibration(open_folder(night, progress=False))
    assert folder.adopted.empty
    ((path, why),) = folder.set_aside
    assert path.stem == "old_master"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(why)


def test_what_a_master_does_not_state_is_reported(night, tmp_path):
    master(night, "dark", NCOMBINE=None, CCD_TEMP=None, SET_TEMP=None, DATE_OBS=None)
    master(night, "bias", DATE_OBS="2022-01-01T00:00:00")
    raw_flats = open_folder(night, progress=False)
    folder = prepare_calibration(raw_flats)
    assert sorted(folder.adopted["kind"]) == ["bias", "dark"]
    said = "\n".join(folder.warnings)
    assert "does not state of how many frames" in said
    assert "it states no temperature; how old it is, is not known" in said
    assert "a master bias of 8 frames" in said
    assert "days from the lights" in said
    assert digest(folder.adopted)
    result = stack_folder(night, tmp_path / "stack.fits", progress=False)  # the gain from the raw flats
    assert result.units == "electron"
    assert result.plan[0].endswith("a master bias, a master dark, 8 flats")
    chi = result.chi_square["mono"]
    assert 0.9 < chi < 1.1


def test_raw_frames_come_before_a_master(night):
    master(night, "flat")
    files = sorted((night / "darks").glob("*.fits"))
    with fits.open(files[0]) as units:
        header = units[0].header
        header["IMAGETYP"] = "Master Dark"
        fits.writeto(night / "darks" / "calibration.fits", units[0].data.astype(np.float32), header)
    folder = prepare_calibration(open_folder(night, progress=False))
    assert folder.adopted["kind"].tolist() == ["flat"]
    assert [why for _, why in folder.set_aside if "the raw dark frames are used" in why]


def test_lights_from_0_to_1_stack_as_the_same_in_adu(night, tmp_path):
    expected = open_stack(stack_folder(night, tmp_path / "adu.fits", progress=False).path)
    lights = sorted((night / "lights").glob("*.fits"))
    for path in lights:
        with fits.open(path) as units:
            header, values = units[0].header, units[0].data / np.float32(65535)
        header.remove("BZERO"), header.remove("BSCALE")
        fits.writeto(path, values, header, overwrite=True)
    lines = [f"lights/{path.name},65535" for path in lights]
    (night / "frames.csv").write_text("\n".join(["file,white_level", *lines, ""]))
    stack = open_stack(stack_folder(night, tmp_path / "unit.fits", progress=False).path)
    np.testing.assert_allclose(stack.signal, expected.signal, atol=0.02)


def test_a_master_of_pixinsight_is_adopted(night):
    xisf = pytest.importorskip("xisf").XISF
    master(night, "dark")
    path = night / "darks" / "old_master.fits"
    with fits.open(path) as units:
        words = {key: [{"value": str(value), "comment": ""}] for key, value in units[0].header.items() if key}
        xisf.write(
            str(path.with_suffix(".xisf")),
            units[0].data[..., None] / np.float32(65535),
            image_metadata={"FITSKeywords": words},
        )
        level = units[0].data.mean()
    path.unlink()
    folder = prepare_calibration(open_folder(night, progress=False))
    assert folder.adopted[["kind", "combined", "scale"]].values.tolist() == [["dark", 8.0, 65535.0]]
    cube = masters_cube(folder.adopted)
    assert float(cube.mean()) == pytest.approx(level, rel=1e-5)


def with_overscan(folder, drift, lit=False):
    """Give the frames of a folder 24 columns of overscan and add a drift [ADU] of the level to each frame."""
    rng = np.random.default_rng(5)
    for number, path in enumerate(sorted(folder.rglob("*.fits"))):
        with fits.open(path) as units:
            header, values = units[0].header, units[0].data.astype(float)
        scan = rng.normal(CAMERA.black_level, 28.0, (SHAPE[0], 24)) + lit * (values.mean() - CAMERA.black_level)
        wide = np.hstack([values, scan.round()]) + drift(number)
        for key in ("BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        header["BIASSEC"] = f"[{SHAPE[1] + 1}:{SHAPE[1] + 24},1:{SHAPE[0]}]"
        fits.writeto(path, wide.clip(0, 65535).astype(np.uint16), header, overwrite=True)


def test_the_black_level_follows_a_drifting_overscan(night, tmp_path):
    settings = {"sensor": sensor(), "reference": "light_0024", "progress": False}
    expected = open_stack(stack_folder(night, tmp_path / "steady.fits", **settings).path)
    with_overscan(night, lambda number: 7 * number)
    result = stack_folder(night, tmp_path / "drift.fits", **settings)
    found = open_stack(result.path)
    (said,) = (text for text in result.warnings if "overscan drifts" in text)
    error = 28.0 / np.sqrt(18 * 150) * CAMERA.gain(0.0)
    apart = float(np.nanmedian(found.signal - expected.signal))
    assert abs(apart) < 5 * error, said
    np.testing.assert_allclose(np.nanmedian(found.variance / expected.variance), 1, atol=0.02)


def test_an_overscan_that_does_not_drift_or_sees_light_changes_nothing(night):
    with_overscan(night, lambda number: 0)
    frames = open_folder(night, progress=False)
    assert not prepare_calibration(frames).table["shift"].any()
    assert frames.light.shape[1:] == SHAPE
    for path in night.rglob("*.fits"):
        header = fits.getheader(path)
        header.remove("BZERO"), header.remove("BSCALE")
        fits.writeto(path, fits.getdata(path)[:, : SHAPE[1]], header, overwrite=True)
    with_overscan(night, lambda number: 0, lit=True)
    frames = prepare_calibration(open_folder(night, progress=False))
    assert not frames.table["shift"].any()
    assert any("BIASSEC is not an overscan" in text for text in frames.warnings)


def warnings_with(leak, seed):
    camera = d7000(seed=seed, shape=(192, 256), vignetting=0.0)

    def shot(kind, exposure, count, rate=0.0):
        shots, names = [(exposure, 10.0)] * count, names_of(kind, count)
        return frames_of(camera, kind, shots, rate=rate, seed=lambda number: [number, len(kind)], filename=names)

    light = shot("light", 120.0, 2, rate=np.full(4, 0.5))
    cubes = {"bias": shot("bias", 1 / 8000, 4), "dark": shot("dark", 120.0, 4, rate=leak)}
    return check_masters(light, cubes, make_masters(light, **cubes, progress=False)).warnings


@pytest.mark.parametrize("leak", [[0.12, 0.2, 0.2, 0.14], np.linspace(0, 0.4, 256) * np.ones((192, 1))])
def test_light_in_the_darks_is_named(leak):
    assert any("light leaks into the master dark" in text for text in warnings_with(np.array(leak), 1))


def test_honest_darks_are_not_called_lit():
    assert not any("light leaks" in text for seed in range(4) for text in warnings_with(0.0, seed))


def leak():
    """Light that enters the flats from one side, the edge: up to 15 %."""
    y, x = np.indices(FIELD)
    return 1 + 0.15 * np.exp(-((x - 390) ** 2 + (y - 120) ** 2) / 2 / 90**2)


def warned(folder, flats=(), lights=(), darks=()):
    """The warnings on flats and darks of a run with frames so changed."""
    batches = [
        Batch("bias", 6, 0.0), Batch("dark", 6, 60.0, **dict(darks)), Batch("flat", 8, 1.0, **dict(flats)),
        Batch("light", 4, 60.0, **dict(lights)),
    ]  # fmt: skip
    write_frames(folder, SENSOR, batches, sky=SKY, seed=3)
    result = stack_folder(folder, folder / "stack.fits", progress=False)
    return [text for text in result.warnings if text.startswith(("the flats (", "the sky of", "the darks ("))]


def test_flats_that_fit_are_not_warned_of(tmp_path):
    motes = {"through": dust(FIELD, motes=4, depth=0.2, seed=6)}
    assert warned(tmp_path, motes, motes) == []


def test_light_that_leaked_into_the_flats_is_named(tmp_path):
    (text,) = warned(tmp_path, {"through": leak()})
    assert "the flats (flats/flat_0012.fits and 7 more) do not fit the lights (lights/light_0020.fits and 3" in text
    assert "light came into the flats that does not come into the lights" in text


def test_dust_that_moved_is_named(tmp_path):
    motes = dust(FIELD, motes=4, depth=0.3, seed=6)
    (text,) = warned(tmp_path, {"through": motes}, {"through": np.roll(motes, (60, 100), (0, 1))})
    assert "dust moved between flats and lights" in text


def test_an_offset_left_in_the_flats_is_named_with_its_size(tmp_path):
    flats = {"offset_setting": 150.0, "lamp": 0.15, "header": {"OFFSET": None}}
    (text,) = warned(tmp_path, flats)
    left = re.search("the lights are under-corrected by .* or an offset of ([0-9,]+) ADU was left in the flats", text)
    assert float(left[1].replace(",", "")) == pytest.approx(100 * SENSOR.offset_step, rel=0.25)


@pytest.mark.parametrize(("offset", "word"), [(54.0, "high"), (30.0, "low")])
def test_darks_of_an_unstated_offset_are_named_with_its_size_and_error(tmp_path, offset, word):
    (text,) = warned(tmp_path, darks={"offset_setting": offset, "header": {"OFFSET": None}})
    assert "do not fit the lights (lights/light_0020.fits and 3 more)" in text
    found = re.search(rf"subtracted from them is ([\d.]+) ± ([\d.]+) e- too {word} \(darks or bias of another", text)
    value, error = float(found[1]), float(found[2])
    truth = abs(offset - 50) * SENSOR.offset_step * SENSOR.gain(0)
    assert abs(value - truth) < 3 * error + 0.03 * truth  # a pixel's neighbours are not all of its surroundings
    assert error < 0.25 * truth


def test_darks_above_the_lights_are_named(tmp_path):
    (text,) = warned(tmp_path, darks={"offset_setting": 145.0, "header": {"OFFSET": None}})
    assert "the sky of 4 lights (lights/light_0020.fits) lies" in text
    assert "below the darks (darks/dark_0006.fits and 5 more): the darks are of another offset or gain setting" in text


@pytest.mark.parametrize(
    ("darks", "words"),
    [
        ({"gain_setting": 0.0}, "the darks have gain setting 0 .*, the lights gain setting 100"),
        ({"gain_setting": 100.0, "offset_setting": 63.0}, "the darks have offset setting 63 .* offset setting 50"),
    ],
)
def test_darks_of_another_stated_setting_are_refused(tmp_path, darks, words):
    same = {"gain_setting": 100.0}
    batches = [Batch("dark", 3, 60.0, **darks), Batch("light", 3, 60.0, **same)]
    write_frames(tmp_path, CAMERA, batches, sky=make_sky(SHAPE, stars=60, seed=3))
    with pytest.raises(WorkbenchError, match=words):
        stack_folder(tmp_path, tmp_path / "stack.fits", progress=False)
    write_frames(tmp_path, CAMERA, [Batch("dark", 3, 60.0, **same)], seed=9)
    result = stack_folder(tmp_path, tmp_path / "stack.fits", progress=False)
    assert "calibrated with 3 darks" in result.plan[0]


def test_the_variance_under_thin_clouds_is_that_of_the_frames(tmp_path):
    views = make_night(SKY, 6, exposure=60.0, background=(4.0,) * 3, seed=4)
    views = [*views[:3], *(replace(view, transparency=0.4, background=(10.0,) * 3) for view in views[3:])]
    calibration = [Batch("bias", 8, 0.0), Batch("dark", 8, 60.0), Batch("flat", 12, 1.0)]
    write_frames(tmp_path, SENSOR, calibration, seed=3)
    signals = []
    for seed in (1, 2):  # the same night twice: half the variance of the difference is the noise
        for path in (tmp_path / "lights").glob("*"):
            path.unlink()
        write_frames(tmp_path, SENSOR, [Batch("light", 6, 60.0, views=views)], sky=SKY, seed=seed)
        stack = open_stack(stack_folder(tmp_path, tmp_path / "s.fits", reference="light_0000", progress=False).path)
        signals.append(stack.signal.values[0, 20:-20, 20:-20])
    apart = signals[0] - signals[1]
    apart -= gaussian_filter(apart, 24)  # what the scales' errors do to the whole sky
    share = json.loads(stack.attrs["pixel_variance_share"])["mono"]
    stated = share * (stack.variance - stack.shared_variance).values[0, 20:-20, 20:-20]
    sky = signals[0] < np.percentile(signals[0], 90)
    assert np.median(stated[sky]) / (mad_std(apart[sky]) ** 2 / 2) == pytest.approx(1, abs=0.06)
