"""The report card: honest cameras pass, cooked ones do not, and the real ones get what they deserve."""

import json

import fidelity as benchmark
import numpy as np
import pytest

from workbench import fidelity, sensor
from workbench.core.cube import make_cube
from workbench.core.errors import Guess
from workbench.fidelity import findings
from workbench.fidelity.card import patch_correlation, smooth_noise, true_causes
from workbench.fidelity.findings import CHANGED, NOTICE, UNKNOWN
from workbench.ingest import open_folder, open_frames, read_frame
from workbench.simulate import cube_of, d7000, expose, firmware


def status(report):
    return dict(zip(report.card["test"].values.tolist(), report.card["status"].values.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(len(benchmark.HONEST)))
def test_honest_cameras_of_every_kind_pass_every_test(seed):
    found, kind = benchmark.honest(seed), benchmark.HONEST[seed]
    assert {test for test, one in found.items() if one in (CHANGED, NOTICE)} <= set(kind.worth), found


def test_steps_that_double_with_the_level_are_no_tone_curve():
    camera = d7000(seed=1, shape=(96, 128))
    frames = [expose(camera, 3000.0 * level, iso=200, exposure=1, seed=level) for level in range(1, 5)]
    frames = [firmware.compress(frame, camera, 1024) for frame in frames]
    report = fidelity.inspect_frames(cube_of(camera, frames, "flat", iso=200, exposure=1), progress=False)
    assert status(report)["codes"] != CHANGED
    assert status(report)["bits"] == NOTICE


CASES = {name: number for number, (name, *_) in enumerate(benchmark.CASES)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red × 1.12", CHANGED),
        ("red × 0.9", CHANGED),
        ("black level subtracted, bias frames there", CHANGED),
        ("black level subtracted, only flats there", CHANGED),
        ("steps doubling from 1024 ADU on", NOTICE),
        ("digital above ISO 800", NOTICE),
        ("row noise 0.2 of the pixel noise", NOTICE),
        ("noise filtered, 0.05 of each neighbour", CHANGED),
        ("hot-pixel filter, beyond 0 σ", CHANGED),
    ],
)
def test_each_kind_of_cooking_is_found(name, expected):
    assert [benchmark.cooked(CASES[name], seed) for seed in (101, 102)] == [expected] * 2


def test_real_d7000_stock_firmware_is_cooked(real_data):
    flat = open_folder(real_data / "d7000-flats", progress=False).flat
    ptc = sensor.photon_transfer(flat, progress=False)
    report = fidelity.inspect_frames(flat, ptc=ptc, progress=False)
    told = fidelity.fidelity_to_json(report)
    assert told["verdict"] == "cooked"
    assert told["multiplier"] == pytest.approx({"R": 1.12, "G1": 1.0, "G2": 1.0, "B": 1.16}, abs=0.01)
    assert told["multiplier"]["G1"] == told["multiplier"]["G2"] == 1.0
    assert told["black_subtracted"] is True
    assert told["filtered_noise"] is False
    assert told["hot_pixel_filter"] is None
    assert told["bits"] == pytest.approx(14, abs=0.01)
    level, error = fidelity.vanishing_level(ptc)
    assert abs(level) < 10
    assert error < 2
    gain = fidelity.descaled_gain(sensor.fit_gain(ptc), report.missing).isel(iso=0)
    # one sensor, one gain: without the multiplication all four colours agree
    values = gain.gain_descaled.values
    assert np.ptp(values) / values.mean() < 0.03
    assert (gain.gain_descaled / gain.gain).sel(channel=["R", "G1"]).values == pytest.approx([1.1227, 1.0], abs=1e-3)


def test_real_sony_and_kodak_get_their_own_verdicts(real_data):
    sony = fidelity.inspect_frames(open_frames(real_data / "raw" / "sony-a7r3.arw", kind="light"), progress=False)
    kodak = fidelity.inspect_frames(open_frames(real_data / "raw" / "kodak-dc50.kdc", kind="light"), progress=False)
    told = fidelity.fidelity_to_json(sony)
    assert (told["verdict"], told["coarse_codes"], told["black_subtracted"]) == ("raw", True, False)
    assert told["filtered_noise"] is False
    assert told["bits"] == pytest.approx(11.5, abs=0.2)
    assert status(sony)["hot-pixels"] == UNKNOWN
    told = fidelity.fidelity_to_json(kodak)
    assert (told["verdict"], told["coarse_codes"], told["black_subtracted"]) == ("cooked", True, None)
    assert "table" in kodak.card.finding.sel(test="bits").item()
    assert told["multiplier"] == {"R": 1.0, "G1": 1.0, "G2": 1.0, "B": 1.0}


def test_the_card_is_plain_json_and_complete():
    seed = 7
    report = fidelity.inspect_frames(benchmark.frames(benchmark.camera(seed), seed), progress=False)
    told = json.loads(json.dumps(fidelity.fidelity_to_json(report), allow_nan=False))
    assert [row["test"] for row in told["tests"]] == list(fidelity.TESTS)
    assert told["verdict"] == "raw"
    assert told["clipped_at_zero"] is False
    assert set(told["multiplier"]) == {"R", "G1", "G2", "B"}
    assert told["white_level"]["G1"] == 16383
    assert told["digital_iso"] is None
    assert all(row["finding"] for row in told["tests"])
    # what cannot be told, and what is changed, comes with what to do
    rows = report.card.to_dataframe()
    assert rows.loc[rows.status.isin([UNKNOWN, CHANGED]), "remedy"].str.len().gt(0).all()


def test_a_single_mono_frame_without_any_setting_gives_a_card():
    picture = np.random.default_rng(1).poisson(900, (1, 128, 128)).astype("uint16")
    report = fidelity.inspect_frames(make_cube(picture, cfa_pattern="mono"), progress=False)
    assert report.card.attrs["verdict"] == "raw"
    assert fidelity.fidelity_to_json(report)["multiplier"] == {"mono": 1.0}
    assert status(report)["black"] == UNKNOWN
    words = report.card.to_dataframe()
    assert "colour" not in words.loc["codes"].question + words.loc["codes"].finding
    assert "record no ISO" in words.loc["digital-iso"].finding


def test_a_black_frame_and_a_white_frame_give_a_card():
    for value in (0, 16383):
        frame = np.full((1, 64, 64), value, "uint16")
        cube = make_cube(frame, cfa_pattern="RGGB", kind="light", white_level=16383, black_level=0)
        report = fidelity.inspect_frames(cube, progress=False)
        assert status(report)["codes"] == UNKNOWN


def test_rounding_coarser_than_the_noise_is_a_change():
    rng = np.random.default_rng(2)
    level = np.linspace(100, 15_000, 512)[None, :]
    frame = rng.normal(level, 6.0, (512, 512))
    step = np.where(frame < 4000, 1, 16)
    cube = make_cube(
        (np.rint(frame / step) * step).astype("uint16")[None], cfa_pattern="mono", kind="light", white_level=16383
    )
    report = fidelity.inspect_frames(cube, progress=False)
    assert status(report)["bits"] == CHANGED
    assert "coarser than the noise" in report.card.finding.sel(test="bits").item()


def test_white_level_below_the_stated_one_is_worth_knowing():
    frame = np.minimum(np.random.default_rng(3).normal(14_000, 1500, (1, 256, 256)), 15_200).round().astype("uint16")
    cube = make_cube(frame, cfa_pattern="RGGB", kind="light", white_level=16383)
    finding = findings.white_level(fidelity.missing_codes(fidelity.count_codes(cube, progress=False)))
    assert finding.status == NOTICE
    assert finding.value == 15_200


def test_single_frames_clear_a_camera_or_leave_it_open():
    camera = d7000(seed=11, shape=(256, 384))
    picture = expose(camera, (50.0, 100.0, 100.0, 70.0), iso=800, exposure=2.0, seed=3, threads=1)
    value, error = patch_correlation(picture, "RGGB")
    assert abs(value) < 4 * error
    filtered, error = patch_correlation(firmware.smooth(picture, camera, 0.05), "RGGB")
    assert filtered > 5 * error
    truth = np.sqrt(200.0 * camera.illumination().mean() / camera.gain(800) ** 2)
    noise = smooth_noise(picture, "RGGB")
    assert np.nanmax(noise) == pytest.approx(truth, rel=0.2)


def test_real_sony_noise_is_not_filtered(real_data):
    value, error = patch_correlation(read_frame(real_data / "raw" / "sony-a7r3.arw"), "RGGB")
    assert abs(value) < 0.02
    assert error < 0.002


def test_a_tone_curve_is_not_taken_for_a_multiplier_nor_for_warm_darks():
    camera = d7000(seed=4, shape=(256, 256))
    span = camera.white_level - camera.black_level

    def curved(frame):
        above = np.maximum(frame - camera.black_level, 0) / span
        return np.where(frame < camera.black_level, frame, np.rint(camera.black_level + span * above**0.8))

    frames = [
        curved(expose(camera, 30_000 * level, iso=100, exposure=1, seed=n).astype(float)).astype("uint16")
        for n, level in enumerate((0.05, 0.05, 0.2, 0.2, 0.5, 0.5))
    ]
    report = fidelity.inspect_frames(cube_of(camera, frames, "flat", iso=100, exposure=1), progress=False)
    codes = report.card.sel(test="codes")
    assert codes.status.item() == CHANGED
    assert "curve" in codes.finding.item()
    assert "multipl" not in codes.finding.item()
    found = true_causes([Guess("no line", "darks that were not equally warm do this"), "only one bias frame"], report)
    assert "not proportional to the light" in found[0]
    assert found[1:] == ["only one bias frame"]


def test_a_filter_of_hot_pixels_is_named_instead_of_darks_that_were_not_equally_warm():
    camera = d7000(seed=5, shape=(256, 256))
    darks = [expose(camera, iso=800, exposure=600, temperature=20, seed=n) for n in range(2)]
    text = Guess("no line", "hot pixels that flicker, or darks that were not equally warm, do this", "warmth")
    for change, words in (
        (lambda frame: frame, "not equally warm"),
        (lambda frame: firmware.remove_hot_pixels(frame, camera), "filter"),
    ):
        cube = cube_of(camera, [change(frame) for frame in darks], "dark", iso=800, exposure=600, temperature=20)
        found = true_causes([text], fidelity.inspect_frames(cube, progress=False))
        assert words in found[-1]
        assert ("filter" in words) == ("removes lone bright pixels" in found[0])
