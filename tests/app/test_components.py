"""Drawings that fit the screen and follow the colours of the page; the overview of a folder."""

import workbench as wb
from workbench.app.components import Drawing, Screen
from workbench.simulate.capture import Batch, cooled, write_frames


def test_drawings_fit_the_screen():
    phone, unknown, desk = Screen(width=390), Screen(), Screen(width=1400)
    assert (phone.narrow, unknown.narrow, desk.narrow) == (True, False, False)
    assert phone.fit(760) < 390 - 60
    assert unknown.fit(760) == desk.fit(760) == 760
    assert Screen(width=100).fit(760) == 240


def test_a_drawing_takes_the_colours_of_a_dark_page_and_gives_them_back():
    import holoviews as hv
    from bokeh.models import Plot

    from workbench.charts import theme

    theme.load_backends()
    screen = Screen(width=390, dark=True)
    drawing = Drawing(hv.Curve([1, 2]).opts(color=theme.INK, width=900, backend="bokeh"), screen=screen)
    figure = drawing.get_root().select_one({"type": Plot})
    line = figure.renderers[0].glyph
    assert (line.line_color, figure.border_fill_color) == ("#e4eaf0", "#10181f")
    assert figure.width <= 390
    screen.dark = False
    assert line.line_color == theme.INK


def test_overview_of_a_folder(small_samples):
    table = wb.app.folder_overview(wb.open_folder(small_samples))
    assert table.loc["flat", "frames"] == 20
    assert table.loc["bias", "exposures"] == "1/8000 s"
    assert table.loc["dark", "temperatures [°C]"] == "10, 20"


def test_overview_of_a_cooled_camera_s_folder(tmp_path):
    batches = [Batch("bias", 1, 0.0, gain_setting=0), Batch("flat", 1, 1.0, gain_setting=0, filter="Ha")]
    batches += [Batch("flat", 1, 1.0, gain_setting=100, filter="L")]
    write_frames(tmp_path, cooled((64, 96)), batches)
    table = wb.app.folder_overview(wb.open_folder(tmp_path, progress=False))
    assert "ISO" not in table.columns
    assert table.loc["flat", ["gain setting", "filter", "offset setting"]].tolist() == ["0, 100", "Ha, L", "50"]
    assert table.loc["bias", "gain setting"] == "0"
