"""The long build of chapter 12: an answer that broke off is gone on with, each piece once, each attempt booked."""
# ruff: noqa: ARG001, ARG002 - stages have one signature, and so have near misses

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from labkit.cost import price_request, self_defined
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    EngineUnreachable,
    Event,
    Handler,
    Message,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
)
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, holds


@dataclass(frozen=True)
class Attempt:
    """One call to the engine, as it is paid for. `whole`: its stream reached its `Done`."""

    whole: bool
    usage: Usage


class GoesOn:
    """A handler over `engine` that goes on with an answer that broke off, at most `times` times."""

    def __init__(self, engine: Handler, times: int) -> None:
        self.booked: list[Attempt] = []
        self._engine, self._times = engine, times

    def rest(self, request: Request, said: str, written: int) -> Request:
        """Stage 1: the request for the rest of an answer of which `said` is there, in `written` tokens."""
        messages = request.messages
        if request.extra.get("continue_final_message"):
            said = messages[-1].content + said
            messages = messages[:-1]
        return replace(
            request,
            messages=(*messages, Message("assistant", said)),
            max_tokens=request.max_tokens - written,
            attempt=request.attempt + 1,
            extra={**request.extra, "continue_final_message": True, "add_generation_prompt": False},
        )

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stages 2 to 4: the events of the whole answer."""
        sent, before, text, going_on = clock.now(), Usage(), "", 0
        while True:
            said, used, whole = "", Usage(), False
            try:
                async with aclosing(self._engine(request)) as events:
                    async for event in events:
                        if isinstance(event, Done):
                            used, whole = event.usage, True
                            timing = replace(event.timing, sent=sent)
                            yield replace(event, usage=before + used, timing=timing)
                            return
                        said += event.text
                        used = event.usage or used + event.counted
                        yield event
                raise StreamIncomplete("the stream ended without a Done")
            except EngineError as error:
                broke = error
            finally:
                self.booked.append(Attempt(whole, used))
            text += said
            before += used
            if used.output_tokens >= request.max_tokens:
                yield Done(before, Timing(sent, done=clock.now()), "length", request.model)
                return
            passes = broke.status is None or broke.status == 429 or broke.status >= 500
            if not text or not passes or going_on == self._times:
                raise broke
            going_on += 1
            request = self.rest(request, said, used.output_tokens)

    def usd(self, price: Any) -> dict[str, float]:
        """Stage 5: the dollars of the "answer", its prompt read once, and of what was read "again" by later attempts."""
        found = {"answer": 0.0, "again": 0.0}
        for number, one in enumerate(self.booked):
            written = price_request(Usage(output_tokens=one.usage.output_tokens), price).total
            read = price_request(replace(one.usage, output_tokens=0), price).total
            found["answer"] += float(written)
            found["again" if number else "answer"] += float(read)
        return found


# --- an engine that breaks off -----------------------------------------------------------------------------------------


@dataclass
class BreaksOff:
    """An engine that answers with `text`, a word a token, and goes on where the prompt's last words stand in it.

    Attempt number i ends behind `ends[i]` words with the error in `errors[i]`, or, where that is None, without any end; the
    attempts behind the list are whole. It goes on from an assistant's turn only where the request has
    `continue_final_message` and no `add_generation_prompt`, as vLLM does; else it begins anew. A prompt's tokens are its
    words; those at its start that an earlier prompt or answer began with come from the cache, where there is one. `asked`
    are the requests it got.
    """

    text: str
    ends: Sequence[int] = ()
    errors: Sequence[EngineError | None] = ()
    cache: bool = True
    running: bool = True  # whether chunks carry the running usage
    asked: list[Request] = field(default_factory=list)
    seen: list[list[str]] = field(default_factory=list)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The stream that answers `request`."""
        number = len(self.asked)
        self.asked.append(request)
        words = self.text.split()
        going_on = request.extra.get("continue_final_message")
        if going_on and request.extra.get("add_generation_prompt", True):
            raise EngineError("continue_final_message and add_generation_prompt exclude one another", 400)
        there = len(request.messages[-1].content.split()) if going_on else 0
        prompt = [word for turn in request.messages for word in turn.content.split()]
        cached = max((_shared(prompt, old) for old in self.seen), default=0) if self.cache else 0
        breaks = number < len(self.ends)
        most = min(request.max_tokens, self.ends[number]) if breaks else request.max_tokens
        said = words[there : there + most]
        self.seen.append(prompt + said)
        sent, usage = clock.now(), Usage(len(prompt), 0, cached)
        for n, word in enumerate(said):
            usage = Usage(len(prompt), n + 1, cached)
            yield Chunk(f"{' ' * bool(there + n)}{word}", clock.now(), usage=usage if self.running else None)
        if breaks:
            error = self.errors[number] if number < len(self.errors) else EngineUnreachable("the connection broke")
            if error is not None:
                raise error
            return
        end = "length" if there + most < len(words) else "stop"
        yield Done(usage, Timing(sent, done=clock.now()), end, "breaks-off")


def _shared(one: list[str], other: list[str]) -> int:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return n


PRICE = self_defined("m", "1", "10", "0.1")  # USD per million tokens: fresh input, output, cached input

_QUESTION = Request(
    (Message("system", "You work at a desk ."), Message("user", "When do you open ?")), max_tokens=20, tenant="a"
)
_TEXT = "We open at nine and close at six on every day but Sunday ."
_WORDS = len(_TEXT.split())


def _made(answer: Any, engine: Handler, times: int) -> Any:
    """The learner's object around this very engine, of which `call` would make a copy."""
    return call(lambda: answer(engine, times))


def _read(made: Any, request: Request = _QUESTION) -> tuple[list[str], list[Done], EngineError | None]:
    """The pieces that a reader gets, the ends, and the error."""

    async def read() -> tuple[list[str], list[Done], EngineError | None]:
        pieces, ends = [], []
        try:
            async with aclosing(made(request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        ends.append(event)
                    else:
                        pieces.append(event.text)
        except EngineError as error:
            return pieces, ends, error
        return pieces, ends, None

    found: tuple[list[str], list[Done], EngineError | None] = call(read)
    return found


def _books(made: Any) -> list[tuple[bool, int, int, int]]:
    return [(a.whole, a.usage.input_tokens, a.usage.cached_tokens, a.usage.output_tokens) for a in made.booked]


# --- the stages --------------------------------------------------------------------------------------------------------


def _the_rest(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def rest(request: Request, said: str, written: int) -> dict[str, Any] | None:
        found = answer(BreaksOff(_TEXT), 2).rest(request, said, written)
        if found is None:
            return None
        return {
            "turns": [(turn.role, turn.content) for turn in found.messages],
            "max_tokens": found.max_tokens,
            "attempt": found.attempt,
            "extra": dict(found.extra),
            "tenant": found.tenant,
        }

    flags = {"continue_final_message": True, "add_generation_prompt": False}
    turns = [("system", "You work at a desk ."), ("user", "When do you open ?")]
    first = {"turns": [*turns, ("assistant", "We open")], "max_tokens": 18, "attempt": 2, "extra": flags, "tenant": "a"}
    yield agree(rest, _QUESTION, "We open", 2, expected=first, why="What came is the beginning of the assistant's turn.")
    salted = replace(_QUESTION, extra={"cache_salt": "s"})
    yield agree(
        rest,
        salted,
        "We",
        1,
        expected={**first, "turns": [*turns, ("assistant", "We")], "max_tokens": 19, "extra": {"cache_salt": "s", **flags}},
        why="The request's other fields stay.",
    )
    again = replace(
        _QUESTION,
        messages=(*_QUESTION.messages, Message("assistant", "We open")),
        max_tokens=18,
        attempt=2,
        extra=flags,
    )
    yield agree(
        rest,
        again,
        " at nine",
        2,
        expected={**first, "turns": [*turns, ("assistant", "We open at nine")], "max_tokens": 16, "attempt": 3},
        why="It broke off a second time: the turn that is there grows, and no second one comes behind it.",
    )
    talked = replace(
        _QUESTION, messages=(Message("user", "Hello"), Message("assistant", "Good day"), Message("user", "When ?"))
    )
    expected = {**first, "max_tokens": 17, "turns": [("user", "Hello"), ("assistant", "Good day"), ("user", "When ?")]}
    expected["turns"] = [*expected["turns"], ("assistant", "At nine o'clock")]  # type: ignore[misc]
    yield agree(rest, talked, "At nine o'clock", 3, expected=expected, why="Earlier turns of the assistant stay alone.")


def _each_piece_once(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    pieces, done, error = _read(_made(answer, BreaksOff(_TEXT), 2))
    yield holds(
        "an answer that ends passes as it is",
        ("".join(pieces), len(done), error) == (_TEXT, 1, None),
        expected=f"{_TEXT!r}, one Done, no error",
        actual=f"{''.join(pieces)!r}, {len(done)} Done, {error!r}",
    )
    for ends in ([3], [1], [_WORDS - 1], [4, 2], [1, 1]):
        engine = BreaksOff(_TEXT, ends)
        pieces, done, error = _read(_made(answer, engine, 2))
        yield holds(
            "the reader gets each piece once",
            ("".join(pieces), len(done), error) == (_TEXT, 1, None),
            given=f"attempts that break off behind {ends} words",
            expected=f"{_TEXT!r}, one Done, no error",
            actual=f"{''.join(pieces)!r}, {len(done)} Done, {error!r}",
        )
        yield holds(
            "one call for each attempt",
            len(engine.asked) == len(ends) + 1,
            given=f"attempts that break off behind {ends} words",
            expected=len(ends) + 1,
            actual=len(engine.asked),
        )
        rooms, left = [], 20
        for end in (*ends, 0):
            rooms.append(left)
            left -= end
        asked = [request.max_tokens for request in engine.asked]
        yield holds("the room that is left", asked == rooms, given=f"max_tokens 20, {ends}", expected=rooms, actual=asked)
    pieces, done, error = _read(_made(answer, BreaksOff(_TEXT, [5], [None]), 1))
    yield holds(
        "a stream that just ends, without a Done, broke off as well",
        ("".join(pieces), len(done), error) == (_TEXT, 1, None),
        expected=_TEXT,
        actual=f"{''.join(pieces)!r}, {len(done)} Done, {error!r}",
    )


def _where_it_helps(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def tried(ends: list[int], errors: list[EngineError | None], times: int, most: int = 20) -> dict[str, Any]:
        engine = BreaksOff(_TEXT, ends, errors)
        made = _made(answer, engine, times)
        pieces, done, error = _read(made, replace(_QUESTION, max_tokens=most))
        return {
            "words": len("".join(pieces).split()),
            "end": done[0].finish_reason if done else "none",
            "error": "" if error is None else str(error),
            "calls": len(engine.asked),
        }

    def said(words: int, end: str, error: str, calls: int) -> dict[str, Any]:
        return {"words": words, "end": end, "error": error, "calls": calls}

    gone, busy, bad = EngineUnreachable("gone"), EngineError("busy", 429), EngineError("no such model", 404)
    down, last = EngineError("down", 500), EngineError("refused", 499)
    for given, expected, why in (
        (([0], [gone], 2), said(0, "none", "gone", 1), "Nothing has come: that is a retry's affair. Raise the error."),
        (([3], [bad], 2), said(3, "none", "no such model", 1), "A 404 will be a 404 again."),
        (([3], [last], 2), said(3, "none", "refused", 1), "499 is below 500."),
        (([3], [busy], 2), said(_WORDS, "stop", "", 2), "A 429 passes."),
        (([3], [down], 2), said(_WORDS, "stop", "", 2), "A 500 may pass."),
        (([3], [gone], 0), said(3, "none", "gone", 1), "`times` is 0: it may not be gone on with."),
        (([3, 2], [gone, busy], 1), said(5, "none", "busy", 2), "Gone on with once, it broke off again: the last error."),
        (([3, 2], [gone, busy], 2), said(_WORDS, "stop", "", 3), "It may be gone on with twice."),
        (([3, 2, 1], [gone, gone, busy], 2), said(6, "none", "busy", 3), "Three times it broke off, and two are allowed."),
        (([3, 0], [gone, busy], 2), said(_WORDS, "stop", "", 3), "An attempt that brings nothing counts, and is no end."),
        (([3, 0, 2], [gone, busy, gone], 3), said(_WORDS, "stop", "", 4), "What came before an empty attempt is not lost."),
        (([3, 0], [gone, bad], 2), said(3, "none", "no such model", 2), "The second attempt's error would not pass."),
        (([9], [gone], 2, 6), said(6, "length", "", 1), "All six tokens are there: end it with “length”, ask nobody."),
        (([4, 2], [gone, bad], 2, 6), said(6, "length", "", 2), "All six are there after two attempts."),
        (([5], [gone], 2, 6), said(6, "length", "", 2), "One token is missing: it is asked for."),
        (([6], [bad], 0, 6), said(6, "length", "", 1), "Whatever the error: nothing is missing."),
    ):
        yield agree(tried, *given, expected=expected, why=why)


def _one_end(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    n = len([word for turn in _QUESTION.messages for word in turn.content.split()])
    made = _made(answer, BreaksOff(_TEXT, [3, 4]), 2)
    _, (done,), _ = _read(made)
    books = [(False, n, 0, 3), (False, n + 3, n + 3, 4), (True, n + 7, n + 7, _WORDS - 7)]
    yield holds("each attempt is booked with its own usage", _books(made) == books, expected=books, actual=_books(made))
    total = Usage(3 * n + 10, _WORDS, 2 * n + 10)
    yield holds(
        "the Done has the tokens of all attempts", done.usage == total, expected=total, actual=done.usage,
        given="an answer in three attempts",
    )  # fmt: skip
    made = _made(answer, BreaksOff(_TEXT, [3], running=False), 2)
    _read(made)
    books = [(False, 0, 0, 3), (True, n + 3, n + 3, _WORDS - 3)]
    yield holds(
        "without a running count, the tokens that came are counted",
        _books(made) == books,
        expected=books,
        actual=_books(made),
        why="Its input is unknown, so it is 0 here; a ledger would say that it does not know.",
    )
    made = _made(answer, BreaksOff(_TEXT, [20]), 2)
    _, ends, _ = _read(made, replace(_QUESTION, max_tokens=5))
    yield holds(
        "an answer that is ended here has its usage and its time, too",
        [end.usage for end in ends] == [Usage(n, 5)]
        and _books(made) == [(False, n, 0, 5)]
        and all(end.timing.done is not None for end in ends),
        given="max_tokens 5, broken off behind the fifth",
        expected=f"{Usage(n, 5)}, and `timing` with sent and done",
        actual=[(end.usage, end.timing) for end in ends],
    )

    async def leaves(engine: BreaksOff, after: int) -> list[Attempt]:
        made = answer(engine, 2)
        async with aclosing(made(_QUESTION)) as events:
            async for _ in events:
                after -= 1
                if not after:
                    break
        return list(made.booked)

    booked = call(lambda: leaves(BreaksOff(_TEXT, [3]), 5))
    expected = [Attempt(False, Usage(n, 3)), Attempt(False, Usage(n + 3, 2, n + 3))]
    yield holds("who leaves is booked as well", booked == expected, given="5 pieces", expected=expected, actual=booked)

    async def first_sent() -> bool:
        engine = _Timed(_TEXT, [2])
        made = answer(engine, 1)
        async with aclosing(made(_QUESTION)) as events:
            sent = [event.timing.sent async for event in events if isinstance(event, Done)]
        return sent[0] <= engine.asked_at[0] < engine.asked_at[1]

    yield holds(
        "the wait counts from the first attempt",
        call(first_sent),
        expected="`timing.sent` is when the first attempt was sent",
        actual="a later time",
    )


@dataclass
class _Timed(BreaksOff):
    """Keeps the times at which it was asked, and waits a little before it answers."""

    asked_at: list[float] = field(default_factory=list)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        self.asked_at.append(clock.now())
        await clock.sleep_until(clock.now() + 0.002)
        async for event in super().__call__(request):
            yield event


def _the_bill(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def bill(attempts: Sequence[tuple[bool, Usage]]) -> dict[str, float]:
        made = answer(BreaksOff(_TEXT), 2)
        made.booked.extend(Attempt(*one) for one in attempts)
        found: dict[str, float] = made.usd(PRICE)
        return found

    million = 1_000_000
    yield agree(bill, [], expected={"answer": 0.0, "again": 0.0}, why="Both are there without an attempt, too.")
    yield agree(
        bill, [(True, Usage(million, million))], expected={"answer": 11.0, "again": 0.0}, why="Nothing was read again."
    )
    yield agree(
        bill,
        [(False, Usage(million, million)), (True, Usage(2 * million, million))],
        expected={"answer": 21.0, "again": 2.0},
        why="The second attempt read the prompt and a million tokens of the answer. It wrote a million that were missing.",
    )
    yield agree(
        bill,
        [(False, Usage(million, million)), (True, Usage(2 * million, 0, 2 * million))],
        expected={"answer": 11.0, "again": 0.2},
        why="What a cache found costs a tenth here.",
    )
    for _ in range(10):
        attempts = [
            (rng.random() < 0.5, Usage(rng.randrange(100, 900), rng.randrange(300), rng.randrange(100)))
            for _ in range(rng.randrange(1, 5))
        ]
        reads = [(u.input_tokens - u.cached_tokens + 0.1 * u.cached_tokens) / million for _, u in attempts]
        writes = sum(10 * u.output_tokens / million for _, u in attempts)
        yield agree(bill, attempts, expected={"answer": reads[0] + writes, "again": sum(reads[1:])})


# --- near misses -------------------------------------------------------------------------------------------------------


class _FromTheStart(GoesOn):
    """Sends the same request again: the reader gets the first words twice."""

    def rest(self, request: Request, said: str, written: int) -> Request:
        return replace(request, attempt=request.attempt + 1)


class _AsksToContinue(GoesOn):
    """Asks the model in words to go on, as one would ask a person."""

    def rest(self, request: Request, said: str, written: int) -> Request:
        turns = (*request.messages, Message("assistant", said), Message("user", "Go on."))
        return replace(request, messages=turns, max_tokens=request.max_tokens - written, attempt=request.attempt + 1)


class _AnotherTurn(GoesOn):
    """Puts a second turn of the assistant behind the first."""

    def rest(self, request: Request, said: str, written: int) -> Request:
        bare = {name: value for name, value in request.extra.items() if name != "continue_final_message"}
        return super().rest(replace(request, extra=bare), said, written)


class _AllTheRoom(GoesOn):
    """Gives the rest as much room as the whole had."""

    def rest(self, request: Request, said: str, written: int) -> Request:
        return super().rest(request, said, 0)


class _LastOnly(GoesOn):
    """Books only what ended well."""

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        async for event in super().__call__(request):
            yield event
        self.booked = [one for one in self.booked if one.whole]


class _OwnUsage(GoesOn):
    """Tells of the last attempt's tokens alone."""

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        async for event in super().__call__(request):
            yield replace(event, usage=self._last.usage) if isinstance(event, Done) and self._last else event

    @property
    def _last(self) -> Attempt | None:
        return self.booked[-1] if self.booked else None


class _ReadingIsFree(GoesOn):
    """Bills what was written, and the first prompt."""

    def usd(self, price: Any) -> dict[str, float]:
        return {**super().usd(price), "again": 0.0}


BUILD = Exercise(
    id="12.5",
    title="An answer that goes on",
    minutes=40,
    difficulty=3,
    answer="GoesOn",
    stages=(
        Stage(
            "the request for the rest",
            _the_rest,
            (
                "`replace(request, …)` with five fields: messages, max_tokens, attempt and extra change, all others stay.",
                "Behind the messages comes `Message('assistant', said)`; into `extra` come the two flags.",
                "Where the request already goes on (`continue_final_message`), its last message is the beginning of the "
                "answer: put `said` behind that, and drop the old one.",
            ),
        ),
        Stage(
            "each piece once",
            _each_piece_once,
            (
                "A loop of attempts: read the engine's stream, hand each event on, and remember the text and the tokens.",
                "`async with aclosing(self._engine(request)) as events:` closes the stream, whatever happens in it.",
                "After the stream, without a `Done`: `raise StreamIncomplete(…)` inside the `try`, and catch `EngineError`.",
            ),
        ),
        Stage(
            "only where it helps",
            _where_it_helps,
            (
                "Count how often you went on. The error of the last attempt is the one to raise.",
                "Nothing said yet, in any attempt: raise. A status that will not pass: raise.",
                "First of all: are all tokens there? Then yield a `Done` with “length”, whatever the error was.",
            ),
        ),
        Stage(
            "one end for all attempts",
            _one_end,
            (
                "Book in a `finally`: readers leave, too, and their tokens are paid for.",
                "`event.usage or used + event.counted`: the running count where there is one, else the chunk's own tokens.",
                "`replace(done, usage=before + used, timing=replace(done.timing, sent=sent))`.",
            ),
        ),
        Stage(
            "what it cost",
            _the_bill,
            (
                "Every output token is new, so all of them belong to the answer; so does the first attempt's input.",
                "`price_request(replace(usage, output_tokens=0, reasoning_tokens=0), price).total` is what reading cost.",
            ),
        ),
    ),
    reference=GoesOn,
    wrong=(_FromTheStart, _AsksToContinue, _AnotherTurn, _AllTheRoom, _LastOnly, _OwnUsage, _ReadingIsFree),
    limit_s=20.0,
    equivalent={
        "line 38: StreamIncomplete('the stream ended without a Done') -> StreamIncomplete('')": "the words of a message",
        "line 49: going_on == self._times -> going_on >= self._times": "it counts up by one",
    },
)
