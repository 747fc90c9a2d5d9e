"""From an endpoint's events to the lab's: an answer's chunks, and the `Done` at its end.

No part of an answer is dropped silently. Text, reasoning, refusals (as text; the `Done` then says "refusal") and tool calls
are carried; an answer with parts that this lab cannot carry (images, audio, a second choice) raises an error that names
them. Whatever JSON an endpoint sends, the result is an answer or one of the lab's errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from labkit.engines.content import Halves, clean, logprobs_of, name_of, parts_of, refusal_of, thoughts_of
from labkit.engines.endings import ended
from labkit.engines.faults import fault_in
from labkit.engines.tools import ToolCalls
from labkit.engines.usage import Count, usage_elsewhere
from labkit.engines.usage_fields import Warn
from labkit.request import Chunk, Done, EngineError, Request, SentEvent, StreamIncomplete, Timing, ToolCallDelta, Usage

CHUNKS_PER_TOKEN = 16
SPARE_CHUNKS = 1000
SPARE_REASONING = 2**15
"""The bounds of an answer's chunks. Text may have 16 chunks for each token asked for, and 1000 more. Reasoning may have 16
for each token asked for, and 32768 more, because some endpoints do not count it in max_tokens. An endpoint that sends one
letter at a time stays below both."""

_NOT_CARRIED = ("audio", "images", "image")
_NOTED = ("annotations", "citations")
_RARE = frozenset((*_NOT_CARRIED, *_NOTED, "tool_calls", "function_call", "refusal"))


class Failed(Exception):
    """The endpoint sent an error within its answer. `fault` is the error as it came; `OpenAIEngine` puts it into words."""

    def __init__(self, fault: Any) -> None:
        super().__init__("the endpoint failed while streaming")
        self.fault = fault


class Answer:
    """Folds the events of one answer into chunks and a `Done`.

    `sent` is in seconds of `clock.now()`, `started_unix` in seconds since 1970. `max_tokens` sets the bound of the chunks.
    `warn` is called with the name of each field that is not read. `beside`: see `usage_fields.read`.
    """

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
        """Whether [DONE] has come."""
        self.ignored = ""
        """The beginning of the first event that was no part of an answer, before its first chunk or else after it."""
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
        self._halves = Halves()
        self._max_tokens = max_tokens
        self._left = {
            "text": CHUNKS_PER_TOKEN * max_tokens + SPARE_CHUNKS,
            "reasoning": CHUNKS_PER_TOKEN * max_tokens + SPARE_REASONING,
        }

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: the endpoint has said why it ended, though the stream may go on."""
        return self.finished or bool(self._reason)

    def feed(self, sent: SentEvent, at: float) -> Chunk | None:
        """The chunk in one event; None for the opening role, the closing usage, and any event without content.

        `at` is when the event came, in seconds of `clock.now()`. Raises `Failed` where the endpoint sent an error,
        `StreamIncomplete` for an event that cannot be read, `EngineError` for an answer that this lab cannot carry.
        """
        data = sent.data
        if data[:1] != "{" and data.strip().strip('"').upper() == "[DONE]":
            self._end()
            return None
        named_error = sent.event == "error"
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            if named_error:
                raise Failed(data) from None
            if not data.strip() or self._reason:
                return None  # nothing, or what follows a whole answer: that has been paid for
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
                if self._reason:
                    return None
                raise StreamIncomplete(
                    f"the engine sent a JSON {type(event).__name__} after {self.chunks} chunks, not an object"
                )
        return self._read(event, data, at)

    def _read(self, event: dict[str, Any], data: str, at: float) -> Chunk | None:
        if event.get("id"):
            self._id = name_of(event["id"]) or self._id
        if event.get("model"):
            self._model = name_of(event["model"]) or self._model
        before = self._usage.reported.output or 0
        running = self._take_usage(event)
        if event.get("citations"):
            self._warn("citations")
        choices = event.get("choices")
        if not choices:
            if running is None and choices is None and not self.ignored and event and event.get("type") != "ping":
                self.ignored = data[:120] if self.chunks or not self._usage.any else ""
            return None
        if not isinstance(choices, list):
            raise StreamIncomplete(f"the engine sent choices that are a {type(choices).__name__}, not a list")
        choice = self._one(choices)
        if choice is None:
            return None
        if choice.get("error") and (fault := fault_in(event)) is not None:
            raise Failed(fault)
        given = choice.get("finish_reason")
        if given is not None and (reason := ended(given)) != "":
            if reason == "failed":
                raise Failed(choice.get("error") or f"it ended the answer with finish_reason {given!r:.60}")
            self._reason = reason
        delta = choice.get("delta")
        if not delta:
            delta = choice.get("message") or ({"content": choice["text"]} if choice.get("text") else {})
        if not isinstance(delta, Mapping):
            raise StreamIncomplete(f"the engine sent a delta that is a {type(delta).__name__}, not an object")
        return self._chunk(choice, delta, running, before, at)

    def _end(self) -> None:
        """Take [DONE]. Raises `StreamIncomplete` where no answer came before it, or what seems to be half of one."""
        if not self._reason:
            if not self.chunks:
                raise StreamIncomplete("the endpoint sent [DONE] and no answer before it")
            if self.ignored:  # perhaps an error in words of its own
                raise StreamIncomplete(
                    f"the endpoint sent [DONE] after {self.chunks} chunks, no finish_reason, and an event that is no part "
                    f"of an answer: {self.ignored!r}; the answer is not whole"
                )
        self.finished = True

    def _one(self, choices: list[Any]) -> Mapping[str, Any] | None:
        """The one choice of an event. Raises `EngineError` for a second one: two answers must not be mixed."""
        if len(choices) == 1 and type(choices[0]) is dict and (choices[0].get("index") or 0) == self._choice:
            only: dict[str, Any] = choices[0]  # nearly always
            return only
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
                    f"the endpoint sent choice {name_of(index)[:20]} beside choice {name_of(self._choice)[:20]}; this lab "
                    "carries one answer a request, so do not ask for more (n)"
                )
        if len(choices) > 1:
            raise EngineError(
                "the endpoint sent several choices at once under one index; this lab carries one answer a request"
            )
        found: Mapping[str, Any] = choices[0]
        return found

    def _take_usage(self, event: Mapping[str, Any]) -> Usage | None:
        """The running usage, where the event reports one in any of the places that endpoints use."""
        usage = event.get("usage")
        if usage is None:
            usage = usage_elsewhere(event)
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
            text, thoughts, refused = parts_of(content)
            reasoning = reasoning or thoughts
            if refused:
                text += self._refusal(refused)
        if type(reasoning) is not str:
            reasoning = thoughts_of(reasoning)
        if not reasoning and delta.get("reasoning_details"):
            reasoning = thoughts_of(delta["reasoning_details"])
        tools: tuple[ToolCallDelta, ...] = ()
        if not _RARE.isdisjoint(delta):
            if refusal := delta.get("refusal"):
                text += self._refusal(refusal_of(refusal))
            tools = self._rest_of(delta)
        if text:
            text = self._halves.join("text", text)
        if reasoning:
            reasoning = self._halves.join("reasoning", reasoning)
        logprobs = logprobs_of(choice, self._warn) if self._wants_logprobs else ()
        tokens = max(0, running.output_tokens - before) if running else len(logprobs) or 1
        if not text and not reasoning and not tools and not logprobs and not (running and tokens):
            return None
        if text or reasoning or tools:
            if self._first is None:
                self._first, self.ignored = at, ""
            self._last = at
        self._bound("reasoning" if reasoning and not text else "text")
        self.chunks += 1
        self._counted += tokens
        return Chunk(text, at, tokens, reasoning, logprobs, running, tools)

    def _rest_of(self, delta: Mapping[str, Any]) -> tuple[ToolCallDelta, ...]:
        """The tool calls in a delta. Raises `EngineError` where the delta holds content that this lab does not carry."""
        for name in _NOT_CARRIED:
            if delta.get(name):
                raise EngineError(f"the answer holds {name}, which this lab does not carry; ask for text only")
        for name in _NOTED:
            if delta.get(name):
                self._warn(name)
        tools = self._tools.read(delta["tool_calls"]) if delta.get("tool_calls") else ()
        if delta.get("function_call"):
            tools += self._tools.legacy(delta["function_call"])
        return tuple(
            ToolCallDelta(tool.index, clean(tool.id), clean(tool.name), self._halves.join(tool.index, tool.arguments))
            for tool in tools
        )

    def rest(self, at: float) -> Chunk | None:
        """A last chunk with U+FFFD for each text that ended with half a letter, whose other half never came; else None."""
        halves = self._halves.rest()
        tools = tuple(ToolCallDelta(key, arguments=half) for key, half in halves.items() if isinstance(key, int))
        text, reasoning = halves.get("text", ""), halves.get("reasoning", "")
        return Chunk(text, at, 0, reasoning, tool_calls=tools) if halves else None

    def done(self, at: float) -> Done:
        """The end of the stream, with the usage as far as it is known and a note on what is wrong with it."""
        usage, note = self._usage.settle(self._counted if self._first is not None else 0)
        timing = Timing(self._sent, self._first, self._last, at, self._started_unix)
        reason = self._reason or "stop"
        if reason == "stop" and len(self._tools):
            reason = "tool_calls"
        if reason == "stop" and self._refused:
            reason = "refusal"
        return Done(usage, timing, clean(reason), self._model, response_id=self._id, usage_note=note)

    def _refusal(self, text: str) -> str:
        """Return a refusal as text of the answer, and remember it, so that the `Done` says "refusal"."""
        self._refused = True
        return text

    def _bound(self, kind: str) -> None:
        self._left[kind] -= 1
        if self._left[kind] < 0:
            spare = SPARE_CHUNKS if kind == "text" else SPARE_REASONING
            raise StreamIncomplete(
                f"the endpoint goes on after {self.chunks} chunks, though {self._max_tokens} tokens were asked for; the "
                f"bound is {CHUNKS_PER_TOKEN} chunks a token and {spare} more of {kind}. It ignores max_tokens: look for "
                "the field that its model wants (max_completion_tokens, in extra), or raise max_tokens"
            )
