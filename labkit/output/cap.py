"""A cap on an answer's tokens, and what becomes of an answer that reaches it; `newsvendor` says where it should lie."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from labkit.output.asking import as_said, both_parts, constrained, frozen, going_on, keyed
from labkit.request import (
    Chunk,
    Completion,
    Done,
    Event,
    Handler,
    InvalidValue,
    Lever,
    Request,
    StreamIncomplete,
    clock,
    complete,
    hops,
    is_whole,
    released,
)

OnCut = Literal["pass", "again", "continue"]
ANY_FEATURE = "*"


@dataclass(frozen=True)
class Cap(Lever):
    """No answer gets more than `tokens` tokens: one number, or one a feature ("*": all features without one of their own).

    It only lowers a request's own limit. `on_cut` says what happens to an answer that the cap cuts (one that the request's
    own limit cuts is the caller's affair, and so is a loop that the engine ended):

    - "pass": it is delivered as it is, with finish reason "length";
    - "again": it is thrown away, and the request is asked again with its own limit. The answer is held back until it is
      known to be whole, so a reader waits longer for its first token. Both attempts are paid;
    - "continue": the engine writes on from where it stopped, up to the request's own limit. Nothing is held back, and no
      token is written twice; the prompt is read twice, the second time mostly from the engine's prefix cache. It needs
      vLLM's `continue_final_message`. An answer cut before its first visible word (in its thinking) is asked again whole,
      and so is one held to a grammar, which would begin anew: such a request is treated as "again". So put `Structured`
      above `Cap`; an answer of a `Structured` below it is passed on as it was cut.

    A request's deadline holds for both requests together. Where the second request fails, the caller gets what the first one
    wrote, with "length", and the error on `Done.faults`. The `Done` of a continued answer has the tokens and the cost of
    both requests; of one asked again, of the delivered one alone. The route gets "output:cap", and "output:cap-again" or
    "output:cap-continue" where the cap cut.
    """

    tokens: int | Mapping[str, int]
    on_cut: OnCut = "pass"

    def __post_init__(self) -> None:
        if isinstance(self.tokens, Mapping):
            object.__setattr__(self, "tokens", frozen(self.tokens))
        given = self.tokens.values() if isinstance(self.tokens, Mapping) else (self.tokens,)
        if not all(is_whole(tokens, 1) for tokens in given):
            raise InvalidValue(f"the cap is {self.tokens!r:.80}; use whole numbers of tokens, at least 1")
        if self.on_cut not in ("pass", "again", "continue"):
            raise InvalidValue(f'on_cut is {self.on_cut!r:.40}; use "pass", "again" or "continue"')

    def limit(self, request: Request) -> int:
        """The limit of this request's answer: the cap, or the request's own limit where that is lower or nothing caps it."""
        if isinstance(self.tokens, Mapping):
            cap = self.tokens.get(request.feature, self.tokens.get(ANY_FEATURE, request.max_tokens))
        else:
            cap = self.tokens
        return min(cap, request.max_tokens)

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked for no more than the cap."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            sent, unix = clock.now(), clock.unix_now()
            limit = self.limit(request)
            capped = replace(request, max_tokens=limit)
            own = limit == request.max_tokens or self.on_cut == "pass"
            if own or (self.on_cut == "continue" and not constrained(request)):
                events = _continued(inner, request, capped, only=own)
            else:
                events = _again(inner, request, capped)
            async with aclosing(events):
                async for event in events:
                    yield event.since(sent, unix) if isinstance(event, Done) else event

        return handle


def _hop(kind: str) -> str:
    return hops.hop(hops.OUTPUT, kind)


async def _again(inner: Handler, request: Request, capped: Request) -> AsyncGenerator[Event, None]:
    """The capped answer if it is whole, else one with the request's own limit."""
    first = await complete(inner, capped)
    hop, fault = _hop("cap"), None
    if first.done.finish_reason == "length":
        try:
            second = await complete(inner, replace(request, attempt=request.attempt + 1))
        except Exception as error:  # noqa: BLE001 - the first answer is paid for and must not be lost with the second
            fault = error
        else:
            faults = (*first.done.faults, *second.done.faults)
            first, hop = Completion.of(second.chunks, replace(second.done, faults=faults)), _hop("cap-again")
    for event in released(first):
        if isinstance(event, Done):
            event = event.via(hop)
            event = event if fault is None else event.beside(_hop("cap-again"), fault)
        yield event


async def _continued(inner: Handler, request: Request, capped: Request, *, only: bool) -> AsyncGenerator[Event, None]:
    """The capped answer as it comes, and where the cap cuts it (and not `only`), the rest of it."""
    text, thoughts, done = "", "", None
    async with aclosing(inner(capped)) as events:
        async for event in events:
            if isinstance(event, Chunk):
                text, thoughts = text + event.text, thoughts + event.reasoning
                yield event
            else:
                done = event
    if done is None:
        return
    if only or done.finish_reason != "length" or hops.hop(hops.OUTPUT, "structured") in done.route:
        yield done.via(_hop("cap"))
        return
    if text:
        rest = max(1, request.max_tokens - done.usage.output_tokens)
        more = keyed(replace(going_on(request, as_said(thoughts, text)), max_tokens=rest), "rest")
    else:
        more = replace(request, attempt=request.attempt + 1)
    ended: Done | None = None
    try:
        async with aclosing(inner(more)) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    yield replace(event, usage=None)  # a running count of one of two requests would mislead
                else:
                    ended = event
        if ended is None:
            raise StreamIncomplete("the rest of the answer ended without a Done; it is not whole")
    except Exception as error:  # noqa: BLE001 - what was written is paid for and delivered
        yield done.via(_hop("cap")).beside(_hop("cap-continue"), error)
        return
    yield both_parts(done, ended).via(_hop("cap-continue"))
