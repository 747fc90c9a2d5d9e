"""From an endpoint's events to the lab's: an answer's chunks, and the `Done` at its end.

Nothing of an answer is lost in silence. Text, reasoning, refusals (as text; the `Done` then says "refusal") and tool calls
are carried; what this lab cannot carry (images, audio, a second choice) is refused by name. Any JSON in any place ends in
an answer or in one of the lab's errors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from labkit.engines.endings import ended
from labkit.engines.faults import fault_in
from labkit.engines.tools import ToolCalls
from labkit.engines.usage import Count, Warn
from labkit.request.errors import EngineError, StreamIncomplete
from labkit.request.sse import SentEvent
from labkit.request.values import Chunk, Done, Request, Timing, TokenLogprob, ToolCallDelta, Usage

CHUNKS_PER_TOKEN = 16
SPARE_CHUNKS = 1000
SPARE_REASONING = 2**16
"""How many chunks an answer may have: 16 for each token asked for, 1000 more of text and 65536 more of reasoning, which
some endpoints do not count in max_tokens. An endpoint that sends one letter at a time stays below."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_CARRIED = ("audio", "images", "image")
_NOTED = ("annotations", "citations")


class Failed(Exception):
    """The endpoint sent an error within its answer; `fault` is the error as it came. The client says it in words."""

    def __init__(self, fault: Any) -> None:
        super().__init__("the endpoint failed while streaming")
        self.fault = fault


class Answer:
    """Folds the events of one answer. `max_tokens` bounds it; `warn` is told once of each odd field."""

    def __init__(
        self,
        request: Request,
        model: str,
        sent: float,
        started_unix: float,
        max_tokens: int,
        warn: Warn,
        beside: bool = False,
    ) -> None:
        self.chunks = 0
        self.finished = False
        """[DONE] has come."""
        self.ignored = ""
        """The beginning of the first event that was no part of an answer."""
        self._model = model
        self._wants_logprobs = request.logprobs is not None
        self._sent = sent
        self._started_unix = started_unix
        self._first: float | None = None
        self._last: float | None = None
        self._warn = warn
        self._usage = Count(warn, beside)
        self._counted = 0
        self._reason = ""
        self._refused = False
        self._choice: Any = None
        self._id = ""
        self._tools = ToolCalls()
        self._half: dict[str | int, str] = {}  # what "text", "reasoning" or a tool call's arguments ended with
        self._max_tokens = max_tokens
        self._left = {
            "text": CHUNKS_PER_TOKEN * max_tokens + SPARE_CHUNKS,
            "reasoning": CHUNKS_PER_TOKEN * max_tokens + SPARE_REASONING,
        }

    @property
    def whole(self) -> bool:
        """Whether the answer is all there, though the stream may go on: the endpoint has said why it ended."""
        return self.finished or bool(self._reason)

    def feed(self, sent: SentEvent, at: float) -> Chunk | None:
        """The chunk in one event; None for the opening role, the closing usage and whatever brings nothing.

        Raises `Failed` for an error, `StreamIncomplete` and `EngineError` for what is no answer.
        """
        data = sent.data
        if data == "[DONE]" or data.strip() == "[DONE]":
            if not self.chunks and not self._reason:
                raise StreamIncomplete("the endpoint sent [DONE] and no answer before it")
            self.finished = True
            return None
        named_error = sent.event == "error"
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            if named_error:
                raise Failed(data) from None
            if not data.strip():
                return None
            raise StreamIncomplete(
                f"the engine sent what is not JSON after {self.chunks} chunks: {data[:80]!r}"
                + (" (nested too deep)" if isinstance(error, RecursionError) else "")
            ) from None
        if named_error or not isinstance(event, dict) or not event.get("choices") or event.get("error") is not None:
            if (fault := fault_in(event, named_error)) is not None:
                raise Failed(fault)
            if event is None:
                return None
            if not isinstance(event, dict):
                raise StreamIncomplete(
                    f"the engine sent a JSON {type(event).__name__} after {self.chunks} chunks, not an object"
                )
        return self._read(event, data, at)

    def _read(self, event: dict[str, Any], data: str, at: float) -> Chunk | None:
        if event.get("id"):
            self._id = _name(event["id"]) or self._id
        if event.get("model"):
            self._model = _name(event["model"]) or self._model
        before = self._usage.reported.output or 0
        running = self._take_usage(event)
        for name in _NOTED:
            if event.get(name):
                self._warn(name)
        choices = event.get("choices")
        if not choices:
            if running is None and not self._usage.any and not self.ignored and choices is None:
                self.ignored = data[:120]
            return None
        if not isinstance(choices, list):
            raise StreamIncomplete(f"the engine sent choices that are a {type(choices).__name__}, not a list")
        choice = self._one(choices)
        if choice is None:
            return None
        if choice.get("error") and (fault := fault_in(event)) is not None:
            raise Failed(fault)
        if (reason := ended(choice.get("finish_reason"))) != "":
            if reason == "failed":
                raise Failed(
                    choice.get("error") or f"it ended the answer with finish_reason {choice['finish_reason']!r:.60}"
                )
            self._reason = reason
        delta = choice.get("delta")
        if not delta:
            delta = choice.get("message") or ({"content": choice["text"]} if choice.get("text") else {})
        if not isinstance(delta, Mapping):
            raise StreamIncomplete(f"the engine sent a delta that is a {type(delta).__name__}, not an object")
        return self._chunk(choice, delta, running, before, at)

    def _one(self, choices: list[Any]) -> Mapping[str, Any] | None:
        """The one choice of an event. Raises `EngineError` for a second one: two answers must not be mixed."""
        choices = [choice for choice in choices if choice is not None]
        if not choices:
            return None
        for choice in choices:
            if not isinstance(choice, Mapping):
                raise StreamIncomplete(f"the engine sent a choice that is a {type(choice).__name__}, not an object")
            index = choice.get("index") or 0
            if self._choice is None:
                self._choice = index
            if index != self._choice:
                raise EngineError(
                    f"the endpoint sent choice {str(index)[:20]} beside choice {str(self._choice)[:20]}, though one answer was "
                    "asked for; this lab carries one answer a request, so do not ask for more (n)"
                )
        if len(choices) > 1:
            raise EngineError(
                "the endpoint sent several choices at once under one index; this lab carries one answer a request"
            )
        found: Mapping[str, Any] = choices[0]
        return found

    def _take_usage(self, event: Mapping[str, Any]) -> Usage | None:
        """The running usage, where the event reports one anywhere that endpoints put it."""
        usage = event.get("usage")
        if usage is None:
            usage = _usage_elsewhere(event)
        if usage is None or usage == {}:
            return None
        return self._usage.take(usage)

    def _chunk(
        self, choice: Mapping[str, Any], delta: Mapping[str, Any], running: Usage | None, before: int, at: float
    ) -> Chunk | None:
        content = delta.get("content")
        reasoning = delta.get("reasoning") or delta.get("reasoning_content") or delta.get("thinking") or ""
        if type(content) is str:
            text = content
        else:
            text, thoughts = self._parts(content)
            reasoning = reasoning or thoughts
        if type(reasoning) is not str:
            reasoning = self._thoughts(reasoning)
        if not reasoning and delta.get("reasoning_details"):
            reasoning = self._thoughts(delta["reasoning_details"])
        if refusal := delta.get("refusal"):
            text += self._refusal(refusal)
        tools = self._tools.read(delta["tool_calls"]) if delta.get("tool_calls") else ()
        if delta.get("function_call"):
            tools += self._tools.legacy(delta["function_call"])
        for name in _NOT_CARRIED:
            if delta.get(name):
                raise EngineError(f"the answer holds {name}, which this lab does not carry; ask for text only")
        for name in _NOTED:
            if delta.get(name):
                self._warn(name)
        text = self._whole_letters("text", text)
        reasoning = self._whole_letters("reasoning", reasoning)
        if tools:
            tools = tuple(
                ToolCallDelta(t.index, _clean(t.id), _clean(t.name), self._whole_letters(t.index, t.arguments))
                for t in tools
            )
        logprobs = self._logprobs(choice) if self._wants_logprobs else ()
        tokens = max(0, running.output_tokens - before) if running else len(logprobs) or 1
        if not text and not reasoning and not tools and not logprobs and not (running and tokens):
            return None
        if text or reasoning or tools:
            if self._first is None:
                self._first = at
            self._last = at
        self._bound("reasoning" if reasoning and not text else "text")
        self.chunks += 1
        self._counted += tokens
        return Chunk(text, at, tokens, reasoning, logprobs, running, tools)

    def rest(self, at: float) -> Chunk | None:
        """The half of a letter that the answer ends with, as U+FFFD: its other half never came."""
        halves, self._half = self._half, {}
        tools = tuple(
            ToolCallDelta(key, arguments="\ufffd") for key, half in halves.items() if half and isinstance(key, int)
        )
        text, reasoning = ("\ufffd" if halves.get(key) else "" for key in ("text", "reasoning"))
        return Chunk(text, at, 0, reasoning, tool_calls=tools) if text or reasoning or tools else None

    def done(self, at: float) -> Done:
        """The end of the stream, with the usage as far as it is known and what is wrong with it."""
        usage, note = self._usage.settle(self._counted if self._first is not None else 0)
        timing = Timing(self._sent, self._first, self._last, at, self._started_unix)
        reason = self._reason or "stop"
        if reason == "stop" and len(self._tools):
            reason = "tool_calls"
        if reason == "stop" and self._refused:
            reason = "refusal"
        return Done(usage, timing, _clean(reason), self._model, response_id=self._id, usage_note=note)

    def _bound(self, kind: str) -> None:
        self._left[kind] -= 1
        if self._left[kind] < 0:
            spare = SPARE_CHUNKS if kind == "text" else SPARE_REASONING
            raise StreamIncomplete(
                f"the endpoint goes on after {self.chunks} chunks, though {self._max_tokens} tokens were asked for; the bound is "
                f"{CHUNKS_PER_TOKEN} chunks a token and {spare} more of {kind}. It does not keep to max_tokens: look for the "
                "field that its model wants (max_completion_tokens, in extra), or raise max_tokens"
            )

    def _parts(self, content: Any) -> tuple[str, str]:
        """(text, reasoning) of content that is no plain text."""
        if content is None:
            return "", ""
        if isinstance(content, Mapping):
            content = [content]
        if not isinstance(content, list):
            raise StreamIncomplete(f"the engine sent content that is a {type(content).__name__}, not text")
        text, reasoning = [], []
        for part in content:
            if isinstance(part, str):
                text.append(part)
                continue
            if not isinstance(part, Mapping):
                raise StreamIncomplete(f"the engine sent a part of content that is a {type(part).__name__}, not text")
            kind = part.get("type") or "text"
            if kind in ("text", "output_text") and isinstance(part.get("text"), str):
                text.append(part["text"])
            elif kind in ("thinking", "reasoning"):
                reasoning.append(self._thoughts(part.get("thinking") or part.get("reasoning") or part.get("text")))
            elif kind == "refusal":
                text.append(self._refusal(part.get("refusal")))
            else:
                raise EngineError(f"the answer holds content of kind {str(kind)[:40]!r}, which this lab does not carry")
        return "".join(text), "".join(reasoning)

    def _thoughts(self, thoughts: Any, depth: int = 0) -> str:
        if isinstance(thoughts, str):
            return thoughts
        if isinstance(thoughts, Mapping) and depth < 4:
            said = thoughts.get("text") or thoughts.get("content") or thoughts.get("summary") or thoughts.get("thinking")
            return self._thoughts(said, depth + 1)
        if isinstance(thoughts, list) and depth < 4:
            return "".join(self._thoughts(part, depth + 1) for part in thoughts)
        if thoughts is None:
            return ""  # encrypted, or an empty form
        raise StreamIncomplete(f"the engine sent reasoning that is a {type(thoughts).__name__}, not text")

    def _refusal(self, refusal: Any) -> str:
        if refusal is None:
            return ""
        if not isinstance(refusal, str):
            raise StreamIncomplete(f"the engine sent a refusal that is a {type(refusal).__name__}, not text")
        self._refused = True
        return refusal

    def _whole_letters(self, kind: str | int, text: str) -> str:
        """`text` with the half before it, and without the half it ends with.

        JSON writes an emoji as two halves, and an endpoint may cut between them. A half that stays alone becomes U+FFFD: it
        has no form in UTF-8.
        """
        if self._half:
            if not text:
                return ""  # the other half may come yet
            text = self._half.pop(kind, "") + text
        if text.isascii() or not _SURROGATE.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            self._half[kind], text = text[-1], text[:-1]
        return _clean(text)

    def _logprobs(self, choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
        given = choice.get("logprobs")
        content = given.get("content") if isinstance(given, Mapping) else None
        if not isinstance(content, list):
            return ()
        found = []
        for entry in content:
            one = _logprob(entry)
            if one is None:
                self._warn("logprobs")
                continue
            top = entry.get("top_logprobs")
            pairs = [pair for pair in map(_logprob, top if isinstance(top, list) else ()) if pair is not None]
            found.append(TokenLogprob(*one, tuple(pairs)))
        return tuple(found)


def _usage_elsewhere(event: Mapping[str, Any]) -> Any:
    """Usage that does not stand in the event's `usage`: in its choice (Moonshot), or under another name."""
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        choice = choices[0]
        if choice.get("usage"):
            return choice["usage"]
        for name in ("delta", "message"):
            inner = choice.get(name)
            if isinstance(inner, Mapping) and inner.get("usage"):
                return inner["usage"]
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


def _name(value: Any) -> str:
    """An id or a model's name: text, or a number as text; "" for anything else."""
    if isinstance(value, str):
        return _clean(value[:500])
    return str(value) if type(value) in (int, float) and abs(value) < 1e30 else ""


def _clean(text: str) -> str:
    """`text` with pairs of halves joined and lone ones as U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _logprob(entry: Any) -> tuple[str, float] | None:
    if not isinstance(entry, Mapping):
        return None
    token, logprob = entry.get("token"), entry.get("logprob")
    if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    try:
        value = float(logprob)
    except OverflowError:
        return None
    return None if math.isnan(value) else (_clean(token), value)
