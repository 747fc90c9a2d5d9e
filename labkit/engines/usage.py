"""The usage of one answer, put together from the reports in its stream, with a note in words on what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.engines.usage_fields import Report, Warn, read
from labkit.request import Usage


@dataclass(slots=True)
class Count:
    """The usage of one answer, put together from however many reports its stream brings.

    A later report wins over an earlier one, field by field, except for its zeros: a gateway may send the input tokens with
    the first chunk, and with the last chunk the output tokens and an input of 0. `any` says whether a report has come,
    `fell` in words that the output tokens fell between two reports. `beside`: see `usage_fields.read`.
    """

    warn: Warn
    beside: bool = False
    reported: Report = field(default_factory=Report)
    any: bool = False
    fell: str = ""

    def take(self, usage: Any) -> Usage | None:
        """Add a report. Returns the running usage, None while it is unknown or contradicts itself."""
        new, old = read(usage, self.warn, self.beside), self.reported
        self.any = True
        if new.plain and old.plain and (new.output or 0) >= (old.output or 0):
            self.reported = new
            return Usage(new.input or 0, new.output or 0)
        if new.output and old.output and new.output < old.output:
            self.fell = f"output tokens fell from {old.output} to {new.output} during the stream"
        self.reported = Report(
            new.input or old.input or new.input,
            new.output or old.output or new.output,
            new.cached or old.cached or new.cached,
            new.written or old.written or new.written,
            new.reasoning or old.reasoning or new.reasoning,
            new.total or old.total,
            {**old.apart, **new.apart} if old.apart else new.apart,
            new.wrong,
        )
        r = self.reported
        if not r.input or r.output is None or r.wrong:
            return None
        cached, written, reasoning = r.cached or 0, r.written or 0, r.reasoning or 0
        if cached + written > r.input or reasoning > r.output:
            return None
        return Usage(r.input, r.output, cached, written, reasoning)

    def settle(self, counted: int) -> tuple[Usage, str]:
        """The usage, and a note on what is wrong with it ("" for nothing). `counted`: output tokens seen in the stream."""
        r = self.reported
        if not self.any:
            return Usage(output_tokens=counted), (
                "the endpoint reported no token usage (stream_options.include_usage); the output is counted from the stream"
            )
        wrong = [*r.wrong, self.fell] if self.fell else list(r.wrong)
        missing: list[str] = []
        into, out = r.input or 0, r.output or 0
        if not into:
            missing.append(f"the endpoint reported no input tokens{_only_total(r)}")
        if not out and counted:
            out = counted
            missing.append("the endpoint reported no output tokens beside an answer; they are counted from the stream")
        cached, written, reasoning = r.cached or 0, r.written or 0, r.reasoning or 0
        if cached + written > into:
            if into:
                wrong.append(f"{cached} cached and {written} cache-write tokens are more than the input of {into}")
            cached = written = 0
        if reasoning > out:
            wrong.append(f"{reasoning} reasoning tokens are more than the output of {out}")
            reasoning = 0
        notes = missing
        if wrong:
            notes = [*notes, "the endpoint's usage contradicts itself: " + ", ".join(wrong[:5])]
        if r.apart:
            notes = [*notes, "priced apart: " + ", ".join(list(r.apart.values())[:10])]
        return Usage(into, out, cached, written, reasoning), "; ".join(notes)


def usage_of(report: Any) -> tuple[Usage, str]:
    """The usage in one whole report, in any provider's words, and a note on what is wrong with it ("" for nothing)."""
    count = Count(warn=lambda name: None)  # noqa: ARG005 - a log's unknown fields are no news
    count.take(report)
    return count.settle(0)


def _only_total(report: Report) -> str:
    return f" (only a total of {report.total})" if report.total and not report.output else ""


_PLACES = frozenset(
    ["usageMetadata", "usage_metadata", "amazon-bedrock-invocationMetrics", "x_groq", "meta", "message", "delta", "metadata"]
)


def usage_elsewhere(event: Mapping[str, Any]) -> Any:
    """Usage outside the event's own `usage`: in its choice (Moonshot), or under another name; None without any."""
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        choice = choices[0]
        if choice.get("usage"):
            return choice["usage"]
        for name in ("delta", "message"):
            inner = choice.get(name)
            if isinstance(inner, Mapping) and inner.get("usage"):
                return inner["usage"]
    if _PLACES.isdisjoint(event):
        return None
    for name in ("usageMetadata", "usage_metadata", "amazon-bedrock-invocationMetrics"):
        if event.get(name):
            return event[name]
    for name in ("x_groq", "meta", "message", "delta", "metadata"):
        inner = event.get(name)
        if isinstance(inner, Mapping):
            if inner.get("usage"):
                return inner["usage"]
            if "billed_units" in inner:
                return inner
    return None
