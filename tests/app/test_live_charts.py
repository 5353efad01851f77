"""A chart that follows its controls shows what the chart drawn anew would show, in the figure that was drawn first."""

import time

import course
import holoviews as hv
import numpy as np
import panel as pn
import pytest
from bokeh.models import Plot as Figure
from jupyter_client.manager import start_new_kernel

from workbench import charts
from workbench.app import LiveChart, live_chart
from workbench.charts import noise_budget_chart, theme
from workbench.core.errors import WorkbenchError

theme.load_backends()
DIMS = theme.dimension("x", "s"), theme.dimension("y", "e⁻")
ROW, COLUMN = theme.dimension("row", "px"), theme.dimension("column", "px")


def figures(shown):
    """The figures of a chart, or of a page that holds one, by their titles."""
    if isinstance(shown, hv.Layout):
        root = hv.Store.renderers["bokeh"].get_plot(shown).state
    else:
        root = pn.panel(shown).get_root()
    return sorted(root.select({"type": Figure}), key=lambda one: one.title.text)


def listed(column):
    return [
        np.round(np.ravel(part).astype(float), 9).tolist() if not isinstance(part, str) else part for part in column
    ]


def state(figure):
    """What a reader sees of a figure."""
    glyphs = []
    marks = [*figure.renderers, *(one for one in figure.center if hasattr(one, "source"))]
    for mark in (mark for mark in marks if mark.visible):
        source, glyph = getattr(mark, "data_source", None) or mark.source, getattr(mark, "glyph", mark)
        looks = [getattr(glyph, name, None) for name in ("line_color", "line_width", "fill_color", "size")]
        if any(len(column) for column in source.data.values()):
            glyphs.append([type(glyph).__name__, looks, sorted((name, listed(c)) for name, c in source.data.items())])
    ends = [(span.start, span.end) for span in (figure.x_range, figure.y_range)]
    names = [item.label.value for legend in figure.legend for item in legend.items if item.visible]
    bars = [(bar.color_mapper.low, bar.color_mapper.high) for bar in figure.below if hasattr(bar, "color_mapper")]
    ticks = [getattr(axis.ticker, "ticks", None) for axis in figure.axis]
    return [figure.title.text, np.round(ends, 9).tolist(), names, ticks, bars, sorted(glyphs, key=repr)]


def follows(chart, *moves):
    """Whether the figures drawn first show, after each move, what those drawn anew would show."""
    control = pn.widgets.Select(options=list(moves), value=moves[0])
    first = figures(live_chart(chart, at=control))
    for at in moves:
        control.value = at
        anew = [state(one) for one in figures(chart(at))]
        now = sorted((state(one) for one in first), key=lambda one: one[0])
        assert now == anew, at


def test_the_gain_explorer(result):
    def chart(at):
        return charts.ptc(*course.explorers.refit(result.ptc, *at))

    follows(chart, (800.0, (0, 5000)), (800.0, (0, 8000)), (800.0, (0, 4000)), (800.0, (500, 5000)))


def test_the_noise_budget(result):
    def chart(at):
        return noise_budget_chart(result.sensor, temperature=at, rate=1.0, prnu=0.006, iso=800.0, exposure=60.0)

    follows(chart, 20, -20, 35)


def test_the_darks_needed():
    follows(lambda at: course.darks_needed(12.0, 15.0, *at), (16, 50, True), (64, 50, False), (16, 90, True))


def every_part(at):
    """A chart of all that the house style has, the same each time it is asked for."""
    rng = np.random.default_rng(at)
    values = np.sort(rng.normal(10, at, 40)) ** 2 + 1
    line = theme.line(np.arange(40), values, dims=DIMS, label=f"{at} times", width=1 + at, colour=theme.SERIES[at])
    band = theme.band(np.arange(40), values - at, values + at, dims=DIMS, label="band")
    points = theme.points(np.arange(4) * at, values[:4], np.full(4, at), dims=DIMS, label="points")
    counts, edges = np.histogram(values, bins=8)
    bounds, limits = (0, 0, 8, 6), (0, 2.0 * at)
    image = theme.picture(rng.normal(at, 1, (6, 8)), bounds, dims=(COLUMN, ROW), value=DIMS[1], limits=limits)
    corners = [(at, 1, at + 1, 2), (3, 4, 5, 6)]
    return theme.layout(
        [
            theme.panel([band, line, points], title=f"a chart {at}", legend="top_left"),
            theme.panel([theme.steps(edges, counts + 1, dims=DIMS)], title=f"b histogram {at}"),
            theme.panel([theme.line(values, values * at, dims=DIMS)], title=f"c logarithmic {at}", log="xy"),
            theme.panel([image, theme.note(at, 2, f"{at}", dims=DIMS)], title=f"d {at}", ratio=1.3, invert_y=True),
            theme.panel([theme.boxes(corners, fill="#ffffff"), theme.segments(corners)], title=f"e {at}"),
            theme.panel([theme.shapes([np.array([(0, 0), (at, 0), (at, 3)])], fill="#000000")], title=f"f {at}"),
        ]
    )


def test_every_part_of_a_chart():
    follows(every_part, 1, 2, 5, 1)


def some_points(at):
    there = [theme.points([1.0, 2.0], [at, 2.0], dims=DIMS, label="always")]
    if at > 1:
        there.insert(0, theme.points([at], [at], [1.0], dims=DIMS, label="sometimes", colour=theme.SERIES[1]))
    return theme.layout([theme.panel(there, title=f"{at}")])


def test_what_is_gone_is_hidden_and_comes_back():
    follows(some_points, 3, 1, 2)


def test_what_is_new_is_drawn():
    control = pn.widgets.IntSlider(value=1, start=1, end=9)
    shown = live_chart(some_points, at=control)
    pane = pn.panel(shown)
    root = pane.get_root()
    control.value = 4
    (now,) = root.select({"type": Figure})
    assert state(now) == state(figures(some_points(4))[0])


def test_a_page_opened_later_shows_what_is_now():
    control = pn.widgets.IntSlider(value=2, start=1, end=9)
    shown = live_chart(some_points, at=control)
    early = figures(shown)
    control.value = 5
    late = figures(shown)
    assert state(early[0]) == state(late[0]) == state(figures(some_points(5))[0])
    control.value = 7
    assert state(early[0]) == state(late[0]) == state(figures(some_points(7))[0])


def test_a_mistake_leaves_the_chart_as_it_was_and_is_told():
    slider = pn.widgets.IntSlider(value=1, start=0, end=3)

    def line(slope):
        if not slope:
            raise WorkbenchError("no slope")
        return theme.layout([theme.panel([theme.line([0, 1], [0, slope], dims=DIMS)], title=f"slope {slope}")])

    shown = live_chart(line, slope=slider)
    (drawn,) = figures(shown)
    _, told = shown.__panel__()
    slider.value = 3
    assert drawn.title.text == "slope 3"
    slider.value = 0
    assert drawn.title.text == "slope 3"
    assert (told.visible, told.value) == (True, "no slope")
    slider.value = 2
    assert drawn.title.text == "slope 2"
    assert not told.visible


def test_what_is_no_chart_of_the_house_is_shown_anew():
    slider = pn.widgets.IntSlider(value=1, start=1, end=3)
    shown = LiveChart(pn.bind(lambda at: f"{at} frames", slider))
    slider.value = 2
    assert shown.__panel__()[0][0].object == "2 frames"


LISTEN = """
import threading
from pyviz_comms import JupyterCommJS
from workbench.app.live_charts import hear_every_move
heard = []
def hear(message):
    heard.append((message["move"], threading.current_thread() is threading.main_thread()))
comm = JupyterCommJS(id="slider", on_msg=hear)
"""


def test_a_move_that_comes_before_its_channel_is_heard_and_in_order():
    """As JupyterLab sends them: the opening to the kernel's main thread, the moves to a subshell of it."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        client.execute_interactive(LISTEN + "hear_every_move(); hear_every_move()", timeout=120)
        session = client.session
        request = session.msg("create_subshell_request")
        client.control_channel.send(request)
        content = client.get_control_msg(timeout=60)["content"]
        if "subshell_id" not in content:
            pytest.skip("this kernel has no subshells")

        def send(kind, content, **header):
            message = session.msg(kind, content | {"comm_id": "channel"})
            message["header"] |= header
            client.shell_channel.send(message)

        busy = client.execute("import time; time.sleep(2)")
        send("comm_open", {"target_name": "slider", "data": {}})
        for move in range(3):
            send("comm_msg", {"data": {"move": move}}, subshell_id=content["subshell_id"])
        assert client.get_shell_msg(timeout=60)["parent_header"]["msg_id"] == busy
        give_up = time.monotonic() + 60
        while "2, True" not in (text := _evaluated(client, "heard")) and time.monotonic() < give_up:
            time.sleep(0.2)
        assert text == "[(0, True), (1, True), (2, True)]"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _evaluated(client, expression):
    """The text of an expression in a kernel."""
    reply = client.execute_interactive("", user_expressions={"it": expression}, timeout=60, output_hook=lambda _: None)
    return reply["content"]["user_expressions"]["it"]["data"]["text/plain"]
