"""Go on with an answer whose engine broke off, on the next engine, from what has arrived.

The reader has seen a part, so the request cannot be sent again: the part would come twice. But a model writes each token
from the prompt and from what it has written before. So another engine that gets both goes on where the first one stopped.
(For a reader whose own connection breaks, while the engine goes on, there is `labkit.streaming.Resumable`.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256

from labkit.cost import Price, price_request
from labkit.output import as_said, both_parts, constrained, going_on, keyed
from labkit.request import (
    Arrived,
    Chunk,
    Done,
    EngineError,
    Event,
    Handler,
    InvalidValue,
    Lever,
    Request,
    StreamIncomplete,
    Usage,
    hops,
    is_whole,
)
from labkit.resilience.retry import cancellations, retryable


class CannotResume(StreamIncomplete):
    """The answer broke off and cannot be gone on with; the message says why, and `__cause__` is the engine's error."""


@dataclass(frozen=True)
class Resume(Lever):
    """Goes on, up to `times` times, with an answer that broke off after its first words. Put it over a `Fallback`.

    What arrived goes to the handler below as the beginning of the model's turn (vLLM's `continue_final_message`), with the
    tokens that are left of `max_tokens` and with the same deadline. The reader gets what follows, and nothing twice. A
    `Fallback` with a `Breaker` below finds a live engine.

    With greedy decoding (temperature 0) on engines with the same model, the bytes are those of an answer that was not
    interrupted; with a temperature, the rest is drawn anew. The engine that goes on reads text, not tokens. So the bytes can
    differ where the tokenizer splits the text otherwise than the model wrote it, where the chat template trims the last
    message, and where the model wrote tokens that are no text (after its end, with `ignore_eos`).

    An answer that breaks off before its first word is not this lever's affair: the error is raised, and a `Retry` may send
    the request again. `CannotResume` is raised where the answer

    - broke off by an error that would not pass on another engine (`retryable`);
    - has pieces of tool calls, or is held to a grammar (`response_format`, `structured_outputs`): these would begin anew;
    - broke off in the model's thoughts, before its first visible word;
    - has been gone on with `times` times already.

    Each attempt is a row in the ledger, with its own tokens and the next `Request.attempt`. The idempotency key of the rest
    is that of the request, with "~rest-" and a digest of the break behind it: neither a provider nor an `Idempotent` below
    may take it for the first attempt come again, or for the rest behind another break. The `Done` has the tokens of all
    attempts, timed from the first one's start. It has no cost, because only the books know that of an attempt without an
    end. The route gets "resume:n" for an answer of n attempts. One that broke off behind its last allowed token is ended
    here, with "length", and nobody is asked.

    It goes on at once and asks no budget: up to `times` + 1 attempts for each request that had begun to be answered.

    Raises `InvalidValue` for `times` below 1.
    """

    times: int = 2

    def __post_init__(self) -> None:
        if not is_whole(self.times, 1):
            raise InvalidValue(f"times is {self.times!r:.40}; allow an answer to be gone on with at least once")

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked to go on where it broke off."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            so_far: Done | None = None  # the attempts that broke off, as if they were one
            text = thoughts = ""
            calls, wrote = False, 0
            asked = request
            before = cancellations()
            for attempt in range(1, self.times + 2):
                arrived, counted = Arrived.now(), 0
                try:
                    async with aclosing(inner(asked)) as events:
                        async for event in events:
                            if isinstance(event, Done):
                                yield event if so_far is None else _resumed(so_far, event, attempt)
                                return
                            arrived.note(event)
                            text, thoughts = text + event.text, thoughts + event.reasoning
                            calls = calls or bool(event.tool_calls)
                            counted += event.counted.output_tokens if event.has_content else 0
                            yield event if so_far is None else _counting_on(so_far, event)
                    raise StreamIncomplete("the stream ended without a Done; the answer is not whole")
                except EngineError as error:
                    if cancellations() > before:  # an engine's error while it is being closed must not keep the caller here
                        raise asyncio.CancelledError from error
                    broke = error
                if not (text or thoughts or calls):
                    raise broke
                ended = _broken(arrived, request.model)
                so_far = ended if so_far is None else both_parts(so_far, ended)
                wrote += max(counted, arrived.usage.output_tokens)  # a cache's answer uses none, and has some
                left = request.max_tokens - wrote
                if text and not calls and left <= 0:
                    yield so_far.via(hops.hop(hops.RESUME, str(attempt)))
                    return
                used_up = f"{self.times} times it was" if attempt > self.times else ""
                why = _why_not(request, broke, text, calls) or used_up
                if why:
                    raise CannotResume(
                        f"the answer broke off after {wrote} tokens ({broke!s:.300}) and was not gone on with: {why}; ask "
                        "again for the whole of it"
                    ) from broke
                asked = _rest(request, as_said(thoughts, text), left, request.attempt + attempt)

        return handle


def _rest(request: Request, said: str, left: int, attempt: int) -> Request:
    """The request for what follows `said`, in at most `left` tokens.

    Its key names both: after another break the rest is another one, and a key stands for one request.
    """
    more = replace(going_on(request, said), max_tokens=left, attempt=attempt)
    return keyed(more, f"rest-{sha256(f'{left} {said}'.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}")


def _why_not(request: Request, error: EngineError, text: str, calls: bool) -> str:
    """Why the answer cannot be gone on with, "" if it can."""
    if not retryable(error):
        return "this failure would not pass on another engine"
    if calls:
        return "it holds a part of a tool call, which would begin anew"
    if constrained(request):
        return "it is held to a grammar, which would begin anew"
    return "" if text else "it had no visible word yet, and thoughts cannot be gone on with"


def _broken(arrived: Arrived, model: str) -> Done:
    """The end that an attempt which broke off would have, had it ended there."""
    note = "" if arrived.source == "running" else "an attempt broke off, and nobody knows what it had read"
    return Done(arrived.usage, arrived.timing(), "length", model, usage_note=note)


def _resumed(so_far: Done, done: Done, attempts: int) -> Done:
    whole = both_parts(so_far, done)
    return replace(whole, booked=done.booked).via(hops.hop(hops.RESUME, str(attempts)))


def _counting_on(so_far: Done, chunk: Chunk) -> Chunk:
    """`chunk` with the running count of all attempts, where all are known."""
    if chunk.usage is None:
        return chunk
    return replace(chunk, usage=None if so_far.usage_note else so_far.usage + chunk.usage)


@dataclass(frozen=True, slots=True)
class ResumeCost:
    """What the received part of an answer costs a second time: read again as input (`resumed`), or written again (`again`).

    In the price's currency. Each includes reading the prompt. What is still to be written costs the same in both ways, and
    is in neither.
    """

    resumed: Decimal
    again: Decimal

    @property
    def saved(self) -> Decimal:
        """What going on saves against starting over; negative where it costs more."""
        return self.again - self.resumed


def resume_cost(prompt: int, received: int, price: Price, cached_share: float = 0.0) -> ResumeCost:
    """The price of going on with an answer of which `received` tokens had arrived, and of starting over.

    `cached_share` (0 to 1) of what is read comes from a prefix cache: 0 on an engine that has never seen the request,
    nearly 1 where the first engine is back with its cache, or shares one. (An engine caches what it writes as well as what
    it reads.) Going on reads `prompt` + `received` tokens; starting over reads `prompt` and writes `received`. So with flat
    rates going on is cheaper whenever an input token is cheaper than an output token, however long the prompt. Raises
    `InvalidValue` for token counts that are not whole numbers from 0 and for a share out of range.
    """
    for name, tokens in (("prompt", prompt), ("received", received)):
        if not is_whole(tokens, 0):
            raise InvalidValue(f"{name} is {tokens!r:.40} tokens; use a whole number from 0")
    if isinstance(cached_share, bool) or not 0 <= cached_share <= 1:
        raise InvalidValue(f"cached_share is {cached_share!r:.40}; it lies from 0 to 1")

    def cost(read: int, written: int) -> Decimal:
        return price_request(Usage(read, written, cached_tokens=int(read * cached_share)), price).total

    return ResumeCost(cost(prompt + received, 0), cost(prompt, received))
