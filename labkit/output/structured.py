"""Answers of a form that a program can read: the engine's grammar lets the model write nothing else.

A grammar holds a model to a form, not to the truth, and to a form only where it is applied. So each answer is checked on
arrival, and four traps that were measured on this lab's engines are named here:

- White space between JSON tokens is free unless something takes it away, and a model may fill its whole limit with it. An
  engine argument takes it away for all requests (`disable_any_whitespace`); the field of that name in a request is read by
  nobody. One request can do so by `spacing`, which sends the schema as one regular expression.
- `{"a":1}` is another text than `{"a": 1}`. A model that has learned the second one may write nonsense after `{"a":`. So
  "spaced" is the form to try first.
- An engine with a reasoning parser applies the grammar behind `</think>` only. A model that answers without thinking is then
  held to nothing, and nothing says so. `at_once` begins the answer behind an empty thought.
- xgrammar 0.2.8 takes anything but quotes, backslashes and line ends for a string with `maxLength`. So a raw control
  character passes, which is no JSON, and an escape does not, which is. A `spacing` other than the engine's does both right.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from labkit.output.asking import NO_THOUGHTS, going_on, told, with_extra
from labkit.output.lint import lint_schema
from labkit.output.pattern import pattern_of
from labkit.output.schema import KeyTable, plain_json, shortened
from labkit.request import (
    CUT_SHORT,
    Chunk,
    Completion,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    LabError,
    Lever,
    Request,
    clock,
    hops,
)
from labkit.routing import JsonSchema

_HOP = hops.hop(hops.OUTPUT, "structured")
_REFUSES = re.compile(r"grammar|schema|regex|structured|response_format|xgrammar", re.IGNORECASE)


class InvalidAnswer(LabError):
    """An answer is not of the form that was asked for; it was delivered, and this is among its faults."""


class GrammarRefused(EngineError):
    """The engine cannot compile the form that it was given; nothing was generated."""


@dataclass(frozen=True)
class Structured(Lever):
    """Ask for an answer that fits a JSON `schema`, or a regular expression `regex`, or is one text of `choice`.

    `spacing` says who rules the white space of JSON: "engine" sends the schema as `response_format`, as any endpoint takes
    it; "spaced" and "compact" send it as a regular expression (`pattern_of`) in vLLM's `structured_outputs`, as `regex` and
    `choice` are sent. `short_keys` replaces the schema's keys by letters, tells the model the table at the end of the system
    prompt, and restores the keys on arrival; the answer is then held back until it is whole. `at_once` begins the answer
    behind an empty thought (vLLM only).

    An answer that does not fit, or that was cut, is delivered as it is with an `InvalidAnswer` on `Done.faults`, which says
    what is wrong. Raises `InvalidValue` for none or several of the three forms, and for a schema or an expression that is
    none, with its path. A stream raises `GrammarRefused`, with the engine's words and what the lint says of the schema,
    where the engine does not compile it.
    """

    schema: Mapping[str, Any] | None = None
    regex: str = ""
    choice: tuple[str, ...] = ()
    spacing: Literal["engine", "spaced", "compact"] = "engine"
    short_keys: bool = False
    at_once: bool = False
    _sent: _Sent = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choice", tuple(self.choice))
        forms = [name for name in ("schema", "regex", "choice") if getattr(self, name) not in (None, "", ())]
        if len(forms) != 1:
            raise InvalidValue(f"Structured takes one of schema, regex and choice; it got {', '.join(forms) or 'none'}")
        if self.spacing not in ("engine", "spaced", "compact"):
            raise InvalidValue(f'spacing is {self.spacing!r:.40}; use "engine", "spaced" or "compact"')
        if self.schema is None and (self.short_keys or self.spacing != "engine"):
            raise InvalidValue("short_keys and spacing are for a schema; write them into the regex or the choice yourself")
        if not all(isinstance(text, str) and text for text in self.choice):
            raise InvalidValue(f"choice is {self.choice!r:.80}; give texts that are not empty")
        if self.schema is not None:
            object.__setattr__(self, "schema", plain_json(self.schema))
        object.__setattr__(self, "_sent", _sent(self))

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked for this form."""
        form, held = self._sent, self.short_keys

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            asked = form.asking(request)
            if self.at_once:
                asked = going_on(asked, NO_THOUGHTS)
            chunks: list[Chunk] = []
            try:
                async with aclosing(inner(asked)) as events:
                    async for event in events:
                        if isinstance(event, Chunk):
                            chunks.append(event)
                            if held and event.text:
                                continue
                            yield event
                            continue
                        text, wrong = form.arrived(Completion.of(chunks, event))
                        if held and text:
                            yield Chunk(text, clock.now(), sum(chunk.tokens for chunk in chunks if chunk.text))
                            now = clock.now()
                            begun = next((chunk.at for chunk in chunks if chunk.reasoning), now)
                            event = replace(event, timing=replace(event.timing, first_token=begun, last_token=now, done=now))
                        event = event.via(_HOP)
                        yield event.beside(_HOP, InvalidAnswer(wrong)) if wrong else event
            except EngineError as error:
                if chunks or not _REFUSES.search(str(error)) or isinstance(error, GrammarRefused):
                    raise
                raise GrammarRefused(f"{error}{form.hint}", error.status) from error

        return handle


@dataclass(frozen=True, slots=True)
class _Sent:
    """What goes into a request for one form, and how its answer is checked."""

    response_format: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    table: KeyTable | None = None
    check: JsonSchema | None = None
    fits: re.Pattern[str] | None = None
    hint: str = ""

    def asking(self, request: Request) -> Request:
        if self.table is not None:
            request = told(request, self.table.told, "system")
        if self.response_format is not None:
            return replace(request, response_format=self.response_format)
        return with_extra(request, structured_outputs=self.outputs)

    def arrived(self, completion: Completion) -> tuple[str, str]:
        """The text to deliver, with its keys in full, and what is wrong with it ("" for nothing)."""
        try:
            return self._arrived(completion)
        except Exception as error:  # noqa: BLE001 - an answer is paid for, and goes on although its check failed
            return completion.text, f"it could not be checked: {error!r:.200}"

    def _arrived(self, completion: Completion) -> tuple[str, str]:
        text, done = completion.text, completion.done
        if done.finish_reason in CUT_SHORT:
            return text, f"cut after {done.usage.output_tokens} tokens ({done.finish_reason}), so it is not whole"
        if self.fits is not None:
            return text, "" if self.fits.fullmatch(text) else f"{text!r:.80} does not fit {self.fits.pattern!r:.80}"
        if self.table is not None:
            try:
                text = json.dumps(self.table.restored(json.loads(text)), ensure_ascii=False)
            except ValueError as error:
                return text, f"not JSON, so its keys stay short: {error}"
        if self.check is None:
            return text, ""
        return text, self.check(Completion.of((Chunk(text, 0.0),), done))


def _sent(of: Structured) -> _Sent:
    if of.choice:
        return _Sent(outputs={"choice": list(of.choice)}, fits=re.compile("|".join(map(re.escape, of.choice))))
    if of.schema is None:
        try:
            fits = re.compile(of.regex)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidValue(f"{of.regex!r:.80} is no regular expression: {error}") from error
        return _Sent(outputs={"regex": of.regex}, fits=fits)
    check = JsonSchema(of.schema)
    refused = [str(issue) for issue in lint_schema(of.schema) if issue.rule == "refused"]
    hint = f" ({'; '.join(refused)})" if refused else ""
    sent, table = shortened(of.schema) if of.short_keys else (of.schema, None)
    if of.spacing != "engine":
        return _Sent(outputs={"regex": pattern_of(sent, of.spacing)}, table=table, check=check, hint=hint)
    named = {"type": "json_schema", "json_schema": {"name": "answer", "schema": sent, "strict": True}}
    return _Sent(response_format=named, table=table, check=check, hint=hint)
