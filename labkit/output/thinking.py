"""Thinking on a budget, and thinking first with the form later: two ways to pay for reasoning only where it pays.

What the lab measured on its own reasoning model: vLLM's `thinking_token_budget` ends the thoughts, not the need for them. A
model that is stopped in its steps writes the rest of them into the answer, where they cost as much. Only with the form of
the answer held by a grammar does a budget cap the bill; the answer is then a guess from half of the steps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from labkit.output.asking import asked_as, both_parts, keyed, next_turn, with_extra
from labkit.output.structured import Structured
from labkit.request import Chunk, Done, Event, Handler, InvalidValue, Lever, Request, StreamIncomplete, clock, hops, is_whole

_MARKS = 2
"""The tokens that open and close the thoughts, which are output tokens and no thoughts."""


@dataclass(frozen=True)
class ThinkingBudget(Lever):
    """No more than `tokens` tokens of thought, and no more than `answer` tokens behind them.

    `answer` is the hard end: with it the whole answer has at most tokens + answer + 2 tokens (the two marks), whatever the
    model does with its freedom. None leaves the request's own limit. Put `Structured` around it, or inside of it, to hold
    the answer to its form; without that a model that was stopped thinks on aloud. It needs vLLM with a reasoning parser,
    which the lab's engines have for models that think; elsewhere the engine refuses the request.
    """

    tokens: int
    answer: int | None = None

    def __post_init__(self) -> None:
        if not is_whole(self.tokens, 0) or not (self.answer is None or is_whole(self.answer, 1)):
            raise InvalidValue(
                f"a budget of {self.tokens!r:.40} tokens of thought and {self.answer!r:.40} of answer; use whole numbers, "
                "from 0 for thoughts and from 1 for the answer"
            )

    def over(self, inner: Handler) -> Handler:
        """`inner`, with a budget for its thoughts."""

        def asking(request: Request) -> Request:
            asked = with_extra(request, thinking_token_budget=self.tokens)
            if self.answer is None:
                return asked
            return replace(asked, max_tokens=min(request.max_tokens, self.tokens + self.answer + _MARKS))

        return asked_as(inner, asking, f"thinking={self.tokens}")


@dataclass(frozen=True)
class ThinkFirst(Lever):
    """First a free answer, then the same answer in the form of `form`: two requests, for models that lose by writing a form.

    The free answer streams as reasoning, and what the second request writes is the answer. The second one asks `then` in the
    same conversation, so the engine has its prompt in the cache but for that line. The `Done` has the tokens and the cost of
    both. Where the second request fails, the free answer is delivered as the answer, and the error is on `Done.faults`;
    where it fails in the middle, the free answer stays in the reasoning, and the finish reason is "length".

    A model with thoughts of its own needs no second request: vLLM lets it think freely and holds what follows to the form.
    """

    form: Structured
    then: str = "Give the answer in the form that was asked for, and nothing else."

    def __post_init__(self) -> None:
        if not isinstance(self.form, Structured):
            raise InvalidValue(f"form is {self.form!r:.80}; give a Structured(...)")
        if not isinstance(self.then, str) or not self.then.strip():
            raise InvalidValue(f"then is {self.then!r:.40}; say what the second request asks")

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked twice: freely, and then for the form."""
        formed = self.form.over(inner)
        hop = hops.hop(hops.OUTPUT, "think-first")

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            free, done = "", None
            async with aclosing(inner(keyed(request, "free"))) as events:
                async for event in events:
                    if isinstance(event, Chunk):
                        free += event.text
                        yield replace(event, text="", reasoning=event.reasoning + event.text)
                    else:
                        done = event
            if done is None:
                return
            ended: Done | None = None
            wrote = False
            try:
                async with aclosing(formed(next_turn(request, free, self.then))) as events:
                    async for event in events:
                        if isinstance(event, Chunk):
                            wrote = wrote or bool(event.text)
                            yield replace(event, usage=None)
                        else:
                            ended = event
                if ended is None:
                    raise StreamIncomplete("the answer in its form ended without a Done; it is not whole")
            except Exception as error:  # noqa: BLE001 - the free answer is paid for and must not be lost
                if not wrote:
                    yield Chunk(free, clock.now(), 0)
                done = replace(done, finish_reason="length" if wrote else done.finish_reason)
                yield done.beside(hop, error).via(hop)
                return
            yield both_parts(done, ended).via(hop)

        return handle
