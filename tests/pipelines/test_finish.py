import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from workbench.cli import main
from workbench.core.errors import StageError, WorkbenchError
from workbench.finish import FinishSettings, make_picture, read_picture, write_picture
from workbench.pipelines import finish_stack, settings_from, stack_folder
from workbench.simulate import sky as virtual


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A simulated stack as a file."""
    sky = virtual.make_sky((400, 600), stars=200, brightest=3000.0, step=16.0, nebula=0.2, seed=3)
    view = virtual.View(gradient=np.outer([1, 1, 1], [0.1, 0.05]))
    light = virtual.picture(sky, view).values.astype(float) * 60
    rng = np.random.default_rng(0)
    signal = rng.poisson(light * 16) / 16
    signal[:, :5] = np.nan
    picture = make_picture(signal, light / 16, attrs={"daylight_multipliers": [2.0, 1.0, 1.3]})
    return write_picture(picture, tmp_path_factory.mktemp("finish") / "stack.fits")


def test_a_stack_in_a_picture_out(stack, tmp_path):
    done = finish_stack(
        stack, tmp_path / "a.png", linear_out=tmp_path / "l.fits", settings_out=tmp_path / "s.json", progress=False
    )
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(picture.signal, done.picture.signal, atol=1e-5)
    assert picture.attrs["settings"] == FinishSettings().to_dict()
    linear = read_picture(tmp_path / "l.fits")
    np.testing.assert_array_equal(linear.signal, done.linear.signal)
    assert "variance" in linear
    # the settings inside the picture, and those in the file, replay it to the last bit
    for settings in (FinishSettings.from_dict(picture.attrs["settings"]), FinishSettings.open(tmp_path / "s.json")):
        finish_stack(stack, tmp_path / "b.png", settings, progress=False)
        assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_wishes_lie_over_a_settings_file(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(FinishSettings.from_dict({"stretch": {"sky": 0.2}, "background": {"method": "rbf"}}).to_json())
    settings = settings_from(path, background="none", denoise=0.5)
    assert (settings.stretch.sky, settings.background.method, settings.detail.denoise) == (0.2, "none", 0.5)


def test_what_cannot_be_is_said_before_the_work(stack, tmp_path):
    for out, words in (
        (tmp_path / "a.jpg", r"'\.jpg'"),
        (tmp_path / "a", "without a suffix"),
        (tmp_path / "no" / "a.png", "does not exist"),
    ):
        with pytest.raises(WorkbenchError, match=words):
            finish_stack(stack, out, progress=False)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(WorkbenchError, match="is a folder"):
        finish_stack(stack, tmp_path / "folder.png", progress=False)
    finish_stack(stack, tmp_path / "a.fits", progress=False)
    with pytest.raises(StageError, match=r"a\.fits.*stretched already"):
        finish_stack(tmp_path / "a.fits", tmp_path / "b.png", progress=False)


def test_from_the_command_line(stack, tmp_path):
    run = CliRunner().invoke(
        main,
        ["finish", str(stack), "--out", str(tmp_path / "a.tif"), "--stretch", "autostretch", "--denoise", "0.3",
         "--save-settings", str(tmp_path / "s.json"), "--quiet"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "Stretch: autostretch" in run.output
    assert "written:" in run.output
    assert json.loads((tmp_path / "s.json").read_text())["detail"]["denoise"] == 0.3
    assert read_picture(tmp_path / "a.tif").attrs["stage"] == "stretched"


def test_mistakes_are_one_line_and_no_traceback(stack, tmp_path):
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
