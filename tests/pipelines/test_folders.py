"""Folders as capture programs leave them when something went wrong: the right answer, or the true cause in words."""

import re
import struct

import numpy as np
import pytest
import tifffile
from astropy.io import fits
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter, maximum_filter

from tests.scenes import debayered
from workbench.cli import main
from workbench.core.errors import WorkbenchError
from workbench.ingest.catalogue import open_folder
from workbench.pipelines import characterize
from workbench.pipelines.calibration_checks import prepare_calibration
from workbench.pipelines.finishing import finish_stack
from workbench.pipelines.stacking import stack_folder
from workbench.simulate.capture import Batch, cooled, smart_telescope, write_frames
from workbench.simulate.sky import make_sky
from workbench.stack.fits_out import open_stack

SHAPE = (120, 160)
BATCHES = [Batch("bias", 4, 0.0), Batch("dark", 4, 60.0), Batch("flat", 4, 1.0), Batch("light", 3, 60.0)]


def night(folder, batches=BATCHES, camera=None, program="nina", shape=SHAPE):
    return write_frames(
        folder, camera or cooled(shape, offset_step=20.0), batches, program=program, seed=3,
        sky=make_sky(shape, stars=40, seed=5),
    )  # fmt: skip


def rewrite(written, kinds, change):
    """Write the frames of some kinds again, as ``change(pixels, header)`` gives them."""
    for path, batch, _ in written:
        if batch.kind in kinds:
            with fits.open(path) as units:
                pixels, header = units[0].data, units[0].header.copy()
            for key in ("BZERO", "BSCALE"):
                header.remove(key, ignore_missing=True)
            pixels = change(pixels, header)
            fits.writeto(path, pixels, header, overwrite=True)


def stated(key, value):
    def change(pixels, header):
        header[key] = value
        return pixels

    return change


def test_flats_whose_filter_the_program_forgot_are_named(tmp_path):
    through = [Batch(kind, 3, time, filter=name) for name in "RG" for kind, time in (("flat", 1.0), ("light", 60.0))]
    written = night(tmp_path, [*BATCHES[:2], *through], program="ekos")
    flats = [path for path, batch, _ in written if batch.kind == "flat"]
    for path in flats[2:5]:
        with fits.open(path, mode="update") as units:
            units[0].header.remove("FILTER")
    plan = stack_folder(tmp_path, tmp_path / "s.fits", dry_run=True, progress=False).plan
    assert any("3 flats state no FILTER, where others do, and are not used (flats/" in line for line in plan)


def test_a_mosaic_that_the_pixels_contradict_is_reported(tmp_path):
    written = night(tmp_path, camera=smart_telescope(SHAPE), program="asiair")
    assert not [text for text in open_folder(tmp_path).warnings if "mosaic" in text]
    rewrite(
        written, ("bias", "dark", "flat", "light"), stated("BAYERPAT", "RGGB")
    )  # the driver mirrors, and says nothing
    (warning,) = (text for text in open_folder(tmp_path).warnings if "mosaic" in text)
    assert "stated as RGGB, but the pixels show green on the other diagonal: GRBG" in warning
    assert warning.endswith("and 14 more")


def test_what_is_missing_for_the_masters_is_looked_for_among_what_was_set_aside(tmp_path):
    written = night(tmp_path, camera=smart_telescope(SHAPE), program="asiair")
    rewrite(written, ("bias",), stated("BAYERPAT", "BGGR"))
    with pytest.raises(WorkbenchError, match="offset is not known.*set aside: biases/.*its mosaic is BGGR.*3 more"):
        stack_folder(tmp_path, tmp_path / "s.fits", progress=False)


def test_flats_saved_as_signed_numbers_end_in_words(tmp_path):
    written = night(tmp_path, [*BATCHES[:2], Batch("flat", 4, 1.0, lamp=0.8), BATCHES[3]], program="maxim")
    rewrite(written, ("flat",), lambda pixels, _: pixels.astype("uint16").view("int16"))
    with pytest.raises(WorkbenchError, match="none of 4 frames can be read: flats/.*values below zero"):
        stack_folder(tmp_path, tmp_path / "s.fits", progress=False)


def test_flats_that_the_header_calls_lights_are_reported(tmp_path):
    rewrite(night(tmp_path, program="sgp"), ("flat",), stated("IMAGETYP", "LIGHT"))
    folder = open_folder(tmp_path)
    assert folder.count("light") == 7
    (warning,) = (text for text in folder.warnings if "the header says" in text)
    assert warning.startswith("the header says 'LIGHT', the folder flat: it counts as light")
    assert warning.endswith("flats/flat_0008.fits and 3 more")


def test_a_light_among_the_flats_is_found_by_its_content(tmp_path):
    flats = [Batch("flat", 4, 1.0), Batch("flat", 2, 60.0, lamp=0.3)]  # those of a minute are none
    written = night(tmp_path, [*BATCHES[:2], *flats, Batch("light", 4, 60.0)])
    moved = written[-1][0].rename(tmp_path / "flats" / "moved.fits")
    with fits.open(moved, mode="update") as units:
        units[0].header.remove("IMAGETYP")
    folder = open_folder(tmp_path)
    assert (folder.count("flat"), folder.count("light")) == (7, 3)
    left = prepare_calibration(folder)
    ((path, reason),) = left.set_aside
    assert (path, left.count("flat")) == (moved, 6)
    assert reason.startswith("is a light among the flats: like the lights of its 60 s")
    assert (moved, reason) in characterize(tmp_path, progress=False).set_aside


def test_numbers_with_a_decimal_comma(tmp_path):
    written = night(tmp_path, program="sgp")
    rewrite(written, ("dark",), stated("EXPOSURE", "60,0"))
    rewrite(written, ("dark",), stated("CCD-TEMP", "-9,5"))
    dark = open_folder(tmp_path).dark
    assert (set(dark.exposure.values), set(dark.temperature.values)) == ({60.0}, {-9.5})


def test_a_dwarf_and_its_masters(tmp_path):
    taken = {"temperature": 24.0, "gain_setting": 60.0}
    written = night(
        tmp_path, [Batch("dark", 8, 15.0, **taken), Batch("light", 3, 15.0, filter="Astro", **taken)],
        smart_telescope(SHAPE, cfa_pattern="RGGB", camera="DWARFIII"), "dwarf",
    )  # fmt: skip
    night_folder, masters = tmp_path / "DWARF_RAW_TELE_M 31_EXP_15_GAIN_60", tmp_path / "CALI_FRAME" / "dark" / "cam_0"
    masters.mkdir(parents=True)
    (tmp_path / "lights").rename(night_folder)
    darks = [fits.getdata(path).astype(float) for path, batch, _ in written if batch.kind == "dark"]
    for path, batch, _ in written:
        if batch.kind == "dark":
            path.unlink()
    name = "dark_exp_15.000000_gain_60_bin_1_24C_stack_8.fits"
    fits.writeto(masters / name, np.mean(darks, axis=0).round().astype("uint16"))
    flat = np.full(SHAPE, 9000, "uint16")
    (tmp_path / "CALI_FRAME" / "flat").mkdir()
    fits.writeto(tmp_path / "CALI_FRAME" / "flat" / "flat_gain_2_bin_1_ir_1.fits", flat)
    fits.writeto(tmp_path / "CALI_FRAME" / "flat" / "flat_gain_2_bin_1_ir_2.fits", flat + 9)
    folder = prepare_calibration(open_folder(tmp_path))
    assert (folder.count("light"), set(folder.light.temperature.values)) == (3, {24.0})
    adopted = folder.adopted.set_index("kind")
    wanted = ["exposure", "gain_setting", "temperature", "combined"]
    assert adopted.loc["dark", wanted].tolist() == [15.0, 60.0, 24.0, 8.0]
    assert sorted(adopted.loc["flat", "filter"]) == ["ASTRO", "DUO-BAND"]


def masters_alone(folder, written):
    """Replace the raw calibration frames by masters as Siril writes them."""
    means = {}
    for kind in ("bias", "dark", "flat"):
        paths = [path for path, batch, _ in written if batch.kind == kind]
        means[kind] = np.mean([fits.getdata(path).astype(float) for path in paths], axis=0)
        header = fits.getheader(paths[0])
        for key in ("BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        header["STACKCNT"], header["IMAGETYP"] = len(paths), f"Master {kind}"
        master = means[kind] - (means["bias"] if kind == "flat" else 0)
        (folder / "masters").mkdir(exist_ok=True)
        fits.writeto(folder / "masters" / f"master_{kind}.fits", (master / 65535).astype("float32"), header)
        for path in paths:
            path.unlink()


@pytest.mark.parametrize("factor", [1, 3])
def test_with_masters_alone_the_header_gives_the_gain_and_the_lights_check_it(tmp_path, factor):
    shape = (480, 640)
    y, x = np.mgrid[: shape[0], : shape[1]]
    dim = 1 - 0.7 * ((y - 240) ** 2 + (x - 320) ** 2) / (240**2 + 320**2)  # vignetting gives the lights their levels
    written = night(
        tmp_path,
        [
            Batch("bias", 12, 0.0), Batch("dark", 12, 60.0), Batch("flat", 12, 1.0, through=dim),
            Batch("light", 6, 60.0, through=dim),
        ],
        shape=shape,
    )  # fmt: skip
    if factor > 1:
        egain = fits.getheader(written[-1][0])["EGAIN"]
        rewrite(written, ("light",), stated("EGAIN", factor * egain))
    masters_alone(tmp_path, written)
    result = stack_folder(tmp_path, tmp_path / "s.fits", progress=False)
    assert result.units == "electron"
    assert any("the gain at gain setting 0 is what the headers state, EGAIN" in text for text in result.warnings)
    chi = result.chi_square["mono"]
    if factor == 1:
        assert chi == pytest.approx(1, abs=0.1)
        assert fits.getheader(result.path)["EGAIN"] == pytest.approx(cooled(shape).gain(0), rel=1e-3)
        assert not any("gain does not fit" in text for text in result.warnings)
    else:
        (doubt,) = (text for text in result.warnings if "header's gain does not fit" in text)
        found, error = map(float, re.search(r"as ([\d.]+) ± ([\d.]+) e-/ADU makes it", doubt).groups())
        assert abs(found - cooled(shape).gain(0)) < 4 * error < found


def test_a_drifting_overscan_is_followed_when_the_camera_is_measured(tmp_path):
    camera = cooled(SHAPE, offset_step=20.0)
    written = night(
        tmp_path, [Batch("bias", 8, 0.0), *(Batch("flat", 2, 1.0, lamp=lamp) for lamp in (0.1, 0.2, 0.35, 0.5, 0.7))],
        camera,
    )  # fmt: skip
    rewrite(written, ("bias", "flat"), lambda pixels, _: pixels // 16)  # a converter's codes, as they drift
    steady = characterize(tmp_path, progress=False).sensor
    rng, drift = np.random.default_rng(5), np.random.default_rng(6)

    def widen(pixels, header):
        scan = rng.normal(camera.black_level / 16, 1.8, (SHAPE[0], 32))
        header["BIASSEC"] = f"[{SHAPE[1] + 1}:{SHAPE[1] + 32},1:{SHAPE[0]}]"
        return (np.hstack([pixels, scan]) + drift.normal(0, 4)).round().clip(0, 65535).astype("uint16")

    rewrite(written, ("bias", "flat"), widen)
    result = characterize(tmp_path, progress=False)
    assert any("the level of the overscan drifts" in text for text in result.warnings)
    for name in ("gain", "read_noise"):
        found, error = (result.sensor[key].values.item() for key in (name, f"{name}_error"))
        assert found == pytest.approx(steady[name].values.item(), abs=4 * error + 0.005 * found), name


@pytest.mark.parametrize("form", ["fits", "tif", "ser"])
def test_lights_in_colour_are_aligned_stacked_and_finished(tmp_path, form):
    """Debayered and smoothed, so that nothing shows what was measured: the stars' light is that of the raw frames."""
    shape = (240, 320)
    taken = [Batch("light", 5, 60.0)]
    written = night(tmp_path / "raw", taken, smart_telescope(shape, dark_current=0.01), "seestar", shape)
    folder = tmp_path / "colour" / "lights"
    folder.mkdir(parents=True)
    pictures = []
    for number, (path, _, _) in enumerate(written):
        planes = debayered(fits.getdata(path), "GRBG")
        smooth = gaussian_filter(planes.astype(float), (0, 1.0, 1.0)).round().astype("uint16")
        pictures.append(np.moveaxis(smooth, 0, -1))
        if form == "fits":
            fits.writeto(folder / path.name, smooth, fits.Header({"EXPTIME": 60.0, "IMAGETYP": "Light"}))
        elif form == "tif":
            tifffile.imwrite(folder / f"light_60s_{number}.tif", pictures[-1], photometric="rgb")
    if form == "ser":
        head = struct.pack(
            "<14s7i40s40s40s2q", b"LUCAM-RECORDER", 0, 100, 0, shape[1], shape[0], 16, 5, b"", b"C", b"", 1, 1
        )
        (folder / "m31_60s.ser").write_bytes(head + b"".join(frame.astype("<u2").tobytes() for frame in pictures))
    first = written[0][0].name
    names = {"raw": first, "colour": {"fits": first, "tif": "light_60s_0.tif", "ser": "m31_60s.ser#0000"}[form]}
    light = {}
    for name, reference in names.items():
        result = stack_folder(tmp_path / name, tmp_path / f"{name}.fits", reference=reference, progress=False)
        assert result.frames["used"].all()
        light[name] = open_stack(result.path).signal.values
    assert any("neighbours share noise: errors of areas are about" in text for text in result.warnings)
    green = np.nan_to_num(light["raw"][1])
    peaks = np.argwhere((green == maximum_filter(green, 25)) & (green > np.median(green) + 200))
    ratios = []
    for y, x in peaks:
        if min(y, x) > 20 and y < shape[0] - 20 and x < shape[1] - 20:
            parts = [light[name][:, y - 9 : y + 10, x - 9 : x + 10] for name in names]
            inner = np.hypot(*np.mgrid[-9:10, -9:10]) <= 7
            sky = [np.nanmedian(part[:, ~inner], axis=1)[:, None] for part in parts]
            raw, colour = (np.nansum(part[:, inner] - level, axis=1) for part, level in zip(parts, sky, strict=True))
            ratios.append(colour / raw)
    assert len(ratios) >= 4
    np.testing.assert_allclose(np.median(ratios, axis=0), 1, atol=0.05)
    assert finish_stack(tmp_path / "colour.fits", tmp_path / "night.png", progress=False) is not None


def test_a_comet_that_rejection_removes_is_reported_by_the_command(tmp_path):
    written = night(tmp_path, [*BATCHES[:3], Batch("light", 8, 60.0)], shape=(200, 260))
    lights = [(path, view) for path, batch, view in written if batch.kind == "light"]
    y, x = np.mgrid[:200, :260]
    for number, (path, view) in enumerate(lights):
        px, py, _ = view.matrix @ (80 + 9 * number, 60 + 5 * number, 1)  # a straight line in the sky
        with fits.open(path, mode="update") as units:
            coma = 900 * np.exp(-((y - py) ** 2 + (x - px) ** 2) / (2 * 1.8**2))
            units[0].data = (units[0].data + 16 * coma.round()).clip(0, 65535).astype("uint16")
    done = CliRunner().invoke(main, ["stack", str(tmp_path), "--out", str(tmp_path / "s.fits")])
    assert done.exit_code == 0, done.output
    (line,) = (line for line in done.output.splitlines() if "moves" in line)
    assert "rejection" in line


def test_lights_with_doubled_stars_are_set_aside_and_never_the_reference(tmp_path):
    """A jump of the guiding: each star twice, half as bright."""
    written = night(tmp_path, [*BATCHES[:3], Batch("light", 6, 60.0)], shape=(200, 260))
    lights = [path for path, batch, _ in written if batch.kind == "light"]
    for path in lights[1::3]:
        with fits.open(path, mode="update") as units:
            half = units[0].data.astype(float) / 2
            units[0].data = (half + np.roll(half, (4, 8), (0, 1))).round().astype("uint16")
    done = stack_folder(tmp_path, tmp_path / "s.fits", progress=False)
    frames = done.frames.set_index("file")
    doubled = [f"lights/{path.name}" for path in lights[1::3]]
    assert not frames.loc[doubled, "used"].any()
    assert frames["used"].sum() == 4
    assert frames.loc[doubled, "reason"].str.contains("doubled").all()
    names = tuple(path.name for path in lights[1::3])
    without = stack_folder(tmp_path, tmp_path / "without.fits", exclude=names, progress=False)
    np.testing.assert_array_equal(*(open_stack(one.path).signal.values for one in (done, without)))


def test_darks_are_scaled_to_the_lights_by_the_typed_command(tmp_path):
    """Darks six kelvin warmer than they say: the factor is that of the dark law, within three of its errors."""
    camera = cooled(SHAPE, dark_current=0.3, hot_fraction=0.01)
    warm = Batch("dark", 6, 60.0, temperature=26.0, header={"CCD-TEMP": 20.0, "SET-TEMP": 20})
    light = Batch("light", 4, 60.0, temperature=20.0)
    night(tmp_path, [Batch("bias", 6, 0.0), warm, Batch("flat", 6, 1.0), light], camera)
    command = ["stack", str(tmp_path), "--out", str(tmp_path / "s.fits"), "--overwrite"]
    done = CliRunner().invoke(main, command)
    assert "do not fit" in done.output
    done = CliRunner().invoke(main, [*command, "--scale-darks"])
    assert done.exit_code == 0, done.output
    assert "do not fit" not in done.output
    factor, error = map(float, re.search(r"darks scaled by ([\d.]+) ± ([\d.]+)", done.output).groups())
    truth = camera.mean_dark_current(20) / camera.mean_dark_current(26)
    assert abs(factor - truth) < 3 * error
    assert error < 0.05


def test_few_stars_give_the_scale_of_mixed_exposures_within_its_error(tmp_path):
    """Also where the search is narrower than the stars: a frame's light was 6 % short of its stars' there."""
    batches = [Batch("bias", 4, 0.0), Batch("dark", 3, 60.0), Batch("dark", 3, 100.0), Batch("flat", 4, 1.0)]
    batches += [Batch("light", 2, 60.0), Batch("light", 3, 100.0)]
    shape = (240, 320)
    written = write_frames(tmp_path, cooled(shape), batches, sky=make_sky(shape, stars=38, seed=5), seed=5)
    done = stack_folder(tmp_path, tmp_path / "s.fits", progress=False)
    light = {f"lights/{path.name}": batch.exposure * view.transparency for path, batch, view in written if view}
    frames = done.frames.set_index("file")
    (reference,) = frames.index[frames["scale"] == 1]
    off = np.log(frames["scale"]) + np.log([light[name] / light[reference] for name in frames.index])
    assert (off.abs() < 3 * frames["scale_error"] / frames["scale"] + 0.01).all(), off  # the reference's own error
