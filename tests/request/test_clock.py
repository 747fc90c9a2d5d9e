import asyncio
import heapq
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.request import clock
from labkit.request.clock import VirtualClockStuck, run_virtual


@given(st.lists(st.lists(st.floats(0, 1e4, allow_nan=False), min_size=1, max_size=6), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_sleeps_end_at_their_exact_times_in_the_order_a_heap_gives(plans):
    async def main():
        log = []

        async def sleeper(name, sleeps):
            for seconds in sleeps:
                await asyncio.sleep(seconds)
                log.append((clock.now(), name))

        await asyncio.gather(*(sleeper(name, sleeps) for name, sleeps in enumerate(plans)))
        return log

    heap = [(sleeps[0], name, 0) for name, sleeps in enumerate(plans)]
    heapq.heapify(heap)
    expected = []
    while heap:
        at, name, step = heapq.heappop(heap)
        expected.append((at, name))
        if step + 1 < len(plans[name]):
            heapq.heappush(heap, (at + plans[name][step + 1], name, step + 1))
    log = run_virtual(main())
    # asyncio fires timers that lie within one clock resolution (1 ns) of each other together; which of them is first is no
    # promise, and the later one then ends that much early. So: the same times up to that, the same names apart from ties.
    tolerance = 1e-6
    assert [at for at, _ in log] == sorted(at for at, _ in log)
    assert [at for at, _ in log] == pytest.approx([at for at, _ in expected], rel=1e-12, abs=tolerance)
    times = [at for at, _ in expected]
    if all(later - earlier > tolerance for earlier, later in pairwise(times)):
        assert [name for _, name in log] == [name for _, name in expected]
    for name in range(len(plans)):
        assert sum(n == name for _, n in log) == len(plans[name])


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30, unique=True))
@settings(deadline=None)
def test_timers_on_whole_seconds_are_exact(seconds):
    async def main():
        async def at(second):
            await asyncio.sleep(second)
            return clock.now()

        return await asyncio.gather(*map(at, seconds))

    assert run_virtual(main()) == seconds


def test_an_hour_of_virtual_time_takes_a_fraction_of_it():
    async def main():
        async def ticking():
            for _ in range(3600):
                await asyncio.sleep(1)

        await asyncio.gather(ticking(), ticking())
        return clock.now()

    started = time.perf_counter()
    virtual = run_virtual(main())
    assert virtual == 3600
    assert virtual / (time.perf_counter() - started) > 100


def test_time_stands_still_while_code_runs():
    async def main():
        before = clock.now()
        time.sleep(0.01)  # noqa: ASYNC251 - blocking is the point
        await asyncio.sleep(0)
        return clock.now() - before

    assert run_virtual(main()) == 0


def test_unix_time_starts_at_the_epoch_given_and_moves_with_virtual_time():
    async def main():
        await asyncio.sleep(5)
        return clock.unix_now()

    assert run_virtual(main(), epoch=1_000_000.0) == 1_000_005.0


def test_unix_time_on_the_wall_clock_is_the_machines():
    async def main():
        return clock.unix_now()

    before = time.time()
    assert before <= asyncio.run(main()) <= time.time()


def test_a_simulation_runs_inside_a_running_loop_as_in_a_notebook():
    async def simulated():
        await asyncio.sleep(3600)
        return clock.now()

    async def notebook_cell():
        return run_virtual(simulated())

    assert asyncio.run(notebook_cell()) == 3600


def test_an_error_inside_a_running_loop_reaches_the_caller_as_itself():
    async def failing():
        await asyncio.sleep(1)
        raise KeyError("mine")

    async def notebook_cell():
        return run_virtual(failing())

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(notebook_cell())


def test_an_error_keeps_its_own_context():
    async def failing():
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904 - the implicit context is what is looked at

    with pytest.raises(ValueError, match="second") as caught:
        run_virtual(failing())
    assert isinstance(caught.value.__context__, KeyError)


def test_simulations_nest_and_run_beside_each_other():
    async def inner():
        await asyncio.sleep(7)
        return clock.now()

    async def outer():
        await asyncio.sleep(3)
        return run_virtual(inner()), clock.now()

    results = []
    threads = [threading.Thread(target=lambda: results.append(run_virtual(outer()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(7, 3)] * 4


def test_a_deadlock_is_reported_rather_than_waited_for():
    async def main():
        await asyncio.sleep(2)
        await asyncio.Event().wait()

    with pytest.raises(VirtualClockStuck, match="virtual second 2 "):
        run_virtual(main())


def test_a_queue_between_tasks_works_without_any_timer():
    async def main():
        queue = asyncio.Queue()

        async def producer():
            for i in range(100):
                await queue.put(i)

        task = asyncio.create_task(producer())
        got = [await queue.get() for _ in range(100)]
        await task
        return got, clock.now()

    assert run_virtual(main()) == (list(range(100)), 0)


def test_timeouts_run_on_virtual_time():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.sleep(7200)
        return clock.now()

    assert run_virtual(main()) == 3600


def test_a_short_piece_of_work_in_a_thread_is_waited_for():
    async def main():
        return await asyncio.to_thread(lambda: 42)

    assert run_virtual(main()) == 42
