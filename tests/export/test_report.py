"""The sensor report: everything is inside the page, nothing is elsewhere."""

import base64
import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.browser.watch import chromium, serious_faults
from tests.finish.test_zero_point import ZERO, camera
from tests.scenes import in_gain_settings
from workbench.cli import main
from workbench.core import open_sensor
from workbench.core.errors import WorkbenchError
from workbench.export.report import MOST_BYTES, _cards, _sky_cards, _tables, write_report
from workbench.finish.files import write_picture
from workbench.finish.picture import make_picture
from workbench.pipelines import characterize


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    return write_report(result, tmp_path_factory.mktemp("report") / "report.html", progress=False)


def inside(text, kind):
    return [base64.b64decode(part) for part in re.findall(rf"data:{kind};base64,([\w+/=]+)", text)]


def test_it_is_small_and_needs_nothing_from_elsewhere(page):
    text = page.read_text()
    assert page.stat().st_size < MOST_BYTES
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert "@import" not in text
    assert "<script" not in text


def test_figures_come_before_the_tables_and_words_stand_for_keys(page):
    text = page.read_text()
    assert text.index('id="iso-to-gain"') < text.index(">At each ISO") < text.index("<h2>More figures")
    assert "faintest detectable signal" in text
    assert not re.search(r"<td>-?[0-9.]+e[+-][0-9]+</td>", text)
    assert not re.search(r"<td>(u_|DR_|SNR_|LE_|sigma_|highpass)", text)


def test_simulated_frames_are_said_to_be(page):
    assert "Simulated data: a virtual camera" in page.read_text()


def test_the_sensor_file_inside_is_the_measured_one(page, result, tmp_path):
    (found,) = inside(page.read_text(), "application/json")
    (tmp_path / "sensor.json").write_bytes(found)
    assert json.loads(found)["camera"] == result.camera
    inner = open_sensor(tmp_path)
    for name in ("gain", "gain_error", "read_noise", "doubling_temperature"):
        assert np.array_equal(inner[name].values, result.sensor[name].values, equal_nan=True), name


def test_every_number_of_the_table_is_there_with_its_error(page, result):
    text = page.read_text()
    gain = result.sensor.gain.isel(iso=0, channel=1)
    error = float(result.sensor.gain_error.isel(iso=0, channel=1))
    told = [
        (float(value), float(spread))
        for value, spread in re.findall(r"<td>(\d+\.\d+) ±\s(\d+\.\d+)</td>", text)
    ]  # fmt: skip
    assert any(abs(value - float(gain)) < 0.01 and abs(spread / error - 1) < 0.06 for value, spread in told)


def test_the_page_tells_what_the_command_line_does(page, result):
    (line,) = [line for line in result.lines() if line.startswith("full well")]
    assert "G1" in line
    place, value = re.fullmatch(r"full well \((.+)\): (.+) e⁻", line).groups()
    assert place in page.read_text()
    assert value in page.read_text()


def test_pictures_open_and_the_data_behind_them_are_tables(page):
    text = page.read_text()
    pictures = inside(text, "image/png")
    assert len(pictures) == text.count("<figure") >= 10
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            assert image.width == 1600
    tables = inside(text, "text/csv")
    assert len(tables) >= 8
    for table in tables:
        rows = list(csv.DictReader(line for line in table.decode().splitlines() if not line.startswith("#")))
        assert rows
        assert "series" in rows[0]
    assert all(
        re.findall(r"<img [^>]*alt=\"[^\"]{20,}\"", part) for part in re.findall(r"<figure.*?</figure>", text, re.S)
    )


def test_what_thin_data_do_not_give_is_named_with_what_to_shoot(small_samples, tmp_path):
    folder = tmp_path / "camera"
    shutil.copytree(small_samples / "bias", folder / "bias")
    page = write_report(characterize(folder, progress=False), tmp_path / "thin.html", progress=False)
    text = page.read_text()
    assert "Read noise against ISO" in text
    assert re.search(r"Not measured: [^<]*From ISO to gain[^<]*Shoot two equal flats", text)
    assert "?." not in "".join(re.findall(r"<li>(.*?)</li>", text))
    assert "<td>Is the black level kept?</td>" in text


@pytest.mark.browser
def test_on_a4_two_pages_with_figures_one_can_read_come_before_the_tables(page, require):
    millimetre = 96 / 25.4  # [CSS px]
    with chromium(require("chromium")) as browser:
        view = browser.new_page(viewport={"width": round(182 * millimetre), "height": round(269 * millimetre)})
        view.emulate_media(media="print")
        view.goto(page.as_uri())
        figures = [one.bounding_box() for one in view.locator("figure").all()]
        tables = view.locator("h2.tables").bounding_box()["y"]
    assert min(one["width"] for one in figures) > 130 * millimetre
    before = [one for one in figures if one["y"] < tables]
    assert tables + max(one["height"] for one in before) < 2 * 269 * millimetre  # one may go over to the next page


@pytest.mark.browser
def test_on_a_phone_answers_stand_below_their_questions(page, require):
    with chromium(require("chromium")) as browser:
        view = browser.new_page(viewport={"width": 390, "height": 850}, color_scheme="dark")
        view.goto(page.as_uri())
        wide = view.evaluate("[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > 620).length")
        words = view.locator("table:has(td.words) td.words").first.bounding_box()
        assert wide == 0
        assert words["x"] + words["width"] <= 390
        assert serious_faults(view) == []


def test_the_command_and_its_mistakes(small_samples, tmp_path, result):
    asked = CliRunner().invoke(main, ["report", str(tmp_path / "nowhere"), "--out", str(tmp_path / "r.html")])
    assert asked.exit_code == 2
    assert "nowhere" in asked.output
    with pytest.raises(WorkbenchError, match="is a folder; give the name"):
        write_report(result, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="file: cannot be made a folder"):
        write_report(result, tmp_path / "file" / "report.html", progress=False)


def test_the_report_of_a_camera_without_iso_speaks_of_gain_settings(result, tmp_path):
    sensor = in_gain_settings(result.sensor, {200.0: 0.0, 800.0: 120.0}).assign(unity_gain_iso=10.0)
    words = [" ".join(card) for card in _cards(sensor)]
    assert "unity gain gain setting 10.0" in " ".join(words)
    assert any("at gain setting 120, mean of the channels" in card for card in words)
    titles = [title for title, _ in _tables(sensor.assign_attrs(blocks="{}"))]
    assert titles[0] == "At each gain setting"


def test_the_uniformity_of_many_channels_and_settings_is_a_few_rows_of_means(result):
    part = {"error": 0.2, "unit": "e-"}
    settings = [
        {"iso": iso, "channel": name, "value": iso + k, "filter": "none", "row": part | {"value": 5 + k}} | part
        for iso in (100, 200, 400, 800, 1600, 3200)
        for k, name in enumerate(("R", "G1", "G2", "B"))
    ]
    darks = [{"iso": 800, "temperature_c": -18, "value": 0.001, "error": 0.0001, "unit": "e-/s"}]
    blocks = {"dsnu": {"settings": settings}, "dcnu": {"settings": darks}}
    titled = dict(_tables(result.sensor.assign_attrs(blocks=json.dumps(blocks))))
    table = titled["Uniformity, mean of the channels (sensor.json has all)"]
    assert table["where"].tolist() == ["ISO 100", "ISO 400", "ISO 800", "ISO 3200", "ISO 800, −18 °C"]
    assert table.iloc[0].tolist() == ["DSNU", "ISO 100", "101.50 ± 0.10 e⁻", "6.50 ± 0.10", "–", "–", "no"]


def test_a_solved_stack_adds_how_deep_it_reaches(tmp_path):
    panel = "panel 2 (4 lights, the first b.fits)"
    picture = camera(1)
    picture.attrs["history"] = [f"{panel}: scale 1.250 ± 0.010, background to ± 0.3, 0.4, 0.3 e⁻ (R, G, B)"]
    write_picture(picture, tmp_path / "stack.fits")
    cards = {title: (value, where) for title, value, where in _sky_cards(tmp_path / "stack.fits")}
    value, error = (float(part) for part in cards["zero point"][0].removesuffix(" mag").split(" ± "))
    assert abs(value - ZERO[1]) < 3 * error
    assert set(cards) == {"zero point", "limiting magnitude", "sky brightness", panel}
    assert cards[panel][0].startswith("scale 1.250 ± 0.010")
    assert all("stack.fits" in where for _, where in cards.values())
    write_picture(make_picture(np.ones((1, 64, 64))), tmp_path / "plain.fits")
    with pytest.raises(WorkbenchError, match=r"plain.fits: .* no plate solution; solve its stack first"):
        list(_sky_cards(tmp_path / "plain.fits"))
