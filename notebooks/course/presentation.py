"""A figure of the course with its controls and its caption, and the menu of the blog's charts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import holoviews as hv
import panel as pn
import xarray as xr

from workbench.app.live_charts import LiveChart, live_text, wrapped
from workbench.charts import theme
from workbench.charts.registry import REGISTRY
from workbench.core.settings import in_words_of, setting_dim, setting_of_table
from workbench.core.values import is_simulated
from workbench.ingest.folder import Folder
from workbench.pipelines.characterization import Characterization

WIDTH = 820
FITS: dict[str, Any] = {"sizing_mode": "stretch_width", "max_width": WIDTH}  # narrower where the window is
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "+")
_BESIDE = 0.84  # of the size of a panel: two fit on a page of the site, too


def figure(
    chart: Any, caption: str, *controls: Any, camera: str = "", frames: Folder | None = None
) -> pn.viewable.Viewable:
    """Put controls above a chart and a caption below it, which names simulated data as such.

    Parameters
    ----------
    chart
        A HoloViews object, or one bound to the controls (`panel.bind`).
    camera
        The name that the frames carry.
    frames
        Where the caption speaks of their ISO: of a camera with gain settings it speaks of these.
    """
    caption = in_words_for(frames, caption)
    model = camera.replace("(simulated)", "").strip()  # not twice
    label = f"*Simulated data* ({model})." if is_simulated(camera) else f"*Data:* {camera}." if camera else ""
    above = [pn.FlexBox(*controls)] if controls else []
    words = pn.pane.Markdown(f"{caption} {label}", styles={"color": theme.MUTED}, margin=(0, 10), **FITS)
    bound = not isinstance(chart, (hv.core.Dimensioned, pn.viewable.Viewable))
    shown = LiveChart(chart, fit) if bound else wrapped(fit(chart)) if isinstance(chart, hv.Layout) else chart
    return pn.Column(*above, shown, words, sizing_mode="stretch_width")


def in_words_for(frames: Folder | None, text: str) -> str:
    """Return a text that speaks of the ISO in the words for the camera of a folder."""
    return text if frames is None else in_words_of(setting_of_table(frames.table), text)


def setting_slider(found: xr.DataArray | xr.Dataset) -> pn.widgets.DiscreteSlider:
    """Return a slider over the ISO settings, or gain settings, of a cube or a measurement.

    Examples
    --------
    >>> slider = setting_slider(xr.Dataset(coords={"gain_setting": [100.0, 0.0]}))
    >>> slider.label, slider.options
    ('gain setting', [0.0, 100.0])
    >>> setting_slider(xr.Dataset(coords={"iso": [6400.0, 3280000.0]})).labels[1]
    'ISO: <b>3280000</b>'
    """
    dim = setting_dim(found)
    options = sorted({float(value) for value in found[dim].values})
    return pn.widgets.DiscreteSlider(label=in_words_of(dim, "ISO"), options=options, formatter="%.10g")


def fit(chart: Any) -> Any:
    """Make panels side by side smaller, so that two, or three pictures, fit next to JupyterLab's list of files."""
    if not isinstance(chart, hv.Layout) or len(chart) < 2:
        return chart
    pictures = len(chart) == 3 and all(panel.traverse(specs=[hv.Image]) for panel in chart)
    share = _BESIDE * 2 / 3 if pictures else _BESIDE
    panels = []
    for panel in chart:
        sizes = hv.Store.lookup_options("bokeh", panel, "plot").kwargs
        smaller = {name: round(share * sizes[name]) for name in ("width", "height") if sizes.get(name)}
        panels.append(panel.opts(**smaller, backend="bokeh", clone=True))
    return theme.layout(panels).cols(3 if pictures else 2)


def typeset(text: str) -> str:
    """Return a text of the terminal with units, signs and powers of ten as a page has them.

    Examples
    --------
    >>> typeset("gain 0.27 e-/ADU; 6% of them at -0.5; 9e-10 by chance, 8.8e+05")
    'gain 0.27 e⁻/ADU; 6 % of them at −0.5; 9 × 10⁻¹⁰ by chance, 8.8 × 10⁵'
    """
    for pattern, sign in ((r"e-(?=/)", "e⁻"), (r"(?<=\d)%", " %"), (r"(?<![^\s(])-(?=\d)", "−")):
        text = re.sub(pattern, sign, text)
    return re.sub(r"(?<=\d)e([+-])0*(\d+)", lambda power: " × 10" + "".join(power.groups()).translate(_RAISED), text)


def remarks(lines: Iterable[str]) -> pn.viewable.Viewable:
    """Show the remarks of a measurement, one a line, `typeset`.

    Examples
    --------
    >>> print(remarks(["gain 0.27 e-/ADU, estimated here", "4 dust shadows"]).object)
    - gain 0.27 e⁻/ADU, estimated here
    - 4 dust shadows
    """
    text = "\n".join(f"- {typeset(line)}" for line in lines) or "Nothing to remark."
    return pn.pane.Markdown(text, margin=(0, 10), **FITS)


def chart_browser(result: Characterization) -> pn.viewable.Viewable:
    """Choose one of the blog's charts that a characterization allows; it is drawn with its own caption.

    Parameters
    ----------
    result
        From `workbench.characterize`.
    """
    there = {one.in_words_of(result).title: one.id for one in REGISTRY.values() if not one.missing(result)}
    start = "iso-to-gain" if "iso-to-gain" in there.values() else next(iter(there.values()))
    menu = pn.widgets.Select(label="chart", options=there, value=start, max_width=420, sizing_mode="stretch_width")
    drawn = pn.bind(lambda name: wrapped(fit(REGISTRY[name].draw(result))), menu)
    caption = pn.bind(lambda name: REGISTRY[name].caption(result).text, menu)
    return pn.Column(menu, pn.panel(drawn), live_text(caption, color=theme.MUTED), sizing_mode="stretch_width")
