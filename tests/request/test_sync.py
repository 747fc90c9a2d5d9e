"""The synchronous door: what asyncio gives is what plain code gets, and nothing goes on when it has left."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    DoorClosed,
    EngineError,
    InvalidRequest,
    InvalidValue,
    LabError,
    Request,
    StreamIncomplete,
    Synchronous,
    Timing,
    Usage,
    clock,
    complete,
    stack,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def quick(**settings):
    return ScriptedEngine(gap_s=0.0, **settings)


class Hanging:
    """An engine that says one word and then nothing more, ever."""

    def __init__(self):
        self.asked, self.closed = 0, threading.Event()

    async def __call__(self, request):
        self.asked += 1
        try:
            yield Chunk("a ", clock.now())
            await asyncio.Event().wait()
        finally:
            self.closed.set()


@pytest.mark.parametrize("request_", ["hi", Request("hi", max_tokens=2)])
def test_an_answer_is_the_one_that_asyncio_gives(request_):
    with Synchronous(quick()) as ask:
        answer = ask(request_)
        events = list(ask.stream(request_))
    whole = asyncio.run(complete(quick(), request_ if isinstance(request_, Request) else Request(request_)))
    assert (answer.text, answer.done.usage) == (whole.text, whole.done.usage)
    assert [type(event) for event in events] == [Chunk] * len(whole.chunks) + [Done]
    assert "".join(event.text for event in events[:-1]) == whole.text


def test_it_works_where_a_loop_runs_already():
    async def cell():
        with Synchronous(quick()) as ask:
            return ask("hi").text, list(ask.stream("hi"))[-1].usage

    assert asyncio.run(cell()) == ("a b c ", Usage(10, 3))


def test_the_engine_is_not_read_further_than_its_events_are_taken():
    given = []

    async def engine(request):
        for word in "abc":
            given.append(word)
            yield Chunk(word, clock.now())
        yield Done(Usage(1, 3), Timing(clock.now()))

    with Synchronous(engine) as ask, closing(ask.stream("q")) as events:
        assert given == []
        for n in (1, 2, 3):
            assert next(events).text == "abc"[n - 1]
            assert len(given) == n


def test_who_leaves_the_loop_over_a_stream_has_closed_the_engine_and_the_books_say_so():
    engine = ScriptedEngine(gap_s=0.01)
    with Ledger(":memory:") as ledger, Synchronous(stack(Booked(ledger, provider="lab"), engine=engine)) as ask:
        for event in ask.stream("q"):
            assert event.text == "a "
            break
        assert (engine.closed, engine.finished) == (1, 0)
        (row,) = ledger.rows()
        assert (row.outcome, row.output_tokens) == ("cancelled", 1)
        assert ask("again").text == "a b c ", "the door serves on"


def test_an_error_in_the_loop_s_body_closes_the_engine_and_is_the_caller_s_own():
    engine = Hanging()
    with Synchronous(engine) as ask:
        with pytest.raises(ZeroDivisionError), closing(ask.stream("q")) as events:
            raise ZeroDivisionError(next(events).text)
        assert engine.closed.is_set()


@pytest.mark.parametrize(
    "error", [KeyError("k"), InvalidValue("no"), EngineError("fell over", status=503), ValueError(), SystemExit(3)]
)
def test_an_error_comes_out_as_it_is_and_the_door_serves_on(error):
    with Synchronous(quick(fail_at=1, error=error)) as ask:
        with pytest.raises(type(error)) as called:
            ask("q")
        taken = []
        with pytest.raises(type(error)) as streamed:
            taken.extend(event.text for event in ask.stream("q"))
        assert called.value is streamed.value is error
        with pytest.raises(type(error)):
            ask("q")


def test_a_stream_that_breaks_off_is_no_whole_answer():
    with Synchronous(quick(without_done=True)) as ask:
        with pytest.raises(StreamIncomplete):
            ask("q")
        assert [event.text for event in ask.stream("q")] == ["a ", "b ", "c "]


def test_an_answer_that_somebody_else_cancelled_is_an_error_of_the_engine_s():
    async def engine(request):
        raise asyncio.CancelledError
        yield

    with Synchronous(engine) as ask:
        with pytest.raises(EngineError, match="cancelled by somebody"):
            ask("q")
        with pytest.raises(EngineError, match="cancelled by somebody"):
            next(ask.stream("q"))


def test_requests_of_several_threads_are_answered_side_by_side():
    together = asyncio.Barrier(8)
    loops = set()

    async def engine(request):
        loops.add(asyncio.get_running_loop())
        await together.wait()  # none gets on before all eight are here
        yield Chunk(request.messages[0].content, clock.now())
        yield Done(Usage(1, 1), Timing(clock.now()))

    def streamed(ask, text):
        return "".join(event.text for event in ask.stream(text) if isinstance(event, Chunk))

    with Synchronous(engine) as ask, ThreadPoolExecutor(8) as threads:
        whole = [threads.submit(ask, f"w{i}") for i in range(4)]
        parts = [threads.submit(streamed, ask, f"s{i}") for i in range(4)]
        assert [future.result().text for future in whole] == [f"w{i}" for i in range(4)]
        assert [future.result() for future in parts] == [f"s{i}" for i in range(4)]
        assert ask._thread.is_alive()
    assert len(loops) == 1


def test_closing_ends_what_other_threads_wait_for_down_to_the_engine():
    engine = Hanging()
    begun = threading.Event()

    def wait(ask):
        events = ask.stream("q")
        next(events)
        begun.set()
        with pytest.raises(DoorClosed, match="closed before the answer was whole"):
            next(events)
        with pytest.raises(DoorClosed):
            ask("q")

    ask = Synchronous(engine)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wait, ask)
        assert begun.wait(10)
        ask.close()
        assert engine.closed.is_set()
        waiting.result()


def test_a_closed_door_says_so():
    ask = Synchronous(quick())
    begun = ask.stream("q")
    next(begun)
    unbegun = ask.stream("q")
    ask.close()
    ask.close()
    for use in (lambda: ask("q"), lambda: ask.stream("q"), lambda: next(unbegun), lambda: next(begun)):
        with pytest.raises(DoorClosed):
            use()
    begun.close()


def test_a_deadline_ends_the_wait_with_what_had_come():
    engine = Hanging()
    with Synchronous(engine) as ask:
        with pytest.raises(DeadlineExceeded) as late:
            ask("q", within_s=0.05)
        assert late.value.partial == "a "
        assert engine.closed.is_set()
        with pytest.raises(DeadlineExceeded):
            list(ask.stream("q", within_s=0.05))
        with pytest.raises(InvalidRequest, match="must lie ahead"):
            ask("q", within_s=-1)


def test_an_interrupted_wait_cancels_the_answer():
    engine = Hanging()
    with Synchronous(engine) as ask:
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ask("q")
        timer.join()
        assert engine.closed.is_set()


def test_what_an_awaitable_brings_lives_and_ends_in_the_door_s_own_loop():
    class Connected:
        def __init__(self):
            self.loops = {asyncio.get_running_loop()}
            self.closed = 0

        async def __call__(self, request):
            self.loops.add(asyncio.get_running_loop())
            yield Done(Usage(), Timing(clock.now()))

        async def aclose(self):
            self.loops.add(asyncio.get_running_loop())
            self.closed += 1

    made = []

    async def connect():
        made.append(Connected())
        return made[0]

    with Synchronous(connect()) as ask:
        ask("q")
        assert made[0].closed == 0
    assert (len(made[0].loops), made[0].closed) == (1, 1)


def test_an_awaitable_that_fails_or_brings_no_handler_is_told_at_once():
    async def fails():
        raise EngineError("nothing listens there")

    async def brings():
        return 3

    with pytest.raises(EngineError, match="nothing listens"):
        Synchronous(fails())
    with pytest.raises(InvalidValue, match="brought 3"):
        Synchronous(brings())
    for wrong in (None, "http://localhost", 3):
        with pytest.raises(InvalidValue, match="a handler is a function"):
            Synchronous(wrong)


def test_a_handler_that_asks_its_own_door_is_told_instead_of_waiting_for_ever():
    async def engine(request):
        door[0]("again")
        yield

    door = []
    with Synchronous(engine) as ask:
        door.append(ask)
        with pytest.raises(LabError, match="would wait for itself"):
            ask("q")


@pytest.mark.parametrize("wrong", [None, 3, ["a", "list"]])
def test_what_is_no_request_is_refused(wrong):
    with Synchronous(quick()) as ask:
        for use in (ask, ask.stream):
            with pytest.raises(InvalidRequest, match="a text or a Request"):
                use(wrong)


def test_an_iterator_that_is_forgotten_is_closed_wherever_it_is_collected():
    engine = Hanging()

    async def collecting(request):
        if request.messages[0].content == "collect":
            gc.collect()  # in the door's own thread, which must not wait for itself
            await asyncio.sleep(0)
            yield Done(Usage(), Timing(clock.now()))
            return
        async for event in engine(request):
            yield event

    with Synchronous(collecting) as ask:
        gc.disable()
        try:
            events = ask.stream("q")
            assert next(events).text == "a "
            ring = [events]
            ring.append(ring)
            del events, ring
            ask("collect")
        finally:
            gc.enable()
        assert engine.closed.wait(10)
