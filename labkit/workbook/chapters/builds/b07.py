"""The long build of chapter 07: a micro-batcher, which turns callers who come one by one into runs of many."""
# ruff: noqa: ARG001, ARG002 - stages and near misses keep the signature they share

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from labkit.batching import Batcher
from labkit.request import clock
from labkit.workbook.exercise import Exercise, Outcome, Stage, call, equals, holds, same

Run = Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]
Batchers = Callable[..., Any]


class MicroBatcher:
    """Collects items that come one at a time, and answers each from a `run` of many. One run at a time."""

    def __init__(self, run: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], max_size: int, max_wait_s: float) -> None:
        """`run` gets 1 to `max_size` items and gives a result for each, in order; a result may be an Exception.

        A run starts when `max_size` items wait, or when the first of them has waited `max_wait_s` seconds.
        """
        self._run, self._max_size, self._max_wait_s = run, max_size, max_wait_s
        self._waiting: dict[Hashable, tuple[str, float]] = {}  # item: its tenant, and when it has waited long enough
        self._answers: dict[Hashable, asyncio.Future[Any]] = {}  # of all items that wait or run
        self._callers: Counter[Hashable] = Counter()
        self._came = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Hashable, tenant: str = "", deadline: float | None = None) -> Any:
        """The result of `item`. Raises the item's own error, or `TimeoutError` at `deadline` (seconds of `clock.now()`).

        An item that waits or runs already is not run again: all its callers get the one result. An item that waits and
        whose last caller has left is not run at all.
        """
        if item not in self._answers:
            self._answers[item] = asyncio.get_running_loop().create_future()
            self._waiting[item] = (tenant, clock.now() + self._max_wait_s)
            self._came.set()
            if self._worker is None or self._worker.done():
                self._worker = asyncio.create_task(self._work())
        self._callers[item] += 1
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(self._answers[item])
        finally:
            self._callers[item] -= 1
            if not self._callers[item] and item in self._waiting:
                del self._waiting[item], self._answers[item]

    async def _work(self) -> None:
        while self._waiting:
            due = next(iter(self._waiting.values()))[1]
            if len(self._waiting) < self._max_size and clock.now() < due:
                self._came.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._came.wait()
                continue
            batch = self._taken()
            try:
                results = await self._run(batch)
                if len(results) != len(batch):
                    raise ValueError(f"run gave {len(results)} results for {len(batch)} items")
            except Exception as error:  # noqa: BLE001 - whatever it raises, the callers are told
                results = [error] * len(batch)
            for item, result in zip(batch, results, strict=True):
                answer = self._answers.pop(item)
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    def _taken(self) -> list[Any]:
        """The next batch: the first item of each tenant, then the second of each, and so on."""
        ahead: Counter[str] = Counter()
        ranked = []
        for place, (item, (tenant, _)) in enumerate(self._waiting.items()):
            ranked.append((ahead[tenant], place, item))
            ahead[tenant] += 1
        batch = [item for *_, item in sorted(ranked)[: self._max_size]]
        for item in batch:
            del self._waiting[item]
        return batch


@dataclass(frozen=True)
class _Caller:
    """Who asks for what, when; `leaves` is when its task is cancelled. Times in seconds."""

    at: float
    item: str
    tenant: str = ""
    deadline: float | None = None
    leaves: float | None = None


@dataclass
class _Seen:
    """The runs, each (begin, items), and what each caller got and when; a caller that got nothing has no entry."""

    runs: list[tuple[float, list[str]]] = field(default_factory=list)
    got: dict[int, tuple[Any, float]] = field(default_factory=dict)
    at_once: int = 0
    broken: list[Any] = field(default_factory=list)


class _Refused(Exception):
    """An item that cannot be answered."""


def _play(
    answer: Batchers,
    callers: Sequence[_Caller],
    max_size: int,
    max_wait_s: float,
    run_s: Callable[[int], float] = lambda _: 1.0,
    results: Callable[[Sequence[str]], Sequence[Any]] = lambda items: list(map(str.upper, items)),
) -> _Seen:
    """What becomes of the callers on the virtual clock; a run of n items takes `run_s(n)` seconds, and gives `results`."""
    seen, running = _Seen(), Counter[str]()

    async def run(items: Sequence[str]) -> Sequence[Any]:
        seen.runs.append((clock.now(), list(items)))
        running["now"] += 1
        seen.at_once = max(seen.at_once, running["now"])
        try:
            await asyncio.sleep(run_s(len(items)))
            return results(items)
        finally:
            running["now"] -= 1

    async def one(batcher: Any, n: int, caller: _Caller) -> None:
        asked = asyncio.ensure_future(batcher.submit(caller.item, tenant=caller.tenant, deadline=caller.deadline))
        if caller.leaves is not None:
            asyncio.get_running_loop().call_at(caller.leaves, asked.cancel)
        try:
            seen.got[n] = (await asked, clock.now())
        except asyncio.CancelledError:
            seen.got[n] = ("left", clock.now())
        except Exception as error:  # noqa: BLE001 - what a caller is told is what is looked at
            seen.got[n] = (error, clock.now())

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: seen.broken.append(what.get("exception")))
        batcher = call(answer, run, max_size, max_wait_s)
        asking = []
        for n, caller in enumerate(callers):  # in this order, also those who come at the same time
            await clock.sleep_until(caller.at)
            asking.append(asyncio.ensure_future(one(batcher, n, caller)))
        await asyncio.wait(asking, timeout=1000)

    clock.run_virtual(main())
    return seen


def _told(callers: Sequence[_Caller], max_size: int, max_wait_s: float) -> str:
    each = [
        f"{c.item!r} at {c.at:g} s"
        + (f" from {c.tenant}" if c.tenant else "")
        + (f", deadline {c.deadline:g} s" if c.deadline is not None else "")
        + (f", leaves at {c.leaves:g} s" if c.leaves is not None else "")
        for c in callers
    ]
    return f"max_size={max_size}, max_wait_s={max_wait_s:g}, a run takes 1 s; " + "; ".join(each)


def _runs(
    answer: Batchers,
    callers: Sequence[_Caller],
    max_size: int,
    max_wait_s: float,
    *runs: tuple[float, str],
    why: str = "",
    **more: Any,
) -> Iterator[Outcome]:
    """Whether these runs are made, each (begin, the items' letters), and each caller gets its own result at its end."""
    seen = _play(answer, callers, max_size, max_wait_s, **more)
    given = _told(callers, max_size, max_wait_s)
    right = [(at, list(items)) for at, items in runs]
    yield holds("the runs, (begin, items)", same(right, seen.runs), given=given, expected=right, actual=seen.runs, why=why)
    for n, caller in enumerate(callers):
        end = next((at + 1.0 for at, items in runs if caller.item in items and at + 1.0 > caller.at), None)
        told: Any = (caller.item.upper(), end)
        if caller.leaves is not None and (end is None or caller.leaves < end):
            told = ("left", caller.leaves)
        got = seen.got.get(n)
        yield holds(
            f"what the caller of {caller.item!r} at {caller.at:g} s gets, and when",
            got is not None and same(told, got),
            given=given,
            expected=told,
            actual=got,
            why="Each caller gets the result of its own item, as soon as its run ends.",
        )


def _starts(answer: Batchers, rng: random.Random) -> Iterator[Outcome]:
    come = [_Caller(at, item) for at, item in ((0, "a"), (1, "b"), (2, "c"), (10, "d"), (11, "e"), (20, "f"))]
    why = "A run starts when it is full, or when its first item has waited long enough; not before, not later."
    yield from _runs(answer, come, 3, 5.0, (2, "abc"), (15, "de"), (25, "f"), why=why)
    yield from _runs(answer, come[:3], 1, 5.0, (0, "a"), (1, "b"), (2, "c"), why="A batch of one is full at once.")
    yield from _runs(answer, [_Caller(3, "a")], 8, 0.0, (3, "a"), why="With no wait allowed, nobody waits.")
    burst = [_Caller(0, item) for item in "abcde"]
    yield from _runs(answer, burst, 2, 9.0, (0, "ab"), (1, "cd"), (9, "e"), why="No run may have more than max_size items.")


def _meanwhile(answer: Batchers, rng: random.Random) -> Iterator[Outcome]:
    come = [_Caller(at, item) for at, item in ((0, "a"), (0.25, "b"), (0.5, "c"), (0.75, "d"))]
    why = "One run at a time: what comes meanwhile waits, and makes the next run larger."
    yield from _runs(answer, come, 8, 0.0, (0, "a"), (1, "bcd"), why=why)
    for _ in range(4):
        at, come = 0.0, []
        for n in range(40):
            at += rng.expovariate(4)
            come.append(_Caller(at, f"item {n}"))
        size, wait, base = rng.randrange(2, 7), rng.uniform(0.1, 1), rng.uniform(0.1, 1)

        def run_s(n: int, base: float = base) -> float:
            return base + 0.01 * n

        def peer(run: Run, max_size: int, max_wait_s: float) -> Any:
            """The lab's own batcher, under the arguments of this build."""
            lab = Batcher(run, max_size=max_size, max_wait_s=max_wait_s)

            class Peer:
                async def submit(self, item: str, tenant: str, deadline: float | None) -> Any:
                    return await lab.submit(item)

            return Peer()

        mine, theirs = (_play(one, come, size, wait, run_s) for one in (answer, peer))
        given = f"40 items at random, about 4 a second; max_size={size}, max_wait_s={wait:.2f}, a run takes {base:.2f} s"
        yield equals(f"runs at the same time, given {given}", mine.at_once, 1)
        ok = same(theirs.runs, mine.runs, rel=1e-6)
        first = next((pair for pair in zip(theirs.runs, mine.runs, strict=False) if pair[0] != pair[1]), ("", ""))
        yield holds("the same runs as the lab's batcher", ok, given=given, expected=first[0], actual=first[1])
        ok = same(theirs.got, mine.got, rel=1e-6)
        yield holds("the same answers at the same times", ok, given=given, actual=f"{len(mine.got)} answers")


def _fails(answer: Batchers, rng: random.Random) -> Iterator[Outcome]:
    bad = _Refused("too long")

    def results(items: Sequence[str]) -> Sequence[Any]:
        if "x" in items:
            raise bad
        if "y" in items:
            return ["only one"]
        if "w" in items:
            return ["one", "two", "and one too many"]
        return [bad if item == "b" else item.upper() for item in items]

    come = [
        *(_Caller(0, item) for item in "abc"),
        *(_Caller(5, item) for item in "xd"),
        *(_Caller(9, item) for item in "ye"),
    ]
    come += [_Caller(14, "w"), _Caller(14, "f"), _Caller(19, "g")]
    right: list[Any] = ["A", bad, "C", bad, bad, *[ValueError] * 4, "G"]
    seen = _play(answer, come, 3, 1.0, results=results)
    given = "'b' comes back as an Exception, a run with 'x' raises, with 'y' gives too few results, with 'w' too many; "
    given += _told(come, 3, 1.0)
    for n, (caller, told) in enumerate(zip(come, right, strict=True)):
        got = seen.got.get(n, (f"nothing, it waits for ever; {seen.broken or ''}", 0))[0]
        yield holds(
            f"what the caller of {caller.item!r} gets",
            isinstance(got, Exception) and got is not bad if told is ValueError else got is told or got == told,
            given=given,
            expected="an error" if told is ValueError else told,
            actual=got,
            why="An item that failed is raised for its own callers. When the run itself fails, all of its callers are told, "
            "and the next run is made as if nothing had happened.",
        )


def _leaves(answer: Batchers, rng: random.Random) -> Iterator[Outcome]:
    come = [_Caller(0, "a"), _Caller(1, "b", leaves=2), _Caller(3, "c"), _Caller(4, "d")]
    why = "Whoever left takes the item along: nobody pays for an answer that no one waits for."
    yield from _runs(answer, come, 3, 9.0, (4, "acd"), why=why)
    why = "The first has left: the run may wait for the second as long as the second may wait."
    yield from _runs(answer, [_Caller(0, "a", leaves=2), _Caller(1, "b")], 8, 5.0, (6, "b"), why=why)
    why = "A run that is under way goes on: the others in it still wait for their results."
    yield from _runs(
        answer, [_Caller(0, "a", leaves=0.5), _Caller(0, "b"), _Caller(2, "c")], 2, 1.0, (0, "ab"), (3, "c"), why=why
    )
    why = "All have left: nothing is run, and the next caller is served as the first one was."
    yield from _runs(answer, [_Caller(0, "a", leaves=1), _Caller(20, "b")], 8, 5.0, (25, "b"), why=why)
    yield from _runs(answer, [_Caller(0, "a", leaves=1), _Caller(3, "b")], 8, 5.0, (8, "b"), why=why)
    yield from _runs(answer, [_Caller(0, "a", leaves=1), _Caller(3, "a")], 8, 5.0, (8, "a"), why=why)


def _twins(answer: Batchers, rng: random.Random) -> Iterator[Outcome]:
    why = "Twins count once: one computation, one place in the run, and each of its callers gets the result."
    yield from _runs(answer, [_Caller(0, "a"), _Caller(1, "a"), _Caller(2, "b")], 3, 5.0, (5, "ab"), why=why)
    why = "An item that runs already is not run again: whoever comes meanwhile joins it."
    yield from _runs(answer, [_Caller(0, "a"), _Caller(0.5, "a"), _Caller(0.5, "b")], 1, 0.0, (0, "a"), (1, "b"), why=why)
    why = "When it is done, it is done: this is no cache, and a later caller starts a new run."
    yield from _runs(answer, [_Caller(0, "a"), _Caller(3, "a")], 1, 0.0, (0, "a"), (3, "a"), why=why)
    why = "One of two twins leaves: the other still waits."
    for leaver in (0, 1):
        come = [_Caller(0, "a", leaves=3 if leaver == 0 else None), _Caller(1, "a", leaves=3 if leaver else None)]
        yield from _runs(answer, come, 8, 5.0, (5, "a"), why=why)
    why = "Both leave: the item goes."
    yield from _runs(
        answer, [_Caller(0, "a", leaves=2), _Caller(1, "a", leaves=3), _Caller(2.5, "b")], 8, 5.0, (7.5, "b"), why=why
    )


def _turns(answer: Batchers, rng: random.Random) -> Iterator[Outcome]:
    first = _Caller(0, "first", "bulk")
    flood = [_Caller(0.5, item, "bulk") for item in "qrstuv"]
    late = [_Caller(0.5, "a", "chat"), _Caller(0.5, "b", "chat"), _Caller(0.5, "m", "mail")]
    why = "Tenants take turns: the first item of each, in the order in which they came, then the second of each."
    for size in (2, 3, 4, 5, 9):
        come = [first, *flood, *late]
        found = [sorted(items) for _, items in _play(answer, come, size, 0.0).runs]
        right = [["first"], *map(sorted, _by_turns([*flood, *late], size))]
        yield holds("who is in which run", found == right, given=_told(come, size, 0), expected=right, actual=found, why=why)
    for limit in (0.5, 2.0):
        come = [_Caller(0, "a", deadline=limit), _Caller(0, "b")]
        seen = _play(answer, come, 8, 1.5)
        given = _told(come, 8, 1.5)
        error, at = seen.got.get(0, (None, 0.0))
        yield holds(
            "at its deadline the caller gets a TimeoutError",
            isinstance(error, TimeoutError) and abs(at - limit) < 1e-9,
            given=given,
            expected=("TimeoutError", limit),
            actual=(error, at),
        )
        left = limit < 1.5
        runs = [(1.5, ["b"] if left else ["a", "b"])]
        why = "An item whose only caller has given up is not run." if left else "The run goes on for the others."
        yield holds("the runs, (begin, items)", same(runs, seen.runs), given=given, expected=runs, actual=seen.runs, why=why)
        yield holds("the other caller is answered", seen.got.get(1) == ("B", 2.5), given=given, actual=seen.got.get(1))
    patient = _play(answer, [_Caller(0, "a", deadline=9.0)], 8, 1.5)
    yield holds("before its deadline it is answered", patient.got.get(0) == ("A", 2.5), actual=patient.got.get(0))


def _by_turns(callers: Sequence[_Caller], size: int) -> list[list[str]]:
    """The runs, if all items wait and tenants take turns within each."""
    left, found = list(callers), []
    while left:
        batch: list[_Caller] = []
        while left and len(batch) < size:
            for tenant in dict.fromkeys(caller.tenant for caller in left):
                if len(batch) < size:
                    one = next(caller for caller in left if caller.tenant == tenant)
                    batch.append(one)
                    left.remove(one)
        found.append([caller.item for caller in batch])
    return found


class _Gather(MicroBatcher):
    """Near miss: no batches at all, each item is a run of its own."""

    async def submit(self, item: Hashable, tenant: str = "", deadline: float | None = None) -> Any:
        return (await self._run([item]))[0]


class _Spends(MicroBatcher):
    """Near miss: it runs what nobody waits for any more."""

    async def submit(self, item: Hashable, tenant: str = "", deadline: float | None = None) -> Any:
        return await asyncio.shield(super().submit(item, tenant, deadline))


class _Queue(MicroBatcher):
    """Near miss: first come, first served, whoever they are."""

    async def submit(self, item: Hashable, tenant: str = "", deadline: float | None = None) -> Any:
        return await super().submit(item, "", deadline)


class _Strict(MicroBatcher):
    """Near miss: one failed item fails its whole run."""

    def __init__(self, run: Run, max_size: int, max_wait_s: float) -> None:
        async def strictly(items: Sequence[Any]) -> Sequence[Any]:
            results = await run(items)
            for result in results:
                if isinstance(result, Exception):
                    raise result
            return results

        super().__init__(strictly, max_size, max_wait_s)


class _Twice(MicroBatcher):
    """Near miss: twins are run side by side."""

    def __init__(self, run: Run, max_size: int, max_wait_s: float) -> None:
        super().__init__(lambda pairs: run([item for item, _ in pairs]), max_size, max_wait_s)

    async def submit(self, item: Hashable, tenant: str = "", deadline: float | None = None) -> Any:
        return await super().submit((item, object()), tenant, deadline)


BUILD = Exercise(
    id="07.5",
    title="Build: a micro-batcher that loses nobody",
    minutes=45,
    difficulty=3,
    answer="MicroBatcher",
    stages=(
        Stage("a run when it is full, or when the first has waited", _starts),
        Stage("one run at a time", _meanwhile),
        Stage("an item fails, a run fails", _fails),
        Stage("callers leave", _leaves),
        Stage("twins are run once", _twins),
        Stage("tenants take turns, deadlines hold", _turns),
    ),
    reference=MicroBatcher,
    hints=(
        "Keep what waits in a dict, in order of arrival, with the time at which each is due. `submit` puts the item in, "
        "starts a worker task if none is alive, and awaits a future; the worker runs batch after batch while something "
        "waits.",
        "The worker has to wake up for two reasons: the first item is due, or enough have come. An `asyncio.Event` that "
        "`submit` sets, waited for under `asyncio.timeout_at(due)`, does both. Look again after each wake-up: the first "
        "may have left.",
        "`run` may raise, give an Exception for one item, or too few results. Turn all three into a list of results, one "
        "for each item; then go through it and `set_exception` or `set_result`. Nothing may end the worker while somebody "
        "waits.",
        "A caller who leaves is cancelled at your `await`: `finally` is where to count the callers of the item down, and "
        "to drop an item that still waits when none is left. `asyncio.shield(future)` keeps one caller's leaving from the "
        "others.",
    ),
    wrong=(_Gather, _Spends, _Queue, _Strict, _Twice),
    equivalent={"line 66: ahead[tenant] += 1 -> ahead[tenant] += 2": "only the order of these numbers counts"},
)
