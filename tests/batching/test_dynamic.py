from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.batching import Batcher, BatcherClosed, BatchFailed, QueueFull, embed_batcher
from labkit.request import InvalidValue, clock


def run(coroutine):
    return clock.run_virtual(asyncio.wait_for(coroutine, 100_000))


@dataclass
class Doubler:
    """Answers ("r", item) after `base + each × items` seconds, and keeps what it ran when."""

    base: float = 1.0
    each: float = 0.0
    batches: list = field(default_factory=list)

    async def __call__(self, items):
        began = clock.now()
        await asyncio.sleep(self.base + self.each * len(items))
        self.batches.append((began, clock.now(), list(items)))
        return [("r", item) for item in items]

    @property
    def items(self):
        return [item for _, _, items in self.batches for item in items]


async def later(seconds, batcher, item):
    await asyncio.sleep(seconds)
    return await batcher.submit(item)


def test_a_full_batch_starts_at_once_and_a_part_of_one_after_the_wait():
    model = Doubler()

    async def main():
        async with Batcher(model, max_size=3, max_wait_s=5) as batcher:
            return await asyncio.gather(*(later(at, batcher, n) for n, at in enumerate([0, 1, 2, 10, 11, 20])))

    assert run(main()) == [("r", n) for n in range(6)]
    assert [(began, items) for began, _, items in model.batches] == [(2, [0, 1, 2]), (15, [3, 4]), (20 + 5, [5])]


def test_what_comes_while_a_batch_runs_makes_the_next_one_larger():
    model = Doubler(base=10)

    async def main():
        async with Batcher(model, max_size=100, max_wait_s=0) as batcher:
            await asyncio.gather(*(later(0.1 * n, batcher, n) for n in range(50)))

    run(main())
    assert [len(items) for *_, items in model.batches] == [1, 49]


@dataclass(frozen=True)
class Item:
    number: int
    key: int
    tenant: int
    priority: int
    at: float
    leaves_after: float | None


ITEMS = st.lists(
    st.builds(
        Item,
        st.integers(0, 4),
        st.integers(0, 1),
        st.integers(0, 2),
        st.integers(-1, 2),
        st.floats(0, 20),
        st.none() | st.floats(0, 6),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(ITEMS, st.integers(1, 5), st.sampled_from([0.0, 0.5, 3.0]), st.booleans(), st.sampled_from([0.0, 0.7, 4.0]))
def test_nobody_is_lost_answered_wrongly_run_twice_or_left_waiting_while_the_runner_is_free(
    items, max_size, max_wait, shared, base
):
    model = Doubler(base, each=0.1)

    async def main():
        batcher = Batcher(
            model,
            max_size=max_size,
            max_wait_s=max_wait,
            key=lambda item: item.key,
            tenant=lambda item: item.tenant,
            priority=lambda item: item.priority,
            identity=(lambda item: item.number) if shared else None,
        )

        async def one(item):
            await asyncio.sleep(item.at)
            try:
                result = await asyncio.wait_for(batcher.submit(item), item.leaves_after)
            except TimeoutError:
                return None
            return result, clock.now()

        before = asyncio.all_tasks()
        answers = await asyncio.gather(*map(one, items))
        await batcher.aclose()
        assert asyncio.all_tasks() == before, "no task is left behind"
        assert batcher.waiting == 0
        return answers

    answers = run(main())
    ran = Counter(id(item) for item in model.items)
    assert max(ran.values(), default=0) <= 1
    for item, answer in zip(items, answers, strict=True):
        if answer is None:
            assert item.leaves_after is not None
        else:
            (_, of), _ = answer
            assert of is item or (shared and (of.key, of.number) == (item.key, item.number))
        if item.leaves_after is None and not shared:
            assert ran[id(item)] == 1
    ends = [0.0]
    for began, ended, batch in model.batches:
        assert 1 <= len(batch) <= max_size
        assert len({item.key for item in batch}) == 1
        assert began >= ends[-1], "one batch at a time"
        for item in batch:
            waited_enough = max(item.at + max_wait, ends[-1])
            if began > waited_enough + 1e-9:
                # the runner was not free: from when this item was due on, batches ran without a pause
                busy = [(b, e) for b, e, _ in model.batches if b < began and e > item.at + max_wait]
                assert sum(e - max(b, item.at + max_wait) for b, e in busy) == pytest.approx(began - item.at - max_wait)
        ends.append(ended)


def test_a_cancelled_submitter_s_item_is_dropped_before_it_is_run_and_makes_room():
    model = Doubler()

    async def main():
        async with Batcher(model, max_size=2, max_wait_s=5, queue_limit=2) as batcher:
            going = asyncio.create_task(batcher.submit("a"))
            await asyncio.sleep(1)
            going.cancel()
            await asyncio.wait({going})
            assert batcher.waiting == 0
            return await asyncio.gather(batcher.submit("b"), batcher.submit("c"))

    assert run(main()) == [("r", "b"), ("r", "c")]
    assert model.items == ["b", "c"]


def test_identical_items_are_computed_once_while_they_wait_and_while_they_run():
    model = Doubler(base=10)

    async def main():
        async with Batcher(model, max_size=8, max_wait_s=1, identity=str.lower) as batcher:
            tasks = [
                asyncio.create_task(later(at, batcher, item)) for at, item in [(0, "A"), (0.5, "a"), (5, "a"), (5, "b")]
            ]
            await asyncio.sleep(0.7)
            tasks[0].cancel()  # who came first leaves, the twin stays
            await asyncio.wait(tasks)
            again = await batcher.submit("a")  # what was computed before is no cache
            return [task.result() for task in tasks[1:]], again

    assert run(main()) == ([("r", "A"), ("r", "A"), ("r", "b")], ("r", "a"))
    assert model.items == ["A", "b", "a"]


def test_tenants_take_turns_so_a_flood_delays_itself():
    model = Doubler()

    async def main():
        async with Batcher(model, max_size=2, max_wait_s=0, tenant=lambda item: item[0], queue_limit=1000) as batcher:
            flood = [asyncio.create_task(batcher.submit(("loud", n))) for n in range(100)]
            await asyncio.gather(*(batcher.submit(("quiet", n)) for n in range(3)))
            waited = clock.now()
            await asyncio.gather(*flood)
            return waited

    assert run(main()) == 3, "three batches of two, one place in each"
    assert len(model.batches) == 52


def test_a_lower_priority_goes_first_and_waiting_makes_up_for_it():
    model = Doubler()

    async def main():
        async with Batcher(model, max_size=1, max_wait_s=0, priority=lambda item: item[0], priority_s=10) as batcher:
            late = [later(0.5 + n, batcher, (0, n)) for n in range(30)]  # urgent ones, as fast as they can be served
            await asyncio.gather(later(0, batcher, (0, -1)), later(0.1, batcher, (1, "patient")), *late)

    run(main())
    place = model.items.index((1, "patient"))
    # one step of priority is worth 10 s: those that came within 10.1 s go before it, and nobody after them
    assert [item for item in model.items[1:place]] == [(0, n) for n in range(10)]
    assert place == 11


def test_under_endless_urgent_load_of_others_every_item_is_served_in_time():
    model = Doubler()

    async def main():
        batcher = Batcher(
            model, max_size=2, max_wait_s=0, tenant=lambda i: i[0], priority=lambda i: i[1], priority_s=5, key=lambda i: i[2]
        )
        noise = [later(0.25 * n, batcher, (n % 3, 0, n % 2)) for n in range(400)]
        begun = asyncio.create_task(asyncio.wait_for(asyncio.gather(*noise), 10_000))
        patient = asyncio.create_task(later(1, batcher, ("patient", 3, 0)))
        await patient
        waited = clock.now() - 1
        await begun
        return waited

    assert run(main()) < 40


def test_over_the_queue_limit_the_submitter_is_told_at_once():
    async def main():
        async with Batcher(Doubler(), max_size=1, max_wait_s=0, queue_limit=2, identity=str) as batcher:
            taken = [asyncio.create_task(batcher.submit(n)) for n in range(1)]
            await asyncio.sleep(0.1)
            taken += [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
            await asyncio.sleep(0.1)
            with pytest.raises(QueueFull, match="2 items wait"):
                await batcher.submit(3)
            taken.append(asyncio.create_task(batcher.submit(2)))  # a twin takes no place
            return await asyncio.gather(*taken)

    assert run(main()) == [("r", 0), ("r", 1), ("r", 2), ("r", 2)]


def test_of_two_keys_the_one_whose_first_item_has_waited_longer_goes_first():
    model = Doubler(base=10)

    async def main():
        async with Batcher(model, max_size=2, max_wait_s=1, key=lambda item: item[0]) as batcher:
            arrivals = [(0, "x1"), (2, "b1"), (3, "a1"), (4, "a2")]  # a is full first, b has waited longer
            await asyncio.gather(*(later(at, batcher, item) for at, item in arrivals))

    run(main())
    assert [items for *_, items in model.batches] == [["x1"], ["b1"], ["a1", "a2"]]


def test_an_error_reaches_exactly_those_of_its_batch():
    async def model(items):
        await asyncio.sleep(1)
        if "bad" in items:
            raise ConnectionError("the model fell over")
        return items

    async def main():
        async with Batcher(model, max_size=2, max_wait_s=1) as batcher:
            tasks = [asyncio.create_task(batcher.submit(item)) for item in ("a", "bad", "b", "c", "d")]
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run(main())
    assert [type(answer) for answer in answers[:2]] == [ConnectionError] * 2
    assert answers[2:] == ["b", "c", "d"]


def test_one_result_too_few_is_an_error_and_not_a_shift():
    async def model(items):
        return items[1:]

    async def main():
        async with Batcher(model, max_size=2, max_wait_s=0) as batcher:
            return await asyncio.gather(*map(batcher.submit, "abc"), return_exceptions=True)

    answers = run(main())
    assert all(isinstance(answer, BatchFailed) for answer in answers)
    assert "1 results for 2 items" in str(answers[0])


def test_a_run_that_is_cancelled_from_outside_fails_its_batch_and_the_batcher_goes_on():
    calls = []

    async def model(items):
        calls.append(items)
        if len(calls) == 1:
            raise asyncio.CancelledError
        return items

    async def main():
        async with Batcher(model, max_size=1, max_wait_s=0) as batcher:
            return await asyncio.gather(*map(batcher.submit, "ab"), return_exceptions=True)

    failed, served = run(main())
    assert isinstance(failed, BatchFailed)
    assert served == "b"


def test_when_the_batcher_itself_is_cancelled_nobody_is_left_waiting():
    async def main():
        batcher = Batcher(Doubler(base=100), max_size=1, max_wait_s=0)
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
        await asyncio.sleep(1)
        next(task for task in asyncio.all_tasks() if task.get_name() == "batcher").cancel()
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        return failed, await batcher.submit("again")

    failed, again = run(main())
    assert [type(error) for error in failed] == [BatchFailed] * 3
    assert again == ("r", "again")


def test_closing_runs_what_waits_at_once_and_takes_nothing_more():
    model = Doubler()

    async def main():
        batcher = Batcher(model, max_size=3, max_wait_s=1000)
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(5)]
        await asyncio.sleep(0.5)
        await batcher.aclose()
        assert all(task.done() for task in tasks)
        with pytest.raises(BatcherClosed):
            await batcher.submit(9)
        await batcher.aclose()
        return clock.now()

    assert run(main()) == 2
    assert sorted(model.items) == list(range(5))


def test_a_latency_budget_finds_the_largest_batch_that_keeps_it():
    model = Doubler(base=0.2, each=0.05)  # 16 items take 1.0 s

    async def main():
        async with Batcher(model, max_size=64, max_wait_s=0.5, latency_budget_s=1.5, queue_limit=10_000) as batcher:
            assert batcher.size == 1
            await asyncio.gather(*(batcher.submit(n) for n in range(2000)))
            return batcher.size

    size = run(main())
    lengths = [len(items) for *_, items in model.batches]
    assert lengths[:16] == list(range(1, 17)), "one more each time"
    assert max(lengths) == 17, "the first one over the budget"
    assert min(lengths[20:-1]) == 15, "and then a tenth less"
    assert 14 <= size <= 17


def test_the_same_batcher_works_on_the_wall_clock_and_in_one_loop_after_another():
    async def model(items):
        await asyncio.sleep(0.001)
        return [item + 1 for item in items]

    batcher = Batcher(model, max_size=4, max_wait_s=0.002)

    async def main():
        return await asyncio.gather(*map(batcher.submit, range(10)))

    assert asyncio.run(main()) == run(main()) == asyncio.run(main()) == list(range(1, 11))


@pytest.mark.parametrize("on", [run, asyncio.run], ids=["virtual clock", "wall clock"])
def test_texts_embedded_together_are_those_embedded_alone_and_equal_ones_once(on):
    seen = []

    def encode(texts):
        seen.append(list(texts))
        return np.array([[len(text), text.count("a")] for text in texts], np.float32)

    texts = ["a", "bb", "a", "aba", "bb", "c"]

    async def main():
        async with embed_batcher(encode, max_size=3) as batcher:
            return await asyncio.gather(*map(batcher.submit, texts))

    assert np.array_equal(np.stack(on(main())), encode(texts))
    assert [len(batch) for batch in seen[:-1]] == [3, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_size": 0},
        {"max_wait_s": -1},
        {"max_wait_s": float("inf")},
        {"latency_budget_s": 1.0},
        {"queue_limit": 3},
        {"priority_s": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(InvalidValue):
        Batcher(Doubler(), **{"max_size": 4, "max_wait_s": 1.0, **wrong})
