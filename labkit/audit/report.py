"""The report of an audit as one HTML file: no network, no scripts, light and dark, and fit for paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape

from labkit.audit.advice import Advice
from labkit.audit.auditing import TOP, Audited, FileRead
from labkit.audit.bill import SpendingGroup
from labkit.audit.page import bars, between, page, ranges, table, tiles, usd
from labkit.cost import TOKEN_KINDS

_KINDS = {
    "fresh_input": "fresh input", "cached_input": "input from a cache", "cache_write": "cache writes",
    "visible_output": "visible output", "reasoning": "reasoning",
}  # fmt: skip
_DATED = 1e8
"""Seconds; times below count from the log's own beginning, as `labkit.logs` reads them."""


def report_html(found: Audited) -> str:
    """The report of `found` as the text of an HTML file. All that comes from the log is escaped."""
    parts = (*_head(found), *_plan(found), *_money(found), *_findings(found), *_read(found))
    return page("Audit of LLM costs", parts)


def in_short(found: Audited) -> str:
    """The bill, the plan and what was left out, as a few lines for a shell."""
    unit = unit_of(found)
    lines = [f"{found.calls:,} calls, {usd(found.cost.total * found.scale)} {unit} at list prices ({found.stretched})"]
    for line in found.plan:
        saves = between(line.low * found.scale, line.high * found.scale)
        remedy = line.advice.remedy
        lines.append(f"  {remedy.name}: {saves} {unit}, effort {remedy.effort}, chapter {remedy.chapter}")
    silent = [one.remedy.name for one in found.advice if one.middle is None]
    if silent:
        lines.append(f"cannot tell: {'; '.join(silent)}")
    if found.unpriced:
        lines.append(f"no price, in no sum: {', '.join(name or '(no model)' for name, _, _ in found.unpriced[:5])}")
    for one in found.files:
        counts = ((one.bad, "bad lines"), (one.copies, "copies left out"), (one.alike, "lines alike without an id"))
        told = ", ".join(f"{n:,} {what}" for n, what in counts if n)
        lines += [f"{one.name}: {told}"] if told else []
    if found.span is not None and found.span.far:
        lines.append(f"{many(found.span.far, 'call')} far in time from all others, left out of the month")
    if found.without_usage:
        lines.append(f"{many(found.without_usage, 'call')} without token counts, in no sum")
    return "\n".join(lines)


def many(n: int, what: str) -> str:
    """A count with its noun: "1 call", "2 calls"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def unit_of(found: Audited) -> str:
    """What the money is of: a month, or only the log where that tells no time."""
    return "this log" if found.scale == 1 and found.seconds is None else "a month"


def _head(found: Audited) -> Iterator[str]:
    low, high = (sum((getattr(line, end) for line in found.plan), Decimal(0)) * found.scale for end in ("low", "high"))
    whole, unit = found.cost.total * found.scale, unit_of(found)
    names = ", ".join(escape(one.name) for one in found.files[:5])
    more = f" and {len(found.files) - 5} more files" if len(found.files) > 5 else ""
    yield "<h1>Where the money for language models goes</h1>"
    yield f'<p class="soft">{names}{more}</p>'
    yield tiles(
        [
            (f"bill {unit}, at list prices", usd(whole)),
            (f"the plan saves {unit}", between(low, high)),
            ("of the bill", _share(low, high, whole)),
            ("calls in the log", f"{found.calls:,}"),
        ]
    )
    yield f"<p>{escape(found.stretched[:1].upper() + found.stretched[1:])}. {_when(found)}"
    yield f"Prices: {escape(found.sources) or 'none was found'}. Savings are estimates from a log, not measurements: only a "
    yield "control group that goes without the lever shows what one really saves.</p>"
    if found.unpriced:
        rows = [(escape(name) or "(no model)", f"{calls:,}", f"{tokens:,}") for name, calls, tokens in found.unpriced[:TOP]]
        told = f"In no sum: {many(len(found.unpriced), 'model')} without a price. Give theirs in a file, as --prices"
        yield table(told, ("model", "calls", "tokens"), rows)
    if found.without_usage:
        yield f"<p>In no sum: {many(found.without_usage, 'call')} without token counts, listed at the end.</p>"
    if found.told:
        paid = ", ".join(
            f"{amount:,.4f} {escape(name) or '(no currency named)'}" for name, amount in sorted(found.told.items())
        )
        yield f"<p>The log itself says was paid, for its own time: {paid}. Currencies are never added up.</p>"


def _share(low: Decimal, high: Decimal, whole: Decimal) -> str:
    if not whole:
        return "–"
    ends = [f"{100 * end / whole:.0f}" for end in sorted((low, high))]
    return f"{ends[0]} %" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} %"


def _when(found: Audited) -> str:
    span = found.span
    if span is None or span.first < _DATED:
        return ""
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (span.first, span.last))
    return f"The calls were made from {first} to {last} UTC. "


def _plan(found: Audited) -> Iterator[str]:
    yield "<h2>The plan</h2>"
    if not found.plan:
        yield "<p>No lever shows a saving in this log.</p>"
        return
    rows = [
        (
            str(place),
            f"<b>{escape(line.advice.remedy.name)}</b><br><span class=soft>{escape(line.advice.remedy.because)}</span>",
            between(line.low * found.scale, line.high * found.scale),
            f"up to {100 * line.share:.1f} %",
            line.advice.remedy.effort,
            line.advice.remedy.chapter,
        )
        for place, line in enumerate(found.plan, 1)
    ]
    yield table(
        "In the order of dollars for the effort. Each line says what it saves after those above it",
        ("", "lever, and what it takes", f"saves, {unit_of(found)}", "of the bill", "effort", "chapter"),
        rows,
        right=(2, 3),
    )


def _money(found: Audited) -> Iterator[str]:
    unit = unit_of(found)
    yield "<h2>Where it goes</h2>"
    kinds = [(_KINDS[kind], getattr(found.cost, kind) * found.scale) for kind in TOKEN_KINDS]
    yield bars(f"By kind of token, {unit}", kinds)
    rows = [(name, usd(amount), f"{tokens:,}") for (name, amount), tokens in zip(kinds, found.tokens, strict=True)]
    yield table("", ("kind of token", f"money, {unit}", "tokens in the log"), rows)
    for what, spenders in (("feature or endpoint", found.features), ("model", found.models), ("tenant", found.tenants)):
        if any(one.name for one in spenders):
            yield _spenders(what, spenders, found)


def _spenders(what: str, spenders: Sequence[SpendingGroup], found: Audited) -> str:
    whole = found.cost.total
    unpriced = any(one.unpriced for one in spenders)
    rows = [
        (
            escape(one.name) or "(not named)",
            usd(one.cost.total * found.scale) if one.unpriced < one.calls else "no price",
            f"{100 * one.cost.total / whole:.1f} %" if whole and one.unpriced < one.calls else "–",
            f"{one.calls:,}",
            *([f"{one.unpriced:,}"] if unpriced else []),
            f"{one.input_tokens:,}",
            f"{one.output_tokens:,}",
        )
        for one in spenders[:TOP]
    ]
    more = f", the dearest {TOP} of {len(spenders):,}" if len(spenders) > TOP else ""
    apart = ["of them without a price"] if unpriced else []
    head = (what, f"money, {unit_of(found)}", "share", "calls in the log", *apart, "tokens in", "tokens out")
    return table(f"By {what}{more}", head, rows)


def _findings(found: Audited) -> Iterator[str]:
    known = sorted((one for one in found.advice if one.middle is not None), key=lambda one: -(one.middle or 0))
    unknown = [one for one in found.advice if one.middle is None]
    yield "<h2>Every finding by itself</h2>"
    yield "<p>These overlap and must not be added up; the plan does that.</p>"
    yield ranges(
        f"What each lever would save alone, {unit_of(found)}",
        [
            (one.remedy.name, one.low.total * found.scale, one.high.total * found.scale)
            for one in known
            if one.low is not None and one.high is not None
        ],
    )
    for one in known:
        yield _finding(one, found)
    if unknown:
        yield "<h2>What this log cannot tell</h2>"
        lacking = [one.remedy.name for one in unknown if one.remedy.prompts]
        if lacking:
            yield f"<p>These need prompts, or something else that the log lacks: {escape('; '.join(lacking))}.</p>"
        for one in unknown:
            yield _finding(one, found)
    if found.shown:
        rows = [(f"{n:,}", escape(text)) for n, text in found.shown]
        yield table("The questions that were repeated most (--show-prompts)", ("repeats", "begins"), rows, right=(0,))


def _finding(one: Advice, found: Audited) -> str:
    remedy, unit = one.remedy, unit_of(found)
    told = ""
    if one.low is not None and one.high is not None:
        told = f"<b>Alone it would save {between(one.low.total * found.scale, one.high.total * found.scale)} {unit}.</b> "
    needs = "".join(f"<li>The log has no {escape(need.lacks)}. Log {escape(need.log)}.</li>" for need in one.needs)
    listed = f"<ul>{needs}</ul>" if needs else ""
    paid = any(fact.money is not None for fact in one.facts)
    rows = [
        (
            escape(fact.what),
            escape(fact.value),
            *(["" if fact.money is None else usd(fact.money * found.scale)] if paid else []),
        )
        for fact in one.facts
    ]
    head = ("", "in the log", f"money, {unit}") if paid else ("", "in the log")
    facts = table("", head, rows) if rows else ""
    return (
        f"<section><h3>{escape(remedy.name)}</h3><p>{told}Effort: {remedy.effort}; {escape(remedy.because)}. "
        f"Chapter {remedy.chapter}.</p>{listed}{facts}"
        f'<p class="soft">How this was found: {escape(remedy.method)}</p></section>'
    )


def _read(found: Audited) -> Iterator[str]:
    head = ("file", "read as", "calls", "bad lines", "copies", "alike", "other spans", "no time zone")
    rows = [
        (
            escape(one.name),
            escape(one.kind),
            *(f"{n:,}" for n in (one.calls, one.bad, one.copies, one.alike, one.others, one.no_zone)),
        )
        for one in found.files
    ]
    yield "<h2>What was read</h2>"
    yield table("Dates without a zone were taken as UTC", head, rows, right=range(2, 8))
    if found.span is not None and found.span.far:
        yield _listed("at times far from all others: in the bill, not in its time", found.span.far, found.span.lines)
    if found.without_usage:
        yield _listed("without token counts: in no sum", found.without_usage, found.lines_without)
    for one in found.files:
        yield from _left_out(one)


def _listed(what: str, n: int, lines: Sequence[tuple[str, int]]) -> str:
    shown = f"; the first {len(lines)}" if len(lines) < n else ""
    return table(f"{many(n, 'call')} {what}{shown}", ("file", "line"), [(escape(file), f"{at:,}") for file, at in lines])


def _left_out(one: FileRead) -> Iterator[str]:
    for what, n, first in (
        ("lines that could not be read", one.bad, one.first_bad),
        ("copies, left out", one.copies, one.first_copies),
        ("lines that say what a line before says, without an id to tell by: they count", one.alike, one.first_alike),
    ):
        if n:
            rows = [(f"{bad.line:,}", escape(bad.why)) for bad in first]
            shown = f"; the first {len(rows)}" if len(rows) < n else ""
            yield table(f"{escape(one.name)}: {n:,} {what}{shown}", ("line", "why"), rows, right=(0,))
