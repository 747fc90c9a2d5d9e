"""Chapter 01: where the money goes."""
# ruff: noqa: ARG005 - near misses and references keep the signature they share

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from decimal import Decimal

from labkit.request import Chunk, Done, Event, Handler, Message, Request, Timing, Usage, clock, complete
from labkit.workbook.chapters import Chapter
from labkit.workbook.chapters.builds import b01
from labkit.workbook.chapters.q01 import BANK, QUIZZES
from labkit.workbook.exercise import Exercise, Outcome, agree, call, equals, holds

_MTOK = Decimal(1_000_000)


def bill(usage: Usage, rates: Mapping[str, Decimal]) -> Decimal:
    """Cost of one request in dollars. `rates` are dollars per million tokens: input, cached, cache_write, output."""
    return (
        usage.fresh_input_tokens * rates["input"]
        + usage.cached_tokens * rates["cached"]
        + usage.cache_write_tokens * rates["cache_write"]
        + usage.output_tokens * rates["output"]
    ) / 1_000_000


def _check_bill(answer: Callable[..., Decimal], rng: random.Random) -> Iterator[Outcome]:
    one = {name: _MTOK for name in ("input", "cached", "cache_write", "output")}
    yield agree(
        answer, Usage(100, 20, 60, 10, 5), one, expected=Decimal(120), why="At a dollar a token, every token counts once."
    )
    for _ in range(20):
        parts = {name: rng.randrange(1, 5_000) for name in ("input", "cached", "cache_write", "output")}
        rates = {name: Decimal(rng.randrange(1, 3_000)) / 100 for name in parts}
        usage = Usage(
            parts["input"] + parts["cached"] + parts["cache_write"],
            parts["output"],
            parts["cached"],
            parts["cache_write"],
            rng.randrange(parts["output"]),
        )
        yield agree(answer, usage, rates, expected=sum((parts[n] * rates[n] for n in parts), Decimal(0)) / _MTOK)


def cheapest(trials: Mapping[str, Sequence[tuple[str, Decimal, bool]]], wrong_usd: Decimal) -> str:
    """The model with the smallest cost per case, wrong answers included."""

    def per_case(model: str) -> Decimal:
        attempts = trials[model]
        cases = {case for case, _, _ in attempts}
        solved = {case for case, _, worked in attempts if worked}
        paid = sum((usd for _, usd, _ in attempts), Decimal(0))
        return (paid + wrong_usd * len(cases - solved)) / len(cases)

    return min(trials, key=per_case)


_Attempts = list[tuple[str, Decimal, bool]]


def _check_cheapest(answer: Callable[..., str], rng: random.Random) -> Iterator[Outcome]:
    cent, free = Decimal("0.01"), Decimal(0)
    steady: _Attempts = [("a", 5 * cent, True), ("b", 5 * cent, True)]
    retried: _Attempts = [("a", 3 * cent, False), ("a", 3 * cent, True), ("b", 3 * cent, False), ("b", 3 * cent, True)]
    yield agree(
        answer,
        {"retried": retried, "steady": steady},
        free,
        expected="steady",
        why="3 cents a call, and two calls a case, are 6 cents a case.",
    )
    many = [(f"case {n}", 4 * cent, True) for n in range(9)]
    yield agree(
        answer,
        {"steady": steady, "many": many},
        free,
        expected="many",
        why="More cases cost more in all, and less for each.",
    )
    failing: _Attempts = [("a", cent, True), ("b", cent, False)]
    for usd, expected in ((7 * cent, "failing"), (9 * cent, "steady")):
        yield agree(
            answer,
            {"steady": steady, "failing": failing},
            usd,
            expected=expected,
            why="One of two cases is left unsolved: half a wrong answer a case, on top of a cent.",
        )
    twice: _Attempts = [("a", cent, True), ("a", cent, True), ("b", 9 * cent, True)]
    yield agree(
        answer,
        {"steady": steady, "twice": twice},
        free,
        expected="steady",
        why="A case that worked twice is still one case.",
    )
    once: _Attempts = [("a", cent, False), ("a", cent, True), ("a", cent, False)]
    yield agree(
        answer, {"steady": steady, "once": once}, Decimal(1), expected="once", why="One attempt that worked solves its case."
    )
    for _ in range(25):
        # Built from the cost per case that each model shall have, so that nothing is computed as the answer does it.
        wrong = Decimal(rng.randrange(10, 40))
        goals = dict(zip(("north", "east", "south", "west"), rng.sample(range(60, 200), 4), strict=True))
        trials = {name: _trial(rng, goal, int(wrong)) for name, goal in goals.items()}
        yield agree(answer, trials, wrong, expected=min(goals, key=lambda name: goals[name]))


def _trial(rng: random.Random, goal: int, wrong: int) -> _Attempts:
    """Attempts that cost `goal` a case, of which some are left unsolved at `wrong` each."""
    attempts: _Attempts = []
    for n in range(rng.randrange(3, 9)):
        solved = rng.random() < 0.6
        left = goal - (0 if solved else wrong)
        parts = sorted(rng.sample(range(1, left), rng.randrange(3)))
        prices = [b - a for a, b in zip([0, *parts], [*parts, left], strict=True)]
        hit = rng.randrange(len(prices))
        attempts += [(f"case {n}", Decimal(usd), solved and i == hit) for i, usd in enumerate(prices)]
    return rng.sample(attempts, len(attempts))


def _per(count: Callable[[Sequence[tuple[str, Decimal, bool]]], int]) -> Callable[..., str]:
    """Near miss: all that was paid, over another count."""
    return lambda trials, wrong_usd: min(
        trials, key=lambda name: sum((usd for _, usd, _ in trials[name]), Decimal(0)) / max(1, count(trials[name]))
    )


def tornado_order(cost: Callable[..., float], base: Mapping[str, float], by: float) -> list[str]:
    """Names of the settings, widest swing first.

    A setting's swing is how much `cost(**settings)` changes when that setting alone moves by ±`by`, a share of its value.
    """

    def width(name: str) -> float:
        low, high = (cost(**{**base, name: base[name] * factor}) for factor in (1 - by, 1 + by))
        return abs(high - low)

    return sorted(base, key=width, reverse=True)


def _stairs(cached: float, seats: float, gigabytes: float) -> float:
    """A cost with steps in it: a fee from 110.5 seats on, and a rebate below 90.5 gigabytes."""
    return 0.2 * cached + (1_000.0 if seats >= 110.5 else 0.0) - (50.0 if gigabytes < 90.5 else 0.0)


def _check_tornado(answer: Callable[..., list[str]], rng: random.Random) -> Iterator[Outcome]:
    yield equals(
        "the order of the settings, where a fee begins at 110.5 seats, a rebate below 90.5 gigabytes, and `by` is 0.1",
        list(call(answer, _stairs, {"cached": 100.0, "seats": 100.0, "gigabytes": 100.0}, 0.1)),
        ["gigabytes", "cached", "seats"],
        why="A share of 0.1 moves 100 down to 90 and up to 110: far enough for the rebate, not for the fee.",
    )
    for _ in range(12):
        # Each setting enters as a power with an exponent of its own, so only the exponents decide the order of the swings.
        names = [f"s{i}" for i in range(5)]
        exponents = dict(zip(names, rng.sample([-4.0, 0.1, 0.5, 1.0, 1.8, 3.0], 5), strict=True))
        base = {name: rng.uniform(0.5, 90) for name in rng.sample(names, 5)}

        def cost(_exponents: dict[str, float] = exponents, **settings: float) -> float:
            product = 1.0
            for name, value in settings.items():
                product *= value ** _exponents[name]
            return product

        expected = sorted(names, key=lambda name: abs(1.1 ** exponents[name] - 0.9 ** exponents[name]), reverse=True)
        yield equals("the order of the settings", list(call(answer, cost, base, 0.1)), expected)


def within_budget(inner: Handler, dollars: Decimal, price: Callable[[Usage], Decimal]) -> Handler:
    """`inner`, but once `dollars` have been spent, requests are refused with a `RuntimeError` before they reach `inner`."""
    spent = Decimal(0)

    async def handle(request: Request) -> AsyncGenerator[Event, None]:
        nonlocal spent
        if spent >= dollars:
            raise RuntimeError(f"{spent} of {dollars} dollars are spent")
        async with aclosing(inner(request)) as events:
            async for event in events:
                if isinstance(event, Done):
                    spent += price(event.usage)
                yield event

    return handle


def _check_budget(answer: Callable[..., Handler], rng: random.Random) -> Iterator[Outcome]:
    reached: list[Usage] = []
    heard: list[Request] = []

    async def engine(request: Request) -> AsyncGenerator[Event, None]:
        usage = Usage(rng.randrange(50, 500), rng.randrange(1, 100))
        reached.append(usage)
        heard.append(request)
        yield Done(usage, Timing(0.0, done=clock.now()))

    def price(usage: Usage) -> Decimal:
        return Decimal(usage.input_tokens + 5 * usage.output_tokens) / 1000

    asked = Request((Message("user", "hello"),), max_tokens=rng.randrange(1, 99), tenant=f"t{rng.randrange(9)}")

    async def spend(lever: Handler, tries: int) -> int:
        refused = 0
        for _ in range(tries):
            try:
                await complete(lever, asked)
            except Exception:  # noqa: BLE001 - any refusal counts; whether it came too early or late is what is checked
                refused += 1
        return refused

    for _ in range(8):
        reached.clear()
        dollars = Decimal(rng.randrange(1, 4))
        refused = clock.run_virtual(spend(call(answer, engine, dollars, price), 12))
        before_last = sum((price(u) for u in reached[:-1]), Decimal(0))
        total = sum((price(u) for u in reached), Decimal(0))
        given = f"a budget of {dollars} dollars and 12 requests"
        yield holds(
            "requests go through while there is money",
            before_last < dollars,
            given=given,
            actual=f"{before_last} were spent",
        )
        yield holds(
            "nothing reaches the engine once the money is spent",
            total >= dollars or len(reached) == 12,
            given=given,
            expected="refusals only after the budget is used up",
            actual=f"refused with {total} spent",
        )
        yield equals(f"refusals and answers add up, given {given}", refused + len(reached), 12)
    yield holds(
        "what goes through is the caller's own request",
        all(request == asked for request in heard),
        given=asked,
        expected="the same at the engine",
        actual=next((request for request in heard if request != asked), ""),
    )
    for paid in (1, 2, 4):
        reached.clear()
        even = call(answer, engine, Decimal(2), lambda _, paid=paid: Decimal(2) / paid)
        clock.run_virtual(spend(even, 9))
        yield equals(
            f"answers for a budget of 2 dollars at {Decimal(2) / paid} each",
            len(reached),
            paid,
            why="When the budget is spent to the cent, nothing is left for one more.",
        )
    first = call(answer, engine, Decimal(1), price)
    clock.run_virtual(spend(first, 12))
    second = call(answer, engine, Decimal(1), price)
    yield equals(
        "each lever has its own purse: refusals of a new one's first request", clock.run_virtual(spend(second, 1)), 0
    )
    yield holds(
        "a refusal is an error",
        clock.run_virtual(_raises(first, asked)),
        given="a caller that reads the stream of a refused request to its end",
        expected="an exception",
        actual="a stream that ends without a word",
        why="A stream that is merely empty looks like an answer that was cut off.",
    )
    yield from _check_stream(answer)


async def _raises(handler: Handler, request: Request) -> bool:
    try:
        async for _ in handler(request):
            pass
    except Exception:  # noqa: BLE001 - any error is a refusal
        return True
    return False


def _check_stream(answer: Callable[..., Handler]) -> Iterator[Outcome]:
    """Whether what a budget lets through arrives whole, as it comes, and ends at the engine when the caller leaves."""
    made: list[Event] = []
    closed: list[bool] = []

    async def engine(request: Request) -> AsyncGenerator[Event, None]:
        try:
            for event in (
                Chunk("Yes, ", clock.now()),
                Chunk("it may.", clock.now()),
                Done(Usage(9, request.max_tokens), Timing(0.0, done=clock.now())),
            ):
                await asyncio.sleep(1)
                made.append(event)
                yield event
        finally:
            closed.append(True)

    asked = Request((Message("user", "hello"),), max_tokens=5)

    async def read() -> list[Event]:
        return [event async for event in call(answer, engine, Decimal(9), lambda usage: Decimal(1))(asked)]

    yield equals("every event arrives as the engine sent it", clock.run_virtual(read()), made)

    async def leave() -> tuple[int, bool]:
        made.clear()
        closed.clear()
        stream = call(answer, engine, Decimal(9), lambda usage: Decimal(1))(asked)
        await anext(stream)
        sent = len(made)
        await stream.aclose()
        return sent, bool(closed)

    sent, ended = clock.run_virtual(leave())
    yield equals(
        "events that the engine had sent when the caller got the first",
        sent,
        1,
        why="Hand each event on as it comes: whoever collects them first takes away the first token.",
    )
    yield holds(
        "when the caller leaves, the engine stops at once",
        ended,
        given="a caller that closes the stream after one event",
        why="Hold the inner stream in `async with aclosing(...)`; otherwise the engine goes on writing, and billing.",
    )


async def _last_only(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    async for event in events:
        if isinstance(event, Done):
            yield event


async def _gathered(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    for event in [event async for event in events]:
        yield event


async def _leaky(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    async for event in events:
        yield event


async def _silent(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    try:
        async for event in events:
            yield event
    except RuntimeError:
        return


def _spoilt(
    through: Callable[[AsyncGenerator[Event, None]], AsyncGenerator[Event, None]],
) -> Callable[[Handler, Decimal, Callable[[Usage], Decimal]], Handler]:
    """Near miss: the right budget, whose stream goes `through` something that spoils it."""

    def answer(inner: Handler, dollars: Decimal, price: Callable[[Usage], Decimal]) -> Handler:
        kept = within_budget(inner, dollars, price)
        return lambda request: through(kept(request))

    return answer


CHAPTER = Chapter(
    number="01",
    name="cost_anatomy",
    title="Cost anatomy: where the money goes",
    predictions=("01.json", "01.hidden", "01.ratio"),
    quizzes=QUIZZES,
    bank=BANK,
    claims=("01.output_price",),
    needs=("answers",),
    exercises=(
        Exercise(
            id="01.1",
            title="Price a receipt",
            minutes=5,
            difficulty=1,
            answer="bill",
            check=_check_bill,
            reference=bill,
            hints=(
                "Four prices, four disjoint kinds of token. `usage.fresh_input_tokens` is one of them.",
                "Reasoning is billed as output, and `output_tokens` already includes it.",
                "Prices are per million tokens.",
            ),
            wrong=(
                lambda usage, rates: (
                    (
                        usage.input_tokens * rates["input"]
                        + usage.cached_tokens * rates["cached"]
                        + usage.cache_write_tokens * rates["cache_write"]
                        + usage.output_tokens * rates["output"]
                    )
                    / _MTOK
                ),
                lambda usage, rates: bill(usage, rates) + usage.reasoning_tokens * rates["output"] / _MTOK,
                lambda usage, rates: bill(usage, rates) * 1000,
            ),
        ),
        Exercise(
            id="01.2",
            title="Which model is cheaper?",
            minutes=8,
            difficulty=2,
            answer="cheapest",
            check=_check_cheapest,
            reference=cheapest,
            hints=(
                "Start with one model. Which cases does it have, and which of them are solved? Sets will do.",
                "All of its attempts were paid for, also those that failed, and those of cases that were never solved.",
                "(what was paid + wrong_usd for each unsolved case) / number of cases; then `min(trials, key=…)`.",
            ),
            wrong=(
                _per(len),  # a call, not a case
                _per(lambda attempts: 1),  # the whole trial
                _per(
                    lambda attempts: len({case for case, _, worked in attempts if worked})
                ),  # a solved case, wrong ones for free
                _per(lambda attempts: len({case for case, _, _ in attempts})),  # wrong answers for free
                lambda trials, wrong_usd: cheapest(
                    {name: [one for one in attempts if one[2]] or attempts for name, attempts in trials.items()}, wrong_usd
                ),
            ),
        ),
        Exercise(
            id="01.3",
            title="What moves the bill?",
            minutes=10,
            difficulty=2,
            answer="tornado_order",
            check=_check_tornado,
            reference=tornado_order,
            hints=(
                "For one setting: compute the cost with it lowered and with it raised, everything else as it was.",
                "`cost(**{**base, name: value})` is the cost with one setting changed.",
                "A setting that *lowers* the cost as it rises moves it just as well: take the absolute width.",
            ),
            wrong=(
                lambda cost, base, by: list(base),
                lambda cost, base, by: sorted(
                    base,
                    key=lambda n: cost(**{**base, n: base[n] * (1 + by)}) - cost(**{**base, n: base[n] * (1 - by)}),
                    reverse=True,
                ),
                lambda cost, base, by: tornado_order(cost, base, by)[::-1],
            ),
            equivalent={"line 9: high - low -> low - high": "the width is the absolute value of either"},
        ),
        Exercise(
            id="01.4",
            title="A purse for every tenant",
            minutes=15,
            difficulty=3,
            answer="within_budget",
            check=_check_budget,
            reference=within_budget,
            hints=(
                "Where does the cost of a request become known? On its Done.",
                "Keep the sum in the function that makes the handler, not in the handler: `nonlocal spent`.",
                "Refuse before you call `inner`; an exception is a fine way to refuse.",
            ),
            wrong=(
                lambda inner, dollars, price: inner,
                lambda inner, dollars, price: within_budget(inner, dollars * 2, price),
                lambda inner, dollars, price: within_budget(inner, Decimal(0), price),
                _spoilt(_last_only),
                _spoilt(_gathered),
                _spoilt(_leaky),
                _spoilt(_silent),
            ),
        ),
        b01.BUILD,
    ),
)
