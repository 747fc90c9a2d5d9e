from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.batching import Batcher, CoalescingWindow, FunctionFailed, Gate, OffPeak, Pool, Pooled, QueueFull
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.latency import LatencyModel
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    InvalidRequest,
    InvalidValue,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    stack,
    within,
)


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 100_000))


@dataclass(frozen=True)
class Call:
    """A request: when it comes, how long it is served, how it ends."""

    pool: str
    at: float
    takes: float
    leaves_after: float | None = None
    fails: bool = False


class Served:
    """An engine with no limit of its own. It notes who is under way and refuses to serve anybody twice."""

    def __init__(self, calls):
        self.calls = calls
        self.begun = {}
        self.under_way = Counter()
        self.on_change = lambda: None

    async def __call__(self, request):
        number = int(request.user)
        assert number not in self.begun, "served twice"
        self.begun[number] = clock.now()
        call = self.calls[number]
        self.under_way[call.pool] += 1
        self.on_change()
        try:
            sent = clock.now()
            await asyncio.sleep(call.takes / 2)
            yield Chunk(f"answer {number}", clock.now())
            await asyncio.sleep(call.takes / 2)
            if call.fails:
                raise EngineError("it fell over")
            yield Done(Usage(1, 1), Timing(sent, sent, clock.now(), clock.now()))
        finally:
            self.under_way[call.pool] -= 1


async def ask(handler, number, call):
    """What became of the call, and when."""
    await asyncio.sleep(call.at)
    request = Request("q", feature=call.pool, user=str(number))
    try:
        answer = await asyncio.wait_for(complete(handler, request), call.leaves_after)
    except (QueueFull, EngineError, TimeoutError) as error:
        return type(error), clock.now()
    assert answer.text == f"answer {number}"
    assert answer.done.timing.sent == pytest.approx(call.at), "the wait counts"
    assert answer.done.timing.e2e == pytest.approx(clock.now() - call.at)
    assert answer.done.route == (f"pool:{call.pool}",)
    return "answered", clock.now()


async def load(handler, calls):
    return await asyncio.gather(*(ask(handler, i, call) for i, call in enumerate(calls)))


POOLS = st.tuples(
    st.builds(Pool, st.just("a"), st.none() | st.integers(2, 4), st.integers(0, 2), st.integers(0, 6), st.integers(-1, 1)),
    st.builds(Pool, st.just("b"), st.none() | st.integers(1, 3), st.integers(0, 1), st.integers(0, 6), st.integers(0, 4)),
    st.builds(Pool, st.just("c"), st.none() | st.integers(1, 3), st.integers(0, 1), st.integers(0, 6), st.integers(0, 4)),
)
TIMES = st.integers(0, 400).map(lambda n: n / 16)  # exact in binary, so that the oracle adds up to the same instants


def calls(leave=False):
    return st.lists(
        st.builds(
            Call,
            st.sampled_from("abc"),
            TIMES,
            st.integers(2, 90).map(lambda n: n / 8),
            (st.none() | st.integers(1, 200).map(lambda n: n / 16)) if leave else st.none(),
            st.booleans() if leave else st.just(False),
        ),
        max_size=24,
    )


@settings(max_examples=200)
@given(POOLS, st.integers(5, 7), calls(leave=True), st.sampled_from([0.0, 1.0, 30.0]))
def test_nobody_is_lost_or_served_twice_and_no_seat_leaks_or_is_taken_from_whom_it_is_reserved_for(
    pools, seats, calls, priority_s
):
    engine = Served(calls)
    by_name = {pool.name: pool for pool in pools}

    async def main():
        gate = Gate(seats, *pools, priority_s=priority_s)

        def check():
            for pool in pools:
                assert engine.under_way[pool.name] <= gate.under_way(pool.name)
                assert engine.under_way[pool.name] <= (pool.at_most or seats)
                assert gate.waiting(pool.name) <= pool.queue_limit
            assert sum(max(gate.under_way(pool.name), pool.reserved) for pool in pools) <= seats

        engine.on_change = check
        before = asyncio.all_tasks()
        found = await load(Pooled(gate)(engine), calls)
        assert asyncio.all_tasks() == before
        assert [gate.under_way(name) + gate.waiting(name) for name in by_name] == [0, 0, 0]
        return found

    for number, (call, (what, when)) in enumerate(zip(calls, run(main()), strict=True)):
        if what is QueueFull:
            assert when == call.at, "told at once"
            assert number not in engine.begun, "and before anything was sent"
        elif what is TimeoutError:
            assert when == pytest.approx(call.at + call.leaves_after)
        else:
            assert what == (EngineError if call.fails else "answered")


def distinct(calls):
    """`calls` with no two events at the same moment: each length has a binary digit of its own, and so has each arrival."""
    return [
        Call(call.pool, int(call.at) + i * 2.0**-26, int(call.takes) + 1 + 2.0 ** -(5 + i)) for i, call in enumerate(calls)
    ]


def by_search(pools, seats, calls, priority_s):
    """When each call begins, looking at everything after each event; those that are missing were turned away."""
    begin = {}
    waiting, to_come = [], sorted(range(len(calls)), key=lambda i: calls[i].at)

    def end(i):
        return begin[i] + calls[i].takes

    def held(now, extra):
        seated = Counter(calls[i].pool for i in begin if end(i) > now)
        seated[extra] += 1
        fits = all(seated[pool.name] <= (pool.at_most or seats) for pool in pools)
        return sum(max(pool.reserved, seated[pool.name]) for pool in pools) if fits else seats + 1

    priority = {pool.name: pool.priority * priority_s for pool in pools}
    limit = {pool.name: pool.queue_limit for pool in pools}
    now = -1.0
    while to_come or waiting:
        arrival = calls[to_come[0]].at if to_come else float("inf")
        now = min([arrival, *(end(i) for i in begin if end(i) > now)])
        if now == arrival:
            waiting.append(to_come.pop(0))
        while able := [i for i in waiting if held(now, calls[i].pool) <= seats]:
            first = min(able, key=lambda i: calls[i].at + priority[calls[i].pool])
            waiting.remove(first)
            begin[first] = now
        if now == arrival and waiting:
            last = waiting[-1]
            if sum(calls[i].pool == calls[last].pool for i in waiting) > limit[calls[last].pool]:
                waiting.remove(last)
    return begin


@settings(max_examples=200)
@given(POOLS, st.integers(5, 7), calls().map(lambda calls: distinct(calls[:14])), st.sampled_from([0.0, 1.0, 30.0]))
def test_each_begins_when_a_search_of_everybody_says(pools, seats, calls, priority_s):
    engine = Served(calls)

    async def main():
        return await load(Pooled(Gate(seats, *pools, priority_s=priority_s))(engine), calls)

    found = run(main())
    expected = by_search(pools, seats, calls, priority_s)
    assert engine.begun == pytest.approx(expected, abs=1e-6)
    assert {i for i, (what, _) in enumerate(found) if what is QueueFull} == set(range(len(calls))) - set(expected)


@pytest.mark.parametrize("n", [0, 5, 9, 10, 50])
def test_of_a_burst_as_many_are_served_as_have_seats_or_may_wait(n):
    calls = [Call("bulk", 0.0, 1.0)] * n

    async def main():
        gate = Gate(8, Pool("bulk", at_most=3, queue_limit=6), Pool("chat"))
        return await load(Pooled(gate)(Served(calls)), calls)

    found = run(main())
    assert [what for what, _ in found] == ["answered"] * min(n, 9) + [QueueFull] * max(0, n - 9)
    assert [when for _, when in found[9:]] == [0.0] * max(0, n - 9)


def test_a_full_queue_says_what_is_full_and_what_to_do():
    async def main():
        gate = Gate(1, Pool("bulk", queue_limit=0))
        async with gate.seat("bulk"):
            with pytest.raises(QueueFull, match=r"1 requests of pool 'bulk' are under way and 0 wait.*later"):
                async with gate.seat("bulk"):
                    pass

    run(main())


def test_idle_seats_are_lent_but_reserved_ones_are_not():
    async def begun(reserved):
        calls = [Call("bulk", 0.0, 10.0)] * 8 + [Call("chat", 1.0, 10.0)] * 2
        engine = Served(calls)
        gate = Gate(4, Pool("chat", reserved=reserved), Pool("bulk", priority=1), priority_s=5)
        await load(Pooled(gate)(engine), calls)
        return [engine.begun[i] for i in range(10)]

    assert run(begun(0)) == [0, 0, 0, 0, 10, 10, 20, 20, 10, 10], "all four are lent, and then chats go first"
    assert run(begun(2)) == [0, 0, 10, 10, 20, 20, 30, 30, 1, 1], "a wall: chats at once, bulk in half the house"


@settings(max_examples=30)
@given(st.integers(1, 4), st.sampled_from([0.5, 3.0, 10.0]), st.integers(1, 3))
def test_under_an_endless_urgent_flood_a_patient_request_waits_no_longer_than_its_priority_says(seats, priority_s, priority):
    # All seats are taken, and then twice as many urgent ones come as can be served, all the time.
    calls = [Call("bulk", 0.25, 1.0)] + [Call("chat", 0.0, 1.0)] * seats
    calls += [Call("chat", i / (2 * seats), 1.0) for i in range(400)]
    engine = Served(calls)

    async def main():
        gate = Gate(seats, Pool("chat"), Pool("bulk", priority=priority), priority_s=priority_s)
        await load(Pooled(gate)(engine), calls)

    run(main())
    # Those of the first x seconds go before it, and half of them are served in that time.
    assert engine.begun[0] == pytest.approx(2 * (0.25 + priority * priority_s), abs=2)
    assert len(engine.begun) == len(calls)


def test_who_leaves_at_the_very_moment_a_seat_comes_gives_it_on():
    async def main():
        gate = Gate(1, Pool("p"))
        out = asyncio.Event()

        async def hold():
            async with gate.seat("p"):
                await out.wait()

        holder, leaver = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(1)
        heir = asyncio.create_task(hold())
        await asyncio.sleep(1)
        out.set()
        while gate.waiting("p") == 2:  # noqa: ASYNC110 - until the leaver has been given the seat, and has not noticed
            await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait({holder, leaver, heir})
        assert leaver.cancelled()
        assert not heir.cancelled()
        return gate.under_way("p"), gate.waiting("p")

    assert run(main()) == (0, 0)


def test_a_deadline_outside_ends_the_wait_and_a_closed_stream_frees_its_seat():
    calls = [Call("p", 0, 10.0)] * 3

    async def main():
        engine = Served(calls)
        handler = Pooled(Gate(1, Pool("p")))(engine)

        def asked(i):
            return Request("q", feature="p", user=str(i))

        late = asyncio.create_task(complete(handler, within(asked(1), 2.0)))
        async with aclosing(handler(asked(0))) as events:
            assert isinstance(await anext(events), Chunk)
            with pytest.raises(TimeoutError):
                await late
        # The first stream was closed half-way, at second 5.
        answer = await complete(handler, asked(2))
        return answer.done.timing.done, sorted(engine.begun)

    assert run(main()) == (15.0, [0, 2])


def test_the_engine_is_told_the_pool_s_priority_whatever_the_caller_claims():
    seen = []

    async def engine(request):
        seen.append((request.feature, request.priority))
        yield Done(Usage(), Timing(clock.now()))

    async def main():
        handler = Pooled(Gate(2, Pool("chat"), Pool("bulk", priority=10)))(engine)
        for feature in ("chat", "bulk"):
            await complete(handler, Request("q", feature=feature, priority=-99))

    run(main())
    assert seen == [("chat", 0), ("bulk", 10)]


def test_a_batcher_of_embeddings_takes_a_seat_beside_chats():
    calls = [Call("chat", 0.0, 4.0)] * 2
    gate_of = {}

    async def main():
        gate = gate_of["gate"] = Gate(2, Pool("chat"), Pool("embedding", at_most=1))

        async def encode(texts):
            async with gate.seat("embedding"):
                await asyncio.sleep(1)
                return [text.upper() for text in texts]

        async with Batcher(encode, max_size=8, max_wait_s=0.5) as batcher:
            chats = asyncio.create_task(load(Pooled(gate)(Served(calls)), calls))
            vectors = await asyncio.gather(*map(batcher.submit, "abc"))
            when = clock.now()
            await chats
        return vectors, when

    assert run(main()) == (["A", "B", "C"], 5.0), "both seats are taken until second 4"


def test_on_an_engine_that_knows_priorities_chats_pass_a_flood_that_waits_inside():
    latency = LatencyModel(step_s=1.0, sequence_s=0, linear_s=0, weights_s=0, pair_s=0, kv_s=0)

    async def chat_ttft(policy):
        settings = EngineSettings(num_blocks=400, max_num_seqs=2, policy=policy)
        async with ModelledEngine(latency, settings) as engine:
            # More seats than the engine has: the queue is inside the engine, where only its own policy rules.
            handler = Pooled(Gate(100, Pool("chat"), Pool("bulk", priority=10)))(engine)

            def one(feature, i):
                extra = {"prompt_token_ids": [1, 2, 3], "cache_salt": str(i)}
                return complete(handler, Request("q", max_tokens=4, feature=feature, extra=extra))

            flood = [asyncio.create_task(one("bulk", i)) for i in range(20)]
            await asyncio.sleep(0.5)
            answer = await one("chat", "chat")
            await asyncio.gather(*flood)
            return answer.done.timing.ttft

    assert run(chat_ttft("fcfs")) == pytest.approx(10 * 4 + 1 - 0.5)
    assert run(chat_ttft("priority")) == pytest.approx(4 + 1 - 0.5), "as soon as one of the two seats is free"


def test_one_gate_serves_loop_after_loop_on_both_clocks():
    gate = Gate(2, Pool("p"))

    async def engine(request):
        await asyncio.sleep(0.001)
        yield Done(Usage(), Timing(clock.now()))

    async def main():
        handler = Pooled(gate)(engine)
        return len(await asyncio.gather(*(complete(handler, Request("q", feature="p")) for _ in range(9))))

    assert run(main()) == asyncio.run(main()) == run(main()) == 9


def test_an_unknown_pool_is_named_with_those_there_are():
    async def main():
        await complete(Pooled(Gate(1, Pool("chat"), Pool("bulk")))(Served([])), Request("q", feature="caht"))

    with pytest.raises(InvalidRequest, match="no pool 'caht'; this gate has chat, bulk"):
        run(main())


@pytest.mark.parametrize(
    ("which", "error", "says"),
    [
        (lambda request: request.extra["pool"], FunctionFailed, "which raised KeyError"),
        (lambda request: 1 / 0, FunctionFailed, "which raised ZeroDivisionError"),
        (lambda request: ["chat"], InvalidRequest, "no pool"),
        (lambda request: None, InvalidRequest, "no pool None"),
    ],
)
def test_a_pool_that_cannot_be_told_is_said_before_anything_is_sent(which, error, says):
    engine, gate = Served([]), Gate(1, Pool("chat"))
    with pytest.raises(error, match=says):
        run(complete(Pooled(gate, which)(engine), Request("q", feature="chat", user="0")))
    assert (engine.begun, gate.under_way("chat"), gate.waiting("chat")) == ({}, 0, 0)


@pytest.mark.parametrize("wrong", [(8,), (Pool("chat"),), (Gate(1, Pool("chat")), "chat")])
def test_a_lever_without_a_gate_or_a_rule_is_refused_when_it_is_made(wrong):
    with pytest.raises(InvalidValue):
        Pooled(*wrong)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Pool(""), "no name"),
        (lambda: Pool("a", at_most=0), "at_most is 0"),
        (lambda: Pool("a", at_most=2, reserved=3), "reserved is 3 and at_most 2"),
        (lambda: Pool("a", reserved=-1), "reserved is -1"),
        (lambda: Pool("a", queue_limit=-1), "queue_limit is -1"),
        (lambda: Pool(3), "no name, but 3"),
        (lambda: Pool("a", at_most="2"), "at_most is '2'"),
        (lambda: Pool("a", reserved=0.5), "reserved is 0.5"),
        (lambda: Pool("a", queue_limit=None), "queue_limit is None"),
        (lambda: Pool("a", priority="high"), "priority is 'high'"),
        (lambda: Gate("3", Pool("a")), "seats is '3'"),
        (lambda: Gate(3, "chat"), "not 'chat'"),
        (lambda: Gate(3, Pool("a"), priority_s="1"), "priority_s is '1'"),
        (lambda: Gate(3), "one or more"),
        (lambda: Gate(3, Pool("a"), Pool("a")), "name of its own"),
        (lambda: Gate(0, Pool("a")), "of 0 seats"),
        (lambda: Gate(3, Pool("a", reserved=3), Pool("b")), "the others reserve 3, and pool 'b' never gets one"),
        (lambda: Gate(3, Pool("a", reserved=2), Pool("b", reserved=2)), "4 seats are reserved and there are 3"),
        (lambda: Gate(3, Pool("a"), priority_s=float("nan")), "priority_s is nan"),
    ],
)
def test_settings_under_which_somebody_is_never_served_are_refused(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()


def test_a_lever_that_holds_records_nothing_and_what_was_never_sent_is_in_no_books():
    calls = [Call("p", 0, 10.0)] * 3

    async def main(ledger):
        gate = Gate(1, Pool("p", queue_limit=1))
        night = OffPeak(level=9, seats=9, work_s=lambda request: 1.0)
        handler = stack(Booked(ledger, provider="lab"), night, CoalescingWindow(1.0), Pooled(gate), engine=Served(calls))
        requests = [Request("q", feature="p", user=str(i)) for i in range(3)]
        late = [within(request, 5) if request.user == "1" else request for request in requests]
        return await asyncio.gather(*(complete(handler, request) for request in late), return_exceptions=True)

    with Ledger(":memory:") as ledger:
        found = run(main(ledger))
        rows = list(ledger.rows())
    assert [type(what).__name__ for what in found] == ["Completion", "DeadlineExceeded", "QueueFull"]
    assert [(row.outcome, row.user) for row in rows] == [("completed", "0")], "one engine, one attempt"
    assert found[0].done.route == ("coalescing-window", "pool:p")
