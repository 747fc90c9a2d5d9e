"""The pieces of a report: its style for screens light and dark and for paper, tables, bars and ranges as SVG, and money."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f23; --soft: #57606a; --line: #d5dae0; --bar: #1f6f9f; --tint: #eef3f7;
  --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a9b1ba; --line: #3d444d; --bar: #6db6df;
  --tint: #1e252c; --paper: #14181c; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 64rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h1, h2, h3 { line-height: 1.25; } h2 { margin: 2.75rem 0 .5rem; }
h3 { margin: 0 0 .25rem; font-size: 1.1rem; } p { margin: .4rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tile { background: var(--tint); border-radius: 8px; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .875rem; vertical-align: bottom; }
td:last-child, th:last-child { padding-right: 0; } td { overflow-wrap: break-word; }
.n { text-align: right; white-space: nowrap; } .n + :not(.n) { padding-left: .75rem; }
section { border-top: 1px solid var(--line); padding: 1.1rem 0 .6rem; break-inside: avoid; }
section .scroll { max-width: 46rem; } summary { color: var(--soft); cursor: pointer; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); margin-bottom: .3rem; }
svg { max-width: 56rem; height: auto; } svg rect { fill: var(--bar); } svg line { stroke: var(--line); }
svg text { fill: var(--ink); font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
@media print {
  :root { --ink: #000; --soft: #333; --line: #aaa; --bar: #444; --tint: #fff; --paper: #fff; }
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; } .tile { border: 1px solid #aaa; }
  tr, figure { break-inside: avoid; } h2, h3, caption { break-after: avoid; } .scroll { overflow: visible; }
  details > :not(summary) { display: block; } }
"""


def usd(amount: Decimal) -> str:
    """Money in words: whole dollars from 100 on, cents from 1 on, and three figures below."""
    size = abs(amount)
    if size >= 100 or not size:
        return f"{amount:,.0f} USD"
    if size >= 1:
        return f"{amount:,.2f} USD"
    places = 2 - amount.adjusted()
    return f"{amount:.{places}f} USD" if places < 12 else f"{amount:.2E} USD"


def between(low: Decimal, high: Decimal) -> str:
    """A range of money in words, from the smaller end."""
    low, high = sorted((low, high))
    if usd(low) == usd(high):
        return usd(low)
    return f"{usd(low).removesuffix(' USD')} to {usd(high)}"


def page(title: str, parts: Iterable[str]) -> str:
    """The HTML file around `parts`, which are HTML already. It may load nothing and run nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def tiles(given: Iterable[tuple[str, str]]) -> str:
    """Headline numbers: what each is, and the number."""
    each = (f'<div class="tile"><span class="soft">{what}</span><b>{number}</b></div>' for what, number in given)
    return f'<div class="tiles">{"".join(each)}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] | None = None) -> str:
    """A table; `right` are the columns of numbers, by default all but the first. Cells and caption are HTML already."""
    numbers = set(range(1, len(head)) if right is None else right)
    mark = [' class="n"' if place in numbers else "" for place in range(len(head))]
    top = "".join(f'<th scope="col"{mark[i]}>{escape(name)}</th>' for i, name in enumerate(head))
    body = "".join("<tr>" + "".join(f"<td{mark[i]}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows)
    named = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="scroll" tabindex="0"><table>{named}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bars(title: str, given: Sequence[tuple[str, Decimal]]) -> str:
    """Bars as SVG from 0, the longest for the largest amount; nothing where there is no amount."""
    return _chart(title, [(name, Decimal(0), amount, usd(amount)) for name, amount in given])


def ranges(title: str, given: Sequence[tuple[str, Decimal, Decimal]]) -> str:
    """Each range of money as a bar from its low to its high end; nothing where there is no amount."""
    return _chart(title, [(name, low, high, between(low, high)) for name, low, high in given])


def _chart(title: str, given: Sequence[tuple[str, Decimal, Decimal, str]]) -> str:
    most = max((high for _, _, high, _ in given), default=Decimal(0))
    if most <= 0:
        return ""
    parts = [f'<line x1="360" x2="360" y1="0" y2="{28 * len(given)}"/>']
    for place, (name, low, high, told) in enumerate(given):
        y = 28 * place
        begin, end = (float(360 + 330 * max(Decimal(0), amount) / most) for amount in sorted((low, high)))
        shown = name if len(name) <= 48 else name[:47] + "…"
        parts.append(
            f'<text x="350" y="{y + 19}" text-anchor="end">{escape(shown)}</text><rect x="{begin:.1f}" y="{y + 6}" '
            f'width="{max(end - begin, 2):.1f}" height="16" rx="2"/>'
            f'<text x="{end + 8:.1f}" y="{y + 19}">{escape(told)}</text>'
        )
    said = "; ".join(f"{name}: {told}" for name, _, _, told in given)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" aria-label="{escape(title)}. {escape(said)}" '
        f'viewBox="0 0 900 {28 * len(given)}" width="100%">{"".join(parts)}</svg></figure>'
    )
