"""The spending dashboard as a widget: today beside yesterday, who spent it, and down to one request's receipt, live.

`watch_spending(ledger)` shows it in a notebook, and `spending_app()` is the same widget as an app under Voilà. All numbers
come from `labkit.spending`; `labkit.workbook.spent_html` draws them. It shows no prompt and no answer: a ledger has none.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from labkit.cost import Price
from labkit.ledger import Ledger
from labkit.request import LabError
from labkit.spending import SPLITS, Board, DayView, Mirror, board, receipt
from labkit.workbook import spent_html as html
from labkit.workbook.paths import LEDGER_VARIABLE
from labkit.workbook.render import show_widget

_DAY_S = 86_400
_ROWS = 8
_READ_AT_ONCE = 50_000
_AT_MOST_SHARE = 0.25  # of the kernel's time, which a learner's cells need too
_WORDS = {"prompt_version": "prompt version", "cache_layer": "cache that answered"}


class SpendingBoard:
    """The dashboard's widgets and their wiring. Display `widget`; `shown` is the board that stands in it (None before one).

    `at` is the moment to show, in seconds since 1970; None follows the clock. `tick` reads what is new and draws it where
    something has changed; `follow` does so every `every_s` seconds on the running event loop, until `close`.
    """

    def __init__(
        self, ledger: Ledger, *, at: float | None = None, prices: Mapping[str, Price] | None = None, every_s: float = 1.0
    ) -> None:
        self.shown: Board | None = None
        self._ledger, self._mirror, self._prices = ledger, Mirror(ledger), dict(prices or {})
        self._at, self._every_s = at, every_s
        self._only: dict[str, str] = {}
        self._opened: int | None = None
        self._following: asyncio.Task[None] | None = None
        self._drawn: tuple[object, ...] = ()
        self._rows_names: list[str] = []
        self._requests: list[int] = []
        self._make()

    # --- keeping up with the ledger

    def tick(self) -> bool:
        """Read some of what is new, and draw if that is all; returns whether more is unread. Errors are shown."""
        try:
            left = self._mirror.catch_up(_READ_AT_ONCE)
            if left:
                done = self._mirror.attempts
                self._state.value = (
                    f"<progress max='{done + left}' value='{done}'></progress> read {done:,} of {done + left:,}"
                )
            else:
                self._draw()
            self._message.value = ""
        except LabError as error:
            self._message.value = f"<div role='alert' class='note'><b>Not up to date:</b> {escape(str(error))}</div>"
            return False
        return bool(left)

    def follow(self) -> None:
        """Keep up from now on, on the event loop that runs; without one, read all there is once."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            while self.tick():
                pass
            return
        self.tick()
        self._following = loop.create_task(self._follow())

    def close(self) -> None:
        """Stop following, and free the memory."""
        if self._following is not None:
            self._following.cancel()
        self._mirror.close()
        self.widget.close()

    async def _follow(self) -> None:
        while True:
            began = time.perf_counter()
            more = self.tick()
            took = time.perf_counter() - began
            await asyncio.sleep(0.01 if more else max(self._every_s, took / _AT_MOST_SHARE))

    # --- drawing

    def _until(self) -> float:
        if self._day.value is not None:
            midnight = datetime(self._day.value.year, self._day.value.month, self._day.value.day, tzinfo=UTC).timestamp()
            return min(midnight + _DAY_S, max(self._now(), midnight + 1))
        return self._now()

    def _now(self) -> float:
        return time.time() if self._at is None else self._at

    def _draw(self) -> None:
        """Draw, unless nothing has changed since the last time: not the ledger, the choices or the minute."""
        until = self._until()
        asked = (self._mirror.attempts, until // 60, self._by.value, self._currency.value, tuple(self._only.items()))
        if asked == self._drawn:
            return
        began = time.perf_counter()
        found = board(self._mirror, DayView(until, self._by.value, self._only, self._currency.value), shown=_ROWS)
        self.shown, self._drawn = found, asked
        self._title.value = self._heading(found)
        self._remark.value = html.note_html(html.remarks(found))
        self._jump.layout.display = "" if found.last is not None and not self._only else "none"
        self._tiles.value = html.tiles_html(found)
        self._curve.value = html.curve_html(found)
        self._kinds.value = html.kinds_html(found)
        self._nothing.value = html.nothing_html(found)
        self._draw_spenders(found)
        self._draw_requests(found)
        self._offer(sorted(found.currencies))
        took = time.perf_counter() - began
        live = "follows the ledger" if self._following is not None or self._at is None else "as of this moment"
        self._state.value = (
            f"<span class='soft'>{found.attempts:,} attempts read · {live} · drawn in {1000 * took:.0f} ms</span>"
        )

    def _heading(self, found: Board) -> str:
        day, until = found.view.day, html.clock_time(found.view.until) if found.view.until % _DAY_S else "24:00"
        return (
            f"<div style='font-size:1.3em'><b>{day}</b>, up to {until} UTC "
            "<span class='soft'>beside the day before up to the same time</span></div>"
        )

    def _draw_spenders(self, found: Board) -> None:
        most = max((one.now.cost for one in found.top), default=Decimal(0))
        self._rows_names = [one.name for one in found.top]
        self._spender_head.value = html.spender_head_html()
        for index, (button, line) in enumerate(self._spenders):
            there = index < len(found.top)
            button.layout.display = line.layout.display = "" if there else "none"
            if there:
                one = found.top[index]
                button.description = one.name or html.NOBODY
                button.tooltip = f"Only this {_word(found.view.by)}: {button.description}"
                line.value = html.spender_html(one, most, found.currency)
        rest = found.others
        self._others.value = (
            html.spender_html(rest, most, found.currency, f"the other {found.values - len(found.top):,}") if rest else ""
        )

    def _draw_requests(self, found: Board) -> None:
        self._requests = [one.number for one in found.requests]
        self._request_head.value = html.request_head_html() if found.requests else "<span class='soft'>no request</span>"
        for index, (button, line) in enumerate(self._costly):
            there = index < len(found.requests)
            button.layout.display = line.layout.display = "" if there else "none"
            if there:
                one = found.requests[index]
                button.description = html.clock_time(one.started, seconds=True)
                line.value = html.request_html(one, found.currency)
        if self._opened is not None:
            self._open(self._opened)

    def _offer(self, currencies: list[str]) -> None:
        wanted = ["", *currencies]
        if len(currencies) > 1 and [value for _, value in self._currency.options] != wanted:
            self._currency.options = [("most used", ""), *((name, name) for name in currencies)]
        self._currency.layout.display = "" if len(self._currency.options) > 1 else "none"

    # --- what the reader chooses

    def choose(self, dimension: str, name: str) -> None:
        """Keep only the attempts with this value of the dimension, and split these by the next dimension."""
        self._only[dimension] = name
        free = [one for one in SPLITS if one not in self._only]
        self._chips()
        if free:
            self._by.value = free[0]  # which draws
        self._redraw()

    def drop(self, dimension: str) -> None:
        """Take the choice of this dimension back."""
        self._only.pop(dimension, None)
        self._chips()
        self._by.value = dimension
        self._redraw()

    def open(self, number: int) -> None:
        """Show the receipt of the request to which the ledger's attempt `number` belongs."""
        self._opened = number
        self._open(number)

    def _open(self, number: int) -> None:
        try:
            self._receipt.value = html.receipt_html(receipt(self._ledger, number, self._prices))
            self._shut.layout.display = ""
        except LabError as error:
            self._receipt.value = html.note_html(str(error))

    def _close_receipt(self, _: Any) -> None:
        self._opened, self._receipt.value, self._shut.layout.display = None, "", "none"

    def _redraw(self, _: Any = None) -> None:
        if not self._mirror.attempts or self.shown is not None:
            self.tick()

    def _jump_back(self, _: Any) -> None:
        if self.shown is not None and self.shown.last is not None:
            self._day.value = datetime.fromtimestamp(self.shown.last, UTC).date()

    def _chips(self) -> None:
        chips = []
        for dimension, name in self._only.items():
            chip = w.Button(
                description=f"{_word(dimension)}: {name or html.NOBODY} ✕", tooltip="Show all of them again",
                layout=w.Layout(width="auto", max_width="24em"),
            )  # fmt: skip
            chip.add_class("pick")
            chip.on_click(partial(self._dropped, dimension))
            chips.append(chip)
        self._chosen.children = chips

    def _dropped(self, dimension: str, _: Any) -> None:
        self.drop(dimension)

    def _picked(self, index: int, _: Any) -> None:
        if index < len(self._rows_names):
            self.choose(self._by.value, self._rows_names[index])

    def _asked(self, index: int, _: Any) -> None:
        if index < len(self._requests):
            self.open(self._requests[index])

    # --- the widgets

    def _make(self) -> None:
        self._title, self._state, self._message, self._remark = w.HTML(), w.HTML("reading the ledger"), w.HTML(), w.HTML()
        self._tiles, self._curve, self._kinds, self._nothing = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self._spender_head, self._others, self._request_head, self._receipt = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self._by = w.Dropdown(options=[(_word(name), name) for name in SPLITS], description="Split by")
        self._currency = w.Dropdown(options=[("most used", "")], description="Currency", layout=w.Layout(display="none"))
        self._day = w.DatePicker(value=None, description="Day (UTC)", max=date(9999, 12, 31))
        self._today = _button("Now", "Back to the present day", "5em")
        self._jump = _button("Show the day of the last attempt", "", "auto")
        self._shut = _button("Close the receipt", "", "auto")
        self._jump.layout.display = self._shut.layout.display = "none"
        self._chosen = w.HBox(layout=w.Layout(flex_flow="row wrap"))
        self._spenders = [(_name(""), w.HTML(layout=w.Layout(flex="1 1 0"))) for _ in range(_ROWS)]
        self._costly = [(_name("Its receipt"), w.HTML(layout=w.Layout(flex="1 1 0"))) for _ in range(_ROWS)]
        for index, (button, _) in enumerate(self._spenders):
            button.on_click(partial(self._picked, index))
        for index, (button, _) in enumerate(self._costly):
            button.on_click(partial(self._asked, index))
        for button, _ in (*self._spenders, *self._costly):
            button.layout.display = "none"  # until there is something to name
        self._today.on_click(lambda _: setattr(self._day, "value", None))
        self._jump.on_click(self._jump_back)
        self._shut.on_click(self._close_receipt)
        for control in (self._by, self._currency, self._day):
            control.observe(self._redraw, names="value")
        self.widget = w.VBox(
            [
                w.HTML(html.STYLE),
                w.HBox([self._title, self._state], layout=w.Layout(flex_flow="row wrap", justify_content="space-between")),
                w.HBox(
                    [self._by, self._day, self._today, self._currency, self._chosen],
                    layout=w.Layout(flex_flow="row wrap", grid_gap="0 .8em"),
                ),
                self._message, self._remark, self._jump, self._tiles,
                _beside(self._curve, w.VBox([self._kinds]), "3 1 28em", "2 1 22em"),
                w.HTML("<h3>Who spent it</h3>"), _indented(self._spender_head),
                *(w.HBox([*pair]) for pair in self._spenders), _indented(self._others),
                _beside(
                    w.VBox([w.HTML("<h3>The costliest requests of the day</h3>"), _indented(self._request_head),
                            *(w.HBox([*pair]) for pair in self._costly)]),
                    self._nothing, "3 1 32em", "2 1 26em",
                ),
                self._receipt, self._shut,
            ],
            layout=w.Layout(overflow="visible"),
        )  # fmt: skip
        self.widget.add_class("lab-spent")


def _word(dimension: str) -> str:
    return _WORDS.get(dimension, dimension)


def _button(text: str, tooltip: str, width: str) -> Any:
    layout = w.Layout(width=width, flex="0 0 auto", align_self="flex-start")
    button = w.Button(description=text, tooltip=tooltip, layout=layout)
    button.add_class("pick")
    return button


def _name(tooltip: str) -> Any:
    button = _button("", tooltip, "13em")
    button.add_class("name")
    return button


def _indented(line: Any) -> Any:
    """A line that stands under those that a button begins."""
    line.layout.flex = "1 1 0"
    return w.HBox([w.HTML(layout=w.Layout(width="13em", flex="0 0 auto")), line])


def _beside(left: Any, right: Any, flex_left: str, flex_right: str) -> Any:
    """Two parts beside each other, or below each other on a narrow page."""
    left.layout.flex, right.layout.flex = flex_left, flex_right
    return w.HBox([left, right], layout=w.Layout(flex_flow="row wrap", grid_gap="0 2.5em", align_items="flex-start"))


def watch_spending(
    ledger: Ledger, *, at: float | None = None, prices: Mapping[str, Price] | None = None, every_s: float = 1.0
) -> SpendingBoard:
    """Show the spending dashboard of `ledger`, which follows it while attempts are booked; returns it, to be closed.

    `at`, in seconds since 1970, shows that moment; without it, the present one. `prices`, as `labkit.ledger.Booked` takes
    them, let a receipt say what each kind of token cost. It looks for new attempts every `every_s` seconds, and takes a
    quarter of the kernel's time at most. Raises `LedgerError` for a ledger that is closed.
    """
    len(ledger)  # a ledger that cannot be read is the caller's error, and not only a remark in the page
    shown = SpendingBoard(ledger, at=at, prices=prices, every_s=every_s)
    shown.follow()
    show_widget(shown.widget, "The spending dashboard; run this cell to see it.")
    return shown


def spending_app() -> Any:
    """The dashboard of the ledger that LABKIT_LEDGER names, as one widget; or what is wrong with that, in words."""
    named = os.environ.get(LEDGER_VARIABLE, "").strip()
    if not named:
        return _refused(f"{LEDGER_VARIABLE} names no ledger; start this app with `labkit dashboard LEDGER`")
    if not Path(named).is_file():
        return _refused(f"there is no ledger at {named}; start this app with `labkit dashboard LEDGER`")
    try:
        shown = SpendingBoard(Ledger(named))
    except LabError as error:
        return _refused(str(error))
    shown.follow()
    return shown.widget


def _refused(why: str) -> Any:
    return w.HTML(f"<div role='alert'><b>No ledger to show:</b> {escape(why)}</div>")
