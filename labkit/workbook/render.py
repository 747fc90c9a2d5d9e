"""What the workbook prints: panels and tables as HTML, each beside a plain text of the same content.

Colours come from JupyterLab's own CSS variables, with fallbacks, so they follow the reader's theme. The colour of a panel's
edge never carries the message alone: the text says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from labkit.extras import extra

_EDGE = {
    "good": "var(--jp-success-color1, #2e7d32)",
    "bad": "var(--jp-warn-color1, #b26a00)",
    "info": "var(--jp-info-color1, #0277bd)",
}
_PANEL = (
    "border-left:4px solid {edge};padding:.5em .9em;margin:.4em 0;max-width:52em;line-height:1.5;"
    "color:var(--jp-content-font-color1, inherit);background:var(--jp-layout-color2, transparent)"
)
FORM = "lab-form"  # the class of a box of controls: the label of each stands above it
_WAITS = (
    ":is(.jp-Cell:has(.lab-veil) ~ .jp-CodeCell:not(.jp-Cell:has([data-jupyter-id='Do'], #Do) ~ *),"
    ".jp-Cell:has(.lab-veil) ~ .jp-Cell:has([data-jupyter-id='So-what'], #So-what) ~ .jp-CodeCell)"
)
_WAITING = f"{_WAITS} .jp-OutputArea-child:not(:has(.lab-open, [data-mime-type$='.stderr'], [data-mime-type$='.error']))"
STYLE = f"""<style>
.jp-RenderedHTMLCommon table {{ display: block; width: max-content; max-width: 100%; overflow-x: auto; margin-left: 0; }}
.vega-embed {{ width: 100%; max-width: 76rem; }}
.vega-embed svg.marks {{ max-width: 100%; height: auto; }}
.lab-form .widget-inline-hbox {{ flex-wrap: wrap; height: auto; width: 100%; max-width: 36rem; }}
.lab-form.widget-hbox > .widget-inline-hbox {{ flex: 1 1 20rem; width: auto; }}
.lab-form .widget-inline-hbox > .widget-label {{
  flex: 1 0 100%; width: 100%; max-width: none; text-align: left; white-space: normal; line-height: 1.4; height: auto;
}}
.jp-OutputArea-output.jupyter-widgets:not(:has(> *)) {{ font-size: 0; }}
.jp-OutputArea-output.jupyter-widgets:not(:has(> *))::after {{
  content: "Run this cell to use what stands here."; font-size: var(--jp-content-font-size1, 14px); font-style: italic;
  color: var(--jp-content-font-color2, inherit);
}}
{_WAITING} {{ visibility: hidden; position: relative; max-height: 2.2em; }}
{_WAITING}:first-child::before {{
  content: "Folded until you commit your prediction above, or choose to see the result anyway.";
  visibility: visible; position: absolute; left: calc(var(--jp-cell-prompt-width, 64px) + 8px);
  font-style: italic; color: var(--jp-content-font-color2, inherit);
}}
{_WAITING}:not(:first-child) {{ max-height: 0; padding: 0; margin: 0; }}
</style>"""
"""The workbook's one stylesheet, which the cell that opens a chapter emits.

Tables scroll in a box of their own; charts are as wide as the page; the label of a slider stands above it; in place of a
widget without a kernel stands what to do. And while a result waits for a prediction (`lab-veil`), the outputs of later cells
are folded, except those that answer to the learner (`lab-open`), and those of the learner's own code under "Do".
"""


def open_html(html: str) -> str:
    """`html` marked as no result: it stays in sight while a prediction above it is open."""
    return f'<div class="lab-open">{html}</div>'


def veil_html(html: str) -> str:
    """`html` in sight, and as long as it is, the outputs of the cells below are folded."""
    return f'<div class="lab-open lab-veil">{html}</div>'


def panel_html(title: str, body: str = "", tone: str = "info") -> str:
    """A panel as HTML. `title` is text, `body` is HTML; `tone` ('good', 'bad' or 'info') colours the edge."""
    head = f"<strong>{escape(title)}</strong>"
    return f'<div role="status" style="{_PANEL.format(edge=_EDGE[tone])}">{head}{"<br>" if body else ""}{body}</div>'


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table as HTML with a caption and column scopes; all cells are text."""
    head = "".join(f'<th scope="col" style="text-align:left">{escape(h)}</th>' for h in header)
    body = "".join("<tr>" + "".join(f'<td style="text-align:left">{escape(c)}</td>' for c in row) + "</tr>" for row in rows)
    return (
        f'<table><caption style="text-align:left">{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """The same table as aligned plain text."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        [caption, *["  ".join(c.ljust(n) for c, n in zip(line, widths, strict=True)).rstrip() for line in lines]]
    )


def show_html(html: str, text: str, *, recorded: str = "", result: bool = False) -> None:
    """Display HTML together with a plain text of the same content, for readers that show no HTML.

    `recorded` is the id of a measurement that the text says is replayed; the output's metadata keeps it. A `result` is
    folded while a prediction above it is open.
    """
    with extra("workbook"):
        from IPython.display import display

    metadata = {"labkit": {"recorded": recorded}} if recorded else {}
    display({"text/html": html if result else open_html(html), "text/plain": text}, metadata=metadata, raw=True)


def show_replaceable(html: str, text: str) -> Callable[[str, str], None]:
    """Display HTML with its plain text, and return a function that puts other HTML and text in its place."""
    with extra("workbook"):
        from IPython.display import display

    handle = display({"text/html": html, "text/plain": text}, raw=True, display_id=True)

    def replace(html: str, text: str) -> None:
        if handle is None:  # outside of a notebook nothing can be replaced
            show_html(html, text)
        else:
            handle.update({"text/html": html, "text/plain": text}, raw=True)

    return replace


def show_widget(widget: Any, asleep: str = "Run this cell to answer here.") -> None:
    """Display an ipywidget; `asleep` stands for it in plain text, where no kernel draws it."""
    with extra("workbook"):
        from IPython.display import display

    data: dict[str, Any] = widget._repr_mimebundle_()
    display({**data, "text/plain": asleep}, raw=True)


def code_html(source: str, summary: str) -> str:
    """A folded block of code."""
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f'<pre style="padding:.6em;overflow:auto"><code>{escape(source)}</code></pre></details>'
    )
