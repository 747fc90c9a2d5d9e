from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.batching import FunctionFailed, OffPeak, QueueFull
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidValue,
    Request,
    Timing,
    Usage,
    clock,
    complete,
)

DAY = 1000.0


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 100_000))


@dataclass(frozen=True)
class Call:
    """A request: when it comes, how long it takes, and how much later than that its deadline is; None for a chat."""

    at: float
    takes: float
    slack: float | None = None
    fails: bool = False

    @property
    def deadline(self):
        return None if self.slack is None else self.at + self.takes + self.slack


class Engine:
    """Takes what a call says it takes, whoever else is there, and notes when each began and ended."""

    def __init__(self, calls):
        self.calls = calls
        self.begun, self.ended = {}, {}
        self.most = 0

    @property
    def under_way(self):
        return self.begun.keys() - self.ended.keys()

    async def __call__(self, request):
        number = int(request.user)
        assert number not in self.begun, "served twice"
        self.begun[number] = sent = clock.now()
        self.most = max(self.most, len(self.under_way))
        try:
            await asyncio.sleep(self.calls[number].takes)
            if self.calls[number].fails:
                raise EngineError("it fell over")
            yield Chunk(f"answer {number}", clock.now())
            yield Done(Usage(1, 1), Timing(sent, clock.now(), clock.now(), clock.now()))
        finally:
            self.ended[number] = clock.now()

    def lever(self, level, seats, min_slack_s=0.0, *, deadlines_held=False):
        """In its place; or the lever's own part of it, so that a deadline that it makes others miss is seen as such."""
        work = lambda request: self.calls[int(request.user)].takes  # noqa: E731
        lever = OffPeak(level=level, seats=seats, work_s=work, min_slack_s=min_slack_s)
        return lever(self) if deadlines_held else lever.over(self)


async def ask(handler, number, call, arrived=lambda number: None):
    await clock.sleep_until(call.at)
    arrived(number)
    request = Request("q", user=str(number), deadline=call.deadline)
    try:
        answer = await complete(handler, request)
    except (EngineError, DeadlineExceeded) as error:
        return type(error)
    assert answer.text == f"answer {number}"
    assert answer.done.timing.sent == pytest.approx(call.at), "the hold counts"
    return answer.done.route


async def load(handler, calls, arrived=lambda number: None):
    return await asyncio.gather(*(ask(handler, i, call, arrived) for i, call in enumerate(calls)))


def test_bulk_waits_while_chats_are_there_and_goes_when_they_have_gone():
    calls = [Call(0, 10), Call(1, 10), Call(2, 5, slack=DAY), Call(3, 5, slack=DAY)]
    engine = Engine(calls)
    routes = run(load(engine.lever(level=2, seats=4), calls))
    assert engine.begun == {0: 0, 1: 1, 2: 10, 3: 11}, "with each chat that ends, one more"
    assert routes == [(), (), ("off-peak",), ("off-peak",)]


def test_the_earliest_deadline_goes_first():
    calls = [Call(0, 10)] + [Call(1, 1, slack=slack) for slack in (300, 100, 200)]
    engine = Engine(calls)
    run(load(engine.lever(level=1, seats=1), calls))
    assert [engine.begun[i] for i in (2, 3, 1)] == [10, 11, 12]


def test_valley_or_not_it_goes_when_its_slack_is_used_up_and_others_before_it_are_reckoned_with():
    # Chats without end. Six summaries of 10 s, due at 200, two at a time. The last must begin at 190, and the five before it
    # are 25 s of work for two.
    calls = [Call(0, DAY)] * 3 + [Call(1, 10, slack=189)] * 6
    engine = Engine(calls)
    run(load(engine.lever(level=3, seats=2), calls))
    assert sorted(engine.begun.values())[3:] == pytest.approx([165, 165, 175, 175, 185, 185], abs=0.01)
    # On an engine that nobody else uses, they do not wait.
    calls = calls[3:]
    engine = Engine(calls)
    run(load(engine.lever(level=3, seats=2), calls))
    assert sorted(engine.begun.values()) == [1, 1, 11, 11, 21, 21]


def test_what_has_no_deadline_or_too_little_slack_is_not_held():
    calls = [Call(0, 50)] * 5 + [Call(1, 5, slack=9.9), Call(1, 5, slack=10.1)]
    engine = Engine(calls)
    run(load(engine.lever(level=1, seats=1, min_slack_s=10), calls))
    assert (engine.begun[5], engine.begun[6]) == (1, pytest.approx(11.1, abs=0.01))


CALLS = st.lists(
    st.builds(
        Call,
        st.integers(0, 60).map(float),
        st.integers(1, 20).map(float),
        st.none() | st.integers(1, 150).map(float),
    ),
    max_size=18,
)


def greedy(now, seats, ends, queue):
    """Whether (deadline, work) of `queue` are all met if `seats` work through it from now, earliest deadline first."""
    free = [*ends, *[now] * (seats - len(ends))]
    heapq.heapify(free)
    for deadline, work in sorted(queue):
        end = max(now, heapq.heappop(free)) + work
        if end > deadline + 1e-6:
            return False
        heapq.heappush(free, end)
    return True


@settings(max_examples=300)
@given(CALLS, st.integers(1, 5), st.integers(1, 4))
def test_every_deadline_is_met_that_working_at_once_would_have_met(calls, level, seats):
    engine = Engine(calls)
    could = True

    def arrived(number):
        # What is known at this moment: who works until when, and who is held.
        nonlocal could
        now = clock.now()
        bulk = {i for i, call in enumerate(calls) if call.slack is not None and call.at <= now}
        ends = [engine.begun[i] + calls[i].takes for i in engine.under_way & bulk]
        held = [(calls[i].deadline, calls[i].takes) for i in bulk - engine.begun.keys()]
        could = could and greedy(now, seats, ends, held)

    routes = run(load(engine.lever(level, seats), calls, arrived))
    assert len(engine.begun) == len(engine.ended) == len(routes) == len(calls)
    for i, call in enumerate(calls):
        if call.slack is None:
            assert engine.begun[i] == pytest.approx(call.at), "a chat never waits"
        elif could:
            assert engine.ended[i] <= call.deadline + 0.002


@settings(max_examples=150)
@given(CALLS, st.integers(1, 5), st.integers(1, 4))
def test_below_the_level_nobody_waits_and_above_it_nobody_goes_before_time(calls, level, seats):
    calls = [Call(c.at, c.takes, None if c.slack is None else c.slack + DAY) for c in calls]  # time is never up
    engine = Engine(calls)
    run(load(engine.lever(level, seats), calls))
    moments = sorted({*engine.begun.values(), *engine.ended.values()})
    bulk = [i for i, call in enumerate(calls) if call.slack is not None]
    for begin, end in pairwise(moments):
        if end - begin < 1e-6:
            continue
        middle = (begin + end) / 2
        going = [i for i in range(len(calls)) if engine.begun[i] < middle < engine.ended[i]]
        held = [i for i in bulk if calls[i].at < middle and engine.begun[i] > middle]
        ours = len(set(going) & set(bulk))
        assert ours <= seats
        if held:
            assert len(going) >= level or ours == seats, "there was room"
    for i in bulk:
        before = {j for j in range(len(calls)) if engine.begun[j] < engine.begun[i] < engine.ended[j] - 1e-9}
        assert len(before) < level


@settings(max_examples=150)
@given(
    st.lists(
        st.builds(
            Call,
            st.floats(0, 60),
            st.floats(0.1, 20),
            st.none() | st.floats(0.1, 150),
            st.booleans(),
        ),
        max_size=18,
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.none() | st.floats(0, 80), min_size=18, max_size=18),
)
def test_under_any_load_each_is_answered_once_or_told_why_not(calls, level, seats, leave):
    engine = Engine(calls)

    async def one(handler, i, call):
        try:
            return await asyncio.wait_for(ask(handler, i, call), leave[i])
        except TimeoutError:
            return None

    async def main():
        handler = engine.lever(level, seats, deadlines_held=True)
        before = asyncio.all_tasks()
        found = await asyncio.gather(*(one(handler, i, call) for i, call in enumerate(calls)))
        assert asyncio.all_tasks() == before
        # Nothing is left over: a lone newcomer is not held.
        again = Engine([Call(clock.now(), 1, slack=DAY)])
        engine.calls, engine.begun, engine.ended = again.calls, {}, {}
        await ask(handler, 0, again.calls[0])
        assert engine.begun[0] == again.calls[0].at
        return found

    for call, left, what in zip(calls, leave, run(main()), strict=False):
        if what is DeadlineExceeded:
            assert call.slack is not None
        elif what is EngineError:
            assert call.fails
        elif what is None:
            assert left is not None
        else:
            assert not call.fails
            assert what in ((), ("off-peak",))


def test_a_full_hold_refuses_at_once():
    calls = [Call(0, 50)] + [Call(1, 1, slack=DAY)] * 3
    engine = Engine(calls)

    async def main():
        handler = OffPeak(level=1, seats=1, work_s=lambda request: 1.0, queue_limit=2)(engine)

        async def one(i, call):
            try:
                return await ask(handler, i, call)
            except QueueFull as error:
                assert clock.now() == 1
                return str(error)

        return await asyncio.gather(*(one(i, call) for i, call in enumerate(calls)))

    found = run(main())
    assert sum("2 requests are held" in what for what in found) == 1
    assert found.count(("off-peak",)) == 2


def test_on_the_wall_clock_too_and_in_one_loop_after_another():
    async def engine(request):
        await asyncio.sleep(0.001)
        yield Done(Usage(), Timing(clock.now()))

    handler = OffPeak(level=1, seats=2, work_s=lambda request: 0.001, min_slack_s=0).over(
        engine
    )  # a slow machine must not miss the deadline here

    async def main():
        due = clock.now() + 0.05
        chats = [Request("q") for _ in range(3)]
        held = [Request("q", deadline=due) for _ in range(8)]
        return len(await asyncio.gather(*(complete(handler, r) for r in chats + held)))

    assert asyncio.run(main()) == run(main()) == asyncio.run(main()) == 11


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"level": 0}, "level is 0"),
        ({"seats": 0}, "seats 0"),
        ({"min_slack_s": -1}, "min_slack_s is -1"),
        ({"min_slack_s": float("inf")}, "min_slack_s is inf"),
        ({"queue_limit": 0}, "queue_limit is 0"),
        ({"work_s": 3.0}, "not 3.0"),
        ({"level": float("nan")}, "level is nan"),
        ({"seats": "8"}, "seats '8'"),
        ({"min_slack_s": "60"}, "min_slack_s is '60'"),
        ({"queue_limit": 1.5}, "queue_limit is 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_the_lever_is_made(wrong, says):
    with pytest.raises(InvalidValue, match=says):
        OffPeak(**{"level": 1, "seats": 1, "work_s": lambda request: 1.0, **wrong})


@pytest.mark.parametrize(
    ("work_s", "says"),
    [
        (lambda request: float("nan"), "work_s gave nan"),
        (lambda request: -1.0, "work_s gave -1"),
        (lambda request: request.extra["seconds"], "work_s raised KeyError"),
        (lambda request: "soon", "work_s raised ValueError"),
        (lambda request: None, "work_s raised TypeError"),
    ],
)
def test_an_estimate_that_fails_is_told_before_anything_is_sent_and_is_no_fault_of_the_caller(work_s, says):
    engine = Engine([Call(0, 1)])
    with pytest.raises(FunctionFailed, match=says) as failed:
        run(complete(OffPeak(level=1, seats=1, work_s=work_s)(engine), Request("q", user="0")))
    assert not isinstance(failed.value, InvalidValue)
    assert engine.begun == {}
