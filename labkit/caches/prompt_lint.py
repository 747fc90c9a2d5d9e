"""A linter for prompt templates: what keeps their prompts from sharing a prefix, and what that costs.

A prefix cache serves a prompt as far as it equals an earlier one, token by token from the front. If the first line holds a
timestamp, everything after it is read again. Given some requests of one feature, the linter finds the first place where they
differ, says what kind of text stands there, takes that text out, and goes on, until there is nothing left that all of them
share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from labkit.request import InvalidValue, Request

if TYPE_CHECKING:
    from labkit.cost import Price

Kind = Literal["timestamp", "identifier", "json-order", "varying"]
"""The kind of text at which prompts part.

"timestamp": a time or date. "identifier": an id, hash or long number. "json-order": equal JSON in another order. "varying":
any other text.
"""

FIXES = {
    "timestamp": "move the time behind everything that stays the same, or give it by the day instead of the second",
    "identifier": "move it behind everything that stays the same, or leave it out: models seldom need ids",
    "json-order": "serialise with sorted keys (json.dumps(…, sort_keys=True)) and lists in a fixed order",
    "varying": "put what is the same for everybody first, and what belongs to this user or question after it",
}
_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    r"|\d{1,2}:\d\d(?::\d\d)?(?: ?[AaPp][Mm])?|\b1[6-9]\d{8}(?:\d{3})?\b"
    r"|\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b(?:, )?|\b\d{1,2}(?:\.|/)\d{1,2}(?:\.|/)\d{2,4}\b"
)
_IDENTIFIER = re.compile(
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
    r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b|\b[A-Za-z]{1,8}[-_](?=[\w-]*\d)[\w-]{4,}\b|\b\d{5,}\b"
)
_GONE = "\x00"  # stands for text that was taken out: the same in all requests, and in no real text
_SHORTEST = 24  # characters; a shorter stretch that all texts share is chance


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that breaks the prefix.

    `found`: the text that stands there, in two of the requests. `shared_tokens`: the length of the prefix that all requests
    share up to it. `lost_tokens`: how many tokens per request they could share between it and the next thing that breaks the
    prefix. `usd_per_month`: how much more these tokens cost than if they came from the cache; None without a price.
    """

    kind: Kind
    found: tuple[str, str]
    shared_tokens: int
    lost_tokens: int
    usd_per_month: Decimal | None
    fix: str


def lint(
    requests: Sequence[Request],
    count: Callable[[str], int],
    *,
    price: Price | None = None,
    requests_per_month: int = 0,
) -> tuple[Finding, ...]:
    """What keeps these requests of one template from sharing a longer prefix, from front to back; empty if nothing does.

    `count` counts the tokens of a text, as `labkit.tokens.tokenizer(…).count` does. Money: lost tokens × requests per month
    × (price of fresh input − price of cached input). A provider's minimum and lifetime are left to `labkit.caches.provider`.
    Raises `InvalidValue` for fewer than two requests, since one prompt cannot differ from itself.
    """
    if len(requests) < 2:
        raise InvalidValue(f"{len(requests)} requests show nothing; lint at least two that one template made")
    texts = [rendered(request) for request in requests]
    findings: list[Finding] = []
    at = len(_beginning(texts))
    while at < min(map(len, texts)):
        kind, spans = _what_parts(texts, at)
        rest = [text[end:] for text, (_, end) in zip(texts, spans, strict=True)]
        gained = _beginning(rest)
        begin = spans[0][0]
        if kind == "varying":
            # Varying text has no known end; it ends where the next text that all requests share begins.
            shared = _shared(rest)
            if shared is None:
                break
            spans = [(start, end + text.index(shared)) for (start, end), text in zip(spans, rest, strict=True)]
            gained = _beginning([text[end:] for text, (_, end) in zip(texts, spans, strict=True)])
        if len(gained.replace(_GONE, "").strip()) >= _SHORTEST:
            lost = count(gained.replace(_GONE, ""))
            money = None
            if price is not None:
                from labkit.cost import MTOK

                money = lost * requests_per_month * (price.rates.fresh_input - price.rates.cached_input) / MTOK
            pair = next(
                (texts[0][slice(*spans[0])], text[slice(*span)])
                for text, span in zip(texts[1:], spans[1:], strict=True)
                if text[slice(*span)] != texts[0][slice(*spans[0])]
            )
            before = count(texts[0][:begin].replace(_GONE, ""))
            findings.append(Finding(kind, (_short(pair[0]), _short(pair[1])), before, lost, money, FIXES[kind]))
        texts = [text[:start] + _GONE + text[end:] for text, (start, end) in zip(texts, spans, strict=True)]
        at = len(_beginning(texts))
    return tuple(findings)


def rendered(request: Request) -> str:
    """A request as the engine reads it, but without its chat template: tools first, then each message after its role."""
    tools = request.extra.get("tools")
    head = json.dumps(tools, ensure_ascii=False) + "\n" if tools else ""
    return head + "\n".join(f"{message.role}: {message.content}" for message in request.messages)


def _beginning(texts: list[str]) -> str:
    """The longest beginning that all texts share."""
    first, last = min(texts), max(texts)  # in sorted order, whatever these two share, all others share too
    return first[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))]


def _what_parts(texts: list[str], at: int) -> tuple[Kind, list[tuple[int, int]]]:
    """What stands in each text around `at`, the first place where they differ: its kind, and (start, end) in each text."""
    patterns: tuple[tuple[Kind, re.Pattern[str]], ...] = (("timestamp", _TIMESTAMP), ("identifier", _IDENTIFIER))
    for kind, pattern in patterns:
        spans = [_span(pattern, text, at) for text in texts]
        if all(spans):
            return kind, [span for span in spans if span]
    documents = [_document(text, at) for text in texts]
    if all(documents):
        found = [document for document in documents if document]
        if len({_canonical(value) for _, _, value in found}) == 1:
            return "json-order", [(start, end) for start, end, _ in found]
    return "varying", [(at, at)] * len(texts)


def _span(pattern: re.Pattern[str], text: str, at: int) -> tuple[int, int] | None:
    line = text.rfind("\n", 0, at) + 1
    for match in pattern.finditer(text, line):
        if match.start() <= at < match.end() or match.start() <= at == match.end():
            return match.span()
        if match.start() > at:
            return None
    return None


def _document(text: str, at: int) -> tuple[int, int, Any] | None:
    """The outermost JSON object or list around `at`: where it begins, where it ends, and its value."""
    decoder = json.JSONDecoder()
    for match in re.finditer(r"[{\[]", text[: at + 1]):
        try:
            value, end = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if end > at and isinstance(value, (dict, list)):
            return match.start(), end, value
    return None


def _canonical(value: Any) -> str:
    """A text that is equal for JSON values that differ only in the order of keys or of list items."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_canonical(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(sorted(map(_canonical, value))) + "]"
    return json.dumps(value)


def _shared(texts: list[str]) -> str | None:
    """The first `_SHORTEST` characters of the first stretch that every text has; None if there is no stretch that long."""
    first, others = texts[0], texts[1:]
    for start in range(len(first) - _SHORTEST + 1):
        piece = first[start : start + _SHORTEST]
        if not piece[:1].isspace() and all(piece in text for text in others):
            return piece
    return None


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "…"
