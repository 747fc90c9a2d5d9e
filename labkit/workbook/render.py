"""What the workbook prints: panels and tables as HTML, each beside a plain text of the same content.

Colours come from JupyterLab's own CSS variables, with fallbacks, so they follow the reader's theme. The colour of a panel's
edge never carries the message alone: the text says the same.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def show_html(html: str, text: str, *, recorded: str = "") -> None:
    """Display HTML together with a plain text of the same content, for readers that show no HTML.

    `recorded` is the id of a measurement that the text says is replayed; the output's metadata keeps it.
    """
    with extra("workbook"):
        from IPython.display import display

    metadata = {"labkit": {"recorded": recorded}} if recorded else {}
    display({"text/html": html, "text/plain": text}, metadata=metadata, raw=True)


def show_widget(widget: Any) -> None:
    """Display an ipywidget."""
    with extra("workbook"):
        from IPython.display import display

    display(widget)


def code_html(source: str, summary: str) -> str:
    """A folded block of code."""
    return (
        f"<details><summary>{escape(summary)}</summary>"
        f'<pre style="padding:.6em;overflow:auto"><code>{escape(source)}</code></pre></details>'
    )
