"""The picture of the whole chain: it marks the stations asked for, and stands by itself as SVG."""

import re
from xml.etree import ElementTree as ET

import pytest
from course.chain import JOURNEY, journey
from pictures import journey_svg

from workbench.core.errors import WorkbenchError


def test_the_stations_of_a_notebook_are_marked_and_no_other():
    items = re.findall(r"<li(.*?)>.*?<b>(.+?)</b>", journey("electron", "ADU").data)
    assert [name for _, name in items] == list(JOURNEY)
    assert [name for marks, name in items if "here" in marks] == ["electron", "ADU"]
    assert "here" not in "".join(marks for marks, _ in re.findall(r"<li(.*?)>.*?<b>(.+?)</b>", journey().data))


def test_an_unknown_station_is_refused_with_those_there_are():
    with pytest.raises(WorkbenchError, match=r"'neutron'.*photon, electron"):
        journey("neutron")


def test_the_picture_by_itself_is_svg_with_a_description():
    root = ET.fromstring(journey_svg())
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "name"]
    assert names == list(JOURNEY)
    assert all(name in root.find("{http://www.w3.org/2000/svg}desc").text for name in names)
