"""Whatever goes wrong in an engine is the lab's error to the levers: raw exceptions, nonsense, its own cancellations."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import httpx
import pytest

from labkit.engines import ScriptedEngine
from labkit.ledger import InvalidRow
from labkit.request import (
    Chunk,
    ContextWindowExceeded,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidRequest,
    LabError,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    hops,
    stack,
    within,
)
from labkit.routing import (
    AllDown,
    Breaker,
    Cascade,
    CircuitOpen,
    Fallback,
    Hedge,
    Route,
    RoutingContext,
    RoutingPolicy,
    Score,
)

Q = Request("q")
TWO = RoutingPolicy("1", ("a", "b"), (0.5,), {"a": ("b",)})
run = clock.run_virtual


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("I will not say")


class Busy(Exception):
    status_code = 400


RAW = [
    KeyError("choices"),
    TypeError("'NoneType' object is not subscriptable"),
    AttributeError("delta"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    OSError(104, "reset"),
    TimeoutError(),
    httpx.ReadError("gone"),
    httpx.DecodingError("bad gzip"),
    httpx.InvalidURL("bad"),
    ExceptionGroup("many", [ValueError("x")]),
    LabError("a recording ran out"),
    Unprintable(),
    asyncio.CancelledError("by the engine's own task group"),
]


def raising(error, after=()):
    async def engine(request):
        for text in after:
            yield Chunk(text, clock.now())
        raise error

    return engine


def calling(error):
    def engine(request):
        raise error

    return engine


async def no_stream(request):
    return "an answer"


def saying(*events):
    async def engine(request):
        for event in events:
            yield event

    return engine


DONE = Done(Usage(1, 1), Timing(0.0))
BROKEN = {
    **{f"{type(error).__name__} first": raising(error) for error in RAW},
    **{f"{type(error).__name__} when called": calling(error) for error in RAW},
    "KeyError after an empty chunk": raising(KeyError("x"), ("",)),
    "no stream": no_stream,
    "no stream at all": lambda request: None,
    "a string": saying("text"),
    "None": saying(None),
    "a chunk of None": saying(Chunk(None, 0.0)),
    "a Done of None": saying(Done(Usage(1, 1), None)),
    "a Done without usage": saying(Done(None, Timing(0.0))),
    "nothing": saying(),
}

CHOOSERS = {
    "fallback": lambda breaker: Fallback(("a", "b"), breaker),
    "hedge": lambda breaker: Hedge(60),
    "route": lambda breaker: Route(TWO, lambda _: Score(1, "small"), RoutingContext(breaker=breaker)),
    "cascade": lambda breaker: Cascade(TWO, lambda *_: Score(1, "fine"), context=RoutingContext(breaker=breaker)),
}


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize("chooser", CHOOSERS.values(), ids=CHOOSERS)
def test_every_chooser_goes_round_an_engine_that_fails_in_any_way(chooser):
    async def main(broken):
        breaker = Breaker(failures=1)
        handler = stack(chooser(breaker), engine={"a": broken, "b": ScriptedEngine(("fine",), gap_s=0)})
        answer = await complete(handler, Q)
        return answer.text, answer.done.model, breaker.state("a")

    state = "closed" if isinstance(chooser(None), Hedge) else "open"
    for name, broken in BROKEN.items():
        assert run(main(broken)) == ("fine", "b", state), name


@pytest.mark.parametrize("error", RAW, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("begun", [(), ("some ",)], ids=["before", "after"])
def test_what_nobody_can_go_round_is_an_engine_error_made_from_the_original(error, begun):
    async def main(handler):
        with pytest.raises(EngineError) as caught:
            await complete(handler, Q)
        return caught.value

    for chooser in (Fallback("a"), Hedge(60)):
        models = {"a": raising(error, begun), "b": raising(error, begun)}
        found = run(main(stack(chooser, engine=models)))
        if isinstance(found, AllDown):
            found = found.errors["b"]
        assert type(error).__name__ in str(found)
        assert found.__cause__ is error


@pytest.mark.parametrize(
    "error", [InvalidRequest("nonsense"), ContextWindowExceeded("too long"), InvalidRow("no such row")], ids=repr
)
def test_the_callers_own_faults_go_through_at_once_and_open_no_circuit(error):
    for name in ("fallback", "hedge", "route"):
        breaker, other = Breaker(failures=1), ScriptedEngine()

        async def main(handler):
            with pytest.raises(type(error)):
                await complete(handler, Q)

        run(main(stack(CHOOSERS[name](breaker), engine={"a": raising(error), "b": other})))
        assert not other.asked
        assert breaker.state("a") == "closed"  # a closed circuit needs no clock


def test_a_deadline_that_a_model_set_by_itself_is_gone_round_and_the_callers_is_not():
    def limited(engine, seconds):
        async def handle(request):
            async with aclosing(engine(within(request, seconds))) as events:
                async for event in events:
                    yield event

        return handle

    for chooser in (Fallback(("a", "b")), Hedge(60), CHOOSERS["cascade"](None)):
        slow, other = ScriptedEngine(("slow",), gap_s=20), ScriptedEngine(("fine",), gap_s=1)
        handler = stack(chooser, engine={"a": limited(slow, 5), "b": other})
        assert run(complete(handler, Q)).text == "fine"
        assert slow.closed == 1

        async def hurried(handler):
            await complete(handler, within(Q, 3))

        with pytest.raises(DeadlineExceeded):
            run(hurried(handler))
        assert len(other.asked) == 1


def test_a_status_that_a_raw_error_carries_is_kept():
    breaker = Breaker(failures=1)
    handler = stack(Fallback("a", breaker), engine={"a": raising(Busy())})
    with pytest.raises(EngineError) as caught:
        run(complete(handler, Q))
    assert caught.value.status == 400
    assert breaker.state("a") == "closed", "a malformed request says nothing of the engine's health"


def test_a_breaker_counts_raw_errors_of_whatever_is_attempted():
    async def main():
        breaker = Breaker(failures=2)
        for error in (KeyError("x"), InvalidRequest("mine"), ZeroDivisionError()):
            with pytest.raises(type(error)), breaker.attempt("m"):
                raise error
        assert breaker.state("m") == "open"

    run(main())


class Waits(EngineError):
    def __init__(self, seconds):
        super().__init__("come back later", status=429)
        self.retry_after_s = seconds


@pytest.mark.parametrize(
    ("waits", "reopens"), [(60, 60), (3, 10), (None, 10), (float("nan"), 10), (-5, 10), ("soon", 10), (float("inf"), 10)]
)
def test_a_circuit_stays_open_as_long_as_the_engine_asked_for_and_no_shorter_than_the_cool_down(waits, reopens):
    engine, breaker = ScriptedEngine(fail_at=0, gap_s=0, error=Waits(waits)), Breaker(failures=1, cool_down_s=10)
    handler = stack(Fallback("m", breaker), engine={"m": engine})

    async def main():
        with pytest.raises(Waits):
            await complete(handler, Q)
        await asyncio.sleep(1)
        with pytest.raises(CircuitOpen) as caught:
            await complete(handler, Q)
        assert caught.value.retry_after_s == reopens - 1
        await asyncio.sleep(reopens - 1.5)
        assert breaker.state("m") == "open"
        await asyncio.sleep(0.5)
        assert breaker.state("m") == "half-open"

    run(main())


def test_an_early_wish_to_be_left_alone_outlasts_later_failures_without_one():
    engine, breaker = ScriptedEngine(fail_at=0, gap_s=0, error=Waits(60)), Breaker(failures=2, cool_down_s=10)
    handler = stack(Fallback("m", breaker), engine={"m": engine})

    async def main():
        for error, pause in ((Waits(60), 5), (EngineError("down", status=500), 54)):
            engine.error = error
            with pytest.raises(EngineError):
                await complete(handler, Q)
            await asyncio.sleep(pause)
        assert breaker.state("m") == "open"
        await asyncio.sleep(1)
        assert breaker.state("m") == "half-open"

    run(main())


@pytest.mark.parametrize(("waits", "told"), [((30, 7), 7), ((30, None), 0), ((None, None), 0)])
def test_all_down_says_when_the_first_of_them_may_be_asked_again(waits, told):
    engines = {name: ScriptedEngine(fail_at=0, error=Waits(seconds)) for name, seconds in zip("ab", waits, strict=True)}
    for chooser in (Fallback(("a", "b")), Hedge(60)):
        with pytest.raises(AllDown) as caught:
            run(complete(stack(chooser, engine=engines), Q))
        assert caught.value.retry_after_s == told


def test_an_engine_that_raises_while_it_is_cancelled_does_not_keep_the_caller():
    asked_next = ScriptedEngine()

    async def stubborn(request):
        try:
            await asyncio.sleep(1000)
            yield Chunk("x", clock.now())
        except asyncio.CancelledError:
            raise KeyError("cleanup") from None

    async def main(handler):
        task = asyncio.create_task(complete(handler, Q))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for chooser in CHOOSERS.values():
        run(main(stack(chooser(None), engine={"a": stubborn, "b": asked_next})))
    assert not asked_next.asked


def test_a_stalled_engine_that_raises_when_it_is_stopped_counts_as_one_that_failed():
    async def stubborn(request):
        try:
            await asyncio.sleep(1000)
            yield Chunk("x", clock.now())
        except asyncio.CancelledError:
            raise KeyError("cleanup") from None

    handler = stack(Fallback(("a", "b"), first_token_s=5), engine={"a": stubborn, "b": ScriptedEngine(("fine",))})
    assert run(complete(handler, Q)).text == "fine"


def route_of(chooser, *names):
    """The hop of an answer that only the last of `names` gives."""
    models = {name: raising(KeyError(name)) for name in names[:-1]} | {names[-1]: ScriptedEngine(("fine",))}
    done = run(complete(stack(chooser(names), engine=models), Q)).done
    (hop,) = done.route
    assert done.model == names[-1]
    return hop


WAYS = {
    hops.FALLBACK: Fallback,
    hops.HEDGE: lambda names: Hedge(60),
    hops.CASCADE: lambda names: Cascade(RoutingPolicy("1", names, (0.5,) * (len(names) - 1)), lambda *_: Score(1, "x")),
}


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("odd", ["a>b", "response-cache", "a|b", 'say "x"', "cascade:x", " ", "ü\n"])
def test_names_of_models_can_hold_anything(kind, odd):
    for names in ((odd, "last"), ("first", odd)):
        assert hops.kinds((route_of(WAYS[kind], *names),)) == (kind,)


@pytest.mark.parametrize("kind", WAYS)
def test_no_two_ways_look_alike_whatever_the_models_are_called(kind):
    ways = [("x", "y", "z"), ("x>y", "z"), ("x", "y>z"), ("x|y", "z"), ("x", "y|z"), ('"x>y"', "z"), ("x|y>y", "z")]
    assert len({route_of(WAYS[kind], *names) for names in ways}) == len(ways)
    between = "|" if kind == hops.HEDGE else ">"
    plain = f"{kind}:{between.join(('x', 'y', 'z'))}" + (">z" if kind == hops.HEDGE else "")
    assert route_of(WAYS[kind], "x", "y", "z") == plain
