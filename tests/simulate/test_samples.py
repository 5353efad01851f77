"""The sample frames: the same bytes every time, true to their truth, whole or not there."""

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import rawpy

from workbench.core.errors import WorkbenchError
from workbench.simulate import night
from workbench.simulate import samples as module
from workbench.simulate.recipe import plan
from workbench.simulate.samples import FAULTS, FULL, SMALL, SampleWarning, hash_folder, sample_folder, write_samples


def pixels(path):
    with rawpy.imread(str(path)) as raw:
        return raw.raw_image_visible.astype(float)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The small set in place of the full one, in a cache of its own, its hashes published."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "FULL", SMALL)
    hashes = tmp_path / "published.sha256"
    hashes.write_text(hash_folder(Path(__file__).parents[2] / "data-samples" / "small"))
    monkeypatch.setattr(module, "HASHES", hashes)
    monkeypatch.delenv("WORKBENCH_REQUIRE_REAL", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def truth(samples):
    return json.loads((samples / "truth.json").read_text())


def test_the_full_set_has_the_published_bytes(samples):
    published = module.HASHES.read_text().splitlines()
    found = {line for line in hash_folder(samples).splitlines() if not line.endswith("  .recipe")}
    assert found == set(published)
    assert len(published) == len(list(plan(FULL))) + 1  # and truth.json


def test_the_committed_set_is_what_the_recipe_gives(small_samples, tmp_path):
    assert hash_folder(write_samples(tmp_path, SMALL, progress=False, threads=1)) == hash_folder(small_samples)


def test_sizes_stay_within_bounds(samples, small_samples):
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    assert size(samples) < 200e6
    assert size(small_samples) < 5e6


def test_the_set_has_what_the_measurements_need(samples, truth):
    frames = truth["frames"]
    assert all((samples / frame["file"]).is_file() for frame in frames)
    for iso in (100, 200, 400, 800, 1600, 3200, 6400):
        assert sum(frame["kind"] == "bias" and frame["iso"] == iso for frame in frames) >= 8
        flats = [frame for frame in frames if frame["kind"] == "flat" and frame["iso"] == iso]
        exposures = [frame["exposure_s"] for frame in flats]
        assert len(set(exposures)) >= 6
        assert all(exposures.count(exposure) == 2 for exposure in exposures)
        levels = sorted((pixels(samples / frame["file"]).max() - 600) / (16383 - 600) for frame in flats)
        assert levels[0] < 0.2
        assert 0.85 < levels[-1] <= 1
    darks = {(frame["temperature_c"], frame["exposure_s"]) for frame in frames if frame["kind"] == "dark"}
    assert {exposure for temperature, exposure in darks if temperature == 20} >= {30, 60, 120, 300, 600}
    assert {temperature for temperature, _ in darks} == {-18, 0, 10, 20, 30}
    lights = [frame for frame in frames if frame["kind"] == "light"]
    assert len(lights) >= 8
    matching = {key: lights[0][key] for key in ("iso", "exposure_s", "temperature_c")}
    assert sum(frame["kind"] == "dark" and matching.items() <= frame.items() for frame in frames) >= 8


def test_frames_agree_with_the_truth(samples, truth):
    """One number of each kind, estimated here from the files."""
    settings = {setting["iso"]: setting for setting in truth["settings"]}
    for iso in (100, 1600):
        bias = [pixels(samples / "bias" / f"bias_ISO{iso}_{number:02d}.dng") for number in (1, 2)]
        gain, noise = settings[iso]["gain"]["value"], settings[iso]["read_noise"]["value"]
        variance = np.var(bias[0] - bias[1]) / 2
        assert np.sqrt(variance - 1 / 12) * gain == pytest.approx(noise, rel=0.006)
        assert bias[0].mean() == pytest.approx(
            truth["black_level"]["value"], abs=5 * noise / gain / bias[0].size ** 0.5
        )
        speed = {100: "1-8s", 1600: "1-125s"}[iso]
        first, second = (pixels(samples / "flats" / f"flat_ISO{iso}_{speed}_{number}.dng") - 600 for number in (1, 2))
        second *= first.mean() / second.mean()  # the lamp's drift
        measured = first.mean() / (np.var(first - second) / 2 - variance)
        assert measured == pytest.approx(gain, rel=0.01)
    for dark in truth["dark_current"]:
        frames = [
            frame
            for frame in truth["frames"]
            if frame["kind"] == "dark" and frame["temperature_c"] == dark["temperature_c"] and frame["iso"] == 800
        ]
        for frame in frames[-1:]:
            gain = settings[800]["gain"]["value"]
            signal = (pixels(samples / frame["file"]) - truth["black_level"]["value"]) * gain / frame["exposure_s"]
            error = 5 * signal.std() / signal.size**0.5
            assert np.median(signal) == pytest.approx(dark["median"], rel=0.02, abs=2 * error)
            assert signal.mean() == pytest.approx(dark["value"], abs=error)


def test_truth_follows_its_own_law(truth):
    """Arrhenius' law at the sensor's temperature, which the thermometer misses by tenths of a kelvin."""
    law = truth["dark_law"]
    assert law["activation_energy"]["value"] == 0.65
    assert law["dark_current_reference"]["value"] == 0.3
    for dark in truth["dark_current"]:
        kelvin = dark["sensor_c"] + 273.15
        factor = np.exp(-0.65 / 8.617333262e-5 * (1 / kelvin - 1 / 293.15))
        assert dark["value"] == pytest.approx(0.3 * factor, rel=1e-6)
    off = [dark["sensor_c"] - dark["temperature_c"] for dark in truth["dark_current"]]
    assert 0.3 < max(map(abs, off)) <= 0.5
    assert law["doubling_temperature"]["value"] == pytest.approx(np.log(2) * 8.617333262e-5 * 293.15**2 / 0.65)
    assert truth["simulated"] is True
    assert "simulated" in truth["camera"]


def test_hot_pixels_are_hot_in_the_files(samples, truth):
    dark = pixels(samples / "darks/20C/dark_ISO800_600s_20C_01.dng")
    hot = [pixel for pixel in truth["hot_pixels"] if pixel["dark_current"] > 1.5]
    assert len(hot) > 20
    assert min(dark[pixel["y"], pixel["x"]] for pixel in hot) > np.percentile(dark, 99.8)


def test_stars_stand_where_the_truth_says(samples, truth):
    lights = [frame for frame in truth["frames"] if frame["kind"] == "light"]
    inside = [star for star in truth["stars"] if 20 < star["x"] < 699 and 20 < star["y"] < 459]
    for light in (lights[0], lights[3]):
        frame = pixels(samples / light["file"])
        for star in sorted(inside, key=lambda star: -star["flux"][1])[:5]:
            x, y, _ = np.round(np.array(light["matrix"]) @ [star["x"], star["y"], 1]).astype(int)
            box = frame[y - 6 : y + 7, x - 6 : x + 7]
            # both greens, weighted by their light above the sky
            rows, columns = np.mgrid[y - 6 : y + 7, x - 6 : x + 7]
            weight = np.where((rows + columns) % 2, box - np.median(box[(rows + columns) % 2 == 1]), 0).clip(0)
            true_x, true_y, _ = np.array(light["matrix"]) @ [star["x"], star["y"], 1]
            weight[weight < 0.1 * weight.max()] = 0
            assert (rows * weight).sum() / weight.sum() == pytest.approx(true_y, abs=0.5)
            assert (columns * weight).sum() / weight.sum() == pytest.approx(true_x, abs=0.5)


@pytest.mark.parametrize("name", ["warm", "faults", "cooled", "transit"])
def test_a_set_on_request_has_the_published_bytes(name, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    folder = sample_folder(name, progress=False)
    assert folder == tmp_path / f"samples-{name}"
    found = {line for line in hash_folder(folder).splitlines() if not line.endswith("  .recipe")}
    assert found == set(module.HASHES.with_stem(f"samples-{name}").read_text().splitlines())
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 10e6
    frame = next(folder.rglob("bias_*"))
    before = frame.stat().st_mtime_ns
    sample_folder(name, progress=False)
    assert frame.stat().st_mtime_ns == before


def test_a_set_that_does_not_exist_is_refused():
    with pytest.raises(
        WorkbenchError, match="no sample frames are called 'cold'; there are warm, faults, cooled, transit"
    ):
        sample_folder("cold")


def test_the_exercise_has_the_faults_of_its_recipe(tmp_path):
    """Dust elsewhere in the flats, twice the dark current that the temperature stands for, one light twice."""
    folder = write_samples(tmp_path, FAULTS, progress=False)
    lights = sorted((folder / "lights").iterdir())
    assert lights[FAULTS.doubled - 1].read_bytes() == lights[-1].read_bytes()
    assert len({path.read_bytes() for path in lights}) == len(lights) - 1 == 5
    truth = json.loads((folder / "truth.json").read_text())
    (dark,) = truth["dark_current"]
    seconds, gain = FAULTS.darks[0][2], truth["settings"][0]["gain"]["value"]
    files = sorted((folder / "darks").rglob("*.dng"))
    mean = np.mean([pixels(path).mean() for path in files]) - truth["black_level"]["value"]
    assert mean * gain / seconds == pytest.approx(dark["value"], rel=0.01)
    assert dark["value"] > 1.9 * 0.3
    # the flats over those with the dust where the lights have it
    still = write_samples(tmp_path / "still", dataclasses.replace(FAULTS, dust_moved=(0, 0)), progress=False)
    name = "flats/flat_ISO800_1-20s_1.dng"
    moved, there = ((pixels(root / name) - 600) for root in (folder, still))
    ratio = moved / there
    blocks = ratio.reshape(160, 2, 240, 2).mean((1, 3))
    assert blocks.min() < 0.9
    assert blocks.max() > 1.1


def test_the_folder_is_made_once_and_kept(cache):
    folder = sample_folder(progress=False)
    assert folder == cache / "samples"
    frame = folder / "bias/bias_ISO200_01.dng"
    before = frame.stat().st_mtime_ns
    assert sample_folder(progress=False) == folder
    assert frame.stat().st_mtime_ns == before
    assert sorted(path.name for path in cache.iterdir()) == [".samples.lock", "published.sha256", "samples"]


def test_a_set_with_a_frame_missing_is_made_anew(cache):
    frame = sample_folder(progress=False) / "bias/bias_ISO200_01.dng"
    frame.unlink()
    sample_folder(progress=False)
    assert frame.is_file()


def test_a_set_of_another_version_is_made_anew(cache, monkeypatch):
    folder = sample_folder(progress=False)
    (folder / "old.dng").write_text("from an older recipe")
    monkeypatch.setattr(module, "HASHES", cache / "none.sha256")
    with pytest.warns(SampleWarning, match=r"40 of the sample files"):
        sample_folder(progress=False)
    assert not (folder / "old.dng").exists()


def test_another_hash_warns_a_user_and_fails_in_ci(cache, monkeypatch):
    lines = module.HASHES.read_text().splitlines(keepends=True)
    lines[3] = "0" * 64 + lines[3][64:]
    module.HASHES.write_text("".join(lines))
    name = lines[3].split()[1]
    monkeypatch.setenv("WORKBENCH_REQUIRE_REAL", "1")
    with pytest.raises(WorkbenchError, match=f"1 of the sample files .*first {name}"):
        sample_folder(progress=False)
    assert not (cache / "samples").exists()
    monkeypatch.delenv("WORKBENCH_REQUIRE_REAL")
    with pytest.warns(SampleWarning, match="Another processor"):
        folder = sample_folder(progress=False)
    sample_folder(progress=False)  # said once, not at every use
    assert (folder / name).is_file()


def test_nothing_half_made_is_left(cache, monkeypatch):
    shoot = night.expose
    calls = []

    def fails_midway(*args, **kwargs):
        calls.append(1)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        return shoot(*args, **kwargs)

    monkeypatch.setattr(night, "expose", fails_midway)
    with pytest.raises(WorkbenchError, match=r"samples: cannot write .*No space left.*WORKBENCH_CACHE"):
        sample_folder(progress=False)
    assert len(calls) <= 9 + os.cpu_count()  # the rest is not even tried
    assert sorted(path.name for path in cache.iterdir()) == [".samples.lock", "published.sha256"]


def test_what_a_killed_process_left_is_cleared_away(cache):
    left = cache / ".samples.part-12345"
    left.mkdir()
    (left / "half.dng").write_text("half a frame")
    sample_folder(progress=False)
    assert not left.exists()


def test_a_cache_that_is_a_file_is_told_clearly(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("WORKBENCH_CACHE", str(blocked))
    with pytest.raises(WorkbenchError, match="name another folder in the environment variable WORKBENCH_CACHE"):
        sample_folder(progress=False)


def _make(queue):
    module.FULL = SMALL
    module.HASHES = Path(queue.get())
    queue.put(str(sample_folder(progress=False)))


def test_two_processes_make_one_set(cache):
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue() for _ in range(2)]
    workers = [context.Process(target=_make, args=(queue,)) for queue in queues]
    for worker, queue in zip(workers, queues, strict=True):
        worker.start()
        queue.put(str(module.HASHES))
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert hash_folder(cache / "samples").count("\n") == len(list(plan(SMALL))) + 2


def test_without_a_project_the_set_goes_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("WORKBENCH_CACHE", raising=False)
    monkeypatch.setattr(module, "_PROJECT", tmp_path / "site-packages")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert (
        module.own_folder("samples", "data-samples/generated")
        == tmp_path / "cache" / "astrophoto-workbench" / "samples"
    )
    monkeypatch.undo()
    monkeypatch.delenv("WORKBENCH_CACHE", raising=False)
    assert (
        module.own_folder("samples", "data-samples/generated")
        == Path(__file__).parents[2] / "data-samples" / "generated"
    )
