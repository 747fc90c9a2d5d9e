"""One theme for every chart, and the two ways to show one: still (`show`) and moving (`live_chart`).

Charts are Vega-Lite 5 MIME bundles, which the installed JupyterLab draws itself, offline. The theme draws lines and text in
`currentColor`, the colour of the text around the chart, so they follow a light or dark theme even when the reader switches
it. The background is transparent. The data colours are Okabe and Ito's, darkened or lightened until each has a contrast of
3:1 or more against both JupyterLab backgrounds (WCAG 2.1, 1.4.11). `labkit.workbook.fitted` makes charts as wide as the page
and tells categories apart by more than a colour. A chart cannot be shown without a text alternative.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from labkit.workbook.render import FORM, show_widget

MIME = "application/vnd.vegalite.v5+json"
PALETTE = {
    "blue": "#0072b2",
    "orange": "#c17f00",
    "green": "#009e73",
    "red": "#d55e00",
    "pink": "#c56b9e",
    "sky": "#2b95cf",
    "grey": "#7f7f7f",
}
_INK = "currentColor"
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "range": {"category": list(PALETTE.values()), "heatmap": {"scheme": "viridis"}, "ramp": {"scheme": "viridis"}},
    "title": {"color": _INK, "subtitleColor": _INK, "anchor": "start", "fontSize": 15, "subtitleFontSize": 12},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "domainColor": _INK,
        "tickColor": _INK,
        "gridColor": _INK,
        "gridOpacity": 0.15,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 260,
    },
    "axisQuantitative": {"tickCount": 8},  # on a chart as wide as the page, Vega-Lite would draw thirty
    "legend": {
        "labelColor": _INK,
        "titleColor": _INK,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 0,
        "symbolOpacity": 1,
        "symbolBaseFillColor": PALETTE["grey"],  # of legends for shape or size alone; black is lost on a dark page
        "symbolBaseStrokeColor": PALETTE["grey"],
    },
    "header": {"labelColor": _INK, "titleColor": _INK},
    "text": {"color": _INK},
    "rule": {"color": _INK},
    "view": {"stroke": None, "continuousWidth": 480, "continuousHeight": 300, "discreteHeight": {"step": 28}},
    "mark": {"color": PALETTE["blue"]},
}
# SVG keeps text as text: searchable, zoomable, and in currentColor. The menu has no entry that needs a network.
_EMBED = {
    "embed_options": {"renderer": "svg", "actions": {"export": True, "source": False, "compiled": False, "editor": False}}
}


_MOVING_PX = 960  # the width of a chart inside of a widget, beside its frame; narrower pages shrink it


class ChartError(ValueError):
    """A chart that may not be shown; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Figure:
    """An Altair chart with its text alternative and where its numbers come from."""

    chart: Any
    alt: str
    source: str

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ChartError("a chart needs a text alternative: alt='what a reader who cannot see it should learn from it'")
        if not self.source.strip():
            raise ChartError("a chart needs a source: source='computed in this run', or the recording's caption")


def spec(figure: Figure, width_px: float | None = None) -> dict[str, Any]:
    """The chart's Vega-Lite 5 specification in the workbook's theme, with the text alternative as its description.

    It is `width_px` wide, or as wide as `fitted` makes a chart.

    The chart's own configuration wins over the theme. Raises `ChartError` for data that no chart can carry, and for a chart
    that Altair cannot write as Vega-Lite 5.
    """
    import altair as alt  # Altair and pandas take seconds to import, and most users of this room draw nothing

    from labkit.workbook.drawable import drawable
    from labkit.workbook.fitted import fitted

    try:
        made: dict[str, Any] = drawable(figure.chart).to_dict(format="vega-lite")
        json.dumps(made)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ChartError(f"this chart cannot be written as JSON: {error}; draw numbers, text and dates") from error
    if "/vega-lite/v5" not in str(made.get("$schema", "")):
        raise ChartError(f"JupyterLab draws Vega-Lite 5, this chart is {made.get('$schema')!r}; use altair 5.5, as pinned")
    own = made.pop("config", {}) if figure.chart._get("config") is not alt.Undefined else {}
    made = fitted(made, width_px)
    made["config"] = _merged(CONFIG, own)
    made["description"] = figure.alt
    return made


def bundle(figure: Figure, width_px: float | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The chart's MIME data and metadata, as `spec` makes them; its plain text is the text alternative and the source."""
    return {MIME: spec(figure, width_px), "text/plain": f"{figure.alt}\n{figure.source}"}, {MIME: _EMBED}


def show(chart: Any, *, alt: str, source: str) -> None:
    """Display a chart, its source under it, and its text alternative folded.

    Raises `ChartError` when `alt` or `source` is empty, and as `spec` does.
    """
    from IPython.display import display

    figure = Figure(chart, alt, source)
    data, metadata = bundle(figure)
    display(data, metadata=metadata, raw=True)
    display({"text/html": caption_html(figure), "text/plain": f"{alt}\n{source}"}, raw=True)


def caption_html(figure: Figure) -> str:
    """HTML with the source and, folded, the text alternative; a keyboard or a screen reader can open it."""
    return (
        f'<div style="font-size:.9em;color:var(--jp-content-font-color2, inherit);max-width:52em">{escape(figure.source)}'
        f"<details><summary>Chart in words</summary>{escape(figure.alt)}</details></div>"
    )


def live_chart(make: Callable[..., Figure], **controls: Any) -> None:
    """Show controls and, below, the chart that `make(**values)` returns, drawn anew at every change.

    `make` must answer in well under 100 ms, so compute heavy things before. An error at the first call is raised. An error
    after a change is shown in the chart's place, so that no chart stands beside settings it was not drawn for, and the
    controls stay alive. All of it is widget state, so it works in JupyterLab and under Voilà.
    """
    import ipywidgets as w

    picture = w.Output(layout=w.Layout(min_height="8em"))
    words = w.HTML()

    def draw(_: Any = None) -> None:
        try:
            figure = make(**{name: control.value for name, control in controls.items()})
            data, metadata = bundle(figure, _MOVING_PX)
        except Exception as error:  # noqa: BLE001 - a bad setting must not kill the controls
            name, text = type(error).__name__, str(error)
            told = {"text/html": f"<strong>{escape(name)}</strong>: {escape(text)}", "text/plain": f"{name}: {text}"}
            picture.outputs, words.value = ({"output_type": "display_data", "data": told, "metadata": {}},), ""
            return
        picture.outputs = ({"output_type": "display_data", "data": data, "metadata": metadata},)
        words.value = caption_html(figure)

    first = make(**{name: control.value for name, control in controls.items()})  # so that a broken `make` fails its cell
    for control in controls.values():
        if hasattr(control.style, "description_width"):
            control.style.description_width = "initial"  # else long labels are cut off
        control.observe(draw, names="value")
    draw()
    panel = w.HBox(list(controls.values()), layout=w.Layout(flex_flow="row wrap", grid_gap="0 2em"))
    panel.add_class(FORM)
    show_widget(w.VBox([panel, picture, words]), f"{first.alt}\n{first.source}")


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
