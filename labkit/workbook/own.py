"""The chapter's question on the reader's own log: which file is asked, and how its number is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import labkit
from labkit.logs import QUESTIONS, OwnNumber, ask, write_portal
from labkit.request import InvalidValue, LabError
from labkit.workbook.paths import state_dir
from labkit.workbook.render import panel_html, table_html, table_text

VARIABLE = "LABKIT_LOG"
_HEADER = ("what", "value")
_PRE = (
    "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;user-select:all;max-width:52em;"
    "padding:.5em .9em;border:1px solid var(--jp-border-color2, #bdbdbd);color:var(--jp-content-font-color1, inherit);"
    "background:var(--jp-layout-color1, transparent)"
)


def portal_log(seed: int) -> Path:
    """The portal's log of that seed in the reader's state folder; written where it is missing, which takes some seconds."""
    path = state_dir() / "portal" / f"portal-{labkit.__version__}-{seed}.jsonl"
    if not path.exists():
        write_portal(path, seed)
    return path


def named_log() -> Path | None:
    """The file that the environment variable LABKIT_LOG names; None where it names none."""
    named = os.environ.get(VARIABLE, "").strip()
    return Path(named) if named else None


def shown(chapter: str, path: Path, whose: str) -> tuple[str, str]:
    """The chapter's number in the file, as HTML and as text. `whose` says which file it is.

    What the lab's readers refuse is shown with its message instead: a wrong path is no reason to stop a chapter. Raises
    `InvalidValue` for a chapter that asks nothing of a log.
    """
    if chapter not in QUESTIONS:
        raise InvalidValue(f"chapter {chapter!r} asks nothing of a log; these do: {', '.join(QUESTIONS)}")
    try:
        found, read_as = ask(chapter, path)
    except (LabError, OSError) as error:
        return refused(str(error))
    return _html(found, f"{whose} {read_as}"), _text(found, f"{whose} {read_as}")


def refused(why: str) -> tuple[str, str]:
    """That a file was not read, and why, as HTML and as text."""
    title = "This log was not read."
    return panel_html(title, escape(why), "bad"), f"{title} {why}"


def form(path: str, read: Callable[[str], str]) -> Any:
    """A text field for a path, prefilled with `path`, and a button. `read` takes the path and returns the HTML to show."""
    import ipywidgets as w

    field = w.Text(
        value=path,
        placeholder="path of a log: JSON lines, a table, a ledger, …",
        description="your log",
        continuous_update=False,
        layout=w.Layout(width="min(100%, 44em)"),
    )
    button = w.Button(
        description="Ask it", button_style="primary", tooltip="Read this file and answer the chapter's question"
    )
    answer = w.HTML()

    def pressed(_: Any) -> None:
        given = field.value.strip().strip("\"'")
        answer.value = read(given) if given else refused("Write the path of a file into the field.")[0]

    button.on_click(pressed)
    return w.VBox([w.HBox([field, button]), answer])


def _title(found: OwnNumber) -> str:
    if found.number is None:
        return f"Cannot be told from this log: {found.what}"
    ends = "" if found.interval is None else f" ({found.interval[0]:.4g} to {found.interval[1]:.4g})"
    return f"{found.what[:1].upper()}{found.what[1:]}: {found.number:,.4g}{ends} {found.unit}"


def _missing(found: OwnNumber) -> list[str]:
    return [f"The log has no {need.lacks}. To know more, log {need.log}." for need in found.needs]


def _html(found: OwnNumber, source: str) -> str:
    body = "".join(f"<br>{escape(line)}" for line in _missing(found))
    parts = [panel_html(_title(found), escape(source) + body, "info" if found.number is None else "good")]
    if found.rows:
        parts.append(table_html(_HEADER, found.rows, "More from the same file"))
    parts.append(f'<p>For your pull request:</p><pre style="{_PRE}" tabindex="0">{escape(found.sentence)}</pre>')
    return "".join(parts)


def _text(found: OwnNumber, source: str) -> str:
    lines = [_title(found), source, *_missing(found)]
    if found.rows:
        lines.append(table_text(_HEADER, found.rows, "More from the same file"))
    return "\n".join([*lines, "For your pull request:", found.sentence])
