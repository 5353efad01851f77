"""A folder in, a stack out: against the truth of a simulated night, and what goes wrong on the way."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from workbench.cli import main
from workbench.core.cube import XTRANS
from workbench.core.errors import FrameReadError, StageError, WorkbenchError
from workbench.finish import FinishSettings, make_picture, read_picture, write_picture
from workbench.ingest import reader
from workbench.pipelines import finish_stack, settings_from, stack_folder, stack_outputs
from workbench.plan import hours
from workbench.simulate import sky as virtual
from workbench.simulate.capture import Batch, cooled, write_frames
from workbench.simulate.night import write_night
from workbench.simulate.sky import star_table
from workbench.stack.fits_out import open_stack
from workbench.stack.window import BAND

SHAPE = (352, 480)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    return write_night(
        folder, shape=SHAPE, stars=90, faintest=30.0, brightest=600.0, lights=5, biases=5, darks=5, flats=5,
        suffix="fits", trails=1, trail_electrons=900.0, cosmic_rays=20, dither=5.0, seed=11, progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(night, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "stack.fits"
    return stack_folder(night.folder, out, reference="light_0000", progress=False)


def flux_ratios(night, signal, number=0):
    """The measured over the true light of lone stars (star, channel), in the first light's frame."""
    mean = float((night.through * night.sensor.illumination() * night.sensor.response_map).mean())
    stars = star_table(night.sky, night.views[number], border=30)
    ratios = []
    for star in stars:
        alone = np.hypot(stars["x"] - star["x"], stars["y"] - star["y"])
        if star["flux"][1] * 60 < 5000 or np.count_nonzero(alone < 22) > 1:
            continue
        x, y = round(star["x"]), round(star["y"])
        v, u = np.mgrid[-18:19, -18:19]
        r = np.hypot(u + x - star["x"], v + y - star["y"])
        part = signal[:, y - 18 : y + 19, x - 18 : x + 19]
        if part.shape[1:] != r.shape:
            continue
        level = np.median(part[:, (r > 12) & (r < 18)], axis=1)
        light = (part - level[:, None, None])[:, r <= 11].sum(1)
        ratios.append(light / (star["flux"] * 60 * mean))
    return np.array(ratios)


def test_star_fluxes_and_positions_are_the_skys(night, done):
    ratios = flux_ratios(night, open_stack(done.path).signal.values)
    assert len(ratios) >= 6
    # an aperture of 11 px holds 99 % of the Moffat star
    np.testing.assert_allclose(np.median(ratios, axis=0), 0.99, atol=0.03)


@pytest.mark.parametrize("channel", ["R", "G", "B"])
def test_the_hours_planned_are_those_that_the_stack_took(night, done, channel):
    """What `plan.hours` asks for, for the signal-to-noise ratio that the stack's own variance gives 16 x 16 pixels."""
    stack = open_stack(done.path).sel(channel=channel).compute()
    time, count = night.views[0].exposure, int(done.frames["used"].sum())
    level, variance = (float(stack[name].median()) for name in ("signal", "variance"))  # of one exposure
    sensor, target = night.sensor, 0.1
    read_noise = float(np.hypot(sensor.read_noise(800), sensor.gain(800) / np.sqrt(12)))
    snr = target * time / np.sqrt(variance / 256)
    rate = level / time + sensor.mean_dark_current(night.settings.temperature)
    planned = hours(
        snr, (target, 0), (rate - target, 0), (read_noise, 0), time, overhead=0, pixels=256, channel=channel
    )
    assert planned.value == pytest.approx(count * time / 3600, rel=0.15)


@pytest.mark.parametrize("suffix", ["dng", "fits"])
def test_x_trans_is_stacked_from_raw_files_to_a_picture(tmp_path, suffix):
    night = write_night(
        tmp_path / "night", shape=SHAPE, stars=90, faintest=30.0, brightest=600.0, lights=5, biases=5, darks=5,
        flats=5, trails=1, trail_electrons=900.0, dither=5.0, seed=11, cfa_pattern=XTRANS, suffix=suffix,
        progress=False,
    )  # fmt: skip
    done = stack_folder(night.folder, tmp_path / "stack.fits", reference="light_0000", progress=False)
    stack = open_stack(done.path)
    signal = stack.signal.values
    assert signal.shape == (3, 348, 480)  # whole cells of 6 pixels
    ratios = flux_ratios(night, signal)
    assert len(ratios) >= 6
    np.testing.assert_allclose(np.median(ratios, axis=0), 0.99, atol=0.03)
    assert all(abs(chi - 1) < 0.1 for chi in json.loads(stack.attrs["chi_square"]).values())
    share = json.loads(stack.attrs["pixel_variance_share"])
    view = dataclasses.replace(night.views[0], trails=(), background=(0.0, 0.0, 0.0))
    sky = virtual.picture(night.sky, view).values[:, :348] * 60
    calm = np.s_[30:-30, 30:-30]
    for channel, name in enumerate("RGB"):
        rest = signal[channel] - ndimage.median_filter(signal[channel], 25)
        stars = sky[channel] - ndimage.median_filter(sky[channel], 25) > 5
        far = ~ndimage.binary_dilation(stars, iterations=3)[calm]
        assert far.sum() > 30_000
        own = share[name] * (stack.variance - stack.shared_variance).values[channel]
        pulls = (rest / np.sqrt(own))[calm][far]
        assert pulls.std() == pytest.approx(1, abs=0.05)
    picture = finish_stack(done.path, tmp_path / "night.png", progress=False)
    assert picture is not None


def test_the_file_opens_without_loss(night, done):
    stack = open_stack(done.path)
    with fits.open(done.path) as hdus:
        names = [hdu.name for hdu in hdus]
        assert names[1:] == [
            "MASK",
            "VARIANCE",
            "COVERAGE",
            "REJECTED_LOW",
            "REJECTED_HIGH",
            "SATURATED",
            "CHI_SQUARE",
            "SHARED_NOISE",
            "FRAMES",
        ]
        assert hdus[0].data.shape == (3, *SHAPE)
        assert hdus[0].data.dtype == np.dtype(">f4")
        gaps = hdus["MASK"].data > 0
        assert np.array_equal(np.where(gaps, np.nan, hdus[0].data), stack.signal.values, equal_nan=True)
        for name in names[2:7]:
            assert np.array_equal(hdus[name].data, stack[name.lower()].values, equal_nan=True), name
        header = hdus[0].header
        assert header["REFFRAME"] == "lights/light_0000.fits"
        assert header["EXPTIME"] == 60.0
        assert header["NFRAMES"] == 5
        assert header["SIMULATE"] is True
        assert header["EGAING1"] == pytest.approx(night.sensor.gain(200), rel=0.05)
        assert len(hdus["FRAMES"].data) == 5
        hdus.verify("exception")
    assert stack.attrs["reference"] == "lights/light_0000.fits"
    assert stack.frame_used.values.all()


def test_the_header_keeps_what_was_observed(tmp_path, siril_levels):
    observed = {"OBJECT": "M 31", "RA": 10.68, "OBJCTRA": "00 42 44", "TELESCOP": "RC", "SITELAT": 50.0}
    solved = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 9.5, "CRPIX2": 8.0, "CRVAL1": 10.68, "CRVAL2": 41.2}
    solved |= {"CD1_1": -2e-4, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 2e-4}
    batches = [Batch("bias", 2, 0.0), Batch("light", 3, 60.0, gain_setting=0.0, filter="L", header=observed | solved)]
    sky = virtual.make_sky((200, 240), stars=60, faintest=30.0, brightest=600.0, step=16.0, seed=3)
    write_frames(tmp_path / "night", cooled((200, 240)), batches, program="nina", sky=sky)
    out = stack_folder(tmp_path / "night", tmp_path / "stack.fits", progress=False).path
    write_picture(read_picture(out), tmp_path / "linear.fits")
    for path in (out, tmp_path / "linear.fits"):
        header = fits.getheader(path)
        for key, value in observed.items():
            assert header.get(key) == (None if key == "SITELAT" else value), key
        assert (header["GAIN"], header["OFFSET"], header["FILTER"], header["CCD-TEMP"]) == (0, 50, "L", -10)
        assert (header["FOCALLEN"], header["XPIXSZ"], header["TOTALEXP"]) == (530, 3.8, 180)
        assert header["DATE-OBS"] < header["DATE-AVG"] < header["DATE-END"]
        assert header["ROWORDER"] == "TOP-DOWN"
        signal = open_stack(out).signal.values
        assert siril_levels(path)[0, 0] == pytest.approx(np.nanmean(signal), abs=0.06)
    header = fits.getheader(out)
    assert {key: header[key] for key in solved} == solved
    assert header["NCOMBINE"] == header["STACKCNT"] == 3
    assert sum(not card.image.strip() for card in header.cards) < 36


def test_chi_square_and_events(night, done):
    assert all(0.9 < value < 1.1 for value in done.chi_square.values())
    stack = open_stack(done.path)
    assert (stack.rejected_high.values.sum((1, 2)) > 500).all()
    used = stack.coverage + stack.rejected_low + stack.rejected_high
    assert int(used.max()) == 5


def test_working_files_are_gone(done):
    assert [path.name for path in done.path.parent.iterdir()] == ["stack.fits"]


def test_the_same_call_gives_the_same_bytes(night, done, tmp_path):
    again = stack_folder(night.folder, tmp_path / "stack.fits", reference="light_0000", progress=False, threads=1)
    assert again.path.read_bytes() == done.path.read_bytes()


def test_compressed_frames_are_decoded_once_each(tmp_path, monkeypatch):
    night = write_night(
        tmp_path / "night", shape=SHAPE, stars=90, faintest=30.0, brightest=600.0, lights=5, biases=5, darks=5,
        flats=5, suffix="dng", compressed=True, seed=11, progress=False,
    )  # fmt: skip
    decoded, decode = Counter(), reader.read_raw
    monkeypatch.setattr(reader, "read_raw", lambda path, area: (decoded.update([path]), decode(path, area))[1])
    stack_folder(night.folder, tmp_path / "stack.fits", progress=False)
    assert decoded == Counter(list(night.folder.rglob("*.dng")))


def test_an_interrupted_run_goes_on(night, done, tmp_path, monkeypatch):
    written = []
    whole = stack_outputs.write_band

    def stops(layout, band):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(band.top)
        whole(layout, band)

    out = tmp_path / "stack.fits"
    monkeypatch.setattr(stack_outputs, "write_band", stops)
    with pytest.raises(WorkbenchError, match="goes on from here"):
        stack_folder(night.folder, out, reference="light_0000", progress=False, threads=1)
    assert not out.exists()
    assert not list(tmp_path.rglob("master-*"))  # made again faster than written by every run
    rest = []
    monkeypatch.setattr(stack_outputs, "write_band", lambda layout, band: (rest.append(band.top), whole(layout, band)))
    stack_folder(night.folder, out, reference="light_0000", progress=False)
    assert len(written) == 3
    assert not set(written) & set(rest)
    with fits.open(out) as one, fits.open(done.path) as two:
        assert np.array_equal(one[0].data, two[0].data, equal_nan=True)
        assert np.array_equal(one["VARIANCE"].data, two["VARIANCE"].data, equal_nan=True)


def test_lights_that_do_not_belong_are_set_aside(night, tmp_path):
    folder = shutil.copytree(night.folder, tmp_path / "night")
    lights = folder / "lights"
    data, header = fits.getdata(lights / "light_0002.fits", header=True)
    whole = (lights / "light_0001.fits").read_bytes()
    (lights / "light_0001.fits").write_bytes(whole[: len(whole) // 2])
    rng = np.random.default_rng(1)
    clouds = np.round(rng.normal(700, 9, SHAPE)).astype(np.uint16)
    fits.writeto(lights / "light_0005.fits", clouds, header, overwrite=True)
    small = fits.PrimaryHDU(data[:200, :300], header)
    small.writeto(lights / "light_0006.fits")
    result = stack_folder(folder, tmp_path / "stack.fits", progress=False)
    reasons = {name.split("/")[-1]: reason for name, reason in result.set_aside}
    assert set(reasons) == {"light_0001.fits", "light_0005.fits", "light_0006.fits"}
    assert "short" in reasons["light_0001.fits"]
    assert any(word in reasons["light_0005.fits"] for word in ("stars", "FWHM", "pattern"))
    assert "300 x 200" in reasons["light_0006.fits"]
    assert int(result.frames["used"].sum()) == 4
    assert "light_0005.fits" in repr(result)


def test_the_same_night_as_other_programs_leave_it(night, done, tmp_path):
    """Calibration frames bottom-up, with an overscan; copies, a master, a stack, a processed light: the same bits."""
    folder = shutil.copytree(night.folder, tmp_path / "night")
    lights = sorted((folder / "lights").glob("*.fits"))
    for path in (*folder.glob("*/*.fits"),):
        if path in lights:
            continue
        with fits.open(path) as hdus:
            pixels, header = hdus[0].data, hdus[0].header
        wide = np.pad(pixels[::-1], ((2, 0), (6, 0)), constant_values=40)
        header["ROWORDER"], header["TRIMSEC"] = "BOTTOM-UP", f"[7:{SHAPE[1] + 6},3:{SHAPE[0] + 2}]"
        fits.writeto(path, wide, header, overwrite=True)
    shutil.copy(lights[1], folder / "lights" / "light_0001 (1).fits")
    shutil.copy(lights[2], folder / "lights" / "light_0002 copy.fits")
    dark = next(folder.glob("darks/*.fits"))
    fits.writeto(dark.with_name("x.fits"), np.full(SHAPE, 0.009, "f4"), fits.Header({"IMAGETYP": "Master Dark"}))
    fits.writeto(lights[0].with_name("m42.fits"), np.ones(SHAPE, "f4"), fits.Header({"STACKCNT": 5}))
    fits.writeto(lights[0].with_name("r_pp_light_0001.fits"), np.full(SHAPE, 0.01, "f4"))
    result = stack_folder(folder, tmp_path / "stack.fits", reference="light_0000", progress=False)
    reasons = {name.split("/")[-1]: reason for name, reason in result.set_aside}
    assert {name: reason.split(" (")[0] for name, reason in reasons.items()} == {
        "light_0001 (1).fits": "is the same exposure as lights/light_0001.fits, which is used",
        "light_0002 copy.fits": "is the same exposure as lights/light_0002.fits, which is used",
        "x.fits": "is a master dark",
        "m42.fits": "is a stacked or processed picture",
        "r_pp_light_0001.fits": "is a stacked or processed picture",
    }
    with fits.open(result.path) as one, fits.open(done.path) as two:
        assert one[0].header["TOTALEXP"] == two[0].header["TOTALEXP"]
        np.testing.assert_array_equal(one[0].data, two[0].data)
        np.testing.assert_array_equal(one["VARIANCE"].data, two["VARIANCE"].data)


def test_a_light_of_floating_point_with_gaps_among_the_others(night, done, tmp_path):
    folder = shutil.copytree(night.folder, tmp_path / "night")
    path = folder / "lights" / "light_0002.fits"
    with fits.open(path) as hdus:
        pixels, header = hdus[0].data.astype(np.float32), hdus[0].header
    pixels[100:140, 60:200] = np.nan
    fits.writeto(path, pixels, header, overwrite=True)
    result = stack_folder(folder, tmp_path / "stack.fits", reference="light_0000", progress=False)
    assert result.frames["used"].all()
    stack, before = open_stack(result.path), open_stack(done.path)
    fewer = before.coverage.astype(int) - stack.coverage
    assert 3 * 40 * 140 < (fewer.values == 1).sum() < 3 * 52 * 152  # and around the gap, where the kernel reaches in
    same = (fewer == 0).all("channel").values
    # one value in a frame decides a few blocks' surfaces and no more
    change = (stack.signal - before.signal).values[:, same] / np.sqrt(before.variance.values[:, same])
    assert np.nanmedian(np.abs(change)) < 0.05


def test_without_calibration_frames_it_stacks_and_says_so(night, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(night.folder / "lights", folder / "lights")
    result = stack_folder(folder, tmp_path / "stack.fits", progress=False)
    assert "no darks" in " ".join(result.warnings)
    assert result.path.exists()
    assert "only its changes mean something" in repr(result)


def test_dry_run_writes_nothing(night, tmp_path):
    result = stack_folder(night.folder, tmp_path / "stack.fits", dry_run=True, progress=False)
    assert "5 lights (ISO 200, 60 s) calibrated with 5 bias frames, 5 darks, 5 flats" in repr(result)
    assert "MB" in repr(result)
    assert "time: about" in repr(result)
    assert "an estimate from 20 frames of 0.169 Mpx" in repr(result)
    assert not list(tmp_path.iterdir())


def test_mistakes_are_named(night, tmp_path):
    with pytest.raises(WorkbenchError, match="reference 'light_0099'"):
        stack_folder(night.folder, tmp_path / "a.fits", reference="light_0099", progress=False)
    with pytest.raises(WorkbenchError, match="none of noise"):
        stack_folder(night.folder, tmp_path / "a.fits", method="kappa", progress=False)
    with pytest.raises(WorkbenchError, match="transform 'rotate' is none of auto, shift"):
        stack_folder(night.folder, tmp_path / "a.fits", transform="rotate", progress=False)
    only = tmp_path / "only"
    shutil.copytree(night.folder / "biases", only / "biases")
    with pytest.raises(WorkbenchError, match="no light frames"):
        stack_folder(only, tmp_path / "a.fits", progress=False)
    one = tmp_path / "one" / "lights"
    one.mkdir(parents=True)
    shutil.copy(night.folder / "lights" / "light_0000.fits", one)
    with pytest.raises(WorkbenchError, match="at least two"):
        stack_folder(one.parent, tmp_path / "a.fits", progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="file: cannot be made a folder"):
        stack_folder(night.folder, tmp_path / "file" / "a.fits", progress=False)
    with pytest.raises(FrameReadError, match="no such file"):
        open_stack(tmp_path / "none.fits")


def test_the_command(night, tmp_path):
    out = tmp_path / "stack.fits"
    result = CliRunner().invoke(main, ["stack", str(night.folder), "--out", str(out), "--dry-run", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "5 lights" in result.output
    result = CliRunner().invoke(main, ["stack", str(tmp_path / "nowhere"), "--out", str(out), "--quiet"])
    assert result.exit_code == 2


@pytest.mark.slow
def test_workers_of_a_cluster_give_the_same_and_a_lost_one_is_replaced(night, done, tmp_path):
    """The reference is of a fresh process: like the workers it runs the loops that `done` has compiled and kept.

    The worker that has finished the first band is killed: it costs the band it is at, and none that is finished.
    """
    from dask.distributed import Client, LocalCluster, WorkerPlugin

    reference = tmp_path / "reference.fits"
    command = [sys.executable, "-m", "workbench", "stack", str(night.folder), "--out", str(reference), "--quiet"]
    subprocess.run([*command, "--reference", "light_0000"], check=True)
    begun, finished = tmp_path / "begun", tmp_path / ".stack.fits.work" / "bands"
    begun.touch()

    class Count(WorkerPlugin):
        """Write down which band is begun by which process."""

        def setup(self, worker):
            from workbench.pipelines import stack_outputs

            stack = stack_outputs.stack_band

            def counted(ready, number, memory):
                with begun.open("a") as file:
                    file.write(f"{number} {os.getpid()}\n")
                return stack(ready, number, memory)

            stack_outputs.stack_band = counted

    def begins():
        return [tuple(map(int, line.split())) for line in begun.read_text().splitlines()]

    with (
        LocalCluster(n_workers=4, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Count())
        out = tmp_path / "stack.fits"
        killed = []

        def accident():
            """Once the first band is finished."""
            while not (bands := [int(path.stem) for path in finished.glob("[0-9]*.npy")]):
                time.sleep(0.002)
            victim = dict(begins())[bands[0]]
            if not out.exists():
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

        thread = threading.Thread(target=accident, daemon=True)
        thread.start()
        result = stack_folder(night.folder, out, reference="light_0000", scheduler=client, progress=False)
        assert killed
        with fits.open(result.path) as one, fits.open(reference) as two:
            assert np.array_equal(one[0].data, two[0].data, equal_nan=True)
    numbers = [number for number, _ in begins()]
    assert set(numbers) == set(range(-(-SHAPE[0] // BAND)))
    again = [number for number in set(numbers) if numbers.count(number) > 1]
    assert len(numbers) - len(set(numbers)) == len(again) <= 1  # one thread a worker: one band at a time
    assert all((number, killed[0]) in begins() for number in again)


@pytest.mark.parametrize("reference", [None, "M13_blue_0001.fits"])
def test_m13_aligns_without_darks(real_data, tmp_path, reference):
    """Five real lights with hot pixels and banding, no darks; the shifts by cross-correlation of the cluster."""
    folder = tmp_path / "lights"
    folder.mkdir()
    for path in sorted((real_data / "m13").glob("*.fits")):
        shutil.copy(path, folder)
    result = stack_folder(tmp_path, tmp_path / "stack.fits", reference=reference, progress=False)
    assert result.frames["used"].all()
    stack = open_stack(result.path)
    signal = stack.signal.values[0]
    single = fits.getdata(folder / "M13_blue_0001.fits").astype(float)

    def scatter(image):
        part = image[100:900, 60:400]
        means = part.reshape(200, 4, 85, 4).mean((1, 3))
        rough = means[:, 1:] - means[:, :-1]
        return 1.4826 * np.median(np.abs(rough - np.median(rough)))

    # the gain is not known: ADU stay ADU, there is no advice on a chi-square, and a remark on all frames is made once
    assert (stack.attrs["units"], stack.signal.attrs["units"], stack.variance.attrs["units"]) == (
        "adu",
        "adu",
        "adu**2",
    )
    header = fits.getheader(result.path)
    assert header["BUNIT"] == "adu"
    assert "EGAIN" not in header
    told = " ".join(result.warnings)
    assert "chi-square" not in told
    assert told.count("to measure the transparency") == 1
    assert "4 of 5 lights show too few bright stars" in told
    finished = finish_stack(result.path, tmp_path / "picture.png", progress=False)
    assert "ADU (mono)" in " ".join(finished.picture.attrs["history"])
    gain = float(stack.attrs["gain"])
    assert scatter(single) * gain / scatter(signal) == pytest.approx(np.sqrt(5), rel=0.1)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A simulated stack as a file."""
    sky = virtual.make_sky((400, 600), stars=200, brightest=3000.0, step=16.0, nebula=0.2, seed=3)
    view = virtual.View(gradient=np.outer([1, 1, 1], [0.1, 0.05]))
    light = virtual.picture(sky, view).values.astype(float) * 60
    rng = np.random.default_rng(0)
    signal = rng.poisson(light * 16) / 16
    signal[:, :5] = np.nan
    picture = make_picture(signal, light / 16, attrs={"daylight_multipliers": [2.0, 1.0, 1.3]})
    return write_picture(picture, tmp_path_factory.mktemp("finish") / "stack.fits")


def test_a_stack_in_a_picture_out(linear, tmp_path):
    done = finish_stack(
        linear, tmp_path / "a.png", linear_out=tmp_path / "l.fits", settings_out=tmp_path / "s.json", progress=False
    )
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(picture.signal, done.picture.signal, atol=1e-5)
    assert picture.attrs["settings"] == FinishSettings().to_dict()
    before = read_picture(tmp_path / "l.fits")
    np.testing.assert_array_equal(before.signal, done.linear.signal)
    assert "variance" in before
    # the settings inside the picture, and those in the file, replay it to the last bit
    for settings in (FinishSettings.from_dict(picture.attrs["settings"]), FinishSettings.open(tmp_path / "s.json")):
        finish_stack(linear, tmp_path / "b.png", settings, progress=False)
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_wishes_lie_over_a_settings_file(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(FinishSettings.from_dict({"stretch": {"sky": 0.2}, "background": {"method": "rbf"}}).to_json())
    settings = settings_from(path, background="none", denoise=0.5)
    assert (settings.stretch.sky, settings.background.method, settings.detail.denoise) == (0.2, "none", 0.5)


def test_what_cannot_be_is_said_before_the_work(linear, tmp_path):
    for out, words in (
        (tmp_path / "a.gif", r"'\.gif'"),
        (tmp_path / "a", "without a suffix"),
        (tmp_path / "no" / "a.png", "does not exist"),
    ):
        with pytest.raises(WorkbenchError, match=words):
            finish_stack(linear, out, progress=False)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(WorkbenchError, match="is a folder"):
        finish_stack(linear, tmp_path / "folder.png", progress=False)
    finish_stack(linear, tmp_path / "a.fits", progress=False)
    with pytest.raises(StageError, match=r"a\.fits.*stretched already"):
        finish_stack(tmp_path / "a.fits", tmp_path / "b.png", progress=False)


def test_from_the_command_line(linear, tmp_path):
    run = CliRunner().invoke(
        main,
        ["finish", str(linear), "--out", str(tmp_path / "a.tif"), "--stretch", "autostretch", "--denoise", "0.3",
         "--save-settings", str(tmp_path / "s.json"), "--quiet"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "Stretch: autostretch" in run.output
    assert "written:" in run.output
    assert json.loads((tmp_path / "s.json").read_text())["detail"]["denoise"] == 0.3
    assert read_picture(tmp_path / "a.tif").attrs["stage"] == "stretched"


def test_mistakes_are_one_line_and_no_traceback(linear, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.jpg")
    nan = write_picture(make_picture(np.full((3, 64, 64), np.nan)), tmp_path / "nan.fits")
    for source, words in (
        (tmp_path / "a.jpg", "JPEG"),
        (tmp_path / "absent.fits", "does not exist"),
        (nan, "NaN everywhere"),
    ):
        run = CliRunner().invoke(main, ["finish", str(source), "--out", str(tmp_path / "p.png"), "--quiet"])
        assert run.exit_code == 2
        assert words in run.output
        assert str(source.name) in run.output
        assert "Traceback" not in run.output
        assert not (tmp_path / "p.png").exists()


def test_real_frame_of_m13(real_data, tmp_path):
    done = finish_stack(real_data / "m13" / "M13_blue_0001.fits", tmp_path / "m13.png", progress=False)
    assert done.picture.signal.shape == (1, 1040, 1392)
    level = done.picture.signal.values[0]
    core = np.median(level[460:540, 640:710])
    sky = np.median(level[:200, :200])
    assert core > sky + 0.03
    assert 0.05 < sky < 0.25


def test_real_stack_of_m13(real_data, tmp_path):
    """Mono, uncalibrated, drifting: the five frames stacked, with the borders that the drift leaves, and finished."""
    lights = tmp_path / "m13" / "lights"
    lights.mkdir(parents=True)
    for frame in sorted((real_data / "m13").glob("*.fits")):
        shutil.copy(frame, lights)
    stack_folder(tmp_path / "m13", tmp_path / "stack.fits", progress=False)
    stack = read_picture(tmp_path / "stack.fits")
    assert stack.coverage.min() < stack.coverage.max()  # borders that not all frames cover
    done = finish_stack(tmp_path / "stack.fits", tmp_path / "m13.png", progress=False)
    top, _, left, right = done.picture.attrs["crop"]
    assert right - left < stack.sizes["x"]
    assert np.isfinite(done.picture.signal).all()
    assert (done.linear.signal < 0).any()
    assert done.checks["background"].attrs["passed"]  # within what these faint stars can tell
    level = done.picture.signal.values[0]
    core = np.median(level[505 - 40 - top : 505 + 40 - top, 660 - 40 - left : 660 + 40 - left])
    sides = slice(150), slice(-150, None)
    corners = [np.median(level[rows, columns]) for rows in sides for columns in sides]
    assert core > max(corners) + 0.1
    assert max(corners) - min(corners) < 0.02  # an even sky


MEMORY = """
import resource, sys
import numpy as np
from workbench.finish import make_picture, write_picture
from workbench.ingest import reader
from workbench.pipelines import finish_stack
stars = np.random.default_rng(0)
height, width = (int(side) for side in sys.argv[2:])
signal = stars.normal(100, 3, (3, height, width)).astype(np.float32)
v, u = np.mgrid[-12:13, -12:13]
star = np.exp(-(u * u + v * v) / 6)
for flux in stars.lognormal(6, 1, 400):
    y, x = stars.integers(20, height - 20), stars.integers(20, width - 20)
    signal[:, y - 12 : y + 13, x - 12 : x + 13] += (flux * star).astype(np.float32)
picture = make_picture(signal, np.full_like(signal, 9.0), coverage=np.full(signal.shape, 9, np.uint8))
write_picture(picture, sys.argv[1] + "/s.fits")
del signal, picture
finish_stack(sys.argv[1] + "/s.fits", sys.argv[1] + "/p.png", progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_memory_of_24_megapixels(tmp_path):
    """Memory grows in proportion to the pixels: measured at two sizes, it tells that of 24 megapixels."""
    pytest.importorskip("resource")
    sizes = (1000, 1500), (2000, 3000)
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    small, large = (float(subprocess.check_output([*command, *map(str, size)])) for size in sizes)
    assert large + (large - small) / 4.5 * 18 < 3.0  # GiB
