"""What the spending dashboard shows, as HTML: tiles, the day's curve, tables and a receipt.

`labkit.workbook.spent` puts it in its place.

Colours are those of every chart here, and text has the page's own colour, so that all of it follows a light or dark theme.
Every number says what it is beside: yesterday up to the same time. What nobody priced is named wherever money stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from itertools import accumulate

from labkit.request import TOKEN_KINDS
from labkit.spending import Board, Costly, Receipt, SpentBy, Sums
from labkit.workbook.charts import PALETTE

STYLE = """<style>
.lab-spent { --lab-line: var(--jp-border-color2, #bdbdbd); --lab-soft: var(--jp-content-font-color2, #616161);
  color: var(--jp-content-font-color1, inherit); font-variant-numeric: tabular-nums; max-width: 80rem; }
.lab-spent .widget-html, .lab-spent .widget-html-content {
  line-height: 1.4; height: auto; overflow: visible; color: inherit; }
.lab-spent .widget-html { width: auto; min-width: 0; }
.lab-spent .widget-html-content { width: 100%; }
.lab-spent h3 { font-size: 1em; margin: 1.2em 0 .3em; }
.lab-spent .soft { color: var(--lab-soft); }
.lab-spent .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(max(13rem, 22%), 1fr)); gap: .7rem; }
.lab-spent .tile { border: 1px solid var(--lab-line); border-radius: 4px; padding: .5rem .8rem .6rem; }
.lab-spent .tile.warn { border-left: 4px solid NOTE; }
.lab-spent .tile b { display: block; font-size: 1.55em; font-weight: 600; line-height: 1.3; }
.lab-spent .tile div { font-size: .92em; }
.lab-spent table.sums { border-collapse: collapse; width: 100%; margin: 0; display: table; font-size: 1em; }
.lab-spent table.sums th, .lab-spent table.sums td { padding: .2em .6em; text-align: right; white-space: nowrap;
  border: 0; border-bottom: 1px solid var(--jp-border-color3, #e0e0e0); background: transparent; max-width: none; }
.lab-spent table.sums th { font-weight: 500; color: var(--lab-soft); vertical-align: bottom; white-space: normal; }
.lab-spent table.sums :is(th, td).left { text-align: left; }
.lab-spent table.sums td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 9em; }
.lab-spent table.sums tr.sum td { border-bottom: 0; font-weight: 600; }
.lab-spent table.sums tr.below td { border-bottom: 0; padding-top: .9em; }
.lab-spent .scroll { overflow-x: auto; }
.lab-spent .row { display: grid; align-items: center; gap: 0 .9em; min-height: 30px; text-align: right; }
.lab-spent .row.of-spender { grid-template-columns: minmax(4rem, 1fr) 7.5em 5.5em 8.5em 6.5em 6em; }
.lab-spent .row.of-request { grid-template-columns: minmax(4rem, 1fr) 7.5em 6em 7.5em; }
.lab-spent .row > :first-child { text-align: left; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.lab-spent .row.head { color: var(--lab-soft); min-height: 0; align-items: end; }
.lab-spent .bar { display: block; height: 12px; background: BAR; border-radius: 2px; min-width: 1px; }
.lab-spent .pick.widget-button { background: transparent; color: inherit;
  border: 1px solid var(--lab-line); border-radius: 3px; overflow: hidden; text-overflow: ellipsis; }
.lab-spent .name.widget-button { text-align: left; }
.lab-spent .pick.widget-button:hover { border-color: currentColor; }
.lab-spent .kinds { display: flex; height: 16px; border-radius: 2px; overflow: hidden; }
.lab-spent .kinds span { min-width: 1px; }
.lab-spent .swatch { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .45em; }
.lab-spent svg { width: 100%; height: auto; display: block; max-width: 56rem; }
.lab-spent svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
.lab-spent .note { border-left: 4px solid NOTE; padding: .4em .8em; margin: .5em 0; }
body[data-jp-theme-light="false"] .lab-spent :is(input, select) { color-scheme: dark; }
@media (max-width: 60rem) {
  .lab-spent .row.of-spender { grid-template-columns: minmax(3rem, 1fr) 6em 4em 6.5em 4em; }
  .lab-spent .row.of-spender > :nth-child(6) { display: none; }
}
</style>""".replace("BAR", PALETTE["blue"]).replace("NOTE", PALETTE["orange"])
"""The stylesheet of the class lab-spent."""

NOBODY = "(not said)"
"""What stands for a dimension's value that nobody said."""
_KINDS = {
    "fresh_input": ("fresh input", PALETTE["blue"]),
    "cached_input": ("cached input", PALETTE["sky"]),
    "cache_write": ("cache write", PALETTE["pink"]),
    "visible_output": ("visible output", PALETTE["orange"]),
    "reasoning": ("reasoning", PALETTE["red"]),
}
_WASTE = {
    "failed": "failed",
    "cancelled": "cancelled by whoever asked",
    "shadow": "shadow traffic",
    "superseded": "answered again later",
}


def money(amount: Decimal | None, currency: str) -> str:
    """An amount to read: cents from 1 on, and below that at least four digits; "unpriced" where nobody knows it."""
    if amount is None:
        return "unpriced"
    sign, size = ("−" if amount < 0 else ""), abs(amount)
    places = 0 if not size else 2 if size >= 1 else min(18, max(4, 3 - size.adjusted()))
    digits = f"{size:,.{places}f}"
    return f"{sign}${digits}" if currency == "USD" else f"{sign}{digits} {currency}"


def bounded(totals: Sums, currency: str) -> str:
    """What the attempts cost: at least so much, where nobody knows the cost of some."""
    return bounded_to(totals.known_cost, totals, currency)


def bounded_to(amount: Decimal | None, totals: Sums, currency: str) -> str:
    """An amount that was worked out from what the attempts cost: at least so much, where nobody knows the cost of some."""
    least = "≥ " if amount is not None and totals.unpriced else ""
    return f"{least}{money(amount, currency)}"


def change(now: Decimal | float | None, before: Decimal | float | None) -> str:
    """How much more or less than before, in percent: "+18 %"; "new" after nothing, and "–" where one is unknown."""
    if now is None or before is None or (not now and not before):
        return "–"
    if not before:
        return "new"
    part = float(now) / float(before) - 1
    shown = "0.0%" if abs(part) < 0.0005 else f"{part:+,.1%}" if abs(part) < 0.1 else f"{part:+,.0%}"
    return shown.replace("-", "−").replace("%", " %")


def share(part: float | None) -> str:
    """A share in percent; "unknown" for None."""
    return "unknown" if part is None else f"{part:.1%}".replace("%", " %")


def clock_time(at: float, *, seconds: bool = False) -> str:
    """The time of day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S" if seconds else "%H:%M")


def tiles_html(board: Board) -> str:
    """The day's few numbers, each beside yesterday's up to the same time."""
    now, before, currency = board.now.all, board.before.all, board.currency
    idle, idle_before = board.now.for_nothing, board.before.for_nothing
    retried = board.now.retried
    solved_for = "none solved" if not now.solved else bounded_to(now.per_solved, now, currency)
    unpriced = f"of {now.attempts:,} attempts have no price; was {before.unpriced:,}"
    if not now.unpriced:
        unpriced = f"every one of {now.attempts:,} attempts has a price" if now.attempts else "no attempt"
    tiles = [
        ("Spent", bounded(now, currency), _beside(now.known_cost, before.known_cost, currency)),
        ("Cost per solved request", solved_for, _beside(now.per_solved, before.per_solved, currency)),
        (
            "Requests",
            f"{now.requests:,}",
            f"{change(now.requests, before.requests)} from {before.requests:,}; {now.solved:,} solved",
        ),
        (
            "Retries",
            f"{retried.attempts:,}",
            f"{_ratio(now.attempts_per_request)} attempts a request, was {_ratio(before.attempts_per_request)}",
        ),
        ("Paid for nothing", bounded(idle, currency), _beside(idle.known_cost, idle_before.known_cost, currency)),
        ("Unpriced", f"{now.unpriced:,}", unpriced),
        ("Input found in the provider's cache", share(now.cached_share), f"was {share(before.cached_share)}"),
        ("Answered by a cache of yours", share(now.served_share), f"was {share(before.served_share)}"),
    ]
    shown = "".join(_tile(*tile, warn=tile[0] == "Unpriced" and now.unpriced > 0) for tile in tiles)
    return f'<div class="tiles">{shown}</div>'


def _tile(name: str, value: str, beside: str, *, warn: bool) -> str:
    return (
        f'<div class="tile{" warn" if warn else ""}"><div class="soft">{escape(name)}</div><b>{escape(value)}</b>'
        f'<div class="soft">{escape(beside)}</div></div>'
    )


def _beside(now: Decimal | None, before: Decimal | None, currency: str) -> str:
    if before is None:
        return "no such number for the day before"
    return f"{change(now, before)} from {money(before, currency)}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_LEFT, _RIGHT, _TOP, _BOTTOM, _WIDE, _HIGH = 64, 24, 12, 28, 760, 220


def curve_html(board: Board) -> str:
    """What was spent since midnight, hour by hour, today and yesterday; with its numbers in words."""
    view, currency = board.view, board.currency
    until = (view.until - view.since) / 3_600
    yesterday = [0.0, *accumulate(_spent(board, hour) for hour in range(24))]
    today = [0.0, *accumulate(_spent(board, hour) for hour in range(24, 24 + _hours(until)))]
    most = _round_up(max(*yesterday, *today))

    def x(hour: float) -> float:
        return _LEFT + hour / 24 * (_WIDE - _LEFT - _RIGHT)

    def y(amount: float) -> float:
        return _HIGH - _BOTTOM - amount / most * (_HIGH - _TOP - _BOTTOM)

    def line(amounts: Sequence[float], colour: str, dash: str) -> str:
        points = " ".join(f"{x(min(hour, until) if dash == '' else hour):.1f},{y(a):.1f}" for hour, a in enumerate(amounts))
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dashed}/>'

    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y(a):.1f}" y2="{y(a):.1f}" stroke="currentColor" opacity=".15"/>'
        f'<text x="{_LEFT - 8}" y="{y(a) + 4:.1f}" text-anchor="end">{escape(_tick(a, currency))}</text>'
        for a in (0.0, most / 2, most)
    )
    hours = "".join(
        f'<text x="{x(h):.1f}" y="{_HIGH - 8}" text-anchor="middle">{h:02d}:00</text>' for h in (0, 4, 8, 12, 16, 20, 24)
    )
    end = f'<circle cx="{x(until):.1f}" cy="{y(today[-1]):.1f}" r="4.5" fill="{PALETTE["blue"]}"/>'
    words = (
        f"Spent by {_by(view.until)} UTC: {bounded(board.now.all, currency)}; the day before, by then "
        f"{bounded(board.before.all, currency)} and {bounded(board.whole_before, currency)} in the whole day."
    )
    legend = (
        f'<span class="swatch" style="background:{PALETTE["blue"]}"></span>{escape(view.day)} &nbsp; '
        f'<span class="swatch" style="background:{PALETTE["grey"]}"></span>the day before (dashed)'
    )
    return (
        f'<h3>Spent since midnight (UTC)</h3><div class="soft">{legend}</div>'
        f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{escape(words)}">{grid}{hours}'
        f"{line(yesterday, PALETTE['grey'], '6 4')}{line(today, PALETTE['blue'], '')}{end}</svg><div>{escape(words)}</div>"
    )


def _by(until: float) -> str:
    return clock_time(until) if until % 86_400 else "midnight"


def _spent(board: Board, hour: int) -> float:
    return float(board.hours[hour].cost) if hour in board.hours else 0.0


def _hours(until: float) -> int:
    """The hours of a day that have begun."""
    return min(24, int(until) + (until % 1 > 0))


_STEPS = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)


def _round_up(most: float) -> float:
    """The next number that makes good ticks, halved too."""
    if most <= 0:
        return 1.0
    power = 10.0 ** (Decimal(most).adjusted())
    return next(step * power for step in _STEPS if step * power >= most)


def _tick(amount: float, currency: str) -> str:
    text = f"{amount:,.0f}" if amount >= 10 or not amount else f"{amount:.2f}" if amount >= 0.1 else f"{amount:.4g}"
    return f"${text}" if currency == "USD" else text


def kinds_html(board: Board) -> str:
    """The tokens of both days by kind; the kinds are disjoint."""
    now, before = board.now.all.usage.by_kind(), board.before.all.usage.by_kind()
    rows = [
        (
            f'<span class="swatch" style="background:{_KINDS[kind][1]}"></span>{_KINDS[kind][0]}',
            f"{now[kind]:,}",
            f"{before[kind]:,}",
            change(now[kind], before[kind]),
        )
        for kind in TOKEN_KINDS
    ]
    total = sum(now.values())
    parts = "".join(
        f'<span style="flex:{now[kind]} 1 0;background:{_KINDS[kind][1]}" title="{_KINDS[kind][0]}"></span>'
        for kind in TOKEN_KINDS
        if now[kind]
    )
    last = ("all tokens", f"{total:,}", f"{sum(before.values()):,}", change(total, sum(before.values())))
    return f'<h3>Tokens by kind</h3><div class="kinds">{parts}</div>' + _table(
        ("", "this day", "day before", "change"), rows, sum_row=last
    )


def nothing_html(board: Board) -> str:
    """What was paid for and served nobody, by reason; and the attempts that were made again."""
    currency = board.currency
    rows = [
        (words, *_lost(board.now.wasted.get(reason), board.before.wasted.get(reason), currency))
        for reason, words in _WASTE.items()
    ]
    total = ("paid for nothing", *_lost(board.now.for_nothing, board.before.for_nothing, currency))
    retries = ("retries (2nd try and later)", *_lost(board.now.retried, board.before.retried, currency))
    return "<h3>Paid for nothing, and retries</h3>" + _table(
        ("", "attempts", "unpriced", "cost", "day before"), rows, sum_row=total, below=retries
    )


def _lost(now: Sums | None, before: Sums | None, currency: str) -> tuple[str, str, str, str]:
    now, before = now or Sums(), before or Sums()
    return f"{now.attempts:,}", f"{now.unpriced:,}", bounded(now, currency), bounded(before, currency)


def spender_head_html() -> str:
    """The heads of the columns of `spender_html`."""
    heads = ("", "spent", "change", "per solved request", "attempts", "cached input")
    return _row("of-spender head", heads)


def spender_html(spender: SpentBy, most: Decimal, currency: str, name: str = "") -> str:
    """One spender's numbers beside a bar of its part of the `most` that one spent; or its `name`, where it has no bar."""
    now = spender.now
    part = float(now.cost / most) if most else 0.0
    first = escape(name) if name else f'<span class="bar" style="width:{100 * part:.1f}%"></span>'
    unpriced = f" ({now.unpriced:,} unpriced)" if now.unpriced else ""
    cells = (
        bounded(now, currency),
        change(now.known_cost, spender.cost_before),
        bounded_to(now.per_solved, now, currency) if now.per_solved is not None else "–",
        f"{now.attempts:,}",
        share(now.cached_share) if now.told else "–",
    )
    title = escape(f"{now.attempts:,} attempts{unpriced}, {now.solved:,} solved requests")
    return f'<div title="{title}">{_row("of-spender", (first, *map(escape, cells)))}</div>'


def request_head_html() -> str:
    """The heads of the columns of `request_html`."""
    return _row("of-request head", ("model", "cost", "attempts", "answered"))


def request_html(request: Costly, currency: str) -> str:
    """One request's numbers."""
    known = None if request.unpriced == request.attempts else request.cost
    least = "≥ " if known is not None and request.unpriced else ""
    cells = (
        request.model or NOBODY, f"{least}{money(known, currency)}", f"{request.attempts:,}",
        "yes" if request.answered else "no",
    )  # fmt: skip
    return _row("of-request", tuple(map(escape, cells)))


def _row(names: str, cells: Iterable[str]) -> str:
    return f'<div class="row {names}">' + "".join(f"<div>{cell}</div>" for cell in cells) + "</div>"


def receipt_html(found: Receipt) -> str:
    """Every attempt of a request with its tokens and its cost, and what all of them cost."""
    first = found.lines[0].row
    of = [
        f"{word} {value}"
        for word, value in (
            ("organisation", first.tenant), ("user", first.user), ("feature", first.feature), ("workflow", first.workflow),
            ("prompt", first.prompt_version), ("key", first.idempotency_key),
        )
        if value
    ]  # fmt: skip
    heads = (
        "attempt", "started (UTC)", "model", "outcome", *(name for name, _ in _KINDS.values()), "first token", "whole",
        "cost",
    )  # fmt: skip
    rows = []
    for line in found.lines:
        row, usage = line.row, line.row.usage
        tokens = ["unknown"] * 5 if usage is None else [f"{count:,}" for count in usage.by_kind().values()]
        if line.kinds is not None:
            paid = [getattr(line.kinds, kind) for kind in TOKEN_KINDS]
            tokens = [
                f'{count}<br><span class="soft">{escape(money(cost, row.currency))}</span>' if cost else count
                for count, cost in zip(tokens, paid, strict=True)
            ]
        outcome = row.outcome if line.wasted in ("", row.outcome) else f"{row.outcome}, {_WASTE[line.wasted]}"
        details = [*([row.error_type] if row.error_type else []), *row.route, *([row.note] if row.note else [])]
        rows.append(
            (
                f"{row.attempt}",
                _when(row.started_unix),
                escape(row.response_model or row.request_model or NOBODY),
                escape(outcome) + (f'<br><span class="soft">{escape(" · ".join(details))}</span>' if details else ""),
                *tokens,
                _seconds(row.sent, row.first_token),
                _seconds(row.sent, row.done),
                escape(money(row.cost, row.currency)),
            )
        )
    whole = " + ".join(money(amount, currency) for currency, amount in found.totals.items())
    unpriced = f"{found.unpriced} of {len(found.lines)} attempts unpriced" if found.unpriced else ""
    total = ", ".join(part for part in (whole, unpriced) if part)
    last = ("", "", "", "all attempts", *[""] * 7, escape(("≥ " if whole and unpriced else "") + total))
    return (
        f'<h3>Receipt</h3><div class="soft">{escape(" · ".join(of)) or "nobody said whose request it was"}</div>'
        + _table(heads, rows, sum_row=last, left=4)
    )


def _when(at: float | None) -> str:
    return "unknown" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(start: float | None, end: float | None) -> str:
    return "–" if start is None or end is None else f"{end - start:,.2f} s"


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    sum_row: Sequence[str] = (),
    below: Sequence[str] = (),
    left: int = 1,
) -> str:
    """A table of HTML cells, the first `left` columns to the left; `sum_row` adds
    them up, and what stands `below` it is no part of that."""

    def cell(tag: str, index: int, content: str) -> str:
        kind = "left" if index < left else ""
        if index == 3 < left:
            kind += " wrap"
        return f'<{tag} class="{kind}">{content}</{tag}>'

    def line(row: Sequence[str], tag: str, kind: str = "") -> str:
        return f'<tr class="{kind}">' + "".join(cell(tag, index, content) for index, content in enumerate(row)) + "</tr>"

    body = "".join(line(row, "td") for row in rows) + (line(sum_row, "td", "sum") if sum_row else "")
    body += line(below, "td", "below") if below else ""
    return f'<div class="scroll"><table class="sums"><thead>{line(heads, "th")}</thead><tbody>{body}</tbody></table></div>'


def note_html(text: str) -> str:
    """A remark that the numbers need; empty for none."""
    return f'<div class="note" role="status">{escape(text)}</div>' if text else ""


def remarks(board: Board) -> str:
    """What the numbers leave out, in words; empty where that is nothing."""
    parts = []
    if not board.attempts:
        return "This ledger is empty. Its first attempt will be shown here as soon as it is booked."
    if board.last is not None:
        what = "Nothing of what you chose" if board.view.only else "Nothing"
        parts.append(
            f"{what} was booked on {board.view.day} or the day before; the ledger's last attempt before that started "
            f"{_when(board.last)} UTC."
        )
    other = {name: count for name, count in board.currencies.items() if name != board.currency}
    if other:
        listed = ", ".join(f"{count:,} in {name}" for name, count in sorted(other.items()))
        parts.append(
            f"Amounts are never added across currencies: these are in {board.currency}; attempts not shown: {listed}."
        )
    if board.undated:
        parts.append(f"{board.undated:,} attempts have no time of start and are in no day.")
    if board.later:
        parts.append(f"{board.later:,} attempts start after this.")
    return " ".join(parts)
