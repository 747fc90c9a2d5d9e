"""Requests made from requests: with an instruction, with engine fields, with an answer to go on from, with a next turn."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

from labkit.request import Done, Event, Handler, InvalidValue, Message, Request, hops

Where = Literal["system", "last"]
"""Where an instruction goes: at the end of the system prompt, or at the end of the last message."""
NO_THOUGHTS = "<think></think>"
"""The beginning of an answer that has thought already, for models that write their steps between these marks."""


def with_extra(request: Request, **fields: Any) -> Request:
    """`request` with more fields of the engine's body; a field that it has already is replaced."""
    return replace(request, extra={**request.extra, **fields})


def told(request: Request, instruction: str, where: Where) -> Request:
    """`request` with `instruction` at the end of its system prompt, or of its last message; a missing system prompt is made.

    Both stand behind what many requests share. An instruction at the end of the system prompt stands in front of the
    conversation, so to change it from turn to turn makes the engine read the conversation again; "last" does not.
    """
    messages = list(request.messages)
    if where == "last":
        at = len(messages) - 1
    else:
        at = next((i for i, message in enumerate(messages) if message.role == "system"), -1)
        if at < 0:
            return replace(request, messages=(Message("system", instruction), *messages))
    content = messages[at].content
    joint = "" if not content or content[-1].isspace() else " "
    messages[at] = replace(messages[at], content=f"{content}{joint}{instruction}")
    return replace(request, messages=tuple(messages))


def going_on(request: Request, said: str) -> Request:
    """The request whose answer goes on from `said`, as if the model had written that: vLLM's `continue_final_message`.

    The prompt begins with all that the engine has read and written for `request`, so its prefix cache pays for most of it.
    """
    messages = request.messages
    if request.extra.get("continue_final_message"):
        messages, said = messages[:-1], messages[-1].content + said
    made = replace(request, messages=(*messages, Message("assistant", said)))
    return with_extra(made, continue_final_message=True, add_generation_prompt=False)


def next_turn(request: Request, said: str, then: str) -> Request:
    """The next turn of the same conversation: the answer `said`, and what the user says `then`."""
    messages = request.messages
    if request.extra.get("continue_final_message"):
        messages, said = messages[:-1], messages[-1].content.removeprefix(NO_THOUGHTS) + said
    extra = {
        name: value
        for name, value in request.extra.items()
        if name not in ("continue_final_message", "add_generation_prompt")
    }
    return replace(request, messages=(*messages, Message("assistant", said), Message("user", then)), extra=extra)


def keyed(request: Request, part: str) -> Request:
    """`request` with an idempotency key of its own for this `part` of the work; without a key it stays without.

    Two parts of one answer must not share a key: a ledger takes the later of two attempts with one key for the one that
    served, and the earlier one for waste.
    """
    return replace(request, idempotency_key=f"{request.idempotency_key}~{part}") if request.idempotency_key else request


def whole_key(key: str) -> str:
    """The idempotency key of the request that the part with `key` belongs to."""
    return re.sub(r"(?:~(?:rest(?:-[0-9a-f]{8})?|free|detail|slot-\d+))+$", "", key)


def constrained(request: Request) -> bool:
    """Whether the engine holds the answer to a grammar, which would begin anew in a request that goes on."""
    return request.response_format is not None or request.extra.get("structured_outputs") is not None


def as_said(reasoning: str, text: str) -> str:
    """An answer as the model wrote it: its thoughts between their marks, then the text."""
    return f"<think>{reasoning}</think>{text}" if reasoning else text


def both_parts(first: Done, second: Done) -> Done:
    """The end of an answer in two parts, both delivered: tokens and money of both, timed from the first one's start.

    The cost is None where either is unknown, or where the currencies differ: the books hold both.
    """
    cost: Decimal | None = None
    if first.cost is not None and second.cost is not None and first.currency == second.currency:
        cost = first.cost + second.cost
    begun = first.timing.first_token
    timing = replace(
        second.timing,
        sent=first.timing.sent,
        started_unix=first.timing.started_unix,
        first_token=second.timing.first_token if begun is None else begun,
        last_token=second.timing.last_token or first.timing.last_token,
    )
    return replace(
        second,
        usage=first.usage + second.usage,
        timing=timing,
        cost=cost,
        faults=(*first.faults, *second.faults),
        booked=tuple(name for name in second.booked if name in first.booked),
        usage_note="; ".join(note for note in (first.usage_note, second.usage_note) if note),
    )


def asked_as(inner: Handler, change: Callable[[Request], Request], kind: str) -> Handler:
    """`inner`, asked with each request as `change` makes it; the answer passes as it comes, with the hop "output:`kind`"."""
    hop = hops.hop(hops.OUTPUT, kind)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        async with aclosing(inner(change(request))) as events:
            async for event in events:
                yield event.via(hop) if isinstance(event, Done) else event

    return handle


def check_where(where: object) -> None:
    """Raise `InvalidValue` for a place that an instruction cannot go to."""
    if where not in ("system", "last"):
        raise InvalidValue(
            f'where is {where!r:.40}; use "system" (the end of the system prompt) or "last" (the last message)'
        )


def frozen(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a mapping whose keys are texts. Raises `InvalidValue` for anything else."""
    if not isinstance(mapping, Mapping) or not all(isinstance(key, str) for key in mapping):
        raise InvalidValue(f"{mapping!r:.80} is no mapping from texts")
    return dict(mapping)
