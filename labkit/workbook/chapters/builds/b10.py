"""The long build of chapter 10: a short answer first, the detail on request, every attempt booked, nothing lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from labkit.cost import price_request, self_defined
from labkit.request import Chunk, Done, EngineError, Event, Handler, Message, Request, Timing, Usage, clock
from labkit.workbook.exercise import Exercise, Outcome, Stage, agree, call, holds

BRIEFLY = "Answer briefly."
MORE = "Explain it in detail."


@dataclass(frozen=True)
class Attempt:
    """One call to the engine, as it is paid for. `part`: "short" or "detail"; `outcome`: "whole", "cut" or "failed"."""

    part: str
    outcome: str
    usage: Usage


@dataclass(frozen=True)
class Reply:
    """What the reader is shown. `problem` is empty, or says in words why there is no more than `text`."""

    text: str
    problem: str = ""


class StagedAnswers:
    """A short answer first, the detail on request."""

    def __init__(self, engine: Handler, tries: int) -> None:
        self.booked: list[Attempt] = []
        self._engine, self._tries = engine, tries
        self._asked: dict[str, Request] = {}  # by key: the request for the short answer
        self._shorts: dict[str, asyncio.Task[Reply]] = {}  # by key, running or done
        self._details: dict[str, asyncio.Task[Reply]] = {}

    async def ask(self, request: Request, part: str) -> Reply:
        """Stage 1: the answer to a request, in at most `tries` calls, each of them booked under `part`."""
        longest = ""
        problem = ""
        for _ in range(self._tries):
            text, used, ended = "", Usage(), "failed"
            try:
                async with aclosing(self._engine(request)) as events:
                    async for event in events:
                        if isinstance(event, Done):
                            used = event.usage
                            ended = {"length": "cut"}.get(event.finish_reason, "whole")
                        else:
                            text += event.text
                            used = event.usage or used + event.counted
            except EngineError as error:
                problem = str(error)
            finally:
                self.booked.append(Attempt(part, ended, used))
            if ended == "whole":
                return Reply(text)
            longest = max(longest, text, key=len)
            if ended == "cut":
                problem = f"cut after {request.max_tokens} tokens"
                request = replace(request, max_tokens=2 * request.max_tokens)
        return Reply(longest, problem or "the stream ended without its end")

    async def short(self, key: str, request: Request) -> Reply:
        """Stage 2: the short answer, asked for once for each key."""
        *before, last = request.messages
        asked = replace(request, messages=(*before, replace(last, content=f"{last.content} {BRIEFLY}")))
        asked = self._asked.setdefault(key, asked)
        return await self._once(self._shorts, key, lambda: self.ask(asked, "short"))

    async def more(self, key: str) -> Reply:
        """Stages 3 and 4: the detail, asked for once for each key; in its place the short answer, where it fails."""
        first = await self.short(key, self._asked[key])
        if first.problem:
            return first
        asked = self._asked[key]
        turns = (*asked.messages, Message("assistant", first.text), Message("user", MORE))
        detail = await self._once(self._details, key, lambda: self.ask(replace(asked, messages=turns), "detail"))
        return replace(detail, text=first.text) if detail.problem else detail

    async def _once(self, kept: dict[str, asyncio.Task[Reply]], key: str, ask: Callable[[], Any]) -> Reply:
        """What `ask` gives: one call for all who want the same, kept unless it failed; who leaves stops it for nobody."""
        if key not in kept:
            kept[key] = asyncio.ensure_future(ask())
        reply: Reply = await asyncio.shield(kept[key])
        if reply.problem:
            kept.pop(key, None)
        return reply

    def usd(self, price: Any) -> dict[str, float]:
        """Stage 5: the dollars of "short" and "detail" answers that came whole, and of what was "lost" in all others."""
        found = {"short": 0.0, "detail": 0.0, "lost": 0.0}
        for one in self.booked:
            found[one.part if one.outcome == "whole" else "lost"] += float(price_request(one.usage, price).total)
        return found


# --- an engine that does as it is told ---------------------------------------------------------------------------------


@dataclass
class Scripted:
    """An engine that answers with `texts`, one after another; the last one again and again. A word is a token.

    Of a text that begins with "!", it sends the words behind it and then fails, with the words behind "#" as its message; of
    one that begins with "?", it sends the words, and no `Done`. An answer longer than the request's `max_tokens` is cut. A
    prompt's tokens are its words; those at its start that an earlier prompt began with are read from the cache. `asked` are
    the requests it got.
    """

    texts: Sequence[str] = ("a b c",)
    running: bool = True  # whether chunks carry the running usage
    asked: list[Request] = field(default_factory=list)
    seen: list[list[str]] = field(default_factory=list)

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """The stream that answers `request`."""
        self.asked.append(request)
        said = self.texts[min(len(self.asked), len(self.texts)) - 1]
        fails, breaks = said.startswith("!"), said.startswith("?")
        said, _, why = said.lstrip("!?").partition("#")
        prompt = [word for turn in request.messages for word in turn.content.split()]
        cached = max((_shared(prompt, old) for old in self.seen), default=0)
        self.seen.append(prompt)
        sent, words = clock.now(), said.split()
        for n, word in enumerate(words[: request.max_tokens]):
            await asyncio.sleep(0)
            usage = Usage(len(prompt), n + 1, cached) if self.running else None
            yield Chunk(f"{' ' * bool(n)}{word}", clock.now(), usage=usage)
        if fails:
            raise EngineError(why or "the engine fell over")
        if breaks:
            return
        end = "length" if len(words) > request.max_tokens else "stop"
        yield Done(Usage(len(prompt), min(len(words), request.max_tokens), cached), Timing(sent), end)


def _shared(one: list[str], other: list[str]) -> int:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return n


PRICE = self_defined("m", "1", "10", "0.1")  # USD per million tokens: fresh input, output, cached input

_QUESTION = Request((Message("system", "You work at a desk ."), Message("user", "When do you open ?")), max_tokens=8)


def _made(answer: Any, engine: Handler, tries: int) -> Any:
    """The learner's object around this very engine, of which `call` would make a copy."""
    return call(lambda: answer(engine, tries))


def _books(made: Any) -> list[tuple[str, str, int, int, int]]:
    return [(a.part, a.outcome, a.usage.input_tokens, a.usage.cached_tokens, a.usage.output_tokens) for a in made.booked]


# --- the stages --------------------------------------------------------------------------------------------------------


def _every_attempt(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def asked(texts: Sequence[str], tries: int, most: int, running: bool = True) -> dict[str, Any]:
        engine = Scripted(texts, running)
        made = _made(answer, engine, tries)
        reply = call(made.ask, replace(_QUESTION, max_tokens=most), "short")
        return {
            "text": reply.text,
            "fine": reply.problem == "",
            "books": _books(made),
            "caps": [request.max_tokens for request in engine.asked],
        }

    def said(text: str, fine: bool, books: list[Any], caps: list[int]) -> dict[str, Any]:
        return {"text": text, "fine": fine, "books": [("short", *one) for one in books], "caps": caps}

    n = 11  # words of the question
    for given, expected, why in (
        ((["nine to six"], 2, 8), said("nine to six", True, [("whole", n, 0, 3)], [8]), "One call, one booking."),
        (
            (["a b c d e", "a b c d e"], 2, 3),
            said("a b c d e", True, [("cut", n, 0, 3), ("whole", n, n, 5)], [3, 6]),
            "It was cut at 3 tokens: booked as cut, and asked again with twice as many.",
        ),
        (
            (["a b c d e f g"], 2, 3),
            said("a b c d e f", False, [("cut", n, 0, 3), ("cut", n, n, 6)], [3, 6]),
            "Both calls were cut. The reader gets the longest text, and is told.",
        ),
        (
            (["!a b", "a b c"], 2, 8),
            said("a b c", True, [("failed", n, 0, 2), ("whole", n, n, 3)], [8, 8]),
            "The first call failed after two tokens. They are paid, so they are booked. More room would not help.",
        ),
        (
            (["!a b", "a b c"], 2, 8, False),
            said("a b c", True, [("failed", 0, 0, 2), ("whole", n, n, 3)], [8, 8]),
            "Without a running usage, what has arrived counts: `chunk.counted`.",
        ),
        (
            (["!a b c", "!a"], 2, 8),
            said("a b c", False, [("failed", n, 0, 3), ("failed", n, n, 1)], [8, 8]),
            "Both failed: the longest text, not the last one.",
        ),
        (
            (["!b", "!a b"], 2, 8),
            said("a b", False, [("failed", n, 0, 1), ("failed", n, n, 2)], [8, 8]),
            "The longest text by its length, not by the alphabet.",
        ),
        (
            (["?a b"], 1, 8),
            said("a b", False, [("failed", n, 0, 2)], [8]),
            "A stream that ends without a `Done` has failed, though nothing was raised: say so in `problem`.",
        ),
        (
            (["!"], 1, 8),
            said("", False, [("failed", 0, 0, 0)], [8]),
            "One try is one call; a failed one is booked, too.",
        ),
        (
            (["!a", "!a", "a"], 3, 8),
            said("a", True, [("failed", n, 0, 1), ("failed", n, n, 1), ("whole", n, n, 1)], [8] * 3),
            "Three tries.",
        ),
        (
            (["a b", "a b", "a b"], 3, 1),
            said("a b", True, [("cut", n, 0, 1), ("whole", n, n, 2)], [1, 2]),
            "It stops when the answer is whole.",
        ),
    ):
        yield agree(asked, *given, expected=expected, why=why)
    for problem, texts in (("out of memory", ["!a#out of memory"]), ("4", ["a b c d e f g h"])):
        engine = Scripted(texts)
        reply = call(_made(answer, engine, 1).ask, replace(_QUESTION, max_tokens=4), "detail")
        yield holds(
            "the problem says what happened: the engine's message, or after how many tokens it was cut",
            problem in reply.problem,
            given=texts,
            expected=f"a problem with “{problem}” in it",
            actual=reply,
        )
    made = _made(answer, Scripted(), 2)
    call(made.ask, _QUESTION, "detail")
    yield holds("a booking names its part", _books(made)[0][0] == "detail", expected="detail", actual=_books(made))

    async def left(texts: Sequence[str]) -> list[Any]:
        made = answer(Scripted(texts), 2)
        task = asyncio.ensure_future(made.ask(_QUESTION, "short"))
        for _ in range(4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return _books(made)

    many = " ".join("w" * 8)
    books = call(left, [many])
    yield holds(
        "a call whose reader left is booked as failed, with what had arrived",
        len(books) == 1 and books[0][1] == "failed" and 0 < books[0][4] < 8,
        given="an answer of 8 tokens, cancelled after some of them",
        expected="one booking, failed, with 1 to 7 output tokens",
        actual=books,
    )
    for _ in range(10):
        words = [f"w{i}" for i in range(rng.randrange(1, 20))]
        most, tries = rng.randrange(1, 9), rng.randrange(1, 4)
        rooms = [most * 2**i for i in range(tries)]
        used = [room for room in rooms if all(earlier < len(words) for earlier in rooms[: rooms.index(room)])]
        whole = used[-1] >= len(words)
        books = [
            ("cut" if room < len(words) else "whole", n, n if i else 0, min(room, len(words))) for i, room in enumerate(used)
        ]
        text = " ".join(words[: used[-1]])
        yield agree(asked, [" ".join(words)], tries, most, expected=said(text, whole, books, used))


def _short_first(answer: Any, rng: random.Random) -> Iterator[Outcome]:  # noqa: ARG001
    engine = Scripted(["nine to six"])
    made = _made(answer, engine, 2)
    reply = call(made.short, "k1", _QUESTION)
    yield holds("the short answer comes whole", reply == Reply("nine to six"), expected=Reply("nine to six"), actual=reply)
    turns = [(turn.role, turn.content) for turn in engine.asked[0].messages]
    wanted = [("system", "You work at a desk ."), ("user", f"When do you open ? {BRIEFLY}")]
    yield holds(
        "the wish for brevity stands behind everything that questions share",
        turns == wanted,
        given="a system prompt and a question",
        expected=wanted,
        actual=turns,
        why="In the system prompt it would change the prefix, which then is not found in the cache.",
    )
    yield holds(
        "it is booked as short", _books(made) == [("short", "whole", 13, 0, 3)], expected="short, whole", actual=_books(made)
    )
    again = call(made.short, "k1", _QUESTION)
    yield holds(
        "asked again with the same key, it costs nothing and says the same",
        again == reply and len(engine.asked) == 1,
        given="a second click",
        expected="the same reply, one call",
        actual=f"{again}, {len(engine.asked)} calls",
    )
    call(made.short, "k2", _QUESTION)
    yield holds(
        "another key is another question",
        len(engine.asked) == 2,
        given="the same words with another key",
        expected="2 calls",
        actual=f"{len(engine.asked)} calls",
    )

    async def together(cancel: bool) -> tuple[list[Any], int]:
        engine = Scripted(["nine to six"])
        made = answer(engine, 2)
        tasks = [asyncio.ensure_future(made.short("k", _QUESTION)) for _ in range(3)]
        if cancel:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            tasks[0].cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        return list(replies[1 if cancel else 0 :]), len(engine.asked)

    replies, calls = call(together, False)
    yield holds(
        "three at the same time are one call",
        calls == 1 and replies == [Reply("nine to six")] * 3,
        given="three requests with one key at once",
        expected="one call, three equal replies",
        actual=f"{calls} calls, {replies}",
    )
    replies, calls = call(together, True)
    yield holds(
        "the first one leaves, and the other two get their answer all the same",
        calls == 1 and replies == [Reply("nine to six")] * 2,
        given="three requests with one key, the first is cancelled",
        expected="one call, two replies",
        actual=f"{calls} calls, {replies}",
    )
    engine = Scripted(["!#no room", "!#no room", "nine to six"])
    made = _made(answer, engine, 2)
    replies = [call(made.short, "k", _QUESTION) for _ in range(3)]
    yield holds(
        "a failure is not kept: who asks again is answered, once",
        [bool(reply.problem) for reply in replies] == [True, False, False] and len(engine.asked) == 3,
        given="an engine that fails twice, and then answers",
        expected="a problem, then the answer twice; 3 calls",
        actual=f"{replies}, {len(engine.asked)} calls",
    )


def _detail_on_request(answer: Any, rng: random.Random) -> Iterator[Outcome]:  # noqa: ARG001
    engine = Scripted(["nine to six", "We open at nine and close at six"])
    made = _made(answer, engine, 2)
    call(made.short, "k", _QUESTION)
    detail = call(made.more, "k")
    yield holds(
        "the detail comes whole",
        detail == Reply("We open at nine and close at six"),
        expected=Reply("We open at nine and close at six"),
        actual=detail,
    )
    turns = [(turn.role, turn.content) for turn in engine.asked[1].messages]
    first = [(turn.role, turn.content) for turn in engine.asked[0].messages]
    wanted = [*first, ("assistant", "nine to six"), ("user", MORE)]
    yield holds(
        "the second call begins with all of the first one, so that the cache finds it",
        turns == wanted,
        given="the detail after a short answer",
        expected=wanted,
        actual=turns,
    )
    books = [("short", "whole", 13, 0, 3), ("detail", "whole", 20, 13, 8)]
    yield holds("both are booked, each as its part", _books(made) == books, expected=books, actual=_books(made))
    yield holds(
        "the detail has the request's room",
        engine.asked[1].max_tokens == 8,
        expected="max_tokens 8",
        actual=f"max_tokens {engine.asked[1].max_tokens}",
    )
    again = call(made.more, "k")
    yield holds(
        "asked for again, the detail costs nothing",
        again == detail and len(engine.asked) == 2,
        expected="the same reply, 2 calls",
        actual=f"{again}, {len(engine.asked)} calls",
    )

    async def at_once() -> tuple[list[Any], int]:
        engine = Scripted(["nine to six", "We open at nine ."])
        made = answer(engine, 2)
        short = asyncio.ensure_future(made.short("k", _QUESTION))
        await asyncio.sleep(0)
        replies = await asyncio.gather(made.more("k"), made.more("k"), short)
        return list(replies), len(engine.asked)

    replies, calls = call(at_once)
    expected = [Reply("We open at nine ."), Reply("We open at nine ."), Reply("nine to six")]
    yield holds(
        "the detail wanted twice while the short answer is still being written: two calls",
        (replies, calls) == (expected, 2),
        expected=f"2 calls, {expected}",
        actual=f"{calls} calls, {replies}",
    )
    engine = Scripted(["a b c d e f g h i j"])
    made = _made(answer, engine, 2)
    call(made.short, "k", replace(_QUESTION, max_tokens=5))
    call(made.more, "k")
    rooms = [request.max_tokens for request in engine.asked]
    yield holds(
        "room that a cut short answer was given is not the detail's",
        rooms == [5, 10, 5, 10],
        given="answers of 10 tokens and max_tokens 5",
        expected=[5, 10, 5, 10],
        actual=rooms,
    )


def _nothing_lost(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    engine = Scripted(["nine to six", "!We open#no room", "!We#no room", "We open at nine ."])
    made = _made(answer, engine, 2)
    call(made.short, "k", _QUESTION)
    failed, later, again = (call(made.more, "k") for _ in range(3))
    yield holds(
        "where the detail fails, the short answer stays, with the problem beside it",
        failed.text == "nine to six" and "no room" in failed.problem,
        given="a short answer, then two failures",
        expected="'nine to six', and a problem with “no room” in it",
        actual=failed,
    )
    yield holds(
        "the failure is not kept",
        later == again == Reply("We open at nine .") and len(engine.asked) == 4,
        given="asked for the detail again, twice",
        expected="the detail, 4 calls in all",
        actual=f"{later}, {again}, {len(engine.asked)} calls",
    )
    outcomes = [(part, outcome) for part, outcome, *_ in _books(made)]
    wanted = [("short", "whole"), ("detail", "failed"), ("detail", "failed"), ("detail", "whole")]
    yield holds("every attempt is booked", outcomes == wanted, expected=wanted, actual=outcomes)
    engine = Scripted(["nine to six", "We open at nine and close at six and more"])
    made = _made(answer, engine, 1)
    call(made.short, "k", replace(_QUESTION, max_tokens=4))
    cut = call(made.more, "k")
    yield holds(
        "a detail that was cut is no detail",
        cut.text == "nine to six" and "4" in cut.problem,
        given="one try, and a detail longer than its room",
        expected="'nine to six', and a problem that names the 4 tokens",
        actual=cut,
    )
    engine = Scripted(["!a#no room", "nine to six", "We open at nine ."])
    made = _made(answer, engine, 1)
    call(made.short, "k", _QUESTION)
    reply = call(made.more, "k")
    calls = [len(request.messages) for request in engine.asked]
    yield holds(
        "without a whole short answer, it is asked for first",
        reply == Reply("We open at nine .") and calls == [2, 2, 4],
        given="the short answer failed, and the reader asks for more",
        expected="three calls: short, short, detail",
        actual=f"{reply}, calls with {calls} messages",
    )
    engine = Scripted(["!a#no room"])
    made = _made(answer, engine, 1)
    call(made.short, "k", _QUESTION)
    reply = call(made.more, "k")
    yield holds(
        "where the short answer fails again, no detail is asked for",
        "no room" in reply.problem and len(engine.asked) == 2,
        given="an engine that always fails",
        expected="the problem, and 2 calls",
        actual=f"{reply}, {len(engine.asked)} calls",
    )
    for _ in range(4):
        texts = [rng.choice(("!a b", "a b c", "a b c d e f g h i j k l m n o p q r s")) for _ in range(12)]
        engine, tries = Scripted(texts), rng.randrange(1, 3)
        lab = StagedAnswers(Scripted(texts), tries)
        made = _made(answer, engine, tries)
        for step in range(6):
            key = rng.choice("ab")
            known = key in lab._asked
            mine, its = (
                (call(each.more, key) if known and step % 2 else call(each.short, key, _QUESTION)) for each in (made, lab)
            )
            yield holds(
                "whatever fails, both are told the same",
                (mine.text, bool(mine.problem)) == (its.text, bool(its.problem)) and _books(made) == _books(lab),
                given=f"texts {texts[: len(engine.asked)]}, {tries} tries",
                expected=f"{its}, {_books(lab)}",
                actual=f"{mine}, {_books(made)}",
            )


def _bill(answer: Any, rng: random.Random) -> Iterator[Outcome]:
    def bill(attempts: Sequence[tuple[str, str, Usage]]) -> dict[str, float]:
        made = answer(Scripted(), 2)
        made.booked.extend(Attempt(*one) for one in attempts)
        found: dict[str, float] = made.usd(PRICE)
        return found

    million = 1_000_000
    yield agree(
        bill, [], expected={"short": 0.0, "detail": 0.0, "lost": 0.0}, why="All three are there without a call, too."
    )
    yield agree(
        bill,
        [("short", "whole", Usage(million, million)), ("detail", "whole", Usage(2 * million, million, million))],
        expected={"short": 11.0, "detail": 11.1, "lost": 0.0},
        why="A cached token costs a tenth here; `price_request` knows.",
    )
    yield agree(
        bill,
        [("short", "cut", Usage(million, million)), ("detail", "failed", Usage(million, 0, million))],
        expected={"short": 0.0, "detail": 0.0, "lost": 11.1},
        why="What was cut or failed is paid for nothing, whichever part it was.",
    )
    for _ in range(10):
        attempts = [
            (
                rng.choice(("short", "detail")),
                rng.choice(("whole", "whole", "cut", "failed")),
                Usage(rng.randrange(100, 900), rng.randrange(300), rng.randrange(100)),
            )
            for _ in range(rng.randrange(1, 12))
        ]
        sums = {"short": 0.0, "detail": 0.0, "lost": 0.0}
        for part, outcome, used in attempts:
            fresh = used.input_tokens - used.cached_tokens
            usd = (fresh + 0.1 * used.cached_tokens + 10 * used.output_tokens) / million
            sums[part if outcome == "whole" else "lost"] += usd
        yield agree(bill, attempts, expected=sums)


# --- near misses -------------------------------------------------------------------------------------------------------


class _WholeOnly(StagedAnswers):
    """Books what was delivered."""

    async def ask(self, request: Request, part: str) -> Reply:
        reply = await super().ask(request, part)
        self.booked = [one for one in self.booked if one.outcome == "whole"]
        return reply


class _CutIsFine(StagedAnswers):
    """Takes an answer that was cut for one that ended."""

    async def ask(self, request: Request, part: str) -> Reply:
        return replace(await super().ask(request, part), problem="")


class _InTheSystemPrompt(StagedAnswers):
    """Puts the wish for brevity where styles usually stand, and breaks the prefix."""

    async def short(self, key: str, request: Request) -> Reply:
        first, *rest = request.messages
        turns = (replace(first, content=f"{first.content} {BRIEFLY}"), *rest)
        self._asked.setdefault(key, replace(request, messages=turns))
        return await super().short(key, request)


class _NotShielded(StagedAnswers):
    """Who leaves takes the call with them."""

    async def _once(self, kept: dict[str, asyncio.Task[Reply]], key: str, ask: Callable[[], Any]) -> Reply:
        if key not in kept:
            kept[key] = asyncio.ensure_future(ask())
        reply = await kept[key]
        if reply.problem:
            kept.pop(key, None)
        return reply


class _KeepsFailures(StagedAnswers):
    """Remembers a failure as if it were an answer."""

    async def _once(self, kept: dict[str, asyncio.Task[Reply]], key: str, ask: Callable[[], Any]) -> Reply:
        if key not in kept:
            kept[key] = asyncio.ensure_future(ask())
        return await asyncio.shield(kept[key])


class _AsksAnew(StagedAnswers):
    """Asks for the detail as a new question, of which the cache knows nothing new."""

    async def more(self, key: str) -> Reply:
        asked = self._asked[key]
        *before, last = asked.messages
        turns = (*before, replace(last, content=f"{last.content.removesuffix(BRIEFLY)}{MORE}"))
        return await self._once(self._details, key, lambda: self.ask(replace(asked, messages=turns), "detail"))


class _LosesTheFirst(StagedAnswers):
    """Shows the wreck of the detail in place of the answer that there was."""

    async def more(self, key: str) -> Reply:
        kept, asked = await super().more(key), self._asked[key]
        return replace(kept, text="") if kept.problem and asked else kept


BUILD = Exercise(
    id="10.5",
    title="A staged answer that loses nothing",
    minutes=45,
    difficulty=3,
    answer="StagedAnswers",
    stages=(
        Stage(
            "every attempt is booked",
            _every_attempt,
            (
                "For each try: start with `text, used, ended = '', Usage(), 'failed'`, and let the stream make them better.",
                "A chunk's `usage` is the running count, if it has one; else add `chunk.counted` to what there was.",
                "Book in a `finally`: a call is paid for whether it ends, fails, or its reader leaves.",
                "A cut answer is asked again with twice its `max_tokens`. After the last try, the longest text is shown.",
            ),
        ),
        Stage(
            "short first, once for each key",
            _short_first,
            (
                "`*before, last = request.messages`; only the last message gets the wish for brevity.",
                "Keep one `asyncio.Task` for each key. Whoever comes finds it there, running or done.",
                "`await asyncio.shield(task)`: the caller may be cancelled, the task goes on. Forget a task whose reply "
                "has a problem.",
            ),
        ),
        Stage(
            "the detail on request",
            _detail_on_request,
            (
                "Remember the very request that the short answer was asked with: the second call begins with its messages.",
                "Behind them come the short answer, as the assistant's turn, and `MORE`, as the user's.",
                "`more` may be called while the short answer is being written: await that first, by the same task.",
            ),
        ),
        Stage(
            "a failure loses nothing",
            _nothing_lost,
            (
                "A detail with a problem is shown as the short answer with it: `replace(detail, text=first.text)`.",
                "Where the short answer itself failed, ask for it again first. If it fails again, stop there.",
            ),
        ),
        Stage(
            "the bill by part",
            _bill,
            (
                "`price_request(usage, price).total` prices one attempt, cached tokens and all.",
                "Only what came whole counts for its part; everything else is lost.",
            ),
        ),
    ),
    reference=StagedAnswers,
    wrong=(_WholeOnly, _CutIsFine, _InTheSystemPrompt, _NotShielded, _KeepsFailures, _AsksAnew, _LosesTheFirst),
    limit_s=20.0,
    equivalent={
        "line 30: ended == 'whole' -> ended >= 'whole'": "of the three outcomes it is the last in the alphabet",
        "line 33: ended == 'cut' -> ended <= 'cut'": "of the three outcomes it is the first in the alphabet",
        "line 68: one.outcome == 'whole' -> one.outcome >= 'whole'": "of the three outcomes it is the last in the alphabet",
    },
)
